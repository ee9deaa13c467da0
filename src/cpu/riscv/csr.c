/* SPDX-License-Identifier: MIT */
/* Control and status registers: which exist, who may touch them, what writes keep. Privileged ISA 1.13, chapter "CSRs". */
#include "cpu/riscv/fpu.h"

#include "cpu/riscv/mmu.h"

enum {
    CSR_FFLAGS = 0x001, CSR_FRM, CSR_FCSR, CSR_CYCLE = 0xc00, CSR_TIME, CSR_INSTRET, CSR_HPM31 = 0xc1f, CSR_SCOUNTOVF = 0xda0,
    CSR_STOPI = 0xdb0, CSR_SSTATUS = 0x100, CSR_SIE = 0x104, CSR_STVEC, CSR_SCOUNTEREN, CSR_SENVCFG = 0x10a, CSR_SSCRATCH = 0x140,
    CSR_SEPC, CSR_SCAUSE, CSR_STVAL, CSR_SIP, CSR_STIMECMP = 0x14d, CSR_SISELECT = 0x150, CSR_SIREG, CSR_STOPEI = 0x15c,
    CSR_SATP = 0x180, CSR_MVENDORID = 0xf11, CSR_MARCHID, CSR_MIMPID, CSR_MHARTID, CSR_MCONFIGPTR, CSR_MTOPI = 0xfb0,
    CSR_MSTATUS = 0x300, CSR_MISA, CSR_MEDELEG, CSR_MIDELEG, CSR_MIE, CSR_MTVEC, CSR_MCOUNTEREN, CSR_MENVCFG = 0x30a,
    CSR_MCOUNTINHIBIT = 0x320, CSR_MHPMEVENT3 = 0x323, CSR_MHPMEVENT31 = 0x33f, CSR_MSCRATCH = 0x340, CSR_MEPC, CSR_MCAUSE, CSR_MTVAL,
    CSR_MIP, CSR_MISELECT = 0x350, CSR_MIREG, CSR_MTOPEI = 0x35c, CSR_PMPCFG0 = 0x3a0, CSR_PMPCFG15 = 0x3af, CSR_PMPADDR0 = 0x3b0,
    CSR_PMPADDR63 = 0x3ef, CSR_MCYCLE = 0xb00, CSR_MINSTRET = 0xb02, CSR_MHPM31 = 0xb1f,
};
#define MSTATUS_RW (RV_SSTATUS_WRITE | MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MPRV | MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR)
#define S_IRQS (BIT64(HART_IRQ_SSI) | BIT64(HART_IRQ_STI) | BIT64(HART_IRQ_SEI) | BIT64(HART_IRQ_LCOF))
#define M_IRQS (BIT64(HART_IRQ_MSI) | BIT64(HART_IRQ_MTI) | BIT64(HART_IRQ_MEI))
#define MEDELEG_RW UINT64_C(0xb3ff)

static uint64_t with_sd(uint64_t s)
{
    return (s & MSTATUS_FS) == MSTATUS_FS ? s | MSTATUS_SD : s;
}

static uint64_t envcfg_mask(const struct hart *h)
{
    uint64_t m = ENVCFG_FIOM;
    m |= rv_has(h, RV_EXT_ZICBOM) ? ENVCFG_CBIE | ENVCFG_CBCFE : 0;
    m |= rv_has(h, RV_EXT_ZICBOZ) ? ENVCFG_CBZE : 0;
    return m;
}

/* One of a field's values is reserved: a write of it keeps the old one. */
static uint64_t envcfg_legal(uint64_t v, uint64_t old)
{
    return (v & ENVCFG_CBIE) == UINT64_C(2) << ENVCFG_CBIE_SHIFT ? (v & ~ENVCFG_CBIE) | (old & ENVCFG_CBIE) : v;
}

