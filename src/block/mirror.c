/* SPDX-License-Identifier: MIT */
/*
 * The mirror job. What the target lacks is in a map; workers copy it and writes of others put it back there, or, in write-blocking
 * mode, go to both before they end. When little is left the source is held still, the rest is copied, and its users move.
 */
#include "block/mirror.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "block/copy.h"
#include "block/dirty.h"

enum { GRANULE = 64 * 1024, LEAST_GRANULE = 512, MOST_GRANULE = 64 << 20, FEW = 16 << 20 /* bytes copied while the source stands */ };

/* A range that is being brought over; nobody else does the same meanwhile. */
struct op { struct list link; uint64_t off, len; const struct blk_change *change; struct co_queue waiting; };

struct mirror {
    struct job job;
    struct blk_node *src, *dst, *replaced;
    struct blk_node *base;          /* what is there need not be copied; NULL: nothing is */
    struct blk_node *lowest;        /* of a commit: the image right on the target */
    struct blk_node *lent;          /* the target's image, that got a backing node from us; NULL: it did not */
    struct mirror_opts opt;
    struct dirty_map dirty;
    struct blk_watch watch;
    struct list ops;
    uint64_t cursor;
    bool watching, should_complete, pivot /* asked for */, moved, was_ro, is_ready;
    unsigned taken;                 /* pieces that workers took */
    int ret;
};

static struct mirror *of(struct job *j) { return (struct mirror *)j; }

/* ---- ranges ---- */

static struct op *op_at(struct mirror *s, uint64_t off, uint64_t len)
{
    struct op *o;
    list_for_each(o, &s->ops, link)
        if (off < o->off + o->len && o->off < off + len)
            return o;
    return NULL;
}

static void op_begin(struct mirror *s, struct op *o, uint64_t off, uint64_t len)
{
    *o = (struct op){ .off = off, .len = len };
    list_push(&s->ops, &o->link);
}

static void op_end(struct mirror *s, struct op *o)
{
    list_del(&o->link);
    co_queue_wake_all(&o->waiting);
    job_kick(&s->job);
}

/* ---- writes of others ---- */

static int co_before(struct blk_watch *w, const struct blk_change *c)
{
    struct mirror *s = container_of(w, struct mirror, watch);
    if (!s->opt.write_blocking)
        return 0;
    uint64_t g = dirty_granularity(&s->dirty), a = align_down(c->off, g), b = align_up(c->off + c->len, g);
    for (struct op *o; (o = op_at(s, a, b - a));)
        co_queue_wait(&o->waiting);
    struct op *o = xnew(struct op);
    op_begin(s, o, a, b - a);
    o->change = c;
    return 0;
}

static struct op *op_of(struct mirror *s, const struct blk_change *c)
{
    struct op *o;
    list_for_each(o, &s->ops, link)
        if (o->change == c)
            return o;
    return NULL;
}

static int co_copy_op(struct mirror *s, const struct op *o, void *buf, bool *is_read)
{
    struct blk_extent x;
    int r = 0;
    for (uint64_t at = o->off, end = MIN(o->off + o->len, s->dirty.size); at < end && !r; at += x.len) {
        *is_read = true;
        r = co_node_map(s->src, at, MIN(end - at, (uint64_t)COPY_CHUNK), &x);
        r = r ? r : co_copy_data(NULL, s->src, s->dst, at, x.len, x.zero, s->opt.unmap ? BLK_ZERO_UNMAP : 0, buf, is_read);
    }
    return r;
}

static int co_to_both(struct mirror *s, const struct blk_change *c)
{
    return c->iov ? co_node_pwritev(s->dst, c->off, c->len, c->iov, c->niov, 0)
                  : co_node_zero(s->dst, c->off, c->len, s->opt.unmap ? BLK_ZERO_UNMAP : 0);
}

static int co_after(struct blk_watch *w, const struct blk_change *c, int r)
{
    struct mirror *s = container_of(w, struct mirror, watch);
    struct op *o = op_of(s, c);
    int x = r || !o || c->discard || (c->iov && !c->stable) ? -EAGAIN : co_to_both(s, c);
    if (x)
        dirty_set(&s->dirty, c->off, c->len);
    if (x && x != -EAGAIN && job_error(&s->job, s->opt.on_target_error, false, x) == BLK_ACT_REPORT)
        s->ret = s->ret ? s->ret : x;
    if (o) {
        op_end(s, o);
        free(o);
    }
    if (x)
        job_kick(&s->job);
    return r;
}

