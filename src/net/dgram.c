/* SPDX-License-Identifier: MIT */
/*
 * "dgram": one Ethernet frame per datagram: to one other machine over UDP or unix sockets, or to a multicast group, where what
 * this machine sent itself is left out. Datagrams that nobody takes are lost, as on a wire. On the main loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fdset.h"
#include "loop/co.h"
#include "loop/sock_place.h"
#include "net/frame_fd.h"
#include "net/net_int.h"

struct dgram {
    struct netdev nd;
    struct sock_place local, remote;    /* options */
    struct sock_addr to;                /* len 0: the socket is connected */
    struct sock_addr own;               /* multicast: where our own datagrams come from */
    int fd, tx_fd;                      /* tx_fd: the same, but for multicast */
    struct exit_file *file;             /* the name of our unix socket */
    struct frame_fd frames;
};

/* ---- packets ---- */

static bool addr_eq(const struct sock_addr *a, const struct sock_addr *b)
{
    if (!a->len || a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    return a->any.sa_family == AF_INET6 && a->in6.sin6_port == b->in6.sin6_port &&
           !memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr);
}

static ssize_t dgram_read(void *arg, uint8_t *buf, size_t max)
{
    struct dgram *d = arg;
    struct sock_addr from = { .len = sizeof(struct sockaddr_un) };
    ssize_t n = recvfrom(d->fd, buf, max, MSG_DONTWAIT, &from.any, &from.len);
    return n > 0 && addr_eq(&d->own, &from) ? 0 : n;
}

static bool dgram_receive(void *arg, const uint8_t *pkt, size_t n)
{
    struct dgram *d = arg;
    bool sent = sendto(d->tx_fd, pkt, n, MSG_DONTWAIT | MSG_NOSIGNAL, d->to.len ? &d->to.any : NULL, d->to.len) >= 0;
    if (sent || errno != EAGAIN || d->tx_fd != d->fd)
        return true;                    /* what could not be sent is lost */
    frame_fd_full(&d->frames);
    return false;
}

static void dgram_sent(void *arg) { frame_fd_room(&((struct dgram *)arg)->frames); }

static const struct net_port_ops dgram_ops = { .receive = dgram_receive, .sent = dgram_sent };

/* ---- opening ---- */

struct dgram_resolve { struct dgram *d; struct sock_addr local, remote; bool ok; struct err *e; };

static bool co_one(const struct sock_place *p, int family, bool passive, struct sock_addr *out, struct err *e)
{
    return !sock_place_given(p) || p->kind == SOCK_FD || co_sock_resolve(p, family, SOCK_DGRAM, passive, out, e);
}

static void co_resolve(void *arg)
{
    struct dgram_resolve *r = arg;
    r->ok = co_one(&r->d->remote, AF_UNSPEC, false, &r->remote, r->e) &&
            co_one(&r->d->local, r->remote.len && r->remote.any.sa_family != AF_UNIX ? r->remote.any.sa_family : AF_UNSPEC, true, &r->local, r->e);
}

static bool is_multicast(const struct sock_addr *a)
{
    if (!a->len)
        return false;
    return (a->any.sa_family == AF_INET && IN_MULTICAST(ntohl(a->in.sin_addr.s_addr))) ||
           (a->any.sa_family == AF_INET6 && IN6_IS_ADDR_MULTICAST(&a->in6.sin6_addr));
}

/* Joins the group @to on the interface whose address is @local; frames come in at @fd, go out at @tx_fd. */
static bool open_multicast(struct dgram *d, const struct sock_addr *local, struct err *e)
{
    char text[SOCK_TEXT];
    struct ip_mreq mreq = { .imr_multiaddr = d->to.in.sin_addr };
    if (d->to.any.sa_family != AF_INET) {
        err_set(e, ERR_VALUE, "multicast works with IPv4 groups only");
        return err_hint(e, "choose a group in 239.0.0.0/8");
    }
    if (local->len)
        mreq.imr_interface = local->in.sin_addr;
    if (d->fd < 0)
        d->fd = sock_bind_dgram(&d->to, true, NULL, e);
    if (d->fd < 0)
        return false;
    if (setsockopt(d->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &mreq, sizeof mreq) < 0) {
        err_os(e, errno, "cannot join the multicast group %s", sock_format(&d->to, text));
        return local->len ? true : err_hint(e, "no route to it? name the interface by its address: local.type=inet,local.host=127.0.0.1");
    }
    d->tx_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (d->tx_fd < 0)
        return err_os(e, errno, "cannot make a socket");
    if (local->len && setsockopt(d->tx_fd, IPPROTO_IP, IP_MULTICAST_IF, &mreq.imr_interface, sizeof mreq.imr_interface) < 0)
        return err_os(e, errno, "cannot send multicast from %s", sock_format(local, text));
    if (connect(d->tx_fd, &d->to.any, d->to.len) < 0)
        return err_os(e, errno, "cannot reach the multicast group %s", sock_format(&d->to, text));
    d->to.len = 0;                      /* connected */
    sock_local(d->tx_fd, &d->own);
    return true;
}

