/* SPDX-License-Identifier: MIT */
/* Counter CSRs: there only with their extension; a value written is what the next instruction reads (Privileged ISA, "Hardware Performance Monitor"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <unistd.h>
#include "cpu/riscv/accel.h"
#include "cpu/riscv/hart.h"
#include "loop/loop.h"
#include "mem/ram.h"
#include "mem/view.h"
#include "hart_until.h"

enum { RAM = 0x80000000u, RAM_SIZE = 0x10000, HANDLER = 0x800 };
static struct region root, ram_region;
static struct ram *ram;

static uint64_t time_now(void *opaque) { return 0; }
static void arm(void *opaque, unsigned hart, uint64_t deadline) { }
static const struct hart_env env = { .time_now = time_now, .timer_arm = arm };

static int setup(void **state)
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

/* Runs @n words in M mode on a new hart with extension @off disabled; its a2, and in a4 mcause if the code trapped (else 0). */
static uint64_t run(const char *off, const uint32_t *code, unsigned n, uint64_t *cause)
{
    struct err e = ERR_INIT;
    json_t *opts = off ? json_pack("{s:b}", off, 0) : json_object();
    struct obj *cpu = obj_create(obj_class_find("rv64"), NULL, opts, obj_container("cpu-model"), &e);
    if (!cpu)
        fail_msg("%s", e.msg);
    json_decref(opts);
    struct hart_set_config cfg = { .cpu = (struct rv_cpu *)cpu, .accel = &accel_interp, .env = &env, .count = 1 };
    struct hart_set *set = hart_set_new(&cfg, &e);
    assert_non_null(set);
    struct hart *h = hart_get(set, 0);
    uint32_t *at = (uint32_t *)(void *)ram->host;
    for (unsigned i = 0; i < n; i++)
        st_le32(at + i, code[i]);
    st_le32(at + n, 0x0000006f);
    st_le32(at + HANDLER / 4, 0x34202773);              /* csrr a4, mcause */
    st_le32(at + HANDLER / 4 + 1, 0x0000006f);
    uint64_t end = RAM + n * 4, trapped = RAM + HANDLER + 4;
    hart_set_start(h, 3, RAM, RAM, 0);
    assert_true(hart_reg_write(h, 65 + 0x305, RAM + HANDLER));
    hart_x_set(h, 14, 0);
    hart_power(h, true);
    UNTIL(hart_pc(h) == end || hart_pc(h) == trapped, harts_run(set));
    uint64_t a2 = hart_x(h, 12);
    *cause = hart_x(h, 14);
    hart_power(h, false);
    hart_set_free(set);
    obj_del(cpu);
    return a2;
}

static uint32_t csrr(unsigned n) { return n << 20 | 2 << 12 | 12 << 7 | 0x73; }

static void test_counters_follow_extensions(void **state)
{
    static const struct { unsigned csr; const char *ext; } t[] = {
        { 0xc00, "zicntr" }, { 0xc01, "zicntr" }, { 0xc02, "zicntr" }, { 0xc03, "zihpm" }, { 0xc1f, "zihpm" },
    };
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint64_t cause;
        uint32_t code = csrr(t[i].csr);
        run(NULL, &code, 1, &cause);
        assert_int_equal(cause, 0);
        run(t[i].ext, &code, 1, &cause);
        if (cause != 2)
            fail_msg("CSR 0x%x is there without %s", t[i].csr, t[i].ext);
    }
}

static void test_written_count(void **state)
{
    /* li a1, 100; csrw minstret, a1; csrr a2, minstret; likewise after two nops */
    uint64_t cause;
    assert_int_equal(run(NULL, (uint32_t[]){ 0x06400593, 0xb0259073, 0xb0202673 }, 3, &cause), 100);
    assert_int_equal(run(NULL, (uint32_t[]){ 0x06400593, 0xb0259073, 0x13, 0x13, 0xb0202673 }, 5, &cause), 102);
    assert_int_equal(cause, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_counters_follow_extensions), cmocka_unit_test(test_written_count) };
    return cmocka_run_group_tests(tests, setup, NULL);
}
