/* SPDX-License-Identifier: MIT */
#include "hw/nvme/media.h"
#include "hw/nvme/persist.h"

#include <stdlib.h>
#include "base/str.h"

#define UNCOR_MAX 1024u                 /* ranges of a namespace */
#define FILL_CHUNK (64 * KiB)
#define WAIT_NS 20000

/* ---- blocks ---- */

static uint64_t meta_at(const struct nvme_ns *ns, uint64_t slba) { return ns->base + ns->meta_off + slba * ns->ms; }

uint16_t co_nvme_media_read(struct nvme_req *r, struct nvme_ns *ns, uint64_t slba, uint64_t nlb, uint8_t *data, uint8_t *meta)
{
    struct iovec v = { data, nlb << ns->shift }, m = { meta, nlb * ns->ms };
    int e;

    if (nvme_uncor_hit(ns, slba, nlb))
        return NVME_READ_FAULT | NVME_DNR;
    e = co_blk_preadv(ns->unit->blk, ns->base + (slba << ns->shift), v.iov_len, &v, 1, 0);
    if (!e && ns->ms)
        e = co_blk_preadv(ns->unit->blk, meta_at(ns, slba), m.iov_len, &m, 1, 0);
    return nvme_status_of(r, e, true);
}

uint16_t co_nvme_media_write(struct nvme_req *r, struct nvme_ns *ns, uint64_t slba, uint64_t nlb, uint8_t *data, uint8_t *meta, unsigned fl)
{
    struct iovec v = { data, nlb << ns->shift }, m = { meta, nlb * ns->ms };
    int e = co_blk_pwritev(ns->unit->blk, ns->base + (slba << ns->shift), v.iov_len, &v, 1, fl);

    if (!e && ns->ms)
        e = co_blk_pwritev(ns->unit->blk, meta_at(ns, slba), m.iov_len, &m, 1, fl);
    if (!e)
        nvme_uncor_clear(ns, slba, nlb);
    return nvme_status_of(r, e, false);
}

uint16_t co_nvme_meta_fill(struct nvme_req *r, struct nvme_ns *ns, uint64_t slba, uint64_t nlb, uint8_t byte)
{
    uint64_t at = meta_at(ns, slba), left = nlb * ns->ms;
    uint8_t *buf;
    int e = 0;

    if (!left)
        return NVME_OK;
    if (!byte)
        return nvme_status_of(r, co_blk_zero(ns->unit->blk, at, left, 0), false);
    buf = xcalloc(1, FILL_CHUNK);
    memset(buf, byte, FILL_CHUNK);
    while (left && !e && !r->abort) {
        struct iovec v = { buf, MIN(left, FILL_CHUNK) };

        e = co_blk_pwritev(ns->unit->blk, at, v.iov_len, &v, 1, 0);
        at += v.iov_len;
        left -= v.iov_len;
    }
    free(buf);
    return nvme_status_of(r, e, false);
}

bool co_nvme_allocated(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    uint64_t at = ns->base + (slba << ns->shift), left = nlb << ns->shift;

    while (left) {
        struct blk_extent x;

        if (co_blk_map(ns->unit->blk, at, left, &x) || !x.len)
            return true;                /* what cannot be told is allocated */
        if (x.zero && !x.data)
            return false;
        at += x.len;
        left -= MIN(left, x.len);
    }
    return true;
}

/* ---- unreadable ranges: sorted, apart from each other; under the subsystem's lock ---- */

struct uncor_range { uint64_t start, end; };
struct nvme_uncor { unsigned n; struct uncor_range r[UNCOR_MAX + 1]; };

static bool hit_locked(const struct nvme_uncor *u, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; u && i < u->n; i++)
        if (u->r[i].start < end && start < u->r[i].end)
            return true;
    return false;
}

bool nvme_uncor_hit(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    bool hit;

    if (!atomic_load_explicit(&ns->has_uncor, memory_order_relaxed))
        return false;
    pthread_mutex_lock(&ns->ss->lock);
    hit = hit_locked(ns->uncor, slba, slba + nlb);
    pthread_mutex_unlock(&ns->ss->lock);
    return hit;
}

static void clear_locked(struct nvme_uncor *u, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < u->n;) {
        struct uncor_range *x = &u->r[i];

        if (x->start >= end || start >= x->end) {
            i++;
        } else if (x->start < start && x->end > end) {
            memmove(x + 1, x, (u->n - i) * sizeof *x);
            u->n++;
            x[0].end = start;
            x[1].start = end;
            i += 2;
        } else if (x->start < start) {
            x->end = start;
            i++;
        } else if (x->end > end) {
            x->start = end;
            i++;
        } else {
            memmove(x, x + 1, (--u->n - i) * sizeof *x);
        }
    }
}

void nvme_uncor_clear(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    if (!atomic_load_explicit(&ns->has_uncor, memory_order_relaxed))
        return;
    pthread_mutex_lock(&ns->ss->lock);
    if (ns->uncor) {
        if (hit_locked(ns->uncor, slba, slba + nlb))
            atomic_fetch_add(&ns->ss->uncor_changes, 1);
        clear_locked(ns->uncor, slba, slba + nlb);
        atomic_store(&ns->has_uncor, ns->uncor->n != 0);
    }
    pthread_mutex_unlock(&ns->ss->lock);
}

