/* SPDX-License-Identifier: MIT */
/* Checking: every reference is counted from the tables, then compared with the refcounts of the image. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_check_int.h"

enum { MAX_CLUSTERS = 1 << 28 /* a GiB of counters */ };

void q2_chk_say(struct q2_chk *c, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (c->res->say)
        c->res->say(c->res->arg, line);
}

/* One more reference to each cluster of [off, off + len); @what is for the message. */
static void count(struct q2_chk *c, uint64_t off, uint64_t len, const char *what)
{
    struct qcow2 *s = c->s;
    uint64_t first = off >> s->cluster_bits, last = (off + len - 1) >> s->cluster_bits;
    if (!len)
        return;
    for (uint64_t i = first; i <= last; i++) {
        if (i >= c->n) {
            q2_chk_say(c, "ERROR: %s at 0x%llx, %llu bytes, lies beyond the end of the file", what, (unsigned long long)off, (unsigned long long)len);
            c->res->corruptions++;
            return;
        }
        c->want[i] += c->want[i] < UINT32_MAX;
    }
    c->res->end = MAX(c->res->end, (last + 1) << s->cluster_bits);
}

/* ---- the mapping ---- */

static void bad_entry(struct q2_chk *c, uint64_t table, uint64_t i, const uint8_t *p)
{
    q2_chk_say(c, "ERROR: entry %llu of the L2 table at 0x%llx is not valid: 0x%016llx", (unsigned long long)i, (unsigned long long)table,
           (unsigned long long)ld_be64(p));
    c->res->corruptions++;
}

static void count_entry(struct q2_chk *c, const struct q2_ent *e, uint64_t guest, bool active)
{
    struct qcow2 *s = c->s;
    if (e->compressed) {
        uint64_t off, len;
        q2_packed_range(s, e->host, &off, &len);
        count(c, off, len, "a compressed cluster");
        c->res->compressed += active;
        c->res->allocated += active;
        c->res->fragmented += active;       /* compressed clusters count as such */
        return;
    }
    if (!e->has_host)
        return;
    if (!s->has_data_file) {
        count(c, e->host, s->cluster_size, "a data cluster");
    } else if (!q2_chk_in_data(s, e->host, guest)) {
        q2_chk_say(c, "ERROR: the data cluster of guest offset 0x%llx is at 0x%llx of the data file", (unsigned long long)guest, (unsigned long long)e->host);
        c->res->corruptions++;
    }
    if (active && e->alloc) {
        c->res->allocated++;
        if (c->next_host && e->host != c->next_host)
            c->res->fragmented++;
        c->next_host = e->host + s->cluster_size;
    }
}

static int co_count_l2(struct q2_chk *c, uint64_t table, uint64_t guest, bool active)
{
    struct qcow2 *s = c->s;
    int r = co_q2_pread(s, table, c->buf, s->cluster_size);
    c->next_host = 0;           /* a run ends with its table */
    for (uint64_t i = 0; i < BIT64(s->l2_bits) && !r; i++) {
        const uint8_t *p = c->buf + i * s->entry_size;
        struct q2_ent e;
        if (!ld_be64(p) && (!s->extl2 || !ld_be64(p + 8)))
            continue;
        if (q2_ent_decode(s, p, &e))
            bad_entry(c, table, i, p);
        else
            count_entry(c, &e, guest + (i << s->cluster_bits), active);
    }
    return r;
}

static bool table_ok(struct q2_chk *c, uint64_t v, uint32_t i)
{
    uint64_t table = v & Q2_OFFSET_MASK;
    if (table && !(v & Q2_L1_RESERVED) && !q2_in_cluster(c->s, table) && table < q2_file_size(c->s))
        return true;
    q2_chk_say(c, "ERROR: L1 entry %u is not valid: 0x%016llx", i, (unsigned long long)v);
    c->res->corruptions++;
    return false;
}

static int co_count_l1(struct q2_chk *c, const uint64_t *l1, uint32_t n, bool active)
{
    int r = 0;
    for (uint32_t i = 0; i < n && !r; i++) {
        if (!l1[i] || !table_ok(c, l1[i], i))
            continue;
        count(c, l1[i] & Q2_OFFSET_MASK, c->s->cluster_size, "an L2 table");
        r = co_count_l2(c, l1[i] & Q2_OFFSET_MASK, i * q2_l2_covers(c->s), active);
    }
    return r;
}

static int co_count_snapshots(struct q2_chk *c)
{
    struct qcow2 *s = c->s;
    int r = 0;
    for (uint32_t i = 0; i < s->nsnaps && !r; i++) {
        uint64_t *l1;
        if (s->snaps[i].lost) {
            q2_chk_say(c, "ERROR: snapshot %s ('%s') has no L1 table at 0x%llx", s->snaps[i].id, s->snaps[i].name, (unsigned long long)s->snaps[i].l1_off);
            c->res->corruptions++;
            continue;
        }
        count(c, s->snaps[i].l1_off, (uint64_t)s->snaps[i].l1_size * 8, "the L1 table of a snapshot");
        r = co_q2_load_l1(s, s->snaps[i].l1_off, s->snaps[i].l1_size, &l1);
        r = r ? r : co_count_l1(c, l1, s->snaps[i].l1_size, false);
        if (!r)
            free(l1);
    }
    count(c, s->snap_off, s->nsnaps ? s->snap_bytes : 0, "the table of snapshots");
    if (s->snaps_cut) {
        q2_chk_say(c, "ERROR: the table of snapshots ends after %u of %u entries", s->nsnaps, s->nsnaps + s->snaps_cut);
        c->res->corruptions++;
    }
    return r;
}

