/* SPDX-License-Identifier: MIT */
/*
 * pci-testdev: measures how register writes reach a device, as QEMU's manual specifies it ("pci-test"). BAR 0 (memory) and BAR 1 (I/O)
 * begin with a header: the number of a test is written to byte 0, then the header says where a write of which width and value counts.
 * Tests: 0 by the register handler; 1 by a doorbell for any value; 2 by a doorbell for one value.
 */
#include <stdio.h>

#include "base/str.h"
#include "pci/pci.h"

enum { TEST_HANDLER, TEST_DOORBELL, TEST_VALUE, TESTS, NO_TEST = 0xff, HDR_SIZE = 48, MEM_SIZE = 4096, IO_SIZE = 256, TEST_BYTE = 0xa5 };

struct testdev_bell { struct doorbell d; struct testdev_bar *bar; uint8_t test; };

/* One BAR. */
struct testdev_bar {
    struct region r;
    const char *kind;
    atomic_uchar test;              /* NO_TEST: none. Written under the domain lock; doorbells look at it without */
    atomic_uint count;
    struct testdev_bell bell[TESTS - TEST_DOORBELL];
};

struct testdev {
    struct pci_dev pci;             /* first */
    uint64_t membar_size;
    struct testdev_bar bar[2];
    struct region membar;
};

static uint32_t target(const struct testdev_bar *b, unsigned test) { return (uint32_t)b->r.size / 2 + test; }

/* On the writing thread, without a lock. */
static void rang(void *arg, uint64_t v)
{
    struct testdev_bell *bell = arg;

    if (atomic_load(&bell->bar->test) == bell->test)
        atomic_fetch_add(&bell->bar->count, 1);
}

static void select_test(struct testdev_bar *b, uint8_t n)
{
    atomic_store(&b->test, n < TESTS ? n : NO_TEST);
    atomic_store(&b->count, 0);
}

static void header(const struct testdev_bar *b, uint8_t out[HDR_SIZE])
{
    static const char *const names[TESTS] = { "no-eventfd", "wildcard-eventfd", "datamatch-eventfd" };
    uint8_t test = atomic_load(&b->test);

    memset(out, 0, HDR_SIZE);
    out[0] = test;
    if (test == NO_TEST)
        return;
    out[1] = 1;                     /* the width of the write */
    st_le32(out + 4, target(b, test));
    st_le32(out + 8, TEST_BYTE);
    st_le32(out + 12, atomic_load(&b->count));
    snprintf((char *)out + 16, HDR_SIZE - 16, "%s-%s", b->kind, names[test]);
}

static uint64_t testdev_read(void *opaque, uint64_t off, unsigned size)
{
    uint8_t h[HDR_SIZE];

    header(opaque, h);
    return range_ok(off, size, HDR_SIZE) ? ld_le(h + off, size) : 0;
}

static void testdev_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct testdev_bar *b = opaque;

    if (off == 0)
        select_test(b, (uint8_t)v);
    else if (atomic_load(&b->test) == TEST_HANDLER && off == target(b, TEST_HANDLER) && size == 1 && v == TEST_BYTE)
        atomic_fetch_add(&b->count, 1);
}

static const struct mmio_ops testdev_ops = { .read = testdev_read, .write = testdev_write, .max = 4 };

static void bar_init(struct testdev *t, unsigned n, const char *kind, uint64_t size)
{
    struct testdev_bar *b = &t->bar[n];

    b->kind = kind;
    atomic_store(&b->test, NO_TEST);
    region_init_mmio(&b->r, kind, size, &testdev_ops, b, t->pci.dev.dom);
    for (uint8_t i = 0; i < ARRAY_SIZE(b->bell); i++) {
        struct testdev_bell *bell = &b->bell[i];

        *bell = (struct testdev_bell){ .bar = b, .test = TEST_DOORBELL + i };
        bell->d = (struct doorbell){ .off = target(b, bell->test), .size = 1, .match = bell->test == TEST_VALUE, .datamatch = TEST_BYTE,
                                     .fn = rang, .arg = bell };
        region_doorbell(&b->r, &bell->d);
    }
    pci_bar_add(&t->pci, n, n ? PCI_BAR_IO : PCI_BAR_MEM32, &b->r);
}

static bool testdev_realize(struct dev *d, struct err *e)
{
    struct testdev *t = (struct testdev *)d;

    bar_init(t, 0, "mmio", MEM_SIZE);
    bar_init(t, 1, "portio", IO_SIZE);
    if (t->membar_size) {
        region_init_container(&t->membar, "testdev-membar", t->membar_size);
        pci_bar_add(&t->pci, 2, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, &t->membar);
    }
    return true;
}

static void testdev_unrealize(struct dev *d)
{
    struct testdev *t = (struct testdev *)d;

    for (unsigned i = 0; i < 2; i++)
        region_fini(&t->bar[i].r);
    region_fini(&t->membar);
}

static void testdev_reset(struct dev *d, enum reset_kind k)
{
    for (unsigned i = 0; i < 2; i++)
        select_test(&((struct testdev *)d)->bar[i], NO_TEST);
}

static bool bar_loaded(void *obj, struct err *e)
{
    struct testdev_bar *b = obj;

    return atomic_load(&b->test) < TESTS || atomic_load(&b->test) == NO_TEST || err_set(e, ERR_VALUE, "pci-testdev has no such test");
}

static const struct state_field bar_fields[] = {
    STATE_SKIP(struct testdev_bar, r, "made by realize"),
    STATE_SKIP(struct testdev_bar, kind, "of the class"),
    ST_(ST_U8, struct testdev_bar, test),
    ST_(ST_U32, struct testdev_bar, count),
    STATE_SKIP(struct testdev_bar, bell, "made by realize"),
    STATE_END,
};
static const struct state_desc bar_state = { "pci-testdev-bar", 1, bar_fields, bar_loaded, NULL };

static const struct state_field testdev_fields[] = {
    STATE_STRUCT(struct testdev, pci, &pci_dev_state),
    STATE_SKIP(struct testdev, membar_size, "an option"),
    STATE_STRUCTS(struct testdev, bar, &bar_state),
    STATE_SKIP(struct testdev, membar, "made by realize"),
    STATE_END,
};
static const struct state_desc testdev_state = { "pci-testdev", 1, testdev_fields, NULL, NULL };

static const struct prop testdev_props[] = {
    { .name = "membar", .type = PROP_T_SIZE, .off = offsetof(struct testdev, membar_size), .flags = PF_POW2, .max = BIT64(62),
      .doc = "Size of an empty 64-bit memory BAR 2; 0: none" },
    PROP_END,
};

static const struct pci_class testdev_class = {
    .dev = { .obj = { .name = "pci-testdev", .desc = "Counts register writes, for tests", .base = &pci_dev_class.dev.obj,
                      .size = sizeof(struct testdev), .props = testdev_props },
             .cat = "Misc", .plugs_into = &pci_bus_class, .realize = testdev_realize, .unrealize = testdev_unrealize, .reset = testdev_reset,
             .state = &testdev_state, .hotplug = true },
    .vendor = 0x1b36, .device = 0x0005, .subvendor = 0x1af4, .subdevice = 0x1100, .class_code = 0x00ff00,
};
OBJ_CLASS(&testdev_class.dev.obj);
