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

static bool co_raw_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    uint64_t size = atomic_load(&n->size);
    blk_caps_inherit(n, n->child.node);
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
    .co_zero = raw_zero, .co_discard = raw_discard, .co_flush = raw_flush, .co_resize = raw_resize, .co_map = raw_map,
    .set_perm = blk_pass_perm, .co_set_writable = co_raw_set_writable,
};
OBJ_CLASS(&raw_driver.obj);
