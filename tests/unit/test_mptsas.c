/* SPDX-License-Identifier: MIT */
/* SAS1068: the doorbell's handshake, answers of both kinds, scatter lists and their chains, pages, events, task management, hostile guests. */
#include "pci_test.h"
#include "probe_disk.h"
#include <errno.h>
#include "hw/scsi/mptsas.h"

enum { ABAR = T_MEM, REPLIES = HW_RAM + 0x1000, FRAMES = HW_RAM + 0x4000, DATA = HW_RAM + 0x10000, SENSE = HW_RAM + 0x3000, LISTS = HW_RAM + 0x8000 };
enum { N_REPLIES = 16, REPLY = 0x80 };
static struct dev *sas, *disk;

static uint32_t rd(uint32_t off) { return (uint32_t)hw_rd(ABAR + off, 4); }
static void wr(uint32_t off, uint32_t v) { hw_wr(ABAR + off, v, 4); }
static uint8_t *mem(uint64_t addr) { return hw_ram->host + (addr - HW_RAM); }
static bool line(void) { return hw_line[(((struct pci_dev *)sas)->devfn >> 3) % 4]; }
static uint32_t state(void) { return rd(MPI_DOORBELL) >> 28; }

/* ---- a driver ---- */

/* A message through the doorbell; the answer's half words, as many as it says. */
static void handshake(const uint8_t *f, unsigned words, uint8_t *r)
{
    unsigned n = 2;

    wr(MPI_INT_STATUS, 0);
    wr(MPI_DOORBELL, (uint32_t)MPI_HANDSHAKE << 24 | words << 16);
    assert_true(rd(MPI_INT_STATUS) & MPI_HIS_DOORBELL);
    assert_true(rd(MPI_DOORBELL) & MPI_DOORBELL_ACTIVE);
    wr(MPI_INT_STATUS, 0);
    for (unsigned i = 0; i < words; i++)
        wr(MPI_DOORBELL, ld_le32(f + 4 * i));
    t_settle();
    for (unsigned i = 0; r && i < n; i++) {
        assert_true(rd(MPI_INT_STATUS) & MPI_HIS_DOORBELL);
        st_le16(r + 2 * i, (uint16_t)rd(MPI_DOORBELL));
        wr(MPI_INT_STATUS, 0);
        if (i == 1)
            n = r[MPI_M_LENGTH] * 2u;
    }
    if (r) {
        assert_true(rd(MPI_INT_STATUS) & MPI_HIS_DOORBELL);
        wr(MPI_INT_STATUS, 0);
    }
    assert_false(rd(MPI_DOORBELL) & MPI_DOORBELL_ACTIVE);
    assert_false(rd(MPI_INT_STATUS) & MPI_HIS_DOORBELL);
}

static uint32_t door(uint8_t function, uint8_t *f, unsigned bytes, uint8_t *r)
{
    f[MPI_M_FUNCTION] = function;
    st_le32(f + MPI_M_CONTEXT, 0x1234);
    handshake(f, bytes / 4, r);
    assert_int_equal(r[MPI_M_FUNCTION], function);
    assert_int_equal(ld_le32(r + MPI_M_CONTEXT), 0x1234);
    return ld_le16(r + MPI_R_STATUS);
}

static void give_replies(void)
{
    for (unsigned i = 0; i < N_REPLIES; i++)
        wr(MPI_REPLY_QUEUE, (uint32_t)REPLIES + REPLY * i);
}

static void init(void)
{
    uint8_t f[MPTSAS_FRAME] = { 0 }, r[256];

    assert_int_equal(state(), MPI_IOC_READY);
    f[MPI_INIT_WHO] = MPI_WHO_HOST;
    f[MPI_INIT_MAX_DEVICES] = 8;
    f[MPI_INIT_MAX_BUSES] = 1;
    st_le16(f + MPI_INIT_REPLY_SIZE, REPLY);
    assert_int_equal(door(MPI_IOC_INIT, f, 0x2c, r), MPI_SUCCESS);
    assert_int_equal(state(), MPI_IOC_OPERATIONAL);
    memset(f, 0, sizeof f);
    assert_int_equal(door(MPI_PORT_ENABLE, f, 12, r), MPI_SUCCESS);
    give_replies();
    wr(MPI_INT_MASK, MPI_HIS_DOORBELL);
}

