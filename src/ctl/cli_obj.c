/* SPDX-License-Identifier: MIT */
/* -object and -device: what a person adds to the machine. */
#include "ctl/cli.h"
#include "ctl/cli_int.h"
#include "core/user_obj.h"

#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "core/dev.h"
#include "core/flags.h"
#include "core/help.h"

/* Objects that name a chardev, netdev or blockdev wait until those exist. */
static json_t *deferred;

static bool apply_object(const char *arg, struct err *e)
{
    json_t *o = user_object_parse(arg, e);
    if (!o)
        return false;
    if (user_object_needs_back_end(o)) {
        if (!deferred)
            deferred = json_array();
        json_t *pair = json_array();
        json_array_append_new(pair, json_string(arg));
        json_array_append_new(pair, o);
        json_array_append_new(deferred, pair);
        return true;
    }
    bool ok = user_object_create(o, e);
    json_decref(o);
    return ok;
}
static const struct cli_opt opt_object = { "object", "TYPE,id=ID[,PROP=VALUE...]", "a back-end object: memory, random source, iothread (-object help)", "Device", CLI_OBJECT, apply_object, true };
CLI_OPT(&opt_object);

static bool create_deferred(struct err *e)
{
    size_t i;
    json_t *pair;
    bool ok = true;
    json_array_foreach(deferred, i, pair) {
        ok = user_object_create(json_array_get(pair, 1), e);
        if (!ok) {
            err_prefix(e, "-object %.160s", json_string_value(json_array_get(pair, 0)));
            break;
        }
    }
    json_decref(deferred);
    deferred = NULL;
    return ok;
}
static const struct cli_step step_objects = { "objects", CLI_NET, 100, create_deferred };
CLI_STEP(&step_objects);

static bool apply_device(const char *arg, struct err *e)
{
    json_t *o = opt_parse_flat(arg, "driver", e);
    if (!o)
        return false;
    const char *driver = json_string_value(json_object_get(o, "driver"));
    if (opt_asks_help(o) || opt_is_help(driver)) {
        struct str b = { 0 };
        bool ok = user_device_help(driver, &b, e);
        json_decref(o);
        if (ok)
            help_exit(&b);
        str_free(&b);
        return false;
    }
    bool ok = dev_create_from_opts(o, false, e) != NULL;
    json_decref(o);
    return ok;
}
static const struct cli_opt opt_device = { "device", "DRIVER[,PROP=VALUE...]", "a device (-device help; -device DRIVER,help)", "Device", CLI_DEVICE, apply_device, true };
CLI_OPT(&opt_device);
