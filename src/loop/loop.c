/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/str.h"
#include "base/thread.h"
#include "loop/loop_int.h"

static struct loop *main_loop;
static _Thread_local struct loop *current;
static struct list all_loops = LIST_INIT(all_loops);
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;

struct loop *loop_main(void) { return main_loop; }
struct loop *loop_current(void) { return current; }
bool loop_has_uring(const struct loop *l) { return l->uring; }
void loop_set_may_block(struct loop *l, bool may) { l->may_block = may; }

static struct loop *loop_alloc(const char *name)
{
    struct loop *l = xnew(struct loop);
    snprintf(l->name, sizeof l->name, "%s", name);
    l->local_end = &l->local;
    l->wall_set = INT64_MAX;
    l->wall_fd.fd = -1;
    l->epfd = l->wake_fd = -1;
    list_init(&l->always);
    return l;
}

static void loop_free(struct loop *l)
{
    if (l->wake_fd >= 0)
        close(l->wake_fd);      /* here, not by the loop's thread: others may have just woken it */
    free(l);
}

static void loop_register(struct loop *l)
{
    pthread_mutex_lock(&all_lock);
    list_push(&all_loops, &l->link);
    pthread_mutex_unlock(&all_lock);
}

/* An image, a client and a queue are a descriptor each: 1024, as a shell gives them, are few. */
static void raise_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= r.rlim_max)
        return;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

bool loop_main_init(struct err *e)
{
    assert(!main_loop);
    struct loop *l = loop_alloc("main");
    if (!loop_io_init(l, e)) {
        loop_free(l);
        return false;
    }
    raise_limit();
    signal(SIGPIPE, SIG_IGN);       /* a peer that went away and a file that may not grow are error codes, not our death */
    signal(SIGXFSZ, SIG_IGN);
    l->thread = pthread_self();
    main_loop = current = l;
    loop_register(l);
    return true;
}

/* ---- loops with a thread of their own ---- */

struct thread_start { struct loop *l; struct err *e; bool ok; sem_t up; };

static void *loop_thread(void *arg)
{
    struct thread_start *s = arg;
    struct loop *l = s->l;

    s->ok = loop_io_init(l, s->e);      /* here, because the ring belongs to the thread that makes it */
    current = l;
    bool ok = s->ok;
    sem_post(&s->up);
    if (!ok)
        return NULL;
    while (!atomic_load(&l->stop))
        loop_run_once(l, -1);
    while (loop_run_local(l))
        ;
    timers_fini(l);
    co_pool_fini(l);
    loop_io_fini(l);
    return NULL;
}

struct loop *loop_new_thread(const char *name, struct err *e)
{
    struct loop *l = loop_alloc(name);
    struct thread_start s = { .l = l, .e = e };

    sem_init(&s.up, 0, 0);
    int r = thread_start(&l->thread, l->name, loop_thread, &s);
    if (r) {
        err_os(e, r, "cannot start a thread for '%s'", name);
        free(l);
        return NULL;
    }
    while (sem_wait(&s.up))
        ;
    sem_destroy(&s.up);
    if (!s.ok) {
        pthread_join(l->thread, NULL);
        loop_free(l);
        return NULL;
    }
    l->has_thread = true;
    loop_register(l);
    return l;
}

void loop_free_thread(struct loop *l)
{
    if (!l)
        return;
    assert(l->has_thread && current != l);
    pthread_mutex_lock(&all_lock);
    list_del(&l->link);
    pthread_mutex_unlock(&all_lock);
    atomic_store(&l->stop, true);
    loop_kick(l);
    pthread_join(l->thread, NULL);
    while (atomic_load(&l->offloads))   /* a worker between its post and its last look at us */
        sched_yield();
    loop_free(l);
}

void loop_set_reads_ahead(struct loop *l, bool ahead)
{
    enum { MATE_POLL_NS = 100000 };     /* a copy or two: the next one comes before the thread sleeps */
    struct err e = ERR_INIT;            /* without a thread, all reads are made here */

    assert(current == l && l->may_block);
    if (!ahead) {
        loop_free_thread(l->mate);
        l->mate = NULL;
    } else if (!l->mate && (l->mate = loop_new_thread("reader", &e))) {
        l->mate->may_block = true;
        atomic_store(&l->mate->poll_ns, MATE_POLL_NS);
    }
}

void loop_each(void (*fn)(struct loop *, void *), void *arg)
{
    /* Loops come and go on the main thread only, so it may walk without the lock while fn takes its time. */
    struct loop *l;
    list_for_each(l, &all_loops, link)
        fn(l, arg);
}

void loop_each_locked(void (*fn)(struct loop *, void *), void *arg)
{
    struct loop *l;
    pthread_mutex_lock(&all_lock);
    list_for_each(l, &all_loops, link)
        fn(l, arg);
    pthread_mutex_unlock(&all_lock);
}

/* ---- posts ---- */

void loop_kick(struct loop *l)
{
    if (atomic_load(&l->sleeping) && atomic_exchange(&l->sleeping, false)) {
        uint64_t one = 1;
        ssize_t r = write(l->wake_fd, &one, sizeof one);
        (void)r;    /* cannot fail: the counter would need 2^64 writes to be full */
    }
}

/* Puts the chain from @first, the newest, to @last in front of the list. */
static void posts_push(_Atomic(struct post *) *list, struct post *first, struct post *last)
{
    struct post *head = atomic_load_explicit(list, memory_order_relaxed);
    do
        last->next = head;
    while (!atomic_compare_exchange_weak(list, &head, first));
}

