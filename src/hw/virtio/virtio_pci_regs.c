/* SPDX-License-Identifier: MIT */
/* Registers of virtio over PCI (VIRTIO 1.2): common configuration 4.1.4.3, notification, ISR, device; legacy 4.1.4.8. */
#include "base/log.h"
#include "hw/virtio/virtio_pci_int.h"

enum {      /* 4.1.4.3 */
    R_DEVICE_FEATURE_SEL = 0x00, R_DEVICE_FEATURE = 0x04, R_DRIVER_FEATURE_SEL = 0x08, R_DRIVER_FEATURE = 0x0c,
    R_CONFIG_VECTOR = 0x10, R_NUM_QUEUES = 0x12, R_STATUS = 0x14, R_CONFIG_GENERATION = 0x15, R_QUEUE_SEL = 0x16,
    R_QUEUE_SIZE = 0x18, R_QUEUE_VECTOR = 0x1a, R_QUEUE_ENABLE = 0x1c, R_QUEUE_NOTIFY_OFF = 0x1e, R_QUEUE_DESC = 0x20,
    R_QUEUE_DRIVER = 0x28, R_QUEUE_DEVICE = 0x30, R_QUEUE_NOTIFY_DATA = 0x38, R_QUEUE_RESET = 0x3a,
};
enum {      /* 4.1.4.8 */
    L_DEVICE_FEATURES = 0, L_DRIVER_FEATURES = 4, L_QUEUE_PFN = 8, L_QUEUE_SIZE = 12, L_QUEUE_SEL = 14,
    L_QUEUE_NOTIFY = VPCI_LEGACY_NOTIFY, L_STATUS = 18, L_ISR = 19, L_CONFIG_VECTOR = 20, L_QUEUE_VECTOR = 22,
};
#define LEGACY_PAGE 4096u

/* ---- shared by both interfaces; domain lock held ---- */

void virtio_pci_update_intx(struct virtio_pci *t)
{
    pci_intx_set(&t->pci, !pci_msix_enabled(&t->pci) && t->v->isr);
}

static uint8_t isr_take(struct virtio_pci *t)
{
    uint8_t isr = t->v->isr;

    t->v->isr = 0;
    virtio_pci_update_intx(t);
    return isr;
}

/* 4.1.5.1.2.1: a vector that the device does not have is not stored; the driver reads back that it has none. */
static uint16_t vector_checked(const struct virtio_pci *t, uint32_t vector)
{
    return vector < t->msix_vectors ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

static void set_status(struct virtio_pci *t, uint8_t s)
{
    virtio_set_status(t->v, s);
    if (!s) {
        t->device_sel = t->driver_sel = 0;
        t->queue_sel = 0;
    }
    virtio_pci_update_intx(t);
}

/* ---- common configuration ---- */

static uint32_t read_queue(const struct virtio_pci *t, uint64_t off)
{
    const struct virtq *vq = virtio_queue(t->v, t->queue_sel);

    if (!vq)
        return off == R_QUEUE_VECTOR ? VIRTIO_NO_VECTOR : 0;
    switch (off) {
    case R_QUEUE_SIZE: return vq->num;
    case R_QUEUE_VECTOR: return vq->vector;
    case R_QUEUE_ENABLE: return vq->enabled;
    case R_QUEUE_NOTIFY_OFF: return vq->index;
    case R_QUEUE_DESC: return (uint32_t)vq->desc;
    case R_QUEUE_DESC + 4: return (uint32_t)(vq->desc >> 32);
    case R_QUEUE_DRIVER: return (uint32_t)vq->driver;
    case R_QUEUE_DRIVER + 4: return (uint32_t)(vq->driver >> 32);
    case R_QUEUE_DEVICE: return (uint32_t)vq->device;
    case R_QUEUE_DEVICE + 4: return (uint32_t)(vq->device >> 32);
    case R_QUEUE_NOTIFY_DATA: return vq->index;
    case R_QUEUE_RESET: return !vq->enabled && vq->in_flight != 0;
    }
    return 0;
}

static uint64_t common_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_pci *t = opaque;
    struct virtio_dev *v = t->v;

    switch (off) {
    case R_DEVICE_FEATURE_SEL: return t->device_sel;
    case R_DEVICE_FEATURE: return virtio_offered_word(v, t->device_sel, false);
    case R_DRIVER_FEATURE_SEL: return t->driver_sel;
    case R_DRIVER_FEATURE: return t->driver_sel < 2 ? (uint32_t)(v->asked >> 32 * t->driver_sel) : 0;
    case R_CONFIG_VECTOR: return v->config_vector;
    case R_NUM_QUEUES: return v->n_queues;
    case R_STATUS: return virtio_status(v);
    case R_CONFIG_GENERATION: return (uint8_t)v->config_gen;
    case R_QUEUE_SEL: return t->queue_sel;
    }
    return read_queue(t, off);
}

