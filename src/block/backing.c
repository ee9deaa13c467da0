/* SPDX-License-Identifier: MIT */
/* From the file name that an image (or a person) gives to the options of a node. Formats are named, never guessed. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/backing.h"

const char *blk_looks_like(const char *path)
{
    static const struct { const char *magic; unsigned len, off; const char *name; } magics[] = {
        { "QFI\xfb\0\0\0\1", 8, 0, "qcow" }, { "QFI\xfb", 4, 0, "qcow2" }, { "# Disk DescriptorFile", 21, 0, "vmdk" }, { "KDMV", 4, 0, "vmdk" }, { "COWD", 4, 0, "vmdk" }, { "vhdxfile", 8, 0, "vhdx" },
        { "conectix", 8, 0, "vpc" }, { "LUKS\xba\xbe", 6, 0, "luks" }, { "QED\0", 4, 0, "qed" },
        { "WithoutFreeSpace", 16, 0, "parallels" }, { "WithouFreSpacExt", 16, 0, "parallels" }, { "\x7f\x10\xda\xbe", 4, 64, "vdi" },
    };
    char head[512];
    struct stat st;
    int fd = stat(path, &st) || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : pread(fd, head, sizeof head, 0);
    if (fd >= 0)
        close(fd);
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
        if (n >= (ssize_t)(magics[i].off + magics[i].len) && !memcmp(head + magics[i].off, magics[i].magic, magics[i].len))
            return magics[i].name;
    return NULL;
}

/* The length of "proto:" at the beginning of @name, 0: it is a path. */
static size_t protocol(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+-");
    return n > 1 && name[n] == ':' ? n + 1 : 0;
}

char *blk_path_beside(const char *image, const char *name)
{
    const char *slash = image ? strrchr(image, '/') : NULL;
    if (protocol(name) || name[0] == '/' || !slash)
        return xstrdup(name);
    return xasprintf("%.*s%s", (int)(slash + 1 - image), image, name);
}

/* "[CONFIG]:IMAGE" */
static json_t *debug_opts(const char *name, struct err *e)
{
    size_t n = strcspn(name, ":");
    if (!name[n]) {
        err_set(e, ERR_VALUE, "'blkdebug:%.80s' has no second ':'", name);
        err_hint(e, "blkdebug:[CONFIG]:IMAGE");
        return NULL;
    }
    json_t *image = blk_file_opts(name + n + 1, e);
    json_t *o = image ? json_pack("{s:s, s:o}", "driver", "blkdebug", "image", image) : NULL;
    if (o && n)
        json_object_set_new(o, "config", json_stringn(name, n));
    return o;
}

json_t *blk_file_opts(const char *name, struct err *e)
{
    struct stat st;
    if (str_starts(name, "null-co://") || str_starts(name, "null-aio://"))
        return json_pack("{s:s, s:b}", "driver", name[5] == 'c' ? "null-co" : "null-aio", "read-zeroes", 1);
    if (str_starts(name, "json:")) {
        json_t *o = json_loads(name + 5, 0, NULL);
        if (json_is_object(o))
            return o;
        json_decref(o);
        err_set(e, ERR_VALUE, "'%.80s' is not a JSON object", name);
        return NULL;
    }
    if (str_starts(name, "blkdebug:"))
        return debug_opts(name + strlen("blkdebug:"), e);
    json_t *remote = blk_nbd_uri_opts(name, e);
    if (remote || e->msg[0])
        return remote;
    if (str_starts(name, "http://") || str_starts(name, "https://"))
        return json_pack("{s:s, s:s}", "driver", name[4] == 's' ? "https" : "http", "url", name);
    if (str_starts(name, "file:"))
        name += 5;
    bool dev = !stat(name, &st) && S_ISBLK(st.st_mode);
    return json_pack("{s:s, s:s}", "driver", dev ? "host_device" : "file", "filename", name);
}

json_t *blk_image_opts(const char *name, const char *fmt, struct err *e)
{
    json_t *file = blk_file_opts(name, e);
    if (!file)
        return NULL;
    const char *path = json_string_value(json_object_get(file, "filename"));
    const char *like = path && !fmt ? blk_looks_like(path) : NULL;
    if (like) {
        err_set(e, ERR_VALUE, "'%s' looks like a %s image, but no format is given", path, like);
        err_hint(e, "say %s, or raw if its very bytes are meant", like);
        json_decref(file);
        return NULL;
    }
    if (str_starts(name, "json:") && !fmt)
        return file;
    return json_pack("{s:s, s:o}", "driver", fmt ? fmt : "raw", "file", file);
}

bool blk_backing_open(struct blk_node *n, json_t *opt, struct err *e)
{
    bool none = json_is_null(opt) || (json_is_string(opt) && !*json_string_value(opt));
    if (none || (!opt && !n->backing_name))
        return true;
    json_t *o = json_incref(opt);
    if (!o) {
        char *path = blk_path_beside(blk_node_filename(n), n->backing_name);
        o = blk_image_opts(path, n->backing_fmt, e);
        free(path);
        if (!o)
            return err_prefix(e, "backing file of '%s'", blk_node_filename(n));
    }
    if (json_is_object(o)) {
        json_t *ro = json_copy(o);
        json_decref(o);
        o = ro;
        if (!json_object_get(o, "read-only"))
            json_object_set_new(o, "read-only", json_true());
    }
    bool ok = blk_child_open_at(n, &n->backing, "backing", o, BLK_PERM_READ, BLK_PERM_READ, e);
    if (!ok && e->cls == ERR_BUSY && json_is_string(o))         /* somebody writes to it, which our users may not mind */
        ok = blk_child_open_at(n, &n->backing, "backing", o, BLK_PERM_READ, BLK_PERM_ALL, e);
    json_decref(o);
    return ok || err_prefix(e, "backing file of '%s'", blk_node_filename(n));
}
