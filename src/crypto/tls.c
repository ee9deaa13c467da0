/* SPDX-License-Identifier: MIT */
/* TLS sessions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "crypto/tls_int.h"
#include "loop/co.h"

struct tls {
    struct tls_creds *creds;
    gnutls_session_t session;
    bool server;
    char *hostname;
};

static const char *default_priority(const struct tls_creds *c)
{
    switch (c->kind) {
    case TLS_PSK: return "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK";
    case TLS_ANON: return "NORMAL:+ANON-ECDH:+ANON-DH:-VERS-TLS1.3";      /* 1.3 has no anonymous key exchange (RFC 8446) */
    default: return "NORMAL";
    }
}

static int start(struct tls *t, int fd)
{
    int r = tls_lib.init(&t->session, (t->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    if (r)
        return r;
    r = tls_lib.priority_set_direct(t->session, t->creds->priority ? t->creds->priority : default_priority(t->creds), NULL);
    r = r ? r : tls_lib.credentials_set(t->session, t->creds->type, t->creds->cred);
    if (!r && t->hostname && !t->server)
        r = tls_lib.server_name_set(t->session, GNUTLS_NAME_DNS, t->hostname, strlen(t->hostname));
    if (!r && t->server && t->creds->kind == TLS_X509)
        tls_lib.certificate_server_set_request(t->session, t->creds->verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
    tls_lib.transport_set_int2(t->session, fd, fd);
    return r;
}

struct tls *tls_new(struct obj *creds, bool server, int fd, const char *hostname, struct err *e)
{
    const struct tls_creds *c = (const struct tls_creds *)creds;
    if (!server && !hostname && c->kind == TLS_X509 && c->verify_peer) {
        err_set(e, ERR_VALUE, "it is not known whose certificate to expect");
        err_hint(e, "tls-hostname=NAME, or verify-peer=off in the credentials");
        return NULL;
    }
    struct tls *t = xnew(struct tls);
    *t = (struct tls){ .creds = (struct tls_creds *)obj_ref(creds), .server = server, .hostname = xstrdup(hostname) };
    int r = start(t, fd);
    if (!r)
        return t;
    err_set(e, ERR_GENERIC, "cannot begin a TLS session: %s", tls_lib.strerror(r));
    tls_free(t);
    return NULL;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    if (t->session)
        tls_lib.deinit(t->session);
    obj_unref(&t->creds->obj);
    free(t->hostname);
    free(t);
}

unsigned tls_wants(const struct tls *t) { return tls_lib.record_get_direction(t->session) ? LOOP_OUT : LOOP_IN; }
bool tls_pending(const struct tls *t) { return tls_lib.record_check_pending(t->session) > 0; }

/* Who is at the other end, once the handshake is done. */
static bool check_peer(struct tls *t, struct err *e)
{
    unsigned status = 0;
    gnutls_datum_t text = { NULL, 0 };
    if (t->creds->kind != TLS_X509 || !t->creds->verify_peer)
        return true;
    int r = tls_lib.certificate_verify_peers3(t->session, t->server ? NULL : t->hostname, &status);
    if (r)
        return err_set(e, ERR_GENERIC, "the peer's certificate cannot be verified: %s", tls_lib.strerror(r));
    if (!status)
        return true;
    tls_lib.certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    err_set(e, ERR_GENERIC, "the peer's certificate is not accepted: %.200s", text.data ? (char *)text.data : "");
    (*tls_lib.free)(text.data);
    if (status & GNUTLS_CERT_UNEXPECTED_OWNER)
        err_hint(e, "it is not one of '%s': tls-hostname= names another", t->hostname);
    return false;
}

static int from_gnutls(int r)
{
    switch (r) {
    case GNUTLS_E_AGAIN: case GNUTLS_E_INTERRUPTED: return -EAGAIN;
    case GNUTLS_E_PREMATURE_TERMINATION: case GNUTLS_E_INVALID_SESSION: return -EPIPE;
    case GNUTLS_E_PUSH_ERROR: case GNUTLS_E_PULL_ERROR: return -ECONNRESET;
    case GNUTLS_E_MEMORY_ERROR: return -ENOMEM;
    default: return -EPROTO;
    }
}

int tls_handshake(struct tls *t, struct err *e)
{
    int r = tls_lib.handshake(t->session);
    while (r < 0 && !tls_lib.error_is_fatal(r) && from_gnutls(r) != -EAGAIN)
        r = tls_lib.handshake(t->session);           /* a warning of the peer */
    if (!r && !check_peer(t, e)) {
        tls_lib.alert_send(t->session, GNUTLS_AL_FATAL, GNUTLS_A_BAD_CERTIFICATE);
        return -EACCES;
    }
    if (!r)
        return 0;
    if (from_gnutls(r) == -EAGAIN)
        return -EAGAIN;
    if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
        err_set(e, ERR_GENERIC, "the TLS handshake failed: the peer says: %s", tls_lib.alert_get_name(tls_lib.alert_get(t->session)));
    else
        err_set(e, ERR_GENERIC, "the TLS handshake failed: %s", tls_lib.strerror(r));
    tls_lib.alert_send_appropriate(t->session, r);
    return from_gnutls(r);
}

bool co_tls_handshake(struct tls *t, int64_t deadline_ns, struct err *e)
{
    for (;;) {
        int r = tls_handshake(t, e);
        if (r != -EAGAIN)
            return !r;
        r = co_fd(tls_lib.transport_get_int(t->session), tls_wants(t), deadline_ns);
        if (r < 0)
            return err_os(e, -r, "the TLS handshake failed");
    }
}

ssize_t tls_read(struct tls *t, void *buf, size_t n)
{
    ssize_t r = tls_lib.record_recv(t->session, buf, n);
    while (r == GNUTLS_E_REHANDSHAKE || r == GNUTLS_E_WARNING_ALERT_RECEIVED)
        r = tls_lib.record_recv(t->session, buf, n);
    return r >= 0 ? r : from_gnutls((int)r);
}

ssize_t tls_write(struct tls *t, const void *buf, size_t n)
{
    ssize_t r = tls_lib.record_send(t->session, buf, n);
    return r >= 0 ? r : from_gnutls((int)r);
}

void tls_bye(struct tls *t) { tls_lib.bye(t->session, GNUTLS_SHUT_WR); }
