/* SPDX-License-Identifier: MIT */
#include "block/bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"

enum { LEAST_DEFAULT = 4096, MOST_DEFAULT = 65536 };

static struct blk_bitmap *of(struct blk_watch *w) { return container_of(w, struct blk_bitmap, watch); }

static int after(struct blk_watch *w, const struct blk_change *c, int r)
{
    if (of(w)->recording)
        dirty_set(&of(w)->map, c->off, c->len);
    return r;
}

/* What bits for @size bytes take. */
static uint64_t bytes_for(uint64_t size, uint64_t granularity) { return ((size - !!size) / granularity + 1 + 63) / 64 * 8; }
static uint64_t bytes_of(const struct blk_bitmap *b) { return bytes_for(b->map.size, dirty_granularity(&b->map)); }

static void resized(struct blk_watch *w, uint64_t size)
{
    struct blk_bitmap *b = of(w);
    b->node->bitmap_bytes -= bytes_of(b);
    if (!dirty_resize(&b->map, size))
        b->inconsistent = true;
    b->node->bitmap_bytes += bytes_of(b);
}

void blk_bitmaps_all_dirty(struct blk_node *n)
{
    struct blk_bitmap *b;
    list_for_each(b, &n->bitmaps, link) {
        resized(&b->watch, atomic_load(&n->size));
        if (b->recording)
            dirty_set(&b->map, 0, b->map.size);
    }
}

bool blk_bitmaps_fit(const struct blk_node *n, uint64_t size, struct err *e)
{
    struct blk_bitmap *b;
    uint64_t bytes = 0;
    list_for_each(b, &n->bitmaps, link)
        bytes += MIN(bytes_for(size, dirty_granularity(&b->map)), (uint64_t)BITMAP_MOST_BYTES + 1);
    if (bytes <= BITMAP_MOST_BYTES)
        return true;
    err_set(e, ERR_VALUE, "the bitmaps of '%s' would take more than %d bytes of memory with a size of %llu", n->obj.id, BITMAP_MOST_BYTES,
            (unsigned long long)size);
    return err_hint(e, "they can be removed, and made anew with a larger granularity");
}

struct blk_bitmap *blk_bitmap_find(const struct blk_node *n, const char *name)
{
    struct blk_bitmap *b;
    list_for_each(b, &n->bitmaps, link)
        if (!strcmp(b->name, name))
            return b;
    return NULL;
}

static bool check_new(const struct blk_node *n, const char *name, uint64_t granularity, struct err *e)
{
    if (!*name || strlen(name) > BITMAP_MAX_NAME)
        return err_set(e, ERR_VALUE, *name ? "Bitmap name too long: at most %d bytes" : "Bitmap name cannot be empty", BITMAP_MAX_NAME);
    if (granularity && (!is_pow2(granularity) || granularity < BITMAP_LEAST_GRANULARITY || granularity > BITMAP_MOST_GRANULARITY))
        return err_set(e, ERR_VALUE, "Granularity must be a power of 2, at least %d and at most %d", BITMAP_LEAST_GRANULARITY, BITMAP_MOST_GRANULARITY);
    return !blk_bitmap_find(n, name) || err_set(e, ERR_BUSY, "Bitmap already exists: %s", name);
}

static uint64_t default_granularity(struct blk_node *n)
{
    uint64_t cluster = blk_cluster_size(n);
    return cluster ? MIN(MAX(cluster, (uint64_t)LEAST_DEFAULT), (uint64_t)MOST_DEFAULT) : MOST_DEFAULT;
}

static struct blk_bitmap *make(struct blk_node *n, const char *name, uint64_t size, uint64_t granularity, uint64_t most, struct err *e)
{
    uint64_t bytes = bytes_for(size, granularity);
    if (bytes > BITMAP_MOST_BYTES || !range_ok(n->bitmap_bytes, bytes, most)) {
        err_set(e, ERR_VALUE, "bitmap '%s' would take %llu bytes of memory: one takes %d at most, all of '%s' together %llu", name,
                (unsigned long long)bytes, BITMAP_MOST_BYTES, n->obj.id, (unsigned long long)most);
        err_hint(e, "a larger granularity takes less");
        return NULL;
    }
    struct blk_bitmap *b = xnew(struct blk_bitmap);
    if (!dirty_init(&b->map, size, granularity)) {
        err_os(e, ENOMEM, "no memory for bitmap '%s'", name);
        free(b);
        return NULL;
    }
    b->node = n;
    b->name = xstrdup(name);
    b->recording = true;
    b->watch = (struct blk_watch){ .co_after = after, .resized = resized };
    list_push(&n->bitmaps, &b->link);
    n->bitmap_bytes += bytes;
    return b;
}

