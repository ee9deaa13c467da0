/* SPDX-License-Identifier: MIT */
/*
 * The multiport protocol (VIRTIO 1.2, 5.3.6.2): what the guest says of ports, and what it is told. What it is to be told is kept
 * as bits per port, not as messages: a guest that gives no buffers costs nothing, and hears the present state later.
 */
#include "base/log.h"
#include "core/cmd.h"
#include "hw/virtio/virtio_serial.h"

static const struct qmp_event_def vser_events[] = {
    { "VSERPORT_CHANGE", "The guest opened or closed a virtio-serial port", true, "id", .says = "{id:str, open:bool}" },
};
QMP_EVENT(&vser_events[0]);

void vser_set_guest_open(struct vser_slot *sl, bool open)
{
    struct vser_port *p = sl->port;

    if (sl->guest_open == open)
        return;
    sl->guest_open = open;
    if (!p)
        return;
    if (!vser_is_console(p)) {
        chr_set_front_open(&p->chr, open);
        if (p->dev.obj.id[0] != '#')
            qmp_event("VSERPORT_CHANGE", json_pack("{sssb}", "id", p->dev.obj.id, "open", open));
    }
    if (open)
        chr_accept(&p->chr);
}

/* ---- to the guest ---- */

/* One message in one buffer; false if there is none. */
static bool ctl_send(struct virtio_serial *s, uint32_t nr, uint16_t event, uint16_t value, const char *text)
{
    struct virtio_console_control c = { htole32(nr), htole16(event), htole16(value) };
    struct vq_elem *e = virtq_pop(s->ctl_rx);
    size_t n, len = text ? strlen(text) : 0;

    if (!e) {
        virtq_want_kick(s->ctl_rx, true);
        e = virtq_pop(s->ctl_rx);
    }
    if (!e)
        return false;
    n = vec_from_buf(&e->in, 0, &c, sizeof c);
    n += vec_from_buf(&e->in, sizeof c, text, len);
    if (n < sizeof c + len)
        log_guest("virtio-serial '%s': a control buffer of %zu bytes is too short for %zu", s->v.dev->obj.id, n, sizeof c + len);
    virtq_push(e, (uint32_t)n);
    return true;
}

/* The message of the lowest bit of sl->tell; false if it has to wait. */
static bool tell_one(struct vser_slot *sl)
{
    struct virtio_serial *s = sl->s;
    uint8_t bit = sl->tell & (uint8_t)-sl->tell;
    struct vser_port *p = sl->port;
    bool sent = true;

    if (!p && bit != VSER_TELL_REMOVE)
        bit = sl->tell;                             /* of a port that is gone again */
    else if (bit == VSER_TELL_REMOVE)
        sent = ctl_send(s, sl->nr, VIRTIO_CONSOLE_DEVICE_REMOVE, 1, NULL);
    else if (bit == VSER_TELL_ADD)
        sent = sl->known = ctl_send(s, sl->nr, VIRTIO_CONSOLE_DEVICE_ADD, 1, NULL);
    else if (bit == VSER_TELL_CONSOLE)
        sent = ctl_send(s, sl->nr, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL);
    else if (bit == VSER_TELL_NAME)
        sent = ctl_send(s, sl->nr, VIRTIO_CONSOLE_PORT_NAME, 1, p->name);
    else
        sent = ctl_send(s, sl->nr, VIRTIO_CONSOLE_PORT_OPEN, vser_host_open(p), NULL);
    if (sent)
        sl->tell &= (uint8_t)~bit;
    return sent;
}

void vser_tell(struct vser_slot *sl, uint8_t what)
{
    sl->tell |= what;
    if (!vser_multiport(sl->s) || !virtio_running(&sl->s->v))
        return;
    while (sl->tell)
        if (!tell_one(sl))
            return;
}

void vser_ctl_room(struct virtq *vq)
{
    struct virtio_serial *s = vser_of(vq->v);

    for (uint32_t i = 0; i < s->max_ports; i++)
        vser_tell(&s->slots[i], 0);
}

/* ---- from the guest ---- */

static void driver_ready(struct virtio_serial *s, uint16_t value)
{
    if (!value) {
        log_guest("virtio-serial '%s': the driver failed to initialise", s->v.dev->obj.id);
        return;
    }
    s->driver_ready = true;
    for (uint32_t i = 0; i < s->max_ports; i++)
        if (s->slots[i].port)
            vser_tell(&s->slots[i], VSER_TELL_ADD);
}

static void port_ready(struct vser_slot *sl, uint16_t value)
{
    struct vser_port *p = sl->port;

    if (!value) {
        log_guest("virtio-serial '%s': the driver failed to add port %u", sl->s->v.dev->obj.id, sl->nr);
        return;
    }
    sl->guest_ready = true;
    /* Only "open" is said: closed is what a port is from the beginning. */
    vser_tell(sl, (vser_is_console(p) ? VSER_TELL_CONSOLE : 0) | (p->name && p->name[0] ? VSER_TELL_NAME : 0) |
                  (vser_host_open(p) ? VSER_TELL_OPEN : 0));
}

static void ctl_message(struct virtio_serial *s, const struct virtio_console_control *c)
{
    uint32_t nr = le32toh(c->id);
    uint16_t event = le16toh(c->event), value = le16toh(c->value);
    struct vser_slot *sl;

    if (event == VIRTIO_CONSOLE_DEVICE_READY) {
        driver_ready(s, value);
        return;
    }
    sl = nr < s->max_ports ? &s->slots[nr] : NULL;
    if (!sl || !sl->port || !sl->known) {
        /* A driver may still talk of a port that was just unplugged. */
        log_guest("virtio-serial '%s': control message %u for port %u, which does not exist", s->v.dev->obj.id, event, nr);
        return;
    }
    switch (event) {
    case VIRTIO_CONSOLE_PORT_READY: port_ready(sl, value); break;
    case VIRTIO_CONSOLE_PORT_OPEN: vser_set_guest_open(sl, value != 0); break;
    default: log_guest("virtio-serial '%s': control message %u is not one of a driver", s->v.dev->obj.id, event); break;
    }
}

static bool serve_ctl(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_console_control c;
    bool whole = vec_to_buf(&e->out, 0, &c, sizeof c) == sizeof c;

    virtq_push(e, 0);
    if (whole)
        ctl_message(vser_of(vq->v), &c);
    else
        log_guest("virtio-serial '%s': a control message that is too short", vq->v->dev->obj.id);
    return true;
}

void vser_ctl_received(struct virtq *vq)
{
    virtq_drain(vq, serve_ctl);
}
