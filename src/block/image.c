/* SPDX-License-Identifier: MIT */
/* Making image files of any format. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/driver.h"
#include "core/backend.h"

static bool is_device(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISBLK(st.st_mode);
}

/* The protocol node of the file: with it alone until it is empty, so that an image in use is not hurt. */
struct creating { const struct blk_driver *d; struct blk_node *file; json_t *opts; uint64_t size; bool device; struct err *e; bool ok; };

static void co_create(void *arg)
{
    struct creating *c = arg;
    struct blk_use use = { 0 };
    if (!blk_use_add(&use, c->file, BLK_PERM_ALL, 0, "the creation of an image", c->e))
        return;
    int r = c->device ? 0 : co_node_resize(c->file, 0);
    r = r || c->device ? r : co_node_resize(c->file, c->size);
    c->ok = !r || err_os(c->e, -r, "cannot set the size of '%s'", blk_node_filename(c->file));
    blk_use_del(&use);
    if (c->ok && c->d && c->d->co_create)
        c->ok = c->d->co_create(c->file, c->opts, c->e);
}

static bool make(const struct blk_driver *d, const char *path, json_t *opts, uint64_t size, bool force, struct err *e)
{
    struct stat st;
    bool existed = !stat(path, &st);
    struct creating c = { .d = d, .opts = opts, .size = size, .device = is_device(path), .e = e };
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (force ? 0 : O_EXCL), 0644);
    if (fd < 0 && errno == EEXIST) {
        err_set(e, ERR_BUSY, "'%s' exists already", path);
        return err_hint(e, "--force overwrites it");
    }
    if (fd < 0)
        return err_os(e, errno, "cannot create '%s'", path);
    close(fd);
    json_t *o = json_pack("{s:s, s:s}", "driver", c.device ? "host_device" : "file", "filename", path);
    char *name = xasprintf("creating-%p", (void *)&c);
    json_object_set_new(o, "node-name", json_string(name));
    c.file = blk_node_create(o, e);
    json_decref(o);
    free(name);
    if (c.file) {
        blk_run(co_create, &c);
        obj_del(&c.file->obj);
    }
    if (!c.ok && !existed)
        unlink(path);
    return c.ok;
}

bool blk_create_file(const char *path, uint64_t size, bool force, struct err *e) { return make(NULL, path, NULL, size, force, e); }

bool blk_image_create(const char *path, const char *fmt, json_t *opts, bool force, struct err *e)
{
    const struct obj_class *c = backend_find(&blk_node_class, fmt, e);
    const struct blk_driver *d = (const struct blk_driver *)c;
    uint64_t size = 0;
    if (!c)
        return false;
    if (!(d->flags & BLK_FORMAT) || (!d->co_create && strcmp(fmt, "raw")))
        return err_set(e, ERR_VALUE, "images of format '%s' cannot be created here", fmt);
    if (!d->co_create) {
        struct prop row = { .name = "size", .type = PROP_T_SIZE, .max = INT64_MAX };
        json_t *v = json_object_get(opts, "size");
        if (v && !prop_set(&row, &size, NULL, v, e))
            return err_prefix(e, "size");
    }
    return make(d, path, opts, size, force, e);
}

void blk_snaps_free(struct blk_snap *v, unsigned n)
{
    for (unsigned i = 0; i < n && v; i++) {
        free(v[i].id);
        free(v[i].name);
    }
    free(v);
}
