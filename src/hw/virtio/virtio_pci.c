/* SPDX-License-Identifier: MIT */
/*
 * Virtio over PCI (VIRTIO 1.2, 4.1): identity, BARs, capabilities, interrupts, life.
 * BAR 0: legacy registers (I/O), where they are on. BAR 1: MSI-X. BAR 4: modern registers, 64 bits, prefetchable.
 */
#include "hw/virtio/virtio_pci.h"

#include "core/flags.h"
#include "hw/virtio/virtio_pci_int.h"
#include "pci/pci_spec.h"

#define LEGACY_BAR 0
#define MSIX_BAR 1
#define MODERN_BAR 4
#define MODERN_ID 0x1040                /* 4.1.2 */
#define SUBSYSTEM_ID 0x1100             /* 4.1.2.1: 0x40 or higher in a device without legacy registers */

/* 4.1.4: structure types, and the offsets in a capability */
enum { CFG_COMMON = 1, CFG_NOTIFY = 2, CFG_ISR = 3, CFG_DEVICE = 4, CFG_PCI = 5 };
enum { CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_SIZE = 16, CAP_MULTIPLIER = 16, CAP_DATA = 16 };

#define COMMON_ROWS                                                                                                        \
    PROP_U32(struct virtio_pci, n_vectors, "vectors", UINT32_MAX, 0, UINT32_MAX,                                           \
             "MSI-X vectors (0 to 2048; 0: INTx only); left out: one a queue and one for the configuration"),              \
    PROP_BOOL(struct virtio_pci, page_per_vq, "page-per-vq", false, "Give the doorbell of each queue a page of its own")

const struct prop virtio_pci_props[] = {
    PROP_TRI(struct virtio_pci, disable_legacy, "disable-legacy", TRI_AUTO,
             "Leave the legacy registers out; auto: yes, under -compat qemu only below PCI Express ports"),
    PROP_BOOL(struct virtio_pci, disable_modern, "disable-modern", false, "Leave the modern registers out"),
    COMMON_ROWS,
    PROP_END
};
const struct prop virtio_pci_fixed_props[] = { COMMON_ROWS, PROP_END };

static const struct virtio_pci_class *class_of(const struct virtio_pci *t)
{
    return (const struct virtio_pci_class *)t->pci.dev.obj.cls;
}

struct virtio_dev *virtio_pci_model(struct dev *d)
{
    return (struct virtio_dev *)((char *)d + class_of((struct virtio_pci *)d)->off);
}

/* ---- interrupts ---- */

/* 4.1.4.5.1: with MSI-X the ISR tells changes of the configuration only, and the pin is silent. Domain lock held. */
static void pci_interrupt(struct virtio_dev *v, unsigned isr, uint16_t vector)
{
    struct virtio_pci *t = virtio_pci_of(v);

    if (!pci_msix_enabled(&t->pci)) {
        v->isr |= (uint8_t)isr;
        virtio_pci_update_intx(t);
        return;
    }
    v->isr |= isr & VIRTIO_ISR_CONFIG;
    if (vector != VIRTIO_NO_VECTOR)
        pci_msi_notify(&t->pci, vector);
}

static bool pci_legacy_layout(const struct virtio_dev *v)
{
    return virtio_pci_of(v)->legacy_used;
}

static const struct virtio_transport pci_transport = { .interrupt = pci_interrupt, .legacy_layout = pci_legacy_layout };

/* ---- the window in configuration space (4.1.4.9) ---- */

/* The register area at [@off, @off+@size) of the modern BAR; NULL if there is none that takes such an access. */
static struct region *window_find(struct virtio_pci *t, uint32_t off, uint32_t size)
{
    struct region *all[] = { &t->common, &t->isr, &t->device, &t->notify };

    if ((size != 1 && size != 2 && size != 4) || off & (size - 1))
        return NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        if (all[i]->size && off >= all[i]->off && range_ok(off - all[i]->off, size, all[i]->size))
            return all[i];
    return NULL;
}

