/* SPDX-License-Identifier: MIT */
/* Buses: slots, routing of configuration accesses, INTx. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/rcu.h"
#include "core/cmd.h"
#include "pci/pci_int.h"

static struct list roots = LIST_INIT(roots);

/* ---- slots; main loop ---- */

static bool slot_free(const struct pci_bus *b, unsigned slot)
{
    for (unsigned f = 0; f < 8; f++)
        if (pci_bus_fn(b, PCI_DEVFN(slot, f)))
            return false;
    return true;
}

/* The first slot that the automatic choice may take; -1: none. */
static int next_slot(const struct pci_bus *b)
{
    for (unsigned s = b->first_slot; s < b->max_slot; s++)
        if (slot_free(b, s))
            return (int)s;
    return -1;
}

static bool bus_full(const struct bus *b) { return next_slot((const struct pci_bus *)b) < 0; }

static bool hint_slot(const struct pci_bus *b, struct err *e)
{
    int s = next_slot(b);

    if (s < 0)
        return err_hint(e, "the bus is full; add a bridge or root port that brings another");
    return err_hint(e, "addr=%x is free; without addr= the next free slot is taken", (unsigned)s);
}

/* An address that the user chose. */
static bool check_address(const struct pci_bus *b, const struct pci_dev *d, unsigned devfn, struct err *e)
{
    const struct pci_dev *there = pci_bus_fn(b, devfn), *f0 = pci_bus_fn(b, PCI_DEVFN(PCI_SLOT(devfn), 0));
    const char *name = b->bus.obj.id;

    if (PCI_SLOT(devfn) >= b->max_slot) {
        err_set(e, ERR_VALUE, "bus '%s' has no slot %x", name, PCI_SLOT(devfn));
        return hint_slot(b, e);
    }
    if (there) {
        err_set(e, ERR_BUSY, "address %02x.%x of bus '%s' is taken by '%s' (%s)", PCI_SLOT(devfn), PCI_FUNC(devfn), name,
                there->dev.obj.id, there->dev.obj.cls->name);
        return hint_slot(b, e);
    }
    if (PCI_FUNC(devfn) && f0 && !f0->opt.multifunction) {
        err_set(e, ERR_VALUE, "function 0 of slot %x of bus '%s' ('%s') is not multifunction", PCI_SLOT(devfn), name, f0->dev.obj.id);
        return err_hint(e, "give function 0 multifunction=on");
    }
    for (unsigned f = 1; !PCI_FUNC(devfn) && !d->opt.multifunction && f < 8; f++)
        if (pci_bus_fn(b, devfn + f)) {
            err_set(e, ERR_VALUE, "slot %x of bus '%s' has other functions", PCI_SLOT(devfn), name);
            return err_hint(e, "function 0 needs multifunction=on");
        }
    return true;
}

static bool pci_attach(struct bus *bus, struct dev *dev, struct err *e)
{
    struct pci_bus *b = (struct pci_bus *)bus;
    struct pci_dev *d = PCI_DEV(dev);
    int slot, devfn = d->opt.addr;

    if (devfn < 0) {
        slot = next_slot(b);
        if (slot < 0) {
            err_set(e, ERR_BUSY, "bus '%s' is full", b->bus.obj.id);
            return hint_slot(b, e);
        }
        devfn = PCI_DEVFN(slot, 0);
    } else if (!check_address(b, d, (unsigned)devfn, e)) {
        return false;
    }
    return pci_attach_at(b, d, (unsigned)devfn, e);
}

/* PCI 3.0, 3.2.2.3.4: who finds no function 0 looks for no others. One may come while the machine runs, so this is no error. */
static bool warn_without_function_0(struct obj *o, void *arg)
{
    const struct pci_dev *d = (struct pci_dev *)o;

    if (o->user && PCI_FUNC(d->devfn) && !pci_bus_fn(d->pbus, PCI_DEVFN(PCI_SLOT(d->devfn), 0)))
        log_warn("-device %s,addr=%x.%x: the guest does not find it: slot %x of bus '%s' has no function 0", o->cls->name, PCI_SLOT(d->devfn),
                 PCI_FUNC(d->devfn), PCI_SLOT(d->devfn), d->pbus->bus.obj.id);
    return true;
}

static bool look_for_functions(struct err *e)
{
    obj_each(NULL, &pci_dev_class.dev.obj, warn_without_function_0, NULL);
    return true;
}
static const struct cli_step step_functions = { "functions of slots", CLI_RUN, 1000, look_for_functions };
CLI_STEP(&step_functions);

