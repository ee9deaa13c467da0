/* SPDX-License-Identifier: MIT */
/* virtio-net: what is offered, packets both ways, back pressure, filters, queue pairs, hashes, saved state, guests that do wrong. */
#include "virtio_drv.h"
#include "hw/virtio/virtio_net.h"
#include "net/net_int.h"

#define F(bit) BIT64(VIRTIO_NET_F_##bit)

/* ---- a back end under the test's control ---- */

struct probe {
    struct netdev nd;
    uint8_t pkt[NET_MAX_PACKET];
    size_t n;
    unsigned got, offload_calls, hdr_len;
    bool full;
    struct net_caps use;
};
static struct net_caps probe_caps;      /* of the next one that is made */

static bool probe_receive(void *arg, const uint8_t *pkt, size_t n)
{
    struct probe *p = arg;
    if (p->full)
        return false;
    memcpy(p->pkt, pkt, n);
    p->n = n;
    p->got++;
    return true;
}

static void probe_offload(void *arg, const struct net_caps *use, unsigned hdr_len)
{
    struct probe *p = arg;
    p->use = *use;
    p->hdr_len = hdr_len;
    p->offload_calls++;
}

static const struct net_port_ops probe_ops = { .receive = probe_receive, .set_offload = probe_offload };
static bool probe_open(struct netdev *nd, struct err *e)
{
    nd->port = net_port_new(&nd->obj, &probe_ops, nd);
    net_port_set_caps(nd->port, &probe_caps);
    return true;
}
static void probe_close(struct netdev *nd) { }
static const struct netdev_class probe_class = {
    .obj = { .name = "netdev-probe", .desc = "Test", .base = &netdev_class, .size = sizeof(struct probe) },
    .open = probe_open, .close = probe_close,
};
OBJ_CLASS(&probe_class.obj);

/* ---- a machine with a card ---- */

enum { RX, TX, CTRL };
static struct probe *net;
static struct dev *card;

static void machine_with(const char *opts, struct net_caps caps)
{
    struct err e = ERR_INIT;
    json_t *o = json_object();
    char text[512];
    probe_caps = caps;
    vd_open();
    net = (struct probe *)obj_create(&probe_class.obj, "n0", o, NULL, &e);
    assert_non_null(net);
    json_decref(o);
    snprintf(text, sizeof text, "{'driver':'virtio-net-device','id':'card','netdev':'n0','mac':'52:54:00:01:02:03'%s}", opts);
    card = vd_dev(text);
    dev_reset_tree(card, RESET_COLD);
}

static void machine(const char *opts) { machine_with(opts, (struct net_caps){ 0 }); }

static void machine_end(void)
{
    struct err e = ERR_INIT;
    vd_close();
    if (!obj_user_delete(&net->nd.obj, &e))
        fail_msg("%s", e.msg);
}

static const uint8_t me[6] = { 0x52, 0x54, 0, 1, 2, 3 }, other[6] = { 0x52, 0x54, 0, 9, 9, 9 };

/* A frame of @n bytes to @dst whose rest counts up from @seed. */
static const uint8_t *frame(const uint8_t *dst, size_t n, unsigned seed)
{
    static uint8_t b[NET_MAX_PACKET];
    memcpy(b, dst, 6);
    memcpy(b + 6, other, 6);
    b[12] = 0x88;
    b[13] = 0xb5;
    for (size_t i = 14; i < n; i++)
        b[i] = (uint8_t)(seed + i);
    return b;
}

static bool wire(const void *p, size_t n)
{
    struct iovec iov = { (void *)(uintptr_t)p, n };
    bool ok = net_send(net->nd.port, &iov, 1);
    vd_run();
    return ok;
}

/* Control command with @n bytes; its result. */
static int control(unsigned q, uint8_t class, uint8_t cmd, const void *data, uint32_t n)
{
    struct vd_buf b[2] = { { vd_alloc(n + 2), n + 2, false }, { vd_alloc(1), 1, true } };
    uint8_t *p = vd_host(b[0].addr);
    p[0] = class;
    p[1] = cmd;
    memcpy(p + 2, data, n);
    *vd_host(b[1].addr) = 77;
    vd_add(q, b, 2);
    vd_kick(q);
    assert_int_equal(vd_used(q), 1);
    return *vd_host(b[1].addr);
}

