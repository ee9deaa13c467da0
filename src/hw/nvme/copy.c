/* SPDX-License-Identifier: MIT */
/* Copy, dataset management, write uncorrectable, LBA status (NVM Command Set 3.2.2, 3.2.3, 3.2.7, 4.2.1). */
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/atomic.h"
#include "hw/nvme/media.h"
#include "hw/nvme/notice.h"
#include "hw/nvme/zns.h"

#define DSM_RANGES 256u
#define COPY_CHUNK (256 * KiB)
#define FUA (1u << 30)

/* Not in the middle of an atomic write; before co_nvme_write_begin(), as for all commands. */
static bool co_range_shared(struct nvme_req *r, struct range_claim *g, uint64_t slba, uint64_t nlb)
{
    g->len = 0;
    return !nvme_ranges_on(r->ns) || co_nvme_range_begin(r, r->ns, g, slba, nlb, false);
}

static void range_shared_end(struct nvme_ns *ns, struct range_claim *g)
{
    if (g->len)
        nvme_range_end(ns, g);
}

/* ---- copy ---- */

struct source {
    struct nvme_ns *ns;                 /* counted */
    uint64_t slba, nlb;
    uint16_t app, app_mask;
    uint64_t ref, storage;
};

/* Takes the tags of a long descriptor: storage and reference tag as one number. */
static void long_tags(const struct nvme_ns *ns, const uint8_t *p, struct source *s)
{
    unsigned all = ns->pif == PIF_32 ? 80 : 48, bits = all - ns->sts;
    unsigned __int128 v = 0;

    for (unsigned i = 0; i < 10; i++)
        v = v << 8 | p[i];
    v &= ((unsigned __int128)1 << all) - 1;
    s->storage = ns->sts ? (uint64_t)(v >> bits) : 0;
    s->ref = (uint64_t)v & (bits >= 64 ? UINT64_MAX : BIT64(bits) - 1);
}

static void parse(const struct nvme_ns *ns, const uint8_t *p, unsigned format, struct source *s)
{
    struct nvme_copy_range c;

    memcpy(&c, p, sizeof c);
    s->slba = le64toh(c.slba);
    s->nlb = le16toh(c.nlb) + UINT64_C(1);
    if (format & 1) {
        long_tags(ns, p + 26, s);
        s->app = ld_le16(p + 36);
        s->app_mask = ld_le16(p + 38);
    } else {
        s->ref = le32toh(c.ref);
        s->app = le16toh(c.app);
        s->app_mask = le16toh(c.app_mask);
    }
}

/* Where a range comes from: formats 2 and 3 name a namespace. */
static uint16_t source_ns(struct nvme_req *r, const uint8_t *p, unsigned format, struct source *s)
{
    uint32_t nsid = format >= 2 ? ld_le32(p) : r->cmd.nsid;
    const struct nvme_ns *to = r->ns;

    if (!nsid || nsid > NVME_NS_MAX)
        return NVME_INVALID_NSID | NVME_DNR;
    s->ns = nvme_ns_get(r->n, nsid);
    if (!s->ns)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (s->ns->shift != to->shift || s->ns->ms != to->ms || s->ns->pi != to->pi || s->ns->pif != to->pif || s->ns->pil != to->pil || s->ns->kv)
        return NVME_INCOMPATIBLE | NVME_DNR;
    if (s->nlb > s->ns->mssrl)
        return NVME_SIZE_LIMIT | NVME_DNR;
    if (!range_ok(s->slba, s->nlb, s->ns->nsze))
        return NVME_LBA_RANGE | NVME_DNR;
    return s->ns->zones ? nvme_zone_check_read(s->ns, s->slba, s->nlb) : NVME_OK;
}

