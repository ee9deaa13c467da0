/* SPDX-License-Identifier: MIT */
/* A virtio disk as vhost-user carries it (virtio 1.2, section 5.2): the same for who serves one and who uses one. */
#ifndef VHOST_USER_VU_BLK_SPEC_H
#define VHOST_USER_VU_BLK_SPEC_H

#include <assert.h>
#include <stdint.h>

enum { VU_BLK_SECTOR = 512 };
enum vu_blk_type { VU_BLK_IN = 0, VU_BLK_OUT = 1, VU_BLK_FLUSH = 4, VU_BLK_GET_ID = 8, VU_BLK_DISCARD = 11, VU_BLK_WRITE_ZEROES = 13 };
enum { VU_BLK_ZEROES_UNMAP = 1 };
enum vu_blk_status { VU_BLK_OK, VU_BLK_IOERR, VU_BLK_UNSUPP };
enum {
    VU_BLK_F_SEG_MAX = 2, VU_BLK_F_RO = 5, VU_BLK_F_BLK_SIZE = 6, VU_BLK_F_FLUSH = 9, VU_BLK_F_TOPOLOGY = 10, VU_BLK_F_CONFIG_WCE = 11, VU_BLK_F_MQ = 12,
    VU_BLK_F_DISCARD = 13, VU_BLK_F_WRITE_ZEROES = 14,
};
/* 5.2.4, as far as these features go; little endian. */
struct vu_blk_config {
    uint64_t capacity;
    uint32_t size_max, seg_max, geometry, blk_size;
    uint8_t physical_exp, alignment_offset;
    uint16_t min_io;
    uint32_t opt_io;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_alignment, max_zeroes_sectors, max_zeroes_seg;
    uint8_t zeroes_may_unmap, unused1[3];
} __attribute__((packed));
static_assert(sizeof(struct vu_blk_config) == 60, "5.2.4");
struct vu_blk_header { uint32_t type, reserved; uint64_t sector; };
struct vu_blk_range { uint64_t sector; uint32_t sectors, flags; };
static_assert(sizeof(struct vu_blk_header) == 16 && sizeof(struct vu_blk_range) == 16, "5.2.6");

#endif
