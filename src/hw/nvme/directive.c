/* SPDX-License-Identifier: MIT */
/*
 * Directives (5.8, 5.9, 8.8): Identify tells and sets which are on; Streams (NVM Command Set 5.1) are names that writes carry.
 * Data placement is in fdp.c. What streams there are is under the subsystem's lock.
 */
#include "hw/nvme/fdp.h"

enum { DIR_IDENTIFY = 0, DIR_STREAMS = 1, DIR_PLACEMENT = 2 };
enum { RECV_PARAMETERS = 1, RECV_STATUS = 2, RECV_ALLOCATE = 3 };
enum { SEND_RELEASE_ID = 1, SEND_RELEASE_ALL = 2 };
#define WRITE_SIZE 8u                   /* SWS: blocks */
#define GRANULARITY 256u                /* SGS: units of it */

static uint32_t bit_of(const struct nvme *n) { return 1u << (n->cntlid & 31); }
static bool streams_on(const struct nvme *n, const struct nvme_ns *ns) { return ns->streams.on[n->cntlid / 32] & bit_of(n); }

/* ---- the subsystem's streams; its lock held ---- */

/* That are given to no namespace, and that are open beyond what namespaces own. */
static void shared_streams(const struct nvme_subsys *ss, unsigned *free_ones, unsigned *open)
{
    unsigned given = 0;

    *open = 0;
    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        const struct nvme_ns *ns = nvme_ns_allocated(ss, i);

        given += ns ? ns->streams.given : 0;
        *open += ns && ns->streams.n_open > ns->streams.given ? (unsigned)(ns->streams.n_open - ns->streams.given) : 0u;
    }
    *free_ones = NVME_STREAMS - given;
}

static void close_at(struct nvme_streams *s, unsigned i) { memmove(&s->open[i], &s->open[i + 1], (--s->n_open - i) * sizeof s->open[0]); }

/* Opens @id; where every stream is in use, the namespace's oldest goes. */
static void stream_used(struct nvme_ns *ns, uint16_t id)
{
    struct nvme_streams *s = &ns->streams;
    unsigned free_ones, shared;

    for (unsigned i = 0; i < s->n_open; i++)
        if (s->open[i] == id)
            return;
    shared_streams(ns->ss, &free_ones, &shared);
    if (s->n_open >= s->given && shared >= free_ones) {
        if (!s->n_open)
            return;                     /* no room at all: a write without a stream */
        close_at(s, 0);
    }
    s->open[s->n_open++] = id;
}

uint16_t nvme_write_hint(struct nvme_req *r, uint64_t nlb)
{
    unsigned dtype = r->cmd.cdw12 >> 20 & 15;
    uint16_t id = (uint16_t)(r->cmd.cdw13 >> 16);

    if (likely(!dtype && !r->n->ss->fdp.on))
        return NVME_OK;
    if (dtype == DIR_STREAMS) {
        if (!streams_on(r->n, r->ns))
            return NVME_INVALID_FIELD | NVME_DNR;
        pthread_mutex_lock(&r->ns->ss->lock);
        if (id)
            stream_used(r->ns, id);
        pthread_mutex_unlock(&r->ns->ss->lock);
        dtype = 0;
    }
    if (dtype && dtype != DIR_PLACEMENT)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (!r->n->ss->fdp.on)
        return dtype ? NVME_INVALID_FIELD | NVME_DNR : NVME_OK;
    nvme_fdp_write(r, nlb, dtype == DIR_PLACEMENT, id);
    return NVME_OK;
}

/* ---- Directive Receive ---- */

static uint16_t identify(struct nvme_req *r, const struct nvme_ns *ns, uint64_t want)
{
    uint8_t b[4096] = { 0 };

    b[0] = 1 << DIR_IDENTIFY | 1 << DIR_STREAMS;
    b[32] = (uint8_t)(1 << DIR_IDENTIFY | (streams_on(r->n, ns) ? 1 << DIR_STREAMS : 0));
    if (r->n->ss->fdp.on) {
        b[0] |= 1 << DIR_PLACEMENT;
        b[32] |= 1 << DIR_PLACEMENT;
        b[64] = 1 << DIR_PLACEMENT;
    }
    return nvme_to_host_part(r, b, sizeof b, 0, want);
}

static uint16_t stream_parameters(struct nvme_req *r, const struct nvme_ns *ns, uint64_t want)
{
    uint8_t b[32] = { 0 };
    unsigned free_ones, open;

    pthread_mutex_lock(&ns->ss->lock);
    shared_streams(ns->ss, &free_ones, &open);
    st_le16(b, NVME_STREAMS);
    st_le16(b + 2, (uint16_t)free_ones);
    st_le16(b + 4, (uint16_t)open);
    st_le32(b + 16, WRITE_SIZE);
    st_le16(b + 20, GRANULARITY);
    st_le16(b + 22, ns->streams.given);
    st_le16(b + 24, ns->streams.n_open);
    pthread_mutex_unlock(&ns->ss->lock);
    return nvme_to_host_part(r, b, sizeof b, 0, want);
}

