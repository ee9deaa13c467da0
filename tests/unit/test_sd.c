/* SPDX-License-Identifier: MIT */
/* SD host controller with SD cards and e.MMC devices: identification, transfers by port, SDMA and ADMA2, erasing, protection, resets, wrong guests. */
#include "sd_drv.h"
#include <pthread.h>
#include <errno.h>
#include "crypto/cipher.h"

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
    assert_true(resp() & SD_ST_SWITCH_ERROR);                   /* HS400 needs both edges */
    mmc_switch(EXT_BUS_WIDTH, 6);
    mmc_switch(EXT_HS_TIMING, 3);
    cmd(13, 7u << 16, R1, 0);
    assert_false(resp() & SD_ST_SWITCH_ERROR);
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

/* HS200 with signals of 1.8 V: the controller tunes by CMD21, on 4 and on 8 lines. */
static void test_tuning(void **st)
{
    static const char *const fast[][2] = { { "sd-spec-version", "3" }, { "capareg", "0x2007157cd0b4" }, { NULL, NULL } };
    static const char *const old[][2] = { { "capareg", "0x2007157cd0b4" }, { NULL, NULL } };
    struct err e = ERR_INIT;

    machine_on(fast, "emmc", plain, "");
    identify_mmc();
    assert_int_equal(rd(0x6e, 2), 3);                           /* DDR50 from 208 MHz: a sixth */
    wr(0x3e, 8, 2);
    assert_int_equal(rd(0x3e, 2), 8);
    wr(4, 64, 2);
    assert_int_equal(cmd(21, 0, SENDS, TM_READ), ERR_CMD_TIMEOUT);      /* not in this mode */
    for (int lines = 4; lines <= 8; lines += 4) {
        mmc_switch(EXT_BUS_WIDTH, lines == 8 ? 2 : 1);
        mmc_switch(EXT_HS_TIMING, 2);
        wr(0x28, lines == 8 ? 0x20 : 0x02, 1);
        wr(4, lines * 16, 2);
        wr(0x3e, 0x48, 2);
        assert_int_equal(cmd(21, 0, SENDS, TM_READ), 0);
        assert_int_equal(rd(0x30, 2), INT_READ_READY);          /* and no other event */
        assert_int_equal(rd(0x3e, 2), 0x88);
        assert_int_equal(state(), SD_TRAN);
    }
    wr(0x3e, 0, 2);
    wr(0x3e, 0x80, 2);
    assert_int_equal(rd(0x3e, 2), 0);                           /* no guest says that it is tuned */
    wr(0x28, 0x02, 1);                                          /* the card has 8 lines, the host 4 */
    wr(0x3e, 0x48, 2);
    assert_int_equal(cmd(21, 0, SENDS, TM_READ), 0);
    assert_int_equal(rd(0x3e, 2), 0x08);
    wr(4, 128, 2);
    assert_int_equal(cmd(21, 0, SENDS, TM_READ), 0);            /* without the controller, the block is data */
    assert_int_equal(rd(0x20, 4), 0xff00ffff);
    machine_end();
    assert_null(t_try("sdhci-pci", &t_bus->bus, "sd", old, &e));
    assert_non_null(strstr(e.msg, "UHS-I, which begins with version 3"));
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

/* As a hart does it, whose transfers begin only when the main loop comes to them. */
static void *read_twice(void *arg)
{
    for (unsigned i = 0; i < 2; i++) {
        wr(0xc, TM_READ | TM_DMA | TM_MULTI | TM_COUNT, 2);
        wr(0xe, 18 << 8 | SENDS, 2);
        if (i)
            return NULL;
        wr(0x2f, 4, 1);
        wr(0xe, 12 << 8 | R1 | 0xc0, 2);
    }
    return NULL;
}

static void test_transfers_before_the_loop_looks(void **st)
{
    pthread_t hart;
    machine("sd-card", plain, "");
    identify_sd();
    adma(0, 0x23, 1024, DATA);
    wr(4, 512, 2);
    wr(6, 2, 2);
    wr(0x28, 0x10, 1);
    wr(0x58, TABLE, 4);
    wr(8, 1024, 4);
    wr(0x30, UINT32_MAX, 4);
    probe_hold = true;
    assert_int_equal(pthread_create(&hart, NULL, read_twice, NULL), 0);
    pthread_join(hart, NULL);
    t_settle();
    assert_int_equal(probe_waiting, 1);
    probe_go();
    assert_int_equal(rd(0x30, 4), INT_TRANSFER | INT_COMMAND);
    assert_memory_equal(mem(DATA), probe_data + 1024, 1024);
    machine_end();
}

/* An erase that a reset overtook takes nothing off the next one's range. */
static void test_reset_while_erasing(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    cmd(32, 0, R1, 0);
    cmd(33, 512 * 7, R1, 0);
    probe_hold = true;
    assert_int_equal(cmd(38, 0, R1B, 0), 0);
    assert_int_equal(probe_waiting, 1);
    wr(0x2f, 1, 1);
    identify_sd();
    wr(0x2f, 4, 1);                                             /* the card was not waited for when it was selected */
    cmd(32, 512 * 8, R1, 0);
    cmd(33, 512 * 15, R1, 0);
    assert_int_equal(cmd(38, 0, R1B, 0), 0);
    probe_go();
    assert_int_equal(state(), SD_TRAN);
    for (unsigned i = 0; i < 8 * 512; i++)
        assert_int_equal(probe_data[8 * 512 + i], 0);
    assert_int_not_equal(probe_data[16 * 512 + 3], 0);
    machine_end();
}

/* CMD42: one block; the status that follows. */
static uint32_t lock(uint8_t mode, const char *password)
{
    size_t n = strlen(password);

    memset(mem(DATA), 0, 512);
    mem(DATA)[0] = mode;
    mem(DATA)[1] = (uint8_t)n;
    memcpy(mem(DATA) + 2, password, n);
    assert_int_equal(cmd(16, mode == 8 ? 1 : (uint32_t)n + 2, R1, 0), 0);
    wr(4, mode == 8 ? 1 : (uint32_t)n + 2, 2);
    wr(6, 1, 2);
    wr(0x28, 0x10, 1);
    adma(0, 0x23, mode == 8 ? 1 : (uint16_t)(n + 2), DATA);
    wr(0x58, TABLE, 4);
    assert_int_equal(cmd(42, 0, SENDS, TM_DMA), 0);
    cmd(13, (uint32_t)rca << 16, R1, 0);
    uint32_t st = resp() & (SD_ST_LOCKED | SD_ST_LOCK_FAILED);
    assert_int_equal(cmd(16, 512, R1, 0), 0);
    return st;
}

static void test_lock(void **st)
{
    for (int mmc = 0; mmc < 2; mmc++) {
        void (*identify)(void) = mmc ? identify_mmc : identify_sd;
        machine(mmc ? "emmc" : "sd-card", plain, "");
        identify();
        assert_int_equal(lock(4, "none"), SD_ST_LOCK_FAILED);           /* there is no password */
        assert_int_equal(lock(1, "12345678901234567"), SD_ST_LOCK_FAILED);
        assert_int_equal(lock(1, "first"), 0);
        assert_int_equal(lock(1, "firstsecond"), 0);                    /* the old one before the new one */
        assert_int_equal(lock(4, "first"), SD_ST_LOCK_FAILED);
        assert_int_equal(lock(4, "second"), SD_ST_LOCKED);
        adma(0, 0x23, 512, DATA);
        assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), ERR_CMD_TIMEOUT);
        assert_int_equal(lock(0, "secon"), SD_ST_LOCKED | SD_ST_LOCK_FAILED);
        assert_int_equal(lock(0, "second"), 0);
        adma(0, 0x23, 512, DATA);
        assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), 0);
        identify();                                                     /* after CMD0 it is locked again */
        cmd(13, (uint32_t)rca << 16, R1, 0);
        assert_true(resp() & SD_ST_LOCKED);
        assert_int_equal(lock(2, "second"), 0);
        identify();
        assert_int_equal(state(), SD_TRAN);
        assert_int_equal(lock(5, "third"), SD_ST_LOCKED);               /* set and lock at once */
        assert_int_not_equal(probe_data[16 * 512 + 3], 0);
        assert_int_equal(lock(8, ""), 0);                               /* forgotten: everything goes */
        for (unsigned i = 0; i < PROBE_SIZE; i++)
            assert_int_equal(probe_data[i], 0);
        assert_int_equal(lock(8, ""), SD_ST_LOCK_FAILED);
        assert_int_equal(state(), SD_TRAN);
        machine_end();
    }
}

