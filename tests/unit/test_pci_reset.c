/* SPDX-License-Identifier: MIT */
/* Resets of a function, power states, saved state, and being unplugged while the guest looks. */
#include "pci_test.h"

#define WITH(...) (t_with = (__typeof__(t_with)){ __VA_ARGS__ })

static unsigned exp_cap(struct tdev *t)
{
    unsigned at = t_cap(t, PCI_CAP_EXP);
    assert_true(at);
    return at;
}

static void express_registers(void **state)
{
    WITH(.pm = true);
    struct tdev *t = t_new("tdev");
    unsigned at = exp_cap(t);
    assert_int_equal(t_rd(t, at + PCI_EXP_DEVCTL, 2), 0x2810);
    assert_true(t_rd(t, at + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR);
    t->pci.config[at + PCI_EXP_DEVSTA] |= 9;            /* as a device that saw errors */
    assert_int_equal(t_rd(t, at + PCI_EXP_DEVSTA, 2), 9);
    t_wr(t, at + PCI_EXP_DEVSTA, 8, 2);
    assert_int_equal(t_rd(t, at + PCI_EXP_DEVSTA, 2), 1);
    t_remove(&t->pci.dev);
}

/* Every register goes back, capabilities too; the payload size stays over a function level reset only. */
static void resets_reach_the_capabilities(void **state)
{
    static const enum reset_kind kinds[] = { RESET_COLD, RESET_WARM, RESET_BUS, RESET_FUNCTION };
    WITH(.msi = true, .intx = true);
    struct tdev *t = t_new("tdev");
    unsigned at = exp_cap(t), msi = t_cap(t, PCI_CAP_MSI);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        t_wr(t, PCI_BAR0, T_MEM, 4);
        t_wr(t, PCI_INT_LINE, 7, 1);
        t_wr(t, PCI_COMMAND, 7, 2);
        t_wr(t, at + PCI_EXP_DEVCTL, 0x5f40, 2);
        t_wr(t, msi + PCI_MSI_ADDR, T_MSI, 4);
        t_wr(t, msi + PCI_MSI_MASK, 5, 4);
        t_wr(t, msi + PCI_MSI_FLAGS, PCI_MSI_ENABLE, 2);
        dev_reset_tree(&t->pci.dev, kinds[i]);
        assert_int_equal(t_rd(t, PCI_BAR0, 4), 0);
        assert_int_equal(t_rd(t, PCI_INT_LINE, 1), 0);
        assert_int_equal(t_rd(t, PCI_COMMAND, 2), 0);
        assert_int_equal(t_rd(t, at + PCI_EXP_DEVCTL, 2), kinds[i] == RESET_FUNCTION ? 0x2850 : 0x2810);
        assert_int_equal(t_rd(t, msi + PCI_MSI_ADDR, 4), 0);
        assert_int_equal(t_rd(t, msi + PCI_MSI_MASK, 4), 0);
        assert_false(pci_msi_notify(&t->pci, 0));
        assert_false(pci_bus_master(&t->pci));
    }
    t_remove(&t->pci.dev);
}

static void sticky_bits(void **state)
{
    WITH(.msi = false);
    struct err e = ERR_INIT;
    struct tdev *t = t_new("tdev");
    uint16_t at = pci_ext_cap_add(&t->pci, 1, 1, 0, 0x48, &e);
    st_le32(t->pci.wmask + at + 8, 0xff);
    st_le32(t->pci.smask + at + 8, 0x0f);
    pci_config_write(t_bus, 0, (unsigned)t->pci.devfn, at + 8u, 0xaa, 4);
    dev_reset_tree(&t->pci.dev, RESET_BUS);
    assert_int_equal(t_rd(t, at + 8u, 4), 0x0a);
    dev_reset_tree(&t->pci.dev, RESET_COLD);
    assert_int_equal(t_rd(t, at + 8u, 4), 0);
    t_remove(&t->pci.dev);
}

