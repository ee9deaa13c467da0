/* SPDX-License-Identifier: MIT */
/* Fusion-MPT messages that wait: SCSI IO with its scatter list, task management, resets. */
#include "hw/scsi/mptsas.h"

#include <stdlib.h>
#include "base/log.h"

static const char *name(const struct mptsas *s) { return s->pci.dev.obj.id; }

/* ---- scatter lists: elements of 8 or 12 bytes in the message, then in segments that chain elements point to ---- */

struct sgl { struct mptsas *s; uint8_t buf[UINT16_MAX + 1]; unsigned len, at, chain, segments, elements; };

/* The chain element at g->at: its segment takes the place of this one. */
static bool follow_chain(struct sgl *g)
{
    const uint8_t *e = g->buf + g->at;
    bool wide;
    unsigned len;

    if (!range_ok(g->at, 8, g->len) || (e[3] & MPI_SGE_TYPE) != MPI_SGE_CHAIN || ++g->segments > MPTSAS_CHAINS)
        return false;
    wide = e[3] & MPI_SGE_64;
    if (wide && !range_ok(g->at, 12, g->len))
        return false;
    len = ld_le16(e);
    g->chain = e[2] * 4u;
    if (!len || !dma_read(&g->s->pci.dma, wide ? ld_le64(e + 4) : ld_le32(e + 4), g->buf, len))
        return false;
    g->len = len;
    g->at = 0;
    return true;
}

static bool map_list(struct sgl *g, struct dma_vec *v)
{
    for (;;) {
        const uint8_t *e = g->buf + g->at;
        unsigned size, n;
        if (g->chain && g->at >= g->chain) {
            g->at = g->chain;
            if (!follow_chain(g))
                return false;
            continue;
        }
        size = range_ok(g->at, 4, g->len) && e[3] & MPI_SGE_64 ? 12 : 8;
        if (!range_ok(g->at, size, g->len) || (e[3] & MPI_SGE_TYPE) != MPI_SGE_SIMPLE || ++g->elements > MPTSAS_ELEMENTS)
            return false;
        n = ld_le32(e) & 0xffffff;
        if (n && (v->len + n > SCSI_TRANSFER_MAX || !dma_map(v, size == 12 ? ld_le64(e + 4) : ld_le32(e + 4), n)))
            return false;
        if (e[3] & MPI_SGE_END_OF_LIST)
            return true;
        g->at += size;
        if (e[3] & MPI_SGE_LAST) {              /* of its segment */
            if (!g->chain)
                return true;
            g->at = g->chain;
        }
    }
}

bool mptsas_map(struct mptsas *s, const uint8_t f[MPTSAS_FRAME], unsigned at, unsigned chain, struct dma_vec *v)
{
    struct sgl *g = malloc(sizeof *g);
    bool ok;

    if (!g)
        return false;
    g->s = s;
    memcpy(g->buf, f, MPTSAS_FRAME);
    g->len = MPTSAS_FRAME;
    g->at = at;
    g->chain = chain;
    g->segments = g->elements = 0;
    ok = map_list(g, v);
    free(g);
    return ok;
}

/* ---- SCSI IO ---- */

/* SAM-5, 4.7.7.1, one level; UINT64_MAX: no such form. */
static uint64_t lun_of(const uint8_t *p)
{
    static const uint8_t none[6];

    if (!memcmp(p + 2, none, 6) && ld_be16(p) == SCSI_LUN_REPORT_LUNS)
        return SCSI_LUN_REPORT_LUNS;
    if (memcmp(p + 2, none, 6) || p[0] >> 6 > 1 || (p[0] >> 6 == 0 && p[0]))
        return UINT64_MAX;
    return ld_be16(p) & 0x3fff;
}

static uint32_t check_address(struct mptsas *s, const uint8_t *f, struct scsi_dev **d)
{
    if (f[MPI_IO_BUS])
        return MPI_SCSI_INVALID_BUS;
    if (f[MPI_IO_TARGET] >= MPTSAS_PHYS)
        return MPI_SCSI_INVALID_TARGET;
    *d = scsi_find(s->bus, 0, f[MPI_IO_TARGET], (uint32_t)lun_of(f + MPI_IO_LUN), true);
    return *d ? MPI_SUCCESS : MPI_SCSI_DEVICE_NOT_THERE;
}

