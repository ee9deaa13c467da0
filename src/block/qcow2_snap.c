/* SPDX-License-Identifier: MIT */
/* Snapshots inside the image: section Snapshots. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/bitmap.h"
#include "block/qcow2_int.h"

/* ---- the table ---- */

static uint64_t extra_known(const struct qcow2 *s) { return Q2_S_ICOUNT - Q2_S_FIXED; }
static uint64_t entry_bytes(const struct qcow2 *s, const struct q2_snapshot *sn)
{
    return align_up(Q2_S_FIXED + extra_known(s) + sn->extra_len + strlen(sn->id) + strlen(sn->name), 8);
}

/* One entry at @p, of which @len bytes are there; its length, 0: not valid. */
static uint64_t parse_entry(struct qcow2 *s, const uint8_t *p, uint64_t len, struct q2_snapshot *sn)
{
    if (len < Q2_S_FIXED)
        return 0;
    uint64_t id = ld_be16(p + Q2_S_ID_LEN), name = ld_be16(p + Q2_S_NAME_LEN), extra = ld_be32(p + Q2_S_EXTRA_LEN);
    if (extra > Q2_MAX_SNAP_EXTRA || Q2_S_FIXED + extra + id + name > len)
        return 0;
    *sn = (struct q2_snapshot){ .l1_off = ld_be64(p + Q2_S_L1_OFF), .l1_size = ld_be32(p + Q2_S_L1_SIZE), .sec = ld_be32(p + Q2_S_SEC),
        .nsec = ld_be32(p + Q2_S_NSEC), .vm_clock = ld_be64(p + Q2_S_VM_CLOCK),
        .vm_size = extra >= 8 ? ld_be64(p + Q2_S_VM_SIZE64) : ld_be32(p + Q2_S_VM_SIZE32),
        .disk_size = extra >= 16 ? ld_be64(p + Q2_S_DISK_SIZE) : q2_size(s) };
    if (extra > extra_known(s)) {
        sn->extra_len = (uint32_t)(extra - extra_known(s));
        sn->extra = malloc(sn->extra_len);
        if (!sn->extra)
            return 0;
        memcpy(sn->extra, p + Q2_S_ICOUNT, sn->extra_len);
    }
    p += Q2_S_FIXED + extra;
    sn->id = xstrndup((const char *)p, id);
    sn->name = xstrndup((const char *)p + id, name);
    return align_up(Q2_S_FIXED + extra + id + name, 8);
}

static bool snap_ok(struct qcow2 *s, const struct q2_snapshot *sn)
{
    return (uint64_t)sn->l1_size * 8 <= Q2_MAX_L1_BYTES && !q2_in_cluster(s, sn->l1_off) &&
           range_ok(sn->l1_off, (uint64_t)sn->l1_size * 8, q2_file_size(s)) && sn->disk_size <= INT64_MAX;
}

/* Whether the table of @sn is there and covers the disk that it tells of. */
static bool covers(const struct qcow2 *s, const struct q2_snapshot *sn)
{
    return !sn->lost && sn->disk_size <= INT64_MAX - s->cluster_size && sn->l1_size >= (sn->disk_size ? (sn->disk_size - 1) / q2_l2_covers(s) + 1 : 0);
}

/* For a repair: a snapshot that no table covers is as long as the disk, or lost. */
static void mend_size(struct qcow2 *s, struct q2_snapshot *sn)
{
    if (covers(s, sn) && sn->l1_off)
        return;
    s->lost = true;
    sn->disk_size = q2_size(s);
    sn->lost |= !sn->l1_off || !covers(s, sn);
}