static void transmit(unsigned q, uint32_t hdr, const uint8_t *pkt, uint32_t n)
{
    struct vd_buf b[2] = { { vd_alloc(hdr), hdr, false }, { vd_alloc(n), n, false } };
    memcpy(vd_host(b[1].addr), pkt, n);
    vd_add(q, b, 2);
    vd_kick(q);
}

/* ---- tests ---- */

static void test_offer_follows_the_back_end(void **state)
{
    uint64_t offloads = F(CSUM) | F(GUEST_CSUM) | F(HOST_TSO4) | F(HOST_TSO6) | F(HOST_UFO) | F(HOST_USO) | F(HOST_ECN) | F(GUEST_TSO4) |
                        F(GUEST_TSO6) | F(GUEST_UFO) | F(GUEST_USO4) | F(GUEST_USO6) | F(GUEST_ECN) | F(CTRL_GUEST_OFFLOADS);
    uint64_t always = F(MAC) | F(MRG_RXBUF) | F(STATUS) | F(CTRL_VQ) | F(CTRL_RX) | F(CTRL_VLAN) | F(CTRL_RX_EXTRA) | F(GUEST_ANNOUNCE) |
                      F(CTRL_MAC_ADDR);
    struct net_caps all = { true, true, true, true, true, true, true }, no_csum = { .vnet_hdr = true, .tso4 = true };
    uint64_t mine = always | offloads | F(MQ) | F(RSS) | F(HASH_REPORT) | F(MTU) | F(SPEED_DUPLEX);

    machine("");
    assert_int_equal(vd_features() & mine, always);
    machine_end();
    machine_with("", all);
    assert_int_equal(vd_features() & mine, always | offloads);
    machine_end();
    machine_with("", no_csum);                  /* segmentation without checksums is nothing (5.1.3.1) */
    assert_int_equal(vd_features() & mine, always);
    machine_end();
    machine_with(",'csum':false,'guest_tso4':false,'guest_tso6':false", all);
    assert_int_equal(vd_features() & mine, always | F(GUEST_CSUM) | F(GUEST_UFO) | F(GUEST_USO4) | F(GUEST_USO6) | F(CTRL_GUEST_OFFLOADS));
    machine_end();
    machine(",'ctrl_vq':false");
    assert_int_equal(vd_features() & mine, F(MAC) | F(MRG_RXBUF) | F(STATUS));
    machine_end();
    machine(",'mq':true,'queue-pairs':4,'rss':true,'hash':true,'host_mtu':1400,'speed':1000,'duplex':'full'");
    assert_int_equal(vd_features() & mine, always | F(MQ) | F(RSS) | F(HASH_REPORT) | F(MTU) | F(SPEED_DUPLEX));
    assert_int_equal(r32(0x108), 4 | 1400 << 16);
    assert_int_equal(r32(0x10c), 1000);
    assert_int_equal(r8(0x110), 1);
    assert_int_equal(r8(0x111), 40);
    machine_end();
}

static void refused(const char *opts, const char *why)
{
    struct err e = ERR_INIT;
    char text[256];
    snprintf(text, sizeof text, "{'driver':'virtio-net-device'%s}", opts);
    vd_open();
    assert_null(vd_try(text, &e));
    if (!strstr(e.msg, why))
        fail_msg("%s: %s", opts, e.msg);
    vd_close();
}

static void test_options_that_contradict(void **state)
{
    refused(",'queue-pairs':2", "queue-pairs");
    refused(",'mq':true,'ctrl_vq':false", "ctrl_vq");
    refused(",'host_mtu':67", "host_mtu");
    refused(",'mac':'01:00:5e:00:00:01'", "not a valid value");
    refused(",'netdev':'nowhere'", "nowhere");
}

static void test_features_that_need_others(void **state)
{
    struct net_caps all = { true, true, true, true, true, true, true };
    machine_with("", all);
    assert_true(vd_negotiate(F(CSUM) | F(HOST_TSO4)));
    assert_false(vd_negotiate(F(HOST_TSO4)));
    assert_false(vd_negotiate(F(GUEST_TSO6)));
    assert_false(vd_negotiate(F(CSUM) | F(HOST_TSO4) | F(CTRL_RX)));
    assert_false(vd_negotiate(F(CSUM) | F(HOST_ECN)));
    machine_end();
}

