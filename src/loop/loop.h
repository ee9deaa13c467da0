/* SPDX-License-Identifier: MIT */
/*
 * Event loops, domains, timers, posts. A loop is a thread that serves file descriptors, timers, posts and coroutines; on
 * io_uring, or epoll and workers where io_uring is refused. A domain is one lock and one home loop (design: section 4);
 * whatever a loop calls for a domain is called with the domain's lock held.
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/list.h"

struct loop;
struct domain;

/* ---- loops ---- */
bool loop_main_init(struct err *e) MUST_CHECK;      /* the main thread's loop; once */
struct loop *loop_main(void);                       /* ANY */
struct loop *loop_current(void);                    /* the loop of this thread, NULL on others */
/* A loop with a thread of its own (-object iothread). */
struct loop *loop_new_thread(const char *name, struct err *e) MUST_CHECK;
void loop_free_thread(struct loop *l);              /* joins; nothing may be attached any more */
/* Serves events once; waits at most @max_wait_ns (-1: until something happens). LOOP (own thread only). */
void loop_run_once(struct loop *l, int64_t max_wait_ns);
bool loop_has_uring(const struct loop *l);
/* Nobody but the one command that a tool runs is served: short system calls are made in place. LOOP */
void loop_set_may_block(struct loop *l, bool may);
/*
 * Long reads (128 KiB) of what the host's memory holds are copies, which such a loop shares with a thread that it has for them from now
 * on: for who reads one piece while it works on another, or many pieces at once. LOOP
 */
void loop_set_reads_ahead(struct loop *l, bool ahead);

/* ---- domains ---- */
/* New domain at home on @l. @name is for debug output, borrowed for ever. */
struct domain *domain_new(struct loop *l, const char *name);
void domain_free(struct domain *d);                 /* nothing may be queued for it; waits for who is inside */
struct loop *domain_loop(const struct domain *d);
/* Framework only (mem, loop, dev, cpu): device code runs with it held. Asserts in debug builds: one domain a thread. */
void domain_lock(struct domain *d);
void domain_unlock(struct domain *d);
bool domain_locked(const struct domain *d);         /* by this thread; for assertions */
struct domain *domain_current(void);                /* held by this thread, or NULL */
/* Runs fn(arg) under the lock, now and here: for what a doorbell must have done when it returns. ANY, no domain held. */
void domain_call(struct domain *d, void (*fn)(void *arg), void *arg);

/* ---- posts: run something later on a loop, coalesced while pending ---- */
struct post {
    struct post *next;                  /* private */
    atomic_bool pending;                /* private */
    void (*fn)(void *arg);
    void *arg;
    struct domain *dom;                 /* its lock is held around fn; NULL: none */
};
/* Queues @p unless it is queued already; wakes the loop only if it sleeps. Memory stays the caller's. ANY, lock-free. */
void loop_post(struct loop *l, struct post *p);
/* To the domain's home loop (p->dom must be set). ANY. */
void domain_post(struct post *p);
/* Makes sure @p is neither queued nor running. LOOP, or any other with no domain lock held: waits for the loop then. */
void loop_post_cancel(struct loop *l, struct post *p);
/* Runs fn(arg) on @l (no domain held) and waits; from the loop's own thread it just calls. No domain lock may be held. */
void loop_call(struct loop *l, void (*fn)(void *), void *arg);

/*
 * A thread whose posts must not run beside it (a CPU that counts time in instructions) holds them back: they stay on this side until
 * loop_release_posts(), and @told is called after each. NULL: no longer. ANY; release: the thread that held them.
 */
void loop_hold_posts(void (*told)(void));
void loop_release_posts(void);
/*
 * Calls @done once, on some loop, when all loops rest: no post, no timer that is due, no coroutine that can go on, and none of the work
 * below under way. @next is the earliest VM timer then, INT64_MAX: none. A new call replaces the last; after the cancel it is not called.
 */
void loop_settle(void (*done)(void *arg, int64_t next), void *arg);
void loop_settle_cancel(void);
/*
 * Work that a guest waits for and no loop can see: a block request on its way to the host and back. ANY, in pairs. Counted from
 * loop_settle_enable() on, which comes before there is any.
 */
void loop_settle_enable(void);
void loop_work_begin(void);
void loop_work_end(void);

/* ---- file descriptors ---- */
enum { LOOP_IN = 1, LOOP_OUT = 4, LOOP_ERR = 8, LOOP_HUP = 16 };    /* POLL* values */
struct loop_fd {
    int fd;
    struct loop *loop;                  /* set by loop_fd_init */
    struct domain *dom;                 /* lock held around fn; NULL: none */
    void (*fn)(void *arg, unsigned revents);
    void *arg;
    unsigned mask, armed;               /* private */
    void *priv;                         /* private */
};
void loop_fd_init(struct loop_fd *f, struct loop *l, struct domain *dom, int fd, void (*fn)(void *, unsigned), void *arg);
/* Level triggered: fn is called while a wanted event holds. 0 stops watching; then fn is not called again. LOOP of @f. */
void loop_fd_watch(struct loop_fd *f, unsigned mask);

/* ---- clocks and timers ---- */
enum clock_id {
    CLOCK_VM,           /* ns; stands while the machine is stopped; stepped under qtest; from instructions under -icount */
    CLOCK_HOST,         /* ns; monotonic */
    CLOCK_WALL,         /* ns since the epoch; UTC. Timers on it follow steps within a second */
};
int64_t clock_now(enum clock_id c);     /* ANY */
void clock_vm_run(bool running);        /* run state: starts and stops CLOCK_VM. Main loop */
/* qtest: the VM clock moves only by clock_vm_step(); returns the new time. Timers due on every loop have run on return. Main loop. */
void clock_vm_set_manual(bool manual);
int64_t clock_vm_step(int64_t ns);
int64_t clock_vm_next_deadline(void);   /* earliest VM timer of all loops, INT64_MAX if none. Main loop */
void clock_vm_set(int64_t ns);          /* snapshot load */
/* Where CLOCK_VM comes from under -icount. All three: ANY. */
struct clock_source {
    int64_t (*now)(void *arg);
    void (*set)(void *arg, int64_t ns);             /* clock_vm_set(); may be NULL */
    void (*armed)(void *arg, int64_t deadline);     /* a VM timer was armed; may be NULL */
    void *arg;
};
void clock_vm_set_source(const struct clock_source *s);         /* NULL: back to the host's */

/* A timer with a domain that is armed and disarmed under its lock never fires after it was disarmed. */
struct timer {
    struct loop *loop; struct domain *dom; enum clock_id clock;
    void (*fn)(void *arg); void *arg;
    _Atomic int64_t want;               /* private: the deadline, INT64_MAX while not armed */
    int64_t key;                        /* private to the loop: heap order; @want may be newer */
    uint32_t slot, seq;                 /* private to the loop: heap index + 1; arming order */
    struct timer *rearm_next;           /* private: armed by another thread */
    atomic_bool rearm_pending;          /* private */
};
/* @dom NULL: on @l without a lock; else on the domain's home loop with its lock. */
void timer_init(struct timer *t, enum clock_id c, struct loop *l, struct domain *dom, void (*fn)(void *), void *arg);
/* (Re)arms for an absolute time, or INT64_MAX to disarm. ANY; fires at most once per arming. */
void timer_arm(struct timer *t, int64_t deadline_ns);
void timer_disarm(struct timer *t);
bool timer_armed(const struct timer *t);
/* After this it will not fire. LOOP of the timer, or any other with no domain lock held: waits for the loop then. */
void timer_fini(struct timer *t);

#endif
