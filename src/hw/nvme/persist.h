/* SPDX-License-Identifier: MIT */
/* The state file of a subsystem. Main loop, where nothing else is said. */
#ifndef HW_NVME_PERSIST_H
#define HW_NVME_PERSIST_H

#include "core/state.h"
#include "hw/nvme/cmd_int.h"

/* @path NULL: nothing is kept. A file that is there is read; one that makes no sense is refused, not overwritten. */
bool nvme_persist_open(struct nvme_subsys *ss, const char *path, struct err *e) MUST_CHECK;
void nvme_persist_close(struct nvme_subsys *ss);
/* Writes now, from the main loop, blocking: at the end of the program. */
void nvme_persist_now(struct nvme_subsys *ss);
/* What the file says of a unit's namespaces: borrowed, a list; NULL: it is new. */
json_t *nvme_persist_unit(const struct nvme_subsys *ss, const struct nvme_unit *u);
/* @u, in which nothing is in flight any more, is about to be closed: its namespaces as they are now are kept. */
void nvme_persist_gone(struct nvme_unit *u);
/* Makes @ns, whose unit and guard format are set, as @o says. */
bool nvme_persist_ns(struct nvme_ns *ns, json_t *o, struct err *e) MUST_CHECK;
/* Saved features, counters, firmware of a controller. */
void nvme_persist_ctrl(struct nvme *n);
/* CO, any loop: returns when what changed before is on the disk. */
void co_nvme_persist_sync(struct nvme_subsys *ss);

json_t *nvme_ns_to_json(struct nvme_ns *ns);
/* The saved state of a machine has all of it, and what runs: live.c. */
extern const struct state_custom nvme_own_live, nvme_subsys_live;

/* Parts, by the files that own them; the subsystem's lock held for saving. New references. */
json_t *nvme_uncor_to_json(const struct nvme_ns *ns);
void nvme_uncor_from_json(struct nvme_ns *ns, json_t *v);
json_t *nvme_zones_to_json(const struct nvme_ns *ns);
/* @live: random write areas, too, which end with the power. */
bool nvme_zones_from_json(struct nvme_ns *ns, json_t *v, bool live, struct err *e) MUST_CHECK;
bool nvme_resv_kept(const struct nvme_ns *ns);
json_t *nvme_resv_to_json(const struct nvme_ns *ns);
void nvme_resv_from_json(struct nvme_ns *ns, json_t *v);
/* The index of a format, added where it is none of the usual. */
unsigned nvme_format_for(struct nvme_ns *ns, uint8_t shift, uint16_t ms);

#endif