bool pci_attach_at(struct pci_bus *b, struct pci_dev *d, unsigned devfn, struct err *e)
{
    d->pbus = b;
    d->devfn = d->opt.addr = (int)devfn;        /* what was chosen is what is shown */
    if (!pci_header_init(d, e) || !pci_rom_init(d, e)) {
        d->pbus = NULL;
        d->devfn = -1;
        return false;
    }
    atomic_store_explicit(&b->fn[devfn], d, memory_order_release);
    return true;
}

void pci_hide(struct bus *bus, struct dev *dev)
{
    struct pci_dev *d = PCI_DEV(dev);

    domain_lock(dev->dom);
    atomic_store(&d->visible, false);
    pci_update(d);
    domain_unlock(dev->dom);
    rcu_synchronize();                          /* who found it before waits for the lock, or is in a handler */
}

void pci_detach(struct bus *bus, struct dev *dev)
{
    struct pci_dev *d = PCI_DEV(dev);
    struct pci_bus *b = d->pbus;

    atomic_store(&d->intx_level, false);
    pci_intx_update(d);
    atomic_store_explicit(&b->fn[d->devfn], NULL, memory_order_release);
    rcu_synchronize();                          /* nobody is on the way to it */
    pci_fini(d);
    d->devfn = -1;
    d->pbus = NULL;
    if (b->port_changed && !d->pf)
        b->port_changed(b);
}

void pci_show_up(struct pci_dev *d)
{
    domain_lock(d->dev.dom);
    pci_reset_values(d);
    atomic_store(&d->visible, true);
    pci_reset_config(d, RESET_COLD);
    domain_unlock(d->dev.dom);
}

static bool pci_plugged(struct bus *bus, struct dev *dev, struct err *e)
{
    struct pci_bus *b = (struct pci_bus *)bus;
    struct pci_dev *d = PCI_DEV(dev);

    pci_show_up(d);
    return !b->port_plugged || b->port_plugged(b, d, e);
}

static bool pci_unplug_request(struct bus *bus, struct dev *dev, struct err *e)
{
    struct pci_bus *b = (struct pci_bus *)bus;

    if (b->port_unplug)
        return b->port_unplug(b, PCI_DEV(dev), e);
    dev_unplug_done(dev);
    return true;
}

void pci_reset_slot(struct bus *bus, struct dev *dev, enum reset_kind k)
{
    if (k != RESET_FUNCTION)                    /* the one that may be to come is done with it */
        atomic_fetch_and(&PCI_DEV(dev)->silent, ~(unsigned)PCI_SILENT_FLR);
    pci_reset_config(PCI_DEV(dev), k);
}

void pci_path(const struct dev *dev, char *buf, size_t n)
{
    int devfn = ((const struct pci_dev *)dev)->devfn;

    snprintf(buf, n, "%02x.%x", PCI_SLOT(devfn), PCI_FUNC(devfn));
}

/* Generic names of classes (PCI Bus Binding to IEEE 1275, 2.5, and what EDK2 calls a bridge); else "pciVVVV,DDDD". */
static void pci_fw_path(const struct dev *dev, struct str *out)
{
    static const struct { unsigned class; const char *name; } names[] = {
        { 0x0100, "scsi" }, { 0x0101, "ide" }, { 0x0104, "raid" }, { 0x0200, "ethernet" }, { 0x0604, "pci-bridge" },
    };
    const struct pci_dev *d = (const struct pci_dev *)dev;
    const char *name = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (names[i].class == ld_le16(d->config + PCI_CLASS_PROG + 1))
            name = names[i].name;
    if (name)
        str_printf(out, "/%s@%x", name, PCI_SLOT(d->devfn));
    else
        str_printf(out, "/pci%04x,%04x@%x", ld_le16(d->config), ld_le16(d->config + PCI_DEVICE_ID), PCI_SLOT(d->devfn));
    if (PCI_FUNC(d->devfn))
        str_printf(out, ",%x", PCI_FUNC(d->devfn));
}

