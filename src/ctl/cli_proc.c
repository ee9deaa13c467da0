/* SPDX-License-Identifier: MIT */
/* The process: pid file, going into the background, who it dies with, signals that end it. */
#include "ctl/cli.h"
#include "ctl/cli_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/bits.h"
#include "base/exit_file.h"
#include "chardev/chr.h"
#include "core/flags.h"
#include "core/run.h"
#include "loop/loop.h"

/* ---- process name ---- */

void cli_process_name(const char *name)
{
    prctl(PR_SET_NAME, name);
}

/* ---- -daemonize ---- */

static int ready_fd = -1;       /* the parent waits at its other end */

static bool apply_daemonize(const char *arg, struct err *e)
{
    cli_flags.daemonize = true;
    return true;
}
static const struct cli_opt opt_daemonize = { "daemonize", NULL, "go into the background once the machine stands", "Process", CLI_EARLY, apply_daemonize };
CLI_OPT(&opt_daemonize);

/* The process that was started: waits until the machine stands (status 0) or start-up failed (status 1). */
static _Noreturn void wait_for_daemon(int fd)
{
    char ok = 0;
    ssize_t n;
    do
        n = read(fd, &ok, 1);
    while (n < 0 && errno == EINTR);
    _exit(n == 1 && ok == 'y' ? 0 : 1);
}

bool cli_daemon_fork(struct err *e)
{
    if (!cli_flags.daemonize)
        return true;
    if (cli_exits_with_parent())
        return err_set(e, ERR_VALUE, "-daemonize: the parent ends at once, which -run-with exit-with-parent=on would follow");
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_os(e, errno, "-daemonize: pipe");
    pid_t pid = fork();
    if (pid < 0)
        return err_os(e, errno, "-daemonize: fork");
    if (pid > 0) {
        close(p[1]);
        wait_for_daemon(p[0]);
    }
    close(p[0]);
    ready_fd = p[1];
    if (setsid() < 0)
        return err_os(e, errno, "-daemonize: setsid");
    pid = fork();               /* a second time: the daemon can never get a controlling terminal */
    if (pid < 0)
        return err_os(e, errno, "-daemonize: fork");
    if (pid > 0)
        _exit(0);
    umask(027);
    return true;
}
static const struct cli_step step_daemon = { "daemonize", CLI_EARLY, 10, cli_daemon_fork };
CLI_STEP(&step_daemon);

bool cli_daemon_ready(struct err *e)
{
    if (ready_fd < 0)
        return true;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return err_os(e, errno, "-daemonize: /dev/null");
    if (chdir("/") < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        return err_os(e, errno, "-daemonize");
    close(null);
    ssize_t n = write(ready_fd, "y", 1);
    close(ready_fd);
    ready_fd = -1;
    return n == 1 || err_set(e, ERR_GENERIC, "-daemonize: the process that started this one has gone");
}

/* ---- -pidfile ---- */

static char *pidfile;
static struct exit_file *pidfile_file;

static bool apply_pidfile(const char *arg, struct err *e)
{
    if (!*arg)
        return err_set(e, ERR_VALUE, "needs the name of a file");
    free(pidfile);
    pidfile = xstrdup(arg);
    return true;
}
static const struct cli_opt opt_pidfile = { "pidfile", "FILE", "write the process id to FILE", "Process", CLI_EARLY, apply_pidfile };
CLI_OPT(&opt_pidfile);

/* Last of all: who waits for the file to vanish may start the next machine at once. */
static void pidfile_remove(void)
{
    exit_file_remove(pidfile_file);
    pidfile_file = NULL;
}

static bool pidfile_busy(int fd, struct err *e)
{
    struct flock holder = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int errno_lock = errno;
    if ((errno_lock == EACCES || errno_lock == EAGAIN) && fcntl(fd, F_GETLK, &holder) == 0 && holder.l_type != F_UNLCK) {
        err_set(e, ERR_BUSY, "-pidfile %s: in use by process %ld", pidfile, (long)holder.l_pid);
        return err_hint(e, "each machine needs a pid file of its own");
    }
    return err_os(e, errno_lock, "-pidfile %s: cannot be locked", pidfile);
}

/* The lock lives as long as the process, so that a file left by a crash is taken over and a live one is not. What is no file is written to, and stays. */
static bool pidfile_make(struct err *e)
{
    int fd = open(pidfile, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_os(e, errno, "-pidfile %s", pidfile);
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (S_ISREG(st.st_mode) && fcntl(fd, F_SETLK, &whole) < 0) {
        bool r = pidfile_busy(fd, e);
        close(fd);
        return r;
    }
    pidfile_file = S_ISREG(st.st_mode) ? exit_file_new(pidfile) : NULL;
    atexit(pidfile_remove);
    char text[32];
    int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if ((S_ISREG(st.st_mode) && ftruncate(fd, 0) < 0) || write(fd, text, (size_t)n) != n) {
        int os = errno;
        close(fd);
        return err_os(e, os, "-pidfile %s", pidfile);
    }
    return true;
}

bool cli_pidfile_write(struct err *e)
{
    sigset_t before;
    exit_files_hold(&before);
    bool ok = !pidfile || pidfile_make(e);
    exit_files_release(&before);
    return ok;
}
static const struct cli_step step_pidfile = { "pidfile", CLI_EARLY, 20, cli_pidfile_write };
CLI_STEP(&step_pidfile);

/* ---- signals ---- */

static struct loop_fd told;

/*
 * Main thread, at any instruction, while no loop runs: during start-up, and when the way out hangs. The terminal's mode and what bears
 * a name in the file system are put right here. The status is 0 each time: being told to end is no failure.
 */
static void on_end_signal(int sig)
{
    chr_term_restore();
    exit_files_unlink();
    _exit(0);
}

void cli_signals_early(void)
{
    struct sigaction sa = { .sa_handler = SIG_IGN };
    sigaction(SIGPIPE, &sa, NULL);
    sa = (struct sigaction){ .sa_handler = on_end_signal, .sa_flags = SA_RESTART };
    sigfillset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

static void on_told(void *arg, unsigned revents)
{
    struct signalfd_siginfo si;
    if (read(told.fd, &si, sizeof(si)) == sizeof(si))
        run_request_quit(CAUSE_HOST_SIGNAL, 0);
}

bool cli_signals_loop(struct err *e)
{
    sigset_t set = exit_signals();
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return err_os(e, errno, "signalfd");
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_atfork(NULL, NULL, cli_signals_end);    /* what a back end starts can be told to end, too */
    loop_fd_init(&told, loop_main(), NULL, fd, on_told, NULL);
    loop_fd_watch(&told, LOOP_IN);
    return true;
}

void cli_signals_end(void)
{
    sigset_t set = exit_signals();
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
