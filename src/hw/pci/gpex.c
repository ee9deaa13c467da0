/* SPDX-License-Identifier: MIT */
/*
 * Generic PCI Express host, as the device tree's "pci-host-ecam-generic" describes it: configuration space in a window (ECAM,
 * PCI Express 7.2.2), memory and I/O windows onto the bus "pcie.0". Bus addresses of memory are the CPU's.
 * Windows: 0 ECAM, 1 memory below 4 GiB, 2 I/O, 3 memory above; the board maps 1 and 3 where its options said. Lines: INTA to INTD.
 */
#include "pci/pci.h"
#include "pci/sysdev.h"

struct gpex {
    struct sys_dev sys;
    uint64_t ecam_size, mmio_base, mmio_size, high_base, high_size;     /* options; a window of size 0 is not there */
    struct region ecam, mem, mem_hole, io, io_hole, mmio, high;
    struct pci_bus *bus;
};

static uint64_t ecam_read(void *opaque, uint64_t off, unsigned size)
{
    struct gpex *g = opaque;

    return pci_config_read(g->bus, (unsigned)(off >> 20), off >> 12 & 0xff, off & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct gpex *g = opaque;

    pci_config_write(g->bus, (unsigned)(off >> 20), off >> 12 & 0xff, off & 0xfff, (uint32_t)v, size);
}

/* What no BAR claims ends in a master abort: ones, and writes are lost (PCI Local Bus 3.0, section 3.3.3.1). */
static uint64_t hole_read(void *opaque, uint64_t off, unsigned size) { return UINT64_MAX; }
static void hole_write(void *opaque, uint64_t off, uint64_t v, unsigned size) { }

static const struct mmio_ops ecam_ops = { .read = ecam_read, .write = ecam_write, .max = 4, .lockless = true };
static const struct mmio_ops hole_ops = { .read = hole_read, .write = hole_write, .max = 8, .unaligned = true, .lockless = true };

static void gpex_set_irq(void *arg, unsigned pin, int level)
{
    struct gpex *g = arg;

    sys_dev_irq(&g->sys, pin, level);
}

static void add_window(struct gpex *g, struct region *r, const char *name, uint64_t base, uint64_t size)
{
    region_init_alias(r, name, &g->mem, base, size);
    sys_dev_mmio_add(&g->sys, r);
}

static void gpex_regions(struct gpex *g)
{
    region_init_mmio(&g->ecam, "pcie-ecam", g->ecam_size, &ecam_ops, g, g->sys.dev.dom);
    region_init_container(&g->mem, "pci-memory", UINT64_MAX);
    region_init_mmio(&g->mem_hole, "pci-memory-hole", UINT64_MAX, &hole_ops, g, g->sys.dev.dom);
    region_add(&g->mem, 0, &g->mem_hole, -1);
    region_init_container(&g->io, "pci-io", 0x10000);
    region_init_mmio(&g->io_hole, "pci-io-hole", 0x10000, &hole_ops, g, g->sys.dev.dom);
    region_add(&g->io, 0, &g->io_hole, -1);
    sys_dev_mmio_add(&g->sys, &g->ecam);
    add_window(g, &g->mmio, "pcie-mmio", g->mmio_base, g->mmio_size);
    sys_dev_mmio_add(&g->sys, &g->io);
    add_window(g, &g->high, "pcie-mmio-high", g->high_base, g->high_size);
}

static void gpex_unrealize(struct dev *d)
{
    struct gpex *g = (struct gpex *)d;
    struct region *all[] = { &g->ecam, &g->mmio, &g->high, &g->mem_hole, &g->io_hole, &g->mem, &g->io };

    sys_dev_mmio_forget(&g->sys);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        region_fini(all[i]);
}

/* The host bridge as it shows at 00.0 of its own bus: nothing but an identity. */
static const struct pci_class root_class = {
    .dev = { .obj = { .name = "gpex-root", .desc = "Generic PCI Express host bridge", .base = &pci_dev_class.dev.obj,
                      .size = sizeof(struct pci_dev), .flags = OCF_INTERNAL },
             .cat = "Bridge", .plugs_into = &pci_bus_class, .state_none = "has no registers of its own" },
    .vendor = 0x1b36, .device = 0x0008, .subvendor = 0x1af4, .subdevice = 0x1100, .class_code = 0x060000,
};
OBJ_CLASS(&root_class.dev.obj);

static bool gpex_realize(struct dev *d, struct err *e)
{
    struct gpex *g = (struct gpex *)d;
    struct dev *root;

    gpex_regions(g);
    g->bus = pci_root_bus_new(d, "pcie.0", true, &g->mem, &g->io, e);
    if (g->bus) {
        g->bus->set_irq = gpex_set_irq;
        g->bus->irq_arg = g;
        root = dev_new(&root_class.dev, &g->bus->bus, NULL, e);
        if (root) {
            PCI_DEV(root)->opt.addr = 0;
            g->bus->first_slot = 1;
            if (dev_realize(root, e))
                return true;
            obj_del(&root->obj);
        }
    }
    gpex_unrealize(d);
    return false;
}

static const struct prop gpex_props[] = {
    PROP_SIZE(struct gpex, ecam_size, "ecam-size", 256 * MiB, MiB, 256 * MiB, "Size of the configuration window: 1 MiB a bus"),
    PROP_U64(struct gpex, mmio_base, "mmio-base", 0, 0, 0, "Address of the window for 32-bit memory BARs"),
    PROP_SIZE(struct gpex, mmio_size, "mmio-size", GiB, 0, 4 * GiB, "Its size"),
    PROP_U64(struct gpex, high_base, "high-base", 0, 0, 0, "Address of the window for 64-bit memory BARs"),
    PROP_SIZE(struct gpex, high_size, "high-size", GiB, 0, BIT64(46), "Its size"),
    PROP_END,
};

static const struct dev_class gpex_class = {
    .obj = { .name = "gpex-pcihost", .desc = "Generic PCI Express host", .base = &sys_dev_class.obj, .size = sizeof(struct gpex),
             .props = gpex_props, .flags = OCF_INTERNAL },
    .cat = "Bridge", .fw_name = "pci", .realize = gpex_realize, .unrealize = gpex_unrealize,
    .state_none = "all state is in the functions on its bus",
};
OBJ_CLASS(&gpex_class.obj);
