/* SPDX-License-Identifier: MIT */
/* "nbd": an export of an NBD server. A connection that breaks is made anew; requests on their way wait for it as long as allowed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/log.h"
#include "block/backing.h"
#include "block/job.h"
#include "block/nbd_client.h"

enum { RETRY_NS = 200000000, NS = 1000000000 };
#define OPEN_NS INT64_C(30000000000)        /* for the first handshake */
#define LEAVE_NS INT64_C(5000000000)        /* to say that we go */

static struct blk_nbd *of(struct blk_node *n) { return (struct blk_nbd *)n; }

/* ---- answers ---- */

static int from_wire(uint32_t e)
{
    switch (e) {
    case 0: return 0;
    case 1: return -EPERM;
    case 5: return -EIO;
    case 12: return -ENOMEM;
    case 22: return -EINVAL;
    case 28: return -ENOSPC;
    case 75: return -EOVERFLOW;
    case 95: return -ENOTSUP;
    case 108: return -ESHUTDOWN;
    default: return -EINVAL;
    }
}

static struct nbd_slot *slot_of(struct blk_nbd *s, const uint8_t *cookie)
{
    uint64_t i = ld_be64(cookie);
    return i < NBD_SLOTS && s->slot[i].sent ? &s->slot[i] : NULL;
}

/* Notes that [off, off + len) came; false: a part of it had come before, or it is in more pieces than anybody sends. */
static bool note_piece(struct nbd_slot *q, uint64_t off, uint64_t len)
{
    uint64_t to = off + len;
    unsigned i = 0;
    while (i < q->n_got && q->got[i].from < off)
        i++;
    if (!len || (i && q->got[i - 1].to > off) || (i < q->n_got && q->got[i].from < to))
        return false;
    bool left = i && q->got[i - 1].to == off, right = i < q->n_got && q->got[i].from == to;
    if (left) {
        q->got[i - 1].to = right ? q->got[i].to : to;
    } else if (right) {
        q->got[i].from = off;
    } else {
        if (q->n_got == NBD_ISLANDS)
            return false;
        memmove(&q->got[i + 1], &q->got[i], (q->n_got++ - i) * sizeof q->got[0]);
        q->got[i].from = off;
        q->got[i].to = to;
    }
    if (left && right)
        memmove(&q->got[i], &q->got[i + 1], (--q->n_got - i) * sizeof q->got[0]);
    return true;
}

static bool is_whole(const struct nbd_slot *q)
{
    return q->n_got == 1 && q->got[0].from == q->off && q->got[0].to == q->off + q->len;
}

/* @len bytes at @off of the export into the reader's memory. */
static int co_recv_data(struct blk_nbd *s, struct nbd_slot *q, uint64_t off, uint64_t len, bool hole)
{
    struct iovec *v;
    if (q->type != NBD_CMD_READ || off < q->off || !range_ok(off - q->off, len, q->len) || !note_piece(q, off, len))
        return -EPROTO;
    v = calloc(q->niov + 1, sizeof *v);
    if (!v)
        return -ENOMEM;
    unsigned n = blk_iov_slice(q->iov, q->niov, off - q->off, len, v);
    int r = 0;
    if (hole)
        blk_iov_zero(v, n);
    else
        r = co_nbd_recvv(&s->wire, v, n);
    free(v);
    return r;
}

/* The one extent that was asked for; a server that tells more is not listened to. */
static int co_recv_status(struct blk_nbd *s, struct nbd_slot *q, uint32_t len)
{
    uint8_t b[12];
    if (!q->extent || q->told || len < sizeof b || len > NBD_MAX_STATUS || len % 8 != 4)
        return -EPROTO;
    int r = co_nbd_recv(&s->wire, b, sizeof b);
    if (r)
        return r;
    uint32_t flags = ld_be32(b + 8);
    if (ld_be32(b) != s->context_id || !ld_be32(b + 4))
        return -EPROTO;
    if (s->context && str_eq(s->context, "qemu:allocation-depth"))
        flags = MIN(flags, 2u);     /* 0 nowhere, 1 here, 2 below: as x-dirty-bitmap shows it */
    q->told = true;
    q->extent->len = MIN(ld_be32(b + 4), q->len);
    q->extent->data = !(flags & NBD_STATE_HOLE);
    q->extent->zero = flags & NBD_STATE_ZERO;
    return co_nbd_skip(&s->wire, len - (uint32_t)sizeof b);
}

