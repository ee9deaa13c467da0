/* SPDX-License-Identifier: MIT */
/* For tests of SD hosts: a driver of the host's registers, and a card or an e.MMC device on the probe disk. */
#ifndef TESTS_UNIT_SD_DRV_H
#define TESTS_UNIT_SD_DRV_H

#include "pci_test.h"
#include "probe_disk.h"
#include "hw/sd/sdhci.h"

enum { BAR = T_MEM, TABLE = HW_RAM + 0x1000, DATA = HW_RAM + 0x10000 };
enum { R0 = 0, R2 = 1, R1 = 2, R1B = 3, SENDS = 0x20 | 2 };
static struct dev *host, *card;
static uint16_t rca;

static inline uint32_t rd(uint32_t off, unsigned size) { return (uint32_t)hw_rd(BAR + off, size); }
static inline void wr(uint32_t off, uint32_t v, unsigned size) { hw_wr(BAR + off, v, size); }
static inline uint8_t *mem(uint64_t addr) { return hw_ram->host + (addr - HW_RAM); }

/* A command with how it is answered; the errors it raised. */
static inline uint16_t cmd(unsigned index, uint32_t arg, unsigned how, uint16_t mode)
{
    wr(0x30, UINT32_MAX, 4);
    wr(8, arg, 4);
    wr(0xc, mode, 2);
    wr(0xe, index << 8 | how | (index == 12 ? 0xc0 : 0), 2);
    t_settle();
    return (uint16_t)rd(0x32, 2);
}
static inline uint32_t resp(void) { return rd(0x10, 4); }
static inline uint16_t app(unsigned index, uint32_t arg, unsigned how, uint16_t mode)
{
    cmd(55, (uint32_t)rca << 16, R1, 0);
    assert_true(resp() & SD_ST_APP_CMD);
    return cmd(index, arg, how, mode);
}
static inline unsigned state(void)
{
    cmd(13, (uint32_t)rca << 16, R1, 0);
    return resp() >> 9 & 0xf;
}

static inline void power_up(void)
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

static inline void identify_sd(void)
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

static inline void machine_on(const char *const host_opts[][2], const char *class, const char *const opts[][2], const char *node)
{
    t_setup(NULL);
    probe_fill();
    sd_node("disk", node);
    host = t_new_on("sdhci-pci", &t_bus->bus, "sd", host_opts);
    card = t_new_on(class, bus_find("sd.0"), "card", opts);
    dev_reset_tree(host, RESET_COLD);
    power_up();
}

static inline void machine(const char *class, const char *const opts[][2], const char *node) { machine_on(NULL, class, opts, node); }

static inline void machine_end(void)
{
    probe_go();
    t_remove(host);
    sd_del("disk");
}

static const char *const plain[][2] = { { "drive", "disk" }, { NULL, NULL } };

static inline void adma(unsigned i, uint16_t attr, uint32_t len, uint32_t addr)
{
    st_le16(mem(TABLE) + 8 * i, attr);
    st_le16(mem(TABLE) + 8 * i + 2, (uint16_t)len);
    st_le32(mem(TABLE) + 8 * i + 4, addr);
}

static inline uint16_t transfer(unsigned index, uint32_t arg, unsigned blocks, uint16_t mode)
{
    wr(4, 512, 2);
    wr(6, blocks, 2);
    wr(0x28, mode & TM_DMA ? 0x10 : 0, 1);
    wr(0x58, TABLE, 4);
    wr(0x5c, 0, 4);
    return cmd(index, arg, SENDS, mode | (blocks > 1 ? TM_MULTI | TM_COUNT : 0));
}

static inline void identify_mmc(void)
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

static inline void mmc_switch(unsigned index, unsigned value)
{
    assert_int_equal(cmd(6, 3u << 24 | index << 16 | value << 8, R1B, 0), 0);
}

#endif