static void inhibit_write(struct hart *h, uint64_t v)
{
    uint64_t old[RV_HPM_COUNT];
    for (unsigned n = 0; n < RV_HPM_COUNT; n++)
        old[n] = rv_hpm_read(h, n);
    h->mcountinhibit = v & ~UINT64_C(2) & UINT32_MAX;
    for (unsigned n = 0; n < RV_HPM_COUNT; n++)
        rv_hpm_write(h, n, old[n]);
}

static bool counter_allowed(const struct hart *h, unsigned n)
{
    if (h->priv < RV_M && !(h->mcounteren >> n & 1))
        return false;
    return h->priv != RV_U || !rv_has(h, RV_EXT_S) || (h->scounteren >> n & 1);
}

/* ---- Sstc ---- */

static void stimecmp_write(struct hart *h, uint64_t v)
{
    pthread_mutex_lock(&h->timer_lock);
    atomic_store(&h->stimecmp, v);
    bool due = h->env->time_now(h->env->opaque) >= v;
    if (due)
        atomic_fetch_or(&h->irq_line, BIT64(HART_IRQ_STI));
    else
        atomic_fetch_and(&h->irq_line, ~BIT64(HART_IRQ_STI));
    pthread_mutex_unlock(&h->timer_lock);
    h->env->timer_arm(h->env->opaque, h->index, due ? UINT64_MAX : v);
}

static void soft_write(struct hart *h, uint64_t mask, uint64_t v)
{
    atomic_fetch_and(&h->irq_soft, ~(mask & ~v));
    atomic_fetch_or(&h->irq_soft, mask & v);
}

/* ---- AIA: indirect registers and top interrupts ---- */

/* The CPU model says so, or the board brings an interrupt file. */
static bool has_aia(const struct hart *h, enum rv_ext e) { return h->env->imsic || rv_has(h, e); }

static bool imsic_reg(struct hart *h, bool m, uint64_t *old, uint64_t v, uint64_t mask)
{
    const struct hart_imsic_ops *o = h->env->imsic;
    uint64_t sel = m ? h->miselect : h->siselect;
    if (sel >= 0x30 && sel <= 0x3f) {       /* priorities of major interrupts: fixed */
        *old = 0;
        return !(sel & 1);
    }
    return o && sel >= 0x70 && sel <= 0xff && o->rmw(h->env->imsic_opaque, h->index, m ? 3 : 1, (unsigned)sel, old, v, mask);
}

static uint64_t topi(struct hart *h, bool m)
{
    static const uint8_t order[] = { HART_IRQ_MEI, HART_IRQ_MSI, HART_IRQ_MTI, HART_IRQ_SEI, HART_IRQ_SSI, HART_IRQ_STI, HART_IRQ_LCOF };
    uint64_t ready = rv_mip(h) & h->mie & (m ? ~h->mideleg : h->mideleg);
    for (unsigned i = 0; ready && i < sizeof order; i++)
        if (ready >> order[i] & 1)
            return (uint64_t)order[i] << 16 | 1;
    return 0;
}

/* ---- PMP ---- */

static uint64_t pmpcfg_read(const struct hart *h, unsigned reg)
{
    return reg * 4 < RV_PMP_COUNT ? ld_le64(&h->pmpcfg[reg * 4]) : 0;
}

static void pmpcfg_write(struct hart *h, unsigned reg, uint64_t v)
{
    for (unsigned i = 0; i < 8 && reg * 4 + i < RV_PMP_COUNT; i++) {
        uint8_t c = v >> 8 * i & 0x9f;
        if (h->pmpcfg[reg * 4 + i] & RV_PMP_L)
            continue;
        if ((c & (RV_PMP_R | RV_PMP_W)) == RV_PMP_W)
            c &= (uint8_t)~RV_PMP_W;        /* reserved combination */
        h->pmpcfg[reg * 4 + i] = c;
    }
    rv_pmp_changed(h);
    rv_tlb_flush_all(h);
}

