/* SPDX-License-Identifier: MIT */
/*
 * The file transfer protocol of SSH, version 3 (draft-ietf-secsh-filexfer-02, whose sections are named here, and OpenSSH's extensions
 * to it, as its file PROTOCOL has them), over a channel of libssh. The library's own functions for it wait for the answer to each
 * write, so that only reads could overlap; here requests go out as they come and answers are taken as they come.
 *
 * The session does not block: it is served where the loop says that its socket can be read, a bounded piece a turn, since its ciphers
 * take the loop's time. That is done on the loop's own stack, not on those of coroutines, which are smaller than ciphers may like.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/bits.h"
#include "block/ssh_int.h"

/* Types of packets (section 3), what a status says (7), which attributes there are (5). */
enum {
    FXP_INIT = 1, FXP_VERSION = 2, FXP_OPEN = 3, FXP_CLOSE = 4, FXP_READ = 5, FXP_WRITE = 6, FXP_FSTAT = 8, FXP_FSETSTAT = 10, FXP_REMOVE = 13,
    FXP_STAT = 17, FXP_STATUS = 101, FXP_HANDLE = 102, FXP_DATA = 103, FXP_ATTRS = 105, FXP_EXTENDED = 200, FXP_EXTENDED_REPLY = 201,
    FX_OK = 0, FX_EOF = 1, FX_NO_SUCH_FILE = 2, FX_PERMISSION_DENIED = 3, FX_BAD_MESSAGE = 5, FX_OP_UNSUPPORTED = 8,
    ATTR_SIZE = 1, ATTR_UIDGID = 2, ATTR_PERMISSIONS = 4,
};
enum {
    VERSION = 3,
    PIECE = 32768,                      /* that every server takes (section 3) */
    PIECE_MAX = 256 * 1024,
    PACKET_MAX = 512 * 1024,            /* of what is received */
    TURN = 256 * 1024,                  /* work of one turn of the loop */
    IN_FLIGHT_MAX = 4 << 20,
    WARN_NS = 1000000000,
};

/* ---- packets to send ---- */

static void add32(struct str *p, uint32_t v)
{
    uint8_t b[4];
    st_be32(b, v);
    str_addn(p, b, sizeof b);
}

static void add_string(struct str *p, const void *s, uint32_t n)
{
    add32(p, n);
    str_addn(p, s, n);
}

/* Room for @n bytes more behind what is to be sent; NULL: no memory. */
static uint8_t *reserve(struct sftp *l, size_t n)
{
    if (l->out_at) {
        memmove(l->out, l->out + l->out_at, l->out_len - l->out_at);
        l->out_len -= l->out_at;
        l->out_at = 0;
    }
    if (l->out_cap - l->out_len < n) {
        uint8_t *p = realloc(l->out, l->out_len + n);
        if (!p)
            return NULL;
        l->out = p;
        l->out_cap = l->out_len + n;
    }
    return l->out + l->out_len;
}

static void sent_later(struct sftp *l, size_t n)
{
    l->out_len += n;
    loop_post(l->watch.loop, &l->turn);
}

/* ---- the end ---- */

static void complete(struct sftp *l, struct sftp_request *q, int res)
{
    struct sftp_transfer *t = q->of;
    q->used = false;
    blk_answered(&l->asked);
    if (q->reply) {
        q->reply->res = res;
        co_wake(&q->reply->done);
    } else {
        l->in_flight -= q->len;
        t->res = t->res ? t->res : res;
        if (!--t->pending)
            co_wake(&t->done);
    }
    co_queue_wake_all(&l->room);
}

void sftp_lose(struct sftp *l, const char *why)
{
    if (!l->connected)
        return;
    l->connected = false;
    log_warn("the connection to '%s' is lost: %s", l->name, why);
    loop_fd_watch(&l->watch, 0);
    l->out_at = l->out_len = 0;
    free(l->body);
    l->body = NULL;
    l->into = NULL;
    l->version.res = -EIO;
    co_wake(&l->version.done);
    for (unsigned i = 0; i < SFTP_REQUESTS; i++)
        if (l->request[i].used)
            complete(l, &l->request[i], -EIO);
    co_queue_wake_all(&l->room);
}

