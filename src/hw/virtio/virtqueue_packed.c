/* SPDX-License-Identifier: MIT */
/* Packed virtqueues (VIRTIO 1.2, 2.8): one ring of descriptors that both sides write. */
#include "hw/virtio/virtqueue_int.h"

static struct virtq_packed_desc *slot_at(struct virtq *vq, uint16_t i)
{
    return (struct virtq_packed_desc *)vq->p_desc + i;
}

/* 2.8.1: available when the AVAIL bit equals the wrap counter and the USED bit does not. */
static bool flags_avail(uint16_t flags, bool wrap)
{
    return !!(flags & VIRTQ_PACKED_F_AVAIL) == wrap && !!(flags & VIRTQ_PACKED_F_USED) != wrap;
}

static void advance(const struct virtq *vq, uint16_t *i, bool *wrap, uint16_t by)
{
    unsigned next = *i + by;

    if (next >= vq->num) {
        next -= vq->num;
        *wrap = !*wrap;
    }
    *i = (uint16_t)next;
}

bool virtq_packed_avail(struct virtq *vq)
{
    uint16_t f = le16toh(__atomic_load_n(&slot_at(vq, vq->last_avail)->flags, __ATOMIC_ACQUIRE));

    return flags_avail(f, vq->avail_wrap);
}

/* 2.8.7: a table of its own; NEXT, AVAIL and USED mean nothing in it. */
static bool packed_table(struct virtq *vq, struct vq_elem *e, uint64_t addr, uint32_t len)
{
    unsigned n = vq_table_read(vq, addr, len);
    const struct virtq_packed_desc *t = (const struct virtq_packed_desc *)vq->table;

    for (unsigned i = 0; i < n; i++)
        if (!vq_elem_add(e, le64toh(t[i].addr), le32toh(t[i].len), le16toh(t[i].flags) & VIRTQ_DESC_F_WRITE))
            return false;
    return n != 0;
}

static bool packed_chain(struct virtq *vq, struct vq_elem *e)
{
    uint16_t i = vq->last_avail;
    bool wrap = vq->avail_wrap;

    for (unsigned slots = 1;; slots++) {
        struct virtq_packed_desc d;
        memcpy(&d, slot_at(vq, i), sizeof d);
        copied_once();
        uint16_t flags = le16toh(d.flags);
        if (flags & VIRTQ_DESC_F_INDIRECT) {
            if (slots != 1 || (flags & VIRTQ_DESC_F_NEXT))
                return virtio_error(vq->v, "queue %u: indirect table in a wrong place", vq->index);
            if (!packed_table(vq, e, le64toh(d.addr), le32toh(d.len)))
                return false;
        } else if (!vq_elem_add(e, le64toh(d.addr), le32toh(d.len), flags & VIRTQ_DESC_F_WRITE)) {
            return false;
        }
        if (!(flags & VIRTQ_DESC_F_NEXT)) {
            e->id = le16toh(d.id);
            e->slots = (uint16_t)slots;
            return true;
        }
        if (slots + vq->inuse >= vq->num)
            return virtio_error(vq->v, "queue %u: descriptor chain is longer than the ring", vq->index);
        advance(vq, &i, &wrap, 1);
    }
}

struct vq_elem *virtq_packed_pop(struct virtq *vq)
{
    struct vq_elem *e;

    if (!virtq_packed_avail(vq))
        return NULL;
    if (vq->inuse >= vq->num) {
        virtio_error(vq->v, "queue %u: more buffers than the ring has entries", vq->index);
        return NULL;
    }
    e = vq_elem_get(vq);
    if (!packed_chain(vq, e)) {
        vq_elem_put(e);
        return NULL;
    }
    vq->inuse += e->slots;
    advance(vq, &vq->last_avail, &vq->avail_wrap, e->slots);
    return e;
}

void virtq_packed_unpop(struct vq_elem *e)
{
    struct virtq *vq = e->vq;

    vq->inuse -= e->slots;
    if (vq->last_avail < e->slots) {
        vq->last_avail = (uint16_t)(vq->last_avail + vq->num);
        vq->avail_wrap = !vq->avail_wrap;
    }
    vq->last_avail = (uint16_t)(vq->last_avail - e->slots);
}

void virtq_packed_used(struct virtq *vq, const struct vq_elem *e)
{
    struct virtq_packed_desc *d = slot_at(vq, vq->used_idx);
    uint16_t flags = vq->used_wrap ? VIRTQ_PACKED_F_AVAIL | VIRTQ_PACKED_F_USED : 0;

    if (e->used_len)
        flags |= VIRTQ_DESC_F_WRITE;
    d->id = htole16(e->id);
    d->len = htole32(e->used_len);
    __atomic_store_n(&d->flags, htole16(flags), __ATOMIC_RELEASE);
    ram_written(vq->ram_desc, vq->off_desc + vq->used_idx * sizeof *d, sizeof *d);
    advance(vq, &vq->used_idx, &vq->used_wrap, e->slots);
}

void virtq_packed_want_kick(struct virtq *vq, bool on)
{
    struct virtq_packed_event *ev = vq->p_device;
    uint16_t flags = on ? vq->event_idx ? VIRTQ_EVENT_DESC : VIRTQ_EVENT_ENABLE : VIRTQ_EVENT_DISABLE;

    if (flags == VIRTQ_EVENT_DESC)
        __atomic_store_n(&ev->off_wrap, htole16((uint16_t)(vq->last_avail | vq->avail_wrap << 15)), __ATOMIC_RELAXED);
    __atomic_store_n(&ev->flags, htole16(flags), __ATOMIC_RELEASE);
    ram_written(vq->ram_device, vq->off_device, sizeof *ev);
}

bool virtq_packed_wants_interrupt(struct virtq *vq, uint16_t old)
{
    const struct virtq_packed_event *ev = vq->p_driver;
    uint16_t flags = le16toh(__atomic_load_n(&ev->flags, __ATOMIC_ACQUIRE)) & 3;
    uint16_t off_wrap = le16toh(__atomic_load_n(&ev->off_wrap, __ATOMIC_RELAXED));

    if (flags != VIRTQ_EVENT_DESC || !vq->event_idx)
        return flags != VIRTQ_EVENT_DISABLE;
    /* Bring the asked-for slot, the old and the present one onto one line: a slot of the lap before is @num below. */
    uint16_t now = vq->used_idx, event = off_wrap & 0x7fff;
    if ((off_wrap >> 15) != vq->used_wrap)
        event = (uint16_t)(event - vq->num);
    if (old >= now)                                 /* something was used: equal means a full lap */
        old = (uint16_t)(old - vq->num);
    return vring_need_event(event, now, old);
}
