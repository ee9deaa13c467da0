/* SPDX-License-Identifier: MIT */
/* Who is told, on the main loop, that a device is being removed, before what it has in flight is waited for. Rows of any folder. */
#ifndef CORE_DEV_FAREWELL_H
#define CORE_DEV_FAREWELL_H

#include "base/linkset.h"
#include "core/dev.h"

struct dev_farewell { void (*fn)(struct dev *d); };
LINKSET_DECLARE(dev_farewells, struct dev_farewell);
#define DEV_FAREWELL(ptr) LINKSET_ADD(dev_farewells, struct dev_farewell, ptr)

#endif
