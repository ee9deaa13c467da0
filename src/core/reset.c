/* SPDX-License-Identifier: MIT */
/*
 * Two-phase reset: every device below takes its reset state first, then outputs follow, so that nobody sees a line driven
 * by a device that is about to change.
 */
#include "core/dev.h"

#include "loop/loop.h"

typedef void visit_fn(struct dev *d, enum reset_kind k);

static void visit_bus(struct bus *b, enum reset_kind k, visit_fn *fn);

static void visit(struct dev *d, enum reset_kind k, visit_fn *fn)
{
    struct bus *b;

    list_for_each(b, &d->buses, of_owner)
        visit_bus(b, k, fn);
    fn(d, k);
}

static void visit_bus(struct bus *b, enum reset_kind k, visit_fn *fn)
{
    struct dev *d;

    list_for_each(d, &b->devs, on_bus)
        visit(d, k, fn);
}

static void enter(struct dev *d, enum reset_kind k)
{
    struct bus *b;

    if (!d->realized)
        return;
    domain_lock(d->dom);
    if (d->bus && BUS_CLASS(d->bus)->reset_dev)
        BUS_CLASS(d->bus)->reset_dev(d->bus, d, k);
    if (DEV_CLASS(d)->reset)
        DEV_CLASS(d)->reset(d, k);
    list_for_each(b, &d->buses, of_owner)
        if (BUS_CLASS(b)->reset)
            BUS_CLASS(b)->reset(b, k);
    domain_unlock(d->dom);
}

static void leave(struct dev *d, enum reset_kind k)
{
    if (!d->realized || !DEV_CLASS(d)->reset_out)
        return;
    domain_lock(d->dom);
    DEV_CLASS(d)->reset_out(d);
    domain_unlock(d->dom);
}

void dev_reset_tree(struct dev *d, enum reset_kind k)
{
    visit(d, k, enter);
    visit(d, k, leave);
}

void bus_reset_tree(struct bus *b, enum reset_kind k)
{
    visit_bus(b, k, enter);
    visit_bus(b, k, leave);
}
