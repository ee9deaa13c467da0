/* SPDX-License-Identifier: MIT */
/* bitmap: the dirty bitmaps that an image keeps. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "block/bitmap.h"
#include "img/img.h"

enum { MAX_ACTS = 64 };
struct act { int op; const char *source; };
struct bitmap_args { struct img_opts o; struct act acts[MAX_ACTS]; unsigned n; const char *src_file, *src_fmt; uint64_t granularity; bool bad; };

static void note(struct bitmap_args *a, int op, const char *source)
{
    if (a->n == MAX_ACTS) {
        a->bad = true;
        img_refuse("too many actions");
        return;
    }
    a->acts[a->n++] = (struct act){ op, source };
}

static const struct img_opt bitmap_opts[] = {
    { OPT_BM_ADD, "add", NULL, "makes the bitmap, which records from now on" },
    { OPT_BM_REMOVE, "remove", NULL, "deletes the bitmap" },
    { OPT_BM_CLEAR, "clear", NULL, "nothing in it is dirty" },
    { OPT_BM_ENABLE, "enable", NULL, "it records what is written" },
    { OPT_BM_DISABLE, "disable", NULL, "it records no longer" },
    { OPT_BM_MERGE, "merge", "SOURCE", "what is dirty in the bitmap SOURCE, is dirty in it, too" },
    { 'b', "source-file", "FILE", "SOURCE is a bitmap of this image" },
    { 'F', "source-format", "FORMAT", "the format of the image of -b" },
    { 'g', "granularity", "SIZE", "what a bit of a new bitmap stands for" },
    IMG_OPT_FORMAT,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static bool parse(struct bitmap_args *a, int argc, char **argv)
{
    for (int c; (c = img_getopt(argc, argv, bitmap_opts, &a->o)) != -1;) {
        switch (c) {
        case 'b': a->src_file = optarg; break;
        case 'F': a->src_fmt = optarg; break;
        case 'g': a->bad |= !img_size(optarg, &a->granularity); break;
        case OPT_BM_ADD: case OPT_BM_REMOVE: case OPT_BM_CLEAR: case OPT_BM_ENABLE: case OPT_BM_DISABLE: note(a, c, NULL); break;
        case OPT_BM_MERGE: note(a, c, optarg); break;
        default: return false;
        }
    }
    if (a->bad)
        return false;
    if (optind + 2 != argc || !a->n)
        return img_refuse("bitmap needs an action (--add, --remove, --clear, --enable, --disable, --merge SOURCE), a file name and a bitmap's name"), false;
    bool adds = false, merges = false;
    for (unsigned i = 0; i < a->n; i++) {
        adds |= a->acts[i].op == OPT_BM_ADD;
        merges |= a->acts[i].op == OPT_BM_MERGE;
    }
    if ((a->granularity && !adds) || (a->src_file && !merges) || (a->src_fmt && !a->src_file))
        return img_refuse(a->granularity && !adds ? "-g is for --add" : a->src_file ? "-b is for --merge" : "-F is for -b"), false;
    return true;
}

static struct blk_bitmap *need(struct blk_node *n, const char *name, struct err *e)
{
    struct blk_bitmap *b = blk_bitmap_find(n, name);
    if (!b)
        err_set(e, ERR_NOT_FOUND, "'%s' has no bitmap '%s'", blk_node_filename(n), name);
    return b && blk_bitmap_usable(b, true, e) ? b : NULL;
}

static bool co_merge(struct blk_bitmap *to, struct blk_node *from, const char *name, struct err *e)
{
    struct blk_bitmap *b = blk_bitmap_find(from, name);
    if (!b)
        return err_set(e, ERR_NOT_FOUND, "'%s' has no bitmap '%s'", blk_node_filename(from), name);
    if (!blk_bitmap_usable(b, false, e))
        return false;
    if (b->map.size != to->map.size)
        return err_set(e, ERR_VALUE, "bitmap '%s' is for %llu bytes, '%s' for %llu", name, (unsigned long long)b->map.size, to->name,
                       (unsigned long long)to->map.size);
    dirty_merge(&to->map, &b->map);
    return true;
}

static struct blk_bitmap *co_add(struct blk_node *n, const char *name, uint64_t granularity, struct err *e)
{
    struct blk_bitmap *b = blk_bitmap_can_persist(n, e) ? co_bitmap_new(n, name, granularity, e) : NULL;
    if (b)
        b->persistent = true;
    return b;
}

/* ---- convert --bitmaps ---- */

