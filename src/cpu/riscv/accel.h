/* SPDX-License-Identifier: MIT */
/* The seam between a hart and what executes its instructions: `-accel interp`, `-accel jit`. */
#ifndef CPU_RISCV_ACCEL_H
#define CPU_RISCV_ACCEL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

struct hart;
struct rv_xtlb_entry;
struct rv_insn;

/* An option of an accelerator: -accel NAME,option=value. The last of a table has no name. */
struct accel_option {
    const char *name, *doc;
    /* Takes the value; false with @e filled. LOOP (main), before the first hart */
    bool (*set)(const char *value, struct err *e);
};

struct accel_ops {
    const char *name, *desc;
    const struct accel_option *options;     /* may be NULL */
    int32_t overrun;                        /* instructions that run() may execute beyond h->budget */
    /* Per hart, before its thread starts; sets h->accel_data. False with @e filled. */
    bool (*init)(struct hart *h, struct err *e);
    void (*fini)(struct hart *h);
    /*
     * Runs guest code from h->pc until h->leave is seen at a slice end. On return h->pc, all registers and h->budget are exact.
     * Calls hart_poll(h) whenever h->budget is negative at a block boundary. VCPU
     */
    void (*run)(struct hart *h);
    /*
     * The physical page @pa (page address) was written: what is translated from it is to be compared with memory before the next
     * block, after another rv_code_page_add(). VCPU
     */
    void (*flush_page)(struct hart *h, uint64_t pa);
    /* Forget every translation (machine reset, debugger). VCPU, or the hart stands */
    void (*flush_all)(struct hart *h);
    /* Tells @put of each of its counters (monitor). May be NULL. ANY */
    void (*stats)(const struct hart *h, void (*put)(void *, const char *name, uint64_t v), void *arg);
};

extern const struct accel_ops accel_interp, accel_jit;

/*
 * What every accelerator does when the budget is used up, or after an instruction that may have unmasked an interrupt: carries
 * out requests, takes a pending interrupt (h->pc, h->priv change), starts a new slice. Returns false when run() must return.
 * h->pc must be exact. VCPU
 */
bool hart_poll(struct hart *h);

/*
 * Executes exactly one instruction at h->pc with all its effects, traps included; the slow path of any accelerator and the
 * reference that a checking one compares with. Does not look at interrupts. VCPU
 */
void interp_step(struct hart *h);
/*
 * The instructions from h->pc, in page @x, to the first that does not just go on, or that may change what the page is; nothing is kept.
 * None where the first crosses the page's end. VCPU
 */
void interp_straight(struct hart *h, const struct rv_xtlb_entry *x);
/* Executes the one decoded instruction @in at h->pc likewise. */
void interp_exec(struct hart *h, const struct rv_insn *in);

#endif
