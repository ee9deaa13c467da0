/* SPDX-License-Identifier: MIT */
/* One NBD connection: options, then requests, several at once. What the client says is bounded before it is used. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/nbd_proto.h"
#include "base/log.h"
#include "block/nbd_server.h"

enum { IN_FLIGHT = 32, BYTES_IN_FLIGHT = 2 * NBD_MAX_REQUEST, MAX_EXTENTS = 4096, FIRST_CONTEXT = 1 /* what number 0 is called on the wire */ };
#define TLS_NS INT64_C(30000000000)

struct conn {
    struct nbd_client *c;
    struct blk *blk;
    bool no_zeroes, structured;
    uint64_t contexts;              /* those that were asked for, of the export whose ->serial is ->contexts_of */
    uint64_t contexts_of;
    struct co_mutex sending;
    struct co_queue room;
    struct co_event idle;
    unsigned in_flight;
    uint64_t bytes;                 /* of memory that those take */
    bool broken;
};

/* ---- options ---- */

static int co_reply(struct conn *s, uint32_t opt, uint32_t type, const void *data, uint32_t len)
{
    uint8_t h[20];
    struct iovec v[2] = { { h, sizeof h }, { (void *)data, len } };
    st_be64(h, NBD_REP_MAGIC);
    st_be32(h + 8, opt);
    st_be32(h + 12, type);
    st_be32(h + 16, len);
    return co_nbd_send(&s->c->wire, v, 2);
}

static int co_reply_error(struct conn *s, uint32_t opt, uint32_t type, const char *text)
{
    return co_reply(s, opt, type, text, (uint32_t)strlen(text));
}

static uint16_t export_flags(const struct conn *s, const struct nbd_export *x)
{
    struct blk_caps caps;
    blk_get_caps(x->exp.blk, &caps);
    bool ro = !x->exp.writable || caps.read_only;
    return (uint16_t)(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE |
                      (nbd_server_takes_several() ? NBD_FLAG_CAN_MULTI_CONN : 0) |
                      (ro ? NBD_FLAG_READ_ONLY : NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO) |
                      (s->structured ? NBD_FLAG_SEND_DF : 0));
}

static void attach(struct conn *s, struct nbd_export *x)
{
    s->c->export = x;
    s->blk = x->exp.blk;
    blk_export_get(&x->exp);
    if (s->contexts_of != x->serial)
        s->contexts = 0;
}

static void collect(struct blk_export *x, void *list)
{
    struct nbd_export *n = (struct nbd_export *)x;
    json_array_append_new(list, json_pack("[s, s]", n->name, n->description ? n->description : ""));
}

static int co_send_name(struct conn *s, const char *name, const char *description)
{
    uint32_t n = (uint32_t)strlen(name), d = (uint32_t)strlen(description);
    uint8_t *buf = malloc(4 + n + d);
    if (!buf)
        return -ENOMEM;
    st_be32(buf, n);
    memcpy(buf + 4, name, n);
    memcpy(buf + 4 + n, description, d);
    int r = co_reply(s, NBD_OPT_LIST, NBD_REP_SERVER, buf, 4 + n + d);
    free(buf);
    return r;
}

