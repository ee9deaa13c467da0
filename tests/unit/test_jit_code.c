/* SPDX-License-Identifier: MIT */
/* Code that changes: written by the program itself, by a device while a hart runs it, beside what stays as it is. */
#include "rv.h"
#include "jit_at_once.h"
#include <inttypes.h>
#include <unistd.h>

enum { ADDI = 0x13, SW = 0x2023, FENCE_I = 0x100f, MRET = 0x30200073, SRET = 0x10200073, ECALL = 0x73, HERE = 0x6f, ROUNDS = 200 };

/* Puts two instructions in turn at the beginning of a function, with fence.i, and calls it. */
static void rewrite(uint64_t function)
{
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    uint64_t p = CODE;
#define PUT(insn) (put_insn(p, insn), p += 4)
    uint64_t loop = p;
    for (unsigned k = 0; k < 2; k++) {
        PUT(enc_s(SW, T0, T1 + k, 0));
        PUT(FENCE_I);
        PUT(enc_j(RA, (int32_t)(function - p)));
    }
    PUT(enc_i(ADDI, S0, S0, -1));
    PUT(enc_b(1, S0, ZERO, (int32_t)(loop - p)));
    uint64_t end = p;
    PUT(HERE);
    put_insn(function + 4, enc_i(ADDI, A1, A1, 1));
    put_insn(function + 8, enc_i(0x67, ZERO, RA, 0));
    set_reg(h, T0, function);
    set_reg(h, T1, enc_i(ADDI, A0, A0, 1));
    set_reg(h, T2, enc_i(ADDI, A0, A0, 3));
    set_reg(h, S0, ROUNDS);
    hart_run_to(h, end);
    assert_int_equal(reg(h, A0), 4 * ROUNDS);
    assert_int_equal(reg(h, A1), 2 * ROUNDS);
}

static void test_rewritten_by_itself(void **state)
{
    rewrite(CODE + 0x30);           /* among the lines of the caller */
    rewrite(CODE + 0x200);          /* in the page of the caller */
    rewrite(CODE + 0x2000);
}

/* A loop that the first hart does not leave, changed by a device and a fence that is asked for from elsewhere. */
static void test_rewritten_while_it_runs(void **state)
{
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    put_insn(CODE, enc_j(ZERO, 0x40));
    put_insn(CODE + 0x40, enc_i(ADDI, A2, ZERO, 0));
    put_insn(CODE + 0x44, enc_i(ADDI, A3, A2, 0));
    put_insn(CODE + 0x48, enc_j(ZERO, -0x48));
    hart_power(h, true);
    for (uint32_t k = 1; k < 60; k++) {
        uint32_t insn = enc_i(ADDI, A2, ZERO, (int32_t)k);
        hart_set_resume(set);
        usleep(100);                                    /* in the middle of it, as a rule */
        assert_true(as_write(&as_memory, CODE + 0x40, insn, 4));
        hart_request_sync(set, 1, hart_do_fence_i, 0, 0);
        hart_set_pause(set);
        UNTIL(reg(h, A3) == k, harts_run(set));         /* it may not have run since */
    }
    hart_power(h, false);
}

/*
 * What others have written is seen from the next return to user mode on, without a fence: a kernel need not fence on every hart that
 * comes to a page which another process has mapped.
 */
static void return_to_user(const struct accel_ops *accel, uint32_t by)
{
    struct hart *h = rv_harts(2, NULL, accel), *o = hart_get(set, 1);
    uint64_t user = CODE + 0x3000, handler = CODE + 0x80;
    put_insn(CODE, by);
    put_insn(handler, HERE);
    put_insn(user + 4, ECALL);
    set_csr(h, 0x3b0, BIT64(54) - 1);               /* pmpaddr0, pmpcfg0: user mode may do all */
    set_csr(h, 0x3a0, 0x1f);
    for (uint32_t k = 1; k < 40; k++) {
        uint32_t insn = enc_i(ADDI, A0, ZERO, (int32_t)k);
        set_reg(o, A0, user);
        set_reg(o, T0, insn);
        if (k & 1) {
            put_insn(CODE + 0x40, enc_s(SW, A0, T0, 0));
            set_reg(o, REG_PC, CODE + 0x40);
            step(o);
        } else {
            assert_true(as_write_bytes(&as_memory, user, &insn, 4));
        }
        set_csr(h, by == MRET ? 0x341 : 0x141, user);   /* mepc or sepc, mtvec, mstatus: MPP and SPP are user */
        set_csr(h, 0x305, handler);
        set_csr(h, 0x300, 0);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, handler);
        assert_int_equal(reg(h, A0), k);
    }
    hart_power(h, false);
}

static void test_fresh_in_user_mode(void **state)
{
    static const uint32_t by[] = { MRET, SRET };
    for (unsigned i = 0; i < ARRAY_SIZE(by); i++) {
        return_to_user(&accel_jit, by[i]);
        return_to_user(&accel_interp, by[i]);
    }
}

/*
 * A hart that sleeps in WFI is not woken by fences that others ask for, however many, and nobody waits for it; what comes behind the WFI
 * is fresh nevertheless. More of them than it can keep are carried out.
 */
