/* SPDX-License-Identifier: MIT */
/* SCSI host device (VIRTIO 1.2, 5.6): options, features, configuration space, life. */
#include "hw/virtio/virtio_scsi.h"

#include "hw/virtio/virtio_forms.h"
#include "loop/iothread.h"
#include "machine/machine.h"

static struct virtio_scsi_config *config(struct virtio_scsi *s) { return (struct virtio_scsi_config *)s->v.config; }

static void set_defaults(struct virtio_scsi *s)
{
    config(s)->sense_size = htole32(VSCSI_SENSE_DEFAULT);
    config(s)->cdb_size = htole32(VSCSI_CDB_DEFAULT);
}

static void fill_config(struct virtio_scsi *s)
{
    struct virtio_scsi_config *c = config(s);

    c->num_queues = htole32(s->num_queues);
    c->seg_max = htole32(s->queue_size - 2);
    c->max_sectors = htole32(s->max_sectors);
    c->cmd_per_lun = htole32(s->cmd_per_lun);
    c->event_info_size = htole32(sizeof(struct virtio_scsi_event));
    c->max_target = htole16(VSCSI_MAX_TARGET);
    c->max_lun = htole32(VSCSI_MAX_LUN);
    set_defaults(s);
}

static bool iothread_fits(struct virtio_scsi *s, struct err *e)
{
    if (!s->iothread || iothread_loop(s->iothread) == domain_loop(s->v.dom))
        return true;
    err_set(e, ERR_VALUE, "iothread: a device on a virtio-bus runs where its transport runs");
    return err_hint(e, "use virtio-scsi-pci for a thread of its own");
}

static bool vscsi_realize(struct virtio_dev *v, struct err *e)
{
    struct virtio_scsi *s = vscsi_of(v);

    list_init(&s->stopped);
    if (!iothread_fits(s, e))
        return false;
    if (!s->num_queues)
        s->num_queues = machine_current() ? MIN(MAX(machine_current()->smp.cpus, 1u), VSCSI_MAX_QUEUES) : 1;
    s->bus = scsi_bus_new(v->dev, &vscsi_hba, s, e);
    if (!s->bus)
        return false;
    virtio_set_config_size(v, sizeof(struct virtio_scsi_config));
    fill_config(s);
    virtio_add_queue(v, s->queue_size, 0, vscsi_controlled);
    s->events = virtio_add_queue(v, s->queue_size, 0, vscsi_events_room);
    for (uint32_t i = 0; i < s->num_queues; i++)
        virtio_add_queue(v, s->queue_size, sizeof(struct vscsi_req), vscsi_requested);
    return true;
}

static uint64_t vscsi_features(struct virtio_dev *v)
{
    struct virtio_scsi *s = vscsi_of(v);

    return (s->hotplug ? BIT64(VIRTIO_SCSI_F_HOTPLUG) : 0) | (s->param_change ? BIT64(VIRTIO_SCSI_F_CHANGE) : 0) |
           (s->t10_pi ? BIT64(VIRTIO_SCSI_F_T10_PI) : 0);
}

/* 5.6.4.1: the driver chooses the sizes of command blocks and sense data. */
static void vscsi_config_write(struct virtio_dev *v, uint32_t off, uint32_t len, const uint8_t *old)
{
    bool sense = off == offsetof(struct virtio_scsi_config, sense_size), cdb = off == offsetof(struct virtio_scsi_config, cdb_size);

    if (len == 4 && ((sense && ld_le32(v->config + off) < VSCSI_SENSE_LIMIT) || (cdb && ld_le32(v->config + off) < VSCSI_CDB_LIMIT)))
        return;
    memcpy(v->config + off, old, len);
    if (sense || cdb)
        virtio_error(v, "the driver asks for command blocks of %u or sense data of %u bytes or more", VSCSI_CDB_LIMIT, VSCSI_SENSE_LIMIT);
}

static void vscsi_queue_reset(struct virtq *vq)
{
    struct virtio_scsi *s = vscsi_of(vq->v);
    struct vscsi_req *q;

    list_for_each(q, &s->stopped, link) {
        if (q->e.vq != vq)
            continue;
        list_del(&q->link);
        virtq_push(&q->e, 0);
    }
}

