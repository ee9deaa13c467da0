/* SPDX-License-Identifier: MIT */
/*
 * What controllers share, in the saved state of a machine: namespaces with all that a state file has of them and what only a running
 * machine needs, data placement, a sanitize that runs. JSON, as the state file.
 */
#include "hw/nvme/persist.h"

#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/kv.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/subsys_int.h"

/* ---- numbers ---- */

static uint64_t num(json_t *o, const char *key) { return (uint64_t)json_integer_value(json_object_get(o, key)); }

static bool bounded(json_t *o, const char *key, uint64_t max, uint64_t *out, struct err *e)
{
    json_t *v = json_object_get(o, key);

    *out = (uint64_t)json_integer_value(v);
    return (json_is_integer(v) && *out <= max) || err_set(e, ERR_VALUE, "nvme: '%s' of the saved state makes no sense", key);
}

/* ---- namespaces ---- */

static json_t *ns_save(struct nvme_ns *ns)
{
    json_t *o = nvme_ns_to_json(ns), *open = json_array(), *on = json_array();

    for (unsigned i = 0; i < ns->streams.n_open; i++)
        json_array_append_new(open, json_integer(ns->streams.open[i]));
    for (size_t i = 0; i < ARRAY_SIZE(ns->streams.on); i++)
        json_array_append_new(on, json_integer(ns->streams.on[i]));
    json_object_set_new(o, "unit", json_string(ns->unit->opt->drive->id));
    json_object_set_new(o, "tler", json_integer(ns->tler));
    json_object_set_new(o, "dulbe", json_boolean(ns->dulbe));
    json_object_set_new(o, "error-on-delete", json_boolean(ns->kv_error_on_delete));
    json_object_set_new(o, "streams", json_pack("{s:i, s:o, s:o}", "given", ns->streams.given, "open", open, "on", on));
    if (ns->resv)
        json_object_set_new(o, "reservations", nvme_resv_to_json(ns));
    return o;
}

static bool streams_load(struct nvme_ns *ns, json_t *o, struct err *e)
{
    json_t *open = json_object_get(o, "open"), *on = json_object_get(o, "on"), *one;
    uint64_t given;
    size_t i;

    if (!bounded(o, "given", NVME_STREAMS, &given, e))
        return false;
    if (json_array_size(open) > NVME_STREAMS)
        return err_set(e, ERR_VALUE, "nvme: the saved state has more streams than there are");
    ns->streams = (struct nvme_streams){ .given = (uint16_t)given };
    json_array_foreach(open, i, one)
        ns->streams.open[ns->streams.n_open++] = (uint16_t)json_integer_value(one);
    json_array_foreach(on, i, one)
        if (i < ARRAY_SIZE(ns->streams.on))
            ns->streams.on[i] = (uint32_t)json_integer_value(one);
    return true;
}

static struct nvme_unit *unit_of(struct nvme_subsys *ss, const char *id)
{
    struct nvme_unit *u;

    list_for_each(u, &ss->units, link)
        if (id && !strcmp(u->opt->drive->id, id))
            return u;
    return NULL;
}

/* Attached where the saved state says, and nowhere else. */
static void attach(struct nvme_ns *ns)
{
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++) {
        struct nvme *n = ns->ss->ctrl[i];

        if (n && ns->attach[i / 32] >> (i & 31) & 1)
            nvme_attach(n, ns);
        else if (n && nvme_ns_at(n, ns->nsid))
            nvme_detach(n, ns);
    }
}

/* A namespace that the host made after the machine was started. */
static struct nvme_ns *remade(struct nvme_subsys *ss, uint32_t nsid, struct nvme_unit *u, struct err *e)
{
    struct nvme_ns *ns = nvme_ns_new(ss, nsid, e);

    if (!ns)
        return NULL;
    ns->unit = u;
    nvme_formats(ns->lbaf);
    ns->n_lbaf = NVME_FORMATS;
    return ns;
}