/* ---- copying ---- */

/* The next piece that is dirty and that nobody is at; not dirty any more then. */
static bool take(struct mirror *s, struct op *o)
{
    uint64_t size = s->dirty.size, g = dirty_granularity(&s->dirty);
    for (int round = 0; round < 2; round++, s->cursor = 0) {
        for (uint64_t at = dirty_next(&s->dirty, s->cursor); at != UINT64_MAX;) {
            uint64_t end = MIN(MIN(dirty_next_clear(&s->dirty, at), size), at + MAX(g, (uint64_t)COPY_CHUNK));
            struct op *busy = op_at(s, at, end - at);
            if (busy && busy->off > at && align_down(busy->off, g) > at)
                end = align_down(busy->off, g);
            else if (busy) {
                at = dirty_next(&s->dirty, align_up(busy->off + busy->len, g));
                continue;
            }
            op_begin(s, o, at, end - at);
            dirty_clear(&s->dirty, at, end - at);
            s->cursor = end;
            s->taken++;
            return true;
        }
    }
    return false;
}

/* One piece; false: the worker ends. */
static bool co_one(struct mirror *s, void *buf)
{
    struct op o;
    bool is_read;
    if (!co_job_throttle(&s->job, MIN(dirty_bytes(&s->dirty), MAX(dirty_granularity(&s->dirty), (uint64_t)COPY_CHUNK))) || !take(s, &o))
        return false;
    int r = co_copy_op(s, &o, buf, &is_read);
    if (r)
        dirty_set(&s->dirty, o.off, o.len);
    else
        job_progress(&s->job, o.len);
    op_end(s, &o);
    if (!r || s->job.cancelled)
        return !r;
    if (job_error(&s->job, is_read ? s->opt.on_source_error : s->opt.on_target_error, is_read, r) == BLK_ACT_REPORT)
        s->ret = s->ret ? s->ret : r;
    return !s->ret;
}

static bool is_enough(const struct mirror *s) { return s->should_complete && s->is_ready && dirty_bytes(&s->dirty) <= FEW; }

static void worker(void *arg)
{
    struct mirror *s = arg;
    void *buf = NULL;
    if (posix_memalign(&buf, 4096, COPY_CHUNK))
        s->ret = -ENOMEM;
    while (!s->ret && co_job_pause_point(&s->job) && !is_enough(s) && co_one(s, buf))
        s->job.total = s->job.done + dirty_bytes(&s->dirty);
    free(buf);
}

/* Copies until nothing is left, or little and that is enough. */
static int co_sync(struct mirror *s)
{
    unsigned before = s->taken;
    uint64_t n = MIN(s->dirty.count, (uint64_t)COPY_WORKERS);
    co_job_workers(&s->job, (unsigned)MAX(n, (uint64_t)1), worker, s);
    if (!s->ret && s->taken == before && s->dirty.count && !is_enough(s) && !co_job_wait(&s->job, 10000000))
        return -ECANCELED;
    return s->job.cancelled ? -ECANCELED : s->ret;
}

/* What must be copied at first. */
static int co_first(struct mirror *s)
{
    struct blk_extent x;
    uint64_t size = s->dirty.size;
    if (s->opt.sync == SYNC_FULL && !s->opt.target_is_zero) {
        dirty_set(&s->dirty, 0, size);
        return 0;
    }
    for (uint64_t at = 0; at < size && s->opt.sync != SYNC_NONE; at += x.len) {
        bool allocated;
        if (!co_job_pause_point(&s->job))
            return -ECANCELED;
        int r = co_chain_map(s->src, s->base, at, MIN(size - at, (uint64_t)1 << 30), &x, &allocated);
        if (r)
            return r;
        if (allocated && !(s->opt.sync == SYNC_FULL && s->opt.target_is_zero && x.zero))
            dirty_set(&s->dirty, at, x.len);
    }
    return 0;
}

static int co_run(struct job *j)
{
    struct mirror *s = of(j);
    s->watch = (struct blk_watch){ .co_before = co_before, .co_after = co_after, .stable = s->opt.write_blocking };
    co_watch_add(s->src, &s->watch);
    s->watching = true;
    int r = co_first(s);
    j->total = dirty_bytes(&s->dirty);
    while (!r) {
        if (s->dirty.count && !is_enough(s)) {
            r = co_sync(s);
            continue;
        }
        if (s->ret)
            return s->ret;
        if (!s->is_ready) {
            j->total = j->done;
            s->is_ready = true;
            job_ready(j);
        }
        if (s->should_complete)
            break;
        r = co_job_wait(j, INT64_MAX) ? 0 : -ECANCELED;
    }
    return r;
}

