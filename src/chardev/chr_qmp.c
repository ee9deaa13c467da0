/* SPDX-License-Identifier: MIT */
/* Monitor commands on chardevs. */
#include <stdlib.h>
#include <string.h>

#include "base/opt.h"
#include "chardev/chr_int.h"
#include "core/backend.h"
#include "core/cmd.h"

/* Each chardev of the tree: the i-th, NULL after the last. */
static struct chr *chr_nth(size_t i)
{
    struct obj *it;
    list_for_each(it, &obj_container("chardev")->children, sibling)
        if (i-- == 0)
            return (struct chr *)it;
    return NULL;
}

static json_t *co_query_chardev(void *args, struct err *e)
{
    json_t *list = json_array();
    struct chr *c;
    for (size_t i = 0; (c = chr_nth(i)); i++) {
        struct str name = { 0 };
        chr_filename(c, &name);
        json_array_append_new(list, json_pack("{sssssb}", "label", c->obj.id, "filename", name.s, "frontend-open", chr_front_open(c)));
        str_free(&name);
    }
    return list;
}

static json_t *co_query_backends(void *args, struct err *e)
{
    json_t *list = json_array();
    for (const struct obj_class *const *k = obj_class_list(&chr_class, false); *k; k++)
        json_array_append_new(list, json_pack("{ss}", "name", chr_type_name(*k)));
    return list;
}

static void hmp_info_chardev(const char *arg, struct str *out)
{
    struct chr *c;
    for (size_t i = 0; (c = chr_nth(i)); i++) {
        str_printf(out, "%s: filename=", c->obj.id);
        chr_filename(c, out);
        struct chr_link *l = chr_link_next(c, NULL), *first = l;
        for (; l; l = chr_link_next(c, l) == first ? NULL : chr_link_next(c, l))
            str_printf(out, "%s%s", l == first ? " used by " : ", ", chr_link_user(l));
        str_add(out, "\n");
    }
}

/* ---- chardev-add: QMP's nested form as flat options ---- */

static void move_key(json_t *from, const char *key, json_t *to, const char *as)
{
    json_t *v = json_object_get(from, key);
    if (v && !json_is_object(v))
        json_object_set(to, as, v);
    json_object_del(from, key);
}

/* {"type": T, "data": {...}} of a socket address. */
static void flatten_addr(json_t *data, const char *key, json_t *to, bool local)
{
    json_t *addr = json_object_get(data, key), *in = json_object_get(addr, "data"), *v;
    const char *k;
    json_object_foreach(in ? in : addr, k, v) {
        if (str_eq(k, "type"))
            continue;
        json_object_set(to, str_eq(k, "str") ? "fd" : local && str_eq(k, "host") ? "localaddr" : local && str_eq(k, "port") ? "localport" : k, v);
    }
    json_object_del(data, key);
}

static json_t *backend_to_opts(json_t *backend, struct err *e)
{
    const char *type = json_string_value(json_object_get(backend, "type")), *k;
    json_t *data = json_deep_copy(json_object_get(backend, "data")), *out = json_object(), *v;
    if (!type) {
        err_set(e, ERR_VALUE, "Parameter 'backend.type' is missing");
        json_decref(out);
        json_decref(data);
        return NULL;
    }
    json_object_set_new(out, "backend", json_string(type));
    if (str_eq(type, "socket")) {                       /* its defaults differ from those of the command line */
        flatten_addr(data, "addr", out, false);
        json_object_set_new(out, "server", json_boolean(!json_is_false(json_object_get(data, "server"))));
        if (!json_is_true(json_object_get(data, "wait")))
            json_object_set_new(out, "wait", json_string("off"));
        json_object_del(data, "server");
        json_object_del(data, "wait");
    }
    flatten_addr(data, "remote", out, false);
    flatten_addr(data, "local", out, true);
    move_key(data, "out", out, "path");
    move_key(data, "in", out, "input-path");
    move_key(data, "device", out, "path");
    json_object_foreach(data, k, v)
        json_object_set(out, k, v);
    json_decref(data);
    return out;
}

struct add_args { char *id; json_t *backend; };
static const struct prop add_args[] = {
    PROP_STR(struct add_args, id, "id", PF_REQUIRED, "Name of the chardev"),
    PROP_JSON(struct add_args, backend, "backend", PF_REQUIRED, "Its type and data"), PROP_END
};

static json_t *add_result(struct chr *c)
{
    struct str name = { 0 };
    chr_filename(c, &name);
    json_t *r = str_starts(name.s, "pty:") ? json_pack("{ss}", "pty", name.s + 4) : json_object();
    str_free(&name);
    return r;
}

static json_t *co_chardev_add(void *args, struct err *e)
{
    struct add_args *a = args;
    json_t *o = backend_to_opts(a->backend, e);
    if (!o)
        return NULL;
    json_object_set_new(o, "id", json_string(a->id));
    struct chr *c = chr_create(o, e);
    json_decref(o);
    return c ? add_result(c) : NULL;
}

static struct chr *find_chr(const char *id, struct err *e)
{
    struct obj *o = obj_find("chardev", id);
    if (!o)
        err_set(e, ERR_GENERIC, "Chardev '%s' not found", id);
    return (struct chr *)o;
}

struct id_args { char *id; };
static const struct prop id_args[] = { PROP_STR(struct id_args, id, "id", PF_REQUIRED, "Name of the chardev"), PROP_END };

static json_t *co_chardev_remove(void *args, struct err *e)
{
    struct chr *c = find_chr(((struct id_args *)args)->id, e);
    return c && chr_delete(c, e) ? json_object() : NULL;
}

struct repoint { struct obj *from, *to; };

