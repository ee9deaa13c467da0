/* SPDX-License-Identifier: MIT */
/* What jobs that copy have in common. Coroutines on the main loop. */
#ifndef BLOCK_COPY_H
#define BLOCK_COPY_H

#include "block/job.h"

enum { COPY_CHUNK = 1 << 20, COPY_WORKERS = 8 };

/* A walk over [pos, end) by several workers of a job. */
struct copy_walk {
    struct job *j;
    uint64_t pos, end;
    enum blk_on_error on_error;
    /*
     * Does the piece at @off, at most *@len bytes, which becomes what is done. @buf holds COPY_CHUNK bytes. An error: *@is_read says
     * of what.
     */
    int (*co_piece)(struct copy_walk *w, uint64_t off, uint64_t *len, void *buf, bool *is_read);
    int ret;                        /* the first error that was not tried again */
    bool give_up;
};
/* 0, the first error, or -ECANCELED. */
int co_copy_walk(struct copy_walk *w);

/* [off, off + len) of @src, at most COPY_CHUNK, into @dst under the job's speed limit (@j NULL: none); @zero: it is known to read as zeroes. */
int co_copy_data(struct job *j, struct blk_node *src, struct blk_node *dst, uint64_t off, uint64_t len, bool zero, unsigned flags, void *buf,
                 bool *is_read);

#endif
