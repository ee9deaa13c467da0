/* SPDX-License-Identifier: MIT */
/* Limits of a drive: block_set_io_throttle, and the throttling options of -drive. They hold for its device, in a group by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "block/throttle.h"
#include "core/cmd.h"

/* What a limit is called: in groups, and in commands and old options. */
static const struct { const char *group, *old; } names[TH_LIMITS] = {
    [TH_BPS] = { "bps-total", "bps" }, [TH_BPS_RD] = { "bps-read", "bps_rd" }, [TH_BPS_WR] = { "bps-write", "bps_wr" },
    [TH_IOPS] = { "iops-total", "iops" }, [TH_IOPS_RD] = { "iops-read", "iops_rd" }, [TH_IOPS_WR] = { "iops-write", "iops_wr" },
};

/* ---- groups ---- */

/* The group @name with the limits @o (of -object throttle-group), which are new where there are any. A reference of the caller's. */
static struct obj *group_with(const char *name, json_t *o, struct err *e)
{
    struct obj *g = obj_find("object", name);
    if (!g) {
        g = obj_create(&throttle_group_class, name, o, NULL, e);
        return g ? obj_ref(g) : NULL;
    }
    if (!obj_is(g, &throttle_group_class))
        return err_set(e, ERR_VALUE, "'%s' is not a throttle group", name), NULL;
    if (!json_object_size(o))
        return obj_ref(g);
    struct throttle t = { 0 };
    prop_defaults(throttle_props, &t);
    if (!prop_set_all(throttle_props, &t, NULL, o, "throttle group", e) || !throttle_check(&t, e))
        return NULL;
    throttle_group_set(g, &t);
    return obj_ref(g);
}

void blk_set_throttle(struct blk *b, struct obj *group)
{
    struct obj *old = b->throttle_group;
    b->throttle_group = group;
    atomic_store(&b->throttle, group ? throttle_of_group(group) : NULL);
    obj_unref(old);
}

void blk_throttle_json(struct blk *b, json_t *o)
{
    const struct throttle *t = b->throttle_group ? throttle_of_group(b->throttle_group) : NULL;
    char key[64];
    if (!t)
        return;
    for (unsigned i = 0; i < TH_LIMITS; i++) {
        json_object_set_new(o, names[i].old, json_integer((json_int_t)t->lim[i].rate));
        if (!t->lim[i].max)
            continue;
        snprintf(key, sizeof key, "%s_max", names[i].old);
        json_object_set_new(o, key, json_integer((json_int_t)t->lim[i].max));
        snprintf(key, sizeof key, "%s_max_length", names[i].old);
        json_object_set_new(o, key, json_integer((json_int_t)t->lim[i].max_length));
    }
    if (t->iops_size)
        json_object_set_new(o, "iops_size", json_integer((json_int_t)t->iops_size));
    json_object_set_new(o, "group", json_string(b->throttle_group->id));
}

/* ---- -drive ---- */

/* "throttling.bps-total", "bps", "bps_rd_max", ... as a group calls it; NULL: another key. Static storage. */
static const char *group_key(const char *key)
{
    static char out[64];
    struct prop p;
    if (str_starts(key, "throttling.")) {
        snprintf(out, sizeof out, "x-%.50s", key + strlen("throttling."));
        return prop_find(throttle_props, out, &p) ? out : NULL;
    }
    if (!strcmp(key, "iops_size"))
        return "x-iops-size";
    for (unsigned i = 0; i < TH_LIMITS; i++) {
        const char *rest = str_starts(key, names[i].old) ? key + strlen(names[i].old) : "?";
        const char *suffix = !*rest ? "" : !strcmp(rest, "_max") ? "-max" : !strcmp(rest, "_max_length") ? "-max-length" : NULL;
        if (suffix) {
            snprintf(out, sizeof out, "x-%s%s", names[i].group, suffix);
            return out;
        }
    }
    return NULL;
}

