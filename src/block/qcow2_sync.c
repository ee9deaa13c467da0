/* SPDX-License-Identifier: MIT */
/* What is dirty in memory goes to the file, in the order that qcow2_int.h states. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_int.h"

enum { TABLE_UNIT = 512, PER_UNIT = TABLE_UNIT / 8 };

/* Copies of what is to be written, taken before the first write. */
struct copy { uint64_t off, len; uint8_t *data; struct q2_slice *slice; uint32_t unit; };
struct copies { struct copy *v; size_t n, cap; };

static bool copy_add(struct copies *cs, uint64_t off, const void *data, uint64_t len, struct q2_slice *sl, uint32_t unit)
{
    if (cs->n == cs->cap) {
        size_t cap = cs->cap ? cs->cap * 2 : 16;
        struct copy *v = realloc(cs->v, cap * sizeof *v);
        if (!v)
            return false;
        cs->v = v;
        cs->cap = cap;
    }
    uint8_t *d = aligned_alloc(512, align_up(len, 512));
    if (!d)
        return false;
    memcpy(d, data, len);
    cs->v[cs->n++] = (struct copy){ off, len, d, sl, unit };
    return true;
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct copy *)a)->off, y = ((const struct copy *)b)->off;
    return x < y ? -1 : x > y;
}

/* Writes all of them; neighbours in one request. */
static int co_copies_write(struct qcow2 *s, struct copies *cs, enum blk_event event)
{
    enum { BATCH = 64 };
    struct iovec v[BATCH];
    int r = 0;
    if (!cs->n)
        return 0;
    qsort(cs->v, cs->n, sizeof *cs->v, by_offset);
    for (size_t i = 0, k; i < cs->n && !r; i += k) {
        uint64_t off = cs->v[i].off, end = off;
        for (k = 0; i + k < cs->n && k < BATCH && cs->v[i + k].off == end; k++) {
            v[k] = (struct iovec){ cs->v[i + k].data, cs->v[i + k].len };
            end += cs->v[i + k].len;
        }
        if (s->broken)
            return -EIO;
        blk_tell(q2_file(s), event);
        r = co_node_pwritev(q2_file(s), off, end - off, v, (unsigned)k, BLK_GROW);
        s->writes++;
    }
    return r;
}

static void copies_free(struct copies *cs)
{
    for (size_t i = 0; i < cs->n; i++)
        free(cs->v[i].data);
    free(cs->v);
    *cs = (struct copies){ 0 };
}

/* ---- caches ---- */

/* Copies what is dirty in @c, which is clean and pinned then. */
static bool cache_take(struct q2_cache *c, struct copies *cs)
{
    struct q2_slice *sl;
    if (!c->dirty)
        return true;
    list_for_each(sl, &c->lru, lru) {
        if (!sl->dirty)
            continue;
        if (!copy_add(cs, sl->off, sl->data, c->slice_size, sl, 0))
            return false;
        sl->dirty = false;
        c->dirty--;
        sl->pins++;
    }
    return true;
}

static void cache_done(struct q2_cache *c, struct copies *cs, bool ok)
{
    for (size_t i = 0; i < cs->n; i++) {
        if (!ok)
            q2_cache_dirty(c, cs->v[i].slice);
        q2_cache_put(cs->v[i].slice);
    }
    copies_free(cs);
}

/*
 * Refcount blocks may be written at any time: what they have too much is a leak, and what they lose, nothing refers to. One after the
 * other: what is clean here is in the file, not on its way, and no older copy arrives after a newer one.
 */
static int co_write_blocks(struct qcow2 *s)
{
    struct copies cs = { 0 };
    co_mutex_lock(&s->blocks_lock);
    int r = cache_take(&s->rbc, &cs) ? co_copies_write(s, &cs, BLK_EV_REFBLOCK_UPDATE_PART) : -ENOMEM;
    cache_done(&s->rbc, &cs, !r);
    co_mutex_unlock(&s->blocks_lock);
    return r;
}

