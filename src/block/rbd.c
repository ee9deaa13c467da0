/* SPDX-License-Identifier: MIT */
/*
 * "rbd": an image of a Ceph cluster (RADOS block device), by librbd. Who is not read-only and shares it with nobody is for Ceph's
 * exclusive-lock to see to, which moves to who writes.
 */
#include "block/rbd_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/base64.h"
#include "base/log.h"
#include "base/str.h"
#include "block/rbd_name.h"
#include "crypto/secret.h"

enum { PIECE = 4 << 20, CONNECT_SECONDS = 30 };

static struct blk_rbd *of(struct blk_node *n) { return (struct blk_rbd *)n; }

/* ---- slow calls, on their threads ---- */

static int failed(struct rbd_call *c, const char *step, int r)
{
    c->step = step;
    return r;
}

/* Ceph's own file is read where none is named and it is there. */
static int configure(struct rbd_call *c)
{
    const struct rbd_conn *n = c->c;
    json_t *v;
    int r = rbd.rados_conf_read_file(n->cluster, n->conf);
    if (r < 0 && (n->conf || r != -ENOENT))
        return failed(c, "configure by its file conf", r);
    json_object_foreach(n->settings, c->setting, v)
        if ((r = rbd.rados_conf_set(n->cluster, c->setting, json_string_value(v))) < 0)
            return r;
    c->setting = NULL;
    return 0;
}

static const char connecting[] = "connect to the cluster of";

static int do_connect(struct rbd_call *c)
{
    struct rbd_conn *n = c->c;
    int r = rbd.rados_create(&n->cluster, n->user);
    if (r < 0)
        return failed(c, "begin with", r);
    if ((r = configure(c)) < 0)
        return r;
    if ((r = rbd.rados_connect(n->cluster)) < 0)
        return failed(c, connecting, r);
    if ((r = rbd.rados_ioctx_create(n->cluster, n->pool, &n->io)) < 0)
        return failed(c, "find the pool of", r);
    if (n->space)
        rbd.rados_ioctx_set_namespace(n->io, n->space);
    return 0;
}

static int do_create(struct rbd_call *c)
{
    int order = 0;
    return failed(c, "create", rbd.rbd_create(c->c->io, c->c->image, 0, &order));
}

static int do_close(struct rbd_call *c) { return rbd.rbd_close(c->image); }

static int do_remove(struct rbd_call *c) { return rbd.rbd_remove(c->c->io, c->c->image); }

static bool has_fast_diff(rbd_image_t image)
{
    uint64_t features, flags;
    return rbd.rbd_get_features(image, &features) >= 0 && rbd.rbd_get_flags(image, &flags) >= 0 && features & RBD_FEATURE_FAST_DIFF &&
           !(flags & RBD_FLAG_FAST_DIFF_INVALID);
}

/* Another handle; answers the sizes of the image and of its objects, and whether ->off: fast-diff. */
static int do_open(struct rbd_call *c)
{
    const struct rbd_conn *n = c->c;
    rbd_image_info_t info;
    int r = (c->read_only ? rbd.rbd_open_read_only : rbd.rbd_open)(n->io, n->image, &c->image, n->snapshot);
    if (r < 0)
        return failed(c, "open", r);
    r = rbd.rbd_stat(c->image, &info, sizeof info);
    r = r < 0 ? r : rbd.rbd_set_image_notification(c->image, n->fd, EVENT_TYPE_EVENTFD);
    if (r < 0) {
        rbd.rbd_close(c->image);
        return failed(c, "ask for the size of", r);
    }
    c->size = info.size;
    c->len = info.obj_size;
    c->off = has_fast_diff(c->image);
    return 0;
}

static int do_resize(struct rbd_call *c) { return rbd.rbd_resize(c->image, c->size); }

struct found { uint64_t at, from, to /* of the first extent that goes beyond ->at */; };

static int on_extent(uint64_t off, size_t len, int exists, void *arg)
{
    struct found *f = arg;
    if (!exists || off + len <= f->at)  /* range: extents of an image, which ends below INT64_MAX */
        return 0;
    if (f->to && off != f->to)
        return -ECANCELED;              /* that is enough */
    f->from = f->to ? f->from : off;
    f->to = off + len;
    return 0;
}

/* The first extent of data in [off, off + len), which begins at an object, that goes beyond ->size: [off, len). */
static int do_find(struct rbd_call *c)
{
    struct found f = { .at = c->size };
    int r = rbd.rbd_diff_iterate2(c->image, NULL, c->off, c->len, true, true, on_extent, &f);
    c->off = f.from;
    c->len = f.to - f.from;
    return r == -ECANCELED ? 0 : r;
}

