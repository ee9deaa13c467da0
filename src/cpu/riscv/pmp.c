/* SPDX-License-Identifier: MIT */
/* Physical memory protection: 16 entries, granularity 4 bytes. Privileged ISA, section "Physical Memory Protection". */
#include "cpu/riscv/cpu.h"

enum { PMP_OFF, PMP_TOR, PMP_NA4, PMP_NAPOT };

void rv_pmp_changed(struct hart *h)
{
    h->pmp_used = 0;
    h->pmp_same = (struct rv_pmp_same){ .lo = 1 };
    for (unsigned i = 0; i < RV_PMP_COUNT; i++) {
        uint64_t a = h->pmpaddr[i], prev = i ? h->pmpaddr[i - 1] : 0;
        uint64_t lo = 1, hi = 0;
        switch (h->pmpcfg[i] >> 3 & 3) {
        case PMP_TOR:
            if (a > prev) {
                lo = prev << 2;
                hi = (a << 2) - 1;
            }
            break;
        case PMP_NA4:
            lo = a << 2;
            hi = lo + 3;
            break;
        case PMP_NAPOT: {
            uint64_t span = a ^ (a + 1);            /* ones up to and including the lowest zero */
            lo = (a & ~span) << 2;
            hi = lo | (span << 2 | 3);
            break;
        }
        default:
            break;
        }
        h->pmp_lo[i] = lo;
        h->pmp_hi[i] = hi;
        if (lo <= hi)
            h->pmp_used = i + 1;
    }
}

/* Entry @i says nothing of the page, or all: what it leaves undecided, or decides, ends where it does. */
static void narrow(struct rv_pmp_same *s, uint64_t page, uint64_t lo, uint64_t hi)
{
    if (hi < page)
        s->lo = MAX(s->lo, hi + 1);
    else if (lo > page)
        s->hi = MIN(s->hi, lo - 1);
    else {
        s->lo = MAX(s->lo, lo);
        s->hi = MIN(s->hi, hi);
    }
}

unsigned rv_pmp_check(struct hart *h, uint64_t pa, uint64_t len, unsigned priv, bool *whole)
{
    uint64_t last = pa + len - 1, page = pa & RV_PAGE_MASK, page_last = page + RV_PAGE_SIZE - 1;
    const unsigned all = RV_PMP_R | RV_PMP_W | RV_PMP_X;
    struct rv_pmp_same same = { .hi = UINT64_MAX };

    *whole = true;
    if (!rv_has(h, RV_EXT_PMP))
        return all;
    if (priv != RV_M && page >= h->pmp_same.lo && page_last <= h->pmp_same.hi)
        return h->pmp_same.rights;
    for (unsigned i = 0; i < h->pmp_used; i++) {
        uint64_t lo = h->pmp_lo[i], hi = h->pmp_hi[i];
        if (lo > hi)
            continue;
        narrow(&same, page, lo, hi);
        if (hi < page || lo > page_last)
            continue;
        if (lo > page || hi < page_last)
            *whole = false;
        if (hi < pa || lo > last)
            continue;
        if (lo > pa || hi < last)
            return 0;                               /* matches only a part: the access fails, whatever the mode */
        same.rights = h->pmpcfg[i] & all;
        if (*whole && priv != RV_M)
            h->pmp_same = same;
        return priv == RV_M && !(h->pmpcfg[i] & RV_PMP_L) ? all : same.rights;
    }
    return priv == RV_M ? all : 0;
}
