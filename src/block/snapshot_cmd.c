/* SPDX-License-Identifier: MIT */
/* blockdev-snapshot, blockdev-snapshot-sync: a new layer on top of a node that devices use. They never notice. */
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "block/mirror.h"
#include "block/transaction.h"
#include "core/cmd.h"

struct drive_find { const char *name; struct blk_node *found; };

static bool match_drive(struct obj *o, void *arg)
{
    struct drive_find *f = arg;
    struct blk_node *n = (struct blk_node *)o;
    if (n->drive && n->drive->device && !strcmp(n->drive->device, f->name))
        f->found = n;
    return !f->found;
}

struct blk_node *blk_node_find(const char *name, struct err *e)
{
    struct drive_find f = { name, NULL };
    obj_each(NULL, &blk_node_class, match_drive, &f);
    return f.found ? f.found : (struct blk_node *)obj_lookup(&blk_node_class, name, e);
}

/* ---- the switch ---- */

static bool is_elsewhere(struct obj *o, void *n) { return ((struct blk_node *)o)->backing.node != n; }

static bool can_be_top(const struct blk_node *n, const struct blk_node *top, struct err *e)
{
    if (!BLK_DRIVER(top)->co_set_backing)
        return err_set(e, ERR_VALUE, "block node '%s' cannot have a backing node", top->obj.id);
    if (n == top)
        return err_set(e, ERR_VALUE, "block node '%s' cannot be on top of itself", n->obj.id);
    if (!top->obj.in_tree)
        return err_set(e, ERR_NOT_FOUND, "block node '%s' was deleted meanwhile", top->obj.id);
    if (!obj_each(NULL, &blk_node_class, is_elsewhere, (void *)n))
        return err_set(e, ERR_BUSY, "block node '%s' is below another image, which names it", n->obj.id);
    if (top->backing.node)
        return err_set(e, ERR_STATE, "block node '%s' has a backing node already", top->obj.id), err_hint(e, "blockdev-add it with \"backing\": null");
    if (!list_empty(&top->uses))
        return err_set(e, ERR_BUSY, "block node '%s' is in use", top->obj.id);
    if (atomic_load(&top->size) < atomic_load(&n->size))
        return err_set(e, ERR_VALUE, "block node '%s' is smaller than '%s'", top->obj.id, n->obj.id);
    return true;
}

/* Below another layer nothing writes to it: its file can be opened by others who only read, too. */
static void co_settle_below(struct blk_node *n)
{
    struct blk_node *image = blk_skip_filters(n);
    struct err e = ERR_INIT;
    if (image->perm & BLK_PERM_WRITE)
        return;
    if (!co_node_set_writable(image, false, &e) || (n != image && !co_node_set_writable(n, false, &e)))
        err_print(&e);
}

/* The mirror of co_put_on_top(). What cannot be undone stays whole: the users on top of what is below. */
static void co_take_off(struct txn_act *t)
{
    struct blk_node *n = t->node, *top = t->top;
    struct blk_drain d;
    struct err e = ERR_INIT;
    co_node_drain(n, &d);
    obj_ref(&top->obj);
    if ((t->was_read_only || co_node_set_writable(n, true, &e)) && blk_use_change(&top->backing, BLK_PERM_READ, BLK_PERM_ALL, &e) &&
        blk_node_replace(top, n, &e))
        blk_use_del(&top->backing);
    else
        err_print(&e);
    obj_unref(&top->obj);
    blk_drain_end(&d);
}

static bool co_put_on_top(struct txn_act *t, struct err *e)
{
    struct blk_node *n = t->node, *top = t->top;
    struct blk_drain d;
    t->was_read_only = n->caps.read_only;
    if (!blk_node_free_of_jobs(n, e) || !can_be_top(n, top, e))
        return false;
    obj_ref(&top->obj);
    co_node_drain(n, &d);
    int r = co_node_flush(n);
    bool ok = !r || err_os(e, -r, "cannot flush '%s'", n->obj.id);
    ok = ok && can_be_top(n, top, e);       /* that took time */
    ok = ok && blk_child_attach(top, &top->backing, n, BLK_PERM_READ, BLK_PERM_READ | BLK_PERM_WRITE, e);
    if (ok && !(blk_node_replace(n, top, e) && blk_use_change(&top->backing, BLK_PERM_READ, BLK_PERM_READ, e))) {
        blk_use_del(&top->backing);
        ok = false;
    }
    if (ok)
        co_settle_below(n);
    blk_drain_end(&d);
    obj_unref(&top->obj);
    return ok;
}

