/* SPDX-License-Identifier: MIT */
#include "block/rbd_name.h"

#include <stdlib.h>
#include <string.h>
#include "base/str.h"

/* The part of *@s before one of @ends, without its '\'s; *@s goes on behind the end, which is answered (0: there is nothing more). */
static char take(const char **s, const char *ends, char **part)
{
    struct str u = { 0 };
    const char *p = *s;
    for (; *p && !strchr(ends, *p); p++)
        str_addn(&u, *p == '\\' && p[1] ? ++p : p, 1);
    char end = *p;
    *s = end ? p + 1 : p;
    *part = str_take(&u);
    return end;
}

/* ":KEY=VALUE..." */
static bool take_settings(const char *s, json_t *o, struct err *e)
{
    json_t *settings = NULL;
    while (*s) {
        char *key, *value = NULL;
        bool ok = take(&s, "=:", &key) == '=' && *key;
        if (ok)
            take(&s, ":", &value);
        if (!ok)
            err_set(e, ERR_VALUE, "'%.40s' has no value", key);
        else if (!strcmp(key, "id") || !strcmp(key, "conf"))
            json_object_set_new(o, *key == 'i' ? "user" : "conf", json_string(value));
        else if (settings || !json_object_set_new(o, "settings", settings = json_object()))
            json_object_set_new(settings, key, json_string(value));
        free(key);
        free(value);
        if (!ok)
            return false;
    }
    return true;
}

static json_t *bad(const char *name, struct err *e)
{
    err_prefix(e, "'%.80s'", name);
    err_hint(e, "rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:KEY=VALUE...]");
    return NULL;
}

json_t *rbd_name_opts(const char *name, struct err *e)
{
    const char *s = name + strlen("rbd:");
    char *part[3];                              /* pool, namespace, image */
    char end = take(&s, "/", &part[0]);
    if (!end || !*part[0]) {
        free(part[0]);
        err_set(e, ERR_VALUE, "it has no %s", end ? "pool" : "image");
        return bad(name, e);
    }
    json_t *o = json_pack("{s:s, s:s}", "driver", "rbd", "pool", part[0]);
    free(part[0]);
    end = take(&s, "/@:", &part[1]);
    if (end == '/') {
        json_object_set_new(o, "namespace", json_string(part[1]));
        end = take(&s, "@:", &part[2]);
        free(part[1]);
    } else {
        part[2] = part[1];
    }
    json_object_set_new(o, "image", json_string(part[2]));
    bool ok = *part[2] || err_set(e, ERR_VALUE, "it has no image");
    free(part[2]);
    if (end == '@') {
        take(&s, ":", &part[2]);
        json_object_set_new(o, "snapshot", json_string(part[2]));
        free(part[2]);
    }
    if (ok && take_settings(s, o, e))
        return o;
    json_decref(o);
    return bad(name, e);
}

static void add(struct str *u, const char *before, const char *s, const char *special)
{
    if (!s || !*s)
        return;
    str_add(u, before);
    for (; *s; s++) {
        if (strchr(special, *s))
            str_add(u, "\\");
        str_addn(u, s, 1);
    }
}

char *rbd_name(const char *pool, const char *space, const char *image, const char *snapshot, const char *user, const char *conf)
{
    struct str u = { 0 };
    add(&u, "rbd:", pool, "/\\");
    add(&u, "/", space, "/@:\\");
    add(&u, "/", image, "/@:\\");
    add(&u, "@", snapshot, ":\\");
    add(&u, ":id=", user, ":\\");
    add(&u, ":conf=", conf, ":\\");
    return str_take(&u);
}
