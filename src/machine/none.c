/* SPDX-License-Identifier: MIT */
/* -M none: no CPU, no memory, no devices; for looking at what the program offers. */
#include "machine/machine.h"

static bool none_build(struct machine *m, struct err *e)
{
    return true;
}

static const struct machine_class none_class = {
    .obj = { .name = "none-machine", .desc = "empty machine", .base = &machine_base_class, .size = sizeof(struct machine) },
    .build = none_build,
};
OBJ_CLASS(&none_class.obj);
