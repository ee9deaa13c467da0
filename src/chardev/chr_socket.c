/* SPDX-License-Identifier: MIT */
/* "socket": a stream socket, unix or TCP, as server or client; with telnet, reconnect, and file descriptors passed along. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/exit_file.h"
#include "base/fdset.h"
#include "base/log.h"
#include "base/sock.h"
#include "chardev/chr_int.h"
#include "chardev/chr_telnet.h"
#include "crypto/tls.h"
#include "loop/co.h"

enum { READ_CHUNK = 4096, MAX_FDS = 16 };
#define CONNECT_TIMEOUT_NS (30 * INT64_C(1000000000))

struct sock_try;

struct chr_socket {
    struct chr chr;
    /* options */
    char *host, *port, *path, *tls_creds, *fd_text;
    bool abstract, server, telnet, websocket, tn3270;
    int tight, wait, nodelay, delay, ipv4, ipv6;
    uint32_t to, reconnect, reconnect_ms;
    /* state */
    struct sock_addr addr;              /* where we listen, or connected to */
    int listen_fd, fd;
    struct exit_file *file;             /* what we listen on has this name */
    struct loop_fd lw, cw;              /* watching listen_fd, fd */
    unsigned tx_mask;                   /* LOOP_OUT while the socket is full */
    struct sock_try *attempt;           /* running in the background */
    bool iac_half;                      /* the first half of an escaped 0xff is sent */
    int last_errno;                     /* of reconnect attempts; said once */
    struct timer retry;
    struct telnet tn;
    int fds[MAX_FDS];
    unsigned n_fds;
    struct obj *creds;                  /* of tls_creds */
    struct tls *tls;                    /* of this connection, NULL: none */
    bool shaking;                       /* its handshake goes on: the chardev is not open yet */
    struct co_event settled;            /* no handshake goes on */
    struct post more;                   /* decrypted bytes wait for room */
};

/* Bytes that were sent, or -errno. */
static ssize_t sock_put(struct chr_socket *s, const uint8_t *buf, size_t n)
{
    if (s->tls)
        return tls_write(s->tls, buf, n);
    ssize_t r = send(s->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return r < 0 ? -errno : r;
}

/* ---- a connection's life ---- */

static void sock_update_watch(struct chr_socket *s)
{
    if (s->shaking) {
        loop_fd_watch(&s->cw, tls_wants(s->tls));
        return;
    }
    unsigned in = chr_rx_room(&s->chr) ? LOOP_IN : chr_has_reader(&s->chr) ? 0 : LOOP_HUP;
    loop_fd_watch(&s->cw, in | s->tx_mask);
}

static void sock_drop_fds(struct chr_socket *s)
{
    while (s->n_fds)
        close(s->fds[--s->n_fds]);
}

static void sock_arm_retry(struct chr_socket *s)
{
    if (s->reconnect_ms)
        timer_arm(&s->retry, clock_now(CLOCK_HOST) + (int64_t)s->reconnect_ms * 1000000);
}

static void sock_disconnect(struct chr_socket *s)
{
    if (s->fd < 0)
        return;
    loop_fd_watch(&s->cw, 0);
    if (s->tls && !s->shaking)
        tls_bye(s->tls);
    tls_free(s->tls);
    s->tls = NULL;
    s->shaking = false;
    close(s->fd);
    s->fd = -1;
    co_wake(&s->settled);
    sock_drop_fds(s);
    chr_set_open(&s->chr, false);
    if (s->listen_fd >= 0)
        loop_fd_watch(&s->lw, LOOP_IN);
    sock_arm_retry(s);
}

/* recvmsg, keeping the descriptors that came along. */
static ssize_t sock_recv(struct chr_socket *s, uint8_t *buf, size_t n)
{
    union { struct cmsghdr h; char space[CMSG_SPACE(sizeof(int) * MAX_FDS)]; } ctl;
    struct iovec iov = { buf, n };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof ctl };
    if (s->tls) {
        ssize_t k = tls_read(s->tls, buf, n);
        errno = k < 0 ? (int)-k : 0;
        return k < 0 ? -1 : k;
    }
    ssize_t r = recvmsg(s->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (r < 0)
        return r;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (s->n_fds < MAX_FDS)
                s->fds[s->n_fds++] = fd;
            else
                close(fd);
        }
    }
    return r;
}

