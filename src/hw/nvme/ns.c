/* SPDX-License-Identifier: MIT */
/* Namespaces: made from options, given a format, attached to controllers. The slots of a subsystem live as long as it does. */
#include <stdlib.h>
#include <sys/random.h>
#include "base/str.h"
#include "hw/nvme/atomic.h"
#include "hw/nvme/fdp.h"
#include "hw/nvme/kv.h"
#include "hw/nvme/lbatype.h"
#include "hw/nvme/media.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/resv.h"

static const struct nvme_fmt formats[NVME_FORMATS] = {
    { 9, 0 }, { 9, 8 }, { 9, 16 }, { 9, 64 }, { 12, 0 }, { 12, 8 }, { 12, 16 }, { 12, 64 },
    { 10, 0 }, { 11, 0 }, { 13, 0 }, { 14, 0 }, { 15, 0 }, { 16, 0 }, { 16, 8 }, { 16, 64 },
};

void nvme_formats(struct nvme_fmt *out) { memcpy(out, formats, sizeof formats); }

void nvme_ns_set_format(struct nvme_ns *ns, unsigned lbaf, bool extended, unsigned pi, bool pil)
{
    const struct nvme_fmt *f = &ns->lbaf[lbaf];

    ns->shift = f->ds;
    ns->ms = f->ms;
    ns->extended = extended && f->ms;
    ns->flbas = (uint8_t)((lbaf & 15) | (ns->extended ? 1 << 4 : 0) | lbaf >> 4 << 5);
    ns->pi = (uint8_t)(f->ms ? pi : 0);
    ns->pil = pil && ns->pi;
    ns->nsze = ns->space / ((UINT64_C(1) << f->ds) + f->ms);
    ns->meta_off = ns->nsze << f->ds;
}

/* ---- access ---- */

struct nvme_ns *nvme_ns_get(struct nvme *n, uint32_t nsid)
{
    struct nvme_ns *ns = nvme_ns_at(n, nsid);

    if (!ns)
        return NULL;
    atomic_fetch_add(&ns->in_flight, 1);
    if (atomic_load(&ns->live) && atomic_load(&n->ns[nsid]) == ns)
        return ns;
    nvme_ns_put(ns);
    return NULL;
}

void nvme_ns_put(struct nvme_ns *ns) { atomic_fetch_sub(&ns->in_flight, 1); }

static void cache_update(struct nvme *n)
{
    bool cache = false;

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        const struct nvme_ns *ns = nvme_ns_at(n, i);
        cache |= ns && ns->unit->caps.flush;
    }
    atomic_store(&n->has_cache, cache);
}

void nvme_attach(struct nvme *n, struct nvme_ns *ns)
{
    ns->attach[n->cntlid / 32] |= 1u << (n->cntlid & 31);
    atomic_store(&n->ns[ns->nsid], ns);
    cache_update(n);
}

void nvme_detach(struct nvme *n, struct nvme_ns *ns)
{
    ns->attach[n->cntlid / 32] &= ~(1u << (n->cntlid & 31));
    atomic_store(&n->ns[ns->nsid], NULL);
    cache_update(n);
}

static bool meant_for(const struct nvme_ns *ns, const struct nvme *n) { return ns->attach[n->cntlid / 32] >> (n->cntlid & 31) & 1; }

void nvme_attach_known(struct nvme *n)
{
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_allocated(n->ss, i);
        if (ns && meant_for(ns, n))
            nvme_attach(n, ns);
    }
}

static void attach_meant(struct nvme_ns *ns)
{
    pthread_mutex_lock(&ns->ss->lock);
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
        if (ns->ss->ctrl[i] && meant_for(ns, ns->ss->ctrl[i]))
            nvme_attach(ns->ss->ctrl[i], ns);
    pthread_mutex_unlock(&ns->ss->lock);
}

