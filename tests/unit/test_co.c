/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: when and where they run, and what they hold between two awaits; events, mutexes and queues; workers, descriptors and
 * files as what is awaited; more stacks than the host has mappings for, and recursion that needs more than one.
 */
#include "loop_modes.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "loop/loop_int.h"
#include "loop/co_switch.h"

static char trail[256];
static void mark(const char *s) { strcat(trail, s); }

static struct loop *thread_loop(const char *name)
{
    struct err e = ERR_INIT;
    struct loop *l = loop_new_thread(name, &e);
    assert_non_null(l);
    return l;
}

/* ---- spawning and locks ---- */

static struct domain *dom;

static void simple(void *arg)
{
    assert_non_null(co_self());
    mark("b");
    co_yield();
    mark("d");
    *(bool *)arg = true;
}

static void a_spawn_runs_at_once_to_its_first_await(void **state)
{
    bool done = false;
    trail[0] = 0;
    mark("a");
    co_spawn(loop_main(), NULL, simple, &done);
    mark("c");
    assert_null(co_self());
    run_until(&done);
    assert_string_equal(trail, "abcd");
}

static void locked(void *arg)
{
    assert_true(domain_locked(dom));
    co_yield();
    assert_true(domain_locked(dom));
    co_yield();
    assert_true(domain_locked(dom));
    *(bool *)arg = true;
}

static void the_domain_is_held_between_awaits(void **state)
{
    bool done[3] = { false };
    dom = domain_new(loop_main(), "co");
    co_spawn(NULL, dom, locked, &done[0]);      /* takes the lock itself */
    assert_null(domain_current());
    domain_lock(dom);
    co_spawn(NULL, dom, locked, &done[1]);      /* runs under ours */
    assert_true(domain_locked(dom));
    domain_unlock(dom);
    struct domain *other = domain_new(loop_main(), "other");
    domain_lock(other);
    co_spawn(NULL, dom, locked, &done[2]);      /* must wait until we let go */
    assert_true(domain_locked(other));
    domain_unlock(other);
    for (int i = 0; i < 3; i++)
        run_until(&done[i]);
    assert_null(domain_current());
    domain_free(dom);
    domain_free(other);
}

static void nest(void *arg)
{
    long depth = (long)(intptr_t)arg;
    char stack[1024];
    memset(stack, (int)depth, sizeof stack);
    if (depth)
        co_spawn(loop_main(), NULL, nest, (void *)(intptr_t)(depth - 1));
    co_yield();
    for (size_t i = 0; i < sizeof stack; i++)
        assert_int_equal((unsigned char)stack[i], depth);
    trail[depth]++;
}

static void coroutines_spawn_coroutines(void **state)
{
    memset(trail, 0, sizeof trail);
    co_spawn(loop_main(), NULL, nest, (void *)(intptr_t)200);
    while (!trail[200] || !trail[0])
        loop_run_once(loop_main(), 0);
    for (int i = 0; i <= 200; i++)
        assert_int_equal(trail[i], 1);
}

struct there { struct loop *want; struct domain *dom; bool *done; struct post end; };
static void set_flag(void *arg) { *(volatile bool *)arg = true; }
static void on_other(void *arg)
{
    struct there *t = arg;
    assert_ptr_equal(loop_current(), t->want);
    co_yield();
    assert_ptr_equal(loop_current(), t->want);
    assert_true(!t->dom || domain_locked(t->dom));
    loop_post(loop_main(), &t->end);
}

static void a_coroutine_lives_on_its_home_loop(void **state)
{
    bool done = false;
    struct there t = { .want = thread_loop("home"), .end.fn = set_flag, .end.arg = &done };
    co_spawn(t.want, NULL, on_other, &t);
    run_until(&done);
    done = false;
    t.dom = domain_new(t.want, "home");
    co_spawn(loop_main(), t.dom, on_other, &t);
    run_until(&done);
    loop_free_thread(t.want);
    domain_free(t.dom);
}

static void visit(void *arg)
{
    struct there *t = arg;
    assert_ptr_equal(loop_current(), t->want);
    assert_true(domain_locked(t->dom));
    co_yield();
    trail[0]++;
}
static void visitor(void *arg)
{
    struct there *t = arg;
    for (int i = 0; i < 100; i++) {
        co_on_loop(NULL, t->dom, visit, t);
        assert_ptr_equal(loop_current(), loop_main());
        assert_int_equal(trail[0], i + 1);
    }
}
static void a_visit_to_another_loop_returns(void **state)
{
    struct there t = { .want = thread_loop("visit") };
    t.dom = domain_new(t.want, "visit");
    trail[0] = 0;
    co_run_main(visitor, &t);
    loop_free_thread(t.want);
    domain_free(t.dom);
}

