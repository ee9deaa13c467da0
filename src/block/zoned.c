/* SPDX-License-Identifier: MIT */
/*
 * "zoned": the node below as a disk of zones, each written in order and made empty as a whole; the first ones may be conventional. Where
 * zones were written up to is kept in a file beside it (state=), which is replaced when the guest flushes, so that it never tells of less
 * than what was flushed. It goes above all other nodes. All is on the home loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file_replace.h"
#include "base/log.h"
#include "base/str.h"
#include "block/filter.h"

#define ZONES_MAX (1u << 20)

struct blk_zoned_node {
    struct blk_node node;
    json_t *file;
    uint64_t zone_size, zone_cap;
    uint32_t conventional, max_open, max_active;
    char *state;
    /* what it is now */
    struct zones z;                     /* in bytes */
    bool dirty;                         /* other than in the file */
    struct co_mutex saving;
};

static struct blk_zoned_node *of(struct blk_node *n) { return (struct blk_zoned_node *)n; }

static int error_of(enum zone_result r)
{
    switch (r) {
    case ZONE_OK: return 0;
    case ZONE_TOO_MANY_OPEN: return -ETOOMANYREFS;
    case ZONE_TOO_MANY_ACTIVE: return -EOVERFLOW;
    case ZONE_NOT_AT_WP: return -ESPIPE;
    case ZONE_NO_ZONE: return -EIO;
    case ZONE_CROSSED: return -E2BIG;
    case ZONE_IS_FULL: return -EXFULL;
    case ZONE_IS_READ_ONLY: return -EACCES;
    case ZONE_IS_OFFLINE: return -EUNATCH;
    case ZONE_NO_TRANSITION: case ZONE_BUSY: case ZONE_BAD_REQUEST: break;
    }
    return -EDOM;
}

/* ---- kept between runs ---- */

static json_t *shape(const struct blk_zoned_node *s)
{
    return json_pack("{s:i, s:I, s:I, s:I, s:I}", "version", 1, "zones", (json_int_t)s->z.n, "zone-size", (json_int_t)s->z.size,
                     "zone-capacity", (json_int_t)s->z.cap, "conventional", (json_int_t)s->conventional);
}

