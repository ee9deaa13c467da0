/* SPDX-License-Identifier: MIT */
/* Bytes over a socket, for both sides of NBD. */
#include <errno.h>
#include <sys/socket.h>
#include "block/nbd_proto.h"
#include "loop/co.h"

/* Leaves out the first @k bytes of *@iov. */
static void advance(struct iovec **iov, unsigned *n, size_t k)
{
    while (*n && k >= (*iov)->iov_len) {
        k -= (*iov)->iov_len;
        ++*iov;
        --*n;
    }
    if (k) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + k;
        (*iov)->iov_len -= k;
    }
}

static int co_all(int fd, struct iovec *iov, unsigned n, bool send)
{
    advance(&iov, &n, 0);
    while (n) {
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = MIN(n, 1024u) };
        ssize_t k = send ? sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) : recvmsg(fd, &m, MSG_DONTWAIT);
        if (k > 0) {
            advance(&iov, &n, (size_t)k);
        } else if (!k) {
            return -EPIPE;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            int r = co_fd(fd, send ? LOOP_OUT : LOOP_IN, INT64_MAX);
            if (r < 0)
                return r;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int co_nbd_send(int fd, struct iovec *iov, unsigned n) { return co_all(fd, iov, n, true); }
int co_nbd_recvv(int fd, struct iovec *iov, unsigned n) { return co_all(fd, iov, n, false); }

int co_nbd_recv(int fd, void *buf, size_t len)
{
    struct iovec v = { buf, len };
    return co_all(fd, &v, 1, false);
}
