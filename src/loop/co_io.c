/* SPDX-License-Identifier: MIT */
/* System calls that wait: on the ring where the loop has one, else on descriptors and workers. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "loop/loop_int.h"

#define LONG_TRANSFER (128u * 1024)

/* ---- time ---- */

static void sleep_over(void *arg) { co_ready(arg); }

void co_sleep_until(enum clock_id c, int64_t deadline_ns)
{
    struct timer t;
    timer_init(&t, c, loop_current(), NULL, sleep_over, co_self());
    timer_arm(&t, deadline_ns);
    co_suspend();
}

/* ---- workers ---- */

struct offload {
    struct offload_job job;
    struct post back;
    struct loop *loop;
    struct co *co;
    int (*fn)(void *);
    void *arg;
    int res;
};

static void offload_run(struct offload_job *job)
{
    struct offload *o = container_of(job, struct offload, job);
    struct loop *l = o->loop;
    o->res = o->fn(o->arg);
    loop_post(l, &o->back);         /* *o may be gone from here on */
    atomic_fetch_sub(&l->offloads, 1);
}

static void offload_back(void *arg) { co_resume(arg); }

int co_offload(int (*fn)(void *), void *arg)
{
    struct offload o = { .job.run = offload_run, .loop = loop_current(), .co = co_self(), .fn = fn, .arg = arg };
    o.back.fn = offload_back;
    o.back.arg = o.co;
    atomic_fetch_add(&o.loop->offloads, 1);
    offload_submit(&o.job);
    co_suspend();
    return o.res;
}

int co_offload_short(int (*fn)(void *), void *arg)
{
    return loop_current()->may_block ? fn(arg) : co_offload(fn, arg);
}

/* ---- the ring ---- */

#ifdef CONFIG_URING
struct ring_wait { struct ring_op op; struct co *co; int res; bool done; };

static void ring_done(struct ring_op *op, int res, unsigned flags)
{
    struct ring_wait *w = container_of(op, struct ring_wait, op);
    w->res = res;
    w->done = true;
    co_resume(w->co);
}

/* @sqe is prepared; queues it and waits for its result. */
static int ring_wait_for(struct io_uring_sqe *sqe)
{
    struct ring_wait w = { .op.done = ring_done, .co = co_self() };
    io_uring_sqe_set_data(sqe, &w.op);
    co_suspend();
    return w.res;
}
#endif

/* ---- descriptors ---- */

struct fd_wait { struct co *co; struct loop *loop; struct ring_op *op; struct loop_fd f; unsigned revents; bool timed_out, woken; };

static void fd_wake(struct fd_wait *w)
{
    if (!w->woken) {
        w->woken = true;
        co_ready(w->co);
    }
}

static void fd_ready(void *arg, unsigned revents)
{
    struct fd_wait *w = arg;
    loop_fd_watch(&w->f, 0);
    w->revents = revents;
    fd_wake(w);
}

static void fd_timeout(void *arg)
{
    struct fd_wait *w = arg;
    w->timed_out = true;
#ifdef CONFIG_URING
    if (w->op) {        /* the poll's own completion wakes us */
        struct io_uring_sqe *sqe = loop_sqe(w->loop);
        io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)w->op);
        io_uring_sqe_set_data(sqe, NULL);
        return;
    }
#endif
    fd_wake(w);
}

/* Without a ring: a duplicate, because an epoll set knows a descriptor once only and others may watch it. */
static int fd_wait_epoll(struct fd_wait *w, int fd, unsigned mask)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return -errno;
    loop_fd_init(&w->f, w->loop, NULL, copy, fd_ready, w);
    loop_fd_watch(&w->f, mask);
    co_suspend();
    loop_fd_watch(&w->f, 0);
    close(copy);
    return w->revents;
}

int co_fd(int fd, unsigned mask, int64_t deadline_ns)
{
    struct fd_wait w = { .co = co_self(), .loop = loop_current() };
    struct timer t;
    int r;
    timer_init(&t, CLOCK_HOST, w.loop, NULL, fd_timeout, &w);
    timer_arm(&t, deadline_ns);
#ifdef CONFIG_URING
    if (w.loop->uring) {
        struct ring_wait rw = { .op.done = ring_done, .co = w.co };
        struct io_uring_sqe *sqe = loop_sqe(w.loop);
        io_uring_prep_poll_add(sqe, fd, mask);
        io_uring_sqe_set_data(sqe, &rw.op);
        w.op = &rw.op;
        co_suspend();
        r = rw.res;
    } else
#endif
        r = fd_wait_epoll(&w, fd, mask);
    timer_fini(&t);
    return r <= 0 && w.timed_out ? -ETIMEDOUT : r;
}

/* ---- files ---- */

struct rw { int fd, n, flags; const struct iovec *iov; uint64_t off, len; ssize_t res; };

static int read_worker(void *arg)
{
    struct rw *r = arg;
    do
        r->res = preadv(r->fd, r->iov, r->n, (off_t)r->off);
    while (r->res < 0 && errno == EINTR);
    return r->res < 0 ? -errno : 0;
}

static int write_worker(void *arg)
{
    struct rw *r = arg;
    do
        r->res = pwritev2(r->fd, r->iov, r->n, (off_t)r->off, r->flags);
    while (r->res < 0 && errno == EINTR);
    return r->res < 0 ? -errno : 0;
}

static int sync_worker(void *arg)
{
    struct rw *r = arg;
    return fdatasync(r->fd) ? -errno : 0;
}

