/* SPDX-License-Identifier: MIT */
/* The list of filters of a network back end, and filter-buffer, which needs no more than that. */
#include "net/filter.h"

#include <stdlib.h>
#include <string.h>

enum { QUEUE_BYTES = 1 << 20, QUEUE_PACKETS = 1024 };

struct net_filters { pthread_mutex_t lock; struct list list; };

bool net_filter_sees(const struct net_filter *f, enum net_dir dir)
{
    return f->queue == FILTER_ALL || (f->queue == FILTER_TX) == (dir == NET_TX);
}

/* A full queue loses the newest packet, as a wire would. */
static void enqueue(struct net_filter *f, enum net_dir dir, const struct iovec *iov, unsigned n, unsigned hdr_len)
{
    struct filter_packet p = { 0, hdr_len, dir };
    for (unsigned i = 0; i < n; i++)
        p.len += (uint32_t)iov[i].iov_len;
    pthread_mutex_lock(&f->lock);
    bool room = f->n_packets < QUEUE_PACKETS && p.len <= NET_MAX_PACKET && ring_room(&f->packets) >= p.len + sizeof p;
    if (room) {
        f->n_packets++;
        ring_put(&f->packets, &p, sizeof p);
        for (unsigned i = 0; i < n; i++)
            ring_put(&f->packets, iov[i].iov_base, iov[i].iov_len);
    }
    pthread_mutex_unlock(&f->lock);
    if (room)
        loop_post(loop_main(), &f->post);
}

bool net_filters_take(struct net_filters *all, enum net_dir dir, const struct net_filter *after, const struct iovec *iov, unsigned n,
                      unsigned hdr_len)
{
    bool taken = false;
    pthread_mutex_lock(&all->lock);
    struct list *at = after ? (struct list *)&after->link : &all->list;
    for (at = dir == NET_TX ? at->next : at->prev; at != &all->list && !taken; at = dir == NET_TX ? at->next : at->prev) {
        struct net_filter *f = list_entry(at, struct net_filter, link);
        if (!atomic_load(&f->on) || !net_filter_sees(f, dir))
            continue;
        taken = FILTER_CLASS(f)->steals(f);
        if (taken || FILTER_CLASS(f)->seen)
            enqueue(f, dir, iov, n, hdr_len);
    }
    pthread_mutex_unlock(&all->lock);
    return taken;
}

void net_filter_pass(struct net_filter *f, const struct filter_packet *p, const uint8_t *data)
{
    const struct iovec iov = { (void *)data, p->len };
    struct net_filters *all = f->nd ? atomic_load(&f->nd->filters) : NULL;
    if (all && !net_filters_take(all, p->dir, f, &iov, 1, p->hdr_len))
        net_deliver(f->nd, p->dir, &iov, 1, p->hdr_len);
}

/* ---- life ---- */

static bool next_packet(struct net_filter *f, struct filter_packet *p, uint8_t *data)
{
    pthread_mutex_lock(&f->lock);
    bool any = ring_get(&f->packets, p, sizeof *p) == sizeof *p;
    if (any) {
        ring_get(&f->packets, data, p->len);
        f->n_packets--;
    }
    pthread_mutex_unlock(&f->lock);
    return any;
}

static void drain(void *arg)
{
    static uint8_t data[NET_MAX_PACKET];        /* main loop only */
    struct net_filter *f = arg;
    struct filter_packet p;
    while (next_packet(f, &p, data))
        FILTER_CLASS(f)->seen(f, &p, data);
}

static struct net_filters *list_of(struct netdev *nd)
{
    struct net_filters *all = atomic_load(&nd->filters);
    if (all)
        return all;
    all = xnew(struct net_filters);
    pthread_mutex_init(&all->lock, NULL);
    list_init(&all->list);
    atomic_store(&nd->filters, all);
    return all;
}

/* Where the options put it: head, tail, or beside the filter "id=NAME". */
static bool find_place(struct net_filter *f, struct net_filters *all, struct list **at, bool *before, struct err *e)
{
    const char *pos = f->position ? f->position : "tail";
    *at = &all->list;
    *before = !strcmp(pos, "tail");
    if (*before || !strcmp(pos, "head"))
        return true;
    struct obj *o = str_starts(pos, "id=") ? obj_find("object", pos + 3) : NULL;
    if (!o || !obj_is(o, &net_filter_class) || ((struct net_filter *)o)->nd != f->nd) {
        err_set(e, ERR_VALUE, "position=%.60s: no filter of netdev '%s'", pos, f->netdev);
        return err_hint(e, "position=head, tail or id=FILTER");
    }
    *at = &((struct net_filter *)o)->link;
    *before = f->insert == 1;
    return true;
}

static bool filter_complete(struct obj *o, struct err *e)
{
    struct net_filter *f = (struct net_filter *)o;
    f->nd = (struct netdev *)obj_lookup(&netdev_class, f->netdev, e);
    if (!f->nd)
        return err_prefix(e, "netdev");
    struct net_filters *all = list_of(f->nd);
    struct list *at;
    bool before;
    if (!find_place(f, all, &at, &before, e) || !FILTER_CLASS(f)->open(f, e))
        return false;
    pthread_mutex_lock(&all->lock);
    f->link.next = before ? at : at->next;
    f->link.prev = before ? at->prev : at;
    f->link.next->prev = f->link.prev->next = &f->link;
    pthread_mutex_unlock(&all->lock);
    return true;
}

static void leave(struct net_filter *f)
{
    struct net_filters *all = f->nd ? atomic_load(&f->nd->filters) : NULL;
    if (!all)
        return;
    pthread_mutex_lock(&all->lock);
    list_del(&f->link);
    pthread_mutex_unlock(&all->lock);
    f->nd = NULL;
}

