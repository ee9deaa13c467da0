/* SPDX-License-Identifier: MIT */
/* The socket of a vhost-user device, and the front end that is connected. */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/sock.h"
#include "base/str.h"
#include "vhost_user/vu_int.h"

static void conn_close(struct vu_conn *c)
{
    for (unsigned i = 0; i < c->s->n_rings; i++) {
        struct vu_ring *r = &c->ring[i];
        vu_ring_watch(r, -1);
        if (r->call >= 0)
            close(r->call);
        if (r->err >= 0)
            close(r->err);
    }
    vu_rings_unmap(c);
    vu_regions_clear(c);
    vu_unmap(&c->log);
    vu_unmap(&c->inflight);
    if (c->backend_fd >= 0)
        close(c->backend_fd);
}

/* On the main loop again. */
static void conn_ended(void *arg)
{
    struct vu_conn *c = arg;
    struct vu_server *s = c->s;
    close(c->fd);
    free(c->ring);
    free(c);
    s->conn = NULL;
    if (!s->stopped)
        loop_fd_watch(&s->watch, LOOP_IN);
    s->ops->attached(s->arg, false);    /* @s may be gone */
}

static void co_conn(void *arg)
{
    struct vu_conn *c = arg;
    c->s->live = c;
    co_vu_serve(c);
    c->s->live = NULL;
    co_vu_pause(c);
    conn_close(c);
    loop_post(loop_main(), &c->ended);
}

static void accept_one(void *arg, unsigned revents)
{
    struct vu_server *s = arg;
    int fd = sock_take(s->fd);
    if (fd < 0)
        return;
    struct vu_conn *c = xnew(struct vu_conn);
    c->s = s;
    c->fd = fd;
    c->backend_fd = -1;
    c->ended = (struct post){ .fn = conn_ended, .arg = c };
    c->ring = xcalloc(s->n_rings, sizeof *c->ring);
    for (unsigned i = 0; i < s->n_rings; i++)
        c->ring[i] = (struct vu_ring){ .conn = c, .index = i, .kick = -1, .call = -1, .err = -1 };
    s->conn = c;
    loop_fd_watch(&s->watch, 0);        /* the next one waits in the socket's queue */
    s->ops->attached(s->arg, true);
    co_spawn(vu_loop(s), s->dom, co_conn, c);
}

bool vu_server_start(struct vu_server *s, json_t *addr, struct err *e)
{
    const char *type = json_string_value(json_object_get(addr, "type")), *path = json_string_value(json_object_get(addr, "path"));
    struct sock_addr a;
    s->fd = -1;
    if (!str_eq(type, "unix") || !path) {
        err_set(e, ERR_VALUE, "'addr' must say where: type=unix and path");
        return err_hint(e, "addr.type=unix,addr.path=PATH");
    }
    s->fd = sock_unix(&a, path, false, false, e) ? sock_listen(&a, 1, &s->file, e) : -1;
    if (s->fd < 0)
        return false;
    loop_fd_init(&s->watch, loop_main(), NULL, s->fd, accept_one, s);
    loop_fd_watch(&s->watch, LOOP_IN);
    return true;
}

void vu_server_stop(struct vu_server *s)
{
    if (s->stopped || !s->watch.loop)
        return;
    s->stopped = true;
    loop_fd_watch(&s->watch, 0);
    close(s->fd);
    exit_file_remove(s->file);
    if (s->conn)
        shutdown(s->conn->fd, SHUT_RDWR);
}
