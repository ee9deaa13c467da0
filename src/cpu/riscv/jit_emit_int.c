/* SPDX-License-Identifier: MIT */
/* Integer instructions, branches and jumps in x86-64 code. */
#include "cpu/riscv/jit_int.h"

/* @to = @from, sign-extended from 32 bits where that matters. */
static void extend(struct jit_tr *t, unsigned to, unsigned from)
{
    if (!t->low[t->i])
        x86_rr(&t->e, X_MOVSXD, true, to, from);
    else if (to != from)
        x86_rr(&t->e, X_MOV, false, to, from);
}

/* The immediate may be written into rd before rs1 is read only if they differ. */
static void move_op_imm(struct jit_tr *t, const struct rv_insn *in, unsigned group, bool w)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    jit_get(t, d, in->rs1);
    x86_ri(&t->e, group, w, d, in->imm);
    if (!w || t->widen)
        extend(t, d, d);
    jit_put(t, in->rd, d);
}

static void add_imm(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    if (!in->rs1) {
        if (d == RAX)
            x86_mov_mi(&t->e, RBP, JIT_X(in->rd), in->imm);
        else
            x86_mov_imm(&t->e, d, (uint64_t)(int64_t)in->imm);
        return;
    }
    if (in->rd == in->rs1 && t->now.reg[in->rd] < 0 && !t->widen) {
        if (in->imm)
            x86_mi(&t->e, G_ADD, true, RBP, JIT_X(in->rd), in->imm);
        return;
    }
    unsigned s = jit_src(t, in->rs1, d);
    if (!in->imm && !t->widen) {            /* mv */
        jit_put(t, in->rd, s);
        return;
    }
    if (!in->imm)
        x86_rr(&t->e, X_MOVSXD, true, d, s);
    else if (s == d)
        x86_ri(&t->e, G_ADD, true, d, in->imm);
    else
        x86_rm(&t->e, X_LEA, true, d, s, in->imm);
    jit_put(t, in->rd, d);
}

/* addiw; with 0 that is sext.w. */
static void add_imm_word(struct jit_tr *t, const struct rv_insn *in)
{
    if (in->imm && t->low[t->i]) {
        add_imm(t, in);
        return;
    }
    if (in->imm) {
        move_op_imm(t, in, G_ADD, false);
        return;
    }
    unsigned d = jit_dst(t, in->rd, RAX);
    if (in->rs1)
        jit_op(t, t->low[t->i] ? X_MOV : X_MOVSXD, !t->low[t->i], d, in->rs1);
    else
        x86_rr(&t->e, X_XOR, false, d, d);
    jit_put(t, in->rd, d);
}

/* andi; with 255 that is zext.b. A mask that is not negative clears bits 31 and up. */
static void and_imm(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    if (in->imm == 255) {
        jit_op(t, X_MOVZX8, false, d, in->rs1);
    } else {
        jit_get(t, d, in->rs1);
        x86_ri(&t->e, G_AND, in->imm < 0, d, in->imm);
        if (t->widen)
            extend(t, d, d);
    }
    jit_put(t, in->rd, d);
}

/* addw, subw and the like: 32 bits, sign-extended. */
static void two_ops(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool w, bool commutes)
{
    unsigned d = jit_dst(t, in->rd, RAX), a = in->rs1, b = in->rs2;
    if (commutes && in->rd == b && a != b) {
        a = in->rs2;
        b = in->rs1;
    }
    if (in->rd == b && a != b && d != RAX)
        d = RAX;                            /* b is needed after a was moved */
    jit_get(t, d, a);
    jit_op(t, op, w, d, b);
    if (!w || t->widen)
        extend(t, jit_dst(t, in->rd, d), d), d = jit_dst(t, in->rd, d);
    jit_put(t, in->rd, d);
}

