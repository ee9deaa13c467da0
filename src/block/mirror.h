/* SPDX-License-Identifier: MIT */
/* A mirror keeps another node in step with one that is written, until its users move there. */
#ifndef BLOCK_MIRROR_H
#define BLOCK_MIRROR_H

#include "block/job.h"

enum mirror_sync { SYNC_FULL, SYNC_TOP, SYNC_NONE };

struct mirror_opts {
    enum mirror_sync sync;
    enum blk_on_error on_source_error, on_target_error;
    uint64_t granularity;           /* 0: chosen */
    bool unmap, write_blocking;
    bool target_is_zero;            /* it reads as zeroes where nothing is written */
    const char *replaces;           /* the node whose users move; NULL: the source */
};

/* Starts the job that mirrors @src to @dst. Coroutine on the main loop. */
bool co_mirror_start(const struct job_opts *o, const struct mirror_opts *m, struct blk_node *src, struct blk_node *dst, struct err *e) MUST_CHECK;
/* Starts the one that moves the active image @top down into @base. */
bool co_commit_active(const struct job_opts *o, struct blk_node *top, struct blk_node *base, enum blk_on_error on_error, struct err *e) MUST_CHECK;

/* An image that a job's command creates (or, @existing, finds) and opens. */
struct blk_target {
    const char *file, *format, *node_name;
    bool existing, direct, discard, snapshot;       /* snapshot: it is for the name only */
    uint64_t size;
    struct blk_node *backing;       /* what the new image is to name; NULL: none */
};
/* It goes when its last user does. NULL with @e filled. Main loop or coroutine on it. */
struct blk_node *blk_target_open(const struct blk_target *t, struct err *e) MUST_CHECK;
/*
 * The same for an action of a transaction, in two steps: @a->top is opened while requests go on, and is ready once they are held back. By
 * then an action before this one may have put another image in the place of @t->backing: that is the one to be named. One of
 * the last two is due after the first. Coroutines on the main loop.
 */
struct txn_act;
bool co_target_open(struct txn_act *a, const struct blk_target *t, struct err *e) MUST_CHECK;
bool co_target_ready(struct txn_act *a, const struct blk_target *t, struct err *e) MUST_CHECK;
void co_target_forget(struct txn_act *a);
/* @used: it stays. Returns that. */
bool co_target_done(struct txn_act *a, bool used);

#endif
