/* SPDX-License-Identifier: MIT */
/* From a fetched command to its handler; the admin commands about queues, aborts and events (section 5). */
#include "base/log.h"
#include "hw/nvme/atomic.h"
#include "hw/nvme/fault.h"
#include "hw/nvme/kv.h"
#include "hw/nvme/queue_int.h"
#include "hw/nvme/resv.h"
#include "hw/nvme/timing.h"
#include "hw/nvme/virt.h"

/* ---- queues, 5.4 to 5.7 ---- */

static bool qid_ok(const struct nvme *n, uint32_t qid) { return qid && qid <= n->qpairs; }

/* Entry sizes come from CC (3.1.3.5); sizes are 0's based. */
static uint16_t queue_args(const struct nvme_req *r, unsigned es_shift, unsigned es)
{
    const struct nvme_cmd *c = &r->cmd;
    uint32_t size = c->cdw10 >> 16;

    if (!size || size > r->n->mqes || (r->n->cc >> es_shift & 15) != es)
        return NVME_INVALID_QSIZE | NVME_DNR;
    if (c->prp1 & (nvme_page(r->n) - 1))
        return NVME_PRP_OFFSET | NVME_DNR;
    return c->cdw11 & 1 ? NVME_OK : NVME_INVALID_FIELD | NVME_DNR;      /* CAP.CQR: one piece of memory */
}

static uint32_t vectors_now(struct nvme *n)
{
    if (pci_msix_enabled(&n->pci))
        return n->vectors;
    return pci_msi_enabled(&n->pci) ? pci_msi_vectors(&n->pci) : 1;
}

static uint16_t co_create_cq(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint32_t qid = r->cmd.cdw10 & 0xffff, iv = r->cmd.cdw11 >> 16, irq = r->cmd.cdw11 & 2;
    uint16_t st;

    if (!qid_ok(n, qid) || n->cq[qid].live)
        return NVME_INVALID_QID | NVME_DNR;
    st = queue_args(r, NVME_CC_IOCQES_SHIFT, 4);
    if (!st && irq && iv >= vectors_now(n))
        st = NVME_INVALID_VECTOR | NVME_DNR;
    if (st)
        return st;
    nvme_cq_open(&n->cq[qid], (uint16_t)iv, irq, r->cmd.prp1, (r->cmd.cdw10 >> 16) + 1);
    n->queues_made = true;
    return NVME_OK;
}

static uint16_t co_create_sq(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint32_t qid = r->cmd.cdw10 & 0xffff, cqid = r->cmd.cdw11 >> 16;
    uint16_t st;

    if (!qid_ok(n, cqid) || !n->cq[cqid].live)
        return NVME_INVALID_CQID | NVME_DNR;
    if (!qid_ok(n, qid) || n->sq[qid].live)
        return NVME_INVALID_QID | NVME_DNR;
    st = queue_args(r, NVME_CC_IOSQES_SHIFT, 6);
    if (!st)
        nvme_sq_open(&n->sq[qid], (uint16_t)cqid, r->cmd.prp1, (r->cmd.cdw10 >> 16) + 1, r->cmd.cdw11 >> 1 & 3);
    return st;
}

static uint16_t co_delete_cq(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint32_t qid = r->cmd.cdw10 & 0xffff;

    if (!qid_ok(n, qid) || !n->cq[qid].live)
        return NVME_INVALID_QID | NVME_DNR;
    if (n->cq[qid].sqs)
        return NVME_INVALID_QDEL | NVME_DNR;
    nvme_cq_close(&n->cq[qid]);
    nvme_pin_update(n);
    return NVME_OK;
}

/* Entries not fetched yet are gone; what runs is waited for. */
static uint16_t co_delete_sq(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint32_t qid = r->cmd.cdw10 & 0xffff;
    struct nvme_sq *sq = &n->sq[qid_ok(n, qid) ? qid : 0];
    struct nvme_req *q;

    if (!sq->id || !sq->live || sq->deleting)
        return NVME_INVALID_QID | NVME_DNR;
    sq->deleting = true;
    list_for_each(q, &sq->reqs, link)
        q->abort = true;
    if (sq->first) {
        sq->first->status = NVME_ABORT_SQ_DELETED;
        nvme_complete(sq->first);
        sq->first = NULL;
    }
    nvme_waits_look(n);
    while (sq->in_flight && !nvme_stale(r))
        co_queue_wait(&n->drained);
    if (nvme_stale(r))
        return NVME_OK;
    nvme_sq_close(sq);
    n->cq[sq->cqid].sqs--;
    return NVME_OK;
}

