/* SPDX-License-Identifier: MIT */
/* Zeroing and discarding: by changing entries where whole clusters (or subclusters) are meant, else by writing. */
#include <errno.h>
#include <stdlib.h>
#include "block/qcow2_int.h"

/* What an entry becomes: zeroes; what shows what is below. Its space is kept, or free, or kept and given back to the file. */
enum becomes { TO_ZERO, TO_NOTHING };
enum space { KEEP, FREE, KEEP_AND_PUNCH };

/* What a request does that gives up space. */
static enum space given_up(const struct qcow2 *s) { return s->discard_no_unref && s->version >= 3 ? KEEP_AND_PUNCH : FREE; }

/* Whole clusters [off, off + len) of one request. */
static int co_set_clusters(struct qcow2 *s, uint64_t off, uint64_t len, enum becomes to, enum space space)
{
    for (uint64_t at = off; at < off + len;) {
        struct q2_ent old, e = { 0 };
        uint64_t table = q2_l2_covers(s);
        int r = co_q2_ent_get(s, at, &old);
        if (r)
            return r;
        if (to == TO_NOTHING && !s->l1[at / table]) {        /* no table at all: all of it is nothing already */
            at = align_down(at, table) + table;
            continue;
        }
        bool keep = space != FREE && old.has_host && old.copied && !old.compressed;
        if (to != TO_NOTHING || keep)
            e.zero = q2_all_subs(s);
        if (keep || (s->has_data_file && space == KEEP && old.has_host))
            e.has_host = e.copied = true, e.host = old.host;
        if (old.compressed != e.compressed || old.zero != e.zero || old.alloc || old.has_host != e.has_host) {
            r = co_q2_ent_set(s, at, &e);
            if (r)
                return r;
            if (!e.has_host)
                q2_ent_release(s, &old, Q2_BY_REQUEST);
        }
        if (keep && space == KEEP_AND_PUNCH && q2_passes_discard(s, Q2_BY_REQUEST))
            co_node_discard(q2_data(s), old.host, s->cluster_size);     /* a hint: its failure costs space only */
        at += s->cluster_size;
    }
    return 0;
}

/* Subclusters [off, off + len) within one cluster read as zeroes. */
static int co_zero_subs(struct qcow2 *s, uint64_t off, uint64_t len)
{
    struct q2_ent e;
    uint64_t in = q2_in_cluster(s, off);
    int r = co_q2_ent_get(s, off, &e);
    if (r)
        return r;
    if (e.compressed || (e.has_host && !e.copied))
        return -ENOTSUP;
    unsigned a = (unsigned)(in >> s->sub_bits), b = (unsigned)((in + len) >> s->sub_bits);
    uint32_t mask = (uint32_t)((BIT64(b) - 1) & ~(BIT64(a) - 1));
    e.zero |= mask;
    e.alloc &= ~mask;
    return co_q2_ent_set(s, off, &e);
}

static int co_by_writing(struct qcow2 *s, uint64_t off, uint64_t len)
{
    enum { PIECE = 64 << 10 };
    void *buf = len ? calloc(1, MIN(len, (uint64_t)PIECE)) : NULL;
    int r = !len || buf ? 0 : -ENOMEM;
    while (len && !r) {
        struct iovec v = { buf, MIN(len, (uint64_t)PIECE) };
        r = co_q2_write_inner(s, off, v.iov_len, &v, 1);
        off += v.iov_len;
        len -= v.iov_len;
    }
    free(buf);
    return r;
}

/* Part of a cluster: nothing where it reads as zeroes, its subclusters where that is possible, the rest by writing. */
static int co_zero_part(struct qcow2 *s, uint64_t off, uint64_t len)
{
    struct q2_run run;
    struct q2_alloc a;
    uint64_t sub = BIT64(s->sub_bits), from, to;
    int r = len ? co_q2_map(s, off, len, &run) : 0;
    if (r || !len)
        return r;
    if (run.len == len && (run.kind == Q2_ZEROES || (run.kind == Q2_BELOW && !s->node.backing.node)))
        return 0;
    from = align_up(off, sub);
    to = MAX(from, align_down(off + len, sub));
    if (!s->extl2 || from == to || from >= off + len)
        return co_by_writing(s, off, len);
    while (!co_q2_alloc_begin(s, &a, align_down(off, s->cluster_size), align_up(off + len, s->cluster_size)))
        ;
    r = co_zero_subs(s, from, to - from);
    q2_alloc_end(&a);
    if (r)
        return r == -ENOTSUP ? co_by_writing(s, off, len) : r;
    r = co_by_writing(s, off, from - off);
    return r ? r : co_by_writing(s, to, off + len - to);
}

int co_q2_zero_inner(struct qcow2 *s, uint64_t off, uint64_t len, unsigned flags)
{
    uint64_t end = off + len, first, last;
    struct q2_alloc a;
    if (end == q2_size(s))
        end = align_up(end, s->cluster_size);       /* the last cluster of the image counts as whole */
    first = MIN(align_up(off, s->cluster_size), end);
    last = MAX(first, align_down(end, s->cluster_size));
    int r = co_zero_part(s, off, (s->has_data_file ? MIN(first, q2_size(s)) : first) - off);      /* a data file ends where the disk does */
    if (!r && last > first) {
        bool plain = s->version < 3;            /* no zero clusters: unallocated ones without a backing file */
        while (!co_q2_alloc_begin(s, &a, first, last))
            ;
        r = co_set_clusters(s, first, last - first, plain ? TO_NOTHING : TO_ZERO, plain ? FREE : flags & BLK_ZERO_UNMAP ? given_up(s) : KEEP);
        q2_alloc_end(&a);
    }
    return r ? r : co_zero_part(s, last, end - last);
}

int co_q2_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct qcow2 *s = q2_of(n);
    struct q2_req q;
    int r = co_q2_before_change(s);
    if (r)
        return r;
    if (s->raw_data || (s->version < 3 && (s->node.backing.node || s->backing_name)))
        return -ENOTSUP;
    co_q2_enter(s, &q);
    r = co_q2_zero_inner(s, off, len, flags);
    q2_leave(s, &q);
    return !r && flags & BLK_FUA ? co_q2_sync(s) : r;
}

int co_q2_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct qcow2 *s = q2_of(n);
    struct q2_req q;
    struct q2_alloc a;
    uint64_t end = off + len, first = align_up(off, s->cluster_size), last;
    last = end == q2_size(s) ? align_up(end, s->cluster_size) : align_down(end, s->cluster_size);
    int r = co_q2_before_change(s);
    bool below = s->node.backing.node || s->backing_name;      /* open without it, too: others will see it */
    if (r || first >= last || s->raw_data || (below && s->version < 3))
        return r;                   /* a hint */
    co_q2_enter(s, &q);
    while (!co_q2_alloc_begin(s, &a, first, last))
        ;
    r = co_set_clusters(s, first, last - first, below ? TO_ZERO : TO_NOTHING, given_up(s));
    q2_alloc_end(&a);
    q2_leave(s, &q);
    return r;
}

int co_q2_forget(struct qcow2 *s, uint64_t off, uint64_t len) { return co_set_clusters(s, off, len, TO_NOTHING, FREE); }
