/* SPDX-License-Identifier: MIT */
/*
 * Security Send and Receive (5.25, 5.26). Protocol 00h tells which others there are (SPC-5, 7.7.1.3): replay protected memory, if the
 * controller has it. Nothing here locks.
 */
#include "hw/nvme/rpmb.h"

#define PROTOCOL_INFORMATION 0x00

/* By the security protocol specific field @spsp: the protocols, no certificates, no compliance. */
static uint16_t information(struct nvme_req *r, uint32_t spsp)
{
    bool rpmb = r->n->rpmb.blk;
    uint8_t b[] = { [7] = rpmb ? 2 : 1, [8] = PROTOCOL_INFORMATION, [9] = NVME_SECURITY_RPMB }, none[4] = { 0 };

    if (spsp > 2)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (!r->cmd.cdw11)
        return NVME_OK;
    return spsp ? nvme_to_host_part(r, none, sizeof none, 0, r->cmd.cdw11) : nvme_to_host_part(r, b, 8u + b[7], 0, r->cmd.cdw11);
}

static bool is_rpmb(const struct nvme_req *r) { return r->n->rpmb.blk && r->cmd.cdw10 >> 8 == (NVME_SECURITY_RPMB << 16 | NVME_SPSP_RPMB); }

uint16_t co_nvme_security_receive(struct nvme_req *r)
{
    if (is_rpmb(r))
        return co_nvme_rpmb_receive(r);
    if (r->cmd.cdw10 >> 24 != PROTOCOL_INFORMATION || r->cmd.cdw11 > nvme_max_transfer(r->n))
        return NVME_INVALID_FIELD | NVME_DNR;
    return information(r, r->cmd.cdw10 >> 8 & 0xffff);
}

/* Protocol 00h is for receiving only. */
uint16_t co_nvme_security_send(struct nvme_req *r) { return is_rpmb(r) ? co_nvme_rpmb_send(r) : NVME_INVALID_FIELD | NVME_DNR; }
