/* SPDX-License-Identifier: MIT */
/* The platform-level interrupt controller (class "riscv.sifive.plic") as the board wires it. */
#ifndef HW_RISCV_PLIC_H
#define HW_RISCV_PLIC_H

#include "pci/sysdev.h"

/* Input line of source @n (1..num-sources). Output line 2h is hart h's M external interrupt, 2h + 1 its S one. */
struct irq plic_input(struct sys_dev *plic, unsigned n);

#endif