static bool put_sense(struct mpt_req *q)
{
    uint64_t addr = (uint64_t)q->s->sense_high << 32 | ld_le32(q->f + MPI_IO_SENSE);

    return dma_write(&q->s->pci.dma, addr, q->r.sense, MIN(q->r.sense_len, q->f[MPI_IO_SENSE_LEN]));
}

/* What is to be said beyond "it went well", in a frame. */
static void post_io(struct mpt_req *q, uint32_t status)
{
    uint8_t r[MPTSAS_FRAME], state = 0;

    mptsas_reply_begin(q->f, r, status);
    r[MPI_IO_TARGET] = q->f[MPI_IO_TARGET];
    r[MPI_IO_BUS] = q->f[MPI_IO_BUS];
    r[MPI_IO_CDB_LEN] = q->f[MPI_IO_CDB_LEN];
    r[MPI_IO_SENSE_LEN] = q->f[MPI_IO_SENSE_LEN];
    if (status == MPI_SUCCESS || status == MPI_SCSI_DATA_UNDERRUN) {
        r[MPI_IOR_SCSI_STATUS] = q->r.status;
        if (q->r.sense_len && q->f[MPI_IO_SENSE_LEN])
            state = put_sense(q) ? MPI_STATE_AUTOSENSE_VALID : MPI_STATE_AUTOSENSE_FAILED;
        if (state & MPI_STATE_AUTOSENSE_VALID)
            st_le32(r + MPI_IOR_SENSE_COUNT, MIN(q->r.sense_len, q->f[MPI_IO_SENSE_LEN]));
    } else {
        state = status == MPI_SCSI_TASK_TERMINATED ? MPI_STATE_TERMINATED | MPI_STATE_NO_STATUS : MPI_STATE_NO_STATUS;
    }
    r[MPI_IOR_STATE] = state;
    st_le32(r + MPI_IOR_COUNT, (uint32_t)q->r.done);
    st_le16(r + MPI_IOR_TAG, 0xffff);           /* not known */
    mptsas_reply_post(q->s, r, MPI_IOR_SIZE);
}

/* The message's outcome, once the unit has answered. */
static uint32_t outcome(const struct mpt_req *q)
{
    uint32_t want = ld_le32(q->f + MPI_IO_DATA_LEN);

    switch (q->r.host) {
    case SCSI_HOST_OK: return ld_le32(q->f + MPI_IO_CONTROL) & MPI_IO_DIRECTION && q->r.done < want ? MPI_SCSI_DATA_UNDERRUN : MPI_SUCCESS;
    case SCSI_HOST_OVERRUN: return MPI_SCSI_DATA_OVERRUN;
    case SCSI_HOST_NO_TARGET: return MPI_SCSI_DEVICE_NOT_THERE;
    case SCSI_HOST_BUSY: return MPI_BUSY;
    default: return MPI_SCSI_TASK_TERMINATED;
    }
}

static uint32_t co_run(struct mpt_req *q, struct scsi_dev *d)
{
    uint32_t control = ld_le32(q->f + MPI_IO_CONTROL) & MPI_IO_DIRECTION, n = ld_le32(q->f + MPI_IO_DATA_LEN);
    unsigned cdb = q->f[MPI_IO_CDB_LEN];

    if (!cdb || cdb > 16 || control == MPI_IO_DIRECTION)
        return MPI_INVALID_FIELD;
    q->data.dev_writes = control == MPI_IO_READ;
    if (control && n && (!mptsas_map(q->s, q->f, MPI_IO_SGL, q->f[MPI_M_CHAIN] * 4u, &q->data) || q->data.len < n))
        return MPI_INVALID_SGL;
    memcpy(q->r.cdb, q->f + MPI_IO_CDB, cdb);
    q->r.lun = lun_of(q->f + MPI_IO_LUN);
    q->r.tag = ld_le32(q->f + MPI_M_CONTEXT);
    q->r.out = (struct scsi_data){ &q->data, 0, control == MPI_IO_WRITE ? n : 0 };
    q->r.in = (struct scsi_data){ &q->data, 0, control == MPI_IO_READ ? n : 0 };
    co_scsi_run(&q->r, d);
    q->stopped = q->r.host == SCSI_HOST_STOPPED;
    return outcome(q);
}

