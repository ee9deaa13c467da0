/* SPDX-License-Identifier: MIT */
/* The virtio-bus: one slot behind a transport such as virtio-mmio, and the life of what is plugged into it. */
#include <stdio.h>
#include "hw/virtio/virtio_forms.h"

static bool virtio_bus_full(const struct bus *b)
{
    return b->n_devs > 0;
}

static bool virtio_bus_attach(struct bus *b, struct dev *d, struct err *e)
{
    if (b->n_devs == 0)
        return true;
    err_set(e, ERR_BUSY, "bus '%s' has one slot, and '%s' is in it", b->obj.id, list_first(&b->devs, struct dev, on_bus)->obj.id);
    return err_hint(e, "leave bus= out to take the next free slot, or name another virtio-mmio-bus.N");
}

static void virtio_bus_path(const struct dev *d, char *buf, size_t n)
{
    snprintf(buf, n, "virtio");
}

const struct bus_class virtio_bus_class = {
    .obj = { .name = "virtio-bus", .desc = "Slot of a virtio transport", .base = &bus_obj_class, .size = sizeof(struct virtio_bus) },
    .attach = virtio_bus_attach, .full = virtio_bus_full, .path = virtio_bus_path, .shares_domain = true,
};
OBJ_CLASS(&virtio_bus_class.obj);

static const struct virtio_bus_dev_class *form(const struct dev *d)
{
    return (const struct virtio_bus_dev_class *)d->obj.cls;
}

static struct virtio_dev *model(struct dev *d)
{
    return (struct virtio_dev *)((char *)d + form(d)->off);
}

bool virtio_bus_dev_realize(struct dev *d, struct err *e)
{
    struct virtio_bus *b = (struct virtio_bus *)d->bus;

    if (!virtio_realize(model(d), form(d)->model, b->transport, d, b->dma, e))
        return false;
    domain_lock(d->dom);
    b->v = model(d);
    domain_unlock(d->dom);
    return true;
}

void virtio_bus_dev_unrealize(struct dev *d)
{
    domain_lock(d->dom);
    ((struct virtio_bus *)d->bus)->v = NULL;
    domain_unlock(d->dom);
    virtio_unrealize(model(d));
}

void virtio_bus_dev_reset(struct dev *d, enum reset_kind k)
{
    virtio_reset(model(d));
}

void co_virtio_bus_dev_quiesce(struct dev *d)
{
    co_virtio_quiesce(model(d));
}

struct virtio_dev *virtio_of_dev(struct dev *d)
{
    const struct dev_class *c = DEV_CLASS(d);

    if (c->realize == virtio_bus_dev_realize)
        return model(d);
#ifdef CONFIG_PCI
    if (c->realize == virtio_pci_realize)
        return virtio_pci_model(d);
#endif
    return NULL;
}
