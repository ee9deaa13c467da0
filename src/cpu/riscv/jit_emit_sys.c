/* SPDX-License-Identifier: MIT */
/*
 * The CSRs that a supervisor touches on every trap, the floating-point flags, and cbo.zero, which clears a kernel's pages, in line.
 * A block does not know its privilege: each checks that, and leaves whatever is not plain to the handler.
 */
#include <assert.h>

#include "cpu/riscv/jit_int.h"

enum { CSR_FFLAGS = 1, CSR_SSTATUS = 0x100, CSR_SSCRATCH = 0x140, CSR_SEPC, CSR_SCAUSE, CSR_STVAL };
enum { OP_WRITE, OP_SET, OP_CLEAR };

static unsigned operation(const struct rv_insn *in)
{
    return (in->raw >> 12 & 3) - 1;
}

static bool immediate(const struct rv_insn *in)
{
    return rv_insn_rows[in->op].fmt == RV_FMT_CSRI;
}

static void need_supervisor(struct jit_tr *t)
{
    x86_mi8(&t->e, G_CMP, RBP, JIT_DISP(priv), RV_S);
    jit_cold_slow(t, x86_jcc(&t->e, CC_B, 0));
}

/* A register that any value may be written to; sepc's lowest bit stays 0. */
static bool plain(struct jit_tr *t, const struct rv_insn *in, int32_t disp)
{
    struct emit *e = &t->e;
    unsigned op = operation(in);
    bool writes = op == OP_WRITE || in->rs1;
    need_supervisor(t);
    if (writes && immediate(in))
        x86_mov_imm(e, RAX, in->rs1);
    else if (writes)
        jit_get(t, RAX, in->rs1);
    if (in->rd != 32 || op != OP_WRITE)
        x86_rm(e, X_MOV, true, RCX, RBP, disp);
    if (op == OP_SET)
        x86_rr(e, X_OR, true, RAX, RCX);
    if (op == OP_CLEAR) {
        x86_f7(e, G_NOT, true, RAX);
        x86_rr(e, X_AND, true, RAX, RCX);
    }
    if (writes && in->imm == CSR_SEPC)
        x86_ri(e, G_AND, true, RAX, -2);
    if (writes)
        x86_rm(e, X_MOV_TO, true, RAX, RBP, disp);
    jit_put(t, in->rd, RCX);
    return true;
}

/* rcx = sstatus, if rd wants it. */
static void read_sstatus(struct jit_tr *t, const struct rv_insn *in)
{
    struct emit *e = &t->e;
    if (in->rd == 32)
        return;
    x86_mov_imm(e, RCX, RV_SSTATUS_READ);
    x86_rm(e, X_AND, true, RCX, RBP, JIT_DISP(mstatus));
    x86_rr(e, X_MOV, false, RDX, RCX);
    x86_ri(e, G_AND, false, RDX, MSTATUS_FS);
    x86_ri(e, G_CMP, false, RDX, MSTATUS_FS);
    x86_setcc(e, CC_E, RDX);
    x86_shift_i(e, G_SHL, true, RDX, 63);       /* SD */
    x86_rr(e, X_OR, true, RCX, RDX);
}

/* Reads, and changes of SIE alone; to set it, no interrupt may be waiting for that. */
static bool sstatus(struct jit_tr *t, const struct rv_insn *in)
{
    struct emit *e = &t->e;
    unsigned op = operation(in);
    if (op == OP_WRITE || (immediate(in) && in->rs1 && in->rs1 != MSTATUS_SIE) || !rv_has(t->h, RV_EXT_F))
        return false;
    need_supervisor(t);
    if (in->rs1) {
        if (immediate(in))
            x86_mov_imm(e, RAX, MSTATUS_SIE);
        else
            jit_get(t, RAX, in->rs1);
        if (!immediate(in)) {
            x86_rr(e, X_MOV, true, RDX, RAX);
            x86_ri(e, G_AND, true, RDX, ~(int32_t)MSTATUS_SIE);
            jit_cold_slow(t, x86_jcc(e, CC_NE, 0));
        }
        if (op == OP_SET) {
            x86_rm(e, X_MOV, true, RCX, RBP, JIT_DISP(irq_line));
            x86_rm(e, X_OR, true, RCX, RBP, JIT_DISP(irq_soft));
            x86_rm(e, X_AND, true, RCX, RBP, JIT_DISP(mie));
            jit_cold_slow(t, x86_jcc(e, CC_NE, 0));
        }
    }
    read_sstatus(t, in);
    if (in->rs1 && op == OP_SET) {
        x86_rm(e, X_OR_TO, true, RAX, RBP, JIT_DISP(mstatus));
    } else if (in->rs1) {
        x86_f7(e, G_NOT, true, RAX);
        x86_rm(e, X_AND_TO, true, RAX, RBP, JIT_DISP(mstatus));
    }
    jit_put(t, in->rd, RCX);
    return true;
}

