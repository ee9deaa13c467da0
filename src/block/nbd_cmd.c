/* SPDX-License-Identifier: MIT */
/* The NBD server by QMP: nbd-server-*. */
#include <stdlib.h>
#include <string.h>
#include "block/nbd_server.h"
#include "core/cmd.h"

static json_t *done(bool ok) { return ok ? json_object() : NULL; }

const struct prop nbd_server_props[] = {
    PROP_JSON(struct nbd_server_args, addr, "addr", PF_REQUIRED, "Where to listen: type, and host and port or path"),
    PROP_U32(struct nbd_server_args, max, "max-connections", NBD_MAX_CLIENTS, 0, 65536, "How many clients at once; 0: any number. 1: nobody is told that several connections would do, either"),
    PROP_U32(struct nbd_server_args, handshake, "handshake-max-seconds", NBD_HANDSHAKE_SECONDS, 0, 86400,
             "How long a client may take to choose its export; 0: any time"),
    PROP_STR(struct nbd_server_args, tls_creds, "tls-creds", 0, "Object with TLS credentials (endpoint=server): clients are served through TLS only"),
    PROP_END,
};
static json_t *co_start(void *args, struct err *e)
{
    return done(nbd_server_start(args, e));
}

static json_t *co_stop(void *args, struct err *e)
{
    if (!nbd_server_running())
        return done(err_set(e, ERR_STATE, "the NBD server does not run"));
    nbd_server_stop();
    return json_object();
}

struct add_args { char *device, *name, *description, *bitmap; bool writable; };
static const struct prop add_props[] = {
    PROP_STR(struct add_args, device, "device", PF_REQUIRED, "Node (or drive) to export"),
    PROP_STR(struct add_args, name, "name", 0, "Name of the export; else the node's"),
    PROP_STR(struct add_args, description, "description", 0, "What clients are told of it"),
    PROP_BOOL(struct add_args, writable, "writable", false, "Clients may write"),
    PROP_STR(struct add_args, bitmap, "bitmap", 0, "Bitmap that clients may ask about: context qemu:dirty-bitmap:NAME"),
    PROP_END,
};

/* The export's id is its name, where that can be one. */
static char *id_of(const char *name)
{
    for (unsigned i = 0; !obj_id_ok(name) || obj_find("export", name); i++) {
        char *id = xasprintf("nbd-%u", i);
        if (!obj_find("export", id))
            return id;
        free(id);
    }
    return xstrdup(name);
}

static json_t *co_add(void *args, struct err *e)
{
    struct add_args *a = args;
    const char *name = a->name ? a->name : a->device;
    if (nbd_server_running() && nbd_export_find(name))
        return done(err_set(e, ERR_BUSY, "there is an export '%s' already", name));
    char *id = id_of(name);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s*, s:b}", "type", "nbd", "id", id, "node-name", a->device, "name", name, "description",
                          a->description, "writable", a->writable);
    if (a->bitmap)
        json_object_set_new(o, "bitmaps", json_pack("[s]", a->bitmap));
    struct blk_export *x = blk_export_create(o, e);
    json_decref(o);
    free(id);
    return done(x);
}

static const char *const modes[] = { "safe", "hard", NULL };
struct del_args { char *name; int mode; };
static const struct prop remove_props[] = {
    PROP_STR(struct del_args, name, "name", PF_REQUIRED, "The export"),
    PROP_ENUM(struct del_args, mode, "mode", modes, 0, "safe: not while it has clients; hard: they are disconnected"),
    PROP_END,
};

static json_t *co_remove(void *args, struct err *e)
{
    struct del_args *a = args;
    struct nbd_export *x = nbd_export_find(a->name);
    return done(x ? blk_export_del(&x->exp, a->mode == 1, e) : err_set(e, ERR_UNKNOWN, "there is no export '%s'", a->name));
}

#define ROW(var, nm, ds, ...) static const struct qmp_cmd var = { .name = nm, .doc = ds, __VA_ARGS__ }; QMP_CMD(&var)
ROW(cmd_start, "nbd-server-start", "Listens for NBD clients", .args = nbd_server_props, .args_size = sizeof(struct nbd_server_args), .co_run = co_start, .ret = qmp_nothing);
ROW(cmd_stop, "nbd-server-stop", "Disconnects all NBD clients", .co_run = co_stop, .ret = qmp_nothing);
ROW(cmd_add, "nbd-server-add", "Exports a node to NBD clients", .args = add_props, .args_size = sizeof(struct add_args), .co_run = co_add, .ret = qmp_nothing);
ROW(cmd_remove, "nbd-server-remove", "Ends an export", .args = remove_props, .args_size = sizeof(struct del_args), .co_run = co_remove, .ret = qmp_nothing);

/* ---- the human monitor ---- */

/* "HOST:PORT" or "unix:PATH" as nbd-server-start takes it; NULL: neither. */
static json_t *address(const char *text)
{
    const char *colon = strrchr(text, ':');
    if (str_starts(text, "unix:"))
        return json_pack("{s:s, s:s}", "type", "unix", "path", text + 5);
    if (!colon)
        return NULL;
    bool bracket = text[0] == '[' && colon > text + 1 && colon[-1] == ']';
    return json_pack("{s:s, s:s%, s:s}", "type", "inet", "host", text + bracket, (size_t)(colon - text) - 2 * bracket, "port", colon + 1);
}

struct export_all { bool writable; struct str *out; };

static bool export_drive(struct obj *o, void *arg)
{
    struct blk_node *n = (struct blk_node *)o;
    struct err e = ERR_INIT;
    const struct export_all *x = arg;
    struct add_args a = { .device = o->id, .writable = x->writable && !n->caps.read_only };
    json_t *r = n->drive ? co_add(&a, &e) : NULL;
    if (n->drive && !r)
        hmp_error(x->out, &e);
    json_decref(r);
    return true;
}

static void co_hmp_start(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    bool all = false, writable = false;
    for (; arg[0] == '-'; arg += strcspn(arg, " "), arg += strspn(arg, " ")) {
        all |= arg[1] == 'a';
        writable |= arg[1] == 'w';
    }
    struct nbd_server_args a = { .addr = address(arg), .max = NBD_MAX_CLIENTS, .handshake = NBD_HANDSHAKE_SECONDS };
    if (!a.addr)
        err_set(&e, ERR_VALUE, "nbd_server_start [-a] [-w] HOST:PORT, or unix:PATH");
    if (!a.addr || !nbd_server_start(&a, &e))
        hmp_error(out, &e);
    else if (all)
        obj_each(NULL, &blk_node_class, export_drive, &(struct export_all){ writable, out });
    json_decref(a.addr);
}
static const struct hmp_cmd hmp_start = { .name = "nbd_server_start", .args = "[-a] [-w] HOST:PORT", .co_run = co_hmp_start,
    .doc = "listens for NBD clients; -a: exports all drives; -w: to be written, too" };
HMP_CMD(&hmp_start);
