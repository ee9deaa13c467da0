/* SPDX-License-Identifier: MIT */
/* The state machine of zones and their write pointers (Zoned 2.1.1). */
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/zns_int.h"

void zone_set(struct nvme_zones *z, struct nvme_zone *x, uint8_t state)
{
    z->n_open -= zone_is_open(x);
    z->n_active -= zone_is_active(x);
    x->state = state;
    z->n_open += zone_is_open(x);
    z->n_active += zone_is_active(x);
    if (!zone_is_active(x) && x->attr & ZONE_ATTR_ZRWA) {
        x->attr &= (uint8_t)~ZONE_ATTR_ZRWA;
        z->n_zrwa--;
    }
}

/* 2.1.1.4.1: room for one more open zone, by closing one that the controller opened itself. */
static uint16_t room(struct nvme_zones *z, bool active_too)
{
    if (active_too && z->max_active && z->n_active >= z->max_active)
        return NVME_ZONE_TOO_MANY_ACTIVE | NVME_DNR;
    if (!z->max_open || z->n_open < z->max_open)
        return NVME_OK;
    for (uint32_t i = 0; z->auto_close && i < z->n; i++)
        if (z->zone[i].state == ZONE_IOPEN) {
            zone_close(z, &z->zone[i]);
            return NVME_OK;
        }
    return NVME_ZONE_TOO_MANY_OPEN | NVME_DNR;
}

uint16_t zone_open(struct nvme_zones *z, struct nvme_zone *x, bool explicitly, bool zrwa)
{
    uint16_t st;

    if (zrwa && x->state != ZONE_EMPTY && !(x->attr & ZONE_ATTR_ZRWA))
        return NVME_ZONE_TRANSITION | NVME_DNR;
    switch (x->state) {
    case ZONE_EOPEN: return NVME_OK;
    case ZONE_IOPEN:
        if (explicitly)
            zone_set(z, x, ZONE_EOPEN);
        return NVME_OK;
    case ZONE_EMPTY: case ZONE_CLOSED: break;
    default: return NVME_ZONE_TRANSITION | NVME_DNR;
    }
    if (zrwa && x->state == ZONE_EMPTY && z->n_zrwa >= z->numzrwa)
        return NVME_ZONE_TRANSITION | NVME_DNR;
    st = room(z, x->state == ZONE_EMPTY);
    if (st)
        return st;
    if (zrwa && !(x->attr & ZONE_ATTR_ZRWA)) {
        x->attr |= ZONE_ATTR_ZRWA;
        z->n_zrwa++;
    }
    zone_set(z, x, explicitly ? ZONE_EOPEN : ZONE_IOPEN);
    return NVME_OK;
}

/* One that was opened and not written is empty again (2.1.1.4). */
uint16_t zone_close(struct nvme_zones *z, struct nvme_zone *x)
{
    if (x->state == ZONE_CLOSED)
        return NVME_OK;
    if (!zone_is_open(x))
        return NVME_ZONE_TRANSITION | NVME_DNR;
    zone_set(z, x, x->next == zone_start(z, x) && !(x->attr & ZONE_ATTR_EXT) ? ZONE_EMPTY : ZONE_CLOSED);
    return NVME_OK;
}

uint16_t zone_finish(struct nvme_zones *z, struct nvme_zone *x)
{
    uint16_t st = NVME_OK;

    if (x->state == ZONE_FULL)
        return NVME_OK;
    if (x->state == ZONE_EMPTY)
        st = room(z, true);
    else if (!zone_is_active(x))
        st = NVME_ZONE_TRANSITION | NVME_DNR;
    if (st)
        return st;
    x->wp = x->next = zone_start(z, x) + z->cap;
    zone_set(z, x, ZONE_FULL);
    return NVME_OK;
}

uint16_t zone_offline(struct nvme_zones *z, struct nvme_zone *x)
{
    if (x->state != ZONE_READ_ONLY && x->state != ZONE_OFFLINE)
        return NVME_ZONE_TRANSITION | NVME_DNR;
    zone_set(z, x, ZONE_OFFLINE);
    return NVME_OK;
}

void zone_empty(struct nvme_zones *z, struct nvme_zone *x)
{
    zone_set(z, x, ZONE_EMPTY);
    x->wp = x->next = zone_start(z, x);
    x->attr &= (uint8_t)~(ZONE_ATTR_EXT | ZONE_ATTR_FINISHED);
    x->busy = false;
}

static void zrwa_move(struct nvme_zones *z, struct nvme_zone *x, uint64_t wp)
{
    uint64_t end = zone_start(z, x) + z->cap;

    x->wp = x->next = MIN(wp, end);
    if (x->wp == end)
        zone_set(z, x, ZONE_FULL);
}

/* 2.1.1.5: an explicit flush up to @lba, which ends a flush granularity. */
uint16_t zone_flush_zrwa(struct nvme_zones *z, struct nvme_zone *x, uint64_t lba)
{
    if (!(x->attr & ZONE_ATTR_ZRWA) || (x->state != ZONE_CLOSED && !zone_is_open(x)))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (lba < x->wp || lba >= x->wp + z->zrwas || (lba - x->wp + 1) % z->zrwafg || lba >= zone_start(z, x) + z->cap)
        return NVME_INVALID_FIELD | NVME_DNR;
    zrwa_move(z, x, lba + 1);
    return NVME_OK;
}

