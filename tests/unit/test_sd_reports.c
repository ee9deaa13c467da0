/* SPDX-License-Identifier: MIT */
/* What public reports tell that other models of SD hosts and cards got wrong, done to this one. Each test names its report. */
#include "sd_drv.h"
#include <errno.h>

static uint32_t status(void)
{
    cmd(13, (uint32_t)rca << 16, R1, 0);
    return resp();
}

static void reads_block(uint32_t arg, unsigned block)
{
    adma(0, 0x23, 512, DATA);
    assert_int_equal(transfer(17, arg, 1, TM_READ | TM_DMA), 0);
    assert_memory_equal(mem(DATA), probe_data + 512 * block, 512);
}

/* Launchpad 597641: CMD13 after CMD3 told the state before; a locked card refused class 0. */
static void test_status_and_lock(void **st)
{
    machine("sd-card", plain, "");
    cmd(0, 0, R0, 0);
    cmd(8, 0x1aa, R1, 0);
    app(41, 0x40ff8000, R1, 0);
    cmd(2, 0, R2, 0);
    cmd(3, 0, R1, 0);
    rca = (uint16_t)(resp() >> 16);
    assert_int_equal(state(), SD_STBY);
    ((struct sd_card *)card)->locked = true;
    assert_int_equal(cmd(9, (uint32_t)rca << 16, R2, 0), 0);
    assert_int_equal(cmd(7, (uint32_t)rca << 16, R1B, 0), 0);
    assert_true(resp() & SD_ST_LOCKED);
    assert_int_equal(status() & SD_ST_ILLEGAL_COMMAND, 0);
    assert_int_equal(cmd(55, (uint32_t)rca << 16, R1, 0), 0);
    assert_int_equal(cmd(0, 0, R0, 0), 0);
    machine_end();
}

/* GitLab 495, OSS-Fuzz 29225: CMD30 of a group that is not there. */
static void test_groups_out_of_range(void **st)
{
    static const uint32_t args[] = { PROBE_SIZE - 1, PROBE_SIZE, 0x7fffffff, UINT32_MAX };

    machine("sd-card", plain, "");
    identify_sd();
    cmd(28, PROBE_SIZE - 1, R1B, 0);
    for (unsigned i = 0; i < 4; i++) {
        wr(4, 4, 2);
        wr(6, 1, 2);
        wr(0x28, 0x10, 1);
        wr(0x58, TABLE, 4);
        adma(0, 0x23, 4, DATA);
        st_le32(mem(DATA), 0x55555555);
        assert_int_equal(cmd(30, args[i], SENDS, TM_READ | TM_DMA), 0);
        assert_int_equal(ld_be32(mem(DATA)), i == 0);
        cmd(29, args[i], R1B, 0);
        assert_int_equal(!(resp() & SD_ST_OUT_OF_RANGE), i == 0);
    }
    assert_int_equal(state(), SD_TRAN);
    machine_end();
}

/* GitLab 2454: the data port in a state that has no data. CVE-2022-3872: the byte behind the block. */
static void test_port_without_data(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    assert_int_equal(rd(0x20, 4), 0);
    wr(0x20, 0x12345678, 4);
    assert_int_equal(transfer(17, 512, 1, TM_READ), 0);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(rd(0x20 + i % 4, 1), probe_data[512 + i]);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(rd(0x20, 4), 0);
    wr(0x20, 0x12345678, 4);
    assert_int_equal(transfer(18, 512, 2, TM_READ), 0);
    rd(0x20, 4);
    cmd(12, 0, R1B, 0);                                         /* given up in the middle of the block */
    assert_int_equal(rd(0x20, 4), 0);
    assert_int_equal(transfer(24, 1024, 1, 0), 0);
    rd(0x20, 4);                                                /* read while it is to be written */
    for (unsigned i = 0; i < 130; i++)
        wr(0x20, i, 4);                                         /* more than the block holds */
    t_settle();
    assert_int_equal(ld_le32(probe_data + 1024 + 4 * 127), 127);
    assert_int_equal(state(), SD_TRAN);
    reads_block(1536, 3);
    machine_end();
}

