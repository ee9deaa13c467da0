/* SPDX-License-Identifier: MIT */
/* Drives whose medium can change: what is in an empty one, and the monitor commands that move trays and media. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/backing.h"
#include "block/blk_int.h"
#include "core/cmd.h"

/* ---- no medium ---- */

static bool empty_open(struct blk_node *n, struct err *e)
{
    n->caps = (struct blk_caps){ .read_only = true, .logical_block = 512, .physical_block = 512, .mem_align = 1 };
    return true;
}

static int empty_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags)
{
    return -ENOMEDIUM;
}

static int empty_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags)
{
    return -ENOMEDIUM;
}

static const struct blk_driver empty_driver = {
    .obj = { .name = "blockdev-empty", .desc = "A drive without a medium", .base = &blk_node_class, .size = sizeof(struct blk_node),
             .flags = OCF_INTERNAL },
    .flags = BLK_ANY_LOOP, .co_open = empty_open, .co_preadv = empty_read, .co_pwritev = empty_write,
};

bool blk_node_is_empty(const struct blk_node *n) { return BLK_DRIVER(n) == &empty_driver; }

struct blk_node *blk_empty_node(const char *id, struct err *e)
{
    json_t *o = json_object();
    struct obj *n = obj_create(&empty_driver.obj, id, o, NULL, e);
    json_decref(o);
    return (struct blk_node *)n;
}

/* ---- which drive ---- */

struct find { const char *name; struct obj *user; struct blk *b; };

static void match(struct blk *b, void *arg)
{
    struct find *f = arg;
    const char *drive = b->drive ? b->drive : b->node->obj.id;
    if (!b->user)
        return;
    if (f->user ? b->user == f->user : str_eq(b->user->id, f->name) || str_eq(drive, f->name))
        f->b = b;
}

struct blk *blk_of_device(const char *name, struct err *e)
{
    struct find f = { name, obj_find("device", name), NULL };
    if (!f.user && *name == '/') {
        const char *backend = strstr(name, BLK_VIRTIO_BACKEND);
        char *path = backend && !backend[strlen(BLK_VIRTIO_BACKEND)] ? xstrndup(name, (size_t)(backend - name)) : xstrdup(name);
        f.user = obj_resolve(path);
        free(path);
    }
    blk_each(match, &f);
    if (!f.b)
        err_set(e, ERR_NOT_FOUND, "Device '%s' not found", name);
    return f.b;
}

/* By the device's id or path, or by the drive's name. The drive has a tray. */
static struct blk *find_drive(const char *device, const char *id, struct err *e)
{
    const char *name = id ? id : device;
    struct blk *b = name ? blk_of_device(name, e) : NULL;
    if (!name)
        err_set(e, ERR_VALUE, "'id' or 'device' is missing");
    if (!b || b->tray)
        return b;
    err_set(e, ERR_GENERIC, "Device '%s' is not removable", name);
    return NULL;
}

static const char *name_of(const struct blk *b) { return b->user->id; }

/* ---- moving ---- */

static bool tray_is_open(struct blk *b)
{
    domain_lock(b->dom);
    bool open = b->tray->is_open(b->tray_arg);
    domain_unlock(b->dom);
    return open;
}

static void close_tray(struct blk *b)
{
    domain_lock(b->dom);
    b->tray->move(b->tray_arg, false);
    domain_unlock(b->dom);
}

/* True if the tray is open afterwards; false without @e where the guest was asked and may open it later. */
static bool open_tray(struct blk *b, bool force, bool *asked)
{
    *asked = false;
    domain_lock(b->dom);
    if (!b->tray->is_open(b->tray_arg)) {
        *asked = b->tray->is_locked(b->tray_arg) && !force;
        if (*asked)
            b->tray->ask(b->tray_arg);
        else
            b->tray->move(b->tray_arg, true);
    }
    domain_unlock(b->dom);
    return !*asked;
}

static bool need_open(struct blk *b, struct err *e)
{
    if (tray_is_open(b))
        return true;
    err_set(e, ERR_GENERIC, "Tray of device '%s' is not open", name_of(b));
    return err_hint(e, "blockdev-open-tray comes first");
}

