/* SPDX-License-Identifier: MIT */
#include "cpu/riscv/turns.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/rcu.h"
#include "base/str.h"
#include "cpu/riscv/accel.h"
#include "cpu/riscv/cpu.h"
#include "cpu/riscv/icount.h"
#include "loop/loop.h"

#define SETTLE_TRIES 1000           /* a timer that is due again and again cannot hold the guest for ever */
#define ADAPT_NS INT64_C(100000000)
#define ALIGN_NS INT64_C(3000000)   /* being ahead by less is not worth a sleep */

struct turns {
    struct hart_set *set;
    pthread_mutex_t gate;           /* held while it is looked at which harts may run, and while that changes for several */
    pthread_mutex_t lock;           /* guards the three below and cond; a leaf */
    pthread_cond_t cond;
    bool kicked, woken, settled;
    int64_t settled_next;
    atomic_bool unsettled;          /* ANY: the loops may have something to do */
    _Atomic uint64_t ns;            /* ANY: the clock as it was at the end of the last turn */
    struct clock_source source;

    /* --- the thread's own --- */
    struct icount_clock clock;
    uint64_t count;                 /* instructions so far, up to the start of the running hart's slice */
    uint64_t end;                   /* of the turn */
    uint64_t due;                   /* count at which a timer has to be served */
    int64_t next;                   /* the timer; INT64_MAX: none */
    int32_t reserve;                /* what the running accelerator may run past its budget */
    bool fresh;                     /* the turn begins: interrupts are to be taken */
    unsigned last;                  /* hart that had the last turn */
    int64_t idle_from;              /* host time since when no hart could run; 0: one could */
    int64_t host_from, vm_from;     /* the two clocks when the machine last went on */
    int64_t adapt_at, adapt_ahead;
};

/* In a turn: the hart that has it. */
static _Thread_local struct turns *inside;
static _Thread_local struct hart *running;

bool turns_inside(void) { return inside != NULL; }

/* ---- the count ---- */

static uint64_t count_now(const struct turns *t)
{
    return running ? t->count + (uint64_t)(int64_t)(running->slice - running->budget) : t->count;
}

static void account(struct turns *t, struct hart *h)
{
    uint64_t n = (uint64_t)(int64_t)(h->slice - h->budget);
    h->retired += n;
    t->count += n;
    h->slice = h->budget = 0;
}

static void publish(struct turns *t) { atomic_store(&t->ns, (uint64_t)icount_ns(&t->clock, t->count)); }

static void set_next(struct turns *t, int64_t next)
{
    t->next = next;
    t->due = icount_when(&t->clock, next);
}

void turns_shorten(struct hart *h, uint64_t n)
{
    struct turns *t = inside;
    uint64_t now = t ? count_now(t) : 0;
    if (!t || now + n >= t->end)
        return;
    t->end = now + n;
    int64_t left = MAX((int64_t)n - t->reserve, 1);
    if (h->budget > left) {
        h->slice -= h->budget - (int32_t)left;
        h->budget = (int32_t)left;
    }
    h->jit.changes++;               /* leaves the block that runs: it may be longer than what is left */
}

/* ---- CLOCK_VM ---- */

static int64_t source_now(void *arg)
{
    struct turns *t = arg;
    return inside == t ? icount_ns(&t->clock, count_now(t)) : (int64_t)atomic_load(&t->ns);
}

static void source_armed(void *arg, int64_t deadline)
{
    struct turns *t = arg;
    if (inside != t) {
        atomic_store(&t->unsettled, true);
        turns_wake(t);
    } else if (deadline < t->next) {
        set_next(t, deadline);
        uint64_t now = count_now(t);
        turns_shorten(running, t->due > now ? t->due - now : 1);
    }
}

/* A snapshot is loaded: the machine stands. */
static void source_set(void *arg, int64_t ns)
{
    struct turns *t = arg;
    icount_set(&t->clock, t->count, ns);
    set_next(t, t->next);
    publish(t);
    atomic_store(&t->unsettled, true);
}

/* A device was given work: it is done soon. */
static void post_held(void)
{
    atomic_store(&inside->unsettled, true);
    turns_shorten(running, TURN_WORK_INSNS);
}

/* ---- one turn ---- */

bool turns_poll(struct hart *h)
{
    struct turns *t = inside;
    account(t, h);
    h->stats.slices++;
    rcu_quiescent();
    if (t->fresh) {
        t->fresh = false;
        if (unlikely(h->hpm_armed))
            rv_hpm_poll(h);
        rv_irq_take(h);
    }
    int64_t left = (int64_t)(t->end - t->count);
    if (left > t->reserve) {
        h->slice = h->budget = (int32_t)left - t->reserve;
        return true;
    }
    t->reserve = 0;
    while ((left = (int64_t)(t->end - t->count)) > 0) {
        h->slice = h->budget = (int32_t)left;
        while (h->budget > 0)
            interp_step(h);
        account(t, h);
    }
    return false;
}

