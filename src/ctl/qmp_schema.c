/* SPDX-License-Identifier: MIT */
/* query-qmp-schema: introspection made from the rows of commands and events ("QMP introspection" of QEMU's manual). */
#include "ctl/qmp.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "core/obj.h"
#include "core/prop.h"
#include "core/user_obj.h"

static const struct { const char *name, *json; } builtins[] = {
    { "str", "string" }, { "int", "int" }, { "bool", "boolean" }, { "number", "number" }, { "any", "value" }, { "null", "null" },
};

static void add_value(json_t *of, const char *value)
{
    json_array_append_new(json_object_get(of, "values"), json_string(value));
    json_array_append_new(json_object_get(of, "members"), json_pack("{s:s}", "name", value));
}

static json_t *enum_entry(const char *name, const char *const *values)
{
    json_t *o = json_pack("{s:s, s:s, s:[], s:[]}", "name", name, "meta-type", "enum", "values", "members");
    for (; values && *values; values++)
        add_value(o, *values);
    return o;
}

/* The entry of @list whose name is @name; NULL: there is none. */
static json_t *entry_named(json_t *list, const char *name)
{
    size_t i;
    json_t *t;
    json_array_foreach(list, i, t)
        if (!strcmp(json_string_value(json_object_get(t, "name")), name))
            return t;
    return NULL;
}

/* The type of a member; an enum of its own is appended to @list on the way. */
static json_t *member_type(const struct prop *p, const char *owner, json_t *list)
{
    switch (p->type) {
    case PROP_T_BOOL:
    case PROP_T_BIT:
        return json_string("bool");
    case PROP_T_TRI:
        return json_string("OnOffAuto");
    case PROP_T_U8 ... PROP_T_SIZE:
    case PROP_T_PCI_ADDR:
        return json_string("int");
    case PROP_T_STRV:
        return json_string("[str]");
    case PROP_T_JSON:
        return json_string("any");
    case PROP_T_ENUM: {
        char *name = xasprintf("%s.%s", owner, p->name);
        json_array_append_new(list, enum_entry(name, p->of));
        json_t *s = json_string(name);
        free(name);
        return s;
    }
    default:
        return json_string("str");
    }
}

/* The members of the object that is @owner's member @name; it is made when the first of them comes. NULL: that member is no object. */
static json_t *members_of(json_t *members, const char *name, const char *owner, json_t *list)
{
    char *type = xasprintf("%s.%s", owner, name);
    json_t *known = entry_named(members, name), *object = entry_named(list, type);
    if (!known) {
        object = json_pack("{s:s, s:s, s:[]}", "name", type, "meta-type", "object", "members");
        json_array_append_new(list, object);
        json_array_append_new(members, json_pack("{s:s, s:s, s:n}", "name", name, "type", type, "default"));
    }
    free(type);
    return json_object_get(object, "members");
}

/* Unless it is hidden or cannot be set. Options with dots are members of objects: "cache.direct" is {"cache": {"direct": ...}}. */
static void add_member(json_t *members, const struct prop *p, const char *owner, json_t *list)
{
    const char *dot = strchr(p->name, '.');
    if (p->flags & (PF_HIDDEN | PF_READONLY))
        return;
    if (dot) {
        char *name = xstrndup(p->name, (size_t)(dot - p->name)), *inner = xasprintf("%s.%s", owner, name);
        json_t *of = members_of(members, name, owner, list);
        struct prop rest = *p;
        rest.name = dot + 1;
        if (of)
            add_member(of, &rest, inner, list);
        free(name);
        free(inner);
        return;
    }
    json_t *m = json_pack("{s:s, s:o}", "name", p->name, "type", member_type(p, owner, list));
    if (!(p->flags & PF_REQUIRED))
        json_object_set_new(m, "default", json_null());
    json_array_append_new(members, m);
}

static void add_object(json_t *list, const char *name, const struct prop *table)
{
    json_t *members = json_array();
    struct prop p;
    for (size_t i = 0; table && prop_nth(table, i, &p); i++)
        add_member(members, &p, name, list);
    json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", name, "meta-type", "object", "members", members));
}

/* ---- what a command answers, in short ---- */

struct says { const char *at; json_t *list; };

static char *says_type(struct says *s, const char *name);

static void skip_space(struct says *s) { s->at += strspn(s->at, " ,"); }

static char *says_object(struct says *s, const char *name)
{
    json_t *members = json_array();
    for (skip_space(s); *s->at && *s->at != '}'; skip_space(s)) {
        bool optional = *s->at == '*';
        size_t n = strcspn(s->at += optional, ":");
        char *member = xstrndup(s->at, n), *sub = xasprintf("%s.%s", name, member);
        s->at += n + 1;
        char *type = says_type(s, sub);
        json_t *m = json_pack("{s:s, s:s}", "name", member, "type", type);
        if (optional)
            json_object_set_new(m, "default", json_null());
        json_array_append_new(members, m);
        free(member);
        free(sub);
        free(type);
    }
    s->at += *s->at == '}';
    json_array_append_new(s->list, json_pack("{s:s, s:s, s:o}", "name", name, "meta-type", "object", "members", members));
    return xstrdup(name);
}

