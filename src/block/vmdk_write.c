/* SPDX-License-Identifier: MIT */
/* Creating and writing of vmdk images of one sparse extent with the descriptor in it ("monolithicSparse"). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "block/vmdk.h"

static struct vmdk *of(struct blk_node *n) { return (struct vmdk *)n; }

bool vmdk_can_write(const struct vmdk *s) { return s->n == 1 && s->v->kind == VMDK_SPARSE && !s->v->name && !s->v->packed; }

/* Where the entry of the grain at @off is in the table below the directory at @dir; 0: there is no table. */
static int co_entry_at(struct vmdk_extent *x, struct fmt_window *w, uint64_t dir, uint64_t off, uint64_t *at)
{
    uint64_t grain = off / x->grain;
    uint8_t le[4];
    int r = co_fmt_entry(x->file, w, dir + grain / x->gt_entries * 4, le, sizeof le);
    *at = r || !ld_le32(le) ? 0 : (uint64_t)ld_le32(le) * 512 + grain % x->gt_entries * 4;
    return r;
}

/* Tables are all there from the beginning in what others make, too. */
int co_vmdk_place(struct blk_node *n, uint64_t off, uint64_t *place)
{
    struct vmdk_extent *x = of(n)->v;
    uint64_t at;
    int r = co_entry_at(x, &x->gd, x->gd_off, off, &at);
    *place = align_up(atomic_load(&x->file->size), x->grain);
    return r ? r : !at ? -ENOTSUP : *place / 512 > UINT32_MAX ? -EFBIG : 0;
}

/* The redundant table first: it is the other that is read. */
int co_vmdk_link(struct blk_node *n, uint64_t off, uint64_t place)
{
    struct vmdk_extent *x = of(n)->v;
    uint64_t at, again = 0;
    uint8_t le[4];
    st_le32(le, (uint32_t)(place / 512));
    int r = co_entry_at(x, &x->gd, x->gd_off, off, &at);
    if (!r && x->rgd_off)
        r = co_entry_at(x, &x->rgd, x->rgd_off, off, &again);
    if (!r && again)
        r = co_fmt_pwrite(x->file, again, le, sizeof le);
    return r ? r : co_fmt_entry_set(x->file, &x->gt, at, le, sizeof le);
}

static uint32_t new_cid(void)
{
    uint32_t v = 0;
    ssize_t n = getrandom(&v, sizeof v, 0);
    return n == sizeof v && v < UINT32_MAX - 1 ? v : 1;
}

/* The content is another than the one that children were made over: it gets another number. */
int co_vmdk_settle(struct blk_node *n)
{
    struct vmdk *s = of(n);
    char *text = s->fmt.changed && !s->cid_changed && s->desc_len ? calloc(1, s->desc_len + 1) : NULL, hex[16];
    if (!text)
        return 0;
    int r = co_fmt_pread(n->child.node, s->desc_off, text, s->desc_len);
    char *cid = r ? NULL : strstr(text, "\nCID=");
    size_t digits = cid ? strspn(cid + 5, "0123456789abcdefABCDEF") : 0;
    if (digits && digits <= 8) {                /* some writers leave zeros in front away; the text keeps its length */
        uint32_t v = new_cid() & (UINT32_MAX >> (32 - 4 * digits));
        v ^= v == s->cid;
        snprintf(hex, sizeof hex, "%0*x", (int)digits, v);
        r = co_fmt_pwrite(n->child.node, s->desc_off + (uint64_t)(cid + 5 - text), hex, digits);
        s->cid = r ? s->cid : v;
    }
    s->cid_changed = !r;
    free(text);
    return r;
}

/* ---- creation ---- */

enum { NEW_GRAIN = 128, NEW_GT_ENTRIES = 512, GT_SECTORS = NEW_GT_ENTRIES * 4 / 512, DESC_AT = 1, DESC_SECTORS = 20, RGD_AT = DESC_AT + DESC_SECTORS };
static const char *const subformats[] = { "monolithicSparse", NULL };
static const char *const adapters[] = { "ide", "buslogic", "lsilogic", "legacyESX", NULL };
struct create { uint64_t size; int subformat, adapter; };
const struct prop vmdk_create_props[] = {
    PROP_SIZE(struct create, size, "size", 0, 0, UINT64_C(2) << 40, "Size of the disk"),
    PROP_ENUM(struct create, subformat, "subformat", subformats, 0, "One sparse file"),
    PROP_ENUM(struct create, adapter, "adapter_type", adapters, 0, "Controller that a virtual machine is told to use"),
    PROP_END,
};

