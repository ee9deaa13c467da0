/* SPDX-License-Identifier: MIT */
/* Random bytes that a guest sees, and numbers that follow from a seed. What must be secret (keys, salts) comes from elsewhere. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From here on the bytes follow from @seed: two runs that ask in the same order get the same. */
void guest_random_seed(uint64_t seed);
bool guest_random_seeded(void);
/* 0 or -errno. Waits for the host's generator where the host has just booted. ANY */
int guest_random(void *buf, size_t n);
/* The next number after @state, which begins as the seed. */
uint64_t random_next(uint64_t *state);

#endif
