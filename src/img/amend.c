/* SPDX-License-Identifier: MIT */
/* amend: what the creation of an image decided, changed later. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "base/opt.h"
#include "core/backend.h"
#include "img/img.h"

static int help(const char *fmt)
{
    struct err e = ERR_INIT;
    const struct obj_class *c = backend_find(&blk_node_class, fmt ? fmt : "raw", &e);
    if (!c)
        return img_fail(&e, NULL);
    img_help_rows(fmt ? fmt : "raw", ((const struct blk_driver *)c)->amend_props);
    return 0;
}

/* An option of creation alone is no unknown one. */
static bool can_change(const struct blk_driver *d, json_t *opts)
{
    struct prop p;
    const char *key;
    json_t *v;
    json_object_foreach(opts, key, v) {
        if (prop_find(d->amend_props, key, &p) || !d->create_props || !prop_find(d->create_props, key, &p))
            continue;
        fprintf(stderr, "backplane-img: %s is decided when an image is made\n", key);
        if (str_starts(key, "backing_"))
            fprintf(stderr, "hint: rebase -b FILE -F FORMAT gives it another backing file\n");
        else
            fprintf(stderr, "hint: convert -o %s=... makes another one\n", key);
        return false;
    }
    return true;
}

static int co_amend_node(struct blk_node *n, json_t *opts, const struct img_opts *o)
{
    const struct blk_driver *d = BLK_DRIVER(n);
    struct err e = ERR_INIT;
    if (!d->co_amend)
        return fprintf(stderr, "backplane-img: images of format '%s' have nothing to amend\n", img_format(n)), 1;
    if (!can_change(d, opts))
        return 1;
    bool ok = d->co_amend(n, opts, o->force, &e);
    int r = ok ? co_node_flush(n) : 0;
    return !ok ? img_fail(&e, NULL) : r ? img_fail_errno(r, "cannot write '%s'", blk_node_filename(n)) : 0;
}

static const struct img_opt amend_opts[] = {
    { 'o', "options", "OPTIONS", "what is to change, as NAME=VALUE,...; help lists what can" },
    IMG_OPT_FORMAT,
    IMG_OPT_CACHE,
    { OPT_FORCE, "force", NULL, "even if the last key of an encrypted image goes, or one that is in use" },
    IMG_OPT_PROGRESS,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_amend(int argc, char **argv)
{
    struct img_opts o = { 0 };
    json_t *opts = json_object();
    bool bad = false;
    for (int c; !bad && (c = img_getopt(argc, argv, amend_opts, &o)) != -1;)
        bad = c != 'o' || !img_parse_o(optarg, opts);
    int status = 1;
    if (!bad && opt_asks_help(opts)) {
        status = help(o.fmt);
    } else if (!bad && (optind + 1 != argc || !json_object_size(opts))) {
        fprintf(stderr, "backplane-img: amend needs -o OPTIONS and a file name\n");
    } else if (!bad) {
        struct blk_node *n = img_open(argv[optind], o.fmt, o.cache, &o, IMG_WRITE);
        status = n ? co_amend_node(n, opts, &o) : 1;
        img_close(n);
    }
    json_decref(opts);
    return status;
}
IMG_CMD(co_amend, "amend", amend_opts, "FILE",
        "Changes what the creation of an image decided: version, size, key slots (-o help lists the options)");
