/* SPDX-License-Identifier: MIT */
/*
 * The block graph: nodes, their drivers, who uses them and how. A driver is straight-line coroutine code. The graph changes
 * on the main loop only; requests run on the caller's loop where every driver below is BLK_ANY_LOOP, else they visit the
 * node's home loop.
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include "block/blk.h"

enum { BLK_ANY_LOOP = 1, BLK_FORMAT = 2, BLK_FILTER = 4, BLK_NEW_IS_RUBBISH = 8 /* a new image does not read as zeroes */,
       BLK_MAKES = 16 /* co_open makes the file where ->make says so */ };
enum blk_make { BLK_MAKE_NOT, BLK_MAKE_NEW /* there must be none */, BLK_MAKE_ANY };
enum { BLK_PERM_ALL = BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE };

/* One user of a node: a front handle or a parent node. Neither may do what another does not share. */
struct blk_use {
    struct list link;               /* in node->uses */
    struct blk_node *node;
    unsigned perm, shared;
    char *who;                      /* for messages: "device 'hd0'" */
    struct blk *blk;                /* the handle, NULL for a parent node */
    struct blk_node *parent;        /* the node whose child it is, else NULL */
};

/* A change to a node's content, as its watchers are told of it. */
struct blk_change {
    struct list link;               /* in node->changes */
    uint64_t off, len;
    const struct iovec *iov;        /* what is written; NULL: zeroes, or a discard */
    unsigned niov;
    bool discard;
    bool stable;                    /* @iov is a copy: a guest's memory may change while it is written */
    struct co_queue waiting;        /* for its end */
};
/*
 * Who wants to know of changes to a node: bitmaps, jobs (node_watch.c). While there is a watcher, changes run on the node's home
 * loop, and so do these.
 */
struct blk_watch {
    struct list link;
    bool stable;                    /* it hands on what is written, which must be what the node got */
    /* Before the change; an error fails it. May be NULL. */
    int (*co_before)(struct blk_watch *, const struct blk_change *);
    /* After it, also one that failed (it may have been done in part): @r is what came of it. The answer is the request's. May be NULL. */
    int (*co_after)(struct blk_watch *, const struct blk_change *, int r);
    /* The node has another size. May be NULL. */
    void (*resized)(struct blk_watch *, uint64_t size);
};

/* What -drive says about a node beyond -blockdev. */
struct blk_drive {
    char *iface;                    /* if= */
    bool by_default;                /* which was not given: the drive waits for a device where the machine has no place for its own */
    char *device;                   /* its name, where that is not the node's any more; or NULL */
    unsigned unit;
    bool cdrom, writethrough;       /* media=cdrom; devices begin without a write cache */
    struct obj *throttle_group;     /* a reference, or NULL */
    int rerror, werror;             /* enum blk_on_error, for devices that leave theirs on auto */
};

struct blk_node {
    struct obj obj;
    /* options of every node */
    bool read_only, auto_read_only, force_share, direct, no_flush;
    int discard;                    /* enum blk_discard */
    int detect_zeroes;              /* enum blk_detect */
    /* state */
    struct list in_all;             /* of blk_nodes */
    struct blk_node *part;          /* of the graph, while turn.c looks */
    enum blk_make make;             /* of its file, when it is opened (BLK_MAKES) */
    bool made;                      /* that was not there before */
    bool is_open, inline_child;     /* inline_child: made by its parent's options, goes with it */
    struct blk_node *opener;        /* that parent, until it is open */
    struct loop *home;
    _Atomic uint64_t size;          /* bytes */
    _Atomic uint64_t written_to;    /* the end of the furthest write since it was opened */
    struct blk_caps caps;           /* filled by co_open */
    struct list uses;
    unsigned perm, shared;          /* of all uses together */
    struct blk_drive *drive;        /* NULL: not made by -drive. Owned */
    struct blk_use child;           /* the use of ->file, where the driver stacks on another node */
    struct blk_use backing;         /* what is not in this layer is read from there */
    struct blk_use data;            /* guest data apart from ->file */
    char *backing_name, *backing_fmt;   /* as the image names them, or NULL. The driver's */
    struct job *job;                /* that works on it: nothing else may change the graph here */
    atomic_bool watched;            /* ->watches holds any */
    struct list watches;            /* struct blk_watch, in the order of their beginning */
    struct list changes;            /* in flight, while it is watched */
    struct list locks;              /* struct blk_range: changes there wait */
    struct list bitmaps;            /* struct blk_bitmap */
    uint64_t bitmap_bytes;          /* of memory that their bits take */
};

