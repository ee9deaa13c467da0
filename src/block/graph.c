/* SPDX-License-Identifier: MIT */
/* Changing the graph while it is in use: requests held back, users moved from node to node, chains of images. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
#include "block/blk_int.h"
#include "block/job.h"
#include "core/obj_alias.h"

enum { DRAIN_STEP_NS = 200000 };

/* ---- holding requests back ---- */

struct gating { struct blk_node *n; struct blk_drain *d; };

static void gate_users(void *arg)
{
    const struct gating *g = arg;
    struct blk_drain *d = g->d;
    struct blk_use *u;
    list_for_each(u, &g->n->uses, link) {
        if (u->parent)
            co_deeper(gate_users, &(struct gating){ u->parent, d });
        if (!u->blk)
            continue;
        if (d->n == d->cap) {
            d->cap = d->cap ? d->cap * 2 : 8;
            d->v = xrealloc(d->v, d->cap * sizeof *d->v);
        }
        d->v[d->n++] = u->blk;
        blk_gate(u->blk);
    }
}

static bool any_in_flight(const struct blk_drain *d)
{
    for (size_t i = 0; i < d->n; i++)
        if (atomic_load(&d->v[i]->in_flight))
            return true;
    return false;
}

void co_node_drain(struct blk_node *n, struct blk_drain *d)
{
    *d = (struct blk_drain){ .n = 0 };
    gate_users(&(struct gating){ n, d });
    while (any_in_flight(d))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + DRAIN_STEP_NS);
}

void blk_drain_end(struct blk_drain *d)
{
    for (size_t i = 0; i < d->n; i++)
        blk_undrain(d->v[i]);
    free(d->v);
}

/* ---- not to wait for what waits on purpose ---- */

struct awaited { struct blk_node *n; bool yes; };

/* Somebody waits for the requests of a handle above. */
static void look_above(void *arg)
{
    struct awaited *a = arg;
    struct blk_use *u;
    list_for_each(u, &a->n->uses, link) {
        struct awaited up = { u->parent, false };
        if (u->parent)
            co_deeper(look_above, &up);
        a->yes |= up.yes || (u->blk && (atomic_load(&u->blk->gated) || atomic_load(&u->blk->leaving)));
    }
}

void blk_hurry_update(void)
{
    struct blk_node *n;
    list_for_each(n, &blk_nodes, in_all) {
        struct awaited a = { n, false };
        if (!BLK_DRIVER(n)->hurry)
            continue;
        look_above(&a);
        BLK_DRIVER(n)->hurry(n, a.yes);
    }
}

/* ---- users ---- */

/* Not what @to itself, or the image that it shows, lies over. */
static bool moves(const struct blk_use *u, const struct blk_node *to)
{
    for (const struct blk_node *n = to; n && u->parent; n = BLK_DRIVER(n)->flags & BLK_FILTER ? n->child.node : NULL)
        if (u->parent == n)
            return false;
    return u->blk || u->parent;
}

static bool move_all(struct blk_node *from, struct blk_node *to, struct err *e)
{
    struct blk_use *u, *moved[64];
    size_t n = 0;
    list_for_each(u, &from->uses, link) {
        if (!moves(u, to))
            continue;
        bool ok = n < ARRAY_SIZE(moved) ? blk_use_move(u, to, e) : err_set(e, ERR_BUSY, "block node '%s' has too many users", from->obj.id);
        if (ok) {
            moved[n++] = u;
            continue;
        }
        struct err ignored = ERR_INIT;
        while (n && blk_use_move(moved[--n], from, &ignored))   /* back to where it was possible before */
            ;
        return false;
    }
    return true;
}

static void move_drive(struct blk_node *from, struct blk_node *to)
{
    if (!from->drive || to->drive)
        return;
    if (!from->drive->device)
        from->drive->device = xstrdup(from->obj.id);
    obj_alias_set(&to->obj, from->drive->device);
    to->drive = from->drive;
    from->drive = NULL;
}

bool blk_node_replace(struct blk_node *from, struct blk_node *to, struct err *e)
{
    if (!move_all(from, to, e))
        return false;
    obj_ref(&from->obj);
    move_drive(from, to);
    blk_node_drop(from);
    obj_unref(&from->obj);
    blk_node_changed(to);
    return true;
}

bool blk_node_free_of_jobs(const struct blk_node *n, struct err *e)
{
    return !n->job || err_set(e, ERR_BUSY, "Node '%s' is busy: block device is in use by block job: %s", n->obj.id, job_type(n->job));
}

/* ---- chains ---- */

struct blk_node *blk_skip_filters(struct blk_node *n)
{
    while (n && BLK_DRIVER(n)->flags & BLK_FILTER && n->child.node)
        n = n->child.node;
    return n;
}

uint64_t blk_cluster_size(struct blk_node *n)
{
    const struct blk_node *image = blk_skip_filters(n);
    return BLK_DRIVER(image)->cluster_size ? BLK_DRIVER(image)->cluster_size(image) : 0;
}

