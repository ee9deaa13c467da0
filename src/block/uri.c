/* SPDX-License-Identifier: MIT */
/* Addresses of files, and ssh://[USER@]HOST[:PORT]/PATH[?host_key_check=...] as options of the driver ssh; /~/PATH is in the user's folder. nfs://HOST/PATH[?KEY=N&...] of nfs. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "block/nbd_proto.h"
#include "block/uri.h"

void uri_unescape(char *s)
{
    char *out = s;
    for (; *s; s++) {
        char hex[3] = { s[0] == '%' ? s[1] : 0, s[0] == '%' && s[1] ? s[2] : 0, 0 };
        char *end;
        long v = strtol(hex, &end, 16);
        if (hex[0] && hex[1] && end == hex + 2) {
            *out++ = (char)v;
            s += 2;
        } else {
            *out++ = *s;
        }
    }
    *out = 0;
}

void uri_add_escaped(struct str *out, const char *s)
{
    for (; *s; s++)
        str_printf(out, isalnum((unsigned char)*s) || strchr("-._~/", *s) ? "%c" : "%%%02X", (unsigned char)*s);
}

char *uri_host(char *authority, char **port)
{
    static char none[1];
    char *colon = strrchr(authority, ':'), *bracket = strrchr(authority, ']');
    *port = none;
    if (colon && (!bracket || colon > bracket)) {
        *colon = 0;
        *port = colon + 1;
    }
    if (bracket && authority[0] == '[') {
        authority++;
        *bracket = 0;
    }
    return authority;
}

/* The address @name, which begins with @scheme and "://". Release it also after a failure. */
static bool uri_parse(struct uri *u, const char *scheme, const char *name, struct err *e)
{
    size_t n = strlen(scheme);
    *u = (struct uri){ 0 };
    if (!str_starts(name, scheme) || !str_starts(name + n, "://") || strstr(name, "%00"))
        return err_set(e, ERR_VALUE, "'%.80s' is no address of %s", name, scheme);
    /* The path begins with the '/' that ends the authority: a place is made for the end of that. */
    const char *rest = name + n + 3;
    size_t auth = strcspn(rest, "/?");
    u->text = xasprintf("%.*s%c%s", (int)auth, rest, '\n', rest + auth);
    u->text[auth] = 0;
    char *at = strrchr(u->text, '@');
    if (at) {
        *at = 0;
        u->user = u->text;
        if (strchr(u->user, ':'))
            return err_set(e, ERR_VALUE, "'%.20s...': an address with a password in it is not taken", name);
        uri_unescape(u->user);
    }
    u->path = u->text + auth + 1;
    u->query = strchr(u->path, '?');
    if (u->query)
        *u->query++ = 0;
    uri_unescape(u->path);
    u->host = uri_host(at ? at + 1 : u->text, &u->port);
    uri_unescape(u->host);
    return *u->host || err_set(e, ERR_VALUE, "'%.80s': the address names no host", name);
}

static void uri_release(struct uri *u) { free(u->text); }

bool uri_next(char **query, char **key, char **value)
{
    char *q = *query;
    if (!q || !*q)
        return false;
    *query = strchr(q, '&');
    if (*query)
        *(*query)++ = 0;
    *key = q;
    *value = strchr(q, '=');
    if (*value) {
        *(*value)++ = 0;
        uri_unescape(*value);
    }
    return true;
}

char *uri_beside(const char *image, const char *name)
{
    size_t folder = strcspn(image, "?"), query = folder;
    struct str u = { 0 };
    while (folder && image[folder - 1] != '/')
        folder--;
    str_addn(&u, image, folder);
    uri_add_escaped(&u, name);
    str_add(&u, image + query);
    return str_take(&u);
}

/* ---- ssh ---- */

