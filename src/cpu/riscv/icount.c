/* SPDX-License-Identifier: MIT */
#include "cpu/riscv/icount.h"

#define TOLERANCE_NS INT64_C(50000000)

struct icount_opts icount_opts = { .sleep = true };

int64_t icount_ns(const struct icount_clock *c, uint64_t count)
{
    return (int64_t)((uint64_t)c->bias + (count << c->shift));
}

uint64_t icount_when(const struct icount_clock *c, int64_t ns)
{
    if (ns == INT64_MAX)
        return UINT64_MAX;
    int64_t at = (int64_t)((uint64_t)ns - (uint64_t)c->bias);
    return at <= 0 ? 0 : ((uint64_t)at + (UINT64_C(1) << c->shift) - 1) >> c->shift;
}

void icount_set(struct icount_clock *c, uint64_t count, int64_t ns)
{
    c->bias = (int64_t)((uint64_t)ns - (count << c->shift));
}

void icount_rate(struct icount_clock *c, uint64_t count, uint32_t shift)
{
    int64_t ns = icount_ns(c, count);
    c->shift = shift;
    icount_set(c, count, ns);
}

uint32_t icount_adapt(uint32_t shift, int64_t before, int64_t ahead)
{
    if (ahead > TOLERANCE_NS && ahead >= before && shift > 0)
        return shift - 1;
    if (ahead < -TOLERANCE_NS && ahead <= before && shift < ICOUNT_SHIFT_MAX)
        return shift + 1;
    return shift;
}
