/* SPDX-License-Identifier: MIT */
/* The PCI Express capability (7.5.3) and function level reset (6.6.2). */
#include "pci/pci_int.h"

/*
 * On the main loop, where no domain lock is held: until it is done the function answers nothing, as the standard lets it for 100 ms. A
 * reset of the machine or the bus that came before it is one of the function, too.
 */
void pci_reset_now(void *arg)
{
    struct pci_dev *d = arg;

    if (!(atomic_load(&d->silent) & PCI_SILENT_FLR))
        return;
    dev_reset_tree(&d->dev, RESET_FUNCTION);
    atomic_fetch_and(&d->silent, ~(unsigned)PCI_SILENT_FLR);
}

void pci_reset_later(struct pci_dev *d)
{
    atomic_fetch_or(&d->silent, (unsigned)PCI_SILENT_FLR);
    loop_post(loop_main(), &d->flr_post);
}

static bool is_endpoint(unsigned type) { return type == PCI_EXP_TYPE_ENDPOINT || type == PCI_EXP_TYPE_RC_ENDPOINT; }

bool pcie_cap_init(struct pci_dev *d, unsigned type, unsigned port, struct err *e)
{
    uint8_t at = pci_cap_add(d, PCI_CAP_EXP, 0, PCI_EXP_SIZE, e);
    uint8_t *c = d->config + at, *w = d->wmask + at;

    if (!at)
        return false;
    d->exp_cap = at;
    st_le16(c + PCI_EXP_FLAGS, (uint16_t)(2 | type << 4));
    st_le32(c + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER | (is_endpoint(type) ? PCI_EXP_DEVCAP_FLR : 0u));
    st_le16(c + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_RESET);
    st_le16(w + PCI_EXP_DEVCTL, 0x7fff);
    st_le16(d->w1cmask + at + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_W1C);
    st_le16(d->vmask + at + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_W1C);
    if (type != PCI_EXP_TYPE_RC_ENDPOINT) {
        st_le32(c + PCI_EXP_LNKCAP, 1 | 1 << 4 | port << 24);       /* 2.5 GT/s, one lane */
        st_le16(c + PCI_EXP_LNKSTA, 1 | 1 << 4);
        st_le16(w + PCI_EXP_LNKCTL, 0x03c3);
    }
    return true;
}

void pcie_written(struct pci_dev *d, uint32_t off, uint32_t v, unsigned size)
{
    uint32_t high = d->exp_cap + (uint32_t)PCI_EXP_DEVCTL + 1;

    if (!pci_touches(off, size, high, 1) || !(ld_le32(d->config + d->exp_cap + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR))
        return;
    if (v >> 8 * (high - off) & PCI_EXP_DEVCTL_FLR >> 8)
        pci_reset_later(d);
}

/*
 * Around a function level reset: what it leaves alone (6.6.2), the payload size and how the link is run. Fills @keep with three
 * registers, and puts them back.
 */
void pcie_keep(const struct pci_dev *d, uint16_t keep[3])
{
    const uint8_t *c = d->config + d->exp_cap;

    if (!d->exp_cap)
        return;
    keep[0] = ld_le16(c + PCI_EXP_DEVCTL) & PCI_EXP_DEVCTL_MPS;
    keep[1] = ld_le16(c + PCI_EXP_LNKCTL);
    keep[2] = ld_le16(c + PCI_EXP_LNKCTL2);
}

void pcie_restore(struct pci_dev *d, const uint16_t keep[3])
{
    uint8_t *c = d->config + d->exp_cap;

    if (!d->exp_cap)
        return;
    st_le16(c + PCI_EXP_DEVCTL, (uint16_t)((ld_le16(c + PCI_EXP_DEVCTL) & ~PCI_EXP_DEVCTL_MPS) | keep[0]));
    st_le16(c + PCI_EXP_LNKCTL, keep[1]);
    st_le16(c + PCI_EXP_LNKCTL2, keep[2]);
}
