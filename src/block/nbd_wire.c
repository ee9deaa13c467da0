/* SPDX-License-Identifier: MIT */
/* Bytes over a socket, for both sides of NBD, in the clear or through TLS. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include "block/nbd_proto.h"
#include "loop/co.h"

enum { TLS_CHUNK = 256 * 1024, TURN = 64 };

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

/* One transfer, as far as it goes without waiting: bytes, 0 at the end of the stream, or -errno. */
static ssize_t transfer(struct nbd_wire *w, struct iovec *iov, unsigned n, bool send)
{
    struct msghdr m = { .msg_iov = iov, .msg_iovlen = MIN(n, 1024u) };
    if (w->tls) {
        size_t len = MIN(iov->iov_len, (size_t)TLS_CHUNK);
        return send ? tls_write(w->tls, iov->iov_base, len) : tls_read(w->tls, iov->iov_base, len);
    }
    ssize_t k = send ? sendmsg(w->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) : recvmsg(w->fd, &m, MSG_DONTWAIT);
    return k < 0 ? -errno : k;
}

/* A peer that always has something to say, or takes all that is said, is not served to the end of its days. */
static int co_take_turns(struct nbd_wire *w)
{
    if (++w->turn < TURN)
        return 0;
    w->turn = 0;
    co_yield();
    return w->deadline && clock_now(CLOCK_HOST) >= w->deadline ? -ETIMEDOUT : 0;
}

static int co_all(struct nbd_wire *w, struct iovec *iov, unsigned n, bool send)
{
    advance(&iov, &n, 0);
    while (n) {
        ssize_t k = transfer(w, iov, n, send);
        if (k > 0) {
            advance(&iov, &n, (size_t)k);
            int r = co_take_turns(w);
            if (r)
                return r;
        } else if (!k) {
            return -EPIPE;
        } else if (k == -EAGAIN || k == -EWOULDBLOCK) {
            int r = co_fd(w->fd, send ? LOOP_OUT : LOOP_IN, w->deadline ? w->deadline : INT64_MAX);
            if (r < 0)
                return r;
        } else if (k != -EINTR) {
            return (int)k;
        }
    }
    return 0;
}

int co_nbd_send(struct nbd_wire *w, struct iovec *iov, unsigned n) { return co_all(w, iov, n, true); }
int co_nbd_recvv(struct nbd_wire *w, struct iovec *iov, unsigned n) { return co_all(w, iov, n, false); }

int co_nbd_recv(struct nbd_wire *w, void *buf, size_t len)
{
    struct iovec v = { buf, len };
    return co_all(w, &v, 1, false);
}

int co_nbd_skip(struct nbd_wire *w, uint32_t len)
{
    uint8_t buf[4096];
    int r = 0;
    for (; len && !r; len -= MIN(len, (uint32_t)sizeof buf))
        r = co_nbd_recv(w, buf, MIN(len, (uint32_t)sizeof buf));
    return r;
}

void nbd_wire_close(struct nbd_wire *w)
{
    if (w->tls)
        tls_bye(w->tls);
    tls_free(w->tls);
    w->tls = NULL;
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}
