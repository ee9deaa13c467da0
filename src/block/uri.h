/* SPDX-License-Identifier: MIT */
/* Addresses of files as URIs (RFC 3986): SCHEME://[USER@]HOST[:PORT]/PATH[?KEY=VALUE&...]. ANY. */
#ifndef BLOCK_URI_H
#define BLOCK_URI_H

#include <jansson.h>
#include "base/str.h"

/* %XX becomes its byte, in place. */
void uri_unescape(char *s);
/* What may not be in a part of an address (section 2.3) is written in hexadecimal; '/' stays. */
void uri_add_escaped(struct str *out, const char *s);
/* Cuts off the port of HOST:PORT or [HOST]:PORT and the brackets: answers the host, and *port ("": none). */
char *uri_host(char *authority, char **port);

struct uri {
    char *text;                         /* what the others are parts of */
    char *user, *host, *port, *path, *query;    /* NULL or "": not there. path with its '/'; all but the query unescaped */
};
/* The next KEY=VALUE of *query, unescaped; false: there is none. A key without '=' has a NULL value. */
bool uri_next(char **query, char **key, char **value);

/* The file @name in the folder of that whose address is @image; what is behind the '?' is the server's, and stays. The caller frees. */
char *uri_beside(const char *image, const char *name);

/* Options of the drivers of that name. New reference; NULL with @e filled. */
json_t *uri_ssh_opts(const char *name, struct err *e);
json_t *uri_nfs_opts(const char *name, struct err *e);
/* "driver=nbd,host=H,port=P" (of ssh, too) and "driver=nbd,path=SOCKET" say what server.* does. */
void uri_imply_server(json_t *opts);

#endif
