/* SPDX-License-Identifier: MIT */
/*
 * Floating point of a block, before code is made of it: which instructions the host does, what is known of the registers where ways
 * meet, and comparisons whose flags are put back.
 */
#include "cpu/riscv/fpu.h"
#include "cpu/riscv/jit_int.h"

#define BOTH(id) case RV_OP_##id##_S: case RV_OP_##id##_D
enum { CSR_FFLAGS = 1 };

static uint32_t bit(unsigned r) { return 1u << (r & 31); }

bool jit_fp_single(const struct rv_insn *in) { return !(rv_insn_rows[in->op].match >> 25 & 1); }

/* ---- what the host does ---- */

/* Whether the mode in force is the instruction's. */
static bool rounds_as_host(const struct jit_tr *t, const struct rv_insn *in)
{
    return in->rm == RM_DYN || (in->rm == RM_RNE && t->fp == JIT_FP_RNE);
}

/* Of an exact result, which no mode changes. */
static bool mode_exists(const struct rv_insn *in) { return in->rm <= RM_RMM || in->rm == RM_DYN; }

bool jit_fp_native(const struct jit_tr *t, const struct rv_insn *in)
{
    if (t->fp == JIT_FP_SLOW)
        return false;
    switch (in->op) {
    BOTH(FADD): BOTH(FSUB): BOTH(FMUL): BOTH(FDIV): BOTH(FSQRT): BOTH(FMADD): BOTH(FMSUB): BOTH(FNMSUB): BOTH(FNMADD):
    case RV_OP_FCVT_S_D: case RV_OP_FCVT_S_W: case RV_OP_FCVT_S_WU: case RV_OP_FCVT_S_L: case RV_OP_FCVT_S_LU:
    case RV_OP_FCVT_D_L: case RV_OP_FCVT_D_LU:
        return rounds_as_host(t, in);
    case RV_OP_FCVT_D_S: case RV_OP_FCVT_D_W: case RV_OP_FCVT_D_WU:
        return mode_exists(in);
    BOTH(FMIN): BOTH(FMAX): BOTH(FSGNJ): BOTH(FSGNJN): BOTH(FSGNJX):
    case RV_OP_FMV_D_X: case RV_OP_FMV_W_X: case RV_OP_FLW: case RV_OP_FLD: case RV_OP_FSW: case RV_OP_FSD:
        return true;
    BOTH(FEQ): BOTH(FLT): BOTH(FLE):
    case RV_OP_FMV_X_D: case RV_OP_FMV_X_W:
        return in->rd != 32;                /* x0: only the flags are wanted */
    BOTH(FCVT_W): BOTH(FCVT_L):
        return in->rd != 32 && (in->rm == RM_RTZ || rounds_as_host(t, in));
    BOTH(FCVT_WU):
        return in->rd != 32 && in->rm == RM_RTZ;
    default:
        return false;
    }
}

/* ---- what is known ---- */

/* The floating-point registers that a native instruction takes for numbers of its format. */
static uint32_t operands(const struct rv_insn *in)
{
    switch (rv_insn_rows[in->op].fmt) {
    case RV_FMT_R4: return bit(in->rs1) | bit(in->rs2) | bit(in->rs3);
    case RV_FMT_FRM: case RV_FMT_FR: case RV_FMT_FCMP: return bit(in->rs1) | bit(in->rs2);
    case RV_FMT_FRM1: case RV_FMT_F2X: return bit(in->rs1);
    default: return 0;
    }
}

/* Those that have to be boxed singles. */
static uint32_t singles_read(const struct rv_insn *in)
{
    bool single = in->op == RV_OP_FCVT_D_S || (jit_fp_single(in) && in->op != RV_OP_FCVT_S_D);
    return single ? operands(in) : 0;
}

static uint32_t writes_f(const struct rv_insn *in)
{
    switch (rv_insn_rows[in->op].fmt) {
    case RV_FMT_R4: case RV_FMT_FRM: case RV_FMT_FRM1: case RV_FMT_FR: case RV_FMT_X2F: case RV_FMT_XF: case RV_FMT_FLD: case RV_FMT_FLI:
        return bit(in->rd);
    default:
        return 0;
    }
}

/* Whether what a native instruction writes to a floating-point register is a boxed single. */
static bool makes_single(const struct rv_insn *in)
{
    return rv_insn_rows[in->op].fmt == RV_FMT_FLD ? in->op == RV_OP_FLW : jit_fp_single(in);
}