static bool co_take_out(struct blk *b, struct err *e)
{
    struct blk_node *n = b->node;
    bool own = b->own_medium;
    struct err dummy = ERR_INIT;
    if (!blk_has_medium(b))
        return true;
    if (!co_blk_set_medium(b, NULL, e))
        return false;
    if (!b->closed)
        b->own_medium = false;
    if (own && !blk_node_delete(n, &dummy))
        log_warn("%s", dummy.msg);
    return blk_still_open(b, e);
}

static bool co_insert(struct blk *b, struct blk_node *n, struct err *e)
{
    if (blk_has_medium(b))
        return err_set(e, ERR_BUSY, "There already is a medium in device '%s'", name_of(b));
    return co_blk_set_medium(b, n, e) && blk_still_open(b, e);
}

static struct blk_node *node_of_file(const char *filename, const char *format, bool read_only, struct err *e)
{
    static unsigned serial;
    char *name = xasprintf("medium%u", serial++);
    while (obj_find("blockdev", name)) {        /* a user's node may be named so */
        free(name);
        name = xasprintf("medium%u", serial++);
    }
    json_t *file = blk_file_opts(filename, e);
    json_t *o = file ? json_pack("{s:s, s:s, s:b, s:o}", "driver", format ? format : "raw", "node-name", name, "read-only", read_only, "file", file) : NULL;
    struct blk_node *n = o ? blk_node_create(o, e) : NULL;
    json_decref(o);
    free(name);
    return n;
}

static bool need_unlocked(struct blk *b, bool force, struct err *e)
{
    bool asked;
    if (open_tray(b, force, &asked))
        return true;
    err_set(e, ERR_GENERIC, "Device '%s' is locked and force was not specified, wait for tray to open and try again", name_of(b));
    return err_hint(e, "the guest was asked to let it go");
}

static bool co_change(struct blk *b, const char *filename, const char *format, bool read_only, bool force, struct err *e)
{
    struct err dummy = ERR_INIT;
    struct blk_node *n = node_of_file(filename, format, read_only, e);
    if (!n)
        return false;
    obj_ref(&n->obj);                   /* while we wait nobody deletes it */
    bool ok = blk_still_open(b, e) && need_unlocked(b, force, e) && co_take_out(b, e) && co_insert(b, n, e);
    obj_unref(&n->obj);
    if (ok) {
        b->own_medium = true;
        close_tray(b);
    } else if (!blk_node_delete(n, &dummy)) {
        log_warn("%s", dummy.msg);
    }
    return ok;
}

/* ---- QMP ---- */

enum mode { MODE_RETAIN, MODE_READ_ONLY, MODE_READ_WRITE };
static const char *const modes[] = { "retain", "read-only", "read-write", NULL };
struct medium_args { char *device, *id, *node_name, *filename, *format; bool force; int mode; };
#define ID PROP_STR(struct medium_args, id, "id", 0, "Id or path of the device")
#define DEVICE PROP_STR(struct medium_args, device, "device", 0, "Name of the drive")
#define FORCE PROP_BOOL(struct medium_args, force, "force", false, "Even if the guest has locked the tray")
static const struct prop open_props[] = { DEVICE, ID, FORCE, PROP_END };
static const struct prop close_props[] = { DEVICE, ID, PROP_END };
static const struct prop remove_props[] = { ID, PROP_END };
static const struct prop insert_props[] = { ID, PROP_STR(struct medium_args, node_name, "node-name", PF_REQUIRED, "Node of the medium"), PROP_END };
static const struct prop change_props[] = {
    DEVICE, ID, FORCE, PROP_STR(struct medium_args, filename, "filename", PF_REQUIRED, "File of the medium"),
    PROP_STR(struct medium_args, format, "format", 0, "Format of the file; raw if left out"),
    PROP_ENUM(struct medium_args, mode, "read-only-mode", modes, MODE_RETAIN, "How the medium is opened; retain: as the drive can"), PROP_END
};

