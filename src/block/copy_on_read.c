/* SPDX-License-Identifier: MIT */
/* "copy-on-read": what a read finds in a backing file is written into the image on top, so that it is there the next time. */
#include <errno.h>
#include <stdlib.h>
#include "block/blk_int.h"
#include "block/filter.h"

struct blk_cor { struct blk_node node; json_t *file; struct co_mutex copying; };

static struct blk_cor *of(struct blk_node *n) { return (struct blk_cor *)n; }

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_cor *s = of(n);
    if (!blk_child_open(n, s->file, 0, BLK_PERM_ALL, e))
        return false;
    blk_caps_inherit(n, n->child.node);
    if (n->child.node->caps.read_only)
        return err_set(e, ERR_VALUE, "copy-on-read needs a node that can be written; '%s' cannot", n->child.node->obj.id);
    return true;
}
static void co_close(struct blk_node *n) { blk_child_close(n); }

/* Whole clusters around [off, off + len), which lie below. Alone: a write in between must not be undone. */
static int co_copy(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct blk_node *c = n->child.node, *image = blk_skip_filters(c);
    uint64_t cluster = blk_cluster_size(image), unit = cluster ? cluster : 4096;
    uint64_t a = align_down(off, unit), b = MIN(align_up(off + len, unit), atomic_load(&c->size));
    int r = 0;
    while (a < b && !r) {
        struct blk_extent x;
        r = co_node_map_layer(image, a, b - a, &x);
        uint64_t k = r ? 0 : MIN(x.len, (uint64_t)1 << 20);
        if (!r && x.below && image->backing.node) {
            void *buf = malloc(k);
            struct iovec v = { buf, k };
            r = buf ? co_node_preadv(c, a, k, &v, 1, 0) : -ENOMEM;
            blk_tell(c, BLK_EV_COR_WRITE);
            r = r ? r : co_node_pwritev(c, a, k, &v, 1, 0);
            free(buf);
        }
        a += k;
    }
    return r;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_node *c = n->child.node, *image = blk_skip_filters(c);
    bool below = false;
    for (uint64_t at = 0; at < len && !below;) {
        struct blk_extent x;
        if (co_node_map_layer(image, off + at, len - at, &x))
            break;
        below = x.below && image->backing.node;
        at += x.len;
    }
    if (below) {
        co_mutex_lock(&of(n)->copying);
        co_copy(n, off, len);           /* if it fails, the next read tries again */
        co_mutex_unlock(&of(n)->copying);
    }
    return co_node_preadv(c, off, len, iov, niov, flags);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    co_mutex_lock(&of(n)->copying);
    int r = co_node_pwritev(n->child.node, off, len, iov, niov, flags);
    co_mutex_unlock(&of(n)->copying);
    return r;
}
static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    co_mutex_lock(&of(n)->copying);
    int r = co_node_zero(n->child.node, off, len, flags);
    co_mutex_unlock(&of(n)->copying);
    return r;
}
static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    co_mutex_lock(&of(n)->copying);
    int r = co_node_discard(n->child.node, off, len);
    co_mutex_unlock(&of(n)->copying);
    return r;
}

/* What is read is written, too. */
static bool set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    if (perm & BLK_PERM_READ)
        perm |= BLK_PERM_WRITE;
    return blk_pass_perm(n, perm, shared, e);
}

static const struct prop props[] = {
    PROP_JSON(struct blk_cor, file, "file", PF_REQUIRED, "Node below: an image with a backing file"),
    PROP_END,
};
static const struct blk_driver cor_driver = {
    .obj = { .name = "blockdev-copy-on-read", .desc = "What is read from a backing file is kept in the image", .base = &blk_node_class,
             .size = sizeof(struct blk_cor), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_close, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_discard = co_discard, .co_flush = co_filter_flush, .co_resize = co_filter_resize, .co_map = co_filter_map, .set_perm = set_perm,
};
OBJ_CLASS(&cor_driver.obj);