bool blk_drive_throttle(json_t *all, const char *id, struct obj **group, struct err *e)
{
    json_t *o = json_object(), *v;
    const char *key, *name = NULL;
    char *own = NULL;
    void *tmp;
    *group = NULL;
    json_object_foreach_safe(all, tmp, key, v) {
        const char *k = group_key(key);
        if (k) {
            json_object_set(o, k, v);
            json_object_del(all, key);
        }
    }
    static const char *const group_keys[] = { "throttling.group", "group" };
    for (size_t i = 0; i < ARRAY_SIZE(group_keys); i++) {
        name = json_string_value(json_object_get(all, group_keys[i]));
        if (name) {
            free(own);
            own = xstrdup(name);
            json_object_del(all, group_keys[i]);
        }
    }
    bool ok = true;
    if (own || json_object_size(o)) {
        *group = group_with(own ? own : id, o, e);
        ok = *group;
    }
    free(own);
    json_decref(o);
    return ok;
}

/* ---- the command ---- */

struct args { char *device, *id, *group; uint64_t rate[TH_LIMITS], max[TH_LIMITS], length[TH_LIMITS], iops_size; };
#define LIMIT(i, nm, what) \
    { .name = nm, .doc = what " a second; 0: no limit", .type = PROP_T_U64, .flags = PF_REQUIRED, PROP_OFF(struct args, rate[i]), .max = UINT64_C(1) << 50 }, \
    PROP_U64(struct args, max[i], nm "_max", 0, 0, UINT64_C(1) << 50, what " a second for a while"), \
    PROP_U64(struct args, length[i], nm "_max_length", 1, 1, 3600, "How many seconds that may last")
static const struct prop props[] = {
    PROP_STR(struct args, device, "device", 0, "Name of the drive"), PROP_STR(struct args, id, "id", 0, "Id or path of the device"),
    LIMIT(TH_BPS, "bps", "Bytes"), LIMIT(TH_BPS_RD, "bps_rd", "Bytes read"), LIMIT(TH_BPS_WR, "bps_wr", "Bytes written"),
    LIMIT(TH_IOPS, "iops", "Requests"), LIMIT(TH_IOPS_RD, "iops_rd", "Reads"), LIMIT(TH_IOPS_WR, "iops_wr", "Writes"),
    PROP_U64(struct args, iops_size, "iops_size", 0, 0, UINT64_C(1) << 40, "Bytes that count as one request; 0: any length"),
    PROP_STR(struct args, group, "group", 0, "Name of the group whose limits these are; the drive's own if left out"), PROP_END,
};

static struct obj *group_of(const struct args *a, const char *name, struct err *e)
{
    json_t *o = json_object();
    char key[64];
    for (unsigned i = 0; i < TH_LIMITS; i++) {
        snprintf(key, sizeof key, "x-%s", names[i].group);
        json_object_set_new(o, key, json_integer((json_int_t)a->rate[i]));
        snprintf(key, sizeof key, "x-%s-max", names[i].group);
        json_object_set_new(o, key, json_integer((json_int_t)a->max[i]));
        snprintf(key, sizeof key, "x-%s-max-length", names[i].group);
        json_object_set_new(o, key, json_integer((json_int_t)a->length[i]));
    }
    json_object_set_new(o, "x-iops-size", json_integer((json_int_t)a->iops_size));
    struct obj *g = group_with(name, o, e);
    json_decref(o);
    return g;
}

/* What is about a limit that is not there is told, too. */
static bool any_limit(const struct args *a)
{
    for (unsigned i = 0; i < TH_LIMITS; i++)
        if (a->rate[i] || a->max[i] || a->length[i] > 1)
            return true;
    return a->iops_size;
}

static bool co_set(const struct args *a, struct err *e)
{
    const char *name = a->id ? a->id : a->device;
    struct blk *b = name ? blk_of_device(name, e) : NULL;
    struct obj *g = NULL;
    if (!name)
        return err_set(e, ERR_VALUE, "'id' or 'device' is missing");
    if (!b)
        return false;
    const char *group = a->group ? a->group : b->throttle_group ? b->throttle_group->id : b->user->id ? b->user->id : b->node->obj.id;
    if (any_limit(a) && !(g = group_of(a, *group == '#' ? group + 1 : group, e)))
        return false;
    co_blk_drain(b);
    bool ok = blk_still_open(b, e);
    if (ok)
        blk_set_throttle(b, g);
    else
        obj_unref(g);
    blk_undrain(b);
    return ok;
}

static json_t *co_set_io_throttle(void *args, struct err *e) { return co_set(args, e) ? json_object() : NULL; }

static const struct qmp_cmd cmd_throttle = { "block_set_io_throttle", "Limits bytes and requests a second of a drive",
    props, sizeof(struct args), co_set_io_throttle, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_throttle);