/* ---- requests ---- */

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_rbd *s = of(n);
    for (uint64_t at = 0, k; at < len; at += k) {
        k = MIN(len - at, (uint64_t)PIECE);
        uint64_t there = off + at < s->bytes ? MIN(k, s->bytes - off - at) : 0;     /* the rest of a last sector */
        char *buf = calloc(1, k);
        int64_t r = !buf ? -ENOMEM : there ? co_rbd_ask(s, RBD_OP_READ, off + at, there, &buf) : 0;
        if (r < 0)
            return (int)r;
        blk_iov_copy(buf, iov, niov, at, k, true);
        free(buf);
    }
    return 0;
}

static int co_set_size(struct blk_rbd *s, uint64_t size)
{
    struct rbd_call a = { .size = size };
    int r = co_rbd_call(s, do_resize, &a);
    if (r < 0)
        return r;
    s->bytes = size;
    atomic_store(&s->node.size, align_up(size, 512));
    return 0;
}

/* An image ends where it ends: what is written behind that, or in the rest of a last sector, needs a longer one. */
static int co_make_room(struct blk_rbd *s, uint64_t end)
{
    if (end <= s->bytes)
        return 0;
    co_mutex_lock(&s->growing);
    int r = end > s->bytes ? co_set_size(s, align_up(end, 512)) : 0;
    co_mutex_unlock(&s->growing);
    return r;
}

static int co_flush(struct blk_node *n)
{
    return (int)co_rbd_ask(of(n), RBD_OP_FLUSH, 0, 0, NULL);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_rbd *s = of(n);
    int64_t r = co_make_room(s, off + len);
    for (uint64_t at = 0, k; at < len && r >= 0; at += k) {
        k = MIN(len - at, (uint64_t)PIECE);
        char *buf = malloc(k);
        if (!buf)
            return -ENOMEM;
        blk_iov_copy(buf, iov, niov, at, k, false);
        r = co_rbd_ask(s, RBD_OP_WRITE, off + at, k, &buf);
    }
    return r < 0 ? (int)r : flags & BLK_FUA && !n->no_flush ? co_flush(n) : 0;
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_rbd *s = of(n);
    int64_t r = co_make_room(s, off + len);
    r = r < 0 ? r : co_rbd_ask(s, flags & BLK_ZERO_UNMAP ? RBD_OP_ZERO : RBD_OP_ZERO_KEEP, off, len, NULL);
    return r < 0 ? (int)r : flags & BLK_FUA && !n->no_flush ? co_flush(n) : 0;
}

static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct blk_rbd *s = of(n);
    uint64_t there = off < s->bytes ? MIN(len, s->bytes - off) : 0;
    return there ? (int)MIN(co_rbd_ask(s, RBD_OP_DISCARD, off, there, NULL), 0) : 0;
}

static int co_resize(struct blk_node *n, uint64_t size) { return co_set_size(of(n), size); }

/* In objects: librbd rounds as it likes where a range begins within one. */
static int co_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct blk_rbd *s = of(n);
    uint64_t from = align_down(off, s->object), end = MIN(off + len, s->bytes);
    struct rbd_call a = { .off = from, .len = end - from, .size = off };
    if (!s->fast_diff || off >= end)
        return 0;
    int r = co_rbd_call(s, do_find, &a);
    if (r < 0)
        return r;
    bool hole = !a.len || a.off > off;
    out->len = !a.len ? len : hole ? MIN(a.off - off, len) : MIN(a.off + a.len - off, len);
    out->data = !hole;
    out->zero = hole;
    return 0;
}

/* ---- opening ---- */

static bool add_setting(json_t *o, const char *key, const char *value) { return !json_object_set_new(o, key, json_string(value)); }

static bool add_secret(struct blk_rbd *s, json_t *o, struct err *e)
{
    size_t n;
    uint8_t *key = s->key_secret ? secret_bytes(s->key_secret, &n, e) : NULL;
    if (!key)
        return !s->key_secret;
    struct str text = { 0 };
    base64_encode(key, n, &text);
    secret_free(key, n);
    bool ok = add_setting(o, "key", text.s ? text.s : "");
    secret_free(text.s, text.len);
    return ok;
}

/* "mon_host" is what QEMU calls servers: HOST[:PORT] with ';' between. */
static bool add_servers(struct blk_rbd *s, json_t *o, struct err *e)
{
    size_t i;
    json_t *v;
    struct str u = { 0 };
    if (!json_is_array(s->server))
        return !s->server || err_set(e, ERR_VALUE, "server is a list of {host, port}");
    json_array_foreach(s->server, i, v) {
        const char *host = json_string_value(json_object_get(v, "host")), *port = json_string_value(json_object_get(v, "port"));
        if (!host || !port || json_object_size(v) != 2) {
            str_free(&u);
            return err_set(e, ERR_VALUE, "server.%zu has %s", i, !host ? "no host" : !port ? "no port" : "more than host and port");
        }
        str_printf(&u, strchr(host, ':') ? "%s[%s]:%s" : "%s%s:%s", i ? ";" : "", host, port);
    }
    bool ok = !u.len || add_setting(o, "mon_host", u.s);
    str_free(&u);
    return ok;
}