static char *to_text(const struct blk_zoned_node *s)
{
    json_t *doc = shape(s), *list = json_array();
    char *text;

    for (uint32_t i = 0; i < s->z.n; i++) {
        json_t *one = zone_to_json(&s->z, &s->z.zone[i]);
        if (one)
            json_array_append_new(list, one);
    }
    json_object_set_new(doc, "written", list);
    text = json_dumps(doc, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(doc);
    return text;
}

struct save { const char *path; char *text; };

static int write_file(void *arg)
{
    struct save *s = arg;

    return file_replace(s->path, s->text, strlen(s->text));
}

/* 0 or -errno: then it is tried again with the next flush. */
static int co_save(struct blk_zoned_node *s)
{
    int r = 0;

    if (!s->state)
        return 0;
    co_mutex_lock(&s->saving);
    if (s->dirty) {
        struct save v = { s->state, to_text(s) };
        s->dirty = false;
        r = co_offload(write_file, &v);
        s->dirty |= r != 0;
        free(v.text);
        if (r)
            log_warn("zoned '%s': the state cannot be written to '%s': %s", s->node.obj.id, s->state, strerror(-r));
    }
    co_mutex_unlock(&s->saving);
    return r;
}

static bool load(struct blk_zoned_node *s, struct err *e)
{
    json_t *doc, *want, *v, *list;
    const char *key;
    json_error_t je;
    size_t i;
    bool ok = true;

    if (!s->state || (!s->node.read_only && !file_replace_possible(s->state, "state", e)))
        return !s->state;
    doc = json_load_file(s->state, 0, &je);
    if (!doc)
        return access(s->state, F_OK) != 0 || err_set(e, ERR_VALUE, "state '%s' is no file of this kind: %s", s->state, je.text);
    want = shape(s);
    json_object_foreach(want, key, v)
        if (ok && !json_equal(v, json_object_get(doc, key)))
            ok = err_set(e, ERR_VALUE, "state '%s' is of other zones: '%s' is not %lld there", s->state, key, (long long)json_integer_value(v));
    list = json_object_get(doc, "written");
    for (i = 0; ok && i < json_array_size(list); i++)
        if (!zone_from_json(&s->z, json_array_get(list, i), false))
            ok = err_set(e, ERR_VALUE, "state '%s': entry %zu of 'written' makes no sense", s->state, i);
    zones_power_cycle(&s->z);
    json_decref(want);
    json_decref(doc);
    return ok;
}

/* ---- changes ---- */

static unsigned zero_flags(const struct blk_node *n) { return n->discard == BLK_DISCARD_UNMAP ? BLK_ZERO_UNMAP : 0; }

/* @iov NULL: zeroes. Flagged BLK_FUA it lasts with the pointer behind it. */
static int co_put(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_zoned_node *s = of(n);
    int r = iov ? co_node_pwritev(n->child.node, off, len, iov, niov, flags) : co_node_zero(n->child.node, off, len, flags);

    s->dirty = true;
    if (r)
        zone_write_undo(&s->z, off, len);
    else
        zone_write_end(&s->z, off, len);
    return r || !(flags & BLK_FUA) ? r : co_save(s);
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = error_of(zone_write_begin(&of(n)->z, &off, len, false));

    return r ? r : co_put(n, off, len, iov, niov, flags);
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = error_of(zone_write_begin(&of(n)->z, &off, len, false));

    return r ? r : co_put(n, off, len, NULL, 0, flags);
}

/* Between the words of those who watch this node, where there are any. */
static int co_append(struct blk_node *n, uint64_t *off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_change c = { .len = len, .iov = iov, .niov = niov };
    bool told = atomic_load(&n->watched);
    int r = error_of(zone_write_begin(&of(n)->z, off, len, true));

    if (r || !told)
        return r ? r : co_put(n, *off, len, iov, niov, flags);
    c.off = *off;
    r = co_change_begin(n, &c);
    if (r)
        zone_write_undo(&of(n)->z, *off, len);
    else
        r = co_put(n, *off, len, iov, niov, flags);
    return co_change_end(n, &c, r);
}

static int co_reset(struct blk_node *n, struct zone *x)
{
    struct blk_zoned_node *s = of(n);
    struct blk_change c = { .off = zone_start(&s->z, x), .len = s->z.cap };
    bool written, told = atomic_load(&n->watched);
    int r = error_of(zone_reset_begin(x, &written));

    if (r || !written)
        return r;
    r = told ? co_change_begin(n, &c) : 0;
    r = r ? r : co_node_zero(n->child.node, c.off, c.len, zero_flags(n));
    zone_reset_end(&s->z, x, !r);
    s->dirty = true;
    return told ? co_change_end(n, &c, r) : r;
}

static int co_one(struct blk_node *n, enum zone_op op, struct zone *x)
{
    struct zones *z = &of(n)->z;

    of(n)->dirty = true;
    switch (op) {
    case ZONE_OP_CLOSE: return error_of(zone_close(z, x));
    case ZONE_OP_FINISH: return error_of(zone_finish(z, x));
    case ZONE_OP_OPEN: return error_of(zone_open(z, x, true, false));
    case ZONE_OP_OFFLINE: return error_of(zone_offline(z, x));
    case ZONE_OP_RESET: return co_reset(n, x);
    }
    return -EDOM;
}

static int co_op(struct blk_node *n, enum zone_op op, uint64_t off)
{
    struct zones *z = &of(n)->z;
    struct zone *x = off == BLK_ALL_ZONES ? NULL : zone_at(z, off);
    int r = 0;

    if (off != BLK_ALL_ZONES)
        return x && zone_start(z, x) == off ? co_one(n, op, x) : -EDOM;
    for (uint32_t i = 0; !r && i < z->n; i++)
        if (zone_op_selects(op, z->zone[i].state))
            r = co_one(n, op, &z->zone[i]);
    return r;
}

/* ---- reading ---- */

static int co_report(struct blk_node *n, uint64_t off, struct blk_zone *out, unsigned *count)
{
    const struct zones *z = &of(n)->z;
    uint64_t first = off / z->size;
    unsigned k = 0;

    for (uint64_t i = first; i < z->n && k < *count; i++, k++) {
        const struct zone *x = &z->zone[i];
        out[k] = (struct blk_zone){ .start = zone_start(z, x), .cap = z->cap, .wp = zone_has_wp(x) ? x->wp : UINT64_MAX, .state = x->state };
    }
    *count = k;
    return 0;
}

/* What is behind a write pointer reads as zeroes, whatever a write that nobody waited for left there. */
static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    const struct zones *z = &of(n)->z;
    struct iovec *part;
    int r = error_of(zone_check_read(z, off, len));

    r = r ? r : co_filter_read(n, off, len, iov, niov, flags);
    if (r)
        return r;
    part = calloc(niov, sizeof *part);
    if (!part)
        return -ENOMEM;
    for (uint64_t i = off / z->size; i <= (off + len - 1) / z->size; i++) {
        uint64_t from = MAX(off, z->zone[i].next), to = MIN(off + len, (i + 1) * z->size);
        if (zone_has_wp(&z->zone[i]) && from < to)
            blk_iov_zero(part, blk_iov_slice(iov, niov, from - off, to - from, part));
    }
    free(part);
    return 0;
}

