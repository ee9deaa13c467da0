/* SPDX-License-Identifier: MIT */
/* Read, write, compare, verify, write zeroes, flush (NVM Command Set 3.2). Without metadata, data goes straight to its place. */
#include <errno.h>
#include "base/log.h"
#include "hw/nvme/media.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/zns.h"

#define FUA (1u << 30)
#define DEALLOCATE (1u << 25)

uint16_t nvme_status_of(struct nvme_req *r, int error, bool read)
{
    if (likely(!error))
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

/* ---- a command's blocks ---- */

struct io {
    struct nvme_ns *ns;
    uint64_t slba, nlb, off, len;       /* off, len: data, bytes of the unit */
    uint8_t prinfo;
    bool strip;
    uint64_t host;                      /* bytes by the data pointer */
};

/* @host: the command moves data. */
static uint16_t io_of(const struct nvme_req *r, struct io *io, bool host)
{
    struct nvme_ns *ns = r->ns;

    *io = (struct io){ .ns = ns, .slba = nvme_slba(&r->cmd), .nlb = nvme_nlb(&r->cmd), .prinfo = r->cmd.cdw12 >> 26 & 15 };
    if (!range_ok(io->slba, io->nlb, ns->nsze))
        return NVME_LBA_RANGE | NVME_DNR;
    io->off = ns->base + (io->slba << ns->shift);
    io->len = io->nlb << ns->shift;
    io->strip = nvme_strips(ns, io->prinfo);
    io->host = io->len + (ns->extended && !io->strip ? io->nlb * ns->ms : 0);
    return host && (r->n->ctratt_mem ? io->len : io->host) > nvme_max_transfer(r->n) ? NVME_INVALID_FIELD | NVME_DNR : NVME_OK;
}

/* Moves blocks between the host and @data, @meta: together or apart, as the format says. */
static void host_copy(struct nvme_req *r, const struct io *io, uint8_t *data, uint8_t *meta, bool to_host)
{
    const struct nvme_ns *ns = io->ns;
    uint64_t block = UINT64_C(1) << ns->shift;

    if (ns->extended && !io->strip) {
        nvme_vec_blocks(&r->data, data, block, meta, ns->ms, io->nlb, to_host);
    } else if (to_host) {
        nvme_vec_put(&r->data, 0, data, io->len);
        nvme_vec_put(&r->meta, 0, meta, r->meta.len);
    } else {
        nvme_vec_get(&r->data, 0, data, io->len);
        nvme_vec_get(&r->meta, 0, meta, r->meta.len);
    }
}

/* Maps the host's memory, and finds memory of ours for data and metadata. */
static uint16_t map_both(struct nvme_req *r, const struct io *io, bool dev_writes, uint8_t **data, uint8_t **meta)
{
    bool apart = io->ns->ms && !io->ns->extended && !io->strip;
    uint16_t st = nvme_map(r, io->host, dev_writes);

    if (!st && apart)
        st = nvme_map_meta(r, io->nlb * io->ns->ms, dev_writes);
    if (st)
        return st;
    *data = nvme_bounce(r, io->len + io->nlb * io->ns->ms);
    if (!*data)
        return NVME_INTERNAL;
    *meta = *data + io->len;
    return NVME_OK;
}

/* ---- read ---- */

static uint16_t co_read_meta(struct nvme_req *r, const struct io *io)
{
    uint8_t *data, *meta;
    struct pi pi;
    uint16_t st = nvme_pi_of(r, io->ns, io->slba, io->prinfo, &pi);

    if (!st)
        st = map_both(r, io, true, &data, &meta);
    if (!st)
        st = co_nvme_media_read(r, io->ns, io->slba, io->nlb, data, meta);
    if (!st && pi.type)
        st = nvme_pi_check_read(&pi, data, meta, io->nlb);
    if (!st)
        host_copy(r, io, data, meta, true);
    return st;
}

static uint16_t co_read(struct nvme_req *r)
{
    struct io io;
    uint16_t st = io_of(r, &io, true);

    if (!st && io.ns->zones)
        st = nvme_zone_check_read(io.ns, io.slba, io.nlb);
    if (!st && io.ns->dulbe && !co_nvme_allocated(io.ns, io.slba, io.nlb))
        st = NVME_UNWRITTEN | NVME_DNR;
    if (st)
        return st;
    r->n->reads++;
    atomic_fetch_add_explicit(&io.ns->units_read, io.len >> 9, memory_order_relaxed);
    if (io.ns->ms)
        return co_read_meta(r, &io);
    if (nvme_uncor_hit(io.ns, io.slba, io.nlb))
        return NVME_READ_FAULT | NVME_DNR;
    st = nvme_map(r, io.len, true);
    return st ? st : nvme_status_of(r, co_blk_preadv(io.ns->unit->blk, io.off, io.len, r->data.iov, r->data.n, 0), true);
}

/* ---- write ---- */

static uint16_t co_write_meta(struct nvme_req *r, const struct io *io, unsigned fl)
{
    uint8_t *data, *meta;
    struct pi pi;
    uint16_t st = nvme_pi_of(r, io->ns, io->slba, io->prinfo, &pi);

    if (!st)
        st = map_both(r, io, false, &data, &meta);
    if (st)
        return st;
    memset(meta, 0, io->nlb * io->ns->ms);
    host_copy(r, io, data, meta, false);
    if (pi.type && io->prinfo & NVME_PRACT)
        pi_generate(&pi, data, meta, io->nlb);
    else if (pi.type)
        st = nvme_pi_check(&pi, data, meta, io->nlb);
    return st ? st : co_nvme_media_write(r, io->ns, io->slba, io->nlb, data, meta, fl);
}

static uint16_t co_write_blocks(struct nvme_req *r, const struct io *io)
{
    unsigned fl = nvme_write_flags(r, r->cmd.cdw12 & FUA);
    uint16_t st;

    if (io->ns->ms)
        return co_write_meta(r, io, fl);
    st = nvme_map(r, io->len, false);
    if (!st)
        st = nvme_status_of(r, co_blk_pwritev(io->ns->unit->blk, io->off, io->len, r->data.iov, r->data.n, fl), false);
    if (!st)
        nvme_uncor_clear(io->ns, io->slba, io->nlb);
    return st;
}

static uint16_t co_write_any(struct nvme_req *r, bool append)
{
    struct io io;
    uint16_t st = append ? nvme_zone_append_at(r) : NVME_OK;

    if (!st)
        st = io_of(r, &io, true);
    if (!st)
        st = nvme_write_hint(r, io.nlb);
    if (st)
        return st;
    co_nvme_write_begin(io.ns);
    if (io.ns->zones)
        st = nvme_zone_write_begin(r, &io.slba, io.nlb, append);
    if (!st) {
        io.off = io.ns->base + (io.slba << io.ns->shift);
        r->n->writes++;
        atomic_fetch_add_explicit(&io.ns->units_written, io.len >> 9, memory_order_relaxed);
        st = co_write_blocks(r, &io);
        if (io.ns->zones)
            nvme_zone_write_end(io.ns, io.slba, io.nlb);
        if (append)
            r->result = io.slba;
    }
    nvme_write_end(io.ns);
    return st;
}

static uint16_t co_write(struct nvme_req *r) { return co_write_any(r, false); }
static uint16_t co_append(struct nvme_req *r) { return co_write_any(r, true); }

/* 3.2.8. With protection the blocks get tuples where the host asks, or ones that switch checks off. */
static uint16_t co_zeroes_parts(struct nvme_req *r, const struct io *io, unsigned fl)
{
    struct nvme_ns *ns = io->ns;
    struct pi pi;
    uint16_t st = nvme_pi_of(r, ns, io->slba, io->prinfo, &pi);

    if (!st)
        st = nvme_status_of(r, co_blk_zero(ns->unit->blk, io->off, io->len, fl), false);
    if (st)
        return st;
    nvme_uncor_clear(ns, io->slba, io->nlb);
    if (!pi.type || !(io->prinfo & NVME_PRACT))
        return co_nvme_meta_fill(r, ns, io->slba, io->nlb, pi.type ? 0xff : 0);
    uint64_t chunk = MAX((256 * KiB) >> ns->shift, 1u);
    uint8_t *data = nvme_bounce(r, (chunk << ns->shift) + chunk * ns->ms);
    for (uint64_t at = 0; data && !st && at < io->nlb && !r->abort; at += chunk) {
        uint64_t n = MIN(chunk, io->nlb - at);
        uint8_t *meta = data + (chunk << ns->shift);

        memset(data, 0, (chunk << ns->shift) + chunk * ns->ms);
        pi_generate(&pi, data, meta, n);
        pi.ref += pi.type == 3 ? 0 : n;
        st = co_nvme_media_write(r, ns, io->slba + at, n, data, meta, 0);
    }
    return data ? st : NVME_INTERNAL;
}

/* With metadata it goes in pieces: one flush makes all of them last. */
static uint16_t co_zeroes(struct nvme_req *r, const struct io *io)
{
    struct nvme_ns *ns = io->ns;
    unsigned unmap = r->cmd.cdw12 & DEALLOCATE && ns->unit->caps.discard ? BLK_ZERO_UNMAP : 0, fua = nvme_write_flags(r, r->cmd.cdw12 & FUA);
    uint16_t st = co_zeroes_parts(r, io, unmap | (ns->ms ? 0 : fua));

    return st || !ns->ms || !fua ? st : nvme_status_of(r, co_blk_flush(ns->unit->blk), false);
}

static uint16_t co_write_zeroes(struct nvme_req *r)
{
    struct io io;
    uint16_t st = io_of(r, &io, false);

    if (st)
        return st;
    co_nvme_write_begin(io.ns);
    if (io.ns->zones)
        st = nvme_zone_write_begin(r, &io.slba, io.nlb, false);
    if (!st) {
        st = co_zeroes(r, &io);
        if (io.ns->zones)
            nvme_zone_write_end(io.ns, io.slba, io.nlb);
    }
    nvme_write_end(io.ns);
    return st;
}

/* ---- compare, verify ---- */

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

/* Metadata that is protection information only is checked, not compared (3.2.1): guards of equal data are equal. */
static bool meta_differs(struct nvme_req *r, const struct io *io, const uint8_t *data, const uint8_t *meta)
{
    const struct nvme_ns *ns = io->ns;
    uint64_t block = UINT64_C(1) << ns->shift, pi = ns->pi ? pi_size(ns->pif) : 0, skip = ns->pi && ns->pil ? pi : 0, n = ns->ms - pi;
    bool bad = false;

    for (uint64_t i = 0; i < io->nlb && !bad; i++) {
        if (ns->extended && !io->strip)
            bad = differs(&r->data, i * (block + ns->ms), data + i * block, block) ||
                  differs(&r->data, i * (block + ns->ms) + block + skip, meta + i * ns->ms + skip, n);
        else
            bad = differs(&r->data, i * block, data + i * block, block) ||
                  (!io->strip && differs(&r->meta, i * ns->ms + skip, meta + i * ns->ms + skip, n));
    }
    return bad;
}

static uint16_t co_compare_blocks(struct nvme_req *r, const struct io *io)
{
    uint8_t *data, *meta;
    struct pi pi;
    uint16_t st = nvme_pi_of(r, io->ns, io->slba, io->prinfo, &pi);

    if (!st)
        st = map_both(r, io, false, &data, &meta);
    if (!st)
        st = co_nvme_media_read(r, io->ns, io->slba, io->nlb, data, meta);
    if (!st && pi.type)
        st = nvme_pi_check_read(&pi, data, meta, io->nlb);
    if (!st && meta_differs(r, io, data, meta))
        st = NVME_COMPARE_FAILED | NVME_DNR;
    return st;
}

static uint16_t co_compare(struct nvme_req *r)
{
    struct io io;
    uint16_t st = io_of(r, &io, true);

    if (!st && io.ns->zones)
        st = nvme_zone_check_read(io.ns, io.slba, io.nlb);
    return st ? st : co_compare_blocks(r, &io);
}

/* 3.2.6. */
static uint16_t co_verify(struct nvme_req *r)
{
    struct io io;
    struct pi pi;
    uint16_t st = io_of(r, &io, false);
    uint64_t chunk;
    uint8_t *data;

    if (!st)
        st = nvme_pi_of(r, io.ns, io.slba, io.prinfo, &pi);
    if (!st && r->n->vsl && io.len > (uint64_t)NVME_PAGE << r->n->vsl)
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (!st && io.ns->zones)
        st = nvme_zone_check_read(io.ns, io.slba, io.nlb);
    if (st)
        return st;
    chunk = MAX((256 * KiB) >> io.ns->shift, 1u);
    data = nvme_bounce(r, (chunk << io.ns->shift) + chunk * io.ns->ms);
    if (!data)
        return NVME_INTERNAL;
    for (uint64_t at = 0; !st && at < io.nlb; at += chunk) {
        uint64_t n = MIN(chunk, io.nlb - at);
        uint8_t *meta = data + (chunk << io.ns->shift);

        if (r->abort)
            return NVME_ABORT_REQUESTED;
        st = co_nvme_media_read(r, io.ns, io.slba + at, n, data, meta);
        if (!st && pi.type)
            st = nvme_pi_check_read(&pi, data, meta, n);
        pi.ref += pi.type == 3 ? 0 : n;
    }
    return st;
}

/* ---- fused compare and write, 3.4.2 of the base specification ---- */

uint16_t co_nvme_fused(struct nvme_req *r)
{
    struct nvme_req *first = r->fused;
    struct io a, b;
    uint16_t st = NVME_OK;

    if (first->cmd.opcode != NVME_IO_COMPARE || r->cmd.opcode != NVME_IO_WRITE || r->ns->zones || r->ns->kv)
        st = NVME_INVALID_FIELD | NVME_DNR;
    first->ns = r->ns;
    if (!st)
        st = io_of(first, &a, true);
    if (!st)
        st = io_of(r, &b, true);
    if (!st && (a.slba != b.slba || a.nlb != b.nlb || first->cmd.nsid != r->cmd.nsid))
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (!st) {
        co_nvme_alone_begin(r->ns);
        first->status = co_compare_blocks(first, &a);
        if (!first->status)
            st = co_write_blocks(r, &b);
        nvme_alone_end(r->ns);
    } else {
        first->status = st;
    }
    first->ns = NULL;
    if (!first->status && st)
        first->status = NVME_FUSED_FAILED;
    return first->status && !st ? NVME_FUSED_FAILED : st;
}

/* ---- flush ---- */

uint16_t co_nvme_flush_all(struct nvme *n)
{
    int e = 0;

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_get(n, i);
        int one = ns ? co_blk_flush(ns->unit->blk) : 0;         /* of keys and values, too: checksums tell what lasts */

        if (ns)
            nvme_ns_put(ns);
        e = e ? e : one;
    }
    co_nvme_persist_sync(n->ss);
    return e ? NVME_WRITE_FAULT : NVME_OK;
}

