/* SPDX-License-Identifier: MIT */
/* test_rv_int.c again, on the translator. */
#include "jit_at_once.h"
#define accel_interp accel_jit
#include "test_rv_int.c"
