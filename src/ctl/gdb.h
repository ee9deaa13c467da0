/* SPDX-License-Identifier: MIT */
/* The server for gdb. Main loop. */
#ifndef CTL_GDB_H
#define CTL_GDB_H

#include "base/err.h"

/* Serves gdb on a chardev given as -gdb takes it, in place of the present one; "none": no longer. False with @e filled. */
bool gdb_start(const char *arg, struct err *e);
/* The program ends with @status: a debugger is told. */
void gdb_end(int status);

#endif
