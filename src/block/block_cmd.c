/* SPDX-License-Identifier: MIT */
/* What a monitor asks about the block graph, and does to it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "block/backing.h"
#include "block/bitmap.h"
#include "block/blk_int.h"
#include "core/cmd.h"
#include "core/flags.h"

/* ---- showing ---- */

/* So many images are told one within the other: beyond, readers of JSON give up. */
enum { CHAIN_TOLD = 100 };

static int depth_of(const struct blk_node *n)
{
    int depth = 0;
    for (n = n->backing.node; n; n = n->backing.node)
        depth++;
    return depth;
}

/* Without a device: what -drive said, with which one would begin. */
static bool begins_with_cache(const struct blk_node *n) { return !(n->drive && n->drive->writethrough); }

static json_t *node_json(struct blk_node *n, bool wce, bool flat)
{
    static const char *const detect[] = { "off", "on", "unmap" };
    json_t *o = json_pack("{s:s, s:s, s:b, s:s, s:b, s:i, s:s, s:o, s:{s:b, s:b, s:b}}", "node-name", n->obj.id, "drv", blk_format_name(n),
        "ro", n->caps.read_only, "file", blk_node_filename(n), "encrypted", blk_is_encrypted(n), "backing_file_depth", depth_of(n),
        "detect_zeroes", detect[n->detect_zeroes], "image", blk_chain_info(n, flat ? 0 : CHAIN_TOLD),
        "cache", "writeback", wce, "direct", n->direct, "no-flush", n->no_flush);
    static const char *const limits[] = { "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr", "write_threshold" };
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
        json_object_set_new(o, limits[i], json_integer(0));
    if (n->backing.node)
        json_object_set_new(o, "backing_file", json_string(blk_node_filename(n->backing.node)));
    json_t *bitmaps = blk_bitmaps_json(n);
    if (bitmaps)
        json_object_set_new(o, "dirty-bitmaps", bitmaps);
    return o;
}

struct naming { json_t *list; bool flat; };

static bool append_node(struct obj *o, void *arg)
{
    const struct naming *s = arg;
    if (!blk_node_is_empty((struct blk_node *)o))
        json_array_append_new(s->list, node_json((struct blk_node *)o, begins_with_cache((struct blk_node *)o), s->flat));
    return true;
}

struct named_args { bool flat; };
static const struct prop named_props[] = {
    PROP_BOOL(struct named_args, flat, "flat", false, "Without the images below each one"), PROP_END };

static json_t *co_query_named(void *args, struct err *e)
{
    struct naming s = { json_array(), ((struct named_args *)args)->flat };
    obj_each(NULL, &blk_node_class, append_node, &s);
    return s.list;
}

/*
 * A device as commands name it: its id, or its path if it was given none. Management tools look for QEMU's name of a virtio disk, which is
 * a device without an id behind its PCI function there. NULL: no device. Caller frees.
 */
static char *user_name(const struct obj *o)
{
    bool behind = o && cli_flags.compat_qemu && str_starts(o->cls->name, "virtio-blk-pci");
    if (!o || (o->id[0] != '#' && !behind))
        return o ? xstrdup(o->id) : NULL;
    char *path = obj_path(o), *name = xasprintf("%s%s", path, behind ? BLK_VIRTIO_BACKEND : "");
    free(path);
    return name;
}

static void append_blk(struct blk *b, void *list)
{
    if (b->is_export)
        return;
    char *qdev = user_name(b->user);
    bool tray = b->tray != NULL;
    if (tray)
        domain_lock(b->dom);
    bool open = tray && b->tray->is_open(b->tray_arg), locked = tray && b->tray->is_locked(b->tray_arg);
    if (tray)
        domain_unlock(b->dom);
    json_t *o = json_pack("{s:s, s:s, s:b, s:b, s:s}", "device", b->drive ? b->drive : "", "type", "unknown",
                          "removable", tray, "locked", locked, "io-status", "ok");
    if (blk_has_medium(b)) {
        json_t *inserted = node_json(b->node, blk_write_cache(b), false);
        blk_throttle_json(b, inserted);
        json_object_set_new(o, "inserted", inserted);
    }
    if (tray)
        json_object_set_new(o, "tray_open", json_boolean(open));
    if (qdev)
        json_object_set_new(o, "qdev", json_string(qdev));
    json_array_append_new(list, o);
    free(qdev);
}

