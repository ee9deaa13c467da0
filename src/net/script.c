/* SPDX-License-Identifier: MIT */
#include "net/script.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Starts the program with the signals as a shell would; @inherit: a descriptor it keeps, or -1. */
static bool spawn(const char *const argv[], int inherit, pid_t *pid, struct err *e)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    if (inherit >= 0)
        posix_spawn_file_actions_adddup2(&files, inherit, inherit);     /* to itself: clears close-on-exec */
    int r = posix_spawn(pid, argv[0], &files, &attr, (char *const *)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return !r || err_os(e, r, "cannot run '%s'", argv[0]);
}

static bool reap(pid_t pid, const char *path, struct err *e)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_os(e, errno, "lost '%s'", path);
    if (WIFSIGNALED(status))
        return err_set(e, ERR_GENERIC, "'%s' was killed by signal %d", path, WTERMSIG(status));
    return !WEXITSTATUS(status) || err_set(e, ERR_GENERIC, "'%s' ended with status %d", path, WEXITSTATUS(status));
}

bool script_run(const char *path, const char *ifname, struct err *e)
{
    const char *const argv[] = { path, ifname, NULL };
    pid_t pid;
    return spawn(argv, -1, &pid, e) && reap(pid, path, e);
}

/* The one descriptor of a message; -1 if the peer sent none. */
static int receive_fd(int sock)
{
    char byte;
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = { 0 };
    struct iovec iov = { &byte, 1 };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    ssize_t n;
    int fd = -1;
    do
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

int script_bridge_helper(const char *path, const char *bridge, struct err *e)
{
    int pair[2];
    char fd_arg[24], br_arg[64];
    pid_t pid;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        err_os(e, errno, "cannot make a socket");
        return -1;
    }
    snprintf(fd_arg, sizeof fd_arg, "--fd=%d", pair[1]);
    snprintf(br_arg, sizeof br_arg, "--br=%s", bridge);
    const char *const argv[] = { path, "--use-vnet", fd_arg, br_arg, NULL };
    bool ok = spawn(argv, pair[1], &pid, e);
    close(pair[1]);
    int fd = ok ? receive_fd(pair[0]) : -1;
    close(pair[0]);
    if (ok && !reap(pid, path, e)) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (ok && fd < 0)
        err_set(e, ERR_GENERIC, "'%s' sent no tap interface for bridge '%s'", path, bridge);
    return fd;
}
