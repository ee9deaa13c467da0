/* SPDX-License-Identifier: MIT */
/* SD host controller with SD cards and e.MMC devices: identification, transfers by port, SDMA and ADMA2, erasing, protection, resets, wrong guests. */
#include "pci_test.h"
#include "probe_disk.h"
#include <errno.h>
#include "hw/sd/sdhci.h"

enum { BAR = T_MEM, TABLE = HW_RAM + 0x1000, DATA = HW_RAM + 0x10000 };
enum { R0 = 0, R2 = 1, R1 = 2, R1B = 3, SENDS = 0x20 | 2 };
static struct dev *host, *card;
static uint16_t rca;

static uint32_t rd(uint32_t off, unsigned size) { return (uint32_t)hw_rd(BAR + off, size); }
static void wr(uint32_t off, uint32_t v, unsigned size) { hw_wr(BAR + off, v, size); }
static uint8_t *mem(uint64_t addr) { return hw_ram->host + (addr - HW_RAM); }

/* A command with how it is answered; the errors it raised. */
static uint16_t cmd(unsigned index, uint32_t arg, unsigned how, uint16_t mode)
{
    wr(0x30, UINT32_MAX, 4);
    wr(8, arg, 4);
    wr(0xc, mode, 2);
    wr(0xe, index << 8 | how | (index == 12 ? 0xc0 : 0), 2);
    t_settle();
    return (uint16_t)rd(0x32, 2);
}
static uint32_t resp(void) { return rd(0x10, 4); }
static uint16_t app(unsigned index, uint32_t arg, unsigned how, uint16_t mode)
{
    cmd(55, (uint32_t)rca << 16, R1, 0);
    assert_true(resp() & SD_ST_APP_CMD);
    return cmd(index, arg, how, mode);
}
static unsigned state(void)
{
    cmd(13, (uint32_t)rca << 16, R1, 0);
    return resp() >> 9 & 0xf;
}

