/* SPDX-License-Identifier: MIT */
/* Network device (VIRTIO 1.2, 5.1): layouts, and what its data path, its control queue and its hashing share. */
#ifndef HW_VIRTIO_VIRTIO_NET_H
#define HW_VIRTIO_VIRTIO_NET_H

#include "hw/virtio/virtio.h"
#include "net/net.h"

enum {
    VIRTIO_NET_F_CSUM = 0, VIRTIO_NET_F_GUEST_CSUM = 1, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2, VIRTIO_NET_F_MTU = 3,
    VIRTIO_NET_F_MAC = 5, VIRTIO_NET_F_GUEST_TSO4 = 7, VIRTIO_NET_F_GUEST_TSO6 = 8, VIRTIO_NET_F_GUEST_ECN = 9,
    VIRTIO_NET_F_GUEST_UFO = 10, VIRTIO_NET_F_HOST_TSO4 = 11, VIRTIO_NET_F_HOST_TSO6 = 12, VIRTIO_NET_F_HOST_ECN = 13,
    VIRTIO_NET_F_HOST_UFO = 14, VIRTIO_NET_F_MRG_RXBUF = 15, VIRTIO_NET_F_STATUS = 16, VIRTIO_NET_F_CTRL_VQ = 17,
    VIRTIO_NET_F_CTRL_RX = 18, VIRTIO_NET_F_CTRL_VLAN = 19, VIRTIO_NET_F_CTRL_RX_EXTRA = 20, VIRTIO_NET_F_GUEST_ANNOUNCE = 21,
    VIRTIO_NET_F_MQ = 22, VIRTIO_NET_F_CTRL_MAC_ADDR = 23, VIRTIO_NET_F_GUEST_USO4 = 54, VIRTIO_NET_F_GUEST_USO6 = 55,
    VIRTIO_NET_F_HOST_USO = 56, VIRTIO_NET_F_HASH_REPORT = 57, VIRTIO_NET_F_RSS = 60, VIRTIO_NET_F_SPEED_DUPLEX = 63,
};
enum { VIRTIO_NET_S_LINK_UP = 1, VIRTIO_NET_S_ANNOUNCE = 2 };

struct vnet_config {                    /* 5.1.4, little endian */
    uint8_t mac[6];
    uint16_t status, max_pairs, mtu;
    uint32_t speed;
    uint8_t duplex, rss_key_max;
    uint16_t rss_table_max;
    uint32_t hash_types;
} __attribute__((packed));
static_assert(sizeof(struct vnet_config) == 24, "5.1.4");

struct vnet_header {                    /* 5.1.6; the hash only with HASH_REPORT */
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
    uint32_t hash_value;
    uint16_t hash_report, padding;
};
static_assert(sizeof(struct vnet_header) == 20, "5.1.6");
/* What a header is long: for legacy drivers that do not merge buffers, for all others, with a hash. */
enum { VNET_HDR_LEGACY = 10, VNET_HDR = 12, VNET_HDR_HASH = 20 };

#define VNET_PAIRS_MAX 256
#define VNET_MAC_TABLE 64               /* filter entries of each kind; more mean "all" */
#define VNET_KEY_MAX 40
#define VNET_TABLE_MAX 128
#define VNET_FLOWS 256                  /* memory of which flow is served by which pair */

struct vnet_macs { uint8_t n, overflow; uint8_t mac[VNET_MAC_TABLE][6]; };

struct vnet_rss {                       /* 5.1.6.5.7 */
    bool steer;                         /* the table decides about the queue */
    uint32_t types;                     /* of hashes that are computed */
    uint16_t table_len, unclassified, table[VNET_TABLE_MAX];
    uint8_t key[VNET_KEY_MAX];
};

struct virtio_net {
    struct virtio_dev v;                /* first */
    struct nic_opts nic;
    uint64_t wanted;                    /* feature bits that the options allow */
    uint16_t rx_size, tx_size, mtu, max_pairs;
    int32_t speed;
    int duplex;                         /* 0 unknown, 1 half, 2 full */
    struct net_port *port;
    struct net_caps caps;
    uint32_t hdr_len;                   /* of the guest's packet header */
    uint32_t net_hdr;                   /* of the back end's; 0: it takes bare packets */
    uint64_t offloads;                  /* GUEST_* bits that the driver wants now */
    uint16_t pairs;                     /* in use */
    bool announce;                      /* tell the guest on resume to announce itself */
    /* receive filter (5.1.6.5) */
    uint8_t mac[6];
    bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
    struct vnet_macs uni, multi;
    uint32_t vlans[4096 / 32];
    struct vnet_rss rss;
    uint16_t flows[VNET_FLOWS];         /* pair that last sent a packet of the flow */
};

static inline struct virtio_net *vnet(struct virtio_dev *v) { return (struct virtio_net *)v; }
static inline struct vnet_config *vnet_config(struct virtio_net *n) { return (struct vnet_config *)n->v.config; }

/* Several pairs may be in use; the control queue is behind all of them then, else behind the first (5.1.2). */
static inline bool vnet_multi(const struct virtio_net *n)
{
    return virtio_has(&n->v, VIRTIO_NET_F_MQ) || virtio_has(&n->v, VIRTIO_NET_F_RSS);
}

/* ---- virtio_net.c ---- */
/* What the driver accepted takes effect on headers and on the back end. */
void vnet_apply_offloads(struct virtio_net *n);
uint64_t vnet_guest_offloads(const struct virtio_net *n);  /* that were negotiated */

/* ---- virtio_net_io.c ---- */
void vnet_rx_kicked(struct virtq *vq);
void vnet_tx_kicked(struct virtq *vq);
extern const struct net_port_ops vnet_port_ops;

/* ---- virtio_net_ctrl.c ---- */
void vnet_ctrl_kicked(struct virtq *vq);
/* Filter back to what a device without driver lets through: everything. */
void vnet_filter_reset(struct virtio_net *n);
bool vnet_filter(const struct virtio_net *n, const uint8_t *pkt, size_t len);

/* ---- virtio_net_rss.c ---- */
#define VNET_HASH_TYPES 0x3fu           /* IPv4, TCPv4, UDPv4, IPv6, TCPv6, UDPv6; no extension headers */
/* The result of looking at a packet: what is hashed, and which VIRTIO_NET_HASH_REPORT_* that is (0: nothing known). */
struct vnet_flow { uint8_t report, len, bytes[36]; };
void vnet_flow_of(const uint8_t *pkt, size_t len, uint32_t types, struct vnet_flow *f);
uint32_t vnet_toeplitz(const uint8_t key[VNET_KEY_MAX], const uint8_t *data, unsigned n);
/* The pair that receives @pkt; fills the hash fields of @h where they are reported. */
unsigned vnet_steer(struct virtio_net *n, const uint8_t *pkt, size_t len, struct vnet_header *h);
/* Remembers that @pair sends this flow, so that its answers are received there (5.1.6.5.6). */
void vnet_learn(struct virtio_net *n, unsigned pair, const uint8_t *pkt, size_t len);
/* RSS_CONFIG and HASH_CONFIG: @e as the driver sent it. False: refused. */
bool vnet_rss_set(struct virtio_net *n, const struct vq_elem *e, bool steer);
bool vnet_rss_valid(const struct virtio_net *n);

#endif
