/* SPDX-License-Identifier: MIT */
#include "core/dev.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opt.h"
#include "core/dev_farewell.h"
#include "loop/co.h"
#include "loop/loop.h"

static struct list realized = LIST_INIT(realized);

void (*dev_deleted_event)(const char *id, const char *path);

static bool dev_init(struct obj *o, struct err *e)
{
    struct dev *d = (struct dev *)o;

    list_init(&d->on_bus);
    list_init(&d->buses);
    list_init(&d->link);
    d->bootindex = -1;
    return true;
}

const struct obj_class dev_obj_class = {
    .name = "device", .flags = OCF_ABSTRACT, .size = sizeof(struct dev), .ns = "device", .init = dev_init,
};
OBJ_CLASS(&dev_obj_class);

/* ---- where to plug ---- */

/* The one that came first, so that the order of -device counts, with or without ids: @free with room, @any of those without. */
struct find_bus { const struct bus_class *kind; bool hotplug; struct bus *free, *any; };

static bool consider_bus(struct obj *o, void *arg)
{
    struct find_bus *f = arg;
    struct bus *b = (struct bus *)o;

    if (!obj_is(o, &f->kind->obj) || (f->hotplug && !b->hotplug))
        return true;
    struct bus **best = BUS_CLASS(b)->full && BUS_CLASS(b)->full(b) ? &f->any : &f->free;
    if (!*best || (*best)->serial > b->serial)
        *best = b;
    return true;
}

struct bus_names { const struct bus_class *kind; bool hotplug; struct str s; };

static bool add_bus_name(struct obj *o, void *arg)
{
    struct bus_names *n = arg;

    if (obj_is(o, &n->kind->obj) && (!n->hotplug || ((struct bus *)o)->hotplug))
        str_printf(&n->s, "%s%s", n->s.len ? ", " : "", o->id);
    return true;
}

/* "ID.N" is the N-th bus of device ID, and "ID" its only one, whatever names they go by. */
static struct bus *bus_of_device(const char *name)
{
    const char *dot = strrchr(name, '.');
    char *id = dot ? xstrndup(name, (size_t)(dot - name)) : NULL;
    struct dev *d = (struct dev *)obj_find("device", name);
    struct bus *b, *found = NULL;
    uint64_t n = 0;

    if (!d && id && parse_u64(dot + 1, &n))
        d = (struct dev *)obj_find("device", id);
    free(id);
    if (!d)
        return NULL;
    list_for_each(b, &d->buses, of_owner)
        if (n-- == 0)
            found = b;
    return found;
}

/* The bus that the user named, if the device fits it. */
static struct bus *named_bus(const struct dev_class *c, const char *name, struct err *e)
{
    struct bus_names names = { c->plugs_into, false, { 0 } };
    struct obj *o;

    if (!c->plugs_into) {
        err_set(e, ERR_VALUE, "device '%s' is not plugged into a bus, so bus=%s has no meaning", c->obj.name, name);
        return NULL;
    }
    o = obj_find("bus", name);
    if (!o)
        o = (struct obj *)bus_of_device(name);
    if (!o)
        o = obj_lookup(&bus_obj_class, name, e);
    if (o && obj_is(o, &c->plugs_into->obj))
        return (struct bus *)o;
    if (o)
        err_set(e, ERR_VALUE, "bus '%s' is a %s bus; device '%s' plugs into %s", name, o->cls->name, c->obj.name,
                c->plugs_into->obj.name);
    obj_each(NULL, &bus_obj_class, add_bus_name, &names);
    if (!e->hint[0] || o)
        err_hint(e, names.s.len ? "%s buses here: %s" : "there is no %s bus here%s", c->plugs_into->obj.name,
                 names.s.len ? names.s.s : "");
    if (!names.s.len && c->plugs_into->brought_by)
        err_hint(e, o ? "add one before it: -device %s" : "add one before it: -device %s,id=%s", c->plugs_into->brought_by, name);
    str_free(&names.s);
    return NULL;
}

