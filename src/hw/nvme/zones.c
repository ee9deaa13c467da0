/* SPDX-License-Identifier: MIT */
/* The zones of a namespace in its life: made from options, asked by the data path, formatted anew, kept. */
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/zns_int.h"

uint16_t nvme_zone_status(enum zone_result r)
{
    static const uint16_t status[] = {
        [ZONE_NO_TRANSITION] = NVME_ZONE_TRANSITION | NVME_DNR, [ZONE_TOO_MANY_OPEN] = NVME_ZONE_TOO_MANY_OPEN | NVME_DNR,
        [ZONE_TOO_MANY_ACTIVE] = NVME_ZONE_TOO_MANY_ACTIVE | NVME_DNR, [ZONE_NO_ZONE] = NVME_LBA_RANGE | NVME_DNR,
        [ZONE_CROSSED] = NVME_ZONE_BOUNDARY | NVME_DNR, [ZONE_IS_FULL] = NVME_ZONE_FULL | NVME_DNR,
        [ZONE_IS_OFFLINE] = NVME_ZONE_OFFLINE | NVME_DNR, [ZONE_IS_READ_ONLY] = NVME_ZONE_READ_ONLY | NVME_DNR,
        [ZONE_NOT_AT_WP] = NVME_ZONE_INVALID_WRITE | NVME_DNR, [ZONE_BUSY] = NVME_ZONE_INVALID_WRITE,
        [ZONE_BAD_REQUEST] = NVME_INVALID_FIELD | NVME_DNR,
    };

    return status[r];
}

/* ---- the data path ---- */

uint16_t nvme_zone_check_read(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    enum zone_result st;

    pthread_mutex_lock(&ns->ss->lock);
    st = zone_check_read(&ns->zones->m, slba, nlb);
    pthread_mutex_unlock(&ns->ss->lock);
    return nvme_zone_status(st);
}

uint16_t nvme_zone_write_begin(struct nvme_req *r, uint64_t *slba, uint64_t nlb, bool append)
{
    struct nvme_ns *ns = r->ns;
    enum zone_result st;

    pthread_mutex_lock(&ns->ss->lock);
    st = zone_write_begin(&ns->zones->m, slba, nlb, append);
    pthread_mutex_unlock(&ns->ss->lock);
    return nvme_zone_status(st);
}

void nvme_zone_write_end(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    pthread_mutex_lock(&ns->ss->lock);
    zone_write_end(&ns->zones->m, slba, nlb);
    pthread_mutex_unlock(&ns->ss->lock);
    nvme_ns_dirty(ns);
}

/* ---- life ---- */

bool nvme_zones_new(struct nvme_ns *ns, const struct nvme_ns_opts *o, struct err *e)
{
    uint64_t block = UINT64_C(1) << ns->shift, cap = o->zone_capacity ? o->zone_capacity : o->zone_size;
    struct nvme_zones *z;

    if (o->zone_size < block || o->zone_size % block || cap % block || cap > o->zone_size)
        return err_set(e, ERR_VALUE, "zoned.zone_size and zoned.zone_capacity must be multiples of the block size, the capacity no larger than the size");
    if (ns->nsze < o->zone_size / block)
        return err_set(e, ERR_VALUE, "zoned.zone_size is %llu, but the drive holds less than one zone", (unsigned long long)o->zone_size);
    if (o->max_active && o->max_open > o->max_active)
        return err_set(e, ERR_VALUE, "zoned.max_open (%u) is more than zoned.max_active (%u)", o->max_open, o->max_active);
    if (o->numzrwa && (!o->zrwas || !o->zrwafg || o->zrwas % o->zrwafg || o->zrwafg % block || cap % o->zrwafg))
        return err_set(e, ERR_VALUE, "zoned.zrwas must be a multiple of zoned.zrwafg, that one of the block size and a part of the capacity");
    if (o->zd_ext % 64 || o->zd_ext > 255 * 64)
        return err_set(e, ERR_VALUE, "zoned.descr_ext_size must be a multiple of 64, at most 16320");
    z = ns->zones = xnew(struct nvme_zones);
    *z = (struct nvme_zones){ .m = { .n = (uint32_t)(ns->nsze / (o->zone_size / block)), .max_open = o->max_open ? o->max_open : o->max_active,
                                     .max_active = o->max_active, .size = o->zone_size / block, .cap = cap / block, .cross_read = o->cross_read,
                                     .auto_close = o->auto_transition, .zrwas = (uint32_t)(o->zrwas / block),
                                     .zrwafg = (uint32_t)(o->zrwafg / block), .numzrwa = o->numzrwa },
                              .n_alloc = (uint32_t)(ns->space / o->zone_size), .ext_size = o->zd_ext, .byte_size = o->zone_size,
                              .byte_cap = cap, .byte_zrwas = o->zrwas, .byte_zrwafg = o->zrwafg };
    ns->nsze = z->m.n * z->m.size;
    z->m.zone = xcalloc(z->n_alloc, sizeof *z->m.zone);
    z->ext = z->ext_size ? xcalloc(z->n_alloc, z->ext_size) : NULL;
    z->changed = xcalloc(z->n_alloc, sizeof *z->changed);
    for (uint32_t i = 0; i < z->n_alloc; i++)
        zone_empty(&z->m, &z->m.zone[i]);
    ns->csi = NVME_CSI_ZONED;
    return true;
}

