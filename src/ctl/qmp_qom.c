/* SPDX-License-Identifier: MIT */
/* QMP commands about classes, objects and devices. */
#include "ctl/qmp.h"

#include <stdlib.h>
#include <string.h>
#include "core/dev.h"
#include "core/user_obj.h"
#include "loop/loop.h"

/* ---- properties as introspection names them ---- */

static char *type_name(const struct prop *p)
{
    static const char *const names[] = {
        [PROP_T_BOOL] = "bool", [PROP_T_BIT] = "bool", [PROP_T_TRI] = "OnOffAuto", [PROP_T_U8] = "uint8", [PROP_T_U16] = "uint16",
        [PROP_T_U32] = "uint32", [PROP_T_U64] = "uint64", [PROP_T_S32] = "int32", [PROP_T_S64] = "int64", [PROP_T_SIZE32] = "size", [PROP_T_SIZE] = "size",
        [PROP_T_STR] = "str", [PROP_T_ENUM] = "enum", [PROP_T_MAC] = "str", [PROP_T_UUID] = "str", [PROP_T_PCI_ADDR] = "int32",
        [PROP_T_STRV] = "list", [PROP_T_JSON] = "any" };
    if (p->type == PROP_T_LINK)
        return xasprintf("link<%s>", ((const struct obj_class *)p->of)->name);
    return xstrdup(p->type < sizeof(names) / sizeof(names[0]) && names[p->type] ? names[p->type] : "any");
}

static bool is_number(enum prop_type t)
{
    return (t >= PROP_T_U8 && t <= PROP_T_SIZE) || t == PROP_T_PCI_ADDR;
}

static json_t *prop_json(const struct prop *p, bool with_default)
{
    char *t = type_name(p);
    json_t *o = json_pack("{s:s, s:s}", "name", p->name, "type", t);
    free(t);
    if (p->doc && *p->doc)
        json_object_set_new(o, "description", json_string(p->doc));
    if (with_default && (p->type == PROP_T_BOOL || p->type == PROP_T_BIT))
        json_object_set_new(o, "default-value", json_boolean(p->def));
    else if (with_default && is_number(p->type))
        json_object_set_new(o, "default-value", json_integer((json_int_t)p->def));
    return o;
}

static json_t *class_props(const struct obj_class *c, bool with_default)
{
    json_t *list = json_array();
    struct prop p;
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++)
        if (!(p.flags & PF_HIDDEN))
            json_array_append_new(list, prop_json(&p, with_default));
    return list;
}

/* ---- classes ---- */

struct list_types_args { char *implements; bool abstract; };
static const struct prop list_types_props[] = {
    PROP_STR(struct list_types_args, implements, "implements", 0, "Only classes derived from this one"),
    PROP_BOOL(struct list_types_args, abstract, "abstract", false, "Abstract classes too"),
    PROP_END };

static json_t *co_list_types(void *args, struct err *e)
{
    struct list_types_args *a = args;
    const struct obj_class *base = NULL;
    json_t *list = json_array();
    if (a->implements && strcmp(a->implements, "object")) {
        base = obj_class_find(a->implements);
        if (!base)
            return list;                /* nothing implements an unknown class: as QEMU answers */
    }
    for (const struct obj_class *const *c = obj_class_list(base, a->abstract); *c; c++) {
        json_t *o = json_pack("{s:s, s:s}", "name", (*c)->name, "parent", (*c)->base ? (*c)->base->name : "object");
        if ((*c)->flags & OCF_ABSTRACT)
            json_object_set_new(o, "abstract", json_true());
        json_array_append_new(list, o);
    }
    return list;
}
static const struct prop types_ret[] = {
    { .name = "name", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "parent", .doc = "Its base", .type = PROP_T_STR },
    { .name = "abstract", .doc = "It cannot be created", .type = PROP_T_BOOL },
    PROP_END };
static const struct qmp_cmd cmd_list_types = { "qom-list-types", "Classes of objects", list_types_props,
    sizeof(struct list_types_args), co_list_types, .ret = types_ret, .list = true, .preconfig = true };
QMP_CMD(&cmd_list_types);

struct typename_args { char *name; };
static const struct prop typename_props[] = {
    PROP_STR(struct typename_args, name, "typename", PF_REQUIRED, "Name of a class"),
    PROP_END };

