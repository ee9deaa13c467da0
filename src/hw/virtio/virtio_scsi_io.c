/* SPDX-License-Identifier: MIT */
/* Request queues of virtio-scsi: each request is a coroutine from its command block to its status (VIRTIO 1.2, 5.6.6.1). */
#include <stdlib.h>
#include "base/log.h"
#include "hw/virtio/virtio_scsi.h"

bool vscsi_parse_lun(const uint8_t lun[8], uint32_t *target, uint32_t *unit)
{
    uint16_t second = ld_be16(lun + 2);

    *target = lun[1];
    *unit = second == SCSI_LUN_REPORT_LUNS ? second : second & 0x3fff;
    /* One; the target; the unit by peripheral or flat addressing, or a well known one; nothing below it. */
    return lun[0] == 1 && (second >> 14 == 0 || second >> 14 == 1 || second == SCSI_LUN_REPORT_LUNS) && !ld_be32(lun + 4);
}

static uint32_t request_size(const struct virtio_scsi *s)
{
    size_t head = virtio_has(&s->v, VIRTIO_SCSI_F_T10_PI) ? sizeof(struct virtio_scsi_cmd_req_pi) : sizeof(struct virtio_scsi_cmd_req);

    return (uint32_t)head + le32toh(vscsi_config(s)->cdb_size);
}

static uint32_t response_size(const struct virtio_scsi *s)
{
    return sizeof(struct virtio_scsi_cmd_resp) + le32toh(vscsi_config(s)->sense_size);
}

static uint8_t response_of(enum scsi_host h)
{
    switch (h) {
    case SCSI_HOST_OVERRUN: return VIRTIO_SCSI_S_OVERRUN;
    case SCSI_HOST_ABORTED: return VIRTIO_SCSI_S_ABORTED;
    case SCSI_HOST_RESET: return VIRTIO_SCSI_S_RESET;
    case SCSI_HOST_NO_TARGET: return VIRTIO_SCSI_S_BAD_TARGET;
    case SCSI_HOST_BUSY: return VIRTIO_SCSI_S_BUSY;
    case SCSI_HOST_TRANSPORT: return VIRTIO_SCSI_S_TRANSPORT_FAILURE;
    case SCSI_HOST_TARGET: return VIRTIO_SCSI_S_TARGET_FAILURE;
    case SCSI_HOST_NEXUS: return VIRTIO_SCSI_S_NEXUS_FAILURE;
    case SCSI_HOST_FAILURE: return VIRTIO_SCSI_S_FAILURE;
    default: return VIRTIO_SCSI_S_OK;
    }
}

static void respond(struct vscsi_req *q, uint8_t response)
{
    struct vq_elem *e = &q->e;
    struct virtio_scsi *s = vscsi_of(e->vq->v);
    const struct scsi_req *r = &q->r;
    struct virtio_scsi_cmd_resp resp = { 0 };
    uint64_t wanted = r->in.len + r->out.len;
    uint32_t sense = response ? 0 : MIN(r->sense_len, le32toh(vscsi_config(s)->sense_size));

    resp.response = response;
    if (!response) {
        resp.status = r->status;
        resp.sense_len = htole32(sense);
        resp.residual = htole32((uint32_t)(wanted - MIN(r->done, wanted)));
    }
    vec_from_buf(&e->in, 0, &resp, sizeof resp);
    vec_from_buf(&e->in, sizeof resp, r->sense, sense);
    /* Of a read that failed half way some bytes may be there. */
    virtq_push(e, (uint32_t)(response || r->status ? e->in.len : response_size(s) + r->pi_in.len + (r->in.len ? r->done : 0)));
}

void vscsi_answer(struct vscsi_req *q, uint8_t response)
{
    q->r.in.len = q->r.out.len = q->r.pi_in.len = q->r.pi_out.len = 0;
    respond(q, response);
}

/* Takes protection information of @n bytes off the start of @data. */
static bool split(struct scsi_data *data, struct scsi_data *pi, uint32_t n)
{
    *pi = (struct scsi_data){ data->v, data->off, n };
    if (n > data->len)
        return false;
    data->off += n;
    data->len -= n;
    return true;
}