/* ---- events, 5.2 ---- */

static void events_deliver(struct nvme *n)
{
    for (unsigned i = 0; i < n->n_events && n->n_aer;) {
        uint64_t ev = n->events[i];

        if (n->masked_events >> (ev & 7) & 1) {
            i++;
            continue;
        }
        n->masked_events |= 1u << (ev & 7);
        n->n_events--;
        memmove(&n->events[i], &n->events[i + 1], (n->n_events - i) * sizeof ev);
        uint16_t cid = n->aer[0];
        memmove(&n->aer[0], &n->aer[1], --n->n_aer * sizeof cid);
        nvme_complete_cid(n, cid, NVME_OK, ev);
    }
}

/* 5.27.1.8: the bit of the Asynchronous Event Configuration that lets an event through; 0: it always goes. */
static uint32_t config_bit(unsigned type_info)
{
    switch (type_info) {
    case NVME_EV_RELIABILITY: return 1u << 2;
    case NVME_EV_TEMPERATURE: return 1u << 1;
    case NVME_EV_SPARE: return 1u << 0;
    case NVME_EV_NS_CHANGED: return 1u << 8;
    case NVME_EV_FW_START: return 1u << 9;
    case NVME_EV_TELEMETRY: return 1u << 10;
    case NVME_EV_ANA: return 1u << 11;
    case NVME_EV_LBA_STATUS: return 1u << 13;
    case NVME_EV_ENDGRP: return 1u << 14;
    case NVME_EV_ZONES: return 1u << 27;
    default: return 0;
    }
}

void nvme_event_about(struct nvme *n, unsigned type_info, uint8_t log, uint32_t what)
{
    uint64_t ev = type_info >> 8 | (type_info & 0xff) << 8 | (uint32_t)log << 16 | (uint64_t)what << 32;
    uint32_t bit = config_bit(type_info);

    if (bit && !(n->feat[NVME_FEAT_ASYNC] & bit))
        return;
    for (unsigned i = 0; i < n->n_events; i++)
        if (n->events[i] == ev)
            return;
    if (n->n_events == MIN(n->aer_max_queued, NVME_EVENTS_MAX)) {
        log_guest("nvme '%s': asynchronous event %x lost, too many wait", n->pci.dev.obj.id, (unsigned)ev);
        return;
    }
    n->events[n->n_events++] = ev;
    events_deliver(n);
}

void nvme_event(struct nvme *n, unsigned type_info, uint8_t log) { nvme_event_about(n, type_info, log, 0); }

void nvme_event_unmask(struct nvme *n, uint8_t type)
{
    n->masked_events &= ~(1u << type);
    events_deliver(n);
}

void nvme_events_reset(struct nvme *n) { n->n_aer = n->n_events = n->masked_events = 0; }

static uint16_t co_event_request(struct nvme_req *r)
{
    struct nvme *n = r->n;

    if (n->n_aer > n->aerl)
        return NVME_AER_LIMIT | NVME_DNR;
    n->aer[n->n_aer++] = r->cmd.cid;
    events_deliver(n);
    return NVME_HELD;
}

/* ---- abort, 5.1 ---- */

static bool abort_event(struct nvme *n, uint16_t cid)
{
    for (unsigned i = 0; i < n->n_aer; i++)
        if (n->aer[i] == cid) {
            memmove(&n->aer[i], &n->aer[i + 1], (--n->n_aer - i) * sizeof cid);
            nvme_complete_cid(n, cid, NVME_ABORT_REQUESTED, 0);
            return true;
        }
    return false;
}

