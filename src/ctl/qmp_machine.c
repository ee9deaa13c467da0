/* SPDX-License-Identifier: MIT */
/* QMP commands about the machine as a whole: run state, names, what there is to choose from. */
#include "ctl/qmp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/flags.h"
#include "core/run.h"
#include "ctl/mon.h"
#include "machine/machine.h"

static json_t *co_query_status(void *args, struct err *e)
{
    return json_pack("{s:s, s:b}", "status", run_state_name(run_state_get()), "running", run_is_running());
}
static const struct qmp_cmd cmd_query_status = { "query-status", "The run state of the machine", .co_run = co_query_status, .oob = false };
QMP_CMD(&cmd_query_status);

static json_t *co_query_version(void *args, struct err *e) { return qmp_version(); }
static const struct qmp_cmd cmd_query_version = { "query-version", "The version of the protocol and of the program", .co_run = co_query_version };
QMP_CMD(&cmd_query_version);

static json_t *co_query_name(void *args, struct err *e)
{
    json_t *o = json_object();
    if (cli_flags.name)
        json_object_set_new(o, "name", json_string(cli_flags.name));
    return o;
}
static const struct qmp_cmd cmd_query_name = { "query-name", "The name given by -name", .co_run = co_query_name };
QMP_CMD(&cmd_query_name);

static json_t *co_query_uuid(void *args, struct err *e)
{
    char text[40];
    const uint8_t *u = cli_flags.uuid;
    snprintf(text, sizeof(text), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3],
             u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    return json_pack("{s:s}", "UUID", text);
}
static const struct qmp_cmd cmd_query_uuid = { "query-uuid", "The UUID of the machine, all zero if none was given", .co_run = co_query_uuid };
QMP_CMD(&cmd_query_uuid);

static json_t *co_query_kvm(void *args, struct err *e)
{
    return json_pack("{s:b, s:b}", "enabled", 0, "present", 0);
}
static const struct qmp_cmd cmd_query_kvm = { "query-kvm", "Whether KVM is used: never, the CPU is emulated", .co_run = co_query_kvm };
QMP_CMD(&cmd_query_kvm);

static json_t *co_query_target(void *args, struct err *e) { return json_pack("{s:s}", "arch", "riscv64"); }
static const struct qmp_cmd cmd_query_target = { "query-target", "The architecture of the guest", .co_run = co_query_target };
QMP_CMD(&cmd_query_target);

/* ---- run state ---- */

static json_t *co_stop(void *args, struct err *e)
{
    if (run_is_running())
        run_stop(RUN_PAUSED);
    return json_object();
}
static const struct qmp_cmd cmd_stop = { "stop", "Stops the CPUs and the virtual clock", .co_run = co_stop };
QMP_CMD(&cmd_stop);

bool ctl_cont(struct err *e)
{
    enum run_state s = run_state_get();
    if (s == RUN_SHUTDOWN || s == RUN_INTERNAL_ERROR || s == RUN_GUEST_PANICKED) {
        err_set(e, ERR_STATE, "Resetting the Virtual Machine is required");
        return err_hint(e, "the machine is in state '%s': system_reset first", run_state_name(s));
    }
    run_cont();
    return true;
}

static json_t *co_cont(void *args, struct err *e) { return ctl_cont(e) ? json_object() : NULL; }
static const struct qmp_cmd cmd_cont = { "cont", "Lets the machine run (again)", .co_run = co_cont };
QMP_CMD(&cmd_cont);

static json_t *co_system_reset(void *args, struct err *e)
{
    run_request_reset(CAUSE_HOST_QMP_RESET);
    return json_object();
}
static const struct qmp_cmd cmd_system_reset = { "system_reset", "Resets the machine", .co_run = co_system_reset };
QMP_CMD(&cmd_system_reset);

static json_t *co_system_powerdown(void *args, struct err *e)
{
    run_request_powerdown();
    return json_object();
}
static const struct qmp_cmd cmd_powerdown = { "system_powerdown", "Presses the power button", .co_run = co_system_powerdown };
QMP_CMD(&cmd_powerdown);

static json_t *co_quit(void *args, struct err *e)
{
    run_request_quit(CAUSE_HOST_QMP_QUIT, 0);
    return json_object();
}
static const struct qmp_cmd cmd_quit = { "quit", "Ends the program", .co_run = co_quit, .preconfig = true };
QMP_CMD(&cmd_quit);

/* ---- what there is to choose from ---- */

