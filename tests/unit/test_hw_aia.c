/* SPDX-License-Identifier: MIT */
/* APLIC in both delivery modes, and IMSIC, as firmware and an operating system use them. */
#include "hw.h"
#include "hw/riscv/aplic.h"
#include "hw/riscv/imsic.h"

enum { HARTS = 2, ROOT = 0x1000000, CHILD = 0x2000000, MSI_M = 0x3000000, MSI_S = 0x4000000, CHILD_LINE = 8, IMSIC_LINE = 16 };
enum { DOMAINCFG = 0, SOURCECFG = 0, SETIP = 0x1c00, SETIPNUM = 0x1cdc, IN_CLRIP = 0x1d00, CLRIPNUM = 0x1ddc, SETIE = 0x1e00,
       SETIENUM = 0x1edc, CLRIENUM = 0x1fdc, GENMSI = 0x3000, TARGET = 0x3000, IDC = 0x4000, SMSICFG = 0x1bc8, MMSICFGH = 0x1bc4 };
enum { DELEGATED = 0x400, DETACHED = 1, EDGE1 = 4, EDGE0 = 5, LEVEL1 = 6, LEVEL0 = 7, IE = 0x100, DM = 4 };

static struct sys_dev *root, *child, *files;
static struct imsic_pair pair;

static void rd_is(uint64_t at, uint32_t v)
{
    assert_int_equal(hw_rd(at, 4), v);
}

static void wr(uint64_t at, uint32_t v)
{
    hw_wr(at, v, 4);
}

static void input(unsigned n, int level)
{
    struct irq i = aplic_input(root, n);
    irq_set(&i, level);
}

static void start(bool msi)
{
    const char *const r[][2] = { { "num-harts", "2" }, { "num-sources", "40" }, { "mmode", "on" }, { "msimode", msi ? "on" : "off" }, { NULL, NULL } };
    const char *const c[][2] = { { "num-harts", "2" }, { "num-sources", "40" }, { "msimode", msi ? "on" : "off" }, { NULL, NULL } };
    const char *const f[][2] = { { "num-harts", "2" }, { NULL, NULL } };
    root = hw_dev_at("riscv.aplic", r, 0, HARTS, ROOT);
    child = hw_dev_at("riscv.aplic", c, CHILD_LINE, HARTS, CHILD);
    files = hw_dev_at("riscv.imsic", f, IMSIC_LINE, HARTS, MSI_S);
    pair = (struct imsic_pair){ files, files };
    aplic_set_child(root, child);
}

static void end(void)
{
    hw_remove(child);
    hw_remove(root);
    hw_remove(files);
}

static void test_direct_delivery_and_claim(void **state)
{
    start(false);
    wr(ROOT + DOMAINCFG, IE);
    rd_is(ROOT + DOMAINCFG, 0x80000000 | IE);
    for (unsigned n = 5; n <= 6; n++) {
        wr(ROOT + SOURCECFG + 4 * n, LEVEL1);
        wr(ROOT + TARGET + 4 * n, 1 << 18 | (n == 5 ? 20 : 10));
        wr(ROOT + SETIENUM, n);
    }
    wr(ROOT + IDC + 32, 1);
    input(5, 1);
    assert_int_equal(hw_line[1], 1);
    assert_int_equal(hw_line[0], 0);
    rd_is(ROOT + IDC + 32 + 0x18, 5 << 16 | 20);
    input(6, 1);
    rd_is(ROOT + IDC + 32 + 0x1c, 6 << 16 | 10);    /* claim: a level stays pending */
    rd_is(ROOT + SETIP, 0x60);
    rd_is(ROOT + IN_CLRIP, 0x60);
    input(6, 0);
    rd_is(ROOT + IDC + 32 + 0x1c, 5 << 16 | 20);
    wr(ROOT + IDC + 32 + 8, 20);                    /* threshold: 20 is no longer below it */
    assert_int_equal(hw_line[1], 0);
    wr(ROOT + IDC + 32 + 8, 21);
    assert_int_equal(hw_line[1], 1);
    wr(ROOT + CLRIENUM, 5);
    assert_int_equal(hw_line[1], 0);
    wr(ROOT + IDC + 32 + 4, 1);                     /* iforce: a spurious interrupt, ended by its claim */
    assert_int_equal(hw_line[1], 1);
    rd_is(ROOT + IDC + 32 + 0x1c, 0);
    assert_int_equal(hw_line[1], 0);
    end();
}