static void post_now(struct loop *l, struct post *p)
{
    posts_push(&l->posts, p, p);
    loop_kick(l);       /* touches @l only: @p may be done and gone already */
}

/* What a thread that holds its posts back is told of each; NULL on all others. */
static _Thread_local void (*hold_told)(void);

void loop_post(struct loop *l, struct post *p)
{
    if (atomic_exchange(&p->pending, true))
        return;
    if (likely(!hold_told)) {
        post_now(l, p);
        return;
    }
    posts_push(&l->held, p, p);
    hold_told();
}

void loop_hold_posts(void (*told)(void)) { hold_told = told; }

static void release(struct loop *l, void *unused)
{
    struct post *first = atomic_exchange(&l->held, NULL), *last = first;
    if (!first)
        return;
    while (last->next)
        last = last->next;
    posts_push(&l->posts, first, last);
    loop_kick(l);
}

void loop_release_posts(void) { loop_each_locked(release, NULL); }

void domain_post(struct post *p) { loop_post(domain_loop(p->dom), p); }

/* Appends what other threads pushed to the local list, oldest first. */
static void posts_take(struct loop *l)
{
    struct post *p = atomic_exchange(&l->posts, NULL), *fifo = NULL, **end = NULL;
    while (p) {
        struct post *next = p->next;
        if (!fifo)
            end = &p->next;
        p->next = fifo;
        fifo = p;
        p = next;
        l->n_local++;
    }
    if (fifo) {
        *l->local_end = fifo;
        l->local_end = end;
    }
}

/* Runs what was posted up to now; posts made meanwhile wait for the next round. */
static bool posts_run(struct loop *l)
{
    posts_take(l);
    unsigned n = l->n_local;
    bool any = false;
    for (; n && l->local; n--) {
        struct post *p = l->local;
        l->local = p->next;
        l->n_local--;
        if (!l->local)
            l->local_end = &l->local;
        void (*fn)(void *) = p->fn;
        void *arg = p->arg;
        struct domain *d = p->dom;
        atomic_exchange(&p->pending, false);    /* an exchange: what a coalesced post wrote before is seen by fn */
        if (d)
            domain_lock(d);
        fn(arg);
        if (d)
            domain_unlock(d);
        any = true;
    }
    return any;
}

static bool local_unlink(struct loop *l, struct post *p)
{
    for (struct post **at = &l->local; *at; at = &(*at)->next) {
        if (*at != p)
            continue;
        *at = p->next;
        l->n_local--;
        if (!p->next)
            l->local_end = at;
        atomic_exchange(&p->pending, false);
        return true;
    }
    return false;
}

struct cancel_args { struct loop *l; struct post *p; };
static void cancel_on_loop(void *arg)
{
    struct cancel_args *a = arg;
    loop_post_cancel(a->l, a->p);
}

void loop_post_cancel(struct loop *l, struct post *p)
{
    if (current != l) {
        struct cancel_args a = { l, p };
        loop_call(l, cancel_on_loop, &a);
        return;
    }
    while (atomic_load(&p->pending)) {
        release(l, NULL);
        posts_take(l);
        if (local_unlink(l, p))
            break;
        sched_yield();      /* another thread stands between "pending" and the push */
    }
}

struct call { struct post post; void (*fn)(void *); void *arg; sem_t done; };

static void call_run(void *arg)
{
    struct call *c = arg;
    c->fn(c->arg);
    sem_post(&c->done);
}

void loop_call(struct loop *l, void (*fn)(void *), void *arg)
{
    if (current == l) {
        fn(arg);
        return;
    }
    assert(!domain_current());
    struct call c = { .fn = fn, .arg = arg };
    c.post.fn = call_run;
    c.post.arg = &c;
    sem_init(&c.done, 0, 0);
    atomic_store(&c.post.pending, true);
    post_now(l, &c.post);
    while (sem_wait(&c.done))
        ;
    sem_destroy(&c.done);
}

/* ---- running ---- */

static bool local_pending(struct loop *l)
{
    return l->local || l->ready.first || l->yielded.first || !list_empty(&l->always) ||
           atomic_load(&l->posts) || atomic_load(&l->rearm);
}

bool loop_run_local(struct loop *l)
{
    bool any = timers_run(l);
    any |= posts_run(l);
    any |= co_run_ready(l);
    return any;
}

/* Looks for work without sleeping for the time that busy polling was given. */
static bool loop_spin(struct loop *l, int64_t ns)
{
    int64_t end = clock_now(CLOCK_HOST) + ns;
    while (clock_now(CLOCK_HOST) < end)
        if (loop_io_wait(l, 0) || local_pending(l))
            return true;
    return false;
}

void loop_run_once(struct loop *l, int64_t max_wait_ns)
{
    assert(current == l && !domain_current());
    timers_take_rearmed(l);
    int64_t ns = timers_wait_ns(l), poll_ns = atomic_load_explicit(&l->poll_ns, memory_order_relaxed);
    if (max_wait_ns >= 0 && (ns < 0 || ns > max_wait_ns))
        ns = max_wait_ns;
    if (poll_ns && ns && !local_pending(l) && loop_spin(l, ns < 0 ? poll_ns : MIN(ns, poll_ns)))
        ns = 0;
    atomic_store(&l->sleeping, true);
    if (local_pending(l) || atomic_load(&l->stop)) {
        atomic_store(&l->sleeping, false);
        ns = 0;
    }
    if (ns)
        settle_report(l);
    loop_io_wait(l, ns);
    atomic_store(&l->settled, 0);
    loop_run_local(l);
}
