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

enum { PIECE = 1 << 20, MAX_CHAIN = 256 };

/* ---- rebase ---- */

/* Where old and new backing differ under what the overlay does not hold, the old bytes go into the overlay. */
static int co_keep_contents(const struct img_opts *o, struct blk_node *n, struct blk_node *old, struct blk_node *new)
{
    uint64_t size = atomic_load(&n->size), unit = BLK_DRIVER(n)->cluster_size ? BLK_DRIVER(n)->cluster_size(n) : 65536;
    uint8_t *a = malloc(PIECE), *b = malloc(PIECE);
    int r = a && b ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < size && !r;) {
        struct blk_extent x;
        r = co_node_map_layer(n, at, size - at, &x);
        uint64_t len = r ? 0 : x.below ? MIN(MIN(x.len, (uint64_t)PIECE), unit - at % unit) : x.len;
        if (!r && x.below) {
            r = old ? co_img_read(old, at, len, a) : (memset(a, 0, len), 0);
            r = r ? r : new ? co_img_read(new, at, len, b) : (memset(b, 0, len), 0);
            if (!r && memcmp(a, b, len))
                r = co_img_write(n, at, len, a);
        }
        at += len;
        img_progress(o, at, size);
    }
    free(a);
    free(b);
    img_progress_end(o);
    return r ? r : co_node_flush(n);
}

static int co_rebase_safely(const struct img_opts *o, struct blk_node *n, const char *base, const char *fmt)
{
    struct img_opts plain = *o;
    plain.image_opts = false;
    struct blk_node *old = img_open_backing(n, o, 0), *new = NULL;
    if (n->backing_name && !old)
        return 1;
    int status = 0;
    if (*base) {
        char *path = blk_path_beside(blk_node_filename(n), base);
        new = img_open(path, fmt, o->src_cache, &plain, 0);
        free(path);
        status = !new;
    }
    if (!status) {
        int r = co_keep_contents(o, n, old, new);
        status = r ? img_fail_errno(r, "cannot keep the contents of '%s'", blk_node_filename(n)) : 0;
    }
    img_close(old);
    img_close(new);
    return status;
}

static int co_rebase(int argc, char **argv)
{
    struct img_opts o = { 0 };
    const char *base = NULL, *fmt = NULL;
    bool unsafe = false;
    for (int c; (c = img_getopt(argc, argv, "b:F:u", &o)) != -1;) {
        switch (c) {
        case 'b': base = optarg; break;
        case 'F': fmt = optarg; break;
        case 'u': unsafe = true; break;
        default: return 1;
        }
    }
    if (optind + 1 != argc || !base)
        return fprintf(stderr, "backplane-img: rebase needs -b BACKING (\"\" for none) and a file name\n"), 1;
    if (*base && !fmt)
        return fprintf(stderr, "backplane-img: the backing file's format is missing\nhint: -F FORMAT\n"), 1;
    struct blk_use use = { 0 };
    struct blk_node *n = img_open(argv[optind], o.fmt, o.cache, &o, IMG_WRITE | IMG_ONE_LAYER | IMG_LOOK);
    int status = 1;
    if (n && !BLK_DRIVER(n)->co_set_backing) {
        fprintf(stderr, "backplane-img: images of format '%s' have no backing file\n", img_format(n));
    } else if (n && img_claim(&use, n, BLK_PERM_ALL)) {
        status = unsafe ? 0 : co_rebase_safely(&o, n, base, fmt);
        if (!status) {
            int r = BLK_DRIVER(n)->co_set_backing(n, *base ? base : NULL, fmt);
            status = r ? img_fail_errno(r, "cannot change the backing file of '%s'", argv[optind]) : 0;
        }
        blk_use_del(&use);
    }
    img_close(n);
    return status;
}
IMG_CMD(co_rebase, "rebase", "[-f FORMAT] [-u] -b BACKING [-F FORMAT] FILE", "Gives an image another backing file, its contents unchanged (-u: only its name)");

/* ---- commit ---- */

struct chain { struct blk_node *n[MAX_CHAIN]; unsigned count; };

