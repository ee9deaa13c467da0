/* SPDX-License-Identifier: MIT */
/* The terminal is given back on every way out. Each case is a child on a terminal of its own. */
#include "loop_modes.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>

#include "chardev/chr.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif

enum way { BY_EXIT, BY_ABORT, BY_SEGV, BY_TERM, BY_INT_KEY, BY_HUP, WAYS };

static void child(int slave, enum way w)
{
    struct err e = ERR_INIT;
    struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    setsid();
    ioctl(slave, TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(slave, i);
    for (int s = 1; s < 32; s++)
        signal(s, SIG_DFL);
    if (!loop_main_init(&e) || !chr_from_legacy("t", "stdio", false, &e))
        _exit(77);
    if (write(1, "R", 1) != 1)
        _exit(78);
    char c = 0;
    ssize_t n;
    do
        n = read(0, &c, 1);
    while ((n < 0 && errno == EINTR) || (n == 1 && c != 'g'));
    if (w == BY_EXIT)
        exit(0);
    if (w == BY_ABORT)
        abort();
    if (w == BY_SEGV)
        raise(SIGSEGV);
    for (;;)
        pause();
}

static bool same(const struct termios *a, const struct termios *b)
{
    return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_lflag == b->c_lflag && a->c_cflag == b->c_cflag &&
           !memcmp(a->c_cc, b->c_cc, sizeof a->c_cc);
}

static void wait_for(int master, char what)
{
    char c = 0;
    struct pollfd p = { .fd = master, .events = POLLIN };
    while (c != what) {
        assert_int_equal(poll(&p, 1, 60000), 1);
        assert_int_equal(read(master, &c, 1), 1);
    }
}

static void one_way(enum way w)
{
    int master, slave, st;
    struct termios before, raw, after;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(tcgetattr(slave, &before), 0);
    pid_t pid = fork();
    if (!pid) {
        close(master);
        child(slave, w);
    }
    wait_for(master, 'R');
    assert_int_equal(tcgetattr(slave, &raw), 0);
    assert_false(raw.c_lflag & (ICANON | ECHO));
    assert_true(raw.c_lflag & ISIG);
    assert_int_equal(write(master, w == BY_INT_KEY ? "\003" : "g", 1), 1);
    if (w == BY_TERM || w == BY_HUP)
        kill(pid, w == BY_TERM ? SIGTERM : SIGHUP);
    assert_int_equal(waitpid(pid, &st, 0), pid);
    static const int sig[] = { 0, SIGABRT, SIGSEGV, SIGTERM, SIGINT, SIGHUP };
    if (sig[w])
        assert_true(WIFSIGNALED(st) && WTERMSIG(st) == sig[w]);     /* it ends as it would have */
    else
        assert_true(WIFEXITED(st) && WEXITSTATUS(st) == 0);
    assert_int_equal(tcgetattr(slave, &after), 0);
    assert_true(same(&before, &after));
    close(master);
    close(slave);
}

static void every_way_out_restores(void **state)
{
    for (int w = 0; w < WAYS; w++)
        one_way(w);
}

/* ^Z gives the terminal to the shell; fg takes it back. */
static void stop_and_continue(void **state)
{
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
    skip();                     /* it holds signals back while a handler runs, and SIGCONT arrives in one */
#endif
    int master, slave, st;
    struct termios before, now;
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(tcgetattr(slave, &before), 0);
    pid_t pid = fork();
    if (!pid)
        child(slave, BY_EXIT);
    wait_for(master, 'R');
    kill(pid, SIGTSTP);
    assert_int_equal(waitpid(pid, &st, WUNTRACED), pid);
    assert_true(WIFSTOPPED(st));
    tcgetattr(slave, &now);
    assert_true(same(&before, &now));
    kill(pid, SIGCONT);
    UNTIL(!(now.c_lflag & ICANON), (usleep(1000), tcgetattr(slave, &now)));
    assert_int_equal(write(master, "g", 1), 1);
    assert_int_equal(waitpid(pid, &st, 0), pid);
    tcgetattr(slave, &now);
    assert_true(same(&before, &now));
    close(master);
    close(slave);
}

int main(void)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(every_way_out_restores), cmocka_unit_test(stop_and_continue) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
