/* SPDX-License-Identifier: MIT */
/* A crash in translated code names guest and host; code that is not what the interpreter does ends the program under check=on. */
#include "rv.h"
#include "jit_at_once.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cpu/riscv/jit_int.h"

enum { LD = 0x3003, ADDI = 0x13, HERE = 0x6f };

static void go(struct hart *h)
{
    set_reg(h, REG_PC, CODE);
    UNTIL(hart_pc(h) == CODE + 8, harts_run(set));
}

/* What the host's memory does under a translated load. */
static void load_from_nowhere(void)
{
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    put_insn(CODE, enc_i(ADDI, A1, ZERO, 5));
    put_insn(CODE + 4, enc_i(LD, A2, A0, 0));
    put_insn(CODE + 8, HERE);
    set_reg(h, A0, DATA);
    hart_power(h, true);
    go(h);                              /* the page is in the TLB now */
    if (mprotect(at(DATA), 4096, PROT_NONE))
        _exit(1);
    go(h);
    _exit(2);
}

/* A block whose code is not what it was translated to. */
static void wrong_code(void)
{
    jit_options.check = true;
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    put_insn(CODE, enc_i(ADDI, A1, ZERO, 5));
    put_insn(CODE + 4, enc_i(ADDI, A2, A1, 0x123));
    put_insn(CODE + 8, HERE);
    hart_power(h, true);
    go(h);
    struct jit *j = h->accel_data;
    for (uint8_t *p = j->w + j->stubs; p < j->w + j->used - 4; p++)
        if (ld_le32(p) == 0x128)             /* made of both constants */
            st_le32(p, 0x129);
    go(h);
    _exit(2);
}

/* Runs @fn in a process of its own, which must abort; what it has written to standard error. */
static void aborts(void (*fn)(void), char *text, size_t n)
{
    int fd[2], status;
    size_t got = 0;
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    if (!pid) {
        struct rlimit none = { 0, 0 };
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);       /* cmocka's */
        signal(SIGSEGV, SIG_DFL);
        dup2(fd[1], STDERR_FILENO);
        if (rv_memory(NULL))
            _exit(3);
        fn();
    }
    close(fd[1]);
    for (ssize_t r; got < n - 1 && (r = read(fd[0], text + got, n - 1 - got)) > 0;)
        got += (size_t)r;
    text[got] = 0;
    close(fd[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("status 0x%x: %s", status, text);
}

static void test_crash(void **state)
{
    char text[4096];
    aborts(load_from_nowhere, text, sizeof text);
    assert_non_null(strstr(text, "crashed in translated code: host pc 0x"));
    assert_non_null(strstr(text, "block at pc 0x80001000"));
    assert_non_null(strstr(text, "ld"));
}

static void test_check(void **state)
{
    char text[4096];
    aborts(wrong_code, text, sizeof text);
    assert_non_null(strstr(text, "translated code and the interpreter differ"));
    assert_non_null(strstr(text, "0x129, interpreter 0x128"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_crash), cmocka_unit_test(test_check) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
