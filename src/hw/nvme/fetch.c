/* SPDX-License-Identifier: MIT */
/* From a submission queue to running commands: arbitration (3.4.4), fused pairs (3.4.2), shadow doorbells (5.8). */
#include "base/log.h"
#include "hw/nvme/queue_int.h"

#define FETCH_CHUNK 16u
#define FETCH_TURN 64u                  /* commands of one queue before others have their turn */

static void sqe_to_host(struct nvme_cmd *c)
{
    c->cid = le16toh(c->cid);
    c->nsid = le32toh(c->nsid);
    c->cdw2 = le32toh(c->cdw2);
    c->cdw3 = le32toh(c->cdw3);
    c->mptr = le64toh(c->mptr);
    c->prp1 = le64toh(c->prp1);
    c->prp2 = le64toh(c->prp2);
    for (uint32_t *w = &c->cdw10; w <= &c->cdw15; w++)
        *w = le32toh(*w);
}

static bool may_fetch(const struct nvme_sq *sq)
{
    const struct nvme *n = sq->n;

    return sq->live && !sq->deleting && nvme_ready(n) && !n->quiesced && sq->in_flight < sq->size &&
           list_empty(&n->cq[sq->cqid].waiting);
}

static bool weighted(const struct nvme_sq *sq) { return sq->id && sq->n->cc & NVME_CC_AMS && sq->prio; }

static bool pending(const struct nvme_sq *sq)
{
    return sq->live && !sq->half && sq->head != atomic_load(&sq->tail_db) && may_fetch(sq);
}

/* Some queue of another class has commands, and its class a credit. */
static bool round_goes_on(const struct nvme_sq *sq)
{
    const struct nvme *n = sq->n;

    for (unsigned i = 1; i <= n->max_ioqpairs; i++)
        if (weighted(&n->sq[i]) && n->sq[i].prio != sq->prio && n->credit[n->sq[i].prio] && pending(&n->sq[i]))
            return true;
    return false;
}

/*
 * 3.4.4: what a queue may fetch in its turn: a burst and, with weighted round robin, no more than its class has left of its weight in
 * this round. A round ends when no class that has commands has anything left.
 */
static unsigned turn(struct nvme_sq *sq)
{
    struct nvme *n = sq->n;
    uint32_t a = n->feat[NVME_FEAT_ARBITRATION], burst = (a & 7) == 7 ? FETCH_TURN : 1u << (a & 7);

    if (!sq->id)
        return FETCH_TURN;
    if (!weighted(sq))
        return burst;
    if (!n->credit[sq->prio] && !round_goes_on(sq))
        for (unsigned class = 1; class <= 3; class++)
            n->credit[class] = (a >> (32 - 8 * class) & 0xff) + 1;
    return MIN(burst, n->credit[sq->prio]);
}

/* 3.4.4.2: urgent queues go before all others. */
static bool urgent_waits(const struct nvme_sq *sq)
{
    const struct nvme *n = sq->n;

    if (!(n->cc & NVME_CC_AMS) || !sq->id || !sq->prio)
        return false;
    for (unsigned i = 1; i <= n->max_ioqpairs; i++)
        if (!n->sq[i].prio && pending(&n->sq[i]))
            return true;
    return false;
}

/* The tail: what the doorbell was told, or the shadow of it in the host's memory (B.5). */
static uint32_t tail_of(struct nvme_sq *sq)
{
    uint32_t v;

    if (nvme_shadow(sq->n, sq->id, false, &v))
        atomic_store(&sq->tail_db, v);
    return atomic_load(&sq->tail_db);
}

/* Everything was fetched: the host rings when it goes past what was seen. */
static void ask_for_ring(struct nvme_sq *sq, uint32_t tail)
{
    if (nvme_shadow_ask(sq->n, sq->id, false, tail) && tail_of(sq) != tail)
        nvme_sq_kick(sq);
}

/* Starts @r, or holds it until the second half of its pair comes. */
static void start(struct nvme_sq *sq, struct nvme_req *r)
{
    struct nvme_req *first = sq->first;
    unsigned fuse = sq->id ? r->cmd.flags & NVME_CMD_FUSE : 0;

    sq->first = NULL;
    if (first && fuse != NVME_CMD_FUSE_SECOND) {
        first->status = NVME_FUSED_MISSING | NVME_DNR;
        nvme_complete(first);
        first = NULL;
    }
    if (fuse == NVME_CMD_FUSE_FIRST) {
        sq->first = r;
        return;
    }
    if (fuse == NVME_CMD_FUSE_SECOND && !first) {
        r->status = NVME_FUSED_MISSING | NVME_DNR;
        nvme_complete(r);
        return;
    }
    r->fused = first;
    co_spawn_on(sq->loop, sq->n->pci.dev.dom, co_nvme_command, r);
}

/* Fetches at most @max commands in one piece of memory; returns how many, -1 where the queue is out of reach. */
static int fetch(struct nvme_sq *sq, uint32_t tail, unsigned max)
{
    struct nvme_cmd c[FETCH_CHUNK];
    uint32_t until = tail > sq->head ? tail : sq->size, room = sq->size - sq->in_flight;
    unsigned n = MIN(MIN(MIN(until - sq->head, max), FETCH_CHUNK), room), i;

    if (!nvme_ring_fetch(sq, c, n)) {
        nvme_fail(sq->n, "a submission queue is not in memory");
        return -1;
    }
    for (i = 0; i < n && may_fetch(sq); i++) {
        bool pair = sq->id && (c[i].flags & NVME_CMD_FUSE) == NVME_CMD_FUSE_FIRST;
        struct nvme_req *r;

        if (pair && ((sq->head + 1) % sq->size == tail || sq->in_flight + 2 > sq->size)) {
            sq->half = true;            /* the second is not there yet */
            break;
        }
        r = nvme_req_get(sq);
        r->cmd = c[i];
        sqe_to_host(&r->cmd);
        sq->head = (sq->head + 1) % sq->size;
        start(sq, r);
    }
    return (int)i;
}

void nvme_sq_served(void *arg)
{
    struct nvme_sq *sq = arg;
    struct nvme *n = sq->n;
    bool rung = atomic_exchange(&sq->rung, false);
    uint32_t tail = sq->live && n->shadow_db ? tail_of(sq) : atomic_load(&sq->tail_db);
    int left, got;

    if (!sq->live) {
        if (rung && nvme_ready(n))
            nvme_event(n, NVME_EV_BAD_DOORBELL_REG, NVME_LOG_ERROR);
        return;
    }
    if (tail >= sq->size) {
        if (rung)
            nvme_event(n, NVME_EV_BAD_DOORBELL_VALUE, NVME_LOG_ERROR);
        return;
    }
    if (urgent_waits(sq)) {
        nvme_sq_kick(sq);
        return;
    }
    sq->half = false;
    left = (int)turn(sq);
    while (left > 0 && may_fetch(sq) && sq->head != tail) {
        if (n->in_flight >= NVME_IN_FLIGHT_MAX) {
            n->starved = true;          /* all queues are looked at again when there is room */
            return;
        }
        got = fetch(sq, tail, (unsigned)left);
        if (got <= 0)
            return;
        left -= got;
        if (weighted(sq))
            n->credit[sq->prio] -= (uint32_t)got;
    }
    if (sq->head != tail && may_fetch(sq))
        nvme_sq_kick(sq);         /* the others have their turn first */
    else if (n->shadow_db)
        ask_for_ring(sq, tail);
}
