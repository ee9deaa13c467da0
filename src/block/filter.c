/* SPDX-License-Identifier: MIT */
#include "block/filter.h"

static void follow_size(struct blk_node *n) { atomic_store(&n->size, atomic_load(&n->child.node->size)); }

bool co_filter_open(struct blk_node *n, json_t *file, struct err *e)
{
    if (!blk_child_open(n, file, 0, BLK_PERM_ALL, e))
        return false;
    blk_caps_inherit(n, n->child.node);
    n->read_only |= n->child.node->caps.read_only;
    n->caps.grows = n->child.node->caps.grows;
    return true;
}

void co_filter_close(struct blk_node *n) { blk_child_close(n); }

int co_filter_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_node_preadv(n->child.node, off, len, iov, niov, flags);
}

int co_filter_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_node_pwritev(n->child.node, off, len, iov, niov, flags);
    follow_size(n);
    return r;
}

int co_filter_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = co_node_zero(n->child.node, off, len, flags);
    follow_size(n);
    return r;
}

int co_filter_discard(struct blk_node *n, uint64_t off, uint64_t len) { return co_node_discard(n->child.node, off, len); }
int co_filter_flush(struct blk_node *n) { return co_node_flush(n->child.node); }

int co_filter_resize(struct blk_node *n, uint64_t size)
{
    int r = co_node_resize(n->child.node, size);
    follow_size(n);
    return r;
}

int co_filter_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out) { return co_node_map(n->child.node, off, len, out); }

int co_filter_map_read(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out, uint64_t from, uint64_t to)
{
    if (from >= to || !ranges_overlap(off, len, from, to - from))
        return co_filter_map(n, off, len, out);
    if (off < from)
        return co_filter_map(n, off, from - off, out);
    int r = co_filter_map(n, off, MIN(len, to - off), out);
    out->zero = false;
    out->data = true;
    return r;
}