/* CVE-2020-17380, CVE-2020-25085, CVE-2021-3409: block size and count are written while SDMA waits at a boundary. */
static void test_block_size_under_sdma(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    memset(mem(DATA), 0xaa, 0x8000);
    wr(0, DATA + 0xe00, 4);
    wr(4, 512, 2);
    wr(6, 16, 2);
    wr(0x28, 0, 1);
    assert_int_equal(cmd(18, 0, SENDS, TM_READ | TM_DMA | TM_MULTI | TM_COUNT | TM_AUTO_CMD12), 0);
    assert_int_equal(rd(0x30, 2) & INT_DMA, INT_DMA);
    wr(4, 0x7001, 2);
    wr(4, 0, 2);
    wr(6, 0xffff, 2);
    assert_int_equal(rd(4, 2), 512);
    assert_int_equal(rd(6, 2), 15);
    for (unsigned i = 0; i < 4 && !(rd(0x30, 2) & INT_TRANSFER); i++) {
        wr(0, rd(0, 4), 4);
        t_settle();
    }
    assert_true(rd(0x30, 2) & INT_TRANSFER);
    assert_memory_equal(mem(DATA + 0xe00), probe_data, 16 * 512);
    assert_int_equal(mem(DATA + 0xe00)[16 * 512], 0xaa);
    machine_end();
}

/* CVE-2017-5667: SDMA of several blocks with a count of none, a block size of none, or of more than the buffer. */
static void test_odd_counts(void **st)
{
    static const uint16_t sizes[] = { 0, 1, 511, 513, 2048, 0xfff }, counts[] = { 0, 1, 3, 0xffff };

    machine("sd-card", plain, "");
    for (unsigned i = 0; i < 6; i++)
        for (unsigned k = 0; k < 4; k++)
            for (unsigned way = 0; way < 4; way++) {
                identify_sd();
                wr(0, DATA, 4);
                wr(4, sizes[i], 2);
                wr(6, counts[k], 2);
                wr(0x28, 0, 1);
                cmd(way & 1 ? 25 : 18, 0, SENDS, (way & 1 ? 0 : TM_READ) | TM_MULTI | (way & 2 ? TM_DMA : 0) | TM_COUNT | TM_AUTO_CMD12);
                for (unsigned n = 0; n < 8; n++) {
                    rd(0x20, 4);
                    wr(0x20, 0, 4);
                    wr(3, rd(3, 1), 1);
                }
                wr(0x2f, 1, 1);
                t_settle();
                assert_false(((struct sdhci *)host)->stepping);
            }
    machine_end();
}

/* CVE-2024-3447: the block size is made smaller after part of a block came through the data port. */
static void test_block_size_under_port(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    assert_int_equal(transfer(24, 0, 1, 0), 0);
    for (unsigned i = 0; i < 100; i++)
        wr(0x20, 0x01010101 * (i & 0xff), 4);
    wr(4, 4, 2);
    wr(0xc, TM_READ, 2);                                        /* and the direction */
    assert_int_equal(rd(4, 2), 512);
    for (unsigned i = 100; i < 140; i++)
        wr(0x20, 0x01010101 * (i & 0xff), 4);
    t_settle();
    for (unsigned i = 0; i < 128; i++)
        assert_int_equal(ld_le32(probe_data + 4 * i), 0x01010101 * i);
    assert_int_equal(state(), SD_TRAN);
    machine_end();
}

