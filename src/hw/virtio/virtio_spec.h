/* SPDX-License-Identifier: MIT */
/* Constants and layouts of Virtual I/O Device (VIRTIO) Version 1.2 that every device and transport shares. */
#ifndef HW_VIRTIO_VIRTIO_SPEC_H
#define HW_VIRTIO_VIRTIO_SPEC_H

#include <assert.h>
#include <stdint.h>

/* 5: device types */
enum {
    VIRTIO_ID_NET = 1, VIRTIO_ID_BLOCK = 2, VIRTIO_ID_CONSOLE = 3, VIRTIO_ID_ENTROPY = 4, VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_SCSI = 8, VIRTIO_ID_9P = 9, VIRTIO_ID_GPU = 16, VIRTIO_ID_INPUT = 18, VIRTIO_ID_VSOCK = 19,
    VIRTIO_ID_CRYPTO = 20, VIRTIO_ID_IOMMU = 23, VIRTIO_ID_MEM = 24, VIRTIO_ID_SOUND = 25, VIRTIO_ID_FS = 26,
    VIRTIO_ID_PMEM = 27,
};

/* 2.1: device status field */
enum {
    VIRTIO_S_ACKNOWLEDGE = 1, VIRTIO_S_DRIVER = 2, VIRTIO_S_DRIVER_OK = 4, VIRTIO_S_FEATURES_OK = 8,
    VIRTIO_S_NEEDS_RESET = 64, VIRTIO_S_FAILED = 128,
};

/* 6: reserved feature bits; 6.3: legacy ones */
enum {
    VIRTIO_F_NOTIFY_ON_EMPTY = 24, VIRTIO_F_ANY_LAYOUT = 27, VIRTIO_F_INDIRECT_DESC = 28, VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32, VIRTIO_F_ACCESS_PLATFORM = 33, VIRTIO_F_RING_PACKED = 34, VIRTIO_F_IN_ORDER = 35,
    VIRTIO_F_ORDER_PLATFORM = 36, VIRTIO_F_SR_IOV = 37, VIRTIO_F_NOTIFICATION_DATA = 38, VIRTIO_F_NOTIF_CONFIG_DATA = 39,
    VIRTIO_F_RING_RESET = 40,
};

/* 4.1.4.5: interrupt status bits */
enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };

#define VIRTIO_NO_VECTOR 0xffff
#define VIRTIO_QUEUE_MAX 1024           /* queues of one device */
#define VIRTQ_SIZE_MAX 1024             /* ring entries; also the longest chain that is taken */
#define VIRTIO_PCI_VENDOR 0x1af4

/* 2.7.5: descriptor of a split ring, 2.8.13: of a packed ring */
enum { VIRTQ_DESC_F_NEXT = 1, VIRTQ_DESC_F_WRITE = 2, VIRTQ_DESC_F_INDIRECT = 4 };
struct virtq_desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
static_assert(sizeof(struct virtq_desc) == 16, "2.7.5");
enum { VIRTQ_AVAIL_F_NO_INTERRUPT = 1, VIRTQ_USED_F_NO_NOTIFY = 1 };
struct virtq_avail { uint16_t flags, idx, ring[]; };            /* used_event follows the ring */
struct virtq_used_elem { uint32_t id, len; };
struct virtq_used { uint16_t flags, idx; struct virtq_used_elem ring[]; };   /* avail_event follows the ring */

#define VIRTQ_PACKED_F_AVAIL (1u << 7)
#define VIRTQ_PACKED_F_USED (1u << 15)
struct virtq_packed_desc { uint64_t addr; uint32_t len; uint16_t id, flags; };
static_assert(sizeof(struct virtq_packed_desc) == 16, "2.8.13");
enum { VIRTQ_EVENT_ENABLE = 0, VIRTQ_EVENT_DISABLE = 1, VIRTQ_EVENT_DESC = 2 };
struct virtq_packed_event { uint16_t off_wrap, flags; };        /* 2.8.14 */

#endif