/* What CMD30 or CMD31 tells, its first byte foremost. */
static uint64_t groups(unsigned index, uint32_t arg)
{
    unsigned n = index == 30 ? 4 : 8;

    wr(4, n, 2);
    wr(6, 1, 2);
    wr(0x28, 0x10, 1);
    adma(0, 0x23, (uint16_t)n, DATA);
    wr(0x58, TABLE, 4);
    assert_int_equal(cmd(index, arg, SENDS, TM_READ | TM_DMA), 0);
    return n == 4 ? ld_be32(mem(DATA)) : ld_be64(mem(DATA));
}

static void test_protected_groups(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    assert_int_equal(cmd(28, 0x10000, R1B, 0), 0);              /* the second of four groups of 64 KiB */
    assert_int_equal(groups(30, 0), 2);
    assert_int_equal(groups(30, 0x10000), 1);
    adma(0, 0x23, 1024, DATA);
    assert_int_equal(transfer(24, 0x10000, 1, TM_DMA), ERR_DATA_TIMEOUT);
    assert_true(resp() & SD_ST_WP_VIOLATION);
    uint8_t was = probe_data[0x10000];
    memset(mem(DATA), ~was, 1024);
    assert_int_equal(transfer(25, 0x10000 - 512, 2, TM_DMA), ERR_DATA_TIMEOUT);         /* into it */
    cmd(12, 0, R1B, 0);
    assert_true(resp() & SD_ST_WP_VIOLATION);
    assert_int_equal(probe_data[0x10000], was);
    cmd(32, 0xf000, R1, 0);                                     /* what is erased goes around it */
    cmd(33, 0x20000, R1, 0);
    assert_int_equal(cmd(38, 0, R1B, 0), 0);
    cmd(13, (uint32_t)rca << 16, R1, 0);
    assert_true(resp() & SD_ST_WP_ERASE_SKIP);
    assert_int_equal(ld_le64(probe_data + 0xf000) | ld_le64(probe_data + 0x20000), 0);
    assert_int_equal(probe_data[0x10000], was);
    identify_sd();                                              /* it lasts */
    assert_int_equal(groups(30, 0), 2);
    assert_int_equal(cmd(29, 0x1ffff, R1B, 0), 0);
    assert_int_equal(groups(30, 0), 0);
    assert_int_equal(cmd(28, PROBE_SIZE, R1B, 0), 0);
    assert_true(resp() & SD_ST_OUT_OF_RANGE);
    assert_int_equal(cmd(31, 0, SENDS, TM_READ | TM_DMA), ERR_CMD_TIMEOUT);             /* e.MMC's */
    machine_end();

    machine("emmc", plain, "");
    identify_mmc();
    for (int kind = SD_WP_TEMPORARY; kind <= SD_WP_PERMANENT; kind++) {
        mmc_switch(EXT_USER_WP, kind == SD_WP_TEMPORARY ? 0 : kind == SD_WP_POWER_ON ? 1 : 4);
        assert_int_equal(cmd(28, 0, R1B, 0), 0);
        assert_int_equal(groups(31, 0), kind);
        cmd(29, 0, R1B, 0);
        cmd(13, 7u << 16, R1, 0);
        assert_int_equal(groups(31, 0), kind == SD_WP_TEMPORARY ? SD_WP_NONE : kind);
        if (kind == SD_WP_POWER_ON) {
            identify_mmc();
            assert_int_equal(groups(31, 0), SD_WP_NONE);
        }
    }
    adma(0, 0x23, 512, DATA);
    assert_int_equal(transfer(24, 3, 1, TM_DMA), ERR_DATA_TIMEOUT);
    assert_int_equal(lock(5, "x"), SD_ST_LOCKED);
    assert_int_equal(lock(8, ""), SD_ST_LOCKED | SD_ST_LOCK_FAILED);    /* protected for good: it stays locked */
    machine_end();
}