static bool ns_load(struct nvme_subsys *ss, json_t *o, bool seen[NVME_NS_MAX + 1], struct err *e)
{
    struct nvme_unit *u = unit_of(ss, json_string_value(json_object_get(o, "unit")));
    struct nvme_ns *ns;
    uint64_t nsid;

    if (!bounded(o, "nsid", NVME_NS_MAX, &nsid, e))
        return false;
    ns = nvme_ns_allocated(ss, (uint32_t)nsid);
    if (!nsid || seen[nsid] || !u || (ns && ns->unit != u) || !(ns && ns->zones) != !json_object_get(o, "zones"))
        return err_set(e, ERR_VALUE, "nvme: namespace %u of the saved state does not fit the drives and namespaces here", (unsigned)nsid);
    seen[nsid] = true;
    if (ns)
        nvme_ns_clear(ns);
    else if (!(ns = remade(ss, (uint32_t)nsid, u, e)))
        return false;
    if (!nvme_persist_ns(ns, o, e) || !streams_load(ns, json_object_get(o, "streams"), e))
        return false;
    nvme_zones_reformat(ns);
    nvme_kv_forget(ns);                 /* all of it is on the drive */
    if (ns->zones && !nvme_zones_from_json(ns, json_object_get(o, "zones"), true, e))
        return false;
    ns->write_protect = (uint8_t)num(o, "protect");
    ns->tler = (uint16_t)num(o, "tler");
    ns->dulbe = json_is_true(json_object_get(o, "dulbe"));
    ns->kv_error_on_delete = json_is_true(json_object_get(o, "error-on-delete"));
    atomic_store(&ns->live, true);
    attach(ns);
    return true;
}

static bool all_ns_load(struct nvme_subsys *ss, json_t *list, struct err *e)
{
    bool seen[NVME_NS_MAX + 1] = { false };
    json_t *one;
    size_t i;

    json_array_foreach(list, i, one)
        if (!ns_load(ss, one, seen, e))
            return false;
    for (unsigned k = 1; k <= NVME_NS_MAX; k++) {
        struct nvme_ns *ns = nvme_ns_allocated(ss, k);

        if (!ns || seen[k])
            continue;
        nvme_ns_destroy(ns);            /* the host had deleted it */
        nvme_ns_clean(ns);
    }
    return true;
}

/* ---- placement ---- */

static json_t *fdp_save(const struct nvme_fdp *f)
{
    json_t *left = json_array(), *handles = json_array(), *events = json_array();
    unsigned n = MIN(f->n_events, NVME_FDP_EVENTS);

    for (unsigned i = 0; f->there && i < f->nruh * f->nrg; i++)
        json_array_append_new(left, json_integer((json_int_t)f->left[i]));
    for (unsigned i = 0; i < f->nruh; i++)
        json_array_append_new(handles, json_integer(f->ruh[i].events));
    for (unsigned i = 0; i < n; i++) {
        const struct nvme_fdp_event *ev = &f->event[(f->n_events - n + i) % NVME_FDP_EVENTS];
        json_array_append_new(events, json_pack("[I, I, i, i, i, i, i]", (json_int_t)ev->time, (json_int_t)ev->nsid, ev->pid, ev->rg, ev->type, ev->flags, ev->ruhid));
    }
    return json_pack("{s:b, s:o, s:o, s:o, s:I, s:I}", "on", f->on, "left", left, "handles", handles, "events", events, "host-bytes", (json_int_t)f->host_bytes,
                     "media-bytes", (json_int_t)f->media_bytes);
}

static bool fdp_load(struct nvme_fdp *f, json_t *o, struct err *e)
{
    json_t *left = json_object_get(o, "left"), *handles = json_object_get(o, "handles"), *one;
    size_t i;

    if (json_array_size(left) != (f->there ? (size_t)f->nruh * f->nrg : 0) || json_array_size(handles) != f->nruh)
        return err_set(e, ERR_VALUE, "nvme: the saved state has other reclaim units");
    json_array_foreach(left, i, one)
        f->left[i] = MAX(MIN((uint64_t)json_integer_value(one), f->runs), 1u);
    json_array_foreach(handles, i, one)
        f->ruh[i].events = (uint8_t)json_integer_value(one);
    f->on = f->there && json_is_true(json_object_get(o, "on"));
    f->host_bytes = num(o, "host-bytes");
    f->media_bytes = num(o, "media-bytes");
    f->n_events = 0;
    json_array_foreach(json_object_get(o, "events"), i, one) {
        uint64_t v[7];
        for (unsigned k = 0; k < 7; k++)
            v[k] = (uint64_t)json_integer_value(json_array_get(one, k));
        f->event[f->n_events++ % NVME_FDP_EVENTS] = (struct nvme_fdp_event){ v[0], (uint32_t)v[1], (uint16_t)v[2], (uint16_t)v[3], (uint8_t)v[4],
                                                                             (uint8_t)v[5], (uint8_t)v[6] };
    }
    return true;
}

