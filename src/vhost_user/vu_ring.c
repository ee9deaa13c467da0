/* SPDX-License-Identifier: MIT */
/* Split rings (virtio 1.2, section 2.7), as the device sees them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/evfd.h"
#include "base/log.h"
#include "vhost_user/vu_int.h"

static uint16_t load16(const uint8_t *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static void store16(uint8_t *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }

static uint16_t avail_idx(const struct vu_ring *r) { return load16(r->avail + 2); }
static uint16_t avail_head(const struct vu_ring *r, uint16_t i) { return load16(r->avail + 4 + 2 * (i & (r->size - 1))); }
static uint8_t *used_event(const struct vu_ring *r) { return r->avail + 4 + 2 * r->size; }
static uint8_t *avail_event(const struct vu_ring *r) { return r->used + 4 + 8 * r->size; }

/* ---- the ring's memory ---- */

bool vu_ring_map(struct vu_ring *r, struct err *e)
{
    const struct vu_addr *a = &r->addr;
    r->desc = NULL;
    if (!r->size || !a->desc)
        return true;                /* not told yet */
    if (a->desc % 16 || a->avail % 2 || a->used % 4)
        return err_set(e, ERR_VALUE, "ring %u is not aligned", r->index);
    struct vu_desc *desc = (struct vu_desc *)vu_user_at(r->conn, a->desc, 16 * (uint64_t)r->size);
    r->avail = vu_user_at(r->conn, a->avail, 6 + 2 * (uint64_t)r->size);
    r->used = vu_user_at(r->conn, a->used, 6 + 8 * (uint64_t)r->size);
    if (!desc || !r->avail || !r->used || (uintptr_t)desc % 16 || (uintptr_t)r->avail % 2 || (uintptr_t)r->used % 4)
        return err_set(e, ERR_VALUE, "ring %u is not in the memory that was shared", r->index);
    r->desc = desc;
    return true;
}

void vu_rings_unmap(struct vu_conn *c)
{
    for (unsigned i = 0; i < c->s->n_rings; i++)
        c->ring[i].desc = NULL;
}

static void ring_broken(struct vu_ring *r, const char *why)
{
    if (r->broken)
        return;
    r->broken = true;
    log_warn("%s: ring %u stops: %s", r->conn->s->name, r->index, why);
    if (r->err >= 0 && !evfd_tell(r->err))
        log_warn("%s: the front end cannot be told", r->conn->s->name);
}

/* ---- chains ---- */

/* A chain while it is collected. */
struct walk { struct vu_ring *ring; struct vu_elem *el; struct iovec iov[VU_CHAIN_MAX]; uint64_t guest[VU_CHAIN_MAX]; unsigned n; };

static const char *add_piece(struct walk *w, const struct vu_desc *d)
{
    bool in = d->flags & VU_DESC_WRITE;
    uint64_t at = d->addr, left = d->len;
    if (!in && w->el->n_in)
        return "a buffer that is read follows one that is written";
    while (left) {
        uint64_t len = left;
        uint8_t *p = vu_guest_at(w->ring->conn, at, &len);
        if (!p)
            return "a buffer is not in the memory that was shared";
        if (w->n == VU_CHAIN_MAX)
            return "a chain has too many buffers";
        w->guest[w->n] = at;
        w->iov[w->n++] = (struct iovec){ p, len };
        *(in ? &w->el->n_in : &w->el->n_out) += 1;
        *(in ? &w->el->in_len : &w->el->out_len) += len;
        at += len;
        left -= len;
    }
    return NULL;
}

static struct vu_desc load_desc(const struct vu_desc *table, unsigned i)
{
    struct vu_desc d;
    memcpy(&d, table + i, sizeof d);        /* once: it may change */
    return d;
}