/* ---- the rest of the metadata ---- */

static void count_blocks(struct q2_chk *c)
{
    struct qcow2 *s = c->s;
    for (uint32_t i = 0; i < s->rt_size; i++) {
        uint64_t off = s->rt[i] & Q2_RT_MASK;
        if (!s->rt[i])
            continue;
        if (s->rt[i] & ~Q2_RT_MASK || q2_in_cluster(s, off) || !range_ok(off, 1, q2_file_size(s))) {
            q2_chk_say(c, "ERROR: refcount table entry %u is not valid: 0x%016llx", i, (unsigned long long)s->rt[i]);
            c->res->corruptions++;
            c->rebuild = true;
            continue;
        }
        count(c, off, s->cluster_size, "a refcount block");
        if (c->want[off >> s->cluster_bits] > 1) {
            q2_chk_say(c, "ERROR: the refcount block at 0x%llx holds something else, too", (unsigned long long)off);
            c->res->corruptions++;
            c->rebuild = true;
        }
    }
}

static int bitmap_ref(void *arg, uint64_t off, uint64_t len)
{
    count(arg, off, len, "a bitmap");
    return 0;
}

static int co_count_bitmaps(struct q2_chk *c)
{
    int r = co_q2_bitmap_refs(c->s, bitmap_ref, c);
    return r ? r : co_q2_bitmaps_valid(c->s);
}

int co_q2_count_all(struct q2_chk *c)
{
    struct qcow2 *s = c->s;
    count(c, 0, s->cluster_size, "the header");
    count(c, s->l1_off, (uint64_t)s->l1_size * 8, "the L1 table");
    if (!s->rt_clusters) {
        q2_chk_say(c, "ERROR: there is no refcount table where the header says");
        c->res->corruptions++;
        c->rebuild = true;
    }
    count(c, s->rt_off, (uint64_t)s->rt_clusters << s->cluster_bits, "the refcount table");
    count(c, s->crypt_off, s->crypt_off ? s->crypt_len : 0, "the encryption header");
    if (s->lost) {
        q2_chk_say(c, "ERROR: the header leads to snapshots or bitmaps that are not there");
        c->res->corruptions++;
    }
    int r = co_count_l1(c, s->l1, s->l1_size, true);
    r = r ? r : co_count_snapshots(c);
    if (!r && s->bitmaps.count && s->autoclear & Q2_AUTOCLEAR_BITMAPS)
        r = co_count_bitmaps(c);
    if (r == -EINVAL) {
        q2_chk_say(c, "ERROR: the bitmaps are not valid");
        c->res->corruptions++;
        r = 0;
    }
    count_blocks(c);
    return r;
}

/* ---- comparing ---- */

static bool block_ok(const struct qcow2 *s, uint64_t cluster)
{
    uint64_t i = cluster >> q2_rb_bits(s), v = i < s->rt_size ? s->rt[i] : 0;
    return v && !(v & ~Q2_RT_MASK) && !q2_in_cluster(s, v) && v < q2_file_size(s);
}

static int co_compare(struct q2_chk *c)
{
    struct qcow2 *s = c->s;
    int r = 0;
    /* What the blocks count beyond the end of the file is a leak, too: as far as there are blocks near it. */
    for (uint64_t i = 0; i < c->n && !r; i++) {
        uint64_t have = 0;
        if (block_ok(s, i))
            r = co_q2_ref_get(s, i, &have);
        else if (!c->want[i])
            continue;
        if (r || have == c->want[i])
            continue;
        bool leak = have > c->want[i];
        q2_chk_say(c, "%s: cluster %llu has refcount %llu, but %u reference%s", leak ? "Leaked" : "ERROR", (unsigned long long)i,
               (unsigned long long)have, c->want[i], c->want[i] == 1 ? "" : "s");
        *(leak ? &c->res->leaks : &c->res->corruptions) += 1;
        c->missing |= !leak && !block_ok(s, i);
    }
    return r;
}

/*
 * A COPIED flag of the active tables must say whether a refcount is one. What a cut in the middle of a snapshot's operation leaves does
 * no harm where there is one user: a set flag is true, and the refcount is what is too high; a missing one costs a copy.
 */
static void copied_differs(struct q2_chk *c, const char *what, uint64_t off, bool copied, uint64_t refs)
{
    bool alone = q2_chk_alone(c, off);
    if (alone && copied && refs > 1)
        return;                 /* told as a leak already */
    bool slow = alone && !copied;
    q2_chk_say(c, "%s: the copied flag of the %s at 0x%llx is %d, but its refcount is %llu", slow ? "Leaked" : "ERROR", what,
           (unsigned long long)off, copied, (unsigned long long)refs);
    *(slow ? &c->res->leaks : &c->res->corruptions) += 1;
}

