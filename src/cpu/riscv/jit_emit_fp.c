/* SPDX-License-Identifier: MIT */
/*
 * Floating point in SSE2, VEX and FMA. The host rounds and raises flags as the guest wants them (MXCSR holds the guest's mode and
 * collects its flags), with two exceptions: NaN results, which are made canonical out of line, and singles that are not boxed, which
 * the handler takes over.
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

void jit_fs_dirty(struct jit_tr *t)
{
    if (!t->fp_now.dirty)
        x86_mi(&t->e, G_OR, false, RBP, JIT_DISP(mstatus), MSTATUS_FS);
}

static void f_put(struct jit_tr *t, unsigned r, unsigned xmm)
{
    if (jit_freg[r] >= 0)
        move(t, (unsigned)jit_freg[r], xmm);
    else
        x86_rm(&t->e, X_MOVSD_TO, false, xmm, RBP, JIT_F(r));
    jit_fs_dirty(t);
}

/* An integer result, of what may have raised flags. */
static void x_put(struct jit_tr *t, unsigned r, unsigned host)
{
    jit_put(t, r, host);
    jit_fs_dirty(t);
}

/* Jumps if what the register holds is no boxed single. */
static uint8_t *not_boxed(struct jit_tr *t, unsigned xmm)
{
    x86_rr(&t->e, X_MOVQ_TO, true, xmm, RAX);
    x86_shift_i(&t->e, G_SAR, true, RAX, 32);
    x86_ri(&t->e, G_CMP, false, RAX, -1);
    return x86_jcc(&t->e, CC_NE, 0);
}

/* A source of the operation's width: a single must be boxed. */
static unsigned f_operand(struct jit_tr *t, unsigned r, unsigned tmp, bool single)
{
    unsigned x = f_src(t, r, tmp);
    if (single && !(t->fp_now.boxed >> r & 1)) {
        jit_cold_leave(t, not_boxed(t, x));             /* so that what follows may take it for boxed */
        t->fp_now.boxed |= 1u << r;
    }
    return x;
}

/* What a NaN that a fused operation gives may have come from: zero times infinity raises NV whatever is added (F extension, FMA). */
struct multiplicands { unsigned a, b; };

/* Accepts a result in xmm; a NaN is replaced there. @m: NULL, unless the operation is fused. */
static void accept(struct jit_tr *t, const struct rv_insn *in, unsigned xmm, const struct multiplicands *m)
{
    bool single = jit_fp_single(in);
    x86_rr(&t->e, single ? X_UCOMISS : X_UCOMISD, false, xmm, xmm);
    struct jit_cold *c = jit_cold(t, COLD_NAN, x86_jcc(&t->e, CC_P, 0));
    c->back = emit_here(&t->e);
    c->arg = xmm;
    c->variant = single;
    c->done = (int16_t)(m ? m->a << 4 | m->b : 0);
    f_put(t, in->rd, xmm);
}

/* The host does not raise NV where the addend is a quiet NaN; to multiply by zero raises no other flag. */
static void multiply_zero(struct emit *e, unsigned a, unsigned b, bool single)
{
    unsigned compare = single ? X_UCOMISS : X_UCOMISD;
    x86_rr(e, X_XORPS, false, X0, X0);
    x86_rr(e, compare, false, a, X0);
    uint8_t *zero = x86_jcc(e, CC_E, 0);
    x86_rr(e, compare, false, b, X0);
    uint8_t *neither = x86_jcc(e, CC_NE, 0);
    x86_patch(e, zero, emit_here(e));
    x86_vex_rrr(e, 1, single ? PP_S : PP_D, 0x59, false, X0, a, b);
    x86_patch(e, neither, emit_here(e));
}

void jit_fp_nan(struct jit_tr *t, const struct jit_cold *c)
{
    if (c->done)
        multiply_zero(&t->e, (unsigned)c->done >> 4, c->done & 15, c->variant);
    x86_rx(&t->e, X_MOVSD, false, c->arg, RSP, 0, constant(t, c->variant ? JIT_NAN_S : JIT_NAN_D));
    x86_jmp(&t->e, c->back);
}

