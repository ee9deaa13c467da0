/* SPDX-License-Identifier: MIT */
/*
 * RISC-V harts as boards, the SBI, monitors and the debugger see them.
 *
 * A board makes one `struct rv_cpu` from `-cpu` (class "rv64" and others), then a set of harts from it, gives each its start
 * state, and lets run_listener start and stop them all. Each hart is a thread.
 */
#ifndef CPU_RISCV_HART_H
#define CPU_RISCV_HART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "core/obj.h"

struct hart;
struct hart_set;
struct accel_ops;
struct rv_insn;
struct str;

#define HART_MAX 32

/* The CPU model: what `-cpu rv64,ext=on|off` sets. */
struct rv_cpu {
    struct obj obj;
    uint64_t ext;               /* bit per enum rv_ext (decode.h) */
    uint32_t vendor_id;         /* mvendorid */
    uint64_t arch_id, imp_id;   /* marchid, mimpid */
    bool sv48, sv57;            /* widest address translation: sv57 implies sv48 implies sv39 */
    int sv39_opt, sv48_opt, sv57_opt;                   /* enum tri: what the user says of it; auto: as the model has it */
    bool absent;                /* an extension was asked for that is not here: never true once the model is made */
    uint16_t cbom_block, cboz_block, cbop_block;        /* bytes */
};
extern const struct obj_class rv_cpu_class;             /* abstract base of all models */
/* "rv64imafdch_zicbom_..." for the device tree's riscv,isa; and the i-th extension's name for riscv,isa-extensions (NULL after the last). */
void rv_cpu_isa_string(const struct rv_cpu *c, struct str *out);
const char *rv_cpu_isa_ext(const struct rv_cpu *c, size_t i);
/* "riscv,sv57", "riscv,sv48", "riscv,sv39" or "riscv,none". */
const char *rv_cpu_mmu_type(const struct rv_cpu *c);

/* mip bits. */
enum { HART_IRQ_SSI = 1, HART_IRQ_MSI = 3, HART_IRQ_STI = 5, HART_IRQ_MTI = 7, HART_IRQ_SEI = 9, HART_IRQ_MEI = 11, HART_IRQ_LCOF = 13 };

/*
 * An IMSIC as the CSRs reach it (AIA, chapters 3 and 2). @level: 1 supervisor file, 3 machine file.
 * topei: the file's topei value (identity << 16 | priority), claimed (pending bit cleared) if @claim.
 * rmw: indirect registers 0x70..0xff: *old = the value; new = (value & ~mask) | (val & mask). False: no such register.
 * Any may be called on the hart's thread only.
 */
struct hart_imsic_ops {
    uint64_t (*topei)(void *opaque, unsigned hart, unsigned level, bool claim);
    bool (*rmw)(void *opaque, unsigned hart, unsigned level, unsigned reg, uint64_t *old, uint64_t val, uint64_t mask);
};

/* What the board hands down. All pointers stay valid while the set lives. NULL members: not there. */
struct hart_env {
    void *opaque;
    /* mtime, in ticks of 10 MHz (or the board's timebase). ANY */
    uint64_t (*time_now)(void *opaque);
    /* Call hart_timer_fire(hart) at or soon after mtime reaches @deadline (replaces the previous one; UINT64_MAX: never). VCPU */
    void (*timer_arm)(void *opaque, unsigned hart, uint64_t deadline);
    /* An ECALL from S mode, when the built-in SBI serves it: true if handled (registers updated; the hart goes on after the ECALL). VCPU */
    bool (*ecall)(struct hart *h, void *opaque);
    const struct hart_imsic_ops *imsic;
    void *imsic_opaque;
};

struct hart_set_config {
    const struct rv_cpu *cpu;
    const struct accel_ops *accel;
    const struct hart_env *env;
    unsigned count;             /* 1..HART_MAX */
    uint64_t base_id;           /* mhartid of the first */
    bool by_turns;              /* on one thread, counting time in instructions (turns.h) */
};

