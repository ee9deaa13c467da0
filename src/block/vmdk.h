/* SPDX-License-Identifier: MIT */
/* Between the files of the vmdk driver (VMware's "Virtual Disk Format 5.0"). */
#ifndef BLOCK_VMDK_H
#define BLOCK_VMDK_H

#include "block/fmt.h"

enum { VMDK_MAX_EXTENTS = 1024, VMDK_MAX_DESC = 20 * 512 * 8, VMDK_MAX_NAME = 255 };
/* Sparse extent header. */
enum { VMDK_H_LEN = 512, VMDK_H_VERSION = 4, VMDK_H_FLAGS = 8, VMDK_H_CAPACITY = 12, VMDK_H_GRAIN = 20, VMDK_H_DESC_OFF = 28, VMDK_H_DESC_LEN = 36,
       VMDK_H_GT_ENTRIES = 44, VMDK_H_RGD_OFF = 48, VMDK_H_GD_OFF = 56, VMDK_H_OVERHEAD = 64, VMDK_H_LINES = 73, VMDK_H_COMPRESSION = 77 };
enum { VMDK_FLAG_LINES = 1 << 0, VMDK_FLAG_REDUNDANT = 1 << 1, VMDK_FLAG_ZEROED = 1 << 2, VMDK_FLAG_PACKED = 1 << 16, VMDK_FLAG_MARKERS = 1 << 17 };
enum vmdk_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };

/* A part of the disk. */
struct vmdk_extent {
    enum vmdk_kind kind;
    uint64_t start, sectors;        /* of the disk */
    char *name;                     /* of its file, NULL: the image itself */
    uint64_t flat_off;              /* bytes in the file */
    struct blk_use use;             /* of the file, where it is another one */
    struct blk_node *file;
    /* sparse ones */
    uint64_t grain, gd_off, gd_entries;     /* bytes; bytes; entries */
    uint32_t gt_entries;
    bool zeroed_grains, packed, markers;
    uint64_t rgd_off;               /* the redundant directory, 0: none */
    struct fmt_window gd, gt, rgd;
};

struct vmdk {
    struct fmt_node fmt;
    struct vmdk_extent *v;
    unsigned n;
    char create_type[64];
    uint32_t cid, parent_cid;
    uint64_t desc_off, desc_len;    /* the descriptor inside a sparse extent, bytes */
    bool cid_changed;               /* since it was opened */
};

/* Takes the lines of a descriptor: extents (unless it is @embedded in the only one), type, parent. */
bool vmdk_parse(struct vmdk *s, char *text, bool embedded, struct err *e) MUST_CHECK;
/* One more extent, at the end; NULL with @e filled. */
struct vmdk_extent *vmdk_extent_add(struct vmdk *s, enum vmdk_kind kind, uint64_t sectors, struct err *e) MUST_CHECK;

/* ---- vmdk_write.c ---- */
bool vmdk_can_write(const struct vmdk *s);
int co_vmdk_place(struct blk_node *n, uint64_t off, uint64_t *place);
int co_vmdk_link(struct blk_node *n, uint64_t off, uint64_t place);
int co_vmdk_settle(struct blk_node *n);
bool co_vmdk_create(struct blk_node *file, json_t *opts, struct err *e);
extern const struct prop vmdk_create_props[];

#endif
