/* SPDX-License-Identifier: MIT */
/* Repairing what a check found, once the tables are valid (qcow2_mend.c): refcounts are set to the references that were counted, copied flags follow. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_check_int.h"

/* Sets refcounts in the blocks that are there; those that are too high only, unless @all. */
static int co_set_refcounts(struct q2_chk *c, bool all)
{
    struct qcow2 *s = c->s;
    int r = 0;
    for (uint64_t i = 0; i < c->n && !r; i++) {
        uint64_t have, t = i >> q2_rb_bits(s), v = t < s->rt_size ? s->rt[t] : 0;
        if (!v || v & ~Q2_RT_MASK || q2_in_cluster(s, v) || v >= q2_file_size(s))
            continue;
        r = co_q2_ref_get(s, i, &have);
        if (r || have == c->want[i] || (have < c->want[i] && !all))
            continue;
        if (c->want[i] > q2_ref_max(s))
            return -EOVERFLOW;
        r = co_q2_ref_put(s, i, c->want[i]);
    }
    return r;
}

/*
 * A new refcount structure behind the end of the file: blocks, then the table; the header names it last. The old one is
 * no longer referred to, and free.
 */
static int co_rebuild(struct q2_chk *c)
{
    struct qcow2 *s = c->s;
    uint64_t start = c->n, blocks = 1, table = 1, per = BIT64(q2_rb_bits(s));
    for (uint32_t i = 0; i < s->rt_size; i++) {         /* the old structure goes */
        uint64_t k = (s->rt[i] & Q2_RT_MASK) >> s->cluster_bits;
        if (s->rt[i] && !(s->rt[i] & ~Q2_RT_MASK) && !q2_in_cluster(s, s->rt[i]) && k < c->n && c->want[k])
            c->want[k]--;
    }
    for (uint64_t k = 0; k < s->rt_clusters; k++)
        if ((s->rt_off >> s->cluster_bits) + k < c->n)
            c->want[(s->rt_off >> s->cluster_bits) + k]--;
    for (;;) {
        uint64_t b = (start + blocks + table + per - 1) / per, t = (b * 8 + s->cluster_size - 1) >> s->cluster_bits;
        if (b <= blocks && t <= table)
            break;
        blocks = MAX(b, blocks);
        table = MAX(t, table);
    }
    if (table << s->cluster_bits > Q2_MAX_RT_BYTES)
        return -EFBIG;
    uint64_t entries = table << (s->cluster_bits - 3);
    uint64_t *rt = calloc(entries, 8), at = start << s->cluster_bits;
    uint8_t *dirty = calloc(entries / 64 + 1, 1), *be = calloc(table, s->cluster_size);
    int r = rt && dirty && be ? 0 : -ENOMEM;
    for (uint64_t b = 0; b < blocks && !r; b++) {
        memset(c->buf, 0, s->cluster_size);
        for (uint64_t i = 0; i < per; i++) {
            uint64_t k = b * per + i, v = k < c->n ? c->want[k] : k < start + blocks + table;
            if (v > q2_ref_max(s))
                r = -EOVERFLOW;
            q2_ref_set_raw(c->buf, s->ref_order, i, v);
        }
        rt[b] = at + (b << s->cluster_bits);
        st_be64(be + b * 8, rt[b]);
        r = r ? r : co_q2_pwrite(s, rt[b], c->buf, s->cluster_size);
    }
    uint64_t off = at + (blocks << s->cluster_bits);
    r = r ? r : co_q2_pwrite(s, off, be, table << s->cluster_bits);
    r = r ? r : co_q2_barrier(s);
    free(be);
    if (r) {
        free(rt);
        free(dirty);
        return r;
    }
    for (uint32_t i = 0; i < s->rt_size; i++)
        if (!q2_in_cluster(s, s->rt[i]))
            q2_cache_drop(&s->rbc, s->rt[i], s->cluster_size);
    free(s->rt);
    free(s->rt_dirty);
    s->rt = rt;
    s->rt_dirty = dirty;
    s->rt_any_dirty = false;
    s->rt_size = (uint32_t)entries;
    s->rt_off = off;
    s->rt_clusters = (uint32_t)table;
    s->high_water = MAX(s->high_water, off + (table << s->cluster_bits));
    r = q2_meta_note(s) ? co_q2_header_write(s) : -ENOMEM;
    return r ? r : co_q2_barrier(s);
}

/* The refcount structure is no place for anything else; or is one again. */
static int note_refcounts(struct qcow2 *s, bool add)
{
    uint64_t len = (uint64_t)s->rt_clusters << s->cluster_bits;
    bool ok = true;
    if (add)
        ok = q2_meta_add(s, s->rt_off, len);
    else
        q2_meta_del(s, s->rt_off, len);
    for (uint32_t i = 0; i < s->rt_size && ok; i++) {
        uint64_t block = s->rt[i] & Q2_RT_MASK;
        if (block && add)
            ok = q2_meta_add(s, block, s->cluster_size);
        else if (block)
            q2_meta_del(s, block, s->cluster_size);
    }
    return ok ? 0 : -ENOMEM;
}

