/* SPDX-License-Identifier: MIT */
/* `info mtree`: the tree of regions, and with -f what of it is seen at each address. */
#include "mem/view.h"

#include "base/str.h"
#include "core/cmd.h"
#include "mem/mem_int.h"

static const char *kind_name(const struct region *r)
{
    static const char *const names[] = { "container", "i/o", "ram", "rom", "romd", "alias" };
    return names[r->kind];
}

static void dump_tree(struct str *out, const struct region *r, uint64_t base, unsigned depth)
{
    uint64_t last = base + (r->size ? r->size - 1 : 0);
    str_printf(out, "%*s%016llx-%016llx (prio %d, %s): ", 2 + 2 * (int)depth, "", (unsigned long long)base,
               (unsigned long long)(r->size == UINT64_MAX ? UINT64_MAX : last), r->prio, kind_name(r));
    if (r->kind == REGION_ALIAS)
        str_printf(out, "%s @%s %016llx-%016llx", r->name, r->alias->name, (unsigned long long)r->alias_off,
                   (unsigned long long)(r->alias_off + r->size - 1));
    else
        str_add(out, r->name);
    str_add(out, r->enabled ? "\n" : " [disabled]\n");
    const struct region *c;
    if (depth < REGION_MAX_DEPTH)
        list_for_each(c, &r->children, sibling)
            dump_tree(out, c, base + c->off, depth + 1);
}

static void dump_flat(struct str *out, const struct address_space *as)
{
    const struct view *v = atomic_load(&as->view);
    for (size_t i = 0; v && i < v->n; i++) {
        const struct view_range *r = &v->r[i];
        str_printf(out, "  %016llx-%016llx (prio %d, %s): %s", (unsigned long long)r->start,
                   (unsigned long long)(r->start + r->size - 1), r->region->prio, kind_name(r->region), r->region->name);
        if (r->region_off)
            str_printf(out, " @%016llx", (unsigned long long)r->region_off);
        str_add(out, "\n");
    }
}

void region_dump(struct str *out, bool flat)
{
    struct address_space *as;
    topology_lock();
    list_for_each(as, views_all(), link) {
        str_printf(out, flat ? "flat view of address-space: %s\n" : "address-space: %s\n", as->name);
        if (flat)
            dump_flat(out, as);
        else
            dump_tree(out, as->root, 0, 0);
        str_add(out, "\n");
    }
    topology_unlock();
}

static void hmp_mtree(const char *arg, struct str *out)
{
    region_dump(out, arg && str_eq(arg, "-f"));
}

static const struct hmp_cmd info_mtree = {
    .name = "info mtree", .aliases = "", .args = "[-f]", .co_run = hmp_mtree,
    .doc = "show the memory tree, or with -f the flat view that the CPUs see",
};
HMP_CMD(&info_mtree);