static void turn(struct turns *t, struct hart *h, bool alone)
{
    const struct accel_ops *a = rv_debug_on() || h->plan == RV_PLAN_STEP ? &accel_interp : h->accel;
    uint64_t most = t->count + (alone ? TURN_INSNS : TURN_INSNS_SMP);
    atomic_store(&h->in_wfi, false);
    t->end = t->due > t->count ? MIN(most, t->due) : t->count + TURN_WORK_INSNS;
    t->reserve = a->overrun;
    t->fresh = true;
    h->slice = h->budget = 0;
    inside = t;
    running = h;
    loop_hold_posts(post_held);
    hart_run_slices(h, a);
    loop_hold_posts(NULL);
    account(t, h);
    running = NULL;
    inside = NULL;
    publish(t);
    loop_release_posts();
}

/* ---- between turns ---- */

void turns_kick(struct turns *t)
{
    pthread_mutex_lock(&t->lock);
    t->kicked = true;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->lock);
}

void turns_wake(struct turns *t)
{
    pthread_mutex_lock(&t->lock);
    t->woken = true;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->lock);
}

static void now_settled(void *arg, int64_t next)
{
    struct turns *t = arg;
    atomic_store(&t->unsettled, false);
    pthread_mutex_lock(&t->lock);
    t->settled = true;
    t->settled_next = next;
    pthread_cond_signal(&t->cond);
    pthread_mutex_unlock(&t->lock);
}

/* Waits until the loops rest; false where somebody wants the thread before. */
static bool settle_once(struct turns *t)
{
    t->settled = false;
    loop_settle(now_settled, t);
    pthread_mutex_lock(&t->lock);
    while (!t->settled && !t->kicked)
        pthread_cond_wait(&t->cond, &t->lock);
    bool ok = t->settled;
    pthread_mutex_unlock(&t->lock);
    if (ok) {
        set_next(t, t->settled_next);
    } else {
        loop_settle_cancel();
        atomic_store(&t->unsettled, true);
    }
    return ok;
}

/* The loops have done what there was to do, and no timer is due. False: wanted before that. */
static bool settle(struct turns *t)
{
    for (unsigned i = 0; i < SETTLE_TRIES && (atomic_load(&t->unsettled) || t->due <= t->count); i++)
        if (!settle_once(t))
            return false;
    return true;
}

/* Waits until @host (INT64_MAX: for ever) unless somebody is wanted; true where the time came. */
static bool wait_until(struct turns *t, int64_t host)
{
    struct timespec at = { .tv_sec = host / 1000000000, .tv_nsec = host % 1000000000 };
    int r = 0;
    pthread_mutex_lock(&t->lock);
    while (!t->kicked && !t->woken && !r)
        r = host == INT64_MAX ? pthread_cond_wait(&t->cond, &t->lock) : pthread_cond_timedwait(&t->cond, &t->lock, &at);
    t->woken = false;
    pthread_mutex_unlock(&t->lock);
    return r != 0;
}

static void warp(struct turns *t, int64_t ns)
{
    icount_set(&t->clock, t->count, ns);
    set_next(t, t->next);
    publish(t);
}

/*
 * No hart can run: virtual time goes to the next timer. With sleep=on that takes as long in the host's; an interrupt from outside
 * comes at the time that has passed by then, anything else that wants the thread changes nothing.
 */
static void idle(struct turns *t)
{
    if (!icount_opts.sleep && t->next != INT64_MAX) {
        warp(t, t->next);
        return;
    }
    if (!t->idle_from)
        t->idle_from = clock_now(CLOCK_HOST);
    int64_t left = t->next - icount_ns(&t->clock, t->count);
    if (wait_until(t, t->next == INT64_MAX ? INT64_MAX : t->idle_from + left)) {
        warp(t, t->next);
        t->idle_from = 0;
    }
}

/* An interrupt has ended the wait. */
static void idle_over(struct turns *t)
{
    int64_t now = icount_ns(&t->clock, t->count), passed = clock_now(CLOCK_HOST) - t->idle_from;
    t->idle_from = 0;
    if (icount_opts.sleep)
        warp(t, MIN(now + passed, MAX(t->next, now)));
}

/* How far the guest is ahead of the host since the machine went on. */
static int64_t ahead(struct turns *t)
{
    return icount_ns(&t->clock, t->count) - t->vm_from - (clock_now(CLOCK_HOST) - t->host_from);
}

static void restart_clocks(struct turns *t)
{
    t->host_from = t->adapt_at = clock_now(CLOCK_HOST);
    t->vm_from = icount_ns(&t->clock, t->count);
    t->adapt_ahead = 0;
    t->idle_from = 0;
}