bool co_q2_refcount_width(struct qcow2 *s, unsigned order, struct err *e)
{
    struct blk_check res = { 0 };
    struct q2_chk c = { .s = s, .res = &res };
    unsigned before = s->ref_order;
    int r = 0;
    co_q2_lock_all(s);
    for (int i = 0; i < 3 && !r && q2_is_dirty(s); i++)
        r = co_q2_sync(s);
    c.n = align_up(q2_file_size(s), s->cluster_size) >> s->cluster_bits;
    c.want = calloc(MAX(c.n, (uint64_t)1), sizeof *c.want);
    c.buf = malloc(s->cluster_size);
    r = r ? r : c.want && c.buf ? co_q2_count_all(&c) : -ENOMEM;
    if (!r && !res.corruptions) {
        note_refcounts(s, false);
        s->ref_order = order;
        r = co_rebuild(&c);
        s->ref_order = r ? before : order;
        s->free_hint = 0;
        int noted = note_refcounts(s, true);
        r = r ? r : noted;
    }
    q2_unlock_all(s);
    free(c.want);
    free(c.buf);
    if (r == -EOVERFLOW)
        return err_set(e, ERR_VALUE, "refcount_bits=%u: some clusters are used by more than %u snapshots", 1u << order, 1u << order);
    if (!r && res.corruptions) {
        err_set(e, ERR_VALUE, "refcount_bits: the image has errors");
        return err_hint(e, "backplane-img check");
    }
    return !r || err_os(e, -r, "cannot write the refcounts of '%s'", blk_node_filename(&s->node));
}

/* What the copied flag of the cluster at @off becomes, whose refcount is @refs now. Unless @all errors are repaired, no refcount is to be
 * believed alone, and no flag is taken away. */
static bool copied_wanted(const struct q2_chk *c, uint64_t off, bool copied, uint64_t refs, bool all)
{
    return all ? refs == 1 : copied || (refs == 1 && q2_chk_alone(c, off));
}

/* Copied flags as the refcounts are now. */
static int co_fix_flags(struct q2_chk *c, bool all)
{
    struct qcow2 *s = c->s;
    int r = 0;
    for (uint32_t i = 0; i < s->l1_size && !r; i++) {
        uint64_t table = s->l1[i] & Q2_OFFSET_MASK, refs;
        bool changed = false;
        if (!table || s->l1[i] & Q2_L1_RESERVED || q2_in_cluster(s, table) || table >= q2_file_size(s))
            continue;
        r = co_q2_ref_get(s, table >> s->cluster_bits, &refs);
        uint64_t v = table | (copied_wanted(c, table, s->l1[i] & Q2_COPIED, refs, all) ? Q2_COPIED : 0);
        if (!r && s->l1[i] != v) {
            s->l1[i] = v;
            s->l1_dirty[i / 64] = 1;
            s->l1_any_dirty = true;
        }
        r = r ? r : co_q2_pread(s, table, c->buf, s->cluster_size);
        for (uint64_t k = 0; k < BIT64(s->l2_bits) && !r; k++) {
            uint8_t *p = c->buf + k * s->entry_size;
            struct q2_ent e;
            refs = 1;
            if (q2_ent_decode(s, p, &e) || e.compressed || !e.has_host || (!s->has_data_file && e.host >= q2_file_size(s)))
                continue;
            if (!s->has_data_file)
                r = co_q2_ref_get(s, e.host >> s->cluster_bits, &refs);
            bool want = copied_wanted(c, e.host, e.copied, refs, all);
            if (!r && e.copied != want) {
                e.copied = want;
                q2_ent_encode(s, &e, p);
                changed = true;
            }
        }
        if (!r && changed) {
            q2_cache_drop(&s->l2c, table, s->cluster_size);
            r = co_q2_pwrite(s, table, c->buf, s->cluster_size);
        }
    }
    return r;
}

int co_q2_repair(struct q2_chk *c, unsigned fix)
{
    struct qcow2 *s = c->s;
    bool all = fix & BLK_FIX_ERRORS;
    s->broken = false;
    int r = all && (c->rebuild || c->missing) ? co_rebuild(c) : co_set_refcounts(c, all);
    r = r ? r : co_q2_sync(s);
    s->free_hint = 0;
    if (!r && all && s->lost) {
        r = co_q2_snaps_write(s);       /* and the header */
        r = r ? r : co_q2_sync(s);
        s->lost = r;
    }
    r = r || !all ? r : co_q2_snaps_drop_lost(s);
    r = r ? r : co_fix_flags(c, all);
    return r ? r : co_q2_sync(s);
}
