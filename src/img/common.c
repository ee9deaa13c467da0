/* SPDX-License-Identifier: MIT */
/* What the commands of backplane-img share: opening, messages, plain reads and writes. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/exit_file.h"
#include "base/opt.h"
#include "block/backing.h"
#include "core/backend.h"
#include "img/img.h"

/* ---- saying ---- */

int img_refuse(const char *what)
{
    fprintf(stderr, "backplane-img: %s\n", what);
    return 1;
}

int img_fail(const struct err *e, const char *what)
{
    fprintf(stderr, "backplane-img: %s%s%s\n", what ? what : "", what ? ": " : "", e->msg);
    if (e->hint[0])
        fprintf(stderr, "hint: %s\n", e->hint);
    return 1;
}

int img_fail_errno(int r, const char *fmt, ...)
{
    va_list ap;
    fputs("backplane-img: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, ": %s\n", strerror(-r));
    return 1;
}

const char *img_size_text(uint64_t v, char buf[32])
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double x = (double)v;
    unsigned u = 0;
    for (; x >= 1000 && u < ARRAY_SIZE(unit) - 1; u++)
        x /= 1024;
    snprintf(buf, 32, "%.3g %s", x, unit[u]);
    return buf;
}

static volatile sig_atomic_t asked;

static void on_ask(int sig) { asked = 1; }

void img_progress_on_signal(void)
{
    struct sigaction sa = { .sa_handler = on_ask, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &sa, NULL);
}

void img_progress(const struct img_opts *o, uint64_t done, uint64_t all)
{
    static int last = -1;
    int permille = all ? (int)((double)done / (double)all * 1000) : 1000;
    if (asked) {
        asked = 0;
        fprintf(stderr, "    (%.2f/100%%)\n", permille / 10.0);
    }
    if (!o->progress || o->quiet || permille == last)
        return;
    last = permille;
    printf("    (%.2f/100%%)\r", permille / 10.0);
    fflush(stdout);
}

void img_progress_end(const struct img_opts *o)
{
    img_progress(o, 1, 1);
    if (o->progress && !o->quiet)
        putchar('\n');
}

void img_print_json(json_t *v)
{
    char *s = json_dumps(v, JSON_INDENT(4));
    puts(s);
    free(s);
    json_decref(v);
}

/* ---- opening ---- */

const char *img_format(const struct blk_node *n) { return blk_format_name(n); }

/* cache=... of -t and -T. */
static bool set_cache(json_t *o, const char *cache)
{
    static const struct { const char *name; bool direct, no_flush; } modes[] = {
        { "writeback", false, false }, { "none", true, false }, { "off", true, false }, { "writethrough", false, false },
        { "directsync", true, false }, { "unsafe", false, true },
    };
    for (size_t i = 0; cache && i < ARRAY_SIZE(modes); i++) {
        if (strcmp(modes[i].name, cache))
            continue;
        json_object_set_new(o, "cache.direct", json_boolean(modes[i].direct));
        json_object_set_new(o, "cache.no-flush", json_boolean(modes[i].no_flush));
        return true;
    }
    if (cache)
        fprintf(stderr, "backplane-img: cache mode '%s': none, writeback, writethrough, directsync or unsafe\n", cache);
    return !cache;
}

/* The driver that @opts name has an option @name. */
static bool has_option(json_t *opts, const char *name)
{
    struct err e = ERR_INIT;
    struct prop p;
    const char *driver = json_string_value(json_object_get(opts, "driver"));
    const struct obj_class *c = driver ? backend_find(&blk_node_class, driver, &e) : NULL;
    return c && obj_prop_find(c, name, &p);
}

static void set_unlocked(json_t *o)
{
    json_t *file = json_object_get(o, "file");
    if (json_is_object(file))
        set_unlocked(file);
    else if (has_option(o, "locking"))
        json_object_set_new(o, "locking", json_string("off"));
}

/*
 * A format that nobody named is told by its signature; a raw disk whose guest wrote such a signature must not make us open
 * other files, so that an image that names some must be named by -f or by its suffix.
 */
static const char *guess_format(const char *path, bool *guessed)
{
    const char *like = blk_looks_like(path), *dot = strrchr(path, '.');
    *guessed = like && !(dot && (!strcmp(dot + 1, like) || (!strcmp(like, "qcow2") && str_starts(dot, ".qcow"))));
    return like ? like : "raw";
}

static bool is_unknown(const char *name, const char *fmt, const struct img_opts *o)
{
    return !fmt && !o->image_opts && !blk_local_path(name) && !str_starts(name, "json:");
}

