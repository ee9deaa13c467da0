/* SPDX-License-Identifier: MIT */
/* create, resize, measure. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "block/backing.h"
#include "block/bitmap.h"
#include "core/backend.h"
#include "img/img.h"

/* The size of the backing file @name as seen from @image. */
static bool backing_size(const char *image, const char *name, const char *fmt, const struct img_opts *o, uint64_t *size)
{
    char *path = blk_path_beside(image, name);
    struct img_opts plain = *o;
    plain.image_opts = false;
    struct blk_node *b = img_open(path, fmt, NULL, &plain, IMG_UNLOCKED | IMG_LOOK);
    if (b)
        *size = atomic_load(&b->size);
    img_close(b);
    free(path);
    return b != NULL;
}

/* The size, of -o or @text (may be NULL), in whole sectors: a guest could not see the rest. */
static bool take_size(json_t *opts, const char *text)
{
    uint64_t size;
    const char *of_o = json_string_value(json_object_get(opts, "size"));
    if (of_o && text)
        return fprintf(stderr, "backplane-img: the size is given twice: -o size=%s, and %s\n", of_o, text), false;
    text = text ? text : of_o;
    if (!text)
        return true;
    if (!img_size(text, &size))
        return false;
    json_object_set_new(opts, "size", json_integer((json_int_t)MIN(align_up(size, 512), (uint64_t)INT64_MAX & ~511ULL)));
    return true;
}

/* What was made, with its options as -o takes them. */
static void say_made(const char *name, const char *fmt, json_t *opts)
{
    char buf[32];
    const char *k;
    json_t *unused;
    printf("Formatting '%s', fmt=%s", name, fmt);
    json_object_foreach(opts, k, unused) {
        printf(" %s=", k);
        for (const char *v = opt_text(opts, k, buf); v && *v; v++)
            fputs((char[]){ *v, *v == ',' ? ',' : '\0', '\0' }, stdout);
    }
    putchar('\n');
}

static const struct img_opt create_opts[] = {
    { 'f', "format", "FORMAT", "the format of the image (raw)" },
    { 'o', "options", "OPTIONS", "as NAME=VALUE,...; help lists what there is" },
    { 'b', "backing", "FILE", "the image lies over this one" },
    { 'F', "backing-format", "FORMAT", "the format of the image of -b" },
    { 'B', NULL, "FORMAT", NULL },
    { 'u', "backing-unsafe", NULL, "the image of -b need not be there" },
    { OPT_OBJECT, "object", "TYPE,id=ID,...", "makes a secret for the image" },
    IMG_OPT_FORCE,
    IMG_OPT_QUIET,
    IMG_OPT_END,
};

static int co_create(int argc, char **argv)
{
    struct img_opts o = { .fmt = "raw" };
    json_t *opts = json_object();
    bool unsafe = false, bad = false;
    uint64_t size = 0;
    for (int c; !bad && (c = img_getopt(argc, argv, create_opts, &o)) != -1;) {
        switch (c) {
        case 'o': bad = !img_parse_o(optarg, opts); break;
        case 'b': json_object_set_new(opts, "backing_file", json_string(optarg)); break;
        case 'F': case 'B': json_object_set_new(opts, "backing_fmt", json_string(optarg)); break;
        case 'u': unsafe = true; break;
        default: bad = true;
        }
    }
    if (!bad && opt_asks_help(opts)) {
        bad = img_help_o(o.fmt);
        json_decref(opts);
        return bad;
    }
    if (!bad && (optind >= argc || optind + 2 < argc)) {
        fprintf(stderr, "backplane-img: create needs a file name and a size\n");
        bad = true;
    }
    const char *name = bad ? NULL : argv[optind], *back = json_string_value(json_object_get(opts, "backing_file"));
    if (!bad)
        bad = !take_size(opts, optind + 1 < argc ? argv[optind + 1] : NULL);
    const char *fmt = json_string_value(json_object_get(opts, "backing_fmt"));
    if (!bad && back && fmt && (!unsafe || !json_object_get(opts, "size"))) {
        bad = !backing_size(name, back, fmt, &o, &size);
        if (!bad && !json_object_get(opts, "size"))
            json_object_set_new(opts, "size", json_integer((json_int_t)size));
    }
    if (!bad && back && !fmt)
        bad = img_refuse("-b: the backing file's format is missing (-F FORMAT)");
    if (!bad && !json_object_get(opts, "size")) {
        fprintf(stderr, "backplane-img: create needs a size\n");
        bad = true;
    }
    struct err e = ERR_INIT;
    if (o.force && strcmp(o.fmt, "raw") && json_object_get(opts, "data_file"))
        json_object_set_new(opts, "force", json_true());
    if (!bad && !blk_image_create(name, o.fmt, opts, o.force, &e))
        bad = (img_fail(&e, NULL), true);
    if (!bad && !o.quiet)
        say_made(name, o.fmt, opts);
    json_decref(opts);
    return bad;
}
IMG_CMD(co_create, "create", create_opts, "FILE [SIZE]", "Makes an image");

