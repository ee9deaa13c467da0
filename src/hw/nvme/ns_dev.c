/* SPDX-License-Identifier: MIT */
/* The device `nvme-ns` and the bus of a controller that it plugs into. */
#include <stdio.h>
#include "hw/nvme/cmd_int.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/subsys_int.h"

struct nvme_ns_dev {
    struct dev dev;                     /* first */
    struct blk_front_opts opt;
    struct nvme_ns_opts ns_opt;
    struct nvme_unit unit;
    uint32_t nsid;                      /* of the first namespace on it */
};

static void bus_path(const struct dev *d, char *buf, size_t n)
{
    snprintf(buf, n, "namespace@%x,0", ((const struct nvme_ns_dev *)d)->nsid);
}

static void bus_fw_path(const struct dev *d, struct str *out)
{
    str_printf(out, "/namespace@%x,0", ((const struct nvme_ns_dev *)d)->nsid);
}

const struct bus_class nvme_bus_class = {
    .obj = { .name = "nvme-bus", .desc = "Namespaces of an NVMe controller", .base = &bus_obj_class, .size = sizeof(struct bus) },
    .path = bus_path, .fw_path = bus_fw_path, .shares_domain = true, .brought_by = "nvme,serial=TEXT",
};
OBJ_CLASS(&nvme_bus_class.obj);

static bool ns_realize(struct dev *d, struct err *e)
{
    struct nvme_ns_dev *x = (struct nvme_ns_dev *)d;
    struct nvme *n = (struct nvme *)d->bus->owner;

    if (!x->opt.drive)
        return err_set(e, ERR_VALUE, "'drive' is missing: a namespace needs a block node");
    if (!dev_boot_set(d, x->opt.bootindex, "", e) || !nvme_unit_create(n->ss, n, &x->unit, &x->opt, &x->ns_opt, d, e))
        return false;
    for (uint32_t i = NVME_NS_MAX; i; i--) {
        const struct nvme_ns *ns = nvme_ns_allocated(n->ss, i);
        if (ns && ns->unit == &x->unit)
            x->nsid = i;
    }
    if (d->hotplugged)
        nvme_ns_changed(n->ss, x->nsid, NULL);
    return true;
}

static void ns_unrealize(struct dev *d)
{
    struct nvme_ns_dev *x = (struct nvme_ns_dev *)d;

    nvme_unit_leave(&x->unit);
    nvme_persist_gone(&x->unit);
    nvme_unit_close(&x->unit);
}

/* Before unrealize: no controller may reach it, and nothing may be in flight. */
static void co_ns_quiesce(struct dev *d)
{
    struct nvme_ns_dev *x = (struct nvme_ns_dev *)d;

    nvme_unit_leave(&x->unit);
    while (nvme_unit_busy(&x->unit))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + 100000);     /* controllers on other loops end them */
}

static const struct prop ns_dev_props[] = {
    PROP_INCLUDE(struct nvme_ns_dev, opt, blk_front_props),
    PROP_INCLUDE(struct nvme_ns_dev, ns_opt, nvme_ns_props),
    PROP_END
};

static const struct state_field ns_fields[] = { STATE_UINT(struct nvme_ns_dev, nsid, .max = NVME_NS_MAX), STATE_END };
static const struct state_desc ns_state = { .name = "nvme-ns", .version = 1, .fields = ns_fields };

static const struct dev_class nvme_ns_class = {
    .obj = { .name = "nvme-ns", .desc = "Namespace of an NVMe controller or subsystem", .base = &dev_obj_class,
             .size = sizeof(struct nvme_ns_dev), .props = ns_dev_props },
    .cat = "Storage", .plugs_into = &nvme_bus_class, .realize = ns_realize, .unrealize = ns_unrealize, .co_quiesce = co_ns_quiesce,
    .state = &ns_state, .hotplug = true,
};
OBJ_CLASS(&nvme_ns_class.obj);