bool co_q2_snaps_read(struct qcow2 *s, struct err *e)
{
    uint64_t size = q2_file_size(s), max = s->snap_off >= size ? 0 : MIN(size - s->snap_off, (uint64_t)Q2_MAX_SNAP_TABLE), at = 0;
    uint32_t n = s->nsnaps;
    if (!n)
        return true;
    /* As much as @n entries can take: at most that is read, however long the file. */
    max = MIN(max, (uint64_t)n * (Q2_S_FIXED + Q2_MAX_SNAP_EXTRA + 2 * 65535 + 8));
    s->nsnaps = 0;
    uint8_t *buf = malloc(MAX(max, (uint64_t)1));
    s->snaps = calloc(n, sizeof *s->snaps);
    int r = buf && s->snaps ? co_q2_pread(s, s->snap_off, buf, max) : -ENOMEM;
    bool ok = !r || err_os(e, -r, "cannot read the snapshots of '%s'", blk_node_filename(&s->node));
    for (uint64_t len = 1; ok && len && s->nsnaps < n; at = MIN(at + len, max)) {
        struct q2_snapshot *sn = &s->snaps[s->nsnaps];
        len = parse_entry(s, buf + at, max - at, sn);
        sn->lost = len && !snap_ok(s, sn);
        if (len && s->repair)
            mend_size(s, sn);
        s->nsnaps += len != 0;
    }
    s->snaps_cut = n - s->nsnaps;
    s->snap_bytes = at;
    free(buf);
    return ok;
}

bool q2_snaps_lost(const struct qcow2 *s)
{
    bool lost = s->snaps_cut != 0;
    for (uint32_t i = 0; i < s->nsnaps; i++)
        lost |= s->snaps[i].lost;
    return lost;
}

static void snap_free(struct q2_snapshot *sn)
{
    free(sn->id);
    free(sn->name);
    free(sn->extra);
}

void q2_snaps_free(struct qcow2 *s)
{
    for (uint32_t i = 0; i < s->nsnaps && s->snaps; i++)
        snap_free(&s->snaps[i]);
    free(s->snaps);
    s->snaps = NULL;
}

static void build_entry(struct qcow2 *s, const struct q2_snapshot *sn, uint8_t *p)
{
    size_t id = strlen(sn->id), name = strlen(sn->name);
    st_be64(p + Q2_S_L1_OFF, sn->l1_off);
    st_be32(p + Q2_S_L1_SIZE, sn->l1_size);
    st_be16(p + Q2_S_ID_LEN, (uint16_t)id);
    st_be16(p + Q2_S_NAME_LEN, (uint16_t)name);
    st_be32(p + Q2_S_SEC, sn->sec);
    st_be32(p + Q2_S_NSEC, sn->nsec);
    st_be64(p + Q2_S_VM_CLOCK, sn->vm_clock);
    st_be32(p + Q2_S_VM_SIZE32, (uint32_t)MIN(sn->vm_size, UINT32_MAX));
    st_be32(p + Q2_S_EXTRA_LEN, (uint32_t)(extra_known(s) + sn->extra_len));
    st_be64(p + Q2_S_VM_SIZE64, sn->vm_size);
    st_be64(p + Q2_S_DISK_SIZE, sn->disk_size);
    if (sn->extra_len)
        memcpy(p + Q2_S_ICOUNT, sn->extra, sn->extra_len);
    memcpy(p + Q2_S_ICOUNT + sn->extra_len, sn->id, id);
    memcpy(p + Q2_S_ICOUNT + sn->extra_len + id, sn->name, name);
}

/* Metadata at @off (0: none) that nothing came to refer to. */
static void co_give_back(struct qcow2 *s, uint64_t off, uint64_t len)
{
    if (!off)
        return;
    q2_meta_del(s, off, len);
    co_q2_unalloc(s, off, len);
}

/*
 * A new table beside the old one; the header names it when it is on the disk, then the old one is free. Where it fails, the old one is
 * the image's still.
 */
