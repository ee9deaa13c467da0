/* SPDX-License-Identifier: MIT */
/*
 * "preallocate": a file that an image makes longer bit by bit gets its space in large steps instead, which keeps it together on the disk.
 * The node has the size that was written; what the file has beyond goes when the node is closed.
 */
#include <errno.h>
#include "base/log.h"
#include "block/filter.h"

struct blk_preallocate { struct blk_node node; json_t *file; uint64_t align, size; };
static struct blk_preallocate *of(struct blk_node *n) { return (struct blk_preallocate *)n; }

static bool co_open(struct blk_node *n, struct err *e) { return co_filter_open(n, of(n)->file, e); }

/* Gives back what is left over. Not where somebody else may use the file by now. */
static int co_trim(struct blk_node *n)
{
    struct blk_node *c = n->child.node;
    return c && !c->caps.read_only && atomic_load(&c->size) > atomic_load(&n->size) ? co_node_resize(c, atomic_load(&n->size)) : 0;
}

static void co_close(struct blk_node *n)
{
    int r = co_trim(n);
    if (r)
        log_warn("%s keeps space that was allocated ahead", blk_node_filename(n));
    co_filter_close(n);
}

/* Room up to @end at least; 0 also where there is none: the write itself finds out. */
static void co_make_room(struct blk_node *n, uint64_t end)
{
    struct blk_preallocate *s = of(n);
    uint64_t have = atomic_load(&n->child.node->size);
    if (end <= have || end > INT64_MAX / 2)
        return;
    uint64_t to = align_up(end + s->size, s->align);
    co_node_zero(n->child.node, have, to - have, BLK_GROW | BLK_ZERO_NO_FALLBACK);
}

static void grow(struct blk_node *n, uint64_t end)
{
    uint64_t size = atomic_load(&n->size);
    while (end > size && !atomic_compare_exchange_weak(&n->size, &size, end))
        ;
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    if (flags & BLK_GROW)
        co_make_room(n, off + len);
    int r = co_node_pwritev(n->child.node, off, len, iov, niov, flags);
    if (!r && flags & BLK_GROW)
        grow(n, align_up(off + len, 512));
    return r;
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = co_node_zero(n->child.node, off, len, flags);
    if (!r && flags & BLK_GROW)
        grow(n, align_up(off + len, 512));
    return r;
}

static int co_resize(struct blk_node *n, uint64_t size)
{
    int r = co_node_resize(n->child.node, size);
    if (!r)
        atomic_store(&n->size, align_up(size, 512));
    return r;
}

static const struct prop props[] = {
    PROP_JSON(struct blk_preallocate, file, "file", PF_REQUIRED, "Node below, a file"),
    { .name = "prealloc-align", .doc = "The file's end is at a multiple of this", .type = PROP_T_SIZE, .flags = PF_POW2,
      PROP_OFF(struct blk_preallocate, align), .def = MiB, .min = 512, .max = GiB },
    PROP_SIZE(struct blk_preallocate, size, "prealloc-size", 128 * MiB, 0, 64 * GiB, "How much is allocated ahead"),
    PROP_END,
};
static const struct blk_driver preallocate_driver = {
    .obj = { .name = "blockdev-preallocate", .desc = "A file that grows gets its space in large steps", .base = &blk_node_class,
             .size = sizeof(struct blk_preallocate), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_close, .co_preadv = co_filter_read, .co_pwritev = co_write,
    .co_zero = co_zero, .co_discard = co_filter_discard, .co_flush = co_filter_flush, .co_resize = co_resize,
    .co_map = co_filter_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&preallocate_driver.obj);
