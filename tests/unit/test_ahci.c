/* SPDX-License-Identifier: MIT */
/* AHCI: command slots, queued commands, packets, errors, resets, power-on state, saved state, guests that do wrong. */
#include "pci_test.h"
#include "probe_disk.h"
#include <errno.h>
#include <pthread.h>
#include "hw/ide/ahci.h"

enum { ABAR = T_MEM, CLB = HW_RAM, FB = HW_RAM + 0x1000, TABLES = HW_RAM + 0x2000, DATA = HW_RAM + 0x10000 };
static struct dev *ahci, *disk;

static uint32_t rd(uint32_t off) { return (uint32_t)hw_rd(ABAR + off, 4); }
static void wr(uint32_t off, uint32_t v) { hw_wr(ABAR + off, v, 4); }
static uint32_t prd(uint32_t off) { return rd(R_PORTS + off); }
static void pwr(uint32_t off, uint32_t v) { wr(R_PORTS + off, v); }
static uint8_t *mem(uint64_t addr) { return hw_ram->host + (addr - HW_RAM); }

static void port_start(void)
{
    memset(mem(CLB), 0, 0x10000);
    pwr(P_CLB, CLB);
    pwr(P_FB, FB);
    pwr(P_CLBU, 0);
    pwr(P_FBU, 0);
    pwr(P_SERR, UINT32_MAX);
    pwr(P_IS, UINT32_MAX);
    pwr(P_CMD, CMD_FRE | CMD_ST | CMD_SUD | CMD_POD);
    pwr(P_IE, 0xfdc000ff);
    wr(R_IS, UINT32_MAX);
    wr(R_GHC, GHC_AE | GHC_IE);
}