static void arith(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool single)
{
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single), d = f_dst(in->rd, X0);
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, op, false, d, a, b);
    accept(t, in, d, NULL);
}

static void square_root(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    unsigned a = f_operand(t, in->rs1, X1, single), d = f_dst(in->rd, X0);
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, 0x51, false, d, a, a);
    accept(t, in, d, NULL);
}

/*
 * @op: 231 forms, d = a * b + d: b9 fmadd, bb fmsub, bd fnmadd (-(a*b) + d), bf fnmsub. Where the result takes the place of a
 * multiplicand, 213 forms, d = b * d + c; it is kept, should the result be a NaN.
 */
static void fused(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool single)
{
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single), c = f_operand(t, in->rs3, X0, single);
    unsigned d = f_dst(in->rd, X0);
    if (d == a || d == b) {
        unsigned other = d == a ? b : a, kept = d == a ? X1 : X2;
        move(t, kept, d);
        x86_vex_rrr(&t->e, 2, 1, op - 0x10, !single, d, other, c);
        a = kept;
        b = other == d ? kept : other;
    } else {
        move(t, d, c);
        x86_vex_rrr(&t->e, 2, 1, op, !single, d, a, b);
    }
    accept(t, in, d, &(struct multiplicands){ a, b });
}

/* min: or of both orders, max: and: they differ for zeros of unlike signs only. */
static void min_max(struct jit_tr *t, const struct rv_insn *in, bool max, bool single)
{
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single), op = max ? 0x5f : 0x5d;
    x86_rr(&t->e, single ? X_UCOMISS : X_UCOMISD, false, a, b);
    jit_cold_slow(t, x86_jcc(&t->e, CC_P, 0));
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, op, false, X0, a, b);
    x86_vex_rrr(&t->e, 1, single ? PP_S : PP_D, op, false, X1, b, a);
    x86_rr(&t->e, max ? X_ANDPS : X_ORPS, false, X0, X1);
    f_put(t, in->rd, X0);
}

enum { SGNJ, SGNJN, SGNJX };

/* Both operands are one: a move, a negation, an absolute value. */
static void sign_of_itself(struct jit_tr *t, const struct rv_insn *in, unsigned kind, bool single)
{
    unsigned d = f_dst(in->rd, X0);
    move(t, d, f_operand(t, in->rs1, X0, single));
    if (kind == SGNJN)
        with_const(t, X_XORPS, d, single ? JIT_SIGN_S : JIT_SIGN_D);
    else if (kind == SGNJX)
        with_const(t, X_ANDPS, d, single ? JIT_MAG_S : JIT_MAG_D);
    f_put(t, in->rd, d);
}

static void sign(struct jit_tr *t, const struct rv_insn *in, unsigned kind, bool single)
{
    enum jit_const sign = single ? JIT_SIGN_S : JIT_SIGN_D, mag = single ? JIT_MAG_S : JIT_MAG_D;
    if (in->rs1 == in->rs2) {
        sign_of_itself(t, in, kind, single);
        return;
    }
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single);
    move(t, X0, b);
    with_const(t, X_ANDPS, X0, sign);
    if (kind == SGNJN)
        with_const(t, X_XORPS, X0, sign);
    move(t, X1, a);
    if (kind != SGNJX)
        with_const(t, X_ANDPS, X1, mag);
    x86_rr(&t->e, kind == SGNJX ? X_XORPS : X_ORPS, false, X0, X1);
    f_put(t, in->rd, X0);
}

/* Whether the next instruction puts back the flags that were there before. */
static bool flags_return(const struct jit_tr *t) { return t->i + 1 < t->n && t->puts_back[t->i + 1]; }

/*
 * flt, fle: b above (or not below) a, which is false for NaNs; these raise NV, as comisd does. Where the flags are put back, none may be
 * raised: NaNs are then left to the handlers of both instructions.
 */
