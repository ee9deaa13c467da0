/* SPDX-License-Identifier: MIT */
#include "core/user_obj.h"

#include <string.h>
#include "base/opt.h"
#include "core/backend.h"
#include "core/dev.h"
#include "core/help.h"

bool user_object_class(const struct obj_class *c)
{
    return str_eq(obj_class_ns(c), "object") && !(c->flags & (OCF_ABSTRACT | OCF_INTERNAL));
}

/* Names of the classes that -object can make: the i-th. */
static const char *object_name(const void *table, size_t i)
{
    for (const struct obj_class *const *c = obj_class_list(NULL, false); *c; c++)
        if (user_object_class(*c) && i-- == 0)
            return (*c)->name;
    return NULL;
}

static const struct obj_class *object_class_of(const char *type, struct err *e)
{
    const struct obj_class *c = obj_class_find(type);
    if (c && user_object_class(c))
        return c;
    if (c)
        err_set(e, ERR_UNKNOWN, "'%s' is not an object type", type);
    else
        err_unknown(e, "object type", type, NULL, object_name, NULL);
    if (!e->hint[0])
        err_hint(e, "object types: -object help");
    return NULL;
}

static bool object_help(const char *type, struct str *out, struct err *e)
{
    if (type && !opt_is_help(type)) {
        const struct obj_class *c = object_class_of(type, e);
        if (c)
            help_class(c, out);
        return c != NULL;
    }
    str_add(out, "Objects (-object TYPE,help lists the options of one):\n");
    for (const struct obj_class *const *c = obj_class_list(NULL, false); *c; c++)
        if (user_object_class(*c))
            str_printf(out, "  %-28s %s\n", (*c)->name, (*c)->desc ? (*c)->desc : "");
    return true;
}

json_t *user_object_parse(const char *arg, struct err *e)
{
    json_t *o = opt_parse_flat(arg, "qom-type", e);
    if (!o)
        return NULL;
    const char *type = json_string_value(json_object_get(o, "qom-type"));
    if (!opt_asks_help(o) && !opt_is_help(type))
        return o;
    struct str out = { 0 };
    bool ok = object_help(type, &out, e);
    json_decref(o);
    if (ok)
        help_exit(&out);
    str_free(&out);
    return NULL;
}

bool user_object_create(json_t *opts, struct err *e)
{
    const char *type = json_string_value(json_object_get(opts, "qom-type"));
    if (!type) {
        err_set(e, ERR_VALUE, "a type is missing");
        return err_hint(e, "TYPE,id=ID[,...]; types: -object help");
    }
    const struct obj_class *c = object_class_of(type, e);
    if (!c)
        return false;
    const char *id = json_string_value(json_object_get(opts, "id"));
    if (!id)
        return err_set(e, ERR_VALUE, "'id' is missing: object '%s' needs a name by which others find it", type);
    json_t *rest = json_copy(opts);
    json_object_del(rest, "qom-type");
    json_object_del(rest, "id");
    struct obj *o = obj_create(c, id, rest, NULL, e);
    json_decref(rest);
    return o != NULL;
}

bool user_object_delete(const char *id, struct err *e)
{
    struct obj *o = obj_find("object", id);
    if (!o)
        return err_set(e, ERR_GENERIC, "object '%s' not found", id);
    return obj_user_delete(o, e);
}

bool user_device_delete(const char *id, struct err *e)
{
    struct obj *o = *id == '/' ? obj_resolve(id) : obj_find("device", id);
    if (!o || !obj_is(o, &dev_obj_class))
        return err_set(e, ERR_NOT_FOUND, "Device '%.120s' not found", id);
    if (!o->user)
        return err_set(e, ERR_STATE, "device '%s' is part of the board", o->id);
    return dev_unplug_request((struct dev *)o, e);
}

bool user_object_needs_back_end(json_t *opts)
{
    const char *type = json_string_value(json_object_get(opts, "qom-type"));
    const struct obj_class *c = type ? obj_class_find(type) : NULL;
    const char *key;
    json_t *v;
    if (!c)
        return false;
    json_object_foreach(opts, key, v) {
        struct prop p;
        if (obj_prop_find(c, key, &p) && (p.type == PROP_T_LINK || (p.flags & PF_NAMES)) && !str_eq(obj_class_ns(p.of), "object"))
            return true;
    }
    return false;
}

bool user_device_help(const char *driver, struct str *out, struct err *e)
{
    if (driver && !opt_is_help(driver)) {
        const struct obj_class *c = obj_class_find(driver);
        if (!c || !obj_class_is(c, &dev_obj_class) || (c->flags & OCF_ABSTRACT))
            return obj_class_unknown(&dev_obj_class, "device", driver, e);
        help_class(c, out);
        return true;
    }
    help_classes(&dev_obj_class, "Devices by category (-device NAME,help lists the options of one)", out);
    return true;
}
