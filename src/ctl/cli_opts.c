/* SPDX-License-Identifier: MIT */
/* Options about the program as a whole: help, version, names, logging, what ends the machine. */
#include "ctl/cli.h"
#include "ctl/cli_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "base/log.h"
#include "base/opt.h"
#include "core/flags.h"
#include "core/help.h"
#include "core/run.h"

bool cli_args(const char *text, const char *implied, const struct prop *table, void *base, const char *what, struct err *e)
{
    json_t *o = opt_parse(text, implied, e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        struct str b = { 0 };
        help_props(table, &b);
        json_decref(o);
        help_exit(&b);
    }
    prop_defaults(table, base);
    bool ok = prop_set_all(table, base, NULL, o, what, e);
    json_decref(o);
    return ok;
}

static bool apply_help(const char *arg, struct err *e)
{
    struct str b = { 0 };
    cli_help(&b);
    help_exit(&b);
}
static const struct cli_opt opt_h = { "h", NULL, "this help", "Process", CLI_EARLY, apply_help };
static const struct cli_opt opt_help = { "help", NULL, "this help", "Process", CLI_EARLY, apply_help };
CLI_OPT(&opt_h);
CLI_OPT(&opt_help);

static bool apply_manual(const char *arg, struct err *e)
{
    struct str b = { 0 };
    help_manual(&b);
    help_exit(&b);
}
static const struct cli_opt opt_manual = { "manual", NULL, "every device and back end with its options, as Markdown", "Process", CLI_EARLY, apply_manual };
CLI_OPT(&opt_manual);

static bool apply_version(const char *arg, struct err *e)
{
    struct str b = { 0 };
    help_version("backplane", &b);
    help_exit(&b);
}
static const struct cli_opt opt_version = { "version", NULL, "the version and what is in this build", "Process", CLI_EARLY, apply_version };
CLI_OPT(&opt_version);

struct name_args { char *guest, *process; bool debug_threads; };
static const struct prop name_props[] = {
    PROP_STR(struct name_args, guest, "guest", 0, "Name of the machine, shown by monitors and query-name"),
    PROP_STR(struct name_args, process, "process", 0, "Name of the process as ps shows it (15 characters)"),
    PROP_BOOL(struct name_args, debug_threads, "debug-threads", false, "Give each thread a name of its own (always done)"),
    PROP_END };

static bool apply_name(const char *arg, struct err *e)
{
    struct name_args a = { 0 };
    bool ok = cli_args(arg, "guest", name_props, &a, "option '-name'", e);
    if (ok && a.guest)
        cli_flags.name = xstrdup(a.guest);
    if (ok && a.process && strlen(a.process) > 15)
        ok = err_set(e, ERR_VALUE, "process='%.40s': a process name has at most 15 characters", a.process);
    else if (ok && a.process)
        cli_process_name(a.process);
    prop_release(name_props, &a);
    return ok;
}
static const struct cli_opt opt_name = { "name", "[guest=]NAME[,process=NAME]", "name of the machine", "Machine", CLI_EARLY, apply_name, .args = name_props };
CLI_OPT(&opt_name);

struct msg_args { bool timestamp, guest_name; };
static const struct prop msg_props[] = {
    PROP_BOOL(struct msg_args, timestamp, "timestamp", false, "The time before each message"),
    PROP_BOOL(struct msg_args, guest_name, "guest-name", false, "The machine's name (-name) before each message"),
    PROP_END };
static struct msg_args msg;

static bool apply_msg(const char *arg, struct err *e)
{
    return cli_args(arg, "timestamp", msg_props, &msg, "option '-msg'", e);
}
static const struct cli_opt opt_msg = { "msg", "timestamp=on|off[,guest-name=on|off]", "what stands before each message", "Debug", CLI_EARLY, apply_msg, true, .args = msg_props };
CLI_OPT(&opt_msg);

/* -name may come after -msg. */
static bool set_msg(struct err *e)
{
    if (msg.guest_name && !cli_flags.name)
        return err_set(e, ERR_VALUE, "-msg guest-name=on: the machine has no name; -name gives it one");
    log_set_prefix(msg.timestamp, msg.guest_name ? cli_flags.name : NULL);
    return true;
}
static const struct cli_step step_msg = { "messages", CLI_EARLY, 0, set_msg };
CLI_STEP(&step_msg);

