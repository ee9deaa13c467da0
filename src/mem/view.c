/* SPDX-License-Identifier: MIT */
/* The tree of regions, flattened: what is seen at each address is decided here, once, and read without a lock. */
#include "mem/view.h"

#include <assert.h>
#include <stdlib.h>

#include "base/str.h"
#include "mem/mem_int.h"

struct address_space as_memory = { .name = "memory", .listeners = LIST_INIT(as_memory.listeners) };

static struct list spaces = LIST_INIT(spaces);      /* under the topology lock, as is all below */
static uint64_t last_gen;

struct list *views_all(void)
{
    return &spaces;
}

/* ---- flattening ---- */
struct flat { struct view_range *r; size_t n, cap; };

static void flat_insert(struct flat *f, size_t at, const struct view_range *r)
{
    if (f->n == f->cap) {
        f->cap = f->cap ? f->cap * 2 : 32;
        f->r = xrealloc(f->r, f->cap * sizeof(*f->r));
    }
    memmove(f->r + at + 1, f->r + at, (f->n - at) * sizeof(*f->r));
    f->r[at] = *r;
    f->n++;
}

/* The part [lo, hi) of leaf @g, whose first byte is at @base, as a range. */
static struct view_range leaf_range(struct region *g, wide base, wide lo, wide hi)
{
    struct view_range r;
    memset(&r, 0, sizeof(r));
    r.start = (uint64_t)lo;
    r.size = hi - lo > UINT64_MAX ? UINT64_MAX : (uint64_t)(hi - lo);
    r.region = g;
    r.region_off = (uint64_t)(lo - base);
    if (g->ram && (g->kind != REGION_ROMD || g->romd_on)) {
        r.ram = g->ram;
        r.ram_off = g->ram_off + r.region_off;
        r.host = g->ram->host + r.ram_off;
        r.writable = g->kind == REGION_RAM && !g->ram->readonly;
    }
    return r;
}

/* Shows leaf @g wherever [lo, hi) is still free. */
static void flat_fill(struct flat *f, struct region *g, wide base, wide lo, wide hi)
{
    size_t a = 0, b = f->n;
    while (a < b) {     /* first range that ends after lo */
        size_t m = (a + b) / 2;
        if ((wide)f->r[m].start + f->r[m].size <= lo)
            a = m + 1;
        else
            b = m;
    }
    for (; lo < hi; a++) {
        wide gap_end = a < f->n && f->r[a].start < hi ? (wide)f->r[a].start : hi;
        if (lo < gap_end) {
            struct view_range r = leaf_range(g, base, lo, gap_end);
            flat_insert(f, a++, &r);
        }
        if (gap_end == hi)
            return;
        lo = (wide)f->r[a].start + f->r[a].size;
    }
}

/* Renders @g, whose first byte is at @base, into the window [lo, hi). What is rendered first wins. */
static void flat_render(struct flat *f, struct region *g, wide base, wide lo, wide hi, unsigned depth)
{
    if (!g->enabled || depth > REGION_MAX_DEPTH)
        return;
    lo = MAX(lo, base);
    hi = MIN(hi, base + region_wide_size(g));
    if (lo >= hi)
        return;
    if (g->kind == REGION_ALIAS) {
        flat_render(f, g->alias, base - g->alias_off, lo, hi, depth + 1);
        return;
    }
    struct region *c;
    list_for_each(c, &g->children, sibling)
        flat_render(f, c, base + c->off, lo, hi, depth + 1);
    if (g->kind != REGION_CONTAINER)
        flat_fill(f, g, base, lo, hi);
}

static bool range_continues(const struct view_range *a, const struct view_range *b)
{
    return a->region == b->region && a->start + a->size == b->start && a->region_off + a->size == b->region_off &&
           (a->host ? a->host + a->size : NULL) == b->host && a->writable == b->writable;
}

static void flat_merge(struct flat *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) {
        if (n && range_continues(&f->r[n - 1], &f->r[i]))
            f->r[n - 1].size += f->r[i].size;
        else
            f->r[n++] = f->r[i];
    }
    f->n = n;
}

static struct view *view_build(struct region *root)
{
    struct flat f = { 0 };
    flat_render(&f, root, 0, 0, (wide)UINT64_MAX + 1, 0);
    flat_merge(&f);
    struct view *v = xnew(struct view);
    v->r = f.r;
    v->n = v->big = f.n;
    for (size_t i = 0; i < f.n; i++)
        if (f.r[i].host && (v->big == f.n || f.r[i].size > f.r[v->big].size))
            v->big = i;
    return v;
}

static void view_free(struct view *v)
{
    free(v->r);
    free(v);
}

static void view_free_rcu(struct rcu_head *h)
{
    view_free(container_of(h, struct view, rcu));
}

static bool view_same(const struct view *a, const struct view *b)
{
    if (!a || a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct view_range *x = &a->r[i], *y = &b->r[i];
        if (x->start != y->start || x->size != y->size || x->region != y->region || x->region_off != y->region_off ||
            x->host != y->host || x->writable != y->writable)
            return false;
    }
    return true;
}

static void space_rebuild(struct address_space *as)
{
    struct view *now = view_build(as->root), *old = atomic_load_explicit(&as->view, memory_order_relaxed);
    if (view_same(old, now)) {
        view_free(now);
        return;
    }
    now->gen = ++last_gen;
    atomic_store_explicit(&as->view, now, memory_order_release);
    struct view_listener *l;
    list_for_each(l, &as->listeners, link)
        l->changed(l);
    if (old)
        rcu_call(&old->rcu, view_free_rcu);
}

void views_rebuild(void)
{
    struct address_space *as;
    list_for_each(as, &spaces, link)
        space_rebuild(as);
}

/* ---- address spaces ---- */
void address_space_init(struct address_space *as, const char *name, struct region *root)
{
    topology_lock();
    as->name = name;
    as->root = root;
    if (!as->listeners.next)
        list_init(&as->listeners);
    list_push(&spaces, &as->link);
    space_rebuild(as);
    topology_unlock();
}

void address_space_fini(struct address_space *as)
{
    topology_lock();
    list_del(&as->link);
    struct view *old = atomic_exchange(&as->view, NULL);
    as->root = NULL;
    topology_unlock();
    if (old)
        rcu_call(&old->rcu, view_free_rcu);
}

void view_listen(struct address_space *as, struct view_listener *l)
{
    topology_lock();
    list_push(&as->listeners, &l->link);
    topology_unlock();
}

void view_unlisten(struct address_space *as, struct view_listener *l)
{
    topology_lock();
    list_del(&l->link);
    topology_unlock();
}

const struct view_range *view_lookup(const struct view *v, uint64_t addr)
{
    if (!v || !v->n)
        return NULL;
    if (v->big < v->n && addr - v->r[v->big].start < v->r[v->big].size)
        return &v->r[v->big];
    size_t a = 0, b = v->n;
    while (b - a > 1) {     /* the last range that starts at or before addr */
        size_t m = (a + b) / 2;
        if (v->r[m].start <= addr)
            a = m;
        else
            b = m;
    }
    return addr >= v->r[a].start && addr - v->r[a].start < v->r[a].size ? &v->r[a] : NULL;
}

