/* SPDX-License-Identifier: MIT */
/*
 * libnfs' calls as coroutines, and its socket on the loop. The library tells which events it waits for, and calls back from within
 * nfs_service(). With version 3 it connects again by itself when the connection is lost (a server may end one that was silent for some
 * minutes) and sends again what was not answered; it would try without a pause, which is put in here. With version 4 it does not: the
 * server's state of the open file is lost with the connection.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/nfs_int.h"

#define RETRY_NS INT64_C(200000000)
#define NS INT64_C(1000000000)

struct nfs_functions nfs;
static char trouble[256];               /* why the library cannot be used, or empty */

static void open_library(void)
{
    void *so = dlopen("libnfs.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(trouble, sizeof trouble, "%s", dlerror());
        return;
    }
#define LOAD(f) nfs.f = (typeof(nfs.f))dlsym(so, #f); if (!nfs.f) snprintf(trouble, sizeof trouble, "it has no %s()", #f);
    NFS_FUNCTIONS(LOAD)
}

/* On a worker: loading takes milliseconds. */
static int load(void *arg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_library);
    return 0;
}

static const char *error_of(const struct blk_nfs *s)
{
    const char *text = nfs.nfs_get_error(s->ctx);
    return text && *text ? text : "the server has ended it";
}

/* ---- the socket ---- */

static void on_socket(void *arg, unsigned revents);

/* The library may have closed its socket and have another one by the same number: it is watched anew, unless all is @steady. */
static void watch(struct blk_nfs *s, bool steady)
{
    if (!steady && s->watch.loop)
        loop_fd_watch(&s->watch, 0);
    int fd = s->ctx && !timer_armed(&s->retry) ? nfs.nfs_get_fd(s->ctx) : -1;
    if (fd < 0)
        return;
    if (!steady || s->watch.fd != fd)
        loop_fd_init(&s->watch, s->node.home, NULL, fd, on_socket, s);
    loop_fd_watch(&s->watch, (unsigned)nfs.nfs_which_events(s->ctx) & (LOOP_IN | LOOP_OUT));
}

static void look_again(void *arg)
{
    watch(arg, false);
}

static void lost(struct blk_nfs *s, bool again)
{
    if (s->reconnect_timeout && !timer_armed(&s->patience))
        timer_arm(&s->patience, clock_now(CLOCK_HOST) + s->reconnect_timeout * NS);
    if (!again)
        return;                         /* the first attempt is made at once */
    timer_arm(&s->retry, clock_now(CLOCK_HOST) + RETRY_NS);
    if (!s->lost_told)
        log_warn("the connection to '%s' is lost: %s; what is asked waits until it is back", s->name, error_of(s));
    s->lost_told = true;
}

static void back(struct blk_nfs *s)
{
    timer_disarm(&s->patience);
    if (s->lost_told)
        log_warn("the connection to '%s' is back", s->name);
    s->lost_told = false;
}

static void on_socket(void *arg, unsigned revents)
{
    struct blk_nfs *s = arg;
    bool was = s->connected, failed = revents & (LOOP_ERR | LOOP_HUP);
    int fd = s->watch.fd;
    if (failed)
        loop_fd_watch(&s->watch, 0);
    int r = nfs.nfs_service(s->ctx, (int)revents);
    s->connected = !r && nfs.nfs_which_events(s->ctx) & POLLIN;
    if (r && (s->mounted || !list_empty(&s->calls))) {
        nfs_end(s, error_of(s));
        return;
    }
    if (s->mounted && !s->connected)
        lost(s, !was && failed);
    else if (s->mounted && !was)
        back(s);
    watch(s, was && s->connected && !failed && fd == nfs.nfs_get_fd(s->ctx));
}

/* ---- calls ---- */

/* Failed reads and writes of version 3 are all -EFAULT; which it was is at the end of the text: "...NFS3ERR_NOSPC(-28)". */
static int real_errno(int r, const char *said)
{
    const char *paren = strrchr(said, '(');
    long v = paren ? strtol(paren + 1, NULL, 10) : 0;
    return r == -EFAULT && v < 0 && v > -4096 ? (int)v : r == -EFAULT || r == -EINTR ? -EIO : r;
}

/* From the oldest question on, or from the last answer. */
static void expect_answer(struct blk_nfs *s)
{
    if (s->timeout && !list_empty(&s->calls))
        timer_arm(&s->silence, clock_now(CLOCK_HOST) + s->timeout * NS);
}

