/* SPDX-License-Identifier: MIT */
/* Where the persistent bitmaps are in the file: section Bitmaps. */
#include <errno.h>
#include <stdlib.h>
#include "block/qcow2_int.h"

bool q2_bitmap_entry(const uint8_t *dir, uint64_t len, uint64_t *at, struct q2_bm *out)
{
    if (!range_ok(*at, Q2_B_FIXED, len))
        return false;
    const uint8_t *p = dir + *at;
    *out = (struct q2_bm){ .table_off = ld_be64(p + Q2_B_TABLE_OFF), .table_size = ld_be32(p + Q2_B_TABLE_SIZE), .flags = ld_be32(p + Q2_B_FLAGS),
        .type = p[Q2_B_TYPE], .granularity = p[Q2_B_GRANULARITY], .name_len = ld_be16(p + Q2_B_NAME_LEN), .extra = ld_be32(p + Q2_B_EXTRA_LEN) };
    uint64_t whole = align_up((uint64_t)Q2_B_FIXED + out->name_len + out->extra, 8);
    if (!range_ok(*at, whole, len))
        return false;
    out->name = (const char *)p + Q2_B_FIXED + out->extra;
    *at += whole;
    return true;
}

int co_q2_bitmap_dir(struct qcow2 *s, uint8_t **out)
{
    uint64_t len = s->bitmaps.dir_size;
    if (s->bitmaps.count > Q2_MAX_BITMAPS || len > Q2_MAX_BITMAP_DIR || q2_in_cluster(s, s->bitmaps.dir_off) ||
        !range_ok(s->bitmaps.dir_off, len, q2_file_size(s)))
        return -EINVAL;
    *out = malloc(MAX(len, (uint64_t)1));
    int r = *out ? co_q2_pread(s, s->bitmaps.dir_off, *out, len) : -ENOMEM;
    if (r)
        free(*out);
    return r;
}

int q2_bitmap_list(const struct qcow2 *s, const uint8_t *dir, struct q2_bm **out)
{
    uint64_t at = 0, tables = 0;
    struct q2_bm *v = calloc(MAX(s->bitmaps.count, 1u), sizeof *v);
    int r = v ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < s->bitmaps.count && !r; i++) {
        r = q2_bitmap_entry(dir, s->bitmaps.dir_size, &at, &v[i]) ? 0 : -EINVAL;
        tables += v[i].table_size;
    }
    r = !r && tables > Q2_MAX_BITMAP_TABLES ? -EINVAL : r;
    if (r)
        free(v);
    *out = r ? NULL : v;
    return r;
}

int co_q2_bitmap_table(struct qcow2 *s, uint64_t off, uint32_t n, uint64_t **out)
{
    *out = NULL;
    if (q2_in_cluster(s, off) || !range_ok(off, (uint64_t)n * 8, q2_file_size(s)) || (uint64_t)n * 8 > Q2_MAX_L1_BYTES)
        return -EINVAL;
    int r = co_q2_load_l1(s, off, n, out);
    for (uint32_t i = 0; i < n && !r; i++)
        r = q2_in_cluster(s, (*out)[i] & Q2_OFFSET_MASK) || (*out)[i] & Q2_BT_RESERVED ? -EINVAL : 0;
    return r;
}

int co_q2_bitmap_table_refs(struct qcow2 *s, uint64_t off, uint32_t n, int (*fn)(void *, uint64_t, uint64_t), void *arg)
{
    uint64_t *t;
    int r = co_q2_bitmap_table(s, off, n, &t);
    r = r || !n ? r : fn(arg, off, (uint64_t)n * 8);
    for (uint32_t i = 0; i < n && !r; i++)
        if (t[i] & Q2_OFFSET_MASK)
            r = fn(arg, t[i] & Q2_OFFSET_MASK, s->cluster_size);
    free(t);
    return r;
}

int co_q2_bitmap_refs(struct qcow2 *s, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg)
{
    uint8_t *dir;
    struct q2_bm *v = NULL;
    int r = co_q2_bitmap_dir(s, &dir);
    if (r)
        return r;
    r = fn(arg, s->bitmaps.dir_off, s->bitmaps.dir_size);
    r = r ? r : q2_bitmap_list(s, dir, &v);
    for (uint32_t i = 0; i < s->bitmaps.count && !r; i++)
        r = co_q2_bitmap_table_refs(s, v[i].table_off, v[i].table_size, fn, arg);
    free(v);
    free(dir);
    return r;
}
