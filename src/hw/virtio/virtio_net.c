/* SPDX-License-Identifier: MIT */
/* Network device (VIRTIO 1.2, 5.1): options, features, control queue, life. The data path is in virtio_net_io.c. */
#include <stdio.h>
#include "base/log.h"
#include "hw/virtio/virtio_forms.h"
#include "hw/virtio/virtio_net.h"

/* ---- control queue (5.1.6.5) ---- */

enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_VLAN = 2, CTRL_ANNOUNCE = 3 };
enum { CTRL_OK = 0, CTRL_ERR = 1 };

static bool ctrl_rx(struct virtio_net *n, uint8_t cmd, const struct vq_elem *e)
{
    bool *const flag[] = { &n->promisc, &n->allmulti, &n->alluni, &n->nomulti, &n->nouni, &n->nobcast };
    uint8_t on;

    if (cmd >= ARRAY_SIZE(flag) || e->out.len != 3 || !virtio_has(&n->v, cmd < 2 ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA))
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
    if (cmd || !virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX) || !read_macs(e, &off, &uni) || !read_macs(e, &off, &multi) || off != e->out.len)
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
    }
    ack = ok ? CTRL_OK : CTRL_ERR;
    virtq_push(e, (uint32_t)vec_from_buf(&e->in, 0, &ack, 1));
    return true;
}

void vnet_ctrl_kicked(struct virtq *vq)
{
    virtq_drain(vq, ctrl_one);
}

/* ---- features ---- */

static uint64_t offload_features(const struct net_caps *c)
{
    uint64_t f = 0;

    if (!c->vnet_hdr)
        return 0;
    if (c->csum)
        f |= BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_GUEST_CSUM);
    if (c->csum && c->tso4)
        f |= BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO4);
    if (c->csum && c->tso6)
        f |= BIT64(VIRTIO_NET_F_HOST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_TSO6);
    if (c->csum && c->ufo)
        f |= BIT64(VIRTIO_NET_F_HOST_UFO) | BIT64(VIRTIO_NET_F_GUEST_UFO);
    if (c->csum && c->ecn)
        f |= BIT64(VIRTIO_NET_F_HOST_ECN) | BIT64(VIRTIO_NET_F_GUEST_ECN);
    return f;
}

#define CTRL_BITS (BIT64(VIRTIO_NET_F_CTRL_RX) | BIT64(VIRTIO_NET_F_CTRL_VLAN) | BIT64(VIRTIO_NET_F_CTRL_RX_EXTRA) | \
                   BIT64(VIRTIO_NET_F_GUEST_ANNOUNCE) | BIT64(VIRTIO_NET_F_CTRL_MAC_ADDR))

static uint64_t vnet_features(struct virtio_dev *v)
{
    struct virtio_net *n = vnet(v);
    uint64_t f = BIT64(VIRTIO_NET_F_MAC) | BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_NET_F_STATUS) | BIT64(VIRTIO_NET_F_CTRL_VQ) |
                 CTRL_BITS | offload_features(&n->caps);

    f &= n->wanted | BIT64(VIRTIO_NET_F_MAC);
    if (!(f & BIT64(VIRTIO_NET_F_CTRL_VQ)))
        f &= ~CTRL_BITS;
    if (n->mtu)
        f |= BIT64(VIRTIO_NET_F_MTU);
    if (n->speed >= 0 || n->duplex)
        f |= BIT64(VIRTIO_NET_F_SPEED_DUPLEX);
    return f;
}

/* 5.1.3.1: segmentation needs checksums, every control command the queue. */
static bool vnet_accept(struct virtio_dev *v, uint64_t f)
{
    uint64_t guest = BIT64(VIRTIO_NET_F_GUEST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_UFO);
    uint64_t host = BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6) | BIT64(VIRTIO_NET_F_HOST_UFO);

    return !(f & guest && !(f & BIT64(VIRTIO_NET_F_GUEST_CSUM))) && !(f & host && !(f & BIT64(VIRTIO_NET_F_CSUM))) &&
           !(f & CTRL_BITS && !(f & BIT64(VIRTIO_NET_F_CTRL_VQ)));
}

static void vnet_negotiated(struct virtio_dev *v)
{
    struct virtio_net *n = vnet(v);
    struct net_caps use = {
        .vnet_hdr = true, .csum = virtio_has(v, VIRTIO_NET_F_GUEST_CSUM), .tso4 = virtio_has(v, VIRTIO_NET_F_GUEST_TSO4),
        .tso6 = virtio_has(v, VIRTIO_NET_F_GUEST_TSO6), .ufo = virtio_has(v, VIRTIO_NET_F_GUEST_UFO),
        .ecn = virtio_has(v, VIRTIO_NET_F_GUEST_ECN),
    };

    n->hdr_len = virtio_has(v, VIRTIO_F_VERSION_1) || virtio_has(v, VIRTIO_NET_F_MRG_RXBUF) ? 12 : 10;
    if (n->caps.vnet_hdr)
        net_port_set_offload(n->port, &use, n->hdr_len);
}

