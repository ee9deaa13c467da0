/* SPDX-License-Identifier: MIT */
/* For tests of PCI: the generic host with its windows mapped, a function whose parts a test chooses, a place that counts messages. */
#ifndef TESTS_UNIT_PCI_TEST_H
#define TESTS_UNIT_PCI_TEST_H

#include "hw.h"
#include "base/rcu.h"
#include "pci/pci.h"
#include "pci/pci_spec.h"

enum { T_ECAM = HW_DEV, T_MSI = 0x28000000, T_MEM = 0x40000000, T_IO = 0x3000000 };

/* ---- messages ---- */
static struct region t_msi_region;
static unsigned t_msgs[64];         /* by data & 63 */
static unsigned t_total;
static uint64_t t_msi_read(void *o, uint64_t off, unsigned size) { return 0; }
static void t_msi_write(void *o, uint64_t off, uint64_t v, unsigned size) { }
static void t_msi_take(void *o, uint64_t off, uint32_t data)
{
    t_msgs[data & 63]++;
    t_total++;
}
static const struct mmio_ops t_msi_ops = { .read = t_msi_read, .write = t_msi_write, .max = 8, .lockless = true };

/* ---- the function under test ---- */
struct tdev {
    struct pci_dev pci;
    struct region bar0, bar2;
    uint32_t reg;
    unsigned resets[4], out_resets;
};
static struct { bool pm, pm_keeps, msi, msix, intx, fail; } t_with;     /* parts of the next one */

static uint64_t t_bar_read(void *o, uint64_t off, unsigned size) { return off ? 0 : ((struct tdev *)o)->reg; }
static void t_bar_write(void *o, uint64_t off, uint64_t v, unsigned size)
{
    if (!off)
        ((struct tdev *)o)->reg = (uint32_t)v;
}
static const struct mmio_ops t_bar_ops = { .read = t_bar_read, .write = t_bar_write, .min = 4, .max = 4 };

static bool t_realize(struct dev *dev, struct err *e)
{
    struct tdev *t = (struct tdev *)dev;
    struct pci_dev *d = &t->pci;
    region_init_mmio(&t->bar0, "t0", 0x1000, &t_bar_ops, t, dev->dom);
    region_init_container(&t->bar2, "t2", 0x1000);
    pci_bar_add(d, 0, PCI_BAR_MEM32, &t->bar0);
    pci_bar_add(d, 2, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, &t->bar2);
    if (t_with.intx)
        pci_intx_init(d, 1);
    if (t_with.fail)
        return err_set(e, ERR_GENERIC, "told to fail");
    return (!t_with.pm || pci_pm_init(d, t_with.pm_keeps, e)) && (!t_with.msi || pci_msi_init(d, 4, true, e)) &&
           (!t_with.msix || pci_msix_init(d, 4, 2, 0, 0x800, &t->bar2, e));
}
static void t_unrealize(struct dev *dev)
{
    struct tdev *t = (struct tdev *)dev;
    region_fini(&t->bar0);
    region_fini(&t->bar2);
}
static void t_reset(struct dev *dev, enum reset_kind k)
{
    ((struct tdev *)dev)->reg = 0;
    ((struct tdev *)dev)->resets[k]++;
}
static void t_reset_out(struct dev *dev) { ((struct tdev *)dev)->out_resets++; }
static const struct state_field t_fields[] = { STATE_STRUCT(struct tdev, pci, &pci_dev_state), STATE_UINT(struct tdev, reg), STATE_END };
static const struct state_desc t_state = { "tdev", 1, t_fields, NULL, NULL };

#define T_CLASS(sym, nm, expr)                                                                                                   \
    static const struct pci_class sym = {                                                                                        \
        .dev = { .obj = { .name = nm, .desc = "Function under test", .base = &pci_dev_class.dev.obj, .size = sizeof(struct tdev) },  \
                 .cat = "Misc", .plugs_into = &pci_bus_class, .realize = t_realize, .unrealize = t_unrealize, .reset = t_reset,  \
                 .reset_out = t_reset_out, .state = &t_state, .hotplug = true },                                                 \
        .vendor = 0x1234, .device = 0x11e9, .class_code = 0x00ff00, .express = expr };                                           \
    OBJ_CLASS(&sym.dev.obj)