static bool wrong(struct sftp *l)
{
    sftp_lose(l, "it does not speak the file transfer protocol well");
    return false;
}

/* ---- answers ---- */

/* What a status says as -errno; its text is kept. */
static int status(struct sftp *l, const uint8_t *d, uint32_t len)
{
    static const char *const names[] = { "success", "end of file", "no such file", "permission denied", "failure", "bad message", "no connection",
                                         "connection lost", "operation unsupported" };
    uint32_t code = len >= 4 ? ld_be32(d) : FX_BAD_MESSAGE, n = len >= 8 ? ld_be32(d + 4) : 0;
    if (code == FX_OK)
        return 0;
    if (n && range_ok(8, n, len))
        snprintf(l->said, sizeof l->said, "%.*s", (int)MIN(n, 100u), (const char *)d + 8);
    else
        snprintf(l->said, sizeof l->said, "%s", code < ARRAY_SIZE(names) ? names[code] : "an unknown error");
    switch (code) {
    case FX_EOF: return -ENODATA;
    case FX_NO_SUCH_FILE: return -ENOENT;
    case FX_PERMISSION_DENIED: return -EACCES;
    case FX_OP_UNSUPPORTED: return -ENOTSUP;
    default: return -EIO;
    }
}

static bool send_part(struct sftp *l, struct sftp_request *q);

static void refused(struct sftp *l, const struct sftp_request *q)
{
    int64_t now = clock_now(CLOCK_HOST);
    if (l->warned && now - l->warned < WARN_NS)
        return;
    l->warned = now;
    log_warn("'%s': the server refuses to %s %u bytes at %llu: %s", l->name, q->write ? "write" : "read", q->len, (unsigned long long)q->off, l->said);
}

static void zero_rest(struct sftp_request *q, uint32_t from)
{
    struct iovec *v = calloc(q->of->niov, sizeof *v);
    if (v)
        blk_iov_zero(v, blk_iov_slice(q->of->iov, q->of->niov, q->at + from, q->len - from, v));
    else
        q->of->res = -ENOMEM;
    free(v);
}

/* A whole packet but for data, which has gone to its place. */
static bool take_packet(struct sftp *l)
{
    uint8_t type = l->head[4], *d = l->body;
    uint32_t len = l->body_len;
    l->body = NULL;
    l->head_len = 0;
    if (type == FXP_VERSION && !l->version.done.set) {
        l->version = (struct sftp_reply){ .type = type, .data = d, .len = len, .done = l->version.done };
        co_wake(&l->version.done);
        return true;
    }
    uint32_t id = len >= 4 ? ld_be32(d) : SFTP_REQUESTS;
    struct sftp_request *q = id < SFTP_REQUESTS && l->request[id].used ? &l->request[id] : NULL;
    if (q && q->reply) {
        q->reply->type = type;
        q->reply->data = d;
        q->reply->len = len;
        complete(l, q, 0);
        return true;
    }
    bool ok = q && type == FXP_STATUS;
    int r = ok ? status(l, d + 4, len - 4) : 0;
    free(d);
    if (!ok || (!r && !q->write))
        return wrong(l);
    if (r == -ENODATA && !q->write) {
        zero_rest(q, 0);
        r = 0;
    } else if (r) {
        refused(l, q);
    }
    complete(l, q, r);
    return true;
}

/* The data of a read has come. Less than was asked for: the rest is asked for again, up to the end of the file. */
static bool take_data(struct sftp *l)
{
    struct sftp_request *q = l->into;
    uint32_t got = l->into_at;
    l->into = NULL;
    l->head_len = 0;
    l->in_flight -= got;
    q->off += got;
    q->at += got;
    q->len -= got;
    if (q->len && got)
        return send_part(l, q) || (complete(l, q, -ENOMEM), true);
    if (q->len)
        return wrong(l);
    complete(l, q, 0);
    return true;
}

