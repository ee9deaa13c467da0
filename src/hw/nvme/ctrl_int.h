/* SPDX-License-Identifier: MIT */
/* What the files of the controller share: registers in ctrl.c, options and life in nvme.c. */
#ifndef HW_NVME_CTRL_INT_H
#define HW_NVME_CTRL_INT_H

#include "hw/nvme/cmd_int.h"

extern const struct mmio_ops nvme_regs_ops;
uint64_t nvme_cap_value(void);
void nvme_ctrl_reset(struct nvme *n, bool cold);
/* What a host set up and no reset keeps. */
void nvme_ctrl_forget(struct nvme *n);
void nvme_keep_alive_init(struct nvme *n);
/* The post of events_post. */
void nvme_told(void *n);

#endif
