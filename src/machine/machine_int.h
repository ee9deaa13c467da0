/* SPDX-License-Identifier: MIT */
/* Between the files of src/machine. Main loop. */
#ifndef MACHINE_MACHINE_INT_H
#define MACHINE_MACHINE_INT_H

#include "core/help.h"
#include "core/cmd.h"
#include "machine/machine.h"

struct accel_ops;

/* Options that are not rows of the machine class. */
struct machine_args { json_t *smp, *memory; char *cpu, *accel; };

/* What -M, -smp, -m, -cpu, -kernel... have collected so far; borrowed. */
json_t *machine_collected(void);
/* The error for @name that is no machine. */
bool machine_class_unknown(const char *name, struct err *e);
/* "virt" from "virt-machine". */
void machine_class_name(const struct machine_class *c, char *buf, size_t n);
extern const struct prop machine_memory_props[], machine_smp_props[];   /* keys of -m and -smp */
/* mem-merge and dump-guest-core, on the RAM made. */
bool machine_ram_advise(struct machine *m, struct err *e);
/* By the name typed after -cpu ("rv64", "rv64-riscv-cpu"); NULL: none. */
const struct obj_class *machine_cpu_class(const char *name);
/* The error for @name that is no model. */
bool machine_cpu_unknown(const char *name, struct err *e);

/* -accel: "interp", "tcg" (QEMU's name for emulation), "qtest", and lists "a:b" of which the first that exists counts. NULL: default. */
bool machine_accel_choose(const char *text, struct err *e);
const struct accel_ops *machine_accel(void);
bool machine_runs_code(void);                       /* false under qtest: harts are there, and stand */

/* -fw_cfg rows collected: array of objects; borrowed, may be NULL. */
json_t *machine_fw_cfg_args(void);
/* -rtc: what clock the board's RTC follows ("host", "vm", "rt") and the offset in nanoseconds to add to it. */
bool machine_rtc(const char **clock, int64_t *base, struct err *e);
/* -boot. */
struct boot_opts {
    bool menu, strict;
    int64_t splash_time;            /* of the menu, in ms; -1: none */
};
extern struct boot_opts machine_boot;
/*
 * The order in which firmware tries devices, as the file "bootorder" of fw_cfg holds it: a firmware path a line, the lowest bootindex first,
 * and a 0 at the end. Empty: no device has a place in it. Main loop.
 */
void machine_boot_order(struct str *out);

#endif
