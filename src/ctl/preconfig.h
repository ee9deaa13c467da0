/* SPDX-License-Identifier: MIT */
/* --preconfig: between the monitors and the machine. Main thread. */
#ifndef CTL_PRECONFIG_H
#define CTL_PRECONFIG_H

#include <stdbool.h>

/* The machine is not built yet, or not whole. */
bool preconfig_active(void);
/* Serves monitors until one sends x-exit-preconfig; false: the program is to end. */
bool preconfig_wait(void);
/* The machine stands: whoever sent x-exit-preconfig is answered. */
void preconfig_end(void);

#endif
