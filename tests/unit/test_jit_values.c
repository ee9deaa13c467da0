/* SPDX-License-Identifier: MIT */
/*
 * What the translator must not take for known: values that look sign-extended, singles that are no longer boxed, that mstatus.FS is Dirty,
 * flags that nobody sees, the rounding mode that a block was made for, an address that LR itself has changed, pages that changed more than once.
 */
#include "rv.h"
#include "jit_at_once.h"

enum { ADDI = 0x13, ADDIW = 0x1b, ANDI = 0x7013, OR = 0x6033, XOR = 0x4033, AND = 0x7033, LW = 0x2003, SW = 0x2023, HERE = 0x6f };
enum { FLW = 0x2007, FLD = 0x3007, FADD_S = 0x53, FADD_D = 0x02000053, FDIV_D = 0x1a000053, RNE = 0, RDN = 2 << 12, DYN = 7 << 12 };
#define ONE_S UINT64_C(0xffffffff3f800000)
#define ONE_D UINT64_C(0x3ff0000000000000)
#define NAN_S UINT64_C(0xffffffff7fc00000)
enum { LR_D = 0x1000302f, SC_D = 0x1800302f };

static uint64_t pc_now;
static void put(uint32_t insn)
{
    put_insn(pc_now, insn);
    pc_now += 4;
}

static struct hart *begin(void)
{
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    set_csr(h, 0x300, UINT64_C(3) << 13);
    pc_now = CODE;
    return h;
}

static void run(struct hart *h)
{
    put(HERE);
    set_reg(h, REG_PC, CODE);
    hart_run_to(h, pc_now - 4);
}

/* sext.w of what is not a word, though one of the operands is. */
static void test_words(void **state)
{
    static const uint64_t wide = UINT64_C(0x123456789abcdef0);
    static const uint32_t insn[] = { ANDI | (uint32_t)-2 << 20, OR | A2 << 20, XOR | A2 << 20, AND | A2 << 20 };
    static const uint64_t result[] = { wide & (uint64_t)-2, wide | 0x7f, wide ^ 0x7f, wide & (uint64_t)(int64_t)-16 };
    for (unsigned i = 0; i < 4; i++) {
        struct hart *h = begin();
        st_le32(at(DATA), i == 3 ? (uint32_t)-16 : 0x7f);
        set_reg(h, A0, DATA);
        set_reg(h, A1, wide);
        put(enc_i(LW, A2, A0, 0));                          /* a word */
        put(insn[i] | A1 << 15 | A3 << 7);
        put(enc_i(ADDIW, A4, A3, 0));
        put(enc_r(0x33, A5, A4, A3));
        run(h);
        assert_int_equal(reg(h, A3), result[i]);
        assert_int_equal(reg(h, A4), (uint64_t)(int64_t)(int32_t)result[i]);
        assert_int_equal(reg(h, A5), reg(h, A4) + reg(h, A3));
    }
}

/* A register that was a boxed single holds a double once an instruction that is not translated has written it. */
static void test_box(void **state)
{
    struct hart *h = begin();
    st_le32(at(DATA), 0x3f800000);
    set_reg(h, A0, DATA);
    set_reg(h, REG_F0 + 1, UINT64_C(0x3ff0000000000000));
    set_reg(h, REG_F0 + 2, UINT64_C(0x3ff0000000000000));
    put(enc_i(FLW, 3, A0, 0));
    put(enc_r(FADD_S | DYN, 4, 3, 3));
    put(enc_r(FADD_D | RDN, 3, 1, 2));
    put(enc_r(FADD_S | DYN, 5, 3, 3));
    run(h);
    assert_int_equal(reg(h, REG_F0 + 4), UINT64_C(0xffffffff40000000));
    assert_int_equal(reg(h, REG_F0 + 3), UINT64_C(0x4000000000000000));
    assert_int_equal(reg(h, REG_F0 + 5), UINT64_C(0xffffffff7fc00000));
}

/* A loop that finds its singles boxed until its last round, and one that never does. */
static void test_box_in_loop(void **state)
{
    for (unsigned never = 0; never < 2; never++) {
        struct hart *h = begin();
        st_le64(at(DATA), ONE_D);
        set_reg(h, A0, DATA);
        set_reg(h, A1, 1);
        set_reg(h, T0, 3);
        set_reg(h, REG_F0 + 3, ONE_S);
        set_reg(h, REG_F0 + 10, never ? ONE_D : ONE_S);
        put(enc_r(FADD_S | DYN, 3, 3, 10));
        put(enc_i(ADDI, T0, T0, -1));
        if (!never) {
            put(enc_b(1, T0, A1, 8));
            put(enc_i(FLD, 10, A0, 0));
        }
        put(enc_b(1, T0, ZERO, never ? -8 : -16));
        run(h);
        assert_int_equal(reg(h, REG_F0 + 3), NAN_S);
        assert_int_equal(reg(h, REG_F0 + 10), ONE_D);
    }
}

