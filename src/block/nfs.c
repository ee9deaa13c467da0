/* SPDX-License-Identifier: MIT */
/*
 * "nfs": a file of an NFS server, by libnfs, which speaks versions 3 (RFC 1813) and 4 (RFC 7530) and mounts nothing here. The file is not
 * locked, as with QEMU: who uses it is for people to see to.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "block/nfs_int.h"
#include "block/uri.h"

enum {
    PIECE_MAX = 1 << 20,
    PIECE_V4 = 64 * 1024,               /* libnfs does not ask the server how much it takes */
    WRITE_V4 = 2048,                    /* libnfs makes room for 4 KiB in all */
    PIECES = 64, IN_FLIGHT_MAX = 8 << 20,
    READAHEAD_MAX = 1 << 20, PAGECACHE_MAX = (8 << 20) / NFS_BLKSIZE,
};
#define CONNECT_NS INT64_C(30000000000)
#define WARN_NS INT64_C(1000000000)

static struct blk_nfs *of(struct blk_node *n) { return (struct blk_nfs *)n; }

/* ---- reading and writing: in pieces, which are answered in any order ---- */

struct transfer { const struct iovec *iov; unsigned niov, pending; bool write; int res; struct co_event done; };
struct piece { struct nfs_call call; struct transfer *t; uint64_t off, at; uint32_t len, size /* of it all */; char *buf; };

static void piece_ended(struct piece *p, int res)
{
    struct transfer *t = p->t;
    struct blk_nfs *s = p->call.s;
    t->res = t->res ? t->res : res;
    s->pieces--;
    s->in_flight -= p->size;
    free(p->buf);
    free(p);
    if (!--t->pending)
        co_wake(&t->done);
    co_queue_wake_all(&s->room);
}

static void refused(struct blk_nfs *s, const struct piece *p)
{
    int64_t now = clock_now(CLOCK_HOST);
    if (!s->ctx || (s->warned && now - s->warned < WARN_NS))
        return;
    s->warned = now;
    log_warn("'%s': cannot %s %u bytes at %llu: %s", s->name, p->t->write ? "write" : "read", p->len, (unsigned long long)p->off, s->said);
}

static void send_piece(struct blk_nfs *s, struct piece *p);

/* As much as was asked for, or less: the rest is asked for again, up to the end of the file. */
static void piece_answered(struct nfs_call *c, int r, void *data)
{
    struct piece *p = (struct piece *)c;
    struct transfer *t = p->t;
    if (r < 0)
        refused(c->s, p);
    if (r < 0 || (uint32_t)r > p->len || (!r && t->write)) {
        piece_ended(p, r < 0 ? r : -EIO);
        return;
    }
    if (!t->write && r)
        blk_iov_copy(data, t->iov, t->niov, p->at, (uint64_t)r, true);
    struct iovec *rest = !r ? calloc(t->niov, sizeof *rest) : NULL;
    if (rest)
        blk_iov_zero(rest, blk_iov_slice(t->iov, t->niov, p->at, p->len, rest));
    if ((uint32_t)r == p->len || !r) {
        piece_ended(p, !r && !rest ? -ENOMEM : 0);
        free(rest);
        return;
    }
    p->off += (uint32_t)r;
    p->at += (uint32_t)r;
    p->len -= (uint32_t)r;
    send_piece(c->s, p);
}

static void send_piece(struct blk_nfs *s, struct piece *p)
{
    struct transfer *t = p->t;
    if (!s->ctx || !s->fh) {
        piece_ended(p, -EIO);
        return;
    }
    if (t->write)
        blk_iov_copy(p->buf, t->iov, t->niov, p->at, p->len, false);
    nfs_begin_call(s, &p->call, piece_answered);
    if (!nfs_sent(s, &p->call, t->write ? nfs.nfs_pwrite_async(s->ctx, s->fh, p->off, p->len, p->buf, nfs_called, &p->call) :
                                          nfs.nfs_pread_async(s->ctx, s->fh, p->off, p->len, nfs_called, &p->call))) {
        refused(s, p);
        piece_ended(p, -EIO);
    }
}

static uint32_t piece_size(struct blk_nfs *s, bool write)
{
    uint64_t max = write ? nfs.nfs_get_writemax(s->ctx) : nfs.nfs_get_readmax(s->ctx);
    return s->version == 4 ? (write ? WRITE_V4 : PIECE_V4) : (uint32_t)MIN(MAX(max, UINT64_C(4096)), (uint64_t)PIECE_MAX);
}

