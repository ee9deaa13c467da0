/* SPDX-License-Identifier: MIT */
/* Saved state of virtio devices: negotiation, rings, and the buffers that the device holds. */
#include <stdlib.h>
#include "hw/virtio/virtqueue_int.h"

/*
 * Held buffers: count, then for each id, slots, segments, readable segments, bytes written, flags (bit 0: served already, it
 * waits for its turn), and the segments as (address, length). All little endian.
 */
#define ELEM_HEAD 17
#define ELEM_SEG 12

static void inflight_save(const void *obj, struct str *out)
{
    const struct list *head = &((const struct virtq *)obj)->inflight, *n;
    uint8_t b[ELEM_HEAD];
    uint32_t count = 0;

    for (n = head->next; n != head; n = n->next)
        count++;
    st_le32(b, count);
    str_addn(out, b, 4);
    for (n = head->next; n != head; n = n->next) {
        const struct vq_elem *e = list_entry(n, struct vq_elem, link);
        st_le16(b, e->id);
        st_le16(b + 2, e->slots);
        st_le32(b + 4, e->n_seg);
        st_le32(b + 8, e->n_out);
        st_le32(b + 12, e->used_len);
        b[16] = e->done;
        str_addn(out, b, ELEM_HEAD);
        for (uint32_t i = 0; i < e->n_seg; i++) {
            st_le64(b, e->seg[i].addr);
            st_le32(b + 8, e->seg[i].len);
            str_addn(out, b, ELEM_SEG);
        }
    }
}

static bool elem_load(struct virtq *vq, const uint8_t **p, size_t *left)
{
    const uint8_t *b = *p;
    struct vq_elem *e;

    if (*left < ELEM_HEAD)
        return false;
    uint32_t n_seg = ld_le32(b + 4), n_out = ld_le32(b + 8), slots = ld_le16(b + 2);
    if (n_seg > VIRTQ_SIZE_MAX || n_out > n_seg || !slots || slots > vq->num_default ||
        *left < ELEM_HEAD + (size_t)n_seg * ELEM_SEG)
        return false;
    e = vq_elem_get(vq);
    e->id = ld_le16(b);
    e->slots = (uint16_t)slots;
    e->n_seg = n_seg;
    e->n_out = n_out;
    e->used_len = ld_le32(b + 12);
    e->done = b[16] & 1;
    e->mapped = false;
    if (n_seg > e->cap_seg) {
        free(e->seg);
        e->cap_seg = n_seg;
        e->seg = xcalloc(n_seg, sizeof *e->seg);
    }
    for (uint32_t i = 0; i < n_seg; i++) {
        e->seg[i].addr = ld_le64(b + ELEM_HEAD + i * ELEM_SEG);
        e->seg[i].len = ld_le32(b + ELEM_HEAD + i * ELEM_SEG + 8);
    }
    virtq_park(e);
    *p += ELEM_HEAD + (size_t)n_seg * ELEM_SEG;
    *left -= ELEM_HEAD + (size_t)n_seg * ELEM_SEG;
    return true;
}

static bool inflight_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct virtq *vq = obj;
    const uint8_t *p = data;
    uint32_t count;

    if (len < 4)
        return err_set(e, ERR_VALUE, "held buffers of queue %u: truncated", vq->index);
    count = ld_le32(p);
    p += 4;
    len -= 4;
    virtq_forget(vq);
    if (count > vq->num_default)
        return err_set(e, ERR_VALUE, "held buffers of queue %u: %u of at most %u", vq->index, count, vq->num_default);
    while (count--)
        if (!elem_load(vq, &p, &len))
            return err_set(e, ERR_VALUE, "held buffers of queue %u: malformed", vq->index);
    return len == 0 || err_set(e, ERR_VALUE, "held buffers of queue %u: %zu bytes too many", vq->index, len);
}

static const struct state_custom inflight_custom = { inflight_save, inflight_load };

