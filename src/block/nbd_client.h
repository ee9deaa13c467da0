/* SPDX-License-Identifier: MIT */
/* Between the two files of the nbd driver: the node with its connection, and the handshake. Home loop. */
#ifndef BLOCK_NBD_CLIENT_H
#define BLOCK_NBD_CLIENT_H

#include "block/asked.h"
#include "block/driver.h"
#include "block/nbd_proto.h"
#include "block/ragged.h"

enum { NBD_SLOTS = 32, NBD_ISLANDS = 64 };

/* A request on its way. */
struct nbd_slot {
    bool used;
    uint16_t type;
    uint64_t off;
    uint32_t len;
    const struct iovec *iov;        /* a read's, borrowed from who waits */
    unsigned niov;
    struct blk_extent *extent;
    bool told;                      /* the extent came */
    struct { uint64_t from, to; } got[NBD_ISLANDS];     /* of a read: what came, in order; what touches is one */
    unsigned n_got;
    struct co_event done;
    int res;
    bool sent;                      /* and no answer is complete yet: only then is one listened to, since who waited may have gone with its memory */
    bool lost;                      /* the connection ended before the answer */
};

struct blk_nbd {
    struct blk_node node;
    json_t *server;
    char *export, *tls_creds, *tls_hostname;
    bool tls;
    char *name;                     /* its address, or NULL: a socket that was handed over has none */
    char *context;                  /* what maps show in place of base:allocation, or NULL */
    uint32_t reconnect_delay, open_timeout;
    struct obj *creds;              /* of tls_creds, NULL: none */
    /* connection */
    struct nbd_wire wire;
    bool connected, reading, closing, structured, status, no_zeroes;
    struct blk_asked asked;
    bool given_used;                /* a socket that was handed over serves once */
    uint64_t size;
    uint16_t flags;
    uint32_t max_request, context_id;
    struct blk_ragged ragged;       /* ->block: the least that the server takes */
    struct nbd_slot slot[NBD_SLOTS];
    struct co_queue room;
    struct co_mutex sending;        /* a request, and whoever takes the connection away */
    struct co_mutex connecting;
    struct co_event reader_done;
};

/* Connects and negotiates, until @deadline or a little longer: ->fd, ->size, ->flags are set. Coroutine. */
bool co_nbd_connect(struct blk_nbd *s, int64_t deadline, struct err *e) MUST_CHECK;

#endif
