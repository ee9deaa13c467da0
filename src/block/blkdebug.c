/* SPDX-License-Identifier: MIT */
/*
 * "blkdebug": errors at requests, by rules in QEMU's notation: an event in a state makes a rule act (inject-error) or the state change
 * (set-state). The events are those of the requests to this node, or, where the node above is an image that tells what it is about to do
 * (blk_tell()), those: what comes after one is what fails. "faults" has more to say about each rule.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/blkdebug.h"
#include "block/filter.h"
#include "core/run.h"

const char *const blkdebug_events[] = { "none", "read_aio", "write_aio", "flush_to_os", "flush_to_disk", "read_backing_aio", "read_compressed",
    "l1_update", "l1_grow_write_table", "l2_load", "l2_update", "l2_alloc_write", "refblock_load", "refblock_update_part", "refblock_alloc_hookup",
    "refblock_alloc_write_table", "cluster_alloc", "cluster_alloc_bytes", "l1_grow_alloc_table", "l1_grow_activate_table", "l2_alloc_cow_read",
    "write_compressed", "cow_read", "reftable_grow", "refblock_alloc", "refblock_alloc_write", "refblock_alloc_switch_table", "cluster_free",
    "empty_image_prepare", "cor_write", "pwritev", "pwritev_zero", "pwritev_done", NULL };
_Static_assert(ARRAY_SIZE(blkdebug_events) == BLK_EV_COUNT + 1, "a name for each event");
/* QEMU's others, which never come here. */
static const char *const absent_events[] = { "l2_update_compressed", "vmstate_load", "vmstate_save", "cow_write", "reftable_load", "reftable_update", "refblock_update",
    "refblock_alloc_write_blocks", "pwritev_rmw_head", "pwritev_rmw_after_head", "pwritev_rmw_tail", "pwritev_rmw_after_tail", "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters", "cluster_alloc_space", NULL };
static const char *const io_names[] = { "any", "read", "write", "write-zeroes", "discard", "flush", "block-status", NULL };
#define LOOK_NS INT64_C(10000000)
enum { IO_ANY, IO_READ, IO_WRITE, IO_ZERO, IO_DISCARD, IO_FLUSH, IO_STATUS };

struct blkdebug_rule {
    bool set_state;
    int event, iotype;
    uint32_t state, new_state, errno_;
    int64_t sector;
    bool once, immediately, spent, armed;       /* armed: its event came, requests get the error until another rule's comes */
};
/* A breakpoint of a person: one request stops at it, and goes on when it is told to. */
struct breakpoint {
    struct list link;
    char *tag;
    int event;
    enum { BREAK_AHEAD, BREAK_ARMED /* its event was told: the next request is the one */, BREAK_HOLDS } state;
    struct co_event go;
};
struct blk_debug {
    struct blk_node node;
    struct list breaks;
    unsigned n_breaks;
    json_t *image, *inject, *set;
    char *config, **take, **unshare;
    unsigned taken, unshared;       /* the two as BLK_PERM_* */
    uint32_t state;
    uint64_t align, hits;
    struct blkdebug_rule rules[BLKDEBUG_RULES];
    unsigned n;
    bool told;                      /* the node above tells of events: reads and writes are none of themselves */
};
static struct blk_debug *of(struct blk_node *n) { return (struct blk_debug *)n; }

/* ---- rules ---- */

