/* SPDX-License-Identifier: MIT */
/* -blockdev, and -drive as a shorthand that expands to it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "base/opt.h"
#include "block/backing.h"
#include "block/blk_int.h"
#include "core/backend.h"
#include "core/help.h"
#include "core/cmd.h"
#include "core/dev.h"
#include "core/flags.h"
#include "core/obj_alias.h"

static const char *const ifaces[] = { "virtio", "none", "pflash", "sd", "mtd", "ide", "scsi", "floppy", NULL };
static const char *const medias[] = { "disk", "cdrom", NULL };
static const char *const caches[] = { "writeback", "none", "writethrough", "directsync", "unsafe", NULL };
static const char *const discards[] = { "ignore", "unmap", "off", "on", NULL };
static const char *const on_errors[] = { "auto", "report", "ignore", "stop", "enospc", NULL };

#define ANY_UNIT UINT32_MAX             /* no index= is given */

/* The options of -drive that are not handed on to the node. */
struct drive_args {
    json_t *file;
    char *format, *id, *node_name, *addr;
    int iface, media, cache, discard, rerror, werror;
    uint32_t index, unit, bus;
    enum tri read_only, read_only_dash, auto_read_only;
    enum tri snapshot;
    bool copy_on_read;
    bool by_default;                    /* if= is not given */
};

static const struct prop drive_props[] = {
    PROP_JSON(struct drive_args, file, "file", 0, "Image: a file name, or a block node below (file.driver=..., file.filename=...); without it the drive is empty"),
    PROP_STR(struct drive_args, format, "format", 0, "Format of the image; without it the image is raw"),
    PROP_STR(struct drive_args, id, "id", 0, "Name by which a device finds it (drive=ID), also after a snapshot put another node there"),
    PROP_STR(struct drive_args, node_name, "node-name", 0, "Name of the node with the image; without it that is the id"),
    PROP_ENUM(struct drive_args, iface, "if", ifaces, 0, "virtio makes a virtio-blk device; none waits for -device ...,drive=ID; pflash, sd, mtd: the board's"),
    PROP_U32(struct drive_args, index, "index", ANY_UNIT, 0, ANY_UNIT, "Which of the drives of this interface; else the next"),
    PROP_U32(struct drive_args, unit, "unit", ANY_UNIT, 0, ANY_UNIT, "As index"),
    PROP_U32(struct drive_args, bus, "bus", 0, 0, 0, "Only bus 0 exists"),
    PROP_ENUM(struct drive_args, media, "media", medias, 0, "cdrom: read-only"),
    PROP_ENUM(struct drive_args, cache, "cache", caches, 0, "none: direct I/O; writethrough: no write cache for the guest; directsync: both; unsafe: never flush"),
    PROP_ENUM(struct drive_args, discard, "discard", discards, 0, "unmap lets the guest free space of the image"),
    PROP_TRI(struct drive_args, read_only, "readonly", TRI_AUTO, "Never write to the image"),
    PROP_TRI(struct drive_args, read_only_dash, "read-only", TRI_AUTO, "As readonly"),
    PROP_TRI(struct drive_args, auto_read_only, "auto-read-only", TRI_AUTO, "Open read-only where writing is not allowed; auto: unless readonly is given"),
    PROP_TRI(struct drive_args, snapshot, "snapshot", TRI_AUTO, "Keep what is written in a temporary file; auto: as -snapshot says"),
    PROP_BOOL(struct drive_args, copy_on_read, "copy-on-read", false, "Keep what is read from a backing file in the image"),
    PROP_ENUM(struct drive_args, rerror, "rerror", on_errors, 0, "What a failed read does"),
    PROP_ENUM(struct drive_args, werror, "werror", on_errors, 0, "What a failed write does"),
    PROP_END,
};

/* Handed on to the file below, under whatever filters there are. */
static const char *const file_keys[] = { "aio", "locking", NULL };

/* ---- finding -drive's nodes ---- */

struct find { const char *iface; unsigned unit; bool or_later; struct blk_node *found; };

