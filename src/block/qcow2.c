/* SPDX-License-Identifier: MIT */
/* "qcow2": options, opening, closing. The format's parts are in the other qcow2_*.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "block/backing.h"
#include "block/qcow2_int.h"

enum { DEFAULT_L2_MAX = 32 << 20, DEFAULT_REFCOUNT = 1 << 20, SLICE = 4096 };

static const char *const overlap_names[] = { "cached", "constant", "all", "none", NULL };

static const char *const crypt_names[] = { "none", "aes", "luks", NULL };

static const struct prop q2_props[] = {
    PROP_JSON(struct qcow2, file, "file", PF_REQUIRED, "Node below: its name, or its options (file.driver=..., file.filename=...)"),
    PROP_JSON(struct qcow2, backing, "backing", 0, "Node of the backing file; else as the image says; null or an empty name: none"),
    PROP_JSON(struct qcow2, data_file, "data-file", 0, "Node of the external data file; else as the image says"),
    PROP_SIZE(struct qcow2, cache_size, "cache-size", 0, 0, 16 * GiB, "Memory for both caches of tables; 0: as the others say"),
    PROP_SIZE(struct qcow2, l2_cache_size, "l2-cache-size", 0, 0, 16 * GiB, "Memory for L2 tables; 0: enough for all, at most 32 MiB"),
    { .name = "l2-cache-entry-size", .doc = "Unit of the cache of L2 tables in bytes", .type = PROP_T_SIZE, .flags = PF_POW2,
      PROP_OFF(struct qcow2, l2_entry_size), .def = SLICE, .min = 512, .max = 2 * MiB },
    PROP_SIZE(struct qcow2, refcount_cache_size, "refcount-cache-size", 0, 0, 16 * GiB, "Memory for refcount blocks; 0: 1 MiB"),
    PROP_U64(struct qcow2, clean_interval, "cache-clean-interval", 600, 0, UINT32_MAX,
             "Seconds after which tables that nobody asked for leave the caches; 0: never"),
    PROP_TRI(struct qcow2, pass_discard[Q2_BY_REQUEST], "pass-discard-request", TRI_AUTO,
             "What the guest discards is given back to the file below; auto: as discard says"),
    PROP_TRI(struct qcow2, pass_discard[Q2_BY_SNAPSHOT], "pass-discard-snapshot", TRI_AUTO, "So is what a deleted snapshot held"),
    PROP_TRI(struct qcow2, pass_discard[Q2_BY_OTHER], "pass-discard-other", TRI_AUTO, "So is what is free for other reasons: copied, or moved"),
    PROP_BOOL(struct qcow2, discard_no_unref, "discard-no-unref", false, "What the guest discards keeps its place in the image, so that it does not get scattered"),
    PROP_TRI(struct qcow2, lazy_refcounts, "lazy-refcounts", TRI_AUTO, "Accepted for compatibility: refcounts are always written in order"),
    PROP_ENUM(struct qcow2, overlap_check, "overlap-check", overlap_names, 0, "Accepted for compatibility: the check is always on"),
    PROP_BOOL(struct qcow2, repair, "repair", false, "Open it although it is marked corrupt or dirty, or counts nothing: for check"),
    PROP_ENUM(struct qcow2, encrypt_format, "encrypt.format", crypt_names, Q2_CRYPT_NONE, "How the image is encrypted; else as it says"),
    PROP_STR(struct qcow2, key_secret, "encrypt.key-secret", 0, "Secret with a password that opens the image"),
    PROP_BOOL(struct qcow2, header_only, "header-only", false, "For tools: an encrypted image is opened without a password, its data is not read"),
    PROP_END,
};

/* ---- opening ---- */

static bool in_file(struct qcow2 *s, const char *what, uint64_t off, uint64_t len, struct err *e)
{
    if (range_ok(off, len, q2_file_size(s)) && off)
        return true;
    return err_set(e, ERR_VALUE, "'%s' is not a valid qcow2 image: the %s at 0x%llx, %llu bytes, is not in the file",
                   blk_node_filename(&s->node), what, (unsigned long long)off, (unsigned long long)len);
}

static void derive(struct qcow2 *s)
{
    s->extl2 = s->incompat & Q2_INCOMPAT_EXTL2;
    s->has_data_file = s->incompat & Q2_INCOMPAT_DATA_FILE;
    s->raw_data = s->has_data_file && s->autoclear & Q2_AUTOCLEAR_RAW_DATA;
    s->entry_size = s->extl2 ? 16 : 8;
    s->subs = s->extl2 ? Q2_SUBCLUSTERS : 1;
    s->sub_bits = s->cluster_bits - (s->extl2 ? 5 : 0);
    s->l2_bits = s->cluster_bits - (s->extl2 ? 4 : 3);
    s->high_water = align_up(q2_file_size(s), s->cluster_size);
}

