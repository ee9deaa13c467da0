/* SPDX-License-Identifier: MIT */
/* The NBD server's socket, its exports, its connections. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/exit_file.h"
#include "block/blk_int.h"
#include "block/nbd_server.h"
#include "core/run.h"
#include "loop/co.h"
#include "loop/sock_place.h"

#define NS INT64_C(1000000000)

static struct {
    int fd;
    bool running;
    char address[SOCK_TEXT];
    struct exit_file *file;         /* where it listens has this name */
    unsigned max_clients, clients;
    uint32_t handshake;             /* seconds; 0: any time */
    struct obj *creds;              /* NULL: no TLS */
    struct loop_fd watch;
    struct list conns;
    bool ready;
} srv = { .fd = -1 };

static void ready(void)
{
    if (srv.ready)
        return;
    list_init(&srv.conns);
    srv.ready = true;
}

struct list *nbd_clients(void)
{
    ready();
    return &srv.conns;
}

bool nbd_server_running(void) { return srv.running; }
bool nbd_server_takes_several(void) { return srv.max_clients != 1; }
struct obj *nbd_server_creds(void) { return srv.creds; }

/* ---- connections ---- */

static void connection(void *arg)
{
    struct nbd_client *c = arg;
    co_nbd_serve(c);
    list_del(&c->link);
    srv.clients--;
    nbd_wire_close(&c->wire);
    free(c);
    if (srv.running && (!srv.max_clients || srv.clients < srv.max_clients))
        loop_fd_watch(&srv.watch, LOOP_IN);
}

static void accept_client(void *unused, unsigned revents)
{
    int fd = sock_take(srv.fd);
    if (fd < 0)
        return;
    struct nbd_client *c = xnew(struct nbd_client);
    c->wire.fd = fd;
    c->wire.deadline = srv.handshake ? clock_now(CLOCK_HOST) + srv.handshake * NS : 0;
    list_push(&srv.conns, &c->link);
    srv.clients++;
    if (srv.max_clients && srv.clients >= srv.max_clients)
        loop_fd_watch(&srv.watch, 0);           /* the others wait in the queue of the socket */
    co_spawn(loop_main(), NULL, connection, c);
}

struct opening { struct sock_place p; struct sock_addr at; int fd; struct err *e; };

static void co_listen(void *arg)
{
    struct opening *o = arg;
    o->fd = co_sock_listen(&o->p, 128, &o->at, &srv.file, o->e);
}

/* A place that was left open would be every address of this host: which one it is must be said. */
static bool address_said(json_t *addr, struct err *e)
{
    json_t *type = json_object_get(addr, "type"), *data = json_object_get(addr, "data");
    const char *missing = !type ? "type" : NULL;
    if (type && json_is_string(type) && !strcmp(json_string_value(type), "inet") && !json_object_get(json_is_object(data) ? data : addr, "host"))
        missing = "host";
    if (!missing)
        return true;
    err_set(e, ERR_VALUE, "'%s' is missing in addr", missing);
    return err_hint(e, "type=unix,path=FILE or type=inet,host=HOST,port=PORT");
}

bool nbd_server_start(const struct nbd_server_args *a, struct err *e)
{
    struct opening o = { .fd = -1, .e = e };
    struct obj *creds = NULL;
    ready();
    if (srv.running)
        return err_set(e, ERR_STATE, "the NBD server runs already, on %s", srv.address);
    if (!address_said(a->addr, e))
        return false;
    if (a->tls_creds && !(creds = tls_creds_get(a->tls_creds, true, e)))
        return err_prefix(e, "tls-creds");
    if (sock_place_from_json(&o.p, a->addr, true, NBD_PORT, "the address", e)) {
        if (co_self())
            co_listen(&o);
        else
            co_run_main(co_listen, &o);
    }
    srv.fd = o.fd;
    sock_place_release(&o.p);
    if (srv.fd < 0) {
        obj_unref(creds);
        return false;
    }
    srv.creds = creds;
    sock_format(&o.at, srv.address);
    srv.max_clients = a->max;
    srv.handshake = a->handshake;
    srv.running = true;
    loop_fd_init(&srv.watch, loop_main(), NULL, srv.fd, accept_client, NULL);
    loop_fd_watch(&srv.watch, LOOP_IN);
    return true;
}

void nbd_client_end(struct nbd_client *c)
{
    c->closing = true;
    shutdown(c->wire.fd, SHUT_RDWR);
}

static void end_export(struct blk_export *x, void *unused)
{
    struct err e = ERR_INIT;
    if (!blk_export_del(x, true, &e))
        err_print(&e);
}

void nbd_server_stop(void)
{
    struct nbd_client *c;
    if (!srv.running)
        return;
    loop_fd_watch(&srv.watch, 0);
    close(srv.fd);
    srv.running = false;
    obj_unref(srv.creds);
    srv.creds = NULL;
    exit_file_remove(srv.file);
    list_for_each(c, &srv.conns, link)
        if (!c->export)
            nbd_client_end(c);
    blk_export_each(&nbd_export_class.obj, end_export, NULL);
}

/* The socket's file goes away, too. Before the exports, so that nobody new comes. */
static const struct run_end server_end = { "NBD server", RUN_END_BACKENDS - 21, nbd_server_stop };
RUN_END(&server_end);
