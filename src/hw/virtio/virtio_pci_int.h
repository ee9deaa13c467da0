/* SPDX-License-Identifier: MIT */
/* Between the two halves of virtio over PCI: life and capabilities (virtio_pci.c), registers (virtio_pci_regs.c). */
#ifndef HW_VIRTIO_VIRTIO_PCI_INT_H
#define HW_VIRTIO_VIRTIO_PCI_INT_H

#include "hw/virtio/virtio_pci.h"

/* Layout of the modern BAR; the notification area comes last, its size depends on the number of queues. */
enum { VPCI_COMMON_OFF = 0, VPCI_ISR_OFF = 0x1000, VPCI_DEVICE_OFF = 0x2000, VPCI_NOTIFY_OFF = 0x3000, VPCI_AREA = 0x1000 };

/* 4.1.4.8: header of the legacy registers, without and with the two vector registers that MSI-X adds. */
enum { VPCI_LEGACY_HEADER = 20, VPCI_LEGACY_HEADER_MSIX = 24, VPCI_LEGACY_NOTIFY = 16 };

static inline struct virtio_pci *virtio_pci_of(const struct virtio_dev *v) { return (struct virtio_pci *)v->dev; }

extern const struct mmio_ops virtio_pci_common_ops, virtio_pci_isr_ops, virtio_pci_device_ops, virtio_pci_notify_ops,
    virtio_pci_legacy_ops;

/* The INTx pin follows the ISR bits while MSI-X is off (4.1.4.5.1). Domain lock held. */
void virtio_pci_update_intx(struct virtio_pci *t);
/* Doorbell of the legacy registers. ANY, no lock. */
void virtio_pci_legacy_notify(void *arg, uint64_t val);

#endif
