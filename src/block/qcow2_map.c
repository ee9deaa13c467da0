/* SPDX-License-Identifier: MIT */
/* From guest offsets to entries of L2 tables and back: sections Cluster mapping and Extended L2 Entries. */
#include <errno.h>
#include <string.h>
#include "block/qcow2_int.h"

/* ---- one entry ---- */

int q2_ent_decode(const struct qcow2 *s, const uint8_t *p, struct q2_ent *e)
{
    uint64_t v = ld_be64(p), bits = s->extl2 ? ld_be64(p + 8) : 0;
    *e = (struct q2_ent){ .copied = v & Q2_COPIED, .compressed = v & Q2_COMPRESSED };
    if (e->compressed) {
        e->host = v & ~(Q2_COPIED | Q2_COMPRESSED);
        return s->has_data_file || e->copied ? -EIO : 0;
    }
    e->host = v & Q2_OFFSET_MASK;
    e->has_host = e->host || (s->has_data_file && e->copied);
    if (v & Q2_L2_RESERVED || q2_in_cluster(s, e->host))
        return -EIO;
    if (s->extl2) {
        e->alloc = (uint32_t)bits;
        e->zero = (uint32_t)(bits >> 32);
        return v & Q2_ZERO || e->alloc & e->zero || (e->alloc && !e->has_host) ? -EIO : 0;
    }
    e->zero = v & Q2_ZERO && s->version >= 3;
    e->alloc = e->has_host && !e->zero;
    return v & Q2_ZERO && s->version < 3 ? -EIO : 0;
}

void q2_ent_encode(const struct qcow2 *s, const struct q2_ent *e, uint8_t *p)
{
    uint64_t v = e->host | (e->copied ? Q2_COPIED : 0) | (e->compressed ? Q2_COMPRESSED : 0);
    if (s->extl2)
        st_be64(p + 8, e->compressed ? 0 : e->alloc | (uint64_t)e->zero << 32);
    else if (!e->compressed && e->zero)
        v |= Q2_ZERO;
    st_be64(p, v);
}

void q2_packed_range(const struct qcow2 *s, uint64_t desc, uint64_t *off, uint64_t *len)
{
    unsigned x = 62 - (s->cluster_bits - 8);
    uint64_t at = desc & (BIT64(x) - 1) & UINT64_C(0x00ffffffffffffff);
    *off = at;
    *len = (bits_get(desc, x, 62 - x) + 1) * 512 - (at & 511);
}

void q2_ent_release(struct qcow2 *s, const struct q2_ent *e, enum q2_cause cause)
{
    uint64_t off, len;
    if (e->compressed) {
        q2_packed_range(s, e->host, &off, &len);
        q2_free_later(s, off, len, cause);
    } else if (e->has_host && !s->has_data_file) {
        q2_free_later(s, e->host, s->cluster_size, cause);
    }
}

/* ---- tables ---- */

static uint64_t l1_index(const struct qcow2 *s, uint64_t guest) { return guest >> (s->cluster_bits + s->l2_bits); }
static uint64_t l2_index(const struct qcow2 *s, uint64_t guest) { return guest >> s->cluster_bits & (BIT64(s->l2_bits) - 1); }

static void l1_set(struct qcow2 *s, uint64_t i, uint64_t v)
{
    s->l1[i] = v;
    s->l1_dirty[i / 64] = 1;
    s->l1_any_dirty = true;
}

static int co_l1_check(struct qcow2 *s, uint64_t i)
{
    uint64_t v = s->l1[i];
    if (v & Q2_L1_RESERVED || q2_in_cluster(s, v & Q2_OFFSET_MASK))
        return co_q2_corrupt(s, v & Q2_OFFSET_MASK, "L2 table offset 0x%llx is not that of a cluster (L1 index %llu)",
                             (unsigned long long)v, (unsigned long long)i);
    return 0;
}

/* A table of zeroes, or a copy of the one that is shared, for L1 entry @i. Table lock held. */
static int co_table_make(struct qcow2 *s, uint64_t i)
{
    uint64_t old = s->l1[i] & Q2_OFFSET_MASK, off;
    int r = co_q2_alloc_meta(s, s->cluster_size, &off);
    if (r)
        return r;
    q2_cache_drop(&s->l2c, off, s->cluster_size);
    if (!old) {
        blk_tell(q2_file(s), BLK_EV_L2_ALLOC_WRITE);
        r = co_q2_write_zeroes(s, off, s->cluster_size);
    }
    for (uint64_t at = 0; old && at < s->cluster_size && !r; at += s->l2c.slice_size) {
        struct q2_slice *from;
        blk_tell(q2_file(s), BLK_EV_L2_ALLOC_COW_READ);
        r = co_q2_cache_get(s, &s->l2c, old + at, &from);
        if (r)
            break;
        blk_tell(q2_file(s), BLK_EV_L2_ALLOC_WRITE);
        r = co_q2_pwrite(s, off + at, from->data, s->l2c.slice_size);
        q2_cache_put(from);
    }
    if (r) {
        q2_meta_del(s, off, s->cluster_size);
        co_q2_unalloc(s, off, s->cluster_size);
        return r;
    }
    l1_set(s, i, off | Q2_COPIED);
    if (old)
        q2_free_later(s, old, s->cluster_size, Q2_BY_OTHER);
    return 0;
}

