/* SPDX-License-Identifier: MIT */
/* Between virtqueue.c (elements, split rings) and virtqueue_packed.c. */
#ifndef HW_VIRTIO_VIRTQUEUE_INT_H
#define HW_VIRTIO_VIRTQUEUE_INT_H

#include "hw/virtio/virtio.h"

/* The copy that was just made stands: the compiler may not read guest memory again in its place. */
#define copied_once() __asm__ volatile("" ::: "memory")

/* Rings are mapped for the present memory view; false: not usable (NEEDS_RESET was raised if the guest is at fault). */
bool virtq_map(struct virtq *vq);
struct vq_elem *vq_elem_get(struct virtq *vq);
void vq_elem_put(struct vq_elem *e);            /* releases memory and accounts; keeps it for reuse */
void vq_elem_free(struct vq_elem *e);           /* of vq->free, or what that has no room for */
/* The ring's properties as the features have it. */
void virtq_set_flavour(struct virtq *vq);
/* Begins a new generation: drops what nobody else holds, elements that are done and wait for their turn, and restored ones that were not taken up. */
void virtq_forget(struct virtq *vq);
/* One segment more, mapped; false after virtio_error(). */
bool vq_elem_add(struct vq_elem *e, uint64_t addr, uint32_t len, bool device_writes);
/* Copies an indirect table of @len bytes to vq->table; entries, or 0 after virtio_error(). */
unsigned vq_table_read(struct virtq *vq, uint64_t addr, uint32_t len);

/* Ring flavours. */
struct vq_elem *virtq_packed_pop(struct virtq *vq);
void virtq_packed_unpop(struct vq_elem *e);
void virtq_packed_used(struct virtq *vq, const struct vq_elem *e);
bool virtq_packed_avail(struct virtq *vq);
void virtq_packed_want_kick(struct virtq *vq, bool on);
bool virtq_packed_wants_interrupt(struct virtq *vq, uint16_t old);

/* 2.7.10: the index @event lies in the half-open range (old, now]. */
static inline bool vring_need_event(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

#endif
