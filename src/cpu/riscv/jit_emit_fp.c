/* SPDX-License-Identifier: MIT */
/* Floating point in SSE2 and FMA. */
#include "cpu/riscv/jit_int.h"

bool jit_emit_fp(struct jit_tr *t, const struct rv_insn *in)
{
    return false;
}
