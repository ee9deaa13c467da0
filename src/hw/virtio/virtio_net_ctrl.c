/* SPDX-License-Identifier: MIT */
/* Control queue of virtio-net (VIRTIO 1.2, 5.1.6.5) and the receive filter that it sets. */
#include "base/log.h"
#include "hw/virtio/virtio_net.h"

enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_VLAN = 2, CTRL_ANNOUNCE = 3, CTRL_MQ = 4, CTRL_OFFLOADS = 5 };
enum { MQ_PAIRS_SET = 0, MQ_RSS_CONFIG = 1, MQ_HASH_CONFIG = 2 };
enum { CTRL_OK = 0, CTRL_ERR = 1 };

static bool ctrl_rx(struct virtio_net *n, uint8_t cmd, const struct vq_elem *e)
{
    bool *const flag[] = { &n->promisc, &n->allmulti, &n->alluni, &n->nomulti, &n->nouni, &n->nobcast };
    uint8_t on;

    if (cmd >= ARRAY_SIZE(flag) || e->out.len != 3 ||
        !virtio_has(&n->v, cmd < 2 ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA))
        return false;
    vec_to_buf(&e->out, 2, &on, 1);
    *flag[cmd] = on != 0;
    return true;
}

/* One of the two lists of TABLE_SET at *@off: a count, then addresses. */
static bool read_macs(const struct vq_elem *e, uint64_t *off, struct vnet_macs *t)
{
    uint8_t b[4];
    uint32_t count;

    memset(t, 0, sizeof *t);
    if (vec_to_buf(&e->out, *off, b, 4) != 4)
        return false;
    count = ld_le32(b);
    *off += 4;
    if (!range_ok(*off, 6ull * count, e->out.len))
        return false;
    t->overflow = count > VNET_MAC_TABLE;
    t->n = t->overflow ? 0 : (uint8_t)count;
    vec_to_buf(&e->out, *off, t->mac, t->n * 6u);
    *off += 6ull * count;
    return true;
}

static bool ctrl_mac(struct virtio_net *n, uint8_t cmd, const struct vq_elem *e)
{
    struct vnet_macs uni, multi;
    uint64_t off = 2;

    if (cmd == 1) {                             /* ADDR_SET */
        if (!virtio_has(&n->v, VIRTIO_NET_F_CTRL_MAC_ADDR) || e->out.len != 8)
            return false;
        vec_to_buf(&e->out, 2, n->mac, 6);
        memcpy(vnet_config(n)->mac, n->mac, 6);
        return true;
    }
    if (cmd || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX) || !read_macs(e, &off, &uni) ||
        !read_macs(e, &off, &multi) || off != e->out.len)
        return false;
    n->uni = uni;
    n->multi = multi;
    return true;
}

static bool ctrl_vlan(struct virtio_net *n, uint8_t cmd, const struct vq_elem *e)
{
    uint8_t b[2];
    unsigned vid;

    if (cmd > 1 || e->out.len != 4 || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN))
        return false;
    vec_to_buf(&e->out, 2, b, 2);
    vid = ld_le16(b);
    if (vid >= 4096)
        return false;
    if (cmd == 0)
        n->vlans[vid / 32] |= 1u << vid % 32;
    else
        n->vlans[vid / 32] &= ~(1u << vid % 32);
    return true;
}

static bool ctrl_announced(struct virtio_net *n, uint8_t cmd)
{
    struct vnet_config *c = vnet_config(n);

    if (cmd || !(le16toh(c->status) & VIRTIO_NET_S_ANNOUNCE))
        return false;
    c->status &= htole16((uint16_t)~VIRTIO_NET_S_ANNOUNCE);
    return true;
}

