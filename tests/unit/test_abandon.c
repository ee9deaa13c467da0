/* SPDX-License-Identifier: MIT */
/*
 * The way out with a request that nobody can end, as of a file system that hangs: the process waits as long as anything ends, then says
 * so and ends with a failure.
 */
#include "loop_modes.h"
#include "probe_disk.h"
#include <sys/wait.h>
#include <unistd.h>
#include "block/abandon.h"
#include "block/blk.h"

#define MINUTES INT64_C(60000000000)

static struct blk *handle;

static void co_flush(void *unused) { co_blk_flush(handle); }

/* A flush that does not end. */
static void begin(void)
{
    struct err e = ERR_INIT;
    probe_fill();
    handle = blk_open(sd_node("hung", ""), BLK_PERM_READ, BLK_PERM_ALL, NULL, "device 'd'", &e);
    assert_non_null(handle);
    probe_hold = true;
    co_spawn(loop_main(), NULL, co_flush, NULL);
    UNTIL(probe_waiting == 1, loop_run_once(loop_main(), 0));
    assert_true(blk_any_in_flight());
}

static void end(void)
{
    probe_go();
    assert_false(blk_any_in_flight());
    blk_close(handle);
    sd_del("hung");
}

/* What the process says, and its status, or -1: it does not end. */
static void look_in_child(const int64_t *at, size_t n, int *status, char *said, size_t room)
{
    int p[2], st;
    assert_int_equal(pipe(p), 0);
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        dup2(p[1], STDERR_FILENO);
        for (size_t i = 0; i < n; i++)
            blk_end_look(at[i]);
        _exit(99);
    }
    close(p[1]);
    size_t len = 0;
    for (ssize_t k; len < room - 1 && (k = read(p[0], said + len, room - 1 - len)) > 0;)
        len += (size_t)k;
    said[len] = 0;
    close(p[0]);
    assert_int_equal(waitpid(child, &st, 0), child);
    assert_true(WIFEXITED(st));
    *status = WEXITSTATUS(st) == 99 ? -1 : WEXITSTATUS(st);
}

static void the_process_ends(void **s)
{
    const int64_t at[] = { 1, 9 * MINUTES, 10 * MINUTES + 1 };
    char said[512];
    int status;
    begin();
    look_in_child(at, 2, &status, said, sizeof said);
    assert_int_equal(status, -1);
    assert_string_equal(said, "");
    look_in_child(at, 3, &status, said, sizeof said);
    assert_int_equal(status, 1);
    assert_non_null(strstr(said, "device 'd': block node 'hung' has not answered for 10 minutes"));
    end();
}

static void not_while_requests_end(void **s)
{
    begin();
    blk_end_look(1);
    blk_end_look(9 * MINUTES);
    probe_go();
    probe_hold = true;
    co_spawn(loop_main(), NULL, co_flush, NULL);
    UNTIL(probe_waiting == 1, loop_run_once(loop_main(), 0));
    blk_end_look(10 * MINUTES + 1);
    blk_end_look(19 * MINUTES);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_process_ends),
        cmocka_unit_test(not_while_requests_end),
    };
    return RUN_IN_BOTH_MODES(tests);
}