void nvme_ns_changed(struct nvme_subsys *ss, uint32_t nsid, const struct nvme *but)
{
    pthread_mutex_lock(&ss->lock);
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++) {
        struct nvme *n = ss->ctrl[i];

        if (!n || n == but)
            continue;
        atomic_fetch_or(&n->changed_ns[nsid / 32], 1u << (nsid & 31));
        atomic_store(&n->ns_change, true);
        domain_post(&n->events_post);
    }
    pthread_mutex_unlock(&ss->lock);
}

/* ---- life ---- */

/* The size or medium behind the unit changed: namespaces at its end grow or shrink. */
static void unit_changed(void *arg)
{
    struct nvme_unit *u = arg;
    struct nvme_subsys *ss = u->ss;

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_allocated(ss, i);

        if (!ns || ns->unit != u || ns->base || ns->space == blk_size(u->blk) || ns->zones || ns->kv)
            continue;
        ns->space = blk_size(u->blk);
        if (!ns->ms)
            nvme_ns_set_format(ns, (ns->flbas & 15u) | (ns->flbas >> 5 & 3u) << 4, ns->extended, ns->pi, ns->pil);
        nvme_ns_changed(ss, i, NULL);
    }
}

static bool unit_open(struct nvme_unit *u, struct nvme_subsys *ss, struct blk_front_opts *opt, struct dev *user, struct err *e)
{
    u->blk = blk_front_open(opt, &user->obj, user->dom, true, e);
    if (!u->blk)
        return false;
    blk_get_caps(u->blk, &u->caps);
    u->opt = opt;
    u->ss = ss;
    u->going = false;
    u->coming = true;
    blk_set_change_cb(u->blk, unit_changed, u);
    pthread_mutex_lock(&ss->lock);
    list_push(&ss->units, &u->link);
    pthread_mutex_unlock(&ss->lock);
    return true;
}

void nvme_unit_close(struct nvme_unit *u)
{
    if (!u->blk)
        return;
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++)
        if (u->ss->ns[i] && u->ss->ns[i]->unit == u) {
            nvme_ns_clean(u->ss->ns[i]);        /* no longer live, and nothing is in flight */
            u->ss->ns[i]->going = false;
        }
    pthread_mutex_lock(&u->ss->lock);
    list_del(&u->link);
    if (u->going)
        atomic_fetch_sub(&u->ss->units_going, 1);
    nvme_sanitize_again(u->ss);
    pthread_mutex_unlock(&u->ss->lock);
    blk_close(u->blk);
    u->blk = NULL;
}

static uint32_t free_nsid(const struct nvme_subsys *ss)
{
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++)
        if (!nvme_ns_taken(ss, i))
            return i;
    return 0;
}

/*
 * The format of @shift and @ms. One that is none of the usual takes the place of the last, which comes after it: hosts that know of 16
 * formats only reach the namespace.
 */
unsigned nvme_format_for(struct nvme_ns *ns, uint8_t shift, uint16_t ms)
{
    nvme_formats(ns->lbaf);
    ns->n_lbaf = NVME_FORMATS;
    for (unsigned i = 0; i < ns->n_lbaf; i++)
        if (ns->lbaf[i].ds == shift && ns->lbaf[i].ms == ms)
            return i;
    ns->lbaf[NVME_FORMATS] = ns->lbaf[NVME_FORMATS - 1];
    ns->lbaf[NVME_FORMATS - 1] = (struct nvme_fmt){ shift, ms };
    ns->n_lbaf = NVME_FORMATS + 1;
    return NVME_FORMATS - 1;
}

static bool nguid_parse(const char *s, uint8_t out[16], struct err *e)
{
    unsigned k = 0;

    for (; s && *s; s++) {
        const char *hex = "0123456789abcdef", *p;

        if (*s == '-')
            continue;
        p = strchr(hex, *s | 0x20);
        if (!p || k == 32)
            return err_set(e, ERR_VALUE, "nguid must be 32 hexadecimal digits");
        out[k / 2] = (uint8_t)(out[k / 2] << 4 | (p - hex));
        k++;
    }
    return !s || k == 32 || err_set(e, ERR_VALUE, "nguid must be 32 hexadecimal digits, not %u", k);
}

