/* SPDX-License-Identifier: MIT */
/* The client's side of the NBD handshake. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/nbd_client.h"
#include "loop/sock_place.h"

#define CONNECT_NS INT64_C(30000000000)
#define LEAST_NS INT64_C(5000000000)        /* for a handshake, however little time there is */

static const char *context_name(const struct blk_nbd *s) { return s->context ? s->context : "base:allocation"; }

/* ---- the socket ---- */

static bool co_socket(struct blk_nbd *s, struct err *e)
{
    struct sock_addr at;
    struct sock_place p;
    s->wire.fd = -1;
    bool ok = sock_place_from_json(&p, s->server, false, NBD_PORT, "server", e);
    if (ok && p.kind == SOCK_FD && s->given_used)
        ok = err_set(e, ERR_STATE, "the connection that was given has ended");
    if (ok)
        s->wire.fd = co_sock_connect(&p, &at, e);
    s->given_used = true;
    sock_place_release(&p);
    return s->wire.fd >= 0;
}

/* ---- options ---- */

static int co_send_option(struct blk_nbd *s, uint32_t opt, const void *data, uint32_t len)
{
    uint8_t h[16];
    struct iovec v[2] = { { h, sizeof h }, { (void *)data, len } };
    st_be64(h, NBD_OPTS_MAGIC);
    st_be32(h + 8, opt);
    st_be32(h + 12, len);
    return co_nbd_send(&s->wire, v, 2);
}

/* One reply to @opt: its type, and its data (bounded, terminated) in a new buffer. */
static int co_recv_reply(struct blk_nbd *s, uint32_t opt, uint32_t *type, uint8_t **data, uint32_t *len)
{
    uint8_t h[20];
    int r = co_nbd_recv(&s->wire, h, sizeof h);
    *data = NULL;
    if (r)
        return r;
    *type = ld_be32(h + 12);
    *len = ld_be32(h + 16);
    if (ld_be64(h) != NBD_REP_MAGIC || ld_be32(h + 8) != opt || *len > NBD_MAX_OPTION)
        return -EPROTO;
    *data = calloc(1, *len + 1);
    return *data ? co_nbd_recv(&s->wire, *data, *len) : -ENOMEM;
}

/* Ends the handshake in good order ("Termination of the session during option haggling"): no reply is waited for. */
static void co_leave(struct blk_nbd *s) { co_send_option(s, NBD_OPT_ABORT, NULL, 0); }

/* 1: acknowledged, 0: refused; -errno. Names of contexts are looked at on the way. */
static int co_simple_option(struct blk_nbd *s, uint32_t opt, const void *data, uint32_t len, bool *context)
{
    int r = co_send_option(s, opt, data, len);
    for (int i = 0; !r && i < 16; i++) {
        uint32_t type, n;
        uint8_t *d;
        r = co_recv_reply(s, opt, &type, &d, &n);
        if (!r && type == NBD_REP_META_CONTEXT && context && n == 4 + strlen(context_name(s)) && !memcmp(d + 4, context_name(s), n - 4)) {
            *context = true;
            s->context_id = ld_be32(d);
        }
        free(d);
        if (!r && type == NBD_REP_ACK)
            return 1;
        if (!r && type & NBD_REP_ERR(0))
            return 0;
    }
    return r ? r : -EPROTO;
}

static void take_info(struct blk_nbd *s, const uint8_t *d, uint32_t n, bool *got)
{
    if (n == 12 && ld_be16(d) == NBD_INFO_EXPORT) {
        s->size = ld_be64(d + 2);
        s->flags = ld_be16(d + 10);
        *got = true;
    } else if (n == 14 && ld_be16(d) == NBD_INFO_BLOCK_SIZE) {
        s->ragged.block = ld_be32(d + 2);
        s->max_request = MIN(ld_be32(d + 10), (uint32_t)NBD_MAX_REQUEST);
    }
}

/* "Size constraints": what was told keeps to the rules. */
static bool limits_ok(struct blk_nbd *s, struct err *e)
{
    uint32_t block = s->ragged.block;
    if (!is_pow2(block) || block > NBD_MAX_BLOCK || s->max_request < block)
        return err_set(e, ERR_GENERIC, "the NBD server takes requests of %u to %u bytes, which cannot be", block, s->max_request);
    s->max_request = align_down(s->max_request, block);
    return true;
}

/* The way of servers that do not know NBD_OPT_GO. An export that they do not have ends the connection. */
static bool co_export_name(struct blk_nbd *s, struct err *e)
{
    uint8_t d[10 + 124];
    int r = co_send_option(s, NBD_OPT_EXPORT_NAME, s->export, (uint32_t)strlen(s->export));
    r = r ? r : co_nbd_recv(&s->wire, d, s->no_zeroes ? 10 : sizeof d);
    if (r)
        return err_set(e, ERR_UNKNOWN, "the NBD server refuses export '%s'", s->export);
    s->size = ld_be64(d);
    s->flags = ld_be16(d + 8);
    return true;
}

