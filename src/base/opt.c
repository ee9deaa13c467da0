/* SPDX-License-Identifier: MIT */
#include "base/opt.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

enum { OPT_KEY_MAX = 127, OPT_DEPTH_MAX = 16, OPT_LIST_MAX = 4096 };

/* One `key=value`: reads up to the comma that ends it, "," written twice being a comma. Returns where to go on. */
static const char *opt_word(const char *s, struct str *out, bool stop_at_eq)
{
    while (*s && !(stop_at_eq && *s == '=')) {
        if (*s == ',') {
            if (s[1] != ',')
                break;
            s++;
        }
        str_addn(out, s++, 1);
    }
    return s;
}

/* Puts @v (stolen) at the dotted @key of @o, making objects on the way. */
static bool opt_put_dotted(json_t *o, const char *key, json_t *v, struct err *e)
{
    char part[OPT_KEY_MAX + 1];
    const char *dot;

    for (int depth = 0; (dot = strchr(key, '.')); depth++, key = dot + 1) {
        json_t *sub;

        if (dot == key || !dot[1] || depth == OPT_DEPTH_MAX) {
            json_decref(v);
            return err_set(e, ERR_VALUE, "ill-formed key '%s'", key);
        }
        snprintf(part, sizeof part, "%.*s", (int)(dot - key), key);
        sub = json_object_get(o, part);
        if (!sub)
            json_object_set_new(o, part, sub = json_object());
        if (!json_is_object(sub)) {
            json_decref(v);
            return err_set(e, ERR_VALUE, "key '%s' is used both as a value and as a group", part);
        }
        o = sub;
    }
    if (json_is_object(json_object_get(o, key))) {
        json_decref(v);
        return err_set(e, ERR_VALUE, "key '%s' is used both as a value and as a group", key);
    }
    json_object_set_new(o, key, v);         /* a later key wins, as on QEMU's command line */
    return true;
}

/* Objects whose keys are 0..n-1 become arrays, depth first. Returns the (new or same) value. */
static json_t *opt_arrays(json_t *v)
{
    const char *key;
    json_t *child, *list;
    void *tmp;
    size_t n = json_object_size(v);
    char name[24];

    if (!json_is_object(v))
        return v;
    json_object_foreach_safe(v, tmp, key, child) {
        json_t *c = opt_arrays(child);

        if (c != child)
            json_object_set_new(v, key, c);
    }
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%zu", i);
        if (!json_object_get(v, name))
            return v;
    }
    if (!n || n > OPT_LIST_MAX)
        return v;
    list = json_array();
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%zu", i);
        json_array_append(list, json_object_get(v, name));
    }
    return list;
}

/* As QEMU's users write it within a shell's double quotes: strings may be in single quotes, where \' is one. NULL: there are none. */
static char *plain_json(const char *text)
{
    struct str out = { 0 };
    char quote = 0;
    bool any = false;

    for (const char *p = text; *p; p++) {
        bool single = *p == '\'' && (!quote || quote == *p);
        if (quote && *p == '\\' && p[1]) {
            str_addn(&out, p, p[1] == '\'' ? 0 : 1);
            str_addn(&out, ++p, 1);
        } else if (*p == '"' && quote == '\'') {
            str_add(&out, "\\\"");
        } else if (single || *p == '"') {
            quote = !quote ? *p : quote == *p ? 0 : quote;
            str_add(&out, quote && quote != *p ? "'" : "\"");
            any |= single;
        } else {
            str_addn(&out, p, 1);
        }
    }
    if (any)
        return out.s;
    str_free(&out);
    return NULL;
}

json_t *opt_parse_json(const char *text, struct err *e)
{
    json_error_t je;
    char *plain = plain_json(text);
    const char *s = plain ? plain : text;
    json_t *o = json_parse(s, strlen(s), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);

    free(plain);
    if (!o)
        err_set(e, ERR_VALUE, "JSON: %s (column %d)", je.text, je.column);
    else if (!json_is_object(o)) {
        json_decref(o);
        o = NULL;
        err_set(e, ERR_VALUE, "JSON: an object in braces is wanted");
    }
    return o;
}

