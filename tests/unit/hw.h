/* SPDX-License-Identifier: MIT */
/* For tests of board devices: one device in an otherwise empty address space, its lines recorded, the VM clock stepped. */
#ifndef TESTS_UNIT_HW_H
#define TESTS_UNIT_HW_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include "loop/co.h"
#include "loop/loop.h"
#include "mem/ram.h"
#include "mem/view.h"
#include "pci/sysdev.h"
#include "until.h"

#define HW_LINES 64
static int hw_line[HW_LINES];           /* present level */
static unsigned hw_rises[HW_LINES];     /* times it went up */
static struct region hw_root, hw_ram_region;
static struct ram *hw_ram;
enum { HW_DEV = 0x10000000, HW_RAM = 0x80000000, HW_RAM_SIZE = 0x100000 };

static inline void hw_record(void *arg, unsigned n, int level)
{
    unsigned first = (unsigned)(uintptr_t)arg;
    hw_rises[first + n] += level && !hw_line[first + n];
    hw_line[first + n] = level;
}

static inline int hw_setup(void **state)
{
    static bool once;
    struct err e = ERR_INIT;
    if (once)
        return 0;
    once = true;
    assert_true(loop_main_init(&e));
    clock_vm_set_manual(true);
    region_init_container(&hw_root, "test", UINT64_MAX);
    address_space_init(&as_memory, "memory", &hw_root);
    hw_ram = ram_new("ram", HW_RAM_SIZE, &e);
    assert_non_null(hw_ram);
    region_init_ram(&hw_ram_region, "ram", hw_ram, 0, HW_RAM_SIZE);
    region_add(&hw_root, HW_RAM, &hw_ram_region, 0);
    return 0;
}

/* A realized device with its first window at @addr and lines from hw_line[first_line] on, freshly reset. */
static inline struct sys_dev *hw_dev_at(const char *class, const char *const opts[][2], unsigned first_line, unsigned n_lines,
                                        uint64_t addr)
{
    struct err e = ERR_INIT;
    const struct obj_class *c = obj_class_find(class);
    assert_non_null(c);
    struct dev *d = dev_new((const struct dev_class *)c, NULL, NULL, &e);
    assert_non_null(d);
    for (size_t i = 0; opts && opts[i][0]; i++)
        if (!obj_set(&d->obj, opts[i][0], opts[i][1], &e))
            fail_msg("%s", e.msg);
    for (unsigned i = 0; i < n_lines; i++) {
        hw_line[first_line + i] = 0;
        hw_rises[first_line + i] = 0;
        sys_dev_connect((struct sys_dev *)d, i, (struct irq){ hw_record, (void *)(uintptr_t)first_line, i });
    }
    if (!dev_realize(d, &e))
        fail_msg("%s", e.msg);
    sys_dev_map((struct sys_dev *)d, 0, &hw_root, addr);
    dev_reset_tree(d, RESET_COLD);
    return (struct sys_dev *)d;
}

static inline struct sys_dev *hw_dev(const char *class, const char *const opts[][2], unsigned n_lines)
{
    return hw_dev_at(class, opts, 0, n_lines, HW_DEV);
}

static inline void hw_co_remove(void *d)
{
    co_dev_remove(d);
}

static inline void hw_remove(struct sys_dev *d)
{
    co_run_main(hw_co_remove, d);
}

static inline uint64_t hw_rd(uint64_t addr, unsigned size)
{
    uint64_t v = 0;
    if (!as_read(&as_memory, addr, &v, size))
        fail_msg("bus error: read of %u bytes at 0x%llx", size, (unsigned long long)addr);
    return v;
}

static inline void hw_wr(uint64_t addr, uint64_t v, unsigned size)
{
    if (!as_write(&as_memory, addr, v, size))
        fail_msg("bus error: write of %u bytes at 0x%llx", size, (unsigned long long)addr);
}

static inline uint64_t r8(uint64_t off) { return hw_rd(HW_DEV + off, 1); }
static inline uint64_t r32(uint64_t off) { return hw_rd(HW_DEV + off, 4); }
static inline uint64_t r64(uint64_t off) { return hw_rd(HW_DEV + off, 8); }
static inline void w8(uint64_t off, uint64_t v) { hw_wr(HW_DEV + off, v, 1); }
static inline void w32(uint64_t off, uint64_t v) { hw_wr(HW_DEV + off, v, 4); }
static inline void w64(uint64_t off, uint64_t v) { hw_wr(HW_DEV + off, v, 8); }

/* Small deterministic generator for oracle tests. */
static uint64_t hw_seed = 88172645463325252u;
static inline uint32_t hw_rand(uint32_t below)
{
    hw_seed ^= hw_seed << 13;
    hw_seed ^= hw_seed >> 7;
    hw_seed ^= hw_seed << 17;
    return (uint32_t)(hw_seed >> 16) % below;
}

/* Rounds of a test with random guests: @n, and as many times more as BP_FUZZ_TIMES says. */
static inline int hw_rounds(int n)
{
    const char *times = getenv("BP_FUZZ_TIMES");
    return n * (times && atoi(times) > 1 ? atoi(times) : 1);
}

/* Keeps compilers quiet where a test does not need all of the above. */
static inline void hw_unused(void)
{
    (void)hw_rises;
    (void)hw_line;
    (void)hw_seed;
}

#endif
