/* SPDX-License-Identifier: MIT */
/* What creation decided, changed later: the version, the width of refcounts, names of other files, the size, lazy refcounts, key slots. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/bitmap.h"
#include "block/qcow2_int.h"

static const char *const compat_names[] = { "same", "1.1", "v3", "0.10", "v2", NULL };
static const char *const formats[] = { "same", "luks", NULL };

struct amend {
    uint64_t size;
    uint32_t refcount_bits;
    int compat, format;
    enum tri lazy, data_file_raw;
    char *backing_file, *backing_fmt, *data_file;
    struct luks_amend a;
    bool any_luks;
};
const struct prop q2_amend_props[] = {
    PROP_SIZE(struct amend, size, "size", 0, 0, INT64_MAX - 2 * MiB, "Size of the disk; no less than it has"),
    PROP_ENUM(struct amend, compat, "compat", compat_names, 0, "Version of the format: 1.1 (v3), or 0.10 (v2) where the image holds nothing that needs the other"),
    PROP_TRI(struct amend, lazy, "lazy_refcounts", TRI_AUTO, "Other programs may postpone refcount updates"),
    { .name = "refcount_bits", .doc = "Width of a refcount; 0: as it is", .type = PROP_T_U32, PROP_OFF(struct amend, refcount_bits), .min = 0, .max = 64 },
    PROP_STR(struct amend, backing_file, "backing_file", 0, "Name of the backing file, whose contents must be those of the old one; empty: none"),
    PROP_STR(struct amend, backing_fmt, "backing_fmt", 0, "Its format"),
    PROP_STR(struct amend, data_file, "data_file", 0, "Name of the data file, where it was moved to; empty: none is named"),
    PROP_TRI(struct amend, data_file_raw, "data_file_raw", TRI_AUTO, "The data file is a valid raw image at any time; it cannot become one"),
    PROP_ENUM(struct amend, format, "encrypt.format", formats, 0, "How it is encrypted already"),
    LUKS_AMEND_PROPS(struct amend, a, "encrypt."),
    PROP_END,
};

/* Fields that version 2 does not have get the values that it means. Snapshots say their sizes first: the image's own may change then. */
static int co_to_v3(struct qcow2 *s)
{
    int r = 0;
    if (s->nsnaps) {
        co_q2_lock_all(s);
        r = co_q2_snaps_write(s);
        q2_unlock_all(s);
    }
    if (r)
        return r;
    s->version = 3;
    s->header_len = Q2_H_OUR_LEN;
    s->incompat = s->compat = s->autoclear = 0;
    return co_q2_header_write(s);
}

/* Zero clusters are not in version 2: without a backing file those that are not allocated read as zeroes, else zeroes are written. */
static int co_without_zero_clusters(struct qcow2 *s)
{
    enum { PIECE = 1 << 20 };
    struct blk_node *n = &s->node;
    bool below = n->backing.node || s->backing_name;
    uint64_t size = q2_size(s), piece;
    uint8_t *buf = calloc(1, PIECE);
    int r = buf ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < size && !r; at += piece) {
        struct blk_extent x;
        r = co_q2_block_map(n, at, size - at, &x);
        piece = r ? 0 : x.len;
        if (r || !x.zero || x.below)
            continue;
        piece = below ? MIN(x.len, (uint64_t)PIECE) : x.len;
        struct iovec v = { buf, piece };
        r = below ? co_q2_pwritev(n, at, piece, &v, 1, 0) : co_q2_discard(n, at, piece);
    }
    free(buf);
    for (int i = 0; i < 3 && !r && q2_is_dirty(s); i++)
        r = co_q2_sync(s);
    return r;
}

static int co_to_v2(struct qcow2 *s)
{
    s->discard_no_unref = false;            /* it keeps clusters that read as zeroes, which version 2 has none of */
    int r = co_without_zero_clusters(s);
    if (r)
        return r;
    s->version = 2;
    s->header_len = Q2_H_V2_LEN;
    s->incompat = s->compat = s->autoclear = 0;
    r = co_q2_header_write(s);
    return r ? r : co_q2_barrier(s);
}

static bool becomes_v2(const struct qcow2 *s, const struct amend *a) { return a->compat >= 3 && s->version >= 3; }

static bool check_v2(const struct qcow2 *s, const struct amend *a, struct err *e)
{
    uint32_t bits = a->refcount_bits ? a->refcount_bits : 1u << s->ref_order;
    const char *has = s->has_data_file ? "a data file" : s->extl2 ? "extended L2 entries" : s->compression ? "zstd compression" :
                      s->nsnaps ? "snapshots" : !list_empty(&s->node.bitmaps) ? "bitmaps" : s->luks ? "encryption" :
                      bits != 16 ? "refcount_bits other than 16" : a->lazy == TRI_ON ? "lazy_refcounts" : NULL;
    if (!has)
        return true;
    err_set(e, ERR_VALUE, "compat=0.10: the image has %s", has);
    return err_hint(e, "backplane-img convert -O qcow2 -o compat=0.10 makes another one");
}

