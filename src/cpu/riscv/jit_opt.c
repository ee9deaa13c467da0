/* SPDX-License-Identifier: MIT */
/*
 * Cheaper instructions for those of a block. What compilers write for machines without the bit manipulation extensions becomes
 * one instruction of theirs again (zero extension, rotation, shift and add), constants and addresses made in two steps are made in
 * one, and what nobody sees any more is not computed: a value dies where it is overwritten before anything may trap, jump or be read.
 * The upper half of a word is made only for whoever needs all of it: on ways out of the block, else, that jit_move() leads through.
 * Only computations change, so no handler is ever asked for an instruction that the guest has not written.
 */
#include "cpu/riscv/jit_int.h"

static uint32_t bit(unsigned r) { return r && r < 32 ? 1u << r : 0; }

static struct jit_effect effect_of(const struct rv_insn *in)
{
    switch (rv_insn_rows[in->op].fmt) {
    case RV_FMT_R: return (struct jit_effect){ bit(in->rs1) | bit(in->rs2), bit(in->rd), false };
    case RV_FMT_R1: case RV_FMT_SH: return (struct jit_effect){ bit(in->rs1), bit(in->rd), false };
    case RV_FMT_I: return (struct jit_effect){ bit(in->rs1), bit(in->rd), in->op == RV_OP_JALR };
    case RV_FMT_U: return (struct jit_effect){ 0, bit(in->rd), false };
    case RV_FMT_J: return (struct jit_effect){ 0, bit(in->rd), true };
    case RV_FMT_LD: return (struct jit_effect){ bit(in->rs1), bit(in->rd), true };
    case RV_FMT_FLD: return (struct jit_effect){ bit(in->rs1), 0, true };
    case RV_FMT_ST: case RV_FMT_B: return (struct jit_effect){ bit(in->rs1) | bit(in->rs2), 0, true };
    case RV_FMT_FST: return (struct jit_effect){ bit(in->rs1), 0, true };
    case RV_FMT_AMO: {
        bool cas = in->op == RV_OP_AMOCAS_W || in->op == RV_OP_AMOCAS_D || in->op == RV_OP_AMOCAS_Q;
        uint32_t rd = bit(in->rd) | (in->op == RV_OP_AMOCAS_Q ? bit(in->rd + 1u) : 0);
        return (struct jit_effect){ bit(in->rs1) | bit(in->rs2) | (cas ? rd : 0), rd, true };
    }
    case RV_FMT_CSR: return (struct jit_effect){ bit(in->rs1), bit(in->rd), true };
    case RV_FMT_CSRI: case RV_FMT_FCMP: case RV_FMT_F2X: case RV_FMT_FX: return (struct jit_effect){ 0, bit(in->rd), true };
    case RV_FMT_X2F: case RV_FMT_XF: case RV_FMT_CBO: return (struct jit_effect){ bit(in->rs1), 0, true };
    case RV_FMT_SFENCE: return (struct jit_effect){ bit(in->rs1) | bit(in->rs2), 0, true };
    default: return (struct jit_effect){ 0, 0, true };
    }
}

/* ---- forward: what registers are known to hold ---- */

enum known { K_NOTHING, K_CONST, K_ADDRESS };                   /* v; page address + v */
struct facts {
    int8_t def[32];                     /* index of the instruction that made it, since the last label; -1 */
    uint8_t kind[32];
    int64_t v[32];
    uint32_t sext, small;               /* sign-extended from 32 bits; below 2^31 */
};

static void forget(struct facts *f, uint32_t regs)
{
    for (uint32_t m = regs; m; m &= m - 1)
        f->kind[__builtin_ctz(m)] = K_NOTHING;
    f->sext &= ~regs;
    f->small &= ~regs;
}

static void forget_all(struct facts *f)
{
    memset(f, 0, sizeof *f);
    memset(f->def, -1, sizeof f->def);
    f->kind[0] = K_CONST;
    f->sext = f->small = 1;
}

/* Keeps what is known on both ways. */
static void meet(struct facts *f, const struct facts *g)
{
    for (unsigned r = 1; r < 32; r++)
        if (f->kind[r] != g->kind[r] || f->v[r] != g->v[r])
            f->kind[r] = K_NOTHING;
    f->sext &= g->sext;
    f->small &= g->small;
}

