/* SPDX-License-Identifier: MIT */
/* Physical and virtual functions: the capability, how VFs come and go, where their BARs are, what they may do. */
#include "pci_test.h"
#include "pci/sriov.h"

enum { TOTAL = 5, FIRST = 2, STRIDE = 1 };
static uint16_t first_offset = FIRST;
static unsigned told = 99;
static bool vf_fails;

/* ---- a PF with five VFs of one 4 KiB BAR and two MSI-X vectors ---- */
struct vf { struct pci_dev pci; struct region bar0, bar2; uint32_t reg; unsigned resets; };

static uint64_t vf_read(void *o, uint64_t off, unsigned size) { return off ? 0 : ((struct vf *)o)->reg; }
static void vf_write(void *o, uint64_t off, uint64_t v, unsigned size) { ((struct vf *)o)->reg = (uint32_t)v; }
static const struct mmio_ops vf_ops = { .read = vf_read, .write = vf_write, .min = 4, .max = 4 };

static bool vf_realize(struct dev *dev, struct err *e)
{
    struct vf *v = (struct vf *)dev;
    if (vf_fails && pci_sriov_index(&v->pci) == 3)
        return err_set(e, ERR_GENERIC, "the fourth fails");
    region_init_mmio(&v->bar0, "vf0", 0x1000, &vf_ops, v, dev->dom);
    region_init_container(&v->bar2, "vf2", 0x1000);
    pci_bar_add(&v->pci, 0, PCI_BAR_MEM64, &v->bar0);
    pci_bar_add(&v->pci, 2, PCI_BAR_MEM64, &v->bar2);
    return pci_msix_init(&v->pci, 2, 2, 0, 0x800, &v->bar2, e);
}
static void vf_unrealize(struct dev *dev)
{
    region_fini(&((struct vf *)dev)->bar0);
    region_fini(&((struct vf *)dev)->bar2);
}
static void vf_reset(struct dev *dev, enum reset_kind k)
{
    ((struct vf *)dev)->reg = 0;
    ((struct vf *)dev)->resets++;
}
static const struct pci_class vf_class = {
    .dev = { .obj = { .name = "test-vf", .desc = "Virtual function", .base = &pci_dev_class.dev.obj, .size = sizeof(struct vf), .flags = OCF_INTERNAL },
             .cat = "Misc", .plugs_into = &pci_bus_class, .realize = vf_realize, .unrealize = vf_unrealize, .reset = vf_reset, .state_none = "test" },
    .vendor = 0x1234, .device = 0x5679, .class_code = 0x00ff00, .express = true,
};
OBJ_CLASS(&vf_class.dev.obj);

static void changed(struct pci_dev *pf, unsigned n) { told = n; }

static void pf_unrealize(struct dev *dev) { pci_sriov_fini(PCI_DEV(dev)); }

static bool pf_realize(struct dev *dev, struct err *e)
{
    struct pci_sriov_opts o = { .vf_class = &vf_class.dev, .total = TOTAL, .first_offset = first_offset, .stride = STRIDE, .changed = changed };
    struct pci_dev *d = PCI_DEV(dev);
    if (!pci_sriov_init(d, &o, e))
        return false;
    pci_sriov_bar(d, 0, PCI_BAR_MEM64, 0x1000);
    pci_sriov_bar(d, 2, PCI_BAR_MEM64, 0x1000);
    if (pci_sriov_create(d, e))
        return true;
    pf_unrealize(dev);
    return false;
}
static const struct pci_class pf_class = {
    .dev = { .obj = { .name = "test-pf", .desc = "Physical function", .base = &pci_dev_class.dev.obj, .size = sizeof(struct pci_dev) },
             .cat = "Misc", .plugs_into = &pci_bus_class, .realize = pf_realize, .unrealize = pf_unrealize, .state = &pci_dev_state, .hotplug = true },
    .vendor = 0x1234, .device = 0x5678, .class_code = 0x00ff00, .express = true,
};
OBJ_CLASS(&pf_class.dev.obj);

enum { CAP = 0x100 };

static struct pci_dev *start(void)
{
    static const char *const opts[][2] = { { "addr", "8" }, { NULL, NULL } };
    return PCI_DEV(t_new_on("test-pf", &t_bus->bus, "pf", opts));
}
static uint32_t vf_rd(const struct pci_dev *pf, unsigned i, uint32_t off, unsigned size)
{
    return t_rd_at(0, (unsigned)pf->devfn + FIRST + i * STRIDE, off, size);
}
static struct vf *vf(const struct pci_dev *pf, unsigned i) { return (struct vf *)pci_sriov_vf(pf, i); }
static void enable(const struct pci_dev *pf, unsigned n)
{
    t_wr(pf, CAP + PCI_SRIOV_NUM, n, 2);
    t_wr(pf, CAP + PCI_SRIOV_CTRL, PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE, 2);
}

