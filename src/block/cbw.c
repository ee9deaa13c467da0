/* SPDX-License-Identifier: MIT */
#include "block/cbw.h"

#include <errno.h>
#include <stdlib.h>
#include "block/copy.h"

enum { GRANULE = 64 * 1024 };

struct op { struct list link; uint64_t off, len; struct co_queue waiting; };

int cbw_init(struct cbw *c, struct blk_node *src, struct blk_node *dst)
{
    uint64_t cluster = BLK_DRIVER(dst)->cluster_size ? BLK_DRIVER(dst)->cluster_size(dst) : 0;
    c->src = src;
    c->dst = dst;
    list_init(&c->ops);
    return dirty_init(&c->todo, atomic_load(&src->size), MAX((uint64_t)GRANULE, cluster)) ? 0 : -ENOMEM;
}

void cbw_free(struct cbw *c) { dirty_free(&c->todo); }

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

/* At most COPY_CHUNK. */
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

static struct op *op_at(struct cbw *c, uint64_t off, uint64_t len)
{
    struct op *o;
    list_for_each(o, &c->ops, link)
        if (off < o->off + o->len && o->off < off + len)
            return o;
    return NULL;
}

/* The run of granules to do at @at, short of @end. */
static uint64_t run_of(const struct cbw *c, uint64_t at, uint64_t end)
{
    uint64_t most = MAX((uint64_t)COPY_CHUNK, dirty_granularity(&c->todo));
    return MIN(MIN(dirty_next_clear(&c->todo, at), end), at + most) - at;
}

static int co_copy_run(struct cbw *c, uint64_t at, uint64_t len, void *buf, bool *is_read)
{
    struct op o;
    int r = 0;
    op_begin(c, &o, at, len);
    for (uint64_t done = 0; done < len && !r; done += COPY_CHUNK)
        r = co_copy(c, at + done, MIN(len - done, (uint64_t)COPY_CHUNK), buf, is_read);
    op_end(c, &o, r);
    return r;
}

/* What is to do in [a, end), which are granules, is done. *@buf is made where it is needed. */
static int co_range(struct cbw *c, uint64_t a, uint64_t end, void **buf, bool *is_read)
{
    for (;;) {
        uint64_t at = dirty_next(&c->todo, a);
        struct op *o = at < end ? NULL : op_at(c, a, end - a);
        if (at >= end && !o)
            return 0;
        if (at >= end) {
            co_queue_wait(&o->waiting);         /* it may fail: look again */
            continue;
        }
        if (!*buf && posix_memalign(buf, 4096, COPY_CHUNK))
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
    int r = co_range(c, align_down(off, g), MIN(align_up(off + len, g), c->todo.size), &buf, &is_read);
    free(buf);
    return r;
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
