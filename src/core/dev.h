/* SPDX-License-Identifier: MIT */
/* Devices and buses: what a front end declares, and its life: new -> options -> realize -> (reset...) -> unrealize. */
#ifndef CORE_DEV_H
#define CORE_DEV_H

#include "core/obj.h"

struct bus;
struct dev;
struct domain;
struct loop;
struct state_desc;
struct irq;

enum reset_kind { RESET_COLD, RESET_WARM, RESET_BUS, RESET_FUNCTION /* FLR, port reset */ };

struct dev_class {
    struct obj_class obj;
    const char *cat;                        /* "Storage", "Network", "USB", "Input", "Display", "Sound", "Misc", "CPU", "Bridge" */
    const struct bus_class *plugs_into;     /* NULL: stands alone (board devices) */
    /* realize and unrealize hold no domain lock: nothing else can reach the device yet / any more.
     * Base classes with bus logic run theirs through bus attach and detach. */
    bool (*realize)(struct dev *, struct err *);
    void (*unrealize)(struct dev *);        /* exact mirror of realize; runs with the device quiet */
    void (*reset)(struct dev *, enum reset_kind);   /* phase 1: own state only. Domain lock held */
    void (*reset_out)(struct dev *);        /* phase 2: outputs (irq lines, links) follow the state */
    void (*co_quiesce)(struct dev *);       /* until nothing is in flight; coroutine; NULL: never has anything in flight */
    const struct state_desc *state;         /* saved state; NULL needs state_none */
    struct irq *(*outputs)(struct dev *, unsigned *n);     /* its lines, for tests; inherited. NULL: none */
    const char *fw_name;                    /* of a board device, in the paths of firmware; NULL: the class's name */
    const char *state_none;                 /* the written reason why nothing is saved */
    bool hotplug;                           /* may be plugged and unplugged while the machine runs (if the bus can) */
};

/* A device; always the first member (through its bus's base struct). */
struct dev {
    struct obj obj;
    struct bus *bus;                /* where it is plugged; NULL for board devices */
    struct list on_bus;             /* in bus->devs */
    struct list buses;              /* of struct bus, that it provides */
    struct list link;               /* in the list of realized devices, parents first */
    struct loop *home;              /* where its own domain lives; NULL: the main loop. Set by options (iothread=) before realize */
    struct domain *dom;             /* its domain: own if root device, else the parent's. Set before attach and realize */
    bool owns_dom, realized, hotplugged, unplug_pending;
    bool leaving;                   /* it is being removed: what waits for the machine to run is not begun any more. Domain lock */
    int64_t bootindex;              /* -1: none. By dev_boot_set() */
    char boot_part[24];             /* what of it is booted: the end of its firmware path */
};

struct bus_class {
    struct obj_class obj;
    const struct prop *slot_props;          /* addr=, port=, scsi-id=, lun=: rows over the device's struct, listed in its help */
    bool (*attach)(struct bus *, struct dev *, struct err *);   /* finds or checks the slot. Before the device's realize */
    void (*detach)(struct bus *, struct dev *);
    /* After the device's realize (e.g. tell the guest). May be NULL */
    bool (*plugged)(struct bus *, struct dev *, struct err *);
    /* Before quiesce and unrealize: from its return on the guest cannot reach the device any more. No lock held. May be NULL */
    void (*hide)(struct bus *, struct dev *);
    /* The slot's part of a device's reset (configuration space), before the device's own. Its domain lock held. May be NULL */
    void (*reset_dev)(struct bus *, struct dev *, enum reset_kind);
    /* The guest is asked to let go (hot unplug); NULL: at once. Calls dev_unplug_done() later */
    bool (*unplug_request)(struct bus *, struct dev *, struct err *);
    void (*path)(const struct dev *, char *buf, size_t n);      /* stable path element, for snapshots */
    /* Its element of the path by which firmware knows the device, "/NAME@PLACE" (IEEE 1275, 3.2.1.1). NULL: none */
    void (*fw_path)(const struct dev *, struct str *out);
    bool (*full)(const struct bus *);       /* no slot is free: skipped when the place is inferred. May be NULL */
    void (*reset)(struct bus *, enum reset_kind);
    void (*show)(const struct bus *, const struct dev *, struct str *out);  /* more lines for `info qtree`, not indented. May be NULL */
    const char *hotplug_hint;       /* what to add at the start so that devices can come while the machine runs; NULL: nothing can */
    const char *brought_by;         /* a device that brings such a bus, for messages; NULL: boards only */
    bool shares_domain;             /* devices on it share the domain of the bus's owner (private buses) */
};

