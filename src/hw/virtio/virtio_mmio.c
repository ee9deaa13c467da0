/* SPDX-License-Identifier: MIT */
/*
 * Virtio over MMIO (VIRTIO 1.2, 4.2): one register window, one interrupt line, one slot named `virtio-mmio-bus.N`. The
 * interface is version 2; `force-legacy=on` gives version 1 (4.2.4) for guests that know nothing newer.
 */
#include <stdio.h>
#include "base/log.h"
#include "core/flags.h"
#include "hw/virtio/virtio_forms.h"
#include "mem/view.h"
#include "pci/sysdev.h"

#define MMIO_SIZE 0x200
#define CONFIG_OFF 0x100
#define VENDOR_ID 0x554d4551            /* what QEMU's guests have always seen */

/* 4.2.2, 4.2.4 */
enum {
    R_MAGIC = 0x000, R_VERSION = 0x004, R_DEVICE_ID = 0x008, R_VENDOR_ID = 0x00c, R_DEVICE_FEATURES = 0x010,
    R_DEVICE_FEATURES_SEL = 0x014, R_DRIVER_FEATURES = 0x020, R_DRIVER_FEATURES_SEL = 0x024, R_GUEST_PAGE_SIZE = 0x028,
    R_QUEUE_SEL = 0x030, R_QUEUE_NUM_MAX = 0x034, R_QUEUE_NUM = 0x038, R_QUEUE_ALIGN = 0x03c, R_QUEUE_PFN = 0x040,
    R_QUEUE_READY = 0x044, R_QUEUE_NOTIFY = 0x050, R_INTERRUPT_STATUS = 0x060, R_INTERRUPT_ACK = 0x064, R_STATUS = 0x070,
    R_DESC_LOW = 0x080, R_DESC_HIGH = 0x084, R_DRIVER_LOW = 0x090, R_DRIVER_HIGH = 0x094, R_DEVICE_LOW = 0x0a0,
    R_DEVICE_HIGH = 0x0a4, R_SHM_SEL = 0x0ac, R_SHM_LEN_LOW = 0x0b0, R_SHM_LEN_HIGH = 0x0b4, R_SHM_BASE_LOW = 0x0b8,
    R_SHM_BASE_HIGH = 0x0bc, R_QUEUE_RESET = 0x0c0, R_CONFIG_GENERATION = 0x0fc,
};

struct virtio_mmio {
    struct sys_dev sys;                 /* first */
    bool force_legacy;
    uint32_t slot;
    struct region regs;
    struct dma dma;
    struct virtio_bus *bus;
    struct doorbell bell;
    uint32_t device_sel, driver_sel, queue_sel;
    uint32_t page_size, align;          /* legacy */
};

static struct virtio_mmio *mmio_of(const struct virtio_dev *v)
{
    return (struct virtio_mmio *)v->dev->bus->owner;
}

static void mmio_update_line(struct virtio_mmio *t)
{
    sys_dev_irq(&t->sys, 0, t->bus->v && t->bus->v->isr);
}

static void mmio_interrupt(struct virtio_dev *v, unsigned isr, uint16_t vector)
{
    v->isr |= (uint8_t)isr;
    mmio_update_line(mmio_of(v));
}

static bool mmio_legacy(const struct virtio_dev *v)
{
    return mmio_of(v)->force_legacy;
}

static const struct virtio_transport mmio_transport = { .interrupt = mmio_interrupt, .legacy_layout = mmio_legacy };

/* ---- registers ---- */

static uint32_t mmio_config_window(struct virtio_dev *v, uint64_t off, unsigned size)
{
    return virtio_config_read(v, (uint32_t)(off - CONFIG_OFF), size);
}

