/* SPDX-License-Identifier: MIT */
/*
 * Atomic operations as the host's: those it has, and AND, OR, XOR by compare and exchange. What finds its page watched, or is not
 * aligned, goes to the handler, as do minima and maxima. Locked instructions order everything, so aq and rl ask for no more.
 * LR and the SC that its value alone decides (amo.c) are a load and a compare and exchange where one block holds both; the hart's
 * state tells of the reservation as the handlers would, so that either may do its part.
 */
#include "cpu/riscv/jit_int.h"
#include "cpu/riscv/mmu.h"

enum { X_XCHG = 0x87, X_XADD = 0x0fc1, X_CMPXCHG = 0x0fb1 };

static void locked(struct jit_tr *t, unsigned op, bool w, unsigned reg, unsigned base)
{
    emit_8(&t->e, 0xf0);
    x86_rm(&t->e, op, w, reg, base, 0);
}

/* The old value, in @from, into rd. */
static void result(struct jit_tr *t, const struct rv_insn *in, unsigned from, bool w)
{
    if (in->rd >= 32)
        return;
    unsigned d = jit_dst(t, in->rd, RAX);
    if (!w)
        x86_rr(&t->e, X_MOVSXD, true, d, from);
    else if (d != from)
        x86_rr(&t->e, X_MOV, true, d, from);
    jit_put(t, in->rd, d);
}

static void swap(struct jit_tr *t, const struct rv_insn *in, bool w)
{
    jit_atomic_address(t, in, w ? 8 : 4);
    jit_get(t, RDX, in->rs2);
    x86_rm(&t->e, X_XCHG, w, RDX, RAX, 0);
    result(t, in, RDX, w);
}

static void add(struct jit_tr *t, const struct rv_insn *in, bool w)
{
    jit_atomic_address(t, in, w ? 8 : 4);
    jit_get(t, RDX, in->rs2);
    locked(t, in->rd == 32 ? X_ADD_TO : X_XADD, w, RDX, RAX);
    result(t, in, RDX, w);
}

/* @to: the operation on memory; @op: on a register. */
static void logic(struct jit_tr *t, const struct rv_insn *in, unsigned to, unsigned op, bool w)
{
    struct emit *e = &t->e;
    jit_atomic_address(t, in, w ? 8 : 4);
    if (in->rd == 32) {
        locked(t, to, w, jit_src(t, in->rs2, RDX), RAX);
        return;
    }
    x86_rr(e, X_MOV, true, RCX, RAX);
    x86_rm(e, X_MOV, w, RAX, RCX, 0);
    uint32_t again = emit_here(e);
    x86_rr(e, X_MOV, true, RDX, RAX);
    jit_op(t, op, w, RDX, in->rs2);
    locked(t, X_CMPXCHG, w, RDX, RCX);
    x86_jcc(e, CC_NE, again);
    result(t, in, RAX, w);
}

static void compare_swap(struct jit_tr *t, const struct rv_insn *in, bool w)
{
    jit_atomic_address(t, in, w ? 8 : 4);
    x86_rr(&t->e, X_MOV, true, RCX, RAX);
    jit_get(t, RAX, in->rd);
    locked(t, X_CMPXCHG, w, jit_src(t, in->rs2, RDX), RCX);
    result(t, in, RAX, w);
}

/* The SC that is reached from the LR at index @lr only, over nothing but computation, and stores to what the LR has read; 0: there is none. */
static unsigned sc_of(const struct jit_tr *t, unsigned lr)
{
    const struct rv_insn *in = &t->insn[lr].in;
    uint32_t written = t->effect[lr].writes;
    for (unsigned i = lr + 1; i < t->n && i <= lr + RV_LR_SC_INSNS; i++) {
        const struct rv_insn *next = &t->insn[i].in;
        if (t->label[i] || t->insn[i].off != t->insn[i - 1].off + t->insn[i - 1].in.len)
            break;
        if (next->op == (in->op == RV_OP_LR_W ? RV_OP_SC_W : RV_OP_SC_D) && next->rs1 == in->rs1 && !(written >> in->rs1 & 1))
            return i;
        if (!rv_between_lr_sc(next->raw))
            break;
        written |= t->effect[i].writes;
    }
    return 0;
}

