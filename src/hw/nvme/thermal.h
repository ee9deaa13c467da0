/* SPDX-License-Identifier: MIT */
/*
 * The composite temperature (an option that can change while the machine runs): thresholds and their events, host controlled
 * thermal management (8.15), what the health log tells of them. Nothing gets slower: levels are counted. Domain lock held.
 */
#ifndef HW_NVME_THERMAL_H
#define HW_NVME_THERMAL_H

#include "hw/nvme/nvme.h"

enum { NVME_TEMP_DEFAULT = 323, NVME_TEMP_WARNING = 343, NVME_TEMP_CRITICAL = 373, NVME_TMT_MIN = 273, NVME_TMT_MAX = 373 };   /* kelvin */

extern const struct state_desc nvme_thermal_state;
/* The post of thermal_post: the option changed. */
void nvme_thermal_changed(void *n);
void nvme_thermal_reset(struct nvme *n);
void nvme_thermal_log(struct nvme *n, uint8_t *b);          /* its fields of the 512 bytes of the health log, 5.16.1.3 */
uint16_t nvme_threshold_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_threshold_set(struct nvme_req *r, uint32_t v);
uint16_t co_nvme_thermal_set(struct nvme_req *r, uint32_t v);

#endif
