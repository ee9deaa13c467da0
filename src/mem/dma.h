/* SPDX-License-Identifier: MIT */
/*
 * What a device may do to memory: RAM only (MMIO targets are refused as a bus error), bounded, behind the bus-master
 * switch and an IOMMU hook. All functions: domain lock held or not; they take no lock. Failure means "target abort".
 */
#ifndef MEM_DMA_H
#define MEM_DMA_H

#include <sys/uio.h>

#include "mem/view.h"

struct dma {
    struct address_space *as;
    atomic_bool enabled;            /* bus master enable; board devices: true */
    /* IOMMU: iova to address; NULL: identity. Shortens *len to what is contiguous. */
    bool (*xlate)(void *arg, uint64_t iova, bool write, uint64_t *pa, uint64_t *len);
    void *xlate_arg;
    atomic_uint_least64_t faults;   /* refused accesses, shown by the monitor */
};

void dma_init(struct dma *d, struct address_space *as);
/* Copy once, parse the copy. */
MUST_CHECK bool dma_read(struct dma *d, uint64_t iova, void *buf, uint64_t n);
MUST_CHECK bool dma_write(struct dma *d, uint64_t iova, const void *buf, uint64_t n);
MUST_CHECK bool dma_set(struct dma *d, uint64_t iova, uint8_t byte, uint64_t n);

#define DMA_VEC_MAX 1024
/* A bounded scatter list of host addresses. The RAM stays mapped until dma_unmap(). */
struct dma_vec {
    struct dma *dma;
    bool dev_writes;
    unsigned n, cap;
    struct iovec *iov;              /* host memory; grows up to DMA_VEC_MAX */
    struct dma_seg { struct ram *ram; uint64_t off; } *seg;
    uint64_t len;
};
void dma_vec_init(struct dma_vec *v, struct dma *d, bool dev_writes);
/* Appends [iova, iova + len); false if any byte is not RAM, too many pieces, or DMA is off (the vec is left as before). */
MUST_CHECK bool dma_map(struct dma_vec *v, uint64_t iova, uint64_t len);
/* Marks the first @written bytes dirty (0 for reads) and forgets all. The vec can be used again. */
void dma_unmap(struct dma_vec *v, uint64_t written);
void dma_vec_free(struct dma_vec *v);
/* The host copy helpers over a vec: bytes copied, less where the vec is shorter. */
size_t vec_to_buf(const struct dma_vec *v, uint64_t off, void *buf, size_t n);
size_t vec_from_buf(const struct dma_vec *v, uint64_t off, const void *buf, size_t n);
/* The part [off, off+len) as an iovec array: a pointer into the vec where the edges fit, else built in *@own (grown with
 * realloc, freed by the owner). NULL if out of range or of memory. */
struct iovec *vec_slice(const struct dma_vec *v, uint64_t off, uint64_t len, unsigned *n, struct iovec **own);
/* A small piece of RAM mapped for long (rings): NULL if it is not one contiguous RAM range. Valid until the view changes:
 * the owner compares dma_view_gen() and maps again. */
void *dma_map_fixed(struct dma *d, uint64_t iova, uint64_t len, bool dev_writes, struct ram **ram, uint64_t *ram_off);

/* Changes (never to 0) whenever what dma_map_fixed() gave may have become invalid. ANY. */
static inline uint64_t dma_view_gen(const struct dma *d)
{
    rcu_read_lock();
    uint64_t gen = view_get(d->as)->gen;
    rcu_read_unlock();
    return gen;
}

#endif
