/* SPDX-License-Identifier: MIT */
/* The terminal that the program was started in. Main loop, but for chr_term_restore() (chr.h). */
#ifndef CHARDEV_CHR_TERM_H
#define CHARDEV_CHR_TERM_H

#include <stdbool.h>
#include <termios.h>

/* Raw bytes from terminal @fd; @signals: ^C and ^Z still reach the process. It is given back on every way out. */
void chr_term_raw(int fd, bool signals);
/* The settings of raw mode, from @t. */
void chr_term_make_raw(struct termios *t, bool signals);

#endif