static void power_up(void)
{
    t_wr(host, PCI_BAR0, BAR, 4);
    t_wr(host, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    wr(0x2f, 1, 1);
    wr(0x29, 0xf, 1);
    wr(0x2c, 1, 2);
    assert_int_equal(rd(0x2c, 2) & 2, 2);
    wr(0x2c, 5, 2);
    wr(0x34, 0xffffffff, 4);
    wr(0x38, 0xffffffff, 4);
    rca = 0;
}

static void identify_sd(void)
{
    power_up();
    cmd(0, 0, R0, 0);
    assert_int_equal(cmd(8, 0x1aa, R1, 0), 0);
    assert_int_equal(resp(), 0x1aa);
    assert_int_equal(app(41, 0, R1, 0), 0);
    assert_false(resp() & SD_OCR_READY);
    app(41, 0x40ff8000, R1, 0);
    assert_true(resp() & SD_OCR_READY);
    assert_int_equal(cmd(2, 0, R2, 0), 0);
    cmd(3, 0, R1, 0);
    rca = (uint16_t)(resp() >> 16);
    assert_int_equal(cmd(9, (uint32_t)rca << 16, R2, 0), 0);
    assert_int_equal(cmd(7, (uint32_t)rca << 16, R1B, 0), 0);
    assert_int_equal(state(), SD_TRAN);
    wr(4, 512, 2);
}

static void machine(const char *class, const char *const opts[][2], const char *node)
{
    t_setup(NULL);
    probe_fill();
    sd_node("disk", node);
    host = t_new_on("sdhci-pci", &t_bus->bus, "sd", NULL);
    card = t_new_on(class, bus_find("sd.0"), "card", opts);
    dev_reset_tree(host, RESET_COLD);
    power_up();
}

static void machine_end(void)
{
    probe_go();
    t_remove(host);
    sd_del("disk");
}

static const char *const plain[][2] = { { "drive", "disk" }, { NULL, NULL } };

static void adma(unsigned i, uint16_t attr, uint32_t len, uint32_t addr)
{
    st_le16(mem(TABLE) + 8 * i, attr);
    st_le16(mem(TABLE) + 8 * i + 2, (uint16_t)len);
    st_le32(mem(TABLE) + 8 * i + 4, addr);
}

static uint16_t transfer(unsigned index, uint32_t arg, unsigned blocks, uint16_t mode)
{
    wr(4, 512, 2);
    wr(6, blocks, 2);
    wr(0x28, mode & TM_DMA ? 0x10 : 0, 1);
    wr(0x58, TABLE, 4);
    wr(0x5c, 0, 4);
    return cmd(index, arg, SENDS, mode | (blocks > 1 ? TM_MULTI | TM_COUNT : 0));
}

static void test_identification(void **st)
{
    machine("sd-card", plain, "");
    assert_int_equal(t_rd(host, PCI_CLASS_PROG, 1) | t_rd(host, PCI_CLASS_DEVICE, 2) << 8, 0x080501);
    assert_int_equal(rd(0x40, 4), 0x057834b4);
    assert_int_equal(rd(0xfe, 2), 1);
    assert_int_equal(rd(0x24, 4) & 0xf0000, 0xf0000);           /* there, stable, writable */
    identify_sd();
    wr(0x2c, 1, 2);                                             /* no clock, no answer */
    assert_int_equal(cmd(13, (uint32_t)rca << 16, R1, 0), ERR_CMD_TIMEOUT);
    wr(0x2c, 5, 2);
    assert_int_equal(cmd(1, 0, R1, 0), ERR_CMD_TIMEOUT);        /* no command of SD cards */
    cmd(13, (uint32_t)rca << 16, R1, 0);
    assert_true(resp() & SD_ST_ILLEGAL_COMMAND);
    cmd(13, (uint32_t)rca << 16, R1, 0);
    assert_false(resp() & SD_ST_ILLEGAL_COMMAND);
    cmd(7, 0, R0, 0);
    cmd(9, (uint32_t)rca << 16, R2, 0);                         /* CSD 1.0: 256 KiB */
    uint32_t size = (rd(0x18, 4) & 3) << 10 | rd(0x14, 4) >> 22, mult = rd(0x14, 4) >> 7 & 7, len = rd(0x18, 4) >> 8 & 0xf;
    assert_int_equal((size + 1) << (mult + 2 + len), PROBE_SIZE);
    machine_end();
}

static void test_port(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    wr(4, 8, 2);
    assert_int_equal(app(51, 0, SENDS, TM_READ), 0);
    assert_int_equal(rd(0x30, 2) & INT_READ_READY, INT_READ_READY);
    assert_int_equal(rd(0x20, 4), 0x02800502);                  /* SCR: 02 05 80 02 in this order of bytes */
    assert_int_equal(rd(0x30, 2) & INT_TRANSFER, 0);
    rd(0x20, 4);
    assert_int_equal(rd(0x30, 2) & INT_TRANSFER, INT_TRANSFER);
    assert_int_equal(transfer(18, 5 * 512, 3, TM_READ | TM_AUTO_CMD12), 0);
    for (unsigned i = 0; i < 3 * 128; i++) {
        assert_true(rd(0x24, 4) & 0x800);
        assert_int_equal(rd(0x20, 4), ld_le32(probe_data + 5 * 512 + 4 * i));
        t_settle();
    }
    assert_int_equal(rd(6, 2), 0);
    assert_int_equal(state(), SD_TRAN);
    assert_int_equal(transfer(25, 9 * 512, 2, TM_AUTO_CMD12), 0);
    for (unsigned i = 0; i < 2 * 128; i++) {
        assert_true(rd(0x24, 4) & 0x400);
        wr(0x20, 0xa5000000 + i, 4);
        t_settle();
    }
    assert_int_equal(rd(0x30, 2) & INT_TRANSFER, INT_TRANSFER);
    assert_int_equal(ld_le32(probe_data + 9 * 512 + 4 * 200), 0xa5000000 + 200);
    wr(4, 4, 2);
    app(22, 0, SENDS, TM_READ);
    assert_int_equal(rd(0x20, 4), 2u << 24);                    /* two blocks were written */
    machine_end();
}

static void test_adma(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    adma(0, 0x21, 700, DATA);
    adma(1, 0x31, 0, TABLE + 24);                               /* a link over what is not valid */
    adma(2, 0, 0, 0);
    adma(3, 0x23, 4 * 512 - 700, DATA + 0x1000);
    assert_int_equal(transfer(18, 512, 4, TM_READ | TM_DMA | TM_AUTO_CMD12), 0);
    assert_int_equal(rd(0x30, 2) & INT_TRANSFER, INT_TRANSFER);
    assert_memory_equal(mem(DATA), probe_data + 512, 700);
    assert_memory_equal(mem(DATA + 0x1000), probe_data + 512 + 700, 4 * 512 - 700);
    assert_int_equal(state(), SD_TRAN);
    memset(mem(DATA), 0x77, 1024);
    adma(0, 0x23, 1024, DATA);
    wr(6, 2, 2);
    cmd(23, 2, R1, 0);                                          /* the card ends by itself */
    assert_int_equal(transfer(25, 2048, 2, TM_DMA), 0);
    assert_memory_equal(probe_data + 2048, mem(DATA), 1024);
    assert_int_equal(state(), SD_TRAN);
    assert_int_equal(probe_fua, 1);                             /* what the host was told is written is */
    adma(0, 0x23, 512, DATA);                                   /* too short for two blocks */
    assert_int_equal(transfer(18, 0, 2, TM_READ | TM_DMA), ERR_ADMA);
    assert_int_equal(rd(0x54, 1), 7);
    cmd(12, 0, R1B, 0);
    assert_int_equal(state(), SD_TRAN);
    adma(0, 0x31, 0, TABLE);                                    /* a loop of links */
    assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), ERR_ADMA);
    cmd(12, 0, R1B, 0);
    adma(0, 0x23, 512, 0x1000);                                 /* no RAM */
    assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), ERR_ADMA);
    cmd(12, 0, R1B, 0);
    probe_error = -EIO;
    adma(0, 0x23, 512, DATA);
    assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), ERR_DATA_CRC);
    probe_error = 0;
    cmd(12, 0, R1B, 0);
    assert_true(resp() & SD_ST_CARD_ECC_FAILED);
    assert_int_equal(transfer(17, PROBE_SIZE, 1, TM_READ | TM_DMA), ERR_DATA_TIMEOUT);
    machine_end();
}