/* Whether nobody reads register @r after instruction @i before it is written again. */
static bool dead_after(const struct jit_tr *t, unsigned r, unsigned i)
{
    for (i++; i < t->n; i++) {
        struct jit_effect x = t->effect[i];
        if (x.seen || (x.reads >> r & 1))
            return false;
        if (x.writes >> r & 1)
            return true;
    }
    return false;
}

/* Whether instruction @j may read what instruction @i has read as rs1: it is still there, or is if @i is left out (which is then done). */
static bool read_through(struct jit_tr *t, const struct facts *f, unsigned i, unsigned j)
{
    const struct rv_insn *a = &t->insn[i].in;
    unsigned s = a->rs1;
    if (s != a->rd)
        return f->def[s] < (int)i;
    for (unsigned k = i + 1; k < j; k++) {
        struct jit_effect x = t->effect[k];
        if (x.seen || ((x.reads | x.writes) >> s & 1 && !t->skip[k]))
            return false;
    }
    if (t->insn[j].in.rd != s && !dead_after(t, s, j))
        return false;
    t->skip[i] = true;
    return true;
}

/* The instruction that made register @r, if it is one of @op and was not left out; -1. */
static int made_by(const struct jit_tr *t, const struct facts *f, unsigned r, unsigned op)
{
    int i = f->def[r];
    return r && i >= 0 && t->insn[i].in.op == op && !t->skip[i] ? i : -1;
}

static void become(struct jit_tr *t, unsigned j, unsigned op, unsigned rs1, unsigned rs2, int32_t imm)
{
    struct rv_insn *in = &t->insn[j].in;
    in->op = (uint16_t)op;
    in->rs1 = (uint8_t)rs1;
    in->rs2 = (uint8_t)rs2;
    in->imm = imm;
    t->effect[j] = effect_of(in);
}

/* slli n, then srli or srai n: an extension; slli 32, srli 32 - n: zero extension, shifted. */
static void fuse_extend(struct jit_tr *t, const struct facts *f, unsigned j)
{
    static const struct { uint16_t op, to; int32_t imm, with; } fused[] = {
        { RV_OP_SRLI, RV_OP_ADD_UW, 32, 0 }, { RV_OP_SRLI, RV_OP_ZEXT_H, 48, 0 }, { RV_OP_SRLI, RV_OP_ANDI, 56, 255 },
        { RV_OP_SRAI, RV_OP_ADDIW, 32, 0 }, { RV_OP_SRAI, RV_OP_SEXT_H, 48, 0 }, { RV_OP_SRAI, RV_OP_SEXT_B, 56, 0 },
    };
    struct rv_insn *in = &t->insn[j].in;
    int i = made_by(t, f, in->rs1, RV_OP_SLLI);
    if (i < 0)
        return;
    int32_t left = t->insn[i].in.imm;
    unsigned s = t->insn[i].in.rs1;
    for (size_t k = 0; k < ARRAY_SIZE(fused); k++)
        if (in->op == fused[k].op && left == fused[k].imm && in->imm == left && read_through(t, f, (unsigned)i, j)) {
            become(t, j, fused[k].to, s, 0, fused[k].with);
            return;
        }
    if (in->op == RV_OP_SRLI && left == 32 && in->imm >= 1 && in->imm < 32 && read_through(t, f, (unsigned)i, j))
        become(t, j, RV_OP_SLLI_UW, s, 0, 32 - in->imm);
}

/* srl n, sll width - n of the same value, put together: a rotation. */
static void fuse_rotate(struct jit_tr *t, const struct facts *f, unsigned j, bool w)
{
    struct rv_insn *in = &t->insn[j].in;
    unsigned right = w ? RV_OP_SRLIW : RV_OP_SRLI, left = w ? RV_OP_SLLIW : RV_OP_SLLI, r = in->rs1, l = in->rs2;
    if (made_by(t, f, r, right) < 0) {
        r = in->rs2;
        l = in->rs1;
    }
    int a = made_by(t, f, r, right), b = made_by(t, f, l, left);
    if (a < 0 || b < 0 || r == l)
        return;
    const struct rv_insn *pa = &t->insn[a].in, *pb = &t->insn[b].in;
    unsigned first = (unsigned)(a < b ? a : b), second = (unsigned)(a < b ? b : a), s = pa->rs1;
    if (pa->rs1 != pb->rs1 || !pa->imm || pa->imm + pb->imm != (w ? 32 : 64) || t->insn[first].in.rd == s)
        return;
    for (unsigned k = first; k < second; k++)           /* both have read the same value */
        if (t->effect[k].writes >> s & 1)
            return;
    if (f->def[s] > (int)second)
        return;
    if (read_through(t, f, second, j))
        become(t, j, w ? RV_OP_RORIW : RV_OP_RORI, s, 0, pa->imm);
}

