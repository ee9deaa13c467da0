/* SPDX-License-Identifier: MIT */
/* Between the two files of the virtio-blk-vhost-user driver: the node with its connection, and rings with their memory. Home loop. */
#ifndef BLOCK_VHOST_USER_INT_H
#define BLOCK_VHOST_USER_INT_H

#include "block/asked.h"
#include "block/driver.h"
#include "block/ragged.h"
#include "vhost_user/vu_blk_spec.h"
#include "vhost_user/vu_link.h"

/* A request is three descriptors: header, data, status. Data goes through memory that the back end sees, a piece of this size each. */
enum { VUB_SLOTS = 64, VUB_RING = 256, VUB_DATA = MiB, VUB_QUEUES_MAX = 64 };

struct vub_slot {
    bool under_way, lost;           /* lost: the connection ended before the answer */
    struct co_event done;
};

struct vub_ring {
    struct blk_vub *s;
    unsigned index;
    struct vu_desc *desc;           /* all in the memory of the connection */
    uint8_t *avail, *used, *heads, *data;
    uint16_t avail_idx, used_seen;
    int kick, call;
    struct loop_fd watch;
    struct vub_slot slot[VUB_SLOTS];
    unsigned n_free, free[VUB_SLOTS];
};

struct blk_vub {
    struct blk_node node;
    char *path;                     /* options */
    uint16_t num_queues;
    uint32_t reconnect_delay;
    /* connection */
    struct vu_link link;
    struct vu_blk_config config;
    uint64_t features;              /* negotiated */
    bool connected, closing;
    struct loop_fd watch;
    int memory;                     /* a sealed memfd, of this connection alone. -1: none */
    uint8_t *map;
    struct vub_ring *ring;          /* num_queues */
    unsigned turn, in_flight;
    struct blk_asked asked;
    struct co_queue room, idle;
    struct co_mutex connecting;
    struct blk_ragged ragged;
};

static inline uint32_t vub_block(const struct blk_vub *s) { return s->features >> VU_BLK_F_BLK_SIZE & 1 ? le32toh(s->config.blk_size) : VU_BLK_SECTOR; }
static inline bool vub_has(const struct blk_vub *s, unsigned feature) { return s->features >> feature & 1; }

/* Memory and descriptors of all rings; vub_rings_free() also after a failure. */
bool vub_rings_new(struct blk_vub *s, struct err *e) MUST_CHECK;
void vub_rings_free(struct blk_vub *s);
/* Gives the back end memory and rings. Coroutine. */
bool co_vub_rings_start(struct blk_vub *s, struct err *e) MUST_CHECK;
/* A slot that is free, in the ring whose turn it is. Waits; released by vub_slot_put(). NULL: the connection is gone. */
struct vub_slot *co_vub_slot(struct blk_vub *s, struct vub_ring **r);
void vub_slot_put(struct vub_ring *r, struct vub_slot *q);
uint8_t *vub_slot_data(struct vub_ring *r, const struct vub_slot *q);
/* One request over the slot's data, of which @out bytes are read by the back end or @in written: 0, -errno, or -ENOTCONN: lost. Coroutine. */
int co_vub_do(struct vub_ring *r, struct vub_slot *q, enum vu_blk_type type, uint64_t sector, uint32_t out, uint32_t in);
/* The connection ends; who waits learns that. */
void vub_lost(struct blk_vub *s, const char *why);

#endif
