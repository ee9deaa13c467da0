/* SPDX-License-Identifier: MIT */
/*
 * "powerloss": a disk with a volatile write cache whose power fails. What was written since the last flush is kept here; at the
 * chosen moment a part of it, chosen by the seed, reaches the node below, and from then on every request fails. What is below is
 * then what a real disk would hold after the cut.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "block/driver.h"

enum { SECTOR = 512 };
enum keep { KEEP_NONE, KEEP_SOME, KEEP_TORN, KEEP_ALL };
static const char *const keep_names[] = { "none", "some", "torn", "all", NULL };

/* A write that is not on the disk yet. @data NULL: zeroes; @len 0: the size became @off. */
struct pending { struct list link; uint64_t off, len; uint8_t *data; };

struct blk_powerloss {
    struct blk_node node;
    json_t *file;
    uint64_t cut_write, cut_flush, seed, cache_size;
    int keep;
    /* state */
    struct list pending;
    uint64_t bytes, writes, flushes, rng;
    bool dead;
};

static struct blk_powerloss *of(struct blk_node *n) { return (struct blk_powerloss *)n; }

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_powerloss *s = of(n);
    if (!blk_child_open(n, s->file, 0, BLK_PERM_ALL, e))
        return false;
    blk_caps_inherit(n, n->child.node);
    n->caps.grows = n->child.node->caps.grows;
    n->caps.flush = true;
    s->rng = s->seed;
    return true;
}

static void drop(struct blk_powerloss *s, struct pending *p)
{
    list_del(&p->link);
    s->bytes -= p->data ? p->len : 0;
    free(p->data);
    free(p);
}

/* ---- to the disk ---- */

static int co_apply(struct blk_powerloss *s, const struct pending *p, uint64_t at, uint64_t len)
{
    struct blk_node *c = s->node.child.node;
    if (!p->len)
        return co_node_resize(c, p->off);
    if (!p->data)
        return co_node_zero(c, p->off + at, len, BLK_GROW);
    struct iovec v = { p->data + at, len };
    return co_node_pwritev(c, p->off + at, len, &v, 1, BLK_GROW);
}

/* Every sector of @p by a throw of its own. */
static int co_apply_torn(struct blk_powerloss *s, const struct pending *p)
{
    int r = 0;
    if (!p->len)
        return random_next(&s->rng) & 1 ? co_apply(s, p, 0, 0) : 0;
    for (uint64_t at = 0; at < p->len && !r; ) {
        uint64_t n = MIN(SECTOR - (p->off + at) % SECTOR, p->len - at);
        if (random_next(&s->rng) & 1)
            r = co_apply(s, p, at, n);
        at += n;
    }
    return r;
}

static int co_apply_all(struct blk_powerloss *s, enum keep keep)
{
    int r = 0;
    while (!list_empty(&s->pending)) {
        struct pending *p = list_first(&s->pending, struct pending, link);
        if (!r && (keep == KEEP_ALL || (keep == KEEP_SOME && random_next(&s->rng) & 1)))
            r = co_apply(s, p, 0, p->len);
        else if (!r && keep == KEEP_TORN)
            r = co_apply_torn(s, p);
        drop(s, p);
    }
    return r;
}

/* The power fails if it is time. */
static int co_maybe_cut(struct blk_powerloss *s, bool now)
{
    if (!now || s->dead)
        return s->dead ? -EIO : 0;
    s->dead = true;
    co_apply_all(s, (enum keep)s->keep);
    co_node_flush(s->node.child.node);
    return -EIO;
}

/* ---- requests ---- */

static int co_queue_write(struct blk_powerloss *s, uint64_t off, uint64_t len, uint8_t *data)
{
    struct pending *p = xnew(struct pending);
    *p = (struct pending){ .off = off, .len = len, .data = data };
    list_push(&s->pending, &p->link);
    s->bytes += data ? len : 0;
    uint64_t size = atomic_load(&s->node.size);
    atomic_store(&s->node.size, len ? MAX(size, align_up(off + len, SECTOR)) : off);
    int r = co_maybe_cut(s, ++s->writes == s->cut_write);
    while (!r && s->bytes > s->cache_size) {        /* the cache is full: the oldest goes first */
        struct pending *old = list_first(&s->pending, struct pending, link);
        r = co_apply(s, old, 0, old->len);
        drop(s, old);
    }
    return r;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_powerloss *s = of(n);
    if (s->dead)
        return -EIO;
    uint64_t below = atomic_load(&n->child.node->size), there = off >= below ? 0 : MIN(len, below - off);
    uint8_t *buf = calloc(1, len);
    struct iovec v = { buf, there };
    int r = !buf ? -ENOMEM : there ? co_node_preadv(n->child.node, off, there, &v, 1, 0) : 0;
    struct pending *p;
    list_for_each(p, &s->pending, link) {
        if (!p->len && p->off < off + len)          /* what was cut off reads as zeroes when it comes back */
            memset(buf + (MAX(p->off, off) - off), 0, off + len - MAX(p->off, off));
        uint64_t a = MAX(p->off, off), b = MIN(p->off + p->len, off + len);
        if (p->len && a < b && p->data)
            memcpy(buf + (a - off), p->data + (a - p->off), b - a);
        else if (p->len && a < b)
            memset(buf + (a - off), 0, b - a);
    }
    if (!r)
        blk_iov_copy(buf, iov, niov, 0, len, true);
    free(buf);
    return s->dead ? -EIO : r;
}

