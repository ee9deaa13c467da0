/* SPDX-License-Identifier: MIT */
#include "net/frame_fd.h"

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"

enum { READ_BATCH = 64 };

static void frame_fd_watch(struct frame_fd *f)
{
    loop_fd_watch(&f->lf, (f->in_len ? 0 : LOOP_IN) | (f->out_full ? LOOP_OUT : 0));
}

/* False: the guest has no room. */
static bool frame_fd_deliver(struct frame_fd *f)
{
    struct iovec iov = { f->in, f->in_len };
    if (!net_send(f->port, &iov, 1))
        return false;
    f->in_len = 0;
    return true;
}

static void frame_fd_event(void *arg, unsigned ev)
{
    struct frame_fd *f = arg;
    if ((ev & (LOOP_OUT | LOOP_ERR)) && f->out_full) {
        f->out_full = false;
        net_port_ready(f->port);
    }
    for (int i = 0; i < READ_BATCH && !f->in_len; i++) {
        ssize_t n = f->read(f->arg, f->in, NET_MAX_PACKET);
        if (n < 0 && errno != ECONNREFUSED && errno != EINTR)
            break;                      /* ECONNREFUSED: a peer was not there when we sent */
        f->in_len = n > 0 ? (size_t)n : 0;
        if (f->in_len)
            frame_fd_deliver(f);
    }
    frame_fd_watch(f);
}

void frame_fd_start(struct frame_fd *f, struct net_port *port, int fd, ssize_t (*read)(void *, uint8_t *, size_t), void *arg)
{
    f->port = port;
    f->read = read;
    f->arg = arg;
    f->in = xcalloc(1, NET_MAX_PACKET);
    loop_fd_init(&f->lf, loop_main(), NULL, fd, frame_fd_event, f);
    frame_fd_watch(f);
}

void frame_fd_stop(struct frame_fd *f)
{
    if (f->in)
        loop_fd_watch(&f->lf, 0);
    free(f->in);
    f->in = NULL;
}

void frame_fd_full(struct frame_fd *f)
{
    f->out_full = true;
    frame_fd_watch(f);
}

void frame_fd_room(struct frame_fd *f)
{
    if (f->in_len && frame_fd_deliver(f))
        frame_fd_watch(f);
}
