/* SPDX-License-Identifier: MIT */
/*
 * The classes under which a virtio model is created: NAME-device on a virtio-bus, and NAME-pci with its -transitional and
 * -non-transitional variants. VIRTIO_FORMS() declares all of them; the object is transport and model in one.
 */
#ifndef HW_VIRTIO_VIRTIO_FORMS_H
#define HW_VIRTIO_VIRTIO_FORMS_H

#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio_pci.h"

/* A bus with one slot, brought by a transport without enumeration (virtio-mmio). */
struct virtio_bus {
    struct bus bus;                         /* first */
    const struct virtio_transport *transport;
    struct dma *dma;
    struct virtio_dev *v;                   /* what is plugged; written with the domain lock held */
};
extern const struct bus_class virtio_bus_class;

/* A device on it: the class tells where the model is. */
struct virtio_bus_dev_class {
    struct dev_class dev;
    const struct virtio_model *model;
    uint32_t off;
};
bool virtio_bus_dev_realize(struct dev *d, struct err *e);
void virtio_bus_dev_unrealize(struct dev *d);
void virtio_bus_dev_reset(struct dev *d, enum reset_kind k);
void co_virtio_bus_dev_quiesce(struct dev *d);

/* The virtio device of a carrier of any form; NULL if it is none. */
struct virtio_dev *virtio_of_dev(struct dev *d);

#ifdef CONFIG_PCI
#define VIRTIO_PCI_FORM_(sym, cname, text, category, opts, mdl, knd, names)                                                   \
    { .pci = { .dev = { .obj = { .name = cname, .desc = text, .base = &pci_dev_class.dev.obj, .size = sizeof(struct sym##_pci), \
                                 .props = opts, .aliases = names },                                                       \
                        .cat = category, .plugs_into = &pci_bus_class, .realize = virtio_pci_realize,                     \
                        .unrealize = virtio_pci_unrealize, .reset = virtio_pci_reset, .reset_out = virtio_pci_reset_out,  \
                        .co_quiesce = co_virtio_pci_quiesce, .state = &sym##_pci_state, .hotplug = true },                \
               .vendor = VIRTIO_PCI_VENDOR, .express = true },                                                            \
      .model = mdl, .off = offsetof(struct sym##_pci, m), .kind = knd }

#define VIRTIO_PCI_FORMS_(sym, T, label, text, category, props_tbl, state_tbl, mdl, names)                               \
    struct sym##_pci { struct virtio_pci p; T m; };                                                                       \
    static const struct prop sym##_pci_props[] = { PROP_INCLUDE(struct sym##_pci, p, virtio_pci_props),                    \
                                                   PROP_INCLUDE(struct sym##_pci, m, props_tbl), PROP_END };               \
    static const struct prop sym##_pci_fixed_props[] = { PROP_INCLUDE(struct sym##_pci, p, virtio_pci_fixed_props),        \
                                                         PROP_INCLUDE(struct sym##_pci, m, props_tbl), PROP_END };         \
    static const struct state_field sym##_pci_fields[] = { STATE_STRUCT(struct sym##_pci, p, &virtio_pci_state),           \
                                                           STATE_STRUCT(struct sym##_pci, m, state_tbl), STATE_END };      \
    static const struct state_desc sym##_pci_state = { .name = label "-pci", .version = 1, .fields = sym##_pci_fields };   \
    static const struct virtio_pci_class sym##_pci_class =                                                                \
        VIRTIO_PCI_FORM_(sym, label "-pci", text ", PCI", category, sym##_pci_props, mdl, VIRTIO_PCI_GENERIC, names);                       \
    static const struct virtio_pci_class sym##_pci_tr_class = VIRTIO_PCI_FORM_(sym, label "-pci-transitional",             \
        text ", PCI with legacy registers too", category, sym##_pci_fixed_props, mdl, VIRTIO_PCI_TRANSITIONAL, NULL);                             \
    static const struct virtio_pci_class sym##_pci_nt_class = VIRTIO_PCI_FORM_(sym, label "-pci-non-transitional",         \
        text ", PCI without legacy registers", category, sym##_pci_fixed_props, mdl, VIRTIO_PCI_NON_TRANSITIONAL, NULL);                          \
    OBJ_CLASS(&sym##_pci_class.pci.dev.obj);                                                                              \
    OBJ_CLASS(&sym##_pci_tr_class.pci.dev.obj);                                                                           \
    OBJ_CLASS(&sym##_pci_nt_class.pci.dev.obj);
#else
#define VIRTIO_PCI_FORMS_(sym, T, label, text, category, props_tbl, state_tbl, mdl, names)                               \
    static const char *const *const sym##_pci_names __attribute__((unused)) = names;
#endif

/*
 * @sym: prefix of the symbols made; @T: the model's struct; @label: "virtio-blk"; @text: one line for help; @props, @state_tbl: over T;
 * @mdl: its struct virtio_model; @names: other names of the plain PCI form (a NULL-terminated array).
 */
#define VIRTIO_FORMS(sym, T, label, text, category, props_tbl, state_tbl, mdl, names)                                     \
    VIRTIO_PCI_FORMS_(sym, T, label, text, category, props_tbl, state_tbl, mdl, names)                                    \
    struct sym##_bus { struct dev dev; T m; };                                                                            \
    static const struct prop sym##_bus_props[] = { PROP_INCLUDE(struct sym##_bus, m, props_tbl), PROP_END };               \
    static const struct state_field sym##_bus_fields[] = { STATE_SKIP(struct sym##_bus, dev, "bookkeeping of the object"), \
                                                           STATE_STRUCT(struct sym##_bus, m, state_tbl), STATE_END };      \
    static const struct state_desc sym##_bus_state = { .name = label "-device", .version = 1, .fields = sym##_bus_fields };\
    static const struct virtio_bus_dev_class sym##_bus_class = {                                                          \
        .dev = { .obj = { .name = label "-device", .desc = text ", on a virtio bus", .base = &dev_obj_class,               \
                          .size = sizeof(struct sym##_bus), .props = sym##_bus_props },                                    \
                 .cat = category, .plugs_into = &virtio_bus_class, .realize = virtio_bus_dev_realize,                      \
                 .unrealize = virtio_bus_dev_unrealize, .reset = virtio_bus_dev_reset,                                     \
                 .co_quiesce = co_virtio_bus_dev_quiesce, .state = &sym##_bus_state },                                     \
        .model = mdl, .off = offsetof(struct sym##_bus, m) };                                                             \
    OBJ_CLASS(&sym##_bus_class.dev.obj)

#endif
