/* SPDX-License-Identifier: MIT */
/*
 * A downstream port with a slot (PCI Express 5.0, section 6.7): attention button, power controller, presence, link. A function plugged
 * in while the machine runs is announced to the guest; one that is to go goes when the guest turned the slot's power off.
 */
#ifndef PCI_SLOT_H
#define PCI_SLOT_H

#include "pci/bridge.h"

struct pcie_slot {
    struct pci_bridge br;           /* first */
    uint16_t number;                /* physical slot number, 0: chosen */
    uint8_t chassis;
    bool hotplug;                   /* option: the slot can do it */
    struct list all;
    struct post eject;              /* main loop: the guest lets everything in the slot go */
    bool asked;                     /* device_del waits for the guest; domain lock */
    int64_t asked_at;               /* CLOCK_HOST */
    bool raised;                    /* an enabled event is pending */
};

extern const struct prop pcie_slot_props[];         /* over struct pcie_slot: chassis=, slot=, hotplug= */
/* In realize, after pci_bridge_init() and pcie_cap_init(): slot registers, and the bus below takes part. */
bool pcie_slot_init(struct pcie_slot *s, struct err *e) MUST_CHECK;
void pcie_slot_fini(struct pcie_slot *s);
/* In the device's reset(), after pci_bridge_update(): power follows presence. Domain lock held. */
void pcie_slot_reset(struct pcie_slot *s, enum reset_kind k);
/* Configuration bytes changed. Domain lock held. */
void pcie_slot_written(struct pcie_slot *s, uint32_t off, unsigned size, uint32_t old);

extern const struct state_desc pcie_slot_state;     /* in place of pci_bridge_state */

#endif
