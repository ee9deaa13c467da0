/* SPDX-License-Identifier: MIT */
/* How long commands take (timing=): latencies, dies that are busy, a channel of limited bandwidth, all in the machine's time. */
#ifndef HW_NVME_TIMING_H
#define HW_NVME_TIMING_H

#include "hw/nvme/cmd_int.h"

/* A command that waits for a moment of CLOCK_VM; all but the link is its own loop's. */
struct nvme_wait {
    struct list link;                   /* in n->waits */
    struct loop *loop;
    struct post look;
    struct co_queue q;
    bool due;
};
/*
 * Until @deadline; a reset or a stop of the machine ends it, an abort, too, if @abortable. CO, domain lock held.
 */
void co_nvme_wait_until(struct nvme_req *r, int64_t deadline, bool abortable);
/* Every waiting command looks again whether it must go on waiting. */
void nvme_waits_look(struct nvme *n);

/* When the I/O command that begins now is done; INT64_MIN: the model says nothing. What it uses is busy until then. */
int64_t nvme_timing_plan(struct nvme_req *r, const struct nvme_op *op);
/* The option: @o replaces the model. Main loop. */
bool nvme_timing_set(struct nvme *n, json_t *o, struct err *e) MUST_CHECK;
void nvme_timing_free(struct nvme *n);

#endif