/* A chain of @table (@size entries), from @head. @nested: it is an indirect one. */
static const char *collect(struct walk *w, const struct vu_desc *table, unsigned size, unsigned head, bool nested)
{
    unsigned left = size;
    struct vu_desc d = { .next = (uint16_t)head, .flags = VU_DESC_NEXT };
    while (d.flags & VU_DESC_NEXT) {
        if (d.next >= size || !left--)
            return "a chain does not end";
        d = load_desc(table, d.next);
        if (d.flags & VU_DESC_INDIRECT) {
            uint64_t len = d.len;
            const struct vu_desc *t = nested || d.len % 16 || !d.len || d.len / 16 > VU_CHAIN_MAX ? NULL : (void *)vu_guest_at(w->ring->conn, d.addr, &len);
            if (!t || len < d.len || (d.flags & VU_DESC_NEXT) || !vu_has(w->ring->conn, VU_F_INDIRECT_DESC))
                return "an indirect table is not well formed";
            return collect(w, t, d.len / 16, 0, true);
        }
        const char *why = add_piece(w, &d);
        if (why)
            return why;
    }
    return NULL;
}

static struct vu_elem *elem_at(struct vu_ring *r, uint16_t head)
{
    struct walk *w = malloc(sizeof *w);
    struct vu_elem tmp = { .ring = r, .head = head }, *el = NULL;
    if (!w)
        return NULL;
    w->ring = r;
    w->el = &tmp;
    w->n = 0;
    const char *why = collect(w, r->desc, r->size, head, false);
    if (why) {
        ring_broken(r, why);
    } else if ((el = malloc(sizeof *el + w->n * (sizeof(struct iovec) + sizeof(uint64_t))))) {
        *el = tmp;
        el->out = (struct iovec *)(el + 1);
        el->in = el->out + el->n_out;
        el->in_guest = (uint64_t *)(el->in + el->n_in);
        memcpy(el->out, w->iov, w->n * sizeof *w->iov);
        memcpy(el->in_guest, w->guest + el->n_out, el->n_in * sizeof *w->guest);
    }
    free(w);
    return el;
}

/* ---- what is used ---- */

/* Whether the driver wants to be interrupted for what was used from ->signalled to ->used_idx. */
static bool wants_interrupt(struct vu_ring *r)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (!vu_has(r->conn, VU_F_EVENT_IDX))
        return !(load16(r->avail) & VU_AVAIL_NO_INTERRUPT);
    uint16_t old = r->signalled, event = load16(used_event(r));
    bool first = !r->signalled_valid;
    r->signalled = r->used_idx;
    r->signalled_valid = true;
    return first || (uint16_t)(r->used_idx - event - 1) < (uint16_t)(r->used_idx - old);
}

void vu_ring_notify(struct vu_ring *r)
{
    if (r->call >= 0 && r->desc && wants_interrupt(r) && !evfd_tell(r->call))
        ring_broken(r, "the front end cannot be interrupted");
}

static void log_elem(struct vu_ring *r, const struct vu_elem *el, uint32_t written)
{
    if (!vu_has(r->conn, VU_F_LOG_ALL))
        return;
    for (unsigned i = 0; i < el->n_in && written; i++) {
        uint32_t n = (uint32_t)MIN((uint64_t)written, el->in[i].iov_len);
        vu_log(r->conn, el->in_guest[i], n);
        written -= n;
    }
}

static void put_used(struct vu_ring *r, const struct vu_elem *el, uint32_t written)
{
    uint16_t slot = r->used_idx & (uint16_t)(r->size - 1);
    uint32_t entry[2] = { el->head, written };
    log_elem(r, el, written);
    if (r->slots)
        r->slots->last_batch_head = el->head;
    memcpy(r->used + 4 + 8 * slot, entry, sizeof entry);
    store16(r->used + 2, ++r->used_idx);
    vu_slots_end(r, el->head, r->used_idx);
    if (r->addr.flags & VU_VRING_F_LOG) {
        vu_log(r->conn, r->addr.log + 4 + 8 * (uint64_t)slot, 8);
        vu_log(r->conn, r->addr.log + 2, 2);
    }
}

/* ---- requests ---- */

/* Memory that the front end cut short under us ends the connection. */
static void check_cut(struct vu_conn *c)
{
    if (atomic_load(&c->cut))
        shutdown(c->fd, SHUT_RDWR);
}