/* Its text is for people, and theirs to ask the server for. */
static int co_recv_error(struct blk_nbd *s, struct nbd_slot *q, uint32_t len)
{
    uint8_t b[6];
    if (len < sizeof b || len > 8192)
        return -EPROTO;
    int r = co_nbd_recv(&s->wire, b, sizeof b);
    if (r || ld_be16(b + 4) > len - sizeof b)
        return r ? r : -EPROTO;
    q->res = from_wire(ld_be32(b));
    if (!q->res)
        q->res = -EIO;
    return co_nbd_skip(&s->wire, len - (uint32_t)sizeof b);
}

static int co_chunk(struct blk_nbd *s, struct nbd_slot *q, uint16_t type, uint32_t len, bool done)
{
    uint8_t b[12];
    int r;
    switch (type) {
    case NBD_CHUNK_NONE: return len || !done ? -EPROTO : 0;
    case NBD_CHUNK_OFFSET_DATA:
        r = len > 8 ? co_nbd_recv(&s->wire, b, 8) : -EPROTO;
        return r ? r : co_recv_data(s, q, ld_be64(b), len - 8, false);
    case NBD_CHUNK_OFFSET_HOLE:
        r = len == 12 ? co_nbd_recv(&s->wire, b, 12) : -EPROTO;
        return r ? r : co_recv_data(s, q, ld_be64(b), ld_be32(b + 8), true);
    case NBD_CHUNK_BLOCK_STATUS: return co_recv_status(s, q, len);
    default: return type & 0x8000 ? co_recv_error(s, q, len) : -EPROTO;
    }
}

/* An answer that says that all went well has all that was asked for. */
static bool is_complete(const struct nbd_slot *q)
{
    if (q->res)
        return true;
    return q->type == NBD_CMD_READ ? is_whole(q) : !q->extent || q->told;
}

/* One reply or chunk of one. */
static int co_answer(struct blk_nbd *s)
{
    uint8_t h[20];
    int r = co_nbd_recv(&s->wire, h, 16);
    if (r)
        return r;
    bool done = true;
    struct nbd_slot *q;
    if (ld_be32(h) == NBD_SIMPLE_MAGIC) {
        q = slot_of(s, h + 8);
        if (!q || (s->structured && q->type == NBD_CMD_READ))
            return -EPROTO;
        q->res = from_wire(ld_be32(h + 4));
        r = q->res || q->type != NBD_CMD_READ ? 0 : co_recv_data(s, q, q->off, q->len, false);
    } else if (ld_be32(h) == NBD_CHUNK_MAGIC && s->structured) {
        q = slot_of(s, h + 8);
        r = q ? co_nbd_recv(&s->wire, h + 16, 4) : -EPROTO;
        done = ld_be16(h + 4) & NBD_CHUNK_DONE;
        r = r ? r : co_chunk(s, q, ld_be16(h + 6), ld_be32(h + 16), done);
    } else {
        return -EPROTO;
    }
    if (r || !done)
        return r;
    if (q->res == -ESHUTDOWN)
        return -ESHUTDOWN;                  /* the server goes: what is on its way is for the next one ("Error values") */
    if (!is_complete(q))
        return -EPROTO;
    q->sent = false;
    co_wake(&q->done);
    return 0;
}

/* Nothing more comes; said as far as the server listens. */
static void co_disconnect(struct blk_nbd *s)
{
    uint8_t h[NBD_REQUEST_LEN] = { 0 };
    struct iovec v = { h, sizeof h };
    st_be32(h, NBD_REQUEST_MAGIC);
    st_be16(h + 6, NBD_CMD_DISC);
    s->wire.deadline = clock_now(CLOCK_HOST) + LEAVE_NS;
    co_nbd_send(&s->wire, &v, 1);
}

static void reader(void *arg)
{
    struct blk_nbd *s = arg;
    int r = 0;
    while (!r) {
        r = co_answer(s);
        blk_heard(&s->asked);
    }
    if (!s->closing)
        log_warn("the connection to NBD export '%s' is lost: %s", s->export, strerror(-r));
    s->connected = false;
    if (r == -ESHUTDOWN && !s->sending.owner)
        co_disconnect(s);
    shutdown(s->wire.fd, SHUT_RDWR);
    for (unsigned i = 0; i < NBD_SLOTS; i++) {
        if (!s->slot[i].sent)
            continue;
        s->slot[i].sent = false;
        s->slot[i].lost = true;
        co_wake(&s->slot[i].done);
    }
    s->reading = false;
    co_wake(&s->reader_done);
}

