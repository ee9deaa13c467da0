/* SPDX-License-Identifier: MIT */
/* Watchers of a node's content, and ranges of it that somebody keeps to himself for a moment. */
#include "block/blk_int.h"

static bool overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen) { return a < b + blen && b < a + alen; }

void co_watch_add(struct blk_node *n, struct blk_watch *w)
{
    struct blk_drain d;
    co_node_drain(n, &d);
    list_push(&n->watches, &w->link);
    atomic_store(&n->watched, true);
    blk_drain_end(&d);
}

void co_watch_del(struct blk_node *n, struct blk_watch *w)
{
    struct blk_range all;
    co_range_lock(n, &all, 0, INT64_MAX);   /* also what jobs write */
    list_del(&w->link);
    if (list_empty(&n->watches))
        atomic_store(&n->watched, false);
    blk_range_unlock(&all);
}

/* Until no lock of @n reaches into the range. */
static void co_wait_for_ranges(struct blk_node *n, uint64_t off, uint64_t len)
{
    for (bool again = true; again;) {
        struct blk_range *g;
        again = false;
        list_for_each(g, &n->locks, link) {
            if (!overlap(g->off, g->len, off, len))
                continue;
            co_queue_wait(&g->waiting);
            again = true;
            break;
        }
    }
}

static struct blk_change *change_at(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct blk_change *c;
    list_for_each(c, &n->changes, link)
        if (overlap(c->off, c->len, off, len))
            return c;
    return NULL;
}

void co_range_lock(struct blk_node *n, struct blk_range *g, uint64_t off, uint64_t len)
{
    co_wait_for_ranges(n, off, len);
    *g = (struct blk_range){ .off = off, .len = len };
    list_push(&n->locks, &g->link);         /* no new change comes in; those in flight end */
    for (struct blk_change *c; (c = change_at(n, off, len));)
        co_queue_wait(&c->waiting);
}

void blk_range_unlock(struct blk_range *g)
{
    list_del(&g->link);
    co_queue_wake_all(&g->waiting);
}

int co_change_begin(struct blk_node *n, struct blk_change *c)
{
    struct blk_watch *w;
    int r = 0;
    co_wait_for_ranges(n, c->off, c->len);
    list_push(&n->changes, &c->link);
    list_for_each(w, &n->watches, link)
        if (!r && w->co_before)
            r = w->co_before(w, c);
    return r;
}

int co_change_end(struct blk_node *n, struct blk_change *c, int r)
{
    struct blk_watch *w;
    list_for_each(w, &n->watches, link)
        if (w->co_after)
            r = w->co_after(w, c, r);
    list_del(&c->link);
    co_queue_wake_all(&c->waiting);
    return r;
}
