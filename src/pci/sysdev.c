/* SPDX-License-Identifier: MIT */
#include "pci/sysdev.h"

#include <assert.h>
#include <stdlib.h>

void sys_dev_mmio_add(struct sys_dev *d, struct region *r)
{
    assert(d->n_mmio < SYS_DEV_MMIO);
    d->mmio[d->n_mmio] = r;
    d->mmio_base[d->n_mmio++] = UINT64_MAX;
}

void sys_dev_mmio_forget(struct sys_dev *d)
{
    d->n_mmio = 0;
}

void sys_dev_map(struct sys_dev *d, unsigned n, struct region *parent, uint64_t addr)
{
    assert(n < d->n_mmio && d->mmio_base[n] == UINT64_MAX);
    d->mmio_base[n] = addr;
    region_add(parent, addr, d->mmio[n], 0);
}

void sys_dev_connect(struct sys_dev *d, unsigned n, struct irq to)
{
    if (n >= d->n_irq) {
        d->irq = xrealloc(d->irq, (n + 1) * sizeof *d->irq);
        memset(d->irq + d->n_irq, 0, (n + 1 - d->n_irq) * sizeof *d->irq);
        d->n_irq = n + 1;
    }
    d->irq[n] = to;
}

static void sys_dev_finalize(struct obj *o)
{
    struct sys_dev *d = (struct sys_dev *)o;
    free(d->irq);
    d->irq = NULL;
    d->n_irq = 0;
}

/* As a struct dev_class, so that what is derived from it may be treated as a device class. */
static struct irq *sys_dev_outputs(struct dev *d, unsigned *n)
{
    *n = ((struct sys_dev *)d)->n_irq;
    return ((struct sys_dev *)d)->irq;
}

const struct dev_class sys_dev_class = {
    .obj = { .name = "sys-bus-device", .desc = "Device soldered on the board", .base = &dev_obj_class,
             .size = sizeof(struct sys_dev), .flags = OCF_ABSTRACT, .finalize = sys_dev_finalize },
    .outputs = sys_dev_outputs, .cat = "Board", .state_none = "abstract",
};
OBJ_CLASS(&sys_dev_class.obj);