/* The name that -drive gave, which stays when a snapshot puts another node on top. @n has a drive. */
static inline char *blk_drive_name(const struct blk_node *n) { return n->drive->device ? n->drive->device : n->obj.id; }

/* What drivers with zones do, on the home loop. Coroutines; 0 or -errno, as co_blk_zone_*(). */
struct blk_zone_ops {
    int (*co_report)(struct blk_node *, uint64_t off, struct blk_zone *out, unsigned *n);
    int (*co_op)(struct blk_node *, enum zone_op op, uint64_t off);
    int (*co_append)(struct blk_node *, uint64_t *off, uint64_t len, const struct iovec *, unsigned n, unsigned flags);
};

/* What a check found, and repaired. */
struct blk_check {
    uint64_t corruptions, leaks, errors, corruptions_fixed, leaks_fixed;
    uint64_t total, allocated, compressed, fragmented;      /* clusters */
    uint64_t end;                   /* offset behind the last cluster in use */
    void (*say)(void *arg, const char *line);               /* one line for each finding; may be NULL */
    void *arg;
};
enum { BLK_FIX_LEAKS = 1, BLK_FIX_ERRORS = 2 };

/* What an image to be made would need, in bytes. */
struct blk_measure {
    uint64_t full;                  /* with all of it allocated */
    uint64_t overhead;              /* of those, what is no data */
    uint64_t unit;                  /* of allocation */
    bool whole;                     /* all of it is allocated from the beginning */
};

struct blk_snap { char *id, *name; uint64_t vm_size, disk_size, sec, nsec, vm_clock; };
void blk_snaps_free(struct blk_snap *v, unsigned n);
/* Snapshots inside an image. Coroutines; 0 or -errno. */
struct blk_snap_ops {
    /* A new array of @n; the caller frees it by blk_snaps_free(). */
    int (*list)(struct blk_node *, struct blk_snap **, unsigned *n);
    int (*create)(struct blk_node *, const struct blk_snap *);
    int (*apply)(struct blk_node *, const char *id_or_name);
    int (*del)(struct blk_node *, const char *id_or_name);
    /* A node that is only read shows the snapshot from now on, in its size. */
    int (*show)(struct blk_node *, const char *id_or_name);
};

/* What an image is about to do with the file below it, for tests that want errors there (blkdebug). */
enum blk_event { BLK_EV_NONE, BLK_EV_READ_AIO, BLK_EV_WRITE_AIO, BLK_EV_FLUSH_TO_OS, BLK_EV_FLUSH_TO_DISK, BLK_EV_READ_BACKING_AIO, BLK_EV_READ_COMPRESSED,
    BLK_EV_L1_UPDATE, BLK_EV_L1_GROW_WRITE_TABLE, BLK_EV_L2_LOAD, BLK_EV_L2_UPDATE, BLK_EV_L2_ALLOC_WRITE, BLK_EV_REFBLOCK_LOAD,
    BLK_EV_REFBLOCK_UPDATE_PART, BLK_EV_REFBLOCK_ALLOC_HOOKUP, BLK_EV_REFBLOCK_ALLOC_WRITE_TABLE, BLK_EV_CLUSTER_ALLOC, BLK_EV_CLUSTER_ALLOC_BYTES,
    BLK_EV_L1_GROW_ALLOC_TABLE, BLK_EV_L1_GROW_ACTIVATE_TABLE, BLK_EV_L2_ALLOC_COW_READ, BLK_EV_WRITE_COMPRESSED, BLK_EV_COW_READ, BLK_EV_REFTABLE_GROW,
    BLK_EV_REFBLOCK_ALLOC, BLK_EV_REFBLOCK_ALLOC_WRITE, BLK_EV_REFBLOCK_ALLOC_SWITCH_TABLE, BLK_EV_CLUSTER_FREE, BLK_EV_EMPTY_IMAGE_PREPARE,
    BLK_EV_COR_WRITE, BLK_EV_PWRITEV, BLK_EV_PWRITEV_ZERO, BLK_EV_PWRITEV_DONE,
    BLK_EV_COUNT };
