/* SPDX-License-Identifier: MIT */
/* LSI53C895A: instructions, selection, messages, disconnection, phase mismatch both ways, resets with commands in flight, saved state, wrong guests. */
#include "pci_test.h"
#include "probe_disk.h"
#include <errno.h>
#include "hw/scsi/lsi.h"

enum { REGS = T_MEM, RAM = T_MEM + 0x10000, TABLE = HW_RAM, MSG = HW_RAM + 0x100, CDB = HW_RAM + 0x120, IN = HW_RAM + 0x140, DATA = HW_RAM + 0x10000 };
/* Instructions */
#define MOVE(ph, n, at) ((uint32_t)(ph) << 24 | 0x08000000 | (n)), (at)
#define SELECT_ATN(id) 0x41000000u | (id) << 16, 0
#define WAIT_DISC 0x48000000u, 0
#define WAIT_RESEL(alt) 0x50000000u, (alt)
#define INT(n) 0x98080000u, (n)
#define JUMP(to) 0x80080000u, (to)
#define JUMP_WHEN(ph, to) 0x800b0000u | (uint32_t)(ph) << 24, (to)
#define CLR_ACK 0x60000040u, 0
static struct dev *chip, *disk;

static uint32_t rd(uint32_t off, unsigned size) { return (uint32_t)hw_rd(REGS + off, size); }
static void wr(uint32_t off, uint32_t v, unsigned size) { hw_wr(REGS + off, v, size); }
static uint8_t *mem(uint64_t addr) { return hw_ram->host + (addr - HW_RAM); }
static bool line(void) { return hw_line[(((struct pci_dev *)chip)->devfn >> 3) % 4]; }
static struct lsi *state(void) { return (struct lsi *)chip; }