int co_q2_snaps_write(struct qcow2 *s)
{
    uint64_t len = 0, off = 0, old_off = s->snap_off, old_len = s->snap_bytes;
    for (uint32_t i = 0; i < s->nsnaps; i++)
        len += entry_bytes(s, &s->snaps[i]);
    if (len > Q2_MAX_SNAP_TABLE)
        return -EFBIG;
    uint8_t *buf = calloc(1, MAX(len, (uint64_t)1)), *p = buf;
    int r = !buf ? -ENOMEM : len ? co_q2_alloc_meta(s, len, &off) : 0;
    for (uint32_t i = 0; i < s->nsnaps && !r; i++) {
        build_entry(s, &s->snaps[i], p);
        p += entry_bytes(s, &s->snaps[i]);
    }
    if (!r && len)
        r = co_q2_pwrite(s, off, buf, len);
    free(buf);
    r = r ? r : co_q2_sync(s);
    if (r) {
        co_give_back(s, off, len);
        return r;
    }
    s->snap_off = off;
    s->snap_bytes = len;
    r = co_q2_header_write(s);
    r = r ? r : co_q2_barrier(s);
    s->broken |= r != 0;                /* what the header says is not known */
    if (!r && old_len) {
        q2_meta_del(s, old_off, old_len);
        q2_free_later(s, old_off, align_up(old_len, s->cluster_size), Q2_BY_OTHER);
    }
    return r;
}

int co_q2_snaps_drop_lost(struct qcow2 *s)
{
    uint32_t kept = 0;
    if (!q2_snaps_lost(s))
        return 0;
    for (uint32_t i = 0; i < s->nsnaps; i++) {
        if (s->snaps[i].lost)
            snap_free(&s->snaps[i]);
        else
            s->snaps[kept++] = s->snaps[i];
    }
    s->nsnaps = kept;
    s->snaps_cut = 0;
    int r = co_q2_snaps_write(s);
    for (int i = 0; i < 3 && !r && q2_is_dirty(s); i++)     /* until the old table is free */
        r = co_q2_sync(s);
    return r;
}

/* ---- the tree of an L1 table ---- */

/* Adds @delta to the refcounts of what the entry @e names. */
static int co_count_ent(struct qcow2 *s, const struct q2_ent *e, int64_t delta)
{
    uint64_t off = e->host, len = s->cluster_size;
    if (e->compressed)
        q2_packed_range(s, e->host, &off, &len);
    return e->compressed || e->has_host ? co_q2_ref_add(s, off, len, delta) : 0;
}

/* One user more (@delta 1) of every data cluster of one L2 table, or one less (-1), later. */
static int co_count_l2(struct qcow2 *s, uint64_t table, int64_t delta)
{
    uint8_t *buf = malloc(s->cluster_size);
    int r = buf ? co_q2_pread(s, table, buf, s->cluster_size) : -ENOMEM;
    uint64_t i;
    struct q2_ent e;
    for (i = 0; i < BIT64(s->l2_bits) && !r; i++) {
        r = q2_ent_decode(s, buf + i * s->entry_size, &e);
        if (r)
            r = co_q2_corrupt(s, table, "L2 entry %llu of the table at 0x%llx is not valid", (unsigned long long)i, (unsigned long long)table);
        else if (delta < 0)
            q2_ent_release(s, &e, Q2_BY_SNAPSHOT);
        else
            r = co_count_ent(s, &e, 1);
    }
    for (i = r && delta > 0 && i ? i - 1 : 0; i--;)         /* all of it or nothing */
        if (!q2_ent_decode(s, buf + i * s->entry_size, &e))
            co_count_ent(s, &e, -1);
    free(buf);
    return r;
}

static int co_count_table(struct qcow2 *s, uint64_t table, int64_t delta)
{
    if (q2_in_cluster(s, table) || table >= q2_file_size(s))
        return co_q2_corrupt(s, table, "L2 table offset 0x%llx is not that of a cluster in the file", (unsigned long long)table);
    int r = co_count_l2(s, table, delta);
    if (!r && delta > 0)
        r = co_q2_ref_add(s, table, s->cluster_size, 1);
    else if (!r)
        q2_free_later(s, table, s->cluster_size, Q2_BY_SNAPSHOT);
    return r;
}

