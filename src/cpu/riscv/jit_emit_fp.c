/* SPDX-License-Identifier: MIT */
/*
 * Floating point in SSE2, VEX and FMA. The host rounds and raises flags as the guest wants them (MXCSR holds the guest's mode and
 * collects its flags), with two exceptions that the handler takes over: NaN results, and singles that are not boxed. It then does
 * the whole operation again, so no source may be gone by then; the flags it raises are those that are there.
 */
#include "cpu/riscv/fpu.h"
#include "cpu/riscv/jit_int.h"

enum { X0, X1, X2 };                                    /* free xmm registers */
enum { PP_S = 2, PP_D = 3 };

static uint32_t constant(const struct jit_tr *t, enum jit_const n) { return (uint32_t)(uintptr_t)&t->j->constants[n]; }

/* op xmm, [constant] */
static void with_const(struct jit_tr *t, unsigned op, unsigned xmm, enum jit_const n)
{
    x86_rx(&t->e, op, false, xmm, RSP, 0, constant(t, n));      /* RSP: no index */
}

static void move(struct jit_tr *t, unsigned to, unsigned from)
{
    if (to != from)
        x86_rr(&t->e, X_MOVAPS, false, to, from);
}

static unsigned f_src(struct jit_tr *t, unsigned r, unsigned tmp)
{
    if (jit_freg[r] >= 0)
        return (unsigned)jit_freg[r];
    x86_rm(&t->e, X_MOVSD, false, tmp, RBP, JIT_F(r));
    return tmp;
}

static unsigned f_dst(unsigned r, unsigned tmp)
{
    return jit_freg[r] >= 0 ? (unsigned)jit_freg[r] : tmp;
}

/* mstatus.FS, once in a block. */
static void dirty(struct jit_tr *t)
{
    if (!t->fs_dirty)
        x86_mi(&t->e, G_OR, false, RBP, JIT_DISP(mstatus), MSTATUS_FS);
    t->fs_dirty = true;
}

static void f_put(struct jit_tr *t, unsigned r, unsigned xmm, bool single)
{
    if (jit_freg[r] >= 0)
        move(t, (unsigned)jit_freg[r], xmm);
    else
        x86_rm(&t->e, X_MOVSD_TO, false, xmm, RBP, JIT_F(r));
    t->boxed = single ? t->boxed | 1u << r : t->boxed & ~(1u << r);
    dirty(t);
}

/* An integer result, of what may have raised flags. */
static void x_put(struct jit_tr *t, unsigned r, unsigned host)
{
    jit_put(t, r, host);
    dirty(t);
}

/* A source of the operation's width: a single must be boxed. */
static unsigned f_operand(struct jit_tr *t, unsigned r, unsigned tmp, bool single)
{
    unsigned x = f_src(t, r, tmp);
    if (single && !(t->boxed >> r & 1)) {
        x86_rr(&t->e, X_MOVQ_TO, true, x, RAX);
        x86_shift_i(&t->e, G_SAR, true, RAX, 32);
        x86_ri(&t->e, G_CMP, false, RAX, -1);
        jit_cold_leave(t, x86_jcc(&t->e, CC_NE, 0));    /* so that what follows may take it for boxed */
        t->boxed |= 1u << r;
    }
    return x;
}

/* Accepts a result in xmm: NaNs are the handler's. */
static void accept(struct jit_tr *t, const struct rv_insn *in, unsigned xmm, bool single)
{
    x86_rr(&t->e, single ? X_UCOMISS : X_UCOMISD, false, xmm, xmm);
    jit_cold_slow(t, x86_jcc(&t->e, CC_P, 0));
    f_put(t, in->rd, xmm, single);
}

/* Where a result may be made while the sources must stay. */
static unsigned result(const struct rv_insn *in, unsigned sources)
{
    bool is_source = in->rd == in->rs1 || (sources > 1 && in->rd == in->rs2) || (sources > 2 && in->rd == in->rs3);
    return is_source ? X0 : f_dst(in->rd, X0);
}