/* ---- the data path ---- */

static struct nvme_zone *zone_of(const struct nvme_zones *z, uint64_t lba) { return lba / z->size < z->n ? &z->zone[lba / z->size] : NULL; }

uint16_t nvme_zone_check_read(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    struct nvme_zones *z = ns->zones;
    uint16_t st = NVME_OK;

    pthread_mutex_lock(&ns->ss->lock);
    for (uint64_t i = slba / z->size; !st && i <= (slba + nlb - 1) / z->size; i++) {
        if (i >= z->n)
            st = NVME_LBA_RANGE | NVME_DNR;
        else if (z->zone[i].state == ZONE_OFFLINE)
            st = NVME_ZONE_OFFLINE | NVME_DNR;
        else if (i != slba / z->size && !z->cross_read)
            st = NVME_ZONE_BOUNDARY | NVME_DNR;
    }
    pthread_mutex_unlock(&ns->ss->lock);
    return st;
}

/* Whether a zone in @state can be written at all. */
static uint16_t writable(const struct nvme_zone *x)
{
    switch (x->state) {
    case ZONE_FULL: return NVME_ZONE_FULL | NVME_DNR;
    case ZONE_OFFLINE: return NVME_ZONE_OFFLINE | NVME_DNR;
    case ZONE_READ_ONLY: return NVME_ZONE_READ_ONLY | NVME_DNR;
    default: return x->busy ? NVME_ZONE_INVALID_WRITE : NVME_OK;
    }
}

static uint16_t take_zrwa(struct nvme_zones *z, struct nvme_zone *x, uint64_t slba, uint64_t nlb)
{
    if (slba < x->wp || !range_ok(slba - x->wp, nlb, 2 * (uint64_t)z->zrwas))
        return NVME_ZONE_INVALID_WRITE | NVME_DNR;
    if (!range_ok(slba - x->wp, nlb, z->zrwas))         /* implicit flush */
        zrwa_move(z, x, x->wp + align_up(slba - x->wp + nlb - z->zrwas, z->zrwafg));
    return NVME_OK;
}

static uint16_t take(struct nvme_zones *z, uint64_t *slba, uint64_t nlb, bool append)
{
    struct nvme_zone *x = zone_of(z, *slba);
    uint16_t st = x ? writable(x) : NVME_LBA_RANGE | NVME_DNR;

    if (st)
        return st;
    if (append && *slba != zone_start(z, x))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (append)
        *slba = x->next;
    if (!range_ok(*slba - zone_start(z, x), nlb, z->cap))
        return NVME_ZONE_BOUNDARY | NVME_DNR;
    if (append && x->attr & ZONE_ATTR_ZRWA)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (!(x->attr & ZONE_ATTR_ZRWA) && *slba != x->next)
        return NVME_ZONE_INVALID_WRITE | NVME_DNR;
    st = zone_open(z, x, false, false);
    if (st)
        return st;
    if (x->attr & ZONE_ATTR_ZRWA)
        return take_zrwa(z, x, *slba, nlb);
    x->next += nlb;
    return NVME_OK;
}

uint16_t nvme_zone_write_begin(struct nvme_req *r, uint64_t *slba, uint64_t nlb, bool append)
{
    struct nvme_ns *ns = r->ns;
    uint16_t st;

    pthread_mutex_lock(&ns->ss->lock);
    st = take(ns->zones, slba, nlb, append);
    pthread_mutex_unlock(&ns->ss->lock);
    return st;
}

void nvme_zone_write_end(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    struct nvme_zones *z = ns->zones;
    struct nvme_zone *x;

    pthread_mutex_lock(&ns->ss->lock);
    x = zone_of(z, slba);
    if (!(x->attr & ZONE_ATTR_ZRWA) && x->state != ZONE_FULL && !x->busy) {
        x->wp += nlb;
        if (x->wp == zone_start(z, x) + z->cap)
            zone_set(z, x, ZONE_FULL);
    }
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
    *z = (struct nvme_zones){ .n = (uint32_t)(ns->nsze / (o->zone_size / block)), .max_open = o->max_open ? o->max_open : o->max_active,
                              .max_active = o->max_active, .size = o->zone_size / block, .cap = cap / block, .cross_read = o->cross_read,
                              .auto_close = o->auto_transition, .ext_size = o->zd_ext, .zrwas = (uint32_t)(o->zrwas / block),
                              .zrwafg = (uint32_t)(o->zrwafg / block), .numzrwa = o->numzrwa, .byte_size = o->zone_size, .byte_cap = cap,
                              .byte_zrwas = o->zrwas, .byte_zrwafg = o->zrwafg };
    z->n_alloc = (uint32_t)(ns->space / o->zone_size);
    ns->nsze = z->n * z->size;
    z->zone = xcalloc(z->n_alloc, sizeof *z->zone);
    z->ext = z->ext_size ? xcalloc(z->n_alloc, z->ext_size) : NULL;
    for (uint32_t i = 0; i < z->n_alloc; i++)
        zone_empty(z, &z->zone[i]);
    ns->csi = NVME_CSI_ZONED;
    return true;
}