static void capability(void **state)
{
    struct pci_dev *pf = start();
    assert_int_equal(t_rd(pf, CAP, 2), PCI_EXT_SRIOV);
    assert_int_equal(t_rd(pf, CAP + PCI_SRIOV_INITIAL, 4), TOTAL | TOTAL << 16);
    assert_int_equal(t_rd(pf, CAP + PCI_SRIOV_OFFSET, 4), FIRST | STRIDE << 16);
    assert_int_equal(t_rd(pf, CAP + PCI_SRIOV_DEVICE, 2), 0x5679);
    t_wr(pf, CAP + PCI_SRIOV_BAR0, UINT32_MAX, 4);
    assert_int_equal(t_rd(pf, CAP + PCI_SRIOV_BAR0, 4), 0xfffff004);
    t_wr(pf, CAP + PCI_SRIOV_SYS_PAGE, 0x10, 4);                /* pages of 64 KiB */
    t_wr(pf, CAP + PCI_SRIOV_BAR0, UINT32_MAX, 4);
    assert_int_equal(t_rd(pf, CAP + PCI_SRIOV_BAR0, 4), 0xffff0004);
    t_remove(&pf->dev);
}

static void functions_come_and_go(void **state)
{
    struct pci_dev *pf = start();
    assert_int_equal(vf_rd(pf, 0, 0, 4), UINT32_MAX);
    enable(pf, 3);
    assert_int_equal(told, 3);
    assert_int_equal(pci_sriov_enabled(pf), 3);
    for (unsigned i = 0; i < TOTAL; i++) {
        assert_int_equal(vf_rd(pf, i, PCI_CLASS_PROG - 1, 4), i < 3 ? 0x00ff0000 : UINT32_MAX);
        assert_int_equal(vf_rd(pf, i, 0, 4), UINT32_MAX);       /* a VF's own identity reads as ones, 9.3.4.1.1 */
    }
    t_wr(pf, CAP + PCI_SRIOV_NUM, 5, 2);                        /* stands while enabled */
    assert_int_equal(t_rd(pf, CAP + PCI_SRIOV_NUM, 2), 3);
    unsigned was = vf(pf, 1)->resets;
    vf(pf, 1)->reg = 9;
    t_wr(pf, CAP + PCI_SRIOV_CTRL, 0, 2);
    assert_int_equal(told, 0);
    assert_int_equal(vf_rd(pf, 1, PCI_CLASS_PROG - 1, 4), UINT32_MAX);
    t_settle();
    assert_int_equal(vf(pf, 1)->resets, was + 1);
    assert_int_equal(vf(pf, 1)->reg, 0);
    t_wr(pf, CAP + PCI_SRIOV_NUM, TOTAL + 1, 2);                /* more than there are: none */
    t_wr(pf, CAP + PCI_SRIOV_CTRL, PCI_SRIOV_CTRL_VFE, 2);
    assert_int_equal(pci_sriov_enabled(pf), 0);
    t_wr(pf, CAP + PCI_SRIOV_CTRL, 0, 2);
    enable(pf, TOTAL);
    assert_int_equal(vf_rd(pf, 4, PCI_CLASS_PROG - 1, 4), 0x00ff0000);
    dev_reset_tree(&pf->dev, RESET_FUNCTION);                   /* the PF's reset takes them away */
    assert_int_equal(vf_rd(pf, 0, PCI_CLASS_PROG - 1, 4), UINT32_MAX);
    assert_int_equal(pci_sriov_enabled(pf), 0);
    t_remove(&pf->dev);
    t_settle();
}

static void bars_follow_each_other(void **state)
{
    struct pci_dev *pf = start();
    static const uint32_t pages[] = { 1, 0x10 };
    for (unsigned p = 0; p < ARRAY_SIZE(pages); p++) {
        uint64_t step = pages[p] * UINT64_C(4096);
        t_wr(pf, CAP + PCI_SRIOV_SYS_PAGE, pages[p], 4);
        t_wr(pf, CAP + PCI_SRIOV_BAR0, T_MEM + 0x100000, 4);
        enable(pf, 4);
        for (unsigned i = 0; i < TOTAL; i++)
            vf(pf, i)->reg = 100 + i;
        for (unsigned i = 0; i < TOTAL; i++)
            assert_int_equal(hw_rd(T_MEM + 0x100000 + i * step, 4), i < 4 ? 100 + i : UINT32_MAX);
        hw_wr(T_MEM + 0x100000 + 2 * step, 7, 4);
        assert_int_equal(vf(pf, 2)->reg, 7);
        t_wr(pf, CAP + PCI_SRIOV_CTRL, PCI_SRIOV_CTRL_VFE, 2);  /* memory off */
        assert_int_equal(hw_rd(T_MEM + 0x100000, 4), UINT32_MAX);
        t_wr(pf, CAP + PCI_SRIOV_CTRL, PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE, 2);
        t_wr(pf, CAP + PCI_SRIOV_BAR0, T_MEM + 0x200000, 4);    /* moved while on */
        assert_int_equal(hw_rd(T_MEM + 0x100000 + step, 4), UINT32_MAX);
        assert_int_equal(hw_rd(T_MEM + 0x200000 + step, 4), 101);
        t_wr(pf, CAP + PCI_SRIOV_CTRL, 0, 2);
        assert_int_equal(hw_rd(T_MEM + 0x200000 + step, 4), UINT32_MAX);
        t_settle();
    }
    t_remove(&pf->dev);
}