/* Whether the mode in force is the instruction's. */
static bool rounds_as_host(const struct jit_tr *t, const struct rv_insn *in)
{
    return in->rm == RM_DYN || (in->rm == RM_RNE && t->fp == JIT_FP_RNE);
}

static bool arith(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool single)
{
    if (!rounds_as_host(t, in))
        return false;
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single), d = result(in, 2);
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, op, false, d, a, b);
    accept(t, in, d, single);
    return true;
}

static bool square_root(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    if (!rounds_as_host(t, in))
        return false;
    unsigned a = f_operand(t, in->rs1, X1, single), d = result(in, 1);
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, 0x51, false, d, a, a);
    accept(t, in, d, single);
    return true;
}

/* @op: 231 forms, d = a * b + d: b9 fmadd, bb fmsub, bd fnmadd (-(a*b) + d), bf fnmsub. */
static bool fused(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool single)
{
    if (!rounds_as_host(t, in))
        return false;
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single);
    unsigned c = f_operand(t, in->rs3, X0, single);
    move(t, X0, c);
    x86_vex_rrr(&t->e, 2, 1, op, !single, X0, a, b);
    accept(t, in, X0, single);
    return true;
}

/* min: or of both orders, max: and: they differ for zeros of unlike signs only. */
static bool min_max(struct jit_tr *t, const struct rv_insn *in, bool max, bool single)
{
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single), op = max ? 0x5f : 0x5d;
    x86_rr(&t->e, single ? X_UCOMISS : X_UCOMISD, false, a, b);
    jit_cold_slow(t, x86_jcc(&t->e, CC_P, 0));
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, op, false, X0, a, b);
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, op, false, X1, b, a);
    x86_rr(&t->e, max ? X_ANDPS : X_ORPS, false, X0, X1);
    f_put(t, in->rd, X0, single);
    return true;
}

enum { SGNJ, SGNJN, SGNJX };
static bool sign(struct jit_tr *t, const struct rv_insn *in, unsigned kind, bool single)
{
    enum jit_const sign = single ? JIT_SIGN_S : JIT_SIGN_D, mag = single ? JIT_MAG_S : JIT_MAG_D;
    unsigned a = f_operand(t, in->rs1, X1, single);
    if (in->rs1 == in->rs2) {
        move(t, X0, a);
        if (kind == SGNJN)
            with_const(t, X_XORPS, X0, sign);
        else if (kind == SGNJX)
            with_const(t, X_ANDPS, X0, mag);
        f_put(t, in->rd, kind == SGNJ ? a : X0, single);
        return true;
    }
    unsigned b = f_operand(t, in->rs2, X2, single);
    move(t, X0, b);
    with_const(t, X_ANDPS, X0, sign);
    if (kind == SGNJN)
        with_const(t, X_XORPS, X0, sign);
    move(t, X1, a);
    if (kind != SGNJX)
        with_const(t, X_ANDPS, X1, mag);
    x86_rr(&t->e, kind == SGNJX ? X_XORPS : X_ORPS, false, X0, X1);
    f_put(t, in->rd, X0, single);
    return true;
}

/* flt, fle: b above (or not below) a, which is false for NaNs; these raise NV, as comisd does. */
static bool compare(struct jit_tr *t, const struct rv_insn *in, unsigned cc, bool quiet, bool single)
{
    struct emit *e = &t->e;
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single);
    unsigned op = quiet ? (single ? X_UCOMISS : X_UCOMISD) : (single ? X_COMISS : X_COMISD);
    x86_rr(e, op, false, b, a);
    if (cc == CC_E)
        x86_setcc(e, CC_NP, RCX);
    x86_setcc(e, cc, RAX);
    if (cc == CC_E)
        x86_rr(e, X_AND, false, RAX, RCX);
    x_put(t, in->rd, RAX);
    return true;
}