static bool add_auth(struct blk_rbd *s, json_t *o, struct err *e)
{
    struct str u = { 0 };
    for (char **v = s->auth; v && *v; v++) {
        if (strcmp(*v, "cephx") && strcmp(*v, "none")) {
            str_free(&u);
            err_set(e, ERR_VALUE, "auth-client-required has '%.40s'", *v);
            return err_hint(e, "cephx, none");
        }
        str_printf(&u, "%s%s", u.len ? ";" : "", *v);
    }
    bool ok = !u.len || add_setting(o, "auth_client_required", u.s);
    str_free(&u);
    return ok;
}

/* Those that are said come last. */
static json_t *settings(struct blk_rbd *s, struct err *e)
{
    json_t *o = json_object(), *v;
    const char *k;
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%u", CONNECT_SECONDS);
    add_setting(o, "client_mount_timeout", seconds);
    add_setting(o, "rbd_cache", s->node.direct ? "false" : "true");
    if (s->timeout) {
        snprintf(seconds, sizeof seconds, "%u", s->timeout);
        add_setting(o, "rados_osd_op_timeout", seconds);
        add_setting(o, "rados_mon_op_timeout", seconds);
    }
    bool ok = add_servers(s, o, e) && add_auth(s, o, e) && add_secret(s, o, e);
    if (ok && s->settings && !json_is_object(s->settings))
        ok = err_set(e, ERR_VALUE, "settings is an object: settings.NAME=VALUE");
    json_object_foreach(s->settings, k, v)
        if (ok && !json_is_string(v))
            ok = err_set(e, ERR_VALUE, "settings.%s is no string", k);
        else if (ok)
            json_object_set(o, k, v);
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

static char *copy(const char *s) { return s && *s ? xstrdup(s) : NULL; }

static bool make_conn(struct blk_rbd *s, struct err *e)
{
    json_t *all = settings(s, e);
    if (!all)
        return false;
    struct rbd_conn *c = xnew(struct rbd_conn);
    *c = (struct rbd_conn){ .user = copy(s->user), .conf = copy(s->conf), .pool = xstrdup(s->pool), .space = copy(s->space), .image = xstrdup(s->image),
        .snapshot = copy(s->snapshot), .settings = all };
    return rbd_begin(s, c, e);
}

static bool call_error(struct blk_rbd *s, const struct rbd_call *a, int r, struct err *e)
{
    if (a->setting)
        return err_os(e, -r, "'%s': cannot give Ceph's setting '%s' this value", s->filename, a->setting);
    err_os(e, -r, "cannot %s '%s'", a->step ? a->step : "begin with", s->filename);
    if (r == -ETIMEDOUT && str_eq(a->step, connecting))
        err_hint(e, "no monitor of the cluster answered in %u seconds; server.0.host=..., or mon_host in conf, says where they are", CONNECT_SECONDS);
    else if (r == -ENOENT && str_eq(a->step, "open"))
        err_hint(e, "make one first: backplane-img create -f raw ADDRESS SIZE");
    return false;
}

static bool co_make(struct blk_rbd *s, struct err *e)
{
    struct rbd_call a = { 0 };
    int r = co_rbd_call(s, do_create, &a);
    if (r == -EEXIST)
        return s->node.make == BLK_MAKE_ANY || blk_exists(s->filename, e);
    s->node.made = r >= 0;
    return r >= 0 || call_error(s, &a, r, e);
}

static void co_close_image(struct blk_rbd *s, rbd_image_t image)
{
    struct rbd_call a = { .image = image };
    if (image && co_rbd_call(s, do_close, &a) < 0)
        log_warn("'%s': an earlier handle of it could not be closed", s->filename);
}

/* Requests may be under way: they end by the handle that they began with. */
static bool co_open_image(struct blk_rbd *s, struct err *e)
{
    struct blk_node *n = &s->node;
    struct rbd_call a = { .read_only = n->read_only };
    int r = co_rbd_call(s, do_open, &a);
    if ((r == -EROFS || r == -EPERM || r == -EACCES) && !n->read_only && n->auto_read_only) {
        n->read_only = a.read_only = true;
        r = co_rbd_call(s, do_open, &a);
    }
    if (r < 0)
        return call_error(s, &a, r, e);
    co_close_image(s, co_rbd_swap(s, a.image));
    if (a.size > INT64_MAX - 4096 || !a.len)
        return err_set(e, ERR_VALUE, "'%s' is larger than is possible here", s->filename);
    s->bytes = a.size;
    s->object = a.len;
    s->fast_diff = a.off;
    atomic_store(&n->size, align_up(a.size, 512));
    n->caps = (struct blk_caps){ .read_only = n->read_only, .flush = !n->no_flush, .fua = true, .grows = !n->read_only, .write_zeroes = true,
        .discard = n->discard == BLK_DISCARD_UNMAP, .logical_block = 512, .physical_block = 4096, .mem_align = 1 };
    return true;
}

static bool check_options(struct blk_rbd *s, struct err *e)
{
    if (!*s->pool || !*s->image)
        return err_set(e, ERR_VALUE, "%s is empty", *s->pool ? "image" : "pool");
    if (!s->snapshot || s->node.read_only)
        return true;
    if (s->node.auto_read_only)
        return s->node.read_only = true;
    err_set(e, ERR_VALUE, "'%s' is a snapshot, which cannot be written to", s->filename);
    return err_hint(e, "read-only=on");
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_rbd *s = of(n);
    struct rbd_call a = { 0 };
    s->filename = rbd_name(s->pool, s->space, s->image, s->snapshot, s->user, s->conf);
    if (!check_options(s, e) || !co_rbd_load(e) || !make_conn(s, e))
        return false;
    int r = co_rbd_call(s, do_connect, &a);
    if (r < 0)
        return call_error(s, &a, r, e);
    return (n->make == BLK_MAKE_NOT || co_make(s, e)) && co_open_image(s, e);
}

static bool abandon(struct blk_node *n, int64_t since)
{
    struct blk_rbd *s = of(n);
    if (!s->conn || !blk_asked_in_vain(&s->asked, since))
        return false;
    rbd_lose(s);
    return true;
}

static void co_close(struct blk_node *n)
{
    struct blk_rbd *s = of(n);
    co_rbd_end(s);
    free(s->filename);
    s->filename = NULL;
}

static int co_unmake(struct blk_node *n)
{
    struct rbd_call a = { 0 };
    co_close_image(of(n), co_rbd_swap(of(n), NULL));
    return co_rbd_call(of(n), do_remove, &a);
}

static bool co_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    return !writable || (check_options(of(n), e) && co_open_image(of(n), e));
}

