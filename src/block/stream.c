/* SPDX-License-Identifier: MIT */
/* block-stream: what an image finds in those below is copied into it, until it needs them no more. */
#include <errno.h>
#include <stdlib.h>
#include "block/blk_int.h"
#include "block/copy.h"
#include "core/cmd.h"

struct stream {
    struct job job;
    struct copy_walk walk;
    struct blk_node *top, *base;    /* base: stays below; NULL: nothing does */
    char *backing_file;             /* the name of base, for the image; NULL: its file's */
    bool was_ro;
};

/* Part of the chunk, which nobody else writes meanwhile: what is still below is copied up. */
static int co_fill(struct stream *s, uint64_t off, uint64_t len, void *buf, bool *is_read)
{
    struct blk_extent x;
    bool allocated;
    int r = 0;
    for (uint64_t end = off + len; off < end && !r; off += x.len) {
        r = co_chain_map(s->top, s->base, off, end - off, &x, &allocated);
        if (!r && allocated && x.depth)
            r = co_copy_data(NULL, s->top, s->top, off, x.len, x.zero, BLK_UNCHANGED, buf, is_read);
    }
    return r;
}

static int co_piece(struct copy_walk *w, uint64_t off, uint64_t *len, void *buf, bool *is_read)
{
    struct stream *s = container_of(w, struct stream, walk);
    struct blk_extent x;
    struct blk_range g;
    bool allocated;
    int r = co_chain_map(s->top, s->base, off, *len, &x, &allocated);
    if (r)
        return r;
    *len = MIN(*len, x.len);
    if (!allocated || !x.depth)
        return 0;
    if (!co_job_throttle(&s->job, *len))        /* before it is locked: others need not wait for our limit */
        return -ECANCELED;
    co_range_lock(s->top, &g, off, *len);
    r = co_fill(s, off, *len, buf, is_read);
    blk_range_unlock(&g);
    return r;
}

static int co_run(struct job *j)
{
    struct stream *s = (struct stream *)j;
    struct blk_watch w = { 0 };         /* only that writes heed our locks */
    j->total = blk_chain_next(s->top) ? atomic_load(&s->top->size) : 0;
    s->walk.j = j;
    s->walk.end = j->total;
    s->walk.co_piece = co_piece;
    co_watch_add(s->top, &w);
    int r = co_copy_walk(&s->walk);
    co_watch_del(s->top, &w);
    return r ? r : co_node_flush(s->top);
}

/* The images in between are no longer needed. */
static int co_prepare(struct job *j)
{
    struct stream *s = (struct stream *)j;
    struct blk_drain d;
    if (blk_chain_next(s->top) == s->base)
        return 0;
    job_release_others(j, s->top);      /* what leaves the chain may go */
    co_node_drain(s->top, &d);
    bool ok = co_set_backing(s->top, s->base, s->base ? s->backing_file : NULL, &j->err);
    blk_drain_end(&d);
    return ok ? 0 : -EIO;
}

static void co_clean(struct job *j)
{
    struct stream *s = (struct stream *)j;
    struct err e = ERR_INIT;
    if (s->was_ro && !co_node_set_writable(s->top, false, &e))
        err_print(&e);
    free(s->backing_file);
}

static const struct job_ops stream_ops = {
    .type = "stream", .size = sizeof(struct stream), .is_block = true, .co_run = co_run, .co_prepare = co_prepare, .co_clean = co_clean,
};

/* ---- the command ---- */

struct args {
    struct job_opts job;
    char *device, *base, *base_node, *bottom, *backing_file, *filter_name;
    bool mask_protocol;
    int on_error;
};
static const struct prop props[] = {
    PROP_STR(struct args, device, "device", PF_REQUIRED, "Drive or node that is filled"),
    PROP_STR(struct args, base, "base", 0, "File of the image that stays below"),
    PROP_STR(struct args, base_node, "base-node", 0, "Or its node"),
    PROP_STR(struct args, bottom, "bottom", 0, "Or the node of the last image that is copied"),
    PROP_STR(struct args, backing_file, "backing-file", 0, "What the image calls it; its file's name if left out"),
    PROP_ENUM(struct args, on_error, "on-error", blk_on_error_names, BLK_ERR_REPORT, "What a failed request does"),
    { .name = "filter-node-name", .doc = "Accepted for compatibility: no filter is needed", .type = PROP_T_STR, .flags = PF_HIDDEN,
      PROP_OFF(struct args, filter_name) },
    { .name = "backing-mask-protocol", .doc = "Accepted for compatibility", .type = PROP_T_BOOL, .flags = PF_HIDDEN, PROP_OFF(struct args, mask_protocol) },
    PROP_INCLUDE(struct args, job, job_props), PROP_END,
};

static bool find_base(const struct args *a, struct blk_node *top, struct blk_node **base, struct err *e)
{
    const char *node = a->base_node ? a->base_node : a->bottom;
    *base = NULL;
    if (!!a->base + !!a->base_node + !!a->bottom > 1)
        return err_set(e, ERR_VALUE, "'base', 'base-node' and 'bottom' exclude each other");
    if (!a->base && !node)
        return true;
    *base = a->base ? blk_chain_find(top, a->base) : (struct blk_node *)obj_lookup(&blk_node_class, node, e);
    if (!*base)
        return a->base ? err_set(e, ERR_VALUE, "Can't find '%s' in the backing chain", a->base) : false;
    *base = blk_skip_filters(*base);
    if (!blk_chain_has(top, *base) || (*base == top && !a->bottom))
        return err_set(e, ERR_VALUE, "Node '%s' is not a backing image of '%s'", (*base)->obj.id, a->device);
    if (a->bottom)
        *base = blk_chain_next(*base);
    return true;
}

static bool claim_chain(struct stream *s, struct err *e)
{
    if (!job_claim(&s->job, s->top, 0, BLK_PERM_READ | BLK_PERM_WRITE, e))
        return false;
    for (struct blk_node *l = s->top; l != s->base && (l = blk_chain_next(l));)
        if (!job_claim(&s->job, l, 0, BLK_PERM_ALL, e))
            return false;
    s->was_ro = s->top->caps.read_only;
    return co_node_set_writable(s->top, true, e);
}

static json_t *co_stream(void *args, struct err *e)
{
    struct args *a = args;
    struct blk_node *n = blk_node_find(a->device, e), *top = n ? blk_skip_filters(n) : NULL, *base;
    if (!n || !find_base(a, top, &base, e))
        return NULL;
    struct stream *s = (struct stream *)job_new(&stream_ops, &a->job, n, NULL, e);
    if (!s)
        return NULL;
    s->top = top;
    s->base = base;
    s->walk.on_error = (enum blk_on_error)a->on_error;
    s->backing_file = xstrdup(a->backing_file);
    if (!claim_chain(s, e)) {
        s->was_ro = false;
        co_job_discard(&s->job);
        return NULL;
    }
    job_start(&s->job);
    return json_object();
}

static const struct qmp_cmd cmd_stream = { "block-stream", "Copies into an image what it finds in its backing chain",
    props, sizeof(struct args), co_stream, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_stream);