static void test_source_modes(void **state)
{
    start(false);
    wr(ROOT + DOMAINCFG, IE);
    wr(ROOT + SOURCECFG + 4 * 3, EDGE1);
    input(3, 1);
    rd_is(ROOT + SETIP, 8);
    input(3, 0);
    rd_is(ROOT + SETIP, 8);                         /* an edge is remembered */
    wr(ROOT + CLRIPNUM, 3);
    rd_is(ROOT + SETIP, 0);
    wr(ROOT + SOURCECFG + 4 * 3, EDGE0);
    input(3, 1);
    rd_is(ROOT + SETIP, 0);
    input(3, 0);
    rd_is(ROOT + SETIP, 8);
    wr(ROOT + SOURCECFG + 4 * 3, LEVEL0);
    rd_is(ROOT + SETIP, 8);
    input(3, 1);
    rd_is(ROOT + SETIP, 0);
    wr(ROOT + SETIPNUM, 3);                         /* levels follow the wire only */
    rd_is(ROOT + SETIP, 0);
    wr(ROOT + SOURCECFG + 4 * 3, DETACHED);
    input(3, 0);
    rd_is(ROOT + SETIP, 0);
    wr(ROOT + SETIPNUM, 3);
    rd_is(ROOT + SETIP, 8);
    wr(ROOT + SOURCECFG + 4 * 3, 2);                /* reserved: inactive, which clears everything */
    rd_is(ROOT + SOURCECFG + 4 * 3, 0);
    rd_is(ROOT + SETIP, 0);
    wr(ROOT + SETIENUM, 3);
    rd_is(ROOT + SETIE, 0);
    end();
}

static void test_delegation(void **state)
{
    start(false);
    input(7, 1);
    wr(CHILD + SOURCECFG + 4 * 7, LEVEL1);          /* not delegated yet */
    rd_is(CHILD + SOURCECFG + 4 * 7, 0);
    wr(ROOT + SOURCECFG + 4 * 7, DELEGATED);
    rd_is(ROOT + SOURCECFG + 4 * 7, DELEGATED);
    wr(CHILD + SOURCECFG + 4 * 7, LEVEL1);
    rd_is(CHILD + SETIP, 0x80);
    rd_is(ROOT + SETIP, 0);
    wr(CHILD + SETIENUM, 7);
    wr(CHILD + TARGET + 4 * 7, 1);
    wr(CHILD + IDC, 1);
    wr(CHILD + DOMAINCFG, IE);
    assert_int_equal(hw_line[CHILD_LINE], 1);
    assert_int_equal(hw_line[0], 0);
    input(7, 0);
    assert_int_equal(hw_line[CHILD_LINE], 0);
    wr(CHILD + SOURCECFG + 4 * 8, DELEGATED);       /* a leaf has nobody to delegate to */
    rd_is(CHILD + SOURCECFG + 4 * 8, 0);
    wr(ROOT + SOURCECFG + 4 * 7, LEVEL1);           /* taken back */
    rd_is(CHILD + SOURCECFG + 4 * 7, 0);
    end();
}

static uint64_t topei(unsigned hart, bool claim)
{
    return imsic_hart_ops.topei(&pair, hart, 1, claim);
}

static uint64_t reg_write(unsigned hart, unsigned reg, uint64_t v)
{
    uint64_t old = 0;
    assert_true(imsic_hart_ops.rmw(&pair, hart, 1, reg, &old, v, UINT64_MAX));
    return old;
}

