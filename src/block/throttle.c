/* SPDX-License-Identifier: MIT */
/*
 * "throttle" and its groups. A limit keeps the time at which all that was booked has been worked off at its rate; a request
 * may begin when that time is no further ahead than the burst allows. Nobody is overtaken: requests of a group are booked in order.
 */
#include <stdlib.h>
#include "block/filter.h"
#include "block/throttle.h"
#include "core/run.h"
#include "loop/co.h"

enum { NS = 1000000000, DEFAULT_BURST_MS = 100, LOOK_NS = 50000000 };
#define FAR 9e17                /* ns: nobody sees its end, and times stay far from overflowing */

#define LIMIT(i, nm, what) \
    PROP_SIZE(struct throttle, lim[i].rate, nm, 0, 0, UINT64_C(1) << 50, what " a second; 0: no limit"), \
    PROP_SIZE(struct throttle, lim[i].max, nm "-max", 0, 0, UINT64_C(1) << 50, what " a second for a while"), \
    PROP_U64(struct throttle, lim[i].max_length, nm "-max-length", 1, 1, 3600, "How many seconds that may last")
#define LIMITS(pre) { \
    LIMIT(TH_BPS, pre "bps-total", "Bytes"), LIMIT(TH_BPS_RD, pre "bps-read", "Bytes read"), LIMIT(TH_BPS_WR, pre "bps-write", "Bytes written"), \
    LIMIT(TH_IOPS, pre "iops-total", "Requests"), LIMIT(TH_IOPS_RD, pre "iops-read", "Reads"), LIMIT(TH_IOPS_WR, pre "iops-write", "Writes"), \
    PROP_U64(struct throttle, iops_size, pre "iops-size", 0, 0, UINT64_C(1) << 40, "Bytes that count as one request; 0: any length"), \
    PROP_END }
const struct prop throttle_props[] = LIMITS("x-");
static const struct prop limit_props[] = LIMITS("");    /* the members of a group's `limits` */

struct throttle_group { struct obj obj; struct throttle t; json_t *limits; };

/* A limit as options call it, all but what goes before it there. */
static const char *limit_name(unsigned i) { return limit_props[i * 3].name; }

bool throttle_check(const struct throttle *t, struct err *e)
{
    if ((t->lim[TH_BPS].rate && (t->lim[TH_BPS_RD].rate || t->lim[TH_BPS_WR].rate)) ||
        (t->lim[TH_IOPS].rate && (t->lim[TH_IOPS_RD].rate || t->lim[TH_IOPS_WR].rate)))
        return err_set(e, ERR_VALUE, "a limit of the total and one of reads or writes exclude each other");
    for (unsigned i = 0; i < TH_LIMITS; i++) {
        const struct throttle_limit *l = &t->lim[i];
        const char *name = limit_name(i);
        if (l->max && !l->rate)
            return err_set(e, ERR_VALUE, "a burst rate needs a limit: %s-max has no effect without %s", name, name);
        if (l->max && l->max < l->rate)
            return err_set(e, ERR_VALUE, "a burst rate is less than its limit: %s-max than %s", name, name);
        if (l->max_length > 1 && !l->max)
            return err_set(e, ERR_VALUE, "%s-max-length has no effect without %s-max", name, name);
    }
    if (t->iops_size && !t->lim[TH_IOPS].rate && !t->lim[TH_IOPS_RD].rate && !t->lim[TH_IOPS_WR].rate)
        return err_set(e, ERR_VALUE, "iops-size has no effect without a limit of requests");
    return true;
}

void throttle_set(struct throttle *t, const struct throttle *limits)
{
    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < TH_LIMITS; i++) {
        t->lim[i] = limits->lim[i];
        t->lim[i].next = 0;
    }
    t->iops_size = limits->iops_size;
    atomic_fetch_add(&t->changes, 1);
    pthread_mutex_unlock(&t->lock);
}

/* When @units may begin; they are booked. */
static int64_t book(struct throttle_limit *l, int64_t now, double units)
{
    if (!l->rate)
        return now;
    /* Work that may be owed: a tenth of a second's, or what the higher rate does beyond the limit while it lasts. */
    double ahead = (double)NS * DEFAULT_BURST_MS / 1000;
    if (l->max)
        ahead = (double)NS * (double)(l->max - l->rate) / (double)l->rate * (double)l->max_length + (double)NS * DEFAULT_BURST_MS / 1000;
    int64_t due = MAX(l->next, now), start = due - (int64_t)MIN(ahead, FAR);
    l->next = MIN(due + (int64_t)MIN(units / (double)l->rate * NS, FAR), now + (int64_t)FAR);
    return start;
}

int64_t throttle_book(struct throttle *t, bool write, uint64_t bytes)
{
    int64_t now = clock_now(CLOCK_HOST), at = now;
    pthread_mutex_lock(&t->lock);
    double ops = t->iops_size && bytes > t->iops_size ? (double)bytes / (double)t->iops_size : 1;
    const unsigned which[] = { TH_BPS, write ? TH_BPS_WR : TH_BPS_RD, TH_IOPS, write ? TH_IOPS_WR : TH_IOPS_RD };
    for (unsigned i = 0; i < ARRAY_SIZE(which); i++) {
        int64_t start = book(&t->lim[which[i]], now, i < 2 ? (double)bytes : ops);
        at = MAX(at, start);
    }
    pthread_mutex_unlock(&t->lock);
    return at;
}

void co_throttle(struct throttle *t, const atomic_bool *hurried, bool write, uint64_t bytes)
{
    unsigned changes = atomic_load(&t->changes);
    int64_t at = throttle_book(t, write, bytes), now;
    while ((now = clock_now(CLOCK_HOST)) < at && atomic_load(&t->changes) == changes && !(hurried && atomic_load(hurried)))
        co_sleep_until(CLOCK_HOST, MIN(at, now + LOOK_NS));
}

