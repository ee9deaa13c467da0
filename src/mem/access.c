/* SPDX-License-Identifier: MIT */
/* One access at a guest physical address: RAM directly, MMIO through its handlers in the sizes they take. */
#include "mem/view.h"

#include "base/log.h"
#include "loop/loop.h"

/* ---- RAM: a naturally aligned access of 1 to 8 bytes is one host access, as the guest expects ---- */
static uint64_t host_load(const uint8_t *p, unsigned size)
{
    if ((uintptr_t)p & (size - 1))
        return ld_le(p, size);
    switch (size) {
    case 1: return __atomic_load_n(p, __ATOMIC_RELAXED);
    case 2: return le16toh(__atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED));
    case 4: return le32toh(__atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED));
    case 8: return le64toh(__atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED));
    default: return ld_le(p, size);
    }
}

static void host_store(uint8_t *p, uint64_t v, unsigned size)
{
    if ((uintptr_t)p & (size - 1)) {
        st_le(p, v, size);
        return;
    }
    switch (size) {
    case 1: __atomic_store_n(p, (uint8_t)v, __ATOMIC_RELAXED); break;
    case 2: __atomic_store_n((uint16_t *)(void *)p, htole16((uint16_t)v), __ATOMIC_RELAXED); break;
    case 4: __atomic_store_n((uint32_t *)(void *)p, htole32((uint32_t)v), __ATOMIC_RELAXED); break;
    case 8: __atomic_store_n((uint64_t *)(void *)p, htole64(v), __ATOMIC_RELAXED); break;
    default: st_le(p, v, size);
    }
}

/* ---- MMIO ---- */
/* The bus accepts the access: a size it takes, aligned, inside the region. */
static bool mmio_valid(const struct region *g, uint64_t off, unsigned size)
{
    const struct mmio_ops *o = g->ops;
    unsigned lo = o->valid_min ? o->valid_min : 1, hi = o->valid_max ? o->valid_max : 8;
    return is_pow2(size) && size >= lo && size <= hi && (o->unaligned || !(off & (size - 1))) &&
           range_ok(off, size, g->size);
}

static unsigned ops_min(const struct mmio_ops *o) { return o->min ? o->min : 1; }
static unsigned ops_max(const struct mmio_ops *o) { return o->max ? o->max : 8; }

static uint64_t swap_if(const struct mmio_ops *o, uint64_t v, unsigned size)
{
    return o->big_endian ? __builtin_bswap64(v) >> (64 - 8 * size) : v;
}

/* A call of the handler in a size it takes; values are little endian outside. */
static uint64_t call_read(const struct region *g, uint64_t off, unsigned size)
{
    return swap_if(g->ops, g->ops->read(g->opaque, off, size) & mask_of_size(size), size);
}

static void call_write(const struct region *g, uint64_t off, uint64_t v, unsigned size)
{
    g->ops->write(g->opaque, off, swap_if(g->ops, v & mask_of_size(size), size), size);
}

static uint64_t mmio_read_sized(const struct region *g, uint64_t off, unsigned size)
{
    unsigned lo = ops_min(g->ops), hi = ops_max(g->ops);
    if (size < lo) {
        uint64_t base = off & ~(uint64_t)(lo - 1);
        return call_read(g, base, lo) >> 8 * (off - base) & mask_of_size(size);
    }
    if (size <= hi)
        return call_read(g, off, size);
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i += hi)
        v |= call_read(g, off + i, hi) << 8 * i;
    return v;
}

static void mmio_write_sized(const struct region *g, uint64_t off, uint64_t v, unsigned size)
{
    unsigned lo = ops_min(g->ops), hi = ops_max(g->ops);
    if (size < lo) {
        uint64_t base = off & ~(uint64_t)(lo - 1), old = call_read(g, base, lo);
        call_write(g, base, bits_set(old, 8 * (unsigned)(off - base), 8 * size, v & mask_of_size(size)), lo);
        return;
    }
    if (size <= hi) {
        call_write(g, off, v, size);
        return;
    }
    for (unsigned i = 0; i < size; i += hi)
        call_write(g, off + i, v >> 8 * i, hi);
}

