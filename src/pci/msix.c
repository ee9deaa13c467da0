/* SPDX-License-Identifier: MIT */
/* MSI-X (PCI 3.0 section 6.8.2): table and pending bits in a BAR, masks per vector and for all. */
#include <stdlib.h>

#include "base/log.h"
#include "base/str.h"
#include "pci/pci_int.h"

struct pci_msix {
    unsigned n;
    uint8_t *table;             /* n entries of 16 bytes; under irq_lock, as all below */
    uint64_t *pending;
    bool enabled, mask_all;
    atomic_bool is_enabled;     /* the same as enabled, for a look without the lock */
    struct region table_r, pba_r, own;
    bool own_bar;
};

/* ---- delivery; irq_lock held ---- */
static bool masked(const struct pci_msix *m, unsigned v)
{
    return m->mask_all || m->table[v * PCI_MSIX_ENTRY + 12] & 1;
}

static void deliver(struct pci_dev *d, unsigned v)
{
    const uint8_t *t = d->msix->table + v * PCI_MSIX_ENTRY;
    if (pci_bus_master(d))
        msi_send(d->dma.as, (struct msi_msg){ .addr = ld_le64(t) & ~UINT64_C(3), .data = ld_le32(t + 8) });
}

static void deliver_pending(struct pci_dev *d, unsigned v)
{
    struct pci_msix *m = d->msix;
    uint64_t bit = BIT64(v & 63);
    if (!m->enabled || masked(m, v) || !(m->pending[v / 64] & bit))
        return;
    m->pending[v / 64] &= ~bit;
    deliver(d, v);
}

static bool msix_fire(struct pci_dev *d, unsigned v)
{
    struct pci_msix *m = d->msix;
    pthread_mutex_lock(&d->irq_lock);
    bool on = m->enabled;
    if (on && v < m->n && masked(m, v))
        m->pending[v / 64] |= BIT64(v & 63);
    else if (on && v < m->n)
        deliver(d, v);
    pthread_mutex_unlock(&d->irq_lock);
    return on;
}

/* ---- the table and the pending bits as the guest sees them; domain lock held ---- */
static uint64_t table_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_dev *d = opaque;
    pthread_mutex_lock(&d->irq_lock);
    uint64_t v = range_ok(off, size, d->msix->n * (uint64_t)PCI_MSIX_ENTRY) ? ld_le(d->msix->table + off, size) : 0;
    pthread_mutex_unlock(&d->irq_lock);
    return v;
}

static void table_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_dev *d = opaque;
    struct pci_msix *m = d->msix;
    if (!range_ok(off, size, m->n * (uint64_t)PCI_MSIX_ENTRY))
        return;
    unsigned v = (unsigned)(off / PCI_MSIX_ENTRY);
    pthread_mutex_lock(&d->irq_lock);
    st_le(m->table + off, val, size);
    st_le32(m->table + v * PCI_MSIX_ENTRY + 12, m->table[v * PCI_MSIX_ENTRY + 12] & 1);     /* the rest is reserved */
    deliver_pending(d, v);
    pthread_mutex_unlock(&d->irq_lock);
}

static uint64_t pba_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_dev *d = opaque;
    pthread_mutex_lock(&d->irq_lock);
    uint64_t v = d->msix->pending[off / 8] >> 8 * (off & 7);
    pthread_mutex_unlock(&d->irq_lock);
    return v;
}

static void pba_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    log_guest("msix: write to the pending bits");
}

static const struct mmio_ops table_ops = { .read = table_read, .write = table_write, .min = 4, .max = 8, .valid_min = 4 };
static const struct mmio_ops pba_ops = { .read = pba_read, .write = pba_write, .max = 8 };

/* ---- set-up ---- */
void pci_msix_show(struct pci_dev *d, unsigned vectors)
{
    uint32_t at = d->msix_cap + (uint32_t)PCI_MSIX_FLAGS;
    uint16_t size = (uint16_t)(MIN(MAX(vectors, 1u), d->msix->n) - 1);

    st_le16(d->config + at, (uint16_t)((ld_le16(d->config + at) & (PCI_MSIX_ENABLE | PCI_MSIX_MASK_ALL)) | size));
    st_le16(d->init + at, size);
}

bool pci_msix_init(struct pci_dev *d, unsigned vectors, unsigned bar, uint32_t table_off, uint32_t pba_off, struct region *in,
                   struct err *e)
{
    uint64_t tsize = vectors * (uint64_t)PCI_MSIX_ENTRY, psize = (vectors + 63) / 64 * 8;
    if (!vectors || vectors > PCI_MSIX_MAX)
        return err_set(e, ERR_VALUE, "MSI-X takes 1 to %u vectors, not %u", PCI_MSIX_MAX, vectors);
    if (bar >= PCI_BARS || (table_off | pba_off) & 7 || ranges_overlap(table_off, tsize, pba_off, psize))
        return err_set(e, ERR_VALUE, "MSI-X table at 0x%x and pending bits at 0x%x of BAR %u: not possible", table_off, pba_off,
                       bar);
    if (in && !(range_ok(table_off, tsize, in->size) && range_ok(pba_off, psize, in->size)))
        return err_set(e, ERR_VALUE, "MSI-X table of %u vectors at 0x%x and pending bits at 0x%x do not fit into BAR %u (%llu bytes)",
                       vectors, table_off, pba_off, bar, (unsigned long long)in->size);
    uint8_t at = pci_cap_add(d, PCI_CAP_MSIX, 0, PCI_MSIX_SIZE, e);
    if (!at)
        return false;
    struct pci_msix *m = d->msix = xnew(struct pci_msix);
    d->msix_cap = at;
    m->n = vectors;
    m->table = xcalloc(vectors, PCI_MSIX_ENTRY);
    m->pending = xcalloc(psize, 1);
    region_init_mmio(&m->table_r, "msix-table", tsize, &table_ops, d, d->dev.dom);
    region_init_mmio(&m->pba_r, "msix-pba", psize, &pba_ops, d, d->dev.dom);
    if (!in) {
        region_init_container(&m->own, "msix", MAX(table_off + tsize, pba_off + psize));
        m->own_bar = true;
        in = &m->own;
    }
    region_add(in, table_off, &m->table_r, 1);
    region_add(in, pba_off, &m->pba_r, 1);
    if (m->own_bar)
        pci_bar_add(d, bar, PCI_BAR_MEM32, in);
    st_le16(d->config + at + PCI_MSIX_FLAGS, (uint16_t)(vectors - 1));
    st_le16(d->wmask + at + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE | PCI_MSIX_MASK_ALL);
    st_le32(d->config + at + PCI_MSIX_TABLE, table_off | bar);
    st_le32(d->config + at + PCI_MSIX_PBA, pba_off | bar);
    pci_msix_reset(d);              /* every vector masked */
    return true;
}

