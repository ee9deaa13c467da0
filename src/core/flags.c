/* SPDX-License-Identifier: MIT */
/* The variables behind core/flags.h and core/debug.h. */
#include "core/flags.h"
#include "core/debug.h"

struct cli_flags cli_flags = { .prog = "backplane" };
const struct debug_ops *debug_ops;
void (*debug_stopped)(unsigned cpu, enum debug_stop why, uint64_t addr);
