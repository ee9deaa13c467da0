/* SPDX-License-Identifier: MIT */
/*
 * Memory regions: a tree of containers, RAM, MMIO and aliases; flattened into a view that readers use without a lock.
 * Topology changes: any thread under the topology lock (taken inside); they publish a new view (RCU).
 */
#ifndef MEM_REGION_H
#define MEM_REGION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/list.h"

struct domain;
struct region;
struct ram;
struct doorbell;

/* Handlers run with the region's domain lock held unless lockless. @off is within the region, natural sizes 1, 2, 4, 8. */
struct mmio_ops {
    uint64_t (*read)(void *opaque, uint64_t off, unsigned size);
    void (*write)(void *opaque, uint64_t off, uint64_t v, unsigned size);
    /* Access sizes the handlers take (0: 1 and 8). Larger ones are split; smaller ones widened (a write reads first: where a
     * read has side effects take bytes, or refuse them by valid_min). */
    uint8_t min, max;
    uint8_t valid_min, valid_max;   /* sizes the bus accepts (0: 1 and 8); others are a bus error */
    bool unaligned;             /* handlers take unaligned offsets; else unaligned accesses are a bus error */
    bool lockless;              /* handlers are thread safe by themselves */
    bool big_endian;
};

/* A @size of UINT64_MAX means the whole 64-bit space. */
enum region_kind { REGION_CONTAINER, REGION_MMIO, REGION_RAM, REGION_ROM, REGION_ROMD /* reads RAM, writes MMIO (flash) */, REGION_ALIAS };

struct region {
    const char *name;               /* borrowed or static */
    enum region_kind kind;
    uint64_t size, off;             /* off: in the parent */
    int prio;
    bool enabled, romd_on;
    struct region *parent;
    struct list children, sibling;
    const struct mmio_ops *ops;
    void *opaque;
    struct domain *dom;
    struct ram *ram;                /* RAM, ROM, ROMD */
    uint64_t ram_off;
    struct region *alias;           /* ALIAS: target and start in it */
    uint64_t alias_off;
    struct doorbell *_Atomic doorbells;     /* lock-free writes, see region_doorbell() */
    /* Accepts message-signalled interrupts of devices (IMSIC); else NULL. ANY, lock-free. Set before the region is added. */
    void (*msi)(void *opaque, uint64_t off, uint32_t data);
};

void region_init_container(struct region *r, const char *name, uint64_t size);
void region_init_mmio(struct region *r, const char *name, uint64_t size, const struct mmio_ops *ops, void *opaque, struct domain *dom);
void region_init_ram(struct region *r, const char *name, struct ram *ram, uint64_t ram_off, uint64_t size);
void region_init_rom(struct region *r, const char *name, struct ram *ram, uint64_t ram_off, uint64_t size);
void region_init_romd(struct region *r, const char *name, struct ram *ram, uint64_t size, const struct mmio_ops *ops, void *opaque, struct domain *dom);
void region_init_alias(struct region *r, const char *name, struct region *of, uint64_t off, uint64_t size);
/*
 * Takes it and its children out of the tree and waits until no reader can be inside. If the caller holds a domain lock, it
 * is released while waiting: a reader may be waiting for it. Not inside an RCU section. Zero-initialised regions are fine.
 */
void region_fini(struct region *r);

/* Higher @prio wins where siblings overlap; of equal ones the one added last. What leaves the parent's window is cut off. */
void region_add(struct region *parent, uint64_t off, struct region *r, int prio);
void region_del(struct region *r);
void region_move(struct region *r, uint64_t off);
void region_set_enabled(struct region *r, bool on);
void region_set_size(struct region *r, uint64_t size);
void region_romd_set(struct region *r, bool reads_ram);
/* Several changes, one new view. Nests. The topology lock is held between the two: no domain is locked there. ANY. */
void region_batch_begin(void);
void region_batch_end(void);

/*
 * Doorbell: a write of exactly @size bytes at @off of an MMIO region is served without its lock: the value is stored in
 * @d and fn is called on the writing thread (it must only latch and post).
 */
struct doorbell {
    struct doorbell *_Atomic next;  /* private */
    uint64_t off; unsigned size;
    bool match; uint64_t datamatch;     /* only this value */
    void (*fn)(void *arg, uint64_t v);
    void *arg;
};
/* It stays until the region is finished. ANY */
void region_doorbell(struct region *r, struct doorbell *d);

#endif
