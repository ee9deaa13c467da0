/* SPDX-License-Identifier: MIT */
/*
 * How a loop waits. Descriptors are watched by an epoll set in both modes (level triggered, changed by one synchronous
 * call, closed without a lingering reference). With io_uring the ring waits, for file I/O and for the epoll set alike, and
 * one system call an iteration submits and waits; without it epoll waits and file I/O goes to the workers.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/str.h"
#include "loop/loop_int.h"

enum { RING_ENTRIES = 256, CQE_BATCH = 64 };

/* ---- descriptors ---- */

struct always_on { struct list link; struct loop_fd *f; };

void loop_fd_init(struct loop_fd *f, struct loop *l, struct domain *dom, int fd, void (*fn)(void *, unsigned), void *arg)
{
    *f = (struct loop_fd){ .fd = fd, .loop = l, .dom = dom, .fn = fn, .arg = arg };
}

/* Events of @f that were fetched but not dispatched yet must not reach it any more. */
static void batch_forget(struct loop *l, struct loop_fd *f)
{
    for (int i = l->ev_at; i < l->ev_n; i++)
        if (l->ev[i].data.ptr == f)
            l->ev[i].data.ptr = NULL;
}

static void unwatch(struct loop *l, struct loop_fd *f)
{
    if (f->priv) {
        struct always_on *a = f->priv;
        list_del(&a->link);
        free(a);
        f->priv = NULL;
    } else {
        epoll_ctl(l->epfd, EPOLL_CTL_DEL, f->fd, NULL);     /* fails only if the caller closed it first: then it is gone */
        l->watched--;
    }
    batch_forget(l, f);
}

static void watch_new(struct loop *l, struct loop_fd *f, unsigned mask)
{
    struct epoll_event ev = { .events = mask, .data.ptr = f };
    if (!epoll_ctl(l->epfd, EPOLL_CTL_ADD, f->fd, &ev)) {
        l->watched++;
        return;
    }
    /* EPERM: a regular file, which is ready at any time. Anything else is shown to the owner as an error, not lost. */
    struct always_on *a = xnew(struct always_on);
    a->f = f;
    if (errno != EPERM)
        f->armed = LOOP_ERR;
    f->priv = a;
    list_push(&l->always, &a->link);
}

void loop_fd_watch(struct loop_fd *f, unsigned mask)
{
    struct loop *l = f->loop;
    assert(loop_current() == l);
    if (mask == f->mask)
        return;
    if (!mask) {
        unwatch(l, f);
    } else if (!f->mask) {
        f->armed = 0;
        watch_new(l, f, mask);
    } else if (!f->priv) {
        struct epoll_event ev = { .events = mask, .data.ptr = f };
        epoll_ctl(l->epfd, EPOLL_CTL_MOD, f->fd, &ev);
    }
    f->mask = mask;
}

static void fd_call(struct loop_fd *f, unsigned revents)
{
    struct domain *d = f->dom;
    revents &= f->mask | LOOP_ERR | LOOP_HUP;
    if (!revents)
        return;
    if (d)
        domain_lock(d);
    if (f->mask)
        f->fn(f->arg, revents);
    if (d)
        domain_unlock(d);
}

static bool dispatch_batch(struct loop *l, int n)
{
    l->ev_n = n;
    for (l->ev_at = 0; l->ev_at < l->ev_n;) {
        struct epoll_event *ev = &l->ev[l->ev_at++];
        if (ev->data.ptr)
            fd_call(ev->data.ptr, ev->events);
    }
    l->ev_at = l->ev_n = 0;
    return n > 0;
}

static bool dispatch_always(struct loop *l)
{
    if (list_empty(&l->always))
        return false;
    struct list done = LIST_INIT(done);
    struct list *n;
    while ((n = list_pop(&l->always))) {    /* one at a time: fn may unwatch any of them */
        list_push(&done, n);
        struct loop_fd *f = list_entry(n, struct always_on, link)->f;
        fd_call(f, f->armed ? f->armed : f->mask);
    }
    while ((n = list_pop(&done)))
        list_push(&l->always, n);
    return true;
}

/* epoll_wait with nanoseconds. */
static int epoll_ns(struct loop *l, int64_t ns)
{
    struct timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
    int n = epoll_pwait2(l->epfd, l->ev, EPOLL_BATCH, ns < 0 ? NULL : &ts, NULL);
    if (n < 0 && (errno == ENOSYS || errno == EPERM))
        n = epoll_wait(l->epfd, l->ev, EPOLL_BATCH, ns < 0 ? -1 : (int)MIN((ns + 999999) / 1000000, 1 << 30));
    return n;
}

/* ---- io_uring ---- */

#ifdef CONFIG_URING
/* Polls: the wake descriptor for the life of the loop, the epoll set anew each time, because one shot sees levels. */
static void wake_done(struct ring_op *op, int res, unsigned flags)
{
    struct loop *l = container_of(op, struct loop, wake_op);
    if (!(flags & IORING_CQE_F_MORE))
        l->wake_armed = false;
}