/* The same for a whole L1 table and its L2 tables. Alone. */
static int co_count_tree(struct qcow2 *s, const uint64_t *l1, uint32_t n, int64_t delta)
{
    int r = 0;
    uint32_t i;
    for (i = 0; i < n && !r; i++)
        r = l1[i] & Q2_OFFSET_MASK ? co_count_table(s, l1[i] & Q2_OFFSET_MASK, delta) : 0;
    for (i = r && delta > 0 ? i - 1 : 0; i--;)
        if (l1[i] & Q2_OFFSET_MASK)
            co_count_table(s, l1[i] & Q2_OFFSET_MASK, -1);
    return r;
}

/* No cluster of the active tables may be written in place any more (@shared), or only those with refcount 1. */
static int co_fix_copied(struct qcow2 *s, bool shared)
{
    int r = 0;
    for (uint32_t i = 0; i < s->l1_size && !r; i++) {
        uint64_t table = s->l1[i] & Q2_OFFSET_MASK, refs = 2;
        if (!table)
            continue;
        uint8_t *buf = malloc(s->cluster_size);
        r = buf ? co_q2_pread(s, table, buf, s->cluster_size) : -ENOMEM;
        bool changed = false;
        for (uint64_t k = 0; k < BIT64(s->l2_bits) && !r; k++) {
            uint8_t *p = buf + k * s->entry_size;
            struct q2_ent e;
            r = q2_ent_decode(s, p, &e);
            if (r || e.compressed || !e.has_host)
                continue;
            r = shared ? 0 : co_q2_ref_get(s, e.host >> s->cluster_bits, &refs);
            bool want = !shared && refs == 1;
            if (want == e.copied)
                continue;
            e.copied = want;
            q2_ent_encode(s, &e, p);
            changed = true;
        }
        r = r ? r : shared ? 0 : co_q2_ref_get(s, table >> s->cluster_bits, &refs);
        if (!r && changed) {
            q2_cache_drop(&s->l2c, table, s->cluster_size);
            r = co_q2_pwrite(s, table, buf, s->cluster_size);
        }
        free(buf);
        uint64_t v = table | (!shared && refs == 1 ? Q2_COPIED : 0);
        if (!r && s->l1[i] != v) {
            s->l1[i] = v;
            s->l1_dirty[i / 64] = 1;
            s->l1_any_dirty = true;
        }
    }
    return r;
}

static int co_write_l1_copy(struct qcow2 *s, uint64_t off)
{
    uint8_t *be = calloc(MAX(s->l1_size, 1u), 8);
    if (!be)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->l1_size; i++)
        st_be64(be + (uint64_t)i * 8, s->l1[i] & ~Q2_COPIED);
    int r = co_q2_pwrite(s, off, be, (uint64_t)s->l1_size * 8);
    free(be);
    return r;
}

/* ---- operations ---- */

static int find(const struct qcow2 *s, const char *what)
{
    for (uint32_t i = 0; i < s->nsnaps; i++)
        if (str_eq(s->snaps[i].id, what))
            return (int)i;
    for (uint32_t i = 0; i < s->nsnaps; i++)
        if (str_eq(s->snaps[i].name, what))
            return (int)i;
    return -1;
}

static int co_list(struct blk_node *n, struct blk_snap **out, unsigned *count)
{
    struct qcow2 *s = q2_of(n);
    struct blk_snap *v = calloc(MAX(s->nsnaps, 1u), sizeof *v);
    *out = v;
    *count = v ? s->nsnaps : 0;
    for (uint32_t i = 0; i < *count; i++) {
        const struct q2_snapshot *sn = &s->snaps[i];
        v[i] = (struct blk_snap){ xstrdup(sn->id), xstrdup(sn->name), sn->vm_size, sn->disk_size, sn->sec, sn->nsec, sn->vm_clock };
    }
    return v ? 0 : -ENOMEM;
}

static char *new_id(const struct qcow2 *s)
{
    unsigned long max = 0;
    for (uint32_t i = 0; i < s->nsnaps; i++)
        max = MAX(max, strtoul(s->snaps[i].id, NULL, 10));
    return xasprintf("%lu", max + 1);
}

static uint64_t l1_bytes(const struct qcow2 *s, uint32_t n) { return align_up(MAX((uint64_t)n * 8, (uint64_t)1), s->cluster_size); }

