/* SPDX-License-Identifier: MIT */
/* convert: several coroutines copy one piece after the other; what is known to be zero is neither read nor written. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "block/backing.h"
#include "block/bitmap.h"
#include "block/throttle.h"
#include "img/img.h"

/* What the host's memory holds is copied by two: one reads while the other writes, and both pieces stay in a core's cache. */
enum { PIECE_NEAR = 512 << 10, JOBS_NEAR = 2, PIECE_FAR = 2 << 20, MAX_JOBS = 16, MAX_SOURCES = 64 };

struct source { struct blk_node *n; uint64_t start, size; struct blk_node *base; /* -b: what it and those below it hold is left out */ };
struct convert {
    struct img_opts o;
    struct source src[MAX_SOURCES];
    unsigned sources, jobs, started, running;
    struct blk_node *dst;
    uint64_t size, next, done, sparse, unit, piece;
    uint64_t zero_from;                 /* what is not written here and behind reads as zeroes */
    bool compress, target_zero, top_only, salvage, data_known, offload;
    struct throttle limit;
    int r;
    bool read_failed;
    uint64_t failed_at;
    struct co_event idle;
};

/* ---- one piece ---- */

static int co_write_data(struct convert *c, uint64_t off, const uint8_t *buf, uint64_t len)
{
    co_throttle(&c->limit, NULL, true, len);
    return co_img_write(c->dst, off, len, buf);
}

static int co_write_run(struct convert *c, uint64_t off, const uint8_t *buf, uint64_t len, bool zero)
{
    if (!zero)
        return co_write_data(c, off, buf, len);
    return off >= c->zero_from ? 0 : co_node_zero(c->dst, off, len, BLK_ZERO_UNMAP);
}

/* Writes @buf, leaving out zeroes of at least ->sparse bytes. */
static int co_write_sparse(struct convert *c, uint64_t off, const uint8_t *buf, uint64_t len)
{
    int r = 0;
    if (!c->sparse)
        return co_write_data(c, off, buf, len);
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t n = 0;
        bool zero = false;
        while (at + n < len) {
            uint64_t step = MIN(c->sparse - (off + at + n) % c->sparse, len - at - n);
            struct iovec v = { (void *)(buf + at + n), step };
            bool z = blk_iov_is_zero(&v, 1);
            if (n && z != zero)
                break;
            zero = z;
            n += step;
        }
        r = co_write_run(c, off + at, buf + at, n, zero);
        at += n;
    }
    return r;
}

static int co_write_compressed(struct convert *c, uint64_t off, uint8_t *buf, uint64_t len)
{
    int r = 0;
    for (uint64_t at = 0; at < len && !r; at += c->unit) {
        struct iovec v = { buf + at, MIN(c->unit, len - at) };
        if (blk_iov_is_zero(&v, 1))
            r = c->target_zero ? 0 : co_node_zero(c->dst, off + at, v.iov_len, BLK_ZERO_UNMAP);
        else
            co_throttle(&c->limit, NULL, true, v.iov_len), r = co_node_write_compressed(c->dst, off + at, v.iov_len, &v, 1);
    }
    return r;
}

/* What a source holds; @below: the target need not hold it, since what it lies over does. */
static int co_source_map(const struct source *s, uint64_t pos, uint64_t len, struct blk_extent *x, bool *below)
{
    uint64_t end = s->base ? atomic_load(&s->base->size) : 0;
    bool above = true;
    int r = pos < end ? co_chain_map(s->n, s->base, pos, MIN(len, end - pos), x, &above) : co_node_map(s->n, pos, len, x);
    *below = !above;
    return r;
}

static int co_read_piece(struct convert *c, const struct source *s, uint64_t off, uint64_t len, uint8_t *buf)
{
    int r = co_img_read(s->n, off, len, buf);
    if (!r || !c->salvage) {
        c->read_failed |= r != 0;
        return r;
    }
    for (uint64_t at = 0; at < len; at += 512)          /* what cannot be read is zeroes */
        if (co_img_read(s->n, off + at, MIN((uint64_t)512, len - at), buf + at))
            memset(buf + at, 0, MIN((uint64_t)512, len - at));
    fprintf(stderr, "backplane-img: warning: bytes from %llu on could not be read: zeroes\n", (unsigned long long)(s->start + off));
    return 0;
}

