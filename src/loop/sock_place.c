/* SPDX-License-Identifier: MIT */
#include "loop/sock_place.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fdset.h"
#include "base/str.h"
#include "loop/co.h"

#define CONNECT_TIMEOUT_NS (30 * INT64_C(1000000000))

const char *const sock_kinds[] = { "inet", "unix", "fd", NULL };

/* ---- the options ---- */

bool sock_place_given(const struct sock_place *p) { return p->host || p->port || p->path || p->fd; }

/* What is given of kinds other than @p's own; NULL if nothing. */
static const char *stranger(const struct sock_place *p)
{
    const struct { int kind; bool given; const char *name; } members[] = {
        { SOCK_INET, p->host != NULL, "host" }, { SOCK_INET, p->port != NULL, "port" }, { SOCK_INET, p->to != 0, "to" },
        { SOCK_INET, p->ipv4 != TRI_AUTO, "ipv4" }, { SOCK_INET, p->ipv6 != TRI_AUTO, "ipv6" }, { SOCK_INET, p->numeric, "numeric" },
        { SOCK_INET, p->keep_alive, "keep-alive" }, { SOCK_UNIX, p->path != NULL, "path" }, { SOCK_UNIX, p->abstract, "abstract" },
        { SOCK_UNIX, p->tight != TRI_AUTO, "tight" }, { SOCK_FD, p->fd != NULL, "str" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        if (members[i].given && members[i].kind != p->kind)
            return members[i].name;
    return NULL;
}

bool sock_place_check(const struct sock_place *p, bool passive, const char *pre, struct err *e)
{
    static const char *const needed[] = { [SOCK_INET] = "port", [SOCK_UNIX] = "path", [SOCK_FD] = "str" };
    const char *const given[] = { [SOCK_INET] = p->port, [SOCK_UNIX] = p->path, [SOCK_FD] = p->fd };
    const char *other = stranger(p);
    if (other || !given[p->kind]) {
        if (other)
            err_set(e, ERR_VALUE, "%s%s has no effect with %stype=%s", pre, other, pre, sock_kinds[p->kind]);
        else
            err_set(e, ERR_VALUE, "%s%s is missing", pre, needed[p->kind]);
        return err_hint(e, "write %stype=inet,%shost=H,%sport=P, %stype=unix,%spath=FILE or %stype=fd,%sstr=N", pre, pre, pre, pre, pre, pre, pre);
    }
    if (p->to && !passive)
        return err_set(e, ERR_VALUE, "%sto has an effect only when listening", pre);
    if (p->tight != TRI_AUTO && !p->abstract)
        return err_set(e, ERR_VALUE, "%stight has no effect without %sabstract=on", pre, pre);
    if (p->ipv4 == TRI_OFF && p->ipv6 == TRI_OFF)
        return err_set(e, ERR_VALUE, "%sipv4=off and %sipv6=off leave no address", pre, pre);
    return p->keep_alive || !(p->keep_count || p->keep_idle || p->keep_interval) ||
           err_set(e, ERR_VALUE, "%skeep-alive-count, -idle and -interval have no effect without %skeep-alive=on", pre, pre);
}

static const struct prop place_props[] = { SOCK_STREAM_ROWS(struct sock_place, , ""), PROP_END };

bool sock_place_from_json(struct sock_place *p, json_t *v, bool passive, const char *port, const char *what, struct err *e)
{
    json_t *type = json_object_get(v, "type"), *data = json_object_get(v, "data");
    json_t *o = json_copy(json_is_object(data) ? data : v);
    *p = (struct sock_place){ 0 };
    prop_defaults(place_props, p);
    if (type)
        json_object_set(o, "type", type);
    else if (json_object_get(o, "path"))
        json_object_set_new(o, "type", json_string("unix"));
    bool ok = prop_set_all(place_props, p, NULL, o, what, e);
    if (ok && p->kind == SOCK_INET && !p->port)
        p->port = xstrdup(port);
    ok = ok && sock_place_check(p, passive, "", e);
    json_decref(o);
    return ok;
}

void sock_place_release(struct sock_place *p) { prop_release(place_props, p); }

static void place_copy(struct sock_place *to, const struct sock_place *from)
{
    *to = *from;
    to->host = xstrdup(from->host);
    to->port = xstrdup(from->port);
    to->path = xstrdup(from->path);
    to->fd = xstrdup(from->fd);
}

json_t *sock_to_json(const struct sock_addr *a)
{
    char text[SOCK_TEXT], host[64], port[8];
    if (a->len && a->any.sa_family == AF_UNIX) {
        sock_format(a, text);
        return json_pack("{ssss}", "type", "unix", "path", text);
    }
    sock_host_port(a, host, port);
    return json_pack("{ssssss}", "type", "inet", "host", host, "port", port);
}

/* ---- addresses ---- */

struct lookup { const struct sock_place *p; int family, socktype; bool passive; struct sock_addr *out; unsigned n; struct err *e; };

static int look_up(void *arg)
{
    struct lookup *l = arg;
    l->n = sock_resolve_all(l->out, l->p->host, l->p->port ? l->p->port : "0", l->family, l->socktype, l->passive, l->p->numeric, l->e);
    return 0;
}

/* How many there are in @out; 0 with @e filled. */
static unsigned co_addresses(const struct sock_place *p, int family, int socktype, bool passive, struct sock_addr out[SOCK_MAX_ADDRS], struct err *e)
{
    struct lookup l = { p, family, socktype, passive, out, 0, e };
    bool want4 = p->ipv4 == TRI_ON || (p->ipv4 == TRI_AUTO && p->ipv6 != TRI_ON);
    bool want6 = p->ipv6 == TRI_ON || (p->ipv6 == TRI_AUTO && p->ipv4 != TRI_ON);
    if (p->kind == SOCK_UNIX)
        return sock_unix(out, p->path, p->abstract, p->tight != TRI_OFF, e);
    if (family == AF_UNSPEC)
        l.family = want4 && want6 ? AF_UNSPEC : want4 ? AF_INET : AF_INET6;
    co_offload(look_up, &l);
    return l.n;
}

bool co_sock_resolve(const struct sock_place *p, int family, int socktype, bool passive, struct sock_addr *out, struct err *e)
{
    struct sock_addr all[SOCK_MAX_ADDRS];
    unsigned n = co_addresses(p, family, socktype, passive, all, e);
    if (n)
        *out = all[0];
    return n != 0;
}

/* ---- streams ---- */

static void keep_alive(const struct sock_place *p, int fd)
{
    const struct { int option; uint32_t value; } rows[] = {
        { TCP_KEEPCNT, p->keep_count }, { TCP_KEEPIDLE, p->keep_idle }, { TCP_KEEPINTVL, p->keep_interval } };
    int one = 1;
    if (!p->keep_alive)
        return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].value)
            setsockopt(fd, IPPROTO_TCP, rows[i].option, &rows[i].value, sizeof rows[i].value);
}

