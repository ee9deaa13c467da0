/* SPDX-License-Identifier: MIT */
/*
 * "stream": Ethernet frames over a stream socket, each after its length as 32 bits in network order.
 * One peer at a time; a peer that announces a frame no wire carries is disconnected. On the main loop.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/exit_file.h"
#include "base/fdset.h"
#include "base/log.h"
#include "base/sock.h"
#include "core/cmd.h"
#include "loop/co.h"
#include "net/net_int.h"

#define CONNECT_TIMEOUT_NS (30 * INT64_C(1000000000))
enum { HEADER = 4, READ_FRAMES = 64 };
enum addr_type { ADDR_INET, ADDR_UNIX, ADDR_FD };

struct stream_try;

struct stream {
    struct netdev nd;
    /* options */
    int type;
    char *host, *port, *path, *fd_text;
    bool server;
    uint32_t reconnect, reconnect_ms;
    /* state */
    struct sock_addr addr;
    int listen_fd, fd, last_errno;
    struct exit_file *file;             /* what we listen on has this name */
    struct loop_fd lw, cw;
    struct timer retry;
    struct stream_try *attempt;
    uint8_t *in;                        /* header and frame being read */
    uint32_t in_len;
    uint8_t *out;                       /* header and frame being written, @out_at..@out_len */
    uint32_t out_at, out_len;
    bool in_full;                       /* the guest has no room for the frame in @in */
};

/* ---- the connection ---- */

static void stream_watch(struct stream *s)
{
    if (s->fd >= 0)
        loop_fd_watch(&s->cw, (s->in_full ? 0 : LOOP_IN) | (s->out_len ? LOOP_OUT : 0));
}

static void stream_arm_retry(struct stream *s)
{
    if (s->reconnect_ms)
        timer_arm(&s->retry, clock_now(CLOCK_HOST) + (int64_t)s->reconnect_ms * 1000000);
}

static void stream_disconnect(struct stream *s)
{
    loop_fd_watch(&s->cw, 0);
    close(s->fd);
    s->fd = -1;
    s->in_len = s->out_len = 0;
    s->in_full = false;
    qmp_event("NETDEV_STREAM_DISCONNECTED", json_pack("{ss}", "netdev-id", s->nd.obj.id));
    if (s->listen_fd >= 0)
        loop_fd_watch(&s->lw, LOOP_IN);
    net_port_ready(s->nd.port);
    stream_arm_retry(s);
}

/* Passes the frame in @in on; false if there is no room yet. */
static bool stream_deliver(struct stream *s)
{
    struct iovec iov = { s->in + HEADER, s->in_len - HEADER };
    s->in_full = !net_send(s->nd.port, &iov, 1);
    if (!s->in_full)
        s->in_len = 0;
    return !s->in_full;
}

/* Reads up to the end of a frame; false when the socket has no more, or is gone. */
static bool stream_read_frame(struct stream *s)
{
    uint32_t want = s->in_len < HEADER ? HEADER : HEADER + ld_be32(s->in);
    ssize_t n = recv(s->fd, s->in + s->in_len, want - s->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        stream_disconnect(s);
        return false;
    }
    s->in_len += (uint32_t)n;
    if (s->in_len < HEADER)
        return true;
    uint32_t len = ld_be32(s->in);
    if (!len || len > NET_MAX_PACKET) {
        log_warn("netdev '%s': the peer announced a frame of %u bytes; disconnected", s->nd.obj.id, len);
        stream_disconnect(s);
        return false;
    }
    return s->in_len < HEADER + len || stream_deliver(s);
}

