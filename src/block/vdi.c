/* SPDX-License-Identifier: MIT */
/* "vdi": VirtualBox' image format: a header, a table of blocks, the blocks. Everything is little endian. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "block/fmt.h"

enum { H_LEN = 512, H_SIGNATURE = 0x40, H_VERSION = 0x44, H_TYPE = 0x4c, H_MAP_OFF = 0x154, H_DATA_OFF = 0x158, H_SECTOR = 0x168, H_SIZE = 0x170,
       H_BLOCK = 0x178, H_EXTRA = 0x17c, H_BLOCKS = 0x180, H_USED = 0x184, H_UUID = 0x188, H_UUID_LAST = 0x198, H_HEADER_SIZE = 0x48,
       HEADER_SIZE = 0x190 };
enum { TYPE_DYNAMIC = 1, TYPE_FIXED = 2 };
#define VDI_SIGNATURE UINT32_C(0xbeda107f)
#define VDI_VERSION UINT32_C(0x00010001)
#define VDI_UNALLOCATED UINT32_MAX
#define VDI_ZERO (UINT32_MAX - 1)       /* freed: reads as zeroes */

struct vdi { struct fmt_node fmt; uint32_t map_off, data_off, blocks, extra, used, used_told; bool fixed; struct fmt_window map; };

static int co_lookup(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    struct vdi *s = (struct vdi *)n;
    uint64_t i = off / s->fmt.unit;
    uint8_t le[4];
    int r = i < s->blocks ? co_fmt_entry(n->child.node, &s->map, s->map_off + i * 4, le, 4) : -EIO;
    uint32_t v = r ? 0 : ld_le32(le);
    *out = (struct fmt_run){ .kind = v == VDI_UNALLOCATED ? FMT_BELOW : v == VDI_ZERO ? FMT_ZERO : FMT_DATA, .file = n->child.node,
                             .off = s->data_off + v * (s->fmt.unit + s->extra) + s->extra + off % s->fmt.unit, .flat = s->fixed };
    return r;
}

static uint64_t stride(const struct vdi *s) { return s->fmt.unit + s->extra; }

static int co_place(struct blk_node *n, uint64_t off, uint64_t *place)
{
    struct vdi *s = (struct vdi *)n;
    uint64_t size = atomic_load(&n->child.node->size), i = size > s->data_off ? (size - s->data_off + stride(s) - 1) / stride(s) : 0;
    *place = s->data_off + i * stride(s) + s->extra;
    return i < VDI_ZERO ? 0 : -EFBIG;
}

static int co_link(struct blk_node *n, uint64_t off, uint64_t place)
{
    struct vdi *s = (struct vdi *)n;
    uint8_t le[4];
    st_le32(le, (uint32_t)((place - s->extra - s->data_off) / stride(s)));
    int r = co_fmt_entry_set(n->child.node, &s->map, s->map_off + off / s->fmt.unit * 4, le, sizeof le);
    s->used += !r;
    return r;
}

static int co_settle(struct blk_node *n)
{
    struct vdi *s = (struct vdi *)n;
    uint8_t le[4];
    uint32_t used = s->used;
    st_le32(le, used);
    int r = used == s->used_told ? 0 : co_fmt_pwrite(n->child.node, H_USED, le, sizeof le);
    s->used_told = r ? s->used_told : used;
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
    s->used = s->used_told = ld_le32(h + H_USED);
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
    s->fixed = type == TYPE_FIXED;
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
    s->fmt.co_place = co_place;
    s->fmt.co_link = co_link;
    s->fmt.co_settle = co_settle;
    if (!co_fmt_open(&s->fmt, e) || !co_fmt_header(&s->fmt, 0, h, sizeof h, e) || !read_header(s, h, &size, e))
        return false;
    s->fmt.data_start = s->data_off;
    if (!n->read_only && s->data_off < s->map_off + (uint64_t)s->blocks * 4)
        return fmt_bad(&s->fmt, e, "its blocks begin before the end of their table");
    return fmt_ready(&s->fmt, size, e);
}

/* ---- creation ---- */

