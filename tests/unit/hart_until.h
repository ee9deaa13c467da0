/* SPDX-License-Identifier: MIT */
/* Harts that run by themselves, on threads of their own, until they stand somewhere. */
#ifndef HART_UNTIL_H
#define HART_UNTIL_H

#include <unistd.h>
#include "cpu/riscv/hart.h"
#include "until.h"

/* Lets all harts of @set run for a moment, however short a loaded machine makes it. They stand before and after. */
static inline void harts_run(struct hart_set *set)
{
    hart_set_resume(set);
    usleep(50);
    hart_set_pause(set);
}

static inline uint64_t hart_pc(struct hart *h)
{
    uint64_t pc = 0;
    assert_true(hart_reg_read(h, 32, &pc));
    return pc;
}

#endif
