/* SPDX-License-Identifier: MIT */
/*
 * Network back ends: hub, queues, links that are down, streams and their hostile peers; the user network with DHCP, forwarded ports,
 * and whatever packets a guest makes up.
 */
#include "net_card.h"
#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>

#ifdef CONFIG_SLIRP
#include "net/user_int.h"
#endif

/* ---- ports and hubs ---- */

static void hub_copies_to_the_others(void **state)
{
    struct netdev *nd[3] = { make("hubport,id=h0,hubid=1"), make("hubport,id=h1,hubid=1"), make("hubport,id=h2,hubid=2") };
    struct card *c[3];
    for (int i = 0; i < 3; i++)
        c[i] = plug(nd[i]);
    struct iovec iov[2] = { { "abc", 3 }, { "defg", 4 } };
    assert_true(net_send(c[0]->port, iov, 2));
    SERVE_UNTIL(c[1]->got == 1);
    serve(3);
    assert_int_equal(c[1]->n, 7);
    assert_memory_equal(c[1]->pkt, "abcdefg", 7);
    assert_int_equal(c[0]->got + c[2]->got, 0);
    for (int i = 0; i < 3; i++) {
        unplug(c[i]);
        unmake(nd[i]);
    }
}

static void queue_is_bounded_ordered_and_wakes(void **state)
{
    struct netdev *a = make("hubport,id=a"), *b = make("hubport,id=b");
    struct card *x = plug(a), *y = plug(b);
    uint8_t pkt[3001];
    uint32_t n = 0;
    y->full = true;
    /* x's packets wait at y; once y is full the hub loses them and x never waits */
    for (; n < 1000; n++) {
        memset(pkt, (int)n, sizeof pkt);
        memcpy(pkt, &n, sizeof n);
        assert_true(put(x, pkt, 1514));
        serve(1);
    }
    assert_int_equal(y->got, 0);
    assert_true(net_port_drops(y->port) > 0);
    y->full = false;
    net_port_ready(y->port);
    SERVE_UNTIL(y->got + net_port_drops(y->port) == n);
    uint32_t last;
    memcpy(&last, y->pkt, sizeof last);
    assert_int_equal(last, y->got - 1);         /* the oldest were kept, in order */
    assert_int_equal(y->n, 1514);
    /* straight at a queue: the sender is told */
    struct net_port *back = a->port;
    struct iovec iov = { pkt, sizeof pkt };
    x->full = true;
    while (net_send(back, &iov, 1))
        ;
    x->full = false;
    net_port_ready(x->port);
    SERVE_UNTIL(x->got > 100);
    memset(pkt, 0, sizeof pkt);
    assert_true(put(x, pkt, NET_MAX_PACKET + 1));           /* no wire carries it */
    unplug(x);
    unplug(y);
    unmake(a);
    unmake(b);
}

static void link_down_loses_packets(void **state)
{
    struct netdev *a = make("hubport,id=a"), *b = make("hubport,id=b");
    struct card *x = plug(a), *y = plug(b);
    net_port_set_link(a->port, false);
    assert_int_equal(x->link, 1);
    assert_false(net_link_up(x->port));
    assert_true(put(x, "lost", 4));
    serve(5);
    assert_int_equal(y->got, 0);
    net_port_set_link(x->port, true);
    assert_true(put(x, "seen", 4));
    SERVE_UNTIL(y->got == 1);
    struct err e = ERR_INIT;
    assert_null(net_port_connect(&a->obj, NULL, &card_ops, x, "other", &e));
    assert_non_null(strstr(e.msg, "already used by card"));
    assert_false(obj_user_delete(&a->obj, &e));
    unplug(x);
    unplug(y);
    unmake(a);
    unmake(b);
}

static void errors_name_the_mistake(void **state)
{
    refuse("usr,id=a", "usr");
    refuse("hubport", "'id' is missing");
    refuse("hubport,id=a,hubid=x", "hubid");
    refuse("stream,id=a,addr.type=unix,addr.host=x,addr.port=1", "addr.host has no effect with addr.type=unix");
    refuse("stream,id=a,server=on,reconnect=1,addr.type=unix,addr.path=/x", "reconnect has no effect");
    refuse("stream,id=a,addr.type=unix,addr.path=/nonexistent/x", "/nonexistent/x");
    refuse("socket,id=a", "exactly one");
    refuse("socket,id=a,udp=127.0.0.1:1", "localaddr");
    refuse("socket,id=a,listen=:0,localaddr=:1", "localaddr");
    refuse("socket,id=a,lisen=:0", "lisen");
    refuse("dgram,id=a", "peer's address");
    refuse("dgram,id=a,remote.type=inet,remote.host=127.0.0.1,remote.port=9", "local.* is missing");
    refuse("dgram,id=a,remote.type=unix,remote.path=/x,local.type=inet,local.port=1", "differ");
    refuse("dgram,id=a,remote.type=unix,remote.host=x,remote.port=1", "remote.host has no effect with remote.type=unix");
    refuse("dgram,id=a,remote.host=239.1.1.1,remote.port=9,local.port=9", "no effect with a multicast group");
    refuse("dgram,id=a,local.type=fd,local.str=0", "not a socket");
    refuse("tap,id=a,ifname=nameofmorethan15chars", "ifname");
    refuse("tap,id=a,fd=0,ifname=x", "no effect");
    refuse("tap,id=a,fd=0", "not a tap");
    refuse("bridge,id=a,helper=/nonexistent/helper", "/nonexistent/helper");
    refuse("bridge,id=a,helper=/bin/false", "status 1");
    refuse("bridge,id=a,helper=/bin/true,br=br7", "br7");
#ifdef CONFIG_SLIRP
    refuse("user,id=a,net=10.0.2.0/33", "net");
    refuse("user,id=a,host=1.2.3.4", "not in the network");
    refuse("user,id=a,hostfwd=tcp::99999-:22", "99999");
    refuse("user,id=a,hostfwd=tcp::22", "guest's side");
    refuse("user,id=a,guestfwd=udp:10.0.2.100:7-cmd:x", "only tcp");
    refuse("user,id=a,tftp=/nonexistent", "tftp");
    refuse("user,id=a,smb=/tmp", "smb");
#endif
    assert_null(obj_find("netdev", "a"));
}

