/* SPDX-License-Identifier: MIT */
/*
 * SBI performance monitoring (chapter 11). Counters: 0 cycle, 2 instret, 3..31 of the hart by CSR; 32.. firmware events.
 */
#include "hw/riscv/sbi.h"

#include "base/bits.h"

enum { REG_CSR = 65, CSR_MCYCLE = 0xb00, CSR_CYCLE = 0xc00, CSR_MCOUNTINHIBIT = 0x320 };
enum { EVENT_TYPE_HW = 0, EVENT_TYPE_FW = 0xf, HW_CPU_CYCLES = 1, HW_INSTRUCTIONS = 2 };
enum { CFG_SKIP_MATCH = 1, CFG_CLEAR_VALUE = 2, CFG_AUTO_START = 4 };
enum { START_SET_INIT_VALUE = 1, STOP_RESET = 1 };
#define COUNTERS (SBI_PMU_HW + SBI_PMU_FW)
#define HW_MASK (BIT64(0) | BIT64(2))       /* counters that count something */

static struct sbi_ret ret(int64_t error, uint64_t value)
{
    return (struct sbi_ret){ error, value };
}

static bool is_hw(uint64_t n)
{
    return n < SBI_PMU_HW && (HW_MASK >> n & 1);
}

static bool is_fw(uint64_t n)
{
    return n >= SBI_PMU_HW && n < COUNTERS;
}

/* counter_info: CSR number, width minus one, bit 63 for firmware: section 11.7. */
static struct sbi_ret get_info(uint64_t n)
{
    if (is_fw(n))
        return ret(0, BIT64(63));
    if (!is_hw(n))
        return ret(SBI_ERR_INVALID_PARAM, 0);
    return ret(0, (CSR_CYCLE + n) | 63 << 12);
}

static void hw_inhibit(struct sbi_call *c, unsigned n, bool stop)
{
    uint64_t v = 0;
    hart_reg_read(c->hart, REG_CSR + CSR_MCOUNTINHIBIT, &v);
    hart_reg_write(c->hart, REG_CSR + CSR_MCOUNTINHIBIT, stop ? v | BIT64(n) : v & ~BIT64(n));
}

static uint64_t fw_events(struct sbi_call *c, unsigned k)
{
    struct sbi_hart *h = &c->sbi->hart[c->self];
    return atomic_load_explicit(&h->fw[h->pmu_fw[k].event], memory_order_relaxed);
}

static uint64_t fw_value(struct sbi_call *c, unsigned k)
{
    struct sbi_hart *h = &c->sbi->hart[c->self];
    return h->pmu_fw[k].value + (h->pmu_fw[k].running ? fw_events(c, k) - h->pmu_fw[k].base : 0);
}

static bool running(struct sbi_call *c, unsigned n)
{
    uint64_t v = 0;
    if (is_fw(n))
        return c->sbi->hart[c->self].pmu_fw[n - SBI_PMU_HW].running;
    hart_reg_read(c->hart, REG_CSR + CSR_MCOUNTINHIBIT, &v);
    return !(v >> n & 1);
}

static void start(struct sbi_call *c, unsigned n, bool set, uint64_t value)
{
    struct sbi_hart *h = &c->sbi->hart[c->self];
    if (is_fw(n)) {
        if (set)
            h->pmu_fw[n - SBI_PMU_HW].value = value;
        h->pmu_fw[n - SBI_PMU_HW].base = fw_events(c, n - SBI_PMU_HW);
        h->pmu_fw[n - SBI_PMU_HW].running = true;
        return;
    }
    if (set)
        hart_reg_write(c->hart, REG_CSR + CSR_MCYCLE + n, value);
    hw_inhibit(c, n, false);
}

static void stop(struct sbi_call *c, unsigned n, bool release)
{
    struct sbi_hart *h = &c->sbi->hart[c->self];
    if (is_fw(n)) {
        h->pmu_fw[n - SBI_PMU_HW].value = fw_value(c, n - SBI_PMU_HW);
        h->pmu_fw[n - SBI_PMU_HW].running = false;
        if (release)
            h->pmu_fw[n - SBI_PMU_HW].used = false;
        return;
    }
    hw_inhibit(c, n, true);
    if (release)
        h->pmu_hw_used &= ~(1u << n);
}

