/* SPDX-License-Identifier: MIT */
/* Chardevs from options: -chardev, and the older one-word forms of -serial, -monitor and their like. */
#include <stdio.h>
#include <stdlib.h>

#include "base/opt.h"
#include "base/sock.h"
#include "chardev/chr_int.h"
#include "core/backend.h"
#include "core/help.h"
#include "core/cmd.h"

const char *chr_type_name(const struct obj_class *c) { return backend_type(&chr_class, c); }

static struct chr *create_plain(const struct obj_class *k, const char *id, json_t *opts, struct err *e)
{
    return (struct chr *)obj_create(k, id, opts, NULL, e);
}

/* ID is a mux over the chardev "ID-base", as management tools expect. */
static struct chr *create_muxed(const struct obj_class *k, const char *id, json_t *opts, struct err *e)
{
    struct chr *m = NULL;
    if (obj_find("chardev", id)) {
        err_set(e, ERR_VALUE, "there is a chardev '%s' already", id);
        return NULL;
    }
    char *base_id = xasprintf("%s-base", id);
    struct chr *base = create_plain(k, base_id, opts, e);
    if (base) {
        json_t *mux_opts = json_pack("{ss}", "chardev", base_id);
        m = create_plain(&chr_mux_class.obj, id, mux_opts, e);
        json_decref(mux_opts);
        if (!m)
            obj_del(&base->obj);
    }
    free(base_id);
    return m;
}

struct chr *chr_create(json_t *opts, struct err *e)
{
    char buf[32];
    bool mux = false;
    struct chr *c = NULL;
    json_t *o = json_copy(opts);
    char *type = opt_take(o, "backend"), *id = opt_take(o, "id");
    const char *mux_text = opt_text(o, "mux", buf);

    if (!type)
        err_set(e, ERR_VALUE, "the type of the chardev is missing"), err_hint(e, "TYPE,id=ID[,...]; types: -chardev help");
    else if (!id)
        err_set(e, ERR_VALUE, "'id' is missing: a chardev needs a name by which others find it");
    else if (mux_text && !parse_bool(mux_text, &mux))
        err_set(e, ERR_VALUE, "mux is '%s', but may be on or off", mux_text);
    else {
        const struct obj_class *k = backend_find(&chr_class, type, e);
        json_object_del(o, "mux");
        if (k)
            c = mux ? create_muxed(k, id, o, e) : create_plain(k, id, o, e);
    }
    free(type);
    free(id);
    json_decref(o);
    return c;
}

bool chr_delete(struct chr *c, struct err *e)
{
    char *base_id = CHR_CLASS(c) == &chr_mux_class ? xasprintf("%s-base", c->obj.id) : NULL;
    bool ok = obj_user_delete(&c->obj, e);
    struct obj *base = ok && base_id ? obj_find("chardev", base_id) : NULL;
    free(base_id);
    return base ? chr_delete((struct chr *)base, e) : ok;
}

/* ---- the legacy forms ---- */

static json_t *with_path(const char *backend, const char *path)
{
    return json_pack("{ssss}", "backend", backend, "path", path);
}

/* "HOST:PORT,option..." */
static json_t *legacy_tcp(const char *rest, const char *flag, struct err *e)
{
    char *host, *port;
    json_t *o = opt_parse_flat(rest, "addr", e);
    char *addr = o ? opt_take(o, "addr") : NULL;
    if (o && !addr)
        err_set(e, ERR_VALUE, "the address is missing: write tcp:HOST:PORT");
    if (!addr || !sock_split(addr, &host, &port, e)) {
        json_decref(o);
        free(addr);
        return NULL;
    }
    json_object_set_new(o, "backend", json_string("socket"));
    json_object_set_new(o, "host", json_string(host));
    json_object_set_new(o, "port", json_string(port));
    if (flag)
        json_object_set_new(o, flag, json_string("on"));
    free(host);
    free(port);
    free(addr);
    return o;
}

/* "[HOST]:PORT[@[LOCALADDR]:LOCALPORT]" */
static json_t *legacy_udp(const char *rest, struct err *e)
{
    char *host = NULL, *port = NULL, *lhost = NULL, *lport = NULL;
    const char *at = strchr(rest, '@');
    char *first = xstrndup(rest, at ? (size_t)(at - rest) : strlen(rest));
    json_t *o = NULL;
    if (sock_split(first, &host, &port, e) && (!at || sock_split(at + 1, &lhost, &lport, e))) {
        o = json_pack("{ssssss}", "backend", "udp", "host", *host ? host : "localhost", "port", port);
        if (lhost) {
            json_object_set_new(o, "localaddr", json_string(lhost));
            json_object_set_new(o, "localport", json_string(lport));
        }
    }
    free(first);
    free(host);
    free(port);
    free(lhost);
    free(lport);
    return o;
}

