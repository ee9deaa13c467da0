/* SPDX-License-Identifier: MIT */
/*
 * Zones that are written in order: their states, write pointers and limits, whatever the protocol that shows them (Zoned Namespaces
 * 1.1, 2.1.1; ZBC; VIRTIO 1.3, 5.2.6). Memory only: data is the user's. No locks: the user's calls come one at a time.
 */
#ifndef BLOCK_ZONES_H
#define BLOCK_ZONES_H

#include <jansson.h>
#include <stdint.h>
#include "base/bits.h"

/* The numbers are the same in all three standards. ZONE_NOT_WP: a conventional zone, written in any order; such ones come first. */
enum { ZONE_NOT_WP = 0, ZONE_EMPTY = 1, ZONE_IOPEN = 2, ZONE_EOPEN = 3, ZONE_CLOSED = 4, ZONE_READ_ONLY = 13, ZONE_FULL = 14, ZONE_OFFLINE = 15 };
/* Zoned 3.4.2, zone attributes. */
enum { ZONE_ATTR_FINISHED = 1, ZONE_ATTR_FINISH_ADVISED = 1 << 1, ZONE_ATTR_RESET_ADVISED = 1 << 2, ZONE_ATTR_ZRWA = 1 << 3, ZONE_ATTR_EXT = 1 << 7 };

/* What came of it; each protocol has its own words for these. */
enum zone_result {
    ZONE_OK,
    ZONE_NO_TRANSITION,                 /* not from the state that it is in */
    ZONE_TOO_MANY_OPEN, ZONE_TOO_MANY_ACTIVE,
    ZONE_NO_ZONE,                       /* behind the last one */
    ZONE_CROSSED,                       /* the range leaves the zone, or what of it can be written */
    ZONE_IS_FULL, ZONE_IS_OFFLINE, ZONE_IS_READ_ONLY,
    ZONE_NOT_AT_WP,
    ZONE_BUSY,                          /* being reset: later perhaps */
    ZONE_BAD_REQUEST,                   /* it means nothing for this zone */
};

struct zone {
    uint64_t wp, next;                  /* the host's write pointer; where the next write goes (some are in flight) */
    uint8_t state, attr;
    bool busy;                          /* being reset */
};

/* All lengths and places are in the user's unit: blocks, bytes. */
struct zones {
    uint32_t n, n_open, n_active, n_zrwa;
    uint32_t max_open, max_active;      /* 0: no limit */
    uint64_t size, cap;                 /* distance of zones; what of each can be written */
    bool cross_read;                    /* a read may go over the end of its first zone; over that of a conventional one it always may */
    bool auto_close;                    /* a zone that a write opened is closed where another needs its place */
    uint32_t zrwas, zrwafg, numzrwa;    /* random write areas: size, flush granularity; how many zones have one at a time */
    struct zone *zone;                  /* @n of them; the user's */
};

static inline uint64_t zone_start(const struct zones *z, const struct zone *x) { return (uint64_t)(x - z->zone) * z->size; }
static inline bool zone_is_open(const struct zone *x) { return x->state == ZONE_IOPEN || x->state == ZONE_EOPEN; }
static inline bool zone_is_active(const struct zone *x) { return zone_is_open(x) || x->state == ZONE_CLOSED; }
/* Whether its write pointer says anything. */
static inline bool zone_has_wp(const struct zone *x) { return x->state == ZONE_EMPTY || zone_is_active(x); }
/* NULL behind the last one. */
static inline struct zone *zone_at(const struct zones *z, uint64_t at) { return at / z->size < z->n ? &z->zone[at / z->size] : NULL; }

/* Counts follow. */
void zone_set(struct zones *z, struct zone *x, uint8_t state);

enum zone_op { ZONE_OP_CLOSE, ZONE_OP_FINISH, ZONE_OP_OPEN, ZONE_OP_RESET, ZONE_OP_OFFLINE };
/* One zone's transition (Zoned 2.1.1.4); @zrwa: with a random write area. */
enum zone_result zone_open(struct zones *z, struct zone *x, bool explicitly, bool zrwa);
enum zone_result zone_close(struct zones *z, struct zone *x);
enum zone_result zone_finish(struct zones *z, struct zone *x);
enum zone_result zone_offline(struct zones *z, struct zone *x);
enum zone_result zone_flush_zrwa(struct zones *z, struct zone *x, uint64_t at);
/* A reset takes time: _begin keeps writes away where there is something to forget (@written); then its content is made zeroes, and _end. */
enum zone_result zone_reset_begin(struct zone *x, bool *written);
void zone_reset_end(struct zones *z, struct zone *x, bool done);
/* Empty, whatever it was. */
void zone_empty(struct zones *z, struct zone *x);
/* Whether an operation on all zones is for one in @state (Zoned 3.4.3, Select All). */
bool zone_op_selects(enum zone_op op, uint8_t state);

/* Whether [at, at + len) may be read. */
enum zone_result zone_check_read(const struct zones *z, uint64_t at, uint64_t len);
/*
 * Before a write: the zone takes it, or why not. @append: *at is the zone's start and becomes the place. Then, whatever became of
 * the write, _end.
 */
enum zone_result zone_write_begin(struct zones *z, uint64_t *at, uint64_t len, bool append);
void zone_write_end(struct zones *z, uint64_t at, uint64_t len);
/* In its place, where nothing was written and it may be tried again: the pointer is where it was, unless others wrote behind it. */
void zone_write_undo(struct zones *z, uint64_t at, uint64_t len);

/* What stays after power was off: open zones are closed, those in a reset are as before it (Zoned 2.1.1.4.2). */
void zones_power_cycle(struct zones *z);

/* What is kept of a zone that is not as it began: [index, state, attributes, what is written]. NULL: it is. New reference. */
json_t *zone_to_json(const struct zones *z, const struct zone *x);
/* The zone that one of these is of, as it is now; NULL: it makes no sense here. @live: with what power holds. */
struct zone *zone_from_json(struct zones *z, json_t *one, bool live);

#endif
