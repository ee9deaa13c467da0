/* SPDX-License-Identifier: MIT */
/*
 * Writing: in place where the clusters are ours and hold data, else to new clusters whose rest is filled up from what was
 * there before. The tables change in memory when the data is written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_int.h"

enum { MAX_RUN = 4 << 20, SYNC_FREES = 4096, SYNC_FREE_BYTES = 64 << 20 };

static uint32_t sub_mask(const struct qcow2 *s, uint64_t first_byte, uint64_t end_byte)
{
    unsigned a = (unsigned)(first_byte >> s->sub_bits), b = (unsigned)((end_byte - 1) >> s->sub_bits);
    return (uint32_t)((BIT64(b + 1) - 1) & ~(BIT64(a) - 1));
}

/* The data of clusters: nothing that holds metadata is hit. */
int co_q2_write_data(struct qcow2 *s, uint64_t host, uint64_t len, const struct iovec *iov, unsigned n, enum blk_event event)
{
    if (s->broken)
        return -EIO;
    if (!s->has_data_file && q2_meta_has(s, host, len))
        return co_q2_corrupt(s, host, "guest data would overwrite metadata at 0x%llx", (unsigned long long)host);
    blk_tell(q2_data(s), event);
    int r = co_q2_data_write(s, host, len, iov, n);
    s->writes++;
    return r;
}

/* ---- in place ---- */

/* Bytes from @guest on that can be written where they are, at *@host; 0: none. */
static int co_in_place(struct qcow2 *s, uint64_t guest, uint64_t len, uint64_t *host, uint64_t *run)
{
    *run = 0;
    while (*run < len) {
        struct q2_ent e;
        uint64_t at = guest + *run, in = q2_in_cluster(s, at), n = MIN(len - *run, s->cluster_size - in);
        int r = co_q2_ent_get(s, at, &e);
        if (r)
            return r;
        uint32_t mask = sub_mask(s, in, in + n);
        if (!e.has_host || !e.copied || (e.alloc & mask) != mask || (*run && e.host != *host + *run))
            break;
        if (!*run)
            *host = e.host + in;
        *run += n;
    }
    return 0;
}

/* ---- new clusters ---- */

/* One allocating write: guest bytes [start, end) of data; the file gets [fill_start, fill_end). */
struct work {
    struct qcow2 *s;
    uint64_t start, end, fill_start, fill_end;
    uint64_t first;                 /* guest offset of the first cluster */
    uint64_t clusters, host;
    bool reuse, fresh;              /* the cluster that is there is used; it is known to hold zeroes */
    uint8_t *head, *tail;
    bool head_zero, tail_zero;
};

/* Reads what surrounds the data in its (sub)cluster. */
static int co_fill(struct work *w, uint64_t from, uint64_t to, uint8_t **buf, bool *zero)
{
    struct q2_run run;
    *zero = false;
    if (from >= to)
        return 0;
    int r = co_q2_map(w->s, from, to - from, &run);
    if (r)
        return r;
    *zero = run.len == to - from && (run.kind == Q2_ZEROES || (run.kind == Q2_BELOW && !w->s->node.backing.node));
    if (*zero && w->fresh)
        return 0;
    *buf = aligned_alloc(4096, align_up(to - from, 4096));
    if (!*buf)
        return -ENOMEM;
    struct iovec v = { *buf, to - from };
    if (*zero) {
        memset(*buf, 0, to - from);
        return 0;
    }
    blk_tell(q2_file(w->s), BLK_EV_COW_READ);
    return co_q2_read_inner(w->s, from, to - from, &v, 1);
}

/* Head, data and tail in one request. @data is the part of the guest's that belongs here. */
static int co_work_write(struct work *w, const struct iovec *data, unsigned n)
{
    uint64_t from = w->head ? w->fill_start : w->start, to = w->tail ? w->fill_end : w->end;
    struct iovec *v = calloc(n + 2, sizeof *v);
    unsigned k = 0;
    if (!v)
        return -ENOMEM;
    if (w->head)
        v[k++] = (struct iovec){ w->head, w->start - w->fill_start };
    memcpy(v + k, data, n * sizeof *v);
    k += n;
    if (w->tail)
        v[k++] = (struct iovec){ w->tail, w->fill_end - w->end };
    int r = co_q2_write_data(w->s, w->host + (from - w->first), to - from, v, k, BLK_EV_WRITE_AIO);
    free(v);
    return r;
}

/* Tables: the entries of every cluster of @w; what they held before is freed. *@linked: how many were done. */
static int co_work_link(struct work *w, uint64_t *linked)
{
    struct qcow2 *s = w->s;
    for (*linked = 0; *linked < w->clusters; ++*linked) {
        uint64_t i = *linked, guest = w->first + (i << s->cluster_bits);
        uint64_t a = MAX(w->fill_start, guest) - guest, b = MIN(w->fill_end, guest + s->cluster_size) - guest;
        struct q2_ent old, e;
        int r = co_q2_ent_get(s, guest, &old);
        if (r)
            return r;
        uint32_t mask = sub_mask(s, a, b);
        e = (struct q2_ent){ .has_host = true, .copied = true, .host = w->host + (i << s->cluster_bits) };
        bool keep = !old.compressed && (w->reuse || !old.has_host);    /* subclusters beside the written ones stay what they are */
        e.alloc = mask | (keep ? old.alloc : 0);
        e.zero = keep ? old.zero & ~mask : 0;
        r = co_q2_ent_set(s, guest, &e);
        if (r)
            return r;
        if (!w->reuse)
            q2_ent_release(s, &old, Q2_BY_OTHER);
    }
    return 0;
}

