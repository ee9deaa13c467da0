/* SPDX-License-Identifier: MIT */
/*
 * Harts that are in each other's way all the time get on nevertheless: code that two of them write in turn beside each other's, data beside
 * code, remote fences of each for the other, LR and SC around another access while others store beside it.
 */
#include "rv.h"
#include "jit_at_once.h"

enum { ADDI = 0x13, LD = 0x3003, SD = 0x3023, SW = 0x2023, JALR = 0x67, FENCE_I = 0x100f, ECALL = 0x73, HERE = 0x6f, LR_D = 0x1000302f,
       SC_D = 0x1800302f, AMOADD_D = 0x0000302f, BEQ = 0, BNE = 1 };
enum { SHARED = RAM + 0x8000, ROUNDS = 60, FEW = 8 };

static uint64_t pc_now;
static void put(uint32_t insn)
{
    put_insn(pc_now, insn);
    pc_now += 4;
}

static void branch(unsigned f3, unsigned a, unsigned b, uint64_t to) { put(enc_b(f3, a, b, (int32_t)(to - pc_now))); }

static struct hart *begin(unsigned i)
{
    struct hart *h = hart_get(set, i);
    pc_now = CODE + i * 0x1000;
    set_reg(h, REG_PC, pc_now);
    set_reg(h, T0, ROUNDS);
    return h;
}

static uint64_t end_loop(uint64_t loop)
{
    put(enc_i(ADDI, T0, T0, -1));
    branch(BNE, T0, ZERO, loop);
    put(HERE);
    return pc_now - 4;
}

static bool stand_at(unsigned n, const uint64_t *end)
{
    for (unsigned i = 0; i < n; i++)
        if (hart_pc(hart_get(set, i)) != end[i])
            return false;
    return true;
}

static void race(void)
{
    hart_set_resume(set);
    usleep(1000);
    hart_set_pause(set);
}

static void run_all(unsigned n, const uint64_t *end)
{
    rv_code_attach(set);
    for (unsigned i = 0; i < n; i++)
        hart_power(hart_get(set, i), true);
    UNTIL(stand_at(n, end), race());
}

/* Each hart writes a function of its own, in the page of all, by turns one of two, and calls it. */
static void code_in_turn(const struct accel_ops *accel, unsigned harts)
{
    uint64_t end[4];
    rv_harts(harts, NULL, accel);
    for (unsigned i = 0; i < harts; i++) {
        struct hart *h = begin(i);
        set_reg(h, A1, SHARED + 0x100 * i);
        set_reg(h, A2, enc_i(ADDI, A0, A0, 1));
        set_reg(h, A3, enc_i(ADDI, A0, A0, 3));
        put_insn(SHARED + 0x100 * i + 4, enc_i(JALR, ZERO, RA, 0));
        uint64_t loop = pc_now;
        for (unsigned k = 0; k < 2; k++) {
            put(enc_s(SW, A1, A2 + k, 0));
            put(FENCE_I);
            put(enc_i(JALR, RA, A1, 0));
        }
        end[i] = end_loop(loop);
    }
    run_all(harts, end);
    for (unsigned i = 0; i < harts; i++)
        assert_int_equal(reg(hart_get(set, i), A0), 4 * ROUNDS);
}

static void test_code_in_turn(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        code_in_turn(&accel_jit, 2);
        code_in_turn(&accel_jit, 4);
        code_in_turn(&accel_interp, 2);
        code_in_turn(&accel_interp, 4);
    }
}

/* One hart's loop runs, fencing, in the page that another stores to until it is done. */
static void test_data_beside_code(void **state)
{
    uint64_t end[2];
    rv_harts(2, NULL, &accel_jit);
    struct hart *h = begin(0);
    pc_now = SHARED;
    set_reg(h, REG_PC, SHARED);
    set_reg(h, A1, DATA);
    set_reg(h, A2, 1);
    uint64_t loop = pc_now;
    put(enc_i(ADDI, A0, A0, 1));
    put(FENCE_I);
    put(enc_i(ADDI, T0, T0, -1));
    branch(BNE, T0, ZERO, loop);
    put(enc_s(SD, A1, A2, 0));
    put(HERE);
    end[0] = pc_now - 4;
    h = begin(1);
    set_reg(h, A1, SHARED + 0x800);
    set_reg(h, A3, DATA);
    loop = pc_now;
    put(enc_r(AMOADD_D, ZERO, A1, A2));
    put(enc_s(SD, A1, A0, 8));
    put(enc_i(LD, A4, A3, 0));
    branch(BEQ, A4, ZERO, loop);
    put(HERE);
    end[1] = pc_now - 4;
    run_all(2, end);
    assert_int_equal(reg(hart_get(set, 0), A0), ROUNDS);
}

