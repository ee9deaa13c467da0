/* SPDX-License-Identifier: MIT */
/* Changing the size, the backing file's name, and what the header says besides. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_int.h"

/* A longer L1 table in new clusters. Alone. */
static int co_l1_grow(struct qcow2 *s, uint64_t entries)
{
    uint64_t old_off = s->l1_off, old_len = (uint64_t)s->l1_size * 8, off;
    if (entries <= s->l1_size)
        return 0;
    if (entries * 8 > Q2_MAX_L1_BYTES)
        return -EFBIG;
    int r = co_q2_sync(s);
    blk_tell(q2_file(s), BLK_EV_L1_GROW_ALLOC_TABLE);
    r = r ? r : co_q2_alloc_meta(s, entries * 8, &off);
    if (r)
        return r;
    uint64_t *l1 = calloc(entries, 8);
    uint8_t *dirty = calloc(entries / 64 + 1, 1), *be = calloc(entries, 8);
    r = l1 && dirty && be ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < s->l1_size && !r; i++) {
        l1[i] = s->l1[i];
        st_be64(be + (uint64_t)i * 8, l1[i]);
    }
    blk_tell(q2_file(s), BLK_EV_L1_GROW_WRITE_TABLE);
    r = r ? r : co_q2_pwrite(s, off, be, entries * 8);
    r = r ? r : co_q2_sync(s);
    free(be);
    if (r) {
        free(l1);
        free(dirty);
        return r;
    }
    free(s->l1);
    free(s->l1_dirty);
    s->l1 = l1;
    s->l1_dirty = dirty;
    s->l1_any_dirty = false;
    s->l1_size = (uint32_t)entries;
    s->l1_off = off;
    blk_tell(q2_file(s), BLK_EV_L1_GROW_ACTIVATE_TABLE);
    r = co_q2_header_write(s);
    r = r ? r : co_q2_barrier(s);
    if (r) {
        s->broken = true;
        return r;
    }
    q2_meta_del(s, old_off, old_len);
    if (old_len)
        q2_free_later(s, old_off, align_up(old_len, s->cluster_size), Q2_BY_OTHER);
    return 0;
}

static int co_shrink(struct qcow2 *s, uint64_t size)
{
    uint64_t old = q2_size(s), edge = MIN(align_up(size, s->cluster_size), old);
    /* What lies behind the new end must not come back when the image grows again. */
    int r = edge > size ? co_q2_zero_inner(s, size, edge - size, 0) : 0;
    return r || edge == old ? r : co_q2_forget(s, edge, align_up(old, s->cluster_size) - edge);
}

/* The new part reads as zeroes, whatever a longer backing file has there. */
static int co_hide_below(struct qcow2 *s, uint64_t from, uint64_t to)
{
    struct blk_node *b = s->node.backing.node;
    uint64_t below = b ? atomic_load(&b->size) : 0;
    return below > from ? co_q2_zero_inner(s, from, MIN(to, below) - from, BLK_ZERO_UNMAP) : 0;
}

/* The cluster at the old end may hold more than was seen of it: what it took over from a backing file, or what others left there. */
static int co_clear_edge(struct qcow2 *s, uint64_t from, uint64_t to)
{
    struct q2_run run;
    int r = 0;
    to = MIN(to, align_up(from, s->cluster_size));
    for (uint64_t at = from; at < to && !r; at += run.len) {
        r = co_q2_map(s, at, to - at, &run);
        if (!r && (run.kind == Q2_NORMAL || run.kind == Q2_PACKED))
            r = co_q2_zero_inner(s, at, run.len, 0);
    }
    return r;
}

/* What the new part shows. In a raw data file that is what is there: one that was longer goes on being the disk, byte by byte. */
static int co_show_new_part(struct qcow2 *s, uint64_t from, uint64_t to)
{
    if (s->raw_data)
        return co_q2_preallocate_inner(s, from, BLK_PREALLOC_METADATA);
    int r = co_clear_edge(s, from, to);
    return r ? r : co_hide_below(s, from, to);
}

static int co_set_size(struct qcow2 *s, uint64_t size)
{
    uint64_t old = q2_size(s);
    struct blk_node *b = s->node.backing.node;
    int r = 0;
    if (s->version < 3 && s->nsnaps)
        return -ENOTSUP;                /* whose size need not be with them: it is the image's */
    if (size > old && s->version < 3 && b && atomic_load(&b->size) > old)
        return -ENOTSUP;                /* there are no zero clusters to hide it with */
    if (size < old)
        r = co_shrink(s, size);
    else
        r = co_l1_grow(s, size ? (size - 1) / q2_l2_covers(s) + 1 : 0);
    r = r ? r : co_q2_sync(s);
    if (!r && size > old && s->has_data_file && size > atomic_load(&q2_data(s)->size))
        r = co_node_resize(q2_data(s), size);
    if (r)
        return r;
    atomic_store(&s->node.size, size);
    r = size > old ? co_show_new_part(s, old, size) : 0;
    r = r ? r : co_q2_sync(s);
    if (!r && size < old && s->has_data_file)
        r = co_node_resize(q2_data(s), size);
    r = r ? r : co_q2_header_write(s);
    r = r ? r : co_q2_barrier(s);
    if (r)
        atomic_store(&s->node.size, old);
    return r;
}

int co_q2_resize(struct blk_node *n, uint64_t size)
{
    struct qcow2 *s = q2_of(n);
    if (s->broken)
        return -EIO;
    co_q2_lock_all(s);
    int r = co_set_size(s, size);
    q2_unlock_all(s);
    return r;
}

int co_q2_set_backing(struct blk_node *n, const char *name, const char *fmt)
{
    struct qcow2 *s = q2_of(n);
    char *old_name = s->backing_name, *old_fmt = s->backing_fmt;
    if (s->raw_data && name)
        return -ENOTSUP;
    if (name && strlen(name) > Q2_MAX_BACKING_NAME)
        return -ENAMETOOLONG;
    co_q2_lock_all(s);
    s->backing_name = name ? xstrdup(name) : NULL;
    s->backing_fmt = name && fmt ? xstrdup(fmt) : NULL;
    int r = co_q2_header_write(s);
    r = r ? r : co_q2_barrier(s);
    free(r ? s->backing_name : old_name);
    free(r ? s->backing_fmt : old_fmt);
    if (r) {
        s->backing_name = old_name;
        s->backing_fmt = old_fmt;
    }
    n->backing_name = s->backing_name;
    n->backing_fmt = s->backing_fmt;
    q2_unlock_all(s);
    return r;
}

int co_q2_make_empty(struct blk_node *n)
{
    struct qcow2 *s = q2_of(n);
    co_q2_lock_all(s);
    blk_tell(q2_file(s), BLK_EV_EMPTY_IMAGE_PREPARE);
    int r = co_q2_forget(s, 0, align_up(q2_size(s), s->cluster_size));
    r = r ? r : co_q2_sync(s);
    q2_unlock_all(s);
    return r;
}
