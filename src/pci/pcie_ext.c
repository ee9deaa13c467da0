/* SPDX-License-Identifier: MIT */
/* Extended capabilities that many devices have: Advanced Error Reporting (7.8.4), Access Control Services (7.7.8), ARI (7.8.7). */
#include "pci/pci_int.h"

/* Errors that the status can show; what is severe, and what is masked, after a reset. */
enum { UNCOR = 0x007ff030, UNCOR_SEVERE = 0x00462030, COR = 0x0000f1c1, COR_MASKED = 0x0000e000 };

uint16_t pcie_aer_init(struct pci_dev *d, uint16_t off, bool root, struct err *e)
{
    uint16_t at = pci_ext_cap_add(d, PCI_EXT_AER, 2, off, root ? PCI_AER_ROOT_SIZE : PCI_AER_SIZE, e);
    uint8_t *c = d->config + at, *w = d->wmask + at, *s = d->smask + at;
    static const struct { uint8_t reg; uint32_t bits, reset; } rw[] = {
        { PCI_AER_UNCOR_MASK, UNCOR, 0 }, { PCI_AER_UNCOR_SEVERITY, UNCOR, UNCOR_SEVERE }, { PCI_AER_COR_MASK, COR, COR_MASKED },
    };

    if (!at)
        return 0;
    for (unsigned i = 0; i < ARRAY_SIZE(rw); i++) {
        st_le32(c + rw[i].reg, rw[i].reset);
        st_le32(w + rw[i].reg, rw[i].bits);
        st_le32(s + rw[i].reg, rw[i].bits);
    }
    for (unsigned reg = PCI_AER_UNCOR_STATUS; reg <= PCI_AER_COR_STATUS; reg += PCI_AER_COR_STATUS - PCI_AER_UNCOR_STATUS) {
        uint32_t bits = reg == PCI_AER_COR_STATUS ? COR : UNCOR;

        st_le32(d->w1cmask + at + reg, bits);
        st_le32(d->vmask + at + reg, bits);
        st_le32(s + reg, bits);
    }
    if (root) {
        st_le32(w + PCI_AER_ROOT_COMMAND, 7);
        st_le32(d->w1cmask + at + PCI_AER_ROOT_STATUS, 0x7f);
        st_le32(d->vmask + at + PCI_AER_ROOT_STATUS, 0x7f);
        st_le32(s + PCI_AER_ROOT_STATUS, 0x7f);
    }
    return at;
}

uint16_t pcie_acs_init(struct pci_dev *d, uint16_t off, struct err *e)
{
    uint16_t at = pci_ext_cap_add(d, PCI_EXT_ACS, 1, off, PCI_ACS_SIZE, e);

    if (!at)
        return 0;
    st_le16(d->config + at + PCI_ACS_CAP, PCI_ACS_PORT);
    st_le16(d->wmask + at + PCI_ACS_CTRL, PCI_ACS_PORT);
    return at;
}

uint16_t pcie_ari_init(struct pci_dev *d, uint16_t off, uint8_t next_fn, struct err *e)
{
    uint16_t at = pci_ext_cap_add(d, PCI_EXT_ARI, 1, off, PCI_ARI_SIZE, e);

    if (at)
        d->config[at + PCI_ARI_CAP + 1] = next_fn;
    return at;
}