/* -C: from file to file within the host, where source and target are that here. -ENOTSUP: they are not. */
static int co_copy_within(struct convert *c, uint64_t off, const struct blk_extent *from)
{
    struct blk_extent to;
    if (!c->offload || !from->has_off || !from->data || !from->where || from->compressed || strcmp(img_format(c->dst), "raw"))
        return -ENOTSUP;
    int r = co_node_map(c->dst, off, from->len, &to);
    if (r || !to.has_off || !to.where || to.len < from->len)
        return -ENOTSUP;
    co_throttle(&c->limit, NULL, true, from->len);
    return co_file_copy_range((struct blk_node *)from->where, from->off, (struct blk_node *)to.where, to.off, from->len);
}

static void co_job(void *arg);

/* There are @n jobs, or as many as are allowed. */
static void start_jobs(struct convert *c, unsigned n)
{
    while (c->started < MIN(n, c->jobs)) {
        c->started++;
        c->running++;
        co_spawn(loop_main(), NULL, co_job, c);
    }
}

/* As co_source_map(). Where that cannot be told, salvage reads all of it. */
static int co_look(struct convert *c, const struct source *s, uint64_t pos, uint64_t len, struct blk_extent *x, bool *below)
{
    int r = co_source_map(s, pos, len, x, below);
    if (!r || !c->salvage) {
        c->read_failed |= r != 0;
        return r;
    }
    fprintf(stderr, "backplane-img: warning: no word of what is allocated from byte %llu on: read as data\n", (unsigned long long)(s->start + pos));
    *x = (struct blk_extent){ .len = len, .data = true };
    *below = false;
    return 0;
}

/* [off, off + len) of the target, whole units. */
static int co_piece(struct convert *c, uint64_t off, uint64_t len, uint8_t *buf)
{
    int r = 0;
    bool any = false;
    uint64_t from = 0;                              /* what is to be compressed is gathered from here on */
    for (uint64_t at = 0; at < len && !r;) {
        const struct source *s = c->src;
        while (s + 1 < c->src + c->sources && off + at >= s->start + s->size)
            s++;
        uint64_t pos = off + at - s->start, here = pos >= s->size ? len - at : MIN(len - at, s->size - pos);
        struct blk_extent x = { .len = here, .zero = true };
        bool skip = false;
        if (pos < s->size)
            r = co_look(c, s, pos, here, &x, &skip);
        if (r)
            break;
        if (x.compressed)
            start_jobs(c, MAX_JOBS);                /* unpacking keeps all cores at work */
        if (c->compress && skip && at % c->unit == 0 && (x.len >= c->unit || at + x.len == len)) {
            r = any ? co_write_compressed(c, off + from, buf + from, at - from) : 0;
            any = false;
            x.len = at + x.len == len ? x.len : align_down(x.len, c->unit);
            from = at + x.len;
        } else if (c->compress) {                   /* a cluster is compressed whole */
            x.len = skip && at % c->unit ? MIN(x.len, align_up(at, c->unit) - at) : x.len;
            memset(buf + at, 0, x.zero ? x.len : 0);
            r = x.zero ? 0 : co_read_piece(c, s, pos, x.len, buf + at);
            any |= !skip && !(x.zero && c->target_zero);
        } else if (x.zero && !skip && !c->sparse) {     /* -S 0: all of it is to have its place */
            memset(buf + at, 0, x.len);
            r = co_write_data(c, off + at, buf + at, x.len);
        } else if (x.zero && !skip) {
            r = co_write_run(c, off + at, NULL, x.len, true);
        } else if (!skip && (r = co_copy_within(c, off + at, &x)) == -ENOTSUP) {
            r = co_read_piece(c, s, pos, x.len, buf + at);
            r = r ? r : co_write_sparse(c, off + at, buf + at, x.len);
        }
        at += x.len;
    }
    return r || !any ? r : co_write_compressed(c, off + from, buf + from, len - from);
}