static void machine_of(const char *class, const char *node_opts, const char *const (*opts)[2])
{
    struct err e = ERR_INIT;
    t_setup(NULL);
    probe_fill();
    sd_node("disk", node_opts);
    ahci = t_new_on("ich9-ahci", &t_bus->bus, "ahci", NULL);
    disk = t_try(class, bus_find("ahci.0"), "d", opts, &e);
    if (!disk)
        fail_msg("%s", e.msg);
    dev_reset_tree(ahci, RESET_COLD);
    t_wr(ahci, PCI_BAR0 + 20, ABAR, 4);
    t_wr(ahci, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    t_settle();
    port_start();
}

static void machine(const char *class, const char *node_opts)
{
    machine_of(class, node_opts, (const char *const[][2]){ { "drive", "disk" }, { "serial", "SN7" }, { NULL, NULL } });
}

static void machine_end(void)
{
    probe_go();
    t_remove(ahci);
    sd_del("disk");
}

/* Fills a slot: a command of 48 bits with @bytes of data at DATA. */
static uint8_t *slot(unsigned n, uint8_t op, uint64_t lba, uint16_t count, uint32_t bytes, bool write)
{
    uint8_t *h = mem(CLB + 32 * n), *t = mem(TABLES + 0x100 * n);
    memset(t, 0, 0x100);
    st_le32(h, 5 | (write ? 0x40 : 0) | (bytes ? 1u << 16 : 0));
    st_le32(h + 4, 0);
    st_le64(h + 8, TABLES + 0x100 * n);
    t[0] = 0x27;
    t[1] = 0x80;
    t[2] = op;
    t[4] = (uint8_t)lba;
    t[5] = (uint8_t)(lba >> 8);
    t[6] = (uint8_t)(lba >> 16);
    t[7] = 0x40;
    t[8] = (uint8_t)(lba >> 24);
    t[9] = (uint8_t)(lba >> 32);
    t[10] = (uint8_t)(lba >> 40);
    st_le16(t + 12, count);
    if (op == 0x60 || op == 0x61) {
        t[3] = (uint8_t)count;
        t[11] = (uint8_t)(count >> 8);
        st_le16(t + 12, (uint16_t)(n << 3));
    }
    st_le64(t + 0x80, DATA + 0x1000 * n);
    st_le32(t + 0x8c, bytes - 1);
    return t;
}

static void issue(uint32_t bits)
{
    pwr(P_CI, bits);
    t_settle();
}

/* One command, to its end; the task file as (error << 8 | status). */
static uint32_t run(uint8_t op, uint64_t lba, uint16_t count, uint32_t bytes, bool write)
{
    slot(0, op, lba, count, bytes, write);
    issue(1);
    return prd(P_TFD);
}

/* After an error. */
static void restart(void)
{
    pwr(P_CMD, CMD_FRE);
    port_start();
}

static void test_power_on(void **state)
{
    machine("ide-hd", "");
    assert_int_equal(t_rd(ahci, PCI_CLASS_PROG, 1) | t_rd(ahci, PCI_CLASS_DEVICE, 2) << 8, 0x010601);
    assert_int_equal(rd(R_VS), 0x00010301);
    assert_int_equal(rd(R_PI), 0x3f);
    assert_int_equal(prd(P_SSTS), 0x133);
    assert_int_equal(prd(P_SIG), 0x00000101);
    assert_int_equal(prd(P_TFD) & 0xff, 0x50);
    assert_int_equal(rd(R_PORTS + PORT_SIZE + P_SSTS), 0);      /* nothing in the second port */
    assert_int_equal(rd(R_PORTS + PORT_SIZE + P_TFD), 0x7f);
    pwr(P_CMD, 0);
    assert_int_equal(prd(P_CMD) & (CMD_CR | CMD_FR), 0);
    pwr(P_SCTL, 0x301);                                         /* COMRESET */
    assert_int_equal(prd(P_SSTS), 1);
    pwr(P_SCTL, 0x300);
    assert_int_equal(prd(P_SSTS), 0x133);
    assert_true(prd(P_SERR) & SERR_X);
    machine_end();
}

/* Names and a geometry that the user chose. */
static void test_names(void **state)
{
    machine_of("ide-hd", "", (const char *const[][2]){ { "drive", "disk" }, { "model", "A model of more than sixteen characters" }, { "ver", "12345678" },
                                                       { "wwn", "0x5000000000000000" }, { "cyls", "20" }, { "heads", "4" }, { "secs", "5" }, { "unit", "0" },
                                                       { NULL, NULL } });
    assert_int_equal(run(0xec, 0, 0, 512, false), 0x50);
    const uint8_t *b = mem(DATA);
    assert_memory_equal(b + 54, " Aomed lfom ro ehtnas xietnec ahartcre s", 40);
    assert_memory_equal(b + 46, "21436587", 8);
    assert_int_equal(ld_le16(b + 2 * 108), 0x5000);
    for (unsigned i = 0; i < 2; i++) {                          /* by default, and at present */
        assert_int_equal(ld_le16(b + 2 * (i ? 54 : 1)), 20);
        assert_int_equal(ld_le16(b + 2 * (i ? 55 : 3)), 4);
        assert_int_equal(ld_le16(b + 2 * (i ? 56 : 6)), 5);
    }
    assert_int_equal(ld_le32(b + 2 * 57), 400);
    assert_int_equal(ld_le16(b + 2 * 53) & 1, 1);
    machine_end();
}

static void test_identify(void **state)
{
    machine("ide-hd", "");
    assert_int_equal(run(0xec, 0, 0, 512, false), 0x50);
    const uint8_t *b = mem(DATA);
    uint8_t sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum += b[i];
    assert_int_equal(sum, 0);
    assert_memory_equal(b + 20, "NS 7", 4);                     /* words have their bytes swapped */
    assert_memory_equal(b + 54, "EQUMH RADDSI K", 14);
    assert_int_equal(ld_le16(b + 2), PROBE_SIZE / 512 / (16 * 63));     /* a geometry, for whom counts in it */
    assert_memory_equal(b + 6, "\x10\x00", 2);
    assert_memory_equal(b + 12, "\x3f\x00", 2);
    assert_int_equal(ld_le32(b + 120), PROBE_SIZE / 512);
    assert_int_equal(ld_le64(b + 200), PROBE_SIZE / 512);
    assert_int_equal(ld_le16(b + 2 * 169), 1);
    assert_int_equal(mem(FB + FIS_PIO_SETUP)[0], 0x5f);
    assert_int_equal(mem(FB + FIS_PIO_SETUP)[15], 0x50);
    assert_int_equal(prd(P_IS) & IS_PSS, IS_PSS);
    assert_int_equal(prd(P_CI), 0);
    assert_int_equal(rd(R_IS), 1);
    assert_int_equal(hw_line[(((struct pci_dev *)ahci)->devfn >> 3) % 4], 1);
    pwr(P_IS, UINT32_MAX);
    wr(R_IS, 1);
    assert_int_equal(hw_line[(((struct pci_dev *)ahci)->devfn >> 3) % 4], 0);
    machine_end();
}

static void test_reads_and_writes(void **state)
{
    machine("ide-hd", "");
    assert_int_equal(run(0x25, 7, 4, 2048, false), 0x50);
    assert_memory_equal(mem(DATA), probe_data + 7 * 512, 2048);
    assert_int_equal(ld_le32(mem(CLB + 4)), 2048);              /* PRDBC */
    memset(mem(DATA), 0x3c, 1024);
    assert_int_equal(run(0x35, 100, 2, 1024, true), 0x50);
    assert_memory_equal(probe_data + 100 * 512, mem(DATA), 1024);
    assert_int_equal(run(0x3d, 100, 2, 1024, true), 0x50);
    assert_int_equal(probe_fua, 1);
    assert_int_equal(run(0xea, 0, 0, 0, false), 0x50);
    assert_int_equal(probe_flushes, 1);
    /* TRIM of blocks 40 to 47 */
    memset(mem(DATA), 0, 512);
    st_le64(mem(DATA), 40 | 8ull << 48);
    slot(0, 0x06, 0, 1, 512, true)[3] = 1;
    issue(1);
    assert_int_equal(prd(P_TFD), 0x50);
    assert_int_equal(probe_data[40 * 512] | probe_data[48 * 512 - 1], 0);
    assert_int_equal(ld_be32(probe_data + 48 * 512), 48);
    machine_end();
}

static void test_queued(void **state)
{
    machine("ide-hd", "");
    probe_hold = true;
    for (unsigned i = 0; i < 8; i++)
        slot(i, 0x60, 10 * i, 1, 512, false);
    pwr(P_SACT, 0xff);
    issue(0xff);
    assert_int_equal(prd(P_CI), 0);                             /* all are taken */
    assert_int_equal(prd(P_SACT), 0xff);
    probe_go();
    assert_int_equal(prd(P_SACT), 0);
    for (unsigned i = 0; i < 8; i++)
        assert_memory_equal(mem(DATA + 0x1000 * i), probe_data + 10 * i * 512, 512);
    assert_int_equal(mem(FB + FIS_SDB)[0], 0xa1);
    assert_true(prd(P_IS) & IS_SDBS);
    machine_end();
}

static void test_errors(void **state)
{
    machine("ide-hd", "");
    assert_int_equal(run(0x25, PROBE_SIZE / 512, 1, 512, false), ER_IDNF << 8 | 0x51);
    assert_true(prd(P_IS) & IS_TFES);
    assert_int_equal(prd(P_CI), 1);                             /* stays, and nothing starts until the port was stopped */
    slot(1, 0xec, 0, 0, 512, false);
    issue(2);
    assert_int_equal(prd(P_CI), 3);
    pwr(P_CMD, CMD_FRE | CMD_SUD);
    assert_int_equal(prd(P_CI), 0);
    port_start();
    assert_int_equal(run(0xf9, 0, 0, 0, false), ER_ABRT << 8 | 0x51);
    pwr(P_CMD, CMD_FRE);
    port_start();
    probe_error = -EIO;
    slot(3, 0x60, 5, 1, 512, false);
    pwr(P_SACT, 8);
    issue(8);
    assert_int_equal(prd(P_SACT), 8);
    assert_true(prd(P_IS) & IS_TFES);
    probe_error = 0;
    pwr(P_CMD, CMD_FRE);
    port_start();
    slot(0, 0x2f, 0x10, 1, 512, false);                         /* which tag it was */
    issue(1);
    assert_int_equal(prd(P_TFD), 0x50);
    assert_int_equal(mem(DATA)[0], 3);
    assert_int_equal(mem(DATA)[3], ER_UNC);
    assert_memory_equal(mem(DATA) + 4, "\x05\0\0\0\0\0\0", 7);                  /* and where */
    assert_int_equal(run(0x2f, 0x10, 2, 512, false), ER_ABRT << 8 | 0x51);      /* that log has one page */
    restart();
    assert_int_equal(run(0x2f, 0x110, 1, 512, false), ER_ABRT << 8 | 0x51);
    restart();
    assert_int_equal(run(0x25, 0x123456789abull, 1, 512, false), ER_IDNF << 8 | 0x51);  /* an LBA of more than 32 bits */
    assert_memory_equal(mem(FB + FIS_D2H) + 4, "\xab\x89\x67\x40\x45\x23\x01", 7);
    machine_end();
}

/* Modes that the host sets, and asks for. */
static void test_modes(void **state)
{
    machine("ide-hd", "");
    for (unsigned n = 0; n < 40; n++) {
        bool good = n <= 16 && !(n & (n - 1));
        assert_int_equal(run(0xc6, 0, (uint16_t)n, 0, false), good ? 0x50 : ER_ABRT << 8 | 0x51);
        restart();
        assert_int_equal(run(0xec, 0, 0, 512, false), 0x50);
        if (good)
            assert_int_equal(ld_le16(mem(DATA) + 2 * 59), n ? 0x100 | n : 0);
    }
    assert_int_equal(run(0xc6, 0, 0, 0, false), 0x50);
    assert_int_equal(run(0xc4, 1, 1, 512, false), ER_ABRT << 8 | 0x51);         /* READ MULTIPLE of none */
    restart();
    assert_int_equal(run(0xc6, 0, 8, 0, false), 0x50);
    assert_int_equal(run(0xc4, 1, 1, 512, false), 0x50);
    static const struct { uint8_t op, mode; } powers[] = { { 0xe0, 0 }, { 0xe1, 0xff }, { 0xe2, 0 }, { 0x25, 0xff }, { 0xe6, 0 }, { 0xe3, 0xff } };
    for (unsigned i = 0; i < ARRAY_SIZE(powers); i++) {
        assert_int_equal(run(powers[i].op, 1, 1, powers[i].op == 0x25 ? 512 : 0, false), 0x50);
        assert_int_equal(run(0xe5, 0, 0, 0, false), 0x50);
        assert_int_equal(mem(FB + FIS_D2H)[12], powers[i].mode);
    }
    machine_end();
}

static void test_stop_and_reset_with_commands(void **state)
{
    machine("ide-hd", "");
    for (int i = 0; i < 10; i++) {
        probe_hold = true;
        pwr(P_IS, UINT32_MAX);
        slot(0, 0x25, 1, 1, 512, false);
        issue(1);
        assert_int_equal(prd(P_TFD) & ST_BSY, ST_BSY);
        pwr(P_CMD, CMD_FRE);
        assert_true(prd(P_CMD) & CMD_CR);                       /* until the back end is done with memory */
        if (i & 1)
            wr(R_GHC, GHC_AE | GHC_HR);
        probe_go();
        assert_false(prd(P_CMD) & CMD_CR);
        assert_int_equal(prd(P_IS) & IS_DHRS, 0);               /* nobody hears of it */
        port_start();
        assert_int_equal(run(0x25, 2, 1, 512, false) & 0xff, 0x50);
        assert_memory_equal(mem(DATA), probe_data + 1024, 512);
    }
    uint8_t *t = slot(0, 0, 0, 0, 0, false);                    /* software reset */
    t[1] = 0;
    t[15] = 4;
    issue(1);
    t[15] = 0;
    issue(1);
    assert_int_equal(prd(P_CI), 0);
    assert_int_equal(prd(P_TFD), 0x150);
    assert_int_equal(mem(FB + FIS_D2H)[0], 0x34);
    machine_end();
}

static uint32_t packet(const uint8_t *cdb, uint32_t bytes)
{
    uint8_t *t = slot(0, 0xa0, 0, 0, bytes, false);
    memcpy(t + 0x40, cdb, 12);
    issue(1);
    return prd(P_TFD);
}
#define PACKET(n, ...) packet((const uint8_t[12]){ __VA_ARGS__ }, n)

static void test_cd(void **state)
{
    machine("ide-cd", ",\"read-only\":true");
    assert_int_equal(prd(P_SIG), 0xeb140101);
    assert_int_equal(run(0xec, 0, 0, 512, false), ER_ABRT << 8 | 0x51);
    assert_memory_equal(mem(FB + FIS_D2H) + 4, "\x01\x14\xeb", 3);             /* its signature */
    assert_int_equal(mem(FB + FIS_D2H)[12], 1);
    pwr(P_CMD, CMD_FRE);
    port_start();
    assert_int_equal(run(0xa1, 0, 0, 512, false), 0x50);
    assert_int_equal(ld_le16(mem(DATA)), 0x8580);
    assert_int_equal(PACKET(0, OP_TEST_UNIT_READY), 0x64 << 8 | 0x51);      /* unit attention */
    pwr(P_CMD, CMD_FRE);
    port_start();
    assert_int_equal(PACKET(18, OP_REQUEST_SENSE, 0, 0, 0, 18), 0x50);
    assert_int_equal(mem(DATA)[2] << 16 | mem(DATA)[12] << 8 | mem(DATA)[13], SENSE_POWER_ON);
    assert_int_equal(PACKET(18, OP_REQUEST_SENSE, 0, 0, 0, 18), 0x50);
    assert_int_equal(mem(DATA)[2], 0);                          /* told once */
    assert_int_equal(PACKET(36, OP_INQUIRY, 0, 0, 0, 36), 0x50);
    assert_int_equal(mem(DATA)[0], SCSI_TYPE_ROM);
    assert_int_equal(PACKET(2048, OP_READ_10, 0, 0, 0, 0, 3, 0, 0, 1), 0x50);
    assert_memory_equal(mem(DATA), probe_data + 3 * 2048, 2048);
    assert_int_equal(PACKET(8, OP_READ_CAPACITY_10), 0x50);
    assert_int_equal(ld_be32(mem(DATA)), PROBE_SIZE / 2048 - 1);
    static const uint8_t select[12] = { OP_MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0, 0, 20 };
    uint8_t *t = slot(0, 0xa0, 0, 0, 20, true);
    memcpy(t + 0x40, select, 12);
    memcpy(mem(DATA), "\0\0\0\0\0\0\0\0\x0a\x0a\x04\x10\0\0\0\0\xff\xff\0\0", 20);
    issue(1);
    assert_int_equal(prd(P_TFD), 0x50);
    assert_int_equal(PACKET(2048, OP_READ_10, 0, 0xff, 0, 0, 0, 0, 0, 1), 0x54 << 8 | 0x51);    /* the sense key, with sense data of the other format */
    machine_end();
}

static void test_saved_state(void **state)
{
    struct str one = { 0 }, two = { 0 };
    struct err e = ERR_INIT;
    machine("ide-hd", ",\"discards\":false");
    assert_true(obj_find("device", "d") != NULL);
    domain_lock(ahci->dom);
    state_save(DEV_CLASS(ahci)->state, ahci, &one);
    assert_true(state_load(DEV_CLASS(ahci)->state, ahci, one.s, one.len, &e));
    state_save(DEV_CLASS(ahci)->state, ahci, &two);
    domain_unlock(ahci->dom);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.s, two.s, one.len);
    str_free(&one);
    str_free(&two);
    machine_end();
}

