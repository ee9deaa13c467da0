/* SPDX-License-Identifier: MIT */
/*
 * The device's end of vhost-user: a listening socket, one front end at a time, its memory and rings. What the device is, is a row
 * of functions. A connection and its rings run on one loop, in one domain. The front end is not trusted: what it sends is copied
 * once and checked, and memory that it cuts short costs it the connection.
 */
#ifndef VHOST_USER_VU_H
#define VHOST_USER_VU_H

#include <jansson.h>
#include <sys/uio.h>
#include "loop/co.h"
#include "mem/guard.h"
#include "vhost_user/vu_spec.h"
#include "vhost_user/vu_wire.h"

enum { VU_REGIONS = 64, VU_CHAIN_MAX = 1024, VU_RING_MAX = 32768, VU_RINGS_MAX = 256 };

struct vu_conn;
struct vu_ring;

/* One chain of buffers of a ring. */
struct vu_elem {
    struct vu_ring *ring;
    uint16_t head;
    unsigned n_out, n_in;           /* pieces that are read, that are written */
    uint64_t out_len, in_len;
    struct iovec *out, *in;         /* in the front end's memory */
    uint64_t *in_guest;             /* guest address of each piece that is written; for the log of changes */
};

struct vu_ops {
    uint64_t (*features)(void *arg);
    void (*set_features)(void *arg, uint64_t features);
    /* The configuration; returns its length. */
    uint32_t (*config)(void *arg, uint8_t buf[256]);
    bool (*set_config)(void *arg, uint32_t off, const uint8_t *data, uint32_t len);
    /* A request; returns how many bytes of its buffers were written. Coroutine. */
    uint32_t (*co_request)(void *arg, struct vu_elem *el);
    /* A front end came, or went. Main loop. */
    void (*attached)(void *arg, bool there);
};

struct vu_server {
    const struct vu_ops *ops;
    void *arg;
    const char *name;               /* for messages; borrowed */
    unsigned n_rings;
    struct domain *dom;             /* NULL: main loop */
    /* private */
    int fd;
    struct exit_file *file;
    struct loop_fd watch;
    struct vu_conn *conn, *live;    /* the front end; as long as it is served (domain) */
    bool stopped;
};

/* Listens on @addr: {"type": "unix", "path": PATH}. The rows above are filled. Main loop. */
bool vu_server_start(struct vu_server *s, json_t *addr, struct err *e) MUST_CHECK;
/* No front end can come any more, and the one that is there is sent away: ops->attached(false) follows. Main loop. */
void vu_server_stop(struct vu_server *s);
/* The configuration changed: the front end is told. The server's domain. */
void vu_config_changed(struct vu_server *s);

#endif
