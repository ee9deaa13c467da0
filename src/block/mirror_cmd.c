/* SPDX-License-Identifier: MIT */
/* drive-mirror, blockdev-mirror; and the image that a job's command creates. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
#include "block/blk_int.h"
#include "block/mirror.h"
#include "block/transaction.h"
#include "core/cmd.h"

/* ---- targets ---- */

static const char *format_of(const struct blk_node *n) { return n->obj.cls->name + strlen("blockdev-"); }

/* What a new image calls @below (NULL: nothing); "": it has no name. @full is room. */
static const char *name_of(const struct blk_node *below, char full[PATH_MAX])
{
    const char *name = below ? blk_node_filename(below) : "";
    return *name && realpath(name, full) ? full : name;
}

static bool create(const struct blk_target *t, struct err *e)
{
    char full[PATH_MAX];
    json_t *o = json_pack("{s:I}", "size", (json_int_t)t->size);
    const char *below = name_of(t->backing, full);
    if (*below) {
        json_object_set_new(o, "backing_file", json_string(below));
        json_object_set_new(o, "backing_fmt", json_string(format_of(t->backing)));
    }
    bool ok = blk_image_create(t->file, t->format, o, false, e);
    json_decref(o);
    return ok || (e->cls == ERR_BUSY ? err_hint(e, "mode=existing takes what is there") : false);
}

struct blk_node *blk_target_open(const struct blk_target *t, struct err *e)
{
    static unsigned target, snapshot;
    char made[32];
    json_t *o = t->existing || create(t, e) ? blk_image_opts(t->file, t->format, e) : NULL;
    if (!o)
        return NULL;
    snprintf(made, sizeof made, "%s%u", t->snapshot ? "snapshot" : "target", t->snapshot ? snapshot++ : target++);
    json_object_set_new(o, "node-name", json_string(t->node_name ? t->node_name : made));
    json_object_set_new(o, "cache.direct", json_boolean(t->direct));
    json_object_set_new(o, "discard", json_string(t->discard ? "unmap" : "ignore"));
    const struct obj_class *c = obj_class_find("blockdev-qcow2");
    if (c && !strcmp(t->format, "qcow2"))
        json_object_set_new(o, "backing", json_null());
    struct blk_node *n = blk_node_create(o, e);
    json_decref(o);
    if (n)
        n->inline_child = true;
    return n;
}

bool co_target_open(struct txn_act *a, const struct blk_target *t, struct err *e)
{
    a->top = blk_target_open(t, e);
    a->named = t->backing;
    if (a->top)
        obj_ref(&a->top->obj);
    return a->top;
}

bool co_target_ready(struct txn_act *a, const struct blk_target *t, struct err *e)
{
    char full[PATH_MAX];
    struct blk_node *n = a->top;
    const char *below = name_of(t->backing, full);
    if (!n->obj.in_tree)
        return err_set(e, ERR_NOT_FOUND, "block node '%s' was deleted meanwhile", n->obj.id);
    if (strcmp(format_of(n), t->format)) {
        err_set(e, ERR_VALUE, "'%s' is made as %s, but what it is to be is %s by now", t->file, format_of(n), t->format);
        return err_hint(e, "format says which");
    }
    if (t->existing || a->named == t->backing)
        return true;
    if (!BLK_DRIVER(n)->co_set_backing)
        return err_set(e, ERR_VALUE, "'%s': images of format %s name no backing file", t->file, t->format);
    int r = BLK_DRIVER(n)->co_set_backing(n, *below ? below : NULL, *below ? format_of(t->backing) : NULL);
    return !r || err_os(e, -r, "cannot name the backing file of '%s'", n->obj.id);
}

bool co_target_done(struct txn_act *a, bool used)
{
    if (!used)
        blk_node_drop(a->top);
    obj_unref(&a->top->obj);
    return used;
}

void co_target_forget(struct txn_act *a) { co_target_done(a, false); }

/* ---- commands ---- */

static const char *const syncs[] = { "full", "top", "none", NULL };
static const char *const modes[] = { "absolute-paths", "existing", NULL };
static const char *const copy_modes[] = { "background", "write-blocking", NULL };