static void reset(void)
{
    static const uint8_t keys[] = { 0xff, 4, 0xb, 2, 7, 0xd };
    for (unsigned i = 0; i < sizeof keys; i++)
        wr(MPI_WRITE_SEQUENCE, keys[i]);
    assert_true(rd(MPI_DIAGNOSTIC) & MPI_DIAG_DRWE);
    wr(MPI_DIAGNOSTIC, MPI_DIAG_DRWE | MPI_DIAG_RESET_ADAPTER);
    assert_int_equal(state(), MPI_IOC_READY);
    assert_int_equal(rd(MPI_DIAGNOSTIC), MPI_DIAG_RESET_HISTORY);
}

static void place(void)
{
    t_wr(sas, PCI_BAR0 + 4, ABAR, 4);
    t_wr(sas, PCI_BAR0 + 8, ABAR + 0x10000, 4);
    t_wr(sas, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

static void machine(void)
{
    const char *const opts[][2] = { { "sas_address", "0x500605b000001230" }, { NULL, NULL } };
    const char *const unit[][2] = { { "drive", "disk" }, { "scsi-id", "2" }, { NULL, NULL } };
    t_setup(NULL);
    probe_fill();
    sd_node("disk", "");
    sas = t_new_on("mptsas1068", &t_bus->bus, "sas", opts);
    disk = t_new_on("scsi-hd", bus_find("sas.0"), "d", unit);
    dev_reset_tree(sas, RESET_COLD);
    place();
    t_settle();
    init();
}

static void machine_end(void)
{
    probe_go();
    t_remove(sas);
    sd_del("disk");
}

static uint8_t *frame(unsigned n)
{
    uint8_t *f = mem(FRAMES + MPTSAS_FRAME * n);
    memset(f, 0, MPTSAS_FRAME);
    st_le32(f + MPI_M_CONTEXT, 0x1000 + n);
    return f;
}

static void fire(unsigned n)
{
    wr(MPI_REQUEST_QUEUE, (uint32_t)(FRAMES + MPTSAS_FRAME * n) | 1);
    t_settle();
}

static unsigned put_sge(uint8_t *p, uint8_t flags, uint32_t len, uint64_t addr)
{
    st_le32(p, (uint32_t)flags << 24 | len);
    if (flags & MPI_SGE_64)
        st_le64(p + 4, addr);
    else
        st_le32(p + 4, (uint32_t)addr);
    return flags & MPI_SGE_64 ? 12 : 8;
}

static uint8_t *io(unsigned n, const uint8_t *cdb, unsigned len, uint32_t bytes, uint32_t control)
{
    uint8_t *f = frame(n);
    f[MPI_IO_TARGET] = 2;
    f[MPI_IO_CDB_LEN] = (uint8_t)len;
    f[MPI_IO_SENSE_LEN] = 64;
    memcpy(f + MPI_IO_CDB, cdb, len);
    st_le32(f + MPI_IO_CONTROL, control);
    st_le32(f + MPI_IO_DATA_LEN, bytes);
    st_le32(f + MPI_IO_SENSE, (uint32_t)SENSE);
    put_sge(f + MPI_IO_SGL, MPI_SGE_SIMPLE | MPI_SGE_64 | MPI_SGE_LAST | MPI_SGE_END_OF_LIST, bytes, DATA + 0x1000 * n);
    return f;
}
#define IO(n, bytes, control, ...) io(n, (const uint8_t[]){ __VA_ARGS__ }, sizeof (const uint8_t[]){ __VA_ARGS__ }, bytes, control)

/* The next answer: NULL for a context reply, whose context is in *@context. The frame goes back to the controller. */
static uint8_t answer[REPLY];
static uint8_t *next(uint32_t *context)
{
    uint32_t v = rd(MPI_REPLY_QUEUE);

    *context = v;
    if (v == MPI_NO_REPLY || !(v & MPI_ADDRESS_REPLY))
        return NULL;
    memcpy(answer, mem(v << 1), REPLY);
    wr(MPI_REPLY_QUEUE, v << 1);
    *context = ld_le32(answer + MPI_M_CONTEXT);
    return answer;
}

/* One IO to its end: IOC status, with SCSI status in the upper half. */
static uint32_t run(unsigned n)
{
    uint32_t context;
    uint8_t *r;

    memset(mem(SENSE), 0, 64);
    fire(n);
    r = next(&context);
    assert_int_equal(context, 0x1000 + n);
    return r ? ld_le16(r + MPI_R_STATUS) | (uint32_t)r[MPI_IOR_SCSI_STATUS] << 16 : MPI_SUCCESS;
}

static void ready(void)
{
    IO(0, 0, 0, OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);
    assert_int_equal(run(0), SCSI_CHECK_CONDITION << 16);               /* power on */
    assert_int_equal(answer[MPI_IOR_STATE], MPI_STATE_AUTOSENSE_VALID);
    assert_int_equal(mem(SENSE)[12], 0x29);
    assert_int_equal(run(0), MPI_SUCCESS);
}

static uint8_t *rw(unsigned n, bool write, uint32_t lba, uint8_t blocks)
{
    return IO(n, blocks * 512u, write ? MPI_IO_WRITE : MPI_IO_READ, write ? OP_WRITE_10 : OP_READ_10, 0, 0, 0, (uint8_t)(lba >> 8), (uint8_t)lba, 0, 0, blocks, 0);
}

/* ---- tests ---- */

static void test_bring_up(void **unused)
{
    uint8_t f[MPTSAS_FRAME] = { 0 }, r[256];
    machine();
    assert_int_equal(t_rd(sas, 0, 4), 0x00541000);
    assert_int_equal(door(MPI_IOC_FACTS, f, 12, r), MPI_SUCCESS);
    assert_int_equal(ld_le16(r), MPI_VERSION);
    assert_int_equal(ld_le16(r + 0x1a), MPTSAS_FRAME / 4);
    assert_int_equal(r[0x15], MPI_WHO_HOST);
    assert_int_equal(door(MPI_PORT_FACTS, f, 12, r), MPI_SUCCESS);
    assert_int_equal(r[0x15], MPI_PORT_TYPE_SAS);
    f[MPI_PORT_NUMBER] = 1;
    assert_int_equal(door(MPI_PORT_FACTS, f, 12, r), MPI_INVALID_FIELD);
    assert_int_equal(door(MPI_IOC_INIT, f, 0x2c, r), MPI_INVALID_STATE);
    assert_int_equal(door(0x7f, f, 12, r), MPI_INVALID_FUNCTION);
    assert_int_equal(door(MPI_SCSI_IO, f, 0x30, r), MPI_INVALID_FUNCTION);   /* not by the doorbell */
    wr(MPI_DOORBELL, (uint32_t)MPI_MESSAGE_UNIT_RESET << 24);
    assert_int_equal(state(), MPI_IOC_READY);
    assert_int_equal(rd(MPI_REPLY_QUEUE), MPI_NO_REPLY);
    assert_int_equal(door(MPI_PORT_ENABLE, f, 12, r), MPI_OP_STATE_NOT_SUPPORTED);
    fire(0);                                                    /* before it is set up: nothing */
    assert_int_equal(rd(MPI_REPLY_QUEUE), MPI_NO_REPLY);
    machine_end();
}

static void test_io_and_interrupts(void **unused)
{
    machine();
    assert_false(line());
    ready();
    assert_false(line());                                       /* the answer was taken */
    rw(1, false, 7, 3);
    fire(1);
    assert_true(line());
    wr(MPI_INT_MASK, MPI_HIS_DOORBELL | MPI_HIS_REPLY);
    assert_false(line());
    assert_int_equal(rd(MPI_INT_STATUS), MPI_HIS_REPLY);
    assert_int_equal(rd(MPI_REPLY_QUEUE), 0x1001);
    assert_int_equal(rd(MPI_INT_STATUS), 0);
    assert_memory_equal(mem(DATA + 0x1000), probe_data + 7 * 512, 3 * 512);
    memset(mem(DATA + 0x1000), 0x5a, 1024);
    rw(1, true, 9, 2);
    assert_int_equal(run(1), MPI_SUCCESS);
    assert_memory_equal(mem(DATA + 0x1000), probe_data + 9 * 512, 1024);
    rw(1, false, PROBE_SIZE / 512, 1);
    assert_int_equal(run(1), MPI_SCSI_DATA_UNDERRUN | SCSI_CHECK_CONDITION << 16);
    assert_int_equal(mem(SENSE)[12], 0x21);
    IO(1, 255, MPI_IO_READ, OP_INQUIRY, 0, 0, 0, 255, 0);
    assert_int_equal(run(1), MPI_SCSI_DATA_UNDERRUN);
    assert_int_equal(ld_le32(answer + MPI_IOR_COUNT), 96);
    rw(1, false, 0, 1)[MPI_IO_TARGET] = 3;
    assert_int_equal(run(1), MPI_SCSI_DEVICE_NOT_THERE);
    rw(1, false, 0, 1)[MPI_IO_TARGET] = 8;
    assert_int_equal(run(1), MPI_SCSI_INVALID_TARGET);
    rw(1, false, 0, 1)[MPI_IO_BUS] = 1;
    assert_int_equal(run(1), MPI_SCSI_INVALID_BUS);
    rw(1, false, 0, 1)[MPI_IO_LUN + 1] = 4;
    assert_int_equal(run(1), MPI_SCSI_DATA_UNDERRUN | SCSI_CHECK_CONDITION << 16);
    assert_int_equal(mem(SENSE)[12], 0x25);                     /* the target has no such unit */
    rw(1, false, 0, 1)[MPI_IO_CDB_LEN] = 17;
    assert_int_equal(run(1), MPI_INVALID_FIELD);
    st_le32(rw(1, false, 0, 1) + MPI_IO_SENSE, 0);
    ((struct mptsas *)sas)->sense_high = 0x7fff;                /* sense data that has no place to go */
    probe_error = -EIO;
    assert_int_equal(run(1), MPI_SCSI_DATA_UNDERRUN | SCSI_CHECK_CONDITION << 16);
    assert_int_equal(answer[MPI_IOR_STATE], MPI_STATE_AUTOSENSE_FAILED);
    machine_end();
}

/* Two elements in the message, the rest in segments of three, of both widths. */
static void test_chains(void **unused)
{
    machine();
    ready();
    uint8_t *f = rw(1, false, 0, 16);
    unsigned at = MPI_IO_SGL, done = 0, pieces = 16;
    for (unsigned i = 0; i < 2; i++, done++)
        at += put_sge(f + at, MPI_SGE_SIMPLE | MPI_SGE_64 | (i ? MPI_SGE_LAST : 0), 512, DATA + 0x2000 * done);
    f[MPI_M_CHAIN] = (uint8_t)(at / 4);
    uint8_t *chain = f + at, *p;
    for (unsigned seg = 0; done < pieces; seg++) {
        p = mem(LISTS + 0x100 * seg);
        memset(p, 0, 0x100);
        for (at = 0; at < 24 + 12 * (seg & 1) && done < pieces; done++)
            at += put_sge(p + at, (uint8_t)(MPI_SGE_SIMPLE | (seg & 1 ? MPI_SGE_64 : 0) | (done + 1 == pieces ? MPI_SGE_LAST | MPI_SGE_END_OF_LIST : 0)), 512,
                          DATA + 0x2000 * done);
        st_le32(chain, (uint32_t)(MPI_SGE_CHAIN | MPI_SGE_64) << 24 | (done < pieces ? at / 4 : 0) << 16 | (at + (done < pieces ? 12 : 0)));
        st_le64(chain + 4, LISTS + 0x100 * seg);
        chain = p + at;
    }
    assert_int_equal(run(1), MPI_SUCCESS);
    for (unsigned i = 0; i < pieces; i++)
        assert_memory_equal(mem(DATA + 0x2000 * i), probe_data + 512 * i, 512);
    /* A chain that leads to itself ends. */
    f = rw(1, false, 0, 1);
    f[MPI_M_CHAIN] = MPI_IO_SGL / 4;
    st_le32(f + MPI_IO_SGL, (uint32_t)MPI_SGE_CHAIN << 24 | 8);
    st_le32(f + MPI_IO_SGL + 4, (uint32_t)LISTS);
    st_le32(mem(LISTS), (uint32_t)MPI_SGE_CHAIN << 24 | 8);
    st_le32(mem(LISTS) + 4, (uint32_t)LISTS);
    assert_int_equal(run(1), MPI_INVALID_SGL);                  /* no simple element where one is to be */
    st_le32(mem(LISTS), (uint32_t)MPI_SGE_SIMPLE << 24 | 0);
    st_le32(mem(LISTS) + 8, (uint32_t)MPI_SGE_CHAIN << 24 | 2 << 16 | 16);
    st_le32(mem(LISTS) + 12, (uint32_t)LISTS);
    st_le32(f + MPI_IO_SGL, (uint32_t)MPI_SGE_CHAIN << 24 | 2 << 16 | 16);
    assert_int_equal(run(1), MPI_INVALID_SGL);
    put_sge(rw(1, false, 0, 1) + MPI_IO_SGL, MPI_SGE_SIMPLE | MPI_SGE_64 | MPI_SGE_END_OF_LIST, 512, ABAR);     /* its own registers */
    assert_int_equal(run(1), MPI_INVALID_SGL);
    put_sge(rw(1, false, 0, 1) + MPI_IO_SGL, MPI_SGE_SIMPLE | MPI_SGE_64 | MPI_SGE_END_OF_LIST, 511, DATA);     /* less than is said */
    assert_int_equal(run(1), MPI_INVALID_SGL);
    machine_end();
}

static uint32_t page(uint8_t action, uint8_t type, uint8_t number, uint32_t addr)
{
    uint8_t *f = frame(1);
    bool ext = type >= 0x10;
    f[MPI_M_FUNCTION] = MPI_CONFIG;
    f[MPI_CFG_ACTION] = action;
    f[MPI_CFG_HEADER + 2] = number;
    f[MPI_CFG_HEADER + 3] = ext ? MPI_PAGE_EXTENDED : type;
    f[MPI_CFG_EXT_TYPE] = ext ? type : 0;
    st_le32(f + MPI_CFG_ADDRESS, addr);
    put_sge(f + MPI_CFG_SGE, MPI_SGE_SIMPLE | MPI_SGE_64 | MPI_SGE_END_OF_LIST, action ? 0x200 : 0, DATA);
    return run(1) & 0xffff;
}

static void test_pages(void **unused)
{
    machine();
    const uint8_t *d = mem(DATA);
    assert_int_equal(page(MPI_CFG_PAGE_HEADER, MPI_PAGE_MANUFACTURING, 0, 0), MPI_SUCCESS);
    assert_int_equal(answer[MPI_CFG_HEADER + 1], 0x4c / 4);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, MPI_PAGE_MANUFACTURING, 0, 0), MPI_SUCCESS);
    assert_memory_equal(d + 4, "SAS1068", 7);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, MPI_PAGE_MANUFACTURING, 99, 0), MPI_CONFIG_INVALID_PAGE);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, 0x05, 0, 0), MPI_CONFIG_INVALID_TYPE);
    assert_int_equal(page(MPI_CFG_WRITE_CURRENT, MPI_PAGE_IOC, 1, 0), MPI_CONFIG_CANT_COMMIT);
    assert_int_equal(page(0x40, MPI_PAGE_IOC, 1, 0), MPI_CONFIG_INVALID_ACTION);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, MPI_EXT_SAS_IO_UNIT, 0, 0), MPI_SUCCESS);
    assert_int_equal(ld_le16(answer + MPI_CFG_EXT_LEN), (0x10 + 0x10 * 8) / 4);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(d[0x10 + 0x10 * i + 3], i == 2 ? MPI_LINK_3_0 : MPI_LINK_UNKNOWN);
        assert_int_equal(ld_le16(d + 0x10 + 0x10 * i + 8), i == 2 ? 11 : 0);
    }
    /* All devices, one after the other: eight phys and the target. */
    uint32_t h = 0xffff, n = 0;
    while (page(MPI_CFG_READ_CURRENT, MPI_EXT_SAS_DEVICE, 0, h) == MPI_SUCCESS) {
        h = ld_le16(d + 0x18);
        assert_int_equal(h, n < 8 ? n + 1 : 11);
        n++;
    }
    assert_int_equal(n, 9);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, MPI_EXT_SAS_DEVICE, 0, 1u << 28 | 2), MPI_SUCCESS);
    assert_int_equal(ld_le64(d + 0x0c), 0x500605b00000123a);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, MPI_EXT_SAS_DEVICE, 0, 1u << 28 | 3), MPI_CONFIG_INVALID_PAGE);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, MPI_EXT_SAS_PHY, 0, 8), MPI_CONFIG_INVALID_PAGE);
    assert_int_equal(page(MPI_CFG_READ_CURRENT, MPI_EXT_SAS_EXPANDER, 0, 0xffff), MPI_CONFIG_INVALID_PAGE);
    machine_end();
}