static void test_sdma(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    wr(0, DATA + 0x800, 4);
    wr(4, 512, 2);                                              /* boundary at 4 KiB */
    wr(6, 12, 2);
    wr(0x28, 0, 1);
    assert_int_equal(cmd(18, 0, SENDS, TM_READ | TM_DMA | TM_MULTI | TM_COUNT | TM_AUTO_CMD12), 0);
    assert_int_equal(rd(0x30, 2) & (INT_DMA | INT_TRANSFER), INT_DMA);
    assert_int_equal(rd(0, 4), DATA + 0x1000);
    assert_int_equal(rd(6, 2), 8);
    wr(0x30, INT_DMA, 2);
    wr(0, DATA + 0x5000, 4);                                    /* it may go on elsewhere */
    t_settle();
    assert_int_equal(rd(0x30, 2) & (INT_DMA | INT_TRANSFER), INT_TRANSFER);
    assert_memory_equal(mem(DATA + 0x800), probe_data, 0x800);
    assert_memory_equal(mem(DATA + 0x5000), probe_data + 0x800, 0x1000);
    machine_end();
}

static void test_erase_and_protection(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    cmd(32, 512 * 8, R1, 0);
    cmd(33, 512 * 15, R1, 0);
    assert_int_equal(cmd(38, 0, R1B, 0), 0);
    assert_int_equal(rd(0x30, 2) & INT_TRANSFER, INT_TRANSFER);
    for (unsigned i = 0; i < 8 * 512; i++)
        assert_int_equal(probe_data[8 * 512 + i], 0);
    assert_int_not_equal(probe_data[16 * 512 + 3], 0);
    cmd(38, 0, R1B, 0);
    assert_true(resp() & SD_ST_ERASE_SEQ_ERROR);
    /* CSD: the temporary write protection is set, then nothing is written */
    memcpy(mem(DATA), ((struct sd_card *)card)->csd, 16);
    mem(DATA)[14] |= 0x10;
    wr(4, 16, 2);
    wr(6, 1, 2);
    wr(0x28, 0x10, 1);
    adma(0, 0x23, 16, DATA);
    wr(0x58, TABLE, 4);
    assert_int_equal(cmd(27, 0, SENDS, TM_DMA), 0);
    assert_int_equal(rd(0x24, 4) & 0x80000, 0);
    adma(0, 0x23, 512, DATA);
    assert_int_equal(transfer(24, 0, 1, TM_DMA), ERR_DATA_TIMEOUT);
    assert_true(resp() & SD_ST_WP_VIOLATION);
    machine_end();
    machine("sd-card", plain, ",\"read-only\":true");
    assert_int_equal(rd(0x24, 4) & 0x80000, 0);
    machine_end();
}

