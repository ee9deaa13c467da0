/* SPDX-License-Identifier: MIT */
/*
 * Floating-point instructions on a hart. Every encoding, written out from the ISA manual, against the arithmetic that
 * test_rv_softfp.c has proved by the host's FPU; boxing, rounding modes that are not there, FS, flags; and every instruction by the
 * host's FPU against the reference, bit by bit, in all static and dynamic rounding modes.
 */
#include "rv.h"
#include "seeded.h"

enum { CASES = 3000 };
enum kind { F_FFF, F_FF, F_FFFF, X_FF, X_F, F_X };  /* result and operands: floating-point or integer registers */
typedef uint64_t (*oracle)(const struct sf_fmt *f, uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *fl);

#define ORACLE(name, expr) \
    static uint64_t name(const struct sf_fmt *f, uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *fl) { return expr; }
#define SG sf_sign_bit(f)
#define S32(v) ((uint64_t)(int64_t)(int32_t)(v))
ORACLE(o_add, sf_add(f, a, b, rm, fl))
ORACLE(o_sub, sf_add(f, a, sf_is_nan(f, b) ? b : b ^ SG, rm, fl))
ORACLE(o_mul, sf_mul(f, a, b, rm, fl))
ORACLE(o_div, sf_div(f, a, b, rm, fl))
ORACLE(o_sqrt, sf_sqrt(f, a, rm, fl))
ORACLE(o_sgnj, (a & ~SG) | (b & SG))
ORACLE(o_sgnjn, (a & ~SG) | (~b & SG))
ORACLE(o_sgnjx, a ^ (b & SG))
ORACLE(o_min, sf_minmax(f, a, b, false, false, fl))
ORACLE(o_max, sf_minmax(f, a, b, true, false, fl))
ORACLE(o_minm, sf_minmax(f, a, b, false, true, fl))
ORACLE(o_maxm, sf_minmax(f, a, b, true, true, fl))
ORACLE(o_madd, sf_fma(f, a, b, c, rm, fl))
ORACLE(o_msub, sf_fma(f, a, b, c ^ SG, rm, fl))
ORACLE(o_nmsub, sf_fma(f, a ^ SG, b, c, rm, fl))
ORACLE(o_nmadd, sf_fma(f, a ^ SG, b, c ^ SG, rm, fl))
ORACLE(o_eq, sf_eq(f, a, b, fl))
ORACLE(o_lt, sf_lt(f, a, b, false, fl))
ORACLE(o_le, sf_le(f, a, b, false, fl))
ORACLE(o_ltq, sf_lt(f, a, b, true, fl))
ORACLE(o_leq, sf_le(f, a, b, true, fl))
ORACLE(o_class, sf_class(f, a))
ORACLE(o_w, sf_to_int(f, a, true, 32, rm, fl))
ORACLE(o_wu, sf_to_int(f, a, false, 32, rm, fl))
ORACLE(o_l, sf_to_int(f, a, true, 64, rm, fl))
ORACLE(o_lu, sf_to_int(f, a, false, 64, rm, fl))
static uint64_t magnitude(uint64_t v) { return (int64_t)v < 0 ? 0 - v : v; }
ORACLE(o_fw, sf_from_uint(f, (int64_t)S32(a) < 0, magnitude(S32(a)), rm, fl))
ORACLE(o_fwu, sf_from_uint(f, false, (uint32_t)a, rm, fl))
ORACLE(o_fl, sf_from_uint(f, (int64_t)a < 0, magnitude(a), rm, fl))
ORACLE(o_flu, sf_from_uint(f, false, a, rm, fl))
ORACLE(o_round, sf_round_int(f, a, rm, false, fl))
ORACLE(o_roundnx, sf_round_int(f, a, rm, true, fl))

/* Instructions that exist for both formats (fmt field 00 and 01); @rm: bits 14..12 are the rounding mode. */
static const struct { uint32_t match; enum kind kind; bool rm; oracle fn; } both[] = {
    { 0x00000053, F_FFF, true, o_add }, { 0x08000053, F_FFF, true, o_sub }, { 0x10000053, F_FFF, true, o_mul }, { 0x18000053, F_FFF, true, o_div },
    { 0x58000053, F_FF, true, o_sqrt }, { 0x20000053, F_FFF, false, o_sgnj }, { 0x20001053, F_FFF, false, o_sgnjn },
    { 0x20002053, F_FFF, false, o_sgnjx }, { 0x28000053, F_FFF, false, o_min }, { 0x28001053, F_FFF, false, o_max },
    { 0x28002053, F_FFF, false, o_minm }, { 0x28003053, F_FFF, false, o_maxm }, { 0x00000043, F_FFFF, true, o_madd },
    { 0x00000047, F_FFFF, true, o_msub }, { 0x0000004b, F_FFFF, true, o_nmsub }, { 0x0000004f, F_FFFF, true, o_nmadd },
    { 0xa0002053, X_FF, false, o_eq }, { 0xa0001053, X_FF, false, o_lt }, { 0xa0000053, X_FF, false, o_le }, { 0xa0005053, X_FF, false, o_ltq },
    { 0xa0004053, X_FF, false, o_leq }, { 0xe0001053, X_F, false, o_class }, { 0xc0000053, X_F, true, o_w }, { 0xc0100053, X_F, true, o_wu },
    { 0xc0200053, X_F, true, o_l }, { 0xc0300053, X_F, true, o_lu }, { 0xd0000053, F_X, true, o_fw }, { 0xd0100053, F_X, true, o_fwu },
    { 0xd0200053, F_X, true, o_fl }, { 0xd0300053, F_X, true, o_flu }, { 0x40400053, F_FF, true, o_round }, { 0x40500053, F_FF, true, o_roundnx },
};