static void test_events(void **unused)
{
    const char *const unit[][2] = { { "drive", "two" }, { "scsi-id", "6" }, { NULL, NULL } };
    uint8_t f[MPTSAS_FRAME] = { 0 }, r[256];
    uint32_t context;
    machine();
    f[MPI_EVENT_SWITCH] = 1;
    assert_int_equal(door(MPI_EVENT_NOTIFICATION, f, 12, r), MPI_SUCCESS);
    assert_int_equal(r[MPI_M_FLAGS], MPI_FLAG_CONTINUATION);
    sd_node("two", "");
    struct dev *d = t_new_on("scsi-hd", bus_find("sas.0"), "two", unit);
    t_settle();
    assert_non_null(next(&context));
    assert_int_equal(context, 0x1234);
    assert_int_equal(ld_le32(answer + MPI_EVR_EVENT), MPI_EVENT_PHY_LINK);
    assert_int_equal(answer[MPI_EVR_DATA + 1], MPI_LINK_3_0 << 4);
    assert_int_equal(ld_le64(answer + MPI_EVR_DATA + 4), 0x500605b000001236);
    assert_non_null(next(&context));
    assert_int_equal(ld_le32(answer + MPI_EVR_EVENT), MPI_EVENT_DEVICE_STATUS);
    assert_int_equal(answer[MPI_EVR_DATA + 2], MPI_DEVICE_ADDED);
    assert_int_equal(ld_le64(answer + MPI_EVR_DATA + 0x10), 0x500605b00000123e);
    assert_null(next(&context));
    for (unsigned i = 0; i < N_REPLIES; i++)                    /* no frames: the next events wait for one */
        assert_true(mpt_fifo_get(&((struct mptsas *)sas)->free, &context));
    t_remove(d);
    sd_del("two");
    assert_null(next(&context));
    wr(MPI_REPLY_QUEUE, (uint32_t)REPLIES);
    assert_non_null(next(&context));                            /* and gives the frame back for the other one */
    assert_int_equal(answer[MPI_EVR_DATA + 2], MPI_DEVICE_GONE);
    assert_non_null(next(&context));
    assert_int_equal(answer[MPI_EVR_DATA + 1], MPI_LINK_3_0);
    assert_null(next(&context));
    machine_end();
}

