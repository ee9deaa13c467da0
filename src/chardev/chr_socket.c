/* SPDX-License-Identifier: MIT */
/* "socket": a stream socket, unix or TCP, as server or client; with telnet, reconnect, and file descriptors passed along. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/exit_file.h"
#include "base/log.h"
#include "chardev/chr_int.h"
#include "chardev/chr_telnet.h"
#include "crypto/tls.h"
#include "loop/co.h"
#include "loop/redial.h"

enum { READ_CHUNK = 4096, MAX_FDS = 16 };

struct chr_socket {
    struct chr chr;
    /* options */
    struct sock_place place;
    char *tls_creds;
    bool server, telnet, websocket, tn3270;
    int wait, nodelay, delay;
    uint32_t reconnect, reconnect_ms;
    /* state */
    struct sock_addr addr;              /* where we listen, or connected to */
    int listen_fd, fd;
    struct exit_file *file;             /* what we listen on has this name */
    struct loop_fd lw, cw;              /* watching listen_fd, fd */
    unsigned tx_mask;                   /* LOOP_OUT while the socket is full */
    bool iac_half;                      /* the first half of an escaped 0xff is sent */
    struct redial redial;
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
    redial_again(&s->redial);
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

static void sock_connected(void *arg, int fd, const struct sock_addr *at)
{
    struct chr_socket *s = arg;
    struct err e = ERR_INIT;
    int one = 1;
    s->fd = fd;
    s->addr = *at;
    s->tx_mask = 0;
    s->iac_half = false;
    s->tn = (struct telnet){ 0 };
    if (s->nodelay != TRI_OFF && s->addr.any.sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    loop_fd_init(&s->cw, loop_main(), NULL, fd, sock_event, s);
    if (s->listen_fd >= 0)
        loop_fd_watch(&s->lw, 0);
    if (s->creds) {
        co_event_clear(&s->settled);
        s->tls = tls_new(s->creds, s->server, fd, s->place.host, &e);
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
    int fd = sock_accept_one(&s->place, s->listen_fd);
    if (fd >= 0)
        sock_connected(s, fd, &s->addr);
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

static int sock_dup(struct chr *c)
{
    const struct chr_socket *s = (const struct chr_socket *)c;
    return s->fd < 0 || s->tls || s->telnet || s->addr.any.sa_family != AF_UNIX ? -1 : fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
}

/* ---- opening ---- */

struct opening { struct chr_socket *s; bool ok; struct err *e; };

static void co_wait_for_client(struct chr_socket *s, struct opening *o)
{
    struct str name = { 0 };
    chr_filename(&s->chr, &name);
    log_info("waiting for connection on: %s", name.s);
    str_free(&name);
    while (s->fd < 0 && o->ok) {
        int r = co_fd(s->listen_fd, LOOP_IN, INT64_MAX);
        if (r < 0)
            o->ok = err_os(o->e, -r, "cannot wait for a connection");
        else
            sock_accept(s, LOOP_IN);
        if (s->shaking)
            co_wait(&s->settled);
        loop_fd_watch(&s->lw, 0);               /* who failed to prove itself leaves room for another: waited for here */
    }
}

static void co_open(void *arg)
{
    struct opening *o = arg;
    struct chr_socket *s = o->s;
    struct sock_addr at;
    int fd = s->server ? co_sock_listen(&s->place, 1, &at, &s->file, o->e) : co_sock_connect(&s->place, &at, o->e);
    o->ok = fd >= 0;
    if (!o->ok)
        return;
    if (!s->server) {
        sock_connected(s, fd, &at);
        return;
    }
    s->addr = at;
    s->listen_fd = fd;
    loop_fd_init(&s->lw, loop_main(), NULL, fd, sock_accept, s);
    if (s->wait == TRI_OFF || (s->place.kind == SOCK_FD && s->wait != TRI_ON))
        loop_fd_watch(&s->lw, LOOP_IN);
    else
        co_wait_for_client(s, o);
}

static bool sock_open(struct chr *c, struct err *e)
{
    struct chr_socket *s = (struct chr_socket *)c;
    struct opening o = { .s = s, .e = e };
    struct sock_addr a;
    if (s->tls_creds && !(s->creds = tls_creds_get(s->tls_creds, s->server, e)))
        return err_prefix(e, "tls-creds");
    if (s->place.path && !sock_unix(&a, s->place.path, s->place.abstract, s->place.tight != TRI_OFF, e))
        return false;
    if (s->reconnect_ms) {
        s->redial = (struct redial){ .place = &s->place, .ms = s->reconnect_ms, .kind = "chardev", .id = c->obj.id, .connected = sock_connected, .arg = s };
        redial_start(&s->redial);
        return true;
    }
    co_call(co_open, &o);
    return o.ok;
}

static void sock_close(struct chr *c)
{
    struct chr_socket *s = (struct chr_socket *)c;
    redial_stop(&s->redial);
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
    bool is_unix = s->addr.len ? s->addr.any.sa_family == AF_UNIX : s->place.path != NULL;
    if (!c->open)
        str_add(out, "disconnected:");
    str_add(out, is_unix ? "unix:" : s->telnet ? "telnet:" : "tcp:");
    if (s->addr.len)
        str_add(out, sock_format(&s->addr, text));
    else if (s->place.path)
        str_add(out, s->place.path);
    else
        str_printf(out, "%s:%s", s->place.host ? s->place.host : "", s->place.port ? s->place.port : "");
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
    struct sock_place *p = &s->place;
    int places = (p->path != NULL) + (p->port != NULL) + (p->fd != NULL);
    if (!places) {
        err_set(e, ERR_VALUE, "%s", p->host ? "port is missing" : "neither path nor host and port are given");
        return err_hint(e, "write path=FILE, or host=HOST,port=PORT");
    }
    if (places > 1)
        return err_set(e, ERR_VALUE, "only one of path, port and fd may be given");
    p->kind = p->path ? SOCK_UNIX : p->port ? SOCK_INET : SOCK_FD;
    return sock_place_check(p, s->server, "", e);
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
    PROP_STR(struct chr_socket, place.path, "path", 0, "Unix socket: its file"),
    PROP_BOOL(struct chr_socket, place.abstract, "abstract", false, "The path is a name in Linux' abstract namespace"),
    PROP_TRI(struct chr_socket, place.tight, "tight", TRI_AUTO, "The abstract name is not padded with zeros (the default)"),
    PROP_STR(struct chr_socket, place.host, "host", 0, "TCP: host name or address; empty is any when listening, else this host"),
    PROP_STR(struct chr_socket, place.port, "port", PF_PORT, "TCP: port number or service; 0 lets the system choose (see query-chardev)"),
    PROP_U32(struct chr_socket, place.to, "to", 0, 0, 65535, "TCP server: last port to try when the others are busy"),
    PROP_TRI(struct chr_socket, place.ipv4, "ipv4", TRI_AUTO, "TCP: use IPv4"),
    PROP_TRI(struct chr_socket, place.ipv6, "ipv6", TRI_AUTO, "TCP: use IPv6"),
    PROP_STR(struct chr_socket, place.fd, "fd", 0, "Number of an open socket that was inherited"),
    PROP_BOOL(struct chr_socket, place.numeric, "numeric", false, "TCP: host is an address, no name is looked up"),
    SOCK_KEEP_ROWS(struct chr_socket, place., ""),
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
    .take_fd = sock_take_fd, .dup_socket = sock_dup,
};
OBJ_CLASS(&socket_class.obj);