struct nvme_ns *nvme_ns_new(struct nvme_subsys *ss, uint32_t nsid, struct err *e)
{
    struct nvme_ns *ns;

    if (!nsid)
        nsid = free_nsid(ss);
    if (!nsid || nvme_ns_taken(ss, nsid)) {
        err_set(e, ERR_BUSY, nsid ? "namespace id %u is in use" : "all %u namespace ids are in use", nsid ? nsid : NVME_NS_MAX);
        return NULL;
    }
    ns = ss->ns[nsid];
    if (ns)
        range_claims_fini(&ns->ranges);         /* of one that had the id before */
    else
        ns = xnew(struct nvme_ns);
    *ns = (struct nvme_ns){ .ss = ss, .nsid = nsid, .mssrl = 128, .mcl = 128, .msrc = 127, .anagrp = 1 };
    range_claims_init(&ns->ranges);
    ss->ns[nsid] = ns;
    return ns;
}

/* A random UUID (RFC 9562, version 4) where none was given. */
static void uuid_default(uint8_t u[16])
{
    static const uint8_t none[16];

    if (memcmp(u, none, 16) || getrandom(u, 16, 0) != 16)
        return;
    u[6] = (uint8_t)((u[6] & 0x0f) | 0x40);
    u[8] = (uint8_t)((u[8] & 0x3f) | 0x80);
}

bool nvme_pi_fits(unsigned pi, uint8_t pif, uint16_t ms) { return pi <= 3 && (!pi || ms >= pi_size(pif)); }

/* The format that the options ask for. */
static bool ns_format(struct nvme_ns *ns, const struct blk_front_opts *opt, const struct nvme_ns_opts *no, struct err *e)
{
    if (opt->logical_block_size > 64 * KiB)
        return err_set(e, ERR_VALUE, "logical_block_size is %u, but the most that a namespace has is 65536", opt->logical_block_size);
    if (!nvme_pi_fits(no->pi, no->pif, no->ms))
        return err_set(e, ERR_VALUE, "pi=%u needs %u bytes of metadata, but ms is %u", no->pi, pi_size(no->pif), no->ms);
    nvme_ns_set_format(ns, nvme_format_for(ns, (uint8_t)ctz64(opt->logical_block_size), no->ms), no->mset, no->pi, no->pil);
    return ns->nsze || err_set(e, ERR_VALUE, "'%s' is too small for one block of %u bytes", ((struct obj *)opt->drive)->id, opt->logical_block_size);
}

/* One namespace on @u: as the options say, or as @kept of the state file does. */
static bool make(struct nvme_subsys *ss, struct nvme *n, struct nvme_unit *u, struct nvme_ns_opts *no, json_t *kept, struct err *e)
{
    struct nvme_ns *ns;
    bool ok;

    pthread_mutex_lock(&ss->lock);
    ns = nvme_ns_new(ss, kept ? (uint32_t)json_integer_value(json_object_get(kept, "nsid")) : no->nsid, e);
    if (ns) {
        ns->unit = u;
        atomic_store(&ns->in_flight, 1);                /* the id is taken, whatever hosts make meanwhile */
    }
    pthread_mutex_unlock(&ss->lock);
    if (!ns)
        return false;
    ns->space = blk_size(u->blk);
    ns->shared = !ss->own && no->shared_opt != TRI_OFF;
    memcpy(ns->uuid, no->uuid, sizeof ns->uuid);
    uuid_default(ns->uuid);
    ns->eui64 = no->eui64 ? no->eui64 : no->eui64_default ? UINT64_C(0x5254000000000000) + ns->nsid : 0;
    ns->mssrl = no->mssrl;
    ns->mcl = no->mcl;
    ns->msrc = no->msrc;
    ns->pif = no->pif;
    ns->sts = no->pif == PIF_32 ? 16 : 0;
    ns->anagrp = no->anagrp;
    ns->atomic = no->atomic;
    ns->atomic.on = no->atomic.nawun || no->atomic.nawupf || no->atomic.nabsn || no->atomic.nabspf;
    if (ns->shared && !no->detached)
        memset(ns->attach, 0xff, sizeof ns->attach);
    else if (!no->detached)
        ns->attach[n->cntlid / 32] = 1u << (n->cntlid & 31);
    ok = nvme_atomic_check(&no->atomic, e) && ns_format(ns, u->opt, no, e) && nguid_parse(no->nguid, ns->nguid, e) && nvme_fdp_handles(ns, no->ruhs, e) &&
         (!kept || nvme_persist_ns(ns, kept, e)) && (!no->kv || nvme_kv_new(ns, no, e)) && (!no->zoned || nvme_zones_new(ns, no, e)) &&
         (!ns->zones || !kept || nvme_zones_from_json(ns, json_object_get(kept, "zones"), false, e));
    if (!ok)
        nvme_ns_clean(ns);
    else if (!n->auto_transition)
        nvme_zones_no_auto(ns);
    atomic_store(&ns->live, ok);
    atomic_fetch_sub(&ns->in_flight, 1);
    if (ok)
        attach_meant(ns);
    return ok;
}

