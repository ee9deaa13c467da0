/* SPDX-License-Identifier: MIT */
/* Atomic writes (NVM Command Set 2.1.4): commands of one namespace, on any controller, that keep away from each other's blocks. */
#ifndef HW_NVME_ATOMIC_H
#define HW_NVME_ATOMIC_H

#include "hw/nvme/cmd_int.h"

/* Whether commands to @ns must look at each other at all. */
static inline bool nvme_ranges_on(const struct nvme_ns *ns)
{
    return ns->atomic.on || atomic_load_explicit(&ns->ss->atomic_writes, memory_order_relaxed);
}
/*
 * Waits until earlier commands that may not run beside this one are done: @alone, or one of them is. @g: blocks, on the command's stack.
 * False: the command was aborted or the controller reset meanwhile, nothing is held. CO.
 */
bool co_nvme_range_begin(struct nvme_req *r, struct nvme_ns *ns, struct range_claim *g, uint64_t slba, uint64_t nlb, bool alone) MUST_CHECK;
void nvme_range_end(struct nvme_ns *ns, struct range_claim *g);
/* Whether a write of these blocks is atomic. */
bool nvme_atomic_write(const struct nvme *n, const struct nvme_ns *ns, uint64_t slba, uint64_t nlb);
/* Whether the options of a namespace fit together. */
bool nvme_atomic_check(const struct nvme_ns_atomic *a, struct err *e) MUST_CHECK;

#endif
