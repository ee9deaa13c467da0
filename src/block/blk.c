/* SPDX-License-Identifier: MIT */
/* Front handles: what a device, an export or a job holds of a node. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/blk_int.h"
#include "block/throttle.h"
#include "core/cmd.h"
#include "core/dev_farewell.h"
#include "core/run.h"

enum { DRAIN_STEP_NS = 500000, THROTTLE_LOOK_NS = 50000000 };

const char *const blk_on_error_names[] = { "auto", "report", "ignore", "stop", "enospc", NULL };

static bool co_drive_changed(struct obj *o, const struct prop *p, struct err *e);

const struct prop blk_front_props[] = {
    { .name = "drive", .doc = "Block node (-blockdev, -drive) that holds the data; another of the same length can take its place", .type = PROP_T_LINK,
      .flags = PF_RUNTIME, PROP_OFF(struct blk_front_opts, drive), .of = &blk_node_class, .changed = co_drive_changed },
    PROP_SIZE32(struct blk_front_opts, logical_block_size, "logical_block_size", 0, 0, 2 * MiB, "Smallest unit of a request; 0: the back end's"),
    PROP_SIZE32(struct blk_front_opts, physical_block_size, "physical_block_size", 0, 0, 2 * MiB, "Best unit of a write; 0: the back end's"),
    PROP_SIZE32(struct blk_front_opts, min_io_size, "min_io_size", 0, 0, 2 * MiB, "Best unit of small requests; 0: not told"),
    PROP_SIZE32(struct blk_front_opts, opt_io_size, "opt_io_size", 0, 0, UINT32_MAX, "Best length of large requests; 0: not told"),
    PROP_SIZE32(struct blk_front_opts, discard_granularity, "discard_granularity", UINT32_MAX, 0, UINT32_MAX,
             "Unit of discards; 4294967295: the back end's"),
    PROP_TRI(struct blk_front_opts, write_cache, "write-cache", TRI_AUTO, "Volatile write cache as the guest sees it; auto: as the drive says"),
    PROP_BOOL(struct blk_front_opts, share_rw, "share-rw", false, "Other users may write the same node"),
    PROP_ENUM(struct blk_front_opts, rerror, "rerror", blk_on_error_names, BLK_ERR_AUTO, "What a failed read does; auto: report it to the guest"),
    PROP_ENUM(struct blk_front_opts, werror, "werror", blk_on_error_names, BLK_ERR_AUTO,
              "What a failed write does; auto: stop the machine when the disk is full, else report it to the guest"),
    PROP_S64(struct blk_front_opts, bootindex, "bootindex", -1, -1, INT32_MAX, "Place in the boot order; -1: none"),
    PROP_END,
};

const struct prop blk_geometry_props[] = {
    PROP_U32(struct blk_front_opts, cyls, "cyls", 0, 0, 65535, "Cylinders of the geometry that the guest is told; 0: computed"),
    PROP_U32(struct blk_front_opts, heads, "heads", 0, 0, 255, "Heads of the geometry"),
    PROP_U32(struct blk_front_opts, secs, "secs", 0, 0, 255, "Sectors of the geometry"),
    PROP_END,
};

static struct list all = LIST_INIT(all);

/* ---- life ---- */

unsigned blk_perm_rw(const struct blk_node *n) { return BLK_PERM_READ | (n->caps.read_only ? 0 : BLK_PERM_WRITE); }

struct blk *blk_open(struct blk_node *n, unsigned perm, unsigned shared, struct domain *dom, const char *user, struct err *e)
{
    struct blk *b = xnew(struct blk);
    if (!blk_use_add(&b->use, n, perm, shared, user, e)) {
        free(b);
        return NULL;
    }
    b->use.blk = b;
    b->node = n;
    atomic_store(&b->may_write, perm & BLK_PERM_WRITE);
    b->dom = dom;
    b->rerror = BLK_ERR_REPORT;
    b->werror = BLK_ERR_REPORT;
    atomic_store(&b->write_cache, true);
    list_push(&all, &b->link);
    return b;
}

/* Not that of a -drive, which another device may take. */
static bool own_empty(const struct blk_node *n) { return blk_node_is_empty(n) && !n->drive; }

void blk_hold(struct blk *b) { b->held++; }

void blk_release(struct blk *b)
{
    if (!--b->held && b->closed)
        free(b);
}