static void compare(struct jit_tr *t, const struct rv_insn *in, unsigned cc, bool quiet, bool single)
{
    struct emit *e = &t->e;
    unsigned a = f_operand(t, in->rs1, X1, single), b = f_operand(t, in->rs2, X2, single);
    unsigned op = quiet ? (single ? X_UCOMISS : X_UCOMISD) : (single ? X_COMISS : X_COMISD);
    x86_rr(e, op, false, b, a);
    if (flags_return(t))
        t->unordered = x86_jcc(e, CC_P, 0);
    else if (cc == CC_E)
        x86_setcc(e, CC_NP, RCX);
    x86_setcc(e, cc, RAX);
    if (cc == CC_E && !flags_return(t))
        x86_rr(e, X_AND, false, RAX, RCX);
    x_put(t, in->rd, RAX);
}

/* Out of range, the host gives the most negative integer: less 1, that overflows. */
static void to_int(struct jit_tr *t, const struct rv_insn *in, bool w, bool single)
{
    unsigned a = f_operand(t, in->rs1, X1, single);
    x86_rr(&t->e, (in->rm == RM_RTZ ? X_CVTTSD2SI : X_CVTSD2SI) ^ (single ? X_SINGLE : 0), w, RAX, a);
    x86_ri(&t->e, G_CMP, w, RAX, 1);
    jit_cold_slow(t, x86_jcc(&t->e, CC_O, 0));
    if (!w)
        x86_rr(&t->e, X_MOVSXD, true, RAX, RAX);
    x_put(t, in->rd, RAX);
}

/* Truncation to 32 bits unsigned of what lies between -1 and 2^32. */
static void to_wu(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    unsigned a = f_operand(t, in->rs1, X1, single);
    with_const(t, single ? X_UCOMISS : X_UCOMISD, a, single ? JIT_MINUS1_S : JIT_MINUS1_D);
    jit_cold_slow(t, x86_jcc(&t->e, CC_BE, 0));
    with_const(t, single ? X_UCOMISS : X_UCOMISD, a, single ? JIT_2E32_S : JIT_2E32_D);
    jit_cold_slow(t, x86_jcc(&t->e, CC_AE, 0));
    x86_rr(&t->e, X_CVTTSD2SI ^ (single ? X_SINGLE : 0), true, RAX, a);
    x86_rr(&t->e, X_MOVSXD, true, RAX, RAX);
    x_put(t, in->rd, RAX);
}

/* @kind: 0 w, 1 wu, 2 l, 3 lu: bits 20 and 21 of the instruction. */
static void from_int(struct jit_tr *t, const struct rv_insn *in, unsigned kind, bool single)
{
    unsigned r = jit_src(t, in->rs1, RAX), d = f_dst(in->rd, X0);
    if (kind == 1) {
        x86_rr(&t->e, X_MOV, false, RAX, r);
        r = RAX;
    } else if (kind == 3) {
        x86_rr(&t->e, X_TEST, true, r, r);
        jit_cold_slow(t, x86_jcc(&t->e, CC_S, 0));
    }
    x86_rr(&t->e, X_XORPS, false, d, d);
    x86_rr(&t->e, X_CVTSI2SD ^ (single ? X_SINGLE : 0), kind != 0, d, r);
    if (single)
        with_const(t, X_ORPS, d, JIT_BOX);
    f_put(t, in->rd, d);
}

static void narrow(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned a = f_src(t, in->rs1, X1), d = f_dst(in->rd, X0);
    x86_vex_rrr(&t->e, 1, PP_D, 0x5a, false, d, a, a);
    with_const(t, X_ORPS, d, JIT_BOX);
    accept(t, in, d, NULL);
}

static void widen(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned a = f_operand(t, in->rs1, X1, true), d = f_dst(in->rd, X0);
    x86_vex_rrr(&t->e, 1, PP_S, 0x5a, false, d, a, a);
    accept(t, in, d, NULL);
}

