/* SPDX-License-Identifier: MIT */
/* The PCI Express capability (7.5.3) and function level reset (6.6.2). */
#include "pci/pci_int.h"

/*
 * The reset itself runs on the main loop, where no domain lock is held; until it is done the function answers nothing, as the
 * standard lets it for 100 ms.
 */
static void flr_run(void *arg)
{
    struct pci_dev *d = arg;

    dev_reset_tree(&d->dev, RESET_FUNCTION);
    atomic_fetch_and(&d->silent, ~(unsigned)PCI_SILENT_FLR);
}

bool pcie_cap_init(struct pci_dev *d, unsigned type, unsigned port, struct err *e)
{
    uint8_t at = pci_cap_add(d, PCI_CAP_EXP, 0, PCI_EXP_SIZE, e);
    uint8_t *c = d->config + at, *w = d->wmask + at;

    if (!at)
        return false;
    d->exp_cap = at;
    d->flr_post = (struct post){ .fn = flr_run, .arg = d };
    st_le16(c + PCI_EXP_FLAGS, (uint16_t)(2 | type << 4));
    st_le32(c + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER | PCI_EXP_DEVCAP_FLR);
    st_le16(w + PCI_EXP_DEVCTL, 0x7fff);
    if (type != PCI_EXP_TYPE_RC_ENDPOINT) {
        st_le32(c + PCI_EXP_LNKCAP, 1 | 1 << 4 | port << 24);       /* 2.5 GT/s, one lane */
        st_le16(c + PCI_EXP_LNKSTA, 1 | 1 << 4);
        st_le16(w + PCI_EXP_LNKCTL, 0x03c3);
    }
    return true;
}

void pcie_written(struct pci_dev *d, uint32_t off, unsigned size, uint32_t old)
{
    uint32_t reg = d->exp_cap + (uint32_t)PCI_EXP_DEVCTL + 1;

    /* The bit reads as zero (it is not in wmask), so what was written must be looked at: pci_fn_write() keeps it for us. */
    if (!(d->flr_asked && pci_touches(off, size, reg, 1)))
        return;
    d->flr_asked = false;
    atomic_fetch_or(&d->silent, (unsigned)PCI_SILENT_FLR);
    loop_post(loop_main(), &d->flr_post);
}

void pcie_reset(struct pci_dev *d)
{
    if (!d->exp_cap)
        return;
    st_le16(d->config + d->exp_cap + PCI_EXP_DEVCTL, 0);
    st_le16(d->config + d->exp_cap + PCI_EXP_LNKCTL, 0);
}