bool blk_still_open(const struct blk *b, struct err *e)
{
    return !b->closed || err_set(e, ERR_NOT_FOUND, "the device was unplugged meanwhile");
}

static void forget_for(struct blk *b, void *gone)
{
    if (b->for_blk == gone)
        b->for_blk = NULL;
}

void blk_close(struct blk *b)
{
    if (!b)
        return;
    blk_hold(b);
    assert(!atomic_load(&b->in_flight));
    if (b->change.fn)
        loop_post_cancel(b->dom ? domain_loop(b->dom) : loop_main(), &b->change);
    list_del(&b->link);
    blk_each(forget_for, b);
    blk_turn_forget(NULL, b);
    blk_set_throttle(b, NULL);
    struct blk_node *empty = own_empty(b->node) ? b->node : NULL;
    blk_use_del(&b->use);               /* may be the last to hold the node */
    if (b->leaving)
        blk_hurry_update();
    if (empty)
        obj_del(&empty->obj);
    free(b->drive);
    b->closed = true;
    blk_release(b);
}

/* @d, or what hangs on it, is the user of @b: what a limit holds back would have to be waited for. */
static void leave(struct blk *b, void *arg)
{
    for (const struct dev *d = (struct dev *)b->user; d; d = d->bus ? d->bus->owner : NULL)
        if (d == arg)
            atomic_store(&b->leaving, true);
}

static void device_leaves(struct dev *d)
{
    blk_each(leave, d);
    blk_hurry_update();
}
static const struct dev_farewell farewell = { device_leaves };
DEV_FAREWELL(&farewell);

void blk_each(void (*fn)(struct blk *, void *), void *arg)
{
    struct blk *b;
    list_for_each(b, &all, link)
        fn(b, arg);
}

static bool block_size_ok(const char *name, uint32_t v, struct err *e)
{
    return (v >= 512 && is_pow2(v)) || err_set(e, ERR_VALUE, "%s is %u, but must be a power of two from 512 to 2097152", name, v);
}

/* Fills in what the options leave open, and checks the rest against the node. */
static bool geometry(struct blk_front_opts *o, const struct blk_node *n, struct err *e)
{
    uint32_t least = MAX(n->caps.logical_block, 512u);
    if (n->caps.zoned.size && !o->knows_zones) {
        err_set(e, ERR_VALUE, "'%s' is written in zones, of which this device cannot tell its guest", n->obj.id);
        return err_hint(e, "virtio-blk and scsi-hd can; nvme-ns makes zones of its own (zoned=on)");
    }
    if (!o->logical_block_size)
        o->logical_block_size = least;
    if (!o->physical_block_size)
        o->physical_block_size = MAX(n->caps.physical_block, o->logical_block_size);
    if (!block_size_ok("logical_block_size", o->logical_block_size, e) || !block_size_ok("physical_block_size", o->physical_block_size, e))
        return false;
    if (o->physical_block_size < o->logical_block_size)
        return err_set(e, ERR_VALUE, "physical_block_size (%u) is less than logical_block_size (%u)", o->physical_block_size,
                       o->logical_block_size);
    if (o->logical_block_size < least) {
        err_set(e, ERR_VALUE, "logical_block_size is %u, but '%s' takes requests of %u bytes and up only", o->logical_block_size,
                n->obj.id, least);
        return err_hint(e, "leave it out, or go through the host's cache: cache.direct=off");
    }
    if (o->min_io_size % o->logical_block_size || o->opt_io_size % o->logical_block_size)
        return err_set(e, ERR_VALUE, "min_io_size and opt_io_size must be multiples of logical_block_size (%u)", o->logical_block_size);
    if (!!o->cyls != !!o->heads || !!o->cyls != !!o->secs)
        return err_set(e, ERR_VALUE, "a geometry needs all of cyls, heads and secs");
    return true;
}

/* The device's word, else the drive's, else @usual. */
static enum blk_on_error on_error(int dev, int drive, enum blk_on_error usual)
{
    return dev != BLK_ERR_AUTO ? (enum blk_on_error)dev : drive != BLK_ERR_AUTO ? (enum blk_on_error)drive : usual;
}

