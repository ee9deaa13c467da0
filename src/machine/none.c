/* SPDX-License-Identifier: MIT */
/* -M none: no devices, and only the memory (at address 0) and the CPU model that -m and -cpu ask for; for looking at what the program offers. */
#include "machine/machine.h"
#include "mem/ram.h"

struct none_machine {
    struct machine m;           /* first */
    struct region ram_region;
};

static bool none_build(struct machine *m, struct err *e)
{
    struct none_machine *n = (struct none_machine *)m;
    if (m->ram) {
        region_init_ram(&n->ram_region, "ram", m->ram, 0, m->ram_size);
        region_add(m->memory, 0, &n->ram_region, 0);
    }
    return true;
}

static void none_finalize(struct obj *o)
{
    struct none_machine *n = (struct none_machine *)o;
    if (n->ram_region.name)
        region_fini(&n->ram_region);
}

static const struct machine_class none_class = {
    .obj = { .name = "none-machine", .desc = "empty machine", .base = &machine_base_class, .size = sizeof(struct none_machine),
             .finalize = none_finalize },
    .build = none_build,
};
OBJ_CLASS(&none_class.obj);
