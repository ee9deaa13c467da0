/* SPDX-License-Identifier: MIT */
/* block-dirty-bitmap-*: commands and actions of transactions. */
#include <stdlib.h>
#include <string.h>
#include "block/bitmap.h"
#include "block/blk_int.h"
#include "block/transaction.h"
#include "core/cmd.h"

struct args { char *node, *name, *target; uint64_t granularity; bool persistent, disabled; json_t *bitmaps; };
#define NODE PROP_STR(struct args, node, "node", PF_REQUIRED, "Drive or node")
static const struct prop add_props[] = { NODE, PROP_STR(struct args, name, "name", PF_REQUIRED, "Name of the bitmap"),
    PROP_SIZE(struct args, granularity, "granularity", 0, 0, INT32_MAX, "Bytes that one bit stands for; 0: chosen"),
    PROP_BOOL(struct args, persistent, "persistent", false, "It is kept in the image"),
    PROP_BOOL(struct args, disabled, "disabled", false, "It does not record yet"), PROP_END };
static const struct prop name_props[] = { NODE, PROP_STR(struct args, name, "name", PF_REQUIRED, "Name of the bitmap"), PROP_END };
static const struct prop merge_props[] = { NODE, PROP_STR(struct args, target, "target", PF_REQUIRED, "Bitmap that takes over what is set in the others"),
    PROP_JSON(struct args, bitmaps, "bitmaps", PF_REQUIRED, "The others: names, or objects with \"node\" and \"name\""), PROP_END };

static const char *node_of(const void *args) { return ((const struct args *)args)->node; }

/* A copy of the map, for the way back. */
static bool save(struct txn_act *t, struct blk_bitmap *b, struct err *e)
{
    struct dirty_map *m = xnew(struct dirty_map);
    t->saved = m;
    if (!dirty_init(m, b->map.size, dirty_granularity(&b->map)))
        return err_set(e, ERR_GENERIC, "no memory for bitmap '%s'", b->name);
    dirty_merge(m, &b->map);
    return true;
}

static void forget(struct txn_act *t)
{
    if (t->saved)
        dirty_free(t->saved);
    free(t->saved);
    t->saved = NULL;
}

static struct blk_bitmap *mine(struct txn_act *t)
{
    struct args *a = t->args;
    return t->node ? blk_bitmap_find(t->node, a->target ? a->target : a->name) : NULL;
}

static bool find(struct txn_act *t, bool for_use, struct err *e)
{
    struct args *a = t->args;
    struct blk_bitmap *b = blk_bitmap_get(a->node, a->target ? a->target : a->name, for_use, e);
    t->node = b ? b->node : NULL;
    return b;
}

static void co_restore(struct txn_act *t)
{
    struct blk_bitmap *b = mine(t);
    if (b) {
        dirty_clear(&b->map, 0, b->map.size);
        dirty_merge(&b->map, t->saved);
    }
    forget(t);
}
static void co_forget(struct txn_act *t) { forget(t); }

/* ---- add, remove ---- */

static bool co_add(struct txn_act *t, struct err *e)
{
    struct args *a = t->args;
    struct blk_node *n = blk_node_find(a->node, e);
    if (!n || (a->persistent && !blk_bitmap_can_persist(n, e)))
        return false;
    struct blk_bitmap *b = co_bitmap_new(n, a->name, a->granularity, e);
    if (!b)
        return false;
    b->persistent = a->persistent;
    b->recording = !a->disabled;
    t->node = n;
    return true;
}
static void co_unadd(struct txn_act *t) { co_bitmap_free(mine(t)); }

static bool co_remove(struct txn_act *t, struct err *e)
{
    struct args *a = t->args;
    struct blk_node *n = blk_node_find(a->node, e);
    struct blk_bitmap *b = n ? blk_bitmap_find(n, a->name) : NULL;
    if (!n)
        return false;
    if (!b)
        return err_set(e, ERR_UNKNOWN, "Dirty bitmap '%s' not found", a->name);
    if (!blk_bitmap_idle(b, e))
        return false;
    if (b->stored && n->caps.read_only)
        return err_set(e, ERR_STATE, "Bitmap '%s' is readonly and cannot be modified", a->name);
    b->leaving = true;
    t->node = n;
    return true;
}
static void co_stay(struct txn_act *t) { mine(t)->leaving = false; }
static void co_removed(struct txn_act *t)
{
    struct blk_bitmap *b = mine(t);
    struct err e = ERR_INIT;
    bool stored = b->stored;
    co_bitmap_free(b);
    if (stored && !BLK_DRIVER(t->node)->co_store_bitmaps(t->node, true, &e))
        err_print(&e);
}