static char *descriptor(const struct create *c, uint64_t sectors, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    bool ide = !c->adapter;
    uint64_t cylinders = MIN(sectors / (ide ? 16 * 63 : 255 * 63), UINT64_C(65535));
    return xasprintf("# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n"
                     "# Extent description\nRW %llu SPARSE \"%s\"\n\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\n"
                     "ddb.geometry.cylinders = \"%llu\"\nddb.geometry.heads = \"%u\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"%s\"\n",
                     new_cid(), (unsigned long long)sectors, strpbrk(name, "\"\n\r") || strlen(name) > VMDK_MAX_NAME ? "disk.vmdk" : name,
                     (unsigned long long)cylinders, ide ? 16 : 255, adapters[c->adapter]);
}

/* A directory at sector @at, and its tables behind it, which are empty. */
static int co_write_tables(struct blk_node *file, uint64_t at, uint64_t tables, uint64_t dir_sectors)
{
    uint8_t *dir = calloc(MAX(dir_sectors, (uint64_t)1), 512);
    int r = dir ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < tables && dir; i++)
        st_le32(dir + i * 4, (uint32_t)(at + dir_sectors + i * GT_SECTORS));
    r = r ? r : co_fmt_pwrite(file, at * 512, dir, dir_sectors * 512);
    free(dir);
    return r ? r : co_fmt_fill(file, (at + dir_sectors) * 512, tables * GT_SECTORS * 512, 0);
}

static int co_write_empty(struct blk_node *file, const struct create *c, const char *text)
{
    uint64_t sectors = align_up(c->size, 512) / 512, per = NEW_GRAIN * NEW_GT_ENTRIES, tables = (sectors + per - 1) / per;
    uint64_t dir = MAX((tables * 4 + 511) / 512, (uint64_t)1), gd = RGD_AT + dir + tables * GT_SECTORS;
    uint64_t head = align_up(gd + dir + tables * GT_SECTORS, NEW_GRAIN);
    uint8_t h[VMDK_H_LEN] = "KDMV";
    st_le32(h + VMDK_H_VERSION, 1);
    st_le32(h + VMDK_H_FLAGS, VMDK_FLAG_LINES | VMDK_FLAG_REDUNDANT);
    st_le64(h + VMDK_H_CAPACITY, sectors);
    st_le64(h + VMDK_H_GRAIN, NEW_GRAIN);
    st_le64(h + VMDK_H_DESC_OFF, DESC_AT);
    st_le64(h + VMDK_H_DESC_LEN, DESC_SECTORS);
    st_le32(h + VMDK_H_GT_ENTRIES, NEW_GT_ENTRIES);
    st_le64(h + VMDK_H_RGD_OFF, RGD_AT);
    st_le64(h + VMDK_H_GD_OFF, gd);
    st_le64(h + VMDK_H_OVERHEAD, head);
    memcpy(h + VMDK_H_LINES, "\n \r\n", 4);         /* what a transfer as text would spoil */
    int r = co_write_tables(file, RGD_AT, tables, dir);
    r = r ? r : co_write_tables(file, gd, tables, dir);
    r = r ? r : co_node_resize(file, head * 512);
    r = r ? r : co_fmt_pwrite(file, DESC_AT * 512, text, strlen(text));
    r = r ? r : co_fmt_pwrite(file, 0, h, sizeof h);
    return r ? r : co_node_flush(file);
}

bool co_vmdk_create(struct blk_node *file, json_t *opts, struct err *e)
{
    struct create c = { 0 };
    prop_defaults(vmdk_create_props, &c);
    if (!prop_set_all(vmdk_create_props, &c, NULL, opts, "vmdk images", e))
        return false;
    char *text = descriptor(&c, align_up(c.size, 512) / 512, blk_node_filename(file));
    int r = co_write_empty(file, &c, text);
    free(text);
    return !r || err_os(e, -r, "cannot write '%s'", blk_node_filename(file));
}