static void co_job(void *arg)
{
    struct convert *c = arg;
    uint64_t piece = c->piece;
    uint8_t *buf = aligned_alloc(4096, piece);
    if (!buf)
        c->r = -ENOMEM;
    while (!c->r && c->next < c->size) {
        uint64_t off = c->next, len = MIN(piece, c->size - off);
        if (!c->data_known) {       /* long holes are one step */
            struct blk_extent x;
            if (c->sources == 1 && c->target_zero && c->sparse && off < c->src[0].size && !co_node_map(c->src[0].n, off, c->src[0].size - off, &x) &&
                x.zero && !c->top_only && x.len > piece) {
                c->next = MIN(off + align_down(x.len, piece), c->size);
                c->done += c->next - off;
                continue;
            }
            if (off != c->next)
                continue;           /* another was quicker */
        }
        c->next = off + len;
        int r = co_piece(c, off, len, buf);
        if (r && !c->r) {
            c->r = r;
            c->failed_at = off;
        }
        c->done += len;
        img_progress(&c->o, c->done, c->size);
    }
    free(buf);
    if (!--c->running)
        co_wake(&c->idle);
}

/* All of it is files of the host, through its cache. */
static bool is_near(const struct blk_node *n)
{
    bool near = true;
    for (; n && near; n = n->backing.node)
        near = (n->child.node ? is_near(n->child.node) : !strcmp(img_format(n), "file") && !n->direct) && (!n->data.node || is_near(n->data.node));
    return near;
}

static int co_copy(struct convert *c)
{
    bool near = is_near(c->dst);
    for (unsigned i = 0; i < c->sources; i++)
        near &= is_near(c->src[i].n);
    c->piece = MAX((uint64_t)(near ? PIECE_NEAR : PIECE_FAR), c->unit);
    loop_set_reads_ahead(loop_main(), true);
    start_jobs(c, near && !c->compress ? JOBS_NEAR : MAX_JOBS);
    if (c->running)
        co_wait(&c->idle);
    loop_set_reads_ahead(loop_main(), false);
    return c->r;
}

/* ---- setting up ---- */

struct args {
    const char *target_fmt, *backing, *backing_fmt, *snapshot;
    json_t *opts;
    bool no_create, target_opts, target_zero, bitmaps, skip_broken;
};

static bool open_sources(struct convert *c, char **names, unsigned n, const struct args *a)
{
    if (n > MAX_SOURCES || !n)
        return fprintf(stderr, "backplane-img: convert takes 1 to %u sources and a target\n", MAX_SOURCES), false;
    for (unsigned i = 0; i < n; i++) {
        struct blk_node *s = img_open(names[i], c->o.fmt, c->o.src_cache, &c->o, 0);
        if (!s)
            return false;
        c->src[c->sources++] = (struct source){ s, c->size, 0, NULL };
        if (a->snapshot && !co_img_show_snapshot(s, a->snapshot))
            return false;
        c->src[c->sources - 1].size = atomic_load(&s->size);
        c->size += atomic_load(&s->size);
    }
    return true;
}

static bool make_target(struct convert *c, const char *name, const struct args *a)
{
    struct err e = ERR_INIT;
    if (!json_object_get(a->opts, "size"))
        json_object_set_new(a->opts, "size", json_integer((json_int_t)c->size));
    if (a->backing) {
        json_object_set_new(a->opts, "backing_file", json_string(a->backing));
        if (a->backing_fmt)
            json_object_set_new(a->opts, "backing_fmt", json_string(a->backing_fmt));
    }
    return blk_image_create(name, a->target_fmt, a->opts, c->o.force, &e) || (img_fail(&e, NULL), false);
}

/* A new image without backing file reads as zeroes. */
static bool starts_zero(const struct convert *c, const char *name, const struct args *a)
{
    return a->target_zero || (!a->no_create && !c->top_only && img_new_is_zero(name, a->target_fmt));
}

/* What the new target lies over is an image of the source's chain, or has the contents of the one next to the source. */
static void find_base(struct convert *c, const char *name, const struct args *a)
{
    char *path = blk_path_beside(name, a->backing);
    struct source *s = c->src;
    s->base = blk_chain_find(s->n, path);
    s->base = s->base && s->base != s->n ? s->base : blk_chain_next(s->n);
    free(path);
}

