/* SPDX-License-Identifier: MIT */
/*
 * The ports of a console device (VIRTIO 1.2, 5.3.6): the bus, `virtconsole` and `virtserialport`, and bytes between rings and
 * chardevs. Nothing is lost on the way: a chardev that is full keeps the guest's buffer waiting, a guest without buffers
 * keeps the chardev from reading.
 */
#include <stdio.h>
#include "base/log.h"
#include "hw/virtio/virtio_serial.h"

#define RX_CHUNK 65536u

struct vser_port_class { struct dev_class dev; bool console; };

bool vser_is_console(const struct vser_port *p)
{
    return ((const struct vser_port_class *)p->dev.obj.cls)->console;
}

bool vser_host_open(const struct vser_port *p)
{
    return vser_is_console(p) || chr_is_open(&p->chr);
}

/* ---- from the guest ---- */

/* Hands on what is left of the held buffer; true when it is done with. */
static bool hand_on(struct vser_slot *sl)
{
    struct vq_elem *e = sl->held;
    struct vser_port *p = sl->port;
    uint64_t skip = sl->held_off;

    for (unsigned i = 0; i < e->out.n && p && vser_host_open(p); i++) {
        size_t len = e->out.iov[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        size_t want = len - skip, n = chr_write(&p->chr, (const char *)e->out.iov[i].iov_base + skip, want);
        sl->held_off += n;
        if (n < want)
            return false;
        skip = 0;
    }
    sl->held = NULL;
    virtq_push(e, 0);
    return true;
}

void vser_retry(struct vser_slot *sl)
{
    struct vq_elem *e = sl->held;

    if (!e || sl->s->v.quiesced)
        return;
    virtq_unpark(e);
    if (!virtq_remap(e)) {
        vser_forget(sl);
        return;
    }
    if (hand_on(sl))
        virtq_kick(sl->tx);
    else
        virtq_park(e);
}

void vser_forget(struct vser_slot *sl)
{
    struct vq_elem *e = sl->held;

    sl->held = NULL;
    sl->held_off = 0;
    if (e)
        virtq_push(e, 0);
}

static struct vser_slot *slot_of(struct virtq *vq)
{
    struct virtio_serial *s = vser_of(vq->v);

    return &s->slots[vq->index < 2 ? 0 : (unsigned)vq->index / 2 - 1];
}

static bool serve(struct virtq *vq, struct vq_elem *e)
{
    struct vser_slot *sl = slot_of(vq);

    sl->held = e;
    sl->held_off = 0;
    if (hand_on(sl))
        return true;
    virtq_park(e);
    return false;
}

void vser_port_received(struct virtq *vq)
{
    if (!slot_of(vq)->held)
        virtq_drain(vq, serve);
}

/* ---- to the guest ---- */

void vser_port_room(struct virtq *vq)
{
    struct vser_port *p = slot_of(vq)->port;

    if (p)
        chr_accept(&p->chr);
}

/* The next buffer that has room; what has none goes back. */
static struct vq_elem *pop_room(struct virtq *vq)
{
    struct vq_elem *e;

    while ((e = virtq_pop(vq)) && !e->in.len) {
        log_guest("virtio-serial '%s': queue %u: a buffer without room", vq->v->dev->obj.id, vq->index);
        virtq_push(e, 0);
    }
    return e;
}

static size_t port_can_read(void *arg)
{
    struct vser_port *p = arg;
    struct vser_slot *sl = p->slot;
    struct vq_elem *e;
    size_t room;

    if (!sl->guest_open)
        return 0;
    e = pop_room(sl->rx);
    if (!e) {
        if (virtq_empty(sl->rx))
            return 0;
        e = pop_room(sl->rx);
        if (!e)
            return 0;
    }
    room = MIN(e->in.len, RX_CHUNK);
    virtq_unpop(e);
    return room;
}

static void port_read(void *arg, const uint8_t *buf, size_t n)
{
    struct vser_port *p = arg;
    struct vq_elem *e;

    while (n && (e = pop_room(p->slot->rx))) {
        size_t k = vec_from_buf(&e->in, 0, buf, n);
        virtq_push(e, (uint32_t)k);
        buf += k;
        n -= k;
    }
    if (n)
        log_guest("virtio-serial '%s': port %u: a buffer shrank after it was made available", p->slot->s->v.dev->obj.id, p->slot->nr);
}

static void port_event(void *arg, enum chr_event ev)
{
    struct vser_port *p = arg;

    if (vser_is_console(p) || (ev != CHR_OPENED && ev != CHR_CLOSED))
        return;
    if (ev == CHR_CLOSED)
        vser_retry(p->slot);                        /* nobody will take it: it goes back */
    if (p->slot->guest_ready)
        vser_tell(p->slot, VSER_TELL_OPEN);
}

static void port_writable(void *arg)
{
    struct vser_port *p = arg;

    vser_retry(p->slot);
}

/* ---- the bus ---- */

/* The first number without a port, from @first on; max_ports: none. */
static uint32_t free_slot(const struct virtio_serial *s, uint32_t first)
{
    while (first < s->max_ports && s->slots[first].port)
        first++;
    return first;
}

static bool bus_full(const struct bus *b)
{
    const struct virtio_serial *s = ((const struct vser_bus *)b)->s;

    return free_slot(s, 1) >= s->max_ports && s->slots[0].port;
}

/* Port 0 is the console of drivers that know only one port: it is given to other ports where asked for by number only. */
static bool bus_attach(struct bus *b, struct dev *d, struct err *e)
{
    struct virtio_serial *s = ((struct vser_bus *)b)->s;
    struct vser_port *p = (struct vser_port *)d;

    if (p->nr == UINT32_MAX) {
        p->nr = free_slot(s, vser_is_console(p) ? 0 : 1);
        if (p->nr < s->max_ports)
            return true;
        err_set(e, ERR_BUSY, "bus '%s' has no free port for '%s'", b->obj.id, d->obj.cls->name);
        return err_hint(e, s->max_ports == 1 ? "its one port is for a virtconsole; give the controller max_ports=2 or more" :
                           "the controller has max_ports=%u: raise it, or add another virtio-serial", s->max_ports);
    }
    if (p->nr >= s->max_ports) {
        err_set(e, ERR_VALUE, "nr=%u: bus '%s' has ports 0 to %u", p->nr, b->obj.id, s->max_ports - 1);
        return err_hint(e, "raise max_ports of the controller");
    }
    if (p->nr == 0 && !vser_is_console(p)) {
        err_set(e, ERR_VALUE, "nr=0: the first port is for a virtconsole");
        return err_hint(e, "leave nr= out to take the next free port");
    }
    if (s->slots[p->nr].port) {
        err_set(e, ERR_BUSY, "port %u of bus '%s' is taken by '%s'", p->nr, b->obj.id, s->slots[p->nr].port->dev.obj.id);
        return err_hint(e, "leave nr= out to take the next free port");
    }
    return true;
}

static void bus_path(const struct dev *d, char *buf, size_t n)
{
    snprintf(buf, n, "virtio-serial/%u", ((const struct vser_port *)d)->nr);
}

static void bus_show(const struct bus *b, const struct dev *d, struct str *out)
{
    const struct vser_slot *sl = ((const struct vser_port *)d)->slot;

    str_printf(out, "port %u, guest %s, host %s, throttle %s\n", sl->nr, sl->guest_open ? "on" : "off",
               vser_host_open(sl->port) ? "on" : "off", sl->held ? "on" : "off");
}

const struct bus_class vser_bus_class = {
    .obj = { .name = "virtio-serial-bus", .desc = "Ports of a virtio console device", .base = &bus_obj_class,
             .size = sizeof(struct vser_bus) },
    .attach = bus_attach, .full = bus_full, .path = bus_path, .show = bus_show, .shares_domain = true,
    .brought_by = "virtio-serial-pci",
};
OBJ_CLASS(&vser_bus_class.obj);

/* ---- ports: realize and unrealize are on the main loop without a lock ---- */

static bool port_realize(struct dev *d, struct err *e)
{
    struct vser_port *p = (struct vser_port *)d;
    struct virtio_serial *s = ((struct vser_bus *)d->bus)->s;
    struct vser_slot *sl = &s->slots[p->nr];

    if (p->name && strlen(p->name) > VSER_NAME_MAX)
        return err_set(e, ERR_VALUE, "name= has %zu characters, the most is %d", strlen(p->name), VSER_NAME_MAX);
    p->slot = sl;
    p->chr = (struct chr_front){ .can_read = port_can_read, .read = port_read, .event = port_event, .writable = port_writable, .arg = p };
    if (!chr_connect(&p->chr, p->chardev, d->dom, d->obj.id, e))
        return false;
    domain_lock(d->dom);
    sl->port = p;
    if (vser_multiport(s))
        sl->guest_open = sl->guest_ready = false;
    chr_set_front_open(&p->chr, vser_is_console(p) || sl->guest_open);
    if (s->driver_ready)
        vser_tell(sl, VSER_TELL_ADD);
    domain_unlock(d->dom);
    return true;
}

static void port_unrealize(struct dev *d)
{
    struct vser_port *p = (struct vser_port *)d;
    struct vser_slot *sl = p->slot;

    domain_lock(d->dom);                            /* first: harts reach the link through the slot */
    vser_forget(sl);
    sl->port = NULL;
    if (vser_multiport(sl->s))
        sl->guest_ready = sl->guest_open = false;
    sl->tell = 0;
    if (sl->known) {
        sl->known = false;
        vser_tell(sl, VSER_TELL_REMOVE);
    }
    virtq_kick(sl->tx);                             /* what the guest still sends goes nowhere, but comes back */
    domain_unlock(d->dom);
    chr_disconnect(&p->chr);
}

static const struct prop port_props[] = {
    PROP_LINK(struct vser_port, chardev, "chardev", &chr_class, 0, "Character back end at the far end of the port"),
    PROP_STR(struct vser_port, name, "name", 0, "Name of the port in the guest: /dev/virtio-ports/NAME"),
    { .name = "nr", .doc = "Number of the port; the first free one if left out", .type = PROP_T_U32,
      PROP_OFF(struct vser_port, nr), .def = UINT32_MAX },
    PROP_END
};

#define PORT_STATE_NONE "what is between the guest and the port belongs to the controller's saved state"
#define PORT(cname, text, is_console, names)                                                                              \
    { .dev = { .obj = { .name = cname, .desc = text, .base = &dev_obj_class, .size = sizeof(struct vser_port),            \
                        .props = port_props, .aliases = names },                                                          \
               .cat = "Input", .plugs_into = &vser_bus_class, .realize = port_realize, .unrealize = port_unrealize,       \
               .state_none = PORT_STATE_NONE, .hotplug = true },                                                          \
      .console = is_console }

static const char *const console_names[] = { "virtio-console", NULL };
static const struct vser_port_class console_class = PORT("virtconsole", "Console on a virtio-serial bus (hvc0, hvc1...)", true, console_names);
static const struct vser_port_class serialport_class = PORT("virtserialport", "Serial port on a virtio-serial bus", false, NULL);
OBJ_CLASS(&console_class.dev.obj);
OBJ_CLASS(&serialport_class.dev.obj);
