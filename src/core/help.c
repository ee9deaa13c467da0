/* SPDX-License-Identifier: MIT */
#include "core/help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "core/dev.h"

static const char *const categories[] = {
    "Storage", "Network", "USB", "Input", "Display", "Sound", "Bridge", "CPU", "Misc", NULL,
};

static bool is_device(const struct obj_class *c) { return obj_class_is(c, &dev_obj_class); }

const char *const *help_categories(void) { return categories; }

const char *help_category(const struct obj_class *c)
{
    const char *cat = ((const struct dev_class *)c)->cat;

    return cat && str_in_list(cat, categories) ? cat : "Misc";
}

static const char *bus_name(const struct obj_class *c)
{
    const struct bus_class *b = is_device(c) ? ((const struct dev_class *)c)->plugs_into : NULL;

    return b ? b->obj.name : "-";
}

/* Widths of the columns for names and buses. */
struct widths { int name, bus; };

static void class_line(const struct obj_class *c, struct widths w, struct str *out)
{
    str_printf(out, "  %-*s", w.name, c->name);
    if (is_device(c))
        str_printf(out, "  %-*s ", w.bus, bus_name(c));
    str_printf(out, " %s", c->desc ? c->desc : "");
    for (const char *const *a = c->aliases; a && *a; a++)
        str_printf(out, "%s%s%s", a == c->aliases ? " (also: " : ", ", *a, a[1] ? "" : ")");
    str_add(out, "\n");
}

static struct widths widths_of(const struct obj_class *const *list)
{
    struct widths w = { 4, 3 };

    for (; *list; list++) {
        if (!obj_class_shown(*list))
            continue;
        w.name = MAX(w.name, (int)strlen((*list)->name));
        w.bus = MAX(w.bus, (int)strlen(bus_name(*list)));
    }
    return w;
}

/* The devices of @list that are of category @cat, with a heading. */
static void category_lines(const char *cat, const struct obj_class *const *list, struct widths w, struct str *out)
{
    bool any = false;

    for (; *list; list++) {
        if (!obj_class_shown(*list) || strcmp(help_category(*list), cat))
            continue;
        if (!any)
            str_printf(out, "%s%s:\n  %-*s  %-*s  what it is\n", out->len ? "\n" : "", cat, w.name, "name", w.bus, "bus");
        any = true;
        class_line(*list, w, out);
    }
}

void help_devices(const char *cat, struct str *out)
{
    const struct obj_class *const *list = obj_class_list(&dev_obj_class, false);

    category_lines(cat, list, widths_of(list), out);
}

void help_classes(const struct obj_class *base, const char *title, struct str *out)
{
    const struct obj_class *const *list = obj_class_list(base, false);
    struct widths w = widths_of(list);

    if (base != &dev_obj_class) {
        str_printf(out, "%s:\n", title);
        for (; *list; list++)
            if (obj_class_shown(*list))
                class_line(*list, w, out);
        return;
    }
    str_printf(out, "%s\n", title);
    for (const char *const *cat = categories; *cat; cat++)
        category_lines(*cat, list, w, out);
}

static void prop_line(const struct prop *p, struct str *out)
{
    struct str type = { 0 };

    if (p->flags & PF_HIDDEN)
        return;
    prop_describe_type(p, &type);
    str_printf(out, "  %s=<%s>\n        %s%s\n", p->name, type.s, p->doc ? p->doc : "",
               p->flags & PF_DEPRECATED ? " (deprecated)" : p->flags & PF_READONLY ? " (read only)" : "");
    str_free(&type);
}

void help_props(const struct prop *table, struct str *out)
{
    struct prop p;

    for (size_t i = 0; prop_nth(table, i, &p); i++)
        prop_line(&p, out);
}

void help_class(const struct obj_class *c, struct str *out)
{
    help_class_as(c, c->name, out);
}

void help_class_as(const struct obj_class *c, const char *name, struct str *out)
{
    struct prop p;

    str_printf(out, "%s: %s\n", name, c->desc ? c->desc : "");
    if (is_device(c)) {
        const struct bus_class *b = ((const struct dev_class *)c)->plugs_into;

        str_add(out, "  id=<string>\n        Name of the device, for bus=, the monitor and messages\n");
        if (b)
            str_printf(out, "  bus=<string>\n        The %s bus to plug into; the first with a free place if not given\n",
                       b->obj.name);
        for (const struct obj_class *k = b ? &b->obj : NULL; k && k != &bus_obj_class; k = k->base)
            if (((const struct bus_class *)k)->slot_props)
                help_props(((const struct bus_class *)k)->slot_props, out);
    }
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++)
        prop_line(&p, out);
}

void help_exit(struct str *out)
{
    bool failed = out->s && fputs(out->s, stdout) < 0;
    str_free(out);
    failed |= fflush(stdout) != 0;
    if (failed || ferror(stdout)) {
        log_put_prefix();
        fputs("the help cannot be written to standard output\n", stderr);
        exit(1);
    }
    exit(0);
}