/* @n entries of a table, in host order. */
static int co_load_table(struct qcow2 *s, uint64_t off, uint64_t n, uint64_t **out)
{
    uint64_t *t = calloc(MAX(n, (uint64_t)1), 8);
    int r = t ? co_q2_pread(s, off, t, n * 8) : -ENOMEM;
    for (uint64_t i = 0; i < n && !r; i++)
        t[i] = be64toh(t[i]);
    if (r)
        free(t);
    *out = r ? NULL : t;
    return r;
}

int co_q2_load_l1(struct qcow2 *s, uint64_t off, uint32_t size, uint64_t **out) { return co_load_table(s, off, size, out); }

static bool load_tables(struct qcow2 *s, struct err *e)
{
    uint64_t size = q2_size(s), need = size ? (size - 1) / q2_l2_covers(s) + 1 : 0;
    if (size > INT64_MAX - s->cluster_size || s->l1_size < need)
        return err_set(e, ERR_VALUE, "'%s' is not a valid qcow2 image: its L1 table of %u entries is too small for %llu bytes",
                       blk_node_filename(&s->node), s->l1_size, (unsigned long long)size);
    if ((s->l1_size && !in_file(s, "L1 table", s->l1_off, (uint64_t)s->l1_size * 8, e)))
        return false;
    if (!in_file(s, "refcount table", s->rt_off, (uint64_t)s->rt_clusters << s->cluster_bits, e)) {
        if (!s->repair)
            return err_hint(e, "backplane-img check -r all %s makes a new one", blk_node_filename(&s->node));
        *e = (struct err)ERR_INIT;
        s->rt_off = s->rt_clusters = 0;
    }
    s->rt_size = s->rt_clusters << (s->cluster_bits - 3);
    int r = co_load_table(s, s->l1_off, s->l1_size, &s->l1);
    r = r ? r : co_load_table(s, s->rt_off, s->rt_size, &s->rt);
    s->l1_dirty = calloc(s->l1_size / 64 + 1, 1);
    s->rt_dirty = calloc(s->rt_size / 64 + 1, 1);
    if (!r && (!s->l1_dirty || !s->rt_dirty))
        r = -ENOMEM;
    return !r || err_os(e, -r, "cannot read the tables of '%s'", blk_node_filename(&s->node));
}

static int64_t interval_ns(const struct qcow2 *s) { return (int64_t)s->clean_interval * 1000000000; }

static void clean_caches(void *arg)
{
    struct qcow2 *s = arg;
    q2_cache_clean(&s->l2c);
    q2_cache_clean(&s->rbc);
    timer_arm(&s->cleaning, clock_now(CLOCK_HOST) + interval_ns(s));
}

static bool init_caches(struct qcow2 *s, struct err *e)
{
    uint64_t slice = MIN(s->l2_entry_size, s->cluster_size), l2 = s->l2_cache_size, ref = s->refcount_cache_size;
    uint64_t all = (align_up(q2_size(s), s->cluster_size) >> s->cluster_bits) * s->entry_size;
    if (s->cache_size && l2 + ref > s->cache_size)
        return err_set(e, ERR_VALUE, "l2-cache-size and refcount-cache-size together are more than cache-size");
    if (!ref)
        ref = s->cache_size ? MIN(s->cache_size / 4, (uint64_t)DEFAULT_REFCOUNT) : DEFAULT_REFCOUNT;
    if (!l2)
        l2 = s->cache_size ? s->cache_size - ref : DEFAULT_L2_MAX;
    if (s->clean_interval)
        timer_arm(&s->cleaning, clock_now(CLOCK_HOST) + interval_ns(s));
    return q2_cache_init(&s->l2c, slice, MIN(l2, align_up(all, slice) + 16 * slice), e) &&
           q2_cache_init(&s->rbc, MIN((uint64_t)SLICE, s->cluster_size), ref, e);
}

static bool open_data_file(struct qcow2 *s, struct err *e)
{
    struct blk_node *n = &s->node;
    json_t *o = json_incref(s->data_file);
    if (!s->has_data_file)
        return !o || (json_decref(o), err_set(e, ERR_VALUE, "data-file is given, but '%s' has its data within", blk_node_filename(n)));
    if (!o && !s->data_name)
        return err_set(e, ERR_VALUE, "'%s' does not name its data file: data-file is missing", blk_node_filename(n));
    if (!o) {
        char *path = blk_path_beside(blk_node_filename(n), s->data_name);
        if (access(path, F_OK) && !access(s->data_name, F_OK)) {        /* QEMU looks in the current folder */
            free(path);
            path = xstrdup(s->data_name);
        }
        o = blk_file_opts(path, e);
        free(path);
        blk_lock_as(n, o);
    }
    bool ok = o && blk_child_open_at(n, &n->data, "data-file", o, n->child.perm, n->child.shared, e);
    json_decref(o);
    if (!ok)
        return err_prefix(e, "data file of '%s'", blk_node_filename(n));
    return true;
}

