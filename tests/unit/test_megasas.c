/* SPDX-License-Identifier: MIT */
/* MegaRAID: bring-up, logical and physical drives, sense data, events, aborts, resets with frames in flight, guests that do wrong. */
#include "pci_test.h"
#include "probe_disk.h"
#include <errno.h>
#include <pthread.h>
#include "hw/scsi/megasas.h"

enum { ABAR = T_MEM, INFO = HW_RAM, REPLY = HW_RAM + 0x1000, INDEX = HW_RAM + 0x2000, FRAMES = HW_RAM + 0x4000, DATA = HW_RAM + 0x10000, SENSE = HW_RAM + 0x3000 };
static struct dev *raid, *disk;

static uint32_t rd(uint32_t off) { return (uint32_t)hw_rd(ABAR + off, 4); }
static void wr(uint32_t off, uint32_t v) { hw_wr(ABAR + off, v, 4); }
static uint8_t *mem(uint64_t addr) { return hw_ram->host + (addr - HW_RAM); }
static uint8_t *frame(unsigned n) { return mem(FRAMES + 0x400 * n); }
static bool line(void) { return hw_line[(((struct pci_dev *)raid)->devfn >> 3) % 4]; }

static void fire(unsigned n)
{
    wr(MFI_INBOUND_QUEUE, (FRAMES + 0x400 * n) | 1);
    t_settle();
}

static uint8_t *begin(unsigned n, uint8_t op, uint32_t bytes, bool write, unsigned sgl)
{
    uint8_t *f = frame(n);
    memset(f, 0, 0x400);
    f[MFI_F_CMD] = op;
    f[MFI_F_STATUS] = 0xff;
    f[MFI_F_SENSE_LEN] = 96;
    f[MFI_F_TARGET] = 2;
    f[MFI_F_SGE_COUNT] = bytes != 0;
    st_le32(f + MFI_F_CONTEXT, 0x100 + n);
    st_le16(f + MFI_F_FLAGS, write ? MFI_FLAG_WRITE : MFI_FLAG_READ);
    st_le32(f + MFI_F_LENGTH, bytes);
    st_le32(f + 0x18, SENSE);
    st_le32(f + sgl, DATA + 0x1000 * n);
    st_le32(f + sgl + 4, bytes);
    return f;
}

static void init(void)
{
    uint8_t *f = begin(0, MFI_INIT, 0, false, 0x28);
    wr(MFI_INBOUND_DOORBELL, MFI_DB_READY);
    memset(mem(INFO), 0, 0x4000);
    st_le32(mem(INFO) + MFI_QI_ENTRIES, 32);
    st_le64(mem(INFO) + MFI_QI_REPLY, REPLY);
    st_le64(mem(INFO) + MFI_QI_PRODUCER, INDEX);
    st_le64(mem(INFO) + MFI_QI_CONSUMER, INDEX + 4);
    st_le64(f + MFI_INIT_QUEUE_INFO, INFO);
    st_le16(f + MFI_F_FLAGS, MFI_FLAG_DONT_POST);
    fire(0);
    assert_int_equal(f[MFI_F_STATUS], MFI_STAT_OK);
    assert_int_equal(rd(MFI_SCRATCH_PAD0) & 0xf0000000, MFI_STATE_OPERATIONAL);
    wr(MFI_OUTBOUND_MASK, ~MFI_REPLY_1078);
}

