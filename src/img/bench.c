/* SPDX-License-Identifier: MIT */
/* bench: requests, many at once, and the time that they take. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "img/img.h"

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

struct bench {
    struct blk_node *n;
    uint64_t count, depth, size, step, off, started, flush_every, since_flush;
    uint8_t *bufs, *next_buf;           /* one for each job, of @buf_size; the first that nobody has */
    uint64_t buf_size;
    unsigned running, in_flight;
    struct co_queue idlers, wanting;    /* wait for the end of a flush; for the last request before it */
    bool write, no_drain, flushing;
    int r;
    struct co_event idle;
};

/* Unless told otherwise, a flush is of requests that have ended: no other is in flight. */
static int co_bench_flush(struct bench *b)
{
    if (b->no_drain)
        return co_node_flush(b->n);
    while (b->flushing)
        co_queue_wait(&b->idlers);
    b->flushing = true;
    while (b->in_flight)
        co_queue_wait(&b->wanting);
    int r = co_node_flush(b->n);
    b->flushing = false;
    co_queue_wake_all(&b->idlers);
    return r;
}

static int co_bench_request(struct bench *b, uint64_t off, const struct iovec *v)
{
    while (b->flushing)
        co_queue_wait(&b->idlers);
    b->in_flight++;
    int r = b->write ? co_node_pwritev(b->n, off, b->size, v, 1, 0) : co_node_preadv(b->n, off, b->size, v, 1, 0);
    if (!--b->in_flight)
        co_queue_wake_all(&b->wanting);
    return r;
}

static void co_bench_job(void *arg)
{
    struct bench *b = arg;
    uint64_t image = atomic_load(&b->n->size);
    struct iovec v = { b->next_buf, b->size };
    b->next_buf += b->buf_size;
    while (!b->r && b->started < b->count) {
        uint64_t off = b->off;
        b->started++;
        b->off += b->step;
        if (b->off + b->size > image)       /* to the start, as far past it, and aligned as before */
            b->off = b->off % MAX(align_down(image - b->size, PAGE), 1);
        int r = co_bench_request(b, off, &v);
        if (!r && b->flush_every && ++b->since_flush >= b->flush_every) {
            b->since_flush = 0;
            r = co_bench_flush(b);
        }
        b->r = b->r ? b->r : r;
    }
    if (!--b->running)
        co_wake(&b->idle);
}

/* All buffers, there before the clock runs: pages of the host are given as they are touched. */
static bool make_buffers(struct bench *b, uint8_t pattern)
{
    b->buf_size = align_up(b->size, PAGE);
    uint64_t all = align_up(b->depth * b->buf_size, HUGE_PAGE);
    b->bufs = b->next_buf = aligned_alloc(HUGE_PAGE, all);
    if (!b->bufs)
        return false;
    madvise(b->bufs, all, MADV_HUGEPAGE);
    memset(b->bufs, pattern, b->depth * b->buf_size);
    return true;
}

/* Nanoseconds of all requests. */
static int64_t co_bench_run(struct bench *b)
{
    loop_set_reads_ahead(loop_main(), b->depth > 1);
    int64_t start = clock_now(CLOCK_HOST);
    for (uint64_t i = 0; i < b->depth; i++) {
        b->running++;
        co_spawn(loop_main(), NULL, co_bench_job, b);
    }
    if (b->running)
        co_wait(&b->idle);
    int64_t took = clock_now(CLOCK_HOST) - start;
    loop_set_reads_ahead(loop_main(), false);
    return took;
}

static int co_bench_image(struct bench *b, uint8_t pattern)
{
    uint64_t image = atomic_load(&b->n->size);
    if (image < b->size)
        return img_refuse("the image is smaller than one request");
    if (!make_buffers(b, pattern))
        return img_fail_errno(-ENOMEM, "no memory for %llu requests of %llu bytes", (unsigned long long)b->depth, (unsigned long long)b->size);
    printf("Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at offset %llu, step size %llu)\n",
           (unsigned long long)b->count, b->write ? "write" : "read", (unsigned long long)b->size, (unsigned long long)b->depth,
           (unsigned long long)b->off, (unsigned long long)b->step);
    b->off %= image - b->size + 1;
    int64_t took = co_bench_run(b);
    free(b->bufs);
    b->r = b->r || !b->write ? b->r : co_node_flush(b->n);     /* not timed: what is kept until the image is closed may fail, too */
    if (b->r)
        return img_fail_errno(b->r, "a request failed");
    printf("Run completed in %.3f seconds.\n", (double)took / 1e9);
    return 0;
}

static const struct img_opt bench_opts[] = {
    IMG_OPT_FORMAT,
    { 'c', "count", "N", "how many requests" },
    { 'd', "depth", "N", "so many at a time" },
    { 'o', "offset", "SIZE", "where the first begins" },
    { 's', "buffer-size", "SIZE", "the bytes of one" },
    { 'S', "step-size", "SIZE", "from the beginning of one to that of the next" },
    { 'w', "write", NULL, "writes" },
    { OPT_PATTERN, "pattern", "BYTE", "what is written" },
    { OPT_FLUSH, "flush-interval", "N", "flushes after so many writes" },
    { OPT_NO_DRAIN, "no-drain", NULL, "a flush does not wait until nothing is in flight" },
    { 'n', "native", NULL, "not through the host's cache" },
    { 'i', "aio", "threads|native|io_uring", "accepted for compatibility" },
    IMG_OPT_CACHE,
    IMG_OPT_SHARE,
    IMG_OPT_QUIET,
    IMG_OPT_NAMES,
    IMG_OPT_END,
};

static int co_bench(int argc, char **argv)
{
    struct img_opts o = { 0 };
    struct bench b = { .count = 75000, .depth = 64, .size = 4096 };
    uint64_t pattern = 0;
    bool bad = false, direct = false;
    for (int c; !bad && (c = img_getopt(argc, argv, bench_opts, &o)) != -1;) {
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
        case 'i': bad = !str_eq(optarg, "threads") && !str_eq(optarg, "native") && !str_eq(optarg, "io_uring") &&
                        img_refuse("-i is 'threads', 'native' or 'io_uring'"); break;
        case OPT_NO_DRAIN: b.no_drain = true; break;
        default: bad = true;
        }
    }
    if (!bad && !b.write && (b.flush_every || pattern))
        bad = img_refuse("--pattern and --flush-interval have no effect without -w");
    if (bad || optind + 1 != argc)
        return bad || img_refuse("bench needs one file name");
    b.n = img_open(argv[optind], o.fmt, o.cache ? o.cache : direct ? "none" : NULL, &o, b.write ? IMG_WRITE : 0);
    if (!b.n)
        return 1;
    b.step = b.step ? b.step : b.size;
    int status = co_bench_image(&b, (uint8_t)pattern);
    img_close(b.n);
    return status;
}
IMG_CMD(co_bench, "bench", bench_opts, "FILE",
        "Times requests");
