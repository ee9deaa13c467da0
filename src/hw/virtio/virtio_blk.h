/* SPDX-License-Identifier: MIT */
/* Block device (VIRTIO 1.2, 5.2): layouts, and what its two halves share. */
#ifndef HW_VIRTIO_VIRTIO_BLK_H
#define HW_VIRTIO_VIRTIO_BLK_H

#include "block/blk.h"
#include "hw/virtio/virtio.h"
#include "loop/iothread_map.h"

#define VBLK_SECTOR 512
#define VBLK_ID_BYTES 20
#define VBLK_RUNNING_MAX 1024           /* requests of a device at a time; each has a stack */

enum {
    VIRTIO_BLK_F_SEG_MAX = 2, VIRTIO_BLK_F_GEOMETRY = 4, VIRTIO_BLK_F_RO = 5, VIRTIO_BLK_F_BLK_SIZE = 6, VIRTIO_BLK_F_FLUSH = 9,
    VIRTIO_BLK_F_TOPOLOGY = 10, VIRTIO_BLK_F_CONFIG_WCE = 11, VIRTIO_BLK_F_MQ = 12, VIRTIO_BLK_F_DISCARD = 13,
    VIRTIO_BLK_F_WRITE_ZEROES = 14,
};
enum {
    VIRTIO_BLK_T_IN = 0, VIRTIO_BLK_T_OUT = 1, VIRTIO_BLK_T_FLUSH = 4, VIRTIO_BLK_T_GET_ID = 8, VIRTIO_BLK_T_DISCARD = 11,
    VIRTIO_BLK_T_WRITE_ZEROES = 13,
};
enum { VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP };

/* 5.2.4, little endian. */
struct vblk_config {
    uint64_t capacity;                  /* in sectors of 512 bytes */
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));
static_assert(sizeof(struct vblk_config) == 60, "5.2.4");

struct vblk_header { uint32_t type, reserved; uint64_t sector; };       /* 5.2.6 */
struct vblk_range { uint64_t sector; uint32_t sectors, flags; };
static_assert(sizeof(struct vblk_header) == 16 && sizeof(struct vblk_range) == 16, "5.2.6");

struct virtio_blk {
    struct virtio_dev v;                /* first */
    struct blk_front_opts opt;
    char *serial;
    uint16_t num_queues, queue_size;
    bool config_wce, discard, write_zeroes;
    struct obj *iothread;
    json_t *vq_mapping;                 /* option iothread-vq-mapping */
    struct iothread_map threads;        /* that it names */
    struct blk *blk;
    struct blk_caps caps;
    bool wce_at_reset;
    uint32_t running;                   /* requests that are coroutines */
    bool starved;                       /* a queue waits until there are fewer */
    struct list stopped;                /* of vblk_req: failed with the action "stop", tried again on `cont` */
};

struct vblk_req {
    struct vq_elem e;                   /* first */
    struct list link;                   /* in virtio_blk.stopped */
};

/* The queues' handler; its requests are coroutines. */
void vblk_kicked(struct virtq *vq);
/* Starts a stopped or restored request. Domain lock held. */
void vblk_start(struct vblk_req *r);

/* Gives the queues the threads that the options name; after virtio_add_queue(). */
bool vblk_threads_set(struct virtio_blk *b, struct err *e) MUST_CHECK;
void vblk_threads_forget(struct virtio_blk *b);

#endif
