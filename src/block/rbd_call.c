/* SPDX-License-Identifier: MIT */
/*
 * librbd's requests and slow calls as coroutines. Requests tell through an eventfd that they ended (rbd_set_image_notification());
 * what may block (connecting, opening, growing) runs on a thread, which tells in the same way. So no thread of the library's ever
 * calls into this program, and what does not answer can be left behind.
 */
#include "block/rbd_int.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/thread.h"

struct rbd_functions rbd;
static char trouble[256];               /* why the library cannot be used, or empty */
static bool gone;                       /* the program exits, and the library's own end comes before ours */

static void leave(void) { gone = true; }

static void open_library(void)
{
    void *so = dlopen("librbd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(trouble, sizeof trouble, "%s", dlerror());
        return;
    }
#define LOAD(f) rbd.f = (typeof(rbd.f))dlsym(so, #f); if (!rbd.f) snprintf(trouble, sizeof trouble, "it has no %s()", #f);
    RBD_FUNCTIONS(LOAD)
    atexit(leave);
}

/* On a worker: loading takes milliseconds. */
static int load(void *arg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_library);
    return 0;
}

bool co_rbd_load(struct err *e)
{
    co_offload(load, NULL);
    return !trouble[0] || err_set(e, ERR_GENERIC, "cannot use librbd: %s", trouble);
}

/* ---- what ended ---- */

struct req { struct list link; rbd_completion_t c; char *buf; int64_t res; struct co_event done; };

static void req_ended(struct blk_rbd *s, struct req *q, int64_t res)
{
    list_del(&q->link);
    q->res = res;
    blk_answered(&s->asked);
    co_wake(&q->done);
    if (list_empty(&s->reqs))
        co_queue_wake_all(&s->idle);
}

static void on_answers(void *arg, unsigned revents)
{
    struct blk_rbd *s = arg;
    rbd_completion_t v[32];
    uint64_t count;
    int n = 0;
    if (read(s->conn->fd, &count, sizeof count) < 0)
        return;
    if (s->call && atomic_load(&s->call->ended)) {
        struct rbd_call *c = s->call;
        s->call = NULL;
        blk_answered(&s->asked);
        co_wake(&c->done);
    }
    while (!list_empty(&s->reqs) && (n = rbd.rbd_poll_io_events(s->conn->rbd, v, ARRAY_SIZE(v))) > 0)
        for (int i = 0; i < n; i++) {
            struct req *q = rbd.rbd_aio_get_arg(v[i]);
            int64_t res = rbd.rbd_aio_get_return_value(v[i]);
            rbd.rbd_aio_release(v[i]);
            req_ended(s, q, res);
        }
}

/* ---- calls ---- */

static void *run_call(void *arg)
{
    struct rbd_call *c = arg;
    const uint64_t one = 1;
    c->res = c->fn(c);
    atomic_store(&c->ended, true);
    ssize_t told = write(c->c->fd, &one, sizeof one);
    (void)told;                         /* full: then it was told already */
    return NULL;
}

static int co_run_call(struct blk_rbd *s, struct rbd_call *c)
{
    pthread_t thread;
    int failed = thread_start(&thread, "rbd", run_call, c);
    if (failed)
        return -failed;
    s->call = c;
    blk_ask(&s->asked);
    co_wait(&c->done);
    if (!s->conn) {
        pthread_detach(thread);
        return -ETIMEDOUT;
    }
    pthread_join(thread, NULL);         /* it is about to end */
    return c->res;
}

int co_rbd_call(struct blk_rbd *s, int (*fn)(struct rbd_call *), struct rbd_call *args)
{
    co_mutex_lock(&s->calling);
    struct rbd_call *c = s->conn ? calloc(1, sizeof *c) : NULL;
    int r = s->conn ? -ENOMEM : -EIO;
    if (c) {
        *c = (struct rbd_call){ .c = s->conn, .fn = fn, .read_only = args->read_only, .image = args->image ? args->image : s->conn->rbd, .off = args->off, .len = args->len, .size = args->size };
        r = co_run_call(s, c);
        args->image = c->image;
        args->off = c->off;
        args->len = c->len;
        args->size = c->size;
        args->step = c->step;
        args->setting = c->setting;
        if (s->conn)                    /* else its thread has it */
            free(c);
    }
    co_mutex_unlock(&s->calling);
    return r;
}

