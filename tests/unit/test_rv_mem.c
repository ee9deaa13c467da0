/* SPDX-License-Identifier: MIT */
/* Jumps, loads and stores of every size and alignment, atomics, cache-block operations, and the faults they raise. */
#include "rv.h"
#include "seeded.h"

#define PATTERN(i) ((uint8_t)((i) * 37 + 11))
enum { END = RAM + RAM_SIZE };

static void fill_pattern(void)
{
    for (unsigned i = 0; i < 0x3000; i++)
        *at(DATA + i) = PATTERN(i);
}

static uint64_t bytes_at(uint64_t off, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)PATTERN(off + i) << 8 * i;
    return v;
}

static uint64_t extend(uint64_t v, unsigned size, bool sign)
{
    unsigned unused = 64 - 8 * size;
    return sign ? (uint64_t)((int64_t)(v << unused) >> unused) : v;
}

static const struct { uint32_t match; unsigned size; bool sign; } loads[] = {
    { 0x0003, 1, true }, { 0x1003, 2, true }, { 0x2003, 4, true }, { 0x3003, 8, true }, { 0x4003, 1, false }, { 0x5003, 2, false }, { 0x6003, 4, false },
};
static const struct { uint32_t match; unsigned size; } stores[] = { { 0x0023, 1 }, { 0x1023, 2 }, { 0x2023, 4 }, { 0x3023, 8 } };

static void test_loads(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    fill_pattern();
    for (size_t k = 0; k < sizeof loads / sizeof *loads; k++)
        for (unsigned off = 0xff0; off < 0x1010; off++)
            for (int imm = -2048; imm <= 2047; imm += 1365) {
                set_reg(h, A0, DATA + off - (uint64_t)(int64_t)imm);
                exec(h, enc_i(loads[k].match, A1, A0, imm));
                assert_int_equal(reg(h, A1), extend(bytes_at(off, loads[k].size), loads[k].size, loads[k].sign));
                exec(h, enc_i(loads[k].match, ZERO, A0, imm));
                assert_int_equal(reg(h, ZERO), 0);
            }
}

static void test_stores(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    for (size_t k = 0; k < sizeof stores / sizeof *stores; k++)
        for (unsigned off = 0xff0; off < 0x1010; off++) {
            uint64_t v = rnd();
            fill_pattern();
            set_reg(h, A0, DATA + off + 5);
            set_reg(h, A1, v);
            exec(h, enc_s(stores[k].match, A0, A1, -5));
            for (unsigned i = 0xfe0; i < 0x1020; i++)
                assert_int_equal(*at(DATA + i), i - off < stores[k].size ? (uint8_t)(v >> 8 * (i - off)) : PATTERN(i));
        }
}

/* Where nothing is, an access fault with the address; nothing is changed. At RAM's end: of the part that is not there. */
static void test_access_faults(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    for (size_t k = 0; k < sizeof loads / sizeof *loads; k++) {
        set_reg(h, A0, 0x10);
        set_reg(h, A1, 77);
        assert_int_equal(exec_trap(h, enc_i(loads[k].match, A1, A0, 0)), 5);
        assert_int_equal(csr(h, 0x343), 0x10);
        assert_int_equal(csr(h, 0x341), CODE);
        assert_int_equal(reg(h, A1), 77);
    }
    for (size_t k = 0; k < sizeof stores / sizeof *stores; k++) {
        set_reg(h, A0, END);
        assert_int_equal(exec_trap(h, enc_s(stores[k].match, A0, A1, 0)), 7);
        assert_int_equal(csr(h, 0x343), END);
    }
    st_le64(at(END - 8), 0x1111111111111111);
    set_reg(h, A0, END - 3);
    assert_int_equal(exec_trap(h, enc_s(0x3023, A0, A1, 0)), 7);
    assert_int_equal(csr(h, 0x343), END);
    assert_int_equal(ld_le64(at(END - 8)), 0x1111111111111111);
    assert_int_equal(exec_trap(h, enc_i(0x3003, A1, A0, 0)), 5);
    assert_int_equal(csr(h, 0x343), END);
    set_csr(h, 0x305, RAM + 0x800);
    set_reg(h, REG_PC, 0x40);
    step(h);
    assert_int_equal(csr(h, 0x342), 1);
    assert_int_equal(csr(h, 0x343), 0x40);
    assert_int_equal(csr(h, 0x341), 0x40);
}

static void test_branches(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    static const uint64_t values[] = { 0, 1, 2, UINT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 63) - 1, 0x80000000, UINT64_C(0xffffffff80000000) };
    for (size_t i = 0; i < 8; i++)
        for (size_t k = 0; k < 8; k++)
            for (unsigned f3 = 0; f3 < 8; f3++)
                for (int32_t to = -4096; to <= 4094; to += 2730) {
                    uint64_t a = values[i], b = values[k];
                    __int128 sa = (int64_t)a, sb = (int64_t)b;
                    bool taken = f3 == 0 ? a == b : f3 == 1 ? a != b : f3 == 4 ? sa < sb : f3 == 5 ? sa >= sb : f3 == 6 ? a < b : a >= b;
                    set_reg(h, A0, a);
                    set_reg(h, A1, b);
                    if (f3 == 2 || f3 == 3) {
                        assert_int_equal(exec_trap(h, enc_b(f3, A0, A1, to)), 2);
                        continue;
                    }
                    exec(h, enc_b(f3, A0, A1, to));
                    assert_int_equal(reg(h, REG_PC), taken ? CODE + (uint64_t)(int64_t)to : CODE + 4);
                }
}

