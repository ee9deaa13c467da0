/* SPDX-License-Identifier: MIT */
/*
 * Address spaces as the CPU and devices see them: a root region flattened into a sorted array, published by RCU.
 * A thread that reads views calls rcu_thread_register() (base/rcu.h) once; between view_read_lock/unlock pointers stay good.
 */
#ifndef MEM_VIEW_H
#define MEM_VIEW_H

#include "base/rcu.h"
#include "mem/region.h"
#include "mem/ram.h"

struct view_range {
    uint64_t start, size;           /* guest physical */
    struct region *region;          /* leaf */
    uint64_t region_off;            /* of start in the leaf */
    uint8_t *host;                  /* RAM, ROM, ROMD in read mode: host address of start; else NULL */
    struct ram *ram;                /* with host: and start's offset in it */
    uint64_t ram_off;
    bool writable;                  /* host may be written */
};
struct view {
    uint64_t gen;
    size_t n, big;                  /* ranges; index of the largest RAM range (n: none), tried first */
    struct view_range *r;           /* sorted by start, disjoint */
    struct rcu_head rcu;
};

struct address_space {
    const char *name;
    struct region *root;
    struct view *_Atomic view;
    struct list listeners, link;     /* of view_listener; of all spaces */
};

/* The machine's own: system memory. */
extern struct address_space as_memory;
void address_space_init(struct address_space *as, const char *name, struct region *root);
void address_space_fini(struct address_space *as);

/* Within an RCU read section. */
static inline struct view *view_get(struct address_space *as) { return atomic_load_explicit(&as->view, memory_order_acquire); }
/*
 * A vCPU keeps host pointers in its TLB beyond its section: its listener has it drop them before its next rcu_quiescent(). RAM is
 * freed only after that.
 */
/* The range that holds @addr, NULL if nothing is there. */
const struct view_range *view_lookup(const struct view *v, uint64_t addr);

/*
 * Accesses of 1, 2, 4, 8 bytes (MMIO) or any length (RAM parts) at a guest physical address. False: bus error (nothing
 * there, or the device refused the size). Values are little endian host integers. May take a domain lock: the caller holds
 * none. Takes its own RCU section. VCPU, qtest, gdb.
 */
bool as_read(struct address_space *as, uint64_t addr, uint64_t *v, unsigned size) MUST_CHECK;
bool as_write(struct address_space *as, uint64_t addr, uint64_t v, unsigned size) MUST_CHECK;
/* Bulk, as qtest's read/write and the monitor's xp: MMIO is accessed in the largest sizes it takes. What cannot be read is
 * zero and what cannot be written is skipped; the rest is done, and the result is false. */
bool as_read_bytes(struct address_space *as, uint64_t addr, void *buf, uint64_t n) MUST_CHECK;
bool as_write_bytes(struct address_space *as, uint64_t addr, const void *buf, uint64_t n) MUST_CHECK;
/* One leaf access when the range is known already (vCPU slow path). RCU section held by the caller. */
bool view_range_read(const struct view_range *r, uint64_t addr, uint64_t *v, unsigned size) MUST_CHECK;
bool view_range_write(const struct view_range *r, uint64_t addr, uint64_t v, unsigned size) MUST_CHECK;
/* Load a blob into RAM or ROM (boot loaders): writes through read-only. */
bool as_load(struct address_space *as, uint64_t addr, const void *buf, uint64_t n) MUST_CHECK;

/* Told after a new view is published: vCPUs drop TLBs. Called with the topology lock held; ANY thread. */
struct view_listener { struct list link; void (*changed)(struct view_listener *); };
void view_listen(struct address_space *as, struct view_listener *l);
void view_unlisten(struct address_space *as, struct view_listener *l);
/* Text of `info mtree` / `info mtree -f`. Main loop. */
struct str;
void region_dump(struct str *out, bool flat);

#endif