static void test_packets_both_ways(void **state)
{
    machine("");
    vd_start(0, 2);
    transmit(TX, 12, frame(other, 60, 1), 60);
    assert_int_equal(vd_used(TX), 0);
    assert_int_equal(net->got, 1);
    assert_int_equal(net->n, 60);
    assert_memory_equal(net->pkt, frame(other, 60, 1), 60);
    uint64_t at = vd_offer(RX, 2048);
    assert_true(wire(frame(me, 100, 7), 100));
    assert_int_equal(vd_used(RX), 112);
    assert_memory_equal(vd_host(at + 12), frame(me, 100, 7), 100);
    assert_int_equal(ld_le16(vd_host(at + 10)), 1);             /* num_buffers (5.1.6.4) */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(*vd_host(at + i), 0);
    machine_end();
}

static void test_merged_buffers(void **state)
{
    uint64_t at[4];
    machine("");
    vd_start(F(MRG_RXBUF), 2);
    for (unsigned i = 0; i < 4; i++)
        at[i] = vd_offer(RX, 512);
    assert_true(wire(frame(me, 1400, 3), 1400));
    assert_int_equal(vd_used(RX), 512);
    assert_int_equal(vd_used(RX), 512);
    assert_int_equal(vd_used(RX), 12 + 1400 - 1024);
    assert_int_equal(vd_used(RX), -1);
    assert_int_equal(ld_le16(vd_host(at[0] + 10)), 3);
    const uint8_t *f = frame(me, 1400, 3);
    assert_memory_equal(vd_host(at[0] + 12), f, 500);
    assert_memory_equal(vd_host(at[1]), f + 500, 512);
    assert_memory_equal(vd_host(at[2]), f + 1012, 388);
    machine_end();
}

static void test_too_small_a_buffer_loses_the_packet(void **state)
{
    machine("");
    vd_start(0, 2);
    vd_offer(RX, 64);
    wire(frame(me, 200, 3), 200);
    assert_int_equal(vd_used(RX), -1);
    wire(frame(me, 52, 4), 52);
    assert_int_equal(vd_used(RX), 64);
    machine_end();
}

/* No buffers: packets wait at the port, in order, and come when there are some. */
static void test_receive_waits_for_buffers(void **state)
{
    machine("");
    vd_start(0, 2);
    for (unsigned i = 0; i < 5; i++)
        assert_true(wire(frame(me, 60 + i, i), 60 + i));
    for (unsigned i = 0; i < 5; i++) {
        uint64_t at = vd_offer(RX, 256);
        assert_int_equal(vd_used(RX), 12 + 60 + i);
        assert_memory_equal(vd_host(at + 12), frame(me, 60 + i, i), 60 + i);
    }
    machine_end();
}

/* The back end is full: the packet stays in the ring and goes out later, once. */
static void test_transmit_waits_for_room(void **state)
{
    static uint8_t big[60000];
    unsigned done = 0, sent = 0;
    machine("");
    vd_start(0, 2);
    net->full = true;
    memcpy(big, frame(other, sizeof big, 0), sizeof big);
    for (; sent < 16 && done == sent; sent++) {
        vd_pool = HW_RAM + 0x10000;             /* the same bytes each time */
        struct vd_buf b = { vd_alloc(12 + sizeof big), 12 + sizeof big, false };
        memcpy(vd_host(b.addr) + 12, big, sizeof big);
        vd_add(TX, &b, 1);
        vd_kick(TX);
        done += vd_used(TX) == 0;
    }
    assert_in_range(sent, 5, 12);               /* the port's queue is bounded */
    assert_int_equal(net->got, 0);
    net->full = false;
    net_port_ready(net->nd.port);
    vd_run();
    assert_int_equal(vd_used(TX), 0);
    assert_int_equal(vd_used(TX), -1);
    assert_int_equal(net->got, sent);
    assert_int_equal(net->n, sizeof big);
    machine_end();
}

