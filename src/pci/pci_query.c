/* SPDX-License-Identifier: MIT */
/* query-pci and `info pci`: every bus as its bridge numbers it, every function, its BARs and windows. Main loop. */
#include <inttypes.h>

#include "base/str.h"
#include "core/cmd.h"
#include "pci/bridge.h"
#include "pci/pci_int.h"

/* ---- what a function is called; PCI Code and ID Assignment, class and subclass ---- */

static const struct { uint16_t class; const char *name; } class_names[] = {
    { 0x0000, "Non-VGA device" }, { 0x0001, "VGA controller" }, { 0x0100, "SCSI controller" }, { 0x0101, "IDE controller" },
    { 0x0102, "Floppy controller" }, { 0x0104, "RAID controller" }, { 0x0106, "SATA controller" }, { 0x0107, "SAS controller" },
    { 0x0108, "NVMe controller" }, { 0x0200, "Ethernet controller" }, { 0x0280, "Network controller" }, { 0x0300, "VGA controller" },
    { 0x0301, "XGA controller" }, { 0x0302, "3D controller" }, { 0x0380, "Display controller" }, { 0x0400, "Video controller" },
    { 0x0401, "Audio controller" }, { 0x0403, "Audio controller" }, { 0x0480, "Multimedia controller" }, { 0x0500, "RAM controller" },
    { 0x0501, "Flash controller" }, { 0x0580, "Memory controller" }, { 0x0600, "Host bridge" }, { 0x0601, "ISA bridge" },
    { 0x0604, "PCI bridge" }, { 0x0680, "Bridge" }, { 0x0700, "Serial port" }, { 0x0701, "Parallel port" }, { 0x0780, "Communication controller" },
    { 0x0805, "SD host controller" }, { 0x0880, "System peripheral" }, { 0x0900, "Keyboard controller" }, { 0x0902, "Mouse controller" },
    { 0x0980, "Input controller" }, { 0x0b40, "Co-processor" }, { 0x0c00, "Firewire controller" }, { 0x0c03, "USB controller" },
    { 0x0c05, "SMBus controller" }, { 0x1000, "Encryption controller" }, { 0x00ff, "Unclassified device" },
};

static const char *class_name(uint16_t class)
{
    for (size_t i = 0; i < ARRAY_SIZE(class_names); i++)
        if (class_names[i].class == class)
            return class_names[i].name;
    return NULL;
}

/* ---- QMP ---- */

static json_t *range(const struct pci_dev *d, unsigned w)
{
    uint64_t base, limit;

    pci_bridge_window(d, w, &base, &limit);
    return json_pack("{s:I, s:I}", "base", (json_int_t)base, "limit", (json_int_t)limit);
}

static json_t *bridge_info(const struct pci_dev *d)
{
    const uint8_t *c = d->config;
    json_t *bus = json_pack("{s:i, s:i, s:i, s:o, s:o, s:o}", "number", c[PCI_PRIMARY_BUS], "secondary", c[PCI_SECONDARY_BUS], "subordinate",
                            c[PCI_SUBORDINATE_BUS], "io_range", range(d, BRIDGE_IO), "memory_range", range(d, BRIDGE_MEM),
                            "prefetchable_range", range(d, BRIDGE_PREF));
    return json_pack("{s:o}", "bus", bus);
}

static json_t *regions_of(const struct pci_dev *d)
{
    json_t *list = json_array();

    for (int n = 0; n <= PCI_ROM_BAR; n++) {
        const struct pci_bar *b = &d->bar[n];
        json_t *r;

        if (!b->region)
            continue;
        r = json_pack("{s:i, s:s, s:I, s:I}", "bar", n, "type", b->type & PCI_BAR_IO ? "io" : "memory", "address", (json_int_t)atomic_load(&b->mapped),
                      "size", (json_int_t)b->size);
        if (!(b->type & PCI_BAR_IO)) {
            json_object_set_new(r, "prefetch", json_boolean(b->type & PCI_BAR_PREFETCH));
            json_object_set_new(r, "mem_type_64", json_boolean(b->type & PCI_BAR_MEM64));
        }
        json_array_append_new(list, r);
    }
    return list;
}

static json_t *id_info(const struct pci_dev *d)
{
    json_t *id = json_pack("{s:i, s:i}", "vendor", ld_le16(d->config + PCI_VENDOR_ID), "device", ld_le16(d->config + PCI_DEVICE_ID));

    if (!PCI_CLASS(d)->bridge) {
        json_object_set_new(id, "subsystem", json_integer(ld_le16(d->config + PCI_SUBSYSTEM_ID)));
        json_object_set_new(id, "subsystem-vendor", json_integer(ld_le16(d->config + PCI_SUBVENDOR_ID)));
    }
    return id;
}

static const char *user_id(const struct pci_dev *d) { return d->dev.obj.id[0] == '#' ? "" : d->dev.obj.id; }

/* What the function itself knows. Its lock is held: the guest may be at it. */
static json_t *fn_own(struct pci_dev *d)
{
    uint16_t class = ld_le16(d->config + PCI_CLASS_DEVICE);
    json_t *info = json_pack("{s:i}", "class", class), *o;

    if (class_name(class))
        json_object_set_new(info, "desc", json_string(class_name(class)));
    o = json_pack("{s:i, s:i, s:i, s:o, s:o, s:i, s:s, s:o}", "bus", (int)pci_bus_number(d->pbus), "slot", PCI_SLOT(d->devfn), "function",
                  PCI_FUNC(d->devfn), "class_info", info, "id", id_info(d), "irq_pin", d->config[PCI_INT_PIN], "qdev_id", user_id(d),
                  "regions", regions_of(d));
    if (d->config[PCI_INT_PIN])
        json_object_set_new(o, "irq", json_integer(d->config[PCI_INT_LINE]));
    if (atomic_load(&d->sec))
        json_object_set_new(o, "pci_bridge", bridge_info(d));
    return o;
}

