/* SPDX-License-Identifier: MIT */
/* Property tables as tables: iteration, defaults, whole option sets, descriptions. Values are in prop_value.c. */
#include "core/prop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/opt.h"
#include "core/obj.h"
#include "core/prop_int.h"

/* Counts @i down over @table and its includes; leaves the row in @out. */
static bool prop_walk(const struct prop *table, uint32_t off, size_t *i, struct prop *out)
{
    for (const struct prop *p = table; p && p->name; p++) {
        if (p->type == PROP_T_INCLUDE) {
            if (prop_walk(p->of, off + p->off, i, out))
                return true;
        } else if ((*i)-- == 0) {
            *out = *p;
            out->off += off;
            return true;
        }
    }
    return false;
}

bool prop_nth(const struct prop *table, size_t i, struct prop *out)
{
    return prop_walk(table, 0, &i, out);
}

bool prop_find(const struct prop *table, const char *name, struct prop *out)
{
    for (size_t i = 0; prop_nth(table, i, out); i++)
        if (!strcmp(out->name, name))
            return true;
    return false;
}

void prop_defaults(const struct prop *table, void *base)
{
    struct prop p;

    for (size_t i = 0; prop_nth(table, i, &p); i++)
        prop_value_default(&p, base);
}

void prop_release(const struct prop *table, void *base)
{
    struct prop p;

    for (size_t i = 0; prop_nth(table, i, &p); i++)
        prop_value_release(&p, base);
}

/* ---- option sets, over a bare table or over a class chain ---- */

static const char *rows_name(const void *rows, size_t i)
{
    static _Thread_local struct prop p;
    const struct prop_rows *r = rows;

    for (size_t k = 0; r->nth(r->table, k, &p); k++)
        if (!(p.flags & (PF_HIDDEN | PF_READONLY)) && i-- == 0)
            return p.name;
    return NULL;
}

bool prop_absent_error(const char *name, const char *suffix, const char *why, struct err *e)
{
    err_set(e, ERR_NOT_BUILT, "property '%s'%s is not in this build", name, suffix);
    return err_hint(e, "%s", why);
}

bool prop_rows_set(const struct prop_rows *r, void *base, struct obj *o, const char *key, json_t *v, const char *what,
                   struct err *e)
{
    struct prop p;
    char suffix[160];
    const char *why;
    bool ok;

    if (r->find(r->table, key, &p)) {
        if (p.flags & PF_DEPRECATED)
            log_warn("%s: '%s' is deprecated: %s", what, key, p.doc);
        return prop_set(&p, base, o, v, e);
    }
    /* The old short form of a switch: "nofoo" for foo=off. */
    if (!strncmp(key, "no", 2) && json_is_string(v) && !strcmp(json_string_value(v), "on") &&
        r->find(r->table, key + 2, &p) && (p.type == PROP_T_BOOL || p.type == PROP_T_BIT || p.type == PROP_T_TRI)) {
        json_t *off = json_false();

        ok = prop_set(&p, base, o, off, e);
        json_decref(off);
        return ok;
    }
    snprintf(suffix, sizeof suffix, " for %s", what);
    why = r->absent ? r->absent(r->table, key) : NULL;
    return why ? prop_absent_error(key, suffix, why, e) : err_unknown(e, "property", key, suffix, rows_name, r);
}

/* Walks @opts: a key that names a row is set; a group is met with dots, down to its leaves. */
static bool set_group(const struct prop_rows *r, void *base, struct obj *o, const char *prefix, json_t *opts,
                      const char *what, struct err *e)
{
    const char *key;
    json_t *v;

    json_object_foreach(opts, key, v) {
        char *name = xasprintf("%s%s%s", prefix, *prefix ? "." : "", key);
        struct prop p;
        bool ok;

        if (json_is_object(v) && !r->find(r->table, name, &p))
            ok = set_group(r, base, o, name, v, what, e);
        else
            ok = prop_rows_set(r, base, o, name, v, what, e);
        free(name);
        if (!ok)
            return false;
    }
    return true;
}

/* Is @name among the keys of @opts, nested groups included? */
static bool was_given(json_t *opts, const char *name)
{
    const char *dot = strchr(name, '.');
    char head[128];

    if (json_object_get(opts, name))
        return true;
    if (!dot || (size_t)(dot - name) >= sizeof head)
        return false;
    memcpy(head, name, (size_t)(dot - name));
    head[dot - name] = '\0';
    return json_is_object(json_object_get(opts, head)) && was_given(json_object_get(opts, head), dot + 1);
}

/* Whether @key of the flat dialect is a part of the structured row @head. */
static bool is_part(const void *rows, const char *key, const char *head)
{
    const struct prop_rows *r = rows;
    struct prop p;

    return !r->find(r->table, key, &p) && r->find(r->table, head, &p) && p.type == PROP_T_JSON;
}

bool prop_rows_set_all(const struct prop_rows *r, void *base, struct obj *o, json_t *opts, const char *what, struct err *e)
{
    struct prop p;
    json_t *nested = opt_nest(opts, is_part, r, e);
    bool ok = nested ? set_group(r, base, o, "", nested, what, e) : err_prefix(e, "%s", what);

    for (size_t i = 0; ok && r->nth(r->table, i, &p); i++)
        if ((p.flags & PF_REQUIRED) && !was_given(nested, p.name)) {
            err_set(e, ERR_VALUE, "%s needs '%s'", what, p.name);
            ok = err_hint(e, "%s=...: %s", p.name, p.doc);
        }
    json_decref(nested);
    return ok;
}

