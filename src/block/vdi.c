/* SPDX-License-Identifier: MIT */
/* "vdi": VirtualBox' image format, read-only: a header, a table of blocks, the blocks. Everything is little endian. */
#include <errno.h>
#include "block/fmt.h"

enum { H_LEN = 512, H_SIGNATURE = 0x40, H_VERSION = 0x44, H_TYPE = 0x4c, H_MAP_OFF = 0x154, H_DATA_OFF = 0x158, H_SECTOR = 0x168, H_SIZE = 0x170,
       H_BLOCK = 0x178, H_EXTRA = 0x17c, H_BLOCKS = 0x180 };
enum { TYPE_DYNAMIC = 1, TYPE_FIXED = 2 };
#define VDI_SIGNATURE UINT32_C(0xbeda107f)
#define VDI_VERSION UINT32_C(0x00010001)
#define VDI_UNALLOCATED UINT32_MAX
#define VDI_ZERO (UINT32_MAX - 1)       /* freed: reads as zeroes */

struct vdi { struct fmt_node fmt; uint32_t map_off, data_off, blocks, extra; struct fmt_window map; };

static int co_lookup(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    struct vdi *s = (struct vdi *)n;
    uint64_t i = off / s->fmt.unit;
    uint8_t le[4];
    int r = i < s->blocks ? co_fmt_entry(n->child.node, &s->map, s->map_off + i * 4, le, 4) : -EIO;
    uint32_t v = r ? 0 : ld_le32(le);
    *out = (struct fmt_run){ .kind = v == VDI_UNALLOCATED ? FMT_BELOW : v == VDI_ZERO ? FMT_ZERO : FMT_DATA, .file = n->child.node,
                             .off = s->data_off + v * (s->fmt.unit + s->extra) + s->extra + off % s->fmt.unit };
    return r;
}

static bool read_header(struct vdi *s, const uint8_t *h, uint64_t *size, struct err *e)
{
    uint32_t type = ld_le32(h + H_TYPE), block = ld_le32(h + H_BLOCK);
    *size = ld_le64(h + H_SIZE);
    s->map_off = ld_le32(h + H_MAP_OFF);
    s->data_off = ld_le32(h + H_DATA_OFF);
    s->blocks = ld_le32(h + H_BLOCKS);
    s->extra = ld_le32(h + H_EXTRA);
    if (ld_le32(h + H_SIGNATURE) != VDI_SIGNATURE)
        return fmt_bad(&s->fmt, e, "its signature is another one");
    if (ld_le32(h + H_VERSION) != VDI_VERSION)
        return fmt_unsupported(&s->fmt, e, "is of version %u.%u of the format; 1.1 is known here", ld_le32(h + H_VERSION) >> 16, ld_le32(h + H_VERSION) & 0xffff);
    if (type != TYPE_DYNAMIC && type != TYPE_FIXED)
        return fmt_unsupported(&s->fmt, e, "is a difference to another image (type %u), which is not read here", type);
    if (!is_pow2(block) || block < 4096 || block > 256 * MiB || s->extra > MiB || s->extra % 512)
        return fmt_bad(&s->fmt, e, "a block of %u and %u bytes", block, s->extra);
    if (ld_le32(h + H_SECTOR) != 512 || s->map_off % 512 || s->data_off % 512)
        return fmt_bad(&s->fmt, e, "its tables are not at whole sectors of 512 bytes");
    s->fmt.unit = block;
    if (*size > (uint64_t)s->blocks * block)
        return fmt_bad(&s->fmt, e, "%u blocks are too few for %llu bytes", s->blocks, (unsigned long long)*size);
    return fmt_in_file(&s->fmt, "table of blocks", s->map_off, (uint64_t)s->blocks * 4, e);
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct vdi *s = (struct vdi *)n;
    uint8_t h[H_LEN];
    uint64_t size = 0;
    s->fmt.co_lookup = co_lookup;
    if (!co_fmt_open(&s->fmt, e) || !co_fmt_header(&s->fmt, 0, h, sizeof h, e) || !read_header(s, h, &size, e))
        return false;
    s->fmt.data_start = s->data_off;
    return fmt_ready(&s->fmt, size, e);
}

static const struct prop props[] = { FMT_PROPS(struct vdi), PROP_END };
static const struct blk_driver vdi_driver = {
    .obj = { .name = "blockdev-vdi", .desc = "VirtualBox' image format; read-only", .base = &blk_node_class, .size = sizeof(struct vdi),
             .props = props },
    FMT_DRIVER, .co_open = co_open, .co_close = co_fmt_close, .cluster_size = fmt_cluster_size,
};
OBJ_CLASS(&vdi_driver.obj);