static bool find_fn(struct obj *o, void *arg)
{
    struct find *f = arg;
    struct blk_node *n = (struct blk_node *)o;
    const struct blk_drive *d = n->drive;
    if (d && str_eq(d->iface, f->iface) && (d->unit == f->unit || (f->or_later && d->unit > f->unit && (!f->found || d->unit < f->found->drive->unit))))
        f->found = n;
    return !f->found || f->found->drive->unit != f->unit;
}

static struct blk_node *find_drive(const char *iface, unsigned unit, bool or_later)
{
    struct find f = { iface, unit, or_later, NULL };
    obj_each(NULL, &blk_node_class, find_fn, &f);
    return f.found;
}

struct obj *blk_drive_find(const char *iface, unsigned unit)
{
    struct blk_node *n = find_drive(iface, unit, false);
    return n ? &n->obj : NULL;
}

/* ---- expanding ---- */

/* The name of the file under filters; NULL: it is not told by one, or of a format that is said. */
static json_t *name_below(json_t *o)
{
    while (json_is_object(o) && !blk_is_format(o)) {
        json_t *image = json_object_get(o, "image"), *below = image ? image : json_object_get(o, "file");
        if (!json_is_object(below))
            return below ? NULL : json_object_get(o, "filename");
        o = below;
    }
    return json_is_string(o) ? o : NULL;
}

static bool choose_format(const struct drive_args *a, const char **format, struct err *e)
{
    json_t *inner = name_below(a->file);
    const char *name = json_string_value(inner), *path = name ? blk_local_path(name) : NULL, *like = path && !a->format ? blk_looks_like(path) : NULL;
    *format = a->format ? a->format : "raw";
    if (!like)
        return true;
    err_set(e, ERR_VALUE, "'%s' looks like a %s image, but no format is given", name, like);
    return err_hint(e, "say format=%s, or format=raw if the guest is to see these very bytes", like);
}

static void take(json_t *from, const char *key, json_t *to)
{
    json_object_set(to, key, json_object_get(from, key));
    json_object_del(from, key);
}

/* An option of @c, or a group of such. */
static bool has_option(const struct obj_class *c, const char *key)
{
    struct prop p;
    size_t n = strlen(key);
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++)
        if (!strncmp(p.name, key, n) && (!p.name[n] || p.name[n] == '.'))
            return true;
    return false;
}

/* The options below: by the file's name, or as they are. False with @e filled; *@file NULL: there are none. */
static bool file_opts(const struct drive_args *a, json_t **file, struct err *e)
{
    *file = json_is_string(a->file) ? blk_file_opts(json_string_value(a->file), e) : json_deep_copy(a->file);
    if (!*file)
        return !a->file;
    json_t *above = json_pack("{s:o}", "file", *file);
    bool ok = blk_imply_protocol(above, e);
    *file = ok ? json_incref(json_object_get(above, "file")) : NULL;
    json_decref(above);
    return ok;
}

/* The options, among those of @file and what is below, of the node that takes @key; @file where none does. */
static json_t *taker(json_t *file, const char *key)
{
    struct err ignored = ERR_INIT;
    for (json_t *o = file, *image; json_is_object(o); o = image ? image : json_object_get(o, "file")) {
        const char *driver = json_string_value(json_object_get(o, "driver"));
        const struct obj_class *c = driver ? backend_find(&blk_node_class, driver, &ignored) : NULL;
        if (c && has_option(c, key))
            return o;
        image = json_object_get(o, "image");
    }
    return file;
}