static void add_regs(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    if (!in->rs1 || !in->rs2)               /* mv */
        jit_put(t, in->rd, jit_src(t, in->rs1 | in->rs2, d));
    else if (d != RAX && in->rd != in->rs1 && in->rd != in->rs2 && t->now.reg[in->rs1] >= 0 && t->now.reg[in->rs2] >= 0)
        x86_rmx(&t->e, X_LEA, true, d, (unsigned)t->now.reg[in->rs1], (unsigned)t->now.reg[in->rs2], 0, 0);
    else
        two_ops(t, in, X_ADD, true, true);
}

static void shift_imm(struct jit_tr *t, const struct rv_insn *in, unsigned group, bool w)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    jit_get(t, d, in->rs1);
    x86_shift_i(&t->e, group, w, d, (unsigned)in->imm);
    if (!w && (group != G_SHR || !in->imm))     /* else bit 31 is clear, and so is the upper half */
        extend(t, d, d);
    jit_put(t, in->rd, d);
}

/* shlx (pp 1), sarx (2), shrx (3). */
static void shift_reg(struct jit_tr *t, const struct rv_insn *in, unsigned pp, bool w)
{
    unsigned a = jit_src(t, in->rs1, RAX), n = jit_src(t, in->rs2, RCX), d = jit_dst(t, in->rd, RAX);
    x86_vex_rrr(&t->e, 2, pp, 0xf7, w, d, n, a);
    if (!w)
        extend(t, d, d);
    jit_put(t, in->rd, d);
}

/* rorx: the source stays. */
static void rotate_imm(struct jit_tr *t, const struct rv_insn *in, bool w)
{
    unsigned a = jit_src(t, in->rs1, RAX), d = jit_dst(t, in->rd, RAX);
    x86_rorx(&t->e, w, d, a, (unsigned)in->imm);
    if (!w)
        extend(t, d, d);
    jit_put(t, in->rd, d);
}

static void rotate_reg(struct jit_tr *t, const struct rv_insn *in, unsigned group, bool w)
{
    jit_get(t, RCX, in->rs2);
    jit_get(t, RAX, in->rs1);
    x86_shift_cl(&t->e, group, w, RAX);
    if (!w)
        extend(t, RAX, RAX);
    jit_put(t, in->rd, RAX);
}

static void compare(struct jit_tr *t, unsigned a, unsigned b, bool w)
{
    if (b)
        jit_op(t, X_CMP, w, jit_src(t, a, RAX), b);
    else if (t->now.reg[a] >= 0)
        x86_rr(&t->e, X_TEST, w, (unsigned)t->now.reg[a], (unsigned)t->now.reg[a]);
    else
        x86_mi(&t->e, G_CMP, w, RBP, JIT_X(a), 0);
}

/* Words compare as their lower halves do, with a sign and without. */
static void compare_sources(struct jit_tr *t, const struct rv_insn *in) { compare(t, in->rs1, in->rs2, !t->words[t->i]); }

/* Clears rd before a comparison that it is to hold the outcome of; false: it is compared itself, or lives in memory. */
static bool clear_flag(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    bool clear = d != RAX && in->rd != in->rs1 && in->rd != in->rs2;
    if (clear)
        x86_rr(&t->e, X_XOR, false, d, d);
    return clear;
}

/* rd = 1 where @cc holds, else 0. */
static void set_flag(struct jit_tr *t, const struct rv_insn *in, unsigned cc, bool cleared)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    x86_setcc8(&t->e, cc, cleared ? d : RAX);
    if (!cleared)
        x86_rr(&t->e, X_MOVZX8, false, d, RAX);
    jit_put(t, in->rd, d);
}

/* compare() leaves carry clear where the second is x0, as cmp with 0 would. */
static void set_less(struct jit_tr *t, const struct rv_insn *in, unsigned cc)
{
    bool cleared = clear_flag(t, in);
    compare_sources(t, in);
    set_flag(t, in, cc, cleared);
}

static void set_less_imm(struct jit_tr *t, const struct rv_insn *in, unsigned cc)
{
    bool cleared = clear_flag(t, in);
    if (t->now.reg[in->rs1] >= 0)
        x86_ri(&t->e, G_CMP, !t->words[t->i], (unsigned)t->now.reg[in->rs1], in->imm);
    else
        x86_mi(&t->e, G_CMP, !t->words[t->i], RBP, JIT_X(in->rs1), in->imm);
    set_flag(t, in, cc, cleared);
}

