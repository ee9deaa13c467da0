/* SPDX-License-Identifier: MIT */
/* The persistent event log of a subsystem. A controller's domain lock held, the subsystem's not, where nothing else is said. */
#ifndef HW_NVME_PEL_H
#define HW_NVME_PEL_H

#include "hw/nvme/maint.h"

enum { NVME_PEL_SMART = 1, NVME_PEL_FW_COMMIT, NVME_PEL_TIMESTAMP, NVME_PEL_RESET, NVME_PEL_HW_ERROR, NVME_PEL_NAMESPACE, NVME_PEL_FORMAT_START,
       NVME_PEL_FORMAT_END, NVME_PEL_SANITIZE_START, NVME_PEL_SANITIZE_END, NVME_PEL_SET_FEATURE, NVME_PEL_TELEMETRY, NVME_PEL_THERMAL };
enum { NVME_HW_WARNING = 6, NVME_HW_UNSAFE_SHUTDOWN = 8, NVME_HW_FATAL = 9, NVME_HW_MEDIA = 10 };      /* of NVME_PEL_HW_ERROR */

/* @data: the event's own bytes, at most 5000. */
void nvme_pel_add(struct nvme *n, uint8_t type, const void *data, size_t len);
/* The controller was reset: an event, and its reporting context ends. */
void nvme_pel_reset(struct nvme *n);
/* What went wrong, NVME_HW_*; once, if it is the same as the event before. */
void nvme_pel_error(struct nvme *n, uint16_t code);
/* The health log as it is now. */
void nvme_pel_health(struct nvme *n);
/* Namespace Management changed @nsid; @made: what it is now, NULL: deleted. */
void nvme_pel_namespace(struct nvme_req *r, uint32_t nsid, const struct nvme_ns *made);
/* Set Features: its first @dwords from dword 10 on, and the @len bytes that came with it, at most a page. */
void nvme_pel_feature(struct nvme_req *r, unsigned dwords, const void *data, uint16_t len);
/* A reporting context that this controller established is no more. */
void nvme_pel_release(struct nvme *n);
uint16_t nvme_pel_log(struct nvme_req *r, struct str *s);

/* @live: with the reporting context. Subsystem's lock held, or nobody uses it yet. */
json_t *nvme_pel_to_json(const struct nvme_pel *p, bool live);
void nvme_pel_from_json(struct nvme_pel *p, json_t *o);
void nvme_pel_free(struct nvme_pel *p);

#endif