static int co_transfer(struct blk_nfs *s, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct transfer t = { .iov = iov, .niov = niov, .write = write, .pending = 1 };
    for (uint64_t at = 0; at < len && !t.res;) {
        while (s->pieces >= PIECES || s->in_flight >= IN_FLIGHT_MAX)
            co_queue_wait(&s->room);
        struct piece *p = s->ctx ? calloc(1, sizeof *p) : NULL;
        uint32_t k = s->ctx ? (uint32_t)MIN(len - at, (uint64_t)piece_size(s, write)) : 0;
        char *buf = p && write ? malloc(k) : NULL;
        if (!p || (write && !buf)) {
            t.res = s->ctx ? -ENOMEM : -EIO;
            free(p);
            break;
        }
        *p = (struct piece){ .call.s = s, .t = &t, .off = off + at, .at = at, .len = k, .size = k, .buf = buf };
        t.pending++;
        s->pieces++;
        s->in_flight += k;
        send_piece(s, p);
        at += k;
    }
    if (--t.pending)
        co_wait(&t.done);
    return t.res;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_transfer(of(n), false, off, len, iov, niov);
}

/* ---- the other requests ---- */

static int co_flush(struct blk_node *n)
{
    struct nfs_wait w = { 0 };
    struct blk_nfs *s = of(n);
    int r = CO_NFS(s, &w, nfs_fsync_async, s->fh);
    return MIN(r, 0);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_transfer(of(n), true, off, len, iov, niov);
    uint64_t end = align_up(off + len, 512);
    if (!r && flags & BLK_GROW && end > atomic_load(&n->size))
        atomic_store(&n->size, end);
    return !r && flags & BLK_FUA && !n->no_flush ? co_flush(n) : r;
}

static int co_resize(struct blk_node *n, uint64_t size)
{
    struct nfs_wait w = { 0 };
    struct blk_nfs *s = of(n);
    int r = CO_NFS(s, &w, nfs_ftruncate_async, s->fh, size);
    if (r >= 0)
        atomic_store(&n->size, align_up(size, 512));
    return MIN(r, 0);
}

static int64_t co_allocated(struct blk_node *n)
{
    struct nfs_stat_64 st;
    struct nfs_wait w = { .stat = &st };
    struct blk_nfs *s = of(n);
    int r = CO_NFS(s, &w, nfs_fstat64_async, s->fh);
    return r < 0 ? r : (int64_t)st.nfs_used;
}

/* ---- opening ---- */

static bool failed(struct blk_nfs *s, const char *what, int r, struct err *e)
{
    err_set(e, ERR_GENERIC, "cannot %s '%s': %s", what, s->name, s->said);
    if (r == -EACCES || r == -EROFS || r == -EPERM)
        err_hint(e, s->node.read_only ? "user=UID,group=GID say as whom" : "to read it only, say read-only=on; user=UID,group=GID say as whom");
    return false;
}

static void co_close_file(struct blk_nfs *s)
{
    struct nfs_wait w = { 0 };
    struct nfsfh *fh = s->fh;
    s->fh = NULL;
    if (fh && s->ctx && s->connected)
        (void)CO_NFS(s, &w, nfs_close_async, fh);
}

static int co_open_as(struct blk_nfs *s, int flags)
{
    struct nfs_wait w = { 0 };
    int r = CO_NFS(s, &w, nfs_open2_async, s->file, flags, 0644);
    if (r < 0)
        return r;
    co_close_file(s);
    s->fh = w.data;
    return 0;
}

/* A new file where there must be none, or whatever is there. */
static bool co_make(struct blk_nfs *s, struct err *e)
{
    struct nfs_stat_64 st;
    struct nfs_wait w = { .stat = &st };
    int r = CO_NFS(s, &w, nfs_stat64_async, s->file);
    if (r >= 0)
        return s->node.make == BLK_MAKE_ANY || blk_exists(s->name, e);
    if (r != -ENOENT)
        return failed(s, "create", r, e);
    r = co_open_as(s, O_RDWR | O_CREAT | (s->node.make == BLK_MAKE_NEW ? O_EXCL : 0));
    s->node.made = !r;
    return !r || failed(s, "create", r, e);
}

