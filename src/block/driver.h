/* SPDX-License-Identifier: MIT */
/*
 * The block graph: nodes, their drivers, who uses them and how. A driver is straight-line coroutine code. The graph changes
 * on the main loop only; requests run on the caller's loop where every driver below is BLK_ANY_LOOP, else they visit the
 * node's home loop.
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include "block/blk.h"

enum { BLK_ANY_LOOP = 1, BLK_FORMAT = 2, BLK_FILTER = 4 };
enum { BLK_PERM_ALL = BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE };

/* One user of a node: a front handle or a parent node. Neither may do what another does not share. */
struct blk_use {
    struct list link;               /* in node->uses */
    struct blk_node *node;
    unsigned perm, shared;
    char *who;                      /* for messages: "device 'hd0'" */
    struct blk *blk;                /* the handle, NULL for a parent node */
};

/* What -drive says about a node beyond -blockdev. */
struct blk_drive {
    char *iface;                    /* if= */
    unsigned unit;
    bool cdrom, writethrough;       /* media=cdrom; devices begin without a write cache */
    int rerror, werror;             /* enum blk_on_error, for devices that leave theirs on auto */
};

struct blk_node {
    struct obj obj;
    /* options of every node */
    bool read_only, auto_read_only, direct, no_flush;
    int discard;                    /* enum blk_discard */
    int detect_zeroes;              /* enum blk_detect */
    /* state */
    bool is_open, inline_child;     /* inline_child: made by its parent's options, goes with it */
    struct loop *home;
    _Atomic uint64_t size;          /* bytes */
    struct blk_caps caps;           /* filled by co_open */
    struct list uses;
    unsigned perm, shared;          /* of all uses together */
    struct blk_drive *drive;        /* NULL: not made by -drive. Owned */
    struct blk_use child;           /* the use of ->file, where the driver stacks on another node */
};
enum blk_discard { BLK_DISCARD_IGNORE, BLK_DISCARD_UNMAP };
enum blk_detect { BLK_DETECT_OFF, BLK_DETECT_ON, BLK_DETECT_UNMAP };

struct blk_driver {
    struct obj_class obj;
    unsigned flags;
    /* Opens what the options name; fills size and caps. The mirror, also after a failed open, is co_close. */
    bool (*co_open)(struct blk_node *, struct err *);
    void (*co_close)(struct blk_node *);
    /* Requests: within the size (checked before), 0 or -errno, never short. */
    int (*co_preadv)(struct blk_node *, uint64_t off, uint64_t len, const struct iovec *, unsigned n, unsigned flags);
    int (*co_pwritev)(struct blk_node *, uint64_t off, uint64_t len, const struct iovec *, unsigned n, unsigned flags);
    int (*co_zero)(struct blk_node *, uint64_t off, uint64_t len, unsigned flags);     /* NULL: by writing zeroes */
    int (*co_discard)(struct blk_node *, uint64_t off, uint64_t len);                   /* NULL: nothing to gain */
    int (*co_flush)(struct blk_node *);
    int (*co_resize)(struct blk_node *, uint64_t size);
    int (*co_map)(struct blk_node *, uint64_t off, uint64_t len, struct blk_extent *);
    /* Permissions of all uses changed to @perm/@shared: locks, permissions below. */
    bool (*set_perm)(struct blk_node *, unsigned perm, unsigned shared, struct err *);
    const char *(*filename)(const struct blk_node *);   /* NULL, or what a person calls it */
};
#define BLK_DRIVER(n) ((const struct blk_driver *)((const struct blk_node *)(n))->obj.cls)

/* ---- graph (node.c): main loop ---- */
/* From -blockdev options ("driver", "node-name", ...). Takes its own copy. Borrowed pointer. */
struct blk_node *blk_node_create(json_t *opts, struct err *e) MUST_CHECK;
/* The node that @v names: a string is a reference, an object makes an inline child of @parent. Its use is parent->child. */
bool blk_child_open(struct blk_node *parent, json_t *v, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
void blk_child_close(struct blk_node *parent);
/* Fills in size and caps of a node that changes nothing but offset and length. */
void blk_caps_inherit(struct blk_node *n, const struct blk_node *child);
bool blk_use_add(struct blk_use *u, struct blk_node *n, unsigned perm, unsigned shared, const char *who, struct err *e) MUST_CHECK;
bool blk_use_change(struct blk_use *u, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
void blk_use_del(struct blk_use *u);
/* set_perm of drivers that hand everything down. */
bool blk_pass_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e);
/* A throw-away layer over @base that keeps what is written (-snapshot). @id as of a -drive, or NULL. Borrowed. */
struct blk_node *blk_overlay_create(struct blk_node *base, const char *id, struct err *e) MUST_CHECK;
bool blk_node_delete(struct blk_node *n, struct err *e) MUST_CHECK;
const char *blk_node_filename(const struct blk_node *n);        /* "" where there is none */
/* Runs fn(arg) as a coroutine of the main loop and waits, from a coroutine or from the main thread. */
void blk_run(void (*fn)(void *), void *arg);

/* ---- requests to nodes (node_io.c): coroutines ---- */
int co_node_preadv(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_node_pwritev(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_node_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags);
int co_node_discard(struct blk_node *n, uint64_t off, uint64_t len);
int co_node_flush(struct blk_node *n);
int co_node_resize(struct blk_node *n, uint64_t size);
/* Always answers; without a driver's word everything is data. */
int co_node_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out);
/* Part [off, off + len) of @iov into @out (room for @n); returns how many. */
unsigned blk_iov_slice(const struct iovec *iov, unsigned n, uint64_t off, uint64_t len, struct iovec *out);
uint64_t blk_iov_len(const struct iovec *iov, unsigned n);

#endif