static struct bus *infer_bus(const struct dev_class *c, bool hotplug, struct err *e)
{
    struct find_bus f = { c->plugs_into, hotplug, NULL, NULL };

    obj_each(NULL, &bus_obj_class, consider_bus, &f);
    if (f.free)
        return f.free;
    if (f.any) {
        err_set(e, ERR_BUSY, "bus '%s' is full: no place for '%s'", f.any->obj.id, c->obj.name);
        err_hint(e, "add a device that brings another %s bus, and name it with bus=", c->plugs_into->obj.name);
    } else if (hotplug) {
        err_set(e, ERR_STATE, "no %s bus here takes devices while the machine runs", c->plugs_into->obj.name);
        err_hint(e, "%s", c->plugs_into->hotplug_hint ? c->plugs_into->hotplug_hint : "plug it in before the start, with -device");
    } else {
        err_set(e, ERR_NOT_FOUND, "no %s bus for device '%s'", c->plugs_into->obj.name, c->obj.name);
        if (c->plugs_into->brought_by)
            err_hint(e, "add one before it: -device %s", c->plugs_into->brought_by);
        else
            err_hint(e, "this machine has none; -M virt has");
    }
    return NULL;
}

/* A bus that takes devices before the start only: which ones do better. False. */
static bool no_hotplug(const struct bus *bus, const struct bus_class *kind, struct err *e)
{
    struct bus_names names = { kind, true, { 0 } };

    err_set(e, ERR_STATE, "bus '%s' does not take devices while the machine runs", bus->obj.id);
    obj_each(NULL, &bus_obj_class, add_bus_name, &names);
    if (names.s.len)
        err_hint(e, "these do: %s", names.s.s);
    else if (kind->hotplug_hint)
        err_hint(e, "%s", kind->hotplug_hint);
    str_free(&names.s);
    return false;
}

/* ---- life ---- */

static bool plug(struct dev *d, struct bus *b, struct err *e)
{
    if (BUS_CLASS(b)->attach && !BUS_CLASS(b)->attach(b, d, e))
        return false;
    d->bus = b;
    list_push(&b->devs, &d->on_bus);
    b->n_devs++;
    return true;
}

static void unplug(struct dev *d)
{
    struct bus *b = d->bus;

    if (!b)
        return;
    if (BUS_CLASS(b)->detach)
        BUS_CLASS(b)->detach(b, d);
    list_del(&d->on_bus);
    b->n_devs--;
    d->bus = NULL;
}

static void drop_domain(struct dev *d)
{
    if (d->owns_dom)
        domain_free(d->dom);
    d->owns_dom = false;
    d->dom = NULL;
}

/* Takes down every bus that @d brought (their devices are gone) and everything realize did. */
static void undo_realize(struct dev *d)
{
    struct bus *b;

    while ((b = list_first(&d->buses, struct bus, of_owner))) {
        list_del(&b->of_owner);
        obj_del(&b->obj);
    }
    unplug(d);
    drop_domain(d);
}

static void hide(struct dev *d)
{
    if (d->bus && BUS_CLASS(d->bus)->hide)
        BUS_CLASS(d->bus)->hide(d->bus, d);
}

bool dev_realize(struct dev *d, struct err *e)
{
    const struct dev_class *c = DEV_CLASS(d);
    struct bus *b = d->bus;

    if (b && BUS_CLASS(b)->shares_domain && b->owner) {
        d->dom = b->owner->dom;
    } else {
        d->dom = domain_new(d->home ? d->home : loop_main(), d->obj.id);
        d->owns_dom = true;
    }
    d->bus = NULL;
    if ((b && !plug(d, b, e)) || !obj_check(&d->obj, e)) {
        undo_realize(d);
        return false;
    }
    if (c->realize && !c->realize(d, e)) {
        undo_realize(d);
        return false;
    }
    d->realized = true;
    list_push(&realized, &d->link);
    if (d->hotplugged)
        dev_reset_tree(d, RESET_COLD);      /* before the guest can know of it */
    if (b && BUS_CLASS(b)->plugged && !BUS_CLASS(b)->plugged(b, d, e)) {
        list_del(&d->link);
        d->realized = false;
        hide(d);
        if (c->unrealize)
            c->unrealize(d);
        undo_realize(d);
        return false;
    }
    return true;
}

