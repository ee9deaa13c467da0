/* SPDX-License-Identifier: MIT */
/* Virtio over PCI (VIRTIO 1.2, 4.1): the transport part of NAME-pci objects. Thread: the function's domain. */
#ifndef HW_VIRTIO_VIRTIO_PCI_H
#define HW_VIRTIO_VIRTIO_PCI_H

#include "hw/virtio/virtio.h"
#include "pci/pci.h"

/* Which register interfaces a class has: as the options say, both, the modern one only. */
enum virtio_pci_kind { VIRTIO_PCI_GENERIC, VIRTIO_PCI_TRANSITIONAL, VIRTIO_PCI_NON_TRANSITIONAL };

struct virtio_pci_class {
    struct pci_class pci;
    const struct virtio_model *model;
    uint32_t off;                           /* of the model in the object */
    enum virtio_pci_kind kind;
};

struct virtio_pci {
    struct pci_dev pci;                     /* first */
    int disable_legacy;                     /* enum tri */
    bool disable_modern, page_per_vq;
    uint32_t n_vectors;                     /* UINT32_MAX: the model's choice */
    bool legacy, modern;                    /* interfaces in use */
    uint16_t msix_vectors;                  /* that the device has; 0: INTx only */
    struct virtio_dev *v;
    uint32_t device_sel, driver_sel;        /* 4.1.4.3 */
    uint16_t queue_sel;
    uint8_t cfg_cap;                        /* offset of VIRTIO_PCI_CAP_PCI_CFG, 0: none */
    bool legacy_used;                       /* the driver has written to the legacy registers since the reset */
    uint32_t notify_step;                   /* bytes from one queue's doorbell to the next */
    struct region bar_legacy, bar_modern, common, isr, device, notify;
    struct doorbell legacy_bell;
};

extern const struct prop virtio_pci_props[];        /* over struct virtio_pci */
extern const struct prop virtio_pci_fixed_props[];  /* the same for the kinds whose name says which registers they have */
extern const struct state_desc virtio_pci_state;

bool virtio_pci_realize(struct dev *d, struct err *e);
void virtio_pci_unrealize(struct dev *d);
void virtio_pci_reset(struct dev *d, enum reset_kind k);
void virtio_pci_reset_out(struct dev *d);
void co_virtio_pci_quiesce(struct dev *d);
struct virtio_dev *virtio_pci_model(struct dev *d);

#endif
