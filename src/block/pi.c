/* SPDX-License-Identifier: MIT */
#include "block/pi.h"

#include <pthread.h>

#include "base/bits.h"

/* ---- guards ---- */

/* Eight bytes a step: table k is for the byte that k others follow. */
static uint16_t table16[8][256];
static uint32_t table32[8][256];
static uint64_t table64[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint16_t a = (uint16_t)(i << 8);
        uint32_t b = i;
        uint64_t c = i;

        for (int k = 0; k < 8; k++) {
            a = (uint16_t)(a << 1 ^ (a & 0x8000 ? 0x8bb7 : 0));
            b = b >> 1 ^ (b & 1 ? 0x82f63b78u : 0);
            c = c >> 1 ^ (c & 1 ? UINT64_C(0x9a6c9329ac4bc9b5) : 0);
        }
        table16[0][i] = a;
        table32[0][i] = b;
        table64[0][i] = c;
    }
    for (unsigned k = 1; k < 8; k++)
        for (unsigned i = 0; i < 256; i++) {
            table16[k][i] = (uint16_t)(table16[k - 1][i] << 8 ^ table16[0][table16[k - 1][i] >> 8]);
            table32[k][i] = table32[k - 1][i] >> 8 ^ table32[0][table32[k - 1][i] & 0xff];
            table64[k][i] = table64[k - 1][i] >> 8 ^ table64[0][table64[k - 1][i] & 0xff];
        }
}

/* What the tables say of eight bytes, the first of which is the lowest of @x. */
#define EIGHT(t, x) (t[7][(x) & 0xff] ^ t[6][(x) >> 8 & 0xff] ^ t[5][(x) >> 16 & 0xff] ^ t[4][(x) >> 24 & 0xff] ^ \
                     t[3][(x) >> 32 & 0xff] ^ t[2][(x) >> 40 & 0xff] ^ t[1][(x) >> 48 & 0xff] ^ t[0][(x) >> 56])

uint16_t pi_crc16_t10(uint16_t crc, const void *buf, uint64_t n)
{
    const uint8_t *p = buf;

    pthread_once(&once, make_tables);
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t x = ld_le64(p) ^ (uint16_t)(crc >> 8 | crc << 8);      /* its first bit is the highest of a byte */
        crc = EIGHT(table16, x);
    }
    while (n--)
        crc = (uint16_t)(crc << 8 ^ table16[0][crc >> 8 ^ *p++]);
    return crc;
}

uint32_t pi_crc32c(uint32_t crc, const void *buf, uint64_t n)
{
    const uint8_t *p = buf;

    pthread_once(&once, make_tables);
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t x = ld_le64(p) ^ crc;
        crc = EIGHT(table32, x);
    }
    while (n--)
        crc = crc >> 8 ^ table32[0][(crc ^ *p++) & 0xff];
    return ~crc;
}

uint64_t pi_crc64(uint64_t crc, const void *buf, uint64_t n)
{
    const uint8_t *p = buf;

    pthread_once(&once, make_tables);
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t x = ld_le64(p) ^ crc;
        crc = EIGHT(table64, x);
    }
    while (n--)
        crc = crc >> 8 ^ table64[0][(crc ^ *p++) & 0xff];
    return ~crc;
}

/* ---- tuples ---- */

struct tuple { uint64_t guard, ref, storage; uint16_t app; };

static uint64_t low_bits(unsigned n) { return n >= 64 ? UINT64_MAX : BIT64(n) - 1; }

/* The bytes after the application tag: storage tag, then reference tag, one big-endian number. */
static unsigned tags_at(const struct pi *pi) { return pi->pif == PIF_16 ? 4 : pi->pif == PIF_32 ? 6 : 10; }

static unsigned tags_size(const struct pi *pi) { return pi_size(pi->pif) - tags_at(pi); }

static void tags_put(const struct pi *pi, uint8_t *p, uint64_t storage, uint64_t ref)
{
    unsigned n = tags_size(pi), bits = 8 * n - pi->sts;
    unsigned __int128 v = (unsigned __int128)(ref & low_bits(bits)) | (pi->sts ? (unsigned __int128)(storage & low_bits(pi->sts)) << bits : 0);

    for (unsigned i = 0; i < n; i++)
        p[n - 1 - i] = (uint8_t)(v >> 8 * i);
}

static void tags_get(const struct pi *pi, const uint8_t *p, struct tuple *t)
{
    unsigned n = tags_size(pi), bits = 8 * n - pi->sts;
    unsigned __int128 v = 0;

    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    t->ref = (uint64_t)v & low_bits(bits);
    t->storage = pi->sts ? (uint64_t)(v >> bits) & low_bits(pi->sts) : 0;
}

