/* SPDX-License-Identifier: MIT */
/* The options of the command line that describe the machine. They collect; machine_create() builds. */
#include <stdlib.h>
#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include "base/log.h"
#include "base/opt.h"
#include "core/flags.h"
#include "cpu/riscv/hart.h"
#include "cpu/riscv/icount.h"
#include "loop/loop.h"
#include "machine/machine_int.h"
#include "mem/ram.h"

static json_t *collected, *fw_cfg_args, *rtc_args;

json_t *machine_collected(void)
{
    if (!collected)
        collected = json_object();
    return collected;
}

json_t *machine_fw_cfg_args(void)
{
    return fw_cfg_args;
}

/* ---- -M ---- */

static void machine_list(struct str *out)
{
    const struct obj_class *const *list = obj_class_list(&machine_base_class, false);
    char name[64];
    str_add(out, "Machines:\n");
    for (; *list; list++) {
        machine_class_name((const struct machine_class *)*list, name, sizeof name);
        str_printf(out, "  %-20s %s\n", name, (*list)->desc);
    }
}

static bool machine_apply(const char *arg, struct err *e)
{
    struct str out = { 0 };
    if (opt_is_help(arg)) {
        machine_list(&out);
        help_exit(&out);
    }
    json_t *o = opt_parse(arg, "type", e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        char *type = opt_take(o, "type");
        const struct machine_class *c = type ? machine_class_find(type) : NULL;
        if (type && !c) {
            machine_class_unknown(type, e);
            free(type);
            json_decref(o);
            return false;
        }
        if (c)
            help_class_as(&c->obj, type, &out);
        else
            machine_list(&out);
        help_exit(&out);
    }
    const char *key;
    json_t *v;
    json_object_foreach(o, key, v) {
        json_t *sub = json_object_get(machine_collected(), key);
        if (json_is_object(sub) && json_is_object(v))
            json_object_update(sub, v);
        else
            json_object_set(machine_collected(), key, v);
    }
    json_decref(o);
    return true;
}

