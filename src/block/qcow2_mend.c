/* SPDX-License-Identifier: MIT */
/*
 * Repairing what the tables say: entries that mean nothing, that lead out of the file, or to clusters with more users than a refcount can
 * tell. A table that something else uses, too, is changed in a copy behind the end of the file: one of both is damage, which is not known.
 * Copies are on the disk before what leads to them. Nothing counts them yet: until all is done the image is marked dirty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_check_int.h"

struct mend {
    struct q2_chk *c;               /* ->want: all references */
    uint32_t *seen;                 /* those so far, by cluster */
    uint64_t end, most;             /* where the next copy goes; no further than this: damage may ask for any number of them */
    uint8_t *table, *data;          /* one cluster; two */
};

static bool in_file(const struct mend *m, uint64_t off, uint64_t len)
{
    return range_ok(off, len, m->c->n << m->c->s->cluster_bits);
}

static int see(void *arg, uint64_t off, uint64_t len)
{
    struct mend *m = arg;
    unsigned bits = m->c->s->cluster_bits;
    for (uint64_t k = off >> bits; len && k <= (off + len - 1) >> bits && k < m->c->n; k++)
        m->seen[k] += m->seen[k] < UINT32_MAX;
    return 0;
}

/* One user more is too much for a cluster of the range. */
static bool is_full(const struct mend *m, uint64_t off, uint64_t len)
{
    unsigned bits = m->c->s->cluster_bits;
    for (uint64_t k = off >> bits; k <= (off + len - 1) >> bits; k++)
        if (m->seen[k] >= q2_ref_max(m->c->s))
            return true;
    return false;
}

/* @len bytes go behind the end of the file: *@off. -EFBIG: there were too many already. */
static int co_put_behind(struct mend *m, const uint8_t *buf, uint64_t len, uint64_t *off)
{
    *off = m->end;
    if (!range_ok(m->end, len, m->most))
        return -EFBIG;
    m->end += len;
    return co_q2_pwrite(m->c->s, *off, buf, len);
}

/* A table in its place, which may lead to copies. */
static int co_put_over(struct mend *m, const uint8_t *buf, uint64_t len, uint64_t off)
{
    int r = co_q2_barrier(m->c->s);
    return r ? r : co_q2_pwrite(m->c->s, off, buf, len);
}

/* ---- entries of L2 tables ---- */

/* What is left of an entry whose reserved bits are dropped. False: nothing. */
static bool understood(const struct qcow2 *s, const uint8_t *p, struct q2_ent *e)
{
    uint8_t q[16];
    memcpy(q, p, s->entry_size);
    uint64_t v = ld_be64(q);
    if (!(v & Q2_COMPRESSED))
        st_be64(q, v & ~(Q2_L2_RESERVED | (s->extl2 || s->version < 3 ? Q2_ZERO : 0)));
    if (!q2_ent_decode(s, q, e))
        return true;
    if (e->compressed || q2_in_cluster(s, e->host)) {
        e->copied = false;
        return e->compressed && !s->has_data_file;
    }
    e->zero = e->has_host ? e->zero & ~e->alloc : e->zero | e->alloc;
    e->alloc = e->has_host ? e->alloc : 0;
    return true;
}

/* What cannot be had reads as zeroes; in a raw data file it can be in one place only. */
static struct q2_ent without_data(const struct qcow2 *s, uint64_t guest)
{
    if (s->raw_data)
        return (struct q2_ent){ .has_host = true, .copied = true, .host = guest, .alloc = q2_all_subs(s) };
    return (struct q2_ent){ .zero = s->version >= 3 ? q2_all_subs(s) : 0 };
}

/* Encrypted data is another one in another place. */
static int co_move_encrypted(struct mend *m, uint64_t from, uint64_t *to)
{
    struct qcow2 *s = m->c->s;
    struct iovec v = { m->data, s->cluster_size };
    *to = m->end;
    if (!range_ok(m->end, s->cluster_size, m->most))
        return -EFBIG;
    m->end += s->cluster_size;
    int r = co_q2_data_read(s, from, s->cluster_size, &v, 1);
    return r ? r : co_q2_write_data(s, *to, s->cluster_size, &v, 1, BLK_EV_WRITE_AIO);
}

/* What @e leads to gets a second place, which is its own. */
static int co_move(struct mend *m, struct q2_ent *e, uint64_t off, uint64_t len)
{
    struct qcow2 *s = m->c->s;
    uint64_t whole = align_up(len, s->cluster_size), to;
    memset(m->data, 0, whole);
    bool plain = !s->luks || e->compressed;
    int r = plain ? co_q2_pread(s, off, m->data, len) : co_move_encrypted(m, off, &to);
    r = r || !plain ? r : co_put_behind(m, m->data, whole, &to);
    if (!r)
        e->host = e->compressed ? to | (align_up(len, 512) / 512 - 1) << (70 - s->cluster_bits) : to;
    return r;
}

