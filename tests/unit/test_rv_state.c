/* SPDX-License-Identifier: MIT */
/* Saved state of a hart: every member is saved or says why not; what is loaded is what was saved, and only what the CPU has. */
#include "rv.h"
#include "core/state.h"
#include "cpu/riscv/cpu.h"

static struct str save(struct hart *h)
{
    struct str s = { 0 };
    state_save(&hart_state, h, &s);
    return s;
}

static bool load(struct hart *h, const struct str *s, struct err *e) { return state_load(&hart_state, h, s->s, s->len, e); }

static void test_every_member(void **state)
{
    uint32_t at = 0;
    if (state_gap(&hart_state, 0, sizeof(struct hart), &at))
        fail_msg("no row for the member at offset %u", at);
}

/* Values within bounds that a CPU may hold. */
static void scramble(struct hart *h, uint32_t seed)
{
    state_scramble(&hart_state, h, seed);
    h->ext = h->cpu->ext;
    h->priv = seed % 3 == 2 ? 3 : seed % 3;
    h->mstatus = UINT64_C(0xa00000000) | (seed & 1 ? 0x1888 : 0x60a2);
    h->menvcfg = seed & 1 ? UINT64_C(0xe000000000000031) : 0;
    h->senvcfg = seed & 1 ? 0xf1 : 0;
    h->satp = seed & 1 ? UINT64_C(9) << 60 | seed : 0;
    h->medeleg = 0xb109;
    h->mideleg = 0x222;
    h->mie = 0xaaa;
    h->power = HART_OFF;
    atomic_store(&h->stimecmp, UINT64_MAX);             /* the line of the supervisor timer follows from it */
    atomic_fetch_and(&h->irq_line, ~UINT64_C(0x20));
    h->mcountinhibit = seed & UINT32_MAX & ~2u;
    for (unsigned i = 0; i < RV_HPM_COUNT; i++)
        h->hpm_event[i] = i > 2 ? seed % 3 : 0;
}

static void test_round_trip(void **state)
{
    rv_harts(2, NULL, NULL);
    struct hart *a = hart_get(set, 0), *b = hart_get(set, 1);
    for (uint32_t seed = 1; seed < 60; seed++) {
        struct err e = ERR_INIT;
        scramble(a, seed);
        struct str first = save(a);
        scramble(b, seed + 1000);
        if (!load(b, &first, &e))
            fail_msg("%s", e.msg);
        struct str second = save(b);
        uint64_t count = rv_hpm_read(a, 3);
        assert_int_equal(count, rv_hpm_read(b, 3));
        assert_int_equal(b->x[0], 0);
        assert_int_equal(b->pmp_hi[1], ({ rv_pmp_changed(a); a->pmp_hi[1]; }));
        a->x[0] = 0;
        a->pc &= ~UINT64_C(1);
        str_free(&first);
        first = save(a);
        assert_int_equal(first.len, second.len);
        assert_memory_equal(first.s, second.s, first.len);
        str_free(&first);
        str_free(&second);
    }
}

/* A program goes on on another hart where it was: registers, floating point, translation. */
static void test_goes_on(void **state)
{
    rv_harts(2, NULL, NULL);
    struct hart *a = hart_get(set, 0), *b = hart_get(set, 1);
    struct err e = ERR_INIT;
    put_insn(CODE, 0x00158593);                         /* addi a1, a1, 1 */
    put_insn(CODE + 4, 0x02b50553);                     /* fadd.d fa0, fa0, fa1 */
    set_csr(a, 0x300, 0x2000);
    set_reg(a, A1, 41);
    set_reg(a, REG_F0 + 10, UINT64_C(0x3ff0000000000000));
    set_reg(a, REG_F0 + 11, UINT64_C(0x3ff0000000000000));
    set_reg(a, REG_PC, CODE);
    step(a);
    struct str s = save(a);
    assert_true(load(b, &s, &e));
    str_free(&s);
    step(b);
    assert_int_equal(reg(b, A1), 42);
    assert_int_equal(reg(b, REG_F0 + 10), UINT64_C(0x4000000000000000));
    assert_int_equal(csr(b, 0xb02), csr(a, 0xb02) + 1);
}

static void refused(struct hart *h)
{
    struct err e = ERR_INIT;
    struct str s = save(h);
    assert_false(load(hart_get(set, 1), &s, &e));
    assert_true(strstr(e.msg, "CPU 1") != NULL);
    str_free(&s);
}

static void test_impossible_values(void **state)
{
    struct hart *h = rv_harts(2, NULL, NULL);
    h->priv = 2;
    refused(h);
    h->priv = 3;
    h->mstatus |= 2 << 11;
    refused(h);
    h->mstatus &= ~UINT64_C(0x1800);
    h->satp = UINT64_C(3) << 60;
    refused(h);
    h->satp = 0;
    h->menvcfg = 2;
    refused(h);
    h->menvcfg = 0;
    h->ext ^= 2;
    refused(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_member), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_goes_on), cmocka_unit_test(test_impossible_values),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
