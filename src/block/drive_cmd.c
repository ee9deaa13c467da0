/* SPDX-License-Identifier: MIT */
/* drive_add and drive_del of the monitor for a person. */
#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "block/blk_int.h"
#include "core/backend.h"
#include "core/cmd.h"

struct find { const char *id; struct blk *b; };

static bool add_node(const char *text, struct err *e)
{
    json_t *o = opt_parse(text, "driver", e);
    bool ok = o && blk_node_create(o, e);
    json_decref(o);
    return ok;
}

/* A drive without a device: device_add makes one. */
static bool add_drive(const char *text, struct err *e)
{
    json_t *o = opt_parse_flat(text, NULL, e);
    const char *iface = json_string_value(json_object_get(o, "if"));
    bool ok = o && (!iface || str_eq(iface, "none") || err_set(e, ERR_VALUE, "if=%s: only drives of if=none can be added now", iface));
    if (o && !ok)
        err_hint(e, "if=none,id=ID, and then device_add DRIVER,drive=ID");
    json_decref(o);
    return ok && blk_drive_add(text, "none", NULL, e);
}

static bool asks_formats(const char *text)
{
    const char *last = strrchr(text, ',');
    return str_eq(last ? last + 1 : text, "format=help");
}

static void co_drive_add(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    bool node = str_starts(arg, "-n ");
    arg += node ? 3 : 0;
    const char *opts = arg + strspn(arg, " ");
    opts += strcspn(opts, " ");                     /* behind where a PCI slot stood once */
    opts += strspn(opts, " ");
    if (!*opts)
        str_add(out, "Error: drive_add [-n] 0 OPTIONS\n");
    else if (asks_formats(opts))
        backend_help_types(&blk_node_class, "Formats of images, and other nodes", out);
    else if (node ? add_node(opts, &e) : add_drive(opts, &e))
        str_add(out, "OK\n");
    else
        hmp_error(out, &e);
}

static void match_drive(struct blk *b, void *arg)
{
    struct find *f = arg;
    if (str_eq(b->drive, f->id))
        f->b = b;
}

/* What is in the drive now. */
static struct blk_node *drive_node(const char *id, struct err *e)
{
    struct find f = { id, NULL };
    blk_each(match_drive, &f);
    return f.b ? f.b->node : blk_node_find(id, e);
}

/* The handle of a device that is the only user of @n; NULL: there is none, or others. */
static struct blk *only_device(const struct blk_node *n)
{
    struct blk_use *u = list_first(&n->uses, struct blk_use, link);
    return u && u->link.next == &n->uses && u->blk && u->blk->user ? u->blk : NULL;
}

static bool co_take_held(struct blk *b, struct blk_node *n, struct err *e)
{
    bool empty = !blk_has_medium(b), foreign = !n->drive && !b->own_medium;
    if (!co_blk_set_medium(b, NULL, e))             /* an empty one ends with that */
        return false;
    if (!b->closed) {
        free(b->drive);
        b->drive = NULL;
        b->own_medium = false;
    }
    return empty || foreign || blk_node_delete(n, e);
}

static bool co_take_from(struct blk *b, struct blk_node *n, struct err *e)
{
    blk_hold(b);
    bool ok = co_take_held(b, n, e);
    blk_release(b);
    return ok;
}

/* A device that has the drive keeps none: what its guest asks for fails from then on. */
static bool co_del(const char *id, struct err *e)
{
    struct blk_node *n = drive_node(id, e);
    struct blk *b = n ? only_device(n) : NULL;
    if (!n)
        return false;
    if (!n->drive && !(b && b->drive)) {
        err_set(e, ERR_STATE, "node '%s' was not made by -drive or drive_add", id);
        return err_hint(e, "blockdev-del deletes it");
    }
    if (!blk_node_free_of_jobs(n, e))
        return false;
    return b ? co_take_from(b, n, e) : blk_node_delete(n, e);
}

static void co_drive_del(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    json_t *name = json_string(arg);
    struct blk_turn *turn = co_blk_turn_named(name);
    bool ok = co_del(arg, &e);
    blk_turn_end(turn);
    json_decref(name);
    if (!ok)
        hmp_error(out, &e);
}

#define HMP(var, nm, ar, ds, fn) static const struct hmp_cmd var = { .name = nm, .args = ar, .doc = ds, .co_run = fn, .completes = "blockdev" }; HMP_CMD(&var)
HMP(add, "drive_add", "[-n] 0 OPTIONS", "adds a drive by the options of -drive, or (-n) a node by those of -blockdev", co_drive_add);
HMP(del, "drive_del", "ID", "removes a drive; a device that has it gets errors from then on", co_drive_del);
