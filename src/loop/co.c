/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/str.h"
#include "loop/co_switch.h"
#include "loop/loop_int.h"

enum {
    STACK_SIZE = 256 * 1024, GUARD_SIZE = 4096,
    POOL_MAX = 256,             /* stacks a loop keeps for the next coroutine */
    ROOM = 128 * 1024,          /* on its stack, for who calls co_deeper() */
    READY_BOUND = 10000,        /* resumptions before the loop looks at its descriptors again */
};

/* Lives at the top of its own stack. */
struct co {
    struct co_ctx ctx, resumer;
    struct co_san san, resumer_san;
    struct loop *loop;
    struct domain *dom;
    void (*fn)(void *);
    void *arg;
    struct co *next;            /* in the one list that it is in */
    char *map;                  /* guard page and stack; NULL: a stack of a slab */
    bool inherited;             /* runs under the lock of who spawned it, which is not ours to drop */
    bool done;
};

static _Thread_local struct co *self;

struct co *co_self(void) { return self; }

static void list_add(struct co **first, struct co **last, struct co *co)
{
    co->next = NULL;
    if (*first)
        (*last)->next = co;
    else
        *first = co;
    *last = co;
}

static struct co *list_take(struct co **first, struct co **last)
{
    struct co *co = *first;
    if (co) {
        *first = co->next;
        if (!co->next)
            *last = NULL;
        co->next = NULL;
    }
    return co;
}

/* ---- life ---- */

/* Back to whoever resumed us; returns at the next resumption. */
static void co_leave(struct co *co)
{
    co_san_leave(&co->san, &co->resumer_san);
    co_ctx_switch(&co->ctx, &co->resumer);
    co_san_arrive(&co->san, &co->resumer_san);
}

/* The bottom of every stack: one turn is one coroutine. */
static void co_main(void)
{
    struct co *co = self;
    co_san_arrive(&co->san, &co->resumer_san);
    for (;;) {
        bool lock = co->dom && !co->inherited;
        if (lock)
            domain_lock(co->dom);
        co->fn(co->arg);
        if (co->dom && !co->inherited)
            domain_unlock(co->dom);
        co->done = true;
        co_leave(co);
    }
}

/*
 * Stacks above a page that faults take two of the host's mappings each (vm.max_map_count, 65530 as a rule), and a guest with many disks may
 * have tens of thousands of requests under way. So at most half of the mappings go into those; further stacks are cut out of large pieces,
 * without that page, and come back to @slab_free for the next.
 */
unsigned co_guarded_max;
static atomic_uint guarded;
static pthread_mutex_t slab_lock = PTHREAD_MUTEX_INITIALIZER;
static void *slab_free;                 /* a list through the first words; under slab_lock */
enum { SLAB_STACKS = 64 };

static void *map_new(size_t size)
{
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED) {
        fprintf(stderr, "backplane: out of memory for a coroutine\n");
        abort();
    }
    return map;
}

