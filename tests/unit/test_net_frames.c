/* SPDX-License-Identifier: MIT */
/* Back ends that carry a frame per datagram or per write: dgram, socket with udp= and mcast=, tap. */
#include "net_card.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <arpa/inet.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/sock.h"

enum { BIG = 9000 };

static bool own_namespace;

/* A network namespace of our own, with loopback up and without IPv6 (which would send of its own accord), before any thread starts; not where the
 * host does not let us. */
static void enter_namespace(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        return;
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING | IFF_MULTICAST };
    own_namespace = ioctl(s, SIOCSIFFLAGS, &ifr) == 0;
    close(s);
    int no6 = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (no6 >= 0) {
        assert_int_equal(write(no6, "1", 1), 1);
        close(no6);
    }
}

static uint8_t big[BIG];

static void fill_big(void)
{
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 31 + i / 256);
}

/* Frames of both directions between two back ends that know each other. */
static void exchange(const char *left, const char *right)
{
    struct netdev *a = make(left), *b = make(right);
    struct card *x = plug(a), *y = plug(b);
    fill_big();
    for (unsigned i = 0; i < 5; i++) {
        assert_true(put(x, big, sizeof big - i));
        SERVE_UNTIL(y->got == i + 1);
        assert_int_equal(y->n, sizeof big - i);
        assert_memory_equal(y->pkt, big, y->n);
        assert_true(put(y, "abc", 3));
        SERVE_UNTIL(x->got == i + 1);
        assert_int_equal(x->n, 3);
    }
    unplug(x);
    unplug(y);
    unmake(a);
    unmake(b);
}

static void dgram_over_udp(void **state)
{
    if (!own_namespace)
        skip();                         /* its ports are another run's, too */
    exchange("dgram,id=a,local.type=inet,local.host=127.0.0.1,local.port=28431,remote.type=inet,remote.host=127.0.0.1,remote.port=28432",
             "dgram,id=b,local.type=inet,local.host=127.0.0.1,local.port=28432,remote.type=inet,remote.host=127.0.0.1,remote.port=28431");
    exchange("socket,id=a,udp=127.0.0.1:28434,localaddr=127.0.0.1:28433", "socket,id=b,udp=127.0.0.1:28433,localaddr=127.0.0.1:28434");
    refuse("dgram,id=c,local.host=127.0.0.1,local.port=http_no_such,remote.host=127.0.0.1,remote.port=9", "http_no_such");
}

static void dgram_over_unix(void **state)
{
    const char *file = "a.sock";
    exchange("dgram,id=a,local.type=unix,local.path=a.sock,remote.type=unix,remote.path=b.sock",
             "dgram,id=b,local.type=unix,local.path=b.sock,remote.type=unix,remote.path=a.sock");
    assert_int_equal(access(file, F_OK), -1);           /* taken away at the end */
    struct netdev *a = make("dgram,id=a,local.type=unix,local.path=a.sock,remote.type=unix,remote.path=none");
    struct card *x = plug(a);
    assert_true(put(x, "abc", 3));                      /* nobody there: lost */
    serve(3);
    refuse("dgram,id=b,local.type=unix,local.path=a.sock,remote.type=unix,remote.path=none", "in use");
    assert_int_equal(access(file, F_OK), 0);
    unplug(x);
    unmake(a);
}

/* An address that another holds is refused with its holder's name. */
static void busy_port_names_the_holder(void **state)
{
    if (!own_namespace)
        skip();                         /* its ports are another run's, too */
    struct netdev *a = make("socket,id=a,udp=127.0.0.1:28436,localaddr=127.0.0.1:28435");
    refuse("socket,id=b,udp=127.0.0.1:28436,localaddr=127.0.0.1:28435", "test_net_frames");
    unmake(a);
}

/* Counts a frame, or serves the main loop where there is none. */
static void take_1500(int fd, unsigned *got)
{
    static uint8_t frame[2000];
    ssize_t n = recv(fd, frame, sizeof frame, MSG_DONTWAIT);
    if (n == 1500)
        ++*got;
    else
        serve(1);
}

