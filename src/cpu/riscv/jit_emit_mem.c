/* SPDX-License-Identifier: MIT */
/* Loads and stores: the soft TLB's fast check in line, the interpreter's handler behind it. */
#include <assert.h>

#include "cpu/riscv/jit_int.h"

static_assert(sizeof(struct rv_tlb_entry) == 32 && offsetof(struct rv_tlb, e) == 0, "the index below");

/*
 * rax = host address of rs1 + imm, or the handler. The tag is compared with the page of the last byte: an access across pages
 * fails, any other need not be aligned.
 */
static void look_up(struct jit_tr *t, const struct rv_insn *in, unsigned size, bool store)
{
    struct emit *e = &t->e;
    unsigned base = jit_src(t, in->rs1, RAX), tag = store ? offsetof(struct rv_tlb_entry, wr) : offsetof(struct rv_tlb_entry, rd);
    if (base != RAX || in->imm)
        x86_rm(e, X_LEA, true, RAX, base, in->imm);
    x86_rr(e, X_MOV, true, RCX, RAX);
    if (size > 1)
        x86_rm(e, X_LEA, true, RDX, RAX, (int32_t)size - 1);
    else
        x86_rr(e, X_MOV, true, RDX, RAX);
    x86_shift_i(e, G_SHR, true, RCX, RV_PAGE_BITS - 5);
    x86_ri(e, G_AND, false, RCX, (RV_TLB_SIZE - 1) << 5);
    x86_ri(e, G_AND, true, RDX, -(int32_t)RV_PAGE_SIZE);
    x86_rm(e, X_ADD, true, RCX, RBP, JIT_DISP(dtlb));
    x86_rm(e, X_CMP, true, RDX, RCX, (int32_t)tag);
    uint8_t *slow = x86_jcc(e, CC_NE, 0);
    x86_rm(e, X_ADD, true, RAX, RCX, offsetof(struct rv_tlb_entry, addend));
    jit_cold_slow(t, slow);
}

void jit_address(struct jit_tr *t, const struct rv_insn *in, unsigned size, bool store)
{
    look_up(t, in, size, store);
}

void jit_mem(struct jit_tr *t, unsigned op, bool w, unsigned reg)
{
    x86_rm(&t->e, op, w, reg, RAX, 0);
}

static void load_to(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool w, unsigned size)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    jit_address(t, in, size, false);
    jit_mem(t, op, w, d);
    jit_put(t, in->rd, d);
}

static void store_from(struct jit_tr *t, const struct rv_insn *in, unsigned size)
{
    jit_address(t, in, size, true);
    unsigned v = jit_src(t, in->rs2, RCX);
    if (size == 2)
        emit_8(&t->e, 0x66);
    jit_mem(t, size == 1 ? X_MOV8_TO : X_MOV_TO, size == 8, v);
}

bool jit_emit_mem(struct jit_tr *t, const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_LB: load_to(t, in, X_MOVSX8, true, 1); return true;
    case RV_OP_LH: load_to(t, in, X_MOVSX16, true, 2); return true;
    case RV_OP_LW: load_to(t, in, X_MOVSXD, true, 4); return true;
    case RV_OP_LD: load_to(t, in, X_MOV, true, 8); return true;
    case RV_OP_LBU: load_to(t, in, X_MOVZX8, false, 1); return true;
    case RV_OP_LHU: load_to(t, in, X_MOVZX16, false, 2); return true;
    case RV_OP_LWU: load_to(t, in, X_MOV, false, 4); return true;
    case RV_OP_SB: store_from(t, in, 1); return true;
    case RV_OP_SH: store_from(t, in, 2); return true;
    case RV_OP_SW: store_from(t, in, 4); return true;
    case RV_OP_SD: store_from(t, in, 8); return true;
    case RV_OP_FENCE:
        if ((in->imm & 0x10) && (in->imm & 0x2)) {      /* earlier stores before later loads: all that this host reorders */
            emit_8(&t->e, 0xf0);                        /* lock or dword [rsp], 0 */
            x86_mi(&t->e, G_OR, false, RSP, 0, 0);
        }
        return true;
    default:
        return false;
    }
}
