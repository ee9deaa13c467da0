/* SPDX-License-Identifier: MIT */
/* Socket addresses and the first steps of a socket. Descriptors are close-on-exec and non-blocking. Thread: ANY. */
#ifndef BASE_SOCK_H
#define BASE_SOCK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "base/err.h"
#include "base/exit_file.h"

struct sock_addr {
    union { struct sockaddr any; struct sockaddr_in in; struct sockaddr_in6 in6; struct sockaddr_un un; };
    socklen_t len;              /* 0: no address */
};

#define SOCK_TEXT 160           /* enough for sock_format() */

enum { SOCK_MAX_ADDRS = 8 };
/*
 * @host and @port as people write them (@host NULL or "": any address where @passive, else loopback). @family AF_UNSPEC,
 * AF_INET or AF_INET6; @numeric: @host is no name. The addresses of a name in the order to try them: at most SOCK_MAX_ADDRS in @out, and
 * how many, or 0. Asks the resolver, so it may wait for seconds; not where a domain is held.
 */
unsigned sock_resolve_all(struct sock_addr out[SOCK_MAX_ADDRS], const char *host, const char *port, int family, int socktype, bool passive,
                          bool numeric, struct err *e) MUST_CHECK;
/* The first of them. */
bool sock_resolve(struct sock_addr *out, const char *host, const char *port, int family, int socktype, bool passive,
                  struct err *e) MUST_CHECK;
/* @abstract: Linux' abstract namespace; @tight: its name ends with the text, else it is padded with zeros. */
bool sock_unix(struct sock_addr *out, const char *path, bool abstract, bool tight, struct err *e) MUST_CHECK;
/* False for a number past 65535, and for no text at all. */
bool sock_port_ok(const char *port, struct err *e) MUST_CHECK;
/* "HOST:PORT", "[V6]:PORT", ":PORT" into two new strings. */
bool sock_split(const char *text, char **host, char **port, struct err *e) MUST_CHECK;
/* "/run/x", "@abstract", "127.0.0.1:80", "[::1]:80". */
const char *sock_format(const struct sock_addr *a, char buf[SOCK_TEXT]);
void sock_host_port(const struct sock_addr *a, char host[64], char port[8]);

/*
 * Listening socket; a stale socket file is replaced, a live one is refused. A busy address names its holder. -1 on failure.
 * *@file is the name that a unix socket got in the file system, to be removed with the socket by the caller; else NULL.
 * @file may be NULL: the name is the caller's affair.
 */
int sock_listen(const struct sock_addr *a, int backlog, struct exit_file **file, struct err *e) MUST_CHECK;
/* The next connection of a listening socket; -1: there is none. Where no descriptor is left it is sent away: it would be there for ever. */
int sock_take(int listen_fd);
/* Bound datagram socket, with the same care. @shared: several processes may bind the address (multicast). -1 on failure. */
int sock_bind_dgram(const struct sock_addr *a, bool shared, struct exit_file **file, struct err *e) MUST_CHECK;
/* Begins to connect: *@pending tells that sock_connect_finish() must follow once it is writable. -1 on failure. */
int sock_connect_start(const struct sock_addr *a, int socktype, bool *pending, struct err *e) MUST_CHECK;
int sock_connect_finish(int fd);                /* 0 or the errno of the attempt */
/* The own address of a bound socket (port 0 resolved). */
bool sock_local(int fd, struct sock_addr *out);
bool sock_peer(int fd, struct sock_addr *out);
/* Who listens on or is bound to @a: "'sshd' (pid 12)" if the system tells. */
bool sock_holder(const struct sock_addr *a, int socktype, char *buf, size_t n);

#endif
