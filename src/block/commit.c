/* SPDX-License-Identifier: MIT */
/*
 * block-commit: what images of a chain hold goes down into one below them. From below the active image by a walk; the active image
 * itself by a mirror (mirror.c), since it is written meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include "block/blk_int.h"
#include "block/copy.h"
#include "block/mirror.h"
#include "core/cmd.h"

struct commit {
    struct job job;
    struct copy_walk walk;
    struct blk_node *top, *base, *above, *lowest;   /* above: reads from top; lowest: the image right on base */
    char *backing_file;
    bool base_was_ro, above_was_ro;
};

static int co_piece(struct copy_walk *w, uint64_t off, uint64_t *len, void *buf, bool *is_read)
{
    struct commit *s = container_of(w, struct commit, walk);
    struct blk_extent x;
    bool allocated;
    int r = co_chain_map(s->top, s->base, off, *len, &x, &allocated);
    if (r)
        return r;
    *len = MIN(*len, x.len);
    return allocated ? co_copy_data(&s->job, s->top, s->base, off, *len, x.zero, BLK_ZERO_UNMAP, buf, is_read) : 0;
}

static int co_run(struct job *j)
{
    struct commit *s = (struct commit *)j;
    j->total = s->walk.end = atomic_load(&s->top->size);
    s->walk.j = j;
    s->walk.co_piece = co_piece;
    int r = atomic_load(&s->base->size) < j->total ? co_node_resize(s->base, j->total) : 0;
    if (r)
        return err_os(&j->err, -r, "cannot make '%s' longer", s->base->obj.id) ? 0 : r;
    r = co_copy_walk(&s->walk);
    return r ? r : co_node_flush(s->base);
}

/* The image above reads from the base now. */
static int co_prepare(struct job *j)
{
    struct commit *s = (struct commit *)j;
    struct blk_drain d;
    co_node_drain(s->above, &d);
    bool ok = blk_use_change(&s->above->backing, BLK_PERM_READ, BLK_PERM_ALL, &j->err) && co_node_set_writable(s->above, true, &j->err) &&
              co_set_backing(s->above, s->base, s->backing_file, &j->err);
    if (ok)
        s->lowest = s->above;
    blk_drain_end(&d);
    return ok ? 0 : -EIO;
}

static void back_to_read_only(struct blk_node *n, bool was_ro)
{
    struct err e = ERR_INIT;
    if (was_ro && !co_node_set_writable(n, false, &e))
        err_print(&e);
}

static void co_clean(struct job *j)
{
    struct commit *s = (struct commit *)j;
    struct err ignored = ERR_INIT;
    struct blk_drain d;
    co_node_drain(s->above, &d);
    job_release(j, s->base);
    if (s->lowest->backing.node == s->base && !blk_use_change(&s->lowest->backing, BLK_PERM_READ, BLK_PERM_READ, &ignored))
        err_print(&ignored);
    back_to_read_only(s->base, s->base_was_ro);
    back_to_read_only(s->above, s->above_was_ro);
    blk_drain_end(&d);
    free(s->backing_file);
}

static const struct job_ops commit_ops = {
    .type = "commit", .size = sizeof(struct commit), .is_block = true, .co_run = co_run, .co_prepare = co_prepare, .co_clean = co_clean,
};

/* ---- the command ---- */

struct args {
    struct job_opts job;
    char *device, *base, *base_node, *top, *top_node, *backing_file, *filter_name;
    bool mask_protocol;
    int on_error;
};
static const struct prop props[] = {
    PROP_STR(struct args, device, "device", PF_REQUIRED, "Drive or node on top of the chain"),
    PROP_STR(struct args, base, "base", 0, "File of the image that takes what is above; the lowest if left out"),
    PROP_STR(struct args, base_node, "base-node", 0, "Or its node"),
    PROP_STR(struct args, top, "top", 0, "File of the upper image whose content goes down; the active one if left out"),
    PROP_STR(struct args, top_node, "top-node", 0, "Or its node"),
    PROP_STR(struct args, backing_file, "backing-file", 0, "What the image above calls the base; its file's name if left out"),
    PROP_ENUM(struct args, on_error, "on-error", blk_on_error_names, BLK_ERR_REPORT, "What a failed request does"),
    { .name = "filter-node-name", .doc = "Accepted for compatibility: no filter is needed", .type = PROP_T_STR, .flags = PF_HIDDEN,
      PROP_OFF(struct args, filter_name) },
    { .name = "backing-mask-protocol", .doc = "Accepted for compatibility", .type = PROP_T_BOOL, .flags = PF_HIDDEN, PROP_OFF(struct args, mask_protocol) },
    PROP_INCLUDE(struct args, job, job_props), PROP_END,
};

