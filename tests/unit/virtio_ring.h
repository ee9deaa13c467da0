/* SPDX-License-Identifier: MIT */
/* A small virtio driver for tests: a device behind a virtio-mmio window, split or packed rings in the test's RAM. */
#ifndef TESTS_UNIT_VIRTIO_RING_H
#define TESTS_UNIT_VIRTIO_RING_H

#include "core/dev.h"
#include "core/run.h"
#include "hw.h"
#include "hw/virtio/virtio_forms.h"

/* Where things are in RAM: each queue has a page for each area; buffers follow. */
enum { DRV_RING = 0x1000, DRV_RINGS = HW_RAM + 0x10000, DRV_BUF = HW_RAM + 0x60000, DRV_NUM = 16, DRV_QUEUES = 8 };
enum { M_DEVICE_ID = 0x08, M_FEATURES = 0x10, M_FEATURES_SEL = 0x14, M_DRIVER = 0x20, M_DRIVER_SEL = 0x24, M_QSEL = 0x30, M_QMAX = 0x34,
       M_QNUM = 0x38, M_READY = 0x44, M_NOTIFY = 0x50, M_ISR = 0x60, M_ACK = 0x64, M_STATUS = 0x70, M_DESC = 0x80, M_AVAIL = 0x90,
       M_USED = 0xa0, M_QRESET = 0xc0, M_GEN = 0xfc, M_CONFIG = 0x100 };

struct drv_queue { uint16_t avail, used, free, seen; bool wrap, used_wrap; };
static struct sys_dev *drv_mmio;
static struct drv_queue drv_q[DRV_QUEUES];
static bool drv_packed;

static inline uint64_t drv_desc(unsigned q) { return DRV_RINGS + q * 3 * DRV_RING; }
static inline uint64_t drv_avail(unsigned q) { return drv_desc(q) + DRV_RING; }
static inline uint64_t drv_used(unsigned q) { return drv_desc(q) + 2 * DRV_RING; }
static inline uint8_t *drv_mem(uint64_t addr) { return hw_ram->host + (addr - HW_RAM); }

/* The loop serves everything that is pending. */
static inline void drv_settle(void)
{
    for (int i = 0; i < 50; i++)
        loop_run_once(loop_main(), 0);
}

/* Waits for @q's next used entry a moment (workers may be at it). */
static inline void drv_plug(const char *opts_json)
{
    struct err e = ERR_INIT;
    json_t *o = json_loads(opts_json, 0, NULL);
    assert_non_null(o);
    drv_mmio = hw_dev("virtio-mmio", NULL, 1);
    struct dev *d = dev_create_from_opts(o, false, &e);
    if (!d)
        fail_msg("%s", e.msg);
    dev_reset_tree(d, RESET_COLD);
    json_decref(o);
}

static inline struct virtio_dev *drv_dev(void)
{
    struct bus *b = list_first(&drv_mmio->dev.buses, struct bus, of_owner);
    return ((struct virtio_bus *)b)->v;
}

static inline uint64_t drv_offered(void)
{
    uint64_t f;
    w32(M_FEATURES_SEL, 1);
    f = r32(M_FEATURES) << 32;
    w32(M_FEATURES_SEL, 0);
    return f | r32(M_FEATURES);
}

static inline bool drv_features(uint64_t f)
{
    w32(M_STATUS, 0);
    w32(M_STATUS, 1);
    w32(M_STATUS, 3);
    for (unsigned i = 0; i < 2; i++) {
        w32(M_DRIVER_SEL, i);
        w32(M_DRIVER, f >> (32 * i));
    }
    w32(M_STATUS, 11);
    drv_packed = f >> VIRTIO_F_RING_PACKED & 1;
    return r32(M_STATUS) & 8;
}

