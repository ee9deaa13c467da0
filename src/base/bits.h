/* SPDX-License-Identifier: MIT */
/* Bits, ranges, endianness, small helpers. Thread: ANY. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <endian.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define BIT64(n) (UINT64_C(1) << (n))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* True if [off, off + len) lies within [0, size); never overflows. The only range test in the tree. */
static inline bool range_ok(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

/* True if [a, a + alen) and [b, b + blen) share a byte; lengths that wrap are the caller's bug. */
static inline bool ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return alen && blen && a <= b + (blen - 1) && b <= a + (alen - 1);
}

static inline bool mem_is_zero(const void *p, size_t n) { return !n || (!*(const char *)p && !memcmp(p, (const char *)p + 1, n - 1)); }
static inline bool is_pow2(uint64_t v) { return v && !(v & (v - 1)); }
static inline uint64_t align_down(uint64_t v, uint64_t a) { return v & ~(a - 1); }
static inline uint64_t align_up(uint64_t v, uint64_t a) { return (v + a - 1) & ~(a - 1); }
static inline unsigned ctz64(uint64_t v) { return v ? (unsigned)__builtin_ctzll(v) : 64; }
static inline unsigned clz64(uint64_t v) { return v ? (unsigned)__builtin_clzll(v) : 64; }
static inline uint64_t mask_of_size(unsigned bytes) { return bytes >= 8 ? ~UINT64_C(0) : BIT64(bytes * 8) - 1; }
static inline uint64_t bits_get(uint64_t v, unsigned lo, unsigned n) { return (v >> lo) & (n >= 64 ? ~UINT64_C(0) : BIT64(n) - 1); }
static inline uint64_t bits_set(uint64_t v, unsigned lo, unsigned n, uint64_t f)
{
    uint64_t m = (n >= 64 ? ~UINT64_C(0) : BIT64(n) - 1) << lo;
    return (v & ~m) | ((f << lo) & m);
}

/* Unaligned loads and stores of a stated byte order. */
#define BASE_LDST(bits)                                                                                       \
    static inline uint##bits##_t ld_le##bits(const void *p) { uint##bits##_t v; memcpy(&v, p, sizeof v); return le##bits##toh(v); } \
    static inline uint##bits##_t ld_be##bits(const void *p) { uint##bits##_t v; memcpy(&v, p, sizeof v); return be##bits##toh(v); } \
    static inline void st_le##bits(void *p, uint##bits##_t v) { v = htole##bits(v); memcpy(p, &v, sizeof v); } \
    static inline void st_be##bits(void *p, uint##bits##_t v) { v = htobe##bits(v); memcpy(p, &v, sizeof v); }
BASE_LDST(16)
BASE_LDST(32)
BASE_LDST(64)
#undef BASE_LDST

/* A little-endian integer of 1 to 8 bytes. */
static inline uint64_t ld_le(const void *p, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, p, size <= 8 ? size : 8);
    return le64toh(v);
}
static inline void st_le(void *p, uint64_t v, unsigned size)
{
    v = htole64(v);
    memcpy(p, &v, size <= 8 ? size : 8);
}

#endif