bool nvme_unit_create(struct nvme_subsys *ss, struct nvme *n, struct nvme_unit *u, struct blk_front_opts *opt, struct nvme_ns_opts *no,
                      struct dev *user, struct err *e)
{
    json_t *kept, *one;
    size_t i;
    bool ok;

    if (!unit_open(u, ss, opt, user, e))
        return false;
    kept = nvme_persist_unit(ss, u);
    ok = kept || make(ss, n, u, no, NULL, e);
    json_array_foreach(kept, i, one)
        ok = ok && make(ss, n, u, no, one, e);
    pthread_mutex_lock(&ss->lock);
    u->coming = false;
    pthread_mutex_unlock(&ss->lock);
    if (!ok) {
        nvme_unit_leave(u);
        nvme_unit_close(u);
    }
    return ok;
}

uint32_t nvme_unit_leave(struct nvme_unit *u)
{
    uint32_t first = 0;

    pthread_mutex_lock(&u->ss->lock);
    if (!u->going)
        atomic_fetch_add(&u->ss->units_going, 1);
    u->going = true;
    pthread_mutex_unlock(&u->ss->lock);
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_allocated(u->ss, i);

        if (!ns || ns->unit != u)
            continue;
        first = first ? first : i;
        ns->going = true;
        nvme_ns_destroy(ns);
        nvme_ns_changed(u->ss, i, NULL);
    }
    return first;
}

bool nvme_unit_busy(const struct nvme_unit *u)
{
    if (atomic_load(&u->ss->sanitizing))
        return true;                    /* it goes through every unit, and stops where one is going */
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++) {
        const struct nvme_ns *ns = u->ss->ns[i];
        if (ns && ns->unit == u && atomic_load(&ns->in_flight))
            return true;
    }
    return false;
}

void nvme_ns_identify_as(struct nvme_ns *ns) { uuid_default(ns->uuid); }

void nvme_ns_clear(struct nvme_ns *ns)
{
    nvme_uncor_free(ns);
    nvme_lba_types_free(ns);
    nvme_resv_free(ns);
}

void nvme_ns_clean(struct nvme_ns *ns)
{
    nvme_ns_clear(ns);
    nvme_zones_free(ns);
    nvme_kv_free(ns);
}

void nvme_ns_destroy(struct nvme_ns *ns)
{
    atomic_store(&ns->live, false);
    pthread_mutex_lock(&ns->ss->lock);
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
        if (ns->ss->ctrl[i] && nvme_ns_at(ns->ss->ctrl[i], ns->nsid) == ns) {
            atomic_store(&ns->ss->ctrl[i]->ns[ns->nsid], NULL);
            cache_update(ns->ss->ctrl[i]);
        }
    pthread_mutex_unlock(&ns->ss->lock);
}