static void map_bars(void)
{
    t_wr(chip, PCI_BAR0 + 4, REGS, 4);
    t_wr(chip, PCI_BAR0 + 8, RAM, 4);
    t_wr(chip, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    t_settle();
    wr(R_DIEN, 0x7d, 1);
    wr(R_SIEN0, 0x048f, 2);
}

static void machine(void)
{
    struct err e = ERR_INIT;
    const char *const unit[][2] = { { "drive", "disk" }, { "scsi-id", "2" }, { NULL, NULL } };
    t_setup(NULL);
    probe_fill();
    sd_node("disk", "");
    chip = t_new_on("lsi53c895a", &t_bus->bus, "sym", NULL);
    disk = t_try("scsi-hd", bus_find("sym.0"), "d", unit, &e);
    if (!disk)
        fail_msg("%s", e.msg);
    dev_reset_tree(chip, RESET_COLD);
    map_bars();
}

static void machine_end(void)
{
    probe_go();
    t_remove(chip);
    sd_del("disk");
}

static void load(const uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hw_wr(RAM + 4 * i, words[i], 4);
}

/* Runs a script from the chip's own memory until it halts; the argument of its INT. */
static uint32_t run_script(const uint32_t *words, size_t n)
{
    load(words, n);
    wr(R_DSP, RAM, 4);
    for (int i = 0; i < 20 && !line(); i++)
        t_settle();
    return rd(R_DSPS, 4);
}
#define RUN(...) run_script((const uint32_t[]){ __VA_ARGS__ }, sizeof (const uint32_t[]){ __VA_ARGS__ } / 4)

static void ack(uint8_t dstat)
{
    assert_true(line());
    assert_int_equal(rd(R_DSTAT, 1), dstat | DSTAT_DFE);
    assert_false(line());
}

static void test_instructions(void **st)
{
    machine();
    st_le32(mem(TABLE), 0x11223344);
    wr(R_DSA, TABLE, 4);
    /* load relative, store absolute, memory move, arithmetic with carry, call and return */
    assert_int_equal(RUN(0xf1340004u, 0, 0xe0340004u, TABLE + 8, 0xc0000004u, TABLE + 8, TABLE + 16, 0x7e340000u | 0xff << 8, 0, 0x7f350000u, 0, 0x88080000u, RAM + 64,
                         INT(1), 0, 0x7a5c0000u | 0x55 << 8, 0, 0x90080000u, 0), 1);
    ack(DSTAT_SIR);
    assert_int_equal(ld_le32(mem(TABLE + 8)), 0x11223344);
    assert_int_equal(ld_le32(mem(TABLE + 16)), 0x11223344);
    assert_int_equal(rd(R_SCRATCHA, 4), 0x11223443);            /* 0x44 + 0xff carries into the next byte */
    assert_int_equal(rd(R_SCRATCHB, 1), 0x55);
    RUN(0xb8080000u, 0);                                        /* no instruction */
    ack(DSTAT_IID);
    wr(R_DSP, 0x1000, 4);                                       /* no memory */
    t_settle();
    ack(DSTAT_BF);
    load((const uint32_t[]){ JUMP(RAM) }, 2);                   /* for ever: others get their turn, and it can be stopped */
    wr(R_DSP, RAM, 4);
    t_settle();
    assert_int_equal(state()->run, LSI_RUNNING);
    wr(R_ISTAT0, ISTAT_ABRT, 1);
    ack(DSTAT_ABRT);
    wr(R_STIME1, 11, 1);
    assert_int_equal(rd(R_SIST1, 1), 0);
    clock_vm_step(256000000);
    t_settle();
    assert_int_equal(rd(R_SIST1, 1), SIST1_GEN);
    machine_end();
}

static void cdb(const uint8_t *c, unsigned n) { memcpy(mem(CDB), c, n); }
#define COMMAND(...) cdb((const uint8_t[]){ __VA_ARGS__ }, sizeof (const uint8_t[]){ __VA_ARGS__ })

static void message(uint8_t identify, int tag)
{
    mem(MSG)[0] = identify;
    mem(MSG)[1] = 0x20;
    mem(MSG)[2] = (uint8_t)tag;
}

/* A command without leaving the bus, @n bytes of data expected in @ph; its status. */
static uint8_t simple(unsigned cdb_len, unsigned ph, uint32_t n)
{
    message(0x80, -1);
    memset(mem(IN), 0xee, 8);
    RUN(SELECT_ATN(2), MOVE(PH_MSG_OUT, 1, MSG), MOVE(PH_COMMAND, cdb_len, CDB), JUMP_WHEN(PH_STATUS, RAM + 40), MOVE(ph, n, DATA),
        MOVE(PH_STATUS, 1, IN), MOVE(PH_MSG_IN, 1, IN + 1), CLR_ACK, WAIT_DISC, INT(0x77));
    return mem(IN)[0];
}

static void ready(void)
{
    COMMAND(OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);
    assert_int_equal(simple(6, PH_DATA_IN, 1), SCSI_CHECK_CONDITION);
    ack(DSTAT_SIR);
    COMMAND(OP_REQUEST_SENSE, 0, 0, 0, 18, 0);
    assert_int_equal(simple(6, PH_DATA_IN, 18), SCSI_GOOD);
    ack(DSTAT_SIR);
    assert_int_equal(mem(DATA)[2], 6);
    assert_int_equal(mem(DATA)[12], 0x29);
    assert_int_equal(simple(6, PH_DATA_IN, 18), SCSI_GOOD);
    ack(DSTAT_SIR);
    assert_int_equal(mem(DATA)[2], 0);
}

static void test_commands(void **st)
{
    machine();
    ready();
    COMMAND(OP_READ_10, 0, 0, 0, 0, 7, 0, 0, 3, 0);
    assert_int_equal(simple(10, PH_DATA_IN, 3 * 512), SCSI_GOOD);
    assert_int_equal(rd(R_DSPS, 4), 0x77);
    ack(DSTAT_SIR);
    assert_memory_equal(mem(DATA), probe_data + 7 * 512, 3 * 512);
    assert_int_equal(mem(IN)[1], 0);                            /* command complete */
    memset(mem(DATA), 0x3c, 1024);
    COMMAND(OP_WRITE_10, 0, 0, 0, 0, 9, 0, 0, 2, 0);
    assert_int_equal(simple(10, PH_DATA_OUT, 1024), SCSI_GOOD);
    ack(DSTAT_SIR);
    assert_memory_equal(probe_data + 9 * 512, mem(DATA), 1024);
    probe_error = -EIO;
    COMMAND(OP_READ_10, 0, 0, 0, 0, 7, 0, 0, 3, 0);
    assert_int_equal(simple(10, PH_DATA_IN, 3 * 512), SCSI_CHECK_CONDITION);
    ack(DSTAT_SIR);
    probe_error = 0;
    COMMAND(OP_REQUEST_SENSE, 0, 0, 0, 18, 0);
    simple(6, PH_DATA_IN, 18);
    ack(DSTAT_SIR);
    assert_int_equal(mem(DATA)[2], 3);
    machine_end();
}

static void test_mismatch(void **st)
{
    machine();
    ready();
    COMMAND(OP_READ_10, 0, 0, 0, 0, 7, 0, 0, 1, 0);
    simple(10, PH_DATA_IN, 700);                                /* more than there is: the target goes to status */
    assert_int_equal(rd(R_SIST0, 2), SIST0_MA);
    assert_int_equal(rd(R_DBC, 4) & 0xffffff, 700 - 512);
    assert_int_equal(rd(R_DNAD, 4), DATA + 512);
    assert_int_equal(rd(R_SBCL, 1), PH_STATUS);
    wr(R_SCNTL1, SCNTL1_RST, 1);
    wr(R_SCNTL1, 0, 1);
    assert_int_equal(rd(R_SIST0, 2), SIST0_RST);
    t_settle();
    COMMAND(OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);
    simple(6, PH_DATA_IN, 1);
    ack(DSTAT_SIR);
    wr(R_CCNTL0, CCNTL0_ENPMJ, 1);                              /* a jump instead */
    wr(R_PMJAD1, RAM + 0x100, 4);
    hw_wr(RAM + 0x100, 0x98080000, 4);
    hw_wr(RAM + 0x104, 0x55, 4);
    COMMAND(OP_READ_10, 0, 0, 0, 0, 7, 0, 0, 1, 0);
    simple(10, PH_DATA_IN, 700);
    assert_int_equal(rd(R_DSPS, 4), 0x55);
    ack(DSTAT_SIR);
    assert_int_equal(rd(R_RBC, 4) & 0xffffff, 700 - 512);
    assert_int_equal(rd(R_UA, 4), DATA + 512);
    assert_int_equal(rd(R_IA, 4), RAM + 32);
    RUN(SELECT_ATN(5), MOVE(PH_MSG_OUT, 1, MSG), INT(1));       /* nobody is there */
    assert_int_equal(rd(R_SIST0, 2), SIST1_STO << 8);
    assert_int_equal(rd(R_DSP, 4), RAM + 16);
    machine_end();
}

/* Two tagged commands leave the bus and come back in the order in which they end. */
static void test_disconnection(void **st)
{
    machine();
    ready();
    probe_hold = true;
    for (uint8_t i = 0; i < 2; i++) {
        message(0xc0, 0x10 + i);
        COMMAND(OP_READ_10, 0, 0, 0, 0, i, 0, 0, 1, 0);
        assert_int_equal(RUN(SELECT_ATN(2), MOVE(PH_MSG_OUT, 3, MSG), MOVE(PH_COMMAND, 10, CDB), MOVE(PH_MSG_IN, 1, IN), CLR_ACK, WAIT_DISC, INT(2)), 2);
        ack(DSTAT_SIR);
        assert_int_equal(mem(IN)[0], 4);                        /* disconnect */
        assert_false(rd(R_ISTAT0, 1) & ISTAT_CON);
    }
    const uint32_t back[] = { WAIT_RESEL(RAM + 0x80), MOVE(PH_MSG_IN, 1, IN), CLR_ACK, MOVE(PH_MSG_IN, 2, IN + 1), CLR_ACK, MOVE(PH_DATA_IN, 512, DATA),
                              MOVE(PH_STATUS, 1, IN + 3), MOVE(PH_MSG_IN, 1, IN + 4), CLR_ACK, WAIT_DISC, INT(3) };
    hw_wr(RAM + 0x80, 0x98080000, 4);
    hw_wr(RAM + 0x84, 4, 4);
    load(back, ARRAY_SIZE(back));
    wr(R_DSP, RAM, 4);
    t_settle();
    assert_int_equal(state()->run, LSI_WAIT_RESELECT);
    wr(R_ISTAT0, ISTAT_SIGP, 1);                                /* the driver has something else */
    t_settle();
    assert_int_equal(rd(R_DSPS, 4), 4);
    ack(DSTAT_SIR);
    assert_int_equal(rd(R_CTEST2, 1) & 0x40, 0x40);
    wr(R_DSP, RAM, 4);
    t_settle();
    probe_go();
    for (uint8_t i = 0; i < 2; i++) {
        t_settle();
        assert_int_equal(rd(R_DSPS, 4), 3);
        ack(DSTAT_SIR);
        assert_int_equal(rd(R_SSID, 1), 0x82);
        assert_int_equal(mem(IN)[0], 0x80);
        assert_int_equal(mem(IN)[1], 0x20);
        assert_int_equal(mem(IN)[2], 0x10 + i);
        assert_int_equal(mem(IN)[3], SCSI_GOOD);
        assert_memory_equal(mem(DATA), probe_data + 512 * i, 512);
        wr(R_DSP, RAM, 4);
    }
    t_settle();
    assert_int_equal(state()->memory, 0);
    machine_end();
}

static void save_and_load(void)
{
    struct str one = { 0 }, two = { 0 };
    struct err e = ERR_INIT;
    domain_lock(chip->dom);
    state_save(DEV_CLASS(chip)->state, chip, &one);
    if (!state_load(DEV_CLASS(chip)->state, chip, one.s, one.len, &e))
        fail_msg("%s", e.msg);
    state_save(DEV_CLASS(chip)->state, chip, &two);
    domain_unlock(chip->dom);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.s, two.s, one.len);
    str_free(&one);
    str_free(&two);
}

