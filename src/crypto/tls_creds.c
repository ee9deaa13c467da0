/* SPDX-License-Identifier: MIT */
/*
 * TLS credentials: certificates, shared keys, or none. The files of a folder have the names that QEMU's manual gives ("Transport
 * Layer Security"): ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem, keys.psk, dh-params.pem.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "crypto/secret.h"
#include "crypto/tls_int.h"

enum { MAX_CERTS = 32 };
static const char *const endpoints[] = { "client", "server", NULL };

static bool is_server(const struct tls_creds *c) { return c->endpoint == 1; }

static bool tls_fail(struct err *e, int r, const char *what) { return err_set(e, ERR_VALUE, "%s: %s", what, tls_lib.strerror(r)); }

/* The path of a file in the folder if it is there; NULL with @e filled where it must be. The caller frees. */
static char *file_of(const struct tls_creds *c, const char *name, bool must, struct err *e)
{
    char *path = xasprintf("%s/%s", c->dir, name);
    if (!access(path, R_OK))
        return path;
    if (must || errno != ENOENT)
        err_os(e, errno, "cannot read '%s'", path);
    free(path);
    return NULL;
}

static bool check_common(struct obj *o, struct err *e)
{
    const struct tls_creds *c = (const struct tls_creds *)o;
    gnutls_priority_t p;
    if (!tls_lib_open(e))
        return false;
    if (!c->priority)
        return true;
    int r = tls_lib.priority_init(&p, c->priority, NULL);
    if (r)
        return tls_fail(e, r, "priority");
    tls_lib.priority_deinit(p);
    return true;
}

/* Parameters of one's own for Diffie-Hellman; without the file those of RFC 7919 are used. */
static bool load_dh(struct tls_creds *c, gnutls_dh_params_t *out, struct err *e)
{
    struct err none = ERR_INIT;
    gnutls_datum_t text = { NULL, 0 };
    char *path = is_server(c) ? file_of(c, "dh-params.pem", false, &none) : NULL;
    *out = NULL;
    if (!path)
        return none.os_errno == 0 || none.os_errno == ENOENT || (*e = none, false);
    int r = tls_lib.load_file(path, &text);
    r = r ? r : tls_lib.dh_params_init(out);
    r = r ? r : tls_lib.dh_params_import_pkcs3(*out, &text, GNUTLS_X509_FMT_PEM);
    (*tls_lib.free)(text.data);
    if (r)
        tls_fail(e, r, path);
    free(path);
    return !r;
}

/* ---- certificates ---- */

struct x509_creds { struct tls_creds c; bool sanity_check; char *passwordid; gnutls_dh_params_t dh; };

struct certs { gnutls_x509_crt_t *v; unsigned n; };
static bool load_certs(const char *path, struct certs *out, struct err *e)
{
    gnutls_datum_t text;
    int r = tls_lib.load_file(path, &text);
    if (r)
        return tls_fail(e, r, path);
    r = tls_lib.x509_crt_list_import2(&out->v, &out->n, &text, GNUTLS_X509_FMT_PEM, 0);
    (*tls_lib.free)(text.data);
    return r >= 0 || tls_fail(e, r, path);
}
static void free_certs(struct certs *c)
{
    for (unsigned i = 0; i < c->n; i++)
        tls_lib.x509_crt_deinit(c->v[i]);
    (*tls_lib.free)(c->v);
}

static bool check_times(const char *path, const struct certs *c, struct err *e)
{
    time_t now = time(NULL);
    for (unsigned i = 0; i < c->n; i++) {
        if (tls_lib.x509_crt_get_expiration_time(c->v[i]) < now)
            return err_set(e, ERR_VALUE, "the certificate %s has expired", path);
        if (tls_lib.x509_crt_get_activation_time(c->v[i]) > now)
            return err_set(e, ERR_VALUE, "the certificate %s is not yet valid", path);
    }
    return true;
}

/* Our own certificates would be accepted by a peer that trusts the authority. */
static bool sane(const char *ca_path, const char *cert_path, struct err *e)
{
    struct certs ca = { NULL, 0 }, own = { NULL, 0 };
    unsigned status = 0;
    bool ok = load_certs(ca_path, &ca, e) && check_times(ca_path, &ca, e);
    if (ok && cert_path) {
        ok = load_certs(cert_path, &own, e) && check_times(cert_path, &own, e);
        int r = ok ? tls_lib.x509_crt_list_verify(own.v, (int)own.n, ca.v, (int)ca.n, NULL, 0, 0, &status) : 0;
        if (ok && (r || status))
            ok = err_set(e, ERR_VALUE, "the certificate %s is not one that %s has signed", cert_path, ca_path);
    }
    free_certs(&ca);
    free_certs(&own);
    return ok || err_hint(e, "sanity-check=off uses them as they are");
}

static bool load_pair(struct x509_creds *x, const char *cert, const char *key, struct err *e)
{
    size_t n = 0;
    uint8_t *pass = x->passwordid ? secret_bytes(x->passwordid, &n, e) : NULL;
    if (x->passwordid && !pass)
        return err_prefix(e, "passwordid");
    int r = tls_lib.certificate_set_x509_key_file2(x->c.cred, cert, key, GNUTLS_X509_FMT_PEM, (char *)pass, 0);
    secret_free(pass, n);
    return r >= 0 || tls_fail(e, r, key);
}