/* mstatus.FS that the program has made Clean is Dirty after the next result, in a loop and after it. */
static void test_clean(void **state)
{
    struct hart *h = begin();
    set_reg(h, A1, 0x2000);
    set_reg(h, T0, 3);
    put(enc_r(FADD_D | DYN, 3, 1, 2));
    put(enc_csr(2, A2, 0x300, ZERO));                    /* csrr mstatus */
    put(enc_csr(3, ZERO, 0x300, A1));                    /* csrc mstatus */
    put(enc_csr(2, A3, 0x300, ZERO));
    put(enc_i(ADDI, T0, T0, -1));
    put(enc_b(1, T0, ZERO, -20));
    put(enc_r(FADD_D | DYN, 3, 1, 2));
    run(h);
    assert_int_equal(reg(h, A2) >> 13 & 3, 3);
    assert_int_equal(reg(h, A3) >> 13 & 3, 2);
    assert_int_equal(csr(h, 0x300) >> 13 & 3, 3);
}

/* NaN results: canonical, and NV where zero is multiplied by infinity, though a quiet NaN is added; no flag of a product that is not. */
static void test_nan_of_fused(void **state)
{
    static const uint64_t inf = UINT64_C(0x7ff0000000000000), quiet = UINT64_C(0xfff8000000000007), big = UINT64_C(0x7fe0000000000001);
    static const uint64_t third = UINT64_C(0x3fd5555555555555);
    static const struct { uint64_t a, b, c; unsigned flags; } rows[] = {
        { 0, inf, quiet, 16 }, { inf, 0, quiet, 16 }, { inf, BIT64(63), quiet, 16 }, { big, big, quiet, 0 }, { third, third, quiet, 0 }, { 1, third, quiet, 0 },
        { quiet, 0, ONE_D, 0 }, { 0, quiet, ONE_D, 0 }, { 0, ONE_D, quiet, 0 }, { inf, ONE_D, quiet, 0 }, { UINT64_C(0x7ff4000000000000), 0, ONE_D, 16 },
    };
    static const uint8_t place[][4] = {     /* rd, rs1, rs2, rs3: the last four not in registers of the host */
        { 13, 10, 11, 12 }, { 10, 10, 11, 12 }, { 11, 10, 11, 12 }, { 12, 10, 11, 12 }, { 21, 18, 19, 20 }, { 18, 18, 19, 20 }, { 19, 18, 19, 20 }, { 20, 18, 19, 20 },
        { 10, 10, 19, 20 }, { 11, 18, 11, 20 }, { 12, 18, 19, 12 },
    };
    for (unsigned op = 0; op < 4; op++)
        for (unsigned k = 0; k < ARRAY_SIZE(place); k++) {
            struct hart *h = begin();
            const uint8_t *p = place[k];
            put((uint32_t)(0x02007043 + 4 * op) | (uint32_t)p[3] << 27 | (uint32_t)p[2] << 20 | (uint32_t)p[1] << 15 | (uint32_t)p[0] << 7);
            for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
                pc_now = CODE + 4;
                set_csr(h, 1, 0);
                set_reg(h, REG_F0 + p[1], rows[i].a);
                set_reg(h, REG_F0 + p[2], rows[i].b);
                set_reg(h, REG_F0 + p[3], rows[i].c);
                run(h);
                assert_int_equal(reg(h, REG_F0 + p[0]), UINT64_C(0x7ff8000000000000));
                assert_int_equal(csr(h, 1), rows[i].flags);
            }
        }
}

/* Flags that are read before a comparison and put back after it: as they were, whatever was compared. */
static void test_flags_put_back(void **state)
{
    static const uint64_t v[] = { ONE_D, UINT64_C(0x4000000000000000), UINT64_C(0x7ff8000000000000), UINT64_C(0x7ff4000000000000) };
    for (unsigned i = 0; i < 3 * 16 * 2; i++) {
        struct hart *h = begin();
        unsigned f3 = i % 3, a = i / 3 % 4, b = i / 12 % 4, before = i / 48 ? 0x11 : 2;
        set_csr(h, 1, before);
        set_reg(h, REG_F0 + 10, v[a]);
        set_reg(h, REG_F0 + 20, v[b]);
        set_reg(h, A4, 0x55);
        put(enc_csr(2, A4, 1, ZERO));
        put(enc_r(0xa2000053 | f3 << 12, A5, 10, 20));      /* fle, flt, feq */
        put(enc_csr(1, ZERO, 1, A4));
        put(enc_csr(2, A3, 1, ZERO));
        run(h);
        assert_int_equal(reg(h, A4), before);
        assert_int_equal(reg(h, A3), before);
        assert_int_equal(csr(h, 1), before);
        assert_int_equal(reg(h, A5), a < 2 && b < 2 && (f3 == 0 ? a <= b : f3 == 1 ? a < b : a == b));
    }
    struct hart *h = begin();                               /* what is written is no longer what was read */
    set_csr(h, 1, 0x11);
    put(enc_csr(2, A4, 1, ZERO));
    put(enc_r(0xa2002053, A4, 10, 10));
    put(enc_csr(1, ZERO, 1, A4));
    run(h);
    assert_int_equal(csr(h, 1), 1);
}