static void ep_done(struct ring_op *op, int res, unsigned flags)
{
    struct loop *l = container_of(op, struct loop, ep_op);
    l->ep_armed = false;
    l->ep_ready = true;
}

struct io_uring_sqe *loop_sqe(struct loop *l)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&l->ring)))
        io_uring_submit(&l->ring);
    return sqe;
}

static bool ring_init(struct loop *l)
{
    static const unsigned tries[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_COOP_TASKRUN, 0,
    };
    if (getenv("BACKPLANE_NO_URING"))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(tries); i++) {
        struct io_uring_params p = { .flags = tries[i] | IORING_SETUP_CQSIZE, .cq_entries = RING_ENTRIES * 8 };
        if (io_uring_queue_init_params(RING_ENTRIES, &l->ring, &p))
            continue;
        if ((p.features & IORING_FEAT_EXT_ARG) && (p.features & IORING_FEAT_CQE_SKIP) && (p.features & IORING_FEAT_NODROP)) {
            io_uring_ring_dontfork(&l->ring);
            return true;
        }
        io_uring_queue_exit(&l->ring);
        return false;
    }
    return false;
}

static void ring_arm(struct loop *l)
{
    if (!l->wake_armed) {
        struct io_uring_sqe *sqe = loop_sqe(l);
        io_uring_prep_poll_multishot(sqe, l->wake_fd, LOOP_IN);
        l->wake_op.done = wake_done;
        io_uring_sqe_set_data(sqe, &l->wake_op);
        l->wake_armed = true;
    }
    if (!l->ep_armed && l->watched) {
        struct io_uring_sqe *sqe = loop_sqe(l);
        io_uring_prep_poll_add(sqe, l->epfd, LOOP_IN);
        l->ep_op.done = ep_done;
        io_uring_sqe_set_data(sqe, &l->ep_op);
        l->ep_armed = true;
    }
}

static bool ring_reap(struct loop *l)
{
    struct io_uring_cqe *cqes[CQE_BATCH];
    struct { struct ring_op *op; int res; unsigned flags; } c[CQE_BATCH];
    bool any = false;
    for (unsigned n = CQE_BATCH; n == CQE_BATCH;) {
        n = io_uring_peek_batch_cqe(&l->ring, cqes, CQE_BATCH);
        for (unsigned i = 0; i < n; i++) {
            c[i].op = io_uring_cqe_get_data(cqes[i]);
            c[i].res = cqes[i]->res;
            c[i].flags = cqes[i]->flags;
        }
        io_uring_cq_advance(&l->ring, n);
        for (unsigned i = 0; i < n; i++)
            if (c[i].op)
                c[i].op->done(c[i].op, c[i].res, c[i].flags);
        any |= n > 0;
    }
    return any;
}

static bool ring_wait(struct loop *l, int64_t ns)
{
    ring_arm(l);
    if (ns) {
        struct __kernel_timespec ts = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
        struct io_uring_cqe *cqe;
        io_uring_submit_and_wait_timeout(&l->ring, &cqe, 1, ns < 0 ? NULL : &ts, NULL);
    } else {
        io_uring_submit_and_get_events(&l->ring);
    }
    atomic_store_explicit(&l->sleeping, false, memory_order_relaxed);
    bool any = ring_reap(l);
    if (l->ep_ready) {
        l->ep_ready = false;
        any |= dispatch_batch(l, epoll_wait(l->epfd, l->ev, EPOLL_BATCH, 0));
    }
    return dispatch_always(l) || any;
}
#endif

/* ---- both ---- */

bool loop_io_init(struct loop *l, struct err *e)
{
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->epfd < 0 || l->wake_fd < 0)
        goto fail;
#ifdef CONFIG_URING
    l->uring = ring_init(l);
#endif
    if (!l->uring) {
        /* Edge triggered: each write is one event, nobody reads the counter. */
        struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
        if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wake_fd, &ev))
            goto fail;
    }
    return true;
fail:
    err_os(e, errno, "cannot make an event loop");
    loop_io_fini(l);
    return false;
}

void loop_io_fini(struct loop *l)
{
#ifdef CONFIG_URING
    if (l->uring)
        io_uring_queue_exit(&l->ring);
#endif
    if (l->epfd >= 0)
        close(l->epfd);
    l->epfd = -1;
}

bool loop_io_wait(struct loop *l, int64_t ns)
{
#ifdef CONFIG_URING
    if (l->uring)
        return ring_wait(l, ns);
#endif
    int n = epoll_ns(l, ns);
    atomic_store_explicit(&l->sleeping, false, memory_order_relaxed);
    bool any = dispatch_batch(l, n);
    return dispatch_always(l) || any;
}
