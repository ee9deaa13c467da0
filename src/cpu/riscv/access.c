/* SPDX-License-Identifier: MIT */
/* Loads, stores and fetch translation behind the TLB's fast path: fills, devices, misaligned and page-crossing accesses. */
#include "cpu/riscv/fpu.h"
#include "cpu/riscv/mmu.h"

static struct rv_tlb_entry *entry_of(struct hart *h, uint64_t va)
{
    return &h->dtlb->e[rv_tlb_first(va)];
}

static const struct view_range *range_of(struct hart *h, uint64_t pa) { return view_lookup(view_get(h->mem), pa); }

/* Whether the whole 4 KiB page of @pa lies in the range. */
static bool covers_page(const struct view_range *r, uint64_t pa)
{
    uint64_t page = pa & RV_PAGE_MASK;
    return page >= r->start && range_ok(page - r->start, RV_PAGE_SIZE, r->size);
}

static bool page_watched(const struct view_range *r, uint64_t pa)
{
    uint64_t off = r->ram_off + ((pa & RV_PAGE_MASK) - r->start);
    return ram_watched(r->ram, off) != 0;
}

/* Puts what a walk found into the TLB. */
static void fill(struct hart *h, uint64_t va, const struct rv_xlate *x, const struct view_range *r)
{
    struct rv_tlb_entry *e = entry_of(h, va);
    uint64_t page = va & RV_PAGE_MASK, flags = 0;

    if (!x->r && !x->w)
        return;
    h->stats.tlb_fills++;
    rv_tlb_note_fill(h->dtlb, rv_tlb_first(va));
    rv_tlb_note_fill(h->dtlb, rv_tlb_second(va));
    if (x->page_size > RV_PAGE_SIZE)
        rv_tlb_note_large(&h->dtlb->large, va, x->page_size);
    e->pa = (x->pa & RV_PAGE_MASK) | ctz64(x->page_size);
    if (r && r->host && covers_page(r, x->pa))
        e->addend = (uintptr_t)(r->host + ((x->pa & RV_PAGE_MASK) - r->start)) - page;
    else
        flags = RV_TLB_IO;
    if (unlikely(rv_debug.n_watch) && rv_debug_watches_page(va))
        flags |= RV_TLB_WATCH;
    e->rd = x->r ? page | flags : RV_TLB_NONE;
    e->wr = x->w ? page | flags : RV_TLB_NONE;
    if (!(flags & RV_TLB_IO) && x->w) {
        if (!r->writable)
            e->wr |= RV_TLB_IO;
        else {
            rv_tlb_note_store(h->dtlb, x->pa);
            if (page_watched(r, x->pa))
                e->wr |= RV_TLB_CODE;
        }
    }
    h->dtlb->e[rv_tlb_second(va)] = *e;
}

/* Whether the tag is that of the page of @va, with flags or without. */
static bool tag_is(uint64_t tag, uint64_t va) { return !(tag & RV_TLB_INVALID) && !((tag ^ va) & RV_PAGE_MASK); }

static uint64_t tag_of(const struct rv_tlb_entry *e, enum rv_access acc) { return acc == RV_ACC_READ ? e->rd : e->wr; }

/* Whether the TLB knows the page for such an access; then it is in the first table. */
static bool known(struct hart *h, uint64_t va, enum rv_access acc)
{
    struct rv_tlb_entry *e = entry_of(h, va);
    const struct rv_tlb_entry *second = &h->dtlb->e[rv_tlb_second(va)];
    if (tag_is(tag_of(e, acc), va))
        return true;
    if (!tag_is(tag_of(second, acc), va))
        return false;
    *e = *second;
    return true;
}

bool rv_tlb_fill(struct hart *h, uint64_t page, enum rv_access acc)
{
    struct rv_xlate x;
    if (!known(h, page, acc)) {
        if (!rv_walk(h, page, RV_PAGE_SIZE, acc, rv_data_priv(h), &x))
            return false;
        fill(h, page, &x, range_of(h, x.pa));
    }
    return tag_of(entry_of(h, page), acc) == page;
}