static void dgram_adopts_a_socket(void **state)
{
    int fds[2];
    char opt[64];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(opt, sizeof opt, "socket,id=a,fd=%d", fds[0]);
    struct netdev *a = make(opt);
    struct card *x = plug(a);
    uint8_t buf[64];
    assert_int_equal(send(fds[1], "hello", 5, 0), 5);
    SERVE_UNTIL(x->got == 1);
    assert_memory_equal(x->pkt, "hello", 5);
    assert_true(put(x, "back", 4));
    SERVE_UNTIL(recv(fds[1], buf, sizeof buf, 0) == 4);
    /* The peer does not read: the queue fills, then the card waits; it goes on when the peer reads again. Nothing is lost. */
    unsigned sent = 0, got = 0;
    for (int idle = 0; idle < 50;) {
        idle = put(x, big, 1500) ? (sent++, 0) : idle + 1;
        serve(1);
    }
    assert_in_range(sent, 10, 5000);
    UNTIL(got == sent, take_1500(fds[1], &got));
    assert_true(x->sent > 0);
    unplug(x);
    unmake(a);
    close(fds[1]);
}

/* A guest that has no room holds the socket back, and what waits comes in order. */
static void slow_guest_holds_back(void **state)
{
    int fds[2];
    char opt[64];
    uint32_t sent = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(opt, sizeof opt, "dgram,id=a,local.type=fd,local.str=%d", fds[0]);
    struct netdev *a = make(opt);
    struct card *x = plug(a);
    x->full = true;
    for (int idle = 0; idle < 20;) {
        memcpy(big, &sent, sizeof sent);
        idle = send(fds[1], big, 8000, MSG_DONTWAIT) > 0 ? (sent++, 0) : idle + 1;
        serve(1);
    }
    assert_in_range(sent, 50, 500);                     /* the port's queue, and what the kernel holds */
    x->full = false;
    net_port_ready(x->port);
    SERVE_UNTIL(x->got == sent);
    uint32_t last;
    memcpy(&last, x->pkt, sizeof last);
    assert_int_equal(last, sent - 1);
    unplug(x);
    unmake(a);
    close(fds[1]);
}

static void multicast_leaves_out_what_is_ours(void **state)
{
    if (!own_namespace)
        skip();                         /* not allowed to make a network namespace */
    struct netdev *nd[3] = { make("socket,id=a,mcast=239.192.84.1:28440,localaddr=127.0.0.1"),
                             make("dgram,id=b,remote.host=239.192.84.1,remote.port=28440,local.host=127.0.0.1"),
                             make("socket,id=c,mcast=239.192.84.2:28440,localaddr=127.0.0.1") };
    struct card *c[3];
    for (int i = 0; i < 3; i++)
        c[i] = plug(nd[i]);
    assert_true(put(c[0], "abc", 3));
    SERVE_UNTIL(c[1]->got == 1);
    assert_memory_equal(c[1]->pkt, "abc", 3);
    assert_true(put(c[1], "defg", 4));
    SERVE_UNTIL(c[0]->got == 1);
    assert_int_equal(c[0]->n, 4);
    serve(20);
    assert_int_equal(c[0]->got, 1);
    assert_int_equal(c[1]->got, 1);
    for (int i = 0; i < 3; i++) {
        unplug(c[i]);
        unmake(nd[i]);
    }
}

/* A raw socket on the host's side of the tap @name. */
static int host_side(const char *name)
{
    struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex(name) };
    int s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
    struct ifreq ifr = { .ifr_flags = IFF_UP };
    strcpy(ifr.ifr_name, name);
    assert_true(s >= 0);
    assert_int_equal(ioctl(s, SIOCSIFFLAGS, &ifr), 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    return s;
}

/* An Ethernet frame of a local experimental type (IEEE 802, 0x88b5), told apart by @tag. */
static size_t make_frame(uint8_t *f, uint8_t tag, size_t n)
{
    memset(f, tag, n);
    memset(f, 0xff, 6);
    memcpy(f + 6, "\x52\x54\0\0\0\1\x88\xb5", 8);
    return n;
}

static bool host_got(int s, uint8_t tag, size_t n)
{
    uint8_t buf[4096];
    ssize_t r;
    while ((r = recv(s, buf, sizeof buf, 0)) >= 0)
        if (r == (ssize_t)n && buf[12] == 0x88 && buf[13] == 0xb5 && buf[14] == tag)
            return true;
    return false;
}

/* Waits for the frame with @tag behind a header of @hdr bytes; the kernel's own packets (IPv6, IGMP) are passed over. */
static bool card_has(struct card *c, unsigned hdr, uint8_t tag, size_t n)
{
    return c->n == hdr + n && c->pkt[hdr + 12] == 0x88 && c->pkt[hdr + 13] == 0xb5 && c->pkt[hdr + 14] == tag;
}

