/* SPDX-License-Identifier: MIT */
/*
 * Console device (VIRTIO 1.2, 5.3): the controller and the bus of ports that it brings. Thread: everything here runs in the
 * controller's domain, which its ports share, unless it says main loop.
 */
#ifndef HW_VIRTIO_VIRTIO_SERIAL_H
#define HW_VIRTIO_VIRTIO_SERIAL_H

#include "chardev/chr.h"
#include "hw/virtio/virtio.h"

#define VSER_QUEUE_SIZE 128
#define VSER_MAX_PORTS (VIRTIO_QUEUE_MAX / 2 - 1)
#define VSER_NAME_MAX 255

enum { VIRTIO_CONSOLE_F_SIZE = 0, VIRTIO_CONSOLE_F_MULTIPORT = 1, VIRTIO_CONSOLE_F_EMERG_WRITE = 2 };   /* 5.3.3 */

/* 5.3.4, little endian. */
struct virtio_console_config {
    uint16_t cols, rows;                /* with F_SIZE */
    uint32_t max_nr_ports, emerg_wr;
};
static_assert(sizeof(struct virtio_console_config) == 12, "5.3.4");

/* 5.3.6.2 */
struct virtio_console_control { uint32_t id; uint16_t event, value; };
static_assert(sizeof(struct virtio_console_control) == 8, "5.3.6.2");
enum {
    VIRTIO_CONSOLE_DEVICE_READY = 0, VIRTIO_CONSOLE_DEVICE_ADD = 1, VIRTIO_CONSOLE_DEVICE_REMOVE = 2,
    VIRTIO_CONSOLE_PORT_READY = 3, VIRTIO_CONSOLE_CONSOLE_PORT = 4, VIRTIO_CONSOLE_RESIZE = 5, VIRTIO_CONSOLE_PORT_OPEN = 6,
    VIRTIO_CONSOLE_PORT_NAME = 7,
};

struct virtio_serial;
struct vser_slot;

struct vser_bus {
    struct bus bus;                     /* first */
    struct virtio_serial *s;
};
extern const struct bus_class vser_bus_class;

/* A port: `virtconsole` and `virtserialport`. */
struct vser_port {
    struct dev dev;                     /* first */
    struct obj *chardev;
    char *name;
    uint32_t nr;                        /* UINT32_MAX: the first free one */
    struct vser_slot *slot;             /* while realized */
    struct chr_front chr;
};

/* What the guest was not told yet, in the order in which it is. */
enum { VSER_TELL_REMOVE = 1, VSER_TELL_ADD = 2, VSER_TELL_CONSOLE = 4, VSER_TELL_NAME = 8, VSER_TELL_OPEN = 16, VSER_TELL_ALL = 31 };

/* A port number of the controller, whether a port is there or not: what is between the guest and it. */
struct vser_slot {
    struct virtio_serial *s;
    struct vser_port *port;             /* NULL: none */
    struct virtq *rx, *tx;
    uint32_t nr;
    uint8_t tell;                       /* VSER_TELL_* */
    bool known;                         /* the guest was told that it exists */
    bool guest_ready, guest_open;       /* the driver took it up; a process holds it */
    struct vq_elem *held;               /* of tx: a buffer of which the back end has taken held_off bytes so far */
    uint64_t held_off;
};

struct virtio_serial {
    struct virtio_dev v;                /* first */
    uint32_t max_ports;
    bool emergency_write;
    struct vser_bus *bus;
    struct vser_slot *slots;            /* of max_ports */
    struct virtq *ctl_rx, *ctl_tx;      /* NULL with one port: no multiport protocol then */
    bool driver_ready;                  /* DEVICE_READY came since the reset */
};

static inline struct virtio_serial *vser_of(struct virtio_dev *v) { return (struct virtio_serial *)v; }
static inline bool vser_multiport(const struct virtio_serial *s) { return virtio_has(&s->v, VIRTIO_CONSOLE_F_MULTIPORT); }
bool vser_is_console(const struct vser_port *p);
/* The far end of the port is there. A console's always is. */
bool vser_host_open(const struct vser_port *p);

/* virtio_serial_ctl.c */
void vser_ctl_received(struct virtq *vq);       /* handlers of the control queues */
void vser_ctl_room(struct virtq *vq);
void vser_tell(struct vser_slot *sl, uint8_t what);     /* queues VSER_TELL_* and sends what can be sent */
void vser_set_guest_open(struct vser_slot *sl, bool open);

/* virtio_serial_port.c */
void vser_port_received(struct virtq *vq);      /* handlers of a port's queues */
void vser_port_room(struct virtq *vq);
void vser_retry(struct vser_slot *sl);          /* the held buffer is tried again */
void vser_forget(struct vser_slot *sl);         /* the held buffer goes back unserved */

#endif