static const struct obj_class *class_named(const char *name, const struct obj_class *base, const char *what, struct err *e)
{
    const struct obj_class *c = obj_class_find(name);
    if (!c)
        err_set(e, ERR_NOT_FOUND, "Class '%.80s' not found", name);
    else if (base && (!obj_class_is(c, base) || (c->flags & OCF_ABSTRACT)))
        err_set(e, ERR_VALUE, "Parameter 'typename' expects a non-abstract %s type", what);
    else
        return c;
    return NULL;
}

static json_t *co_list_properties(void *args, struct err *e)
{
    const struct obj_class *c = class_named(((struct typename_args *)args)->name, NULL, NULL, e);
    return c ? class_props(c, false) : NULL;
}
static const struct prop class_props_ret[] = {
    { .name = "name", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "type", .doc = "Its type", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "description", .doc = "What it is", .type = PROP_T_STR },
    PROP_END };
static const struct qmp_cmd cmd_list_properties = { "qom-list-properties", "Properties of a class", typename_props,
    sizeof(struct typename_args), co_list_properties, .ret = class_props_ret, .list = true, .preconfig = true };
QMP_CMD(&cmd_list_properties);

static json_t *co_device_properties(void *args, struct err *e)
{
    const struct obj_class *c = class_named(((struct typename_args *)args)->name, &dev_obj_class, "device", e);
    return c ? class_props(c, true) : NULL;
}
static const struct prop dev_props_ret[] = {
    { .name = "name", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "type", .doc = "Its type", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "description", .doc = "What it is", .type = PROP_T_STR },
    { .name = "default-value", .doc = "Its value where none is given", .type = PROP_T_JSON },
    PROP_END };
static const struct qmp_cmd cmd_device_properties = { "device-list-properties", "Options of a device", typename_props,
    sizeof(struct typename_args), co_device_properties, .ret = dev_props_ret, .list = true, .preconfig = true };
QMP_CMD(&cmd_device_properties);

/* ---- the tree ---- */

struct path_args { char *path, *property; json_t *value; };
static const struct prop list_props[] = {
    PROP_STR(struct path_args, path, "path", PF_REQUIRED, "Absolute path of an object, or a part that is unique"),
    PROP_END };
static const struct prop get_props[] = {
    PROP_STR(struct path_args, path, "path", PF_REQUIRED, "Absolute path of an object, or a part that is unique"),
    PROP_STR(struct path_args, property, "property", PF_REQUIRED, "Name of the property"),
    PROP_END };
static const struct prop set_props[] = {
    PROP_STR(struct path_args, path, "path", PF_REQUIRED, "Absolute path of an object, or a part that is unique"),
    PROP_STR(struct path_args, property, "property", PF_REQUIRED, "Name of the property"),
    PROP_JSON(struct path_args, value, "value", PF_REQUIRED, "The new value"),
    PROP_END };

static struct obj *object_at(const char *path, struct err *e)
{
    struct obj *o = obj_resolve(path);
    if (!o)
        err_set(e, ERR_NOT_FOUND, "Device '%.120s' not found", path);
    return o;
}

static json_t *co_qom_list(void *args, struct err *e)
{
    struct obj *o = object_at(((struct path_args *)args)->path, e), *child;
    if (!o)
        return NULL;
    json_t *list = class_props(o->cls, false);
    json_array_insert_new(list, 0, json_pack("{s:s, s:s}", "name", "type", "type", "string"));
    list_for_each(child, &o->children, sibling) {
        char *t = xasprintf("child<%s>", child->cls->name);
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", child->id, "type", t));
        free(t);
    }
    return list;
}
static const struct prop qom_list_ret[] = {
    { .name = "name", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "type", .doc = "Its type", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "description", .doc = "What it is", .type = PROP_T_STR },
    PROP_END };
static const struct qmp_cmd cmd_qom_list = { "qom-list", "Properties and children of an object", list_props,
    sizeof(struct path_args), co_qom_list, .ret = qom_list_ret, .list = true, .preconfig = true };
QMP_CMD(&cmd_qom_list);

static bool property_of(struct obj *o, const char *name, struct prop *p, struct err *e)
{
    if (obj_prop_find(o->cls, name, p))
        return true;
    return err_set(e, ERR_UNKNOWN, "Property '%s.%.80s' not found", o->cls->name, name);
}