/* ---- the end ---- */

static bool move_users(struct mirror *s, struct err *e)
{
    return job_change_claim(&s->job, s->dst, 0, BLK_PERM_ALL, e) && blk_node_replace(s->replaced, s->dst, e);
}

/* The source stands still; the rest is copied. */
static int co_prepare(struct job *j)
{
    struct mirror *s = of(j);
    struct blk_drain d;
    int r = s->ret;
    co_node_drain(s->src, &d);
    s->opt.on_source_error = s->opt.on_target_error = BLK_ERR_REPORT;      /* it cannot rest any more */
    s->should_complete = false;             /* now to the last piece */
    j->workers = 1;
    while (!r && s->dirty.count)
        r = co_sync(s);
    j->total = j->done;
    r = r ? r : co_node_flush(s->dst);
    if (!r && s->pivot && !move_users(s, &j->err))
        r = -EIO;
    s->moved = s->pivot && !r;
    blk_drain_end(&d);
    return r;
}

static void co_clean(struct job *j)
{
    struct mirror *s = of(j);
    struct err e = ERR_INIT;
    struct blk_drain d;
    if (s->watching)
        co_watch_del(s->src, &s->watch);
    dirty_free(&s->dirty);
    if (s->lent && !s->moved) {
        co_node_drain(s->lent, &d);
        blk_child_close_at(&s->lent->backing);
        blk_drain_end(&d);
    }
    if (!s->lowest || s->moved)
        return;
    co_node_drain(s->dst, &d);              /* a commit that came to nothing: the base is below again */
    job_release(j, s->dst);
    if (!blk_use_change(&s->lowest->backing, BLK_PERM_READ, BLK_PERM_READ, &e) || (s->was_ro && !co_node_set_writable(s->dst, false, &e)))
        err_print(&e);
    blk_drain_end(&d);
}

static bool complete(struct job *j, struct err *e)
{
    of(j)->should_complete = of(j)->pivot = true;
    return true;
}

/* A ready one that is not forced ends in step with its source, whose users stay. */
static bool cancel(struct job *j, bool force)
{
    struct mirror *s = of(j);
    if (force || !s->is_ready)
        return true;
    s->should_complete = true;
    s->pivot = false;
    return false;
}

static bool change(struct job *j, json_t *args, struct err *e)
{
    const char *mode = json_string_value(json_object_get(args, "copy-mode"));
    struct mirror *s = of(j);
    if (!str_eq(mode, "write-blocking"))
        return err_set(e, ERR_VALUE, "copy-mode '%s': a running mirror changes to 'write-blocking' only", mode ? mode : "");
    s->opt.write_blocking = s->watch.stable = true;
    return true;
}

static void query(struct job *j, json_t *out)
{
    struct mirror *s = of(j);
    json_object_set_new(out, "actively-synced", json_boolean(s->opt.write_blocking && s->is_ready && !s->dirty.count));
}

#define MIRROR_OPS(var, name, ...) static const struct job_ops var = { .type = name, .size = sizeof(struct mirror), .is_block = true, \
    .co_run = co_run, .complete = complete, .co_prepare = co_prepare, .co_clean = co_clean, .cancel = cancel, __VA_ARGS__ }
MIRROR_OPS(mirror_ops, "mirror", .change = change, .query = query);
MIRROR_OPS(commit_ops, "commit");

/* ---- the beginning ---- */

static uint64_t choose_granularity(struct blk_node *dst, uint64_t asked) { return asked ? asked : MAX((uint64_t)GRANULE, blk_cluster_size(dst)); }

static bool check(const struct mirror_opts *m, const struct blk_node *src, const struct blk_node *dst, struct err *e)
{
    uint64_t a = atomic_load(&src->size), b = atomic_load(&dst->size);
    if (src == dst)
        return err_set(e, ERR_VALUE, "Can't mirror node into itself");
    if (m->granularity && (m->granularity < LEAST_GRANULE || m->granularity > MOST_GRANULE || !is_pow2(m->granularity)))
        return err_set(e, ERR_VALUE, "Parameter 'granularity' expects a power of 2 in range [512B, 64MB]");
    if (a != b)
        return err_set(e, ERR_VALUE, "Source and target image have different sizes: %llu and %llu bytes", (unsigned long long)a, (unsigned long long)b);
    return true;
}

