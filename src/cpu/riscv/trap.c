/* SPDX-License-Identifier: MIT */
/* Traps: entry, return, interrupt priorities and delegation. Privileged ISA, "Machine-Level ISA" and "Supervisor-Level ISA". */
#include <inttypes.h>

#include "base/log.h"
#include "cpu/riscv/cpu.h"

void rv_set_priv(struct hart *h, unsigned priv)
{
    uint64_t now = rv_retired(h);
    h->mode_insns[h->priv] += now - h->mode_since;
    h->mode_since = now;
    h->priv = (uint8_t)priv;
}

static uint64_t trap_vector(uint64_t tvec, uint64_t cause)
{
    uint64_t base = tvec & ~UINT64_C(3);
    return (tvec & 1) && (cause & RV_CAUSE_IRQ) ? base + 4 * (cause & ~RV_CAUSE_IRQ) : base;
}

static void log_trap(const struct hart *h, uint64_t pc, unsigned to)
{
    log_write("hart %" PRIu64 ": %s %" PRIu64 " tval 0x%" PRIx64 " pc 0x%" PRIx64 ", mode %u to %u", h->mhartid,
              h->trap.cause & RV_CAUSE_IRQ ? "interrupt" : "exception", h->trap.cause & ~RV_CAUSE_IRQ, h->trap.tval, pc,
              h->priv, to);
}

/* The traps of translations and of memory that is not there, not the walks that failed: some of those are only tried. */
static void log_fault(const struct hart *h)
{
    static const char *const names[] = {
        [RV_EXC_FETCH_ACCESS] = "fetch access", [RV_EXC_LOAD_ACCESS] = "load access", [RV_EXC_STORE_ACCESS] = "store access",
        [RV_EXC_FETCH_PAGE] = "fetch page", [RV_EXC_LOAD_PAGE] = "load page", [RV_EXC_STORE_PAGE] = "store page",
    };
    if (h->trap.cause < ARRAY_SIZE(names) && names[h->trap.cause])
        log_write("hart %" PRIu64 ": %s fault at 0x%" PRIx64 ", satp 0x%" PRIx64, h->mhartid, names[h->trap.cause], h->trap.tval, h->satp);
}

static void enter_s(struct hart *h, uint64_t pc)
{
    uint64_t s = h->mstatus & ~(MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_SIE);
    if (h->mstatus & MSTATUS_SIE)
        s |= MSTATUS_SPIE;
    if (h->priv == RV_S)
        s |= MSTATUS_SPP;
    h->mstatus = s;
    h->sepc = pc;
    h->scause = h->trap.cause;
    h->stval = h->trap.tval;
    h->pc = trap_vector(h->stvec, h->trap.cause);
    rv_set_priv(h, RV_S);
}

static void enter_m(struct hart *h, uint64_t pc)
{
    uint64_t s = h->mstatus & ~(MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MIE);
    if (h->mstatus & MSTATUS_MIE)
        s |= MSTATUS_MPIE;
    h->mstatus = s | (uint64_t)h->priv << MSTATUS_MPP_SHIFT;
    h->mepc = pc;
    h->mcause = h->trap.cause;
    h->mtval = h->trap.tval;
    h->pc = trap_vector(h->mtvec, h->trap.cause);
    rv_set_priv(h, RV_M);
}

void rv_trap_take(struct hart *h, uint64_t pc)
{
    uint64_t code = h->trap.cause & ~RV_CAUSE_IRQ;
    uint64_t deleg = h->trap.cause & RV_CAUSE_IRQ ? h->mideleg : h->medeleg;
    bool to_s = h->priv <= RV_S && code < 64 && (deleg >> code & 1);

    if (log_on(LOG_INT))
        log_trap(h, pc, to_s ? RV_S : RV_M);
    if (log_on(LOG_MMU))
        log_fault(h);
    if (h->trap.cause & RV_CAUSE_IRQ)
        h->stats.irqs++;
    else
        h->stats.traps++;
    if (to_s)
        enter_s(h, pc);
    else
        enter_m(h, pc);
    rv_ctx_update(h);
}

uint64_t rv_mip(struct hart *h)
{
    return atomic_load_explicit(&h->irq_line, memory_order_acquire) | atomic_load_explicit(&h->irq_soft, memory_order_acquire);
}

unsigned rv_irq_pending(struct hart *h)
{
    /* Descending priority: MEI, MSI, MTI, SEI, SSI, STI, LCOFI. */
    static const uint8_t order[] = { HART_IRQ_MEI, HART_IRQ_MSI, HART_IRQ_MTI, HART_IRQ_SEI, HART_IRQ_SSI, HART_IRQ_STI, HART_IRQ_LCOF };
    uint64_t ready = rv_mip(h) & h->mie;
    if (likely(!ready) || h->plan == RV_PLAN_STEP)
        return 0;
    bool m_on = h->priv < RV_M || (h->mstatus & MSTATUS_MIE);
    bool s_on = h->priv < RV_S || (h->priv == RV_S && (h->mstatus & MSTATUS_SIE));
    uint64_t take = m_on ? ready & ~h->mideleg : 0;
    if (!take)
        take = s_on ? ready & h->mideleg : 0;
    for (unsigned i = 0; take && i < sizeof order; i++)
        if (take >> order[i] & 1)
            return order[i];
    return 0;
}

bool rv_irq_take(struct hart *h)
{
    unsigned irq = rv_irq_pending(h);
    if (likely(!irq))
        return false;
    rv_trap_set(h, RV_CAUSE_IRQ | irq, 0);
    rv_trap_take(h, h->pc);
    return true;
}

bool rv_sret(struct hart *h)
{
    if (h->priv < RV_S || (h->priv == RV_S && (h->mstatus & MSTATUS_TSR)) || !rv_has(h, RV_EXT_S))
        return rv_trap_set(h, RV_EXC_ILLEGAL, 0x10200073);
    unsigned to = h->mstatus & MSTATUS_SPP ? RV_S : RV_U;
    if (to == RV_U)
        rv_code_look(h);
    uint64_t s = h->mstatus & ~(MSTATUS_SIE | MSTATUS_SPP | MSTATUS_MPRV);
    if (h->mstatus & MSTATUS_SPIE)
        s |= MSTATUS_SIE;
    h->mstatus = s | MSTATUS_SPIE;
    h->pc = h->sepc & (rv_has(h, RV_EXT_C) ? ~UINT64_C(1) : ~UINT64_C(3));
    rv_set_priv(h, to);
    rv_ctx_update(h);
    return true;
}

bool rv_mret(struct hart *h)
{
    if (h->priv < RV_M)
        return rv_trap_set(h, RV_EXC_ILLEGAL, 0x30200073);
    unsigned to = h->mstatus >> MSTATUS_MPP_SHIFT & 3, least = rv_has(h, RV_EXT_U) ? RV_U : RV_M;
    if (to == RV_U)
        rv_code_look(h);
    uint64_t s = h->mstatus & ~(MSTATUS_MIE | MSTATUS_MPP);
    if (to != RV_M)
        s &= ~MSTATUS_MPRV;
    if (h->mstatus & MSTATUS_MPIE)
        s |= MSTATUS_MIE;
    h->mstatus = s | MSTATUS_MPIE | (uint64_t)least << MSTATUS_MPP_SHIFT;
    h->pc = h->mepc & (rv_has(h, RV_EXT_C) ? ~UINT64_C(1) : ~UINT64_C(3));
    rv_set_priv(h, to);
    rv_ctx_update(h);
    return true;
}