static void leave_with(uint8_t tag)
{
    message(0xc0, tag);
    COMMAND(OP_READ_10, 0, 0, 0, 0, 3, 0, 0, 1, 0);
    RUN(SELECT_ATN(2), MOVE(PH_MSG_OUT, 3, MSG), MOVE(PH_COMMAND, 10, CDB), MOVE(PH_MSG_IN, 1, IN), CLR_ACK, WAIT_DISC, INT(2));
    ack(DSTAT_SIR);
}

/* What ends the commands of a unit: a message (SCSI-2, 6.6), else the bus, else the chip; does it reset the unit, too? */
struct end { uint8_t msg; bool bus, unit; };
static const struct end ends[] = {
    { .msg = 0x0d }, { .msg = 0x06 }, { .msg = 0x0e },          /* abort tag, abort, clear queue */
    { .msg = 0x0c, .unit = true }, { .msg = 0x17, .unit = true },       /* bus device reset, logical unit reset */
    { .bus = true, .unit = true }, { .bus = false },
};

static void end_commands(const struct end *e)
{
    if (e->msg) {
        message(0x80, 1);
        mem(MSG)[3] = e->msg;
        RUN(SELECT_ATN(2), MOVE(PH_MSG_OUT, 4, MSG), WAIT_DISC, INT(5));
        ack(DSTAT_SIR);
    } else if (e->bus) {
        wr(R_SCNTL1, SCNTL1_RST, 1);
        wr(R_SCNTL1, 0, 1);
        rd(R_SIST0, 2);
    } else {
        wr(R_ISTAT0, ISTAT_SRST, 1);
        wr(R_ISTAT0, 0, 1);
        map_bars();
    }
}