static void tap_round_trip(const char *opt, bool with_headers)
{
    struct netdev *nd = make(opt);
    struct card *c = plug(nd);
    int s = host_side("bp0");
    struct net_caps caps;
    uint8_t f[12 + 1514] = { 0 };
    net_port_caps(c->port, &caps);
    assert_int_equal(caps.vnet_hdr, with_headers);
    assert_int_equal(caps.csum, with_headers);
    assert_true(put(c, f, make_frame(f, 1, 100)));
    SERVE_UNTIL(host_got(s, 1, 100));
    make_frame(f, 2, 200);
    assert_int_equal(send(s, f, 200, 0), 200);
    SERVE_UNTIL(card_has(c, 0, 2, 200));
    for (unsigned hdr = 10; with_headers && hdr <= 12; hdr += 2) {
        net_port_set_offload(c->port, &(struct net_caps){ .csum = true, .tso4 = caps.tso4 }, hdr);
        memset(f, 0, hdr);
        make_frame(f + hdr, (uint8_t)hdr, 1514);
        assert_true(put(c, f, hdr + 1514));
        SERVE_UNTIL(host_got(s, (uint8_t)hdr, 1514));
        make_frame(f, (uint8_t)(hdr + 1), 300);
        assert_int_equal(send(s, f, 300, 0), 300);
        SERVE_UNTIL(card_has(c, hdr, (uint8_t)(hdr + 1), 300));
    }
    unplug(c);
    c = plug(nd);                       /* the next card begins without headers */
    assert_true(put(c, f, make_frame(f, 5, 99)));
    SERVE_UNTIL(host_got(s, 5, 99));
    close(s);
    unplug(c);
    unmake(nd);
    assert_int_equal(if_nametoindex("bp0"), 0);
}

static void tap_carries_frames(void **state)
{
    if (!own_namespace || access("/dev/net/tun", R_OK | W_OK) < 0)
        skip();                         /* not allowed to make interfaces */
    tap_round_trip("tap,id=t,ifname=bp0,script=no,downscript=no", true);
    tap_round_trip("tap,id=t,ifname=bp0,script=no,downscript=no,vnet_hdr=off", false);
    struct netdev *nd = make("tap,id=t,ifname=bp0,script=no,downscript=no");
    refuse("tap,id=u,ifname=bp0,script=no,downscript=no", "bp0");
    unmake(nd);
    refuse("tap,id=u,ifname=lo,script=no,downscript=no", "lo");
}

static void tap_runs_scripts(void **state)
{
    if (!own_namespace || access("/dev/net/tun", R_OK | W_OK) < 0)
        skip();                         /* not allowed to make interfaces */
    char dir[] = "/tmp/bp-tap-XXXXXX", up[64], log[64], opt[256], text[64] = "";
    assert_non_null(mkdtemp(dir));
    snprintf(up, sizeof up, "%s/run", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    FILE *f = fopen(up, "w");
    fprintf(f, "#!/bin/sh\necho \"$1\" >>%s\n", log);
    fchmod(fileno(f), 0700);
    fclose(f);
    snprintf(opt, sizeof opt, "tap,id=t,ifname=bp1,script=%s,downscript=%s", up, up);
    unmake(make(opt));
    f = fopen(log, "r");
    assert_non_null(f);
    assert_int_equal(fread(text, 1, sizeof text, f), 8);
    assert_string_equal(text, "bp1\nbp1\n");
    fclose(f);
    snprintf(opt, sizeof opt, "tap,id=t,ifname=bp1,script=%s/missing", dir);
    refuse(opt, "missing");
    refuse("tap,id=t,ifname=bp1,script=/bin/false", "status 1");
    assert_int_equal(if_nametoindex("bp1"), 0);
    unlink(log);
    unlink(up);
    rmdir(dir);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(dgram_over_udp), cmocka_unit_test(dgram_over_unix), cmocka_unit_test(busy_port_names_the_holder),
        cmocka_unit_test(dgram_adopts_a_socket), cmocka_unit_test(slow_guest_holds_back),
        cmocka_unit_test(multicast_leaves_out_what_is_ours), cmocka_unit_test(tap_carries_frames), cmocka_unit_test(tap_runs_scripts),
    };
    enter_namespace();
    return net_folder_enter() ? RUN_IN_BOTH_MODES(tests) : 1;
}
