/* SPDX-License-Identifier: MIT */
/* "udp": each write is a datagram to one peer; what comes from it is input. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/sock.h"
#include "chardev/chr_int.h"
#include "loop/co.h"

enum { DATAGRAM_MAX = 65536 };

struct chr_udp {
    struct chr chr;
    char *host, *port, *localaddr, *localport;
    bool ipv4, ipv6;
    int fd;
    struct loop_fd lf;
    uint8_t *buf;                       /* a datagram, of which @at..@len is not passed on yet */
    size_t at, len;
};

/* Passes on what is buffered; true when all of it went. */
static bool udp_flush(struct chr_udp *s)
{
    while (s->at < s->len) {
        size_t n = MIN(chr_rx_room(&s->chr), s->len - s->at);
        if (!n)
            return false;
        chr_rx(&s->chr, s->buf + s->at, n);
        s->at += n;
    }
    return true;
}

static void udp_event(void *arg, unsigned ev)
{
    struct chr_udp *s = arg;
    if (ev & LOOP_OUT)
        chr_tx_ready(&s->chr);
    if (udp_flush(s)) {
        ssize_t n = recv(s->fd, s->buf, DATAGRAM_MAX, MSG_DONTWAIT);    /* an ICMP error of the peer ends here */
        s->at = 0;
        s->len = n > 0 ? (size_t)n : 0;
    }
    loop_fd_watch(&s->lf, udp_flush(s) && chr_rx_room(&s->chr) ? LOOP_IN : 0);
}

static void udp_resume(struct chr *c)
{
    struct chr_udp *s = (struct chr_udp *)c;
    if (s->fd >= 0 && udp_flush(s) && chr_rx_room(c))
        loop_fd_watch(&s->lf, LOOP_IN);
}

static ssize_t udp_write(struct chr *c, const uint8_t *buf, size_t n)
{
    struct chr_udp *s = (struct chr_udp *)c;
    size_t len = MIN(n, (size_t)1400);
    ssize_t r = send(s->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return r < 0 ? (ssize_t)len : r;    /* nobody there, or no room: lost, as datagrams are */
}

struct udp_open { struct chr_udp *s; struct err *e; struct sock_addr remote, local; bool ok; };

static int udp_resolve(void *arg)
{
    struct udp_open *o = arg;
    struct chr_udp *s = o->s;
    int family = s->ipv4 == s->ipv6 ? AF_UNSPEC : s->ipv4 ? AF_INET : AF_INET6;
    o->ok = sock_resolve(&o->remote, s->host, s->port, family, SOCK_DGRAM, false, o->e) &&
            sock_resolve(&o->local, s->localaddr, s->localport ? s->localport : "0", o->remote.any.sa_family, SOCK_DGRAM, true, o->e);
    return 0;
}

static void co_udp_resolve(void *arg) { co_offload(udp_resolve, arg); }

static bool udp_open(struct chr *c, struct err *e)
{
    struct chr_udp *s = (struct chr_udp *)c;
    struct udp_open o = { .s = s, .e = e };
    char text[SOCK_TEXT];
    co_call(co_udp_resolve, &o);
    if (!o.ok)
        return false;
    s->fd = sock_bind_dgram(&o.local, false, NULL, e);
    if (s->fd < 0)
        return false;
    if (connect(s->fd, &o.remote.any, o.remote.len) < 0)
        return err_os(e, errno, "cannot reach %s", sock_format(&o.remote, text));
    s->buf = xcalloc(1, DATAGRAM_MAX);
    loop_fd_init(&s->lf, loop_main(), NULL, s->fd, udp_event, s);
    chr_set_open(c, true);
    return true;
}

static void udp_close(struct chr *c)
{
    struct chr_udp *s = (struct chr_udp *)c;
    if (s->lf.loop)
        loop_fd_watch(&s->lf, 0);
    if (s->fd >= 0)
        close(s->fd);
    free(s->buf);
}

static void udp_filename(const struct chr *c, struct str *out)
{
    struct sock_addr a, b;
    char at[SOCK_TEXT], bt[SOCK_TEXT];
    const struct chr_udp *s = (const struct chr_udp *)c;
    if (sock_local(s->fd, &a) && sock_peer(s->fd, &b))
        str_printf(out, "udp:%s <-> %s", sock_format(&a, at), sock_format(&b, bt));
    else
        str_add(out, "udp");
}

static bool udp_init(struct obj *o, struct err *e)
{
    ((struct chr_udp *)o)->fd = -1;
    return true;
}

static const struct prop udp_props[] = {
    PROP_STR_DEF(struct chr_udp, host, "host", "localhost", "Host that datagrams go to"),
    PROP_STR(struct chr_udp, port, "port", PF_REQUIRED | PF_PORT, "Its port"),
    PROP_STR(struct chr_udp, localaddr, "localaddr", 0, "Address to receive at; any if not given"),
    PROP_STR(struct chr_udp, localport, "localport", PF_PORT, "Port to receive at; the system chooses if not given (see query-chardev)"),
    PROP_BOOL(struct chr_udp, ipv4, "ipv4", false, "Use IPv4 only"),
    PROP_BOOL(struct chr_udp, ipv6, "ipv6", false, "Use IPv6 only"),
    PROP_END
};

static const struct chr_class udp_class = {
    .obj = { .name = "chardev-udp", .desc = "Datagrams to and from one peer", .base = &chr_class,
             .size = sizeof(struct chr_udp), .props = udp_props, .init = udp_init },
    .open = udp_open, .close = udp_close, .write = udp_write, .rx_resume = udp_resume, .filename = udp_filename,
};
OBJ_CLASS(&udp_class.obj);