enum blk_discard { BLK_DISCARD_IGNORE, BLK_DISCARD_UNMAP };
enum blk_prealloc { BLK_PREALLOC_OFF, BLK_PREALLOC_METADATA, BLK_PREALLOC_FALLOC, BLK_PREALLOC_FULL };
extern const char *const blk_prealloc_names[];
enum blk_detect { BLK_DETECT_OFF, BLK_DETECT_ON, BLK_DETECT_UNMAP };

struct blk_driver {
    struct obj_class obj;
    unsigned flags;
    /* Opens what the options name; fills size and caps. The mirror, also after a failed open, is co_close. */
    bool (*co_open)(struct blk_node *, struct err *);
    void (*co_close)(struct blk_node *);
    /* The program ends: requests that a peer has not answered since @since, and others from then on, fail. NULL: none waits for a peer. */
    bool (*abandon)(struct blk_node *, int64_t since);      /* true: there were such */
    /* What it makes wait on purpose goes on at once from now on, or not any more. NULL: it makes nothing wait. Main loop */
    void (*hurry)(struct blk_node *, bool on);
    /* Requests: within the size (checked before), 0 or -errno, never short. */
    int (*co_preadv)(struct blk_node *, uint64_t off, uint64_t len, const struct iovec *, unsigned n, unsigned flags);
    int (*co_pwritev)(struct blk_node *, uint64_t off, uint64_t len, const struct iovec *, unsigned n, unsigned flags);
    int (*co_zero)(struct blk_node *, uint64_t off, uint64_t len, unsigned flags);     /* NULL: by writing zeroes */
    int (*co_discard)(struct blk_node *, uint64_t off, uint64_t len);                   /* NULL: nothing to gain */
    int (*co_erase)(struct blk_node *, uint64_t off, uint64_t len);     /* caps.secure_erase tells that it is there */
    int (*co_flush)(struct blk_node *);
    int (*co_resize)(struct blk_node *, uint64_t size);
    /* The extent is data of @len bytes already, at @off where there is nothing below. NULL: that is all that is known. */
    int (*co_map)(struct blk_node *, uint64_t off, uint64_t len, struct blk_extent *);
    /* A SCSI command as it is (caps.scsi tells that there is such a thing). NULL: none is taken */
    int (*co_scsi)(struct blk_node *, struct blk_scsi *);
    /* The image above is about to do that; BLK_EV_NONE: it will tell. NULL: nothing hangs on it. Home loop */
    void (*event)(struct blk_node *, enum blk_event);
    const struct blk_zone_ops *zones;   /* caps.zoned tells that there are some */
    /* Dirty bitmaps that are to be kept go into the image, @in_use: as long as it is open. NULL: it cannot keep any. */
    bool (*can_keep_bitmaps)(const struct blk_node *);      /* NULL: always */
    bool (*co_store_bitmaps)(struct blk_node *, bool in_use, struct err *);
    /* From read-only to writable and back: the node's options say so already. What it stacks on can be written then. */
    bool (*co_set_writable)(struct blk_node *, bool writable, struct err *);
    /* Permissions of all uses changed to @perm/@shared: locks, permissions below. */
    bool (*set_perm)(struct blk_node *, unsigned perm, unsigned shared, struct err *);
    /* Removes the file, of a driver with BLK_MAKES. */
    int (*co_unmake)(struct blk_node *);
    /* Bytes that its file occupies where it is; -errno. NULL: nobody can tell. */
    int64_t (*co_allocated)(struct blk_node *);
    const char *(*filename)(const struct blk_node *);   /* NULL, or what a person calls it */
    /* Drivers over several nodes alike, that come and go: "children.N". Drained. NULL: it has none such. */
    bool (*co_child_add)(struct blk_node *, struct blk_node *child, struct err *e);
    bool (*co_child_del)(struct blk_node *, const char *name, struct err *e);
    /* ---- image formats; each may be NULL ---- */
    /* A cluster or several at a cluster boundary, stored compressed. */
    int (*co_write_compressed)(struct blk_node *, uint64_t off, uint64_t len, const struct iovec *, unsigned n);
    /* Makes an image in @file, which nobody uses. Options are those of create_props, borrowed. */
    bool (*co_create)(struct blk_node *file, json_t *opts, struct err *);
    const struct prop *create_props;
    bool (*measure)(json_t *opts, struct blk_measure *out, struct err *);   /* what co_create would make of the same options */
    /* Changes what creation decided. Options are those of amend_props, borrowed. @force: also what may lose data. */
    bool (*co_amend)(struct blk_node *, json_t *opts, bool force, struct err *e);
    const struct prop *amend_props;
    int (*co_check)(struct blk_node *, struct blk_check *, unsigned fix);   /* BLK_FIX_*; -errno: could not check */
    json_t *(*info)(const struct blk_node *);           /* "format-specific" data, new reference, or NULL */
    uint32_t (*cluster_size)(const struct blk_node *);
    /* Names another backing file; NULL: none. */
    int (*co_set_backing)(struct blk_node *, const char *name, const char *fmt);
    /* Allocates what is from @from on, where everything reads as zeroes and goes on doing so. -ENOTSUP: not in this way. */
    int (*co_preallocate)(struct blk_node *, uint64_t from, enum blk_prealloc how);
    int (*co_make_empty)(struct blk_node *);            /* everything below shows through again */
    const struct blk_snap_ops *snap;
};
#define BLK_DRIVER(n) ((const struct blk_driver *)((const struct blk_node *)(n))->obj.cls)
static inline void blk_tell(struct blk_node *below, enum blk_event event)
{
    if (unlikely(BLK_DRIVER(below)->event != NULL))
        BLK_DRIVER(below)->event(below, event);
}

