/* SPDX-License-Identifier: MIT */
/* Network device (VIRTIO 1.2, 5.1): options, features, control queue, life. The data path is in virtio_net_io.c. */
#include <stdio.h>
#include "base/log.h"
#include "hw/virtio/virtio_forms.h"
#include "hw/virtio/virtio_net.h"

/* ---- features ---- */

#define GUEST_TSO (BIT64(VIRTIO_NET_F_GUEST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO6))
#define GUEST_USO (BIT64(VIRTIO_NET_F_GUEST_USO4) | BIT64(VIRTIO_NET_F_GUEST_USO6))
#define GUEST_LARGE (GUEST_TSO | GUEST_USO | BIT64(VIRTIO_NET_F_GUEST_UFO))
#define GUEST_OFFLOADS (BIT64(VIRTIO_NET_F_GUEST_CSUM) | GUEST_LARGE | BIT64(VIRTIO_NET_F_GUEST_ECN))
#define HOST_TSO (BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_HOST_TSO6))
#define HOST_LARGE (HOST_TSO | BIT64(VIRTIO_NET_F_HOST_UFO) | BIT64(VIRTIO_NET_F_HOST_USO))
#define CTRL_BITS (BIT64(VIRTIO_NET_F_CTRL_RX) | BIT64(VIRTIO_NET_F_CTRL_VLAN) | BIT64(VIRTIO_NET_F_CTRL_RX_EXTRA) |       \
                   BIT64(VIRTIO_NET_F_GUEST_ANNOUNCE) | BIT64(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT64(VIRTIO_NET_F_MQ) |        \
                   BIT64(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | BIT64(VIRTIO_NET_F_RSS) | BIT64(VIRTIO_NET_F_HASH_REPORT))

static uint64_t offload_features(const struct net_caps *c)
{
    uint64_t f = 0;

    if (!c->vnet_hdr || !c->csum)
        return 0;
    f |= BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_GUEST_CSUM) | BIT64(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
    if (c->tso4)
        f |= BIT64(VIRTIO_NET_F_HOST_TSO4) | BIT64(VIRTIO_NET_F_GUEST_TSO4);
    if (c->tso6)
        f |= BIT64(VIRTIO_NET_F_HOST_TSO6) | BIT64(VIRTIO_NET_F_GUEST_TSO6);
    if (c->ufo)
        f |= BIT64(VIRTIO_NET_F_HOST_UFO) | BIT64(VIRTIO_NET_F_GUEST_UFO);
    if (c->uso)
        f |= BIT64(VIRTIO_NET_F_HOST_USO) | GUEST_USO;
    if (c->ecn)
        f |= BIT64(VIRTIO_NET_F_HOST_ECN) | BIT64(VIRTIO_NET_F_GUEST_ECN);
    return f;
}

/* What a set of bits cannot have because of what it lacks (5.1.3.1). */
static uint64_t without_base(uint64_t f)
{
    uint64_t bad = 0;

    if (!(f & BIT64(VIRTIO_NET_F_CSUM)))
        bad |= HOST_LARGE;
    if (!(f & BIT64(VIRTIO_NET_F_GUEST_CSUM)))
        bad |= GUEST_LARGE;
    if (!(f & ~bad & HOST_TSO))
        bad |= BIT64(VIRTIO_NET_F_HOST_ECN);
    if (!(f & ~bad & GUEST_TSO))
        bad |= BIT64(VIRTIO_NET_F_GUEST_ECN);
    if (!(f & BIT64(VIRTIO_NET_F_CTRL_VQ)))
        bad |= CTRL_BITS;
    return f & bad;
}

static uint64_t vnet_features(struct virtio_dev *v)
{
    struct virtio_net *n = vnet(v);
    uint64_t f = BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VIRTIO_NET_F_STATUS) | BIT64(VIRTIO_NET_F_CTRL_VQ) |
                 (CTRL_BITS & ~BIT64(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)) | offload_features(&n->caps);

    f &= n->wanted;
    f &= ~without_base(f);
    f |= BIT64(VIRTIO_NET_F_MAC);
    if (n->mtu)
        f |= BIT64(VIRTIO_NET_F_MTU);
    if (n->speed >= 0 || n->duplex)
        f |= BIT64(VIRTIO_NET_F_SPEED_DUPLEX);
    return f;
}