void pci_show(const struct bus *bus, const struct dev *dev, struct str *out)
{
    const struct pci_dev *d = (const struct pci_dev *)dev;

    str_printf(out, "class %06x, addr %02x.%x, pci id %04x:%04x (sub %04x:%04x)\n", (unsigned)ld_le(d->config + PCI_CLASS_PROG, 3),
               PCI_SLOT(d->devfn), PCI_FUNC(d->devfn), ld_le16(d->config), ld_le16(d->config + PCI_DEVICE_ID),
               ld_le16(d->config + PCI_SUBVENDOR_ID), ld_le16(d->config + PCI_SUBSYSTEM_ID));
}

#define HOTPLUG_HINT "start with a port, -device pcie-root-port,id=NAME, and plug in with bus=NAME"
#define PCI_BUS_OPS .hotplug_hint = HOTPLUG_HINT, .attach = pci_attach, .hide = pci_hide, .detach = pci_detach, .plugged = pci_plugged,           \
    .unplug_request = pci_unplug_request, .reset_dev = pci_reset_slot, .path = pci_path, .full = bus_full, .show = pci_show, .fw_path = pci_fw_path

static void pci_bus_finalize(struct obj *o)
{
    struct pci_bus *b = (struct pci_bus *)o;

    if (b->roots.next)
        list_del(&b->roots);
    pthread_mutex_destroy(&b->irq_lock);
}

static bool pci_bus_init(struct obj *o, struct err *e)
{
    struct pci_bus *b = (struct pci_bus *)o;

    list_init(&b->roots);
    pthread_mutex_init(&b->irq_lock, NULL);
    return true;
}

const struct bus_class pci_bus_class = {
    .obj = { .name = "PCI", .desc = "PCI bus", .base = &bus_obj_class, .size = sizeof(struct pci_bus), .flags = OCF_INTERNAL,
             .init = pci_bus_init, .finalize = pci_bus_finalize },
    PCI_BUS_OPS,
};
const struct bus_class pcie_bus_class = {
    .obj = { .name = "PCIE", .desc = "PCI Express bus", .base = &pci_bus_class.obj, .size = sizeof(struct pci_bus), .flags = OCF_INTERNAL },
    PCI_BUS_OPS,
};
const struct bus_class pcie_port_bus_class = {
    .obj = { .name = "PCIE-PORT", .desc = "Slot below a PCI Express port", .base = &pcie_bus_class.obj, .size = sizeof(struct pci_bus),
             .flags = OCF_INTERNAL },
    PCI_BUS_OPS, .brought_by = "pcie-root-port",
};
const struct bus_class pcie_switch_bus_class = {
    .obj = { .name = "PCIE-SWITCH", .desc = "Bus inside a PCI Express switch", .base = &pcie_bus_class.obj, .size = sizeof(struct pci_bus),
             .flags = OCF_INTERNAL },
    PCI_BUS_OPS, .brought_by = "x3130-upstream",
};
OBJ_CLASS(&pci_bus_class.obj);
OBJ_CLASS(&pcie_bus_class.obj);
OBJ_CLASS(&pcie_port_bus_class.obj);
OBJ_CLASS(&pcie_switch_bus_class.obj);

struct pci_bus *pci_root_bus_new(struct dev *host, const char *name, bool express, struct region *mem, struct region *io, struct err *e)
{
    struct pci_bus *b = (struct pci_bus *)bus_new(express ? &pcie_bus_class : &pci_bus_class, host, name, e);

    if (!b)
        return NULL;
    b->root = b;
    b->mem = mem;
    b->io = io;
    b->dma_as = &as_memory;
    b->express = express;
    b->max_slot = 32;
    atomic_store(&b->range, 0xff00);
    list_push(&roots, &b->roots);
    return b;
}

struct pci_bus *pci_root_bus_nth(unsigned i)
{
    struct pci_bus *b;

    list_for_each(b, &roots, roots)
        if (i-- == 0)
            return b;
    return NULL;
}

void pci_bus_each(struct pci_bus *b, void (*fn)(struct pci_dev *, void *), void *arg)
{
    for (unsigned i = 0; i < 256; i++) {
        struct pci_dev *d = pci_bus_fn(b, i);

        if (!d)
            continue;
        fn(d, arg);
        if (atomic_load(&d->sec))
            pci_bus_each(atomic_load(&d->sec), fn, arg);
    }
}

unsigned pci_bus_number(const struct pci_bus *b) { return atomic_load(&b->range) & 0xff; }

/* ---- bus mastering: a bridge that is no master forwards no requests (PCI Express 7.5.1.1.3) ---- */