/* The node that the options name; where it may be left out, one without a medium. */
static struct blk_node *front_node(struct blk_front_opts *o, struct err *e)
{
    struct blk_node *n = (struct blk_node *)o->drive;
    if (n && (o->may_be_empty || !blk_node_is_empty(n)))
        return n;
    if (n) {
        err_set(e, ERR_VALUE, "drive '%s' is empty: this device needs a medium", n->obj.id);
        err_hint(e, "-drive file=IMAGE,format=raw,if=none,id=%s", n->obj.id);
        return NULL;
    }
    if (o->may_be_empty)
        return blk_empty_node(NULL, e);
    err_set(e, ERR_VALUE, "'drive' is missing: this device needs a block node");
    err_hint(e, "-blockdev node-name=hd0,driver=raw,file.driver=file,file.filename=FILE -device ...,drive=hd0");
    return NULL;
}

static unsigned front_shared(const struct blk_front_opts *o)
{
    return BLK_PERM_READ | BLK_PERM_RESIZE | (o->share_rw ? BLK_PERM_WRITE : 0);
}

struct blk *blk_front_open(struct blk_front_opts *o, struct obj *user, struct domain *dom, bool writable, struct err *e)
{
    struct blk_node *n = front_node(o, e);
    struct blk *b = NULL;
    char who[128];
    if (!n)
        return NULL;
    snprintf(who, sizeof who, "device '%s'", user->id ? user->id : user->cls->name);
    if (geometry(o, n, e))
        b = blk_open(n, writable ? blk_perm_rw(n) : BLK_PERM_READ, front_shared(o), dom, who, e);
    if (!b) {
        if (own_empty(n))
            obj_del(&n->obj);
        return NULL;
    }
    b->user = user;
    b->drive = n->drive ? xstrdup(blk_drive_name(n)) : NULL;
    b->opts = o;
    b->writable = writable;
    b->rerror = on_error(o->rerror, n->drive ? n->drive->rerror : BLK_ERR_AUTO, BLK_ERR_REPORT);
    b->werror = on_error(o->werror, n->drive ? n->drive->werror : BLK_ERR_AUTO, BLK_ERR_ENOSPC);
    bool off = o->write_cache == TRI_AUTO ? n->drive && n->drive->writethrough : o->write_cache == TRI_OFF;
    atomic_store(&b->write_cache, !off);
    if (n->drive && n->drive->throttle_group)
        blk_set_throttle(b, obj_ref(n->drive->throttle_group));
    return b;
}

struct find_user { struct obj *user; struct blk *b; };

static void match_user(struct blk *b, void *arg)
{
    struct find_user *f = arg;
    if (b->user == f->user)
        f->b = b;
}

static bool co_drive_moves(struct obj *user, struct blk_node *to, struct err *e)
{
    struct find_user f = { user, NULL };
    struct blk_drain d;
    blk_each(match_user, &f);
    if (!f.b || f.b->node == to)
        return true;
    struct blk_node *from = f.b->node;
    if (!to || atomic_load(&to->size) != atomic_load(&from->size))
        return err_set(e, ERR_VALUE, "a node of the same length takes the place of '%s' only", from->obj.id);
    if (!blk_node_free_of_jobs(from, e))
        return false;
    co_node_drain(from, &d);            /* holds it */
    bool ok = blk_still_open(f.b, e) && blk_use_move(&f.b->use, to, e);
    blk_drain_end(&d);
    return ok;
}

struct moving { struct obj *user, *to; };

static void moving_keys(struct blk_turn *t, void *arg)
{
    const struct moving *m = arg;
    struct find_user f = { m->user, NULL };
    blk_each(match_user, &f);
    if (f.b)
        blk_turn_add(t, f.b->use.node);
    if (m->to)
        blk_turn_add(t, (struct blk_node *)m->to);
}

/* qom-set of "drive" while the device runs: a filter comes in between, or goes. */
static bool co_drive_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct find_user f = { o, NULL };
    blk_each(match_user, &f);
    if (!f.b)
        return true;
    struct moving m = { o, f.b->opts->drive ? obj_ref(f.b->opts->drive) : NULL };       /* until it is our turn the option may name another */
    struct blk_turn *turn = co_blk_turn_begin(moving_keys, &m);
    bool ok = co_drive_moves(o, (struct blk_node *)m.to, e);
    blk_turn_end(turn);
    obj_unref(m.to);
    return ok;
}

void blk_set_tray(struct blk *b, const struct blk_tray *t, void *arg)
{
    b->tray = t;
    b->tray_arg = arg;
}

bool blk_has_medium(struct blk *b) { return !blk_node_is_empty(b->node); }

