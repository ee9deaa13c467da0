/* SPDX-License-Identifier: MIT */
/* Compressed clusters: section Compressed Clusters Descriptor. The work is done on worker threads (qcow2_codec.c). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_codec.h"
#include "block/qcow2_int.h"

/* ---- reading ---- */

static int co_unpack(struct qcow2 *s, uint64_t desc, uint8_t *out)
{
    uint64_t off, len;
    q2_packed_range(s, desc, &off, &len);
    if (off >= q2_file_size(s) || len > 2 * s->cluster_size)
        return co_q2_corrupt(s, off, "compressed cluster at 0x%llx, %llu bytes, is not in the file", (unsigned long long)off,
                             (unsigned long long)len);
    uint8_t *in = malloc(len);
    if (!in)
        return -ENOMEM;
    struct q2_pack p = { .in = in, .in_len = len, .out = out, .out_len = s->cluster_size, .zstd = s->compression == Q2_COMPRESS_ZSTD };
    blk_tell(q2_file(s), BLK_EV_READ_COMPRESSED);
    int r = co_q2_pread(s, off, in, len);
    r = r ? r : co_offload(q2_unpack, &p);
    free(in);
    return r;
}

int co_q2_packed_read(struct qcow2 *s, uint64_t desc, uint64_t in_cluster, uint64_t len, const struct iovec *iov, unsigned niov)
{
    if (s->comp_cache && s->comp_cache_entry == (desc | Q2_COMPRESSED)) {
        blk_iov_copy(s->comp_cache + in_cluster, iov, niov, 0, len, true);
        return 0;
    }
    if (len == s->cluster_size && niov == 1)
        return co_unpack(s, desc, iov[0].iov_base);
    uint8_t *buf = malloc(s->cluster_size);
    int r = buf ? co_unpack(s, desc, buf) : -ENOMEM;
    if (r) {
        free(buf);
        return r;
    }
    blk_iov_copy(buf + in_cluster, iov, niov, 0, len, true);
    if (len == s->cluster_size) {
        free(buf);
        return 0;
    }
    free(s->comp_cache);            /* the next small read is likely to want the same */
    s->comp_cache = buf;
    s->comp_cache_entry = desc | Q2_COMPRESSED;
    return 0;
}

/* ---- writing ---- */

/* @data of a cluster, packed into @out; -ENOSPC: not smaller. */
static int co_pack(struct qcow2 *s, const uint8_t *data, uint8_t *out, size_t *got)
{
    struct q2_pack p = { .in = data, .in_len = s->cluster_size, .out = out, .out_len = s->cluster_size - 1,
                         .zstd = s->compression == Q2_COMPRESS_ZSTD };
    int r = co_offload(q2_pack, &p);
    *got = p.got;
    return r;
}

static int co_store_packed(struct qcow2 *s, uint64_t guest, const uint8_t *packed, size_t len)
{
    struct q2_ent old, e = { .compressed = true };
    struct iovec v = { (void *)packed, len };
    unsigned x = 62 - (s->cluster_bits - 8);
    uint64_t off;
    int r = co_q2_ent_get(s, guest, &old);
    r = r ? r : co_q2_alloc_bytes(s, len, &off);
    if (r)
        return r;
    if (!range_ok(off, len, BIT64(MIN(x, 56u))))
        r = -EFBIG;
    r = r ? r : co_q2_write_data(s, off, len, &v, 1, BLK_EV_WRITE_COMPRESSED);
    e.host = off | ((off + len - 1) / 512 - off / 512) << x;
    if (s->comp_cache_entry == (e.host | Q2_COMPRESSED))
        s->comp_cache_entry = 0;    /* what was there before */
    r = r ? r : co_q2_ent_set(s, guest, &e);
    if (r)
        co_q2_unalloc(s, off, len);
    else
        q2_ent_release(s, &old, Q2_BY_OTHER);
    return r;
}

static int co_pack_one(struct qcow2 *s, uint64_t guest, const uint8_t *data)
{
    struct q2_alloc a;
    size_t got = 0;
    uint8_t *out = malloc(s->cluster_size);
    int r = out ? co_pack(s, data, out, &got) : -ENOMEM;
    if (!r) {
        while (!co_q2_alloc_begin(s, &a, guest, guest + s->cluster_size))
            ;
        r = co_store_packed(s, guest, out, got);
        q2_alloc_end(&a);
    } else if (r == -ENOSPC) {
        struct iovec v = { (void *)data, MIN(s->cluster_size, q2_size(s) - guest) };
        r = co_q2_write_inner(s, guest, v.iov_len, &v, 1);
    }
    free(out);
    return r;
}

int co_q2_write_packed(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct qcow2 *s = q2_of(n);
    struct q2_req q;
    if (s->luks || s->has_data_file || q2_in_cluster(s, off) || (q2_in_cluster(s, len) && off + len != q2_size(s)))
        return s->luks || s->has_data_file ? -ENOTSUP : -EINVAL;
    uint8_t *buf = malloc(s->cluster_size);
    int r = buf ? co_q2_before_change(s) : -ENOMEM;
    if (r) {
        free(buf);
        return r;
    }
    co_q2_enter(s, &q);
    for (uint64_t at = 0; at < len && !r; at += s->cluster_size) {
        uint64_t k = MIN(len - at, s->cluster_size);
        memset(buf + k, 0, s->cluster_size - k);
        blk_iov_copy(buf, iov, niov, at, k, false);
        r = co_pack_one(s, off + at, buf);
    }
    q2_leave(s, &q);
    free(buf);
    return r;
}
