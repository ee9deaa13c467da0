/* SPDX-License-Identifier: MIT */
/* "raw": another node as it is, or a window of it. */
#include <errno.h>
#include "block/driver.h"

struct blk_raw { struct blk_node node; json_t *file; uint64_t offset, size; };

static uint64_t at(const struct blk_node *n, uint64_t off) { return off + ((const struct blk_raw *)n)->offset; }

static bool raw_open(struct blk_node *n, struct err *e)
{
    struct blk_raw *s = (struct blk_raw *)n;
    if (!blk_child_open(n, s->file, 0, BLK_PERM_ALL, e))
        return false;
    uint64_t below = atomic_load(&n->child.node->size);
    blk_caps_inherit(n, n->child.node);
    if (s->offset > below || s->size > below - s->offset)
        return err_set(e, ERR_VALUE, "offset %llu and size %llu reach beyond the end of '%s' (%llu bytes)", (unsigned long long)s->offset,
                       (unsigned long long)s->size, blk_node_filename(n), (unsigned long long)below);
    if (s->offset % n->caps.logical_block || s->size % n->caps.logical_block)
        return err_set(e, ERR_VALUE, "offset and size must be multiples of %u bytes", n->caps.logical_block);
    atomic_store(&n->size, s->size ? s->size : below - s->offset);
    n->caps.scsi = s->size || s->offset ? 0 : n->child.node->caps.scsi;     /* a window would not bound commands */
    n->caps.secure_erase = n->child.node->caps.secure_erase && !n->caps.read_only;
    return true;
}

static void raw_close(struct blk_node *n) { blk_child_close(n); }

static int raw_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_node_preadv(n->child.node, at(n, off), len, iov, niov, flags);
}
static int raw_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_node_pwritev(n->child.node, at(n, off), len, iov, niov, flags);
}
static int raw_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    return co_node_zero(n->child.node, at(n, off), len, flags);
}
static int raw_discard(struct blk_node *n, uint64_t off, uint64_t len) { return co_node_discard(n->child.node, at(n, off), len); }
static int raw_erase(struct blk_node *n, uint64_t off, uint64_t len) { return co_node_erase(n->child.node, at(n, off), len); }
static int raw_scsi(struct blk_node *n, struct blk_scsi *c) { return co_node_scsi(n->child.node, c); }
static int raw_flush(struct blk_node *n) { return co_node_flush(n->child.node); }
static int raw_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    return co_node_map(n->child.node, at(n, off), len, out);
}

static int raw_resize(struct blk_node *n, uint64_t size)
{
    struct blk_raw *s = (struct blk_raw *)n;
    if (s->size || s->offset)
        return -ENOTSUP;        /* a window stays where it is */
    int r = co_node_resize(n->child.node, size);
    if (!r)
        atomic_store(&n->size, atomic_load(&n->child.node->size));
    return r;
}

int co_node_preallocate(struct blk_node *n, uint64_t from, enum blk_prealloc how)
{
    static const uint8_t zeroes[65536];
    uint64_t end = atomic_load(&n->size);
    int r = how == BLK_PREALLOC_METADATA ? -ENOTSUP : how == BLK_PREALLOC_FALLOC ? co_node_zero(n, from, end - from, 0) : 0;
    for (uint64_t at = from; how == BLK_PREALLOC_FULL && at < end && !r;) {
        struct iovec v = { (void *)zeroes, MIN(end - at, (uint64_t)sizeof zeroes) };
        r = co_node_pwritev(n, at, v.iov_len, &v, 1, 0);
        at += v.iov_len;
    }
    return r;
}

/* ---- creation ---- */

struct create { uint64_t size; int preallocation; };
static const struct prop create_props[] = {
    PROP_SIZE(struct create, size, "size", 0, 0, INT64_MAX - 4096, "Size of the disk"),
    PROP_ENUM(struct create, preallocation, "preallocation", blk_prealloc_names, 0, "What is allocated at once: off, falloc or full"),
    PROP_END,
};

static bool co_raw_create(struct blk_node *file, json_t *opts, struct err *e)
{
    struct create c = { 0 };
    prop_defaults(create_props, &c);
    if (!prop_set_all(create_props, &c, NULL, opts, "raw images", e))
        return false;
    if (c.preallocation == BLK_PREALLOC_METADATA)
        return err_set(e, ERR_VALUE, "preallocation=metadata: raw images have none; falloc or full");
    if (!file->caps.grows && c.size > atomic_load(&file->size))
        return err_set(e, ERR_VALUE, "'%s' has %llu bytes, fewer than %llu", blk_node_filename(file), (unsigned long long)atomic_load(&file->size),
                       (unsigned long long)c.size);
    int r = file->caps.grows ? co_node_resize(file, c.size) : 0;
    r = r || !c.preallocation ? r : co_node_preallocate(file, 0, (enum blk_prealloc)c.preallocation);
    return !r || err_os(e, -r, "cannot make '%s' %llu bytes long", blk_node_filename(file), (unsigned long long)c.size);
}

static bool raw_measure(json_t *opts, struct blk_measure *m, struct err *e)
{
    struct create c = { 0 };
    prop_defaults(create_props, &c);
    bool ok = prop_set_all(create_props, &c, NULL, opts, "raw images", e);
    *m = (struct blk_measure){ .full = align_up(c.size, 512), .unit = 512, .whole = true };
    return ok;
}

static bool co_raw_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    uint64_t size = atomic_load(&n->size);
    uint32_t scsi = n->caps.scsi;
    blk_caps_inherit(n, n->child.node);
    n->caps.scsi = scsi;
    n->caps.secure_erase = n->child.node->caps.secure_erase && !n->caps.read_only;
    atomic_store(&n->size, size);       /* a window stays one */
    return true;
}

static const struct prop raw_props[] = {
    PROP_JSON(struct blk_raw, file, "file", PF_REQUIRED, "Node below: its name, or its options (file.driver=..., file.filename=...)"),
    PROP_SIZE(struct blk_raw, offset, "offset", 0, 0, INT64_MAX, "Where in the node below it begins"),
    PROP_SIZE(struct blk_raw, size, "size", 0, 0, INT64_MAX, "How long it is; 0: to the end"),
    PROP_END,
};

static const struct blk_driver raw_driver = {
    .obj = { .name = "blockdev-raw", .desc = "Bytes as they are, no format", .base = &blk_node_class, .size = sizeof(struct blk_raw),
             .props = raw_props },
    .flags = BLK_ANY_LOOP | BLK_FORMAT, .co_open = raw_open, .co_close = raw_close, .co_preadv = raw_read, .co_pwritev = raw_write,
    .co_zero = raw_zero, .co_discard = raw_discard, .co_flush = raw_flush, .co_resize = raw_resize, .co_map = raw_map, .co_scsi = raw_scsi,
    .co_erase = raw_erase, .co_preallocate = co_node_preallocate, .co_create = co_raw_create, .create_props = create_props,
    .measure = raw_measure, .set_perm = blk_pass_perm, .co_set_writable = co_raw_set_writable,
};
OBJ_CLASS(&raw_driver.obj);