/* A use becomes that of another record. */
static void use_hand_over(struct blk_use *from, struct blk_use *to)
{
    struct list *after = from->link.next;
    list_del(&from->link);
    *to = *from;
    list_insert_before(after, &to->link);
}

/* @n in place of what is there, which is given up when that is sure. Drained. */
static bool swap_use(struct blk *b, struct blk_node *n, struct err *e)
{
    struct blk_use old, use = { 0 };
    unsigned perm = b->writable ? blk_perm_rw(n) : BLK_PERM_READ;
    if (!blk_use_add(&use, n, perm, front_shared(b->opts), b->use.who, e))
        return false;
    use.blk = b;
    use_hand_over(&b->use, &old);
    use_hand_over(&use, &b->use);
    domain_lock(b->dom);
    b->node = n;
    atomic_store(&b->may_write, perm & BLK_PERM_WRITE);
    domain_unlock(b->dom);
    blk_use_del(&old);
    return true;
}

static bool co_swap_medium(struct blk *b, struct blk_node *n, struct err *e)
{
    struct blk_node *old = b->node, *to = n ? n : blk_empty_node(NULL, e);
    if (!to)
        return false;
    if (!swap_use(b, to, e)) {
        if (!n)
            obj_del(&to->obj);
        return false;
    }
    obj_unref(b->opts->drive);
    b->opts->drive = n ? obj_ref(&n->obj) : NULL;
    if (blk_node_is_empty(old))         /* a drive's, too: its name is the handle's now */
        obj_del(&old->obj);
    if (b->change.fn)
        domain_post(&b->change);
    return true;
}

bool co_blk_set_medium(struct blk *b, struct blk_node *n, struct err *e)
{
    if (n && n->caps.logical_block > b->opts->logical_block_size)
        return err_set(e, ERR_VALUE, "'%s' has blocks of %u bytes, the drive has %u", n->obj.id, n->caps.logical_block, b->opts->logical_block_size);
    if (n && n->caps.zoned.size)
        return err_set(e, ERR_VALUE, "'%s' is written in zones, which no medium has", n->obj.id);
    co_blk_drain(b);                    /* the guest may close the tray meanwhile, and read */
    struct obj *old = b->closed ? NULL : obj_ref(&b->node->obj);        /* closing it takes its time, which is no time to be in the midst */
    bool ok = blk_still_open(b, e) && co_swap_medium(b, n, e);
    blk_undrain(b);
    obj_unref(old);
    return ok;
}

static bool may_write(struct blk *b) { return atomic_load_explicit(&b->may_write, memory_order_relaxed); }

void blk_get_caps(struct blk *b, struct blk_caps *caps)
{
    *caps = blk_node_of(b)->caps;
    caps->read_only |= !may_write(b);
    if (caps->read_only)
        caps->discard = caps->write_zeroes = caps->secure_erase = caps->flush = caps->fua = false;
}

uint64_t blk_size(struct blk *b) { return atomic_load(&b->node->size); }
struct blk_node *blk_node_of(struct blk *b) { return b->node; }

bool blk_direct(struct blk *b)
{
    const struct blk_node *n = b->node;

    while (n->child.node)
        n = n->child.node;
    return n->direct;
}

bool blk_write_cache(struct blk *b) { return atomic_load(&b->write_cache); }
void blk_set_write_cache(struct blk *b, bool on) { atomic_store(&b->write_cache, on); }

void blk_set_change_cb(struct blk *b, void (*fn)(void *arg), void *arg)
{
    b->change = (struct post){ .fn = fn, .arg = arg, .dom = b->dom };
}

void blk_node_changed(struct blk_node *n)
{
    struct blk_use *u;
    list_for_each(u, &n->uses, link)
        if (u->blk && u->blk->change.fn)
            loop_post(u->blk->dom ? domain_loop(u->blk->dom) : loop_main(), &u->blk->change);
}

/* ---- requests ---- */

/* Counts a request in, once nobody holds requests back. */
static void co_enter(struct blk *b)
{
    atomic_fetch_add(&b->in_flight, 1);
    while (unlikely(atomic_load(&b->gated))) {
        atomic_fetch_sub(&b->in_flight, 1);
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + DRAIN_STEP_NS);
        atomic_fetch_add(&b->in_flight, 1);
    }
}

