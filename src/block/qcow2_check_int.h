/* SPDX-License-Identifier: MIT */
/* Between qcow2_check.c and qcow2_repair.c. */
#ifndef BLOCK_QCOW2_CHECK_INT_H
#define BLOCK_QCOW2_CHECK_INT_H

#include "block/qcow2_int.h"

struct q2_chk {
    struct qcow2 *s;
    struct blk_check *res;
    uint32_t *want;                 /* references by cluster */
    uint64_t n, next_host;          /* clusters of the file; where the next data cluster would be in order */
    uint8_t *buf;                   /* a cluster */
    bool rebuild, missing;          /* the refcount structure itself is broken; a block is missing */
    bool unsure;                    /* some tables lead nowhere: there may be more references than were counted */
};

/* The cluster at @off was counted, and has one user. */
static inline bool q2_chk_alone(const struct q2_chk *c, uint64_t off)
{
    uint64_t k = off >> c->s->cluster_bits;
    return !c->s->has_data_file && k < c->n && c->want[k] == 1;
}
/* Whether guest data can be at @host of the data file: a last cluster may lie beyond its end in part. */
static inline bool q2_chk_in_data(const struct qcow2 *s, uint64_t host, uint64_t guest)
{
    return s->raw_data ? host == guest : host < atomic_load(&q2_data(s)->size) + s->cluster_size;
}
void q2_chk_say(struct q2_chk *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Counts every reference into ->want, which is zero before. */
int co_q2_count_all(struct q2_chk *c);
/* Makes entries valid that are not, by what ->want tells; it is to be counted again then. */
int co_q2_mend(struct q2_chk *c);
/* Repairs what ->want and ->res tell. */
int co_q2_repair(struct q2_chk *c, unsigned fix);

#endif