static const char *filename(const struct blk_node *n) { return ((const struct blk_rbd *)n)->filename; }

static bool init(struct obj *o, struct err *e)
{
    list_init(&((struct blk_rbd *)o)->reqs);
    return true;
}

static const struct prop props[] = {
    PROP_STR(struct blk_rbd, pool, "pool", PF_REQUIRED, "Pool of the cluster"),
    PROP_STR(struct blk_rbd, space, "namespace", 0, "Namespace in the pool"),
    PROP_STR(struct blk_rbd, image, "image", PF_REQUIRED, "The image"),
    PROP_STR(struct blk_rbd, snapshot, "snapshot", 0, "A snapshot of it, which can be read only"),
    PROP_STR(struct blk_rbd, conf, "conf", 0, "Ceph's file of settings; else the usual one, if it is there"),
    PROP_STR(struct blk_rbd, user, "user", 0, "Who asks the cluster; else admin"),
    PROP_STR(struct blk_rbd, key_secret, "key-secret", 0, "Secret with the user's key; else keys are where the settings say"),
    PROP_STRV(struct blk_rbd, auth, "auth-client-required", "How the two prove who they are: cephx, none"),
    PROP_JSON(struct blk_rbd, server, "server", 0, "The cluster's monitors: server.0.host, server.0.port, ...; else as the settings say"),
    PROP_JSON(struct blk_rbd, settings, "settings", 0, "Settings of Ceph's in place of what conf says: settings.NAME=VALUE"),
    PROP_U32(struct blk_rbd, timeout, "timeout", 0, 0, 86400, "Seconds after which a request that has no answer fails; 0: none. To connect there are 30"),
    PROP_END,
};
static const struct blk_driver rbd_driver = {
    .obj = { .name = "blockdev-rbd", .desc = "Image of a Ceph cluster", .base = &blk_node_class, .size = sizeof(struct blk_rbd), .props = props, .init = init },
    .flags = BLK_MAKES, .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_discard = co_discard, .co_flush = co_flush, .co_resize = co_resize, .co_map = co_map, .co_unmake = co_unmake,
    .co_set_writable = co_set_writable, .filename = filename,
};
OBJ_CLASS(&rbd_driver.obj);
