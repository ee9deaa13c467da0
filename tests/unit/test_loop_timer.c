/* SPDX-License-Identifier: MIT */
/*
 * Timers of the three clocks fire in order and on time, and never after they were disarmed; the machine's clock is stepped, stands
 * still, and follows a source of its own.
 */
#include "loop_modes.h"
#include <string.h>

static int64_t fired[16];
static int n_fired;
static bool flag;

static void note(void *arg)
{
    fired[n_fired++] = (int64_t)(intptr_t)arg;
    flag = true;
}

static void manual(int64_t at)
{
    clock_vm_run(false);
    clock_vm_set_manual(true);
    clock_vm_set(at);
    n_fired = 0;
}

static void host_timers_fire_in_order(void **state)
{
    struct timer t[3];
    int64_t now = clock_now(CLOCK_HOST);
    static const int delay_ms[] = { 20, 5, 10 };
    n_fired = 0;
    for (int i = 0; i < 3; i++) {
        timer_init(&t[i], CLOCK_HOST, loop_main(), NULL, note, (void *)(intptr_t)delay_ms[i]);
        timer_arm(&t[i], now + delay_ms[i] * 1000000);
        assert_true(timer_armed(&t[i]));
    }
    while (n_fired < 3)
        loop_run_once(loop_main(), -1);
    assert_true(clock_now(CLOCK_HOST) >= now + 20000000);
    assert_int_equal(fired[0], 5);
    assert_int_equal(fired[1], 10);
    assert_int_equal(fired[2], 20);
    for (int i = 0; i < 3; i++)
        assert_false(timer_armed(&t[i]));
}

static void wall_timers_fire(void **state)
{
    struct timer t;
    timer_init(&t, CLOCK_WALL, loop_main(), NULL, note, NULL);
    flag = false;
    timer_arm(&t, clock_now(CLOCK_WALL) + 5000000);
    run_until(&flag);
    flag = false;
    timer_arm(&t, 0);           /* long past */
    run_until(&flag);
    timer_fini(&t);
}

static void count_hit(void *arg) { ++*(int *)arg; }

/* Against a plain model: many arms, moves and disarms at random, then steps. */
static void the_heap_agrees_with_a_model(void **state)
{
    enum { N = 200 };
    static struct timer t[N];
    int64_t model[N], now = 1000;
    unsigned rnd = 1;
    manual(now);
    static int hits[N];
    memset(hits, 0, sizeof hits);
    for (int i = 0; i < N; i++) {
        timer_init(&t[i], CLOCK_VM, loop_main(), NULL, count_hit, &hits[i]);
        model[i] = INT64_MAX;
    }
    for (int round = 0; round < 300; round++) {
        for (int k = 0; k < 40; k++) {
            int i = (rnd = rnd * 1103515245 + 12345) / 65536 % N;
            model[i] = (rnd / 7) % 5 ? now + 1 + (int64_t)((rnd = rnd * 1103515245 + 12345) / 65536 % 1000) : INT64_MAX;
            timer_arm(&t[i], model[i]);
        }
        int64_t next = INT64_MAX;
        for (int i = 0; i < N; i++)
            next = MIN(next, model[i]);
        assert_int_equal(clock_vm_next_deadline(), next);
        int64_t step = (rnd >> 8) % 200;
        assert_int_equal(clock_vm_step(step), now += step);
        for (int i = 0; i < N; i++) {
            assert_int_equal(hits[i], model[i] <= now);
            hits[i] = 0;
            if (model[i] <= now)
                model[i] = INT64_MAX;
            assert_int_equal(timer_armed(&t[i]), model[i] != INT64_MAX);
        }
    }
    for (int i = 0; i < N; i++)
        timer_fini(&t[i]);
    assert_int_equal(clock_vm_next_deadline(), INT64_MAX);
}
struct periodic { struct timer t; int64_t period; int n; int64_t seen[8]; };
static void periodic_fire(void *arg)
{
    struct periodic *p = arg;
    p->seen[p->n++ & 7] = clock_now(CLOCK_VM);
    timer_arm(&p->t, clock_now(CLOCK_VM) + p->period);
}

