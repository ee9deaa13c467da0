/* SPDX-License-Identifier: MIT */
/*
 * Address translation: the page-table walk. Privileged ISA, "Supervisor-Level ISA": Sv39, Sv48, Sv57, with Svnapot, Svpbmt,
 * Svade and Svadu.
 */
#include "cpu/riscv/cpu.h"
#include "cpu/riscv/mmu.h"

#define PTE_V BIT64(0)
#define PTE_R BIT64(1)
#define PTE_W BIT64(2)
#define PTE_X BIT64(3)
#define PTE_U BIT64(4)
#define PTE_G BIT64(5)
#define PTE_A BIT64(6)
#define PTE_D BIT64(7)
#define PTE_PPN_SHIFT 10
#define PTE_PPN (((UINT64_C(1) << 44) - 1) << PTE_PPN_SHIFT)
#define PTE_RESERVED (UINT64_C(0x7f) << 54)
#define PTE_PBMT (UINT64_C(3) << 61)
#define PTE_N BIT64(63)

static const uint8_t page_cause[] = { RV_EXC_LOAD_PAGE, RV_EXC_STORE_PAGE, RV_EXC_FETCH_PAGE };
static const uint8_t access_cause[] = { RV_EXC_LOAD_ACCESS, RV_EXC_STORE_ACCESS, RV_EXC_FETCH_ACCESS };

bool rv_access_fault(struct hart *h, uint64_t va, enum rv_access acc) { return rv_trap_set(h, access_cause[acc], va); }
static bool page_fault(struct hart *h, uint64_t va, enum rv_access acc) { return rv_trap_set(h, page_cause[acc], va); }

/* Rights that PMP leaves for the page and whether this access passes; false: it does not. */
static bool pmp_apply(struct hart *h, uint64_t va, enum rv_access acc, unsigned priv, unsigned len, struct rv_xlate *x)
{
    static const uint8_t need[] = { RV_PMP_R, RV_PMP_W, RV_PMP_X };
    bool whole;
    unsigned rights = rv_pmp_check(h, x->pa, len, priv, &whole);
    if (!(rights & need[acc]) && !h->probe)
        return rv_access_fault(h, va, acc);
    x->r = x->r && whole && (rights & RV_PMP_R);
    x->w = x->w && whole && (rights & RV_PMP_W);
    x->x = x->x && whole && (rights & RV_PMP_X);
    return true;
}

/* The host address of a page-table entry in RAM; NULL if it lies elsewhere. */
static _Atomic uint64_t *pte_ptr(struct hart *h, uint64_t pa, const struct view_range **range)
{
    const struct view_range *r = view_lookup(view_get(h->mem), pa);
    *range = r;
    if (!r || !r->host || pa - r->start > r->size - 8)
        return NULL;
    return (_Atomic uint64_t *)(void *)(r->host + (pa - r->start));
}

/* The PTE's own validity at @level, before rights. */
static bool pte_ok(const struct hart *h, uint64_t pte, bool leaf, unsigned level)
{
    uint64_t ppn = (pte & PTE_PPN) >> PTE_PPN_SHIFT;
    if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || (pte & PTE_RESERVED))
        return false;
    if ((pte & PTE_N) && (!rv_has(h, RV_EXT_SVNAPOT) || !leaf || level || (ppn & 15) != 8))
        return false;
    if ((pte & PTE_PBMT) && (!(h->menvcfg & ENVCFG_PBMTE) || !leaf || (pte & PTE_PBMT) == PTE_PBMT))
        return false;
    if (!leaf)
        return level && !(pte & (PTE_U | PTE_A | PTE_D));
    return !(ppn & (BIT64(9 * level) - 1));
}

/* Whether the leaf's permission bits allow it. */
static bool pte_allows(const struct hart *h, uint64_t pte, enum rv_access acc, unsigned priv)
{
    bool user = pte & PTE_U;
    if (h->probe)
        return true;
    if (priv == RV_U ? !user : user && (acc == RV_ACC_EXEC || !(h->mstatus & MSTATUS_SUM)))
        return false;
    switch (acc) {
    case RV_ACC_READ: return (pte & PTE_R) || ((h->mstatus & MSTATUS_MXR) && (pte & PTE_X));
    case RV_ACC_WRITE: return pte & PTE_W;
    default: return pte & PTE_X;
    }
}

enum ad_result { AD_OK, AD_AGAIN, AD_PAGE_FAULT, AD_ACCESS_FAULT };