static uint64_t operand(const struct sf_fmt *f)
{
    uint64_t r = rnd(), frac = rnd() & ((UINT64_C(1) << f->mbits) - 1);
    unsigned max = (1u << f->ebits) - 1;
    static const uint8_t kinds[] = { 0, 1, 2, 3, 3, 3, 3, 3 };
    uint64_t e = kinds[r & 7] == 0 ? 0 : kinds[r & 7] == 1 ? max : kinds[r & 7] == 2 ? (r >> 8) % (max + 1) : max / 2 + (r >> 8) % 70 - 5;
    if (r >> 32 & 1)
        frac &= UINT64_C(7) << (f->mbits - 3);
    return (r >> 63) << (f->ebits + f->mbits) | (e > max ? max : e) << f->mbits | frac;
}

static uint64_t boxed(const struct sf_fmt *f, uint64_t v) { return f == &sf_single ? v | RV_BOX_S : f == &sf_half ? v | RV_BOX_H : v; }

/* x registers of whole numbers near the borders of the types, too. */
static uint64_t integer(void)
{
    uint64_t r = rnd();
    return r & 1 ? (uint64_t)((int64_t)r >> (r >> 1 & 63)) : (UINT64_C(1) << (r >> 8 & 63)) + (r >> 1 & 3) - 2;
}

static void start(struct hart *h) { set_csr(h, 0x300, 0x2000 | (csr(h, 0x300) & ~UINT64_C(0x6000))); }

static void test_every_encoding(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    start(h);
    for (size_t i = 0; i < sizeof both / sizeof *both; i++)
        for (unsigned n = 0; n < CASES; n++) {
            const struct sf_fmt *f = n & 1 ? &sf_double : &sf_single;
            unsigned rm = n / 2 % 5, field = n % 3 ? rm : 7;
            uint64_t a = both[i].kind == F_X ? integer() : operand(f), b = operand(f), c = operand(f);
            uint8_t fl = 0, old = (uint8_t)(rnd() & 31);
            uint64_t want = both[i].fn(f, a, b, c, rm, &fl);
            set_csr(h, 3, (n % 3 ? rnd() % 5 : rm) << 5 | old);
            set_reg(h, A0, both[i].kind == F_X ? a : 0x5555);
            set_reg(h, A2, 0x7777);
            set_reg(h, REG_F0 + 10, boxed(f, a));
            set_reg(h, REG_F0 + 11, boxed(f, b));
            set_reg(h, REG_F0 + 12, boxed(f, c));
            uint32_t insn = both[i].match | (n & 1) << 25 | 12 << 7 | 10 << 15;
            insn |= both[i].kind == F_FFF || both[i].kind == X_FF || both[i].kind == F_FFFF ? 11u << 20 : 0;
            insn |= both[i].kind == F_FFFF ? 12u << 27 : 0;
            exec(h, insn | (both[i].rm ? field << 12 : 0));
            bool to_x = both[i].kind == X_FF || both[i].kind == X_F;
            uint64_t got = to_x ? reg(h, A2) : reg(h, REG_F0 + 12);
            if (!to_x)
                want = boxed(f, want);
            if (got != want || (csr(h, 1) != (unsigned)(old | fl)))
                fail_msg("%08x fmt %u rm %u: a %016lx b %016lx c %016lx: %016lx flags %02lx, not %016lx %02x", both[i].match, n & 1, rm, a, b, c,
                         got, csr(h, 1), want, old | fl);
            assert_int_equal(csr(h, 0x300) >> 63, 1);
        }
}

