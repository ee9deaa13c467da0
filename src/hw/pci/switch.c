/* SPDX-License-Identifier: MIT */
/*
 * PCI Express switch: x3130-upstream is its upper port, xio3130-downstream a lower one with a slot; below a root port, and below each
 * other. pcie-pci-bridge brings a conventional bus. Identities are those of the Texas Instruments parts.
 */
#include "pci/pci_spec.h"
#include "pci/slot.h"

enum { MSI_VECTORS = 1, AER_AT = 0x100, ACS_AT = 0x148 };

/* Every port: type 1 header, express capability of @type, MSI, AER, and the number in the link's registers. */
static bool port_init(struct pci_bridge *br, const struct bus_class *below, unsigned type, uint8_t port, struct err *e)
{
    struct pci_dev *d = &br->pci;

    if (!d->pbus->express) {
        err_set(e, ERR_VALUE, "device '%s' needs a PCI Express bus, and '%s' is none", d->dev.obj.cls->name, d->pbus->bus.obj.id);
        return false;
    }
    if (!pci_bridge_init(br, below, e))
        return false;
    if (pcie_cap_init(d, type, port, e) && pci_msi_init(d, MSI_VECTORS, true, e) && pci_pm_init(d, true, e) && pcie_aer_init(d, AER_AT, false, e))
        return true;
    pci_bridge_fini(br);
    return false;
}

/* ---- x3130-upstream ---- */

static void bridge_written(struct pci_dev *d, uint32_t off, unsigned size, uint32_t old)
{
    pci_bridge_written((struct pci_bridge *)d, off, size, old);
}

static void bridge_unrealize(struct dev *d) { pci_bridge_fini((struct pci_bridge *)d); }
static void bridge_reset(struct dev *d, enum reset_kind k) { pci_bridge_reset((struct pci_bridge *)d); }

static bool upstream_realize(struct dev *dev, struct err *e)
{
    struct pci_dev *d = PCI_DEV(dev);

    if (!port_init((struct pci_bridge *)d, &pcie_switch_bus_class, PCI_EXP_TYPE_UPSTREAM, 0, e))
        return false;
    d->cfg_write = bridge_written;
    return true;
}

static const struct pci_class upstream_class = {
    .dev = { .obj = { .name = "x3130-upstream", .desc = "Upstream port of a PCI Express switch", .base = &pci_dev_class.dev.obj,
                      .size = sizeof(struct pci_bridge) },
             .cat = "Bridge", .plugs_into = &pcie_port_bus_class, .realize = upstream_realize, .unrealize = bridge_unrealize, .reset = bridge_reset,
             .state = &pci_bridge_state },
    .vendor = 0x104c, .device = 0x8232, .revision = 2, .class_code = 0x060400, .express = true, .bridge = true,
};
OBJ_CLASS(&upstream_class.dev.obj);

/* ---- xio3130-downstream ---- */

struct downstream {
    struct pcie_slot slot;          /* first */
    uint8_t port;
};

static void downstream_written(struct pci_dev *d, uint32_t off, unsigned size, uint32_t old)
{
    pci_bridge_written((struct pci_bridge *)d, off, size, old);
    pcie_slot_written((struct pcie_slot *)d, off, size, old);
}

static void downstream_unrealize(struct dev *dev)
{
    pcie_slot_fini((struct pcie_slot *)dev);
    pci_bridge_fini((struct pci_bridge *)dev);
}

static bool downstream_realize(struct dev *dev, struct err *e)
{
    struct downstream *p = (struct downstream *)dev;
    struct pci_dev *d = PCI_DEV(dev);

    if (!port_init(&p->slot.br, &pcie_port_bus_class, PCI_EXP_TYPE_DOWNSTREAM, p->port, e))
        return false;
    if (pcie_slot_init(&p->slot, e) && pcie_acs_init(d, ACS_AT, e)) {
        d->cfg_write = downstream_written;
        return true;
    }
    downstream_unrealize(dev);
    return false;
}

static void downstream_reset(struct dev *dev, enum reset_kind k)
{
    pci_bridge_reset((struct pci_bridge *)dev);
    pcie_slot_reset((struct pcie_slot *)dev, k);
}

static const struct prop downstream_props[] = {
    PROP_U8(struct downstream, port, "port", 0, 0, 0, "Port number in the link capabilities"),
    PROP_INCLUDE(struct downstream, slot, pcie_slot_props),
    PROP_END,
};

static const struct state_field downstream_fields[] = {
    STATE_STRUCT(struct downstream, slot, &pcie_slot_state), STATE_SKIP(struct downstream, port, "an option"), STATE_END,
};
static const struct state_desc downstream_state = { "xio3130-downstream", 1, downstream_fields, NULL, NULL };

static const struct pci_class downstream_class = {
    .dev = { .obj = { .name = "xio3130-downstream", .desc = "Downstream port of a PCI Express switch: a bus with one slot",
                      .base = &pci_dev_class.dev.obj, .size = sizeof(struct downstream), .props = downstream_props },
             .cat = "Bridge", .plugs_into = &pcie_switch_bus_class, .realize = downstream_realize, .unrealize = downstream_unrealize,
             .reset = downstream_reset, .state = &downstream_state },
    .vendor = 0x104c, .device = 0x8233, .revision = 1, .class_code = 0x060400, .express = true, .bridge = true,
};
OBJ_CLASS(&downstream_class.dev.obj);

/* ---- pcie-pci-bridge ---- */

static bool to_pci_realize(struct dev *dev, struct err *e)
{
    if (!port_init((struct pci_bridge *)dev, &pci_bus_class, PCI_EXP_TYPE_TO_PCI, 0, e))
        return false;
    PCI_DEV(dev)->cfg_write = bridge_written;
    return true;
}

static const struct pci_class to_pci_class = {
    .dev = { .obj = { .name = "pcie-pci-bridge", .desc = "PCI Express to PCI bridge: a conventional bus with 32 slots",
                      .base = &pci_dev_class.dev.obj, .size = sizeof(struct pci_bridge) },
             .cat = "Bridge", .plugs_into = &pci_bus_class, .realize = to_pci_realize, .unrealize = bridge_unrealize, .reset = bridge_reset,
             .state = &pci_bridge_state, .hotplug = true },
    .vendor = 0x1b36, .device = 0x000e, .class_code = 0x060400, .express = true, .bridge = true,
};
OBJ_CLASS(&to_pci_class.dev.obj);
