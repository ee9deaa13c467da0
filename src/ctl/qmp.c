/* SPDX-License-Identifier: MIT */
/* The QMP server: sessions, requests, answers. The wire format is that of QEMU's "QMP Protocol Specification". */
#include "ctl/qmp.h"

#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/log.h"
#include "core/backend.h"
#include "core/cmd.h"
#include "ctl/jframe.h"
#include "ctl/mon.h"
#include "ctl/preconfig.h"
#include "loop/co.h"

#define QUEUE_MAX 8             /* requests that wait; then no more input is taken */

struct request { struct list link; json_t *json; };

struct qmp_mon {
    struct mon mon;             /* first */
    bool pretty, negotiated, oob, draining, dead;
    unsigned session;           /* an answer belongs to the session of its request */
    struct jframe frame;
    struct list queue;          /* of struct request */
    unsigned n_queue, n_running;
};

static struct qmp_mon *qmp_of(struct mon *m) { return container_of(m, struct qmp_mon, mon); }

/* ---- output ---- */

/* Takes over @o. */
static void send(struct qmp_mon *q, json_t *o)
{
    char *s = json_dumps(o, q->pretty ? JSON_INDENT(4) : 0);
    json_decref(o);
    if (!s)
        return;
    size_t n = strlen(s);
    mon_write(&q->mon, s, n);
    mon_write(&q->mon, "\r\n", 2);
    free(s);
}

json_t *qmp_version(void)
{
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", 0, "minor", 0, "major", 10, "package", "backplane-" BP_VERSION);
}

static const char *error_class(enum err_class c)
{
    return c == ERR_NOT_FOUND ? "DeviceNotFound" : c == ERR_NO_COMMAND ? "CommandNotFound" : c == ERR_NOT_ACTIVE ? "DeviceNotActive" :
           "GenericError";
}

/* json_pack() refuses bytes that are not UTF-8, which an error may repeat from what was typed: those become '?'. */
static json_t *text(const char *s)
{
    json_t *t = json_string(s);
    if (t)
        return t;
    char *ascii = xstrdup(s);
    for (char *p = ascii; *p; p++)
        if (*p & 0x80)
            *p = '?';
    t = json_string(ascii);
    free(ascii);
    return t;
}

static json_t *error_json(const struct err *e)
{
    char desc[sizeof(e->msg) + sizeof(e->hint) + 4];
    snprintf(desc, sizeof(desc), e->hint[0] ? "%s (%s)" : "%s", e->msg, e->hint);
    return json_pack("{s:{s:s, s:o}}", "error", "class", error_class(e->cls), "desc", text(desc));
}

static void answer(struct qmp_mon *q, json_t *id, json_t *ret, const struct err *e)
{
    json_t *o = ret ? json_pack("{s:o}", "return", ret) : error_json(e);
    if (id)
        json_object_set(o, "id", id);
    send(q, o);
}

/* ---- commands ---- */

struct caps_args { char **enable; };
static const struct prop caps_props[] = {
    PROP_STRV(struct caps_args, enable, "enable", "Capabilities to switch on: 'oob', commands out of band"),
    PROP_END };

static json_t *co_capabilities(void *args, struct err *e)
{
    err_set(e, ERR_NO_COMMAND, "Capabilities negotiation is already complete, command ignored");
    return NULL;
}
static const struct qmp_cmd cmd_capabilities = { "qmp_capabilities", "Ends the negotiation that begins a session", caps_props,
    sizeof(struct caps_args), co_capabilities, .ret = qmp_nothing, .preconfig = true, .no_caps = true };
QMP_CMD(&cmd_capabilities);

static json_t *negotiate(struct qmp_mon *q, struct caps_args *a, struct err *e)
{
    bool oob = false;
    for (char **c = a->enable; c && *c; c++) {
        if (strcmp(*c, "oob")) {
            err_set(e, ERR_VALUE, "Capability '%.60s' not available", *c);
            return NULL;
        }
        oob = true;
    }
    q->oob = oob;
    q->negotiated = true;
    return json_object();
}

const struct qmp_cmd *qmp_cmd_find(const char *name)
{
    LINKSET_EACH(qmp_cmds, struct qmp_cmd, c)
        if (!strcmp(c->name, name))
            return c;
    return NULL;
}

static bool prop_find_in(const void *table, const char *name, struct prop *out) { return table && prop_find(table, name, out); }
static bool class_find_in(const void *c, const char *name, struct prop *out) { return obj_prop_find(c, name, out); }

/* The keys that have rows have the JSON type of their rows; what is wrong with others is told later. */
static bool all_typed(const void *table, bool (*find)(const void *, const char *, struct prop *), json_t *arguments, struct err *e)
{
    const char *key;
    json_t *v;
    struct prop p;
    json_object_foreach(arguments, key, v)
        if (find(table, key, &p) && !prop_typed(&p, v, e))
            return false;
    return true;
}

/* The same for arguments that are the options of a class, which one of them names. */
static bool tagged_typed(const struct qmp_cmd *c, json_t *arguments, struct err *e)
{
    const char *type = json_string_value(json_object_get(arguments, c->tag));
    struct err unknown = ERR_INIT;
    const struct obj_class *k = !type ? NULL : c->one_of ? backend_find(c->one_of, type, &unknown) : obj_class_find(type);
    return !k || all_typed(k, class_find_in, arguments, e);
}