static bool vnet_accept(struct virtio_dev *v, uint64_t f)
{
    return !without_base(f);
}

uint64_t vnet_guest_offloads(const struct virtio_net *n)
{
    return n->v.features & GUEST_OFFLOADS;
}

void vnet_apply_offloads(struct virtio_net *n)
{
    uint64_t o = n->offloads;
    struct net_caps use = {
        .vnet_hdr = true, .csum = o >> VIRTIO_NET_F_GUEST_CSUM & 1, .tso4 = o >> VIRTIO_NET_F_GUEST_TSO4 & 1,
        .tso6 = o >> VIRTIO_NET_F_GUEST_TSO6 & 1, .ufo = o >> VIRTIO_NET_F_GUEST_UFO & 1, .ecn = o >> VIRTIO_NET_F_GUEST_ECN & 1,
        .uso = (o & GUEST_USO) == GUEST_USO,
    };

    n->hdr_len = virtio_has(&n->v, VIRTIO_NET_F_HASH_REPORT) ? VNET_HDR_HASH :
                 virtio_has(&n->v, VIRTIO_F_VERSION_1) || virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF) ? VNET_HDR : VNET_HDR_LEGACY;
    n->net_hdr = n->caps.vnet_hdr ? MIN(n->hdr_len, (uint32_t)VNET_HDR) : 0;
    if (n->net_hdr)
        net_port_set_offload(n->port, &use, n->net_hdr);
}

static void vnet_negotiated(struct virtio_dev *v)
{
    vnet(v)->offloads = vnet_guest_offloads(vnet(v));
    vnet_apply_offloads(vnet(v));
}

/* ---- queues: pairs, then control (5.1.2) ---- */

static void vnet_kicked(struct virtq *vq)
{
    struct virtio_net *n = vnet(vq->v);
    bool has_ctrl = virtio_has(vq->v, VIRTIO_NET_F_CTRL_VQ);

    if (has_ctrl && vq->index == 2u * (vnet_multi(n) ? n->max_pairs : 1u))
        vnet_ctrl_kicked(vq);
    else if (vq->index & 1)
        vnet_tx_kicked(vq);
    else
        vnet_rx_kicked(vq);
}

static void add_queues(struct virtio_net *n)
{
    for (unsigned i = 0; i < n->max_pairs; i++) {
        virtio_add_queue(&n->v, n->rx_size, 0, vnet_kicked);
        virtio_add_queue(&n->v, n->tx_size, 0, vnet_kicked);
    }
    if (n->wanted & BIT64(VIRTIO_NET_F_CTRL_VQ))
        virtio_add_queue(&n->v, 64, 0, vnet_kicked);
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

    if (!n->port)
        return;
    n->announce = false;
    n->hdr_len = VNET_HDR_LEGACY;
    n->net_hdr = 0;
    n->offloads = 0;
    n->pairs = 1;
    net_port_set_offload(n->port, &(struct net_caps){ 0 }, 0);
    memcpy(n->mac, n->nic.mac, 6);
    memcpy(vnet_config(n)->mac, n->mac, 6);
    vnet_config(n)->status = htole16(net_link_up(n->port) ? VIRTIO_NET_S_LINK_UP : 0);
    vnet_filter_reset(n);
    memset(&n->rss, 0, sizeof n->rss);
    memset(n->flows, 0, sizeof n->flows);
}

