/* SPDX-License-Identifier: MIT */
/* Zone Management Send and Receive (Zoned 3.4.3, 3.4.2), what Identify tells of zones (4.1.5). */
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/media.h"
#include "hw/nvme/zns_int.h"

enum { ZSA_CLOSE = 1, ZSA_FINISH = 2, ZSA_OPEN = 3, ZSA_RESET = 4, ZSA_OFFLINE = 5, ZSA_SET_EXT = 0x10, ZSA_FLUSH = 0x11 };
#define DESC 64u
#define REPORT_MAX (1u << 20)           /* bytes of one answer */

/* ---- send ---- */

static enum zone_result transition(struct zones *z, struct zone *x, enum zone_op op, bool zrwa)
{
    switch (op) {
    case ZONE_OP_CLOSE: return zone_close(z, x);
    case ZONE_OP_FINISH: return zone_finish(z, x);
    case ZONE_OP_OPEN: return zone_open(z, x, true, zrwa);
    case ZONE_OP_OFFLINE: return zone_offline(z, x);
    case ZONE_OP_RESET: break;
    }
    return ZONE_BAD_REQUEST;
}

/* what was written is gone; reads give zeroes. */
static uint16_t co_reset_zone(struct nvme_req *r, struct zone *x)
{
    struct nvme_ns *ns = r->ns;
    struct zones *z = &ns->zones->m;
    uint64_t start = zone_start(z, x);
    uint16_t st;
    bool written;

    pthread_mutex_lock(&ns->ss->lock);
    st = nvme_zone_status(zone_reset_begin(x, &written));
    pthread_mutex_unlock(&ns->ss->lock);
    if (st || !written)
        return st;
    st = nvme_status_of(r, co_blk_zero(ns->unit->blk, ns->base + (start << ns->shift), z->cap << ns->shift, BLK_ZERO_UNMAP), false);
    if (!st)
        st = co_nvme_meta_fill(r, ns, start, z->cap, ns->pi ? 0xff : 0);
    nvme_uncor_clear(ns, start, z->cap);
    pthread_mutex_lock(&ns->ss->lock);
    zone_reset_end(z, x, !st);
    pthread_mutex_unlock(&ns->ss->lock);
    return st;
}

static uint16_t co_one_zone(struct nvme_req *r, struct zone *x, enum zone_op op, bool zrwa)
{
    enum zone_result st;

    if (op == ZONE_OP_RESET)
        return co_reset_zone(r, x);
    pthread_mutex_lock(&r->ns->ss->lock);
    st = transition(&r->ns->zones->m, x, op, zrwa);
    pthread_mutex_unlock(&r->ns->ss->lock);
    return nvme_zone_status(st);
}

static uint16_t co_all_zones(struct nvme_req *r, enum zone_op op)
{
    struct zones *z = &r->ns->zones->m;
    uint16_t st = NVME_OK;

    for (uint32_t i = 0; !st && i < z->n; i++) {
        bool hit;

        if (r->abort)
            return NVME_ABORT_REQUESTED;
        pthread_mutex_lock(&r->ns->ss->lock);
        hit = zone_op_selects(op, z->zone[i].state);
        pthread_mutex_unlock(&r->ns->ss->lock);
        if (hit)
            st = co_one_zone(r, &z->zone[i], op, false);
    }
    return st;
}

/* The zone becomes closed, and active. */
static uint16_t set_extension(struct nvme_req *r, struct zone *x)
{
    struct nvme_zones *z = r->ns->zones;
    uint8_t *buf;
    uint16_t st;

    if (!z->ext_size)
        return NVME_INVALID_FIELD | NVME_DNR;
    buf = xcalloc(1, z->ext_size);
    st = nvme_from_host(r, buf, z->ext_size);
    pthread_mutex_lock(&r->ns->ss->lock);
    if (!st && x->state != ZONE_EMPTY)
        st = NVME_ZONE_TRANSITION | NVME_DNR;
    if (!st && z->m.max_active && z->m.n_active >= z->m.max_active)
        st = NVME_ZONE_TOO_MANY_ACTIVE | NVME_DNR;
    if (!st) {
        memcpy(nvme_zone_ext(z, x), buf, z->ext_size);
        x->attr |= ZONE_ATTR_EXT;
        zone_set(&z->m, x, ZONE_CLOSED);
    }
    pthread_mutex_unlock(&r->ns->ss->lock);
    free(buf);
    return st;
}

