/* SPDX-License-Identifier: MIT */
/* A hart runs small programs of machine code; results are compared with an oracle of wide integers. */
#include "rv.h"

static struct hart *h;

static int setup(void **state)
{
    rv_memory(state);
    h = rv_harts(1, NULL, NULL);
    return 0;
}

/* Runs @n words in mode @priv until the hart meets the wfi that ends them; registers are set before and read after. */
static void run(unsigned priv, const uint32_t *code, unsigned n, uint64_t a0, uint64_t a1)
{
    uint64_t end = RAM + n * 4;
    for (unsigned i = 0; i < n; i++)
        st_le32(ram->host + i * 4, code[i]);
    st_le32(ram->host + n * 4, 0x0000006f);             /* j . : where every program ends */
    hart_set_start(h, priv, RAM, a0, a1);
    hart_run_to(h, end);
    hart_power(h, false);
}

static uint64_t r_op(uint32_t match, uint64_t a, uint64_t b)
{
    run(3, (uint32_t[]){ match | 10 << 15 | 11 << 20 | 12 << 7 }, 1, a, b);
    return reg(h, 12);
}

static int64_t asr(uint64_t v, unsigned n) { return (int64_t)v >> n; }

/* OP and OP-32, M, Zba, Zbb: each against its definition, at the edges and in between. */
static void test_register_operations(void **state)
{
    static const uint64_t v[] = { 0, 1, 2, 63, 0x7fffffff, 0x80000000, UINT32_MAX, UINT64_C(0x7fffffffffffffff), UINT64_C(1) << 63, UINT64_MAX,
                                  UINT64_C(0x123456789abcdef0) };
    for (unsigned i = 0; i < sizeof v / sizeof *v; i++) {
        for (unsigned k = 0; k < sizeof v / sizeof *v; k++) {
            uint64_t a = v[i], b = v[k];
            __int128 sa = (int64_t)a, sb = (int64_t)b;
            assert_int_equal(r_op(0x00000033, a, b), a + b);
            assert_int_equal(r_op(0x40000033, a, b), a - b);
            assert_int_equal(r_op(0x00002033, a, b), sa < sb);
            assert_int_equal(r_op(0x40005033, a, b), asr(a, b & 63));
            assert_int_equal(r_op(0x0000003b, a, b), (int64_t)(int32_t)(a + b));
            assert_int_equal(r_op(0x4000503b, a, b), (int32_t)a >> (b & 31));
            assert_int_equal(r_op(0x02001033, a, b), (uint64_t)((sa * sb) >> 64));
            assert_int_equal(r_op(0x02002033, a, b), (uint64_t)((sa * (__int128)b) >> 64));
            assert_int_equal(r_op(0x02003033, a, b), (uint64_t)(((unsigned __int128)a * b) >> 64));
            assert_int_equal(r_op(0x02004033, a, b), !b ? UINT64_MAX : (uint64_t)(sa / sb));
            assert_int_equal(r_op(0x02006033, a, b), !b ? a : (uint64_t)(sa % sb));
            assert_int_equal(r_op(0x0200703b, a, b), (int64_t)(int32_t)((uint32_t)b ? (uint32_t)a % (uint32_t)b : (uint32_t)a));
            assert_int_equal(r_op(0x20004033, a, b), (a << 2) + b);
        }
    }
}

/* lui a2, 0x12345; addi; auipc; a taken branch over a poison; jal writes its link. */
static void test_control_flow(void **state)
{
    run(3, (uint32_t[]){ 0x12345637, 0x67860613, 0x00000697, 0x00000463, 0x00000613, 0x0080076f, 0x00000613 }, 7, 0, 0);
    assert_int_equal(reg(h, 12), 0x12345678);
    assert_int_equal(reg(h, 13), RAM + 8);
    assert_int_equal(reg(h, 14), RAM + 24);
}

/* Loads sign- and zero-extend; a misaligned store across a page is read back by bytes. */
static void test_memory(void **state)
{
    /* sd a1, -3(a0); lw a2, 0(a0); lbu a3, 0(a0); lh a4, 1(a0) */
    run(3, (uint32_t[]){ 0xfeb53ea3, 0x00052603, 0x00054683, 0x00151703 }, 4, RAM + 0x2000, UINT64_C(0x8877e65544332211));
    assert_int_equal(reg(h, 12), (int64_t)(int32_t)0x77e65544);
    assert_int_equal(reg(h, 13), 0x44);
    assert_int_equal(reg(h, 14), (int64_t)(int16_t)0xe655);
}

/* amoadd.d, lr/sc that succeeds, sc without reservation that fails. */
static void test_atomics(void **state)
{
    st_le64(ram->host + 0x3000, 40);
    run(3, (uint32_t[]){ 0x00b5362f, 0x100536af, 0x18b5372f, 0x18b537af }, 4, RAM + 0x3000, 2);
    assert_int_equal(reg(h, 12), 40);
    assert_int_equal(reg(h, 13), 42);
    assert_int_equal(reg(h, 14), 0);
    assert_int_equal(reg(h, 15), 1);
    assert_int_equal(ld_le64(ram->host + 0x3000), 2);
}

/* An illegal instruction in S mode is delegated to S: stvec points behind it. */
static void test_traps(void **state)
{
    /* auipc t0, 0; addi t0, t0, 20; csrw stvec, t0; csrr a2, mstatus (illegal here); nop; at 20: nop */
    run(1, (uint32_t[]){ 0x00000297, 0x01428293, 0x10529073, 0x30002673, 0x00000013, 0x00000013 }, 6, 0, 0);
    assert_int_equal(csr(h, 0x142), 2);
    assert_int_equal(csr(h, 0x141), RAM + 12);
    assert_int_equal(csr(h, 0x143), 0x30002673);
    uint64_t priv = 0;
    assert_true(hart_reg_read(h, 4161, &priv));
    assert_int_equal(priv, 1);
}

/* WARL fields: misa cannot change, mtvec has no mode 2, satp refuses an unknown mode as a whole. */
static void test_csr_fields(void **state)
{
    run(3, (uint32_t[]){ 0x30529073, 0x00000013 }, 2, 0, 0);
    assert_true(hart_reg_write(h, 65 + 0x305, 0x80000003));
    assert_int_equal(csr(h, 0x305), 0x80000001);
    assert_true(hart_reg_write(h, 65 + 0x180, (UINT64_C(8) << 60) | 5));
    assert_true(hart_reg_write(h, 65 + 0x180, (UINT64_C(7) << 60) | 9));
    assert_int_equal(csr(h, 0x180), (UINT64_C(8) << 60) | 5);
    assert_false(hart_reg_write(h, 65 + 0xf14, 1));
    assert_false(hart_reg_write(h, 65 + 0x7c0, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register_operations), cmocka_unit_test(test_control_flow), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_atomics), cmocka_unit_test(test_traps), cmocka_unit_test(test_csr_fields),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