/* A step visits each deadline at its own time, also on another loop. */
static void a_step_stops_at_every_deadline(void **state)
{
    struct err e = ERR_INIT;
    struct loop *l = loop_new_thread("step", &e);
    struct domain *d = domain_new(l, "step");
    struct periodic a = { .period = 30 }, b = { .period = 50 };
    manual(0);
    timer_init(&a.t, CLOCK_VM, loop_main(), NULL, periodic_fire, &a);
    timer_init(&b.t, CLOCK_VM, NULL, d, periodic_fire, &b);
    timer_arm(&a.t, 30);
    timer_arm(&b.t, 50);        /* from this thread: the loop takes it over */
    assert_int_equal(clock_vm_step(100), 100);
    assert_int_equal(a.n, 3);
    assert_int_equal(b.n, 2);
    assert_int_equal(a.seen[0], 30);
    assert_int_equal(a.seen[1], 60);
    assert_int_equal(b.seen[0], 50);
    assert_int_equal(b.seen[1], 100);
    assert_int_equal(clock_vm_next_deadline(), 120);
    clock_vm_run(true);         /* qtest: running does not make it tick */
    loop_run_once(loop_main(), 2000000);
    assert_int_equal(clock_now(CLOCK_VM), 100);
    timer_fini(&a.t);
    timer_fini(&b.t);
    loop_free_thread(l);
    domain_free(d);
}

static void a_timer_for_the_present_does_not_hold_a_step(void **state)
{
    struct periodic p = { .period = 0 };
    manual(0);
    timer_init(&p.t, CLOCK_VM, loop_main(), NULL, periodic_fire, &p);
    timer_arm(&p.t, 5);
    assert_int_equal(clock_vm_step(10), 10);
    assert_true(p.n > 1);
    timer_fini(&p.t);
}

static void the_vm_clock_stands_while_stopped(void **state)
{
    struct timer t;
    manual(500);
    clock_vm_set_manual(false);
    timer_init(&t, CLOCK_VM, loop_main(), NULL, note, NULL);
    timer_arm(&t, 500 + 3000000);
    flag = false;
    loop_run_once(loop_main(), 8000000);
    assert_int_equal(clock_now(CLOCK_VM), 500);
    assert_false(flag);
    clock_vm_run(true);
    run_until(&flag);
    int64_t now = clock_now(CLOCK_VM);
    assert_true(now >= 3000500);
    clock_vm_run(false);
    int64_t stood = clock_now(CLOCK_VM);
    usleep(2000);
    assert_int_equal(clock_now(CLOCK_VM), stood);
    assert_true(stood >= now);
}

static int64_t counted;
static int64_t count_source(void *arg) { return *(int64_t *)arg; }

static void a_source_replaces_the_host(void **state)
{
    struct timer t;
    manual(0);
    clock_vm_set_manual(false);
    clock_vm_run(true);
    counted = 10;
    const struct clock_source source = { .now = count_source, .arg = &counted };
    clock_vm_set_source(&source);
    timer_init(&t, CLOCK_VM, loop_main(), NULL, note, NULL);
    timer_arm(&t, 20);
    flag = false;
    loop_run_once(loop_main(), 1000000);
    assert_false(flag);
    assert_int_equal(clock_now(CLOCK_VM), 10);
    counted = 21;
    loop_run_once(loop_main(), 1000000000);
    assert_true(flag);
    clock_vm_set_source(NULL);
    assert_true(clock_now(CLOCK_VM) >= 21);
    clock_vm_run(false);
}

/* ---- arming from another thread, under the domain's lock ---- */

struct fight { struct domain *d; struct timer t; bool may_fire; long fires, wrong; atomic_bool stop; };

static void fight_fire(void *arg)
{
    struct fight *f = arg;
    f->fires++;
    f->wrong += !f->may_fire;
}

