/* SPDX-License-Identifier: MIT */
/* What is logged while the machine runs: log, logfile, trace-event; and the same for programs. */
#include "ctl/hmp.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/opt.h"

/* ---- log ---- */

static void run_log(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    if (opt_is_help(arg) || !*arg)
        log_list_items(out);
    else if (!log_set_items(arg, &e))
        hmp_error(out, &e);
}

static void run_logfile(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    if (!*arg)
        str_add(out, "Error: logfile FILE\n");
    else if (!log_set_file(arg, &e))
        hmp_error(out, &e);
}

/* ---- trace points ---- */

struct trace_args { char *name; bool enable, ignore; };
#define NAME(ds) PROP_STR(struct trace_args, name, "name", PF_REQUIRED, ds)
static const struct prop get_props[] = { NAME("Trace points; * and ? match as in file names"), PROP_END };
static const struct prop set_props[] = { NAME("Trace points; * and ? match as in file names"),
    { .name = "enable", .doc = "Whether they are logged from now on", .type = PROP_T_BOOL, .flags = PF_REQUIRED, PROP_OFF(struct trace_args, enable) },
    PROP_BOOL(struct trace_args, ignore, "ignore-unavailable", false, "No error where none has that name"), PROP_END };

static bool trace_switch(const char *name, bool on, struct err *e)
{
    char *pattern = xasprintf("%s%s", on ? "" : "-", name);
    bool ok = trace_enable(pattern, e);
    free(pattern);
    return ok;
}

static json_t *co_set_state(void *args, struct err *e)
{
    const struct trace_args *a = args;
    struct err unknown = ERR_INIT;
    return trace_switch(a->name, a->enable, a->ignore ? &unknown : e) || a->ignore ? json_object() : NULL;
}

struct listing { const char *pattern; json_t *list; };

static void put_state(const struct trace_point *t, void *arg)
{
    struct listing *l = arg;
    if (!fnmatch(l->pattern, t->name, 0))
        json_array_append_new(l->list, json_pack("{s:s, s:s, s:b}", "name", t->name, "state", t->on ? "enabled" : "disabled", "vcpu", 0));
}

static json_t *co_get_state(void *args, struct err *e)
{
    struct listing l = { ((struct trace_args *)args)->name, json_array() };
    trace_list(put_state, &l);
    if (json_array_size(l.list) || strpbrk(l.pattern, "*?["))
        return l.list;
    json_decref(l.list);
    err_set(e, ERR_NOT_FOUND, "unknown event \"%s\"", l.pattern);
    return NULL;
}

static const struct qmp_cmd cmds[] = {
    { "trace-event-get-state", "Which trace points are logged", get_props, sizeof(struct trace_args), co_get_state,
      .says = "[{name:str, state:str, vcpu:bool}]", .preconfig = true },
    { "trace-event-set-state", "Switches trace points on or off", set_props, sizeof(struct trace_args), co_set_state, .ret = qmp_nothing, .preconfig = true },
};
QMP_CMD(&cmds[0]);
QMP_CMD(&cmds[1]);

static void run_trace_event(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    char *name = opt_next_word(&arg), *state = opt_next_word(&arg);
    bool on;
    if (!state || !parse_bool(state, &on))
        str_add(out, "Error: trace-event NAME on|off\n");
    else if (!trace_switch(name, on, &e))
        hmp_error(out, &e);
    free(name);
    free(state);
}

static void put_point(const struct trace_point *t, void *out) { str_printf(out, "%s : state %d\n", t->name, t->on); }
static void info_trace_events(const char *arg, struct str *out) { trace_list(put_point, out); }

static const struct hmp_cmd rows[] = {
    { "log", "", "ITEM[,...]", "log these items (help lists them, none ends it)", run_log, .preconfig = true },
    { "logfile", "", "FILE", "write the log to a file", run_logfile, .preconfig = true },
    { "trace-event", "", "NAME on|off", "log a trace point, or no longer", run_trace_event, .preconfig = true },
    { "info trace-events", "", "", "trace points, and which are logged", info_trace_events, .preconfig = true },
};
HMP_CMD(&rows[0]);
HMP_CMD(&rows[1]);
HMP_CMD(&rows[2]);
HMP_CMD(&rows[3]);
