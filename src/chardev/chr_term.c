/* SPDX-License-Identifier: MIT */
/*
 * Raw mode, and the way back on every way out: exit(), the signals that end a process, crashes, and a stop by ^Z. Nothing
 * can be done about SIGKILL.
 */
#include "chardev/chr_term.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "chardev/chr.h"

static int term_fd = -1;
static bool term_signals, term_hooked;
static struct termios term_saved;
static volatile sig_atomic_t term_is_raw;

/* tcsetattr, even from the background (where SIGTTOU would stop us). Async-signal-safe. */
static void term_set(const struct termios *t)
{
    sigset_t ttou, old;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &old);
    while (tcsetattr(term_fd, TCSANOW, t) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void chr_term_restore(void)
{
    if (!term_is_raw)
        return;
    term_is_raw = 0;
    term_set(&term_saved);
}

void chr_term_make_raw(struct termios *t, bool signals)
{
    t->c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    t->c_oflag |= OPOST;
    t->c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | (signals ? 0 : ISIG));
    t->c_cflag = (t->c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    t->c_cc[VMIN] = 1;
    t->c_cc[VTIME] = 0;
}

static void term_enter(void)
{
    struct termios t = term_saved;
    pid_t front = tcgetpgrp(term_fd);           /* -1: it controls no session of ours, so nobody moves us to the background */
    if (front >= 0 && front != getpgrp())
        return;                                 /* in the background: SIGCONT brings us here again */
    chr_term_make_raw(&t, term_signals);
    term_is_raw = 1;
    term_set(&t);
}

/* Ends the process the way the signal would have, with the terminal restored. */
static void on_fatal(int sig)
{
    chr_term_restore();
    signal(sig, SIG_DFL);
    raise(sig);
}

static void on_stop(int sig)
{
    int saved_errno = errno;
    chr_term_restore();
    kill(getpid(), SIGSTOP);
    errno = saved_errno;
}

static void on_cont(int sig)
{
    int saved_errno = errno;
    if (term_fd >= 0 && !term_is_raw)
        term_enter();
    errno = saved_errno;
}

/* Where somebody handles a signal already, he ends with exit() or chr_term_restore(). */
static void hook(int sig, void (*fn)(int), int flags)
{
    struct sigaction old, sa = { .sa_handler = fn, .sa_flags = flags };
    sigfillset(&sa.sa_mask);
    if (sigaction(sig, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
        sigaction(sig, &sa, NULL);
}

static void term_hook(void)
{
    static const int fatal[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV,
                                 SIGSYS, SIGXCPU, SIGXFSZ, SIGALRM, SIGUSR1, SIGUSR2 };
    if (term_hooked)
        return;
    term_hooked = true;
    atexit(chr_term_restore);
    for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
        hook(fatal[i], on_fatal, SA_ONSTACK);
    hook(SIGTSTP, on_stop, SA_RESTART);
    hook(SIGCONT, on_cont, SA_RESTART);
}

void chr_term_raw(int fd, bool signals)
{
    if (!isatty(fd))
        return;
    if (term_fd < 0 && tcgetattr(fd, &term_saved) < 0)
        return;
    term_fd = fd;
    term_signals = signals;
    term_hook();
    term_enter();
}
