/* SPDX-License-Identifier: MIT */
/* The driver's side of split rings (virtio 1.2, section 2.7), and the memory that is shared for them. What the back end writes is not trusted. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/evfd.h"
#include "base/log.h"
#include "block/vhost_user_int.h"

/* Of one ring: the three areas, headers and status bytes, data. */
enum { AT_DESC = 0, AT_AVAIL = 4096, AT_USED = 8192, AT_HEADS = 12288, AT_DATA = 16384, HEAD = 64, STATUS = 32, RING_BYTES = AT_DATA + VUB_SLOTS * VUB_DATA };
static_assert(VUB_RING * 16 <= AT_AVAIL && 6 + 2 * VUB_RING <= 4096 && 6 + 8 * VUB_RING <= 4096 && VUB_SLOTS * HEAD <= 4096 && 3 * VUB_SLOTS <= VUB_RING, "memory");

static uint16_t load16(const uint8_t *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static void store16(uint8_t *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
static unsigned index_of(const struct vub_ring *r, const struct vub_slot *q) { return (unsigned)(q - r->slot); }

/* ---- what is used ---- */

/* Answers in the used ring; false where it says what cannot be. */
static bool collect(struct vub_ring *r)
{
    for (uint16_t now; (now = load16(r->used + 2)) != r->used_seen; r->used_seen++) {
        uint32_t id;
        memcpy(&id, r->used + 4 + 8 * (r->used_seen % VUB_RING), sizeof id);
        if ((uint16_t)(now - r->used_seen) > VUB_SLOTS || id % 3 || id / 3 >= VUB_SLOTS || !r->slot[id / 3].under_way)
            return false;
        r->slot[id / 3].under_way = false;
        co_wake(&r->slot[id / 3].done);
    }
    return true;
}

static void called(void *arg, unsigned revents)
{
    struct vub_ring *r = arg;
    if (evfd_take(r->call) && !collect(r))
        vub_lost(r->s, "it answers a request that is not under way");
}

void vub_lost(struct blk_vub *s, const char *why)
{
    if (!s->connected)
        return;
    s->connected = false;
    loop_fd_watch(&s->watch, 0);
    for (unsigned i = 0; i < s->num_queues; i++) {
        struct vub_ring *r = &s->ring[i];
        loop_fd_watch(&r->watch, 0);
        for (unsigned k = 0; k < VUB_SLOTS; k++) {
            if (!r->slot[k].under_way)
                continue;
            r->slot[k].under_way = false;
            r->slot[k].lost = true;
            co_wake(&r->slot[k].done);
        }
    }
    co_queue_wake_all(&s->room);
    if (!s->closing)
        log_warn("the vhost-user back end at '%s' is lost: %s", s->path, why);
}

/* ---- requests ---- */

struct vub_slot *co_vub_slot(struct blk_vub *s, struct vub_ring **r)
{
    while (s->connected) {
        for (unsigned i = 0; i < s->num_queues; i++) {
            *r = &s->ring[s->turn++ % s->num_queues];
            if (!(*r)->n_free)
                continue;
            struct vub_slot *q = &(*r)->slot[(*r)->free[--(*r)->n_free]];
            *q = (struct vub_slot){ .under_way = false };
            s->in_flight++;
            return q;
        }
        co_queue_wait(&s->room);
    }
    return NULL;
}

void vub_slot_put(struct vub_ring *r, struct vub_slot *q)
{
    r->free[r->n_free++] = index_of(r, q);
    if (!--r->s->in_flight)
        co_queue_wake_all(&r->s->idle);
    co_queue_wake_one(&r->s->room);
}

uint8_t *vub_slot_data(struct vub_ring *r, const struct vub_slot *q) { return r->data + (size_t)index_of(r, q) * VUB_DATA; }

static void put_desc(struct vub_ring *r, unsigned i, const void *p, uint32_t len, unsigned flags, unsigned next)
{
    r->desc[i] = (struct vu_desc){ (uintptr_t)p, len, (uint16_t)flags, (uint16_t)next };
}

int co_vub_do(struct vub_ring *r, struct vub_slot *q, enum vu_blk_type type, uint64_t sector, uint32_t out, uint32_t in)
{
    unsigned d = 3 * index_of(r, q);
    uint8_t *head = r->heads + (size_t)index_of(r, q) * HEAD;
    struct vu_blk_header h = { type, 0, sector };
    bool data = out || in;
    if (!r->s->connected)
        return -ENOTCONN;
    memcpy(head, &h, sizeof h);
    head[STATUS] = UINT8_MAX;
    put_desc(r, d, head, sizeof h, VU_DESC_NEXT, data ? d + 1 : d + 2);
    if (data)
        put_desc(r, d + 1, vub_slot_data(r, q), out + in, VU_DESC_NEXT | (in ? VU_DESC_WRITE : 0), d + 2);
    put_desc(r, d + 2, head + STATUS, 1, VU_DESC_WRITE, 0);
    q->under_way = true;
    co_event_clear(&q->done);
    store16(r->avail + 4 + 2 * (r->avail_idx % VUB_RING), (uint16_t)d);
    store16(r->avail + 2, ++r->avail_idx);
    atomic_thread_fence(memory_order_seq_cst);
    if (!(load16(r->used) & VU_USED_NO_NOTIFY))
        evfd_tell(r->kick);
    co_wait(&q->done);
    if (q->lost)
        return -ENOTCONN;
    switch (*(volatile uint8_t *)(head + STATUS)) {
    case VU_BLK_OK: return 0;
    case VU_BLK_UNSUPP: return -ENOTSUP;
    default: return -EIO;
    }
}

/* ---- memory ---- */

static bool ring_new(struct blk_vub *s, unsigned i, struct err *e)
{
    struct vub_ring *r = &s->ring[i];
    uint8_t *at = s->map + (size_t)i * RING_BYTES;
    *r = (struct vub_ring){ .s = s, .index = i, .desc = (struct vu_desc *)(at + AT_DESC), .avail = at + AT_AVAIL, .used = at + AT_USED,
                            .heads = at + AT_HEADS, .data = at + AT_DATA, .kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                            .call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .n_free = VUB_SLOTS };
    for (unsigned k = 0; k < VUB_SLOTS; k++)
        r->free[k] = VUB_SLOTS - 1 - k;
    return (r->kick >= 0 && r->call >= 0) || err_os(e, errno, "no descriptor for notifications");
}

bool vub_rings_new(struct blk_vub *s, struct err *e)
{
    size_t size = (size_t)s->num_queues * RING_BYTES;
    s->memory = memfd_create("virtio-blk-vhost-user", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->memory < 0 || ftruncate(s->memory, (off_t)size) || fcntl(s->memory, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return err_os(e, errno, "no memory to share with the back end");
    s->map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->memory, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return err_os(e, errno, "no memory to share with the back end");
    }
    s->ring = xcalloc(s->num_queues, sizeof *s->ring);
    for (unsigned i = 0; i < s->num_queues; i++)
        s->ring[i].kick = s->ring[i].call = -1;
    for (unsigned i = 0; i < s->num_queues; i++)
        if (!ring_new(s, i, e))
            return false;
    return true;
}

void vub_rings_free(struct blk_vub *s)
{
    for (unsigned i = 0; s->ring && i < s->num_queues; i++) {
        if (s->ring[i].kick >= 0)
            close(s->ring[i].kick);
        if (s->ring[i].call >= 0)
            close(s->ring[i].call);
    }
    free(s->ring);
    s->ring = NULL;
    if (s->map)
        munmap(s->map, (size_t)s->num_queues * RING_BYTES);
    s->map = NULL;
    if (s->memory >= 0)
        close(s->memory);
    s->memory = -1;
}

static bool co_ring_start(struct blk_vub *s, struct vub_ring *r, struct err *e)
{
    struct vu_link *l = &s->link;
    struct vu_state num = { r->index, VUB_RING }, base = { r->index, 0 }, on = { r->index, 1 };
    struct vu_addr addr = { .index = r->index, .desc = (uintptr_t)r->desc, .avail = (uintptr_t)r->avail, .used = (uintptr_t)r->used };
    return co_vu_tell(l, VU_SET_VRING_NUM, &num, sizeof num, NULL, e) && co_vu_tell(l, VU_SET_VRING_BASE, &base, sizeof base, NULL, e) &&
           co_vu_tell(l, VU_SET_VRING_ADDR, &addr, sizeof addr, NULL, e) && co_vu_tell_fd(l, VU_SET_VRING_CALL, r->index, r->call, e) &&
           co_vu_tell_fd(l, VU_SET_VRING_KICK, r->index, r->kick, e) && co_vu_tell(l, VU_SET_VRING_ENABLE, &on, sizeof on, NULL, e);
}

bool co_vub_rings_start(struct blk_vub *s, struct err *e)
{
    uint64_t at = (uintptr_t)s->map;
    struct vu_mem_table t = { .n = 1, .v = { { at, (uint64_t)s->num_queues * RING_BYTES, at, 0 } } };
    struct vu_fds fds = { { s->memory }, 1 };
    if (!co_vu_tell(&s->link, VU_SET_MEM_TABLE, &t, 8 + sizeof t.v[0], &fds, e))
        return false;
    for (unsigned i = 0; i < s->num_queues; i++) {
        struct vub_ring *r = &s->ring[i];
        if (!co_ring_start(s, r, e))
            return false;
        loop_fd_init(&r->watch, s->node.home, NULL, r->call, called, r);
        loop_fd_watch(&r->watch, LOOP_IN);
    }
    return true;
}
