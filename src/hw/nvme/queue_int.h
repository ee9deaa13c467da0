/* SPDX-License-Identifier: MIT */
/* What the files about queues share. */
#ifndef HW_NVME_QUEUE_INT_H
#define HW_NVME_QUEUE_INT_H

#include "hw/nvme/nvme.h"

/* A request of @sq, counted in flight. */
struct nvme_req *nvme_req_get(struct nvme_sq *sq);
/* A request that waits for the host or for the machine to run: in @where, and not in flight. */
void nvme_req_set_aside(struct nvme_req *r, struct list *where);
/* Doorbell buffers (5.8): false where there are none (for the admin queue never). */
bool nvme_shadow(struct nvme *n, unsigned qid, bool cq, uint32_t *v);
/* Asks to be rung when the host goes past @v. */
bool nvme_shadow_ask(struct nvme *n, unsigned qid, bool cq, uint32_t v);
/* The post of a submission queue: fetches and starts what is there. */
void nvme_sq_served(void *sq);

#endif
