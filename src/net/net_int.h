/* SPDX-License-Identifier: MIT */
/* What a network back end is made of. Main loop. */
#ifndef NET_NET_INT_H
#define NET_NET_INT_H

#include <jansson.h>
#include "net/net.h"

struct net_filters;
struct netdev { struct obj obj; struct net_port *port; _Atomic(struct net_filters *) filters /* NULL: never had any */; };

struct netdev_class {
    struct obj_class obj;
    bool (*open)(struct netdev *, struct err *);        /* makes nd->port; may wait */
    void (*close)(struct netdev *);                     /* also after a failed open; the port is freed afterwards */
    void (*info)(const struct netdev *, struct str *out);   /* "net=10.0.2.0,restrict=off" for `info network` */
    /* An older way to write another type: its options, new, with "type". Then nothing else is called. May be NULL. */
    json_t *(*expand)(json_t *opts, struct err *);
    bool no_peer;                                       /* takes no front end of its own */
};

#define NETDEV_CLASS(n) ((const struct netdev_class *)(n)->obj.cls)

/* From options with "type" and "id"; borrowed, NULL with @e filled. */
struct netdev *netdev_create(json_t *opts, struct err *e) MUST_CHECK;
/* What the back end can take and give; before a front end connects. */
void net_port_set_caps(struct net_port *p, const struct net_caps *c);
/* The front end of a back end's port and the reverse; NULL if alone. */
struct net_port *net_port_peer(const struct net_port *p);
const char *net_port_text(const struct net_port *p);    /* what net_port_info() said; "" */
/* A front end's name: of its device, "MODEL.N" where that has none, or of the hub's port. */
const char *net_port_user(const struct net_port *p);
struct netdev *net_port_netdev(const struct net_port *p);       /* the back end of this pair; NULL: there is none */
bool net_port_is_front(const struct net_port *p);
bool net_port_is_card(const struct net_port *p);                /* a front end that net_port_info() told of */
const struct net_port *net_card_next(const struct net_port *after);     /* all cards; NULL: the first, and after the last */
void net_port_set_link(struct net_port *p, bool up);    /* with link_changed() for both sides */
/* A front end whose card has an address sends one frame (RARP) that tells it to switches. False: it has none. Main loop. */
bool net_port_announce(struct net_port *front);
uint64_t net_port_drops(const struct net_port *p);      /* packets for this port that found no room */

/* ---- hub.c ---- */

bool hub_has(const struct netdev *nd);
/* Every port, hub by hub: its hub's number, whether it is its first, its name, and the other end or NULL. */
void hub_each_port(void (*fn)(void *arg, unsigned hub, bool first, const char *name, const struct net_port *other), void *arg);

/* ---- filters (filter.c): they see what goes between a back end and its card ---- */

enum net_dir { NET_TX, NET_RX };        /* from the back end to the card; from the card to the back end */
struct net_filter;
/* True: a filter behind @after (NULL: any) took the packet, it goes no further now. ANY. */
bool net_filters_take(struct net_filters *all, enum net_dir dir, const struct net_filter *after, const struct iovec *iov, unsigned n,
                      unsigned hdr_len);
/* Frees them with their netdev: the filters end. Main loop. */
void net_filters_free(struct netdev *nd);
/* What net_send() does behind the filters, with a header of @hdr_len bytes, in direction @dir. */
bool net_deliver(struct netdev *nd, enum net_dir dir, const struct iovec *iov, unsigned n, unsigned hdr_len);

#endif