/* The -blockdev options that @a and the remaining keys @rest stand for; takes keys out of @rest. */
static json_t *expand(const struct drive_args *a, json_t *rest, const struct obj_class *c, bool snapshot, struct err *e)
{
    json_t *file, *v;
    const char *key;
    void *tmp;
    if (!file_opts(a, &file, e) || !blk_imply_protocol(rest, e))
        return json_decref(file), NULL;
    bool ro = a->read_only == TRI_ON || a->read_only_dash == TRI_ON || a->media == 1 || snapshot;
    bool given = a->read_only != TRI_AUTO || a->read_only_dash != TRI_AUTO;
    bool may_ro = a->auto_read_only == TRI_AUTO ? !given : a->auto_read_only == TRI_ON;
    json_t *n = json_pack("{s:s, s:b, s:b, s:s}", "driver", c->name + strlen("blockdev-"), "read-only", ro, "auto-read-only", may_ro && !ro,
                          "discard", a->discard & 1 ? "unmap" : "ignore");
    for (const char *const *k = file_keys; *k && file; k++)
        if (json_object_get(rest, *k))
            take(rest, *k, taker(file, *k));
    if (file)
        json_object_set_new(n, "file", file);
    if (a->cache == 1 || a->cache == 3)
        json_object_set_new(n, "cache.direct", json_true());
    if (a->cache == 4)
        json_object_set_new(n, "cache.no-flush", json_true());
    json_object_foreach_safe(rest, tmp, key, v)
        if (has_option(c, key))
            take(rest, key, n);
    return n;
}

static unsigned next_unit(const char *iface)
{
    unsigned u = 0;
    while (blk_drive_find(iface, u))
        u++;
    return u;
}

static bool drive_register(struct blk_node *n, const struct drive_args *a, struct err *e)
{
    const char *iface = ifaces[a->iface];
    unsigned unit = a->index != ANY_UNIT ? a->index : a->unit != ANY_UNIT ? a->unit : next_unit(iface);
    if (strcmp(iface, "none") && blk_drive_find(iface, unit)) {
        obj_del(&n->obj);
        return err_set(e, ERR_BUSY, "there is a drive if=%s,index=%u already", iface, unit);
    }
    bool other = a->id && strcmp(a->id, n->obj.id);
    if (other && obj_find("blockdev", a->id)) {
        obj_del(&n->obj);
        return err_set(e, ERR_BUSY, "a blockdev with the id '%s' exists already", a->id);
    }
    if (other)
        obj_alias_set(&n->obj, a->id);
    n->inline_child = true;             /* it goes with its users, once another node is the drive's */
    n->drive = xnew(struct blk_drive);
    *n->drive = (struct blk_drive){ .iface = xstrdup(iface), .by_default = a->by_default, .unit = unit, .cdrom = a->media == 1,
        .device = other ? xstrdup(a->id) : NULL, .writethrough = a->cache == 2 || a->cache == 3, .rerror = a->rerror, .werror = a->werror };
    return true;
}

/* The options of -drive, and of the node that it makes. */
static const char *drive_key(const void *cls, size_t i)
{
    struct prop p;
    size_t own = ARRAY_SIZE(drive_props) - 1;
    return i < own ? drive_props[i].name : obj_prop_nth(cls, i - own, &p) ? p.name : NULL;
}

/* A drive without a medium, which a device with a tray can take. */
static struct blk_node *empty_node(const struct drive_args *a, json_t *rest, const char *id, struct err *e)
{
    json_object_del(rest, "aio");       /* nothing to read yet; what comes later is opened by options of its own */
    const char *left = json_object_iter_key(json_object_iter(rest));
    if (strcmp(ifaces[a->iface], "none") || a->format || left) {
        err_set(e, ERR_VALUE, "'file' is missing");
        err_hint(e, left ? "without it '%s' has no meaning" : a->format ? "without it a format has no meaning" :
                 "-drive file=IMAGE,format=raw,if=virtio; an empty drive is if=none,id=ID", left);
        return NULL;
    }
    return blk_empty_node(id, e);
}

/* A layer over @base, which goes with it; @base is gone where that fails. */
static struct blk_node *copying_node(struct blk_node *base, const char *id, struct err *e)
{
    json_t *o = json_pack("{s:s, s:s, s:s}", "driver", "copy-on-read", "node-name", id, "file", base->obj.id);
    struct blk_node *n = blk_node_create(o, e);
    json_decref(o);
    if (n)
        base->inline_child = true;
    return n;
}

