/* SPDX-License-Identifier: MIT */
/* Self-test, doorbell and memory buffers of a host. */
#ifndef HW_NVME_MAINT_H
#define HW_NVME_MAINT_H

#include "hw/nvme/cmd_int.h"

void nvme_maint_init(struct nvme *n);
/* What a controller reset ends. */
void nvme_test_reset(struct nvme *n);
void nvme_test_loaded(struct nvme *n);                       /* after a snapshot was loaded */
void nvme_test_log(const struct nvme *n, uint8_t *b);       /* 564 bytes */
uint16_t nvme_hmb_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_hmb_set(struct nvme_req *r, uint32_t v);

#endif
