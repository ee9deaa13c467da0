/* SPDX-License-Identifier: MIT */
/*
 * "vmdk": VMware's image format: sparse and flat extents in one file or several, streams of compressed grains. Little endian. Those of
 * one sparse extent are written, too (vmdk_write.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/backing.h"
#include "block/vmdk.h"

enum { MAX_GT_ENTRIES = 512, ZLIB_WINDOW = 15, MARKER_LEN = 12 };
#define MAX_GRAIN (64 * MiB)
#define GD_AT_END UINT64_MAX

static struct vmdk *of(struct blk_node *n) { return (struct vmdk *)n; }

/* ---- finding a grain ---- */

static struct vmdk_extent *extent_at(struct vmdk *s, uint64_t sector)
{
    unsigned lo = 0, hi = s->n;
    while (hi - lo > 1) {
        unsigned mid = (lo + hi) / 2;
        if (s->v[mid].start <= sector)
            lo = mid;
        else
            hi = mid;
    }
    return &s->v[lo];
}

static int co_lookup_sparse(struct vmdk_extent *x, uint64_t off, struct fmt_run *out)
{
    uint64_t grain = off / x->grain, i = grain / x->gt_entries;
    uint8_t le[4] = { 0 };
    int r = i < x->gd_entries ? co_fmt_entry(x->file, &x->gd, x->gd_off + i * 4, le, 4) : -EIO;
    uint64_t gt = (uint64_t)ld_le32(le) * 512, v = 0;
    if (!r && gt) {
        r = co_fmt_entry(x->file, &x->gt, gt + grain % x->gt_entries * 4, le, 4);
        v = ld_le32(le);
    }
    out->kind = !v ? FMT_BELOW : v == 1 && x->zeroed_grains ? FMT_ZERO : x->packed ? FMT_PACKED : FMT_DATA;
    out->off = v * 512 + (out->kind == FMT_DATA ? off % x->grain : 0);
    out->packed_len = x->grain;
    return r;
}

/* Blocks are those of the disk: an extent begins at a block, or all are flat and blocks are as good as any. */
static int co_lookup(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    struct vmdk_extent *x = extent_at(of(n), off / 512);
    uint64_t in = off - x->start * 512;
    *out = (struct fmt_run){ .kind = x->kind == VMDK_ZERO ? FMT_ZERO : FMT_DATA, .off = x->flat_off + in, .file = x->file,
                             .flat = x->kind == VMDK_FLAT };
    return x->kind == VMDK_SPARSE ? co_lookup_sparse(x, in, out) : 0;
}

/* A grain of a stream: where it belongs, how long it is, a zlib stream. */
static int co_unpack(struct blk_node *n, const struct fmt_run *run, uint8_t *out)
{
    struct vmdk *s = of(n);
    uint64_t skip = 0, len = s->fmt.unit * 2;
    uint8_t m[MARKER_LEN];
    const struct vmdk_extent *x = s->v;
    while (x->file != run->file)
        x++;
    if (x->markers) {
        int r = co_fmt_pread(run->file, run->off, m, sizeof m);
        if (r)
            return r;
        skip = MARKER_LEN;
        len = ld_le32(m + 8);
    }
    return len > s->fmt.unit * 2 ? -EIO : co_fmt_inflate(run->file, run->off + skip, len, ZLIB_WINDOW, out, s->fmt.unit);
}

/* ---- opening ---- */

static bool sparse_fields(struct vmdk *s, struct vmdk_extent *x, const uint8_t *h, struct err *e)
{
    uint32_t version = ld_le32(h + VMDK_H_VERSION), flags = ld_le32(h + VMDK_H_FLAGS);
    uint64_t grain = ld_le64(h + VMDK_H_GRAIN), capacity = ld_le64(h + VMDK_H_CAPACITY);
    if (!version || version > 3)
        return fmt_unsupported(&s->fmt, e, "is of version %u of the format; 1 to 3 are known here", version);
    if (!is_pow2(grain) || grain > MAX_GRAIN / 512 || capacity > INT64_MAX / 512)
        return fmt_bad(&s->fmt, e, "grains of %llu sectors, %llu in all", (unsigned long long)grain, (unsigned long long)capacity);
    x->grain = grain * 512;
    x->gt_entries = ld_le32(h + VMDK_H_GT_ENTRIES);
    if (!x->gt_entries || x->gt_entries > MAX_GT_ENTRIES)
        return fmt_bad(&s->fmt, e, "a grain table of %u entries", x->gt_entries);
    x->zeroed_grains = flags & VMDK_FLAG_ZEROED;
    x->packed = flags & VMDK_FLAG_PACKED;
    x->markers = flags & VMDK_FLAG_MARKERS;
    if (x->packed && ld_le16(h + VMDK_H_COMPRESSION) != 1)
        return fmt_unsupported(&s->fmt, e, "is compressed by algorithm %u; 1 (deflate) is known here", ld_le16(h + VMDK_H_COMPRESSION));
    uint64_t per = x->grain / 512 * x->gt_entries;
    x->gd_entries = capacity / per + (capacity % per != 0);
    if (!x->sectors)
        x->sectors = capacity;
    return capacity >= x->sectors || fmt_bad(&s->fmt, e, "an extent of %llu sectors has %llu", (unsigned long long)x->sectors, (unsigned long long)capacity);
}

