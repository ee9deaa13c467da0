/* SPDX-License-Identifier: MIT */
/* Rings that a back end of vhost-user serves: given, taken back, and taken from one that is gone ("Ring states"). */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/evfd.h"
#include "base/log.h"
#include "hw/virtio/vhost_user_int.h"

enum { DRAIN_S = 60 };                  /* what a back end has for its requests when a ring is taken back */

/*
 * Which requests are under way can be told from outside: those that the available ring has had, without those of the used ring. Both
 * are looked at whenever the back end interrupts; a ring that went round in between cannot be told any more.
 */
struct vhost_track {
    uint16_t avail, used;               /* seen up to here */
    bool lost;
    uint16_t out[VIRTQ_SIZE_MAX];       /* of a head: how often under way; more than once only in the middle of a look */
    uint32_t order[VIRTQ_SIZE_MAX];     /* when it came */
    uint32_t came;
};

static uint16_t avail_idx(struct virtq *vq) { return le16toh(__atomic_load_n(&((struct virtq_avail *)vq->p_driver)->idx, __ATOMIC_ACQUIRE)); }
static uint16_t used_idx(struct virtq *vq) { return le16toh(__atomic_load_n(&((struct virtq_used *)vq->p_device)->idx, __ATOMIC_ACQUIRE)); }
static uint16_t *avail_slot(struct virtq *vq, uint16_t i) { return &((struct virtq_avail *)vq->p_driver)->ring[i & (vq->num - 1)]; }

/* ---- what is under way ---- */

static void track_scan(struct vhost_ring *r)
{
    struct virtq *vq = vhost_vq(r);
    struct vhost_track *t = r->track;
    const struct virtq_used *u = vq->p_device;

    if (!t || t->lost || !virtq_map(vq))
        return;
    uint16_t used = used_idx(vq), from = t->avail, avail = avail_idx(vq);    /* in this order: what is used was available */
    bool ok = (uint16_t)(avail - t->avail) <= vq->num && (uint16_t)(used - t->used) <= vq->num;
    for (; ok && t->avail != avail; t->avail++) {
        uint16_t head = le16toh(__atomic_load_n(avail_slot(vq, t->avail), __ATOMIC_RELAXED));
        ok = head < vq->num;
        if (ok) {
            t->out[head]++;
            t->order[head] = t->came++;
        }
    }
    for (; ok && t->used != used; t->used++) {
        uint32_t id = le32toh(__atomic_load_n(&u->ring[t->used & (vq->num - 1)].id, __ATOMIC_RELAXED));
        ok = id < vq->num && t->out[id];
        if (ok)
            t->out[id]--;
    }
    uint16_t ahead = (uint16_t)(avail_idx(vq) - from);      /* the ring went round under us */
    t->lost = !ok || ahead > vq->num || (ahead == vq->num && used_idx(vq) != used);
}

static int by_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/*
 * Everything under way becomes available again, in order, behind what is used: the driver does not read its ring back (2.7.6), so the
 * last entries can be written again as those of the requests that are left. False: which they are is not known.
 */
static bool track_rewind(struct vhost_ring *r)
{
    struct virtq *vq = vhost_vq(r);
    struct vhost_track *t = r->track;
    uint64_t left[VIRTQ_SIZE_MAX];
    unsigned n = 0;

    track_scan(r);
    if (!t || t->lost)
        return false;
    for (unsigned head = 0; head < vq->num; head++)
        if (t->out[head])
            left[n++] = (uint64_t)t->order[head] << 16 | head;
    if (n != (uint16_t)(t->avail - t->used))
        return false;
    qsort(left, n, sizeof left[0], by_order);
    for (unsigned i = 0; i < n; i++)
        __atomic_store_n(avail_slot(vq, (uint16_t)(t->used + i)), htole16((uint16_t)left[i]), __ATOMIC_RELAXED);
    vq->last_avail = t->used;
    return true;
}

/* ---- its descriptors ---- */

static void ring_called(void *arg, unsigned revents)
{
    struct vhost_ring *r = arg;
    struct virtq *vq = vhost_vq(r);

    if (!evfd_take(r->call) || !vq->enabled || !virtio_running(vq->v))
        return;
    if (r->running && r->gen == vq->gen)
        track_scan(r);
    vq->v->transport->interrupt(vq->v, VIRTIO_ISR_QUEUE, vq->vector);
}

static void ring_failed(void *arg, unsigned revents)
{
    struct vhost_ring *r = arg;

    if (evfd_take(r->err) && r->running && r->gen == vhost_vq(r)->gen)
        virtio_error(&r->u->v, "queue %u: the back end cannot go on with it", r->index);
}

