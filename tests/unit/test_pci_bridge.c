/* SPDX-License-Identifier: MIT */
/* Bridges: bus numbers, windows, interrupts, bus mastering and resets of what is below. */
#include "pci_test.h"
#include "pci/bridge.h"

#define WITH(...) (t_with = (__typeof__(t_with)){ __VA_ARGS__ })

/* ---- a root port, a conventional bridge below it, functions below that ---- */
static struct dev *port, *bridge;

static void number(unsigned at_bus, unsigned devfn, unsigned sec, unsigned sub)
{
    t_wr_at(at_bus, devfn, PCI_PRIMARY_BUS, at_bus | sec << 8 | sub << 16, 4);
}

/* Opens memory from @base to @end, decode and mastering on. */
static void forward(unsigned at_bus, unsigned devfn, uint32_t base, uint32_t end)
{
    t_wr_at(at_bus, devfn, PCI_MEM_BASE, base >> 16 | ((end - 1) & 0xfff00000), 4);
    t_wr_at(at_bus, devfn, PCI_COMMAND, 7, 2);
}

static void build(void)
{
    static const char *const slot3[][2] = { { "addr", "3" }, { NULL, NULL } };
    port = t_new_on("pcie-root-port", &t_bus->bus, "rp", slot3);
    bridge = t_new_on("pci-bridge", bus_find("rp"), "br", NULL);
}

static unsigned port_fn(void) { return (unsigned)PCI_DEV(port)->devfn; }
static void demolish(void) { t_remove(port); }

static struct tdev *below(unsigned slot)
{
    char addr[8];
    snprintf(addr, sizeof addr, "%x", slot);
    const char *const opts[][2] = { { "addr", addr }, { NULL, NULL } };
    return (struct tdev *)t_new_on("tdev", bus_find("br"), NULL, opts);
}

static void number_all(void)
{
    number(0, port_fn(), 1, 4);
    number(1, 0, 4, 4);
}

static void configuration_is_routed(void **state)
{
    WITH(.intx = false);
    build();
    struct tdev *t = below(5);
    assert_int_equal(t_rd_at(0, port_fn(), PCI_HEADER_TYPE, 1), PCI_HEADER_BRIDGE);
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);
    number(0, port_fn(), 1, 4);
    assert_int_equal(t_rd_at(1, 0, 0, 4), 0x00011b36);
    assert_int_equal(t_rd_at(4, PCI_DEVFN(5, 0), 0, 4), UINT32_MAX);
    number(1, 0, 4, 4);
    assert_int_equal(t_rd_at(4, PCI_DEVFN(5, 0), 0, 4), 0x11e91234);
    assert_int_equal(t_rd_at(4, PCI_DEVFN(6, 0), 0, 4), UINT32_MAX);
    assert_int_equal(t_rd_at(2, 0, 0, 4), UINT32_MAX);
    assert_int_equal(t_rd_at(5, PCI_DEVFN(5, 0), 0, 4), UINT32_MAX);
    assert_int_equal(pci_bus_number(t->pci.pbus), 4);
    number(0, port_fn(), 1, 3);                 /* the port no longer claims 4 */
    assert_int_equal(t_rd_at(4, PCI_DEVFN(5, 0), 0, 4), UINT32_MAX);
    demolish();
    assert_null(bus_find("rp"));
    assert_null(bus_find("br"));
}

