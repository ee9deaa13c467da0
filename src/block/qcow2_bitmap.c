/* SPDX-License-Identifier: MIT */
/* Persistent bitmaps: section Bitmaps. */
#include <errno.h>
#include <stdlib.h>
#include "block/qcow2_int.h"

/* One bitmap's table and data. */
static int co_table_refs(struct qcow2 *s, uint64_t off, uint32_t n, int (*fn)(void *, uint64_t, uint64_t), void *arg)
{
    uint64_t *t;
    if (q2_in_cluster(s, off) || !range_ok(off, (uint64_t)n * 8, q2_file_size(s)) || (uint64_t)n * 8 > Q2_MAX_L1_BYTES)
        return -EINVAL;
    int r = co_q2_load_l1(s, off, n, &t);
    if (r)
        return r;
    r = n ? fn(arg, off, (uint64_t)n * 8) : 0;
    for (uint32_t i = 0; i < n && !r; i++)
        if (t[i] & Q2_OFFSET_MASK)
            r = q2_in_cluster(s, t[i] & Q2_OFFSET_MASK) ? -EINVAL : fn(arg, t[i] & Q2_OFFSET_MASK, s->cluster_size);
    free(t);
    return r;
}

int co_q2_bitmap_refs(struct qcow2 *s, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg)
{
    uint64_t len = s->bitmaps.dir_size, at = 0;
    if (s->bitmaps.count > Q2_MAX_BITMAPS || len > Q2_MAX_BITMAP_DIR || q2_in_cluster(s, s->bitmaps.dir_off) ||
        !range_ok(s->bitmaps.dir_off, len, q2_file_size(s)))
        return -EINVAL;
    uint8_t *dir = malloc(MAX(len, (uint64_t)1));
    int r = dir ? co_q2_pread(s, s->bitmaps.dir_off, dir, len) : -ENOMEM;
    r = r ? r : fn(arg, s->bitmaps.dir_off, len);
    for (uint32_t i = 0; i < s->bitmaps.count && !r; i++) {
        if (!range_ok(at, Q2_B_FIXED, len)) {
            r = -EINVAL;
            break;
        }
        const uint8_t *p = dir + at;
        uint64_t entry = align_up((uint64_t)Q2_B_FIXED + ld_be16(p + Q2_B_NAME_LEN) + ld_be32(p + Q2_B_EXTRA_LEN), 8);
        r = range_ok(at, entry, len) ? co_table_refs(s, ld_be64(p + Q2_B_TABLE_OFF), ld_be32(p + Q2_B_TABLE_SIZE), fn, arg) : -EINVAL;
        at += entry;
    }
    free(dir);
    return r;
}
