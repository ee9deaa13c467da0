/* SPDX-License-Identifier: MIT */
/* Format NVM and Sanitize (5.14, 5.24, 8.21). */
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/kv.h"
#include "hw/nvme/lbatype.h"
#include "hw/nvme/media.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/resv.h"

#define ERASE_CHUNK (64 * MiB)
#define OVERWRITE_CHUNK (1 * MiB)

/* ---- erasing ---- */

/* Everything that a namespace has, as after its first power-on. */
uint16_t co_nvme_erase(struct nvme_req *r, struct nvme_ns *ns)
{
    uint16_t st = NVME_OK;

    for (uint64_t at = 0; !st && at < ns->space; at += ERASE_CHUNK) {
        if (r->abort)
            return NVME_ABORT_REQUESTED;
        st = nvme_status_of(r, co_blk_zero(ns->unit->blk, ns->base + at, MIN(ERASE_CHUNK, ns->space - at), BLK_ZERO_UNMAP), false);
    }
    if (!st && ns->pi)
        st = co_nvme_meta_fill(r, ns, 0, ns->nsze, 0xff);       /* unwritten blocks are not checked */
    nvme_uncor_free(ns);
    nvme_lba_types_free(ns);
    nvme_kv_forget(ns);
    return st;
}

/* ---- format, 5.14 ---- */

struct wish { unsigned lbaf; bool extended, pil; uint8_t pi, ses; };

static uint16_t format_check(const struct nvme *n, const struct nvme_ns *ns, const struct wish *w)
{
    if (w->lbaf >= nvme_formats_seen(n, ns) || w->ses > 2 || (ns->kv && (w->lbaf || w->pi || w->extended)))
        return NVME_INVALID_FORMAT | NVME_DNR;
    if (!nvme_pi_fits(w->pi, ns->pif, ns->lbaf[w->lbaf].ms) || (ns->zones && !nvme_zones_fit(ns, &ns->lbaf[w->lbaf])))
        return NVME_INVALID_FORMAT | NVME_DNR;
    if (ns->unit->caps.read_only || ns->write_protect)
        return NVME_WRITE_PROTECTED | NVME_DNR;
    return nvme_resv_held(ns) ? NVME_RESV_CONFLICT | NVME_DNR : NVME_OK;
}

/* Events 07h and 08h: the namespace, the attributes of the command; with the end, what became of it. */
static void format_event(const struct nvme_req *r, const struct nvme_ns *ns, uint8_t type, uint16_t st)
{
    uint8_t d[12] = { 0 };

    st_le32(d, ns->nsid);
    if (type == NVME_PEL_FORMAT_START) {
        st_le32(d + 8, r->cmd.cdw10);
        d[4] = 1 << 2;                                  /* FNA */
    } else {
        d[5] = st ? 1 : 0;
        st_le16(d + 8, (uint16_t)(st << 1));
    }
    nvme_pel_add(r->n, type, d, sizeof d);
}

static uint16_t co_format_one(struct nvme_req *r, struct nvme_ns *ns, const struct wish *w)
{
    uint16_t st = format_check(r->n, ns, w);

    if (st)
        return st;
    if (atomic_exchange(&ns->formatting, true))
        return NVME_FORMAT_BUSY;
    while (atomic_load(&ns->in_flight) > 1 && !r->abort)        /* one is ours */
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + 50000);
    format_event(r, ns, NVME_PEL_FORMAT_START, 0);
    if (!r->abort) {
        if (!ns->kv)
            nvme_ns_set_format(ns, w->lbaf, w->extended, w->pi, w->pil);
        nvme_zones_reformat(ns);
        st = co_nvme_erase(r, ns);
    }
    format_event(r, ns, NVME_PEL_FORMAT_END, st);
    atomic_store(&ns->formatting, false);
    nvme_ns_changed(ns->ss, ns->nsid, r->n);
    nvme_ns_dirty(ns);
    return st;
}

uint16_t co_nvme_format(struct nvme_req *r)
{
    uint32_t d = r->cmd.cdw10;
    struct wish w = { .lbaf = (d & 15) | (d >> 12 & 3) << 4, .extended = d >> 4 & 1, .pi = d >> 5 & 7, .pil = d >> 8 & 1, .ses = d >> 9 & 7 };
    uint16_t st = NVME_OK;

    if (r->ns)
        return co_format_one(r, r->ns, &w);
    for (uint32_t i = 1; !st && i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_get(r->n, i);

        if (!ns)
            continue;
        st = co_format_one(r, ns, &w);
        nvme_ns_put(ns);
    }
    return st;
}