/* ---- requests ---- */

static int start(const struct blk_rbd *s, const struct req *q, enum rbd_op op, uint64_t off, uint64_t len)
{
    rbd_image_t image = s->conn->rbd;
    switch (op) {
    case RBD_OP_READ: return rbd.rbd_aio_read(image, off, len, q->buf, q->c);
    case RBD_OP_WRITE: return rbd.rbd_aio_write(image, off, len, q->buf, q->c);
    case RBD_OP_ZERO: return rbd.rbd_aio_write_zeroes(image, off, len, q->c, 0, 0);
    case RBD_OP_ZERO_KEEP: return rbd.rbd_aio_write_zeroes(image, off, len, q->c, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0);
    case RBD_OP_DISCARD: return rbd.rbd_aio_discard(image, off, len, q->c);
    case RBD_OP_FLUSH: return rbd.rbd_aio_flush(image, q->c);
    }
    return -EINVAL;
}

rbd_image_t co_rbd_swap(struct blk_rbd *s, rbd_image_t image)
{
    rbd_image_t before = NULL;
    s->swapping = true;
    while (!list_empty(&s->reqs))
        co_queue_wait(&s->idle);
    if (s->conn) {
        before = s->conn->rbd;
        s->conn->rbd = image;
    }
    s->swapping = false;
    co_queue_wake_all(&s->idle);
    return before;
}

int64_t co_rbd_ask(struct blk_rbd *s, enum rbd_op op, uint64_t off, uint64_t len, char **buf)
{
    while (s->swapping)
        co_queue_wait(&s->idle);
    struct req *q = s->conn && s->conn->rbd ? calloc(1, sizeof *q) : NULL;
    int64_t r = s->conn && s->conn->rbd ? -ENOMEM : -EIO;
    char *own = buf ? *buf : NULL;
    if (q && !(r = rbd.rbd_aio_create_completion(q, NULL, &q->c))) {
        q->buf = own;
        r = start(s, q, op, off, len);
        if (r < 0)
            rbd.rbd_aio_release(q->c);
    }
    if (!q || r < 0) {
        free(q);
        free(own);
        return r;
    }
    list_push(&s->reqs, &q->link);
    blk_ask(&s->asked);
    co_wait(&q->done);
    r = q->res;
    if (!s->conn)
        return r;                       /* both stay: the library may still answer */
    free(q);
    if (op != RBD_OP_READ || r < 0)
        free(own);
    return r;
}

/* ---- the connection ---- */

static void conn_free(struct rbd_conn *c)
{
    char *texts[] = { c->user, c->conf, c->pool, c->space, c->image, c->snapshot };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        free(texts[i]);
    json_decref(c->settings);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

bool rbd_begin(struct blk_rbd *s, struct rbd_conn *c, struct err *e)
{
    c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->fd < 0) {
        conn_free(c);
        return err_os(e, errno, "cannot wait for the cluster");
    }
    s->conn = c;
    loop_fd_init(&s->watch, s->node.home, NULL, c->fd, on_answers, s);
    loop_fd_watch(&s->watch, LOOP_IN);
    return true;
}

void rbd_lose(struct blk_rbd *s)
{
    struct rbd_call *c = s->call;
    if (!s->conn)
        return;
    loop_fd_watch(&s->watch, 0);
    s->conn = NULL;
    s->call = NULL;
    while (!list_empty(&s->reqs))
        req_ended(s, list_first(&s->reqs, struct req, link), -EIO);
    if (c) {
        blk_answered(&s->asked);
        co_wake(&c->done);
    }
}

static int close_all(struct rbd_call *c)
{
    struct rbd_conn *n = c->c;
    if (n->rbd)
        rbd.rbd_close(n->rbd);
    if (n->io)
        rbd.rados_ioctx_destroy(n->io);
    if (n->cluster)
        rbd.rados_shutdown(n->cluster);
    n->rbd = NULL;
    n->io = NULL;
    n->cluster = NULL;
    return 0;
}

void co_rbd_end(struct blk_rbd *s)
{
    struct rbd_call a = { 0 };
    if (gone || (s->conn && co_rbd_call(s, close_all, &a)))
        rbd_lose(s);
    if (!s->conn)
        return;
    loop_fd_watch(&s->watch, 0);
    conn_free(s->conn);
    s->conn = NULL;
}
