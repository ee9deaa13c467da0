/* SPDX-License-Identifier: MIT */
/* compare, dd, bench. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "img/img.h"

enum { PIECE = 2 << 20, COMPARE_PIECE = 256 << 10, COMPARE_JOBS = 4 };

/* ---- compare ---- */

/* Several coroutines take one piece after the other; the lowest difference counts. */
struct compare {
    struct blk_node *a, *b;
    struct img_opts o;
    bool strict;
    uint64_t next, end;                 /* [next, end) was taken by nobody yet */
    uint64_t found;                     /* the lowest difference, UINT64_MAX: none */
    bool by_map;                        /* of the maps there, not of bytes (strict) */
    int status;                         /* 2 and up: an error, told */
    unsigned running;
    struct co_event idle;
};

static void compare_found(struct compare *c, uint64_t at, bool by_map)
{
    if (at < c->found) {
        c->found = at;
        c->by_map = by_map;
    }
    c->next = c->end;                   /* what lies above does not matter any more */
}

static void compare_failed(struct compare *c, int status)
{
    c->status = MAX(c->status, status);
    c->next = c->end;
}

/* One side's bytes of a piece: read, or zeroes. */
static bool co_compare_read(struct compare *c, struct blk_node *n, bool zero, uint64_t off, uint64_t len, uint8_t *buf)
{
    int r = 0;
    if (zero)
        memset(buf, 0, len);
    else
        r = co_img_read(n, off, len, buf);
    if (r)
        compare_failed(c, img_fail_errno(r, "error while reading offset %llu", (unsigned long long)off) + 3);
    return !r;
}

static void co_compare_bytes(struct compare *c, uint64_t off, uint64_t len, bool zero_a, bool zero_b, uint8_t *x)
{
    uint8_t *y = x + COMPARE_PIECE;
    uint64_t i = 0;
    if (!co_compare_read(c, c->a, zero_a, off, len, x) || !co_compare_read(c, c->b, zero_b, off, len, y) || !memcmp(x, y, len))
        return;
    while (x[i] == y[i])
        i++;
    compare_found(c, off + i, false);
}

/* Takes the next piece and compares it. */
static void co_compare_piece(struct compare *c, uint8_t *buf)
{
    uint64_t off = c->next, sa = atomic_load(&c->a->size), sb = atomic_load(&c->b->size);
    struct blk_extent p = { .len = c->end - off, .zero = true, .below = true }, q = p;
    int r = off < sa ? co_node_map(c->a, off, MIN(c->end, sa) - off, &p) : 0;
    r = r ? r : off < sb ? co_node_map(c->b, off, MIN(c->end, sb) - off, &q) : 0;
    if (off != c->next)
        return;                         /* another took it meanwhile */
    if (r) {
        compare_failed(c, img_fail_errno(r, "cannot read the maps") + 1);
        return;
    }
    if (c->strict && off < sa && off < sb && p.below != q.below) {
        compare_found(c, off, true);
        return;
    }
    uint64_t len = MIN(p.len, q.len);
    bool both = p.zero && q.zero;
    len = both ? len : MIN(len, (uint64_t)COMPARE_PIECE);
    c->next = off + len;
    if (!both)
        co_compare_bytes(c, off, len, p.zero, q.zero, buf);
    img_progress(&c->o, off + len, c->end);
}

static void co_compare_job(void *arg)
{
    struct compare *c = arg;
    uint8_t *buf = aligned_alloc(4096, 2 * COMPARE_PIECE);
    if (!buf)
        compare_failed(c, img_fail_errno(-ENOMEM, "cannot compare") + 1);
    while (c->next < c->end)
        co_compare_piece(c, buf);
    free(buf);
    if (!--c->running)
        co_wake(&c->idle);
}

/* 0: alike, 1: differ (told), 2 and up: error (told). */
static int co_compare_all(struct compare *c)
{
    c->found = UINT64_MAX;
    for (unsigned i = 0; i < COMPARE_JOBS; i++) {
        c->running++;
        co_spawn(loop_main(), NULL, co_compare_job, c);
    }
    if (c->running)
        co_wait(&c->idle);
    if (c->status || c->found == UINT64_MAX)
        return c->status;
    if (c->by_map)
        printf("Strict mode: Offset %llu block status mismatch!\n", (unsigned long long)c->found);
    else
        printf("Content mismatch at offset %llu!\n", (unsigned long long)c->found);
    return 1;
}

static int co_compare(int argc, char **argv)
{
    struct compare c = { 0 };
    const char *fmt2 = NULL;
    for (int k; (k = img_getopt(argc, argv, "F:s", &c.o)) != -1;) {
        if (k == 'F')
            fmt2 = optarg;
        else if (k == 's')
            c.strict = true;
        else
            return 2;
    }
    if (optind + 2 != argc)
        return fprintf(stderr, "backplane-img: compare needs two file names\n"), 2;
    c.a = img_open(argv[optind], c.o.fmt, c.o.src_cache, &c.o, 0);
    c.b = c.a ? img_open(argv[optind + 1], fmt2, c.o.src_cache, &c.o, 0) : NULL;
    int status = 2;
    if (c.a && c.b) {
        uint64_t sa = atomic_load(&c.a->size), sb = atomic_load(&c.b->size);
        status = 0;
        if (sa != sb && c.strict) {
            if (!c.o.quiet)
                puts("Strict mode: Image size mismatch!");
            status = 1;
        } else {
            if (sa != sb && !c.o.quiet)
                puts("Warning: Image size mismatch!");
            c.end = MAX(sa, sb);
            status = co_compare_all(&c);
            img_progress_end(&c.o);
        }
        if (!status && !c.o.quiet)
            puts("Images are identical.");
    }
    img_close(c.a);
    img_close(c.b);
    return status;
}
IMG_CMD(co_compare, "compare", "[-f FORMAT] [-F FORMAT] [-s] FILE FILE", "Status 0: the same bytes, 1: not, 2 and up: could not tell");

