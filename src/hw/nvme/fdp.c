/* SPDX-License-Identifier: MIT */
/* Flexible Data Placement (TP4146, base 2.1 section 8.1.10). One endurance group. */
#include "hw/nvme/fdp.h"

#include <stdlib.h>
#include "base/str.h"

enum { EVENT_RU_NOT_FULL = 0, EVENT_INVALID_PID = 3 };  /* host events */
#define EVENT_VALID_PID 1u
#define EVENT_VALID_NSID 2u
#define EVENT_VALID_LOCATION 4u

bool nvme_fdp_init(struct nvme_fdp *f, struct err *e)
{
    if (!f->on)
        return true;
    if (!f->nruh || !f->nrg || !f->runs)
        return err_set(e, ERR_VALUE, "fdp=on needs fdp.nruh, fdp.nrg and fdp.runs");
    f->there = true;
    f->rgif = 0;
    while (1u << f->rgif < f->nrg)
        f->rgif++;
    f->left = xcalloc((size_t)f->nruh * f->nrg, sizeof *f->left);
    for (unsigned i = 0; i < f->nruh * f->nrg; i++)
        f->left[i] = f->runs;
    for (unsigned i = 0; i < f->nruh; i++)
        f->ruh[i] = (struct nvme_ruh){ .used = 0, .events = 0 };
    return true;
}

void nvme_fdp_fini(struct nvme_fdp *f)
{
    free(f->left);
    f->left = NULL;
}

/* "0;1;5" or "0-3": the placement handles of a namespace. */
bool nvme_fdp_handles(struct nvme_ns *ns, const char *text, struct err *e)
{
    struct nvme_fdp *f = &ns->ss->fdp;
    const char *p = text;

    if (!f->on)
        return !text || err_set(e, ERR_VALUE, "fdp.ruhs is given, but the subsystem has no flexible data placement (nvme-subsys fdp=on)");
    if (!text) {
        for (unsigned i = 0; i < f->nruh && !ns->n_ph; i++)     /* the first that no namespace uses */
            if (!f->ruh[i].used)
                ns->ph[ns->n_ph++] = (uint16_t)i;
        if (!ns->n_ph)
            ns->ph[ns->n_ph++] = 0;
    }
    while (p && *p) {
        char *end;
        unsigned long a = strtoul(p, &end, 10), b = a;

        if (end != p && *end == '-') {
            p = end + 1;
            b = strtoul(p, &end, 10);
        }
        if (end == p || (*end && *end != ';') || b < a || b >= f->nruh)
            return err_set(e, ERR_VALUE, "fdp.ruhs is '%s', but must list handles below %u, as in \"0;2-3\"", text, f->nruh);
        for (; a <= b; a++) {
            if (ns->n_ph == NVME_PH_MAX)
                return err_set(e, ERR_VALUE, "fdp.ruhs lists more than %u handles", NVME_PH_MAX);
            ns->ph[ns->n_ph++] = (uint16_t)a;
        }
        p = *end ? end + 1 : end;
    }
    for (unsigned i = 0; i < ns->n_ph; i++)
        f->ruh[ns->ph[i]].used = 1;
    return true;
}

/* ---- writes ---- */

static void event(struct nvme_fdp *f, const struct nvme_req *r, uint8_t type, uint16_t pid, uint16_t ruhid, uint16_t rg)
{
    struct nvme_fdp_event *ev;

    if (!(f->ruh[ruhid].events >> type & 1))
        return;
    ev = &f->event[f->n_events++ % NVME_FDP_EVENTS];
    *ev = (struct nvme_fdp_event){ .type = type, .flags = EVENT_VALID_PID | EVENT_VALID_NSID | EVENT_VALID_LOCATION, .pid = pid,
                                   .time = nvme_timestamp(r->n), .nsid = r->cmd.nsid, .rg = rg, .ruhid = (uint8_t)ruhid };
}

static bool pid_parse(const struct nvme_ns *ns, uint16_t pid, uint16_t *ph, uint16_t *rg)
{
    const struct nvme_fdp *f = &ns->ss->fdp;

    *ph = (uint16_t)(f->rgif ? pid & ((1u << (16 - f->rgif)) - 1) : pid);
    *rg = (uint16_t)(f->rgif ? pid >> (16 - f->rgif) : 0);
    return *ph < ns->n_ph && *rg < f->nrg;
}

