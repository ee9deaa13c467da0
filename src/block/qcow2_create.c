/* SPDX-License-Identifier: MIT */
/* Making images: an empty one, and space for all of its clusters where that is asked for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
#include "block/qcow2_int.h"

static const char *const compat_names[] = { "1.1", "v3", "0.10", "v2", NULL };
const char *const blk_prealloc_names[] = { "off", "metadata", "falloc", "full", NULL };
static const char *const encrypt_names[] = { "none", "luks", NULL };
static const char *const compression_names[] = { "zlib", "zstd", NULL };

struct create {
    uint64_t size, cluster_size;
    uint32_t refcount_bits;
    int compat, preallocation, compression;
    bool lazy_refcounts, extended_l2, data_file_raw, force, data_exists, encryption;
    char *backing_file, *backing_fmt, *data_file;
    int encrypt;
    struct luks_create luks;
};

const struct prop q2_create_props[] = {
    PROP_SIZE(struct create, size, "size", 0, 0, INT64_MAX - 2 * MiB, "Size of the disk"),
    PROP_ENUM(struct create, compat, "compat", compat_names, 0, "Version of the format: 1.1 (v3), or 0.10 (v2) for very old readers"),
    { .name = "cluster_size", .doc = "Unit of allocation", .type = PROP_T_SIZE, .flags = PF_POW2, PROP_OFF(struct create, cluster_size),
      .def = 65536, .min = 512, .max = 2 * MiB },
    PROP_STR(struct create, backing_file, "backing_file", 0, "What is not written yet is read from this image"),
    PROP_STR(struct create, backing_fmt, "backing_fmt", 0, "Format of the backing file"),
    PROP_ENUM(struct create, preallocation, "preallocation", blk_prealloc_names, 0, "What is allocated at once"),
    PROP_ENUM(struct create, compression, "compression_type", compression_names, 0, "How compressed clusters are compressed"),
    PROP_BOOL(struct create, lazy_refcounts, "lazy_refcounts", false, "Other programs may postpone refcount updates"),
    PROP_BOOL(struct create, extended_l2, "extended_l2", false, "Subclusters: 32 to a cluster"),
    { .name = "refcount_bits", .doc = "Width of a refcount", .type = PROP_T_U32, .flags = PF_POW2, PROP_OFF(struct create, refcount_bits),
      .def = 16, .min = 1, .max = 64 },
    PROP_STR(struct create, data_file, "data_file", 0, "Guest data is kept in this file"),
    PROP_BOOL(struct create, data_file_raw, "data_file_raw", false, "The data file is a valid raw image at any time"),
    PROP_BOOL(struct create, encryption, "encryption", false, "Only off: the old way of encryption, which protects nothing"),
    PROP_ENUM(struct create, encrypt, "encrypt.format", encrypt_names, 0, "How it is encrypted"),
    LUKS_CREATE_PROPS(struct create, luks, "encrypt."),
    { .name = "data-file-exists", .doc = "The data file is there", .type = PROP_T_BOOL, .flags = PF_HIDDEN, PROP_OFF(struct create, data_exists) },
    PROP_BOOL(struct create, force, "force", false, "Overwrite a data file that exists"),
    PROP_END,
};

static bool check(const struct create *c, struct err *e)
{
    uint64_t cs = c->cluster_size, entry = c->extended_l2 ? 16 : 8;
    bool v2 = c->compat >= 2;
    if (c->encryption) {
        err_set(e, ERR_VALUE, "encryption=on: images are not encrypted in the old way any more");
        return err_hint(e, "encrypt.format=luks,encrypt.key-secret=ID");
    }
#ifndef CONFIG_ZSTD
    if (c->compression)
        return err_set(e, ERR_NOT_BUILT, "compression_type=zstd needs zstd, which is not in this build");
#endif
    if (v2 && (c->lazy_refcounts || c->extended_l2 || c->refcount_bits != 16 || c->compression || c->data_file))
        return err_set(e, ERR_VALUE, "compat=0.10 has no %s", c->lazy_refcounts ? "lazy_refcounts" : c->extended_l2 ? "extended_l2" :
                       c->compression ? "compression_type" : c->data_file ? "data_file" : "refcount_bits other than 16");
    if (c->extended_l2 && cs < BIT64(Q2_MIN_EXTL2_BITS))
        return err_set(e, ERR_VALUE, "extended_l2 needs a cluster_size of 16 KiB and up");
    if (c->backing_file && strlen(c->backing_file) > Q2_MAX_BACKING_NAME)
        return err_set(e, ERR_VALUE, "the backing file's name is longer than %d bytes", Q2_MAX_BACKING_NAME);
    if (c->backing_fmt && !c->backing_file)
        return err_set(e, ERR_VALUE, "backing_fmt without backing_file has no effect");
    if (c->backing_file && !c->backing_fmt) {
        err_set(e, ERR_VALUE, "the backing file's format is missing");
        return err_hint(e, "-F FORMAT (backing_fmt=FORMAT)");
    }
    if (c->backing_file && c->preallocation && !c->extended_l2) {
        err_set(e, ERR_VALUE, "a backing file and preallocation exclude each other: nothing of it would be seen");
        return err_hint(e, "extended_l2=on: subclusters show what is below until they are written");
    }
    if (c->encrypt && (c->data_file || (v2 && c->preallocation)))
        return err_set(e, ERR_VALUE, "encryption and %s exclude each other", c->data_file ? "a data file" : "preallocation with compat=0.10: it would be seen as rubbish");
    if (!c->encrypt && c->luks.key_secret)
        return err_set(e, ERR_VALUE, "encrypt.key-secret has no effect without encrypt.format=luks");
    if (c->data_file_raw && (!c->data_file || c->backing_file))
        return err_set(e, ERR_VALUE, c->data_file ? "data_file_raw excludes a backing file" : "data_file_raw needs data_file");
    if (c->size > 0 && ((c->size - 1) / (cs * (cs / entry)) + 1) * 8 > Q2_MAX_L1_BYTES)
        return err_set(e, ERR_VALUE, "%llu bytes are too many for clusters of %llu bytes", (unsigned long long)c->size, (unsigned long long)cs);
    return true;
}

/* The fields that the header is built from, in an object that is no node. */
static struct qcow2 *blank(struct blk_node *file, const struct create *c)
{
    struct qcow2 *s = xnew(struct qcow2);
    s->node.child.node = file;
    s->version = c->compat >= 2 ? 2 : 3;
    s->cluster_bits = ctz64(c->cluster_size);
    s->cluster_size = c->cluster_size;
    s->ref_order = ctz64(c->refcount_bits);
    s->compression = (unsigned)c->compression;
    s->header_len = s->version == 2 ? Q2_H_V2_LEN : Q2_H_OUR_LEN;
    s->incompat = (c->data_file ? Q2_INCOMPAT_DATA_FILE : 0) | (c->compression ? Q2_INCOMPAT_COMPRESSION : 0) |
                  (c->extended_l2 ? Q2_INCOMPAT_EXTL2 : 0);
    s->compat = c->lazy_refcounts ? Q2_COMPAT_LAZY : 0;
    s->autoclear = c->data_file_raw ? Q2_AUTOCLEAR_RAW_DATA : 0;
    s->backing_name = c->backing_file;
    s->backing_fmt = c->backing_fmt;
    s->data_name = c->data_file;
    atomic_store(&s->node.size, c->size);
    return s;
}