static uint32_t smart(uint8_t what, uint8_t low, uint32_t bytes)
{
    uint8_t *t = slot(0, 0xb0, 0xc24f00 | low, 1, bytes, false);
    t[3] = what;
    issue(1);
    return prd(P_TFD);
}

static uint8_t sum(const uint8_t *b)
{
    uint8_t s = 0;
    for (unsigned i = 0; i < 512; i++)
        s = (uint8_t)(s + b[i]);
    return s;
}

static void test_smart(void **state)
{
    const uint8_t *b = mem(DATA);
    machine("ide-hd", "");
    assert_int_equal(run(0x25, 0, 4, 2048, false), 0x50);
    assert_int_equal(smart(0xd0, 0, 512), 0x50);
    assert_int_equal(sum(b), 0);
    const uint8_t *a = b + 2;
    while (a[0] && a[0] != 242)
        a += 12;
    assert_int_equal(ld_le32(a + 5), 4);                        /* sectors that were read */
    assert_int_equal(smart(0xd1, 0, 512), 0x50);
    assert_int_equal(sum(b), 0);
    assert_int_equal(smart(0xda, 0, 0), 0x50);
    assert_int_equal(mem(FB + FIS_D2H)[5] | mem(FB + FIS_D2H)[6] << 8, 0xc24f);
    assert_int_equal(smart(0xd4, 0x81, 0), 0x50);               /* a short test that is waited for */
    probe_error = -EIO;
    assert_int_equal(smart(0xd4, 0x82, 0), ER_ABRT << 8 | 0x51);
    probe_error = 0;
    restart();
    assert_int_equal(smart(0xd5, 6, 512), 0x50);
    assert_int_equal(sum(b), 0);
    assert_int_equal(b[508], 2);
    assert_int_equal(b[2 + 24], 0x82);
    assert_int_equal(b[2 + 24 + 1], 0x70);
    assert_int_equal(b[2 + 1], 0);
    assert_int_equal(smart(0xd9, 0, 0), 0x50);
    assert_int_equal(smart(0xd0, 0, 512), ER_ABRT << 8 | 0x51);
    restart();
    assert_int_equal(smart(0xd8, 0, 0), 0x50);
    slot(0, 0xb0, 0, 1, 512, false)[3] = 0xd0;                  /* without the key */
    issue(1);
    assert_int_equal(prd(P_TFD), ER_ABRT << 8 | 0x51);
    machine_end();
}