static bool is_group(const void *cls, const char *key, const char *head)
{
    struct prop p;
    return !obj_prop_find(cls, key, &p);
}

static struct blk_node *image_node(const struct drive_args *a, json_t *flat, const char *id, struct err *e)
{
    bool snapshot = a->snapshot == TRI_AUTO ? cli_flags.snapshot && a->media == 0 : a->snapshot == TRI_ON;
    const char *format;
    const struct obj_class *c = choose_format(a, &format, e) ? backend_find(&blk_node_class, format, e) : NULL;
    json_t *rest = c ? opt_nest(flat, is_group, c, e) : NULL, *o = rest ? expand(a, rest, c, snapshot, e) : NULL;
    bool layer = snapshot || (o && a->copy_on_read && !json_is_true(json_object_get(o, "read-only")));
    char *base = layer ? xasprintf("%s-base", id) : NULL;
    const char *left = o ? json_object_iter_key(json_object_iter(rest)) : NULL;
    bool ok = o && (!left || err_unknown(e, "option", left, " for -drive", drive_key, c));
    if (ok)
        json_object_set_new(o, "node-name", json_string(base ? base : id));
    struct blk_node *n = ok ? blk_node_create(o, e) : NULL;
    if (n && layer) {
        struct blk_node *top = snapshot ? blk_overlay_create(n, id, e) : copying_node(n, id, e);
        if (!top)
            obj_del(&n->obj);
        n = top;
    }
    json_decref(rest);
    json_decref(o);
    free(base);
    return n;
}

/* Its node needs no other below. */
static bool stands_alone(const struct drive_args *a)
{
    struct err ignored = ERR_INIT;
    const struct obj_class *c = a->format ? backend_find(&blk_node_class, a->format, &ignored) : NULL;
    return c && !has_option(c, "file") && !has_option(c, "image");
}

/* Two names of one option. */
static bool says_once(const struct drive_args *a, struct err *e)
{
    if (a->index != ANY_UNIT && a->unit != ANY_UNIT)
        return err_set(e, ERR_VALUE, "'index' and 'unit' are two names of one option");
    return (a->read_only == TRI_AUTO || a->read_only_dash == TRI_AUTO) || err_set(e, ERR_VALUE, "'readonly' and 'read-only' are two names of one option");
}

static bool drive_make(const struct drive_args *a, json_t *rest, struct err *e)
{
    static unsigned anonymous;
    char made[32];
    const char *id = a->id ? a->id : a->node_name;
    if (!says_once(a, e))
        return false;
    if (a->iface >= 5) {
        err_set(e, ERR_VALUE, "if=%s: this machine has no such interface", ifaces[a->iface]);
        return err_hint(e, "if=virtio, or if=none,id=ID with -device DRIVER,drive=ID");
    }
    if (!id) {
        snprintf(made, sizeof made, "%s%u", ifaces[a->iface], anonymous++);
        id = made;
    }
    struct obj *group;
    if (!blk_drive_throttle(rest, id, &group, e))
        return false;
    const char *name = a->node_name ? a->node_name : id;
    struct blk_node *n = a->file || stands_alone(a) ? image_node(a, rest, name, e) : empty_node(a, rest, name, e);
    bool done = n && drive_register(n, a, e);
    if (done)
        n->drive->throttle_group = group;
    else
        obj_unref(group);
    return done;
}

static bool all_nest(const void *arg, const char *key, const char *head) { return true; }

/* The child through which the driver of @o reaches a file; NULL: it is one itself. */
static const char *way_down(json_t *o)
{
    struct err ignored = ERR_INIT;
    const char *driver = json_string_value(json_object_get(o, "driver"));
    const struct obj_class *c = driver ? backend_find(&blk_node_class, driver, &ignored) : NULL;
    return !c ? NULL : has_option(c, "file") ? "file" : has_option(c, "image") ? "image" : NULL;
}

