/* SPDX-License-Identifier: MIT */
/* create, resize, measure. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
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

static bool wants_help(json_t *opts) { return json_object_get(opts, "help") || json_object_get(opts, "?"); }

static int co_create(int argc, char **argv)
{
    struct img_opts o = { .fmt = "raw" };
    json_t *opts = json_object();
    bool unsafe = false, bad = false;
    uint64_t size = 0;
    for (int c; !bad && (c = img_getopt(argc, argv, "o:b:F:u", &o)) != -1;) {
        switch (c) {
        case 'o': bad = !img_parse_o(optarg, opts); break;
        case 'b': json_object_set_new(opts, "backing_file", json_string(optarg)); break;
        case 'F': json_object_set_new(opts, "backing_fmt", json_string(optarg)); break;
        case 'u': unsafe = true; break;
        default: bad = true;
        }
    }
    if (!bad && wants_help(opts)) {
        img_help_o(o.fmt);
        json_decref(opts);
        return 0;
    }
    if (!bad && (optind >= argc || optind + 2 < argc)) {
        fprintf(stderr, "backplane-img: create needs a file name and a size\n");
        bad = true;
    }
    const char *name = bad ? NULL : argv[optind], *back = json_string_value(json_object_get(opts, "backing_file"));
    if (!bad && optind + 1 < argc)
        bad = !img_size(argv[optind + 1], &size) || (json_object_set_new(opts, "size", json_integer((json_int_t)size)), false);
    const char *fmt = json_string_value(json_object_get(opts, "backing_fmt"));
    if (!bad && back && fmt && (!unsafe || !json_object_get(opts, "size"))) {
        bad = !backing_size(name, back, fmt, &o, &size);
        if (!bad && !json_object_get(opts, "size"))
            json_object_set_new(opts, "size", json_integer((json_int_t)size));
    }
    if (!bad && !json_object_get(opts, "size")) {
        fprintf(stderr, "backplane-img: create needs a size\n");
        bad = true;
    }
    struct err e = ERR_INIT;
    if (o.force && strcmp(o.fmt, "raw") && json_object_get(opts, "data_file"))
        json_object_set_new(opts, "force", json_true());
    if (!bad && !blk_image_create(name, o.fmt, opts, o.force, &e))
        bad = (img_fail(&e, NULL), true);
    if (!bad && !o.quiet) {
        char *text = json_dumps(opts, JSON_COMPACT);
        printf("Formatting '%s', fmt=%s %s\n", name, o.fmt, text);
        free(text);
    }
    json_decref(opts);
    return bad;
}
IMG_CMD(co_create, "create", "[-f FORMAT] [-b BACKING -F FORMAT] [-u] [-o OPTIONS] FILE [SIZE]", "Makes an image");

static int co_resize(int argc, char **argv)
{
    struct img_opts o = { 0 };
    bool shrink = false, bad = false;
    if (argc > 2 && argv[argc - 1][0] == '-' && argv[argc - 1][1] >= '0' && argv[argc - 1][1] <= '9')
        argc--;                         /* "-1G" is no option */
    else
        argc--;
    const char *text = argv[argc];
    for (int c; !bad && (c = img_getopt(argc, argv, "", &o)) != -1;) {
        if (c == OPT_SHRINK)
            shrink = true;
        else if (c != OPT_PREALLOC || strcmp(optarg, "off"))
            bad = true;
    }
    if (bad || optind + 1 != argc || argc < 2) {
        fprintf(stderr, "backplane-img: resize needs a file name and a size\n");
        return 1;
    }
    uint64_t v = 0, size;
    char sign = text[0] == '+' || text[0] == '-' ? text[0] : 0;
    if (!img_size(text + (sign != 0), &v))
        return 1;
    struct blk_node *n = img_open(argv[optind], o.fmt, o.cache, &o, IMG_WRITE);
    struct blk_use use = { 0 };
    if (!n)
        return 1;
    int status = 1;
    if (img_claim(&use, n, BLK_PERM_ALL)) {
        uint64_t old = atomic_load(&n->size);
        size = sign == '+' ? old + v : sign == '-' ? (v > old ? 0 : old - v) : v;
        size = align_up(size, 512);
        if (sign == '-' && v > old) {
            fprintf(stderr, "backplane-img: the image has %llu bytes only\n", (unsigned long long)old);
        } else if (size < old && !shrink) {
            fprintf(stderr, "backplane-img: this would cut off data behind byte %llu\nhint: --shrink\n", (unsigned long long)size);
        } else {
            int r = co_node_resize(n, size);
            r = r ? r : co_node_flush(n);
            status = r ? img_fail_errno(r, "cannot resize '%s'", argv[optind]) : 0;
        }
        blk_use_del(&use);
    }
    img_close(n);
    if (!status && !o.quiet)
        puts("Image resized.");
    return status;
}
IMG_CMD(co_resize, "resize", "[-f FORMAT] [--shrink] FILE [+|-]SIZE", "Changes the size of the disk");