/* The socket that was given: a stream that listens or, not @passive, is connected. */
static int adopt(const struct sock_place *p, bool passive, struct sock_addr *at, struct err *e)
{
    int type = 0, listens = 0, fd = fd_take(p->fd, e);
    struct sock_addr peer;
    socklen_t n = sizeof type;
    if (fd < 0)
        return -1;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || !sock_local(fd, at))
        err_set(e, ERR_VALUE, "file descriptor '%.60s' is not a socket", p->fd);
    else if (type != SOCK_STREAM)
        err_set(e, ERR_VALUE, "file descriptor '%.60s' is not a stream socket", p->fd);
    else if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n), passive && !listens && (sock_peer(fd, &peer) || listen(fd, 1) < 0))
        err_set(e, ERR_VALUE, "file descriptor '%.60s' is no socket that can listen", p->fd);
    else if (!passive && listens)
        err_set(e, ERR_VALUE, "file descriptor '%.60s' is a listening socket: it needs server=on", p->fd);
    else {
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        return fd;
    }
    if (*p->fd < '0' || *p->fd > '9')
        close(fd);                      /* handed over by name, so it was ours */
    return -1;
}

static int co_connect_to(const struct sock_addr *a, struct err *e)
{
    char text[SOCK_TEXT];
    bool pending;
    int fd = sock_connect_start(a, SOCK_STREAM, &pending, e);
    if (fd < 0 || !pending)
        return fd;
    int r = co_fd(fd, LOOP_OUT, clock_now(CLOCK_HOST) + CONNECT_TIMEOUT_NS);
    r = r < 0 ? -r : sock_connect_finish(fd);
    if (!r)
        return fd;
    err_os(e, r, "cannot connect to %s", sock_format(a, text));
    close(fd);
    return -1;
}

int co_sock_connect(const struct sock_place *place, struct sock_addr *at, struct err *e)
{
    struct sock_addr all[SOCK_MAX_ADDRS];
    struct sock_place p;
    int fd = -1;
    if (place->kind == SOCK_FD)
        return adopt(place, false, at, e);
    place_copy(&p, place);
    unsigned n = co_addresses(&p, AF_UNSPEC, SOCK_STREAM, false, all, e);
    for (unsigned i = 0; i < n && fd < 0; i++) {
        fd = co_connect_to(&all[i], e);
        *at = all[i];
    }
    if (fd >= 0)
        keep_alive(&p, fd);
    sock_place_release(&p);
    return fd;
}

/* At @a or, with to=, at the first free port from there on. */
static int listen_range(const struct sock_place *p, int backlog, struct sock_addr *a, struct exit_file **file, struct err *e)
{
    unsigned port = p->kind == SOCK_UNIX ? 0 : ntohs(a->in.sin_port);
    for (;;) {
        int fd = sock_listen(a, backlog, file, e);
        if (fd >= 0 || e->os_errno != EADDRINUSE || port >= p->to)
            return fd;
        a->in.sin_port = htons((uint16_t)++port);       /* at the same place in both families */
    }
}

int co_sock_listen(const struct sock_place *p, int backlog, struct sock_addr *at, struct exit_file **file, struct err *e)
{
    struct sock_addr all[SOCK_MAX_ADDRS];
    int fd = -1;
    *file = NULL;
    if (p->kind == SOCK_FD)
        return adopt(p, true, at, e);
    unsigned n = co_addresses(p, AF_UNSPEC, SOCK_STREAM, true, all, e);
    for (unsigned i = 0; i < n && fd < 0; i++) {
        fd = listen_range(p, backlog, &all[i], file, e);
        *at = all[i];
    }
    if (fd >= 0 && p->kind == SOCK_INET)
        sock_local(fd, at);
    return fd;
}

int sock_accept_one(const struct sock_place *p, int listen_fd)
{
    int fd = sock_take(listen_fd);
    if (fd >= 0)
        keep_alive(p, fd);
    return fd;
}
