/* SPDX-License-Identifier: MIT */
/* SBI 2.0: dispatch, and the extensions base, timer, IPI, RFENCE and legacy (chapters 4 to 8). */
#include "hw/riscv/sbi.h"

#include "base/bits.h"
#include "core/run.h"
#include "hw/riscv/aclint.h"
#include "mem/view.h"

#define SBI_SPEC_VERSION (2u << 24)
#define SBI_IMPL_ID 0x42504cu           /* not registered: "BPL" */
#define SBI_IMPL_VERSION 1u
#define CSR_STIMECMP 0x14d
#define PAGES_BY_ONE 16u                /* more pages than this are flushed by address space */

static struct sbi_ret sbi_probe(struct sbi *s, uint64_t eid);

static struct sbi_ret ret(int64_t error, uint64_t value)
{
    return (struct sbi_ret){ error, value };
}

/* Bit per hart index of a (mask, base) pair; false: a hart that does not exist. */
static bool hart_mask(struct sbi *s, uint64_t mask, uint64_t base, uint64_t *out)
{
    unsigned n = hart_set_count(s->harts);
    uint64_t all = n >= 64 ? UINT64_MAX : BIT64(n) - 1;
    if (base == UINT64_MAX) {
        *out = all;
        return true;
    }
    if (base >= n && mask)
        return false;
    *out = base >= 64 ? 0 : mask << base;
    return !(*out & ~all) && (!base || base >= 64 || !(mask >> (64 - base)));
}

/* Counts @ev for every hart in @mask. */
static void count(struct sbi *s, uint64_t mask, enum sbi_fw_event ev)
{
    for (; mask; mask &= mask - 1)
        atomic_fetch_add_explicit(&s->hart[ctz64(mask)].fw[ev], 1, memory_order_relaxed);
}

static struct sbi_ret base_call(struct sbi_call *c)
{
    switch (c->fid) {
    case 0: return ret(0, SBI_SPEC_VERSION);
    case 1: return ret(0, SBI_IMPL_ID);
    case 2: return ret(0, SBI_IMPL_VERSION);
    case 3: return sbi_probe(c->sbi, c->a[0]);
    case 4: return ret(0, c->sbi->cpu->vendor_id);
    case 5: return ret(0, c->sbi->cpu->arch_id);
    case 6: return ret(0, c->sbi->cpu->imp_id);
    default: return ret(SBI_ERR_NOT_SUPPORTED, 0);
    }
}

/* With Sstc the hart compares by itself; else the board's comparator raises STIP, which the next call takes back. */
static void set_timer(struct sbi_call *c, uint64_t deadline)
{
    count(c->sbi, BIT64(c->self), SBI_FW_SET_TIMER);
    if (c->sbi->sstc) {
        hart_reg_write(c->hart, 65 + CSR_STIMECMP, deadline);
    } else {
        hart_irq_set(c->hart, HART_IRQ_STI, false);
        aclint_mtimer_arm_s(c->sbi->mtimer, c->self, deadline);
    }
}

void sbi_timer_fired(struct sbi *s, unsigned hart)
{
    struct hart *h = hart_get(s->harts, hart);
    if (s->sstc)
        hart_timer_fire(h);
    else
        hart_irq_set(h, HART_IRQ_STI, true);
}

static struct sbi_ret time_call(struct sbi_call *c)
{
    if (c->fid != 0)
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    set_timer(c, c->a[0]);
    return ret(0, 0);
}

static void send_ipi(struct sbi_call *c, uint64_t mask)
{
    count(c->sbi, BIT64(c->self), SBI_FW_IPI_SENT);
    count(c->sbi, mask, SBI_FW_IPI_RECEIVED);
    for (; mask; mask &= mask - 1)
        hart_irq_set(hart_get(c->sbi->harts, ctz64(mask)), HART_IRQ_SSI, true);
}

static struct sbi_ret ipi_call(struct sbi_call *c)
{
    uint64_t mask;
    if (c->fid != 0)
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    if (!hart_mask(c->sbi, c->a[0], c->a[1], &mask))
        return ret(SBI_ERR_INVALID_PARAM, 0);
    send_ipi(c, mask);
    return ret(0, 0);
}

/* Harts that are off have nothing cached that outlives their start. */
static uint64_t started(struct sbi *s, uint64_t mask)
{
    uint64_t on = 0;
    for (; mask; mask &= mask - 1)
        if (hart_is_on(hart_get(s->harts, ctz64(mask))))
            on |= mask & -mask;
    return on;
}

static void fence_i(struct sbi_call *c, uint64_t mask)
{
    count(c->sbi, BIT64(c->self), SBI_FW_FENCE_I_SENT);
    count(c->sbi, mask, SBI_FW_FENCE_I_RECEIVED);
    hart_request_sync(c->sbi->harts, started(c->sbi, mask), hart_do_fence_i, 0, 0);
}

static void sfence(struct sbi_call *c, uint64_t mask, uint64_t start, uint64_t size)
{
    count(c->sbi, BIT64(c->self), SBI_FW_SFENCE_SENT);
    count(c->sbi, mask, SBI_FW_SFENCE_RECEIVED);
    hart_request_sync(c->sbi->harts, started(c->sbi, mask), hart_do_sfence_vma, start, size);
}

