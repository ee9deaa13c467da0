/* SPDX-License-Identifier: MIT */
/* Commands that move data (NVM Command Set 3.2). */
#include <errno.h>
#include "base/log.h"
#include "hw/nvme/cmd_int.h"

#define CHUNK (256 * KiB)               /* of what is read and looked at, not given to the host */
#define DSM_RANGES 256u
#define FUA (1u << 30)
#define DEALLOCATE (1u << 25)

uint16_t nvme_status_of(struct nvme_req *r, int error, bool read)
{
    if (!error)
        return NVME_OK;
    if (error == -EROFS)
        return NVME_WRITE_PROTECTED | NVME_DNR;
    switch (r->ns ? blk_error_action(r->ns->unit->blk, read, -error) : BLK_ACT_REPORT) {
    case BLK_ACT_IGNORE: return NVME_OK;
    case BLK_ACT_STOP: r->park = true; break;
    case BLK_ACT_REPORT: break;
    }
    if (error == -ENOSPC)
        return NVME_CAPACITY;
    return read ? NVME_READ_FAULT : NVME_WRITE_FAULT;
}

uint16_t nvme_io_allowed(struct nvme_req *r, const struct nvme_op *op)
{
    struct nvme_ns *ns = r->ns;

    if (ns->formatting)
        return NVME_FORMAT_BUSY;
    if (op->flags & NVME_OP_WRITES && (ns->write_protect || ns->unit->caps.read_only))
        return NVME_WRITE_PROTECTED | NVME_DNR;
    return NVME_OK;
}

/* The range of a command, checked; bytes of the unit. */
static uint16_t io_range(const struct nvme_req *r, uint64_t *off, uint64_t *len)
{
    const struct nvme_ns *ns = r->ns;

    if (!range_ok(nvme_slba(&r->cmd), nvme_nlb(&r->cmd), ns->nsze))
        return NVME_LBA_RANGE | NVME_DNR;
    *off = ns->base + (nvme_slba(&r->cmd) << ns->shift);
    *len = nvme_nlb(&r->cmd) << ns->shift;
    return NVME_OK;
}

static uint16_t co_read(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    uint64_t off, len;
    uint16_t st = io_range(r, &off, &len);

    if (!st && len > nvme_max_transfer(r->n))
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (!st)
        st = nvme_map(r, len, true);
    if (st)
        return st;
    r->n->reads++;
    atomic_fetch_add_explicit(&ns->units_read, len >> 9, memory_order_relaxed);
    return nvme_status_of(r, co_blk_preadv(ns->unit->blk, off, len, r->data.iov, r->data.n, 0), true);
}

static uint16_t co_write(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    unsigned fl = r->cmd.cdw12 & FUA || !r->n->feat[NVME_FEAT_WRITE_CACHE] ? BLK_FUA : 0;
    uint64_t off, len;
    uint16_t st = io_range(r, &off, &len);

    if (!st && len > nvme_max_transfer(r->n))
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (!st)
        st = nvme_map(r, len, false);
    if (st)
        return st;
    r->n->writes++;
    atomic_fetch_add_explicit(&ns->units_written, len >> 9, memory_order_relaxed);
    return nvme_status_of(r, co_blk_pwritev(ns->unit->blk, off, len, r->data.iov, r->data.n, fl), false);
}

static uint16_t co_write_zeroes(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    unsigned fl = (r->cmd.cdw12 & DEALLOCATE && ns->unit->caps.discard ? BLK_ZERO_UNMAP : 0) | (r->cmd.cdw12 & FUA ? BLK_FUA : 0);
    uint64_t off, len;
    uint16_t st = io_range(r, &off, &len);

    return st ? st : nvme_status_of(r, co_blk_zero(ns->unit->blk, off, len, fl), false);
}

/* True if [at, at + len) of the host's data is not @buf. */
static bool differs(const struct dma_vec *v, uint64_t at, const uint8_t *buf, uint64_t len)
{
    for (unsigned i = 0; i < v->n && len; i++) {
        uint64_t have = v->iov[i].iov_len, part;

        if (at >= have) {
            at -= have;
            continue;
        }
        part = MIN(have - at, len);
        if (memcmp((const uint8_t *)v->iov[i].iov_base + at, buf, part))
            return true;
        buf += part;
        len -= part;
        at = 0;
    }
    return false;
}

