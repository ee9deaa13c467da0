/* SPDX-License-Identifier: MIT */
/* The persistent event log. Domain lock held. */
#ifndef HW_NVME_PEL_H
#define HW_NVME_PEL_H

#include "hw/nvme/maint.h"

enum { NVME_PEL_FW_COMMIT = 2, NVME_PEL_TIMESTAMP = 3, NVME_PEL_RESET = 4, NVME_PEL_FORMAT_START = 7, NVME_PEL_FORMAT_END = 8,
       NVME_PEL_SANITIZE_START = 9, NVME_PEL_SANITIZE_END = 10, NVME_PEL_SET_FEATURE = 11 };

/* @data: the event's own bytes, at most 32. */
void nvme_pel_add(struct nvme *n, uint8_t type, const void *data, size_t len);
void nvme_pel_reset(struct nvme *n);
uint16_t nvme_pel_log(struct nvme_req *r, struct str *s);

#endif
