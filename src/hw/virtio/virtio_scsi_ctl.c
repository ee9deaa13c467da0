/* SPDX-License-Identifier: MIT */
/* Control and event queues of virtio-scsi: task management, units that come, go and change (VIRTIO 1.2, 5.6.6.2, 5.6.6.3). */
#include <stdlib.h>
#include "base/log.h"
#include "hw/virtio/virtio_scsi.h"

/* ---- events ---- */

static void send_event(struct virtio_scsi *s, uint32_t event, uint32_t reason, const struct scsi_dev *d)
{
    struct virtio_scsi_event ev = { .reason = htole32(reason) };
    struct vq_elem *e;

    if (!(s->v.status & VIRTIO_S_DRIVER_OK))
        return;
    e = virtq_pop(s->events);
    if (!e) {
        virtq_want_kick(s->events, true);
        e = virtq_pop(s->events);               /* a buffer that came before the driver could see the wish */
    }
    if (!e) {
        s->events_missed = true;
        return;
    }
    ev.event = htole32(event | (s->events_missed ? VIRTIO_SCSI_T_EVENTS_MISSED : 0));
    if (d) {
        ev.lun[0] = 1;
        ev.lun[1] = (uint8_t)d->id;
        st_be16(ev.lun + 2, (uint16_t)(d->lun < 256 ? d->lun : 0x4000 | d->lun));    /* as REPORT LUNS has it: Linux compares */
    }
    if (vec_from_buf(&e->in, 0, &ev, sizeof ev) != sizeof ev) {
        virtio_error(&s->v, "a buffer for events of %llu bytes", (unsigned long long)e->in.len);
        virtq_push(e, 0);
        return;
    }
    s->events_missed = false;
    virtq_push(e, sizeof ev);
}

void vscsi_events_room(struct virtq *vq)
{
    struct virtio_scsi *s = vscsi_of(vq->v);

    if (s->events_missed)
        send_event(s, VIRTIO_SCSI_T_NO_EVENT, 0, NULL);
}

static void unit_plugged(struct scsi_bus *b, struct scsi_dev *d, bool came)
{
    struct virtio_scsi *s = b->arg;

    if (virtio_has(&s->v, VIRTIO_SCSI_F_HOTPLUG))
        send_event(s, VIRTIO_SCSI_T_TRANSPORT_RESET, came ? VIRTIO_SCSI_EVT_RESET_RESCAN : VIRTIO_SCSI_EVT_RESET_REMOVED, d);
}

/* The reason of a change is the additional sense code, then its qualifier. A CD drive is polled for its medium. */
static void unit_changed(struct scsi_bus *b, struct scsi_dev *d, uint32_t sense)
{
    struct virtio_scsi *s = b->arg;

    if (virtio_has(&s->v, VIRTIO_SCSI_F_CHANGE) && sense != SENSE_MEDIUM_CHANGED && sense != SENSE_LUNS_CHANGED)
        send_event(s, VIRTIO_SCSI_T_PARAM_CHANGE, (sense >> 8 & 0xff) | (sense & 0xff) << 8, d);
}

const struct scsi_hba vscsi_hba = {
    .max_target = VSCSI_MAX_TARGET, .max_lun = VSCSI_MAX_LUN, .well_known = true, .plugged = unit_plugged, .changed = unit_changed,
};

/* ---- task management ---- */

static bool same_tag(const struct scsi_req *r, const void *arg)
{
    return r->tag == *(const uint64_t *)arg;
}

/* Requests that wait for the machine to go on are not with the unit: they end here. */
static unsigned end_stopped(struct virtio_scsi *s, uint32_t target, uint32_t unit, const uint64_t *tag, uint8_t response)
{
    struct vscsi_req *q;
    unsigned n = 0;

    list_for_each(q, &s->stopped, link) {
        if (q->target != target || (unit != UINT32_MAX && q->r.lun != unit) || (tag && q->r.tag != *tag))
            continue;
        n++;
        if (response == VIRTIO_SCSI_S_OK)           /* they are only counted */
            continue;
        list_del(&q->link);
        virtq_unpark(&q->e);
        if (virtq_remap(&q->e))
            vscsi_answer(q, response);
        else
            virtq_push(&q->e, 0);
    }
    return n;
}

/* Every unit of a target, one after the other; a list that may change while one is waited for. */
static void co_nexus_reset(struct virtio_scsi *s, uint32_t target)
{
    struct scsi_dev *d;

    for (uint32_t from = 0; from <= VSCSI_MAX_LUN;) {
        struct scsi_dev *next = NULL;
        list_for_each(d, &s->bus->devs, on_bus)
            if (d->id == target && d->lun >= from && (!next || d->lun < next->lun))
                next = d;
        if (!next)
            return;
        from = next->lun + 1;
        co_scsi_reset(next, SENSE_BUS_RESET);
    }
}