static inline void drv_queue_setup(unsigned q)
{
    drv_q[q] = (struct drv_queue){ .wrap = true, .used_wrap = true };
    memset(drv_mem(drv_desc(q)), 0, 3 * DRV_RING);
    w32(M_QSEL, q);
    w32(M_QNUM, DRV_NUM);
    for (unsigned half = 0; half < 2; half++) {
        w32(M_DESC + 4 * half, drv_desc(q) >> (32 * half));
        w32(M_AVAIL + 4 * half, drv_avail(q) >> (32 * half));
        w32(M_USED + 4 * half, drv_used(q) >> (32 * half));
    }
    w32(M_READY, 1);
}

static inline void drv_start(uint64_t features, unsigned queues)
{
    assert_true(drv_features(features | BIT64(VIRTIO_F_VERSION_1)));
    for (unsigned q = 0; q < queues; q++)
        drv_queue_setup(q);
    w32(M_STATUS, 15);
}

struct drv_seg { uint64_t addr; uint32_t len; bool in; };

/* Makes a chain available; its id is returned. At most DRV_NUM descriptors are outstanding in these tests. */
static inline uint16_t drv_add(unsigned q, const struct drv_seg *s, unsigned n)
{
    struct drv_queue *d = &drv_q[q];
    uint16_t head = d->free;
    if (drv_packed) {
        uint16_t at = d->avail, first_flags = 0;
        uint8_t *first = drv_mem(drv_desc(q) + 16u * at);
        for (unsigned i = 0; i < n; i++) {
            uint8_t *p = drv_mem(drv_desc(q) + 16u * d->avail);
            uint16_t f = (uint16_t)((i + 1 < n ? 1 : 0) | (s[i].in ? 2 : 0) | (d->wrap ? 0x80 : 0x8000));
            st_le64(p, s[i].addr);
            st_le32(p + 8, s[i].len);
            st_le16(p + 12, head);
            if (i)
                st_le16(p + 14, f);
            else
                first_flags = f;
            if (++d->avail == DRV_NUM) {
                d->avail = 0;
                d->wrap = !d->wrap;
            }
        }
        st_le16(first + 14, first_flags);
        d->free = (uint16_t)((d->free + 1) % DRV_NUM);
        return head;
    }
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = drv_mem(drv_desc(q) + 16u * d->free);
        d->free = (uint16_t)((d->free + 1) % DRV_NUM);
        st_le64(p, s[i].addr);
        st_le32(p + 8, s[i].len);
        st_le16(p + 12, (uint16_t)((i + 1 < n ? 1 : 0) | (s[i].in ? 2 : 0)));
        st_le16(p + 14, d->free);
    }
    st_le16(drv_mem(drv_avail(q) + 4 + 2u * (d->avail % DRV_NUM)), head);
    st_le16(drv_mem(drv_avail(q) + 2), ++d->avail);
    return head;
}

static inline void drv_kick(unsigned q)
{
    w32(M_NOTIFY, q);
    drv_settle();
}

/* The next used entry, if there is one; @slots is what the chain took in a packed ring. */
static inline bool drv_get(unsigned q, uint16_t *id, uint32_t *len, unsigned slots)
{
    struct drv_queue *d = &drv_q[q];
    if (drv_packed) {
        const uint8_t *p = drv_mem(drv_desc(q) + 16u * d->used);
        uint16_t f = ld_le16(p + 14);
        if (!!(f & 0x80) != d->used_wrap || !!(f & 0x8000) != d->used_wrap)
            return false;
        *id = ld_le16(p + 12);
        *len = ld_le32(p + 8);
        d->used = (uint16_t)(d->used + slots);
        if (d->used >= DRV_NUM) {
            d->used = (uint16_t)(d->used - DRV_NUM);
            d->used_wrap = !d->used_wrap;
        }
        return true;
    }
    const uint8_t *u = drv_mem(drv_used(q));
    if (ld_le16(u + 2) == d->used)
        return false;
    *id = (uint16_t)ld_le32(u + 4 + 8u * (d->used % DRV_NUM));
    *len = ld_le32(u + 8 + 8u * (d->used % DRV_NUM));
    d->used++;
    return true;
}

static inline void drv_unplug(void)
{
    hw_remove(drv_mmio);
    drv_mmio = NULL;
}

#endif
