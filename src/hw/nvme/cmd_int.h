/* SPDX-License-Identifier: MIT */
/* What the files with command handlers share. */
#ifndef HW_NVME_CMD_INT_H
#define HW_NVME_CMD_INT_H

#include "hw/nvme/nvme.h"

/* Whether an I/O command may go to r->ns now: format, write protection, access state, reservations. */
uint16_t nvme_io_allowed(struct nvme_req *r, const struct nvme_op *op);
/* A fused compare and write; r->fused is the compare. Both statuses are set. */
uint16_t co_nvme_fused(struct nvme_req *r);
void nvme_keep_alive(struct nvme *n);

static inline uint64_t nvme_slba(const struct nvme_cmd *c) { return c->cdw10 | (uint64_t)c->cdw11 << 32; }
static inline uint64_t nvme_nlb(const struct nvme_cmd *c) { return (c->cdw12 & 0xffff) + 1; }

/* Identify: what the controller claims follows from its tables of commands. */
void nvme_identify_caps(const struct nvme *n, uint8_t *b);
void nvme_identify_csi(const struct nvme_ns *ns, uint8_t csi, uint8_t *b);
uint8_t nvme_rescap(const struct nvme_ns *ns);
/* 5.16.1.18: false where the feature is not known. */
bool nvme_feature_effects(uint8_t fid, uint32_t *effects);
void nvme_check_temperature(struct nvme *n);

/* What became of a request to the block layer. */
uint16_t nvme_status_of(struct nvme_req *r, int error, bool read);

#endif
