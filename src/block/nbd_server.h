/* SPDX-License-Identifier: MIT */
/* The NBD server: one listening socket, exports by name. Main loop. */
#ifndef BLOCK_NBD_SERVER_H
#define BLOCK_NBD_SERVER_H

#include "block/driver.h"
#include "base/sock.h"
#include "block/nbd_proto.h"

enum { NBD_MAX_EXPORT_NAME = 4096 };

struct nbd_export {
    struct list link;
    char *id, *name, *description;
    struct blk *blk;                /* what is exported */
    bool writable;
    struct blk_bitmap *bitmaps[32]; /* that clients may ask about */
    unsigned n_bitmaps;
    unsigned clients;
    bool gone;                      /* no new clients; freed with the last one */
};

/*
 * Listens on @addr: {"type": "inet", "host", "port"} or {"type": "unix", "path"}. @max_clients 0: any number. @tls_creds: id of
 * credentials without which no client is served; NULL: no TLS.
 */
bool nbd_server_start(json_t *addr, unsigned max_clients, const char *tls_creds, struct err *e) MUST_CHECK;
/* The credentials, or NULL. */
struct obj *nbd_server_creds(void);
/* Ends every connection, and every export. */
void nbd_server_stop(void);
bool nbd_server_running(void);
/* Where it listens, for messages. */
const char *nbd_server_address(void);
/* @id and @name NULL: the node's. */
struct nbd_export *nbd_export_add(const char *id, struct blk_node *n, const char *name, const char *description, bool writable,
                                  struct err *e) MUST_CHECK;
/* @hard: clients are disconnected; else it is refused while there are any. */
bool nbd_export_del(struct nbd_export *x, bool hard, struct err *e) MUST_CHECK;
struct nbd_export *nbd_export_find(const char *name);
struct nbd_export *nbd_export_by_id(const char *id);
json_t *nbd_exports_json(void);

/* ---- nbd_context.c: contexts of an export, numbered: 0 is base:allocation, the others are its bitmaps ---- */
/* A bit for each that a client's words @q mean; @list: words may be the beginning of several. */
uint64_t nbd_contexts_of(const struct nbd_export *x, const char *q, uint32_t k, bool list);
void nbd_context_name(const struct nbd_export *x, unsigned i, struct str *out);
unsigned nbd_context_count(const struct nbd_export *x);
/* At most @max extents (length, state: 32 bits each, big endian) of context @i into @d; *@n: how many. Coroutine. */
int co_nbd_extents(const struct nbd_export *x, unsigned i, uint64_t off, uint64_t len, uint8_t *d, unsigned max, unsigned *n);
/* A name, or an object with "node" and "name". */
bool nbd_export_add_bitmap(struct nbd_export *x, json_t *v, struct err *e) MUST_CHECK;
void nbd_export_drop_bitmaps(struct nbd_export *x);

/* ---- nbd_serve.c: one connection, from the handshake to its end. Coroutine; the caller closes @wire ---- */
struct nbd_client { struct list link; struct nbd_wire wire; struct nbd_export *export; bool closing; };
void co_nbd_serve(struct nbd_client *c);
struct list *nbd_exports(void);
/* A client is done with it. */
void nbd_export_put(struct nbd_export *x);

#endif