static uint16_t co_abort(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint32_t qid = r->cmd.cdw10 & 0xffff;
    uint16_t cid = (uint16_t)(r->cmd.cdw10 >> 16);
    struct nvme_req *q;

    r->result = 1;                      /* not aborted */
    if (qid > n->max_ioqpairs || !n->sq[qid].live)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (!qid && abort_event(n, cid)) {
        r->result = 0;
        return NVME_OK;
    }
    list_for_each(q, &n->sq[qid].reqs, link)
        if (q != r && q->cmd.cid == cid && !q->abort && q->delayed) {
            q->abort = true;
            r->result = 0;
        }
    if (!r->result)
        nvme_waits_look(n);
    return NVME_OK;
}

static uint16_t co_keep_alive(struct nvme_req *r)
{
    nvme_keep_alive(r->n);
    return NVME_OK;
}

static uint16_t co_identify(struct nvme_req *r) { return nvme_identify(r); }

#define EFF_CSUPP 1u
#define EFF_LBCC 2u                     /* 5.16.1.6: contents change */
#define EFF_NCC 4u
#define EFF_NIC 8u
#define EFF_CCC 16u
#define EFF_CSE_NS (1u << 16)           /* no other command to the namespace */
#define EFF_CSE_ALL (2u << 16)

const struct nvme_op nvme_admin_ops[] = {
    { NVME_ADM_DELETE_SQ, "delete-sq", 0, NVME_OP_SANITIZE, co_delete_sq },
    { NVME_ADM_CREATE_SQ, "create-sq", 0, NVME_OP_SANITIZE, co_create_sq },
    { NVME_ADM_GET_LOG, "get-log", 0, NVME_OP_SANITIZE, co_nvme_get_log },
    { NVME_ADM_DELETE_CQ, "delete-cq", 0, NVME_OP_SANITIZE, co_delete_cq },
    { NVME_ADM_CREATE_CQ, "create-cq", 0, NVME_OP_SANITIZE, co_create_cq },
    { NVME_ADM_IDENTIFY, "identify", 0, NVME_OP_SANITIZE, co_identify },
    { NVME_ADM_ABORT, "abort", 0, NVME_OP_SANITIZE, co_abort },
    { NVME_ADM_SET_FEATURE, "set-feature", EFF_CCC, NVME_OP_SANITIZE, co_nvme_set_feature },
    { NVME_ADM_GET_FEATURE, "get-feature", 0, NVME_OP_SANITIZE, co_nvme_get_feature },
    { NVME_ADM_AER, "async-event", 0, NVME_OP_SANITIZE, co_event_request },
    { NVME_ADM_KEEP_ALIVE, "keep-alive", 0, NVME_OP_SANITIZE, co_keep_alive },
    { NVME_ADM_NS_MGMT, "ns-management", EFF_NIC | EFF_CSE_ALL, 0, co_nvme_ns_mgmt },
    { NVME_ADM_NS_ATTACH, "ns-attachment", EFF_NIC, NVME_OP_SANITIZE, co_nvme_ns_attach },
    { NVME_ADM_FW_DOWNLOAD, "firmware-download", 0, NVME_OP_SANITIZE, co_nvme_fw_download },
    { NVME_ADM_FW_COMMIT, "firmware-commit", EFF_CCC, 0, co_nvme_fw_commit },
    { NVME_ADM_SELF_TEST, "self-test", 0, 0, co_nvme_self_test },
    { NVME_ADM_DIRECTIVE_SEND, "directive-send", 0, NVME_OP_NS | NVME_OP_SANITIZE, co_nvme_directive_send },
    { NVME_ADM_DIRECTIVE_RECV, "directive-receive", 0, NVME_OP_NS | NVME_OP_SANITIZE, co_nvme_directive_recv },
    { NVME_ADM_VIRT_MGMT, "virtualization-management", 0, NVME_OP_SANITIZE | NVME_OP_VIRT, co_nvme_virt_mgmt },
    { NVME_ADM_DBBUF, "doorbell-buffers", 0, NVME_OP_SANITIZE | NVME_OP_DBBUF, co_nvme_dbbuf },
    { NVME_ADM_FORMAT, "format", EFF_LBCC | EFF_NCC | EFF_CSE_NS, NVME_OP_NS | NVME_OP_ALL_NS, co_nvme_format },
    { NVME_ADM_SECURITY_SEND, "security-send", 0, 0, co_nvme_security_send },
    { NVME_ADM_SECURITY_RECV, "security-receive", 0, 0, co_nvme_security_receive },
    { NVME_ADM_SANITIZE, "sanitize", EFF_LBCC | EFF_CSE_ALL, NVME_OP_SANITIZE, co_nvme_sanitize },
    { NVME_ADM_LBA_STATUS, "lba-status", 0, NVME_OP_NS | NVME_OP_BLOCKS, co_nvme_lba_status },
    { 0, NULL, 0, 0, NULL }
};

