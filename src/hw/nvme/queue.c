/* SPDX-License-Identifier: MIT */
/*
 * Submission and completion queues (3.3, 3.3.3). A doorbell write latches its value and posts; the post fetches what is
 * there, and one post after a batch of completions raises its interrupt. Life and completion; fetching is in fetch.c.
 */
#include <stdlib.h>
#include "base/log.h"
#include "base/str.h"
#include "hw/nvme/queue_int.h"
#include "hw/nvme/timing.h"

#define FREE_REQS_MAX 1024u             /* idle requests that are kept */
#define BOUNCE_KEPT (64 * KiB)          /* memory that an idle request keeps */

/* ---- doorbells: ANY, no lock ---- */

static void cq_settle(void *arg);

/*
 * A head that frees room nobody waits for is only latched: the queue looks when it seems full. Who begins to wait makes the queue
 * loud first and looks at the head then, so that one of the two sees the other.
 */
static void head_write(struct nvme *n, struct nvme_cq *cq, uint32_t head)
{
    bool pin = atomic_load_explicit(&cq->irq_on, memory_order_relaxed) && !pci_msi_enabled(&n->pci);

    atomic_store(&cq->head_db, head);
    if (!pin && head < atomic_load(&cq->quiet))
        return;
    atomic_store(&cq->rung, true);
    if (pin)
        domain_call(n->pci.dev.dom, cq_settle, cq);
    else
        nvme_cq_kick(cq);
}

static void doorbell_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct nvme *n = opaque;
    uint64_t q = off / 8;

    if (q > n->max_ioqpairs)
        return;
    if (off & 4) {
        head_write(n, &n->cq[q], (uint32_t)v);
    } else {
        atomic_store(&n->sq[q].tail_db, (uint32_t)v);
        atomic_store(&n->sq[q].rung, true);
        nvme_sq_kick(&n->sq[q]);
    }
}

static uint64_t doorbell_read(void *opaque, uint64_t off, unsigned size) { return 0; }   /* 3.1.4.1: vendor specific */

const struct mmio_ops nvme_doorbell_ops = { .read = doorbell_read, .write = doorbell_write, .min = 4, .max = 4, .valid_min = 4,
                                            .lockless = true };

/* ---- requests ---- */

struct nvme_req *nvme_req_get(struct nvme_sq *sq)
{
    struct nvme *n = sq->n;
    struct list *l = list_pop(&n->free_reqs);
    struct nvme_req *r = l ? list_entry(l, struct nvme_req, link) : xnew(struct nvme_req);

    if (l) {
        n->n_free--;
    } else {
        list_init(&r->link);
        r->n = n;
        dma_vec_init(&r->data, &n->pci.dma, true);
        dma_vec_init(&r->meta, &n->pci.dma, true);
    }
    r->sq = sq;
    r->ns = NULL;
    r->fused = NULL;
    r->gen = n->gen;
    r->result = 0;
    r->abort = r->delayed = r->park = r->corrupt = false;
    list_push(&sq->reqs, &r->link);
    sq->in_flight++;
    n->in_flight++;
    return r;
}

void nvme_req_set_aside(struct nvme_req *r, struct list *where)
{
    list_del(&r->link);
    list_push(where, &r->link);
    if (!--r->n->in_flight)
        nvme_drained(r->n);
}

static void req_destroy(struct nvme_req *r)
{
    dma_vec_free(&r->data);
    dma_vec_free(&r->meta);
    free(r->bounce);
    free(r);
}

void nvme_req_free(struct nvme_req *r)
{
    struct nvme *n = r->n;

    dma_unmap(&r->data, 0);
    dma_unmap(&r->meta, 0);
    list_del(&r->link);
    n->in_flight--;
    if (r->gen == n->gen && --r->sq->in_flight == 0)
        nvme_drained_wake(n);
    if (r->bounce_size > BOUNCE_KEPT) {
        free(r->bounce);
        r->bounce = NULL;
        r->bounce_size = 0;
    }
    if (n->n_free < FREE_REQS_MAX) {
        list_push_front(&n->free_reqs, &r->link);
        n->n_free++;
    } else {
        req_destroy(r);
    }
    if (!n->in_flight)
        nvme_drained(n);
    if (n->starved && n->in_flight <= NVME_IN_FLIGHT_MAX / 2) {
        n->starved = false;
        nvme_kick_all(n);
    }
}

