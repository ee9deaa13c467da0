/* SPDX-License-Identifier: MIT */
/* Exports of the NBD server. */
#include <string.h>
#include "block/nbd_server.h"

struct find { const char *name; const struct nbd_export *except; struct nbd_export *x; };

static void match(struct blk_export *x, void *arg)
{
    struct find *f = arg;
    struct nbd_export *n = (struct nbd_export *)x;
    if (n != f->except && !strcmp(n->name, f->name))
        f->x = n;
}

static struct nbd_export *find(const char *name, const struct nbd_export *except)
{
    struct find f = { name, except, NULL };
    blk_export_each(&nbd_export_class.obj, match, &f);
    return f.x;
}

struct nbd_export *nbd_export_find(const char *name) { return find(name, NULL); }

static bool add_bitmaps(struct nbd_export *x, struct err *e)
{
    json_t *v;
    size_t i;
    if (x->bitmaps_opt && !json_is_array(x->bitmaps_opt))
        return err_set(e, ERR_VALUE, "'bitmaps' must be a list");
    json_array_foreach(x->bitmaps_opt, i, v)
        if (!nbd_export_add_bitmap(x, v, e))
            return false;
    return true;
}

static bool nbd_export_start(struct blk_export *exp, struct err *e)
{
    static uint64_t serials;
    struct nbd_export *x = (struct nbd_export *)exp;
    x->serial = ++serials;
    if (!x->name)
        x->name = xstrdup(exp->node_name);
    if (!nbd_server_running()) {
        err_set(e, ERR_STATE, "the NBD server does not run");
        return err_hint(e, "nbd-server-start (backplane-serve: --nbd-server) comes first");
    }
    if (find(x->name, x))
        return err_set(e, ERR_BUSY, "there is an export '%s' already", x->name);
    if (strlen(x->name) > NBD_MAX_NAME || (x->description && strlen(x->description) > NBD_MAX_NAME))
        return err_set(e, ERR_VALUE, "an export's name and its description have at most %d bytes each", NBD_MAX_NAME);
    return add_bitmaps(x, e);
}

static void nbd_export_stop(struct blk_export *exp)
{
    struct nbd_client *c;
    list_for_each(c, nbd_clients(), link)
        if (c->export == (struct nbd_export *)exp)
            nbd_client_end(c);
}

static void nbd_export_finalize(struct obj *o) { nbd_export_drop_bitmaps((struct nbd_export *)o); }

static const struct prop nbd_export_props[] = {
    PROP_STR(struct nbd_export, name, "name", 0, "Name of the export; else the node's"),
    PROP_STR(struct nbd_export, description, "description", 0, "What clients are told of it"),
    PROP_JSON(struct nbd_export, bitmaps_opt, "bitmaps", 0, "Bitmaps that clients may ask about: names, or objects with \"node\" and \"name\""),
    PROP_BOOL(struct nbd_export, allocation_depth, "allocation-depth", false, "Clients may ask how many images down something is: context qemu:allocation-depth"),
    PROP_END,
};
const struct blk_export_class nbd_export_class = {
    .obj = { .name = "export-nbd", .desc = "Network block device, of the NBD server", .base = &blk_export_class.obj, .size = sizeof(struct nbd_export),
             .props = nbd_export_props, .finalize = nbd_export_finalize },
    .start = nbd_export_start, .stop = nbd_export_stop,
};
OBJ_CLASS(&nbd_export_class.obj);
