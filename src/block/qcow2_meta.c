/* SPDX-License-Identifier: MIT */
/*
 * Which clusters hold metadata: a hash set of their offsets, so that the check before every write of guest data costs one look-up a
 * cluster. Its size is bounded by the tables that the header may describe (Q2_MAX_L1_BYTES, Q2_MAX_RT_BYTES).
 */
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_int.h"

/* Slots hold the offset + 1, so that cluster 0 (the header) is no empty slot. */
static size_t slot_of(const struct qcow2 *s, uint64_t off)
{
    return (off >> s->cluster_bits) * UINT64_C(0x9e3779b97f4a7c15) >> 17 & (s->meta_cap - 1);
}

static bool has(const struct qcow2 *s, uint64_t off)
{
    if (!s->meta_count)
        return false;
    for (size_t i = slot_of(s, off);; i = (i + 1) & (s->meta_cap - 1)) {
        if (!s->meta[i])
            return false;
        if (s->meta[i] == off + 1)
            return true;
    }
}

static void put(struct qcow2 *s, uint64_t off)
{
    size_t i = slot_of(s, off);
    while (s->meta[i])
        i = (i + 1) & (s->meta_cap - 1);
    s->meta[i] = off + 1;
    s->meta_count++;
}

static bool grow(struct qcow2 *s)
{
    size_t old_cap = s->meta_cap, cap = old_cap ? old_cap * 2 : 256;
    uint64_t *old = s->meta, *fresh = calloc(cap, sizeof *fresh);
    if (!fresh)
        return false;
    s->meta = fresh;
    s->meta_cap = cap;
    s->meta_count = 0;
    for (size_t i = 0; i < old_cap; i++)
        if (old[i])
            put(s, old[i] - 1);
    free(old);
    return true;
}

/* How many clusters [off, off + len) touches, wherever a header says that it is. */
static uint64_t touched(const struct qcow2 *s, uint64_t off, uint64_t len)
{
    return len ? ((q2_in_cluster(s, off) + len - 1) >> s->cluster_bits) + 1 : 0;
}

bool q2_meta_add(struct qcow2 *s, uint64_t off, uint64_t len)
{
    uint64_t o = align_down(off, s->cluster_size);
    for (uint64_t n = touched(s, off, len); n--; o += s->cluster_size) {
        if (has(s, o))
            continue;
        if (s->meta_count * 2 >= s->meta_cap && !grow(s))
            return false;
        put(s, o);
    }
    return true;
}

/* Linear probing: what follows in the run moves up. */
static void del(struct qcow2 *s, uint64_t off)
{
    size_t mask = s->meta_cap - 1, i = slot_of(s, off);
    while (s->meta[i] != off + 1)
        i = (i + 1) & mask;
    for (size_t j = (i + 1) & mask; s->meta[j]; j = (j + 1) & mask) {
        size_t home = slot_of(s, s->meta[j] - 1);
        if (((j - home) & mask) >= ((j - i) & mask)) {
            s->meta[i] = s->meta[j];
            i = j;
        }
    }
    s->meta[i] = 0;
    s->meta_count--;
}

void q2_meta_del(struct qcow2 *s, uint64_t off, uint64_t len)
{
    uint64_t o = align_down(off, s->cluster_size);
    for (uint64_t n = touched(s, off, len); n--; o += s->cluster_size)
        if (has(s, o))
            del(s, o);
}

bool q2_meta_has(const struct qcow2 *s, uint64_t off, uint64_t len)
{
    uint64_t o = align_down(off, s->cluster_size);
    for (uint64_t n = touched(s, off, len); n--; o += s->cluster_size)
        if (has(s, o))
            return true;
    return false;
}

bool q2_meta_note(struct qcow2 *s)
{
    uint64_t end = q2_file_size(s);
    if (s->meta)
        memset(s->meta, 0, s->meta_cap * sizeof *s->meta);
    s->meta_count = 0;
    bool ok = q2_meta_add(s, 0, s->cluster_size) && q2_meta_add(s, s->l1_off, (uint64_t)s->l1_size * 8) &&
              (!s->rt_clusters || q2_meta_add(s, s->rt_off, (uint64_t)s->rt_clusters << s->cluster_bits)) &&
              q2_meta_add(s, s->snap_off, s->snap_bytes) &&
              (!s->crypt_off || q2_meta_add(s, s->crypt_off, MIN(s->crypt_len, (uint64_t)16 << 20)));
    for (uint32_t i = 0; i < s->l1_size && ok; i++)
        if (s->l1[i] & Q2_OFFSET_MASK && (s->l1[i] & Q2_OFFSET_MASK) < end)
            ok = q2_meta_add(s, s->l1[i] & Q2_OFFSET_MASK, 1);
    for (uint32_t i = 0; i < s->rt_size && ok; i++)
        if (s->rt[i] & Q2_RT_MASK && (s->rt[i] & Q2_RT_MASK) < end)
            ok = q2_meta_add(s, s->rt[i] & Q2_RT_MASK, 1);
    for (uint32_t i = 0; i < s->nsnaps && ok; i++)
        ok = s->snaps[i].lost || q2_meta_add(s, s->snaps[i].l1_off, (uint64_t)s->snaps[i].l1_size * 8);
    return ok;
}
