/* SPDX-License-Identifier: MIT */
/* ACLINT: the time, comparators of both privileges and software interrupts, as the board's interrupt lines show them. */
#include "hw.h"
#include "hw/riscv/aclint.h"

enum { HARTS = 2, TIME = 0x7ff8 };

static struct sys_dev *timer_dev(void)
{
    const char *const opts[][2] = { { "num-harts", "2" }, { NULL, NULL } };
    return hw_dev("riscv.aclint.mtimer", opts, 2 * HARTS);
}

static void test_time_counts_at_10_mhz(void **state)
{
    struct sys_dev *d = timer_dev();
    uint64_t t = r64(TIME);
    clock_vm_step(1000000);
    assert_int_equal(r64(TIME) - t, 10000);
    assert_int_equal(aclint_mtimer_now(d), r64(TIME));
    assert_int_equal(r32(TIME), r64(TIME) & UINT32_MAX);
    w64(TIME, UINT64_C(0x123456789abcdef0));
    assert_int_equal(r64(TIME), UINT64_C(0x123456789abcdef0));
    assert_int_equal(r32(TIME + 4), 0x12345678);
    w32(TIME + 4, 1);
    assert_int_equal(r64(TIME), UINT64_C(0x19abcdef0));
    hw_remove(d);
}

static void test_compare_is_a_level(void **state)
{
    struct sys_dev *d = timer_dev();
    uint64_t t = r64(TIME);
    assert_int_equal(r64(0), UINT64_MAX);
    w64(8, t + 1000);
    clock_vm_step(99900);
    assert_int_equal(hw_line[1], 0);
    clock_vm_step(100);
    assert_int_equal(hw_line[1], 1);
    assert_int_equal(hw_line[0], 0);
    w32(8, 0xffffffff);                 /* the low half alone moves it away */
    assert_int_equal(hw_line[1], 0);
    w64(8, 0);
    assert_int_equal(hw_line[1], 1);
    w64(8, UINT64_MAX - 1);             /* farther than the clock can say */
    assert_int_equal(hw_line[1], 0);
    hw_remove(d);
}

static void test_writing_the_time_moves_deadlines(void **state)
{
    struct sys_dev *d = timer_dev();
    w64(0, 5000000);
    w64(TIME, 4999990);
    assert_int_equal(hw_line[0], 0);
    clock_vm_step(1000);
    assert_int_equal(hw_line[0], 1);
    w64(TIME, 0);
    assert_int_equal(hw_line[0], 0);
    hw_remove(d);
}

static void test_supervisor_comparator_fires_once(void **state)
{
    struct sys_dev *d = timer_dev();
    aclint_mtimer_arm_s(d, 1, aclint_mtimer_now(d) + 10);
    clock_vm_step(900);
    assert_int_equal(hw_rises[HARTS + 1], 0);
    clock_vm_step(200);
    assert_int_equal(hw_rises[HARTS + 1], 1);
    hw_line[HARTS + 1] = 0;
    clock_vm_step(100000);
    assert_int_equal(hw_rises[HARTS + 1], 1);
    aclint_mtimer_arm_s(d, 1, 0);       /* in the past: at once */
    assert_int_equal(hw_rises[HARTS + 1], 2);
    hw_line[HARTS + 1] = 0;
    aclint_mtimer_arm_s(d, 1, aclint_mtimer_now(d) + 10);
    aclint_mtimer_arm_s(d, 1, UINT64_MAX);
    clock_vm_step(100000);
    assert_int_equal(hw_rises[HARTS + 1], 2);
    hw_remove(d);
}

static void test_software_interrupts(void **state)
{
    const char *const opts[][2] = { { "num-harts", "2" }, { NULL, NULL } };
    struct sys_dev *d = hw_dev("riscv.aclint.swi", opts, HARTS);
    w32(4, 3);
    assert_int_equal(hw_line[1], 1);
    assert_int_equal(r32(4), 1);
    assert_int_equal(hw_line[0], 0);
    w32(4, 0);
    assert_int_equal(hw_line[1], 0);
    w32(8, 1);                          /* a hart that does not exist */
    assert_int_equal(r32(8), 0);
    hw_remove(d);

    const char *const s_opts[][2] = { { "num-harts", "2" }, { "sswi", "on" }, { NULL, NULL } };
    d = hw_dev("riscv.aclint.swi", s_opts, HARTS);
    w32(0, 1);
    assert_int_equal(hw_rises[0], 1);
    assert_int_equal(r32(0), 0);
    w32(0, 0);
    assert_int_equal(hw_line[0], 1);    /* only the hart takes it back */
    hw_remove(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_time_counts_at_10_mhz, hw_setup), cmocka_unit_test(test_compare_is_a_level),
        cmocka_unit_test(test_writing_the_time_moves_deadlines), cmocka_unit_test(test_supervisor_comparator_fires_once),
        cmocka_unit_test(test_software_interrupts),
    };
    hw_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