T_CLASS(tdev_class, "tdev", true);
T_CLASS(tdev_conv_class, "tdev-conventional", false);

/* ---- the host ---- */
static struct sys_dev *t_host;
static struct pci_bus *t_bus;
static const char *const t_host_opts[][2] = { { "mmio-base", "0x40000000" }, { "mmio-size", "0x20000000" }, { NULL, NULL } };

static inline int t_setup(void **state)
{
    if (t_host)
        return 0;
    hw_setup(state);
    rcu_thread_register();
    region_init_mmio(&t_msi_region, "msi", 0x1000, &t_msi_ops, NULL, NULL);
    t_msi_region.msi = t_msi_take;
    region_add(&hw_root, T_MSI, &t_msi_region, 0);
    t_host = hw_dev("gpex-pcihost", t_host_opts, 4);
    sys_dev_map(t_host, 1, &hw_root, T_MEM);
    sys_dev_map(t_host, 2, &hw_root, T_IO);
    t_bus = (struct pci_bus *)bus_find("pcie.0");
    assert_non_null(t_bus);
    return 0;
}

/* @opts is "addr=3,multifunction=on" and so on. NULL where it fails, with @e filled. */
static inline struct dev *t_try(const char *class, struct bus *bus, const char *id, const char *const opts[][2], struct err *e)
{
    struct dev *d = dev_new((const struct dev_class *)obj_class_find(class), bus, id, e);
    assert_non_null(d);
    for (size_t i = 0; opts && opts[i][0]; i++)
        if (!obj_set(&d->obj, opts[i][0], opts[i][1], e))
            fail_msg("%s", e->msg);
    if (dev_realize(d, e))
        return d;
    obj_del(&d->obj);
    return NULL;
}
static inline struct dev *t_new_on(const char *class, struct bus *bus, const char *id, const char *const opts[][2])
{
    struct err e = ERR_INIT;
    struct dev *d = t_try(class, bus, id, opts, &e);
    if (!d)
        fail_msg("%s", e.msg);
    return d;
}
static inline struct tdev *t_new(const char *class) { return (struct tdev *)t_new_on(class, &t_bus->bus, NULL, NULL); }
static inline void t_remove(struct dev *d) { co_run_main(hw_co_remove, d); }

static inline void t_settle(void)
{
    for (int i = 0; i < 8; i++)
        loop_run_once(loop_main(), 0);
}

/* ---- configuration space, through ECAM ---- */
static inline uint64_t t_addr(unsigned bus, unsigned devfn, uint32_t off) { return T_ECAM + ((uint64_t)bus << 20 | devfn << 12 | off); }
static inline uint32_t t_rd_at(unsigned bus, unsigned devfn, uint32_t off, unsigned size) { return (uint32_t)hw_rd(t_addr(bus, devfn, off), size); }
static inline void t_wr_at(unsigned bus, unsigned devfn, uint32_t off, uint32_t v, unsigned size) { hw_wr(t_addr(bus, devfn, off), v, size); }
static inline uint32_t t_rd(const void *d, uint32_t off, unsigned size) { return t_rd_at(0, (unsigned)((const struct pci_dev *)d)->devfn, off, size); }
static inline void t_wr(const void *d, uint32_t off, uint32_t v, unsigned size) { t_wr_at(0, (unsigned)((const struct pci_dev *)d)->devfn, off, v, size); }
static inline unsigned t_cap(const void *d, unsigned id)
{
    for (unsigned at = t_rd(d, PCI_CAP_PTR, 1), n = 0; at && n < 48; at = t_rd(d, at + 1, 1), n++)
        if (t_rd(d, at, 1) == id)
            return at;
    return 0;
}

static inline void t_unused(void)
{
    hw_unused();
    (void)t_msgs;
    (void)t_total;
}

#endif
