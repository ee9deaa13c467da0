/* SPDX-License-Identifier: MIT */
/* Incoming MSI controllers of all harts at one privilege level (class "riscv.imsic") as the board wires them. */
#ifndef HW_RISCV_IMSIC_H
#define HW_RISCV_IMSIC_H

#include "cpu/riscv/hart.h"
#include "pci/sysdev.h"

/* Line h is hart h's external interrupt of the level. Hart h's file is the h-th page of window 0. */

/* Both levels together, as the CSRs of a hart reach them: opaque of imsic_hart_ops. */
struct imsic_pair { struct sys_dev *m, *s; };
extern const struct hart_imsic_ops imsic_hart_ops;

#endif