/* ---- commands, and actions of transactions ---- */

struct args { char *node, *overlay; };
static const struct prop snapshot_props[] = {
    PROP_STR(struct args, node, "node", PF_REQUIRED, "Node that becomes read-only, below"),
    PROP_STR(struct args, overlay, "overlay", PF_REQUIRED, "Node that takes what is written from now on"),
    PROP_END,
};
static const char *node_of(const void *args) { return ((const struct args *)args)->node; }

static bool co_snapshot(struct txn_act *t, struct err *e)
{
    struct args *a = t->args;
    t->node = blk_node_find(a->node, e);
    t->top = t->node ? (struct blk_node *)obj_lookup(&blk_node_class, a->overlay, e) : NULL;
    return t->top && co_put_on_top(t, e);
}

static const char *const modes[] = { "absolute-paths", "existing", NULL };
struct sync_args { char *device, *node, *file, *name, *format; int mode; };
static const struct prop sync_props[] = {
    PROP_STR(struct sync_args, device, "device", 0, "Drive whose top gets a new layer"),
    PROP_STR(struct sync_args, node, "node-name", 0, "Or the node"),
    PROP_STR(struct sync_args, file, "snapshot-file", PF_REQUIRED, "The new image"),
    PROP_STR(struct sync_args, name, "snapshot-node-name", 0, "Name of its node"),
    PROP_STR_DEF(struct sync_args, format, "format", "qcow2", "Format of the new image"),
    PROP_ENUM(struct sync_args, mode, "mode", modes, 0, "absolute-paths: it is created; existing: it is there"),
    PROP_END,
};

static const char *sync_node_of(const void *args)
{
    const struct sync_args *a = args;
    return a->node ? a->node : a->device;
}

/* The node that gets a layer now, and what layer; NULL with @e filled. */
static struct blk_node *sync_target(const struct sync_args *a, struct blk_target *x, struct err *e)
{
    struct blk_node *n = blk_node_find(sync_node_of(a), e);
    if (!n || !blk_node_free_of_jobs(n, e))
        return NULL;
    *x = (struct blk_target){ .file = a->file, .format = a->format, .node_name = a->name, .snapshot = true, .existing = a->mode == 1,
        .direct = n->direct, .discard = n->discard == BLK_DISCARD_UNMAP, .size = atomic_load(&n->size), .backing = blk_skip_filters(n) };
    return n;
}

static bool co_sync_open(struct txn_act *t, struct err *e)
{
    struct blk_target x;
    if (!sync_node_of(t->args))
        return err_set(e, ERR_VALUE, "'device' or 'node-name' is missing");
    return sync_target(t->args, &x, e) && co_target_open(t, &x, e);
}

static bool co_snapshot_sync(struct txn_act *t, struct err *e)
{
    struct blk_target x;
    t->node = sync_target(t->args, &x, e);
    return co_target_done(t, t->node && co_target_ready(t, &x, e) && co_put_on_top(t, e));
}

#define ACTION(var, nm, ds, rows, type_, fn, node_, ...) \
    static const struct txn_action var = { .type = nm, .props = rows, .args_size = sizeof(type_), .node = node_, .co_prepare = fn, \
        .co_abort = co_take_off, __VA_ARGS__ }; \
    TXN_ACTION(&var); \
    static json_t *co_cmd_##var(void *args, struct err *e) { return co_txn_alone(&var, args, e); } \
    static const struct qmp_cmd cmd_##var = { nm, ds, rows, sizeof(type_), co_cmd_##var, .ret = qmp_nothing, .turn = &blk_graph_turn }; QMP_CMD(&cmd_##var)
ACTION(snapshot, "blockdev-snapshot", "Puts a node on top of another, whose users move to it", snapshot_props, struct args, co_snapshot, node_of);
ACTION(snapshot_sync, "blockdev-snapshot-sync", "Creates an image and puts it on top of a node", sync_props, struct sync_args, co_snapshot_sync,
       sync_node_of, .co_open = co_sync_open, .co_forget = co_target_forget);
