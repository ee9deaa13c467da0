/* SPDX-License-Identifier: MIT */
/* Console device (VIRTIO 1.2, 5.3): options, features, configuration space, life and saved state of the controller. */
#include "hw/virtio/virtio_serial.h"

#include <stdlib.h>
#include "hw/virtio/virtio_forms.h"

static struct virtio_console_config *config(struct virtio_serial *s)
{
    return (struct virtio_console_config *)s->v.config;
}

/* 5.3.2: port 0's queues, the control queues, the queues of the other ports. */
static void add_queues(struct virtio_serial *s)
{
    for (uint32_t i = 0; i < s->max_ports; i++) {
        struct vser_slot *sl = &s->slots[i];
        sl->s = s;
        sl->nr = i;
        sl->rx = virtio_add_queue(&s->v, VSER_QUEUE_SIZE, 0, vser_port_room);
        sl->tx = virtio_add_queue(&s->v, VSER_QUEUE_SIZE, 0, vser_port_received);
        if (i == 0 && s->max_ports > 1) {
            s->ctl_rx = virtio_add_queue(&s->v, VSER_QUEUE_SIZE, 0, vser_ctl_room);
            s->ctl_tx = virtio_add_queue(&s->v, VSER_QUEUE_SIZE, 0, vser_ctl_received);
        }
    }
}

static bool vser_realize(struct virtio_dev *v, struct err *e)
{
    struct virtio_serial *s = vser_of(v);
    char name[128];

    bus_free_name(&vser_bus_class, v->dev, 0, name, sizeof name);
    s->bus = (struct vser_bus *)bus_new(&vser_bus_class, v->dev, name, e);
    if (!s->bus)
        return false;
    s->bus->s = s;
    s->bus->bus.hotplug = s->max_ports > 1;
    s->slots = xcalloc(s->max_ports, sizeof *s->slots);
    virtio_set_config_size(v, sizeof(struct virtio_console_config));
    config(s)->max_nr_ports = htole32(s->max_ports);
    add_queues(s);
    return true;
}

static void vser_unrealize(struct virtio_dev *v)
{
    struct virtio_serial *s = vser_of(v);

    free(s->slots);
    s->slots = NULL;
    s->ctl_rx = s->ctl_tx = NULL;
}

static uint64_t vser_features(struct virtio_dev *v)
{
    struct virtio_serial *s = vser_of(v);

    return (s->max_ports > 1 ? BIT64(VIRTIO_CONSOLE_F_MULTIPORT) : 0) |
           (s->emergency_write ? BIT64(VIRTIO_CONSOLE_F_EMERG_WRITE) : 0);
}

/* 5.3.4: a character for the console from a driver that may not be running yet; the field reads as zero. */
static void vser_config_write(struct virtio_dev *v, uint32_t off, uint32_t len, const uint8_t *old)
{
    struct virtio_serial *s = vser_of(v);
    uint8_t ch = v->config[off];

    memcpy(v->config + off, old, len);
    if (off != offsetof(struct virtio_console_config, emerg_wr) || !s->emergency_write)
        return;
    for (uint32_t i = 0; i < s->max_ports; i++)
        if (s->slots[i].port && vser_is_console(s->slots[i].port)) {
            chr_write(&s->slots[i].port->chr, &ch, 1);
            return;
        }
}

/* Without the multiport protocol there is one port, and a driver that runs holds it. */
static void vser_started(struct virtio_dev *v)
{
    struct virtio_serial *s = vser_of(v);

    if (vser_multiport(s))
        return;
    s->slots[0].guest_ready = true;
    vser_set_guest_open(&s->slots[0], true);
}

static void vser_reset(struct virtio_dev *v)
{
    struct virtio_serial *s = vser_of(v);

    s->driver_ready = false;
    for (uint32_t i = 0; s->slots && i < s->max_ports; i++) {
        struct vser_slot *sl = &s->slots[i];
        sl->tell = 0;
        sl->known = sl->guest_ready = false;
        vser_set_guest_open(sl, false);
    }
}

