/* SPDX-License-Identifier: MIT */
/*
 * blockdev-backup, drive-backup: the target gets what the source holds at the moment of the command. What others overwrite in
 * the meantime is copied before; a walk copies the rest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/bitmap.h"
#include "block/blk_int.h"
#include "block/cbw.h"
#include "block/copy.h"
#include "block/mirror.h"
#include "block/transaction.h"
#include "core/cmd.h"

enum sync { FULL, TOP, NONE, INCREMENTAL, BITMAP };
enum bitmap_mode { AUTO, ON_SUCCESS, NEVER, ALWAYS };
static const char *const syncs[] = { "full", "top", "none", "incremental", "bitmap", NULL };
static const char *const bitmap_modes[] = { "auto", "on-success", "never", "always", NULL };
static const char *const modes[] = { "absolute-paths", "existing", NULL };

struct args {
    struct job_opts job;
    char *device, *target, *format, *bitmap, *filter_name;
    int sync, bitmap_mode, mode, on_source_error, on_target_error;
    bool compress;
};

struct backup {
    struct job job;
    struct cbw cbw;
    struct blk_watch watch;
    enum sync sync;
    enum bitmap_mode bitmap_mode;
    enum blk_on_error on_source_error, on_target_error;
    struct blk_bitmap *bitmap;      /* NULL: none */
    struct dirty_map taken;         /* what was in it at the beginning */
    bool watching;
    uint64_t cursor;
    int ret;
};

static struct backup *of(struct job *j) { return (struct backup *)j; }

/* ---- the work ---- */

/* A copy that cannot be made fails the job, not the guest. */
static int co_before(struct blk_watch *w, const struct blk_change *c)
{
    struct backup *s = container_of(w, struct backup, watch);
    int r = s->ret ? 0 : co_cbw(&s->cbw, c->off, c->len);
    s->job.done = s->cbw.copied;
    if (r) {
        s->ret = s->ret ? s->ret : r;
        job_kick(&s->job);
    }
    return 0;
}

static void worker(void *arg)
{
    struct backup *s = arg;
    void *buf = NULL;
    if (posix_memalign(&buf, 4096, cbw_chunk(&s->cbw)))
        s->ret = -ENOMEM;
    while (!s->ret && co_job_pause_point(&s->job)) {
        uint64_t len;
        bool is_read = true;
        int r = co_cbw_next(&s->cbw, &s->job, &s->cursor, &len, buf, &is_read);
        if (!r && !len)
            break;
        s->job.done = s->cbw.copied;
        if (r && !s->job.cancelled && job_error(&s->job, is_read ? s->on_source_error : s->on_target_error, is_read, r) == BLK_ACT_REPORT)
            s->ret = s->ret ? s->ret : r;
    }
    free(buf);
}

static int co_run(struct job *j)
{
    struct backup *s = of(j);
    while (!s->ret && !j->cancelled && s->sync == NONE)
        if (!co_job_wait(j, INT64_MAX))
            break;
    while (!s->ret && !j->cancelled && s->cbw.todo.count) {
        s->cursor = 0;
        co_job_workers(j, (unsigned)MIN(s->cbw.todo.count, (uint64_t)COPY_WORKERS), worker, s);
    }
    if (s->ret || j->cancelled)
        return s->ret ? s->ret : -ECANCELED;
    return co_node_flush(s->cbw.dst);
}

static int co_prepare(struct job *j) { return of(j)->ret; }

/* ---- the bitmap ---- */

static void co_bitmap_done(struct backup *s, bool ok)
{
    struct blk_bitmap *b = s->bitmap;
    s->bitmap = NULL;
    b->busy--;
    if (s->bitmap_mode == ALWAYS && !ok)
        dirty_merge(&b->map, &s->cbw.todo);     /* what was not copied */
    else if (s->bitmap_mode == ON_SUCCESS && !ok)
        dirty_merge(&b->map, &s->taken);
}

static void co_commit(struct job *j)
{
    if (of(j)->bitmap)
        co_bitmap_done(of(j), true);
}

static void co_clean(struct job *j)
{
    struct backup *s = of(j);
    if (s->watching)
        co_watch_del(s->cbw.src, &s->watch);
    if (s->bitmap)
        co_bitmap_done(s, false);
    cbw_free(&s->cbw);
    dirty_free(&s->taken);
}

static const struct job_ops backup_ops = {
    .type = "backup", .size = sizeof(struct backup), .is_block = true, .co_run = co_run, .co_prepare = co_prepare, .co_commit = co_commit,
    .co_clean = co_clean,
};

/* ---- the beginning ---- */