static bool check_options(struct virtio_net *n, struct err *e)
{
    uint64_t multi = BIT64(VIRTIO_NET_F_MQ) | BIT64(VIRTIO_NET_F_RSS);

    if (n->max_pairs > 1 && !(n->wanted & multi)) {
        err_set(e, ERR_VALUE, "queue-pairs: %u, but the guest is not told how to use more than one", n->max_pairs);
        return err_hint(e, "add mq=on or rss=on");
    }
    if (n->wanted & (multi | BIT64(VIRTIO_NET_F_HASH_REPORT)) && !(n->wanted & BIT64(VIRTIO_NET_F_CTRL_VQ)))
        return err_set(e, ERR_VALUE, "mq, rss and hash need the control queue, which ctrl_vq=off takes away");
    if (n->mtu && n->mtu < 68)
        return err_set(e, ERR_VALUE, "host_mtu: %u is less than the 68 that an MTU has at least", n->mtu);
    return true;
}

static void fill_config(struct virtio_net *n)
{
    struct vnet_config *c = vnet_config(n);

    c->max_pairs = htole16(n->max_pairs);
    c->mtu = htole16(n->mtu);
    c->speed = htole32((uint32_t)n->speed);
    c->duplex = n->duplex ? (uint8_t)(n->duplex - 1) : 0xff;
    if (n->wanted & (BIT64(VIRTIO_NET_F_RSS) | BIT64(VIRTIO_NET_F_HASH_REPORT))) {
        c->rss_key_max = VNET_KEY_MAX;
        c->rss_table_max = htole16(VNET_TABLE_MAX);
        c->hash_types = htole32(VNET_HASH_TYPES);
    }
}

