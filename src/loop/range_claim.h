/* SPDX-License-Identifier: MIT */
/*
 * Ranges that coroutines of any loop work on and keep away from each other's: a claim waits for earlier ones that overlap it, where one
 * of the two is to be alone. So whoever comes first goes first, and what does not overlap runs side by side.
 */
#ifndef LOOP_RANGE_CLAIM_H
#define LOOP_RANGE_CLAIM_H

#include <pthread.h>
#include "base/list.h"
#include "loop/co.h"

struct range_claims {
    pthread_mutex_t lock;               /* a leaf; guards what follows, and the links of the claims */
    struct list held;                   /* of struct range_claim, in the order of coming */
    unsigned n_alone;
};

/* On its coroutine's stack. */
struct range_claim {
    struct list link;
    uint64_t start, len;
    bool alone, waiting;
    struct loop *loop;
    struct post post;                   /* from the one that it waited for */
    struct co_event turn;
};

/* Both: nobody else uses @s. ANY */
void range_claims_init(struct range_claims *s);
void range_claims_fini(struct range_claims *s);
/* Returns when the range is the caller's (@alone), or the caller's and others' that do not want it alone. CO */
void co_range_claim(struct range_claims *s, struct range_claim *c, uint64_t start, uint64_t len, bool alone);
/* Gives it back; never waits. ANY */
void range_release(struct range_claims *s, struct range_claim *c);

#endif
