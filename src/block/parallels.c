/* SPDX-License-Identifier: MIT */
/* "parallels": expanding images of Parallels, read-only: a header, a table of blocks, the blocks. Everything is little endian. */
#include <errno.h>
#include <string.h>
#include "base/log.h"
#include "block/fmt.h"

enum { H_LEN = 64, H_VERSION = 16, H_TRACKS = 28, H_ENTRIES = 32, H_SECTORS = 36, H_IN_USE = 44, H_TABLE = 64 };
static const char magic_old[] = "WithoutFreeSpace", magic_ext[] = "WithouFreSpacExt";
#define IN_USE UINT32_C(0x746f6e59)

struct parallels { struct fmt_node fmt; uint32_t entries, multiplier; struct fmt_window map; };

static int co_lookup(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    struct parallels *s = (struct parallels *)n;
    uint64_t i = off / s->fmt.unit;
    uint8_t le[4] = { 0 };
    int r = i < s->entries ? co_fmt_entry(n->child.node, &s->map, H_TABLE + i * 4, le, 4) : 0;
    uint64_t sector = (uint64_t)ld_le32(le) * s->multiplier;
    *out = (struct fmt_run){ .kind = sector ? FMT_DATA : FMT_BELOW, .off = sector * 512 + off % s->fmt.unit, .file = n->child.node };
    return r;
}

static bool read_header(struct parallels *s, const uint8_t *h, uint64_t *size, struct err *e)
{
    bool ext = !memcmp(h, magic_ext, 16);
    uint32_t tracks = ld_le32(h + H_TRACKS);
    uint64_t sectors = ext ? ld_le64(h + H_SECTORS) : ld_le32(h + H_SECTORS);
    if (!ext && memcmp(h, magic_old, 16))
        return fmt_bad(&s->fmt, e, "its signature is another one");
    if (ld_le32(h + H_VERSION) != 2)
        return fmt_unsupported(&s->fmt, e, "is of version %u of the format; 2 is known here", ld_le32(h + H_VERSION));
    if (!tracks || tracks > 1 << 20)
        return fmt_bad(&s->fmt, e, "a block of %u sectors", tracks);
    if (sectors > INT64_MAX / 512)
        return fmt_bad(&s->fmt, e, "%llu sectors", (unsigned long long)sectors);
    s->fmt.unit = (uint64_t)tracks * 512;
    s->multiplier = ext ? tracks : 1;
    s->entries = ld_le32(h + H_ENTRIES);
    *size = sectors * 512;
    if (ld_le32(h + H_IN_USE) == IN_USE)
        log_warn("'%s' was not closed properly: what was written last may be missing", blk_node_filename(&s->fmt.node));
    return fmt_in_file(&s->fmt, "table of blocks", H_TABLE, (uint64_t)s->entries * 4, e);
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct parallels *s = (struct parallels *)n;
    uint8_t h[H_LEN];
    uint64_t size = 0;
    s->fmt.co_lookup = co_lookup;
    if (!co_fmt_open(&s->fmt, e) || !co_fmt_header(&s->fmt, 0, h, sizeof h, e) || !read_header(s, h, &size, e))
        return false;
    s->fmt.data_start = H_TABLE + (uint64_t)s->entries * 4;
    return fmt_ready(&s->fmt, size, e);
}

static const struct prop props[] = { FMT_PROPS(struct parallels), PROP_END };
static const struct blk_driver parallels_driver = {
    .obj = { .name = "blockdev-parallels", .desc = "Parallels' image format; read-only", .base = &blk_node_class,
             .size = sizeof(struct parallels), .props = props },
    FMT_DRIVER, .co_open = co_open, .co_close = co_fmt_close, .cluster_size = fmt_cluster_size,
};
OBJ_CLASS(&parallels_driver.obj);