static json_t *devices_of(struct pci_bus *b);

static json_t *fn_info(struct pci_dev *d)
{
    struct pci_bus *sec = atomic_load(&d->sec);
    json_t *o;

    domain_lock(d->dev.dom);
    o = fn_own(d);
    domain_unlock(d->dev.dom);
    if (sec && pci_bus_number(sec))
        json_object_set_new(json_object_get(o, "pci_bridge"), "devices", devices_of(sec));
    return o;
}

static json_t *devices_of(struct pci_bus *b)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < 256; i++)
        if (pci_bus_fn(b, i) && !(atomic_load(&pci_bus_fn(b, i)->silent) & PCI_SILENT_VF))
            json_array_append_new(list, fn_info(pci_bus_fn(b, i)));
    return list;
}

static json_t *co_query_pci(void *args, struct err *e)
{
    json_t *list = json_array();
    struct pci_bus *b;

    for (unsigned i = 0; (b = pci_root_bus_nth(i)); i++)
        json_array_append_new(list, json_pack("{s:i, s:o}", "bus", (int)pci_bus_number(b), "devices", devices_of(b)));
    return list;
}
static const struct qmp_cmd cmd_query_pci = { "query-pci", "Every PCI function as the guest has configured it", .co_run = co_query_pci,
    .says = "[{bus:int, devices:[{bus:int, slot:int, function:int, class_info:{*desc:str, class:int}, id:{device:int, vendor:int, "
            "*subsystem:int, *subsystem-vendor:int}, *irq:int, irq_pin:int, qdev_id:str, regions:[any], *pci_bridge:any}]}]" };
QMP_CMD(&cmd_query_pci);

/* ---- for a person ---- */

static void show_bridge(const struct pci_dev *d, struct str *out)
{
    static const char *const names[BRIDGE_WINDOWS] = { "IO", "memory", "prefetchable memory" };
    const uint8_t *c = d->config;
    uint64_t base, limit;

    str_printf(out, "      BUS %u.\n      secondary bus %u.\n      subordinate bus %u.\n", c[PCI_PRIMARY_BUS], c[PCI_SECONDARY_BUS],
               c[PCI_SUBORDINATE_BUS]);
    for (unsigned w = 0; w < BRIDGE_WINDOWS; w++) {
        pci_bridge_window(d, w, &base, &limit);
        str_printf(out, "      %s range [0x%0*" PRIx64 ", 0x%0*" PRIx64 "]\n", names[w], w == BRIDGE_IO ? 4 : 8, base, w == BRIDGE_IO ? 4 : 8, limit);
    }
}

static void show_bars(const struct pci_dev *d, struct str *out)
{
    for (unsigned n = 0; n <= PCI_ROM_BAR; n++) {
        const struct pci_bar *b = &d->bar[n];

        if (!b->region)
            continue;
        str_printf(out, "      BAR%u: ", n);
        if (b->type & PCI_BAR_IO)
            str_add(out, "I/O");
        else
            str_printf(out, "%d bit%s memory", b->type & PCI_BAR_MEM64 ? 64 : 32, b->type & PCI_BAR_PREFETCH ? " prefetchable" : "");
        uint64_t mapped = atomic_load(&b->mapped);

        if (mapped == UINT64_MAX)
            str_printf(out, ", not mapped [%" PRIu64 " bytes].\n", b->size);
        else
            str_printf(out, " at 0x%" PRIx64 " [0x%" PRIx64 "].\n", mapped, mapped + b->size - 1);
    }
}

static void show_fn(struct pci_dev *d, void *arg)
{
    struct str *out = arg;
    uint16_t class = ld_le16(d->config + PCI_CLASS_DEVICE);

    if (atomic_load(&d->silent) & PCI_SILENT_VF)
        return;
    domain_lock(d->dev.dom);
    str_printf(out, "  Bus %2u, device %3d, function %d:\n    ", pci_bus_number(d->pbus), PCI_SLOT(d->devfn), PCI_FUNC(d->devfn));
    if (class_name(class))
        str_add(out, class_name(class));
    else
        str_printf(out, "Class %04x", class);
    str_printf(out, ": PCI device %04x:%04x\n", ld_le16(d->config + PCI_VENDOR_ID), ld_le16(d->config + PCI_DEVICE_ID));
    if (!PCI_CLASS(d)->bridge)
        str_printf(out, "      PCI subsystem %04x:%04x\n", ld_le16(d->config + PCI_SUBVENDOR_ID), ld_le16(d->config + PCI_SUBSYSTEM_ID));
    if (d->config[PCI_INT_PIN])
        str_printf(out, "      IRQ %u, pin %c\n", d->config[PCI_INT_LINE], 'A' + d->config[PCI_INT_PIN] - 1);
    if (atomic_load(&d->sec))
        show_bridge(d, out);
    show_bars(d, out);
    domain_unlock(d->dev.dom);
    str_printf(out, "      id \"%s\"\n", user_id(d));
}

static void info_pci(const char *arg, struct str *out)
{
    struct pci_bus *b;

    if (!pci_root_bus_nth(0))
        str_add(out, "No PCI buses\n");
    for (unsigned i = 0; (b = pci_root_bus_nth(i)); i++)
        pci_bus_each(b, show_fn, out);
}
static const struct hmp_cmd row = { "info pci", "", "", "PCI functions, their BARs and bridges", info_pci };
HMP_CMD(&row);
