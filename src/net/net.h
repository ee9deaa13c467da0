/* SPDX-License-Identifier: MIT */
/* Network ports and back ends. Every packet goes from one port to its peer; each side is served in its own domain. */
#ifndef NET_NET_H
#define NET_NET_H

#include <sys/uio.h>
#include "core/obj.h"
#include "loop/loop.h"

#define NET_MAX_PACKET (65536 + 64)

extern const struct obj_class netdev_class;        /* abstract; ns "netdev" */

/* virtio_net_hdr-style offloads that the back end understands on packets it is given / may give. */
struct net_caps { bool vnet_hdr, csum, tso4, tso6, ufo, uso, ecn; };

struct net_port;
struct net_port_ops {
    /* A packet from the peer, in this port's domain on its home loop; it begins with the offload header (VIRTIO 1.2, 5.1.6) of the
     * size that net_port_set_offload() chose. False: no room now; the packet stays queued until net_port_ready(). */
    bool (*receive)(void *arg, const uint8_t *pkt, size_t n);
    void (*link_changed)(void *arg, bool up);       /* may be NULL */
    void (*sent)(void *arg);                        /* room again after a refused net_send(); may be NULL */
    /* Back ends with caps.vnet_hdr: what the front end chose, for packets from now on; @hdr_len 0: bare packets. Like receive(). */
    void (*set_offload)(void *arg, const struct net_caps *use, unsigned hdr_len);
};

/* Front end side. @netdev from a LINK property; NULL: not connected (packets vanish). One user each. Main loop. */
struct net_port *net_port_connect(struct obj *netdev, struct domain *dom, const struct net_port_ops *ops, void *arg, const char *user,
                                  struct err *e) MUST_CHECK;
/* Back end side: a netdev makes its port in complete(); it is served on the main loop. */
struct net_port *net_port_new(struct obj *netdev, const struct net_port_ops *ops, void *arg);
void net_port_free(struct net_port *p);
/* Queues one packet for the peer (copied once). False: the peer's queue is full; wait for `sent` or drop. ANY. */
bool net_send(struct net_port *p, const struct iovec *iov, unsigned n);
/* This port can receive again. ANY. */
void net_port_ready(struct net_port *p);
/* Whether a device, or another back end, is at its other end. Main loop. */
bool net_is_connected(const struct obj *netdev);
bool net_link_up(const struct net_port *p);         /* ANY */
void net_port_caps(const struct net_port *p, struct net_caps *c);       /* of the peer back end */
/* The front end chooses which offloads it takes and the size of the header before each packet, both ways: 0 (at first), 10 or 12.
 * Packets with another header that are under way are lost. Nothing happens if the back end has no caps.vnet_hdr. ANY. */
void net_port_set_offload(struct net_port *p, const struct net_caps *use, unsigned hdr_len);
/* Front end: its model and address, which `info network` shows and announce-self tells the network. Main loop, before it runs. */
void net_port_info(struct net_port *p, const char *model, const uint8_t mac[6]);
/* MAC given by the user or the next free 52:54:00:12:34:xx. */
void net_mac_default(uint8_t mac[6]);

/* NIC options of every card: mac=, netdev=, bootindex=. PROP_INCLUDE(T, nic, nic_props). */
struct nic_opts { uint8_t mac[6]; struct obj *netdev; int64_t bootindex; };
extern const struct prop nic_props[];

#endif
