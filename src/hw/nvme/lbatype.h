/* SPDX-License-Identifier: MIT */
/* Feature LBA Range Type (NVM Command Set 4.1.3.1): what a host notes of ranges of a namespace's blocks. */
#ifndef HW_NVME_LBATYPE_H
#define HW_NVME_LBATYPE_H

#include "hw/nvme/nvme.h"

uint16_t nvme_lba_types_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_lba_types_set(struct nvme_req *r, uint32_t v);
/* Back to one range of general use. */
void nvme_lba_types_free(struct nvme_ns *ns);
/* Kept with the namespace; NULL: as it was at first. The subsystem's lock held. */
json_t *nvme_lba_types_to_json(const struct nvme_ns *ns);
/* What makes no sense is left out. */
void nvme_lba_types_from_json(struct nvme_ns *ns, json_t *list);

#endif