static void filter_finalize(struct obj *o)
{
    struct net_filter *f = (struct net_filter *)o;
    leave(f);
    loop_post_cancel(loop_main(), &f->post);
    FILTER_CLASS(f)->close(f);
    ring_free(&f->packets);
    pthread_mutex_destroy(&f->lock);
}

void net_filters_free(struct netdev *nd)
{
    struct net_filters *all = atomic_load(&nd->filters);
    struct net_filter *f;
    if (!all)
        return;
    while ((f = list_first(&all->list, struct net_filter, link))) {
        leave(f);
        obj_del(&f->obj);
    }
    atomic_store(&nd->filters, NULL);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

static bool filter_init(struct obj *o, struct err *e)
{
    struct net_filter *f = (struct net_filter *)o;
    list_init(&f->link);
    pthread_mutex_init(&f->lock, NULL);
    ring_init(&f->packets, QUEUE_BYTES);
    f->post = (struct post){ .fn = drain, .arg = f };
    atomic_init(&f->on, true);
    return true;
}

static bool status_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct net_filter *f = (struct net_filter *)o;
    atomic_store(&f->on, f->status == 0);
    if (f->nd && FILTER_CLASS(f)->status)
        FILTER_CLASS(f)->status(f);
    return true;
}

static const char *const queues[] = { "all", "rx", "tx", NULL }, *const inserts[] = { "behind", "before", NULL }, *const states[] = { "on", "off", NULL };
static const struct prop filter_props[] = {
    { .name = "netdev", .doc = "Network back end whose packets it sees, and with which it ends", .type = PROP_T_STR, .flags = PF_REQUIRED | PF_NAMES,
      .of = &netdev_class, PROP_OFF(struct net_filter, netdev) },
    PROP_ENUM(struct net_filter, queue, "queue", queues, FILTER_ALL, "tx: from the back end to the card; rx: from the card"),
    PROP_STR(struct net_filter, position, "position", 0, "head, tail (the default), or id=FILTER: beside that one"),
    PROP_ENUM(struct net_filter, insert, "insert", inserts, 0, "With position=id=FILTER"),
    { .name = "status", .doc = "off: packets pass as if it were not there", .type = PROP_T_ENUM, .flags = PF_RUNTIME, .of = states,
      PROP_OFF(struct net_filter, status), .changed = status_changed },
    PROP_END
};

const struct obj_class net_filter_class = {
    .name = "netfilter", .desc = "Network filter", .size = sizeof(struct net_filter), .flags = OCF_ABSTRACT, .ns = "object", .props = filter_props,
    .init = filter_init, .complete = filter_complete, .finalize = filter_finalize,
};
OBJ_CLASS(&net_filter_class);

/* ---- filter-buffer: packets wait for the end of an interval ---- */

struct held { struct list link; struct filter_packet p; uint8_t data[]; };
struct buffer { struct net_filter f; uint32_t interval; unsigned n; struct list held; struct timer timer; };
enum { HELD_MAX = 1024 };               /* past these the newest are lost: what is held keeps its order and has no gap */

static void release(void *arg)
{
    struct buffer *b = arg;
    struct list *l;
    while ((l = list_pop(&b->held))) {
        struct held *h = list_entry(l, struct held, link);
        net_filter_pass(&b->f, &h->p, h->data);
        free(h);
    }
    b->n = 0;
    timer_arm(&b->timer, clock_now(CLOCK_VM) + b->interval * INT64_C(1000));
}

static bool buffer_open(struct net_filter *f, struct err *e)
{
    struct buffer *b = (struct buffer *)f;
    list_init(&b->held);
    timer_init(&b->timer, CLOCK_VM, loop_main(), NULL, release, b);
    timer_arm(&b->timer, clock_now(CLOCK_VM) + b->interval * INT64_C(1000));
    return true;
}

static void buffer_close(struct net_filter *f)
{
    struct buffer *b = (struct buffer *)f;
    struct list *l;
    if (!b->timer.loop)
        return;
    timer_fini(&b->timer);
    while ((l = list_pop(&b->held)))
        free(list_entry(l, struct held, link));
}

static bool buffer_steals(const struct net_filter *f) { return true; }

static void buffer_seen(struct net_filter *f, const struct filter_packet *p, const uint8_t *data)
{
    struct buffer *b = (struct buffer *)f;
    struct held *h = b->n < HELD_MAX ? malloc(sizeof *h + p->len) : NULL;
    if (!h)
        return;                         /* lost, as on a wire */
    b->n++;
    h->p = *p;
    memcpy(h->data, data, p->len);
    list_push(&b->held, &h->link);
}

static void buffer_status(struct net_filter *f)
{
    if (!atomic_load(&f->on))
        release(f);
}

static const struct prop buffer_props[] = {
    { .name = "interval", .doc = "Microseconds that packets are gathered before they go on together; at most 1024, later ones are lost", .type = PROP_T_U32, .flags = PF_REQUIRED,
      PROP_OFF(struct buffer, interval), .min = 1, .max = UINT32_MAX },
    PROP_END
};
static const struct net_filter_class buffer_class = {
    .obj = { .name = "filter-buffer", .desc = "Packets wait for the end of an interval", .base = &net_filter_class, .size = sizeof(struct buffer),
             .props = buffer_props },
    .open = buffer_open, .close = buffer_close, .steals = buffer_steals, .seen = buffer_seen, .status = buffer_status,
};
OBJ_CLASS(&buffer_class.obj);
