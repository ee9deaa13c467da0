/* SPDX-License-Identifier: MIT */
#include "core/dev.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct obj_class bus_obj_class = {
    .name = "bus", .flags = OCF_ABSTRACT, .size = sizeof(struct bus), .ns = "bus",
};
OBJ_CLASS(&bus_obj_class);

struct bus *bus_new(const struct bus_class *c, struct dev *owner, const char *name, struct err *e)
{
    static unsigned made;
    struct obj *o = obj_new(&c->obj, name, e);
    struct bus *b = (struct bus *)o;

    if (!o)
        return NULL;
    list_init(&b->devs);
    list_init(&b->of_owner);
    b->owner = owner;
    b->serial = made++;
    if (!obj_add(o, owner && owner->obj.in_tree ? &owner->obj : NULL, e)) {
        obj_unref(o);
        return NULL;
    }
    if (owner)
        list_push(&owner->buses, &b->of_owner);
    obj_unref(o);
    return b;
}

void bus_free_name(const struct bus_class *c, const struct dev *owner, unsigned n, char *buf, size_t len)
{
    if (owner->obj.id && owner->obj.id[0] != '#') {
        snprintf(buf, len, "%s.%u", owner->obj.id, n);
        return;
    }
    for (unsigned i = 0, at = 0; at == 0 || bus_find(buf); i++) {
        at = (unsigned)snprintf(buf, len, "%s.%u", c->obj.name, i);
        for (char *p = buf; *p; p++)
            *p = (char)tolower((unsigned char)*p);
    }
}

struct bus *bus_find(const char *name)
{
    return (struct bus *)obj_find("bus", name);
}

static bool add_element(const struct dev *d, struct str *out)
{
    char elem[128] = "";

    if (!d->bus)
        return false;
    if (d->bus->owner && d->bus->owner->bus)
        add_element(d->bus->owner, out);
    if (!out->len)
        str_add(out, d->bus->obj.id);
    if (BUS_CLASS(d->bus)->path)
        BUS_CLASS(d->bus)->path(d, elem, sizeof elem);
    str_printf(out, "/%s", elem[0] ? elem : d->obj.id);
    return true;
}

char *dev_path(const struct dev *d)
{
    struct str out = { 0 };

    if (!add_element(d, &out))
        str_add(&out, d->obj.id);
    return str_take(&out);
}