/* The header of a sparse extent whose file is there. *@desc_off, *@desc_len: its descriptor, in bytes. */
static bool co_open_sparse(struct vmdk *s, struct vmdk_extent *x, uint64_t *desc_off, uint64_t *desc_len, struct err *e)
{
    uint8_t h[VMDK_H_LEN];
    uint64_t end = atomic_load(&x->file->size);
    int r = co_fmt_pread(x->file, 0, h, sizeof h);
    if (!r && !memcmp(h, "KDMV", 4) && ld_le64(h + VMDK_H_GD_OFF) == GD_AT_END && end >= 1536) {
        *desc_off = ld_le64(h + VMDK_H_DESC_OFF);
        *desc_len = ld_le64(h + VMDK_H_DESC_LEN);
        r = co_fmt_pread(x->file, end - 1024, h, sizeof h);     /* a stream: the true header is its footer */
        st_le64(h + VMDK_H_DESC_OFF, *desc_off);
        st_le64(h + VMDK_H_DESC_LEN, *desc_len);
    }
    if (r)
        return err_os(e, -r, "cannot read '%s'", blk_node_filename(x->file));
    if (memcmp(h, "KDMV", 4))
        return fmt_bad(&s->fmt, e, "the extent '%s' has no header", blk_node_filename(x->file));
    *desc_off = ld_le64(h + VMDK_H_DESC_OFF);
    *desc_len = ld_le64(h + VMDK_H_DESC_LEN);
    if (*desc_off > INT64_MAX / 512 || *desc_len > VMDK_MAX_DESC / 512)
        return fmt_bad(&s->fmt, e, "a descriptor of %llu sectors", (unsigned long long)*desc_len);
    *desc_off *= 512;
    *desc_len *= 512;
    uint64_t gd = ld_le64(h + VMDK_H_GD_OFF);
    if (!sparse_fields(s, x, h, e))
        return false;
    if (gd > INT64_MAX / 512 || !range_ok(gd * 512, x->gd_entries * 4, end))
        return fmt_bad(&s->fmt, e, "the grain directory at sector %llu is not in the file", (unsigned long long)gd);
    x->gd_off = gd * 512;
    uint64_t rgd = ld_le32(h + VMDK_H_FLAGS) & VMDK_FLAG_REDUNDANT ? ld_le64(h + VMDK_H_RGD_OFF) : 0;
    x->rgd_off = rgd <= INT64_MAX / 512 && range_ok(rgd * 512, x->gd_entries * 4, end) ? rgd * 512 : 0;
    return true;
}

static bool open_extent(struct vmdk *s, struct vmdk_extent *x, struct err *e)
{
    struct blk_node *n = &s->fmt.node;
    uint64_t off, len;
    if (x->kind == VMDK_ZERO)
        return true;
    if (x->name) {
        char *path = blk_path_beside(blk_node_filename(n->child.node), x->name);
        json_t *o = json_pack("{s:s, s:s, s:b}", "driver", "file", "filename", path, "read-only", 1);
        blk_lock_as(n, o);
        bool ok = blk_child_open_at(n, &x->use, "extent", o, BLK_PERM_READ, BLK_PERM_READ, e);
        json_decref(o);
        free(path);
        if (!ok)
            return err_prefix(e, "extent '%s'", x->name);
        x->file = x->use.node;
    }
    if (x->kind == VMDK_SPARSE)
        return co_open_sparse(s, x, &off, &len, e);
    return range_ok(x->flat_off, x->sectors * 512, align_up(atomic_load(&x->file->size), 512)) ||
           fmt_bad(&s->fmt, e, "the extent '%s' is shorter than %llu sectors", x->name, (unsigned long long)x->sectors);
}

/* The largest block that no extent's border or grain cuts. */
static bool find_unit(struct vmdk *s, struct err *e)
{
    uint64_t unit = 0;
    bool packed = false;
    for (unsigned i = 0; i < s->n; i++) {
        if (s->v[i].kind != VMDK_SPARSE)
            continue;
        if ((unit && s->v[i].grain != unit) || (i && packed != s->v[i].packed && unit))
            return fmt_unsupported(&s->fmt, e, "has extents of different grains, which are not read here");
        unit = s->v[i].grain;
        packed = s->v[i].packed;
    }
    for (unsigned i = 0; i < s->n; i++)
        while (unit && s->v[i].start * 512 % unit)
            unit /= 2;
    if (packed && unit != s->v[0].grain)
        return fmt_unsupported(&s->fmt, e, "has compressed extents that do not begin at a grain");
    s->fmt.unit = unit ? unit : s->n > 1 ? 512 : MiB;
    return true;
}

