/* SPDX-License-Identifier: MIT */
/* The IDE bus, one port of an AHCI controller with one place, and what is plugged into it: `ide-hd`, `ide-cd`. */
#include <stdio.h>
#include <stdlib.h>
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

static void bus_fw_path(const struct dev *d, struct str *out)
{
    str_printf(out, "/drive@%x/disk@0", ((struct ide_bus *)d->bus)->port->nr);
}

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
    .attach = bus_attach, .plugged = bus_plugged, .hide = bus_hide, .full = bus_full, .path = bus_path, .fw_path = bus_fw_path, .shares_domain = true,
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
    while (p->running)
        co_queue_wait(&p->a->idle);
}

/* ---- options: names of ATA, which has room for other lengths than SCSI (ACS-4, 7.13.6, words 10, 23 and 27) ---- */

struct ide_disk { struct scsi_disk d /* first */; uint32_t unit; };

#define IDE_PROPS(model)                                                                                                  \
    PROP_INCLUDE(struct ide_disk, d.opt, blk_front_props),                                                                \
    PROP_STR(struct ide_disk, d.serial, "serial", 0, "Serial number, of which the guest reads the first 20 characters; the id if left out"), \
    PROP_STR_DEF(struct ide_disk, d.product, "model", model, "Model, up to 40 characters"),                               \
    PROP_STR_DEF(struct ide_disk, d.version, "ver", "2.5+", "Revision of the firmware, up to 8 characters"),              \
    PROP_U64(struct ide_disk, d.wwn, "wwn", 0, 0, UINT64_MAX, "World wide name; 0: none"),                                \
    PROP_U32(struct ide_disk, unit, "unit", 0, 0, UINT32_MAX, "Number of the drive on its cable: 0, as a port has one")

static const struct prop hd_props[] = {
    IDE_PROPS("QEMU HARDDISK"),
    PROP_INCLUDE(struct ide_disk, d.opt, blk_geometry_props),
    PROP_U16(struct ide_disk, d.rotation_rate, "rotation_rate", 0, 0, 0xfffe, "Turns a minute; 1: a solid state disk; 0: as the back end"),
    PROP_END
};
static const struct prop cd_props[] = { IDE_PROPS("QEMU DVD-ROM"), PROP_END };

static bool ide_init(struct obj *o, struct err *e)
{
    struct scsi_disk *d = (struct scsi_disk *)o;

    d->vendor = xstrdup("QEMU");        /* in INQUIRY data of packets, which has one; scsi-hd and scsi-cd have options for these */
    d->max_io_size = SCSI_TRANSFER_MAX;
    d->max_unmap_size = GiB;
    return true;
}

static void ide_finalize(struct obj *o) { free(((struct scsi_disk *)o)->vendor); }

static bool ide_check(struct obj *o, struct err *e)
{
    struct ide_disk *i = (struct ide_disk *)o;

    if (i->unit) {
        err_set(e, ERR_VALUE, "unit=%u: a SATA port has one drive, 0", i->unit);
        return err_hint(e, "bus=ID.N names another port, from ID.0 on");
    }
    return scsi_text_fits("model", i->d.product, 40, e) && scsi_text_fits("ver", i->d.version, 8, e);
}

#define IDE_CLASS(cname, text, rows, commands, pdt)                                                                       \
    { .dev = { .obj = { .name = cname, .desc = text, .base = &scsi_disk_class.obj, .size = sizeof(struct ide_disk), .props = rows, \
                        .init = ide_init, .finalize = ide_finalize, .check = ide_check },                                         \
               .cat = "Storage", .plugs_into = &ide_bus_class, .realize = ide_realize, .unrealize = ide_unrealize,        \
               .reset = scsi_disk_reset, .co_quiesce = co_ide_quiesce, .state = &scsi_disk_state, .hotplug = true },                  \
      .cmds = commands, .type = pdt, .has = scsi_disk_has, .co_ready = co_scsi_disk_ready, .reset = scsi_disk_to_default, \
      .usage = scsi_disk_usage }

static const struct scsi_dev_class hd_class = IDE_CLASS("ide-hd", "SATA disk", hd_props, scsi_hd_cmds, SCSI_TYPE_DISK);
static const struct scsi_dev_class cd_class = IDE_CLASS("ide-cd", "SATA CD-ROM drive", cd_props, scsi_cd_cmds, SCSI_TYPE_ROM);
OBJ_CLASS(&hd_class.dev.obj);
OBJ_CLASS(&cd_class.dev.obj);