static uint16_t co_flush(struct nvme_req *r)
{
    uint16_t st;

    if (!r->ns)
        return co_nvme_flush_all(r->n);
    st = nvme_status_of(r, co_blk_flush(r->ns->unit->blk), false);
    co_nvme_persist_sync(r->n->ss);
    return st;
}

#define EFF_LBCC 2u
#define NS NVME_OP_NS
#define W NVME_OP_WRITES

const struct nvme_op nvme_io_ops[] = {
    { NVME_IO_READ, "read", 0, NS | NVME_OP_READS | NVME_OP_DATA | NVME_OP_RANGE, co_read },
    { NVME_IO_WRITE, "write", EFF_LBCC, NS | W | NVME_OP_DATA | NVME_OP_RANGE, co_write },
    { NVME_IO_FLUSH, "flush", EFF_LBCC, NS | NVME_OP_ALL_NS, co_flush },
    { NVME_IO_DSM, "dsm", EFF_LBCC, NS | W, co_nvme_dsm },
    { NVME_IO_WRITE_ZEROES, "write-zeroes", EFF_LBCC, NS | W | NVME_OP_RANGE, co_write_zeroes },
    { NVME_IO_COMPARE, "compare", 0, NS | NVME_OP_READS | NVME_OP_DATA | NVME_OP_RANGE, co_compare },
    { NVME_IO_VERIFY, "verify", 0, NS | NVME_OP_READS | NVME_OP_RANGE, co_verify },
    { NVME_IO_WRITE_UNCOR, "write-uncorrectable", EFF_LBCC, NS | W | NVME_OP_RANGE, co_nvme_write_uncor },
    { NVME_IO_COPY, "copy", EFF_LBCC, NS | W, co_nvme_copy },
    { NVME_IO_RESV_REGISTER, "reservation-register", 0, NS, co_nvme_resv_register },
    { NVME_IO_RESV_REPORT, "reservation-report", 0, NS, co_nvme_resv_report },
    { NVME_IO_RESV_ACQUIRE, "reservation-acquire", 0, NS, co_nvme_resv_acquire },
    { NVME_IO_RESV_RELEASE, "reservation-release", 0, NS, co_nvme_resv_release },
    { NVME_IO_ZONE_SEND, "zone-send", EFF_LBCC, NS | NVME_OP_ZONED, co_nvme_zone_send },
    { NVME_IO_ZONE_RECV, "zone-receive", 0, NS | NVME_OP_ZONED, co_nvme_zone_recv },
    { NVME_IO_ZONE_APPEND, "zone-append", EFF_LBCC, NS | W | NVME_OP_ZONED | NVME_OP_DATA, co_append },
    { NVME_IO_MGMT_RECV, "io-receive", 0, NS, co_nvme_io_recv },
    { NVME_IO_MGMT_SEND, "io-send", 0, NS, co_nvme_io_send },
    { 0, NULL, 0, 0, NULL }
};
