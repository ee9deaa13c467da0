/* SPDX-License-Identifier: MIT */
#include "chardev/chr_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_CHUNK = 4096, BLOCKING_CHUNK = 512 };

int chr_fd_reopen(int fd, int flags)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || isatty(fd))) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int n = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (n >= 0)
            return n;
    }
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* Regular files and some devices refuse to be polled; they are always ready. */
static bool fd_pollable(int fd)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN };
    bool ok = ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0 || errno != EPERM;
    if (ep >= 0)
        close(ep);
    return ok;
}

static bool fd_is_sock(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static void fds_eof(struct chr_fds *s)
{
    s->in_eof = true;
    loop_fd_watch(&s->lin, 0);
    if (s->on_eof)
        s->on_eof(s->c);
}

/* Reads once; false when there is no room, nothing to read, or the end. */
static bool fds_read(struct chr_fds *s)
{
    uint8_t buf[READ_CHUNK];
    size_t room = chr_rx_room(s->c);
    if (!room || s->in_eof)
        return false;
    size_t want = MIN(room, sizeof buf);
    ssize_t n = s->in_sock ? recv(s->in, buf, want, MSG_DONTWAIT) : read(s->in, buf, want);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        fds_eof(s);
        return false;
    }
    chr_rx(s->c, buf, (size_t)n);
    return true;
}

static void fds_readable(void *arg, unsigned revents)
{
    struct chr_fds *s = arg;
    fds_read(s);
    if (!s->in_eof && !chr_rx_room(s->c))
        loop_fd_watch(&s->lin, 0);
}

static void fds_again(void *arg)
{
    struct chr_fds *s = arg;
    if (fds_read(s))
        loop_post(loop_main(), &s->again);
}

static void fds_writable(void *arg, unsigned revents)
{
    struct chr_fds *s = arg;
    loop_fd_watch(&s->lout, 0);
    chr_tx_ready(s->c);
}

void chr_fds_init(struct chr_fds *s, struct chr *c, int in, int out)
{
    if (in >= 0 && in == out)
        out = fcntl(in, F_DUPFD_CLOEXEC, 3);
    *s = (struct chr_fds){ .c = c, .in = in, .out = out, .again = { .fn = fds_again, .arg = s } };
    if (in >= 0) {
        s->in_sock = fd_is_sock(in);
        s->in_ready = !fd_pollable(in);
        loop_fd_init(&s->lin, loop_main(), NULL, in, fds_readable, s);
    }
    if (out >= 0) {
        s->out_sock = fd_is_sock(out);
        s->out_ready = !fd_pollable(out);
        loop_fd_init(&s->lout, loop_main(), NULL, out, fds_writable, s);
    }
}

void chr_fds_resume(struct chr_fds *s)
{
    if (s->in < 0 || s->in_eof || !chr_rx_room(s->c))
        return;
    if (s->in_ready)
        loop_post(loop_main(), &s->again);
    else
        loop_fd_watch(&s->lin, LOOP_IN);
}

ssize_t chr_fds_write(struct chr_fds *s, const uint8_t *buf, size_t n)
{
    ssize_t r;
    if (s->out < 0)
        return (ssize_t)n;
    if (s->out_sock) {
        r = send(s->out, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (s->out_ready || (fcntl(s->out, F_GETFL) & O_NONBLOCK)) {
        r = write(s->out, buf, n);
    } else {                                    /* a description that we must not make non-blocking */
        struct pollfd p = { .fd = s->out, .events = POLLOUT };
        if (poll(&p, 1, 0) == 0)
            r = -1, errno = EAGAIN;
        else
            r = write(s->out, buf, MIN(n, (size_t)BLOCKING_CHUNK));
    }
    if (r >= 0)
        return r;
    if (errno != EAGAIN && errno != EINTR)
        return -errno;
    loop_fd_watch(&s->lout, LOOP_OUT);
    return -EAGAIN;
}

void chr_fds_close(struct chr_fds *s)
{
    if (!s->c)
        return;
    loop_post_cancel(loop_main(), &s->again);
    if (s->in >= 0) {
        loop_fd_watch(&s->lin, 0);
        close(s->in);
    }
    if (s->out >= 0) {
        loop_fd_watch(&s->lout, 0);
        close(s->out);
    }
    s->in = s->out = -1;
    s->c = NULL;
}