/* The same where a look needs a connection, which is kept: the node below the one of @opts is made here. */
static struct blk_node *co_guess_remote(json_t *opts, bool *guessed, struct err *e)
{
    json_t *file = json_copy(opts);
    json_object_update(file, json_object_get(opts, "file"));
    json_object_del(file, "file");
    json_object_set_new(file, "node-name", json_sprintf("%s-below", json_string_value(json_object_get(opts, "node-name"))));
    struct blk_node *n = blk_node_create(file, e);
    json_decref(file);
    if (!n)
        return NULL;
    const char *like = co_node_looks_like(n);
    n->inline_child = true;
    json_object_set_new(opts, "driver", json_string(like ? like : "raw"));
    json_object_set_new(opts, "file", json_string(n->obj.id));
    *guessed = like != NULL;
    return n;
}

static bool names_others(struct blk_node *n)
{
    json_t *(*info)(const struct blk_node *) = BLK_DRIVER(n)->info;
    json_t *i = info ? info(n) : NULL, *d = json_object_get(i, "data");
    bool others = n->backing_name || json_object_get(d, "data-file");
    size_t k;
    json_t *x;
    json_array_foreach(json_object_get(d, "extents"), k, x)
        others |= strcmp(json_string_value(json_object_get(x, "filename")), blk_node_filename(n)) != 0;
    json_decref(i);
    return others;
}

static json_t *options_of(const char *name, const char *fmt, const struct img_opts *o, bool *guessed, struct err *e)
{
    *guessed = false;
    if (o->image_opts && fmt)
        return err_set(e, ERR_VALUE, "a format has no effect with --image-opts"), err_hint(e, "driver=%s among the options of the image", fmt), NULL;
    if (o->image_opts) {
        json_t *opts = opt_parse(name, "driver", e);
        if (!opts || blk_imply_protocol(opts, e))
            return opts;
        json_decref(opts);
        return NULL;
    }
    if (!fmt && blk_local_path(name))
        fmt = guess_format(blk_local_path(name), guessed);
    return blk_image_opts(name, fmt, e);
}

bool img_new_is_zero(const char *name, const char *fmt)
{
    struct err e = ERR_INIT;
    struct stat st;
    const struct obj_class *c = backend_find(&blk_node_class, fmt, &e);
    if (strcmp(fmt, "raw"))
        return c && !(((const struct blk_driver *)c)->flags & BLK_NEW_IS_RUBBISH);
    const char *path = blk_local_path(name);
    return path ? stat(path, &st) || S_ISREG(st.st_mode) : blk_makes_files(name);   /* a device holds what it held */
}

static bool has_key(json_t *opts)
{
    return json_object_get(opts, "key-secret") || json_object_get(opts, "encrypt.key-secret") || json_object_get(json_object_get(opts, "encrypt"), "key-secret");
}

/* What an image was encrypted with opens it. */
static void use_key(json_t *opts, json_t *created)
{
    static const char *const keys[] = { "key-secret", "encrypt.format", "encrypt.key-secret" };
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (json_object_get(created, keys[i]) && has_option(opts, keys[i]))
            json_object_set(opts, keys[i], json_object_get(created, keys[i]));
}

/* What we are to an image that is open: without a user nothing is locked. */
struct claim { struct list link; struct blk_use use; };
static struct list claims = LIST_INIT(claims);

static bool claim(struct blk_node *n, bool write, struct err *e)
{
    struct claim *c = xnew(struct claim);
    if (!blk_use_add(&c->use, n, write ? BLK_PERM_ALL : BLK_PERM_READ, BLK_PERM_READ, "backplane-img", e)) {
        free(c);
        return false;
    }
    list_push(&claims, &c->link);
    return true;
}

struct blk_node *img_open(const char *name, const char *fmt, const char *cache, const struct img_opts *o, unsigned flags)
{
    static unsigned count;
    struct err e = ERR_INIT;
    bool guessed, write = flags & IMG_WRITE, unlocked = flags & IMG_UNLOCKED || o->unlocked;
    if (write && unlocked) {
        img_refuse("-U: what is written is locked");
        return NULL;
    }
    json_t *opts = options_of(name, fmt, o, &guessed, &e);
    char id[32];
    if (!opts) {
        img_fail(&e, NULL);
        return NULL;
    }
    snprintf(id, sizeof id, "image%u", count++);
    json_object_set_new(opts, "node-name", json_string(id));
    json_object_set_new(opts, "read-only", json_boolean(!write));
    if (write && !json_object_get(opts, "discard"))
        json_object_set_new(opts, "discard", json_string("unmap"));
    if (unlocked)
        set_unlocked(opts);
    struct blk_node *below = NULL;
    bool ok = set_cache(opts, cache) && (!is_unknown(name, fmt, o) || (below = co_guess_remote(opts, &guessed, &e)));
    if (flags & (IMG_ONE_LAYER | IMG_LOOK) && has_option(opts, "backing"))
        json_object_set_new(opts, "backing", json_null());
    use_key(opts, o->created);
    if (flags & IMG_LOOK && has_option(opts, "header-only") && !has_key(opts))
        json_object_set_new(opts, "header-only", json_true());
    if (flags & IMG_REPAIR && has_option(opts, "repair"))
        json_object_set_new(opts, "repair", json_true());
    struct blk_node *n = ok ? blk_node_create(opts, &e) : NULL;
    json_decref(opts);
    if (n && !unlocked && !claim(n, write, &e)) {
        img_close(n);
        n = NULL;
    } else if (!n && below) {
        blk_node_drop(below);
    }
    if (!n && e.cls == ERR_BUSY && flags & IMG_BUSY) {
        if (!o->quiet)
            fprintf(stderr, "backplane-img: warning: %s: what is seen may be half of a change\n", e.msg);
        return img_open(name, fmt, cache, o, (flags & ~IMG_BUSY) | IMG_UNLOCKED);
    }
    if (!n) {
        if (e.msg[0])
            img_fail(&e, NULL);
        return NULL;
    }
    if (guessed && !(flags & (IMG_LOOK | IMG_GUESSED)) && names_others(n)) {
        fprintf(stderr, "backplane-img: '%s' looks like a %s image that names other files, but its format is not given\n"
                        "hint: -f %s\n", name, img_format(n), img_format(n));
        img_close(n);
        return NULL;
    }
    return n;
}

