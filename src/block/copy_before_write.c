/* SPDX-License-Identifier: MIT */
/*
 * "copy-before-write": what is about to be overwritten below goes to a target first, which so keeps what was there at the beginning.
 * "snapshot-access" on top of it shows that moment: what is in the target, and from below what has not changed since.
 */
#include <errno.h>
#include <stdlib.h>
#include "block/bitmap.h"
#include "block/blk_int.h"
#include "block/cbw.h"
#include "block/filter.h"

enum { BREAK_GUEST_WRITE, BREAK_SNAPSHOT };
enum { LATE_STEP_NS = 1000000 };
static const char *const on_errors[] = { "break-guest-write", "break-snapshot", NULL };

struct blk_cbw { struct blk_node node; json_t *file, *target, *bitmap; int on_error; uint32_t timeout; struct blk_use dst; struct cbw cbw; bool ready;
                 unsigned late; };

static struct blk_cbw *of(struct blk_node *n) { return (struct blk_cbw *)n; }

static bool first(struct blk_cbw *s, struct err *e)
{
    const char *node = json_string_value(json_object_get(s->bitmap, "node")), *name = json_string_value(json_object_get(s->bitmap, "name"));
    if (!s->bitmap) {
        dirty_set(&s->cbw.todo, 0, s->cbw.todo.size);
        return true;
    }
    if (!node || !name)
        return err_set(e, ERR_VALUE, "'bitmap' is an object with 'node' and 'name'");
    struct blk_bitmap *b = blk_bitmap_get(node, name, false, e);
    if (!b)
        return false;
    if (b->map.size != s->cbw.todo.size)
        return err_set(e, ERR_VALUE, "bitmap '%s' is for another size", name);
    dirty_merge(&s->cbw.todo, &b->map);
    return true;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_cbw *s = of(n);
    list_init(&s->dst.link);
    if (!blk_child_open(n, s->file, 0, BLK_PERM_ALL, e) ||
        !blk_child_open_at(n, &s->dst, "target", s->target, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ | BLK_PERM_WRITE, e))
        return false;
    struct blk_node *src = n->child.node, *dst = s->dst.node;
    blk_caps_inherit(n, src);
    if (atomic_load(&src->size) != atomic_load(&dst->size))
        return err_set(e, ERR_VALUE, "'%s' is not as long as '%s'", dst->obj.id, src->obj.id);
    if (cbw_init(&s->cbw, src, dst))
        return err_os(e, ENOMEM, "no memory for the map of '%s'", n->obj.id);
    s->ready = true;
    return first(s, e) && (!cbw_keep(&s->cbw) || err_os(e, ENOMEM, "no memory for the map of '%s'", n->obj.id));
}

static void co_close(struct blk_node *n)
{
    struct blk_cbw *s = of(n);
    while (s->late)
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + LATE_STEP_NS);
    if (s->ready)
        cbw_free(&s->cbw);
    blk_child_close_at(&s->dst);
    blk_child_close(n);
}

/* A copy that may take so long only: it goes on when nobody waits for it any more. */
struct timed { struct blk_cbw *s; uint64_t off, len; int r; bool done, given_up; struct co_event ended; };

static void timed_copy(void *arg)
{
    struct timed *t = arg;
    t->r = co_cbw(&t->s->cbw, t->off, t->len);
    t->done = true;
    t->s->late--;
    if (t->given_up)
        free(t);
    else
        co_wake(&t->ended);
}

static void time_is_over(void *arg) { co_wake(&((struct timed *)arg)->ended); }

static int co_cbw_timed(struct blk_cbw *s, uint64_t off, uint64_t len)
{
    struct timer timer;
    struct timed *t = xnew(struct timed);
    *t = (struct timed){ .s = s, .off = off, .len = len };
    s->late++;
    co_spawn(loop_main(), NULL, timed_copy, t);
    if (!t->done) {
        timer_init(&timer, CLOCK_HOST, loop_main(), NULL, time_is_over, t);
        timer_arm(&timer, clock_now(CLOCK_HOST) + s->timeout * INT64_C(1000000000));
        co_wait(&t->ended);
        timer_fini(&timer);
    }
    int r = t->done ? t->r : -ETIMEDOUT;
    if (t->done)
        free(t);
    else
        t->given_up = true;
    return r;
}

