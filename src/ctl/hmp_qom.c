/* SPDX-License-Identifier: MIT */
/* The object tree for a person: info qom-tree, qom-list, qom-get, qom-set. */
#include "ctl/hmp.h"

#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "core/obj.h"
#include "ctl/qmp.h"

static void show_obj(const struct obj *o, unsigned depth, struct str *out)
{
    struct obj *c;
    str_printf(out, "%*s/%s (%s)\n", (int)depth * 2, "", o->id, o->cls->name);
    list_for_each(c, &o->children, sibling)
        show_obj(c, depth + 1, out);
}

static void info_qom_tree(const char *arg, struct str *out)
{
    struct obj *o = *arg ? obj_resolve(arg) : obj_root();
    if (o)
        show_obj(o, 0, out);
    else
        str_printf(out, "Error: Device '%s' not found\n", arg);
}

/* The QMP command @name with arguments @o, which it takes over. NULL: it said why in @out. */
static json_t *co_ask(const char *name, json_t *o, struct str *out)
{
    struct err e = ERR_INIT;
    json_t *answer = o ? co_qmp_call(qmp_cmd_find(name), o, &e) : NULL;
    if (!o)
        err_set(&e, ERR_VALUE, "words are missing, or are not UTF-8 (help %s)", name);
    if (!answer)
        hmp_error(out, &e);
    json_decref(o);
    return answer;
}

static void co_list(const char *arg, struct str *out)
{
    if (!*arg) {
        str_add(out, "/\n");
        return;
    }
    json_t *all = co_ask("qom-list", json_pack("{s:s}", "path", arg), out), *p;
    size_t i;
    json_array_foreach(all, i, p)
        str_printf(out, "%s (%s)\n", json_string_value(json_object_get(p, "name")), json_string_value(json_object_get(p, "type")));
    json_decref(all);
}

static void co_get(const char *arg, struct str *out)
{
    char *path = opt_next_word(&arg), *name = opt_next_word(&arg);
    json_t *v = co_ask("qom-get", path && name ? json_pack("{s:s, s:s}", "path", path, "property", name) : NULL, out);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_INDENT(4)) : NULL;
    if (text)
        str_printf(out, "%s\n", text);
    free(text);
    json_decref(v);
    free(path);
    free(name);
}

static void co_set(const char *arg, struct str *out)
{
    bool as_json = str_starts(arg, "-j ");
    arg += as_json ? 3 : 0;
    char *path = opt_next_word(&arg), *name = opt_next_word(&arg);
    const char *text = arg + strspn(arg, " ");
    char *word = as_json ? NULL : opt_next_word(&arg);
    json_error_t je;
    json_t *value = as_json ? json_parse(text, strlen(text), JSON_DECODE_ANY, &je) : word ? json_string(word) : NULL;
    json_decref(co_ask("qom-set", value && name ? json_pack("{s:s, s:s, s:O}", "path", path, "property", name, "value", value) : NULL, out));
    json_decref(value);
    free(word);
    free(path);
    free(name);
}

#define HMP(var, nm, ar, ds, fn) static const struct hmp_cmd var = { .name = nm, .args = ar, .doc = ds, .co_run = fn, .preconfig = true }; HMP_CMD(&var)
HMP(tree, "info qom-tree", "[PATH]", "the object tree", info_qom_tree);
HMP(list, "qom-list", "PATH", "properties and children of an object", co_list);
HMP(get, "qom-get", "PATH PROPERTY", "the value of a property, as JSON", co_get);
HMP(set, "qom-set", "[-j] PATH PROPERTY VALUE", "changes a property; -j: the value is JSON", co_set);
