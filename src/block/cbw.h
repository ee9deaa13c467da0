/* SPDX-License-Identifier: MIT */
/*
 * Copy before write: a target keeps what a source held at one moment, since what is overwritten is copied there first. The backup
 * job and the "copy-before-write" filter stand on it. Coroutines on the main loop.
 */
#ifndef BLOCK_CBW_H
#define BLOCK_CBW_H

#include "block/dirty.h"
#include "block/job.h"

struct cbw {
    struct blk_node *src, *dst;
    struct dirty_map todo;          /* granules that belong to the target and are not there yet */
    struct dirty_map kept;          /* what the target is to show; everything else cannot be read there */
    struct list ops;                /* being copied */
    struct list reads;              /* of the source, for who wants to see the target: changes there wait */
    bool compress;
    bool zeroes_there;              /* the target reads as zeroes where nothing was written: zeroes need no copy */
    bool failed;                    /* a copy could not be made: the target is not what it should be */
    uint64_t copied;                /* bytes */
};

/* The map is empty. -ENOMEM. */
int cbw_init(struct cbw *c, struct blk_node *src, struct blk_node *dst);
void cbw_free(struct cbw *c);
/* Before [off, off + len) is overwritten: what is to do there is done, or an error, and then it is still to do. */
int co_cbw(struct cbw *c, uint64_t off, uint64_t len);
/* Everything that is to do now is what the target is to show (struct cbw's ->kept). -ENOMEM. */
int cbw_keep(struct cbw *c);
/* What the target shows when all is done: from there, or from the source what has not changed yet. -EACCES outside ->kept. */
int co_cbw_read(struct cbw *c, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov);
int co_cbw_map(struct cbw *c, uint64_t off, uint64_t len, struct blk_extent *out);
/* Bytes that are copied at once, at most: a granule or more. */
uint64_t cbw_chunk(const struct cbw *c);
/* The next piece from *@cursor on, @buf of cbw_chunk() bytes; *@len 0: there is none. @j: its speed limit holds. */
int co_cbw_next(struct cbw *c, struct job *j, uint64_t *cursor, uint64_t *len, void *buf, bool *is_read);

#endif