/* CVE-2020-13253: blocks behind the end; a transfer that runs over it. */
static void test_behind_the_end(void **st)
{
    static const uint32_t args[] = { PROBE_SIZE, PROBE_SIZE + 512, 0x80000000, 0xfffffe00, UINT32_MAX };

    machine("sd-card", plain, "");
    identify_sd();
    for (unsigned i = 0; i < 5; i++)
        for (unsigned op = 17; op <= 25; op += op == 18 ? 6 : 1) {
            adma(0, 0x23, 512, DATA);
            assert_int_equal(transfer(op, args[i], 1, (op < 24 ? TM_READ : 0) | TM_DMA), ERR_DATA_TIMEOUT);
            assert_true(resp() & (SD_ST_OUT_OF_RANGE | SD_ST_ADDRESS_ERROR));
            assert_int_equal(state(), SD_TRAN);
        }
    adma(0, 0x23, 1024, DATA);
    assert_int_equal(transfer(18, PROBE_SIZE - 512, 2, TM_READ | TM_DMA), ERR_DATA_TIMEOUT);
    cmd(12, 0, R1B, 0);
    assert_true(resp() & SD_ST_OUT_OF_RANGE);
    assert_int_equal(state(), SD_TRAN);
    machine_end();
}

/* QEMU's commits of October 2020: block 0 can be erased; a range out of its order is given up as a whole. */
static void test_erase_order(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    cmd(33, 1024, R1, 0);                                       /* the end alone */
    cmd(38, 0, R1B, 0);
    assert_true(resp() & SD_ST_ERASE_SEQ_ERROR);
    cmd(32, 0, R1, 0);
    cmd(38, 0, R1B, 0);                                         /* the start alone */
    assert_true(resp() & SD_ST_ERASE_SEQ_ERROR);
    cmd(33, 0, R1, 0);                                          /* the start is forgotten */
    assert_true(resp() & SD_ST_ERASE_SEQ_ERROR);
    uint8_t keep = probe_data[512 + 3];
    cmd(32, 0, R1, 0);
    cmd(33, 0, R1, 0);
    assert_int_equal(cmd(38, 0, R1B, 0), 0);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(probe_data[i], 0);
    assert_int_equal(probe_data[512 + 3], keep);
    cmd(32, 2048, R1, 0);
    cmd(33, 1024, R1, 0);                                       /* backwards */
    cmd(38, 0, R1B, 0);
    assert_true(resp() & SD_ST_ERASE_PARAM);
    cmd(32, PROBE_SIZE, R1, 0);
    assert_true(resp() & SD_ST_OUT_OF_RANGE);
    assert_int_equal(state(), SD_TRAN);
    machine_end();
}

/* QEMU f2d189d3: erasing on a device of block addresses counted bytes. */
static void test_erase_by_sectors(void **st)
{
    machine("emmc", plain, "");
    identify_mmc();
    uint8_t before = probe_data[99 * 512 + 3], behind = probe_data[102 * 512 + 3];
    cmd(35, 100, R1, 0);
    cmd(36, 101, R1, 0);
    assert_int_equal(cmd(38, MMC_TRIM, R1B, 0), 0);
    for (unsigned i = 100 * 512; i < 102 * 512; i++)
        assert_int_equal(probe_data[i], 0);
    assert_int_equal(probe_data[99 * 512 + 3], before);
    assert_int_equal(probe_data[102 * 512 + 3], behind);
    machine_end();
}

/* CVE-2021-3750's kind: DMA into the host's own registers, by SDMA, a descriptor, and the table itself. */
static void test_dma_to_itself(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    adma(0, 0x23, 512, BAR);
    assert_int_equal(transfer(17, 0, 1, TM_READ | TM_DMA), ERR_ADMA);
    cmd(12, 0, R1B, 0);
    wr(0x28, 0x10, 1);
    wr(0x58, BAR + 0x20, 4);
    wr(4, 512, 2);
    assert_int_equal(cmd(17, 0, SENDS, TM_READ | TM_DMA), ERR_ADMA);
    cmd(12, 0, R1B, 0);
    wr(0x28, 0, 1);
    wr(0, BAR, 4);
    assert_int_equal(cmd(17, 0, SENDS, TM_READ | TM_DMA), ERR_ADMA);
    cmd(12, 0, R1B, 0);
    assert_int_equal(state(), SD_TRAN);
    reads_block(512, 1);
    machine_end();
}

