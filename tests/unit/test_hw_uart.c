/* SPDX-License-Identifier: MIT */
/* The 16550 UART as its data sheet tells: registers, FIFOs and their interrupts, character timeout, loopback, modem lines. */
#include "hw.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };
enum { LOOP = 0x10 };

static struct sys_dev *start(void)
{
    return hw_dev("serial-mm", NULL, 1);
}

static void id_is(unsigned expect)
{
    assert_int_equal(r8(IIR) & 0x0f, expect);
}

static void test_reset_values(void **state)
{
    struct sys_dev *d = start();
    assert_int_equal(r8(IER), 0);
    assert_int_equal(r8(IIR), 1);
    assert_int_equal(r8(LCR), 0);
    assert_int_equal(r8(LSR), 0x60);
    assert_int_equal(r8(MSR), 0xb0);
    w8(SCR, 0x5a);
    assert_int_equal(r8(SCR), 0x5a);
    assert_int_equal(hw_line[0], 0);
    hw_remove(d);
}

static void test_divisor_latch(void **state)
{
    struct sys_dev *d = start();
    w8(LCR, 0x83);
    w8(DATA, 0x34);
    w8(IER, 0x12);
    assert_int_equal(r8(DATA), 0x34);
    assert_int_equal(r8(IER), 0x12);
    w8(LCR, 0x03);
    assert_int_equal(r8(IER), 0);
    hw_remove(d);
}

/* Enabling the interrupt with an empty transmitter raises it at once; reading the id takes it back. */
static void test_transmitter_empty(void **state)
{
    struct sys_dev *d = start();
    w8(IER, 2);
    assert_int_equal(hw_line[0], 1);
    id_is(2);
    assert_int_equal(hw_line[0], 0);
    id_is(1);
    w8(DATA, 'x');
    assert_int_equal(hw_line[0], 1);
    assert_int_equal(r8(LSR) & 0x60, 0x60);
    id_is(2);
    hw_remove(d);
}

static void test_loopback_without_fifo(void **state)
{
    struct sys_dev *d = start();
    w8(MCR, LOOP);
    w8(IER, 1);
    w8(DATA, 'a');
    assert_int_equal(hw_line[0], 1);
    id_is(4);
    assert_int_equal(r8(LSR) & 0x9f, 1);
    w8(DATA, 'b');                      /* overruns: the character in the buffer is lost */
    assert_int_equal(r8(LSR) & 0x9f, 3);
    assert_int_equal(r8(LSR) & 0x9f, 1);    /* the error is shown once */
    assert_int_equal(r8(DATA), 'b');
    assert_int_equal(r8(LSR) & 1, 0);
    assert_int_equal(hw_line[0], 0);
    hw_remove(d);
}

static void test_fifo_trigger_levels(void **state)
{
    static const unsigned level[4] = { 1, 4, 8, 14 };
    struct sys_dev *d = start();
    w8(MCR, LOOP);
    w8(IER, 1);
    for (unsigned t = 0; t < 4; t++) {
        w8(FCR, 0x07 | t << 6);
        assert_int_equal(r8(IIR), 0xc1);
        for (unsigned i = 0; i < 16; i++) {
            w8(DATA, i);
            assert_int_equal(hw_line[0], i + 1 >= level[t]);
        }
        w8(DATA, 0xee);                 /* the 17th is lost, the FIFO stays */
        assert_int_equal(r8(LSR) & 3, 3);
        for (unsigned i = 0; i < 16; i++)
            assert_int_equal(r8(DATA), i);
        assert_int_equal(r8(LSR) & 1, 0);
    }
    hw_remove(d);
}

/* Characters below the trigger level are announced after four character times, by a different id. */
static void test_character_timeout(void **state)
{
    struct sys_dev *d = start();
    w8(LCR, 0x83);
    w8(DATA, 2);                        /* 115200 bits a second: 10 bits are 87 us */
    w8(IER, 0);
    w8(LCR, 0x03);
    w8(MCR, LOOP);
    w8(IER, 1);
    w8(FCR, 0x81);
    w8(DATA, 'q');
    assert_int_equal(hw_line[0], 0);
    clock_vm_step(300000);
    assert_int_equal(hw_line[0], 0);
    clock_vm_step(60000);
    assert_int_equal(hw_line[0], 1);
    id_is(0x0c);
    assert_int_equal(r8(DATA), 'q');
    assert_int_equal(hw_line[0], 0);
    hw_remove(d);
}

static void test_break_in_loopback(void **state)
{
    struct sys_dev *d = start();
    w8(FCR, 1);
    w8(MCR, LOOP);
    w8(IER, 4);
    w8(LCR, 0x43);
    assert_int_equal(hw_line[0], 1);
    id_is(6);
    assert_int_equal(r8(LSR) & 0x1f, 0x11);
    id_is(1);
    assert_int_equal(r8(DATA), 0);
    hw_remove(d);
}

static void test_modem_lines_loop_back(void **state)
{
    struct sys_dev *d = start();
    w8(IER, 8);
    w8(MCR, LOOP);                      /* all four fall, as seen through the loop */
    assert_int_equal(hw_line[0], 1);
    id_is(0);
    assert_int_equal(r8(MSR), 0x0b);
    assert_int_equal(hw_line[0], 0);
    w8(MCR, LOOP | 2);
    assert_int_equal(r8(MSR), 0x11);
    w8(MCR, LOOP | 4);
    assert_int_equal(r8(MSR), 0x41);
    w8(MCR, LOOP);
    assert_int_equal(r8(MSR), 0x04);    /* trailing edge of the ring indicator */
    hw_remove(d);
}

/* All five sources at once come out in the order of table 4 of the data sheet. */
static void test_priorities(void **state)
{
    struct sys_dev *d = start();
    w8(MCR, LOOP);
    w8(IER, 0x0f);
    w8(DATA, 1);
    w8(DATA, 2);
    id_is(6);
    r8(LSR);
    id_is(4);
    r8(DATA);
    id_is(2);
    id_is(0);
    r8(MSR);
    id_is(1);
    assert_int_equal(hw_line[0], 0);
    hw_remove(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_reset_values, hw_setup), cmocka_unit_test(test_divisor_latch),
        cmocka_unit_test(test_transmitter_empty), cmocka_unit_test(test_loopback_without_fifo),
        cmocka_unit_test(test_fifo_trigger_levels), cmocka_unit_test(test_character_timeout),
        cmocka_unit_test(test_break_in_loopback), cmocka_unit_test(test_modem_lines_loop_back),
        cmocka_unit_test(test_priorities),
    };
    hw_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