/* As the SBI's remote fences do. A hart that serves one may have to ask all others to watch a page, and they it. */
static bool fence_all(struct hart *h, void *opaque)
{
    hart_request_sync(set, (UINT64_C(1) << hart_set_count(set)) - 1, hart_do_fence_i, 0, 0);
    hart_request_sync(set, (UINT64_C(1) << hart_set_count(set)) - 1, hart_do_sfence_vma, 0, UINT64_MAX);
    return true;
}

static void test_remote_fences(void **state)
{
    static const struct hart_env env = { .time_now = rv_time_now, .timer_arm = rv_arm, .ecall = fence_all };
    uint64_t end[4];
    struct err e = ERR_INIT;
    rv_harts(1, NULL, &accel_jit);
    struct hart_set_config cfg = { .cpu = hart_get(set, 0)->cpu, .accel = &accel_jit, .env = &env, .count = 4 };
    hart_set_free(set);
    set = hart_set_new(&cfg, &e);
    assert_non_null(set);
    for (unsigned i = 0; i < 4; i++) {
        hart_set_start(hart_get(set, i), 1, 0, 0, 0);
        struct hart *h = begin(i);
        set_reg(h, A1, SHARED + 0x100 * i);
        set_reg(h, A2, enc_i(ADDI, A0, A0, 1));
        put_insn(SHARED + 0x100 * i + 4, enc_i(JALR, ZERO, RA, 0));
        uint64_t loop = pc_now;
        put(enc_s(SW, A1, A2, 0));
        put(ECALL);
        put(enc_i(JALR, RA, A1, 0));
        end[i] = end_loop(loop);
    }
    run_all(4, end);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(reg(hart_get(set, i), A0), ROUNDS);
}

/* LR, a load, SC: while another hart stores to the same page, and stops only when all are through. */
static void test_reservation_beside_stores(void **state)
{
    uint64_t end[2];
    rv_harts(2, NULL, &accel_jit);
    struct hart *h = begin(0);
    set_reg(h, T0, FEW);
    set_reg(h, A1, DATA);
    set_reg(h, A2, DATA + 0x1000);
    set_reg(h, A3, 1);
    uint64_t loop = pc_now;
    put(enc_r(LR_D, T1, A1, 0));
    put(enc_i(LD, T2, A2, 0));
    put(enc_i(ADDI, T1, T1, 1));
    put(enc_r(SC_D, T2, A1, T1));
    branch(BNE, T2, ZERO, loop);
    put(enc_i(ADDI, T0, T0, -1));
    branch(BNE, T0, ZERO, loop);
    put(enc_s(SD, A2, A3, 0));
    put(HERE);
    end[0] = pc_now - 4;
    h = begin(1);
    set_reg(h, A1, DATA + 0x800);
    set_reg(h, A2, DATA + 0x1000);
    loop = pc_now;
    put(enc_i(ADDI, A0, A0, 1));
    put(enc_s(SD, A1, A0, 0));
    put(enc_i(LD, T2, A2, 0));
    branch(BEQ, T2, ZERO, loop);
    put(HERE);
    end[1] = pc_now - 4;
    run_all(2, end);
    assert_int_equal(ld_le64(at(DATA)), FEW);
}

/* A hart that only goes round does not keep those waiting who free what it might have seen. */
static atomic_bool freed;
static void note_freed(struct rcu_head *head) { atomic_store(&freed, true); }

static void test_readers_move_on(void **state)
{
    static struct rcu_head head;
    rv_harts(1, NULL, &accel_jit);
    begin(0);
    uint64_t loop = pc_now;
    put(enc_i(ADDI, A0, A0, 1));
    branch(BEQ, ZERO, ZERO, loop);
    hart_power(hart_get(set, 0), true);
    UNTIL(reg(hart_get(set, 0), A0) > 10000, race());
    hart_set_resume(set);
    for (unsigned i = 0; i < 20; i++) {
        atomic_store(&freed, false);
        rcu_call(&head, note_freed);
        UNTIL(atomic_load(&freed), usleep(100));
    }
    hart_set_pause(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_code_in_turn), cmocka_unit_test(test_data_beside_code), cmocka_unit_test(test_remote_fences),
        cmocka_unit_test(test_reservation_beside_stores), cmocka_unit_test(test_readers_move_on),
    };
    int r = cmocka_run_group_tests(tests, rv_memory, NULL);
    rv_code_attach(NULL);
    if (set)
        hart_set_free(set);
    return r;
}
