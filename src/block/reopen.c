/* SPDX-License-Identifier: MIT */
/*
 * blockdev-reopen: a node's options as blockdev-add would take them, those left out being the defaults. What is as before stays; of
 * the rest some can change while the node is in use, and the others are refused before anything changes. Several nodes change
 * together: where one cannot, those before it become again what they were.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/opt.h"
#include "block/blk_int.h"
#include "block/throttle.h"
#include "core/cmd.h"

/* What is to change in one node. */
struct plan {
    struct blk_node *n;
    bool read_only, set_read_only, set_backing, set_file;
    struct blk_node *backing, *file;        /* NULL: none */
    struct { struct prop row; json_t *v; } now[16], before[16];     /* options that are just set, and how they were */
    unsigned n_now;
    bool done_read_only;
    struct moved { struct blk_use *use; struct blk_node *old; bool done; } moved[2];  /* ->old: a reference, NULL: none */
    struct blk_drain drain;
};

static bool changeable(const char *name)
{
    static const char *const simple[] = { "auto-read-only", "cache.no-flush", "discard", "detect-zeroes", "throttle-group", NULL };
    return str_in_list(name, simple);
}

/* The canonical value of @p given as @v (NULL: its default); NULL with @e filled. */
static json_t *value_of(const struct blk_node *n, const struct prop *p, json_t *v, struct err *e)
{
    char *scratch = xcalloc(1, n->obj.cls->size);
    const struct prop one[] = { *p, PROP_END };
    prop_defaults(one, scratch);
    bool ok = !v || prop_set(p, scratch, NULL, v, e) || err_prefix(e, "%s", p->name);
    json_t *out = ok ? prop_to_json(p, scratch, NULL) : NULL;
    prop_release(one, scratch);
    free(scratch);
    return out;
}

/* A child that is given by name, by null (none), or not at all. */
static bool plan_child(struct plan *pl, const char *name, json_t *v, struct err *e)
{
    bool backing = !strcmp(name, "backing");
    struct blk_node *now = backing ? pl->n->backing.node : strcmp(name, "file") ? pl->n->data.node : pl->n->child.node, *to = NULL;
    const char *id = json_string_value(v);
    if (id && *id && !(to = (struct blk_node *)obj_lookup(&blk_node_class, id, e)))
        return false;
    if (to == now || (json_is_object(v) && now && now->inline_child) || (!v && now && now->inline_child) || (!v && backing && !now))
        return true;
    if (json_is_object(v) || (!to && !backing))
        return err_set(e, ERR_VALUE, "Cannot change the option '%s'", name), err_hint(e, "name a node that blockdev-add made");
    if (backing && !BLK_DRIVER(pl->n)->co_set_backing)
        return err_set(e, ERR_VALUE, "'%s' cannot have a backing node", pl->n->obj.id);
    if (!backing && (strcmp(name, "file") || !(BLK_DRIVER(pl->n)->flags & BLK_FILTER)))
        return err_set(e, ERR_VALUE, "Cannot change the option '%s' of '%s': it is no filter", name, pl->n->obj.id);
    if (to && (to == pl->n || blk_chain_has(to, pl->n)))
        return err_set(e, ERR_VALUE, "Making '%s' a child of '%s' would create a cycle", to->obj.id, pl->n->obj.id);
    pl->set_backing |= backing;
    pl->set_file |= !backing;
    *(backing ? &pl->backing : &pl->file) = to;
    return true;
}