static void test_saved_state_aborts_and_resets(void **st)
{
    machine();
    ready();
    probe_hold = true;
    leave_with(1);
    probe_go();
    save_and_load();                                            /* a command that has ended and wants the bus */
    assert_int_equal(state()->memory, 512);
    RUN(WAIT_RESEL(RAM + 0x80), MOVE(PH_MSG_IN, 1, IN), CLR_ACK, MOVE(PH_MSG_IN, 2, IN + 1), CLR_ACK, MOVE(PH_DATA_IN, 512, DATA), MOVE(PH_STATUS, 1, IN + 3),
        MOVE(PH_MSG_IN, 1, IN + 4), CLR_ACK, WAIT_DISC, INT(3));
    ack(DSTAT_SIR);
    assert_memory_equal(mem(DATA), probe_data + 3 * 512, 512);
    for (unsigned i = 0; i < 3 * ARRAY_SIZE(ends); i++) {
        probe_hold = true;
        leave_with(1);
        end_commands(&ends[i % ARRAY_SIZE(ends)]);
        probe_go();
        t_settle();
        assert_int_equal(state()->memory, 0);
        assert_int_equal(state()->n_flying, 0);
        assert_true(list_empty(&state()->reqs));
        COMMAND(OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);
        assert_int_equal(simple(6, PH_DATA_IN, 1), ends[i % ARRAY_SIZE(ends)].unit ? SCSI_CHECK_CONDITION : SCSI_GOOD);
        ack(DSTAT_SIR);
    }
    machine_end();
}

