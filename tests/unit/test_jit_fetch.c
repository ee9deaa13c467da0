/* SPDX-License-Identifier: MIT */
/* Translated code behind page tables that change: jumps that go straight within a page, and what all address spaces share. */
#include "rv.h"
#include "jit_at_once.h"
#include "cpu/riscv/jit_int.h"

enum { ADDI = 0x13, HERE = 0x6f, SATP = 0x180, TABLES = RAM + 0x200000, ONE = RAM + 0x8000, TWO = RAM + 0x9000, THREE = RAM + 0xa000 };
enum { V = 1, R = 2, X = 8, G = 32, A = 64, FAR = 0x100 };
#define SV(levels) ((uint64_t)((levels) + 5) << 60)

/* Maps @va, below 1 GiB, under a root for @levels of tables. */
static void map(unsigned levels, uint64_t va, uint64_t pa, uint64_t bits)
{
    uint64_t table = TABLES + levels * 0x10000;
    for (unsigned level = levels - 1; level > 0; level--) {
        uint64_t entry = table + (va >> (12 + 9 * level) & 511) * 8;
        table = TABLES + levels * 0x10000 + (levels - level) * 0x1000;
        st_le64(at(entry), table >> 12 << 10 | V);
    }
    st_le64(at(table + (va >> 12 & 511) * 8), pa >> 12 << 10 | bits);
}

static struct hart *begin(unsigned levels)
{
    struct hart *h = rv_harts(1, levels == 3 ? NULL : "{\"sv48\": true}", &accel_jit);
    memset(at(TABLES), 0, RAM + RAM_SIZE - TABLES);
    set_csr(h, 0x3b0, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f);
    return h;
}

static void space(struct hart *h, unsigned levels)
{
    set_csr(h, SATP, SV(levels) | (TABLES + levels * 0x10000) >> 12);
    set_reg(h, REG_PRIV, 1);
}

/* A page whose beginning goes on, if t0 is not 0, to a place in it that sets a0. */
static void page(uint64_t pa, int32_t value)
{
    put_insn(pa, enc_b(1, T0, ZERO, FAR));
    put_insn(pa + 4, HERE);
    put_insn(pa + FAR, enc_i(ADDI, A0, ZERO, value));
    put_insn(pa + FAR + 4, HERE);
}

static uint64_t run_at(struct hart *h, uint64_t pc, bool far)
{
    set_reg(h, A0, 0);
    set_reg(h, T0, far);
    set_reg(h, REG_PC, pc);
    hart_run_to(h, pc + (far ? FAR : 0) + 4);
    return reg(h, A0);
}

/*
 * A page is mapped elsewhere, and before anybody fences, a jump in it is taken for the first time: it finds the other page's code. The
 * first page, where it is mapped still, does not go there.
 */
static void test_remapped_before_a_jump(void **state)
{
    struct hart *h = begin(3);
    const uint64_t va = 0x5000, other = 0x7000, evict = va + RV_XTLB_SIZE * RV_PAGE_SIZE;
    page(ONE, 1);
    page(TWO, 2);
    put_insn(THREE + 4, HERE);
    put_insn(THREE, enc_i(ADDI, A0, ZERO, 3));
    map(3, va, ONE, V | R | X | A);
    map(3, other, ONE, V | R | X | A);
    map(3, evict, THREE, V | R | X | A);
    space(h, 3);
    run_at(h, va, false);
    map(3, va, TWO, V | R | X | A);
    assert_int_equal(run_at(h, evict, false), 3);
    assert_in_range(run_at(h, va, true), 1, 2);             /* nothing was fenced: either */
    hart_request_sync(set, 1, hart_do_sfence_vma, 0, 0);
    assert_int_equal(run_at(h, va, true), 2);
    assert_int_equal(run_at(h, other, true), 1);
}

/* A jump is taken for the first time when the cache is full: what stands where it stood is not the jump any more. */
static void test_jump_of_a_forgotten_block(void **state)
{
    size_t whole = jit_options.cache;
    jit_options.cache = 256 << 10;
    struct hart *h = begin(3);
    struct jit *j = h->accel_data;
    page(ONE, 1);
    for (unsigned i = 0; i < 20; i++)                       /* more code than the jump's block has, to be where that was */
        put_insn(ONE + FAR + 4 * i, enc_i(ADDI, A0, i ? A0 : ZERO, 1 + (int32_t)i));
    put_insn(ONE + FAR + 80, enc_i(ADDI, A0, A0, 5));
    put_insn(ONE + FAR + 84, HERE);
    set_reg(h, REG_PC, ONE);
    hart_run_to(h, ONE + 4);
    uint64_t flushes = j->n.flushes;
    for (uint64_t pc = RAM + 0x20000; jit_code_room(j); pc += 0x100) {
        assert_true(pc < RAM + 0x200000);
        put_insn(pc, enc_i(ADDI, A0, A0, 1));
        put_insn(pc + 4, HERE);
        set_reg(h, REG_PC, pc);
        hart_run_to(h, pc + 4);
    }
    assert_int_equal(j->n.flushes, flushes);
    for (unsigned i = 0; i < 2; i++) {
        set_reg(h, T0, 1);
        set_reg(h, REG_PC, ONE);
        hart_run_to(h, ONE + FAR + 84);
        assert_int_equal(reg(h, A0), 20 * 21 / 2 + 5);
    }
    assert_int_equal(j->n.flushes, flushes + 1);
    jit_options.cache = whole;
}

/* Global pages of Sv39 are none of Sv48. */
static void test_other_mode_of_translation(void **state)
{
    struct hart *h = begin(4);
    page(ONE, 1);
    page(TWO, 2);
    map(3, 0x5000, ONE, V | R | X | A | G);
    map(4, 0x5000, TWO, V | R | X | A | G);
    for (unsigned i = 0; i < 4; i++) {
        space(h, 3 + i % 2);
        assert_int_equal(run_at(h, 0x5000, true), 1 + i % 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_remapped_before_a_jump), cmocka_unit_test(test_jump_of_a_forgotten_block),
        cmocka_unit_test(test_other_mode_of_translation),
    };
    int r = cmocka_run_group_tests(tests, rv_memory, NULL);
    if (set)
        hart_set_free(set);
    return r;
}
