/* SPDX-License-Identifier: MIT */
/*
 * TLS over a non-blocking stream socket, with the credentials of an object (-object tls-creds-x509, -psk, -anon). A session is used
 * from one loop; reading and writing do not wait, so that event code and coroutines use it alike.
 */
#ifndef CRYPTO_TLS_H
#define CRYPTO_TLS_H

#include <sys/types.h>
#include <sys/uio.h>
#include "core/obj.h"

struct tls;

extern const struct obj_class tls_creds_class;      /* base of the three */

/* The credentials @id if they are for the wanted end; their own reference, which the caller drops. NULL with @e filled. Main loop. */
struct obj *tls_creds_get(const char *id, bool server, struct err *e) MUST_CHECK;
/*
 * A session over @fd, which stays the caller's. @hostname: whose certificate the client expects; it is needed where
 * the credentials say verify-peer. NULL with @e filled. LOOP.
 */
struct tls *tls_new(struct obj *creds, bool server, int fd, const char *hostname, struct err *e) MUST_CHECK;
void tls_free(struct tls *t);                       /* NULL is fine */
/* 0: done, and the peer is who it should be; -EAGAIN: again once tls_wants(); other -errno with @e filled. LOOP. */
int tls_handshake(struct tls *t, struct err *e);
/* The same, waiting until @deadline_ns (CLOCK_HOST). Coroutine. */
bool co_tls_handshake(struct tls *t, int64_t deadline_ns, struct err *e) MUST_CHECK;
/* LOOP_IN or LOOP_OUT: what the last -EAGAIN waits for. */
unsigned tls_wants(const struct tls *t);
/* Bytes, 0 at the end of the stream, or -errno; -EAGAIN as the system calls. A write that was not taken is repeated with the same bytes. LOOP. */
ssize_t tls_read(struct tls *t, void *buf, size_t n);
ssize_t tls_write(struct tls *t, const void *buf, size_t n);
/* Decrypted bytes wait that no event of the socket will tell of. */
bool tls_pending(const struct tls *t);
/* Tells the peer that no more will be sent, as far as it can be told without waiting. */
void tls_bye(struct tls *t);

#endif