static struct region *window_target(struct virtio_pci *t, uint32_t *off, uint32_t *size)
{
    const uint8_t *cap = t->pci.config + t->cfg_cap;
    struct region *r;

    *off = ld_le32(cap + CAP_OFFSET);
    *size = ld_le32(cap + CAP_LENGTH);
    r = cap[CAP_BAR] == MODERN_BAR ? window_find(t, *off, *size) : NULL;
    if (r)
        *off -= (uint32_t)r->off;
    return r;
}

static uint32_t window_read(struct pci_dev *d, uint32_t off, unsigned size, uint32_t val)
{
    struct virtio_pci *t = (struct virtio_pci *)d;
    uint32_t data = t->cfg_cap + (uint32_t)CAP_DATA, at, len;
    struct region *r;

    if (!ranges_overlap(off, size, data, 4) || !(r = window_target(t, &at, &len)))
        return val;
    st_le(d->config + data, r->ops->read(r->opaque, at, len), len);
    return (uint32_t)ld_le(d->config + off, size);
}

static void config_written(struct pci_dev *d, uint32_t off, unsigned size, uint32_t old)
{
    struct virtio_pci *t = (struct virtio_pci *)d;
    uint32_t data = t->cfg_cap + (uint32_t)CAP_DATA, at, len;
    struct region *r;

    if (d->msix && ranges_overlap(off, size, d->msix_cap + (uint32_t)PCI_MSIX_FLAGS, 2))
        virtio_pci_update_intx(t);
    if (t->cfg_cap && ranges_overlap(off, size, data, 4) && (r = window_target(t, &at, &len)))
        r->ops->write(r->opaque, at, ld_le(d->config + data, len), len);
}

/* ---- capabilities ---- */

static uint8_t add_cap(struct virtio_pci *t, uint8_t type, uint8_t size, const struct region *r, struct err *e)
{
    uint8_t at = pci_cap_add(&t->pci, PCI_CAP_VENDOR, 0, size, e);
    uint8_t *cap = t->pci.config + at;

    if (!at)
        return 0;
    cap[2] = size;
    cap[CAP_TYPE] = type;
    if (r) {
        cap[CAP_BAR] = MODERN_BAR;
        st_le32(cap + CAP_OFFSET, (uint32_t)r->off);
        st_le32(cap + CAP_LENGTH, (uint32_t)r->size);
    }
    return at;
}

static bool add_caps(struct virtio_pci *t, struct err *e)
{
    uint8_t notify;

    if (!add_cap(t, CFG_COMMON, CAP_SIZE, &t->common, e) || !add_cap(t, CFG_ISR, CAP_SIZE, &t->isr, e) ||
        (t->v->config_size && !add_cap(t, CFG_DEVICE, CAP_SIZE, &t->device, e)))
        return false;
    notify = add_cap(t, CFG_NOTIFY, CAP_SIZE + 4, &t->notify, e);
    t->cfg_cap = notify ? add_cap(t, CFG_PCI, CAP_SIZE + 4, NULL, e) : 0;
    if (!t->cfg_cap)
        return false;
    st_le32(t->pci.config + notify + CAP_MULTIPLIER, t->notify_step);
    t->pci.wmask[t->cfg_cap + CAP_BAR] = 0xff;
    memset(t->pci.wmask + t->cfg_cap + CAP_OFFSET, 0xff, CAP_SIZE + 4 - CAP_OFFSET);
    t->pci.cfg_read = window_read;
    return true;
}

/* ---- BARs ---- */

static void add_area(struct virtio_pci *t, struct region *r, const char *name, uint64_t off, uint64_t size,
                     const struct mmio_ops *ops)
{
    region_init_mmio(r, name, size, ops, t, t->pci.dev.dom);
    region_add(&t->bar_modern, off, r, 1);
}