static int co_mend_entry(struct mend *m, uint8_t *p, uint64_t guest, bool *changed)
{
    struct qcow2 *s = m->c->s;
    struct q2_ent e;
    uint64_t off, len = s->cluster_size;
    bool was_ok = !q2_ent_decode(s, p, &e), ok = was_ok || understood(s, p, &e), moved = false;
    int r = 0;
    off = e.host;
    if (e.compressed)
        q2_packed_range(s, e.host, &off, &len);
    if (ok && (e.compressed || (e.has_host && !s->has_data_file))) {
        ok = in_file(m, off, len);
        moved = ok && is_full(m, off, len);
        r = moved ? co_move(m, &e, off, len) : 0;
        if (ok && !moved)
            see(m, off, len);
    } else if (ok && e.has_host) {
        ok = q2_chk_in_data(s, e.host, guest);
    }
    if (!ok || r == -EFBIG) {
        q2_chk_say(m->c, "ERROR: the data at guest offset 0x%llx is lost", (unsigned long long)guest);
        e = without_data(s, guest);
        r = 0;
    } else if (was_ok && !moved) {
        return r;
    }
    q2_ent_encode(s, &e, p);
    *changed = true;
    return r;
}

/* ---- tables ---- */

/* The table that the L1 entry @e leads to, for what is from @guest on. */
static int co_mend_table(struct mend *m, uint64_t *e, uint64_t guest)
{
    struct qcow2 *s = m->c->s;
    uint64_t table = *e & Q2_OFFSET_MASK, k = table >> s->cluster_bits, off;
    bool changed = false;
    if (!table || q2_in_cluster(s, table) || k >= m->c->n) {
        if (table)
            q2_chk_say(m->c, "ERROR: the data from guest offset 0x%llx on is lost: there is no table of it", (unsigned long long)guest);
        *e = 0;
        return 0;
    }
    int r = co_q2_pread(s, table, m->table, s->cluster_size);
    for (uint64_t i = 0; i < BIT64(s->l2_bits) && !r; i++)
        if (!mem_is_zero(m->table + i * s->entry_size, s->entry_size))
            r = co_mend_entry(m, m->table + i * s->entry_size, guest + (i << s->cluster_bits), &changed);
    *e &= ~Q2_L1_RESERVED;
    if (r)
        return r;
    if (is_full(m, table, s->cluster_size) || (changed && m->c->want[k] > 1)) {
        r = co_put_behind(m, m->table, s->cluster_size, &off);
        *e = r ? 0 : off;
        if (r == -EFBIG)
            q2_chk_say(m->c, "ERROR: the data from guest offset 0x%llx on is lost: too much uses its table", (unsigned long long)guest);
        return r == -EFBIG ? 0 : r;
    }
    see(m, table, s->cluster_size);
    if (!changed)
        return 0;
    q2_cache_drop(&s->l2c, table, s->cluster_size);
    return co_put_over(m, m->table, s->cluster_size, table);
}

/* All tables below @l1; *@changed: it is another one then. */
static int co_mend_l1(struct mend *m, uint64_t *l1, uint32_t n, bool *changed)
{
    int r = 0;
    for (uint32_t i = 0; i < n && !r; i++) {
        uint64_t was = l1[i];
        r = was ? co_mend_table(m, &l1[i], i * q2_l2_covers(m->c->s)) : 0;
        *changed |= l1[i] != was;
    }
    return r;
}

static int co_mend_active(struct mend *m)
{
    struct qcow2 *s = m->c->s;
    bool changed = false;
    int r = co_mend_l1(m, s->l1, s->l1_size, &changed);
    memset(s->l1_dirty, changed, s->l1_size / 64 + 1);
    s->l1_any_dirty = changed;
    return r;
}

static int co_mend_snapshot(struct mend *m, struct q2_snapshot *sn)
{
    struct qcow2 *s = m->c->s;
    uint64_t *l1, len = align_up((uint64_t)sn->l1_size * 8, s->cluster_size), off = sn->l1_off;
    bool changed = false, shared = false;
    int r = co_q2_load_l1(s, sn->l1_off, sn->l1_size, &l1);
    if (r)
        return r;
    r = co_mend_l1(m, l1, sn->l1_size, &changed);
    for (uint64_t at = 0; at < len; at += s->cluster_size)
        shared |= m->c->want[(off + at) >> s->cluster_bits] > 1;
    uint8_t *be = changed ? calloc(1, len) : NULL;
    for (uint32_t i = 0; be && i < sn->l1_size; i++)
        st_be64(be + (uint64_t)i * 8, l1[i]);
    if (!r && changed)
        r = !be ? -ENOMEM : shared ? co_put_behind(m, be, len, &off) : co_put_over(m, be, (uint64_t)sn->l1_size * 8, off);
    sn->lost = r == -EFBIG;
    r = sn->lost ? 0 : r;
    s->lost |= off != sn->l1_off;
    sn->l1_off = r || sn->lost ? sn->l1_off : off;
    free(be);
    free(l1);
    return r;
}