static void say_done(void *arg) { atomic_store((atomic_bool *)arg, true); }

/* Who says inside a domain that he is done still has to leave it. */
static void a_domain_is_freed_behind_the_last_who_was_inside(void **state)
{
    struct loop *l = thread_loop("leaving");
    for (int i = 0; i < 200; i++) {
        struct domain *d = domain_new(l, "leaving");
        atomic_bool done = false;
        co_spawn(loop_main(), d, say_done, &done);
        while (!atomic_load(&done))
            ;
        domain_free(d);
    }
    loop_free_thread(l);
}

/* ---- waiting for each other ---- */

static struct co_event ev;
static int awake;
static void waiter(void *arg) { co_wait(&ev); awake++; }

static void an_event_wakes_all_and_stays_set(void **state)
{
    ev = (struct co_event){ 0 };
    awake = 0;
    for (int i = 0; i < 3; i++)
        co_spawn(loop_main(), NULL, waiter, NULL);
    loop_run_once(loop_main(), 0);
    assert_int_equal(awake, 0);
    co_wake(&ev);
    loop_run_once(loop_main(), 0);
    assert_int_equal(awake, 3);
    co_spawn(loop_main(), NULL, waiter, NULL);
    assert_int_equal(awake, 4);
    co_event_clear(&ev);
    co_spawn(loop_main(), NULL, waiter, NULL);
    loop_run_once(loop_main(), 0);
    assert_int_equal(awake, 4);
    co_wake(&ev);
    loop_run_once(loop_main(), 0);
    assert_int_equal(awake, 5);
}

static struct co_mutex mtx;
static int inside, entries;
static char order[16];
static void critical(void *arg)
{
    for (int i = 0; i < 3; i++) {
        co_mutex_lock(&mtx);
        assert_int_equal(inside++, 0);
        order[entries++] = (char)(intptr_t)arg;
        co_yield();
        inside--;
        co_mutex_unlock(&mtx);
    }
}

static void a_mutex_is_fair(void **state)
{
    memset(order, 0, sizeof order);
    entries = 0;
    for (int i = 0; i < 3; i++)
        co_spawn(loop_main(), NULL, critical, (void *)(intptr_t)('A' + i));
    while (entries < 9 || mtx.owner)
        loop_run_once(loop_main(), 0);
    assert_string_equal(order, "ABCABCABC");
}

static struct co_queue q;
static void queued(void *arg)
{
    co_queue_wait(&q);
    mark(arg);
}

static void a_queue_wakes_in_order(void **state)
{
    trail[0] = 0;
    assert_false(co_queue_wake_one(&q));
    co_spawn(loop_main(), NULL, queued, "1");
    co_spawn(loop_main(), NULL, queued, "2");
    co_spawn(loop_main(), NULL, queued, "3");
    assert_true(co_queue_wake_one(&q));
    loop_run_once(loop_main(), 0);
    assert_string_equal(trail, "1");
    co_queue_wake_all(&q);
    loop_run_once(loop_main(), 0);
    assert_string_equal(trail, "123");
}

/* ---- system calls that wait ---- */

static void sleeper(void *arg)
{
    int64_t start = clock_now(CLOCK_HOST);
    co_sleep_until(CLOCK_HOST, start + 3000000);
    assert_true(clock_now(CLOCK_HOST) >= start + 3000000);
}
static void sleeping_takes_the_time(void **state) { co_run_main(sleeper, NULL); }

static int blocking(void *arg)
{
    assert_null(loop_current());
    assert_null(domain_current());
    usleep(1000);
    return *(int *)arg;
}
static int offloaded;
static void offloader(void *arg)
{
    int n = (int)(intptr_t)arg;
    assert_int_equal(co_offload(blocking, &n), n);
    assert_true(domain_locked(dom));
    offloaded++;
}
static void workers_run_beside_each_other(void **state)
{
    dom = domain_new(loop_main(), "offload");
    offloaded = 0;
    for (int i = 0; i < 100; i++)
        co_spawn(NULL, dom, offloader, (void *)(intptr_t)i);
    while (offloaded < 100)
        loop_run_once(loop_main(), -1);
    domain_free(dom);
}

