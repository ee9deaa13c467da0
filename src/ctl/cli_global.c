/* SPDX-License-Identifier: MIT */
/* -global: the default of an option for every device of a class, boards' own included. */
#include "ctl/cli_int.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "core/cmd.h"
#include "core/flags.h"
#include "core/obj.h"

struct global_args { char *driver, *property, *value; };
static const struct prop global_props[] = {
    PROP_STR(struct global_args, driver, "driver", PF_REQUIRED, "Type of the devices"),
    PROP_STR(struct global_args, property, "property", PF_REQUIRED, "Their option"),
    PROP_STR(struct global_args, value, "value", PF_REQUIRED, "Its value"),
    PROP_END };

static const char *class_name(const void *table, size_t i)
{
    LINKSET_EACH(obj_classes, struct obj_class, c)
        if (!(c->flags & OCF_INTERNAL) && i-- == 0)
            return c->name;
    return NULL;
}

/* QEMU only warns of a class or option that does not exist: management tools rely on it. */
static bool add(const char *driver, const char *property, const char *value, struct err *e)
{
    bool ok = obj_class_find(driver) ? obj_global_add(driver, property, value, e) : err_unknown(e, "device", driver, NULL, class_name, NULL);
    if (ok || !cli_flags.compat_qemu)
        return ok;
    log_warn("-global %s.%s=%s has no effect: %s", driver, property, value, e->msg);
    return true;
}

/* DRIVER.PROPERTY=VALUE; a driver's name may hold dots, so the longest that exists is taken. */
static bool apply_global(const char *arg, struct err *e)
{
    const char *eq = strchr(arg, '='), *dot = NULL;
    for (const char *p = arg; eq && p < eq; p++) {
        if (*p != '.')
            continue;
        char *head = xstrndup(arg, (size_t)(p - arg));
        if (!dot || obj_class_find(head))
            dot = p;
        free(head);
    }
    if (dot) {
        char *driver = xstrndup(arg, (size_t)(dot - arg)), *property = xstrndup(dot + 1, (size_t)(eq - dot - 1));
        bool ok = add(driver, property, eq + 1, e);
        free(driver);
        free(property);
        return ok;
    }
    struct global_args a = { 0 };
    bool ok = cli_args(arg, NULL, global_props, &a, "option '-global'", e) && add(a.driver, a.property, a.value, e);
    if (!ok && !strchr(arg, ','))
        err_hint(e, "-global DEVICE.OPTION=VALUE, as in -global virtio-rng-pci.packed=on");
    prop_release(global_props, &a);
    return ok;
}
static const struct cli_opt opt_global = { "global", "DEVICE.OPTION=VALUE", "the default of an option for every device of a type", "Device",
    CLI_EARLY, apply_global, true, .args = global_props };
CLI_OPT(&opt_global);

static bool warn_unused(struct err *e)
{
    const char *name;
    for (size_t i = 0; (name = obj_global_unused(i)); i++)
        log_warn("-global %s has no effect: no such device was made", name);
    return true;
}
static const struct cli_step step_unused = { "unused globals", CLI_DEVICE, 2000, warn_unused };
CLI_STEP(&step_unused);