/* A single that is not boxed is the canonical NaN; moves and stores take the raw bits. */
static void test_boxing(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    start(h);
    set_reg(h, REG_F0 + 1, UINT64_C(0xfffffffe3f800000));
    set_reg(h, REG_F0 + 2, UINT64_C(0xffffffff3f800000));
    exec(h, enc_r(0x00007053, 3, 1, 2));                /* fadd.s */
    assert_int_equal(reg(h, REG_F0 + 3), RV_NAN_S);
    assert_int_equal(csr(h, 1), 0);
    exec(h, enc_r(0x20000053, 3, 1, 2));                /* fsgnj.s */
    assert_int_equal(reg(h, REG_F0 + 3), RV_NAN_S);
    exec(h, enc_r(0xe0001053, A0, 1, 0));               /* fclass.s */
    assert_int_equal(reg(h, A0), 0x200);
    exec(h, enc_r(0xa0002053, A0, 1, 2));               /* feq.s */
    assert_int_equal(reg(h, A0), 0);
    exec(h, enc_r(0xe0000053, A0, 1, 0));               /* fmv.x.w */
    assert_int_equal(reg(h, A0), 0x3f800000);
    exec(h, enc_r(0xe2000053, A0, 1, 0));               /* fmv.x.d */
    assert_int_equal(reg(h, A0), UINT64_C(0xfffffffe3f800000));
    set_reg(h, A1, DATA);
    exec(h, enc_s(0x2027, A1, 1, 0));                   /* fsw */
    exec(h, enc_i(0x2007, 4, A1, 0));                   /* flw */
    assert_int_equal(reg(h, REG_F0 + 4), UINT64_C(0xffffffff3f800000));
    set_reg(h, A0, UINT64_C(0x1234567880000000));
    exec(h, enc_r(0xf0000053, 5, A0, 0));               /* fmv.w.x */
    assert_int_equal(reg(h, REG_F0 + 5), UINT64_C(0xffffffff80000000));
    exec(h, enc_r(0xf4000053, 5, A0, 0));               /* fmv.h.x */
    assert_int_equal(reg(h, REG_F0 + 5), UINT64_C(0xffffffffffff0000));
    set_reg(h, REG_F0 + 6, UINT64_C(0xffffffffffff3c00));
    exec(h, enc_r(0x42200053 | 7 << 12, 7, 6, 0));      /* fcvt.d.h */
    assert_int_equal(reg(h, REG_F0 + 7), UINT64_C(0x3ff0000000000000));
    exec(h, enc_r(0x44100053 | 7 << 12, 8, 7, 0));      /* fcvt.h.d */
    assert_int_equal(reg(h, REG_F0 + 8), UINT64_C(0xffffffffffff3c00));
    exec(h, enc_r(0x40200053 | 7 << 12, 8, 6, 0));      /* fcvt.s.h */
    assert_int_equal(reg(h, REG_F0 + 8), UINT64_C(0xffffffff3f800000));
    exec(h, enc_r(0x44000053 | 7 << 12, 8, 8, 0));      /* fcvt.h.s */
    assert_int_equal(reg(h, REG_F0 + 8), UINT64_C(0xffffffffffff3c00));
    set_reg(h, REG_F0 + 6, 0x3c00);
    exec(h, enc_r(0x40200053 | 7 << 12, 8, 6, 0));
    assert_int_equal(reg(h, REG_F0 + 8), RV_NAN_S);
    exec(h, enc_r(0x44000053 | 7 << 12, 8, 8, 0));
    assert_int_equal(reg(h, REG_F0 + 8), UINT64_C(0xffffffffffff7e00));
}

static void test_conversions(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    start(h);
    for (unsigned n = 0; n < CASES; n++) {
        unsigned rm = n % 5;
        uint64_t d = n % 4 ? operand(&sf_double) : sf_cvt(&sf_single, &sf_double, operand(&sf_single), 0, &(uint8_t){ 0 }) + n % 3 - 1;
        uint8_t fl = 0, fl2 = 0;
        uint64_t s = sf_cvt(&sf_double, &sf_single, d, rm, &fl);
        set_csr(h, 3, 0);
        set_reg(h, REG_F0 + 1, d);
        exec(h, enc_r(0x40100053 | rm << 12, 2, 1, 0));         /* fcvt.s.d */
        assert_int_equal(reg(h, REG_F0 + 2), s | RV_BOX_S);
        assert_int_equal(csr(h, 1), fl);
        uint64_t back = sf_cvt(&sf_single, &sf_double, s, rm, &fl2);
        exec(h, enc_r(0x42000053 | rm << 12, 3, 2, 0));         /* fcvt.d.s */
        assert_int_equal(reg(h, REG_F0 + 3), back);
        assert_int_equal(csr(h, 1), fl | fl2);
    }
}