const struct prop nvme_ns_props[] = {
    PROP_U32(struct nvme_ns_opts, nsid, "nsid", 0, 0, NVME_NS_MAX, "Namespace id; 0: the next free one"),
    PROP_BOOL(struct nvme_ns_opts, detached, "detached", false, "Attached to no controller until the host asks"),
    PROP_TRI(struct nvme_ns_opts, shared_opt, "shared", TRI_AUTO, "Every controller of the subsystem has it; auto: yes, in a subsystem"),
    PROP_UUID(struct nvme_ns_opts, uuid, "uuid", "UUID; a random one if left out"),
    PROP_STR(struct nvme_ns_opts, nguid, "nguid", 0, "Globally unique identifier, 32 hexadecimal digits"),
    PROP_U64(struct nvme_ns_opts, eui64, "eui64", 0, 0, UINT64_MAX, "Extended unique identifier; 0: none"),
    PROP_BOOL(struct nvme_ns_opts, eui64_default, "eui64-default", false, "Make an extended unique identifier from the namespace id"),
    PROP_U16(struct nvme_ns_opts, mssrl, "mssrl", 128, 1, UINT16_MAX, "Copy: blocks of one source range at most"),
    PROP_U32(struct nvme_ns_opts, mcl, "mcl", 128, 1, UINT32_MAX, "Copy: blocks of one command at most"),
    PROP_U8(struct nvme_ns_opts, msrc, "msrc", 127, 0, 255, "Copy: source ranges of one command at most, less one"),
    PROP_U16(struct nvme_ns_opts, ms, "ms", 0, 0, 4096, "Bytes of metadata with each block"),
    PROP_U8(struct nvme_ns_opts, mset, "mset", 0, 0, 1, "Metadata goes with each block (1), or in a buffer of its own (0)"),
    PROP_U8(struct nvme_ns_opts, pi, "pi", 0, 0, 3, "Protection information: type 1 to 3; 0: none"),
    PROP_U8(struct nvme_ns_opts, pil, "pil", 0, 0, 1, "Protection information is the first bytes of the metadata (1), or the last (0)"),
    PROP_U8(struct nvme_ns_opts, pif, "pif", 0, 0, 2, "Guard of the protection information: 0: 16 bits, 1: 32, 2: 64"),
    PROP_U16(struct nvme_ns_opts, anagrp, "anagrpid", 1, 1, NVME_ANA_GROUPS, "Asymmetric access group"),
    PROP_BOOL(struct nvme_ns_opts, zoned, "zoned", false, "Zoned command set"),
    PROP_BOOL(struct nvme_ns_opts, kv, "kv", false, "Key value command set: keys and values in place of blocks"),
    PROP_SIZE(struct nvme_ns_opts, zone_size, "zoned.zone_size", 128 * MiB, 512, INT64_MAX, "Distance of zones"),
    PROP_SIZE(struct nvme_ns_opts, zone_capacity, "zoned.zone_capacity", 0, 0, INT64_MAX, "What of a zone can be written; 0: all"),
    PROP_BOOL(struct nvme_ns_opts, cross_read, "zoned.cross_read", false, "Reads may cross zones"),
    PROP_U32(struct nvme_ns_opts, max_active, "zoned.max_active", 0, 0, UINT32_MAX, "Active zones at most; 0: no limit"),
    PROP_U32(struct nvme_ns_opts, max_open, "zoned.max_open", 0, 0, UINT32_MAX, "Open zones at most; 0: as active ones"),
    PROP_U32(struct nvme_ns_opts, zd_ext, "zoned.descr_ext_size", 0, 0, 16320, "Bytes of a zone descriptor extension, a multiple of 64"),
    PROP_U32(struct nvme_ns_opts, numzrwa, "zoned.numzrwa", 0, 0, UINT32_MAX, "Zones with a random write area at a time"),
    PROP_SIZE(struct nvme_ns_opts, zrwas, "zoned.zrwas", 0, 0, 32 * MiB, "Size of a random write area"),
    PROP_SIZE(struct nvme_ns_opts, zrwafg, "zoned.zrwafg", 0, 0, 32 * MiB, "Unit in which a random write area is flushed"),
    PROP_BOOL(struct nvme_ns_opts, auto_transition, "zoned.auto_transition", true, "Close a zone that was opened by a write where another needs its place"),
    PROP_U16(struct nvme_ns_opts, atomic.nawun, "atomic.nawun", 0, 0, UINT16_MAX, "Blocks of a write that is atomic for other commands, less one"),
    PROP_U16(struct nvme_ns_opts, atomic.nawupf, "atomic.nawupf", 0, 0, UINT16_MAX, "Blocks of a write that is atomic in a power failure, less one"),
    PROP_U16(struct nvme_ns_opts, atomic.nabsn, "atomic.nabsn", 0, 0, UINT16_MAX, "Distance of places that no atomic write crosses, less one; 0: none"),
    PROP_U16(struct nvme_ns_opts, atomic.nabspf, "atomic.nabspf", 0, 0, UINT16_MAX, "The same in a power failure"),
    PROP_U16(struct nvme_ns_opts, atomic.nabo, "atomic.nabo", 0, 0, UINT16_MAX, "Block of the first such place"),
    PROP_STR(struct nvme_ns_opts, ruhs, "fdp.ruhs", 0, "Reclaim unit handles that the namespace uses, as in 0;2-3"),
    PROP_END
};
