/* SPDX-License-Identifier: MIT */
/* Capability lists (PCI 3.0 section 6.7; PCI Express 7.6) and power management. */
#include <assert.h>

#include "base/str.h"
#include "pci/pci_int.h"

/* ---- who has which dwords ---- */

static bool is_claimed(const struct pci_dev *d, uint32_t off, uint32_t size)
{
    for (uint32_t i = off / 4; i <= (off + size - 1) / 4; i++)
        if (d->claimed[i / 8] >> (i & 7) & 1)
            return true;
    return false;
}

/* Claims [off, off + size) of configuration space; false if a byte of it is taken, or not there. */
static bool claim(struct pci_dev *d, uint32_t off, uint32_t size)
{
    if (!size || !range_ok(off, size, d->config_size) || is_claimed(d, off, size))
        return false;
    for (uint32_t i = off / 4; i <= (off + size - 1) / 4; i++)
        d->claimed[i / 8] |= (uint8_t)(1 << (i & 7));
    return true;
}

/* The first free run of @size bytes in [from, to), dword aligned; 0: none. */
static uint32_t find_free(const struct pci_dev *d, uint32_t size, uint32_t from, uint32_t to)
{
    for (uint32_t at = from; size && range_ok(at, size, to); at += 4)
        if (!is_claimed(d, at, size))
            return at;
    return 0;
}

/* ---- the two lists ---- */

static bool no_room(const struct pci_dev *d, const char *what, unsigned id, unsigned at, unsigned size, struct err *e)
{
    if (at)
        return err_set(e, ERR_VALUE, "%s: %s 0x%x of %u bytes does not fit at 0x%x of configuration space", d->dev.obj.cls->name, what,
                       id, size, at);
    return err_set(e, ERR_VALUE, "%s: no room for %s 0x%x of %u bytes in configuration space", d->dev.obj.cls->name, what, id, size);
}

uint8_t pci_cap_add(struct pci_dev *d, uint8_t id, uint8_t off, uint8_t size, struct err *e)
{
    uint32_t at = off ? off : find_free(d, size, 0x40, PCI_CONFIG_SIZE);

    if (at < 0x40 || at & 3 || !range_ok(at, size, PCI_CONFIG_SIZE) || !claim(d, at, size)) {
        no_room(d, "capability", id, off, size, e);
        return 0;
    }
    d->config[at] = id;
    d->config[at + 1] = 0;
    d->config[d->cap_list_tail ? d->cap_list_tail + 1 : PCI_CAP_PTR] = (uint8_t)at;
    d->cap_list_tail = (uint8_t)at;
    d->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    return (uint8_t)at;
}

uint16_t pci_ext_cap_add(struct pci_dev *d, uint16_t id, uint8_t ver, uint16_t off, uint16_t size, struct err *e)
{
    uint32_t at = off ? off : find_free(d, size, PCI_CONFIG_SIZE, PCIE_CONFIG_SIZE);
    bool first = !d->ext_cap_tail;

    if (at < PCI_CONFIG_SIZE || at & 3 || (first && at != PCI_CONFIG_SIZE) || !claim(d, at, size)) {
        no_room(d, "extended capability", id, off, size, e);
        return 0;
    }
    st_le32(d->config + at, (uint32_t)id | (uint32_t)(ver & 15) << 16);
    if (!first)
        st_le16(d->config + d->ext_cap_tail + 2, (uint16_t)((ld_le16(d->config + d->ext_cap_tail + 2) & 15) | at << 4));
    d->ext_cap_tail = (uint16_t)at;
    return (uint16_t)at;
}

void pci_intx_init(struct pci_dev *d, unsigned pin)
{
    assert(pin >= 1 && pin <= 4);
    d->intx_pin = (uint8_t)pin;
    d->config[PCI_INT_PIN] = (uint8_t)pin;
}

/* ---- power management ---- */

bool pci_pm_init(struct pci_dev *d, bool keeps_state, struct err *e)
{
    uint8_t at = pci_cap_add(d, PCI_CAP_PM, 0, PCI_PM_SIZE, e);

    if (!at)
        return false;
    d->pm_cap = at;
    st_le16(d->config + at + PCI_PM_CAPS, PCI_PM_VERSION);
    d->config[at + PCI_PM_CTRL] = keeps_state ? PCI_PM_NO_SOFT_RESET : 0;
    d->wmask[at + PCI_PM_CTRL] = PCI_PM_STATE;
    return true;
}

/* A state that is not supported is not entered: the write is lost (PCI-PM 1.2, 3.2.4). */
void pci_pm_written(struct pci_dev *d, uint32_t off, unsigned size)
{
    uint8_t *ctrl = d->config + d->pm_cap + PCI_PM_CTRL, want = *ctrl & PCI_PM_STATE;

    if (!pci_touches(off, size, d->pm_cap + (uint32_t)PCI_PM_CTRL, 1))
        return;
    if (want && want != PCI_PM_D3HOT) {
        *ctrl = (uint8_t)((*ctrl & ~PCI_PM_STATE) | d->pm_state);
        return;
    }
    if (d->pm_state && !want && !(*ctrl & PCI_PM_NO_SOFT_RESET))
        pci_reset_later(d);
    d->pm_state = want;
    pci_update(d);
    if (d->sriov)
        pci_sriov_update(d);
}
