/* SPDX-License-Identifier: MIT */
/* Snapshots inside an image: blockdev-snapshot-internal-sync, blockdev-snapshot-delete-internal-sync; change-backing-file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "block/transaction.h"
#include "core/cmd.h"

struct args { char *device, *name, *id; };
static const struct prop create_props[] = {
    PROP_STR(struct args, device, "device", PF_REQUIRED, "Drive or node"),
    PROP_STR(struct args, name, "name", PF_REQUIRED, "Name of the snapshot"), PROP_END };
static const struct prop delete_props[] = {
    PROP_STR(struct args, device, "device", PF_REQUIRED, "Drive or node"),
    PROP_STR(struct args, id, "id", 0, "Number of the snapshot"), PROP_STR(struct args, name, "name", 0, "Its name"), PROP_END };

static const char *node_of(const void *args) { return ((const struct args *)args)->device; }

static struct blk_node *find(const char *device, struct err *e)
{
    struct blk_node *n = blk_skip_filters(blk_node_find(device, e));
    if (n && !BLK_DRIVER(n)->snap)
        return err_set(e, ERR_VALUE, "Block format '%s' used by device '%s' does not support internal snapshots",
                       n->obj.cls->name + strlen("blockdev-"), device), NULL;
    return n && blk_node_free_of_jobs(n, e) ? n : NULL;
}

static json_t *snap_json(const struct blk_snap *s)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "id", s->id, "name", s->name, "vm-state-size", (json_int_t)s->vm_size, "date-sec",
                     (json_int_t)s->sec, "date-nsec", (json_int_t)s->nsec, "vm-clock-sec", (json_int_t)(s->vm_clock / 1000000000), "vm-clock-nsec",
                     (json_int_t)(s->vm_clock % 1000000000));
}

/* The snapshot with both, where given. *@out: what QMP tells of it, NULL: there is none. */
static int co_look(struct blk_node *n, const char *id, const char *name, json_t **out)
{
    struct blk_snap *v;
    unsigned count;
    int r = BLK_DRIVER(n)->snap->list(n, &v, &count);
    *out = NULL;
    for (unsigned i = 0; i < count && !r; i++)
        if (!*out && (!id || !strcmp(v[i].id, id)) && (!name || !strcmp(v[i].name, name)))
            *out = snap_json(&v[i]);
    if (!r)
        blk_snaps_free(v, count);
    return r;
}

static bool co_create(struct txn_act *t, struct err *e)
{
    struct args *a = t->args;
    struct blk_node *n = t->node = find(a->device, e);
    int64_t now = clock_now(CLOCK_WALL);
    json_t *there;
    if (!n)
        return false;
    if (!*a->name)
        return err_set(e, ERR_VALUE, "Name is empty");
    if (n->caps.read_only)
        return err_set(e, ERR_STATE, "Device '%s' is read only", a->device);
    int r = co_look(n, NULL, a->name, &there);
    json_decref(there);
    if (there)
        return err_set(e, ERR_BUSY, "Snapshot with name '%s' already exists on device '%s'", a->name, a->device);
    const struct blk_snap s = { .name = a->name, .sec = (uint64_t)(now / 1000000000), .nsec = (uint64_t)(now % 1000000000),
                                .vm_clock = (uint64_t)clock_now(CLOCK_VM) };
    r = r ? r : BLK_DRIVER(n)->snap->create(n, &s);
    if (r == -EOVERFLOW)
        return err_set(e, ERR_VALUE, "Failed to create snapshot '%s' on device '%s': the image's refcounts are too narrow for one more", a->name, a->device);
    return !r || err_os(e, -r, "Failed to create snapshot '%s' on device '%s'", a->name, a->device);
}

static void co_uncreate(struct txn_act *t)
{
    struct args *a = t->args;
    int r = BLK_DRIVER(t->node)->snap->del(t->node, a->name);
    struct err e = ERR_INIT;
    if (r && !err_os(&e, -r, "cannot delete snapshot '%s' again", a->name))
        err_print(&e);
}

static const struct txn_action create = { .type = "blockdev-snapshot-internal-sync", .props = create_props, .args_size = sizeof(struct args),
    .node = node_of, .co_prepare = co_create, .co_abort = co_uncreate };
TXN_ACTION(&create);
static json_t *co_cmd_create(void *args, struct err *e) { return co_txn_alone(&create, args, e); }

static json_t *co_cmd_delete(void *args, struct err *e)
{
    struct args *a = args;
    struct blk_node *n = find(a->device, e);
    json_t *there = NULL;
    if (!n)
        return NULL;
    if (!a->id && !a->name)
        return err_set(e, ERR_VALUE, "Name and id are both NULL"), NULL;
    int r = co_look(n, a->id, a->name, &there);
    if (!r && !there)
        return err_set(e, ERR_UNKNOWN, "Snapshot with id '%s' and name '%s' does not exist on device '%s'", a->id ? a->id : "NULL",
                       a->name ? a->name : "NULL", a->device), NULL;
    r = r ? r : BLK_DRIVER(n)->snap->del(n, json_string_value(json_object_get(there, "id")));
    if (!r)
        return there;
    json_decref(there);
    return err_os(e, -r, "Failed to delete the snapshot on device '%s'", a->device), NULL;
}

static const struct qmp_cmd cmd_create = { "blockdev-snapshot-internal-sync", "Makes a snapshot inside an image",
    create_props, sizeof(struct args), co_cmd_create, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_create);
static const struct qmp_cmd cmd_delete = { "blockdev-snapshot-delete-internal-sync", "Deletes a snapshot inside an image",
    delete_props, sizeof(struct args), co_cmd_delete, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_delete);

/* ---- change-backing-file ---- */

struct backing_args { char *device, *image, *file; };
static const struct prop backing_props[] = {
    PROP_STR(struct backing_args, device, "device", PF_REQUIRED, "Drive or node on top of the chain"),
    PROP_STR(struct backing_args, image, "image-node-name", PF_REQUIRED, "Node of the image that is changed"),
    PROP_STR(struct backing_args, file, "backing-file", PF_REQUIRED, "What the image calls its backing file from now on; nothing is moved"), PROP_END };

static json_t *co_change_backing(void *args, struct err *e)
{
    struct backing_args *a = args;
    struct blk_node *top = blk_node_find(a->device, e), *n = top ? blk_node_find(a->image, e) : NULL;
    struct blk_drain d;
    if (!n || !blk_node_free_of_jobs(n, e))
        return NULL;
    struct blk_node *below = blk_chain_next(n);
    if (!blk_chain_has(top, n) || !below || !BLK_DRIVER(n)->co_set_backing)
        return err_set(e, ERR_VALUE, "not allowing backing file change on an image without a backing file, or of another chain"), NULL;
    bool was_ro = n->caps.read_only;
    struct err ignored = ERR_INIT;
    co_node_drain(n, &d);
    bool ok = co_node_set_writable(n, true, e);
    int r = ok ? BLK_DRIVER(n)->co_set_backing(n, a->file, below->obj.cls->name + strlen("blockdev-")) : 0;
    if (r)
        ok = err_os(e, -r, "Could not change the backing file to '%s'", a->file);
    if (was_ro && !n->caps.read_only && !co_node_set_writable(n, false, &ignored))
        err_print(&ignored);
    blk_drain_end(&d);
    return ok ? json_object() : NULL;
}
static const struct qmp_cmd cmd_backing = { "change-backing-file", "Writes another name of the backing file into an image", backing_props,
    sizeof(struct backing_args), co_change_backing, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_backing);
