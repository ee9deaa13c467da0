/* SPDX-License-Identifier: MIT */
/*
 * "vpc": Virtual Hard Disk images (Microsoft's "Virtual Hard Disk Image Format Specification" 1.0), read-only; fixed and dynamic
 * ones. Everything is big endian.
 */
#include <errno.h>
#include <string.h>
#include "block/fmt.h"

enum { F_LEN = 512, F_DATA_OFF = 16, F_CREATOR = 28, F_SIZE = 48, F_CYLS = 56, F_HEADS = 58, F_SECS = 59, F_TYPE = 60, F_SUM = 64 };
enum { D_LEN = 1024, D_TABLE = 16, D_ENTRIES = 28, D_BLOCK = 32, D_SUM = 36 };
enum { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFFERENCING = 4 };
#define VPC_UNUSED UINT32_MAX
#define MAX_GEOMETRY (UINT64_C(65535) * 16 * 255)

struct vpc { struct fmt_node fmt; bool dynamic; uint64_t table_off, bitmap; uint32_t entries; struct fmt_window table; };

static int co_lookup_fixed(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    *out = (struct fmt_run){ .kind = FMT_DATA, .off = off, .file = n->child.node };
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

static bool sum_ok(const uint8_t *p, unsigned len, unsigned at)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < len; i++)
        sum += i >= at && i < at + 4 ? 0 : p[i];
    return ~sum == ld_be32(p + at);
}

/* Virtual PC, and QEMU in its manner, round the disk to whole cylinders and mean that; others mean the size field. */
static uint64_t disk_size(const uint8_t *f)
{
    uint64_t chs = (uint64_t)ld_be16(f + F_CYLS) * f[F_HEADS] * f[F_SECS];
    bool by_chs = !memcmp(f + F_CREATOR, "vpc ", 4) || !memcmp(f + F_CREATOR, "qemu", 4);
    return by_chs && chs && chs < MAX_GEOMETRY ? chs * 512 : ld_be64(f + F_SIZE);
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
    s->fmt.data_start = 512;
    return fmt_in_file(&s->fmt, "table of blocks", s->table_off, (uint64_t)s->entries * 4, e);
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

static bool co_open(struct blk_node *n, struct err *e)
{
    struct vpc *s = (struct vpc *)n;
    uint8_t f[F_LEN];
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

static const struct prop props[] = { FMT_PROPS(struct vpc), PROP_END };
static const struct blk_driver vpc_driver = {
    .obj = { .name = "blockdev-vpc", .desc = "Virtual Hard Disk (VHD) images; read-only", .base = &blk_node_class, .size = sizeof(struct vpc),
             .props = props },
    FMT_DRIVER, .co_open = co_open, .co_close = co_fmt_close,
};
OBJ_CLASS(&vpc_driver.obj);
