/* SPDX-License-Identifier: MIT */
/* Inside src/pci. */
#ifndef PCI_INT_H
#define PCI_INT_H

#include "pci/pci.h"
#include "pci/pci_spec.h"

/* ---- pci.c ---- */
bool pci_header_init(struct pci_dev *d, struct err *e) MUST_CHECK;
/* The function's own view of its configuration space; domain lock held. Any offset and size of 1 to 4. */
uint32_t pci_fn_read(struct pci_dev *d, uint32_t off, unsigned size);
void pci_fn_write(struct pci_dev *d, uint32_t off, uint32_t v, unsigned size);
/* Command register, power state and BARs took new values: decode, bus mastering, INTx follow. Domain lock held. */
void pci_update(struct pci_dev *d);
void pci_unmap_all(struct pci_dev *d);
/* Configuration space back to its reset values. Domain lock held. */
void pci_reset_config(struct pci_dev *d, enum reset_kind k);

/* ---- pci_bus.c ---- */
void pci_intx_update(struct pci_dev *d);

/* ---- msi.c, msix.c ---- */
void pci_msi_written(struct pci_dev *d, uint32_t off, unsigned size);
void pci_msi_reset(struct pci_dev *d);
void pci_msi_fini(struct pci_dev *d);
uint32_t pci_msi_pending(const struct pci_dev *d);
bool pci_msi_fire(struct pci_dev *d, unsigned v);
unsigned pci_msi_count(const struct pci_dev *d);
bool pci_msi_only_enabled(const struct pci_dev *d);
void pci_msix_written(struct pci_dev *d, uint32_t off, unsigned size);
void pci_msix_reset(struct pci_dev *d);
void pci_msix_fini(struct pci_dev *d);
void pci_msix_save(const struct pci_dev *d, struct str *out);
bool pci_msix_load(struct pci_dev *d, const void *data, size_t len, struct err *e) MUST_CHECK;

/* ---- pcie.c ---- */
bool pcie_cap_init(struct pci_dev *d, unsigned type, unsigned port, struct err *e) MUST_CHECK;
void pcie_written(struct pci_dev *d, uint32_t off, unsigned size, uint32_t old);
void pcie_reset(struct pci_dev *d);

static inline bool pci_touches(uint32_t off, unsigned size, uint32_t reg, unsigned len)
{
    return ranges_overlap(off, size, reg, len);
}

#endif
