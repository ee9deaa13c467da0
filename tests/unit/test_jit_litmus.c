/* SPDX-License-Identifier: MIT */
/*
 * What harts see of each other's stores (ISA manual, "RVWMO Memory Consistency Model"): message passing, store buffering, independent
 * reads of independent writes, LR/SC and AMO counters, and a list whose head comes back to the same value. Each writer counts up, so
 * that what a reader saw tells when it was; nobody waits for another. BP_LITMUS_MS: for how long each of them is repeated.
 */
#include "rv.h"
#include "jit_at_once.h"
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { ADDI = 0x13, LD = 0x3003, SD = 0x3023, LR_D = 0x1000302f, SC_D = 0x1800302f, SC_D_RL = 0x1a00302f, AMOADD_D = 0x0000302f, HERE = 0x6f };
enum { FENCE_R_R = 0x0220000f, FENCE_W_W = 0x0110000f, FENCE_RW_RW = 0x0330000f };
enum { BEQ, BNE, BLTU = 6 };
enum { S2 = 18, T3 = 28, T4 = 29 };
enum { N = 3000, X_AT = DATA, Y_AT = DATA + 0x100, LOG = DATA + 0x10000, LOG_SIZE = 0x20000, NODES = 6, NODE = DATA + 0x1000 };

static uint64_t pc_now;
static void put(uint32_t insn)
{
    put_insn(pc_now, insn);
    pc_now += 4;
}
static void branch(unsigned f3, unsigned a, unsigned b, uint64_t to) { put(enc_b(f3, a, b, (int32_t)(to - pc_now))); }

/* Begins the program of hart @i. */
static struct hart *begin(unsigned i, uint64_t a0, uint64_t a1)
{
    struct hart *h = hart_get(set, i);
    pc_now = CODE + i * 0x1000;
    set_reg(h, REG_PC, pc_now);
    set_reg(h, A0, a0);
    set_reg(h, A1, a1);
    set_reg(h, A2, LOG + i * LOG_SIZE);
    set_reg(h, T0, 0);
    set_reg(h, T1, N);
    return h;
}

static uint64_t logged(unsigned hart, unsigned i) { return ld_le64(at(LOG + hart * LOG_SIZE + i * 8)); }

static bool all_stand_at(unsigned n, const uint64_t end[])
{
    unsigned there = 0;
    for (unsigned i = 0; i < n; i++)
        there += hart_pc(hart_get(set, i)) == end[i];
    return there == n;
}

/* Longer than harts_run(): they are to meet. */
static void race(void)
{
    hart_set_resume(set);
    usleep(1000);
    hart_set_pause(set);
}

/* Runs until each of @n harts stands at its end. */
static void run_all(unsigned n, const uint64_t end[])
{
    for (unsigned i = 0; i < n; i++)
        hart_power(hart_get(set, i), true);
    UNTIL(all_stand_at(n, end), race());
}

/* ---- the programs; each returns its end ---- */

static uint64_t count_up(unsigned i, uint64_t first, uint64_t then)
{
    begin(i, first, then);
    uint64_t loop = pc_now;
    put(enc_i(ADDI, T0, T0, 1));
    put(enc_s(SD, A0, T0, 0));
    if (then) {
        put(FENCE_W_W);
        put(enc_s(SD, A1, T0, 0));
    }
    branch(BNE, T0, T1, loop);
    put(HERE);
    return pc_now - 4;
}

/* Reads @first, then @then, which must not be older: else counts in a5. */
static uint64_t read_order(unsigned i, uint64_t first, uint64_t then)
{
    begin(i, first, then);
    uint64_t loop = pc_now;
    put(enc_i(LD, T0, A0, 0));
    put(FENCE_R_R);
    put(enc_i(LD, T2, A1, 0));
    branch(BLTU, T2, T0, pc_now + 12);
    branch(BNE, T0, T1, loop);
    put(HERE);
    put(enc_i(ADDI, A5, A5, 1));
    branch(BEQ, ZERO, ZERO, loop);
    return pc_now - 12;
}

static uint64_t store_and_read(unsigned i, uint64_t mine, uint64_t other)
{
    begin(i, mine, other);
    uint64_t loop = pc_now;
    put(enc_i(ADDI, T0, T0, 1));
    put(enc_s(SD, A0, T0, 0));
    put(FENCE_RW_RW);
    put(enc_i(LD, T2, A1, 0));
    put(enc_s(SD, A2, T2, 0));
    put(enc_i(ADDI, A2, A2, 8));
    branch(BNE, T0, T1, loop);
    put(HERE);
    return pc_now - 4;
}

static uint64_t read_both(unsigned i, uint64_t first, uint64_t then)
{
    begin(i, first, then);
    uint64_t loop = pc_now;
    put(enc_i(LD, T2, A0, 0));
    put(FENCE_R_R);
    put(enc_i(LD, T3, A1, 0));
    put(enc_s(SD, A2, T2, 0));
    put(enc_s(SD, A2, T3, 8));
    put(enc_i(ADDI, A2, A2, 16));
    put(enc_i(ADDI, T0, T0, 1));
    branch(BNE, T0, T1, loop);
    put(HERE);
    return pc_now - 4;
}

/* ---- what may be ---- */

static void test_message_passing(void **state)
{
    rv_harts(2, NULL, &accel_jit);
    uint64_t end[] = { count_up(0, X_AT, Y_AT), read_order(1, Y_AT, X_AT) };
    run_all(2, end);
    assert_int_equal(reg(hart_get(set, 1), A5), 0);
}

