/* SPDX-License-Identifier: MIT */
/* Bytes and descriptors of vhost-user on its socket, the same at either end. Coroutines, on the loop that has the socket. */
#ifndef VHOST_USER_VU_WIRE_H
#define VHOST_USER_VU_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VU_FDS = 8 };
/* Descriptors that go along with a message. */
struct vu_fds { int fd[VU_FDS]; unsigned n; };

/* The next one, the caller's from now on; -1: none. */
int vu_fds_take(struct vu_fds *f);
void vu_fds_close(struct vu_fds *f);
/*
 * Exactly @n bytes; descriptors that come with them are added to @fds, those beyond its room closed. @deadline is CLOCK_HOST, INT64_MAX:
 * none. 0 or -errno: -ECONNRESET where the peer is gone, -ETIMEDOUT.
 */
int co_vu_receive(int sock, void *buf, size_t n, struct vu_fds *fds, int64_t deadline);
/* All of [data, data + n), @pass with its first byte (NULL: none; they stay the caller's). Likewise. */
int co_vu_send(int sock, const void *data, size_t n, const struct vu_fds *pass, int64_t deadline);
/* What has come, without waiting, as recvmsg(): bytes, 0 at the end, or -errno. ANY */
int vu_receive_now(int sock, void *buf, size_t n, struct vu_fds *fds);

#endif