void vnet_link(struct virtio_net *n, bool up)
{
    uint16_t old = vnet_config(n)->status, s = le16toh(old) & (uint16_t)~VIRTIO_NET_S_LINK_UP;

    vnet_config(n)->status = htole16((uint16_t)(s | (up ? VIRTIO_NET_S_LINK_UP : 0)));
    if (vnet_config(n)->status != old)
        virtio_config_changed(&n->v);
}

/* 6.3 and 5.1.4.2: legacy drivers set the address by writing it here. */
static void vnet_config_write(struct virtio_dev *v, uint32_t off, uint32_t len, const uint8_t *old)
{
    struct virtio_net *n = vnet(v);

    if (!virtio_has(v, VIRTIO_F_VERSION_1) && range_ok(off, len, 6))
        memcpy(n->mac, vnet_config(n)->mac, 6);
    else
        memcpy(v->config + off, old, len);
}

/* ---- life ---- */

static void vnet_reset(struct virtio_dev *v)
{
    struct virtio_net *n = vnet(v);

    n->announce = false;
    n->hdr_len = 10;
    memcpy(n->mac, n->nic.mac, 6);
    memcpy(vnet_config(n)->mac, n->mac, 6);
    vnet_config(n)->status = htole16(net_link_up(n->port) ? VIRTIO_NET_S_LINK_UP : 0);
    vnet_filter_reset(n);
}

static bool vnet_realize(struct virtio_dev *v, struct err *e)
{
    static const uint8_t none[6];
    struct virtio_net *n = vnet(v);
    char text[96];

    if (n->nic.mac[0] & 1) {
        err_set(e, ERR_VALUE, "mac: %02x:... is a multicast address", n->nic.mac[0]);
        return err_hint(e, "the lowest bit of the first byte must be 0, as in 52:54:00:12:34:56");
    }
    if (!memcmp(n->nic.mac, none, 6))
        net_mac_default(n->nic.mac);
    n->port = net_port_connect(n->nic.netdev, v->dom, &vnet_port_ops, n, v->dev->obj.id, e);
    if (!n->port)
        return false;
    net_port_caps(n->port, &n->caps);
    snprintf(text, sizeof text, "model=%s,macaddr=%02x:%02x:%02x:%02x:%02x:%02x", v->dev->obj.cls->name, n->nic.mac[0], n->nic.mac[1],
             n->nic.mac[2], n->nic.mac[3], n->nic.mac[4], n->nic.mac[5]);
    net_port_info(n->port, text);
    v->dev->bootindex = n->nic.bootindex;
    virtio_set_config_size(v, sizeof(struct vnet_config));
    vnet_config(n)->max_pairs = htole16(1);
    vnet_config(n)->mtu = htole16(n->mtu);
    vnet_config(n)->speed = htole32((uint32_t)n->speed);
    vnet_config(n)->duplex = n->duplex ? (uint8_t)(n->duplex - 1) : 0xff;
    n->rx = virtio_add_queue(v, n->rx_size, 0, vnet_rx_kicked);
    n->tx = virtio_add_queue(v, n->tx_size, 0, vnet_tx_kicked);
    n->ctrl = n->wanted & BIT64(VIRTIO_NET_F_CTRL_VQ) ? virtio_add_queue(v, 64, 0, vnet_ctrl_kicked) : NULL;
    vnet_reset(v);
    return true;
}

static void vnet_unrealize(struct virtio_dev *v)
{
    net_port_free(vnet(v)->port);
    vnet(v)->port = NULL;
}

