/* SPDX-License-Identifier: MIT */
/*
 * Persistent bitmaps come into memory when an image is opened, and go back when it is closed. Meanwhile the image calls them "in
 * use": whoever finds that after a crash knows that they cannot be trusted. Section Bitmaps.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/bitmap.h"
#include "block/qcow2_int.h"

enum { KNOWN_FLAGS = Q2_BF_IN_USE | Q2_BF_AUTO | Q2_BF_EXTRA_COMPATIBLE };

/* ---- loading ---- */

static uint64_t map_bytes(const struct dirty_map *m) { return (m->bits + 7) / 8; }

/* Clusters of the table of a bitmap of this granularity. */
static uint64_t table_entries(const struct qcow2 *s, unsigned granularity)
{
    uint64_t bits = align_up(q2_size(s), BIT64(granularity)) >> granularity;
    return ((bits + 7) / 8 + s->cluster_size - 1) >> s->cluster_bits;
}

/*
 * The bits of @b, all clear, from its table. They are stored as they are here: the lowest granule in the lowest bit, on a little-endian host.
 * What is clear there touches no memory: a large disk's map is as small as what changed.
 */
static int co_load_bits(struct qcow2 *s, struct blk_bitmap *b)
{
    uint64_t *t = NULL, bytes = map_bytes(&b->map), need = (bytes + s->cluster_size - 1) >> s->cluster_bits;
    int r = b->table_size == need ? co_q2_bitmap_table(s, b->table_off, b->table_size, &t) : -EINVAL;
    for (uint64_t i = 0; i < need && !r; i++) {
        uint64_t at = i << s->cluster_bits, len = MIN(bytes - at, s->cluster_size), off = t[i] & Q2_OFFSET_MASK;
        uint8_t *to = (uint8_t *)b->map.w + at;
        if (!off && !(t[i] & 1))
            continue;
        if (off >= q2_file_size(s))
            r = -EINVAL;
        else if (off)
            r = co_q2_pread(s, off, to, len);
        else
            memset(to, 0xff, len);
        if (!r)
            dirty_count_in(&b->map, at, len);
    }
    free(t);
    return r;
}

static bool is_known(const struct q2_bm *e)
{
    return e->type == Q2_B_DIRTY_TRACKING && e->granularity >= 9 && e->granularity <= 31 && e->name_len && e->name_len <= BITMAP_MAX_NAME &&
           !memchr(e->name, 0, e->name_len) && !(e->flags & ~(uint32_t)KNOWN_FLAGS);
}

static bool co_load_one(struct qcow2 *s, const struct q2_bm *e, struct err *err)
{
    char name[BITMAP_MAX_NAME + 1] = "";
    uint64_t size = q2_size(s);
    if (!is_known(e))
        return err_set(err, ERR_VALUE, "'%s': bitmap '%.*s' is of a kind that is not known here", blk_node_filename(&s->node), (int)e->name_len, e->name);
    memcpy(name, e->name, e->name_len);
    struct blk_bitmap *b = blk_bitmap_attach(&s->node, name, size, BIT64(e->granularity), err);
    if (!b)
        return false;
    b->persistent = b->stored = true;
    b->recording = e->flags & Q2_BF_AUTO;
    b->table_off = e->table_off;
    b->table_size = e->table_size;
    b->inconsistent = e->flags & Q2_BF_IN_USE || (e->extra && !(e->flags & Q2_BF_EXTRA_COMPATIBLE));
    int r = b->inconsistent ? 0 : co_load_bits(s, b);
    if (r)
        log_warn("%s: bitmap '%s' cannot be read: %s", blk_node_filename(&s->node), name, strerror(-r));
    b->inconsistent |= r != 0;
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct q2_bm *x = a, *y = b;
    int r = memcmp(x->name, y->name, MIN(x->name_len, y->name_len));
    return r ? r : x->name_len - y->name_len;
}