void jit_fp_learn(const struct jit_tr *t, unsigned i, struct jit_fp_known *k)
{
    const struct rv_insn *in = &t->insn[i].in;
    unsigned f = rv_insn_rows[in->op].fmt;
    uint32_t w = writes_f(in);
    if (jit_fp_native(t, in)) {
        k->boxed |= singles_read(in);
        k->boxed = makes_single(in) ? k->boxed | w : k->boxed & ~w;
        k->dirty = k->dirty || f != RV_FMT_FST;
    } else {
        k->boxed &= ~w;
        k->dirty = k->dirty && ((f != RV_FMT_CSR && f != RV_FMT_CSRI) || in->imm == CSR_FFLAGS);    /* mstatus may be written */
    }
}

static bool meet(struct jit_fp_known *at, struct jit_fp_known k)
{
    struct jit_fp_known was = *at;
    at->boxed &= k.boxed;
    at->dirty = at->dirty && k.dirty;
    return at->boxed != was.boxed || at->dirty != was.dirty;
}

/* What is known at each label, whichever way it is reached: until nothing more has to be given up. */
static void meet_at_labels(struct jit_tr *t)
{
    for (unsigned i = 0; i < t->n; i++)
        t->fp_at[i] = (struct jit_fp_known){ UINT32_MAX, true };
    for (bool again = true; again; ) {
        struct jit_fp_known k = { .boxed = t->assumed };
        again = false;
        for (unsigned i = 0; i < t->n; i++) {
            if (t->label[i]) {
                again = meet(&t->fp_at[i], k) || again;
                k = t->fp_at[i];
            }
            jit_fp_learn(t, i, &k);
            if (t->target[i] >= 0)
                again = meet(&t->fp_at[t->target[i]], k) || again;
        }
        if (t->close >= 0)
            again = meet(&t->fp_at[t->close], k) || again;
    }
}

/* Whether each round of the loop from @first to @last comes to instruction @i. */
static bool in_every_round(const struct jit_tr *t, unsigned first, unsigned last, unsigned i)
{
    for (unsigned k = first; k < i; k++)
        if (t->target[k] > (int)i && t->target[k] <= (int)last)
            return false;
    return true;
}

/* Registers that each round of a loop reads as singles before the block writes them, and that nothing here takes for anything else. */
static uint32_t worth_assuming(const struct jit_tr *t)
{
    uint32_t wanted = 0, written = 0, other = 0;
    for (unsigned i = 0; i < t->n; i++) {
        const struct rv_insn *in = &t->insn[i].in;
        unsigned first, last;
        uint32_t s = singles_read(in), w = writes_f(in);
        bool native = jit_fp_native(t, in);
        if (native && s & ~written && jit_loop_around(t, i, &first, &last) && in_every_round(t, first, last, i))
            wanted |= s & ~written;
        written |= w;
        other |= (native && makes_single(in) ? 0 : w) | (operands(in) & ~s) | (in->op == RV_OP_FSD ? bit(in->rs2) : 0);
    }
    return wanted & ~other;
}

/* ---- flags that are put back ---- */

/*
 * frflags r; a comparison; fsflags r: a quiet comparison, as compilers write it. Where no operand is a NaN, no flag changes, and
 * nothing has to be put back.
 */
static bool puts_back(const struct jit_tr *t, unsigned i)
{
    if (i < 2 || t->label[i] || t->label[i - 1] || !rv_has(t->h, RV_EXT_F))
        return false;
    const struct rv_insn *get = &t->insn[i - 2].in, *compare = &t->insn[i - 1].in, *put = &t->insn[i].in;
    return get->op == RV_OP_CSRRS && get->imm == CSR_FFLAGS && !get->rs1 && rv_insn_rows[compare->op].fmt == RV_FMT_FCMP &&
           jit_fp_native(t, compare) && put->op == RV_OP_CSRRW && put->imm == CSR_FFLAGS && put->rd == 32 && put->rs1 &&
           put->rs1 == get->rd && compare->rd != put->rs1;
}

void jit_plan_fp(struct jit_tr *t)
{
    if (t->fp == JIT_FP_SLOW)
        return;
    if (t->loops)
        t->assumed = worth_assuming(t);
    meet_at_labels(t);
    for (unsigned i = 0; i < t->n; i++)
        t->puts_back[i] = puts_back(t, i);
    t->fp_now.boxed = t->assumed;
}