static bool has_device(const struct blk_node *n)
{
    struct blk_use *u;
    list_for_each(u, &n->uses, link)
        if (u->blk && !u->blk->is_export)
            return true;
    return false;
}

/* A drive that no device took. */
static bool append_idle_drive(struct obj *o, void *list)
{
    struct blk_node *n = (struct blk_node *)o;
    if (n->drive && !has_device(n))
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:b, s:s, s:o*}", "device", blk_drive_name(n), "type", "unknown", "removable",
                                              blk_node_is_empty(n), "locked", 0, "io-status", "ok", "inserted", blk_node_is_empty(n) ? NULL : node_json(n, begins_with_cache(n), false)));
    return true;
}

static json_t *co_query_block(void *args, struct err *e)
{
    json_t *list = json_array();
    blk_each(append_blk, list);
    obj_each(NULL, &blk_node_class, append_idle_drive, list);
    return list;
}

static json_int_t stat_of(const _Atomic uint64_t *v) { return (json_int_t)atomic_load(v); }

/* Requests of @b, or (NULL) of a node, which only knows how far it was written. */
static json_t *stats_json(const struct blk *b, const struct blk_node *n)
{
    static const char *const names[BLK_OPS] = { "rd", "wr", "unmap", "flush" };
    static const struct blk_op_stats none;
    json_t *s = json_object();
    char key[48];
    for (unsigned i = 0; i < BLK_OPS; i++) {
        const struct blk_op_stats *of = b ? &b->stats[i] : &none;
        const struct { const char *suffix; const _Atomic uint64_t *v; } rows[] = {
            { "operations", &of->ops }, { "bytes", &of->bytes }, { "total_time_ns", &of->ns },
        };
        for (size_t k = 0; k < ARRAY_SIZE(rows); k++) {
            snprintf(key, sizeof key, "%s_%s", names[i], rows[k].suffix);
            if (!(i == BLK_OP_FLUSH && k == 1))
                json_object_set_new(s, key, json_integer(stat_of(rows[k].v)));
        }
        snprintf(key, sizeof key, "failed_%s_operations", names[i]);
        json_object_set_new(s, key, json_integer(stat_of(&of->failed)));
    }
    json_object_set_new(s, "wr_highest_offset", json_integer(stat_of(&n->written_to)));
    return s;
}

static json_t *node_stats(const struct blk_node *n) { return json_pack("{s:s, s:o}", "node-name", n->obj.id, "stats", stats_json(NULL, n)); }

/* What stores @n ("parent"), and the images below, each within the one above. */
static void add_below(json_t *o, const struct blk_node *n)
{
    for (unsigned depth = 0; n && depth < CHAIN_TOLD; depth++) {
        if (n->child.node)
            json_object_set_new(o, "parent", node_stats(n->child.node));
        n = n->backing.node;
        json_t *next = n ? node_stats(n) : NULL;
        if (n)
            json_object_set_new(o, "backing", next);
        o = next;
    }
}

static void append_stats(struct blk *b, void *list)
{
    if (b->is_export)
        return;
    char *qdev = user_name(b->user);
    json_t *o = json_pack("{s:s, s:s, s:s, s:o}", "device", b->drive ? b->drive : "", "node-name", b->node->obj.id, "qdev", qdev ? qdev : "",
                          "stats", stats_json(b, b->node));
    add_below(o, b->node);
    json_array_append_new(list, o);
    free(qdev);
}

static bool append_node_stats(struct obj *o, void *list)
{
    const struct blk_node *n = (struct blk_node *)o;
    if (!blk_node_is_empty(n))
        json_array_append_new(list, node_stats(n));
    return true;
}

struct stats_args { bool query_nodes; };
static const struct prop stats_props[] = {
    PROP_BOOL(struct stats_args, query_nodes, "query-nodes", false, "Of every node, in place of every user"), PROP_END };