/* Length and type have come, of data its id and length, too. Says where the rest goes. */
static bool take_head(struct sftp *l)
{
    uint32_t len = ld_be32(l->head), id, n;
    if (l->head[4] != FXP_DATA) {
        if (!len || len > PACKET_MAX)
            return wrong(l);
        l->left = l->body_len = len - 1;
        l->body = malloc(len);
        return l->body || (sftp_lose(l, "no memory"), false);
    }
    id = ld_be32(l->head + 5);
    n = ld_be32(l->head + 9);
    struct sftp_request *q = id < SFTP_REQUESTS && l->request[id].used ? &l->request[id] : NULL;
    if (len < 9 || n != len - 9 || !q || q->reply || q->write || n > q->len)
        return wrong(l);
    l->into = q;
    l->into_at = 0;
    l->left = n;
    return true;
}

/* What was received. */
static bool take(struct sftp *l, const uint8_t *p, uint32_t n)
{
    while (n) {
        if (!l->body && !l->into) {
            uint32_t want = l->head_len < 5 || l->head[4] != FXP_DATA ? 5 : sizeof l->head, k = MIN(want - l->head_len, n);
            memcpy(l->head + l->head_len, p, k);
            l->head_len += k;
            p += k;
            n -= k;
            if (l->head_len < 5 || (l->head[4] == FXP_DATA && l->head_len < sizeof l->head))
                continue;
            if (!take_head(l))
                return false;
        }
        uint32_t k = MIN(l->left, n);
        if (l->into) {
            blk_iov_copy((void *)(uintptr_t)p, l->into->of->iov, l->into->of->niov, l->into->at + l->into_at, k, true);
            l->into_at += k;
        } else {
            memcpy(l->body + (l->body_len - l->left), p, k);
        }
        p += k;
        n -= k;
        l->left -= k;
        if (!l->left && !(l->into ? take_data(l) : take_packet(l)))
            return false;
    }
    return true;
}

/* ---- a turn of the loop ---- */

static void lost_by_error(struct sftp *l, int r)
{
    sftp_lose(l, r == SSH_EOF || ssh.ssh_get_error_code(l->session) != SSH_FATAL ? "the server has ended it" : ssh.ssh_get_error(l->session));
}

/* Both: how much was done; -1: the connection is lost. */
static int64_t send_some(struct sftp *l)
{
    int64_t done = 0;
    while (l->out_at < l->out_len && done < TURN) {
        int n = ssh.ssh_channel_write(l->channel, l->out + l->out_at, (uint32_t)MIN(l->out_len - l->out_at, (size_t)TURN));
        if (n < 0)
            return lost_by_error(l, n), -1;
        if (!n)
            break;
        l->out_at += (size_t)n;
        done += n;
    }
    return done;
}

static int64_t receive_some(struct sftp *l)
{
    static uint8_t buf[65536];          /* of the main loop */
    int64_t done = 0;
    while (done < TURN) {
        int n = ssh.ssh_channel_read_nonblocking(l->channel, buf, sizeof buf, 0);
        if (n == SSH_AGAIN || !n)
            break;
        if (n < 0)
            return lost_by_error(l, n), -1;
        done += n;
        blk_heard(&l->asked);
        if (!take(l, buf, (uint32_t)n))
            return -1;
    }
    return done;
}

static void turn(void *arg)
{
    struct sftp *l = arg;
    int64_t sent = l->connected ? send_some(l) : -1, received = sent < 0 ? -1 : receive_some(l);
    if (received < 0)
        return;
    if (sent || received)
        loop_post(l->watch.loop, &l->turn);
    else
        loop_fd_watch(&l->watch, LOOP_IN | (ssh.ssh_get_status(l->session) & SSH_WRITE_PENDING ? LOOP_OUT : 0));
}

