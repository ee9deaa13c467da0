/* SPDX-License-Identifier: MIT */
/* nbd://, nbd+unix:// (the NBD project's doc/uri.md) and the older nbd:HOST:PORT forms as options of the nbd driver. */
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"

static void unescape(char *s)
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

static json_t *inet(const char *host, const char *port)
{
    return json_pack("{s:s, s:s, s:s}", "type", "inet", "host", *host ? host : "localhost", "port", *port ? port : "10809");
}

/* AUTHORITY/EXPORT?QUERY */
static json_t *from_uri(char *rest, bool unix_socket, struct err *e)
{
    char *query = strchr(rest, '?'), *path = strchr(rest, '/'), *sock = NULL;
    if (query)
        *query++ = 0;
    for (char *q = query; q && *q;) {
        char *next = strchr(q, '&');
        if (next)
            *next++ = 0;
        if (str_starts(q, "socket="))
            sock = q + 7;
        q = next;
    }
    if (path && query && path > query)
        path = NULL;
    if (path)
        *path++ = 0;
    if (unix_socket && !sock) {
        err_set(e, ERR_VALUE, "an nbd+unix address needs ?socket=PATH");
        return NULL;
    }
    json_t *server;
    if (unix_socket) {
        unescape(sock);
        server = json_pack("{s:s, s:s}", "type", "unix", "path", sock);
    } else {
        char *colon = strrchr(rest, ':'), *bracket = strrchr(rest, ']');
        if (colon && (!bracket || colon > bracket))
            *colon++ = 0;
        else
            colon = NULL;
        if (bracket && rest[0] == '[')
            rest++, *bracket = 0;
        server = inet(rest, colon ? colon : "");
    }
    if (path)
        unescape(path);
    return json_pack("{s:s, s:o, s:s}", "driver", "nbd", "server", server, "export", path ? path : "");
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
    json_t *o = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        if (!str_starts(name, schemes[i].scheme))
            continue;
        if (schemes[i].tls) {
            err_set(e, ERR_VALUE, "%s says TLS, but not with which credentials", schemes[i].scheme);
            err_hint(e, "driver=nbd,server.host=HOST,server.port=PORT,export=NAME,tls-creds=ID (images: --object, --image-opts)");
            return NULL;
        }
        char *rest = xstrdup(name + strlen(schemes[i].scheme));
        o = from_uri(rest, schemes[i].sock, e);
        free(rest);
        return o;
    }
    if (str_starts(name, "nbd:")) {
        char *rest = xstrdup(name + 4);
        o = from_old(rest);
        free(rest);
    }
    return o;
}