/* An image of the chain by its file or node; @usual where neither is given. */
static struct blk_node *pick(struct blk_node *chain, const char *file, const char *node, struct blk_node *usual, struct err *e)
{
    struct blk_node *n = usual;
    if (file && node)
        return err_set(e, ERR_VALUE, "a file name and a node name exclude each other"), NULL;
    if (file)
        n = blk_chain_find(chain, file);
    else if (node)
        n = blk_skip_filters((struct blk_node *)obj_lookup(&blk_node_class, node, e));
    if (!n && !e->msg[0])
        err_set(e, ERR_VALUE, "Can't find '%s' in the backing chain", file);
    else if (n && !blk_chain_has(chain, n))
        return err_set(e, ERR_VALUE, "Node '%s' is not in the backing chain of '%s'", n->obj.id, chain->obj.id), NULL;
    return n;
}

static bool claim(struct commit *s, struct err *e)
{
    struct job *j = &s->job;
    for (struct blk_node *l = s->above; l != s->base; l = blk_chain_next(l))
        if (!job_claim(j, l, 0, BLK_PERM_ALL, e))
            return false;
    if (!blk_use_change(&s->lowest->backing, BLK_PERM_READ, BLK_PERM_ALL, e) || !co_node_set_writable(s->base, true, e))
        return false;
    return job_claim(j, s->base, BLK_PERM_ALL, BLK_PERM_READ, e);
}

static bool co_commit_below(const struct args *a, struct blk_node *n, struct blk_node *top, struct blk_node *base, struct err *e)
{
    struct commit *s = (struct commit *)job_new(&commit_ops, &a->job, n, NULL, e);
    if (!s)
        return false;
    s->top = top;
    s->base = base;
    s->above = blk_chain_above(n, top);
    s->lowest = blk_chain_above(n, base);
    s->base_was_ro = base->caps.read_only;
    s->above_was_ro = s->above->caps.read_only;
    s->backing_file = xstrdup(a->backing_file);
    s->walk.on_error = (enum blk_on_error)a->on_error;
    if (!claim(s, e)) {
        co_job_discard(&s->job);
        return false;
    }
    job_start(&s->job);
    return true;
}

/* The active image: filters above it stay where they are, and the job has the drive's name all the same. */
static bool co_commit_top(const struct args *a, struct blk_node *n, struct blk_node *active, struct blk_node *base, struct err *e)
{
    struct job_opts o = a->job;
    if (!o.id && n->drive)
        o.id = blk_drive_name(n);
    return co_commit_active(&o, active, base, (enum blk_on_error)a->on_error, e);
}

static struct blk_node *lowest_of(struct blk_node *n)
{
    for (struct blk_node *l; (l = blk_chain_next(n));)
        n = l;
    return blk_skip_filters(n);
}

static json_t *co_commit(void *args, struct err *e)
{
    struct args *a = args;
    struct blk_node *n = blk_node_find(a->device, e), *active = n ? blk_skip_filters(n) : NULL;
    struct blk_node *top = n ? pick(active, a->top, a->top_node, active, e) : NULL;
    struct blk_node *base = top ? pick(active, a->base, a->base_node, lowest_of(active), e) : NULL;
    if (!n)
        e->cls = ERR_NOT_FOUND;         /* as QEMU says it here: management programs probe for the command by that */
    if (!base)
        return NULL;
    bool ok;
    if (top == base || !blk_chain_has(top, base))
        ok = err_set(e, ERR_VALUE, "'%s' is not below '%s'", base->obj.id, top->obj.id);
    else if (top != active)
        ok = co_commit_below(a, n, top, base, e);
    else if (a->backing_file)
        ok = err_set(e, ERR_VALUE, "'backing-file' specified, but 'top' is the active layer");
    else
        ok = co_commit_top(a, n, active, base, e);
    return ok ? json_object() : NULL;
}

static const struct qmp_cmd cmd_commit = { "block-commit", "Moves the content of images of a chain into one below them",
    props, sizeof(struct args), co_commit, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_commit);
