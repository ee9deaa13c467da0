/* SPDX-License-Identifier: MIT */
/* Virtqueues: elements, split rings (VIRTIO 1.2, 2.7), batching of notifications. */
#include <stdlib.h>
#include "hw/virtio/virtqueue_int.h"
#include "base/evfd.h"
#include "base/log.h"

/* ---- mapping of the rings ---- */

static uint32_t split_event_bytes(const struct virtq *vq)
{
    return vq->event_idx ? 2 : 0;
}

static bool area_map(struct virtq *vq, const char *what, uint64_t addr, uint64_t len, unsigned align, bool write,
                     void **p, struct ram **ram, uint64_t *off)
{
    struct ram *r = NULL;
    uint64_t o = 0;

    if (addr & (align - 1))
        return virtio_error(vq->v, "queue %u: %s area at 0x%llx is not aligned to %u", vq->index, what,
                            (unsigned long long)addr, align);
    *p = dma_map_fixed(vq->v->dma, addr, len, write, &r, &o);
    if (!*p)
        return virtio_error(vq->v, "queue %u: %s area at 0x%llx is not RAM", vq->index, what, (unsigned long long)addr);
    if (ram) {
        *ram = r;
        *off = o;
    }
    return true;
}

bool virtq_map(struct virtq *vq)
{
    uint64_t gen = dma_view_gen(vq->v->dma), n = vq->num, ev = split_event_bytes(vq);

    if (likely(vq->map_gen == gen))
        return true;
    vq->map_gen = 0;
    if (!vq->packed && !is_pow2(n))         /* set while the driver still thought of packed rings */
        return virtio_error(vq->v, "queue %u: a split ring of %u entries", vq->index, vq->num);
    if (!area_map(vq, "descriptor", vq->desc, n * 16, 16, vq->packed, &vq->p_desc, &vq->ram_desc, &vq->off_desc))
        return false;
    if (vq->packed) {
        if (!area_map(vq, "driver", vq->driver, 4, 4, false, &vq->p_driver, NULL, NULL) ||
            !area_map(vq, "device", vq->device, 4, 4, true, &vq->p_device, &vq->ram_device, &vq->off_device))
            return false;
    } else if (!area_map(vq, "available", vq->driver, 4 + 2 * n + ev, 2, false, &vq->p_driver, NULL, NULL) ||
               !area_map(vq, "used", vq->device, 4 + 8 * n + ev, 4, true, &vq->p_device, &vq->ram_device,
                         &vq->off_device)) {
        return false;
    }
    vq->map_gen = gen;
    return true;
}

/* ---- elements ---- */

struct vq_elem *vq_elem_get(struct virtq *vq)
{
    struct list *n = list_pop(&vq->free);
    struct vq_elem *e;

    if (n) {
        e = list_entry(n, struct vq_elem, link);
        vq->n_free--;
    } else {
        e = xcalloc(1, vq->elem_size);
        list_init(&e->link);
        e->vq = vq;
        dma_vec_init(&e->out, vq->v->dma, false);
        dma_vec_init(&e->in, vq->v->dma, true);
    }
    e->gen = vq->gen;
    e->n_seg = e->n_out = 0;
    e->used_len = 0;
    e->slots = 1;
    e->mapped = true;
    e->done = e->parked = false;
    list_push(&vq->inflight, &e->link);
    vq->in_flight++;
    vq->v->in_flight++;
    return e;
}

void vq_elem_free(struct vq_elem *e)
{
    dma_vec_free(&e->out);
    dma_vec_free(&e->in);
    free(e->seg);
    free(e);
}

void vq_elem_put(struct vq_elem *e)
{
    struct virtq *vq = e->vq;

    virtq_unpark(e);
    if (e->mapped) {
        dma_unmap(&e->out, 0);
        dma_unmap(&e->in, e->used_len);
    }
    list_del(&e->link);
    vq->in_flight--;
    if (vq->n_free < vq->num_default) {
        vq->n_free++;
        list_push_front(&vq->free, &e->link);
    } else {
        vq_elem_free(e);
    }
    virtio_release(vq->v);
}