#define OPT(sym, nm, ar, dc, ph, fn, ...)                                                                        \
    static const struct cli_opt opt_##sym = { .name = nm, .arg = ar, .doc = dc, .section = "Machine", .phase = ph, \
                                              .apply = fn, __VA_ARGS__ };                                        \
    CLI_OPT(&opt_##sym)

OPT(M, "M", "NAME[,OPTION=VALUE...]", "the machine to build (-M help lists them; -M NAME,help its options)", CLI_MACHINE, machine_apply, .of = &machine_base_class);
OPT(machine, "machine", "NAME[,OPTION=VALUE...]", "the same as -M", CLI_MACHINE, machine_apply, .of = &machine_base_class);

/* ---- -cpu, -smp, -m ---- */

const struct obj_class *machine_cpu_class(const char *name)
{
    char full[80];
    const struct obj_class *c = obj_class_find(name);
    if (c && obj_class_is(c, &rv_cpu_class) && !(c->flags & OCF_ABSTRACT))
        return c;
    snprintf(full, sizeof full, "%s-riscv-cpu", name);
    c = obj_class_find(full);
    return c && obj_class_is(c, &rv_cpu_class) && !(c->flags & OCF_ABSTRACT) ? c : NULL;
}

bool machine_cpu_unknown(const char *name, struct err *e)
{
    obj_class_unknown(&rv_cpu_class, "CPU model", name, e);
    return e->hint[0] ? false : err_hint(e, "-cpu help lists the models");
}

static bool cpu_apply(const char *arg, struct err *e)
{
    struct str out = { 0 };
    if (opt_is_help(arg)) {
        help_classes(&rv_cpu_class, "CPU models", &out);
        help_exit(&out);
    }
    json_t *o = opt_parse_flat(arg, "driver", e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        char *name = opt_take(o, "driver");
        const struct obj_class *c = name ? machine_cpu_class(name) : NULL;
        if (name && !c) {
            machine_cpu_unknown(name, e);
            free(name);
            json_decref(o);
            return false;
        }
        if (c)
            help_class(c, &out);
        else
            help_classes(&rv_cpu_class, "CPU models", &out);
        help_exit(&out);
    }
    json_decref(o);
    json_object_set_new(machine_collected(), "cpu", json_string(arg));
    return true;
}
OPT(cpu, "cpu", "MODEL[,EXTENSION=on|off...]", "the CPU model (-cpu help lists them)", CLI_MACHINE, cpu_apply);

/* An option whose keys become one object in the collection. */
static bool sub_apply(const char *arg, const char *key, const char *implied, const struct prop *keys, struct err *e)
{
    struct str out = { 0 };
    json_t *o = opt_parse(arg, implied, e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        help_props(keys, &out);
        help_exit(&out);
    }
    json_t *old = json_object_get(machine_collected(), key);
    if (json_is_object(old))
        json_object_update(old, o);
    else
        json_object_set(machine_collected(), key, o);
    json_decref(o);
    return true;
}

static bool smp_apply(const char *arg, struct err *e)
{
    return sub_apply(arg, "smp", "cpus", machine_smp_props, e);
}
OPT(smp, "smp", "[cpus=]N[,sockets=N][,cores=N][,threads=N]", "number of CPUs and their arrangement", CLI_MACHINE, smp_apply, .args = machine_smp_props);

static bool memory_apply(const char *arg, struct err *e)
{
    return sub_apply(arg, "memory", "size", machine_memory_props, e);
}
OPT(m, "m", "[size=]SIZE", "size of main memory (MiB without a suffix)", CLI_MACHINE, memory_apply, .args = machine_memory_props);

/* ---- images: short for -M kernel=... ---- */

#define STRING_OPT(sym, nm, key, ar, dc)                                                                         \
    static bool sym##_apply(const char *arg, struct err *e)                                                       \
    {                                                                                                            \
        json_object_set_new(machine_collected(), key, json_string(arg));                                         \
        return json_object_get(machine_collected(), key) || err_set(e, ERR_VALUE, "the value is not UTF-8");     \
    }                                                                                                            \
    OPT(sym, nm, ar, dc, CLI_MACHINE, sym##_apply)

STRING_OPT(kernel, "kernel", "kernel", "FILE", "kernel to start: Linux Image (also gzip or EFI zboot), ELF, raw binary");
STRING_OPT(initrd, "initrd", "initrd", "FILE", "initial RAM disk for the kernel");
STRING_OPT(append, "append", "append", "TEXT", "command line for the kernel");
STRING_OPT(dtb, "dtb", "dtb", "FILE", "device tree to hand to the guest instead of the machine's own");
STRING_OPT(bios, "bios", "firmware", "default|builtin|none|FILE", "firmware: built-in SBI, none, or an image such as OpenSBI or U-Boot");

/* ---- -fw_cfg, -rtc, -boot ---- */

static bool fw_cfg_apply(const char *arg, struct err *e)
{
    json_t *o = opt_parse(arg, "name", e);
    if (!o)
        return false;
    if (!fw_cfg_args)
        fw_cfg_args = json_array();
    json_array_append_new(fw_cfg_args, o);
    return true;
}
OPT(fw_cfg, "fw_cfg", "[name=]NAME,file=FILE|string=TEXT", "a named item for the guest's firmware configuration device", CLI_MACHINE, fw_cfg_apply);

struct rtc_opts { char *base; int clock, driftfix; };
static const char *const rtc_clocks[] = { "host", "vm", "rt", NULL };
static const char *const rtc_driftfix[] = { "none", "slew", NULL };
static const struct prop rtc_props[] = {
    PROP_STR(struct rtc_opts, base, "base", 0, "utc, localtime, or the date at start as 2006-06-17T16:01:21 or 2006-06-17"),
    PROP_ENUM(struct rtc_opts, clock, "clock", rtc_clocks, 0, "Clock that drives it: host follows the host's time, vm stops with the machine"),
    PROP_ENUM(struct rtc_opts, driftfix, "driftfix", rtc_driftfix, 0, "Catch up lost ticks; only none has a meaning for this clock"),
    PROP_END,
};

static void rtc_help(struct str *out)
{
    help_props(rtc_props, out);
}

static bool rtc_apply(const char *arg, struct err *e)
{
    struct str out = { 0 };
    json_t *o = opt_parse(arg, "base", e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        rtc_help(&out);
        help_exit(&out);
    }
    json_decref(rtc_args);
    rtc_args = o;
    const char *clock;
    int64_t base;
    return machine_rtc(&clock, &base, e);       /* checked here, used when the board is built */
}
OPT(rtc, "rtc", "[base=]utc|localtime|DATE[,clock=host|rt|vm]", "date and clock of the real-time clock", CLI_MACHINE, rtc_apply, .args = rtc_props);

static bool rtc_date(const char *s, int64_t *ns)
{
    struct tm tm = { 0 };
    const char *end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || *end) {
        tm = (struct tm){ 0 };
        end = strptime(s, "%Y-%m-%d", &tm);
    }
    if (!end || *end)
        return false;
    *ns = (int64_t)timegm(&tm) * 1000000000;
    return true;
}

bool machine_rtc(const char **clock, int64_t *base, struct err *e)
{
    struct rtc_opts r;
    int64_t wall = clock_now(CLOCK_WALL), start = wall;
    bool counted = icount_opts.on && !icount_opts.adapt;
    prop_defaults(rtc_props, &r);
    if (counted) {                          /* two runs begin at the same date and see it go by alike */
        r.base = xstrdup("2025-01-01");
        r.clock = 1;
    }
    bool ok = !rtc_args || prop_set_all(rtc_props, &r, NULL, rtc_args, "option '-rtc'", e);
    if (ok && r.driftfix)
        ok = err_set(e, ERR_VALUE, "driftfix=slew: this clock has no ticks that could be lost");
    if (ok && r.base && !strcmp(r.base, "localtime")) {
        time_t t = wall / 1000000000;
        struct tm tm;
        localtime_r(&t, &tm);
        start += (int64_t)tm.tm_gmtoff * 1000000000;
    } else if (ok && r.base && strcmp(r.base, "utc") && !rtc_date(r.base, &start)) {
        err_set(e, ERR_VALUE, "base=%s is neither utc, localtime nor a date", r.base);
        ok = err_hint(e, "a date looks like 2006-06-17T16:01:21 or 2006-06-17");
    }
    *clock = rtc_clocks[r.clock];
    *base = start - clock_now(r.clock == 0 ? CLOCK_WALL : r.clock == 1 ? CLOCK_VM : CLOCK_HOST);
    if (r.clock == 0 && start == wall)
        *base = 0;
    prop_release(rtc_props, &r);
    return ok;
}

struct boot_opts machine_boot = { .splash_time = -1 };
static const struct prop boot_props[] = {
    PROP_BOOL(struct boot_opts, menu, "menu", false, "Firmware offers a boot menu"),
    PROP_S64(struct boot_opts, splash_time, "splash-time", -1, -1, 0xffff, "Milliseconds that the menu waits"),
    PROP_BOOL(struct boot_opts, strict, "strict", false, "Boot from devices with a bootindex only"),
    PROP_END,
};

static bool boot_apply(const char *arg, struct err *e)
{
    struct str out = { 0 };
    json_t *o = opt_parse(arg, "order", e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        help_props(boot_props, &out);
        help_exit(&out);
    }
    if (json_object_get(o, "order") || json_object_get(o, "once")) {
        json_decref(o);
        err_set(e, ERR_VALUE, "order= and once= name disks of a PC; this machine's firmware does not read them");
        return err_hint(e, "give the device bootindex=N");
    }
    bool ok = prop_set_all(boot_props, &machine_boot, NULL, o, "option '-boot'", e);
    json_decref(o);
    return ok;
}
OPT(boot, "boot", "[menu=on|off][,splash-time=MS][,strict=on|off]", "what firmware is told about booting", CLI_MACHINE, boot_apply, .args = boot_props);

/* ---- main memory's advice ---- */

bool machine_ram_advise(struct machine *m, struct err *e)
{
    struct ram *r = m->ram;
    if (!m->dump_guest_core && madvise(r->host, r->size, MADV_DONTDUMP))
        return err_os(e, errno, "dump-guest-core=off");
    /* On by default and only a wish: hosts without KSM refuse it. */
    if (m->mem_merge)
        madvise(r->host, r->size, MADV_MERGEABLE);
    return true;
}

/* ---- steps ---- */

static bool build_step(struct err *e)
{
    return machine_create(NULL, e) != NULL;
}
static const struct cli_step step_build = { .name = "machine", .phase = CLI_BOARD, .prio = 0, .run = build_step };
CLI_STEP(&step_build);

/* Everything is plugged: the first reset, which puts images in place. */
static bool reset_step(struct err *e)
{
    run_reset(CAUSE_NONE);
    return true;
}
static const struct cli_step step_reset = { .name = "first-reset", .phase = CLI_DEVICE, .prio = 1000, .run = reset_step };
CLI_STEP(&step_reset);