#ifdef CONFIG_NETTLE
/* ---- RPMB: a frame as mmc-utils make it ---- */

static const char *const with_rpmb[][2] = { { "drive", "disk" }, { "rpmb-partition-size", "128K" }, { NULL, NULL } };
static uint8_t key[32];
static uint8_t *frame(unsigned i) { return mem(DATA) + 512 * i; }

static void sign(unsigned n)
{
    struct hash_mac *m = hash_mac_new("sha256", key, sizeof key);

    for (unsigned i = 0; i < n; i++)
        hash_mac_add(m, frame(i) + 228, 284);
    hash_mac_end(m, frame(n - 1) + 196);
}

static void frames_out(unsigned type, unsigned n, bool reliable)
{
    for (unsigned i = 0; i < n; i++)
        st_be16(frame(i) + 510, (uint16_t)type);
    if (type == 3)
        sign(n);
    assert_int_equal(cmd(23, n | (uint32_t)reliable << 31, R1, 0), 0);
    adma(0, 0x23, (uint16_t)(512 * n), DATA);
    wr(6, n, 2);
    assert_int_equal(transfer(25, 0, n, TM_MULTI | TM_COUNT | TM_DMA), 0);
}

/* The answer: its result; the MAC of @n frames is right if there is a key. */
static unsigned frames_in(unsigned type, unsigned n, bool keyed)
{
    uint8_t mac[32];

    memset(mem(DATA), 0xee, 512 * n);
    assert_int_equal(cmd(23, n, R1, 0), 0);
    adma(0, 0x23, (uint16_t)(512 * n), DATA);
    assert_int_equal(transfer(18, 0, n, TM_MULTI | TM_COUNT | TM_DMA | TM_READ), 0);
    assert_int_equal(ld_be16(frame(n - 1) + 510), type << 8);
    memcpy(mac, frame(n - 1) + 196, 32);
    if (keyed) {
        sign(n);
        assert_memory_equal(mac, frame(n - 1) + 196, 32);
    }
    return ld_be16(frame(n - 1) + 508);
}

