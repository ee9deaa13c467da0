/* SPDX-License-Identifier: MIT */
/* What the Open Compute Project's Datacenter NVMe SSD Specification 2.0 adds, unless ocp=off: vendor specific pages and features. */
#ifndef HW_NVME_OCP_H
#define HW_NVME_OCP_H

#include "hw/nvme/nvme.h"

extern const struct state_desc nvme_ocp_state;
uint16_t nvme_ocp_smart_log(struct nvme_req *r, struct str *s);
uint16_t nvme_ocp_recovery_log(struct nvme_req *r, struct str *s);
uint16_t nvme_ocp_firmware_log(struct nvme_req *r, struct str *s);
/* The firmware of slot @slot runs from now on, by commit action @action. Domain lock held. */
void nvme_ocp_activated(struct nvme *n, unsigned slot, unsigned action);
/* Features that are orders: forget the firmware's history, the bus' corrected errors. */
uint16_t co_nvme_ocp_clear_history(struct nvme_req *r, uint32_t v);
uint16_t co_nvme_ocp_clear_bus_errors(struct nvme_req *r, uint32_t v);

#endif
