/* SPDX-License-Identifier: MIT */
/* What all virtio devices share: features, status, configuration space, queues, errors (VIRTIO 1.2, section 2). */
#include "hw/virtio/virtio.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "core/flags.h"
#include "hw/virtio/virtqueue_int.h"

#define FEATURE(bit, name, on, doc) PROP_BIT(struct virtio_opts, features, bit, name, on, doc)
const struct prop virtio_props[] = {
    FEATURE(VIRTIO_F_INDIRECT_DESC, "indirect_desc", true, "Offer indirect descriptor tables"),
    FEATURE(VIRTIO_F_EVENT_IDX, "event_idx", true, "Offer notification suppression by index"),
    FEATURE(VIRTIO_F_RING_PACKED, "packed", false, "Offer packed rings"),
    FEATURE(VIRTIO_F_IN_ORDER, "in_order", false, "Offer use of buffers in the order in which they were made available"),
    FEATURE(VIRTIO_F_RING_RESET, "queue_reset", true, "Offer the reset of single queues"),
    FEATURE(VIRTIO_F_ACCESS_PLATFORM, "iommu_platform", false,
            "Offer that the device's addresses go through the platform's IOMMU, where there is one"),
    FEATURE(VIRTIO_F_NOTIFY_ON_EMPTY, "notify_on_empty", true, "Offer (to legacy drivers) an interrupt whenever a ring runs empty"),
    FEATURE(VIRTIO_F_ANY_LAYOUT, "any_layout", true, "Offer (to legacy drivers) any split of a request into descriptors"),
    PROP_END
};

#define LEGACY_ONLY (BIT64(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT64(VIRTIO_F_ANY_LAYOUT))
/* What others rely on until a reset; a driver must not take them back either (2.1.1). */
#define STICKY_STATUS_BITS (VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK | VIRTIO_S_NEEDS_RESET)
#define MODERN_STATUS_BITS (VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_DRIVER_OK | VIRTIO_S_FEATURES_OK | VIRTIO_S_FAILED)

/* ---- in flight ---- */

void virtio_hold(struct virtio_dev *v)
{
    v->in_flight++;
}

void virtio_release(struct virtio_dev *v)
{
    v->in_flight--;
    if (v->in_flight != v->parked)
        return;
    if (v->idle.first && loop_current() != domain_loop(v->dom))
        domain_post(&v->drained);           /* who waits does so on the home loop */
    else
        co_queue_wake_all(&v->idle);
}

static void virtio_drained(void *arg)
{
    struct virtio_dev *v = arg;

    if (v->in_flight == v->parked)
        co_queue_wake_all(&v->idle);
}

void co_virtio_quiesce(struct virtio_dev *v)
{
    v->quiesced = true;
    if (v->model->quiesce)
        v->model->quiesce(v);
    while (v->in_flight != v->parked)
        co_queue_wait(&v->idle);
}

/* ---- errors, notifications ---- */

/* Who waits on the interrupt status with programs made for QEMU may look at the bit of the queues only; a driver that looks there finds nothing new. */
static void tell_config(struct virtio_dev *v)
{
    unsigned isr = cli_flags.compat_qemu ? VIRTIO_ISR_CONFIG | VIRTIO_ISR_QUEUE : VIRTIO_ISR_CONFIG;

    if (v->status & VIRTIO_S_DRIVER_OK)
        v->transport->interrupt(v, isr, v->config_vector);
}

bool virtio_error(struct virtio_dev *v, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_guest("%s '%s': %s", v->model->name, v->dev->obj.id, text);
    if (v->broken)
        return false;
    v->broken = true;
    if (virtio_has(v, VIRTIO_F_VERSION_1)) {
        v->status |= VIRTIO_S_NEEDS_RESET;
        tell_config(v);
    }
    return false;
}

void virtio_config_changed(struct virtio_dev *v)
{
    v->config_gen++;
    tell_config(v);
}