static void on_socket(void *arg, unsigned revents)
{
    struct sftp *l = arg;
    turn(l);
}

/* ---- requests ---- */

/* For a transfer of @len bytes, or 0. NULL: the connection is lost. */
static struct sftp_request *co_take_request(struct sftp *l, uint32_t len)
{
    while (l->connected) {
        bool room = !len || !l->in_flight || l->in_flight + len <= IN_FLIGHT_MAX;
        for (unsigned i = 0; i < SFTP_REQUESTS && room; i++) {
            if (l->request[i].used)
                continue;
            l->request[i] = (struct sftp_request){ .used = true, .len = len };
            l->in_flight += len;
            blk_ask(&l->asked);
            return &l->request[i];
        }
        co_queue_wait(&l->room);
    }
    return NULL;
}

/* Takes over @body. */
static int co_request(struct sftp *l, uint8_t type, struct str *body, struct sftp_reply *reply)
{
    *reply = (struct sftp_reply){ 0 };
    struct sftp_request *q = co_take_request(l, 0);
    uint8_t *p = q ? reserve(l, 9 + body->len) : NULL;
    if (p) {
        st_be32(p, (uint32_t)(5 + body->len));
        p[4] = type;
        st_be32(p + 5, (uint32_t)(q - l->request));
        memcpy(p + 9, body->s, body->len);
        q->reply = reply;
        sent_later(l, 9 + body->len);
        co_wait(&reply->done);
    } else if (q) {
        q->reply = reply;
        complete(l, q, -ENOMEM);
    } else {
        snprintf(l->said, sizeof l->said, "the connection is lost");
        reply->res = -EIO;
    }
    str_free(body);
    if (!reply->res && reply->type == FXP_STATUS)
        reply->res = status(l, reply->data + 4, reply->len - 4);
    return reply->res;
}

/* One whose answer is a status, or of @type, which is answered then in @reply: free its data. */
static int co_request_for(struct sftp *l, uint8_t request, struct str *body, uint8_t type, struct sftp_reply *reply)
{
    int r = co_request(l, request, body, reply);
    if (!r && reply->type != type) {
        wrong(l);
        r = -EPROTO;
    }
    if (r) {
        free(reply->data);
        reply->data = NULL;
    }
    return r;
}

static int co_request_plain(struct sftp *l, uint8_t request, struct str *body)
{
    struct sftp_reply reply;
    int r = co_request_for(l, request, body, FXP_STATUS, &reply);
    free(reply.data);
    return r;
}

/* ---- reading and writing ---- */

static bool send_part(struct sftp *l, struct sftp_request *q)
{
    uint32_t n = 13 + l->handle_len + 12 + (q->write ? q->len : 0);
    uint8_t *p = reserve(l, n);
    if (!p)
        return false;
    st_be32(p, n - 4);
    p[4] = q->write ? FXP_WRITE : FXP_READ;
    st_be32(p + 5, (uint32_t)(q - l->request));
    st_be32(p + 9, l->handle_len);
    memcpy(p + 13, l->handle, l->handle_len);
    p += 13 + l->handle_len;
    st_be64(p, q->off);
    st_be32(p + 8, q->len);
    if (q->write)
        blk_iov_copy(p + 12, q->of->iov, q->of->niov, q->at, q->len, false);
    sent_later(l, n);
    return true;
}

int co_sftp_transfer(struct sftp *l, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct sftp_transfer t = { .iov = iov, .niov = niov, .pending = 1 };
    for (uint64_t at = 0; at < len && !t.res;) {
        uint32_t k = (uint32_t)MIN(len - at, (uint64_t)(write ? l->max_write : l->max_read));
        struct sftp_request *q = co_take_request(l, k);
        if (!q) {
            t.res = -EIO;
            break;
        }
        q->of = &t;
        q->write = write;
        q->off = off + at;
        q->at = at;
        t.pending++;
        if (!send_part(l, q))
            complete(l, q, -ENOMEM);
        at += k;
    }
    if (--t.pending)
        co_wait(&t.done);
    return t.res;
}

