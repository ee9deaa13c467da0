/* SPDX-License-Identifier: MIT */
/* Reservations of a namespace, as the dispatcher and the log pages see them. */
#ifndef HW_NVME_RESV_H
#define HW_NVME_RESV_H

#include "hw/nvme/cmd_int.h"

/* Whether the command's host may read or write r->ns now. */
uint16_t nvme_resv_allows(struct nvme_req *r, bool reads, bool writes);
bool nvme_resv_held(const struct nvme_ns *ns);
/* The next notification into 64 zeroed bytes. */
void nvme_resv_log(struct nvme *n, uint8_t *b);
void nvme_resv_free(struct nvme_ns *ns);

/* Features Reservation Notification Mask (5.27.1.26) and Reservation Persistence (5.27.1.27). */
uint16_t nvme_resv_mask_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_resv_mask_set(struct nvme_req *r, uint32_t v);
uint16_t nvme_resv_persist_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_resv_persist_set(struct nvme_req *r, uint32_t v);

#endif
