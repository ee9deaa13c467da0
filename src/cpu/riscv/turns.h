/* SPDX-License-Identifier: MIT */
/*
 * Harts by turns on one thread, for `-icount`. All harts share one counter of instructions, which is the virtual clock.
 *
 * A turn is a number of instructions of one hart. It ends at an exact count: after TURN_INSNS, at the next timer, a little after the
 * guest gave devices work to do, at once where the hart waits or yields. Everything that is not the hart's own doing comes between
 * turns: there the loops get the work that was kept back, and the harts stand until the loops rest again, so that what devices do to
 * memory and interrupt lines is done at a count that depends on the guest alone.
 */
#ifndef CPU_RISCV_TURNS_H
#define CPU_RISCV_TURNS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

struct hart;
struct hart_set;
struct accel_ops;
struct turns;

#define TURN_INSNS 200000u          /* of one hart alone; harts of a larger set get less */
#define TURN_INSNS_SMP 20000u
#define TURN_WORK_INSNS 1000u       /* from a device's getting work to its doing it; from a signal to another hart to its turn */

/* For the set's harts, none of which has run. NULL where -icount is not given. LOOP (main) */
struct turns *turns_new(struct hart_set *s);
void turns_free(struct turns *t);
/* The body of the one thread that runs the set. */
void turns_thread(struct turns *t);
/* Runs one hart until its accelerator returns: hart.c's. */
void hart_run_slices(struct hart *h, const struct accel_ops *a);
void hart_serve(struct hart *h);

/* hart_poll() of a set that runs by turns. VCPU */
bool turns_poll(struct hart *h);
/* Whether this thread is in a turn of some hart. ANY */
bool turns_inside(void);
/* The turn ends after @n more instructions, the present one included, if not before. By the hart whose turn it is; else nothing. VCPU */
void turns_shorten(struct hart *h, uint64_t n);
/* In between, pauses of several harts are set or ended: the thread sees all of them or none. @t may be NULL. ANY */
void turns_freeze(struct turns *t);
void turns_thaw(struct turns *t);
/* The thread has something to look at: a request, a pause; an interrupt for a hart that waits. ANY */
void turns_kick(struct turns *t);
void turns_wake(struct turns *t);

#endif
