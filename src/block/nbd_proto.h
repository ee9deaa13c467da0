/* SPDX-License-Identifier: MIT */
/* The NBD protocol as numbers (the NBD project's doc/proto.md), and what both sides share. Everything on the wire is big endian. */
#ifndef BLOCK_NBD_PROTO_H
#define BLOCK_NBD_PROTO_H

#include <errno.h>
#include <sys/uio.h>
#include "base/bits.h"
#include "crypto/tls.h"

#define NBD_PORT "10809"                  /* assigned by IANA */
#define NBD_MAGIC           UINT64_C(0x4e42444d41474943)    /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC      UINT64_C(0x49484156454f5054)    /* "IHAVEOPT" */
#define NBD_REP_MAGIC       UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC   UINT32_C(0x25609513)
#define NBD_SIMPLE_MAGIC    UINT32_C(0x67446698)
#define NBD_CHUNK_MAGIC     UINT32_C(0x668e33ef)

enum { NBD_FLAG_FIXED_NEWSTYLE = 1, NBD_FLAG_NO_ZEROES = 2 };
enum {
    NBD_FLAG_HAS_FLAGS = 1, NBD_FLAG_READ_ONLY = 1 << 1, NBD_FLAG_SEND_FLUSH = 1 << 2, NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_SEND_TRIM = 1 << 5, NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6, NBD_FLAG_SEND_DF = 1 << 7, NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_CACHE = 1 << 10, NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};
enum {
    NBD_OPT_EXPORT_NAME = 1, NBD_OPT_ABORT = 2, NBD_OPT_LIST = 3, NBD_OPT_STARTTLS = 5, NBD_OPT_INFO = 6, NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8, NBD_OPT_LIST_META_CONTEXT = 9, NBD_OPT_SET_META_CONTEXT = 10,
};
#define NBD_REP_ERR(n) (UINT32_C(1) << 31 | (n))
enum { NBD_REP_ACK = 1, NBD_REP_SERVER = 2, NBD_REP_INFO = 3, NBD_REP_META_CONTEXT = 4 };
#define NBD_REP_ERR_UNSUP   NBD_REP_ERR(1)
#define NBD_REP_ERR_INVALID NBD_REP_ERR(3)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERR(6)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERR(9)
enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };
enum { NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS };
enum { NBD_CMD_FLAG_FUA = 1, NBD_CMD_FLAG_NO_HOLE = 2, NBD_CMD_FLAG_DF = 4, NBD_CMD_FLAG_REQ_ONE = 8, NBD_CMD_FLAG_FAST_ZERO = 16 };
enum { NBD_CHUNK_DONE = 1 };
enum { NBD_CHUNK_NONE = 0, NBD_CHUNK_OFFSET_DATA = 1, NBD_CHUNK_OFFSET_HOLE = 2, NBD_CHUNK_BLOCK_STATUS = 5,
       NBD_CHUNK_ERROR = 0x8001, NBD_CHUNK_ERROR_OFFSET = 0x8002 };
enum { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 };
enum { NBD_REQUEST_LEN = 28, NBD_MAX_NAME = 4096, NBD_MAX_OPTION = 16384, NBD_MAX_REQUEST = 32 << 20, NBD_MAX_BLOCK = 65536,
       NBD_MAX_STATUS = 4 + (8 << 20) /* bytes of a chunk */ };

/* Error numbers of the protocol. */
static inline uint32_t nbd_errno(int r)
{
    switch (r) {
    case 0: return 0;
    case -1: case -13: case -30: return 1;      /* EPERM, EACCES, EROFS */
    case -12: return 12;
    case -22: return 22;
    case -ETOOMANYREFS: case -EOVERFLOW: case -ESPIPE: case -E2BIG: case -EXFULL: case -EDOM: return 22;   /* what a zone does not take */
    case -28: case -27: case -122: return 28;   /* ENOSPC, EFBIG, EDQUOT */
    case -95: return 95;
    default: return 5;
    }
}

enum { NBD_HANDSHAKE_SECONDS = 10 };    /* that a client has for it, unless told otherwise */

/* A connection: a non-blocking socket, and TLS over it or NULL. One sends and one receives at a time. */
struct nbd_wire {
    int fd;
    struct tls *tls;
    int64_t deadline;               /* CLOCK_HOST: the peer is not waited for any longer; 0: none */
    unsigned turn;                  /* transfers since others had theirs */
};
/* The whole of @iov (which is changed): 0 or -errno; -EPIPE: the peer closed; -ETIMEDOUT. Coroutine. */
int co_nbd_send(struct nbd_wire *w, struct iovec *iov, unsigned n);
int co_nbd_recv(struct nbd_wire *w, void *buf, size_t len);
int co_nbd_recvv(struct nbd_wire *w, struct iovec *iov, unsigned n);
/* Receives @len bytes that nobody wants. */
int co_nbd_skip(struct nbd_wire *w, uint32_t len);
/* Ends TLS, if there is any, and closes the socket. */
void nbd_wire_close(struct nbd_wire *w);

#endif