static int co_list(struct conn *s, uint32_t len)
{
    int r = 0;
    if (len)
        return co_reply_error(s, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "no data is expected");
    json_t *list = json_array(), *v;        /* exports come and go while we send */
    size_t i;
    blk_export_each(&nbd_export_class.obj, collect, list);
    json_array_foreach(list, i, v)
        r = r ? r : co_send_name(s, json_string_value(json_array_get(v, 0)), json_string_value(json_array_get(v, 1)));
    json_decref(list);
    return r ? r : co_reply(s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

/* The export name at the beginning of an option's data; what follows it is at *@rest. NULL: not well formed. */
static char *option_name(uint8_t *data, uint32_t len, uint32_t *rest)
{
    uint32_t n = len >= 4 ? ld_be32(data) : UINT32_MAX;
    if (n > NBD_MAX_NAME || !range_ok(4, n, len) || memchr(data + 4, 0, n))
        return NULL;
    *rest = 4 + n;
    return xstrndup((char *)data + 4, n);
}

static int co_send_info(struct conn *s, uint32_t opt, const struct nbd_export *x)
{
    uint8_t e[12], b[14];
    struct blk_caps caps;
    blk_get_caps(x->exp.blk, &caps);
    st_be16(e, NBD_INFO_EXPORT);
    st_be64(e + 2, blk_size(x->exp.blk));
    st_be16(e + 10, export_flags(s, x));
    st_be16(b, NBD_INFO_BLOCK_SIZE);
    st_be32(b + 2, 1);
    st_be32(b + 6, MAX(caps.physical_block, 4096u));
    st_be32(b + 10, NBD_MAX_REQUEST);
    if (x->description) {
        uint32_t n = (uint32_t)strlen(x->description);
        uint8_t *d = malloc(2 + n);
        if (!d)
            return -ENOMEM;
        st_be16(d, NBD_INFO_DESCRIPTION);
        memcpy(d + 2, x->description, n);
        int r = co_reply(s, opt, NBD_REP_INFO, d, 2 + n);
        free(d);
        if (r)
            return r;
    }
    int r = co_reply(s, opt, NBD_REP_INFO, b, sizeof b);
    return r ? r : co_reply(s, opt, NBD_REP_INFO, e, sizeof e);
}

/* NBD_OPT_INFO and NBD_OPT_GO. *@go: transmission begins. */
static int co_info(struct conn *s, uint32_t opt, uint8_t *data, uint32_t len, bool *go)
{
    uint32_t rest;
    char *name = option_name(data, len, &rest);
    if (!name || !range_ok(rest, 2, len)) {
        free(name);
        return co_reply_error(s, opt, NBD_REP_ERR_INVALID, "the request is not well formed");
    }
    struct nbd_export *x = nbd_export_find(name);
    free(name);
    if (!x)
        return co_reply_error(s, opt, NBD_REP_ERR_UNKNOWN, "there is no such export");
    blk_export_get(&x->exp);                   /* it stays while we send */
    int r = co_send_info(s, opt, x);
    r = r ? r : co_reply(s, opt, NBD_REP_ACK, NULL, 0);
    if (!r && opt == NBD_OPT_GO && !x->exp.gone) {
        attach(s, x);
        *go = true;
    }
    blk_export_put(&x->exp);
    return r;
}

/* What @n queries at @data mean; false: they are not well formed. */
static bool read_queries(const struct nbd_export *x, const uint8_t *data, uint32_t at, uint32_t len, uint32_t n, bool list, uint64_t *out)
{
    *out = list && !n ? BIT64(nbd_context_count(x)) - 1 : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = range_ok(at, 4, len) ? ld_be32(data + at) : UINT32_MAX;
        if (!range_ok(at, 4, len) || !range_ok((uint64_t)at + 4, k, len))
            return false;
        *out |= nbd_contexts_of(x, (const char *)data + at + 4, k, list);
        at += 4 + k;
    }
    return true;
}

static int co_tell_contexts(struct conn *s, uint32_t opt, const struct nbd_export *x, uint64_t set)
{
    int r = 0;
    for (unsigned i = 0; i < nbd_context_count(x) && !r; i++) {
        struct str b = { 0 };
        uint8_t id[4];
        if (!(set >> i & 1))
            continue;
        st_be32(id, opt == NBD_OPT_SET_META_CONTEXT ? FIRST_CONTEXT + i : 0);
        str_addn(&b, id, 4);
        nbd_context_name(x, i, &b);
        r = co_reply(s, opt, NBD_REP_META_CONTEXT, b.s, (uint32_t)b.len);
        str_free(&b);
    }
    return r ? r : co_reply(s, opt, NBD_REP_ACK, NULL, 0);
}

/* NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
static int co_contexts(struct conn *s, uint32_t opt, uint8_t *data, uint32_t len)
{
    uint32_t at;
    uint64_t set;
    char *name = s->structured ? option_name(data, len, &at) : NULL;
    if (!name || !range_ok(at, 4, len)) {
        free(name);
        return co_reply_error(s, opt, NBD_REP_ERR_INVALID, "structured replies come first, then an export and queries");
    }
    struct nbd_export *x = nbd_export_find(name);
    free(name);
    if (opt == NBD_OPT_SET_META_CONTEXT)
        s->contexts = 0;                        /* whatever becomes of it */
    if (!x)
        return co_reply_error(s, opt, NBD_REP_ERR_UNKNOWN, "there is no such export");
    if (!read_queries(x, data, at + 4, len, ld_be32(data + at), opt == NBD_OPT_LIST_META_CONTEXT, &set))
        return co_reply_error(s, opt, NBD_REP_ERR_INVALID, "the queries are not well formed");
    if (opt == NBD_OPT_SET_META_CONTEXT) {
        s->contexts = set;
        s->contexts_of = x->serial;
    }
    blk_export_get(&x->exp);                   /* it stays while we send */
    int r = co_tell_contexts(s, opt, x, set);
    blk_export_put(&x->exp);
    return r;
}

