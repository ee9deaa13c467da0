/* SPDX-License-Identifier: MIT */
/*
 * Performance counters. Cycles and instructions are the same here: instructions retired. mhpmevent selects 1 (cycles) or 2
 * (instructions), as fixed events of ours, or nothing; with Sscofpmf it also holds the modes that do not count and the overflow bit.
 */
#include "cpu/riscv/cpu.h"

#define EVENT_SELECT UINT64_C(3)
#define EVENT_OF BIT64(63)
#define EVENT_MINH BIT64(62)
#define EVENT_SINH BIT64(61)
#define EVENT_UINH BIT64(60)

/* What counter @n counts, as a number that only grows. */
static uint64_t source(const struct hart *h, unsigned n)
{
    static const struct { uint8_t priv; uint64_t inhibit; } modes[] = { { RV_U, EVENT_UINH }, { RV_S, EVENT_SINH }, { RV_M, EVENT_MINH } };
    uint64_t ev = h->hpm_event[n], sum = 0;
    if (h->mcountinhibit >> n & 1)
        return 0;
    if (n == 0 || n == 2)
        return rv_retired(h);
    for (size_t i = 0; (ev & EVENT_SELECT) && i < ARRAY_SIZE(modes); i++)
        if (!(ev & modes[i].inhibit))
            sum += h->mode_insns[modes[i].priv] + (h->priv == modes[i].priv ? rv_retired(h) - h->mode_since : 0);
    return sum;
}

static bool counts(const struct hart *h, unsigned n)
{
    return !(h->mcountinhibit >> n & 1) && (n == 0 || n == 2 || (h->hpm_event[n] & EVENT_SELECT));
}

uint64_t rv_hpm_read(const struct hart *h, unsigned n) { return h->hpm_count[n] + source(h, n); }

/* A counter that may overflow is looked at at every slice's end while its top bit is set. */
static void arm(struct hart *h, unsigned n)
{
    bool may = n > 2 && rv_has(h, RV_EXT_SSCOFPMF) && counts(h, n) && !(h->hpm_event[n] & EVENT_OF) && rv_hpm_read(h, n) >> 63;
    h->hpm_armed = (h->hpm_armed & ~(1u << n)) | (uint32_t)may << n;
}

void rv_hpm_write(struct hart *h, unsigned n, uint64_t v)
{
    h->hpm_count[n] = v - source(h, n);
    arm(h, n);
}

void rv_hpm_write_insn(struct hart *h, unsigned n, uint64_t v)
{
    rv_hpm_write(h, n, v - counts(h, n));
}

void rv_hpm_event_write(struct hart *h, unsigned n, uint64_t v)
{
    uint64_t now = rv_hpm_read(h, n), mask = EVENT_SELECT;
    if (rv_has(h, RV_EXT_SSCOFPMF))
        mask |= EVENT_OF | EVENT_MINH | (rv_has(h, RV_EXT_S) ? EVENT_SINH : 0) | (rv_has(h, RV_EXT_U) ? EVENT_UINH : 0);
    if ((v & ~(EVENT_OF | EVENT_MINH | EVENT_SINH | EVENT_UINH)) > 2)
        v &= ~((UINT64_C(1) << 58) - 1);                /* an event that is not there: none */
    h->hpm_event[n] = v & mask;
    rv_hpm_write(h, n, now);
}

uint64_t rv_hpm_overflows(const struct hart *h)
{
    uint64_t v = 0;
    for (unsigned n = 3; n < RV_HPM_COUNT; n++)
        v |= h->hpm_event[n] & EVENT_OF ? BIT64(n) : 0;
    return h->priv == RV_M ? v : v & h->mcounteren;
}

void rv_hpm_poll(struct hart *h)
{
    for (uint32_t left = h->hpm_armed; left; left &= left - 1) {
        unsigned n = ctz64(left);
        if (rv_hpm_read(h, n) >> 63)
            continue;
        h->hpm_armed &= ~(1u << n);
        h->hpm_event[n] |= EVENT_OF;
        atomic_fetch_or(&h->irq_soft, BIT64(HART_IRQ_LCOF));
    }
}
