/* SPDX-License-Identifier: MIT */
/* Control and status registers: fields that keep legal values only, registers that go with an extension, events and overflow. */
#include "rv.h"
#include "cpu/riscv/cpu.h"

enum { MSTATUS = 0x300, MENVCFG = 0x30a, SENVCFG = 0x10a, MHPMEVENT3 = 0x323, MHPMCOUNTER3 = 0xb03, ADDI = 0x13 };

static uint64_t wr(struct hart *h, unsigned n, uint64_t v)
{
    set_csr(h, n, v);
    return csr(h, n);
}

static void test_envcfg(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    static const unsigned regs[] = { MENVCFG, SENVCFG };
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(wr(h, regs[i], 0x30) & 0x30, 0x30);
        assert_int_equal(wr(h, regs[i], 0xe0) & 0xf0, 0xf0);        /* CBIE 2 is reserved: 3 stays, the rest is written */
        assert_int_equal(wr(h, regs[i], 0x10) & 0xf0, 0x10);
        assert_int_equal(wr(h, regs[i], UINT64_MAX) & 0x0e, 0);
    }
    h = rv_harts(1, "{\"zicbom\": false, \"zicboz\": false, \"svadu\": false, \"svpbmt\": false, \"sstc\": false}", NULL);
    assert_int_equal(wr(h, MENVCFG, UINT64_MAX), 1);
}

static void test_mstatus(void **state)
{
    const uint64_t tvm = 1 << 20, tw = 1 << 21, tsr = 1 << 22, fs = 3 << 13, s_bits = 0x122 | 3 << 18, mprv = 1 << 17, mpp = 3 << 11;
    struct hart *h = rv_harts(1, NULL, NULL);
    assert_int_equal(wr(h, MSTATUS, UINT64_MAX) & (tvm | tw | tsr | fs | s_bits | mprv), tvm | tw | tsr | fs | s_bits | mprv);
    assert_int_equal(csr(h, MSTATUS) >> 63, 1);
    assert_int_equal(wr(h, MSTATUS, fs) & mpp, 0);
    assert_int_equal(wr(h, MSTATUS, 2 << 11) & mpp, 0);             /* there is no mode 2: the old one stays */
    assert_int_equal(wr(h, MSTATUS, UINT64_C(0x3f) << 32) >> 32, 0xa);
    h = rv_harts(1, "{\"s\": false, \"sstc\": false, \"svade\": false, \"svadu\": false, \"svinval\": false, \"svnapot\": false, \"svpbmt\": false}", NULL);
    assert_int_equal(wr(h, MSTATUS, UINT64_MAX) & (tvm | tsr | s_bits), 0);
    assert_int_equal(csr(h, MSTATUS) & (tw | mprv), tw | mprv);
    assert_int_equal(wr(h, MSTATUS, 1 << 11) & mpp, mpp);           /* no S mode */
    assert_false(hart_reg_write(h, REG_CSR0 + 0x100, 0));
    assert_false(hart_reg_write(h, REG_CSR0 + 0x180, 0));
    assert_false(hart_reg_write(h, REG_CSR0 + 0x302, 0));
    assert_int_equal(exec_trap(h, enc_csr(2, A0, 0x100, 0)), 2);
    h = rv_harts(1, "{\"d\": false, \"f\": false, \"zfa\": false, \"zfhmin\": false}", NULL);
    assert_int_equal(wr(h, MSTATUS, UINT64_MAX) & fs, 0);
    assert_int_equal(exec_trap(h, enc_csr(2, A0, 3, 0)), 2);
}

static void test_addresses(void **state)
{
    struct hart *h = rv_harts(1, "{\"c\": false}", NULL);
    assert_int_equal(wr(h, 0x341, 0x1007), 0x1004);
    assert_int_equal(wr(h, 0x141, 0x1006), 0x1004);
    h = rv_harts(1, NULL, NULL);
    assert_int_equal(wr(h, 0x341, 0x1007), 0x1006);
    assert_int_equal(wr(h, 0x305, 0x1003), 0x1001);
    assert_int_equal(wr(h, 0x105, 0x1002), 0x1000);
}

/* Events: 1 and 2 count instructions, others are not there; a stopped counter keeps its value. */
static void test_events(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    assert_int_equal(wr(h, MHPMEVENT3, 0x10019), 0);
    assert_int_equal(wr(h, MHPMEVENT3, UINT64_MAX), 0);
    set_csr(h, MHPMCOUNTER3, 100);
    exec(h, ADDI);
    assert_int_equal(csr(h, MHPMCOUNTER3), 100);
    assert_int_equal(wr(h, MHPMEVENT3, 2), 2);
    exec(h, ADDI);
    exec(h, ADDI);
    assert_int_equal(csr(h, MHPMCOUNTER3), 102);
    set_csr(h, 0x320, 8);
    exec(h, ADDI);
    assert_int_equal(csr(h, MHPMCOUNTER3), 102);
    set_csr(h, 0x320, 0);
    exec(h, ADDI);
    assert_int_equal(csr(h, MHPMCOUNTER3), 103);
    set_reg(h, A0, 7);
    exec(h, enc_csr(1, ZERO, MHPMCOUNTER3, A0));        /* a written value is what the next instruction reads */
    exec(h, enc_csr(2, A1, MHPMCOUNTER3, 0));
    assert_int_equal(reg(h, A1), 7);
}

/* Sscofpmf: modes that do not count; the overflow bit, its interrupt and scountovf. */
static void test_overflow(void **state)
{
    const uint64_t of = UINT64_C(1) << 63, minh = UINT64_C(1) << 62, sinh = UINT64_C(1) << 61;
    struct hart *h = rv_harts(1, "{\"sscofpmf\": true}", NULL);
    set_csr(h, 0x3b0, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f);
    assert_int_equal(wr(h, MHPMEVENT3, 2 | minh), 2 | minh);
    set_csr(h, MHPMCOUNTER3, 0);
    exec(h, ADDI);
    assert_int_equal(csr(h, MHPMCOUNTER3), 0);
    set_reg(h, REG_PRIV, 1);
    exec(h, ADDI);
    exec(h, ADDI);
    assert_int_equal(csr(h, MHPMCOUNTER3), 2);
    set_csr(h, MHPMEVENT3, 2 | sinh);
    exec(h, ADDI);
    assert_int_equal(csr(h, MHPMCOUNTER3), 2);
    set_csr(h, MHPMEVENT3, 2);
    set_csr(h, MHPMCOUNTER3, UINT64_MAX - 1);
    exec(h, ADDI);
    rv_hpm_poll(h);
    assert_int_equal(csr(h, MHPMEVENT3) & of, 0);
    exec(h, ADDI);
    exec(h, ADDI);
    rv_hpm_poll(h);
    assert_int_equal(csr(h, MHPMEVENT3) >> 63, 1);
    assert_int_equal(csr(h, 0x344) >> 13 & 1, 1);
    assert_int_equal(csr(h, 0xda0), 0);                 /* S mode sees what mcounteren shows */
    set_csr(h, 0x306, 8);
    assert_int_equal(csr(h, 0xda0), 8);
    set_csr(h, 0x344, 0);
    set_csr(h, MHPMCOUNTER3, UINT64_MAX);               /* with OF set nothing more is raised */
    exec(h, ADDI);
    exec(h, ADDI);
    rv_hpm_poll(h);
    assert_int_equal(csr(h, 0x344) >> 13 & 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_envcfg), cmocka_unit_test(test_mstatus), cmocka_unit_test(test_addresses), cmocka_unit_test(test_events),
        cmocka_unit_test(test_overflow),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
