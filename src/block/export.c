/* SPDX-License-Identifier: MIT */
/* Exports of all types: options, life, block-export-*. */
#include <stdlib.h>
#include "base/opt.h"
#include "block/abandon.h"
#include "block/blk_int.h"
#include "block/export.h"
#include "core/backend.h"
#include "core/cmd.h"
#include "core/run.h"
#include "loop/iothread.h"

enum { END_STEP_NS = 200000 };
#define END_NS INT64_C(60000000000)

#define EXPORT(o) ((struct blk_export *)(o))
#define EXPORT_CLASS(x) ((const struct blk_export_class *)(x)->obj.cls)

/* ---- life ---- */

static const struct prop export_props[] = {
    PROP_STR(struct blk_export, node_name, "node-name", PF_REQUIRED, "Node to export"),
    PROP_BOOL(struct blk_export, writable, "writable", false, "Clients may write"),
    PROP_BOOL(struct blk_export, writethrough, "writethrough", false, "What clients write is on the disk when they are told that it is done"),
    PROP_END,
};

static bool export_complete(struct obj *o, struct err *e)
{
    struct blk_export *x = EXPORT(o);
    char who[160];
    struct blk_node *n = blk_node_find(x->node_name, e);
    if (!n)
        return false;
    if (x->iothread)
        x->dom = domain_new(iothread_loop(x->iothread), "export");
    snprintf(who, sizeof who, "export '%s'", o->id);
    unsigned perm = BLK_PERM_READ | (x->writable ? BLK_PERM_WRITE | (x->grows ? BLK_PERM_RESIZE : 0) : 0);
    x->blk = blk_open(n, perm, BLK_PERM_ALL, x->dom, who, e);
    if (!x->blk)
        return false;
    x->blk->is_export = true;
    blk_set_write_cache(x->blk, !x->writethrough);
    return EXPORT_CLASS(x)->start(x, e);
}

static void export_finalize(struct obj *o)
{
    struct blk_export *x = EXPORT(o);
    blk_close(x->blk);
    if (x->dom)
        domain_free(x->dom);
}

const struct blk_export_class blk_export_class = { .obj = {
    .name = "export", .ns = "export", .size = sizeof(struct blk_export), .props = export_props, .flags = OCF_ABSTRACT,
    .complete = export_complete, .finalize = export_finalize,
} };
OBJ_CLASS(&blk_export_class.obj);
OBJ_ABSENT("vduse-blk", &blk_export_class.obj, "VDUSE of the kernel; vhost-user-blk serves virtual machines, nbd with nbd-client this host");

struct blk_export *blk_export_create(json_t *opts, struct err *e)
{
    json_t *o = json_copy(opts);
    char *type = opt_take(o, "type"), *id = opt_take(o, "id");
    const struct obj_class *c = NULL;
    struct obj *x = NULL;
    if (!type || !id)
        err_set(e, ERR_VALUE, "'%s' is missing in the export", type ? "id" : "type");
    else if (obj_find("export", id))
        err_set(e, ERR_BUSY, "there is an export '%s' already", id);
    else
        c = backend_find(&blk_export_class.obj, type, e);
    if (c)
        x = obj_create(c, id, o, NULL, e);
    free(type);
    free(id);
    json_decref(o);
    return EXPORT(x);
}

static const struct qmp_event_def deleted_event = { "BLOCK_EXPORT_DELETED", "An export ended", .says = "{id:str}" };
QMP_EVENT(&deleted_event);

static void export_free(struct blk_export *x)
{
    qmp_event("BLOCK_EXPORT_DELETED", json_pack("{s:s}", "id", x->obj.id));
    obj_del(&x->obj);
}

bool blk_export_del(struct blk_export *x, bool hard, struct err *e)
{
    if (x->users && !hard) {
        err_set(e, ERR_BUSY, "export '%s' has %u client%s", x->obj.id, x->users, x->users == 1 ? "" : "s");
        return err_hint(e, "mode=hard disconnects them");
    }
    if (x->gone)
        return true;
    x->gone = true;
    x->users++;
    EXPORT_CLASS(x)->stop(x);
    blk_export_put(x);
    return true;
}

