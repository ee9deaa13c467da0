/* SPDX-License-Identifier: MIT */
/* nbd://, nbd+unix://, and with TLS nbds:// and nbds+unix:// (the NBD project's doc/uri.md), and the older nbd:HOST:PORT forms as options of the nbd driver. */
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
#include "block/nbd_proto.h"
#include "block/uri.h"

static json_t *inet(const char *host, const char *port)
{
    return json_pack("{s:s, s:s, s:s}", "type", "inet", "host", *host ? host : "localhost", "port", *port ? port : NBD_PORT);
}

/* KEY=VALUE&... into @o; socket=PATH into @sock. */
static bool take_query(char *q, bool unix_socket, bool tls, json_t *o, char **sock, struct err *e)
{
    char *key, *value;
    while (uri_next(&q, &key, &value)) {
        if (value && unix_socket && !strcmp(key, "socket")) {
            *sock = value;
        } else if (value && tls && (!strcmp(key, "tls-creds") || !strcmp(key, "tls-hostname"))) {
            json_object_set_new(o, key, json_string(value));
        } else {
            err_set(e, ERR_VALUE, "the NBD address has '%.80s', which means nothing here", key);
            return err_hint(e, "behind '?': socket=PATH with +unix; tls-creds=ID, tls-hostname=NAME with nbds");
        }
    }
    return true;
}

/* AUTHORITY/EXPORT?QUERY */
static bool from_uri(char *rest, bool unix_socket, bool tls, json_t *o, struct err *e)
{
    char *query = strchr(rest, '?'), *path = strchr(rest, '/'), *sock = NULL;
    if (query)
        *query++ = 0;
    if (!take_query(query, unix_socket, tls, o, &sock, e))
        return false;
    if (path && query && path > query)
        path = NULL;
    if (path)
        *path++ = 0;
    if (unix_socket && !sock)
        return err_set(e, ERR_VALUE, "an nbd+unix address needs ?socket=PATH");
    if (unix_socket) {
        json_object_set_new(o, "server", json_pack("{s:s, s:s}", "type", "unix", "path", sock));
    } else {
        char *port, *host = uri_host(rest, &port);
        json_object_set_new(o, "server", inet(host, port));
    }
    if (path)
        uri_unescape(path);
    json_object_set_new(o, "export", json_string(path ? path : ""));
    if (tls)
        json_object_set_new(o, "tls", json_true());
    return true;
}

/* HOST:PORT[:exportname=NAME], unix:PATH[:exportname=NAME] */
static json_t *from_old(char *rest)
{
    char *name = strstr(rest, ":exportname=");
    if (name) {
        *name = 0;
        name += strlen(":exportname=");
    }
    json_t *server;
    char *colon = strrchr(rest, ':');
    if (str_starts(rest, "unix:")) {
        server = json_pack("{s:s, s:s}", "type", "unix", "path", rest + 5);
    } else {
        if (colon)
            *colon++ = 0;
        server = inet(rest, colon ? colon : "");
    }
    return json_pack("{s:s, s:o, s:s}", "driver", "nbd", "server", server, "export", name ? name : "");
}

json_t *blk_nbd_uri_opts(const char *name, struct err *e)
{
    static const struct { const char *scheme; bool sock, tls; } schemes[] = {
        { "nbd://", false, false }, { "nbd+tcp://", false, false }, { "nbd+unix://", true, false },
        { "nbds://", false, true }, { "nbds+unix://", true, true },
    };
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        if (!str_starts(name, schemes[i].scheme))
            continue;
        char *rest = xstrdup(name + strlen(schemes[i].scheme));
        json_t *o = json_pack("{s:s}", "driver", "nbd");
        if (!from_uri(rest, schemes[i].sock, schemes[i].tls, o, e)) {
            json_decref(o);
            o = NULL;
        }
        free(rest);
        return o;
    }
    if (!str_starts(name, "nbd:")) {
        err_set(e, ERR_VALUE, "'%.80s' is not an address of NBD", name);
        err_hint(e, "nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH");
        return NULL;
    }
    char *rest = xstrdup(name + strlen("nbd:"));
    json_t *o = from_old(rest);
    free(rest);
    return o;
}

/* ---- and back ---- */

char *blk_nbd_uri(json_t *server, const char *export, const char *tls_creds, const char *tls_hostname)
{
    const char *path = json_string_value(json_object_get(server, "path")), *host = json_string_value(json_object_get(server, "host"));
    const char *port = json_string_value(json_object_get(server, "port")), *more = path ? "&" : "?";
    struct str u = { 0 };
    if ((!path && !host) || json_object_get(server, "abstract"))
        return NULL;
    str_printf(&u, "nbd%s%s://", tls_creds ? "s" : "", path ? "+unix" : "");
    if (host)
        str_printf(&u, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port ? port : NBD_PORT);
    str_add(&u, "/");
    uri_add_escaped(&u, export);
    if (path) {
        str_add(&u, "?socket=");
        uri_add_escaped(&u, path);
    }
    const char *const extra[][2] = { { "tls-creds", tls_creds }, { "tls-hostname", tls_hostname } };
    for (size_t i = 0; i < ARRAY_SIZE(extra); i++) {
        if (!extra[i][1])
            continue;
        str_printf(&u, "%s%s=", more, extra[i][0]);
        uri_add_escaped(&u, extra[i][1]);
        more = "&";
    }
    return u.s;
}
