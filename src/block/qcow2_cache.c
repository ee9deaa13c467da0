/* SPDX-License-Identifier: MIT */
/* Slices of L2 tables and refcount blocks in memory: least recently used ones go first, dirty ones are synced before. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "block/qcow2_int.h"

enum { MIN_SLICES = 8, MAX_SKIP = 64 };

bool q2_cache_init(struct q2_cache *c, size_t slice_size, uint64_t bytes, struct err *e)
{
    c->slice_size = slice_size;
    c->max = MAX(bytes / slice_size, (uint64_t)MIN_SLICES);
    c->buckets = 64;
    while (c->buckets < c->max && c->buckets < 1 << 20)
        c->buckets *= 2;
    list_init(&c->lru);
    c->hash = calloc(c->buckets, sizeof *c->hash);
    return c->hash || err_os(e, ENOMEM, "no memory for a cache of %llu bytes", (unsigned long long)bytes);
}

static struct q2_slice **bucket(struct q2_cache *c, uint64_t off)
{
    uint64_t h = off / c->slice_size * UINT64_C(0x9e3779b97f4a7c15);
    return &c->hash[h >> 20 & (c->buckets - 1)];
}

static void unlink_slice(struct q2_cache *c, struct q2_slice *sl)
{
    struct q2_slice **p = bucket(c, sl->off);
    while (*p != sl)
        p = &(*p)->hash_next;
    *p = sl->hash_next;
    list_del(&sl->lru);
    c->dirty -= sl->dirty;
    c->count--;
}

void q2_cache_free(struct q2_cache *c)
{
    while (c->hash && !list_empty(&c->lru)) {
        struct q2_slice *sl = list_first(&c->lru, struct q2_slice, lru);
        assert(!sl->pins);
        unlink_slice(c, sl);
        free(sl);
    }
    free(c->hash);
    c->hash = NULL;
}

static struct q2_slice *find(struct q2_cache *c, uint64_t off)
{
    struct q2_slice *sl = *bucket(c, off);
    while (sl && sl->off != off)
        sl = sl->hash_next;
    return sl;
}

/* Drops clean slices until there is room for one more; false: the old ones are dirty or in use. */
static bool make_room(struct q2_cache *c)
{
    struct q2_slice *sl;
    unsigned skipped = 0;
    if (c->count < c->max)
        return true;
    list_for_each(sl, &c->lru, lru) {
        if (sl->pins || sl->dirty) {
            if (++skipped > MAX_SKIP)
                return false;
            continue;
        }
        unlink_slice(c, sl);
        free(sl);
        if (c->count < c->max)
            return true;
    }
    return false;
}

static struct q2_slice *insert(struct q2_cache *c, uint64_t off)
{
    struct q2_slice *sl = aligned_alloc(64, align_up(sizeof *sl + c->slice_size, 64));
    if (!sl)
        return NULL;
    *sl = (struct q2_slice){ .off = off, .loading = true, .pins = 1, .age = c->age };
    struct q2_slice **p = bucket(c, off);
    sl->hash_next = *p;
    *p = sl;
    list_push(&c->lru, &sl->lru);
    c->count++;
    return sl;
}

/* The load that another request began. The pin is ours. */
static int co_await_load(struct q2_cache *c, struct q2_slice *sl)
{
    while (sl->loading)
        co_queue_wait(&sl->waiting);
    if (!sl->failed)
        return 0;
    if (!--sl->pins) {
        unlink_slice(c, sl);
        free(sl);
    }
    return -EIO;
}

static int co_load(struct qcow2 *s, struct q2_cache *c, struct q2_slice *sl)
{
    blk_tell(q2_file(s), c == &s->l2c ? BLK_EV_L2_LOAD : BLK_EV_REFBLOCK_LOAD);
    int r = co_q2_pread(s, sl->off, sl->data, c->slice_size);
    sl->loading = false;
    sl->failed = r != 0;
    co_queue_wake_all(&sl->waiting);
    if (r && !--sl->pins) {
        unlink_slice(c, sl);
        free(sl);
    }
    return r;
}

int co_q2_cache_get(struct qcow2 *s, struct q2_cache *c, uint64_t off, struct q2_slice **out)
{
    off = align_down(off, c->slice_size);
    for (bool synced = false;; synced = true) {
        struct q2_slice *sl = find(c, off);
        if (sl && !sl->failed) {
            c->hits++;
            sl->pins++;
            sl->age = c->age;
            list_del(&sl->lru);
            list_push(&c->lru, &sl->lru);
            *out = sl;
            return sl->loading ? co_await_load(c, sl) : 0;
        }
        if (sl)
            return -EIO;
        if (make_room(c) || synced || !c->dirty) {      /* all pinned: a few more than the limit */
            c->misses++;
            sl = insert(c, off);
            *out = sl;
            return sl ? co_load(s, c, sl) : -ENOMEM;
        }
        int r = co_q2_sync_evict(s, c);
        if (r)
            return r;
    }
}

void q2_cache_put(struct q2_slice *sl)
{
    assert(sl->pins);
    sl->pins--;
}

void q2_cache_dirty(struct q2_cache *c, struct q2_slice *sl)
{
    c->dirty += !sl->dirty;
    sl->dirty = true;
}

void q2_cache_clean(struct q2_cache *c)
{
    struct q2_slice *sl;
    list_for_each(sl, &c->lru, lru) {
        if (sl->age == c->age)
            break;                  /* so are those behind it */
        if (sl->pins || sl->dirty)
            continue;
        unlink_slice(c, sl);
        free(sl);
    }
    c->age++;
}

void q2_cache_drop(struct q2_cache *c, uint64_t off, uint64_t len)
{
    for (uint64_t o = align_down(off, c->slice_size); o < off + len; o += c->slice_size) {
        struct q2_slice *sl = find(c, o);
        if (!sl)
            continue;
        c->dirty -= sl->dirty;
        sl->dirty = false;
        if (sl->pins)
            continue;
        unlink_slice(c, sl);
        free(sl);
    }
}