/* An address is reached if every bridge on the way has it in a window and decodes; sizes in steps of a MiB. */
static void windows_gate_memory(void **state)
{
    WITH(.intx = false);
    build();
    struct tdev *t = below(0);
    unsigned bar = T_MEM + 0x300000;
    number_all();
    t_wr_at(4, 0, PCI_BAR0, bar, 4);
    t_wr_at(4, 0, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    t->reg = 0x1234;
    assert_int_equal(hw_rd(bar, 4), UINT32_MAX);
    forward(1, 0, bar, bar + 0x100000);
    assert_int_equal(hw_rd(bar, 4), UINT32_MAX);
    forward(0, port_fn(), bar, bar + 0x100000);
    assert_int_equal(hw_rd(bar, 4), 0x1234);
    hw_wr(bar, 0x77, 4);
    assert_int_equal(t->reg, 0x77);
    t_wr_at(0, port_fn(), PCI_COMMAND, 0, 2);
    assert_int_equal(hw_rd(bar, 4), UINT32_MAX);
    t_wr_at(0, port_fn(), PCI_COMMAND, 7, 2);
    assert_int_equal(hw_rd(bar, 4), 0x77);
    forward(0, port_fn(), bar + 0x100000, bar);                 /* base above limit: closed */
    assert_int_equal(hw_rd(bar, 4), UINT32_MAX);
    forward(0, port_fn(), bar - 0x100000, bar);                 /* another place */
    assert_int_equal(hw_rd(bar, 4), UINT32_MAX);
    forward(0, port_fn(), bar, bar + 0x100000);
    forward(1, 0, bar + 0x100000, bar);
    assert_int_equal(hw_rd(bar, 4), UINT32_MAX);
    demolish();
}

static void prefetchable_window_has_64_bits(void **state)
{
    static struct region high;
    uint64_t at = UINT64_C(0x500000000);
    WITH(.msix = true);
    region_init_alias(&high, "high", t_bus->mem, at, 0x10000000);
    region_add(&hw_root, at, &high, 0);
    build();
    below(0);
    number_all();
    t_wr_at(4, 0, PCI_BAR0 + 8, (uint32_t)at + 0x200000, 4);
    t_wr_at(4, 0, PCI_BAR0 + 12, (uint32_t)(at >> 32), 4);
    t_wr_at(4, 0, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    for (unsigned level = 0; level < 2; level++) {
        unsigned devfn = level ? 0 : port_fn();
        assert_int_equal(hw_rd(at + 0x20000c, 4), UINT32_MAX);
        t_wr_at(level, devfn, PCI_PREF_BASE, 0x0021u | 0x0021u << 16, 4);
        t_wr_at(level, devfn, PCI_PREF_BASE_UP, (uint32_t)(at >> 32), 4);
        t_wr_at(level, devfn, PCI_PREF_LIMIT_UP, (uint32_t)(at >> 32), 4);
        t_wr_at(level, devfn, PCI_COMMAND, 7, 2);
    }
    assert_int_equal(hw_rd(at + 0x20000c, 4), 1);               /* MSI-X vector 0 is masked */
    demolish();
    region_fini(&high);
}

/* Any register values: the machine lives, and memory outside the windows is not touched. */
static void random_windows(void **state)
{
    WITH(.intx = true);
    build();
    struct tdev *t = below(0);
    number_all();
    for (unsigned i = 0; i < 3000; i++) {
        unsigned bus = hw_rand(3), devfn = bus ? 0 : port_fn(), reg = 4 * hw_rand(16);
        if (bus == 2)
            bus = 4;
        if (reg == PCI_PRIMARY_BUS && bus != 4)
            continue;
        uint32_t v = hw_rand(4) ? hw_rand(UINT32_MAX) : hw_rand(2) ? 0 : UINT32_MAX;
        if (reg == PCI_INT_LINE)
            v &= ~((uint32_t)PCI_BRIDGE_CTL_RESET << 16);
        t_wr_at(bus, devfn, reg, v, 4);
        (void)hw_rd(T_MEM + 16 * hw_rand(0x1000000), 4);
    }
    assert_int_equal(t_rd_at(4, 0, 0, 4), 0x11e91234);
    assert_ptr_equal(t->pci.pbus, bus_find("br"));
    demolish();
}

/* Pins rotate by the slot on a conventional bus, and by the port's slot on the root bus. */
static void interrupts_rotate(void **state)
{
    WITH(.intx = true);
    build();
    for (unsigned slot = 0; slot < 5; slot++) {
        struct tdev *t = below(slot);
        unsigned line = (slot + 0 + PCI_SLOT(port_fn())) & 3;   /* INTA, the bridge in slot 0, the port's slot */
        pci_intx_set(&t->pci, 1);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(hw_line[i], i == line);
        t_remove(&t->pci.dev);
        assert_int_equal(hw_line[line], 0);
    }
    demolish();
}

static void mastering_needs_every_bridge(void **state)
{
    WITH(.msi = true);
    uint32_t word = 0;
    build();
    struct tdev *t = below(0);
    struct dma *dma = &t->pci.dma;
    number_all();
    t_wr_at(4, 0, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
    assert_false(dma_read(dma, HW_RAM, &word, 4));
    t_wr_at(0, port_fn(), PCI_COMMAND, PCI_COMMAND_MASTER, 2);
    assert_false(dma_read(dma, HW_RAM, &word, 4));
    t_wr_at(1, 0, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
    assert_true(dma_read(dma, HW_RAM, &word, 4));
    t_wr_at(0, port_fn(), PCI_COMMAND, 0, 2);
    assert_false(dma_read(dma, HW_RAM, &word, 4));
    t_wr_at(0, port_fn(), PCI_COMMAND, PCI_COMMAND_MASTER, 2);
    assert_true(dma_read(dma, HW_RAM, &word, 4));
    t_wr_at(4, 0, PCI_COMMAND, 0, 2);
    assert_false(dma_read(dma, HW_RAM, &word, 4));
    demolish();
}

static void secondary_bus_reset(void **state)
{
    WITH(.intx = false);
    build();
    struct tdev *t = below(0);
    unsigned was = t->resets[RESET_BUS];
    number_all();
    t_wr_at(4, 0, PCI_INT_LINE, 9, 1);
    t_wr_at(0, port_fn(), PCI_BRIDGE_CTL, PCI_BRIDGE_CTL_RESET, 2);
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);
    t_settle();
    assert_int_equal(t->resets[RESET_BUS], was + 1);
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);          /* as long as the bit is set */
    t_wr_at(0, port_fn(), PCI_BRIDGE_CTL, 0, 2);
    assert_int_equal(t->resets[RESET_BUS], was + 1);
    assert_int_equal(t_rd_at(1, 0, 0, 4), 0x00011b36);          /* at once: Linux may write what it saved right after */
    assert_int_equal(t_rd_at(4, 0, 0, 4), UINT32_MAX);          /* the bridge below lost its numbers */
    number(1, 0, 4, 4);
    assert_int_equal(t_rd_at(4, 0, PCI_INT_LINE, 1), 0);
    t_wr_at(1, 0, PCI_BRIDGE_CTL, PCI_BRIDGE_CTL_RESET, 2);     /* set and cleared at once: still a reset */
    t_wr_at(1, 0, PCI_BRIDGE_CTL, 0, 2);
    t_settle();
    assert_int_equal(t->resets[RESET_BUS], was + 2);
    assert_int_equal(t_rd_at(4, 0, 0, 4), 0x11e91234);
    t_wr_at(0, port_fn(), PCI_BRIDGE_CTL, PCI_BRIDGE_CTL_RESET, 2);
    demolish();                                                 /* with the reset still to come */
    t_settle();
}

/* A switch with two lower ports: each number range leads to its own slot; memory goes to the one whose windows are open. */
/* The machine is reset while the guest holds buses in reset, or has just asked for it: they are as new, and nothing is to come. */
static void machine_reset_ends_bus_resets(void **state)
{
    WITH(.intx = false);
    build();
    struct tdev *t = below(0);
    unsigned was = t->resets[RESET_BUS];
    number_all();
    t_wr_at(1, 0, PCI_BRIDGE_CTL, PCI_BRIDGE_CTL_RESET, 2);
    t_settle();
    assert_int_equal(t->resets[RESET_BUS], was + 1);
    for (unsigned i = 0; i < 3; i++) {
        if (i)
            t_wr_at(i - 1, i == 1 ? port_fn() : 0, PCI_BRIDGE_CTL, PCI_BRIDGE_CTL_RESET, 2);
        bus_reset_tree(&t_bus->bus, RESET_WARM);
        number_all();
        assert_int_equal(t_rd_at(4, 0, 0, 4), 0x11e91234);
        t_wr_at(4, 0, PCI_INT_LINE, 9, 1);
        t_settle();
        assert_int_equal(t->resets[RESET_BUS], was + 1);
        assert_int_equal(t_rd_at(4, 0, PCI_INT_LINE, 1), 9);
    }
    demolish();
}

static void switch_routes(void **state)
{
    WITH(.intx = true);
    struct err e = ERR_INIT;
    static const char *const slot3[][2] = { { "addr", "3" }, { NULL, NULL } };
    port = t_new_on("pcie-root-port", &t_bus->bus, "rp", slot3);
    json_t *o = json_pack("{ss ss}", "driver", "x3130-upstream", "bus", "pcie.0");
    assert_null(dev_create_from_opts(o, false, &e));
    assert_string_equal(e.msg, "bus 'pcie.0' is a PCIE bus; device 'x3130-upstream' plugs into PCIE-PORT");
    json_decref(o);
    t_new_on("x3130-upstream", bus_find("rp"), "up", NULL);
    t_new_on("xio3130-downstream", bus_find("up"), "d0", NULL);
    t_new_on("xio3130-downstream", bus_find("up"), "d1", NULL);
    t_new_on("pcie-pci-bridge", bus_find("d0"), "conv", NULL);
    struct tdev *a = (struct tdev *)t_new_on("tdev", bus_find("conv"), NULL, slot3), *b = (struct tdev *)t_new_on("tdev", bus_find("d1"), NULL, NULL);
    number(0, port_fn(), 1, 9);
    number(1, 0, 2, 9);
    number(2, 0, 3, 4);
    number(2, PCI_DEVFN(1, 0), 9, 9);
    number(3, 0, 4, 4);
    assert_int_equal(t_rd_at(2, PCI_DEVFN(2, 0), 0, 4), UINT32_MAX);
    assert_int_equal(t_rd_at(4, PCI_DEVFN(3, 0), 0, 4), 0x11e91234);
    assert_int_equal(t_rd_at(9, 0, 0, 4), 0x11e91234);
    assert_int_equal(t_rd_at(5, 0, 0, 4), UINT32_MAX);
    a->reg = 0xa;
    b->reg = 0xb;
    t_wr_at(4, PCI_DEVFN(3, 0), PCI_BAR0, T_MEM, 4);
    t_wr_at(9, 0, PCI_BAR0, T_MEM + 0x100000, 4);
    t_wr_at(4, PCI_DEVFN(3, 0), PCI_COMMAND, 6, 2);
    t_wr_at(9, 0, PCI_COMMAND, 6, 2);
    forward(0, port_fn(), T_MEM, T_MEM + 0x200000);
    forward(1, 0, T_MEM, T_MEM + 0x200000);
    forward(2, 0, T_MEM, T_MEM + 0x100000);
    forward(3, 0, T_MEM, T_MEM + 0x100000);
    assert_int_equal(hw_rd(T_MEM, 4), 0xa);
    assert_int_equal(hw_rd(T_MEM + 0x100000, 4), UINT32_MAX);
    forward(2, PCI_DEVFN(1, 0), T_MEM + 0x100000, T_MEM + 0x200000);
    assert_int_equal(hw_rd(T_MEM + 0x100000, 4), 0xb);
    pci_intx_set(&b->pci, 1);
    assert_int_equal(hw_line[(0 + 1 + 0 + 3) & 3], 1);          /* slot 1 of the switch, slot 3 of the root bus */
    unsigned pm = 0;
    for (unsigned at = t_rd_at(1, 0, PCI_CAP_PTR, 1); at; at = t_rd_at(1, 0, at + 1, 1))
        pm = t_rd_at(1, 0, at, 1) == PCI_CAP_PM ? at : pm;
    t_wr_at(1, 0, pm + PCI_PM_CTRL, 3, 2);                      /* the upper port sleeps: nothing below is reached */
    assert_int_equal(hw_rd(T_MEM, 4), UINT32_MAX);
    assert_int_equal(t_rd_at(9, 0, 0, 4), UINT32_MAX);
    t_wr_at(1, 0, pm + PCI_PM_CTRL, 0, 2);
    assert_int_equal(hw_rd(T_MEM, 4), 0xa);
    assert_int_equal(t_rd_at(9, 0, 0, 4), 0x11e91234);
    demolish();
}

static void reset_closes_the_bridge(void **state)
{
    WITH(.intx = false);
    build();
    struct tdev *t = below(0);
    number_all();
    forward(0, port_fn(), T_MEM, T_MEM + 0x100000);
    forward(1, 0, T_MEM, T_MEM + 0x100000);
    t_wr_at(4, 0, PCI_BAR0, T_MEM, 4);
    t_wr_at(4, 0, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    t->reg = 3;
    assert_int_equal(hw_rd(T_MEM, 4), 3);
    bus_reset_tree(&t_bus->bus, RESET_WARM);
    assert_int_equal(hw_rd(T_MEM, 4), UINT32_MAX);
    assert_int_equal(t_rd_at(1, 0, 0, 4), UINT32_MAX);
    demolish();
}

static void state_comes_back(void **state)
{
    struct err e = ERR_INIT;
    struct str out = { 0 };
    WITH(.intx = false);
    build();
    number_all();
    forward(0, port_fn(), T_MEM, T_MEM + 0x200000);
    state_save(DEV_CLASS(port)->state, port, &out);
    demolish();
    build();
    below(1)->reg = 8;
    if (!state_load(DEV_CLASS(port)->state, port, out.s, out.len, &e))
        fail_msg("%s", e.msg);
    number(1, 0, 4, 4);
    forward(1, 0, T_MEM, T_MEM + 0x200000);
    t_wr_at(4, PCI_DEVFN(1, 0), PCI_BAR0, T_MEM + 0x1000, 4);
    t_wr_at(4, PCI_DEVFN(1, 0), PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    assert_int_equal(hw_rd(T_MEM + 0x1000, 4), 8);
    demolish();
    str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(configuration_is_routed, t_setup), cmocka_unit_test(windows_gate_memory),
        cmocka_unit_test(prefetchable_window_has_64_bits), cmocka_unit_test(random_windows), cmocka_unit_test(interrupts_rotate),
        cmocka_unit_test(mastering_needs_every_bridge), cmocka_unit_test(secondary_bus_reset), cmocka_unit_test(machine_reset_ends_bus_resets),
        cmocka_unit_test(switch_routes), cmocka_unit_test(reset_closes_the_bridge),
        cmocka_unit_test(state_comes_back),
    };
    t_unused();
    (void)tdev_conv_class;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
