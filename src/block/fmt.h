/* SPDX-License-Identifier: MIT */
/*
 * Image formats of blocks and tables: each opens its header and tells where a guest block is; reading, mapping and checking are the
 * same for all. Tables stay in the file and are read through a small window, so that memory does not grow with what a header claims.
 * Those that say where a new block goes can be written, too (fmt_write.c). Home loop; coroutines.
 */
#ifndef BLOCK_FMT_H
#define BLOCK_FMT_H

#include "block/driver.h"

enum { FMT_WINDOW = 4096 };
/* A piece of a table as it is in the file. */
struct fmt_window { uint64_t off; uint32_t len, changes /* of the table: what was read meanwhile may be old */; uint8_t data[FMT_WINDOW]; };

enum fmt_kind { FMT_BELOW /* not in this image */, FMT_ZERO, FMT_DATA, FMT_PACKED /* compressed; one unit */ };
/* @len bytes of one kind from a guest offset on; FMT_DATA: at @off of @file, FMT_PACKED: the unit's data begin there. */
struct fmt_run {
    enum fmt_kind kind;
    uint64_t len, off;
    struct blk_node *file;
    uint64_t packed_len;
    bool flat;                      /* has its place, written or not: it may be a hole of the file */
};

struct fmt_node {
    struct blk_node node;
    json_t *file, *backing;
    uint64_t unit;                  /* bytes of a guest block; a run never crosses its end */
    uint64_t data_start;            /* no block is before this offset of ->file */
    /* What is at @off, within its block. */
    int (*co_lookup)(struct blk_node *, uint64_t off, struct fmt_run *out);
    /* Unpacks a block of @unit bytes. */
    int (*co_unpack)(struct blk_node *, const struct fmt_run *, uint8_t *out);
    /* Formats that can be written; NULL: the others. Where the block at guest offset @off goes, behind all there is; the table says so. */
    int (*co_place)(struct blk_node *, uint64_t off, uint64_t *place);
    int (*co_link)(struct blk_node *, uint64_t off, uint64_t place);
    int (*co_touch)(struct blk_node *, uint64_t off, uint64_t len);     /* before blocks that are there change; NULL: nothing is due */
    int (*co_settle)(struct blk_node *);    /* what is told about all blocks together is written; NULL: there is no such thing */
    struct co_mutex growing;        /* one new block at a time */
    bool ready;                     /* the header is known */
    bool changed;                   /* data was written since it was opened */
    uint8_t *unpacked;              /* the last one */
    uint64_t unpacked_off;          /* where it is in the file, 0: none */
    struct blk_node *unpacked_file;
};

#define FMT_PROPS(T) \
    PROP_JSON(T, fmt.file, "file", PF_REQUIRED, "Node below: its name, or its options (file.driver=..., file.filename=...)")
#define FMT_BACKING_PROP(T) \
    PROP_JSON(T, fmt.backing, "backing", 0, "Node of the backing file; else as the image says; null or an empty name: none")

/* Opens the node below; for reading, and refuses to be writable, where co_place is not set. The mirror is co_fmt_close(). */
bool co_fmt_open(struct fmt_node *s, struct err *e) MUST_CHECK;
/* Size and capabilities, once the header is known. @size is rounded up to whole sectors. */
bool fmt_ready(struct fmt_node *s, uint64_t size, struct err *e) MUST_CHECK;
void co_fmt_close(struct blk_node *n);

/* "'FILE' is not a valid FORMAT image: ..." */
bool fmt_bad(const struct fmt_node *s, struct err *e, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* "'FILE' ...", for what is valid, but not done here. */
bool fmt_unsupported(const struct fmt_node *s, struct err *e, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Bytes of a file; beyond its end there are zeroes. 0 or -errno. */
int co_fmt_pread(struct blk_node *file, uint64_t off, void *buf, uint64_t len);
/* The same as an error for people. */
bool co_fmt_header(struct fmt_node *s, uint64_t off, void *buf, uint64_t len, struct err *e) MUST_CHECK;
/* [off, off + len) is in the file. */
bool fmt_in_file(const struct fmt_node *s, const char *what, uint64_t off, uint64_t len, struct err *e) MUST_CHECK;
/* An entry of @n bytes (at most 8) of a table, as in the file. */
int co_fmt_entry(struct blk_node *file, struct fmt_window *w, uint64_t off, void *out, unsigned n);
/* Reads @in_len bytes at @off and inflates @out_len bytes; @window as of inflateInit2(). */
int co_fmt_inflate(struct blk_node *file, uint64_t off, uint64_t in_len, int window, uint8_t *out, uint64_t out_len);

/* What is at @off, as far as it is alike and in one piece, at most @len. */
int co_fmt_run(struct fmt_node *s, uint64_t off, uint64_t len, struct fmt_run *out);

/* ---- writing ---- */
bool co_fmt_open_writable(struct fmt_node *s, struct err *e) MUST_CHECK;
/* Bytes of a file, which grows. */
int co_fmt_pwrite(struct blk_node *file, uint64_t off, const void *buf, uint64_t len);
int co_fmt_fill(struct blk_node *file, uint64_t off, uint64_t len, int byte);
/* An entry of a table, which the window does not show as it was any more. */
int co_fmt_entry_set(struct blk_node *file, struct fmt_window *w, uint64_t off, const void *v, unsigned size);

/* ---- of struct blk_driver ---- */
int co_fmt_preadv(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_fmt_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out);
int co_fmt_pwritev(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_fmt_check(struct blk_node *n, struct blk_check *res, unsigned fix);
int co_fmt_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags);
int co_fmt_flush(struct blk_node *n);
bool co_fmt_set_writable(struct blk_node *n, bool writable, struct err *e);
uint32_t fmt_cluster_size(const struct blk_node *n);
bool fmt_set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e);
#define FMT_DRIVER .flags = BLK_FORMAT, .co_preadv = co_fmt_preadv, .co_pwritev = co_fmt_pwritev, .co_map = co_fmt_map, \
    .co_check = co_fmt_check, .set_perm = fmt_set_perm
#define FMT_DRIVER_WRITES FMT_DRIVER, .co_zero = co_fmt_zero, .co_flush = co_fmt_flush, .co_set_writable = co_fmt_set_writable

#endif
