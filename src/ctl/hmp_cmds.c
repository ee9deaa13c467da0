/* SPDX-License-Identifier: MIT */
/* Commands of the monitor for a person that are about the machine as a whole. */
#include "ctl/hmp.h"

#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "core/dev.h"
#include "core/flags.h"
#include "core/run.h"
#include "ctl/qmp.h"
#include "core/user_obj.h"

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct hmp_cmd *const *)a)->name, (*(const struct hmp_cmd *const *)b)->name);
}

static void run_help(const char *arg, struct str *out)
{
    size_t n = 0, all = 0;
    bool is_info = str_starts(arg, "info");     /* the list of its subjects, which programs read, holds nothing else */
    LINKSET_EACH(hmp_cmds, struct hmp_cmd, c)
        all += c != NULL;
    const struct hmp_cmd **list = xcalloc(all, sizeof(*list));
    LINKSET_EACH(hmp_cmds, struct hmp_cmd, c)
        if (!c->absent && (!*arg || str_starts(c->name, arg)) && !(is_info && !strcmp(c->name, "info")))
            list[n++] = c;
    if (!n)
        str_printf(out, "no command begins with '%.60s'; 'help' lists all\n", arg);
    qsort(list, n, sizeof(*list), by_name);
    for (size_t i = 0; i < n; i++)
        str_printf(out, "%s%s%s -- %s\n", list[i]->name, str_eq(list[i]->args, "") || !list[i]->args ? "" : " ", list[i]->args ? list[i]->args : "", list[i]->doc);
    free(list);
}
static void run_info(const char *arg, struct str *out) { run_help("info ", out); }
static void run_quit(const char *arg, struct str *out) { run_request_quit(CAUSE_HOST_QMP_QUIT, 0); }
static void run_pause(const char *arg, struct str *out)
{
    if (run_is_running())
        run_stop(RUN_PAUSED);
}
static void run_resume(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    if (!ctl_cont(&e))
        hmp_error(out, &e);
}
static void run_sysreset(const char *arg, struct str *out) { run_request_reset(CAUSE_HOST_QMP_RESET); }
static void run_power(const char *arg, struct str *out) { run_request_powerdown(); }

static void run_device_add(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse_flat(arg, "driver", &e);
    const char *driver = json_string_value(json_object_get(o, "driver"));
    bool ok = o != NULL;
    if (ok && (opt_asks_help(o) || opt_is_help(driver)))
        ok = user_device_help(driver, out, &e);
    else if (ok)
        ok = dev_create_from_opts(o, true, &e) != NULL;
    json_decref(o);
    if (!ok)
        hmp_error(out, &e);
}

static void run_object_add(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse_flat(arg, "qom-type", &e);
    bool ok = o && user_object_create(o, &e);
    json_decref(o);
    if (!ok)
        hmp_error(out, &e);
}

static void run_object_del(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    if (!user_object_delete(arg, &e))
        hmp_error(out, &e);
}

static void info_status(const char *arg, struct str *out)
{
    enum run_state s = run_state_get();
    if (s == RUN_RUNNING || s == RUN_PAUSED)
        str_printf(out, "VM status: %s\n", run_state_name(s));
    else
        str_printf(out, "VM status: paused (%s)\n", run_state_name(s));
}
static void info_version(const char *arg, struct str *out) { str_add(out, BP_VERSION "\n"); }
static void info_name(const char *arg, struct str *out) { str_printf(out, "%s\n", cli_flags.name ? cli_flags.name : ""); }

static void show_dev(const struct dev *d, unsigned depth, struct str *out);

static void show_bus(const struct bus *b, unsigned depth, struct str *out)
{
    struct dev *d;
    str_printf(out, "%*sbus: %s\n%*s  type %s\n", (int)depth * 2, "", b->obj.id, (int)depth * 2, "", b->obj.cls->name);
    list_for_each(d, &b->devs, on_bus)
        show_dev(d, depth + 1, out);
}

