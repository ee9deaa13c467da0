/* SPDX-License-Identifier: MIT */
/* What the files with command handlers share. */
#ifndef HW_NVME_CMD_INT_H
#define HW_NVME_CMD_INT_H

#include "hw/nvme/nvme.h"

/* Whether an I/O command may go to r->ns now: format, write protection, access state, reservations. */
uint16_t nvme_io_allowed(struct nvme_req *r, const struct nvme_op *op);
/* A fused compare and write; r->fused is the compare. Both statuses are set. */
uint16_t co_nvme_fused(struct nvme_req *r);
void nvme_keep_alive(struct nvme *n);

static inline uint64_t nvme_slba(const struct nvme_cmd *c) { return c->cdw10 | (uint64_t)c->cdw11 << 32; }
/* Of a write that the command wants to last (@fua), or that must because the volatile write cache is off (5.27.1.4). */
static inline unsigned nvme_write_flags(const struct nvme_req *r, bool fua) { return fua || !r->n->feat[NVME_FEAT_WRITE_CACHE] ? BLK_FUA : 0; }
static inline uint64_t nvme_nlb(const struct nvme_cmd *c) { return (c->cdw12 & 0xffff) + 1; }

/* A vendor's id as configuration space has it at @off; a virtual function's are its physical function's. */
static inline uint16_t nvme_pci_id(const struct nvme *n, unsigned off) { return ld_le16((n->pci.pf ? n->pci.pf : &n->pci)->config + off); }
static inline const char *nvme_model(const struct nvme *n)
{
    const struct nvme *o = n->pci.pf ? (const struct nvme *)n->pci.pf : n;

    return o->model ? o->model : NVME_MODEL;
}
/* Formats of @ns that the host can be told of: beyond 16 only where it knows how to ask for them (LBAFEE of Host Behavior Support). */
static inline unsigned nvme_formats_seen(const struct nvme *n, const struct nvme_ns *ns)
{
    return n->host_behavior[NVME_LBAFEE] ? ns->n_lbaf : MIN(ns->n_lbaf, NVME_FORMATS);
}
uint8_t nvme_rescap(const struct nvme_ns *ns);
/* 5.16.1.18: false where the feature is not there. */
bool nvme_feature_effects(const struct nvme *n, uint8_t fid, uint32_t *effects);

/* Room for @n more bytes of a log page, zeroed. */
uint8_t *nvme_log_room(struct str *s, size_t n);

/* Handlers in files of their own. */
uint16_t co_nvme_dsm(struct nvme_req *r);
uint16_t co_nvme_write_uncor(struct nvme_req *r);
uint16_t co_nvme_copy(struct nvme_req *r);
uint16_t co_nvme_lba_status(struct nvme_req *r);
uint16_t co_nvme_resv_register(struct nvme_req *r);
uint16_t co_nvme_resv_report(struct nvme_req *r);
uint16_t co_nvme_resv_acquire(struct nvme_req *r);
uint16_t co_nvme_resv_release(struct nvme_req *r);
uint16_t co_nvme_zone_send(struct nvme_req *r);
uint16_t co_nvme_zone_recv(struct nvme_req *r);
uint16_t co_nvme_io_recv(struct nvme_req *r);
uint16_t co_nvme_io_send(struct nvme_req *r);
uint16_t co_nvme_ns_mgmt(struct nvme_req *r);
uint16_t co_nvme_ns_attach(struct nvme_req *r);
uint16_t co_nvme_format(struct nvme_req *r);
uint16_t co_nvme_sanitize(struct nvme_req *r);
uint16_t co_nvme_self_test(struct nvme_req *r);
uint16_t co_nvme_fw_download(struct nvme_req *r);
uint16_t co_nvme_fw_commit(struct nvme_req *r);
uint16_t co_nvme_security_send(struct nvme_req *r);
uint16_t co_nvme_security_receive(struct nvme_req *r);
uint16_t co_nvme_dbbuf(struct nvme_req *r);
uint16_t co_nvme_directive_recv(struct nvme_req *r);
uint16_t co_nvme_directive_send(struct nvme_req *r);
/* A write's directive (8.8): its stream is open from now on, its data is counted where it is placed. */
uint16_t nvme_write_hint(struct nvme_req *r, uint64_t nlb);
/* @n knows nothing of streams on @ns any more; the subsystem's lock held. */
void nvme_streams_forget(const struct nvme *n, struct nvme_ns *ns);
#define NVME_SANICAP (7 | 1u << 30)     /* crypto, block erase, overwrite; media not changed after */
/* Erases a namespace. */
uint16_t co_nvme_erase(struct nvme_req *r, struct nvme_ns *ns);
void nvme_sanitize_log(const struct nvme_subsys *ss, uint8_t *b);     /* 32 bytes and more, zeroed */
/* The controller goes: another one of the subsystem does the rest. */
void nvme_sanitize_hand_over(struct nvme *n);
/* Goes on with a sanitize that this controller runs. */
void nvme_sanitize_resume(struct nvme *n);
/* A unit has left: from the start, over those that are left. The subsystem's lock held. */
void nvme_sanitize_again(struct nvme_subsys *ss);

/* What became of a request to the block layer. */
uint16_t nvme_status_of(struct nvme_req *r, int error, bool read);

#endif
