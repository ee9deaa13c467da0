/* SPDX-License-Identifier: MIT */
/* Included by tests of translated code: it is translated when it is first met, not after it was interpreted some times. */
#ifndef TESTS_UNIT_JIT_AT_ONCE_H
#define TESTS_UNIT_JIT_AT_ONCE_H

#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "cpu/riscv/accel.h"

static __attribute__((constructor)) void translate_at_once(void)
{
    struct err e = ERR_INIT;
    for (const struct accel_option *o = accel_jit.options; o->name; o++)
        if (!strcmp(o->name, "threshold") && o->set("0", &e))
            return;
    abort();
}

#endif
