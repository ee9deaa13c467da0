/* SPDX-License-Identifier: MIT */
/* Native hot plug: what a guest's driver sees of a slot, and what becomes of the functions in it. */
#include "pci_test.h"
#include "pci/slot.h"

#define WITH(...) (t_with = (__typeof__(t_with)){ __VA_ARGS__ })
enum { EVENTS = PCI_SLT_ABP | PCI_SLT_PDC | PCI_SLT_CC | PCI_SLT_DLLSC, ON = 0x100, BLINK = 0x200,
       ENABLE = PCI_SLTCTL_HPIE | PCI_SLT_ABP | PCI_SLT_PDC | PCI_SLTCTL_DLLSCE };

static struct dev *port;
static unsigned cap, port_line;
static char deleted[8][64];
static unsigned n_deleted;

static void on_deleted(const char *id, const char *path) { snprintf(deleted[n_deleted++ & 7], 64, "%s", id ? id : ""); }

static unsigned ctl(void) { return t_rd(port, cap + PCI_EXP_SLTCTL, 2); }
static unsigned sta(void) { return t_rd(port, cap + PCI_EXP_SLTSTA, 2); }
static bool link_up(void) { return t_rd(port, cap + PCI_EXP_LNKSTA, 2) & PCI_EXP_LNKSTA_DLLLA; }
static void command(unsigned v) { t_wr(port, cap + PCI_EXP_SLTCTL, v, 2); }
static void clear(void) { t_wr(port, cap + PCI_EXP_SLTSTA, EVENTS, 2); }

static void start(const char *hotplug)
{
    const char *const opts[][2] = { { "addr", "3" }, { "hotplug", hotplug }, { NULL, NULL } };
    n_deleted = 0;
    dev_deleted_event = on_deleted;
    port = t_new_on("pcie-root-port", &t_bus->bus, "rp", opts);
    dev_reset_tree(port, RESET_COLD);
    cap = t_cap(port, PCI_CAP_EXP);
    port_line = 3;
    t_wr(port, PCI_PRIMARY_BUS, 1 << 8 | 1 << 16, 4);
}

static struct tdev *plug_opts(const char *id, const char *addr, bool multi, struct err *e)
{
    json_t *o = json_pack("{ss ss ss ss ss}", "driver", "tdev", "id", id, "bus", "rp", "addr", addr, "multifunction", multi ? "on" : "off");
    struct dev *d = dev_create_from_opts(o, true, e);
    json_decref(o);
    return (struct tdev *)d;
}

static struct tdev *plug(const char *id)
{
    struct err e = ERR_INIT;
    struct tdev *t = plug_opts(id, "0", false, &e);
    if (!t)
        fail_msg("%s", e.msg);
    return t;
}

static void slot_registers(void **state)
{
    start("on");
    assert_true(t_rd(port, cap + PCI_EXP_FLAGS, 2) & PCI_EXP_FLAGS_SLOT);
    assert_int_equal(t_rd(port, cap + PCI_EXP_SLTCAP, 4) & 0x7f, 0x5b);
    assert_int_equal(ctl(), 0x3c0);                             /* empty: indicators off */
    assert_int_equal(sta(), 0);
    command(BLINK | ENABLE);
    assert_int_equal(sta(), PCI_SLT_CC);
    clear();
    assert_int_equal(sta(), 0);
    t_remove(port);
    start("off");
    assert_int_equal(t_rd(port, cap + PCI_EXP_SLTCAP, 4) & 0x7f, 0);
    command(0xffff);
    assert_int_equal(ctl(), 0);
    assert_int_equal(sta(), 0);
    t_remove(port);
}

/* Plugged before the start: present, powered, linked, and no event of it. */
static void present_from_the_start(void **state)
{
    WITH(.intx = true);
    start("on");
    t_new_on("tdev", bus_find("rp"), "c", NULL);
    dev_reset_tree(port, RESET_COLD);
    t_wr(port, PCI_PRIMARY_BUS, 1 << 8 | 1 << 16, 4);
    assert_int_equal(ctl(), ON | 0xc0);
    assert_int_equal(sta(), PCI_SLT_PDS);
    assert_true(link_up());
    assert_int_equal(t_rd_at(1, 0, 0, 4), 0x11e91234);
    t_remove(port);
}

