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
#include "base/log.h"
#include "core/cmd.h"
#include "loop/redial.h"
#include "loop/co.h"
#include "net/net_int.h"

enum { HEADER = 4, READ_FRAMES = 64 };

struct stream {
    struct netdev nd;
    /* options */
    struct sock_place place;
    bool server;
    uint32_t reconnect, reconnect_ms;
    /* state */
    struct sock_addr addr;              /* where we listen, or connected to */
    int listen_fd, fd;
    struct exit_file *file;             /* what we listen on has this name */
    struct loop_fd lw, cw;
    struct redial redial;
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
    redial_again(&s->redial);
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

static void stream_connected(void *arg, int fd, const struct sock_addr *at)
{
    struct stream *s = arg;
    struct sock_addr peer;
    int one = 1;
    s->fd = fd;
    s->addr = *at;
    if (at->any.sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    loop_fd_init(&s->cw, loop_main(), NULL, fd, stream_event, s);
    if (s->listen_fd >= 0)
        loop_fd_watch(&s->lw, 0);
    stream_watch(s);
    bool told = at->any.sa_family != AF_UNIX && sock_peer(fd, &peer);   /* a unix client has no name: ours stands for it */
    qmp_event("NETDEV_STREAM_CONNECTED", json_pack("{ssso}", "netdev-id", s->nd.obj.id, "addr", sock_to_json(told ? &peer : at)));
}

static void stream_accept(void *arg, unsigned ev)
{
    struct stream *s = arg;
    int fd = sock_accept_one(&s->place, s->listen_fd);
    if (fd >= 0)
        stream_connected(s, fd, &s->addr);
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

struct opening { struct stream *s; int fd; struct sock_addr at; struct err *e; };

static void co_open(void *arg)
{
    struct opening *o = arg;
    o->fd = o->s->server ? co_sock_listen(&o->s->place, 1, &o->at, &o->s->file, o->e) : co_sock_connect(&o->s->place, &o->at, o->e);
}

static void stream_listen(struct stream *s, int fd, const struct sock_addr *at)
{
    s->listen_fd = fd;
    s->addr = *at;
    loop_fd_init(&s->lw, loop_main(), NULL, fd, stream_accept, s);
    loop_fd_watch(&s->lw, LOOP_IN);
}

static bool stream_open(struct netdev *nd, struct err *e)
{
    struct stream *s = (struct stream *)nd;
    struct opening o = { .s = s, .fd = -1, .e = e };
    nd->port = net_port_new(&nd->obj, &stream_ops, s);
    s->in = xcalloc(1, HEADER + NET_MAX_PACKET);
    s->out = xcalloc(1, HEADER + NET_MAX_PACKET);
    s->redial = (struct redial){ .place = &s->place, .ms = s->reconnect_ms, .kind = "netdev", .id = nd->obj.id, .connected = stream_connected,
                                 .arg = s };
    if (s->reconnect_ms) {
        redial_start(&s->redial);
        return true;
    }
    co_call(co_open, &o);
    if (o.fd < 0)
        return false;
    if (s->server)
        stream_listen(s, o.fd, &o.at);
    else
        stream_connected(s, o.fd, &o.at);
    return true;
}

static void stream_close(struct netdev *nd)
{
    struct stream *s = (struct stream *)nd;
    redial_stop(&s->redial);
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
    if (!sock_place_check(&s->place, s->server, "addr.", e))
        return false;
    if (s->reconnect && s->reconnect_ms)
        return err_set(e, ERR_VALUE, "only one of reconnect and reconnect-ms may be given");
    if (s->reconnect)
        s->reconnect_ms = s->reconnect * 1000;
    return !s->reconnect_ms || (!s->server && s->place.kind != SOCK_FD) ||
           err_set(e, ERR_VALUE, "reconnect has no effect with %s", s->server ? "server=on" : "a given socket");
}

static const struct prop stream_props[] = {
    SOCK_STREAM_ROWS(struct stream, place., "addr."),
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
    { "NETDEV_STREAM_CONNECTED", "A stream network back end has a peer", .says = "{netdev-id:str, addr:any}" },
    { "NETDEV_STREAM_DISCONNECTED", "A stream network back end lost its peer", .says = "{netdev-id:str}" },
};
QMP_EVENT(&events[0]);
QMP_EVENT(&events[1]);