static bool adopt_fd(struct dgram *d, struct err *e)
{
    int type = 0;
    socklen_t n = sizeof type;
    struct sock_addr a;
    int v = fd_take(d->local.fd, e);
    if (v < 0)
        return false;
    if (getsockopt(v, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
        return err_os(e, errno, "fd %d is not a socket", v);
    if (type != SOCK_DGRAM)
        return err_set(e, ERR_VALUE, "fd %d is not a datagram socket", v);
    if (!d->to.len && !sock_peer(v, &a)) {
        err_set(e, ERR_VALUE, "fd %d is not connected to anybody", v);
        return err_hint(e, "connect it before, or give remote.type=inet,remote.host=GROUP,remote.port=P for a multicast group");
    }
    d->fd = v;
    return true;
}

static bool dgram_sockets(struct dgram *d, const struct sock_addr *local, struct err *e)
{
    if (d->local.fd && !adopt_fd(d, e))
        return false;
    if (is_multicast(&d->to))
        return open_multicast(d, local, e);
    if (d->fd < 0)
        d->fd = sock_bind_dgram(local, false, &d->file, e);
    d->tx_fd = d->fd;
    return d->fd >= 0;
}

static bool dgram_open(struct netdev *nd, struct err *e)
{
    struct dgram *d = (struct dgram *)nd;
    struct dgram_resolve r = { .d = d, .e = e };
    co_call(co_resolve, &r);
    if (!r.ok)
        return false;
    d->to = r.remote;
    if (is_multicast(&d->to) ? d->local.port && !str_eq(d->local.port, "0") : (d->remote.port || d->remote.path) && !sock_place_given(&d->local)) {
        err_set(e, ERR_VALUE, is_multicast(&d->to) ? "local.port has no effect with a multicast group: the group's port is used"
                                            : "local.* is missing: a peer needs an address to answer to");
        return err_hint(e, is_multicast(&d->to) ? "leave it out" : "write local.type=inet,local.host=H,local.port=P or local.type=unix,local.path=FILE");
    }
    nd->port = net_port_new(&nd->obj, &dgram_ops, d);
    if (!dgram_sockets(d, &r.local, e))
        return false;
    frame_fd_start(&d->frames, nd->port, d->fd, dgram_read, d);
    return true;
}

static void dgram_close(struct netdev *nd)
{
    struct dgram *d = (struct dgram *)nd;
    frame_fd_stop(&d->frames);
    if (d->tx_fd >= 0 && d->tx_fd != d->fd)
        close(d->tx_fd);
    if (d->fd >= 0)
        close(d->fd);
    exit_file_remove(d->file);
}

static void dgram_info(const struct netdev *nd, struct str *out)
{
    const struct dgram *d = (const struct dgram *)nd;
    char a[SOCK_TEXT], b[SOCK_TEXT];
    struct sock_addr at, to = d->to;
    if (d->own.len && sock_peer(d->tx_fd, &to))
        str_printf(out, "multicast:%s", sock_format(&to, a));
    else if (sock_local(d->fd, &at) && (to.len || sock_peer(d->fd, &to)))
        str_printf(out, "local:%s,remote:%s", sock_format(&at, a), sock_format(&to, b));
}

/* ---- options ---- */

static bool dgram_init(struct obj *o, struct err *e)
{
    struct dgram *d = (struct dgram *)o;
    d->fd = d->tx_fd = -1;
    return true;
}

static bool dgram_check(struct obj *o, struct err *e)
{
    struct dgram *d = (struct dgram *)o;
    bool local = sock_place_given(&d->local), remote = sock_place_given(&d->remote);
    if (!remote && !d->local.fd) {
        err_set(e, ERR_VALUE, "the peer's address is missing");
        return err_hint(e, "write remote.type=inet,remote.host=H,remote.port=P or remote.type=unix,remote.path=FILE");
    }
    if (d->remote.kind == SOCK_FD) {
        err_set(e, ERR_VALUE, "remote.type=fd: a peer has an address");
        return err_hint(e, "local.type=fd,local.str=N is a connected socket, which needs no remote");
    }
    if (local && d->local.kind == SOCK_INET && !d->local.port)
        d->local.port = xstrdup("0");
    if ((remote && !sock_place_check(&d->remote, false, "remote.", e)) || (local && !sock_place_check(&d->local, true, "local.", e)))
        return false;
    return !remote || !local || d->local.kind == SOCK_FD || d->local.kind == d->remote.kind ||
           err_set(e, ERR_VALUE, "local.type and remote.type differ");
}

static const struct prop dgram_props[] = {
    SOCK_PLACE_ROWS(struct dgram, local., "local."),
    SOCK_PLACE_ROWS(struct dgram, remote., "remote."),
    PROP_END
};

static const struct netdev_class dgram_class = {
    .obj = { .name = "netdev-dgram", .desc = "A frame per datagram, over UDP, unix sockets or multicast", .base = &netdev_class,
             .size = sizeof(struct dgram), .props = dgram_props, .init = dgram_init, .check = dgram_check },
    .open = dgram_open, .close = dgram_close, .info = dgram_info,
};
OBJ_CLASS(&dgram_class.obj);