/* Takes the region's lock unless its handlers need none; says whether it did. */
static bool mmio_enter(const struct region *g)
{
    if (g->ops->lockless || !g->dom)
        return false;
    domain_lock(g->dom);
    return true;
}

static bool mmio_read(const struct region *g, uint64_t off, uint64_t *v, unsigned size)
{
    if (!g->ops || !g->ops->read || !mmio_valid(g, off, size)) {
        log_guest("%s: read of %u bytes at offset 0x%llx refused", g->name, size, (unsigned long long)off);
        return false;
    }
    bool locked = mmio_enter(g);
    *v = mmio_read_sized(g, off, size);
    if (locked)
        domain_unlock(g->dom);
    return true;
}

static bool doorbell_rings(const struct region *g, uint64_t off, uint64_t v, unsigned size)
{
    struct doorbell *d = atomic_load_explicit(&g->doorbells, memory_order_acquire);
    for (; d; d = atomic_load_explicit(&d->next, memory_order_acquire)) {
        if (d->off == off && d->size == size && (!d->match || d->datamatch == v)) {
            d->fn(d->arg, v);
            return true;
        }
    }
    return false;
}

static bool mmio_write(const struct region *g, uint64_t off, uint64_t v, unsigned size)
{
    v &= mask_of_size(size);
    if (doorbell_rings(g, off, v, size))
        return true;
    if (!g->ops || !g->ops->write || !mmio_valid(g, off, size)) {
        log_guest("%s: write of %u bytes at offset 0x%llx refused", g->name, size, (unsigned long long)off);
        return false;
    }
    bool locked = mmio_enter(g);
    mmio_write_sized(g, off, v, size);
    if (locked)
        domain_unlock(g->dom);
    return true;
}

/* ---- a leaf ---- */
bool view_range_read(const struct view_range *r, uint64_t addr, uint64_t *v, unsigned size)
{
    uint64_t off = addr - r->start;
    if (!range_ok(off, size, r->size) || size > 8)
        return false;
    if (r->host) {
        *v = host_load(r->host + off, size);
        return true;
    }
    return mmio_read(r->region, r->region_off + off, v, size);
}

bool view_range_write(const struct view_range *r, uint64_t addr, uint64_t v, unsigned size)
{
    uint64_t off = addr - r->start;
    if (!range_ok(off, size, r->size) || size > 8)
        return false;
    if (r->writable) {
        host_store(r->host + off, v, size);
        rcu_full_fence();
        ram_written(r->ram, r->ram_off + off, size);
        return true;
    }
    if (r->host && !r->region->ops) {       /* ROM: the bus takes the write, the cells do not */
        log_guest("%s: write to read-only memory at 0x%llx", r->region->name, (unsigned long long)addr);
        return true;
    }
    return mmio_write(r->region, r->region_off + off, v, size);
}

/* ---- by address ---- */
bool as_read(struct address_space *as, uint64_t addr, uint64_t *v, unsigned size)
{
    bool ok = false;
    *v = 0;
    rcu_read_lock();
    const struct view_range *r = view_lookup(view_get(as), addr);
    if (r && range_ok(addr - r->start, size, r->size)) {
        ok = view_range_read(r, addr, v, size);
    } else if (r && size <= 8) {
        uint8_t b[8] = { 0 };
        ok = as_read_bytes(as, addr, b, size);
        *v = ld_le(b, size);
    }
    rcu_read_unlock();
    return ok;
}

bool as_write(struct address_space *as, uint64_t addr, uint64_t v, unsigned size)
{
    bool ok = false;
    rcu_read_lock();
    const struct view_range *r = view_lookup(view_get(as), addr);
    if (r && range_ok(addr - r->start, size, r->size)) {
        ok = view_range_write(r, addr, v, size);
    } else if (r && size <= 8) {
        uint8_t b[8];
        st_le(b, v, 8);
        ok = as_write_bytes(as, addr, b, size);
    }
    rcu_read_unlock();
    return ok;
}

