/* SPDX-License-Identifier: MIT */
/* What the files of the vhost-user server share. All of it runs in the domain of the server. */
#ifndef VHOST_USER_VU_INT_H
#define VHOST_USER_VU_INT_H

#include "base/bits.h"
#include "vhost_user/vu.h"

/* A piece of the front end's memory: @map from the beginning of its file, @host where guest address @guest is. */
struct vu_region { uint64_t guest, size, user; uint8_t *host; void *map; size_t map_len; struct mem_guard guard; };

struct vu_ring {
    struct vu_conn *conn;
    unsigned index, size;           /* size 0: not told */
    struct vu_addr addr;            /* as told */
    struct vu_desc *desc;           /* NULL: not mapped */
    uint8_t *avail, *used;
    uint16_t last_avail, used_idx, signalled;
    bool signalled_valid, enabled, started, resumed, broken, stalled;
    int kick, call, err;
    struct loop_fd watch;
    unsigned in_flight;
    struct vu_slots *slots;         /* NULL: not tracked */
    uint64_t counter;
};

struct vu_conn {
    struct vu_server *s;
    int fd, backend_fd;
    uint64_t features, protocol;
    struct vu_region region[VU_REGIONS];    /* free where ->map is NULL */
    struct vu_ring *ring;           /* s->n_rings */
    struct vu_region log, inflight; /* ->map NULL: none */
    atomic_bool cut;                /* memory of the front end had no page */
    unsigned in_flight, paused;
    struct co_queue drained;
    struct post ended;
};

/* ---- vu_mem.c ---- */
/* Maps [off, off + size) of @fd, which stays the caller's. Accesses to what is not there set conn->cut. */
bool vu_map(struct vu_conn *c, struct vu_region *r, int fd, uint64_t off, uint64_t size, struct err *e) MUST_CHECK;
void vu_unmap(struct vu_region *r);
bool vu_region_add(struct vu_conn *c, const struct vu_mem *m, int fd, struct err *e) MUST_CHECK;
bool vu_region_del(struct vu_conn *c, const struct vu_mem *m, struct err *e) MUST_CHECK;
void vu_regions_clear(struct vu_conn *c);
/* Where [addr, addr + *len) is, *@len cut to what is in one piece; NULL: nowhere. */
uint8_t *vu_guest_at(struct vu_conn *c, uint64_t addr, uint64_t *len);
/* By the front end's own address, whole or NULL. */
uint8_t *vu_user_at(struct vu_conn *c, uint64_t addr, uint64_t len);
/* Written by us: into the log of changes, where the front end wants one. */
void vu_log(struct vu_conn *c, uint64_t guest, uint64_t len);

/* ---- vu_ring.c ---- */
/* Finds the ring in memory, as far as it is known where. */
bool vu_ring_map(struct vu_ring *r, struct err *e) MUST_CHECK;
void vu_rings_unmap(struct vu_conn *c);
/* Takes what is available. */
void vu_ring_run(struct vu_ring *r);
void vu_ring_watch(struct vu_ring *r, int kick);        /* takes over @kick; -1: none */
/* Coroutines: no request of the ring, of any ring, is under way. */
void co_vu_ring_drain(struct vu_ring *r);
void co_vu_pause(struct vu_conn *c);
void vu_resume(struct vu_conn *c);
void vu_ring_notify(struct vu_ring *r);

/* ---- vu_inflight.c: requests under way, for whoever comes after us ---- */
uint64_t vu_slots_size(unsigned ring_size);
void vu_slots_begin(struct vu_ring *r, uint16_t head);
void vu_slots_end(struct vu_ring *r, uint16_t head, uint16_t used_idx);
/* Heads that were under way when the last back end ended, oldest first, into @heads (room for the ring's size); returns how many. */
unsigned vu_slots_resume(struct vu_ring *r, uint16_t used_idx, uint16_t *heads);

/* ---- vu_msg.c ---- */
/* Serves @c until its end. Coroutine. */
void co_vu_serve(struct vu_conn *c);

static inline bool vu_has(const struct vu_conn *c, unsigned feature) { return c->features >> feature & 1; }
static inline bool vu_speaks(const struct vu_conn *c, unsigned p) { return c->protocol >> p & 1; }
static inline struct loop *vu_loop(const struct vu_server *s) { return s->dom ? domain_loop(s->dom) : loop_main(); }

#endif