void nvme_zones_no_auto(struct nvme_ns *ns)
{
    if (ns->zones)
        ns->zones->auto_close = false;
}

void nvme_zones_free(struct nvme_ns *ns)
{
    if (!ns->zones)
        return;
    free(ns->zones->zone);
    free(ns->zones->ext);
    free(ns->zones);
    ns->zones = NULL;
}

bool nvme_zones_fit(const struct nvme_ns *ns, const struct nvme_fmt *f)
{
    const struct nvme_zones *z = ns->zones;
    uint64_t block = UINT64_C(1) << f->ds;

    return !((z->size << ns->shift) % block) && !((z->cap << ns->shift) % block) && !(((uint64_t)z->zrwafg << ns->shift) % block) &&
           z->byte_size % block == 0;
}

void nvme_zones_reformat(struct nvme_ns *ns)
{
    struct nvme_zones *z = ns->zones;
    uint64_t block = UINT64_C(1) << ns->shift;

    if (!z)
        return;
    pthread_mutex_lock(&ns->ss->lock);
    z->size = z->byte_size / block;
    z->cap = z->byte_cap / block;
    z->zrwas = (uint32_t)(z->byte_zrwas / block);
    z->zrwafg = (uint32_t)(z->byte_zrwafg / block);
    z->n = (uint32_t)MIN(z->n_alloc, ns->nsze / z->size);
    ns->nsze = z->n * z->size;
    for (uint32_t i = 0; i < z->n_alloc; i++)
        zone_empty(z, &z->zone[i]);
    pthread_mutex_unlock(&ns->ss->lock);
}

/* What stays after power was off: open zones are closed, those in a reset are read as before it (2.1.1.4.2). */
void nvme_zones_power_cycle(struct nvme_ns *ns)
{
    struct nvme_zones *z = ns->zones;

    pthread_mutex_lock(&ns->ss->lock);
    for (uint32_t i = 0; z && i < z->n; i++) {
        z->zone[i].busy = false;
        z->zone[i].next = z->zone[i].wp;
        if (zone_is_open(&z->zone[i]))
            zone_close(z, &z->zone[i]);
    }
    pthread_mutex_unlock(&ns->ss->lock);
}

/* ---- kept between runs: [index, state, attributes, written blocks], of the zones that are not empty ---- */

json_t *nvme_zones_to_json(const struct nvme_ns *ns)
{
    const struct nvme_zones *z = ns->zones;
    json_t *list = json_array();

    for (uint32_t i = 0; i < z->n; i++) {
        const struct nvme_zone *x = &z->zone[i];
        json_t *one;

        if (x->state == ZONE_EMPTY)
            continue;
        one = json_pack("[I, i, i, I]", (json_int_t)i, x->state, x->attr, (json_int_t)(x->wp - zone_start(z, x)));
        if (x->attr & ZONE_ATTR_EXT) {
            json_t *ext = json_array();
            for (uint32_t k = 0; k < z->ext_size; k++)
                json_array_append_new(ext, json_integer(z->ext[(size_t)i * z->ext_size + k]));
            json_array_append_new(one, ext);
        }
        json_array_append_new(list, one);
    }
    return list;
}

static bool state_known(json_int_t s) { return (s >= ZONE_EMPTY && s <= ZONE_CLOSED) || (s >= ZONE_READ_ONLY && s <= ZONE_OFFLINE); }

bool nvme_zones_from_json(struct nvme_ns *ns, json_t *v, bool live, struct err *e)
{
    struct nvme_zones *z = ns->zones;
    json_t *one, *byte;
    size_t i, k;

    json_array_foreach(v, i, one) {
        json_int_t at = json_integer_value(json_array_get(one, 0)), state = json_integer_value(json_array_get(one, 1));
        json_int_t attr = json_integer_value(json_array_get(one, 2)), wp = json_integer_value(json_array_get(one, 3));
        struct nvme_zone *x;

        if (at < 0 || at >= z->n || !state_known(state) || wp < 0 || (uint64_t)wp > z->cap)
            return err_set(e, ERR_VALUE, "a zone of namespace %u in the state file makes no sense: were its zones others?", ns->nsid);
        x = &z->zone[at];
        x->attr = (uint8_t)(attr & (ZONE_ATTR_EXT | ZONE_ATTR_FINISHED | (live ? ZONE_ATTR_ZRWA : 0)));
        z->n_zrwa += x->attr & ZONE_ATTR_ZRWA ? 1 : 0;
        x->wp = x->next = zone_start(z, x) + (uint64_t)wp;
        json_array_foreach(json_array_get(one, 4), k, byte)
            if (k < z->ext_size)
                z->ext[(size_t)at * z->ext_size + k] = (uint8_t)json_integer_value(byte);
        zone_set(z, x, (uint8_t)state);
    }
    return true;
}
