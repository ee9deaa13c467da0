/* SPDX-License-Identifier: MIT */
/*
 * The block layer's front header: what a device, an export or a job needs of a node. The graph and the drivers are in
 * block/driver.h. A `struct blk` is one user's handle: its permissions, statistics, error policy, throttle.
 */
#ifndef BLOCK_BLK_H
#define BLOCK_BLK_H

#include <sys/uio.h>
#include "block/zones.h"
#include "core/obj.h"
#include "loop/co.h"

struct blk;
struct blk_node;

extern const struct obj_class blk_node_class;      /* base of every node class; ns "blockdev" */

enum { BLK_PERM_READ = 1, BLK_PERM_WRITE = 2, BLK_PERM_RESIZE = 4 };
enum { BLK_FUA = 1, BLK_ZERO_UNMAP = 2 /* a zero request may deallocate */, BLK_ZERO_NO_FALLBACK = 4,
       BLK_GROW = 8 /* a write of a format may go beyond the end of the file below: it grows */,
       BLK_UNCHANGED = 16 /* what is written is what is read there already: no watcher is told */ };

/* What the back end can do: what it cannot is not offered to the guest. */
struct blk_caps {
    bool read_only, discard, write_zeroes, flush /* has a volatile cache worth flushing */, fua, rotational,
         grows /* BLK_GROW */;
    bool secure_erase;              /* what is erased cannot be read by any means, copies of it neither */
    uint32_t logical_block, physical_block, opt_io, discard_granularity, max_discard, max_zeroes;   /* bytes; 0: no limit */
    uint32_t mem_align;             /* of buffers, bytes */
    uint32_t max_transfer;          /* bytes, 0: none */
    struct blk_zoned { uint64_t size, cap, from; uint32_t max_open, max_active; } zoned; /* zones of @size bytes (0: none), @cap of which
                                       can be written; in order from @from on */
    uint32_t scsi;                  /* it takes SCSI commands (co_blk_scsi), of at most so many bytes; 0: it takes none */
};

/* Options common to block front ends: drive=, logical_block_size=, physical_block_size=, min_io_size, opt_io_size,
 * discard_granularity, write-cache, bootindex, share-rw, rerror, werror, account... PROP_INCLUDE(T, blk, blk_front_props). */
struct blk_front_opts {
    struct obj *drive;              /* blk_node */
    uint32_t logical_block_size, physical_block_size, min_io_size, opt_io_size, discard_granularity;
    enum tri write_cache;
    bool share_rw;
    int rerror, werror;             /* enum blk_on_error */
    int64_t bootindex;
    uint32_t cyls, heads, secs;
    bool may_be_empty;              /* set by the device, before it opens: no drive= makes a drive without a medium */
    bool knows_zones;               /* so is this: its guest is told of zones */
};
extern const struct prop blk_front_props[];
extern const struct prop blk_geometry_props[];      /* cyls, heads, secs, of devices that tell a guest of them */
enum blk_on_error { BLK_ERR_AUTO, BLK_ERR_REPORT, BLK_ERR_IGNORE, BLK_ERR_STOP, BLK_ERR_ENOSPC /* stop on ENOSPC, else report */ };
extern const char *const blk_on_error_names[];     /* for rows of options and commands */

/* Opens the front end's handle: permissions are claimed (a conflict names the holder), geometry checked, defaults filled
 * in (logical_block_size 0 becomes the node's). @writable: the device can write; on a read-only node blk_get_caps() says that it
 * may not. I/O runs on @dom's home loop. Main loop. NULL with @e filled. */
struct blk *blk_front_open(struct blk_front_opts *o, struct obj *user, struct domain *dom, bool writable, struct err *e) MUST_CHECK;
/* The node of -drive if=@iface (virtio, pflash, sd, mtd), unit @unit, borrowed; NULL: none. Main loop, from CLI_BOARD on. */
struct obj *blk_drive_find(const char *iface, unsigned unit);
/* The same for others than devices. blk_perm_rw(): reading, and writing unless the node is read-only. */
unsigned blk_perm_rw(const struct blk_node *n);
struct blk *blk_open(struct blk_node *n, unsigned perm, unsigned shared, struct domain *dom, const char *user, struct err *e) MUST_CHECK;
/* Nothing may be in flight. Main loop. */
void blk_close(struct blk *b);
void blk_get_caps(struct blk *b, struct blk_caps *caps);
uint64_t blk_size(struct blk *b);               /* bytes. ANY */
struct blk_node *blk_node_of(struct blk *b);
bool blk_direct(struct blk *b);                 /* requests go around the page cache of the host (cache.direct). Main loop */
bool blk_write_cache(struct blk *b);            /* the guest-visible setting; may change at run time */
void blk_set_write_cache(struct blk *b, bool on);
/* Told on the domain's loop, lock held, when the size or medium changed. */
void blk_set_change_cb(struct blk *b, void (*fn)(void *arg), void *arg);

