/* SPDX-License-Identifier: MIT */
/* dd: blocks of an image into a new one. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "img/img.h"

enum { PIECE = 2 << 20 };

static const char *operand(const char *arg, const char *key)
{
    size_t n = strlen(key);
    return !strncmp(arg, key, n) && arg[n] == '=' ? arg + n + 1 : NULL;
}

static int co_dd_copy(struct blk_node *in, const char *out, const char *fmt, const struct img_opts *o, uint64_t skip, uint64_t len)
{
    struct err e = ERR_INIT;
    json_t *opts = json_pack("{s:I}", "size", (json_int_t)align_up(len, 512));
    bool zero = img_new_is_zero(out, fmt);
    bool ok = blk_image_create(out, fmt, opts, o->force, &e) || (img_fail(&e, NULL), false);
    json_decref(opts);
    struct exit_file *half = ok ? img_half_begin(out) : NULL;
    struct img_opts plain = { .quiet = o->quiet };
    struct blk_node *dst = ok ? img_open(out, fmt, o->cache, &plain, IMG_WRITE) : NULL;
    uint8_t *buf = dst ? aligned_alloc(4096, PIECE) : NULL;
    int r = buf ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t n = MIN((uint64_t)PIECE, len - at);
        r = co_img_is_zero(in, skip + at, n, buf);
        if (r == 1 && zero)
            r = 0;
        else if (r >= 0)
            r = co_img_write(dst, at, MIN(align_up(n, 512), atomic_load(&dst->size) - at), buf);
        at += n;
    }
    r = r ? r : co_node_flush(dst);
    free(buf);
    if (r && dst)
        co_image_unmake(dst);           /* half an image is none */
    img_close(dst);
    img_half_end(half, !r);
    return r && dst ? img_fail_errno(r, "cannot copy to '%s'", out) : r != 0;
}

static const struct img_opt dd_opts[] = {
    IMG_OPT_FORMAT,
    { 'O', "output-format", "FORMAT", "the format of the new image" },
    IMG_OPT_FORCE,
    IMG_OPT_SHARE,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_dd(int argc, char **argv)
{
    struct img_opts o = { 0 };
    const char *in = NULL, *out = NULL, *fmt = "raw", *v;
    uint64_t bs = 512, count = UINT64_MAX, skip = 0;
    for (int c; (c = img_getopt(argc, argv, dd_opts, &o)) != -1;) {
        if (c == 'O')
            fmt = optarg;
        else
            return 1;
    }
    bool bad = false;
    for (; optind < argc && !bad; optind++) {
        if ((v = operand(argv[optind], "if")))
            in = v;
        else if ((v = operand(argv[optind], "of")))
            out = v;
        else if ((v = operand(argv[optind], "bs")))
            bad = !img_number("bs=", v, 1, INT32_MAX, &bs);
        else if ((v = operand(argv[optind], "count")))
            bad = !img_size(v, &count);
        else if ((v = operand(argv[optind], "skip")))
            bad = !img_size(v, &skip);
        else
            bad = (fprintf(stderr, "backplane-img: dd has no operand '%s'\n", argv[optind]), true);
    }
    if (bad || !in || !out)
        return bad || img_refuse("dd needs if=FILE of=FILE");
    struct blk_node *src = img_open(in, o.fmt, o.src_cache, &o, 0);
    if (!src)
        return 1;
    uint64_t size = atomic_load(&src->size), from = skip > size / bs ? size : skip * bs, len = size - from;
    if (count < len / bs + 1)
        len = MIN(len, count * bs);
    int status = co_dd_copy(src, out, fmt, &o, from, len);
    img_close(src);
    return status;
}
IMG_CMD(co_dd, "dd", dd_opts, "[bs=N] [count=N] [skip=N] if=FILE of=FILE",
        "Copies blocks of an image into a new one");
