/* SPDX-License-Identifier: MIT */
/* -accel: what executes instructions. */
#include "cpu/riscv/hart.h"
#include "cpu/riscv/accel.h"

#include <stdlib.h>
#include "base/bits.h"
#include "base/opt.h"
#include "core/flags.h"
#include "loop/loop.h"
#include "machine/machine_int.h"

/* The first is the default, which QEMU's name for emulation means too. */
static const struct accel_ops *const accels[] = {
#ifdef __x86_64__
    &accel_jit,
#endif
    &accel_interp,
};
static const struct accel_ops *chosen;

/* Types, by which programs see what there is to choose from. Nothing is made of them. */
static const struct obj_class accel_base = { .name = "accel", .desc = "What executes instructions", .size = sizeof(struct obj), .flags = OCF_ABSTRACT };
OBJ_CLASS(&accel_base);
#define ACCEL_TYPE(sym, nm, ds) static const struct obj_class sym##_type = { .name = nm "-accel", .desc = ds, .base = &accel_base, \
    .size = sizeof(struct obj), .flags = OCF_INTERNAL }; OBJ_CLASS(&sym##_type)
#ifdef __x86_64__
ACCEL_TYPE(jit, "jit", "Translates to host code");
#endif
ACCEL_TYPE(interp, "interp", "Interprets");
ACCEL_TYPE(tcg, "tcg", "QEMU's name for emulation: the default");
ACCEL_TYPE(qtest, "qtest", "No CPU runs");

static const char *accel_nth(const void *table, size_t i)
{
    return i < ARRAY_SIZE(accels) ? accels[i]->name : i == ARRAY_SIZE(accels) ? "qtest" : NULL;
}

/* The accelerator of that name; NULL: none. */
static const struct accel_ops *accel_find(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_SIZE(accels); i++)
        if (!strcmp(accels[i]->name, name) || (!i && !strcmp(name, "tcg")))
            return accels[i];
    return NULL;
}

static void options_help(const struct accel_ops *a, struct str *out)
{
    str_printf(out, "Options of -accel %s:\n", a->name);
    for (const struct accel_option *i = a->options; i->name; i++)
        str_printf(out, "  %-10s %s\n", i->name, i->doc);
}

static bool accel_set(const char *name, bool *found, struct err *e)
{
    *found = true;
    if (!strcmp(name, "qtest")) {
        cli_flags.qtest = true;
        clock_vm_set_manual(true);
        return true;
    }
    const struct accel_ops *a = accel_find(name);
    if (a) {
        chosen = a;
        return true;
    }
    *found = false;
    if (!strcmp(name, "kvm") || !strcmp(name, "hvf") || !strcmp(name, "xen") || !strcmp(name, "whpx")) {
        err_set(e, ERR_NOT_BUILT, "accelerator '%s' is not in this build", name);
        return err_hint(e, "guests are emulated: leave -accel out");
    }
    return err_unknown(e, "accelerator", name, NULL, accel_nth, NULL);
}

bool machine_accel_choose(const char *text, struct err *e)
{
    bool found = false;
    if (cli_flags.qtest || chosen)          /* -accel said it */
        return true;
    chosen = accels[0];
    if (!text)
        return true;
    char *copy = xstrdup(text), *save = NULL;
    for (char *n = strtok_r(copy, ":", &save); n && !found; n = strtok_r(NULL, ":", &save))
        accel_set(n, &found, e);
    free(copy);
    return found || err_prefix(e, "accel=");
}

/* Options of QEMU's accelerators that choose between ways of which there is one here. */
static bool accel_options(const struct accel_ops *a, json_t *o, struct err *e)
{
    char buf[32];
    const char *t = opt_text(o, "thread", buf);
    if (t && strcmp(t, "multi")) {
        err_set(e, ERR_VALUE, "thread=%s: each CPU is a thread here", t);
        return err_hint(e, "leave thread= out");
    }
    json_object_del(o, "thread");
    for (const struct accel_option *i = a ? a->options : NULL; i && i->name; i++) {
        const char *v = opt_text(o, i->name, buf);
        if (v && !i->set(v, e))
            return err_prefix(e, "%s", i->name);
        json_object_del(o, i->name);
    }
    if (json_object_size(o))
        return err_set(e, ERR_UNKNOWN, "unknown option '%s'", json_object_iter_key(json_object_iter(o)));
    return true;
}

static void accel_help(struct str *out)
{
    str_add(out, "Accelerators:\n");
    for (size_t i = 0; i < ARRAY_SIZE(accels); i++)
        str_printf(out, "  %-10s %s%s\n", accels[i]->name, accels[i]->desc, i ? "" : " (default; also: tcg)");
    str_printf(out, "  %-10s %s\n", "qtest", "No CPU runs, the virtual clock moves only when stepped");
}

static bool accel_apply(const char *arg, struct err *e)
{
    struct str out = { 0 };
    json_t *o = opt_parse(arg, "accel", e);
    bool found = false, ok;
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        const struct accel_ops *a = accel_find(json_string_value(json_object_get(o, "accel")));
        if (a && a->options)
            options_help(a, &out);
        else
            accel_help(&out);
        help_exit(&out);
    }
    char *name = opt_take(o, "accel");
    if (!name)
        ok = err_set(e, ERR_VALUE, "no accelerator is named");
    else if (cli_flags.qtest || chosen)
        ok = true;                          /* the first that works counts, as on QEMU's command line */
    else
        ok = accel_set(name, &found, e);
    ok = ok && accel_options(chosen, o, e);
    free(name);
    json_decref(o);
    return ok;
}

const struct accel_ops *machine_accel(void)
{
    return cli_flags.qtest ? &accel_interp : chosen;
}

bool machine_runs_code(void)
{
    return !cli_flags.qtest;
}

static const struct cli_opt accel_opt = {
    .name = "accel", .arg = "NAME", .doc = "what executes instructions (-accel help lists the choices)", .section = "Machine",
    .phase = CLI_MACHINE, .apply = accel_apply,
};
CLI_OPT(&accel_opt);