/* Nothing came of a snapshot whose L1 table was to be at @off; @counted: all that is below counts it. */
static void co_take_back(struct qcow2 *s, uint64_t off, bool counted)
{
    if (counted && !co_count_tree(s, s->l1, s->l1_size, -1) && !co_q2_sync(s))
        co_fix_copied(s, false);        /* what fails here costs space, or copies, only */
    co_give_back(s, off, l1_bytes(s, s->l1_size));
}

/*
 * A second L1 table with the same L2 tables; every refcount below grows by one. Until the header names the new table of
 * snapshots, a cut leaves refcounts that are too high: leaks.
 */
static int co_create_locked(struct qcow2 *s, const struct blk_snap *info)
{
    uint64_t off;
    struct q2_snapshot *v = realloc(s->snaps, (s->nsnaps + 1) * sizeof *v);
    if (!v)
        return -ENOMEM;
    s->snaps = v;
    int r = co_q2_sync(s);
    r = r ? r : co_q2_alloc_meta(s, l1_bytes(s, s->l1_size), &off);
    if (r)
        return r;
    r = co_count_tree(s, s->l1, s->l1_size, 1);
    bool counted = !r;
    r = r ? r : co_write_l1_copy(s, off);
    r = r ? r : co_fix_copied(s, true);
    r = r ? r : co_q2_sync(s);
    if (!r) {
        v[s->nsnaps] = (struct q2_snapshot){ .l1_off = off, .l1_size = s->l1_size, .sec = (uint32_t)info->sec, .nsec = (uint32_t)info->nsec,
            .vm_clock = info->vm_clock, .vm_size = info->vm_size, .disk_size = q2_size(s), .id = info->id ? xstrdup(info->id) : new_id(s),
            .name = xstrdup(info->name) };
        s->nsnaps++;
        r = co_q2_snaps_write(s);
        if (r)
            snap_free(&v[--s->nsnaps]);
    }
    if (r && !s->broken)
        co_take_back(s, off, counted);
    return r;
}

static int co_delete_locked(struct qcow2 *s, int i)
{
    struct q2_snapshot sn = s->snaps[i];
    size_t behind = (s->nsnaps - (unsigned)i - 1) * sizeof sn;
    uint64_t *l1;
    int r = co_q2_sync(s);
    r = r ? r : co_q2_load_l1(s, sn.l1_off, sn.l1_size, &l1);
    if (r)
        return r;
    memmove(s->snaps + i, s->snaps + i + 1, behind);
    s->nsnaps--;
    r = co_q2_snaps_write(s);
    if (r) {                            /* it is there still */
        memmove(s->snaps + i + 1, s->snaps + i, behind);
        s->snaps[i] = sn;
        s->nsnaps++;
        free(l1);
        return r;
    }
    r = co_count_tree(s, l1, sn.l1_size, -1);       /* nothing names it any more: now what it held can go */
    q2_meta_del(s, sn.l1_off, (uint64_t)sn.l1_size * 8);
    if (!r)
        q2_free_later(s, sn.l1_off, l1_bytes(s, sn.l1_size), Q2_BY_SNAPSHOT);
    r = r ? r : co_q2_sync(s);
    r = r ? r : co_fix_copied(s, false);
    free(l1);
    snap_free(&sn);
    return r ? r : co_q2_sync(s);
}

