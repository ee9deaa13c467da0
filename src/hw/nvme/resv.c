/* SPDX-License-Identifier: MIT */
/* Reservations (8.19; commands 7.2 to 7.5). A registrant is a host, known by its identifier, whatever controller it uses. */
#include "hw/nvme/resv.h"

#include "hw/nvme/persist.h"

#include <stdlib.h>
#include "base/str.h"

enum { RESV_WE = 1, RESV_EA, RESV_WE_RO, RESV_EA_RO, RESV_WE_AR, RESV_EA_AR };
enum { NOTE_PREEMPTED = 1, NOTE_RELEASED = 2, NOTE_RESV_PREEMPTED = 3 };      /* 5.16.1.20 types */

struct host { bool used; uint64_t id[2], key; uint16_t cntlid; };
struct nvme_resv {
    uint32_t gen;
    uint8_t type;                       /* 0: none is held */
    int holder;                         /* index; not looked at where all registrants hold */
    bool ptpl;
    struct host host[NVME_RESV_HOSTS];
};

static bool all_hold(const struct nvme_resv *v) { return v->type == RESV_WE_AR || v->type == RESV_EA_AR; }

static int find(const struct nvme_resv *v, const uint64_t id[2])
{
    for (unsigned i = 0; i < NVME_RESV_HOSTS; i++)
        if (v->host[i].used && v->host[i].id[0] == id[0] && v->host[i].id[1] == id[1])
            return (int)i;
    return -1;
}

static bool holds(const struct nvme_resv *v, int h) { return v->type && h >= 0 && (all_hold(v) || v->holder == h); }

static unsigned count(const struct nvme_resv *v)
{
    unsigned n = 0;

    for (unsigned i = 0; i < NVME_RESV_HOSTS; i++)
        n += v->host[i].used;
    return n;
}

/* ---- access, figure "Command Behavior in the Presence of a Reservation" ---- */

uint16_t nvme_resv_allows(struct nvme_req *r, bool reads, bool writes)
{
    struct nvme_ns *ns = r->ns;
    const struct nvme_resv *v;
    bool ok = true;

    pthread_mutex_lock(&ns->ss->lock);
    v = ns->resv;
    if (v && v->type) {
        int h = find(v, r->n->host_id);
        bool exclusive = v->type == RESV_EA || v->type == RESV_EA_RO || v->type == RESV_EA_AR;
        bool member = v->type >= RESV_WE_RO ? h >= 0 : holds(v, h);

        ok = member || !(writes || (reads && exclusive));
    }
    pthread_mutex_unlock(&ns->ss->lock);
    return ok ? NVME_OK : NVME_RESV_CONFLICT | NVME_DNR;
}

/* ---- notifications ---- */

/* Tells the controllers of host @h, but not the one whose command it is. Subsystem's lock held. */
static void notify(struct nvme_req *r, const struct host *h, uint8_t type)
{
    struct nvme_subsys *ss = r->ns->ss;

    for (unsigned i = 0; i < NVME_CTRL_MAX; i++) {
        struct nvme *n = ss->ctrl[i];
        unsigned at;

        if (!n || n == r->n || n->host_id[0] != h->id[0] || n->host_id[1] != h->id[1])
            continue;
        if (n->resv_mask[r->ns->nsid] >> type & 1 || n->resv_notes == NVME_RESV_NOTES)
            continue;
        at = n->resv_notes++;
        n->resv_note[at] = (struct nvme_resv_note){ r->ns->nsid, type };
        atomic_store(&n->resv_event, true);
        domain_post(&n->events_post);
    }
}

static void drop(struct nvme_req *r, struct nvme_resv *v, unsigned i, uint8_t why)
{
    if (why)
        notify(r, &v->host[i], why);
    v->host[i].used = false;
}

/* The reservation is gone; registrants are told where the type is about them. */
static void let_go(struct nvme_req *r, struct nvme_resv *v, int by)
{
    bool tell = v->type >= RESV_WE_RO;

    v->type = 0;
    for (unsigned i = 0; tell && i < NVME_RESV_HOSTS; i++)
        if (v->host[i].used && (int)i != by)
            notify(r, &v->host[i], NOTE_RELEASED);
}

/* ---- commands ---- */

/* The namespace's reservations, the caller's index (-1: not registered). Lock taken. NULL with @st: it cannot have any. */
static struct nvme_resv *begin(struct nvme_req *r, int *h, uint16_t *st)
{
    struct nvme_ns *ns = r->ns;

