/* SPDX-License-Identifier: MIT */
/*
 * Exports: block nodes that programs outside use. A type of export is a class "export-TYPE"; its options are the class's rows.
 * Main loop, but for requests on ->blk.
 */
#ifndef BLOCK_EXPORT_H
#define BLOCK_EXPORT_H

#include "block/blk.h"

struct blk_export {
    struct obj obj;
    char *node_name;
    bool writable, writethrough;
    struct obj *iothread;           /* classes with BLK_EXPORT_THREAD_ROW: where requests run */
    bool grows;                     /* set by the class's check(): it changes the node's length, too */
    struct blk *blk;                /* what is exported */
    struct domain *dom;             /* of its requests: in the iothread. NULL: main loop */
    unsigned users;                 /* clients and what they have under way */
    bool gone;                      /* no new clients; deleted with the last one */
};

struct blk_export_class {
    struct obj_class obj;
    /* ->blk is open. */
    bool (*start)(struct blk_export *, struct err *);
    /* No new clients, and those that are there are sent away: the last blk_export_put() deletes it. */
    void (*stop)(struct blk_export *);
};
extern const struct blk_export_class blk_export_class;     /* base of every export; ns "export" */
#define BLK_EXPORT_THREAD_ROW(T, f) PROP_LINK(T, f.iothread, "iothread", &iothread_class, 0, "I/O thread that serves requests; else the main one")

/* From "type", "id", "node-name" and the type's options. Takes its own copy. Borrowed pointer. */
struct blk_export *blk_export_create(json_t *opts, struct err *e) MUST_CHECK;
/* @hard: clients are sent away; else it is refused while there are any. */
bool blk_export_del(struct blk_export *x, bool hard, struct err *e) MUST_CHECK;
static inline void blk_export_get(struct blk_export *x) { x->users++; }
/* A client is done with it. */
void blk_export_put(struct blk_export *x);
/* Every export that is not gone, of class @c. */
void blk_export_each(const struct obj_class *c, void (*fn)(struct blk_export *, void *), void *arg);

#endif