/* ---- sanitize, 8.21: in the background, through every unit of the subsystem ---- */

enum { SAN_EXIT = 1, SAN_ERASE = 2, SAN_OVERWRITE = 3, SAN_CRYPTO = 4 };

static int co_overwrite(struct nvme_unit *u, uint64_t at, uint64_t len, uint32_t pattern)
{
    uint32_t *buf = xcalloc(1, len);
    struct iovec v = { buf, len };
    int e;

    for (uint64_t i = 0; i < len / 4; i++)
        buf[i] = htole32(pattern);
    e = co_blk_pwritev(u->blk, at, len, &v, 1, 0);
    free(buf);
    return e;
}

static int co_sanitize_piece(const struct nvme_sanitize *s, struct nvme_unit *u, uint64_t at, uint64_t len, unsigned pass, unsigned passes)
{
    bool invert = s->cdw10 >> 8 & 1 && (passes - 1 - pass) & 1;

    if (u->caps.read_only)
        return 0;
    if ((s->cdw10 & 7) == SAN_OVERWRITE)
        return co_overwrite(u, at, len, invert ? ~s->pattern : s->pattern);
    return co_blk_zero(u->blk, at, len, s->cdw10 >> 9 & 1 ? 0 : BLK_ZERO_UNMAP);
}

/* The first unit, or the one after @u, which cannot leave meanwhile. */
static struct nvme_unit *unit_next(struct nvme_subsys *ss, struct nvme_unit *u)
{
    struct list *l;

    pthread_mutex_lock(&ss->lock);
    l = u ? u->link.next : ss->units.next;
    pthread_mutex_unlock(&ss->lock);
    return l == &ss->units ? NULL : list_entry(l, struct nvme_unit, link);
}

static bool has_to_stop(const struct nvme *n) { return n->quiesced || atomic_load(&n->ss->units_going); }

/* Goes on where it was; false when it has to stop in the middle (the controller goes, or a unit). */
static bool co_sanitize_run(struct nvme *n, struct nvme_sanitize *s)
{
    bool over = (s->cdw10 & 7) == SAN_OVERWRITE;
    unsigned passes = over ? (s->cdw10 >> 4 & 15 ? s->cdw10 >> 4 & 15 : 16) : 1;
    uint64_t chunk = over ? OVERWRITE_CHUNK : ERASE_CHUNK, total = 0, before = 0;
    struct nvme_unit *u;

    if (has_to_stop(n))
        return false;
    for (u = unit_next(n->ss, NULL); u; u = unit_next(n->ss, u))
        total += blk_size(u->blk) * passes;
    for (unsigned pass = 0; pass < passes; pass++)
        for (u = unit_next(n->ss, NULL); u; u = unit_next(n->ss, u)) {
            uint64_t size = blk_size(u->blk);

            for (uint64_t at = s->done > before ? MIN(s->done - before, size) : 0; at < size; at += chunk) {
                if (has_to_stop(n))
                    return false;
                s->failed |= co_sanitize_piece(s, u, at, MIN(chunk, size - at), pass, passes) != 0;
                s->done = before + MIN(at + chunk, size);
                s->progress = (uint16_t)(total ? (unsigned __int128)s->done * 65535 / total : 65535);
            }
            before += size;
        }
    return true;
}

static void co_sanitize(void *arg)
{
    struct nvme *n = arg;
    struct nvme_subsys *ss = n->ss;
    struct nvme_req all = { .n = n };                   /* stands for no command: nothing aborts it */
    bool done;

    atomic_store(&ss->sanitizing, true);                /* before the look at who is going, who looks at this after */
    done = co_sanitize_run(n, &ss->sanitize);

    if (done) {
        for (unsigned i = 1; i <= NVME_NS_MAX; i++)
            if (nvme_ns_allocated(ss, i)) {
                nvme_uncor_free(ss->ns[i]);
                nvme_zones_reformat(ss->ns[i]);
                nvme_kv_forget(ss->ns[i]);
                if (ss->ns[i]->pi)
                    co_nvme_meta_fill(&all, ss->ns[i], 0, ss->ns[i]->nsze, 0xff);
            }
        pthread_mutex_lock(&ss->lock);
        ss->sanitize.running = false;
        ss->sanitize.progress = 65535;
        ss->sanitize.status = ss->sanitize.failed ? 3 : ss->sanitize.cdw10 >> 9 & 1 ? 4 : 1;
        for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
            if (ss->ctrl[i]) {
                atomic_store(&ss->ctrl[i]->sanitize_event, true);
                domain_post(&ss->ctrl[i]->events_post);
            }
        pthread_mutex_unlock(&ss->lock);
        nvme_pel_add(n, NVME_PEL_SANITIZE_END, (uint8_t[8]){ 0xff, 0xff, (uint8_t)ss->sanitize.status }, 8);
        nvme_state_dirty(ss);
    }
    atomic_store(&ss->sanitizing, false);
    n->background--;
    nvme_drained_wake(n);
}