static struct vser_slot *slot_of_tx(struct virtq *vq)
{
    struct virtio_serial *s = vser_of(vq->v);

    for (uint32_t i = 0; i < s->max_ports; i++)
        if (s->slots[i].tx == vq)
            return &s->slots[i];
    return NULL;
}

static void vser_queue_reset(struct virtq *vq)
{
    struct vser_slot *sl = slot_of_tx(vq);

    if (sl)
        vser_forget(sl);
}

static void vser_restore(struct vq_elem *e)
{
    struct vser_slot *sl = slot_of_tx(e->vq);

    if (sl && !sl->held)
        sl->held = e;
    else
        virtq_push(e, 0);
}

static void vser_resumed(struct virtio_dev *v)
{
    struct virtio_serial *s = vser_of(v);

    for (uint32_t i = 0; i < s->max_ports; i++) {
        vser_retry(&s->slots[i]);
        vser_tell(&s->slots[i], 0);
        if (s->slots[i].port)
            chr_accept(&s->slots[i].port->chr);
    }
}

static const struct virtio_model vser_model = {
    .name = "virtio-serial", .id = VIRTIO_ID_CONSOLE, .pci_legacy_id = 0x1003, .pci_class = 0x078000, .realize = vser_realize,
    .unrealize = vser_unrealize, .features = vser_features, .config_write = vser_config_write, .started = vser_started,
    .reset = vser_reset, .queue_reset = vser_queue_reset, .restore = vser_restore, .resumed = vser_resumed,
};

static const struct prop vser_props[] = {
    PROP_INCLUDE(struct virtio_serial, v.opt, virtio_props),
    PROP_U32(struct virtio_serial, max_ports, "max_ports", 31, 1, VSER_MAX_PORTS, "Ports that the bus has numbers for"),
    PROP_BOOL(struct virtio_serial, emergency_write, "emergency-write", true,
              "Offer a register that prints one character on the console without a driver"),
    PROP_END
};

static const struct state_field slot_fields[] = {
    STATE_UINT(struct vser_slot, tell, .max = VSER_TELL_ALL), STATE_BOOL(struct vser_slot, known),
    STATE_BOOL(struct vser_slot, guest_ready), STATE_BOOL(struct vser_slot, guest_open), STATE_UINT(struct vser_slot, held_off),
    STATE_END
};
static const struct state_desc slot_state = { .name = "virtio-serial-slot", .version = 1, .fields = slot_fields };

static const struct state_field vser_fields[] = {
    STATE_STRUCT(struct virtio_serial, v, &virtio_dev_state), STATE_BOOL(struct virtio_serial, driver_ready),
    { .name = "slots", .kind = ST_PTR_STRUCT, .off = offsetof(struct virtio_serial, slots), .size = sizeof(struct vser_slot),
      .count_off = offsetof(struct virtio_serial, max_ports), .max = VSER_MAX_PORTS, .sub = &slot_state },
    STATE_END
};

/* Ports tell their back ends what the guest holds now. */
static bool vser_post_load(void *obj, struct err *e)
{
    struct virtio_serial *s = obj;

    for (uint32_t i = 0; i < s->max_ports; i++)
        if (s->slots[i].port)
            chr_set_front_open(&s->slots[i].port->chr, s->slots[i].guest_open || vser_is_console(s->slots[i].port));
    return true;
}
static const struct state_desc vser_state = { .name = "virtio-serial", .version = 1, .fields = vser_fields, .post_load = vser_post_load };

static const char *const vser_names[] = { "virtio-serial", NULL };
VIRTIO_FORMS(virtio_serial, struct virtio_serial, "virtio-serial", "Console and serial ports, as a bus of them", "Input", vser_props,
             &vser_state, &vser_model, vser_names);
