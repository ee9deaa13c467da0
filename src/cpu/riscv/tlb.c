/* SPDX-License-Identifier: MIT */
/* The soft TLB's contexts: which one is in force, and what fences take out of them. */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/riscv/mmu.h"

static uint32_t new_id(struct hart *h)
{
    if (++h->tlb_next_id == 0)
        ++h->tlb_next_id;
    return h->tlb_next_id;
}

/* Runs through the entries of data translations that may hold something. */
#define EACH_USED(t, e)                                                                                                 \
    for (unsigned w_ = 0; w_ < ARRAY_SIZE((t)->groups); w_++)                                                           \
        for (uint64_t left_ = (t)->groups[w_]; left_; left_ &= left_ - 1)                                               \
            for (struct rv_tlb_entry *e = (t)->e + (w_ * 64 + ctz64(left_)) * RV_TLB_GROUP, *end_ = e + RV_TLB_GROUP; e < end_; e++)

static void tlb_clear(struct hart *h, struct rv_tlb *t)
{
    if (t->used) {
        EACH_USED(t, e)
            e->rd = e->wr = RV_TLB_NONE;
        memset(t->groups, 0, sizeof t->groups);
        for (unsigned i = 0; i < RV_XTLB_SIZE; i++)
            t->x[i].va = RV_TLB_NONE;
        memset(t->wseen, 0, sizeof t->wseen);
        t->used = false;
    }
    rv_tlb_changed(h);
    memset(&t->large, 0, sizeof t->large);
    memset(&t->xlarge, 0, sizeof t->xlarge);
    memset(t->xseen, 0, sizeof t->xseen);
    t->xhalves = 0;
    t->id = new_id(h);
}

static struct rv_tlb *tlb_get(struct hart *h, struct rv_tlb **slot)
{
    if (!*slot) {
        struct rv_tlb *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (t == MAP_FAILED)
            abort();
        for (unsigned i = 0; i < RV_TLB_SIZE; i++)
            rv_tlb_note_fill(t, i);
        rv_tlb_note_fill(t, rv_tlb_second(0));
        tlb_clear(h, t);
        *slot = t;
    }
    return *slot;
}

static void tlb_free(struct rv_tlb **slot)
{
    if (*slot)
        munmap(*slot, sizeof **slot);
    *slot = NULL;
}

void rv_tlb_free(struct hart *h)
{
    for (unsigned i = 0; i < RV_AS_SLOTS; i++)
        for (unsigned k = 0; k < RV_TLBK_COUNT; k++)
            tlb_free(&h->as[i].tlb[k]);
    for (unsigned i = 0; i < 2; i++)
        tlb_free(&h->tlb_bare[i]);
    tlb_free(&h->tlb_global);
    h->dtlb = h->xtlb = NULL;
}

/* Calls @fn on every context that exists. */
#define EACH_AS_TLB(h, as, t)                                                       \
    for (struct rv_as *as = (h)->as; as < (h)->as + RV_AS_SLOTS; as++)              \
        for (struct rv_tlb **t = as->tlb; t < as->tlb + RV_TLBK_COUNT; t++)         \
            if (*t)

static struct rv_as *as_for(struct hart *h)
{
    if (h->as_now && h->as_now->satp == h->satp && h->as_now->stamp)
        return h->as_now;
    struct rv_as *old = h->as;
    for (struct rv_as *a = h->as; a < h->as + RV_AS_SLOTS; a++) {
        if (a->satp == h->satp && a->stamp) {
            old = a;
            goto found;
        }
        if (a->stamp < old->stamp)
            old = a;
    }
    for (unsigned k = 0; k < RV_TLBK_COUNT; k++)
        if (old->tlb[k])
            tlb_clear(h, old->tlb[k]);
    old->satp = h->satp;
found:
    old->stamp = ++h->as_stamp;
    h->as_now = old;
    return old;
}