/* 0, or -EINVAL: two are alike. */
static int names_differ(const struct q2_bm *v, uint32_t n)
{
    struct q2_bm *o = malloc(MAX(n, 1u) * sizeof *o);
    int r = o ? 0 : -ENOMEM;
    if (o) {
        memcpy(o, v, n * sizeof *o);
        qsort(o, n, sizeof *o, by_name);
    }
    for (uint32_t i = 1; i < n && !r; i++)
        r = by_name(&o[i - 1], &o[i]) ? 0 : -EINVAL;
    free(o);
    return r;
}

int co_q2_bitmaps_valid(struct qcow2 *s)
{
    uint8_t *dir = NULL;
    struct q2_bm *v = NULL;
    int r = co_q2_bitmap_dir(s, &dir);
    if (r)
        return r;
    r = q2_bitmap_list(s, dir, &v);
    r = r ? r : names_differ(v, s->bitmaps.count);
    for (uint32_t i = 0; i < s->bitmaps.count && !r; i++)
        r = is_known(&v[i]) && (v[i].flags & Q2_BF_IN_USE || v[i].table_size == table_entries(s, v[i].granularity)) ? 0 : -EINVAL;
    free(v);
    free(dir);
    return r;
}

bool co_q2_bitmaps_load(struct qcow2 *s, struct err *e)
{
    uint8_t *dir;
    struct q2_bm *v = NULL;
    s->bitmaps_loaded = !s->bitmaps.count || !(s->autoclear & Q2_AUTOCLEAR_BITMAPS);
    if (s->bitmaps_loaded)
        return true;                /* others wrote to it, who knew nothing of bitmaps: they are worth nothing */
    int r = co_q2_bitmap_dir(s, &dir);
    if (r)
        return err_os(e, -r, "cannot read the bitmaps of '%s'", blk_node_filename(&s->node));
    r = q2_bitmap_list(s, dir, &v);
    r = r ? r : names_differ(v, s->bitmaps.count);
    bool ok = !r;
    if (r == -EINVAL)
        err_set(e, ERR_VALUE, "'%s': the directory of bitmaps is not valid", blk_node_filename(&s->node));
    else if (r)
        err_os(e, -r, "no memory for the bitmaps of '%s'", blk_node_filename(&s->node));
    for (uint32_t i = 0; i < s->bitmaps.count && ok; i++)
        ok = co_load_one(s, &v[i], e);
    free(v);
    free(dir);
    s->bitmaps_loaded = ok;
    return ok;
}

int co_q2_bitmaps_mark(struct qcow2 *s)
{
    uint8_t *dir;
    uint64_t at = 0;
    struct q2_bm b;
    if (!s->bitmaps.count || !(s->autoclear & Q2_AUTOCLEAR_BITMAPS))
        return 0;
    int r = co_q2_bitmap_dir(s, &dir);
    if (r)
        return r;
    for (uint32_t i = 0; i < s->bitmaps.count; i++) {
        uint64_t start = at;
        if (!q2_bitmap_entry(dir, s->bitmaps.dir_size, &at, &b))
            break;
        st_be32(dir + start + Q2_B_FLAGS, b.flags | Q2_BF_IN_USE);
    }
    r = co_q2_pwrite(s, s->bitmaps.dir_off, dir, s->bitmaps.dir_size);
    free(dir);
    return r ? r : co_q2_barrier(s);
}

/* ---- storing ---- */

static int co_store_cluster(struct qcow2 *s, const uint8_t *p, uint64_t len, uint8_t *buf, uint64_t *entry)
{
    uint64_t off;
    *entry = 0;
    if (mem_is_zero(p, len))
        return 0;
    int r = co_q2_alloc(s, 1, NULL, &off);
    if (r)
        return r;
    memset(buf, 0, s->cluster_size);
    memcpy(buf, p, len);
    *entry = off;
    return co_q2_pwrite(s, off, buf, s->cluster_size);
}