/* Whoever names the old one in an option names the new one from now on. */
static bool repoint(struct obj *o, void *arg)
{
    const struct repoint *r = arg;
    struct prop p;
    for (size_t i = 0; obj_prop_nth(o->cls, i, &p); i++) {
        struct obj **at = (struct obj **)((char *)o + p.off);
        if (p.type != PROP_T_LINK || *at != r->from)
            continue;
        *at = obj_ref(r->to);
        obj_unref(r->from);
    }
    return true;
}

/* The new back end takes over the id and the front ends of the old one, which goes. */
static void replace(struct chr *old, struct chr *new)
{
    struct repoint r = { &old->obj, &new->obj };
    chr_move_links(old, new);
    obj_each(NULL, NULL, repoint, &r);
    char *id = old->obj.id;
    old->obj.id = new->obj.id;
    new->obj.id = id;
    obj_del(&old->obj);
}

/* Makes what @opts (flat, without an id) say, in the place of chardev @id. NULL with @e filled: the old one stays. */
static struct chr *change(const char *id, json_t *opts, struct err *e)
{
    struct chr *old = find_chr(id, e);
    if (old && CHR_CLASS(old) == &chr_mux_class) {
        err_set(e, ERR_STATE, "chardev '%s' is a mux, whose back end cannot be changed", id);
        return NULL;
    }
    if (!old)
        return NULL;
    char *temporary = xasprintf("%s.new", id);
    json_object_set_new(opts, "id", json_string(temporary));
    struct chr *c = chr_create(opts, e);
    free(temporary);
    if (!c)
        return NULL;
    if (old->n_links > MAX(CHR_CLASS(c)->max_fronts, 1u)) {
        err_set(e, ERR_VALUE, "chardev '%s' has more front ends than the new back end takes", id);
        obj_del(&c->obj);
        return NULL;
    }
    replace(old, c);
    return c;
}

static json_t *co_chardev_change(void *args, struct err *e)
{
    struct add_args *a = args;
    json_t *o = backend_to_opts(a->backend, e);
    struct chr *c = o ? change(a->id, o, e) : NULL;
    json_decref(o);
    return c ? add_result(c) : NULL;
}

static json_t *co_send_break(void *args, struct err *e)
{
    struct chr *c = find_chr(((struct id_args *)args)->id, e);
    if (!c)
        return NULL;
    chr_push_event(c, CHR_BREAK);
    return json_object();
}

static const struct qmp_cmd cmds[] = {
    { .name = "query-chardev", .doc = "The chardevs", .co_run = co_query_chardev, .says = "[{label:str, filename:str, frontend-open:bool}]" },
    { .name = "query-chardev-backends", .doc = "The types of chardevs", .co_run = co_query_backends, .says = "[{name:str}]" },
    { .name = "chardev-add", .doc = "Adds a chardev", .args = add_args, .args_size = sizeof(struct add_args), .co_run = co_chardev_add,
      .says = "{*pty:str}" },
    { .name = "chardev-remove", .doc = "Removes a chardev that nobody uses", .args = id_args, .args_size = sizeof(struct id_args),
      .co_run = co_chardev_remove, .ret = qmp_nothing },
    { .name = "chardev-send-break", .doc = "Sends a break to the front end", .args = id_args, .args_size = sizeof(struct id_args),
      .co_run = co_send_break, .ret = qmp_nothing },
    { .name = "chardev-change", .doc = "Puts another back end under the front end of a chardev", .args = add_args,
      .args_size = sizeof(struct add_args), .co_run = co_chardev_change, .says = "{*pty:str}" },
};
QMP_CMD(&cmds[0]);
QMP_CMD(&cmds[1]);
QMP_CMD(&cmds[2]);
QMP_CMD(&cmds[3]);
QMP_CMD(&cmds[4]);
QMP_CMD(&cmds[5]);
/* ---- the human monitor ---- */

static void hmp_chardev_add(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse(arg, "backend", &e);
    if (!o || !chr_create(o, &e))
        hmp_error(out, &e);
    json_decref(o);
}

static void hmp_chardev_change(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    size_t n = strcspn(arg, " ");
    char *id = xstrndup(arg, n);
    json_t *o = opt_parse(arg + n + strspn(arg + n, " "), "backend", &e);
    if (!o || !change(id, o, &e))
        hmp_error(out, &e);
    json_decref(o);
    free(id);
}

#define HMP(var, nm, ar, ds, ...) static const struct hmp_cmd var = { .name = nm, .args = ar, .doc = ds, __VA_ARGS__ }; HMP_CMD(&var)
HMP(hmp_info, "info chardev", "", "character back ends and who uses them", .co_run = hmp_info_chardev);
HMP(hmp_add, "chardev-add", "TYPE,id=ID[,...]", "adds a character back end", .co_run = hmp_chardev_add);
HMP(hmp_change, "chardev-change", "ID TYPE[,...]", "puts another back end under the front end of a chardev", .co_run = hmp_chardev_change,
    .completes = "chardev");
HMP(hmp_remove, "chardev-remove", "ID", "removes a chardev that nobody uses", .qmp = "chardev-remove", .words = "id", .completes = "chardev");
HMP(hmp_break, "chardev-send-break", "ID", "sends a break to the front end", .qmp = "chardev-send-break", .words = "id", .completes = "chardev");
HMP(hmp_ring_write, "ringbuf_write", "ID TEXT", "writes to a ring buffer chardev", .qmp = "ringbuf-write", .words = "device data...",
    .completes = "chardev");
HMP(hmp_ring_read, "ringbuf_read", "ID SIZE", "takes bytes out of a ring buffer chardev", .qmp = "ringbuf-read", .words = "device size",
    .completes = "chardev");