/* ---- clear, merge ---- */

static bool co_clear(struct txn_act *t, struct err *e)
{
    if (!find(t, true, e) || !save(t, mine(t), e)) {
        forget(t);
        return false;
    }
    dirty_clear(&mine(t)->map, 0, mine(t)->map.size);
    return true;
}

static bool merge_one(struct blk_bitmap *to, json_t *from, struct err *e)
{
    const char *name = json_string_value(from), *node = to->node->obj.id;
    if (!name) {
        node = json_string_value(json_object_get(from, "node"));
        name = json_string_value(json_object_get(from, "name"));
    }
    if (!name || !node)
        return err_set(e, ERR_VALUE, "'bitmaps' is a list of names, or of objects with 'node' and 'name'");
    struct blk_bitmap *b = blk_bitmap_get(node, name, false, e);
    if (!b)
        return false;
    if (b->map.size != to->map.size)
        return err_set(e, ERR_VALUE, "Bitmaps are of different sizes (destination size is %llu, source size is %llu) and can't be merged",
                       (unsigned long long)to->map.size, (unsigned long long)b->map.size);
    dirty_merge(&to->map, &b->map);
    return true;
}

static bool co_merge(struct txn_act *t, struct err *e)
{
    struct args *a = t->args;
    json_t *from;
    size_t i;
    if (!json_is_array(a->bitmaps))
        return err_set(e, ERR_VALUE, "'bitmaps' must be a list");
    if (!find(t, true, e) || !save(t, mine(t), e)) {
        forget(t);
        return false;
    }
    json_array_foreach(a->bitmaps, i, from)
        if (!merge_one(mine(t), from, e)) {
            co_restore(t);
            return false;
        }
    return true;
}

/* ---- enable, disable ---- */

/* In memory, so that an image may be read-only. */
static bool record(struct txn_act *t, bool on, struct err *e)
{
    if (!find(t, false, e) || !blk_bitmap_idle(mine(t), e))
        return false;
    t->saved = mine(t)->recording ? t->node : NULL;
    mine(t)->recording = on;
    return true;
}
static bool co_enable(struct txn_act *t, struct err *e) { return record(t, true, e); }
static bool co_disable(struct txn_act *t, struct err *e) { return record(t, false, e); }
static void co_record_back(struct txn_act *t) { mine(t)->recording = t->saved; }

#define ACTION(var, nm, ds, rows, ...) \
    static const struct txn_action var = { .type = nm, .props = rows, .args_size = sizeof(struct args), .node = node_of, __VA_ARGS__ }; \
    TXN_ACTION(&var); \
    static json_t *co_cmd_##var(void *args, struct err *e) { return co_txn_alone(&var, args, e); } \
    static const struct qmp_cmd cmd_##var = { nm, ds, rows, sizeof(struct args), co_cmd_##var, .ret = qmp_nothing, .turn = &blk_graph_turn }; QMP_CMD(&cmd_##var)
ACTION(add, "block-dirty-bitmap-add", "Begins to note what is written to a node", add_props, .co_prepare = co_add, .co_abort = co_unadd);
ACTION(del, "block-dirty-bitmap-remove", "Removes a bitmap", name_props, .co_prepare = co_remove, .co_commit = co_removed, .co_abort = co_stay);
ACTION(clear, "block-dirty-bitmap-clear", "Begins a bitmap anew", name_props, .co_prepare = co_clear, .co_commit = co_forget, .co_abort = co_restore);
ACTION(enable, "block-dirty-bitmap-enable", "Lets a bitmap record", name_props, .co_prepare = co_enable, .co_abort = co_record_back);
ACTION(disable, "block-dirty-bitmap-disable", "Ends the recording of a bitmap", name_props, .co_prepare = co_disable, .co_abort = co_record_back);
ACTION(merge, "block-dirty-bitmap-merge", "Adds what is set in bitmaps to another", merge_props, .co_prepare = co_merge, .co_commit = co_forget,
       .co_abort = co_restore);