/*
 * How far from @guest on clusters can be allocated in one go: like the first one, whose entry is @e. A cluster that is there already
 * (a zero cluster, or subclusters without data) is used alone.
 */
static int co_plan(struct qcow2 *s, uint64_t guest, uint64_t len, struct work *w)
{
    struct q2_ent e;
    uint64_t end = guest + MIN(len, (uint64_t)MAX_RUN);
    int r = co_q2_ent_get(s, guest, &e);
    if (r)
        return r;
    *w = (struct work){ .s = s, .start = guest, .first = align_down(guest, s->cluster_size), .clusters = 1 };
    w->end = MIN(end, w->first + s->cluster_size);
    w->reuse = e.has_host && e.copied && !e.compressed;
    w->host = e.host;
    /* A cluster that cannot be kept is copied whole, where it holds something. */
    bool whole = !w->reuse && (e.has_host || e.compressed);
    while (!w->reuse && !whole && w->end < end) {
        r = co_q2_ent_get(s, w->end, &e);
        if (r)
            return r;
        if (e.has_host || e.compressed)
            break;
        w->clusters++;
        w->end = MIN(end, w->end + s->cluster_size);
    }
    uint64_t unit = whole ? s->cluster_size : BIT64(s->sub_bits);
    w->fill_start = align_down(w->start, unit);
    w->fill_end = align_up(w->end, unit);
    if (s->has_data_file)           /* which ends where the disk does */
        w->fill_end = MIN(w->fill_end, MAX(w->end, q2_size(s)));
    return 0;
}

/* Space for @w, which may become shorter. */
static int co_take_space(struct work *w)
{
    struct qcow2 *s = w->s;
    uint64_t got;
    if (w->reuse)
        return 0;
    if (s->has_data_file) {
        w->host = w->first;
        return 0;
    }
    int r = co_q2_alloc(s, w->clusters, &got, &w->host);
    if (r)
        return r;
    w->fresh = s->fresh && q2_data(s)->caps.grows && !s->luks;
    if (got < w->clusters) {
        w->clusters = got;
        w->end = w->fill_end = w->first + (got << s->cluster_bits);
    }
    return 0;
}

/* Writes the beginning of [guest, guest + len); *@done tells how much, 0: another request was waited for. */
static int co_write_new(struct qcow2 *s, uint64_t guest, uint64_t len, const struct iovec *iov, unsigned niov, uint64_t at,
                        uint64_t *done)
{
    struct work w;
    struct q2_alloc a;
    *done = 0;
    int r = co_plan(s, guest, len, &w);
    if (r)
        return r;
    if (!co_q2_alloc_begin(s, &a, w.first, w.first + (w.clusters << s->cluster_bits)))
        return 0;
    r = co_plan(s, guest, w.end - guest, &w);       /* as it is now that nobody else is there */
    if (!r && w.reuse) {                            /* it may have become one that is written in place */
        uint64_t host, run;
        r = co_in_place(s, guest, w.end - guest, &host, &run);
        if (r || run) {
            q2_alloc_end(&a);
            return r;
        }
    }
    r = r ? r : co_take_space(&w);
    bool taken = !r && !w.reuse && !s->has_data_file;
    r = r ? r : co_fill(&w, w.fill_start, w.start, &w.head, &w.head_zero);
    r = r ? r : co_fill(&w, w.end, w.fill_end, &w.tail, &w.tail_zero);
    if (!r) {
        struct iovec *part = calloc(niov, sizeof *part);
        unsigned k = part ? blk_iov_slice(iov, niov, at, w.end - w.start, part) : 0;
        r = part ? co_work_write(&w, part, k) : -ENOMEM;
        free(part);
    }
    uint64_t linked = 0;
    r = r ? r : co_work_link(&w, &linked);
    if (r && taken && linked < w.clusters)
        co_q2_unalloc(s, w.host + (linked << s->cluster_bits), (w.clusters - linked) << s->cluster_bits);
    free(w.head);
    free(w.tail);
    q2_alloc_end(&a);
    *done = w.end - w.start;
    return r;
}

int co_q2_write_inner(struct qcow2 *s, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct iovec few[8], *part = niov <= ARRAY_SIZE(few) ? few : calloc(niov, sizeof *part);
    int r = part ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t host, run;
        r = co_in_place(s, off + at, len - at, &host, &run);
        if (!r && run)
            r = co_q2_write_data(s, host, run, part, blk_iov_slice(iov, niov, at, run, part), BLK_EV_WRITE_AIO);
        else if (!r)
            r = co_write_new(s, off + at, len - at, iov, niov, at, &run);
        at += run;
    }
    if (part != few)
        free(part);
    return r;
}

/* Too much waits to be freed: a sync lets it go. Outside of requests. */
int co_q2_before_change(struct qcow2 *s)
{
    if (s->broken)
        return -EIO;
    return s->nfrees > SYNC_FREES || s->free_bytes > SYNC_FREE_BYTES ? co_q2_sync(s) : 0;
}

int co_q2_pwritev(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct qcow2 *s = q2_of(n);
    struct q2_req q;
    int r = co_q2_before_change(s);
    if (r)
        return r;
    co_q2_enter(s, &q);
    r = co_q2_write_inner(s, off, len, iov, niov);
    q2_leave(s, &q);
    return !r && flags & BLK_FUA ? co_q2_sync(s) : r;
}