/* The old way: no answer but the export itself, or the end. */
static int co_export_name(struct conn *s, uint8_t *data, uint32_t len)
{
    uint8_t h[10 + 124] = { 0 };
    char *name = xstrndup((char *)data, len);
    struct nbd_export *x = memchr(data, 0, len) ? NULL : nbd_export_find(name);
    free(name);
    if (!x)
        return -ENOENT;
    attach(s, x);
    st_be64(h, blk_size(s->blk));
    st_be16(h + 8, export_flags(s, x));
    struct iovec v = { h, s->no_zeroes ? 10 : sizeof h };
    return co_nbd_send(&s->c->wire, &v, 1);
}

/* NBD_OPT_STARTTLS: what was agreed on before does not count any more (section "TLS support"). */
static int co_start_tls(struct conn *s, uint32_t len)
{
    struct err e = ERR_INIT;
    struct nbd_wire *w = &s->c->wire;
    if (!nbd_server_creds())
        return co_reply_error(s, NBD_OPT_STARTTLS, NBD_REP_ERR_UNSUP, "this server has no TLS");
    if (len || w->tls)
        return co_reply_error(s, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, w->tls ? "TLS is in use already" : "no data is expected");
    struct tls *t = tls_new(nbd_server_creds(), true, w->fd, NULL, &e);
    int r = co_reply(s, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
    if (!r && t && co_tls_handshake(t, w->deadline ? w->deadline : clock_now(CLOCK_HOST) + TLS_NS, &e)) {
        w->tls = t;
        s->structured = false;
        s->contexts = 0;
        return 0;
    }
    if (e.msg[0])
        log_warn("NBD client: %s", e.msg);
    tls_free(t);
    return r ? r : -EACCES;
}

static int co_option(struct conn *s, uint32_t opt, uint8_t *data, uint32_t len, bool *go)
{
    if (nbd_server_creds() && !s->c->wire.tls && opt != NBD_OPT_STARTTLS && opt != NBD_OPT_ABORT)
        return opt == NBD_OPT_EXPORT_NAME ? -EACCES : co_reply_error(s, opt, NBD_REP_ERR_TLS_REQD, "this server requires TLS");
    switch (opt) {
    case NBD_OPT_STARTTLS: return co_start_tls(s, len);
    case NBD_OPT_EXPORT_NAME: *go = true; return co_export_name(s, data, len);
    case NBD_OPT_ABORT: co_reply(s, opt, NBD_REP_ACK, NULL, 0); return -EPIPE;
    case NBD_OPT_LIST: return co_list(s, len);
    case NBD_OPT_INFO: case NBD_OPT_GO: return co_info(s, opt, data, len, go);
    case NBD_OPT_STRUCTURED_REPLY:
        if (len)
            return co_reply_error(s, opt, NBD_REP_ERR_INVALID, "no data is expected");
        s->structured = true;
        return co_reply(s, opt, NBD_REP_ACK, NULL, 0);
    case NBD_OPT_LIST_META_CONTEXT: case NBD_OPT_SET_META_CONTEXT: return co_contexts(s, opt, data, len);
    default: return co_reply_error(s, opt, NBD_REP_ERR_UNSUP, "this server does not know the option");
    }
}

/* One option and its answer. *@go: transmission begins. */
static int co_next_option(struct conn *s, bool *go)
{
    uint8_t o[16];
    int r = co_nbd_recv(&s->c->wire, o, sizeof o);
    uint32_t opt = ld_be32(o + 8), len = ld_be32(o + 12);
    if (r || ld_be64(o) != NBD_OPTS_MAGIC || len > (opt == NBD_OPT_EXPORT_NAME ? (uint32_t)NBD_MAX_OPTION : (uint32_t)NBD_MAX_REQUEST))
        return r ? r : -EINVAL;
    if (len > NBD_MAX_OPTION) {
        r = co_nbd_skip(&s->c->wire, len);
        return r ? r : co_reply_error(s, opt, NBD_REP_ERR_TOO_BIG, "there is more data than this server takes");
    }
    uint8_t *data = malloc(len + 1);
    r = data ? co_nbd_recv(&s->c->wire, data, len) : -ENOMEM;
    r = r ? r : co_option(s, opt, data, len, go);
    free(data);
    return r;
}

static int co_handshake(struct conn *s)
{
    uint8_t h[18], c[4];
    struct iovec v = { h, sizeof h };
    st_be64(h, NBD_MAGIC);
    st_be64(h + 8, NBD_OPTS_MAGIC);
    st_be16(h + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    int r = co_nbd_send(&s->c->wire, &v, 1);
    r = r ? r : co_nbd_recv(&s->c->wire, c, sizeof c);
    uint32_t flags = r ? 0 : ld_be32(c);
    if (!r && flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
        return -EINVAL;
    s->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    for (bool go = false; !r && !go;)
        r = co_next_option(s, &go);
    return r;
}

/* ---- requests ---- */

struct request { struct conn *s; uint16_t flags, type; uint8_t cookie[8]; uint64_t off; uint32_t len, memory; uint8_t *data; };

/* Its error number as the client is told: ENOTSUP says that a fast way was wanted, and there is none. */
static uint32_t error_of(const struct request *q, int r)
{
    return r == -ENOTSUP && !(q->flags & NBD_CMD_FLAG_FAST_ZERO) ? nbd_errno(-EINVAL) : nbd_errno(r);
}

static int co_simple(struct request *q, int r, const void *data, uint32_t len)
{
    uint8_t h[16];
    struct iovec v[2] = { { h, sizeof h }, { (void *)data, r ? 0 : len } };
    st_be32(h, NBD_SIMPLE_MAGIC);
    st_be32(h + 4, error_of(q, r));
    memcpy(h + 8, q->cookie, 8);
    return co_nbd_send(&q->s->c->wire, v, 2);
}

static int co_chunk(struct request *q, uint16_t type, bool done, void *a, uint32_t alen, const void *b, uint32_t blen)
{
    uint8_t h[20];
    struct iovec v[3] = { { h, sizeof h }, { a, alen }, { (void *)b, blen } };
    st_be32(h, NBD_CHUNK_MAGIC);
    st_be16(h + 4, done ? NBD_CHUNK_DONE : 0);
    st_be16(h + 6, type);
    memcpy(h + 8, q->cookie, 8);
    st_be32(h + 16, alen + blen);
    return co_nbd_send(&q->s->c->wire, v, 3);
}

static int co_error(struct request *q, int r)
{
    uint8_t e[6];
    if (!q->s->structured)
        return co_simple(q, r, NULL, 0);
    st_be32(e, error_of(q, r));
    st_be16(e + 4, 0);
    return co_chunk(q, NBD_CHUNK_ERROR, true, e, sizeof e, NULL, 0);
}

static int co_done(struct request *q, int r)
{
    co_mutex_lock(&q->s->sending);
    int x = r ? co_error(q, r) : q->s->structured && (q->type == NBD_CMD_READ || q->type == NBD_CMD_BLOCK_STATUS)
        ? co_chunk(q, NBD_CHUNK_NONE, true, NULL, 0, NULL, 0) : co_simple(q, 0, NULL, 0);
    co_mutex_unlock(&q->s->sending);
    return x;
}

/* A piece of data, or a hole. */
static int co_send_piece(struct request *q, uint64_t off, uint32_t len, const uint8_t *data, bool last)
{
    uint8_t o[12];
    st_be64(o, off);
    st_be32(o + 8, len);
    co_mutex_lock(&q->s->sending);
    int r = data ? co_chunk(q, NBD_CHUNK_OFFSET_DATA, last, o, 8, data, len) : co_chunk(q, NBD_CHUNK_OFFSET_HOLE, last, o, 12, NULL, 0);
    co_mutex_unlock(&q->s->sending);
    return r;
}

/* Holes are told as such, without being read. */
static int co_read_sparse(struct request *q, uint8_t *buf)
{
    for (uint64_t at = 0; at < q->len;) {
        struct blk_extent x = { .len = q->len - at };
        int r = q->flags & NBD_CMD_FLAG_DF ? 0 : co_blk_map(q->s->blk, q->off + at, q->len - at, &x);
        bool hole = !r && x.zero && !(q->flags & NBD_CMD_FLAG_DF);
        struct iovec v = { buf, x.len };
        r = r ? r : hole ? 0 : co_blk_preadv(q->s->blk, q->off + at, x.len, &v, 1, 0);
        if (r)
            return co_done(q, r);
        r = co_send_piece(q, q->off + at, (uint32_t)x.len, hole ? NULL : buf, at + x.len == q->len);
        if (r)
            return r;
        at += x.len;
    }
    return 0;
}

static int co_read(struct request *q)
{
    uint8_t *buf = malloc(MAX(q->len, 1u));
    struct iovec v = { buf, q->len };
    int r;
    if (!buf)
        return co_done(q, -ENOMEM);
    if (q->s->structured) {
        r = q->len ? co_read_sparse(q, buf) : co_done(q, 0);
    } else {
        int x = co_blk_preadv(q->s->blk, q->off, q->len, &v, 1, 0);
        co_mutex_lock(&q->s->sending);
        r = co_simple(q, x, buf, q->len);
        co_mutex_unlock(&q->s->sending);
    }
    free(buf);
    return r;
}

/* One chunk for each context that the client chose. */
static int co_status(struct request *q)
{
    unsigned max = q->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : MAX_EXTENTS, n;
    uint64_t left = q->s->contexts;
    uint8_t *d = left && q->len ? malloc(4 + max * 8) : NULL;
    int r = d ? 0 : co_done(q, -EINVAL);
    for (unsigned i = 0; d && left && !r; i++) {
        if (!(left >> i & 1))
            continue;
        left &= ~BIT64(i);
        int x = co_nbd_extents(q->s->c->export, i, q->off, q->len, d + 4, max, &n);
        if (x) {
            r = co_done(q, x);
            break;
        }
        st_be32(d, FIRST_CONTEXT + i);
        co_mutex_lock(&q->s->sending);
        r = co_chunk(q, NBD_CHUNK_BLOCK_STATUS, !left, d, 4 + n * 8, NULL, 0);
        co_mutex_unlock(&q->s->sending);
    }
    free(d);
    return r;
}

static int co_change(struct request *q)
{
    struct blk *b = q->s->blk;
    unsigned fua = q->flags & NBD_CMD_FLAG_FUA ? BLK_FUA : 0;
    struct iovec v = { q->data, q->len };
    int r;
    switch (q->type) {
    case NBD_CMD_WRITE: return co_blk_pwritev(b, q->off, q->len, &v, 1, fua);
    case NBD_CMD_WRITE_ZEROES:
        return co_blk_zero(b, q->off, q->len, fua | (q->flags & NBD_CMD_FLAG_NO_HOLE ? 0 : BLK_ZERO_UNMAP) |
                            (q->flags & NBD_CMD_FLAG_FAST_ZERO ? BLK_ZERO_NO_FALLBACK : 0));
    case NBD_CMD_TRIM:
        r = co_blk_discard(b, q->off, q->len);
        return !r && fua ? co_blk_flush(b) : r;
    default: return -EINVAL;
    }
}

/* What may be set with each command, and with no other ("Command flags"); FUA with all. */
static uint16_t flags_for(const struct request *q)
{
    switch (q->type) {
    case NBD_CMD_READ: return NBD_CMD_FLAG_FUA | (q->s->structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES: return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS: return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default: return NBD_CMD_FLAG_FUA;
    }
}

static int co_execute(struct request *q)
{
    bool grows = q->type == NBD_CMD_WRITE || q->type == NBD_CMD_WRITE_ZEROES, changes = grows || q->type == NBD_CMD_TRIM;
    if (q->flags & ~flags_for(q)) {
        q->flags = 0;
        return co_done(q, -EINVAL);
    }
    if (q->type == NBD_CMD_FLUSH)
        return co_done(q, co_blk_flush(q->s->blk));
    if (!range_ok(q->off, q->len, blk_size(q->s->blk)))
        return co_done(q, grows ? -ENOSPC : -EINVAL);
    if (changes && !q->s->c->export->exp.writable)
        return co_done(q, -EPERM);
    switch (q->type) {
    case NBD_CMD_READ: return co_read(q);
    case NBD_CMD_BLOCK_STATUS: return co_status(q);
    case NBD_CMD_CACHE: return co_done(q, 0);
    default: return co_done(q, changes ? co_change(q) : -EINVAL);
    }
}

static void run_request(void *arg)
{
    struct request *q = arg;
    struct conn *s = q->s;
    if (co_execute(q))
        s->broken = true;
    s->in_flight--;
    s->bytes -= q->memory;
    free(q->data);
    free(q);
    co_queue_wake_one(&s->room);
    if (!s->in_flight)
        co_wake(&s->idle);
}

/* Reads one request and starts it. */
static int co_next(struct conn *s)
{
    uint8_t h[NBD_REQUEST_LEN];
    int r = co_nbd_recv(&s->c->wire, h, sizeof h);
    if (r || ld_be32(h) != NBD_REQUEST_MAGIC)
        return r ? r : -EINVAL;
    struct request *q = xnew(struct request);
    *q = (struct request){ .s = s, .flags = ld_be16(h + 4), .type = ld_be16(h + 6), .off = ld_be64(h + 16), .len = ld_be32(h + 24) };
    memcpy(q->cookie, h + 8, 8);
    bool too_long = (q->type == NBD_CMD_READ || q->type == NBD_CMD_WRITE) && q->len > NBD_MAX_REQUEST;
    if (q->type == NBD_CMD_DISC || (too_long && q->type == NBD_CMD_WRITE))
        r = -EPIPE;
    else if (too_long)
        r = co_done(q, -EINVAL) ? -EPIPE : 1;
    if (!r && q->type == NBD_CMD_WRITE) {
        q->data = malloc(MAX(q->len, 1u));
        r = q->data ? co_nbd_recv(&s->c->wire, q->data, q->len) : -ENOMEM;
    }
    if (r) {
        free(q->data);
        free(q);
        return r < 0 ? r : 0;
    }
    q->memory = q->type == NBD_CMD_READ || q->type == NBD_CMD_WRITE ? q->len : 0;
    s->bytes += q->memory;
    s->in_flight++;
    co_event_clear(&s->idle);
    co_spawn(loop_main(), NULL, run_request, q);
    while (s->in_flight >= IN_FLIGHT || s->bytes > BYTES_IN_FLIGHT)
        co_queue_wait(&s->room);
    return 0;
}

void co_nbd_serve(struct nbd_client *c)
{
    struct conn *s = xnew(struct conn);
    s->c = c;
    int r = co_handshake(s);
    c->wire.deadline = 0;
    while (!r && !c->closing && !s->broken)
        r = co_next(s);
    if (s->in_flight)
        co_wait(&s->idle);
    if (c->export)
        blk_export_put(&c->export->exp);
    c->export = NULL;
    free(s);
}