/* ---- the other requests ---- */

static struct str with_handle(const struct sftp *l)
{
    struct str b = { 0 };
    add_string(&b, l->handle, l->handle_len);
    return b;
}

static int co_close_handle(struct sftp *l)
{
    struct str b = with_handle(l);
    int r = l->handle_len ? co_request_plain(l, FXP_CLOSE, &b) : 0;
    str_free(&b);
    l->handle_len = 0;
    return r;
}

int co_sftp_open(struct sftp *l, const char *path, unsigned how)
{
    struct sftp_reply reply;
    struct str b = { 0 };
    add_string(&b, path, (uint32_t)strlen(path));
    add32(&b, how);
    add32(&b, how & SFTP_CREAT ? ATTR_PERMISSIONS : 0);
    if (how & SFTP_CREAT)
        add32(&b, 0644);
    int r = co_request_for(l, FXP_OPEN, &b, FXP_HANDLE, &reply);
    uint32_t n = !r && reply.len >= 8 ? ld_be32(reply.data + 4) : 0;
    if (!r && (!n || n > sizeof l->handle || !range_ok(8, n, reply.len)))
        r = wrong(l) ? 0 : -EPROTO;
    if (!r)
        co_close_handle(l);
    if (!r) {
        memcpy(l->handle, reply.data + 8, n);
        l->handle_len = n;
    }
    free(reply.data);
    return r;
}

/* Section 5: those flags whose fields come first are enough. */
static int co_attrs(struct sftp *l, uint8_t request, struct str *body, struct sftp_attrs *out)
{
    struct sftp_reply reply;
    int r = co_request_for(l, request, body, FXP_ATTRS, &reply);
    *out = (struct sftp_attrs){ 0 };
    if (r)
        return r;
    uint32_t flags = reply.len >= 8 ? ld_be32(reply.data + 4) : 0, at = 8;
    out->has_size = flags & ATTR_SIZE && range_ok(at, 8, reply.len);
    if (out->has_size)
        out->size = ld_be64(reply.data + at);
    at += (flags & ATTR_SIZE ? 8 : 0) + (flags & ATTR_UIDGID ? 8 : 0);
    out->has_mode = flags & ATTR_PERMISSIONS && range_ok(at, 4, reply.len);
    if (out->has_mode)
        out->mode = ld_be32(reply.data + at);
    free(reply.data);
    return 0;
}

int co_sftp_stat(struct sftp *l, struct sftp_attrs *out)
{
    struct str b = with_handle(l);
    return co_attrs(l, FXP_FSTAT, &b, out);
}

int co_sftp_stat_path(struct sftp *l, const char *path, struct sftp_attrs *out)
{
    struct str b = { 0 };
    add_string(&b, path, (uint32_t)strlen(path));
    return co_attrs(l, FXP_STAT, &b, out);
}

int co_sftp_set_size(struct sftp *l, uint64_t size)
{
    struct str b = with_handle(l);
    add32(&b, ATTR_SIZE);
    add32(&b, (uint32_t)(size >> 32));
    add32(&b, (uint32_t)size);
    return co_request_plain(l, FXP_FSETSTAT, &b);
}

int co_sftp_fsync(struct sftp *l)
{
    static const char name[] = "fsync@openssh.com";
    struct str b = { 0 };
    add_string(&b, name, sizeof name - 1);
    add_string(&b, l->handle, l->handle_len);
    return co_request_plain(l, FXP_EXTENDED, &b);
}

int co_sftp_remove(struct sftp *l, const char *path)
{
    struct str b = { 0 };
    add_string(&b, path, (uint32_t)strlen(path));
    return co_request_plain(l, FXP_REMOVE, &b);
}

/* ---- beginning and end ---- */