/* What comes before a change. With "break-snapshot" the target is given up rather than the guest's write. */
static int co_before(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct blk_cbw *s = of(n);
    s->cbw.src = n->child.node;
    int r = s->cbw.failed ? 0 : s->timeout ? co_cbw_timed(s, off, len) : co_cbw(&s->cbw, off, len);
    if (!r || s->on_error == BREAK_GUEST_WRITE)
        return r;
    s->cbw.failed = true;
    return 0;
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_before(n, off, len);
    return r ? r : co_node_pwritev(n->child.node, off, len, iov, niov, flags);
}
static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = co_before(n, off, len);
    return r ? r : co_node_zero(n->child.node, off, len, flags);
}
static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    int r = co_before(n, off, len);
    return r ? r : co_node_discard(n->child.node, off, len);
}

static const struct prop props[] = {
    PROP_JSON(struct blk_cbw, file, "file", PF_REQUIRED, "Node below"),
    PROP_JSON(struct blk_cbw, target, "target", PF_REQUIRED, "Node that keeps what is overwritten"),
    PROP_JSON(struct blk_cbw, bitmap, "bitmap", 0, "What need be kept only (\"node\" and \"name\" of a bitmap); else everything"),
    PROP_ENUM(struct blk_cbw, on_error, "on-cbw-error", on_errors, BREAK_GUEST_WRITE,
              "What breaks where a copy cannot be made: the write that would come after, or what the target keeps"),
    PROP_U32(struct blk_cbw, timeout, "cbw-timeout", 0, 0, 86400, "Seconds after which a copy counts as one that cannot be made; 0: it may take any time"),
    PROP_END,
};
static const struct blk_driver cbw_driver = {
    .obj = { .name = "blockdev-copy-before-write", .desc = "What is overwritten is copied to a target before", .base = &blk_node_class,
             .size = sizeof(struct blk_cbw), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_close, .co_preadv = co_filter_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_discard = co_discard, .co_flush = co_filter_flush, .co_map = co_filter_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&cbw_driver.obj);

/* ---- snapshot-access ---- */

struct blk_moment { struct blk_node node; json_t *file; };

/* The filter below. */
static struct blk_cbw *kept_by(struct blk_node *n) { return of(n->child.node); }

static bool co_moment_open(struct blk_node *n, struct err *e)
{
    if (!blk_child_open(n, ((struct blk_moment *)n)->file, 0, BLK_PERM_ALL, e))
        return false;
    struct blk_node *below = n->child.node;
    if (BLK_DRIVER(below) != &cbw_driver) {
        err_set(e, ERR_VALUE, "'file' must name a node of the driver copy-before-write, which '%s' is not", below->obj.id);
        return false;
    }
    blk_caps_inherit(n, below);
    n->read_only = n->caps.read_only = true;
    return true;
}
static void co_moment_close(struct blk_node *n) { blk_child_close(n); }
static int co_moment_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_cbw_read(&kept_by(n)->cbw, off, len, iov, niov);
}
static int co_moment_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    return co_cbw_map(&kept_by(n)->cbw, off, len, out);
}

static const struct prop moment_props[] = {
    PROP_JSON(struct blk_moment, file, "file", PF_REQUIRED, "Node of the driver copy-before-write"),
    PROP_END,
};
static const struct blk_driver moment_driver = {
    .obj = { .name = "blockdev-snapshot-access", .desc = "What a copy-before-write node keeps, to be read", .base = &blk_node_class,
             .size = sizeof(struct blk_moment), .props = moment_props },
    .co_open = co_moment_open, .co_close = co_moment_close, .co_preadv = co_moment_read, .co_map = co_moment_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&moment_driver.obj);