static void machine(const char *jbod)
{
    struct err e = ERR_INIT;
    const char *const opts[][2] = { { "use_jbod", jbod }, { "hba_serial", "S7" }, { NULL, NULL } };
    const char *const unit[][2] = { { "drive", "disk" }, { "scsi-id", "2" }, { NULL, NULL } };
    t_setup(NULL);
    probe_fill();
    sd_node("disk", "");
    raid = t_new_on("megasas", &t_bus->bus, "raid", opts);
    disk = t_try("scsi-hd", bus_find("raid.0"), "d", unit, &e);
    if (!disk)
        fail_msg("%s", e.msg);
    dev_reset_tree(raid, RESET_COLD);
    t_wr(raid, PCI_BAR0, ABAR, 4);
    t_wr(raid, PCI_BAR0 + 4, 0, 4);
    t_wr(raid, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    t_settle();
    assert_int_equal(rd(MFI_SCRATCH_PAD0), MFI_STATE_READY | MFI_STATE_MSIX | 80 << 16 | 1000);
    init();
}

static void machine_end(void)
{
    probe_go();
    t_remove(raid);
    sd_del("disk");
}

/* A command block on the unit, to its end: the frame's status. */
static uint8_t scsi(uint8_t op, const uint8_t *cdb, unsigned n, uint32_t bytes, bool write)
{
    uint8_t *f = begin(1, op, bytes, write, MFI_SCSI_SGL);
    f[MFI_F_CDB_LEN] = (uint8_t)n;
    memcpy(f + MFI_SCSI_CDB, cdb, n);
    fire(1);
    return f[MFI_F_STATUS];
}
#define SCSI(op, bytes, ...) scsi(op, (const uint8_t[]){ __VA_ARGS__ }, sizeof (const uint8_t[]){ __VA_ARGS__ }, bytes, false)

static uint8_t dcmd(unsigned n, uint32_t opcode, uint32_t mbox, uint32_t bytes)
{
    uint8_t *f = begin(n, MFI_DCMD, bytes, false, MFI_DCMD_SGL);
    st_le32(f + MFI_DCMD_OPCODE, opcode);
    st_le32(f + MFI_DCMD_MBOX, mbox);
    fire(n);
    return f[MFI_F_STATUS];
}

static void ready(void)
{
    assert_int_equal(SCSI(MFI_LD_SCSI, 0, OP_TEST_UNIT_READY, 0, 0, 0, 0, 0), MFI_STAT_SCSI_DONE_WITH_ERROR);   /* power on */
    assert_int_equal(SCSI(MFI_LD_SCSI, 0, OP_TEST_UNIT_READY, 0, 0, 0, 0, 0), MFI_STAT_OK);
}

static uint8_t ld_io(unsigned n, bool write, uint32_t lba, uint32_t blocks)
{
    uint8_t *f = begin(n, write ? MFI_LD_WRITE : MFI_LD_READ, blocks * 512, write, MFI_IO_SGL);
    st_le32(f + MFI_IO_BLOCKS, blocks);
    st_le32(f + MFI_IO_LBA_LO, lba);
    fire(n);
    return f[MFI_F_STATUS];
}

static void test_bring_up_and_interrupts(void **state)
{
    machine("off");
    assert_int_equal(t_rd(raid, 0, 4), 0x00601000);
    assert_false(line());
    ready();
    assert_int_equal(ld_le32(mem(INDEX)), 2);                   /* two replies, of the same frame */
    assert_int_equal(ld_le32(mem(REPLY)), 0x101);
    assert_true(line());
    assert_int_equal(rd(MFI_OUTBOUND_STATUS), MFI_REPLY_1078);
    wr(MFI_DOORBELL_CLEAR, MFI_REPLY_1078);
    assert_false(line());
    assert_int_equal(rd(MFI_OUTBOUND_STATUS), 0);
    wr(MFI_OUTBOUND_MASK, UINT32_MAX);
    SCSI(MFI_LD_SCSI, 0, OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);
    assert_false(line());
    wr(MFI_OUTBOUND_MASK, ~MFI_REPLY_1078);
    assert_true(line());
    for (int i = 0; i < 40; i++)                                /* the queue wraps */
        SCSI(MFI_LD_SCSI, 0, OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);
    assert_int_equal(ld_le32(mem(INDEX)), 43 % 32);
    wr(MFI_INBOUND_DOORBELL, MFI_DB_READY | MFI_DB_ABORT);
    assert_int_equal(rd(MFI_SCRATCH_PAD0) & 0xf0000000, MFI_STATE_READY);
    assert_false(line());
    machine_end();
}

static void test_logical_drive(void **state)
{
    machine("off");
    ready();
    assert_int_equal(ld_io(2, false, 7, 3), MFI_STAT_OK);
    assert_memory_equal(mem(DATA + 0x2000), probe_data + 7 * 512, 3 * 512);
    memset(mem(DATA + 0x2000), 0x5a, 1024);
    assert_int_equal(ld_io(2, true, 9, 2), MFI_STAT_OK);
    assert_memory_equal(mem(DATA + 0x2000), probe_data + 9 * 512, 1024);
    assert_int_equal(ld_io(2, false, PROBE_SIZE / 512, 1), MFI_STAT_SCSI_DONE_WITH_ERROR);
    assert_int_equal(frame(2)[MFI_F_SCSI_STATUS], SCSI_CHECK_CONDITION);
    assert_int_equal(mem(SENSE)[2], 5);
    assert_int_equal(mem(SENSE)[12], 0x21);                     /* beyond the end */
    probe_error = -EIO;
    assert_int_equal(ld_io(2, false, 0, 1), MFI_STAT_SCSI_DONE_WITH_ERROR);
    probe_error = 0;
    assert_int_equal(mem(SENSE)[2], 3);                         /* medium error */
    assert_int_equal(SCSI(MFI_PD_SCSI, 36, OP_INQUIRY, 0, 0, 0, 36, 0), MFI_STAT_DEVICE_NOT_FOUND);
    assert_int_equal(SCSI(MFI_LD_SCSI, 36, OP_INQUIRY, 0, 0, 0, 36, 0), MFI_STAT_OK);
    assert_memory_equal(mem(DATA + 0x1000) + 16, "QEMU HARDDISK", 13);
    machine_end();
}

static void test_lists(void **state)
{
    machine("off");
    assert_int_equal(dcmd(2, DCMD_LD_GET_LIST, 0, 0x1000), MFI_STAT_OK);
    const struct mfi_ld_list *l = (const void *)mem(DATA + 0x2000);
    assert_int_equal(l->count, 1);
    assert_int_equal(l->ld[0].target, 2);
    assert_int_equal(l->ld[0].sectors, PROBE_SIZE / 512);
    assert_int_equal(dcmd(2, DCMD_LD_GET_INFO, 2, 384), MFI_STAT_OK);          /* without which FreeBSD's driver shows no disk */
    const struct mfi_ld_info *info = (const void *)mem(DATA + 0x2000);
    assert_int_equal(info->properties.target, 2);
    assert_int_equal(info->state, MFI_LD_OPTIMAL);
    assert_int_equal(info->sectors, PROBE_SIZE / 512);
    assert_int_equal(info->span[0].blocks, PROBE_SIZE / 512);
    assert_int_equal(dcmd(2, DCMD_LD_GET_PROPERTIES, 2, 32), MFI_STAT_OK);
    assert_int_equal(mem(DATA + 0x2000)[0], 2);
    assert_int_equal(dcmd(2, DCMD_LD_GET_INFO, 3, 384), MFI_STAT_DEVICE_NOT_FOUND);
    assert_int_equal(dcmd(2, DCMD_LD_GET_INFO, 255, 384), MFI_STAT_DEVICE_NOT_FOUND);
    assert_int_equal(dcmd(2, DCMD_PD_LIST_QUERY, MFI_PD_QUERY_EXPOSED, 0x1000), MFI_STAT_OK);
    assert_int_equal(ld_le32(mem(DATA + 0x2004)), 0);
    assert_int_equal(dcmd(2, DCMD_CTRL_GET_INFO, 0, 0x1000), MFI_STAT_OK);
    const struct mfi_ctrl_info *i = (const void *)mem(DATA + 0x2000);
    assert_int_equal(i->pci.device, 0x60);
    assert_string_equal(i->serial, "S7");
    assert_int_equal(i->lds, 1);
    assert_int_equal(dcmd(2, DCMD_PD_GET_INFO, 2, 512), MFI_STAT_OK);
    assert_int_equal(ld_le16(mem(DATA + 0x2000) + 184), MFI_PD_ONLINE);
    assert_int_equal(dcmd(2, DCMD_PD_GET_INFO, 3, 512), MFI_STAT_DEVICE_NOT_FOUND);
    assert_int_equal(dcmd(2, 0x7f000000, 0, 0), MFI_STAT_INVALID_DCMD);
    machine_end();
    machine("on");
    assert_int_equal(dcmd(2, DCMD_LD_GET_INFO, 2, 384), MFI_STAT_DEVICE_NOT_FOUND);     /* it is no logical drive */
    assert_int_equal(dcmd(2, DCMD_LD_LIST_QUERY, 0, 0x1000), MFI_STAT_OK);
    assert_int_equal(ld_le32(mem(DATA + 0x2004)), 0);
    assert_int_equal(dcmd(2, DCMD_PD_LIST_QUERY, MFI_PD_QUERY_EXPOSED, 0x1000), MFI_STAT_OK);
    assert_int_equal(ld_le32(mem(DATA + 0x2004)), 1);
    assert_int_equal(ld_le16(mem(DATA + 0x2008)), 2);
    machine_end();
}

static void test_events(void **state)
{
    machine("off");
    const char *const unit[][2] = { { "drive", "two" }, { "scsi-id", "9" }, { NULL, NULL } };
    assert_int_equal(dcmd(2, DCMD_EVENT_GET_INFO, 0, 20), MFI_STAT_OK);
    uint32_t next = ld_le32(mem(DATA + 0x2000)) + 1;
    assert_int_equal(dcmd(3, DCMD_EVENT_WAIT, next, 256), 0xff);        /* waits */
    sd_node("two", "");
    struct dev *d = t_new_on("scsi-hd", bus_find("raid.0"), "two", unit);
    t_settle();
    assert_int_equal(frame(3)[MFI_F_STATUS], MFI_STAT_OK);
    const struct mfi_event *ev = (const void *)mem(DATA + 0x3000);
    assert_int_equal(ev->seq, next);
    assert_int_equal(ev->code, MFI_EVT_LD_CREATED);
    assert_int_equal(ev->args[0], 9);
    t_remove(d);
    sd_del("two");
    assert_int_equal(dcmd(3, DCMD_EVENT_WAIT, next + 1, 256), MFI_STAT_OK);     /* it has happened */
    assert_int_equal(ev->code, MFI_EVT_LD_DELETED);
    const struct mfi_event_list *list = (const void *)mem(DATA + 0x2000);
    assert_int_equal(dcmd(2, DCMD_EVENT_GET, next, 8 + 256), MFI_STAT_OK);     /* one by one, as room is for one */
    assert_int_equal(list->count, 1);
    assert_int_equal(list->event[0].seq, next);
    assert_int_equal(dcmd(2, DCMD_EVENT_GET, next, 0x1000), MFI_STAT_OK);
    assert_int_equal(list->count, 2);
    assert_int_equal(list->event[1].code, MFI_EVT_LD_DELETED);
    assert_int_equal(dcmd(2, DCMD_EVENT_GET, 0, 0x1000), MFI_STAT_OK);         /* all: from the oldest on */
    assert_int_equal(list->event[0].seq, 1);
    assert_int_equal(list->count, next + 1);
    assert_int_equal(dcmd(2, DCMD_EVENT_GET, next + 2, 0x1000), MFI_STAT_NOT_FOUND);
    assert_int_equal(dcmd(2, DCMD_EVENT_GET, 0, 8), MFI_STAT_INVALID_PARAMETER);
    assert_int_equal(dcmd(3, DCMD_EVENT_WAIT, next + 2, 256), 0xff);
    uint8_t *f = begin(2, MFI_ABORT, 0, false, 0x28);
    st_le64(f + MFI_ABORT_FRAME, FRAMES + 0x400 * 3);
    fire(2);
    assert_int_equal(f[MFI_F_STATUS], MFI_STAT_OK);
    assert_int_not_equal(frame(3)[MFI_F_STATUS], 0xff);
    fire(2);
    assert_int_equal(f[MFI_F_STATUS], MFI_STAT_ABORT_NOT_POSSIBLE);
    machine_end();
}

static void test_abort_and_reset_in_flight(void **state)
{
    machine("off");
    ready();
    for (int i = 0; i < 10; i++) {
        probe_hold = true;
        assert_int_equal(ld_io(2, false, 1, 1), 0xff);
        uint8_t *f = begin(3, MFI_ABORT, 0, false, 0x28);
        st_le64(f + MFI_ABORT_FRAME, FRAMES + 0x400 * 2);
        if (i & 1)
            fire(3);
        else
            wr(MFI_INBOUND_DOORBELL, MFI_DB_READY | MFI_DB_ABORT);
        probe_go();
        if (i & 1) {
            assert_int_equal(f[MFI_F_STATUS], MFI_STAT_OK);
            assert_int_equal(frame(2)[MFI_F_STATUS], MFI_STAT_SCSI_IO_FAILED);
        } else {
            assert_int_equal(frame(2)[MFI_F_STATUS], 0xff);     /* nobody hears of it */
            init();
        }
    }
    assert_int_equal(ld_io(2, false, 1, 1), MFI_STAT_OK);
    wr(MFI_INBOUND_DOORBELL, MFI_DB_STOP);
    assert_int_equal(rd(MFI_SCRATCH_PAD0) & 0xf0000000, MFI_STATE_FAULT);
    static const uint8_t keys[] = { 0, 4, 0xb, 2, 7, 0xd };
    wr(MFI_HOST_DIAG, MFI_DIAG_RESET);                          /* closed */
    assert_int_equal(rd(MFI_SCRATCH_PAD0) & 0xf0000000, MFI_STATE_FAULT);
    for (unsigned i = 0; i < sizeof keys; i++)
        wr(MFI_WRITE_SEQUENCE, keys[i]);
    assert_int_equal(rd(MFI_HOST_DIAG), MFI_DIAG_WRITE_ENABLE);
    wr(MFI_HOST_DIAG, MFI_DIAG_WRITE_ENABLE | MFI_DIAG_RESET);
    assert_int_equal(rd(MFI_SCRATCH_PAD0) & 0xf0000000, MFI_STATE_READY);
    init();
    assert_int_equal(ld_io(2, false, 1, 1), MFI_STAT_OK);
    machine_end();
}

/* Random frames and registers: every frame in flight ends, and a reset of the firmware heals all. */
/* As a hart does it, whose frame begins only when the main loop comes to it. */
static void *post_beside(void *n)
{
    wr(MFI_INBOUND_QUEUE, (uint32_t)(FRAMES + 0x400 * (uintptr_t)n) | 1);
    return NULL;
}

static void post_then(unsigned n, uint32_t doorbell)
{
    pthread_t hart;
    assert_int_equal(pthread_create(&hart, NULL, post_beside, (void *)(uintptr_t)n), 0);
    pthread_join(hart, NULL);
    wr(MFI_INBOUND_DOORBELL, doorbell);
    t_settle();
    assert_int_equal(((struct megasas *)raid)->n_flying, 0);
    assert_int_equal(frame(n)[MFI_F_STATUS], 0xff);
}

/* What the firmware had before a reset and had not begun is never begun: no queues of another life, no write after the abort. */
static void test_reset_before_frames_begin(void **state)
{
    machine("off");
    ready();
    uint8_t *f = begin(2, MFI_LD_WRITE, 512, true, MFI_IO_SGL);
    st_le32(f + MFI_IO_BLOCKS, 1);
    memset(mem(DATA + 0x2000), 0xa5, 512);
    post_then(2, MFI_DB_ABORT);
    assert_int_not_equal(probe_data[4], 0xa5);
    f = begin(0, MFI_INIT, 0, false, 0x28);
    st_le64(f + MFI_INIT_QUEUE_INFO, INFO);
    wr(MFI_INBOUND_DOORBELL, MFI_DB_READY);
    post_then(0, MFI_DB_READY);
    assert_int_equal(rd(MFI_SCRATCH_PAD0) & 0xf0000000, MFI_STATE_READY);
    init();
    assert_int_equal(ld_io(2, false, 0, 1), MFI_STAT_OK);
    machine_end();
}

static void test_random_guests(void **state)
{
    machine("off");
    for (int round = 0; round < hw_rounds(300); round++) {
        init();
        for (unsigned n = 1; n < 8; n++) {
            static const uint32_t codes[] = { DCMD_CTRL_GET_INFO, DCMD_PD_LIST_QUERY, DCMD_LD_GET_LIST, DCMD_EVENT_WAIT, DCMD_EVENT_GET, DCMD_CTRL_SET_PROPERTIES,
                                              DCMD_PD_GET_INFO, DCMD_CLUSTER_RESET_LD, DCMD_LD_GET_INFO, DCMD_LD_GET_PROPERTIES };
            uint8_t op = (uint8_t)hw_rand(9), *f = begin(n, op, 512 * (1 + hw_rand(8)), hw_rand(2), op == MFI_LD_SCSI ? MFI_SCSI_SGL : 0x28);
            if (op == MFI_DCMD)
                st_le32(f + MFI_DCMD_OPCODE, codes[hw_rand(10)]);
            if (op == MFI_LD_SCSI)
                f[MFI_F_CDB_LEN] = 10, f[MFI_SCSI_CDB] = (uint8_t)hw_rand(256);
            for (unsigned k = hw_rand(4); k; k--)
                f[hw_rand(0x40)] = (uint8_t)hw_rand(256);
            if (!hw_rand(4))
                st_le16(f + MFI_F_FLAGS, (uint16_t)hw_rand(64));
            fire(n);
        }
        for (int k = 0; k < 4; k++)
            wr(hw_rand(64) * 4, hw_rand(2) ? FRAMES + hw_rand(0x2000) : hw_rand(UINT32_MAX));
        t_settle();
        dev_reset_tree(raid, RESET_BUS);
        t_wr(raid, PCI_BAR0, ABAR, 4);
        t_wr(raid, PCI_BAR0 + 4, 0, 4);
        t_wr(raid, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
        t_settle();
        assert_int_equal(((struct megasas *)raid)->n_flying, 0);
    }
    init();
    ready();
    assert_int_equal(ld_io(2, false, 0, 1), MFI_STAT_OK);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bring_up_and_interrupts), cmocka_unit_test(test_logical_drive), cmocka_unit_test(test_lists), cmocka_unit_test(test_events),
        cmocka_unit_test(test_abort_and_reset_in_flight), cmocka_unit_test(test_reset_before_frames_begin), cmocka_unit_test(test_random_guests),
    };
    t_unused();
    return cmocka_run_group_tests(tests, t_setup, NULL);
}