static bool init_modern(struct virtio_pci *t, struct err *e)
{
    uint64_t notify;

    t->notify_step = t->page_per_vq ? 4096 : 4;
    notify = MAX((uint64_t)t->v->n_queues * t->notify_step, (uint64_t)VPCI_AREA);
    region_init_container(&t->bar_modern, "virtio-pci", VPCI_NOTIFY_OFF + notify);
    add_area(t, &t->common, "virtio-pci-common", VPCI_COMMON_OFF, VPCI_AREA, &virtio_pci_common_ops);
    add_area(t, &t->isr, "virtio-pci-isr", VPCI_ISR_OFF, VPCI_AREA, &virtio_pci_isr_ops);
    if (t->v->config_size)
        add_area(t, &t->device, "virtio-pci-device", VPCI_DEVICE_OFF, VPCI_AREA, &virtio_pci_device_ops);
    add_area(t, &t->notify, "virtio-pci-notify", VPCI_NOTIFY_OFF, notify, &virtio_pci_notify_ops);
    pci_bar_add(&t->pci, MODERN_BAR, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, &t->bar_modern);
    return add_caps(t, e);
}

static void init_legacy(struct virtio_pci *t)
{
    uint64_t size = VPCI_LEGACY_HEADER_MSIX + (uint64_t)t->v->config_size;

    region_init_mmio(&t->bar_legacy, "virtio-pci-legacy", size, &virtio_pci_legacy_ops, t, t->pci.dev.dom);
    t->legacy_bell = (struct doorbell){
        .off = VPCI_LEGACY_NOTIFY, .size = 2, .fn = virtio_pci_legacy_notify, .arg = t,
    };
    region_doorbell(&t->bar_legacy, &t->legacy_bell);
    pci_bar_add(&t->pci, LEGACY_BAR, PCI_BAR_IO, &t->bar_legacy);
}

/* ---- life ---- */

/* Which of the two interfaces the options and the place ask for. */
static bool choose_interfaces(struct virtio_pci *t, const struct virtio_model *m, struct err *e)
{
    const struct pci_bus *b = t->pci.pbus;
    bool below_port = b->express && b->bridge;

    t->modern = !t->disable_modern;
    switch (class_of(t)->kind) {
    case VIRTIO_PCI_TRANSITIONAL: t->legacy = true; break;
    case VIRTIO_PCI_NON_TRANSITIONAL: t->legacy = false; break;
    case VIRTIO_PCI_GENERIC:
        t->legacy = t->disable_legacy == TRI_OFF ||
                    (t->disable_legacy == TRI_AUTO && cli_flags.compat_qemu && !below_port && m->pci_legacy_id);
        break;
    }
    if (t->legacy && !m->pci_legacy_id) {
        err_set(e, ERR_VALUE, "%s has no legacy registers", m->name);
        return err_hint(e, "leave disable-legacy= out, or use %s-pci", m->name);
    }
    if (!t->legacy && !t->modern) {
        err_set(e, ERR_VALUE, "disable-modern=on leaves no registers, for the legacy ones are off too");
        return err_hint(e, m->pci_legacy_id ? "add disable-legacy=off" : "leave disable-modern= out");
    }
    return true;
}

static void set_identity(struct virtio_pci *t, const struct virtio_model *m)
{
    uint8_t *c = t->pci.config;

    st_le16(c + PCI_DEVICE_ID, t->legacy ? m->pci_legacy_id : (uint16_t)(MODERN_ID + m->id));
    c[PCI_REVISION] = t->legacy ? 0 : 1;
    st_le(c + PCI_CLASS_PROG, m->pci_class, 3);
    st_le16(c + PCI_SUBVENDOR_ID, VIRTIO_PCI_VENDOR);
    st_le16(c + PCI_SUBSYSTEM_ID, t->legacy ? m->id : SUBSYSTEM_ID);
}

static bool init_interrupts(struct virtio_pci *t, struct err *e)
{
    uint32_t n = t->n_vectors;

    pci_intx_init(&t->pci, 1);
    if (n == UINT32_MAX) {
        n = t->v->model->vectors ? t->v->model->vectors(t->v) : t->v->n_queues + 1;
        n = MIN(n, (uint32_t)PCI_MSIX_MAX);
    } else if (n > PCI_MSIX_MAX) {
        return err_set(e, ERR_VALUE, "vectors: %u is more than the %u that MSI-X can have", n, PCI_MSIX_MAX);
    }
    t->msix_vectors = (uint16_t)n;
    return !n || pci_msix_init(&t->pci, n, MSIX_BAR, 0, (uint32_t)align_up(n * (uint64_t)PCI_MSIX_ENTRY, 2048), NULL, e);
}

