/* SPDX-License-Identifier: MIT */
/* "blkverify": everything is written to two nodes, and what is read from one is compared with the other: for tests of image formats. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/filter.h"

struct blk_verify { struct blk_node node; json_t *test, *raw_opt; struct blk_use raw; uint64_t mismatches; };
static struct blk_verify *of(struct blk_node *n) { return (struct blk_verify *)n; }

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_verify *s = of(n);
    if (!co_filter_open(n, s->test, e) || !blk_child_open_at(n, &s->raw, "raw", s->raw_opt, 0, BLK_PERM_ALL, e))
        return false;
    n->caps.grows = false;
    uint64_t a = atomic_load(&n->size), b = atomic_load(&s->raw.node->size);
    return a == b || err_set(e, ERR_VALUE, "'test' has %llu bytes, 'raw' %llu", (unsigned long long)a, (unsigned long long)b);
}

static void co_close(struct blk_node *n)
{
    blk_child_close_at(&of(n)->raw);
    co_filter_close(n);
}

static bool set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    struct blk_use *raw = &of(n)->raw;
    unsigned old = n->child.perm, old_shared = n->child.shared;
    if (!blk_pass_perm(n, perm, shared, e))
        return false;
    if (!raw->node || blk_use_change(raw, perm, shared, e))
        return true;
    struct err none = ERR_INIT;
    bool back = blk_use_change(&n->child, old, old_shared, &none);      /* less than before: cannot conflict */
    (void)back;
    return false;
}

/* Both said the same; else the difference is told, and the request fails. */
static int same(struct blk_verify *s, const char *what, uint64_t off, int test, int raw)
{
    if (test == raw)
        return test;
    s->mismatches++;
    log_warn("blkverify: %s at %llu: test says '%s', raw '%s'", what, (unsigned long long)off, strerror(-test), strerror(-raw));
    return -EIO;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_verify *s = of(n);
    uint8_t *a = malloc(len), *b = malloc(len);
    struct iovec va = { a, len }, vb = { b, len };
    int r = a && b ? 0 : -ENOMEM;
    if (!r)
        r = same(s, "read", off, co_node_preadv(n->child.node, off, len, &va, 1, flags), co_node_preadv(s->raw.node, off, len, &vb, 1, flags));
    if (!r && memcmp(a, b, len)) {
        uint64_t i = 0;
        while (a[i] == b[i])
            i++;
        s->mismatches++;
        log_warn("blkverify: contents mismatch at offset %llu: test has 0x%02x, raw 0x%02x", (unsigned long long)(off + i), a[i], b[i]);
        r = -EIO;
    }
    if (!r)
        blk_iov_copy(a, iov, niov, 0, len, true);
    free(a);
    free(b);
    return r;
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    uint8_t *copy = malloc(len);        /* the guest may change its memory between the two */
    struct iovec v = { copy, len };
    if (!copy)
        return -ENOMEM;
    blk_iov_copy(copy, iov, niov, 0, len, false);
    int r = co_node_pwritev(n->child.node, off, len, &v, 1, flags);
    r = same(of(n), "write", off, r, co_node_pwritev(of(n)->raw.node, off, len, &v, 1, flags));
    free(copy);
    return r;
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    flags &= ~(unsigned)BLK_ZERO_NO_FALLBACK;       /* one may need it where the other does not */
    int r = co_node_zero(n->child.node, off, len, flags);
    return same(of(n), "zero", off, r, co_node_zero(of(n)->raw.node, off, len, flags));
}

static int co_flush(struct blk_node *n)
{
    int r = co_node_flush(n->child.node), x = co_node_flush(of(n)->raw.node);
    return r ? r : x;
}

static const struct prop props[] = {
    PROP_JSON(struct blk_verify, test, "test", PF_REQUIRED, "Node that is tested"),
    PROP_JSON(struct blk_verify, raw_opt, "raw", PF_REQUIRED, "Node that is known to be right"),
    { .name = "mismatches", .doc = "Differences so far", .type = PROP_T_U64, .flags = PF_READONLY, PROP_OFF(struct blk_verify, mismatches) },
    PROP_END,
};
static const struct blk_driver verify_driver = {
    .obj = { .name = "blockdev-blkverify", .desc = "Writes go to two nodes, reads are compared; for tests", .base = &blk_node_class,
             .size = sizeof(struct blk_verify), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_close, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_flush = co_flush, .set_perm = set_perm,
};
OBJ_CLASS(&verify_driver.obj);
