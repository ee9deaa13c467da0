/* SPDX-License-Identifier: MIT */
/* What an image is, as monitors and backplane-img tell it: QEMU's ImageInfo. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "block/backing.h"

static int64_t disk_usage(const char *path)
{
    struct stat st;
    return *path && !stat(path, &st) ? (int64_t)st.st_blocks * 512 : -1;
}

static json_t *snapshots_json(const struct blk_snap *v, unsigned n)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", v[i].id, "name", v[i].name,
            "vm-state-size", (json_int_t)v[i].vm_size, "date-sec", (json_int_t)v[i].sec, "date-nsec", (json_int_t)v[i].nsec,
            "vm-clock-sec", (json_int_t)(v[i].vm_clock / 1000000000), "vm-clock-nsec", (json_int_t)(v[i].vm_clock % 1000000000),
            "icount", (json_int_t)0));
    return list;
}

const char *blk_format_name(const struct blk_node *n) { return n->obj.cls->name + strlen("blockdev-"); }

bool blk_is_encrypted(const struct blk_node *n)
{
    json_t *spec = BLK_DRIVER(n)->info ? BLK_DRIVER(n)->info(n) : NULL;
    bool yes = str_eq(blk_format_name(n), "luks") || json_object_get(json_object_get(spec, "data"), "encrypt");
    json_decref(spec);
    return yes;
}

json_t *blk_image_info(struct blk_node *n, const char *name)
{
    const struct blk_driver *d = BLK_DRIVER(n);
    struct blk_snap *v = NULL;
    unsigned count = 0;
    json_t *o = json_object(), *spec = d->info ? d->info(n) : NULL;
    if (d->snap && !d->snap->list(n, &v, &count) && count)
        json_object_set_new(o, "snapshots", snapshots_json(v, count));
    blk_snaps_free(v, count);
    if (n->backing_fmt)
        json_object_set_new(o, "backing-filename-format", json_string(n->backing_fmt));
    json_object_set_new(o, "virtual-size", json_integer((json_int_t)atomic_load(&n->size)));
    json_object_set_new(o, "filename", json_string(name));
    if (d->cluster_size)
        json_object_set_new(o, "cluster-size", json_integer(d->cluster_size(n)));
    json_object_set_new(o, "format", json_string(blk_format_name(n)));
    int64_t used = disk_usage(blk_node_filename(n));
    if (used >= 0)
        json_object_set_new(o, "actual-size", json_integer(used));
    if (n->backing_name) {
        char *full = blk_path_beside(blk_node_filename(n), n->backing_name);
        json_object_set_new(o, "full-backing-filename", json_string(full));
        json_object_set_new(o, "backing-filename", json_string(n->backing_name));
        free(full);
    }
    if (blk_is_encrypted(n))
        json_object_set_new(o, "encrypted", json_true());
    if (spec)
        json_object_set_new(o, "format-specific", spec);
    json_object_set_new(o, "dirty-flag", json_boolean(json_is_true(json_object_get(json_object_get(spec, "data"), "dirty"))));
    if (spec)
        json_object_del(json_object_get(spec, "data"), "dirty");
    return o;
}

json_t *blk_chain_info(struct blk_node *top, unsigned depth)
{
    json_t *info = blk_image_info(top, blk_node_filename(top)), *above = info;
    for (struct blk_node *n = top->backing.node; n && depth--; n = n->backing.node) {
        json_t *next = blk_image_info(n, blk_node_filename(n));
        json_object_set_new(above, "backing-image", next);
        above = next;
    }
    return info;
}