static void write_queue(struct virtio_pci *t, uint64_t off, uint32_t val)
{
    struct virtq *vq = virtio_queue(t->v, t->queue_sel);

    if (!vq)
        return;
    if (off == R_QUEUE_RESET) {
        if (val & 1 && virtio_has(t->v, VIRTIO_F_RING_RESET))
            virtq_reset(vq);
        return;
    }
    if (off == R_QUEUE_VECTOR) {
        vq->vector = vector_checked(t, val);
        return;
    }
    if (vq->enabled) {
        log_guest("%s '%s': queue %u: register 0x%x written while it is enabled", t->v->model->name, t->pci.dev.obj.id, vq->index,
                  (unsigned)off);
        return;                         /* 4.1.4.3.2 */
    }
    switch (off) {
    case R_QUEUE_SIZE: (void)!virtq_set_num(vq, val); break;
    case R_QUEUE_ENABLE:
        if (val == 1)
            virtq_enable(vq);
        break;
    case R_QUEUE_DESC: case R_QUEUE_DESC + 4: vq->desc = bits_set(vq->desc, 8 * (off & 4), 32, val); break;
    case R_QUEUE_DRIVER: case R_QUEUE_DRIVER + 4: vq->driver = bits_set(vq->driver, 8 * (off & 4), 32, val); break;
    case R_QUEUE_DEVICE: case R_QUEUE_DEVICE + 4: vq->device = bits_set(vq->device, 8 * (off & 4), 32, val); break;
    }
}

static void common_write(void *opaque, uint64_t off, uint64_t val64, unsigned size)
{
    struct virtio_pci *t = opaque;
    uint32_t val = (uint32_t)val64;

    switch (off) {
    case R_DEVICE_FEATURE_SEL: t->device_sel = val; break;
    case R_DRIVER_FEATURE_SEL: t->driver_sel = val; break;
    case R_DRIVER_FEATURE: virtio_driver_word(t->v, t->driver_sel, val); break;
    case R_CONFIG_VECTOR: t->v->config_vector = vector_checked(t, val); break;
    case R_STATUS:
        t->legacy_used = false;
        set_status(t, (uint8_t)val);
        break;
    case R_QUEUE_SEL: t->queue_sel = (uint16_t)val; break;
    default: write_queue(t, off, val); break;
    }
}

const struct mmio_ops virtio_pci_common_ops = { .read = common_read, .write = common_write, .max = 4 };

/* ---- ISR, device configuration, notification ---- */

static uint64_t isr_read(void *opaque, uint64_t off, unsigned size) { return off ? 0 : isr_take(opaque); }
static void isr_write(void *opaque, uint64_t off, uint64_t v, unsigned size) { }

const struct mmio_ops virtio_pci_isr_ops = { .read = isr_read, .write = isr_write, .max = 4 };

static uint64_t device_read(void *opaque, uint64_t off, unsigned size)
{
    return virtio_config_read(((struct virtio_pci *)opaque)->v, (uint32_t)off, size);
}

static void device_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    virtio_config_write(((struct virtio_pci *)opaque)->v, (uint32_t)off, (uint32_t)val, size);
}

