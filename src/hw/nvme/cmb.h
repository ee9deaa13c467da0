/* SPDX-License-Identifier: MIT */
/* Controller memory buffer and persistent memory region. */
#ifndef HW_NVME_CMB_H
#define HW_NVME_CMB_H

#include "hw/nvme/nvme.h"

bool nvme_cmb_init(struct nvme *n, struct err *e) MUST_CHECK;
void nvme_cmb_fini(struct nvme *n);     /* after the BARs are gone; also after a failed init */
void nvme_cmb_reset(struct nvme *n);
/* Their registers; writing others gives false. */
uint64_t nvme_cmb_read(const struct nvme *n, uint64_t off);
bool nvme_cmb_write(struct nvme *n, uint64_t off, uint64_t v);

#endif