static void pmpaddr_write(struct hart *h, unsigned n, uint64_t v)
{
    bool next_tor = n + 1 < RV_PMP_COUNT && (h->pmpcfg[n + 1] & RV_PMP_L) && (h->pmpcfg[n + 1] >> 3 & 3) == 1;
    if (n >= RV_PMP_COUNT || (h->pmpcfg[n] & RV_PMP_L) || next_tor)
        return;
    h->pmpaddr[n] = v & (BIT64(54) - 1);
    rv_pmp_changed(h);
    rv_tlb_flush_all(h);
}

/* ---- status and translation ---- */

/* Fields that this hart has: what only matters to a mode or a unit that is missing reads as zero. */
static uint64_t mstatus_fields(const struct hart *h)
{
    uint64_t m = MSTATUS_RW;
    if (!rv_has(h, RV_EXT_S))
        m &= ~(MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_SUM | MSTATUS_MXR | MSTATUS_TVM | MSTATUS_TSR);
    if (!rv_has(h, RV_EXT_U))
        m &= ~(MSTATUS_MPRV | MSTATUS_TW);
    return rv_has(h, RV_EXT_F) ? m : m & ~MSTATUS_FS;
}

static bool has_mode(const struct hart *h, unsigned priv)
{
    return priv == RV_M || (priv == RV_S && rv_has(h, RV_EXT_S)) || (priv == RV_U && rv_has(h, RV_EXT_U));
}

static void mstatus_write(struct hart *h, uint64_t v, uint64_t mask)
{
    mask &= mstatus_fields(h);
    uint64_t s = (h->mstatus & ~mask) | (v & mask);
    if (!has_mode(h, s >> MSTATUS_MPP_SHIFT & 3))
        s = (s & ~MSTATUS_MPP) | (h->mstatus & MSTATUS_MPP);
    uint64_t changed = h->mstatus ^ s;
    h->mstatus = s;
    if (changed & (MSTATUS_MPRV | MSTATUS_MPP | MSTATUS_SUM | MSTATUS_MXR))
        rv_ctx_update(h);
}

static void satp_write(struct hart *h, uint64_t v)
{
    unsigned mode = v >> 60;
    if (mode && mode != 8 && !(mode == 9 && (h->cpu->sv48 || h->cpu->sv57)) && !(mode == 10 && h->cpu->sv57))
        return;                             /* WARL: the whole write has no effect */
    h->satp = mode ? v : 0;
    rv_ctx_update(h);
}

/* ---- access ---- */

/* The host FPU collects flags for the hart on its own thread only; elsewhere (debugger, reset) it stands, and they are merged. */
static void fpu_sync(struct hart *h)
{
    if (hart_self() == h)
        rv_fpu_sync(h);
}

static bool read_low(struct hart *h, unsigned n, uint64_t *v)
{
    switch (n) {
    case CSR_FFLAGS: fpu_sync(h); *v = h->fflags; return true;
    case CSR_FRM: *v = h->frm; return true;
    case CSR_FCSR: fpu_sync(h); *v = h->fflags | (uint64_t)h->frm << 5; return true;
    case CSR_SSTATUS: *v = with_sd(h->mstatus & RV_SSTATUS_READ); return true;
    case CSR_SIE: *v = h->mie & h->mideleg; return true;
    case CSR_STVEC: *v = h->stvec; return true;
    case CSR_SCOUNTEREN: *v = h->scounteren; return true;
    case CSR_SENVCFG: *v = h->senvcfg; return true;
    case CSR_SSCRATCH: *v = h->sscratch; return true;
    case CSR_SEPC: *v = h->sepc; return true;
    case CSR_SCAUSE: *v = h->scause; return true;
    case CSR_STVAL: *v = h->stval; return true;
    case CSR_SIP: *v = rv_mip(h) & h->mideleg; return true;
    case CSR_STIMECMP: *v = atomic_load(&h->stimecmp); return rv_has(h, RV_EXT_SSTC);
    case CSR_SATP: *v = h->satp; return true;
    case CSR_SCOUNTOVF: *v = rv_hpm_overflows(h); return rv_has(h, RV_EXT_SSCOFPMF);
    case CSR_SISELECT: *v = h->siselect; return has_aia(h, RV_EXT_SSAIA);
    case CSR_SIREG: return has_aia(h, RV_EXT_SSAIA) && imsic_reg(h, false, v, 0, 0);
    case CSR_STOPEI: *v = h->env->imsic ? h->env->imsic->topei(h->env->imsic_opaque, h->index, 1, false) : 0; return h->env->imsic;
    case CSR_STOPI: *v = topi(h, false); return has_aia(h, RV_EXT_SSAIA);
    default: return false;
    }
}