static uint64_t guard_of(const struct pi *pi, const uint8_t *data, const uint8_t *meta)
{
    uint64_t extra = pi->first ? 0 : pi->ms - pi_size(pi->pif);       /* metadata before the tuple is covered, 5.2.1 */

    switch (pi->pif) {
    case PIF_16: return pi_crc16_t10(pi_crc16_t10(0, data, pi->block), meta, extra);
    case PIF_32: return pi_crc32c(pi_crc32c(0, data, pi->block), meta, extra);
    default: return pi_crc64(pi_crc64(0, data, pi->block), meta, extra);
    }
}

static uint8_t *tuple_of(const struct pi *pi, uint8_t *meta) { return meta + (pi->first ? 0 : pi->ms - pi_size(pi->pif)); }

static uint64_t ref_of(const struct pi *pi, uint64_t i)
{
    return (pi->type == 3 ? pi->ref : pi->ref + i) & low_bits(pi_ref_bits(pi->pif, pi->sts));
}

void pi_generate(const struct pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb)
{
    for (uint64_t i = 0; i < nlb; i++, data += pi->block, meta += pi->ms) {
        uint8_t *p = tuple_of(pi, meta);
        uint64_t guard = guard_of(pi, data, meta);
        unsigned app = pi->pif == PIF_16 ? 2 : pi->pif == PIF_32 ? 4 : 8;

        if (app == 2)
            st_be16(p, (uint16_t)guard);
        else if (app == 4)
            st_be32(p, (uint32_t)guard);
        else
            st_be64(p, guard);
        st_be16(p + app, pi->app);
        tags_put(pi, p + tags_at(pi), pi->storage, ref_of(pi, i));
    }
}

static void tuple_get(const struct pi *pi, const uint8_t *p, struct tuple *t)
{
    unsigned app = pi->pif == PIF_16 ? 2 : pi->pif == PIF_32 ? 4 : 8;

    t->guard = app == 2 ? ld_be16(p) : app == 4 ? ld_be32(p) : ld_be64(p);
    t->app = ld_be16(p + app);
    tags_get(pi, p + tags_at(pi), t);
}

/* 5.2.3: all ones in the application tag (and, type 3, the reference tag) switch the checks of a block off. */
static bool unchecked(const struct pi *pi, const struct tuple *t)
{
    return t->app == 0xffff && (pi->type != 3 || t->ref == low_bits(pi_ref_bits(pi->pif, pi->sts)));
}

enum pi_result pi_check_read(const struct pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb)
{
    struct pi one = *pi;

    for (uint64_t i = 0; i < nlb; i++, data += pi->block, meta += pi->ms) {
        enum pi_result wrong;

        one.ref = ref_of(pi, i);
        wrong = pi_check(&one, data, meta, 1, NULL);
        if (!wrong)
            continue;
        if (!mem_is_zero(meta, pi->ms) || !mem_is_zero(data, pi->block))
            return wrong;
        memset(tuple_of(pi, meta), 0xff, pi_size(pi->pif));
    }
    return PI_OK;
}

static enum pi_result check_one(const struct pi *pi, const uint8_t *data, const uint8_t *meta, uint64_t i)
{
    struct tuple t;

    tuple_get(pi, tuple_of(pi, (uint8_t *)(uintptr_t)meta), &t);
    if (unchecked(pi, &t))
        return PI_OK;
    if (pi->checks & PI_CHECK_GUARD && t.guard != guard_of(pi, data, meta))
        return PI_WRONG_GUARD;
    if (pi->checks & PI_CHECK_APP && (t.app & pi->app_mask) != (pi->app & pi->app_mask))
        return PI_WRONG_APP;
    if (pi->checks & PI_CHECK_REF && t.ref != ref_of(pi, i))
        return PI_WRONG_REF;
    return pi->check_storage && t.storage != (pi->storage & low_bits(pi->sts)) ? PI_WRONG_STORAGE : PI_OK;
}

enum pi_result pi_check(const struct pi *pi, const uint8_t *data, const uint8_t *meta, uint64_t nlb, uint64_t *at)
{
    enum pi_result wrong = PI_OK;
    uint64_t i;

    for (i = 0; i < nlb && !wrong; i++)
        wrong = check_one(pi, data + i * pi->block, meta + i * pi->ms, i);
    if (wrong && at)
        *at = i - 1;
    return wrong;
}
