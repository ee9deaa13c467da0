/* SPDX-License-Identifier: MIT */
/* Firmware slots, and boot partitions with their registers. */
#ifndef HW_NVME_FIRMWARE_H
#define HW_NVME_FIRMWARE_H

#include "core/state.h"
#include "hw/nvme/cmd_int.h"

#define NVME_BOOT_HEADER 16u            /* of the log page */

void nvme_fw_log(const struct nvme *n, uint8_t *b);         /* 512 bytes */
void nvme_fw_activate(struct nvme *n);                      /* a reset runs what was committed */
void nvme_fw_forget(struct nvme *n);                        /* what was downloaded */

/* boot-drive=, opened; nothing without it. Main loop. */
bool nvme_boot_init(struct nvme *n, struct err *e) MUST_CHECK;
void nvme_boot_fini(struct nvme *n);
/* 3.1.3.13 to 3.1.3.15. Domain lock held. */
uint64_t nvme_boot_reg(const struct nvme *n, uint64_t off);
void nvme_boot_write(struct nvme *n, uint64_t off, uint64_t v);
void nvme_boot_reset(struct nvme *n);
uint16_t co_nvme_boot_log(struct nvme_req *r, uint64_t off, uint64_t len);
extern const struct state_desc nvme_boot_state;
extern const struct state_custom nvme_fw_image;

#endif