static struct rv_tlb *context(struct hart *h, unsigned priv, bool data)
{
    if (priv == RV_M)
        return tlb_get(h, &h->tlb_bare[0]);
    if (!(h->satp >> 60))
        return tlb_get(h, &h->tlb_bare[1]);
    struct rv_as *as = as_for(h);
    bool sum = h->mstatus & MSTATUS_SUM;
    if (!data && priv == RV_S && !h->exec_local) {
        struct rv_tlb *t = tlb_get(h, &h->tlb_global);
        if (h->global_mode != h->satp >> 60)
            tlb_clear(h, t);
        h->global_mode = (uint8_t)(h->satp >> 60);
        return t;
    }
    if (data && (h->mstatus & MSTATUS_MXR)) {
        struct rv_tlb *t = tlb_get(h, &as->tlb[RV_TLBK_MXR]);
        if (as->mxr_user != (priv == RV_U) || as->mxr_sum != sum) {
            tlb_clear(h, t);
            as->mxr_user = priv == RV_U;
            as->mxr_sum = sum;
        }
        return t;
    }
    if (priv == RV_U)
        return tlb_get(h, &as->tlb[RV_TLBK_U]);
    /* Fetches do not depend on SUM: they always use the plain supervisor context. */
    return tlb_get(h, &as->tlb[data && sum ? RV_TLBK_SUM : RV_TLBK_S]);
}

void rv_ctx_update(struct hart *h)
{
    h->xtlb = context(h, h->priv, false);
    struct rv_tlb *d = context(h, rv_data_priv(h), true);
    if (d != h->dtlb)
        rv_tlb_changed(h);
    h->dtlb = d;
}

static unsigned region_bit(uint64_t va) { return (va >> RV_REGION_BITS ^ va >> (RV_REGION_BITS + 9)) & (RV_REGIONS - 1); }

void rv_tlb_note_large(struct rv_tlb_range *r, uint64_t va, uint64_t span)
{
    r->seen[region_bit(va) / 64] |= BIT64(region_bit(va) % 64);
    if (span <= BIT64(RV_REGION_BITS))
        return;
    uint64_t mask = ~(span - 1);
    if (r->any) {
        mask &= r->mask;
        while ((r->base ^ va) & mask)
            mask <<= 1;
    }
    r->any = true;
    r->base = va & mask;
    r->mask = mask;
}

static bool in_wide_leaf(const struct rv_tlb_range *r, uint64_t va) { return r->any && (va & r->mask) == r->base; }
static bool in_region_leaf(const struct rv_tlb_range *r, uint64_t va) { return r->seen[region_bit(va) / 64] >> region_bit(va) % 64 & 1; }
static bool in_range(const struct rv_tlb_range *r, uint64_t va) { return in_wide_leaf(r, va) || in_region_leaf(r, va); }
static unsigned xseen_bit(uint64_t va) { return (va >> RV_PAGE_BITS ^ va >> (RV_PAGE_BITS + 12)) & (RV_XSEEN_BITS - 1); }

void rv_tlb_note_exec(struct rv_tlb *t, uint64_t va, uint64_t span)
{
    t->xhalves |= (uint8_t)(1u << (va >> 63));
    t->xseen[xseen_bit(va) / 64] |= BIT64(xseen_bit(va) % 64);
    if (span > RV_PAGE_SIZE)
        rv_tlb_note_large(&t->xlarge, va, span);
}

/* Whether code may have run in the page. A kernel's context, whose filter is full, lets the user's half be. */
static bool has_run(const struct rv_tlb *t, uint64_t va)
{
    bool seen = t->xseen[xseen_bit(va) / 64] >> xseen_bit(va) % 64 & 1;
    return (t->xhalves >> (va >> 63) & 1) && (seen || in_range(&t->xlarge, va));
}

/* Whether a tag's page lies in the leaf of 2^shift bytes around @va. */
static bool same_leaf(uint64_t tag, uint64_t va, unsigned shift) { return tag != RV_TLB_NONE && !((tag ^ va) >> shift); }

