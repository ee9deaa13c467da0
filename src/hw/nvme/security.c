/* SPDX-License-Identifier: MIT */
/* Security Send and Receive (5.25, 5.26). The only protocol is 00h, which tells so (SPC-5, 7.7.1.3): nothing here locks. */
#include "hw/nvme/cmd_int.h"

#define PROTOCOL_INFORMATION 0x00

/* By the security protocol specific field: protocols, certificates, compliance. */
static const struct { uint16_t spsp; uint8_t len, data[9]; } pages[] = {
    { 0x0000, 9, { [7] = 1, [8] = PROTOCOL_INFORMATION } },
    { 0x0001, 4, { 0 } },
    { 0x0002, 4, { 0 } },
};

uint16_t co_nvme_security_receive(struct nvme_req *r)
{
    uint32_t protocol = r->cmd.cdw10 >> 24, spsp = r->cmd.cdw10 >> 8 & 0xffff, len = r->cmd.cdw11;

    if (protocol != PROTOCOL_INFORMATION || len > nvme_max_transfer(r->n))
        return NVME_INVALID_FIELD | NVME_DNR;
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        if (pages[i].spsp == spsp)
            return len ? nvme_to_host_part(r, pages[i].data, pages[i].len, 0, len) : NVME_OK;
    return NVME_INVALID_FIELD | NVME_DNR;
}

/* Protocol 00h is for receiving only. */
uint16_t co_nvme_security_send(struct nvme_req *r) { return NVME_INVALID_FIELD | NVME_DNR; }
