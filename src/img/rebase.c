/* SPDX-License-Identifier: MIT */
/* rebase and commit: what an image shares with those below it. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
#include "block/throttle.h"
#include "img/img.h"

enum { PIECE = 1 << 20 };

/* ---- rebase ---- */

/* Compressed, where it is a whole cluster. */
static int co_put(struct blk_node *n, uint64_t at, uint64_t len, void *buf, uint64_t unit, bool compress)
{
    struct iovec v = { buf, len };
    bool whole = at % unit == 0 && (len == unit || at + len == atomic_load(&n->size));
    return compress && whole ? co_node_write_compressed(n, at, len, &v, 1) : co_img_write(n, at, len, buf);
}

static int co_read_or_zero(struct blk_node *n, bool zero, uint64_t at, uint64_t len, uint8_t *buf)
{
    return zero ? (memset(buf, 0, len), 0) : co_img_read(n, at, len, buf);
}

/* What both show there, as far as one answer goes (*len); @new may be NULL, or end before. */
static int co_map_both(struct blk_node *n, struct blk_node *new, uint64_t at, uint64_t *len, struct blk_extent *x, struct blk_extent *y)
{
    uint64_t end = new ? atomic_load(&new->size) : 0;
    *y = (struct blk_extent){ .len = *len, .zero = true };
    int r = co_node_map(n, at, *len, x);
    r = r || at >= end ? r : co_node_map(new, at, MIN(*len, end - at), y);
    *len = MIN(x->len, y->len);
    return r;
}

/* Where old and new backing differ under what the overlay does not hold, the old bytes go into the overlay. */
static int co_keep_contents(const struct img_opts *o, struct blk_node *n, struct blk_node *new, bool compress)
{
    uint64_t size = atomic_load(&n->size), unit = BLK_DRIVER(n)->cluster_size ? BLK_DRIVER(n)->cluster_size(n) : 65536;
    uint8_t *a = malloc(unit), *b = malloc(unit);
    int r = a && b ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < size && !r;) {
        struct blk_extent x, y;
        r = co_node_map_layer(n, at, size - at, &x);
        uint64_t len = r ? 0 : x.len;
        bool below = !r && x.below;
        r = below ? co_map_both(n, new, at, &len, &x, &y) : r;
        if (!r && below && !(x.zero && y.zero)) {
            len = MIN(len, unit - at % unit);
            r = co_read_or_zero(n, x.zero, at, len, a);
            r = r ? r : co_read_or_zero(new, y.zero, at, len, b);
            if (!r && memcmp(a, b, len))
                r = x.zero ? co_node_zero(n, at, len, BLK_ZERO_UNMAP) : co_put(n, at, len, a, unit, compress);
        }
        at += len;
        img_progress(o, at, size);
    }
    free(a);
    free(b);
    img_progress_end(o);
    return r ? r : co_node_flush(n);
}

/* @n is open with its old backing file: what a write leaves of a cluster comes from there. */
static int co_rebase_safely(const struct img_opts *o, struct blk_node *n, const char *base, const char *fmt, bool compress, bool share)
{
    struct img_opts plain = *o;
    plain.image_opts = false;
    plain.unlocked = share;
    struct blk_node *new = NULL;
    if (*base) {
        char *path = blk_path_beside(blk_node_filename(n), base);
        new = img_open(path, fmt, o->src_cache, &plain, 0);
        free(path);
        if (!new)
            return 1;
    }
    int r = co_keep_contents(o, n, new, compress);
    img_close(new);
    return r ? img_fail_errno(r, "cannot keep the contents of '%s'", blk_node_filename(n)) : 0;
}

