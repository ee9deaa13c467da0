/* SPDX-License-Identifier: MIT */
/* Between the files of the vmdk driver (VMware's "Virtual Disk Format 5.0"). */
#ifndef BLOCK_VMDK_H
#define BLOCK_VMDK_H

#include "block/fmt.h"

enum { VMDK_MAX_EXTENTS = 1024, VMDK_MAX_DESC = 20 * 512 * 8, VMDK_MAX_NAME = 255 };
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
    struct fmt_window gd, gt;
};

struct vmdk {
    struct fmt_node fmt;
    struct vmdk_extent *v;
    unsigned n;
    char create_type[64];
    uint32_t cid, parent_cid;
};

/* Takes the lines of a descriptor: extents (unless it is @embedded in the only one), type, parent. */
bool vmdk_parse(struct vmdk *s, char *text, bool embedded, struct err *e) MUST_CHECK;
/* The header of a sparse extent whose file is there. *@desc_off, *@desc_len: its descriptor, in bytes. */
bool co_vmdk_sparse(struct vmdk *s, struct vmdk_extent *x, uint64_t *desc_off, uint64_t *desc_len, struct err *e) MUST_CHECK;
/* One more extent, at the end; NULL with @e filled. */
struct vmdk_extent *vmdk_extent_add(struct vmdk *s, enum vmdk_kind kind, uint64_t sectors, struct err *e) MUST_CHECK;

#endif