/* What waits for its turn under the limits is not in flight, and looks again now and then whether they still hold. */
static void co_limit(struct blk *b, bool write, uint64_t len)
{
    struct throttle *t = atomic_load(&b->throttle);
    unsigned changes = atomic_load(&t->changes);
    int64_t at = throttle_book(t, write, len), now;
    while ((now = clock_now(CLOCK_HOST)) < at && atomic_load(&b->throttle) == t && atomic_load(&t->changes) == changes && !atomic_load(&b->leaving)) {
        atomic_fetch_sub(&b->in_flight, 1);
        co_sleep_until(CLOCK_HOST, MIN(at, now + THROTTLE_LOOK_NS));
        co_enter(b);
    }
}

/* The way in of every request. */
static int64_t co_req_begin(struct blk *b, enum blk_op op, uint64_t len)
{
    int64_t start = clock_now(CLOCK_HOST);
    if (b->dom)
        loop_work_begin();
    co_enter(b);
    if (unlikely(atomic_load_explicit(&b->throttle, memory_order_relaxed)) && op != BLK_OP_FLUSH)
        co_limit(b, op != BLK_OP_READ, len);
    return start;
}

void blk_gate(struct blk *b)
{
    blk_hold(b);
    if (!atomic_fetch_add(&b->gated, 1))
        blk_hurry_update();
}

void co_blk_drain(struct blk *b)
{
    blk_gate(b);
    while (atomic_load(&b->in_flight))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + DRAIN_STEP_NS);
}

void blk_undrain(struct blk *b)
{
    if (atomic_fetch_sub(&b->gated, 1) == 1)
        blk_hurry_update();
    blk_release(b);
}

void blk_follow_use(struct blk *b)
{
    atomic_store(&b->node, b->use.node);
    if (b->opts && b->opts->drive) {
        obj_ref(&b->use.node->obj);
        obj_unref(b->opts->drive);
        b->opts->drive = &b->use.node->obj;
    }
}

static int req_end(struct blk *b, enum blk_op op, uint64_t len, int64_t start, int r)
{
    struct blk_op_stats *s = &b->stats[op];
    atomic_fetch_add_explicit(r ? &s->failed : &s->ops, 1, memory_order_relaxed);
    if (!r)
        atomic_fetch_add_explicit(&s->bytes, len, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->ns, (uint64_t)(clock_now(CLOCK_HOST) - start), memory_order_relaxed);
    atomic_fetch_sub(&b->in_flight, 1);
    if (b->dom)
        loop_work_end();
    return r;
}

/* A guest that switched its write cache off gets every write on the disk. */
static unsigned write_flags(struct blk *b, unsigned flags)
{
    return flags | (atomic_load_explicit(&b->write_cache, memory_order_relaxed) ? 0 : BLK_FUA);
}

int co_blk_preadv(struct blk *b, uint64_t off, uint64_t len, struct iovec *iov, unsigned n, unsigned flags)
{
    int64_t t = co_req_begin(b, BLK_OP_READ, len);
    return req_end(b, BLK_OP_READ, len, t, co_node_preadv(b->node, off, len, iov, n, flags));
}

int co_blk_pwritev(struct blk *b, uint64_t off, uint64_t len, struct iovec *iov, unsigned n, unsigned flags)
{
    int64_t t = co_req_begin(b, BLK_OP_WRITE, len);
    int r = may_write(b) ? co_node_pwritev(b->node, off, len, iov, n, write_flags(b, flags)) : -EROFS;
    return req_end(b, BLK_OP_WRITE, len, t, r);
}

int co_blk_zero(struct blk *b, uint64_t off, uint64_t len, unsigned flags)
{
    int64_t t = co_req_begin(b, BLK_OP_WRITE, len);
    int r = may_write(b) ? co_node_zero(b->node, off, len, write_flags(b, flags)) : -EROFS;
    return req_end(b, BLK_OP_WRITE, len, t, r);
}

int co_blk_discard(struct blk *b, uint64_t off, uint64_t len)
{
    int64_t t = co_req_begin(b, BLK_OP_DISCARD, len);
    int r = may_write(b) ? co_node_discard(b->node, off, len) : -EROFS;
    return req_end(b, BLK_OP_DISCARD, len, t, r);
}

int co_blk_erase(struct blk *b, uint64_t off, uint64_t len)
{
    int64_t t = co_req_begin(b, BLK_OP_DISCARD, len);
    int r = may_write(b) ? co_node_erase(b->node, off, len) : -EROFS;

    return req_end(b, BLK_OP_DISCARD, len, t, r);
}

