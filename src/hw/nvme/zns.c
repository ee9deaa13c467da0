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

/* Which zones an action on all goes to (figure "Zone Send Action", Select All). */
static bool selected(uint8_t action, uint8_t state)
{
    switch (action) {
    case ZSA_CLOSE: return state == ZONE_IOPEN || state == ZONE_EOPEN;
    case ZSA_FINISH: return state == ZONE_IOPEN || state == ZONE_EOPEN || state == ZONE_CLOSED;
    case ZSA_OPEN: return state == ZONE_CLOSED;
    case ZSA_RESET: return state != ZONE_EMPTY && state != ZONE_READ_ONLY && state != ZONE_OFFLINE;
    case ZSA_OFFLINE: return state == ZONE_READ_ONLY;
    default: return false;
    }
}

static uint16_t transition(struct nvme_zones *z, struct nvme_zone *x, uint8_t action, bool zrwa)
{
    switch (action) {
    case ZSA_CLOSE: return zone_close(z, x);
    case ZSA_FINISH: return zone_finish(z, x);
    case ZSA_OPEN: return zone_open(z, x, true, zrwa);
    case ZSA_OFFLINE: return zone_offline(z, x);
    default: return NVME_INVALID_FIELD | NVME_DNR;
    }
}

/* what was written is gone; reads give zeroes. */
static uint16_t co_reset_zone(struct nvme_req *r, struct nvme_zone *x)
{
    struct nvme_ns *ns = r->ns;
    struct nvme_zones *z = ns->zones;
    uint64_t start = zone_start(z, x);
    uint16_t st = NVME_OK;
    bool written;

    pthread_mutex_lock(&ns->ss->lock);
    written = x->state != ZONE_EMPTY;
    if (x->state == ZONE_READ_ONLY || x->state == ZONE_OFFLINE)
        st = NVME_ZONE_TRANSITION | NVME_DNR;
    else
        x->busy = written;
    pthread_mutex_unlock(&ns->ss->lock);
    if (st || !written)
        return st;
    st = nvme_status_of(r, co_blk_zero(ns->unit->blk, ns->base + (start << ns->shift), z->cap << ns->shift, BLK_ZERO_UNMAP), false);
    if (!st)
        st = co_nvme_meta_fill(r, ns, start, z->cap, ns->pi ? 0xff : 0);
    nvme_uncor_clear(ns, start, z->cap);
    pthread_mutex_lock(&ns->ss->lock);
    if (!st)
        zone_empty(z, x);
    x->busy = false;
    pthread_mutex_unlock(&ns->ss->lock);
    return st;
}

static uint16_t co_one_zone(struct nvme_req *r, struct nvme_zone *x, uint8_t action, bool zrwa)
{
    uint16_t st;

    if (action == ZSA_RESET)
        return co_reset_zone(r, x);
    pthread_mutex_lock(&r->ns->ss->lock);
    st = transition(r->ns->zones, x, action, zrwa);
    pthread_mutex_unlock(&r->ns->ss->lock);
    return st;
}

static uint16_t co_all_zones(struct nvme_req *r, uint8_t action)
{
    struct nvme_zones *z = r->ns->zones;
    uint16_t st = NVME_OK;

    for (uint32_t i = 0; !st && i < z->n; i++) {
        bool hit;

        if (r->abort)
            return NVME_ABORT_REQUESTED;
        pthread_mutex_lock(&r->ns->ss->lock);
        hit = selected(action, z->zone[i].state);
        pthread_mutex_unlock(&r->ns->ss->lock);
        if (hit)
            st = co_one_zone(r, &z->zone[i], action, false);
    }
    return st;
}

/* The zone becomes closed, and active. */
static uint16_t set_extension(struct nvme_req *r, struct nvme_zone *x)
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
    if (!st && z->max_active && z->n_active >= z->max_active)
        st = NVME_ZONE_TOO_MANY_ACTIVE | NVME_DNR;
    if (!st) {
        memcpy(z->ext + (size_t)(x - z->zone) * z->ext_size, buf, z->ext_size);
        x->attr |= ZONE_ATTR_EXT;
        zone_set(z, x, ZONE_CLOSED);
    }
    pthread_mutex_unlock(&r->ns->ss->lock);
    free(buf);
    return st;
}

