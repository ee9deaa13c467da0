/* SPDX-License-Identifier: MIT */
/* Readers on threads against a writer that poisons what it frees; a reader that never leaves; deferred calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "base/rcu.h"
#include "base/str.h"

struct item { uint64_t a, b; struct rcu_head rcu; };
static struct item *_Atomic shared;
static atomic_bool stop;
static atomic_uint bad, freed;

static void item_free(struct rcu_head *h)
{
    struct item *i = container_of(h, struct item, rcu);
    i->a = 1;
    i->b = 2;
    free(i);
    atomic_fetch_add(&freed, 1);
}

static void *reader(void *arg)
{
    uint64_t n = 0;
    while (!atomic_load(&stop)) {
        rcu_read_lock();
        rcu_read_lock();
        struct item *i = atomic_load_explicit(&shared, memory_order_acquire);
        rcu_read_unlock();
        for (int k = 0; k < 20; k++)
            if (i->a != i->b)
                atomic_fetch_add(&bad, 1);
        rcu_read_unlock();
        n++;
    }
    return (void *)(uintptr_t)n;
}

static struct item *item_new(uint64_t v)
{
    struct item *i = xnew(struct item);
    i->a = i->b = v;
    return i;
}

static void test_readers_never_see_freed(void **s)
{
    pthread_t t[3];
    unsigned made = 0;
    atomic_store(&shared, item_new(100));
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, reader, NULL);
    for (uint64_t v = 0; v < 3000; v++) {
        struct item *old = atomic_exchange(&shared, item_new(v + 200));
        made++;
        if (v % 64) {
            rcu_call(&old->rcu, item_free);
        } else {
            rcu_synchronize();
            item_free(&old->rcu);
        }
    }
    rcu_barrier();
    atomic_store(&stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&bad), 0);
    assert_int_equal(atomic_load(&freed), made);
    free(atomic_load(&shared));
}

/* ---- a thread that stays inside ---- */
struct vcpu { atomic_bool inside, gone; };
static void *vcpu_run(void *arg)
{
    struct vcpu *c = arg;
    rcu_thread_register();
    rcu_read_lock();
    atomic_store(&c->inside, true);
    while (!atomic_load(&c->gone))
        rcu_quiescent();
    rcu_read_unlock();
    rcu_thread_unregister();
    return NULL;
}

static void test_quiescent(void **s)
{
    struct vcpu c = { 0 };
    pthread_t t;
    pthread_create(&t, NULL, vcpu_run, &c);
    while (!atomic_load(&c.inside))
        usleep(100);
    for (int i = 0; i < 20; i++)
        rcu_synchronize();                  /* ends though the thread never leaves */
    atomic_store(&c.gone, true);
    pthread_join(t, NULL);
    rcu_synchronize();
}

static void test_waits_for_reader(void **s)
{
    rcu_read_lock();
    assert_true(rcu_reading());
    struct item *i = item_new(5);
    unsigned before = atomic_load(&freed);
    rcu_call(&i->rcu, item_free);
    usleep(20000);
    assert_int_equal(atomic_load(&freed), before);      /* this thread is a reader still */
    rcu_read_unlock();
    rcu_barrier();
    assert_int_equal(atomic_load(&freed), before + 1);
    assert_false(rcu_reading());
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_readers_never_see_freed), cmocka_unit_test(test_quiescent),
                                        cmocka_unit_test(test_waits_for_reader) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
