/* SPDX-License-Identifier: MIT */
/* The hart's tests again, on the translator. */
#include "jit_at_once.h"
#define accel_interp accel_jit
#include "test_cpu.c"
