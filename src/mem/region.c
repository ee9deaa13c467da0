/* SPDX-License-Identifier: MIT */
#include "mem/region.h"

#include <assert.h>
#include <pthread.h>

#include "base/bits.h"
#include "loop/loop.h"
#include "mem/mem_int.h"

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static unsigned batch_depth;    /* under lock */
static bool changed;            /* since the last rebuild */

void topology_lock(void)
{
    pthread_mutex_lock(&lock);
}

void topology_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

void region_batch_begin(void)
{
    topology_lock();
    batch_depth++;
}

void region_batch_end(void)
{
    assert(batch_depth);
    if (--batch_depth == 0 && changed) {
        changed = false;
        views_rebuild();
    }
    topology_unlock();
}

/* ---- construction: no lock, nobody else knows the region yet ---- */
static void region_init(struct region *r, const char *name, enum region_kind kind, uint64_t size)
{
    *r = (struct region){ .name = name, .kind = kind, .size = size, .enabled = true, .romd_on = kind == REGION_ROMD };
    list_init(&r->children);
    list_init(&r->sibling);
}

void region_init_container(struct region *r, const char *name, uint64_t size)
{
    region_init(r, name, REGION_CONTAINER, size);
}

void region_init_mmio(struct region *r, const char *name, uint64_t size, const struct mmio_ops *ops, void *opaque,
                      struct domain *dom)
{
    region_init(r, name, REGION_MMIO, size);
    r->ops = ops;
    r->opaque = opaque;
    r->dom = dom;
}

static void region_init_backed(struct region *r, enum region_kind kind, const char *name, struct ram *ram,
                               uint64_t ram_off, uint64_t size)
{
    assert(range_ok(ram_off, size, ram->size));
    region_init(r, name, kind, size);
    r->ram = ram;
    r->ram_off = ram_off;
}

void region_init_ram(struct region *r, const char *name, struct ram *ram, uint64_t ram_off, uint64_t size)
{
    region_init_backed(r, REGION_RAM, name, ram, ram_off, size);
}

void region_init_rom(struct region *r, const char *name, struct ram *ram, uint64_t ram_off, uint64_t size)
{
    region_init_backed(r, REGION_ROM, name, ram, ram_off, size);
}

void region_init_romd(struct region *r, const char *name, struct ram *ram, uint64_t size, const struct mmio_ops *ops,
                      void *opaque, struct domain *dom)
{
    region_init_backed(r, REGION_ROMD, name, ram, 0, size);
    r->ops = ops;
    r->opaque = opaque;
    r->dom = dom;
}

void region_init_alias(struct region *r, const char *name, struct region *of, uint64_t off, uint64_t size)
{
    region_init(r, name, REGION_ALIAS, size);
    r->alias = of;
    r->alias_off = off;
}

/* ---- the tree ---- */
/* Children are kept in the order in which they win: by priority, then the youngest first. */
static void region_link(struct region *parent, struct region *r)
{
    struct region *c;
    list_for_each(c, &parent->children, sibling) {
        if (r->prio >= c->prio) {
            list_insert_before(&c->sibling, &r->sibling);
            return;
        }
    }
    list_push(&parent->children, &r->sibling);
}

void region_add(struct region *parent, uint64_t off, struct region *r, int prio)
{
    region_batch_begin();
    assert(!r->parent && r != parent);
    r->off = off;
    r->prio = prio;
    r->parent = parent;
    region_link(parent, r);
    changed = true;
    region_batch_end();
}

void region_del(struct region *r)
{
    region_batch_begin();
    if (r->parent) {
        list_del(&r->sibling);
        r->parent = NULL;
        changed = true;
    }
    region_batch_end();
}

void region_move(struct region *r, uint64_t off)
{
    region_batch_begin();
    changed |= r->off != off;
    r->off = off;
    region_batch_end();
}

void region_set_enabled(struct region *r, bool on)
{
    region_batch_begin();
    changed |= r->enabled != on;
    r->enabled = on;
    region_batch_end();
}

void region_set_size(struct region *r, uint64_t size)
{
    region_batch_begin();
    assert(!r->ram || range_ok(r->ram_off, size, r->ram->size));
    changed |= r->size != size;
    r->size = size;
    region_batch_end();
}

void region_romd_set(struct region *r, bool reads_ram)
{
    region_batch_begin();
    changed |= r->romd_on != reads_ram;
    r->romd_on = reads_ram;
    region_batch_end();
}

void region_fini(struct region *r)
{
    if (!r->children.next)
        return;
    bool was_in = r->parent != NULL;
    region_batch_begin();
    region_del(r);
    struct region *c;
    list_for_each(c, &r->children, sibling)
        region_del(c);
    region_batch_end();
    atomic_store_explicit(&r->doorbells, NULL, memory_order_release);
    if (!was_in)
        return;
    struct domain *held = domain_current();
    if (held)
        domain_unlock(held);
    rcu_synchronize();
    if (held)
        domain_lock(held);
}

/* ---- doorbells ---- */
void region_doorbell(struct region *r, struct doorbell *d)
{
    topology_lock();
    atomic_store_explicit(&d->next, atomic_load(&r->doorbells), memory_order_relaxed);
    atomic_store_explicit(&r->doorbells, d, memory_order_release);
    topology_unlock();
}

