/* SPDX-License-Identifier: MIT */
/* Limits of requests: when each may begin, however much is owed already. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "block/throttle.h"
#include "loop/loop.h"

enum { SECOND = 1000000000 };

static void requests_begin_as_the_rate_allows(void **state)
{
    struct throttle t = { .lock = PTHREAD_MUTEX_INITIALIZER, .lim[TH_BPS] = { .rate = 1000 }, .lim[TH_IOPS_RD] = { .rate = 2 } };
    int64_t begin = clock_now(CLOCK_HOST);
    for (int i = 0; i < 10; i++) {
        int64_t at = throttle_book(&t, true, 1000);         /* each is a second's bytes; a tenth of one may be owed */
        assert_true(at >= begin + (int64_t)i * SECOND - SECOND / 10);
        assert_true(at <= clock_now(CLOCK_HOST) + (int64_t)i * SECOND);
    }
}

/* A guest that asks for more than can ever be done has not done it by that. */
static void a_limit_that_is_far_behind_holds(void **state)
{
    struct throttle t = { .lock = PTHREAD_MUTEX_INITIALIZER, .lim[TH_BPS] = { .rate = 1, .max = 2, .max_length = 3600 } };
    int64_t at = 0;
    for (int i = 0; i < 10000; i++) {
        at = throttle_book(&t, false, UINT64_C(1) << 40);
        assert_true(i == 0 || at > clock_now(CLOCK_HOST) + SECOND);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(requests_begin_as_the_rate_allows), cmocka_unit_test(a_limit_that_is_far_behind_holds) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
