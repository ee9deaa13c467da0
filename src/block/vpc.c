/* SPDX-License-Identifier: MIT */
/*
 * "vpc": Virtual Hard Disk images (Microsoft's "Virtual Hard Disk Image Format Specification" 1.0), fixed and dynamic ones. Everything
 * is big endian.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "block/fmt.h"

enum { F_LEN = 512, F_FEATURES = 8, F_VERSION = 12, F_DATA_OFF = 16, F_TIME = 24, F_CREATOR = 28, F_CREATOR_VERSION = 32, F_HOST = 36, F_ORIGINAL = 40,
       F_SIZE = 48, F_CYLS = 56, F_HEADS = 58, F_SECS = 59, F_TYPE = 60, F_SUM = 64, F_UUID = 68 };
enum { D_LEN = 1024, D_DATA_OFF = 8, D_TABLE = 16, D_VERSION = 24, D_ENTRIES = 28, D_BLOCK = 32, D_SUM = 36 };
enum { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFFERENCING = 4 };
#define VPC_UNUSED UINT32_MAX
#define MAX_GEOMETRY (UINT64_C(65535) * 16 * 255)

struct vpc {
    struct fmt_node fmt;
    uint64_t table_off, bitmap, end /* of the blocks: the footer is there */;
    uint32_t entries;
    uint8_t footer[F_LEN];
    uint8_t *marked;                /* a bit a block: its bitmap says that all of it counts */
    struct fmt_window table;
};

static int co_lookup_fixed(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    *out = (struct fmt_run){ .kind = FMT_DATA, .off = off, .file = n->child.node, .flat = true };
    return 0;
}

/* Each block has a bitmap of its written sectors before it; those that never were are zeroes in the file as well. */
static int co_lookup_dynamic(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    struct vpc *s = (struct vpc *)n;
    uint64_t i = off / s->fmt.unit;
    uint8_t be[4];
    int r = i < s->entries ? co_fmt_entry(n->child.node, &s->table, s->table_off + i * 4, be, 4) : -EIO;
    uint32_t v = r ? 0 : ld_be32(be);
    *out = (struct fmt_run){ .kind = v == VPC_UNUSED ? FMT_BELOW : FMT_DATA, .off = (uint64_t)v * 512 + s->bitmap + off % s->fmt.unit,
                             .file = n->child.node };
    return r;
}

static int co_place(struct blk_node *n, uint64_t off, uint64_t *place)
{
    struct vpc *s = (struct vpc *)n;
    *place = s->end + s->bitmap;
    return s->end / 512 < VPC_UNUSED ? 0 : -EFBIG;
}

/* The bitmap before the block says that all of it counts; the footer moves behind it. The copy at the beginning holds meanwhile. */
static int co_link(struct blk_node *n, uint64_t off, uint64_t place)
{
    struct vpc *s = (struct vpc *)n;
    struct blk_node *file = n->child.node;
    uint8_t be[4];
    st_be32(be, (uint32_t)((place - s->bitmap) / 512));
    int r = co_fmt_fill(file, place - s->bitmap, s->bitmap, 0xff);
    r = r ? r : co_fmt_pwrite(file, place + s->fmt.unit, s->footer, F_LEN);
    r = r ? r : co_fmt_entry_set(file, &s->table, s->table_off + off / s->fmt.unit * 4, be, sizeof be);
    s->end = r ? s->end : place + s->fmt.unit;
    return r;
}

/* Who goes by the bitmaps would not see a write to a sector that was none before. */
static int co_touch(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct vpc *s = (struct vpc *)n;
    int r = 0;
    for (uint64_t i = off / s->fmt.unit; i <= (off + len - 1) / s->fmt.unit && !r; i++) {
        struct fmt_run run;
        if (s->marked[i / 8] >> (i % 8) & 1)
            continue;
        r = co_lookup_dynamic(n, i * s->fmt.unit, &run);
        r = r ? r : co_fmt_fill(n->child.node, run.off - s->bitmap, s->bitmap, 0xff);
        s->marked[i / 8] |= (uint8_t)(r ? 0 : 1 << (i % 8));
    }
    return r;
}

static uint32_t sum_of(const uint8_t *p, unsigned len, unsigned at)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < len; i++)
        sum += i >= at && i < at + 4 ? 0 : p[i];
    return ~sum;
}
static bool sum_ok(const uint8_t *p, unsigned len, unsigned at) { return sum_of(p, len, at) == ld_be32(p + at); }

/* Virtual PC, and QEMU in its manner, round the disk to whole cylinders and mean that; others mean the size field. */
static uint64_t disk_size(const uint8_t *f)
{
    uint64_t chs = (uint64_t)ld_be16(f + F_CYLS) * f[F_HEADS] * f[F_SECS];
    bool by_chs = !memcmp(f + F_CREATOR, "vpc ", 4) || !memcmp(f + F_CREATOR, "qemu", 4);
    return by_chs && chs && chs < MAX_GEOMETRY ? chs * 512 : ld_be64(f + F_SIZE);
}

