/* SPDX-License-Identifier: MIT */
/* For tests of network back ends: makes them, plugs a card in that remembers the last packet, and serves the main loop. */
#ifndef NET_CARD_H
#define NET_CARD_H

#include "loop_modes.h"
#include <string.h>

#include "base/bits.h"
#include "base/opt.h"
#include "net/net_int.h"

/* A card that remembers the last packet. */
struct card { struct net_port *port; uint8_t pkt[NET_MAX_PACKET]; size_t n; unsigned got, sent, link; bool full; };

static inline bool card_receive(void *arg, const uint8_t *pkt, size_t n)
{
    struct card *c = arg;
    if (c->full)
        return false;
    memcpy(c->pkt, pkt, n);
    c->n = n;
    c->got++;
    return true;
}
static inline void card_sent(void *arg) { ((struct card *)arg)->sent++; }
static inline void card_link(void *arg, bool up) { ((struct card *)arg)->link++; }
static const struct net_port_ops card_ops = { .receive = card_receive, .sent = card_sent, .link_changed = card_link };

/* Where the program stands: a folder of its own for sockets, so that no other run of it is in the way. */
static char net_folder[] = "/tmp/bp-net-XXXXXX";
static pid_t net_folder_owner;
static inline void net_folder_gone(void)
{
    if (getpid() == net_folder_owner)
        rmdir(net_folder);
}
static inline bool net_folder_enter(void)
{
    net_folder_owner = getpid();
    return mkdtemp(net_folder) && !chdir(net_folder) && !atexit(net_folder_gone);
}

static inline struct netdev *make(const char *text)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse(text, "type", &e);
    struct netdev *nd = o ? netdev_create(o, &e) : NULL;
    json_decref(o);
    if (!nd)
        fail_msg("%s: %s", text, e.msg);
    return nd;
}

static inline void refuse(const char *text, const char *why)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse(text, "type", &e);
    struct netdev *nd = o ? netdev_create(o, &e) : NULL;
    json_decref(o);
    if (nd || !strstr(e.msg, why))
        fail_msg("%s: %s", text, nd ? "accepted" : e.msg);
}

static inline struct card *plug(struct netdev *nd)
{
    struct err e = ERR_INIT;
    struct card *c = calloc(1, sizeof *c);
    c->port = net_port_connect(&nd->obj, NULL, &card_ops, c, "card", &e);
    if (!c->port)
        fail_msg("%s", e.msg);
    return c;
}

static inline void unplug(struct card *c)
{
    net_port_free(c->port);
    free(c);
}

static inline void unmake(struct netdev *nd)
{
    struct err e = ERR_INIT;
    if (!obj_user_delete(&nd->obj, &e))
        fail_msg("%s", e.msg);
}

static inline bool put(struct card *c, const void *p, size_t n)
{
    struct iovec iov = { (void *)p, n };
    return net_send(c->port, &iov, 1);
}

#endif