struct blk_node *blk_chain_next(struct blk_node *n)
{
    n = blk_skip_filters(n);
    return n ? blk_skip_filters(n->backing.node) : NULL;
}

bool blk_chain_has(struct blk_node *top, const struct blk_node *n)
{
    for (struct blk_node *l = top; l; l = blk_chain_next(l))
        if (l == n || blk_skip_filters(l) == n)
            return true;
    return false;
}

struct blk_node *blk_chain_above(struct blk_node *top, const struct blk_node *n)
{
    for (struct blk_node *l = blk_skip_filters(top); l; l = blk_chain_next(l))
        if (l->backing.node == n || blk_chain_next(l) == n)
            return l;
    return NULL;
}

/* @above calls @l so, and it is what it means: another node may have been put there. */
static bool is_called(const struct blk_node *above, const struct blk_node *l, const char *file)
{
    char a[PATH_MAX], b[PATH_MAX];
    if (!above || !above->backing_name || !str_eq(above->backing_name, file))
        return false;
    char *path = blk_path_beside(blk_node_filename(above), file);
    const char *name = blk_node_filename(l), *local = blk_local_path(path);
    bool same = str_eq(path, name) || (local && realpath(local, a) && realpath(name, b) && !strcmp(a, b));
    free(path);
    return same;
}

struct blk_node *blk_chain_find(struct blk_node *top, const char *file)
{
    char a[PATH_MAX], b[PATH_MAX];
    const struct blk_node *above = NULL;
    for (struct blk_node *l = blk_skip_filters(top); l; above = l, l = blk_chain_next(l)) {
        const char *name = blk_node_filename(l);
        if (str_eq(l->obj.id, file) || str_eq(name, file) || is_called(above, l, file))
            return l;
        if (realpath(name, a) && realpath(file, b) && !strcmp(a, b))
            return l;
    }
    return NULL;
}

int co_chain_map(struct blk_node *top, const struct blk_node *base, uint64_t off, uint64_t len, struct blk_extent *out, bool *allocated)
{
    struct blk_node *first = blk_skip_filters(top);
    *out = (struct blk_extent){ .len = len, .zero = true };
    *allocated = false;
    unsigned depth = 0;
    for (struct blk_node *l = first; l && l != base; l = blk_chain_next(l), depth++) {
        uint64_t size = atomic_load(&l->size);
        if (off >= size) {              /* an image that ends here hides what is below with zeroes */
            *out = (struct blk_extent){ .len = len, .zero = true, .depth = depth };
            *allocated = l != first;
            return 0;
        }
        int r = co_node_map_layer(l, off, MIN(len, size - off), out);
        if (r)
            return r;
        len = out->len;
        out->depth = depth;
        if (!out->below) {
            *allocated = true;
            return 0;
        }
    }
    return 0;
}

/* ---- backing images ---- */

/* @n reads from @to. */
static bool relink(struct blk_node *n, struct blk_node *to, struct err *e)
{
    struct blk_node *old = n->backing.node;
    if (!to) {
        blk_child_close_at(&n->backing);
        return true;
    }
    if (!old)
        return blk_child_attach(n, &n->backing, to, BLK_PERM_READ, BLK_PERM_READ, e);
    obj_ref(&old->obj);
    bool ok = old == to || blk_use_move(&n->backing, to, e);
    if (ok)
        blk_node_drop(old);
    obj_unref(&old->obj);
    return ok;
}

bool co_set_backing(struct blk_node *n, struct blk_node *backing, const char *name, struct err *e)
{
    const struct blk_driver *d = BLK_DRIVER(n);
    struct blk_node *image = blk_skip_filters(backing);
    if (!d->co_set_backing)
        return err_set(e, ERR_VALUE, "block node '%s' cannot have a backing image", n->obj.id);
    name = name ? name : image ? blk_node_filename(image) : NULL;
    if (image && !*name)
        return err_set(e, ERR_VALUE, "block node '%s' has no file name that an image can hold", image->obj.id), err_hint(e, "backing-file names it");
    int r = d->co_set_backing(n, name, image ? image->obj.cls->name + strlen("blockdev-") : NULL);
    return r ? err_os(e, -r, "cannot change the backing file of '%s'", n->obj.id) : relink(n, backing, e);
}

/* ---- writable, or not ---- */

static bool below_writable(struct blk_node *n, struct err *e)
{
    return (!n->child.node || co_node_set_writable(n->child.node, true, e)) && (!n->data.node || co_node_set_writable(n->data.node, true, e));
}

bool co_node_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    const struct blk_driver *d = BLK_DRIVER(n);
    if (writable == !n->caps.read_only)
        return true;
    if (writable && !below_writable(n, e))
        return false;
    n->read_only = n->caps.read_only = !writable;
    if (d->co_set_writable && !d->co_set_writable(n, writable, e)) {
        n->read_only = n->caps.read_only = writable;
        return false;
    }
    return true;
}