/* From the top down to @base (NULL: the next one), each layer alone; the last for writing. */
static bool open_chain(struct chain *c, const char *top, const char *base, const struct img_opts *o)
{
    struct blk_node *n = img_open(top, o->fmt, o->cache, o, IMG_WRITE | IMG_ONE_LAYER);
    if (!n)
        return false;
    c->n[c->count++] = n;
    while (c->count < MAX_CHAIN) {
        if (!n->backing_name) {
            fprintf(stderr, base && c->count > 1 ? "backplane-img: '%s' has no backing file '%s'\n" : "backplane-img: '%s' has no backing file\n", top, base);
            return false;
        }
        char *path = blk_path_beside(blk_node_filename(n), n->backing_name);
        bool last = !base || !strcmp(base, n->backing_name) || !strcmp(base, path);
        free(path);
        n = img_open_backing(n, o, IMG_ONE_LAYER | (last ? IMG_WRITE : 0));
        if (!n)
            return false;
        c->n[c->count++] = n;
        if (last)
            return true;
    }
    return fprintf(stderr, "backplane-img: the chain of backing files is longer than %u\n", MAX_CHAIN), false;
}

static int co_commit_layer(const struct img_opts *o, struct throttle *limit, struct blk_node *from, struct blk_node *to)
{
    uint64_t size = atomic_load(&from->size);
    uint8_t *buf = malloc(PIECE);
    int r = buf ? 0 : -ENOMEM;
    if (!r && atomic_load(&to->size) < size)
        r = co_node_resize(to, size);
    for (uint64_t at = 0; at < size && !r;) {
        struct blk_extent x;
        r = co_node_map_layer(from, at, size - at, &x);
        uint64_t len = r ? 0 : x.below || x.zero ? x.len : MIN(x.len, (uint64_t)PIECE);
        if (!r && !x.below && x.zero)
            r = co_node_zero(to, at, len, BLK_ZERO_UNMAP);
        else if (!r && !x.below) {
            co_throttle(limit, true, len);
            r = co_img_read(from, at, len, buf);
            r = r ? r : co_img_write(to, at, len, buf);
        }
        at += len;
        img_progress(o, at, size);
    }
    free(buf);
    return r ? r : co_node_flush(to);
}

static int co_commit(int argc, char **argv)
{
    struct img_opts o = { 0 };
    struct chain c = { .count = 0 };
    struct throttle limit = { .lock = PTHREAD_MUTEX_INITIALIZER };
    const char *base = NULL;
    bool keep = false;
    for (int k; (k = img_getopt(argc, argv, "b:dr:", &o)) != -1;) {
        switch (k) {
        case 'b': base = optarg; keep = true; break;
        case 'd': keep = true; break;
        case 'r':
            if (!img_rate(optarg, &limit))
                return 1;
            break;
        default: return 1;
        }
    }
    if (optind + 1 != argc)
        return fprintf(stderr, "backplane-img: commit needs one file name\n"), 1;
    int status = 1, r = 0;
    struct blk_use top = { 0 }, bottom = { 0 };
    if (open_chain(&c, argv[optind], base, &o) && img_claim(&top, c.n[0], BLK_PERM_ALL) && img_claim(&bottom, c.n[c.count - 1], BLK_PERM_ALL)) {
        for (unsigned i = c.count - 1; i-- > 0 && !r;)
            r = co_commit_layer(&o, &limit, c.n[i], c.n[c.count - 1]);
        if (!r && !keep && BLK_DRIVER(c.n[0])->co_make_empty)
            r = BLK_DRIVER(c.n[0])->co_make_empty(c.n[0]);
        img_progress_end(&o);
        status = r ? img_fail_errno(r, "cannot commit '%s'", argv[optind]) : 0;
        if (!status && !o.quiet)
            puts("Image committed.");
    }
    if (top.node)
        blk_use_del(&top);
    if (bottom.node)
        blk_use_del(&bottom);
    for (unsigned i = 0; i < c.count; i++)
        img_close(c.n[i]);
    return status;
}
IMG_CMD(co_commit, "commit", "[-f FORMAT] [-b BASE] [-d] [-r RATE] FILE", "Writes what an image holds into its backing file, and empties it (-d: does not)");