/* A crash of the program that wrote it last, or bits that only hold as long as everybody keeps them. */
static bool make_writable(struct qcow2 *s, struct err *e)
{
    int r = 0;
    if (s->incompat & Q2_INCOMPAT_CORRUPT) {
        err_set(e, ERR_VALUE, "'%s' is marked corrupt: it can be read only", blk_node_filename(&s->node));
        return err_hint(e, "backplane-img check -r all %s", blk_node_filename(&s->node));
    }
    if (q2_snaps_lost(s)) {             /* it is not known which clusters they hold */
        err_set(e, ERR_VALUE, "the table of snapshots of '%s' is damaged: it can be read only", blk_node_filename(&s->node));
        return err_hint(e, "backplane-img check -r all %s drops the snapshots that cannot be reached", blk_node_filename(&s->node));
    }
    if (s->incompat & Q2_INCOMPAT_DIRTY) {
        struct blk_check res = { 0 };
        r = co_q2_check(&s->node, &res, BLK_FIX_LEAKS | BLK_FIX_ERRORS);
        if (r)
            return err_os(e, -r, "cannot repair the refcounts of '%s'", blk_node_filename(&s->node));
        log_warn("%s was not closed properly: %llu refcounts repaired", blk_node_filename(&s->node),
                 (unsigned long long)(res.corruptions_fixed + res.leaks_fixed));
    }
    uint64_t keep = s->autoclear & (Q2_AUTOCLEAR_RAW_DATA | Q2_AUTOCLEAR_BITMAPS);
    if (keep != s->autoclear) {
        s->autoclear = keep;
        r = co_q2_header_write(s);
    }
    r = r ? r : co_q2_bitmaps_mark(s);
    return !r || err_os(e, -r, "cannot write the header of '%s'", blk_node_filename(&s->node));
}

static bool co_q2_open(struct blk_node *n, struct err *e)
{
    struct qcow2 *s = q2_of(n);
    unsigned perm = n->read_only ? BLK_PERM_READ : BLK_PERM_ALL;
    if (!blk_child_open(n, s->file, BLK_PERM_READ, BLK_PERM_ALL, e))
        return false;
    blk_tell(n->child.node, BLK_EV_NONE);
    n->read_only |= n->child.node->caps.read_only;      /* auto-read-only below */
    if (n->read_only)
        perm = BLK_PERM_READ;
    if (!blk_use_change(&n->child, perm, BLK_PERM_READ, e) || !co_q2_header_read(s, e))
        return false;
    if (s->discard_no_unref && s->version < 3) {
        err_set(e, ERR_VALUE, "discard-no-unref: images of version 2 (compat=0.10) have nothing that says so");
        return err_hint(e, "backplane-img amend -o compat=1.1 makes it one of version 3");
    }
    derive(s);
    n->backing_name = s->backing_name;
    n->backing_fmt = s->backing_fmt;
    if (!load_tables(s, e) || !init_caches(s, e) || !co_q2_snaps_read(s, e))
        return false;
    if (!q2_meta_note(s))
        return err_os(e, ENOMEM, "no memory for the tables of '%s'", blk_node_filename(n));
    if (!co_q2_crypt_open(s, e))
        return false;
    uint64_t size = q2_size(s);
    const struct blk_caps *below = &n->child.node->caps;
    n->caps = (struct blk_caps){ .read_only = n->read_only, .discard = n->discard == BLK_DISCARD_UNMAP, .write_zeroes = true,
        .flush = !n->no_flush, .fua = true, .logical_block = 512, .physical_block = MAX(below->physical_block, 512u),
        .discard_granularity = (uint32_t)s->cluster_size, .mem_align = below->mem_align };
    atomic_store(&n->size, size);
    return open_data_file(s, e) && blk_backing_open(n, s->backing, e) && (s->repair || co_q2_bitmaps_load(s, e)) &&
           (n->read_only || s->repair || make_writable(s, e));
}

static int co_sync_all(struct qcow2 *s)
{
    int r = 0;
    for (int i = 0; i < 3 && q2_is_dirty(s) && !r; i++)     /* what becomes free is written by the next one */
        r = co_q2_sync(s);
    return r;
}

/* All of it is on the disk, bitmaps and what became free included. */
static int co_settle(struct qcow2 *s)
{
    int r = co_sync_all(s);
    r = r ? r : co_q2_bitmaps_store(s, false);
    return r ? r : co_sync_all(s);
}

