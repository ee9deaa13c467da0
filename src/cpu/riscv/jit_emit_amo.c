/* SPDX-License-Identifier: MIT */
/*
 * Atomic operations as the host's: those it has, and AND, OR, XOR by compare and exchange. What finds its page watched, or is not
 * aligned, goes to the handler, as do LR, SC, minima and maxima. Locked instructions order everything, so aq and rl ask for no more.
 */
#include "cpu/riscv/jit_int.h"

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

bool jit_emit_amo(struct jit_tr *t, const struct rv_insn *in)
{
    bool w = (in->raw >> 12 & 7) == 3;
    switch (in->op) {
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
