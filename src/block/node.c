/* SPDX-License-Identifier: MIT */
/* Nodes of the block graph: made from options, used under permissions, deleted when nobody uses them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/opt.h"
#include "block/bitmap.h"
#include "block/blk_int.h"
#include "core/backend.h"

static const char *const discard_names[] = { "ignore", "unmap", NULL };
static const char *const detect_names[] = { "off", "on", "unmap", NULL };

static const struct prop node_props[] = {
    PROP_BOOL(struct blk_node, read_only, "read-only", false, "Never write to it"),
    PROP_BOOL(struct blk_node, auto_read_only, "auto-read-only", false, "Open it read-only where writing is not permitted"),
    PROP_BOOL(struct blk_node, force_share, "force-share", false, "Read it although others write to it; it needs read-only=on"),
    PROP_BOOL(struct blk_node, direct, "cache.direct", false, "Bypass the host's page cache"),
    PROP_BOOL(struct blk_node, no_flush, "cache.no-flush", false, "Never wait for the disk; a crash of the host loses data"),
    PROP_ENUM(struct blk_node, discard, "discard", discard_names, BLK_DISCARD_IGNORE, "What a discard by the guest does"),
    PROP_ENUM(struct blk_node, detect_zeroes, "detect-zeroes", detect_names, BLK_DETECT_OFF,
              "Look for zeroes in what is written: on writes them efficiently, unmap deallocates"),
    PROP_END,
};

void blk_run(void (*fn)(void *), void *arg)
{
    co_call(fn, arg);
}

/* ---- opening and closing ---- */

struct open_args { struct blk_node *n; struct err *e; bool ok; };

static void co_open(void *arg)
{
    struct open_args *a = arg;
    a->ok = BLK_DRIVER(a->n)->co_open(a->n, a->e);
}

static void co_close(void *arg)
{
    struct blk_node *n = arg;
    if (BLK_DRIVER(n)->co_close)
        BLK_DRIVER(n)->co_close(n);
}

struct list blk_nodes = LIST_INIT(blk_nodes);
static struct blk_node *opener;     /* of the node that is made next */
static enum blk_make making;        /* its file */

static bool node_init(struct obj *o, struct err *e)
{
    struct blk_node *n = (struct blk_node *)o;
    n->opener = opener;
    n->make = making;
    opener = NULL;
    making = BLK_MAKE_NOT;
    list_push(&blk_nodes, &n->in_all);
    list_init(&n->uses);
    list_init(&n->child.link);
    list_init(&n->backing.link);
    list_init(&n->data.link);
    list_init(&n->watches);
    list_init(&n->changes);
    list_init(&n->locks);
    list_init(&n->bitmaps);
    n->home = loop_main();
    n->shared = BLK_PERM_ALL;
    return true;
}

static bool node_check(struct obj *o, struct err *e)
{
    struct blk_node *n = (struct blk_node *)o;
    if (n->detect_zeroes == BLK_DETECT_UNMAP && n->discard != BLK_DISCARD_UNMAP)
        return err_set(e, ERR_VALUE, "detect-zeroes=unmap needs discard=unmap");
    if (n->force_share && !n->read_only)
        return err_set(e, ERR_VALUE, "force-share=on needs read-only=on");
    return true;
}

static bool node_complete(struct obj *o, struct err *e)
{
    struct open_args a = { (struct blk_node *)o, e, false };
    blk_run(co_open, &a);
    a.n->is_open = true;        /* co_close is due in either case */
    return a.ok;
}

static void node_finalize(struct obj *o)
{
    struct blk_node *n = (struct blk_node *)o;
    if (n->is_open)
        blk_run(co_close, n);
    blk_bitmaps_free(n);
    if (n->drive) {
        free(n->drive->iface);
        free(n->drive->device);
        obj_unref(n->drive->throttle_group);
    }
    free(n->drive);
    blk_turn_forget(n, NULL);
    list_del(&n->in_all);
}

/* The first user's name, for "in use by". */
static bool node_can_delete(struct obj *o, struct err *e)
{
    struct blk_node *n = (struct blk_node *)o;
    struct blk_use *u = list_first(&n->uses, struct blk_use, link);
    if (u)
        return err_set(e, ERR_BUSY, "block node '%s' is in use by %s", o->id, u->who);
    return true;
}

const struct obj_class blk_node_class = {
    .name = "blockdev", .desc = "Block back end", .size = sizeof(struct blk_node), .props = node_props, .flags = OCF_ABSTRACT,
    .ns = "blockdev", .init = node_init, .check = node_check, .complete = node_complete, .can_delete = node_can_delete,
    .finalize = node_finalize,
};
OBJ_CLASS(&blk_node_class);