/* One block in each of the modes: what says its own rounds so. */
static void test_rounding(void **state)
{
    static const uint64_t third[] = { 0x3fd5555555555555, 0x3fd5555555555555, 0x3fd5555555555555, 0x3fd5555555555556 };
    struct hart *h = begin();
    put(enc_r(FDIV_D | RNE, 3, 1, 2));
    put(enc_r(FDIV_D | DYN, 4, 1, 2));
    for (unsigned twice = 0; twice < 2; twice++)
        for (unsigned frm = 0; frm < 4; frm++) {
            pc_now = CODE + 8;
            set_csr(h, 2, frm);
            set_reg(h, REG_F0 + 1, UINT64_C(0x3ff0000000000000));
            set_reg(h, REG_F0 + 2, UINT64_C(0x4008000000000000));
            run(h);
            assert_int_equal(reg(h, REG_F0 + 3), third[0]);
            assert_int_equal(reg(h, REG_F0 + 4), third[frm]);
        }
}

/* SC goes where its own base says, which LR has loaded anew: elsewhere than the reservation is. */
static void test_base_of_sc(void **state)
{
    struct hart *h = begin();
    st_le64(at(DATA), DATA + 0x100);
    st_le64(at(DATA + 0x100), DATA + 0x100);                /* the value that a comparison would expect */
    set_reg(h, A0, DATA);
    set_reg(h, A1, 7);
    put(enc_r(LR_D, A0, A0, 0));
    put(enc_r(SC_D, A2, A0, A1));
    run(h);
    assert_int_equal(reg(h, A2), 1);
    assert_int_equal(ld_le64(at(DATA + 0x100)), DATA + 0x100);
}

/* A function is written again and again, with a fence, in a page whose other code stays; the change is in its block's second line. */
static void test_rewritten_lines(void **state)
{
    struct hart *h = begin();
    const uint64_t function = CODE + 0x1000 + 0x40 - 12;    /* three instructions in one line, then the next */
    for (unsigned i = 0; i < 6; i++)
        put_insn(function + 4 * i, enc_i(ADDI, A0, A0, 1));
    put_insn(function + 24, enc_i(0x67, ZERO, RA, 0));
    put_insn(CODE + 0x1800, enc_i(0x67, ZERO, RA, 0));
    set_reg(h, A1, function + 16);
    set_reg(h, A2, CODE + 0x1800);
    set_reg(h, A3, function);
    for (unsigned i = 0; i < 4; i++) {
        set_reg(h, 18 + i, enc_i(ADDI, A0, A0, (int32_t)(10 << i)));
        put(enc_i(0x67, RA, A2, 0));
        put(enc_i(0x67, RA, A3, 0));
        put(enc_s(SW, A1, 18 + i, 0));
        put(0x100f);
    }
    put(enc_i(0x67, RA, A3, 0));
    run(h);
    assert_int_equal(reg(h, A0), 6 + (5 + 10) + (5 + 20) + (5 + 40) + (5 + 80));
}

/*
 * A loop that has stored to a page, and remembers it, stores there again once code from it has been translated. In M mode, and in S mode
 * without translation, which has a TLB of its own.
 */
static void test_remembered_by_a_loop(void **state)
{
    const uint64_t function = CODE + 0x2000, caller = CODE + 0x1000;
    for (unsigned priv = 1; priv <= 3; priv += 2) {
        struct hart *h = begin();
        hart_set_start(h, priv, CODE, 0, 0);
        put(enc_s(SW, A1, A2, 0));
        put(enc_i(ADDI, T0, T0, -1));
        put(enc_b(1, T0, ZERO, -8));
        put(0x100f);
        put(enc_i(0x67, ZERO, A4, 0));
        pc_now = caller;
        put(enc_i(0x67, RA, A1, 0));
        put(HERE);
        put_insn(function + 4, enc_i(0x67, ZERO, RA, 0));
        for (unsigned i = 0; i < 5; i++) {
            set_reg(h, A0, 0);
            set_reg(h, A1, function);
            set_reg(h, A2, enc_i(ADDI, A0, A0, (int32_t)i + 1));
            set_reg(h, A4, caller);
            set_reg(h, T0, 3);
            set_reg(h, REG_PC, CODE);
            hart_run_to(h, caller + 4);
            assert_int_equal(reg(h, A0), i + 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words), cmocka_unit_test(test_box), cmocka_unit_test(test_box_in_loop),
        cmocka_unit_test(test_clean), cmocka_unit_test(test_nan_of_fused), cmocka_unit_test(test_flags_put_back), cmocka_unit_test(test_rounding), cmocka_unit_test(test_base_of_sc),
        cmocka_unit_test(test_rewritten_lines), cmocka_unit_test(test_remembered_by_a_loop),
    };
    int r = cmocka_run_group_tests(tests, rv_memory, NULL);
    rv_code_attach(NULL);
    if (set)
        hart_set_free(set);
    return r;
}