static void sock_read(struct chr_socket *s)
{
    uint8_t buf[READ_CHUNK];
    unsigned breaks = 0;
    size_t room = chr_rx_room(&s->chr);
    if (!room)
        return;
    ssize_t n = sock_recv(s, buf, MIN(room, sizeof buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        sock_disconnect(s);
        return;
    }
    size_t len = (size_t)n;
    if (s->telnet)
        len = telnet_strip(&s->tn, buf, len, &breaks);
    if (len)
        chr_rx(&s->chr, buf, len);
    while (breaks--)
        chr_push_event(&s->chr, CHR_BREAK);
    if (s->tls && tls_pending(s->tls) && chr_rx_room(&s->chr))
        loop_post(loop_main(), &s->more);       /* no event of the socket tells of it */
}

static void sock_read_more(void *arg)
{
    struct chr_socket *s = arg;
    if (s->fd < 0 || s->shaking)
        return;
    sock_read(s);
    if (s->fd >= 0)
        sock_update_watch(s);
}

static void sock_opened(struct chr_socket *s);

static void sock_shake(struct chr_socket *s)
{
    struct err e = ERR_INIT;
    int r = tls_handshake(s->tls, &e);
    if (r == -EAGAIN)
        return;
    if (r) {
        log_warn("chardev '%s': %s", s->chr.obj.id, e.msg);
        sock_disconnect(s);
        return;
    }
    s->shaking = false;
    sock_opened(s);
    co_wake(&s->settled);
    if (s->fd >= 0 && tls_pending(s->tls))
        loop_post(loop_main(), &s->more);
}

static void sock_event(void *arg, unsigned ev)
{
    struct chr_socket *s = arg;
    if (s->shaking) {
        sock_shake(s);
        if (s->fd >= 0)
            sock_update_watch(s);
        return;
    }
    if (ev & LOOP_OUT) {
        s->tx_mask = 0;
        chr_tx_ready(&s->chr);
    }
    if (s->fd >= 0 && (ev & (LOOP_IN | LOOP_HUP | LOOP_ERR))) {
        if (!chr_has_reader(&s->chr) && (ev & (LOOP_HUP | LOOP_ERR)))
            sock_disconnect(s);
        else
            sock_read(s);
    }
    if (s->fd >= 0)
        sock_update_watch(s);
}

/* The connection is there, and private where that was asked for. */
static void sock_opened(struct chr_socket *s)
{
    if (s->telnet && sock_put(s, telnet_hello, sizeof telnet_hello) < 0)
        s->tn.state = 0;                        /* a peer that is gone already shows on the first read */
    chr_set_open(&s->chr, true);
}

static void sock_connected(struct chr_socket *s, int fd)
{
    struct err e = ERR_INIT;
    int one = 1;
    s->fd = fd;
    s->tx_mask = 0;
    s->iac_half = false;
    s->tn = (struct telnet){ 0 };
    s->last_errno = 0;
    if (s->nodelay != TRI_OFF && s->addr.any.sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    loop_fd_init(&s->cw, loop_main(), NULL, fd, sock_event, s);
    if (s->listen_fd >= 0)
        loop_fd_watch(&s->lw, 0);
    if (s->creds) {
        co_event_clear(&s->settled);
        s->tls = tls_new(s->creds, s->server, fd, s->host, &e);
        s->shaking = s->tls != NULL;
        if (s->tls)
            sock_shake(s);
        else
            log_warn("chardev '%s': %s", s->chr.obj.id, e.msg), sock_disconnect(s);
    } else {
        sock_opened(s);
    }
    if (s->fd >= 0)
        sock_update_watch(s);
}

static void sock_accept(void *arg, unsigned ev)
{
    struct chr_socket *s = arg;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        sock_connected(s, fd);
}

/* ---- writing ---- */

static ssize_t sock_send(struct chr_socket *s, const uint8_t *buf, size_t n)
{
    ssize_t r = sock_put(s, buf, n);
    if (r >= 0)
        return r;
    if (r == -EAGAIN || r == -EINTR || r == -ENOBUFS) {
        s->tx_mask = LOOP_OUT;
        sock_update_watch(s);
        return -EAGAIN;
    }
    shutdown(s->fd, SHUT_RDWR);                 /* reading goes on to the end of what the peer sent, then disconnects */
    return (ssize_t)n;
}

/* 0xff is sent twice (RFC 854). */
static ssize_t sock_write_telnet(struct chr_socket *s, const uint8_t *buf, size_t n)
{
    static const uint8_t iac[2] = { 0xff, 0xff };
    if (buf[0] != 0xff) {
        const uint8_t *ff = memchr(buf, 0xff, n);
        return sock_send(s, buf, ff ? (size_t)(ff - buf) : n);
    }
    ssize_t r = sock_send(s, iac, s->iac_half ? 1 : 2);
    if (r < 0)
        return r;
    if (r == 1 && !s->iac_half) {
        s->iac_half = true;
        s->tx_mask = LOOP_OUT;
        sock_update_watch(s);
        return -EAGAIN;
    }
    s->iac_half = false;
    return 1;
}

static ssize_t sock_write(struct chr *c, const uint8_t *buf, size_t n)
{
    struct chr_socket *s = (struct chr_socket *)c;
    return s->telnet ? sock_write_telnet(s, buf, n) : sock_send(s, buf, n);
}

static void sock_resume(struct chr *c)
{
    struct chr_socket *s = (struct chr_socket *)c;
    if (s->fd >= 0)
        sock_update_watch(s);
    if (s->tls)
        loop_post(loop_main(), &s->more);
}

static int sock_take_fd(struct chr *c)
{
    struct chr_socket *s = (struct chr_socket *)c;
    if (!s->n_fds)
        return -1;
    int fd = s->fds[0];
    memmove(&s->fds[0], &s->fds[1], --s->n_fds * sizeof s->fds[0]);
    return fd;
}

/* ---- opening ---- */

/* One attempt at the address. It has copies of what the worker thread needs: the chardev may go away meanwhile. */
struct sock_try {
    struct chr_socket *s;               /* NULL once the chardev is gone */
    char *host, *port, *path;
    int family;
    bool passive, abstract, tight, ok;
    struct sock_addr addr;
    struct err e;
};

static struct sock_try *try_new(struct chr_socket *s)
{
    struct sock_try *t = xnew(struct sock_try);
    *t = (struct sock_try){ .s = s, .host = xstrdup(s->host), .port = xstrdup(s->port), .path = xstrdup(s->path),
                            .passive = s->server, .abstract = s->abstract, .tight = s->tight != TRI_OFF };
    bool want4 = s->ipv4 == TRI_ON || (s->ipv4 == TRI_AUTO && s->ipv6 != TRI_ON);
    bool want6 = s->ipv6 == TRI_ON || (s->ipv6 == TRI_AUTO && s->ipv4 != TRI_ON);
    t->family = want4 && want6 ? AF_UNSPEC : want4 ? AF_INET : AF_INET6;
    return t;
}

static void try_free(struct sock_try *t)
{
    free(t->host);
    free(t->port);
    free(t->path);
    free(t);
}

static int resolve_work(void *arg)
{
    struct sock_try *t = arg;
    t->ok = sock_resolve(&t->addr, t->host, t->port, t->family, SOCK_STREAM, t->passive, &t->e);
    return 0;
}

static bool co_address(struct sock_try *t)
{
    if (t->path)
        return sock_unix(&t->addr, t->path, t->abstract, t->tight, &t->e);
    co_offload(resolve_work, t);
    return t->ok;
}

/* One attempt to connect; the socket or -1. */
static int co_connect(struct sock_try *t)
{
    char text[SOCK_TEXT];
    bool pending;
    if (!co_address(t))
        return -1;
    int fd = sock_connect_start(&t->addr, SOCK_STREAM, &pending, &t->e);
    if (fd < 0 || !pending)
        return fd;
    int r = co_fd(fd, LOOP_OUT, clock_now(CLOCK_HOST) + CONNECT_TIMEOUT_NS);
    r = r == -ETIMEDOUT ? ETIMEDOUT : r < 0 ? -r : sock_connect_finish(fd);
    if (!r)
        return fd;
    err_os(&t->e, r, "cannot connect to %s", sock_format(&t->addr, text));
    close(fd);
    return -1;
}

/* A reconnecting client's attempt in the background. */
static void co_retry(void *arg)
{
    struct sock_try *t = arg;
    int fd = co_connect(t);
    struct chr_socket *s = t->s;
    if (!s) {
        if (fd >= 0)
            close(fd);
    } else if (fd >= 0) {
        s->attempt = NULL;
        s->addr = t->addr;
        sock_connected(s, fd);
    } else {
        s->attempt = NULL;
        if (t->e.os_errno != s->last_errno)
            log_warn("chardev '%s': %s; trying again every %u ms", s->chr.obj.id, t->e.msg, s->reconnect_ms);
        s->last_errno = t->e.os_errno;
        sock_arm_retry(s);
    }
    try_free(t);
}

static void sock_retry(void *arg)
{
    struct chr_socket *s = arg;
    if (s->attempt || s->fd >= 0)
        return;
    s->attempt = try_new(s);
    co_spawn(loop_main(), NULL, co_retry, s->attempt);
}

/* Listens at the address or, with to=, at the first free port from there on. */
static int sock_listen_range(struct chr_socket *s, struct sock_addr *a, struct err *e)
{
    unsigned port = a->any.sa_family == AF_UNIX ? 0 : ntohs(a->in.sin_port);
    for (;;) {
        int fd = sock_listen(a, 1, e);
        if (fd >= 0 || e->os_errno != EADDRINUSE || port >= s->to)
            return fd;
        a->in.sin_port = htons((uint16_t)++port);       /* at the same place in both families */
    }
}

static void co_open_server(struct sock_try *t)
{
    struct chr_socket *s = t->s;
    struct str name = { 0 };
    if (!co_address(t))
        return;
    int fd = sock_listen_range(s, &t->addr, &t->e);
    t->ok = fd >= 0;
    if (!t->ok)
        return;
    s->addr = t->addr;
    if (s->addr.any.sa_family != AF_UNIX)
        sock_local(fd, &s->addr);
    s->listen_fd = fd;
    s->file = s->path && !s->abstract ? exit_file_new(s->path) : NULL;
    loop_fd_init(&s->lw, loop_main(), NULL, fd, sock_accept, s);
    if (s->wait == TRI_OFF) {
        loop_fd_watch(&s->lw, LOOP_IN);
        return;
    }
    chr_filename(&s->chr, &name);
    log_info("waiting for connection on: %s", name.s);
    str_free(&name);
    while (s->fd < 0 && t->ok) {
        int r = co_fd(fd, LOOP_IN, INT64_MAX);
        if (r < 0)
            t->ok = err_os(&t->e, -r, "cannot wait for a connection");
        else
            sock_accept(s, LOOP_IN);
        if (s->shaking)
            co_wait(&s->settled);
        loop_fd_watch(&s->lw, 0);               /* who failed to prove itself leaves room for another: waited for here */
    }
}

static void co_open(void *arg)
{
    struct sock_try *t = arg;
    struct chr_socket *s = t->s;
    t->ok = false;
    if (s->server) {
        co_open_server(t);
        return;
    }
    int fd = co_connect(t);
    t->ok = fd >= 0;
    if (!t->ok)
        return;
    s->addr = t->addr;
    sock_connected(s, fd);
}

/* A socket that we were given: connected, or listening with server=on. */
static bool sock_adopt(struct chr_socket *s, struct err *e)
{
    struct sock_addr a;
    int v = fd_take(s->fd_text, e);
    if (v < 0)
        return false;
    if (!sock_local(v, &a))
        return err_os(e, errno, "fd %d is not a socket", v);
    s->addr = a;
    if (!s->server) {
        sock_connected(s, v);
        return true;
    }
    s->listen_fd = v;
    loop_fd_init(&s->lw, loop_main(), NULL, s->listen_fd, sock_accept, s);
    loop_fd_watch(&s->lw, LOOP_IN);
    return true;
}

static bool sock_open(struct chr *c, struct err *e)
{
    struct chr_socket *s = (struct chr_socket *)c;
    struct sock_addr a;
    if (s->tls_creds && !(s->creds = tls_creds_get(s->tls_creds, s->server, e)))
        return err_prefix(e, "tls-creds");
    if (s->fd_text)
        return sock_adopt(s, e);
    if (s->path && !sock_unix(&a, s->path, s->abstract, s->tight != TRI_OFF, e))
        return false;
    if (s->reconnect_ms) {
        timer_init(&s->retry, CLOCK_HOST, loop_main(), NULL, sock_retry, s);
        sock_retry(s);
        return true;
    }
    struct sock_try *t = try_new(s);
    chr_co_call(co_open, t);
    bool ok = t->ok;
    if (!ok)
        *e = t->e;
    try_free(t);
    return ok;
}

static void sock_close(struct chr *c)
{
    struct chr_socket *s = (struct chr_socket *)c;
    if (s->attempt)
        s->attempt->s = NULL;
    s->attempt = NULL;
    if (s->retry.loop)
        timer_fini(&s->retry);
    s->reconnect_ms = 0;
    if (s->listen_fd >= 0) {
        loop_fd_watch(&s->lw, 0);
        close(s->listen_fd);
        exit_file_remove(s->file);
        s->file = NULL;
    }
    s->listen_fd = -1;
    sock_disconnect(s);
    loop_post_cancel(loop_main(), &s->more);
    obj_unref(s->creds);
    s->creds = NULL;
}

static void sock_filename(const struct chr *c, struct str *out)
{
    const struct chr_socket *s = (const struct chr_socket *)c;
    char text[SOCK_TEXT], peer[SOCK_TEXT];
    struct sock_addr a;
    bool is_unix = s->addr.len ? s->addr.any.sa_family == AF_UNIX : s->path != NULL;
    if (!c->open)
        str_add(out, "disconnected:");
    str_add(out, is_unix ? "unix:" : s->telnet ? "telnet:" : "tcp:");
    if (s->addr.len)
        str_add(out, sock_format(&s->addr, text));
    else if (s->path)
        str_add(out, s->path);
    else
        str_printf(out, "%s:%s", s->host ? s->host : "", s->port ? s->port : "");
    if (s->server)
        str_add(out, ",server=on");
    if (c->open && !is_unix && sock_peer(s->fd, &a))
        str_printf(out, " <-> %s", sock_format(&a, peer));
}

/* ---- options ---- */

static bool sock_init(struct obj *o, struct err *e)
{
    struct chr_socket *s = (struct chr_socket *)o;
    s->fd = s->listen_fd = -1;
    s->more = (struct post){ .fn = sock_read_more, .arg = s };
    return true;
}

static bool sock_check_place(struct chr_socket *s, struct err *e)
{
    int places = (s->path != NULL) + (s->port != NULL) + (s->fd_text != NULL);
    if (!places) {
        err_set(e, ERR_VALUE, "%s", s->host ? "port is missing" : "neither path nor host and port are given");
        return err_hint(e, "write path=FILE, or host=HOST,port=PORT");
    }
    if (places > 1)
        return err_set(e, ERR_VALUE, "only one of path, port and fd may be given");
    if (s->host && !s->port)
        return err_set(e, ERR_VALUE, "host has no effect without port");
    if ((s->abstract || s->tight != TRI_AUTO) && !s->path)
        return err_set(e, ERR_VALUE, "abstract and tight have no effect without path");
    if (s->tight != TRI_AUTO && !s->abstract)
        return err_set(e, ERR_VALUE, "tight has no effect without abstract=on");
    if (s->to && (!s->port || !s->server))
        return err_set(e, ERR_VALUE, "to has no effect without port and server=on");
    if (s->ipv4 == TRI_OFF && s->ipv6 == TRI_OFF)
        return err_set(e, ERR_VALUE, "ipv4=off and ipv6=off leave no address");
    return true;
}

static bool sock_check(struct obj *o, struct err *e)
{
    struct chr_socket *s = (struct chr_socket *)o;
    if (s->websocket || s->tn3270)
        return err_set(e, ERR_NOT_BUILT, "%s is not in this build", s->websocket ? "websocket" : "tn3270");
    if (!sock_check_place(s, e))
        return false;
    if (s->wait == TRI_ON && !s->server)
        return err_set(e, ERR_VALUE, "wait has no effect without server=on");
    if (s->reconnect && s->reconnect_ms)
        return err_set(e, ERR_VALUE, "only one of reconnect and reconnect-ms may be given");
    if (s->reconnect)
        s->reconnect_ms = s->reconnect * 1000;
    if (s->reconnect_ms && s->server)
        return err_set(e, ERR_VALUE, "reconnect has no effect with server=on");
    if (s->delay != TRI_AUTO) {
        if (s->nodelay != TRI_AUTO)
            return err_set(e, ERR_VALUE, "only one of delay and nodelay may be given");
        s->nodelay = s->delay == TRI_ON ? TRI_OFF : TRI_ON;
    }
    return true;
}

static const struct prop sock_props[] = {
    PROP_STR(struct chr_socket, path, "path", 0, "Unix socket: its file"),
    PROP_BOOL(struct chr_socket, abstract, "abstract", false, "The path is a name in Linux' abstract namespace"),
    PROP_TRI(struct chr_socket, tight, "tight", TRI_AUTO, "The abstract name is not padded with zeros (the default)"),
    PROP_STR(struct chr_socket, host, "host", 0, "TCP: host name or address; empty is any when listening, else this host"),
    PROP_STR(struct chr_socket, port, "port", 0, "TCP: port number or service; 0 lets the system choose (see query-chardev)"),
    PROP_U32(struct chr_socket, to, "to", 0, 0, 65535, "TCP server: last port to try when the others are busy"),
    PROP_TRI(struct chr_socket, ipv4, "ipv4", TRI_AUTO, "TCP: use IPv4"),
    PROP_TRI(struct chr_socket, ipv6, "ipv6", TRI_AUTO, "TCP: use IPv6"),
    PROP_STR(struct chr_socket, fd_text, "fd", 0, "Number of an open socket that was inherited"),
    PROP_BOOL(struct chr_socket, server, "server", false, "Listen instead of connecting"),
    PROP_TRI(struct chr_socket, wait, "wait", TRI_AUTO, "Server: start only when a client has connected (the default)"),
    PROP_BOOL(struct chr_socket, telnet, "telnet", false, "Speak the telnet protocol"),
    PROP_TRI(struct chr_socket, nodelay, "nodelay", TRI_AUTO, "TCP: send small packets at once (the default)"),
    { .name = "delay", .doc = "TCP: the opposite of nodelay", .type = PROP_T_TRI, .flags = PF_HIDDEN,
      PROP_OFF(struct chr_socket, delay), .def = TRI_AUTO },
    PROP_U32(struct chr_socket, reconnect, "reconnect", 0, 0, 1000000, "Client: seconds between attempts; 0 never tries again"),
    PROP_U32(struct chr_socket, reconnect_ms, "reconnect-ms", 0, 0, 1000000000, "Client: the same in milliseconds"),
    PROP_STR(struct chr_socket, tls_creds, "tls-creds", 0, "Object with TLS credentials: all goes through TLS; a client expects the certificate of host"),
    { .name = "websocket", .doc = "Speak the websocket protocol", .type = PROP_T_BOOL, .flags = PF_HIDDEN, PROP_OFF(struct chr_socket, websocket) },
    { .name = "tn3270", .doc = "Speak the tn3270 protocol", .type = PROP_T_BOOL, .flags = PF_HIDDEN, PROP_OFF(struct chr_socket, tn3270) },
    PROP_END
};

static const struct chr_class socket_class = {
    .obj = { .name = "chardev-socket", .desc = "Unix or TCP socket, server or client", .base = &chr_class,
             .size = sizeof(struct chr_socket), .props = sock_props, .init = sock_init, .check = sock_check },
    .open = sock_open, .close = sock_close, .write = sock_write, .rx_resume = sock_resume, .filename = sock_filename,
    .take_fd = sock_take_fd,
};
OBJ_CLASS(&socket_class.obj);