/* @file with what the file name @name means beside it; a name that is for no such driver goes down to the file. Takes over @file. */
static json_t *put_name(json_t *file, const char *name)
{
    struct err e = ERR_INIT;            /* what is wrong with it is told when it is opened */
    json_t *from_name = blk_file_opts(name, &e), *driver = json_object_get(file, "driver");
    const char *role = !from_name || json_equal(driver, json_object_get(from_name, "driver")) ? NULL : way_down(file);
    json_t *below = role ? json_object_get(file, role) : NULL;
    if (!from_name) {
        json_object_set_new(file, "filename", json_string(name));
        return file;
    }
    if (role && !json_is_string(below)) {
        json_object_set_new(file, role, put_name(below ? json_incref(below) : json_object(), name));
        json_decref(from_name);
        return file;
    }
    json_object_update_recursive(from_name, file);      /* what is beside the name wins */
    json_decref(file);
    return from_name;
}

/*
 * file=NAME with file.KEY=... beside it, or file.KEY=... alone, become one "file" object. Keys of the node ("cache.direct")
 * stay as they are.
 */
static bool gather_file(json_t *all, struct err *e)
{
    json_t *flat = json_object(), *file, *v;
    const char *key, *name = json_string_value(json_object_get(all, "file"));
    void *tmp;
    json_object_foreach_safe(all, tmp, key, v) {
        if (str_starts(key, "file.")) {
            json_object_set(flat, key + 5, v);
            json_object_del(all, key);
        }
    }
    file = json_object_size(flat) ? opt_nest(flat, all_nest, NULL, e) : NULL;
    json_decref(flat);
    if (file)
        json_object_set_new(all, "file", name ? put_name(file, name) : file);
    return file || !e->msg[0];
}

/* file=json:{...} of a format's node: its options are as good as those beside it, which win. */
static bool unfold_json(json_t *all, struct err *e)
{
    const char *name = json_string_value(json_object_get(all, "file"));
    json_t *o = name && str_starts(name, "json:") ? blk_file_opts(name, e) : NULL;
    if (!o || !blk_is_format(o)) {
        json_decref(o);
        return !e->msg[0];
    }
    json_t *file = json_incref(json_object_get(o, "file")), *flat;
    json_object_del(o, "file");
    if (json_object_get(all, "format"))
        json_object_del(o, "driver");
    flat = opt_flatten(o);
    json_object_set_new(all, "file", file);
    json_object_update_missing(all, flat);
    json_decref(flat);
    json_decref(o);
    return true;
}

/* Moves the keys of @all that -drive has rows for into a new object. */
static json_t *own_keys(json_t *all)
{
    json_t *own = json_object(), *v;
    const char *key;
    void *tmp;
    json_object_foreach_safe(all, tmp, key, v) {
        struct prop p;
        if (prop_find(drive_props, key, &p)) {
            json_object_set(own, key, v);
            json_object_del(all, key);
        }
    }
    return own;
}

bool blk_drive_add(const char *text, const char *extra_if, const char *media, struct err *e)
{
    struct drive_args a = { 0 };
    json_t *all = text ? opt_parse_flat(text, NULL, e) : NULL;
    if (!all || !unfold_json(all, e) || !gather_file(all, e)) {
        json_decref(all);
        return false;
    }
    if (extra_if)
        json_object_set_new(all, "if", json_string(extra_if));
    if (media)
        json_object_set_new(all, "media", json_string(media));
    if (json_object_get(all, "driver") && !json_object_get(all, "format")) {
        json_object_set(all, "format", json_object_get(all, "driver"));
        json_object_del(all, "driver");
    }
    json_t *own = own_keys(all);
    prop_defaults(drive_props, &a);
    a.by_default = !json_object_get(own, "if");
    bool ok = prop_set_all(drive_props, &a, NULL, own, "-drive", e) && drive_make(&a, all, e);
    prop_release(drive_props, &a);
    json_decref(own);
    json_decref(all);
    return ok;
}

/* ---- options ---- */

