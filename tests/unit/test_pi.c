/* SPDX-License-Identifier: MIT */
/* block/pi: guards against published values and a bit by bit oracle, tuples of every format, checks that find what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/bits.h"
#include "block/pi.h"

static uint8_t data[8 * 4096], meta[8 * 64];

static void known_guards(void **state)
{
    uint8_t ones[4096], inc[4096], zero[4096] = { 0 };

    memset(ones, 0xff, sizeof ones);
    for (unsigned i = 0; i < sizeof inc; i++)
        inc[i] = (uint8_t)i;
    assert_int_equal(pi_crc16_t10(0, "123456789", 9), 0xd0db);
    assert_int_equal(pi_crc32c(0, "123456789", 9), 0xe3069283);
    /* NVM Command Set 5.2.1.4: the examples of the specification */
    assert_true(pi_crc64(0, zero, sizeof zero) == UINT64_C(0x6482d367eb22b64e));
    assert_true(pi_crc64(0, ones, sizeof ones) == UINT64_C(0xc0ddba7302eca3ac));
    assert_true(pi_crc64(0, inc, sizeof inc) == UINT64_C(0x3e729f5f6750449c));
}

/* Bit by bit: the highest bit of a byte first, or (@low) the lowest. */
static uint64_t slow(uint64_t poly, unsigned bits, bool low, uint64_t r, const uint8_t *p, size_t n)
{
    uint64_t top = UINT64_C(1) << (bits - 1);
    for (size_t i = 0; i < n * 8; i++) {
        unsigned in = p[i / 8] >> (low ? i % 8 : 7 - i % 8) & 1, out = low ? r & 1 : (r & top) != 0;
        r = (low ? r >> 1 : r << 1 & (top | (top - 1))) ^ (in ^ out ? poly : 0);
    }
    return r;
}

static void fill(unsigned seed)
{
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)((seed = seed * 1103515245u + 12345) >> 16);
    memset(meta, 0x5a, sizeof meta);
}

static void guards_match_the_definition(void **state)
{
    for (unsigned n = 0; n < 100; n++) {
        const uint8_t *at = data + n % 8;
        unsigned cut = n / 3;
        fill(n);
        assert_int_equal(pi_crc16_t10(0, at, n), slow(0x8bb7, 16, false, 0, at, n));
        assert_int_equal(pi_crc32c(0, at, n), (uint32_t)~slow(0x82f63b78, 32, true, UINT32_MAX, at, n));
        assert_true(pi_crc64(0, at, n) == ~slow(UINT64_C(0x9a6c9329ac4bc9b5), 64, true, UINT64_MAX, at, n));
        assert_int_equal(pi_crc16_t10(pi_crc16_t10(0, at, cut), at + cut, n - cut), pi_crc16_t10(0, at, n));
        assert_int_equal(pi_crc32c(pi_crc32c(0, at, cut), at + cut, n - cut), pi_crc32c(0, at, n));
        assert_true(pi_crc64(pi_crc64(0, at, cut), at + cut, n - cut) == pi_crc64(0, at, n));
    }
}

static struct pi make(unsigned type, unsigned pif, bool first, uint16_t ms, unsigned sts)
{
    return (struct pi){ .type = (uint8_t)type, .pif = (uint8_t)pif, .first = first, .ms = ms, .sts = (uint8_t)sts, .block = 4096,
                             .checks = PI_CHECK_GUARD | PI_CHECK_APP | PI_CHECK_REF, .check_storage = sts != 0, .app = 0x1234,
                             .app_mask = 0xffff, .ref = 0x11223344, .storage = 0xabcd };
}

#define FOR_ALL(pi)                                                                                              \
    for (unsigned type = 1; type <= 3; type++) for (unsigned pif = 0; pif < 3; pif++) for (int first = 0; first < 2; first++) \
        for (unsigned sts = 0; sts <= 16; sts += 16) for (unsigned more = 0; more <= 48; more += 48)               \
            for (struct pi pi = make(type, pif, first, (uint16_t)(pi_size((uint8_t)pif) + more), sts), *once_ = &pi; once_; once_ = NULL)

static void what_is_made_passes(void **state)
{
    FOR_ALL(pi) {
        fill(type * 100 + pif);
        pi_generate(&pi, data, meta, 8);
        assert_int_equal(pi_check(&pi, data, meta, 8, NULL), 0);
    }
}

static void each_check_finds_its_mistake(void **state)
{
    FOR_ALL(pi) {
        uint64_t at = 99;
        struct pi other;

        fill(7);
        pi_generate(&pi, data, meta, 8);
        data[5 * 4096 + 17] ^= 1;
        assert_int_equal(pi_check(&pi, data, meta, 8, &at), PI_WRONG_GUARD);
        assert_int_equal(at, 5);
        other = pi;
        other.checks &= (uint8_t)~PI_CHECK_GUARD;
        assert_int_equal(pi_check(&other, data, meta, 8, NULL), 0);
        other.app = 0x1235;
        assert_int_equal(pi_check(&other, data, meta, 8, NULL), PI_WRONG_APP);
        other.app_mask = 0xfff0;
        assert_int_equal(pi_check(&other, data, meta, 8, NULL), 0);
        other.ref++;
        assert_int_equal(pi_check(&other, data, meta, 8, NULL), PI_WRONG_REF);
        other = pi;
        other.checks = 0;
        other.storage = 0xabce;
        assert_int_equal(pi_check(&other, data, meta, 8, NULL), sts ? PI_WRONG_STORAGE : 0);
    }
}

static void reference_tags_count_up_but_in_type_3(void **state)
{
    for (unsigned type = 1; type <= 3; type++) {
        struct pi pi = make(type, 0, false, 8, 0);

        fill(1);
        pi_generate(&pi, data, meta, 8);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(ld_be32(meta + 8 * i + 4), 0x11223344 + (type == 3 ? 0 : i));
    }
}

static void all_ones_switch_checks_off(void **state)
{
    for (unsigned type = 1; type <= 3; type++) {
        struct pi pi = make(type, 0, false, 8, 0);

        memset(meta, 0xff, sizeof meta);
        assert_int_equal(pi_check(&pi, data, meta, 8, NULL), 0);
        meta[7] = 0;
        assert_int_equal(pi_check(&pi, data, meta, 8, NULL), type == 3 ? PI_WRONG_GUARD : 0);
    }
}

static void blocks_that_were_never_written_pass(void **state)
{
    for (unsigned type = 1; type <= 3; type++) {
        struct pi pi = make(type, 0, false, 8, 0);

        memset(data, 0, sizeof data);
        memset(meta, 0, sizeof meta);
        assert_int_equal(pi_check(&pi, data, meta, 8, NULL), PI_WRONG_APP);
        assert_int_equal(pi_check_read(&pi, data, meta, 8), 0);
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(meta[i], 0xff);
        memset(meta, 0, sizeof meta);
        data[3 * 4096] = 1;
        assert_int_equal(pi_check_read(&pi, data, meta, 8), PI_WRONG_GUARD);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_guards), cmocka_unit_test(guards_match_the_definition), cmocka_unit_test(what_is_made_passes),
        cmocka_unit_test(each_check_finds_its_mistake), cmocka_unit_test(reference_tags_count_up_but_in_type_3),
        cmocka_unit_test(all_ones_switch_checks_off), cmocka_unit_test(blocks_that_were_never_written_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
