/* SPDX-License-Identifier: MIT */
/*
 * Floating point of a hart. While a hart runs guest code its thread's host FPU has the guest's dynamic rounding mode in force
 * (where the host has it) and collects exception flags stickily; they are merged into hart->fflags by rv_fpu_sync().
 * A handler may use a host operation when its rounding mode equals rv_fpu_host_rm() and host and guest semantics agree; everything
 * else goes through rv_fp_exec(), which is integer code and the reference.
 * Thread: VCPU.
 */
#ifndef CPU_RISCV_FPU_H
#define CPU_RISCV_FPU_H

#include <fenv.h>
#include <stdbool.h>
#include <stdint.h>
#include "cpu/riscv/cpu.h"
#include "cpu/riscv/softfp.h"

#define RV_BOX_S UINT64_C(0xffffffff00000000)
#define RV_BOX_H UINT64_C(0xffffffffffff0000)
#define RV_NAN_S UINT64_C(0xffffffff7fc00000)
#define RV_NAN_D UINT64_C(0x7ff8000000000000)

/* The single or half in a register; the canonical NaN if it is not properly boxed. */
static inline uint32_t rv_unbox_s(uint64_t v) { return v >= RV_BOX_S ? (uint32_t)v : 0x7fc00000; }
static inline uint16_t rv_unbox_h(uint64_t v) { return v >= RV_BOX_H ? (uint16_t)v : 0x7e00; }

/* Puts the host FPU into the guest's state / takes it out (flags merged, host default restored). */
void rv_fpu_enter(struct hart *h);
void rv_fpu_leave(struct hart *h);
/* Merges the flags the host has collected into h->fflags. */
void rv_fpu_sync(struct hart *h);
/* After a write of frm. */
void rv_fpu_frm_changed(struct hart *h);
/* The RISC-V rounding mode the host FPU has in force for this frm. */
static inline unsigned rv_fpu_host_rm(const struct hart *h) { return h->frm <= RM_RUP ? h->frm : RM_RNE; }

/*
 * Executes one floating-point computational instruction (formats R4, FRM, FRM1, FR, FCMP, F2X, X2F, FX, XF, FLI): registers and
 * flags. False for an invalid rounding mode (an illegal instruction; nothing changed). mstatus.FS is the caller's business.
 */
bool rv_fp_exec(struct hart *h, const struct rv_insn *in);

#endif
