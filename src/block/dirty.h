/* SPDX-License-Identifier: MIT */
/* A map of what changed: a bit for each granule. Whoever owns it sees to it that one thread uses it at a time. */
#ifndef BLOCK_DIRTY_H
#define BLOCK_DIRTY_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

struct dirty_map {
    uint64_t size;                  /* bytes */
    unsigned shift;                 /* log2 of a granule's bytes */
    uint64_t bits;                  /* how many there are */
    uint64_t count;                 /* how many are set */
    uint64_t *w;
};

/* All clear. @granularity is a power of two. False: no memory. */
bool dirty_init(struct dirty_map *m, uint64_t size, uint64_t granularity) MUST_CHECK;
void dirty_free(struct dirty_map *m);
/* Keeps what is in both sizes. */
bool dirty_resize(struct dirty_map *m, uint64_t size) MUST_CHECK;
/* Every granule that [off, off + len) touches. */
void dirty_set(struct dirty_map *m, uint64_t off, uint64_t len);
/* Every granule that begins in [off, off + len). */
void dirty_clear(struct dirty_map *m, uint64_t off, uint64_t len);
bool dirty_get(const struct dirty_map *m, uint64_t off);
/* The first set (clear) granule at or behind the one of @off; UINT64_MAX: none. Bytes. */
uint64_t dirty_next(const struct dirty_map *m, uint64_t off);
uint64_t dirty_next_clear(const struct dirty_map *m, uint64_t off);
/* After bits were put in from elsewhere where all were clear, in @len bytes of the map from @byte (of a word) on: those behind the end are cleared, the others counted. */
void dirty_count_in(struct dirty_map *m, uint64_t byte, uint64_t len);
/* What is set in @from becomes set in @m, whatever their granules. */
void dirty_merge(struct dirty_map *m, const struct dirty_map *from);
static inline uint64_t dirty_granularity(const struct dirty_map *m) { return UINT64_C(1) << m->shift; }
static inline uint64_t dirty_bytes(const struct dirty_map *m) { return m->count << m->shift; }

#endif