/* ---- interrupts ---- */

/* The doorbell may have been latched only, while interrupts were messages. */
static uint32_t head_now(const struct nvme_cq *cq)
{
    uint32_t head = atomic_load(&cq->head_db);

    return cq->n->shadow_db || head >= cq->size ? cq->head : head;
}

void nvme_pin_update(struct nvme *n)
{
    bool level = false;

    for (unsigned i = 0; i <= n->max_ioqpairs && !level && !pci_msi_enabled(&n->pci); i++) {
        const struct nvme_cq *cq = &n->cq[i];
        level = cq->live && cq->irq_on && cq->raised && head_now(cq) != cq->tail && !(n->intms >> (cq->vector & 31) & 1);
    }
    pci_intx_set(&n->pci, level);
}

/* 5.27.1.6: whether the interrupt of @cq may wait for more completions. */
static bool coalesced(const struct nvme_cq *cq)
{
    const struct nvme *n = cq->n;
    uint32_t c = n->feat[NVME_FEAT_COALESCING];

    if (!cq->id || !(c >> 8 & 0xff) || !(c & 0xff) || n->vector_off[cq->vector / 32] >> (cq->vector & 31) & 1)
        return false;
    return cq->held < (c & 0xff) + 1u;
}

static void cq_interrupt(struct nvme_cq *cq)
{
    cq->notify = false;
    cq->raised = true;
    cq->held = 0;
    timer_disarm(&cq->coalesce);
    if (cq->live && cq->irq_on && !pci_msi_notify(&cq->n->pci, cq->vector))
        nvme_pin_update(cq->n);
}

static void coalesce_due(void *arg) { cq_interrupt(arg); }

static void cq_tell(struct nvme_cq *cq)
{
    cq->notify = false;
    if (!coalesced(cq))
        cq_interrupt(cq);
    else if (!timer_armed(&cq->coalesce))
        timer_arm(&cq->coalesce, clock_now(CLOCK_VM) + (cq->n->feat[NVME_FEAT_COALESCING] >> 8 & 0xff) * INT64_C(100000));
}

/* ---- completion ---- */

bool nvme_shadow(struct nvme *n, unsigned qid, bool cq, uint32_t *v)
{
    uint32_t le;

    if (!n->shadow_db || !qid || !dma_read(&n->pci.dma, n->shadow_db + 4 * (2 * qid + cq), &le, sizeof le))
        return false;
    *v = le32toh(le);
    return true;
}

bool nvme_shadow_ask(struct nvme *n, unsigned qid, bool cq, uint32_t v)
{
    uint32_t le = htole32(v);

    if (!n->shadow_ei || !qid || !dma_write(&n->pci.dma, n->shadow_ei + 4 * (2 * qid + cq), &le, sizeof le))
        return false;
    atomic_thread_fence(memory_order_seq_cst);          /* then the shadow is looked at again */
    return true;
}

static bool full(const struct nvme_cq *cq) { return (cq->tail + 1) % cq->size == cq->head; }

/* The head may have moved without a word: a doorbell that was only latched, or a doorbell buffer. */
static bool cq_full(struct nvme_cq *cq)
{
    uint32_t head = atomic_load(&cq->head_db);

    if (likely(!full(cq)))
        return false;
    if (nvme_shadow_ask(cq->n, cq->id, true, cq->head))
        nvme_shadow(cq->n, cq->id, true, &head);
    if (head < cq->size)
        cq->head = head;
    return full(cq);
}