/* One range to @slba, in pieces. */
static uint16_t co_copy_range(struct nvme_req *r, const struct source *s, uint64_t slba, struct pi *wr)
{
    uint32_t dw12 = r->cmd.cdw12;
    uint8_t prinfor = dw12 >> 12 & 15, prinfow = dw12 >> 26 & 15;
    uint64_t chunk = MAX(COPY_CHUNK >> s->ns->shift, 1u);
    uint8_t *data = nvme_bounce(r, (chunk << s->ns->shift) + chunk * s->ns->ms), *meta = data + (chunk << s->ns->shift);
    struct pi rd = *wr;
    uint16_t st = data ? NVME_OK : NVME_INTERNAL;

    rd.checks = prinfor;
    rd.app = s->app;
    rd.app_mask = s->app_mask;
    rd.ref = s->ref;
    rd.storage = s->storage;
    for (uint64_t at = 0; !st && at < s->nlb; at += chunk) {
        uint64_t n = MIN(chunk, s->nlb - at);

        if (r->abort)
            return NVME_ABORT_REQUESTED;
        st = co_nvme_media_read(r, s->ns, s->slba + at, n, data, meta);
        if (!st && rd.type)
            st = nvme_pi_check_read(&rd, data, meta, n);
        if (!st && wr->type && prinfow & NVME_PRACT)
            pi_generate(wr, data, meta, n);
        else if (!st && wr->type)
            st = nvme_pi_check(wr, data, meta, n);
        if (!st)
            st = co_nvme_media_write(r, r->ns, slba + at, n, data, meta, nvme_write_flags(r, dw12 & FUA));
        rd.ref += rd.type == 3 ? 0 : n;
        wr->ref += wr->type == 3 ? 0 : n;
    }
    return st;
}

static uint16_t co_copy_ranges(struct nvme_req *r, const uint8_t *list, unsigned count, unsigned format, struct pi *wr)
{
    unsigned size = format & 1 ? NVME_COPY_RANGE_LONG : sizeof(struct nvme_copy_range);
    uint64_t to = nvme_slba(&r->cmd);
    uint16_t st = NVME_OK;

    for (unsigned i = 0; !st && i < count; i++) {
        struct source s = { 0 };

        r->result = i;                  /* the first that was not copied */
        parse(r->ns, list + i * size, format, &s);
        st = source_ns(r, list + i * size, format, &s);
        if (!st)
            st = co_copy_range(r, &s, to, wr);
        to += s.nlb;
        if (s.ns)
            nvme_ns_put(s.ns);
    }
    return st;
}

/* Sizes are known before anything is written. */
static uint16_t copy_check(const struct nvme_req *r, const uint8_t *list, unsigned count, unsigned format, uint64_t *total)
{
    const struct nvme_ns *ns = r->ns;
    unsigned size = format & 1 ? NVME_COPY_RANGE_LONG : sizeof(struct nvme_copy_range);

    *total = 0;
    for (unsigned i = 0; i < count; i++)
        *total += ld_le16(list + i * size + 16) + UINT64_C(1);
    if (*total > ns->mcl)
        return NVME_SIZE_LIMIT | NVME_DNR;
    return range_ok(nvme_slba(&r->cmd), *total, ns->nsze) ? NVME_OK : NVME_LBA_RANGE | NVME_DNR;
}

uint16_t co_nvme_copy(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    unsigned count = (r->cmd.cdw12 & 0xff) + 1, format = r->cmd.cdw12 >> 8 & 15;
    uint64_t slba = nvme_slba(&r->cmd), total = 0;
    uint8_t list[256 * NVME_COPY_RANGE_LONG];
    struct range_claim g;
    struct pi wr;
    uint16_t st;

    if (format > 3 || (format >= 2 && !(r->n->host_behavior[NVME_CDFE] >> format & 1)) || (ns->pi && (format & 1) != (ns->pif != PIF_16)))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (count > ns->msrc + 1u)
        return NVME_SIZE_LIMIT | NVME_DNR;
    st = nvme_pi_of(r, ns, slba, r->cmd.cdw12 >> 26 & 15, &wr);
    if (!st)
        st = nvme_from_host(r, list, count * (format & 1 ? NVME_COPY_RANGE_LONG : sizeof(struct nvme_copy_range)));
    if (!st)
        st = copy_check(r, list, count, format, &total);
    if (!st)
        st = nvme_write_hint(r, total);
    if (st)
        return st;
    if (!co_range_shared(r, &g, slba, total))
        return NVME_ABORT_REQUESTED;
    co_nvme_write_begin(ns);
    if (ns->zones)
        st = nvme_zone_write_begin(r, &slba, total, false);
    if (!st) {
        st = co_copy_ranges(r, list, count, format, &wr);
        if (ns->zones)
            nvme_zone_write_end(ns, slba, total);
    }
    nvme_write_end(ns);
    range_shared_end(ns, &g);
    if (!st)
        r->result = 0;
    return st;
}

