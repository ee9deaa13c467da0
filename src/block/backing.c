/* SPDX-License-Identifier: MIT */
/* From the file name that an image (or a person) gives to the options of a node. Formats are named, never guessed. */
#include <fcntl.h>
#include <linux/major.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/opt.h"
#include "block/backing.h"
#include "block/file_int.h"
#include "block/rbd_name.h"
#include "block/uri.h"
#include "core/backend.h"

static const char *magic_of(const char *head, size_t n)
{
    static const struct { const char *magic; unsigned len, off; const char *name; } magics[] = {
        { "QFI\xfb\0\0\0\1", 8, 0, "qcow" }, { "QFI\xfb", 4, 0, "qcow2" }, { "# Disk DescriptorFile", 21, 0, "vmdk" }, { "KDMV", 4, 0, "vmdk" }, { "COWD", 4, 0, "vmdk" }, { "vhdxfile", 8, 0, "vhdx" },
        { "conectix", 8, 0, "vpc" }, { "LUKS\xba\xbe", 6, 0, "luks" }, { "QED\0", 4, 0, "qed" },
        { "WithoutFreeSpace", 16, 0, "parallels" }, { "WithouFreSpacExt", 16, 0, "parallels" }, { "\x7f\x10\xda\xbe", 4, 64, "vdi" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
        if (n >= magics[i].off + magics[i].len && !memcmp(head + magics[i].off, magics[i].magic, magics[i].len))
            return magics[i].name;
    return NULL;
}

const char *blk_looks_like(const char *path)
{
    char head[512];
    struct stat st;
    int fd = stat(path, &st) || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : pread(fd, head, sizeof head, 0);
    if (fd >= 0)
        close(fd);
    return n > 0 ? magic_of(head, (size_t)n) : NULL;
}

const char *co_node_looks_like(struct blk_node *n)
{
    char head[512];
    struct iovec v = { head, MIN(sizeof head, atomic_load(&n->size)) };
    return v.iov_len && !co_node_preadv(n, 0, v.iov_len, &v, 1, 0) ? magic_of(head, v.iov_len) : NULL;
}

/* The length of PROTOCOL in "PROTOCOL:...", 0: it is a path. As QEMU has it: a path with a ':' in its first part is written ./PATH or file:PATH. */
static size_t protocol(const char *name)
{
    size_t n = strcspn(name, ":/");
    return name[n] == ':' ? n : 0;
}

char *blk_path_beside(const char *image, const char *name)
{
    const char *slash = image ? strrchr(image, '/') : NULL;
    if (protocol(name) || name[0] == '/' || !slash)
        return xstrdup(name);
    if (str_starts(image, "ssh://") || str_starts(image, "nfs://"))
        return uri_beside(image, name);
    return xasprintf("%.*s%s", (int)(slash + 1 - image), image, name);
}

/* ---- the protocols: @name is "PROTO:REST" ---- */

static json_t *path_opts(const char *proto, const char *name, const char *rest, struct err *e)
{
    struct stat st;
    bool dev = !stat(rest, &st) && S_ISBLK(st.st_mode), cdrom = dev && major(st.st_rdev) == SCSI_CDROM_MAJOR;
    return json_pack("{s:s, s:s}", "driver", cdrom ? "host_cdrom" : dev ? "host_device" : "file", "filename", rest);
}

static json_t *device_opts(const char *proto, const char *name, const char *rest, struct err *e)
{
    return json_pack("{s:s, s:s}", "driver", proto, "filename", rest);
}

/* "[CONFIG]:IMAGE" */
static json_t *debug_opts(const char *proto, const char *name, const char *rest, struct err *e)
{
    size_t n = strcspn(rest, ":");
    if (!rest[n]) {
        err_set(e, ERR_VALUE, "'%.80s' has no second ':'", name);
        err_hint(e, "blkdebug:[CONFIG]:IMAGE");
        return NULL;
    }
    json_t *image = blk_file_opts(rest + n + 1, e);
    json_t *o = image ? json_pack("{s:s, s:o}", "driver", "blkdebug", "image", image) : NULL;
    if (o && n)
        json_object_set_new(o, "config", json_stringn(rest, n));
    return o;
}

/* "RAW:IMAGE" */
static json_t *verify_opts(const char *proto, const char *name, const char *rest, struct err *e)
{
    size_t n = strcspn(rest, ":");
    if (!rest[n]) {
        err_set(e, ERR_VALUE, "'%.80s' has no second ':'", name);
        err_hint(e, "blkverify:RAW:IMAGE");
        return NULL;
    }
    char *raw_name = xstrndup(rest, n);
    json_t *raw = blk_file_opts(raw_name, e), *test = raw ? blk_image_opts(rest + n + 1, NULL, e) : NULL;
    free(raw_name);
    if (!test) {
        if (raw)
            err_hint(e, "an image of a format is file.test.driver=FORMAT,file.test.file.filename=IMAGE of file.driver=blkverify,file.raw.filename=RAW");
        json_decref(raw);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:o}", "driver", proto, "raw", raw, "test", test);
}

static json_t *null_opts(const char *proto, const char *name, const char *rest, struct err *e)
{
    return json_pack("{s:s, s:b}", "driver", proto, "read-zeroes", 1);
}

static bool nests(const void *arg, const char *key, const char *head) { return true; }

/* Keys may be dotted, and a child be told by its file name alone. */
static json_t *json_opts(const char *proto, const char *name, const char *rest, struct err *e)
{
    json_t *o = opt_parse_json(rest, e), *nested = o ? opt_nest(o, nests, NULL, e) : NULL;
    json_decref(o);
    if (nested && blk_imply_protocol(nested, e))
        return nested;
    json_decref(nested);
    err_prefix(e, "'%.80s'", name);
    return NULL;
}

static json_t *nbd_opts(const char *proto, const char *name, const char *rest, struct err *e) { return blk_nbd_uri_opts(name, e); }

static json_t *iscsi_opts(const char *proto, const char *name, const char *rest, struct err *e) { return blk_iscsi_url_opts(name, e); }

static json_t *ssh_opts(const char *proto, const char *name, const char *rest, struct err *e) { return uri_ssh_opts(name, e); }

static json_t *nfs_opts(const char *proto, const char *name, const char *rest, struct err *e) { return uri_nfs_opts(name, e); }

static json_t *rbd_opts(const char *proto, const char *name, const char *rest, struct err *e) { return rbd_name_opts(name, e); }

static json_t *url_opts(const char *proto, const char *name, const char *rest, struct err *e)
{
    return json_pack("{s:s, s:s}", "driver", proto, "url", name);
}

static const struct protocol { const char *name; json_t *(*opts)(const char *proto, const char *name, const char *rest, struct err *e); } protocols[] = {
    { "file", path_opts }, { "host_device", device_opts }, { "host_cdrom", device_opts }, { "json", json_opts }, { "blkdebug", debug_opts }, { "blkverify", verify_opts },
    { "null-co", null_opts }, { "null-aio", null_opts }, { "http", url_opts }, { "https", url_opts }, { "iscsi", iscsi_opts },
    { "ssh", ssh_opts }, { "nfs", nfs_opts }, { "rbd", rbd_opts },
    { "nbd", nbd_opts }, { "nbd+tcp", nbd_opts }, { "nbd+unix", nbd_opts }, { "nbds", nbd_opts }, { "nbds+unix", nbd_opts },
};

static const struct protocol *find_protocol(const char *name, size_t n)
{
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
        if (strlen(protocols[i].name) == n && !memcmp(protocols[i].name, name, n))
            return &protocols[i];
    return NULL;
}

/* "gluster+tcp" is the driver gluster's. */
static bool no_protocol(const char *name, size_t n, struct err *e)
{
    char *driver = xstrndup(name, MIN(n, strcspn(name, "+")));
    bool known = backend_find(&blk_node_class, driver, e);
    bool absent = !known && e->cls == ERR_NOT_BUILT;
    free(driver);
    if (absent)
        return err_prefix(e, "'%.80s'", name);
    *e = (struct err)ERR_INIT;
    err_set(e, ERR_VALUE, "'%.80s': there is no protocol '%.*s'", name, (int)MIN(n, (size_t)40), name);
    return err_hint(e, "a file of that name is written ./NAME or file:NAME");
}

json_t *blk_file_opts(const char *name, struct err *e)
{
    size_t n = protocol(name);
    const struct protocol *p = n ? find_protocol(name, n) : NULL;
    if (n && !p)
        return no_protocol(name, n, e), NULL;
    return p ? p->opts(p->name, name, name + n + 1, e) : path_opts("file", name, name, e);
}

const char *blk_local_path(const char *name)
{
    size_t n = protocol(name);
    const struct protocol *p = n ? find_protocol(name, n) : NULL;
    return !n ? name : p && (p->opts == path_opts || p->opts == device_opts) ? name + n + 1 : NULL;
}

bool blk_makes_files(const char *name)
{
    struct err e = ERR_INIT;
    size_t n = protocol(name);
    const struct protocol *p = n ? find_protocol(name, n) : NULL;
    const struct obj_class *c = p ? backend_find(&blk_node_class, p->name, &e) : NULL;
    return c && ((const struct blk_driver *)c)->flags & BLK_MAKES;
}

static bool needs_format(const char *path, const char *like, struct err *e)
{
    err_set(e, ERR_VALUE, "'%s' looks like a %s image, but no format is given", path, like);
    return err_hint(e, "say %s, or raw if its very bytes are meant", like);
}

/* A node with a file, but no driver: raw, refused if the file looks like something else. */
static bool imply_raw(json_t *o, struct err *e)
{
    json_t *file = json_object_get(o, "file");
    const char *path = json_string_value(json_object_get(file, "filename")), *like = path ? blk_looks_like(path) : NULL;
    if (like)
        return needs_format(path, like, e);
    if (json_is_object(file))
        json_object_set_new(o, "driver", json_string("raw"));
    return true;
}

bool blk_imply_protocol(json_t *opts, struct err *e)
{
    const char *role;
    json_t *child;
    void *tmp;
    uri_imply_server(opts);
    json_object_foreach_safe(opts, tmp, role, child) {
        const char *name = json_string_value(json_object_get(child, "filename"));
        if (!json_is_object(child))
            continue;
        bool has_driver = json_object_get(child, "driver") || str_eq(role, "backing");
        if (!name || has_driver) {
            if (!blk_imply_protocol(child, e) || (!has_driver && !imply_raw(child, e)))
                return false;
            continue;
        }
        json_t *implied = blk_file_opts(name, e);
        if (!implied)
            return false;
        json_object_del(child, "filename");
        json_object_update(implied, child);
        json_object_set_new(opts, role, implied);
    }
    return true;
}

bool blk_is_format(json_t *opts)
{
    struct err ignored = ERR_INIT;
    const char *driver = json_string_value(json_object_get(opts, "driver"));
    const struct obj_class *c = driver ? backend_find(&blk_node_class, driver, &ignored) : NULL;
    return driver ? c && ((const struct blk_driver *)c)->flags & BLK_FORMAT : json_object_get(opts, "file") != NULL;
}

json_t *blk_image_opts(const char *name, const char *fmt, struct err *e)
{
    json_t *file = blk_file_opts(name, e);
    if (!file)
        return NULL;
    const char *path = json_string_value(json_object_get(file, "filename"));
    const char *like = path && !fmt ? blk_looks_like(path) : NULL;
    if (like) {
        needs_format(path, like, e);
        json_decref(file);
        return NULL;
    }
    if (str_starts(name, "json:") && (!fmt || blk_is_format(file))) {
        if (fmt)
            json_object_set_new(file, "driver", json_string(fmt));
        return file;
    }
    return json_pack("{s:s, s:o}", "driver", fmt ? fmt : "raw", "file", file);
}

void blk_lock_as(const struct blk_node *n, json_t *opts)
{
    while (n->child.node)
        n = n->child.node;
    while (json_object_get(opts, "file"))
        opts = json_object_get(opts, "file");
    if (blk_file_is_unlocked(n) && json_object_get(opts, "filename"))       /* of file and its like */
        json_object_set_new(opts, "locking", json_string("off"));
}

static const struct blk_node *leaf_of(const struct blk_node *n)
{
    while (n->child.node)
        n = n->child.node;
    return n;
}

/* A file that is in the chain above already would be opened without an end; so would what comes from elsewhere and has no files. */
static bool check_chain(const struct blk_node *n, json_t *below, struct err *e)
{
    json_t *file = below;
    unsigned depth = 0;
    struct stat st;
    while (json_is_object(json_object_get(file, "file")))
        file = json_object_get(file, "file");
    const char *path = json_string_value(json_object_get(file, "filename"));
    bool is_file = path && !stat(path, &st);
    for (; n; n = n->opener, depth++) {
        if (!is_file || !blk_file_is_the(leaf_of(n), &st))
            continue;
        err_set(e, ERR_VALUE, "'%.200s' is its own backing file%s", path, depth ? ", by others between" : "");
        return err_hint(e, "backplane-img rebase -u -b BASE gives an image another one");
    }
    return depth < BLK_CHAIN_MAX || err_set(e, ERR_VALUE, "more than %u images are one upon another", BLK_CHAIN_MAX);
}

static bool backing_error(const struct blk_node *n, struct err *e)
{
    return str_starts(e->msg, "backing file of ") ? false :     /* of the one that says it: a chain may be long */
           err_prefix(e, "backing file of '%.150s'", blk_node_filename(n));
}

/* What the image names. */
static json_t *named_opts(const struct blk_node *n, struct err *e)
{
    char *path = blk_path_beside(blk_node_filename(n), n->backing_name);
    json_t *o = blk_image_opts(path, n->backing_fmt, e);
    free(path);
    if (o)
        blk_lock_as(n, o);
    return o;
}

bool blk_backing_open(struct blk_node *n, json_t *opt, struct err *e)
{
    bool none = json_is_null(opt) || (json_is_string(opt) && !*json_string_value(opt));
    if (none || (!opt && !n->backing_name))
        return true;
    json_t *o = json_is_object(opt) ? json_copy(opt) : json_incref(opt);
    if (json_is_object(o) && !json_object_get(o, "driver") && n->backing_fmt)
        json_object_set_new(o, "driver", json_string(n->backing_fmt));
    if (n->backing_name && (!o || (json_is_object(o) && !json_object_get(o, "file") && (!json_object_get(o, "driver") || blk_is_format(o))))) {     /* options beside what the image names */
        json_t *named = named_opts(n, e);
        if (named)
            json_object_update(named, o);
        json_decref(o);
        o = named;
        if (!o)
            return backing_error(n, e);
    }
    if (json_is_object(o) && !json_object_get(o, "read-only"))
        json_object_set_new(o, "read-only", json_true());
    bool ok = check_chain(n, o, e) && blk_child_open_at(n, &n->backing, "backing", o, BLK_PERM_READ, BLK_PERM_READ, e);
    if (!ok && e->cls == ERR_BUSY && json_is_string(o))         /* somebody writes to it, which our users may not mind */
        ok = blk_child_open_at(n, &n->backing, "backing", o, BLK_PERM_READ, BLK_PERM_ALL, e);
    json_decref(o);
    return ok || backing_error(n, e);
}