/* ---- multiplication and division ---- */

static void multiply_high(struct jit_tr *t, const struct rv_insn *in)
{
    jit_get(t, RAX, in->rs1);
    unsigned b = jit_src(t, in->rs2, RCX);
    x86_f7(&t->e, G_IMUL, true, b);
    jit_put(t, in->rd, RDX);
}

/* mulx: rdx times an operand; the lower half goes to rax. */
static void multiply_high_u(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned d = jit_dst(t, in->rd, RCX);
    jit_get(t, RDX, in->rs1);
    x86_vex_rrr(&t->e, 2, 3, 0xf6, true, d, RAX, jit_src(t, in->rs2, RCX));
    jit_put(t, in->rd, d);
}

/* mulhsu: the unsigned high product, less b where a is negative. */
static void multiply_high_su(struct jit_tr *t, const struct rv_insn *in)
{
    jit_get(t, RAX, in->rs1);
    jit_get(t, RCX, in->rs2);
    x86_f7(&t->e, G_MUL, true, RCX);
    jit_get(t, RAX, in->rs1);
    x86_shift_i(&t->e, G_SAR, true, RAX, 63);
    x86_rr(&t->e, X_AND, true, RAX, RCX);
    x86_rr(&t->e, X_SUB, true, RDX, RAX);
    jit_put(t, in->rd, RDX);
}

/* Division by 0 gives all ones and the dividend; the most negative by -1 must not reach idiv. */
static void divide(struct jit_tr *t, const struct rv_insn *in, bool is_signed, bool rem, bool w)
{
    struct emit *e = &t->e;
    uint8_t *minus = NULL;
    jit_get(t, RAX, in->rs1);
    jit_get(t, RCX, in->rs2);
    x86_rr(e, X_TEST, w, RCX, RCX);
    uint8_t *zero = x86_jcc(e, CC_E, 0);
    if (is_signed) {
        x86_ri(e, G_CMP, w, RCX, -1);
        minus = x86_jcc(e, CC_E, 0);
        if (w)
            emit_8(e, 0x48);
        emit_8(e, 0x99);                    /* cdq, cqo */
    } else {
        x86_rr(e, X_XOR, false, RDX, RDX);
    }
    x86_f7(e, is_signed ? G_IDIV : G_DIV, w, RCX);
    uint8_t *end = x86_jmp(e, 0), *end2 = NULL;
    if (minus) {
        x86_patch(e, minus, emit_here(e));
        x86_f7(e, G_NEG, w, RAX);
        x86_rr(e, X_XOR, false, RDX, RDX);
        end2 = x86_jmp(e, 0);
    }
    x86_patch(e, zero, emit_here(e));
    x86_rr(e, X_MOV, true, RDX, RAX);
    x86_mov_imm(e, RAX, UINT64_MAX);
    x86_patch(e, end, emit_here(e));
    if (end2)
        x86_patch(e, end2, emit_here(e));
    unsigned r = rem ? RDX : RAX;
    if (!w)
        extend(t, r, r);
    jit_put(t, in->rd, r);
}

/* ---- Zba, Zbb, Zbs, Zicond ---- */

/* rs1, shifted, + rs2 + imm, which is 0 but for jit_opt.c. */
static void shift_add(struct jit_tr *t, const struct rv_insn *in, unsigned n, bool uw)
{
    unsigned a = RAX, d = jit_dst(t, in->rd, RAX);
    if (uw)
        jit_op(t, X_MOV, false, RAX, in->rs1);
    else
        a = jit_src(t, in->rs1, RAX);
    if (in->rs2)
        x86_rmx(&t->e, X_LEA, true, d, jit_src(t, in->rs2, RCX), a, n, in->imm);
    else
        x86_rx(&t->e, X_LEA, true, d, a, n, (uint32_t)in->imm);
    jit_put(t, in->rd, d);
}