/*
 * fflags is what fflags holds and what the host has collected since. A write leaves the host's alone if it sets all of those, as
 * where a program puts back what it had read before: to load MXCSR takes long. After a comparison of no NaNs there is nothing to do.
 */
static bool fflags(struct jit_tr *t, const struct rv_insn *in)
{
    struct emit *e = &t->e;
    bool writes = operation(in) == OP_WRITE;
    if (t->fp == JIT_FP_SLOW || (!writes && in->rs1) || !rv_has(t->h, RV_EXT_F))
        return false;
    if (t->puts_back[t->i]) {
        jit_cold_unordered(t, t->unordered);
        jit_fs_dirty(t);
        return true;
    }
    x86_rm(e, X_MXCSR, false, 3, RBP, JIT_DISP(jit.mxcsr));                 /* stmxcsr */
    x86_rm(e, X_MOV, false, RCX, RBP, JIT_DISP(jit.mxcsr));
    x86_ri(e, G_AND, false, RCX, 0x3f);
    x86_rx(e, X_MOVZX8, false, RCX, RCX, 0, (uint32_t)(uintptr_t)t->j->flags);
    x86_rm(e, X_MOVZX8, false, RDX, RBP, JIT_DISP(fflags));
    x86_rr(e, X_OR, false, RDX, RCX);
    if (writes) {
        if (immediate(in))
            x86_mov_imm(e, RAX, in->rs1);
        else
            jit_get(t, RAX, in->rs1);
        x86_ri(e, G_AND, false, RAX, 31);
        x86_rm(e, X_MOV8_TO, false, RAX, RBP, JIT_DISP(fflags));
        x86_f7(e, G_NOT, false, RAX);
        x86_rr(e, X_TEST, false, RAX, RCX);
        uint8_t *clean = x86_jcc(e, CC_E, 0);
        x86_mi(e, G_AND, false, RBP, JIT_DISP(jit.mxcsr), ~0x3f);
        x86_rm(e, X_MXCSR, false, 2, RBP, JIT_DISP(jit.mxcsr));             /* ldmxcsr */
        x86_patch(e, clean, emit_here(e));
        jit_fs_dirty(t);
    }
    jit_put(t, in->rd, RDX);
    return true;
}

/* A block of 64 bytes, aligned, where stores need not be noticed. */
static bool zero_block(struct jit_tr *t, const struct rv_insn *in)
{
    struct emit *e = &t->e;
    if (t->h->cpu->cboz_block != 64 || !rv_has(t->h, RV_EXT_S))
        return false;
    need_supervisor(t);
    static_assert(ENVCFG_CBZE == 0x80, "the sign of menvcfg's lowest byte");
    x86_mi8(e, G_CMP, RBP, JIT_DISP(menvcfg), 0);
    jit_cold_slow(t, x86_jcc(e, CC_GE, 0));
    jit_atomic_address(t, in, 64);
    x86_rr(e, X_XORPS, false, 0, 0);
    for (int i = 0; i < 64; i += 16)
        x86_rm(e, X_MOVAPS_TO, false, 0, RAX, i);
    return true;
}

bool jit_emit_sys(struct jit_tr *t, const struct rv_insn *in)
{
    unsigned f = rv_insn_rows[in->op].fmt;
    if (in->op == RV_OP_CBO_ZERO)
        return zero_block(t, in);
    if ((f != RV_FMT_CSR && f != RV_FMT_CSRI) || (in->imm >= CSR_SSTATUS && !rv_has(t->h, RV_EXT_S)))
        return false;                       /* misa may have turned off what the CSR belongs to */
    switch (in->imm) {
    case CSR_FFLAGS: return fflags(t, in);
    case CSR_SSTATUS: return sstatus(t, in);
    case CSR_SSCRATCH: return plain(t, in, JIT_DISP(sscratch));
    case CSR_SEPC: return plain(t, in, JIT_DISP(sepc));
    case CSR_SCAUSE: return plain(t, in, JIT_DISP(scause));
    case CSR_STVAL: return plain(t, in, JIT_DISP(stval));
    default: return false;
    }
}
