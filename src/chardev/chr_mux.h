/* SPDX-License-Identifier: MIT */
#ifndef CHARDEV_CHR_MUX_H
#define CHARDEV_CHR_MUX_H

/* What Ctrl-a s does: writes -snapshot overlays back. Set by whoever owns block devices; NULL: nothing. Main loop. */
extern void (*chr_mux_commit)(void);

#endif