/* ---- dataset management ---- */

static uint16_t co_deallocate(struct nvme_req *r, uint64_t slba, uint64_t nlb)
{
    struct nvme_ns *ns = r->ns;
    struct range_claim g;
    uint16_t st;

    if (!co_range_shared(r, &g, slba, nlb))
        return NVME_ABORT_REQUESTED;
    co_nvme_write_begin(ns);
    st = nvme_status_of(r, co_blk_discard(ns->unit->blk, ns->base + (slba << ns->shift), nlb << ns->shift), false);

    if (!st && ns->unit->caps.discard)
        st = co_nvme_meta_fill(r, ns, slba, nlb, ns->pi ? 0xff : 0);
    nvme_write_end(ns);
    range_shared_end(ns, &g);
    return st;
}

uint16_t co_nvme_dsm(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    unsigned count = (r->cmd.cdw10 & 0xff) + 1;
    struct nvme_dsm_range g[DSM_RANGES];
    uint16_t st = nvme_from_host(r, g, count * sizeof *g);

    for (unsigned i = 0; !st && i < count; i++)
        if (!range_ok(le64toh(g[i].slba), le32toh(g[i].nlb), ns->nsze))
            st = NVME_LBA_RANGE | NVME_DNR;
    if (st || !(r->cmd.cdw11 & 4) || ns->zones)
        return st;                      /* the other attributes are hints that nothing here needs */
    for (unsigned i = 0; !st && i < count; i++) {
        if (r->abort)
            st = NVME_ABORT_REQUESTED;
        else if (g[i].nlb)
            st = co_deallocate(r, le64toh(g[i].slba), le32toh(g[i].nlb));
    }
    return st;
}

/* ---- unreadable blocks ---- */

uint16_t co_nvme_write_uncor(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    uint64_t slba = nvme_slba(&r->cmd), nlb = nvme_nlb(&r->cmd);
    uint16_t st = NVME_OK;

    if (!range_ok(slba, nlb, ns->nsze))
        return NVME_LBA_RANGE | NVME_DNR;
    co_nvme_write_begin(ns);
    if (ns->zones)
        st = nvme_zone_write_begin(r, &slba, nlb, false);
    if (!st && !nvme_uncor_add(ns, slba, nlb))
        st = NVME_INTERNAL;
    if (!st && ns->zones)
        nvme_zone_write_end(ns, slba, nlb);
    nvme_write_end(ns);
    if (!st)
        nvme_lba_alert(ns);
    return st;
}

uint16_t co_nvme_lba_status(struct nvme_req *r)
{
    uint64_t from = nvme_slba(&r->cmd), want = ((uint64_t)r->cmd.cdw12 + 1) * 4, len = r->cmd.cdw13 & 0xffff, start, end, last;
    uint8_t type = (uint8_t)(r->cmd.cdw13 >> 24), b[4096] = { 0 };
    struct nvme_ns *ns = r->ns;
    unsigned n = 0, room;

    if (from >= ns->nsze)
        return NVME_LBA_RANGE | NVME_DNR;
    if ((type != 0x10 && type != 0x11) || want > sizeof b || want < 8)
        return NVME_INVALID_FIELD | NVME_DNR;
    last = len ? MIN(ns->nsze, from + len) : ns->nsze;
    room = (unsigned)((want - 8) / 16);
    while (from < last && nvme_uncor_next(ns, from, &start, &end) && start < last && n < room) {
        uint8_t *d = b + 8 + 16 * n++;

        end = MIN(end, last);
        st_le64(d, start);
        st_le32(d + 8, (uint32_t)MIN(end - start, UINT32_MAX));
        from = end;
    }
    st_le32(b, n);
    b[4] = n == room && from < last && nvme_uncor_next(ns, from, &start, &end) ? 1 : 2;      /* CMPC: incomplete, complete */
    return nvme_to_host(r, b, want);
}