/* Header, refcount table, blocks, L1 table: one after the other from the beginning. */
static int co_write_empty(struct qcow2 *s, const struct create *c)
{
    uint64_t entry = c->extended_l2 ? 16 : 8, cs = s->cluster_size, per = BIT64(q2_rb_bits(s));
    uint64_t l1 = c->size ? (c->size - 1) / (cs * (cs / entry)) + 1 : 0, k = (l1 * 8 + cs - 1) / cs, b = 1, t = 1;
    for (;;) {
        uint64_t nb = (1 + t + b + k + per - 1) / per, nt = (nb * 8 + cs - 1) / cs;
        if (nb <= b && nt <= t)
            break;
        b = MAX(b, nb);
        t = MAX(t, nt);
    }
    uint64_t all = 1 + t + b + k;
    s->l1_size = (uint32_t)l1;
    s->rt_off = cs;
    s->rt_clusters = (uint32_t)t;
    s->l1_off = k ? (1 + t + b) * cs : 0;
    uint8_t *buf = calloc(MAX(t, (uint64_t)1), cs);
    int r = buf ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < b && !r; i++)
        st_be64(buf + i * 8, (1 + t + i) * cs);
    r = r ? r : co_q2_pwrite(s, s->rt_off, buf, t * cs);
    for (uint64_t i = 0; i < b && !r; i++) {
        memset(buf, 0, cs);
        for (uint64_t j = 0; j < per && i * per + j < all; j++)
            q2_ref_set_raw(buf, s->ref_order, j, 1);
        r = co_q2_pwrite(s, (1 + t + i) * cs, buf, cs);
    }
    r = r || !k ? r : co_q2_write_zeroes(s, s->l1_off, k * cs);
    r = r ? r : co_q2_barrier(s);
    r = r ? r : q2_header_build(s, buf, NULL);
    r = r ? r : co_q2_pwrite(s, 0, buf, cs);
    r = r ? r : co_q2_barrier(s);
    free(buf);
    return r;
}

