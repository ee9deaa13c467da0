/* SPDX-License-Identifier: MIT */
#ifndef BLOCK_BLK_INT_H
#define BLOCK_BLK_INT_H

#include "block/driver.h"

enum blk_op { BLK_OP_READ, BLK_OP_WRITE, BLK_OP_DISCARD, BLK_OP_FLUSH, BLK_OPS };
struct blk_op_stats { _Atomic uint64_t ops, bytes, ns, failed; };

struct blk {
    struct list link;               /* of all handles */
    struct blk_use use;
    struct blk_node *_Atomic node;  /* another one after a snapshot or a change of medium: on the main loop with the domain locked */
    bool writable;                  /* by the device, where the medium is */
    bool own_medium;                /* the node was made by a monitor's change command and goes with it */
    struct blk_front_opts *opts;    /* the device's, NULL: none */
    const struct blk_tray *tray;    /* NULL: the medium stays */
    void *tray_arg;
    struct domain *dom;
    struct obj *user;               /* the device, or NULL */
    enum blk_on_error rerror, werror;
    atomic_bool write_cache;
    atomic_uint in_flight;
    atomic_bool gated;              /* new requests wait */
    _Atomic int64_t last_warning;
    struct post change;             /* fn NULL: nobody wants to know */
    struct blk_op_stats stats[BLK_OPS];
};

/* What is in a drive without a medium: a node without blocks, of the handle's own. Main loop. */
struct blk_node *blk_empty_node(struct err *e) MUST_CHECK;
bool blk_node_is_empty(const struct blk_node *n);
/* Every handle; main loop. */
void blk_each(void (*fn)(struct blk *, void *), void *arg);
/* New requests of @b wait, those in flight have ended; until blk_undrain(). Coroutine on the main loop. */
void co_blk_drain(struct blk *b);
void blk_undrain(struct blk *b);
/* Its size changed: handles tell their devices. Main loop. */
void blk_node_changed(struct blk_node *n);

#endif