uint16_t co_nvme_zone_send(struct nvme_req *r)
{
    static const enum zone_op op_of[] = { [ZSA_CLOSE] = ZONE_OP_CLOSE, [ZSA_FINISH] = ZONE_OP_FINISH, [ZSA_OPEN] = ZONE_OP_OPEN,
                                          [ZSA_RESET] = ZONE_OP_RESET, [ZSA_OFFLINE] = ZONE_OP_OFFLINE };
    struct nvme_ns *ns = r->ns;
    struct zones *z = &ns->zones->m;
    uint64_t slba = nvme_slba(&r->cmd);
    uint8_t action = (uint8_t)r->cmd.cdw13;
    bool all = r->cmd.cdw13 >> 8 & 1, zrwa = r->cmd.cdw13 >> 9 & 1, known = action >= ZSA_CLOSE && action <= ZSA_OFFLINE;
    struct zone *x = zone_at(z, slba);
    uint16_t st;

    if (ns->write_protect || ns->unit->caps.read_only)
        return NVME_WRITE_PROTECTED | NVME_DNR;
    if (all && action != ZSA_SET_EXT && action != ZSA_FLUSH) {
        st = known ? co_all_zones(r, op_of[action]) : NVME_INVALID_FIELD | NVME_DNR;
    } else if (!x) {
        st = NVME_LBA_RANGE | NVME_DNR;
    } else if (action == ZSA_FLUSH) {
        pthread_mutex_lock(&ns->ss->lock);
        st = nvme_zone_status(zone_flush_zrwa(z, x, slba));
        pthread_mutex_unlock(&ns->ss->lock);
    } else if (slba != zone_start(z, x) || (zrwa && !z->numzrwa) || (!known && action != ZSA_SET_EXT)) {
        st = NVME_INVALID_FIELD | NVME_DNR;
    } else {
        st = action == ZSA_SET_EXT ? set_extension(r, x) : co_one_zone(r, x, op_of[action], zrwa);
    }
    nvme_ns_dirty(ns);
    return st;
}

/* ---- receive ---- */

static bool reported(uint8_t filter, uint8_t state)
{
    static const uint8_t of_filter[] = { 0, ZONE_EMPTY, ZONE_IOPEN, ZONE_EOPEN, ZONE_CLOSED, ZONE_FULL, ZONE_READ_ONLY, ZONE_OFFLINE };

    return !filter || state == of_filter[filter];
}

static void put_zone(const struct nvme_zones *z, const struct zone *x, uint8_t *d, bool extended)
{
    d[0] = 2;                           /* sequential write required */
    d[1] = (uint8_t)(x->state << 4);
    d[2] = x->attr;
    st_le64(d + 8, z->m.cap);
    st_le64(d + 16, zone_start(&z->m, x));
    st_le64(d + 24, zone_has_wp(x) ? x->wp : UINT64_MAX);
    if (extended && x->attr & ZONE_ATTR_EXT)
        memcpy(d + DESC, nvme_zone_ext(z, x), z->ext_size);
}

uint16_t co_nvme_zone_recv(struct nvme_req *r)
{
    struct nvme_zones *z = r->ns->zones;
    uint64_t slba = nvme_slba(&r->cmd), len = ((uint64_t)r->cmd.cdw12 + 1) * 4, found = 0;
    uint8_t action = (uint8_t)r->cmd.cdw13, filter = (uint8_t)(r->cmd.cdw13 >> 8), *buf;
    bool partial = r->cmd.cdw13 >> 16 & 1, extended = action == 1;
    uint32_t each = DESC + (extended ? z->ext_size : 0), put = 0, room;
    uint16_t st;

    if (action > 1 || filter > 7 || (extended && !z->ext_size) || len < DESC || len > nvme_max_transfer(r->n) || len > REPORT_MAX)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (slba >= r->ns->nsze)
        return NVME_LBA_RANGE | NVME_DNR;
    room = (uint32_t)((len - DESC) / each);
    buf = xcalloc(1, len);
    pthread_mutex_lock(&r->ns->ss->lock);
    for (uint64_t i = slba / z->m.size; i < z->m.n && !(partial && put == room); i++) {
        if (!reported(filter, z->m.zone[i].state))
            continue;
        found++;
        if (put < room)
            put_zone(z, &z->m.zone[i], buf + DESC + (size_t)put++ * each, extended);
    }
    pthread_mutex_unlock(&r->ns->ss->lock);
    st_le64(buf, partial ? put : found);
    st = nvme_to_host(r, buf, len);
    free(buf);
    return st;
}

/* ---- append ---- */

uint16_t nvme_zone_append_at(struct nvme_req *r)
{
    uint64_t limit = r->n->zasl ? (uint64_t)NVME_PAGE << r->n->zasl : nvme_max_transfer(r->n);

    return nvme_nlb(&r->cmd) << r->ns->shift > limit ? NVME_INVALID_FIELD | NVME_DNR : NVME_OK;
}

uint64_t nvme_zones_capacity(const struct nvme_ns *ns) { return (uint64_t)ns->zones->m.n * ns->zones->m.cap; }

/* ---- identify ---- */

void nvme_zones_identify(const struct nvme_ns *ns, unsigned formats, uint8_t *b)
{
    const struct nvme_zones *z = ns->zones;

    st_le16(b, 0);                                      /* ZOC: capacities do not change */
    st_le16(b + 2, (uint16_t)(z->m.cross_read | (z->m.numzrwa ? 2 : 0)));
    st_le32(b + 4, z->m.max_active - 1);                  /* 0 becomes "no limit" */
    st_le32(b + 8, z->m.max_open - 1);
    if (z->m.numzrwa) {
        st_le32(b + 36, z->m.numzrwa - 1);
        st_le16(b + 40, (uint16_t)z->m.zrwafg);
        st_le16(b + 42, (uint16_t)z->m.zrwas);
        b[44] = 1;                                      /* ZRWACAP: explicit flush */
    }
    for (unsigned i = 0; i < formats; i++) {
        st_le64(b + 2816 + 16 * i, (z->m.size << ns->shift) >> ns->lbaf[i].ds);
        b[2816 + 16 * i + 8] = (uint8_t)(z->ext_size / 64);
    }
}