/* Out of range, the host gives the most negative integer: less 1, that overflows. */
static bool to_int(struct jit_tr *t, const struct rv_insn *in, bool w, bool single)
{
    if (in->rm != RM_RTZ && !rounds_as_host(t, in))
        return false;
    unsigned a = f_operand(t, in->rs1, X1, single);
    x86_rr(&t->e, (in->rm == RM_RTZ ? X_CVTTSD2SI : X_CVTSD2SI) ^ (single ? X_SINGLE : 0), w, RAX, a);
    x86_ri(&t->e, G_CMP, w, RAX, 1);
    jit_cold_slow(t, x86_jcc(&t->e, CC_O, 0));
    if (!w)
        x86_rr(&t->e, X_MOVSXD, true, RAX, RAX);
    x_put(t, in->rd, RAX);
    return true;
}

/* Truncation to 32 bits unsigned of what lies between -1 and 2^32. */
static bool to_wu(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    if (in->rm != RM_RTZ)
        return false;
    unsigned a = f_operand(t, in->rs1, X1, single);
    with_const(t, single ? X_UCOMISS : X_UCOMISD, a, single ? JIT_MINUS1_S : JIT_MINUS1_D);
    jit_cold_slow(t, x86_jcc(&t->e, CC_BE, 0));
    with_const(t, single ? X_UCOMISS : X_UCOMISD, a, single ? JIT_2E32_S : JIT_2E32_D);
    jit_cold_slow(t, x86_jcc(&t->e, CC_AE, 0));
    x86_rr(&t->e, X_CVTTSD2SI ^ (single ? X_SINGLE : 0), true, RAX, a);
    x86_rr(&t->e, X_MOVSXD, true, RAX, RAX);
    x_put(t, in->rd, RAX);
    return true;
}

/* @kind: 0 w, 1 wu, 2 l, 3 lu: bits 20 and 21 of the instruction. */
static bool from_int(struct jit_tr *t, const struct rv_insn *in, unsigned kind, bool single)
{
    bool exact = kind < 2 && !single && (in->rm <= RM_RMM || in->rm == RM_DYN);
    if (!exact && !rounds_as_host(t, in))
        return false;
    unsigned r = jit_src(t, in->rs1, RAX);
    if (kind == 1) {
        x86_rr(&t->e, X_MOV, false, RAX, r);
        r = RAX;
    } else if (kind == 3) {
        x86_rr(&t->e, X_TEST, true, r, r);
        jit_cold_slow(t, x86_jcc(&t->e, CC_S, 0));
    }
    x86_rr(&t->e, X_XORPS, false, X0, X0);
    x86_rr(&t->e, X_CVTSI2SD ^ (single ? X_SINGLE : 0), kind != 0, X0, r);
    if (single)
        with_const(t, X_ORPS, X0, JIT_BOX);
    f_put(t, in->rd, X0, single);
    return true;
}

static bool narrow(struct jit_tr *t, const struct rv_insn *in)
{
    if (!rounds_as_host(t, in))
        return false;
    unsigned a = f_src(t, in->rs1, X1);
    x86_vex_rrr(&t->e, 1, PP_D, 0x5a, false, X0, a, a);
    with_const(t, X_ORPS, X0, JIT_BOX);
    accept(t, in, X0, true);
    return true;
}

static bool widen(struct jit_tr *t, const struct rv_insn *in)
{
    if (in->rm > RM_RMM && in->rm != RM_DYN)
        return false;
    unsigned a = f_operand(t, in->rs1, X1, true);
    x86_vex_rrr(&t->e, 1, PP_S, 0x5a, false, X0, a, a);
    accept(t, in, X0, false);
    return true;
}

static bool transfer(struct jit_tr *t, const struct rv_insn *in)
{
    struct emit *e = &t->e;
    unsigned d;
    switch (in->op) {
    case RV_OP_FMV_X_D:
        d = jit_dst(t, in->rd, RAX);
        x86_rr(e, X_MOVQ_TO, true, f_src(t, in->rs1, X1), d);
        x_put(t, in->rd, d);
        return true;
    case RV_OP_FMV_X_W:
        d = jit_dst(t, in->rd, RAX);
        x86_rr(e, X_MOVQ_TO, false, f_src(t, in->rs1, X1), d);
        x86_rr(e, X_MOVSXD, true, d, d);
        x_put(t, in->rd, d);
        return true;
    case RV_OP_FMV_D_X:
        x86_rr(e, X_MOVQ_X, true, X0, jit_src(t, in->rs1, RAX));
        f_put(t, in->rd, X0, false);
        return true;
    case RV_OP_FMV_W_X:
        x86_rr(e, X_MOVQ_X, false, X0, jit_src(t, in->rs1, RAX));
        with_const(t, X_ORPS, X0, JIT_BOX);
        f_put(t, in->rd, X0, true);
        return true;
    default:
        return false;
    }
}