/* Its bits and its table, at new places. */
static int co_store_bits(struct qcow2 *s, struct blk_bitmap *b)
{
    uint64_t bytes = map_bytes(&b->map), n = (bytes + s->cluster_size - 1) >> s->cluster_bits, off;
    uint8_t *buf = malloc(s->cluster_size), *table = calloc(MAX(n, (uint64_t)1), 8);
    int r = buf && table ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < n && !r; i++) {
        uint64_t at = i << s->cluster_bits, entry = 0;
        if (b->map.count)
            r = co_store_cluster(s, (const uint8_t *)b->map.w + at, MIN(bytes - at, s->cluster_size), buf, &entry);
        st_be64(table + i * 8, entry);
    }
    r = r ? r : co_q2_alloc(s, align_up(MAX(n * 8, (uint64_t)1), s->cluster_size) >> s->cluster_bits, NULL, &off);
    r = r ? r : co_q2_pwrite(s, off, table, n * 8);
    if (!r) {
        b->table_off = off;
        b->table_size = (uint32_t)n;
    }
    free(buf);
    free(table);
    return r;
}

static uint64_t entry_len(const struct blk_bitmap *b) { return align_up((uint64_t)Q2_B_FIXED + strlen(b->name), 8); }

static void put_entry(uint8_t *p, const struct blk_bitmap *b, bool in_use)
{
    st_be64(p + Q2_B_TABLE_OFF, b->table_off);
    st_be32(p + Q2_B_TABLE_SIZE, b->table_size);
    st_be32(p + Q2_B_FLAGS, (in_use || b->inconsistent ? Q2_BF_IN_USE : 0) | (b->recording ? Q2_BF_AUTO : 0));
    p[Q2_B_TYPE] = Q2_B_DIRTY_TRACKING;
    p[Q2_B_GRANULARITY] = (uint8_t)b->map.shift;
    st_be16(p + Q2_B_NAME_LEN, (uint16_t)strlen(b->name));
    memcpy(p + Q2_B_FIXED, b->name, strlen(b->name));
}

/*
 * The bitmaps that are stored now. They count as in use until that is done: others may want to remove one meanwhile, and what they add
 * is stored the next time.
 */
struct stored { struct blk_bitmap **v; size_t n; };

static void stored_begin(const struct qcow2 *s, struct stored *st)
{
    struct blk_bitmap *b;
    size_t cap = 0;
    *st = (struct stored){ 0 };
    list_for_each(b, &s->node.bitmaps, link) {
        if (!b->persistent || b->leaving)
            continue;
        if (st->n == cap) {
            cap = cap ? cap * 2 : 16;
            st->v = xrealloc(st->v, cap * sizeof *st->v);
        }
        b->busy++;
        st->v[st->n++] = b;
    }
}

static void stored_end(struct stored *st)
{
    for (size_t i = 0; i < st->n; i++)
        st->v[i]->busy--;
    free(st->v);
}

static int co_store_dir(struct qcow2 *s, const struct stored *st, bool in_use, struct q2_bitmaps *out)
{
    uint64_t at = 0;
    *out = (struct q2_bitmaps){ .count = (uint32_t)st->n };
    for (size_t i = 0; i < st->n; i++)
        out->dir_size += entry_len(st->v[i]);
    if (!st->n)
        return 0;
    if (st->n > Q2_MAX_BITMAPS || out->dir_size > Q2_MAX_BITMAP_DIR)
        return -EFBIG;
    uint8_t *dir = calloc(1, out->dir_size);
    int r = dir ? co_q2_alloc(s, align_up(out->dir_size, s->cluster_size) >> s->cluster_bits, NULL, &out->dir_off) : -ENOMEM;
    for (size_t i = 0; i < st->n && !r; at += entry_len(st->v[i++]))
        put_entry(dir + at, st->v[i], in_use);
    r = r ? r : co_q2_pwrite(s, out->dir_off, dir, out->dir_size);
    free(dir);
    return r;
}