bool img_bitmaps_usable(struct blk_node *n, bool skip_broken)
{
    struct blk_bitmap *b;
    if (!BLK_DRIVER(n)->co_store_bitmaps)
        return fprintf(stderr, "backplane-img: --bitmaps: images of format '%s' keep no bitmaps\n", img_format(n)), false;
    list_for_each(b, &n->bitmaps, link) {
        if (!b->persistent || !b->inconsistent)
            continue;
        if (!skip_broken) {
            fprintf(stderr, "backplane-img: bitmap '%s' of '%s' is inconsistent: its image was not closed properly\n"
                            "hint: --skip-broken-bitmaps leaves it out; backplane-img bitmap --remove deletes it\n", b->name, blk_node_filename(n));
            return false;
        }
        fprintf(stderr, "backplane-img: warning: bitmap '%s' is inconsistent and left out\n", b->name);
    }
    return true;
}

bool co_img_bitmaps_copy(struct blk_node *src, struct blk_node *dst)
{
    struct err e = ERR_INIT;
    struct blk_bitmap *b, *to;
    bool ok = true;
    list_for_each(b, &src->bitmaps, link) {
        if (!b->persistent || b->inconsistent)
            continue;
        to = co_add(dst, b->name, dirty_granularity(&b->map), &e);
        if (!to)
            return img_fail(&e, "--bitmaps"), false;
        dirty_merge(&to->map, &b->map);
        to->recording = b->recording;
    }
    if (BLK_DRIVER(dst)->co_store_bitmaps)
        ok = BLK_DRIVER(dst)->co_store_bitmaps(dst, false, &e) || (img_fail(&e, "--bitmaps"), false);
    return ok;
}

/* ---- bitmap ---- */

static bool co_act(const struct bitmap_args *a, const struct act *act, struct blk_node *n, struct blk_node *src, const char *name, struct err *e)
{
    struct blk_bitmap *b = NULL;
    if (act->op == OPT_BM_ADD)
        return co_add(n, name, a->granularity, e);
    if (act->op == OPT_BM_REMOVE) {
        b = blk_bitmap_find(n, name);           /* an inconsistent one, too */
        if (!b)
            return err_set(e, ERR_NOT_FOUND, "'%s' has no bitmap '%s'", blk_node_filename(n), name);
        co_bitmap_free(b);
        return true;
    }
    b = need(n, name, e);
    if (!b)
        return false;
    switch (act->op) {
    case OPT_BM_CLEAR: dirty_clear(&b->map, 0, b->map.size); return true;
    case OPT_BM_ENABLE: b->recording = true; return true;
    case OPT_BM_DISABLE: b->recording = false; return true;
    default: return co_merge(b, src, act->source, e);
    }
}

static int co_bitmap(int argc, char **argv)
{
    struct bitmap_args a = { .o = { 0 } };
    struct err e = ERR_INIT;
    if (!parse(&a, argc, argv))
        return 1;
    const char *file = argv[optind], *name = argv[optind + 1];
    struct blk_node *n = img_open(file, a.o.fmt, a.o.cache, &a.o, IMG_WRITE | IMG_ONE_LAYER), *src = n;
    if (n && a.src_file) {
        struct img_opts plain = a.o;
        plain.image_opts = false;
        src = img_open(a.src_file, a.src_fmt, a.o.src_cache, &plain, IMG_ONE_LAYER);
    }
    bool ok = n && src;
    int status = !ok;
    for (unsigned i = 0; i < a.n && ok; i++)
        ok = co_act(&a, &a.acts[i], n, src, name, &e);
    if (ok && BLK_DRIVER(n)->co_store_bitmaps)
        ok = BLK_DRIVER(n)->co_store_bitmaps(n, false, &e);
    if (!ok && !status)
        status = img_fail(&e, NULL);
    if (src != n)
        img_close(src);
    img_close(n);
    return status;
}
IMG_CMD(co_bitmap, "bitmap", bitmap_opts, "FILE BITMAP",
        "Makes, removes and changes the dirty bitmaps of an image: what is asked for in its order");