/* Writes what is left of the frame; false while the socket is full. */
static bool stream_flush(struct stream *s)
{
    while (s->out_len) {
        ssize_t n = send(s->fd, s->out + s->out_at, s->out_len - s->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        s->out_at += n > 0 ? (uint32_t)n : 0;
        if (n < 0 || s->out_at == s->out_len)   /* a peer that is gone shows when reading */
            s->out_len = 0;
    }
    return true;
}

static void stream_event(void *arg, unsigned ev)
{
    struct stream *s = arg;
    if ((ev & LOOP_OUT) && stream_flush(s))
        net_port_ready(s->nd.port);
    if (ev & (LOOP_IN | LOOP_ERR | LOOP_HUP))
        for (int i = 0; i < READ_FRAMES && s->fd >= 0 && !s->in_full && stream_read_frame(s); i++)
            ;
    stream_watch(s);
}

static void stream_connected(struct stream *s, int fd)
{
    int one = 1;
    char text[SOCK_TEXT];
    s->fd = fd;
    s->last_errno = 0;
    if (s->addr.any.sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    loop_fd_init(&s->cw, loop_main(), NULL, fd, stream_event, s);
    if (s->listen_fd >= 0)
        loop_fd_watch(&s->lw, 0);
    stream_watch(s);
    sock_format(&s->addr, text);
    qmp_event("NETDEV_STREAM_CONNECTED", json_pack("{sss{ssss}}", "netdev-id", s->nd.obj.id, "addr", "type",
              s->addr.any.sa_family == AF_UNIX ? "unix" : "inet", s->addr.any.sa_family == AF_UNIX ? "path" : "host", text));
}

static void stream_accept(void *arg, unsigned ev)
{
    struct stream *s = arg;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        stream_connected(s, fd);
}

/* ---- the guest's side ---- */

static bool stream_receive(void *arg, const uint8_t *pkt, size_t n)
{
    struct stream *s = arg;
    if (s->fd < 0)
        return true;                    /* no peer: lost */
    if (s->out_len)
        return false;                   /* the peer is slow; the port's queue holds what follows, and no more */
    st_be32(s->out, (uint32_t)n);
    memcpy(s->out + HEADER, pkt, n);
    s->out_at = 0;
    s->out_len = HEADER + (uint32_t)n;
    if (!stream_flush(s))
        stream_watch(s);
    return true;
}

/* The guest has room again for what the peer sent. */
static void stream_sent(void *arg)
{
    struct stream *s = arg;
    if (s->fd >= 0 && s->in_full && stream_deliver(s))
        stream_watch(s);
}

static const struct net_port_ops stream_ops = { .receive = stream_receive, .sent = stream_sent };

/* ---- opening ---- */

/* One attempt, with copies of what a worker thread needs: the back end may go away meanwhile. */
struct stream_try { struct stream *s; char *host, *port, *path; bool passive, ok; struct sock_addr addr; struct err e; int fd; };

static struct stream_try *try_new(struct stream *s)
{
    struct stream_try *t = xnew(struct stream_try);
    *t = (struct stream_try){ .s = s, .host = xstrdup(s->host), .port = xstrdup(s->port), .path = xstrdup(s->path),
                              .passive = s->server, .fd = -1 };
    return t;
}

static void try_free(struct stream_try *t)
{
    free(t->host);
    free(t->port);
    free(t->path);
    free(t);
}

static int try_resolve(void *arg)
{
    struct stream_try *t = arg;
    t->ok = sock_resolve(&t->addr, t->host, t->port, AF_UNSPEC, SOCK_STREAM, t->passive, &t->e);
    return 0;
}

/* Finds the address; then listens or connects. */
static void co_try(void *arg)
{
    struct stream_try *t = arg;
    char text[SOCK_TEXT];
    bool pending = false;
    if (t->path)
        t->ok = sock_unix(&t->addr, t->path, false, true, &t->e);
    else
        co_offload(try_resolve, t);
    if (!t->ok)
        return;
    t->fd = t->passive ? sock_listen(&t->addr, 1, &t->e) : sock_connect_start(&t->addr, SOCK_STREAM, &pending, &t->e);
    t->ok = t->fd >= 0;
    if (!t->ok || !pending)
        return;
    int r = co_fd(t->fd, LOOP_OUT, clock_now(CLOCK_HOST) + CONNECT_TIMEOUT_NS);
    r = r < 0 ? -r : sock_connect_finish(t->fd);
    if (!r)
        return;
    close(t->fd);
    t->fd = -1;
    t->ok = err_os(&t->e, r, "cannot connect to %s", sock_format(&t->addr, text));
}

static void co_retry(void *arg)
{
    struct stream_try *t = arg;
    co_try(t);
    struct stream *s = t->s;
    if (!s) {
        if (t->fd >= 0)
            close(t->fd);
    } else {
        s->attempt = NULL;
        if (t->ok) {
            s->addr = t->addr;
            stream_connected(s, t->fd);
        } else {
            if (t->e.os_errno != s->last_errno)
                log_warn("netdev '%s': %s; trying again every %u ms", s->nd.obj.id, t->e.msg, s->reconnect_ms);
            s->last_errno = t->e.os_errno;
            stream_arm_retry(s);
        }
    }
    try_free(t);
}

static void stream_retry(void *arg)
{
    struct stream *s = arg;
    if (s->attempt || s->fd >= 0)
        return;
    s->attempt = try_new(s);
    co_spawn(loop_main(), NULL, co_retry, s->attempt);
}

static bool stream_adopt(struct stream *s, struct err *e)
{
    int v = fd_take(s->fd_text, e);
    if (v < 0)
        return false;
    if (!sock_local(v, &s->addr))
        return err_os(e, errno, "fd %d is not a socket", v);
    stream_connected(s, v);
    return true;
}

static bool stream_open(struct netdev *nd, struct err *e)
{
    struct stream *s = (struct stream *)nd;
    nd->port = net_port_new(&nd->obj, NULL, &stream_ops, s);
    s->in = xcalloc(1, HEADER + NET_MAX_PACKET);
    s->out = xcalloc(1, HEADER + NET_MAX_PACKET);
    timer_init(&s->retry, CLOCK_HOST, loop_main(), NULL, stream_retry, s);
    if (s->fd_text)
        return stream_adopt(s, e);
    if (s->reconnect_ms) {
        stream_retry(s);
        return true;
    }
    struct stream_try *t = try_new(s);
    net_co_call(co_try, t);
    bool ok = t->ok;
    if (!ok) {
        *e = t->e;
    } else {
        s->addr = t->addr;
        if (s->server) {
            s->listen_fd = t->fd;
            s->file = s->path ? exit_file_new(s->path) : NULL;
            if (s->addr.any.sa_family != AF_UNIX)
                sock_local(t->fd, &s->addr);
            loop_fd_init(&s->lw, loop_main(), NULL, t->fd, stream_accept, s);
            loop_fd_watch(&s->lw, LOOP_IN);
        } else {
            stream_connected(s, t->fd);
        }
    }
    try_free(t);
    return ok;
}

static void stream_close(struct netdev *nd)
{
    struct stream *s = (struct stream *)nd;
    if (s->attempt)
        s->attempt->s = NULL;
    if (s->retry.loop)
        timer_fini(&s->retry);
    if (s->listen_fd >= 0) {
        loop_fd_watch(&s->lw, 0);
        close(s->listen_fd);
        exit_file_remove(s->file);
    }
    if (s->fd >= 0) {
        loop_fd_watch(&s->cw, 0);
        close(s->fd);
    }
    free(s->in);
    free(s->out);
}

static void stream_info(const struct netdev *nd, struct str *out)
{
    const struct stream *s = (const struct stream *)nd;
    char text[SOCK_TEXT];
    if (s->addr.len)
        str_printf(out, "%s%s", s->fd >= 0 ? "connected:" : s->listen_fd >= 0 ? "listening:" : "disconnected:", sock_format(&s->addr, text));
    else
        str_add(out, "disconnected");
}

/* ---- options ---- */

static bool stream_init(struct obj *o, struct err *e)
{
    struct stream *s = (struct stream *)o;
    s->fd = s->listen_fd = -1;
    return true;
}

static bool stream_check(struct obj *o, struct err *e)
{
    struct stream *s = (struct stream *)o;
    bool has[] = { [ADDR_INET] = s->port && !s->path && !s->fd_text, [ADDR_UNIX] = s->path && !s->port && !s->host && !s->fd_text,
                   [ADDR_FD] = s->fd_text && !s->port && !s->host && !s->path };
    if (!has[s->type]) {
        err_set(e, ERR_VALUE, "the address does not fit addr.type");
        return err_hint(e, "write addr.type=inet,addr.host=H,addr.port=P, addr.type=unix,addr.path=FILE or addr.type=fd,addr.str=N");
    }
    if (s->reconnect && s->reconnect_ms)
        return err_set(e, ERR_VALUE, "only one of reconnect and reconnect-ms may be given");
    if (s->reconnect)
        s->reconnect_ms = s->reconnect * 1000;
    if (s->reconnect_ms && (s->server || s->fd_text))
        return err_set(e, ERR_VALUE, "reconnect has no effect with %s", s->server ? "server=on" : "a given socket");
    return !(s->server && s->fd_text) || err_set(e, ERR_VALUE, "server has no effect with a given socket");
}

static const char *const addr_types[] = { "inet", "unix", "fd", NULL };

static const struct prop stream_props[] = {
    PROP_ENUM(struct stream, type, "addr.type", addr_types, ADDR_INET, "Kind of address"),
    PROP_STR(struct stream, host, "addr.host", 0, "inet: host name or address"),
    PROP_STR(struct stream, port, "addr.port", 0, "inet: port; 0 lets the system choose (see info network)"),
    PROP_STR(struct stream, path, "addr.path", 0, "unix: its file"),
    PROP_STR(struct stream, fd_text, "addr.str", 0, "fd: number of a connected socket that was inherited"),
    PROP_BOOL(struct stream, server, "server", false, "Listen instead of connecting"),
    PROP_U32(struct stream, reconnect, "reconnect", 0, 0, 1000000, "Client: seconds between attempts; 0 never tries again"),
    PROP_U32(struct stream, reconnect_ms, "reconnect-ms", 0, 0, 1000000000, "Client: the same in milliseconds"),
    PROP_END
};

static const struct netdev_class stream_class = {
    .obj = { .name = "netdev-stream", .desc = "Frames over a stream socket, to another machine or switch", .base = &netdev_class,
             .size = sizeof(struct stream), .props = stream_props, .init = stream_init, .check = stream_check },
    .open = stream_open, .close = stream_close, .info = stream_info,
};
OBJ_CLASS(&stream_class.obj);

static const struct qmp_event_def events[] = {
    { "NETDEV_STREAM_CONNECTED", "A stream network back end has a peer", false },
    { "NETDEV_STREAM_DISCONNECTED", "A stream network back end lost its peer", false },
};
QMP_EVENT(&events[0]);
QMP_EVENT(&events[1]);