/* Behind the last block, or what is in the file: where its footer is, or should be. */
static bool find_end(struct vpc *s, struct err *e)
{
    uint64_t end = align_down(atomic_load(&s->fmt.node.child.node->size), 512);
    uint8_t f[F_LEN];
    if (end >= F_LEN && !co_fmt_header(&s->fmt, end - F_LEN, f, F_LEN, e))
        return false;
    s->end = end >= 2 * F_LEN && !memcmp(f, "conectix", 8) ? end - F_LEN : end;
    return true;
}

static bool open_dynamic(struct vpc *s, uint64_t off, uint64_t size, struct err *e)
{
    uint8_t d[D_LEN];
    if (!fmt_in_file(&s->fmt, "dynamic header", off, D_LEN, e) || !co_fmt_header(&s->fmt, off, d, sizeof d, e))
        return false;
    uint32_t block = ld_be32(d + D_BLOCK);
    if (memcmp(d, "cxsparse", 8) || !sum_ok(d, D_LEN, D_SUM))
        return fmt_bad(&s->fmt, e, "its dynamic header has another signature, or its checksum is wrong");
    if (!is_pow2(block) || block < 512 || block > 256 * MiB)
        return fmt_bad(&s->fmt, e, "a block of %u bytes", block);
    s->fmt.unit = block;
    s->bitmap = align_up(block / 512 / 8, 512);
    s->bitmap = MAX(s->bitmap, (uint64_t)512);
    s->table_off = ld_be64(d + D_TABLE);
    s->entries = ld_be32(d + D_ENTRIES);
    if ((uint64_t)s->entries * block < size)
        return fmt_bad(&s->fmt, e, "%u blocks are too few for %llu bytes", s->entries, (unsigned long long)size);
    s->fmt.co_lookup = co_lookup_dynamic;
    s->fmt.co_link = co_link;
    s->fmt.co_touch = co_touch;
    s->fmt.data_start = 512;
    if (!fmt_in_file(&s->fmt, "table of blocks", s->table_off, (uint64_t)s->entries * 4, e) || !find_end(s, e))
        return false;
    s->marked = calloc(1, s->entries / 8 + 1);
    return s->marked || err_os(e, ENOMEM, "no memory for %u blocks", s->entries);
}

/* The footer is at the end; dynamic disks have a copy at the beginning. Old ones have one of 511 bytes. */
static bool find_footer(struct vpc *s, uint8_t *f, struct err *e)
{
    uint64_t end = atomic_load(&s->fmt.node.child.node->size);
    if (!co_fmt_header(&s->fmt, 0, f, F_LEN, e))
        return false;
    bool found = !memcmp(f, "conectix", 8);
    if (!found && end >= F_LEN && !co_fmt_header(&s->fmt, end - F_LEN, f, F_LEN, e))
        return false;
    if (!found && (end < F_LEN || memcmp(f, "conectix", 8)))
        return fmt_bad(&s->fmt, e, "it has no footer");
    return sum_ok(f, F_LEN, F_SUM) || fmt_bad(&s->fmt, e, "the checksum of its footer is wrong");
}

static void co_close(struct blk_node *n)
{
    struct vpc *s = (struct vpc *)n;
    co_fmt_close(n);
    free(s->marked);
    s->marked = NULL;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct vpc *s = (struct vpc *)n;
    uint8_t *f = s->footer;
    s->fmt.co_place = co_place;
    if (!co_fmt_open(&s->fmt, e) || !find_footer(s, f, e))
        return false;
    uint32_t type = ld_be32(f + F_TYPE);
    uint64_t size = disk_size(f), there = atomic_load(&n->child.node->size);
    if (type == TYPE_DIFFERENCING)
        return fmt_unsupported(&s->fmt, e, "is a difference to another image, which is not read here");
    if (type != TYPE_FIXED && type != TYPE_DYNAMIC)
        return fmt_bad(&s->fmt, e, "type %u", type);
    if (type == TYPE_DYNAMIC)
        return open_dynamic(s, ld_be64(f + F_DATA_OFF), size, e) && fmt_ready(&s->fmt, size, e);
    s->fmt.unit = 2 * MiB;
    s->fmt.co_lookup = co_lookup_fixed;
    if (size > there - F_LEN)
        return fmt_bad(&s->fmt, e, "%llu bytes are more than the file has", (unsigned long long)size);
    return fmt_ready(&s->fmt, size, e);
}

/* ---- creation ---- */

enum { NEW_TABLE = F_LEN + D_LEN, NEW_BLOCK = 2 << 20 };
#define SIZE_MOST (UINT64_C(2040) * GiB)
static const char *const subformats[] = { "dynamic", "fixed", NULL };
struct create { uint64_t size; int subformat; bool force_size; };
static const struct prop create_props[] = {
    PROP_SIZE(struct create, size, "size", 0, 0, INT64_MAX - 4096, "Size of the disk"),
    PROP_ENUM(struct create, subformat, "subformat", subformats, 0, "dynamic: blocks are allocated as they are written; fixed: all of it at once"),
    { .name = "force_size", .doc = "Accepted for compatibility: the size is always what is asked for", .type = PROP_T_BOOL, .flags = PF_HIDDEN,
      PROP_OFF(struct create, force_size) },
    PROP_END,
};