static unsigned rpmb_write(uint32_t counter, unsigned address, unsigned n, uint8_t fill)
{
    memset(mem(DATA), 0, 1024);
    for (unsigned i = 0; i < n; i++) {
        memset(frame(i) + 228, fill + (int)i, 256);
        st_be32(frame(i) + 500, counter);
        st_be16(frame(i) + 504, (uint16_t)address);
        st_be16(frame(i) + 506, (uint16_t)n);
    }
    frames_out(3, n, true);
    memset(mem(DATA), 0, 1024);
    frames_out(5, 1, false);
    return frames_in(3, 1, true);
}

static uint32_t rpmb_counter(void)
{
    memset(mem(DATA), 0, 512);
    memset(frame(0) + 484, 0x5c, 16);
    frames_out(2, 1, false);
    unsigned r = frames_in(2, 1, true);
    assert_int_equal(frame(0)[490], 0x5c);              /* the nonce comes back */
    return r ? UINT32_MAX : ld_be32(frame(0) + 500);
}

static void test_rpmb(void **st)
{
    machine("emmc", with_rpmb, "");
    identify_mmc();
    mmc_switch(EXT_PARTITION_CONFIG, 3);
    for (unsigned i = 0; i < 32; i++)
        key[i] = (uint8_t)(i * 7 + 1);
    memset(mem(DATA), 0, 512);
    frames_out(2, 1, false);
    assert_int_equal(frames_in(2, 1, false), 7);                /* no key */
    memset(mem(DATA), 0, 512);
    memcpy(frame(0) + 196, key, 32);
    frames_out(1, 1, false);
    memset(mem(DATA), 0, 512);
    frames_out(5, 1, false);
    assert_int_equal(frames_in(1, 1, false), 1);                /* not a reliable write */
    for (unsigned again = 0; again < 2; again++) {
        memset(mem(DATA), 0, 512);
        memcpy(frame(0) + 196, key, 32);
        frames_out(1, 1, true);
        memset(mem(DATA), 0, 512);
        frames_out(5, 1, false);
        assert_int_equal(frames_in(1, 1, false), again ? 5 : 0);        /* once for all */
    }
    assert_int_equal(rpmb_counter(), 0);
    assert_int_equal(rpmb_write(0, 5, 1, 0x11), 0);
    assert_int_equal(probe_data[5 * 256], 0x11);
    assert_int_equal(rpmb_counter(), 1);
    assert_int_equal(rpmb_write(0, 5, 1, 0x22), 3);             /* replayed */
    assert_int_equal(rpmb_write(1, 512, 1, 0x22), 4);           /* behind the end */
    assert_int_equal(rpmb_write(1, 511, 2, 0x22), 4);
    key[0] ^= 1;
    memset(mem(DATA), 0, 512);
    st_be32(frame(0) + 500, 1);
    st_be16(frame(0) + 506, 1);
    frames_out(3, 1, true);
    key[0] ^= 1;
    memset(mem(DATA), 0, 512);
    frames_out(5, 1, false);
    assert_int_equal(frames_in(3, 1, true), 2);                 /* another key */
    assert_int_equal(rpmb_write(1, 510, 2, 0x33), 0);
    assert_int_equal(probe_data[510 * 256] << 8 | probe_data[511 * 256], 0x3334);
    assert_int_equal(rpmb_counter(), 2);
    memset(mem(DATA), 0, 512);
    st_be16(frame(0) + 504, 509);
    frames_out(4, 1, false);
    assert_int_equal(frames_in(4, 3, true), 0);
    assert_int_equal(frame(1)[228] << 8 | frame(2)[228], 0x3334);
    memset(mem(DATA), 0, 512);
    st_be16(frame(0) + 504, 510);
    frames_out(4, 1, false);
    assert_int_equal(frames_in(4, 3, true), 4);                 /* nothing of the user area */
    assert_int_equal(frame(2)[228], 0);
    adma(0, 0x23, 512, DATA);
    assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), ERR_CMD_TIMEOUT);    /* no blocks here */
    identify_mmc();
    memset(mem(DATA), 0x44, 512);
    assert_int_equal(transfer(24, 0, 1, TM_DMA), 0);            /* the user area lies behind it */
    assert_int_equal(probe_data[128 * 1024], 0x44);
    machine_end();
}

#else
#define with_rpmb plain
static void test_rpmb(void **st) { skip(); }
#endif

static void fuzz(const char *class, const char *const opts[][2])
{
    machine(class, opts, "");
    for (int round = 0; round < hw_rounds(400); round++) {
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

static void test_random_guests(void **st) { fuzz("sd-card", plain); }
static void test_random_guests_of_emmc(void **st) { fuzz("emmc", with_rpmb); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identification), cmocka_unit_test(test_port), cmocka_unit_test(test_adma), cmocka_unit_test(test_sdma),
        cmocka_unit_test(test_erase_and_protection), cmocka_unit_test(test_emmc), cmocka_unit_test(test_tuning),
        cmocka_unit_test(test_boot_partitions),
        cmocka_unit_test(test_resets_with_a_transfer), cmocka_unit_test(test_transfers_before_the_loop_looks),
        cmocka_unit_test(test_reset_while_erasing), cmocka_unit_test(test_lock), cmocka_unit_test(test_protected_groups), cmocka_unit_test(test_rpmb),
        cmocka_unit_test(test_random_guests), cmocka_unit_test(test_random_guests_of_emmc),
    };
    t_unused();
    return cmocka_run_group_tests(tests, t_setup, NULL);
}
