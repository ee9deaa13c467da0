/* SPDX-License-Identifier: MIT */
/* Flexible data placement: what the rest of the controller calls. */
#ifndef HW_NVME_FDP_H
#define HW_NVME_FDP_H

#include "hw/nvme/cmd_int.h"

bool nvme_fdp_init(struct nvme_fdp *f, struct err *e) MUST_CHECK;
void nvme_fdp_fini(struct nvme_fdp *f);
/* @text: fdp.ruhs= or NULL. */
bool nvme_fdp_handles(struct nvme_ns *ns, const char *text, struct err *e) MUST_CHECK;
uint16_t nvme_fdp_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_fdp_set(struct nvme_req *r, uint32_t v);
uint16_t nvme_fdp_events_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_fdp_events_set(struct nvme_req *r, uint32_t v);
/* A write of @nlb blocks is counted where it is placed: by @pid if @placed, else by the namespace's first handle. */
void nvme_fdp_write(struct nvme_req *r, uint64_t nlb, bool placed, uint16_t pid);
/* The four pages about placement. */
uint16_t nvme_fdp_log(struct nvme_req *r, struct str *s);

#endif
