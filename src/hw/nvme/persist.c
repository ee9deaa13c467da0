/* SPDX-License-Identifier: MIT */
/*
 * What a subsystem keeps on the host between runs (state=FILE): namespaces with their format, zones, unreadable ranges and
 * reservations by the block node they are on; saved features, counters and firmware by the controller's serial number; events. The
 * file is JSON, replaced as a whole (base/file_replace.h). Flush waits for it.
 */
#include "hw/nvme/persist.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/file_replace.h"
#include "base/log.h"
#include "base/str.h"
#include "hw/nvme/lbatype.h"
#include "hw/nvme/media.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/resv.h"
#include "hw/nvme/zns.h"

#define SAVE_DELAY_NS 50000000          /* changes within this time are one write */

/* ---- numbers and bytes ---- */

static json_t *hex(const uint8_t *p, size_t n)
{
    char buf[65];

    for (size_t i = 0; i < n && i < 32; i++)
        snprintf(buf + 2 * i, 3, "%02x", p[i]);
    return json_string(buf);
}

static bool unhex(json_t *v, uint8_t *p, size_t n)
{
    const char *s = json_string_value(v);

    for (size_t i = 0; s && i < n; i++) {
        unsigned b;
        if (sscanf(s + 2 * i, "%2x", &b) != 1)
            return false;
        p[i] = (uint8_t)b;
    }
    return s && strlen(s) == 2 * n;
}

/* A number of @o within [0, max]; false where it is none. */
static bool num(json_t *o, const char *key, uint64_t max, uint64_t *out)
{
    json_t *v = json_object_get(o, key);

    *out = (uint64_t)json_integer_value(v);
    return json_is_integer(v) && json_integer_value(v) >= 0 && *out <= max;
}

/* ---- saving ---- */

json_t *nvme_ns_to_json(struct nvme_ns *ns)
{
    json_t *attached = json_array(), *o;

    for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
        if (ns->attach[i / 32] >> (i & 31) & 1)
            json_array_append_new(attached, json_integer(i));
    o = json_pack("{s:i, s:I, s:I, s:i, s:i, s:b, s:i, s:i, s:b, s:i, s:i, s:I, s:I, s:o, s:o, s:o, s:o}", "nsid", (int)ns->nsid,
                  "base", (json_int_t)ns->base, "space", (json_int_t)ns->space, "shift", ns->shift, "ms", ns->ms, "extended", ns->extended,
                  "pi", ns->pi, "pil", ns->pil, "shared", ns->shared, "anagrp", ns->anagrp, "protect", ns->write_protect,
                  "read", (json_int_t)atomic_load(&ns->units_read), "written", (json_int_t)atomic_load(&ns->units_written),
                  "nguid", hex(ns->nguid, 16), "uuid", hex(ns->uuid, 16), "attached", attached, "uncorrectable", nvme_uncor_to_json(ns));
    if (ns->zones)
        json_object_set_new(o, "zones", nvme_zones_to_json(ns));
    if (ns->lba_types)
        json_object_set_new(o, "ranges", nvme_lba_types_to_json(ns));
    if (nvme_resv_kept(ns))
        json_object_set_new(o, "reservations", nvme_resv_to_json(ns));
    return o;
}

static json_t *ctrl_to_json(const struct nvme *n)
{
    json_t *feat = json_object(), *slots = json_array();
    char key[8];

    for (unsigned i = 0; i < 256; i++)
        if (n->feat_saved[i]) {
            snprintf(key, sizeof key, "%u", i);
            json_object_set_new(feat, key, json_integer(n->feat_saved[i]));
        }
    for (unsigned i = 2; i <= NVME_FW_SLOTS; i++)
        json_array_append_new(slots, json_stringn(n->fw_slot[i], n->fw_slot[i][0] ? NVME_FW_REV : 0));
    return json_pack("{s:o, s:i, s:o, s:i, s:I, s:I, s:I, s:I, s:I, s:b}", "features", feat, "boot", n->boot.active, "firmware", slots, "active", n->fw_active,
                     "reads", (json_int_t)atomic_load(&n->reads), "writes", (json_int_t)atomic_load(&n->writes),
                     "errors", (json_int_t)atomic_load(&n->errors), "power-cycles", (json_int_t)n->power_cycles,
                     "unsafe-shutdowns", (json_int_t)n->unsafe_shutdowns, "clean", n->clean_shutdown);
}

static json_t *unit_to_json(struct nvme_subsys *ss, const struct nvme_unit *u)
{
    json_t *list = json_array();

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = ss->ns[i];
        if (ns && ns->unit == u && (nvme_ns_allocated(ss, i) || ns->going))
            json_array_append_new(list, nvme_ns_to_json(ns));
    }
    return list;
}

