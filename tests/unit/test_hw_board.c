/* SPDX-License-Identifier: MIT */
/* The smaller board devices: real-time clock, firmware configuration, flash. */
#include "hw.h"
#include "hw/riscv/fw_cfg.h"

/* ---- goldfish real-time clock ---- */

enum { TIME_LOW = 0, TIME_HIGH = 4, ALARM_LOW = 8, ALARM_HIGH = 12, IRQ_ENABLED = 16, CLEAR_ALARM = 20, ALARM_STATUS = 24,
       CLEAR_INTERRUPT = 28 };

static uint64_t rtc_time(void)
{
    uint64_t low = r32(TIME_LOW);
    return r32(TIME_HIGH) << 32 | low;
}

static void rtc_alarm(uint64_t at)
{
    w32(ALARM_HIGH, at >> 32);
    w32(ALARM_LOW, (uint32_t)at);
}

static void test_rtc(void **state)
{
    const char *const opts[][2] = { { "clock", "vm" }, { "base", "1000000000000000000" }, { NULL, NULL } };
    struct sys_dev *d = hw_dev("goldfish_rtc", opts, 1);
    uint64_t t = rtc_time();
    assert_int_equal(t, UINT64_C(1000000000000000000) + (uint64_t)clock_now(CLOCK_VM));
    clock_vm_step(5000000000);
    assert_int_equal(rtc_time(), t + 5000000000);
    w32(IRQ_ENABLED, 1);
    rtc_alarm(rtc_time() + 1000);
    assert_int_equal(r32(ALARM_STATUS), 1);
    clock_vm_step(999);
    assert_int_equal(hw_line[0], 0);
    clock_vm_step(1);
    assert_int_equal(hw_line[0], 1);
    assert_int_equal(r32(ALARM_STATUS), 0);
    w32(CLEAR_INTERRUPT, 1);
    assert_int_equal(hw_line[0], 0);
    rtc_alarm(1);                               /* in the past */
    assert_int_equal(hw_line[0], 1);
    w32(CLEAR_INTERRUPT, 1);
    rtc_alarm(rtc_time() + 1000);
    w32(CLEAR_ALARM, 1);
    clock_vm_step(5000);
    assert_int_equal(hw_line[0], 0);
    w32(TIME_HIGH, 0);                          /* the guest sets the clock */
    w32(TIME_LOW, 77);
    assert_int_equal(rtc_time(), 77);
    hw_remove(d);
}

/* ---- fw_cfg ---- */

static void fw_select(unsigned key)
{
    hw_wr(HW_DEV + 8, __builtin_bswap16((uint16_t)key), 2);
}

static uint32_t fw_dma(uint32_t control, uint32_t n, uint64_t addr)
{
    uint8_t req[16];
    st_be32(req, control);
    st_be32(req + 4, n);
    st_be64(req + 8, addr);
    assert_true(as_write_bytes(&as_memory, HW_RAM + 0x100, req, sizeof req));
    w64(16, __builtin_bswap64(HW_RAM + 0x100));
    return __builtin_bswap32((uint32_t)hw_rd(HW_RAM + 0x100, 4));
}