void nvme_fdp_write(struct nvme_req *r, uint64_t nlb, bool placed, uint16_t pid)
{
    struct nvme_ns *ns = r->ns;
    struct nvme_fdp *f = &ns->ss->fdp;
    uint64_t bytes = nlb << ns->shift, *left;
    uint16_t ph = 0, rg = 0;

    pthread_mutex_lock(&ns->ss->lock);
    if (placed && !pid_parse(ns, pid, &ph, &rg)) {
        event(f, r, EVENT_INVALID_PID, pid, ns->ph[0], 0);
        ph = rg = 0;
    }
    left = &f->left[ns->ph[ph] * f->nrg + rg];
    f->host_bytes += bytes;
    f->media_bytes += bytes;
    while (bytes >= *left) {            /* the unit is full: the next one */
        bytes -= *left;
        *left = f->runs;
    }
    *left -= bytes;
    pthread_mutex_unlock(&ns->ss->lock);
}

/* ---- I/O Management Receive and Send ---- */

uint16_t co_nvme_io_recv(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    struct nvme_fdp *f = &ns->ss->fdp;
    uint64_t want = ((uint64_t)r->cmd.cdw11 + 1) * 4;
    uint8_t *b;
    unsigned n = 0;
    uint16_t st;

    if (!f->on)
        return NVME_FDP_DISABLED | NVME_DNR;
    if ((r->cmd.cdw10 & 0xff) != 1 || want > nvme_max_transfer(r->n))
        return (r->cmd.cdw10 & 0xff) == 0 ? NVME_OK : NVME_INVALID_FIELD | NVME_DNR;
    b = xcalloc(1, 16 + 32 * (size_t)ns->n_ph * f->nrg);
    pthread_mutex_lock(&ns->ss->lock);
    for (unsigned ph = 0; ph < ns->n_ph; ph++)
        for (unsigned rg = 0; rg < f->nrg; rg++) {
            uint8_t *d = b + 16 + 32 * n++;

            st_le16(d, (uint16_t)(f->rgif ? rg << (16 - f->rgif) | ph : ph));
            st_le16(d + 2, ns->ph[ph]);
            st_le64(d + 8, f->left[ns->ph[ph] * f->nrg + rg] >> ns->shift);
        }
    pthread_mutex_unlock(&ns->ss->lock);
    st_le16(b + 14, (uint16_t)n);
    st = nvme_to_host_part(r, b, 16 + 32 * (size_t)n, 0, want);
    free(b);
    return st;
}

/* Reclaim unit handle update: the handles begin new units. */
uint16_t co_nvme_io_send(struct nvme_req *r)
{
    struct nvme_ns *ns = r->ns;
    struct nvme_fdp *f = &ns->ss->fdp;
    unsigned n = (r->cmd.cdw10 >> 16) + 1;
    uint16_t pid[2048], ph, rg, st;

    if (!f->on)
        return NVME_FDP_DISABLED | NVME_DNR;
    if ((r->cmd.cdw10 & 0xff) != 1 || n > ARRAY_SIZE(pid) || n > ns->n_ph * (unsigned)f->nrg)
        return (r->cmd.cdw10 & 0xff) == 0 ? NVME_OK : NVME_INVALID_FIELD | NVME_DNR;
    st = nvme_from_host(r, pid, n * sizeof *pid);
    for (unsigned i = 0; !st && i < n; i++)
        if (!pid_parse(ns, le16toh(pid[i]), &ph, &rg))
            st = NVME_INVALID_FIELD | NVME_DNR;
    pthread_mutex_lock(&ns->ss->lock);
    for (unsigned i = 0; !st && i < n; i++) {
        uint64_t *left;

        pid_parse(ns, le16toh(pid[i]), &ph, &rg);
        left = &f->left[ns->ph[ph] * f->nrg + rg];
        if (*left != f->runs)
            event(f, r, EVENT_RU_NOT_FULL, le16toh(pid[i]), ns->ph[ph], rg);
        *left = f->runs;
    }
    pthread_mutex_unlock(&ns->ss->lock);
    return st;
}

/* ---- features ---- */

uint16_t nvme_fdp_get(struct nvme_req *r, enum nvme_select sel)
{
    const struct nvme_fdp *f = &r->n->ss->fdp;

    if ((r->cmd.cdw11 & 0xffff) != 1)
        return NVME_INVALID_FIELD | NVME_DNR;
    r->result = sel ? f->there : f->on; /* the option switches it on */
    return NVME_OK;
}

uint16_t co_nvme_fdp_set(struct nvme_req *r, uint32_t v)
{
    if ((v & 0xffff) != 1 || r->cmd.cdw12 >> 8 & 0xff)
        return NVME_INVALID_FIELD | NVME_DNR;
    for (unsigned i = 1; i <= NVME_NS_MAX; i++)
        if (nvme_ns_allocated(r->n->ss, i))
            return NVME_SEQUENCE | NVME_DNR;            /* only while there are no namespaces */
    r->n->ss->fdp.on = r->cmd.cdw12 & 1;
    return NVME_OK;
}