static int co_first(struct backup *s)
{
    struct blk_node *src = s->cbw.src, *base = blk_chain_next(src);
    struct dirty_map *todo = &s->cbw.todo;
    struct blk_extent x;
    bool allocated;
    if (s->sync == INCREMENTAL || s->sync == BITMAP)
        dirty_merge(todo, &s->bitmap->map);
    if (s->sync == FULL || s->sync == NONE)
        dirty_set(todo, 0, todo->size);
    for (uint64_t at = 0; s->sync == TOP && at < todo->size; at += x.len) {
        int r = co_chain_map(src, base, at, MIN(todo->size - at, (uint64_t)1 << 30), &x, &allocated);
        if (r)
            return r;
        if (allocated)
            dirty_set(todo, at, x.len);
    }
    return 0;
}

static bool use_bitmap(struct backup *s, const struct args *a, struct err *e)
{
    bool wants = a->sync == INCREMENTAL || a->sync == BITMAP;
    if (!a->bitmap)
        return !wants || err_set(e, ERR_VALUE, "must provide a valid bitmap name for '%s' sync mode", syncs[a->sync]);
    if (a->sync == NONE)
        return err_set(e, ERR_VALUE, "sync mode 'none' does not produce meaningful bitmap outputs");
    if (a->bitmap_mode == AUTO && a->sync != INCREMENTAL)
        return err_set(e, ERR_VALUE, "Bitmap sync mode must be given when providing a bitmap");
    if (a->sync == INCREMENTAL && a->bitmap_mode > ON_SUCCESS)
        return err_set(e, ERR_VALUE, "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
    if (a->bitmap_mode == NEVER && !wants)
        return err_set(e, ERR_VALUE, "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '%s'", syncs[a->sync]);
    struct blk_bitmap *b = blk_bitmap_get(s->cbw.src->obj.id, a->bitmap, a->bitmap_mode != NEVER, e);
    if (!b)
        return false;
    if (!dirty_init(&s->taken, b->map.size, dirty_granularity(&b->map)))
        return err_os(e, ENOMEM, "no memory for bitmap '%s'", b->name);
    s->bitmap_mode = a->bitmap_mode == AUTO ? ON_SUCCESS : (enum bitmap_mode)a->bitmap_mode;
    s->bitmap = b;
    b->busy++;
    return true;
}

static bool check(const struct args *a, const struct blk_node *src, const struct blk_node *dst, struct err *e)
{
    uint64_t x = atomic_load(&src->size), y = atomic_load(&dst->size);
    if (src == dst)
        return err_set(e, ERR_VALUE, "Source and target cannot be the same");
    if (x != y)
        return err_set(e, ERR_VALUE, "Source and target image have different sizes: %llu and %llu bytes", (unsigned long long)x, (unsigned long long)y);
    return !a->compress || BLK_DRIVER(dst)->co_write_compressed || err_set(e, ERR_VALUE, "Compression is not supported for '%s'", dst->obj.id);
}

/* From here on everything that is overwritten is copied before. */
static bool co_begin(struct backup *s, struct err *e)
{
    struct blk_drain d;
    co_node_drain(s->cbw.src, &d);
    int r = co_first(s);
    if (!r) {
        s->watch = (struct blk_watch){ .co_before = co_before };
        co_watch_add(s->cbw.src, &s->watch);
        s->watching = true;
    }
    if (!r && s->bitmap && s->bitmap_mode != NEVER) {
        dirty_merge(&s->taken, &s->bitmap->map);
        dirty_clear(&s->bitmap->map, 0, s->bitmap->map.size);
    }
    s->job.total = s->sync == NONE ? s->cbw.todo.size : dirty_bytes(&s->cbw.todo);
    blk_drain_end(&d);
    return !r || err_os(e, -r, "cannot tell what '%s' holds", s->cbw.src->obj.id);
}

static struct job *co_backup_new(const struct args *a, struct blk_node *src, struct blk_node *dst, bool zeroes_there, struct job_txn *txn,
                                 struct err *e)
{
    struct backup *s = check(a, src, dst, e) ? (struct backup *)job_new(&backup_ops, &a->job, src, txn, e) : NULL;
    if (!s)
        return NULL;
    s->sync = (enum sync)a->sync;
    s->on_source_error = (enum blk_on_error)a->on_source_error;
    s->on_target_error = (enum blk_on_error)a->on_target_error;
    bool ok = job_claim(&s->job, src, 0, BLK_PERM_READ | BLK_PERM_WRITE, e) && job_claim(&s->job, blk_skip_filters(src), 0, BLK_PERM_ALL, e) &&
              job_claim(&s->job, dst, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ, e);
    if (ok && cbw_init(&s->cbw, src, dst))
        ok = err_os(e, ENOMEM, "no memory for the map of '%s'", src->obj.id);
    s->cbw.compress = a->compress;
    s->cbw.zeroes_there = zeroes_there;
    if (ok && use_bitmap(s, a, e) && co_begin(s, e))
        return &s->job;
    co_job_discard(&s->job);
    return NULL;
}

/* ---- commands ---- */

#define COMMON \
    PROP_STR(struct args, device, "device", PF_REQUIRED, "Drive or node whose content is kept"), \
    { .name = "sync", .doc = "full: all; top: the topmost image; none: only what is overwritten; incremental, bitmap: what a bitmap says", \
      .type = PROP_T_ENUM, .flags = PF_REQUIRED, PROP_OFF(struct args, sync), .of = syncs }, \
    PROP_STR(struct args, bitmap, "bitmap", 0, "Bitmap of what changed since the last backup"), \
    PROP_ENUM(struct args, bitmap_mode, "bitmap-mode", bitmap_modes, AUTO, "When the bitmap begins anew; auto: on-success, where sync is incremental"), \
    PROP_BOOL(struct args, compress, "compress", false, "Data is stored compressed"), \
    PROP_ENUM(struct args, on_source_error, "on-source-error", blk_on_error_names, BLK_ERR_REPORT, "What a failed read does"), \
    PROP_ENUM(struct args, on_target_error, "on-target-error", blk_on_error_names, BLK_ERR_REPORT, "What a failed write does"), \
    { .name = "filter-node-name", .doc = "Accepted for compatibility: no filter is needed", .type = PROP_T_STR, .flags = PF_HIDDEN, \
      PROP_OFF(struct args, filter_name) }, \
    PROP_INCLUDE(struct args, job, job_props)
static const struct prop blockdev_props[] = { COMMON,
    PROP_STR(struct args, target, "target", PF_REQUIRED, "Node that takes it"), PROP_END };
static const struct prop drive_props[] = { COMMON,
    PROP_STR(struct args, target, "target", PF_REQUIRED, "File of the new image"),
    PROP_STR(struct args, format, "format", 0, "Its format; the source's if left out"),
    PROP_ENUM(struct args, mode, "mode", modes, 0, "absolute-paths: it is created; existing: it is there"), PROP_END };

static const char *node_of(const void *args) { return ((const struct args *)args)->device; }

static bool co_blockdev(struct txn_act *t, struct err *e)
{
    struct args *a = t->args;
    struct blk_node *src = blk_node_find(a->device, e), *dst = src ? blk_node_find(a->target, e) : NULL;
    t->job = dst ? co_backup_new(a, src, dst, false, t->jobs, e) : NULL;
    return t->job;
}

/* The drive that is copied, and to what image; NULL with @e filled. */
static struct blk_node *drive_target(const struct args *a, struct blk_target *x, struct err *e)
{
    struct blk_node *src = blk_node_find(a->device, e), *image = src ? blk_skip_filters(src) : NULL;
    if (!src || !blk_node_free_of_jobs(src, e))
        return NULL;
    *x = (struct blk_target){ .file = a->target, .format = a->format ? a->format : image->obj.cls->name + strlen("blockdev-"),
        .existing = a->mode == 1, .direct = image->direct, .size = atomic_load(&src->size),
        .backing = a->sync == TOP ? blk_chain_next(src) : a->sync == NONE ? image : NULL };
    return src;
}

static bool co_drive_open(struct txn_act *t, struct err *e)
{
    struct blk_target x;
    return drive_target(t->args, &x, e) && co_target_open(t, &x, e);
}

static bool co_drive(struct txn_act *t, struct err *e)
{
    struct args *a = t->args;
    struct blk_target x;
    struct blk_node *src = drive_target(a, &x, e), *dst = t->top;
    bool ok = src && co_target_ready(t, &x, e);
    if (ok && a->sync == NONE && BLK_DRIVER(dst)->co_set_backing)       /* it shows what the source held */
        ok = blk_child_attach(dst, &dst->backing, x.backing, BLK_PERM_READ, BLK_PERM_ALL, e);
    t->job = ok ? co_backup_new(a, src, dst, !x.existing && a->sync == FULL, t->jobs, e) : NULL;
    return co_target_done(t, t->job);
}

static void co_start(struct txn_act *t) { job_start(t->job); }
static void co_undo(struct txn_act *t) { co_job_discard(t->job); }

#define ACTION(var, nm, ds, rows, fn, ...) \
    static const struct txn_action var = { .type = nm, .props = rows, .args_size = sizeof(struct args), .starts_job = true, .node = node_of, \
        .co_prepare = fn, .co_commit = co_start, .co_abort = co_undo, __VA_ARGS__ }; \
    TXN_ACTION(&var); \
    static json_t *co_cmd_##var(void *args, struct err *e) { return co_txn_alone(&var, args, e); } \
    static const struct qmp_cmd cmd_##var = { nm, ds, rows, sizeof(struct args), co_cmd_##var, .ret = qmp_nothing, .turn = &blk_graph_turn }; QMP_CMD(&cmd_##var)
ACTION(blockdev_backup, "blockdev-backup", "Copies what a node holds now to another", blockdev_props, co_blockdev);
ACTION(drive_backup, "drive-backup", "Copies what a drive holds now to a new image", drive_props, co_drive,
       .co_open = co_drive_open, .co_forget = co_target_forget);
