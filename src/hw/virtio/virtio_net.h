/* SPDX-License-Identifier: MIT */
/* Network device (VIRTIO 1.2, 5.1): layouts, and what its data path and its control queue share. */
#ifndef HW_VIRTIO_VIRTIO_NET_H
#define HW_VIRTIO_VIRTIO_NET_H

#include "hw/virtio/virtio.h"
#include "net/net.h"

enum {
    VIRTIO_NET_F_CSUM = 0, VIRTIO_NET_F_GUEST_CSUM = 1, VIRTIO_NET_F_MTU = 3, VIRTIO_NET_F_MAC = 5, VIRTIO_NET_F_GUEST_TSO4 = 7,
    VIRTIO_NET_F_GUEST_TSO6 = 8, VIRTIO_NET_F_GUEST_ECN = 9, VIRTIO_NET_F_GUEST_UFO = 10, VIRTIO_NET_F_HOST_TSO4 = 11,
    VIRTIO_NET_F_HOST_TSO6 = 12, VIRTIO_NET_F_HOST_ECN = 13, VIRTIO_NET_F_HOST_UFO = 14, VIRTIO_NET_F_MRG_RXBUF = 15,
    VIRTIO_NET_F_STATUS = 16, VIRTIO_NET_F_CTRL_VQ = 17, VIRTIO_NET_F_CTRL_RX = 18, VIRTIO_NET_F_CTRL_VLAN = 19,
    VIRTIO_NET_F_CTRL_RX_EXTRA = 20, VIRTIO_NET_F_GUEST_ANNOUNCE = 21, VIRTIO_NET_F_CTRL_MAC_ADDR = 23,
    VIRTIO_NET_F_SPEED_DUPLEX = 63,
};
enum { VIRTIO_NET_S_LINK_UP = 1, VIRTIO_NET_S_ANNOUNCE = 2 };

struct vnet_config {                    /* 5.1.4, little endian */
    uint8_t mac[6];
    uint16_t status, max_pairs, mtu;
    uint32_t speed;
    uint8_t duplex;
} __attribute__((packed));
static_assert(sizeof(struct vnet_config) == 17, "5.1.4");

struct vnet_header {                    /* 5.1.6; without num_buffers for legacy drivers that do not merge buffers */
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
static_assert(sizeof(struct vnet_header) == 12, "5.1.6");

#define VNET_MAC_TABLE 64               /* filter entries of each kind; more mean "all" */

struct vnet_macs { uint8_t n, overflow; uint8_t mac[VNET_MAC_TABLE][6]; };

struct virtio_net {
    struct virtio_dev v;                /* first */
    struct nic_opts nic;
    uint64_t wanted;                    /* feature bits that the options allow */
    uint16_t rx_size, tx_size, mtu;
    int32_t speed;
    int duplex;                         /* 0 unknown, 1 half, 2 full */
    struct net_port *port;
    struct net_caps caps;
    struct virtq *rx, *tx, *ctrl;
    uint32_t hdr_len;                   /* of the guest's packet header */
    bool announce;                      /* tell the guest on resume to announce itself */
    /* receive filter (5.1.6.5) */
    uint8_t mac[6];
    bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
    struct vnet_macs uni, multi;
    uint32_t vlans[4096 / 32];
};

static inline struct virtio_net *vnet(struct virtio_dev *v) { return (struct virtio_net *)v; }
static inline struct vnet_config *vnet_config(struct virtio_net *n) { return (struct vnet_config *)n->v.config; }

/* Handlers of the three queues, and the port's callbacks. */
void vnet_rx_kicked(struct virtq *vq);
void vnet_tx_kicked(struct virtq *vq);
void vnet_ctrl_kicked(struct virtq *vq);
extern const struct net_port_ops vnet_port_ops;
/* Filter back to what a device without driver lets through: everything. */
void vnet_filter_reset(struct virtio_net *n);
bool vnet_filter(const struct virtio_net *n, const uint8_t *pkt, size_t len);
void vnet_link(struct virtio_net *n, bool up);

#endif
