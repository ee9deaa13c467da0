/* SPDX-License-Identifier: MIT */
/* The zones of a namespace: state in zones.c, commands in zns.c. Everything is under the subsystem's lock. */
#ifndef HW_NVME_ZNS_INT_H
#define HW_NVME_ZNS_INT_H

#include "hw/nvme/cmd_int.h"
#include "hw/nvme/zns.h"

enum { ZONE_EMPTY = 1, ZONE_IOPEN = 2, ZONE_EOPEN = 3, ZONE_CLOSED = 4, ZONE_READ_ONLY = 13, ZONE_FULL = 14, ZONE_OFFLINE = 15 };
enum { ZONE_ATTR_FINISHED = 1, ZONE_ATTR_ZRWA = 1 << 3, ZONE_ATTR_EXT = 1 << 7 };      /* zone attributes */

struct nvme_zone {
    uint64_t wp, next;                  /* the host's write pointer; where the next write goes (some are in flight) */
    uint8_t state, attr;
    bool busy;                          /* being reset */
};

struct nvme_zones {
    uint32_t n, n_open, n_active, n_zrwa;
    uint32_t max_open, max_active;      /* 0: no limit */
    uint32_t n_alloc;                   /* as many as any format has */
    uint64_t size, cap;                 /* blocks */
    uint64_t byte_size, byte_cap, byte_zrwas, byte_zrwafg;
    bool cross_read, auto_close;
    uint32_t ext_size;                  /* bytes of a descriptor extension */
    uint32_t zrwas, zrwafg, numzrwa;    /* blocks; how many zones */
    uint8_t *ext;
    struct nvme_zone *zone;
};

static inline uint64_t zone_start(const struct nvme_zones *z, const struct nvme_zone *x) { return (uint64_t)(x - z->zone) * z->size; }
static inline bool zone_is_open(const struct nvme_zone *x) { return x->state == ZONE_IOPEN || x->state == ZONE_EOPEN; }
static inline bool zone_is_active(const struct nvme_zone *x) { return zone_is_open(x) || x->state == ZONE_CLOSED; }
/* Counts follow. */
void zone_set(struct nvme_zones *z, struct nvme_zone *x, uint8_t state);
/* One zone's transition (Zoned 2.1.1.4); @zrwa: with a random write area. A status. */
uint16_t zone_open(struct nvme_zones *z, struct nvme_zone *x, bool explicitly, bool zrwa);
uint16_t zone_close(struct nvme_zones *z, struct nvme_zone *x);
uint16_t zone_finish(struct nvme_zones *z, struct nvme_zone *x);
uint16_t zone_offline(struct nvme_zones *z, struct nvme_zone *x);
uint16_t zone_flush_zrwa(struct nvme_zones *z, struct nvme_zone *x, uint64_t lba);
/* After a reset of its blocks. */
void zone_empty(struct nvme_zones *z, struct nvme_zone *x);

#endif