static bool load_x509(struct x509_creds *x, const char *ca, const char *crl, const char *cert, const char *key, struct err *e)
{
    if (x->sanity_check && !sane(ca, cert, e))
        return false;
    int r = tls_lib.certificate_allocate_credentials((gnutls_certificate_credentials_t *)&x->c.cred);
    if (r)
        return tls_fail(e, r, "credentials");
    r = tls_lib.certificate_set_x509_trust_file(x->c.cred, ca, GNUTLS_X509_FMT_PEM);
    if (r < 0)
        return tls_fail(e, r, ca);
    r = crl ? tls_lib.certificate_set_x509_crl_file(x->c.cred, crl, GNUTLS_X509_FMT_PEM) : 0;
    if (r < 0)
        return tls_fail(e, r, crl);
    if (cert && !load_pair(x, cert, key, e))
        return false;
    if (x->dh)
        tls_lib.certificate_set_dh_params(x->c.cred, x->dh);
    return true;
}

static bool x509_complete(struct obj *o, struct err *e)
{
    struct x509_creds *x = (struct x509_creds *)o;
    struct err none = ERR_INIT;
    bool server = is_server(&x->c);
    x->c.kind = TLS_X509;
    x->c.type = GNUTLS_CRD_CERTIFICATE;
    char *ca = file_of(&x->c, "ca-cert.pem", true, e), *crl = file_of(&x->c, "ca-crl.pem", false, &none);
    char *cert = file_of(&x->c, server ? "server-cert.pem" : "client-cert.pem", server, server ? e : &none);
    char *key = cert ? file_of(&x->c, server ? "server-key.pem" : "client-key.pem", true, e) : NULL;
    bool ok = ca && (cert || !server) && (key || !cert) && load_dh(&x->c, &x->dh, e) && load_x509(x, ca, crl, cert, key, e);
    free(ca);
    free(crl);
    free(cert);
    free(key);
    return ok;
}

static void x509_finalize(struct obj *o)
{
    struct x509_creds *x = (struct x509_creds *)o;
    if (x->c.cred)
        tls_lib.certificate_free_credentials(x->c.cred);
    if (x->dh)
        tls_lib.dh_params_deinit(x->dh);
}

/* ---- keys that both know ---- */

struct psk_creds { struct tls_creds c; char *username; gnutls_dh_params_t dh; };

/* The hexadecimal key of @user in a file of lines "USER:KEY". */
static char *find_key(const char *path, const char *user, struct err *e)
{
    gnutls_datum_t text;
    int r = tls_lib.load_file(path, &text);
    if (r) {
        tls_fail(e, r, path);
        return NULL;
    }
    char *copy = xstrndup((char *)text.data, text.size), *save, *found = NULL;
    size_t n = strlen(user);
    for (char *line = strtok_r(copy, "\n", &save); line && !found; line = strtok_r(NULL, "\n", &save))
        if (!strncmp(line, user, n) && line[n] == ':')
            found = xstrndup(line + n + 1, strcspn(line + n + 1, "\r"));
    secret_free(copy, text.size);
    secret_wipe(text.data, text.size);
    (*tls_lib.free)(text.data);
    if (!found)
        err_set(e, ERR_NOT_FOUND, "'%s' has no key of user '%s'", path, user);
    return found;
}

static bool psk_server(struct psk_creds *p, const char *path, struct err *e)
{
    int r = tls_lib.psk_allocate_server_credentials((gnutls_psk_server_credentials_t *)&p->c.cred);
    r = r ? r : tls_lib.psk_set_server_credentials_file(p->c.cred, path);
    if (r)
        return tls_fail(e, r, path);
    if (p->dh)
        tls_lib.psk_set_server_dh_params(p->c.cred, p->dh);
    return true;
}

static bool psk_client(struct psk_creds *p, const char *path, struct err *e)
{
    char *hex = find_key(path, p->username, e);
    if (!hex)
        return false;
    gnutls_datum_t key = { (unsigned char *)hex, (unsigned)strlen(hex) };
    int r = tls_lib.psk_allocate_client_credentials((gnutls_psk_client_credentials_t *)&p->c.cred);
    r = r ? r : tls_lib.psk_set_client_credentials(p->c.cred, p->username, &key, GNUTLS_PSK_KEY_HEX);
    secret_free(hex, strlen(hex));
    return !r || tls_fail(e, r, path);
}

static bool psk_complete(struct obj *o, struct err *e)
{
    struct psk_creds *p = (struct psk_creds *)o;
    p->c.kind = TLS_PSK;
    p->c.type = GNUTLS_CRD_PSK;
    char *path = file_of(&p->c, "keys.psk", true, e);
    bool ok = path && load_dh(&p->c, &p->dh, e) && (is_server(&p->c) ? psk_server(p, path, e) : psk_client(p, path, e));
    free(path);
    return ok;
}