static void identify_mmc(void)
{
    power_up();
    cmd(0, 0, R0, 0);
    assert_int_equal(cmd(8, 0x1aa, R1, 0), ERR_CMD_TIMEOUT);
    cmd(1, 0x40ff8000, R1, 0);
    assert_int_equal(resp() >> 30, 3);
    cmd(2, 0, R2, 0);
    rca = 7;
    assert_int_equal(cmd(3, 7u << 16, R1, 0), 0);
    cmd(7, 7u << 16, R1B, 0);
    assert_int_equal(state(), SD_TRAN);
}

static void mmc_switch(unsigned index, unsigned value)
{
    assert_int_equal(cmd(6, 3u << 24 | index << 16 | value << 8, R1B, 0), 0);
}

static void test_emmc(void **st)
{
    machine("emmc", plain, "");
    identify_mmc();
    adma(0, 0x23, 512, DATA);
    assert_int_equal(transfer(8, 0, 1, TM_READ | TM_DMA), 0);
    assert_int_equal(ld_le32(mem(DATA) + EXT_SEC_COUNT), PROBE_SIZE / 512);
    assert_int_equal(mem(DATA)[EXT_REV], 8);
    mmc_switch(EXT_BUS_WIDTH, 2);
    mmc_switch(EXT_HS_TIMING, 1);
    assert_int_equal(state(), SD_TRAN);
    mmc_switch(EXT_HS_TIMING, 3);
    cmd(13, 7u << 16, R1, 0);
    assert_true(resp() & SD_ST_SWITCH_ERROR);                   /* no HS400 */
    assert_int_equal(transfer(24, 3, 1, TM_DMA), 0);            /* sectors */
    assert_memory_equal(probe_data + 3 * 512, mem(DATA), 512);
    assert_int_equal(probe_fua, 1);
    mmc_switch(EXT_CACHE_CTRL, 1);
    assert_int_equal(transfer(24, 3, 1, TM_DMA), 0);
    assert_int_equal(probe_fua, 1);                             /* in the cache */
    mmc_switch(EXT_CACHE_FLUSH, 1);
    assert_int_equal(probe_flushes, 1);
    cmd(6, 3u << 24 | EXT_CACHE_FLUSH << 16 | 1 << 8, R1, 0);   /* a host that asks for the state instead of waiting */
    assert_int_equal(probe_flushes, 2);
    assert_int_equal(state(), SD_TRAN);
    cmd(35, 8, R1, 0);
    cmd(36, 9, R1, 0);
    assert_int_equal(cmd(38, MMC_TRIM, R1B, 0), 0);
    assert_int_equal(ld_le64(probe_data + 8 * 512), 0);
    assert_int_not_equal(ld_le64(probe_data + 10 * 512), 0);
    machine_end();
}

static void test_boot_partitions(void **st)
{
    t_setup(NULL);
    probe_fill();
    struct err e = ERR_INIT;
    const char *const bad[][2] = { { "drive", "disk" }, { "boot-partition-size", "128K" }, { NULL, NULL } };
    sd_node("disk", "");
    host = t_new_on("sdhci-pci", &t_bus->bus, "sd", NULL);
    card = t_try("emmc", bus_find("sd.0"), "card", bad, &e);
    assert_null(card);                                          /* 256 KiB are all boot partitions */
    assert_non_null(strstr(e.msg, "no more than the two boot partitions"));
    t_remove(host);
    sd_del("disk");
}