/* ---- measure ---- */

struct measured { uint64_t required, full; };

/* Metadata of a fully allocated qcow2 image: header, L1, L2, refcount table and blocks, all in whole clusters. */
static uint64_t qcow2_metadata(uint64_t size, uint64_t cs, uint64_t entry, unsigned refbits)
{
    uint64_t clusters = align_up(size, cs) / cs, l2 = align_up(clusters, cs / entry) * entry, l1 = align_up(l2 / cs * 8, cs);
    uint64_t meta = cs + l2 + l1, used = meta / cs + clusters, blocks = 0, table = 0, n = 0, last;
    do {
        last = n;
        blocks = (used + table + blocks + cs * 8 / refbits - 1) / (cs * 8 / refbits);
        table = (blocks + cs / 8 - 1) / (cs / 8);
        n = used + blocks + table;
    } while (n != last);
    return meta + (blocks + table) * cs;
}

/* Bytes of data in units of @cs that are not known to be zeroes. */
static int co_data_bytes(struct blk_node *n, uint64_t cs, uint64_t *out)
{
    uint64_t size = atomic_load(&n->size), end = 0;
    *out = 0;
    for (uint64_t at = 0; at < size;) {
        struct blk_extent x;
        int r = co_node_map(n, at, size - at, &x);
        if (r)
            return r;
        if (x.data && !x.zero) {
            uint64_t a = MAX(align_down(at, cs), end);
            end = align_up(at + x.len, cs);
            *out += end > a ? end - a : 0;
        }
        at += x.len;
    }
    return 0;
}

static int co_measure(int argc, char **argv)
{
    struct img_opts o = { 0 };
    json_t *opts = json_object();
    const char *target = "raw";
    uint64_t size = 0, data = 0, cs = 65536, bits = 16;
    bool bad = false, has_size = false, ext = false, bitmaps = false;
    for (int c; !bad && (c = img_getopt(argc, argv, "O:o:l:", &o)) != -1;) {
        switch (c) {
        case 'O': target = optarg; break;
        case 'o': bad = !img_parse_o(optarg, opts); break;
        case OPT_SIZE: bad = !img_size(optarg, &size); has_size = true; break;
        default: bad = true;
        }
    }
    bool qcow2 = !strcmp(target, "qcow2");
    const char *t = json_string_value(json_object_get(opts, "cluster_size"));
    if (!bad && t)
        bad = !img_size(t, &cs) || !is_pow2(cs) || cs < 512 || cs > 2 * MiB;
    t = json_string_value(json_object_get(opts, "refcount_bits"));
    if (!bad && t)
        bad = !parse_u64(t, &bits) || !is_pow2(bits) || bits > 64;
    t = json_string_value(json_object_get(opts, "extended_l2"));
    if (!bad && t)
        bad = !parse_bool(t, &ext);
    json_decref(opts);
    if (bad || (!qcow2 && strcmp(target, "raw")) || has_size == (optind < argc)) {
        fprintf(stderr, "backplane-img: measure needs --size or a file name; targets are raw and qcow2\n");
        return 1;
    }
    if (!has_size) {
        struct blk_node *n = img_open(argv[optind], o.fmt, o.src_cache, &o, 0);
        if (!n)
            return 1;
        size = atomic_load(&n->size);
        bitmaps = qcow2 && BLK_DRIVER(n)->snap;     /* such a source could hold some */
        int r = co_data_bytes(n, qcow2 ? cs : 512, &data);
        img_close(n);
        if (r)
            return img_fail_errno(r, "cannot read '%s'", argv[optind]);
    }
    struct measured m = { size, size };
    if (qcow2) {
        m.full = qcow2_metadata(size, cs, ext ? 16 : 8, (unsigned)bits) + align_up(size, cs);
        m.required = m.full - align_up(size, cs) + data;
    }
    if (img_is_json(&o)) {
        json_t *j = json_pack("{s:I, s:I}", "required", (json_int_t)m.required, "fully-allocated", (json_int_t)m.full);
        if (bitmaps)
            json_object_set_new(j, "bitmaps", json_integer(0));
        img_print_json(j);
    } else {
        printf("required size: %llu\nfully allocated size: %llu\n", (unsigned long long)m.required, (unsigned long long)m.full);
    }
    return 0;
}
IMG_CMD(co_measure, "measure", "[-O FORMAT] [-o OPTIONS] --size SIZE | [-f FORMAT] FILE", "Tells how much space a converted image would need");