struct bus {
    struct obj obj;                 /* id is the bus name: "pcie.0", "foo.0" */
    struct dev *owner;              /* NULL for the board's root buses */
    struct list devs;               /* of struct dev, in plug order */
    struct list of_owner;
    unsigned n_devs;
    bool hotplug;
    unsigned serial;                /* counts up in the order in which buses came */
};

extern const struct obj_class dev_obj_class;   /* abstract root of every device class */
extern const struct obj_class bus_obj_class;

#define DEV_CLASS(o) ((const struct dev_class *)((const struct dev *)(o))->obj.cls)
#define BUS_CLASS(b) ((const struct bus_class *)(b)->obj.cls)

/*
 * -device / device_add: finds the class, the bus (bus=NAME, the ID of a device that brings one, "ID.N"; else the first of the
 * class's kind with a free slot, that takes devices while the machine runs where it does), attaches,
 * checks, realizes. @opts holds "driver". Everything undone on failure. Returns a borrowed pointer. Main loop.
 */
struct dev *dev_create_from_opts(json_t *opts, bool hotplug, struct err *e) MUST_CHECK;
/* Board code: a device of a class on @bus (NULL: none), not yet realized; then obj_set(), then dev_realize(). Borrowed. */
struct dev *dev_new(const struct dev_class *c, struct bus *bus, const char *id, struct err *e) MUST_CHECK;
bool dev_realize(struct dev *d, struct err *e) MUST_CHECK;
/* Quiesce, unrealize, detach, leave the tree. Runs on the main loop; may wait: a coroutine. */
void co_dev_remove(struct dev *d);
/* The same for a realized device that nobody has used yet (its maker's realize fails later): has no children, waits for nothing. */
void dev_remove_unused(struct dev *d);
/* As a user asks: device_del. Emits DEVICE_DELETED when done. */
bool dev_unplug_request(struct dev *d, struct err *e) MUST_CHECK;
void dev_unplug_done(struct dev *d);
/* A bus provided by @owner (or the board) and named @name ("foo.0"). The tree owns it; it dies with its owner. */
struct bus *bus_new(const struct bus_class *c, struct dev *owner, const char *name, struct err *e) MUST_CHECK;
/* The name of the n-th bus of a device: "ID.N", or "class.N" ("scsi.0") with the first N that is free where it has no id. Main loop. */
void bus_free_name(const struct bus_class *c, const struct dev *owner, unsigned n, char *buf, size_t len);
struct bus *bus_find(const char *name);
/* Stable path of a device through all its buses: "pcie.0/02.0/scsi/0:1". Caller frees. */
char *dev_path(const struct dev *d);
/*
 * In a front end's realize: its place in the order in which firmware tries devices (-1: none), and what of it is booted, as the end of its
 * firmware path ("/disk@0,0"; "" where its bus says all). False: another device has that place.
 */
bool dev_boot_set(struct dev *d, int64_t index, const char *part, struct err *e) MUST_CHECK;
/* Both reset phases over @d and all below it. Domain locks are taken inside; none may be held. Main loop. */
void dev_reset_tree(struct dev *d, enum reset_kind k);
void bus_reset_tree(struct bus *b, enum reset_kind k);
/* The lines that @d drives, *@n of them; NULL: none that are known. Main loop. */
struct irq *dev_outputs(struct dev *d, unsigned *n);
/* Every realized device of the machine, parents first. */
bool dev_each(bool (*fn)(struct dev *, void *), void *arg);
/* QMP event hook for DEVICE_DELETED; set by ctl. */
extern void (*dev_deleted_event)(const char *id, const char *path);

#endif