/* The largest access that is aligned at @off, fits in @left and that the bus of @g accepts. */
static unsigned piece_size(const struct region *g, uint64_t off, uint64_t left)
{
    unsigned s = g->ops && g->ops->valid_max ? g->ops->valid_max : 8;
    while (s > 1 && (s > left || off & (s - 1)))
        s /= 2;
    return s;
}

/* How many bytes from @addr on can be served by @r at once; for a hole (@r NULL) up to the next range. */
static uint64_t span_at(const struct view *v, const struct view_range *r, uint64_t addr, uint64_t n)
{
    if (r)
        return MIN(n, r->size - (addr - r->start));
    for (size_t i = 0; v && i < v->n; i++)
        if (v->r[i].start > addr)
            return MIN(n, v->r[i].start - addr);
    return n;
}

static bool mmio_bytes(const struct view_range *r, uint64_t addr, uint8_t *rd, const uint8_t *wr, uint64_t n)
{
    bool ok = true;
    while (n) {
        unsigned s = piece_size(r->region, r->region_off + (addr - r->start), n);
        uint64_t v = 0;
        if (rd) {
            ok &= view_range_read(r, addr, &v, s);
            st_le(rd, v, s);
            rd += s;
        } else {
            ok &= view_range_write(r, addr, ld_le(wr, s), s);
            wr += s;
        }
        addr += s;
        n -= s;
    }
    return ok;
}

bool as_read_bytes(struct address_space *as, uint64_t addr, void *buf, uint64_t n)
{
    bool ok = n == 0 || n - 1 <= UINT64_MAX - addr;
    uint8_t *p = buf;
    rcu_read_lock();
    const struct view *v = view_get(as);
    while (n) {
        const struct view_range *r = view_lookup(v, addr);
        uint64_t len = span_at(v, r, addr, n);
        if (!r) {
            memset(p, 0, len);
            ok = false;
        } else if (r->host) {
            ram_copy(p, r->host + (addr - r->start), len);
        } else {
            ok &= mmio_bytes(r, addr, p, NULL, len);
        }
        p += len;
        addr += len;
        n -= len;
    }
    rcu_read_unlock();
    return ok;
}

bool as_write_bytes(struct address_space *as, uint64_t addr, const void *buf, uint64_t n)
{
    bool ok = n == 0 || n - 1 <= UINT64_MAX - addr;
    const uint8_t *p = buf;
    rcu_read_lock();
    const struct view *v = view_get(as);
    while (n) {
        const struct view_range *r = view_lookup(v, addr);
        uint64_t len = span_at(v, r, addr, n);
        if (!r) {
            ok = false;
        } else if (r->writable) {
            ram_copy(r->host + (addr - r->start), p, len);
            rcu_full_fence();
            ram_written(r->ram, r->ram_off + (addr - r->start), len);
        } else if (!r->region->ops) {
            log_guest("%s: write to read-only memory at 0x%llx", r->region->name, (unsigned long long)addr);
        } else {
            ok &= mmio_bytes(r, addr, NULL, p, len);
        }
        p += len;
        addr += len;
        n -= len;
    }
    rcu_read_unlock();
    return ok;
}

bool as_load(struct address_space *as, uint64_t addr, const void *buf, uint64_t n)
{
    bool ok = n == 0 || n - 1 <= UINT64_MAX - addr;
    const uint8_t *p = buf;
    rcu_read_lock();
    const struct view *v = view_get(as);
    while (n && ok) {
        const struct view_range *r = view_lookup(v, addr);
        ok = r && r->ram && !r->ram->readonly;
        if (!ok)
            break;
        uint64_t len = span_at(v, r, addr, n);
        ram_copy(r->host + (addr - r->start), p, len);
        rcu_full_fence();
        ram_written(r->ram, r->ram_off + (addr - r->start), len);
        p += len;
        addr += len;
        n -= len;
    }
    rcu_read_unlock();
    return ok;
}
