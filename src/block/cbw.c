/* SPDX-License-Identifier: MIT */
#include "block/cbw.h"

#include <errno.h>
#include <stdlib.h>
#include "block/blk_int.h"
#include "block/copy.h"

enum { GRANULE = 64 * 1024 };

struct op { struct list link; uint64_t off, len; struct co_queue waiting; };

int cbw_init(struct cbw *c, struct blk_node *src, struct blk_node *dst)
{
    c->src = src;
    c->dst = dst;
    list_init(&c->ops);
    list_init(&c->reads);
    return dirty_init(&c->todo, atomic_load(&src->size), MAX((uint64_t)GRANULE, blk_cluster_size(dst))) ? 0 : -ENOMEM;
}

void cbw_free(struct cbw *c)
{
    dirty_free(&c->todo);
    dirty_free(&c->kept);
}

int cbw_keep(struct cbw *c)
{
    if (!dirty_init(&c->kept, c->todo.size, dirty_granularity(&c->todo)))
        return -ENOMEM;
    dirty_merge(&c->kept, &c->todo);
    return 0;
}

static void op_begin(struct cbw *c, struct op *o, uint64_t off, uint64_t len)
{
    *o = (struct op){ .off = off, .len = len };
    list_push(&c->ops, &o->link);
    dirty_clear(&c->todo, off, len);
}

static void op_end(struct cbw *c, struct op *o, int r)
{
    if (r)
        dirty_set(&c->todo, o->off, o->len);
    else
        c->copied += o->len;
    list_del(&o->link);
    co_queue_wake_all(&o->waiting);
}

static int co_write_packed(struct cbw *c, uint64_t off, uint64_t len, void *buf)
{
    struct iovec v = { buf, len };
    return co_node_write_compressed(c->dst, off, len, &v, 1);
}

static int co_copy_packed(struct cbw *c, uint64_t off, uint64_t len, void *buf, bool *is_read)
{
    struct iovec v = { buf, len };
    *is_read = true;
    int r = co_node_preadv(c->src, off, len, &v, 1, 0);
    *is_read = r;
    return r ? r : co_write_packed(c, off, len, buf);
}

uint64_t cbw_chunk(const struct cbw *c) { return MAX((uint64_t)COPY_CHUNK, dirty_granularity(&c->todo)); }

/* At most a chunk. */
static int co_copy(struct cbw *c, uint64_t off, uint64_t len, void *buf, bool *is_read)
{
    struct blk_extent x;
    int r = 0;
    for (uint64_t at = off, end = off + len; at < end && !r; at += x.len) {
        *is_read = true;
        r = co_node_map(c->src, at, end - at, &x);
        if (r || (x.zero && c->zeroes_there))
            continue;
        bool whole = at == off && x.len == len && !x.zero;      /* only whole granules can be packed */
        r = c->compress && whole ? co_copy_packed(c, at, x.len, buf, is_read)
                                 : co_copy_data(NULL, c->src, c->dst, at, x.len, x.zero, BLK_ZERO_UNMAP, buf, is_read);
    }
    return r;
}

static struct op *op_at(struct list *ops, uint64_t off, uint64_t len)
{
    struct op *o;
    list_for_each(o, ops, link)
        if (off < o->off + o->len && o->off < off + len)
            return o;
    return NULL;
}

/* The run of granules to do at @at, short of @end. */
static uint64_t run_of(const struct cbw *c, uint64_t at, uint64_t end)
{
    return MIN(MIN(dirty_next_clear(&c->todo, at), end), at + cbw_chunk(c)) - at;
}

static int co_copy_run(struct cbw *c, uint64_t at, uint64_t len, void *buf, bool *is_read)
{
    struct op o;
    op_begin(c, &o, at, len);
    int r = co_copy(c, at, len, buf, is_read);
    op_end(c, &o, r);
    return r;
}

/* What is to do in [a, end), which are granules, is done. *@buf is made where it is needed. */
static int co_range(struct cbw *c, uint64_t a, uint64_t end, void **buf, bool *is_read)
{
    for (;;) {
        uint64_t at = dirty_next(&c->todo, a);
        struct op *o = at < end ? NULL : op_at(&c->ops, a, end - a);
        if (at >= end && !o)
            return 0;
        if (at >= end) {
            co_queue_wait(&o->waiting);         /* it may fail: look again */
            continue;
        }
        if (!*buf && posix_memalign(buf, 4096, cbw_chunk(c)))
            return -ENOMEM;
        int r = co_copy_run(c, at, run_of(c, at, end), *buf, is_read);
        if (r)
            return r;
    }
}

int co_cbw(struct cbw *c, uint64_t off, uint64_t len)
{
    uint64_t g = dirty_granularity(&c->todo);
    void *buf = NULL;
    bool is_read;
    struct op *o;
    int r = co_range(c, align_down(off, g), MIN(align_up(off + len, g), c->todo.size), &buf, &is_read);
    free(buf);
    while ((o = op_at(&c->reads, off, len)))
        co_queue_wait(&o->waiting);
    return r;
}

/* ---- seeing the target before it is whole ---- */

/* Where [at, at + *len) is, *@len cut to what is in one place: the source, the target, NULL where it cannot be seen. */
static struct blk_node *co_place(struct cbw *c, uint64_t at, uint64_t *len)
{
    uint64_t end = at + *len;
    struct op *o;
    for (;;) {
        bool todo = dirty_get(&c->todo, at), kept = dirty_get(&c->kept, at);
        uint64_t a = todo ? dirty_next_clear(&c->todo, at) : dirty_next(&c->todo, at);
        uint64_t b = kept ? dirty_next_clear(&c->kept, at) : dirty_next(&c->kept, at);
        *len = MIN(MIN(a, b), end) - at;
        if (c->failed || !kept)
            return NULL;
        if (todo)
            return c->src;
        if (!(o = op_at(&c->ops, at, *len)))
            return c->dst;
        co_queue_wait(&o->waiting);             /* it may fail: look again */
    }
}

static int co_read_source(struct cbw *c, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct op o = { .off = off, .len = len };
    list_push(&c->reads, &o.link);
    int r = co_node_preadv(c->src, off, len, iov, niov, 0);
    list_del(&o.link);
    co_queue_wake_all(&o.waiting);
    return r;
}

int co_cbw_read(struct cbw *c, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct iovec *part = malloc(niov * sizeof *part);
    int r = part ? 0 : -ENOMEM;
    for (uint64_t at = 0, n; at < len && !r; at += n) {
        n = len - at;
        struct blk_node *from = co_place(c, off + at, &n);
        unsigned k = blk_iov_slice(iov, niov, at, n, part);
        r = !from ? -EACCES : from == c->src ? co_read_source(c, off + at, n, part, k) : co_node_preadv(from, off + at, n, part, k, 0);
    }
    free(part);
    return r;
}

int co_cbw_map(struct cbw *c, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct blk_node *from = co_place(c, off, &len);
    return from ? co_node_map(from, off, len, out) : -EACCES;
}

/* Nothing is claimed while the speed limit holds us back: others may need it at once. */
int co_cbw_next(struct cbw *c, struct job *j, uint64_t *cursor, uint64_t *len, void *buf, bool *is_read)
{
    uint64_t at = dirty_next(&c->todo, *cursor);
    *len = 0;
    if (at == UINT64_MAX)
        return 0;
    *len = run_of(c, at, c->todo.size);
    *cursor = at + *len;
    return co_job_throttle(j, *len) ? co_range(c, at, at + *len, &buf, is_read) : -ECANCELED;
}