static void test_resets_with_a_transfer(void **st)
{
    machine("sd-card", plain, "");
    for (int i = 0; i < 12; i++) {
        identify_sd();
        adma(0, 0x23, 1024, DATA);
        probe_hold = true;
        transfer(i & 1 ? 25 : 18, 0, 2, (i & 1 ? 0 : TM_READ) | TM_DMA | TM_AUTO_CMD12);
        assert_true(rd(0x24, 4) & 2);
        if (i % 3 == 0)
            wr(0x2f, 4, 1);
        else if (i % 3 == 1)
            cmd(12, 0, R1B, 0);
        else
            wr(0x2f, 1, 1);
        probe_go();
        assert_int_equal(rd(0x30, 2) & INT_TRANSFER, i % 3 == 1 ? INT_TRANSFER : 0);    /* of CMD12's end alone */
        identify_sd();
        assert_int_equal(transfer(17, 512, 1, TM_READ | TM_DMA), 0);
        assert_memory_equal(mem(DATA), probe_data + 512, 512);
    }
    probe_hold = true;                                          /* taken out in the middle */
    transfer(18, 0, 2, TM_READ | TM_DMA | TM_AUTO_CMD12);
    struct err e = ERR_INIT;
    assert_true(dev_unplug_request(card, &e));
    probe_go();
    for (int i = 0; i < 50; i++)
        t_settle();
    assert_int_equal(rd(0x24, 4) & 0x10000, 0);
    assert_true(rd(0x30, 2) & INT_REMOVE);
    assert_int_equal(cmd(13, 0, R1, 0), ERR_CMD_TIMEOUT);
    machine_end();
}

static void fuzz(const char *class)
{
    machine(class, plain, "");
    for (int round = 0; round < 400; round++) {
        if (class[0] == 's')
            identify_sd();
        else
            identify_mmc();
        for (unsigned i = 0; i < 16; i++)
            adma(i, (uint16_t)(hw_rand(4) ? 0x21 | hw_rand(2) << 1 | hw_rand(2) << 4 : hw_rand(64)), hw_rand(3) ? 512 * hw_rand(8) : hw_rand(65536),
                 hw_rand(8) ? DATA + hw_rand(0x8000) : hw_rand(UINT32_MAX));
        for (unsigned i = 0; i < 12; i++) {
            static const uint8_t offs[] = { 0, 4, 5, 6, 8, 0xc, 0xe, 0xf, 0x20, 0x20, 0x28, 0x29, 0x2c, 0x2f, 0x30, 0x34, 0x50, 0x58 };
            unsigned off = hw_rand(3) ? offs[hw_rand(18)] : hw_rand(256), size = 1u << hw_rand(3);
            if (off == 0x29 || off == 0x2c || off == 0x2f)
                size = 1;
            wr(off & ~(size - 1), hw_rand(2) ? hw_rand(0x1000) : off == 0x58 ? TABLE : hw_rand(UINT32_MAX), size);
            if (hw_rand(2))
                cmd(hw_rand(64), hw_rand(2) ? hw_rand(PROBE_SIZE) : hw_rand(UINT32_MAX), hw_rand(64), (uint16_t)hw_rand(64));
            if (!hw_rand(3))
                rd(hw_rand(64) * 4, 4);
        }
        t_settle();
        wr(0x2f, 1, 1);
        t_settle();
        assert_false(((struct sdhci *)host)->stepping);
        dev_reset_tree(host, RESET_COLD);
    }
    if (class[0] == 's')
        identify_sd();
    else
        identify_mmc();
    adma(0, 0x23, 512, DATA);
    assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), 0);
    machine_end();
}

static void test_random_guests(void **st) { fuzz("sd-card"); }
static void test_random_guests_of_emmc(void **st) { fuzz("emmc"); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identification), cmocka_unit_test(test_port), cmocka_unit_test(test_adma), cmocka_unit_test(test_sdma),
        cmocka_unit_test(test_erase_and_protection), cmocka_unit_test(test_emmc), cmocka_unit_test(test_boot_partitions),
        cmocka_unit_test(test_resets_with_a_transfer), cmocka_unit_test(test_random_guests), cmocka_unit_test(test_random_guests_of_emmc),
    };
    t_unused();
    return cmocka_run_group_tests(tests, t_setup, NULL);
}
