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
/* Every BAR is where it should be. Domain lock held; of a VF also its PF's instead. */
void pci_bars_update(struct pci_dev *d);
/* What is in the registers now is what a reset brings back. */
void pci_reset_values(struct pci_dev *d);
/* Something was loaded into the registers: all that follows from them. */
void pci_loaded(struct pci_dev *d);
/* Configuration space back to its reset values. Domain lock held. */
void pci_reset_config(struct pci_dev *d, enum reset_kind k);


/* ---- rom.c ---- */
/* The option ROM, before the device's realize. */
bool pci_rom_init(struct pci_dev *d, struct err *e) MUST_CHECK;
void pci_rom_fini(struct pci_dev *d);

/* ---- sriov.c ---- */
/* Where BAR @n of a VF is now, UINT64_MAX: nowhere. Topology lock held. */
uint64_t pci_vf_bar_address(const struct pci_dev *vf, unsigned n);
void pci_sriov_written(struct pci_dev *pf, uint32_t off, unsigned size, uint32_t old);
/* VFs follow the registers. PF's domain lock held. */
void pci_sriov_update(struct pci_dev *pf);

/* ---- pci_bus.c ---- */
/* The parts of a bus class that work on the function's own bus, d->pbus. */
bool pci_attach_at(struct pci_bus *b, struct pci_dev *d, unsigned devfn, struct err *e) MUST_CHECK;
/* Answers from now on, freshly reset. No lock held. */
void pci_show_up(struct pci_dev *d);
void pci_hide(struct bus *bus, struct dev *dev);
void pci_detach(struct bus *bus, struct dev *dev);
void pci_reset_slot(struct bus *bus, struct dev *dev, enum reset_kind k);
void pci_path(const struct dev *dev, char *buf, size_t n);
void pci_show(const struct bus *bus, const struct dev *dev, struct str *out);
/* The function takes configuration accesses. Sure under its domain lock only. */
static inline bool pci_answers(const struct pci_dev *d) { return atomic_load(&d->visible) && !atomic_load(&d->silent); }
/* It is there, and its link is up. */
static inline bool pci_connected(const struct pci_dev *d) { return atomic_load(&d->visible) && !(atomic_load(&d->silent) & PCI_SILENT_LINK); }
void pci_link_job(void *dev);
void pci_intx_update(struct pci_dev *d);
/* d->master changed: its DMA and that of all below follows. */
void pci_master_update(struct pci_dev *d);

/* ---- msi.c, msix.c ---- */
void pci_msi_written(struct pci_dev *d, uint32_t off, unsigned size);
void pci_msi_reset(struct pci_dev *d);
void pci_msi_fini(struct pci_dev *d);
uint32_t pci_msi_pending(const struct pci_dev *d);
bool pci_msi_fire(struct pci_dev *d, unsigned v);
unsigned pci_msi_count(struct pci_dev *d);
void pci_msi_set_pending(struct pci_dev *d, uint32_t pending);
bool pci_msi_only_enabled(const struct pci_dev *d);
void pci_msix_written(struct pci_dev *d, uint32_t off, unsigned size);
void pci_msix_reset(struct pci_dev *d);
void pci_msix_fini(struct pci_dev *d);
void pci_msix_save(const struct pci_dev *d, struct str *out);
bool pci_msix_load(struct pci_dev *d, const void *data, size_t len, struct err *e) MUST_CHECK;

/* ---- pcie.c ---- */
/* @v as the guest wrote it: the reset bit reads as zero. */
void pcie_written(struct pci_dev *d, uint32_t off, uint32_t v, unsigned size);
/* The function answers nothing from now until it was reset, on the main loop. Domain lock held. */
void pci_reset_later(struct pci_dev *d);

void pci_reset_now(void *dev);
void pcie_keep(const struct pci_dev *d, uint16_t keep[3]);
void pcie_restore(struct pci_dev *d, const uint16_t keep[3]);

/* ---- cap.c ---- */
void pci_pm_written(struct pci_dev *d, uint32_t off, unsigned size);
static inline bool pci_in_d0(const struct pci_dev *d) { return atomic_load(&d->pm_state) == 0; }

static inline bool pci_touches(uint32_t off, unsigned size, uint32_t reg, unsigned len)
{
    return ranges_overlap(off, size, reg, len);
}

#endif