static uint8_t task(uint8_t type, unsigned of)
{
    uint8_t *f = frame(9);
    uint32_t context;
    f[MPI_M_FUNCTION] = MPI_SCSI_TASK_MGMT;
    f[MPI_IO_TARGET] = 2;
    f[MPI_TM_TYPE] = type;
    st_le32(f + MPI_TM_TASK, 0x1000 + of);
    wr(MPI_HI_PRI_QUEUE, (uint32_t)(FRAMES + MPTSAS_FRAME * 9));
    for (int i = 0; i < 5; i++)
        t_settle();
    probe_go();
    for (uint8_t *r = next(&context); context != 0x1009; r = next(&context)) {
        assert_int_not_equal(context, MPI_NO_REPLY);            /* the others' answers come before */
        if (r)
            assert_int_equal(ld_le16(r + MPI_R_STATUS), MPI_SCSI_TASK_TERMINATED);
    }
    assert_int_equal(answer[MPI_M_FUNCTION], MPI_SCSI_TASK_MGMT);
    return answer[MPI_TMR_RESPONSE];
}

static void test_task_management(void **unused)
{
    static const uint8_t types[] = { MPI_TM_ABORT_TASK, MPI_TM_ABORT_TASK_SET, MPI_TM_TARGET_RESET, MPI_TM_BUS_RESET, MPI_TM_LUN_RESET, MPI_TM_CLEAR_TASK_SET };
    machine();
    ready();
    for (unsigned i = 0; i < sizeof types; i++) {
        probe_hold = true;
        rw(1, false, 1, 1);
        fire(1);
        rw(2, true, 2, 1);
        fire(2);
        assert_int_equal(task(types[i], 1), MPI_TM_COMPLETE);
        assert_int_equal(ld_le32(answer + MPI_TMR_COUNT), i ? 2 : 1);
        uint32_t c;
        while (next(&c) || c != MPI_NO_REPLY)                   /* what was not aborted */
            ;
        assert_int_equal(((struct mptsas *)sas)->n_flying, 0);
        IO(0, 0, 0, OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);         /* a reset is told once */
        assert_int_equal(run(0), i < 2 || types[i] == MPI_TM_CLEAR_TASK_SET ? MPI_SUCCESS : SCSI_CHECK_CONDITION << 16);
    }
    probe_hold = true;
    rw(1, false, 1, 1);
    fire(1);
    assert_int_equal(task(MPI_TM_QUERY_TASK, 7), MPI_TM_COMPLETE);              /* no such task */
    assert_int_equal(task(0x33, 1), MPI_TM_NOT_SUPPORTED);
    machine_end();
}