/* ---- the rest ---- */

static int bitmap_alone(void *arg, uint64_t off, uint64_t len)
{
    struct mend *m = arg;
    unsigned bits = m->c->s->cluster_bits;
    if (!in_file(m, off, len))
        return -EINVAL;
    for (uint64_t k = off >> bits; len && k <= (off + len - 1) >> bits; k++)
        if (m->c->want[k] > 1)
            return -EINVAL;
    return 0;
}

/* Bitmaps that share a place, or cannot be found, say nothing that could be believed: without them a backup is a full one. */
static int co_mend_bitmaps(struct mend *m)
{
    struct qcow2 *s = m->c->s;
    if (!s->bitmaps.count || !(s->autoclear & Q2_AUTOCLEAR_BITMAPS))
        return 0;
    int r = co_q2_bitmap_refs(s, bitmap_alone, m);
    r = r ? r : co_q2_bitmaps_valid(s);
    if (r != -EINVAL)
        return r ? r : co_q2_bitmap_refs(s, see, m);
    q2_chk_say(m->c, "ERROR: the bitmaps are not valid: they are gone");
    s->bitmaps = (struct q2_bitmaps){ 0 };
    s->autoclear &= ~(uint64_t)Q2_AUTOCLEAR_BITMAPS;
    s->lost = true;
    return 0;
}

/* Snapshots whose table, or whose L1 table, is where it cannot be counted, are none. */
static void see_snapshots(struct mend *m)
{
    struct qcow2 *s = m->c->s;
    bool none = s->nsnaps && s->snap_bytes && is_full(m, s->snap_off, s->snap_bytes);
    s->lost |= none;
    s->snap_bytes = none ? 0 : s->snap_bytes;
    see(m, s->snap_off, s->nsnaps ? s->snap_bytes : 0);
    for (uint32_t i = 0; i < s->nsnaps; i++) {
        struct q2_snapshot *sn = &s->snaps[i];
        uint64_t len = (uint64_t)sn->l1_size * 8;
        sn->lost |= none || (len && !sn->lost && is_full(m, sn->l1_off, len));
        see(m, sn->l1_off, sn->lost ? 0 : len);
    }
}

/* What is nobody's data. The refcounts themselves only where they stay. */
static void see_metadata(struct mend *m)
{
    struct qcow2 *s = m->c->s;
    see(m, 0, s->cluster_size);
    see(m, s->l1_off, (uint64_t)s->l1_size * 8);
    see(m, s->crypt_off, s->crypt_off ? s->crypt_len : 0);
    if (!m->c->rebuild && !m->c->missing) {
        see(m, s->rt_off, (uint64_t)s->rt_clusters << s->cluster_bits);
        for (uint32_t i = 0; i < s->rt_size; i++)
            see(m, s->rt[i] & Q2_RT_MASK, s->rt[i] ? s->cluster_size : 0);
    }
    see_snapshots(m);
}

int co_q2_mend(struct q2_chk *c)
{
    struct qcow2 *s = c->s;
    struct mend m = { .c = c, .end = c->n << s->cluster_bits, .most = (c->n * 2 + 16) << s->cluster_bits };
    m.seen = calloc(MAX(c->n, (uint64_t)1), sizeof *m.seen);
    m.table = malloc(s->cluster_size);
    m.data = malloc(2 * s->cluster_size);
    int r = m.seen && m.table && m.data ? 0 : -ENOMEM;
    s->broken = false;
    if (!r)
        see_metadata(&m);
    r = r ? r : co_q2_set_incompat(s, Q2_INCOMPAT_DIRTY, 0);
    r = r ? r : co_mend_bitmaps(&m);
    r = r ? r : co_mend_active(&m);
    for (uint32_t i = 0; i < s->nsnaps && !r; i++)
        r = s->snaps[i].lost ? 0 : co_mend_snapshot(&m, &s->snaps[i]);
    s->high_water = MAX(s->high_water, m.end);
    r = r ? r : co_q2_barrier(s);
    free(m.seen);
    free(m.table);
    free(m.data);
    r = r ? r : q2_meta_note(s) ? 0 : -ENOMEM;
    s->broken = r != 0;             /* what is in memory, nothing counts */
    return r;
}