bool nvme_uncor_add(struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    struct nvme_uncor *u;
    unsigned i;
    bool ok;

    pthread_mutex_lock(&ns->ss->lock);
    u = ns->uncor = ns->uncor ? ns->uncor : xnew(struct nvme_uncor);
    clear_locked(u, slba, slba + nlb);
    ok = u->n < UNCOR_MAX - 1;          /* clearing may split one */
    for (i = 0; i < u->n && u->r[i].start < slba; i++)
        ;
    if (ok) {
        memmove(&u->r[i + 1], &u->r[i], (u->n++ - i) * sizeof u->r[0]);
        u->r[i] = (struct uncor_range){ slba, slba + nlb };
    }
    atomic_store(&ns->has_uncor, u->n != 0);
    atomic_fetch_add(&ns->ss->uncor_changes, 1);
    pthread_mutex_unlock(&ns->ss->lock);
    return ok;
}

bool nvme_uncor_next(struct nvme_ns *ns, uint64_t from, uint64_t *start, uint64_t *end)
{
    bool found = false;

    pthread_mutex_lock(&ns->ss->lock);
    for (unsigned i = 0; ns->uncor && i < ns->uncor->n && !found; i++) {
        found = ns->uncor->r[i].end > from;
        *start = MAX(ns->uncor->r[i].start, from);
        *end = ns->uncor->r[i].end;
    }
    pthread_mutex_unlock(&ns->ss->lock);
    return found;
}

void nvme_uncor_free(struct nvme_ns *ns)
{
    pthread_mutex_lock(&ns->ss->lock);
    if (ns->uncor && ns->uncor->n)
        atomic_fetch_add(&ns->ss->uncor_changes, 1);
    free(ns->uncor);
    ns->uncor = NULL;
    atomic_store(&ns->has_uncor, false);
    pthread_mutex_unlock(&ns->ss->lock);
}

json_t *nvme_uncor_to_json(const struct nvme_ns *ns)
{
    json_t *list = json_array();

    for (unsigned i = 0; ns->uncor && i < ns->uncor->n; i++)
        json_array_append_new(list, json_pack("[I, I]", (json_int_t)ns->uncor->r[i].start, (json_int_t)ns->uncor->r[i].end));
    return list;
}

void nvme_uncor_from_json(struct nvme_ns *ns, json_t *v)
{
    json_t *one;
    size_t i;

    json_array_foreach(v, i, one) {
        json_int_t from = json_integer_value(json_array_get(one, 0)), to = json_integer_value(json_array_get(one, 1));

        if (from >= 0 && from < to && (uint64_t)to <= ns->nsze)
            nvme_uncor_add(ns, (uint64_t)from, (uint64_t)(to - from));
    }
}

/* ---- writers and one alone: rare enough to look again from time to time; the others may be on other loops ---- */

static void co_pause(void) { co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + WAIT_NS); }

void co_nvme_write_begin(struct nvme_ns *ns)
{
    for (;;) {
        atomic_fetch_add(&ns->writers, 1);
        if (likely(!atomic_load(&ns->alone)))
            return;
        atomic_fetch_sub(&ns->writers, 1);
        co_pause();
    }
}

void nvme_write_end(struct nvme_ns *ns) { atomic_fetch_sub(&ns->writers, 1); }

void co_nvme_alone_begin(struct nvme_ns *ns)
{
    while (atomic_exchange(&ns->alone, true))
        co_pause();
    while (atomic_load(&ns->writers))
        co_pause();
}

void nvme_alone_end(struct nvme_ns *ns) { atomic_store(&ns->alone, false); }

/* ---- protection ---- */

static uint16_t status_of_wrong(enum pi_result wrong)
{
    static const uint16_t status[] = { [PI_OK] = NVME_OK, [PI_WRONG_GUARD] = NVME_GUARD_CHECK, [PI_WRONG_APP] = NVME_APPTAG_CHECK,
                                       [PI_WRONG_REF] = NVME_REFTAG_CHECK, [PI_WRONG_STORAGE] = NVME_STORAGETAG_CHECK };

    return status[wrong];
}

uint16_t nvme_pi_check(const struct pi *pi, const uint8_t *data, const uint8_t *meta, uint64_t nlb)
{
    return status_of_wrong(pi_check(pi, data, meta, nlb, NULL));
}

uint16_t nvme_pi_check_read(const struct pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb)
{
    return status_of_wrong(pi_check_read(pi, data, meta, nlb));
}

uint16_t nvme_pi_of(const struct nvme_req *r, const struct nvme_ns *ns, uint64_t slba, uint8_t prinfo, struct pi *pi)
{
    const struct nvme_cmd *c = &r->cmd;
    unsigned bits = pi_ref_bits(ns->pif, ns->sts), all = ns->pif == PIF_16 ? 32 : ns->pif == PIF_32 ? 80 : 48;
    unsigned __int128 tags = c->cdw14;

    if (ns->pif != PIF_16)
        tags |= (unsigned __int128)c->cdw3 << 32 | (unsigned __int128)(c->cdw2 & 0xffff) << 64;
    tags &= ((unsigned __int128)1 << all) - 1;
    *pi = (struct pi){ .type = ns->pi, .pif = ns->pif, .first = ns->pil, .sts = ns->sts, .ms = ns->ms, .block = 1u << ns->shift,
                            .checks = prinfo, .check_storage = ns->sts && c->cdw12 >> 24 & 1, .app = (uint16_t)c->cdw15,
                            .app_mask = (uint16_t)(c->cdw15 >> 16), .storage = ns->sts ? (uint64_t)(tags >> (all - ns->sts)) : 0 };
    pi->ref = (uint64_t)tags & (bits >= 64 ? UINT64_MAX : BIT64(bits) - 1);
    if (!ns->pi)
        return NVME_OK;
    if (ns->pi == 3 && prinfo & PI_CHECK_REF)
        return NVME_INVALID_PI | NVME_DNR;
    if (ns->pi == 1 && prinfo & PI_CHECK_REF && pi->ref != (slba & (bits >= 64 ? UINT64_MAX : BIT64(bits) - 1)))
        return NVME_INVALID_PI | NVME_DNR;
    return NVME_OK;
}
