/* SPDX-License-Identifier: MIT */
/* Capability lists (PCI 3.0 section 6.7; PCI Express 7.6) and power management. */
#include <assert.h>

#include "base/str.h"
#include "pci/pci_int.h"

/* The first free run of @size bytes, dword aligned, after the header: capabilities do not overlap. */
static unsigned cap_place(const struct pci_dev *d, unsigned size)
{
    uint8_t used[PCI_CONFIG_SIZE] = { 0 };
    for (unsigned at = d->config[PCI_CAP_PTR], n = 0; at && n < 48; at = d->config[at + 1], n++)
        memset(used + at, 1, MIN(d->cmask[at] ? d->cmask[at] : 4u, PCI_CONFIG_SIZE - at));
    for (unsigned at = 0x40; range_ok(at, size, PCI_CONFIG_SIZE); at += 4)
        if (!memchr(used + at, 1, size))
            return at;
    return 0;
}

uint8_t pci_cap_add(struct pci_dev *d, uint8_t id, uint8_t off, uint8_t size, struct err *e)
{
    unsigned at = off ? off : cap_place(d, size);
    if (at < 0x40 || at & 3 || !range_ok(at, size, PCI_CONFIG_SIZE)) {
        err_set(e, ERR_VALUE, "%s: no room for capability 0x%x of %u bytes in configuration space", d->dev.obj.cls->name, id,
                size);
        return 0;
    }
    d->config[at] = id;
    d->config[at + 1] = 0;
    d->cmask[at] = size;        /* the length, for cap_place() */
    d->config[d->cap_list_tail ? d->cap_list_tail + 1 : PCI_CAP_PTR] = (uint8_t)at;
    d->cap_list_tail = (uint8_t)at;
    d->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    return (uint8_t)at;
}

uint16_t pci_ext_cap_add(struct pci_dev *d, uint16_t id, uint8_t ver, uint16_t off, uint16_t size, struct err *e)
{
    uint16_t at = off;
    if (!at) {
        at = PCI_CONFIG_SIZE;
        for (uint16_t i = PCI_CONFIG_SIZE; ld_le32(d->config + i); i = ld_le16(d->config + i + 2) >> 4) {
            at = (uint16_t)align_up(i + ld_le16(d->cmask + i), 4);
            if (!(ld_le16(d->config + i + 2) >> 4))
                break;
        }
    }
    if (d->config_size != PCIE_CONFIG_SIZE || at < PCI_CONFIG_SIZE || at & 3 || !range_ok(at, size, PCIE_CONFIG_SIZE)) {
        err_set(e, ERR_VALUE, "%s: no room for extended capability 0x%x", d->dev.obj.cls->name, id);
        return 0;
    }
    st_le32(d->config + at, (uint32_t)id | (uint32_t)(ver & 15) << 16);
    st_le16(d->cmask + at, size);
    if (d->ext_cap_tail)
        st_le16(d->config + d->ext_cap_tail + 2,
                (uint16_t)((ld_le16(d->config + d->ext_cap_tail + 2) & 15) | at << 4));
    d->ext_cap_tail = at;
    return at;
}

void pci_intx_init(struct pci_dev *d, unsigned pin)
{
    assert(pin >= 1 && pin <= 4);
    d->intx_pin = (uint8_t)pin;
    d->config[PCI_INT_PIN] = (uint8_t)pin;
}