static const struct prop inject_props[] = {
    PROP_ENUM(struct blkdebug_rule, event, "event", blkdebug_events, 0, "When the rule acts; none: at every request"),
    PROP_U32(struct blkdebug_rule, state, "state", 0, 0, INT32_MAX, "In which state; 0: in any"),
    PROP_ENUM(struct blkdebug_rule, iotype, "iotype", io_names, IO_ANY, "At which requests; any: at all but block-status"),
    PROP_U32(struct blkdebug_rule, errno_, "errno", EIO, 0, 4095, "Number of the error; 0: none"),
    PROP_S64(struct blkdebug_rule, sector, "sector", -1, -1, INT64_MAX / 512, "At requests that touch this sector of 512 bytes; -1: any"),
    PROP_BOOL(struct blkdebug_rule, once, "once", false, "At the first such request only"),
    PROP_BOOL(struct blkdebug_rule, immediately, "immediately", false, "Accepted for compatibility: nothing waits before an error"),
    PROP_END,
};
static const struct prop state_props[] = {
    PROP_ENUM(struct blkdebug_rule, event, "event", blkdebug_events, 0, "When the state changes"),
    PROP_U32(struct blkdebug_rule, state, "state", 0, 0, INT32_MAX, "In which state; 0: in any"),
    PROP_U32(struct blkdebug_rule, new_state, "new_state", 1, 0, INT32_MAX, "What the state becomes"),
    PROP_END,
};

static bool add_rule(void *arg, bool set_state, json_t *opts, struct err *e)
{
    struct blk_debug *s = arg;
    const struct prop *rows = set_state ? state_props : inject_props;
    if (s->n == BLKDEBUG_RULES)
        return err_set(e, ERR_VALUE, "there are more than %d rules", BLKDEBUG_RULES);
    if (!json_is_object(opts))
        return err_set(e, ERR_VALUE, "a rule is an object");
    const char *event = json_string_value(json_object_get(opts, "event"));
    if (event && str_in_list(event, absent_events)) {
        err_set(e, ERR_NOT_BUILT, "event '%s' never comes here, so that the rule would do nothing", event);
        return err_hint(e, "of the steps of an image there are: cluster_alloc, l2_load, l2_update, refblock_alloc, ...; -blockdev blkdebug,help");
    }
    struct blkdebug_rule *r = &s->rules[s->n];
    *r = (struct blkdebug_rule){ .set_state = set_state };
    prop_defaults(rows, r);
    if (!prop_set_all(rows, r, NULL, opts, set_state ? "a set-state rule" : "an inject-error rule", e))
        return false;
    s->n++;
    return true;
}

static bool add_rules(struct blk_debug *s, bool set_state, json_t *list, struct err *e)
{
    size_t i;
    json_t *v;
    const char *name = set_state ? "set-state" : "inject-error";
    if (list && !json_is_array(list))
        return err_set(e, ERR_VALUE, "'%s' is a list of rules", name);
    json_array_foreach(list, i, v)
        if (!add_rule(s, set_state, v, e))
            return err_prefix(e, "%s.%zu", name, i);
    return true;
}

/* ---- breakpoints ---- */

static void break_free(struct blk_debug *s, struct breakpoint *b)
{
    list_del(&b->link);
    s->n_breaks--;
    free(b->tag);
    free(b);
}

static void arm_breaks(struct blk_debug *s, int event)
{
    struct breakpoint *b;
    list_for_each(b, &s->breaks, link)
        if (b->event == event && b->state == BREAK_AHEAD)
            b->state = BREAK_ARMED;
}

/* One request stops at one breakpoint, which is gone when it goes on. */
static void co_stop_at_break(struct blk_debug *s, int event)
{
    struct breakpoint *b;
    list_for_each(b, &s->breaks, link) {
        if (b->state == BREAK_HOLDS || (b->state == BREAK_AHEAD && (!event || b->event != event)))
            continue;
        b->state = BREAK_HOLDS;
        co_wait(&b->go);
        break_free(s, b);
        return;
    }
}

static const char *event_name(const void *unused, size_t i) { return i + 1 < BLK_EV_COUNT ? blkdebug_events[i + 1] : NULL; }