/* Makes A (and D for a store) set, as Svadu or Svade says. */
static enum ad_result update_ad(struct hart *h, _Atomic uint64_t *p, uint64_t pte_pa, const struct view_range *r, uint64_t *pte,
                                enum rv_access acc)
{
    uint64_t want = PTE_A | (acc == RV_ACC_WRITE ? PTE_D : 0), old = *pte;
    bool whole;
    if ((old & want) == want || h->probe)
        return AD_OK;
    if (!(h->menvcfg & ENVCFG_ADUE))
        return AD_PAGE_FAULT;
    if (!r->writable || !(rv_pmp_check(h, pte_pa, 8, RV_S, &whole) & RV_PMP_W))
        return AD_ACCESS_FAULT;
    if (!atomic_compare_exchange_strong(p, &old, old | want))
        return AD_AGAIN;
    ram_written(r->ram, r->ram_off + (pte_pa - r->start), 8);
    *pte |= want;
    return AD_OK;
}

static void leaf_result(const struct hart *h, uint64_t va, uint64_t pte, unsigned level, unsigned priv, struct rv_xlate *out)
{
    uint64_t span = RV_PAGE_SIZE << (9 * level), base = (pte & PTE_PPN) >> PTE_PPN_SHIFT << RV_PAGE_BITS;
    if (pte & PTE_N) {
        span = RV_PAGE_SIZE << 4;
        base &= ~(span - 1);
    }
    out->pa = base | (va & (span - 1));
    out->page_size = span;
    out->r = pte_allows(h, pte, RV_ACC_READ, priv);
    out->w = pte_allows(h, pte, RV_ACC_WRITE, priv) && (pte & PTE_D);
    out->x = pte_allows(h, pte, RV_ACC_EXEC, priv);
    out->io = pte & PTE_PBMT;
}

/* One attempt; AD_AGAIN when another hart changed the leaf meanwhile. */
static enum ad_result walk_once(struct hart *h, uint64_t va, enum rv_access acc, unsigned priv, unsigned levels, struct rv_xlate *out)
{
    uint64_t table = (h->satp & (BIT64(44) - 1)) << RV_PAGE_BITS;
    bool global = false;
    for (unsigned level = levels; level-- > 0;) {
        uint64_t pte_pa = table + (va >> (RV_PAGE_BITS + 9 * level) & 511) * 8;
        const struct view_range *r;
        bool whole;
        _Atomic uint64_t *p = pte_ptr(h, pte_pa, &r);
        if (!p || !(rv_pmp_check(h, pte_pa, 8, RV_S, &whole) & RV_PMP_R))
            return AD_ACCESS_FAULT;
        uint64_t pte = atomic_load_explicit(p, memory_order_acquire);
        bool leaf = pte & (PTE_R | PTE_X);
        global = global || (pte & PTE_G);
        if (!pte_ok(h, pte, leaf, level))
            return AD_PAGE_FAULT;
        if (!leaf) {
            table = (pte & PTE_PPN) >> PTE_PPN_SHIFT << RV_PAGE_BITS;
            continue;
        }
        if (!pte_allows(h, pte, acc, priv))
            return AD_PAGE_FAULT;
        enum ad_result ad = update_ad(h, p, pte_pa, r, &pte, acc);
        if (ad == AD_OK)
            leaf_result(h, va, pte, level, priv, out);
        out->global = global;
        return ad;
    }
    return AD_PAGE_FAULT;
}

bool rv_walk(struct hart *h, uint64_t va, unsigned len, enum rv_access acc, unsigned priv, struct rv_xlate *out)
{
    unsigned mode = priv == RV_M ? 0 : h->satp >> 60;
    if (!mode) {
        *out = (struct rv_xlate){ .pa = va, .page_size = RV_PAGE_SIZE, .r = true, .w = true, .x = true };
        return pmp_apply(h, va, acc, priv, len, out);
    }
    unsigned levels = mode - 5, top = RV_PAGE_BITS + 9 * levels - 1;
    if ((uint64_t)((int64_t)(va << (63 - top)) >> (63 - top)) != va)
        return page_fault(h, va, acc);
    for (unsigned tries = 0; tries < 1000; tries++) {
        switch (walk_once(h, va, acc, priv, levels, out)) {
        case AD_OK: return pmp_apply(h, va, acc, priv, len, out);
        case AD_AGAIN: continue;
        case AD_PAGE_FAULT: return page_fault(h, va, acc);
        case AD_ACCESS_FAULT: return rv_access_fault(h, va, acc);
        }
    }
    return page_fault(h, va, acc);      /* others keep changing the entry: the guest will come again */
}