void nvme_persist_gone(struct nvme_unit *u)
{
    struct nvme_subsys *ss = u->ss;

    if (!ss->state_path)
        return;
    pthread_mutex_lock(&ss->lock);
    if (!ss->saved)
        ss->saved = json_object();
    if (!json_object_get(ss->saved, "units"))
        json_object_set_new(ss->saved, "units", json_object());
    json_object_set_new(json_object_get(ss->saved, "units"), u->opt->drive->id, unit_to_json(ss, u));
    pthread_mutex_unlock(&ss->lock);
    nvme_state_dirty(ss);
}

/* What is known of units and controllers that are not there stays in the file. */
static char *to_text(struct nvme_subsys *ss)
{
    json_t *units = json_object(), *ctrls = json_object(), *old, *doc;
    struct nvme_unit *u;
    char *text;

    pthread_mutex_lock(&ss->lock);
    old = ss->saved;
    json_object_update(units, json_object_get(old, "units"));
    json_object_update(ctrls, json_object_get(old, "controllers"));
    list_for_each(u, &ss->units, link)
        json_object_set_new(units, u->opt->drive->id, unit_to_json(ss, u));
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
        if (ss->ctrl[i] && !ss->ctrl[i]->pci.pf)        /* virtual functions keep nothing */
            json_object_set_new(ctrls, ss->ctrl[i]->serial, ctrl_to_json(ss->ctrl[i]));
    doc = json_pack("{s:i, s:o, s:o, s:o}", "version", 1, "units", units, "controllers", ctrls, "events", nvme_pel_to_json(&ss->pel, false));
    text = json_dumps(doc, JSON_INDENT(1) | JSON_SORT_KEYS);
    json_decref(old);
    ss->saved = doc;
    pthread_mutex_unlock(&ss->lock);
    return text;
}

struct save { const char *path; char *text; };

static int write_file(void *arg)
{
    struct save *s = arg;

    return file_replace(s->path, s->text, strlen(s->text));
}

static void told(struct nvme_subsys *ss, int e)
{
    if (e)
        log_warn("nvme: the state of the subsystem cannot be written to '%s': %s", ss->state_path, strerror(-e));
}

/* Main loop, coroutine: writes as long as something changed. */
static void co_save(void *arg)
{
    struct nvme_subsys *ss = arg;

    co_mutex_lock(&ss->saving);
    atomic_store(&ss->writing, true);                   /* before dirty is false: one of the two tells that a sync must wait */
    while (atomic_exchange(&ss->dirty, false)) {
        struct save s = { ss->state_path, to_text(ss) };

        told(ss, co_offload(write_file, &s));
        free(s.text);
    }
    atomic_store(&ss->writing, false);
    co_mutex_unlock(&ss->saving);
}

static void save_due(void *arg) { co_spawn(loop_main(), NULL, co_save, arg); }

static void save_asked(void *arg)
{
    struct nvme_subsys *ss = arg;

    if (!timer_armed(&ss->save_timer))
        timer_arm(&ss->save_timer, clock_now(CLOCK_HOST) + SAVE_DELAY_NS);
}

void nvme_state_dirty(struct nvme_subsys *ss)
{
    if (!ss->state_path || atomic_exchange(&ss->dirty, true))
        return;
    loop_post(loop_main(), &ss->save_post);
}

void co_nvme_persist_sync(struct nvme_subsys *ss)
{
    if (ss->state_path && (atomic_load(&ss->dirty) || atomic_load(&ss->writing)))
        co_on_loop(loop_main(), NULL, co_save, ss);
}

void nvme_persist_now(struct nvme_subsys *ss)
{
    struct save s = { .path = ss->state_path };

    if (!s.path)
        return;
    s.text = to_text(ss);
    told(ss, write_file(&s));
    free(s.text);
    atomic_store(&ss->dirty, false);
}

static void at_end(struct run_listener *l, enum run_cause c, bool guest) { nvme_persist_now(container_of(l, struct nvme_subsys, end)); }

/* ---- loading ---- */

bool nvme_persist_open(struct nvme_subsys *ss, const char *path, struct err *e)
{
    json_error_t je;
    uint64_t version;

    if (!path)
        return true;
    if (!file_replace_possible(path, "state", e))
        return false;
    ss->saved = json_load_file(path, 0, &je);
    if (!ss->saved && access(path, F_OK) == 0)
        return err_set(e, ERR_VALUE, "state '%s' is no file of this kind: %s", path, je.text);
    if (ss->saved && (!num(ss->saved, "version", 1, &version) || version != 1)) {
        json_decref(ss->saved);
        ss->saved = NULL;
        return err_set(e, ERR_VALUE, "state '%s' is no file of this kind: version", path);
    }
    nvme_pel_from_json(&ss->pel, json_object_get(ss->saved, "events"));
    ss->state_path = xstrdup(path);
    ss->save_post = (struct post){ .fn = save_asked, .arg = ss };
    timer_init(&ss->save_timer, CLOCK_HOST, loop_main(), NULL, save_due, ss);
    ss->end = (struct run_listener){ .shutdown = at_end };
    run_listen(&ss->end);
    return true;
}

