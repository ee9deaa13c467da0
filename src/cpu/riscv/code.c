/* SPDX-License-Identifier: MIT */
/*
 * Who must notice stores: translators of pages that hold code, and harts with a reservation that its value alone does not decide.
 * A page of either kind is watched (mem/ram.h) and no hart keeps a fast store entry for it. The first store that is noticed ends
 * the watch. Written code pages go into a log, which each hart reads at fence.i.
 *
 * What holds at any time, for each hart and each page whose translations it may enter without looking at memory: the page is
 * watched and nobody stores to it unnoticed, or the log has an entry for it that the hart has not read. Who stores gives notice
 * before anybody can learn of the store: a hart before its next instruction, a device before it completes the request.
 *
 * RISC-V promises no more than that code is fresh after fence.i. Guests lean on more: Linux (6.9 and later) fences for the process
 * that is the first to map a page of a file for execution, not for those that map it later on other harts, which caches of a real
 * hart's size forgive. So a hart reads the log also where it returns to user mode.
 */
#include "cpu/riscv/accel.h"
#include "cpu/riscv/mmu.h"

#define LOG_SIZE 4096u

static struct { struct ram *ram; uint64_t off; } log_ring[LOG_SIZE];    /* under ram_watch_lock() */
_Atomic uint64_t rv_code_head;                  /* changed under the lock, too */
static struct hart_set *set;
static _Thread_local struct hart *storing;      /* the hart whose own store is being noticed */

/* ---- code ---- */

/* Lock held. */
static void code_written(struct ram *r, uint64_t off, uint64_t len)
{
    uint64_t head = atomic_load_explicit(&rv_code_head, memory_order_relaxed);
    log_ring[head % LOG_SIZE].ram = r;
    log_ring[head % LOG_SIZE].off = off & RV_PAGE_MASK;
    atomic_store_explicit(&rv_code_head, head + 1, memory_order_release);
}

struct ram *rv_ram_at(struct hart *h, uint64_t pa, uint64_t *off)
{
    const struct view_range *r = view_lookup(view_get(h->mem), pa);
    if (!r || !r->host)
        return NULL;
    *off = r->ram_off + (pa - r->start);
    return r->ram;
}

bool rv_code_copy(uint8_t *copy, const uint8_t *ram, size_t n)
{
    uint64_t changed = 0;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = __atomic_load_n((const uint64_t *)(const void *)(ram + i), __ATOMIC_RELAXED), was;
        memcpy(&was, copy + i, 8);
        memcpy(copy + i, &v, 8);
        changed |= v ^ was;
    }
    return changed != 0;
}

/* Every hart has answered since the log was @from long: if the page was not written meanwhile, who comes next need not ask again. */
static void watched_by_all(struct ram *r, uint64_t off, uint64_t from)
{
    ram_watch_lock();
    uint64_t head = atomic_load_explicit(&rv_code_head, memory_order_relaxed);
    bool written = head - from >= LOG_SIZE;
    for (uint64_t i = from; i < head && !written; i++)
        written = log_ring[i % LOG_SIZE].ram == r && log_ring[i % LOG_SIZE].off == off;
    if (!written)
        ram_watch(r, off, RV_PAGE_SIZE, WATCH_CODE_ALL);
    ram_watch_unlock();
}

bool rv_code_page_add(struct hart *h, uint64_t pa)
{
    uint64_t off;
    struct ram *r = rv_ram_at(h, pa, &off);
    if (!r || (ram_watched(r, off) & WATCH_CODE_ALL))
        return true;
    off &= RV_PAGE_MASK;
    h->code_shared = h->code_shared || r->share;
    ram_watch_lock();
    uint64_t from = atomic_load_explicit(&rv_code_head, memory_order_relaxed);
    ram_watch(r, off, RV_PAGE_SIZE, WATCH_CODE);
    ram_watch_unlock();
    rv_tlb_protect_page(h, pa & RV_PAGE_MASK);
    rv_protect_everywhere(h, pa);
    watched_by_all(r, off, from);
    return false;
}

