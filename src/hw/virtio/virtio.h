/* SPDX-License-Identifier: MIT */
/*
 * Virtio: what a device model is to a transport, and what both offer to it.
 *
 * A **model** (virtio-blk, virtio-net...) is a struct that begins with struct virtio_dev and a const table of functions. It
 * is embedded in the object that a user creates: behind a PCI function (virtio-blk-pci), or on the `virtio-bus` of a
 * virtio-mmio transport (virtio-blk-device). VIRTIO_FORMS() declares all of these classes from one model.
 *
 * Thread: everything here runs in the domain of the object (design: section 4) unless it says ANY. A device's data path:
 * the guest's doorbell posts the queue's handler to the home loop; the handler pops elements, serves them (perhaps in
 * coroutines) and pushes them back; interrupts go out once a batch. A reset raises the queue's generation: an element of an
 * older generation is forgotten by virtq_push().
 */
#ifndef HW_VIRTIO_VIRTIO_H
#define HW_VIRTIO_VIRTIO_H

#include "core/dev.h"
#include "core/run.h"
#include "core/state.h"
#include "hw/virtio/virtio_spec.h"
#include "loop/co.h"
#include "mem/dma.h"

struct virtio_dev;
struct virtq;
struct vq_elem;

/* ---- what a model says of itself ---- */
struct virtio_model {
    const char *name;                       /* "virtio-blk" */
    uint16_t id;                            /* VIRTIO_ID_* */
    uint16_t pci_legacy_id;                 /* device id of the transitional form, 0: there is none */
    uint32_t pci_class;                     /* 24 bits */
    /* Opens back ends, virtio_set_config_size(), virtio_add_queue(). Options are set. */
    bool (*realize)(struct virtio_dev *, struct err *);
    void (*unrealize)(struct virtio_dev *); /* mirror; queues are freed after it. May be NULL */
    uint64_t (*features)(struct virtio_dev *);      /* device-specific bits that are offered. Called once, after realize */
    uint64_t modern_only;                   /* of the features: the legacy interface does not offer them */
    uint64_t (*limit)(struct virtio_dev *); /* what may be offered at all, of the bits of every device too. NULL: anything */
    /* Refuses a combination of bits (false: FEATURES_OK stays clear). May be NULL */
    bool (*accept)(struct virtio_dev *, uint64_t f);
    void (*negotiated)(struct virtio_dev *);        /* v->features became valid. May be NULL */
    void (*config_read)(struct virtio_dev *);       /* brings v->config up to date before the guest reads. May be NULL */
    /* The guest wrote [off, off+len) of v->config, already stored; the model takes back what is read-only. NULL: all is */
    void (*config_write)(struct virtio_dev *, uint32_t off, uint32_t len, const uint8_t *old);
    void (*started)(struct virtio_dev *);           /* DRIVER_OK was set; queues are kicked after. May be NULL */
    void (*reset)(struct virtio_dev *);             /* own state back to power-on; queues are reset already. May be NULL */
    void (*queue_reset)(struct virtq *);            /* one queue was reset: forget elements of it. May be NULL */
    void (*resumed)(struct virtio_dev *);           /* the machine runs again: retry what was held. May be NULL */
    void (*quiesce)(struct virtio_dev *);           /* nothing new is to be begun, and who holds the device is waited for. May be NULL */
    /* An element that was in flight when the state was saved is back (mapped by virtq_remap() before use). NULL: never has any */
    void (*restore)(struct vq_elem *);
    unsigned (*vectors)(const struct virtio_dev *); /* MSI-X vectors by default; NULL: queues + 1 */
};

/* ---- what a transport gives ---- */
struct virtio_transport {
    /* Raises ISR bits by the vector (MSI-X) or the line. Any thread with the domain lock */
    void (*interrupt)(struct virtio_dev *, unsigned isr, uint16_t vector);
    bool (*legacy_layout)(const struct virtio_dev *);   /* the guest uses the legacy interface now */
};

/* Options common to all models, behind the rows virtio_props; bits are feature numbers. */
struct virtio_opts { uint64_t features; };
extern const struct prop virtio_props[];    /* over struct virtio_opts */

