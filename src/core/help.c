/* SPDX-License-Identifier: MIT */
#include "core/help.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/dev.h"

static const char *const categories[] = {
    "Storage", "Network", "USB", "Input", "Display", "Sound", "Bridge", "CPU", "Misc", NULL,
};

static bool shown(const struct obj_class *c) { return !(c->flags & (OCF_ABSTRACT | OCF_INTERNAL)); }
static bool is_device(const struct obj_class *c) { return obj_class_is(c, &dev_obj_class); }
static const char *category(const struct obj_class *c)
{
    const char *cat = ((const struct dev_class *)c)->cat;

    return cat && str_in_list(cat, categories) ? cat : "Misc";
}

static void class_line(const struct obj_class *c, struct str *out)
{
    const struct dev_class *d = is_device(c) ? (const struct dev_class *)c : NULL;

    str_printf(out, "  %-26s", c->name);
    if (d)
        str_printf(out, " %-12s", d->plugs_into ? d->plugs_into->obj.name : "-");
    str_printf(out, " %s", c->desc ? c->desc : "");
    for (const char *const *a = c->aliases; a && *a; a++)
        str_printf(out, "%s%s%s", a == c->aliases ? " (also: " : ", ", *a, a[1] ? "" : ")");
    str_add(out, "\n");
}

void help_classes(const struct obj_class *base, const char *title, struct str *out)
{
    const struct obj_class *const *list = obj_class_list(base, false);

    if (base != &dev_obj_class) {
        str_printf(out, "%s:\n", title);
        for (; *list; list++)
            if (shown(*list))
                class_line(*list, out);
        return;
    }
    for (const char *const *cat = categories; *cat; cat++) {
        bool any = false;

        for (const struct obj_class *const *c = list; *c; c++) {
            if (!shown(*c) || strcmp(category(*c), *cat))
                continue;
            if (!any)
                str_printf(out, "%s%s %s:\n  %-26s %-12s\n", out->len ? "\n" : "", *cat, title, "name", "bus");
            any = true;
            class_line(*c, out);
        }
    }
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
    struct prop p;

    str_printf(out, "%s: %s\n", c->name, c->desc ? c->desc : "");
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

/* ---- the manual ---- */

static void manual_prop(const struct prop *p, struct str *out)
{
    struct str type = { 0 };

    if (p->flags & PF_HIDDEN)
        return;
    prop_describe_type(p, &type);
    str_printf(out, "| `%s` | ", p->name);
    for (const char *s = type.s; *s; s++)           /* a bar would end the table's cell */
        str_printf(out, *s == '|' ? "\\%c" : "%c", *s);
    str_printf(out, " | %s |\n", p->doc ? p->doc : "");
    str_free(&type);
}

static void manual_class(const struct obj_class *c, struct str *out)
{
    struct prop p;
    bool any = false;

    str_printf(out, "\n### %s\n\n%s.", c->name, c->desc ? c->desc : "");
    if (is_device(c) && ((const struct dev_class *)c)->plugs_into)
        str_printf(out, " Bus: %s.", ((const struct dev_class *)c)->plugs_into->obj.name);
    for (const char *const *a = c->aliases; a && *a; a++)
        str_printf(out, "%s`%s`%s", a == c->aliases ? " Also: " : ", ", *a, a[1] ? "" : ".");
    str_add(out, "\n");
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++) {
        if (!any)
            str_add(out, "\n| option | type | meaning |\n|---|---|---|\n");
        any = true;
        manual_prop(&p, out);
    }
}

static const struct { const char *title, *ns; } parts[] = {
    { "Devices (`--device`)", "device" }, { "Character back ends (`--chardev`)", "chardev" },
    { "Block back ends (`--blockdev`)", "blockdev" }, { "Network back ends (`--netdev`)", "netdev" },
    { "Objects (`--object`)", "object" },
};

void help_manual(struct str *out)
{
    str_add(out, "# Devices and back ends\n\nMade from the program's own tables; do not edit.\n");
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        const struct obj_class *const *list = obj_class_list(NULL, false);

        str_printf(out, "\n## %s\n", parts[i].title);
        for (; *list; list++)
            if (shown(*list) && str_eq(obj_class_ns(*list), parts[i].ns))
                manual_class(*list, out);
    }
}