static void function_level_reset(void **state)
{
    WITH(.msix = true);
    struct tdev *t = t_new("tdev");
    unsigned at = exp_cap(t), was = t->resets[RESET_FUNCTION], out = t->out_resets;
    t_wr(t, PCI_COMMAND, 6, 2);
    t_wr(t, at + PCI_EXP_DEVCTL, 0x2810 | PCI_EXP_DEVCTL_FLR, 2);
    assert_int_equal(t_rd(t, 0, 4), UINT32_MAX);        /* busy */
    t_settle();
    assert_int_equal(t->resets[RESET_FUNCTION], was + 1);
    assert_int_equal(t->out_resets, out + 1);
    assert_int_equal(t_rd(t, 0, 4), 0x11e91234);
    assert_int_equal(t_rd(t, PCI_COMMAND, 2), 0);
    t_wr(t, at + PCI_EXP_DEVCTL + 1, PCI_EXP_DEVCTL_FLR >> 8, 1);      /* by its byte, too */
    t_settle();
    assert_int_equal(t->resets[RESET_FUNCTION], was + 2);
    t_wr(t, at + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_FLR, 2);
    dev_reset_tree(&t->pci.dev, RESET_WARM);            /* takes the place of what was asked for */
    assert_int_equal(t_rd(t, 0, 4), 0x11e91234);
    t_wr(t, PCI_COMMAND, 6, 2);
    t_settle();
    assert_int_equal(t->resets[RESET_FUNCTION], was + 2);
    assert_int_equal(t_rd(t, PCI_COMMAND, 2), 6);
    t_wr(t, at + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_FLR, 2);
    t_remove(&t->pci.dev);                              /* the reset that was asked for dies with it */
    t_settle();
}

static void power_states(void **state)
{
    for (int keeps = 0; keeps < 2; keeps++) {
        WITH(.pm = true, .pm_keeps = keeps, .intx = true);
        struct tdev *t = t_new("tdev");
        unsigned at = t_cap(t, PCI_CAP_PM) + PCI_PM_CTRL, was = t->resets[RESET_FUNCTION];
        unsigned line = (unsigned)PCI_SLOT(t->pci.devfn) & 3;
        t_wr(t, PCI_BAR0, T_MEM, 4);
        t_wr(t, PCI_COMMAND, 6, 2);
        hw_wr(T_MEM, 0x77, 4);
        pci_intx_set(&t->pci, 1);
        t_wr(t, at, 1, 2);                              /* D1 is not supported: nothing happens */
        assert_int_equal(t_rd(t, at, 2) & 3, 0);
        t_wr(t, at, 3, 2);
        assert_int_equal(t_rd(t, at, 2), 3 | (keeps ? PCI_PM_NO_SOFT_RESET : 0));
        assert_int_equal(hw_rd(T_MEM, 4), UINT32_MAX);
        assert_false(pci_bus_master(&t->pci));
        assert_int_equal(hw_line[line], 0);
        t_wr(t, at, 2, 2);
        assert_int_equal(t_rd(t, at, 2) & 3, 3);
        t_wr(t, at, 0, 2);
        t_settle();
        assert_int_equal(t->resets[RESET_FUNCTION], was + !keeps);
        assert_int_equal(t_rd(t, at, 2) & 3, 0);
        assert_int_equal(t_rd(t, PCI_COMMAND, 2), keeps ? 6 : 0);
        assert_int_equal(t->reg, keeps ? 0x77 : 0);
        assert_int_equal(hw_line[line], 1);
        t_remove(&t->pci.dev);
    }
}

/* ---- saved state ---- */

static void program(struct tdev *t)
{
    unsigned msi = t_cap(t, PCI_CAP_MSI), msix = t_cap(t, PCI_CAP_MSIX);
    t_wr(t, PCI_BAR0, T_MEM + 0x1000, 4);
    t_wr(t, PCI_BAR0 + 8, T_MEM + 0x10000, 4);
    t_wr(t, PCI_COMMAND, 6, 2);
    t_wr(t, msi + PCI_MSI_ADDR, T_MSI, 4);
    t_wr(t, msi + PCI_MSI_MASK, 1, 4);
    t_wr(t, msi + PCI_MSI_FLAGS, PCI_MSI_ENABLE, 2);
    pci_msi_notify(&t->pci, 0);
    hw_wr(T_MEM + 0x10000, T_MSI, 8);
    hw_wr(T_MEM + 0x10008, 40, 4);
    hw_wr(T_MEM + 0x1001c, 0, 4);
    t_wr(t, msix + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE, 2);
    pci_msi_notify(&t->pci, 0);
    pci_intx_set(&t->pci, 1);
    t->reg = 0xabcd;
}