/* shift=auto and align=on: what looks at the host's clock. */
static void follow_host(struct turns *t)
{
    int64_t now = clock_now(CLOCK_HOST), by = ahead(t);
    if (icount_opts.adapt && now - t->adapt_at >= ADAPT_NS) {
        icount_rate(&t->clock, t->count, icount_adapt(t->clock.shift, t->adapt_ahead, by));
        set_next(t, t->next);
        t->adapt_at = now;
        t->adapt_ahead = by;
    }
    if (icount_opts.align && by > ALIGN_NS)
        wait_until(t, now + by);
}

/* ---- the thread ---- */

/* Does what others asked of the hart and sees whether it stands. True: it may run. */
static bool may_run(struct hart *h, bool *quit)
{
    pthread_mutex_lock(&h->lock);
    while (h->req_count) {
        pthread_mutex_unlock(&h->lock);
        hart_serve(h);
        pthread_mutex_lock(&h->lock);
    }
    atomic_store(&h->attention, 0);
    bool stands = h->want_pause || h->power == HART_OFF;
    *quit |= h->want_quit;
    if (h->paused != stands) {
        h->paused = stands;
        pthread_cond_broadcast(&h->cond);
    }
    pthread_mutex_unlock(&h->lock);
    return !stands;
}

void turns_freeze(struct turns *t)
{
    if (t)
        pthread_mutex_lock(&t->gate);
}

void turns_thaw(struct turns *t)
{
    if (t)
        pthread_mutex_unlock(&t->gate);
}

/* The harts that may run, a bit each. */
static uint32_t look_around(struct turns *t, bool *quit)
{
    uint32_t may = 0;
    pthread_mutex_lock(&t->lock);
    t->kicked = false;
    pthread_mutex_unlock(&t->lock);
    pthread_mutex_lock(&t->gate);
    for (unsigned i = 0; i < hart_set_count(t->set); i++)
        may |= (uint32_t)may_run(hart_get(t->set, i), quit) << i;
    pthread_mutex_unlock(&t->gate);
    return may;
}

/* Those of @may that do not wait for an interrupt. */
static uint32_t ready(struct turns *t, uint32_t may)
{
    for (uint32_t left = may; left; left &= left - 1) {
        struct hart *h = hart_get(t->set, ctz64(left));
        if (atomic_load(&h->in_wfi) && h->plan != RV_PLAN_STEP && !(rv_mip(h) & h->mie))
            may &= ~(UINT32_C(1) << h->index);
    }
    return may;
}

/* Who comes after the one that had the last turn. */
static struct hart *choose(struct turns *t, uint32_t may)
{
    uint32_t after = may & ~((UINT32_C(2) << t->last) - 1);
    t->last = ctz64(after ? after : may);
    return hart_get(t->set, t->last);
}

static bool wanted(struct turns *t)
{
    pthread_mutex_lock(&t->lock);
    bool any = t->kicked;
    pthread_mutex_unlock(&t->lock);
    return any;
}

static void step(struct turns *t, uint32_t may)
{
    if (!settle(t))
        return;
    if (icount_opts.adapt || icount_opts.align)
        follow_host(t);
    if (wanted(t))
        return;
    may = ready(t, may);
    if (!may) {
        idle(t);
        return;
    }
    if (t->idle_from)
        idle_over(t);
    turn(t, choose(t, may), !(may & (may - 1)));
}

void turns_thread(struct turns *t)
{
    bool quit = false, stood = true;
    for (unsigned i = 0; i < hart_set_count(t->set); i++)
        atomic_store(&hart_get(t->set, i)->tid, gettid());
    rcu_thread_register();
    for (;;) {
        uint32_t may = look_around(t, &quit);
        if (quit)
            break;
        if (!may) {
            stood = true;
            wait_until(t, INT64_MAX);
            continue;
        }
        if (stood)
            restart_clocks(t);
        stood = false;
        step(t, may);
    }
    rcu_thread_unregister();
}

struct turns *turns_new(struct hart_set *s)
{
    if (!icount_opts.on)
        return NULL;
    struct turns *t = xnew(struct turns);
    pthread_condattr_t mono;
    loop_settle_enable();
    t->set = s;
    t->clock = (struct icount_clock){ .shift = icount_opts.shift };
    t->next = INT64_MAX;
    t->due = UINT64_MAX;
    t->unsettled = true;
    icount_set(&t->clock, 0, clock_now(CLOCK_VM));
    pthread_mutex_init(&t->gate, NULL);
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&t->cond, &mono);
    pthread_condattr_destroy(&mono);
    publish(t);
    t->source = (struct clock_source){ source_now, source_set, source_armed, t };
    clock_vm_set_source(&t->source);
    return t;
}

void turns_free(struct turns *t)
{
    if (!t)
        return;
    clock_vm_set_source(NULL);
    loop_settle_cancel();
    pthread_mutex_destroy(&t->gate);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->cond);
    free(t);
}
