/* SPDX-License-Identifier: MIT */
/* The NBD server's socket, its exports, its connections. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "block/blk_int.h"
#include "block/nbd_server.h"
#include "core/cmd.h"
#include "core/run.h"

static struct {
    int fd;
    bool running;
    char address[SOCK_TEXT], *path;
    unsigned max_clients, clients;
    struct obj *creds;              /* NULL: no TLS */
    struct loop_fd watch;
    struct list conns, exports;
    bool ready;
} srv = { .fd = -1 };

static void ready(void)
{
    if (srv.ready)
        return;
    list_init(&srv.conns);
    list_init(&srv.exports);
    srv.ready = true;
}

struct list *nbd_exports(void)
{
    ready();
    return &srv.exports;
}

bool nbd_server_running(void) { return srv.running; }
const char *nbd_server_address(void) { return srv.address; }
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
    int fd = accept4(srv.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct nbd_client *c = xnew(struct nbd_client);
    c->wire.fd = fd;
    list_push(&srv.conns, &c->link);
    srv.clients++;
    if (srv.max_clients && srv.clients >= srv.max_clients)
        loop_fd_watch(&srv.watch, 0);           /* the others wait in the queue of the socket */
    co_spawn(loop_main(), NULL, connection, c);
}

static bool parse_address(json_t *addr, struct sock_addr *a, struct err *e)
{
    json_t *data = json_is_object(json_object_get(addr, "data")) ? json_object_get(addr, "data") : addr;
    const char *type = json_string_value(json_object_get(addr, "type")), *path = json_string_value(json_object_get(data, "path"));
    const char *host = json_string_value(json_object_get(data, "host")), *port = json_string_value(json_object_get(data, "port"));
    if (str_eq(type, "unix") || (!type && path)) {
        free(srv.path);
        srv.path = xstrdup(path ? path : "");
        return path ? sock_unix(a, path, false, false, e) : err_set(e, ERR_VALUE, "'path' is missing in the address");
    }
    if (!str_eq(type, "inet"))
        return err_set(e, ERR_VALUE, "the type of an address is 'inet' or 'unix'");
    return sock_resolve(a, host, port ? port : "10809", AF_UNSPEC, SOCK_STREAM, true, e);
}

bool nbd_server_start(json_t *addr, unsigned max_clients, const char *tls_creds, struct err *e)
{
    struct sock_addr a;
    struct obj *creds = NULL;
    ready();
    if (srv.running)
        return err_set(e, ERR_STATE, "the NBD server runs already, on %s", srv.address);
    if (tls_creds && !(creds = tls_creds_get(tls_creds, true, e)))
        return err_prefix(e, "tls-creds");
    srv.fd = parse_address(addr, &a, e) ? sock_listen(&a, 128, e) : -1;
    if (srv.fd < 0) {
        obj_unref(creds);
        return false;
    }
    srv.creds = creds;
    sock_local(srv.fd, &a);
    sock_format(&a, srv.address);
    srv.max_clients = max_clients;
    srv.running = true;
    loop_fd_init(&srv.watch, loop_main(), NULL, srv.fd, accept_client, NULL);
    loop_fd_watch(&srv.watch, LOOP_IN);
    return true;
}

void nbd_server_stop(void)
{
    struct nbd_client *c;
    struct nbd_export *x;
    struct err e = ERR_INIT;
    if (!srv.running)
        return;
    loop_fd_watch(&srv.watch, 0);
    close(srv.fd);
    srv.running = false;
    obj_unref(srv.creds);
    srv.creds = NULL;
    if (srv.path && *srv.path)
        unlink(srv.path);
    list_for_each(c, &srv.conns, link)
        if (!c->export) {
            c->closing = true;
            shutdown(c->wire.fd, SHUT_RDWR);
        }
    list_for_each(x, &srv.exports, link) {
        bool ok = nbd_export_del(x, true, &e);
        (void)ok;
    }
}

static void co_end(void *unused)
{
    nbd_server_stop();
    while (!list_empty(&srv.exports))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + 200000);
}
/* Before the nodes: what is exported is closed then, and written. */
static void end_server(void)
{
    if (srv.running)
        co_run_main(co_end, NULL);
}
static const struct run_end server_end = { "NBD server", RUN_END_BACKENDS - 20, end_server };
RUN_END(&server_end);

/* ---- exports ---- */

struct nbd_export *nbd_export_find(const char *name)
{
    struct nbd_export *x;
    ready();
    list_for_each(x, &srv.exports, link)
        if (!x->gone && !strcmp(x->name, name))
            return x;
    return NULL;
}

struct nbd_export *nbd_export_by_id(const char *id)
{
    struct nbd_export *x;
    ready();
    list_for_each(x, &srv.exports, link)
        if (!x->gone && !strcmp(x->id, id))
            return x;
    return NULL;
}

static void export_free(struct nbd_export *x)
{
    list_del(&x->link);
    nbd_export_drop_bitmaps(x);
    blk_close(x->blk);
    qmp_event("BLOCK_EXPORT_DELETED", json_pack("{s:s}", "id", x->id));
    free(x->id);
    free(x->name);
    free(x->description);
    free(x);
}
static const struct qmp_event_def deleted_event = { "BLOCK_EXPORT_DELETED", "An export ended", false };
QMP_EVENT(&deleted_event);

struct nbd_export *nbd_export_add(const char *id, struct blk_node *n, const char *name, const char *description, bool writable, struct err *e)
{
    char who[160];
    name = name ? name : n->obj.id;
    id = id ? id : name;
    if (nbd_export_find(name) || nbd_export_by_id(id)) {
        err_set(e, ERR_BUSY, "there is an export '%s' already", nbd_export_find(name) ? name : id);
        return NULL;
    }
    if (strlen(name) > NBD_MAX_EXPORT_NAME) {
        err_set(e, ERR_VALUE, "an export's name has at most %d bytes", NBD_MAX_EXPORT_NAME);
        return NULL;
    }
    struct nbd_export *x = xnew(struct nbd_export);
    snprintf(who, sizeof who, "export '%s'", id);
    x->blk = blk_open(n, BLK_PERM_READ | (writable ? BLK_PERM_WRITE : 0), BLK_PERM_ALL, NULL, who, e);
    if (!x->blk) {
        free(x);
        return NULL;
    }
    x->blk->is_export = true;
    x->id = xstrdup(id);
    x->name = xstrdup(name);
    x->description = xstrdup(description);
    x->writable = writable;
    list_push(&srv.exports, &x->link);
    return x;
}

bool nbd_export_del(struct nbd_export *x, bool hard, struct err *e)
{
    struct nbd_client *c;
    if (x->clients && !hard) {
        err_set(e, ERR_BUSY, "export '%s' has %u client%s", x->id, x->clients, x->clients == 1 ? "" : "s");
        return err_hint(e, "mode=hard disconnects them");
    }
    x->gone = true;
    list_for_each(c, &srv.conns, link)
        if (c->export == x) {
            c->closing = true;
            shutdown(c->wire.fd, SHUT_RDWR);
        }
    if (!x->clients)
        export_free(x);
    return true;
}

void nbd_export_put(struct nbd_export *x)
{
    if (!--x->clients && x->gone)
        export_free(x);
}

json_t *nbd_exports_json(void)
{
    json_t *list = json_array();
    struct nbd_export *x;
    ready();
    list_for_each(x, &srv.exports, link)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "id", x->id, "type", "nbd", "node-name", blk_node_of(x->blk)->obj.id,
                                              "shutting-down", x->gone));
    return list;
}