/* Once y's writer has stored what x's writer did not see, it must see what x's writer had stored before it looked. */
static void test_store_buffering(void **state)
{
    rv_harts(2, NULL, &accel_jit);
    uint64_t end[] = { store_and_read(0, X_AT, Y_AT), store_and_read(1, Y_AT, X_AT) };
    run_all(2, end);
    for (unsigned i = 1; i <= N; i++) {
        uint64_t seen = logged(0, i - 1);
        if (seen < N && logged(1, (unsigned)seen) < i)
            fail_msg("x = %u, then y = %" PRIu64 " was read; y = %" PRIu64 ", then x = %" PRIu64, i, seen, seen + 1, logged(1, (unsigned)seen));
    }
}

/* Both readers agree on which of two writes came first. */
static void test_independent_reads(void **state)
{
    rv_harts(4, NULL, &accel_jit);
    uint64_t end[] = { count_up(0, X_AT, 0), count_up(1, Y_AT, 0), read_both(2, X_AT, Y_AT), read_both(3, Y_AT, X_AT) };
    run_all(4, end);
    for (unsigned i = 0, k = 0; i < N; i++) {
        uint64_t x = logged(2, 2 * i), y = logged(2, 2 * i + 1);
        while (k < N && logged(3, 2 * k) <= y)
            k++;
        if (k < N && logged(3, 2 * k + 1) < x)
            fail_msg("x = %" PRIu64 " with y = %" PRIu64 ", and y = %" PRIu64 " with x = %" PRIu64, x, y, logged(3, 2 * k), logged(3, 2 * k + 1));
    }
}

static uint64_t add_twice(unsigned i)
{
    begin(i, X_AT, Y_AT);
    set_reg(hart_get(set, i), S2, 1);
    uint64_t loop = pc_now;
    put(enc_r(LR_D, T2, A0, 0));
    put(enc_i(ADDI, T2, T2, 1));
    put(enc_r(SC_D, T3, A0, T2));
    branch(BNE, T3, ZERO, loop);
    put(enc_r(AMOADD_D, ZERO, A1, S2));
    put(enc_i(ADDI, T0, T0, 1));
    branch(BNE, T0, T1, loop);
    put(HERE);
    return pc_now - 4;
}

static void counters(unsigned harts)
{
    uint64_t end[4];
    rv_harts(harts, NULL, &accel_jit);
    for (unsigned i = 0; i < harts; i++)
        end[i] = add_twice(i);
    run_all(harts, end);
    assert_int_equal(ld_le64(at(X_AT)), harts * N);
    assert_int_equal(ld_le64(at(Y_AT)), harts * N);
}

static void test_counters(void **state)
{
    counters(2);
    counters(4);
}

/* Takes a node off the list, counts in it, and puts it back. */
static uint64_t take_and_put(unsigned i, unsigned times)
{
    set_reg(begin(i, X_AT, 0), T1, times);
    uint64_t take = pc_now;
    put(enc_r(LR_D, A3, A0, 0));
    branch(BEQ, A3, ZERO, take);
    put(enc_i(LD, T2, A3, 0));
    put(enc_r(SC_D, T3, A0, T2));
    branch(BNE, T3, ZERO, take);
    put(enc_i(LD, T4, A3, 8));
    put(enc_i(ADDI, T4, T4, 1));
    put(enc_s(SD, A3, T4, 8));
    uint64_t give = pc_now;
    put(enc_r(LR_D, T2, A0, 0));
    put(enc_s(SD, A3, T2, 0));
    put(enc_r(SC_D_RL, T3, A0, A3));
    branch(BNE, T3, ZERO, give);
    put(enc_i(ADDI, T0, T0, 1));
    branch(BNE, T0, T1, take);
    put(HERE);
    return pc_now - 4;
}

static void list(unsigned harts)
{
    enum { TIMES = 60 };
    uint64_t end[4], sum = 0, p;
    unsigned nodes = 0;
    rv_harts(harts, NULL, &accel_jit);
    for (unsigned i = 0; i < NODES; i++)
        st_le64(at(NODE + i * 0x1000), i + 1 < NODES ? NODE + (i + 1) * 0x1000 : 0);
    st_le64(at(X_AT), NODE);
    for (unsigned i = 0; i < harts; i++)
        end[i] = take_and_put(i, TIMES);
    run_all(harts, end);
    for (p = ld_le64(at(X_AT)); p && nodes <= NODES; p = ld_le64(at(p)), nodes++)
        sum += ld_le64(at(p + 8));
    assert_int_equal(nodes, NODES);
    assert_int_equal(sum, harts * TIMES);
}

static void test_head_that_comes_back(void **state)
{
    list(2);
    list(4);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void repeat(void (*test)(void **), void **state)
{
    double end = now() + (getenv("BP_LITMUS_MS") ? atof(getenv("BP_LITMUS_MS")) : 0);
    do
        test(state);
    while (now() < end);
}

#define REPEATED(name) static void name##_repeated(void **state) { repeat(test_##name, state); }
REPEATED(message_passing)
REPEATED(store_buffering)
REPEATED(independent_reads)
REPEATED(counters)
REPEATED(head_that_comes_back)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_passing_repeated),
        cmocka_unit_test(store_buffering_repeated),
        cmocka_unit_test(independent_reads_repeated),
        cmocka_unit_test(counters_repeated),
        cmocka_unit_test(head_that_comes_back_repeated),
    };
    int r = cmocka_run_group_tests(tests, rv_memory, NULL);
    if (set)
        hart_set_free(set);
    return r;
}