/* The whole life as Linux' pciehp leads it. */
static void plug_power_unplug(void **state)
{
    struct err e = ERR_INIT;
    WITH(.intx = true);
    start("on");
    command(ENABLE | 0x3c0 | PCI_SLTCTL_PCC);
    clear();
    assert_int_equal(hw_line[port_line], 0);
    struct tdev *t = plug("hot");
    assert_int_equal(t->resets[RESET_COLD], 1);
    assert_int_equal(sta(), PCI_SLT_PDS | PCI_SLT_PDC);
    assert_int_equal(hw_line[port_line], 1);
    assert_false(link_up());
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);          /* no power yet */
    clear();
    assert_int_equal(hw_line[port_line], 0);
    command(ENABLE | BLINK | 0xc0);
    t_settle();
    assert_true(link_up());
    assert_int_equal(sta() & ~(unsigned)PCI_SLT_CC, PCI_SLT_PDS | PCI_SLT_DLLSC);
    assert_int_equal(t_rd_at(1, 0, 0, 4), 0x11e91234);
    command(ENABLE | ON | 0xc0);
    clear();
    /* away */
    assert_true(dev_unplug_request(&t->pci.dev, &e));
    t_settle();
    assert_int_equal(sta() & PCI_SLT_ABP, PCI_SLT_ABP);
    assert_int_equal(hw_line[port_line], 1);
    assert_int_equal(n_deleted, 0);                             /* it waits for the guest */
    assert_int_equal(t_rd_at(1, 0, 0, 4), 0x11e91234);
    assert_false(dev_unplug_request(&t->pci.dev, &e));
    assert_non_null(strstr(e.msg, "has not answered yet"));
    clear();
    command(ENABLE | BLINK | 0xc0);
    assert_false(dev_unplug_request(&t->pci.dev, &e));
    assert_non_null(strstr(e.msg, "busy"));
    command(ENABLE | 0x3c0 | PCI_SLTCTL_PCC);
    assert_false(link_up());
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);
    t_settle();
    assert_int_equal(n_deleted, 1);
    assert_string_equal(deleted[0], "hot");
    assert_int_equal(sta() & (PCI_SLT_PDS | PCI_SLT_PDC), PCI_SLT_PDC);
    assert_null(obj_find("device", "hot"));
    clear();
    plug("again");
    assert_int_equal(sta(), PCI_SLT_PDS | PCI_SLT_PDC);
    t_remove(port);
}

/* The guest may turn the power off and on by itself: the device stays, and comes back freshly reset. */
static void power_cycle(void **state)
{
    WITH(.intx = true);
    start("on");
    command(0xc0);
    struct tdev *t = plug("hot");
    t_settle();
    t_wr_at(1, 0, PCI_INT_LINE, 5, 1);
    t->reg = 5;
    command(PCI_SLTCTL_PCC);
    command(0);
    t_settle();
    assert_int_equal(t_rd_at(1, 0, PCI_INT_LINE, 1), 0);
    assert_int_equal(t->reg, 0);
    command(PCI_SLTCTL_PCC);
    t_settle();
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);
    assert_int_equal(n_deleted, 0);
    struct err e = ERR_INIT;
    assert_true(dev_unplug_request(&t->pci.dev, &e));           /* the power is off: nobody to ask */
    t_settle();
    assert_int_equal(n_deleted, 1);
    t_remove(port);
}

/* No driver for the slot: what is plugged in is there when the guest looks. */
static void without_a_driver(void **state)
{
    WITH(.intx = true);
    start("on");
    plug("hot");
    assert_true(link_up());
    assert_int_equal(sta(), PCI_SLT_PDS | PCI_SLT_PDC | PCI_SLT_DLLSC);
    assert_int_equal(hw_line[port_line], 0);
    assert_int_equal(t_rd_at(1, 0, 0, 4), 0x11e91234);
    t_remove(port);
}

static void reset_ends_a_request(void **state)
{
    struct err e = ERR_INIT;
    WITH(.intx = true);
    start("on");
    command(0);
    struct tdev *t = plug("hot");
    assert_true(dev_unplug_request(&t->pci.dev, &e));
    bus_reset_tree(&t_bus->bus, RESET_WARM);
    t_settle();
    assert_int_equal(n_deleted, 1);
    t_remove(port);
}

/* Functions come in the order 1, 2, ... 0 and go together. */
static void multifunction(void **state)
{
    struct err e = ERR_INIT;
    WITH(.intx = true);
    start("on");
    command(ENABLE);
    clear();
    struct tdev *f1 = plug_opts("f1", "0.1", false, &e);
    assert_non_null(f1);
    assert_int_equal(sta(), 0);                                 /* nothing is told before function 0 is there */
    assert_true(dev_unplug_request(&f1->pci.dev, &e));          /* and it can be taken back */
    t_settle();
    assert_int_equal(n_deleted, 1);
    assert_non_null(plug_opts("f1", "0.1", false, &e));
    assert_null(plug_opts("f0", "0", false, &e));
    assert_non_null(strstr(e.hint, "multifunction=on"));
    struct tdev *f0 = plug_opts("f0", "0", true, &e);
    assert_non_null(f0);
    assert_int_equal(sta() & PCI_SLT_PDC, PCI_SLT_PDC);
    assert_null(plug_opts("f2", "0.2", false, &e));
    assert_non_null(strstr(e.msg, "would not see function 2"));
    assert_true(dev_unplug_request(&f0->pci.dev, &e));
    command(ENABLE | PCI_SLTCTL_PCC);
    t_settle();
    assert_int_equal(n_deleted, 3);
    assert_string_equal(deleted[1], "f1");
    assert_string_equal(deleted[2], "f0");
    t_remove(port);
}