static bool parse_preallocation(const char *text, enum blk_prealloc *how)
{
    for (int i = 0; blk_prealloc_names[i]; i++)
        if (!strcmp(text, blk_prealloc_names[i]))
            return *how = (enum blk_prealloc)i, true;
    return img_refuse("--preallocation is off, metadata, falloc or full"), false;
}

static const struct img_opt resize_opts[] = {
    IMG_OPT_FORMAT,
    { OPT_SHRINK, "shrink", NULL, "what lies behind the new end is lost" },
    { OPT_PREALLOC, "preallocation", "off|metadata|falloc|full", "what is added has its place in the file" },
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

/* "-1G" is no option: the first such word, taken out of the line. */
static const char *take_minus(int *argc, char **argv)
{
    const char *found = NULL;
    int n = 0;
    for (int i = 0; i < *argc; i++) {
        if (!found && argv[i][0] == '-' && argv[i][1] >= '0' && argv[i][1] <= '9')
            found = argv[i];
        else
            argv[n++] = argv[i];
    }
    *argc = n;
    return found;
}

/* Why an image keeps its size, where it is known. */
static int resize_failed(struct blk_node *n, const char *name, int r)
{
    const struct blk_snap_ops *snap = BLK_DRIVER(n)->snap;
    json_t *spec = BLK_DRIVER(n)->info ? BLK_DRIVER(n)->info(n) : NULL;
    bool v2 = str_eq(json_string_value(json_object_get(json_object_get(spec, "data"), "compat")), "0.10");
    struct blk_snap *v = NULL;
    unsigned count = 0;
    json_decref(spec);
    img_fail_errno(r, "cannot resize '%s'", name);
    if (r == -ENOTSUP && v2 && snap && !snap->list(n, &v, &count) && count)
        fprintf(stderr, "hint: snapshots of version 2 need not know their size: amend -o compat=1.1\n");
    blk_snaps_free(v, count);
    return 1;
}

static int co_resize(int argc, char **argv)
{
    struct img_opts o = { 0 };
    bool shrink = false, bad = false;
    enum blk_prealloc how = BLK_PREALLOC_OFF;
    const char *text = take_minus(&argc, argv);
    for (int c; !bad && (c = img_getopt(argc, argv, resize_opts, &o)) != -1;) {
        if (c == OPT_SHRINK)
            shrink = true;
        else if (c == OPT_PREALLOC)
            bad = !parse_preallocation(optarg, &how);
        else
            bad = true;
    }
    if (bad)
        return 1;
    if (optind + (text ? 1 : 2) != argc)
        return img_refuse("resize needs a file name and a size");
    text = text ? text : argv[optind + 1];
    uint64_t v = 0, size;
    char sign = text[0] == '+' || text[0] == '-' ? text[0] : 0;
    if (!img_size(text + (sign != 0), &v))
        return 1;
    struct blk_node *n = img_open(argv[optind], o.fmt, o.cache, &o, IMG_WRITE);
    if (!n)
        return 1;
    int status = 1;
    struct err e = ERR_INIT;
    uint64_t old = atomic_load(&n->size);
    size = sign == '+' ? old + v : sign == '-' ? (v > old ? 0 : old - v) : v;
    bool raw = !strcmp(img_format(n), "raw");       /* the file has any size, the disk a whole number of sectors */
    if (!size && !(sign == '-' && v > old)) {
        img_refuse("the new size must be positive");
    } else if (sign == '-' && v > old) {
        fprintf(stderr, "backplane-img: the image has %llu bytes only\n", (unsigned long long)old);
    } else if (!raw && size % 512) {
        fprintf(stderr, "backplane-img: the size of a %s image is a multiple of 512\n", img_format(n));
    } else if (size < old && !shrink) {
        fprintf(stderr, "backplane-img: this would cut off data behind byte %llu\nhint: --shrink\n", (unsigned long long)size);
    } else if (how && size < old) {
        img_refuse("--preallocation: it is for growing");
    } else if (!blk_bitmaps_fit(n, size, &e)) {
        img_fail(&e, "resize");
    } else {
        int r = how && size > old && !BLK_DRIVER(n)->co_preallocate ? -ENOTSUP : co_node_resize(n, size);
        if (!r && how && size > old && (r = BLK_DRIVER(n)->co_preallocate(n, old, how)))
            co_node_resize(n, old);
        r = r ? r : co_node_flush(n);
        status = r ? resize_failed(n, argv[optind], r) : 0;
    }
    img_close(n);
    if (!status && !o.quiet)
        puts("Image resized.");
    return status;
}
IMG_CMD(co_resize, "resize", resize_opts, "FILE [+|-]SIZE", "Changes the size of the disk");

/* ---- measure ---- */

/* Bytes of data in units of @unit that are not known to be zeroes. */
static int co_data_bytes(struct blk_node *n, uint64_t unit, uint64_t *out)
{
    uint64_t size = atomic_load(&n->size), end = 0;
    *out = 0;
    for (uint64_t at = 0; at < size;) {
        struct blk_extent x;
        int r = co_node_map(n, at, size - at, &x);
        if (r)
            return r;
        if (x.data && !x.zero) {
            uint64_t a = MAX(align_down(at, unit), end);
            end = align_up(at + x.len, unit);
            *out += end > a ? end - a : 0;
        }
        at += x.len;
    }
    return 0;
}

/* Those that are kept, in clusters of @unit: of each its bits, its table, and all together the directory (qcow2's "Bitmaps extension"). */
static uint64_t bitmap_bytes(const struct blk_node *n, uint64_t unit)
{
    uint64_t all = 0, dir = 0;
    struct blk_bitmap *b;
    list_for_each(b, &n->bitmaps, link) {
        if (!b->persistent)
            continue;
        uint64_t grain = dirty_granularity(&b->map), bits = (atomic_load(&n->size) + grain - 1) / grain, data = align_up((bits + 7) / 8, unit);
        all += data + align_up(data / unit * 8, unit);
        dir += align_up(24 + strlen(b->name), 8);
    }
    return all + align_up(dir, unit);
}

static bool measure(const char *fmt, json_t *opts, uint64_t size, struct blk_measure *m)
{
    struct err e = ERR_INIT;
    const struct obj_class *c = backend_find(&blk_node_class, fmt, &e);
    if (!c)
        return img_fail(&e, NULL), false;
    bool (*fn)(json_t *, struct blk_measure *, struct err *) = ((const struct blk_driver *)c)->measure;
    if (!fn) {
        fprintf(stderr, "backplane-img: images of format '%s' cannot be measured\n", fmt);
        return false;
    }
    json_object_set_new(opts, "size", json_integer((json_int_t)size));
    return fn(opts, m, &e) || (img_fail(&e, NULL), false);
}

static const struct img_opt measure_opts[] = {
    { 'f', "source-format", "FORMAT", "the format of the image; else it is told by its signature" },
    { 'f', "format", "FORMAT", NULL },
    { 'O', "target-format", "FORMAT", "the format that it would be converted to (raw)" },
    { 'o', "options", "OPTIONS", "how that would be made, as NAME=VALUE,..." },
    { 'o', "target-format-options", "OPTIONS", NULL },
    { 'l', "snapshot", "SNAPSHOT", "of a snapshot inside the image" },
    { 's', "size", "SIZE", "of an empty disk" },
    IMG_OPT_SHARE,
    IMG_OPT_OUTPUT,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_measure(int argc, char **argv)
{
    struct img_opts o = { 0 };
    struct blk_measure m;
    const char *target = "raw", *snapshot = NULL;
    uint64_t size = 0, data = 0;
    json_t *opts = json_object();
    bool bad = false, has_size = false;
    for (int c; !bad && (c = img_getopt(argc, argv, measure_opts, &o)) != -1;) {
        switch (c) {
        case 'O': target = optarg; break;
        case 'o': bad = !img_parse_o(optarg, opts); break;
        case 'l': snapshot = optarg; break;
        case 's': bad = !img_size(optarg, &size); has_size = true; break;
        default: bad = true;
        }
    }
    if (!bad && (has_size ? optind < argc || snapshot || o.fmt || o.image_opts : optind + 1 != argc))
        bad = img_refuse("measure needs --size, or a file name and perhaps -f and -l");
    struct blk_node *n = bad || has_size ? NULL : img_open(argv[optind], o.fmt, o.src_cache, &o, 0);
    bad |= (!has_size && !n) || (snapshot && !co_img_show_snapshot(n, snapshot));
    bad = bad || !measure(target, opts, n ? atomic_load(&n->size) : size, &m);
    int r = !bad && n && !m.whole ? co_data_bytes(n, m.unit, &data) : 0;
    if (!bad && !r) {
        uint64_t required = m.whole ? m.full : m.overhead + data;
        bool bitmaps = n && BLK_DRIVER(n)->co_store_bitmaps && BLK_DRIVER(n)->can_keep_bitmaps(n) && !strcmp(target, "qcow2");
        json_t *kept = bitmaps ? json_integer((json_int_t)bitmap_bytes(n, m.unit)) : NULL;
        json_t *j = json_pack("{s:o*, s:I, s:I}", "bitmaps", kept, "required", (json_int_t)required, "fully-allocated", (json_int_t)m.full);
        if (img_is_json(&o)) {
            img_print_json(json_incref(j));
        } else {
            printf("required size: %llu\nfully allocated size: %llu\n", (unsigned long long)required, (unsigned long long)m.full);
            if (kept)
                printf("bitmaps size: %lld\n", (long long)json_integer_value(kept));
        }
        json_decref(j);
    }
    img_close(n);
    json_decref(opts);
    return r ? img_fail_errno(r, "cannot read '%s'", argv[optind]) : bad;
}
IMG_CMD(co_measure, "measure", measure_opts, "[FILE]", "Tells how much space a converted image would need");