int co_blk_zone_report(struct blk *b, uint64_t off, struct blk_zone *out, unsigned *n)
{
    int64_t t = co_req_begin(b, BLK_OP_READ, 0);

    return req_end(b, BLK_OP_READ, 0, t, co_node_zone_report(b->node, off, out, n));
}

int co_blk_zone_op(struct blk *b, enum zone_op op, uint64_t off)
{
    int64_t t = co_req_begin(b, BLK_OP_DISCARD, 0);
    int r = may_write(b) ? co_node_zone_op(b->node, op, off) : -EROFS;

    r = r || blk_write_cache(b) ? r : co_node_flush(b->node);

    return req_end(b, BLK_OP_DISCARD, 0, t, r);
}

int co_blk_zone_append(struct blk *b, uint64_t *off, uint64_t len, struct iovec *iov, unsigned n)
{
    int64_t t = co_req_begin(b, BLK_OP_WRITE, len);
    int r = may_write(b) ? co_node_zone_append(b->node, off, len, iov, n, write_flags(b, 0)) : -EROFS;

    return req_end(b, BLK_OP_WRITE, len, t, r);
}

int co_blk_flush(struct blk *b)
{
    int64_t t = co_req_begin(b, BLK_OP_FLUSH, 0);
    return req_end(b, BLK_OP_FLUSH, 0, t, co_node_flush(b->node));
}

int co_blk_scsi(struct blk *b, struct blk_scsi *c)
{
    int r;

    co_enter(b);
    r = co_node_scsi(b->node, c);
    atomic_fetch_sub(&b->in_flight, 1);
    return r;
}

int co_blk_map(struct blk *b, uint64_t off, uint64_t len, struct blk_extent *out)
{
    int r;

    co_enter(b);
    r = co_node_map(b->node, off, len, out);
    atomic_fetch_sub(&b->in_flight, 1);
    return r;
}

/* ---- errors ---- */

struct io_error { struct post post; char *device, *node, *reason; bool is_read, enospc; enum blk_action act; };

static const struct qmp_event_def io_error_event = { "BLOCK_IO_ERROR", "A request of a device failed",
    .says = "{device:str, node-name:str, operation:str, action:str, nospace:bool, reason:str}" };
QMP_EVENT(&io_error_event);

static void report_error(void *arg)
{
    static const char *const acts[] = { "report", "ignore", "stop" };
    struct io_error *x = arg;
    qmp_event("BLOCK_IO_ERROR", json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "device", x->device, "node-name", x->node,
        "operation", x->is_read ? "read" : "write", "action", acts[x->act], "nospace", x->enospc, "reason", x->reason));
    free(x->device);
    free(x->node);
    free(x->reason);
    free(x);
}

static void tell_error(struct blk *b, bool is_read, int error, enum blk_action act)
{
    int64_t now = clock_now(CLOCK_HOST), last = atomic_load(&b->last_warning);
    const char *file = blk_node_filename(b->node);
    if (now - last > 1000000000 && atomic_compare_exchange_strong(&b->last_warning, &last, now))
        log_warn("%s: %s of '%s' failed: %s%s", b->use.who, is_read ? "read" : "write", *file ? file : b->node->obj.id,
                 strerror(error), act == BLK_ACT_STOP ? "; the machine is stopped" : "");
    struct io_error *x = xnew(struct io_error);
    *x = (struct io_error){ .device = xstrdup(b->user && b->user->id ? b->user->id : ""), .node = xstrdup(b->node->obj.id),
        .reason = xstrdup(strerror(error)), .is_read = is_read, .enospc = error == ENOSPC, .act = act };
    x->post.fn = report_error;
    x->post.arg = x;
    loop_post(loop_main(), &x->post);
}

enum blk_action blk_error_action(struct blk *b, bool is_read, int error)
{
    enum blk_action act = BLK_ACT_REPORT;
    error = error < 0 ? -error : error;
    switch (is_read ? b->rerror : b->werror) {
    case BLK_ERR_IGNORE: act = BLK_ACT_IGNORE; break;
    case BLK_ERR_STOP: act = BLK_ACT_STOP; break;
    case BLK_ERR_ENOSPC: act = error == ENOSPC ? BLK_ACT_STOP : BLK_ACT_REPORT; break;
    case BLK_ERR_AUTO:
    case BLK_ERR_REPORT: break;
    }
    tell_error(b, is_read, error, act);
    if (act == BLK_ACT_STOP)
        run_request_stop(RUN_IO_ERROR);
    return act;
}