static struct mirror *mirror_new(const struct job_ops *ops, const struct job_opts *o, const struct mirror_opts *m, struct blk_node *src,
                                 struct blk_node *dst, struct err *e)
{
    struct mirror *s = (struct mirror *)job_new(ops, o, src, NULL, e);
    if (!s)
        return NULL;
    s->src = s->replaced = src;
    s->dst = dst;
    s->opt = *m;
    s->opt.replaces = NULL;
    list_init(&s->ops);
    return s;
}

static bool start(struct mirror *s, bool ok, struct err *e)
{
    ok = ok && (dirty_init(&s->dirty, atomic_load(&s->src->size), choose_granularity(s->dst, s->opt.granularity)) ||
                err_os(e, ENOMEM, "no memory for the map of '%s'", s->src->obj.id));
    if (ok)
        job_start(&s->job);
    else
        co_job_discard(&s->job);
    return ok;
}

static bool find_replaced(struct mirror *s, const char *name, struct err *e)
{
    if (name)
        s->replaced = (struct blk_node *)obj_lookup(&blk_node_class, name, e);
    return s->replaced && (s->replaced->job == &s->job || job_claim(&s->job, s->replaced, 0, BLK_PERM_ALL, e));
}

/* What is not copied is there from the beginning: what is less than a cluster of the target's, or hides something by zeroes, needs it. */
static bool co_lend_backing(struct mirror *s, struct err *e)
{
    struct blk_drain d;
    struct blk_node *image = blk_skip_filters(s->dst);
    struct blk_node *below = s->opt.sync == SYNC_NONE ? s->src : s->opt.sync == SYNC_TOP ? blk_skip_filters(s->src)->backing.node : NULL;
    if (!below || image->backing.node || !BLK_DRIVER(image)->co_set_backing)
        return true;
    if (blk_chain_has(below, image))
        return err_set(e, ERR_VALUE, "block node '%s' lies below '%s', and cannot be its target", s->dst->obj.id, s->src->obj.id);
    co_node_drain(image, &d);
    if (blk_child_attach(image, &image->backing, below, BLK_PERM_READ, BLK_PERM_READ | (below == s->src ? BLK_PERM_WRITE : 0), e))
        s->lent = image;
    blk_drain_end(&d);
    return s->lent;
}

bool co_mirror_start(const struct job_opts *o, const struct mirror_opts *m, struct blk_node *src, struct blk_node *dst, struct err *e)
{
    struct mirror *s = check(m, src, dst, e) ? mirror_new(&mirror_ops, o, m, src, dst, e) : NULL;
    if (!s)
        return false;
    s->base = m->sync == SYNC_TOP ? blk_chain_next(src) : NULL;
    bool ok = job_claim(&s->job, src, 0, BLK_PERM_READ | BLK_PERM_WRITE, e) && find_replaced(s, m->replaces, e) &&
              job_claim(&s->job, dst, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ, e) && co_lend_backing(s, e);
    return start(s, ok, e);
}

static bool claim_chain(struct mirror *s, struct err *e)
{
    struct job *j = &s->job;
    if (!job_claim(j, s->src, 0, BLK_PERM_READ | BLK_PERM_WRITE, e))
        return false;
    for (struct blk_node *l = blk_skip_filters(s->src); l != s->base; l = blk_chain_next(l))
        if (l != s->src && !job_claim(j, l, 0, BLK_PERM_ALL, e))
            return false;
    if (!blk_use_change(&s->lowest->backing, BLK_PERM_READ, BLK_PERM_ALL, e) || !co_node_set_writable(s->base, true, e))
        return false;
    return job_claim(j, s->base, BLK_PERM_ALL, BLK_PERM_READ, e);
}

static bool make_as_long(struct blk_node *n, uint64_t size, struct err *e)
{
    int r = atomic_load(&n->size) < size ? co_node_resize(n, size) : 0;
    return !r || err_os(e, -r, "cannot make '%s' longer", n->obj.id);
}

bool co_commit_active(const struct job_opts *o, struct blk_node *top, struct blk_node *base, enum blk_on_error on_error, struct err *e)
{
    const struct mirror_opts m = { .sync = SYNC_TOP, .on_source_error = on_error, .on_target_error = on_error, .unmap = true };
    struct mirror *s = mirror_new(&commit_ops, o, &m, top, base, e);
    if (!s)
        return false;
    s->base = base;
    s->lowest = blk_chain_above(top, base);
    s->was_ro = base->caps.read_only;
    return start(s, claim_chain(s, e) && make_as_long(base, atomic_load(&top->size), e), e);
}