static json_t *co_query_blockstats(void *args, struct err *e)
{
    json_t *list = json_array();
    if (((struct stats_args *)args)->query_nodes)
        obj_each(NULL, &blk_node_class, append_node_stats, list);
    else
        blk_each(append_stats, list);
    return list;
}

/* ---- changing ---- */

static json_t *co_blockdev_add(void *args, struct err *e)
{
    return blk_node_create(args, e) ? json_object() : NULL;
}

struct del_args { char *node_name; };
static const struct prop del_props[] = {
    PROP_STR(struct del_args, node_name, "node-name", PF_REQUIRED, "Name of the node"), PROP_END };

static json_t *co_blockdev_del(void *args, struct err *e)
{
    struct obj *o = obj_lookup(&blk_node_class, ((struct del_args *)args)->node_name, e);
    bool ok = o && blk_node_delete((struct blk_node *)o, e);
    return ok ? json_object() : NULL;
}

struct resize_args { char *device, *node_name; int64_t size; };
static const struct prop resize_props[] = {
    PROP_STR(struct resize_args, device, "device", 0, "Name of the drive"),
    PROP_STR(struct resize_args, node_name, "node-name", 0, "Name of the node"),
    { .name = "size", .doc = "New size in bytes", .type = PROP_T_S64, .flags = PF_REQUIRED, PROP_OFF(struct resize_args, size), .min = 0,
      .max = INT64_MAX }, PROP_END };

bool co_blk_node_resize(struct blk_node *n, int64_t size, struct err *e)
{
    if (size % 512)
        return err_set(e, ERR_VALUE, "size is %lld, but must be a multiple of 512", (long long)size);
    if (!blk_bitmaps_fit(n, (uint64_t)size, e))
        return false;
    int r = n->shared & BLK_PERM_RESIZE ? co_node_resize(n, (uint64_t)size) : -EBUSY;
    if (r)
        return err_os(e, -r, "cannot resize '%s'", n->obj.id);
    blk_node_changed(n);
    return true;
}

static bool co_resize(const char *name, int64_t size, struct err *e)
{
    struct blk_node *n = (struct blk_node *)obj_lookup(&blk_node_class, name, e);
    return n && co_blk_node_resize(n, size, e);
}

static json_t *co_block_resize(void *args, struct err *e)
{
    struct resize_args *a = args;
    const char *name = a->node_name ? a->node_name : a->device;
    if (!name) {
        err_set(e, ERR_VALUE, "'node-name' or 'device' is missing");
        return NULL;
    }
    return co_resize(name, a->size, e) ? json_object() : NULL;
}

static const struct prop add_props[] = { { .name = "driver", .doc = "Type of the node", .type = PROP_T_STR, .flags = PF_REQUIRED }, PROP_END };

#define IMAGE_SAYS "{filename:str, format:str, virtual-size:int, dirty-flag:bool, *actual-size:int, *cluster-size:int, *encrypted:bool, "    \
    "*backing-filename:str, *full-backing-filename:str, *backing-filename-format:str, *snapshots:[any], *format-specific:any, *backing-image:any}"
#define NODE_SAYS "{node-name:str, drv:str, ro:bool, file:str, encrypted:bool, backing_file_depth:int, detect_zeroes:str, "              \
    "*backing_file:str, image:" IMAGE_SAYS ", cache:{writeback:bool, direct:bool, no-flush:bool}, "         \
    "bps:int, bps_rd:int, bps_wr:int, iops:int, iops_rd:int, iops_wr:int, write_threshold:int}"
#define OP_SAYS(op) op "_operations:int, " op "_total_time_ns:int, failed_" op "_operations:int"
struct change_args { char *parent, *child, *node; };
static const struct prop change_props[] = {
    PROP_STR(struct change_args, parent, "parent", PF_REQUIRED, "Node whose children change"),
    PROP_STR(struct change_args, child, "child", 0, "Name of the child that goes: children.N"),
    PROP_STR(struct change_args, node, "node", 0, "Name of the node that becomes a child"),
    PROP_END,
};