/* The counter of [base, base + 64) in @mask that can count @event, or -1. */
static int match(struct sbi_call *c, uint64_t base, uint64_t mask, uint64_t event)
{
    struct sbi_hart *h = &c->sbi->hart[c->self];
    unsigned type = event >> 16 & 0xf, code = event & 0xffff;
    for (unsigned i = 0; i < 64 && base + i < COUNTERS; i++) {
        uint64_t n = base + i;
        if (!(mask >> i & 1))
            continue;
        if (type == EVENT_TYPE_HW && ((n == 0 && code == HW_CPU_CYCLES) || (n == 2 && code == HW_INSTRUCTIONS)))
            return (int)n;
        if (type == EVENT_TYPE_FW && is_fw(n) && code >= SBI_FW_SET_TIMER && code < SBI_FW_EVENTS &&
            !h->pmu_fw[n - SBI_PMU_HW].used)
            return (int)n;
    }
    return -1;
}

static struct sbi_ret config(struct sbi_call *c)
{
    uint64_t flags = c->a[2], event = c->a[3];
    struct sbi_hart *h = &c->sbi->hart[c->self];
    if (c->a[0] >= COUNTERS || !c->a[1] || flags >> 8)
        return ret(SBI_ERR_INVALID_PARAM, 0);
    int n = flags & CFG_SKIP_MATCH ? (int)(c->a[0] + ctz64(c->a[1])) : match(c, c->a[0], c->a[1], event);
    if (n < 0)
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    if (!is_hw((unsigned)n) && !is_fw((unsigned)n))
        return ret(SBI_ERR_INVALID_PARAM, 0);
    if (is_fw((unsigned)n)) {
        if (!(flags & CFG_SKIP_MATCH)) {
            h->pmu_fw[n - SBI_PMU_HW].event = event & 0xff;
            h->pmu_fw[n - SBI_PMU_HW].used = true;
            h->pmu_fw[n - SBI_PMU_HW].running = false;
        }
        if (flags & CFG_CLEAR_VALUE)
            h->pmu_fw[n - SBI_PMU_HW].value = 0;
    } else {
        h->pmu_hw_used |= 1u << n;
        if (flags & CFG_CLEAR_VALUE)
            hart_reg_write(c->hart, REG_CSR + CSR_MCYCLE + (unsigned)n, 0);
    }
    if (flags & CFG_AUTO_START)
        start(c, (unsigned)n, false, 0);
    return ret(0, (uint64_t)n);
}

static struct sbi_ret start_stop(struct sbi_call *c, bool starting)
{
    int64_t error = 0;
    if (c->a[0] >= COUNTERS || !c->a[1])
        return ret(SBI_ERR_INVALID_PARAM, 0);
    for (uint64_t m = c->a[1]; m; m &= m - 1) {
        uint64_t n = c->a[0] + ctz64(m);
        if (!is_hw(n) && !is_fw(n))
            return ret(SBI_ERR_INVALID_PARAM, 0);
        bool now = running(c, (unsigned)n);
        if (starting && now)
            error = SBI_ERR_ALREADY_STARTED;
        else if (starting)
            start(c, (unsigned)n, c->a[2] & START_SET_INIT_VALUE, c->a[3]);
        else if (!now && !(c->a[2] & STOP_RESET))
            error = SBI_ERR_ALREADY_STOPPED;
        else
            stop(c, (unsigned)n, c->a[2] & STOP_RESET);
    }
    return ret(error, 0);
}

struct sbi_ret sbi_pmu_call(struct sbi_call *c)
{
    switch (c->fid) {
    case 0:
        return ret(0, COUNTERS);
    case 1:
        return get_info(c->a[0]);
    case 2:
        return config(c);
    case 3:
        return start_stop(c, true);
    case 4:
        return start_stop(c, false);
    case 5:
        return is_fw(c->a[0]) ? ret(0, fw_value(c, (unsigned)c->a[0] - SBI_PMU_HW)) : ret(SBI_ERR_INVALID_PARAM, 0);
    case 6:     /* upper half on RV32 only: section 11.12 */
        return is_fw(c->a[0]) ? ret(0, 0) : ret(SBI_ERR_INVALID_PARAM, 0);
    default:
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    }
}
