/* SPDX-License-Identifier: MIT */
/* Making image files of any format. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/backing.h"
#include "core/backend.h"

static bool is_device(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISBLK(st.st_mode);
}

/* The protocol node of the image: with it alone until it is empty, so that an image in use is not hurt. */
struct creating { const struct blk_driver *d; struct blk_node *file; json_t *opts; uint64_t size; bool made; struct err *e; bool ok; };

/* What was there before is no image any more, whatever is made of it. */
static int co_wipe(struct blk_node *file)
{
    char zeroes[512] = { 0 };
    struct iovec v = { zeroes, MIN(sizeof zeroes, atomic_load(&file->size)) };
    return v.iov_len ? co_node_pwritev(file, 0, v.iov_len, &v, 1, 0) : 0;
}

static void co_create(void *arg)
{
    struct creating *c = arg;
    struct blk_use use = { 0 };
    if (!blk_use_add(&use, c->file, BLK_PERM_ALL, 0, "the creation of an image", c->e))
        return;
    int r = c->made ? co_node_resize(c->file, 0) : co_wipe(c->file);
    r = r || !c->made ? r : co_node_resize(c->file, c->size);
    c->ok = !r || err_os(c->e, -r, "cannot set the size of '%s'", blk_node_filename(c->file));
    blk_use_del(&use);
    if (c->ok && c->d && c->d->co_create)
        c->ok = c->d->co_create(c->file, c->opts, c->e);
}

bool blk_exists(const char *path, struct err *e)
{
    err_set(e, ERR_BUSY, "'%s' exists already", path);
    return err_hint(e, "--force overwrites it");
}

/* ---- files, of whatever format the image in them ---- */

struct file_create { bool nocow; uint64_t extent; };
const struct prop blk_file_create_props[] = {
    PROP_BOOL(struct file_create, nocow, "nocow", false, "A file system that would write elsewhere (btrfs) writes in place"),
    PROP_SIZE(struct file_create, extent, "extent_size_hint", 0, 0, UINT32_MAX, "In what pieces a file system that can be told (XFS) allocates space"),
    PROP_END,
};

/* They go from @opts, whose others are the format's. */
static bool take_file_opts(json_t *opts, struct file_create *f, struct err *e)
{
    json_t *own = json_object();
    struct prop p;
    prop_defaults(blk_file_create_props, f);
    for (size_t i = 0; prop_nth(blk_file_create_props, i, &p); i++) {
        json_object_set(own, p.name, json_object_get(opts, p.name));
        json_object_del(opts, p.name);
    }
    bool ok = prop_set_all(blk_file_create_props, f, NULL, own, "files", e);
    json_decref(own);
    return ok;
}

/* Where nothing can be told, it is so already, or no loss. Before there is data: later it would not hold. */
static void tell_file_system(int fd, const struct file_create *f)
{
    int flags;
    struct fsxattr x;
    if (f->nocow && !ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
        flags |= FS_NOCOW_FL;
        (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    if (f->extent && !ioctl(fd, FS_IOC_FSGETXATTR, &x)) {
        x.fsx_xflags |= FS_XFLAG_EXTSIZE;
        x.fsx_extsize = (uint32_t)f->extent;
        (void)ioctl(fd, FS_IOC_FSSETXATTR, &x);
    }
}

static bool make_file(const char *path, json_t *opts, bool force, struct err *e)
{
    struct file_create f = { 0 };
    if (!take_file_opts(opts, &f, e))
        return false;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (force ? 0 : O_EXCL), 0644);
    if (fd < 0 && errno == EEXIST)
        return blk_exists(path, e);
    if (fd < 0)
        return err_os(e, errno, "cannot create '%s'", path);
    tell_file_system(fd, &f);
    close(fd);
    return true;
}

/* Where no file can be made, the image goes into what is there, if that is wanted. */
static bool is_wanted(const char *name, json_t *o, bool force, struct err *e)
{
    if (force)
        return true;
    err_set(e, ERR_VALUE, "'%s': nothing can be created over the protocol '%s'", name, json_string_value(json_object_get(o, "driver")));
    return err_hint(e, "--force makes an image in what is there; convert -n writes into one");
}

void co_image_unmake(struct blk_node *n)
{
    while (n->child.node)
        n = n->child.node;
    if (BLK_DRIVER(n)->co_unmake)
        BLK_DRIVER(n)->co_unmake(n);    /* whether it can or not: there was a failure before, which is told */
}

static void co_unmake(void *arg) { co_image_unmake(arg); }

static bool make(const struct blk_driver *d, const char *name, json_t *opts, uint64_t size, bool force, struct err *e)
{
    struct stat st;
    json_t *o = blk_file_opts(name, e), *own = json_copy(opts);
    const char *path = json_string_value(json_object_get(o, "filename"));
    bool remote = !path && blk_makes_files(name);
    bool existed = !path || !stat(path, &st), ready = o && (path ? make_file(path, own, force, e) : remote || is_wanted(name, o, force, e));
    struct creating c = { .d = d, .opts = own, .size = size, .made = path ? !is_device(path) : remote, .e = e };
    char *id = xasprintf("creating-%p", (void *)&c);
    if (ready) {
        json_object_set_new(o, "node-name", json_string(id));
        c.file = remote ? blk_node_make(o, force ? BLK_MAKE_ANY : BLK_MAKE_NEW, e) : blk_node_create(o, e);
    }
    free(id);
    if (c.file) {
        blk_run(co_create, &c);
        if (!c.ok && c.file->made)
            blk_run(co_unmake, c.file);
        obj_del(&c.file->obj);
    }
    if (ready && !c.ok && !existed)
        unlink(path);
    json_decref(o);
    json_decref(own);
    return c.ok;
}

bool blk_create_file(const char *path, uint64_t size, bool force, struct err *e) { return make(NULL, path, NULL, size, force, e); }

bool blk_image_create(const char *path, const char *fmt, json_t *opts, bool force, struct err *e)
{
    const struct obj_class *c = backend_find(&blk_node_class, fmt, e);
    const struct blk_driver *d = (const struct blk_driver *)c;
    if (!c)
        return false;
    if (!(d->flags & BLK_FORMAT) || !d->co_create)
        return err_set(e, ERR_VALUE, "images of format '%s' cannot be created here", fmt);
    return make(d, path, opts, 0, force, e);
}

void blk_snaps_free(struct blk_snap *v, unsigned n)
{
    for (unsigned i = 0; i < n && v; i++) {
        free(v[i].id);
        free(v[i].name);
    }
    free(v);
}