/* A shift, or a zero extension, then an addition of register @q, or, where that is x0, of a constant, which a register may follow. */
static bool fuse_add(struct jit_tr *t, const struct facts *f, unsigned j, unsigned p, unsigned q)
{
    static const struct { uint16_t from, to; int32_t imm; } fused[] = {
        { RV_OP_SLLI, RV_OP_SH1ADD, 1 }, { RV_OP_SLLI, RV_OP_SH2ADD, 2 }, { RV_OP_SLLI, RV_OP_SH3ADD, 3 },
        { RV_OP_SLLI_UW, RV_OP_SH1ADD_UW, 1 }, { RV_OP_SLLI_UW, RV_OP_SH2ADD_UW, 2 }, { RV_OP_SLLI_UW, RV_OP_SH3ADD_UW, 3 },
        { RV_OP_SH1ADD, RV_OP_SH1ADD, 0 }, { RV_OP_SH2ADD, RV_OP_SH2ADD, 0 }, { RV_OP_SH3ADD, RV_OP_SH3ADD, 0 },
        { RV_OP_ADD_UW, RV_OP_ADD_UW, 0 },
    };
    struct rv_insn *in = &t->insn[j].in;
    for (size_t k = 0; k < ARRAY_SIZE(fused); k++) {
        int i = p == q ? -1 : made_by(t, f, p, fused[k].from);
        bool again = fused[k].from == fused[k].to;
        if (i < 0 || t->insn[i].in.rs2 || (again ? !q : t->insn[i].in.imm != fused[k].imm))
            continue;
        unsigned s = t->insn[i].in.rs1;
        if ((in->rd != p && !dead_after(t, p, j)) || !read_through(t, f, (unsigned)i, j))
            continue;
        become(t, j, fused[k].to, s, q, again ? t->insn[i].in.imm : in->imm);
        return true;
    }
    return false;
}

/* The constant that an instruction makes of one, if it is one of those that make constants. */
static bool fold(const struct rv_insn *in, int64_t v, int64_t *out)
{
    switch (in->op) {
    case RV_OP_ADDI: *out = (int64_t)((uint64_t)v + (uint64_t)(int64_t)in->imm); return true;
    case RV_OP_ADDIW: *out = (int32_t)((uint32_t)v + (uint32_t)in->imm); return true;
    case RV_OP_SLLI: *out = (int64_t)((uint64_t)v << in->imm); return true;
    case RV_OP_SRLI: *out = (int64_t)((uint64_t)v >> in->imm); return true;
    default: return false;
    }
}

/* An operation with a constant in a register: the one with an immediate. */
static void use_constant(struct jit_tr *t, const struct facts *f, unsigned j)
{
    static const struct { uint16_t op, to; bool commutes; uint8_t mask; } fused[] = {
        { RV_OP_ADD, RV_OP_ADDI, true, 0 }, { RV_OP_AND, RV_OP_ANDI, true, 0 }, { RV_OP_OR, RV_OP_ORI, true, 0 }, { RV_OP_XOR, RV_OP_XORI, true, 0 },
        { RV_OP_ADDW, RV_OP_ADDIW, true, 0 }, { RV_OP_SLT, RV_OP_SLTI, false, 0 }, { RV_OP_SLTU, RV_OP_SLTIU, false, 0 },
        { RV_OP_SLL, RV_OP_SLLI, false, 63 }, { RV_OP_SRL, RV_OP_SRLI, false, 63 }, { RV_OP_SRA, RV_OP_SRAI, false, 63 },
        { RV_OP_SLLW, RV_OP_SLLIW, false, 31 }, { RV_OP_SRLW, RV_OP_SRLIW, false, 31 }, { RV_OP_SRAW, RV_OP_SRAIW, false, 31 },
    };
    struct rv_insn *in = &t->insn[j].in;
    for (size_t k = 0; k < ARRAY_SIZE(fused); k++) {
        unsigned s = in->rs1, c = in->rs2;
        if (in->op != fused[k].op)
            continue;
        if (fused[k].commutes && s && f->kind[s] == K_CONST) {
            s = in->rs2;
            c = in->rs1;
        }
        int64_t v = fused[k].mask ? f->v[c] & fused[k].mask : f->v[c];
        if (c && f->kind[c] == K_CONST && v == (int32_t)v)
            become(t, j, fused[k].to, s, 0, (int32_t)v);
        return;
    }
}