/* Each VF has its own bus mastering and messages. */
static void messages_of_a_vf(void **state)
{
    struct pci_dev *pf = start();
    unsigned was = t_msgs[41], devfn = (unsigned)pf->devfn + FIRST + 1, at = 0;
    t_wr(pf, CAP + PCI_SRIOV_BAR0 + 8, T_MEM + 0x100000, 4);
    enable(pf, 2);
    for (unsigned c = t_rd_at(0, devfn, PCI_CAP_PTR, 1); c; c = t_rd_at(0, devfn, c + 1, 1))
        at = t_rd_at(0, devfn, c, 1) == PCI_CAP_MSIX ? c : at;
    t_wr_at(0, devfn, at + PCI_MSIX_FLAGS, PCI_MSIX_ENABLE, 2);
    hw_wr(T_MEM + 0x101010, T_MSI, 8);                          /* VF 1, vector 1 */
    hw_wr(T_MEM + 0x101018, 41, 4);
    hw_wr(T_MEM + 0x10101c, 0, 4);
    pci_msi_notify(pci_sriov_vf(pf, 1), 1);
    assert_int_equal(t_msgs[41], was);                          /* no bus master yet */
    t_wr_at(0, devfn, PCI_COMMAND, 0xffff, 2);
    assert_int_equal(t_rd_at(0, devfn, PCI_COMMAND, 2), PCI_COMMAND_MASTER);
    pci_msi_notify(pci_sriov_vf(pf, 1), 1);
    assert_int_equal(t_msgs[41], was + 1);
    assert_false(pci_bus_master(pci_sriov_vf(pf, 0)));
    t_wr(pf, CAP + PCI_SRIOV_CTRL, 0, 2);
    t_settle();
    assert_false(pci_bus_master(pci_sriov_vf(pf, 1)));
    t_remove(&pf->dev);
}

static void places_that_are_taken(void **state)
{
    static const char *const there[][2] = { { "addr", "8.4" }, { NULL, NULL } }, *const at8[][2] = { { "addr", "8" }, { "multifunction", "on" }, { NULL, NULL } };
    struct err e = ERR_INIT;
    struct dev *t = t_new_on("tdev", &t_bus->bus, "taken", there);
    assert_null(t_try("test-pf", &t_bus->bus, "pf", at8, &e));
    assert_non_null(strstr(e.msg, "needs address 08.4 of bus 'pcie.0', which 'taken' has"));
    t_remove(t);
    first_offset = 250;
    assert_null(t_try("test-pf", &t_bus->bus, "pf", at8, &e));
    assert_non_null(strstr(e.msg, "would be on the next bus"));
    first_offset = FIRST;
    vf_fails = true;
    assert_null(t_try("test-pf", &t_bus->bus, "pf", at8, &e));
    assert_string_equal(e.msg, "the fourth fails");
    vf_fails = false;
    struct pci_dev *pf = start();                               /* nothing was left behind */
    t_remove(&pf->dev);
}

static void *guest(void *arg)
{
    atomic_bool *stop = arg;
    rcu_thread_register();
    for (unsigned i = 0; !atomic_load(stop); i++) {
        pci_config_write(t_bus, 0, PCI_DEVFN(8, 0), CAP + PCI_SRIOV_NUM, i % 6, 2);
        pci_config_write(t_bus, 0, PCI_DEVFN(8, 0), CAP + PCI_SRIOV_CTRL, i & 1 ? 9 : 0, 2);
        pci_config_write(t_bus, 0, PCI_DEVFN(8, FIRST), PCI_COMMAND, PCI_COMMAND_MASTER, 2);
        (void)pci_config_read(t_bus, 0, PCI_DEVFN(8, FIRST + 1), 8, 4);
    }
    rcu_thread_unregister();
    return NULL;
}

static void removed_while_in_use(void **state)
{
    atomic_bool stop = false;
    pthread_t th;
    pthread_create(&th, NULL, guest, &stop);
    for (int i = 0; i < 40; i++) {
        struct pci_dev *pf = start();
        t_settle();
        t_remove(&pf->dev);
    }
    atomic_store(&stop, true);
    pthread_join(th, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(capability, t_setup), cmocka_unit_test(functions_come_and_go), cmocka_unit_test(bars_follow_each_other),
        cmocka_unit_test(messages_of_a_vf), cmocka_unit_test(places_that_are_taken), cmocka_unit_test(removed_while_in_use),
    };
    t_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
