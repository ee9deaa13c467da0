/* SPDX-License-Identifier: MIT */
/* Physical region pages (Base 2.0, section 4.1.1): entries are copied once, then looked at. */
#include "hw/nvme/nvme.h"

#define LIST_CHUNK 64u

static uint16_t map_piece(struct dma_vec *v, uint64_t addr, uint64_t len)
{
    return dma_map(v, addr, len) ? NVME_OK : NVME_DATA_TRANSFER;
}

/* The list that PRP2 points to: the last entry of a page that does not end it points to the next page. */
static uint16_t map_list(struct nvme *n, struct dma_vec *v, uint64_t list, uint64_t len)
{
    uint32_t page = nvme_page(n);
    uint64_t ent[LIST_CHUNK];

    if (list & 7)
        return NVME_PRP_OFFSET | NVME_DNR;
    while (len) {
        uint64_t in_page = (page - (list & (page - 1))) / 8, need = (len + page - 1) / page;
        unsigned count = (unsigned)MIN(MIN(in_page, need), LIST_CHUNK), i = 0;

        if (!dma_read(&n->pci.dma, list, ent, count * 8))
            return NVME_DATA_TRANSFER;
        bool chained = count == in_page && need > in_page;
        for (; len && i < count - chained; i++) {
            uint64_t addr = le64toh(ent[i]), part = MIN(len, page);
            uint16_t st = addr & (page - 1) ? NVME_PRP_OFFSET | NVME_DNR : map_piece(v, addr, part);

            if (st)
                return st;
            len -= part;
        }
        list = chained ? le64toh(ent[count - 1]) : list + i * 8;
        if (chained && list & (page - 1))
            return NVME_PRP_OFFSET | NVME_DNR;
    }
    return NVME_OK;
}

static uint16_t map_into(struct nvme *n, struct dma_vec *v, uint64_t prp1, uint64_t prp2, uint64_t len)
{
    uint32_t page = nvme_page(n);
    uint64_t first = MIN(len, page - (prp1 & (page - 1)));
    uint16_t st;

    if (prp1 & 3)
        return NVME_PRP_OFFSET | NVME_DNR;
    st = map_piece(v, prp1, first);
    len -= first;
    if (st || !len)
        return st;
    if (len > page)
        return map_list(n, v, prp2, len);
    return prp2 & (page - 1) ? NVME_PRP_OFFSET | NVME_DNR : map_piece(v, prp2, len);
}

uint16_t nvme_map(struct nvme_req *r, uint64_t len, bool dev_writes)
{
    struct dma_vec *v = dev_writes ? &r->in : &r->out;

    if (r->cmd.flags >> 6)
        return NVME_INVALID_FIELD | NVME_DNR;           /* SGLs are not claimed */
    if (!len)
        return NVME_OK;
    return map_into(r->n, v, le64toh(r->cmd.prp1), le64toh(r->cmd.prp2), len);
}

uint16_t nvme_to_host(struct nvme_req *r, const void *buf, uint64_t len)
{
    uint16_t st = nvme_map(r, len, true);
    const uint8_t *p = buf;

    for (unsigned i = 0; !st && i < r->in.n; i++) {
        memcpy(r->in.iov[i].iov_base, p, r->in.iov[i].iov_len);
        p += r->in.iov[i].iov_len;
    }
    dma_unmap(&r->in, st ? 0 : len);
    return st;
}

uint16_t nvme_from_host(struct nvme_req *r, void *buf, uint64_t len)
{
    uint16_t st = nvme_map(r, len, false);
    uint8_t *p = buf;

    for (unsigned i = 0; !st && i < r->out.n; i++) {
        memcpy(p, r->out.iov[i].iov_base, r->out.iov[i].iov_len);
        p += r->out.iov[i].iov_len;
    }
    dma_unmap(&r->out, 0);
    return st;
}