/* ---- graph (node.c): main loop ---- */
/* From -blockdev options ("driver", "node-name", ...). Takes its own copy. Borrowed pointer. */
struct blk_node *blk_node_create(json_t *opts, struct err *e) MUST_CHECK;
/* The same of a driver with BLK_MAKES, whose file is made. */
struct blk_node *blk_node_make(json_t *opts, enum blk_make how, struct err *e) MUST_CHECK;
/* The node that @v names: a string is a reference, an object makes an inline child of @parent. Its use is parent->child. */
bool blk_child_open(struct blk_node *parent, json_t *v, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
void blk_child_close(struct blk_node *parent);
/* The same for any of its uses; @role ("backing") is for messages. */
bool blk_child_open_at(struct blk_node *parent, struct blk_use *u, const char *role, json_t *v, unsigned perm, unsigned shared,
                       struct err *e) MUST_CHECK;
void blk_child_close_at(struct blk_use *u);
/* Fills in size and caps of a node that changes nothing but offset and length. */
void blk_caps_inherit(struct blk_node *n, const struct blk_node *child);
bool blk_use_add(struct blk_use *u, struct blk_node *n, unsigned perm, unsigned shared, const char *who, struct err *e) MUST_CHECK;
bool blk_use_change(struct blk_use *u, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
void blk_use_del(struct blk_use *u);
/* The same user uses @to in place of what it used, with the same permissions; that stays where it fails. Nothing is in flight. */
bool blk_use_move(struct blk_use *u, struct blk_node *to, struct err *e) MUST_CHECK;
/* @u, which is ->file, ->backing or ->data of @parent, becomes a use of @n. */
bool blk_child_attach(struct blk_node *parent, struct blk_use *u, struct blk_node *n, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
/* Deletes a node that was made for its users, if there are none any more. */
void blk_node_drop(struct blk_node *n);
/* set_perm of drivers that hand everything down. */
bool blk_pass_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e);
/* A throw-away layer over @base that keeps what is written (-snapshot). @id as of a -drive, or NULL. Borrowed. */
struct blk_node *blk_overlay_create(struct blk_node *base, const char *id, struct err *e) MUST_CHECK;
bool blk_node_delete(struct blk_node *n, struct err *e) MUST_CHECK;
/* By its name, or that of the -drive whose top it is. NULL with @e filled. */
struct blk_node *blk_node_find(const char *name, struct err *e);
const char *blk_node_filename(const struct blk_node *n);        /* "" where there is none */
/*
 * Makes an image of format @fmt at @path. @opts (borrowed) are the format's create_props, of which "size" is each one's. What
 * exists is refused unless @force; what could not be finished is removed. Main loop or coroutine on it.
 */
bool blk_image_create(const char *path, const char *fmt, json_t *opts, bool force, struct err *e) MUST_CHECK;
/* Removes the file below the image @n, where its protocol makes files. Coroutine. */
void co_image_unmake(struct blk_node *n);
/* "exists already"; false. */
bool blk_exists(const char *path, struct err *e);
/* Creates a file of @size for an image. One that exists is refused unless @force. */
bool blk_create_file(const char *path, uint64_t size, bool force, struct err *e) MUST_CHECK;
/* Runs fn(arg) as a coroutine of the main loop and waits, from a coroutine or from the main thread. */
void blk_run(void (*fn)(void *), void *arg);

/* ---- watching changes (node_watch.c): coroutines on the main loop ---- */
/* Begins once nothing is in flight that would not be told of. */
void co_watch_add(struct blk_node *n, struct blk_watch *w);
/* Ends when nothing is in flight that it would be told of. */
void co_watch_del(struct blk_node *n, struct blk_watch *w);
/* Around a change; begin answers 0 or what it fails with, and end is due in both cases. */
int co_change_begin(struct blk_node *n, struct blk_change *c);
int co_change_end(struct blk_node *n, struct blk_change *c, int r);
/* A range of a watched node that only its owner changes. */
struct blk_range { struct list link; uint64_t off, len; struct co_queue waiting; };
void co_range_lock(struct blk_node *n, struct blk_range *g, uint64_t off, uint64_t len);
void blk_range_unlock(struct blk_range *g);

/* ---- requests to nodes (node_io.c): coroutines ---- */
int co_node_preadv(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_node_pwritev(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_node_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags);
int co_node_discard(struct blk_node *n, uint64_t off, uint64_t len);
int co_node_erase(struct blk_node *n, uint64_t off, uint64_t len);
int co_node_flush(struct blk_node *n);
int co_node_scsi(struct blk_node *n, struct blk_scsi *c);
int co_node_zone_report(struct blk_node *n, uint64_t off, struct blk_zone *out, unsigned *count);
int co_node_zone_op(struct blk_node *n, enum zone_op op, uint64_t off);
int co_node_zone_append(struct blk_node *n, uint64_t *off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_node_resize(struct blk_node *n, uint64_t size);
/* At a cluster boundary; -ENOTSUP where the format cannot. */
int co_node_write_compressed(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov);
/* Space for [from, end), as much of it as there is, which is zeroes then: BLK_PREALLOC_FALLOC, _FULL. */
int co_node_preallocate(struct blk_node *n, uint64_t from, enum blk_prealloc how);
/* Bytes of one file to another without passing through us; -ENOTSUP where the host cannot, or they are no files. */
int co_file_copy_range(struct blk_node *src, uint64_t src_off, struct blk_node *dst, uint64_t dst_off, uint64_t len);
/* This layer alone: ->below tells that it is not here. */
int co_node_map_layer(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out);
/* Through all layers. Always answers; without a driver's word everything is data. */
int co_node_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out);
/* Zeroes in all of @iov; a copy between @flat and bytes [at, at + len) of it. */
void blk_iov_zero(const struct iovec *iov, unsigned n);
bool blk_iov_is_zero(const struct iovec *iov, unsigned n);
void blk_iov_copy(void *flat, const struct iovec *iov, unsigned n, uint64_t at, uint64_t len, bool to_iov);
/* Part [off, off + len) of @iov into @out (room for @n); returns how many. */
unsigned blk_iov_slice(const struct iovec *iov, unsigned n, uint64_t off, uint64_t len, struct iovec *out);
uint64_t blk_iov_len(const struct iovec *iov, unsigned n);

#endif