bool rv_locate(struct hart *h, uint64_t va, unsigned size, enum rv_access acc, struct rv_place *p)
{
    struct rv_tlb_entry *e = entry_of(h, va);
    const struct view_range *r;

    p->guarded = false;
    if (unlikely(rv_debug.n_watch) && rv_debug_access(h, va, size, acc == RV_ACC_WRITE))
        return false;
    if (known(h, va, acc)) {
        p->pa = RV_TLB_PA(e) | (va & ~RV_PAGE_MASK);
        p->ram = NULL;
        if (!(tag_of(e, acc) & (RV_TLB_IO | RV_TLB_CODE))) {
            p->host = (uint8_t *)(va + e->addend);
            return true;
        }
        r = range_of(h, p->pa);
    } else {
        struct rv_xlate x;
        if (!rv_walk(h, va, size, acc, rv_data_priv(h), &x))
            return false;
        r = range_of(h, x.pa);
        fill(h, va, &x, r);
        p->pa = x.pa;
        p->ram = NULL;
    }
    p->host = NULL;
    if (r && r->host && (acc == RV_ACC_READ || r->writable)) {
        p->host = r->host + (p->pa - r->start);
        if (acc == RV_ACC_WRITE) {
            p->ram = r->ram;
            p->ram_off = r->ram_off + (p->pa - r->start);
        }
    }
    return true;
}

/* --- devices --- */

static bool io_read(struct hart *h, uint64_t va, uint64_t pa, unsigned size, uint64_t *val)
{
    const struct view_range *r = range_of(h, pa);
    h->stats.io_reads++;
    rv_fpu_leave(h);
    bool ok = r && range_ok(pa - r->start, size, r->size) && view_range_read(r, pa, val, size);
    rv_fpu_enter(h);
    return ok || rv_access_fault(h, va, RV_ACC_READ);
}

static bool io_write(struct hart *h, uint64_t va, uint64_t pa, unsigned size, uint64_t val)
{
    const struct view_range *r = range_of(h, pa);
    h->stats.io_writes++;
    rv_fpu_leave(h);
    bool ok = r && range_ok(pa - r->start, size, r->size) && view_range_write(r, pa, val, size);
    rv_fpu_enter(h);
    return ok || rv_access_fault(h, va, RV_ACC_WRITE);
}

/* --- one page --- */

static uint64_t host_load(const uint8_t *p, unsigned size)
{
    switch ((uintptr_t)p & (size - 1) ? 0 : size) {
    case 1: return *p;
    case 2: return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
    case 4: return __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
    case 8: return __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
    default: return ld_le(p, size);
    }
}

static void host_store(uint8_t *p, unsigned size, uint64_t v)
{
    switch ((uintptr_t)p & (size - 1) ? 0 : size) {
    case 1: *p = (uint8_t)v; break;
    case 2: __atomic_store_n((uint16_t *)(void *)p, (uint16_t)v, __ATOMIC_RELAXED); break;
    case 4: __atomic_store_n((uint32_t *)(void *)p, (uint32_t)v, __ATOMIC_RELAXED); break;
    case 8: __atomic_store_n((uint64_t *)(void *)p, v, __ATOMIC_RELAXED); break;
    default: st_le(p, v, size); break;
    }
}

static bool load_at(struct hart *h, const struct rv_place *p, uint64_t va, unsigned size, uint64_t *val)
{
    if (unlikely(!p->host))
        return io_read(h, va, p->pa, size, val);
    *val = host_load(p->host, size);
    return true;
}

void rv_store_noticed(struct hart *h, uint64_t va, struct rv_place *p, unsigned size)
{
    struct rv_tlb_entry *e = entry_of(h, va);
    rv_store_release(p);
    rcu_full_fence();
    rv_ram_written(h, p->ram, p->ram_off, size);
    if (e->wr == ((va & RV_PAGE_MASK) | RV_TLB_CODE) && RV_TLB_PA(e) == (p->pa & RV_PAGE_MASK) &&
        !ram_watched(p->ram, p->ram_off)) {
        e->wr = va & RV_PAGE_MASK;
        h->dtlb->e[rv_tlb_second(va)] = *e;
        rv_tlb_note_store(h->dtlb, p->pa);
    }
}