/* ---- queues ---- */

static void virtq_kicked(void *arg)
{
    struct virtq *vq = arg;

    if (vq->enabled && virtio_running(vq->v))
        vq->handler(vq);
}

static void virtq_flush_post(void *arg)
{
    virtq_flush(arg);
}

struct virtq *virtio_add_queue(struct virtio_dev *v, unsigned num, uint32_t elem_size, void (*handler)(struct virtq *))
{
    struct virtq *vq = &v->vq[v->n_queues];

    vq->v = v;
    vq->loop = domain_loop(v->dom);
    vq->index = (uint16_t)v->n_queues++;
    vq->num = vq->num_default = (uint16_t)num;
    vq->vector = VIRTIO_NO_VECTOR;
    vq->avail_wrap = vq->used_wrap = true;
    vq->handler = handler;
    vq->notify_fd = -1;
    vq->elem_size = elem_size ? elem_size : sizeof(struct vq_elem);
    list_init(&vq->inflight);
    list_init(&vq->free);
    vq->kick = (struct post){ .fn = virtq_kicked, .arg = vq, .dom = v->dom };
    vq->flush = (struct post){ .fn = virtq_flush_post, .arg = vq, .dom = v->dom };
    return vq;
}

struct virtq *virtio_queue(struct virtio_dev *v, unsigned i)
{
    return i < v->n_queues ? &v->vq[i] : NULL;
}

bool virtq_set_num(struct virtq *vq, uint32_t num)
{
    if (!num || num > vq->num_default || (!is_pow2(num) && !virtio_has(vq->v, VIRTIO_F_RING_PACKED))) {
        log_guest("%s '%s': queue %u: size %u is not allowed", vq->v->model->name, vq->v->dev->obj.id, vq->index, num);
        return false;
    }
    vq->num = (uint16_t)num;
    vq->map_gen = 0;
    return true;
}

void virtq_set_flavour(struct virtq *vq)
{
    const struct virtio_dev *v = vq->v;

    vq->packed = virtio_has(v, VIRTIO_F_RING_PACKED);
    vq->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
    vq->indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC);
    vq->in_order = virtio_has(v, VIRTIO_F_IN_ORDER);
    vq->map_gen = 0;
}

void virtq_enable(struct virtq *vq)
{
    virtq_set_flavour(vq);
    vq->enabled = true;
    if (vq->v->status & VIRTIO_S_DRIVER_OK)
        virtq_kick(vq);
}

void virtq_set_legacy(struct virtq *vq, uint64_t addr, uint32_t align)
{
    vq->desc = addr;
    vq->driver = addr + 16ull * vq->num;
    vq->device = align_up(vq->driver + 6 + 2ull * vq->num, align);
    vq->map_gen = 0;
}

void virtq_forget(struct virtq *vq)
{
    struct vq_elem *e;

    vq->gen++;
    if (vq->v->model->queue_reset)
        vq->v->model->queue_reset(vq);
    list_for_each(e, &vq->inflight, link)
        if (virtq_stale(e) && (e->done || !e->mapped))
            vq_elem_put(e);
}

void virtq_reset(struct virtq *vq)
{
    virtq_forget(vq);
    vq->num = vq->num_default;
    vq->vector = VIRTIO_NO_VECTOR;
    vq->enabled = vq->packed = vq->event_idx = vq->indirect = vq->in_order = false;
    vq->desc = vq->driver = vq->device = 0;
    vq->last_avail = vq->used_idx = vq->signalled = vq->avail_shadow = 0;
    vq->signalled_valid = vq->unsignalled = vq->batching = false;
    vq->avail_wrap = vq->used_wrap = true;
    vq->inuse = 0;
    vq->map_gen = 0;
}

static void virtq_free(struct virtq *vq)
{
    struct list *n;

    while ((n = list_pop(&vq->free)))
        vq_elem_free(list_entry(n, struct vq_elem, link));
    free(vq->table);
}

