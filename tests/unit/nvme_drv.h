/* SPDX-License-Identifier: MIT */
/* For tests of an NVMe controller with what the host knows of it: made in one of several ways, driven, saved, and gone on with elsewhere. */
#ifndef TESTS_UNIT_NVME_DRV_H
#define TESTS_UNIT_NVME_DRV_H

#include "pci_test.h"
#include "probe_disk.h"
#include "hw/nvme/nvme.h"

enum { BAR = T_MEM, ASQ = HW_RAM, ACQ = HW_RAM + 0x1000, SQ = HW_RAM + 0x2000, CQ = HW_RAM + 0x8000, BUF = HW_RAM + 0x10000,
       CMB_BAR = T_MEM + 0x400000, PMR_BAR = T_MEM + 0x800000 };
#define CBA UINT64_C(0x123400000)       /* where the host wants the controller's memory to be for the controller's eyes */
#define PBA UINT64_C(0x223400000)
enum { ENTRIES = 64, CMDS = 32, BLOCKS = 8, BYTES = BLOCKS * 512, QUEUES_MAX = 4,
       MAKE_AND_CHECK = 1 << 29 | 1 << 28 | 1 << 26 };      /* PRACT; guard and reference tag */

static struct nvme *n;
static bool threads;                    /* the queues are on three loops, none of them this one */
static bool boots;                      /* there are boot partitions */
static bool protect;                    /* blocks have tuples of type 1 */
static unsigned queues = 1;
static bool inside;                     /* I/O queues are in the controller memory buffer, data is there and in the persistent region */
static bool zoned;                      /* commands append to zones */
static bool faulty;                     /* some reads and writes fail on purpose */
static struct ram *pmr;

struct queue { uint64_t sq, cq; unsigned id, tail, head, phase; };
static struct queue admin, io[QUEUES_MAX];      /* command i goes to queue i % queues */

/* Lets the device go on; fails where that has been too often. */
static inline void turn(int i)
{
    assert_true(i < 1000000);
    loop_run_once(loop_main(), threads ? 50000 : 0);
}

enum { READ_FAULT = 0x281, WRITE_FAULT = 0x280, READ_FAULTS = 40 };
static unsigned read_faults;            /* of this controller, which are READ_FAULTS at most */
static uint64_t known_hits, fault_ends, faults_lost;    /* of this controller: hits of rules up to here, commands that ended so since, those nobody told of */

enum { ZONES = 8, ZONE_BLOCKS = 64, BOUNDARY = 0x1b8, NO_MORE = 0x1b9, NOBODY = 0, SOMEBODY = -1 };
static uint32_t owner[ZONES * ZONE_BLOCKS];     /* what was appended there: NOBODY; SOMEBODY: by a command whose end nobody told */

static inline uint8_t *mem(uint64_t addr)
{
    return addr >= PBA ? pmr->host + (addr - PBA) : addr >= CBA ? n->cmb.ram->host + (addr - CBA) : hw_ram->host + (addr - HW_RAM);
}

static inline uint64_t sq_at(unsigned i) { return (inside ? CBA : SQ) + i * 0x1000; }
static inline uint64_t cq_at(unsigned i) { return (inside ? CBA + 0x6000 : CQ) + i * 0x1000; }
static inline uint64_t buf_at(unsigned i) { return (!inside ? BUF : i & 1 ? PBA : CBA + 0x10000) + i * BYTES; }
static inline uint32_t rd(uint32_t off) { return (uint32_t)hw_rd(BAR + off, 4); }
static inline void wr(uint32_t off, uint32_t v) { hw_wr(BAR + off, v, 4); }

/* ---- the driver ---- */