bool vhost_ring_init(struct vhost_user *u, unsigned index, struct err *e)
{
    struct vhost_ring *r = &u->ring[index];
    int *fd[] = { &r->kick, &r->call, &r->err };

    *r = (struct vhost_ring){ .u = u, .index = index, .kick = -1, .call = -1, .err = -1 };
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
        if ((*fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
            return err_os(e, errno, "no descriptor for the notifications of queue %u", index);
    loop_fd_init(&r->called, domain_loop(u->v.dom), u->v.dom, r->call, ring_called, r);
    loop_fd_init(&r->failed, domain_loop(u->v.dom), u->v.dom, r->err, ring_failed, r);
    loop_fd_watch(&r->called, LOOP_IN);
    loop_fd_watch(&r->failed, LOOP_IN);
    return true;
}

void vhost_ring_fini(struct vhost_ring *r)
{
    int fd[] = { r->kick, r->call, r->err };

    if (r->err >= 0) {                  /* the last that init made */
        loop_fd_watch(&r->called, 0);
        loop_fd_watch(&r->failed, 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
        if (fd[i] >= 0)
            close(fd[i]);
    free(r->track);
}

/* ---- given ---- */

/* The three areas where the back end can see them; the guest's fault if not. */
static bool ring_in_memory(struct vhost_ring *r)
{
    struct virtq *vq = vhost_vq(r);
    uint64_t n = vq->num;

    if (!virtq_map(vq))
        return false;
    return (vhost_memory_has(r->u, vq->p_desc, 16 * n) && vhost_memory_has(r->u, vq->p_driver, vq->packed ? 4 : 4 + 2 * n) &&
            vhost_memory_has(r->u, vq->p_device, vq->packed ? 4 : 4 + 8 * n)) ||
           virtio_error(&r->u->v, "queue %u is not in memory that is shared with the back end", r->index);
}

static uint32_t ring_base(const struct virtq *vq)
{
    if (!vq->packed)
        return vq->last_avail;
    return vq->last_avail | (uint32_t)vq->avail_wrap << 15 | (uint32_t)vq->used_idx << 16 | (uint32_t)vq->used_wrap << 31;
}

/* Who keeps no record of its requests is watched. Nothing is under way now. */
static void ring_track(struct vhost_ring *r)
{
    struct virtq *vq = vhost_vq(r);

    free(r->track);
    r->track = NULL;
    if (vq->packed || vu_link_speaks(&r->u->link, VU_P_INFLIGHT_SHMFD))
        return;
    r->track = xnew(struct vhost_track);
    *r->track = (struct vhost_track){ .avail = vq->last_avail, .used = vq->last_avail };
}

bool co_vhost_ring_start(struct vhost_ring *r, struct err *e)
{
    struct vu_link *l = &r->u->link;
    struct virtq *vq = vhost_vq(r);

    if (!ring_in_memory(r))
        return true;
    struct vu_state num = { r->index, vq->num }, base = { r->index, ring_base(vq) }, on = { r->index, 1 };
    struct vu_addr addr = { .index = r->index, .desc = (uintptr_t)vq->p_desc, .avail = (uintptr_t)vq->p_driver, .used = (uintptr_t)vq->p_device };
    ring_track(r);
    r->gen = vq->gen;
    r->running = true;
    vq->in_flight++;
    virtio_hold(&r->u->v);
    if (!co_vu_tell(l, VU_SET_VRING_NUM, &num, sizeof num, NULL, e) || !co_vu_tell(l, VU_SET_VRING_BASE, &base, sizeof base, NULL, e) ||
        !co_vu_tell(l, VU_SET_VRING_ADDR, &addr, sizeof addr, NULL, e) || !co_vu_tell_fd(l, VU_SET_VRING_CALL, r->index, r->call, e) ||
        !co_vu_tell_fd(l, VU_SET_VRING_ERR, r->index, r->err, e) || !co_vu_tell_fd(l, VU_SET_VRING_KICK, r->index, r->kick, e))
        return false;
    if ((l->features & BIT64(VU_F_PROTOCOL_FEATURES)) && !co_vu_tell(l, VU_SET_VRING_ENABLE, &on, sizeof on, NULL, e))
        return false;
    evfd_tell(r->kick);                 /* a notification of before may have gone with another back end */
    if (r->resumed)
        evfd_tell(r->call);             /* and so may an interrupt */
    r->resumed = false;
    return true;
}

/* ---- taken back ---- */

static void put_down(struct vhost_ring *r)
{
    r->running = false;
    vhost_vq(r)->in_flight--;
    virtio_release(&r->u->v);
}

bool co_vhost_ring_stop(struct vhost_ring *r, struct err *e)
{
    struct virtq *vq = vhost_vq(r);
    struct vu_state s = { .index = r->index };

    if (!co_vu_ask(&r->u->link, VU_GET_VRING_BASE, &s, sizeof s, &s, sizeof s, NULL, DRAIN_S, e))
        return false;
    if (s.index != r->index || (!vq->packed && s.num > UINT16_MAX))
        return err_set(e, ERR_OS, "the back end answers GET_VRING_BASE of ring %u with ring %u at 0x%x", r->index, s.index, s.num);
    if (r->gen == vq->gen && vq->packed) {
        vq->last_avail = s.num & 0x7fff;
        vq->avail_wrap = s.num >> 15 & 1;
        vq->used_idx = s.num >> 16 & 0x7fff;
        vq->used_wrap = s.num >> 31;
    } else if (r->gen == vq->gen) {
        vq->last_avail = vq->used_idx = (uint16_t)s.num;
    }
    put_down(r);
    return true;
}

void vhost_ring_lost(struct vhost_ring *r)
{
    struct virtq *vq = vhost_vq(r);
    struct virtio_dev *v = vq->v;

    if (!r->running)
        return;
    if (r->gen == vq->gen && vq->enabled && !v->broken && virtq_map(vq)) {
        r->resumed = true;
        if (!vq->packed && r->u->inflight_fd >= 0)
            vq->last_avail = vq->used_idx = used_idx(vq);
        else if (r->u->inflight_fd < 0 && !track_rewind(r))
            virtio_error(v, "queue %u: the back end is gone, and nobody knows which requests it had under way", r->index);
    }
    put_down(r);
}
