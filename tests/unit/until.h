/* SPDX-License-Identifier: MIT */
/* Waiting for what other threads, processes or the kernel do: until it is so. The deadline is for what hangs; no loaded machine meets it. */
#ifndef UNTIL_H
#define UNTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* The host's monotonic time in ns from which on a wait that begins now is given up: a minute, times BP_TIMEOUT_SCALE. */
static inline int64_t until_end(void)
{
    const char *scale = getenv("BP_TIMEOUT_SCALE");
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (t.tv_sec + 60 * (scale && atoi(scale) > 1 ? atoi(scale) : 1)) * INT64_C(1000000000) + t.tv_nsec;
}

static inline bool until_over(int64_t end)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec >= end;
}

/* Does @step, a statement, again and again until @cond; the test fails where that is in vain. */
#define UNTIL(cond, step) do {                                  \
        for (int64_t end_ = until_end(); !(cond);) {            \
            if (until_over(end_))                               \
                fail_msg("waited in vain for %s", #cond);       \
            step;                                               \
        }                                                       \
    } while (0)

#endif