static void test_link(void **state)
{
    machine("");
    vd_start(F(STATUS), 2);
    assert_int_equal(r32(0x104) >> 16 & 1, 1);
    uint64_t gen = r32(0xfc);
    net_port_set_link(net->nd.port, false);
    vd_run();
    assert_int_equal(r32(0x60) & 2, 2);
    assert_int_not_equal(r32(0xfc), gen);
    assert_int_equal(r32(0x104) >> 16 & 1, 0);
    transmit(TX, 12, frame(other, 60, 1), 60);
    assert_int_equal(vd_used(TX), 0);           /* lost, as on a pulled cable */
    assert_int_equal(net->got, 0);
    net_port_set_link(net->nd.port, true);
    assert_int_equal(r32(0x104) >> 16 & 1, 1);
    machine_end();
}

static bool arrives(const uint8_t *f, size_t n)
{
    vd_offer(RX, 256);
    wire(f, n);
    if (vd_used(RX) >= 0)
        return true;
    wire(frame(me, 60, 0), 60);                 /* uses up the buffer */
    assert_int_equal(vd_used(RX), 72);
    return false;
}

static void test_receive_filter(void **state)
{
    static const uint8_t bcast[6] = { 255, 255, 255, 255, 255, 255 }, multi[6] = { 1, 0, 0x5e, 1, 2, 3 }, on[1] = { 1 }, off[1] = { 0 };
    uint8_t table[4 + 6 + 4 + 6] = { 1 }, vlan[60];
    machine("");
    vd_start(F(CTRL_VQ) | F(CTRL_RX) | F(CTRL_VLAN) | F(CTRL_RX_EXTRA) | F(CTRL_MAC_ADDR), 3);
    assert_true(arrives(frame(other, 60, 0), 60));              /* until a driver says else (5.1.6.5.1) */
    assert_int_equal(control(CTRL, 0, 0, off, 1), 0);
    assert_false(arrives(frame(other, 60, 0), 60));
    assert_false(arrives(frame(multi, 60, 0), 60));
    assert_true(arrives(frame(bcast, 60, 0), 60));
    memcpy(table + 4, other, 6);
    table[10] = 1;
    memcpy(table + 14, multi, 6);
    assert_int_equal(control(CTRL, 1, 0, table, sizeof table), 0);
    assert_true(arrives(frame(other, 60, 0), 60));
    assert_true(arrives(frame(multi, 60, 0), 60));
    assert_int_equal(control(CTRL, 0, 5, on, 1), 0);            /* no broadcasts */
    assert_false(arrives(frame(bcast, 60, 0), 60));
    memcpy(vlan, frame(me, 60, 0), 60);
    memcpy(vlan + 12, "\x81\x00\x00\x05", 4);
    assert_false(arrives(vlan, 60));
    assert_int_equal(control(CTRL, 2, 0, "\x05", 2), 0);
    assert_true(arrives(vlan, 60));
    assert_int_equal(control(CTRL, 2, 1, "\x05", 2), 0);
    assert_false(arrives(vlan, 60));
    table[0] = 2;                                               /* a list that is longer than the command */
    assert_int_equal(control(CTRL, 1, 0, table, sizeof table), 1);
    table[0] = table[1] = table[2] = table[3] = 255;
    assert_int_equal(control(CTRL, 1, 0, table, sizeof table), 1);
    assert_int_equal(control(CTRL, 2, 0, "\x00\x10", 2), 1);    /* VLAN 4096 */
    assert_int_equal(control(CTRL, 9, 0, on, 1), 1);
    assert_int_equal(control(CTRL, 4, 0, "\x01", 2), 1);        /* was not negotiated */
    machine_end();
}

static void test_address_set_by_the_guest(void **state)
{
    machine("");
    vd_start(F(CTRL_VQ) | F(CTRL_RX) | F(CTRL_MAC_ADDR), 3);
    assert_int_equal(r32(0x100), ld_le32(me));
    assert_int_equal(control(CTRL, 0, 0, "\0", 1), 0);
    assert_int_equal(control(CTRL, 1, 1, other, 6), 0);
    assert_int_equal(r32(0x100), ld_le32(other));
    vd_offer(RX, 256);
    wire(frame(me, 60, 0), 60);
    assert_int_equal(vd_used(RX), -1);
    wire(frame(other, 60, 0), 60);
    assert_int_equal(vd_used(RX), 72);
    w32(0x70, 0);
    vd_run();
    assert_int_equal(r32(0x100), ld_le32(me));                  /* back after a reset */
    machine_end();
}

