/* SPDX-License-Identifier: MIT */
/* The way out, as far as it waits for storage. Main loop. */
#ifndef BLOCK_ABANDON_H
#define BLOCK_ABANDON_H

#include <stdbool.h>
#include <stdint.h>

/* Some handle has a request under way. */
bool blk_any_in_flight(void);
/* Looks at @now (CLOCK_HOST), and now and then on the way out, who is waited for: ends what must not be waited for any longer. */
void blk_end_look(int64_t now);

#endif
