/* SPDX-License-Identifier: MIT */
/* Advanced platform-level interrupt controller: one interrupt domain each (class "riscv.aplic") as the board wires them. */
#ifndef HW_RISCV_APLIC_H
#define HW_RISCV_APLIC_H

#include "pci/sysdev.h"

/* Input of source @n (1..num-sources) of the root domain. Line h of a domain is hart h's external interrupt (direct mode). */
struct irq aplic_input(struct sys_dev *root, unsigned n);
/* Makes @child the domain that @root delegates to. Both realized, before the machine runs. */
void aplic_set_child(struct sys_dev *root, struct sys_dev *child);

#endif