bool blkdebug_break(struct blk_node *n, const char *event, const char *tag, struct err *e)
{
    struct blk_debug *s = of(n);
    int ev = BLK_EV_NONE + 1;
    while (ev < BLK_EV_COUNT && !str_eq(blkdebug_events[ev], event))
        ev++;
    if (ev == BLK_EV_COUNT)
        return err_unknown(e, "event", event, "", event_name, NULL);
    if (s->n_breaks == BLKDEBUG_RULES)
        return err_set(e, ERR_STATE, "'%s' has %d breakpoints already", n->obj.id, BLKDEBUG_RULES);
    struct breakpoint *b = xnew(struct breakpoint);
    b->tag = xstrdup(tag);
    b->event = ev;
    list_push(&s->breaks, &b->link);
    s->n_breaks++;
    return true;
}

/* One called @tag (NULL: any) at which nothing was told to go on yet; @holds: at which a request stopped. */
static struct breakpoint *find_break(struct blk_debug *s, const char *tag, bool holds)
{
    struct breakpoint *b;
    list_for_each(b, &s->breaks, link)
        if ((!tag || str_eq(b->tag, tag)) && !b->go.set && (!holds || b->state == BREAK_HOLDS))
            return b;
    return NULL;
}

static void break_release(struct blk_debug *s, struct breakpoint *b)
{
    if (b->state == BREAK_HOLDS)
        co_wake(&b->go);
    else
        break_free(s, b);
}

static bool no_break(const struct blk_node *n, const char *what, const char *tag, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "no %s at '%s' has the tag '%s'", what, n->obj.id, tag);
}

bool blkdebug_resume(struct blk_node *n, const char *tag, struct err *e)
{
    struct breakpoint *b = find_break(of(n), tag, true);
    if (!b)
        return no_break(n, "stopped request", tag, e);
    co_wake(&b->go);
    return true;
}

bool blkdebug_remove_break(struct blk_node *n, const char *tag, struct err *e)
{
    struct blk_debug *s = of(n);
    struct breakpoint *b = find_break(s, tag, false);
    if (!b)
        return no_break(n, "breakpoint", tag, e);
    for (; b; b = find_break(s, tag, false))
        break_release(s, b);
    return true;
}

bool co_blkdebug_wait_break(struct blk_node *n, const char *tag, struct err *e)
{
    struct blk_debug *s = of(n);
    struct breakpoint *b = NULL;
    obj_ref(&n->obj);                   /* it may be deleted meanwhile, which nothing tells */
    while (n->obj.in_tree && (b = find_break(s, tag, false)) && !find_break(s, tag, true))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + LOOK_NS);
    bool ok = (n->obj.in_tree && b) || no_break(n, "breakpoint", tag, e);
    obj_unref(&n->obj);
    return ok;
}

static void end_breaks(struct blk_debug *s)
{
    struct breakpoint *b;
    while ((b = find_break(s, NULL, false)))
        break_release(s, b);
}

/* ---- requests ---- */

/* Rules of the event that act in this state stand ready, in place of those of an event before it; then the state changes. */
static void happens(struct blk_debug *s, int event)
{
    uint32_t now = s->state;
    bool any = false;
    for (unsigned i = 0; i < s->n; i++) {
        struct blkdebug_rule *r = &s->rules[i];
        if (!event || r->spent || r->event != event || (r->state && r->state != now))
            continue;
        if (r->set_state) {
            s->state = r->new_state;
            continue;
        }
        for (unsigned k = 0; k < s->n && !any; k++)
            s->rules[k].armed = false;
        r->armed = any = true;
    }
}

/* What comes next is what the event is about. */
static void told(struct blk_node *n, enum blk_event event)
{
    of(n)->told = true;
    happens(of(n), event);
    arm_breaks(of(n), event);
}

static bool hits(const struct blkdebug_rule *r, uint32_t state, int io, uint64_t off, uint64_t len)
{
    if (r->set_state || r->spent || (r->event ? !r->armed : r->state && r->state != state))
        return false;
    if (r->iotype == IO_ANY ? io == IO_STATUS : r->iotype != io)
        return false;
    return r->sector < 0 || (io != IO_FLUSH && ranges_overlap(off, len, (uint64_t)r->sector * 512, 512));
}