static void fences_of_a_sleeper(const struct accel_ops *accel)
{
    enum { WFI = 0x10500073, MIE = 0x304, MSI = 3 };
    struct hart *h = rv_harts(1, NULL, accel);
    put_insn(CODE, WFI);
    put_insn(CODE + 8, enc_s(SW, A1, A0, 0));
    put_insn(CODE + 12, HERE);
    set_reg(h, A1, DATA);
    set_csr(h, MIE, BIT64(MSI));
    for (uint32_t k = 1; k < 40; k++) {
        uint32_t insn = enc_i(ADDI, A0, ZERO, (int32_t)k);
        hart_irq_set(h, MSI, false);
        set_reg(h, REG_PC, CODE);
        hart_power(h, true);
        hart_set_resume(set);
        UNTIL(atomic_load(&h->in_wfi), usleep(50));
        uint64_t served = h->stats.requests;
        assert_true(as_write(&as_memory, CODE + 4, insn, 4));
        for (unsigned i = 0; i < 1000; i++)
            hart_request_sync(set, 1, hart_do_fence_i, 0, 0);
        assert_int_equal(h->stats.requests, served);
        for (uint64_t i = 0; k == 20 && i < 200; i++)
            hart_request_sync(set, 1, hart_do_sfence_vma, i * RV_PAGE_SIZE, RV_PAGE_SIZE);
        hart_irq_set(h, MSI, true);
        UNTIL(__atomic_load_n((uint32_t *)(void *)at(DATA), __ATOMIC_RELAXED) == k, usleep(50));    /* by itself: a pause would wake it, too */
        hart_set_pause(set);
    }
    hart_power(h, false);
}

static void test_fences_of_a_sleeper(void **state)
{
    fences_of_a_sleeper(&accel_jit);
    fences_of_a_sleeper(&accel_interp);
}

/* The whole cache given up, and the pages made again. */
static void test_forgotten(void **state)
{
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    put_insn(CODE, enc_i(ADDI, A0, A0, 1));
    put_insn(CODE + 4, HERE);
    for (uint32_t k = 1; k < 5; k++) {
        put_insn(CODE, enc_i(ADDI, A0, A0, (int32_t)k));
        hart_set_start(h, 3, CODE, 0, 0);           /* a reset: forgets all */
        hart_run_to(h, CODE + 4);
        assert_int_equal(reg(h, A0), k);
    }
}

/* cbo.zero of the block around DATA + @off, in mode @priv with @menvcfg: whether it is done, and nothing else. */
static void zero_block(unsigned off, unsigned priv, uint64_t menvcfg, bool allowed)
{
    enum { CBO_ZERO = 0x0040200f, BYTES = 0x200, TRAP = CODE + 0x40 };
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    put_insn(CODE, CBO_ZERO | A0 << 15);
    put_insn(CODE + 4, HERE);
    put_insn(TRAP, HERE);
    memset(at(DATA), 0xa5, BYTES);
    set_csr(h, 0x3b0, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f);
    set_csr(h, 0x305, TRAP);
    set_csr(h, 0x30a, menvcfg);
    set_reg(h, REG_PRIV, priv);
    set_reg(h, A0, DATA + off);
    hart_run_to(h, allowed ? CODE + 4 : TRAP);
    for (unsigned i = 0; i < BYTES; i++)
        assert_int_equal(at(DATA)[i], allowed && i / 64 == off / 64 ? 0 : 0xa5);
}

static void test_zero_block(void **state)
{
    enum { CBZE = 0x80, CBCFE = 0x40 };
    zero_block(0x80, 3, CBZE, true);
    zero_block(0x80, 3, 0, true);
    zero_block(0x80, 1, CBZE, true);
    zero_block(0x80, 1, CBCFE, false);
    zero_block(0x9f, 1, CBZE, true);
    zero_block(0x80, 0, CBZE, false);           /* senvcfg does not allow it */
}

/*
 * sext.w of a word whose upper half was not made yet, in place, where the register lives in memory because a loop of the block needs
 * the host's.
 */
static void test_word_in_memory(void **state)
{
    enum { ADD = 0x33, RORW = 0x6000503b, ADDIW = 0x1b };
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    uint64_t p = CODE;
    PUT(enc_r(RORW, T1, A0, ZERO));
    PUT(enc_i(ADDIW, T1, T1, 0));
    PUT(enc_r(ADD, T2, A1, T1));
    uint64_t loop = p;
    for (unsigned r = A1; r <= A1 + 16; r++)            /* a1..a7, s2..s11 */
        PUT(enc_r(ADD, r, r, r));
    PUT(enc_i(ADDI, S0, S0, -1));
    PUT(enc_b(1, S0, ZERO, (int32_t)(loop - p)));
    uint64_t end = p;
    PUT(HERE);
    set_reg(h, S0, 50);
    set_reg(h, A1, 1);
    set_reg(h, REG_PC, CODE);
    set_reg(h, A0, UINT64_C(0x1289abcdef));
    hart_run_to(h, end);
    assert_int_equal(reg(h, T1), UINT64_C(0xffffffff89abcdef));
    assert_int_equal(reg(h, T2), UINT64_C(0xffffffff89abcdf0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rewritten_by_itself), cmocka_unit_test(test_zero_block),
        cmocka_unit_test(test_rewritten_while_it_runs),
        cmocka_unit_test(test_fresh_in_user_mode), cmocka_unit_test(test_fences_of_a_sleeper),
        cmocka_unit_test(test_forgotten), cmocka_unit_test(test_word_in_memory),
    };
    int r = cmocka_run_group_tests(tests, rv_memory, NULL);
    if (set)
        hart_set_free(set);
    return r;
}