static bool ctrl_mq(struct virtio_net *n, uint8_t cmd, const struct vq_elem *e)
{
    uint8_t b[2];
    unsigned pairs;

    if (cmd == MQ_RSS_CONFIG)
        return virtio_has(&n->v, VIRTIO_NET_F_RSS) && vnet_rss_set(n, e, true);
    if (cmd == MQ_HASH_CONFIG)
        return virtio_has(&n->v, VIRTIO_NET_F_HASH_REPORT) && vnet_rss_set(n, e, false);
    if (cmd != MQ_PAIRS_SET || !virtio_has(&n->v, VIRTIO_NET_F_MQ) || e->out.len != 4)
        return false;
    vec_to_buf(&e->out, 2, b, 2);
    pairs = ld_le16(b);
    if (!pairs || pairs > n->max_pairs)
        return false;
    n->pairs = (uint16_t)pairs;
    n->rss.steer = false;                       /* 5.1.6.5.6: this command turns RSS off */
    net_port_ready(n->port);
    return true;
}

static bool ctrl_offloads(struct virtio_net *n, uint8_t cmd, const struct vq_elem *e)
{
    uint8_t b[8];

    if (cmd || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || e->out.len != 10)
        return false;
    vec_to_buf(&e->out, 2, b, 8);
    if (ld_le64(b) & ~vnet_guest_offloads(n))
        return false;
    n->offloads = ld_le64(b);
    vnet_apply_offloads(n);
    return true;
}

static bool ctrl_one(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_net *n = vnet(vq->v);
    uint8_t head[2], ack;
    bool ok = false;

    if (vec_to_buf(&e->out, 0, head, 2) != 2 || !e->in.len) {
        virtio_error(&n->v, "a control command without class or room for its result");
        virtq_push(e, 0);
        return true;
    }
    switch (head[0]) {
    case CTRL_RX: ok = ctrl_rx(n, head[1], e); break;
    case CTRL_MAC: ok = ctrl_mac(n, head[1], e); break;
    case CTRL_VLAN: ok = ctrl_vlan(n, head[1], e); break;
    case CTRL_ANNOUNCE: ok = ctrl_announced(n, head[1]); break;
    case CTRL_MQ: ok = ctrl_mq(n, head[1], e); break;
    case CTRL_OFFLOADS: ok = ctrl_offloads(n, head[1], e); break;
    }
    ack = ok ? CTRL_OK : CTRL_ERR;
    virtq_push(e, (uint32_t)vec_from_buf(&e->in, 0, &ack, 1));
    return true;
}

void vnet_ctrl_kicked(struct virtq *vq)
{
    virtq_drain(vq, ctrl_one);
}

/* ---- receive filter (5.1.6.5.1 to 5.1.6.5.3) ---- */

void vnet_filter_reset(struct virtio_net *n)
{
    n->promisc = true;
    n->allmulti = n->alluni = n->nomulti = n->nouni = n->nobcast = false;
    memset(&n->uni, 0, sizeof n->uni);
    memset(&n->multi, 0, sizeof n->multi);
    memset(n->vlans, 0, sizeof n->vlans);
}

static bool in_table(const struct vnet_macs *t, const uint8_t *mac)
{
    if (t->overflow)
        return true;
    for (unsigned i = 0; i < t->n; i++)
        if (!memcmp(t->mac[i], mac, 6))
            return true;
    return false;
}

bool vnet_filter(const struct virtio_net *n, const uint8_t *pkt, size_t len)
{
    static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

    if (n->promisc)
        return true;
    if (len < 14)
        return false;
    if (virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN) && len >= 18 && ld_be16(pkt + 12) == 0x8100) {
        unsigned vid = ld_be16(pkt + 14) & 0xfff;
        if (!(n->vlans[vid / 32] >> vid % 32 & 1))
            return false;
    }
    if (!memcmp(pkt, broadcast, 6))
        return !n->nobcast;
    if (pkt[0] & 1)
        return !n->nomulti && (n->allmulti || in_table(&n->multi, pkt));
    return !n->nouni && (n->alluni || !memcmp(pkt, n->mac, 6) || in_table(&n->uni, pkt));
}