static bool asks_formats(const char *arg)
{
    struct err ignored = ERR_INIT;
    json_t *o = opt_parse_flat(arg, NULL, &ignored);
    bool asks = opt_is_help(json_string_value(json_object_get(o, "format")));
    json_decref(o);
    return asks;
}

static bool opt_drive(const char *arg, struct err *e)
{
    if (asks_formats(arg)) {
        struct str out = { 0 };
        str_add(&out, "Supported formats:");        /* on one line: scripts look for it */
        for (const struct obj_class *const *c = obj_class_list(&blk_node_class, false); *c; c++)
            if (obj_class_shown(*c))
                str_printf(&out, " %s", backend_type(&blk_node_class, *c));
        str_add(&out, "\n");
        help_exit(&out);
    }
    if (opt_is_help(arg)) {
        struct str out = { 0 };
        str_add(&out, "-drive options (each stands for -blockdev options, and those may be given too):\n");
        for (const struct prop *p = drive_props; p->name; p++)
            str_printf(&out, "  %-12s %s\n", p->name, p->doc);
        help_exit(&out);
    }
    return blk_drive_add(arg, NULL, NULL, e);
}
static const struct cli_opt cli_drive = { .name = "drive", .arg = "file=IMAGE[,format=F][,if=I][,id=ID][,...]", .section = "Block",
    .phase = CLI_BLOCK, .doc = "Adds a disk image and, with if=virtio (the default), a device for it", .apply = opt_drive, .helps = true, .args = drive_props };
CLI_OPT(&cli_drive);

/* A file name as a value: commas twice. */
static bool drive_of_file(const char *path, const char *rest, const char *iface, const char *media, struct err *e)
{
    struct str b = { 0 };
    str_add(&b, "file=");
    for (const char *p = path; *p; p++)
        str_addn(&b, *p == ',' ? ",," : p, *p == ',' ? 2 : 1);
    str_add(&b, rest);
    bool ok = blk_drive_add(b.s, iface, media, e);
    str_free(&b);
    return ok;
}

