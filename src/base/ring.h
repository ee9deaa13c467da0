/* SPDX-License-Identifier: MIT */
/* A byte ring of a power-of-two size with free-running indices. Thread: the owner's lock. */
#ifndef BASE_RING_H
#define BASE_RING_H

#include "base/bits.h"
#include <stdlib.h>
#include "base/str.h"

struct ring { uint8_t *buf; uint32_t cap, head, tail; };    /* head: written so far; tail: read so far */

static inline void ring_init(struct ring *r, uint32_t cap)
{
    *r = (struct ring){ .buf = xcalloc(1, cap), .cap = cap };
}
static inline void ring_free(struct ring *r) { free(r->buf); r->buf = NULL; }
static inline uint32_t ring_used(const struct ring *r) { return r->head - r->tail; }
static inline uint32_t ring_room(const struct ring *r) { return r->cap - ring_used(r); }
/* The first unbroken run of bytes. */
static inline uint32_t ring_peek(const struct ring *r, const uint8_t **p)
{
    uint32_t at = r->tail & (r->cap - 1);
    *p = r->buf + at;
    return MIN(ring_used(r), r->cap - at);
}
static inline void ring_skip(struct ring *r, uint32_t n) { r->tail += n; }
/* Copies in what fits; returns how much that was. */
static inline uint32_t ring_put(struct ring *r, const void *data, size_t n)
{
    uint32_t at = r->head & (r->cap - 1), len = (uint32_t)MIN(n, (size_t)ring_room(r)), first = MIN(len, r->cap - at);
    memcpy(r->buf + at, data, first);
    memcpy(r->buf, (const uint8_t *)data + first, len - first);
    r->head += len;
    return len;
}
static inline uint32_t ring_get(struct ring *r, void *data, size_t n)
{
    uint32_t done = 0;
    while (done < n && ring_used(r)) {
        const uint8_t *p;
        uint32_t k = (uint32_t)MIN(n - done, (size_t)ring_peek(r, &p));
        memcpy((uint8_t *)data + done, p, k);
        ring_skip(r, k);
        done += k;
    }
    return done;
}

#endif