static const struct state_field virtq_fields[] = {
    STATE_UINT(struct virtq, num, .max = VIRTQ_SIZE_MAX),
    STATE_UINT(struct virtq, vector),
    STATE_BOOL(struct virtq, enabled),
    STATE_UINT(struct virtq, desc), STATE_UINT(struct virtq, driver), STATE_UINT(struct virtq, device),
    STATE_UINT(struct virtq, last_avail), STATE_UINT(struct virtq, used_idx), STATE_UINT(struct virtq, signalled),
    STATE_BOOL(struct virtq, signalled_valid), STATE_BOOL(struct virtq, avail_wrap), STATE_BOOL(struct virtq, used_wrap),
    STATE_BOOL(struct virtq, unsignalled),
    STATE_CUSTOM(struct virtq, inflight, &inflight_custom),
    STATE_END
};

static const struct state_desc virtq_state = { .name = "virtq", .version = 1, .fields = virtq_fields };

static const struct state_field virtio_dev_fields[] = {
    STATE_UINT(struct virtio_dev, asked), STATE_UINT(struct virtio_dev, features), STATE_UINT(struct virtio_dev, status), STATE_UINT(struct virtio_dev, isr),
    STATE_BOOL(struct virtio_dev, broken), STATE_UINT(struct virtio_dev, config_vector), STATE_UINT(struct virtio_dev, config_gen),
    { .name = "config", .kind = ST_PTR_BYTES, .off = offsetof(struct virtio_dev, config), .size = 1, .count = 1,
      .count_off = offsetof(struct virtio_dev, config_size), .max = 4096 },
    { .name = "queues", .kind = ST_PTR_STRUCT, .off = offsetof(struct virtio_dev, vq), .size = sizeof(struct virtq),
      .count_off = offsetof(struct virtio_dev, n_queues), .max = VIRTIO_QUEUE_MAX, .sub = &virtq_state },
    STATE_END
};

/* A ring within its bounds, features within the offer; what follows from them is computed again. */
static bool virtio_post_load(void *obj, struct err *e)
{
    struct virtio_dev *v = obj;

    if (v->features & ~v->offered)
        return err_set(e, ERR_VALUE, "%s '%s': the saved driver uses features 0x%llx that this device does not offer",
                       v->model->name, v->dev->obj.id, (unsigned long long)(v->features & ~v->offered));
    if ((v->status & VIRTIO_S_FEATURES_OK) && v->model->accept && !v->model->accept(v, v->features))
        return err_set(e, ERR_VALUE, "%s '%s': the saved driver uses features 0x%llx, which do not go together", v->model->name, v->dev->obj.id,
                       (unsigned long long)v->features);
    for (unsigned i = 0; i < v->n_queues; i++) {
        struct virtq *vq = &v->vq[i];
        struct vq_elem *el;
        bool packed = virtio_has(v, VIRTIO_F_RING_PACKED);
        if (!vq->num || vq->num > vq->num_default || (!packed && !is_pow2(vq->num)))
            return err_set(e, ERR_VALUE, "%s '%s': queue %u has a saved size of %u", v->model->name, v->dev->obj.id, i, vq->num);
        if (packed && (vq->last_avail >= vq->num || vq->used_idx >= vq->num || vq->signalled >= vq->num))
            return err_set(e, ERR_VALUE, "%s '%s': queue %u: a saved index is outside the ring", v->model->name, v->dev->obj.id, i);
        virtq_set_flavour(vq);
        vq->avail_shadow = vq->last_avail;
        vq->inuse = 0;
        list_for_each(el, &vq->inflight, link)
            if (!virtq_stale(el))
                vq->inuse += packed ? el->slots : 1;
    }
    return true;
}

const struct state_desc virtio_dev_state = {
    .name = "virtio", .version = 1, .fields = virtio_dev_fields, .post_load = virtio_post_load,
};