/* ---- stream ---- */

static void streams_meet(void **state)
{
    struct netdev *a = make("stream,id=a,server=on,addr.type=unix,addr.path=meet");
    struct netdev *b = make("stream,id=b,addr.type=unix,addr.path=meet,reconnect-ms=20");
    struct card *x = plug(a), *y = plug(b);
    static uint8_t big[NET_MAX_PACKET];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 31 + i / 256);
    UNTIL(y->got, (put(x, "abc", 3), serve(2)));        /* lost until they met */
    assert_memory_equal(y->pkt, "abc", 3);
    unsigned before = y->got;
    for (unsigned i = 0; i < 5; i++) {
        assert_true(put(y, big, sizeof big - i));
        SERVE_UNTIL(x->got == i + 1);
        assert_int_equal(x->n, sizeof big - i);
        assert_memory_equal(x->pkt, big, x->n);
    }
    assert_true(y->got >= before);
    unplug(x);
    unplug(y);
    unmake(a);
    unmake(b);
}

/* A peer that lies about lengths, cuts frames anywhere and does not read. */
static void hostile_peer_is_bounded(void **state)
{
    int fds[2];
    char opt[64];
    uint8_t head[4];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(opt, sizeof opt, "socket,id=s,fd=%d", fds[0]);
    struct netdev *nd = make(opt);
    struct card *c = plug(nd);
    static const uint8_t two[] = { 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 2, 'd', 'e' };
    for (size_t i = 0; i < sizeof two; i++) {
        assert_int_equal(write(fds[1], two + i, 1), 1);
        serve(2);
    }
    SERVE_UNTIL(c->got == 2);
    assert_memory_equal(c->pkt, "de", 2);
    uint8_t pkt[1514] = { 0 };
    unsigned n = 0;
    while (put(c, pkt, sizeof pkt) && ++n < 100000)     /* it reads nothing: at some point there is no room */
        serve(1);
    assert_true(n < 5000);
    st_be32(head, NET_MAX_PACKET + 1);
    assert_int_equal(write(fds[1], head, 4), 4);
    uint8_t buf[65536];
    ssize_t r;
    SERVE_UNTIL((r = read(fds[1], buf, sizeof buf)) == 0 || (r < 0 && errno != EAGAIN));    /* thrown out */
    SERVE_UNTIL(c->sent > 0);                           /* and the guest's card is free again */
    unplug(c);
    unmake(nd);
    close(fds[1]);
}

/* ---- the user network ---- */

#ifdef CONFIG_SLIRP
static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

static uint16_t ip_sum(const uint8_t *p, size_t n)
{
    uint32_t s = 0;
    for (size_t i = 0; i < n; i += 2)
        s += ld_be16(p + i);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)~s;
}

/* An Ethernet frame with IPv4 and @proto around @data, from the guest to @dst; its length. */
static size_t frame(uint8_t *out, uint32_t src, uint32_t dst, uint8_t proto, const uint8_t *data, size_t n)
{
    memset(out, 0xff, 6);
    memcpy(out + 6, guest_mac, 6);
    st_be16(out + 12, 0x0800);
    uint8_t *ip = out + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    st_be16(ip + 2, (uint16_t)(20 + n));
    ip[8] = 64;
    ip[9] = proto;
    st_be32(ip + 12, src);
    st_be32(ip + 16, dst);
    st_be16(ip + 10, ip_sum(ip, 20));
    memcpy(ip + 20, data, n);
    return 34 + n;
}