static bool store_at(struct hart *h, struct rv_place *p, uint64_t va, unsigned size, uint64_t val)
{
    if (unlikely(!p->host))
        return io_write(h, va, p->pa, size, val);
    if (unlikely(p->ram))
        rv_store_guard(h, p);
    host_store(p->host, size, val);
    if (unlikely(p->ram))
        rv_store_noticed(h, va, p, size);
    return true;
}

static unsigned bytes_to_page_end(uint64_t va) { return (unsigned)(RV_PAGE_SIZE - (va & ~RV_PAGE_MASK)); }

bool rv_load(struct hart *h, uint64_t va, unsigned size, uint64_t *val)
{
    struct rv_place a, b;
    unsigned first = bytes_to_page_end(va);
    if (likely(first >= size))
        return rv_locate(h, va, size, RV_ACC_READ, &a) && load_at(h, &a, va, size, val);
    if (!rv_locate(h, va, first, RV_ACC_READ, &a) || !rv_locate(h, va + first, size - first, RV_ACC_READ, &b))
        return false;
    if (!a.host)
        return rv_access_fault(h, va, RV_ACC_READ);     /* devices take no access across pages */
    if (!b.host)
        return rv_access_fault(h, va + first, RV_ACC_READ);
    *val = ld_le(a.host, first) | ld_le(b.host, size - first) << (first * 8);
    return true;
}

bool rv_store(struct hart *h, uint64_t va, unsigned size, uint64_t val)
{
    struct rv_place a, b;
    unsigned first = bytes_to_page_end(va);
    if (likely(first >= size))
        return rv_locate(h, va, size, RV_ACC_WRITE, &a) && store_at(h, &a, va, size, val);
    if (!rv_locate(h, va, first, RV_ACC_WRITE, &a) || !rv_locate(h, va + first, size - first, RV_ACC_WRITE, &b))
        return false;
    if (!a.host)
        return rv_access_fault(h, va, RV_ACC_WRITE);
    if (!b.host)
        return rv_access_fault(h, va + first, RV_ACC_WRITE);
    /* The second look-up cannot have displaced what the first found: places hold no TLB entries. */
    if (a.ram)
        rv_store_guard(h, &a);
    st_le(a.host, val, first);
    if (a.ram)
        rv_store_noticed(h, va, &a, first);
    if (b.ram)
        rv_store_guard(h, &b);
    st_le(b.host, val >> (first * 8), size - first);
    if (b.ram)
        rv_store_noticed(h, va + first, &b, size - first);
    return true;
}

const struct rv_xtlb_entry *rv_xlate_exec(struct hart *h, uint64_t va)
{
    struct rv_xtlb_entry *e = &h->xtlb->x[va >> RV_PAGE_BITS & (RV_XTLB_SIZE - 1)];
    struct rv_xlate x;

    if (e->va == (va & RV_PAGE_MASK))
        return e;
    if (!rv_walk(h, va, 2, RV_ACC_EXEC, h->priv, &x))
        return NULL;
    const struct view_range *r = range_of(h, x.pa);
    if (!r || !r->host || !covers_page(r, x.pa)) {
        rv_access_fault(h, va, RV_ACC_EXEC);            /* code runs from RAM and ROM only */
        return NULL;
    }
    if (h->xtlb == h->tlb_global && !x.global) {
        h->exec_local = true;                           /* from now on each address space has its own */
        rv_ctx_update(h);
        e = &h->xtlb->x[va >> RV_PAGE_BITS & (RV_XTLB_SIZE - 1)];
    }
    if (!x.x)
        e = &h->xtlb_once;                              /* the rights differ within the page: never cached */
    h->stats.tlb_fills++;
    h->xtlb->used = true;
    if (x.page_size > RV_PAGE_SIZE)
        rv_tlb_note_large(&h->xtlb->large, va, x.page_size);
    rv_tlb_note_exec(h->xtlb, va, x.page_size);
    *e = (struct rv_xtlb_entry){ .va = va & RV_PAGE_MASK, .pa = x.pa & RV_PAGE_MASK, .shift = ctz64(x.page_size),
                                 .host = r->host + ((x.pa & RV_PAGE_MASK) - r->start) };
    return e;
}
