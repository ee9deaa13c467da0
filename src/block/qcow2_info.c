/* SPDX-License-Identifier: MIT */
/* What a person or a program wants to know about an image beyond what every format tells. */
#include <stdlib.h>
#include "block/bitmap.h"
#include "block/qcow2_int.h"

/* As the image has them: what is recorded in memory is no matter here. */
static json_t *bitmaps_json(const struct blk_node *n)
{
    json_t *list = json_array();
    struct blk_bitmap *b;
    list_for_each(b, &n->bitmaps, link) {
        if (!b->persistent)
            continue;
        json_t *flags = json_array();
        if (b->inconsistent || !n->caps.read_only)      /* from when it is opened for writing until it is closed */
            json_array_append_new(flags, json_string("in-use"));
        if (b->recording)
            json_array_append_new(flags, json_string("auto"));
        json_array_append_new(list, json_pack("{s:o, s:s, s:I}", "flags", flags, "name", b->name, "granularity", (json_int_t)dirty_granularity(&b->map)));
    }
    return list;
}

json_t *q2_info(const struct blk_node *n)
{
    const struct qcow2 *s = (const struct qcow2 *)n;
    json_t *d = json_pack("{s:s, s:s}", "compat", s->version >= 3 ? "1.1" : "0.10", "compression-type",
                          s->compression == Q2_COMPRESS_ZSTD ? "zstd" : "zlib");
    json_object_set_new(d, "refcount-bits", json_integer(1 << s->ref_order));
    if (s->version >= 3) {
        json_object_set_new(d, "lazy-refcounts", json_boolean(s->compat & Q2_COMPAT_LAZY));
        json_object_set_new(d, "corrupt", json_boolean(s->incompat & Q2_INCOMPAT_CORRUPT));
        json_object_set_new(d, "extended-l2", json_boolean(s->extl2));
    }
    if (s->incompat & Q2_INCOMPAT_DIRTY)
        json_object_set_new(d, "dirty", json_true());
    if (s->has_data_file) {
        if (s->data_name)
            json_object_set_new(d, "data-file", json_string(s->data_name));
        json_object_set_new(d, "data-file-raw", json_boolean(s->raw_data));
    }
    if (!list_empty(&n->bitmaps))
        json_object_set_new(d, "bitmaps", bitmaps_json(n));
    if (s->luks) {
        json_t *x = luks_info(s->luks);
        json_object_set_new(x, "format", json_string("luks"));
        json_object_set_new(d, "encrypt", x);
    }
    return json_pack("{s:s, s:o}", "type", "qcow2", "data", d);
}