uint16_t co_nvme_zone_send(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    struct nvme_zones *z = ns->zones;
    uint64_t slba = nvme_slba(&r->cmd);
    uint8_t action = (uint8_t)r->cmd.cdw13;
    bool all = r->cmd.cdw13 >> 8 & 1, zrwa = r->cmd.cdw13 >> 9 & 1;
    struct nvme_zone *x = slba / z->size < z->n ? &z->zone[slba / z->size] : NULL;
    uint16_t st;

    if (ns->write_protect || ns->unit->caps.read_only)
        return NVME_WRITE_PROTECTED | NVME_DNR;
    if (all && action != ZSA_SET_EXT && action != ZSA_FLUSH) {
        st = action >= ZSA_CLOSE && action <= ZSA_OFFLINE ? co_all_zones(r, action) : NVME_INVALID_FIELD | NVME_DNR;
    } else if (!x) {
        st = NVME_LBA_RANGE | NVME_DNR;
    } else if (action == ZSA_FLUSH) {
        pthread_mutex_lock(&ns->ss->lock);
        st = zone_flush_zrwa(z, x, slba);
        pthread_mutex_unlock(&ns->ss->lock);
    } else if (slba != zone_start(z, x) || (zrwa && !z->numzrwa)) {
        st = NVME_INVALID_FIELD | NVME_DNR;
    } else {
        st = action == ZSA_SET_EXT ? set_extension(r, x) : co_one_zone(r, x, action, zrwa);
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

static void put_zone(const struct nvme_zones *z, const struct nvme_zone *x, uint8_t *d, bool extended)
{
    bool has_wp = x->state != ZONE_FULL && x->state != ZONE_READ_ONLY && x->state != ZONE_OFFLINE;

    d[0] = 2;                           /* sequential write required */
    d[1] = (uint8_t)(x->state << 4);
    d[2] = x->attr;
    st_le64(d + 8, z->cap);
    st_le64(d + 16, zone_start(z, x));
    st_le64(d + 24, has_wp ? x->wp : UINT64_MAX);
    if (extended && x->attr & ZONE_ATTR_EXT)
        memcpy(d + DESC, z->ext + (size_t)(x - z->zone) * z->ext_size, z->ext_size);
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
    for (uint64_t i = slba / z->size; i < z->n && !(partial && put == room); i++) {
        if (!reported(filter, z->zone[i].state))
            continue;
        found++;
        if (put < room)
            put_zone(z, &z->zone[i], buf + DESC + (size_t)put++ * each, extended);
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

uint64_t nvme_zones_capacity(const struct nvme_ns *ns) { return ns->zones->n * ns->zones->cap; }

/* ---- identify ---- */

void nvme_zones_identify(const struct nvme_ns *ns, uint8_t *b)
{
    const struct nvme_zones *z = ns->zones;

    st_le16(b, 0);                                      /* ZOC: capacities do not change */
    st_le16(b + 2, (uint16_t)(z->cross_read | (z->numzrwa ? 2 : 0)));
    st_le32(b + 4, z->max_active - 1);                  /* 0 becomes "no limit" */
    st_le32(b + 8, z->max_open - 1);
    if (z->numzrwa) {
        st_le32(b + 36, z->numzrwa - 1);
        st_le16(b + 40, (uint16_t)z->zrwafg);
        st_le16(b + 42, (uint16_t)z->zrwas);
        b[44] = 1;                                      /* ZRWACAP: explicit flush */
    }
    for (unsigned i = 0; i < ns->n_lbaf; i++) {
        st_le64(b + 2816 + 16 * i, (z->size << ns->shift) >> ns->lbaf[i].ds);
        b[2816 + 16 * i + 8] = (uint8_t)(z->ext_size / 64);
    }
}
