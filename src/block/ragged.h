/* SPDX-License-Identifier: MIT */
/* Requests that are no whole blocks of the disk that serves them: read whole, and written with what was around them. */
#ifndef BLOCK_RAGGED_H
#define BLOCK_RAGGED_H

#include "block/driver.h"
#include "loop/range_claim.h"

struct blk_ragged {
    uint32_t block;                 /* a power of two; may change between requests */
    /* Whole blocks. Coroutine; 0 or -errno. */
    int (*co_whole)(struct blk_node *, bool write, uint64_t off, uint64_t len, const struct iovec *, unsigned n, unsigned flags);
    struct range_claims writes;     /* two in one block would undo each other */
};

void blk_ragged_init(struct blk_ragged *g);
void blk_ragged_fini(struct blk_ragged *g);
bool blk_is_ragged(const struct blk_ragged *g, uint64_t off, uint64_t len);
/* A read or write of any offset and length. Coroutine. */
int co_blk_ragged(struct blk_node *n, struct blk_ragged *g, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov,
                  unsigned flags);
/* Zeroes of any offset and length: @co_zero makes whole blocks read so, beside no write of a part of them; at the edges they are written. Coroutine. */
int co_blk_ragged_zero(struct blk_node *n, struct blk_ragged *g, uint64_t off, uint64_t len, unsigned flags,
                       int (*co_zero)(struct blk_node *, uint64_t off, uint64_t len, unsigned flags));

#endif