static void test_offload_headers(void **state)
{
    struct net_caps all = { true, true, true, true, true, true, true };
    uint8_t in[12 + 60] = { 1, 0, 0x36, 0, 0, 0, 0x22, 0, 0x10, 0, 9, 9 };
    uint64_t guest = F(GUEST_CSUM) | F(GUEST_TSO4) | F(CTRL_VQ) | F(CTRL_GUEST_OFFLOADS);
    uint8_t bits[8];
    machine_with("", all);
    vd_start(F(CSUM) | guest, 3);
    assert_int_equal(net->hdr_len, 12);
    assert_true(net->use.csum && net->use.tso4 && !net->use.tso6 && !net->use.ufo && !net->use.uso);
    struct vd_buf b = { vd_alloc(sizeof in), sizeof in, false };
    memcpy(in + 12, frame(other, 60, 5), 60);
    memcpy(vd_host(b.addr), in, sizeof in);
    vd_add(TX, &b, 1);
    vd_kick(TX);
    assert_int_equal(net->n, sizeof in);                        /* with its header, as it is */
    assert_memory_equal(net->pkt, in, sizeof in);
    uint64_t at = vd_offer(RX, 256);
    wire(in, sizeof in);
    assert_int_equal(vd_used(RX), sizeof in);
    assert_memory_equal(vd_host(at), in, 10);
    assert_int_equal(ld_le16(vd_host(at + 10)), 1);             /* the count is ours */
    assert_memory_equal(vd_host(at + 12), in + 12, 60);
    st_le64(bits, F(GUEST_CSUM));
    assert_int_equal(control(CTRL, 5, 0, bits, 8), 0);
    vd_run();
    assert_true(net->use.csum && !net->use.tso4);
    st_le64(bits, F(GUEST_TSO6));
    assert_int_equal(control(CTRL, 5, 0, bits, 8), 1);          /* was not negotiated */
    w32(0x70, 0);
    vd_run();
    assert_int_equal(net->hdr_len, 0);
    machine_end();
}

/* IPv4 and TCP headers as far as they are looked at. */
static const uint8_t *tcp(unsigned src_port, unsigned dst_port, bool back)
{
    static uint8_t f[60];
    static const uint8_t a[4] = { 10, 0, 2, 2 }, b[4] = { 10, 0, 2, 15 };
    memset(f, 0, sizeof f);
    memcpy(f, back ? me : other, 6);
    memcpy(f + 12, "\x08\x00\x45", 3);
    f[23] = 6;
    memcpy(f + 26, back ? a : b, 4);
    memcpy(f + 30, back ? b : a, 4);
    st_be16(f + 34, (uint16_t)(back ? dst_port : src_port));
    st_be16(f + 36, (uint16_t)(back ? src_port : dst_port));
    return f;
}

static void test_queue_pairs(void **state)
{
    machine(",'mq':true,'queue-pairs':4");
    vd_start(F(CTRL_VQ), 3);                                    /* without MQ the control queue is the third (5.1.2) */
    assert_int_equal(control(2, 4, 0, "\x02", 2), 1);
    vd_start(F(CTRL_VQ) | F(MQ), 9);
    for (unsigned i = 0; i < 4; i++)
        vd_offer(2 * i, 256);
    wire(tcp(1000, 80, true), 60);
    assert_int_equal(vd_used(0), 72);                           /* one pair until the driver asks for more */
    vd_offer(0, 256);
    assert_int_equal(control(8, 4, 0, "\x05", 2), 1);
    assert_int_equal(control(8, 4, 0, "\x00", 2), 1);
    assert_int_equal(control(8, 4, 0, "\x04", 2), 0);
    for (unsigned i = 0; i < 4; i++) {                          /* answers come where the flow is sent from (5.1.6.5.6) */
        transmit(2 * i + 1, 12, tcp(2000 + 7 * i, 80, false), 60);
        assert_int_equal(vd_used(2 * i + 1), 0);
        wire(tcp(2000 + 7 * i, 80, true), 60);
        assert_int_equal(vd_used(2 * i), 72);
    }
    machine_end();
}