/* jal, jalr, auipc, lui; without C a target that is not a multiple of 4 traps at the jump. */
static void test_jumps(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    exec(h, 0x800000ef);                                /* jal ra, -1 MiB */
    assert_int_equal(reg(h, REG_PC), CODE - 0x100000u);
    assert_int_equal(reg(h, RA), CODE + 4);
    exec(h, 0x7ffff06f);                                /* j +1 MiB - 2 */
    assert_int_equal(reg(h, REG_PC), CODE + 0xffffe);
    set_reg(h, A0, DATA + 0x801);
    exec(h, enc_i(0x67, A0, A0, -2048));                /* jalr: bit 0 of the sum is dropped; rd may be rs1 */
    assert_int_equal(reg(h, REG_PC), DATA);
    assert_int_equal(reg(h, A0), CODE + 4);
    exec(h, 0xfffff517);                                /* auipc a0, -1 */
    assert_int_equal(reg(h, A0), CODE - 0x1000);
    exec(h, 0x80000537);                                /* lui */
    assert_int_equal(reg(h, A0), UINT64_C(0xffffffff80000000));
    h = rv_harts(1, "{\"c\": false}", NULL);
    set_reg(h, A0, CODE + 2);
    assert_int_equal(exec_trap(h, enc_i(0x67, A1, A0, 0)), 0);
    assert_int_equal(csr(h, 0x343), CODE + 2);
    assert_int_equal(csr(h, 0x341), CODE);
    assert_int_equal(reg(h, A1), 0);
    assert_int_equal(exec_trap(h, enc_b(0, ZERO, ZERO, 6)), 0);
    exec(h, enc_b(1, ZERO, ZERO, 6));                   /* not taken: no trap */
    assert_int_equal(reg(h, REG_PC), CODE + 4);
}

/* ---- atomics ---- */

static uint64_t amo(unsigned op, uint64_t old, uint64_t b, bool w)
{
    int64_t so = w ? (int32_t)old : (int64_t)old, sb = w ? (int32_t)b : (int64_t)b;
    uint64_t uo = w ? (uint32_t)old : old, ub = w ? (uint32_t)b : b;
    switch (op) {
    case 0: return old + b;
    case 1: return b;
    case 4: return old ^ b;
    case 8: return old | b;
    case 12: return old & b;
    case 16: return so < sb ? old : b;
    case 20: return so > sb ? old : b;
    case 24: return uo < ub ? old : b;
    default: return uo > ub ? old : b;
    }
}

static void test_amo(void **state)
{
    static const unsigned ops[] = { 0, 1, 4, 8, 12, 16, 20, 24, 28 };
    struct hart *h = rv_harts(1, NULL, NULL);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        for (unsigned n = 0; n < 400; n++) {
            bool w = n & 1;
            uint64_t old = n & 2 ? rnd() : rnd() >> 40, b = n & 4 ? rnd() : old, addr = DATA + (w ? 4u * (n & 3) : 8);
            st_le64(at(DATA), rnd());
            st_le64(at(DATA + 8), rnd());
            st_le(at(addr), old, w ? 4 : 8);
            set_reg(h, A0, addr);
            set_reg(h, A1, b);
            exec(h, enc_r(0x2f | ops[i] << 27 | (n >> 3 & 3) << 25 | (w ? 2 : 3) << 12, A2, A0, A1));
            assert_int_equal(reg(h, A2), extend(w ? (uint32_t)old : old, w ? 4 : 8, true));
            uint64_t want = amo(ops[i], old, b, w);
            assert_int_equal(ld_le(at(addr), w ? 4 : 8), w ? (uint32_t)want : want);
        }
    set_reg(h, A0, DATA + 2);
    assert_int_equal(exec_trap(h, enc_r(0x0000202f, A2, A0, A1)), 6);       /* misaligned: loads of LR, stores of all others */
    assert_int_equal(csr(h, 0x343), DATA + 2);
    assert_int_equal(exec_trap(h, enc_r(0x1000202f, A2, A0, 0)), 4);
    assert_int_equal(exec_trap(h, enc_r(0x1800202f, A2, A0, 0)), 6);
    set_reg(h, A0, 0x40);
    assert_int_equal(exec_trap(h, enc_r(0x1000202f, A2, A0, 0)), 5);
    assert_int_equal(exec_trap(h, enc_r(0x1800202f, A2, A0, 0)), 7);
    assert_int_equal(exec_trap(h, enc_r(0x0000202f, A2, A0, 0)), 7);
    set_reg(h, A0, DATA);
    assert_int_equal(exec_trap(h, enc_r(0x0000102f, A2, A0, A1)), 2);       /* no 16-bit ones */
    assert_int_equal(exec_trap(h, enc_r(0x1010202f, A2, A0, A1)), 2);       /* lr with rs2 */
}