static uint32_t read_queue(struct virtio_mmio *t, struct virtio_dev *v, uint64_t off)
{
    struct virtq *vq = virtio_queue(v, t->queue_sel);

    if (!vq)
        return 0;
    switch (off) {
    case R_QUEUE_NUM_MAX: return vq->num_default;
    case R_QUEUE_PFN: return t->force_legacy && vq->enabled ? (uint32_t)(vq->desc / t->page_size) : 0;
    case R_QUEUE_READY: return !t->force_legacy && vq->enabled;
    case R_QUEUE_RESET: return !vq->enabled && vq->in_flight != 0;
    }
    return 0;
}

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
    struct virtio_mmio *t = opaque;
    struct virtio_dev *v = t->bus->v;

    if (off >= CONFIG_OFF)
        return v ? mmio_config_window(v, off, size) : 0;
    if (size != 4) {
        log_guest("virtio-mmio: read of %u bytes at 0x%llx", size, (unsigned long long)off);
        return 0;
    }
    switch (off) {
    case R_MAGIC: return 0x74726976;    /* "virt" */
    case R_VERSION: return t->force_legacy ? 1 : 2;
    case R_DEVICE_ID: return v ? v->model->id : 0;
    case R_VENDOR_ID: return VENDOR_ID;
    }
    if (!v)
        return 0;
    switch (off) {
    case R_DEVICE_FEATURES: return virtio_offered_word(v, t->device_sel, t->force_legacy);
    case R_INTERRUPT_STATUS: return v->isr;
    case R_STATUS: return virtio_status(v);
    case R_CONFIG_GENERATION: return v->config_gen;
    case R_SHM_LEN_LOW: case R_SHM_LEN_HIGH: case R_SHM_BASE_LOW: case R_SHM_BASE_HIGH: return UINT32_MAX; /* no such region */
    }
    return read_queue(t, v, off);
}

static void legacy_pfn(struct virtio_mmio *t, struct virtq *vq, uint32_t pfn)
{
    if (!pfn) {
        virtq_reset(vq);
        return;
    }
    virtq_set_legacy(vq, (uint64_t)pfn * t->page_size, t->align);
    virtq_enable(vq);
}

static void write_queue(struct virtio_mmio *t, struct virtio_dev *v, uint64_t off, uint32_t val)
{
    struct virtq *vq = virtio_queue(v, t->queue_sel);

    if (!vq)
        return;
    if (t->force_legacy) {
        if (off == R_QUEUE_PFN)
            legacy_pfn(t, vq, val);
        else if (off == R_QUEUE_NUM && !vq->enabled)
            (void)!virtq_set_num(vq, val);
        else if (off == R_QUEUE_ALIGN && is_pow2(val) && val >= 4)
            t->align = val;
        return;
    }
    if (off == R_QUEUE_READY) {
        if (val & 1 && !vq->enabled)
            virtq_enable(vq);
        else if (!(val & 1))
            virtq_reset(vq);
        return;
    }
    if (off == R_QUEUE_RESET) {
        if (val & 1 && virtio_has(v, VIRTIO_F_RING_RESET))
            virtq_reset(vq);
        return;
    }
    if (vq->enabled)
        return;                         /* 4.2.2.2: not while the queue is live */
    switch (off) {
    case R_QUEUE_NUM: (void)!virtq_set_num(vq, val); break;
    case R_DESC_LOW: case R_DESC_HIGH: vq->desc = bits_set(vq->desc, 8 * (off & 4), 32, val); break;
    case R_DRIVER_LOW: case R_DRIVER_HIGH: vq->driver = bits_set(vq->driver, 8 * (off & 4), 32, val); break;
    case R_DEVICE_LOW: case R_DEVICE_HIGH: vq->device = bits_set(vq->device, 8 * (off & 4), 32, val); break;
    }
}

static void mmio_notify(void *arg, uint64_t val)
{
    struct virtio_mmio *t = arg;
    struct virtio_dev *v = t->bus->v;       /* a slot is filled before the guest runs and stays so */
    struct virtq *vq = v ? virtio_queue(v, (uint16_t)val) : NULL;

    if (vq)
        virtq_kick(vq);
}

static void write_features(struct virtio_mmio *t, struct virtio_dev *v, uint32_t val)
{
    if (!t->force_legacy)
        virtio_driver_word(v, t->driver_sel, val);
    else if (t->driver_sel == 0)
        virtio_legacy_features(v, val);
}

static void mmio_write(void *opaque, uint64_t off, uint64_t val64, unsigned size)
{
    struct virtio_mmio *t = opaque;
    struct virtio_dev *v = t->bus->v;
    uint32_t val = (uint32_t)val64;

    if (!v)
        return;
    if (off >= CONFIG_OFF) {
        virtio_config_write(v, (uint32_t)(off - CONFIG_OFF), val, size);
        return;
    }
    if (size != 4) {
        log_guest("virtio-mmio: write of %u bytes at 0x%llx", size, (unsigned long long)off);
        return;
    }
    switch (off) {
    case R_DEVICE_FEATURES_SEL: t->device_sel = val; break;
    case R_DRIVER_FEATURES_SEL: t->driver_sel = val; break;
    case R_DRIVER_FEATURES: write_features(t, v, val); break;
    case R_GUEST_PAGE_SIZE:
        if (is_pow2(val))
            t->page_size = val;
        break;
    case R_QUEUE_SEL: t->queue_sel = val; break;
    case R_QUEUE_NOTIFY: mmio_notify(t, val); break;
    case R_INTERRUPT_ACK:
        v->isr &= (uint8_t)~val;
        mmio_update_line(t);
        break;
    case R_STATUS:
        virtio_set_status(v, (uint8_t)val);
        mmio_update_line(t);
        break;
    default: write_queue(t, v, off, val); break;
    }
}

