/* SPDX-License-Identifier: MIT */
/* Type 1 headers: bus numbers, windows, secondary bus reset. Sections are of the PCI-to-PCI Bridge Architecture 1.2. */
#include "pci/bridge.h"

#include <stdio.h>

#include "base/rcu.h"
#include "pci/pci_int.h"

/* ---- windows, 3.2.5.6 to 3.2.5.10 ---- */

struct window { uint64_t base, limit; };    /* closed where base > limit */

static struct window window_of(const struct pci_dev *d, unsigned w)
{
    const uint8_t *c = d->config;

    switch (w) {
    case BRIDGE_IO:
        return (struct window){ (c[PCI_IO_BASE] & 0xf0u) << 8, (c[PCI_IO_LIMIT] & 0xf0u) << 8 | 0xfff };
    case BRIDGE_MEM:
        return (struct window){ (uint64_t)(ld_le16(c + PCI_MEM_BASE) & 0xfff0u) << 16,
                                (uint64_t)(ld_le16(c + PCI_MEM_LIMIT) & 0xfff0u) << 16 | 0xfffff };
    default:
        return (struct window){ (uint64_t)ld_le32(c + PCI_PREF_BASE_UP) << 32 | (uint64_t)(ld_le16(c + PCI_PREF_BASE) & 0xfff0u) << 16,
                                (uint64_t)ld_le32(c + PCI_PREF_LIMIT_UP) << 32 |
                                    (uint64_t)(ld_le16(c + PCI_PREF_LIMIT) & 0xfff0u) << 16 | 0xfffff };
    }
}

void pci_bridge_window(const struct pci_dev *d, unsigned w, uint64_t *base, uint64_t *limit)
{
    struct window at = window_of(d, w);

    *base = at.base;
    *limit = at.limit;
}

static void window_set(struct pci_bridge *br, unsigned w, uint64_t base, uint64_t size)
{
    struct pci_bus *up = br->pci.pbus;
    struct region *r = &br->win[w], *below = w == BRIDGE_IO ? &br->io : &br->mem;

    if (br->win_base[w] == base && br->win_size[w] == size)
        return;
    if (br->win_size[w])
        region_del(r);
    br->win_base[w] = base;
    br->win_size[w] = size;
    if (!size)
        return;
    r->alias = below;
    r->alias_off = base;
    region_set_size(r, size);
    region_add(w == BRIDGE_IO ? up->io : up->mem, base, r, 1);
}

static void windows_update(struct pci_bridge *br)
{
    const struct pci_dev *d = &br->pci;
    uint16_t cmd = ld_le16(d->config + PCI_COMMAND);

    region_batch_begin();
    for (unsigned w = 0; w < BRIDGE_WINDOWS; w++) {
        struct window at = window_of(d, w);
        bool on = cmd & (w == BRIDGE_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY) && pci_in_d0(d) && atomic_load(&d->visible);

        /* An end at 2^64 - 1 would make the size 0 when the window is everything: closed, as by reset's values. */
        if (!on || at.base > at.limit || at.limit - at.base == UINT64_MAX)
            window_set(br, w, 0, 0);
        else
            window_set(br, w, at.base, at.limit - at.base + 1);
    }
    region_batch_end();
}

void pci_bridge_update(struct pci_bridge *br)
{
    const uint8_t *c = br->pci.config;
    unsigned range = c[PCI_SECONDARY_BUS] | (unsigned)c[PCI_SUBORDINATE_BUS] << 8;

    atomic_store(&br->sec->range, pci_in_d0(&br->pci) ? range : 0);
    windows_update(br);
}

void pci_bridge_reset(struct pci_bridge *br)
{
    br->todo &= ~(unsigned)BRIDGE_DO_RESET;
    atomic_fetch_and(&br->sec->silent, ~(unsigned)PCI_SILENT_BUS_RESET);
    pci_bridge_update(br);
}

/* ---- resets of what is below; 3.2.5.18 ---- */

/* What is below answers again, where nothing asks for its silence any more. Domain lock held. */
static void release(struct pci_bridge *br)
{
    if (br->todo || br->resetting)
        return;
    if (!(ld_le16(br->pci.config + PCI_BRIDGE_CTL) & PCI_BRIDGE_CTL_RESET))
        atomic_fetch_and(&br->sec->silent, ~(unsigned)PCI_SILENT_BUS_RESET);
    if (br->settled)
        br->settled(br);
}

/* Main loop. What the registers ask for when the resets are done is what counts: they may have changed meanwhile. */
static void run_job(void *arg)
{
    struct pci_bridge *br = arg;
    struct domain *dom = br->pci.dev.dom;

    domain_lock(dom);
    unsigned todo = br->todo;
    br->todo = 0;
    br->resetting = true;
    domain_unlock(dom);
    if (todo)                                   /* unless the bridge was reset meanwhile, and all below with it */
        bus_reset_tree(&br->sec->bus, todo & BRIDGE_DO_POWER_ON ? RESET_COLD : RESET_BUS);
    domain_lock(dom);
    br->resetting = false;
    release(br);
    domain_unlock(dom);
}

void pci_bridge_job(struct pci_bridge *br, unsigned todo)
{
    br->todo |= todo;
    loop_post(loop_main(), &br->job);
}

void pci_bridge_hold(struct pci_bridge *br, unsigned reason)
{
    atomic_fetch_or(&br->sec->silent, reason);
    pci_bridge_job(br, BRIDGE_DO_RESET);
}