/* What a function ends of what waits for the machine to go on: also if the unit has left meanwhile, for the driver takes its memory back. */
static void tmf_ends_stopped(struct virtio_scsi *s, uint32_t sub, uint32_t target, uint32_t unit, const uint64_t *tag)
{
    switch (sub) {
    case TMF_ABORT_TASK:
        end_stopped(s, target, unit, tag, VIRTIO_SCSI_S_ABORTED);
        break;
    case TMF_ABORT_TASK_SET: case TMF_CLEAR_TASK_SET:
        end_stopped(s, target, unit, NULL, VIRTIO_SCSI_S_ABORTED);
        break;
    case TMF_LOGICAL_UNIT_RESET:
        end_stopped(s, target, unit, NULL, VIRTIO_SCSI_S_RESET);
        break;
    case TMF_I_T_NEXUS_RESET:
        end_stopped(s, target, UINT32_MAX, NULL, VIRTIO_SCSI_S_RESET);
        break;
    }
}

static uint8_t co_tmf(struct virtio_scsi *s, const struct virtio_scsi_ctrl_tmf *t)
{
    uint32_t target, unit, sub = le32toh(t->subtype);
    uint64_t tag = t->id;
    struct scsi_dev *d;

    if (!vscsi_parse_lun(t->lun, &target, &unit))
        return VIRTIO_SCSI_S_BAD_TARGET;
    tmf_ends_stopped(s, sub, target, unit, &tag);
    d = scsi_find(s->bus, 0, target, unit, true);
    if (!d)
        return VIRTIO_SCSI_S_BAD_TARGET;
    if (sub == TMF_I_T_NEXUS_RESET) {
        co_nexus_reset(s, target);
        return VIRTIO_SCSI_S_OK;
    }
    if (unit == SCSI_LUN_REPORT_LUNS)                       /* its commands have ended when they are heard of */
        return sub <= TMF_QUERY_TASK_SET && sub != TMF_CLEAR_ACA ? VIRTIO_SCSI_S_OK : VIRTIO_SCSI_S_FUNCTION_REJECTED;
    if (d->lun != unit)
        return VIRTIO_SCSI_S_INCORRECT_LUN;
    switch (sub) {
    case TMF_ABORT_TASK:
        co_scsi_abort(d, same_tag, &tag, SCSI_HOST_ABORTED);
        return VIRTIO_SCSI_S_OK;
    case TMF_ABORT_TASK_SET: case TMF_CLEAR_TASK_SET:
        co_scsi_abort(d, NULL, NULL, SCSI_HOST_ABORTED);
        return VIRTIO_SCSI_S_OK;
    case TMF_LOGICAL_UNIT_RESET:
        co_scsi_reset(d, SENSE_DEVICE_RESET);
        return VIRTIO_SCSI_S_OK;
    case TMF_QUERY_TASK:
        return scsi_pending(d, same_tag, &tag) || end_stopped(s, target, unit, &tag, VIRTIO_SCSI_S_OK) ?
               VIRTIO_SCSI_S_FUNCTION_SUCCEEDED : VIRTIO_SCSI_S_OK;
    case TMF_QUERY_TASK_SET:
        return scsi_pending(d, NULL, NULL) || end_stopped(s, target, unit, NULL, VIRTIO_SCSI_S_OK) ?
               VIRTIO_SCSI_S_FUNCTION_SUCCEEDED : VIRTIO_SCSI_S_OK;
    default:
        return VIRTIO_SCSI_S_FUNCTION_REJECTED;
    }
}

static void finish(struct vq_elem *e, const void *resp, uint32_t n)
{
    if (!virtq_stale(e) && vec_from_buf(&e->in, 0, resp, n) != n)
        virtio_error(e->vq->v, "a control response of %llu bytes", (unsigned long long)e->in.len);
    virtq_push(e, n);
}

/* Asynchronous notifications: nothing can be subscribed, and that is what the driver hears (5.6.6.2). */
static void no_notifications(struct virtio_scsi *s, struct vq_elem *e)
{
    struct virtio_scsi_ctrl_an a;
    uint32_t target, unit;
    uint8_t resp[5] = { 0 };

    if (vec_to_buf(&e->out, 0, &a, sizeof a) != sizeof a)
        virtio_error(&s->v, "a control request that is too short");
    else if (!vscsi_parse_lun(a.lun, &target, &unit) || !scsi_find(s->bus, 0, target, unit, true))
        resp[4] = VIRTIO_SCSI_S_BAD_TARGET;
    finish(e, resp, sizeof resp);
}

static void co_control(void *arg)
{
    struct vq_elem *e = arg;
    struct virtio_scsi *s = vscsi_of(e->vq->v);
    struct virtio_scsi_ctrl_tmf t = { 0 };
    size_t n = vec_to_buf(&e->out, 0, &t, sizeof t);
    uint8_t resp;

    if (n >= 4 && (le32toh(t.type) == VIRTIO_SCSI_T_AN_QUERY || le32toh(t.type) == VIRTIO_SCSI_T_AN_SUBSCRIBE)) {
        no_notifications(s, e);
        return;
    }
    if (n != sizeof t || le32toh(t.type) != VIRTIO_SCSI_T_TMF) {
        virtio_error(&s->v, "control request of type %u and %zu bytes", le32toh(t.type), n);
        virtq_push(e, 0);
        return;
    }
    resp = co_tmf(s, &t);
    finish(e, &resp, sizeof resp);
}

static bool serve(struct virtq *vq, struct vq_elem *e)
{
    co_spawn(NULL, vq->v->dom, co_control, e);
    return true;
}

void vscsi_controlled(struct virtq *vq)
{
    virtq_drain(vq, serve);
}
