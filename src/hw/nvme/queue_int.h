/* SPDX-License-Identifier: MIT */
/* What the files about queues share. */
#ifndef HW_NVME_QUEUE_INT_H
#define HW_NVME_QUEUE_INT_H

#include "hw/nvme/nvme.h"

/* ---- ring.c ---- */
/* @count commands from the head on, which do not go over the end. False: out of reach. */
bool nvme_ring_fetch(struct nvme_sq *sq, struct nvme_cmd *c, unsigned count) MUST_CHECK;
/* The entry at the tail. False: out of reach. */
bool nvme_ring_complete(struct nvme_cq *cq, const struct nvme_cqe *e) MUST_CHECK;
void nvme_ring_drop(struct nvme_ring *g);

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
/* @cq can be deleted, or its saved state is there: doorbells are told or latched as it is now. */
void nvme_cq_settled(struct nvme_cq *cq);

#endif