static void state_round_trip(void **state)
{
    struct err e = ERR_INIT;
    struct str out = { 0 }, again = { 0 };
    WITH(.pm = true, .pm_keeps = true, .msi = true, .msix = true, .intx = true);
    struct tdev *t = t_new("tdev");
    program(t);
    state_save(&t_state, t, &out);
    t_remove(&t->pci.dev);
    t = t_new("tdev");
    if (!state_load(&t_state, t, out.s, out.len, &e))
        fail_msg("%s", e.msg);
    state_save(&t_state, t, &again);
    assert_int_equal(out.len, again.len);
    assert_memory_equal(out.s, again.s, out.len);
    assert_int_equal(hw_rd(T_MEM + 0x1000, 4), 0xabcd);
    assert_true(pci_msix_enabled(&t->pci) && pci_bus_master(&t->pci));
    assert_int_equal(hw_rd(T_MEM + 0x10800, 8), 1);
    assert_int_equal(t_rd(t, t_cap(t, PCI_CAP_MSI) + PCI_MSI_PENDING, 4), 1);
    assert_int_equal(hw_line[PCI_SLOT(t->pci.devfn) & 3], 0);
    unsigned before = t_msgs[40];
    hw_wr(T_MEM + 0x1000c, 0, 4);                       /* what was latched before comes out after */
    assert_int_equal(t_msgs[40], before + 1);
    t_wr(t, t_cap(t, PCI_CAP_MSIX) + PCI_MSIX_FLAGS, 0, 2);
    t_wr(t, t_cap(t, PCI_CAP_MSI) + PCI_MSI_FLAGS, 0, 2);
    assert_int_equal(hw_line[PCI_SLOT(t->pci.devfn) & 3], 1);
    t_remove(&t->pci.dev);
    str_free(&out);
    str_free(&again);
}

/* State of a different device is refused; flipped bits never get into what the guest cannot write. */
static void state_is_checked(void **state)
{
    struct err e = ERR_INIT;
    struct str out = { 0 };
    WITH(.msix = true);
    struct tdev *t = t_new("tdev");
    state_save(&t_state, t, &out);
    t_remove(&t->pci.dev);
    WITH(.msi = true);
    t = t_new("tdev");
    assert_false(state_load(&t_state, t, out.s, out.len, &e));
    t_remove(&t->pci.dev);
    WITH(.msix = true);
    t = t_new("tdev");
    unsigned msix = t_cap(t, PCI_CAP_MSIX), exp = exp_cap(t);
    for (size_t i = 0; i < out.len; i += 3) {
        out.s[i] ^= 0x14;
        bool ok = state_load(&t_state, t, out.s, out.len, &e);
        out.s[i] ^= 0x14;
        if (ok) {
            assert_int_equal(ld_le32(t->pci.config), 0x11e91234);
            assert_int_equal(t->pci.config[msix], PCI_CAP_MSIX);
            assert_int_equal(t->pci.config[exp], PCI_CAP_EXP);
        }
    }
    t_settle();
    t_remove(&t->pci.dev);
    str_free(&out);
}

/* ---- coming and going under a guest that looks ---- */

static atomic_bool stop;

static void *guest(void *arg)
{
    rcu_thread_register();
    while (!atomic_load(&stop)) {
        uint64_t v;
        pci_config_write(t_bus, 0, PCI_DEVFN(1, 0), PCI_BAR0, T_MEM, 4);
        pci_config_write(t_bus, 0, PCI_DEVFN(1, 0), PCI_COMMAND, 6, 2);
        uint32_t id = pci_config_read(t_bus, 0, PCI_DEVFN(1, 0), 0, 4);
        if (id != UINT32_MAX && id != 0x11e91234)
            abort();
        if (!as_read(&as_memory, T_MEM, &v, 4))
            abort();
    }
    rcu_thread_unregister();
    return NULL;
}

static void unplug_while_in_use(void **state)
{
    pthread_t th[2];
    WITH(.pm = true, .msi = true, .msix = true, .intx = true);
    for (int i = 0; i < 2; i++)
        pthread_create(&th[i], NULL, guest, NULL);
    for (int i = 0; i < 200; i++) {
        struct tdev *t = t_new("tdev");
        sched_yield();
        t_remove(&t->pci.dev);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(th[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(express_registers, t_setup), cmocka_unit_test(resets_reach_the_capabilities), cmocka_unit_test(sticky_bits),
        cmocka_unit_test(function_level_reset), cmocka_unit_test(power_states), cmocka_unit_test(state_round_trip),
        cmocka_unit_test(state_is_checked), cmocka_unit_test(unplug_while_in_use),
    };
    t_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
