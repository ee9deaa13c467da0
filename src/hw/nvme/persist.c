/* SPDX-License-Identifier: MIT */
/* What a subsystem keeps on the host between runs. */
#include "hw/nvme/nvme.h"

void nvme_state_dirty(struct nvme_subsys *ss) { }