static const struct img_opt rebase_opts[] = {
    { 'b', "backing", "FILE", "the new backing file; \"\": none" },
    { 'F', "backing-format", "FORMAT", "its format" },
    { 'B', NULL, "FORMAT", NULL },
    { 'u', "backing-unsafe", NULL, "changes the name only" },
    { 'c', "compress", NULL, "what the image takes over is compressed" },
    { 'T', "backing-cache", "MODE", "the host's cache for the new backing file" },
    IMG_OPT_FORMAT,
    IMG_OPT_CACHE,
    IMG_OPT_SHARE,
    IMG_OPT_PROGRESS,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_rebase(int argc, char **argv)
{
    struct img_opts o = { 0 };
    const char *base = NULL, *fmt = NULL;
    bool unsafe = false, compress = false;
    for (int c; (c = img_getopt(argc, argv, rebase_opts, &o)) != -1;) {
        switch (c) {
        case 'b': base = optarg; break;
        case 'c': compress = true; break;
        case 'F': case 'B': fmt = optarg; break;
        case 'u': unsafe = true; break;
        default: return 1;
        }
    }
    base = base || !unsafe ? base : "";
    if (optind + 1 != argc || !base)
        return fprintf(stderr, "backplane-img: rebase needs -b BACKING (\"\" for none) and a file name\n"), 1;
    if (unsafe && (o.src_cache || o.unlocked))
        return img_refuse(o.unlocked ? "-U has no effect with -u, which opens no backing file" : "-T has no effect with -u, which opens no backing file");
    bool share = o.unlocked;            /* of the new backing file; the image itself is written */
    o.unlocked = false;
    if (*base && !fmt)
        return fprintf(stderr, "backplane-img: the backing file's format is missing\nhint: -F FORMAT\n"), 1;
    if (compress && unsafe)
        return fprintf(stderr, "backplane-img: -c has no effect with -u, which writes no data\n"), 1;
    struct blk_node *n = img_open(argv[optind], o.fmt, o.cache, &o, IMG_WRITE | IMG_GUESSED | (unsafe ? IMG_ONE_LAYER : 0));
    int status = 1;
    if (n && !BLK_DRIVER(n)->co_set_backing) {
        fprintf(stderr, "backplane-img: images of format '%s' have no backing file\n", img_format(n));
    } else if (n && compress && !BLK_DRIVER(n)->co_write_compressed) {
        fprintf(stderr, "backplane-img: images of format '%s' are not compressed\n", img_format(n));
    } else if (n) {
        status = unsafe ? 0 : co_rebase_safely(&o, n, base, fmt, compress, share);
        if (!status) {
            int r = BLK_DRIVER(n)->co_set_backing(n, *base ? base : NULL, fmt);
            status = r ? img_fail_errno(r, "cannot change the backing file of '%s'", argv[optind]) : 0;
        }
    }
    img_close(n);
    return status;
}
IMG_CMD(co_rebase, "rebase", rebase_opts, "FILE", "Gives an image another backing file, its contents unchanged");

/* ---- commit ---- */

struct layers {
    struct blk_node *top, *base;
    struct blk_use under;
    struct throttle limit;
};

/* The image with its chain, and the layer @name of it (NULL: the next one) for writing. Says what is wrong. */
static bool open_layers(struct layers *c, const char *file, const char *name, const struct img_opts *o)
{
    struct err e = ERR_INIT;
    c->top = img_open(file, o->fmt, o->cache, o, IMG_WRITE);
    if (!c->top)
        return false;
    char *path = name ? blk_path_beside(blk_node_filename(c->top), name) : NULL;
    c->base = name ? blk_chain_find(c->top, path) : blk_chain_next(c->top);
    free(path);
    if (!c->base || c->base == c->top) {
        bool other = name && blk_chain_next(c->top);
        fprintf(stderr, "backplane-img: '%s' has no backing file%s%s%s\n", file, other ? " '" : "", other ? name : "", other ? "'" : "");
        return false;
    }
    struct blk_use *link = &blk_chain_above(c->top, c->base)->backing;
    return (blk_use_change(link, BLK_PERM_READ, BLK_PERM_ALL, &e) && co_node_set_writable(c->base, true, &e) &&
            blk_use_add(&c->under, c->base, BLK_PERM_ALL, BLK_PERM_READ, "backplane-img", &e)) || (img_fail(&e, NULL), false);
}

/* What is above the base goes into it: all that the image shows and does not have from there. */
static int co_commit_layers(const struct img_opts *o, struct layers *c)
{
    uint64_t size = atomic_load(&c->top->size);
    uint8_t *buf = malloc(PIECE);
    int r = buf ? 0 : -ENOMEM;
    if (!r && atomic_load(&c->base->size) < size)
        r = co_node_resize(c->base, size);
    for (uint64_t at = 0; at < size && !r;) {
        struct blk_extent x;
        bool above;
        r = co_chain_map(c->top, c->base, at, size - at, &x, &above);
        uint64_t len = r ? 0 : !above || x.zero ? x.len : MIN(x.len, (uint64_t)PIECE);
        if (!r && above && x.zero)
            r = co_node_zero(c->base, at, len, BLK_ZERO_UNMAP);
        else if (!r && above) {
            co_throttle(&c->limit, NULL, true, len);
            r = co_img_read(c->top, at, len, buf);
            r = r ? r : co_img_write(c->base, at, len, buf);
        }
        at += len;
        img_progress(o, at, size);
    }
    free(buf);
    return r ? r : co_node_flush(c->base);
}

static const struct img_opt commit_opts[] = {
    { 'b', "base", "FILE", "into this image of those that it lies over; implies -d" },
    { 'd', "drop", NULL, "does not empty it" },
    { 'r', "rate-limit", "RATE", "bytes a second" },
    IMG_OPT_FORMAT,
    IMG_OPT_CACHE,
    IMG_OPT_PROGRESS,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_commit(int argc, char **argv)
{
    struct img_opts o = { 0 };
    struct layers c = { .limit.lock = PTHREAD_MUTEX_INITIALIZER };
    const char *base = NULL;
    bool keep = false;
    for (int k; (k = img_getopt(argc, argv, commit_opts, &o)) != -1;) {
        switch (k) {
        case 'b': base = optarg; keep = true; break;
        case 'd': keep = true; break;
        case 'r':
            if (!img_rate(optarg, &c.limit))
                return 1;
            break;
        default: return 1;
        }
    }
    if (optind + 1 != argc)
        return fprintf(stderr, "backplane-img: commit needs one file name\n"), 1;
    int status = 1, r = 0;
    if (open_layers(&c, argv[optind], base, &o)) {
        r = co_commit_layers(&o, &c);
        if (!r && !keep && BLK_DRIVER(c.top)->co_make_empty)
            r = BLK_DRIVER(c.top)->co_make_empty(c.top);
        img_progress_end(&o);
        status = r ? img_fail_errno(r, "cannot commit '%s'", argv[optind]) : 0;
        if (!status && !o.quiet)
            puts("Image committed.");
    }
    if (c.under.node)
        blk_use_del(&c.under);
    img_close(c.top);
    return status;
}
IMG_CMD(co_commit, "commit", commit_opts, "FILE", "Writes what an image holds into its backing file, and empties it");