/* Of requests: where the node above tells of its steps, reads and writes are none of themselves. */
static void co_comes(struct blk_debug *s, int event)
{
    if (s->told && (event == BLK_EV_READ_AIO || event == BLK_EV_WRITE_AIO))
        event = BLK_EV_NONE;
    happens(s, event);
    co_stop_at_break(s, event);
}

/* 0, or the error that this request gets. */
static int co_at_request(struct blk_debug *s, int event, int io, uint64_t off, uint64_t len)
{
    uint32_t state = s->state;
    co_comes(s, event);
    for (unsigned i = 0; i < s->n; i++) {
        struct blkdebug_rule *r = &s->rules[i];
        if (!hits(r, state, io, off, len))
            continue;
        r->spent = r->once;
        s->hits++;
        return -(int)r->errno_;
    }
    return 0;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_at_request(of(n), BLK_EV_READ_AIO, IO_READ, off, len);
    return r ? r : co_filter_read(n, off, len, iov, niov, flags);
}
/* A write comes, and is done: the last error loses nothing but the answer. */
static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    co_comes(of(n), BLK_EV_WRITE_AIO);
    int r = co_at_request(of(n), BLK_EV_PWRITEV, IO_WRITE, off, len);
    r = r ? r : co_filter_write(n, off, len, iov, niov, flags);
    return r ? r : co_at_request(of(n), BLK_EV_PWRITEV_DONE, IO_WRITE, off, len);
}
static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = co_at_request(of(n), BLK_EV_PWRITEV_ZERO, IO_ZERO, off, len);
    r = r ? r : co_filter_zero(n, off, len, flags);
    return r ? r : co_at_request(of(n), BLK_EV_PWRITEV_DONE, IO_ZERO, off, len);
}
static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    int r = co_at_request(of(n), BLK_EV_NONE, IO_DISCARD, off, len);
    return r ? r : co_filter_discard(n, off, len);
}
/* To the host, then to its disk: two events. */
static int co_flush(struct blk_node *n)
{
    co_comes(of(n), BLK_EV_FLUSH_TO_OS);
    int r = co_at_request(of(n), BLK_EV_FLUSH_TO_DISK, IO_FLUSH, 0, 0);
    return r ? r : co_filter_flush(n);
}
static int co_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct blk_debug *s = of(n);
    uint64_t from = UINT64_MAX, to = 0;
    int r = co_at_request(s, BLK_EV_NONE, IO_STATUS, off, len);
    for (unsigned i = 0; i < s->n; i++) {
        const struct blkdebug_rule *q = &s->rules[i];
        if (q->set_state || q->spent || (q->event && !q->armed && q->event != BLK_EV_READ_AIO) || (q->iotype != IO_ANY && q->iotype != IO_READ))
            continue;
        from = q->sector < 0 ? 0 : MIN(from, (uint64_t)q->sector * 512);
        to = q->sector < 0 ? UINT64_MAX : MAX(to, (uint64_t)q->sector * 512 + 512);
    }
    return r ? r : co_filter_map_read(n, off, len, out, from, to);
}

/* ---- life ---- */

struct config_read { struct blk_debug *s; struct err *e; bool ok; };

/* In a worker: the file may be a pipe that nobody writes yet. */
static int read_config(void *arg)
{
    struct config_read *r = arg;
    r->ok = blkdebug_read_config(r->s->config, add_rule, r->s, r->e);
    return 0;
}

static bool co_read_config(struct blk_debug *s, struct err *e)
{
    struct config_read r = { s, e, false };
    co_offload(read_config, &r);
    return r.ok;
}