static inline void submit(struct queue *q, uint8_t op, uint16_t cid, uint32_t nsid, uint64_t prp, uint32_t d10, uint32_t d11, uint32_t d12)
{
    uint8_t *c = mem(q->sq + 64 * q->tail);
    memset(c, 0, 64);
    c[0] = op;
    st_le16(c + 2, cid);
    st_le32(c + 4, nsid);
    st_le64(c + 24, prp);
    st_le32(c + 40, d10);
    st_le32(c + 44, d11);
    st_le32(c + 48, d12);
    st_le32(c + 56, d10);               /* the reference tag, where there is one: the block's number */
    q->tail = (q->tail + 1) % ENTRIES;
}

static inline void ring(const struct queue *q) { wr(0x1000 + 8 * q->id, q->tail); }

static inline bool take(struct queue *q, uint16_t *cid, uint16_t *status, uint32_t *result)
{
    uint8_t *c = mem(q->cq + 16 * q->head);
    uint32_t last = le32toh(atomic_load_explicit((_Atomic uint32_t *)(void *)(c + 12), memory_order_acquire));
    if ((last >> 16 & 1) != q->phase)
        return false;
    *cid = ld_le16(c + 12);
    *status = ld_le16(c + 14) >> 1 & 0x7ff;
    *result = ld_le32(c);
    q->head = (q->head + 1) % ENTRIES;
    q->phase ^= !q->head;
    wr(0x1004 + 8 * q->id, q->head);
    return true;
}

static inline uint16_t admin_run(uint8_t op, uint32_t nsid, uint64_t prp, uint32_t d10, uint32_t d11, uint32_t *result)
{
    uint16_t cid, status;
    uint32_t r;
    submit(&admin, op, 0x77, nsid, prp, d10, d11, 0);
    ring(&admin);
    for (int i = 0; !take(&admin, &cid, &status, &r); i++)
        turn(i);
    assert_int_equal(cid, 0x77);
    if (result)
        *result = r;
    return status;
}

static inline void until(uint32_t off, uint32_t mask, uint32_t value)
{
    for (int i = 0; (rd(off) & mask) != value; i++)
        turn(i);
}