/* The name of the type that is described at s->at; @name is what a new one is called. Caller frees. */
static char *says_type(struct says *s, const char *name)
{
    if (*s->at == '{') {
        s->at++;
        return says_object(s, name);
    }
    if (*s->at == '[') {
        s->at++;
        char *of = says_type(s, name), *array = xasprintf("[%s]", of);
        s->at += *s->at == ']';
        if (!entry_named(s->list, array))
            json_array_append_new(s->list, json_pack("{s:s, s:s, s:s}", "name", array, "meta-type", "array", "element-type", of));
        free(of);
        return array;
    }
    size_t n = strcspn(s->at, ",]} ");
    char *word = xstrndup(s->at, n);
    s->at += n;
    return word;
}

/* ---- arguments that depend on a class ---- */

static bool is_one_of(const struct qmp_cmd *c, const struct obj_class *k)
{
    return c->one_of ? obj_class_is(k, c->one_of) && !(k->flags & OCF_INTERNAL) : user_object_class(k);
}

/* The tag is one of the cases, and each brings the options of its class. */
static void add_choices(json_t *list, const struct qmp_cmd *c, const char *arg)
{
    json_t *variants = json_array(), *base = entry_named(list, arg), *kinds = enum_entry(arg, NULL);
    char *kind = xasprintf("%s.%s", arg, c->tag);
    size_t strip = c->one_of ? strlen(c->one_of->name) + 1 : 0;
    for (const struct obj_class *const *k = obj_class_list(c->one_of, false); *k; k++) {
        if (!is_one_of(c, *k))
            continue;
        char *name = xasprintf("%s:%s", arg, (*k)->name + strip);
        json_t *members = json_array();
        struct prop p;
        for (size_t i = 0; obj_prop_nth(*k, i, &p); i++)
            if (!prop_find(c->args, p.name, &(struct prop){ 0 }))
                add_member(members, &p, name, list);
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", name, "meta-type", "object", "members", members));
        json_array_append_new(variants, json_pack("{s:s, s:s}", "case", (*k)->name + strip, "type", name));
        add_value(kinds, (*k)->name + strip);
        free(name);
    }
    json_object_set_new(kinds, "name", json_string(kind));
    json_array_append_new(list, kinds);
    json_object_set_new(entry_named(json_object_get(base, "members"), c->tag), "type", json_string(kind));
    free(kind);
    json_object_set_new(base, "tag", json_string(c->tag));
    json_object_set_new(base, "variants", variants);
}

static void add_features(json_t *entry, const char *words)
{
    json_t *features = json_array();
    for (const char *w = words; w && *w; w += strspn(w, " ")) {
        size_t n = strcspn(w, " ");
        json_array_append_new(features, json_stringn(w, n));
        w += n;
    }
    if (json_array_size(features))
        json_object_set(entry, "features", features);
    json_decref(features);
}

static void add_command(json_t *list, const struct qmp_cmd *c)
{
    char *arg = c->args ? xasprintf("%s-arg", c->name) : xstrdup(c->raw ? "raw-arg" : "q_empty"), *one = xasprintf("%s-ret", c->name);
    struct says says = { c->says, list };
    char *ret = c->says ? says_type(&says, one) : !c->ret ? xstrdup("any") : c->ret == qmp_nothing ? xstrdup("q_empty") :
                xasprintf("%s%s%s", c->list ? "[" : "", one, c->list ? "]" : "");
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", c->name, "meta-type", "command", "arg-type", arg,
                                          "ret-type", ret, "allow-oob", c->oob));
    add_features(json_array_get(list, json_array_size(list) - 1), c->features);
    if (c->ret && c->ret != qmp_nothing) {
        add_object(list, one, c->ret);
        if (c->list)
            json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", ret, "meta-type", "array", "element-type", one));
    }
    free(one);
    free(ret);
    if (c->args)
        add_object(list, arg, c->args);
    if (c->tag)
        add_choices(list, c, arg);
    free(arg);
}

static void add_event(json_t *list, const struct qmp_event_def *d)
{
    struct says says = { d->says, list };
    char *name = xasprintf("%s-data", d->name), *type = d->says ? says_type(&says, name) : xstrdup("q_empty");
    json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", d->name, "meta-type", "event", "arg-type", type));
    free(name);
    free(type);
}

static json_t *co_schema(void *args, struct err *e)
{
    static const char *const on_off_auto[] = { "auto", "on", "off", NULL };
    json_t *list = json_array();
    for (size_t i = 0; i < ARRAY_SIZE(builtins); i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", builtins[i].name, "meta-type", "builtin", "json-type", builtins[i].json));
    json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", "[str]", "meta-type", "array", "element-type", "str"));
    json_array_append_new(list, enum_entry("OnOffAuto", on_off_auto));
    add_object(list, "q_empty", NULL);
    add_object(list, "raw-arg", NULL);
    LINKSET_EACH(qmp_cmds, struct qmp_cmd, c)
        add_command(list, c);
    LINKSET_EACH(qmp_events, struct qmp_event_def, d)
        add_event(list, d);
    return list;
}
static const struct qmp_cmd cmd_schema = { "query-qmp-schema", "What commands and events take, in a form for programs", .co_run = co_schema,
    .says = "[{name:str, meta-type:str, *json-type:str, *values:[str], *members:[any], *element-type:str, *arg-type:str, *ret-type:str, "
            "*allow-oob:bool, *features:[str], *tag:str, *variants:[{case:str, type:str}]}]", .preconfig = true };
QMP_CMD(&cmd_schema);
