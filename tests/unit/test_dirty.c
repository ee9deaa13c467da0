/* SPDX-License-Identifier: MIT */
/* The map of what changed, against one byte for each granule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/bits.h"
#include "block/dirty.h"

enum { MAX_BITS = 300 };
static unsigned seed = 1;
static uint64_t rnd(uint64_t n) { return n ? (uint64_t)rand_r(&seed) % n : 0; }

static void compare(const struct dirty_map *m, const bool *want)
{
    uint64_t g = dirty_granularity(m), count = 0;
    for (uint64_t i = 0; i < m->bits; i++) {
        count += want[i];
        assert_int_equal(dirty_get(m, i * g), want[i]);
    }
    assert_int_equal(m->count, count);
    uint64_t off = rnd(m->size), i = off / g, k = i;
    while (i < m->bits && !want[i])
        i++;
    while (k < m->bits && want[k])
        k++;
    assert_int_equal(dirty_next(m, off), i < m->bits ? MAX(i * g, off) : UINT64_MAX);
    assert_int_equal(dirty_next_clear(m, off), k < m->bits ? MAX(k * g, off) : UINT64_MAX);
}

static void test_random(void **state)
{
    for (int round = 0; round < 200; round++) {
        struct dirty_map m;
        bool want[MAX_BITS + 1] = { false };
        uint64_t g = UINT64_C(1) << (9 + rnd(4)), size = rnd(MAX_BITS * g) + 1;
        assert_true(dirty_init(&m, size, g));
        for (int i = 0; i < 40; i++) {
            uint64_t off = rnd(size), len = rnd(rnd(2) ? size - off : g * 3);
            bool set = rnd(2);
            if (set)
                dirty_set(&m, off, len);
            else
                dirty_clear(&m, off, len);
            for (uint64_t b = 0; b < m.bits; b++)
                if (set ? len && b * g < off + len && off < (b + 1) * g : b * g >= off && b * g < off + len)
                    want[b] = set;
            compare(&m, want);
        }
        uint64_t longer = rnd(MAX_BITS * g) + 1, old = m.bits;
        assert_true(dirty_resize(&m, longer));
        for (uint64_t b = MIN(m.bits, old); b < MAX_BITS; b++)
            want[b] = false;
        compare(&m, want);
        dirty_free(&m);
    }
}

static void test_merge_of_other_granules(void **state)
{
    for (int round = 0; round < 200; round++) {
        struct dirty_map a, b;
        uint64_t size = rnd(1 << 20) + 1;
        assert_true(dirty_init(&a, size, UINT64_C(1) << (9 + rnd(6))) && dirty_init(&b, size, UINT64_C(1) << (9 + rnd(6))));
        for (int i = 0; i < 5; i++)
            dirty_set(&b, rnd(size), rnd(50000));
        dirty_merge(&a, &b);
        for (uint64_t at = 0; at < size; at += 512) {
            uint64_t g = dirty_granularity(&a), from = align_down(at, g), end = MIN(from + g, size);
            uint64_t hit = dirty_next(&b, from);
            assert_int_equal(dirty_get(&a, at), hit != UINT64_MAX && align_down(hit, dirty_granularity(&b)) < end);
        }
        dirty_free(&a);
        dirty_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random), cmocka_unit_test(test_merge_of_other_granules) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