void nvme_sanitize_hand_over(struct nvme *n)
{
    struct nvme_subsys *ss = n->ss;

    pthread_mutex_lock(&ss->lock);
    if (ss->sanitize.running && ss->sanitize.runner == n) {
        ss->sanitize.runner = NULL;
        for (unsigned i = 0; i < NVME_CTRL_MAX && !ss->sanitize.runner; i++)
            if (ss->ctrl[i] && ss->ctrl[i] != n)
                ss->sanitize.runner = ss->ctrl[i];
        if (ss->sanitize.runner)
            domain_post(&ss->sanitize.runner->resume.post);
        else
            ss->sanitize.running = false;               /* nobody is left who could */
    }
    pthread_mutex_unlock(&ss->lock);
}

void nvme_sanitize_resume(struct nvme *n)
{
    struct nvme_subsys *ss = n->ss;

    if (!n->pci.dev.leaving && ss->sanitize.running && ss->sanitize.runner == n && !n->background && !has_to_stop(n)) {
        n->background++;
        co_spawn(NULL, n->pci.dev.dom, co_sanitize, n);
    }
}

void nvme_sanitize_again(struct nvme_subsys *ss)
{
    if (!ss->sanitize.running)
        return;
    ss->sanitize.done = 0;                              /* it counts the bytes of all units */
    if (ss->sanitize.runner)
        domain_post(&ss->sanitize.runner->events_post);
}

uint16_t co_nvme_sanitize(struct nvme_req *r)
{
    struct nvme_subsys *ss = r->n->ss;
    struct nvme_sanitize *s = &ss->sanitize;
    uint32_t action = r->cmd.cdw10 & 7;
    uint16_t st = NVME_OK;

    if (action < SAN_EXIT || action > SAN_CRYPTO)
        return NVME_INVALID_FIELD | NVME_DNR;
    pthread_mutex_lock(&ss->lock);
    if (s->running)
        st = NVME_SANITIZE_BUSY;
    else if (action == SAN_EXIT)
        s->failed = false;
    else
        *s = (struct nvme_sanitize){ .running = true, .cdw10 = r->cmd.cdw10, .pattern = r->cmd.cdw11, .runner = r->n, .status = 2 };
    for (unsigned i = 1; !st && action != SAN_EXIT && i <= NVME_NS_MAX; i++)
        if (nvme_ns_allocated(ss, i) && (ss->ns[i]->write_protect || nvme_resv_held(ss->ns[i])))
            st = NVME_WRITE_PROTECTED | NVME_DNR;
    if (st && st != NVME_SANITIZE_BUSY)
        s->running = false;
    pthread_mutex_unlock(&ss->lock);
    if (!st && action != SAN_EXIT) {
        uint8_t d[12] = { 0 };

        st_le32(d, NVME_SANICAP);
        st_le32(d + 4, r->cmd.cdw10);
        st_le32(d + 8, r->cmd.cdw11);
        nvme_pel_add(r->n, NVME_PEL_SANITIZE_START, d, sizeof d);
        nvme_sanitize_resume(r->n);
    }
    return st;
}

/* 5.16.1.21. */
void nvme_sanitize_log(const struct nvme_subsys *ss, uint8_t *b)
{
    const struct nvme_sanitize *s = &ss->sanitize;

    st_le16(b, s->running ? s->progress : 65535);
    st_le16(b + 2, s->status);
    st_le32(b + 4, s->cdw10);
    for (unsigned i = 0; i < 6; i++)
        st_le32(b + 8 + 4 * i, UINT32_MAX);                /* times: not told */
}