static void test_imsic_file(void **state)
{
    uint64_t old;
    start(true);
    reg_write(1, 0x70, 1);
    reg_write(1, 0xc0, BIT64(5) | BIT64(60) | 1);
    reg_write(1, 0xc2, BIT64(1));                   /* 65 */
    wr(MSI_S + 0x1000, 65);
    assert_int_equal(hw_line[IMSIC_LINE + 1], 1);
    assert_int_equal(hw_line[IMSIC_LINE], 0);
    assert_int_equal(topei(1, false), 65 << 16 | 65);
    wr(MSI_S + 0x1004, __builtin_bswap32(60));
    assert_int_equal(topei(1, false), 60 << 16 | 60);
    reg_write(1, 0x72, 60);                         /* threshold: identities from 60 are held back */
    assert_int_equal(topei(1, false), 0);
    assert_int_equal(hw_line[IMSIC_LINE + 1], 0);
    assert_int_equal(reg_write(1, 0x72, 0), 60);
    assert_int_equal(topei(1, true), 60 << 16 | 60);
    assert_int_equal(topei(1, true), 65 << 16 | 65);
    assert_int_equal(topei(1, true), 0);
    assert_int_equal(hw_line[IMSIC_LINE + 1], 0);
    wr(MSI_S + 0x1000, 0);
    wr(MSI_S + 0x1000, 256);                        /* no such identities */
    assert_int_equal(topei(1, false), 0);
    assert_true(imsic_hart_ops.rmw(&pair, 1, 1, 0xc0, &old, 0, 0));
    assert_int_equal(old, BIT64(5) | BIT64(60));    /* bit 0 is zero */
    assert_false(imsic_hart_ops.rmw(&pair, 1, 1, 0xc1, &old, 0, 0));
    assert_false(imsic_hart_ops.rmw(&pair, 1, 1, 0x71, &old, 0, 0));
    assert_int_equal(reg_write(1, 0x88, 5), 0);     /* identities above 255 */
    assert_true(imsic_hart_ops.rmw(&pair, 1, 1, 0x88, &old, 0, 0));
    assert_int_equal(old, 0);
    end();
}

static void test_messages(void **state)
{
    start(true);
    wr(ROOT + SMSICFG, MSI_S >> 12);
    wr(ROOT + MMSICFGH, 1 << 12);                   /* one bit of hart index */
    wr(ROOT + SOURCECFG + 4 * 9, DELEGATED);
    wr(CHILD + DOMAINCFG, IE);
    rd_is(CHILD + DOMAINCFG, 0x80000000 | IE | DM);
    wr(CHILD + SOURCECFG + 4 * 9, LEVEL1);
    wr(CHILD + TARGET + 4 * 9, 1 << 18 | 33);
    wr(CHILD + SETIENUM, 9);
    reg_write(1, 0x70, 1);
    reg_write(1, 0xc0, UINT64_MAX);
    input(9, 1);
    assert_int_equal(topei(1, true), 33 << 16 | 33);
    rd_is(CHILD + SETIP, 0);                        /* forwarded */
    input(9, 1);
    assert_int_equal(topei(1, true), 0);
    wr(CHILD + SETIPNUM, 9);                        /* software asks again while the level is active, as at the end of a handler */
    assert_int_equal(topei(1, true), 33 << 16 | 33);
    input(9, 0);
    wr(CHILD + SETIPNUM, 9);
    assert_int_equal(topei(1, true), 0);
    wr(CHILD + GENMSI, 1 << 18 | 44);
    assert_int_equal(topei(1, true), 44 << 16 | 44);
    assert_int_equal(hw_line[CHILD_LINE], 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_direct_delivery_and_claim, hw_setup), cmocka_unit_test(test_source_modes),
        cmocka_unit_test(test_delegation), cmocka_unit_test(test_imsic_file), cmocka_unit_test(test_messages),
    };
    hw_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
