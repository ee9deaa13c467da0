/* SPDX-License-Identifier: MIT */
/* test_rv_counter.c again, on the translator. */
#include "cpu/riscv/accel.h"
#define accel_interp accel_jit
#include "test_rv_counter.c"
