/* SPDX-License-Identifier: MIT */
/*
 * Who must notice stores: translators of pages that hold code, and harts with a reservation that its value alone does not decide.
 * A page of either kind is watched (mem/ram.h) and no hart keeps a fast store entry for it. The first store that is noticed ends
 * the watch. RISC-V promises that code is fresh after fence.i only, so written code pages go into a log that each hart reads there.
 */
#include "cpu/riscv/accel.h"
#include "cpu/riscv/mmu.h"

#define LOG_SIZE 4096u

static struct { struct ram *ram; uint64_t off; } log_ring[LOG_SIZE];    /* under ram_watch_lock() */
static uint64_t log_head;
static struct hart_set *set;
static _Thread_local struct hart *storing;      /* the hart whose own store is being noticed */

/* ---- code ---- */

static void code_written(struct ram *r, uint64_t off, uint64_t len)
{
    log_ring[log_head % LOG_SIZE].ram = r;
    log_ring[log_head % LOG_SIZE].off = off & RV_PAGE_MASK;
    log_head++;
}

struct ram *rv_ram_at(struct hart *h, uint64_t pa, uint64_t *off)
{
    const struct view_range *r = view_lookup(view_get(h->mem), pa);
    if (!r || !r->host || !r->writable)
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

void rv_code_page_add(struct hart *h, uint64_t pa)
{
    uint64_t off;
    struct ram *r = rv_ram_at(h, pa, &off);
    if (!r || (ram_watched(r, off) & WATCH_CODE))
        return;
    ram_watch(r, off & RV_PAGE_MASK, RV_PAGE_SIZE, WATCH_CODE);
    rv_tlb_protect_page(h, pa & RV_PAGE_MASK);
    rv_protect_everywhere(h, pa);
}

/* A page of RAM at each physical address where it is mapped. */
static void flush_page(struct hart *h, const struct ram *ram, uint64_t off)
{
    const struct view *v = view_get(h->mem);
    for (size_t i = 0; v && i < v->n; i++)
        if (v->r[i].ram == ram && off >= v->r[i].ram_off && off - v->r[i].ram_off < v->r[i].size)
            h->accel->flush_page(h, v->r[i].start + (off - v->r[i].ram_off));
}

void rv_code_catch_up(struct hart *h)
{
    for (;;) {
        ram_watch_lock();
        uint64_t head = log_head, behind = head - h->code_seen;
        struct ram *r = log_ring[h->code_seen % LOG_SIZE].ram;
        uint64_t off = log_ring[h->code_seen % LOG_SIZE].off;
        ram_watch_unlock();
        if (!behind)
            return;
        if (behind > LOG_SIZE) {
            h->code_seen = head;
            h->accel->flush_all(h);
        } else {
            h->code_seen++;
            flush_page(h, r, off);
        }
    }
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

static void reserve_written(struct ram *r, uint64_t off, uint64_t len)
{
    if (break_others(r, off, storing))
        ram_watch(r, off & RV_PAGE_MASK, RV_PAGE_SIZE, WATCH_RESERVE);
}

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

void rv_store_guard(struct hart *h, struct rv_place *p)
{
    if (!p->ram || !(ram_watched(p->ram, p->ram_off) & WATCH_RESERVE))
        return;
    ram_watch_lock();
    p->guarded = true;
    break_others(p->ram, p->ram_off, h);
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
