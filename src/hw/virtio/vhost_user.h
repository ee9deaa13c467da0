/* SPDX-License-Identifier: MIT */
/*
 * Virtio devices whose rings another process serves: the front end of vhost-user (its specification is the one that QEMU's manual has,
 * "Vhost-user Protocol"). A model's struct begins with struct vhost_user; its realize calls vhost_user_open(), its table has
 * VHOST_USER_HOOKS, and what is left is the kind of device.
 *
 * Nothing is said to the back end where it comes up. What should be follows from the virtio device (status, queues), what is from the
 * connection; a coroutine, one at a time, brings the second to the first (vhost_user_update()). So a back end may come and go at any
 * moment, and a driver that resets while rings are being started is nothing special. As long as the back end has a ring, the device
 * counts as having a request in flight: resets and removal wait for it.
 *
 * Thread: the device's domain, at home on the main loop, where its chardev lives. Doorbells write an eventfd of the back end's by
 * themselves (virtq.notify_fd), from any thread.
 */
#ifndef HW_VIRTIO_VHOST_USER_H
#define HW_VIRTIO_VHOST_USER_H

#include "chardev/chr.h"
#include "hw/virtio/virtio.h"
#include "vhost_user/vu_link.h"

struct vhost_user;
struct vhost_ring;
struct vhost_memory;

enum { VHOST_CONFIG_MAX = 256 };

/* What a model says of its kind. */
struct vhost_user_kind {
    uint64_t features;              /* device-specific bits that are offered where the back end offers them */
    uint64_t protocol;              /* BIT64(VU_P_*): without these it cannot be */
    uint32_t config_size;           /* of the back end's configuration. 0: none */
    /* Makes the configuration, as read, one that the options fit. May be NULL */
    void (*config)(struct vhost_user *u, uint8_t *config);
};

struct vhost_user {
    struct virtio_dev v;            /* first */
    struct obj *chardev;            /* option */
    /* private */
    const struct vhost_user_kind *kind;
    struct chr_front chr;
    unsigned n_rings;
    struct vhost_ring *ring;
    struct vu_link link;            /* the connection */
    int channel;                    /* what the back end sends by itself; -1: none */
    struct loop_fd channel_watch;
    uint8_t said[12 + VHOST_CONFIG_MAX];    /* of a message on ->channel */
    uint32_t said_len;
    bool working, todo;             /* the coroutine runs; it is to look again */
    bool config_stale;              /* the back end has another */
    bool write_due;                 /* [write_off, write_off + write_len) of the configuration is to be told */
    uint32_t write_off, write_len;
    uint32_t life, told_life;       /* counts resets; the one that the back end was told the beginning of. 0: of none */
    uint8_t told_status;
    int inflight_fd;                /* memory in which a back end keeps what it does, for the next. -1: none */
    struct vu_inflight inflight;
    struct vhost_memory *memory;    /* as the back end knows it; NULL: not */
    uint64_t memory_gen;            /* the view that was looked at for it */
    struct view_listener view;
    struct post view_changed;
    struct co_event came;
    char last_word[160];            /* why the last connection ended */
};

#define VHOST_USER_CHARDEV_ROW(T, f) PROP_LINK(T, f.chardev, "chardev", &chr_class, PF_REQUIRED, "Unix socket of the back end that serves the device")
#define VHOST_USER_HOOKS .limit = vhost_user_limit, .started = vhost_user_update, .reset = vhost_user_reset, .queue_reset = vhost_user_queue_reset, \
                         .resumed = vhost_user_update, .quiesce = vhost_user_update

/*
 * Connects, waiting for a back end up to half a minute, agrees with it, and adds @n_rings queues of @ring_size. v->config is set up. In
 * realize only: nothing is left behind on failure.
 */
bool vhost_user_open(struct vhost_user *u, const struct vhost_user_kind *kind, unsigned n_rings, unsigned ring_size, struct err *e) MUST_CHECK;
void vhost_user_close(struct virtio_dev *v);
/* The back end's bits of the kind's features. */
uint64_t vhost_user_features(struct virtio_dev *v);
/* Looks at what should be, soon. Domain lock held. */
void vhost_user_update(struct virtio_dev *v);
/* The driver wrote these bytes of v->config: the back end is told, and any that comes later. */
void vhost_user_config_written(struct vhost_user *u, uint32_t off, uint32_t len);

uint64_t vhost_user_limit(struct virtio_dev *v);
void vhost_user_reset(struct virtio_dev *v);
void vhost_user_queue_reset(struct virtq *vq);
extern const struct state_desc vhost_user_state;        /* STATE_STRUCT(T, u, &vhost_user_state) */

#endif