static bool check_args(const struct convert *c, const struct args *a)
{
    const char *what = NULL;
    if (c->compress && !strcmp(a->target_fmt, "raw") && !a->target_opts)
        what = "-c: raw images hold no compressed data";
    else if (a->backing && c->sources > 1)
        what = "-B with several sources";
    else if (a->snapshot && c->sources > 1)
        what = "-l with several sources";
    else if (c->offload && (c->compress || c->salvage))
        what = "-C excludes -c and --salvage";
    else if (a->no_create && json_object_size(a->opts))
        what = "-o has no effect with -n, which makes nothing";
    else if (a->backing_fmt && !a->backing)
        what = "-F has no effect without -b";
    else if (a->target_zero && a->backing)
        what = "--target-is-zero: what a backing file holds shows through";
    else if (a->target_opts && !a->no_create)
        what = "--target-image-opts needs -n";
    else if (a->target_zero && !a->no_create)
        what = "--target-is-zero needs -n";
    else if (a->bitmaps && c->sources > 1)
        what = "--bitmaps with several sources";
    else if (a->bitmaps && a->snapshot)
        what = "--bitmaps and -l: bitmaps are not of a snapshot";
    else if (a->skip_broken && !a->bitmaps)
        what = "--skip-broken-bitmaps needs --bitmaps";
    if (what)
        fprintf(stderr, "backplane-img: %s\n", what);
    return !what;
}

static int co_convert_to(struct convert *c, const char *name, const struct args *a)
{
    struct img_opts t = c->o;
    struct err e = ERR_INIT;
    bool made = !a->no_create;
    if (made && !make_target(c, name, a))
        return 1;
    struct exit_file *half = made ? img_half_begin(name) : NULL;
    t.image_opts = a->target_opts;
    t.unlocked = false;
    t.created = a->opts;
    c->dst = img_open(name, a->target_opts ? NULL : a->target_fmt, c->o.cache ? c->o.cache : "unsafe", &t, IMG_WRITE);
    int status = 1;
    if (c->dst) {
        const struct blk_driver *d = BLK_DRIVER(c->dst);
        c->unit = c->compress && d->cluster_size ? d->cluster_size(c->dst) : 512;
        c->zero_from = c->target_zero ? 0 : c->top_only && made && c->dst->backing.node ? atomic_load(&c->dst->backing.node->size) : UINT64_MAX;
        if (atomic_load(&c->dst->size) < c->size)
            fprintf(stderr, "backplane-img: the target has %llu bytes, but %llu are needed\n",
                    (unsigned long long)atomic_load(&c->dst->size), (unsigned long long)c->size);
        else if (c->compress && !d->co_write_compressed)
            fprintf(stderr, "backplane-img: -c: images of format '%s' hold no compressed data\n", img_format(c->dst));
        else if (a->bitmaps && !blk_bitmap_can_persist(c->dst, &e))
            img_fail(&e, "--bitmaps");
        else {
            int r = co_copy(c);
            r = r ? r : co_node_flush(c->dst);
            img_progress_end(&c->o);
            status = r ? img_fail_errno(r, "error while %s byte %llu and up", c->read_failed ? "reading" : "writing",
                                        (unsigned long long)c->failed_at) : a->bitmaps && !co_img_bitmaps_copy(c->src[0].n, c->dst);
        }
    }
    if (status && made && c->dst)
        co_image_unmake(c->dst);    /* half an image is none */
    img_close(c->dst);
    img_half_end(half, !status);
    return status;
}