static unsigned guarded_max(void)
{
    long maps = 65530;
    FILE *f = fopen("/proc/sys/vm/max_map_count", "r");

    if (f && fscanf(f, "%ld", &maps) != 1)
        maps = 65530;
    if (f)
        fclose(f);
    return (unsigned)MIN(MAX(maps / 4, 16L), (long)INT32_MAX);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void know_max(void)
{
    if (!co_guarded_max)
        co_guarded_max = guarded_max();
}

static void slab_put(char *stack)
{
    co_san_reuse(stack, STACK_SIZE);
    pthread_mutex_lock(&slab_lock);
    *(void **)(void *)stack = slab_free;
    slab_free = stack;
    pthread_mutex_unlock(&slab_lock);
}

static char *slab_take(void)
{
    void *stack;

    pthread_mutex_lock(&slab_lock);
    if (!slab_free) {
        char *slab = map_new((size_t)SLAB_STACKS * STACK_SIZE);
        for (unsigned i = 0; i < SLAB_STACKS; i++) {
            *(void **)(void *)(slab + (size_t)i * STACK_SIZE) = slab_free;
            slab_free = slab + (size_t)i * STACK_SIZE;
        }
    }
    stack = slab_free;
    slab_free = *(void **)stack;
    pthread_mutex_unlock(&slab_lock);
    return stack;
}

/* A stack of STACK_SIZE bytes; *@map is its mapping, NULL where it has none of its own. */
static char *stack_new(char **map)
{
    pthread_once(&once, know_max);
    if (atomic_fetch_add(&guarded, 1) < co_guarded_max) {
        *map = map_new(GUARD_SIZE + STACK_SIZE);
        if (!mprotect(*map, GUARD_SIZE, PROT_NONE))
            return *map + GUARD_SIZE;
        munmap(*map, GUARD_SIZE + STACK_SIZE);
    }
    atomic_fetch_sub(&guarded, 1);
    *map = NULL;
    return slab_take();
}

static struct co *co_new(struct loop *l)
{
    struct co *co = l->pool;
    if (co) {
        l->pool = co->next;
        l->pooled--;
        co->next = NULL;
        co->done = false;
        return co;
    }
    char *map, *stack = stack_new(&map);
    size_t size = (STACK_SIZE - sizeof(struct co)) & ~(size_t)63;
    co = (struct co *)(stack + size);
    memset(co, 0, sizeof *co);          /* a stack of a slab may have had one before */
    co->map = map;
    co->loop = l;
    co->san = (struct co_san){ .bottom = stack, .size = size, .fiber = co_san_new() };
    co_ctx_init(&co->ctx, stack, size, co_main);
    return co;
}

static void co_free(struct co *co)
{
    co_san_free(co->san.fiber);
    if (co->map) {
        munmap(co->map, GUARD_SIZE + STACK_SIZE);
        atomic_fetch_sub(&guarded, 1);
    } else {
        slab_put((char *)co->san.bottom);
    }
}

static void co_recycle(struct co *co)
{
    struct loop *l = co->loop;
    if (l->pooled >= POOL_MAX) {
        co_free(co);
        return;
    }
    co->next = l->pool;
    l->pool = co;
    l->pooled++;
}

void co_pool_fini(struct loop *l)
{
    for (struct co *co; (co = l->pool);) {
        l->pool = co->next;
        co_free(co);
    }
    l->pooled = 0;
}

static void co_enter(struct co *co)
{
    struct co *before = self;
    co->resumer_san.fiber = co_san_current();
    self = co;
    co_san_leave(&co->resumer_san, &co->san);
    co_ctx_switch(&co->resumer, &co->ctx);
    co_san_arrive(&co->resumer_san, NULL);
    self = before;
    if (co->done)
        co_recycle(co);
}

void co_resume(struct co *co)
{
    assert(loop_current() == co->loop && !domain_current());
    co_enter(co);
}

void co_suspend(void)
{
    struct co *co = self;
    assert(co && loop_current() == co->loop);
    assert(domain_current() == co->dom);        /* an await drops this lock and no other */
    if (co->dom && !co->inherited)
        domain_unlock(co->dom);
    co_leave(co);
    co->inherited = false;
    if (co->dom)
        domain_lock(co->dom);
}

void co_ready(struct co *co)
{
    struct loop *l = co->loop;
    assert(loop_current() == l);
    list_add(&l->ready.first, &l->ready.last, co);
}

bool co_run_ready(struct loop *l)
{
    bool any = false;
    for (struct co *co; (co = list_take(&l->yielded.first, &l->yielded.last));)
        list_add(&l->ready.first, &l->ready.last, co);
    for (int i = 0; i < READY_BOUND; i++) {
        struct co *co = list_take(&l->ready.first, &l->ready.last);
        if (!co)
            break;
        co_resume(co);
        any = true;
    }
    return any;
}

/* ---- spawning ---- */

struct spawn { struct post post; struct loop *l; struct domain *dom; void (*fn)(void *); void *arg; };

static void spawn_here(struct loop *l, struct domain *dom, void (*fn)(void *), void *arg)
{
    struct domain *held = domain_current();
    struct co *co = co_new(l);
    co->dom = dom;
    co->fn = fn;
    co->arg = arg;
    co->inherited = dom && held == dom;
    if (held && held != dom)
        co_ready(co);       /* cannot run under somebody else's lock: as soon as that is dropped */
    else
        co_enter(co);
}

static void spawn_posted(void *arg)
{
    struct spawn s = *(struct spawn *)arg;
    free(arg);
    spawn_here(s.l, s.dom, s.fn, s.arg);
}

void co_spawn(struct loop *l, struct domain *dom, void (*fn)(void *), void *arg)
{
    co_spawn_on(dom ? domain_loop(dom) : l, dom, fn, arg);
}

void co_spawn_on(struct loop *l, struct domain *dom, void (*fn)(void *), void *arg)
{
    if (loop_current() == l) {
        spawn_here(l, dom, fn, arg);
        return;
    }
    struct spawn *s = xnew(struct spawn);
    *s = (struct spawn){ .l = l, .dom = dom, .fn = fn, .arg = arg };
    s->post.fn = spawn_posted;
    s->post.arg = s;
    loop_post(l, &s->post);
}

/* What co_on_loop() waits with; on the waiter's stack. */
struct visit { struct post back; struct co *co; struct loop *home; void (*fn)(void *); void *arg; };

static void visit_run(void *arg)
{
    struct visit *v = arg;
    v->fn(v->arg);
    loop_post(v->home, &v->back);       /* *v may be gone from here on */
}

static void visit_back(void *arg)
{
    struct visit *v = arg;
    co_resume(v->co);
}

void co_on_loop(struct loop *l, struct domain *dom, void (*fn)(void *), void *arg)
{
    struct visit v = { .co = self, .home = self->loop, .fn = fn, .arg = arg };
    v.back.fn = visit_back;
    v.back.arg = &v;
    if (dom)
        l = domain_loop(dom);
    if (l == v.home && dom == self->dom) {
        fn(arg);
        return;
    }
    co_spawn(l, dom, visit_run, &v);
    co_suspend();
}

struct main_run { void (*fn)(void *); void *arg; bool done; };

static void main_run_co(void *arg)
{
    struct main_run *m = arg;
    m->fn(m->arg);
    m->done = true;
}

void co_run_main(void (*fn)(void *), void *arg)
{
    struct loop *l = loop_main();
    struct main_run m = { fn, arg, false };
    assert(loop_current() == l && !self && !domain_current());
    co_spawn(l, NULL, main_run_co, &m);
    while (!m.done)
        loop_run_once(l, -1);
}

/* ---- deep recursion: the stack of another coroutine goes on where ours ends ---- */

struct deeper { struct co *co, *further; void (*fn)(void *); void *arg; };

static void deeper_run(void *arg)
{
    struct deeper *d = arg;
    struct co *co = d->co;
    struct co_san before = co->san;
    self = co;                          /* awaits are those of who called */
    co->san = d->further->san;
    d->fn(d->arg);
    co->san = before;
    self = d->further;
}

void co_deeper(void (*fn)(void *), void *arg)
{
    struct co *co = self;
    if (!co || (uintptr_t)__builtin_frame_address(0) - (uintptr_t)co->san.bottom >= ROOM) {
        fn(arg);
        return;
    }
    struct deeper d = { co, co_new(co->loop), fn, arg };
    d.further->dom = NULL;
    d.further->inherited = false;
    d.further->fn = deeper_run;
    d.further->arg = &d;
    co_enter(d.further);
}

void co_call(void (*fn)(void *), void *arg)
{
    if (self)
        co_deeper(fn, arg);
    else
        co_run_main(fn, arg);
}

/* ---- waiting for each other ---- */

void co_wait(struct co_event *ev)
{
    if (ev->set)
        return;
    list_add(&ev->first, &ev->last, self);
    co_suspend();
}

void co_wake(struct co_event *ev)
{
    ev->set = true;
    for (struct co *co; (co = list_take(&ev->first, &ev->last));)
        co_ready(co);
}

void co_event_clear(struct co_event *ev) { ev->set = false; }

void co_mutex_lock(struct co_mutex *m)
{
    assert(self && m->owner != self);
    if (!m->owner) {
        m->owner = self;
        return;
    }
    list_add(&m->first, &m->last, self);
    co_suspend();
    assert(m->owner == self);
}

void co_mutex_unlock(struct co_mutex *m)
{
    assert(self && m->owner == self);
    m->owner = list_take(&m->first, &m->last);
    if (m->owner)
        co_ready(m->owner);
}

void co_queue_wait(struct co_queue *q)
{
    list_add(&q->first, &q->last, self);
    co_suspend();
}

bool co_queue_wake_one(struct co_queue *q)
{
    struct co *co = list_take(&q->first, &q->last);
    if (co)
        co_ready(co);
    return co;
}

void co_queue_wake_all(struct co_queue *q)
{
    while (co_queue_wake_one(q))
        ;
}

void co_yield(void)
{
    struct loop *l = self->loop;
    list_add(&l->yielded.first, &l->yielded.last, self);
    co_suspend();
}