/* As a hart does it, whose command begins only when the main loop comes to it. */
static void *issue_beside(void *arg)
{
    pwr(P_CI, 1);
    return NULL;
}

static void test_hot_plug(void **state)
{
    struct err e = ERR_INIT;
    const char *const plain[][2] = { { "drive", "disk" }, { NULL, NULL } };
    machine("ide-hd", "");
    for (int i = 0; i < 4; i++) {
        if (i & 1) {                                            /* with a command at the back end */
            probe_hold = true;
            slot(0, 0x25, 1, 1, 512, false);
            issue(1);
        }
        pwr(P_IS, UINT32_MAX);
        pwr(P_SERR, UINT32_MAX);
        if (i == 2) {                                           /* with one that was taken and has not begun */
            pthread_t hart;
            slot(0, 0x25, 1, 1, 512, false);
            assert_int_equal(pthread_create(&hart, NULL, issue_beside, NULL), 0);
            pthread_join(hart, NULL);
        }
        assert_true(dev_unplug_request(disk, &e));
        probe_go();
        for (int k = 0; k < 50; k++)
            t_settle();
        assert_int_equal(prd(P_SSTS), 0);
        assert_true(prd(P_IS) & IS_PRCS && prd(P_SERR) & SERR_N);
        assert_int_equal(prd(P_CI), 0);
        pwr(P_IS, UINT32_MAX);
        pwr(P_SERR, UINT32_MAX);
        disk = t_try("ide-hd", bus_find("ahci.0"), "d", plain, &e);
        if (!disk)
            fail_msg("%s", e.msg);
        assert_int_equal(prd(P_SSTS), 0x133);
        assert_true(prd(P_IS) & IS_PRCS && prd(P_SERR) & SERR_X);
        port_start();
        assert_int_equal(run(0x25, 2, 1, 512, false), 0x50);
        assert_memory_equal(mem(DATA), probe_data + 1024, 512);
    }
    machine_end();
}

