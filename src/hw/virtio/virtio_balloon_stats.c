/* SPDX-License-Identifier: MIT */
/* Memory statistics of the guest (VIRTIO 1.2, 5.5.6.3): it leaves a buffer, which goes back to ask for new numbers. */
#include "base/log.h"
#include "hw/virtio/virtio_balloon.h"

static const char *const names[VBALLOON_STATS] = {
    "stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults", "stat-free-memory", "stat-total-memory",
    "stat-available-memory", "stat-disk-caches", "stat-htlb-pgalloc", "stat-htlb-pgfail", "stat-oom-kills", "stat-alloc-stalls",
    "stat-async-scans", "stat-direct-scans", "stat-async-reclaims", "stat-direct-reclaims",
};

/* What the guest does not tell is -1. */
static void publish(struct virtio_balloon *b, const uint64_t *val, int64_t when)
{
    json_t *o = json_object();

    for (unsigned i = 0; i < VBALLOON_STATS; i++)
        json_object_set_new(o, names[i], json_integer((json_int_t)val[i]));
    json_decref(b->stats);
    b->stats = json_pack("{s:o, s:I}", "stats", o, "last-update", (json_int_t)when);
}

void vballoon_stats_init(struct virtio_balloon *b)
{
    uint64_t val[VBALLOON_STATS];

    memset(val, 0xff, sizeof val);
    publish(b, val, 0);
}

static void read_stats(struct virtio_balloon *b, const struct vq_elem *e)
{
    uint64_t val[VBALLOON_STATS];
    struct virtio_balloon_stat s;

    memset(val, 0xff, sizeof val);
    for (uint64_t at = 0; at < 4096 && vec_to_buf(&e->out, at, &s, sizeof s) == sizeof s; at += sizeof s)
        if (le16toh(s.tag) < VBALLOON_STATS)
            val[le16toh(s.tag)] = MIN(le64toh(s.val), (uint64_t)INT64_MAX);
    publish(b, val, clock_now(CLOCK_WALL) / 1000000000);
}

void vballoon_stats_arm(struct virtio_balloon *b)
{
    if (b->stats_interval && b->stats_held)
        timer_arm(&b->poll, clock_now(CLOCK_VM) + (int64_t)b->stats_interval * 1000000000);
    else
        timer_disarm(&b->poll);
}

void vballoon_stats_poll(void *balloon)
{
    struct virtio_balloon *b = balloon;
    struct vq_elem *e = b->stats_held;

    if (!e || b->v.quiesced)
        return;
    b->stats_held = NULL;
    virtq_unpark(e);
    virtq_push(e, 0);
}

void vballoon_stats_forget(struct virtio_balloon *b)
{
    struct vq_elem *e = b->stats_held;

    b->stats_held = NULL;
    timer_disarm(&b->poll);
    if (e)
        virtq_push(e, 0);
}

static bool serve_stats(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_balloon *b = (struct virtio_balloon *)vq->v;

    if (b->stats_held) {                /* one buffer is what there is; a driver that gives more gets the older back */
        log_guest("virtio-balloon '%s': a second buffer of statistics", vq->v->dev->obj.id);
        vballoon_stats_poll(b);
    }
    read_stats(b, e);
    b->stats_held = e;
    virtq_park(e);
    vballoon_stats_arm(b);
    return true;
}

void vballoon_stats_received(struct virtq *vq)
{
    virtq_drain(vq, serve_stats);
}
