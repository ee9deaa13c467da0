/* SPDX-License-Identifier: MIT */
/* test_cpu.c again, on the translator with check=on: each block beside the interpreter; and what it finds wrong ends the program. */
#include "cpu/riscv/accel.h"
#include "cpu/riscv/jit_int.h"

static __attribute__((constructor)) void check_on(void) { jit_options.check = true; }

#define accel_interp accel_jit
#include "test_cpu.c"
