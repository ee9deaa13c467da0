/* SPDX-License-Identifier: MIT */
/* Functions of the PCI core: header, BARs, capabilities, interrupts, resets, saved state, coming and going. */
#include "pci_test.h"

#define WITH(...) (t_with = (__typeof__(t_with)){ __VA_ARGS__ })

static void header(void **state)
{
    WITH(.intx = true);
    struct tdev *t = t_new("tdev");
    assert_int_equal(t_rd_at(0, 0, 0, 4), 0x00081b36);
    assert_int_equal(t_rd(t, 0, 4), 0x11e91234);
    assert_int_equal(t_rd(t, PCI_INT_PIN, 1), 1);
    assert_int_equal(t_rd_at(0, PCI_DEVFN(9, 0), 0, 4), UINT32_MAX);
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);
    t_wr(t, 0, 0, 4);
    assert_int_equal(t_rd(t, 0, 4), 0x11e91234);
    t_wr(t, PCI_BAR0, UINT32_MAX, 4);
    assert_int_equal(t_rd(t, PCI_BAR0, 4), 0xfffff000);
    t_wr(t, PCI_BAR0 + 8, UINT32_MAX, 4);
    t_wr(t, PCI_BAR0 + 12, UINT32_MAX, 4);
    assert_int_equal(t_rd(t, PCI_BAR0 + 8, 4), 0xfffff00c);
    assert_int_equal(t_rd(t, PCI_BAR0 + 12, 4), UINT32_MAX);
    t_remove(&t->pci.dev);
    assert_int_equal(t_rd_at(0, PCI_DEVFN(1, 0), 0, 4), UINT32_MAX);
}

