/* SPDX-License-Identifier: MIT */
/* Runs a cmocka group twice: on epoll and workers in a child, then on io_uring (where the host allows it) here. */
#ifndef LOOP_MODES_H
#define LOOP_MODES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "loop/co.h"
#include "loop/loop.h"
#include "until.h"

static inline int loop_modes_setup(void **state)
{
    struct err e = ERR_INIT;
    if (loop_main_init(&e))
        return 0;
    fprintf(stderr, "%s\n", e.msg);
    return -1;
}

#define RUN_IN_BOTH_MODES(tests) run_in_both_modes_(#tests, tests, sizeof(tests) / sizeof((tests)[0]))
static inline int run_in_both_modes_(const char *name, const struct CMUnitTest *tests, size_t n)
{
    int st = 0;
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        setenv("BACKPLANE_NO_URING", "1", 1);
        exit(_cmocka_run_group_tests("without io_uring", tests, n, loop_modes_setup, NULL));
    }
    waitpid(child, &st, 0);
    int failed = _cmocka_run_group_tests(name, tests, n, loop_modes_setup, NULL);
    return failed || !WIFEXITED(st) || WEXITSTATUS(st);
}

/* Serves the main loop until @cond. */
#define SERVE_UNTIL(cond) UNTIL(cond, loop_run_once(loop_main(), 20000000))

/* Serves the main loop for a moment: for what must not happen meanwhile, never for what must. */
static inline void serve(int rounds)
{
    while (rounds--)
        loop_run_once(loop_main(), 1000000);
}

/* Serves the main loop until *flag. */
static inline void run_until(const volatile bool *flag)
{
    while (!*flag)
        loop_run_once(loop_main(), 5000000000);
}

#endif