struct dev *dev_new(const struct dev_class *c, struct bus *bus, const char *id, struct err *e)
{
    struct obj *o = obj_new(&c->obj, id, e);
    struct dev *d = (struct dev *)o;

    if (!o)
        return NULL;
    d->bus = bus;
    if (!obj_add(o, obj_container("unattached"), e)) {
        obj_unref(o);
        return NULL;
    }
    obj_unref(o);
    return d;
}

/* Options that are about the place, not the device. */
struct place { char *driver, *id, *bus; };

static void place_free(struct place *p)
{
    free(p->driver);
    free(p->id);
    free(p->bus);
}

static const struct dev_class *user_class(const char *driver, struct err *e)
{
    const struct obj_class *c = driver ? obj_class_find(driver) : NULL;

    if (!driver) {
        err_set(e, ERR_VALUE, "no device is named");
        err_hint(e, "-device NAME,option=value...; `-device help` lists the names");
        return NULL;
    }
    if (!c || !obj_class_is(c, &dev_obj_class) || !obj_class_shown(c)) {
        obj_class_unknown(&dev_obj_class, "device", driver, e);
        if (!e->hint[0])
            err_hint(e, "-device help lists the names");
        return NULL;
    }
    return (const struct dev_class *)c;
}

static struct dev *create_placed(const struct dev_class *c, struct place *p, json_t *opts, bool hotplug, struct err *e)
{
    struct bus *bus = NULL;
    struct obj *o;
    struct dev *d;
    char what[128];
    bool ok;

    if (hotplug && !c->hotplug) {
        err_set(e, ERR_STATE, "device '%s' cannot be plugged while the machine runs", c->obj.name);
        return NULL;
    }
    if (p->bus ? !(bus = named_bus(c, p->bus, e)) : c->plugs_into && !(bus = infer_bus(c, hotplug, e)))
        return NULL;
    if (hotplug && bus && !bus->hotplug) {
        no_hotplug(bus, c->plugs_into, e);
        return NULL;
    }
    o = obj_new(&c->obj, p->id, e);
    if (!o)
        return NULL;
    d = (struct dev *)o;
    d->bus = bus;
    d->hotplugged = hotplug;
    o->user = true;
    snprintf(what, sizeof what, "device '%s'", c->obj.name);
    ok = obj_set_opts(o, opts, what, e) && obj_add(o, p->id ? NULL : obj_container("peripheral-anon"), e);
    if (ok && !dev_realize(d, e)) {
        obj_del(o);
        ok = false;
    }
    obj_unref(o);
    return ok ? d : NULL;
}

struct dev *dev_create_from_opts(json_t *given, bool hotplug, struct err *e)
{
    json_t *opts = json_deep_copy(given);
    struct place p = { opt_take(opts, "driver"), opt_take(opts, "id"), opt_take(opts, "bus") };
    const struct dev_class *c = user_class(p.driver, e);
    struct dev *d = c ? create_placed(c, &p, opts, hotplug, e) : NULL;

    place_free(&p);
    json_decref(opts);
    return d;
}

/* ---- removal ---- */

struct quiesce { struct dev *d; bool ended; struct co_event done; struct post post; };

static void quiesce_done(void *arg)
{
    struct quiesce *q = arg;

    q->ended = true;
    co_wake(&q->done);
}

static void co_quiesce_one(void *arg)
{
    struct quiesce *q = arg;

    DEV_CLASS(q->d)->co_quiesce(q->d);
    if (loop_current() == loop_main())
        quiesce_done(q);
    else
        loop_post(loop_main(), &q->post);
}

/*
 * Waits until nothing is in flight for @d, wherever it lives. Coroutine on the main loop, no domain. Who had to wait looks once more: what
 * was posted before may have begun something. So nothing comes between the last look and what follows it here, where @d lives here.
 */