static bool plan_option(struct plan *pl, const struct prop *p, json_t *v, struct err *e)
{
    struct blk_node *n = pl->n;
    if (p->flags & PF_READONLY)
        return true;
    if (p->type == PROP_T_JSON && (!strcmp(p->name, "file") || !strcmp(p->name, "backing") || !strcmp(p->name, "data-file")))
        return plan_child(pl, p->name, v, e);
    json_t *want = value_of(n, p, v, e), *is = prop_to_json(p, n, &n->obj);
    bool ok = want, same = want && json_equal(want, is);
    if (ok && !same && !strcmp(p->name, "read-only")) {
        pl->set_read_only = json_is_true(want) != n->caps.read_only;
        pl->read_only = json_is_true(want);
    } else if (ok && !same && changeable(p->name) && pl->n_now < ARRAY_SIZE(pl->now)) {
        pl->before[pl->n_now].row = pl->now[pl->n_now].row = *p;
        pl->before[pl->n_now].v = json_incref(is);
        pl->now[pl->n_now++].v = json_incref(want);
    } else if (ok && !same) {
        ok = err_set(e, ERR_VALUE, "Cannot change the option '%s'", p->name);
    }
    json_decref(want);
    json_decref(is);
    return ok;
}

/* The value in @o of a row's name, which may be nested ("cache": {"direct": ...}); taken out. New reference. */
static json_t *take_value(json_t *o, const char *name)
{
    const char *dot = strchr(name, '.');
    json_t *v = json_incref(json_object_get(o, name));
    if (!v && dot) {
        char *head = xstrndup(name, (size_t)(dot - name));
        json_t *sub = json_object_get(o, head);
        v = json_is_object(sub) ? take_value(sub, dot + 1) : NULL;
        if (json_is_object(sub) && !json_object_size(sub))
            json_object_del(o, head);
        free(head);
    } else if (v) {
        json_object_del(o, name);
    }
    return v;
}

static bool plan_node(struct plan *pl, json_t *opts, struct err *e)
{
    json_t *o = json_deep_copy(opts);
    char *name = opt_take(o, "node-name"), *driver = opt_take(o, "driver");
    struct prop p;
    pl->n = name ? blk_node_find(name, e) : NULL;
    bool ok = pl->n || (!name && err_set(e, ERR_VALUE, "node-name not specified"));
    if (ok && !driver)
        ok = err_set(e, ERR_VALUE, "'driver' is missing");
    else if (ok && strcmp(driver, pl->n->obj.cls->name + strlen("blockdev-")))
        ok = err_set(e, ERR_VALUE, "Cannot change the option 'driver'");
    for (size_t i = 0; ok && obj_prop_nth(pl->n->obj.cls, i, &p); i++) {
        json_t *v = take_value(o, p.name);
        ok = plan_option(pl, &p, v, e);
        json_decref(v);
    }
    ok = ok && (!(pl->set_read_only || pl->set_backing || pl->set_file) || blk_node_free_of_jobs(pl->n, e));
    const char *left = ok ? json_object_iter_key(json_object_iter(o)) : NULL;
    if (left)
        ok = err_set(e, ERR_UNKNOWN, "unknown option '%s' for block node '%s'", left, pl->n->obj.id);
    free(name);
    free(driver);
    json_decref(o);
    return ok;
}

/* ---- carrying it out, and back ---- */

/* @m->use names @to from now on (NULL: none). What it named before is kept until it is clear that all goes well. */
static bool co_move(struct blk_node *n, struct moved *m, struct blk_use *use, struct blk_node *to, struct err *e)
{
    struct blk_node *old = use->node;
    *m = (struct moved){ use, old, false };
    if (old)
        obj_ref(&old->obj);
    if (!to)
        blk_use_del(use);
    else
        m->done = old ? blk_use_move(use, to, e) : blk_child_attach(n, use, to, BLK_PERM_READ, BLK_PERM_READ, e);
    m->done |= !to;
    return m->done;
}

static bool co_move_file(struct plan *pl, struct err *e)
{
    struct blk_node *n = pl->n;
    if (atomic_load(&pl->file->size) != atomic_load(&n->size))
        return err_set(e, ERR_VALUE, "'%s' is not as long as '%s'", pl->file->obj.id, n->obj.id);
    return co_move(n, &pl->moved[0], &n->child, pl->file, e);
}