struct args {
    struct job_opts job;
    char *device, *target, *format, *node_name, *replaces, *filter_name;
    int sync, mode, copy_mode, on_source_error, on_target_error;
    uint64_t granularity, buf_size;
    bool unmap, target_is_zero;
};
#define COMMON \
    PROP_STR(struct args, device, "device", PF_REQUIRED, "Drive or node that is mirrored"), \
    { .name = "sync", .doc = "full: all of it; top: the topmost image; none: only what is written from now on", .type = PROP_T_ENUM, \
      .flags = PF_REQUIRED, PROP_OFF(struct args, sync), .of = syncs }, \
    PROP_STR(struct args, replaces, "replaces", 0, "Node whose users move to the target at the end; the source if left out"), \
    PROP_SIZE(struct args, granularity, "granularity", 0, 0, 64 * MiB, "Bytes that are copied as one; 0: chosen"), \
    { .name = "buf-size", .doc = "Accepted for compatibility", .type = PROP_T_SIZE, .flags = PF_HIDDEN, PROP_OFF(struct args, buf_size) }, \
    PROP_ENUM(struct args, on_source_error, "on-source-error", blk_on_error_names, BLK_ERR_REPORT, "What a failed read does"), \
    PROP_ENUM(struct args, on_target_error, "on-target-error", blk_on_error_names, BLK_ERR_REPORT, "What a failed write does"), \
    PROP_ENUM(struct args, copy_mode, "copy-mode", copy_modes, 0, "write-blocking: a write ends when it is in both"), \
    PROP_BOOL(struct args, unmap, "unmap", true, "Where the source has holes, the target may have them too"), \
    PROP_INCLUDE(struct args, job, job_props)

static const struct prop drive_props[] = { COMMON,
    PROP_STR(struct args, target, "target", PF_REQUIRED, "File of the new image"),
    PROP_STR(struct args, format, "format", 0, "Its format; the source's if left out"),
    PROP_STR(struct args, node_name, "node-name", 0, "Name of its node"),
    PROP_ENUM(struct args, mode, "mode", modes, 0, "absolute-paths: it is created; existing: it is there"), PROP_END };
static const struct prop blockdev_props[] = { COMMON,
    PROP_STR(struct args, target, "target", PF_REQUIRED, "Node that becomes like the source"),
    PROP_BOOL(struct args, target_is_zero, "target-is-zero", false, "It reads as zeroes: those of the source are not copied"),
    { .name = "filter-node-name", .doc = "Accepted for compatibility: no filter is needed", .type = PROP_T_STR, .flags = PF_HIDDEN,
      PROP_OFF(struct args, filter_name) }, PROP_END };

static bool co_start(const struct args *a, struct blk_node *src, struct blk_node *dst, bool zero, struct err *e)
{
    const struct mirror_opts m = { .sync = (enum mirror_sync)a->sync, .on_source_error = (enum blk_on_error)a->on_source_error,
        .on_target_error = (enum blk_on_error)a->on_target_error, .granularity = a->granularity, .unmap = a->unmap,
        .write_blocking = a->copy_mode == 1, .target_is_zero = zero, .replaces = a->replaces };
    return co_mirror_start(&a->job, &m, src, dst, e);
}

static json_t *co_blockdev_mirror(void *args, struct err *e)
{
    struct args *a = args;
    struct blk_node *src = blk_node_find(a->device, e), *dst = src ? blk_node_find(a->target, e) : NULL;
    return dst && co_start(a, src, dst, a->target_is_zero, e) ? json_object() : NULL;
}

static json_t *co_drive_mirror(void *args, struct err *e)
{
    struct args *a = args;
    struct blk_node *src = blk_node_find(a->device, e);
    if (!src || !blk_node_free_of_jobs(src, e))
        return NULL;
    struct blk_node *image = blk_skip_filters(src);
    const struct blk_target t = { .file = a->target, .format = a->format ? a->format : format_of(image),
        .node_name = a->node_name, .existing = a->mode == 1, .direct = image->direct, .discard = a->unmap, .size = atomic_load(&src->size),
        .backing = a->sync == SYNC_TOP ? blk_chain_next(src) : a->sync == SYNC_NONE ? image : NULL };
    struct blk_node *dst = blk_target_open(&t, e);
    if (!dst)
        return NULL;
    obj_ref(&dst->obj);                 /* a job that comes to nothing may be its last user */
    bool ok = co_start(a, src, dst, !t.existing, e);
    if (!ok)
        blk_node_drop(dst);
    obj_unref(&dst->obj);
    return ok ? json_object() : NULL;
}

static const struct qmp_cmd cmd_drive = { "drive-mirror", "Keeps a new image like a drive, until the drive moves there",
    drive_props, sizeof(struct args), co_drive_mirror, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_drive);
static const struct qmp_cmd cmd_blockdev = { "blockdev-mirror", "Keeps a node like another, until its users move there",
    blockdev_props, sizeof(struct args), co_blockdev_mirror, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_blockdev);