/* @parent: its child, or NULL. */
static struct blk_node *node_create(json_t *opts, struct blk_node *parent, struct err *e)
{
    json_t *o = json_copy(opts);
    char *driver = opt_take(o, "driver"), *name = opt_take(o, "node-name");
    struct blk_node *n = NULL;
    if (json_is_null(json_object_get(o, "backing")))        /* null says "none", which a row takes for "not given" */
        json_object_set_new(o, "backing", json_string(""));
    if (!driver)
        err_set(e, ERR_VALUE, "'driver' is missing"), err_hint(e, "driver=TYPE[,...]; types: -blockdev help");
    else if (!name && !parent)
        err_set(e, ERR_VALUE, "'node-name' is missing: a block node needs a name by which others find it");
    else {
        const struct obj_class *c = backend_find(&blk_node_class, driver, e);
        opener = parent;
        if (c)
            n = (struct blk_node *)obj_create(c, name, o, NULL, e);
        opener = NULL;
        if (n) {
            n->inline_child = parent;
            n->opener = NULL;
        }
    }
    free(driver);
    free(name);
    json_decref(o);
    return n;
}

struct blk_node *blk_node_create(json_t *opts, struct err *e) { return node_create(opts, NULL, e); }

struct blk_node *blk_node_make(json_t *opts, enum blk_make how, struct err *e)
{
    making = how;
    struct blk_node *n = node_create(opts, NULL, e);
    making = BLK_MAKE_NOT;
    return n;
}

bool blk_node_delete(struct blk_node *n, struct err *e) { return obj_user_delete(&n->obj, e); }

const char *blk_node_filename(const struct blk_node *n)
{
    const char *(*fn)(const struct blk_node *) = BLK_DRIVER(n)->filename;
    const char *s = fn ? fn(n) : n->child.node ? blk_node_filename(n->child.node) : NULL;
    return s ? s : "";
}

/* ---- children ---- */

/* What a child made from its parent's options takes over unless it says otherwise. */
static json_t *child_opts(const struct blk_node *parent, json_t *v)
{
    static const char *const inherited[] = { "read-only", "auto-read-only", "force-share", "cache.direct", "cache.no-flush", "discard", NULL };
    json_t *o = json_copy(v);
    for (const char *const *k = inherited; *k; k++) {
        struct prop p;
        if (json_object_get(o, *k) || (str_starts(*k, "cache.") && json_object_get(o, "cache")) || !prop_find(node_props, *k, &p))
            continue;
        json_object_set_new(o, *k, prop_to_json(&p, parent, &parent->obj));
    }
    return o;
}

bool blk_child_open_at(struct blk_node *parent, struct blk_use *u, const char *role, json_t *v, unsigned perm, unsigned shared,
                       struct err *e)
{
    struct blk_node *c = NULL;
    if (json_is_string(v)) {
        c = (struct blk_node *)obj_lookup(&blk_node_class, json_string_value(v), e);
    } else if (json_is_object(v)) {
        json_t *o = child_opts(parent, v);
        c = node_create(o, parent, e);
        json_decref(o);
    } else {
        err_set(e, ERR_VALUE, "'%s' must name a block node or hold the options of one", role);
    }
    if (!c)
        return false;
    if (blk_child_attach(parent, u, c, perm, shared, e))
        return true;
    blk_node_drop(c);
    return false;
}

bool blk_child_attach(struct blk_node *parent, struct blk_use *u, struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    char who[160];
    if (blk_node_is_empty(n))
        return err_set(e, ERR_VALUE, "drive '%s' is empty: '%s' needs a block node with something in it", n->obj.id, parent->obj.id);
    if (n->caps.zoned.size)
        return err_set(e, ERR_VALUE, "block node '%s' is written in zones, which '%s' would not keep to: it goes above all others", n->obj.id, parent->obj.id);
    snprintf(who, sizeof who, "block node '%s'", parent->obj.id);
    u->parent = parent;
    return blk_use_add(u, n, perm, shared, who, e);
}

void blk_node_drop(struct blk_node *n)
{
    if (n->inline_child && !n->drive && n->obj.in_tree && list_empty(&n->uses))
        obj_del(&n->obj);
}

bool blk_child_open(struct blk_node *parent, json_t *v, unsigned perm, unsigned shared, struct err *e)
{
    return blk_child_open_at(parent, &parent->child, "file", v, perm, shared, e);
}

void blk_child_close(struct blk_node *parent) { blk_child_close_at(&parent->child); }

void blk_child_close_at(struct blk_use *u)
{
    struct blk_node *c = u->node;
    if (!c)
        return;
    obj_ref(&c->obj);
    blk_use_del(u);
    blk_node_drop(c);
    obj_unref(&c->obj);
}

void blk_caps_inherit(struct blk_node *n, const struct blk_node *child)
{
    n->caps = child->caps;
    n->caps.read_only |= n->read_only;
    n->caps.discard &= n->discard == BLK_DISCARD_UNMAP;
    n->caps.flush &= !n->no_flush;
    n->caps.scsi = 0;               /* commands go around what a node does: who hands them down says so */
    n->caps.secure_erase = false;   /* copies may be elsewhere: who knows that there are none says so */
    atomic_store(&n->size, atomic_load(&child->size));
}