static json_t *child_path(struct obj *o, const char *name)
{
    struct obj *child;
    list_for_each(child, &o->children, sibling) {
        if (strcmp(child->id, name))
            continue;
        char *path = obj_path(child);
        json_t *s = json_string(path);
        free(path);
        return s;
    }
    return NULL;
}

/* A device's properties may be what its threads count: they are read under its lock. */
static json_t *value_now(const struct prop *p, struct obj *o)
{
    struct domain *dom = obj_is(o, &dev_obj_class) && ((struct dev *)o)->realized ? ((struct dev *)o)->dom : NULL;
    json_t *v;

    if (dom)
        domain_lock(dom);
    v = prop_to_json(p, o, o);
    if (dom)
        domain_unlock(dom);
    return v;
}

static json_t *co_qom_get(void *args, struct err *e)
{
    struct path_args *a = args;
    struct obj *o = object_at(a->path, e);
    struct prop p;
    if (!o)
        return NULL;
    if (!strcmp(a->property, "type"))
        return json_string(o->cls->name);
    json_t *child = child_path(o, a->property);
    if (child)
        return child;
    if (obj_is(o, &dev_obj_class) && !strcmp(a->property, "realized"))
        return json_boolean(((struct dev *)o)->realized);
    return property_of(o, a->property, &p, e) ? value_now(&p, o) : NULL;
}
static const struct qmp_cmd cmd_qom_get = { "qom-get", "The value of a property", get_props, sizeof(struct path_args), co_qom_get, .preconfig = true };
QMP_CMD(&cmd_qom_get);

static json_t *co_qom_set(void *args, struct err *e)
{
    struct path_args *a = args;
    struct obj *o = object_at(a->path, e);
    struct prop p;
    if (!o || !property_of(o, a->property, &p, e))
        return NULL;
    if (!(p.flags & PF_RUNTIME)) {
        err_set(e, ERR_STATE, "property '%s' of '%s' cannot be changed while the machine stands", p.name, o->id);
        return NULL;
    }
    obj_ref(o);                         /* what follows a change may wait, and meanwhile it may be deleted */
    bool ok = prop_set(&p, o, o, a->value, e);
    obj_unref(o);
    return ok ? json_object() : NULL;
}
static const struct qmp_cmd cmd_qom_set = { "qom-set", "Changes a property", set_props, sizeof(struct path_args), co_qom_set, .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd_qom_set);

/* ---- adding and removing ---- */

static json_t *co_object_add(void *args, struct err *e)
{
    return user_object_create(args, e) ? json_object() : NULL;
}
static const struct prop object_add_props[] = {
    { .name = "qom-type", .doc = "Its class", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "id", .doc = "Its name", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_object_add = { "object-add", "Makes an object: qom-type, id and its options", .co_run = co_object_add, .raw = true,
    .args = object_add_props, .tag = "qom-type", .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd_object_add);

struct id_args { char *id; };
static const struct prop id_props[] = {
    PROP_STR(struct id_args, id, "id", PF_REQUIRED, "Its id"),
    PROP_END };

static json_t *co_object_del(void *args, struct err *e)
{
    return user_object_delete(((struct id_args *)args)->id, e) ? json_object() : NULL;
}
static const struct qmp_cmd cmd_object_del = { "object-del", "Deletes an object that nothing uses", id_props, sizeof(struct id_args), co_object_del, .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd_object_del);

static json_t *co_device_add(void *args, struct err *e)
{
    return dev_create_from_opts(args, true, e) ? json_object() : NULL;
}
static const struct prop device_add_props[] = {
    { .name = "driver", .doc = "Its class", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "bus", .doc = "Where it is plugged in", .type = PROP_T_STR },
    { .name = "id", .doc = "Its name", .type = PROP_T_STR },
    PROP_END };
static const struct qmp_cmd cmd_device_add = { "device_add", "Plugs in a device: driver, id, bus and its options", .co_run = co_device_add, .raw = true,
    .args = device_add_props, .ret = qmp_nothing, .features = "json-cli json-cli-hotplug" };
QMP_CMD(&cmd_device_add);

static json_t *co_device_del(void *args, struct err *e)
{
    return user_device_delete(((struct id_args *)args)->id, e) ? json_object() : NULL;
}
static const struct qmp_cmd cmd_device_del = { "device_del", "Asks the guest to let go of a device; DEVICE_DELETED tells when it has gone",
    id_props, sizeof(struct id_args), co_device_del, .ret = qmp_nothing };
QMP_CMD(&cmd_device_del);