    if (!r->n->host_id[0] && !r->n->host_id[1]) {
        *st = NVME_SEQUENCE | NVME_DNR;                 /* 5.27.1.25: a host without identifier has no part in it */
        return NULL;
    }
    pthread_mutex_lock(&ns->ss->lock);
    ns->resv = ns->resv ? ns->resv : xnew(struct nvme_resv);
    *h = find(ns->resv, r->n->host_id);
    return ns->resv;
}

static uint16_t end(struct nvme_req *r, uint16_t st)
{
    pthread_mutex_unlock(&r->ns->ss->lock);
    nvme_ns_dirty(r->ns);
    return st;
}

static uint16_t new_host(struct nvme_req *r, struct nvme_resv *v, uint64_t key)
{
    for (unsigned i = 0; i < NVME_RESV_HOSTS; i++)
        if (!v->host[i].used) {
            v->host[i] = (struct host){ true, { r->n->host_id[0], r->n->host_id[1] }, key, r->n->cntlid };
            v->gen++;
            return NVME_OK;
        }
    return NVME_RESV_CONFLICT | NVME_DNR;
}

static void unregister(struct nvme_req *r, struct nvme_resv *v, int h)
{
    bool held = holds(v, h);

    v->host[h].used = false;
    v->gen++;
    if (held && (!all_hold(v) || !count(v)))
        let_go(r, v, h);
}

uint16_t co_nvme_resv_register(struct nvme_req *r)
{
    uint64_t key[2];
    unsigned action = r->cmd.cdw10 & 7, cptpl = r->cmd.cdw10 >> 30;
    bool iekey = r->cmd.cdw10 >> 3 & 1;
    uint16_t st = nvme_from_host(r, key, sizeof key);
    struct nvme_resv *v;
    int h;

    if (st)
        return st;
    if (action > 2 || cptpl == 1 || (cptpl == 3 && !r->ns->ss->state_path))     /* kept through power loss: only in a state file */
        return NVME_INVALID_FIELD | NVME_DNR;
    v = begin(r, &h, &st);
    if (!v)
        return st;
    uint64_t cur = le64toh(key[0]), new = le64toh(key[1]);
    if (action == 0)
        st = h < 0 ? new_host(r, v, new) : v->host[h].key == new ? NVME_OK : NVME_RESV_CONFLICT | NVME_DNR;
    else if (h < 0 ? !(action == 2 && iekey) : !iekey && v->host[h].key != cur)
        st = NVME_RESV_CONFLICT | NVME_DNR;
    else if (action == 1)
        unregister(r, v, h);
    else if (h < 0)
        st = new_host(r, v, new);
    else
        v->host[h].key = new;
    if (!st && cptpl)
        v->ptpl = cptpl == 3;
    return end(r, st);
}

/* Preempts every registrant with @key (0: all others, where all registrants hold). */
static uint16_t preempt(struct nvme_req *r, struct nvme_resv *v, int h, uint64_t key, uint8_t type)
{
    bool everybody = all_hold(v) && !key, take = everybody || (v->type && !all_hold(v) && v->host[v->holder].key == key);
    unsigned hit = 0;

    if (!key && !everybody)
        return NVME_INVALID_FIELD | NVME_DNR;
    for (unsigned i = 0; i < NVME_RESV_HOSTS; i++) {
        if (!v->host[i].used || (!everybody && v->host[i].key != key))
            continue;
        hit++;
        if ((int)i != h)
            drop(r, v, i, take && (int)i == v->holder ? NOTE_RESV_PREEMPTED : NOTE_PREEMPTED);
    }
    if (!hit && !everybody)
        return NVME_RESV_CONFLICT | NVME_DNR;
    if (take) {
        v->type = type;
        v->holder = h;
    }
    v->gen++;
    return NVME_OK;
}

uint16_t co_nvme_resv_acquire(struct nvme_req *r)
{
    uint64_t key[2];
    unsigned action = r->cmd.cdw10 & 7, type = r->cmd.cdw10 >> 8 & 0xff;
    uint16_t st = nvme_from_host(r, key, sizeof key);
    struct nvme_resv *v;
    int h;

    if (st)
        return st;
    if (action > 2 || r->cmd.cdw10 >> 3 & 1 || !type || type > RESV_EA_AR)
        return NVME_INVALID_FIELD | NVME_DNR;
    v = begin(r, &h, &st);
    if (!v)
        return st;
    if (h < 0 || v->host[h].key != le64toh(key[0])) {
        st = NVME_RESV_CONFLICT | NVME_DNR;
    } else if (action) {
        st = preempt(r, v, h, le64toh(key[1]), (uint8_t)type);
    } else if (!v->type) {
        v->type = (uint8_t)type;
        v->holder = h;
    } else if (!holds(v, h) || v->type != type) {
        st = NVME_RESV_CONFLICT | NVME_DNR;
    }
    return end(r, st);
}