/* "virt" of "virt-machine". */
static json_t *machine_name(const struct machine_class *c)
{
    const char *n = c->obj.name, *suffix = strstr(n, "-machine");
    size_t len = suffix ? (size_t)(suffix - n) : strlen(n);
    return json_stringn(n, len);
}

static json_t *co_query_machines(void *args, struct err *e)
{
    json_t *list = json_array();
    for (const struct obj_class *const *c = obj_class_list(&machine_base_class, false); *c; c++) {
        const struct machine_class *m = (const struct machine_class *)*c;
        json_t *o = json_pack("{s:o, s:i, s:b, s:b, s:b, s:b}", "name", machine_name(m), "cpu-max", m->max_cpus ? (int)m->max_cpus : 1,
                              "hotpluggable-cpus", 0, "numa-mem-supported", 0, "deprecated", 0, "acpi", 0);
        if (m->default_cpu)
            json_object_set_new(o, "default-cpu-type", json_string(m->default_cpu));
        if (m->default_ram)
            json_object_set_new(o, "default-ram-id", json_string("riscv_virt_board.ram"));
        for (const char *const *a = (*c)->aliases; a && *a; a++) {
            if (str_eq(*a, json_string_value(json_object_get(o, "name"))))
                continue;
            json_object_set_new(o, "alias", json_string(*a));
            break;
        }
        json_array_append_new(list, o);
    }
    return list;
}
static const struct qmp_cmd cmd_query_machines = { "query-machines", "The machines that -M can build", .co_run = co_query_machines };
QMP_CMD(&cmd_query_machines);

static json_t *co_query_commands(void *args, struct err *e)
{
    json_t *list = json_array();
    LINKSET_EACH(qmp_cmds, struct qmp_cmd, c)
        json_array_append_new(list, json_pack("{s:s}", "name", c->name));
    return list;
}
static const struct qmp_cmd cmd_query_commands = { "query-commands", "The names of all commands", .co_run = co_query_commands };
QMP_CMD(&cmd_query_commands);

static json_t *co_query_events(void *args, struct err *e)
{
    json_t *list = json_array();
    LINKSET_EACH(qmp_events, struct qmp_event_def, d)
        json_array_append_new(list, json_pack("{s:s}", "name", d->name));
    return list;
}
static const struct qmp_cmd cmd_query_events = { "query-events", "The names of all events", .co_run = co_query_events };
QMP_CMD(&cmd_query_events);

struct options_args { char *option; };
static const struct prop options_props[] = {
    PROP_STR(struct options_args, option, "option", 0, "Only this option"),
    PROP_END };

static json_t *co_query_options(void *args, struct err *e)
{
    struct options_args *a = args;
    json_t *list = json_array();
    LINKSET_EACH(cli_opts, struct cli_opt, o)
        if (!a->option || !strcmp(a->option, o->name))
            json_array_append_new(list, json_pack("{s:s, s:[]}", "option", o->name, "parameters"));
    if (a->option && !json_array_size(list)) {
        json_decref(list);
        err_set(e, ERR_UNKNOWN, "invalid option name: %.60s", a->option);
        return NULL;
    }
    return list;
}
static const struct qmp_cmd cmd_query_options = { "query-command-line-options", "The options of the command line", options_props,
    sizeof(struct options_args), co_query_options };
QMP_CMD(&cmd_query_options);

/* ---- the other monitor ---- */

struct hmp_args { char *line; uint32_t cpu; };
static const struct prop hmp_props[] = {
    PROP_STR(struct hmp_args, line, "command-line", PF_REQUIRED, "The line as a person would type it"),
    PROP_U32(struct hmp_args, cpu, "cpu-index", 0, 0, 0xffff, "The CPU that it looks at"),
    PROP_END };

static json_t *co_human(void *args, struct err *e)
{
    struct hmp_args *a = args;
    struct str out = { 0 }, crlf = { 0 };
    unsigned cpu = a->cpu;
    co_hmp_execute(a->line, &cpu, &out);
    for (const char *p = out.s ? out.s : ""; *p; p++)
        str_addn(&crlf, *p == '\n' ? "\r\n" : p, *p == '\n' ? 2 : 1);
    json_t *s = json_stringn(crlf.s ? crlf.s : "", crlf.len);
    str_free(&out);
    str_free(&crlf);
    if (!s)
        err_set(e, ERR_GENERIC, "the answer holds bytes that are not UTF-8");
    return s;
}
static const struct qmp_cmd cmd_human = { "human-monitor-command", "Runs a command of the other monitor and returns its text", hmp_props,
    sizeof(struct hmp_args), co_human };
QMP_CMD(&cmd_human);
