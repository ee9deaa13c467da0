/* SPDX-License-Identifier: MIT */
/* MSI (PCI 3.0 section 6.8.1), and the choice between MSI-X and MSI. */
#include <stdlib.h>

#include "base/str.h"
#include "pci/pci_int.h"

/* What the registers say, kept where a notifier on another thread may look: under irq_lock. */
struct pci_msi {
    unsigned vectors;
    bool mask_bits;
    atomic_bool enabled;
    unsigned log2;              /* granted vectors */
    struct msi_msg msg;
    uint32_t mask;
    atomic_uint pending;
};

bool pci_msi_init(struct pci_dev *d, unsigned vectors, bool mask_bits, struct err *e)
{
    unsigned lg = ctz64(vectors);
    if (!is_pow2(vectors) || vectors > 32)
        return err_set(e, ERR_VALUE, "MSI takes 1, 2, 4, 8, 16 or 32 vectors, not %u", vectors);
    uint8_t at = pci_cap_add(d, PCI_CAP_MSI, 0, mask_bits ? 24 : 14, e);
    if (!at)
        return false;
    d->msi_cap = at;
    d->msi = xnew(struct pci_msi);
    d->msi->vectors = vectors;
    d->msi->mask_bits = mask_bits;
    st_le16(d->config + at + PCI_MSI_FLAGS, (uint16_t)(PCI_MSI_64 | (mask_bits ? PCI_MSI_MASKABLE : 0) | lg << 1));
    st_le16(d->wmask + at + PCI_MSI_FLAGS, 0x70 | PCI_MSI_ENABLE);
    st_le32(d->wmask + at + PCI_MSI_ADDR, 0xfffffffc);
    st_le32(d->wmask + at + PCI_MSI_ADDR_UP, 0xffffffff);
    st_le16(d->wmask + at + PCI_MSI_DATA, 0xffff);
    if (mask_bits)
        st_le32(d->wmask + at + PCI_MSI_MASK, (uint32_t)mask_of_size(4) >> (32 - vectors));
    return true;
}

static void send(struct pci_dev *d, unsigned v)
{
    struct pci_msi *m = d->msi;
    struct msi_msg msg = m->msg;
    msg.data = (msg.data & ~(uint32_t)(BIT64(m->log2) - 1)) | v;
    if (pci_bus_master(d))
        msi_send(d->dma.as, msg);
}

bool pci_msi_fire(struct pci_dev *d, unsigned v)
{
    struct pci_msi *m = d->msi;
    pthread_mutex_lock(&d->irq_lock);
    bool on = atomic_load(&m->enabled);
    v &= (unsigned)BIT64(m->log2) - 1;
    if (on && m->mask_bits && m->mask >> v & 1)
        atomic_fetch_or(&m->pending, 1u << v);
    else if (on)
        send(d, v);
    pthread_mutex_unlock(&d->irq_lock);
    return on;
}

void pci_msi_written(struct pci_dev *d, uint32_t off, unsigned size)
{
    struct pci_msi *m = d->msi;
    const uint8_t *c = d->config + d->msi_cap;
    if (!pci_touches(off, size, d->msi_cap, m->mask_bits ? 20 : 14))
        return;
    pthread_mutex_lock(&d->irq_lock);
    uint16_t flags = ld_le16(c + PCI_MSI_FLAGS);
    atomic_store(&m->enabled, (flags & PCI_MSI_ENABLE) != 0);
    m->log2 = MIN((unsigned)flags >> 4 & 7, ctz64(m->vectors));
    m->msg.addr = ld_le32(c + PCI_MSI_ADDR) | (uint64_t)ld_le32(c + PCI_MSI_ADDR_UP) << 32;
    m->msg.data = ld_le16(c + PCI_MSI_DATA);
    m->mask = m->mask_bits ? ld_le32(c + PCI_MSI_MASK) : 0;
    uint32_t fire = atomic_load(&m->enabled) ? atomic_load(&m->pending) & ~m->mask : 0;
    atomic_fetch_and(&m->pending, ~fire);
    for (unsigned v = 0; fire; v++, fire >>= 1)
        if (fire & 1)
            send(d, v & ((unsigned)BIT64(m->log2) - 1));
    pthread_mutex_unlock(&d->irq_lock);
    pci_intx_update(d);                 /* silent while MSI is on */
}

/* The registers have their reset values already. */
void pci_msi_reset(struct pci_dev *d)
{
    if (d->msi)
        pci_msi_set_pending(d, 0);
}

void pci_msi_set_pending(struct pci_dev *d, uint32_t pending)
{
    struct pci_msi *m = d->msi;

    pthread_mutex_lock(&d->irq_lock);
    atomic_store(&m->pending, pending & (uint32_t)(BIT64(m->vectors) - 1));
    pthread_mutex_unlock(&d->irq_lock);
}

void pci_msi_fini(struct pci_dev *d)
{
    free(d->msi);
    d->msi = NULL;
    d->msi_cap = 0;
}

uint32_t pci_msi_pending(const struct pci_dev *d) { return d->msi->mask_bits ? atomic_load(&d->msi->pending) : 0; }
unsigned pci_msi_count(struct pci_dev *d)
{
    if (!d->msi)
        return 0;
    pthread_mutex_lock(&d->irq_lock);
    unsigned n = 1u << d->msi->log2;
    pthread_mutex_unlock(&d->irq_lock);
    return n;
}

bool pci_msi_only_enabled(const struct pci_dev *d) { return d->msi && atomic_load(&d->msi->enabled); }
