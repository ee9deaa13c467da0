/* SPDX-License-Identifier: MIT */
/*
 * Harts for tests that execute single instructions: RAM at 0x80000000, harts that stand, and a step that the test's own thread
 * makes. Encodings are put together from the ISA manual's formats, not from insn.def.
 */
#ifndef TESTS_UNIT_RV_H
#define TESTS_UNIT_RV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/rcu.h"
#include "cpu/riscv/accel.h"
#include "cpu/riscv/fpu.h"
#include "cpu/riscv/hart.h"
#include "loop/loop.h"
#include "mem/ram.h"
#include "mem/view.h"
#include "hart_until.h"

enum { RAM = 0x80000000u, RAM_SIZE = 0x400000, CODE = RAM + 0x1000, DATA = RAM + 0x100000 };
enum { REG_PC = 32, REG_F0 = 33, REG_CSR0 = 65, REG_PRIV = 4161 };
enum { ZERO, RA, SP, GP, TP, T0, T1, T2, S0, S1, A0, A1, A2, A3, A4, A5, A6, A7 };

static struct hart_set *set;
static struct region root, ram_region;
static struct ram *ram;
static uint64_t rv_time, rv_deadline;

static uint64_t rv_time_now(void *opaque) { return rv_time; }
static void rv_arm(void *opaque, unsigned hart, uint64_t deadline) { rv_deadline = deadline; }
static const struct hart_env rv_env = { .time_now = rv_time_now, .timer_arm = rv_arm };

/* Memory, once a program. */
static inline int rv_memory(void **state)
{
    struct err e = ERR_INIT;
    assert_true(loop_main_init(&e));
    region_init_container(&root, "test", UINT64_MAX);
    address_space_init(&as_memory, "memory", &root);
    ram = ram_new("ram", RAM_SIZE, &e);
    assert_non_null(ram);
    region_init_ram(&ram_region, "ram", ram, 0, RAM_SIZE);
    region_add(&root, RAM, &ram_region, 0);
    return 0;
}

/* @count new harts of rv64 with options as JSON ("{\"c\": false}"), NULL: none. */
static inline struct hart *rv_harts(unsigned count, const char *opts, const struct accel_ops *accel)
{
    struct err e = ERR_INIT;
    json_t *o = json_loads(opts ? opts : "{}", 0, NULL);
    if (set)
        hart_set_free(set);
    struct obj *cpu = obj_create(obj_class_find("rv64"), NULL, o, obj_container("cpu-model"), &e);
    if (!cpu)
        fail_msg("%s", e.msg);
    json_decref(o);
    struct hart_set_config cfg = { .cpu = (struct rv_cpu *)cpu, .accel = accel ? accel : &accel_interp, .env = &rv_env, .count = count };
    set = hart_set_new(&cfg, &e);
    assert_non_null(set);
    for (unsigned i = 0; i < count; i++)
        hart_set_start(hart_get(set, i), 3, CODE, 0, 0);
    memset(ram->host, 0, RAM_SIZE);
    return hart_get(set, 0);
}

static inline uint8_t *at(uint64_t pa) { return ram->host + (pa - RAM); }
static inline uint64_t reg(struct hart *h, unsigned n)
{
    uint64_t v = 0;
    assert_true(hart_reg_read(h, n, &v));
    return v;
}
static inline void set_reg(struct hart *h, unsigned n, uint64_t v) { assert_true(hart_reg_write(h, n, v)); }
static inline uint64_t csr(struct hart *h, unsigned n) { return reg(h, REG_CSR0 + n); }
static inline void set_csr(struct hart *h, unsigned n, uint64_t v) { set_reg(h, REG_CSR0 + n, v); }

/* One instruction at pc; what it does to memory is visible to other harts. */
static inline void step(struct hart *h)
{
    rcu_read_lock();
    rv_fpu_enter(h);
    interp_step(h);
    rv_fpu_leave(h);
    rcu_read_unlock();
}

/* Lets the hart run by itself until it stays at @end. */
static inline void hart_run_to(struct hart *h, uint64_t end)
{
    hart_power(h, true);
    UNTIL(hart_pc(h) == end, harts_run(set));
}

static inline void put_insn(uint64_t pa, uint32_t insn)
{
    if ((insn & 3) == 3)
        st_le32(at(pa), insn);
    else
        st_le16(at(pa), (uint16_t)insn);
}

/* Executes @insn at CODE. */
static inline void exec(struct hart *h, uint32_t insn)
{
    put_insn(CODE, insn);
    set_reg(h, REG_PC, CODE);
    step(h);
}

/* Executes @insn at CODE, which must trap to M mode: returns mcause. mepc, mtval are left to the caller. */
static inline uint64_t exec_trap(struct hart *h, uint32_t insn)
{
    set_csr(h, 0x305, RAM + 0x800);
    (void)hart_reg_write(h, REG_CSR0 + 0x302, 0);      /* medeleg, where there is one */
    set_csr(h, 0x342, 0x7777);
    exec(h, insn);
    assert_int_equal(reg(h, REG_PC), RAM + 0x800);
    return csr(h, 0x342);
}

static inline uint32_t enc_r(uint32_t match, unsigned rd, unsigned rs1, unsigned rs2) { return match | rd << 7 | rs1 << 15 | rs2 << 20; }
static inline uint32_t enc_i(uint32_t match, unsigned rd, unsigned rs1, int32_t imm) { return match | rd << 7 | rs1 << 15 | (uint32_t)imm << 20; }
static inline uint32_t enc_s(uint32_t match, unsigned rs1, unsigned rs2, int32_t imm)
{
    return match | ((uint32_t)imm & 31) << 7 | rs1 << 15 | rs2 << 20 | (uint32_t)imm >> 5 << 25;
}
static inline uint32_t enc_csr(unsigned f3, unsigned rd, unsigned num, unsigned rs1) { return 0x73 | f3 << 12 | rd << 7 | rs1 << 15 | num << 20; }

static inline uint32_t enc_b(uint32_t f3, unsigned rs1, unsigned rs2, int32_t d)
{
    uint32_t u = (uint32_t)d;
    return 0x63 | f3 << 12 | rs1 << 15 | rs2 << 20 | (u >> 12 & 1) << 31 | (u >> 5 & 0x3f) << 25 | (u >> 1 & 15) << 8 | (u >> 11 & 1) << 7;
}

static inline uint32_t enc_j(unsigned rd, int32_t d)
{
    uint32_t u = (uint32_t)d;
    return 0x6f | rd << 7 | (u >> 20 & 1) << 31 | (u >> 1 & 0x3ff) << 21 | (u >> 11 & 1) << 20 | (u >> 12 & 0xff) << 12;
}

#endif