/* Launchpad 1878054's kind: a table that never ends; descriptors of no length that mean 64 KiB. */
static void test_endless_tables(void **st)
{
    machine("sd-card", plain, "");
    identify_sd();
    adma(0, 0x31, 0, TABLE + 8);
    adma(1, 0x31, 0, TABLE);
    assert_int_equal(transfer(18, 0, 2, TM_READ | TM_DMA), ERR_ADMA);
    cmd(12, 0, R1B, 0);
    for (unsigned i = 0; i < 8; i++)
        adma(i, 0x01, 0, 0);                                    /* nops to the end of the table, which is not valid */
    adma(8, 0, 0, 0);
    assert_int_equal(transfer(18, 0, 2, TM_READ | TM_DMA), ERR_ADMA);
    cmd(12, 0, R1B, 0);
    adma(0, 0x23, 0, DATA);
    assert_int_equal(transfer(18, 0, 128, TM_READ | TM_DMA | TM_AUTO_CMD12), 0);
    assert_memory_equal(mem(DATA), probe_data, 65536);
    machine_end();
}

/* A host without a card (NULL in several models): every command, the power, both directions. */
static void test_no_card(void **st)
{
    t_setup(NULL);
    host = t_new_on("sdhci-pci", &t_bus->bus, "sd", NULL);
    dev_reset_tree(host, RESET_COLD);
    power_up();
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(cmd(i, 0, i % 4, 0), ERR_CMD_TIMEOUT);
        assert_int_equal(cmd(i, 0, SENDS, TM_DMA | (i & 1 ? TM_READ : 0) | TM_AUTO_CMD23), ERR_CMD_TIMEOUT);
        rd(0x20, 4);
        wr(0x20, i, 4);
    }
    assert_int_equal(rd(0x24, 4) & 0x10000, 0);
    wr(0x2f, 7, 1);
    wr(0x3e, 0x48, 2);
    t_settle();
    t_remove(host);
}

/* Data commands in every state, and CMD12 with nothing to stop: none aborts, and the card is as useful as before. */
static void test_commands_in_every_state(void **st)
{
    machine("sd-card", plain, "");
    for (int steps = 0; steps < 6; steps++)
        for (unsigned i = 0; i < 64; i++) {
            power_up();
            cmd(0, 0, R0, 0);
            if (steps > 0)
                cmd(8, 0x1aa, R1, 0);
            if (steps > 1)
                app(41, 0x40ff8000, R1, 0);
            if (steps > 2)
                cmd(2, 0, R2, 0);
            if (steps > 3) {
                cmd(3, 0, R1, 0);
                rca = (uint16_t)(resp() >> 16);
            }
            if (steps > 4)
                cmd(7, (uint32_t)rca << 16, R1B, 0);
            adma(0, 0x23, 512, DATA);
            transfer(i, 0, 1, TM_DMA | (i & 1 ? TM_READ : 0));
            wr(0x2f, 1, 1);
            t_settle();
        }
    ((struct sd_card *)card)->password_len = 0;                 /* a block of CMD42 may have set one */
    memset(((struct sd_card *)card)->wp, 0, sizeof ((struct sd_card *)card)->wp);
    identify_sd();
    reads_block(1024, 2);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_and_lock), cmocka_unit_test(test_groups_out_of_range), cmocka_unit_test(test_port_without_data),
        cmocka_unit_test(test_block_size_under_sdma), cmocka_unit_test(test_odd_counts), cmocka_unit_test(test_block_size_under_port),
        cmocka_unit_test(test_behind_the_end), cmocka_unit_test(test_erase_order), cmocka_unit_test(test_erase_by_sectors),
        cmocka_unit_test(test_dma_to_itself), cmocka_unit_test(test_endless_tables), cmocka_unit_test(test_no_card),
        cmocka_unit_test(test_commands_in_every_state),
    };
    t_unused();
    return cmocka_run_group_tests(tests, t_setup, NULL);
}