/* Grows the record of segments; the bound was checked. */
static bool elem_grow(struct vq_elem *e)
{
    uint32_t cap = e->cap_seg ? e->cap_seg * 2 : 8;
    struct vq_seg *s = realloc(e->seg, cap * sizeof *s);

    if (!s)
        return false;
    e->seg = s;
    e->cap_seg = cap;
    return true;
}

bool vq_elem_add(struct vq_elem *e, uint64_t addr, uint32_t len, bool device_writes)
{
    struct virtio_dev *v = e->vq->v;
    struct dma_vec *vec = device_writes ? &e->in : &e->out;

    if (e->n_seg == VIRTQ_SIZE_MAX || (e->n_seg == e->cap_seg && !elem_grow(e)))
        return virtio_error(v, "queue %u: a chain of more than %d descriptors", e->vq->index, VIRTQ_SIZE_MAX);
    if (!device_writes && e->n_seg != e->n_out)
        return virtio_error(v, "queue %u: a readable descriptor after a writable one", e->vq->index);
    if (device_writes && vec->len + len > UINT32_MAX)      /* what is used is told in 32 bits */
        return virtio_error(v, "queue %u: a buffer of more than 4 GiB", e->vq->index);
    if (len && !dma_map(vec, addr, len))
        return virtio_error(v, "queue %u: buffer at 0x%llx+0x%x is not RAM", e->vq->index, (unsigned long long)addr, len);
    e->seg[e->n_seg++] = (struct vq_seg){ addr, len };
    e->n_out += !device_writes;
    return true;
}

bool virtq_remap(struct vq_elem *e)
{
    uint32_t n = e->n_seg, n_out = e->n_out;

    if (e->mapped)
        return true;
    e->mapped = true;
    e->n_seg = e->n_out = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!vq_elem_add(e, e->seg[i].addr, e->seg[i].len, i >= n_out))
            return false;
    return true;
}

void virtq_park(struct vq_elem *e)
{
    if (e->parked)
        return;
    e->parked = true;
    e->vq->v->parked++;
    virtio_hold(e->vq->v);
    virtio_release(e->vq->v);           /* the condition of quiesce may hold now */
}

void virtq_unpark(struct vq_elem *e)
{
    if (!e->parked)
        return;
    e->parked = false;
    e->vq->v->parked--;
}

unsigned vq_table_read(struct virtq *vq, uint64_t addr, uint32_t len)
{
    unsigned n = len / sizeof(struct virtq_desc);

    if (!vq->indirect || len % sizeof(struct virtq_desc) || !n || n > VIRTQ_SIZE_MAX) {
        virtio_error(vq->v, "queue %u: indirect table of %u bytes", vq->index, len);
        return 0;
    }
    if (!vq->table)
        vq->table = xcalloc(VIRTQ_SIZE_MAX, sizeof(struct virtq_desc));
    if (!dma_read(vq->v->dma, addr, vq->table, len)) {
        virtio_error(vq->v, "queue %u: indirect table at 0x%llx is not RAM", vq->index, (unsigned long long)addr);
        return 0;
    }
    return n;
}

/* ---- split rings ---- */

static uint16_t *split_used_event(struct virtq *vq) { return &((struct virtq_avail *)vq->p_driver)->ring[vq->num]; }
static uint16_t *split_avail_event(struct virtq *vq) { return (uint16_t *)&((struct virtq_used *)vq->p_device)->ring[vq->num]; }

static bool split_avail(struct virtq *vq)
{
    struct virtq_avail *a = vq->p_driver;

    if (vq->avail_shadow != vq->last_avail)
        return true;
    vq->avail_shadow = le16toh(__atomic_load_n(&a->idx, __ATOMIC_ACQUIRE));
    if ((uint16_t)(vq->avail_shadow - vq->last_avail) > vq->num) {
        uint16_t seen = vq->avail_shadow;
        vq->avail_shadow = vq->last_avail;
        return virtio_error(vq->v, "queue %u: available index %u is %u ahead of a ring of %u", vq->index, seen,
                            (uint16_t)(seen - vq->last_avail), vq->num);
    }
    return vq->avail_shadow != vq->last_avail;
}

