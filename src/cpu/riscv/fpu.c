/* SPDX-License-Identifier: MIT */
#include "cpu/riscv/fpu.h"

static uint8_t flags_from_host(int e)
{
    return (uint8_t)((e & FE_INEXACT ? FF_NX : 0) | (e & FE_UNDERFLOW ? FF_UF : 0) | (e & FE_OVERFLOW ? FF_OF : 0) |
                     (e & FE_DIVBYZERO ? FF_DZ : 0) | (e & FE_INVALID ? FF_NV : 0));
}

#if defined(__x86_64__)
/* The SSE control word directly: the C library would also visit the x87 unit, which is never used here. */
#define MXCSR_DEFAULT 0x1f80u
static inline unsigned mxcsr_get(void) { return __builtin_ia32_stmxcsr(); }
static inline void mxcsr_set(unsigned v) { __builtin_ia32_ldmxcsr(v); }

static unsigned mxcsr_for(const struct hart *h)
{
    static const unsigned rc[4] = { 0, 3, 1, 2 };       /* nearest, zero, down, up */
    return MXCSR_DEFAULT | rc[rv_fpu_host_rm(h)] << 13;
}

void rv_fpu_sync(struct hart *h)
{
    unsigned v = mxcsr_get();
    if (v & 0x3f) {
        int e = (v & 1 ? FE_INVALID : 0) | (v & 4 ? FE_DIVBYZERO : 0) | (v & 8 ? FE_OVERFLOW : 0) | (v & 16 ? FE_UNDERFLOW : 0) |
                (v & 32 ? FE_INEXACT : 0);
        h->fflags |= flags_from_host(e);
        mxcsr_set(v & ~0x3fu);
    }
}

void rv_fpu_enter(struct hart *h) { mxcsr_set(mxcsr_for(h)); }

void rv_fpu_leave(struct hart *h)
{
    rv_fpu_sync(h);
    mxcsr_set(MXCSR_DEFAULT);
}

void rv_fpu_frm_changed(struct hart *h)
{
    rv_fpu_sync(h);
    mxcsr_set(mxcsr_for(h));
}
#else
static const int host_mode[4] = { FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD };

void rv_fpu_sync(struct hart *h)
{
    int e = fetestexcept(FE_ALL_EXCEPT);
    if (e) {
        h->fflags |= flags_from_host(e);
        feclearexcept(FE_ALL_EXCEPT);
    }
}

void rv_fpu_enter(struct hart *h)
{
    feclearexcept(FE_ALL_EXCEPT);
    fesetround(host_mode[rv_fpu_host_rm(h)]);
}

void rv_fpu_leave(struct hart *h)
{
    rv_fpu_sync(h);
    fesetround(FE_TONEAREST);
}

void rv_fpu_frm_changed(struct hart *h) { fesetround(host_mode[rv_fpu_host_rm(h)]); }
#endif

/* --- the reference --- */

static uint64_t box(const struct sf_fmt *f, uint64_t v)
{
    return f == &sf_single ? v | RV_BOX_S : f == &sf_half ? v | RV_BOX_H : v;
}

static uint64_t unbox(const struct sf_fmt *f, uint64_t v)
{
    return f == &sf_single ? rv_unbox_s(v) : f == &sf_half ? rv_unbox_h(v) : v;
}

#define BOTH(op) case RV_OP_##op##_S: case RV_OP_##op##_D

/* Format of the operands. fcvt.X.Y reads Y; integer-to-float conversions and moves write their own format. */
static const struct sf_fmt *fmt_of(const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_FCVT_S_D: return &sf_double;
    case RV_OP_FCVT_D_S: return &sf_single;
    case RV_OP_FCVT_S_H: case RV_OP_FCVT_D_H: case RV_OP_FMV_X_H: case RV_OP_FMV_H_X: return &sf_half;
    case RV_OP_FCVT_H_S: return &sf_single;
    case RV_OP_FCVT_H_D: return &sf_double;
    default: break;
    }
    /* The fmt field of OP-FP and of the fused operations: 0 single, 1 double. */
    return rv_insn_rows[in->op].match >> 25 & 1 ? &sf_double : &sf_single;
}

static uint64_t fused(const struct rv_insn *in, const struct sf_fmt *f, uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *fl)
{
    uint64_t sign = sf_sign_bit(f);
    switch (in->op) {
    BOTH(FMSUB): return sf_fma(f, a, b, c ^ sign, rm, fl);
    BOTH(FNMSUB): return sf_fma(f, a ^ sign, b, c, rm, fl);
    BOTH(FNMADD): return sf_fma(f, a ^ sign, b, c ^ sign, rm, fl);
    default: return sf_fma(f, a, b, c, rm, fl);
    }
}