/* zext.w, shifted left. */
static void zero_extend(struct jit_tr *t, const struct rv_insn *in, unsigned n)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    jit_op(t, X_MOV, false, d, in->rs1);
    x86_shift_i(&t->e, G_SHL, true, d, n);
    jit_put(t, in->rd, d);
}

/* andn, orn, xnor: with the complement of rs2. */
static void with_not(struct jit_tr *t, const struct rv_insn *in, unsigned op)
{
    jit_get(t, RAX, in->rs2);
    x86_f7(&t->e, G_NOT, true, RAX);
    jit_op(t, op, true, RAX, in->rs1);
    if (t->widen)
        extend(t, RAX, RAX);
    jit_put(t, in->rd, RAX);
}

/* orc.b: all ones for each byte that is not 0. */
static void or_bytes(struct jit_tr *t, const struct rv_insn *in)
{
    x86_rr(&t->e, X_MOVQ_X, true, 0, jit_src(t, in->rs1, RAX));
    x86_rr(&t->e, X_XORPS, false, 1, 1);
    x86_rr(&t->e, X_PCMPEQB, false, 0, 1);
    x86_rr(&t->e, X_MOVQ_TO, true, 0, RAX);
    x86_f7(&t->e, G_NOT, true, RAX);
    jit_put(t, in->rd, RAX);
}

static void one_op(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool w)
{
    unsigned a = jit_src(t, in->rs1, RAX), d = jit_dst(t, in->rd, RAX);
    x86_rr(&t->e, op, w, d, a);
    jit_put(t, in->rd, d);
}

/* rd = rs1, or rs2 where cc holds for rs1 compared with rs2. */
static void select_by(struct jit_tr *t, const struct rv_insn *in, unsigned cc)
{
    jit_get(t, RAX, in->rs1);
    jit_get(t, RCX, in->rs2);
    x86_rr(&t->e, X_CMP, true, RAX, RCX);
    x86_rr(&t->e, X_CMOV | cc, true, RAX, RCX);
    jit_put(t, in->rd, RAX);
}

static void czero(struct jit_tr *t, const struct rv_insn *in, unsigned cc)
{
    jit_get(t, RAX, in->rs1);
    x86_rr(&t->e, X_XOR, false, RCX, RCX);
    compare(t, in->rs2, 0, true);
    x86_rr(&t->e, X_CMOV | cc, true, RAX, RCX);
    jit_put(t, in->rd, RAX);
}

/* bset, bclr, binv: the mask 1 << n in rcx. */
static void bit_reg(struct jit_tr *t, const struct rv_insn *in, unsigned op)
{
    unsigned n = jit_src(t, in->rs2, RCX);
    x86_mov_imm(&t->e, RAX, 1);
    x86_vex_rrr(&t->e, 2, 1, 0xf7, true, RCX, n, RAX);
    if (op == X_AND)
        x86_f7(&t->e, G_NOT, true, RCX);
    jit_op(t, op, true, RCX, in->rs1);
    jit_put(t, in->rd, RCX);
}

/* bts, btr, btc of a constant bit (group 0F BA). */
static void bit_imm(struct jit_tr *t, const struct rv_insn *in, unsigned digit)
{
    jit_get(t, RAX, in->rs1);
    emit_8(&t->e, 0x48);
    emit_8(&t->e, 0x0f);
    emit_8(&t->e, 0xba);
    emit_8(&t->e, 0xc0 | digit << 3);
    emit_8(&t->e, (unsigned)in->imm);
    jit_put(t, in->rd, RAX);
}

static void bit_extract(struct jit_tr *t, const struct rv_insn *in, bool imm)
{
    if (imm) {
        jit_get(t, RAX, in->rs1);
        x86_shift_i(&t->e, G_SHR, true, RAX, (unsigned)in->imm);
    } else {
        unsigned a = jit_src(t, in->rs1, RAX), n = jit_src(t, in->rs2, RCX);
        x86_vex_rrr(&t->e, 2, 3, 0xf7, true, RAX, n, a);
    }
    x86_ri(&t->e, G_AND, false, RAX, 1);
    jit_put(t, in->rd, RAX);
}