static void dhcp_gives_an_address(void **state)
{
    struct netdev *nd = make("user,id=u,net=192.168.7.0/24,dhcpstart=192.168.7.40,hostname=board");
    struct card *c = plug(nd);
    uint8_t udp[8 + 240 + 16] = { 0 }, pkt[600], *bootp = udp + 8;
    st_be16(udp, 68);
    st_be16(udp + 2, 67);
    st_be16(udp + 4, sizeof udp);
    bootp[0] = 1, bootp[1] = 1, bootp[2] = 6;
    memcpy(bootp + 28, guest_mac, 6);
    st_be32(bootp + 236, 0x63825363);
    memcpy(bootp + 240, (const uint8_t[]){ 53, 1, 1, 255 }, 4);          /* DISCOVER (RFC 2132, 9.6) */
    assert_true(put(c, pkt, frame(pkt, 0, 0xffffffff, 17, udp, sizeof udp)));
    SERVE_UNTIL(c->got >= 1 && c->n > 300 && ld_be16(c->pkt + 36) == 68);
    assert_int_equal(ld_be32(c->pkt + 42 + 16), 0xc0a80728);             /* yiaddr 192.168.7.40 */
    unplug(c);
    unmake(nd);
}

/* A TCP connection to a forwarded port reaches the guest as a SYN. */
static void forwarded_port_reaches_the_guest(void **state)
{
    struct err e = ERR_INIT;
    struct netdev *nd = make("user,id=u,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22");
    struct card *c = plug(nd);
    char *text = slirp_connection_info(((struct user_net *)nd)->slirp), *at = strstr(text, "127.0.0.1");
    unsigned port = 0;
    assert_non_null(at);
    assert_int_equal(sscanf(at, "127.0.0.1 %u", &port), 1);
    assert_true(port > 0);
    free(text);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    SERVE_UNTIL(c->got && ld_be16(c->pkt + 12) == 0x0806);               /* who has 10.0.2.15? */
    uint8_t arp[64] = { 0 };
    memcpy(arp, c->pkt + 6, 6);
    memcpy(arp + 6, guest_mac, 6);
    memcpy(arp + 12, c->pkt + 12, 8);
    st_be16(arp + 20, 2);
    memcpy(arp + 22, guest_mac, 6);
    memcpy(arp + 28, c->pkt + 38, 4);
    memcpy(arp + 32, c->pkt + 22, 10);
    assert_true(put(c, arp, 60));
    SERVE_UNTIL(ld_be16(c->pkt + 12) == 0x0800 && c->pkt[23] == 6);
    assert_int_equal(ld_be16(c->pkt + 36), 22);
    assert_int_equal(c->pkt[47] & 0x12, 2);                              /* SYN */
    char busy[64];
    snprintf(busy, sizeof busy, "tcp:127.0.0.1:%u-:23", port);
    assert_false(user_hostfwd_add((struct user_net *)nd, busy, &e));
    assert_int_equal(e.cls, ERR_BUSY);
    snprintf(busy, sizeof busy, "tcp:127.0.0.1:%u", port);
    assert_true(user_hostfwd_remove((struct user_net *)nd, busy, &e));
    close(fd);
    unplug(c);
    unmake(nd);
}

/* With nothing going on nothing is done: no timer is armed, no descriptor fires. */
static void idle_network_sleeps(void **state)
{
    struct netdev *nd = make("user,id=u");
    struct user_net *u = (struct user_net *)nd;
    serve(5);
    unsigned before = u->generation;
    int64_t end = clock_now(CLOCK_HOST) + 300000000;
    while (clock_now(CLOCK_HOST) < end)
        loop_run_once(loop_main(), end - clock_now(CLOCK_HOST));
    assert_true(u->generation - before <= 2);
    unmake(nd);
}

/* Packets that no guest should send. */
static void hostile_packets_do_no_harm(void **state)
{
    struct netdev *nd = make("user,id=u");
    struct card *c = plug(nd);
    uint8_t pkt[2048];
    uint32_t seed = 1;
    for (int i = 0; i < 3000; i++) {
        size_t n = 1 + (size_t)i % 1500;
        for (size_t k = 0; k < n; k++)
            pkt[k] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
        if (n > 14)
            st_be16(pkt + 12, i & 1 ? 0x0800 : i & 2 ? 0x86dd : 0x0806);
        if (n > 15)
            pkt[14] = i & 1 ? 0x45 : 0x60;
        put(c, pkt, n);
        if (i % 50 == 0)
            serve(1);
    }
    serve(10);
    unplug(c);
    unmake(nd);
}
#endif

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(hub_copies_to_the_others), cmocka_unit_test(queue_is_bounded_ordered_and_wakes),
        cmocka_unit_test(link_down_loses_packets), cmocka_unit_test(errors_name_the_mistake),
        cmocka_unit_test(streams_meet), cmocka_unit_test(hostile_peer_is_bounded),
#ifdef CONFIG_SLIRP
        cmocka_unit_test(dhcp_gives_an_address), cmocka_unit_test(forwarded_port_reaches_the_guest),
        cmocka_unit_test(idle_network_sleeps), cmocka_unit_test(hostile_packets_do_no_harm),
#endif
    };
    return net_folder_enter() ? RUN_IN_BOTH_MODES(tests) : 1;
}