struct virtio_dev {
    struct virtio_opts opt;                 /* first: PROP_INCLUDE(T, v.opt, virtio_props) */
    const struct virtio_model *model;
    const struct virtio_transport *transport;
    struct dev *dev;                        /* the object a user sees */
    struct domain *dom;
    struct dma *dma;
    uint64_t offered;                       /* what the driver may choose of */
    uint64_t asked;                         /* what it has written of that so far, unchecked */
    uint64_t features;                      /* what holds: a subset of the offer that the model lives with. 0 until FEATURES_OK (legacy: the write) */
    uint8_t status, isr;
    bool broken;                            /* the guest broke the protocol; nothing is served until a reset */
    bool quiesced;                          /* nothing new is taken up */
    uint16_t config_vector;
    uint32_t config_gen;
    uint32_t config_size;
    uint8_t *config;                        /* little endian, as the guest reads it */
    uint32_t n_queues;
    struct virtq *vq;                       /* n_queues of VIRTIO_QUEUE_MAX at most */
    uint32_t in_flight;                     /* elements popped and not pushed, of any generation, and helpers */
    uint32_t parked;                        /* of these: held without a coroutine (virtq_park) */
    struct co_queue idle;                   /* in_flight == parked */
    struct run_resume resume;
    struct post drained;
};

/* One queue. Fields are for the core and the transports; models use the functions. */
struct virtq {
    struct virtio_dev *v;
    struct loop *loop;                      /* where its handler runs, under the domain's lock: the home loop, or one that the model sets */
    uint16_t index;
    uint16_t num, num_default;              /* ring size now; as offered */
    uint16_t vector;
    bool enabled, packed, event_idx, indirect, in_order;
    uint64_t desc, driver, device;          /* guest addresses of the three areas */
    uint16_t last_avail, used_idx, signalled;
    bool signalled_valid, avail_wrap, used_wrap;
    uint16_t avail_shadow;                  /* split: avail idx as last read */
    uint32_t gen;                           /* raised by each reset */
    uint32_t inuse;                         /* ring slots (packed) or chains (split) of this generation held by the device */
    uint32_t in_flight;                     /* elements of any generation */
    /* host addresses of the areas, valid for one generation of the memory view */
    uint64_t map_gen;
    void *p_desc, *p_driver, *p_device;
    struct ram *ram_desc, *ram_device;
    uint64_t off_desc, off_device;
    void (*handler)(struct virtq *);
    int notify_fd;                          /* >= 0: an eventfd that the doorbell writes in the handler's place. Fixed by realize */
    uint32_t elem_size;
    struct list inflight, free;             /* of struct vq_elem */
    uint32_t n_free;
    struct virtq_desc *table;               /* copy of an indirect table */
    struct post kick, flush;
    bool batching, unsignalled;
    uint64_t pushed;                        /* statistics */
};

/* A buffer of the guest: what it gives (`out`), then what it wants written (`in`). Models embed it first in a request. */
struct vq_elem {
    struct list link;                       /* in vq->inflight or vq->free */
    struct virtq *vq;
    uint32_t gen;
    uint16_t id, slots;                     /* buffer id; ring slots it takes (packed) */
    bool mapped, done, parked;
    uint32_t used_len;
    struct dma_vec out, in;
    uint32_t n_seg, n_out, cap_seg;         /* segments as the guest wrote them, for saved state */
    struct vq_seg { uint64_t addr; uint32_t len; } *seg;
};

