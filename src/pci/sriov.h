/* SPDX-License-Identifier: MIT */
/*
 * Single Root I/O Virtualization (PCI Express Base 5.0, chapter 9): a physical function with virtual functions, devices of a class of
 * their own. They are made with the physical function and show themselves when the guest enables them. Each is a domain of its own, on the loop of the
 * physical function's.
 */
#ifndef PCI_SRIOV_H
#define PCI_SRIOV_H

#include "pci/pci.h"

struct pci_sriov_opts {
    const struct dev_class *vf_class;   /* a struct pci_class, OCF_INTERNAL; its device id goes into the capability */
    uint16_t cap_off;                   /* of the capability, 0: next free */
    uint16_t total;                     /* TotalVFs, 1..255 */
    uint16_t first_offset, stride;      /* routing ids relative to the physical function's; all on its bus */
    void (*changed)(struct pci_dev *pf, unsigned enabled);      /* after the guest changed how many there are; PF's lock. May be NULL */
};

/* In the PF's realize: the capability. */
bool pci_sriov_init(struct pci_dev *pf, const struct pci_sriov_opts *o, struct err *e) MUST_CHECK;
/* Each VF has a BAR @n of @size bytes (power of two) and PCI_BAR_* @type; the VF adds its region with pci_bar_add() as ever. */
void pci_sriov_bar(struct pci_dev *pf, unsigned n, uint8_t type, uint64_t size);
/* Last in the PF's realize: makes the VFs. On failure none is left; pci_sriov_fini() is still the caller's. */
bool pci_sriov_create(struct pci_dev *pf, struct err *e) MUST_CHECK;
/* In the PF's unrealize: its VFs are gone already. */
void pci_sriov_fini(struct pci_dev *pf);

/* The @i-th VF, enabled or not. PF's domain lock held, or main loop. */
struct pci_dev *pci_sriov_vf(const struct pci_dev *pf, unsigned i);
/* How many the guest has enabled. ANY. */
unsigned pci_sriov_enabled(const struct pci_dev *pf);
/* Of a VF: its PF, NULL if it is none; and which it is. ANY. */
static inline struct pci_dev *pci_sriov_pf(const struct pci_dev *d) { return d->pf; }
static inline unsigned pci_sriov_index(const struct pci_dev *vf) { return vf->vf_index; }

#endif