static int co_check_copied_l2(struct q2_chk *c, uint64_t table)
{
    struct qcow2 *s = c->s;
    int r = co_q2_pread(s, table, c->buf, s->cluster_size);
    for (uint64_t i = 0; i < BIT64(s->l2_bits) && !r; i++) {
        uint64_t refs = 1;
        struct q2_ent e;
        if (q2_ent_decode(s, c->buf + i * s->entry_size, &e) || e.compressed || !e.has_host)
            continue;
        if (!s->has_data_file && !block_ok(s, e.host >> s->cluster_bits))
            continue;
        if (!s->has_data_file)
            r = co_q2_ref_get(s, e.host >> s->cluster_bits, &refs);
        if (!r && (refs == 1) != e.copied)
            copied_differs(c, "data cluster", e.host, e.copied, refs);
    }
    return r;
}

static int co_check_copied(struct q2_chk *c)
{
    struct qcow2 *s = c->s;
    int r = 0;
    for (uint32_t i = 0; i < s->l1_size && !r; i++) {
        uint64_t table = s->l1[i] & Q2_OFFSET_MASK, refs;
        if (!table || s->l1[i] & Q2_L1_RESERVED || q2_in_cluster(s, table) || table >= q2_file_size(s) ||
            !block_ok(s, table >> s->cluster_bits))
            continue;
        r = co_q2_ref_get(s, table >> s->cluster_bits, &refs);
        if (!r && (refs == 1) != !!(s->l1[i] & Q2_COPIED))
            copied_differs(c, "L2 table", table, s->l1[i] & Q2_COPIED, refs);
        r = r ? r : co_check_copied_l2(c, table);
    }
    return r;
}

/* ---- the whole ---- */

static int co_pass(struct q2_chk *c, struct blk_check *res)
{
    memset(c->want, 0, c->n * sizeof *c->want);
    c->res = res;
    c->rebuild = c->missing = false;
    c->next_host = 0;
    int r = co_q2_count_all(c);
    c->unsure = res->corruptions;
    r = r ? r : co_compare(c);
    return r ? r : co_check_copied(c);
}

/* What there is now, silently. */
static int co_again(struct q2_chk *c, struct blk_check *res)
{
    struct qcow2 *s = c->s;
    c->n = align_up(q2_file_size(s), s->cluster_size) >> s->cluster_bits;
    free(c->want);
    c->want = calloc(MAX(c->n, (uint64_t)1), sizeof *c->want);
    *res = (struct blk_check){ 0 };
    return c->want ? co_pass(c, res) : -ENOMEM;
}

static int co_check_locked(struct q2_chk *c, struct blk_check *res, unsigned fix)
{
    struct qcow2 *s = c->s;
    int r = s->node.caps.read_only ? 0 : co_q2_sync(s);
    r = r ? r : s->node.caps.read_only ? 0 : co_q2_sync(s);
    r = r ? r : co_pass(c, res);
    res->total = align_up(q2_size(s), s->cluster_size) >> s->cluster_bits;
    if (r || !fix || !(res->corruptions || res->leaks || s->incompat & (Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT)))
        return r;
    if (!(fix & BLK_FIX_ERRORS) && c->unsure)
        return 0;                       /* what seems to be a leak may be what they led to */
    uint64_t before_c = res->corruptions, before_l = res->leaks;
    struct blk_check again;
    if (fix & BLK_FIX_ERRORS && res->corruptions && s->repair) {        /* data is given up where that was asked for only */
        r = co_q2_mend(c);
        r = r ? r : co_again(c, &again);
    }
    r = r ? r : co_q2_repair(c, fix);
    r = r ? r : co_again(c, &again);
    if (r)
        return r;
    res->corruptions = again.corruptions;
    res->leaks = again.leaks;
    res->corruptions_fixed = before_c > again.corruptions ? before_c - again.corruptions : 0;
    res->leaks_fixed = before_l > again.leaks ? before_l - again.leaks : 0;
    res->end = again.end;
    if (!again.corruptions && s->incompat & (Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT)) {
        s->corrupt = s->broken = false;
        r = co_q2_set_incompat(s, 0, Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT);
    }
    return r;
}

int co_q2_check(struct blk_node *n, struct blk_check *res, unsigned fix)
{
    struct qcow2 *s = q2_of(n);
    struct q2_chk c = { .s = s, .n = align_up(q2_file_size(s), s->cluster_size) >> s->cluster_bits };
    if (c.n > MAX_CLUSTERS)
        return -EFBIG;
    if (fix && n->caps.read_only)
        return -EROFS;
    c.want = calloc(MAX(c.n, (uint64_t)1), sizeof *c.want);
    c.buf = malloc(s->cluster_size);
    int r = c.want && c.buf ? 0 : -ENOMEM;
    if (!r) {
        co_q2_lock_all(s);
        r = co_check_locked(&c, res, fix);
        q2_unlock_all(s);
    }
    free(c.want);
    free(c.buf);
    return r;
}