/* ---- features and status ---- */

uint32_t virtio_offered_word(const struct virtio_dev *v, uint32_t sel, bool legacy)
{
    uint64_t f = legacy ? v->offered & 0xffffffffu & ~v->model->modern_only : v->offered & ~LEGACY_ONLY;

    return sel < 2 ? (uint32_t)(f >> (32 * sel)) : 0;
}

void virtio_driver_word(struct virtio_dev *v, uint32_t sel, uint32_t bits)
{
    if (sel >= 2 || (v->status & VIRTIO_S_FEATURES_OK))
        return;
    v->asked = bits_set(v->asked, 32 * sel, 32, bits);
}

void virtio_legacy_features(struct virtio_dev *v, uint32_t bits)
{
    if (v->status & VIRTIO_S_DRIVER_OK)
        return;
    v->asked = v->features = bits & virtio_offered_word(v, 0, true);
    if (v->model->negotiated)
        v->model->negotiated(v);
}

/* 2.2: a subset of the offer, with VERSION_1, that the model can live with. */
static bool features_accepted(struct virtio_dev *v)
{
    uint64_t extra = v->asked & ~(v->offered & ~LEGACY_ONLY);

    if (extra)
        log_guest("%s '%s': driver accepts features that were not offered (0x%llx)", v->model->name, v->dev->obj.id,
                  (unsigned long long)extra);
    else if (!(v->asked & BIT64(VIRTIO_F_VERSION_1)))
        log_guest("%s '%s': driver does not accept VIRTIO_F_VERSION_1", v->model->name, v->dev->obj.id);
    else
        return !v->model->accept || v->model->accept(v, v->asked);
    return false;
}

/* 3.1.1, step 5: the driver's choice holds from here on, or FEATURES_OK stays clear. */
static bool features_settle(struct virtio_dev *v)
{
    if (!features_accepted(v))
        return false;
    v->features = v->asked;
    if (v->model->negotiated)
        v->model->negotiated(v);
    return true;
}

static void virtio_start(struct virtio_dev *v)
{
    for (unsigned i = 0; i < v->n_queues; i++)
        if (v->vq[i].enabled)
            virtq_set_flavour(&v->vq[i]);       /* legacy drivers may set features after the ring */
    if (v->model->started)
        v->model->started(v);
    for (unsigned i = 0; i < v->n_queues; i++)
        if (v->vq[i].enabled)
            virtq_kick(&v->vq[i]);
}

uint8_t virtio_status(const struct virtio_dev *v)
{
    if (!v->status && v->in_flight != v->parked)
        return VIRTIO_S_NEEDS_RESET;
    return v->status;
}

void virtio_set_status(struct virtio_dev *v, uint8_t s)
{
    uint8_t old = v->status;

    if (!s) {
        virtio_reset(v);
        return;
    }
    s = (uint8_t)((s & MODERN_STATUS_BITS) | (old & STICKY_STATUS_BITS));
    if (!v->transport->legacy_layout(v)) {
        if ((s & ~old & VIRTIO_S_FEATURES_OK) && !features_settle(v))
            s &= (uint8_t)~VIRTIO_S_FEATURES_OK;
        if ((s & ~old & VIRTIO_S_DRIVER_OK) && !(s & VIRTIO_S_FEATURES_OK)) {
            log_guest("%s '%s': DRIVER_OK without FEATURES_OK", v->model->name, v->dev->obj.id);
            s &= (uint8_t)~VIRTIO_S_DRIVER_OK;
        }
    }
    v->status = s;
    if (s & ~old & VIRTIO_S_DRIVER_OK)
        virtio_start(v);
}

void virtio_reset(struct virtio_dev *v)
{
    v->status = v->isr = 0;
    v->asked = v->features = 0;
    v->broken = v->quiesced = false;
    v->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned i = 0; i < v->n_queues; i++)
        virtq_reset(&v->vq[i]);
    if (v->model->reset)
        v->model->reset(v);
}