static void fini_regions(struct virtio_pci *t)
{
    struct region *all[] = { &t->common, &t->isr, &t->device, &t->notify, &t->bar_modern, &t->bar_legacy };

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        region_fini(all[i]);
}

bool virtio_pci_realize(struct dev *d, struct err *e)
{
    struct virtio_pci *t = (struct virtio_pci *)d;
    const struct virtio_model *m = class_of(t)->model;

    t->cfg_cap = 0;
    t->legacy_used = false;
    t->device = (struct region){ 0 };
    if (!choose_interfaces(t, m, e) || !virtio_realize(virtio_pci_model(d), m, &pci_transport, d, &t->pci.dma, e))
        return false;
    t->v = virtio_pci_model(d);
    set_identity(t, m);
    if (t->legacy)
        init_legacy(t);
    if (!init_interrupts(t, e) || (t->modern && !init_modern(t, e))) {
        virtio_unrealize(t->v);
        fini_regions(t);
        return false;
    }
    t->pci.cfg_write = config_written;
    return true;
}

void virtio_pci_unrealize(struct dev *d)
{
    struct virtio_pci *t = (struct virtio_pci *)d;

    virtio_unrealize(t->v);
    fini_regions(t);
}

void virtio_pci_reset(struct dev *d, enum reset_kind k)
{
    struct virtio_pci *t = (struct virtio_pci *)d;

    virtio_reset(t->v);
    t->device_sel = t->driver_sel = 0;
    t->queue_sel = 0;
    t->legacy_used = !t->modern;
}

void virtio_pci_reset_out(struct dev *d)
{
    virtio_pci_update_intx((struct virtio_pci *)d);
}

void co_virtio_pci_quiesce(struct dev *d)
{
    co_virtio_quiesce(((struct virtio_pci *)d)->v);
}

/* ---- saved state ---- */

static const struct state_field virtio_pci_fields[] = {
    STATE_STRUCT(struct virtio_pci, pci, &pci_dev_state),
    STATE_SKIP(struct virtio_pci, disable_legacy, "given by an option"),
    STATE_SKIP(struct virtio_pci, disable_modern, "given by an option"),
    STATE_SKIP(struct virtio_pci, page_per_vq, "given by an option"),
    STATE_SKIP(struct virtio_pci, n_vectors, "given by an option"),
    STATE_SKIP(struct virtio_pci, legacy, "follows from the options"),
    STATE_SKIP(struct virtio_pci, modern, "follows from the options"),
    STATE_SKIP(struct virtio_pci, msix_vectors, "set by realize"),
    STATE_SKIP(struct virtio_pci, v, "set by realize"),
    STATE_UINT(struct virtio_pci, device_sel), STATE_UINT(struct virtio_pci, driver_sel),
    STATE_UINT(struct virtio_pci, queue_sel),
    STATE_SKIP(struct virtio_pci, cfg_cap, "set by realize"),
    STATE_BOOL(struct virtio_pci, legacy_used),
    STATE_SKIP(struct virtio_pci, notify_step, "set by realize"),
    STATE_SKIP(struct virtio_pci, bar_legacy, "set by realize"),
    STATE_SKIP(struct virtio_pci, bar_modern, "set by realize"),
    STATE_SKIP(struct virtio_pci, common, "set by realize"),
    STATE_SKIP(struct virtio_pci, isr, "set by realize"),
    STATE_SKIP(struct virtio_pci, device, "set by realize"),
    STATE_SKIP(struct virtio_pci, notify, "set by realize"),
    STATE_SKIP(struct virtio_pci, legacy_bell, "set by realize"),
    STATE_END
};
const struct state_desc virtio_pci_state = { .name = "virtio-pci", .version = 1, .fields = virtio_pci_fields };
