/* SPDX-License-Identifier: MIT */
/* A line drives the input that it names and no other, and whoever watches the bank sees it; a message goes to RAM or to a page that takes messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <pthread.h>

#include "irq/irq.h"
#include "mem/view.h"

static unsigned in_n;
static int in_level;
static void input(void *arg, unsigned n, int level) { in_n = n; in_level = level; *(unsigned *)arg += 1; }
static void watcher(void *arg, unsigned n, int level) { *(unsigned *)arg += n * 10 + (unsigned)level; }

static void test_banks(void **s)
{
    unsigned got = 0, seen = 0;
    struct irq_bank a = { .path = "/machine/plic", .n = 4, .set = input, .arg = &got }, b = { .path = "/machine/x", .n = 1 };
    irq_bank_register(&a);
    irq_bank_register(&b);
    assert_ptr_equal(irq_bank_find("/machine/x"), &b);
    assert_null(irq_bank_find("/machine"));
    struct irq i = irq_in(&a, 2), over = irq_in(&a, 4);
    irq_set(&over, 1);
    assert_int_equal(got, 0);
    irq_set(&i, 1);
    assert_int_equal(got, 1);
    irq_bank_watch(&a, watcher, &seen);
    irq_pulse(&i);
    assert_int_equal(got, 3);
    assert_int_equal(seen, 41);
    assert_int_equal(in_n, 2);
    assert_int_equal(in_level, 0);
    irq_bank_unregister(&a);
    assert_ptr_equal(irq_bank_next(NULL), &b);
    irq_bank_unregister(&b);
    assert_null(irq_bank_next(NULL));
}

/* ---- messages ---- */
static uint64_t msi_off;
static uint32_t msi_data;
static void msi_in(void *opaque, uint64_t off, uint32_t data) { msi_off = off; msi_data = data; }
static uint64_t never_read(void *o, uint64_t off, unsigned size) { fail(); return 0; }
static void never_write(void *o, uint64_t off, uint64_t v, unsigned size) { fail(); }
static const struct mmio_ops never_ops = { .read = never_read, .write = never_write };

static void test_msi(void **s)
{
    struct err e = ERR_INIT;
    struct address_space as = { 0 };
    struct region root, ram, imsic, dev;
    struct ram *mem = ram_new("ram", 0x1000, &e);
    region_init_container(&root, "root", UINT64_MAX);
    region_init_ram(&ram, "ram", mem, 0, 0x1000);
    region_init_mmio(&imsic, "imsic", 0x1000, &never_ops, NULL, NULL);
    region_init_mmio(&dev, "dev", 0x1000, &never_ops, NULL, NULL);
    imsic.msi = msi_in;
    region_add(&root, 0x1000, &ram, 0);
    region_add(&root, 0x2000, &imsic, 0);
    region_add(&root, 0x3000, &dev, 0);
    address_space_init(&as, "test", &root);
    assert_true(msi_send(&as, (struct msi_msg){ 0x2010, 0x42 }));
    assert_int_equal(msi_off, 0x10);
    assert_int_equal(msi_data, 0x42);
    assert_true(msi_send(&as, (struct msi_msg){ 0x1ffc, 0x01020304 }));         /* a plain write to RAM */
    assert_int_equal(ld_le32(mem->host + 0xffc), 0x01020304);
    assert_false(msi_send(&as, (struct msi_msg){ 0x3000, 1 }));                 /* another device: never */
    assert_false(msi_send(&as, (struct msi_msg){ 0x2001, 1 }));
    assert_false(msi_send(&as, (struct msi_msg){ UINT64_MAX, 1 }));
    assert_false(msi_send(&as, (struct msi_msg){ 0x9000, 1 }));
    region_fini(&ram);
    region_fini(&imsic);
    region_fini(&dev);
    address_space_fini(&as);
    ram_free(mem);
    rcu_barrier();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_banks), cmocka_unit_test(test_msi) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