/* Requests in flight have no driver any more: what can end early does. */
static void vscsi_reset(struct virtio_dev *v)
{
    struct virtio_scsi *s = vscsi_of(v);
    struct scsi_dev *d;
    struct scsi_req *r;

    if (!s->bus || !v->config)
        return;
    list_for_each(d, &s->bus->devs, on_bus)
        list_for_each(r, &d->reqs, link)
            r->abort = SCSI_HOST_RESET;
    set_defaults(s);
    s->events_missed = false;
    scsi_bus_power_on(s->bus);
}

static void vscsi_restore(struct vq_elem *e)
{
    struct virtio_scsi *s = vscsi_of(e->vq->v);

    if (e->vq->index >= VSCSI_Q_REQUEST)
        list_push(&s->stopped, &((struct vscsi_req *)e)->link);
    else
        virtq_push(e, 0);
}

static void vscsi_resumed(struct virtio_dev *v)
{
    struct virtio_scsi *s = vscsi_of(v);
    struct list again = LIST_INIT(again), *n;

    list_move(&again, &s->stopped);
    while ((n = list_pop(&again)))
        vscsi_start(list_entry(n, struct vscsi_req, link));
}

static const struct virtio_model vscsi_model = {
    .name = "virtio-scsi", .id = VIRTIO_ID_SCSI, .pci_legacy_id = 0x1004, .pci_class = 0x010000, .realize = vscsi_realize,
    .features = vscsi_features, .config_write = vscsi_config_write, .reset = vscsi_reset, .queue_reset = vscsi_queue_reset,
    .restore = vscsi_restore, .resumed = vscsi_resumed,
};

static const struct prop vscsi_props[] = {
    PROP_INCLUDE(struct virtio_scsi, v.opt, virtio_props),
    PROP_U32(struct virtio_scsi, num_queues, "num_queues", 0, 0, VSCSI_MAX_QUEUES, "Request queues; 0: one for each CPU"),
    { .name = "virtqueue_size", .doc = "Requests that one queue holds", .type = PROP_T_U32, PROP_OFF(struct virtio_scsi, queue_size),
      .def = 256, .min = 4, .max = VIRTQ_SIZE_MAX, .flags = PF_POW2 },
    PROP_U32(struct virtio_scsi, max_sectors, "max_sectors", 65535, 1, 65535, "Most sectors of 512 bytes in one request, as the driver is told"),
    PROP_U32(struct virtio_scsi, cmd_per_lun, "cmd_per_lun", 128, 1, SCSI_REQS_MAX, "Requests of one unit at a time, as the driver is told"),
    PROP_BOOL(struct virtio_scsi, hotplug, "hotplug", true, "Tell the driver of units that come and go"),
    PROP_BOOL(struct virtio_scsi, param_change, "param_change", true, "Tell the driver of units that change"),
    PROP_BOOL(struct virtio_scsi, t10_pi, "t10_pi", false, "Pass protection information of units that have some in buffers of its own"),
    DEV_IOTHREAD_ROW(struct virtio_scsi, iothread),
    PROP_END
};

static const struct state_field vscsi_fields[] = {
    STATE_STRUCT(struct virtio_scsi, v, &virtio_dev_state), STATE_BOOL(struct virtio_scsi, events_missed), STATE_END
};

static bool vscsi_post_load(void *obj, struct err *e)
{
    struct virtio_scsi *s = obj;

    if (le32toh(config(s)->sense_size) >= VSCSI_SENSE_LIMIT || le32toh(config(s)->cdb_size) >= VSCSI_CDB_LIMIT)
        set_defaults(s);
    return true;
}
static const struct state_desc vscsi_state = { .name = "virtio-scsi", .version = 1, .fields = vscsi_fields, .post_load = vscsi_post_load };

static const char *const vscsi_names[] = { "virtio-scsi", NULL };
VIRTIO_FORMS(virtio_scsi, struct virtio_scsi, "virtio-scsi", "SCSI host adapter", "Storage", vscsi_props, &vscsi_state, &vscsi_model,
             vscsi_names);