/* ---- preallocation ---- */

/* How many clusters from @at on have no place yet: in a part that was just made those that hide a backing file do. */
static int co_placeless(struct qcow2 *s, uint64_t at, uint64_t most, uint64_t *n)
{
    struct q2_ent e;
    int r = 0;
    for (*n = 0; *n < most && !(r = co_q2_ent_get(s, at + (*n << s->cluster_bits), &e)) && !e.has_host && !e.compressed;)
        ++*n;
    return r;
}

/* The bytes [host, host + len) of the data file, as @how says. */
static int co_fill(struct qcow2 *s, uint64_t host, uint64_t len, enum blk_prealloc how)
{
    struct blk_node *d = q2_data(s);
    if (how == BLK_PREALLOC_FALLOC)
        return co_node_zero(d, host, len, BLK_GROW);
    if (how != BLK_PREALLOC_FULL)
        return host + len > atomic_load(&d->size) ? co_node_resize(d, host + len) : 0;
    uint8_t *z = calloc(1, s->cluster_size);
    int r = z ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < len && !r; i += s->cluster_size) {
        struct iovec v = { z, MIN(s->cluster_size, len - i) };
        r = co_node_pwritev(d, host + i, v.iov_len, &v, 1, BLK_GROW);
    }
    free(z);
    return r;
}

/* In a raw data file what is there is the disk's already: space for the rest. */
static int co_fill_holes(struct qcow2 *s, uint64_t from, enum blk_prealloc how)
{
    struct blk_extent x = { 0 };
    int r = 0;
    for (uint64_t at = from, end = q2_size(s); at < end && !r; at += x.len) {
        r = co_node_map(q2_data(s), at, end - at, &x);
        if (!r && x.zero)
            r = co_fill(s, at, x.len, how);
    }
    return r;
}

/*
 * Clusters for what is from @from on. In an image that was used they may hold what was deleted (and in a data file what others left), unless they are written; and zeroes of the
 * file are none of an encrypted disk: zero clusters. Those of a new image with a backing file show what is below: they have subclusters.
 */
int co_q2_preallocate_inner(struct qcow2 *s, uint64_t from, enum blk_prealloc how)
{
    uint64_t size = align_up(q2_size(s), s->cluster_size);
    bool below = !from && s->backing_name, hide = s->luks || (from && how == BLK_PREALLOC_METADATA && !s->raw_data);
    int r = 0;
    for (uint64_t at = align_up(from, s->cluster_size); at < size && !r;) {
        uint64_t want = MIN((size - at) >> s->cluster_bits, (uint64_t)4096), got, host = at;
        r = from ? co_placeless(s, at, want, &want) : 0;
        if (r || !want) {
            at += s->cluster_size;
            continue;
        }
        got = want;
        if (!s->has_data_file)
            r = co_q2_alloc(s, want, &got, &host);
        uint64_t len = got << s->cluster_bits;
        if (s->has_data_file)           /* which ends where the disk does */
            len = MIN(len, q2_size(s) - host);
        r = r ? r : co_fill(s, host, len, how);
        s->writes++;
        struct q2_ent e = { .has_host = true, .copied = true, .alloc = below || hide ? 0 : q2_all_subs(s),
                            .zero = hide && !below ? q2_all_subs(s) : 0 };
        for (uint64_t i = 0; i < got && !r; i++) {
            e.host = host + (i << s->cluster_bits);
            r = co_q2_ent_set(s, at + (i << s->cluster_bits), &e);
        }
        at += got << s->cluster_bits;
    }
    return r ? r : co_q2_sync(s);
}

