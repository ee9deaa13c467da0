/* SPDX-License-Identifier: MIT */
/* What the files of the graph share: nodes, uses, handles. */
#ifndef BLOCK_BLK_INT_H
#define BLOCK_BLK_INT_H

#include "block/backing.h"
#include "block/driver.h"

enum blk_op { BLK_OP_READ, BLK_OP_WRITE, BLK_OP_DISCARD, BLK_OP_FLUSH, BLK_OPS };
struct blk_op_stats { _Atomic uint64_t ops, bytes, ns, failed; };

struct blk {
    struct list link;               /* of all handles */
    unsigned held;                  /* by how many who wait: its memory stays until the last lets go */
    bool closed;                    /* since: nothing of it is there any more. Main loop */
    struct blk_use use;
    struct blk_node *_Atomic node;  /* another one after a snapshot or a change of medium: on the main loop with the domain locked */
    atomic_bool may_write;          /* what is in @node; changes with it */
    bool writable;                  /* by the device, where the medium is */
    bool own_medium;                /* the node was made by a monitor's change command and goes with it */
    char *drive;                    /* name of the -drive that it was opened for, whatever the medium is now; or NULL */
    const struct blk *for_blk;      /* the handle in whose name it is: the two do not conflict. NULL: in its own */
    bool is_export;                 /* no device: monitors do not list it as one */
    struct blk_front_opts *opts;    /* the device's, NULL: none */
    const struct blk_tray *tray;    /* NULL: the medium stays */
    void *tray_arg;
    struct domain *dom;
    struct obj *user;               /* the device, or NULL */
    struct obj *throttle_group;     /* NULL: no limits */
    struct throttle *_Atomic throttle;  /* its limits; changed while drained */
    enum blk_on_error rerror, werror;
    atomic_bool write_cache;
    atomic_uint in_flight;
    atomic_uint gated;              /* by how many: new requests wait */
    atomic_bool leaving;            /* its device is being removed */
    _Atomic int64_t last_warning;
    struct post change;             /* fn NULL: nobody wants to know */
    struct blk_op_stats stats[BLK_OPS];
};

/* What is in a drive without a medium: a node without blocks. @id NULL: of one handle's own, which ends with it. Main loop. */
struct blk_node *blk_empty_node(const char *id, struct err *e) MUST_CHECK;
bool blk_node_is_empty(const struct blk_node *n);
/* Every handle; main loop. */
void blk_each(void (*fn)(struct blk *, void *), void *arg);
/* Who waits in between finds out afterwards whether it is closed, as an unplugged device's is; its memory is there. Main loop. */
void blk_hold(struct blk *b);
void blk_release(struct blk *b);
/* "was unplugged", for one that was held. */
bool blk_still_open(const struct blk *b, struct err *e) MUST_CHECK;
/* New requests of @b wait from now on; until blk_undrain(), which is due as often. It is held meanwhile. Main loop. */
void blk_gate(struct blk *b);
/* The same, and those in flight have ended. Coroutine on the main loop. */
void co_blk_drain(struct blk *b);
void blk_undrain(struct blk *b);
/* Who waits for what is in flight of some handles, as that changes: limits do not hold for what comes through these meanwhile. Main loop. */
void blk_hurry_update(void);
/* Its use names another node now. It is drained. */
void blk_follow_use(struct blk *b);

/* ---- changing the graph (graph.c): coroutines on the main loop ---- */
/* Handles whose requests wait, until blk_drain_end(). On the stack of who wants that. */
struct blk_drain { struct blk **v; size_t n, cap; };
/* All handles through which requests come to @n wait, and nothing is in flight. Nests. */
void co_node_drain(struct blk_node *n, struct blk_drain *d);
void blk_drain_end(struct blk_drain *d);
/*
 * Every user of @from but @to and jobs uses @to from now on. Nothing is in flight. The name that -drive gave goes along, and a node
 * that was made for its users and has none is gone.
 */
bool blk_node_replace(struct blk_node *from, struct blk_node *to, struct err *e) MUST_CHECK;
/* The node that stores what @n shows: without the filters above. */
struct blk_node *blk_skip_filters(struct blk_node *n);
/* Bytes that the image which @n shows allocates as one; 0: it has no such unit. */
uint64_t blk_cluster_size(struct blk_node *n);
/* Another backing node in place of what is there (NULL: none), in the graph and, by name, in the image. Drained. */
bool co_set_backing(struct blk_node *n, struct blk_node *backing, const char *name, struct err *e) MUST_CHECK;
/* Another size, which devices are told. Coroutine. */
bool co_blk_node_resize(struct blk_node *n, int64_t size, struct err *e) MUST_CHECK;
/* Fails where a job works on @n: says which. */
bool blk_node_free_of_jobs(const struct blk_node *n, struct err *e) MUST_CHECK;
/* What follows a PCI function's path in QEMU's name of the virtio disk behind it. */
#define BLK_VIRTIO_BACKEND "/virtio-backend"
/* The handle of a device by its id or path (QEMU's of a virtio disk, too), or by the name of its drive or node. NULL with @e filled. Main loop. */
struct blk *blk_of_device(const char *name, struct err *e);
/* A node by the options of -drive (without its device), @iface and @media (may be NULL) in place of what they say. Main loop. */
bool blk_drive_add(const char *text, const char *iface, const char *media, struct err *e) MUST_CHECK;
/* Limits of @group (NULL: none), whose reference it takes. The handle is drained, or new. */
void blk_set_throttle(struct blk *b, struct obj *group);
/* What query-block tells of them. */
void blk_throttle_json(struct blk *b, json_t *o);
/* Takes the throttling options out of those of -drive @id. *@group: a reference, or NULL where there are none. */
bool blk_drive_throttle(json_t *all, const char *id, struct obj **group, struct err *e) MUST_CHECK;
/*
 * Who changes the graph, or what its images keep, does so one at a time in each part of it, which is what uses tie together: commands of
 * whichever monitors (`turn` of their rows), and the ends of jobs. They wait in their midst, and each is to find what the one before left;
 * but who waits for a storage that does not answer holds up nobody elsewhere, unless a command that names both parts has come since: it
 * is not overtaken. Not nested. What opens a node is not among them: nobody finds the node before it is open. Coroutines on the main loop.
 */
struct blk_turn;
extern const struct cmd_turn blk_graph_turn;    /* of a command: where the nodes, drives, devices and jobs are that its arguments name */
struct blk_turn *co_blk_turn_named(json_t *names);
/* @keys says by blk_turn_add() where; it is asked again after each wait. */
struct blk_turn *co_blk_turn_begin(void (*keys)(struct blk_turn *, void *arg), void *arg);
void blk_turn_add(struct blk_turn *t, struct blk_node *n);
void blk_turn_end(struct blk_turn *t);
/* The node, the handle is gone; either may be NULL. */
void blk_turn_forget(const struct blk_node *n, const struct blk *b);
extern struct list blk_nodes;                   /* all there are, also those that are being opened and closed */
/* Its size changed: handles tell their devices. Main loop. */
void blk_node_changed(struct blk_node *n);

#endif