static void start_reader(struct blk_nbd *s)
{
    s->connected = s->reading = true;
    co_event_clear(&s->reader_done);
    co_spawn(s->node.home, NULL, reader, s);
}

/* ---- requests ---- */

/* A connection, until @deadline. */
static int co_ensure(struct blk_nbd *s, int64_t deadline)
{
    int r = 0;
    co_mutex_lock(&s->connecting);
    while (!s->connected && !s->closing && !job_is_given_up(&s->node)) {
        struct err e = ERR_INIT;
        if (s->reading)
            co_wait(&s->reader_done);
        co_mutex_lock(&s->sending);         /* who is in the midst of a request ends first: the rest is nothing for a new connection */
        nbd_wire_close(&s->wire);
        uint64_t size = s->size;
        bool ok = co_nbd_connect(s, deadline, &e);
        if (ok && !s->closing)
            start_reader(s);
        co_mutex_unlock(&s->sending);
        if (ok && s->size != size)
            log_warn("NBD export '%s' has another size than before", s->export);
        if (ok)
            break;
        if (clock_now(CLOCK_HOST) >= deadline) {
            r = -EIO;
            break;
        }
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + RETRY_NS);
    }
    co_mutex_unlock(&s->connecting);
    return s->connected ? r : -EIO;
}

/* 0: an answer comes, or the word that it is lost. */
static int co_send_request(struct blk_nbd *s, struct nbd_slot *q, uint16_t flags, const struct iovec *data, unsigned n)
{
    uint8_t h[NBD_REQUEST_LEN];
    struct iovec *v = calloc(n + 1, sizeof *v);
    if (!v)
        return -ENOMEM;
    st_be32(h, NBD_REQUEST_MAGIC);
    st_be16(h + 4, flags);
    st_be16(h + 6, q->type);
    st_be64(h + 8, (uint64_t)(q - s->slot));
    st_be64(h + 16, q->off);
    st_be32(h + 24, q->len);
    v[0] = (struct iovec){ h, sizeof h };
    for (unsigned i = 0; i < n; i++)
        v[i + 1] = data[i];
    co_mutex_lock(&s->sending);
    bool here = q->sent = s->connected;
    int r = here ? co_nbd_send(&s->wire, v, n + 1) : -EPIPE;
    if (r && here) {
        shutdown(s->wire.fd, SHUT_RDWR);        /* half a request was sent: the reader ends, and tells that it is lost */
        r = 0;
    }
    co_mutex_unlock(&s->sending);
    free(v);
    return r;
}

static struct nbd_slot *co_take_slot(struct blk_nbd *s)
{
    for (;;) {
        for (unsigned i = 0; i < NBD_SLOTS; i++)
            if (!s->slot[i].used)
                return &s->slot[i];
        co_queue_wait(&s->room);
    }
}

/* One request, sent again over a new connection if the old one broke. */
static int co_request(struct blk_nbd *s, uint16_t type, uint16_t flags, uint64_t off, uint32_t len, const struct iovec *iov, unsigned niov,
                      struct blk_extent *extent)
{
    int64_t deadline = clock_now(CLOCK_HOST) + (int64_t)s->reconnect_delay * NS;
    struct nbd_slot *q = co_take_slot(s);
    blk_ask(&s->asked);
    *q = (struct nbd_slot){ .used = true, .type = type, .off = off, .len = len };
    int r;
    do {
        r = s->connected ? 0 : co_ensure(s, deadline);
        if (r)
            break;
        q->iov = type == NBD_CMD_READ ? iov : NULL;
        q->niov = q->iov ? niov : 0;
        q->extent = extent;
        q->res = 0;
        q->n_got = 0;
        q->told = false;
        q->lost = false;
        co_event_clear(&q->done);
        r = co_send_request(s, q, flags, iov, type == NBD_CMD_WRITE ? niov : 0);
        if (!r)
            co_wait(&q->done);
        if (r == -ENOMEM)
            break;
        q->lost |= r != 0;
        r = q->lost ? -EIO : q->res;
    } while (q->lost && !s->closing && clock_now(CLOCK_HOST) < deadline);
    q->used = false;
    blk_answered(&s->asked);
    co_queue_wake_one(&s->room);
    return r;
}