/* @q: whose negotiation the command may be; NULL: nobody's. */
static json_t *co_run_table(struct qmp_mon *q, const struct qmp_cmd *c, json_t *arguments, struct err *e)
{
    char what[80];
    snprintf(what, sizeof(what), "command '%s'", c->name);
    void *args = xcalloc(1, c->args_size ? c->args_size : 1);
    static const struct prop none[] = { PROP_END };
    const struct prop *table = c->args ? c->args : none;
    prop_defaults(table, args);
    json_t *ret = NULL;
    if (prop_set_all(table, args, NULL, arguments, what, e)) {
        if (c == &cmd_capabilities && q && !q->negotiated)
            ret = negotiate(q, args, e);
        else
            ret = c->co_run(args, e);
    }
    prop_release(table, args);
    free(args);
    return ret;
}

static struct qmp_mon *serving;         /* whose command has begun, up to where it first waits */

static json_t *co_run_in_turn(struct qmp_mon *q, const struct qmp_cmd *c, json_t *arguments, struct err *e)
{
    void *turn = c->turn ? c->turn->co_begin(arguments) : NULL;
    serving = q;
    TRACE(qmp_command, "%s", c->name);
    json_t *ret = c->raw ? c->co_run(arguments, e) : co_run_table(q, c, arguments, e);
    serving = NULL;
    if (c->turn)
        c->turn->end(turn);
    return ret;
}

json_t *co_qmp_call(const struct qmp_cmd *c, json_t *arguments, struct err *e) { return co_run_in_turn(NULL, c, arguments, e); }

int qmp_take_fd(void) { return serving ? chr_take_fd(&serving->mon.front) : -1; }

static json_t *co_run_command(struct qmp_mon *q, const struct qmp_cmd *c, json_t *arguments, struct err *e)
{
    json_t *none = arguments ? NULL : json_object();
    json_t *a = arguments ? arguments : none;
    bool typed = c->raw ? !c->tag || tagged_typed(c, a, e) : all_typed(c->args, prop_find_in, a, e);
    json_t *ret = typed ? co_run_in_turn(q, c, a, e) : NULL;
    json_decref(none);
    return ret;
}

static const char *nth_command(const void *table, size_t i)
{
    LINKSET_EACH(qmp_cmds, struct qmp_cmd, c)
        if (!i--)
            return c->name;
    return NULL;
}

/* QEMU's words; behind them why this build has no such command, or the nearest that it has. */
static void no_command(const char *name, struct err *e)
{
    const char *why = qmp_absent(name), *near = why ? NULL : err_nearest(name, nth_command, NULL);
    err_set(e, ERR_NO_COMMAND, "The command %.80s has not been found", name);
    if (why)
        err_hint(e, "%s", why);
    else if (near)
        err_hint(e, "did you mean '%s'?", near);
}

/* The command that a well-formed request names, allowed in this session; NULL with @e filled. */
static const struct qmp_cmd *command_of(struct qmp_mon *q, json_t *req, struct err *e)
{
    json_t *in_band = json_object_get(req, "execute"), *oob = json_object_get(req, "exec-oob");
    const char *name = json_string_value(in_band ? in_band : oob);
    const struct qmp_cmd *c = name ? qmp_cmd_find(name) : NULL;
    if (!q->negotiated && c != &cmd_capabilities)
        err_set(e, ERR_NO_COMMAND, "Expecting capabilities negotiation with 'qmp_capabilities'");
    else if (!c)
        no_command(name, e);
    else if (preconfig_active() && !c->preconfig)
        err_set(e, ERR_GENERIC, "The command %s is permitted only after the machine was built (x-exit-preconfig)", name);
    else if (oob && !q->oob)
        err_set(e, ERR_GENERIC, "QMP input member 'exec-oob' is unexpected");
    else if (oob && !c->oob)
        err_set(e, ERR_GENERIC, "The command %s does not support OOB", name);
    else
        return c;
    return NULL;
}

static bool well_formed(json_t *req, struct err *e)
{
    const char *key;
    json_t *v;
    bool named = false;
    if (!json_is_object(req))
        return err_set(e, ERR_GENERIC, "QMP input must be a JSON object");
    json_object_foreach(req, key, v) {
        bool exec = !strcmp(key, "execute") || !strcmp(key, "exec-oob");
        if (exec && !json_is_string(v))
            return err_set(e, ERR_GENERIC, "QMP input member '%s' must be a string", key);
        if (exec && named)
            return err_set(e, ERR_GENERIC, "QMP input members 'execute' and 'exec-oob' exclude each other");
        named |= exec;
        if (!strcmp(key, "arguments") && !json_is_object(v))
            return err_set(e, ERR_GENERIC, "QMP input member 'arguments' must be an object");
        if (!exec && strcmp(key, "arguments") && strcmp(key, "id"))
            return err_set(e, ERR_GENERIC, "QMP input member '%.60s' is unexpected", key);
    }
    return named || err_set(e, ERR_GENERIC, "QMP input lacks member 'execute'");
}