const struct mmio_ops virtio_pci_device_ops = { .read = device_read, .write = device_write, .max = 4 };

static uint64_t notify_read(void *opaque, uint64_t off, unsigned size) { return 0; }

/* Any vCPU, no lock: the set of queues is fixed while the device is plugged. The address tells the queue, the value nothing. */
static void notify_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct virtio_pci *t = opaque;
    struct virtq *vq = off % t->notify_step ? NULL : virtio_queue(t->v, (unsigned)(off / t->notify_step));

    if (vq)
        virtq_kick(vq);
}

const struct mmio_ops virtio_pci_notify_ops = { .read = notify_read, .write = notify_write, .max = 4, .lockless = true };

/* ---- legacy registers ---- */

/* Where the device's configuration begins: MSI-X moves it. */
static unsigned legacy_header(const struct virtio_pci *t)
{
    return pci_msix_enabled(&t->pci) ? VPCI_LEGACY_HEADER_MSIX : VPCI_LEGACY_HEADER;
}

static uint64_t legacy_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_pci *t = opaque;
    struct virtio_dev *v = t->v;
    const struct virtq *vq = virtio_queue(v, t->queue_sel);

    if (off >= legacy_header(t))
        return virtio_config_read(v, (uint32_t)off - legacy_header(t), size);
    switch (off) {
    case L_DEVICE_FEATURES: return virtio_offered_word(v, 0, true);
    case L_DRIVER_FEATURES: return (uint32_t)v->asked;
    case L_QUEUE_PFN: return vq && vq->enabled ? (uint32_t)(vq->desc / LEGACY_PAGE) : 0;
    case L_QUEUE_SIZE: return vq ? vq->num_default : 0;
    case L_QUEUE_SEL: return t->queue_sel;
    case L_STATUS: return virtio_status(v);
    case L_ISR: return isr_take(t);
    case L_CONFIG_VECTOR: return v->config_vector;
    case L_QUEUE_VECTOR: return vq ? vq->vector : VIRTIO_NO_VECTOR;
    }
    return 0;
}

static void legacy_pfn(struct virtq *vq, uint32_t pfn)
{
    uint16_t vector = vq->vector;

    virtq_reset(vq);
    if (!pfn)
        return;
    vq->vector = vector;
    virtq_set_legacy(vq, (uint64_t)pfn * LEGACY_PAGE, LEGACY_PAGE);
    virtq_enable(vq);
}

void virtio_pci_legacy_notify(void *arg, uint64_t val)
{
    struct virtq *vq = virtio_queue(((struct virtio_pci *)arg)->v, (uint16_t)val);

    if (vq)
        virtq_kick(vq);
}

static void legacy_write(void *opaque, uint64_t off, uint64_t val64, unsigned size)
{
    struct virtio_pci *t = opaque;
    struct virtio_dev *v = t->v;
    uint32_t val = (uint32_t)val64;
    struct virtq *vq = virtio_queue(v, t->queue_sel);

    t->legacy_used = true;
    if (off >= legacy_header(t)) {
        virtio_config_write(v, (uint32_t)off - legacy_header(t), val, size);
        return;
    }
    switch (off) {
    case L_DRIVER_FEATURES: virtio_legacy_features(v, val); break;
    case L_QUEUE_PFN:
        if (vq)
            legacy_pfn(vq, val);
        break;
    case L_QUEUE_SEL: t->queue_sel = (uint16_t)val; break;
    case L_QUEUE_NOTIFY: virtio_pci_legacy_notify(t, val); break;
    case L_STATUS: set_status(t, (uint8_t)val); break;
    case L_CONFIG_VECTOR: v->config_vector = vector_checked(t, val); break;
    case L_QUEUE_VECTOR:
        if (vq)
            vq->vector = vector_checked(t, val);
        break;
    }
}

const struct mmio_ops virtio_pci_legacy_ops = { .read = legacy_read, .write = legacy_write, .max = 4, .unaligned = true };
