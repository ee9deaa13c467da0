/* SPDX-License-Identifier: MIT */
/* compare: several coroutines read pieces of both images. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "img/img.h"

enum { COMPARE_PIECE = 256 << 10, COMPARE_JOBS = 4 };

/* The lowest difference counts, whoever finds it. */
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
    if (c->o.quiet)
        return 1;
    if (c->by_map)
        printf("Strict mode: Offset %llu block status mismatch!\n", (unsigned long long)c->found);
    else
        printf("Content mismatch at offset %llu!\n", (unsigned long long)c->found);
    return 1;
}

static const struct img_opt compare_opts[] = {
    { 'f', "a-format", "FORMAT", "the format of the first image" },
    { 'F', "b-format", "FORMAT", "the format of the second image" },
    { 's', "strict", NULL, "sizes count, too, and what an image holds itself" },
    { 'T', "cache", "MODE", "the host's cache: writeback or none" },
    IMG_OPT_SHARE,
    IMG_OPT_PROGRESS,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_compare(int argc, char **argv)
{
    struct compare c = { 0 };
    const char *fmt2 = NULL;
    for (int k; (k = img_getopt(argc, argv, compare_opts, &c.o)) != -1;) {
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
IMG_CMD(co_compare, "compare", compare_opts, "FILE FILE",
        "Status 0: the same bytes, 1: not, 2 and up: could not tell");