#define FILE_OPT(nm, fn, rest, iface, media, ds)                                                                    \
    static bool fn(const char *arg, struct err *e) { return drive_of_file(arg, rest, iface, media, e); }            \
    static const struct cli_opt cli_##fn = { .name = nm, .arg = "FILE", .section = "Block", .phase = CLI_BLOCK, .doc = ds, .apply = fn }; \
    CLI_OPT(&cli_##fn)
FILE_OPT("hda", opt_hda, ",index=0", NULL, NULL, "The first disk, as -drive file=FILE,index=0");
FILE_OPT("hdb", opt_hdb, ",index=1", NULL, NULL, "The second disk");
FILE_OPT("hdc", opt_hdc, ",index=2", NULL, NULL, "The third disk");
FILE_OPT("hdd", opt_hdd, ",index=3", NULL, NULL, "The fourth disk");
FILE_OPT("cdrom", opt_cdrom, ",index=2", NULL, "cdrom", "A read-only disk, as -drive file=FILE,index=2,media=cdrom");
FILE_OPT("pflash", opt_pflash, ",format=raw", "pflash", NULL, "The next flash bank, as -drive if=pflash,format=raw,file=FILE");
FILE_OPT("sd", opt_sd, "", "sd", NULL, "An SD card, as -drive if=sd,file=FILE");

static json_t *blockdevs_to_write;      /* names of nodes of -blockdev that are not read-only */

static bool is_on(json_t *o, const char *key)
{
    char buf[32];
    bool on = false;
    const char *s = opt_text(o, key, buf);
    return s && parse_bool(s, &on) && on;
}

static bool opt_blockdev(const char *arg, struct err *e)
{
    json_t *o = opt_parse(arg, "driver", e);
    if (!o)
        return false;
    if (opt_asks_help(o)) {
        struct str out = { 0 };
        char *type = opt_take(o, "driver");
        const struct obj_class *c = type ? backend_find(&blk_node_class, type, e) : NULL;
        bool bad = type && !c;
        free(type);
        json_decref(o);
        if (bad)
            return false;
        if (c)
            backend_help_type(&blk_node_class, c, &out);
        else
            backend_help_types(&blk_node_class, "Block back ends (-blockdev DRIVER,help shows the options)", &out);
        help_exit(&out);
    }
    bool ok = blk_node_create(o, e) != NULL;
    if (ok && !is_on(o, "read-only")) {
        blockdevs_to_write = blockdevs_to_write ? blockdevs_to_write : json_array();
        json_array_append(blockdevs_to_write, json_object_get(o, "node-name"));
    }
    json_decref(o);
    return ok;
}
static const struct cli_opt cli_blockdev = { .name = "blockdev", .arg = "DRIVER,node-name=NAME[,...]", .section = "Block",
    .phase = CLI_BLOCK, .doc = "Adds a node to the block graph", .apply = opt_blockdev, .helps = true, .of = &blk_node_class };
CLI_OPT(&cli_blockdev);

static bool opt_snapshot(const char *arg, struct err *e)
{
    cli_flags.snapshot = true;
    return true;
}
static const struct cli_opt cli_snapshot = { .name = "snapshot", .section = "Block", .phase = CLI_EARLY, .apply = opt_snapshot,
    .doc = "Drives write to temporary files: their images stay as they are" };
CLI_OPT(&cli_snapshot);

static bool has_parent(struct blk_node *n)
{
    struct blk_use *u;
    list_for_each(u, &n->uses, link)
        if (u->parent)
            return true;
    return false;
}

/* Whether a node is for devices to write: what is below another node is that one's, which says for itself whether it is. */
static bool any_blockdev_to_write(void)
{
    size_t i;
    json_t *name;
    bool any = false;
    json_array_foreach(blockdevs_to_write, i, name) {
        struct err unused = ERR_INIT;
        struct blk_node *n = blk_node_find(json_string_value(name), &unused);
        any = any || (n && !has_parent(n));
    }
    json_decref(blockdevs_to_write);
    blockdevs_to_write = NULL;
    return any;
}

/* Who types -snapshot does not expect an image to change. */
static bool snapshot_covers(struct err *e)
{
    static const char text[] = "-snapshot is for -drive: what a -blockdev names is written to";
    if (!any_blockdev_to_write() || !cli_flags.snapshot)
        return true;
    if (!cli_flags.compat_qemu) {
        err_set(e, ERR_VALUE, "%s", text);
        return err_hint(e, "give the disk by -drive, or leave -snapshot out; a -blockdev that is only read says read-only=on");
    }
    log_warn("%s", text);
    return true;
}
static const struct cli_step snapshot_step = { .name = "-snapshot", .phase = CLI_BLOCK, .prio = 100, .run = snapshot_covers };
CLI_STEP(&snapshot_step);

/* ---- devices of if=virtio ---- */

static bool end_search(struct obj *o, void *arg) { return false; }

static bool drives_to_devices(struct err *e)
{
    const char *driver = obj_class_find("virtio-blk") ? "virtio-blk" : "virtio-blk-device";     /* without PCI in this build */
    const struct dev_class *c = (const struct dev_class *)obj_class_find(driver);
    bool place = !obj_each(NULL, &c->plugs_into->obj, end_search, NULL);       /* it ends at the first bus of the kind */
    struct blk_node *n;
    for (unsigned u = 0; (n = find_drive("virtio", u, true)); u++) {
        u = n->drive->unit;
        if (!place && n->drive->by_default)
            continue;
        json_t *opts = json_pack("{s:s, s:s}", "driver", driver, "drive", n->obj.id);
        bool ok = dev_create_from_opts(opts, false, e) != NULL;
        json_decref(opts);
        if (!ok)
            return err_prefix(e, "-drive if=virtio,index=%u", u);
    }
    return true;
}
static const struct cli_step virtio_step = { .name = "drives", .phase = CLI_BOARD, .prio = 100, .run = drives_to_devices };
CLI_STEP(&virtio_step);