static int co_flush(struct blk_node *n)
{
    int r = co_filter_flush(n);

    return r ? r : co_save(of(n));
}

/* ---- life ---- */

static bool check(struct obj *o, struct err *e)
{
    const struct blk_zoned_node *s = (const struct blk_zoned_node *)o;

    if (s->zone_cap > s->zone_size || s->zone_cap % 4096)
        return err_set(e, ERR_VALUE, "zone-capacity is a multiple of 4096 and no more than zone-size (%llu)", (unsigned long long)s->zone_size);
    if (s->max_active && s->max_open > s->max_active)
        return err_set(e, ERR_VALUE, "max-open (%u) is more than max-active (%u)", s->max_open, s->max_active);
    return true;
}

static bool make_zones(struct blk_zoned_node *s, struct err *e)
{
    uint64_t n = atomic_load(&s->node.size) / s->zone_size;

    if (!n || n > ZONES_MAX)
        return err_set(e, ERR_VALUE, "zone-size is %llu, which makes %llu zones of what is below: from 1 to %u there may be",
                       (unsigned long long)s->zone_size, (unsigned long long)n, ZONES_MAX);
    if (s->conventional >= n)
        return err_set(e, ERR_VALUE, "conventional is %u, but there are %llu zones: one at least is written in order", s->conventional, (unsigned long long)n);
    s->z = (struct zones){ .n = (uint32_t)n, .size = s->zone_size, .cap = s->zone_cap ? s->zone_cap : s->zone_size, .max_open = s->max_open,
                           .max_active = s->max_active, .cross_read = true, .auto_close = true, .zone = xcalloc(n, sizeof *s->z.zone) };
    if (s->conventional && s->z.cap != s->z.size)
        return err_set(e, ERR_VALUE, "zone-capacity is less than zone-size, which conventional zones cannot be");
    for (uint32_t i = s->conventional; i < s->z.n; i++)
        zone_empty(&s->z, &s->z.zone[i]);
    return true;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_zoned_node *s = of(n);

    if (!co_filter_open(n, s->file, e) || !make_zones(s, e))
        return false;
    atomic_store(&n->size, s->z.n * s->z.size);
    n->caps.grows = n->caps.discard = n->caps.rotational = false;
    n->caps.flush |= s->state != NULL;
    n->caps.zoned = (struct blk_zoned){ .size = s->z.size, .cap = s->z.cap, .from = s->conventional * s->z.size, .max_open = s->max_open, .max_active = s->max_active };
    return load(s, e);
}

static void co_close(struct blk_node *n)
{
    if (of(n)->z.zone && !n->read_only)
        co_save(of(n));
    free(of(n)->z.zone);
    of(n)->z.zone = NULL;
    co_filter_close(n);
}

static const struct prop props[] = {
    PROP_JSON(struct blk_zoned_node, file, "file", PF_REQUIRED, "Node below: what is in the zones"),
    { .name = "zone-size", .doc = "Distance of zones", .type = PROP_T_SIZE, PROP_OFF(struct blk_zoned_node, zone_size), .def = 64 * MiB,
      .min = 64 * KiB, .max = UINT64_C(1) << 40, .flags = PF_POW2 },
    PROP_SIZE(struct blk_zoned_node, zone_cap, "zone-capacity", 0, 0, INT64_MAX, "What of a zone can be written; 0: all"),
    PROP_U32(struct blk_zoned_node, conventional, "conventional", 0, 0, UINT32_MAX, "So many zones at the start are written in any order"),
    PROP_U32(struct blk_zoned_node, max_open, "max-open", 0, 0, UINT32_MAX, "Open zones at most; 0: no limit"),
    PROP_U32(struct blk_zoned_node, max_active, "max-active", 0, 0, UINT32_MAX, "Zones that are open or closed at most; 0: no limit"),
    PROP_STR(struct blk_zoned_node, state, "state", 0, "File that keeps what zones were written up to; without one, all are empty at the start"),
    PROP_END,
};

static const struct blk_zone_ops zone_ops = { .co_report = co_report, .co_op = co_op, .co_append = co_append };
static const struct blk_driver zoned_driver = {
    .obj = { .name = "blockdev-zoned", .desc = "Disk of zones that are written in order", .base = &blk_node_class,
             .size = sizeof(struct blk_zoned_node), .props = props, .check = check },
    .co_open = co_open, .co_close = co_close, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero, .co_flush = co_flush,
    .co_map = co_filter_map, .set_perm = blk_pass_perm, .zones = &zone_ops,
};
OBJ_CLASS(&zoned_driver.obj);