static void rewrite(struct jit_tr *t, struct facts *f, unsigned j)
{
    struct rv_insn *in = &t->insn[j].in;
    if (rv_insn_rows[in->op].fmt == RV_FMT_R)
        use_constant(t, f, j);
    unsigned s = in->rs1;
    int64_t v;
    if (rv_insn_rows[in->op].fmt != RV_FMT_R && f->kind[s] == K_CONST && s && fold(in, f->v[s], &v) && v == (int32_t)v) {
        become(t, j, RV_OP_ADDI, 0, 0, (int32_t)v);
        return;
    }
    switch (in->op) {
    case RV_OP_ADDI:
        v = f->v[s] + in->imm - t->insn[j].off;
        if (f->kind[s] == K_ADDRESS && v == (int32_t)v)
            become(t, j, RV_OP_AUIPC, 0, 0, (int32_t)v);
        else if (in->imm)
            fuse_add(t, f, j, s, 0);
        break;
    case RV_OP_ADDIW:
        if (!in->imm && (f->sext >> s & 1))
            become(t, j, RV_OP_ADDI, s, 0, 0);
        break;
    case RV_OP_SRLI: case RV_OP_SRAI: fuse_extend(t, f, j); break;
    case RV_OP_OR: case RV_OP_XOR: case RV_OP_ADD:
        fuse_rotate(t, f, j, false);
        if (in->op == RV_OP_OR || in->op == RV_OP_XOR)
            fuse_rotate(t, f, j, true);
        if (in->op == RV_OP_ADD && (!in->rs1 || !in->rs2))
            become(t, j, RV_OP_ADDI, in->rs1 | in->rs2, 0, 0);
        else if (in->op == RV_OP_ADD && !fuse_add(t, f, j, in->rs1, in->rs2))
            fuse_add(t, f, j, in->rs2, in->rs1);
        break;
    case RV_OP_ADDW: fuse_rotate(t, f, j, true); break;
    case RV_OP_JALR:
        v = f->v[s] + in->imm - t->insn[j].off;
        if (f->kind[s] == K_ADDRESS && v == (int32_t)v && !(v & 1) && rv_has(t->h, RV_EXT_C))
            become(t, j, RV_OP_JAL, 0, 0, (int32_t)v);
        break;
    default: break;
    }
}

static bool is_word(unsigned op)
{
    switch (op) {
    case RV_OP_ADDW: case RV_OP_SUBW: case RV_OP_ADDIW: case RV_OP_MULW: case RV_OP_SLLW: case RV_OP_SRLW: case RV_OP_SRAW: case RV_OP_SLLIW:
    case RV_OP_SRLIW: case RV_OP_SRAIW: case RV_OP_RORIW: case RV_OP_ROLW: case RV_OP_RORW: case RV_OP_DIVW: case RV_OP_DIVUW: case RV_OP_REMW:
    case RV_OP_REMUW: return true;
    default: return false;
    }
}