/*
 * A drive whose medium can change. Its device does no I/O while the tray is open, and is told of another medium as of another size.
 * Called on the main loop with the device's domain locked.
 */
struct blk_tray {
    bool (*is_open)(void *);
    bool (*is_locked)(void *);          /* by the guest */
    void (*move)(void *, bool open);
    void (*ask)(void *);                /* the guest is asked to let go of a locked medium */
};
void blk_set_tray(struct blk *b, const struct blk_tray *t, void *arg);
bool blk_has_medium(struct blk *b);
/* Puts @n in (NULL: takes the medium out), once nothing is in flight. The tray is open. Coroutine on the main loop. */
bool co_blk_set_medium(struct blk *b, struct blk_node *n, struct err *e) MUST_CHECK;

/* Requests: coroutines on the domain's home loop. Without a medium: -ENOMEDIUM. 0 or -errno, never short. @off and @len are bounded by the handle. */
int co_blk_preadv(struct blk *b, uint64_t off, uint64_t len, struct iovec *iov, unsigned n, unsigned flags);
int co_blk_pwritev(struct blk *b, uint64_t off, uint64_t len, struct iovec *iov, unsigned n, unsigned flags);
int co_blk_zero(struct blk *b, uint64_t off, uint64_t len, unsigned flags);
int co_blk_discard(struct blk *b, uint64_t off, uint64_t len);
/* What it does not only seem to do: -ENOTSUP where caps.secure_erase is not set. What is read afterwards is not defined. */
int co_blk_erase(struct blk *b, uint64_t off, uint64_t len);
int co_blk_flush(struct blk *b);
/* What a range is made of, as far as one answer goes from its start: @out->len of it is alike. */
struct blk_extent {
    uint64_t len;
    bool data, zero;                /* it occupies space here; it reads as zeroes */
    bool below;                     /* not in this layer: the backing node's, or zeroes where there is none */
    bool compressed;
    bool sparse;                    /* the data at @off may be a hole there */
    bool has_off;                   /* the data is at @off of @where, as it is read */
    uint64_t off;
    const struct blk_node *where;
    unsigned depth;                 /* how many backing nodes down */
};
int co_blk_map(struct blk *b, uint64_t off, uint64_t len, struct blk_extent *out);
/* A SCSI command for the host's device, and what came of it. */
struct blk_scsi {
    uint8_t cdb[32], cdb_len;
    bool to_device;
    const struct iovec *iov;        /* the data, @len bytes */
    unsigned niov;
    uint32_t len, timeout;          /* timeout: seconds, 0: the host's */
    uint8_t sense[96];
    /* results, as the kernel tells them (struct sg_io_hdr) */
    uint8_t status, sense_len;
    uint16_t host_status, driver_status;
    uint32_t done;                  /* bytes transferred */
};
/* 0: the host's answer is in @c, whatever it is. -ENOTSUP: the node takes no such commands; else -errno: it was not executed. */
int co_blk_scsi(struct blk *b, struct blk_scsi *c);
/*
 * Zones (caps.zoned). What a zone refuses, here and as answer to a write: -ETOOMANYREFS, -EOVERFLOW: too many are open, active; -ESPIPE:
 * not at its write pointer; -E2BIG: over its end; -EXFULL, -EACCES, -EUNATCH: it is full, read-only, offline; -EDOM: otherwise not in its
 * state.
 */
struct blk_zone { uint64_t start, cap, wp; uint8_t state; };    /* bytes; wp: UINT64_MAX where it says nothing; enum ZONE_... */
/* Those from the one that holds @off on: at most *n, and *n becomes how many there were. */
int co_blk_zone_report(struct blk *b, uint64_t off, struct blk_zone *out, unsigned *n);
/* On the zone that begins at @off; BLK_ALL_ZONES: on all that it is for. */
#define BLK_ALL_ZONES UINT64_MAX
int co_blk_zone_op(struct blk *b, enum zone_op op, uint64_t off);
/* Writes where the zone that begins at *off was written up to; *off becomes the place. */
int co_blk_zone_append(struct blk *b, uint64_t *off, uint64_t len, struct iovec *iov, unsigned n);
/* rerror/werror: what to do with a failed request. BLK_ACT_STOP: the machine was asked to stop; the request is queued by the caller
 * and tried again when the machine runs. */
enum blk_action { BLK_ACT_REPORT, BLK_ACT_IGNORE, BLK_ACT_STOP };
enum blk_action blk_error_action(struct blk *b, bool is_read, int error);

#endif
