/* SPDX-License-Identifier: MIT */
/*
 * Ports. Each port has one bounded queue of packets that wait for it, filled by its peer from any thread and emptied by a
 * post in the port's own domain. Who connects and disconnects is the main loop.
 */
#include "net/net_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/ring.h"
#include "loop/co.h"

enum { QUEUE_BYTES = 512 * 1024, DELIVER_BATCH = 64 };

/* Before each packet in a queue. A packet from before a change of headers is not what the receiver expects: lost. */
struct mark { uint32_t len, hdr_len; };

struct net_port {
    struct netdev *nd;                  /* the back end of this pair; NULL: a front end that is not connected */
    struct net_port *peer;              /* main loop writes it, while neither side runs */
    struct domain *dom;
    const struct net_port_ops *ops;
    void *arg;
    char *user, *text;
    struct list cards;                  /* among the cards, once net_port_info() told of it */
    struct net_caps caps;
    uint8_t mac[6];                     /* of a front end; zero: unknown */
    struct post deliver;
    atomic_bool link, blocked;          /* blocked: receive() refused; net_port_ready() ends it */
    _Atomic uint64_t drops;

    pthread_mutex_t lock;               /* a leaf lock */
    struct ring queue;                  /* of struct mark, then the packet */
    bool peer_waits, tell_sent;
    bool offload_due;                   /* the peer chose @use and @use_hdr; ours from the next delivery on */
    struct net_caps use;
    unsigned use_hdr;
    _Atomic unsigned hdr_len;           /* of the offload header that packets from here begin with, and that we expect; 0: none */
    uint8_t *bounce;                    /* a packet that wraps around the ring's end */
};

static struct list all_cards = LIST_INIT(all_cards);

static void port_post(struct net_port *p)
{
    if (p->dom)
        domain_post(&p->deliver);
    else
        loop_post(loop_main(), &p->deliver);
}

/* The oldest packet, in one piece; stays valid until it is skipped. */
static const uint8_t *port_peek(struct net_port *p, struct mark *m)
{
    const uint8_t *run;
    struct ring r = p->queue;           /* a copy to read from */
    if (!ring_used(&r))
        return NULL;
    ring_get(&r, m, sizeof *m);
    if (ring_peek(&r, &run) >= m->len)
        return run;
    if (!p->bounce)
        p->bounce = xcalloc(1, NET_MAX_PACKET);
    ring_get(&r, p->bounce, m->len);
    return p->bounce;
}

static bool port_deliver_one(struct net_port *p)
{
    struct mark m = { 0 };
    pthread_mutex_lock(&p->lock);
    const uint8_t *pkt = port_peek(p, &m);
    pthread_mutex_unlock(&p->lock);
    if (!pkt || atomic_load(&p->blocked))
        return false;
    if (atomic_load(&p->link) && m.hdr_len == atomic_load(&p->hdr_len) && !p->ops->receive(p->arg, pkt, m.len)) {
        atomic_store(&p->blocked, true);
        return false;
    }
    pthread_mutex_lock(&p->lock);
    ring_skip(&p->queue, m.len + (uint32_t)sizeof m);
    bool tell = p->peer_waits && ring_used(&p->queue) <= QUEUE_BYTES / 2;
    if (tell)
        p->peer_waits = false;
    struct net_port *peer = p->peer;
    pthread_mutex_unlock(&p->lock);
    if (tell && peer) {
        pthread_mutex_lock(&peer->lock);
        peer->tell_sent = true;
        pthread_mutex_unlock(&peer->lock);
        port_post(peer);
    }
    return true;
}

static void port_deliver(void *arg)
{
    struct net_port *p = arg;
    pthread_mutex_lock(&p->lock);
    bool sent = p->tell_sent, due = p->offload_due;
    struct net_caps use = p->use;
    unsigned hdr_len = p->use_hdr;
    p->tell_sent = p->offload_due = false;
    pthread_mutex_unlock(&p->lock);
    if (due && p->ops->set_offload) {
        p->ops->set_offload(p->arg, &use, hdr_len);
        atomic_store(&p->hdr_len, hdr_len);
    }
    if (sent && p->ops->sent)
        p->ops->sent(p->arg);
    for (int i = 0; i < DELIVER_BATCH; i++)
        if (!port_deliver_one(p))
            return;
    port_post(p);
}

static bool port_send(struct net_port *p, const struct iovec *iov, unsigned n, unsigned hdr_len)
{
    struct net_port *to = p->peer;
    size_t total = 0;
    for (unsigned i = 0; i < n; i++)
        total += iov[i].iov_len;
    if (!to || !total || total > NET_MAX_PACKET || !atomic_load(&p->link))
        return true;                    /* nobody there, or nothing that a wire would carry */
    struct mark m = { (uint32_t)total, hdr_len };
    pthread_mutex_lock(&to->lock);
    bool room = ring_room(&to->queue) >= m.len + sizeof m;
    if (room) {
        ring_put(&to->queue, &m, sizeof m);
        for (unsigned i = 0; i < n; i++)
            ring_put(&to->queue, iov[i].iov_base, iov[i].iov_len);
    } else {
        to->peer_waits = true;
    }
    pthread_mutex_unlock(&to->lock);
    if (room)
        port_post(to);
    else
        atomic_fetch_add(&to->drops, 1);
    return room;
}

