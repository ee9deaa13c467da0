/* SPDX-License-Identifier: MIT */
/* Reading, and telling what is where. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "block/qcow2_int.h"

/* From the backing file; beyond its end, and without one, there are zeroes. */
static int co_read_below(struct qcow2 *s, uint64_t off, uint64_t len, struct iovec *iov, unsigned n)
{
    struct blk_node *b = s->node.backing.node;
    uint64_t size = b ? atomic_load(&b->size) : 0, there = off >= size ? 0 : MIN(len, size - off);
    if (there)
        blk_tell(q2_file(s), BLK_EV_READ_BACKING_AIO);
    if (there == len)
        return co_node_preadv(b, off, len, iov, n, 0);
    struct iovec *part = calloc(n, sizeof *part);
    if (!part)
        return -ENOMEM;
    unsigned k = blk_iov_slice(iov, n, there, len - there, part);
    blk_iov_zero(part, k);
    k = blk_iov_slice(iov, n, 0, there, part);
    int r = there ? co_node_preadv(b, off, there, part, k, 0) : 0;
    free(part);
    return r;
}

static int co_read_run(struct qcow2 *s, const struct q2_run *run, uint64_t off, struct iovec *iov, unsigned n)
{
    uint64_t there;
    switch (run->kind) {
    case Q2_BELOW: return co_read_below(s, off, run->len, iov, n);
    case Q2_PACKED: return co_q2_packed_read(s, run->desc, q2_in_cluster(s, off), run->len, iov, n);
    case Q2_ZEROES: blk_iov_zero(iov, n); return 0;
    case Q2_NORMAL: break;
    }
    blk_tell(q2_data(s), BLK_EV_READ_AIO);
    there = atomic_load(&q2_data(s)->size);
    if (run->host + run->len > there) {         /* the last cluster may lie beyond the end in part: zeroes there */
        if (run->host >= there + s->cluster_size)
            return co_q2_corrupt(s, run->host, "guest offset 0x%llx is at 0x%llx, beyond the end of the file",
                                 (unsigned long long)off, (unsigned long long)run->host);
        blk_iov_zero(iov, n);
        uint64_t k = run->host >= there ? 0 : there - run->host;
        struct iovec *part = calloc(n, sizeof *part);
        if (!part)
            return -ENOMEM;
        unsigned m = blk_iov_slice(iov, n, 0, k, part);
        int r = k ? co_q2_data_read(s, run->host, k, part, m) : 0;
        free(part);
        return r;
    }
    return co_q2_data_read(s, run->host, run->len, iov, n);
}

int co_q2_read_inner(struct qcow2 *s, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct iovec few[8], *part = niov <= ARRAY_SIZE(few) ? few : calloc(niov, sizeof *part);
    int r = part ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        struct q2_run run;
        r = co_q2_map(s, off + at, len - at, &run);
        if (r)
            break;
        unsigned k = blk_iov_slice(iov, niov, at, run.len, part);
        r = co_read_run(s, &run, off + at, part, k);
        at += run.len;
    }
    if (part != few)
        free(part);
    return r;
}

int co_q2_preadv(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct qcow2 *s = q2_of(n);
    struct q2_req q;
    co_q2_enter(s, &q);
    int r = co_q2_read_inner(s, off, len, iov, niov);
    q2_leave(s, &q);
    return r;
}

/*
 * The file has far less space than clusters in use: preallocated ones are holes in it, and worth a look. Told once: what is allocated
 * later is so because it is written.
 */
static bool co_is_sparse(struct qcow2 *s)
{
    struct stat st;
    uint64_t real, limit, used = 0, all = q2_file_size(s) >> s->cluster_bits;
    if (s->has_data_file || s->sparse_known)
        return s->sparse;
    s->sparse_known = true;
    const char *path = blk_node_filename(&s->node);
    if (!*path || stat(path, &st) || !S_ISREG(st.st_mode))
        return false;
    real = ((uint64_t)st.st_blocks * 512 + s->cluster_size - 1) >> s->cluster_bits;
    limit = MAX(real * 10 / 9, real + 2);
    for (uint64_t i = 0, refs; i < all && all > limit && used <= limit; i++)
        used += !co_q2_ref_get(s, i, &refs) && refs;
    return s->sparse = used > limit;
}

int co_q2_block_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct qcow2 *s = q2_of(n);
    struct q2_run run = { 0 };
    struct q2_req q;
    uint64_t got = 0;
    int r = 0;
    co_q2_enter(s, &q);
    while (got < len) {             /* what is alike is told as one */
        struct q2_run next;
        r = co_q2_map(s, off + got, len - got, &next);
        if (r || (got && (next.kind != run.kind || next.has_host != run.has_host || (run.has_host && next.host != run.host + got))))
            break;
        if (!got)
            run = next;
        got += next.len;
    }
    bool sparse = got && run.kind == Q2_NORMAL && !s->luks && co_is_sparse(s);
    q2_leave(s, &q);
    if (!got)
        return r;
    *out = (struct blk_extent){ .len = got, .data = run.kind == Q2_NORMAL || run.kind == Q2_PACKED, .zero = run.kind == Q2_ZEROES,
        .below = run.kind == Q2_BELOW, .compressed = run.kind == Q2_PACKED };
    if (!s->luks && run.kind != Q2_PACKED && run.has_host) {
        out->has_off = true;
        out->sparse = sparse;
        out->off = run.host;
        out->where = q2_data(s);
    }
    return 0;
}
