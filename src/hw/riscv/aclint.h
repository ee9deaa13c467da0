/* SPDX-License-Identifier: MIT */
/* The core-local interruptor (SiFive CLINT, ACLINT) as the board wires it. */
#ifndef HW_RISCV_ACLINT_H
#define HW_RISCV_ACLINT_H

#include "pci/sysdev.h"

/* Class "riscv.aclint.swi": line h is hart h's M (or, with sswi=on, S) software interrupt. */

/* Class "riscv.aclint.mtimer": line h is hart h's M timer interrupt. mtime in ticks. ANY */
uint64_t aclint_mtimer_now(struct sys_dev *mtimer);
/*
 * A second comparator per hart for S mode (stimecmp of Sstc, or the SBI's timer): line num-harts + h is pulsed once when
 * mtime reaches @deadline. UINT64_MAX: never. Replaces the previous one. ANY
 */
void aclint_mtimer_arm_s(struct sys_dev *mtimer, unsigned hart, uint64_t deadline);

#endif
