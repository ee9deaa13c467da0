/* SPDX-License-Identifier: MIT */
/* Between debug.c and what describes a hart to debuggers. LOOP (main), harts standing. */
#ifndef CPU_RISCV_DEBUG_H
#define CPU_RISCV_DEBUG_H

#include "cpu/riscv/cpu.h"

/* gdb's target description by annex; NULL: there is none of that name. Static storage, made on first use. */
const char *rv_debug_xml(struct hart *h, const char *annex);
/* The address space that satp gives, as ranges with equal rights and flags. */
void rv_mmu_dump(struct hart *h, struct str *out);

#endif