/* Random registers and command tables: every slot ends or waits, and a reset of the controller heals all. */
static void test_random_guests(void **state)
{
    machine("ide-hd", "");
    for (int round = 0; round < hw_rounds(300); round++) {
        port_start();
        for (unsigned n = 0; n < 8; n++) {
            static const uint8_t ops[] = { 0x25, 0x35, 0x60, 0x61, 0xec, 0xea, 0x06, 0x2f, 0xef, 0xe5, 0xc8, 0x42 };
            uint8_t *t = slot(n, hw_rand(4) ? ops[hw_rand(12)] : (uint8_t)hw_rand(256), hw_rand(600), (uint16_t)hw_rand(20), 512 * (1 + hw_rand(8)), hw_rand(2));
            if (!hw_rand(6))
                t[hw_rand(0x90)] = (uint8_t)hw_rand(256);
            if (!hw_rand(6))
                mem(CLB + 32 * n)[hw_rand(16)] = (uint8_t)hw_rand(256);
        }
        if (hw_rand(2))
            pwr(P_SACT, hw_rand(256));
        issue(hw_rand(256));
        for (int k = 0; k < 4; k++)
            pwr(hw_rand(16) * 4, hw_rand(2) ? hw_rand(65536) : hw_rand(UINT32_MAX));
        t_settle();
        wr(R_GHC, GHC_AE | GHC_HR);
        t_settle();
        assert_int_equal(prd(P_CMD) & CMD_CR, 0);
    }
    port_start();
    assert_int_equal(run(0xec, 0, 0, 512, false), 0x50);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_on), cmocka_unit_test(test_identify), cmocka_unit_test(test_names), cmocka_unit_test(test_modes),
        cmocka_unit_test(test_reads_and_writes), cmocka_unit_test(test_queued),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_stop_and_reset_with_commands), cmocka_unit_test(test_cd),
        cmocka_unit_test(test_saved_state), cmocka_unit_test(test_smart), cmocka_unit_test(test_hot_plug), cmocka_unit_test(test_random_guests),
    };
    t_unused();
    return cmocka_run_group_tests(tests, t_setup, NULL);
}
