/* SPDX-License-Identifier: MIT */
/* What devices `loader` put into memory and into harts at each reset, after the board's own images. Main loop, harts paused. */
#ifndef MACHINE_LOADER_H
#define MACHINE_LOADER_H

#include "machine/machine.h"

/* Whether one of them brings something to run: a file, or bytes. */
bool loader_brings_code(void);
/* Does what all say, in the order of the command line. */
bool loader_load_all(struct machine *m, struct err *e) MUST_CHECK;

#endif