static const struct img_opt convert_opts[] = {
    { 'f', "source-format", "FORMAT", "the format of the sources; else it is told by their signatures" },
    { 'O', "target-format", "FORMAT", "the format of the target (raw)" },
    { 'o', "target-format-options", "OPTIONS", "how the target is made, as NAME=VALUE,...; help lists what there is" },
    { 'c', "compress", NULL, "the target is compressed" },
    { 'b', "backing", "FILE", "the target lies over this image, and holds what differs from it" },
    { 'B', NULL, "FILE", NULL },
    { 'F', "backing-format", "FORMAT", "the format of the image of -b" },
    { 'l', "snapshot", "SNAPSHOT", "copies a snapshot inside the source, named by id, by name or as snapshot.id=ID,snapshot.name=NAME" },
    { 'S', "sparse-size", "SIZE", "zeroes of this length become a hole (4k); 0: there are none" },
    { 'n', "no-create", NULL, "the target exists" },
    { OPT_TARGET_OPTS, "target-image-opts", NULL, "the target is named by KEY=VALUE,..." },
    { OPT_ZERO_TARGET, "target-is-zero", NULL, "the target that exists holds zeroes" },
    { OPT_BITMAPS, "bitmaps", NULL, "dirty bitmaps of the source are copied, too" },
    { OPT_SKIP_BROKEN, "skip-broken-bitmaps", NULL, "but for those that cannot be trusted" },
    { OPT_SALVAGE, "salvage", NULL, "what cannot be read becomes zeroes" },
    { 'C', "copy-range-offloading", NULL, "the host copies from file to file, where it can" },
    { 'm', "parallel", "N", "so many requests at a time" },
    { 'W', "oob-writes", NULL, "pieces may be written in any order; they always may" },
    { 'r', "rate-limit", "RATE", "bytes a second" },
    { 't', "target-cache", "MODE", "the host's cache for the target (unsafe)" },
    { 'T', "source-cache", "MODE", "the host's cache for the sources" },
    IMG_OPT_FORCE,
    IMG_OPT_SHARE,
    IMG_OPT_PROGRESS,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_convert(int argc, char **argv)
{
    struct convert *c = xnew(struct convert);
    struct args a = { .target_fmt = "raw", .opts = json_object() };
    int status = 0;
    uint64_t jobs = 8;
    c->sparse = 4096;
    pthread_mutex_init(&c->limit.lock, NULL);
    for (int k; !status && (k = img_getopt(argc, argv, convert_opts, &c->o)) != -1;) {
        switch (k) {
        case 'O': a.target_fmt = optarg; break;
        case 'b': case 'B': a.backing = optarg; break;
        case 'F': a.backing_fmt = optarg; break;
        case 'c': c->compress = true; break;
        case 'n': a.no_create = true; break;
        case 'o': status = !img_parse_o(optarg, a.opts); break;
        case 'S': status = !img_size(optarg, &c->sparse) || (c->sparse % 512 && img_refuse("-S: the size is not a multiple of 512")); break;
        case 'm': status = !img_number("-m", optarg, 1, MAX_JOBS, &jobs); break;
        case 'W': break;                 /* writes are always in any order */
        case 'C': c->offload = true; break;
        case 'l': a.snapshot = optarg; break;
        case 'r': status = !img_rate(optarg, &c->limit); break;
        case OPT_TARGET_OPTS: a.target_opts = true; break;
        case OPT_ZERO_TARGET: a.target_zero = true; break;
        case OPT_BITMAPS: a.bitmaps = true; break;
        case OPT_SKIP_BROKEN: a.skip_broken = true; break;
        case OPT_SALVAGE: c->salvage = true; break;
        default: status = 1;
        }
    }
    if (!status && opt_asks_help(a.opts)) {
        status = img_help_o(a.target_fmt);
        json_decref(a.opts);
        free(c);
        return status;
    }
    if (!a.backing && json_object_get(a.opts, "backing_file"))
        a.backing = json_string_value(json_object_get(a.opts, "backing_file"));
    c->jobs = (unsigned)jobs;
    c->top_only = a.backing != NULL;
    if (!status && optind + 2 > argc)
        status = (fprintf(stderr, "backplane-img: convert needs a source and a target\n"), 1);
    status = status || !open_sources(c, argv + optind, (unsigned)(argc - optind - 1), &a) || !check_args(c, &a) ||
             (a.bitmaps && !img_bitmaps_usable(c->src[0].n, a.skip_broken));
    if (!status) {
        c->target_zero = starts_zero(c, argv[argc - 1], &a);
        if (c->top_only)
            find_base(c, argv[argc - 1], &a);
        status = co_convert_to(c, argv[argc - 1], &a);
    }
    for (unsigned i = 0; i < c->sources; i++)
        img_close(c->src[i].n);
    json_decref(a.opts);
    free(c);
    return status;
}
IMG_CMD(co_convert, "convert", convert_opts, "SOURCE... TARGET",
        "Copies images, one after the other, into a new one");