/* ---- groups ---- */

static bool group_init(struct obj *o, struct err *e)
{
    pthread_mutex_init(&((struct throttle_group *)o)->t.lock, NULL);
    return true;
}
/* `limits` as it is shown: all that holds, wherever it was set. */
static void show_limits(struct throttle_group *g)
{
    struct prop p;
    json_decref(g->limits);
    g->limits = json_object();
    for (size_t i = 0; prop_nth(limit_props, i, &p); i++)
        json_object_set_new(g->limits, p.name, prop_to_json(&p, &g->t, NULL));
}

static bool group_check(struct obj *o, struct err *e)
{
    struct throttle_group *g = (struct throttle_group *)o;
    show_limits(g);
    return throttle_check(&g->t, e);
}

void throttle_group_set(struct obj *group, const struct throttle *limits)
{
    struct throttle_group *g = (struct throttle_group *)group;
    throttle_set(&g->t, limits);
    show_limits(g);
}

/* What `limits` names changes, the rest stays. They are checked together with all others where the group is made. */
static bool limits_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct throttle_group *g = (struct throttle_group *)o;
    struct throttle t = { .iops_size = g->t.iops_size };
    bool made = o->parent != NULL;
    for (unsigned i = 0; i < TH_LIMITS; i++)
        t.lim[i] = (struct throttle_limit){ g->t.lim[i].rate, g->t.lim[i].max, g->t.lim[i].max_length, 0 };
    if (!json_is_object(g->limits))
        return err_set(e, ERR_VALUE, "'limits' holds limits by name: limits.bps-total=...");
    if (!prop_set_all(limit_props, &t, NULL, g->limits, "'limits'", e) || (made && !throttle_check(&t, e)))
        return false;
    throttle_set(&g->t, &t);
    if (made)
        show_limits(g);
    return true;
}

static void group_finalize(struct obj *o) { pthread_mutex_destroy(&((struct throttle_group *)o)->t.lock); }
static bool group_can_delete(struct obj *o, struct err *e)
{
    return atomic_load(&o->refs) <= 1 || err_set(e, ERR_BUSY, "throttle group '%s' is in use", o->id);
}

static const struct prop group_props[] = {
    PROP_INCLUDE(struct throttle_group, t, throttle_props),
    { .name = "limits", .doc = "The same limits by their names without x-; may be changed at any time", .type = PROP_T_JSON, .flags = PF_RUNTIME,
      PROP_OFF(struct throttle_group, limits), .changed = limits_changed },
    PROP_END,
};
const struct obj_class throttle_group_class = {
    .name = "throttle-group", .desc = "Limits that several block nodes share", .size = sizeof(struct throttle_group), .props = group_props,
    .ns = "object", .init = group_init, .check = group_check, .can_delete = group_can_delete, .finalize = group_finalize,
};
OBJ_CLASS(&throttle_group_class);

static bool lift(struct obj *o, void *arg)
{
    throttle_set(&((struct throttle_group *)o)->t, &(struct throttle){ 0 });
    return true;
}

/* Who waits at a limit would keep the program from ending. */
static void lift_all(void) { obj_each(NULL, &throttle_group_class, lift, NULL); }
static const struct run_end limits_end = { "throttle groups", RUN_END_MACHINE - 1, lift_all };
RUN_END(&limits_end);

struct throttle *throttle_of_group(struct obj *group) { return &((struct throttle_group *)group)->t; }

/* ---- the filter ---- */

struct blk_throttle { struct blk_node node; json_t *file; struct obj *group; atomic_bool hurried; };

static void co_take_turn(struct blk_node *n, bool write, uint64_t len)
{
    struct blk_throttle *s = (struct blk_throttle *)n;
    co_throttle(throttle_of_group(s->group), &s->hurried, write, len);
}

static void hurry(struct blk_node *n, bool on) { atomic_store(&((struct blk_throttle *)n)->hurried, on); }

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_throttle *s = (struct blk_throttle *)n;
    if (!s->group)
        return err_set(e, ERR_VALUE, "'throttle-group' is missing");
    return co_filter_open(n, s->file, e);
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    co_take_turn(n, false, len);
    return co_filter_read(n, off, len, iov, niov, flags);
}
static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    co_take_turn(n, true, len);
    return co_filter_write(n, off, len, iov, niov, flags);
}
static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    co_take_turn(n, true, len);
    return co_filter_zero(n, off, len, flags);
}
static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    co_take_turn(n, true, len);
    return co_filter_discard(n, off, len);
}
static const struct prop throttle_node_props[] = {
    PROP_JSON(struct blk_throttle, file, "file", PF_REQUIRED, "Node below"),
    PROP_LINK(struct blk_throttle, group, "throttle-group", &throttle_group_class, PF_REQUIRED, "Group (-object throttle-group) whose limits hold"),
    PROP_END,
};
static const struct blk_driver throttle_driver = {
    .obj = { .name = "blockdev-throttle", .desc = "Requests wait so that the limits of a group hold", .base = &blk_node_class,
             .size = sizeof(struct blk_throttle), .props = throttle_node_props },
    .flags = BLK_FILTER | BLK_ANY_LOOP, .co_open = co_open, .co_close = co_filter_close, .co_preadv = co_read, .co_pwritev = co_write,
    .co_zero = co_zero, .co_discard = co_discard, .co_flush = co_filter_flush, .co_resize = co_filter_resize, .co_map = co_filter_map, .set_perm = blk_pass_perm,
    .hurry = hurry,
};
OBJ_CLASS(&throttle_driver.obj);