void pci_msix_fini(struct pci_dev *d)
{
    struct pci_msix *m = d->msix;
    if (!m)
        return;
    region_fini(&m->table_r);
    region_fini(&m->pba_r);
    if (m->own_bar)
        region_fini(&m->own);
    free(m->table);
    free(m->pending);
    free(m);
    d->msix = NULL;
    d->msix_cap = 0;
}

/* irq_lock held. */
static void take_flags(struct pci_msix *m, uint16_t flags)
{
    m->enabled = flags & PCI_MSIX_ENABLE;
    m->mask_all = flags & PCI_MSIX_MASK_ALL;
    atomic_store(&m->is_enabled, m->enabled);
}

void pci_msix_written(struct pci_dev *d, uint32_t off, unsigned size)
{
    struct pci_msix *m = d->msix;
    if (!pci_touches(off, size, d->msix_cap + (uint32_t)PCI_MSIX_FLAGS, 2))
        return;
    pthread_mutex_lock(&d->irq_lock);
    take_flags(m, ld_le16(d->config + d->msix_cap + PCI_MSIX_FLAGS));
    for (unsigned v = 0; v < m->n; v++)
        deliver_pending(d, v);
    pthread_mutex_unlock(&d->irq_lock);
    pci_intx_update(d);                 /* silent while MSI-X is on */
}

/* In one piece: a message that comes meanwhile is latched or sent by the old rules, or lost, never left pending for the next driver. */
void pci_msix_reset(struct pci_dev *d)
{
    struct pci_msix *m = d->msix;
    if (!m)
        return;
    d->config[d->msix_cap + PCI_MSIX_FLAGS + 1] &= 0x3f;
    pthread_mutex_lock(&d->irq_lock);
    take_flags(m, 0);
    memset(m->table, 0, m->n * (size_t)PCI_MSIX_ENTRY);
    memset(m->pending, 0, (m->n + 63) / 64 * 8);
    for (unsigned v = 0; v < m->n; v++)
        m->table[v * PCI_MSIX_ENTRY + 12] = 1;
    pthread_mutex_unlock(&d->irq_lock);
    pci_intx_update(d);
}

/* ---- saved state: table, then pending bits ---- */
void pci_msix_save(const struct pci_dev *d, struct str *out)
{
    if (!d->msix)
        return;
    str_addn(out, d->msix->table, d->msix->n * (size_t)PCI_MSIX_ENTRY);
    str_addn(out, d->msix->pending, (d->msix->n + 63) / 64 * 8);
}

bool pci_msix_load(struct pci_dev *d, const void *data, size_t len, struct err *e)
{
    struct pci_msix *m = d->msix;
    size_t t = m ? m->n * (size_t)PCI_MSIX_ENTRY : 0, p = m ? (m->n + 63) / 64 * 8 : 0;
    if (len != t + p)
        return err_set(e, ERR_VALUE, "saved MSI-X table has %zu bytes, the device's has %zu", len, t + p);
    if (!m)
        return true;
    pthread_mutex_lock(&d->irq_lock);
    memcpy(m->table, data, t);
    memcpy(m->pending, (const char *)data + t, p);
    for (unsigned v = 0; v < m->n; v++)
        st_le32(m->table + v * PCI_MSIX_ENTRY + 12, m->table[v * PCI_MSIX_ENTRY + 12] & 1);
    if (m->n & 63)
        m->pending[m->n / 64] &= BIT64(m->n & 63) - 1;      /* no bits behind the last vector */
    pthread_mutex_unlock(&d->irq_lock);
    return true;
}

/* ---- for devices ---- */
bool pci_msi_notify(struct pci_dev *d, unsigned v)
{
    if (d->msix && msix_fire(d, v))
        return true;
    return d->msi && pci_msi_fire(d, v);
}

bool pci_msix_enabled(const struct pci_dev *d) { return d->msix && atomic_load(&d->msix->is_enabled); }
bool pci_msi_enabled(const struct pci_dev *d) { return pci_msix_enabled(d) || pci_msi_only_enabled(d); }

unsigned pci_msi_vectors(struct pci_dev *d)
{
    if (d->msix && (pci_msix_enabled(d) || !d->msi))
        return d->msix->n;
    return pci_msi_count(d);
}