void blk_export_put(struct blk_export *x)
{
    if (!--x->users && x->gone)
        export_free(x);
}

struct each { void (*fn)(struct blk_export *, void *); void *arg; };

static bool each(struct obj *o, void *arg)
{
    struct each *a = arg;
    if (!EXPORT(o)->gone)
        a->fn(EXPORT(o), a->arg);
    return true;
}

void blk_export_each(const struct obj_class *c, void (*fn)(struct blk_export *, void *), void *arg)
{
    obj_each(obj_container("export"), c, each, &(struct each){ fn, arg });
}

/* ---- the end ---- */

struct look { struct blk_export *live; bool any; };

static bool look_at(struct obj *o, void *arg)
{
    struct look *l = arg;
    l->any = true;
    l->live = EXPORT(o)->gone ? l->live : EXPORT(o);
    return !l->live;
}

static struct look exports(void)
{
    struct look l = { NULL, false };
    obj_each(obj_container("export"), &blk_export_class.obj, look_at, &l);
    return l;
}

/* Ends all of them, and waits until they are gone: not for ever, unless storage has not answered, to whose end abandon.c sees. */
static void co_exports_end(void *unused)
{
    struct err e = ERR_INIT;
    struct look l;
    while ((l = exports()).live)
        if (!blk_export_del(l.live, true, &e))
            err_print(&e);
    int64_t deadline = clock_now(CLOCK_HOST) + END_NS;
    while (exports().any && (clock_now(CLOCK_HOST) < deadline || blk_any_in_flight()))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + END_STEP_NS);
}

/* Before the nodes: what is exported is closed then, and written. */
static void end_exports(void)
{
    if (exports().any)
        co_run_main(co_exports_end, NULL);
}
static const struct run_end exports_end = { "exports", RUN_END_BACKENDS - 20, end_exports };
RUN_END(&exports_end);

/* ---- QMP ---- */

static const struct prop add_props[] = {
    { .name = "type", .doc = "Type of the export", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "id", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };

static json_t *co_add(void *args, struct err *e) { return blk_export_create(args, e) ? json_object() : NULL; }

static const char *const modes[] = { "safe", "hard", NULL };
struct del_args { char *id; int mode; };
static const struct prop del_props[] = {
    PROP_STR(struct del_args, id, "id", PF_REQUIRED, "The export"),
    PROP_ENUM(struct del_args, mode, "mode", modes, 0, "safe: not while it has clients; hard: they are disconnected"),
    PROP_END,
};

static json_t *co_del(void *args, struct err *e)
{
    struct del_args *a = args;
    struct obj *o = obj_lookup(&blk_export_class.obj, a->id, e);
    return o && blk_export_del(EXPORT(o), a->mode == 1, e) ? json_object() : NULL;
}

static bool show(struct obj *o, void *list)
{
    struct blk_export *x = EXPORT(o);
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "id", o->id, "type", backend_type(&blk_export_class.obj, o->cls), "node-name",
                                          blk_node_of(x->blk)->obj.id, "shutting-down", x->gone));
    return true;
}

static json_t *co_query(void *args, struct err *e)
{
    json_t *list = json_array();
    obj_each(obj_container("export"), &blk_export_class.obj, show, list);
    return list;
}

#define ROW(var, nm, ds, ...) static const struct qmp_cmd var = { .name = nm, .doc = ds, __VA_ARGS__ }; QMP_CMD(&var)
ROW(cmd_add, "block-export-add", "Exports a node: type, id, node-name and the options of the type", .co_run = co_add, .raw = true, .args = add_props,
    .tag = "type", .one_of = &blk_export_class.obj, .ret = qmp_nothing);
ROW(cmd_del, "block-export-del", "Ends an export", .args = del_props, .args_size = sizeof(struct del_args), .co_run = co_del, .ret = qmp_nothing);
ROW(cmd_query, "query-block-exports", "Exports", .co_run = co_query, .says = "[{id:str, type:str, node-name:str, shutting-down:bool}]");