/* Whole blocks, in pieces that the server takes. */
static int co_split(struct blk_node *n, uint16_t type, uint16_t flags, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct blk_nbd *s = of(n);
    struct iovec *part = niov ? calloc(niov, sizeof *part) : NULL;
    int r = niov && !part ? -ENOMEM : 0;
    for (uint64_t at = 0; at < len && !r;) {
        uint32_t k = (uint32_t)MIN(len - at, (uint64_t)s->max_request);
        unsigned m = niov ? blk_iov_slice(iov, niov, at, k, part) : 0;
        r = co_request(s, type, flags, off + at, k, part, m, NULL);
        at += k;
    }
    free(part);
    return r;
}

static uint16_t fua(struct blk_node *n, unsigned flags) { return flags & BLK_FUA && of(n)->flags & NBD_FLAG_SEND_FUA ? NBD_CMD_FLAG_FUA : 0; }

static int co_flush(struct blk_node *n)
{
    return of(n)->flags & NBD_FLAG_SEND_FLUSH ? co_request(of(n), NBD_CMD_FLUSH, 0, 0, 0, NULL, 0, NULL) : 0;
}

static int co_whole(struct blk_node *n, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_split(n, write ? NBD_CMD_WRITE : NBD_CMD_READ, write ? fua(n, flags) : 0, off, len, iov, niov);
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_blk_ragged(n, &of(n)->ragged, false, off, len, iov, niov, 0);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_blk_ragged(n, &of(n)->ragged, true, off, len, iov, niov, flags);
    return !r && flags & BLK_FUA && !fua(n, flags) ? co_flush(n) : r;
}

static int co_zero_whole(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    uint16_t how = (uint16_t)(fua(n, flags) | (flags & BLK_ZERO_UNMAP ? 0 : NBD_CMD_FLAG_NO_HOLE) | (flags & BLK_ZERO_NO_FALLBACK ? NBD_CMD_FLAG_FAST_ZERO : 0));
    return co_split(n, NBD_CMD_WRITE_ZEROES, how, off, len, NULL, 0);
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    if (!(of(n)->flags & NBD_FLAG_SEND_WRITE_ZEROES) || (flags & BLK_ZERO_NO_FALLBACK && !(of(n)->flags & NBD_FLAG_SEND_FAST_ZERO)))
        return -ENOTSUP;
    int r = co_blk_ragged_zero(n, &of(n)->ragged, off, len, flags, co_zero_whole);
    return !r && flags & BLK_FUA && !fua(n, flags) ? co_flush(n) : r;
}

static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    uint64_t block = of(n)->ragged.block, from = align_up(off, block), to = align_down(off + len, block);
    return of(n)->flags & NBD_FLAG_SEND_TRIM && from < to ? co_split(n, NBD_CMD_TRIM, 0, from, to - from, NULL, 0) : 0;
}

static int co_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct blk_nbd *s = of(n);
    uint64_t block = s->ragged.block, from = align_down(off, block);
    uint32_t k = (uint32_t)MIN(align_up(off + len, block) - from, UINT64_C(0x7fff0000));
    int r = 0;
    if (s->status) {
        r = co_request(s, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, from, k, NULL, 0, out);
        k = !r ? (uint32_t)out->len : k;
    }
    if (!r && k <= off - from) {            /* less than a block */
        out->data = true;
        out->zero = false;
        k = (uint32_t)block;
    }
    out->len = MIN(len, k - (off - from));
    out->has_off = !r;
    out->off = off;
    out->where = n;
    return r;
}