/* What the bus says about the device, each line in its place. */
static void show_on_bus(const struct dev *d, unsigned depth, struct str *out)
{
    struct str lines = { 0 };
    BUS_CLASS(d->bus)->show(d->bus, d, &lines);
    for (char *save = NULL, *l = lines.s ? strtok_r(lines.s, "\n", &save) : NULL; l; l = strtok_r(NULL, "\n", &save))
        str_printf(out, "%*s  %s\n", (int)depth * 2, "", l);
    str_free(&lines);
}

static void show_dev(const struct dev *d, unsigned depth, struct str *out)
{
    struct prop p;
    struct bus *b;
    str_printf(out, "%*sdev: %s, id \"%s\"\n", (int)depth * 2, "", d->obj.cls->name, d->obj.user && d->obj.id[0] != '#' ? d->obj.id : "");
    for (size_t i = 0; obj_prop_nth(d->obj.cls, i, &p); i++) {
        if (p.flags & PF_HIDDEN)
            continue;
        str_printf(out, "%*s  %s = ", (int)depth * 2, "", p.name);
        prop_format(&p, d, &d->obj, out);
        str_add(out, "\n");
    }
    if (d->bus && BUS_CLASS(d->bus)->show)
        show_on_bus(d, depth, out);
    list_for_each(b, &d->buses, of_owner)
        show_bus(b, depth + 1, out);
}

static bool show_root(struct dev *d, void *arg)
{
    if (!d->bus)
        show_dev(d, 1, arg);
    return true;
}

static void info_qtree(const char *arg, struct str *out)
{
    str_add(out, "bus: main-system-bus\n  type System\n");
    dev_each(show_root, out);
}

static const struct hmp_cmd rows[] = {
    { "help", "?", "[COMMAND]", "this list", run_help, "command", .preconfig = true },
    { "info", "", "SUBJECT", "what there is to know", run_info, .preconfig = true },
    { "quit", "q", "", "end the program", run_quit, .preconfig = true },
    { "stop", "s", "", "stop the CPUs and the virtual clock", run_pause },
    { "cont", "c", "", "let the machine run again", run_resume },
    { "system_reset", "", "", "reset the machine", run_sysreset },
    { "system_powerdown", "", "", "press the power button", run_power },
    { "device_add", "", "DRIVER[,PROP=VALUE...]", "plug in a device", run_device_add, "+device" },
    { "device_del", "", "ID", "ask the guest to let go of a device", NULL, "device", .qmp = "device_del", .words = "id" },
    { "object_add", "", "TYPE,id=ID[,PROP=VALUE...]", "make an object", run_object_add, "+object", .preconfig = true },
    { "object_del", "", "ID", "delete an object", run_object_del, "object", .preconfig = true },
    { "info status", "", "", "the run state", info_status, .preconfig = true },
    { "info version", "", "", "the version of the program", info_version, .preconfig = true },
    { "info name", "", "", "the name of the machine", info_name, .preconfig = true },
    { "info qtree", "", "", "devices and buses", info_qtree },
    { "info uuid", "", "", "the UUID of the machine", .qmp = "query-uuid", .words = "" },
    { "info kvm", "", "", "whether KVM is used", .qmp = "query-kvm", .words = "" },
    { "info iothreads", "", "", "I/O threads with their host thread ids", .qmp = "query-iothreads", .words = "" },
    { "info memory_size_summary", "", "", "sizes of memory", .qmp = "query-memory-size-summary", .words = "" },
};
#define ROW(i) HMP_CMD(&rows[i])
ROW(0); ROW(1); ROW(2); ROW(3); ROW(4); ROW(5); ROW(6); ROW(7); ROW(8); ROW(9);
ROW(10); ROW(11); ROW(12); ROW(13); ROW(14); ROW(15); ROW(16); ROW(17); ROW(18);
