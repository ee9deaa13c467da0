/* SPDX-License-Identifier: MIT */
/* What a controller tells by itself: zones that changed, blocks that cannot be read, warnings of the endurance group. Domain lock held. */
#ifndef HW_NVME_NOTICE_H
#define HW_NVME_NOTICE_H

#include "hw/nvme/nvme.h"

void nvme_notice_init(struct nvme *n);
void nvme_notice_fini(struct nvme *n);
/* What a controller reset forgets. */
void nvme_notice_reset(struct nvme *n);
/* Sends what others left: nvme_zone_changes, nvme_lba_alert. */
void nvme_notice_told(struct nvme *n);
/* Blocks of @ns cannot be read any more: every controller that has it is told. ANY. */
void nvme_lba_alert(struct nvme_ns *ns);
/* The endurance group has critical warnings that it did not have (5.16.1.9). */
void nvme_endgrp_warned(struct nvme *n);
/* Its critical warnings now. */
uint8_t nvme_endgrp_warnings(const struct nvme *n);

/* Log pages. */
uint16_t nvme_log_lba_status(struct nvme_req *r, struct str *s);
uint16_t nvme_log_endgrp_events(struct nvme_req *r, struct str *s);

/* Features. */
uint16_t nvme_endgrp_config_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_endgrp_config_set(struct nvme_req *r, uint32_t v);

#endif