static uint64_t arith(const struct rv_insn *in, const struct sf_fmt *f, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl)
{
    uint64_t sign = sf_sign_bit(f), mag = sign - 1;
    switch (in->op) {
    BOTH(FADD): return sf_add(f, a, b, rm, fl);
    BOTH(FSUB): return sf_add(f, a, sf_is_nan(f, b) ? b : b ^ sign, rm, fl);
    BOTH(FMUL): return sf_mul(f, a, b, rm, fl);
    BOTH(FDIV): return sf_div(f, a, b, rm, fl);
    BOTH(FSQRT): return sf_sqrt(f, a, rm, fl);
    BOTH(FSGNJ): return (a & mag) | (b & sign);
    BOTH(FSGNJN): return (a & mag) | (~b & sign);
    BOTH(FSGNJX): return a ^ (b & sign);
    BOTH(FMIN): return sf_minmax(f, a, b, false, false, fl);
    BOTH(FMAX): return sf_minmax(f, a, b, true, false, fl);
    BOTH(FMINM): return sf_minmax(f, a, b, false, true, fl);
    BOTH(FMAXM): return sf_minmax(f, a, b, true, true, fl);
    BOTH(FROUND): return sf_round_int(f, a, rm, false, fl);
    BOTH(FROUNDNX): return sf_round_int(f, a, rm, true, fl);
    default: return sf_nan(f);
    }
}

static uint64_t to_x(const struct rv_insn *in, const struct sf_fmt *f, uint64_t raw, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl)
{
    switch (in->op) {
    BOTH(FCVT_W): return sf_to_int(f, a, true, 32, rm, fl);
    BOTH(FCVT_WU): return sf_to_int(f, a, false, 32, rm, fl);
    BOTH(FCVT_L): return sf_to_int(f, a, true, 64, rm, fl);
    BOTH(FCVT_LU): return sf_to_int(f, a, false, 64, rm, fl);
    case RV_OP_FCVTMOD_W_D: return sf_cvtmod_w(a, fl);
    case RV_OP_FMV_X_W: return (uint64_t)(int64_t)(int32_t)raw;
    case RV_OP_FMV_X_H: return (uint64_t)(int64_t)(int16_t)raw;
    case RV_OP_FMV_X_D: return raw;
    BOTH(FCLASS): return sf_class(f, a);
    BOTH(FEQ): return sf_eq(f, a, b, fl);
    BOTH(FLT): return sf_lt(f, a, b, false, fl);
    BOTH(FLE): return sf_le(f, a, b, false, fl);
    BOTH(FLTQ): return sf_lt(f, a, b, true, fl);
    BOTH(FLEQ): return sf_le(f, a, b, true, fl);
    default: return 0;
    }
}

static uint64_t from_x(const struct rv_insn *in, const struct sf_fmt *f, uint64_t v, unsigned rm, uint8_t *fl)
{
    int64_t s;
    switch (in->op) {
    case RV_OP_FCVT_S_W: case RV_OP_FCVT_D_W: s = (int32_t)v; break;
    case RV_OP_FCVT_S_L: case RV_OP_FCVT_D_L: s = (int64_t)v; break;
    case RV_OP_FCVT_S_WU: case RV_OP_FCVT_D_WU: return sf_from_uint(f, false, (uint32_t)v, rm, fl);
    case RV_OP_FCVT_S_LU: case RV_OP_FCVT_D_LU: return sf_from_uint(f, false, v, rm, fl);
    case RV_OP_FMV_W_X: return (uint32_t)v;
    case RV_OP_FMV_H_X: return (uint16_t)v;
    default: return v;                  /* fmv.d.x */
    }
    return sf_from_uint(f, s < 0, s < 0 ? 0 - (uint64_t)s : (uint64_t)s, rm, fl);
}

static const struct sf_fmt *cvt_target(const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_FCVT_S_D: case RV_OP_FCVT_S_H: return &sf_single;
    case RV_OP_FCVT_D_S: case RV_OP_FCVT_D_H: return &sf_double;
    case RV_OP_FCVT_H_S: case RV_OP_FCVT_H_D: return &sf_half;
    default: return NULL;
    }
}

bool rv_fp_exec(struct hart *h, const struct rv_insn *in)
{
    enum rv_format form = (enum rv_format)rv_insn_rows[in->op].fmt;
    const struct sf_fmt *f = fmt_of(in), *to = cvt_target(in);
    unsigned rm = in->rm;
    bool rounds = form == RV_FMT_R4 || form == RV_FMT_FRM || form == RV_FMT_FRM1 || form == RV_FMT_F2X || form == RV_FMT_X2F;
    if (rounds) {
        if (rm == RM_DYN)
            rm = h->frm;
        if (rm > RM_RMM)
            return false;
    }
    uint64_t a = unbox(f, h->f[in->rs1]), b = unbox(f, h->f[in->rs2]), v;
    uint8_t fl = 0;

    switch (form) {
    case RV_FMT_R4:
        h->f[in->rd] = box(f, fused(in, f, a, b, unbox(f, h->f[in->rs3]), rm, &fl));
        break;
    case RV_FMT_FRM: case RV_FMT_FRM1: case RV_FMT_FR:
        h->f[in->rd] = to ? box(to, sf_cvt(f, to, a, rm, &fl)) : box(f, arith(in, f, a, b, rm, &fl));
        break;
    case RV_FMT_FCMP: case RV_FMT_F2X: case RV_FMT_FX:
        v = to_x(in, f, h->f[in->rs1], a, b, rm, &fl);
        if (in->rd)
            h->x[in->rd] = v;
        break;
    case RV_FMT_X2F: case RV_FMT_XF:
        h->f[in->rd] = box(f, from_x(in, f, h->x[in->rs1], rm, &fl));
        break;
    case RV_FMT_FLI:
        h->f[in->rd] = box(f, sf_fli(f, in->rs1));
        break;
    default:
        return false;
    }
    h->fflags |= fl;
    return true;
}