static void secondary_reset(struct pci_bridge *br, bool was)
{
    bool on = ld_le16(br->pci.config + PCI_BRIDGE_CTL) & PCI_BRIDGE_CTL_RESET;

    if (on && !was)
        pci_bridge_hold(br, PCI_SILENT_BUS_RESET);
    else if (!on && was)
        release(br);        /* at once when the reset is done: drivers do not all wait before they write what they saved */
}

void pci_bridge_written(struct pci_bridge *br, uint32_t off, unsigned size, uint32_t old)
{
    uint32_t ctl_off = PCI_BRIDGE_CTL - off;

    if (pci_touches(off, size, PCI_COMMAND, 2) || pci_touches(off, size, PCI_PRIMARY_BUS, PCI_IO_LIMIT_UP + 2 - PCI_PRIMARY_BUS) ||
        (br->pci.pm_cap && pci_touches(off, size, br->pci.pm_cap + (uint32_t)PCI_PM_CTRL, 1)))
        pci_bridge_update(br);
    if (pci_touches(off, size, PCI_BRIDGE_CTL, 1))
        secondary_reset(br, old >> 8 * ctl_off & PCI_BRIDGE_CTL_RESET);
}

/* ---- set-up ---- */

static void header(struct pci_dev *d)
{
    uint8_t *c = d->config, *w = d->wmask;

    w[PCI_PRIMARY_BUS] = w[PCI_SECONDARY_BUS] = w[PCI_SUBORDINATE_BUS] = 0xff;
    w[PCI_IO_BASE] = w[PCI_IO_LIMIT] = 0xf0;
    st_le16(d->w1cmask + PCI_SEC_STATUS, 0xf900);
    st_le16(d->vmask + PCI_SEC_STATUS, 0xf900);
    st_le32(w + PCI_MEM_BASE, 0xfff0fff0);
    st_le32(w + PCI_PREF_BASE, 0xfff0fff0);
    c[PCI_PREF_BASE] = c[PCI_PREF_LIMIT] = 1;       /* 64 bits wide */
    st_le32(w + PCI_PREF_BASE_UP, 0xffffffff);
    st_le32(w + PCI_PREF_LIMIT_UP, 0xffffffff);
    st_le16(w + PCI_BRIDGE_CTL, PCI_BRIDGE_CTL_PARITY | PCI_BRIDGE_CTL_SERR | PCI_BRIDGE_CTL_ABORT | PCI_BRIDGE_CTL_RESET);
}

static void bus_name(const struct dev *d, bool express, char *buf, size_t len)
{
    if (d->obj.id && d->obj.id[0] != '#') {
        snprintf(buf, len, "%s", d->obj.id);
        return;
    }
    for (unsigned n = 1;; n++) {
        snprintf(buf, len, "%s.%u", express ? "pcie" : "pci", n);
        if (!bus_find(buf))
            return;
    }
}

bool pci_bridge_init(struct pci_bridge *br, const struct bus_class *below, struct err *e)
{
    static const char *const names[BRIDGE_WINDOWS] = { "bridge-io", "bridge-memory", "bridge-prefetch" };
    struct pci_dev *d = &br->pci;
    struct pci_bus *up = d->pbus, *b;
    bool express = obj_class_is(&below->obj, &pcie_bus_class.obj);
    char name[128];

    header(d);
    bus_name(&d->dev, express, name, sizeof name);
    b = (struct pci_bus *)bus_new(below, &d->dev, name, e);
    if (!b)
        return false;
    region_init_container(&br->mem, "bridge-memory-below", UINT64_MAX);
    region_init_container(&br->io, "bridge-io-below", 0x10000);
    for (unsigned w = 0; w < BRIDGE_WINDOWS; w++) {
        region_init_alias(&br->win[w], names[w], w == BRIDGE_IO ? &br->io : &br->mem, 0, 0);
        br->win_base[w] = br->win_size[w] = 0;
    }
    br->job = (struct post){ .fn = run_job, .arg = br };
    b->bridge = d;
    b->root = up->root;
    b->mem = &br->mem;
    b->io = &br->io;
    b->dma_as = up->dma_as;
    b->express = express;
    b->max_slot = 32;
    br->sec = b;
    atomic_store(&d->sec, b);
    return true;
}

void pci_bridge_fini(struct pci_bridge *br)
{
    if (!br->sec)
        return;
    loop_post_cancel(loop_main(), &br->job);
    for (unsigned w = 0; w < BRIDGE_WINDOWS; w++)
        region_fini(&br->win[w]);
    region_fini(&br->mem);
    region_fini(&br->io);
    atomic_store(&br->pci.sec, NULL);
    br->sec = NULL;
    rcu_synchronize();          /* the bus itself goes with the device's buses, now that nobody looks at it */
}

/* ---- saved state ---- */

static bool loaded(void *obj, struct err *e)
{
    struct pci_bridge *br = obj;

    pci_bridge_update(br);
    atomic_store(&br->sec->silent, ld_le16(br->pci.config + PCI_BRIDGE_CTL) & PCI_BRIDGE_CTL_RESET ? PCI_SILENT_BUS_RESET : 0);
    return true;
}

static const struct state_field fields[] = {
    STATE_STRUCT(struct pci_bridge, pci, &pci_dev_state),
    { .name = "rest", .kind = ST_SKIP, .off = offsetof(struct pci_bridge, sec), .count = 1,
      .size = sizeof(struct pci_bridge) - offsetof(struct pci_bridge, sec), .why = "follows from configuration space" },
    STATE_END,
};
const struct state_desc pci_bridge_state = { "pci-bridge", 1, fields, loaded, NULL };