const struct nvme_op *nvme_op_find(const struct nvme_op *t, uint8_t opcode)
{
    for (; t->name; t++)
        if (t->opcode == opcode)
            return t;
    return NULL;
}

/* ---- dispatch ---- */

/* Whether the host enabled more than the NVM command set. */
static bool all_sets(const struct nvme *n) { return (n->cc & NVME_CC_CSS) >> NVME_CC_CSS_SHIFT == NVME_CSS_IOCS; }

/* Finds the namespace of a command that needs one. */
static uint16_t take_ns(struct nvme_req *r, const struct nvme_op *op)
{
    uint32_t nsid = r->cmd.nsid;

    if (!(op->flags & NVME_OP_NS) || (op->flags & NVME_OP_ALL_NS && nsid == UINT32_MAX))
        return NVME_OK;
    if (!nsid || nsid > NVME_NS_MAX)
        return NVME_INVALID_NSID | NVME_DNR;
    r->ns = nvme_ns_get(r->n, nsid);
    if (!r->ns)
        return NVME_INVALID_FIELD | NVME_DNR;           /* an inactive one, 3.2.1.4 */
    if (op->flags & NVME_OP_BLOCKS && r->ns->kv)
        return NVME_INVALID_OPCODE | NVME_DNR;
    if (op->flags & NVME_OP_ZONED && r->ns->csi != NVME_CSI_ZONED)
        return NVME_INVALID_OPCODE | NVME_DNR;
    if (r->sq->id && !all_sets(r->n) && (r->ns->kv || op->flags & NVME_OP_ZONED))
        return NVME_INVALID_OPCODE | NVME_DNR;          /* commands of a set that is not enabled, 3.1.3.5 */
    return r->sq->id ? nvme_io_allowed(r, op) : NVME_OK;
}

/* 8.1.3: what the state of a namespace's group lets through. */
static uint16_t ana_allows(const struct nvme_req *r)
{
    switch (nvme_ana_state(r->n, r->ns->anagrp)) {
    case NVME_ANA_STATE_INACCESSIBLE: return NVME_ANA_INACCESSIBLE;
    case NVME_ANA_STATE_LOSS: return NVME_ANA_LOSS | NVME_DNR;
    case NVME_ANA_STATE_CHANGE: return NVME_ANA_TRANSITION;
    default: return NVME_OK;
    }
}

uint16_t nvme_io_allowed(struct nvme_req *r, const struct nvme_op *op)
{
    struct nvme_ns *ns = r->ns;
    bool reads = op->flags & NVME_OP_READS, writes = op->flags & NVME_OP_WRITES;
    uint16_t st = ana_allows(r);

    if (st)
        return st;
    if (unlikely((ns->flbas >> 5 & 3u) && !r->n->host_behavior[NVME_LBAFEE]))
        return NVME_INVALID_NSID | NVME_DNR;            /* "Invalid Namespace or Format": the host cannot know what a block is */
    if (atomic_load_explicit(&ns->formatting, memory_order_relaxed))
        return NVME_FORMAT_BUSY;
    if (writes && (ns->write_protect || ns->unit->caps.read_only))
        return NVME_WRITE_PROTECTED | NVME_DNR;
    return ns->resv && (reads || writes) ? nvme_resv_allows(r, reads, writes) : NVME_OK;
}

