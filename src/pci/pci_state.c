/* SPDX-License-Identifier: MIT */
/* What is saved of every function. Thread: the machine is stopped. */
#include "base/str.h"
#include "pci/pci_int.h"

static void config_save(const void *obj, struct str *out)
{
    const struct pci_dev *d = obj;

    str_addn(out, d->config, d->config_size);
}

/* Only what can differ between two instances of the same device is taken; the rest must be the same. */
static bool config_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct pci_dev *d = obj;
    const uint8_t *in = data;

    if (len != d->config_size)
        return err_set(e, ERR_VALUE, "saved configuration space has %zu bytes, that of '%s' has %u", len, d->dev.obj.id, d->config_size);
    for (uint32_t i = 0; i < d->config_size; i++)
        if ((in[i] ^ d->config[i]) & ~(d->wmask[i] | d->w1cmask[i] | d->vmask[i]))
            return err_set(e, ERR_VALUE, "saved configuration space is of another device than '%s': 0x%02x at 0x%x, not 0x%02x",
                           d->dev.obj.id, in[i], i, d->config[i]);
    memcpy(d->config, in, d->config_size);
    return true;
}

static void msi_save(const void *obj, struct str *out)
{
    const struct pci_dev *d = obj;
    uint8_t b[4];

    if (!d->msi)
        return;
    st_le32(b, pci_msi_pending(d));
    str_addn(out, b, sizeof b);
}

static bool msi_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct pci_dev *d = obj;

    if (len != (d->msi ? 4u : 0u))
        return err_set(e, ERR_VALUE, "saved MSI state of '%s' has %zu bytes", d->dev.obj.id, len);
    if (d->msi)
        pci_msi_set_pending(d, ld_le32(data));
    return true;
}

static void msix_save(const void *obj, struct str *out) { pci_msix_save(obj, out); }
static bool msix_load(void *obj, const void *data, size_t len, struct err *e) { return pci_msix_load(obj, data, len, e); }

static const struct state_custom config_custom = { config_save, config_load };
static const struct state_custom msi_custom = { msi_save, msi_load };
static const struct state_custom msix_custom = { msix_save, msix_load };

static bool pci_dev_loaded(void *obj, struct err *e)
{
    struct pci_dev *d = obj;

    if (d->pm_cap && d->config[d->pm_cap + PCI_PM_CTRL] & PCI_PM_STATE && (d->config[d->pm_cap + PCI_PM_CTRL] & PCI_PM_STATE) != PCI_PM_D3HOT)
        return err_set(e, ERR_VALUE, "saved power state of '%s' is not supported", d->dev.obj.id);
    pci_loaded(d);
    if (atomic_load(&d->silent) & PCI_SILENT_FLR)
        loop_post(loop_main(), &d->flr_post);
    return true;
}

#define SKIP_FROM_TO(first, last, reason)                                                                             \
    { .name = #first, .kind = ST_SKIP, .off = offsetof(struct pci_dev, first), .count = 1, .why = reason,             \
      .size = offsetof(struct pci_dev, last) + sizeof(((struct pci_dev *)0)->last) - offsetof(struct pci_dev, first) }

static const struct state_field pci_dev_fields[] = {
    STATE_SKIP(struct pci_dev, dev, "the device tree is built by the command line on both sides"),
    STATE_SKIP(struct pci_dev, visible, "follows from being plugged"),
    ST_(ST_U32, struct pci_dev, silent, .max = PCI_SILENT_FLR | PCI_SILENT_VF),
    SKIP_FROM_TO(opt, pbus, "options"),
    ST_(ST_CUSTOM, struct pci_dev, config, .custom = &config_custom),
    SKIP_FROM_TO(wmask, claimed, "of the class"),
    SKIP_FROM_TO(bar, rom_ram, "follows from configuration space, or options"),
    ST_(ST_CUSTOM, struct pci_dev, msi, .custom = &msi_custom),
    ST_(ST_CUSTOM, struct pci_dev, msix, .custom = &msix_custom),
    SKIP_FROM_TO(irq_lock, intx_pin, "of the class, or follows from configuration space"),
    ST_(ST_BOOL, struct pci_dev, intx_level),
    SKIP_FROM_TO(intx_off, cfg_read, "follows from configuration space, or of the class"),
    STATE_END,
};
const struct state_desc pci_dev_state = { "pci", 1, pci_dev_fields, pci_dev_loaded, NULL };