static int sock[2], got_in, got_out;
static void fd_reader(void *arg)
{
    char c;
    got_in = co_fd(sock[0], LOOP_IN, INT64_MAX);
    assert_int_equal(read(sock[0], &c, 1), 1);
    *(bool *)arg = true;
}
static void fd_writer(void *arg) { got_out = co_fd(sock[0], LOOP_OUT, INT64_MAX); }
static void fd_times_out(void *arg)
{
    int64_t start = clock_now(CLOCK_HOST);
    assert_int_equal(co_fd(sock[0], LOOP_IN, start + 2000000), -ETIMEDOUT);
    assert_true(clock_now(CLOCK_HOST) >= start + 2000000);
    assert_true(co_fd(sock[0], LOOP_OUT, start + 10000000000) & LOOP_OUT);
}

static void a_descriptor_is_awaited_by_two_and_in_time(void **state)
{
    bool done = false;
    got_out = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
    co_run_main(fd_times_out, NULL);
    co_spawn(loop_main(), NULL, fd_reader, &done);
    co_spawn(loop_main(), NULL, fd_writer, NULL);
    while (!got_out)
        loop_run_once(loop_main(), 1000000000);
    assert_int_equal(write(sock[1], "x", 1), 1);
    run_until(&done);
    assert_true(got_in & LOOP_IN);
    assert_true(got_out & LOOP_OUT);
    close(sock[0]);
    close(sock[1]);
}

static int file;
static void file_io(void *arg)
{
    enum co_file kind = *(enum co_file *)arg;
    char a[6] = "hello", b[6] = "world", c[10] = { 0 };
    struct iovec v[2] = { { a, 5 }, { b, 5 } }, r = { c, 10 };
    assert_int_equal(co_pwritev(file, v, 2, 100, 0, kind), 10);
    assert_int_equal(co_preadv(file, &r, 1, 100, kind), 10);
    assert_memory_equal(c, "helloworld", 10);
    assert_int_equal(co_preadv(file, &r, 1, 110, kind), 0);
    assert_int_equal(co_fdatasync(file), 0);
    assert_int_equal(co_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 5), 0);
    assert_int_equal(co_preadv(file, &r, 1, 100, kind), 10);
    assert_memory_equal(c, "\0\0\0\0\0world", 10);
    assert_int_equal(co_preadv(-1, &r, 1, 0, kind), -EBADF);
    assert_int_equal(co_pwritev(file, v, 2, INT64_MAX - 4, 0, kind), -EINVAL);
    assert_int_equal(co_fdatasync(-1), -EBADF);
}

/* Long enough to be copied by others. */
static void file_long(void *arg)
{
    size_t n = 1 << 20;
    uint32_t *w = malloc(n), *r = malloc(n);
    for (size_t i = 0; i < n / 4; i++)
        w[i] = (uint32_t)i * 2654435761u;
    struct iovec v[2] = { { w, 4096 }, { (char *)w + 4096, n - 4096 } }, x = { r, n };
    for (enum co_file kind = CO_FILE_DISK; kind <= CO_FILE_MEMORY; kind++) {
        memset(r, 0, n);
        assert_int_equal(co_pwritev(file, v, 2, 4096, 0, kind), n);
        assert_int_equal(co_preadv(file, &x, 1, 4096, kind), n);
        assert_memory_equal(w, r, n);
    }
    free(w);
    free(r);
}

static pthread_t ran_on;
static int where_am_i(void *arg)
{
    ran_on = pthread_self();
    return 7;
}

static void short_call(void *in_place)
{
    assert_int_equal(co_offload_short(where_am_i, NULL), 7);
    assert_int_equal(pthread_equal(ran_on, pthread_self()), in_place != NULL);
}

static int files_done;
static void file_many(void *arg)
{
    int i = (int)(intptr_t)arg;
    enum co_file kind = (enum co_file)(i % 3);
    char w[512], r[512];
    memset(w, i, sizeof w);
    struct iovec v = { w, sizeof w }, x = { r, sizeof r };
    assert_int_equal(co_pwritev(file, &v, 1, (uint64_t)i * 512, 0, kind), 512);
    assert_int_equal(co_preadv(file, &x, 1, (uint64_t)i * 512, kind), 512);
    assert_memory_equal(w, r, 512);
    files_done++;
}

static void files_are_read_and_written(void **state)
{
    char name[] = "/tmp/test_co_XXXXXX";
    file = mkstemp(name);
    unlink(name);
    for (enum co_file kind = CO_FILE_DISK; kind <= CO_FILE_MEMORY; kind++)
        co_run_main(file_io, &kind);
    co_run_main(file_long, NULL);
    files_done = 0;
    for (int i = 0; i < 1000; i++)      /* more than the ring holds */
        co_spawn(loop_main(), NULL, file_many, (void *)(intptr_t)i);
    while (files_done < 1000)
        loop_run_once(loop_main(), -1);
    close(file);
}