/* What is known of rd once the instruction is done. */
static void learn(const struct jit_tr *t, struct facts *f, unsigned j)
{
    const struct rv_insn *in = &t->insn[j].in;
    uint32_t w = t->effect[j].writes, a = bit(in->rs1) | !in->rs1, both = in->rs2 ? bit(in->rs2) : 1;
    bool sext = is_word(in->op), small = false;
    for (uint32_t m = w; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        f->def[r] = (int8_t)j;
        f->kind[r] = K_NOTHING;
    }
    switch (in->op) {
    case RV_OP_LBU: case RV_OP_LHU: case RV_OP_SLT: case RV_OP_SLTU: case RV_OP_SLTI: case RV_OP_SLTIU: case RV_OP_ZEXT_H: small = true; break;
    case RV_OP_LB: case RV_OP_LH: case RV_OP_LW: case RV_OP_SEXT_B: case RV_OP_SEXT_H: sext = true; break;
    case RV_OP_ANDI: small = in->imm >= 0; sext = f->sext & a; break;
    case RV_OP_ORI: case RV_OP_XORI: sext = f->sext & a; break;
    case RV_OP_AND: small = (f->small & a) || (f->small & both); sext = (f->sext & a) && (f->sext & both); break;
    case RV_OP_OR: case RV_OP_XOR:
        sext = (f->sext & a) && (f->sext & both);
        small = (f->small & a) && (f->small & both);
        break;
    case RV_OP_SRLIW: small = in->imm > 0; break;
    case RV_OP_LUI: case RV_OP_ADDI:
        if (in->op == RV_OP_ADDI && in->rs1) {
            sext = !in->imm && (f->sext & a);
            small = !in->imm && (f->small & a);
            break;
        }
        sext = true;
        small = in->imm >= 0;
        if (bit(in->rd)) {
            f->kind[in->rd] = K_CONST;
            f->v[in->rd] = in->imm;
        }
        break;
    case RV_OP_AUIPC:
        if (bit(in->rd)) {
            f->kind[in->rd] = K_ADDRESS;
            f->v[in->rd] = (int64_t)t->insn[j].off + in->imm;
        }
        break;
    default: break;
    }
    f->sext = sext || small ? f->sext | w : f->sext & ~w;
    f->small = small ? f->small | w : f->small & ~w;
}

/* ---- backward: what is wanted of each result ---- */

/* Whether the lower half of the result depends on the lower halves of the operands only. */
static bool low_from_low(const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_ADD: case RV_OP_SUB: case RV_OP_AND: case RV_OP_OR: case RV_OP_XOR: case RV_OP_MUL: case RV_OP_ADDI: case RV_OP_ANDI: case RV_OP_ORI:
    case RV_OP_XORI: case RV_OP_SLLI: case RV_OP_ANDN: case RV_OP_ORN: case RV_OP_XNOR: case RV_OP_SH1ADD: case RV_OP_SH2ADD: case RV_OP_SH3ADD:
        return true;
    default:
        return false;
    }
}

/* Whether it makes a word of the lower halves of what it reads, and has to extend it. */
static bool makes_word(const struct jit_tr *t, unsigned i)
{
    const struct rv_insn *in = &t->insn[i].in;
    switch (in->op) {
    case RV_OP_AND: case RV_OP_OR: case RV_OP_XOR: case RV_OP_ANDN: case RV_OP_ORN: case RV_OP_XNOR: case RV_OP_ORI: case RV_OP_XORI:
        return t->words[i];
    case RV_OP_ANDI:
        return t->words[i] && in->imm < 0;
    case RV_OP_ADDI:
        return t->words[i] && in->rs1 && !in->imm;
    case RV_OP_SRLIW:
        return !in->imm;
    default:
        return is_word(in->op);
    }
}

/* The registers of which the instruction reads the lower half only. */
static uint32_t reads_low(const struct jit_tr *t, unsigned i)
{
    const struct rv_insn *in = &t->insn[i].in;
    uint32_t a = bit(in->rs1), b = bit(in->rs2);
    switch (in->op) {
    case RV_OP_SEXT_B: case RV_OP_SEXT_H: case RV_OP_ZEXT_H: case RV_OP_SLLI_UW: case RV_OP_CLZW: case RV_OP_CTZW: case RV_OP_CPOPW: return a;
    case RV_OP_ADD_UW: case RV_OP_SH1ADD_UW: case RV_OP_SH2ADD_UW: case RV_OP_SH3ADD_UW: return a & ~b;
    case RV_OP_ANDI: return in->imm >= 0 ? a : 0;
    case RV_OP_SB: case RV_OP_SH: case RV_OP_SW: return b & ~a;
    case RV_OP_BEQ: case RV_OP_BNE: case RV_OP_BLT: case RV_OP_BGE: case RV_OP_BLTU: case RV_OP_BGEU: case RV_OP_SLT: case RV_OP_SLTU:
        return t->words[i] ? a | b : 0;
    case RV_OP_SLTI: case RV_OP_SLTIU: return t->words[i] ? a : 0;
    default: return is_word(in->op) ? t->effect[i].reads : 0;
    }
}

