/* SPDX-License-Identifier: MIT */
/*
 * Devices soldered on a board: register windows and interrupt lines that the machine places. The base of UART, interrupt
 * controllers, virtio-mmio slots, the PCIe host. Life: dev_new() -> options -> sys_dev_connect() -> dev_realize() (adds
 * the windows) -> sys_dev_map(). Main loop, except where said.
 */
#ifndef PCI_SYSDEV_H
#define PCI_SYSDEV_H

#include "core/dev.h"
#include "core/state.h"
#include "irq/irq.h"
#include "mem/region.h"

#define SYS_DEV_MMIO 8

struct sys_dev {
    struct dev dev;                     /* first */
    struct region *mmio[SYS_DEV_MMIO];  /* owned by the device; in the order of its documentation */
    uint64_t mmio_base[SYS_DEV_MMIO];   /* where the board put it; UINT64_MAX: nowhere */
    unsigned n_mmio;
    struct irq *irq;                    /* output lines; grown by sys_dev_connect(), never shrunk */
    unsigned n_irq;
};

extern const struct dev_class sys_dev_class;    /* abstract, "sys-bus-device" */
/* Put first in a board device's state table. */
#define STATE_SYS(T) STATE_SKIP(T, sys, "placed by the board, the same on both sides")

/* In realize: adds the next window. */
void sys_dev_mmio_add(struct sys_dev *d, struct region *r);
/* In unrealize, after the regions were finished: forgets all windows. */
void sys_dev_mmio_forget(struct sys_dev *d);
/* Board: window @n at @addr of @parent (a container, usually the system memory). Prints nothing, cannot fail. */
void sys_dev_map(struct sys_dev *d, unsigned n, struct region *parent, uint64_t addr);
/* Board, before realize: output line @n goes to @to. Lines that nobody connects go nowhere. */
void sys_dev_connect(struct sys_dev *d, unsigned n, struct irq to);
/* Device: level of output line @n. ANY, as irq_set(). */
static inline void sys_dev_irq(const struct sys_dev *d, unsigned n, int level)
{
    if (n < d->n_irq)
        irq_set(&d->irq[n], level);
}

#endif