/* One word into @o. @first: the implied key may apply. */
static bool opt_one(json_t *o, const char **ps, const char *implied, bool first, bool dotted, struct err *e)
{
    struct str key = { 0 }, val = { 0 };
    bool ok = false;
    json_t *v;

    *ps = opt_word(*ps, &key, true);
    if (**ps == '=') {
        *ps = opt_word(*ps + 1, &val, false);
        if (!val.s)
            str_add(&val, "");
    } else if (opt_is_help(key.s)) {
        str_free(&key);
        str_add(&key, "help");
        str_add(&val, "on");
    } else if (first && implied && key.s) {
        val = key;
        key = (struct str){ 0 };
        str_add(&key, implied);
    } else {
        str_add(&val, "on");
    }
    if (!key.s || !key.len || key.len > OPT_KEY_MAX || !val.s) {
        err_set(e, ERR_VALUE, "a key is missing before '%s'", key.s && key.len ? key.s : val.s ? val.s : ",");
    } else if (strchr(key.s, ',')) {
        err_set(e, ERR_VALUE, "the key '%s' holds a comma", key.s);
        err_hint(e, "a comma that is written twice stands for itself: one separates options");
    } else if (!(v = json_stringn(val.s, val.len))) {
        err_set(e, ERR_VALUE, "the value of '%s' is not UTF-8", key.s);
    } else {
        ok = dotted ? opt_put_dotted(o, key.s, v, e) : (json_object_set_new(o, key.s, v), true);
    }
    str_free(&key);
    str_free(&val);
    return ok;
}

static json_t *opt_parse_any(const char *text, const char *implied, bool dotted, struct err *e)
{
    json_t *o;
    const char *s = text;
    bool first = true;

    while (isspace((unsigned char)*s))
        s++;
    if (*s == '{')
        return opt_parse_json(s, e);
    o = json_object();
    for (s = text; *s; first = false) {
        if (!opt_one(o, &s, implied, first, dotted, e)) {
            json_decref(o);
            return NULL;
        }
        if (*s == ',' && !*++s)
            break;                          /* a comma at the end is harmless */
    }
    if (dotted) {
        json_t *a = opt_arrays(o);

        if (a != o) {                       /* the top stays an object */
            json_decref(a);
        }
    }
    return o;
}

json_t *opt_parse(const char *text, const char *implied, struct err *e)
{
    return opt_parse_any(text, implied, true, e);
}

json_t *opt_parse_flat(const char *text, const char *implied, struct err *e)
{
    return opt_parse_any(text, implied, false, e);
}

json_t *opt_nest(json_t *o, bool (*nests)(const void *arg, const char *key, const char *head), const void *arg, struct err *e)
{
    json_t *out = json_object(), *groups = json_object(), *v;
    const char *key;
    bool ok = true;

    json_object_foreach(o, key, v) {
        const char *dot = strchr(key, '.');
        char *head = dot ? xstrndup(key, (size_t)(dot - key)) : NULL;

        if (!head || !nests(arg, key, head))
            json_object_set(out, key, v);
        else if (!(ok = json_object_get(o, head) ? err_set(e, ERR_VALUE, "key '%s' is used both as a value and as a group", head)
                                                 : opt_put_dotted(groups, key, json_incref(v), e))) {
            free(head);
            break;
        }
        free(head);
    }
    opt_arrays(groups);                     /* its keys are names, so that it stays an object */
    json_object_update(out, groups);
    json_decref(groups);
    if (ok)
        return out;
    json_decref(out);
    return NULL;
}

static void opt_flatten_into(json_t *out, const char *prefix, json_t *v)
{
    const char *key;
    json_t *child;
    size_t i;

    if (json_is_object(v)) {
        json_object_foreach(v, key, child) {
            char *name = xasprintf("%s%s%s", prefix, *prefix ? "." : "", key);

            opt_flatten_into(out, name, child);
            free(name);
        }
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, child) {
            char *name = xasprintf("%s.%zu", prefix, i);

            opt_flatten_into(out, name, child);
            free(name);
        }
    } else {
        json_object_set(out, prefix, v);
    }
}

json_t *opt_flatten(json_t *o)
{
    json_t *out = json_object();

    opt_flatten_into(out, "", o);
    return out;
}

const char *opt_text(json_t *o, const char *key, char buf[32])
{
    json_t *v = json_object_get(o, key);

    if (json_is_string(v))
        return json_string_value(v);
    if (json_is_integer(v))
        snprintf(buf, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_boolean(v))
        snprintf(buf, 32, "%s", json_is_true(v) ? "on" : "off");
    else
        return NULL;
    return buf;
}

char *opt_take(json_t *o, const char *key)
{
    char buf[32];
    char *s = xstrdup(opt_text(o, key, buf));

    if (s)
        json_object_del(o, key);
    return s;
}

bool opt_asks_help(json_t *o)
{
    return json_object_get(o, "help") != NULL;
}

bool opt_is_help(const char *word)
{
    return str_eq(word, "help") || str_eq(word, "?");
}

char *opt_next_word(const char **s)
{
    const char *p = *s + strspn(*s, " ");
    if (!*p)
        return NULL;
    bool quoted = *p == '"';
    char *word = xcalloc(strlen(p) + 1, 1), *to = word;
    for (p += quoted; *p && *p != (quoted ? '"' : ' '); p++) {
        if (quoted && *p == '\\' && p[1])
            p++;
        *to++ = *p;
    }
    *s = p + (quoted && *p == '"');
    return word;
}