static void *fight_thread(void *arg)
{
    struct fight *f = arg;
    for (int i = 0; i < 20000; i++) {
        domain_lock(f->d);
        f->may_fire = true;
        timer_arm(&f->t, clock_now(CLOCK_HOST) + i % 3 * 1000);
        domain_unlock(f->d);
        domain_lock(f->d);
        timer_disarm(&f->t);
        f->may_fire = false;
        domain_unlock(f->d);
    }
    atomic_store(&f->stop, true);
    return NULL;
}

static void a_disarmed_timer_never_fires(void **state)
{
    struct err e = ERR_INIT;
    struct loop *l = loop_new_thread("fight", &e);
    struct fight f = { .d = domain_new(l, "fight") };
    pthread_t t;
    timer_init(&f.t, CLOCK_HOST, NULL, f.d, fight_fire, &f);
    pthread_create(&t, NULL, fight_thread, &f);
    pthread_join(t, NULL);
    domain_lock(f.d);
    assert_int_equal(f.wrong, 0);
    long before = f.fires;
    f.may_fire = true;
    timer_arm(&f.t, clock_now(CLOCK_HOST));
    domain_unlock(f.d);
    while (timer_armed(&f.t))
        usleep(100);
    timer_fini(&f.t);
    assert_int_equal(f.fires, before + 1);
    loop_free_thread(l);
    domain_free(f.d);
}

/* The loop sleeps until @far; a timer is armed for later (nothing to do), then moved before that: it must not be slept through. */
static void mark_time(void *arg) { atomic_store((_Atomic int64_t *)arg, clock_now(CLOCK_HOST)); }

static void a_timer_moved_nearer_ends_the_sleep(void **state)
{
    struct err e = ERR_INIT;
    struct loop *l = loop_new_thread("sleeper", &e);
    const int64_t FAR = 3600 * INT64_C(1000000000);
    _Atomic int64_t far_at = 0, near_at = 0;
    struct timer far, near;
    timer_init(&far, CLOCK_HOST, l, NULL, mark_time, &far_at);
    timer_init(&near, CLOCK_HOST, l, NULL, mark_time, &near_at);
    for (int i = 0; i < 5; i++) {
        int64_t start = clock_now(CLOCK_HOST), due = start + 30000000;
        timer_arm(&far, start + FAR);
        usleep(5000);                               /* asleep by now */
        timer_arm(&near, start + 2 * FAR);
        usleep(1000 * (unsigned)i);
        timer_arm(&near, due);
        UNTIL(atomic_load(&near_at), usleep(500));
        assert_true(atomic_load(&near_at) >= due && !atomic_load(&far_at));
        timer_disarm(&far);
        atomic_store(&near_at, 0);
    }
    timer_arm(&far, clock_now(CLOCK_HOST) + 10000000);
    timer_arm(&near, clock_now(CLOCK_HOST) + 20000000);
    while (!atomic_load(&far_at) || !atomic_load(&near_at))
        usleep(500);
    assert_true(atomic_load(&near_at) >= atomic_load(&far_at));
    timer_fini(&far);
    timer_fini(&near);
    loop_free_thread(l);
}

int main(void)
{
    const struct CMUnitTest timers[] = {
        cmocka_unit_test(host_timers_fire_in_order),
        cmocka_unit_test(wall_timers_fire),
        cmocka_unit_test(the_heap_agrees_with_a_model),
        cmocka_unit_test(a_step_stops_at_every_deadline),
        cmocka_unit_test(a_timer_for_the_present_does_not_hold_a_step),
        cmocka_unit_test(the_vm_clock_stands_while_stopped),
        cmocka_unit_test(a_source_replaces_the_host),
        cmocka_unit_test(a_disarmed_timer_never_fires),
        cmocka_unit_test(a_timer_moved_nearer_ends_the_sleep),
    };
    return RUN_IN_BOTH_MODES(timers);
}
