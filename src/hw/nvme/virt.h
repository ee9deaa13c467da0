/* SPDX-License-Identifier: MIT */
/* Virtualization enhancements (8.26): secondary controllers are the virtual functions of a primary one. */
#ifndef HW_NVME_VIRT_H
#define HW_NVME_VIRT_H

#include "hw/nvme/ctrl_int.h"

/* Whether the options fit together. */
bool nvme_virt_check(const struct nvme *n, struct err *e) MUST_CHECK;
/* In realize, after all other capabilities; @bar0: of a virtual function. Then its functions. */
bool nvme_virt_init(struct nvme *n, uint64_t bar0, struct err *e) MUST_CHECK;
/* What the functions of @n have at most. */
unsigned nvme_virt_queues(const struct nvme *n);
unsigned nvme_virt_vectors(const struct nvme *n);
/* A controller level reset: resources change hands, secondary controllers go offline. Domain lock held. */
void nvme_virt_reset(struct nvme *n);
/* A secondary controller takes what the primary decided; whether it is usable. Its domain's lock held. */
bool nvme_virt_online(struct nvme *n);
uint16_t co_nvme_virt_mgmt(struct nvme_req *r);
uint16_t nvme_virt_primary(struct nvme_req *r, uint8_t *b);
uint16_t nvme_virt_secondaries(struct nvme_req *r, uint8_t *b);
extern const struct state_desc nvme_virt_state;

#endif