int co_q2_preallocate(struct blk_node *n, uint64_t from, enum blk_prealloc how)
{
    struct qcow2 *s = q2_of(n);
    if (s->version < 3 && (s->luks || how == BLK_PREALLOC_METADATA))
        return -ENOTSUP;            /* what is in new clusters would be seen */
    co_q2_lock_all(s);
    int r = s->raw_data ? co_fill_holes(s, from, how) : co_q2_preallocate_inner(s, from, how);
    q2_unlock_all(s);
    return r;
}

/* What is done to the new image as to any other: encryption, preallocation. */
static bool co_open_and_finish(struct blk_node *file, const struct create *c, struct err *e)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "driver", "qcow2", "node-name", "creating", "file", file->obj.id, "backing", "");
    struct blk_node *n = blk_node_create(o, e);
    json_decref(o);
    if (!n)
        return false;
    bool ok = !c->encrypt || co_q2_crypt_create(q2_of(n), &c->luks, e);
    int r = ok && c->preallocation ? co_q2_preallocate_inner(q2_of(n), 0, c->preallocation) : 0;
    obj_del(&n->obj);
    return ok && (!r || err_os(e, -r, "cannot allocate the clusters of '%s'", blk_node_filename(file)));
}

static bool co_make_data_file(struct blk_node *file, const struct create *c, struct err *e)
{
    char *path = blk_path_beside(blk_node_filename(file), c->data_file);
    bool ok = blk_create_file(path, c->size, c->force, e);
    free(path);
    return ok;
}

bool co_q2_create(struct blk_node *file, json_t *opts, struct err *e)
{
    struct create c = { 0 };
    prop_defaults(q2_create_props, &c);
    bool ok = prop_set_all(q2_create_props, &c, NULL, opts, "qcow2 images", e) && check(&c, e) &&
              (!c.data_file || c.data_exists || co_make_data_file(file, &c, e));
    if (ok) {
        struct qcow2 *s = blank(file, &c);
        int r = co_write_empty(s, &c);
        free(s);
        ok = !r || (r == -ENAMETOOLONG ? err_set(e, ERR_VALUE, "header and backing file name need more than a cluster of %llu bytes",
                                          (unsigned long long)c.cluster_size)
                                : err_os(e, -r, "cannot write '%s'", blk_node_filename(file)));
    }
    if (c.data_file_raw && !c.preallocation)    /* what is in the file is what is read, from the beginning */
        c.preallocation = BLK_PREALLOC_METADATA;
    if (ok && (c.preallocation || c.encrypt))
        ok = co_open_and_finish(file, &c, e);
    prop_release(q2_create_props, &c);
    return ok;
}

/* ---- measuring ---- */

/* Metadata of a fully allocated image: header, L1, L2, refcount table and blocks, all in whole clusters. */
static uint64_t metadata(uint64_t size, uint64_t cs, uint64_t entry, unsigned refbits)
{
    uint64_t clusters = align_up(size, cs) / cs, l2 = align_up(clusters, cs / entry) * entry, l1 = align_up(l2 / cs * 8, cs);
    uint64_t meta = cs + l2 + l1, used = meta / cs + clusters, blocks = 0, table = 0, n = 0, last;
    do {
        last = n;
        blocks = (used + table + blocks + cs * 8 / refbits - 1) / (cs * 8 / refbits);
        table = (blocks + cs / 8 - 1) / (cs / 8);
        n = used + blocks + table;
    } while (n != last);
    return meta + (blocks + table) * cs;
}

bool q2_measure(json_t *opts, struct blk_measure *m, struct err *e)
{
    struct create c = { 0 };
    uint64_t luks = 0;
    prop_defaults(q2_create_props, &c);
    bool ok = prop_set_all(q2_create_props, &c, NULL, opts, "qcow2 images", e) && check(&c, e) &&
              (!c.encrypt || luks_measure(&c.luks, &luks, e));
    uint64_t data = ok ? align_up(c.size, c.cluster_size) : 0;
    m->unit = c.cluster_size;
    m->overhead = metadata(c.size, c.cluster_size, c.extended_l2 ? 16 : 8, c.refcount_bits) + align_up(luks, c.cluster_size);
    m->full = m->overhead + data;
    m->whole = c.preallocation >= BLK_PREALLOC_FALLOC;
    prop_release(q2_create_props, &c);
    return ok;
}