static bool emit_bits(struct jit_tr *t, const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_SH1ADD: shift_add(t, in, 1, false); return true;
    case RV_OP_SH2ADD: shift_add(t, in, 2, false); return true;
    case RV_OP_SH3ADD: shift_add(t, in, 3, false); return true;
    case RV_OP_ADD_UW:
        if (in->rs2)
            shift_add(t, in, 0, true);
        else
            zero_extend(t, in, 0);
        return true;
    case RV_OP_SH1ADD_UW: shift_add(t, in, 1, true); return true;
    case RV_OP_SH2ADD_UW: shift_add(t, in, 2, true); return true;
    case RV_OP_SH3ADD_UW: shift_add(t, in, 3, true); return true;
    case RV_OP_SLLI_UW: zero_extend(t, in, (unsigned)in->imm); return true;
    case RV_OP_ANDN: with_not(t, in, X_AND); return true;
    case RV_OP_ORN: with_not(t, in, X_OR); return true;
    case RV_OP_XNOR: with_not(t, in, X_XOR); return true;
    case RV_OP_CLZ: one_op(t, in, X_LZCNT, true); return true;
    case RV_OP_CTZ: one_op(t, in, X_TZCNT, true); return true;
    case RV_OP_CPOP: one_op(t, in, X_POPCNT, true); return true;
    case RV_OP_CLZW: one_op(t, in, X_LZCNT, false); return true;
    case RV_OP_CTZW: one_op(t, in, X_TZCNT, false); return true;
    case RV_OP_CPOPW: one_op(t, in, X_POPCNT, false); return true;
    case RV_OP_SEXT_B: one_op(t, in, X_MOVSX8, true); return true;
    case RV_OP_SEXT_H: one_op(t, in, X_MOVSX16, true); return true;
    case RV_OP_ZEXT_H: one_op(t, in, X_MOVZX16, false); return true;
    case RV_OP_MAX: select_by(t, in, CC_L); return true;
    case RV_OP_MAXU: select_by(t, in, CC_B); return true;
    case RV_OP_MIN: select_by(t, in, CC_G); return true;
    case RV_OP_MINU: select_by(t, in, CC_A); return true;
    case RV_OP_ROL: rotate_reg(t, in, G_ROL, true); return true;
    case RV_OP_ROR: rotate_reg(t, in, G_ROR, true); return true;
    case RV_OP_ROLW: rotate_reg(t, in, G_ROL, false); return true;
    case RV_OP_RORW: rotate_reg(t, in, G_ROR, false); return true;
    case RV_OP_RORI: rotate_imm(t, in, true); return true;
    case RV_OP_RORIW: rotate_imm(t, in, false); return true;
    case RV_OP_REV8:
        jit_get(t, RAX, in->rs1);
        x86_bswap(&t->e, RAX);
        jit_put(t, in->rd, RAX);
        return true;
    case RV_OP_ORC_B: or_bytes(t, in); return true;
    case RV_OP_BSET: bit_reg(t, in, X_OR); return true;
    case RV_OP_BCLR: bit_reg(t, in, X_AND); return true;
    case RV_OP_BINV: bit_reg(t, in, X_XOR); return true;
    case RV_OP_BEXT: bit_extract(t, in, false); return true;
    case RV_OP_BSETI: bit_imm(t, in, 5); return true;
    case RV_OP_BCLRI: bit_imm(t, in, 6); return true;
    case RV_OP_BINVI: bit_imm(t, in, 7); return true;
    case RV_OP_BEXTI: bit_extract(t, in, true); return true;
    case RV_OP_CZERO_EQZ: czero(t, in, CC_E); return true;
    case RV_OP_CZERO_NEZ: czero(t, in, CC_NE); return true;
    default: return false;
    }
}

/* ---- jumps ---- */

