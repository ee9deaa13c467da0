/* SPDX-License-Identifier: MIT */
/* A build without GnuTLS: whoever asks for TLS is told what is missing. */
#include <errno.h>
#include "crypto/tls.h"

static bool absent(struct err *e) { return err_set(e, ERR_NOT_BUILT, "TLS is not in this build: it needs GnuTLS (Debian: libgnutls28-dev)"); }

struct obj *tls_creds_get(const char *id, bool server, struct err *e)
{
    absent(e);
    return NULL;
}
struct tls *tls_new(struct obj *creds, bool server, int fd, const char *hostname, struct err *e)
{
    absent(e);
    return NULL;
}
void tls_free(struct tls *t) { }
int tls_handshake(struct tls *t, struct err *e) { return absent(e), -ENOTSUP; }
bool co_tls_handshake(struct tls *t, int64_t deadline_ns, struct err *e) { return absent(e); }
unsigned tls_wants(const struct tls *t) { return 0; }
ssize_t tls_read(struct tls *t, void *buf, size_t n) { return -ENOTSUP; }
ssize_t tls_write(struct tls *t, const void *buf, size_t n) { return -ENOTSUP; }
bool tls_pending(const struct tls *t) { return false; }
void tls_bye(struct tls *t) { }