/* The request as the driver wrote it; false after an answer. */
static bool parse(struct virtio_scsi *s, struct vscsi_req *q)
{
    struct virtio_scsi_cmd_req_pi p = { 0 };
    const struct virtio_scsi_cmd_req *h = &p.h;
    struct vq_elem *e = &q->e;
    struct scsi_req *r = &q->r;
    uint32_t req = request_size(s), resp = response_size(s), unit, cdb;

    memset(r, 0, sizeof *r);
    if (e->out.len < req || e->in.len < resp) {
        virtio_error(&s->v, "queue %u: a request without room for its header or response", e->vq->index);
        virtq_push(e, 0);
        return false;
    }
    cdb = le32toh(vscsi_config(s)->cdb_size);
    vec_to_buf(&e->out, 0, &p, req - cdb);
    vec_to_buf(&e->out, req - cdb, r->cdb, MIN(cdb, SCSI_CDB_MAX));
    r->tag = h->id;
    if (!vscsi_parse_lun(h->lun, &q->target, &unit)) {
        vscsi_answer(q, VIRTIO_SCSI_S_BAD_TARGET);
        return false;
    }
    r->lun = unit;
    if (e->out.len > req && e->in.len > resp) {     /* no VIRTIO_SCSI_F_INOUT */
        vscsi_answer(q, VIRTIO_SCSI_S_FAILURE);
        return false;
    }
    r->out = (struct scsi_data){ &e->out, req, e->out.len - req };
    r->in = (struct scsi_data){ &e->in, resp, e->in.len - resp };
    if (!split(&r->out, &r->pi_out, le32toh(p.pi_bytesout)) || !split(&r->in, &r->pi_in, le32toh(p.pi_bytesin))) {
        vscsi_answer(q, VIRTIO_SCSI_S_FAILURE);
        return false;
    }
    return true;
}

static void co_command(struct virtio_scsi *s, struct vscsi_req *q)
{
    struct scsi_dev *d;

    if (!parse(s, q))
        return;
    d = scsi_find(s->bus, 0, q->target, (uint32_t)q->r.lun, true);
    if (!d) {
        vscsi_answer(q, VIRTIO_SCSI_S_BAD_TARGET);
        return;
    }
    co_scsi_run(&q->r, d);
    if (virtq_stale(&q->e)) {
        virtq_push(&q->e, (uint32_t)q->e.in.len);   /* what was written is marked; nobody hears of it */
    } else if (q->r.host == SCSI_HOST_STOPPED) {
        list_push(&s->stopped, &q->link);
        virtq_park(&q->e);
    } else {
        respond(q, response_of(q->r.host));
    }
}

static void co_request(void *arg)
{
    struct vscsi_req *q = arg;
    struct virtio_scsi *s = vscsi_of(q->e.vq->v);

    virtio_hold(&s->v);                     /* @s stays until the end of this */
    co_command(s, q);
    s->running--;
    virtio_release(&s->v);
}

static void request_start(struct vscsi_req *q)
{
    vscsi_of(q->e.vq->v)->running++;
    co_spawn(NULL, q->e.vq->v->dom, co_request, q);
}

void vscsi_start(struct vscsi_req *q)
{
    virtq_unpark(&q->e);
    if (!virtq_remap(&q->e)) {
        virtq_push(&q->e, 0);
        return;
    }
    request_start(q);
}

static bool serve(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_scsi *s = vscsi_of(vq->v);
    struct vscsi_req *q = (struct vscsi_req *)e;

    if (s->running < VSCSI_RUNNING_MAX) {
        request_start(q);
    } else if (parse(s, q)) {
        q->r.status = SCSI_TASK_SET_FULL;       /* SAM-5, 5.3.1: drivers try again when others have ended */
        respond(q, VIRTIO_SCSI_S_OK);
    }
    return true;
}

void vscsi_requested(struct virtq *vq)
{
    virtq_drain(vq, serve);
}