static bool co_change_child(struct blk_node *n, const struct change_args *a, struct err *e)
{
    const struct blk_driver *d = BLK_DRIVER(n);
    struct blk_node *child = a->node ? (struct blk_node *)obj_lookup(&blk_node_class, a->node, e) : NULL;
    struct blk_drain drain;
    if (a->node && !child)
        return false;
    if (!d->co_child_add)
        return err_set(e, ERR_VALUE, "the children of '%s' do not change: it is no quorum", n->obj.id);
    if (!blk_node_free_of_jobs(n, e))
        return false;
    co_node_drain(n, &drain);
    bool ok = child ? d->co_child_add(n, child, e) : d->co_child_del(n, a->child, e);
    blk_drain_end(&drain);
    return ok;
}

static json_t *co_blockdev_change(void *args, struct err *e)
{
    struct change_args *a = args;
    if (!a->child == !a->node) {
        err_set(e, ERR_VALUE, "one of 'child' and 'node' says what changes");
        return NULL;
    }
    struct blk_node *n = blk_node_find(a->parent, e);
    return n && co_change_child(n, a, e) ? json_object() : NULL;
}

#define ROW(var, nm, ds, ...) static const struct qmp_cmd var = { .name = nm, .doc = ds, __VA_ARGS__ }; QMP_CMD(&var)
ROW(cmd_query_block, "query-block", "Drives, and what devices use", .co_run = co_query_block,
    .says = "[{device:str, type:str, removable:bool, locked:bool, io-status:str, *inserted:" NODE_SAYS ", *tray_open:bool, *qdev:str}]");
ROW(cmd_query_named, "query-named-block-nodes", "Every node of the block graph", .args = named_props,
    .args_size = sizeof(struct named_args), .co_run = co_query_named, .says = "[" NODE_SAYS "]");
ROW(cmd_query_stats, "query-blockstats", "Requests of every user of a block node", .args = stats_props, .args_size = sizeof(struct stats_args),
    .co_run = co_query_blockstats, .says = "[{*device:str, node-name:str, *qdev:str, stats:{" OP_SAYS("rd") ", rd_bytes:int, " OP_SAYS("wr")
    ", wr_bytes:int, " OP_SAYS("unmap") ", unmap_bytes:int, " OP_SAYS("flush") ", wr_highest_offset:int}, *parent:any, *backing:any}]");
ROW(cmd_blockdev_add, "blockdev-add", "Adds a block node: driver, node-name and its options", .co_run = co_blockdev_add, .raw = true, .args = add_props,
    .tag = "driver", .one_of = &blk_node_class, .ret = qmp_nothing);
ROW(cmd_blockdev_del, "blockdev-del", "Removes a block node that nobody uses", .args = del_props, .args_size = sizeof(struct del_args),
    .co_run = co_blockdev_del, .ret = qmp_nothing, .turn = &blk_graph_turn);
ROW(cmd_resize, "block_resize", "Changes the size of an image; devices tell their guest", .args = resize_props,
    .args_size = sizeof(struct resize_args), .co_run = co_block_resize, .ret = qmp_nothing, .turn = &blk_graph_turn);
ROW(cmd_change, "x-blockdev-change", "A child of a quorum comes or goes", .args = change_props, .args_size = sizeof(struct change_args),
    .co_run = co_blockdev_change, .ret = qmp_nothing, .turn = &blk_graph_turn);

/* ---- the human monitor ---- */

static void show_node(const struct blk_node *n, const char *name, const struct blk *b, struct str *out)
{
    static const char *const detect[] = { "off", "on", "unmap" };
    char size[32];
    const char *file = blk_node_filename(n);
    str_printf(out, "%s: %s (%s%s), %s\n", name, *file ? file : "(no file)", blk_format_name(n), n->caps.read_only ? ", read-only" : "",
               format_size(atomic_load(&n->size), size));
    if (b)
        str_printf(out, "    Attached to:      %s\n", b->use.who);
    str_printf(out, "    Cache mode:       %s%s%s\n", (b ? blk_write_cache((struct blk *)b) : begins_with_cache(n)) ? "writeback" : "writethrough",
               n->direct ? ", direct" : "", n->no_flush ? ", ignore flushes" : "");
    if (n->backing.node)
        str_printf(out, "    Backing file:     %s (chain depth: %d)\n", blk_node_filename(n->backing.node), depth_of(n));
    if (n->detect_zeroes)
        str_printf(out, "    Detect zeroes:    %s\n", detect[n->detect_zeroes]);
}

