/* SPDX-License-Identifier: MIT */
/* docs/devices.md: every device and back end with its options, from the tables that serve the command line. */
#include "core/help.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "core/backend.h"
#include "core/dev.h"

static const struct bus_class *bus_of(const struct obj_class *c)
{
    return obj_class_is(c, &dev_obj_class) ? ((const struct dev_class *)c)->plugs_into : NULL;
}

/* Text for a cell of a table: a bar would end it, an angle bracket would be markup. */
static void cell(const char *s, struct str *out)
{
    for (; *s; s++)
        str_printf(out, strchr("|<>*_", *s) ? "\\%c" : "%c", *s);
}

static void option_row(const struct prop *p, struct str *out)
{
    struct str type = { 0 };
    if (p->flags & PF_HIDDEN)
        return;
    prop_describe_type(p, &type);
    str_printf(out, "| `%s` | ", p->name);
    cell(type.s, out);
    str_add(out, " | ");
    cell(p->doc, out);
    str_printf(out, "%s |\n", p->flags & PF_DEPRECATED ? " (deprecated)" : p->flags & PF_READONLY ? " (read only)" : "");
    str_free(&type);
}

static const char table_head[] = "\n| option | type | meaning |\n|---|---|---|\n";

static void slot_rows(const struct bus_class *b, struct str *out)
{
    for (const struct obj_class *k = b ? &b->obj : NULL; k && k != &bus_obj_class; k = k->base) {
        struct prop p;
        for (size_t i = 0; prop_nth(((const struct bus_class *)k)->slot_props, i, &p); i++)
            option_row(&p, out);
    }
}

/* @name: as it is typed. */
static void class_section(const struct obj_class *c, const char *name, struct str *out)
{
    struct prop p;
    bool any = false;
    str_printf(out, "\n#### %s\n\n%s.", name, c->desc);
    if (bus_of(c))
        str_printf(out, " Bus: %s.", bus_of(c)->obj.name);
    for (const char *const *a = c->aliases; a && *a; a++)
        str_printf(out, "%s`%s`%s", a == c->aliases ? " Also: " : ", ", *a, a[1] ? "" : ".");
    str_add(out, "\n");
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++) {
        if (!any)
            str_add(out, table_head);
        any = true;
        option_row(&p, out);
    }
    slot_rows(bus_of(c), out);
}

static void devices(struct str *out)
{
    for (const char *const *cat = help_categories(); *cat; cat++) {
        bool any = false;
        for (const struct obj_class *const *c = obj_class_list(&dev_obj_class, false); *c; c++) {
            if (!obj_class_shown(*c) || strcmp(help_category(*c), *cat))
                continue;
            if (!any)
                str_printf(out, "\n### %s\n", *cat);
            any = true;
            class_section(*c, (*c)->name, out);
        }
    }
}

/* Classes below the base named @base, without the ends of their names that nobody types. */
static void others(const char *base, const char *suffix, struct str *out)
{
    const struct obj_class *b = obj_class_find(base);
    for (const struct obj_class *const *c = obj_class_list(b, false); b && *c; c++) {
        char name[96];
        if (!obj_class_shown(*c))
            continue;
        snprintf(name, sizeof name, "%s", str_starts((*c)->name, base) ? (*c)->name + strlen(base) + 1 : (*c)->name);
        char *end = suffix ? strstr(name, suffix) : NULL;
        if (end)
            *end = 0;
        class_section(*c, name, out);
    }
}

static void objects(struct str *out)
{
    for (const struct obj_class *const *c = obj_class_list(NULL, false); *c; c++)
        if (obj_class_shown(*c) && str_eq(obj_class_ns(*c), "object"))
            class_section(*c, (*c)->name, out);
}

void help_manual(struct str *out)
{
    str_add(out, "# Devices and back ends\n\n"
                 "Written by `make docs` from the program's own tables; do not edit. The program itself shows the same:\n"
                 "`-device help`, `-device NAME,help`, and so on for the other options. Every device also takes `id=`, and\n"
                 "where it has a bus `bus=`.\n\n## Devices (`-device`)\n");
    devices(out);
    str_add(out, "\n## Character back ends (`-chardev`)\n");
    others("chardev", NULL, out);
    str_add(out, "\n## Block back ends (`-blockdev`)\n");
    others("blockdev", NULL, out);
    str_add(out, "\n## Exports of block nodes (`block-export-add`; `backplane-serve --export`)\n");
    others("export", NULL, out);
    str_add(out, "\n## Network back ends (`-netdev`)\n");
    others("netdev", NULL, out);
    str_add(out, "\n## Objects (`-object`)\n");
    objects(out);
    str_add(out, "\n## Machines (`-M`)\n");
    others("machine", "-machine", out);
}
