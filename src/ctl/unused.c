/* SPDX-License-Identifier: MIT */
/*
 * Back ends that nothing uses are mostly a missing or mistyped -device. Where a monitor for programs could plug a device in later, nothing
 * is said.
 */
#include "base/log.h"
#include "core/cmd.h"
#include "core/obj.h"
#include "ctl/mon.h"
#include "net/net.h"

static bool is_for_person(struct mon *m, void *arg) { return m->ops->focus != NULL; }

static bool is_held(const struct obj *o) { return atomic_load(&o->refs) > 1; }

static bool warn_unused(struct err *e)
{
    static const struct { const char *space; bool (*used)(const struct obj *); } kinds[] = {
        { "netdev", net_is_connected }, { "chardev", is_held }, { "blockdev", is_held } };
    if (!mon_each(is_for_person, NULL))
        return true;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct obj *all = obj_container(kinds[i].space), *o;
        list_for_each(o, &all->children, sibling)
            if (o->user && o->id[0] != '#' && !kinds[i].used(o))
                log_warn("-%s %s: no device uses it", kinds[i].space, o->id);
    }
    return true;
}
static const struct cli_step step_unused = { "unused back ends", CLI_RUN, 1000, warn_unused };
CLI_STEP(&step_unused);
