/* SPDX-License-Identifier: MIT */
/* Programs of the host that set up an interface. They wait for the program: worker thread, or where nothing else runs. */
#ifndef NET_SCRIPT_H
#define NET_SCRIPT_H

#include "base/err.h"

/* Runs `@path @ifname`; false unless it ends with status 0. */
bool script_run(const char *path, const char *ifname, struct err *e) MUST_CHECK;
/* The tap descriptor (the caller's) that `@path --use-vnet --fd=N --br=@bridge` sends over socket N; -1 on failure. */
int script_bridge_helper(const char *path, const char *bridge, struct err *e) MUST_CHECK;

#endif
