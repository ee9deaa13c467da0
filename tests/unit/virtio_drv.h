/* SPDX-License-Identifier: MIT */
/* A small driver for tests of virtio devices: virtio-mmio registers, split rings, buffers from one pool in guest RAM. */
#ifndef TESTS_UNIT_VIRTIO_DRV_H
#define TESTS_UNIT_VIRTIO_DRV_H

#include "hw.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio_forms.h"

#define VD_QUEUES 80
#define VD_NUM 16u

struct vd_queue { uint64_t desc, avail, used; uint16_t next, free, seen; bool on; };
static struct vd_queue vdq[VD_QUEUES];
static uint64_t vd_pool;                /* next free byte of RAM */
static struct sys_dev *vd_slot;
static bool vd_hot;                     /* devices are plugged into a machine that runs */

static inline uint8_t *vd_host(uint64_t addr)
{
    return hw_ram->host + (addr - HW_RAM);
}

static inline uint64_t vd_alloc(uint64_t n)
{
    uint64_t a = align_up(vd_pool, 64);
    vd_pool = a + n;
    assert_true(vd_pool <= HW_RAM + HW_RAM_SIZE);
    memset(vd_host(a), 0, n);
    return a;
}

/* Serves the main loop until nothing was to do for a while. */
static inline void vd_run(void)
{
    for (int i = 0; i < 20; i++)
        loop_run_once(loop_main(), 0);
}

/* One slot with a device in it: "virtio-rng-device" and its options as JSON with ' for ". */
static inline struct dev *vd_try(const char *opts, struct err *e)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", opts);
    for (char *p = text; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    struct dev *d = dev_create_from_opts(o, vd_hot, e);
    json_decref(o);
    return d;
}

static inline struct dev *vd_dev(const char *opts)
{
    struct err e = ERR_INIT;
    struct dev *d = vd_try(opts, &e);
    if (!d)
        fail_msg("%s (%s)", e.msg, e.hint);
    return d;
}

static inline void vd_open(void)
{
    vd_slot = hw_dev("virtio-mmio", NULL, 1);
    vd_pool = HW_RAM;
    memset(vdq, 0, sizeof vdq);
}

static inline void vd_close(void)
{
    hw_remove(vd_slot);
    vd_slot = NULL;
    vd_hot = false;
}

static inline uint64_t vd_features(void)
{
    w32(0x14, 0);
    uint64_t f = r32(0x10);
    w32(0x14, 1);
    return f | r32(0x10) << 32;
}

/* Resets and negotiates what @want and the device have in common; true if FEATURES_OK stays. */
static inline bool vd_negotiate(uint64_t want)
{
    w32(0x70, 0);
    vd_run();
    assert_int_equal(r32(0x70), 0);
    memset(vdq, 0, sizeof vdq);
    vd_pool = HW_RAM;
    w32(0x70, 1);
    w32(0x70, 3);
    want = (want | BIT64(VIRTIO_F_VERSION_1)) & vd_features();
    w32(0x24, 0);
    w32(0x20, (uint32_t)want);
    w32(0x24, 1);
    w32(0x20, want >> 32);
    w32(0x70, 11);
    return r32(0x70) & 8;
}

static inline void vd_queue(unsigned i)
{
    struct vd_queue *q = &vdq[i];
    *q = (struct vd_queue){ vd_alloc(16 * VD_NUM), vd_alloc(6 + 2 * VD_NUM), vd_alloc(6 + 8 * VD_NUM), 0, 0, 0, true };
    w32(0x30, i);
    assert_true(r32(0x34) >= VD_NUM);
    w32(0x38, VD_NUM);
    w32(0x80, (uint32_t)q->desc);
    w32(0x84, q->desc >> 32);
    w32(0x90, (uint32_t)q->avail);
    w32(0x94, q->avail >> 32);
    w32(0xa0, (uint32_t)q->used);
    w32(0xa4, q->used >> 32);
    w32(0x44, 1);
}

/* Negotiates and starts with queues 0 to n - 1. */
static inline void vd_start(uint64_t features, unsigned n)
{
    assert_true(vd_negotiate(features));
    for (unsigned i = 0; i < n; i++)
        vd_queue(i);
    w32(0x70, 15);
    vd_run();
}

struct vd_buf { uint64_t addr; uint32_t len; bool in; };

/* Makes a chain available, without a doorbell. Descriptors are used in a circle; 8 chains of two at most may be out. */
static inline uint16_t vd_add(unsigned i, const struct vd_buf *b, unsigned n)
{
    struct vd_queue *q = &vdq[i];
    struct virtq_avail *a = (struct virtq_avail *)vd_host(q->avail);
    struct virtq_desc *d = (struct virtq_desc *)vd_host(q->desc);
    uint16_t head = q->free;
    for (unsigned k = 0; k < n; k++) {
        unsigned at = (q->free + k) % VD_NUM, then = (at + 1) % VD_NUM;
        d[at] = (struct virtq_desc){ b[k].addr, b[k].len, (uint16_t)((b[k].in ? 2 : 0) | (k + 1 < n ? 1 : 0)), (uint16_t)then };
    }
    q->free = (uint16_t)((q->free + n) % VD_NUM);
    a->ring[q->next++ % VD_NUM] = head;
    __atomic_store_n(&a->idx, q->next, __ATOMIC_RELEASE);
    return head;
}

static inline void vd_kick(unsigned i)
{
    w32(0x50, i);
    vd_run();
}

/* The next used element: its written length, or -1 if there is none. */
static inline int64_t vd_used(unsigned i)
{
    struct vd_queue *q = &vdq[i];
    struct virtq_used *u = (struct virtq_used *)vd_host(q->used);
    if (__atomic_load_n(&u->idx, __ATOMIC_ACQUIRE) == q->seen)
        return -1;
    return u->ring[q->seen++ % VD_NUM].len;
}

/* One readable buffer with these bytes. */
static inline void vd_send(unsigned i, const void *buf, uint32_t n)
{
    struct vd_buf b = { vd_alloc(n), n, false };
    memcpy(vd_host(b.addr), buf, n);
    vd_add(i, &b, 1);
    vd_kick(i);
}

/* One writable buffer; its address. */
static inline uint64_t vd_offer(unsigned i, uint32_t n)
{
    struct vd_buf b = { vd_alloc(n), n, true };
    vd_add(i, &b, 1);
    vd_kick(i);
    return b.addr;
}

/* Saved state of a device: taken, and put back into another object of the class. */
static inline void vd_save(struct dev *d, struct str *out)
{
    domain_lock(d->dom);
    state_save(DEV_CLASS(d)->state, d, out);
    domain_unlock(d->dom);
}

static inline void vd_load(struct dev *d, const struct str *s)
{
    struct err e = ERR_INIT;
    domain_lock(d->dom);
    bool ok = state_load(DEV_CLASS(d)->state, d, s->s, s->len, &e);
    domain_unlock(d->dom);
    if (!ok)
        fail_msg("%s", e.msg);
}

static inline bool vd_needs_reset(void)
{
    return r32(0x70) & VIRTIO_S_NEEDS_RESET;
}

#endif
