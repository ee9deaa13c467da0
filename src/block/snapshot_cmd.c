/* SPDX-License-Identifier: MIT */
/* blockdev-snapshot, blockdev-snapshot-sync: a new layer on top of a node that devices use. They never notice. */
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "block/mirror.h"
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

static bool can_be_top(const struct blk_node *n, const struct blk_node *top, struct err *e)
{
    if (!BLK_DRIVER(top)->co_set_backing)
        return err_set(e, ERR_VALUE, "block node '%s' cannot have a backing node", top->obj.id);
    if (top->backing.node)
        return err_hint(e, "blockdev-add it with \"backing\": null"), err_set(e, ERR_STATE, "block node '%s' has a backing node already", top->obj.id);
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

static bool co_put_on_top(struct blk_node *n, struct blk_node *top, struct err *e)
{
    struct blk_drain d;
    if (!blk_node_free_of_jobs(n, e) || !can_be_top(n, top, e))
        return false;
    co_node_drain(n, &d);
    int r = co_node_flush(n);
    bool ok = !r || err_os(e, -r, "cannot flush '%s'", n->obj.id);
    ok = ok && blk_child_attach(top, &top->backing, n, BLK_PERM_READ, BLK_PERM_READ | BLK_PERM_WRITE, e);
    if (ok && !(blk_node_replace(n, top, NULL, e) && blk_use_change(&top->backing, BLK_PERM_READ, BLK_PERM_READ, e))) {
        blk_use_del(&top->backing);
        ok = false;
    }
    if (ok)
        co_settle_below(n);
    blk_drain_end(&d);
    return ok;
}

/* ---- commands ---- */

struct args { char *node, *overlay; };
static const struct prop snapshot_props[] = {
    PROP_STR(struct args, node, "node", PF_REQUIRED, "Node that becomes read-only, below"),
    PROP_STR(struct args, overlay, "overlay", PF_REQUIRED, "Node that takes what is written from now on"),
    PROP_END,
};

static json_t *co_snapshot(void *args, struct err *e)
{
    struct args *a = args;
    struct blk_node *n = blk_node_find(a->node, e);
    struct blk_node *top = n ? (struct blk_node *)obj_lookup(&blk_node_class, a->overlay, e) : NULL;
    return top && co_put_on_top(n, top, e) ? json_object() : NULL;
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

static json_t *co_snapshot_sync(void *args, struct err *e)
{
    struct sync_args *a = args;
    const char *name = a->node ? a->node : a->device;
    if (!name) {
        err_set(e, ERR_VALUE, "'device' or 'node-name' is missing");
        return NULL;
    }
    struct blk_node *n = blk_node_find(name, e);
    if (!n || !blk_node_free_of_jobs(n, e))
        return NULL;
    const struct blk_target t = { .file = a->file, .format = a->format, .node_name = a->name, .snapshot = true, .existing = a->mode == 1,
        .direct = n->direct, .discard = n->discard == BLK_DISCARD_UNMAP, .size = atomic_load(&n->size), .backing = blk_skip_filters(n) };
    struct blk_node *top = blk_target_open(&t, e);
    if (!top)
        return NULL;
    if (co_put_on_top(n, top, e))
        return json_object();
    blk_node_drop(top);
    return NULL;
}

#define ROW(var, nm, ds, ...) static const struct qmp_cmd var = { .name = nm, .doc = ds, __VA_ARGS__ }; QMP_CMD(&var)
ROW(cmd_snapshot, "blockdev-snapshot", "Puts a node on top of another, whose users move to it", .args = snapshot_props,
    .args_size = sizeof(struct args), .co_run = co_snapshot);
ROW(cmd_snapshot_sync, "blockdev-snapshot-sync", "Creates an image and puts it on top of a node", .args = sync_props,
    .args_size = sizeof(struct sync_args), .co_run = co_snapshot_sync);