static void master_set(struct pci_dev *d, bool open)
{
    struct pci_bus *sec = atomic_load(&d->sec);
    bool on = open && atomic_load(&d->master);

    atomic_store(&d->dma.enabled, on);
    for (unsigned i = 0; sec && i < 256; i++)
        if (pci_bus_fn(sec, i))
            master_set(pci_bus_fn(sec, i), on);
}

void pci_master_update(struct pci_dev *d)
{
    struct pci_bus *root = d->pbus->root;
    bool open = true;

    pthread_mutex_lock(&root->irq_lock);        /* the last of two changes sees both */
    rcu_read_lock();
    for (const struct pci_bus *b = d->pbus; b->bridge; b = b->bridge->pbus)
        open = open && atomic_load(&b->bridge->master);
    master_set(d, open);
    rcu_read_unlock();
    pthread_mutex_unlock(&root->irq_lock);
}

/* ---- INTx: PCI-to-PCI Bridge 1.2, section 9.1: each bridge rotates the pins by the slot ---- */

void pci_intx_update(struct pci_dev *d)
{
    const struct pci_dev *at = d;
    struct pci_bus *root = d->pbus ? d->pbus->root : NULL;
    unsigned pin = d->intx_pin - 1u;

    if (!root || !d->intx_pin)
        return;
    for (const struct pci_bus *b = d->pbus; b; b = at ? at->pbus : NULL) {
        pin = (pin + PCI_SLOT(at->devfn)) & 3;
        at = b->bridge;
    }
    pthread_mutex_lock(&root->irq_lock);        /* looked at inside: the last of two updates sees what is true */
    bool on = atomic_load(&d->intx_level) && !atomic_load(&d->intx_off) && !pci_msi_enabled(d);
    if (on != d->intx_out) {
        d->intx_out = on;
        root->irq_count[pin] += on ? 1 : -1;
        if (root->set_irq)
            root->set_irq(root->irq_arg, pin, root->irq_count[pin] > 0);
    }
    pthread_mutex_unlock(&root->irq_lock);
}

void pci_intx_set(struct pci_dev *d, int level)
{
    atomic_store(&d->intx_level, level != 0);
    pci_intx_update(d);
}

/* ---- configuration accesses; any thread that holds no domain lock ---- */

/* The bus below @b on the way to bus @nr; NULL: no bridge claims the number. RCU section. */
static struct pci_bus *bus_towards(const struct pci_bus *b, unsigned nr)
{
    for (unsigned i = 0; i < 256; i++) {
        struct pci_dev *d = pci_bus_fn(b, i);
        struct pci_bus *sec = d && pci_answers(d) ? atomic_load(&d->sec) : NULL;
        unsigned range = sec ? atomic_load(&sec->range) : 0;

        if (sec && (range & 0xff) && nr >= (range & 0xff) && nr <= range >> 8)
            return sec;
    }
    return NULL;
}

static struct pci_dev *fn_find(struct pci_bus *root, unsigned nr, unsigned devfn)
{
    struct pci_bus *b = root;

    while (b && !atomic_load(&b->silent) && pci_bus_number(b) != nr)
        b = bus_towards(b, nr);
    struct pci_dev *d = b && !atomic_load(&b->silent) ? pci_bus_fn(b, devfn) : NULL;
    return d && pci_answers(d) ? d : NULL;
}

uint32_t pci_config_read(struct pci_bus *root, unsigned bus, unsigned devfn, uint32_t off, unsigned size)
{
    uint32_t v = (uint32_t)mask_of_size(size);

    rcu_read_lock();
    struct pci_dev *d = fn_find(root, bus, devfn);
    if (d) {
        domain_lock(d->dev.dom);
        if (pci_answers(d))
            v = pci_fn_read(d, off, size);
        domain_unlock(d->dev.dom);
    }
    rcu_read_unlock();
    return v;
}

void pci_config_write(struct pci_bus *root, unsigned bus, unsigned devfn, uint32_t off, uint32_t v, unsigned size)
{
    rcu_read_lock();
    struct pci_dev *d = fn_find(root, bus, devfn);
    TRACE(pci_config_write, "%02x:%02x.%x 0x%03x = 0x%0*x", bus, devfn >> 3, devfn & 7, off, (int)size * 2, v);
    if (d) {
        domain_lock(d->dev.dom);
        if (pci_answers(d))
            pci_fn_write(d, off, v, size);
        domain_unlock(d->dev.dom);
    }
    rcu_read_unlock();
}
