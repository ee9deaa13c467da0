/* SPDX-License-Identifier: MIT */
#include "pci/link.h"

#include "pci/pci_int.h"

void pci_link_set(struct pci_dev *d, enum pci_link l)
{
    atomic_store(&d->link, (unsigned char)l);
    if (l != PCI_LINK_UP) {
        atomic_fetch_or(&d->silent, (unsigned)PCI_SILENT_LINK);
        pci_update(d);
        if (d->sriov)
            pci_sriov_update(d);
    }
    loop_post(loop_main(), &d->link_post);
}

void pci_link_job(void *arg)
{
    struct pci_dev *d = arg;
    bool back = pci_link_get(d) == PCI_LINK_UP && atomic_load(&d->silent) & PCI_SILENT_LINK;

    if (back) {
        dev_reset_tree(&d->dev, RESET_FUNCTION);
        domain_lock(d->dev.dom);
        atomic_fetch_and(&d->silent, ~(unsigned)PCI_SILENT_LINK);
        pci_update(d);
        domain_unlock(d->dev.dom);
    }
    if (d->pbus && d->pbus->port_changed)
        d->pbus->port_changed(d->pbus);
}