/* The verification suite that the makers of this hash published: addresses and ports of two packets, their results. */
static const uint8_t suite_key[40] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

static void test_hash_against_the_published_vectors(void **state)
{
    static const struct { uint8_t in[12]; uint32_t ip, tcp; } v[] = {
        { { 66, 9, 149, 187, 161, 142, 100, 80, 2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255 }, 0x323e8fc2, 0x51ccc178 },
        { { 199, 92, 111, 2, 65, 69, 140, 83, 14230 >> 8, 14230 & 255, 4739 >> 8, 4739 & 255 }, 0xd718262a, 0xc626b0ea },
        { { 24, 19, 198, 95, 12, 22, 207, 184, 12898 >> 8, 12898 & 255, 38024 >> 8, 38024 & 255 }, 0xd2d0a5de, 0x5c2b394a },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
        assert_int_equal(vnet_toeplitz(suite_key, v[i].in, 8), v[i].ip);
        assert_int_equal(vnet_toeplitz(suite_key, v[i].in, 12), v[i].tcp);
    }
}

static int rss(unsigned q, uint32_t types, const uint16_t *table, unsigned n, unsigned tx, unsigned key_len)
{
    uint8_t b[512] = { 0 };
    unsigned at = 8;
    st_le32(b, types);
    st_le16(b + 4, (uint16_t)(n - 1));
    st_le16(b + 6, 1);                                          /* what is not classified */
    for (unsigned i = 0; i < n; i++, at += 2)
        st_le16(b + at, table[i]);
    st_le16(b + at, (uint16_t)tx);
    b[at + 2] = (uint8_t)key_len;
    memcpy(b + at + 3, suite_key, MIN(key_len, 40u));
    return control(q, 4, 1, b, at + 3 + key_len);
}

static void test_receive_side_scaling(void **state)
{
    uint16_t table[4] = { 3, 2, 3, 2 }, wrong[4] = { 0, 1, 2, 4 };
    uint64_t at[4];
    machine(",'rss':true,'hash':true,'queue-pairs':4");
    vd_start(F(CTRL_VQ) | F(RSS) | F(HASH_REPORT), 9);
    assert_int_equal(rss(8, 0x40, table, 4, 4, 40), 1);         /* a type that is not supported */
    assert_int_equal(rss(8, 2, wrong, 4, 4, 40), 1);            /* a queue that is not there */
    assert_int_equal(rss(8, 2, table, 3, 4, 40), 1);            /* not a power of two */
    assert_int_equal(rss(8, 2, table, 4, 5, 40), 1);
    assert_int_equal(rss(8, 2, table, 4, 4, 41), 1);
    assert_int_equal(rss(8, 2, table, 4, 4, 40), 0);
    for (unsigned i = 0; i < 4; i++)
        at[i] = vd_offer(2 * i, 256);
    const uint8_t *f = tcp(1000, 80, true);
    uint32_t h = vnet_toeplitz(suite_key, f + 26, 12);
    unsigned pair = table[h & 3];
    wire(f, 60);
    assert_int_equal(vd_used(2 * pair), 20 + 60);
    assert_int_equal(ld_le32(vd_host(at[pair] + 12)), h);
    assert_int_equal(ld_le16(vd_host(at[pair] + 16)), 2);       /* TCPv4 */
    assert_memory_equal(vd_host(at[pair] + 20), tcp(1000, 80, true), 60);
    wire(frame(me, 60, 0), 60);                                 /* no IP at all */
    assert_int_equal(vd_used(2), 80);
    assert_int_equal(ld_le16(vd_host(at[1] + 16)), 0);
    machine_end();
}

