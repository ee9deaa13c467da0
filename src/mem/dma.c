/* SPDX-License-Identifier: MIT */
#include "mem/dma.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/str.h"

void dma_init(struct dma *d, struct address_space *as)
{
    *d = (struct dma){ .as = as };
    atomic_init(&d->enabled, false);
}

/* Counts a refused access; false, so that `return dma_refuse(...)` reads well. */
static bool dma_refuse(struct dma *d, uint64_t iova, uint64_t n, const char *why)
{
    atomic_fetch_add_explicit(&d->faults, 1, memory_order_relaxed);
    log_guest("dma: 0x%llx+0x%llx refused: %s", (unsigned long long)iova, (unsigned long long)n, why);
    return false;
}

/*
 * The RAM at the start of [iova, iova + *n), *n shortened to what is contiguous on the host; NULL with @why if there is
 * none. RCU section held.
 */
static uint8_t *dma_piece(struct dma *d, const struct view *v, uint64_t iova, uint64_t *n, bool write,
                          const struct view_range **out, const char **why)
{
    uint64_t pa = iova;
    if (d->xlate && !d->xlate(d->xlate_arg, iova, write, &pa, n)) {
        *why = "not mapped by the IOMMU";
        return NULL;
    }
    const struct view_range *r = view_lookup(v, pa);
    if (!r || !r->host || (write && !r->writable)) {
        *why = !r ? "nothing is there" : r->host ? "read-only memory" : "not memory";
        return NULL;
    }
    *n = MIN(*n, r->size - (pa - r->start));
    *out = r;
    return r->host + (pa - r->start);
}

static bool dma_ready(struct dma *d, uint64_t iova, uint64_t n)
{
    if (!atomic_load_explicit(&d->enabled, memory_order_relaxed))
        return dma_refuse(d, iova, n, "bus mastering is off");
    if (n && n - 1 > UINT64_MAX - iova)
        return dma_refuse(d, iova, n, "wraps");
    return true;
}

static void piece_written(const struct view_range *r, const uint8_t *host, uint64_t n)
{
    rcu_full_fence();
    ram_written(r->ram, r->ram_off + (uint64_t)(host - r->host), n);
}

bool dma_read(struct dma *d, uint64_t iova, void *buf, uint64_t n)
{
    if (!dma_ready(d, iova, n))
        return false;
    uint8_t *to = buf;
    const char *why = NULL;
    rcu_read_lock();
    const struct view *v = view_get(d->as);
    while (n) {
        const struct view_range *r;
        uint64_t len = n;
        uint8_t *host = dma_piece(d, v, iova, &len, false, &r, &why);
        if (!host)
            break;
        ram_copy(to, host, len);
        to += len;
        iova += len;
        n -= len;
    }
    rcu_read_unlock();
    return n ? dma_refuse(d, iova, n, why) : true;
}

/* Writes @n bytes from @buf, or @n times @fill where @buf is NULL. */
static bool dma_put(struct dma *d, uint64_t iova, const uint8_t *buf, uint8_t fill, uint64_t n)
{
    if (!dma_ready(d, iova, n))
        return false;
    const char *why = NULL;
    rcu_read_lock();
    const struct view *v = view_get(d->as);
    while (n) {
        const struct view_range *r;
        uint64_t len = n;
        uint8_t *host = dma_piece(d, v, iova, &len, true, &r, &why);
        if (!host)
            break;
        if (buf) {
            ram_copy(host, buf, len);
            buf += len;
        } else {
            memset(host, fill, len);
        }
        piece_written(r, host, len);
        iova += len;
        n -= len;
    }
    rcu_read_unlock();
    return n ? dma_refuse(d, iova, n, why) : true;
}

bool dma_write(struct dma *d, uint64_t iova, const void *buf, uint64_t n)
{
    return dma_put(d, iova, buf, 0, n);
}

bool dma_set(struct dma *d, uint64_t iova, uint8_t byte, uint64_t n)
{
    return dma_put(d, iova, NULL, byte, n);
}

/* ---- scatter lists ---- */
void dma_vec_init(struct dma_vec *v, struct dma *d, bool dev_writes)
{
    *v = (struct dma_vec){ .dma = d, .dev_writes = dev_writes };
}

static void vec_grow(struct dma_vec *v)
{
    v->cap = v->cap ? v->cap * 2 : 8;
    v->iov = xrealloc(v->iov, v->cap * sizeof(*v->iov));
    v->seg = xrealloc(v->seg, v->cap * sizeof(*v->seg));
}

/* Appends a piece, or lengthens the last one if it continues there. */
static bool vec_add(struct dma_vec *v, const struct view_range *r, uint8_t *host, uint64_t len, unsigned keep)
{
    uint64_t off = r->ram_off + (uint64_t)(host - r->host);
    if (v->n > keep && v->seg[v->n - 1].ram == r->ram && v->seg[v->n - 1].off + v->iov[v->n - 1].iov_len == off) {
        v->iov[v->n - 1].iov_len += len;
        return true;
    }
    if (v->n == DMA_VEC_MAX || !ram_hold(r->ram))
        return false;
    if (v->n == v->cap)
        vec_grow(v);
    v->iov[v->n] = (struct iovec){ host, len };
    v->seg[v->n++] = (struct dma_seg){ r->ram, off };
    return true;
}

bool dma_map(struct dma_vec *v, uint64_t iova, uint64_t len)
{
    struct dma *d = v->dma;
    if (!dma_ready(d, iova, len))
        return false;
    unsigned keep = v->n;
    uint64_t left = len;
    const char *why = "too many pieces";
    rcu_read_lock();
    const struct view *view = view_get(d->as);
    while (left) {
        const struct view_range *r;
        uint64_t n = left;
        uint8_t *host = dma_piece(d, view, iova, &n, v->dev_writes, &r, &why);
        if (!host || !vec_add(v, r, host, n, keep))
            break;
        iova += n;
        left -= n;
    }
    rcu_read_unlock();
    if (!left) {
        v->len += len;
        return true;
    }
    while (v->n > keep)
        ram_drop(v->seg[--v->n].ram);
    return dma_refuse(d, iova, left, why);
}

void dma_unmap(struct dma_vec *v, uint64_t written)
{
    if (v->dev_writes)
        rcu_full_fence();
    for (unsigned i = 0; i < v->n; i++) {
        uint64_t n = v->dev_writes ? MIN(written, v->iov[i].iov_len) : 0;
        if (n)
            ram_written(v->seg[i].ram, v->seg[i].off, n);
        written -= n;
        ram_drop(v->seg[i].ram);
    }
    v->n = 0;
    v->len = 0;
}

void dma_vec_free(struct dma_vec *v)
{
    dma_unmap(v, 0);
    free(v->iov);
    free(v->seg);
    *v = (struct dma_vec){ .dma = v->dma, .dev_writes = v->dev_writes };
}

void *dma_map_fixed(struct dma *d, uint64_t iova, uint64_t len, bool dev_writes, struct ram **ram, uint64_t *ram_off)
{
    if (!len || !dma_ready(d, iova, len))
        return NULL;
    const struct view_range *r;
    const char *why = "not one piece of memory";
    uint64_t n = len;
    rcu_read_lock();
    uint8_t *host = dma_piece(d, view_get(d->as), iova, &n, dev_writes, &r, &why);
    if (host && n == len) {
        *ram = r->ram;
        *ram_off = r->ram_off + (uint64_t)(host - r->host);
    }
    rcu_read_unlock();
    if (host && n == len)
        return host;
    dma_refuse(d, iova, len, why);
    return NULL;
}