static bool check_files(const struct qcow2 *s, const struct amend *a, struct err *e)
{
    if (a->data_file && !s->has_data_file)
        return err_set(e, ERR_VALUE, "data_file: the image has its data within");
    if (a->data_file_raw == TRI_ON && !s->raw_data)
        return err_set(e, ERR_VALUE, "data_file_raw=on: what an image holds already may be elsewhere in its data file");
    if (a->backing_file && *a->backing_file && s->raw_data && a->data_file_raw != TRI_OFF)
        return err_set(e, ERR_VALUE, "backing_file: the image has a raw data file, which is all of it");
    if (a->backing_file && *a->backing_file && !a->backing_fmt && !s->backing_fmt) {
        err_set(e, ERR_VALUE, "the backing file's format is missing");
        return err_hint(e, "backing_fmt=FORMAT");
    }
    if (a->backing_fmt && *a->backing_fmt && !(a->backing_file ? *a->backing_file : s->backing_name != NULL))
        return err_set(e, ERR_VALUE, "backing_fmt without backing_file has no effect");
    return true;
}

static bool check(const struct qcow2 *s, const struct amend *a, struct err *e)
{
    if (becomes_v2(s, a) && !check_v2(s, a, e))
        return false;
    if (a->lazy == TRI_ON && s->version < 3 && (a->compat == 0 || a->compat >= 3))
        return err_set(e, ERR_VALUE, "lazy_refcounts=on needs compat=1.1");
    if (a->refcount_bits & (a->refcount_bits - 1))
        return err_set(e, ERR_VALUE, "refcount_bits is %u, but must be a power of two", a->refcount_bits);
    if (a->refcount_bits && a->refcount_bits != 16 && s->version < 3 && (a->compat == 0 || a->compat >= 3))
        return err_set(e, ERR_VALUE, "refcount_bits other than 16 needs compat=1.1");
    if ((a->any_luks || a->format) && !s->luks)
        return err_set(e, ERR_VALUE, "encrypt.* has no effect: the image is not encrypted");
    if (a->size && a->size < q2_size(s)) {
        err_set(e, ERR_VALUE, "size: the image has %llu bytes already", (unsigned long long)q2_size(s));
        return err_hint(e, "resize --shrink");
    }
    return check_files(s, a, e);
}

/* Fields of the header. */
static int co_set_fields(struct qcow2 *s, const struct amend *a)
{
    const uint64_t compat = s->compat, autoclear = s->autoclear;
    const bool raw_data = s->raw_data;
    char *old = s->data_name;
    if (a->lazy != TRI_AUTO && s->version >= 3)
        s->compat = a->lazy == TRI_ON ? s->compat | Q2_COMPAT_LAZY : s->compat & ~(uint64_t)Q2_COMPAT_LAZY;
    if (a->data_file_raw == TRI_OFF && s->raw_data) {
        s->autoclear &= ~(uint64_t)Q2_AUTOCLEAR_RAW_DATA;
        s->raw_data = false;
    }
    if (a->data_file)
        s->data_name = *a->data_file ? xstrdup(a->data_file) : NULL;
    int r = a->lazy == TRI_AUTO && a->data_file_raw == TRI_AUTO && !a->data_file ? 0 : co_q2_header_write(s);
    if (a->data_file)
        free(r ? s->data_name : old);
    if (r) {                            /* the file does not say so, and is not to when it is written next */
        s->compat = compat;
        s->autoclear = autoclear;
        s->raw_data = raw_data;
        s->data_name = old;
    }
    return r;
}

static int co_name_backing(struct qcow2 *s, const struct amend *a)
{
    const char *name = a->backing_file ? a->backing_file : s->backing_name, *fmt = a->backing_fmt ? a->backing_fmt : s->backing_fmt;
    if (!a->backing_file && !a->backing_fmt)
        return 0;
    char *n = name && *name ? xstrdup(name) : NULL, *f = fmt && *fmt ? xstrdup(fmt) : NULL;
    int r = co_q2_set_backing(&s->node, n, f);
    free(n);
    free(f);
    return r;
}

static bool co_apply(struct qcow2 *s, const struct amend *a, bool force, struct err *e)
{
    struct luks_io io = q2_luks_io(s);
    unsigned order = a->refcount_bits ? ctz64(a->refcount_bits) : s->ref_order;
    int r = 0;
    if ((a->compat == 1 || a->compat == 2) && s->version < 3)
        r = co_to_v3(s);
    if (!r && order != s->ref_order && !co_q2_refcount_width(s, order, e))
        return false;
    r = r ? r : becomes_v2(s, a) ? co_to_v2(s) : 0;
    r = r ? r : co_set_fields(s, a);
    r = r ? r : co_name_backing(s, a);
    if (!r && a->size > q2_size(s))
        r = co_node_resize(&s->node, a->size);
    if (r)
        return err_os(e, -r, "cannot amend '%s'", blk_node_filename(&s->node));
    return !a->any_luks || co_luks_amend(s->luks, &io, &a->a, force, e);
}

bool co_q2_amend(struct blk_node *n, json_t *opts, bool force, struct err *e)
{
    struct qcow2 *s = q2_of(n);
    struct amend a = { 0 };
    const char *key;
    json_t *v;
    prop_defaults(q2_amend_props, &a);
    bool ok = prop_set_all(q2_amend_props, &a, NULL, opts, "amending qcow2 images", e);
    json_object_foreach(opts, key, v)
        a.any_luks |= str_starts(key, "encrypt.") && !str_eq(key, "encrypt.format");
    ok = ok && check(s, &a, e);
    if (ok) {
        co_q2_lock_all(s);
        ok = co_q2_sync(s) == 0 || err_set(e, ERR_GENERIC, "cannot write the tables of '%s'", blk_node_filename(n));
        q2_unlock_all(s);
        ok = ok && co_apply(s, &a, force, e);
    }
    prop_release(q2_amend_props, &a);
    return ok;
}