static void test_announce_after_load(void **state)
{
    struct str s = { 0 };
    machine(",'mq':true,'queue-pairs':2");
    vd_start(F(CTRL_VQ) | F(STATUS) | F(GUEST_ANNOUNCE) | F(MQ) | F(CTRL_RX), 5);
    assert_int_equal(control(4, 4, 0, "\x02", 2), 0);
    assert_int_equal(control(4, 0, 0, "\0", 1), 0);
    assert_int_equal(control(4, 3, 0, "", 0), 1);               /* nothing to announce */
    vd_save(card, &s);
    dev_reset_tree(card, RESET_COLD);
    vd_load(card, &s);
    domain_post(&virtio_of_dev(card)->resume.post);                 /* as when the machine goes on */
    vd_run();
    assert_int_equal(r32(0x104) >> 16 & 3, 3);
    assert_int_equal(control(4, 3, 0, "", 0), 0);
    assert_int_equal(r32(0x104) >> 16 & 3, 1);
    vd_offer(RX, 256);
    wire(frame(other, 60, 0), 60);                              /* the filter came along */
    assert_int_equal(vd_used(RX), -1);
    wire(frame(me, 60, 0), 60);
    assert_int_equal(vd_used(RX), 72);
    str_free(&s);
    machine_end();
}

static void test_short_packets_break_the_device(void **state)
{
    machine("");
    for (unsigned i = 0; i < 2; i++) {
        vd_start(0, 2);
        vd_send(TX, "0123456789ab", i ? 12 : 5);
        assert_true(vd_needs_reset());
    }
    vd_start(F(CTRL_VQ), 3);
    vd_send(CTRL, "\0", 1);
    assert_true(vd_needs_reset());
    vd_start(0, 2);
    transmit(TX, 12, frame(other, 60, 1), 60);
    assert_int_equal(net->got, 1);
    machine_end();
}

/* Random commands, packets and buffers: nothing may crash, hang or leave the test's memory. */
static void test_random_guests(void **state)
{
    struct net_caps all = { true, true, true, true, true, true, true };
    uint8_t junk[300];
    machine_with(",'mq':true,'rss':true,'hash':true,'queue-pairs':3", all);
    for (int round = 0; round < 60; round++) {
        uint64_t f = F(CTRL_VQ) | ((uint64_t)hw_rand(1u << 31) << 32 | hw_rand(1u << 31)) |
                     BIT64(VIRTIO_F_VERSION_1);
        f &= ~(BIT64(VIRTIO_F_RING_PACKED) | (hw_rand(2) ? 0 : F(RSS)));
        if (!vd_negotiate(f | F(CSUM) | F(GUEST_CSUM) | F(HOST_TSO4) | F(GUEST_TSO4)))
            continue;
        for (unsigned q = 0; q < 7; q++)
            vd_queue(q);
        w32(0x70, 15);
        for (int i = 0; i < 40 && vd_pool < HW_RAM + HW_RAM_SIZE - 8192; i++) {
            for (unsigned k = 0; k < sizeof junk; k++)
                junk[k] = (uint8_t)hw_rand(hw_rand(2) ? 256 : 6);
            unsigned q = hw_rand(7);
            struct vd_buf b[2] = { { vd_alloc(300), hw_rand(300), q < 6 && !(q & 1) }, { vd_alloc(64), hw_rand(64), true } };
            memcpy(vd_host(b[0].addr), junk, sizeof junk);
            vd_add(q, b, q == 6 ? 2 : 1);
            vd_kick(q);
            net->full = hw_rand(4) == 0;
            net_port_ready(net->nd.port);
            wire(junk, 1 + hw_rand(299));
        }
        w32(0x70, 0);
        vd_run();
        assert_int_equal(r32(0x70), 0);
    }
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offer_follows_the_back_end), cmocka_unit_test(test_options_that_contradict),
        cmocka_unit_test(test_features_that_need_others), cmocka_unit_test(test_packets_both_ways),
        cmocka_unit_test(test_merged_buffers), cmocka_unit_test(test_too_small_a_buffer_loses_the_packet),
        cmocka_unit_test(test_receive_waits_for_buffers), cmocka_unit_test(test_transmit_waits_for_room),
        cmocka_unit_test(test_link), cmocka_unit_test(test_receive_filter), cmocka_unit_test(test_address_set_by_the_guest),
        cmocka_unit_test(test_offload_headers), cmocka_unit_test(test_queue_pairs),
        cmocka_unit_test(test_hash_against_the_published_vectors), cmocka_unit_test(test_receive_side_scaling),
        cmocka_unit_test(test_announce_after_load), cmocka_unit_test(test_short_packets_break_the_device),
        cmocka_unit_test(test_random_guests),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
