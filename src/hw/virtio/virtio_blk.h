/* SPDX-License-Identifier: MIT */
/* Block device (VIRTIO 1.3, 5.2): layouts, and what its two halves share. */
#ifndef HW_VIRTIO_VIRTIO_BLK_H
#define HW_VIRTIO_VIRTIO_BLK_H

#include "block/blk.h"
#include "hw/virtio/virtio.h"
#include "loop/iothread_map.h"

#define VBLK_SECTOR 512
#define VBLK_ID_BYTES 20
#define VBLK_RANGE_MAX INT32_MAX        /* sectors of a discard, a writing of zeroes */
#define VBLK_RUNNING_MAX 1024           /* requests of a device at a time; each has a stack */

enum {
    VIRTIO_BLK_F_SIZE_MAX = 1, VIRTIO_BLK_F_SEG_MAX = 2, VIRTIO_BLK_F_GEOMETRY = 4, VIRTIO_BLK_F_RO = 5, VIRTIO_BLK_F_BLK_SIZE = 6, VIRTIO_BLK_F_FLUSH = 9,
    VIRTIO_BLK_F_TOPOLOGY = 10, VIRTIO_BLK_F_CONFIG_WCE = 11, VIRTIO_BLK_F_MQ = 12, VIRTIO_BLK_F_DISCARD = 13,
    VIRTIO_BLK_F_WRITE_ZEROES = 14, VIRTIO_BLK_F_SECURE_ERASE = 16, VIRTIO_BLK_F_ZONED = 17,
};
enum {
    VIRTIO_BLK_T_IN = 0, VIRTIO_BLK_T_OUT = 1, VIRTIO_BLK_T_FLUSH = 4, VIRTIO_BLK_T_GET_ID = 8, VIRTIO_BLK_T_DISCARD = 11,
    VIRTIO_BLK_T_WRITE_ZEROES = 13, VIRTIO_BLK_T_SECURE_ERASE = 14, VIRTIO_BLK_T_ZONE_APPEND = 15, VIRTIO_BLK_T_ZONE_REPORT = 16,
    VIRTIO_BLK_T_ZONE_OPEN = 18, VIRTIO_BLK_T_ZONE_CLOSE = 20, VIRTIO_BLK_T_ZONE_FINISH = 22, VIRTIO_BLK_T_ZONE_RESET = 24,
    VIRTIO_BLK_T_ZONE_RESET_ALL = 26,
};
enum {
    VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_ZONE_INVALID_CMD, VIRTIO_BLK_S_ZONE_UNALIGNED_WP,
    VIRTIO_BLK_S_ZONE_OPEN_RESOURCE, VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE,
};
enum { VIRTIO_BLK_Z_HM = 1 };           /* zone model: host-managed */

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
    uint32_t max_secure_erase_sectors, max_secure_erase_seg, secure_erase_sector_alignment;
    struct {
        uint32_t zone_sectors, max_open_zones, max_active_zones, max_append_sectors, write_granularity;
        uint8_t model, unused2[3];
    } __attribute__((packed)) zoned;    /* there with VIRTIO_BLK_F_ZONED */
} __attribute__((packed));
static_assert(offsetof(struct vblk_config, zoned) == 72 && sizeof(struct vblk_config) == 96, "5.2.4");

struct vblk_header { uint32_t type, reserved; uint64_t sector; };       /* 5.2.6 */
struct vblk_range { uint64_t sector; uint32_t sectors, flags; };
struct vblk_zone { uint64_t cap, start, wp; uint8_t type, state, reserved[38]; };       /* of a report, whose header is as long */
static_assert(sizeof(struct vblk_zone) == 64, "5.2.6");
static_assert(sizeof(struct vblk_header) == 16 && sizeof(struct vblk_range) == 16, "5.2.6");

struct virtio_blk {
    struct virtio_dev v;                /* first */
    struct blk_front_opts opt;
    char *serial;
    uint16_t num_queues, queue_size;
    bool config_wce, discard, write_zeroes, secure_erase;
    uint32_t max_discard, max_zeroes;   /* sectors */
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
/*
 * Requests for zones (virtio_blk_zoned.c): coroutines, 0 or -errno; the errors of co_blk_zone_*() among them, which vblk_zone_status()
 * turns into the status that says so (0: it is none of these).
 */
int co_vblk_zone(struct virtio_blk *b, struct vq_elem *e, uint32_t type, uint64_t sector);
uint8_t vblk_zone_status(const struct virtio_blk *b, int result);
void vblk_zone_config(const struct virtio_blk *b, struct vblk_config *c);
/* Whether a read of these bytes leaves a zone that is written in order. */
bool vblk_zone_crossed(const struct virtio_blk *b, uint64_t off, uint64_t len);
/* A range in sectors as bytes; false if it leaves the disk or cuts a logical block. */
bool vblk_range_bytes(const struct virtio_blk *b, uint64_t sector, uint64_t len, uint64_t *off);
/* Starts a stopped or restored request. Domain lock held. */
void vblk_start(struct vblk_req *r);

/* Gives the queues the threads that the options name; after virtio_add_queue(). */
bool vblk_threads_set(struct virtio_blk *b, struct err *e) MUST_CHECK;
void vblk_threads_forget(struct virtio_blk *b);

#endif