static json_t *legacy_unix(const char *rest, struct err *e)
{
    json_t *o = opt_parse_flat(rest, "path", e);
    if (o)
        json_object_set_new(o, "backend", json_string("socket"));
    return o;
}

static json_t *legacy_opts(const char *text, struct err *e)
{
    static const char *const bare[] = { "null", "stdio", "pty", "ringbuf", NULL };
    static const struct { const char *prefix, *backend; } paths[] = {
        { "file:", "file" }, { "pipe:", "pipe" }, { "pty:", "pty" },
    };
    static const struct { const char *prefix, *flag; } tcps[] = {
        { "tcp:", NULL }, { "telnet:", "telnet" }, { "websocket:", "websocket" }, { "tn3270:", "tn3270" },
    };
    if (str_in_list(text, bare))
        return json_pack("{ss}", "backend", text);
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        if (str_starts(text, paths[i].prefix))
            return with_path(paths[i].backend, text + strlen(paths[i].prefix));
    for (size_t i = 0; i < ARRAY_SIZE(tcps); i++)
        if (str_starts(text, tcps[i].prefix))
            return legacy_tcp(text + strlen(tcps[i].prefix), tcps[i].flag, e);
    if (str_starts(text, "udp:"))
        return legacy_udp(text + 4, e);
    if (str_starts(text, "unix:"))
        return legacy_unix(text + 5, e);
    if (str_starts(text, "/dev/parport"))
        return with_path("parallel", text);
    if (str_starts(text, "/dev/"))
        return with_path("serial", text);
    json_t *o = opt_parse_flat(text, "backend", e);         /* a plain type with its options; "vc:80Cx24C" is told apart below */
    char *type = o ? opt_take(o, "backend") : NULL;
    if (type) {
        type[strcspn(type, ":")] = 0;
        json_object_set_new(o, "backend", json_string(type));
    }
    free(type);
    return o;
}

static _Noreturn void list_types(void)
{
    struct str out = { 0 };
    backend_help_types(&chr_class, "Character back ends (-chardev TYPE,help shows the options)", &out);
    help_exit(&out);
}

struct obj *chr_from_legacy(const char *id, const char *text, bool with_mux, struct err *e)
{
    bool mon = str_starts(text, "mon:");
    const char *what = mon ? text + 4 : text;
    if (opt_is_help(text))
        list_types();
    if (str_starts(what, "chardev:"))
        return obj_lookup(&chr_class, what + 8, e);
    json_t *o = legacy_opts(what, e);
    if (!o)
        return NULL;
    json_object_set_new(o, "id", json_string(id));
    if (mon || with_mux)
        json_object_set_new(o, "mux", json_string("on"));
    if (mon && str_eq(what, "stdio"))
        json_object_set_new(o, "signal", json_string("off"));
    struct chr *c = chr_create(o, e);
    json_decref(o);
    if (c)
        c->monitored = mon && with_mux;
    return c ? &c->obj : NULL;
}

bool chr_is_shared(const struct obj *chardev) { return obj_is(chardev, &chr_mux_class.obj); }
bool chr_wants_monitor(const struct obj *chardev) { return obj_is(chardev, &chr_class) && ((const struct chr *)chardev)->monitored; }

/* ---- -chardev ---- */

static bool chardev_help(json_t *o, struct err *e)
{
    struct str out = { 0 };
    char *type = opt_take(o, "backend");
    if (!type)
        list_types();
    const struct obj_class *k = backend_find(&chr_class, type, e);
    free(type);
    if (!k)
        return false;
    backend_help_type(&chr_class, k, &out);
    help_exit(&out);
}

static bool opt_chardev(const char *arg, struct err *e)
{
    json_t *o = opt_parse_flat(arg, "backend", e);
    if (!o)
        return false;
    bool ok = opt_asks_help(o) ? chardev_help(o, e) : chr_create(o, e) != NULL;
    json_decref(o);
    return ok;
}

static const struct cli_opt cli_chardev = { .name = "chardev", .arg = "TYPE,id=ID[,...]", .section = "Character",
    .phase = CLI_CHARDEV, .doc = "Adds a character back end", .apply = opt_chardev, .helps = true,
    .of = &chr_class };
CLI_OPT(&cli_chardev);

/* Types that exist elsewhere. */
#define ABSENT(type, why) OBJ_ABSENT(type, &chr_class, why)
ABSENT("vc", "a graphical display; write stdio or pty instead");
ABSENT("spicevmc", "SPICE");
ABSENT("spiceport", "SPICE");
ABSENT("braille", "brlapi");
ABSENT("qemu-vdagent", "a graphical display");
ABSENT("dbus", "D-Bus displays");
ABSENT("serial", "serial lines of the host; write pty, or a socket to a program that has the line");
ABSENT("parallel", "parallel ports of the host");
ABSENT("msmouse", "a graphical display");
ABSENT("wctablet", "a graphical display");
