/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "base/log.h"
#include "base/str.h"
#include "loop/loop_int.h"

/* ---- clocks ---- */

/* The VM clock is base + (running ? host time : 0); written by the main loop, read by everyone under a sequence count. */
static struct {
    atomic_uint seq;
    _Atomic int64_t base;
    atomic_bool running, manual;
    _Atomic(const struct clock_source *) source;
} vm;

static int64_t posix_ns(clockid_t c)
{
    struct timespec ts;
    clock_gettime(c, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static bool vm_ticks(void)
{
    return atomic_load(&vm.running) && !atomic_load(&vm.manual) && !atomic_load(&vm.source);
}

static int64_t vm_now(void)
{
    const struct clock_source *source = atomic_load(&vm.source);
    if (source)
        return source->now(source->arg);
    for (;;) {
        unsigned s = atomic_load(&vm.seq);
        bool ticks = vm_ticks();
        int64_t base = atomic_load(&vm.base), host = ticks ? posix_ns(CLOCK_MONOTONIC) : 0;
        if (!(s & 1) && atomic_load(&vm.seq) == s)
            return base + host;
        sched_yield();
    }
}

int64_t clock_now(enum clock_id c)
{
    switch (c) {
    case CLOCK_VM: return vm_now();
    case CLOCK_HOST: return posix_ns(CLOCK_MONOTONIC);
    case CLOCK_WALL: return posix_ns(CLOCK_REALTIME);
    }
    return 0;
}

static void kick_one(struct loop *l, void *unused) { loop_kick(l); }

/* Sets mode and time together: afterwards clock_now(CLOCK_VM) is @now. */
static void vm_set(bool running, bool manual, int64_t now)
{
    atomic_fetch_add(&vm.seq, 1);
    atomic_store(&vm.running, running);
    atomic_store(&vm.manual, manual);
    atomic_store(&vm.base, vm_ticks() ? now - posix_ns(CLOCK_MONOTONIC) : now);
    atomic_fetch_add(&vm.seq, 1);
    loop_each(kick_one, NULL);      /* deadlines in host time have changed */
}

void clock_vm_run(bool running) { vm_set(running, atomic_load(&vm.manual), vm_now()); }
void clock_vm_set_manual(bool manual) { vm_set(atomic_load(&vm.running), manual, vm_now()); }

void clock_vm_set(int64_t ns)
{
    const struct clock_source *source = atomic_load(&vm.source);
    if (source && source->set)
        source->set(source->arg, ns);
    vm_set(atomic_load(&vm.running), atomic_load(&vm.manual), ns);
}

void clock_vm_set_source(const struct clock_source *s)
{
    int64_t t = vm_now();
    atomic_store(&vm.source, s);
    if (!s)
        clock_vm_set(t);
}

/* ---- the heap ---- */

static bool before(const struct timer *a, const struct timer *b)
{
    return a->key != b->key ? a->key < b->key : (int32_t)(a->seq - b->seq) < 0;
}

static void heap_put(struct timer_heap *h, uint32_t i, struct timer *t)
{
    h->v[i] = t;
    t->slot = i + 1;
}

static void heap_sift(struct timer_heap *h, uint32_t i)
{
    struct timer *t = h->v[i];
    while (i && before(t, h->v[(i - 1) / 2])) {
        heap_put(h, i, h->v[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        uint32_t c = 2 * i + 1;
        if (c >= h->n)
            break;
        if (c + 1 < h->n && before(h->v[c + 1], h->v[c]))
            c++;
        if (!before(h->v[c], t))
            break;
        heap_put(h, i, h->v[c]);
        i = c;
    }
    heap_put(h, i, t);
}

static void heap_remove(struct timer_heap *h, struct timer *t)
{
    if (!t->slot)
        return;
    uint32_t i = t->slot - 1;
    t->slot = 0;
    struct timer *last = h->v[--h->n];
    if (last != t) {
        heap_put(h, i, last);
        heap_sift(h, i);
    }
}

/* Brings the heap in line with @t's wanted deadline. LOOP */
static void heap_update(struct loop *l, struct timer *t)
{
    struct timer_heap *h = &l->heap[t->clock];
    int64_t want = atomic_load(&t->want);
    if (want == INT64_MAX) {
        heap_remove(h, t);
        return;
    }
    if (t->slot && t->key == want)
        return;
    t->key = want;
    t->seq = l->timer_seq++;
    if (!t->slot) {
        if (h->n == h->cap) {
            h->cap = h->cap ? h->cap * 2 : 16;
            h->v = xrealloc(h->v, h->cap * sizeof h->v[0]);
        }
        heap_put(h, h->n++, t);
    }
    heap_sift(h, t->slot - 1);
}

/* ---- timers ---- */

void timer_init(struct timer *t, enum clock_id c, struct loop *l, struct domain *dom, void (*fn)(void *), void *arg)
{
    *t = (struct timer){ .loop = dom ? domain_loop(dom) : l, .dom = dom, .clock = c, .fn = fn, .arg = arg };
    atomic_init(&t->want, INT64_MAX);
}

/* Hands @t to its loop, which is another than this thread's. */
static void arm_from_outside(struct loop *l, struct timer *t, int64_t deadline_ns)
{
    if (!atomic_exchange(&t->rearm_pending, true)) {
        struct timer *head = atomic_load_explicit(&l->rearm, memory_order_relaxed);
        do
            t->rearm_next = head;
        while (!atomic_compare_exchange_weak(&l->rearm, &head, t));
    }
    /* A loop that wakes up before looks at the list then: guests move their timers further away thousands of times a second.
     * The list was written before this is read, and the loop reads the list after it has written this. */
    if (deadline_ns < atomic_load(&l->sleep_until[t->clock]))
        loop_kick(l);
}

void timer_arm(struct timer *t, int64_t deadline_ns)
{
    struct loop *l = t->loop;
    const struct clock_source *source = t->clock == CLOCK_VM ? atomic_load(&vm.source) : NULL;
    deadline_ns = MAX(deadline_ns, 0);
    if (atomic_exchange(&t->want, deadline_ns) == deadline_ns)
        return;
    if (loop_current() == l)
        heap_update(l, t);
    else
        arm_from_outside(l, t, deadline_ns);    /* @t may have fired and be gone */
    if (unlikely(source && source->armed))
        source->armed(source->arg, deadline_ns);
}

void timer_disarm(struct timer *t) { timer_arm(t, INT64_MAX); }
bool timer_armed(const struct timer *t) { return atomic_load(&t->want) != INT64_MAX; }

void timers_take_rearmed(struct loop *l)
{
    if (!atomic_load_explicit(&l->rearm, memory_order_relaxed))
        return;
    struct timer *t = atomic_exchange(&l->rearm, NULL), *fifo = NULL;
    while (t) {
        struct timer *next = t->rearm_next;
        t->rearm_next = fifo;
        fifo = t;
        t = next;
    }
    while (fifo) {
        t = fifo;
        fifo = t->rearm_next;
        atomic_exchange(&t->rearm_pending, false);
        heap_update(l, t);
    }
}

static void fini_on_loop(void *arg) { timer_fini(arg); }

void timer_fini(struct timer *t)
{
    struct loop *l = t->loop;
    if (!l)
        return;
    if (loop_current() != l) {
        loop_call(l, fini_on_loop, t);
        return;
    }
    timer_disarm(t);
    while (atomic_load(&t->rearm_pending)) {
        timers_take_rearmed(l);
        sched_yield();
    }
}

/* Fires @t unless it was moved or disarmed since it became due. */
static void timer_fire(struct loop *l, struct timer *t, int64_t now)
{
    struct domain *d = t->dom;
    if (d)
        domain_lock(d);
    int64_t want = atomic_load(&t->want);
    if (want <= now && atomic_compare_exchange_strong(&t->want, &want, INT64_MAX)) {
        heap_remove(&l->heap[t->clock], t);
        t->fn(t->arg);      /* @t may be gone after this */
    } else {
        heap_update(l, t);
    }
    if (d)
        domain_unlock(d);
}

bool timers_run(struct loop *l)
{
    bool any = false;
    timers_take_rearmed(l);
    for (int c = 0; c < N_CLOCKS; c++) {
        struct timer_heap *h = &l->heap[c];
        if (!h->n)
            continue;
        int64_t now = clock_now(c);
        uint32_t until = l->timer_seq;      /* what is armed from here on waits for the next round */
        while (h->n && h->v[0]->key <= now && (int32_t)(h->v[0]->seq - until) < 0) {
            timer_fire(l, h->v[0], now);
            any = true;
        }
    }
    return any;
}

/* ---- how long a loop may sleep ---- */

static void wall_ready(void *arg, unsigned revents)
{
    struct loop *l = arg;
    uint64_t n;
    ssize_t r = read(l->wall_fd.fd, &n, sizeof n);      /* ECANCELED: the wall clock was stepped; the heap is looked at anyway */
    (void)r;
    l->wall_set = INT64_MAX;
}

/* The kernel watches the wall clock for us, steps included. */
static void wall_program(struct loop *l)
{
    struct timer_heap *h = &l->heap[CLOCK_WALL];
    int64_t d = h->n ? h->v[0]->key : INT64_MAX;
    if (d == l->wall_set)
        return;
    if (l->wall_fd.fd < 0) {
        int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
        if (fd < 0) {
            log_warn("no timer for the wall clock: %s", strerror(errno));
            return;
        }
        loop_fd_init(&l->wall_fd, l, NULL, fd, wall_ready, l);
        loop_fd_watch(&l->wall_fd, LOOP_IN);
    }
    int64_t set = d <= 0 ? 1 : d;
    struct itimerspec its = { 0 };
    if (d != INT64_MAX)
        its.it_value = (struct timespec){ .tv_sec = set / 1000000000, .tv_nsec = set % 1000000000 };
    timerfd_settime(l->wall_fd.fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &its, NULL);
    l->wall_set = d;
}

int64_t timers_wait_ns(struct loop *l)
{
    int64_t ns = INT64_MAX;
    if (l->heap[CLOCK_HOST].n)
        ns = l->heap[CLOCK_HOST].v[0]->key - clock_now(CLOCK_HOST);
    if (l->heap[CLOCK_VM].n) {
        int64_t d = l->heap[CLOCK_VM].v[0]->key - vm_now();
        if (vm_ticks() || d <= 0)
            ns = MIN(ns, d);
    }
    wall_program(l);
    for (int c = 0; c < N_CLOCKS; c++)
        atomic_store(&l->sleep_until[c], l->heap[c].n ? l->heap[c].v[0]->key : INT64_MAX);
    return ns == INT64_MAX ? -1 : MAX(ns, 0);
}

void timers_fini(struct loop *l)
{
    if (l->wall_fd.fd >= 0) {
        loop_fd_watch(&l->wall_fd, 0);
        close(l->wall_fd.fd);
    }
    for (int c = 0; c < N_CLOCKS; c++)
        free(l->heap[c].v);
}

/* ---- the VM clock by hand ---- */

struct next_deadline { struct loop *l; int64_t min; };

static void next_on_loop(void *arg)
{
    struct next_deadline *n = arg;
    timers_take_rearmed(n->l);
    struct timer_heap *h = &n->l->heap[CLOCK_VM];
    if (h->n)
        n->min = MIN(n->min, h->v[0]->key);
}

static void next_of(struct loop *l, void *arg)
{
    struct next_deadline *n = arg;
    n->l = l;
    loop_call(l, next_on_loop, n);
}

int64_t clock_vm_next_deadline(void)
{
    struct next_deadline n = { .min = INT64_MAX };
    loop_each(next_of, &n);
    return n.min;
}

static void drain_local(void *arg)
{
    /* Bounded: work that makes new work for ever is left to the loops. */
    for (int i = 0; i < 1000 && loop_run_local(arg); i++)
        ;
}
static void drain_loop(struct loop *l, void *unused) { loop_call(l, drain_local, l); }

int64_t clock_vm_step(int64_t ns)
{
    assert(loop_current() == loop_main() && atomic_load(&vm.manual));
    int64_t now = vm_now(), target = ns > 0 && now > INT64_MAX - 1 - ns ? INT64_MAX - 1 : now + MAX(ns, 0);
    for (int stuck = 0; stuck < 100;) {
        loop_each(drain_loop, NULL);
        int64_t next = clock_vm_next_deadline();
        if (next > target)
            break;
        stuck = next > now ? 0 : stuck + 1;     /* a timer that re-arms itself for the present cannot hold us here */
        now = MAX(next, now);
        vm_set(atomic_load(&vm.running), true, now);
    }
    vm_set(atomic_load(&vm.running), true, target);
    return target;
}
