/* SPDX-License-Identifier: MIT */
/* An address space as text. The tables are the guest's: how much of them is looked at is bounded. */
#include <inttypes.h>

#include "base/str.h"
#include "cpu/riscv/debug.h"
#include "mem/view.h"

#define MAX_TABLES 20000u
#define MAX_RANGES 4000u
#define FLAGS 0xfeu                 /* R W X U G A D */

struct dump {
    struct str *out;
    unsigned tables, ranges;
    uint64_t va, pa, size, flags;   /* the range that grows; size 0: none */
};

static void put_range(struct dump *d)
{
    static const char letters[] = "rwxugad";
    char attr[8];
    if (!d->size)
        return;
    for (unsigned i = 0; i < 7; i++)
        attr[i] = d->flags >> (i + 1) & 1 ? letters[i] : '-';
    attr[7] = 0;
    if (d->ranges++ < MAX_RANGES)
        str_printf(d->out, "%016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %s\n", d->va, d->pa, d->size, attr);
    d->size = 0;
}

static void add_leaf(struct dump *d, uint64_t va, uint64_t pte, uint64_t span)
{
    uint64_t pa = (pte >> 10 & (BIT64(44) - 1)) << RV_PAGE_BITS, flags = pte & FLAGS;
    if (pte >> 63)                      /* Svnapot: the low bits of the number are the size, the address is va's */
        pa = (pa & ~UINT64_C(0xffff)) | (va & 0xffff);
    if (d->size && d->va + d->size == va && d->pa + d->size == pa && d->flags == flags) {
        d->size += span;
        return;
    }
    put_range(d);
    *d = (struct dump){ d->out, d->tables, d->ranges, va, pa, span, flags };
}

static void walk(struct dump *d, uint64_t table, uint64_t base, unsigned level, unsigned va_bits)
{
    if (d->tables++ >= MAX_TABLES)
        return;
    for (unsigned i = 0; i < 512 && d->ranges < MAX_RANGES; i++) {
        uint64_t pte, span = RV_PAGE_SIZE << 9 * level, va = base | i * span;
        if (!as_read(&as_memory, table + i * 8, &pte, 8) || !(pte & 1))
            continue;
        va = (uint64_t)((int64_t)(va << (64 - va_bits)) >> (64 - va_bits));
        if (pte & 0xe)
            add_leaf(d, va, pte, span);
        else if (level)
            walk(d, (pte >> 10 & (BIT64(44) - 1)) << RV_PAGE_BITS, va, level - 1, va_bits);
    }
}

void rv_mmu_dump(struct hart *h, struct str *out)
{
    unsigned mode = h->satp >> 60;
    struct dump d = { .out = out };
    if (!mode || h->priv == RV_M)
        str_printf(out, "No translation is in force (%s)\n", h->priv == RV_M ? "M mode" : "satp is bare");
    if (!mode)
        return;
    str_add(out, "vaddr            paddr            size             attr\n---------------- ---------------- ---------------- -------\n");
    walk(&d, (h->satp & (BIT64(44) - 1)) << RV_PAGE_BITS, 0, mode - 6, RV_PAGE_BITS + 9 * (mode - 5));
    put_range(&d);
    if (d.tables > MAX_TABLES || d.ranges >= MAX_RANGES)
        str_add(out, "... (more than is shown)\n");
}