/* Messages in flight are forgotten, also by a reset between two words of the doorbell. */
static void test_resets_in_flight(void **unused)
{
    machine();
    ready();
    for (int i = 0; i < 6; i++) {
        probe_hold = true;
        rw(1, i & 1, 1, 1);
        fire(1);
        wr(MPI_DOORBELL, (uint32_t)MPI_HANDSHAKE << 24 | 3 << 16);
        wr(MPI_DOORBELL, 0);
        if (i % 3 == 0)
            reset();
        else
            dev_reset_tree(sas, i % 3 == 1 ? RESET_BUS : RESET_COLD);
        place();
        probe_go();
        assert_int_equal(((struct mptsas *)sas)->n_flying, 0);
        init();
        assert_int_equal(rd(MPI_REPLY_QUEUE), MPI_NO_REPLY);
    }
    for (unsigned i = 0; i < MPTSAS_REPLY_FRAMES + 1; i++)      /* more reply frames than it takes */
        wr(MPI_REPLY_QUEUE, (uint32_t)REPLIES);
    assert_int_equal(state(), MPI_IOC_FAULT);
    assert_int_equal(rd(MPI_DOORBELL) & 0xffff, MPI_INSUFFICIENT_RESOURCES);
    reset();
    init();
    machine_end();
}

