/* SPDX-License-Identifier: MIT */
/*
 * Machines: what `-M NAME` builds. A machine class is an object class whose rows are the options of `-M NAME,...`; one
 * instance exists while the program runs. Main loop, except where said.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include <jansson.h>
#include "core/obj.h"
#include "core/run.h"
#include "mem/region.h"

struct machine;
struct rv_cpu;
struct hart_set;
struct ram;

struct machine_class {
    struct obj_class obj;               /* base: machine_base_class */
    unsigned max_cpus;                  /* 0: a machine without harts; -cpu only makes the model */
    uint64_t default_ram;               /* bytes; 0: no RAM unless -m asks for it */
    const char *default_cpu;            /* class name for `-cpu`, NULL if there are none */
    /* Builds the board: RAM is claimed and the CPU model made; devices are created, realized and placed. */
    bool (*build)(struct machine *, struct err *);
    /* Puts images and start states in place after every device was reset, vCPUs stopped. May fail when a file vanished. */
    bool (*load)(struct machine *, struct err *);
    /* Writes the device tree to the file @path. NULL: there is none. */
    bool (*dump_fdt)(struct machine *, const char *path, struct err *);
};

/* -smp, after the arithmetic. */
struct machine_smp { unsigned cpus, sockets, dies, clusters, cores, threads, max_cpus; };

struct machine {
    struct obj obj;                     /* first */
    /* -M rows common to all machines */
    char *kernel, *initrd, *append, *dtb, *dumpdtb, *firmware;
    struct obj *memory_backend;
    bool usb, mem_merge, dump_guest_core;
    int graphics, acpi;                 /* enum tri */
    /* filled by machine_create() */
    struct machine_smp smp;
    uint64_t ram_size;
    struct ram *ram;
    bool ram_owned;
    struct rv_cpu *cpu;                 /* model; counted */
    struct hart_set *harts;             /* NULL: no CPUs */
    struct region *memory;              /* root of as_memory */
    struct run_listener listener;
};
extern const struct obj_class machine_base_class;       /* abstract; names end in "-machine" for QOM, types as typed for -M */
#define MACHINE(m) ((struct machine *)(m))
#define MACHINE_CLASS(m) ((const struct machine_class *)((struct obj *)(m))->cls)

/*
 * Builds the machine that @opts describe ({"type": "virt", "aia": ..., "smp": {"cpus": 2}, "memory": {"size": ...},
 * "cpu": "rv64,v=off", "accel": "interp"}); NULL: what the command line collected. NULL with @e filled; then the
 * process is expected to end.
 */
struct machine *machine_create(json_t *opts, struct err *e) MUST_CHECK;
struct machine *machine_current(void);      /* NULL before and after */
/* Ends vCPU threads, removes every device, frees the machine. */
void machine_destroy(void);

/* Machine classes by the name typed after -M ("virt", "none"; QOM's "virt-machine" too). */
const struct machine_class *machine_class_find(const char *name);
bool machine_smp_parse(json_t *opts, const struct machine_class *c, struct machine_smp *smp, struct err *e) MUST_CHECK;

/* Front ends for `-serial`: the chardev for port @n, NULL: not connected. Takes the defaults into account. */
struct obj *machine_serial(unsigned n);

#endif
