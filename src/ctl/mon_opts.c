/* SPDX-License-Identifier: MIT */
/* -monitor, -qmp, -qmp-pretty, -mon. */
#include "ctl/cli_int.h"

#include <stdlib.h>
#include <string.h>
#include "core/cmd.h"
#include "ctl/mon.h"

static bool from_text(const char *arg, struct mon *(*make)(struct obj *), const char *prefix, struct err *e)
{
    static unsigned count;
    char id[32];
    if (!strcmp(arg, "none"))
        return true;
    snprintf(id, sizeof(id), "%s%u", prefix, count++);
    struct obj *c = chr_from_legacy(id, arg, false, e);
    return c && mon_connect(make(c), c, id, e);
}

static struct mon *new_hmp(struct obj *c) { return hmp_mon_new(chr_is_shared(c)); }
static struct mon *new_qmp(struct obj *c) { return qmp_mon_new(false); }
static struct mon *new_qmp_pretty(struct obj *c) { return qmp_mon_new(true); }

static bool apply_monitor(const char *arg, struct err *e) { return from_text(arg, new_hmp, "monitor", e); }
static bool apply_qmp(const char *arg, struct err *e) { return from_text(arg, new_qmp, "qmp", e); }
static bool apply_pretty(const char *arg, struct err *e) { return from_text(arg, new_qmp_pretty, "qmp", e); }

static const char *const modes[] = { "readline", "control", NULL };
struct mon_args { struct obj *chardev; char *id; int mode; bool pretty; };
static const struct prop mon_props[] = {
    PROP_LINK(struct mon_args, chardev, "chardev", &chr_class, PF_REQUIRED, "The character back end it talks through"),
    PROP_STR(struct mon_args, id, "id", 0, "Name of the monitor"),
    PROP_ENUM(struct mon_args, mode, "mode", modes, 0, "readline: for a person; control: QMP"),
    PROP_BOOL(struct mon_args, pretty, "pretty", false, "QMP with line breaks"),
    PROP_END };

static bool apply_mon(const char *arg, struct err *e)
{
    struct mon_args a = { 0 };
    bool ok = cli_args(arg, "chardev", mon_props, &a, "option '-mon'", e);
    if (ok && a.pretty && !a.mode)
        ok = err_set(e, ERR_VALUE, "pretty=on has an effect with mode=control only");
    ok = ok && mon_connect(a.mode ? qmp_mon_new(a.pretty) : new_hmp(a.chardev), a.chardev, a.id ? a.id : "monitor", e);
    prop_release(mon_props, &a);
    return ok;
}

/* "mon:stdio" and its like: who is at the terminal reaches a monitor with Ctrl-a c. */
static bool join_muxes(struct err *e)
{
    struct obj *all = obj_container(chr_class.ns), *c;
    char id[80];
    list_for_each(c, &all->children, sibling) {
        snprintf(id, sizeof(id), "monitor of %.60s", c->id);
        if (chr_wants_monitor(c) && !mon_connect(hmp_mon_new(true), c, id, e))
            return false;
    }
    return true;
}
static const struct cli_step step_muxes = { "shared terminals", CLI_MONITOR, 0, join_muxes };
CLI_STEP(&step_muxes);

static const struct cli_opt opts[] = {
    { "monitor", "CHARDEV", "a monitor for a person on stdio, unix:PATH,server=on,wait=off, ...", "Monitor", CLI_MONITOR, apply_monitor, true },
    { "qmp", "CHARDEV", "a QMP monitor", "Monitor", CLI_MONITOR, apply_qmp, true },
    { "qmp-pretty", "CHARDEV", "a QMP monitor with line breaks", "Monitor", CLI_MONITOR, apply_pretty, true },
    { "mon", "[chardev=]ID[,mode=readline|control]", "a monitor on a chardev", "Monitor", CLI_MONITOR, apply_mon, true, mon_props },
};
CLI_OPT(&opts[0]);
CLI_OPT(&opts[1]);
CLI_OPT(&opts[2]);
CLI_OPT(&opts[3]);