void nvme_persist_close(struct nvme_subsys *ss)
{
    if (!ss->state_path)
        return;
    run_unlisten(&ss->end);
    loop_post_cancel(loop_main(), &ss->save_post);
    timer_fini(&ss->save_timer);
    json_decref(ss->saved);
    free(ss->state_path);
    ss->state_path = NULL;
    ss->saved = NULL;
}

json_t *nvme_persist_unit(const struct nvme_subsys *ss, const struct nvme_unit *u)
{
    return json_object_get(json_object_get(ss->saved, "units"), u->opt->drive->id);
}

bool nvme_persist_ns(struct nvme_ns *ns, json_t *o, struct err *e)
{
    uint64_t base, space, shift, ms, pi, pil, anagrp, protect, rd, wr;
    json_t *id;
    size_t i;

    if (!num(o, "base", INT64_MAX, &base) || !num(o, "space", INT64_MAX, &space) || !num(o, "shift", 16, &shift) || shift < 9 ||
        !num(o, "ms", 4096, &ms) || !num(o, "pi", 3, &pi) || !num(o, "pil", 1, &pil) || !num(o, "anagrp", NVME_ANA_GROUPS, &anagrp) || !anagrp ||
        !num(o, "protect", NVME_PROTECT_EVER, &protect) || !num(o, "read", INT64_MAX, &rd) || !num(o, "written", INT64_MAX, &wr) ||
        !unhex(json_object_get(o, "nguid"), ns->nguid, 16) || !unhex(json_object_get(o, "uuid"), ns->uuid, 16) ||
        !nvme_pi_fits((unsigned)pi, ns->pif, (uint16_t)ms))
        return err_set(e, ERR_VALUE, "namespace %u in the state file makes no sense", ns->nsid);
    if (!range_ok(base, space, blk_size(ns->unit->blk)))
        return err_set(e, ERR_VALUE, "namespace %u in the state file is larger than its drive '%s'", ns->nsid, ns->unit->opt->drive->id);
    ns->base = base;
    ns->space = space;
    ns->shared = json_is_true(json_object_get(o, "shared"));
    ns->anagrp = (uint16_t)anagrp;
    ns->write_protect = protect == NVME_PROTECT_CYCLE ? NVME_PROTECT_NONE : (uint8_t)protect;
    atomic_store(&ns->units_read, rd);
    atomic_store(&ns->units_written, wr);
    nvme_ns_set_format(ns, nvme_format_for(ns, (uint8_t)shift, (uint16_t)ms), json_is_true(json_object_get(o, "extended")), (unsigned)pi, pil);
    memset(ns->attach, 0, sizeof ns->attach);
    json_array_foreach(json_object_get(o, "attached"), i, id)
        if (json_integer_value(id) >= 0 && json_integer_value(id) < (json_int_t)NVME_CTRL_MAX)
            ns->attach[json_integer_value(id) / 32] |= 1u << (json_integer_value(id) & 31);
    nvme_uncor_from_json(ns, json_object_get(o, "uncorrectable"));
    nvme_resv_from_json(ns, json_object_get(o, "reservations"));
    nvme_lba_types_from_json(ns, json_object_get(o, "ranges"));
    return ns->nsze || err_set(e, ERR_VALUE, "namespace %u in the state file has no room for a block", ns->nsid);
}

void nvme_persist_ctrl(struct nvme *n)
{
    json_t *o = json_object_get(json_object_get(n->ss->saved, "controllers"), n->serial), *v;
    const char *key;
    uint64_t x;
    size_t i;

    if (!o)
        return;
    json_object_foreach(json_object_get(o, "features"), key, v)
        if (strtoul(key, NULL, 10) < 256)
            n->feat_saved[strtoul(key, NULL, 10)] = (uint32_t)json_integer_value(v);
    json_array_foreach(json_object_get(o, "firmware"), i, v)
        if (i + 2 <= NVME_FW_SLOTS && json_string_length(v) == NVME_FW_REV)
            memcpy(n->fw_slot[i + 2], json_string_value(v), NVME_FW_REV);
    if (num(o, "active", NVME_FW_SLOTS, &x) && x && (x == 1 || n->fw_slot[x][0]))
        n->fw_active = (uint8_t)x;
    if (num(o, "boot", 1, &x))
        n->boot.active = (uint8_t)x;
    if (num(o, "reads", INT64_MAX, &x))
        atomic_store(&n->reads, x);
    if (num(o, "writes", INT64_MAX, &x))
        atomic_store(&n->writes, x);
    if (num(o, "errors", INT64_MAX, &x))
        atomic_store(&n->errors, x);
    if (num(o, "power-cycles", INT64_MAX, &x))
        n->power_cycles = x;
    if (num(o, "unsafe-shutdowns", INT64_MAX, &x))
        n->unsafe_shutdowns = x;
    n->clean_shutdown = json_is_true(json_object_get(o, "clean"));
    n->features_kept = true;
}