static bool vnet_realize(struct virtio_dev *v, struct err *e)
{
    struct virtio_net *n = vnet(v);

    if (!check_options(n, e) || !dev_boot_set(v->dev, n->nic.bootindex, "/ethernet-phy@0", e))
        return false;
    net_mac_default(n->nic.mac);
    n->port = net_port_connect(n->nic.netdev, v->dom, &vnet_port_ops, n, v->dev->obj.id, e);
    if (!n->port)
        return false;
    net_port_caps(n->port, &n->caps);
    net_port_info(n->port, v->dev->obj.cls->name, n->nic.mac);
    virtio_set_config_size(v, sizeof(struct vnet_config));
    fill_config(n);
    add_queues(n);
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

#define WANT_(bit, name, def, doc) PROP_BIT(struct virtio_net, wanted, bit, name, def, doc)
#define WANT(bit, name, doc) WANT_(bit, name, true, doc)
static const char *const duplex_names[] = { "unknown", "half", "full", NULL };
static const struct prop vnet_props[] = {
    PROP_INCLUDE(struct virtio_net, v.opt, virtio_props),
    PROP_INCLUDE(struct virtio_net, nic, nic_props),
    { .name = "rx_queue_size", .doc = "Buffers that the receive queue holds", .type = PROP_T_U16,
      PROP_OFF(struct virtio_net, rx_size), .def = 256, .min = 64, .max = VIRTQ_SIZE_MAX, .flags = PF_POW2 },
    { .name = "tx_queue_size", .doc = "Packets that the transmit queue holds", .type = PROP_T_U16,
      PROP_OFF(struct virtio_net, tx_size), .def = 256, .min = 64, .max = VIRTQ_SIZE_MAX, .flags = PF_POW2 },
    PROP_U16(struct virtio_net, max_pairs, "queue-pairs", 1, 1, VNET_PAIRS_MAX,
             "Pairs of receive and transmit queues; more than one with mq or rss"),
    PROP_U16(struct virtio_net, mtu, "host_mtu", 0, 0, 65535,
             "Largest packet that the guest is told, in bytes; 0: not told"),
    PROP_S32(struct virtio_net, speed, "speed", -1, -1, INT32_MAX,
             "Link speed that the guest is told, in Mbit/s; -1: unknown"),
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
    WANT(VIRTIO_NET_F_HOST_USO, "host_uso", "Offer transmission of UDP packets to be segmented, where the back end can"),
    WANT(VIRTIO_NET_F_GUEST_USO4, "guest_uso4", "Offer reception of joined UDP/IPv4 packets, where the back end can"),
    WANT(VIRTIO_NET_F_GUEST_USO6, "guest_uso6", "Offer reception of joined UDP/IPv6 packets, where the back end can"),
    WANT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "ctrl_guest_offloads",
         "Offer the change of offloads while the driver runs, where there are any"),
    WANT_(VIRTIO_NET_F_MQ, "mq", false, "Offer the use of all queue pairs"),
    WANT_(VIRTIO_NET_F_RSS, "rss", false, "Offer the choice of the receive queue by a hash and a table of the driver"),
    WANT_(VIRTIO_NET_F_HASH_REPORT, "hash", false, "Offer the hash of each packet"),
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
    STATE_UINT(struct vnet_macs, n, .max = VNET_MAC_TABLE), STATE_UINT(struct vnet_macs, overflow),
    STATE_BYTES(struct vnet_macs, mac), STATE_END
};
static const struct state_desc macs_state = { .name = "mac-table", .version = 1, .fields = macs_fields };
static const struct state_field rss_fields[] = {
    STATE_BOOL(struct vnet_rss, steer), STATE_UINT(struct vnet_rss, types, .max = VNET_HASH_TYPES),
    STATE_UINT(struct vnet_rss, table_len, .max = VNET_TABLE_MAX), STATE_UINT(struct vnet_rss, unclassified),
    STATE_ARRAY(struct vnet_rss, table), STATE_BYTES(struct vnet_rss, key), STATE_END
};
static const struct state_desc rss_state = { .name = "rss", .version = 1, .fields = rss_fields };
static const struct state_field vnet_fields[] = {
    STATE_STRUCT(struct virtio_net, v, &virtio_dev_state), STATE_UINT(struct virtio_net, offloads),
    STATE_UINT(struct virtio_net, pairs, .max = VNET_PAIRS_MAX), STATE_BYTES(struct virtio_net, mac),
    STATE_BOOL(struct virtio_net, promisc), STATE_BOOL(struct virtio_net, allmulti), STATE_BOOL(struct virtio_net, alluni),
    STATE_BOOL(struct virtio_net, nomulti), STATE_BOOL(struct virtio_net, nouni), STATE_BOOL(struct virtio_net, nobcast),
    STATE_STRUCT(struct virtio_net, uni, &macs_state), STATE_STRUCT(struct virtio_net, multi, &macs_state),
    STATE_ARRAY(struct virtio_net, vlans), STATE_STRUCT(struct virtio_net, rss, &rss_state),
    STATE_ARRAY(struct virtio_net, flows),
    STATE_END
};

static bool vnet_post_load(void *obj, struct err *e)
{
    struct virtio_net *n = obj;

    if (!n->pairs || n->pairs > n->max_pairs || !vnet_rss_valid(n))
        return err_set(e, ERR_VALUE, "virtio-net '%s': saved queue pairs or receive table do not fit queue-pairs=%u",
                       n->v.dev->obj.id, n->max_pairs);
    if (n->offloads & ~vnet_guest_offloads(n))
        return err_set(e, ERR_VALUE, "virtio-net '%s': saved offloads were not negotiated", n->v.dev->obj.id);
    if (n->v.status & VIRTIO_S_FEATURES_OK || n->v.features)
        vnet_apply_offloads(n);
    n->announce = n->v.status & VIRTIO_S_DRIVER_OK;
    return true;
}
static const struct state_desc vnet_state = {
    .name = "virtio-net", .version = 1, .fields = vnet_fields, .post_load = vnet_post_load,
};

static const char *const vnet_names[] = { "virtio-net", NULL };
VIRTIO_FORMS(virtio_net, struct virtio_net, "virtio-net", "Virtio network card", "Network", vnet_props, &vnet_state,
             &vnet_model, vnet_names);