static bool read_machine(struct hart *h, unsigned n, uint64_t *v)
{
    switch (n) {
    case CSR_MVENDORID: *v = h->cpu->vendor_id; return true;
    case CSR_MARCHID: *v = h->cpu->arch_id; return true;
    case CSR_MIMPID: *v = h->cpu->imp_id; return true;
    case CSR_MHARTID: *v = h->mhartid; return true;
    case CSR_MCONFIGPTR: *v = 0; return true;
    case CSR_MSTATUS: *v = with_sd(h->mstatus); return true;
    case CSR_MISA: *v = h->misa; return true;
    case CSR_MEDELEG: *v = h->medeleg; return true;
    case CSR_MIDELEG: *v = h->mideleg; return true;
    case CSR_MIE: *v = h->mie; return true;
    case CSR_MTVEC: *v = h->mtvec; return true;
    case CSR_MCOUNTEREN: *v = h->mcounteren; return true;
    case CSR_MENVCFG: *v = h->menvcfg; return true;
    case CSR_MCOUNTINHIBIT: *v = h->mcountinhibit; return true;
    case CSR_MSCRATCH: *v = h->mscratch; return true;
    case CSR_MEPC: *v = h->mepc; return true;
    case CSR_MCAUSE: *v = h->mcause; return true;
    case CSR_MTVAL: *v = h->mtval; return true;
    case CSR_MIP: *v = rv_mip(h); return true;
    case CSR_MISELECT: *v = h->miselect; return has_aia(h, RV_EXT_SMAIA);
    case CSR_MIREG: return has_aia(h, RV_EXT_SMAIA) && imsic_reg(h, true, v, 0, 0);
    case CSR_MTOPEI: *v = h->env->imsic ? h->env->imsic->topei(h->env->imsic_opaque, h->index, 3, false) : 0; return h->env->imsic;
    case CSR_MTOPI: *v = topi(h, true); return has_aia(h, RV_EXT_SMAIA);
    default: return false;
    }
}

static bool csr_read(struct hart *h, unsigned n, uint64_t *v)
{
    if (n >= CSR_CYCLE && n <= CSR_HPM31 && !rv_has(h, n <= CSR_INSTRET ? RV_EXT_ZICNTR : RV_EXT_ZIHPM))
        return false;
    if (((n >> 8 & 3) == RV_S || n == CSR_MEDELEG || n == CSR_MIDELEG) && !rv_has(h, RV_EXT_S))
        return false;
    if ((n == CSR_MCOUNTEREN || n == CSR_MENVCFG) && !rv_has(h, RV_EXT_U))
        return false;
    if (n == CSR_TIME) {
        *v = h->env->time_now(h->env->opaque);
        return true;
    }
    if ((n >= CSR_CYCLE && n <= CSR_HPM31) || (n >= CSR_MCYCLE && n <= CSR_MHPM31 && n != CSR_MCYCLE + 1)) {
        *v = rv_hpm_read(h, n & 31);
        return true;
    }
    if (n >= CSR_MHPMEVENT3 && n <= CSR_MHPMEVENT31) {
        *v = h->hpm_event[n & 31];
        return true;
    }
    if (n >= CSR_PMPCFG0 && n <= CSR_PMPCFG15) {
        *v = pmpcfg_read(h, n - CSR_PMPCFG0);
        return rv_has(h, RV_EXT_PMP) && !(n & 1);
    }
    if (n >= CSR_PMPADDR0 && n <= CSR_PMPADDR63) {
        *v = n - CSR_PMPADDR0 < RV_PMP_COUNT ? h->pmpaddr[n - CSR_PMPADDR0] : 0;
        return rv_has(h, RV_EXT_PMP);
    }
    return read_low(h, n, v) || read_machine(h, n, v);
}

