/* SPDX-License-Identifier: MIT */
/* Between the files of the rbd driver: librbd, its requests and its slow calls (rbd_call.c), the node (rbd.c). Home loop. */
#ifndef BLOCK_RBD_INT_H
#define BLOCK_RBD_INT_H

#include <rbd/librbd.h>
#include "block/asked.h"
#include "block/driver.h"

/* What is used of librbd and librados, which are opened with the first node. */
#define RBD_FUNCTIONS(F) \
    F(rados_create) F(rados_conf_read_file) F(rados_conf_set) F(rados_conf_get) F(rados_connect) F(rados_shutdown) F(rados_ioctx_create) \
    F(rados_ioctx_destroy) F(rados_ioctx_set_namespace) F(rbd_create) F(rbd_remove) F(rbd_open) F(rbd_open_read_only) F(rbd_close) \
    F(rbd_get_size) F(rbd_stat) F(rbd_resize) F(rbd_get_features) F(rbd_get_flags) F(rbd_diff_iterate2) F(rbd_set_image_notification) \
    F(rbd_poll_io_events) F(rbd_aio_create_completion) F(rbd_aio_get_arg) F(rbd_aio_get_return_value) F(rbd_aio_release) F(rbd_aio_read) \
    F(rbd_aio_write) F(rbd_aio_write_zeroes) F(rbd_aio_discard) F(rbd_aio_flush)
#define RBD_POINTER(f) typeof(&f) f;
extern struct rbd_functions { RBD_FUNCTIONS(RBD_POINTER) } rbd;

/*
 * What the library works on. Its threads may come back to this at any time: where they are not waited for any longer it stays for ever,
 * as do the requests and calls that they have.
 */
struct rbd_conn {
    char *user, *conf, *pool, *space, *image, *snapshot;    /* NULL: not said */
    json_t *settings;               /* of Ceph: strings by name */
    rados_t cluster;
    rados_ioctx_t io;
    rbd_image_t rbd;
    int fd;                         /* an eventfd: something was answered */
};

/* A call that takes long, on a thread of its own. */
struct rbd_call {
    struct rbd_conn *c;
    int (*fn)(struct rbd_call *);   /* 0 or -errno */
    bool read_only;
    rbd_image_t image;              /* that in use, if none is given; of opening: the new one */
    uint64_t off, len, size;        /* arguments and answers, as each function has them */
    const char *step, *setting;     /* what failed; with which of Ceph's settings, or NULL */
    int res;
    atomic_bool ended;
    struct co_event done;
};

enum rbd_op { RBD_OP_READ, RBD_OP_WRITE, RBD_OP_ZERO, RBD_OP_ZERO_KEEP /* allocated */, RBD_OP_DISCARD, RBD_OP_FLUSH };

struct blk_rbd {
    struct blk_node node;
    char *pool, *space, *image, *snapshot, *conf, *user, *key_secret, **auth;
    json_t *server, *settings;
    uint32_t timeout;
    char *filename;
    struct rbd_conn *conn;          /* NULL: there is none (any more) */
    struct rbd_call *call;          /* what is under way */
    struct list reqs;
    struct blk_asked asked;         /* requests and calls */
    struct loop_fd watch;
    struct co_mutex calling, growing;
    bool swapping;                  /* another handle of the image comes: requests wait for */
    struct co_queue idle;
    uint64_t bytes, object;         /* of the image: its size, that of its objects */
    bool fast_diff;                 /* what is there can be told without looking at every object */
};

bool co_rbd_load(struct err *e) MUST_CHECK;
/* Takes over @c; the mirrors are rbd_lose() and co_rbd_end(). */
bool rbd_begin(struct blk_rbd *s, struct rbd_conn *c, struct err *e) MUST_CHECK;
/* Nothing is waited for any longer. */
void rbd_lose(struct blk_rbd *s);
/* Closes what is open; also where there is nothing. */
void co_rbd_end(struct blk_rbd *s);
/* Runs @fn with what @args says, and fills in what it answers. Coroutine; 0 or -errno. */
int co_rbd_call(struct blk_rbd *s, int (*fn)(struct rbd_call *), struct rbd_call *args);
/* @image in place of the one in use (NULL: none), when that has no request; the caller closes what this answers. Coroutine */
rbd_image_t co_rbd_swap(struct blk_rbd *s, rbd_image_t image);
/* One request. @buf: @len bytes that are the library's until it answered (of reads and writes), which this frees or, of a read, hands back. */
int64_t co_rbd_ask(struct blk_rbd *s, enum rbd_op op, uint64_t off, uint64_t len, char **buf);

#endif
