/* SPDX-License-Identifier: MIT */
/* "luks": an encrypted image, LUKS version 1. */
#include <errno.h>
#include <stdlib.h>
#include "block/luks.h"
#include "core/backend.h"

struct blk_luks { struct blk_node node; json_t *file; char *key_secret; bool header_only; struct luks l; };
static struct blk_luks *of(struct blk_node *n) { return (struct blk_luks *)n; }
static uint64_t base(const struct blk_node *n) { return (uint64_t)((const struct blk_luks *)n)->l.payload * 512; }

/* ---- the header is at the beginning of the file ---- */

static int co_io_read(void *arg, uint64_t off, void *buf, uint64_t len)
{
    struct iovec v = { buf, len };
    return co_node_preadv(arg, off, len, &v, 1, 0);
}
static int co_io_write(void *arg, uint64_t off, const void *buf, uint64_t len)
{
    struct iovec v = { (void *)buf, len };
    return co_node_pwritev(arg, off, len, &v, 1, BLK_GROW);
}
static int co_io_flush(void *arg) { return co_node_flush(arg); }

static struct luks_io io_of(struct blk_node *file)
{
    return (struct luks_io){ co_io_read, co_io_write, co_io_flush, file, blk_node_filename(file) };
}

/* ---- life ---- */

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_luks *s = of(n);
    if (!blk_child_open(n, s->file, 0, BLK_PERM_ALL, e))
        return false;
    if (!s->key_secret && !s->header_only) {
        err_set(e, ERR_VALUE, "'key-secret' is missing: '%s' is encrypted", blk_node_filename(n));
        return err_hint(e, "key-secret=ID, of -object secret,id=ID,file=FILE");
    }
    uint64_t size = atomic_load(&n->child.node->size);
    struct luks_io io = io_of(n->child.node);
    blk_caps_inherit(n, n->child.node);
    n->read_only |= n->child.node->caps.read_only;
    n->caps.grows = false;
    n->caps.write_zeroes = false;
    n->caps.discard_granularity = MAX(n->caps.discard_granularity, 512u);
    if (!co_luks_open(&s->l, &io, s->header_only ? NULL : s->key_secret, size, e))
        return false;
    if (base(n) > size)
        return err_set(e, ERR_VALUE, "'%s' ends before its data begins", blk_node_filename(n));
    atomic_store(&n->size, size - base(n));
    return true;
}

static void co_close(struct blk_node *n)
{
    luks_close(&of(n)->l);
    blk_child_close(n);
}

/* ---- requests ---- */

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_luks_preadv(&of(n)->l, n->child.node, base(n), base(n) + off, len, iov, niov);
}
static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_luks_pwritev(&of(n)->l, n->child.node, base(n), base(n) + off, len, iov, niov, flags & BLK_FUA);
}
static int co_discard(struct blk_node *n, uint64_t off, uint64_t len) { return co_node_discard(n->child.node, base(n) + off, len); }
static int co_flush(struct blk_node *n) { return co_node_flush(n->child.node); }

static int co_resize(struct blk_node *n, uint64_t size)
{
    int r = size > INT64_MAX - 4096 - base(n) ? -EFBIG : co_node_resize(n->child.node, base(n) + size);
    if (!r)
        atomic_store(&n->size, size);
    return r;
}

/* Zeroes of the file are none of the disk. */
static int co_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    *out = (struct blk_extent){ .len = len, .data = true };
    return 0;
}

/* ---- creating, amending, telling ---- */

struct create { uint64_t size; struct luks_create c; int preallocation; };
static const struct prop create_props[] = {
    PROP_SIZE(struct create, size, "size", 0, 0, INT64_MAX / 2, "Size of the disk"),
    PROP_ENUM(struct create, preallocation, "preallocation", blk_prealloc_names, 0, "What is allocated at once: off (and metadata: the header), falloc or full"),
    LUKS_CREATE_PROPS(struct create, c, ""),
    PROP_END,
};

static bool co_create(struct blk_node *file, json_t *opts, struct err *e)
{
    struct create c = { 0 };
    struct luks *l = xnew(struct luks);
    struct luks_io io = io_of(file);
    prop_defaults(create_props, &c);
    bool ok = prop_set_all(create_props, &c, NULL, opts, "luks images", e) && co_luks_create(l, &io, &c.c, e);
    if (ok) {
        int r = co_node_resize(file, luks_create_size(l) + align_up(c.size, 512));
        r = r || c.preallocation < BLK_PREALLOC_FALLOC ? r : co_node_preallocate(file, luks_create_size(l), (enum blk_prealloc)c.preallocation);
        ok = !r || err_os(e, -r, "cannot set the size of '%s'", blk_node_filename(file));
    }
    luks_close(l);
    free(l);
    prop_release(create_props, &c);
    return ok;
}

static bool measure(json_t *opts, struct blk_measure *m, struct err *e)
{
    struct create c = { 0 };
    prop_defaults(create_props, &c);
    bool ok = prop_set_all(create_props, &c, NULL, opts, "luks images", e) && luks_measure(&c.c, &m->overhead, e);
    m->full = m->overhead + align_up(c.size, 512);
    m->unit = 512;
    m->whole = true;
    prop_release(create_props, &c);
    return ok;
}

struct amend { struct luks_amend a; };
static const struct prop amend_props[] = { LUKS_AMEND_PROPS(struct amend, a, ""), PROP_END };

static bool co_amend(struct blk_node *n, json_t *opts, bool force, struct err *e)
{
    struct amend a = { 0 };
    struct luks_io io = io_of(n->child.node);
    prop_defaults(amend_props, &a);
    bool ok = prop_set_all(amend_props, &a, NULL, opts, "amending luks images", e) && co_luks_amend(&of(n)->l, &io, &a.a, force, e);
    prop_release(amend_props, &a);
    return ok;
}

static json_t *info(const struct blk_node *n)
{
    return json_pack("{s:s, s:o}", "type", "luks", "data", luks_info(&((const struct blk_luks *)n)->l));
}

static const struct prop props[] = {
    PROP_JSON(struct blk_luks, file, "file", PF_REQUIRED, "Node below: its name, or its options (file.driver=..., file.filename=...)"),
    PROP_STR(struct blk_luks, key_secret, "key-secret", 0, "Secret with a password that opens the image"),
    PROP_BOOL(struct blk_luks, header_only, "header-only", false, "For tools: the header is read without a password, data is not"),
    PROP_END,
};
static const struct blk_driver luks_driver = {
    .obj = { .name = "blockdev-luks", .desc = "Encrypted image, LUKS version 1", .base = &blk_node_class, .size = sizeof(struct blk_luks),
             .props = props },
    .flags = BLK_FORMAT | BLK_NEW_IS_RUBBISH, .co_open = co_open, .co_close = co_close, .co_preadv = co_read, .co_pwritev = co_write, .co_discard = co_discard,
    .co_flush = co_flush, .co_resize = co_resize, .co_map = co_map, .set_perm = blk_pass_perm, .co_create = co_create,
    .create_props = create_props, .measure = measure, .co_amend = co_amend, .amend_props = amend_props, .info = info,
};
OBJ_CLASS(&luks_driver.obj);
