/* SPDX-License-Identifier: MIT */
/* Between mmu.c (walk), tlb.c (contexts) and access.c (loads and stores). */
#ifndef CPU_RISCV_MMU_H
#define CPU_RISCV_MMU_H

#include "cpu/riscv/cpu.h"
#include "mem/view.h"

/* Records the access fault of @acc at @va; false. */
bool rv_access_fault(struct hart *h, uint64_t va, enum rv_access acc);
/* The privilege that loads and stores have now (MPRV). */
static inline unsigned rv_data_priv(const struct hart *h)
{
    return h->mstatus & MSTATUS_MPRV ? h->mstatus >> MSTATUS_MPP_SHIFT & 3 : h->priv;
}
/* Where an access lands: RAM at host, or a device (host NULL). */
struct rv_place {
    uint64_t pa;
    uint8_t *host;
    struct ram *ram;            /* a store to RAM that must be noticed once made; else NULL */
    uint64_t ram_off;
    bool guarded;               /* between rv_store_hold() and rv_store_noticed() or rv_store_release(), where reservations are tracked */
};
/*
 * Finds where [va, va + size), within one page, lies in the present data context; walks and fills where the TLB does not know.
 * False with h->trap set.
 */
bool rv_locate(struct hart *h, uint64_t va, unsigned size, enum rv_access acc, struct rv_place *p);
/*
 * Before a store to a watched page (p->ram set): where reservations are tracked in the page, nobody else stores there or decides on an
 * SC until the store was noticed, or given up with rv_store_release().
 */
void rv_store_hold(struct rv_place *p);
/*
 * The reservations of other harts in the held page break: before a store that will be made, or just behind one that might not have
 * been. What stores nothing (SC and AMOCAS that fail) must break none: two harts could fail each other for ever.
 */
void rv_store_break(struct hart *h, const struct rv_place *p);
/* Both, for a store that will be made. */
void rv_store_guard(struct hart *h, struct rv_place *p);
void rv_store_release(struct rv_place *p);
/* A store to a watched page (p->ram set) has been made: tells who watches, and opens the fast path again if nobody does now. */
void rv_store_noticed(struct hart *h, uint64_t va, struct rv_place *p, unsigned size);
/* code.c: ram_written() for a store of the hart itself. */
void rv_ram_written(struct hart *h, struct ram *r, uint64_t off, unsigned size);
/* The RAM that can be written at @pa, and the offset in it; NULL: none. */
struct ram *rv_ram_at(struct hart *h, uint64_t pa, uint64_t *off);
/*
 * Whether an instruction only computes, or branches: with no others between LR and SC, and RV_LR_SC_INSNS in all at most behind the LR,
 * the value alone decides.
 */
#define RV_LR_SC_INSNS 16u
bool rv_between_lr_sc(uint32_t raw);
/* From now on every store by others to the page of @pa sets res_broken; no longer. */
void rv_reserve_track(struct hart *h, uint64_t pa);
void rv_reserve_drop(struct hart *h);
/* Data translations in force may be others from now on: what generated code remembers of them goes. VCPU, or the hart stands */
static inline void rv_tlb_changed(struct hart *h)
{
    for (unsigned i = 0; i < RV_SLOTS; i++)
        memset(h->jit.slot[i].limit, 0, sizeof h->jit.slot[i].limit);
    h->jit.changes++;
}
/* Where a context keeps the translation of @va: in the table of the fast check, and in the larger one. */
static inline unsigned rv_tlb_first(uint64_t va) { return va >> RV_PAGE_BITS & (RV_TLB_SIZE - 1); }
static inline unsigned rv_tlb_second(uint64_t va) { return RV_TLB_SIZE + (va >> RV_PAGE_BITS & (RV_TLB_MORE - 1)); }
/* Entry @n of a context is filled. */
static inline void rv_tlb_note_fill(struct rv_tlb *t, unsigned n)
{
    t->used = true;
    t->groups[n / RV_TLB_GROUP / 64] |= BIT64(n / RV_TLB_GROUP % 64);
}
/*
 * Fills the entry of @page in the present data context for READ or WRITE accesses that are going to be made; whether the fast check
 * passes now. Else nothing is said of the access: rv_load() and rv_store() know. VCPU
 */
bool rv_tlb_fill(struct hart *h, uint64_t page, enum rv_access acc);
/* Frees every context. */
void rv_tlb_free(struct hart *h);
/* Notes a superpage in the context, so that a flush of any address in it finds it; a page that was translated for fetches. */
void rv_tlb_note_large(struct rv_tlb_range *r, uint64_t va, uint64_t span);
/* A page that may have got the fast store path. */
void rv_tlb_note_store(struct rv_tlb *t, uint64_t pa);
void rv_tlb_note_exec(struct rv_tlb *t, uint64_t va, uint64_t span);

#endif