static uint8_t unit_ready_3(void)
{
    message(0x80, -1);
    memset(mem(IN), 0xee, 8);
    COMMAND(OP_TEST_UNIT_READY, 0, 0, 0, 0, 0);
    RUN(SELECT_ATN(3), MOVE(PH_MSG_OUT, 1, MSG), MOVE(PH_COMMAND, 6, CDB), MOVE(PH_STATUS, 1, IN), MOVE(PH_MSG_IN, 1, IN + 1), CLR_ACK, WAIT_DISC, INT(0x77));
    return mem(IN)[0];
}

/* A reset of the bus is at one unit for a while: a command that another is given meanwhile comes after its reset, and is not lost. */
static void test_command_while_units_reset(void **st)
{
    struct err e = ERR_INIT;
    const char *const unit[][2] = { { "drive", "disk3" }, { "scsi-id", "3" }, { NULL, NULL } };
    machine();
    sd_node("disk3", "");
    if (!t_try("scsi-hd", bus_find("sym.0"), "d3", unit, &e))
        fail_msg("%s", e.msg);
    ready();
    assert_int_equal(unit_ready_3(), SCSI_CHECK_CONDITION);
    ack(DSTAT_SIR);
    assert_int_equal(unit_ready_3(), SCSI_GOOD);
    ack(DSTAT_SIR);
    probe_hold = true;
    leave_with(1);
    wr(R_SCNTL1, SCNTL1_RST, 1);
    wr(R_SCNTL1, 0, 1);
    rd(R_SIST0, 2);
    assert_int_equal(unit_ready_3(), 0xee);
    probe_go();
    t_settle();
    assert_int_equal(rd(R_DSPS, 4), 0x77);
    ack(DSTAT_SIR);
    assert_int_equal(mem(IN)[0], SCSI_CHECK_CONDITION);
    assert_int_equal(unit_ready_3(), SCSI_GOOD);
    ack(DSTAT_SIR);
    assert_int_equal(state()->n_flying, 0);
    machine_end();
    sd_del("disk3");
}

/* Scripts of instructions that are nearly right, and registers: the program lives, and after a reset the chip works. */
static void test_random_guests(void **st)
{
    machine();
    for (int round = 0; round < hw_rounds(600); round++) {
        message((uint8_t)hw_rand(256), (int)hw_rand(256));
        COMMAND((uint8_t)hw_rand(256), (uint8_t)hw_rand(32), 0, 0, 0, (uint8_t)hw_rand(256), 0, 0, (uint8_t)hw_rand(9), 0);
        const uint32_t base[] = { SELECT_ATN(2), MOVE(PH_MSG_OUT, 1 + hw_rand(4), MSG), MOVE(PH_COMMAND, 6 + 4 * hw_rand(2), CDB), JUMP_WHEN(PH_STATUS, RAM + 40),
                                  MOVE(hw_rand(2), 1 + hw_rand(4096), DATA), MOVE(PH_STATUS, 1, IN), MOVE(PH_MSG_IN, 1, IN + 1), CLR_ACK, WAIT_DISC, WAIT_RESEL(RAM), JUMP(RAM) };
        uint32_t w[ARRAY_SIZE(base)];
        memcpy(w, base, sizeof w);
        for (unsigned k = hw_rand(5); k; k--)
            w[hw_rand(ARRAY_SIZE(w))] = hw_rand(3) ? hw_rand(UINT32_MAX) : w[hw_rand(ARRAY_SIZE(w))] ^ 1u << hw_rand(32);
        load(w, ARRAY_SIZE(w));
        wr(R_DSA, hw_rand(4) ? TABLE : hw_rand(UINT32_MAX), 4);
        wr(R_DSP, RAM + 8 * hw_rand(4), 4);
        t_settle();
        for (int k = 0; k < 6; k++)
            wr(hw_rand(256), hw_rand(256), 1);
        t_settle();
        for (unsigned i = 0; i < 256; i++)
            rd(i, 1);
        if (!hw_rand(8))
            save_and_load();
        dev_reset_tree(chip, RESET_COLD);
        map_bars();
        assert_int_equal(state()->n_flying, 0);
        assert_int_equal(state()->memory, 0);
    }
    ready();
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instructions), cmocka_unit_test(test_commands), cmocka_unit_test(test_mismatch), cmocka_unit_test(test_disconnection),
        cmocka_unit_test(test_saved_state_aborts_and_resets), cmocka_unit_test(test_command_while_units_reset),
        cmocka_unit_test(test_random_guests),
    };
    t_unused();
    return cmocka_run_group_tests(tests, t_setup, NULL);
}