static void file_short(void *arg)
{
    char a[6] = "hello", b[6] = { 0 };
    struct iovec w = { a, 5 }, r = { b, 5 };
    enum co_file kind = co_file_kind(file, true);
    assert_int_equal(kind, CO_FILE_MEMORY);
    assert_int_equal(co_pwritev(file, &w, 1, 7, 0, kind), 5);
    assert_int_equal(co_preadv(file, &r, 1, 7, kind), 5);
    assert_string_equal(b, a);
    *(bool *)arg = true;
}

static void short_copies_of_memory_wait_for_nobody(void **state)
{
    bool done = false;
    file = memfd_create("test_co", MFD_CLOEXEC);
    assert_true(file >= 0);
    co_spawn(loop_main(), NULL, file_short, &done);     /* runs to its first await: there is none */
    assert_true(done);
    close(file);
    file = open("/dev/null", O_RDWR | O_CLOEXEC);       /* which has its name on such a file system */
    assert_int_equal(co_file_kind(file, false), CO_FILE_CACHED);
    assert_int_equal(co_file_kind(file, true), CO_FILE_DISK);
    close(file);
}

/* ---- long reads that a loop shares with its mate ---- */

enum { LONG_READ = 256 << 10, LONG_READS = 64, LONG_JOBS = 5 };
struct long_reads { enum co_file kind; unsigned next, done, running; };

static uint32_t long_word(unsigned read, unsigned i) { return (read * LONG_READ / 4 + i) * 2654435761u; }

/* All of a piece: what is in memory may be told first. */
static void read_piece(unsigned n, void *buf, enum co_file kind)
{
    for (size_t done = 0; done < LONG_READ;) {
        struct iovec v = { (char *)buf + done, LONG_READ - done };
        ssize_t got = co_preadv(file, &v, 1, (uint64_t)n * LONG_READ + done, kind);
        assert_true(got > 0);
        done += (size_t)got;
    }
}

/* A job reads one piece after the other; a failure and the end are told as ever. */
static void long_reads_job(void *arg)
{
    struct long_reads *l = arg;
    uint32_t *buf = malloc(LONG_READ);
    struct iovec v = { buf, LONG_READ };
    while (l->next < LONG_READS) {
        unsigned n = l->next++;
        read_piece(n, buf, l->kind);
        for (unsigned i = 0; i < LONG_READ / 4; i++)
            assert_int_equal(buf[i], long_word(n, i));
        l->done++;
    }
    assert_int_equal(co_preadv(file, &v, 1, (uint64_t)LONG_READS * LONG_READ - 512, l->kind), 512);
    assert_int_equal(co_preadv(file, &v, 1, (uint64_t)LONG_READS * LONG_READ, l->kind), 0);
    assert_int_equal(co_preadv(-1, &v, 1, 0, l->kind), -EBADF);
    free(buf);
    l->running--;
}

