/* SPDX-License-Identifier: MIT */
/* What the files of the controller share: registers in ctrl.c, options and life in nvme.c. */
#ifndef HW_NVME_CTRL_INT_H
#define HW_NVME_CTRL_INT_H

#include "hw/nvme/cmd_int.h"

/* What a controller of either kind is made of; nvme.c. */
extern const struct prop nvme_runtime_props[];          /* runtime.c */
/* Groups get the states that the options say. Domain lock held, or not realized. */
void nvme_ana_apply(void *n);
/* The post of warn_post: warnings that an option asks for are events. */
void nvme_warned(void *n);
bool nvme_ctrl_init(struct obj *o, struct err *e);
void nvme_ctrl_finalize(struct obj *o);
/* Queues, posts, a place in @ss; what the options say is in @n. */
bool nvme_ctrl_begin(struct nvme *n, struct nvme_subsys *ss, struct err *e) MUST_CHECK;
void nvme_ctrl_end(struct nvme *n);
/* Registers, doorbells and, unless it has its own BAR, the MSI-X table; on failure nothing is left. */
bool nvme_ctrl_bar0(struct nvme *n, struct err *e) MUST_CHECK;
void nvme_ctrl_unrealize(struct dev *d);
void nvme_ctrl_dev_reset(struct dev *d, enum reset_kind k);
void co_nvme_ctrl_quiesce(struct dev *d);

extern const struct mmio_ops nvme_regs_ops;
uint64_t nvme_cap_value(const struct nvme *n);
void nvme_ctrl_reset(struct nvme *n, bool cold);
/* What a host set up and no reset keeps. */
void nvme_ctrl_forget(struct nvme *n);
void nvme_keep_alive_init(struct nvme *n);
/* The post of events_post. */
void nvme_told(void *n);

#endif