static void refusals(void **state)
{
    struct err e = ERR_INIT;
    WITH(.intx = true);
    start("on");
    assert_null(plug_opts("x", "1", false, &e));
    assert_string_equal(e.msg, "bus 'rp' has no slot 1");
    json_t *o = json_pack("{ss ss}", "driver", "tdev", "bus", "pcie.0");
    assert_null(dev_create_from_opts(o, true, &e));
    assert_string_equal(e.msg, "bus 'pcie.0' does not take devices while the machine runs");
    assert_string_equal(e.hint, "these do: rp");
    json_object_set_new(o, "bus", json_string("rp.0"));         /* the other name of the port's bus */
    assert_non_null(dev_create_from_opts(o, true, &e));
    json_object_del(o, "bus");
    assert_null(dev_create_from_opts(o, true, &e));
    assert_string_equal(e.msg, "bus 'rp' is full: no place for 'tdev'");
    t_remove(port);
    assert_null(dev_create_from_opts(o, true, &e));
    assert_string_equal(e.msg, "no PCI bus here takes devices while the machine runs");
    json_decref(o);
}

static void messages(void **state)
{
    WITH(.intx = true);
    start("on");
    unsigned msix = t_cap(port, PCI_CAP_MSIX), was = t_msgs[50];
    t_wr(port, PCI_BAR0, T_MEM, 4);
    t_wr(port, PCI_COMMAND, 6, 2);
    hw_wr(T_MEM, T_MSI, 8);
    hw_wr(T_MEM + 8, 50, 4);
    hw_wr(T_MEM + 12, 0, 4);
    t_wr(port, msix + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE, 2);
    command(ENABLE | PCI_SLTCTL_PCC);
    clear();
    plug("hot");
    assert_int_equal(t_msgs[50], was + 1);
    assert_int_equal(hw_line[port_line], 0);
    command(ENABLE);
    t_settle();
    assert_int_equal(t_msgs[50], was + 1);                      /* one more event under a message that is not yet served */
    clear();
    t_remove(&((struct pcie_slot *)port)->br.sec->fn[0]->dev);
    assert_int_equal(t_msgs[50], was + 2);                      /* surprise */
    assert_int_equal(sta() & (PCI_SLT_PDC | PCI_SLT_DLLSC | PCI_SLT_PDS), PCI_SLT_PDC | PCI_SLT_DLLSC);
    t_remove(port);
}

static void slot_numbers(void **state)
{
    static const char *const n7[][2] = { { "slot", "7" }, { NULL, NULL } }, *const ch[][2] = { { "slot", "7" }, { "chassis", "1" }, { NULL, NULL } };
    struct err e = ERR_INIT;
    struct dev *a = t_new_on("pcie-root-port", &t_bus->bus, "a", n7), *b = t_new_on("pcie-root-port", &t_bus->bus, "b", NULL);
    assert_null(t_try("pcie-root-port", &t_bus->bus, "c", n7, &e));
    assert_string_equal(e.msg, "slot 7 of chassis 0 is that of 'a'");
    struct dev *c = t_new_on("pcie-root-port", &t_bus->bus, "c", ch);
    assert_null(t_try("pcie-root-port", bus_find("a"), "d", NULL, &e));
    assert_string_equal(e.msg, "a root port belongs on a root bus, and 'a' is none");
    assert_int_equal(t_rd(a, t_cap(a, PCI_CAP_EXP) + PCI_EXP_SLTCAP, 4) >> 19, 7);
    assert_int_not_equal(t_rd(b, t_cap(b, PCI_CAP_EXP) + PCI_EXP_SLTCAP, 4) >> 19, 7);
    t_remove(a);
    t_remove(b);
    t_remove(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(slot_registers, t_setup), cmocka_unit_test(present_from_the_start), cmocka_unit_test(plug_power_unplug),
        cmocka_unit_test(power_cycle), cmocka_unit_test(without_a_driver), cmocka_unit_test(reset_ends_a_request), cmocka_unit_test(multifunction),
        cmocka_unit_test(refusals), cmocka_unit_test(messages), cmocka_unit_test(slot_numbers),
    };
    t_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