static bool load_reserved(struct jit_tr *t, const struct rv_insn *in, bool w)
{
    struct emit *e = &t->e;
    unsigned sc = sc_of(t, t->i), size = w ? 8 : 4;
    if (!sc)
        return false;
    if (in->raw >> 25 & 1)                  /* rl: not before earlier stores */
        jit_fence(t);
    jit_get(t, RAX, in->rs1);
    x86_rr(e, X_MOV, true, RDX, RAX);
    jit_tlb_entry(e, RCX, RAX, RV_TLB_SIZE);
    x86_ri(e, G_AND, true, RDX, -(int32_t)RV_PAGE_SIZE | (int32_t)(size - 1));
    x86_rm(e, X_CMP, true, RDX, RCX, offsetof(struct rv_tlb_entry, rd));
    jit_cold_slow(t, x86_jcc(e, CC_NE, 0));
    x86_mi(e, G_CMP, true, RBP, JIT_DISP(res_ram), 0);
    jit_cold_slow(t, x86_jcc(e, CC_NE, 0));
    x86_rm(e, X_MOV, true, RDX, RCX, offsetof(struct rv_tlb_entry, pa));
    x86_rr(e, X_XOR, true, RDX, RAX);
    x86_ri(e, G_AND, true, RDX, -(int32_t)RV_PAGE_SIZE);
    x86_rr(e, X_XOR, true, RDX, RAX);       /* the page's address with the offset of the other */
    x86_rm(e, X_MOV_TO, true, RDX, RBP, JIT_DISP(res_pa));
    x86_rm(e, X_ADD, true, RAX, RCX, offsetof(struct rv_tlb_entry, addend));
    x86_rm(e, X_MOV, w, RDX, RAX, 0);
    x86_rm(e, X_MOV_TO, true, RDX, RBP, JIT_DISP(res_val));
    x86_rm(e, X_MOV, true, RCX, RBP, JIT_DISP(jit.vbase));
    x86_ri(e, G_ADD, true, RCX, t->insn[sc].off);
    x86_rm(e, X_MOV_TO, true, RCX, RBP, JIT_DISP(res_pc));
    x86_rm(e, X_MOV8_IMM, false, 0, RBP, JIT_DISP(res_size));
    emit_8(e, (uint8_t)size);
    result(t, in, RDX, w);
    return true;
}

static bool store_conditional(struct jit_tr *t, const struct rv_insn *in, bool w)
{
    struct emit *e = &t->e;
    bool paired = false;
    for (unsigned i = t->i; i-- > 0 && !paired;)
        paired = (t->insn[i].in.op == RV_OP_LR_W || t->insn[i].in.op == RV_OP_LR_D) && sc_of(t, i) == t->i;
    if (!paired)
        return false;
    jit_atomic_address(t, in, w ? 8 : 4);
    x86_rr(e, X_MOV, true, RCX, RAX);
    x86_rm(e, X_MOV, true, RAX, RBP, JIT_DISP(res_val));
    locked(t, X_CMPXCHG, w, jit_src(t, in->rs2, RDX), RCX);
    x86_mov_mi(e, RBP, JIT_DISP(res_pa), -1);
    x86_setcc(e, CC_NE, RAX);
    jit_put(t, in->rd, RAX);
    return true;
}

bool jit_emit_amo(struct jit_tr *t, const struct rv_insn *in)
{
    bool w = (in->raw >> 12 & 7) == 3;
    switch (in->op) {
    case RV_OP_LR_W: case RV_OP_LR_D: return load_reserved(t, in, w);
    case RV_OP_SC_W: case RV_OP_SC_D: return store_conditional(t, in, w);
    case RV_OP_AMOSWAP_W: case RV_OP_AMOSWAP_D: swap(t, in, w); return true;
    case RV_OP_AMOADD_W: case RV_OP_AMOADD_D: add(t, in, w); return true;
    case RV_OP_AMOAND_W: case RV_OP_AMOAND_D: logic(t, in, X_AND_TO, X_AND, w); return true;
    case RV_OP_AMOOR_W: case RV_OP_AMOOR_D: logic(t, in, X_OR_TO, X_OR, w); return true;
    case RV_OP_AMOXOR_W: case RV_OP_AMOXOR_D: logic(t, in, X_XOR_TO, X_XOR, w); return true;
    case RV_OP_AMOCAS_W: case RV_OP_AMOCAS_D:
        if (in->rd == 32)
            return false;
        compare_swap(t, in, w);
        return true;
    default: return false;
    }
}