uint16_t co_nvme_resv_release(struct nvme_req *r)
{
    uint64_t key;
    unsigned action = r->cmd.cdw10 & 7, type = r->cmd.cdw10 >> 8 & 0xff;
    uint16_t st = nvme_from_host(r, &key, sizeof key);
    struct nvme_resv *v;
    int h;

    if (st)
        return st;
    if (action > 1 || r->cmd.cdw10 >> 3 & 1)
        return NVME_INVALID_FIELD | NVME_DNR;
    v = begin(r, &h, &st);
    if (!v)
        return st;
    if (h < 0 || v->host[h].key != le64toh(key)) {
        st = NVME_RESV_CONFLICT | NVME_DNR;
    } else if (action == 1) {                           /* clear: registrants too */
        v->type = 0;
        for (unsigned i = 0; i < NVME_RESV_HOSTS; i++)
            if (v->host[i].used)
                drop(r, v, i, (int)i != h ? NOTE_RESV_PREEMPTED : 0);
        v->gen++;
    } else if (holds(v, h) && v->type != type) {
        st = NVME_INVALID_FIELD | NVME_DNR;
    } else if (holds(v, h)) {
        let_go(r, v, h);
    }
    return end(r, st);
}

uint16_t co_nvme_resv_report(struct nvme_req *r)
{
    uint64_t want = ((uint64_t)r->cmd.cdw10 + 1) * 4;
    bool wide = r->cmd.cdw11 & 1;
    uint8_t b[64 + 64 * NVME_RESV_HOSTS] = { 0 };
    unsigned head = wide ? 64 : 24, each = wide ? 64 : 24, n = 0;

    if ((r->n->host_id[0] || r->n->host_id[1]) && r->n->host_id_wide != wide)      /* a host that never said who it is uses neither */
        return NVME_HOST_ID_FORMAT | NVME_DNR;
    if (want > nvme_max_transfer(r->n))
        return NVME_INVALID_FIELD | NVME_DNR;
    pthread_mutex_lock(&r->ns->ss->lock);
    const struct nvme_resv *v = r->ns->resv;
    for (unsigned i = 0; v && i < NVME_RESV_HOSTS; i++) {
        uint8_t *d = b + head + each * n;

        if (!v->host[i].used)
            continue;
        n++;
        st_le16(d, v->host[i].cntlid);
        d[2] = holds(v, (int)i);
        st_le64(d + (wide ? 8 : 16), v->host[i].key);
        memcpy(d + (wide ? 16 : 8), v->host[i].id, wide ? 16 : 8);
    }
    st_le32(b, v ? v->gen : 0);
    b[4] = v ? v->type : 0;
    st_le16(b + 5, (uint16_t)n);
    b[9] = v && v->ptpl;
    pthread_mutex_unlock(&r->ns->ss->lock);
    return nvme_to_host_part(r, b, head + each * n, 0, want);
}

/* 5.16.1.20: one notification at a time. */
void nvme_resv_log(struct nvme *n, uint8_t *b)
{
    pthread_mutex_lock(&n->ss->lock);
    if (n->resv_notes) {
        st_le64(b, ++n->resv_count);
        b[8] = n->resv_note[0].type;
        b[9] = (uint8_t)(--n->resv_notes);
        st_le32(b + 12, n->resv_note[0].nsid);
        memmove(&n->resv_note[0], &n->resv_note[1], n->resv_notes * sizeof n->resv_note[0]);
    }
    pthread_mutex_unlock(&n->ss->lock);
}

uint16_t nvme_resv_persist_get(struct nvme_req *r, enum nvme_select sel)
{
    struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);

    if (!ns)
        return NVME_INVALID_NSID | NVME_DNR;
    pthread_mutex_lock(&ns->ss->lock);
    r->result = !sel && ns->resv && ns->resv->ptpl;
    pthread_mutex_unlock(&ns->ss->lock);
    return NVME_OK;
}