static bool set_options(struct plan *pl, struct err *e)
{
    struct blk_node *n = pl->n;
    for (unsigned i = 0; i < pl->n_now; i++)
        if (!prop_set(&pl->now[i].row, n, &n->obj, pl->now[i].v, e))
            return false;
    return n->detect_zeroes != BLK_DETECT_UNMAP || n->discard == BLK_DISCARD_UNMAP ||
           err_set(e, ERR_VALUE, "detect-zeroes=unmap needs discard=unmap");
}

static bool co_set_read_only(struct plan *pl, struct err *e)
{
    struct blk_node *n = pl->n;
    if (pl->read_only && n->perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE))
        return err_set(e, ERR_BUSY, "block node '%s' is in use by somebody who writes", n->obj.id);
    return pl->done_read_only = co_node_set_writable(n, !pl->read_only, e);
}

static bool co_carry_out(struct plan *pl, struct err *e)
{
    struct blk_node *n = pl->n;
    if (!set_options(pl, e) || (pl->set_read_only && !co_set_read_only(pl, e)) || (pl->set_file && !co_move_file(pl, e)) ||
        (pl->set_backing && !co_move(n, &pl->moved[1], &n->backing, pl->backing, e)))
        return false;
    n->caps.discard = n->discard == BLK_DISCARD_UNMAP && !n->caps.read_only;
    return true;
}

/* As far as it came. */
static void co_undo(struct plan *pl)
{
    struct blk_node *n = pl->n;
    struct err e = ERR_INIT, unused = ERR_INIT;
    for (unsigned i = ARRAY_SIZE(pl->moved); i--;) {
        struct moved *m = &pl->moved[i], back = { 0 };
        if (m->done && co_move(n, &back, m->use, m->old, &e) && back.old)
            obj_unref(&back.old->obj);
    }
    bool ok = !pl->done_read_only || co_node_set_writable(n, pl->read_only, &e);
    for (unsigned i = 0; i < pl->n_now; i++)
        ok = prop_set(&pl->before[i].row, n, &n->obj, pl->before[i].v, ok ? &e : &unused) && ok;
    if (e.msg[0])
        log_warn("block node '%s' could not be put back as it was: %s", n->obj.id, e.msg);
    n->caps.discard = n->discard == BLK_DISCARD_UNMAP && !n->caps.read_only;
}

/* Nodes that nobody needs any more go. */
static void plan_free(struct plan *pl)
{
    for (unsigned i = 0; i < ARRAY_SIZE(pl->moved); i++)
        if (pl->moved[i].old) {
            blk_node_drop(pl->moved[i].old);
            obj_unref(&pl->moved[i].old->obj);
        }
    for (unsigned k = 0; k < pl->n_now; k++) {
        json_decref(pl->now[k].v);
        json_decref(pl->before[k].v);
    }
}

static json_t *co_reopen(void *args, struct err *e)
{
    json_t *list = *(json_t **)args, *o;
    size_t i, n = json_array_size(list), held = 0;
    if (!json_is_array(list) || !n)
        return err_set(e, ERR_VALUE, "'options' is a list of the options of nodes"), NULL;
    struct plan *v = xcalloc(n, sizeof *v);
    bool ok = true;
    json_array_foreach(list, i, o)
        ok = ok && plan_node(&v[i], o, e);
    for (; ok && held < n; held++)
        co_node_drain(v[held].n, &v[held].drain);
    for (i = 0; i < n && ok; i++)
        ok = co_carry_out(&v[i], e);
    while (!ok && i--)
        co_undo(&v[i]);
    for (i = 0; i < held; i++)
        blk_drain_end(&v[i].drain);
    for (i = 0; i < n; i++)
        plan_free(&v[i]);
    free(v);
    return ok ? json_object() : NULL;
}

struct args { json_t *options; };
static const struct prop props[] = {
    PROP_JSON(struct args, options, "options", PF_REQUIRED, "List of nodes, each with the options that blockdev-add would take"), PROP_END };
static const struct qmp_cmd cmd_reopen = { "blockdev-reopen", "Changes options of nodes that are in use",
    props, sizeof(struct args), co_reopen, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_reopen);