/* Which registers are wanted: all of them, now; their lower halves; all of them by who leaves the block. */
struct want { uint32_t full, low, out; };

/* What is wanted before instruction @i where @w is wanted after it; @final: marks it. */
static struct want want_before(struct jit_tr *t, unsigned i, struct want w, uint32_t low, bool final)
{
    struct jit_effect x = t->effect[i];
    if (t->skip[i])
        return w;
    if (!x.seen && !((w.full | w.low | w.out) & x.writes)) {
        t->skip[i] = final;
        return w;
    }
    if (!x.seen) {
        bool word = makes_word(t, i), full = w.full & x.writes, late = w.out & x.writes;
        if (final) {
            t->low[i] = !full && (word || !late);
            t->whole[i] = word && !is_word(t->insn[i].in.op);
        }
        if (word || (!full && !late && low_from_low(&t->insn[i].in)))
            low |= x.reads;
    }
    w.full = (w.full & ~x.writes) | (x.reads & ~low);
    w.low = (w.low & ~x.writes) | low;
    w.out = x.seen ? UINT32_MAX : w.out & ~x.writes;
    return w;
}

/* A jump from instruction @i, or the end, to @k. Back, whatever would have to be widened on the way had better be from the beginning. */
static void want_at(const struct jit_tr *t, struct want *w, const struct want *at, unsigned i, unsigned k)
{
    w->full |= at[k].full | (k <= i ? at[k].out & ~t->words_at[k] : 0);
    w->low |= at[k].low;
    w->out |= at[k].out;
}

/* In loops, what is wanted at the beginning is wanted at the end, too: until nothing is new. */
static void demand(struct jit_tr *t)
{
    struct want at[JIT_INSNS];
    uint32_t low[JIT_INSNS];
    for (unsigned i = 0; i < t->n; i++) {
        at[i] = (struct want){ 0 };
        low[i] = reads_low(t, i);
    }
    for (bool again = true, final = !t->loops; again; ) {
        struct want w = { .out = UINT32_MAX };
        bool change = false;
        if (t->close >= 0)
            want_at(t, &w, at, t->n, (unsigned)t->close);
        for (unsigned i = t->n; i-- > 0;) {
            if (t->target[i] >= 0)
                want_at(t, &w, at, i, (unsigned)t->target[i]);
            w = want_before(t, i, w, low[i], final);
            change = change || memcmp(&at[i], &w, sizeof w);
            at[i] = w;
        }
        again = !final;
        final = !change;
    }
    for (unsigned i = 0; i < t->n; i++)
        t->wanted_at[i] = at[i].full | at[i].out;
}

/* What is known on the jumps forward, so far. */
struct jumps { struct facts at[JIT_INSNS]; bool any[JIT_INSNS]; };

/* What is known where ways meet before instruction @k. In a loop that begins there: not what it changes, nor who jumps into its middle. */
static void meet_label(struct jit_tr *t, unsigned k, struct facts *f, const struct jumps *to)
{
    bool loop = t->from[k] < 0;
    uint32_t changes = 0;
    for (unsigned i = k; i < (loop ? t->n : k + 1); i++) {
        if (to->any[i])
            meet(f, &to->at[i]);
        changes |= t->effect[i].writes;
    }
    if (loop)
        forget(f, changes);
    memset(f->def, -1, sizeof f->def);
    t->words_at[k] = f->sext;
}

static void note_jump(struct jumps *to, unsigned k, const struct facts *f)
{
    if (to->any[k])
        meet(&to->at[k], f);
    else
        to->at[k] = *f;
    to->any[k] = true;
}

void jit_optimize(struct jit_tr *t)
{
    struct facts f;
    struct jumps to;
    memset(to.any, 0, sizeof to.any);
    forget_all(&f);
    for (unsigned j = 0; j < t->n; j++)
        t->effect[j] = effect_of(&t->insn[j].in);
    for (unsigned j = 0; j < t->n; j++) {
        if (t->label[j])
            meet_label(t, j, &f, &to);
        rewrite(t, &f, j);
        t->words[j] = !(t->effect[j].reads & ~f.sext);
        learn(t, &f, j);
        if (t->target[j] > (int)j)
            note_jump(&to, (unsigned)t->target[j], &f);
    }
    demand(t);
}
