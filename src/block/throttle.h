/* SPDX-License-Identifier: MIT */
/* Limits of requests and bytes a second, shared by the members of a group. Any thread. */
#ifndef BLOCK_THROTTLE_H
#define BLOCK_THROTTLE_H

#include <pthread.h>
#include "core/obj.h"
#include "core/prop.h"

/* One limit: a rate, and how much may come at once. */
struct throttle_limit { uint64_t rate, max, max_length; int64_t next; };
enum { TH_BPS, TH_BPS_RD, TH_BPS_WR, TH_IOPS, TH_IOPS_RD, TH_IOPS_WR, TH_LIMITS };

struct throttle { pthread_mutex_t lock; atomic_uint changes; struct throttle_limit lim[TH_LIMITS]; uint64_t iops_size; };

/* Options x-bps-total, x-bps-read ... of throttle-group; PROP_INCLUDE(T, field, throttle_props). */
extern const struct prop throttle_props[];
extern const struct obj_class throttle_group_class;

struct throttle *throttle_of_group(struct obj *group);
bool throttle_check(const struct throttle *t, struct err *e) MUST_CHECK;
/* Takes over other limits; what was owed is forgotten. */
void throttle_set(struct throttle *t, const struct throttle *limits);
/* The same for a throttle-group. Main loop. */
void throttle_group_set(struct obj *group, const struct throttle *limits);
/* Books a request of @bytes; it may begin at the returned time (CLOCK_HOST), in the past if at once. */
int64_t throttle_book(struct throttle *t, bool write, uint64_t bytes);
/* The same, and waits, but no longer once *@hurried (NULL: never). Coroutine. */
void co_throttle(struct throttle *t, const atomic_bool *hurried, bool write, uint64_t bytes);

#endif