/* The active L1 table becomes a copy of the snapshot's, in new clusters; then the old tree is freed. */
static int co_apply_locked(struct qcow2 *s, int i)
{
    const struct q2_snapshot *sn = &s->snaps[i];
    uint64_t *l1 = NULL, *old = s->l1, old_off = s->l1_off, off;
    uint32_t old_n = s->l1_size;
    if (!covers(s, sn))
        return -EIO;
    uint8_t *dirty = calloc(sn->l1_size / 64 + 1, 1);
    int r = dirty ? co_q2_sync(s) : -ENOMEM;
    r = r ? r : co_q2_load_l1(s, sn->l1_off, sn->l1_size, &l1);
    r = r ? r : co_q2_alloc_meta(s, l1_bytes(s, sn->l1_size), &off);
    bool placed = !r;
    r = r ? r : co_count_tree(s, l1, sn->l1_size, 1);
    if (r) {
        if (placed)
            co_give_back(s, off, l1_bytes(s, sn->l1_size));
        free(l1);
        free(dirty);
        return r;
    }
    s->l1 = l1;
    s->l1_size = sn->l1_size;
    s->l1_off = off;
    free(s->l1_dirty);
    s->l1_dirty = dirty;
    s->l1_any_dirty = false;
    for (uint32_t k = 0; k < s->l1_size; k++)
        l1[k] &= ~Q2_COPIED;
    atomic_store(&s->node.size, sn->disk_size);
    r = co_write_l1_copy(s, off);
    r = r ? r : co_q2_sync(s);          /* refcounts and table are there before the header names it */
    r = r ? r : co_q2_header_write(s);
    r = r ? r : co_q2_barrier(s);
    if (r) {
        s->broken = true;
        free(old);
        return r;
    }
    q2_meta_del(s, old_off, (uint64_t)old_n * 8);
    r = co_count_tree(s, old, old_n, -1);
    q2_free_later(s, old_off, l1_bytes(s, old_n), Q2_BY_SNAPSHOT);
    free(old);
    r = r ? r : co_q2_sync(s);
    r = r ? r : co_fix_copied(s, false);
    return r ? r : co_q2_sync(s);
}

static int co_create(struct blk_node *n, const struct blk_snap *info)
{
    struct qcow2 *s = q2_of(n);
    if (n->caps.read_only)
        return -EROFS;
    if (s->has_data_file)
        return -ENOTSUP;
    co_q2_lock_all(s);
    int r = s->broken ? -EROFS : s->nsnaps >= Q2_MAX_SNAPSHOTS || strlen(info->name) > 65535 ? -EFBIG :
            info->id && find(s, info->id) >= 0 ? -EEXIST : co_create_locked(s, info);
    q2_unlock_all(s);
    return r;
}

/* @co_fn on the snapshot called @what, while nothing else runs. */
static int co_on_snapshot(struct blk_node *n, const char *what, int (*co_fn)(struct qcow2 *, int))
{
    struct qcow2 *s = q2_of(n);
    if (n->caps.read_only)
        return -EROFS;
    if (s->has_data_file)               /* whose clusters are not counted */
        return -ENOTSUP;
    co_q2_lock_all(s);
    int i = find(s, what);              /* others may have changed the list while we waited */
    int r = s->broken ? -EROFS : i < 0 ? -ENOENT : co_fn(s, i);
    q2_unlock_all(s);
    return r;
}

static int co_apply(struct blk_node *n, const char *what)
{
    int r = co_on_snapshot(n, what, co_apply_locked);
    blk_bitmaps_all_dirty(n);
    return r;
}
static int co_delete(struct blk_node *n, const char *what) { return co_on_snapshot(n, what, co_delete_locked); }

static int co_show_locked(struct qcow2 *s, int i)
{
    const struct q2_snapshot *sn = &s->snaps[i];
    uint64_t *l1 = NULL;
    if (!covers(s, sn))
        return -EIO;
    int r = co_q2_load_l1(s, sn->l1_off, sn->l1_size, &l1);
    if (r)
        return r;
    free(s->l1);
    s->l1 = l1;
    s->l1_size = sn->l1_size;
    atomic_store(&s->node.size, sn->disk_size);
    return 0;
}

static int co_show(struct blk_node *n, const char *what)
{
    struct qcow2 *s = q2_of(n);
    co_q2_lock_all(s);
    int i = find(s, what);
    int r = i < 0 ? -ENOENT : n->caps.read_only ? co_show_locked(s, i) : -EBUSY;
    q2_unlock_all(s);
    return r;
}

const struct blk_snap_ops q2_snap_ops = { .list = co_list, .create = co_create, .apply = co_apply, .del = co_delete, .show = co_show };