struct showing { const char *only; struct str *out; };      /* only: the name of a device, or drive; NULL: all */

static void show_blk(struct blk *b, void *arg)
{
    const struct showing *s = arg;
    const struct blk_op_stats *t = b->stats;
    bool has = blk_has_medium(b), tray = b->tray != NULL;
    const char *name = b->drive ? b->drive : has ? b->node->obj.id : b->use.who;
    if (s->only && !str_eq(s->only, name) && !(b->user && str_eq(s->only, b->user->id)) && !(has && str_eq(s->only, b->node->obj.id)))
        return;
    if (has)
        show_node(b->node, name, b, s->out);
    else
        str_printf(s->out, "%s: [not inserted]\n", b->use.who);
    if (tray) {
        domain_lock(b->dom);
        str_printf(s->out, "    Removable device: %slocked, tray %s\n", b->tray->is_locked(b->tray_arg) ? "" : "not ",
                   b->tray->is_open(b->tray_arg) ? "open" : "closed");
        domain_unlock(b->dom);
    }
    str_printf(s->out, "    Requests:         %lld reads, %lld writes, %lld flushes, %lld failed\n", stat_of(&t[BLK_OP_READ].ops),
               stat_of(&t[BLK_OP_WRITE].ops), stat_of(&t[BLK_OP_FLUSH].ops),
               stat_of(&t[BLK_OP_READ].failed) + stat_of(&t[BLK_OP_WRITE].failed) + stat_of(&t[BLK_OP_FLUSH].failed));
}

static bool show_idle(struct obj *o, void *arg)
{
    const struct showing *s = arg;
    const struct blk_node *n = (struct blk_node *)o;
    if (!list_empty(&n->uses) || (s->only && !str_eq(s->only, o->id)))
        return true;
    if (blk_node_is_empty(n))
        str_printf(s->out, "%s: [not inserted]\n", o->id);
    else
        show_node(n, o->id, NULL, s->out);
    return true;
}

static bool show_named(struct obj *o, void *out)
{
    if (!blk_node_is_empty((struct blk_node *)o))
        show_node((struct blk_node *)o, o->id, NULL, out);
    return true;
}

static void co_info_block(const char *arg, struct str *out)
{
    if (str_starts(arg, "-v"))                  /* more of images, which is told in any case */
        arg += 2 + strspn(arg + 2, " ");
    size_t before = out->len;
    struct showing s = { *arg ? arg : NULL, out };
    if (str_eq(arg, "-n")) {
        obj_each(NULL, &blk_node_class, show_named, out);
        return;
    }
    blk_each(show_blk, &s);
    obj_each(NULL, &blk_node_class, show_idle, &s);
    if (s.only && out->len == before)
        str_printf(out, "Error: there is no block device '%s'\n", s.only);
}

static bool co_resize_in_turn(const char *name, uint64_t bytes, struct err *e)
{
    json_t *names = json_string(name);
    struct blk_turn *turn = co_blk_turn_named(names);
    bool ok = co_resize(name, (int64_t)MIN(bytes, (uint64_t)INT64_MAX), e);
    blk_turn_end(turn);
    json_decref(names);
    return ok;
}

static void co_hmp_resize(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    char *name = xstrdup(arg), *size = strchr(name, ' ');
    uint64_t bytes = 0;
    if (size)
        *size++ = 0;
    if (!size || !parse_size(size, MiB, &bytes))
        str_add(out, "block_resize DEVICE SIZE: the size is a number of MiB, or has a suffix\n");
    else if (!co_resize_in_turn(name, bytes, &e))
        hmp_error(out, &e);
    free(name);
}

static const struct hmp_cmd info_block = { "info block", "", "[-v] [-n | DEVICE]", "block devices and their images; -n: all block nodes", co_info_block };
HMP_CMD(&info_block);
static const struct hmp_cmd hmp_resize = { "block_resize", "", "DEVICE SIZE", "changes the size of an image", co_hmp_resize };
HMP_CMD(&hmp_resize);
