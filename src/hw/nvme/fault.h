/* SPDX-License-Identifier: MIT */
/* Faults on purpose: rules that commands are matched against. Domain lock held, but where said. */
#ifndef HW_NVME_FAULT_H
#define HW_NVME_FAULT_H

#include "hw/nvme/nvme.h"

struct nvme_fault;

/* The rule that @r meets now, counted; NULL: none. */
struct nvme_fault *nvme_fault_match(struct nvme_req *r);
/* Before the command is executed: waits, fails the controller, or gives a status; NVME_OK: go on. */
uint16_t co_nvme_fault_before(struct nvme_req *r, struct nvme_fault *f);
/* After it: data on its way to the host is damaged. */
void nvme_fault_after(struct nvme_req *r);
/* From the JSON of the option, checked. Main loop. Called with the rules of a running controller, too. */
bool nvme_faults_set(struct nvme *n, json_t *list, struct err *e) MUST_CHECK;
/* link=: what the option says happens. Main loop. */
extern const char *const nvme_link_names[];
void nvme_link_apply(struct nvme *n);
void nvme_faults_free(struct nvme *n);

/* Of the rules, in the saved state. */
extern const struct state_custom nvme_fault_progress;

#endif