/* By what @terms say: "snapshot.id", "snapshot.name", or both of the same snapshot. */
static int co_show_by_terms(struct blk_node *n, json_t *terms)
{
    const struct blk_snap_ops *s = BLK_DRIVER(n)->snap;
    const char *id = json_string_value(json_object_get(terms, "snapshot.id"));
    const char *name = json_string_value(json_object_get(terms, "snapshot.name"));
    struct blk_snap *v = NULL;
    unsigned count = 0, i = 0;
    int r = s->list(n, &v, &count);
    if (r)
        return r;
    while (i < count && ((id && !str_eq(v[i].id, id)) || (name && !str_eq(v[i].name, name))))
        i++;
    r = i < count ? s->show(n, v[i].id) : -ENOENT;
    blk_snaps_free(v, count);
    return r;
}

/* What is said as terms; NULL: as an id or a name. */
static bool snapshot_terms(const char *what, json_t **out)
{
    struct err e = ERR_INIT;
    const char *key;
    json_t *x;
    *out = NULL;
    if (!str_starts(what, "snapshot."))
        return true;
    *out = opt_parse_flat(what, NULL, &e);
    bool ok = *out != NULL;
    json_object_foreach(*out, key, x)
        if (ok && !str_eq(key, "snapshot.id") && !str_eq(key, "snapshot.name"))
            ok = err_set(&e, ERR_VALUE, "unknown key '%s': snapshot.id or snapshot.name", key);
    if (!ok)
        img_fail(&e, "-l");
    return ok;
}

bool co_img_show_snapshot(struct blk_node *n, const char *what)
{
    const struct blk_snap_ops *s = BLK_DRIVER(n)->snap;
    json_t *terms;
    bool told = !snapshot_terms(what, &terms);
    int r = told ? -EINVAL : !s || !s->show ? -ENOTSUP : terms ? co_show_by_terms(n, terms) : s->show(n, what);
    json_decref(terms);
    if (r == -ENOTSUP)
        fprintf(stderr, "backplane-img: -l: images of format '%s' hold no snapshots\n", img_format(n));
    else if (r == -ENOENT)
        fprintf(stderr, "backplane-img: there is no snapshot '%s'\n", what);
    else if (r && !told)
        img_fail_errno(r, "-l: cannot read snapshot '%s'", what);
    return !r;
}

void img_close(struct blk_node *n)
{
    struct claim *c;
    if (!n)
        return;
    list_for_each(c, &claims, link) {
        if (c->use.node != n)
            continue;
        list_del(&c->link);
        blk_use_del(&c->use);
        free(c);
        break;
    }
    obj_del(&n->obj);
}

/* ---- what is made ---- */

struct exit_file *img_half_begin(const char *name)
{
    const char *path = blk_local_path(name);
    struct stat st;
    return path && !stat(path, &st) && S_ISREG(st.st_mode) ? exit_file_new(path) : NULL;
}

void img_half_end(struct exit_file *half, bool whole)
{
    if (whole)
        exit_file_keep(half);
    else
        exit_file_remove(half);
}

/* ---- data ---- */

int co_img_read(struct blk_node *n, uint64_t off, uint64_t len, void *buf)
{
    uint64_t size = atomic_load(&n->size), there = off >= size ? 0 : MIN(len, size - off);
    struct iovec v = { buf, there };
    memset((char *)buf + there, 0, len - there);
    return there ? co_node_preadv(n, off, there, &v, 1, 0) : 0;
}

int co_img_write(struct blk_node *n, uint64_t off, uint64_t len, const void *buf)
{
    struct iovec v = { (void *)buf, len };
    return co_node_pwritev(n, off, len, &v, 1, 0);
}

int co_img_is_zero(struct blk_node *n, uint64_t off, uint64_t len, uint8_t *buf)
{
    struct iovec v = { buf, len };
    int r = co_img_read(n, off, len, buf);
    return r ? r : blk_iov_is_zero(&v, 1);
}
