/* SPDX-License-Identifier: MIT */
/* The event loop: posts from any thread, domains, descriptors; a loop with nothing to do sleeps. On io_uring, and on epoll with workers. */
#include "loop_modes.h"
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

static struct loop *thread_loop(const char *name)
{
    struct err e = ERR_INIT;
    struct loop *l = loop_new_thread(name, &e);
    assert_non_null(l);
    return l;
}

static void mode_is_as_asked(void **state)
{
    if (getenv("BACKPLANE_NO_URING"))
        assert_false(loop_has_uring(loop_main()));
    assert_ptr_equal(loop_current(), loop_main());
}

/* ---- posts ---- */

enum { POSTERS = 4, POSTS = 20000 };
struct counter { struct post p; atomic_int made; int ran, last; volatile bool done; };

static void count_one(void *arg)
{
    struct counter *c = arg;
    int now = atomic_load(&c->made);
    assert_true(now >= c->last);
    c->last = now;
    c->ran++;
    if (now == POSTERS * POSTS)
        c->done = true;
}

static void *poster(void *arg)
{
    struct counter *c = arg;
    for (int i = 0; i < POSTS; i++) {
        atomic_fetch_add(&c->made, 1);
        loop_post(loop_main(), &c->p);
    }
    return NULL;
}

/* Whatever is coalesced: the last post is followed by a run that sees it. */
static void posts_coalesce_and_none_is_lost(void **state)
{
    static struct counter c;
    memset(&c, 0, sizeof c);
    c.p.fn = count_one;
    c.p.arg = &c;
    pthread_t t[POSTERS];
    for (int i = 0; i < POSTERS; i++)
        pthread_create(&t[i], NULL, poster, &c);
    run_until(&c.done);
    for (int i = 0; i < POSTERS; i++)
        pthread_join(t[i], NULL);
    assert_true(c.ran >= 1 && c.ran <= POSTERS * POSTS);
}

static int order[8], n_order;
static void note(void *arg) { order[n_order++] = (int)(intptr_t)arg; }

static void posts_run_in_order(void **state)
{
    struct post p[4] = { 0 };
    n_order = 0;
    for (int i = 0; i < 4; i++) {
        p[i].fn = note;
        p[i].arg = (void *)(intptr_t)i;
        loop_post(loop_main(), &p[i]);
        loop_post(loop_main(), &p[i]);
    }
    loop_run_once(loop_main(), 0);
    assert_int_equal(n_order, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(order[i], i);
}

static struct post cancelled[3];
static void cancel_rest(void *arg)
{
    loop_post_cancel(loop_main(), &cancelled[2]);
    note((void *)9);
}

static void cancelled_posts_do_not_run(void **state)
{
    n_order = 0;
    cancelled[0] = (struct post){ .fn = cancel_rest };
    for (int i = 1; i < 3; i++)
        cancelled[i] = (struct post){ .fn = note, .arg = (void *)(intptr_t)i };
    for (int i = 0; i < 3; i++)
        loop_post(loop_main(), &cancelled[i]);
    loop_post_cancel(loop_main(), &cancelled[1]);
    loop_run_once(loop_main(), 0);
    loop_run_once(loop_main(), 0);
    assert_int_equal(n_order, 1);
    assert_int_equal(order[0], 9);
    loop_post(loop_main(), &cancelled[1]);      /* usable again */
    loop_run_once(loop_main(), 0);
    assert_int_equal(n_order, 2);
}

struct hop { struct post p; struct loop *a, *b; int left; struct domain *dom; volatile bool done; struct post end; };
static void hop_end(void *arg) { ((struct hop *)arg)->done = true; }
static void hop_run(void *arg)
{
    struct hop *h = arg;
    assert_true(domain_locked(h->dom));
    if (--h->left)
        loop_post(loop_current() == h->a ? h->b : h->a, &h->p);
    else
        loop_post(loop_main(), &h->end);
}

static void sleeping_loops_wake_for_posts(void **state)
{
    struct hop h = { .a = thread_loop("a"), .b = thread_loop("b"), .left = 20000 };
    h.dom = domain_new(h.a, "hop");
    h.p.fn = hop_run;
    h.p.arg = &h;
    h.p.dom = h.dom;
    h.end.fn = hop_end;
    h.end.arg = &h;
    loop_post(h.a, &h.p);
    run_until(&h.done);
    loop_free_thread(h.a);
    loop_free_thread(h.b);
    domain_free(h.dom);
}

static void where(void *arg) { *(struct loop **)arg = loop_current(); }
static void call_runs_there_and_waits(void **state)
{
    struct loop *l = thread_loop("call"), *seen = NULL;
    loop_call(l, where, &seen);
    assert_ptr_equal(seen, l);
    loop_call(loop_main(), where, &seen);
    assert_ptr_equal(seen, loop_main());
    loop_free_thread(l);
}

/* ---- domains ---- */

struct shared { struct domain *d; long n; };
static void *add_locked(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < 50000; i++) {
        domain_lock(s->d);
        assert_ptr_equal(domain_current(), s->d);
        s->n++;
        domain_unlock(s->d);
    }
    assert_null(domain_current());
    return NULL;
}

static void a_domain_excludes(void **state)
{
    struct shared s = { .d = domain_new(loop_main(), "x") };
    assert_ptr_equal(domain_loop(s.d), loop_main());
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, add_locked, &s);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(s.n, 100000);
    domain_free(s.d);
}

/* ---- descriptors ---- */

