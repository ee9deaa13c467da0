/* SPDX-License-Identifier: MIT */
/* Whole blocks of a namespace with their metadata, in memory of ours: what copy, compare, verify and protected I/O work on. */
#ifndef HW_NVME_MEDIA_H
#define HW_NVME_MEDIA_H

#include "hw/nvme/cmd_int.h"
#include "block/pi.h"

/* Data, and metadata where the format has some (@meta is not looked at otherwise). A status. */
uint16_t co_nvme_media_read(struct nvme_req *r, struct nvme_ns *ns, uint64_t slba, uint64_t nlb, uint8_t *data, uint8_t *meta);
/* @fl: BLK_FUA. */
uint16_t co_nvme_media_write(struct nvme_req *r, struct nvme_ns *ns, uint64_t slba, uint64_t nlb, uint8_t *data, uint8_t *meta, unsigned fl);
/* Metadata of blocks set to one byte. */
uint16_t co_nvme_meta_fill(struct nvme_req *r, struct nvme_ns *ns, uint64_t slba, uint64_t nlb, uint8_t byte);
/* True if no block of the range is deallocated (DULBE, NVM Command Set 3.2.3.2.1). */
bool co_nvme_allocated(struct nvme_ns *ns, uint64_t slba, uint64_t nlb);
/* Blocks that Write Uncorrectable made unreadable (3.2.7); writing makes them readable. */
bool nvme_uncor_hit(struct nvme_ns *ns, uint64_t slba, uint64_t nlb);
bool nvme_uncor_add(struct nvme_ns *ns, uint64_t slba, uint64_t nlb);
void nvme_uncor_clear(struct nvme_ns *ns, uint64_t slba, uint64_t nlb);
/* The first such range at or after @from, cut to begin there. */
bool nvme_uncor_next(struct nvme_ns *ns, uint64_t from, uint64_t *start, uint64_t *end);
void nvme_uncor_free(struct nvme_ns *ns);
/* Writers, and one that must be alone (a fused pair): at most one of the two kinds at a time. */
void co_nvme_write_begin(struct nvme_ns *ns);
void nvme_write_end(struct nvme_ns *ns);
void co_nvme_alone_begin(struct nvme_ns *ns);
void nvme_alone_end(struct nvme_ns *ns);

/* The protection that a command asks for; @prinfo as in dword 12. Status where it is not possible. */
uint16_t nvme_pi_of(const struct nvme_req *r, const struct nvme_ns *ns, uint64_t slba, uint8_t prinfo, struct pi *pi);
enum { NVME_PRACT = 8 };                /* PRINFO, 5.2.2; its other bits are PI_CHECK_* */
/* pi_check() and pi_check_read(), with a status. */
uint16_t nvme_pi_check(const struct pi *pi, const uint8_t *data, const uint8_t *meta, uint64_t nlb);
uint16_t nvme_pi_check_read(const struct pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb);
/* Metadata is not transferred: the controller makes and strips it (5.2.2.1). */
static inline bool nvme_strips(const struct nvme_ns *ns, uint8_t prinfo)
{
    return ns->pi && prinfo & NVME_PRACT && ns->ms == pi_size(ns->pif);
}

#endif
