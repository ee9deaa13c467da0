/* SPDX-License-Identifier: MIT */
/* The NBD server by QMP: nbd-server-*, block-export-*. */
#include <stdlib.h>
#include "block/nbd_server.h"
#include "core/cmd.h"

static json_t *done(bool ok) { return ok ? json_object() : NULL; }

struct start_args { json_t *addr; uint32_t max; char *tls_creds; };
static const struct prop start_props[] = {
    PROP_JSON(struct start_args, addr, "addr", PF_REQUIRED, "Where to listen: type, and host and port or path"),
    PROP_U32(struct start_args, max, "max-connections", 0, 0, 65536, "How many clients at once; 0: any number"),
    PROP_STR(struct start_args, tls_creds, "tls-creds", 0, "Object with TLS credentials (endpoint=server): clients are served through TLS only"),
    PROP_END,
};
static json_t *co_start(void *args, struct err *e)
{
    struct start_args *a = args;
    return done(nbd_server_start(a->addr, a->max, a->tls_creds, e));
}

static json_t *co_stop(void *args, struct err *e)
{
    if (!nbd_server_running())
        return done(err_set(e, ERR_STATE, "the NBD server does not run"));
    nbd_server_stop();
    return json_object();
}

struct add_args { char *type, *id, *node, *device, *name, *description, *bitmap; json_t *bitmaps; bool writable; };
static const struct prop add_props[] = {
    PROP_STR(struct add_args, device, "device", 0, "Node (or drive) to export"),
    PROP_STR(struct add_args, name, "name", 0, "Name of the export; else the node's"),
    PROP_STR(struct add_args, description, "description", 0, "What clients are told of it"),
    PROP_BOOL(struct add_args, writable, "writable", false, "Clients may write"),
    PROP_STR(struct add_args, bitmap, "bitmap", 0, "Bitmap that clients may ask about: context qemu:dirty-bitmap:NAME"),
    PROP_END,
};
static const struct prop export_props[] = {
    PROP_STR(struct add_args, type, "type", PF_REQUIRED, "nbd"),
    PROP_STR(struct add_args, id, "id", PF_REQUIRED, "Name for block-export-del"),
    PROP_STR(struct add_args, node, "node-name", PF_REQUIRED, "Node to export"),
    PROP_STR(struct add_args, name, "name", 0, "Name of the export; else the node's"),
    PROP_STR(struct add_args, description, "description", 0, "What clients are told of it"),
    PROP_BOOL(struct add_args, writable, "writable", false, "Clients may write"),
    PROP_JSON(struct add_args, bitmaps, "bitmaps", 0, "Bitmaps that clients may ask about: names, or objects with \"node\" and \"name\""),
    PROP_END,
};

static bool add_bitmaps(struct nbd_export *x, const struct add_args *a, struct err *e)
{
    json_t *one = a->bitmap ? json_pack("[s]", a->bitmap) : NULL, *list = one ? one : a->bitmaps, *v;
    size_t i;
    bool ok = !list || json_is_array(list) || err_set(e, ERR_VALUE, "'bitmaps' must be a list");
    json_array_foreach(list, i, v)
        ok = ok && nbd_export_add_bitmap(x, v, e);
    json_decref(one);
    return ok;
}

static json_t *add(const struct add_args *a, const char *node, struct err *e)
{
    if (!node)
        return done(err_set(e, ERR_VALUE, "'device' is missing"));
    if (a->type && !str_eq(a->type, "nbd"))
        return done(err_set(e, ERR_VALUE, "exports of type '%s' are not known here: nbd", a->type));
    if (!nbd_server_running())
        return done(err_set(e, ERR_STATE, "the NBD server does not run: nbd-server-start"));
    struct blk_node *n = blk_node_find(node, e);
    struct nbd_export *x = n ? nbd_export_add(a->id, n, a->name, a->description, a->writable, e) : NULL;
    struct err ignored = ERR_INIT;
    bool ok = x && add_bitmaps(x, a, e);
    if (x && !ok && !nbd_export_del(x, true, &ignored))
        err_print(&ignored);
    return done(ok);
}
static json_t *co_add(void *args, struct err *e) { return add(args, ((struct add_args *)args)->device, e); }
static json_t *co_export_add(void *args, struct err *e) { return add(args, ((struct add_args *)args)->node, e); }

static const char *const modes[] = { "safe", "hard", NULL };
struct del_args { char *name; int mode; };
#define DEL_PROPS(key) PROP_STR(struct del_args, name, key, PF_REQUIRED, "The export"), \
    PROP_ENUM(struct del_args, mode, "mode", modes, 0, "safe: not while it has clients; hard: they are disconnected"), PROP_END
static const struct prop remove_props[] = { DEL_PROPS("name") };
static const struct prop del_props[] = { DEL_PROPS("id") };

static json_t *del(struct nbd_export *x, const struct del_args *a, struct err *e)
{
    return done(x ? nbd_export_del(x, a->mode == 1, e) : err_set(e, ERR_NOT_FOUND, "there is no export '%s'", a->name));
}
static json_t *co_remove(void *args, struct err *e) { return del(nbd_export_find(((struct del_args *)args)->name), args, e); }
static json_t *co_export_del(void *args, struct err *e) { return del(nbd_export_by_id(((struct del_args *)args)->name), args, e); }
static json_t *co_query(void *args, struct err *e) { return nbd_exports_json(); }

#define ROW(var, nm, ds, ...) static const struct qmp_cmd var = { .name = nm, .doc = ds, __VA_ARGS__ }; QMP_CMD(&var)
ROW(cmd_start, "nbd-server-start", "Listens for NBD clients", .args = start_props, .args_size = sizeof(struct start_args), .co_run = co_start);
ROW(cmd_stop, "nbd-server-stop", "Disconnects all NBD clients", .co_run = co_stop);
ROW(cmd_add, "nbd-server-add", "Exports a node to NBD clients", .args = add_props, .args_size = sizeof(struct add_args), .co_run = co_add);
ROW(cmd_remove, "nbd-server-remove", "Ends an export", .args = remove_props, .args_size = sizeof(struct del_args), .co_run = co_remove);
ROW(cmd_export_add, "block-export-add", "Exports a node", .args = export_props, .args_size = sizeof(struct add_args), .co_run = co_export_add);
ROW(cmd_export_del, "block-export-del", "Ends an export", .args = del_props, .args_size = sizeof(struct del_args), .co_run = co_export_del);
ROW(cmd_query, "query-block-exports", "Exports", .co_run = co_query);