static void flush_entry(struct rv_tlb_entry *e, uint64_t va)
{
    unsigned shift = e->pa & ~RV_PAGE_MASK;
    if (same_leaf(e->rd, va, shift) || same_leaf(e->wr, va, shift))
        e->rd = e->wr = RV_TLB_NONE;
}

/* @va may lie in a superpage: all of its pages that have entries. */
static void flush_leaves(struct rv_tlb *t, uint64_t va)
{
    const unsigned pages = 1u << (RV_REGION_BITS - RV_PAGE_BITS);
    static_assert(RV_TLB_BITS >= RV_REGION_BITS - RV_PAGE_BITS, "the pages of a region have entries side by side");
    if (in_wide_leaf(&t->large, va)) {
        EACH_USED(t, e)
            flush_entry(e, va);
        return;
    }
    const unsigned first[] = { rv_tlb_first(va) & ~(pages - 1), rv_tlb_second(va) & ~(pages - 1) };
    for (unsigned i = 0; i < ARRAY_SIZE(first); i++)
        for (struct rv_tlb_entry *e = t->e + first[i]; e < t->e + first[i] + pages; e++)
            flush_entry(e, va);
}

static void flush_va(struct hart *h, struct rv_tlb *t, uint64_t va)
{
    if (!t->used)
        return;
    rv_tlb_changed(h);
    if (in_range(&t->large, va)) {
        flush_leaves(t, va);
        for (unsigned i = 0; i < RV_XTLB_SIZE; i++)
            if (same_leaf(t->x[i].va, va, t->x[i].shift))
                t->x[i].va = RV_TLB_NONE;
    } else {
        struct rv_xtlb_entry *x = &t->x[va >> RV_PAGE_BITS & (RV_XTLB_SIZE - 1)];
        flush_entry(&t->e[rv_tlb_first(va)], va);
        flush_entry(&t->e[rv_tlb_second(va)], va);
        if (same_leaf(x->va, va, x->shift))
            x->va = RV_TLB_NONE;
    }
    if (has_run(t, va))
        t->id = new_id(h);
}

void rv_tlb_flush(struct hart *h, bool has_va, uint64_t va, bool has_asid, uint64_t asid)
{
    EACH_AS_TLB(h, as, t) {
        if (has_asid && (as->satp >> 44 & 0xffff) != asid)
            continue;
        if (has_va)
            flush_va(h, *t, va);
        else
            tlb_clear(h, *t);
    }
    if (!h->tlb_global || has_asid)         /* a fence of one address space leaves global pages alone */
        return;
    if (has_va)
        flush_va(h, h->tlb_global, va);
    else
        tlb_clear(h, h->tlb_global);
}

void rv_tlb_flush_all(struct hart *h)
{
    rv_tlb_flush(h, false, 0, false, 0);
    for (unsigned i = 0; i < 2; i++)
        if (h->tlb_bare[i])
            tlb_clear(h, h->tlb_bare[i]);
}

static unsigned wseen_bit(uint64_t pa) { return (pa >> RV_PAGE_BITS ^ pa >> (RV_PAGE_BITS + 12)) & (RV_XSEEN_BITS - 1); }

void rv_tlb_note_store(struct rv_tlb *t, uint64_t pa) { t->wseen[wseen_bit(pa) / 64] |= BIT64(wseen_bit(pa) % 64); }

static void protect(struct rv_tlb *t, uint64_t pa)
{
    if (!t || !t->used || !(t->wseen[wseen_bit(pa) / 64] >> wseen_bit(pa) % 64 & 1))
        return;
    EACH_USED(t, e)
        if (RV_TLB_PA(e) == pa && !(e->wr & (RV_TLB_INVALID | RV_TLB_IO)))
            e->wr |= RV_TLB_CODE;
}

void rv_tlb_protect_page(struct hart *h, uint64_t pa)
{
    EACH_AS_TLB(h, as, t)
        protect(*t, pa);
    protect(h->tlb_bare[0], pa);
    protect(h->tlb_bare[1], pa);
    rv_tlb_changed(h);
}
