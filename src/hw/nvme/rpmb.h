/* SPDX-License-Identifier: MIT */
/* The replay protected memory block of a controller (rpmb-drive=). */
#ifndef HW_NVME_RPMB_H
#define HW_NVME_RPMB_H

#include "core/state.h"
#include "hw/nvme/cmd_int.h"

#define NVME_SECURITY_RPMB 0xeau        /* the security protocol; */
#define NVME_SPSP_RPMB 1u               /* its specific field */

/* The drive, opened; nothing without it. Main loop. */
bool nvme_rpmb_init(struct nvme *n, struct err *e) MUST_CHECK;
void nvme_rpmb_fini(struct nvme *n);
/* The host's last request is forgotten. Domain lock held. */
void nvme_rpmb_reset(struct nvme *n);
/* RPMBS of Identify Controller (5.17.2.1). */
uint32_t nvme_rpmb_support(const struct nvme *n);
/* Security Send and Receive of the protocol. Statuses. */
uint16_t co_nvme_rpmb_send(struct nvme_req *r);
uint16_t co_nvme_rpmb_receive(struct nvme_req *r);
/* Whether the configuration block locks boot partition @id (8.2.3); a drive that cannot be read locks both. */
bool co_nvme_rpmb_locks(struct nvme *n, unsigned id);
/* Whether it lets hosts put namespaces into @state, NVME_PROTECT_CYCLE or NVME_PROTECT_EVER (8.12.1). */
bool co_nvme_rpmb_protects(struct nvme *n, unsigned state);
/* NWPC: without the block that says who may, there is no state that cannot be left. */
enum { NVME_NWPC_PROTECT = 1, NVME_NWPC_CYCLE = 2, NVME_NWPC_EVER = 4 };
uint8_t nvme_protect_states(const struct nvme *n);
extern const struct state_desc nvme_rpmb_state;

#endif
