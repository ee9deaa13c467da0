/* SPDX-License-Identifier: MIT */
/* query-qmp-schema: introspection made from the rows of commands and events ("QMP introspection" of QEMU's manual). */
#include "ctl/qmp.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "core/prop.h"

static const struct { const char *name, *json; } builtins[] = {
    { "str", "string" }, { "int", "int" }, { "bool", "boolean" }, { "number", "number" }, { "any", "value" }, { "null", "null" },
};

static json_t *enum_entry(const char *name, const char *const *values)
{
    json_t *names = json_array(), *members = json_array();
    for (; values && *values; values++) {
        json_array_append_new(names, json_string(*values));
        json_array_append_new(members, json_pack("{s:s}", "name", *values));
    }
    return json_pack("{s:s, s:s, s:o, s:o}", "name", name, "meta-type", "enum", "values", names, "members", members);
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
    case PROP_T_CUSTOM:
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

static void add_object(json_t *list, const char *name, const struct prop *table)
{
    json_t *members = json_array();
    struct prop p;
    for (size_t i = 0; table && prop_nth(table, i, &p); i++) {
        if (p.flags & PF_HIDDEN)
            continue;
        json_t *m = json_pack("{s:s, s:o}", "name", p.name, "type", member_type(&p, name, list));
        if (!(p.flags & PF_REQUIRED))
            json_object_set_new(m, "default", json_null());
        json_array_append_new(members, m);
    }
    json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", name, "meta-type", "object", "members", members));
}

static void add_command(json_t *list, const struct qmp_cmd *c)
{
    char *arg = c->raw ? xstrdup("raw-arg") : c->args ? xasprintf("%s-arg", c->name) : xstrdup("q_empty");
    char *ret = !c->ret ? xstrdup("any") : c->ret == qmp_nothing ? xstrdup("q_empty") : xasprintf("%s%s-ret%s", c->list ? "[" : "", c->name, c->list ? "]" : "");
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", c->name, "meta-type", "command", "arg-type", arg,
                                          "ret-type", ret, "allow-oob", c->oob));
    if (c->ret && c->ret != qmp_nothing) {
        char *one = xasprintf("%s-ret", c->name);
        add_object(list, one, c->ret);
        if (c->list)
            json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", ret, "meta-type", "array", "element-type", one));
        free(one);
    }
    free(ret);
    if (c->args && !c->raw)
        add_object(list, arg, c->args);
    free(arg);
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
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", d->name, "meta-type", "event", "arg-type", "raw-arg"));
    return list;
}
static const struct qmp_cmd cmd_schema = { "query-qmp-schema", "What commands and events take, in a form for programs", .co_run = co_schema };
QMP_CMD(&cmd_schema);
