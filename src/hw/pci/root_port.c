/* SPDX-License-Identifier: MIT */
/* pcie-root-port: one slot below the root bus, with native hot plug, AER and ACS. One MSI-X vector in BAR 0, INTA else. */
#include "pci/pci_spec.h"
#include "pci/slot.h"

enum { AER_AT = 0x100, ACS_AT = 0x148 };

struct root_port {
    struct pcie_slot slot;          /* first */
    uint8_t port;
};

static void root_port_written(struct pci_dev *d, uint32_t off, unsigned size, uint32_t old)
{
    struct root_port *p = (struct root_port *)d;

    pci_bridge_written(&p->slot.br, off, size, old);
    pcie_slot_written(&p->slot, off, size, old);
}

static void root_registers(struct pci_dev *d)
{
    uint8_t at = d->exp_cap;

    st_le16(d->wmask + at + PCI_EXP_RTCTL, 0xf);
    st_le32(d->config + at + PCI_EXP_DEVCAP2, PCI_EXP_DEVCAP2_ARI);
    st_le16(d->wmask + at + PCI_EXP_DEVCTL2, PCI_EXP_DEVCAP2_ARI);
}

static void root_port_unrealize(struct dev *dev)
{
    struct root_port *p = (struct root_port *)dev;

    pcie_slot_fini(&p->slot);
    pci_bridge_fini(&p->slot.br);
}

static bool root_port_realize(struct dev *dev, struct err *e)
{
    struct root_port *p = (struct root_port *)dev;
    struct pci_dev *d = PCI_DEV(dev);

    if (d->pbus->bridge || !d->pbus->express) {
        err_set(e, ERR_VALUE, "a root port belongs on a root bus, and '%s' is none", d->pbus->bus.obj.id);
        return err_hint(e, "leave bus= out, or name pcie.0");
    }
    if (!pci_bridge_init(&p->slot.br, &pcie_port_bus_class, e))
        return false;
    pci_intx_init(d, 1);
    if (pcie_cap_init(d, PCI_EXP_TYPE_ROOT_PORT, p->port, e) && pcie_slot_init(&p->slot, e) &&
        pci_msix_init(d, 1, 0, 0, 0x800, NULL, e) && pcie_aer_init(d, AER_AT, true, e) && pcie_acs_init(d, ACS_AT, e)) {
        root_registers(d);
        d->cfg_write = root_port_written;
        return true;
    }
    root_port_unrealize(dev);
    return false;
}

static void root_port_reset(struct dev *dev, enum reset_kind k)
{
    struct root_port *p = (struct root_port *)dev;

    pci_bridge_reset(&p->slot.br);
    pcie_slot_reset(&p->slot, k);
}

static const struct prop root_port_props[] = {
    PROP_U8(struct root_port, port, "port", 0, 0, 0, "Port number in the link capabilities"),
    PROP_INCLUDE(struct root_port, slot, pcie_slot_props),
    PROP_END,
};

static const struct state_field fields[] = {
    STATE_STRUCT(struct root_port, slot, &pcie_slot_state), STATE_SKIP(struct root_port, port, "an option"), STATE_END,
};
static const struct state_desc root_port_state = { "pcie-root-port", 1, fields, NULL, NULL };

static const struct pci_class root_port_class = {
    .dev = { .obj = { .name = "pcie-root-port", .desc = "PCI Express root port: a bus with one slot", .base = &pci_dev_class.dev.obj,
                      .size = sizeof(struct root_port), .props = root_port_props },
             .cat = "Bridge", .plugs_into = &pci_bus_class, .realize = root_port_realize, .unrealize = root_port_unrealize,
             .reset = root_port_reset, .state = &root_port_state },
    .vendor = 0x1b36, .device = 0x000c, .class_code = 0x060400, .express = true, .bridge = true,
};
OBJ_CLASS(&root_port_class.dev.obj);
