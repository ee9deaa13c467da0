/* SPDX-License-Identifier: MIT */
/* Between the files of the interpreter. VCPU */
#ifndef CPU_RISCV_INTERP_INT_H
#define CPU_RISCV_INTERP_INT_H

#include "cpu/riscv/accel.h"
#include "cpu/riscv/cpu.h"

/* What a handler asks of the loop: TRAP: h->trap is set; LEAVE: contexts or interrupts may have changed; STOP: a breakpoint, nothing is done. */
enum step { TRAP, NEXT, LEAVE, STOP };
/* Executes @in, which lies at @pc; h->pc is that of the next instruction on entry. */
typedef enum step interp_fn(struct hart *h, const struct rv_insn *in, uint64_t pc);

interp_fn *interp_handler(unsigned op);
/* Floating point: by the reference, always right; by the host's FPU, NULL where it cannot. */
enum step interp_fp_slow(struct hart *h, const struct rv_insn *in, uint64_t pc);
interp_fn *interp_fp_fast(unsigned op);
/* Decodes @raw as handlers want it: an integer result to x0 goes to x[32]. */
void interp_prepare(const struct hart *h, uint32_t raw, struct rv_insn *in);
/* Fences, environment calls, CSRs, cache-block operations, privileged instructions. */
enum step interp_system(struct hart *h, const struct rv_insn *in, uint64_t pc);

#endif