static void vnet_resumed(struct virtio_dev *v)
{
    struct virtio_net *n = vnet(v);

    if (n->announce && virtio_has(v, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
        vnet_config(n)->status |= htole16(VIRTIO_NET_S_ANNOUNCE);
        virtio_config_changed(v);
    }
    n->announce = false;
    net_port_ready(n->port);
}

static const struct virtio_model vnet_model = {
    .name = "virtio-net", .id = VIRTIO_ID_NET, .pci_legacy_id = 0x1000, .pci_class = 0x020000, .realize = vnet_realize,
    .unrealize = vnet_unrealize, .features = vnet_features, .accept = vnet_accept, .negotiated = vnet_negotiated,
    .config_write = vnet_config_write, .reset = vnet_reset, .resumed = vnet_resumed,
};

#define WANT(bit, name, doc) PROP_BIT(struct virtio_net, wanted, bit, name, true, doc)
static const char *const duplex_names[] = { "unknown", "half", "full", NULL };
static const struct prop vnet_props[] = {
    PROP_INCLUDE(struct virtio_net, v.opt, virtio_props),
    PROP_INCLUDE(struct virtio_net, nic, nic_props),
    { .name = "rx_queue_size", .doc = "Buffers that the receive queue holds", .type = PROP_T_U16, PROP_OFF(struct virtio_net, rx_size),
      .def = 256, .min = 64, .max = VIRTQ_SIZE_MAX, .flags = PF_POW2 },
    { .name = "tx_queue_size", .doc = "Packets that the transmit queue holds", .type = PROP_T_U16, PROP_OFF(struct virtio_net, tx_size),
      .def = 256, .min = 64, .max = VIRTQ_SIZE_MAX, .flags = PF_POW2 },
    PROP_U16(struct virtio_net, mtu, "host_mtu", 0, 0, 65535, "Largest packet that the guest is told, in bytes; 0: not told"),
    PROP_S32(struct virtio_net, speed, "speed", -1, -1, INT32_MAX, "Link speed that the guest is told, in Mbit/s; -1: unknown"),
    PROP_ENUM(struct virtio_net, duplex, "duplex", duplex_names, 0, "Duplex mode that the guest is told"),
    WANT(VIRTIO_NET_F_CSUM, "csum", "Offer transmission of packets with partial checksums, where the back end can"),
    WANT(VIRTIO_NET_F_GUEST_CSUM, "guest_csum", "Offer reception of packets with partial checksums, where the back end can"),
    WANT(VIRTIO_NET_F_HOST_TSO4, "host_tso4", "Offer transmission of large TCP/IPv4 packets, where the back end can"),
    WANT(VIRTIO_NET_F_HOST_TSO6, "host_tso6", "Offer transmission of large TCP/IPv6 packets, where the back end can"),
    WANT(VIRTIO_NET_F_HOST_ECN, "host_ecn", "Offer transmission of large packets with ECN, where the back end can"),
    WANT(VIRTIO_NET_F_HOST_UFO, "host_ufo", "Offer transmission of large UDP packets, where the back end can"),
    WANT(VIRTIO_NET_F_GUEST_TSO4, "guest_tso4", "Offer reception of large TCP/IPv4 packets, where the back end can"),
    WANT(VIRTIO_NET_F_GUEST_TSO6, "guest_tso6", "Offer reception of large TCP/IPv6 packets, where the back end can"),
    WANT(VIRTIO_NET_F_GUEST_ECN, "guest_ecn", "Offer reception of large packets with ECN, where the back end can"),
    WANT(VIRTIO_NET_F_GUEST_UFO, "guest_ufo", "Offer reception of large UDP packets, where the back end can"),
    WANT(VIRTIO_NET_F_MRG_RXBUF, "mrg_rxbuf", "Offer packets that span several receive buffers"),
    WANT(VIRTIO_NET_F_STATUS, "status", "Offer the link state"),
    WANT(VIRTIO_NET_F_CTRL_VQ, "ctrl_vq", "Offer the control queue"),
    WANT(VIRTIO_NET_F_CTRL_RX, "ctrl_rx", "Offer receive modes"),
    WANT(VIRTIO_NET_F_CTRL_VLAN, "ctrl_vlan", "Offer the VLAN filter"),
    WANT(VIRTIO_NET_F_CTRL_RX_EXTRA, "ctrl_rx_extra", "Offer the further receive modes"),
    WANT(VIRTIO_NET_F_GUEST_ANNOUNCE, "guest_announce", "Offer that the guest announces itself after a snapshot was loaded"),
    WANT(VIRTIO_NET_F_CTRL_MAC_ADDR, "ctrl_mac_addr", "Offer the change of the address"),
    PROP_END
};

static const struct state_field macs_fields[] = {
    STATE_UINT(struct vnet_macs, n, .max = VNET_MAC_TABLE), STATE_UINT(struct vnet_macs, overflow), STATE_BYTES(struct vnet_macs, mac), STATE_END
};
static const struct state_desc macs_state = { .name = "mac-table", .version = 1, .fields = macs_fields };
static const struct state_field vnet_fields[] = {
    STATE_STRUCT(struct virtio_net, v, &virtio_dev_state), STATE_BYTES(struct virtio_net, mac),
    STATE_BOOL(struct virtio_net, promisc), STATE_BOOL(struct virtio_net, allmulti), STATE_BOOL(struct virtio_net, alluni),
    STATE_BOOL(struct virtio_net, nomulti), STATE_BOOL(struct virtio_net, nouni), STATE_BOOL(struct virtio_net, nobcast),
    STATE_STRUCT(struct virtio_net, uni, &macs_state), STATE_STRUCT(struct virtio_net, multi, &macs_state),
    STATE_ARRAY(struct virtio_net, vlans), STATE_END
};

static bool vnet_post_load(void *obj, struct err *e)
{
    struct virtio_net *n = obj;

    vnet_negotiated(&n->v);
    n->announce = n->v.status & VIRTIO_S_DRIVER_OK;
    return true;
}
static const struct state_desc vnet_state = { .name = "virtio-net", .version = 1, .fields = vnet_fields, .post_load = vnet_post_load };

static const char *const vnet_names[] = { "virtio-net", NULL };
VIRTIO_FORMS(virtio_net, struct virtio_net, "virtio-net", "Virtio network card", "Network", vnet_props, &vnet_state, &vnet_model,
             vnet_names);