/* The link address, or any other address within reach of this page. */
static void page_address(struct jit_tr *t, unsigned host, int64_t off)
{
    x86_rm(&t->e, X_MOV, true, host, RBP, JIT_DISP(jit.vbase));
    if (off)
        x86_ri(&t->e, G_ADD, true, host, (int32_t)off);
}

static void set_address(struct jit_tr *t, unsigned rd, int64_t off)
{
    if (rd >= 32 || !rd)
        return;
    unsigned d = jit_dst(t, rd, RAX);
    page_address(t, d, off);
    jit_put(t, rd, d);
}

/* Without C, a jump to a half-aligned address traps, and the handler does that. */
static bool misaligned(const struct jit_tr *t, const struct rv_insn *in)
{
    return (in->imm & 2) && !rv_has(t->h, RV_EXT_C);
}

static bool branch(struct jit_tr *t, const struct rv_insn *in, unsigned cc)
{
    int64_t off = t->insn[t->i].off;
    int k = t->target[t->i];
    if (t->turned[t->i])
        cc ^= 1;
    if (k >= 0 && k <= (int)t->i) {             /* counted as if it were taken */
        jit_widen(t, (unsigned)k, t->arrive[k].narrow);
        jit_spend_loop(t, (unsigned)k, (unsigned)off, 1 - k);
        compare_sources(t, in);
        x86_jcc(&t->e, cc, t->at[k]);
        x86_rm(&t->e, X_LEA, false, R15, R15, (int32_t)(t->i + 1) - k);
        return true;
    }
    compare_sources(t, in);
    uint8_t *taken = x86_jcc(&t->e, cc, 0);
    if (misaligned(t, in) && !t->turned[t->i])
        jit_cold_slow(t, taken);
    else if (k >= 0)
        jit_jump_forward(t, taken, (unsigned)k);
    else
        jit_exit_cold(t, taken, jit_side(t, t->i), t->i + 1);
    return true;
}

static bool emit_jump(struct jit_tr *t, const struct rv_insn *in)
{
    int64_t off = t->insn[t->i].off;
    switch (in->op) {
    case RV_OP_BEQ: return branch(t, in, CC_E);
    case RV_OP_BNE: return branch(t, in, CC_NE);
    case RV_OP_BLT: return branch(t, in, CC_L);
    case RV_OP_BGE: return branch(t, in, CC_GE);
    case RV_OP_BLTU: return branch(t, in, CC_B);
    case RV_OP_BGEU: return branch(t, in, CC_AE);
    case RV_OP_JAL:
        if (misaligned(t, in))
            return false;
        set_address(t, in->rd, off + in->len);
        if (t->target[t->i] >= 0) {
            jit_jump_back(t, (unsigned)t->target[t->i]);
            t->ended = t->i + 1 == t->n;
        }
        return true;
    case RV_OP_JALR:
        if (!rv_has(t->h, RV_EXT_C))
            return false;
        jit_get(t, RAX, in->rs1);
        if (in->imm)
            x86_ri(&t->e, G_ADD, true, RAX, in->imm);
        x86_ri(&t->e, G_AND, true, RAX, -2);
        if (in->rd && in->rd < 32) {
            unsigned d = jit_dst(t, in->rd, RCX);
            page_address(t, d, off + in->len);
            jit_put(t, in->rd, d);
        }
        jit_exit_rax(t, t->i + 1);
        t->ended = true;
        return true;
    default:
        return false;
    }
}

static bool emit_muldiv(struct jit_tr *t, const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_MUL: two_ops(t, in, X_IMUL, true, true); return true;
    case RV_OP_MULW: two_ops(t, in, X_IMUL, false, true); return true;
    case RV_OP_MULH: multiply_high(t, in); return true;
    case RV_OP_MULHU: multiply_high_u(t, in); return true;
    case RV_OP_MULHSU: multiply_high_su(t, in); return true;
    case RV_OP_DIV: divide(t, in, true, false, true); return true;
    case RV_OP_DIVU: divide(t, in, false, false, true); return true;
    case RV_OP_REM: divide(t, in, true, true, true); return true;
    case RV_OP_REMU: divide(t, in, false, true, true); return true;
    case RV_OP_DIVW: divide(t, in, true, false, false); return true;
    case RV_OP_DIVUW: divide(t, in, false, false, false); return true;
    case RV_OP_REMW: divide(t, in, true, true, false); return true;
    case RV_OP_REMUW: divide(t, in, false, true, false); return true;
    default: return false;
    }
}