static uint16_t events_of(struct nvme_req *r, struct nvme_ruh **ruh)
{
    struct nvme_fdp *f = &r->n->ss->fdp;
    const struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);
    unsigned ph = r->cmd.cdw11 & 0xffff;

    if (!f->on)
        return NVME_FDP_DISABLED | NVME_DNR;
    if (!ns || ph >= ns->n_ph)
        return NVME_INVALID_FIELD | NVME_DNR;
    *ruh = &f->ruh[ns->ph[ph]];
    return NVME_OK;
}

uint16_t nvme_fdp_events_get(struct nvme_req *r, enum nvme_select sel)
{
    uint8_t b[2 * 4] = { 0, 0, 1, 0, 2, 0, 3, 0 };
    struct nvme_ruh *ruh;
    unsigned n = MIN(r->cmd.cdw11 >> 16 & 0xff, 4u);
    uint16_t st = events_of(r, &ruh);

    for (unsigned i = 0; !st && i < 4; i++)
        b[2 * i + 1] = sel ? 0 : ruh->events >> i & 1;
    r->result = 4;
    return st ? st : nvme_to_host(r, b, 2 * n);
}

uint16_t co_nvme_fdp_events_set(struct nvme_req *r, uint32_t v)
{
    uint8_t b[256];
    struct nvme_ruh *ruh;
    unsigned n = v >> 16 & 0xff;
    uint16_t st = events_of(r, &ruh);

    if (!st)
        st = nvme_from_host(r, b, n);
    for (unsigned i = 0; !st && i < n; i++) {
        if (b[i] > 3)
            return NVME_INVALID_FIELD | NVME_DNR;
        ruh->events = (uint8_t)(r->cmd.cdw12 & 1 ? ruh->events | 1u << b[i] : ruh->events & ~(1u << b[i]));
    }
    return st;
}

/* ---- log pages ---- */

uint16_t nvme_fdp_log(struct nvme_req *r, struct str *s)
{
    const struct nvme_fdp *f = &r->n->ss->fdp;
    uint8_t lid = (uint8_t)r->cmd.cdw10, b[64 + 64 * NVME_FDP_EVENTS] = { 0 };
    unsigned n, len = 64;

    if (r->cmd.cdw11 >> 16 != 1)
        return NVME_INVALID_FIELD | NVME_DNR;           /* the endurance group */
    if (!f->on && lid != NVME_LOG_FDP_CONFIGS)
        return NVME_FDP_DISABLED | NVME_DNR;
    pthread_mutex_lock(&r->n->ss->lock);
    switch (lid) {
    case NVME_LOG_FDP_CONFIGS:
        len = 16 + 64 + 4u * f->nruh;
        st_le32(b + 4, len);
        st_le16(b + 16, (uint16_t)(64 + 4 * f->nruh));
        b[18] = 0x80 | f->rgif;
        st_le32(b + 20, f->nrg);
        st_le16(b + 24, f->nruh);
        st_le16(b + 26, NVME_PH_MAX - 1);
        st_le32(b + 28, NVME_NS_MAX);
        st_le64(b + 32, f->runs);
        for (unsigned i = 0; i < f->nruh; i++)
            b[80 + 4 * i] = 1;                          /* initially isolated */
        break;
    case NVME_LOG_FDP_RUHU:
        st_le16(b, f->nruh);
        for (unsigned i = 0; i < f->nruh; i++)
            b[8 + 8 * i] = f->ruh[i].used ? 1 : 0;
        len = 8 + 8u * f->nruh;
        break;
    case NVME_LOG_FDP_STATS:
        st_le64(b, f->host_bytes);
        st_le64(b + 16, f->media_bytes);
        break;
    default:
        n = MIN(f->n_events, NVME_FDP_EVENTS);
        st_le32(b, n);
        for (unsigned i = 0; i < n; i++) {
            const struct nvme_fdp_event *ev = &f->event[(f->n_events - n + i) % NVME_FDP_EVENTS];
            uint8_t *d = b + 64 + 64 * i;

            d[0] = ev->type;
            d[1] = ev->flags;
            st_le16(d + 2, ev->pid);
            st_le64(d + 4, ev->time);
            st_le32(d + 12, ev->nsid);
            st_le16(d + 32, ev->rg);
            d[34] = ev->ruhid;
        }
        len = 64 + 64 * n;
    }
    pthread_mutex_unlock(&r->n->ss->lock);
    str_addn(s, b, len);
    return NVME_OK;
}
