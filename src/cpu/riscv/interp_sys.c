/* SPDX-License-Identifier: MIT */
/* The interpreter's system instructions. */
#include "cpu/riscv/interp_int.h"
#include "cpu/riscv/mmu.h"

static enum step trap(struct hart *h, uint64_t cause, uint64_t tval)
{
    rv_trap_set(h, cause, tval);
    return TRAP;
}

static enum step illegal(struct hart *h, const struct rv_insn *in)
{
    return trap(h, RV_EXC_ILLEGAL, in->raw);
}

static enum step csr(struct hart *h, const struct rv_insn *in)
{
    bool imm = rv_insn_rows[in->op].fmt == RV_FMT_CSRI;
    unsigned op = in->op == RV_OP_CSRRW || in->op == RV_OP_CSRRWI ? 0 : in->op == RV_OP_CSRRS || in->op == RV_OP_CSRRSI ? 1 : 2;
    uint64_t val = imm ? in->rs1 : h->x[in->rs1], old;
    bool wr = op == 0 || in->rs1;
    if (!rv_csr_access(h, (unsigned)in->imm, in->rd != 32, wr, op, val, &old, in->raw))
        return TRAP;
    h->x[in->rd] = old;
    return wr && !rv_csr_plain((unsigned)in->imm) ? LEAVE : NEXT;
}

static enum step ecall(struct hart *h)
{
    if (h->priv == RV_S && h->env->ecall && h->env->ecall(h, h->env->opaque))
        return LEAVE;
    return trap(h, h->priv == RV_U ? RV_EXC_ECALL_U : h->priv == RV_S ? RV_EXC_ECALL_S : RV_EXC_ECALL_M, 0);
}

static enum step sfence(struct hart *h, const struct rv_insn *in)
{
    if (h->priv == RV_U || (h->priv == RV_S && (h->mstatus & MSTATUS_TVM)))
        return illegal(h, in);
    rv_tlb_flush(h, in->rs1, h->x[in->rs1], in->rs2, h->x[in->rs2] & 0xffff);
    return LEAVE;
}

/* CBIE, CBCFE and CBZE of menvcfg and senvcfg: CMO specification, section 2.6. */
static bool cbo_allowed(const struct hart *h, uint64_t field)
{
    return (h->priv == RV_M || (h->menvcfg & field)) && (h->priv != RV_U || !rv_has(h, RV_EXT_S) || (h->senvcfg & field));
}

/* Caches are coherent here: only the checks remain. */
static enum step cbo(struct hart *h, const struct rv_insn *in)
{
    uint64_t va = h->x[in->rs1];
    unsigned block = in->op == RV_OP_CBO_ZERO ? h->cpu->cboz_block : h->cpu->cbom_block;
    struct rv_place p;
    if (!cbo_allowed(h, in->op == RV_OP_CBO_ZERO ? ENVCFG_CBZE : in->op == RV_OP_CBO_INVAL ? ENVCFG_CBIE : ENVCFG_CBCFE))
        return illegal(h, in);
    va = align_down(va, block);
    if (in->op != RV_OP_CBO_ZERO) {
        if (rv_locate(h, va, 1, RV_ACC_READ, &p) || rv_locate(h, va, 1, RV_ACC_WRITE, &p))
            return p.host || view_lookup(view_get(h->mem), p.pa) ? NEXT : trap(h, RV_EXC_STORE_ACCESS, va);
        h->trap.cause = h->trap.cause == RV_EXC_LOAD_PAGE ? RV_EXC_STORE_PAGE : h->trap.cause;
        return TRAP;
    }
    if (!rv_locate(h, va, block, RV_ACC_WRITE, &p))
        return TRAP;
    if (likely(p.host && !p.ram)) {
        memset(p.host, 0, block);
        return NEXT;
    }
    for (unsigned i = 0; i < block; i += 8)             /* a device, or RAM where stores must be noticed */
        if (!rv_store(h, va + i, 8, 0))
            return TRAP;
    return NEXT;
}

static enum step wfi(struct hart *h, const struct rv_insn *in)
{
    if ((h->priv == RV_U && rv_has(h, RV_EXT_S)) || (h->priv < RV_M && (h->mstatus & MSTATUS_TW)))
        return illegal(h, in);
    hart_wait(h);
    return LEAVE;
}

enum step interp_system(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    switch (in->op) {
    case RV_OP_FENCE:
        if (in->raw == RV_INSN_PAUSE)
            hart_yield(h);
        atomic_thread_fence(memory_order_seq_cst);
        return NEXT;
    case RV_OP_FENCE_I:
        rv_fence_i(h);
        return LEAVE;
    case RV_OP_ECALL:
        return ecall(h);
    case RV_OP_EBREAK:
        return trap(h, RV_EXC_BREAKPOINT, pc);
    case RV_OP_CSRRW: case RV_OP_CSRRS: case RV_OP_CSRRC: case RV_OP_CSRRWI: case RV_OP_CSRRSI: case RV_OP_CSRRCI:
        return csr(h, in);
    case RV_OP_CBO_INVAL: case RV_OP_CBO_CLEAN: case RV_OP_CBO_FLUSH: case RV_OP_CBO_ZERO:
        return cbo(h, in);
    case RV_OP_SRET:
        return rv_sret(h) ? LEAVE : TRAP;
    case RV_OP_MRET:
        return rv_mret(h) ? LEAVE : TRAP;
    case RV_OP_WFI:
        return wfi(h, in);
    case RV_OP_SFENCE_VMA: case RV_OP_SINVAL_VMA:
        return sfence(h, in);
    case RV_OP_SFENCE_W_INVAL: case RV_OP_SFENCE_INVAL_IR:
        return h->priv == RV_U ? illegal(h, in) : NEXT;
    case RV_OP_WRS_NTO: case RV_OP_WRS_STO:
        hart_yield(h);
        return LEAVE;                       /* may end at any time */
    default:
        return illegal(h, in);
    }
}