static void co_dev_quiesce(struct dev *d)
{
    bool here = domain_loop(d->dom) == loop_main(), quiet = !DEV_CLASS(d)->co_quiesce;

    while (!quiet) {
        struct quiesce q = { .d = d, .post = { .fn = quiesce_done, .arg = &q } };
        co_spawn(NULL, d->dom, co_quiesce_one, &q);
        quiet = here ? q.ended : true;
        co_wait(&q.done);
    }
}

/* From here on it takes up nothing new by itself, whatever is still posted for it. */
static void say_goodbye(struct dev *d)
{
    domain_lock(d->dom);
    d->leaving = true;
    domain_unlock(d->dom);
    LINKSET_EACH(dev_farewells, struct dev_farewell, f)
        f->fn(d);
}

/* What nothing can reach any more, and in which nothing is in flight. */
static void take_down(struct dev *d)
{
    d->realized = false;
    list_del(&d->link);
    if (DEV_CLASS(d)->unrealize)
        DEV_CLASS(d)->unrealize(d);
    undo_realize(d);
    obj_del(&d->obj);
}

void dev_remove_unused(struct dev *d)
{
    hide(d);
    take_down(d);
}

void co_dev_remove(struct dev *d)
{
    struct bus *b;
    struct dev *child;

    hide(d);
    say_goodbye(d);
    co_dev_quiesce(d);                  /* before what hangs on it goes: no request may find that gone */
    list_for_each(b, &d->buses, of_owner)
        while ((child = list_first(&b->devs, struct dev, on_bus))) {
            co_dev_remove(child);
            co_dev_quiesce(d);          /* that took time */
        }
    take_down(d);
}

bool dev_unplug_request(struct dev *d, struct err *e)
{
    const struct dev_class *c = DEV_CLASS(d);

    if (!c->hotplug)
        return err_set(e, ERR_STATE, "device '%s' (%s) cannot be unplugged", d->obj.id, c->obj.name);
    if (d->bus && !d->bus->hotplug)
        return err_set(e, ERR_STATE, "bus '%s' does not let devices go while the machine runs", d->bus->obj.id);
    if (d->bus && BUS_CLASS(d->bus)->unplug_request)
        return BUS_CLASS(d->bus)->unplug_request(d->bus, d, e);
    dev_unplug_done(d);
    return true;
}

static void co_remove_and_tell(void *arg)
{
    struct dev *d = arg;
    char *id = xstrdup(d->obj.id), *path = obj_path(&d->obj);

    co_dev_remove(d);
    if (dev_deleted_event)
        dev_deleted_event(id[0] == '#' ? NULL : id, path);
    free(id);
    free(path);
}

void dev_unplug_done(struct dev *d)
{
    if (d->unplug_pending)
        return;
    d->unplug_pending = true;
    co_spawn(loop_main(), NULL, co_remove_and_tell, d);
}

struct irq *dev_outputs(struct dev *d, unsigned *n)
{
    for (const struct obj_class *c = d->obj.cls; c && c != &dev_obj_class; c = c->base)
        if (((const struct dev_class *)c)->outputs)
            return ((const struct dev_class *)c)->outputs(d, n);
    return NULL;
}

bool dev_boot_set(struct dev *d, int64_t index, const char *part, struct err *e)
{
    const struct dev *other;

    list_for_each(other, &realized, link)
        if (index >= 0 && other != d && other->bootindex == index) {
            err_set(e, ERR_BUSY, "bootindex=%" PRId64 " is the place of '%s'", index, other->obj.id);
            return err_hint(e, "each device has a place of its own in the boot order");
        }
    d->bootindex = index;
    snprintf(d->boot_part, sizeof d->boot_part, "%s", part);
    return true;
}

bool dev_each(bool (*fn)(struct dev *, void *), void *arg)
{
    struct dev *d;

    list_for_each(d, &realized, link)
        if (!fn(d, arg))
            return false;
    return true;
}