/* Walks the chain at @head into @e (2.7.5): each descriptor is copied once; at most as many as the table has. */
static bool split_chain(struct virtq *vq, struct vq_elem *e, uint16_t head)
{
    const struct virtq_desc *table = vq->p_desc;
    unsigned n = vq->num, left = n, i = head;
    bool nested = false;

    for (;;) {
        struct virtq_desc d;
        if (i >= n || !left--)
            return virtio_error(vq->v, "queue %u: descriptor chain from %u leaves its table or loops", vq->index, head);
        memcpy(&d, &table[i], sizeof d);
        copied_once();
        uint16_t flags = le16toh(d.flags);
        if (flags & VIRTQ_DESC_F_INDIRECT) {
            if (nested || (flags & VIRTQ_DESC_F_NEXT))
                return virtio_error(vq->v, "queue %u: indirect table in a wrong place", vq->index);
            nested = true;
            n = left = vq_table_read(vq, le64toh(d.addr), le32toh(d.len));
            if (!n)
                return false;
            table = vq->table;
            i = 0;
            continue;
        }
        if (!vq_elem_add(e, le64toh(d.addr), le32toh(d.len), flags & VIRTQ_DESC_F_WRITE))
            return false;
        if (!(flags & VIRTQ_DESC_F_NEXT))
            return true;
        i = le16toh(d.next);
    }
}

static struct vq_elem *split_pop(struct virtq *vq)
{
    struct virtq_avail *a = vq->p_driver;
    struct vq_elem *e;

    if (!split_avail(vq))
        return NULL;
    if (vq->inuse >= vq->num) {
        virtio_error(vq->v, "queue %u: more buffers than the ring has entries", vq->index);
        return NULL;
    }
    uint16_t head = le16toh(__atomic_load_n(&a->ring[vq->last_avail & (vq->num - 1)], __ATOMIC_RELAXED));
    e = vq_elem_get(vq);
    e->id = head;
    if (!split_chain(vq, e, head)) {
        vq_elem_put(e);
        return NULL;
    }
    vq->last_avail++;
    vq->inuse++;
    return e;
}

static void split_used(struct virtq *vq, const struct vq_elem *e)
{
    struct virtq_used *u = vq->p_device;
    unsigned slot = vq->used_idx & (vq->num - 1);

    u->ring[slot].id = htole32(e->id);
    u->ring[slot].len = htole32(e->used_len);
    vq->used_idx++;
    __atomic_store_n(&u->idx, htole16(vq->used_idx), __ATOMIC_RELEASE);
    ram_written(vq->ram_device, vq->off_device + offsetof(struct virtq_used, ring) + slot * 8, 8);
    ram_written(vq->ram_device, vq->off_device, 4);
}

static void split_want_kick(struct virtq *vq, bool on)
{
    struct virtq_used *u = vq->p_device;

    if (vq->event_idx) {
        if (!on)
            return;                     /* the index that was asked for is passed already */
        __atomic_store_n(split_avail_event(vq), htole16(vq->last_avail), __ATOMIC_RELAXED);
        ram_written(vq->ram_device, vq->off_device + 4 + 8ull * vq->num, 2);
    } else {
        __atomic_store_n(&u->flags, htole16(on ? 0 : VIRTQ_USED_F_NO_NOTIFY), __ATOMIC_RELAXED);
        ram_written(vq->ram_device, vq->off_device, 2);
    }
}

static bool split_wants_interrupt(struct virtq *vq, uint16_t old)
{
    struct virtq_avail *a = vq->p_driver;

    if (virtio_has(vq->v, VIRTIO_F_NOTIFY_ON_EMPTY) && !vq->inuse && !split_avail(vq))
        return true;
    if (!vq->event_idx)
        return !(le16toh(__atomic_load_n(&a->flags, __ATOMIC_RELAXED)) & VIRTQ_AVAIL_F_NO_INTERRUPT);
    uint16_t event = le16toh(__atomic_load_n(split_used_event(vq), __ATOMIC_RELAXED));
    return vring_need_event(event, vq->used_idx, old);
}

/* ---- both flavours ---- */

static bool virtq_ready(struct virtq *vq)
{
    return vq->enabled && virtio_running(vq->v) && virtq_map(vq);
}

