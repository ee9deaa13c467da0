/* SPDX-License-Identifier: MIT */
/* "null-co", "null-aio": no storage at all; for measurements. */
#include <string.h>
#include "block/driver.h"

struct blk_null { struct blk_node node; uint64_t size, latency_ns; bool read_zeroes; };

static bool null_open(struct blk_node *n, struct err *e)
{
    struct blk_null *s = (struct blk_null *)n;
    atomic_store(&n->size, s->size);
    n->caps = (struct blk_caps){ .read_only = n->read_only, .discard = n->discard == BLK_DISCARD_UNMAP, .write_zeroes = true,
        .flush = !n->no_flush, .fua = true, .logical_block = 512, .physical_block = 512, .mem_align = 1 };
    return true;
}

static int co_null_wait(const struct blk_node *n)
{
    const struct blk_null *s = (const struct blk_null *)n;
    if (s->latency_ns)
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + (int64_t)s->latency_ns);
    return 0;
}

static int null_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    if (((struct blk_null *)n)->read_zeroes)
        for (unsigned i = 0; i < niov; i++)
            memset(iov[i].iov_base, 0, iov[i].iov_len);
    return co_null_wait(n);
}

static int null_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_null_wait(n);
}
static int null_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags) { return co_null_wait(n); }
static int null_discard(struct blk_node *n, uint64_t off, uint64_t len) { return co_null_wait(n); }
static int null_flush(struct blk_node *n) { return co_null_wait(n); }

static int null_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    bool zero = ((struct blk_null *)n)->read_zeroes;
    *out = (struct blk_extent){ .len = len, .data = !zero, .zero = zero };
    return 0;
}

static const char *null_filename(const struct blk_node *n) { return "null-co://"; }

static const struct prop null_props[] = {
    PROP_SIZE(struct blk_null, size, "size", GiB, 0, INT64_MAX, "Size of the disk"),
    PROP_U64(struct blk_null, latency_ns, "latency-ns", 0, 0, 60000000000, "Time that each request takes, in nanoseconds"),
    PROP_BOOL(struct blk_null, read_zeroes, "read-zeroes", false, "Reads return zeroes, not whatever is in the buffer"),
    PROP_END,
};

#define NULL_DRIVER(var, nm, ds) static const struct blk_driver var = {                                                   \
        .obj = { .name = "blockdev-" nm, .desc = ds, .base = &blk_node_class, .size = sizeof(struct blk_null), .props = null_props }, \
        .flags = BLK_ANY_LOOP, .co_open = null_open, .co_preadv = null_read, .co_pwritev = null_write, .co_zero = null_zero, \
        .co_discard = null_discard, .co_flush = null_flush, .co_map = null_map, .filename = null_filename }; OBJ_CLASS(&var.obj)
NULL_DRIVER(null_co, "null-co", "Storage that keeps nothing");
NULL_DRIVER(null_aio, "null-aio", "As null-co");
