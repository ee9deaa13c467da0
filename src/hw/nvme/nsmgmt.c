/* SPDX-License-Identifier: MIT */
/*
 * Namespace Management and Attachment (5.23, 5.22). Capacity is what the units of the subsystem (the drives of nvme and
 * nvme-ns) hold and no namespace uses: deleting one makes room for others on its drive.
 */
#include <stdlib.h>
#include "hw/nvme/pel.h"

#define ALIGN MiB

enum { MGMT_CREATE = 0, MGMT_DELETE = 1 };

/* ---- space ---- */

/* The lowest place of @space bytes in @u at or after @at that no namespace touches; UINT64_MAX if there is none. */
static uint64_t find_gap(const struct nvme_subsys *ss, const struct nvme_unit *u, uint64_t space)
{
    uint64_t at = 0;

    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
            const struct nvme_ns *ns = nvme_ns_taken(ss, i);

            if (ns && ns->unit == u && ranges_overlap(at, space, ns->base, ns->space)) {
                at = align_up(ns->base + ns->space, ALIGN);
                moved = true;
            }
        }
    }
    return range_ok(at, space, blk_size(u->blk)) ? at : UINT64_MAX;
}

void nvme_capacity(struct nvme_subsys *ss, uint64_t *total, uint64_t *unused)
{
    struct nvme_unit *u;

    pthread_mutex_lock(&ss->lock);
    *total = 0;
    list_for_each(u, &ss->units, link)
        *total += blk_size(u->blk);
    *unused = *total;
    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        const struct nvme_ns *ns = nvme_ns_allocated(ss, i);
        *unused -= ns ? MIN(ns->space, *unused) : 0;
    }
    pthread_mutex_unlock(&ss->lock);
}

/* ---- create ---- */

struct wish { uint64_t nsze, ncap; unsigned lbaf; bool extended, shared, pil; uint8_t pi; uint16_t anagrp; };

static uint16_t parse_wish(struct nvme_req *r, struct wish *w)
{
    uint8_t b[4096];
    uint16_t st = nvme_from_host(r, b, sizeof b);

    if (st)
        return st;
    *w = (struct wish){ .nsze = ld_le64(b), .ncap = ld_le64(b + 8), .lbaf = (b[26] & 15u) | (b[26] >> 5 & 3u) << 4, .extended = b[26] >> 4 & 1,
                        .pi = b[29] & 7, .pil = b[29] >> 3 & 1, .shared = b[30] & 1, .anagrp = (uint16_t)ld_le32(b + 92) };
    if (!w->nsze || w->ncap > w->nsze)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (w->ncap != w->nsze)
        return NVME_THIN | NVME_DNR;
    if (w->anagrp > NVME_ANA_GROUPS)
        return NVME_ANA_GROUP | NVME_DNR;
    return NVME_OK;
}

/* Room for the wish in @u: makes the namespace there. Subsystem's lock held. */
static bool place(struct nvme_subsys *ss, struct nvme_unit *u, const struct wish *w, uint64_t space, uint32_t *nsid)
{
    uint64_t at = find_gap(ss, u, space);
    struct err e = ERR_INIT;
    struct nvme_ns *ns;

    if (at == UINT64_MAX || u->caps.read_only)
        return false;
    ns = nvme_ns_new(ss, 0, &e);
    if (!ns)
        return false;
    ns->unit = u;
    ns->base = at;
    ns->space = space;
    ns->shared = w->shared;
    ns->anagrp = w->anagrp ? w->anagrp : 1;
    ns->n_lbaf = NVME_FORMATS;
    nvme_formats(ns->lbaf);
    nvme_ns_identify_as(ns);
    nvme_ns_set_format(ns, w->lbaf, w->extended, w->pi, w->pil);
    *nsid = ns->nsid;
    return true;
}

static uint16_t co_create(struct nvme_req *r)
{
    struct nvme_subsys *ss = r->n->ss;
    struct nvme_fmt f[NVME_FORMATS];
    struct nvme_unit *u;
    struct wish w;
    uint32_t nsid = 0;
    uint64_t block;
    uint16_t st = r->cmd.cdw11 >> 24 == NVME_CSI_NVM ? parse_wish(r, &w) : NVME_IOCS_UNSUPPORTED | NVME_DNR;

    if (st)
        return st;
    nvme_formats(f);
    if (w.lbaf >= NVME_FORMATS || !nvme_pi_fits(w.pi, NVME_PIF_DEFAULT, f[w.lbaf].ms))
        return NVME_INVALID_FORMAT | NVME_DNR;
    block = (UINT64_C(1) << f[w.lbaf].ds) + f[w.lbaf].ms;
    if (w.nsze > UINT64_MAX / 2 / block)
        return NVME_NS_CAPACITY | NVME_DNR;
    pthread_mutex_lock(&ss->lock);
    list_for_each(u, &ss->units, link)
        if (!nsid && !u->going && !u->coming)
            place(ss, u, &w, w.nsze * block, &nsid);
    struct nvme_ns *ns = nsid ? ss->ns[nsid] : NULL;
    if (ns)
        atomic_fetch_add(&ns->in_flight, 1);            /* the id and the place are taken */
    pthread_mutex_unlock(&ss->lock);
    if (!ns)
        return NVME_NS_CAPACITY | NVME_DNR;
    r->ns = ns;
    st = co_nvme_erase(r, ns);                          /* nobody reads what was there before */
    pthread_mutex_lock(&ss->lock);
    if (ns->unit->going)                                /* meanwhile: it is not there any more */
        st = NVME_NS_CAPACITY | NVME_DNR;
    if (!st)
        atomic_store(&ns->live, true);
    pthread_mutex_unlock(&ss->lock);
    r->result = nsid;
    if (!st)
        nvme_pel_namespace(r, nsid, ns);
    nvme_state_dirty(ss);
    return st;
}