static bool open_text(struct vmdk *s, uint64_t off, uint64_t len, bool embedded, struct err *e)
{
    char *text = calloc(1, len + 1);
    bool ok = text ? co_fmt_header(&s->fmt, off, text, len, e) : err_os(e, ENOMEM, "no memory for a descriptor");
    ok = ok && vmdk_parse(s, text, embedded, e);
    free(text);
    return ok;
}

static bool open_parts(struct vmdk *s, struct err *e)
{
    struct blk_node *file = s->fmt.node.child.node;
    char magic[4];
    uint64_t off = 0, len = 0;
    if (!co_fmt_header(&s->fmt, 0, magic, sizeof magic, e))
        return false;
    if (!memcmp(magic, "KDMV", 4)) {
        struct vmdk_extent *x = vmdk_extent_add(s, VMDK_SPARSE, 1, e);
        if (!x)
            return false;
        x->file = file;
        x->sectors = 0;
        if (!co_open_sparse(s, x, &off, &len, e))
            return false;
        s->desc_off = off;
        s->desc_len = len;
        return !len || open_text(s, off, len, true, e);
    }
    if (!memcmp(magic, "COWD", 4))
        return fmt_unsupported(&s->fmt, e, "is a sparse extent of ESX, which is not read here");
    if (!open_text(s, 0, MIN(atomic_load(&file->size), (uint64_t)VMDK_MAX_DESC), false, e))
        return false;
    for (unsigned i = 0; i < s->n; i++)
        if (!open_extent(s, &s->v[i], e))
            return false;
    return true;
}

static bool only_read(struct vmdk *s, struct err *e)
{
    struct blk_node *n = &s->fmt.node;
    if (!n->auto_read_only) {
        fmt_unsupported(&s->fmt, e, "can only be read here: it is not of one sparse extent");
        return err_hint(e, "read-only=on, or backplane-img convert -O vmdk");
    }
    n->read_only = true;
    return blk_use_change(&n->child, BLK_PERM_READ, BLK_PERM_READ, e);
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct vmdk *s = of(n);
    s->fmt.co_lookup = co_lookup;
    s->fmt.co_unpack = co_unpack;
    s->fmt.co_place = co_vmdk_place;
    s->fmt.co_link = co_vmdk_link;
    s->fmt.co_settle = co_vmdk_settle;
    if (!co_fmt_open(&s->fmt, e) || !open_parts(s, e) || !find_unit(s, e) || (!n->read_only && !vmdk_can_write(s) && !only_read(s, e)))
        return false;
    const struct vmdk_extent *last = &s->v[s->n - 1];
    return fmt_ready(&s->fmt, (last->start + last->sectors) * 512, e) && blk_backing_open(n, s->fmt.backing, e);
}

static void co_close(struct blk_node *n)
{
    struct vmdk *s = of(n);
    co_fmt_close(n);
    for (unsigned i = 0; i < s->n; i++) {
        blk_child_close_at(&s->v[i].use);
        free(s->v[i].name);
    }
    free(s->v);
    s->v = NULL;
    s->n = 0;
}

static json_t *info(const struct blk_node *n)
{
    const struct vmdk *s = (const struct vmdk *)n;
    json_t *list = json_array(), *data = json_pack("{s:I, s:I, s:s}", "cid", (json_int_t)s->cid, "parent-cid", (json_int_t)s->parent_cid,
                                                   "create-type", s->create_type);
    for (unsigned i = 0; i < s->n; i++) {
        const struct vmdk_extent *x = &s->v[i];
        json_t *o = json_pack("{s:s, s:I, s:s}", "filename", x->file ? blk_node_filename(x->file) : "", "virtual-size", (json_int_t)(x->sectors * 512),
                              "format", x->kind == VMDK_FLAT ? "FLAT" : x->kind == VMDK_ZERO ? "ZERO" : "");
        if (x->kind == VMDK_SPARSE) {
            json_object_set_new(o, "cluster-size", json_integer((json_int_t)x->grain));
            json_object_set_new(o, "compressed", json_boolean(x->packed));
        }
        json_array_append_new(list, o);
    }
    json_object_set_new(data, "extents", list);
    return json_pack("{s:s, s:o}", "type", "vmdk", "data", data);
}

static const struct prop props[] = { FMT_PROPS(struct vmdk), FMT_BACKING_PROP(struct vmdk), PROP_END };
static const struct blk_driver vmdk_driver = {
    .obj = { .name = "blockdev-vmdk", .desc = "VMware's image format; of one sparse extent, else read-only", .base = &blk_node_class, .size = sizeof(struct vmdk),
             .props = props },
    FMT_DRIVER_WRITES, .co_open = co_open, .co_close = co_close, .cluster_size = fmt_cluster_size, .info = info,
    .co_create = co_vmdk_create, .create_props = vmdk_create_props,
};
OBJ_CLASS(&vmdk_driver.obj);