static bool table_nth(const void *table, size_t i, struct prop *out) { return prop_nth(table, i, out); }
static bool table_find(const void *table, const char *name, struct prop *out) { return prop_find(table, name, out); }

bool prop_set_all(const struct prop *table, void *base, struct obj *o, json_t *opts, const char *what, struct err *e)
{
    const struct prop_rows rows = { table, table_nth, table_find, NULL };

    return prop_rows_set_all(&rows, base, o, opts, what, e);
}

static void describe_range(const struct prop *p, struct str *out)
{
    uint64_t lo, hi;
    char a[32], b[32];

    prop_limits(p, &lo, &hi);
    if (p->type == PROP_T_S32 || p->type == PROP_T_S64) {
        str_printf(out, "%" PRId64 "..%" PRId64, (int64_t)lo, (int64_t)hi);
    } else if (prop_is_size(p)) {
        bool open = hi >= INT64_MAX;            /* as large as the host can tell */
        if (lo || !open)
            str_printf(out, "%s..%s", format_size(lo, a), open ? "" : format_size(hi, b));
    } else {
        str_printf(out, p->flags & PF_HEX ? "%#" PRIx64 "..%#" PRIx64 : "%" PRIu64 "..%" PRIu64, lo, hi);
    }
}

static void describe_default_number(const struct prop *p, struct str *out)
{
    uint64_t lo, hi;
    char text[32];

    prop_limits(p, &lo, &hi);
    if (p->type == PROP_T_S32 || p->type == PROP_T_S64)
        str_printf(out, "%" PRId64, (int64_t)p->def);
    else if (!prop_is_size(p))
        str_printf(out, p->flags & PF_HEX ? "%#" PRIx64 : "%" PRIu64, p->def);
    else if (p->def >= lo && p->def <= hi)      /* else it says "not given" */
        str_add(out, format_size(p->def, text));
}

static void describe_default(const struct prop *p, struct str *out)
{
    switch (p->type) {
    case PROP_T_BOOL: case PROP_T_BIT:
        str_add(out, p->def ? "on" : "off");
        break;
    case PROP_T_TRI:
        str_add(out, prop_tri_names[p->def]);
        break;
    case PROP_T_ENUM:
        str_add(out, ((const char *const *)p->of)[p->def]);
        break;
    case PROP_T_STR:
        if (p->def)
            str_add(out, (const char *)(uintptr_t)p->def);
        break;
    default:
        if (prop_is_number(p))
            describe_default_number(p, out);
    }
}

static void describe_enum(const struct prop *p, struct str *out)
{
    const char *const *names = p->of;

    for (size_t i = 0; names[i]; i++)
        str_printf(out, "%s%s", i ? "|" : "", names[i]);
}

/* What may be written, and what holds if nothing is: "(0..7, default 3)". Nothing holds in place of what is required. */
static void describe_values(const struct prop *p, struct str *out)
{
    struct str values = { 0 }, def = { 0 };

    if (p->type == PROP_T_ENUM)
        describe_enum(p, &values);
    else if (prop_is_number(p))
        describe_range(p, &values);
    if (!(p->flags & PF_REQUIRED))
        describe_default(p, &def);
    if (values.len || def.len)
        str_printf(out, " (%s%s%s%s)", values.len ? values.s : "", values.len && def.len ? ", " : "", def.len ? "default " : "",
                   def.len ? def.s : "");
    str_free(&values);
    str_free(&def);
}

void prop_describe_type(const struct prop *p, struct str *out)
{
    static const char *const names[] = {
        [PROP_T_BOOL] = "on|off", [PROP_T_BIT] = "on|off", [PROP_T_TRI] = "on|off|auto", [PROP_T_U8] = "uint8",
        [PROP_T_U16] = "uint16", [PROP_T_U32] = "uint32", [PROP_T_U64] = "uint64", [PROP_T_S32] = "int32",
        [PROP_T_S64] = "int64", [PROP_T_SIZE32] = "size", [PROP_T_SIZE] = "size", [PROP_T_STR] = "string", [PROP_T_ENUM] = "enum",
        [PROP_T_MAC] = "MAC address", [PROP_T_UUID] = "UUID", [PROP_T_PCI_ADDR] = "SLOT[.FUNCTION] in hex",
        [PROP_T_STRV] = "list", [PROP_T_JSON] = "object",
    };

    if (p->type == PROP_T_LINK) {
        const struct obj_class *c = p->of;
        const char *ns = obj_class_ns(c);

        const char *what = ns ? ns : c->name;

        str_printf(out, "id of %s %s", strchr("aeiou", what[0]) ? "an" : "a", what);
    } else {
        str_add(out, p->flags & PF_PORT ? "port, 0..65535 or a service" : names[p->type]);
    }
    describe_values(p, out);
    if (p->flags & PF_REQUIRED)
        str_add(out, ", required");
    if (p->flags & PF_POW2)
        str_add(out, ", power of 2");
}