struct reader { struct loop_fd f; int fd, calls, bytes; unsigned last; volatile bool done; };
static void read_some(void *arg, unsigned ev)
{
    struct reader *r = arg;
    char c;
    r->calls++;
    r->last = ev;
    if (read(r->fd, &c, 1) == 1)
        r->bytes++;
    else
        loop_fd_watch(&r->f, 0);
    r->done = r->bytes == 3;
}

static void descriptors_are_level_triggered(void **state)
{
    int p[2];
    assert_int_equal(pipe(p), 0);
    struct reader r = { .fd = p[0] };
    loop_fd_init(&r.f, loop_main(), NULL, p[0], read_some, &r);
    loop_fd_watch(&r.f, LOOP_IN);
    assert_int_equal(write(p[1], "abc", 3), 3);
    run_until(&r.done);         /* three callbacks from one event: it holds until read empty */
    assert_int_equal(r.calls, 3);
    loop_run_once(loop_main(), 0);
    assert_int_equal(r.calls, 3);
    loop_fd_watch(&r.f, 0);
    assert_int_equal(write(p[1], "d", 1), 1);
    for (int i = 0; i < 3; i++)
        loop_run_once(loop_main(), 0);
    assert_int_equal(r.calls, 3);
    loop_fd_watch(&r.f, LOOP_IN);
    close(p[1]);
    while (r.f.mask)
        loop_run_once(loop_main(), 1000000000);
    assert_int_equal(r.bytes, 4);
    assert_true(r.last & LOOP_HUP);
    close(p[0]);
}

static struct loop_fd pair[2];
static int pair_calls;
static void stop_other(void *arg, unsigned ev)
{
    pair_calls++;
    loop_fd_watch(arg, 0);
}

static void unwatched_is_not_called_from_the_same_batch(void **state)
{
    int s[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    for (int i = 0; i < 2; i++) {
        loop_fd_init(&pair[i], loop_main(), NULL, s[i], stop_other, &pair[1 - i]);
        loop_fd_watch(&pair[i], LOOP_OUT);
    }
    pair_calls = 0;
    while (!pair_calls)
        loop_run_once(loop_main(), 1000000000);
    assert_int_equal(pair_calls, 1);
    loop_fd_watch(&pair[0], 0);
    loop_fd_watch(&pair[1], 0);
    close(s[0]);
    close(s[1]);
}

static void a_regular_file_is_always_ready(void **state)
{
    char name[] = "/tmp/test_loop_XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    assert_int_equal(write(fd, "xyz", 3), 3);
    lseek(fd, 0, SEEK_SET);
    struct reader r = { .fd = fd };
    loop_fd_init(&r.f, loop_main(), NULL, fd, read_some, &r);
    loop_fd_watch(&r.f, LOOP_IN);
    run_until(&r.done);
    while (r.f.mask)
        loop_run_once(loop_main(), 1000000000);
    assert_int_equal(r.bytes, 3);
    close(fd);
}

static void the_domain_is_held_for_descriptors_fn(void *arg, unsigned ev)
{
    assert_true(domain_locked(pair[0].dom));
    loop_fd_watch(&pair[0], 0);
    *(bool *)arg = true;
}

static void the_domain_is_held_for_descriptors(void **state)
{
    struct domain *d = domain_new(loop_main(), "fd");
    int p[2];
    bool done = false;
    assert_int_equal(pipe(p), 0);
    loop_fd_init(&pair[0], loop_main(), d, p[1], the_domain_is_held_for_descriptors_fn, &done);
    loop_fd_watch(&pair[0], LOOP_OUT);
    run_until(&done);
    domain_free(d);
    close(p[0]);
    close(p[1]);
}

/* ---- idleness ---- */

static void stop_flag(void *arg) { *(bool *)arg = true; }

static void an_idle_loop_uses_no_cpu(void **state)
{
    struct loop *l = thread_loop("idle");
    struct rusage a, b;
    struct timer t;
    bool done = false;
    timer_init(&t, CLOCK_HOST, loop_main(), NULL, stop_flag, &done);
    timer_arm(&t, clock_now(CLOCK_HOST) + 200000000);
    getrusage(RUSAGE_SELF, &a);
    int rounds = 0;
    while (!done) {
        loop_run_once(loop_main(), -1);
        rounds++;
    }
    getrusage(RUSAGE_SELF, &b);
    assert_true(rounds <= 3);
    long us = (b.ru_utime.tv_sec - a.ru_utime.tv_sec + b.ru_stime.tv_sec - a.ru_stime.tv_sec) * 1000000 +
              b.ru_utime.tv_usec - a.ru_utime.tv_usec + b.ru_stime.tv_usec - a.ru_stime.tv_usec;
    assert_true(us < 20000);
    loop_free_thread(l);
}

int main(void)
{
    const struct CMUnitTest loop[] = {
        cmocka_unit_test(mode_is_as_asked),
        cmocka_unit_test(posts_coalesce_and_none_is_lost),
        cmocka_unit_test(posts_run_in_order),
        cmocka_unit_test(cancelled_posts_do_not_run),
        cmocka_unit_test(sleeping_loops_wake_for_posts),
        cmocka_unit_test(call_runs_there_and_waits),
        cmocka_unit_test(a_domain_excludes),
        cmocka_unit_test(descriptors_are_level_triggered),
        cmocka_unit_test(unwatched_is_not_called_from_the_same_batch),
        cmocka_unit_test(a_regular_file_is_always_ready),
        cmocka_unit_test(the_domain_is_held_for_descriptors),
        cmocka_unit_test(an_idle_loop_uses_no_cpu),
    };
    return RUN_IN_BOTH_MODES(loop);
}
