/* SPDX-License-Identifier: MIT */
/* Integer-code floating point against the host's FPU: results and flags, four rounding modes; RMM by exact cases. */
#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "cpu/riscv/softfp.h"
#include "seeded.h"

enum { OP_ADD, OP_MUL, OP_DIV, OP_SQRT, OP_FMA, OP_COUNT };
static const int modes[4] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };

/* Mostly values near each other and near the borders of the format. */
static uint64_t operand(const struct sf_fmt *f)
{
    uint64_t frac = rnd() & ((UINT64_C(1) << f->mbits) - 1), e, r = rnd();
    unsigned max = (1u << f->ebits) - 1;
    if (r % 7 == 0)
        frac = 0;
    else if (r % 7 == 1)
        frac &= UINT64_C(0xf) << (f->mbits - 4);
    else if (r % 7 == 2)
        frac = ((UINT64_C(1) << f->mbits) - 1) - (frac & 3);
    switch (r >> 8 & 7) {
    case 0: e = 0; break;
    case 1: e = max; break;
    case 2: e = 1 + (r >> 16) % 3; break;
    case 3: e = max - 1 - (r >> 16) % 3; break;
    case 4: e = (r >> 16) & max; break;
    case 5: e = max / 4 + (r >> 16) % (max / 2); break;
    default: e = max / 2 + (r >> 16) % 8 - 4; break;
    }
    return (r >> 63) << (f->ebits + f->mbits) | e << f->mbits | frac;
}

static uint8_t host_flags(void)
{
    int e = fetestexcept(FE_ALL_EXCEPT);
    return (uint8_t)((e & FE_INEXACT ? FF_NX : 0) | (e & FE_UNDERFLOW ? FF_UF : 0) | (e & FE_OVERFLOW ? FF_OF : 0) |
                     (e & FE_DIVBYZERO ? FF_DZ : 0) | (e & FE_INVALID ? FF_NV : 0));
}

static uint64_t host_d(unsigned op, uint64_t a, uint64_t b, uint64_t c)
{
    volatile double x, y, z, r;
    memcpy((void *)&x, &a, 8);
    memcpy((void *)&y, &b, 8);
    memcpy((void *)&z, &c, 8);
    feclearexcept(FE_ALL_EXCEPT);
    switch (op) {
    case OP_ADD: r = x + y; break;
    case OP_MUL: r = x * y; break;
    case OP_DIV: r = x / y; break;
    case OP_SQRT: r = sqrt(x); break;
    default: r = fma(x, y, z); break;
    }
    uint64_t v;
    memcpy(&v, (void *)&r, 8);
    return v;
}

static uint64_t host_s(unsigned op, uint64_t a, uint64_t b, uint64_t c)
{
    uint32_t ia = (uint32_t)a, ib = (uint32_t)b, ic = (uint32_t)c, v;
    volatile float x, y, z, r;
    memcpy((void *)&x, &ia, 4);
    memcpy((void *)&y, &ib, 4);
    memcpy((void *)&z, &ic, 4);
    feclearexcept(FE_ALL_EXCEPT);
    switch (op) {
    case OP_ADD: r = x + y; break;
    case OP_MUL: r = x * y; break;
    case OP_DIV: r = x / y; break;
    case OP_SQRT: r = sqrtf(x); break;
    default: r = fmaf(x, y, z); break;
    }
    memcpy(&v, (void *)&r, 4);
    return v;
}

static uint64_t soft(const struct sf_fmt *f, unsigned op, uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *fl)
{
    switch (op) {
    case OP_ADD: return sf_add(f, a, b, rm, fl);
    case OP_MUL: return sf_mul(f, a, b, rm, fl);
    case OP_DIV: return sf_div(f, a, b, rm, fl);
    case OP_SQRT: return sf_sqrt(f, a, rm, fl);
    default: return sf_fma(f, a, b, c, rm, fl);
    }
}

/* What the two architectures leave different by design: infinity times zero plus a quiet NaN raises NV on RISC-V. */
static bool zero_times_inf(const struct sf_fmt *f, uint64_t a, uint64_t b)
{
    uint64_t m = sf_sign_bit(f) - 1;
    return ((a & m) == 0 && (b & m) == sf_inf(f)) || ((b & m) == 0 && (a & m) == sf_inf(f));
}