static int fallocate_worker(void *arg)
{
    struct rw *r = arg;
    int x;
    do
        x = fallocate(r->fd, r->flags, (off_t)r->off, (off_t)r->len);
    while (x && errno == EINTR);
    return x ? -errno : 0;
}

static bool long_transfer(const struct iovec *iov, int n)
{
    size_t len = 0;
    for (int i = 0; i < n && len < LONG_TRANSFER; i++)
        len += iov[i].iov_len;
    return len >= LONG_TRANSFER;
}

enum co_file co_file_kind(int fd, bool direct)
{
    struct stat st;
    struct statfs fs;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) /* not a node in /dev */ && !fstatfs(fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
        return CO_FILE_MEMORY;
    return direct ? CO_FILE_DISK : CO_FILE_CACHED;
}

/* A long copy for a loop with a mate: by that one, while it has less than it can do until we look again; else here. */
struct mate_read { struct rw *rw; enum co_file kind; struct loop *of; };

static void co_mate_read(void *arg)
{
    struct mate_read *m = arg;
    m->rw->res = co_preadv(m->rw->fd, m->rw->iov, m->rw->n, m->rw->off, m->kind);
    atomic_fetch_sub(&m->of->mate_reads, 1);
}

static bool co_read_by_mate(struct loop *l, struct rw *rw, enum co_file kind)
{
    enum { MATE_READS = 2 };            /* one that it is at, and the next */
    struct mate_read m = { rw, kind, l };
    if (!l->mate || atomic_load(&l->mate_reads) >= MATE_READS)
        return false;
    atomic_fetch_add(&l->mate_reads, 1);
    co_on_loop(l->mate, NULL, co_mate_read, &m);
    return true;
}

/*
 * A long read from the page cache is a copy that the ring would make on this thread as it is submitted: another makes it while the
 * loop goes on. (Of writes the ring knows by itself, and lets those to one file run one after the other.)
 * A short copy from or to memory is made here: the ring would hand it to a thread, because such file systems do not say that they
 * never wait. Where nothing else is served (loop_set_may_block()), any copy is, or the mate's: no wait for a thread to wake.
 */
ssize_t co_preadv(int fd, const struct iovec *iov, int n, uint64_t off, enum co_file kind)
{
    struct loop *l = loop_current();
    struct rw rw = { .fd = fd, .iov = iov, .n = n, .off = off };
    bool apart = kind != CO_FILE_DISK && long_transfer(iov, n);
    ssize_t got = -1;
    if (apart && co_read_by_mate(l, &rw, kind))
        return rw.res;
    if (kind == CO_FILE_MEMORY && (l->may_block || !apart))
        got = (read_worker(&rw), rw.res);
    else if (kind == CO_FILE_CACHED && l->may_block)
        got = preadv2(fd, iov, n, (off_t)off, RWF_NOWAIT);
    if (got >= 0) {
        if (apart && l->mate && atomic_load(&l->posts))
            co_yield();                 /* who has its bytes from the mate goes on, and gives it more to do */
        return got;
    }                                   /* else: not there yet, or a file system that cannot tell, or an error */
#ifdef CONFIG_URING
    for (int r = -EINTR; l->uring; ) {
        struct io_uring_sqe *sqe = loop_sqe(l);
        io_uring_prep_readv(sqe, fd, iov, (unsigned)n, off);
        if (apart)
            sqe->flags |= IOSQE_ASYNC;
        if ((r = ring_wait_for(sqe)) != -EINTR)
            return r;
    }
#endif
    int r = co_offload(read_worker, &rw);
    return r < 0 ? r : rw.res;
}

ssize_t co_pwritev(int fd, const struct iovec *iov, int n, uint64_t off, int rwf_flags, enum co_file kind)
{
    struct rw rw = { .fd = fd, .iov = iov, .n = n, .off = off, .flags = rwf_flags };
    bool copy = kind == CO_FILE_MEMORY || (kind == CO_FILE_CACHED && !(rwf_flags & RWF_DSYNC));
    if (copy && (loop_current()->may_block || (kind == CO_FILE_MEMORY && !long_transfer(iov, n)))) {
        int x = write_worker(&rw);
        return x < 0 ? x : rw.res;
    }
#ifdef CONFIG_URING
    struct loop *l = loop_current();
    for (int r = -EINTR; l->uring; ) {
        struct io_uring_sqe *sqe = loop_sqe(l);
        io_uring_prep_writev2(sqe, fd, iov, (unsigned)n, off, rwf_flags);
        if ((r = ring_wait_for(sqe)) != -EINTR)
            return r;
    }
#endif
    int r = co_offload(write_worker, &rw);
    return r < 0 ? r : rw.res;
}

int co_fdatasync(int fd)
{
#ifdef CONFIG_URING
    struct loop *l = loop_current();
    if (l->uring) {
        struct io_uring_sqe *sqe = loop_sqe(l);
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        return ring_wait_for(sqe);
    }
#endif
    struct rw rw = { .fd = fd };
    return co_offload(sync_worker, &rw);
}

int co_fallocate(int fd, int mode, uint64_t off, uint64_t len)
{
#ifdef CONFIG_URING
    struct loop *l = loop_current();
    for (int r = -EINTR; l->uring; ) {
        struct io_uring_sqe *sqe = loop_sqe(l);
        io_uring_prep_fallocate(sqe, fd, mode, (off_t)off, (off_t)len);
        if ((r = ring_wait_for(sqe)) != -EINTR)
            return r;
    }
#endif
    struct rw rw = { .fd = fd, .flags = mode, .off = off, .len = len };
    return co_offload(fallocate_worker, &rw);
}