/* Between commands that work on the same blocks, and for as long as the model says. */
static uint16_t co_run(struct nvme_req *r, const struct nvme_op *op)
{
    bool ranged = op->flags & NVME_OP_RANGE && r->ns && nvme_ranges_on(r->ns);
    uint64_t slba = nvme_slba(&r->cmd), nlb = nvme_nlb(&r->cmd);
    int64_t done = INT64_MIN;
    struct range_claim g;
    uint16_t st;

    if (unlikely(ranged) && range_ok(slba, nlb, r->ns->nsze)) {
        bool alone = r->fused || (op->flags & NVME_OP_WRITES && nvme_atomic_write(r->n, r->ns, slba, nlb));

        if (!co_nvme_range_begin(r, r->ns, &g, slba, nlb, alone))
            return NVME_ABORT_REQUESTED;
    } else {
        ranged = false;
    }
    if (unlikely(r->n->timing))
        done = nvme_timing_plan(r, op);
    st = r->fused ? co_nvme_fused(r) : op->co(r);
    if (unlikely(done != INT64_MIN))
        co_nvme_wait_until(r, done, false);
    if (unlikely(ranged))
        nvme_range_end(r->ns, &g);
    return st;
}

/* The commands of the queue and, where they are another set's, of the namespace. */
static const struct nvme_op *table_of(const struct nvme_req *r)
{
    const struct nvme_ns *ns = r->sq->id ? nvme_ns_at(r->n, r->cmd.nsid) : NULL;

    return !r->sq->id ? nvme_admin_ops : ns && ns->csi == NVME_CSI_KV ? nvme_kv_ops : nvme_io_ops;
}

static uint16_t co_execute(struct nvme_req *r)
{
    const struct nvme_op *op = nvme_op_find(table_of(r), r->cmd.opcode);
    uint16_t st;

    if (!nvme_op_offered(r->n, op)) {
        log_unimp("nvme '%s': queue %u: no command 0x%02x", r->n->pci.dev.obj.id, r->sq->id, r->cmd.opcode);
        return NVME_INVALID_OPCODE | NVME_DNR;
    }
    if (!r->sq->id && r->cmd.flags & NVME_CMD_FUSE)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (unlikely(r->n->ss->sanitize.running) && !(op->flags & NVME_OP_SANITIZE))
        return NVME_SANITIZE_BUSY;
    if (r->sq->id && (r->n->cc & NVME_CC_CSS) >> NVME_CC_CSS_SHIFT == NVME_CSS_ADMIN)
        return NVME_INVALID_OPCODE | NVME_DNR;
    st = take_ns(r, op);
    if (!st)
        st = co_run(r, op);
    if (r->ns)
        nvme_ns_put(r->ns);
    r->ns = NULL;
    return st;
}

/* The same where faults were asked for. */
static uint16_t co_execute_faulty(struct nvme_req *r)
{
    struct nvme_fault *f = nvme_fault_match(r);
    uint16_t st = f ? co_nvme_fault_before(r, f) : NVME_OK;

    if (!st)
        st = co_execute(r);
    if (!st)
        nvme_fault_after(r);
    return st;
}

/* The machine is about to stop for an error: the command begins again when it runs (saved with the controller). */
static void park(struct nvme_req *r)
{
    dma_unmap(&r->data, 0);
    dma_unmap(&r->meta, 0);
    r->park = false;
    nvme_req_set_aside(r, &r->n->parked);
}

void co_nvme_command(void *arg)
{
    struct nvme_req *r = arg;

    if (unlikely(nvme_stale(r))) {      /* a reset came while another thread was asked to run it */
        nvme_complete(r);
        return;
    }
    TRACE(nvme_command, "'%s' queue %u cid %u: 0x%02x nsid %u", r->n->pci.dev.obj.id, r->sq->id, r->cmd.cid, r->cmd.opcode, r->cmd.nsid);
    r->status = unlikely(r->n->n_faults) ? co_execute_faulty(r) : co_execute(r);
    if (r->park && !r->fused && !nvme_stale(r)) {
        park(r);
        return;
    }
    if (r->fused) {
        if (r->status && !r->fused->status)
            r->fused->status = NVME_FUSED_FAILED;
        nvme_complete(r->fused);
    }
    if (r->status == NVME_HELD)
        nvme_req_free(r);
    else
        nvme_complete(r);
}