static uint16_t stream_status(struct nvme_req *r, const struct nvme_ns *ns, uint64_t want)
{
    uint8_t b[2 + 2 * NVME_STREAMS] = { 0 };

    pthread_mutex_lock(&ns->ss->lock);
    st_le16(b, ns->streams.n_open);
    for (unsigned i = 0; i < ns->streams.n_open; i++)
        st_le16(b + 2 + 2 * i, ns->streams.open[i]);
    pthread_mutex_unlock(&ns->ss->lock);
    return nvme_to_host_part(r, b, sizeof b, 0, want);
}

static uint16_t stream_allocate(struct nvme_req *r, struct nvme_ns *ns)
{
    uint16_t want = (uint16_t)r->cmd.cdw12, st = NVME_OK;
    unsigned free_ones, open;

    pthread_mutex_lock(&ns->ss->lock);
    shared_streams(ns->ss, &free_ones, &open);
    if (ns->streams.given)
        st = NVME_INVALID_FIELD | NVME_DNR;
    else if (!want || !(free_ones - open))
        st = NVME_STREAMS_FAILED | NVME_DNR;
    else
        r->result = ns->streams.given = (uint16_t)MIN(want, free_ones - open);
    pthread_mutex_unlock(&ns->ss->lock);
    return st;
}

uint16_t co_nvme_directive_recv(struct nvme_req *r)
{
    uint64_t want = ((uint64_t)r->cmd.cdw10 + 1) * 4;
    unsigned oper = r->cmd.cdw11 & 0xff, type = r->cmd.cdw11 >> 8 & 0xff;
    struct nvme_ns *ns = r->ns;

    if (want > nvme_max_transfer(r->n))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (type == DIR_IDENTIFY && oper == RECV_PARAMETERS)
        return identify(r, ns, want);
    if (type != DIR_STREAMS || !streams_on(r->n, ns))
        return NVME_INVALID_FIELD | NVME_DNR;
    switch (oper) {
    case RECV_PARAMETERS: return stream_parameters(r, ns, want);
    case RECV_STATUS: return stream_status(r, ns, want);
    case RECV_ALLOCATE: return stream_allocate(r, ns);
    default: return NVME_INVALID_FIELD | NVME_DNR;
    }
}

/* ---- Directive Send ---- */

/* 8.8.2: switches a directive for the namespace on or off. */
static uint16_t enable(struct nvme_req *r, struct nvme_ns *ns)
{
    unsigned target = r->cmd.cdw12 >> 8 & 0xff;
    bool on = r->cmd.cdw12 & 1;

    if (target == DIR_PLACEMENT && r->n->ss->fdp.on)
        return on ? NVME_OK : NVME_INVALID_FIELD | NVME_DNR;        /* on as long as the group has it */
    if (target != DIR_STREAMS)
        return NVME_INVALID_FIELD | NVME_DNR;
    pthread_mutex_lock(&ns->ss->lock);
    if (on)
        ns->streams.on[r->n->cntlid / 32] |= bit_of(r->n);
    else
        nvme_streams_forget(r->n, ns);
    pthread_mutex_unlock(&ns->ss->lock);
    return NVME_OK;
}

void nvme_streams_forget(const struct nvme *n, struct nvme_ns *ns)
{
    bool others = false;

    ns->streams.on[n->cntlid / 32] &= ~bit_of(n);
    for (size_t i = 0; i < ARRAY_SIZE(ns->streams.on); i++)
        others |= ns->streams.on[i] != 0;
    if (!others)
        ns->streams.given = ns->streams.n_open = 0;
}

static uint16_t stream_release(struct nvme_ns *ns, unsigned oper, uint16_t id)
{
    struct nvme_streams *s = &ns->streams;

    if (oper != SEND_RELEASE_ID && oper != SEND_RELEASE_ALL)
        return NVME_INVALID_FIELD | NVME_DNR;
    pthread_mutex_lock(&ns->ss->lock);
    for (unsigned i = 0; i < s->n_open && oper == SEND_RELEASE_ID; i++)
        if (s->open[i] == id)
            close_at(s, i);
    if (oper == SEND_RELEASE_ALL)
        s->given = s->n_open = 0;
    pthread_mutex_unlock(&ns->ss->lock);
    return NVME_OK;
}

uint16_t co_nvme_directive_send(struct nvme_req *r)
{
    unsigned oper = r->cmd.cdw11 & 0xff, type = r->cmd.cdw11 >> 8 & 0xff;

    if (type == DIR_IDENTIFY && oper == 1)
        return enable(r, r->ns);
    if (type != DIR_STREAMS || !streams_on(r->n, r->ns))
        return NVME_INVALID_FIELD | NVME_DNR;
    return stream_release(r->ns, oper, (uint16_t)(r->cmd.cdw11 >> 16));
}