/* Makes the harts, powered off, their threads asleep. NULL with @e filled. LOOP (main) */
struct hart_set *hart_set_new(const struct hart_set_config *cfg, struct err *e) MUST_CHECK;
/* Ends the threads and frees. LOOP (main), harts paused or off. */
void hart_set_free(struct hart_set *s);
unsigned hart_set_count(const struct hart_set *s);
/* How many there will be, for an accelerator that shares something out while they are made. */
unsigned hart_set_planned(const struct hart_set *s);
struct hart *hart_get(struct hart_set *s, unsigned index);
unsigned hart_index(const struct hart *h);
uint64_t hart_id(const struct hart *h);
/* The hart whose thread this is; NULL elsewhere. ANY */
struct hart *hart_self(void);

/* Lets all harts run / stops all and waits until they stand. LOOP (main) */
void hart_set_resume(struct hart_set *s);
void hart_set_pause(struct hart_set *s);
/* Architectural reset (pc = 0, M mode), powered off. Paused. */
void hart_reset(struct hart *h);
/*
 * Start state: privilege @priv (3 M, 1 S), pc, a0, a1. With priv S (no firmware) the machine level is set up as an SBI leaves it:
 * everything S can handle is delegated, counters and extensions enabled, PMP open. Hart off or paused.
 */
void hart_set_start(struct hart *h, unsigned priv, uint64_t pc, uint64_t a0, uint64_t a1);
/* Powers on (after hart_set_start) or off; HSM of the SBI. On: ANY. Off: of oneself takes effect at the end of the present instruction; else ANY. */
void hart_power(struct hart *h, bool on);
bool hart_is_on(struct hart *h);

/* Raises or lowers an interrupt line (HART_IRQ_*). ANY */
void hart_irq_set(struct hart *h, unsigned bit, bool level);
/* The deadline given to timer_arm has come. ANY */
void hart_timer_fire(struct hart *h);
/*
 * Runs @fn on the hart's thread between two guest instructions. hart_request returns at once; hart_request_sync waits until every
 * hart in @mask (bit = index) has done it, or sleeps in WFI and will do it before it goes on; it may be called by a hart (which serves
 * its own queue meanwhile). ANY
 */
void hart_request(struct hart *h, void (*fn)(struct hart *, uint64_t a, uint64_t b), uint64_t a, uint64_t b);
void hart_request_sync(struct hart_set *s, uint64_t mask, void (*fn)(struct hart *, uint64_t a, uint64_t b), uint64_t a, uint64_t b);
/* For hart_request: local fences. */
void hart_do_fence_i(struct hart *h, uint64_t a, uint64_t b);
void hart_do_sfence_vma(struct hart *h, uint64_t start, uint64_t size);         /* size 0 or UINT64_MAX: all */
void hart_do_sfence_asid(struct hart *h, uint64_t page, uint64_t asid);         /* page UINT64_MAX: all of the ASID */

/* Guest memory as S mode of this hart addresses it (SBI buffers are physical: view_read). Registers for SBI handlers: VCPU. */
uint64_t hart_x(const struct hart *h, unsigned reg);
void hart_x_set(struct hart *h, unsigned reg, uint64_t v);

/*
 * Registers as gdb numbers them: 0..31 x, 32 pc, 33..64 f, 65 + n CSR n, 4161 the privilege mode. False: no such register.
 * The hart must stand (paused).
 */
bool hart_reg_read(struct hart *h, unsigned n, uint64_t *v);
bool hart_reg_write(struct hart *h, unsigned n, uint64_t v);
/* Virtual to physical as the hart sees it now, without side effects; false: unmapped. Paused. */
bool hart_translate(struct hart *h, uint64_t va, uint64_t *pa);
/* "info registers" text; "info jit": its counters and its accelerator's. ANY, best paused. */
void hart_dump(struct hart *h, struct str *out);
void hart_stats(const struct hart *h, struct str *out);
extern const struct state_desc hart_state;

#endif