/* The permissions of the list of names @v (may be NULL). */
static bool read_perms(char **v, unsigned *perms, struct err *e)
{
    static const struct { const char *name; unsigned perm; } names[] = {
        { "consistent-read", BLK_PERM_READ }, { "write", BLK_PERM_WRITE }, { "resize", BLK_PERM_RESIZE } };
    for (; v && *v; v++) {
        size_t i = 0;
        while (i < ARRAY_SIZE(names) && strcmp(names[i].name, *v))
            i++;
        if (i == ARRAY_SIZE(names)) {
            err_set(e, ERR_VALUE, "'%.80s' is no permission that block nodes have here", *v);
            return err_hint(e, "consistent-read, write, resize");
        }
        *perms |= names[i].perm;
    }
    return true;
}

static bool set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    return blk_pass_perm(n, perm | of(n)->taken, shared & ~of(n)->unshared, e);
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_debug *s = of(n);
    s->state = 1;
    list_init(&s->breaks);
    if (!read_perms(s->take, &s->taken, e))
        return err_prefix(e, "take-child-perms");
    if (!read_perms(s->unshare, &s->unshared, e))
        return err_prefix(e, "unshare-child-perms");
    if (s->config && !co_read_config(s, e))
        return false;
    if (!add_rules(s, false, s->inject, e) || !add_rules(s, true, s->set, e) || !co_filter_open(n, s->image, e) ||
        !set_perm(n, 0, BLK_PERM_ALL, e))
        return false;
    n->caps.physical_block = MAX(n->caps.physical_block, (uint32_t)s->align);
    return true;
}

static void co_debug_close(struct blk_node *n)
{
    end_breaks(of(n));
    co_filter_close(n);
}

static const struct prop props[] = {
    PROP_JSON(struct blk_debug, image, "image", PF_REQUIRED, "Node below"),
    PROP_STR(struct blk_debug, config, "config", 0, "File of rules: sections [inject-error] and [set-state] with lines KEY = \"VALUE\""),
    PROP_JSON(struct blk_debug, inject, "inject-error", 0, "List of rules: event, state, iotype, errno, sector, once (inject-error.0.errno=28)"),
    PROP_JSON(struct blk_debug, set, "set-state", 0, "List of rules: event, state, new_state"),
    PROP_STRV(struct blk_debug, take, "take-child-perms", "What it does to the node below beyond what its users do: consistent-read, write, resize"),
    PROP_STRV(struct blk_debug, unshare, "unshare-child-perms", "What it lets no other do there beyond what its users do not: consistent-read, write, resize"),
    { .name = "align", .doc = "Physical block size that the node claims at least; requests may still be smaller", .type = PROP_T_SIZE, .flags = PF_POW2,
      PROP_OFF(struct blk_debug, align), .def = 512, .min = 512, .max = 64 * 1024 },
    { .name = "hits", .doc = "Requests that got an error so far", .type = PROP_T_U64, .flags = PF_READONLY, PROP_OFF(struct blk_debug, hits) },
    PROP_END,
};
static const struct blk_driver debug_driver = {
    .obj = { .name = "blockdev-blkdebug", .desc = "Errors at requests, by rules as QEMU's; for tests", .base = &blk_node_class,
             .size = sizeof(struct blk_debug), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_debug_close, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_discard = co_discard, .co_flush = co_flush, .co_resize = co_filter_resize, .co_map = co_map, .set_perm = set_perm, .event = told,
};
OBJ_CLASS(&debug_driver.obj);

struct blk_node *blkdebug_below(struct blk_node *n)
{
    while (n && BLK_DRIVER(n) != &debug_driver)
        n = n->child.node;
    return n;
}

static bool end_breaks_of(struct obj *o, void *unused)
{
    if (BLK_DRIVER(o) == &debug_driver && ((struct blk_node *)o)->is_open)
        end_breaks((struct blk_debug *)o);
    return true;
}

/* Who ends waits for requests. */
static void end_all_breaks(void) { obj_each(NULL, &blk_node_class, end_breaks_of, NULL); }
static const struct run_end breaks_end = { "breakpoints", RUN_END_MACHINE - 10, end_all_breaks };
RUN_END(&breaks_end);