static bool co_open_file(struct blk_nfs *s, struct err *e)
{
    struct blk_node *n = &s->node;
    struct nfs_stat_64 st;
    struct nfs_wait w = { .stat = &st };
    int r = co_open_as(s, n->read_only ? O_RDONLY : O_RDWR);
    if ((r == -EACCES || r == -EROFS || r == -EPERM) && !n->read_only && n->auto_read_only) {
        n->read_only = true;
        r = co_open_as(s, O_RDONLY);
    }
    if (!r)
        r = CO_NFS(s, &w, nfs_fstat64_async, s->fh);
    if (r < 0)
        return failed(s, "open", r, e);
    if (!S_ISREG(st.nfs_mode))
        return err_set(e, ERR_VALUE, "'%s' is no plain file", s->name);
    if (st.nfs_size > INT64_MAX - 4096)
        return err_set(e, ERR_VALUE, "'%s' is larger than is possible here", s->name);
    atomic_store(&n->size, align_up(st.nfs_size, 512));     /* the rest of a last sector reads as zeroes */
    n->caps = (struct blk_caps){ .read_only = n->read_only, .flush = !n->no_flush, .fua = true, .grows = !n->read_only, .logical_block = 512,
        .physical_block = 4096, .mem_align = 1 };
    return true;
}

static bool check_options(struct blk_nfs *s, struct err *e)
{
    if (!sock_place_from_json(&s->place, s->server, false, "2049", "server", e))
        return false;
    if (s->place.kind != SOCK_INET || !s->place.host)
        return err_set(e, ERR_VALUE, "NFS goes to a host: server.type=inet,server.host=NAME");
    const char *slash = strrchr(s->path, '/');
    if (!slash || !slash[1])
        return err_set(e, ERR_VALUE, "path '%.100s' names no file in a folder of the server", s->path);
    if (s->version != 3 && s->version != 4)
        return err_set(e, ERR_VALUE, "version is 3 or 4");
    if (s->node.direct && (s->readahead || s->pagecache))
        return err_set(e, ERR_VALUE, "%s has no effect with cache.direct=on", s->readahead ? "readahead-size" : "page-cache-size");
    s->dir = xasprintf("%.*s", slash == s->path ? 1 : (int)(slash - s->path), s->path);
    s->file = xasprintf("/%s", slash + 1);
    return true;
}

static void make_names(struct blk_nfs *s)
{
    const struct { const char *key; uint32_t value; bool given; } query[] = {
        { "uid", s->uid, s->uid != UINT32_MAX }, { "gid", s->gid, s->gid != UINT32_MAX }, { "tcp-syncnt", s->tcp_syncnt, s->tcp_syncnt },
        { "readahead", s->readahead, s->readahead }, { "pagecache", s->pagecache, s->pagecache }, { "debug", s->debug, s->debug },
        { "version", s->version, s->version != 3 }, { "nfsport", s->nfs_port, s->nfs_port }, { "mountport", s->mount_port, s->mount_port },
    };
    struct str u = { 0 };
    char sep = '?';
    str_printf(&u, strchr(s->place.host, ':') ? "nfs://[%s]" : "nfs://%s", s->place.host);
    uri_add_escaped(&u, s->path);
    s->name = xstrdup(u.s);
    for (size_t i = 0; i < ARRAY_SIZE(query); i++) {
        if (!query[i].given)
            continue;
        str_printf(&u, "%c%s=%u", sep, query[i].key, query[i].value);
        sep = '&';
    }
    s->filename = str_take(&u);
}

/* Ports can be said in addresses only. */
static void set_up(struct blk_nfs *s)
{
    char url[80];
    snprintf(url, sizeof url, "nfs://host/?nfsport=%u&mountport=%u", s->nfs_port, s->mount_port);
    nfs.nfs_destroy_url(nfs.nfs_parse_url_incomplete(s->ctx, url));
    nfs.nfs_set_version(s->ctx, (int)s->version);
    if (s->uid != UINT32_MAX)
        nfs.nfs_set_uid(s->ctx, (int)s->uid);
    if (s->gid != UINT32_MAX)
        nfs.nfs_set_gid(s->ctx, (int)s->gid);
    if (s->tcp_syncnt)
        nfs.nfs_set_tcp_syncnt(s->ctx, (int)s->tcp_syncnt);
    if (s->readahead)
        nfs.nfs_set_readahead(s->ctx, s->readahead);
    if (s->pagecache)
        nfs.nfs_set_pagecache(s->ctx, s->pagecache);
    if (s->debug)
        nfs.nfs_set_debug(s->ctx, (int)s->debug);
}