static void test_fw_cfg(void **state)
{
    struct err e = ERR_INIT;
    char buf[32] = "";
    struct sys_dev *d = hw_dev("fw_cfg_mem", NULL, 0);
    fw_select(0);
    assert_int_equal(r32(0), ld_le32("QEMU"));
    assert_int_equal(r32(0), 0);                /* behind the end */
    fw_select(1);
    assert_int_equal(r8(0), 3);
    assert_int_equal(r64(16), ld_le64("QEMU CFG"));
    assert_true(fw_cfg_add_file(d, "opt/test", "hello, world", 12, &e));
    assert_false(fw_cfg_add_file(d, "opt/test", "x", 1, &e));
    assert_false(fw_cfg_add_file(d, "a-name-that-is-longer-than-the-directory-has-room-for-it-12", "x", 1, &e));
    fw_select(0x19);
    assert_int_equal(__builtin_bswap32(r32(0)), 1);
    assert_int_equal(__builtin_bswap32(r32(0)), 12);
    assert_int_equal(__builtin_bswap32(r32(0)), 0x20 << 16);
    assert_int_equal(fw_dma(8 | 2 | 0x20 << 16, 5, HW_RAM + 0x200), 0);
    assert_true(as_read_bytes(&as_memory, HW_RAM + 0x200, buf, 8));
    assert_string_equal(buf, "hello");
    assert_int_equal(fw_dma(4, 2, 0), 0);       /* skip ", " */
    assert_int_equal(fw_dma(2, 20, HW_RAM + 0x200), 0);
    assert_true(as_read_bytes(&as_memory, HW_RAM + 0x200, buf, 20));
    assert_string_equal(buf, "world");
    assert_int_equal(fw_dma(8 | 2 | 0x20 << 16, 5, 0x1000), 1);     /* not memory */
    assert_int_equal(fw_dma(8 | 16 | 0x20 << 16, 5, HW_RAM), 1);    /* nothing can be written */
    assert_int_equal(fw_dma(2 | 8 | 0x3fffu << 16, UINT32_MAX, HW_RAM + HW_RAM_SIZE - 4), 1);
    w64(16, __builtin_bswap64(UINT64_C(0xffffffffffffff00)));       /* a request that is nowhere */
    hw_remove(d);
}

/* ---- flash ---- */

static void flash_word(uint64_t off, uint32_t v)
{
    w32(off, 0x00400040);
    w32(off, v);
    assert_int_equal(r32(off), 0x00800080);
    w32(0, 0xff);
}

static void test_flash(void **state)
{
    const char *const opts[][2] = { { "size", "1M" }, { NULL, NULL } };
    if (!obj_class_find("cfi.pflash01"))
        skip();                                 /* a build without block layer */
    struct sys_dev *d = hw_dev("cfi.pflash01", opts, 0);
    w32(0x40000, 0x00200020);                   /* erase the second sector */
    w32(0x40000, 0x00d000d0);
    assert_int_equal(r32(0x40000), 0x00800080);
    w32(0, 0xff);
    assert_int_equal(r32(0x40000), UINT32_MAX);
    assert_int_equal(r32(0x7fffc), UINT32_MAX);
    assert_int_equal(r32(0x3fffc), 0);
    flash_word(0x40010, 0x12345678);
    assert_int_equal(r32(0x40010), 0x12345678);
    flash_word(0x40010, 0xf0f0f0f0);            /* bits are only ever cleared */
    assert_int_equal(r32(0x40010), 0x10305070);
    w32(0x40000, 0x00e800e8);                   /* a buffer of four words */
    assert_int_equal(r32(0x40000), 0x00800080);
    w32(0x40000, 3);
    for (unsigned i = 0; i < 4; i++)
        w32(0x40020 + 4 * i, 0xa0 + i);
    w32(0x40000, 0x00d000d0);
    assert_int_equal(r32(0x40000), 0x00800080);
    w32(0, 0xff);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(r32(0x40020 + 4 * i), 0xa0 + i);
    w32(0x40000, 0x00200020);                   /* no confirmation: an error until the status is cleared */
    w32(0x40000, 0x00110011);
    w32(0, 0x70);
    assert_int_equal(r32(0), 0x00b000b0);
    w32(0, 0x50);
    w32(0, 0x70);
    assert_int_equal(r32(0), 0x00800080);
    w32(0, 0x98);
    assert_int_equal(r32(0x10 * 4), 'Q' | 'Q' << 16);
    assert_int_equal(r32(0x12 * 4) & 0xff, 'Y');
    assert_int_equal(r32(0x27 * 4) & 0xff, 19); /* two chips of 512 KiB */
    assert_int_equal(r32(0x2d * 4) & 0xff, 3);  /* of four blocks each */
    assert_int_equal(r32(0x30 * 4) & 0xff, 2);  /* of 128 KiB */
    w32(0, 0xff);
    hw_remove(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_rtc, hw_setup), cmocka_unit_test(test_fw_cfg), cmocka_unit_test(test_flash),
    };
    hw_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