static const struct mmio_ops mmio_ops = { .read = mmio_read, .write = mmio_write, .min = 1, .max = 4, .valid_min = 1, .valid_max = 8 };

/* ---- life ---- */

static bool mmio_realize(struct dev *d, struct err *e)
{
    struct virtio_mmio *t = (struct virtio_mmio *)d;
    char name[32];

    dma_init(&t->dma, &as_memory);
    atomic_store(&t->dma.enabled, true);
    snprintf(name, sizeof name, "virtio-mmio-bus.%u", t->slot);
    t->bus = (struct virtio_bus *)bus_new(&virtio_bus_class, d, name, e);
    if (!t->bus)
        return false;
    t->bus->transport = &mmio_transport;
    t->bus->dma = &t->dma;
    region_init_mmio(&t->regs, "virtio-mmio", MMIO_SIZE, &mmio_ops, t, d->dom);
    t->bell = (struct doorbell){ .off = R_QUEUE_NOTIFY, .size = 4, .fn = mmio_notify, .arg = t };
    region_doorbell(&t->regs, &t->bell);
    sys_dev_mmio_add(&t->sys, &t->regs);
    return true;
}

static void mmio_unrealize(struct dev *d)
{
    struct virtio_mmio *t = (struct virtio_mmio *)d;

    region_fini(&t->regs);
    sys_dev_mmio_forget(&t->sys);
}

static void mmio_reset(struct dev *d, enum reset_kind k)
{
    struct virtio_mmio *t = (struct virtio_mmio *)d;

    t->device_sel = t->driver_sel = t->queue_sel = 0;
    t->page_size = t->align = 4096;
}

static void mmio_reset_out(struct dev *d)
{
    mmio_update_line((struct virtio_mmio *)d);
}

static const struct prop mmio_props[] = {
    PROP_BOOL(struct virtio_mmio, force_legacy, "force-legacy", false, "Use the version 1 register interface, for guests that know nothing newer; under -compat qemu the default"),
    PROP_U32(struct virtio_mmio, slot, "slot", 0, 0, 255, "Number in the name of the bus, virtio-mmio-bus.N"),
    PROP_END
};

/* Before options: -global and the board may say otherwise. */
static bool mmio_init(struct obj *o, struct err *e)
{
    ((struct virtio_mmio *)o)->force_legacy = cli_flags.compat_qemu;
    return true;
}

static bool mmio_post_load(void *obj, struct err *e)
{
    struct virtio_mmio *t = obj;

    if (!is_pow2(t->page_size) || !is_pow2(t->align) || t->align < 4)
        return err_set(e, ERR_VALUE, "virtio-mmio: saved page size %u or alignment %u is not a power of two", t->page_size, t->align);
    return true;
}

static const struct state_field mmio_fields[] = {
    STATE_SYS(struct virtio_mmio),
    STATE_UINT(struct virtio_mmio, device_sel), STATE_UINT(struct virtio_mmio, driver_sel), STATE_UINT(struct virtio_mmio, queue_sel),
    STATE_UINT(struct virtio_mmio, page_size), STATE_UINT(struct virtio_mmio, align),
    STATE_END
};
static const struct state_desc mmio_state = { .name = "virtio-mmio", .version = 1, .fields = mmio_fields, .post_load = mmio_post_load };

static const struct dev_class virtio_mmio_class = {
    .obj = { .name = "virtio-mmio", .desc = "Register window for one virtio device", .base = &sys_dev_class.obj,
             .size = sizeof(struct virtio_mmio), .props = mmio_props, .flags = OCF_INTERNAL, .init = mmio_init },
    .cat = "Misc", .realize = mmio_realize, .unrealize = mmio_unrealize, .reset = mmio_reset, .reset_out = mmio_reset_out,
    .state = &mmio_state,
};
OBJ_CLASS(&virtio_mmio_class.obj);