static void co_scsi_io(struct mpt_req *q)
{
    struct mptsas *s = q->s;
    struct scsi_dev *d;
    uint32_t status = check_address(s, q->f, &d);

    if (status == MPI_SUCCESS)
        status = co_run(q, d);
    dma_unmap(&q->data, q->data.len);
    dma_vec_free(&q->data);
    if (q->gen != s->gen)
        return;
    if (q->stopped && s->n_held < MPTSAS_REQUESTS)
        s->held[s->n_held++] = q->mfa;
    else if (status == MPI_SUCCESS && q->r.status == SCSI_GOOD)
        mptsas_context_post(s, ld_le32(q->f + MPI_M_CONTEXT));
    else
        post_io(q, status);
}

/* ---- task management ---- */

static bool same_task(const struct scsi_req *r, const void *context) { return r->tag == *(const uint64_t *)context; }

/* Which messages a function is about: of a target (all: MPTSAS_PHYS), of its unit, with a context. */
struct scope { unsigned target; uint64_t lun; bool any_lun, any_task; uint32_t context; };

static bool in_scope(const struct scope *w, const uint8_t *f)
{
    return f[MPI_M_FUNCTION] == MPI_SCSI_IO && (w->target == MPTSAS_PHYS || w->target == f[MPI_IO_TARGET]) &&
           (w->any_lun || w->lun == lun_of(f + MPI_IO_LUN)) && (w->any_task || w->context == ld_le32(f + MPI_M_CONTEXT));
}

/* Those that wait for the machine to go on end now. Their number. */
static unsigned end_held(struct mptsas *s, const struct scope *w, bool end)
{
    struct mpt_req q = { .s = s };
    unsigned n = 0;

    for (uint32_t i = 0; i < s->n_held; i++) {
        if (!dma_read(&s->pci.dma, (uint64_t)s->mfa_high << 32 | s->held[i], q.f, sizeof q.f) || !in_scope(w, q.f))
            continue;
        n++;
        if (!end)
            continue;
        s->held[i--] = s->held[--s->n_held];
        post_io(&q, MPI_SCSI_TASK_TERMINATED);
    }
    return n;
}

static unsigned co_reset_target(struct mptsas *s, unsigned id, uint32_t sense)
{
    const struct scope all = { .target = id, .any_lun = true, .any_task = true };
    unsigned n = end_held(s, &all, true);
    struct scsi_dev *d;

    for (uint32_t lun = 0; lun <= s->bus->hba->max_lun; lun++) {        /* a unit may go while another is reset */
        d = scsi_find(s->bus, 0, id, lun, false);
        if (!d)
            continue;
        n += scsi_pending(d, NULL, NULL);
        co_scsi_reset(d, sense);
    }
    return n;
}

static unsigned co_reset_bus(struct mptsas *s)
{
    unsigned n = 0;

    for (unsigned id = 0; id < MPTSAS_PHYS; id++)
        n += co_reset_target(s, id, SENSE_BUS_RESET);
    return n;
}

/* A function on one unit or one of its tasks; the response code. */
static uint8_t co_unit_task(struct mptsas *s, uint8_t type, const struct scope *w, uint32_t *count)
{
    struct scsi_dev *d = scsi_find(s->bus, 0, w->target, (uint32_t)w->lun, false);
    uint64_t context = w->context;

    if (!d)
        return MPI_TM_INVALID_LUN;
    *count = end_held(s, w, type != MPI_TM_QUERY_TASK);
    switch (type) {
    case MPI_TM_QUERY_TASK:
        *count += scsi_pending(d, same_task, &context);
        return *count ? MPI_TM_SUCCEEDED : MPI_TM_COMPLETE;
    case MPI_TM_LUN_RESET:
        *count += scsi_pending(d, NULL, NULL);
        co_scsi_reset(d, SENSE_DEVICE_RESET);
        break;
    default:
        *count += co_scsi_abort(d, w->any_task ? NULL : same_task, &context, SCSI_HOST_ABORTED);
        break;
    }
    return MPI_TM_COMPLETE;
}

