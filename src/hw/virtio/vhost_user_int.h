/* SPDX-License-Identifier: MIT */
/* Between the life of a vhost-user device (vhost_user.c), its messages (vhost_user_msg.c) and its rings (vhost_user_ring.c). */
#ifndef HW_VIRTIO_VHOST_USER_INT_H
#define HW_VIRTIO_VHOST_USER_INT_H

#include "hw/virtio/vhost_user.h"
#include "hw/virtio/virtqueue_int.h"

/* A ring's requests, as far as both indexes tell: for back ends that keep no record themselves (vhost_user_ring.c). */
struct vhost_track;

struct vhost_ring {
    struct vhost_user *u;
    unsigned index;
    int kick, call, err;            /* eventfds, of the device's whole life */
    struct loop_fd called, failed;
    bool running;                   /* the back end has it */
    bool resumed;                   /* a back end before had it */
    uint32_t gen;                   /* of the queue, when it was started */
    struct vhost_track *track;      /* NULL: the back end keeps a record */
};

/* Guest memory as a table of the protocol. */
struct vhost_memory { struct vu_mem_table table; struct ram *ram[8]; };

static inline struct virtq *vhost_vq(const struct vhost_ring *r) { return &r->u->v.vq[r->index]; }

/* ---- vhost_user_msg.c: coroutines; false as from co_vu_tell() ---- */
/* Agrees with whoever has just connected. */
bool co_vhost_negotiate(struct vhost_user *u, struct err *e) MUST_CHECK;
bool co_vhost_write_config(struct vhost_user *u, struct err *e) MUST_CHECK;
/* Tells the back end what memory there is, where it does not know. */
bool co_vhost_send_memory(struct vhost_user *u, struct err *e) MUST_CHECK;
/* The machine's memory can be shared. RCU section not held. */
bool vhost_memory_shared(struct vhost_user *u, struct err *e) MUST_CHECK;
/* The back end knows none any more. */
void vhost_memory_forget(struct vhost_user *u);
/* [p, p + len) is in memory that the back end knows. */
bool vhost_memory_has(const struct vhost_user *u, const void *p, uint64_t len);

/* ---- vhost_user_ring.c ---- */
bool vhost_ring_init(struct vhost_user *u, unsigned index, struct err *e) MUST_CHECK;
void vhost_ring_fini(struct vhost_ring *r);
bool co_vhost_ring_start(struct vhost_ring *r, struct err *e) MUST_CHECK;
bool co_vhost_ring_stop(struct vhost_ring *r, struct err *e) MUST_CHECK;
/* The connection is gone. */
void vhost_ring_lost(struct vhost_ring *r);

#endif
