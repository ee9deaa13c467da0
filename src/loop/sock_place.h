/* SPDX-License-Identifier: MIT */
/*
 * Where a socket is, as users say it: the options of QEMU's SocketAddress, their rows, and what is done with them. Main loop; co_*
 * functions in coroutines.
 */
#ifndef LOOP_SOCK_PLACE_H
#define LOOP_SOCK_PLACE_H

#include "base/sock.h"
#include "core/prop.h"
#include "loop/loop.h"

enum sock_kind { SOCK_INET, SOCK_UNIX, SOCK_FD };
extern const char *const sock_kinds[];

struct sock_place {
    int kind;                           /* enum sock_kind */
    char *host, *port;                  /* inet; a NULL port is 0 */
    char *path;                         /* unix */
    char *fd;                           /* what fd_take() knows */
    uint32_t to;                        /* inet, listening: last port to try; 0: @port only */
    int ipv4, ipv6, tight;              /* enum tri */
    bool numeric, abstract, keep_alive;
    uint32_t keep_count, keep_idle, keep_interval;  /* 0: as the system has it */
};

/* The rows of the struct sock_place that @m leads to in @T ("addr."; nothing), with names that begin with @pre. */
#define SOCK_PLACE_ROWS(T, m, pre) \
    PROP_ENUM(T, m kind, pre "type", sock_kinds, SOCK_INET, "Kind of address"), \
    PROP_STR(T, m host, pre "host", 0, "inet: host name or address"), \
    PROP_STR(T, m port, pre "port", PF_PORT, "inet: port number or service; 0 lets the system choose"), \
    PROP_BOOL(T, m numeric, pre "numeric", false, "inet: host is an address, no name is looked up"), \
    PROP_TRI(T, m ipv4, pre "ipv4", TRI_AUTO, "inet: use IPv4"), \
    PROP_TRI(T, m ipv6, pre "ipv6", TRI_AUTO, "inet: use IPv6"), \
    PROP_STR(T, m path, pre "path", 0, "unix: its file"), \
    PROP_BOOL(T, m abstract, pre "abstract", false, "unix: the path is a name in Linux' abstract namespace"), \
    PROP_TRI(T, m tight, pre "tight", TRI_AUTO, "unix: the abstract name is not padded with zeros (the default)"), \
    PROP_STR(T, m fd, pre "str", 0, "fd: number of a socket that was inherited, or its name (QMP getfd)")
/* And those that only a stream has. */
#define SOCK_STREAM_ROWS(T, m, pre) SOCK_PLACE_ROWS(T, m, pre), SOCK_KEEP_ROWS(T, m, pre), \
    PROP_U32(T, m to, pre "to", 0, 0, 65535, "inet, listening: last port to try when the others are busy")
#define SOCK_KEEP_ROWS(T, m, pre) \
    PROP_BOOL(T, m keep_alive, pre "keep-alive", false, "inet: ask a silent peer whether it is there"), \
    PROP_U32(T, m keep_count, pre "keep-alive-count", 0, 0, 127, "inet: questions without an answer that end the connection; 0: the system's"), \
    PROP_U32(T, m keep_idle, pre "keep-alive-idle", 0, 0, 32767, "inet: seconds of silence before the first question; 0: the system's"), \
    PROP_U32(T, m keep_interval, pre "keep-alive-interval", 0, 0, 32767, "inet: seconds between questions; 0: the system's")

/* Whether anything of it is given. */
bool sock_place_given(const struct sock_place *p);
/* Whether its members fit its kind and, with @passive, a listener. @pre stands before names in messages ("addr."). */
bool sock_place_check(const struct sock_place *p, bool passive, const char *pre, struct err *e) MUST_CHECK;
/* From QMP's form, {"type": T, ...} or {"type": T, "data": {...}}; without a type, members tell it. @port is inet's where none is given,
 * NULL: one must be. Release it also after a failure. */
bool sock_place_from_json(struct sock_place *p, json_t *v, bool passive, const char *port, const char *what, struct err *e) MUST_CHECK;
void sock_place_release(struct sock_place *p);
/* {"type": "inet", "host": H, "port": P} or {"type": "unix", "path": F}: as events tell of it. New reference. */
json_t *sock_to_json(const struct sock_addr *a);

/* The address it means, not for SOCK_FD. @family narrows inet's; AF_UNSPEC: as the options say. */
bool co_sock_resolve(const struct sock_place *p, int family, int socktype, bool passive, struct sock_addr *out, struct err *e) MUST_CHECK;
/* A connected stream socket, each address of a name tried in turn, and its address; or the one that was given. -1 on failure. @p may go
 * away meanwhile. */
int co_sock_connect(const struct sock_place *p, struct sock_addr *at, struct err *e) MUST_CHECK;
/* A listening one, likewise; @at with the port that was chosen, @file as of sock_listen(). */
int co_sock_listen(const struct sock_place *p, int backlog, struct sock_addr *at, struct exit_file **file, struct err *e) MUST_CHECK;
/* The next connection, close-on-exec and not blocking, with keep-alive as @p says; -1 if there is none. */
int sock_accept_one(const struct sock_place *p, int listen_fd);

#endif
