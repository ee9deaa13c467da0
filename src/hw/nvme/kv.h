/* SPDX-License-Identifier: MIT */
/* Key-value namespaces (NVMe Key Value Command Set 1.0): commands and what Identify tells. The store is kv_store.c. */
#ifndef HW_NVME_KV_H
#define HW_NVME_KV_H

#include "hw/nvme/cmd_int.h"

extern const struct nvme_op nvme_kv_ops[];
/* Makes @ns one. Main loop. */
bool nvme_kv_new(struct nvme_ns *ns, const struct nvme_ns_opts *o, struct err *e) MUST_CHECK;
void nvme_kv_free(struct nvme_ns *ns);
/* The medium has other contents now. */
void nvme_kv_forget(struct nvme_ns *ns);
/* CNS 05h of a key-value namespace; reads the store if nobody did. A status. */
uint16_t co_nvme_kv_identify(struct nvme_ns *ns, uint8_t *b);
/* Feature 20h, Key Value Configuration. */
uint16_t nvme_kv_config_get(struct nvme_req *r, enum nvme_select sel);
uint16_t co_nvme_kv_config_set(struct nvme_req *r, uint32_t v);

#endif
