/* SPDX-License-Identifier: MIT */
/* pci-bridge: a conventional PCI-to-PCI bridge, 32 slots below it. */
#include "pci/bridge.h"

struct conv_bridge {
    struct pci_bridge br;           /* first */
    uint8_t chassis_nr;
};

static void conv_bridge_written(struct pci_dev *d, uint32_t off, unsigned size, uint32_t old)
{
    pci_bridge_written((struct pci_bridge *)d, off, size, old);
}

/* Slot numbering (PCI-to-PCI Bridge 1.2, 13.5): which chassis this is, for people who look for a slot. */
static bool slot_numbering(struct conv_bridge *c, struct err *e)
{
    struct pci_dev *d = &c->br.pci;
    uint8_t at;

    if (!c->chassis_nr)
        return true;
    at = pci_cap_add(d, 4, 0, 4, e);
    if (!at)
        return false;
    d->config[at + 2] = 0x20;       /* no slots of its own to count, first in its chassis */
    d->config[at + 3] = c->chassis_nr;
    return true;
}

static bool conv_bridge_realize(struct dev *dev, struct err *e)
{
    struct conv_bridge *c = (struct conv_bridge *)dev;

    if (!pci_bridge_init(&c->br, &pci_bus_class, e))
        return false;
    if (!slot_numbering(c, e)) {
        pci_bridge_fini(&c->br);
        return false;
    }
    PCI_DEV(dev)->cfg_write = conv_bridge_written;
    return true;
}

static void conv_bridge_unrealize(struct dev *dev) { pci_bridge_fini((struct pci_bridge *)dev); }
static void conv_bridge_reset(struct dev *dev, enum reset_kind k) { pci_bridge_reset((struct pci_bridge *)dev); }

static const struct prop conv_bridge_props[] = {
    PROP_U8(struct conv_bridge, chassis_nr, "chassis_nr", 0, 0, 0, "Chassis number that the guest reads; 0: none"),
    PROP_END,
};

static const struct state_field fields[] = {
    STATE_STRUCT(struct conv_bridge, br, &pci_bridge_state), STATE_SKIP(struct conv_bridge, chassis_nr, "an option"), STATE_END,
};
static const struct state_desc conv_bridge_state = { "pci-bridge", 1, fields, NULL, NULL };

static const struct pci_class conv_bridge_class = {
    .dev = { .obj = { .name = "pci-bridge", .desc = "PCI-to-PCI bridge: a conventional bus with 32 slots", .base = &pci_dev_class.dev.obj,
                      .size = sizeof(struct conv_bridge), .props = conv_bridge_props },
             .cat = "Bridge", .plugs_into = &pci_bus_class, .realize = conv_bridge_realize, .unrealize = conv_bridge_unrealize,
             .reset = conv_bridge_reset, .state = &conv_bridge_state, .hotplug = true },
    .vendor = 0x1b36, .device = 0x0001, .class_code = 0x060400, .bridge = true,
};
OBJ_CLASS(&conv_bridge_class.dev.obj);