bool net_send(struct net_port *p, const struct iovec *iov, unsigned n)
{
    struct net_filters *f = p->nd ? atomic_load(&p->nd->filters) : NULL;
    unsigned hdr_len = atomic_load(&p->hdr_len);
    if (f && net_filters_take(f, p->user ? NET_RX : NET_TX, NULL, iov, n, hdr_len))
        return true;
    return port_send(p, iov, n, hdr_len);
}

bool net_deliver(struct netdev *nd, enum net_dir dir, const struct iovec *iov, unsigned n, unsigned hdr_len)
{
    struct net_port *back = nd->port, *from = dir == NET_TX || !back ? back : back->peer;
    return !from || port_send(from, iov, n, hdr_len);
}

void net_port_ready(struct net_port *p)
{
    if (atomic_exchange(&p->blocked, false))
        port_post(p);
}

static struct net_port *port_new(struct netdev *nd, struct domain *dom, const struct net_port_ops *ops, void *arg)
{
    struct net_port *p = xnew(struct net_port);
    p->nd = nd;
    list_init(&p->cards);
    p->dom = dom;
    p->ops = ops;
    p->arg = arg;
    p->deliver = (struct post){ .fn = port_deliver, .arg = p, .dom = dom };
    atomic_init(&p->link, true);
    pthread_mutex_init(&p->lock, NULL);
    ring_init(&p->queue, QUEUE_BYTES);
    return p;
}

struct net_port *net_port_new(struct obj *netdev, const struct net_port_ops *ops, void *arg)
{
    return port_new((struct netdev *)netdev, NULL, ops, arg);
}

struct net_port *net_port_connect(struct obj *netdev, struct domain *dom, const struct net_port_ops *ops, void *arg, const char *user,
                                  struct err *e)
{
    struct netdev *nd = (struct netdev *)netdev;
    if (nd && NETDEV_CLASS(nd)->no_peer) {
        err_set(e, ERR_VALUE, "netdev '%s' takes no device", nd->obj.id);
        return NULL;
    }
    if (nd && nd->port->peer) {
        err_set(e, ERR_BUSY, "netdev '%s' is already used by %s", nd->obj.id, net_port_user(nd->port->peer));
        err_hint(e, "give each device a -netdev of its own; hubport joins several");
        return NULL;
    }
    struct net_port *p = port_new(nd, dom, ops, arg);
    p->user = xstrdup(user);
    if (nd) {
        obj_ref(&nd->obj);
        p->peer = nd->port;
        nd->port->peer = p;
        atomic_store(&p->link, atomic_load(&nd->port->link));
    }
    return p;
}

static void port_cancel(void *arg)
{
    struct net_port *p = arg;
    loop_post_cancel(loop_current(), &p->deliver);
}

void net_port_free(struct net_port *p)
{
    if (!p)
        return;
    bool front = p->user != NULL;
    struct loop *home = p->dom ? domain_loop(p->dom) : loop_main();
    if (p->peer) {
        if (front)
            net_port_set_offload(p, &(struct net_caps){ 0 }, 0);
        pthread_mutex_lock(&p->peer->lock);
        p->peer->peer = NULL;
        p->peer->queue.tail = front ? p->peer->queue.tail : p->peer->queue.head;
        pthread_mutex_unlock(&p->peer->lock);
    }
    if (home == loop_current())
        port_cancel(p);
    else
        loop_call(home, port_cancel, p);
    if (front && p->nd)
        obj_unref(&p->nd->obj);
    list_del(&p->cards);
    ring_free(&p->queue);
    pthread_mutex_destroy(&p->lock);
    free(p->bounce);
    free(p->user);
    free(p->text);
    free(p);
}

bool net_link_up(const struct net_port *p) { return atomic_load(&p->link); }

void net_port_set_link(struct net_port *p, bool up)
{
    struct net_port *both[2] = { p, p->peer };
    for (int i = 0; i < 2; i++) {
        struct net_port *q = both[i];
        if (!q || atomic_exchange(&q->link, up) == up || !q->ops->link_changed)
            continue;
        if (q->dom)
            domain_lock(q->dom);
        q->ops->link_changed(q->arg, up);
        if (q->dom)
            domain_unlock(q->dom);
    }
}

void net_port_set_caps(struct net_port *p, const struct net_caps *c) { p->caps = *c; }

void net_port_caps(const struct net_port *p, struct net_caps *c)
{
    *c = p->peer ? p->peer->caps : (struct net_caps){ 0 };
}

void net_port_set_offload(struct net_port *p, const struct net_caps *use, unsigned hdr_len)
{
    struct net_port *back = p->peer;
    if (!back || !back->caps.vnet_hdr)
        return;
    pthread_mutex_lock(&back->lock);
    back->use = *use;
    back->use_hdr = hdr_len;
    back->offload_due = true;
    pthread_mutex_unlock(&back->lock);
    atomic_store(&p->hdr_len, hdr_len);
    port_post(back);
}