static void test_random_guests(void **unused)
{
    static const uint8_t functions[] = { MPI_SCSI_IO, MPI_SCSI_IO, MPI_SCSI_IO, MPI_SCSI_TASK_MGMT, MPI_CONFIG, MPI_EVENT_NOTIFICATION, MPI_SAS_IO_UNIT_CONTROL, MPI_SMP_PASSTHROUGH };
    machine();
    for (int round = 0; round < hw_rounds(300); round++) {
        for (unsigned n = 1; n < 12; n++) {
            uint8_t *f = rw(n, hw_rand(2), hw_rand(600), (uint8_t)hw_rand(9));
            uint32_t context;
            f[MPI_M_FUNCTION] = functions[hw_rand(sizeof functions)];
            for (unsigned k = hw_rand(5); k; k--)
                f[hw_rand(MPTSAS_FRAME)] = (uint8_t)hw_rand(256);
            if (!hw_rand(4))
                f[MPI_M_CHAIN] = (uint8_t)hw_rand(40);
            fire(n);
            next(&context);
        }
        for (int k = 0; k < 6; k++)
            wr(hw_rand(20) * 4, hw_rand(2) ? (uint32_t)FRAMES + hw_rand(0x2000) : hw_rand(2) ? (uint32_t)MPI_HANDSHAKE << 24 | hw_rand(64) << 16 : hw_rand(UINT32_MAX));
        t_settle();
        dev_reset_tree(sas, RESET_BUS);
        place();
        t_settle();
        assert_int_equal(((struct mptsas *)sas)->n_flying, 0);
        init();
    }
    ready();
    rw(1, false, 0, 1);
    assert_int_equal(run(1), MPI_SUCCESS);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bring_up), cmocka_unit_test(test_io_and_interrupts), cmocka_unit_test(test_chains), cmocka_unit_test(test_pages),
        cmocka_unit_test(test_events), cmocka_unit_test(test_task_management), cmocka_unit_test(test_resets_in_flight), cmocka_unit_test(test_random_guests),
    };
    t_unused();
    return cmocka_run_group_tests(tests, t_setup, NULL);
}