/* ---- dd ---- */

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
    img_close(dst);
    return r && dst ? img_fail_errno(r, "cannot copy to '%s'", out) : r != 0;
}

static int co_dd(int argc, char **argv)
{
    struct img_opts o = { 0 };
    const char *in = NULL, *out = NULL, *fmt = "raw", *v;
    uint64_t bs = 512, count = UINT64_MAX, skip = 0;
    for (int c; (c = img_getopt(argc, argv, "O:", &o)) != -1;) {
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
IMG_CMD(co_dd, "dd", "[-f FORMAT] [-O FORMAT] [bs=N] [count=N] [skip=N] if=FILE of=FILE", "Copies blocks of an image into a new one");

/* ---- bench ---- */

struct bench {
    struct blk_node *n;
    uint64_t count, depth, size, step, off, started, flush_every, since_flush;
    unsigned running;
    uint8_t pattern;
    bool write;
    int r;
    struct co_event idle;
};

static void co_bench_job(void *arg)
{
    struct bench *b = arg;
    uint64_t image = atomic_load(&b->n->size);
    uint8_t *buf = aligned_alloc(4096, align_up(b->size, 4096));
    if (!buf)
        b->r = -ENOMEM;
    else
        memset(buf, b->pattern, b->size);
    while (!b->r && b->started < b->count) {
        struct iovec v = { buf, b->size };
        uint64_t off = b->off;
        b->started++;
        b->off += b->step;
        if (b->off + b->size > image)       /* to the start, as far past it, and aligned as before */
            b->off = b->off % MAX(align_down(image - b->size, 4096), 1);
        int r = b->write ? co_node_pwritev(b->n, off, b->size, &v, 1, 0) : co_node_preadv(b->n, off, b->size, &v, 1, 0);
        if (!r && b->flush_every && ++b->since_flush >= b->flush_every) {
            b->since_flush = 0;
            r = co_node_flush(b->n);
        }
        b->r = b->r ? b->r : r;
    }
    free(buf);
    if (!--b->running)
        co_wake(&b->idle);
}

static int co_bench(int argc, char **argv)
{
    struct img_opts o = { 0 };
    struct bench b = { .count = 75000, .depth = 64, .size = 4096 };
    uint64_t pattern = 0;
    bool bad = false, direct = false;
    for (int c; !bad && (c = img_getopt(argc, argv, "c:d:no:s:S:wi:", &o)) != -1;) {
        switch (c) {
        case 'c': bad = !img_size(optarg, &b.count); break;
        case 'd': bad = !img_number("-d", optarg, 1, 65536, &b.depth); break;
        case 'n': direct = true; break;
        case 'o': bad = !img_size(optarg, &b.off); break;
        case 's': bad = !img_number("-s", optarg, 1, GiB, &b.size); break;
        case 'S': bad = !img_size(optarg, &b.step); break;
        case 'w': b.write = true; break;
        case OPT_PATTERN: bad = !img_number("--pattern", optarg, 0, 255, &pattern); break;
        case OPT_FLUSH: bad = !img_size(optarg, &b.flush_every); break;
        case 'i': case OPT_NO_DRAIN: break;
        default: bad = true;
        }
    }
    if (bad || optind + 1 != argc)
        return bad || img_refuse("bench needs one file name");
    b.n = img_open(argv[optind], o.fmt, o.cache ? o.cache : direct ? "none" : NULL, &o, b.write ? IMG_WRITE : 0);
    if (!b.n)
        return 1;
    b.pattern = (uint8_t)pattern;
    b.step = b.step ? b.step : b.size;
    int status = 0;
    if (atomic_load(&b.n->size) < b.size) {
        status = (fprintf(stderr, "backplane-img: the image is smaller than one request\n"), 1);
    } else {
        printf("Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at offset %llu, step size %llu)\n",
               (unsigned long long)b.count, b.write ? "write" : "read", (unsigned long long)b.size, (unsigned long long)b.depth,
               (unsigned long long)b.off, (unsigned long long)b.step);
        b.off %= atomic_load(&b.n->size) - b.size + 1;
        loop_set_reads_ahead(loop_main(), b.depth > 1);
        int64_t t = clock_now(CLOCK_HOST);
        for (uint64_t i = 0; i < b.depth; i++) {
            b.running++;
            co_spawn(loop_main(), NULL, co_bench_job, &b);
        }
        if (b.running)
            co_wait(&b.idle);
        t = clock_now(CLOCK_HOST) - t;
        status = b.r ? img_fail_errno(b.r, "a request failed") : (printf("Run completed in %.3f seconds.\n", (double)t / 1e9), 0);
    }
    img_close(b.n);
    return status;
}
IMG_CMD(co_bench, "bench", "[-c COUNT] [-d DEPTH] [-s SIZE] [-S STEP] [-w] [-n] [--pattern=N] [--flush-interval=N] FILE", "Times requests");