struct net_port *net_port_peer(const struct net_port *p) { return p->peer; }
const char *net_port_text(const struct net_port *p) { return p->text ? p->text : ""; }
const char *net_port_user(const struct net_port *p) { return p->user ? p->user : p->nd ? p->nd->obj.id : ""; }
uint64_t net_port_drops(const struct net_port *p) { return atomic_load(&p->drops); }

struct netdev *net_port_netdev(const struct net_port *p) { return p->nd; }
bool net_port_is_front(const struct net_port *p) { return p->user != NULL; }
bool net_port_is_card(const struct net_port *p) { return p->text != NULL; }
bool net_is_connected(const struct obj *netdev)
{
    const struct net_port *p = ((const struct netdev *)netdev)->port;
    return p && p->peer;
}

const struct net_port *net_card_next(const struct net_port *after)
{
    const struct list *n = after ? after->cards.next : all_cards.next;
    return n == &all_cards ? NULL : list_entry(n, struct net_port, cards);
}

/* The first "MODEL.N" that no card has. */
static char *free_name(const char *model)
{
    for (unsigned i = 0;; i++) {
        char *name = xasprintf("%s.%u", model, i);
        const struct net_port *p;
        bool taken = false;
        list_for_each(p, &all_cards, cards)
            taken |= str_eq(p->user, name);
        if (!taken)
            return name;
        free(name);
    }
}

void net_port_info(struct net_port *p, const char *model, const uint8_t mac[6])
{
    if (!p->text)
        list_push(&all_cards, &p->cards);
    if (*p->user == '#') {
        char *name = free_name(model);
        free(p->user);
        p->user = name;
    }
    free(p->text);
    p->text = xasprintf("model=%s,macaddr=%02x:%02x:%02x:%02x:%02x:%02x", model, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    memcpy(p->mac, mac, 6);
}

bool net_port_announce(struct net_port *front)
{
    static const uint8_t zero[6], zero_header[64];
    uint8_t f[60] = { 0 };              /* RFC 903: "reverse request" for one's own address; Ethernet's least length */
    if (!memcmp(front->mac, zero, 6))
        return false;
    memset(f, 0xff, 6);
    memcpy(f + 6, front->mac, 6);
    st_be16(f + 12, 0x8035);
    st_be16(f + 14, 1);                 /* Ethernet */
    st_be16(f + 16, 0x0800);            /* IPv4 */
    f[18] = 6;
    f[19] = 4;
    st_be16(f + 20, 3);
    memcpy(f + 22, front->mac, 6);
    memcpy(f + 32, front->mac, 6);
    const struct iovec iov[2] = { { (void *)zero_header, atomic_load(&front->hdr_len) }, { f, sizeof f } };
    net_send(front, iov, 2);
    return true;
}

void net_mac_default(uint8_t mac[6])
{
    static uint8_t next = 0x56;
    static const uint8_t zero[6], prefix[5] = { 0x52, 0x54, 0x00, 0x12, 0x34 };
    if (memcmp(mac, zero, 6))
        return;
    memcpy(mac, prefix, sizeof prefix);
    mac[5] = next++;
}

const struct prop nic_props[] = {
    PROP_MAC(struct nic_opts, mac, "mac", "Ethernet address; the next free 52:54:00:12:34:xx if not given"),
    PROP_LINK(struct nic_opts, netdev, "netdev", &netdev_class, 0, "Network back end that the card is connected to"),
    PROP_S64(struct nic_opts, bootindex, "bootindex", -1, -1, INT32_MAX, "Place in the firmware's boot order; -1 is none"),
    PROP_END
};

/* ---- the class ---- */

static bool netdev_complete(struct obj *o, struct err *e)
{
    struct netdev *nd = (struct netdev *)o;
    return NETDEV_CLASS(nd)->open ? NETDEV_CLASS(nd)->open(nd, e)
                                  : err_set(e, ERR_VALUE, "'%s' is only another way to write the options", o->cls->name);
}

static bool netdev_can_delete(struct obj *o, struct err *e)
{
    struct netdev *nd = (struct netdev *)o;
    if (nd->port && nd->port->peer) {
        err_set(e, ERR_BUSY, "netdev '%s' is in use by %s", o->id, net_port_user(nd->port->peer));
        return err_hint(e, "take the device away first (device_del)");
    }
    return true;
}

static void netdev_finalize(struct obj *o)
{
    struct netdev *nd = (struct netdev *)o;
    net_filters_free(nd);
    if (NETDEV_CLASS(nd)->close)
        NETDEV_CLASS(nd)->close(nd);
    net_port_free(nd->port);
}

const struct obj_class netdev_class = {
    .name = "netdev", .desc = "Network back end", .size = sizeof(struct netdev), .flags = OCF_ABSTRACT, .ns = "netdev",
    .complete = netdev_complete, .can_delete = netdev_can_delete, .finalize = netdev_finalize,
};
OBJ_CLASS(&netdev_class);
