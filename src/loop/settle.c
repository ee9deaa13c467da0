/* SPDX-License-Identifier: MIT */
/*
 * When all loops have come to rest. A loop reports where it is about to sleep; the report that finds every other one at rest and
 * nobody's work under way ends the wait. Whoever wakes takes its report back before it takes any work, so that work which goes
 * from one loop to another is seen in one of the two places.
 */
#include "base/bits.h"
#include "loop/loop_int.h"

static struct {
    pthread_mutex_t lock;
    atomic_uint round;                  /* 0: nobody waits */
    unsigned last;
    atomic_bool counts;                 /* constant once there are devices: nobody else pays for the count */
    atomic_int work;
    void (*done)(void *arg, int64_t next);
    void *arg;
} settle = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void count_work(int by)
{
    if (unlikely(atomic_load_explicit(&settle.counts, memory_order_relaxed)))
        atomic_fetch_add(&settle.work, by);
}

void loop_work_begin(void) { count_work(1); }
void loop_work_end(void) { count_work(-1); }
void loop_settle_enable(void) { atomic_store(&settle.counts, true); }

static void kick(struct loop *l, void *unused) { loop_kick(l); }

void loop_settle(void (*done)(void *arg, int64_t next), void *arg)
{
    pthread_mutex_lock(&settle.lock);
    settle.done = done;
    settle.arg = arg;
    settle.last = MAX(settle.last + 1, 1);
    atomic_store(&settle.round, settle.last);
    pthread_mutex_unlock(&settle.lock);
    loop_each_locked(kick, NULL);
}

struct look { unsigned round; bool busy; int64_t next; };

/* What was posted is looked at before whether the loop has reported: see above. */
static void look_at(struct loop *l, void *arg)
{
    struct look *k = arg;
    bool waits = atomic_load(&l->posts) || atomic_load(&l->rearm);
    if (waits || atomic_load(&l->settled) != k->round)
        k->busy = true;
    k->next = MIN(k->next, atomic_load(&l->sleep_until[CLOCK_VM]));
}

void settle_report(struct loop *l)
{
    if (!atomic_load(&settle.round))
        return;
    pthread_mutex_lock(&settle.lock);
    struct look k = { .round = atomic_load(&settle.round), .next = INT64_MAX };
    if (k.round) {
        atomic_store(&l->settled, k.round);
        loop_each_locked(look_at, &k);
        if (!k.busy && !atomic_load(&settle.work)) {
            atomic_store(&settle.round, 0);
            settle.done(settle.arg, k.next);
        }
    }
    pthread_mutex_unlock(&settle.lock);
}

void loop_settle_cancel(void)
{
    pthread_mutex_lock(&settle.lock);
    atomic_store(&settle.round, 0);
    pthread_mutex_unlock(&settle.lock);
}