/* Verify reads and forgets, Compare looks at what was read. */
static uint16_t co_check(struct nvme_req *r, bool compare)
{
    struct nvme_ns *ns = r->ns;
    uint64_t off, len;
    uint16_t st = io_range(r, &off, &len);
    uint8_t *buf;

    if (!st && len > nvme_max_transfer(r->n))
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (!st && compare)
        st = nvme_map(r, len, false);
    if (st)
        return st;
    buf = nvme_bounce(r, MIN(len, CHUNK));
    if (!buf)
        return NVME_INTERNAL;
    for (uint64_t at = 0; !st && at < len && !r->abort; at += CHUNK) {
        struct iovec iov = { buf, MIN(CHUNK, len - at) };

        st = nvme_status_of(r, co_blk_preadv(ns->unit->blk, off + at, iov.iov_len, &iov, 1, 0), true);
        if (!st && compare && differs(&r->data, at, buf, iov.iov_len))
            st = NVME_COMPARE_FAILED | NVME_DNR;
    }
    return st;
}

static uint16_t co_compare(struct nvme_req *r) { return co_check(r, true); }
static uint16_t co_verify(struct nvme_req *r) { return co_check(r, false); }

static uint16_t co_dsm(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    unsigned count = (r->cmd.cdw10 & 0xff) + 1;
    struct nvme_dsm_range g[DSM_RANGES];
    uint16_t st = nvme_from_host(r, g, count * sizeof *g);
    bool discard = r->cmd.cdw11 & 4;

    for (unsigned i = 0; !st && i < count; i++)
        if (!range_ok(le64toh(g[i].slba), le32toh(g[i].nlb), ns->nsze))
            st = NVME_LBA_RANGE | NVME_DNR;
    for (unsigned i = 0; !st && discard && i < count && !r->abort; i++)
        if (g[i].nlb)
            st = nvme_status_of(r, co_blk_discard(ns->unit->blk, ns->base + (le64toh(g[i].slba) << ns->shift),
                                                  (uint64_t)le32toh(g[i].nlb) << ns->shift), false);
    return st;
}

uint16_t co_nvme_flush_all(struct nvme *n)
{
    int e = 0;

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_get(n, i);
        int one = ns ? co_blk_flush(ns->unit->blk) : 0;

        if (ns)
            nvme_ns_put(ns);
        e = e ? e : one;
    }
    return e ? NVME_WRITE_FAULT : NVME_OK;
}

static uint16_t co_flush(struct nvme_req *r)
{
    return r->ns ? nvme_status_of(r, co_blk_flush(r->ns->unit->blk), false) : co_nvme_flush_all(r->n);
}

uint16_t co_nvme_fused(struct nvme_req *r)
{
    r->fused->status = NVME_INVALID_FIELD | NVME_DNR;
    return NVME_FUSED_FAILED | NVME_DNR;
}

#define EFF_LBCC 2u

const struct nvme_op nvme_io_ops[] = {
    { NVME_IO_READ, "read", 0, NVME_OP_NS, co_read },
    { NVME_IO_WRITE, "write", EFF_LBCC, NVME_OP_NS | NVME_OP_WRITES, co_write },
    { NVME_IO_FLUSH, "flush", EFF_LBCC, NVME_OP_NS | NVME_OP_ALL_NS, co_flush },
    { NVME_IO_DSM, "dsm", EFF_LBCC, NVME_OP_NS | NVME_OP_WRITES, co_dsm },
    { NVME_IO_WRITE_ZEROES, "write-zeroes", EFF_LBCC, NVME_OP_NS | NVME_OP_WRITES, co_write_zeroes },
    { NVME_IO_COMPARE, "compare", 0, NVME_OP_NS, co_compare },
    { NVME_IO_VERIFY, "verify", 0, NVME_OP_NS, co_verify },
    { 0, NULL, 0, 0, NULL }
};
