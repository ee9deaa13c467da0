/* SPDX-License-Identifier: MIT */
#include "core/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/help.h"

const char *backend_type(const struct obj_class *base, const struct obj_class *c)
{
    return c->name + strlen(base->name) + 1;
}

static bool creatable(const struct obj_class *base, const struct obj_class *c)
{
    return obj_class_is(c, base) && !(c->flags & (OCF_ABSTRACT | OCF_INTERNAL));
}

static const char *type_name(const void *base, size_t i)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        if (creatable(base, c) && i-- == 0)
            return backend_type(base, c);
    }
    return NULL;
}

static const char *types_at;

void backend_types_are_at(const char *hint)
{
    types_at = hint;
}

const struct obj_class *backend_find(const struct obj_class *base, const char *type, struct err *e)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        if (creatable(base, c) && (!strcmp(backend_type(base, c), type) || str_in_list(type, c->aliases)))
            return c;
    }
    char what[32];
    snprintf(what, sizeof what, "%s type", base->name);
    if (obj_absent_error(base, what, type, e))
        return NULL;
    err_unknown(e, what, type, NULL, type_name, base);
    if (!e->hint[0] && types_at)
        err_hint(e, "%s", types_at);
    else if (!e->hint[0])
        err_hint(e, "types: -%s help", base->name);
    return NULL;
}

void backend_help_types(const struct obj_class *base, const char *title, struct str *out)
{
    str_printf(out, "%s:\n", title);
    for (const struct obj_class *const *c = obj_class_list(base, false); *c; c++)
        if (creatable(base, *c))
            str_printf(out, "  %-12s %s\n", backend_type(base, *c), (*c)->desc);
}

void backend_help_type(const struct obj_class *base, const struct obj_class *c, struct str *out)
{
    struct str all = { 0 };
    help_class(c, &all);
    str_add(out, all.s + strlen(base->name) + 1);
    str_free(&all);
}
