/* SPDX-License-Identifier: MIT */
/* Claims of ranges by coroutines of three loops: nobody is where he may not be, all come to an end, and what collides keeps its order. */
#include "loop_modes.h"
#include <string.h>
#include "loop/range_claim.h"

enum { LOOPS = 3, EACH = 40, ROUNDS = 60, CELLS = 64 };

static struct range_claims claims;
static atomic_int cell[CELLS];          /* how many share it; ALONE: one has it */
static atomic_uint left, wrong;
enum { ALONE = 1000000 };

static unsigned draw(unsigned *seed, unsigned n) { return (*seed = *seed * 1103515245u + 12345) / 65536 % n; }

/* Comes to cells or leaves them; what they held before is what may be there. */
static void take(unsigned from, unsigned n, bool alone, int sign)
{
    for (unsigned i = from; i < from + n; i++) {
        int was = atomic_fetch_add(&cell[i], sign * (alone ? ALONE : 1));
        if (sign > 0 ? (alone ? was != 0 : was >= ALONE) : (alone ? was != ALONE : was >= ALONE))
            atomic_fetch_add(&wrong, 1);
    }
}

static void worker(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;

    for (unsigned r = 0; r < ROUNDS; r++) {
        unsigned from = draw(&seed, CELLS), n = draw(&seed, MIN(CELLS - from, 8u) + 1);
        bool alone = draw(&seed, 3) == 0;
        struct range_claim c;
        co_range_claim(&claims, &c, from, n, alone);
        take(from, n, alone, 1);
        for (unsigned k = draw(&seed, 4); k; k--)
            co_yield();
        take(from, n, alone, -1);
        range_release(&claims, &c);
    }
    atomic_fetch_sub(&left, 1);
}

static void test_three_loops(void **state)
{
    struct loop *l[LOOPS] = { loop_main() };
    struct err e = ERR_INIT;

    range_claims_init(&claims);
    atomic_store(&left, LOOPS * EACH);
    for (unsigned i = 1; i < LOOPS; i++)
        assert_non_null(l[i] = loop_new_thread("claims", &e));
    for (unsigned i = 0; i < LOOPS * EACH; i++)
        co_spawn(l[i % LOOPS], NULL, worker, (void *)(uintptr_t)(i + 1));
    while (atomic_load(&left))
        loop_run_once(loop_main(), 1000000);
    assert_int_equal(atomic_load(&wrong), 0);
    for (unsigned i = 1; i < LOOPS; i++)
        loop_free_thread(l[i]);
    range_claims_fini(&claims);
}

/* ---- order ---- */

struct one { uint64_t from, n; bool alone; char name; unsigned yields; };
static char trail[32];

static void in_turn(void *arg)
{
    const struct one *o = arg;
    struct range_claim c;

    co_range_claim(&claims, &c, o->from, o->n, o->alone);
    strncat(trail, &o->name, 1);
    for (unsigned i = 0; i < o->yields; i++)
        co_yield();
    range_release(&claims, &c);
    atomic_fetch_sub(&left, 1);
}

static const char *order(struct one *o, unsigned n)
{
    trail[0] = 0;
    atomic_store(&left, n);
    range_claims_init(&claims);
    for (unsigned i = 0; i < n; i++)
        co_spawn(loop_main(), NULL, in_turn, &o[i]);
    while (atomic_load(&left))
        loop_run_once(loop_main(), 1000000);
    range_claims_fini(&claims);
    return trail;
}

static void test_who_comes_first(void **state)
{
    /* b waits for a, c for b though it could share with a; d meets nobody */
    assert_string_equal(order((struct one[]){ { 0, 8, false, 'a', 9 }, { 4, 8, true, 'b', 9 }, { 0, 6, false, 'c', 9 }, { 90, 1, true, 'd', 1 } }, 4), "adbc");
    /* those that share run together */
    assert_string_equal(order((struct one[]){ { 0, 8, true, 'a', 9 }, { 0, 8, false, 'b', 9 }, { 0, 8, false, 'c', 1 }, { 0, 8, true, 'd', 1 } }, 4), "abcd");
    /* all there is, and nothing at all */
    assert_string_equal(order((struct one[]){ { 5, 1, false, 'a', 5 }, { 0, UINT64_MAX, true, 'b', 1 }, { 7, 0, true, 'c', 1 }, { 9, 1, false, 'd', 1 } }, 4), "acbd");
}

int main(void)
{
    const struct CMUnitTest claiming[] = { cmocka_unit_test(test_three_loops), cmocka_unit_test(test_who_comes_first) };
    return RUN_IN_BOTH_MODES(claiming);
}