static void sfence_asid(struct sbi_call *c, uint64_t mask, uint64_t start, uint64_t size, uint64_t asid)
{
    count(c->sbi, BIT64(c->self), SBI_FW_SFENCE_ASID_SENT);
    count(c->sbi, mask, SBI_FW_SFENCE_ASID_RECEIVED);
    mask = started(c->sbi, mask);
    uint64_t first = start & ~UINT64_C(0xfff);
    bool all = (!start && !size) || size == UINT64_MAX || size > (PAGES_BY_ONE - 1) * 4096;
    if (all) {
        hart_request_sync(c->sbi->harts, mask, hart_do_sfence_asid, UINT64_MAX, asid);
        return;
    }
    for (uint64_t done = 0; done < size + (start - first); done += 4096)
        hart_request_sync(c->sbi->harts, mask, hart_do_sfence_asid, first + done, asid);
}

/* Chapter 8; the hypervisor fences 3..6 do not exist without the H extension. */
static struct sbi_ret rfence_call(struct sbi_call *c)
{
    uint64_t mask;
    if (c->fid > 2)
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    if (!hart_mask(c->sbi, c->a[0], c->a[1], &mask))
        return ret(SBI_ERR_INVALID_PARAM, 0);
    if (c->fid && c->a[3] != UINT64_MAX && c->a[2] + c->a[3] < c->a[2])
        return ret(SBI_ERR_INVALID_ADDRESS, 0);
    if (c->fid == 0)
        fence_i(c, mask);
    else if (c->fid == 1)
        sfence(c, mask, c->a[2], c->a[3]);
    else
        sfence_asid(c, mask, c->a[2], c->a[3], c->a[4]);
    return ret(0, 0);
}

/* The hart mask of legacy calls is in guest memory at a virtual address; 0 means all (chapter 5). */
static bool legacy_mask(struct sbi_call *c, uint64_t *mask)
{
    uint64_t m = 0, pa, byte;
    if (!c->a[0])
        return hart_mask(c->sbi, 0, UINT64_MAX, mask);
    for (unsigned i = 0; i < 8; i++) {
        if (!hart_translate(c->hart, c->a[0] + i, &pa) || !as_read(&as_memory, pa, &byte, 1))
            return false;
        m |= byte << 8 * i;
    }
    return hart_mask(c->sbi, m, 0, mask);
}

/* Legacy extensions return one value in a0 and keep a1: chapter 5. */
static int64_t legacy_call(struct sbi_call *c)
{
    uint64_t mask = 0;
    uint8_t ch;
    switch (c->eid) {
    case 0:
        set_timer(c, c->a[0]);
        return 0;
    case 1:
        for (int tries = 0; !sbi_console_put(c->sbi, c->a[0]) && tries < 1000; tries++)
            ;
        return 0;
    case 2:
        return sbi_console_get(c->sbi, &ch) ? ch : -1;
    case 3:
        hart_irq_set(c->hart, HART_IRQ_SSI, false);
        return 0;
    case 8:
        run_request_shutdown(CAUSE_GUEST_SHUTDOWN, 0);
        return 0;
    default:
        break;
    }
    if (!legacy_mask(c, &mask))
        return SBI_ERR_INVALID_ADDRESS;
    if (c->eid == 4)
        send_ipi(c, mask);
    else if (c->eid == 5)
        fence_i(c, mask);
    else if (c->eid == 6)
        sfence(c, mask, c->a[1], c->a[2]);
    else
        sfence_asid(c, mask, c->a[1], c->a[2], c->a[3]);
    return 0;
}

static const struct sbi_ext exts[] = {
    { 0x10, 0x10, base_call },
    { 0x54494d45, 0x54494d45, time_call },
    { 0x735049, 0x735049, ipi_call },
    { 0x52464e43, 0x52464e43, rfence_call },
    { 0x48534d, 0x48534d, sbi_hsm_call },
    { 0x53525354, 0x53525354, sbi_srst_call },
    { 0x53555350, 0x53555350, sbi_susp_call },
    { 0x4442434e, 0x4442434e, sbi_dbcn_call },
    { 0x504d55, 0x504d55, sbi_pmu_call },
};

static const struct sbi_ext *ext_find(uint64_t eid)
{
    for (size_t i = 0; i < ARRAY_SIZE(exts); i++)
        if (eid >= exts[i].first && eid <= exts[i].last)
            return &exts[i];
    return NULL;
}

static struct sbi_ret sbi_probe(struct sbi *s, uint64_t eid)
{
    return ret(0, eid <= 8 || ext_find(eid));
}

bool sbi_ecall(struct hart *h, void *opaque)
{
    struct sbi_call c = { .sbi = opaque, .hart = h, .self = hart_index(h), .eid = hart_x(h, 17), .fid = hart_x(h, 16) };
    for (unsigned i = 0; i < 6; i++)
        c.a[i] = hart_x(h, 10 + i);
    if (c.eid <= 8) {
        hart_x_set(h, 10, (uint64_t)legacy_call(&c));
        return true;
    }
    const struct sbi_ext *x = ext_find(c.eid);
    struct sbi_ret r = x ? x->call(&c) : ret(SBI_ERR_NOT_SUPPORTED, 0);
    if (!c.moved) {
        hart_x_set(h, 10, (uint64_t)r.error);
        hart_x_set(h, 11, r.value);
    }
    return true;
}

void sbi_reset(struct sbi *s, unsigned boot)
{
    for (unsigned i = 0; i < HART_MAX; i++) {
        struct sbi_hart *h = &s->hart[i];
        atomic_store(&h->hsm, i == boot ? SBI_HSM_STARTED : SBI_HSM_STOPPED);
        for (unsigned k = 0; k < SBI_FW_EVENTS; k++)
            atomic_store(&h->fw[k], 0);
        memset(h->pmu_fw, 0, sizeof h->pmu_fw);
        h->pmu_hw_used = 0;
    }
}