/* no, yes, md5:HEX, sha1:HEX, sha256:HEX */
static json_t *host_key_check(const char *v, struct err *e)
{
    static const char *const types[] = { "md5", "sha1", "sha256", NULL };
    if (str_eq(v, "no"))
        return json_pack("{s:s}", "mode", "none");
    if (str_eq(v, "yes"))
        return json_pack("{s:s}", "mode", "known_hosts");
    for (size_t i = 0; v && types[i]; i++) {
        size_t n = strlen(types[i]);
        if (str_starts(v, types[i]) && v[n] == ':')
            return json_pack("{s:s, s:s, s:s}", "mode", "hash", "type", types[i], "hash", v + n + 1);
    }
    err_set(e, ERR_VALUE, "host_key_check: '%.80s' is no way to check", v ? v : "");
    err_hint(e, "no, yes (by known_hosts), md5:HEX, sha1:HEX, sha256:HEX");
    return NULL;
}

json_t *uri_ssh_opts(const char *name, struct err *e)
{
    struct uri u;
    bool ok = uri_parse(&u, "ssh", name, e);
    json_t *o = ok ? json_pack("{s:s, s:{s:s, s:s}, s:s, s:s*}", "driver", "ssh", "server", "host", u.host, "port", *u.port ? u.port : "22",
                               "path", u.path + (str_starts(u.path, "/~/") ? 3 : 0), "user", u.user && *u.user ? u.user : NULL) : NULL;
    json_t *check;
    char *key, *value;
    while (o && uri_next(&u.query, &key, &value)) {
        if (!str_eq(key, "host_key_check"))
            check = (err_set(e, ERR_VALUE, "an address of ssh has no '%.80s'", key), err_hint(e, "behind '?': host_key_check=..."), NULL);
        else
            check = host_key_check(value, e);
        if (!check) {
            json_decref(o);
            o = NULL;
        }
        json_object_set_new(o, "host-key-check", check);
    }
    uri_release(&u);
    return o;
}

/* ---- nfs ---- */

json_t *uri_nfs_opts(const char *name, struct err *e)
{
    static const char *const keys[][2] = {      /* QEMU's, and of libnfs' own the last three */
        { "uid", "user" }, { "gid", "group" }, { "tcp-syncnt", "tcp-syn-count" }, { "readahead", "readahead-size" }, { "pagecache", "page-cache-size" },
        { "debug", "debug" }, { "version", "version" }, { "nfsport", "nfs-port" }, { "mountport", "mount-port" },
    };
    struct uri u;
    bool ok = uri_parse(&u, "nfs", name, e);
    char *key, *value;
    if (ok && *u.port)
        ok = (err_set(e, ERR_VALUE, "an address of nfs has no port behind the host"), err_hint(e, "?nfsport=N"));
    json_t *o = ok ? json_pack("{s:s, s:{s:s, s:s}, s:s}", "driver", "nfs", "server", "type", "inet", "host", u.host, "path", u.path) : NULL;
    while (o && uri_next(&u.query, &key, &value)) {
        size_t i = 0;
        while (i < ARRAY_SIZE(keys) && !str_eq(keys[i][0], key))
            i++;
        if (i < ARRAY_SIZE(keys) && value) {
            json_object_set_new(o, keys[i][1], json_string(value));
            continue;
        }
        err_set(e, ERR_VALUE, "an address of nfs has no '%.80s'", key);
        err_hint(e, "behind '?', each with a number: uid, gid, tcp-syncnt, readahead, pagecache, debug, version, nfsport, mountport");
        json_decref(o);
        o = NULL;
    }
    uri_release(&u);
    return o;
}

static void move(json_t *to, json_t *from, const char *key)
{
    json_object_set(to, key, json_object_get(from, key));
    json_object_del(from, key);
}

void uri_imply_server(json_t *opts)
{
    const char *driver = json_string_value(json_object_get(opts, "driver"));
    bool nbd = str_eq(driver, "nbd"), host = json_object_get(opts, "host"), socket = nbd && !host && json_object_get(opts, "path");
    if (!(nbd || str_eq(driver, "ssh")) || !(host || socket) || json_object_get(opts, "server"))
        return;
    json_t *server = nbd ? json_pack("{s:s}", "type", socket ? "unix" : "inet") : json_object();
    if (socket) {
        move(server, opts, "path");
    } else {
        json_object_set_new(server, "port", json_string(nbd ? NBD_PORT : "22"));
        move(server, opts, "host");
        move(server, opts, "port");
    }
    json_object_set_new(opts, "server", server);
}