void nvme_zones_no_auto(struct nvme_ns *ns)
{
    if (ns->zones)
        ns->zones->m.auto_close = false;
}

void nvme_zones_free(struct nvme_ns *ns)
{
    if (!ns->zones)
        return;
    free(ns->zones->m.zone);
    free(ns->zones->ext);
    free(ns->zones->changed);
    free(ns->zones);
    ns->zones = NULL;
}

bool nvme_zones_fit(const struct nvme_ns *ns, const struct nvme_fmt *f)
{
    const struct nvme_zones *z = ns->zones;
    uint64_t block = UINT64_C(1) << f->ds;

    return !((z->m.size << ns->shift) % block) && !((z->m.cap << ns->shift) % block) && !(((uint64_t)z->m.zrwafg << ns->shift) % block) &&
           z->byte_size % block == 0;
}

void nvme_zones_reformat(struct nvme_ns *ns)
{
    struct nvme_zones *z = ns->zones;
    uint64_t block = UINT64_C(1) << ns->shift;

    if (!z)
        return;
    pthread_mutex_lock(&ns->ss->lock);
    z->m.size = z->byte_size / block;
    z->m.cap = z->byte_cap / block;
    z->m.zrwas = (uint32_t)(z->byte_zrwas / block);
    z->m.zrwafg = (uint32_t)(z->byte_zrwafg / block);
    z->m.n = (uint32_t)MIN(z->n_alloc, ns->nsze / z->m.size);
    ns->nsze = z->m.n * z->m.size;
    for (uint32_t i = 0; i < z->n_alloc; i++)
        zone_empty(&z->m, &z->m.zone[i]);
    pthread_mutex_unlock(&ns->ss->lock);
}

void nvme_zones_power_cycle(struct nvme_ns *ns)
{
    pthread_mutex_lock(&ns->ss->lock);
    if (ns->zones)
        zones_power_cycle(&ns->zones->m);
    pthread_mutex_unlock(&ns->ss->lock);
}

/* ---- by themselves ---- */

static bool changes(struct zones *m, struct zone *x, enum nvme_zone_fault what)
{
    switch (what) {
    case NVME_ZONE_NO_FAULT: return false;
    case NVME_ZONE_FINISHED:
        if (zone_finish(m, x) != ZONE_OK)
            return false;
        x->attr |= ZONE_ATTR_FINISHED;
        return true;
    case NVME_ZONE_READ_ONLY_NOW:
    case NVME_ZONE_OFFLINE_NOW:
        if (x->state == ZONE_OFFLINE)
            return false;
        zone_set(m, x, what == NVME_ZONE_OFFLINE_NOW ? ZONE_OFFLINE : ZONE_READ_ONLY);
        return true;
    case NVME_ZONE_RESET_ADVISED:
        x->attr |= x->state == ZONE_FULL ? ZONE_ATTR_RESET_ADVISED : 0;
        return x->state == ZONE_FULL;
    case NVME_ZONE_FINISH_ADVISED:
        x->attr |= zone_is_active(x) ? ZONE_ATTR_FINISH_ADVISED : 0;
        return zone_is_active(x);
    }
    return false;
}