/* ---- permissions ---- */

static void perm_names(unsigned perm, struct str *out)
{
    static const char *const names[] = { "reads", "writes", "resizes" };
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (perm >> i & 1)
            str_printf(out, "%s%s", out->len ? " and " : "", names[i]);
}

static bool use_conflict(const struct blk_node *n, const struct blk_use *other, unsigned denied, const char *why, struct err *e)
{
    struct str names = { 0 };
    perm_names(denied, &names);
    err_set(e, ERR_BUSY, "block node '%s' is in use by %s, which %s%s", n->obj.id, other->who, why, names.s);
    err_hint(e, "read-only users may share it; writers share only where both say share-rw=on");
    str_free(&names);
    return false;
}

struct perms { struct blk_node *n; unsigned perm, shared; struct err *e; bool ok; };

static void tell_driver(void *arg)
{
    struct perms *p = arg;
    p->ok = BLK_DRIVER(p->n)->set_perm(p->n, p->perm, p->shared, p->e);
}

/* Sums up the uses of @n and tells its driver, which may go on to the nodes below. */
static bool perm_update(struct blk_node *n, struct err *e)
{
    struct perms p = { n, 0, BLK_PERM_ALL, e, true };
    struct blk_use *u;
    list_for_each(u, &n->uses, link) {
        p.perm |= u->perm;
        p.shared &= u->shared;
    }
    if (BLK_DRIVER(n)->set_perm)
        co_deeper(tell_driver, &p);
    if (!p.ok)
        return false;
    n->perm = p.perm;
    n->shared = p.shared;
    return true;
}

/* One is there in the name of the other. */
static bool same_user(const struct blk_use *a, const struct blk_use *b)
{
    return a == b || (a->blk && b->blk && (a->blk->for_blk == b->blk || b->blk->for_blk == a->blk));
}

bool blk_use_change(struct blk_use *u, unsigned perm, unsigned shared, struct err *e)
{
    struct blk_node *n = u->node;
    struct blk_use *o;
    if ((perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE)) && n->caps.read_only)
        return err_set(e, ERR_VALUE, "block node '%s' is read-only", n->obj.id);
    list_for_each(o, &n->uses, link) {
        if (same_user(o, u))
            continue;
        if (perm & ~o->shared)
            return use_conflict(n, o, perm & ~o->shared, "does not allow that another user ", e);
        if (o->perm & ~shared)
            return use_conflict(n, o, o->perm & ~shared, "", e);
    }
    unsigned old_perm = u->perm, old_shared = u->shared;
    u->perm = perm;
    u->shared = shared;
    if (perm_update(n, e))
        return true;
    u->perm = old_perm;
    u->shared = old_shared;
    return false;
}

bool blk_use_add(struct blk_use *u, struct blk_node *n, unsigned perm, unsigned shared, const char *who, struct err *e)
{
    u->node = n;
    u->perm = 0;
    u->shared = BLK_PERM_ALL;
    u->who = xstrdup(who);
    list_push(&n->uses, &u->link);
    obj_ref(&n->obj);
    if (blk_use_change(u, perm, shared, e))
        return true;
    blk_use_del(u);
    return false;
}

void blk_use_del(struct blk_use *u)
{
    struct blk_node *n = u->node;
    struct err e = ERR_INIT;
    if (!n)
        return;
    list_del(&u->link);
    bool ok = perm_update(n, &e);       /* less than before: cannot conflict */
    (void)ok;
    free(u->who);
    u->node = NULL;
    u->who = NULL;
    obj_unref(&n->obj);
}

bool blk_use_move(struct blk_use *u, struct blk_node *to, struct err *e)
{
    struct blk_node *from = u->node;
    struct err ignored = ERR_INIT;
    unsigned perm = u->perm, shared = u->shared;
    if (memcmp(&to->caps.zoned, &from->caps.zoned, sizeof to->caps.zoned)) {
        err_set(e, ERR_VALUE, "'%s' and '%s' do not have the same zones, by which %s goes", to->obj.id, from->obj.id, u->who);
        return false;
    }
    char *who = xstrdup(u->who);
    obj_ref(&from->obj);
    blk_use_del(u);
    bool ok = blk_use_add(u, to, perm, shared, who, e);
    if (!ok && !blk_use_add(u, from, perm, shared, who, &ignored))
        log_warn("%s: %s", who, ignored.msg);
    if (u->blk)
        blk_follow_use(u->blk);
    free(who);
    obj_unref(&from->obj);
    return ok;
}

bool blk_pass_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    return !n->child.node || blk_use_change(&n->child, perm, shared, e);
}