static void request(void *arg)
{
    struct vu_elem *el = arg;
    struct vu_ring *r = el->ring;
    struct vu_conn *c = r->conn;
    uint32_t written = c->s->ops->co_request(c->s->arg, el);
    if (r->desc && !r->broken) {
        put_used(r, el, written);
        vu_ring_notify(r);
    }
    free(el);
    r->in_flight--;
    if (!--c->in_flight || !r->in_flight)
        co_queue_wake_all(&c->drained);
    check_cut(c);
    if (r->stalled)
        vu_ring_run(r);
}

static bool begin(struct vu_ring *r, uint16_t head)
{
    struct vu_elem *el = head < r->size ? elem_at(r, head) : NULL;
    if (head >= r->size)
        ring_broken(r, "a chain begins outside the ring");
    if (!el) {
        ring_broken(r, "no memory for a request");
        return false;
    }
    vu_slots_begin(r, head);
    r->in_flight++;
    r->conn->in_flight++;
    co_spawn(vu_loop(r->conn->s), r->conn->s->dom, request, el);
    return true;
}

/* What a back end before us left under way, and where the ring goes on. */
static void resume(struct vu_ring *r)
{
    uint16_t *heads = malloc(r->size * sizeof *heads);
    r->resumed = true;
    r->used_idx = load16(r->used + 2);
    r->signalled_valid = false;
    unsigned n = heads ? vu_slots_resume(r, r->used_idx, heads) : 0;
    if (n)
        r->last_avail = (uint16_t)(r->used_idx + n);
    for (unsigned i = 0; i < n && begin(r, heads[i]); i++)
        ;
    free(heads);
}

/* The driver need not notify us while we look anyway. */
static void want_kicks(struct vu_ring *r, bool on)
{
    if (vu_has(r->conn, VU_F_EVENT_IDX)) {
        if (on)
            store16(avail_event(r), r->last_avail);
    } else {
        store16(r->used, on ? 0 : VU_USED_NO_NOTIFY);
    }
    if (on)
        atomic_thread_fence(memory_order_seq_cst);
}

static bool live(const struct vu_ring *r)
{
    return r->started && r->enabled && !r->broken && r->desc && !r->conn->paused && !atomic_load(&r->conn->cut);
}

/* One round over what is available; false when the ring stops. */
static bool take(struct vu_ring *r)
{
    for (;;) {
        uint16_t there = (uint16_t)(avail_idx(r) - r->last_avail);
        if (!there)
            return true;
        if (there > r->size) {
            ring_broken(r, "more is available than fits");
            return false;
        }
        if (r->in_flight >= r->size) {
            r->stalled = true;
            return false;
        }
        uint16_t head = avail_head(r, r->last_avail++);
        if (!begin(r, head) || !live(r))
            return false;
    }
}

void vu_ring_run(struct vu_ring *r)
{
    if (!live(r))
        return;
    if (!r->resumed)
        resume(r);
    r->stalled = false;
    do {
        want_kicks(r, false);
        if (!live(r) || !take(r))
            return;
        want_kicks(r, true);
    } while (avail_idx(r) != r->last_avail);
}

static void kicked(void *arg, unsigned revents)
{
    struct vu_ring *r = arg;
    errno = 0;
    if (!evfd_take(r->kick) && errno != EAGAIN) {
        ring_broken(r, "its notifications cannot be read");
        loop_fd_watch(&r->watch, 0);
        return;
    }
    vu_ring_run(r);
    check_cut(r->conn);
}

void vu_ring_watch(struct vu_ring *r, int kick)
{
    if (r->kick >= 0) {
        loop_fd_watch(&r->watch, 0);
        close(r->kick);
    }
    r->kick = kick;
    if (kick < 0)
        return;
    loop_fd_init(&r->watch, vu_loop(r->conn->s), r->conn->s->dom, kick, kicked, r);
    loop_fd_watch(&r->watch, LOOP_IN);
}

void co_vu_ring_drain(struct vu_ring *r)
{
    while (r->in_flight)
        co_queue_wait(&r->conn->drained);
}

void co_vu_pause(struct vu_conn *c)
{
    c->paused++;
    while (c->in_flight)
        co_queue_wait(&c->drained);
}

void vu_resume(struct vu_conn *c)
{
    if (--c->paused)
        return;
    for (unsigned i = 0; i < c->s->n_rings; i++)
        vu_ring_run(&c->ring[i]);
}
