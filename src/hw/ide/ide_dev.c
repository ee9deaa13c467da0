/* SPDX-License-Identifier: MIT */
/* The IDE bus, one port of an AHCI controller with one place, and what is plugged into it: `ide-hd`, `ide-cd`. */
#include <stdio.h>
#include "hw/ide/ahci.h"

static bool bus_full(const struct bus *b)
{
    return b->n_devs > 0;
}

static bool bus_attach(struct bus *b, struct dev *d, struct err *e)
{
    if (!b->n_devs)
        return true;
    err_set(e, ERR_BUSY, "bus '%s' has one place, and '%s' is in it", b->obj.id, list_first(&b->devs, struct dev, on_bus)->obj.id);
    return err_hint(e, "leave bus= out to take the next free port, or name another");
}

static void bus_path(const struct dev *d, char *buf, size_t n)
{
    snprintf(buf, n, "ide");
}

static struct ahci_port *port_of(struct dev *d) { return ((struct ide_bus *)d->bus)->port; }

static void tell_port(struct dev *dev, struct scsi_disk *d)
{
    domain_lock(dev->dom);
    ahci_port_plugged(port_of(dev), d);
    domain_unlock(dev->dom);
}

static bool bus_plugged(struct bus *b, struct dev *dev, struct err *e)
{
    tell_port(dev, (struct scsi_disk *)dev);
    return true;
}

static void bus_hide(struct bus *b, struct dev *dev) { tell_port(dev, NULL); }

const struct bus_class ide_bus_class = {
    .obj = { .name = "IDE", .desc = "Port of an AHCI controller", .base = &bus_obj_class, .size = sizeof(struct ide_bus) },
    .attach = bus_attach, .plugged = bus_plugged, .hide = bus_hide, .full = bus_full, .path = bus_path, .shares_domain = true,
    .brought_by = "ich9-ahci",
};
OBJ_CLASS(&ide_bus_class.obj);

static bool ide_realize(struct dev *dev, struct err *e) { return scsi_disk_open((struct scsi_disk *)dev, e); }
static void ide_unrealize(struct dev *dev) { scsi_disk_close((struct scsi_disk *)dev); }

/* Requests of the unit, and what the translation does itself. */
static void co_ide_quiesce(struct dev *dev)
{
    struct ahci_port *p = port_of(dev);

    scsi_self_test_stop((struct scsi_disk *)dev, false);
    co_scsi_dev_quiesce(dev);
    while (p->running) {
        co_event_clear(&p->a->idle);
        co_wait(&p->a->idle);
    }
}

#define IDE_CLASS(cname, text, rows, commands, pdt)                                                                       \
    { .dev = { .obj = { .name = cname, .desc = text, .base = &scsi_disk_class.obj, .size = sizeof(struct scsi_disk), .props = rows }, \
               .cat = "Storage", .plugs_into = &ide_bus_class, .realize = ide_realize, .unrealize = ide_unrealize,        \
               .reset = scsi_disk_reset, .co_quiesce = co_ide_quiesce, .state = &scsi_disk_state, .hotplug = true },                  \
      .cmds = commands, .type = pdt, .has = scsi_disk_has, .co_ready = co_scsi_disk_ready, .reset = scsi_disk_to_default }

static const struct scsi_dev_class hd_class = IDE_CLASS("ide-hd", "SATA disk", scsi_hd_props, scsi_hd_cmds, SCSI_TYPE_DISK);
static const struct scsi_dev_class cd_class = IDE_CLASS("ide-cd", "SATA CD-ROM drive", scsi_cd_props, scsi_cd_cmds, SCSI_TYPE_ROM);
OBJ_CLASS(&hd_class.dev.obj);
OBJ_CLASS(&cd_class.dev.obj);