uint16_t co_nvme_resv_persist_set(struct nvme_req *r, uint32_t v)
{
    struct nvme_ns *one = nvme_ns_at(r->n, r->cmd.nsid);

    if (!one && r->cmd.nsid != UINT32_MAX)
        return NVME_INVALID_NSID | NVME_DNR;
    if (v & 1 && !r->n->ss->state_path)
        return NVME_INVALID_FIELD | NVME_DNR;           /* RESCAP: not kept through power loss */
    pthread_mutex_lock(&r->n->ss->lock);
    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_at(r->n, i);

        if (!ns || (one && ns != one))
            continue;
        ns->resv = ns->resv ? ns->resv : xnew(struct nvme_resv);
        ns->resv->ptpl = v & 1;
    }
    pthread_mutex_unlock(&r->n->ss->lock);
    nvme_state_dirty(r->n->ss);
    return NVME_OK;
}

/* Which notifications about a namespace this controller's host does not want (5.27.1.26). */
uint16_t nvme_resv_mask_get(struct nvme_req *r, enum nvme_select sel)
{
    if (!nvme_ns_at(r->n, r->cmd.nsid))
        return NVME_INVALID_NSID | NVME_DNR;
    r->result = sel ? 0 : r->n->resv_mask[r->cmd.nsid];
    return NVME_OK;
}

uint16_t co_nvme_resv_mask_set(struct nvme_req *r, uint32_t v)
{
    struct nvme_ns *one = nvme_ns_at(r->n, r->cmd.nsid);

    if (!one && r->cmd.nsid != UINT32_MAX)
        return NVME_INVALID_NSID | NVME_DNR;
    pthread_mutex_lock(&r->n->ss->lock);                /* others look at it when they tell */
    for (unsigned i = 1; i <= NVME_NS_MAX; i++)
        if (one ? i == one->nsid : nvme_ns_at(r->n, i) != NULL)
            r->n->resv_mask[i] = v & 0xe;
    pthread_mutex_unlock(&r->n->ss->lock);
    return NVME_OK;
}

bool nvme_resv_held(const struct nvme_ns *ns) { return ns->resv && ns->resv->type; }

void nvme_resv_free(struct nvme_ns *ns)
{
    free(ns->resv);
    ns->resv = NULL;
}

/* ---- kept between runs ---- */

bool nvme_resv_kept(const struct nvme_ns *ns) { return ns->resv && ns->resv->ptpl; }

json_t *nvme_resv_to_json(const struct nvme_ns *ns)
{
    const struct nvme_resv *v = ns->resv;
    json_t *hosts = json_array();

    for (unsigned i = 0; i < NVME_RESV_HOSTS; i++)
        if (v->host[i].used)
            json_array_append_new(hosts, json_pack("[i, I, I, I, i]", (int)i, (json_int_t)v->host[i].id[0], (json_int_t)v->host[i].id[1],
                                                   (json_int_t)v->host[i].key, v->host[i].cntlid));
    return json_pack("{s:I, s:b, s:i, s:i, s:o}", "generation", (json_int_t)v->gen, "kept", v->ptpl, "type", v->type, "holder", v->holder, "hosts", hosts);
}

void nvme_resv_from_json(struct nvme_ns *ns, json_t *o)
{
    struct nvme_resv *v;
    json_t *one;
    size_t i;

    if (!o)
        return;
    v = ns->resv = xnew(struct nvme_resv);
    v->ptpl = !json_is_false(json_object_get(o, "kept"));
    v->gen = (uint32_t)json_integer_value(json_object_get(o, "generation"));
    json_array_foreach(json_object_get(o, "hosts"), i, one) {
        json_int_t at = json_integer_value(json_array_get(one, 0));

        if (at >= 0 && at < (json_int_t)NVME_RESV_HOSTS)
            v->host[at] = (struct host){ true, { (uint64_t)json_integer_value(json_array_get(one, 1)), (uint64_t)json_integer_value(json_array_get(one, 2)) },
                                         (uint64_t)json_integer_value(json_array_get(one, 3)), (uint16_t)json_integer_value(json_array_get(one, 4)) };
    }
    v->holder = (int)json_integer_value(json_object_get(o, "holder"));
    v->type = (uint8_t)json_integer_value(json_object_get(o, "type"));
    if (v->type > RESV_EA_AR || v->holder < 0 || v->holder >= (int)NVME_RESV_HOSTS || (v->type && !all_hold(v) && !v->host[v->holder].used))
        v->type = 0;
}