static bool memory(struct jit_tr *t, const struct rv_insn *in)
{
    bool single = in->op == RV_OP_FLW || in->op == RV_OP_FSW;
    unsigned d;
    switch (in->op) {
    case RV_OP_FLW: case RV_OP_FLD:
        jit_address(t, in, single ? 4 : 8, false);
        d = f_dst(in->rd, X0);
        jit_mem(t, single ? X_MOVSS : X_MOVSD, false, d);
        if (single)
            with_const(t, X_ORPS, d, JIT_BOX);
        f_put(t, in->rd, d, single);
        break;
    case RV_OP_FSW: case RV_OP_FSD:
        jit_address(t, in, single ? 4 : 8, true);
        jit_mem(t, single ? X_MOVSS_TO : X_MOVSD_TO, false, f_src(t, in->rs2, X0));
        break;
    default:
        return false;
    }
    return true;
}

#define BOTH(id) case RV_OP_##id##_S: case RV_OP_##id##_D

bool jit_emit_fp(struct jit_tr *t, const struct rv_insn *in)
{
    if (t->fp == JIT_FP_SLOW)
        return false;
    unsigned f = rv_insn_rows[in->op].fmt;
    if ((f == RV_FMT_FCMP || f == RV_FMT_F2X || f == RV_FMT_FX) && in->rd == 32)
        return false;                       /* only the flags are wanted */
    bool s = !(rv_insn_rows[in->op].match >> 25 & 1);
    switch (in->op) {
    BOTH(FADD): return arith(t, in, 0x58, s);
    BOTH(FSUB): return arith(t, in, 0x5c, s);
    BOTH(FMUL): return arith(t, in, 0x59, s);
    BOTH(FDIV): return arith(t, in, 0x5e, s);
    BOTH(FSQRT): return square_root(t, in, s);
    BOTH(FMADD): return fused(t, in, 0xb9, s);
    BOTH(FMSUB): return fused(t, in, 0xbb, s);
    BOTH(FNMSUB): return fused(t, in, 0xbd, s);
    BOTH(FNMADD): return fused(t, in, 0xbf, s);
    BOTH(FMIN): return min_max(t, in, false, s);
    BOTH(FMAX): return min_max(t, in, true, s);
    BOTH(FSGNJ): return sign(t, in, SGNJ, s);
    BOTH(FSGNJN): return sign(t, in, SGNJN, s);
    BOTH(FSGNJX): return sign(t, in, SGNJX, s);
    BOTH(FEQ): return compare(t, in, CC_E, true, s);
    BOTH(FLT): return compare(t, in, CC_A, false, s);
    BOTH(FLE): return compare(t, in, CC_AE, false, s);
    BOTH(FCVT_W): return to_int(t, in, false, s);
    BOTH(FCVT_L): return to_int(t, in, true, s);
    BOTH(FCVT_WU): return to_wu(t, in, s);
    case RV_OP_FCVT_S_W: case RV_OP_FCVT_S_WU: case RV_OP_FCVT_S_L: case RV_OP_FCVT_S_LU:
    case RV_OP_FCVT_D_W: case RV_OP_FCVT_D_WU: case RV_OP_FCVT_D_L: case RV_OP_FCVT_D_LU:
        return from_int(t, in, rv_insn_rows[in->op].match >> 20 & 3, s);
    case RV_OP_FCVT_S_D: return narrow(t, in);
    case RV_OP_FCVT_D_S: return widen(t, in);
    default: return transfer(t, in) || memory(t, in);
    }
}