struct blk_bitmap *blk_bitmap_attach(struct blk_node *n, const char *name, uint64_t size, uint64_t granularity, struct err *e)
{
    struct blk_bitmap *b = make(n, name, size, granularity, BITMAP_MOST_LOADED, e);
    if (b) {
        list_push(&n->watches, &b->watch.link);
        atomic_store(&n->watched, true);
    }
    return b;
}

struct blk_bitmap *co_bitmap_new(struct blk_node *n, const char *name, uint64_t granularity, struct err *e)
{
    struct blk_bitmap *b = check_new(n, name, granularity, e)
        ? make(n, name, atomic_load(&n->size), granularity ? granularity : default_granularity(n), BITMAP_MOST_BYTES, e) : NULL;
    if (b)
        co_watch_add(n, &b->watch);
    return b;
}

static void free_one(struct blk_bitmap *b)
{
    list_del(&b->link);
    b->node->bitmap_bytes -= bytes_of(b);
    dirty_free(&b->map);
    free(b->name);
    free(b);
}

void co_bitmap_free(struct blk_bitmap *b)
{
    co_watch_del(b->node, &b->watch);
    free_one(b);
}

void blk_bitmaps_free(struct blk_node *n)
{
    for (struct blk_bitmap *b; (b = list_first(&n->bitmaps, struct blk_bitmap, link));) {
        list_del(&b->watch.link);
        free_one(b);
    }
}

bool blk_bitmap_idle(const struct blk_bitmap *b, struct err *e)
{
    return (!b->leaving && !b->busy) || err_set(e, ERR_BUSY, "Bitmap '%s' is currently in use by another operation and cannot be used", b->name);
}

bool blk_bitmap_usable(const struct blk_bitmap *b, bool for_use, struct err *e)
{
    if ((b->leaving || for_use) && !blk_bitmap_idle(b, e))
        return false;
    if (b->inconsistent) {
        err_set(e, ERR_STATE, "Bitmap '%s' is inconsistent and cannot be used", b->name);
        return err_hint(e, "block-dirty-bitmap-remove takes it away");
    }
    if (for_use && b->persistent && b->node->caps.read_only)
        return err_set(e, ERR_STATE, "Bitmap '%s' is readonly and cannot be modified", b->name);
    return true;
}

struct blk_bitmap *blk_bitmap_get(const char *node, const char *name, bool for_use, struct err *e)
{
    struct blk_node *n = blk_node_find(node, e);
    struct blk_bitmap *b = n ? blk_bitmap_find(n, name) : NULL;
    if (n && !b)
        err_set(e, ERR_UNKNOWN, "Dirty bitmap '%s' not found", name);
    return b && blk_bitmap_usable(b, for_use, e) ? b : NULL;
}

bool blk_bitmap_can_persist(const struct blk_node *n, struct err *e)
{
    const struct blk_driver *d = BLK_DRIVER(n);
    if (!d->co_store_bitmaps || (d->can_keep_bitmaps && !d->can_keep_bitmaps(n)))
        return err_set(e, ERR_VALUE, "Cannot store dirty bitmaps in '%s': images of format qcow2, compat=1.1 can", n->obj.id);
    return !n->caps.read_only || err_set(e, ERR_VALUE, "Cannot store dirty bitmaps in '%s': it is read-only", n->obj.id);
}

json_t *blk_bitmaps_json(const struct blk_node *n)
{
    json_t *list = list_empty(&n->bitmaps) ? NULL : json_array();
    struct blk_bitmap *b;
    list_for_each(b, &n->bitmaps, link) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:b, s:b, s:b}", "name", b->name, "count", (json_int_t)MIN(dirty_bytes(&b->map), b->map.size), "granularity",
                              (json_int_t)dirty_granularity(&b->map), "recording", b->recording && !b->inconsistent, "busy", b->busy > 0,
                              "persistent", b->persistent);
        if (b->inconsistent)
            json_object_set_new(o, "inconsistent", json_true());
        json_array_append_new(list, o);
    }
    return list;
}
