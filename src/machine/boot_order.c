/* SPDX-License-Identifier: MIT */
/*
 * Which device firmware tries first. Devices are named by paths as Open Firmware has them (IEEE 1275, 3.2.1.1, and its binding for PCI);
 * EDK2 finds its boot options by them (OvmfPkg/Library/QemuBootOrderLib), for example "/pci@30000000/scsi@2/disk@0,0".
 */
#include <inttypes.h>
#include <stdlib.h>
#include "base/bits.h"
#include "core/dev.h"
#include "machine/machine_int.h"
#include "pci/sysdev.h"

/* The elements of @d and of all that it hangs from. */
static void fw_path(const struct dev *d, struct str *out)
{
    if (d->bus && d->bus->owner)
        fw_path(d->bus->owner, out);
    if (d->bus && BUS_CLASS(d->bus)->fw_path) {
        BUS_CLASS(d->bus)->fw_path(d, out);
    } else if (obj_is(&d->obj, &sys_dev_class.obj)) {
        const char *name = DEV_CLASS(d)->fw_name;
        str_printf(out, "/%s@%016" PRIx64, name ? name : d->obj.cls->name, ((const struct sys_dev *)d)->mmio_base[0]);
    }
}

struct places { const struct dev **d; size_t n; };

static bool add_place(struct dev *d, void *arg)
{
    struct places *p = arg;
    if (d->bootindex >= 0) {
        p->d = xrealloc(p->d, (p->n + 1) * sizeof(struct dev *));
        p->d[p->n++] = d;
    }
    return true;
}

static int by_index(const void *a, const void *b)
{
    const struct dev *x = *(const struct dev *const *)a, *y = *(const struct dev *const *)b;
    return x->bootindex < y->bootindex ? -1 : x->bootindex > y->bootindex;
}

void machine_boot_order(struct str *out)
{
    struct places p = { 0 };
    dev_each(add_place, &p);
    if (p.n)
        qsort(p.d, p.n, sizeof *p.d, by_index);
    for (size_t i = 0; i < p.n; i++) {
        str_add(out, i ? "\n" : "");
        fw_path(p.d[i], out);
        str_add(out, p.d[i]->boot_part);
    }
    if (p.n && machine_boot.strict)         /* firmware that knows the word goes on to nothing else */
        str_add(out, "\nHALT");
    if (p.n)
        str_addn(out, "", 1);
    free(p.d);
}