static void cqe_write(struct nvme_cq *cq, uint16_t sqid, uint16_t cid, uint16_t status, uint64_t result)
{
    struct nvme *n = cq->n;
    const struct nvme_sq *sq = &n->sq[sqid];
    struct nvme_cqe e = { .result = htole64(result), .sq_head = htole16((uint16_t)sq->head), .sq_id = htole16(sqid),
                          .cid = htole16(cid), .status = htole16((uint16_t)(status << 1 | cq->phase)) };

    if (!nvme_ring_complete(cq, &e)) {
        nvme_fail(n, "a completion queue is not in memory");
        return;
    }
    if (++cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    cq->held++;
    if (cq->irq_on && !cq->notify) {
        cq->notify = true;
        nvme_cq_kick(cq);
    }
}

void nvme_cq_settled(struct nvme_cq *cq) { atomic_store(&cq->quiet, cq->live && list_empty(&cq->waiting) ? cq->size : 0); }

/* There is no room: @r waits for the host to make some. */
static void wait_for_room(struct nvme_cq *cq, struct nvme_req *r)
{
    bool first = list_empty(&cq->waiting);

    nvme_req_set_aside(r, &cq->waiting);
    if (!first)
        return;
    nvme_cq_settled(cq);
    atomic_store(&cq->rung, true);      /* the host may have moved the head before it was to tell */
    nvme_cq_kick(cq);
}

void nvme_complete(struct nvme_req *r)
{
    struct nvme_cq *cq = &r->n->cq[r->sq->cqid];

    dma_unmap(&r->data, r->data.len);
    dma_unmap(&r->meta, r->meta.len);
    if (nvme_stale(r)) {
        nvme_req_free(r);
        return;
    }
    TRACE(nvme_done, "'%s' queue %u cid %u: 0x%02x status 0x%x", r->n->pci.dev.obj.id, r->sq->id, r->cmd.cid, r->cmd.opcode, r->status);
    if (r->status & NVME_STATUS_MASK)
        nvme_log_error(r);
    if (cq_full(cq) || !list_empty(&cq->waiting)) {
        wait_for_room(cq, r);
        return;
    }
    cqe_write(cq, r->sq->id, r->cmd.cid, r->status, r->result);
    nvme_req_free(r);
}

void nvme_complete_cid(struct nvme *n, uint16_t cid, uint16_t status, uint64_t result)
{
    struct nvme_req *r;

    if (!n->sq[0].live)
        return;
    r = nvme_req_get(&n->sq[0]);
    r->cmd = (struct nvme_cmd){ .opcode = NVME_ADM_AER, .cid = cid };
    r->status = status;
    r->result = result;
    nvme_complete(r);
}

/*
 * What the host says of the head: by the doorbell or, with doorbell buffers, in its memory. A pin needs to know when the queue is
 * empty, so that the host is asked to ring for each step then. False: no such entry.
 */
static bool cq_take_head(struct nvme_cq *cq)
{
    struct nvme *n = cq->n;
    bool ask = n->shadow_ei && !pci_msi_enabled(&n->pci);
    uint32_t head = atomic_load(&cq->head_db), seen;

    nvme_shadow(n, cq->id, true, &head);
    for (unsigned i = 0; head < cq->size && i < 3; i++, head = seen) {
        cq->head = head;
        if (!ask || !nvme_shadow_ask(n, cq->id, true, head) || !nvme_shadow(n, cq->id, true, &seen) || seen == head)
            break;                              /* else it moved before it was asked to tell */
    }
    cq->raised &= cq->head != cq->tail;
    return head < cq->size;
}

/* There is room again: whoever completes here may fetch. */
static void sqs_kick(const struct nvme_cq *cq)
{
    struct nvme *n = cq->n;

    for (unsigned i = 0; i <= n->max_ioqpairs; i++)
        if (n->sq[i].live && n->sq[i].cqid == cq->id)
            nvme_sq_kick(&n->sq[i]);
}

static void cq_head(struct nvme_cq *cq)
{
    bool waited = !list_empty(&cq->waiting);
    struct nvme_req *r;

    if (!cq_take_head(cq)) {
        nvme_event(cq->n, NVME_EV_BAD_DOORBELL_VALUE, NVME_LOG_ERROR);
        return;
    }
    while (!cq_full(cq) && (r = list_first(&cq->waiting, struct nvme_req, link))) {
        cq->n->in_flight++;
        cqe_write(cq, r->sq->id, r->cmd.cid, r->status, r->result);
        nvme_req_free(r);
    }
    nvme_cq_settled(cq);
    if (waited && list_empty(&cq->waiting))
        sqs_kick(cq);
}

/*
 * The pin of a queue that was emptied falls before the doorbell returns: were it still up when the handler returns, the guest came
 * back for nothing, again and again until the loop had looked. What wakes others (entries that wait for room, errors) is the loop's.
 */
static void cq_settle(void *arg)
{
    struct nvme_cq *cq = arg;

    if (!cq->live || !list_empty(&cq->waiting) || !cq_take_head(cq)) {
        nvme_cq_kick(cq);
        return;
    }
    atomic_store(&cq->rung, false);
    nvme_pin_update(cq->n);
}

static void cq_served(void *arg)
{
    struct nvme_cq *cq = arg;
    struct nvme *n = cq->n;

    if (atomic_exchange(&cq->rung, false)) {
        if (cq->live)
            cq_head(cq);
        else if (nvme_ready(n))
            nvme_event(n, NVME_EV_BAD_DOORBELL_REG, NVME_LOG_ERROR);
        if (!pci_msi_enabled(&n->pci))
            nvme_pin_update(n);
    }
    if (cq->notify)
        cq_tell(cq);
}

/* ---- life ---- */

static void queues_free(struct nvme *n)
{
    iothread_map_clear(&n->queue_threads);
    free(n->sq);
    free(n->cq);
    n->sq = NULL;
    n->cq = NULL;
}

/* Who serves which queue; those that no thread is named for, and the admin queue, are the home loop's. */
static bool loops_give(struct nvme *n, struct err *e)
{
    static const struct iothread_map_words words = { .option = "iothread-queue-mapping", .key = "queues", .last = "max_ioqpairs" };
    const struct nvme *pf = (const struct nvme *)n->pci.pf;
    struct loop **loop = xcalloc(n->n_queues, sizeof *loop);
    bool ok = !n->queue_map_opt || iothread_map_set(&n->queue_threads, n->queue_map_opt, &words, loop, 1, n->max_ioqpairs, e);

    for (unsigned i = 0; ok && i < n->n_queues; i++) {
        if (pf && i && i < pf->n_queues)
            loop[i] = pf->sq[i].loop;   /* a virtual function's are its physical function's */
        n->sq[i].loop = n->cq[i].loop = loop[i] ? loop[i] : domain_loop(n->pci.dev.dom);
    }
    free(loop);
    return ok;
}

bool nvme_queues_init(struct nvme *n, struct err *e)
{
    n->sq = xcalloc(n->n_queues, sizeof *n->sq);
    n->cq = xcalloc(n->n_queues, sizeof *n->cq);
    if (!loops_give(n, e)) {
        queues_free(n);
        return false;
    }
    list_init(&n->free_reqs);
    list_init(&n->parked);
    list_init(&n->waits);
    for (unsigned i = 0; i < n->n_queues; i++) {
        struct nvme_sq *sq = &n->sq[i];
        struct nvme_cq *cq = &n->cq[i];

        sq->n = cq->n = n;
        sq->id = cq->id = (uint16_t)i;
        sq->post = (struct post){ .fn = nvme_sq_served, .arg = sq, .dom = n->pci.dev.dom };
        cq->post = (struct post){ .fn = cq_served, .arg = cq, .dom = n->pci.dev.dom };
        dma_vec_init(&sq->ring.vec, &n->pci.dma, false);
        dma_vec_init(&cq->ring.vec, &n->pci.dma, true);
        timer_init(&cq->coalesce, CLOCK_VM, NULL, n->pci.dev.dom, coalesce_due, cq);
        list_init(&sq->reqs);
        list_init(&cq->waiting);
    }
    return true;
}

void nvme_queues_fini(struct nvme *n)
{
    struct list *l;

    for (unsigned i = 0; i < n->n_queues; i++) {
        loop_post_cancel(n->sq[i].loop, &n->sq[i].post);
        loop_post_cancel(n->cq[i].loop, &n->cq[i].post);
        timer_fini(&n->cq[i].coalesce);
        dma_vec_free(&n->sq[i].ring.vec);
        dma_vec_free(&n->cq[i].ring.vec);
    }
    while ((l = list_pop(&n->free_reqs)))
        req_destroy(list_entry(l, struct nvme_req, link));
    n->n_free = 0;
    queues_free(n);
}

void nvme_sq_open(struct nvme_sq *sq, uint16_t cqid, uint64_t addr, uint32_t size, uint8_t prio)
{
    sq->cqid = cqid;
    sq->addr = addr;
    sq->size = size;
    sq->prio = prio;
    sq->head = 0;
    sq->in_flight = 0;
    sq->first = NULL;
    sq->deleting = false;
    atomic_store(&sq->tail_db, 0);
    atomic_store(&sq->rung, false);
    sq->live = true;
    sq->n->cq[cqid].sqs++;
}

void nvme_cq_open(struct nvme_cq *cq, uint16_t vector, bool irq_on, uint64_t addr, uint32_t size)
{
    cq->vector = vector;
    cq->irq_on = irq_on;
    cq->addr = addr;
    cq->size = size;
    cq->head = cq->tail = cq->sqs = cq->held = 0;
    cq->phase = true;
    cq->notify = cq->raised = false;
    atomic_store(&cq->head_db, 0);
    atomic_store(&cq->rung, false);
    cq->live = true;
    nvme_cq_settled(cq);
}

void nvme_cq_close(struct nvme_cq *cq)
{
    struct nvme_req *r;

    cq->live = cq->notify = false;
    timer_disarm(&cq->coalesce);
    while ((r = list_first(&cq->waiting, struct nvme_req, link))) {
        cq->n->in_flight++;
        nvme_req_free(r);
    }
    nvme_cq_settled(cq);
    nvme_ring_drop(&cq->ring);
}

void nvme_sq_close(struct nvme_sq *sq)
{
    sq->live = false;
    nvme_ring_drop(&sq->ring);
}

static void sq_abandon(struct nvme_sq *sq)
{
    struct nvme_req *r;

    list_for_each(r, &sq->reqs, link)
        r->abort = true;                /* it is in a handler's hands; nobody hears of its end */
    nvme_sq_close(sq);
    if (sq->first)
        nvme_req_free(sq->first);
    sq->first = NULL;
}

void nvme_queues_rewind(struct nvme *n)
{
    for (unsigned i = 1; i <= n->max_ioqpairs; i++) {
        struct nvme_sq *sq = &n->sq[i];

        if (!sq->first)
            continue;
        sq->head = (sq->head + sq->size - 1) % sq->size;
        nvme_req_free(sq->first);
        sq->first = NULL;
    }
}

void nvme_queues_close(struct nvme *n)
{
    struct list *l;

    n->gen++;
    while ((l = list_pop(&n->parked))) {
        n->in_flight++;                 /* a parked one is not counted */
        nvme_req_free(list_entry(l, struct nvme_req, link));
    }
    for (unsigned i = 0; i <= n->max_ioqpairs; i++) {
        sq_abandon(&n->sq[i]);
        nvme_cq_close(&n->cq[i]);
    }
    nvme_drained_wake(n);
    nvme_waits_look(n);
    nvme_pin_update(n);
}

void nvme_kick_all(struct nvme *n)
{
    for (unsigned i = 0; i <= n->max_ioqpairs; i++)
        if (n->sq[i].live)
            nvme_sq_kick(&n->sq[i]);
}
