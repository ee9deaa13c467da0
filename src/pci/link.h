/* SPDX-License-Identifier: MIT */
/* A function that is pulled out, or whose link goes down, without a word to the guest before (PCI Express 5.0, 6.7.1.7, 3.2). */
#ifndef PCI_LINK_H
#define PCI_LINK_H

#include "pci/pci.h"

/*
 * From its return on nothing of @d answers and its DMA goes nowhere, unless @l is PCI_LINK_UP: then it comes back as after a reset. The
 * port above, if there is one, tells the guest soon. Domain lock held.
 */
void pci_link_set(struct pci_dev *d, enum pci_link l);
static inline enum pci_link pci_link_get(const struct pci_dev *d) { return (enum pci_link)atomic_load(&d->link); }

#endif