/* What the present directory holds, but for tables that the next one takes over. */
struct old { struct qcow2 *s; struct q2_free *v; size_t n, cap; };

static int note_old(void *arg, uint64_t off, uint64_t len)
{
    struct old *o = arg;
    if (o->n == o->cap) {
        o->cap = o->cap ? o->cap * 2 : 64;
        o->v = xrealloc(o->v, o->cap * sizeof *o->v);
    }
    o->v[o->n++] = (struct q2_free){ .off = off, .len = len };
    return 0;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The tables, in order, of those that are stored as they are. */
static size_t kept_tables(const struct stored *st, uint64_t *v)
{
    size_t n = 0;
    for (size_t i = 0; i < st->n; i++)
        if (st->v[i]->inconsistent && st->v[i]->stored)
            v[n++] = st->v[i]->table_off;
    qsort(v, n, sizeof *v, by_value);
    return n;
}

static int co_note_old(struct qcow2 *s, const struct stored *st, struct old *o)
{
    uint8_t *dir;
    struct q2_bm *v = NULL;
    if (!s->bitmaps.count || !(s->autoclear & Q2_AUTOCLEAR_BITMAPS))
        return 0;
    int r = co_q2_bitmap_dir(s, &dir);
    if (r)
        return r;
    uint64_t *kept = calloc(st->n + 1, sizeof *kept);
    size_t n = kept ? kept_tables(st, kept) : 0;
    r = kept ? q2_bitmap_list(s, dir, &v) : -ENOMEM;
    if (!r)
        note_old(o, s->bitmaps.dir_off, s->bitmaps.dir_size);
    for (uint32_t i = 0; i < s->bitmaps.count && !r; i++)
        if (!bsearch(&v[i].table_off, kept, n, sizeof *kept, by_value))
            r = co_q2_bitmap_table_refs(s, v[i].table_off, v[i].table_size, note_old, o);
    free(kept);
    free(v);
    free(dir);
    return r;
}

static bool any_to_store(const struct qcow2 *s)
{
    struct blk_bitmap *b;
    list_for_each(b, &s->node.bitmaps, link)
        if (b->persistent)
            return true;
    return s->bitmaps.count && s->autoclear & Q2_AUTOCLEAR_BITMAPS;
}

static int co_store(struct qcow2 *s, bool in_use)
{
    struct old old = { .s = s };
    struct q2_bitmaps dir;
    struct stored st;
    stored_begin(s, &st);
    int r = co_note_old(s, &st, &old);
    for (size_t i = 0; i < st.n && !r; i++)
        if (!(st.v[i]->inconsistent && st.v[i]->stored))
            r = co_store_bits(s, st.v[i]);
    r = r ? r : co_store_dir(s, &st, in_use, &dir);
    r = r ? r : co_q2_sync(s);              /* refcounts and tables before the header that leads to them */
    r = r ? r : co_q2_barrier(s);
    if (!r) {
        s->bitmaps = dir;
        s->autoclear = (s->autoclear & ~(uint64_t)Q2_AUTOCLEAR_BITMAPS) | (dir.count ? Q2_AUTOCLEAR_BITMAPS : 0);
        r = co_q2_header_write(s);
        r = r ? r : co_q2_barrier(s);
    }
    for (size_t i = 0; i < old.n && !r; i++)
        q2_free_later(s, old.v[i].off, old.v[i].len, Q2_BY_OTHER);
    for (size_t i = 0; i < st.n; i++)
        st.v[i]->stored |= !r;
    struct blk_bitmap *b;
    list_for_each(b, &s->node.bitmaps, link)
        b->stored &= r || !b->leaving;      /* its table is free: should it stay after all, it gets another */
    stored_end(&st);
    free(old.v);
    return r;
}

int co_q2_bitmaps_store(struct qcow2 *s, bool in_use)
{
    return s->broken || !s->bitmaps_loaded || !any_to_store(s) ? 0 : co_store(s, in_use);
}