/* ---- configuration space ---- */

void virtio_set_config_size(struct virtio_dev *v, uint32_t size)
{
    v->config_size = size;
    v->config = xcalloc(1, size ? size : 1);
}

uint32_t virtio_config_read(struct virtio_dev *v, uint32_t off, unsigned size)
{
    uint8_t tmp[4] = { 0 };

    if (v->model->config_read)
        v->model->config_read(v);
    for (unsigned i = 0; i < size && i < 4; i++)
        if (range_ok(off, i + 1, v->config_size))
            tmp[i] = v->config[off + i];
    return ld_le32(tmp);
}

void virtio_config_write(struct virtio_dev *v, uint32_t off, uint32_t val, unsigned size)
{
    uint8_t old[4];

    if (!v->model->config_write || size > 4 || !range_ok(off, size, v->config_size))
        return;
    memcpy(old, v->config + off, size);
    st_le(v->config + off, val, size);
    v->model->config_write(v, off, size, old);
}

/* ---- life ---- */

/* Restored requests go back to the model, held work is tried again, rings are looked at. */
static void virtio_resume(void *arg)
{
    struct virtio_dev *v = arg;

    if (v->dev->leaving)
        return;
    v->quiesced = false;
    for (unsigned i = 0; i < v->n_queues; i++) {
        struct vq_elem *e;
        list_for_each(e, &v->vq[i].inflight, link)
            if (!e->mapped && !e->done && v->model->restore)
                v->model->restore(e);
    }
    if (v->model->resumed)
        v->model->resumed(v);
    if (virtio_running(v))
        for (unsigned i = 0; i < v->n_queues; i++) {
            virtq_flush(&v->vq[i]);
            if (v->vq[i].enabled)
                virtq_kick(&v->vq[i]);
        }
}

bool virtio_realize(struct virtio_dev *v, const struct virtio_model *m, const struct virtio_transport *t, struct dev *dev,
                    struct dma *dma, struct err *e)
{
    v->model = m;
    v->transport = t;
    v->dev = dev;
    v->dom = dev->dom;
    v->dma = dma;
    v->config_vector = VIRTIO_NO_VECTOR;
    v->n_queues = 0;
    v->in_flight = v->parked = 0;
    v->vq = xcalloc(VIRTIO_QUEUE_MAX + 1, sizeof *v->vq);
    v->drained = (struct post){ .fn = virtio_drained, .arg = v, .dom = v->dom };
    if (!m->realize(v, e)) {
        for (unsigned i = 0; i < v->n_queues; i++)
            virtq_free(&v->vq[i]);
        free(v->vq);
        free(v->config);
        v->vq = NULL;
        v->config = NULL;
        return false;
    }
    v->offered = (m->features(v) | v->opt.features | BIT64(VIRTIO_F_VERSION_1)) & (m->limit ? m->limit(v) : UINT64_MAX);
    run_resume_init(&v->resume, v->dom, virtio_resume, v);
    return true;
}

static void cancel_posts(struct virtio_dev *v)
{
    loop_post_cancel(domain_loop(v->dom), &v->drained);
    for (unsigned i = 0; i < v->n_queues; i++) {
        loop_post_cancel(v->vq[i].loop, &v->vq[i].kick);
        loop_post_cancel(v->vq[i].loop, &v->vq[i].flush);
    }
}

void virtio_unrealize(struct virtio_dev *v)
{
    run_resume_fini(&v->resume);
    domain_lock(v->dom);
    virtio_reset(v);
    domain_unlock(v->dom);
    cancel_posts(v);
    if (v->model->unrealize)
        v->model->unrealize(v);
    for (unsigned i = 0; i < v->n_queues; i++)
        virtq_free(&v->vq[i]);
    free(v->vq);
    free(v->config);
    v->vq = NULL;
    v->config = NULL;
    v->n_queues = 0;
}
