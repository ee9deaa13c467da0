/* SPDX-License-Identifier: MIT */
#include "block/dirty.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"

static uint64_t words(uint64_t bits) { return (bits + 63) / 64; }

bool dirty_init(struct dirty_map *m, uint64_t size, uint64_t granularity)
{
    unsigned shift = (unsigned)__builtin_ctzll(granularity);
    uint64_t bits = (size >> shift) + (size & (granularity - 1) ? 1 : 0);
    *m = (struct dirty_map){ .size = size, .shift = shift, .bits = bits, .w = calloc(MAX(words(bits), (uint64_t)1), 8) };
    return m->w;
}

void dirty_free(struct dirty_map *m)
{
    free(m->w);
    m->w = NULL;
}

/* Bits [a, b) become @on. */
static void set_bits(struct dirty_map *m, uint64_t a, uint64_t b, bool on)
{
    while (a < b) {
        unsigned at = (unsigned)(a & 63), n = (unsigned)MIN(b - a, (uint64_t)(64 - at));
        uint64_t mask = (n == 64 ? UINT64_MAX : BIT64(n) - 1) << at, *w = &m->w[a / 64];
        uint64_t change = on ? mask & ~*w : mask & *w;
        *w ^= change;
        m->count += on ? (uint64_t)__builtin_popcountll(change) : -(uint64_t)__builtin_popcountll(change);
        a += n;
    }
}

bool dirty_resize(struct dirty_map *m, uint64_t size)
{
    struct dirty_map n;
    if (!dirty_init(&n, size, dirty_granularity(m)))
        return false;
    uint64_t both = MIN(n.bits, m->bits);
    if (both < m->bits)
        set_bits(m, both, m->bits, false);
    if (m->count)                   /* memory that nothing is in stays untouched */
        memcpy(n.w, m->w, words(both) * 8);
    n.count = m->count;
    dirty_free(m);
    *m = n;
    return true;
}

void dirty_set(struct dirty_map *m, uint64_t off, uint64_t len)
{
    if (len && off < m->size)
        set_bits(m, off >> m->shift, ((MIN(off + len, m->size) - 1) >> m->shift) + 1, true);
}

void dirty_clear(struct dirty_map *m, uint64_t off, uint64_t len)
{
    uint64_t g = dirty_granularity(m), end = MIN(off + len, m->size);
    uint64_t a = (off + g - 1) >> m->shift, b = (end + g - 1) >> m->shift;
    if (a < b)
        set_bits(m, a, b, false);
}

bool dirty_get(const struct dirty_map *m, uint64_t off)
{
    uint64_t i = off >> m->shift;
    return i < m->bits && m->w[i / 64] >> (i & 63) & 1;
}

static uint64_t next(const struct dirty_map *m, uint64_t off, uint64_t flip)
{
    uint64_t i = off >> m->shift;
    if (i >= m->bits)
        return UINT64_MAX;
    uint64_t w = (m->w[i / 64] ^ flip) & UINT64_MAX << (i & 63);
    for (uint64_t k = i / 64;;) {
        if (w) {
            uint64_t hit = k * 64 + (uint64_t)__builtin_ctzll(w);
            return hit < m->bits ? MAX(hit << m->shift, off) : UINT64_MAX;
        }
        if (++k >= words(m->bits))
            return UINT64_MAX;
        w = m->w[k] ^ flip;
    }
}

uint64_t dirty_next(const struct dirty_map *m, uint64_t off) { return m->count ? next(m, off, 0) : UINT64_MAX; }
uint64_t dirty_next_clear(const struct dirty_map *m, uint64_t off) { return next(m, off, UINT64_MAX); }

void dirty_merge(struct dirty_map *m, const struct dirty_map *from)
{
    for (uint64_t at = dirty_next(from, 0), end; at != UINT64_MAX; at = dirty_next(from, end)) {
        end = MIN(dirty_next_clear(from, at), from->size);
        dirty_set(m, at, end - at);
        if (end >= from->size)
            return;
    }
}

void dirty_count_in(struct dirty_map *m, uint64_t byte, uint64_t len)
{
    uint64_t end = (byte + len + 7) / 8;
    if (m->bits & 63 && end == words(m->bits))
        m->w[m->bits / 64] &= BIT64(m->bits & 63) - 1;
    for (uint64_t i = byte / 8; i < end; i++)
        m->count += (uint64_t)__builtin_popcountll(m->w[i]);
}