static bool apply_uuid(const char *arg, struct err *e)
{
    static const struct prop row = PROP_UUID(struct cli_flags, uuid, "uuid", "UUID of the machine");
    json_t *v = json_string(arg);
    if (!v)
        return err_set(e, ERR_VALUE, "not a UUID (it holds bytes that are not UTF-8)");
    bool ok = prop_set(&row, &cli_flags, NULL, v, e);
    json_decref(v);
    cli_flags.has_uuid |= ok;
    return ok;
}
static const struct cli_opt opt_uuid = { "uuid", "UUID", "UUID of the machine", "Machine", CLI_EARLY, apply_uuid };
CLI_OPT(&opt_uuid);

static bool apply_log_file(const char *arg, struct err *e)
{
    return log_set_file(arg, e);
}
static const struct cli_opt opt_log_file = { "D", "FILE", "write the log (-d, -trace) to FILE", "Debug", CLI_EARLY, apply_log_file };
CLI_OPT(&opt_log_file);

static bool apply_log_items(const char *arg, struct err *e)
{
    struct str b = { 0 };
    if (!opt_is_help(arg))
        return log_set_items(arg, e);
    log_list_items(&b);
    help_exit(&b);
}
static const struct cli_opt opt_log_items = { "d", "ITEM[,...]", "log these items (-d help lists them)", "Debug", CLI_EARLY, apply_log_items };
CLI_OPT(&opt_log_items);

struct trace_args { char *enable, *file; };
static const struct prop trace_props[] = {
    PROP_STR(struct trace_args, enable, "enable", 0, "Trace points to switch on; * and ? match as in file names"),
    PROP_STR(struct trace_args, file, "file", 0, "Write the log to this file"),
    PROP_END };

static void put_trace_point(const struct trace_point *t, void *arg) { str_printf(arg, "%s\n", t->name); }

static bool apply_trace(const char *arg, struct err *e)
{
    if (opt_is_help(arg)) {
        struct str b = { 0 };
        trace_list(put_trace_point, &b);
        help_exit(&b);
    }
    struct trace_args a = { 0 };
    bool ok = cli_args(arg, "enable", trace_props, &a, "option '-trace'", e);
    if (ok && !a.enable && !a.file)
        ok = err_set(e, ERR_VALUE, "needs 'enable=' with the name of a trace point");
    ok = ok && (!a.enable || trace_enable(a.enable, e)) && (!a.file || log_set_file(a.file, e));
    prop_release(trace_props, &a);
    return ok;
}
static const struct cli_opt opt_trace = { "trace", "[enable=]PATTERN[,file=FILE]", "log trace points (-trace help lists them)", "Debug", CLI_EARLY, apply_trace, .args = trace_props };
CLI_OPT(&opt_trace);

static bool apply_compat(const char *arg, struct err *e)
{
    if (strcmp(arg, "qemu") && strcmp(arg, "none")) {
        err_set(e, ERR_VALUE, "unknown value '%.60s'", arg);
        return err_hint(e, "qemu: QEMU's defaults where ours differ (docs/differences.md); none: ours");
    }
    cli_flags.compat_qemu = !strcmp(arg, "qemu");
    return true;
}
static const struct cli_opt opt_compat = { "compat", "qemu|none", "take QEMU's defaults where ours differ", "Machine", CLI_EARLY, apply_compat };
CLI_OPT(&opt_compat);

static bool apply_nographic(const char *arg, struct err *e) { return cli_flags.nographic = cli_flags.display_none = true; }
static const struct cli_opt opt_nographic = { "nographic", NULL, "serial port and monitor share the terminal (Ctrl-a h: help)", "Character", CLI_EARLY, apply_nographic };
CLI_OPT(&opt_nographic);

static bool apply_nodefaults(const char *arg, struct err *e) { return cli_flags.nodefaults = true; }
static const struct cli_opt opt_nodefaults = { "nodefaults", NULL, "no default serial port, monitor or network card", "Machine", CLI_EARLY, apply_nodefaults };
CLI_OPT(&opt_nodefaults);

static bool apply_no_user_config(const char *arg, struct err *e) { return true; }
static const struct cli_opt opt_no_user_config = { "no-user-config", NULL, "read no configuration files (none are ever read)", "Machine", CLI_EARLY, apply_no_user_config };
CLI_OPT(&opt_no_user_config);

static bool apply_paused(const char *arg, struct err *e) { return cli_flags.paused = true; }
static const struct cli_opt opt_paused = { "S", NULL, "do not start the CPUs; 'cont' in a monitor does", "Debug", CLI_EARLY, apply_paused };
CLI_OPT(&opt_paused);

static bool apply_no_reboot(const char *arg, struct err *e) { run_actions.reboot = ACT_REBOOT_SHUTDOWN; return true; }
static const struct cli_opt opt_no_reboot = { "no-reboot", NULL, "a reboot of the guest ends the program", "Machine", CLI_EARLY, apply_no_reboot };
CLI_OPT(&opt_no_reboot);