static void compare(const struct sf_fmt *f, uint64_t (*host)(unsigned, uint64_t, uint64_t, uint64_t))
{
    for (unsigned i = 0; i < 300000; i++) {
        uint64_t a = operand(f), b = operand(f), c = operand(f);
        unsigned op = i % OP_COUNT, rm = i / OP_COUNT % 4;
        uint8_t fl = 0;
        fesetround(modes[rm]);
        uint64_t want = host(op, a, b, c);
        uint8_t want_fl = host_flags();
        fesetround(FE_TONEAREST);
        if (sf_is_nan(f, want))
            want = sf_nan(f);
        if (op == OP_FMA && zero_times_inf(f, a, b))
            want_fl = FF_NV;
        uint64_t got = soft(f, op, a, b, c, rm, &fl);
        if (got != want || fl != want_fl)
            fail_msg("op %u rm %u a %lx b %lx c %lx: got %lx flags %x, want %lx flags %x", op, rm, a, b, c, got, fl, want, want_fl);
    }
}

static void test_single(void **s) { compare(&sf_single, host_s); }
static void test_double(void **s) { compare(&sf_double, host_d); }

static void test_convert(void **s)
{
    for (unsigned i = 0; i < 200000; i++) {
        unsigned rm = i % 4;
        uint64_t a = operand(&sf_double), want;
        uint32_t w;
        uint8_t fl = 0;
        volatile double x;
        volatile float r;
        memcpy((void *)&x, &a, 8);
        fesetround(modes[rm]);
        feclearexcept(FE_ALL_EXCEPT);
        r = (float)x;
        uint8_t want_fl = host_flags();
        fesetround(FE_TONEAREST);
        memcpy(&w, (void *)&r, 4);
        want = sf_is_nan(&sf_single, w) ? sf_nan(&sf_single) : w;
        assert_int_equal(sf_cvt(&sf_double, &sf_single, a, rm, &fl), want);
        assert_int_equal(fl, want_fl);

        int64_t n = (int64_t)(rnd() >> (rnd() & 63)) * (i & 8 ? -1 : 1);
        fl = 0;
        fesetround(modes[rm]);
        feclearexcept(FE_ALL_EXCEPT);
        volatile int64_t vn = n;
        x = (double)vn;
        want_fl = host_flags();
        fesetround(FE_TONEAREST);
        memcpy(&want, (void *)&x, 8);
        assert_int_equal(sf_from_uint(&sf_double, n < 0, n < 0 ? 0 - (uint64_t)n : (uint64_t)n, rm, &fl), want);
        assert_int_equal(fl, want_fl);
    }
}

static void test_half_round_trip(void **s)
{
    for (uint64_t a = 0; a < 0x10000; a++) {
        uint8_t fl = 0;
        uint64_t d = sf_cvt(&sf_half, &sf_double, a, RM_RNE, &fl), back = sf_cvt(&sf_double, &sf_half, d, RM_RMM, &fl);
        assert_int_equal(back, sf_is_nan(&sf_half, a) ? sf_nan(&sf_half) : a);
        assert_int_equal(fl, sf_is_snan(&sf_half, a) ? FF_NV : 0);
    }
}

static uint64_t bits(double d) { uint64_t v; memcpy(&v, &d, 8); return v; }