void nvme_zone_changes_itself(struct nvme_ns *ns, uint64_t slba, enum nvme_zone_fault what)
{
    struct nvme_zones *z;
    struct zone *x;

    pthread_mutex_lock(&ns->ss->lock);
    z = atomic_load(&ns->live) ? ns->zones : NULL;
    x = z ? zone_at(&z->m, slba) : NULL;
    if (x && changes(&z->m, x, what)) {
        z->changed[x - z->m.zone] = ++z->changes;
        for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
            if (ns->ss->ctrl[i] && nvme_ns_at(ns->ss->ctrl[i], ns->nsid) == ns) {
                atomic_fetch_or(&ns->ss->ctrl[i]->changed_zones[ns->nsid / 32], 1u << (ns->nsid & 31));
                domain_post(&ns->ss->ctrl[i]->events_post);
            }
    }
    pthread_mutex_unlock(&ns->ss->lock);
    nvme_ns_dirty(ns);
}

void nvme_zones_seen(struct nvme *n)
{
    pthread_mutex_lock(&n->ss->lock);
    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_at(n, i);

        if (ns && ns->zones)
            ns->zones->seen[n->cntlid] = ns->zones->changes;
    }
    pthread_mutex_unlock(&n->ss->lock);
}

#define CHANGED_MAX 511u                /* zones that the list has room for (Zoned 4.1.2) */

uint16_t nvme_log_changed_zones(struct nvme_req *r, struct str *s)
{
    struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);
    uint8_t *b = nvme_log_room(s, 4096);
    struct nvme_zones *z;
    uint32_t count = 0;

    if (!ns)
        return NVME_INVALID_NSID | NVME_DNR;
    if (!ns->zones)
        return NVME_INVALID_FIELD | NVME_DNR;
    z = ns->zones;
    pthread_mutex_lock(&ns->ss->lock);
    for (uint32_t i = 0; i < z->m.n; i++) {
        if (z->changed[i] <= z->seen[r->n->cntlid])
            continue;
        if (count++ < CHANGED_MAX)
            st_le64(b + 8 * count, zone_start(&z->m, &z->m.zone[i]));
    }
    if (!(r->cmd.cdw10 >> 15 & 1))
        z->seen[r->n->cntlid] = z->changes;
    pthread_mutex_unlock(&ns->ss->lock);
    if (count > CHANGED_MAX)
        memset(b + 8, 0, 8 * CHANGED_MAX);              /* too many to name: the host reports all zones */
    st_le16(b, (uint16_t)(count > CHANGED_MAX ? UINT16_MAX : count));
    return NVME_OK;
}

/* ---- kept between runs: the model's, and the descriptor extension ---- */

json_t *nvme_zones_to_json(const struct nvme_ns *ns)
{
    const struct nvme_zones *z = ns->zones;
    json_t *list = json_array();

    for (uint32_t i = 0; i < z->m.n; i++) {
        const struct zone *x = &z->m.zone[i];
        json_t *one = zone_to_json(&z->m, x);

        if (!one)
            continue;
        if (x->attr & ZONE_ATTR_EXT) {
            json_t *ext = json_array();
            for (uint32_t k = 0; k < z->ext_size; k++)
                json_array_append_new(ext, json_integer(nvme_zone_ext(z, x)[k]));
            json_array_append_new(one, ext);
        }
        json_array_append_new(list, one);
    }
    return list;
}

bool nvme_zones_from_json(struct nvme_ns *ns, json_t *v, bool live, struct err *e)
{
    struct nvme_zones *z = ns->zones;
    json_t *one, *byte;
    size_t i, k;

    json_array_foreach(v, i, one) {
        struct zone *x = zone_from_json(&z->m, one, live);

        if (!x)
            return err_set(e, ERR_VALUE, "a zone of namespace %u in the state file makes no sense: were its zones others?", ns->nsid);
        json_array_foreach(json_array_get(one, 4), k, byte)
            if (k < z->ext_size)
                nvme_zone_ext(z, x)[k] = (uint8_t)json_integer_value(byte);
    }
    return true;
}