static void to_x(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    x86_rr(&t->e, X_MOVQ_TO, !single, f_src(t, in->rs1, X1), d);
    if (single)
        x86_rr(&t->e, X_MOVSXD, true, d, d);
    x_put(t, in->rd, d);
}

static void from_x(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    unsigned d = f_dst(in->rd, X0);
    x86_rr(&t->e, X_MOVQ_X, !single, d, jit_src(t, in->rs1, RAX));
    if (single)
        with_const(t, X_ORPS, d, JIT_BOX);
    f_put(t, in->rd, d);
}

static void load(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    jit_address(t, in, single ? 4 : 8, false);
    unsigned d = f_dst(in->rd, X0);
    jit_mem(t, single ? X_MOVSS : X_MOVSD, false, d);
    if (single)
        with_const(t, X_ORPS, d, JIT_BOX);
    f_put(t, in->rd, d);
}

static void store(struct jit_tr *t, const struct rv_insn *in, bool single)
{
    jit_address(t, in, single ? 4 : 8, true);
    jit_mem(t, single ? X_MOVSS_TO : X_MOVSD_TO, false, f_src(t, in->rs2, X0));
}

#define BOTH(id) case RV_OP_##id##_S: case RV_OP_##id##_D

bool jit_emit_fp(struct jit_tr *t, const struct rv_insn *in)
{
    bool s = jit_fp_single(in);
    if (!jit_fp_native(t, in))
        return false;
    switch (in->op) {
    BOTH(FADD): arith(t, in, 0x58, s); break;
    BOTH(FSUB): arith(t, in, 0x5c, s); break;
    BOTH(FMUL): arith(t, in, 0x59, s); break;
    BOTH(FDIV): arith(t, in, 0x5e, s); break;
    BOTH(FSQRT): square_root(t, in, s); break;
    BOTH(FMADD): fused(t, in, 0xb9, s); break;
    BOTH(FMSUB): fused(t, in, 0xbb, s); break;
    BOTH(FNMSUB): fused(t, in, 0xbd, s); break;
    BOTH(FNMADD): fused(t, in, 0xbf, s); break;
    BOTH(FMIN): min_max(t, in, false, s); break;
    BOTH(FMAX): min_max(t, in, true, s); break;
    BOTH(FSGNJ): sign(t, in, SGNJ, s); break;
    BOTH(FSGNJN): sign(t, in, SGNJN, s); break;
    BOTH(FSGNJX): sign(t, in, SGNJX, s); break;
    BOTH(FEQ): compare(t, in, CC_E, true, s); break;
    BOTH(FLT): compare(t, in, CC_A, false, s); break;
    BOTH(FLE): compare(t, in, CC_AE, false, s); break;
    BOTH(FCVT_W): to_int(t, in, false, s); break;
    BOTH(FCVT_L): to_int(t, in, true, s); break;
    BOTH(FCVT_WU): to_wu(t, in, s); break;
    case RV_OP_FCVT_S_D: narrow(t, in); break;
    case RV_OP_FCVT_D_S: widen(t, in); break;
    case RV_OP_FMV_X_D: case RV_OP_FMV_X_W: to_x(t, in, s); break;
    case RV_OP_FMV_D_X: case RV_OP_FMV_W_X: from_x(t, in, s); break;
    case RV_OP_FLW: case RV_OP_FLD: load(t, in, in->op == RV_OP_FLW); break;
    case RV_OP_FSW: case RV_OP_FSD: store(t, in, in->op == RV_OP_FSW); break;
    default: from_int(t, in, rv_insn_rows[in->op].match >> 20 & 3, s); break;
    }
    return true;
}

void jit_fp_assume(struct jit_tr *t)
{
    for (uint32_t m = t->assumed; m; m &= m - 1)
        jit_exit_alone(t, not_boxed(t, f_src(t, (unsigned)__builtin_ctz(m), X0)));
}