/* ---- sanitize ---- */

static json_t *sanitize_save(const struct nvme_sanitize *s)
{
    return json_pack("{s:b, s:b, s:i, s:i, s:I, s:I, s:I, s:i}", "running", s->running, "failed", s->failed, "progress", s->progress, "status", s->status,
                     "cdw10", (json_int_t)s->cdw10, "pattern", (json_int_t)s->pattern, "done", (json_int_t)s->done, "runner",
                     s->runner ? s->runner->cntlid : 0);
}

static bool sanitize_load(struct nvme_subsys *ss, json_t *o, struct err *e)
{
    struct nvme_sanitize *s = &ss->sanitize;
    uint64_t runner;

    if (!bounded(o, "runner", NVME_CTRL_MAX - 1, &runner, e))
        return false;
    *s = (struct nvme_sanitize){ .running = json_is_true(json_object_get(o, "running")), .failed = json_is_true(json_object_get(o, "failed")),
                                 .progress = (uint16_t)num(o, "progress"), .status = (uint16_t)num(o, "status"), .cdw10 = (uint32_t)num(o, "cdw10"),
                                 .pattern = (uint32_t)num(o, "pattern"), .done = num(o, "done"), .runner = ss->ctrl[runner] };
    return !s->running || s->runner || err_set(e, ERR_VALUE, "nvme: the controller that sanitizes in the saved state is not here");
}

/* ---- all of it; the machine is stopped ---- */

static void subsys_save(struct nvme_subsys *ss, struct str *out)
{
    json_t *list = json_array(), *doc;
    char *text;

    pthread_mutex_lock(&ss->lock);
    for (unsigned i = 1; i <= NVME_NS_MAX; i++)
        if (nvme_ns_allocated(ss, i))
            json_array_append_new(list, ns_save(ss->ns[i]));
    doc = json_pack("{s:o, s:o, s:o, s:o}", "namespaces", list, "placement", fdp_save(&ss->fdp), "sanitize", sanitize_save(&ss->sanitize), "events",
                    nvme_pel_to_json(&ss->pel, true));
    pthread_mutex_unlock(&ss->lock);
    text = json_dumps(doc, JSON_COMPACT | JSON_SORT_KEYS);
    str_addn(out, text, strlen(text));
    free(text);
    json_decref(doc);
}

static bool subsys_load(struct nvme_subsys *ss, const void *data, size_t len, struct err *e)
{
    json_error_t je;
    json_t *doc = json_loadb(data, len, 0, &je);
    bool ok = doc ? all_ns_load(ss, json_object_get(doc, "namespaces"), e) && fdp_load(&ss->fdp, json_object_get(doc, "placement"), e) &&
                    sanitize_load(ss, json_object_get(doc, "sanitize"), e)
                  : err_set(e, ERR_VALUE, "nvme: the saved state of a subsystem cannot be read: %s", je.text);

    pthread_mutex_lock(&ss->lock);
    if (ok)
        nvme_pel_from_json(&ss->pel, json_object_get(doc, "events"));
    pthread_mutex_unlock(&ss->lock);
    json_decref(doc);
    nvme_state_dirty(ss);
    return ok;
}

static void own_save(const void *obj, struct str *out) { subsys_save(&((struct nvme *)(uintptr_t)obj)->own_ss, out); }
static bool own_load(void *obj, const void *data, size_t len, struct err *e) { return subsys_load(&((struct nvme *)obj)->own_ss, data, len, e); }
const struct state_custom nvme_own_live = { own_save, own_load };

static void dev_save(const void *obj, struct str *out) { subsys_save(&((struct nvme_subsys_dev *)(uintptr_t)obj)->ss, out); }
static bool dev_load(void *obj, const void *data, size_t len, struct err *e) { return subsys_load(&((struct nvme_subsys_dev *)obj)->ss, data, len, e); }
const struct state_custom nvme_subsys_live = { dev_save, dev_load };
