/* SPDX-License-Identifier: MIT */
/* "compress": what is written is stored compressed in the image below; a cluster that is written in part is made whole first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/filter.h"

struct blk_compress { struct blk_node node; json_t *file; uint64_t unit; struct co_mutex writing; };
static struct blk_compress *of(struct blk_node *n) { return (struct blk_compress *)n; }

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_compress *s = of(n);
    if (!co_filter_open(n, s->file, e))
        return false;
    const struct blk_driver *d = BLK_DRIVER(n->child.node);
    if (!d->co_write_compressed || !d->cluster_size)
        return err_set(e, ERR_VALUE, "compress: the node below, '%s', cannot store compressed data", n->child.node->obj.id ? n->child.node->obj.id : "");
    s->unit = d->cluster_size(n->child.node);
    n->caps.grows = false;
    return true;
}

/* Part of one cluster, or all of it. */
static int co_write_cluster(struct blk_compress *s, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, uint64_t at, uint8_t *buf)
{
    struct blk_node *c = s->node.child.node;
    uint64_t start = align_down(off, s->unit), all = MIN(s->unit, atomic_load(&c->size) - start);
    struct iovec v = { buf, all };
    int r = off == start && len == all ? 0 : co_node_preadv(c, start, all, &v, 1, 0);
    if (r)
        return r;
    blk_iov_copy(buf + (off - start), iov, niov, at, len, false);
    return co_node_write_compressed(c, start, all, &v, 1);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_compress *s = of(n);
    uint8_t *buf = malloc(s->unit);
    int r = buf ? 0 : -ENOMEM;
    co_mutex_lock(&s->writing);         /* two parts of a cluster must not undo each other */
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t k = MIN(len - at, s->unit - (off + at) % s->unit);
        r = co_write_cluster(s, off + at, k, iov, niov, at, buf);
        at += k;
    }
    co_mutex_unlock(&s->writing);
    free(buf);
    return !r && flags & BLK_FUA ? co_node_flush(n->child.node) : r;
}

static const struct prop props[] = { PROP_JSON(struct blk_compress, file, "file", PF_REQUIRED, "Node below, an image that can store compressed data"), PROP_END };
static const struct blk_driver compress_driver = {
    .obj = { .name = "blockdev-compress", .desc = "What is written is stored compressed in the image below", .base = &blk_node_class,
             .size = sizeof(struct blk_compress), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_filter_close, .co_preadv = co_filter_read, .co_pwritev = co_write,
    .co_zero = co_filter_zero, .co_discard = co_filter_discard, .co_flush = co_filter_flush, .co_resize = co_filter_resize,
    .co_map = co_filter_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&compress_driver.obj);
