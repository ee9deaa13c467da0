/* SPDX-License-Identifier: MIT */
/*
 * Eventfds that a peer holds too: kicks and calls of vhost-user rings. The peer shares the descriptor's flags, so that it may take
 * O_NONBLOCK away at any moment, and it may fill the counter: a plain write() would then wait for it for ever. These never wait. ANY.
 */
#ifndef BASE_EVFD_H
#define BASE_EVFD_H

#include <stdbool.h>

/* Adds one, as the kernel's own users of an eventfd do: a full counter stays full, for it tells already. False: @fd takes no events. */
bool evfd_tell(int fd);
/* Takes what was told; false if nothing was. */
bool evfd_take(int fd);

#endif