static void test_compare_and_swap(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    for (unsigned n = 0; n < 200; n++) {
        bool w = n & 1, hit = n & 2;
        uint64_t old = rnd(), new = rnd(), addr = DATA + 8;
        st_le64(at(addr), old);
        uint64_t expect = hit ? (w ? (uint32_t)old | UINT64_C(0x123400000000) : old) : old ^ 1;
        set_reg(h, A0, addr);
        set_reg(h, A1, new);
        set_reg(h, A2, expect);
        exec(h, enc_r(w ? 0x2800202f : 0x2800302f, A2, A0, A1));
        assert_int_equal(reg(h, A2), w ? extend((uint32_t)old, 4, true) : old);
        uint64_t want = !hit ? old : w ? (old & ~UINT64_C(0xffffffff)) | (uint32_t)new : new;
        assert_int_equal(ld_le64(at(addr)), want);
    }
    for (unsigned hit = 0; hit < 2; hit++) {            /* pairs */
        st_le64(at(DATA), 1);
        st_le64(at(DATA + 8), 2);
        set_reg(h, A0, DATA);
        set_reg(h, A2, 1);
        set_reg(h, A3, hit ? 2 : 3);
        set_reg(h, A4, 10);
        set_reg(h, A5, 20);
        exec(h, enc_r(0x2800402f, A2, A0, A4));
        assert_int_equal(reg(h, A2), 1);
        assert_int_equal(reg(h, A3), 2);
        assert_int_equal(ld_le64(at(DATA)), hit ? 10 : 1);
        assert_int_equal(ld_le64(at(DATA + 8)), hit ? 20 : 2);
    }
    assert_int_equal(exec_trap(h, enc_r(0x2800402f, A3, A0, A4)), 2);       /* odd registers */
    assert_int_equal(exec_trap(h, enc_r(0x2800402f, A2, A0, A3)), 2);
    set_reg(h, A0, DATA + 8);
    assert_int_equal(exec_trap(h, enc_r(0x2800402f, A2, A0, A4)), 6);
    h = rv_harts(1, "{\"zacas\": false}", NULL);
    assert_int_equal(exec_trap(h, enc_r(0x2800302f, A2, A0, A4)), 2);
}

/* ---- cache blocks ---- */

static void test_cache_blocks(void **state)
{
    enum { INVAL = 0x0000200f, CLEAN = 0x0010200f, FLUSH = 0x0020200f, CZERO = 0x0040200f };
    struct hart *h = rv_harts(1, NULL, NULL);
    set_csr(h, 0x3b0, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f);
    fill_pattern();
    set_reg(h, A0, DATA + 0x1045);
    exec(h, CZERO | A0 << 15);
    for (unsigned i = 0x1000; i < 0x10c0; i++)
        assert_int_equal(*at(DATA + i), i >= 0x1040 && i < 0x1080 ? 0 : PATTERN(i));
    exec(h, INVAL | A0 << 15);
    exec(h, CLEAN | A0 << 15);
    exec(h, FLUSH | A0 << 15);
    assert_int_equal(*at(DATA + 0x1080), PATTERN(0x1080));
    exec(h, 0x00256013 | A0 << 15);                     /* prefetch.w and the like are hints */
    assert_int_equal(reg(h, REG_PC), CODE + 4);
    set_reg(h, A0, 0x45);
    assert_int_equal(exec_trap(h, CZERO | A0 << 15), 7);
    assert_int_equal(exec_trap(h, FLUSH | A0 << 15), 7);
    assert_int_equal(csr(h, 0x343) & ~UINT64_C(0x3f), 0x40);
    set_reg(h, A0, DATA);
    static const struct { uint32_t insn; uint64_t bits; } need[] = { { INVAL, 0x10 }, { CLEAN, 0x40 }, { FLUSH, 0x40 }, { CZERO, 0x80 } };
    for (unsigned i = 0; i < 4; i++)
        for (unsigned m = 0; m < 2; m++)
            for (unsigned s = 0; s < 2; s++)
                for (unsigned priv = 0; priv < 2; priv++) {
                    bool allowed = m && (priv || s);
                    set_csr(h, 0x30a, m ? need[i].bits : 0);
                    set_csr(h, 0x10a, s ? need[i].bits : 0);
                    set_reg(h, REG_PRIV, priv);
                    if (allowed)
                        exec(h, need[i].insn | A0 << 15);
                    else
                        assert_int_equal(exec_trap(h, need[i].insn | A0 << 15), 2);
                    set_reg(h, REG_PRIV, 3);
                    assert_true(!allowed || reg(h, REG_PC) == CODE + 4);
                }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads), cmocka_unit_test(test_stores), cmocka_unit_test(test_access_faults), cmocka_unit_test(test_branches),
        cmocka_unit_test(test_jumps), cmocka_unit_test(test_amo), cmocka_unit_test(test_compare_and_swap), cmocka_unit_test(test_cache_blocks),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