/* The slice with the entry of @guest, pinned; NULL without a table. @own: in a table that may be changed. */
static int co_slice_of(struct qcow2 *s, uint64_t guest, bool own, struct q2_slice **out, uint8_t **entry)
{
    uint64_t i = l1_index(s, guest);
    int r = 0;
    *out = NULL;
    if (i >= s->l1_size)
        return own ? -EFBIG : 0;
    if (own && !(s->l1[i] & Q2_COPIED)) {
        co_mutex_lock(&s->table_lock);
        if (!(s->l1[i] & Q2_COPIED))
            r = co_l1_check(s, i);
        if (!r && !(s->l1[i] & Q2_COPIED))
            r = co_table_make(s, i);
        co_mutex_unlock(&s->table_lock);
    }
    r = r ? r : co_l1_check(s, i);
    uint64_t table = s->l1[i] & Q2_OFFSET_MASK, in_table = l2_index(s, guest) * s->entry_size;
    if (r || !table)
        return r;
    if (table >= q2_file_size(s))
        return co_q2_corrupt(s, table, "L2 table at 0x%llx lies beyond the end of the file", (unsigned long long)table);
    r = co_q2_cache_get(s, &s->l2c, table + in_table, out);
    if (!r)
        *entry = (*out)->data + in_table % s->l2c.slice_size;
    return r;
}

static int co_bad_entry(struct qcow2 *s, uint64_t guest, const uint8_t *p)
{
    return co_q2_corrupt(s, guest, "L2 entry 0x%016llx of guest offset 0x%llx is not valid", (unsigned long long)ld_be64(p),
                         (unsigned long long)guest);
}

int co_q2_ent_get(struct qcow2 *s, uint64_t guest, struct q2_ent *out)
{
    struct q2_slice *sl;
    uint8_t *p;
    int r = co_slice_of(s, guest, false, &sl, &p);
    *out = (struct q2_ent){ 0 };
    if (r || !sl)
        return r;
    r = q2_ent_decode(s, p, out);
    q2_cache_put(sl);
    return r ? co_bad_entry(s, guest, p) : 0;
}

int co_q2_ent_set(struct qcow2 *s, uint64_t guest, const struct q2_ent *ent)
{
    struct q2_slice *sl;
    uint8_t *p;
    int r = co_slice_of(s, guest, true, &sl, &p);
    if (r)
        return r;
    if (!sl)
        return -EIO;
    q2_ent_encode(s, ent, p);
    q2_cache_dirty(&s->l2c, sl);
    q2_cache_put(sl);
    return 0;
}

/* ---- runs ---- */

static enum q2_kind kind_of(const struct q2_ent *e, unsigned sub)
{
    return e->compressed ? Q2_PACKED : e->zero >> sub & 1 ? Q2_ZEROES : e->alloc >> sub & 1 ? Q2_NORMAL : Q2_BELOW;
}

/* Subclusters from @sub on of the same kind. */
static unsigned same_subs(const struct qcow2 *s, const struct q2_ent *e, unsigned sub)
{
    unsigned n = 1;
    while (sub + n < s->subs && kind_of(e, sub + n) == kind_of(e, sub))
        n++;
    return n;
}

int co_q2_map(struct qcow2 *s, uint64_t guest, uint64_t len, struct q2_run *out)
{
    struct q2_slice *sl;
    uint8_t *p;
    struct q2_ent e;
    uint64_t in = q2_in_cluster(s, guest), slice_bytes = s->l2c.slice_size / s->entry_size << s->cluster_bits;
    int r = co_slice_of(s, guest, false, &sl, &p);
    if (r)
        return r;
    if (!sl) {
        *out = (struct q2_run){ .kind = Q2_BELOW, .len = MIN(len, q2_l2_covers(s) - (guest & (q2_l2_covers(s) - 1))) };
        return 0;
    }
    r = q2_ent_decode(s, p, &e);
    if (r)
        goto bad;
    unsigned sub = (unsigned)(in >> s->sub_bits), n = same_subs(s, &e, sub);
    uint64_t end = (uint64_t)(sub + n) << s->sub_bits, left = MIN(len, slice_bytes - (guest & (slice_bytes - 1)));
    *out = (struct q2_run){ .kind = kind_of(&e, sub), .desc = e.host, .host = e.host + in, .has_host = e.has_host };
    out->len = e.compressed ? s->cluster_size - in : end - in;
    while (end == s->cluster_size && out->kind != Q2_PACKED && out->len < left) {
        struct q2_ent f;
        p += s->entry_size;
        r = q2_ent_decode(s, p, &f);
        if (r || kind_of(&f, 0) != out->kind || f.has_host != out->has_host || (f.has_host && f.host != out->host + out->len))
            break;          /* what is bad there is found when it is reached */
        end = (uint64_t)same_subs(s, &f, 0) << s->sub_bits;
        out->len += end;
    }
    q2_cache_put(sl);
    out->len = MIN(out->len, len);
    return 0;
bad:
    q2_cache_put(sl);
    return co_bad_entry(s, guest, p);
}
