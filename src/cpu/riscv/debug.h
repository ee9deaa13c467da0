/* SPDX-License-Identifier: MIT */
/* Between debug.c and what describes a hart to debuggers. LOOP (main), harts standing. */
#ifndef CPU_RISCV_DEBUG_H
#define CPU_RISCV_DEBUG_H

#include "cpu/riscv/cpu.h"

/* gdb's target description by annex; NULL: there is none of that name. Static storage, made on first use. */
const char *rv_debug_xml(struct hart *h, const char *annex);
/* gdb's number of a register that the hart has, by its name or "xN"; -1: no such. */
int rv_debug_reg_named(struct hart *h, const char *name);
/* The address space that satp gives, as ranges with equal rights and flags. */
void rv_mmu_dump(struct hart *h, struct str *out);

#endif