static inline void enable(void)
{
    memset(mem(ASQ), 0, BUF - ASQ);
    if (inside)
        memset(mem(sq_at(0)), 0, 0xc000);
    admin = (struct queue){ ASQ, ACQ, 0, 0, 0, 1 };
    wr(0x24, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    hw_wr(BAR + 0x28, ASQ, 8);
    hw_wr(BAR + 0x30, ACQ, 8);
    wr(0x14, 0x00460001 | (zoned ? 6 << 4 : 0));
    until(0x1c, 1, 1);
    for (unsigned i = 0; i < queues; i++) {
        io[i] = (struct queue){ sq_at(i), cq_at(i), i + 1, 0, 0, 1 };
        assert_int_equal(admin_run(5, 0, io[i].cq, (ENTRIES - 1) << 16 | (i + 1), 1, NULL), 0);
        assert_int_equal(admin_run(1, 0, io[i].sq, (ENTRIES - 1) << 16 | (i + 1), (i + 1) << 16 | 1, NULL), 0);
    }
}

static inline void place(void)
{
    t_wr(n, PCI_BAR0, BAR, 4);
    t_wr(n, PCI_BAR0 + 4, 0, 4);
    if (inside) {
        t_wr(n, PCI_BAR0 + 8, CMB_BAR, 4);
        t_wr(n, PCI_BAR0 + 12, 0, 4);
        t_wr(n, PCI_BAR0 + 16, PMR_BAR, 4);
        t_wr(n, PCI_BAR0 + 20, 0, 4);
    }
    t_wr(n, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    if (inside) {
        hw_wr(BAR + 0x50, CBA | 3, 8);
        wr(0xe04, 1);
        wr(0xe14, (uint32_t)PBA | 2);
        wr(0xe18, PBA >> 32);
    }
}

/* A namespace of its own device, which the controller takes with it when it goes. */
static inline void plug_namespace(void)
{
    struct err e = ERR_INIT;
    json_t *opts = zoned ? json_pack("{s:s, s:i, s:b, s:s}", "drive", "disk", "nsid", 1, "zoned", 1, "zoned.zone_size", "32K")
                         : json_pack("{s:s, s:i, s:i, s:i}", "drive", "disk", "nsid", 1, "ms", 8, "pi", 1);
    struct dev *d = dev_new((const struct dev_class *)obj_class_find("nvme-ns"), n->bus, "ns", &e);
    if (!d || !obj_set_opts(&d->obj, opts, "nvme-ns", &e) || !dev_realize(d, &e))
        fail_msg("%s", e.msg);
    json_decref(opts);
}

static inline void plug(void)
{
    struct err e = ERR_INIT;
    json_t *opts = json_pack("{s:s, s:s}", "serial", "L", "addr", "4");
    if (!protect && !zoned)
        json_object_set_new(opts, "drive", json_string("disk"));
    if (boots)
        json_object_set_new(opts, "boot-drive", json_string("boot"));
    if (inside) {
        json_object_set_new(opts, "cmb_size_mb", json_integer(1));
        json_object_set_new(opts, "pmrdev", json_string("pmr"));
    }
    if (faulty)
        json_object_set_new(opts, "faults", json_pack("[{s:s, s:i, s:i, s:i, s:i}, {s:s, s:i, s:i, s:i}]", "queue", "io", "opcode", 2, "status", READ_FAULT, "probability",
                                                      200000, "count", READ_FAULTS, "queue", "io", "opcode", 1, "status", WRITE_FAULT, "probability", 300000));
    known_hits = fault_ends = faults_lost = read_faults = 0;
    if (threads) {
        json_object_set_new(opts, "iothread", json_string("t0"));
        json_object_set_new(opts, "iothread-queue-mapping", json_pack("[{s:s, s:[i,i]}, {s:s, s:[i]}]", "iothread", "t1", "queues", 1, 3,
                                                                      "iothread", "t2", "queues", 2));
    }
    n = (struct nvme *)dev_new((const struct dev_class *)obj_class_find("nvme"), &t_bus->bus, "n", &e);
    if (!n || !obj_set_opts(&n->pci.dev.obj, opts, "nvme", &e) || !dev_realize(&n->pci.dev, &e))
        fail_msg("%s", e.msg);
    json_decref(opts);
    if (protect || zoned)
        plug_namespace();
    memset(owner, NOBODY, sizeof owner);        /* no state file: zones are new */
    dev_reset_tree(&n->pci.dev, RESET_COLD);
    place();
}

static inline uint32_t in_flight(void)
{
    domain_lock(n->pci.dev.dom);
    uint32_t k = n->in_flight;
    domain_unlock(n->pci.dev.dom);
    return k;
}

static atomic_bool quiet;
static inline void co_quiet(void *arg)
{
    DEV_CLASS(arg)->co_quiesce(arg);
    quiet = true;
}

static inline void stop(void)
{
    quiet = false;
    co_spawn(NULL, n->pci.dev.dom, co_quiet, n);
    for (int i = 0; !quiet; i++)
        turn(i);
    assert_int_equal(in_flight(), 0);
}

static inline void saved(struct str *s)
{
    domain_lock(n->pci.dev.dom);
    state_save(DEV_CLASS(n)->state, n, s);
    domain_unlock(n->pci.dev.dom);
}

static inline void load(const struct str *s)
{
    struct err e = ERR_INIT;
    domain_lock(n->pci.dev.dom);
    if (!state_load(DEV_CLASS(n)->state, n, s->s, s->len, &e))
        fail_msg("%s", e.msg);
    domain_unlock(n->pci.dev.dom);
}

/* As it is now, another one begins; it stands still. */
static inline void move(void)
{
    struct str s = { 0 };
    saved(&s);
    t_remove(&n->pci.dev);
    plug();
    load(&s);
    str_free(&s);
}

static inline void resume(void) { n->resume.listener.start(&n->resume.listener); }

static inline void begin(void)
{
    t_setup(NULL);
    sd_node("disk", "");
    plug();
    enable();
}

static inline void end(void)
{
    t_remove(&n->pci.dev);
    sd_del("disk");
}

#endif
