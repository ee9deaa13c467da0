/* SPDX-License-Identifier: MIT */
/*
 * What the debugger stub and the monitor need of the CPUs; the instruction set's folder provides it, the machine registers
 * it. All calls: main loop, vCPUs stopped, except where said.
 */
#ifndef CORE_DEBUG_H
#define CORE_DEBUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/str.h"

enum debug_bp { DEBUG_BP_EXEC, DEBUG_BP_WRITE, DEBUG_BP_READ, DEBUG_BP_ACCESS };
enum debug_stop { DEBUG_STOP_BP, DEBUG_STOP_STEP, DEBUG_STOP_WATCH };
enum debug_plan { DEBUG_RUN, DEBUG_STEP, DEBUG_STAND };

struct debug_ops {
    unsigned (*n_cpus)(void);
    /* gdb's description of the registers by annex name ("target.xml", "riscv-64bit-cpu.xml"...); NULL if there is none such. */
    const char *(*xml)(const char *annex);
    /* gdb's number of the register @name ("pc", "a0", "x10", "mstatus"); -1: there is none. */
    int (*reg_named)(unsigned cpu, const char *name);
    unsigned n_core_regs;       /* registers in gdb's `g` packet: numbers 0 .. n_core_regs - 1 */
    /* Register by gdb's number, little endian bytes. Returns its size, 0 if there is no such register. @buf: 32 bytes. */
    unsigned (*reg_read)(unsigned cpu, unsigned reg, uint8_t *buf);
    unsigned (*reg_write)(unsigned cpu, unsigned reg, const uint8_t *buf, size_t n);
    /* For an ELF core: e_machine, and gdb's numbers of the registers in the order of Linux's struct user_regs_struct. */
    uint16_t elf_machine;
    const uint8_t *user_regs;
    unsigned n_user_regs;
    uint64_t (*pc)(unsigned cpu);
    void (*set_pc)(unsigned cpu, uint64_t pc);
    /* Guest virtual to physical as the CPU would see it now, without side effects. False: not mapped. */
    bool (*translate)(unsigned cpu, uint64_t va, uint64_t *pa);
    /* Breakpoints for every CPU; they never change guest memory. Length is of the watched range. False: not possible. */
    bool (*bp_insert)(enum debug_bp kind, uint64_t va, uint64_t len);
    bool (*bp_remove)(enum debug_bp kind, uint64_t va, uint64_t len);
    /* What @cpu does in the next run only (DEBUG_RUN where nothing is said). A step ends with DEBUG_STOP_STEP and takes no interrupt. */
    void (*plan)(unsigned cpu, enum debug_plan what);
    /* Memory was changed from outside: no CPU goes on with instructions that it decoded before. */
    void (*code_changed)(void);
    /* All CPUs stand for a look at them, or go on; no run state changes. Only while the machine runs. */
    void (*freeze)(bool on);
    int (*thread_id)(unsigned cpu);         /* of the host; 0 if it has none. ANY */
    /* Text for `info registers`, `info tlb` (address translation as it stands), `info jit` (counters of what it did). */
    void (*show_regs)(unsigned cpu, struct str *out);
    void (*show_tlb)(unsigned cpu, struct str *out);
    void (*show_counters)(unsigned cpu, struct str *out);
    /* One instruction as text; returns its length, 0 where it cannot be decoded. NULL: no disassembler in this build. */
    unsigned (*disas)(uint64_t pc, const uint8_t *code, size_t n, struct str *out);
};
/* NULL while the machine has no CPU that can be looked into. */
extern const struct debug_ops *debug_ops;
/*
 * The CPU calls it (vCPU thread, before it parks) when it met a breakpoint or ended a step; @addr is the data address of a
 * watchpoint. The sink asks the machine to stop. NULL: no debugger attached, breakpoints cannot have been set.
 */
extern void (*debug_stopped)(unsigned cpu, enum debug_stop why, uint64_t addr);

#endif