/* A server that is there and says nothing. One that is not there is waited for by reconnect-timeout. */
static void silent(void *arg)
{
    struct blk_nfs *s = arg;
    char why[64];
    if (s->mounted && !s->connected) {
        expect_answer(s);
        return;
    }
    snprintf(why, sizeof why, "the server did not answer in %u seconds", s->timeout);
    if (!list_empty(&s->calls))
        nfs_end(s, why);
}

void nfs_called(int r, struct nfs_context *ctx, void *data, void *arg)
{
    struct nfs_call *c = arg;
    struct blk_nfs *s = c->s;
    list_del(&c->link);
    blk_answered(&s->asked);
    if (s->ctx && s->timeout) {
        timer_disarm(&s->silence);
        expect_answer(s);
    }
    if (r < 0 && s->ctx) {              /* @data may be the text, or anything else */
        snprintf(s->said, sizeof s->said, "%s", error_of(s));
        r = real_errno(r, s->said);
    }
    c->done(c, r < 0 && !s->ctx ? -EIO : r, data);
}

void nfs_begin_call(struct blk_nfs *s, struct nfs_call *c, void (*done)(struct nfs_call *, int r, void *data))
{
    c->s = s;
    c->done = done;
    list_push(&s->calls, &c->link);
    blk_ask(&s->asked);
    if (s->timeout && !timer_armed(&s->silence))
        expect_answer(s);
}

bool nfs_sent(struct blk_nfs *s, struct nfs_call *c, int r)
{
    if (r) {
        list_del(&c->link);
        blk_answered(&s->asked);
        snprintf(s->said, sizeof s->said, "%s", error_of(s));
    }
    watch(s, s->connected);
    return !r;
}

static void waited(struct nfs_call *c, int r, void *data)
{
    struct nfs_wait *w = (struct nfs_wait *)c;
    w->res = r;
    w->data = data;
    if (r >= 0 && w->stat)
        *w->stat = *(struct nfs_stat_64 *)data;
    co_wake(&w->done);
}

bool nfs_wait_begin(struct blk_nfs *s, struct nfs_wait *w)
{
    if (!s->ctx) {
        snprintf(s->said, sizeof s->said, "the connection is lost");
        return false;
    }
    nfs_begin_call(s, &w->call, waited);
    return true;
}

int co_nfs_wait(struct nfs_wait *w, int started)
{
    if (!nfs_sent(w->call.s, &w->call, started))
        return -EIO;
    co_wait(&w->done);
    return w->res;
}

/* ---- beginning and end ---- */

static void give_up(void *arg)
{
    struct blk_nfs *s = arg;
    bool waiting = !list_empty(&s->calls);
    if (!s->mounted)
        nfs_end(s, "the server does not answer for 30 seconds");
    else if (waiting)
        nfs_end(s, "the server did not come back in time");
    else
        timer_arm(&s->patience, clock_now(CLOCK_HOST) + s->reconnect_timeout * NS);     /* nobody minds yet */
}

bool co_nfs_begin(struct blk_nfs *s, struct err *e)
{
    co_offload(load, NULL);
    if (trouble[0])
        return err_set(e, ERR_GENERIC, "cannot use libnfs: %s", trouble);
    timer_init(&s->retry, CLOCK_HOST, s->node.home, NULL, look_again, s);
    timer_init(&s->patience, CLOCK_HOST, s->node.home, NULL, give_up, s);
    timer_init(&s->silence, CLOCK_HOST, s->node.home, NULL, silent, s);
    s->ctx = nfs.nfs_init_context();
    return s->ctx || err_os(e, ENOMEM, "'%s': cannot begin", s->name);
}

static void closed(int r, struct nfs_context *ctx, void *data, void *arg) {}

void nfs_end(struct blk_nfs *s, const char *why)
{
    struct nfs_context *ctx = s->ctx;
    char text[160];
    if (!ctx)
        return;
    snprintf(text, sizeof text, "%s", why ? why : "");      /* it may be the context's */
    if (s->mounted && why)
        log_warn("the connection to '%s' is lost: %s", s->name, text);
    if (s->watch.loop)
        loop_fd_watch(&s->watch, 0);
    timer_fini(&s->retry);
    timer_fini(&s->patience);
    timer_fini(&s->silence);
    if (s->fh)
        nfs.nfs_close_async(ctx, s->fh, closed, NULL);      /* only its memory is meant */
    s->ctx = NULL;
    s->fh = NULL;
    s->connected = false;
    nfs.nfs_destroy_context(ctx);
    while (!list_empty(&s->calls))
        nfs_called(-EIO, NULL, NULL, list_first(&s->calls, struct nfs_call, link));
    if (why)
        snprintf(s->said, sizeof s->said, "%s", text);
}
