/* SPDX-License-Identifier: MIT */
/* The NBD server: one listening socket, exports by name. Main loop. */
#ifndef BLOCK_NBD_SERVER_H
#define BLOCK_NBD_SERVER_H

#include "block/driver.h"
#include "block/export.h"
#include "base/sock.h"
#include "block/nbd_proto.h"

enum { NBD_MAX_CLIENTS = 100 };         /* unless told otherwise */

struct nbd_export {
    struct blk_export exp;
    char *name, *description;
    json_t *bitmaps_opt;
    struct blk_bitmap *bitmaps[32]; /* that clients may ask about */
    unsigned n_bitmaps;
    uint64_t serial;                /* no other export has or had it */
    bool allocation_depth;          /* clients may ask how many images down something is */
};
extern const struct blk_export_class nbd_export_class;

/* What a server is told, by QMP and by --nbd-server. */
struct nbd_server_args {
    json_t *addr;                   /* {"type": "inet", "host", "port"}, {"type": "unix", "path"} or {"type": "fd", "str"}; "data" may hold the rest */
    uint32_t max;                   /* clients; 0: any number */
    uint32_t handshake;             /* seconds after which a client that has not got to its export is sent away; 0: none */
    char *tls_creds;                /* id of credentials without which no client is served; NULL: no TLS */
};
extern const struct prop nbd_server_props[];
bool nbd_server_start(const struct nbd_server_args *a, struct err *e) MUST_CHECK;
/* Whether a client may have a further connection. */
bool nbd_server_takes_several(void);
/* The credentials, or NULL. */
struct obj *nbd_server_creds(void);
/* Ends every connection, and every NBD export. */
void nbd_server_stop(void);
bool nbd_server_running(void);
struct nbd_export *nbd_export_find(const char *name);

/* ---- nbd_context.c: contexts of an export, numbered: 0 is base:allocation, then its bitmaps, then the depth ---- */
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
void nbd_client_end(struct nbd_client *c);     /* it is sent away; what it asked for ends first */
struct list *nbd_clients(void);

#endif