static bool apply_no_shutdown(const char *arg, struct err *e) { run_actions.shutdown = ACT_SHUTDOWN_PAUSE; return true; }
static const struct cli_opt opt_no_shutdown = { "no-shutdown", NULL, "stop, do not end, when the guest powers off", "Machine", CLI_EARLY, apply_no_shutdown };
CLI_OPT(&opt_no_shutdown);

static const char *const reboot_names[] = { "reset", "shutdown", NULL };
static const char *const shutdown_names[] = { "poweroff", "pause", NULL };
static const char *const panic_names[] = { "shutdown", "pause", "none", "exit-failure", NULL };
struct action_args { int reboot, shutdown, panic; };
static const struct prop action_props[] = {
    PROP_ENUM(struct action_args, reboot, "reboot", reboot_names, ACT_REBOOT_RESET, "What a reboot of the guest does"),
    PROP_ENUM(struct action_args, shutdown, "shutdown", shutdown_names, ACT_SHUTDOWN_POWEROFF, "What a power-off by the guest does"),
    PROP_ENUM(struct action_args, panic, "panic", panic_names, ACT_PANIC_SHUTDOWN, "What a panic reported by the guest does"),
    PROP_END };

static bool apply_action(const char *arg, struct err *e)
{
    struct action_args a;
    struct action_args old = { run_actions.reboot, run_actions.shutdown, run_actions.panic };
    json_t *o = opt_parse(arg, NULL, e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        struct str b = { 0 };
        help_props(action_props, &b);
        json_decref(o);
        help_exit(&b);
    }
    a = old;                    /* options not named keep their value: -action may be repeated */
    bool ok = prop_set_all(action_props, &a, NULL, o, "option '-action'", e);
    json_decref(o);
    if (!ok)
        return false;
    run_actions.reboot = a.reboot;
    run_actions.shutdown = a.shutdown;
    run_actions.panic = a.panic;
    return true;
}
static const struct cli_opt opt_action = { "action", "EVENT=ACTION[,...]", "what reboot=, shutdown= and panic= of the guest do", "Machine", CLI_EARLY, apply_action, .args = action_props };
CLI_OPT(&opt_action);

/* Options of which this build has only the value that switches them off. */
static bool only_none(const char *arg, const char *what, struct err *e)
{
    if (!strcmp(arg, "none"))
        return true;
    if (opt_is_help(arg)) {
        struct str b = { 0 };
        str_add(&b, "none\n");
        help_exit(&b);
    }
    err_set(e, ERR_NOT_BUILT, "%s '%.60s' is not in this build", what, arg);
    return err_hint(e, "only 'none' is");
}

static bool apply_display(const char *arg, struct err *e)
{
    if (!only_none(arg, "display", e))
        return false;
    return cli_flags.display_none = true;
}
static const struct cli_opt opt_display = { "display", "none", "no display", "Device", CLI_EARLY, apply_display };
CLI_OPT(&opt_display);

static bool apply_vga(const char *arg, struct err *e) { return only_none(arg, "display card", e); }
static const struct cli_opt opt_vga = { "vga", "none", "no display card", "Device", CLI_EARLY, apply_vga };
CLI_OPT(&opt_vga);

static bool apply_parallel(const char *arg, struct err *e) { return only_none(arg, "parallel port", e); }
static const struct cli_opt opt_parallel = { "parallel", "none", "no parallel port", "Character", CLI_EARLY, apply_parallel };
CLI_OPT(&opt_parallel);

static bool apply_audio(const char *arg, struct err *e)
{
    static const char driver[] = "driver=";
    const char *a = str_starts(arg, driver) ? arg + strlen(driver) : arg;
    return only_none(a, "audio back end", e);
}
static const struct cli_opt opt_audio = { "audio", "none", "no sound", "Device", CLI_EARLY, apply_audio };
CLI_OPT(&opt_audio);

/* A back end that plays nothing may be made, as programs do for every machine; nothing here would use it. */
static bool apply_audiodev(const char *arg, struct err *e)
{
    json_t *o = opt_parse(arg, "driver", e);
    char buf[32];
    if (!o)
        return false;
    const char *driver = opt_asks_help(o) ? "help" : opt_text(o, "driver", buf);
    bool ok = driver ? only_none(driver, "audio back end", e) : err_set(e, ERR_VALUE, "no driver is named");
    json_decref(o);
    return ok;
}
static const struct cli_opt opt_audiodev = { "audiodev", "none,id=ID", "no sound", "Device", CLI_EARLY, apply_audiodev };
CLI_OPT(&opt_audiodev);
