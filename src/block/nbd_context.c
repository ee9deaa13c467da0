/* SPDX-License-Identifier: MIT */
/*
 * What clients can ask about an export's blocks: "base:allocation", "qemu:dirty-bitmap:NAME" for each of its bitmaps, and
 * "qemu:allocation-depth": 1 where the image itself has something, 2 the one below it, and so on; 0 where none has.
 */
#include <string.h>
#include "block/bitmap.h"
#include "block/blk_int.h"
#include "block/nbd_proto.h"
#include "block/nbd_server.h"

static const char allocation[] = "base:allocation", bitmap_prefix[] = "qemu:dirty-bitmap:", depth_name[] = "qemu:allocation-depth";
enum { STATE_DIRTY = 1 };

static bool equals(const char *q, uint32_t k, const char *s) { return k == strlen(s) && !memcmp(q, s, k); }

static bool is_bitmap(const char *q, uint32_t k, const struct blk_bitmap *b)
{
    size_t n = strlen(bitmap_prefix);
    return k > n && !memcmp(q, bitmap_prefix, n) && equals(q + n, k - (uint32_t)n, b->name);
}

uint64_t nbd_contexts_of(const struct nbd_export *x, const char *q, uint32_t k, bool list)
{
    uint64_t set = equals(q, k, allocation) || (list && equals(q, k, "base:"));
    bool all = list && (equals(q, k, "qemu:") || equals(q, k, bitmap_prefix));
    for (unsigned i = 0; i < x->n_bitmaps; i++)
        if (all || is_bitmap(q, k, x->bitmaps[i]))
            set |= BIT64(i + 1);
    if (x->allocation_depth && (equals(q, k, depth_name) || (list && equals(q, k, "qemu:"))))
        set |= BIT64(x->n_bitmaps + 1);
    return set;
}

void nbd_context_name(const struct nbd_export *x, unsigned i, struct str *out)
{
    if (i > x->n_bitmaps)
        str_add(out, depth_name);
    else if (i)
        str_printf(out, "%s%s", bitmap_prefix, x->bitmaps[i - 1]->name);
    else
        str_add(out, allocation);
}

unsigned nbd_context_count(const struct nbd_export *x) { return x->n_bitmaps + 1 + x->allocation_depth; }

static void put(uint8_t *d, unsigned n, uint64_t len, uint32_t flags)
{
    st_be32(d + n * 8, (uint32_t)len);
    st_be32(d + 4 + n * 8, flags);
}

static unsigned bitmap_extents(const struct blk_bitmap *b, uint64_t off, uint64_t len, uint8_t *d, unsigned max)
{
    unsigned n = 0;
    for (uint64_t at = off, end = off + len, next; at < end && n < max; at = next) {
        bool dirty = dirty_get(&b->map, at);
        next = MIN(dirty ? dirty_next_clear(&b->map, at) : dirty_next(&b->map, at), end);
        put(d, n++, next - at, dirty ? STATE_DIRTY : 0);
    }
    return n;
}

static uint32_t allocation_of(const struct blk_extent *x) { return (x->data ? 0 : NBD_STATE_HOLE) | (x->zero ? NBD_STATE_ZERO : 0); }
static uint32_t depth_of(const struct blk_extent *x) { return x->below ? 0 : x->depth + 1; }

enum { LOOKS = 4096 };              /* at an image, for one answer: it may tell less than was asked */

/* Extents of what @state says, those that are alike in one. */
static int co_map_extents(struct blk *b, uint32_t (*state)(const struct blk_extent *), uint64_t off, uint64_t len, uint8_t *d, unsigned max,
                          unsigned *out)
{
    uint64_t run = 0;
    uint32_t last = 0;
    unsigned n = 0;
    unsigned looks = 0;
    for (uint64_t at = 0; at < len && looks < LOOKS; looks++) {
        struct blk_extent x;
        int r = co_blk_map(b, off + at, len - at, &x);
        if (r)
            return r;
        uint32_t flags = state(&x);
        if (!n || flags != last) {
            if (n == max)
                break;
            n++;
            run = 0;
        }
        run += x.len;
        put(d, n - 1, run, last = flags);
        at += x.len;
    }
    *out = n;
    return 0;
}

int co_nbd_extents(const struct nbd_export *x, unsigned i, uint64_t off, uint64_t len, uint8_t *d, unsigned max, unsigned *n)
{
    if (!i)
        return co_map_extents(x->exp.blk, allocation_of, off, len, d, max, n);
    if (i > x->n_bitmaps)
        return co_map_extents(x->exp.blk, depth_of, off, len, d, max, n);
    *n = bitmap_extents(x->bitmaps[i - 1], off, len, d, max);
    return 0;
}

/* ---- bitmaps of an export ---- */

/* By name: in the node or those below it, as a backup of the one on top needs it. */
static struct blk_bitmap *find(struct blk_node *n, const char *name, struct err *e)
{
    for (struct blk_node *l = n; l; l = l == n && blk_skip_filters(n) != n ? blk_skip_filters(n) : blk_chain_next(l)) {
        struct blk_bitmap *b = blk_bitmap_find(l, name);
        if (b)
            return blk_bitmap_usable(b, false, e) ? b : NULL;
    }
    err_set(e, ERR_UNKNOWN, "Bitmap '%s' is not found", name);
    return NULL;
}

bool nbd_export_add_bitmap(struct nbd_export *x, json_t *v, struct err *e)
{
    const char *name = json_string_value(v), *node = NULL;
    if (!name) {
        node = json_string_value(json_object_get(v, "node"));
        name = json_string_value(json_object_get(v, "name"));
    }
    if (!name)
        return err_set(e, ERR_VALUE, "a bitmap is given by its name, or as an object with 'node' and 'name'");
    if (x->n_bitmaps == ARRAY_SIZE(x->bitmaps))
        return err_set(e, ERR_VALUE, "an export has at most %zu bitmaps", ARRAY_SIZE(x->bitmaps));
    struct blk_bitmap *b = node ? blk_bitmap_get(node, name, false, e) : find(blk_node_of(x->exp.blk), name, e);
    if (!b)
        return false;
    if (b->recording && !x->exp.writable && b->node == blk_node_of(x->exp.blk) && !b->node->caps.read_only)
        return err_set(e, ERR_VALUE, "Enabled bitmap '%s' incompatible with readonly export", b->name);
    b->busy++;
    x->bitmaps[x->n_bitmaps++] = b;
    return true;
}

void nbd_export_drop_bitmaps(struct nbd_export *x)
{
    while (x->n_bitmaps)
        x->bitmaps[--x->n_bitmaps]->busy--;
}
