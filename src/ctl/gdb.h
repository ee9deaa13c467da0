/* SPDX-License-Identifier: MIT */
/* The server for gdb. Main loop. */
#ifndef CTL_GDB_H
#define CTL_GDB_H

#include "base/err.h"

/* The program ends with @status: a debugger is told. */
void gdb_end(int status);

#endif