static bool next_string(const uint8_t **p, uint32_t *left, const char **s, uint32_t *n)
{
    if (*left < 4)
        return false;
    *n = ld_be32(*p);
    if (!range_ok(4, *n, *left))
        return false;
    *s = (const char *)*p + 4;
    *p += 4 + *n;
    *left -= 4 + *n;
    return true;
}

static bool is(const char *s, uint32_t n, const char *what) { return n == strlen(what) && !memcmp(s, what, n); }

/* Pairs of a name and a value (section 4); OpenSSH's versions are numbers as text. */
static void take_extensions(struct sftp *l)
{
    const uint8_t *p = l->version.data + 4;
    uint32_t left = l->version.len - 4, n, m;
    const char *name, *value;
    while (next_string(&p, &left, &name, &n) && next_string(&p, &left, &value, &m)) {
        l->has_fsync |= is(name, n, "fsync@openssh.com") && is(value, m, "1");
        l->has_limits |= is(name, n, "limits@openssh.com") && is(value, m, "1");
    }
}

/* How long a read and a write may be; 0 says that there is no limit. */
static int co_limits(struct sftp *l)
{
    static const char name[] = "limits@openssh.com";
    struct sftp_reply reply;
    struct str b = { 0 };
    add_string(&b, name, sizeof name - 1);
    int r = co_request_for(l, FXP_EXTENDED, &b, FXP_EXTENDED_REPLY, &reply);
    if (!r && reply.len >= 4 + 32) {
        uint64_t rd = ld_be64(reply.data + 12), wr = ld_be64(reply.data + 20);
        l->max_read = rd ? (uint32_t)MIN(MAX(rd, (uint64_t)PIECE), (uint64_t)PIECE_MAX) : PIECE_MAX;
        l->max_write = wr ? (uint32_t)MIN(MAX(wr, (uint64_t)PIECE), (uint64_t)PIECE_MAX) : PIECE_MAX;
    }
    free(reply.data);
    return l->connected ? 0 : r;
}

bool co_sftp_start(struct sftp *l, struct err *e)
{
    uint8_t *p = reserve(l, 9);
    if (!p)
        return err_os(e, ENOMEM, "cannot connect to '%s'", l->name);
    l->connected = true;
    l->max_read = l->max_write = PIECE;
    st_be32(p, 5);
    p[4] = FXP_INIT;
    st_be32(p + 5, VERSION);
    sent_later(l, 9);
    co_wait(&l->version.done);
    bool ok = !l->version.res && l->version.len >= 4 && ld_be32(l->version.data) == VERSION;
    if (ok)
        take_extensions(l);
    else if (!l->version.res)
        err_set(e, ERR_GENERIC, "'%s': the server does not speak version 3 of the file transfer protocol", l->name);
    else
        err_set(e, ERR_GENERIC, "'%s': the server does not offer its files by SFTP", l->name);
    free(l->version.data);
    l->version.data = NULL;
    return ok && (!l->has_limits || !co_limits(l) || err_set(e, ERR_GENERIC, "'%s': the connection is lost", l->name));
}

void sftp_init(struct sftp *l, struct loop *home, int fd)
{
    l->turn = (struct post){ .fn = turn, .arg = l };
    loop_fd_init(&l->watch, home, NULL, fd, on_socket, l);
}

void sftp_end(struct sftp *l)
{
    if (l->watch.loop) {
        loop_fd_watch(&l->watch, 0);
        loop_post_cancel(l->watch.loop, &l->turn);
        close(l->watch.fd);
        l->watch.loop = NULL;
    }
    if (!l->session)
        return;
    if (l->connected)
        ssh.ssh_disconnect(l->session);
    l->connected = false;
    ssh.ssh_free(l->session);           /* with its channel and its socket */
    l->session = NULL;
    l->channel = NULL;
    free(l->out);
    free(l->body);
    l->out = l->body = NULL;
    l->out_cap = l->out_len = l->out_at = 0;
}