static bool co_go(struct blk_nbd *s, struct err *e)
{
    uint32_t n = (uint32_t)strlen(s->export), type = 0, len;
    uint8_t *req = calloc(1, 4 + n + 4), *d;
    bool got = false;
    if (!req)
        return err_os(e, ENOMEM, "no memory");
    st_be32(req, n);
    memcpy(req + 4, s->export, n);
    st_be16(req + 4 + n, 1);
    st_be16(req + 6 + n, NBD_INFO_BLOCK_SIZE);
    int r = co_send_option(s, NBD_OPT_GO, req, 4 + n + 4);
    free(req);
    for (int i = 0; !r && i < 64; i++) {
        r = co_recv_reply(s, NBD_OPT_GO, &type, &d, &len);
        if (!r && type == NBD_REP_INFO && len >= 2)
            take_info(s, d, len, &got);
        bool refused = !r && type & NBD_REP_ERR(0);
        if (refused && type == NBD_REP_ERR_UNSUP) {
            free(d);
            return co_export_name(s, e);
        }
        if (refused && type == NBD_REP_ERR_TLS_REQD)
            err_set(e, ERR_VALUE, "the NBD server requires TLS"), err_hint(e, "tls-creds=ID, of -object tls-creds-x509,id=ID,dir=FOLDER");
        else if (refused)
            err_set(e, ERR_UNKNOWN, "the NBD server refuses export '%s'%s%.100s", s->export, len ? ": " : "", len ? (char *)d : "");
        free(d);
        if (refused) {
            co_leave(s);
            return false;
        }
        if (!r && type == NBD_REP_ACK)
            return got ? limits_ok(s, e) : err_set(e, ERR_GENERIC, "the NBD server does not tell about its export");
    }
    return err_os(e, r ? -r : EPROTO, "the NBD server does not answer well");
}

/* The contexts of export and of its zeroes: what a map is made from. */
static int co_ask_contexts(struct blk_nbd *s)
{
    uint32_t n = (uint32_t)strlen(s->export), k = (uint32_t)strlen(context_name(s));
    uint8_t *q = malloc(4 + n + 8 + k);
    if (!q)
        return -ENOMEM;
    st_be32(q, n);
    memcpy(q + 4, s->export, n);
    st_be32(q + 4 + n, 1);
    st_be32(q + 8 + n, k);
    memcpy(q + 12 + n, context_name(s), k);
    int r = co_simple_option(s, NBD_OPT_SET_META_CONTEXT, q, 4 + n + 8 + k, &s->status);
    free(q);
    return r < 0 ? r : 0;
}

/* Everything from here on goes through TLS (the protocol's section "TLS support"). */
static bool co_start_tls(struct blk_nbd *s, struct err *e)
{
    json_t *data = json_is_object(json_object_get(s->server, "data")) ? json_object_get(s->server, "data") : s->server;
    const char *host = s->tls_hostname ? s->tls_hostname : json_string_value(json_object_get(data, "host"));
    int r = co_simple_option(s, NBD_OPT_STARTTLS, NULL, 0, NULL);
    if (r < 0)
        return err_os(e, -r, "the NBD server does not answer well");
    if (!r) {
        co_leave(s);
        return err_set(e, ERR_GENERIC, "the NBD server does not speak TLS, which tls-creds asks for");
    }
    s->wire.tls = tls_new(s->creds, false, s->wire.fd, host, e);
    return s->wire.tls && co_tls_handshake(s->wire.tls, clock_now(CLOCK_HOST) + CONNECT_NS, e);
}

static bool co_handshake(struct blk_nbd *s, struct err *e)
{
    uint8_t h[18], f[4];
    struct iovec v = { f, sizeof f };
    int r = co_nbd_recv(&s->wire, h, sizeof h);
    if (!r && (ld_be64(h) != NBD_MAGIC || ld_be64(h + 8) != NBD_OPTS_MAGIC || !(ld_be16(h + 16) & NBD_FLAG_FIXED_NEWSTYLE)))
        return err_set(e, ERR_GENERIC, "this is no NBD server, or one of before 2011");
    s->no_zeroes = !r && ld_be16(h + 16) & NBD_FLAG_NO_ZEROES;
    st_be32(f, NBD_FLAG_FIXED_NEWSTYLE | (s->no_zeroes ? NBD_FLAG_NO_ZEROES : 0));
    r = r ? r : co_nbd_send(&s->wire, &v, 1);
    if (!r && s->creds && !co_start_tls(s, e))
        return false;
    s->status = false;
    if (!r) {
        int x = co_simple_option(s, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL);
        s->structured = x == 1;
        r = x < 0 ? x : s->structured ? co_ask_contexts(s) : 0;
    }
    if (r)
        return err_os(e, -r, "the NBD server does not answer well");
    if (s->context && !(s->structured && s->status)) {
        co_leave(s);
        return err_set(e, ERR_UNKNOWN, "the NBD server's export '%s' does not tell of '%s'", s->export, s->context);
    }
    s->max_request = NBD_MAX_REQUEST;
    s->ragged.block = 512;                  /* of a server that says nothing */
    return co_go(s, e);
}

bool co_nbd_connect(struct blk_nbd *s, int64_t deadline, struct err *e)
{
    bool ok = co_socket(s, e);
    s->wire.deadline = MAX(deadline, clock_now(CLOCK_HOST) + LEAST_NS);
    ok = ok && co_handshake(s, e);
    s->wire.deadline = 0;
    if (!ok)
        nbd_wire_close(&s->wire);
    return ok;
}
