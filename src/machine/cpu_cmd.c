/* SPDX-License-Identifier: MIT */
/* QMP commands about CPU models: which there are, and what one of them is, option by option. */
#include <stdlib.h>
#include <string.h>
#include "core/cmd.h"
#include "cpu/riscv/hart.h"
#include "machine/machine_int.h"

/* The class's name among types ("rv64-riscv-cpu"): one of its aliases. */
static const char *type_name(const struct obj_class *c)
{
    for (const char *const *a = c->aliases; a && *a; a++)
        if (strstr(*a, "-riscv-cpu"))
            return *a;
    return c->name;
}

static json_t *definition(const char *name, const struct obj_class *c)
{
    return json_pack("{s:s, s:s, s:b, s:b, s:b, s:[]}", "name", name, "typename", type_name(c), "static", 0, "migration-safe", 0,
                     "deprecated", 0, "unavailable-features");
}

static json_t *co_definitions(void *args, struct err *e)
{
    json_t *list = json_array();
    for (const struct obj_class *const *c = obj_class_list(&rv_cpu_class, false); *c; c++) {
        json_array_append_new(list, definition((*c)->name, *c));
        for (const char *const *a = (*c)->aliases; a && *a; a++)
            if (!strstr(*a, "-riscv-cpu"))
                json_array_append_new(list, definition(*a, *c));
    }
    return list;
}
static const struct qmp_cmd cmd_definitions = { "query-cpu-definitions", "The CPU models", .co_run = co_definitions, .preconfig = true,
    .says = "[{name:str, typename:str, static:bool, migration-safe:bool, deprecated:bool, unavailable-features:[str]}]" };
QMP_CMD(&cmd_definitions);

struct expansion_args { int type; json_t *model; };
static const char *const expansion_types[] = { "full", NULL };
static const struct prop expansion_props[] = {
    { .name = "type", .doc = "How: full, every option with its value", .type = PROP_T_ENUM, PROP_OFF(struct expansion_args, type),
      .of = expansion_types, .flags = PF_REQUIRED },
    PROP_JSON(struct expansion_args, model, "model", PF_REQUIRED, "The model: name, and props that are set on top of it"),
    PROP_END };

static json_t *option_values(const struct obj *o)
{
    json_t *props = json_object();
    struct prop p;
    for (size_t i = 0; obj_prop_nth(o->cls, i, &p); i++)
        if (!(p.flags & PF_HIDDEN))
            json_object_set_new(props, p.name, prop_to_json(&p, o, o));
    return props;
}

static json_t *co_expansion(void *args, struct err *e)
{
    json_t *model = ((struct expansion_args *)args)->model, *props = json_object_get(model, "props"), *values = NULL;
    const char *name = json_string_value(json_object_get(model, "name"));
    const struct obj_class *c = name ? machine_cpu_class(name) : NULL;
    if (!name || (props && !json_is_object(props))) {
        err_set(e, ERR_VALUE, "Parameter 'model' is an object with a 'name' and, where options are set, 'props'");
        return NULL;
    }
    if (!c) {
        (void)machine_cpu_unknown(name, e);
        return NULL;
    }
    struct obj *o = obj_new(c, "#model", e);
    json_t *set = props ? json_deep_copy(props) : json_object();
    if (o && obj_set_opts(o, set, name, e) && obj_check(o, e))
        values = option_values(o);
    json_decref(set);
    obj_unref(o);
    return values ? json_pack("{s:{s:s, s:o}}", "model", "name", name, "props", values) : NULL;
}
static const struct qmp_cmd cmd_expansion = { "query-cpu-model-expansion", "What a CPU model is, option by option", expansion_props,
    sizeof(struct expansion_args), co_expansion, .preconfig = true, .says = "{model:{name:str, props:any}}" };
QMP_CMD(&cmd_expansion);
