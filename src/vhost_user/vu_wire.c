/* SPDX-License-Identifier: MIT */
#include "vhost_user/vu_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "loop/co.h"

int vu_fds_take(struct vu_fds *f)
{
    int fd = f->n ? f->fd[0] : -1;
    if (fd < 0)
        return -1;
    f->n--;
    memmove(f->fd, f->fd + 1, f->n * sizeof f->fd[0]);
    return fd;
}

void vu_fds_close(struct vu_fds *f)
{
    while (f->n)
        close(f->fd[--f->n]);
}

static bool collect_fds(struct msghdr *h, struct vu_fds *f)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (f->n < VU_FDS)
                f->fd[f->n++] = fd;
            else
                close(fd);
        }
    }
    return !(h->msg_flags & MSG_CTRUNC);
}

int vu_receive_now(int sock, void *buf, size_t n, struct vu_fds *fds)
{
    union { char buf[CMSG_SPACE(VU_FDS * sizeof(int))]; struct cmsghdr align; } ctl;
    struct iovec v = { buf, n };
    struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof ctl.buf };
    ssize_t k = recvmsg(sock, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (k < 0)
        return -errno;
    return collect_fds(&h, fds) ? (int)k : -EMSGSIZE;
}

int co_vu_receive(int sock, void *buf, size_t n, struct vu_fds *fds, int64_t deadline)
{
    for (size_t at = 0; at < n;) {
        int k = vu_receive_now(sock, (char *)buf + at, n - at, fds);
        if (k == 0)
            return -ECONNRESET;
        if (k == -EAGAIN)
            k = co_fd(sock, LOOP_IN, deadline) < 0 ? -ETIMEDOUT : 0;
        if (k < 0 && k != -EINTR)
            return k;
        at += k > 0 ? (size_t)k : 0;
    }
    return 0;
}

int co_vu_send(int sock, const void *data, size_t n, const struct vu_fds *pass, int64_t deadline)
{
    const char *p = data;
    while (n) {
        union { char buf[CMSG_SPACE(VU_FDS * sizeof(int))]; struct cmsghdr align; } ctl = { .buf = { 0 } };
        struct iovec v = { (void *)p, n };
        struct msghdr h = { .msg_iov = &v, .msg_iovlen = 1 };
        if (pass && pass->n) {
            h.msg_control = ctl.buf;
            h.msg_controllen = CMSG_SPACE(pass->n * sizeof(int));
            struct cmsghdr *cm = CMSG_FIRSTHDR(&h);
            cm->cmsg_level = SOL_SOCKET;
            cm->cmsg_type = SCM_RIGHTS;
            cm->cmsg_len = CMSG_LEN(pass->n * sizeof(int));
            memcpy(CMSG_DATA(cm), pass->fd, pass->n * sizeof(int));
        }
        ssize_t k = sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno == EAGAIN && co_fd(sock, LOOP_OUT, deadline) < 0)
            return -ETIMEDOUT;
        if (k < 0 && errno != EAGAIN && errno != EINTR)
            return errno == EPIPE ? -ECONNRESET : -errno;
        if (k > 0) {
            p += k;
            n -= (size_t)k;
            pass = NULL;
        }
    }
    return 0;
}
