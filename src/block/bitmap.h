/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps: what was written to a node since a moment, by name. Main loop. */
#ifndef BLOCK_BITMAP_H
#define BLOCK_BITMAP_H

#include <jansson.h>
#include "block/dirty.h"
#include "block/driver.h"

enum { BITMAP_MAX_NAME = 1023, BITMAP_LEAST_GRANULARITY = 512, BITMAP_MOST_GRANULARITY = INT32_MAX / 2 + 1,
       BITMAP_MOST_BYTES = 512 << 20 /* of memory, one of an image, or all of a node together with a new one */ };
#define BITMAP_MOST_LOADED (INT64_C(4) << 30)   /* of memory, all of an image together */

struct blk_bitmap {
    struct list link;               /* in node->bitmaps */
    struct blk_node *node;
    char *name;
    struct dirty_map map;
    bool recording;
    bool persistent;                /* kept in the image */
    bool inconsistent;              /* its image was not closed properly: good for removal only */
    bool stored;                    /* the image holds it (as in use) */
    uint64_t table_off;             /* where the image has it, while ->stored: the driver's */
    uint32_t table_size;
    unsigned busy;                  /* jobs and exports that use it */
    bool leaving;                   /* a transaction under way removes it: nobody begins to use it */
    struct blk_watch watch;
};

/* @granularity 0: chosen. It records. Coroutine on the main loop. */
struct blk_bitmap *co_bitmap_new(struct blk_node *n, const char *name, uint64_t granularity, struct err *e) MUST_CHECK;
/* The same without a look at other users and their names: of a node that is being opened. */
struct blk_bitmap *blk_bitmap_attach(struct blk_node *n, const char *name, uint64_t size, uint64_t granularity, struct err *e) MUST_CHECK;
void co_bitmap_free(struct blk_bitmap *b);
/* All of a node that is being closed. */
void blk_bitmaps_free(struct blk_node *n);
/* The content is another as a whole, its size too: those that record note that. */
void blk_bitmaps_all_dirty(struct blk_node *n);
/* There is memory for them with @n of @size bytes. */
bool blk_bitmaps_fit(const struct blk_node *n, uint64_t size, struct err *e) MUST_CHECK;
struct blk_bitmap *blk_bitmap_find(const struct blk_node *n, const char *name);
/* Nobody is at it, nor is it about to go. */
bool blk_bitmap_idle(const struct blk_bitmap *b, struct err *e) MUST_CHECK;
/* @for_use: it may be cleared, merged, written; else only looked at. */
struct blk_bitmap *blk_bitmap_get(const char *node, const char *name, bool for_use, struct err *e);
bool blk_bitmap_usable(const struct blk_bitmap *b, bool for_use, struct err *e) MUST_CHECK;
bool blk_bitmap_can_persist(const struct blk_node *n, struct err *e) MUST_CHECK;
/* What query-block tells; NULL: there are none. */
json_t *blk_bitmaps_json(const struct blk_node *n);

#endif
