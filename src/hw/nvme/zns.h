/* SPDX-License-Identifier: MIT */
/* Zoned namespaces (Zoned Namespace Command Set 1.1), as seen from the data path. */
#ifndef HW_NVME_ZNS_H
#define HW_NVME_ZNS_H

#include "hw/nvme/nvme.h"

/* Whether [slba, slba + nlb) may be read. */
uint16_t nvme_zone_check_read(struct nvme_ns *ns, uint64_t slba, uint64_t nlb);
/* Before a write: the zone takes it, or why not. Appends learn their place. Then, whatever became of it, _end. */
uint16_t nvme_zone_write_begin(struct nvme_req *r, uint64_t *slba, uint64_t nlb, bool append);
void nvme_zone_write_end(struct nvme_ns *ns, uint64_t slba, uint64_t nlb);
/* Zone append: the command names the zone's first block; its length is within ZASL. */
uint16_t nvme_zone_append_at(struct nvme_req *r);

/* What a zone does without a host's command (Zoned 2.1.1.4.2, 4.1.2). */
enum nvme_zone_fault {
    NVME_ZONE_NO_FAULT, NVME_ZONE_FINISHED, NVME_ZONE_READ_ONLY_NOW, NVME_ZONE_OFFLINE_NOW, NVME_ZONE_RESET_ADVISED, NVME_ZONE_FINISH_ADVISED
};
/* The zone that holds @slba does; controllers that have the namespace are told. ANY, no subsystem lock held. */
void nvme_zone_changes_itself(struct nvme_ns *ns, uint64_t slba, enum nvme_zone_fault what);
uint16_t nvme_log_changed_zones(struct nvme_req *r, struct str *s);
/* The host of @n knows all zones. */
void nvme_zones_seen(struct nvme *n);

#endif
