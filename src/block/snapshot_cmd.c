/* SPDX-License-Identifier: MIT */
/* blockdev-snapshot, blockdev-snapshot-sync: a new layer on top of a node that devices use. They never notice. */
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
#include "block/blk_int.h"
#include "core/cmd.h"

enum { MAX_USERS = 64 };

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

/* Handles of @n that write or may: they move. Anybody else that writes to it is in the way. */
static bool find_users(struct blk_node *n, struct blk **users, unsigned *count, struct err *e)
{
    struct blk_use *u;
    *count = 0;
    list_for_each(u, &n->uses, link) {
        if (u->blk && *count < MAX_USERS)
            users[(*count)++] = u->blk;
        else if (u->perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE))
            return err_set(e, ERR_BUSY, "block node '%s' is in use by %s, which writes", n->obj.id, u->who);
    }
    return true;
}

/* @b uses @to from now on. It is drained. */
static bool move_user(struct blk *b, struct blk_node *to, struct err *e)
{
    unsigned perm = b->use.perm, shared = b->use.shared;
    char *who = xstrdup(b->use.who);
    blk_use_del(&b->use);
    bool ok = blk_use_add(&b->use, to, perm, shared, who, e);
    if (ok) {
        b->use.blk = b;
        atomic_store(&b->node, to);
    }
    free(who);
    return ok;
}

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

static bool co_put_on_top(struct blk_node *n, struct blk_node *top, struct err *e)
{
    struct blk *users[MAX_USERS];
    unsigned count, moved = 0;
    char who[160];
    if (!can_be_top(n, top, e) || !find_users(n, users, &count, e))
        return false;
    for (unsigned i = 0; i < count; i++)
        co_blk_drain(users[i]);
    int r = co_node_flush(n);
    bool ok = !r || err_os(e, -r, "cannot flush '%s'", n->obj.id);
    while (ok && moved < count) {
        ok = move_user(users[moved], top, e);
        moved++;
    }
    snprintf(who, sizeof who, "block node '%s'", top->obj.id);
    ok = ok && blk_use_add(&top->backing, n, BLK_PERM_READ, BLK_PERM_READ, who, e);
    for (unsigned i = 0; i < moved && !ok; i++) {       /* back to where they were, which was possible before */
        struct err ignored = ERR_INIT;
        bool back = move_user(users[i], n, &ignored);
        (void)back;
    }
    if (ok && n->drive) {
        top->drive = n->drive;
        n->drive = NULL;
        if (!top->drive->device)
            top->drive->device = xstrdup(n->obj.id);
    }
    for (unsigned i = 0; i < count; i++)
        blk_undrain(users[i]);
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

static bool make_image(const struct sync_args *a, struct blk_node *n, struct err *e)
{
    const char *file = blk_node_filename(n);
    char *full = *file ? realpath(file, NULL) : NULL;
    json_t *o = json_pack("{s:I, s:s, s:s}", "size", (json_int_t)atomic_load(&n->size), "backing_file", full ? full : file, "backing_fmt",
                          n->obj.cls->name + strlen("blockdev-"));
    bool ok = blk_image_create(a->file, a->format, o, false, e);
    json_decref(o);
    free(full);
    return ok;
}

static json_t *co_snapshot_sync(void *args, struct err *e)
{
    static unsigned count;
    struct sync_args *a = args;
    const char *name = a->node ? a->node : a->device;
    char made[32];
    if (!name) {
        err_set(e, ERR_VALUE, "'device' or 'node-name' is missing");
        return NULL;
    }
    struct blk_node *n = blk_node_find(name, e);
    if (!n || (a->mode == 0 && !make_image(a, n, e)))
        return NULL;
    snprintf(made, sizeof made, "snapshot%u", count++);
    json_t *o = json_pack("{s:s, s:s, s:n, s:b, s:s, s:{s:s, s:s}}", "driver", a->format, "node-name", a->name ? a->name : made, "backing",
                          "cache.direct", n->direct, "discard", n->discard == BLK_DISCARD_UNMAP ? "unmap" : "ignore",
                          "file", "driver", "file", "filename", a->file);
    struct blk_node *top = blk_node_create(o, e);
    json_decref(o);
    if (!top)
        return NULL;
    if (co_put_on_top(n, top, e))
        return json_object();
    obj_del(&top->obj);
    return NULL;
}

#define ROW(var, nm, ds, ...) static const struct qmp_cmd var = { .name = nm, .doc = ds, __VA_ARGS__ }; QMP_CMD(&var)
ROW(cmd_snapshot, "blockdev-snapshot", "Puts a node on top of another, whose users move to it", .args = snapshot_props,
    .args_size = sizeof(struct args), .co_run = co_snapshot);
ROW(cmd_snapshot_sync, "blockdev-snapshot-sync", "Creates an image and puts it on top of a node", .args = sync_props,
    .args_size = sizeof(struct sync_args), .co_run = co_snapshot_sync);