static void fcsr_write(struct hart *h, uint64_t flags, uint64_t rm)
{
    fpu_sync(h);
    h->fflags = flags & 31;
    h->frm = rm & 7;
    if (hart_self() == h)
        rv_fpu_frm_changed(h);
    h->mstatus |= MSTATUS_FS;
}

static uint64_t pc_mask(const struct hart *h) { return rv_has(h, RV_EXT_C) ? ~UINT64_C(1) : ~UINT64_C(3); }

static void write_low(struct hart *h, unsigned n, uint64_t v)
{
    uint64_t old;
    switch (n) {
    case CSR_FFLAGS: fcsr_write(h, v, h->frm); break;
    case CSR_FRM: fpu_sync(h); fcsr_write(h, h->fflags, v); break;
    case CSR_FCSR: fcsr_write(h, v, v >> 5); break;
    case CSR_SSTATUS: mstatus_write(h, v, RV_SSTATUS_WRITE); break;
    case CSR_SIE: h->mie = (h->mie & ~h->mideleg) | (v & h->mideleg); break;
    case CSR_STVEC: h->stvec = v & ~UINT64_C(2); break;
    case CSR_SCOUNTEREN: h->scounteren = v & UINT32_MAX; break;
    case CSR_SENVCFG: h->senvcfg = envcfg_legal(v, h->senvcfg) & envcfg_mask(h); break;
    case CSR_SSCRATCH: h->sscratch = v; break;
    case CSR_SEPC: h->sepc = v & pc_mask(h); break;
    case CSR_SCAUSE: h->scause = v; break;
    case CSR_STVAL: h->stval = v; break;
    case CSR_SIP: soft_write(h, h->mideleg & (BIT64(HART_IRQ_SSI) | BIT64(HART_IRQ_LCOF)), v); break;
    case CSR_STIMECMP: stimecmp_write(h, v); break;
    case CSR_SATP: satp_write(h, v); break;
    case CSR_SISELECT: h->siselect = v & 0xfff; break;
    case CSR_SIREG: imsic_reg(h, false, &old, v, UINT64_MAX); break;
    default: break;
    }
}

static void write_machine(struct hart *h, unsigned n, uint64_t v)
{
    uint64_t old, env = envcfg_mask(h) | (rv_has(h, RV_EXT_SVADU) ? ENVCFG_ADUE : 0) | (rv_has(h, RV_EXT_SVPBMT) ? ENVCFG_PBMTE : 0) |
                        (rv_has(h, RV_EXT_SSTC) ? ENVCFG_STCE : 0);
    switch (n) {
    case CSR_MSTATUS: mstatus_write(h, v, MSTATUS_RW); break;
    case CSR_MEDELEG: h->medeleg = v & MEDELEG_RW; break;
    case CSR_MIDELEG: h->mideleg = v & S_IRQS; break;
    case CSR_MIE: h->mie = v & (S_IRQS | M_IRQS); break;
    case CSR_MTVEC: h->mtvec = v & ~UINT64_C(2); break;
    case CSR_MCOUNTEREN: h->mcounteren = v & UINT32_MAX; break;
    case CSR_MENVCFG:
        h->menvcfg = envcfg_legal(v, h->menvcfg) & env;
        rv_tlb_flush_all(h);
        break;
    case CSR_MCOUNTINHIBIT: inhibit_write(h, v); break;
    case CSR_MSCRATCH: h->mscratch = v; break;
    case CSR_MEPC: h->mepc = v & pc_mask(h); break;
    case CSR_MCAUSE: h->mcause = v; break;
    case CSR_MTVAL: h->mtval = v; break;
    case CSR_MIP: soft_write(h, BIT64(HART_IRQ_SSI) | BIT64(HART_IRQ_SEI) | BIT64(HART_IRQ_LCOF) |
                             (h->menvcfg & ENVCFG_STCE ? 0 : BIT64(HART_IRQ_STI)), v); break;
    case CSR_MISELECT: h->miselect = v & 0xfff; break;
    case CSR_MIREG: imsic_reg(h, true, &old, v, UINT64_MAX); break;
    default: break;
    }
}