enum { NEW_MAP = 512, NEW_BLOCK = 1 << 20, MOST_BLOCKS = 0x1fffffff };
struct create { uint64_t size; bool fixed; };
static const struct prop create_props[] = {
    PROP_SIZE(struct create, size, "size", 0, 0, INT64_MAX - 4096, "Size of the disk"),
    PROP_BOOL(struct create, fixed, "static", false, "All blocks have their place from the beginning"),
    PROP_END,
};

static int co_new_uuid(uint8_t *p)
{
    ssize_t n = getrandom(p, 16, 0);
    p[7] = (uint8_t)((p[7] & 0x0f) | 0x40);         /* version 4, its first three fields little endian */
    p[8] = (uint8_t)((p[8] & 0x3f) | 0x80);
    return n == 16 ? 0 : -EIO;
}

static int co_write_map(struct blk_node *file, const struct create *c, uint64_t blocks)
{
    uint64_t len = align_up(blocks * 4, 512);
    int r = co_fmt_fill(file, NEW_MAP, len, 0xff);
    uint8_t *le = c->fixed ? malloc(len) : NULL;
    for (uint64_t i = 0; i < blocks && le; i++)
        st_le32(le + i * 4, (uint32_t)i);
    r = r || !c->fixed ? r : le ? co_fmt_pwrite(file, NEW_MAP, le, blocks * 4) : -ENOMEM;
    free(le);
    return r;
}

static int co_write_empty(struct blk_node *file, const struct create *c)
{
    uint64_t size = align_up(c->size, 512), blocks = (size + NEW_BLOCK - 1) / NEW_BLOCK, data = align_up(NEW_MAP + blocks * 4, NEW_BLOCK);
    uint8_t h[H_LEN] = "<<< backplane Virtual Disk Image >>>\n";
    st_le32(h + H_SIGNATURE, VDI_SIGNATURE);
    st_le32(h + H_VERSION, VDI_VERSION);
    st_le32(h + H_HEADER_SIZE, HEADER_SIZE);
    st_le32(h + H_TYPE, c->fixed ? TYPE_FIXED : TYPE_DYNAMIC);
    st_le32(h + H_MAP_OFF, NEW_MAP);
    st_le32(h + H_DATA_OFF, (uint32_t)data);
    st_le32(h + H_SECTOR, 512);
    st_le64(h + H_SIZE, size);
    st_le32(h + H_BLOCK, NEW_BLOCK);
    st_le32(h + H_BLOCKS, (uint32_t)blocks);
    st_le32(h + H_USED, c->fixed ? (uint32_t)blocks : 0);
    int r = co_new_uuid(h + H_UUID);
    r = r ? r : co_new_uuid(h + H_UUID_LAST);
    r = r ? r : co_write_map(file, c, blocks);
    r = r ? r : co_node_resize(file, data + (c->fixed ? blocks * NEW_BLOCK : 0));
    r = r ? r : co_fmt_pwrite(file, 0, h, sizeof h);
    return r ? r : co_node_flush(file);
}

static bool co_create(struct blk_node *file, json_t *opts, struct err *e)
{
    struct create c = { 0 };
    prop_defaults(create_props, &c);
    if (!prop_set_all(create_props, &c, NULL, opts, "vdi images", e))
        return false;
    if (c.size > (uint64_t)MOST_BLOCKS * NEW_BLOCK)
        return err_set(e, ERR_VALUE, "%llu bytes are more than a vdi image can have (%llu)", (unsigned long long)c.size,
                       (unsigned long long)MOST_BLOCKS * NEW_BLOCK);
    int r = co_write_empty(file, &c);
    return !r || err_os(e, -r, "cannot write '%s'", blk_node_filename(file));
}

static const struct prop props[] = { FMT_PROPS(struct vdi), PROP_END };
static const struct blk_driver vdi_driver = {
    .obj = { .name = "blockdev-vdi", .desc = "VirtualBox' image format", .base = &blk_node_class, .size = sizeof(struct vdi),
             .props = props },
    FMT_DRIVER_WRITES, .co_open = co_open, .co_close = co_fmt_close, .cluster_size = fmt_cluster_size, .co_create = co_create,
    .create_props = create_props,
};
OBJ_CLASS(&vdi_driver.obj);
