/* SPDX-License-Identifier: MIT */
/* The zones of a namespace: their life in zones.c, commands in zns.c, the state machine in block/zones.h. All is under the subsystem's lock. */
#ifndef HW_NVME_ZNS_INT_H
#define HW_NVME_ZNS_INT_H

#include "block/zones.h"
#include "hw/nvme/cmd_int.h"
#include "hw/nvme/zns.h"

struct nvme_zones {
    struct zones m;                     /* in blocks */
    uint32_t n_alloc;                   /* as many as any format has */
    uint64_t byte_size, byte_cap, byte_zrwas, byte_zrwafg;
    uint32_t ext_size;                  /* bytes of a descriptor extension */
    uint8_t *ext;
    uint64_t changes, *changed;         /* zones that changed by themselves: how many did, which number each was last (0: never); */
    uint64_t seen[NVME_CTRL_MAX];       /* what each controller's host has read of */
};

static inline uint8_t *nvme_zone_ext(const struct nvme_zones *z, const struct zone *x) { return z->ext + (size_t)(x - z->m.zone) * z->ext_size; }
/* The status that says so (Zoned 2.3, command specific status values). */
uint16_t nvme_zone_status(enum zone_result r);

#endif