/* What a command does with the drive it names, which may be unplugged meanwhile. */
typedef bool (*drive_fn)(struct blk *, const struct medium_args *, struct err *);

static json_t *co_on_drive(void *args, drive_fn co_do, struct err *e)
{
    const struct medium_args *a = args;
    struct blk *b = find_drive(a->device, a->id, e);
    if (!b)
        return NULL;
    blk_hold(b);
    bool ok = co_do(b, a, e);
    blk_release(b);
    return ok ? json_object() : NULL;
}

static bool co_do_eject(struct blk *b, const struct medium_args *a, struct err *e) { return need_unlocked(b, a->force, e) && co_take_out(b, e); }

static bool do_open(struct blk *b, const struct medium_args *a, struct err *e)
{
    bool asked;
    open_tray(b, a->force, &asked);
    return true;
}

static bool do_close(struct blk *b, const struct medium_args *a, struct err *e)
{
    close_tray(b);
    return true;
}

static bool co_do_remove(struct blk *b, const struct medium_args *a, struct err *e) { return need_open(b, e) && co_take_out(b, e); }

static bool co_do_insert(struct blk *b, const struct medium_args *a, struct err *e)
{
    struct obj *n = obj_lookup(&blk_node_class, a->node_name, e);
    return n && need_open(b, e) && co_insert(b, (struct blk_node *)n, e);
}

static bool co_do_change(struct blk *b, const struct medium_args *a, struct err *e)
{
    bool ro = a->mode == MODE_READ_ONLY || (a->mode == MODE_RETAIN && !b->writable);
    return co_change(b, a->filename, a->format, ro, a->force, e);
}

static json_t *co_qmp_eject(void *args, struct err *e) { return co_on_drive(args, co_do_eject, e); }
static json_t *co_qmp_open(void *args, struct err *e) { return co_on_drive(args, do_open, e); }
static json_t *co_qmp_close(void *args, struct err *e) { return co_on_drive(args, do_close, e); }
static json_t *co_qmp_remove(void *args, struct err *e) { return co_on_drive(args, co_do_remove, e); }
static json_t *co_qmp_insert(void *args, struct err *e) { return co_on_drive(args, co_do_insert, e); }
static json_t *co_qmp_change(void *args, struct err *e) { return co_on_drive(args, co_do_change, e); }

#define ROW(var, nm, ds, rows, fn) static const struct qmp_cmd var = { nm, ds, rows, sizeof(struct medium_args), fn, .ret = qmp_nothing, .turn = &blk_graph_turn }; QMP_CMD(&var)
ROW(cmd_eject, "eject", "Opens the tray and takes the medium out", open_props, co_qmp_eject);
ROW(cmd_open, "blockdev-open-tray", "Opens the tray; a guest that locked it is asked", open_props, co_qmp_open);
ROW(cmd_close, "blockdev-close-tray", "Closes the tray", close_props, co_qmp_close);
ROW(cmd_remove, "blockdev-remove-medium", "Takes the medium out of an open tray", remove_props, co_qmp_remove);
ROW(cmd_insert, "blockdev-insert-medium", "Puts a node into an open tray", insert_props, co_qmp_insert);
ROW(cmd_change, "blockdev-change-medium", "Puts a file in place of the medium, and closes the tray", change_props, co_qmp_change);

/* ---- the human monitor ---- */

static const struct hmp_cmd hmp_eject = { "eject", "", "[-f] DEVICE", "opens the tray and takes the medium out; -f: even if the guest has locked it",
                                          .qmp = "eject", .words = "-f:force device" };
HMP_CMD(&hmp_eject);
static const struct hmp_cmd hmp_change = { "change", "", "[-f] DEVICE FILE [FORMAT [retain|read-only|read-write]]",
                                           "puts an image, raw if no format is given, in place of the medium; -f: even if the guest has locked the tray",
                                           .qmp = "blockdev-change-medium", .words = "-f:force device filename format read-only-mode" };
HMP_CMD(&hmp_change);