static void psk_finalize(struct obj *o)
{
    struct psk_creds *p = (struct psk_creds *)o;
    if (p->c.cred && is_server(&p->c))
        tls_lib.psk_free_server_credentials(p->c.cred);
    else if (p->c.cred)
        tls_lib.psk_free_client_credentials(p->c.cred);
    if (p->dh)
        tls_lib.dh_params_deinit(p->dh);
}

/* ---- nothing: encrypted, but to whom is not known ---- */

struct anon_creds { struct tls_creds c; gnutls_dh_params_t dh; };

static bool anon_complete(struct obj *o, struct err *e)
{
    struct anon_creds *a = (struct anon_creds *)o;
    a->c.kind = TLS_ANON;
    a->c.type = GNUTLS_CRD_ANON;
    if (a->c.dir && !load_dh(&a->c, &a->dh, e))
        return false;
    int r = is_server(&a->c) ? tls_lib.anon_allocate_server_credentials((gnutls_anon_server_credentials_t *)&a->c.cred)
                             : tls_lib.anon_allocate_client_credentials((gnutls_anon_client_credentials_t *)&a->c.cred);
    if (r)
        return tls_fail(e, r, "credentials");
    if (a->dh)
        tls_lib.anon_set_server_dh_params(a->c.cred, a->dh);
    return true;
}

static void anon_finalize(struct obj *o)
{
    struct anon_creds *a = (struct anon_creds *)o;
    if (a->c.cred && is_server(&a->c))
        tls_lib.anon_free_server_credentials(a->c.cred);
    else if (a->c.cred)
        tls_lib.anon_free_client_credentials(a->c.cred);
    if (a->dh)
        tls_lib.dh_params_deinit(a->dh);
}

/* ---- classes ---- */

static const struct prop common_props[] = {
    PROP_ENUM(struct tls_creds, endpoint, "endpoint", endpoints, 0, "Which end of a connection they are for"),
    PROP_STR(struct tls_creds, priority, "priority", 0, "Algorithms that are allowed, as GnuTLS writes them; else NORMAL"),
    PROP_END,
};
static const struct prop x509_props[] = {
    PROP_STR(struct tls_creds, dir, "dir", PF_REQUIRED, "Folder with ca-cert.pem, server-cert.pem, server-key.pem (a client's: client-*), and perhaps ca-crl.pem, dh-params.pem"),
    PROP_BOOL(struct tls_creds, verify_peer, "verify-peer", true, "The other end must show a certificate of the authority"),
    PROP_BOOL(struct x509_creds, sanity_check, "sanity-check", true, "Refuse certificates that a peer would refuse"),
    PROP_STR(struct x509_creds, passwordid, "passwordid", 0, "Secret with the password of the key file"),
    PROP_END,
};
static const struct prop psk_props[] = {
    PROP_STR(struct tls_creds, dir, "dir", PF_REQUIRED, "Folder with keys.psk (lines USER:KEY, the key in hexadecimal), and perhaps dh-params.pem"),
    PROP_STR_DEF(struct psk_creds, username, "username", "qemu", "Client: whose key of keys.psk it shows"),
    PROP_END,
};
static const struct prop anon_props[] = {
    PROP_STR(struct tls_creds, dir, "dir", 0, "Folder with perhaps dh-params.pem"),
    PROP_END,
};

const struct obj_class tls_creds_class = {
    .name = "tls-creds", .size = sizeof(struct tls_creds), .flags = OCF_ABSTRACT, .ns = "object", .props = common_props, .check = check_common,
};
OBJ_CLASS(&tls_creds_class);
static const struct obj_class x509_class = {
    .name = "tls-creds-x509", .desc = "TLS with certificates", .base = &tls_creds_class, .size = sizeof(struct x509_creds),
    .props = x509_props, .complete = x509_complete, .finalize = x509_finalize,
};
OBJ_CLASS(&x509_class);
static const struct obj_class psk_class = {
    .name = "tls-creds-psk", .desc = "TLS with keys that both ends know", .base = &tls_creds_class, .size = sizeof(struct psk_creds),
    .props = psk_props, .complete = psk_complete, .finalize = psk_finalize,
};
OBJ_CLASS(&psk_class);
static const struct obj_class anon_class = {
    .name = "tls-creds-anon", .desc = "TLS that nobody listens in on, but that does not tell who the other end is", .base = &tls_creds_class,
    .size = sizeof(struct anon_creds), .props = anon_props, .complete = anon_complete, .finalize = anon_finalize,
};
OBJ_CLASS(&anon_class);

struct obj *tls_creds_get(const char *id, bool server, struct err *e)
{
    struct tls_creds *c = (struct tls_creds *)obj_lookup(&tls_creds_class, id, e);
    if (c && is_server(c) != server) {
        err_set(e, ERR_VALUE, "the TLS credentials '%s' are for a %s", id, endpoints[c->endpoint]);
        err_hint(e, "endpoint=%s", endpoints[server]);
        c = NULL;
    }
    return c ? obj_ref(&c->obj) : NULL;
}
