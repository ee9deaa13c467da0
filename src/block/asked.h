/* SPDX-License-Identifier: MIT */
/* What drivers know of a peer's silence, for their `abandon`. Home loop. */
#ifndef BLOCK_ASKED_H
#define BLOCK_ASKED_H

#include <stdbool.h>
#include "loop/loop.h"

struct blk_asked {
    unsigned n;                     /* requests that wait */
    int64_t heard;                  /* CLOCK_HOST: when an answer came last, or the first of them began to wait */
};

static inline void blk_heard(struct blk_asked *a) { a->heard = clock_now(CLOCK_HOST); }

static inline void blk_ask(struct blk_asked *a)
{
    if (!a->n++)
        blk_heard(a);
}

static inline void blk_answered(struct blk_asked *a)
{
    a->n--;
    blk_heard(a);
}

/* Some wait, and nothing came since @since. */
static inline bool blk_asked_in_vain(const struct blk_asked *a, int64_t since) { return a->n && a->heard <= since; }

#endif
