/* SPDX-License-Identifier: MIT */
/* Numbers that look random and follow from a seed, which a test may set before. */
#ifndef TESTS_UNIT_SEEDED_H
#define TESTS_UNIT_SEEDED_H

#include "base/random.h"

static uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);

static inline uint64_t rnd(void) { return random_next(&seed); }
static inline unsigned below(unsigned n) { return (unsigned)(rnd() >> 33) % n; }

#endif