struct vq_elem *virtq_pop(struct virtq *vq)
{
    if (!virtq_ready(vq))
        return NULL;
    return vq->packed ? virtq_packed_pop(vq) : split_pop(vq);
}

void virtq_unpop(struct vq_elem *e)
{
    struct virtq *vq = e->vq;

    e->used_len = 0;
    if (!virtq_stale(e)) {
        if (vq->packed) {
            virtq_packed_unpop(e);
        } else {
            vq->last_avail--;
            vq->inuse--;
        }
    }
    vq_elem_put(e);
}

bool virtq_empty(struct virtq *vq)
{
    if (!virtq_ready(vq))
        return true;
    virtq_want_kick(vq, true);
    return !(vq->packed ? virtq_packed_avail(vq) : split_avail(vq));
}

void virtq_want_kick(struct virtq *vq, bool on)
{
    if (!virtq_ready(vq))
        return;
    if (vq->packed)
        virtq_packed_want_kick(vq, on);
    else
        split_want_kick(vq, on);
    if (on)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);    /* the wish is seen before the ring is looked at again */
}

/* Writes one used element; the ring may have become unreachable meanwhile. */
static void used_one(struct virtq *vq, struct vq_elem *e)
{
    if (vq->enabled && !vq->v->broken && virtq_map(vq)) {
        vq->inuse -= vq->packed ? e->slots : 1;
        if (vq->packed)
            virtq_packed_used(vq, e);
        else
            split_used(vq, e);
        vq->unsignalled = true;
        vq->pushed++;
    }
    vq_elem_put(e);
}

/* VIRTIO_F_IN_ORDER: what is done leaves from the head of the list only. */
static void used_in_order(struct virtq *vq, struct vq_elem *e)
{
    e->done = true;
    virtq_park(e);
    list_for_each(e, &vq->inflight, link) {
        if (virtq_stale(e))
            continue;
        if (!e->done)
            break;
        used_one(vq, e);
    }
}

void virtq_push(struct vq_elem *e, uint32_t written)
{
    struct virtq *vq = e->vq;

    TRACE(virtio_push, "%s queue %u: %u bytes", vq->v->model->name, vq->index, written);
    e->used_len = written;
    if (virtq_stale(e)) {
        vq_elem_put(e);
        return;
    }
    if (vq->in_order)
        used_in_order(vq, e);
    else
        used_one(vq, e);
    if (vq->unsignalled && !vq->batching)
        loop_post(vq->loop, &vq->flush);
}

void virtq_flush(struct virtq *vq)
{
    uint16_t old = vq->signalled;
    bool wanted, valid = vq->signalled_valid;

    if (!vq->unsignalled || !vq->enabled || vq->v->broken || !virtq_map(vq))
        return;
    vq->unsignalled = false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);        /* used entries are seen before the driver's wish is read */
    wanted = vq->packed ? virtq_packed_wants_interrupt(vq, old) : split_wants_interrupt(vq, old);
    vq->signalled = vq->used_idx;
    vq->signalled_valid = true;
    if (wanted || (!valid && vq->event_idx))
        vq->v->transport->interrupt(vq->v, VIRTIO_ISR_QUEUE, vq->vector);
}

void virtq_drain(struct virtq *vq, bool (*serve)(struct virtq *, struct vq_elem *))
{
    unsigned budget = vq->num;
    struct vq_elem *e;

    vq->batching = true;
    virtq_want_kick(vq, false);
    for (;;) {
        e = virtq_pop(vq);
        if (!e) {
            if (virtq_empty(vq))
                break;
            virtq_want_kick(vq, false);
            continue;
        }
        if (!budget--) {                            /* others want the loop too */
            virtq_unpop(e);
            virtq_kick(vq);
            break;
        }
        if (!serve(vq, e)) {
            virtq_want_kick(vq, true);
            break;
        }
    }
    vq->batching = false;
    virtq_flush(vq);
}

void virtq_kick(struct virtq *vq)
{
    TRACE(virtio_kick, "%s queue %u", vq->v->model->name, vq->index);
    if (vq->notify_fd < 0)
        loop_post(vq->loop, &vq->kick);
    else
        evfd_tell(vq->notify_fd);
}