static void long_reads_are_shared_with_a_mate(void **state)
{
    char name[] = "/tmp/test_co_XXXXXX";
    uint32_t *buf = malloc(LONG_READ);
    file = mkstemp(name);
    unlink(name);
    for (unsigned n = 0; n < LONG_READS; n++) {
        for (unsigned i = 0; i < LONG_READ / 4; i++)
            buf[i] = long_word(n, i);
        assert_int_equal(write(file, buf, LONG_READ), LONG_READ);
    }
    free(buf);
    loop_set_may_block(loop_main(), true);
    for (int round = 0; round < 3; round++) {
        struct long_reads l = { .kind = round == 1 ? CO_FILE_MEMORY : CO_FILE_CACHED };
        if (round == 2)         /* no longer in memory: what cannot be had at once is waited for */
            assert_int_equal(fdatasync(file) | posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
        loop_set_reads_ahead(loop_main(), true);
        loop_set_reads_ahead(loop_main(), true);        /* it has one already */
        for (l.running = 0; l.running < LONG_JOBS;) {
            l.running++;
            co_spawn(loop_main(), NULL, long_reads_job, &l);
        }
        while (l.running)
            loop_run_once(loop_main(), -1);
        assert_int_equal(l.done, LONG_READS);
        loop_set_reads_ahead(loop_main(), false);
    }
    loop_set_may_block(loop_main(), false);
    close(file);
}

/* ---- more stacks than the host has mappings ---- */

static struct co_event gate;
static int through;
static void waits_at_the_gate(void *arg)
{
    char use[8192];                     /* of a stack that nobody else has */
    memset(use, (int)(intptr_t)arg, sizeof use);
    co_wait(&gate);
    for (size_t i = 0; i < sizeof use; i++)
        assert_int_equal((uint8_t)use[i], (uint8_t)(intptr_t)arg);
    through++;
}

static void stacks_beyond_the_hosts_mappings(void **state)
{
    enum { N = 1000 };                  /* more than a loop keeps stacks */
    unsigned max = co_guarded_max;
    co_guarded_max = 100;
    for (int round = 0; round < 3; round++) {
        co_event_clear(&gate);
        through = 0;
        for (int i = 0; i < N; i++)
            co_spawn(loop_main(), NULL, waits_at_the_gate, (void *)(intptr_t)i);
        co_wake(&gate);
        while (through < N)
            loop_run_once(loop_main(), 1000000000);
        assert_int_equal(through, N);
    }
    co_guarded_max = max;
}

static void short_calls_are_made_in_place_where_that_is_allowed(void **state)
{
    co_run_main(short_call, NULL);
    loop_set_may_block(loop_main(), true);
    co_run_main(short_call, &ran_on);
    loop_set_may_block(loop_main(), false);
}

/* ---- deep recursion ---- */

struct depth { unsigned left; uint64_t sum; struct co *co; bool *done; };

/* Each level takes a KiB and comes back to what it has there, after awaits of the deepest. */
static void deep(void *arg)
{
    struct depth *d = arg, below = { d->left - 1, 0, d->co, NULL };
    volatile uint64_t mine[128];
    for (unsigned i = 0; i < ARRAY_SIZE(mine); i++)
        mine[i] = d->left + i;
    assert_ptr_equal(co_self(), d->co);
    assert_true(!dom || domain_locked(dom));
    if (d->left % 1000 == 0)
        co_yield();
    if (d->left)
        co_deeper(deep, &below);
    assert_ptr_equal(co_self(), d->co);
    assert_true(!dom || domain_locked(dom));
    if (d->left % 1500 == 0)
        co_yield();
    for (unsigned i = 0; i < ARRAY_SIZE(mine); i++)
        assert_int_equal(mine[i], d->left + i);
    d->sum = below.sum + d->left;
}

static void deep_from_a_coroutine(void *arg)
{
    struct depth *d = arg;
    d->co = co_self();
    deep(d);
    *d->done = true;
}

static void recursion_goes_on_to_further_stacks(void **state)
{
    enum { LEVELS = 6000, EACH = 3 };
    bool done[EACH] = { false };
    struct depth d[EACH];
#ifdef CO_TSAN
    dom = NULL;     /* to the sanitizer each stack is a thread, which alone may give back a lock that it took */
#else
    dom = domain_new(loop_main(), "deep");
#endif
    for (unsigned i = 0; i < EACH; i++) {
        d[i] = (struct depth){ LEVELS, 0, NULL, &done[i] };
        co_spawn(loop_main(), dom, deep_from_a_coroutine, &d[i]);
    }
    for (unsigned i = 0; i < EACH; i++) {
        run_until(&done[i]);
        assert_int_equal(d[i].sum, (uint64_t)LEVELS * (LEVELS + 1) / 2);
    }
    if (dom)
        domain_free(dom);
}

int main(void)
{
    const struct CMUnitTest coroutines[] = {
        cmocka_unit_test(a_spawn_runs_at_once_to_its_first_await),
        cmocka_unit_test(the_domain_is_held_between_awaits),
        cmocka_unit_test(coroutines_spawn_coroutines),
        cmocka_unit_test(a_coroutine_lives_on_its_home_loop),
        cmocka_unit_test(a_visit_to_another_loop_returns), cmocka_unit_test(a_domain_is_freed_behind_the_last_who_was_inside),
        cmocka_unit_test(an_event_wakes_all_and_stays_set),
        cmocka_unit_test(a_mutex_is_fair),
        cmocka_unit_test(a_queue_wakes_in_order),
        cmocka_unit_test(sleeping_takes_the_time),
        cmocka_unit_test(workers_run_beside_each_other),
        cmocka_unit_test(a_descriptor_is_awaited_by_two_and_in_time),
        cmocka_unit_test(files_are_read_and_written),
        cmocka_unit_test(short_copies_of_memory_wait_for_nobody),
        cmocka_unit_test(long_reads_are_shared_with_a_mate),
        cmocka_unit_test(stacks_beyond_the_hosts_mappings), cmocka_unit_test(recursion_goes_on_to_further_stacks),
        cmocka_unit_test(short_calls_are_made_in_place_where_that_is_allowed),
    };
    return RUN_IN_BOTH_MODES(coroutines);
}
