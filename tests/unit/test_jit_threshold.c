/* SPDX-License-Identifier: MIT */
/* Code that is interpreted before it is translated: how often, and that nothing tells the difference. */
#include "rv.h"
#include <string.h>
#include "cpu/riscv/jit_int.h"

enum { ADDI = 0x13, LD = 0x3003, HERE = 0x6f, MINSTRET = 0xb02, HANDLER = RAM + 0x800 };

static struct hart *hart_with(unsigned threshold)
{
    jit_options.threshold = threshold;
    return rv_harts(1, NULL, &accel_jit);
}

static const struct jit *jit_of(const struct hart *h) { return h->accel_data; }

/* A loop of @insns - 1 additions, gone round @rounds times; the hart stays behind it. */
static uint64_t put_loop(struct hart *h, uint64_t at, unsigned insns, unsigned rounds)
{
    for (unsigned i = 0; i + 2 < insns; i++)
        put_insn(at + 4 * i, enc_i(ADDI, A0, A0, 1));
    put_insn(at + 4 * (insns - 2), enc_i(ADDI, S0, S0, -1));
    put_insn(at + 4 * (insns - 1), enc_b(1, S0, ZERO, -4 * ((int32_t)insns - 1)));
    put_insn(at + 4 * insns, HERE);
    set_reg(h, S0, rounds);
    set_reg(h, A0, 0);
    return at + 4 * insns;
}

static void test_counts(void **state)
{
    for (unsigned threshold = 0; threshold < 6; threshold++)
        for (unsigned rounds = 1; rounds < 8; rounds++) {
            struct hart *h = hart_with(threshold);
            uint64_t end = put_loop(h, CODE, 4, rounds), before = csr(h, MINSTRET);
            set_reg(h, REG_PC, CODE);
            hart_power(h, true);
            UNTIL(hart_pc(h) == end, harts_run(set));
            hart_power(h, false);
            assert_int_equal(reg(h, A0), 2 * rounds);
            /* the jump to itself at the end runs any number of times, and is translated sooner or later */
            assert_true(csr(h, MINSTRET) - before >= 4 * rounds);
            assert_true(rounds > threshold ? jit_of(h)->n.blocks >= 1 : jit_of(h)->n.cool >= rounds);
        }
}

/* What `info jit` shows. */
static uint64_t told;
static void look_for(void *name, const char *n, uint64_t v) { told = strcmp(name, n) ? told : v; }
static uint64_t counter(const struct hart *h, const char *name)
{
    told = UINT64_MAX;
    accel_jit.stats(h, look_for, (void *)(uintptr_t)name);
    return told;
}

static void test_counters(void **state)
{
    struct hart *h = hart_with(3);
    uint64_t end = put_loop(h, CODE, 4, 10);
    put_insn(end, enc_j(ZERO, 0x1000));                     /* to where it stays: another page */
    put_insn(end + 0x1000, HERE);
    hart_run_to(h, end + 0x1000);
    hart_power(h, false);
    assert_in_range(counter(h, "jit-interpreted"), 3, jit_of(h)->n.cool);
    assert_in_range(counter(h, "jit-blocks"), 1, 8);
    assert_in_range(counter(h, "jit-guest-insns"), 4, 64);
    assert_in_range(counter(h, "jit-code-bytes"), 4, 16384);
    assert_in_range(counter(h, "jit-entries"), 1, 10000000);
    assert_int_equal(counter(h, "jit-dropped"), 0);
    assert_int_equal(counter(h, "jit-flushes"), 0);
    assert_int_equal(counter(h, "jit-stale"), 0);
}

/* What runs once is never translated. */
static void test_once(void **state)
{
    struct hart *h = hart_with(1);
    uint64_t p = CODE;
    for (unsigned i = 0; i < 100; i++, p += 12) {           /* jumps to the next but one: a hundred blocks */
        put_insn(p, enc_i(ADDI, A0, A0, 1));
        put_insn(p + 4, enc_j(ZERO, 8));
        put_insn(p + 8, 0);
    }
    put_insn(p, HERE);
    hart_run_to(h, p);
    assert_int_equal(reg(h, A0), 100);
    assert_true(jit_of(h)->n.blocks <= 1);
    assert_true(jit_of(h)->n.cool >= 100);
}

static void test_across_pages(void **state)
{
    struct hart *h = hart_with(3);
    uint64_t start = CODE + RV_PAGE_SIZE - 6;               /* the second instruction has a half in either page */
    put_insn(start, enc_i(ADDI, A0, A0, 1));
    put_insn(start + 4, enc_i(ADDI, A0, A0, 2));
    put_insn(start + 8, enc_i(ADDI, A0, A0, 4));
    put_insn(start + 12, HERE);
    set_reg(h, REG_PC, start);
    set_reg(h, A0, 0);
    hart_run_to(h, start + 12);
    assert_int_equal(reg(h, A0), 7);
}

static void test_trap(void **state)
{
    struct hart *h = hart_with(100);
    set_csr(h, 0x305, HANDLER);
    put_insn(HANDLER, HERE);
    put_insn(CODE, enc_i(ADDI, A0, ZERO, 5));
    put_insn(CODE + 4, enc_i(LD, A1, ZERO, 16));            /* no memory there */
    put_insn(CODE + 8, enc_i(ADDI, A0, ZERO, 6));
    hart_run_to(h, HANDLER);
    assert_int_equal(reg(h, A0), 5);
    assert_int_equal(csr(h, 0x341), CODE + 4);
    assert_int_equal(csr(h, 0x342), 5);
    assert_int_equal(csr(h, 0x343), 16);
}

/* An address that is reached again after a device has changed its code: interpreted, then translated, then made again. */
static void test_changed_in_between(void **state)
{
    struct hart *h = hart_with(2);
    for (int32_t k = 1; k < 20; k++) {
        assert_true(as_write(&as_memory, CODE, enc_i(ADDI, A0, ZERO, k), 4));
        assert_true(as_write(&as_memory, CODE + 4, HERE, 4));
        hart_request_sync(set, 1, hart_do_fence_i, 0, 0);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, CODE + 4);
        hart_power(h, false);
        assert_int_equal(reg(h, A0), k);
    }
}

static int teardown(void **state)
{
    hart_set_free(set);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts), cmocka_unit_test(test_once), cmocka_unit_test(test_across_pages), cmocka_unit_test(test_trap),
        cmocka_unit_test(test_changed_in_between), cmocka_unit_test(test_counters),
    };
    return cmocka_run_group_tests(tests, rv_memory, teardown);
}