static void test_to_int(void **s)
{
    static const struct { double v; unsigned rm; bool sgn; unsigned w; uint64_t want; uint8_t fl; } t[] = {
        { 2.5, RM_RNE, true, 32, 2, FF_NX }, { 2.5, RM_RMM, true, 32, 3, FF_NX }, { -2.5, RM_RMM, true, 64, (uint64_t)-3, FF_NX },
        { -2.5, RM_RDN, true, 64, (uint64_t)-3, FF_NX }, { -2.5, RM_RUP, true, 64, (uint64_t)-2, FF_NX },
        { -0.5, RM_RTZ, false, 32, 0, FF_NX }, { -1.0, RM_RTZ, false, 64, 0, FF_NV }, { 1e30, RM_RNE, true, 64, INT64_MAX, FF_NV },
        { -1e30, RM_RNE, true, 32, (uint64_t)INT32_MIN, FF_NV }, { 4294967295.0, RM_RNE, false, 32, UINT64_MAX, 0 },
        { 4294967296.0, RM_RNE, false, 32, UINT64_MAX, FF_NV }, { 2147483647.5, RM_RTZ, true, 32, 0x7fffffff, FF_NX },
        { 2147483647.5, RM_RUP, true, 32, 0x7fffffff, FF_NV }, { 0.25, RM_RUP, false, 64, 1, FF_NX }, { 7.0, RM_RNE, true, 64, 7, 0 },
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint8_t fl = 0;
        assert_int_equal(sf_to_int(&sf_double, bits(t[i].v), t[i].sgn, t[i].w, t[i].rm, &fl), t[i].want);
        assert_int_equal(fl, t[i].fl);
    }
    uint8_t fl = 0;
    assert_int_equal(sf_to_int(&sf_double, bits(NAN), false, 32, RM_RNE, &fl), UINT64_MAX);
    assert_int_equal(fl, FF_NV);
    fl = 0;
    assert_int_equal(sf_cvtmod_w(bits(4294967296.0 * 3 + 5), &fl), 5);
    assert_int_equal(fl, FF_NV);
    fl = 0;
    assert_int_equal(sf_cvtmod_w(bits(-1.5), &fl), UINT64_MAX);
    assert_int_equal(fl, FF_NX);
}

static void test_compare_minmax_class(void **s)
{
    const uint64_t snan = UINT64_C(0x7ff0000000000001), qnan = sf_nan(&sf_double);
    uint8_t fl = 0;
    assert_int_equal(sf_minmax(&sf_double, bits(-0.0), bits(0.0), false, false, &fl), bits(-0.0));
    assert_int_equal(sf_minmax(&sf_double, bits(-0.0), bits(0.0), true, false, &fl), bits(0.0));
    assert_int_equal(sf_minmax(&sf_double, qnan, bits(1), true, false, &fl), bits(1));
    assert_int_equal(sf_minmax(&sf_double, qnan, bits(1), true, true, &fl), qnan);
    assert_true(sf_eq(&sf_double, bits(-0.0), bits(0.0), &fl));
    assert_false(sf_lt(&sf_double, bits(1), qnan, true, &fl));
    assert_int_equal(fl, 0);
    assert_false(sf_le(&sf_double, bits(1), qnan, false, &fl));
    assert_int_equal(fl, FF_NV);
    assert_int_equal(sf_class(&sf_double, snan), 1 << 8);
    assert_int_equal(sf_class(&sf_double, qnan), 1 << 9);
    assert_int_equal(sf_class(&sf_double, bits(-INFINITY)), 1 << 0);
    assert_int_equal(sf_class(&sf_double, 1), 1 << 5);
    assert_int_equal(sf_fli(&sf_double, 0), bits(-1.0));
    assert_int_equal(sf_fli(&sf_double, 29), bits(65536.0));
    assert_int_equal(sf_fli(&sf_single, 1), 0x00800000);
}

static void test_rmm(void **s)
{
    uint8_t fl = 0;
    /* Half way between two neighbours: away from zero, where RNE goes to even. */
    uint64_t half_ulp = bits(0x1p-53);
    assert_int_equal(sf_add(&sf_double, bits(1), half_ulp, RM_RMM, &fl), bits(1) + 1);
    assert_int_equal(sf_add(&sf_double, bits(1), half_ulp, RM_RNE, &fl), bits(1));
    assert_int_equal(sf_round_int(&sf_double, bits(-2.5), RM_RMM, true, &fl), bits(-3));
    assert_int_equal(sf_round_int(&sf_double, bits(-0.25), RM_RMM, false, &fl), bits(-0.0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single), cmocka_unit_test(test_double), cmocka_unit_test(test_convert),
        cmocka_unit_test(test_half_round_trip), cmocka_unit_test(test_to_int), cmocka_unit_test(test_compare_minmax_class),
        cmocka_unit_test(test_rmm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