static bool emit_alu(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned d;
    switch (in->op) {
    case RV_OP_LUI:
        d = jit_dst(t, in->rd, RAX);
        if (d == RAX)
            x86_mov_mi(&t->e, RBP, JIT_X(in->rd), in->imm);
        else
            x86_mov_imm(&t->e, d, (uint64_t)(int64_t)in->imm);
        return true;
    case RV_OP_AUIPC: set_address(t, in->rd, (int64_t)t->insn[t->i].off + in->imm); return true;
    case RV_OP_ADDI: add_imm(t, in); return true;
    case RV_OP_ADDIW: add_imm_word(t, in); return true;
    case RV_OP_XORI: move_op_imm(t, in, G_XOR, true); return true;
    case RV_OP_ORI: move_op_imm(t, in, G_OR, true); return true;
    case RV_OP_ANDI: and_imm(t, in); return true;
    case RV_OP_SLTI: set_less_imm(t, in, CC_L); return true;
    case RV_OP_SLTIU: set_less_imm(t, in, CC_B); return true;
    case RV_OP_SLLI: shift_imm(t, in, G_SHL, true); return true;
    case RV_OP_SRLI: shift_imm(t, in, G_SHR, true); return true;
    case RV_OP_SRAI: shift_imm(t, in, G_SAR, true); return true;
    case RV_OP_SLLIW: shift_imm(t, in, G_SHL, false); return true;
    case RV_OP_SRLIW: shift_imm(t, in, G_SHR, false); return true;
    case RV_OP_SRAIW: shift_imm(t, in, G_SAR, false); return true;
    case RV_OP_ADD: add_regs(t, in); return true;
    case RV_OP_SUB: two_ops(t, in, X_SUB, true, false); return true;
    case RV_OP_ADDW: two_ops(t, in, X_ADD, false, true); return true;
    case RV_OP_SUBW: two_ops(t, in, X_SUB, false, false); return true;
    case RV_OP_XOR: two_ops(t, in, X_XOR, true, true); return true;
    case RV_OP_OR: two_ops(t, in, X_OR, true, true); return true;
    case RV_OP_AND: two_ops(t, in, X_AND, true, true); return true;
    case RV_OP_SLL: shift_reg(t, in, 1, true); return true;
    case RV_OP_SRL: shift_reg(t, in, 3, true); return true;
    case RV_OP_SRA: shift_reg(t, in, 2, true); return true;
    case RV_OP_SLLW: shift_reg(t, in, 1, false); return true;
    case RV_OP_SRLW: shift_reg(t, in, 3, false); return true;
    case RV_OP_SRAW: shift_reg(t, in, 2, false); return true;
    case RV_OP_SLT: set_less(t, in, CC_L); return true;
    case RV_OP_SLTU: set_less(t, in, CC_B); return true;
    default: return false;
    }
}

/* Whether the operation only computes rd: without one there is nothing to do. */
static bool only_computes(const struct rv_insn *in)
{
    unsigned f = rv_insn_rows[in->op].fmt;
    return f == RV_FMT_R || f == RV_FMT_R1 || f == RV_FMT_SH || f == RV_FMT_U || (f == RV_FMT_I && in->op != RV_OP_JALR);
}

bool jit_emit_int(struct jit_tr *t, const struct rv_insn *in)
{
    if (only_computes(in) && in->rd == 32)
        return true;
    return emit_alu(t, in) || emit_jump(t, in) || emit_muldiv(t, in) || emit_bits(t, in);
}