/* A page of RAM at each physical address where it is mapped. */
static void flush_page(struct hart *h, const struct ram *ram, uint64_t off)
{
    const struct view *v = view_get(h->mem);
    for (size_t i = 0; v && i < v->n; i++)
        if (v->r[i].ram == ram && off >= v->r[i].ram_off && off - v->r[i].ram_off < v->r[i].size) {
            uint64_t pa = v->r[i].start + (off - v->r[i].ram_off);
            h->accel->flush_page(h, pa);
            if (h->pages && h->accel != &accel_interp)      /* it runs in place of the accelerator for a debugger */
                accel_interp.flush_page(h, pa);
        }
}

void rv_code_catch_up(struct hart *h)
{
    for (;;) {
        ram_watch_lock();
        uint64_t head = atomic_load_explicit(&rv_code_head, memory_order_relaxed), behind = head - h->code_seen;
        struct ram *r = log_ring[h->code_seen % LOG_SIZE].ram;
        uint64_t off = log_ring[h->code_seen % LOG_SIZE].off;
        ram_watch_unlock();
        if (!behind)
            return;
        if (behind > LOG_SIZE || !r) {
            h->code_seen = head;
            h->accel->flush_all(h);
        } else {
            h->code_seen++;
            flush_page(h, r, off);
        }
    }
}

void rv_fence_i(struct hart *h)
{
    if (unlikely(h->code_shared)) {
        ram_watch_lock();
        code_written(NULL, 0, 0);
        ram_watch_unlock();
    }
    rv_code_look(h);
}

/* ---- reservations ---- */

/* Those of harts other than @but in the page break; those of @but stay. True if @but has one there. Lock held. */
static bool break_others(const struct ram *r, uint64_t off, const struct hart *but)
{
    bool own = false;
    for (unsigned i = 0; set && i < hart_set_count(set); i++) {
        struct hart *h = hart_get(set, i);
        if (h->res_ram != r || (h->res_off ^ off) >> RV_PAGE_BITS)
            continue;
        if (h == but)
            own = true;
        else
            atomic_store(&h->res_broken, true);
    }
    return own;
}

static bool reserve_written(struct ram *r, uint64_t off, uint64_t len) { return break_others(r, off, storing); }

void rv_reserve_track(struct hart *h, uint64_t pa)
{
    uint64_t off;
    struct ram *r = rv_ram_at(h, pa, &off);
    if (!r)
        return;
    ram_watch_lock();
    ram_watch(r, off & RV_PAGE_MASK, RV_PAGE_SIZE, WATCH_RESERVE);
    h->res_ram = r;
    h->res_off = off;
    atomic_store(&h->res_broken, false);
    ram_watch_unlock();
    rv_protect_everywhere(h, pa);
}

void rv_reserve_drop(struct hart *h)
{
    if (!h->res_ram)
        return;
    ram_watch_lock();
    h->res_ram = NULL;
    ram_watch_unlock();
}

void rv_store_hold(struct rv_place *p)
{
    if (!p->ram || !(ram_watched(p->ram, p->ram_off) & WATCH_RESERVE))
        return;
    ram_watch_lock();
    p->guarded = true;
}

void rv_store_break(struct hart *h, const struct rv_place *p)
{
    if (p->guarded)
        break_others(p->ram, p->ram_off, h);
}

void rv_store_guard(struct hart *h, struct rv_place *p)
{
    rv_store_hold(p);
    rv_store_break(h, p);
}

void rv_store_release(struct rv_place *p)
{
    if (!p->guarded)
        return;
    p->guarded = false;
    ram_watch_unlock();
}

void rv_ram_written(struct hart *h, struct ram *r, uint64_t off, unsigned size)
{
    storing = h;
    ram_written(r, off, size);
    storing = NULL;
}

void rv_code_attach(struct hart_set *s)
{
    set = s;
    ram_code_written = s ? code_written : NULL;
    ram_reserve_written = s ? reserve_written : NULL;
}
