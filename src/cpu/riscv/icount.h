/* SPDX-License-Identifier: MIT */
/* `-icount`: virtual time counted in instructions. What the option says, and the arithmetic; turns.h runs harts by it. */
#ifndef CPU_RISCV_ICOUNT_H
#define CPU_RISCV_ICOUNT_H

#include <stdbool.h>
#include <stdint.h>

#define ICOUNT_SHIFT_MAX 10
#define ICOUNT_SHIFT_START 3        /* of shift=auto */

struct icount_opts {
    bool on;
    uint32_t shift;                 /* an instruction takes 1 << shift ns */
    bool adapt;                     /* shift=auto: follows the host's speed, so that two runs differ */
    bool sleep;                     /* an idle machine waits in the host's time for its next timer; false: it goes there at once */
    bool align;                     /* a guest that is ahead of the host's time waits */
};
/* Written while options are applied; constant afterwards. */
extern struct icount_opts icount_opts;

/* The virtual clock: at instruction @count it shows bias + (count << shift) ns. */
struct icount_clock { int64_t bias; uint32_t shift; };

int64_t icount_ns(const struct icount_clock *c, uint64_t count);
/* The first count at which the clock shows @ns or later; UINT64_MAX for INT64_MAX. */
uint64_t icount_when(const struct icount_clock *c, int64_t ns);
/* Makes it show @ns at @count. */
void icount_set(struct icount_clock *c, uint64_t count, int64_t ns);
/* Another shift from @count on; the time stays. */
void icount_rate(struct icount_clock *c, uint64_t count, uint32_t shift);
/*
 * The shift that follows @shift where the guest was ahead of the host by @before ns and is by @ahead, an interval later: one more or
 * less where it is off by more than the tolerance and not on its way back.
 */
uint32_t icount_adapt(uint32_t shift, int64_t before, int64_t ahead);

#endif