/* The library would look up a name on the loop: it gets an address. */
static bool co_mount(struct blk_nfs *s, struct err *e)
{
    struct nfs_wait w = { 0 };
    struct sock_addr at;
    char host[64], port[8];
    if (!co_sock_resolve(&s->place, AF_UNSPEC, SOCK_STREAM, false, &at, e))
        return err_prefix(e, "'%s'", s->name);
    sock_host_port(&at, host, port);
    set_up(s);
    timer_arm(&s->patience, clock_now(CLOCK_HOST) + CONNECT_NS);
    int r = CO_NFS(s, &w, nfs_mount_async, host, s->dir);
    if (r < 0)
        return failed(s, "mount the folder of", r, e);
    timer_disarm(&s->patience);
    s->mounted = s->connected = true;
    return true;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_nfs *s = of(n);
    if (!check_options(s, e))
        return false;
    make_names(s);
    return co_nfs_begin(s, e) && co_mount(s, e) && (n->make == BLK_MAKE_NOT || co_make(s, e)) && co_open_file(s, e);
}

static bool abandon(struct blk_node *n, int64_t since)
{
    struct blk_nfs *s = of(n);
    if (!s->ctx || !blk_asked_in_vain(&s->asked, since))
        return false;
    nfs_end(s, "the server does not answer");
    return true;
}

static void co_close(struct blk_node *n)
{
    struct blk_nfs *s = of(n);
    co_close_file(s);
    nfs_end(s, NULL);
    sock_place_release(&s->place);
    char *texts[] = { s->name, s->filename, s->dir, s->file };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        free(texts[i]);
    s->name = s->filename = s->dir = s->file = NULL;
}

static int co_unmake(struct blk_node *n)
{
    struct nfs_wait w = { 0 };
    struct blk_nfs *s = of(n);
    co_close_file(s);
    return CO_NFS(s, &w, nfs_unlink_async, s->file);
}

static bool co_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    return !writable || co_open_file(of(n), e);
}

static const char *filename(const struct blk_node *n) { return ((const struct blk_nfs *)n)->filename; }

static bool init(struct obj *o, struct err *e)
{
    list_init(&((struct blk_nfs *)o)->calls);
    return true;
}

static const struct prop props[] = {
    PROP_JSON(struct blk_nfs, server, "server", PF_REQUIRED, "The server: server.type=inet,server.host=NAME"),
    PROP_STR(struct blk_nfs, path, "path", PF_REQUIRED, "The file, with what the server exports in front; its folder is mounted"),
    PROP_U32(struct blk_nfs, uid, "user", UINT32_MAX, 0, UINT32_MAX, "Number of the user as whom the server is asked; else the one that runs this"),
    PROP_U32(struct blk_nfs, gid, "group", UINT32_MAX, 0, UINT32_MAX, "Number of the group, likewise"),
    PROP_U32(struct blk_nfs, tcp_syncnt, "tcp-syn-count", 0, 0, 255, "Attempts to connect before that fails; 0: the system's"),
    PROP_U32(struct blk_nfs, readahead, "readahead-size", 0, 0, READAHEAD_MAX, "Bytes that are read ahead"),
    PROP_U32(struct blk_nfs, pagecache, "page-cache-size", 0, 0, PAGECACHE_MAX, "Pages of 4 KiB that are kept for reads"),
    PROP_U32(struct blk_nfs, debug, "debug", 0, 0, 2, "How much libnfs says of what it does"),
    PROP_U32(struct blk_nfs, version, "version", 3, 3, 4, "Version of the protocol. With 4, libnfs writes 2 KiB at a time, and a connection that is lost is not made anew"),
    PROP_U32(struct blk_nfs, nfs_port, "nfs-port", 0, 0, 65535, "Port of the server; 0: as its port mapper says, or 2049 with version 4"),
    PROP_U32(struct blk_nfs, mount_port, "mount-port", 0, 0, 65535, "Port of its mount service, which version 3 asks; 0: as its port mapper says"),
    PROP_U32(struct blk_nfs, timeout, "timeout", 0, 0, 86400, "Seconds without any answer after which a server that is there is given up, and all requests fail; 0: never, requests wait for ever"),
    PROP_U32(struct blk_nfs, reconnect_timeout, "reconnect-timeout", 0, 0, 86400, "Seconds that requests wait for a lost server before all fail; 0: for ever"),
    PROP_END,
};
static const struct blk_driver nfs_driver = {
    .obj = { .name = "blockdev-nfs", .desc = "File of an NFS server", .base = &blk_node_class, .size = sizeof(struct blk_nfs), .props = props, .init = init },
    .flags = BLK_MAKES, .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .co_flush = co_flush,
    .co_resize = co_resize, .co_unmake = co_unmake, .co_set_writable = co_set_writable, .co_allocated = co_allocated,
    .filename = filename,
};
OBJ_CLASS(&nfs_driver.obj);