/* ---- for models ---- */
static inline bool virtio_has(const struct virtio_dev *v, unsigned bit) { return v->features >> bit & 1; }
static inline bool virtio_running(const struct virtio_dev *v)
{
    return (v->status & VIRTIO_S_DRIVER_OK) && !v->broken && !v->quiesced;
}
/* Adds a queue of @num entries; @elem_size is that of the model's request (0: a bare vq_elem). In realize only. */
struct virtq *virtio_add_queue(struct virtio_dev *v, unsigned num, uint32_t elem_size, void (*handler)(struct virtq *));
void virtio_set_config_size(struct virtio_dev *v, uint32_t size);
/* v->config changed by the device: raises the generation and interrupts. */
void virtio_config_changed(struct virtio_dev *v);
/* The guest broke the protocol: DEVICE_NEEDS_RESET (2.1.2), nothing is served until a reset. Always false. */
bool virtio_error(struct virtio_dev *v, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Who holds a coroutine or timer job that uses the device counts itself, so that quiesce waits for it. */
void virtio_hold(struct virtio_dev *v);
void virtio_release(struct virtio_dev *v);

/* The next buffer, mapped; NULL if there is none, the queue is off, or the guest erred. The caller owns it until
 * virtq_push() or virtq_unpop(). */
struct vq_elem *virtq_pop(struct virtq *vq);
/* Gives the last popped element back to the ring, as if it had not been taken. */
void virtq_unpop(struct vq_elem *e);
/* Returns a buffer of which the device wrote the first @written bytes. Interrupts once a batch. Any generation. */
void virtq_push(struct vq_elem *e, uint32_t written);
/* As virtq_push() for an element that was never served (a reset came between): only its memory is released. */
static inline bool virtq_stale(const struct vq_elem *e) { return e->gen != e->vq->gen; }
/* Nothing is available now, and the guest was asked for a doorbell before that was looked at. */
bool virtq_empty(struct virtq *vq);
void virtq_want_kick(struct virtq *vq, bool on);
/* The body of most handlers: pops and serves until empty, at most one ring a turn, then asks for a doorbell. @serve returns
 * false to stop (it has unpopped or kept the element); kicks stay wanted then. */
void virtq_drain(struct virtq *vq, bool (*serve)(struct virtq *, struct vq_elem *));
/* Runs the handler soon on the queue's loop, or notifies who serves the ring in its place. ANY. */
void virtq_kick(struct virtq *vq);
/* Used-buffer notification for what was pushed, now. */
void virtq_flush(struct virtq *vq);
/* A held element no longer counts as in flight for quiesce (stats buffer, failed request waiting for `cont`), and back. */
void virtq_park(struct vq_elem *e);
void virtq_unpark(struct vq_elem *e);
/* Maps a restored element; false (and NEEDS_RESET) if its memory is not RAM. */
MUST_CHECK bool virtq_remap(struct vq_elem *e);

/* ---- for transports ---- */
bool virtio_realize(struct virtio_dev *v, const struct virtio_model *m, const struct virtio_transport *t, struct dev *dev,
                    struct dma *dma, struct err *e) MUST_CHECK;
void virtio_unrealize(struct virtio_dev *v);
void virtio_reset(struct virtio_dev *v);
void co_virtio_quiesce(struct virtio_dev *v);
/* Status as the driver reads it: nonzero until a reset has drained what was in flight (2.4.2). */
uint8_t virtio_status(const struct virtio_dev *v);
void virtio_set_status(struct virtio_dev *v, uint8_t s);
/* Feature word @sel (0 or 1) of 32 bits, as the driver sees and sets them. */
uint32_t virtio_offered_word(const struct virtio_dev *v, uint32_t sel, bool legacy);
void virtio_driver_word(struct virtio_dev *v, uint32_t sel, uint32_t bits);
void virtio_legacy_features(struct virtio_dev *v, uint32_t bits);   /* no FEATURES_OK step there */
uint32_t virtio_config_read(struct virtio_dev *v, uint32_t off, unsigned size);     /* beyond the end: zero */
void virtio_config_write(struct virtio_dev *v, uint32_t off, uint32_t val, unsigned size);
struct virtq *virtio_queue(struct virtio_dev *v, unsigned i);       /* NULL: no such queue */
MUST_CHECK bool virtq_set_num(struct virtq *vq, uint32_t num);     /* power of two for split rings, within num_default */
void virtq_enable(struct virtq *vq);
void virtq_reset(struct virtq *vq);
/* Legacy layout (2.7.2): all three areas from one address, used ring aligned. */
void virtq_set_legacy(struct virtq *vq, uint64_t addr, uint32_t align);

extern const struct state_desc virtio_dev_state;    /* STATE_STRUCT(struct virtio_blk, v, &virtio_dev_state) */

#endif
