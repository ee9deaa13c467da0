/* SPDX-License-Identifier: MIT */
/*
 * Read-copy-update. Readers mark sections with rcu_read_lock/unlock (nestable, a few ns, never waits); a writer publishes
 * a new version with a release store and frees the old one after a grace period: when every section that could hold the
 * old pointer has ended. Thread: ANY unless said otherwise.
 *
 * A thread that stays in a section for long (a vCPU in its run loop) calls rcu_quiescent() every few microseconds; pointers that it
 * keeps beyond that (in its TLB) are dropped by whoever is told of the change. No thread sleeps inside a section.
 */
#ifndef BASE_RCU_H
#define BASE_RCU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/bits.h"
#include "base/list.h"

#if defined(__SANITIZE_THREAD__)
#define RCU_TSAN_ 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RCU_TSAN_ 1
#endif
#endif

/* Per thread; reached through rcu_self only. */
struct rcu_reader {
    atomic_uint_least64_t seen;     /* 0: outside; else the grace period number at entry */
    unsigned depth;
    bool registered;
    struct list link;
};
extern _Thread_local struct rcu_reader rcu_self;
extern atomic_uint_least64_t rcu_period;
extern bool rcu_fence_readers;      /* no membarrier(2): readers pay for a full fence */

/* Joins the set of readers. The first section of a thread does it too; threads leave by themselves when they end. */
void rcu_thread_register(void);
void rcu_thread_unregister(void);

static inline void rcu_enter_(struct rcu_reader *r)
{
    uint64_t now = atomic_load_explicit(&rcu_period, memory_order_relaxed);
#ifdef RCU_TSAN_
    atomic_exchange_explicit(&r->seen, now, memory_order_seq_cst);
#else
    atomic_store_explicit(&r->seen, now, memory_order_relaxed);
    if (unlikely(rcu_fence_readers))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);  /* the writer's membarrier does the rest */
#endif
}
static inline void rcu_read_lock(void)
{
    struct rcu_reader *r = &rcu_self;
    if (r->depth++)
        return;
    if (unlikely(!r->registered))
        rcu_thread_register();
    rcu_enter_(r);
}
static inline void rcu_read_unlock(void)
{
    struct rcu_reader *r = &rcu_self;
    if (--r->depth == 0)
        atomic_store_explicit(&r->seen, 0, memory_order_release);
}
static inline bool rcu_reading(void) { return rcu_self.depth != 0; }
/* Inside an outermost section: as unlock and lock. Pointers read before are no longer good. */
static inline void rcu_quiescent(void)
{
    struct rcu_reader *r = &rcu_self;
    if (r->depth != 1 || atomic_load_explicit(&r->seen, memory_order_relaxed) ==
                             atomic_load_explicit(&rcu_period, memory_order_relaxed))
        return;
    atomic_store_explicit(&r->seen, 0, memory_order_release);
    rcu_enter_(r);
}

/* Orders a store before a later load of another word (store data, then look who watches it). ThreadSanitizer has no fences. */
static inline void rcu_full_fence(void)
{
#ifndef RCU_TSAN_
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Waits for a grace period. Not inside a section; no lock held that a reader could wait for. */
void rcu_synchronize(void);

/* Embedded in what is to be freed. */
struct rcu_head { struct rcu_head *next; void (*fn)(struct rcu_head *); };
/* fn(head) runs on the RCU thread after a grace period. May be called inside sections and under any lock. */
void rcu_call(struct rcu_head *h, void (*fn)(struct rcu_head *));
/* Waits until every rcu_call() made before has run. As rcu_synchronize. */
void rcu_barrier(void);

#endif
