/* SPDX-License-Identifier: MIT */
/*
 * PCI-to-PCI bridges (PCI-to-PCI Bridge Architecture 1.2): the base of root ports, switch ports and conventional bridges.
 * A bridge's type 1 header says which bus numbers and which addresses it forwards; what it does not forward is not reached.
 */
#ifndef PCI_BRIDGE_H
#define PCI_BRIDGE_H

#include "pci/pci.h"

enum { BRIDGE_IO, BRIDGE_MEM, BRIDGE_PREF, BRIDGE_WINDOWS };

struct pci_bridge {
    struct pci_dev pci;                 /* first */
    struct pci_bus *sec;                /* the bus below; the tree owns it */
    struct region mem, io;              /* its address spaces */
    struct region win[BRIDGE_WINDOWS];  /* what of them shows on the bus above */
    uint64_t win_base[BRIDGE_WINDOWS], win_size[BRIDGE_WINDOWS];    /* as shown; size 0: not shown */
    struct post job;                    /* resets of what is below: main loop */
    unsigned todo;                      /* BRIDGE_DO_* for it; domain lock */
    bool resetting;                     /* it runs; domain lock */
    /* Told by the job, when the resets are done; domain lock held. May be NULL */
    void (*settled)(struct pci_bridge *);
};
enum { BRIDGE_DO_RESET = 1, BRIDGE_DO_POWER_ON = 2 };

/*
 * In realize: type 1 header, windows closed, and the bus below, of class @below, which goes by the device's id, or "pcie.N", "pci.N" where
 * it has none. The device's cfg_write must call pci_bridge_written().
 */
bool pci_bridge_init(struct pci_bridge *br, const struct bus_class *below, struct err *e) MUST_CHECK;
/* In unrealize, or when realize fails later. */
void pci_bridge_fini(struct pci_bridge *br);
/* Configuration bytes changed: bus numbers, windows, secondary reset follow. Domain lock held. */
void pci_bridge_written(struct pci_bridge *br, uint32_t off, unsigned size, uint32_t old);
/* All that follows from the registers. Domain lock held. */
void pci_bridge_update(struct pci_bridge *br);
/* To be called in the device's reset(), which takes all below with it: none of that is held in reset, or to be reset, any more. Domain lock held. */
void pci_bridge_reset(struct pci_bridge *br);
/* What window BRIDGE_* @w of a bridge's registers says, both ends inclusive; closed if base > limit. Domain lock held. */
void pci_bridge_window(const struct pci_dev *d, unsigned w, uint64_t *base, uint64_t *limit);
/* Silences what is below for @reason (PCI_SILENT_*), and resets it soon, on the main loop. Domain lock held. */
void pci_bridge_hold(struct pci_bridge *br, unsigned reason);
/* Resets what is below, soon, on the main loop: BRIDGE_DO_*. Domain lock held. */
void pci_bridge_job(struct pci_bridge *br, unsigned todo);

extern const struct state_desc pci_bridge_state;    /* STATE_STRUCT(T, bridge, &pci_bridge_state) in place of pci_dev_state */

#endif
