/* SPDX-License-Identifier: MIT */
/* "socket": the older way to write "stream" (listen=, connect=) and "dgram" (udp=, mcast=). Main loop. */
#include "base/sock.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "net/net_int.h"

struct socket_opts { struct netdev nd; /* as the class has it; never made */ char *listen, *connect, *fd, *udp, *mcast, *localaddr; };

static const struct prop socket_props[] = {
    PROP_STR(struct socket_opts, listen, "listen", 0, "[HOST]:PORT to listen at for a stream"),
    PROP_STR(struct socket_opts, connect, "connect", 0, "HOST:PORT to connect a stream to"),
    PROP_STR(struct socket_opts, udp, "udp", 0, "HOST:PORT to send datagrams to; with localaddr"),
    PROP_STR(struct socket_opts, mcast, "mcast", 0, "GROUP:PORT of a multicast group"),
    PROP_STR(struct socket_opts, localaddr, "localaddr", 0, "udp: [HOST]:PORT to receive at; mcast: address of the interface"),
    PROP_STR(struct socket_opts, fd, "fd", 0, "Number of a connected socket that was inherited"),
    PROP_END
};

/* Adds "PREFIX.type": "inet" and host and port of @text. */
static bool add_inet(json_t *o, const char *prefix, const char *text, struct err *e)
{
    char *host = NULL, *port = NULL;
    if (!sock_split(text, &host, &port, e))
        return false;
    json_t *a = json_pack("{ssssss}", "type", "inet", "host", host, "port", port);
    json_object_set_new(o, prefix, a);
    free(host);
    free(port);
    return true;
}

static json_t *expand_fd(const struct socket_opts *s)
{
    uint64_t v;
    int type = SOCK_STREAM;
    socklen_t n = sizeof type;
    if (parse_u64(s->fd, &v) && v <= INT32_MAX)
        getsockopt((int)v, SOL_SOCKET, SO_TYPE, &type, &n);
    return type == SOCK_DGRAM ? json_pack("{sss{ssss}}", "type", "dgram", "local", "type", "fd", "str", s->fd)
                              : json_pack("{sss{ssss}}", "type", "stream", "addr", "type", "fd", "str", s->fd);
}

static json_t *expand_opts(const struct socket_opts *s, struct err *e)
{
    json_t *o = NULL;
    bool ok = true;
    int given = !!s->listen + !!s->connect + !!s->fd + !!s->udp + !!s->mcast;
    if (given != 1) {
        err_set(e, ERR_VALUE, "exactly one of listen, connect, udp, mcast and fd must be given");
        return NULL;
    }
    if (s->localaddr ? !s->udp && !s->mcast : s->udp != NULL) {
        err_set(e, ERR_VALUE, s->udp ? "udp needs localaddr=[HOST]:PORT, to receive at" : "localaddr has an effect only with udp and mcast");
        return NULL;
    }
    if (s->fd)
        return expand_fd(s);
    if (s->udp || s->mcast) {
        o = json_pack("{ss}", "type", "dgram");
        ok = add_inet(o, "remote", s->udp ? s->udp : s->mcast, e) && (!s->udp || add_inet(o, "local", s->localaddr, e));
        if (s->mcast && s->localaddr)
            json_object_set_new(o, "local", json_pack("{ssss}", "type", "inet", "host", s->localaddr));
    } else {
        o = json_pack("{sssb}", "type", "stream", "server", s->listen != NULL);
        ok = add_inet(o, "addr", s->listen ? s->listen : s->connect, e);
    }
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static json_t *socket_expand(json_t *opts, struct err *e)
{
    struct socket_opts s = { 0 };
    json_t *o = prop_set_all(socket_props, &s, NULL, opts, "netdev 'socket'", e) ? expand_opts(&s, e) : NULL;
    prop_release(socket_props, &s);
    return o;
}

static const struct netdev_class socket_class = {
    .obj = { .name = "netdev-socket", .desc = "Older form of stream (listen=, connect=) and dgram (udp=, mcast=)", .base = &netdev_class,
             .size = sizeof(struct socket_opts), .props = socket_props },
    .expand = socket_expand,
};
OBJ_CLASS(&socket_class.obj);
