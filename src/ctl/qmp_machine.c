/* SPDX-License-Identifier: MIT */
/* QMP commands about the machine as a whole: run state, names, what there is to choose from. */
#include "ctl/qmp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/debug.h"
#include "core/flags.h"
#include "core/run.h"
#include "ctl/mon.h"
#include "machine/machine.h"

static json_t *co_query_status(void *args, struct err *e)
{
    return json_pack("{s:s, s:b}", "status", run_state_name(run_state_get()), "running", run_is_running());
}
static const struct prop status_ret[] = {
    { .name = "status", .doc = "The run state", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "running", .doc = "Whether the CPUs run", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_status = { "query-status", "The run state of the machine", .co_run = co_query_status, .oob = false, .ret = status_ret, .preconfig = true };
QMP_CMD(&cmd_query_status);

static json_t *co_query_version(void *args, struct err *e) { return qmp_version(); }
static const struct prop version_ret[] = {
    { .name = "qemu", .doc = "Version of the protocol: major, minor, micro", .type = PROP_T_JSON, .flags = PF_REQUIRED },
    { .name = "package", .doc = "The program and its version", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_version = { "query-version", "The version of the protocol and of the program", .co_run = co_query_version, .ret = version_ret, .preconfig = true };
QMP_CMD(&cmd_query_version);

static json_t *co_query_name(void *args, struct err *e)
{
    json_t *o = json_object();
    if (cli_flags.name)
        json_object_set_new(o, "name", json_string(cli_flags.name));
    return o;
}
static const struct prop name_ret[] = {
    { .name = "name", .doc = "The name", .type = PROP_T_STR },
    PROP_END };
static const struct qmp_cmd cmd_query_name = { "query-name", "The name given by -name", .co_run = co_query_name, .ret = name_ret, .preconfig = true };
QMP_CMD(&cmd_query_name);

static json_t *co_query_uuid(void *args, struct err *e)
{
    char text[40];
    const uint8_t *u = cli_flags.uuid;
    snprintf(text, sizeof(text), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3],
             u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    return json_pack("{s:s}", "UUID", text);
}
static const struct prop uuid_ret[] = {
    { .name = "UUID", .doc = "The UUID", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_uuid = { "query-uuid", "The UUID of the machine, all zero if none was given", .co_run = co_query_uuid, .ret = uuid_ret, .preconfig = true };
QMP_CMD(&cmd_query_uuid);

static json_t *co_query_kvm(void *args, struct err *e)
{
    return json_pack("{s:b, s:b}", "enabled", 0, "present", 0);
}
static const struct prop kvm_ret[] = {
    { .name = "enabled", .doc = "Whether it is used", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    { .name = "present", .doc = "Whether it is there", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_kvm = { "query-kvm", "Whether KVM is used: never, the CPU is emulated", .co_run = co_query_kvm, .ret = kvm_ret, .preconfig = true };
QMP_CMD(&cmd_query_kvm);

static json_t *co_query_target(void *args, struct err *e) { return json_pack("{s:s}", "arch", "riscv64"); }
static const struct prop target_ret[] = {
    { .name = "arch", .doc = "The architecture", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_target = { "query-target", "The architecture of the guest", .co_run = co_query_target, .ret = target_ret, .preconfig = true };
QMP_CMD(&cmd_query_target);

/* ---- run state ---- */

static json_t *co_stop(void *args, struct err *e)
{
    if (run_is_running())
        run_stop(RUN_PAUSED);
    return json_object();
}
static const struct qmp_cmd cmd_stop = { "stop", "Stops the CPUs and the virtual clock", .co_run = co_stop, .ret = qmp_nothing };
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
static const struct qmp_cmd cmd_cont = { "cont", "Lets the machine run (again)", .co_run = co_cont, .ret = qmp_nothing };
QMP_CMD(&cmd_cont);

static json_t *co_system_reset(void *args, struct err *e)
{
    run_request_reset(CAUSE_HOST_QMP_RESET);
    return json_object();
}
static const struct qmp_cmd cmd_system_reset = { "system_reset", "Resets the machine", .co_run = co_system_reset, .ret = qmp_nothing };
QMP_CMD(&cmd_system_reset);

static json_t *co_system_powerdown(void *args, struct err *e)
{
    run_request_powerdown();
    return json_object();
}
static const struct qmp_cmd cmd_powerdown = { "system_powerdown", "Presses the power button", .co_run = co_system_powerdown, .ret = qmp_nothing };
QMP_CMD(&cmd_powerdown);

static json_t *co_quit(void *args, struct err *e)
{
    run_request_quit(CAUSE_HOST_QMP_QUIT, 0);
    return json_object();
}
static const struct qmp_cmd cmd_quit = { "quit", "Ends the program", .co_run = co_quit, .preconfig = true, .ret = qmp_nothing };
QMP_CMD(&cmd_quit);

/* ---- what there is to choose from ---- */

/* "virt" of "virt-machine". */
static json_t *machine_name(const struct machine_class *c)
{
    const char *n = c->obj.name, *suffix = strstr(n, "-machine");
    size_t len = suffix ? (size_t)(suffix - n) : strlen(n);
    return json_stringn(n, len);
}

/* The name that ends in "-cpu", which is what management tools know. */
static const char *cpu_type(const char *name)
{
    const struct obj_class *c = obj_class_find(name);
    for (const char *const *a = c ? c->aliases : NULL; a && *a; a++)
        if (strlen(*a) > 4 && !strcmp(*a + strlen(*a) - 4, "-cpu"))
            return *a;
    return name;
}

static json_t *co_query_machines(void *args, struct err *e)
{
    json_t *list = json_array();
    for (const struct obj_class *const *c = obj_class_list(&machine_base_class, false); *c; c++) {
        const struct machine_class *m = (const struct machine_class *)*c;
        json_t *o = json_pack("{s:o, s:i, s:b, s:b, s:b, s:b}", "name", machine_name(m), "cpu-max", m->max_cpus ? (int)m->max_cpus : 1,
                              "hotpluggable-cpus", 0, "numa-mem-supported", 0, "deprecated", 0, "acpi", 0);
        if (m->default_cpu)
            json_object_set_new(o, "default-cpu-type", json_string(cpu_type(m->default_cpu)));
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
static const struct prop machines_ret[] = {
    { .name = "name", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "cpu-max", .doc = "CPUs at most", .type = PROP_T_S64, .flags = PF_REQUIRED },
    { .name = "hotpluggable-cpus", .doc = "Whether CPUs can be plugged", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    { .name = "numa-mem-supported", .doc = "Whether NUMA nodes may have memory by size", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    { .name = "deprecated", .doc = "Whether it is to go", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    { .name = "acpi", .doc = "Whether it has ACPI tables", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    { .name = "default-cpu-type", .doc = "CPU model without -cpu", .type = PROP_T_STR },
    { .name = "default-ram-id", .doc = "Name of main memory", .type = PROP_T_STR },
    { .name = "alias", .doc = "Another name", .type = PROP_T_STR },
    PROP_END };
static const struct qmp_cmd cmd_query_machines = { "query-machines", "The machines that -M can build", .co_run = co_query_machines, .ret = machines_ret, .list = true, .preconfig = true };
QMP_CMD(&cmd_query_machines);

static json_t *co_query_commands(void *args, struct err *e)
{
    json_t *list = json_array();
    LINKSET_EACH(qmp_cmds, struct qmp_cmd, c)
        json_array_append_new(list, json_pack("{s:s}", "name", c->name));
    return list;
}
static const struct prop commands_ret[] = {
    { .name = "name", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_commands = { "query-commands", "The names of all commands", .co_run = co_query_commands, .ret = commands_ret, .list = true, .preconfig = true };
QMP_CMD(&cmd_query_commands);

static json_t *co_query_events(void *args, struct err *e)
{
    json_t *list = json_array();
    LINKSET_EACH(qmp_events, struct qmp_event_def, d)
        json_array_append_new(list, json_pack("{s:s}", "name", d->name));
    return list;
}
static const struct prop events_ret[] = {
    { .name = "name", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_events = { "query-events", "The names of all events", .co_run = co_query_events, .ret = events_ret, .list = true, .preconfig = true };
QMP_CMD(&cmd_query_events);

struct options_args { char *option; };
static const struct prop options_props[] = {
    PROP_STR(struct options_args, option, "option", 0, "Only this option"),
    PROP_END };

/* Adds the key unless one of that name is there, or it is not for people. */
static void add_key(json_t *keys, const struct prop *p)
{
    bool flag = p->type == PROP_T_BOOL || p->type == PROP_T_BIT, number = p->type >= PROP_T_U8 && p->type < PROP_T_SIZE32;
    if (!(p->flags & (PF_HIDDEN | PF_READONLY)) && !json_object_get(keys, p->name))
        json_object_set_new(keys, p->name, json_pack("{s:s, s:s, s:s}", "name", p->name, "type", flag ? "boolean" : number ? "number"
                                                     : prop_is_size(p) ? "size" : "string", "help", p->doc));
}

/* What an option takes: of its own, and of the classes that it makes. */
static json_t *option_keys(const struct cli_opt *o)
{
    json_t *keys = json_object(), *list = json_array(), *v;
    const char *name;
    struct prop p;
    for (size_t i = 0; o->args && prop_nth(o->args, i, &p); i++)
        add_key(keys, &p);
    for (const struct obj_class *const *c = o->of ? obj_class_list(o->of, false) : NULL; c && *c; c++)
        for (size_t i = 0; obj_prop_nth(*c, i, &p); i++)
            add_key(keys, &p);
    json_object_foreach(keys, name, v)
        json_array_append(list, v);
    json_decref(keys);
    return list;
}

static json_t *co_query_options(void *args, struct err *e)
{
    struct options_args *a = args;
    json_t *list = json_array();
    LINKSET_EACH(cli_opts, struct cli_opt, o)
        if (!a->option || !strcmp(a->option, o->name))
            json_array_append_new(list, json_pack("{s:s, s:o}", "option", o->name, "parameters", option_keys(o)));
    if (a->option && !json_array_size(list)) {
        json_decref(list);
        err_set(e, ERR_UNKNOWN, "invalid option name: %.60s", a->option);
        return NULL;
    }
    return list;
}
static const struct prop options_ret[] = {
    { .name = "option", .doc = "The option", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "parameters", .doc = "Its keys", .type = PROP_T_JSON, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_query_options = { "query-command-line-options", "The options of the command line", options_props,
    sizeof(struct options_args), co_query_options, .ret = options_ret, .list = true, .preconfig = true };
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
    if (cpu && (!debug_ops || cpu >= debug_ops->n_cpus())) {
        err_set(e, ERR_VALUE, "Invalid parameter 'cpu-index': expected a CPU number");
        return NULL;
    }
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
    sizeof(struct hmp_args), co_human, .says = "str", .preconfig = true };
QMP_CMD(&cmd_human);

/* ---- set-action ---- */

static const char *const reboot_names[] = { "reset", "shutdown", NULL };
static const char *const shutdown_names[] = { "poweroff", "pause", NULL };
static const char *const panic_names[] = { "shutdown", "pause", "none", "exit-failure", NULL };
struct set_action_args { char *reboot, *shutdown, *panic; };
static const struct prop set_action_props[] = {
    PROP_STR(struct set_action_args, reboot, "reboot", 0, "What a reboot of the guest does: reset, shutdown"),
    PROP_STR(struct set_action_args, shutdown, "shutdown", 0, "What a power-off by the guest does: poweroff, pause"),
    PROP_STR(struct set_action_args, panic, "panic", 0, "What a panic reported by the guest does: shutdown, pause, none, exit-failure"),
    PROP_END };

/* The index of @value; @old where none was given; -1 with @e filled. */
static int action_of(const char *key, const char *value, const char *const *names, int old, struct err *e)
{
    if (!value)
        return old;
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], value))
            return i;
    err_set(e, ERR_VALUE, "Parameter '%s' does not accept value '%.60s'", key, value);
    return -1;
}

static json_t *co_set_action(void *args, struct err *e)
{
    const struct set_action_args *a = args;
    int r = action_of("reboot", a->reboot, reboot_names, run_actions.reboot, e);
    int s = r < 0 ? -1 : action_of("shutdown", a->shutdown, shutdown_names, run_actions.shutdown, e);
    int p = s < 0 ? -1 : action_of("panic", a->panic, panic_names, run_actions.panic, e);
    if (p < 0)
        return NULL;                    /* all or none */
    run_actions.reboot = r;
    run_actions.shutdown = s;
    run_actions.panic = p;
    return json_object();
}
static const struct qmp_cmd cmd_set_action = { "set-action", "What reboot, power-off and panic of the guest do", set_action_props,
    sizeof(struct set_action_args), co_set_action, .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd_set_action);

/* ---- memory ---- */

static json_t *co_memory_size(void *args, struct err *e)
{
    const struct machine *m = machine_current();
    return json_pack("{s:I, s:I}", "base-memory", (json_int_t)(m ? m->ram_size : 0), "plugged-memory", (json_int_t)0);
}
static const struct prop memory_ret[] = {
    { .name = "base-memory", .doc = "Bytes that the machine began with", .type = PROP_T_S64, .flags = PF_REQUIRED },
    { .name = "plugged-memory", .doc = "Bytes that were plugged later", .type = PROP_T_S64 },
    PROP_END };
static const struct qmp_cmd cmd_memory_size = { "query-memory-size-summary", "Sizes of memory", .co_run = co_memory_size, .ret = memory_ret };
QMP_CMD(&cmd_memory_size);

static json_t *co_current_machine(void *args, struct err *e) { return json_pack("{s:b}", "wakeup-suspend-support", 0); }
static const struct prop current_ret[] = {
    { .name = "wakeup-suspend-support", .doc = "Whether the guest can be woken up", .type = PROP_T_BOOL, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_current_machine = { "query-current-machine", "What the present machine can do", .co_run = co_current_machine,
    .ret = current_ret };
QMP_CMD(&cmd_current_machine);
