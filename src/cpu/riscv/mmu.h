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
};
/*
 * Finds where [va, va + size), within one page, lies in the present data context; walks and fills where the TLB does not know.
 * False with h->trap set.
 */
bool rv_locate(struct hart *h, uint64_t va, unsigned size, enum rv_access acc, struct rv_place *p);
/* A store to a watched page (p->ram set) has been made: tells who watches, and opens the fast path again if nobody does now. */
void rv_store_noticed(struct hart *h, uint64_t va, const struct rv_place *p, unsigned size);
/* Frees every context. */
void rv_tlb_free(struct hart *h);
/* Notes a superpage in the context, so that a flush of any address in it finds it. */
void rv_tlb_note_large(struct rv_tlb *t, uint64_t va, uint64_t span);

#endif
