/* SPDX-License-Identifier: MIT */
/*
 * The memory of queues. A queue is one piece of the host's memory (CAP.CQR), mapped when the queue is first used and until the
 * machine's memory or the controller's own windows change. What is no single piece of RAM goes the general way.
 */
#include "hw/nvme/queue_int.h"

/* Whether @g maps what is at @addr now. */
static bool ring_ready(struct nvme *n, struct nvme_ring *g, uint64_t addr, uint64_t len)
{
    uint64_t gen = dma_view_gen(&n->pci.dma);

    if (unlikely(!atomic_load_explicit(&n->pci.dma.enabled, memory_order_relaxed)))
        return false;
    if (likely(g->gen == gen))
        return g->vec.n == 1;
    nvme_ring_drop(g);
    if (!dma_map(&g->vec, addr, len))
        return false;
    g->gen = gen;
    return g->vec.n == 1;
}

void nvme_ring_drop(struct nvme_ring *g)
{
    dma_unmap(&g->vec, 0);
    g->gen = 0;
}

void nvme_rings_forget(struct nvme *n)
{
    for (unsigned i = 0; n->sq && i <= n->max_ioqpairs; i++) {
        nvme_ring_drop(&n->sq[i].ring);
        nvme_ring_drop(&n->cq[i].ring);
    }
}

bool nvme_ring_fetch(struct nvme_sq *sq, struct nvme_cmd *c, unsigned count)
{
    struct nvme *n = sq->n;
    uint64_t at = sq->head * (uint64_t)sizeof *c;

    if (unlikely(!ring_ready(n, &sq->ring, sq->addr, sq->size * (uint64_t)sizeof *c)))
        return dma_read(&n->pci.dma, sq->addr + at, c, count * sizeof *c);
    ram_copy(c, (const uint8_t *)sq->ring.vec.iov[0].iov_base + at, count * sizeof *c);
    return true;
}

/* The status, with the phase that makes the entry valid, goes last: the host may look at any moment. */
bool nvme_ring_complete(struct nvme_cq *cq, const struct nvme_cqe *e)
{
    struct nvme *n = cq->n;
    uint64_t at = cq->tail * (uint64_t)sizeof *e;
    bool ok;

    if (likely(ring_ready(n, &cq->ring, cq->addr, cq->size * (uint64_t)sizeof *e))) {
        uint8_t *p = (uint8_t *)cq->ring.vec.iov[0].iov_base + at;
        uint32_t last;

        memcpy(&last, &e->cid, sizeof last);
        ram_copy(p, e, 12);
        atomic_store_explicit((_Atomic uint32_t *)(void *)(p + 12), last, memory_order_release);
        rcu_full_fence();               /* before a look at who watches the page */
        ram_written(cq->ring.vec.seg[0].ram, cq->ring.vec.seg[0].off + at, sizeof *e);
        return true;
    }
    ok = dma_write(&n->pci.dma, cq->addr + at, e, 12);
    atomic_thread_fence(memory_order_release);
    return ok && dma_write(&n->pci.dma, cq->addr + at + 12, &e->cid, 4);
}
