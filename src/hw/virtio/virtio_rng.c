/* SPDX-License-Identifier: MIT */
/* Entropy device (VIRTIO 1.2, 5.4): buffers of the guest are filled from a back end, at most `max-bytes` in `period` ms. */
#include "base/log.h"
#include "hw/virtio/rng_backend.h"
#include "hw/virtio/virtio_forms.h"

#define RNG_QUEUE_SIZE 64
#define RNG_CHUNK 4096

struct virtio_rng {
    struct virtio_dev v;                /* first */
    struct obj *rng;
    uint64_t max_bytes;
    uint32_t period_ms;
    struct virtq *vq;
    struct timer refill;
    uint64_t quota;                     /* bytes left in this period */
    bool serving;                       /* the coroutine runs */
};

static struct virtio_rng *rng_of(struct virtio_dev *v) { return (struct virtio_rng *)v; }

static uint64_t buffer_length(const struct virtio_rng *r, const struct vq_elem *e)
{
    return MIN(MIN(e->in.len, r->quota), RNG_CHUNK);
}

/* One buffer; false if the back end failed and it was given back. */
static bool co_rng_fill(struct virtio_rng *r, struct vq_elem *e, uint8_t *buf)
{
    uint64_t want = buffer_length(r, e);
    int got = want ? co_rng_read(r->rng, buf, want) : 0;

    if (virtq_stale(e)) {
        virtq_push(e, 0);
        return true;
    }
    if (got < 0) {
        log_warn("virtio-rng '%s': the entropy source failed (error %d)", r->v.dev->obj.id, -got);
        virtq_unpop(e);
        return false;
    }
    got = (int)vec_from_buf(&e->in, 0, buf, (size_t)got);
    if (r->max_bytes != INT64_MAX && !timer_armed(&r->refill))
        timer_arm(&r->refill, clock_now(CLOCK_VM) + (int64_t)r->period_ms * 1000000);
    r->quota -= (uint64_t)got;
    virtq_push(e, (uint32_t)got);
    return true;
}

static void co_rng_serve(void *arg)
{
    struct virtio_rng *r = arg;
    uint8_t buf[RNG_CHUNK];
    struct vq_elem *e;
    bool ok = true;

    while (ok && r->quota && ((e = virtq_pop(r->vq)) || !virtq_empty(r->vq)))
        if (e)
            ok = co_rng_fill(r, e, buf);
    r->serving = false;
    virtio_release(&r->v);
}

static void rng_kicked(struct virtq *vq)
{
    struct virtio_rng *r = rng_of(vq->v);

    if (r->serving)
        return;
    r->serving = true;
    virtio_hold(&r->v);
    co_spawn(NULL, r->v.dom, co_rng_serve, r);
}

static void rng_refill(void *arg)
{
    struct virtio_rng *r = arg;

    r->quota = r->max_bytes;
    virtq_kick(r->vq);
}

static uint64_t rng_features(struct virtio_dev *v) { return 0; }

static bool rng_realize(struct virtio_dev *v, struct err *e)
{
    struct virtio_rng *r = rng_of(v);

    r->quota = r->max_bytes;
    virtio_set_config_size(v, 0);
    r->vq = virtio_add_queue(v, RNG_QUEUE_SIZE, 0, rng_kicked);
    timer_init(&r->refill, CLOCK_VM, domain_loop(v->dom), v->dom, rng_refill, r);
    return true;
}

static void stop_timer(void *arg) { timer_fini(arg); }

static void rng_unrealize(struct virtio_dev *v)
{
    loop_call(domain_loop(v->dom), stop_timer, &rng_of(v)->refill);
}

static void rng_reset(struct virtio_dev *v)
{
    timer_disarm(&rng_of(v)->refill);
    rng_of(v)->quota = rng_of(v)->max_bytes;
}

static void rng_resumed(struct virtio_dev *v)
{
    struct virtio_rng *r = rng_of(v);

    if (r->quota < r->max_bytes && r->max_bytes != INT64_MAX && !timer_armed(&r->refill))
        timer_arm(&r->refill, clock_now(CLOCK_VM) + (int64_t)r->period_ms * 1000000);
}

static const struct virtio_model rng_model = {
    .name = "virtio-rng", .id = VIRTIO_ID_ENTROPY, .pci_legacy_id = 0x1005, .pci_class = 0x00ff00, .realize = rng_realize,
    .unrealize = rng_unrealize, .features = rng_features, .reset = rng_reset, .resumed = rng_resumed,
};

static const struct prop rng_props[] = {
    PROP_INCLUDE(struct virtio_rng, v.opt, virtio_props),
    PROP_LINK(struct virtio_rng, rng, "rng", &rng_backend_class, 0, "Source of entropy; the host kernel's generator if left out"),
    PROP_U64(struct virtio_rng, max_bytes, "max-bytes", INT64_MAX, 1, INT64_MAX, "Bytes that the guest gets in one period"),
    PROP_U32(struct virtio_rng, period_ms, "period", 65536, 1, UINT32_MAX, "Length of the period in milliseconds"),
    PROP_END
};

static const struct state_field rng_fields[] = {
    STATE_STRUCT(struct virtio_rng, v, &virtio_dev_state), STATE_UINT(struct virtio_rng, quota, .max = INT64_MAX), STATE_END
};
static const struct state_desc rng_state = { .name = "virtio-rng", .version = 1, .fields = rng_fields };

static const char *const rng_names[] = { "virtio-rng", NULL };
VIRTIO_FORMS(virtio_rng, struct virtio_rng, "virtio-rng", "Entropy device", "Misc", rng_props, &rng_state, &rng_model,
             rng_names);