static void csr_write(struct hart *h, unsigned n, uint64_t v)
{
    if (n >= CSR_MCYCLE && n <= CSR_MHPM31)
        rv_hpm_write(h, n & 31, v);
    else if (n >= CSR_MHPMEVENT3 && n <= CSR_MHPMEVENT31)
        rv_hpm_event_write(h, n & 31, v);
    else if (n >= CSR_PMPCFG0 && n <= CSR_PMPCFG15)
        pmpcfg_write(h, n - CSR_PMPCFG0, v);
    else if (n >= CSR_PMPADDR0 && n <= CSR_PMPADDR63)
        pmpaddr_write(h, n - CSR_PMPADDR0, v);
    else if (n < CSR_MSTATUS)
        write_low(h, n, v);
    else
        write_machine(h, n, v);
}

static bool permitted(struct hart *h, unsigned n)
{
    if (n <= CSR_FCSR && n)
        return rv_has(h, RV_EXT_F) && (h->mstatus & MSTATUS_FS);
    if (n >= CSR_CYCLE && n <= CSR_HPM31)
        return counter_allowed(h, n & 31);
    if (n == CSR_SATP)
        return !(h->priv == RV_S && (h->mstatus & MSTATUS_TVM));
    if (n == CSR_STIMECMP && h->priv < RV_M)
        return (h->menvcfg & ENVCFG_STCE) && (h->mcounteren & 2);
    return true;
}

bool rv_csr_access(struct hart *h, unsigned num, bool rd, bool wr, unsigned op, uint64_t val, uint64_t *old, uint32_t raw)
{
    bool read_only = num >> 10 == 3;
    uint64_t cur = 0;
    if (h->priv < (num >> 8 & 3) || (wr && read_only) || !permitted(h, num) || !csr_read(h, num, &cur))
        return rv_trap_set(h, RV_EXC_ILLEGAL, raw);
    *old = cur;
    if (!wr)
        return true;
    /* What a write of topei claims is what it returns, whatever arrives meanwhile. */
    if (num == CSR_STOPEI || num == CSR_MTOPEI) {
        *old = h->env->imsic->topei(h->env->imsic_opaque, h->index, num == CSR_MTOPEI ? 3 : 1, true);
        return true;
    }
    /* A read-modify-write of mip must not turn line levels into software bits. */
    if (op && (num == CSR_MIP || num == CSR_SIP))
        cur = atomic_load(&h->irq_soft);
    uint64_t v = op == 0 ? val : op == 1 ? cur | val : cur & ~val;
    if (num >= CSR_MCYCLE && num <= CSR_MHPM31)
        rv_hpm_write_insn(h, num & 31, v);
    else
        csr_write(h, num, v);
    return true;
}

bool rv_csr_plain(unsigned num)
{
    switch (num) {
    case CSR_FFLAGS: case CSR_SSCRATCH: case CSR_SEPC: case CSR_SCAUSE: case CSR_STVAL: case CSR_STVEC: case CSR_MSCRATCH: case CSR_MEPC:
    case CSR_MCAUSE: case CSR_MTVAL: case CSR_MTVEC: case CSR_SCOUNTEREN: case CSR_MCOUNTEREN: case CSR_SISELECT: case CSR_MISELECT:
        return true;
    default:
        return false;
    }
}

bool rv_csr_peek(struct hart *h, unsigned num, uint64_t *val)
{
    return num < 0x1000 && csr_read(h, num, val);
}

bool rv_csr_poke(struct hart *h, unsigned num, uint64_t val)
{
    uint64_t old;
    if (num >= 0x1000 || !csr_read(h, num, &old) || num >> 10 == 3)
        return false;
    csr_write(h, num, val);
    return true;
}