/* ---- life ---- */

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_nbd *s = of(n);
    int64_t deadline = clock_now(CLOCK_HOST) + (int64_t)s->open_timeout * NS;
    blk_ragged_init(&s->ragged);
    s->ragged.co_whole = co_whole;
    if (s->tls_hostname && !s->tls_creds)
        return err_set(e, ERR_VALUE, "tls-hostname has no effect without tls-creds");
    if (s->tls && !s->tls_creds) {
        err_set(e, ERR_VALUE, "TLS is asked for, but not with which credentials: tls-creds is missing");
        return err_hint(e, "tls-creds=ID of an -object tls-creds-x509, -psk or -anon; nbds://HOST/EXPORT?tls-creds=ID");
    }
    s->creds = s->tls_creds ? tls_creds_get(s->tls_creds, false, e) : NULL;
    if (s->tls_creds && !s->creds)
        return err_prefix(e, "tls-creds");
    if (!s->export)
        s->export = xstrdup("");
    if (strlen(s->export) > NBD_MAX_NAME)
        return err_set(e, ERR_VALUE, "an export's name has at most %d bytes", NBD_MAX_NAME);
    while (!co_nbd_connect(s, MAX(deadline, clock_now(CLOCK_HOST) + OPEN_NS), e)) {
        if (clock_now(CLOCK_HOST) >= deadline)
            return false;
        *e = (struct err)ERR_INIT;
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + RETRY_NS);
    }
    bool ro = s->flags & NBD_FLAG_READ_ONLY;
    if (ro && !n->read_only && !n->auto_read_only) {
        err_set(e, ERR_VALUE, "the NBD server's export '%s' is read-only", s->export);
        return err_hint(e, "read-only=on");
    }
    n->read_only |= ro;
    if (s->size > INT64_MAX - 4096)
        return err_set(e, ERR_VALUE, "the NBD server's export '%s' is larger than is possible here", s->export);
    uint32_t block = MAX(s->ragged.block, 512u);
    atomic_store(&n->size, align_down(s->size, block));
    n->caps = (struct blk_caps){ .read_only = n->read_only, .discard = n->discard == BLK_DISCARD_UNMAP && s->flags & NBD_FLAG_SEND_TRIM,
        .write_zeroes = s->flags & NBD_FLAG_SEND_WRITE_ZEROES, .flush = !n->no_flush && s->flags & NBD_FLAG_SEND_FLUSH, .fua = true,
        .logical_block = block, .physical_block = MAX(block, 4096u), .mem_align = 1 };
    s->name = blk_nbd_uri(s->server, s->export, s->tls_creds, s->tls_hostname);
    start_reader(s);
    return true;
}

static bool abandon(struct blk_node *n, int64_t since)
{
    struct blk_nbd *s = of(n);
    if (s->closing || !blk_asked_in_vain(&s->asked, since))
        return false;
    s->closing = true;
    if (s->wire.fd >= 0)
        shutdown(s->wire.fd, SHUT_RDWR);
    return true;
}

static void co_close(struct blk_node *n)
{
    struct blk_nbd *s = of(n);
    bool abandoned = s->closing;
    s->closing = true;
    if (s->connected && !abandoned) {
        co_disconnect(s);
        shutdown(s->wire.fd, SHUT_RDWR);
    }
    if (s->reading)
        co_wait(&s->reader_done);
    nbd_wire_close(&s->wire);
    obj_unref(s->creds);
    s->creds = NULL;
    free(s->name);
    s->name = NULL;
    blk_ragged_fini(&s->ragged);
}

static bool init(struct obj *o, struct err *e)
{
    ((struct blk_nbd *)o)->wire.fd = -1;
    return true;
}

static const char *filename(const struct blk_node *n)
{
    const char *name = ((const struct blk_nbd *)n)->name;
    return name ? name : "";
}

static const struct prop props[] = {
    PROP_JSON(struct blk_nbd, server, "server", PF_REQUIRED, "Where the server listens: server.type=inet with server.host and server.port, or server.type=unix with server.path"),
    PROP_STR(struct blk_nbd, export, "export", 0, "Name of the export; else the default one"),
    PROP_STR(struct blk_nbd, context, "x-dirty-bitmap", 0, "Context that maps show in place of base:allocation: its bit 0 as \"no data\", bit 1 as \"zero\""),
    PROP_BOOL(struct blk_nbd, tls, "tls", false, "Only through TLS: nbds:// says this; tls-creds alone is enough"),
    PROP_STR(struct blk_nbd, tls_creds, "tls-creds", 0, "Object with TLS credentials (-object tls-creds-x509, -psk, -anon): all goes through TLS, or nothing"),
    PROP_STR(struct blk_nbd, tls_hostname, "tls-hostname", 0, "Whose certificate is expected; else server.host's"),
    PROP_U32(struct blk_nbd, reconnect_delay, "reconnect-delay", 0, 0, 86400, "Seconds that requests wait for a lost server; 0: they fail, the next one tries again"),
    PROP_U32(struct blk_nbd, open_timeout, "open-timeout", 0, 0, 86400, "Seconds to try at the start"),
    PROP_END,
};
static const struct blk_driver nbd_driver = {
    .obj = { .name = "blockdev-nbd", .desc = "Export of an NBD server", .base = &blk_node_class, .size = sizeof(struct blk_nbd),
             .props = props, .init = init },
    .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero, .co_discard = co_discard,
    .co_flush = co_flush, .co_map = co_map, .filename = filename,
};
OBJ_CLASS(&nbd_driver.obj);