/* Permissions on the file below, and on that of the data. */
static bool claim_files(struct blk_node *n, unsigned perm, struct err *e)
{
    return blk_use_change(&n->child, perm, BLK_PERM_READ, e) && (!n->data.node || blk_use_change(&n->data, perm, BLK_PERM_READ, e));
}

static bool co_q2_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    struct qcow2 *s = q2_of(n);
    struct err ignored = ERR_INIT;
    int r = 0;
    if (writable) {
        if (claim_files(n, BLK_PERM_ALL, e) && make_writable(s, e))
            return true;
        return claim_files(n, BLK_PERM_READ, &ignored) && false;
    }
    co_q2_lock_all(s);
    r = s->broken ? 0 : co_settle(s);
    q2_unlock_all(s);
    return r ? err_os(e, -r, "cannot write what '%s' has in memory", n->obj.id) : claim_files(n, BLK_PERM_READ, e);
}

static void co_q2_close(struct blk_node *n)
{
    struct qcow2 *s = q2_of(n);
    timer_disarm(&s->cleaning);
    if (n->child.node && s->l2c.hash && !n->caps.read_only && !s->broken) {
        int r = co_settle(s);
        if (r)
            log_warn("%s: what was written last is lost: %s", blk_node_filename(n), strerror(-r));
    }
    blk_child_close_at(&n->backing);
    blk_child_close_at(&n->data);
    blk_child_close(n);
    if (s->l2c.hash)
        q2_cache_free(&s->l2c);
    if (s->rbc.hash)
        q2_cache_free(&s->rbc);
    q2_snaps_free(s);
    q2_header_free(s);
    q2_crypt_close(s);
    free(s->l1);
    free(s->l1_dirty);
    free(s->rt);
    free(s->rt_dirty);
    free(s->meta);
    free(s->frees);
    free(s->comp_cache);
    timer_fini(&s->cleaning);
}

static bool q2_init(struct obj *o, struct err *e)
{
    struct qcow2 *s = (struct qcow2 *)o;
    list_init(&s->reqs);
    list_init(&s->allocs);
    timer_init(&s->cleaning, CLOCK_HOST, loop_main(), NULL, clean_caches, s);
    return true;
}

static int co_q2_flush(struct blk_node *n) { return co_q2_sync(q2_of(n)); }
static uint32_t q2_cluster_size(const struct blk_node *n) { return (uint32_t)((const struct qcow2 *)n)->cluster_size; }

/*
 * What the file below is used for does not depend on who uses the image: its tables are in memory here. The backing image may change
 * where the users of this one would not mind. A job that has both knows what it does.
 */
static bool q2_set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    if (!n->backing.node || (n->job && n->job == n->backing.node->job))
        return true;
    unsigned want = list_empty(&n->uses) ? n->backing.shared : shared & BLK_PERM_WRITE ? BLK_PERM_ALL : BLK_PERM_READ;
    return want == n->backing.shared || blk_use_change(&n->backing, BLK_PERM_READ, want, e);
}

static bool q2_can_keep_bitmaps(const struct blk_node *n) { return ((const struct qcow2 *)n)->version >= 3; }

static bool co_q2_store_bitmaps(struct blk_node *n, bool in_use, struct err *e)
{
    struct qcow2 *s = q2_of(n);
    co_q2_lock_all(s);
    int r = co_q2_bitmaps_store(s, in_use);
    q2_unlock_all(s);
    return !r || err_os(e, -r, "cannot store the bitmaps of '%s'", n->obj.id);
}

static const struct blk_driver q2_driver = {
    .obj = { .name = "blockdev-qcow2", .desc = "QEMU's image format: sparse, backing files, snapshots, compression",
             .base = &blk_node_class, .size = sizeof(struct qcow2), .props = q2_props, .init = q2_init },
    .flags = BLK_FORMAT, .co_open = co_q2_open, .co_close = co_q2_close, .co_preadv = co_q2_preadv, .co_pwritev = co_q2_pwritev,
    .co_zero = co_q2_zero, .co_discard = co_q2_discard, .co_flush = co_q2_flush, .co_resize = co_q2_resize, .co_map = co_q2_block_map,
    .set_perm = q2_set_perm, .co_set_writable = co_q2_set_writable, .can_keep_bitmaps = q2_can_keep_bitmaps,
    .co_store_bitmaps = co_q2_store_bitmaps, .co_write_compressed = co_q2_write_packed, .co_create = co_q2_create, .measure = q2_measure, .co_check = co_q2_check,
    .info = q2_info, .cluster_size = q2_cluster_size, .co_set_backing = co_q2_set_backing, .co_make_empty = co_q2_make_empty,
    .snap = &q2_snap_ops, .co_preallocate = co_q2_preallocate, .create_props = q2_create_props,
    .co_amend = co_q2_amend, .amend_props = q2_amend_props,
};
OBJ_CLASS(&q2_driver.obj);
