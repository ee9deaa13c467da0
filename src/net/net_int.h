/* SPDX-License-Identifier: MIT */
/* What a network back end is made of. Main loop. */
#ifndef NET_NET_INT_H
#define NET_NET_INT_H

#include <jansson.h>
#include "net/net.h"

struct netdev { struct obj obj; struct net_port *port; };

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
/* fn(arg) as a coroutine of the main loop, and waits: for open(), which a monitor calls in one and the command line does not. */
void net_co_call(void (*fn)(void *), void *arg);
/* What the back end can take and give; before a front end connects. */
void net_port_set_caps(struct net_port *p, const struct net_caps *c);
/* The front end of a back end's port and the reverse; NULL if alone. */
struct net_port *net_port_peer(const struct net_port *p);
const char *net_port_text(const struct net_port *p);    /* what net_port_info() said; "" */
const char *net_port_user(const struct net_port *p);
void net_port_set_link(struct net_port *p, bool up);    /* with link_changed() for both sides */
uint64_t net_port_drops(const struct net_port *p);      /* packets for this port that found no room */

#endif