/* Runs one request and answers it, unless its session has ended meanwhile. Takes over @req. */
static void co_serve(struct qmp_mon *q, json_t *req)
{
    struct err e = ERR_INIT;
    unsigned session = q->session;
    json_t *ret = NULL;
    const struct qmp_cmd *c = well_formed(req, &e) ? command_of(q, req, &e) : NULL;
    if (c)
        ret = co_run_command(q, c, json_object_get(req, "arguments"), &e);
    if (session == q->session && !q->dead)
        answer(q, json_is_object(req) ? json_object_get(req, "id") : NULL, ret, &e);
    else
        json_decref(ret);
    json_decref(req);
}

static void maybe_free(struct qmp_mon *q)
{
    if (!q->dead || q->n_running)
        return;
    jframe_free(&q->frame);
    free(q);
}

static void co_drain(void *arg)
{
    struct qmp_mon *q = arg;
    struct list *l;
    q->n_running++;
    while (!q->dead && (l = list_pop(&q->queue))) {
        struct request *r = list_entry(l, struct request, link);
        json_t *req = r->json;
        free(r);
        if (q->n_queue-- == QUEUE_MAX)
            mon_accept(&q->mon);
        co_serve(q, req);
    }
    q->draining = false;
    q->n_running--;
    maybe_free(q);
}

struct oob_call { struct qmp_mon *q; json_t *req; };

static void co_oob(void *arg)
{
    struct oob_call call = *(struct oob_call *)arg;
    free(arg);
    call.q->n_running++;
    co_serve(call.q, call.req);
    call.q->n_running--;
    maybe_free(call.q);
}

static void take_request(struct qmp_mon *q, json_t *req)
{
    if (q->oob && json_is_object(req) && json_object_get(req, "exec-oob")) {
        struct oob_call *call = xnew(struct oob_call);
        *call = (struct oob_call){ q, req };
        co_spawn(loop_main(), NULL, co_oob, call);
        return;
    }
    struct request *r = xnew(struct request);
    r->json = req;
    list_push(&q->queue, &r->link);
    q->n_queue++;
    if (q->draining)
        return;
    q->draining = true;
    co_spawn(loop_main(), NULL, co_drain, q);
}

static void on_value(void *arg, const char *s, size_t len, const char *error)
{
    struct qmp_mon *q = arg;
    struct err e = ERR_INIT;
    json_error_t je;
    json_t *req = s ? json_parse(s, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je) : NULL;
    if (req) {
        take_request(q, req);
        return;
    }
    if (s)
        err_set(&e, ERR_GENERIC, "JSON parse error, %.120s", je.text);
    else
        err_set(&e, ERR_GENERIC, "%s", error);
    answer(q, NULL, NULL, &e);
}

/* ---- the session ---- */

static void drop_queue(struct qmp_mon *q)
{
    struct list *l;
    while ((l = list_pop(&q->queue))) {
        struct request *r = list_entry(l, struct request, link);
        json_decref(r->json);
        free(r);
    }
    q->n_queue = 0;
}

static void on_opened(struct mon *m)
{
    struct qmp_mon *q = qmp_of(m);
    q->session++;
    q->negotiated = q->oob = false;
    jframe_reset(&q->frame);
    send(q, json_pack("{s:{s:o, s:[s]}}", "QMP", "version", qmp_version(), "capabilities", "oob"));
}

static void on_closed(struct mon *m)
{
    struct qmp_mon *q = qmp_of(m);
    q->session++;
    q->negotiated = q->oob = false;
    drop_queue(q);
}

static bool is_busy(const struct mon *m)
{
    return container_of(m, const struct qmp_mon, mon)->n_queue >= QUEUE_MAX;
}

static void on_read(struct mon *m, const uint8_t *buf, size_t n)
{
    jframe_feed(&qmp_of(m)->frame, buf, n);
}

static void on_free(struct mon *m)
{
    struct qmp_mon *q = qmp_of(m);
    drop_queue(q);
    q->dead = true;
    maybe_free(q);
}

static bool is_running(const struct mon *m) { return container_of(m, const struct qmp_mon, mon)->n_running; }

static const struct mon_ops qmp_ops = { .opened = on_opened, .closed = on_closed, .busy = is_busy, .running = is_running, .read = on_read,
                                        .free = on_free };

struct mon *qmp_mon_new(bool pretty)
{
    qmp_events_init();
    struct qmp_mon *q = xnew(struct qmp_mon);
    q->mon.ops = &qmp_ops;
    q->pretty = pretty;
    list_init(&q->queue);
    q->frame.value = on_value;
    q->frame.arg = q;
    return &q->mon;
}

static bool send_event_to(struct mon *m, void *arg)
{
    if (m->ops != &qmp_ops || !m->open || !qmp_of(m)->negotiated || mon_unread(m) > MON_OUT_MAX)
        return true;
    send(qmp_of(m), json_incref(arg));
    return true;
}

void qmp_broadcast(json_t *event)
{
    mon_each(send_event_to, event);
    json_decref(event);
}
