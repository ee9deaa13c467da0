/* SPDX-License-Identifier: MIT */
#include "block/ragged.h"

#include <errno.h>
#include <stdlib.h>

enum { BOUNCE_MAX = 1 << 20 };

void blk_ragged_init(struct blk_ragged *g) { range_claims_init(&g->writes); }
void blk_ragged_fini(struct blk_ragged *g) { range_claims_fini(&g->writes); }
bool blk_is_ragged(const struct blk_ragged *g, uint64_t off, uint64_t len) { return (off | len) & (g->block - 1); }

struct bounce { struct blk_node *n; struct blk_ragged *g; bool write; const struct iovec *iov; unsigned niov, flags; uint8_t *buf; uint32_t block; };

/* One piece, through the buffer. A write fills up its edges from the disk. */
static int co_piece(const struct bounce *b, uint64_t off, uint64_t len, uint64_t at)
{
    uint64_t start = align_down(off, b->block), end = align_up(off + len, b->block);
    struct iovec v = { b->buf, end - start };
    int r = !b->write || start != off || end != off + len ? b->g->co_whole(b->n, false, start, v.iov_len, &v, 1, 0) : 0;
    if (r)
        return r;
    blk_iov_copy(b->buf + (off - start), b->iov, b->niov, at, len, !b->write);
    return b->write ? b->g->co_whole(b->n, true, start, v.iov_len, &v, 1, b->flags) : 0;
}

static int co_bounce(struct bounce *b, uint64_t off, uint64_t len)
{
    int r = 0;
    b->buf = calloc(1, BOUNCE_MAX + 2 * b->block);      /* what a peer says it sent but did not is nobody's memory */
    if (!b->buf)
        return -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t k = MIN(len - at, BOUNCE_MAX - ((off + at) & (b->block - 1)));
        r = co_piece(b, off + at, k, at);
        at += k;
    }
    free(b->buf);
    return r;
}

int co_blk_ragged(struct blk_node *n, struct blk_ragged *g, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov,
                  unsigned flags)
{
    struct bounce b = { n, g, write, iov, niov, flags, NULL, g->block };
    bool ragged = blk_is_ragged(g, off, len);
    uint64_t start = align_down(off, b.block), end = align_up(off + len, b.block);
    struct range_claim c;
    if (!write || b.block == 1)
        return ragged ? co_bounce(&b, off, len) : g->co_whole(n, write, off, len, iov, niov, flags);
    co_range_claim(&g->writes, &c, start, end - start, ragged);
    int r = ragged ? co_bounce(&b, off, len) : g->co_whole(n, write, off, len, iov, niov, flags);
    range_release(&g->writes, &c);
    return r;
}

static int co_zero_edge(struct blk_node *n, struct blk_ragged *g, uint64_t off, uint64_t len, unsigned flags)
{
    struct iovec v = { len ? calloc(1, len) : NULL, len };
    int r = !len ? 0 : v.iov_base ? co_blk_ragged(n, g, true, off, len, &v, 1, n->no_flush ? 0 : flags & BLK_FUA) : -ENOMEM;
    free(v.iov_base);
    return r;
}

int co_blk_ragged_zero(struct blk_node *n, struct blk_ragged *g, uint64_t off, uint64_t len, unsigned flags,
                       int (*co_zero)(struct blk_node *, uint64_t off, uint64_t len, unsigned flags))
{
    uint64_t block = g->block, end = off + len, from = MIN(align_up(off, block), end), to = MAX(from, align_down(end, block));
    struct range_claim c;
    int r = co_zero_edge(n, g, off, from - off, flags);
    r = r ? r : co_zero_edge(n, g, to, end - to, flags);
    if (r || from == to)
        return r;
    if (block > 1)
        co_range_claim(&g->writes, &c, from, to - from, false);
    r = co_zero(n, from, to - from, flags);
    if (block > 1)
        range_release(&g->writes, &c);
    return r;
}
