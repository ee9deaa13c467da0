/* SPDX-License-Identifier: MIT */
/*
 * Grace periods by number. A reader notes the current number when it enters; a writer raises the number and waits until
 * every reader is outside or noted the new one. The number has 64 bits and never wraps, so one pass is enough: a reader
 * that noted an old number too late to be seen has not loaded any pointer before the writer's barrier.
 */
#include "base/rcu.h"

#include <assert.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/thread.h"

_Thread_local struct rcu_reader rcu_self;
atomic_uint_least64_t rcu_period = 1;
bool rcu_fence_readers = true;

static pthread_mutex_t readers_lock = PTHREAD_MUTEX_INITIALIZER;    /* list of readers */
static struct list readers = LIST_INIT(readers);
static pthread_mutex_t period_lock = PTHREAD_MUTEX_INITIALIZER;     /* one grace period at a time; taken first */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;

static void reader_thread_ends(void *unused)
{
    rcu_thread_unregister();
}

static void rcu_init(void)
{
    pthread_key_create(&exit_key, reader_thread_ends);
#ifndef RCU_TSAN_
    /* Before any reader exists, so that nobody sees the flag change. */
    rcu_fence_readers = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0;
#endif
}

void rcu_thread_register(void)
{
    struct rcu_reader *r = &rcu_self;
    if (r->registered)
        return;
    pthread_once(&once, rcu_init);
    pthread_mutex_lock(&readers_lock);
    list_push(&readers, &r->link);
    pthread_mutex_unlock(&readers_lock);
    r->registered = true;
    pthread_setspecific(exit_key, r);
}

void rcu_thread_unregister(void)
{
    struct rcu_reader *r = &rcu_self;
    if (!r->registered)
        return;
    assert(!r->depth);
    pthread_mutex_lock(&readers_lock);
    list_del(&r->link);
    pthread_mutex_unlock(&readers_lock);
    r->registered = false;
    pthread_setspecific(exit_key, NULL);
}

/* Orders everything before against what readers do after; pairs with the compiler barrier in rcu_enter_(). */
static void writer_barrier(void)
{
#ifndef RCU_TSAN_
    atomic_thread_fence(memory_order_seq_cst);
    if (!rcu_fence_readers)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
#endif
}

/* True if no registered reader is in a section older than @period. */
static bool all_passed(uint64_t period)
{
    bool ok = true;
    struct rcu_reader *r;
    pthread_mutex_lock(&readers_lock);
    list_for_each(r, &readers, link) {
        uint64_t seen = atomic_load_explicit(&r->seen, memory_order_acquire);
        ok &= seen == 0 || seen >= period;
    }
    pthread_mutex_unlock(&readers_lock);
    return ok;
}

void rcu_synchronize(void)
{
    assert(!rcu_self.depth);
    pthread_once(&once, rcu_init);
    pthread_mutex_lock(&period_lock);
    uint64_t period = atomic_fetch_add_explicit(&rcu_period, 1, memory_order_seq_cst) + 1;
    writer_barrier();
    /* Sections last microseconds: give way a few times, then nap for ever longer, at most 1 ms. */
    for (unsigned tries = 0; !all_passed(period); tries++) {
        if (tries < 8) {
            sched_yield();
            continue;
        }
        struct timespec nap = { .tv_nsec = 10000l << MIN(tries - 8, 7u) };
        if (nap.tv_nsec > 1000000)
            nap.tv_nsec = 1000000;
        nanosleep(&nap, NULL);
    }
    writer_barrier();
    pthread_mutex_unlock(&period_lock);
}

/* ---- deferred calls: a thread of their own, started by the first ---- */
static pthread_mutex_t calls_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t calls_new = PTHREAD_COND_INITIALIZER, calls_done = PTHREAD_COND_INITIALIZER;
static struct rcu_head *calls, **calls_tail = &calls;
static uint64_t calls_made, calls_run;
static bool thread_up;

static void *rcu_thread(void *unused)
{
    pthread_mutex_lock(&calls_lock);
    for (;;) {
        while (!calls)
            pthread_cond_wait(&calls_new, &calls_lock);
        struct rcu_head *h = calls;
        uint64_t upto = calls_made;
        calls = NULL;
        calls_tail = &calls;
        pthread_mutex_unlock(&calls_lock);
        rcu_synchronize();
        while (h) {
            struct rcu_head *next = h->next;
            h->fn(h);
            h = next;
        }
        pthread_mutex_lock(&calls_lock);
        calls_run = upto;
        pthread_cond_broadcast(&calls_done);
    }
    return NULL;
}

static bool rcu_thread_start(void)
{
    pthread_t t;
    pthread_once(&once, rcu_init);      /* now: in a process of several threads the kernel takes milliseconds to enter it for membarrier() */
    bool ok = thread_start(&t, "rcu", rcu_thread, NULL) == 0;
    if (ok)
        pthread_detach(t);
    return ok;
}

void rcu_call(struct rcu_head *h, void (*fn)(struct rcu_head *))
{
    h->next = NULL;
    h->fn = fn;
    pthread_mutex_lock(&calls_lock);
    *calls_tail = h;
    calls_tail = &h->next;
    calls_made++;
    if (!thread_up)
        thread_up = rcu_thread_start();     /* failed: the next call tries again */
    pthread_cond_signal(&calls_new);
    pthread_mutex_unlock(&calls_lock);
}

void rcu_barrier(void)
{
    assert(!rcu_self.depth);
    pthread_mutex_lock(&calls_lock);
    uint64_t upto = calls_made;
    while (thread_up && calls_run < upto)
        pthread_cond_wait(&calls_done, &calls_lock);
    pthread_mutex_unlock(&calls_lock);
}