static void bar_follows_its_registers(void **state)
{
    WITH(.intx = false);
    struct tdev *t = t_new("tdev");
    t_wr(t, PCI_BAR0, T_MEM + 0x2000, 4);
    assert_int_equal(hw_rd(T_MEM + 0x2000, 4), UINT32_MAX);
    t_wr(t, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    hw_wr(T_MEM + 0x2000, 0x55, 4);
    assert_int_equal(hw_rd(T_MEM + 0x2000, 4), 0x55);
    t_wr(t, PCI_BAR0, T_MEM + 0x5000, 4);
    assert_int_equal(hw_rd(T_MEM + 0x2000, 4), UINT32_MAX);
    assert_int_equal(hw_rd(T_MEM + 0x5000, 4), 0x55);
    t_wr(t, PCI_COMMAND, 0, 2);
    assert_int_equal(hw_rd(T_MEM + 0x5000, 4), UINT32_MAX);
    t_remove(&t->pci.dev);
}

/* A failed realize leaves nothing behind: neither a slot nor the function's idea of one. */
static void failed_realize(void **state)
{
    struct err e = ERR_INIT;
    WITH(.fail = true);
    assert_null(t_try("tdev", &t_bus->bus, NULL, NULL, &e));
    assert_string_equal(e.msg, "told to fail");
    WITH(.fail = false);
    struct tdev *t = t_new("tdev");
    assert_int_equal(t->pci.devfn, PCI_DEVFN(1, 0));
    t_remove(&t->pci.dev);
}

/* ---- capabilities ---- */

static void caps_do_not_overlap(void **state)
{
    struct err e = ERR_INIT;
    struct tdev *t = t_new("tdev");
    struct pci_dev *d = &t->pci;
    unsigned a = pci_cap_add(d, PCI_CAP_VENDOR, 0, 10, &e), b = pci_cap_add(d, PCI_CAP_VENDOR, 0, 16, &e);
    assert_true(a >= 0x40 && b >= a + 12 && !(b & 3));
    assert_int_equal(pci_cap_add(d, PCI_CAP_VENDOR, (uint8_t)(a + 4), 4, &e), 0);
    assert_int_equal(pci_cap_add(d, PCI_CAP_VENDOR, (uint8_t)(a + 8), 4, &e), 0);      /* the padding of the first */
    assert_int_equal(pci_cap_add(d, PCI_CAP_VENDOR, 0x3c, 4, &e), 0);
    assert_int_equal(pci_cap_add(d, PCI_CAP_VENDOR, 0xfc, 8, &e), 0);
    assert_int_equal(pci_cap_add(d, PCI_CAP_VENDOR, 0xfc, 4, &e), 0xfc);
    assert_int_equal(pci_cap_add(d, PCI_CAP_VENDOR, 0, 0xf0, &e), 0);
    assert_non_null(strstr(e.msg, "no room"));
    assert_int_equal(pci_ext_cap_add(d, 1, 1, 0x140, 16, &e), 0);                      /* the first is at 0x100 */
    assert_int_equal(pci_ext_cap_add(d, 1, 2, 0, 0x48, &e), 0x100);
    assert_int_equal(pci_ext_cap_add(d, 3, 1, 0x140, 12, &e), 0);
    assert_int_equal(pci_ext_cap_add(d, 3, 1, 0, 12, &e), 0x148);
    assert_int_equal(t_rd(t, 0x100, 4), 0x14820001);
    assert_int_equal(t_rd(t, 0x148, 4), 0x00010003);
    t_remove(&d->dev);
}

static void conventional_has_no_extended_space(void **state)
{
    struct err e = ERR_INIT;
    struct pci_bus *b = pci_root_bus_new(&t_host->dev, "pci.test", false, t_bus->mem, t_bus->io, &e);
    struct tdev *t = (struct tdev *)t_new_on("tdev-conventional", &b->bus, NULL, NULL);
    assert_int_equal(pci_ext_cap_add(&t->pci, 1, 1, 0, 8, &e), 0);
    assert_int_equal(pci_config_read(b, 0, (unsigned)t->pci.devfn, 0, 4), 0x11e91234);
    assert_int_equal(pci_config_read(b, 0, (unsigned)t->pci.devfn, 0x100, 4), UINT32_MAX);
    t_remove(&t->pci.dev);
    list_del(&b->bus.of_owner);
    obj_del(&b->bus.obj);
}

static void msix_must_fit(void **state)
{
    struct err e = ERR_INIT;
    struct tdev *t = t_new("tdev");
    assert_false(pci_msix_init(&t->pci, 4, 2, 0xfd0, 0, &t->bar2, &e));
    assert_false(pci_msix_init(&t->pci, 4, 2, 0, 0x1000, &t->bar2, &e));
    assert_false(pci_msix_init(&t->pci, 4, 2, 0, 0x38, &t->bar2, &e));
    assert_true(pci_msix_init(&t->pci, 4, 2, 0xfc0, 0xfb8, &t->bar2, &e));
    t_remove(&t->pci.dev);
}

/* ---- interrupts ---- */

static void program_msi(struct tdev *t, unsigned at, uint16_t flags)
{
    t_wr(t, at + PCI_MSI_ADDR, T_MSI, 4);
    t_wr(t, at + PCI_MSI_DATA, 16, 2);
    t_wr(t, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    t_wr(t, at + PCI_MSI_FLAGS, flags, 2);
}

static void intx_levels(void **state)
{
    WITH(.intx = true);
    struct tdev *t = t_new("tdev");
    unsigned line = (unsigned)PCI_SLOT(t->pci.devfn) & 3;
    pci_intx_set(&t->pci, 1);
    assert_int_equal(hw_line[line], 1);
    assert_int_equal(t_rd(t, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    t_wr(t, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
    assert_int_equal(hw_line[line], 0);
    assert_int_equal(t_rd(t, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    t_wr(t, PCI_COMMAND, 0, 2);
    assert_int_equal(hw_line[line], 1);
    t_remove(&t->pci.dev);
    assert_int_equal(hw_line[line], 0);
}

static void intx_is_silent_while_messages_are_on(void **state)
{
    WITH(.intx = true, .msi = true, .msix = true);
    struct tdev *t = t_new("tdev");
    unsigned line = (unsigned)PCI_SLOT(t->pci.devfn) & 3, msi = t_cap(t, PCI_CAP_MSI), msix = t_cap(t, PCI_CAP_MSIX);
    pci_intx_set(&t->pci, 1);
    t_wr(t, msi + PCI_MSI_FLAGS, PCI_MSI_ENABLE, 2);
    assert_int_equal(hw_line[line], 0);
    t_wr(t, msi + PCI_MSI_FLAGS, 0, 2);
    assert_int_equal(hw_line[line], 1);
    t_wr(t, msix + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE, 2);
    assert_int_equal(hw_line[line], 0);
    dev_reset_tree(&t->pci.dev, RESET_WARM);
    assert_int_equal(hw_line[line], 1);
    t_remove(&t->pci.dev);
}

/* Two threads change what the line depends on; whoever is last, the line tells the truth. */
static void *toggle_level(void *arg)
{
    for (int i = 0; i < 20000; i++)
        pci_intx_set(arg, i & 1);
    return NULL;
}

static void intx_does_not_stick(void **state)
{
    WITH(.intx = true);
    struct tdev *t = t_new("tdev");
    unsigned line = (unsigned)PCI_SLOT(t->pci.devfn) & 3;
    pthread_t other;
    for (int round = 0; round < 5; round++) {
        pthread_create(&other, NULL, toggle_level, &t->pci);
        for (int i = 0; i < 3000; i++)
            t_wr(t, PCI_COMMAND, i & 1 ? PCI_COMMAND_INTX_DISABLE : 0, 2);
        t_wr(t, PCI_COMMAND, 0, 2);
        pthread_join(other, NULL);
        assert_int_equal(hw_line[line], 1);     /* i ended odd */
        t_wr(t, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
        assert_int_equal(hw_line[line], 0);
        t_wr(t, PCI_COMMAND, 0, 2);
    }
    t_remove(&t->pci.dev);
}

static void msi_masks_and_counts(void **state)
{
    WITH(.msi = true);
    struct tdev *t = t_new("tdev");
    unsigned at = t_cap(t, PCI_CAP_MSI), before = t_msgs[17];
    assert_false(pci_msi_notify(&t->pci, 1));
    program_msi(t, at, PCI_MSI_ENABLE | 1 << 4);
    assert_int_equal(pci_msi_vectors(&t->pci), 2);
    assert_true(pci_msi_notify(&t->pci, 1));
    assert_int_equal(t_msgs[17], before + 1);
    t_wr(t, at + PCI_MSI_MASK, 2, 4);
    assert_true(pci_msi_notify(&t->pci, 1));
    assert_int_equal(t_msgs[17], before + 1);
    assert_int_equal(t_rd(t, at + PCI_MSI_PENDING, 4), 2);
    t_wr(t, at + PCI_MSI_MASK, 0, 4);
    assert_int_equal(t_msgs[17], before + 2);
    assert_int_equal(t_rd(t, at + PCI_MSI_PENDING, 4), 0);
    t_remove(&t->pci.dev);
}

static void msix_masks(void **state)
{
    WITH(.msix = true);
    struct tdev *t = t_new("tdev");
    unsigned at = t_cap(t, PCI_CAP_MSIX), before = t_msgs[33];
    t_wr(t, PCI_BAR0 + 8, T_MEM + 0x10000, 4);
    t_wr(t, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    t_wr(t, at + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE, 2);
    hw_wr(T_MEM + 0x10010, T_MSI, 8);
    hw_wr(T_MEM + 0x10018, 33, 4);
    assert_true(pci_msi_notify(&t->pci, 1));
    assert_int_equal(t_msgs[33], before);
    assert_int_equal(hw_rd(T_MEM + 0x10800, 8), 2);
    hw_wr(T_MEM + 0x1001c, 0, 4);
    assert_int_equal(t_msgs[33], before + 1);
    assert_int_equal(hw_rd(T_MEM + 0x10800, 8), 0);
    t_wr(t, at + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE | PCI_MSIX_MASK_ALL, 2);
    assert_true(pci_msi_notify(&t->pci, 1));
    dev_reset_tree(&t->pci.dev, RESET_WARM);
    assert_false(pci_msix_enabled(&t->pci));
    t_wr(t, PCI_BAR0 + 8, T_MEM + 0x10000, 4);
    t_wr(t, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    t_wr(t, at + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE, 2);
    assert_int_equal(hw_rd(T_MEM + 0x10800, 8), 0);
    assert_int_equal(hw_rd(T_MEM + 0x1001c, 4), 1);
    assert_int_equal(t_msgs[33], before + 1);
    t_remove(&t->pci.dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(header, t_setup), cmocka_unit_test(bar_follows_its_registers), cmocka_unit_test(failed_realize),
        cmocka_unit_test(caps_do_not_overlap), cmocka_unit_test(conventional_has_no_extended_space), cmocka_unit_test(msix_must_fit),
        cmocka_unit_test(intx_levels), cmocka_unit_test(intx_is_silent_while_messages_are_on), cmocka_unit_test(intx_does_not_stick),
        cmocka_unit_test(msi_masks_and_counts), cmocka_unit_test(msix_masks),
    };
    t_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