int co_q2_sync_evict(struct qcow2 *s, struct q2_cache *c) { return c == &s->rbc ? co_write_blocks(s) : co_q2_sync(s); }

/* ---- L1 and refcount table ---- */

static bool table_take(const uint64_t *table, uint32_t n, uint64_t off, uint8_t *dirty, bool *any, struct copies *cs)
{
    uint8_t be[TABLE_UNIT];
    if (!*any)
        return true;
    for (uint32_t u = 0; u * PER_UNIT < n; u++) {
        if (!dirty[u])
            continue;
        uint32_t first = u * PER_UNIT, k = MIN(n - first, (uint32_t)PER_UNIT);
        for (uint32_t i = 0; i < k; i++)
            st_be64(be + i * 8, table[first + i]);
        if (!copy_add(cs, off + (uint64_t)u * TABLE_UNIT, be, (uint64_t)k * 8, NULL, u))
            return false;
        dirty[u] = 0;
    }
    *any = false;
    return true;
}

static void table_done(uint8_t *dirty, bool *any, struct copies *cs, bool ok)
{
    for (size_t i = 0; i < cs->n && !ok; i++) {
        dirty[cs->v[i].unit] = 1;
        *any = true;
    }
    copies_free(cs);
}

static int co_write_rt(struct qcow2 *s)
{
    struct copies cs = { 0 };
    int r = 0;
    if (!s->rt_any_dirty)
        return 0;
    co_mutex_lock(&s->alloc_lock);      /* the table stays where it is */
    if (s->rt_any_dirty) {
        r = co_write_blocks(s);
        r = r ? r : co_q2_barrier(s);
        bool taken = !r && table_take(s->rt, s->rt_size, s->rt_off, s->rt_dirty, &s->rt_any_dirty, &cs);
        r = r ? r : taken ? co_copies_write(s, &cs, BLK_EV_REFBLOCK_ALLOC_HOOKUP) : -ENOMEM;
        table_done(s->rt_dirty, &s->rt_any_dirty, &cs, !r);
    }
    co_mutex_unlock(&s->alloc_lock);
    return r;
}

/* ---- all of it ---- */

bool q2_is_dirty(const struct qcow2 *s)
{
    return s->l2c.dirty || s->rbc.dirty || s->l1_any_dirty || s->rt_any_dirty || s->nfrees || s->writes != s->durable;
}

static int co_sync_locked(struct qcow2 *s)
{
    struct copies l2 = { 0 }, l1 = { 0 };
    size_t frees = s->nfrees;
    int r = s->broken ? -EIO : 0;
    bool taken = cache_take(&s->l2c, &l2) && table_take(s->l1, s->l1_size, s->l1_off, s->l1_dirty, &s->l1_any_dirty, &l1);
    r = r ? r : taken ? 0 : -ENOMEM;
    r = r ? r : co_write_blocks(s);
    r = r ? r : co_write_rt(s);
    if (!r && l2.n)
        r = co_q2_barrier(s);           /* data and refcounts before what refers to them */
    r = r ? r : co_copies_write(s, &l2, BLK_EV_L2_UPDATE);
    if (!r && l1.n)
        r = co_q2_barrier(s);           /* L2 tables before what refers to them */
    r = r ? r : co_copies_write(s, &l1, BLK_EV_L1_UPDATE);
    cache_done(&s->l2c, &l2, !r);
    table_done(s->l1_dirty, &s->l1_any_dirty, &l1, !r);
    r = r ? r : co_q2_barrier(s);
    return r || !frees ? r : co_q2_apply_frees(s, frees);
}

int co_q2_sync(struct qcow2 *s)
{
    uint64_t mine = ++s->sync_wanted;
    co_mutex_lock(&s->sync_lock);
    int r = 0;
    if (s->sync_done < mine) {          /* else one that began after this call did it */
        uint64_t covers = s->sync_wanted;
        r = co_sync_locked(s);
        if (!r)
            s->sync_done = covers;
    }
    co_mutex_unlock(&s->sync_lock);
    return r;
}
