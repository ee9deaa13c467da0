/* SPDX-License-Identifier: MIT */
/* What the files of src/loop share; never included from outside. */
#ifndef LOOP_INT_H
#define LOOP_INT_H

#include <sys/epoll.h>
#ifdef CONFIG_URING
#include <liburing.h>
#endif
#include "loop/co.h"
#include "loop/loop.h"

enum { N_CLOCKS = 3, EPOLL_BATCH = 64 };

/* A request in flight on the ring; lives where its submitter waits (mostly a coroutine's stack). */
struct ring_op {
    void (*done)(struct ring_op *op, int res, unsigned cqe_flags);
};

/* Binary heap of timers, earliest deadline first, equal deadlines in arming order. */
struct timer_heap { struct timer **v; uint32_t n, cap; };

struct co_list { struct co *first, *last; };

struct loop {
    struct list link;                       /* in the list of all loops */
    char name[16];
    pthread_t thread;
    bool has_thread, uring;
    bool may_block;                         /* see loop_set_may_block() */
    atomic_bool stop;                       /* loop_free_thread() asks */
    _Atomic int64_t poll_ns;                /* busy polling before a sleep; 0: none */

    struct loop *mate;                      /* makes long reads beside this one; see loop_set_reads_ahead() */

    /* written by other threads */
    atomic_uint mate_reads;                 /* that ->mate was given and has not made yet */
    _Atomic(struct post *) posts;           /* LIFO; reversed when taken */
    _Atomic(struct timer *) rearm;          /* timers armed by other threads */
    _Atomic(struct post *) held;            /* posts that loop_hold_posts() keeps back; LIFO */
    atomic_uint settled;                    /* the round of settle.c in which it has reported that it rests */
    atomic_bool sleeping;                   /* a post must write wake_fd */
    _Atomic int64_t sleep_until[N_CLOCKS];  /* deadline that ends the sleep by itself; valid while sleeping */
    atomic_uint offloads;                   /* worker jobs that will still post here */

    /* this thread only from here on */
    struct post *local, **local_end;        /* posts taken, oldest first */
    unsigned n_local;
    struct timer_heap heap[N_CLOCKS];
    uint32_t timer_seq;
    int64_t wall_set;                       /* what the timerfd is set to; INT64_MAX: not */
    struct loop_fd wall_fd;                 /* timerfd on the real-time clock, opened with the first CLOCK_WALL timer */
    struct co_list ready, yielded;
    struct co *pool;
    unsigned pooled;

    int epfd, wake_fd;
    unsigned watched;                       /* fds in epfd */
    struct list always;                     /* loop_fds that epoll refuses because they are always ready */
    struct epoll_event ev[EPOLL_BATCH];     /* the batch being dispatched: [ev_at, ev_n) is still to come */
    int ev_at, ev_n;
    bool ep_ready;
#ifdef CONFIG_URING
    struct io_uring ring;
    struct ring_op wake_op, ep_op;
    bool wake_armed, ep_armed;
#endif
};

/* loop.c */
void loop_kick(struct loop *l);             /* ends a sleep. ANY */
void loop_each(void (*fn)(struct loop *, void *), void *arg);   /* every loop; main loop */
/* Every loop, from any thread: @fn only looks and wakes. */
void loop_each_locked(void (*fn)(struct loop *, void *), void *arg);
/* Runs timers, posts and ready coroutines that are due; true if there was anything. LOOP */
bool loop_run_local(struct loop *l);

/* loop_io.c */
bool loop_io_init(struct loop *l, struct err *e) MUST_CHECK;
void loop_io_fini(struct loop *l);
/* Submits, waits at most @ns (-1: for ever), dispatches completions and descriptors; true if there were any. LOOP */
bool loop_io_wait(struct loop *l, int64_t ns);
#ifdef CONFIG_URING
/* The next submission entry, never NULL. The caller prepares it and then sets a struct ring_op as its data. LOOP */
struct io_uring_sqe *loop_sqe(struct loop *l);
#endif

/* settle.c: the loop has nothing to do and is about to sleep. LOOP */
void settle_report(struct loop *l);

/* timer.c */
void timers_take_rearmed(struct loop *l);
bool timers_run(struct loop *l);
/* Nanoseconds until the earliest timer that host time makes due, -1 if there is none. Sets the timerfd as needed. */
int64_t timers_wait_ns(struct loop *l);
void timers_fini(struct loop *l);

/* co.c */
void co_suspend(void);                      /* until co_ready(); drops the domain lock meanwhile */
void co_ready(struct co *co);               /* LOOP: runs soon */
void co_resume(struct co *co);              /* LOOP, no domain held: runs now */
bool co_run_ready(struct loop *l);
void co_pool_fini(struct loop *l);
/* Stacks with mappings of their own, of all loops; 0: as many as the host lets us. Tests make it small. */
extern unsigned co_guarded_max;

/* offload.c */
struct offload_job { struct offload_job *next; void (*run)(struct offload_job *); };
void offload_submit(struct offload_job *job);   /* ANY */

#endif