static int co_flush(struct blk_node *n)
{
    struct blk_powerloss *s = of(n);
    int r = co_maybe_cut(s, ++s->flushes == s->cut_flush);
    r = r ? r : co_apply_all(s, KEEP_ALL);
    return r ? r : co_node_flush(n->child.node);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_powerloss *s = of(n);
    uint8_t *data = s->dead ? NULL : malloc(len);
    if (!data)
        return s->dead ? -EIO : -ENOMEM;
    blk_iov_copy(data, iov, niov, 0, len, false);
    int r = co_queue_write(s, off, len, data);
    return r || !(flags & BLK_FUA) ? r : co_flush(n);
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_powerloss *s = of(n);
    int r = s->dead ? -EIO : co_queue_write(s, off, len, NULL);
    return r || !(flags & BLK_FUA) ? r : co_flush(n);
}

static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    return of(n)->dead ? -EIO : co_queue_write(of(n), off, len, NULL);
}

static int co_resize(struct blk_node *n, uint64_t size)
{
    if (!size)      /* an entry of length 0 at 0 means the same */
        return of(n)->dead ? -EIO : co_queue_write(of(n), 0, 0, NULL);
    return of(n)->dead ? -EIO : co_queue_write(of(n), size, 0, NULL);
}

static void co_close(struct blk_node *n)
{
    struct blk_powerloss *s = of(n);
    if (n->child.node && !s->dead)
        co_apply_all(s, KEEP_ALL);      /* switched off properly */
    while (s->pending.next && !list_empty(&s->pending))
        drop(s, list_first(&s->pending, struct pending, link));
    blk_child_close(n);
}

static bool init(struct obj *o, struct err *e)
{
    list_init(&((struct blk_powerloss *)o)->pending);
    return true;
}

#define SHOWN(f, n, ds) { .name = n, .doc = ds, .type = PROP_T_U64, .flags = PF_READONLY, PROP_OFF(struct blk_powerloss, f) }
static const struct prop props[] = {
    PROP_JSON(struct blk_powerloss, file, "file", PF_REQUIRED, "Node below: the disk itself"),
    PROP_U64(struct blk_powerloss, cut_write, "cut-at-write", 0, 0, UINT64_MAX, "The power fails with this write (1: the first); 0: never"),
    PROP_U64(struct blk_powerloss, cut_flush, "cut-at-flush", 0, 0, UINT64_MAX, "The power fails as this flush begins; 0: never"),
    PROP_ENUM(struct blk_powerloss, keep, "keep", keep_names, KEEP_SOME,
              "What of the cache reaches the disk at the cut: none, some writes, some sectors of each (torn), all"),
    PROP_U64(struct blk_powerloss, seed, "seed", 1, 0, UINT64_MAX, "Chooses what is kept: the same seed gives the same image"),
    PROP_SIZE(struct blk_powerloss, cache_size, "cache-size", 256 * MiB, 0, INT64_MAX, "Size of the volatile cache"),
    SHOWN(writes, "writes", "Writes so far"),
    SHOWN(flushes, "flushes", "Flushes so far"),
    { .name = "dead", .doc = "The power has failed", .type = PROP_T_BOOL, .flags = PF_READONLY, PROP_OFF(struct blk_powerloss, dead) },
    PROP_END,
};

static const struct blk_driver powerloss_driver = {
    .obj = { .name = "blockdev-powerloss", .desc = "Disk with a volatile cache whose power fails at a chosen moment; for tests",
             .base = &blk_node_class, .size = sizeof(struct blk_powerloss), .props = props, .init = init },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_close, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_discard = co_discard, .co_flush = co_flush, .co_resize = co_resize, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&powerloss_driver.obj);
