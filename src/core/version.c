/* SPDX-License-Identifier: MIT */
/* What --version of each program prints: the version, and the libraries of this build. */
#include "base/bits.h"
#include "core/help.h"
#include <libraries.h>         /* made by meson.build: a row for each that it looked for */

static const struct { const char *name; bool have; } libraries[] = { BP_LIBRARIES };

void help_version(const char *prog, struct str *out)
{
    str_printf(out, "%s version %s\n", prog, BP_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(libraries); i++)
        str_printf(out, "  %-24s %s\n", libraries[i].name, libraries[i].have ? "yes" : "not in this build");
}