/* ---- delete ---- */

static uint16_t co_delete_one(struct nvme_req *r, struct nvme_ns *ns)
{
    nvme_ns_destroy(ns);
    while (atomic_load(&ns->in_flight))                 /* a reset does not end it: what ran then uses what is taken down here */
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + 50000);
    nvme_ns_clean(ns);
    nvme_ns_changed(ns->ss, ns->nsid, r->n);
    nvme_state_dirty(ns->ss);
    return NVME_OK;
}

/* 8.12: no command but Set Features changes a namespace that is write protected. */
static uint16_t co_delete(struct nvme_req *r)
{
    struct nvme_subsys *ss = r->n->ss;
    uint32_t nsid = r->cmd.nsid;

    if (nsid != UINT32_MAX) {
        struct nvme_ns *ns = nvme_ns_allocated(ss, nsid);

        if (!nsid || nsid > NVME_NS_MAX)
            return NVME_INVALID_NSID | NVME_DNR;
        if (ns && ns->write_protect)
            return NVME_WRITE_PROTECTED | NVME_DNR;
        return ns ? co_delete_one(r, ns) : NVME_INVALID_FIELD | NVME_DNR;
    }
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++)         /* all or none */
        if (nvme_ns_allocated(ss, i) && ss->ns[i]->write_protect)
            return NVME_WRITE_PROTECTED | NVME_DNR;
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++)
        if (nvme_ns_allocated(ss, i))
            co_delete_one(r, ss->ns[i]);
    return NVME_OK;
}

uint16_t co_nvme_ns_mgmt(struct nvme_req *r)
{
    uint16_t st;

    switch (r->cmd.cdw10 & 15) {
    case MGMT_CREATE: return co_create(r);
    case MGMT_DELETE:
        st = co_delete(r);
        if (!st)
            nvme_pel_namespace(r, r->cmd.nsid, NULL);
        return st;
    default: return NVME_INVALID_FIELD | NVME_DNR;
    }
}

/* ---- attach ---- */

static uint16_t attach_one(struct nvme_req *r, struct nvme_ns *ns, uint16_t cntlid, bool attach)
{
    struct nvme_subsys *ss = ns->ss;
    struct nvme *n = cntlid < NVME_CTRL_MAX ? ss->ctrl[cntlid] : NULL;
    bool there, elsewhere = false;

    if (!n)
        return NVME_CTRL_LIST | NVME_DNR;
    there = nvme_ns_at(n, ns->nsid) != NULL;
    if (attach && there)
        return NVME_NS_ATTACHED | NVME_DNR;
    if (!attach && !there)
        return NVME_NS_NOT_ATTACHED | NVME_DNR;
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
        elsewhere |= ss->ctrl[i] && ss->ctrl[i] != n && nvme_ns_at(ss->ctrl[i], ns->nsid);
    if (attach && !ns->shared && elsewhere)
        return NVME_NS_PRIVATE | NVME_DNR;
    if (attach)
        nvme_attach(n, ns);
    else
        nvme_detach(n, ns);
    if (n != r->n) {
        atomic_fetch_or(&n->changed_ns[ns->nsid / 32], 1u << (ns->nsid & 31));
        atomic_store(&n->ns_change, true);
        domain_post(&n->events_post);
    }
    return NVME_OK;
}

uint16_t co_nvme_ns_attach(struct nvme_req *r)
{
    struct nvme_subsys *ss = r->n->ss;
    uint32_t nsid = r->cmd.nsid, sel = r->cmd.cdw10 & 15;
    struct nvme_ns *ns = nvme_ns_allocated(ss, nsid);
    uint16_t list[2048], st = NVME_OK, count;

    if (!nsid || nsid > NVME_NS_MAX)
        return NVME_INVALID_NSID | NVME_DNR;
    if (!ns || sel > 1)
        return NVME_INVALID_FIELD | NVME_DNR;
    st = nvme_from_host(r, list, sizeof list);
    count = st ? 0 : le16toh(list[0]);
    if (!st && (!count || count > 2047))
        st = NVME_CTRL_LIST | NVME_DNR;
    pthread_mutex_lock(&ss->lock);
    for (unsigned i = 0; !st && i < count; i++)
        st = attach_one(r, ns, le16toh(list[1 + i]), sel == 0);
    pthread_mutex_unlock(&ss->lock);
    nvme_state_dirty(ss);
    return st;
}