static void co_task(struct mpt_req *q)
{
    struct mptsas *s = q->s;
    uint8_t r[MPTSAS_FRAME], type = q->f[MPI_TM_TYPE], response = MPI_TM_COMPLETE;
    bool task = type == MPI_TM_ABORT_TASK || type == MPI_TM_QUERY_TASK;
    const struct scope w = { q->f[MPI_IO_TARGET], lun_of(q->f + MPI_IO_LUN), false, !task, ld_le32(q->f + MPI_TM_TASK) };
    uint32_t count = 0, status = MPI_SUCCESS;
    struct scsi_dev *d;

    if (type != MPI_TM_BUS_RESET)
        status = check_address(s, q->f, &d);
    if (status != MPI_SUCCESS)
        ;
    else if (!type || type > MPI_TM_QUERY_TASK)
        response = MPI_TM_NOT_SUPPORTED;
    else if (type == MPI_TM_BUS_RESET)
        count = co_reset_bus(s);
    else if (type == MPI_TM_TARGET_RESET)
        count = co_reset_target(s, w.target, SENSE_DEVICE_RESET);
    else
        response = co_unit_task(s, type, &w, &count);
    if (q->gen != s->gen)
        return;
    mptsas_reply_begin(q->f, r, status);
    r[MPI_IO_TARGET] = q->f[MPI_IO_TARGET];
    r[MPI_IO_BUS] = q->f[MPI_IO_BUS];
    r[MPI_TM_TYPE] = type;
    r[MPI_TMR_RESPONSE] = response;
    st_le32(r + MPI_TMR_COUNT, count);
    mptsas_reply_post(s, r, MPI_TMR_SIZE);
}

static void co_phy_reset(struct mpt_req *q)
{
    uint8_t r[MPTSAS_FRAME];
    unsigned n;

    co_reset_target(q->s, q->f[MPI_SAS_CONTROL_PHY], SENSE_DEVICE_RESET);
    if (q->gen != q->s->gen)
        return;
    n = mptsas_message(q->s, q->f, r);
    mptsas_reply_post(q->s, r, n);
}

/* ---- the way in ---- */

bool mptsas_waits(const struct mptsas *s, const uint8_t *f)
{
    if (s->state != MPI_IOC_OPERATIONAL)
        return false;
    return f[MPI_M_FUNCTION] == MPI_SCSI_IO || f[MPI_M_FUNCTION] == MPI_SCSI_TASK_MGMT ||
           (f[MPI_M_FUNCTION] == MPI_SAS_IO_UNIT_CONTROL && f[0] == MPI_SAS_PHY_HARD_RESET && f[MPI_SAS_CONTROL_PHY] < MPTSAS_PHYS);
}

static void co_request(void *arg)
{
    struct mpt_req *q = arg;
    struct mptsas *s = q->s;

    if (q->gen == s->gen) {
        switch (q->f[MPI_M_FUNCTION]) {
        case MPI_SCSI_IO: co_scsi_io(q); break;
        case MPI_SCSI_TASK_MGMT: co_task(q); break;
        default: co_phy_reset(q); break;
        }
    }
    list_del(&q->link);
    s->n_flying--;
    free(q);
    co_queue_wake_all(&s->idle);
}

void mptsas_spawn(struct mptsas *s, const uint8_t f[MPTSAS_FRAME], uint32_t mfa)
{
    struct mpt_req *q;

    if (s->n_flying + s->n_held >= MPTSAS_REQUESTS) {
        mptsas_fault(s, MPI_INSUFFICIENT_RESOURCES);
        return;
    }
    q = xnew(struct mpt_req);
    q->s = s;
    q->mfa = mfa;
    q->gen = s->gen;
    memcpy(q->f, f, MPTSAS_FRAME);
    dma_vec_init(&q->data, &s->pci.dma, true);
    list_push(&s->flying, &q->link);
    s->n_flying++;
    co_spawn(NULL, s->pci.dev.dom, co_request, q);
}

void mptsas_start(struct mptsas *s, uint32_t mfa)
{
    uint8_t f[MPTSAS_FRAME], r[MPTSAS_FRAME];
    uint64_t addr = (uint64_t)s->mfa_high << 32 | (mfa & ~7u);

    if (s->state != MPI_IOC_OPERATIONAL) {
        log_guest("mptsas '%s': a message before it is set up", name(s));
        return;
    }
    if (!dma_read(&s->pci.dma, addr, f, sizeof f)) {
        log_guest("mptsas '%s': message 0x%llx is not RAM", name(s), (unsigned long long)addr);
        return;
    }
    if (mptsas_waits(s, f))
        mptsas_spawn(s, f, mfa & ~7u);
    else
        mptsas_reply_post(s, r, mptsas_message(s, f, r));
}