/* fli: the 32 constants of Zfa. */
static void test_constants(void **state)
{
    static const double values[32] = { -1, 0x1p-1022, 0x1p-16, 0x1p-15, 0x1p-8, 0x1p-7, 0.0625, 0.125, 0.25, 0.3125, 0.375, 0.4375, 0.5, 0.625,
                                       0.75, 0.875, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 8, 16, 128, 256, 32768, 65536, __builtin_inf(), __builtin_nan("") };
    struct hart *h = rv_harts(1, NULL, NULL);
    start(h);
    for (unsigned i = 0; i < 32; i++) {
        double d = values[i];
        float s = i == 1 ? 0x1p-126f : (float)d;
        uint64_t bits = 0;
        uint32_t low;
        memcpy(&bits, &d, 8);
        memcpy(&low, &s, 4);
        exec(h, enc_r(0xf2100053, 1, i, 0));
        assert_int_equal(reg(h, REG_F0 + 1), bits);
        exec(h, enc_r(0xf0100053, 1, i, 0));
        assert_int_equal(reg(h, REG_F0 + 1), low | RV_BOX_S);
    }
}

static void test_illegal(void **state)
{
    static const uint32_t insns[] = { 0x02000053, 0x00000053, 0x58000053, 0x00000043, 0xc2000053, 0xd2200053, 0x40100053 };
    struct hart *h = rv_harts(1, NULL, NULL);
    start(h);
    for (size_t i = 0; i < sizeof insns / sizeof *insns; i++)
        for (unsigned rm = 5; rm < 8; rm++)
            for (unsigned frm = rm == 7 ? 5 : 0; frm < 8; frm += rm == 7 ? 1 : 8) {
                set_csr(h, 2, frm);
                assert_int_equal(exec_trap(h, insns[i] | rm << 12), 2);
                assert_int_equal(csr(h, 0x343), insns[i] | rm << 12);
            }
    set_csr(h, 2, 0);
    set_reg(h, A0, DATA);
    set_csr(h, 0x300, csr(h, 0x300) & ~UINT64_C(0x6000));           /* FS off: all of it is illegal */
    static const uint32_t off[] = { 0x02007053, 0x20000053, 0xe0000053, 0xf2000053, 0xa2002053, 0x02007043, 0xf0100053, 0x00053007, 0x00052007,
                                    0x00053027, 0x00001507 | 10 << 15, 0x00302573, 0x00101073 };
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        assert_int_equal(exec_trap(h, off[i]), 2);
    h = rv_harts(1, "{\"d\": false}", NULL);
    start(h);
    assert_int_equal(exec_trap(h, 0x02007053), 2);
    exec(h, 0x00007053);
    assert_int_equal(reg(h, REG_PC), CODE + 4);
}

/* By the host's FPU and by the reference: same registers and flags. */
static void test_fast_is_exact(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    start(h);
    for (unsigned op = 1; op < RV_OP_COUNT; op++) {
        enum rv_format form = (enum rv_format)rv_insn_rows[op].fmt;
        if (form < RV_FMT_R4 || form > RV_FMT_FLI)
            continue;
        bool dbl = strstr(rv_insn_rows[op].name, ".d") != NULL;
        for (unsigned n = 0; n < CASES; n++) {
            struct rv_insn in = { .op = (uint16_t)op, .rd = 1, .rs1 = 2, .rs2 = 3, .rs3 = 4, .len = 4, .rm = (uint8_t)(n % 3 ? 7 : n % 8) };
            for (unsigned i = 2; i < 5; i++) {
                const struct sf_fmt *f = dbl == (rnd() % 5 != 0) ? &sf_double : &sf_single;
                h->f[i] = rnd() % 40 ? boxed(f, operand(f)) : rnd();
            }
            h->x[2] = integer();
            h->x[1] = h->f[1] = 0;
            h->frm = (uint8_t)(n / 8 % 5);
            h->fflags = 0;
            bool ok = rv_fp_exec(h, &in);
            struct { uint64_t x, f; uint8_t fl; } want = { h->x[1], h->f[1], h->fflags };
            h->x[1] = h->f[1] = 0;
            h->fflags = 0;
            h->trap.cause = 0;
            h->pc = CODE;
            uint8_t priv = h->priv;
            rv_fpu_enter(h);
            interp_exec(h, &in);
            rv_fpu_leave(h);
            if (!ok) {
                assert_int_equal(h->trap.cause, 2);
                h->priv = priv;
                continue;
            }
            if (h->x[1] != want.x || h->f[1] != want.f || h->fflags != want.fl)
                fail_msg("%s rm %u frm %u: f2 %016lx f3 %016lx f4 %016lx x2 %016lx: %016lx %016lx flags %02x, not %016lx %016lx %02x", rv_insn_rows[op].name,
                         in.rm, h->frm, h->f[2], h->f[3], h->f[4], h->x[2], h->x[1], h->f[1], h->fflags, want.x, want.f, want.fl);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_encoding), cmocka_unit_test(test_boxing), cmocka_unit_test(test_conversions), cmocka_unit_test(test_constants),
        cmocka_unit_test(test_illegal), cmocka_unit_test(test_fast_is_exact),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
