/* SPDX-License-Identifier: MIT */
/* The state machine of zones (Zoned 2.1.1), against what each state allows; writes in flight while a zone is reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "block/zones.h"

enum { N = 8, SIZE = 64, CAP = 48 };
static struct zone zone[N];
static struct zones z;

static int setup(void **state)
{
    memset(zone, 0, sizeof zone);
    z = (struct zones){ .n = N, .size = SIZE, .cap = CAP, .max_open = 2, .max_active = 3, .zone = zone };
    for (unsigned i = 1; i < N; i++)
        zone_empty(&z, &zone[i]);       /* the first is conventional */
    return 0;
}

static enum zone_result put(uint64_t at, uint64_t len, bool append)
{
    enum zone_result r = zone_write_begin(&z, &at, len, append);

    if (!r)
        zone_write_end(&z, at, len);
    return r;
}

static void test_write_pointer(void **state)
{
    uint64_t at = 2 * SIZE;

    assert_int_equal(put(SIZE, 8, false), ZONE_OK);
    assert_int_equal(put(SIZE + 4, 8, false), ZONE_NOT_AT_WP);
    assert_int_equal(put(SIZE + 8, CAP - 7, false), ZONE_CROSSED);
    assert_int_equal(put(SIZE + 8, 1, true), ZONE_BAD_REQUEST);
    assert_int_equal(put(SIZE + 8, CAP - 8, false), ZONE_OK);
    assert_int_equal(zone[1].state, ZONE_FULL);
    assert_int_equal(put(SIZE, 1, true), ZONE_IS_FULL);
    assert_int_equal(put(N * SIZE, 1, false), ZONE_NO_ZONE);
    for (unsigned i = 0; i < 3; i++) {
        at = 2 * SIZE;
        assert_int_equal(zone_write_begin(&z, &at, 5, true), ZONE_OK);
        assert_int_equal(at, 2 * SIZE + 5 * i);
        assert_int_equal(zone[2].wp, 2 * SIZE);         /* all are in flight */
    }
}

static void test_conventional(void **state)
{
    bool written;

    assert_int_equal(put(40, 8, false), ZONE_OK);
    assert_int_equal(put(3, 8, false), ZONE_OK);
    assert_int_equal(put(0, 8, true), ZONE_BAD_REQUEST);
    assert_int_equal(zone[0].state, ZONE_NOT_WP);
    assert_int_equal(zone_open(&z, &zone[0], true, false), ZONE_NO_TRANSITION);
    assert_int_equal(zone_close(&z, &zone[0]), ZONE_NO_TRANSITION);
    assert_int_equal(zone_finish(&z, &zone[0]), ZONE_NO_TRANSITION);
    assert_int_equal(zone_reset_begin(&zone[0], &written), ZONE_NO_TRANSITION);
    for (enum zone_op op = ZONE_OP_CLOSE; op <= ZONE_OP_OFFLINE; op++)
        assert_false(zone_op_selects(op, ZONE_NOT_WP));
    assert_null(zone_to_json(&z, &zone[0]));
}

static void test_limits(void **state)
{
    assert_int_equal(put(1 * SIZE, 1, false), ZONE_OK);
    assert_int_equal(put(2 * SIZE, 1, false), ZONE_OK);
    assert_int_equal(put(3 * SIZE, 1, false), ZONE_TOO_MANY_OPEN);
    z.auto_close = true;
    assert_int_equal(put(3 * SIZE, 1, false), ZONE_OK);
    assert_int_equal(zone[1].state, ZONE_CLOSED);
    assert_int_equal(put(4 * SIZE, 1, false), ZONE_TOO_MANY_ACTIVE);        /* rather than the other */
    assert_int_equal(z.n_open, 2);
    assert_int_equal(z.n_active, 3);
    assert_int_equal(zone_finish(&z, &zone[1]), ZONE_OK);
    assert_int_equal(zone_open(&z, &zone[4], true, false), ZONE_OK);
    assert_int_equal(zone_close(&z, &zone[4]), ZONE_OK);
    assert_int_equal(zone[4].state, ZONE_EMPTY);        /* nothing was written */
    assert_int_equal(z.n_active, 2);
}

/* A write that began before a reset and ends after it moves nothing, and one during it is refused. */
static void test_reset_under_writes(void **state)
{
    uint64_t a = SIZE, b = SIZE;
    bool written;

    assert_int_equal(zone_write_begin(&z, &a, 8, false), ZONE_OK);
    assert_int_equal(zone_reset_begin(&zone[1], &written), ZONE_OK);
    assert_true(written);
    assert_int_equal(zone_write_begin(&z, &b, 8, true), ZONE_BUSY);
    zone_reset_end(&z, &zone[1], true);
    zone_write_end(&z, a, 8);
    assert_int_equal(zone[1].state, ZONE_EMPTY);
    assert_int_equal(zone[1].wp, SIZE);
    assert_int_equal(put(SIZE, 8, false), ZONE_OK);
    assert_int_equal(zone[1].wp, SIZE + 8);
}

/* The granularity need not be a power of two. */
static void test_random_write_area(void **state)
{
    z.zrwas = 12;
    z.zrwafg = 3;
    z.numzrwa = 1;
    assert_int_equal(zone_open(&z, &zone[1], true, true), ZONE_OK);
    assert_int_equal(zone_open(&z, &zone[2], true, true), ZONE_NO_TRANSITION);
    assert_int_equal(put(SIZE + 10, 2, false), ZONE_OK);
    assert_int_equal(zone[1].wp, SIZE);
    assert_int_equal(put(SIZE + 12, 1, false), ZONE_OK);            /* one behind the area: a granularity is flushed */
    assert_int_equal(zone[1].wp, SIZE + 3);
    assert_int_equal(put(SIZE + 15, 4, false), ZONE_OK);
    assert_int_equal(zone[1].wp, SIZE + 9);
    assert_int_equal(put(SIZE + 8, 1, false), ZONE_NOT_AT_WP);
    assert_int_equal(zone_flush_zrwa(&z, &zone[1], SIZE + 12), ZONE_BAD_REQUEST);
    assert_int_equal(zone_flush_zrwa(&z, &zone[1], SIZE + 14), ZONE_OK);
    assert_int_equal(zone[1].wp, SIZE + 15);
}

static void test_kept(void **state)
{
    json_t *open, *full, *bad = json_pack("[i,i,i,i]", 1, ZONE_FULL, 0, CAP + 1);

    assert_int_equal(put(2 * SIZE, 5, false), ZONE_OK);
    assert_int_equal(zone_finish(&z, &zone[3]), ZONE_OK);
    open = zone_to_json(&z, &zone[2]);
    full = zone_to_json(&z, &zone[3]);
    setup(NULL);
    assert_ptr_equal(zone_from_json(&z, open, false), &zone[2]);
    assert_ptr_equal(zone_from_json(&z, full, false), &zone[3]);
    assert_null(zone_from_json(&z, bad, false));
    zones_power_cycle(&z);
    assert_int_equal(zone[2].state, ZONE_CLOSED);
    assert_int_equal(zone[2].wp, 2 * SIZE + 5);
    assert_int_equal(zone[3].state, ZONE_FULL);
    assert_int_equal(z.n_active, 1);
    json_decref(open);
    json_decref(full);
    json_decref(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_write_pointer, setup), cmocka_unit_test_setup(test_conventional, setup),
        cmocka_unit_test_setup(test_limits, setup), cmocka_unit_test_setup(test_reset_under_writes, setup),
        cmocka_unit_test_setup(test_random_write_area, setup), cmocka_unit_test_setup(test_kept, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