/* The geometry for readers that go by it: appendix "CHS Calculation". */
static void put_geometry(uint8_t *f, uint64_t sectors)
{
    uint32_t total = (uint32_t)MIN(sectors, MAX_GEOMETRY), secs = 255, heads = 16, tracks = total / 255;
    if (total < UINT32_C(65535) * 16 * 63) {
        secs = 17;
        tracks = total / secs;
        heads = MAX((tracks + 1023) / 1024, 4u);
        if (tracks >= heads * 1024 || heads > 16) {
            secs = 31;
            heads = 16;
            tracks = total / secs;
        }
        if (tracks >= heads * 1024) {
            secs = 63;
            heads = 16;
            tracks = total / secs;
        }
    }
    st_be16(f + F_CYLS, (uint16_t)(tracks / heads));
    f[F_HEADS] = (uint8_t)heads;
    f[F_SECS] = (uint8_t)secs;
}

static int build_footer(uint8_t *f, uint64_t size, bool fixed)
{
    memset(f, 0, F_LEN);
    memcpy(f, "conectix", 8);
    st_be32(f + F_FEATURES, 2);             /* a bit that is always set */
    st_be32(f + F_VERSION, 0x10000);
    st_be64(f + F_DATA_OFF, fixed ? UINT64_MAX : F_LEN);
    st_be32(f + F_TIME, (uint32_t)(time(NULL) - 946684800));       /* from the year 2000 on */
    memcpy(f + F_CREATOR, "win ", 4);       /* of those whose size field counts, and not the geometry */
    st_be32(f + F_CREATOR_VERSION, 0x10000);
    memcpy(f + F_HOST, "Wi2k", 4);
    st_be64(f + F_ORIGINAL, size);
    st_be64(f + F_SIZE, size);
    put_geometry(f, size / 512);
    st_be32(f + F_TYPE, fixed ? TYPE_FIXED : TYPE_DYNAMIC);
    ssize_t n = getrandom(f + F_UUID, 16, 0);
    st_be32(f + F_SUM, sum_of(f, F_LEN, F_SUM));
    return n == 16 ? 0 : -EIO;
}

static int co_write_dynamic(struct blk_node *file, const uint8_t *footer, uint64_t size)
{
    uint64_t entries = (size + NEW_BLOCK - 1) / NEW_BLOCK, table = align_up(MAX(entries, (uint64_t)1) * 4, 512);
    uint8_t d[D_LEN] = "cxsparse";
    st_be64(d + D_DATA_OFF, UINT64_MAX);
    st_be64(d + D_TABLE, NEW_TABLE);
    st_be32(d + D_VERSION, 0x10000);
    st_be32(d + D_ENTRIES, (uint32_t)entries);
    st_be32(d + D_BLOCK, NEW_BLOCK);
    st_be32(d + D_SUM, sum_of(d, D_LEN, D_SUM));
    int r = co_fmt_fill(file, NEW_TABLE, table, 0xff);
    r = r ? r : co_fmt_pwrite(file, F_LEN, d, sizeof d);
    r = r ? r : co_fmt_pwrite(file, NEW_TABLE + table, footer, F_LEN);
    return r ? r : co_fmt_pwrite(file, 0, footer, F_LEN);
}

static bool co_create(struct blk_node *file, json_t *opts, struct err *e)
{
    struct create c = { 0 };
    uint8_t footer[F_LEN];
    prop_defaults(create_props, &c);
    if (!prop_set_all(create_props, &c, NULL, opts, "vpc images", e))
        return false;
    uint64_t size = align_up(c.size, 512);
    if (size > SIZE_MOST)
        return err_set(e, ERR_VALUE, "%llu bytes are more than a vpc image can have (%llu)", (unsigned long long)c.size, (unsigned long long)SIZE_MOST);
    bool fixed = c.subformat == 1;
    int r = build_footer(footer, size, fixed);
    r = r || !fixed ? r : co_node_resize(file, size + F_LEN);
    r = r ? r : fixed ? co_fmt_pwrite(file, size, footer, F_LEN) : co_write_dynamic(file, footer, size);
    r = r ? r : co_node_flush(file);
    return !r || err_os(e, -r, "cannot write '%s'", blk_node_filename(file));
}

static const struct prop props[] = { FMT_PROPS(struct vpc), PROP_END };
static const struct blk_driver vpc_driver = {
    .obj = { .name = "blockdev-vpc", .desc = "Virtual Hard Disk (VHD) images", .base = &blk_node_class, .size = sizeof(struct vpc),
             .props = props },
    FMT_DRIVER_WRITES, .co_open = co_open, .co_close = co_close, .co_create = co_create, .create_props = create_props,
};
OBJ_CLASS(&vpc_driver.obj);
