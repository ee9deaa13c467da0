/* SPDX-License-Identifier: MIT */
/* SCSI disks: log pages, self-tests, FORMAT UNIT, buffers, task management that is told, ports by which a unit is known. */
#include "scsi_drv.h"
#include <errno.h>
#include "hw/scsi/scsi_disk.h"

static void machine(const char *dev)
{
    char text[512];
    probe_fill();
    sd_open();
    sd_node("disk", "");
    snprintf(text, sizeof text, "{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0%s}", dev);
    vd_dev(text);
    sd_begin();
    sd_ready(0);
}

static void machine_end(void)
{
    probe_go();
    vd_close();
    sd_del("disk");
}

static int log_page(uint8_t page, uint8_t *b, uint16_t from)
{
    return sd_cmd(CDB(OP_LOG_SENSE, 0, 0x40 | page, 0, 0, from >> 8, (uint8_t)from, 2, 0), NULL, 0, b, 512);
}

static uint64_t counter(uint8_t page, uint16_t code)
{
    uint8_t b[512];
    assert_int_equal(log_page(page, b, code), SCSI_GOOD);
    assert_int_equal(b[0] & 0x3f, page);
    assert_int_equal(ld_be16(b + 4), code);
    return ld_be64(b + 8);
}

static int read_blocks(uint32_t lba, uint8_t n)
{
    uint8_t b[8 * 512];
    return sd_cmd(CDB(OP_READ_10, 0, 0, 0, (uint8_t)(lba >> 8), (uint8_t)lba, 0, 0, n), NULL, 0, b, n * 512u);
}

static void test_log_pages(void **state)
{
    uint8_t b[512], data[1024] = { 0 };
    machine("");
    assert_int_equal(log_page(0, b, 0), SCSI_GOOD);
    unsigned n = ld_be16(b + 2);
    assert_true(n >= 6);
    for (unsigned i = 0; i < n; i++) {                          /* every page that is listed is there, and is as long as it says */
        uint8_t page[512];
        assert_int_equal(log_page(b[4 + i], page, 0), SCSI_GOOD);
        assert_int_equal(512 - sd_residual, ld_be16(page + 2) + 4);
    }
    assert_int_equal(sd_cmd(CDB(OP_LOG_SENSE, 0, 0x40, 0xff, 0, 0, 0, 2, 0), NULL, 0, b, 512), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 2), 2 * n + 2);
    assert_sense(log_page(0x3e, b, 0), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(read_blocks(3, 4), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_10, 0, 0, 0, 0, 1, 0, 0, 2), data, 1024, NULL, 0), SCSI_GOOD);
    assert_int_equal(counter(3, 5), 2048);
    assert_int_equal(counter(2, 5), 1024);
    probe_error = -EIO;
    assert_int_equal(read_blocks(3, 4), SCSI_CHECK_CONDITION);
    probe_error = 0;
    assert_int_equal(counter(3, 6), 1);
    assert_int_equal(counter(2, 6), 0);
    assert_int_equal(log_page(0x19, b, 0), SCSI_GOOD);
    assert_int_equal(ld_be64(b + 8), 2);                        /* READ commands */
    assert_int_equal(ld_be64(b + 24), 2);                       /* blocks received */
    assert_int_equal(ld_be64(b + 32), 4);
    assert_int_equal(sd_cmd(CDB(OP_LOG_SELECT, 0, 0x40), NULL, 0, NULL, 0), SCSI_GOOD);        /* no parameters are no error, and change nothing */
    assert_sense(sd_cmd(CDB(OP_LOG_SELECT, 2, 0xc4), NULL, 0, NULL, 0), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(OP_LOG_SELECT, 2, 0xc2, 1), NULL, 0, NULL, 0), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(OP_LOG_SELECT, 3, 0xc2), NULL, 0, NULL, 0), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(OP_LOG_SELECT, 0, 0xc2, 0, 0, 0, 0, 0, 4), b, 4, NULL, 0), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(sd_cmd(CDB(OP_LOG_SELECT, 2, 0xc2), NULL, 0, NULL, 0), SCSI_GOOD);        /* of one page */
    assert_int_equal(counter(2, 5), 0);
    assert_int_equal(counter(3, 5), 2048);
    assert_int_equal(log_page(0x19, b, 0), SCSI_GOOD);
    assert_int_equal(ld_be64(b + 24), 2);
    assert_int_equal(sd_cmd(CDB(OP_LOG_SELECT, 0, 0xd9), NULL, 0, NULL, 0), SCSI_GOOD);        /* PC: default cumulative values */
    assert_int_equal(log_page(0x19, b, 0), SCSI_GOOD);
    assert_int_equal(ld_be64(b + 8) | ld_be64(b + 24) | ld_be64(b + 32), 0);
    assert_int_equal(counter(3, 6), 1);
    assert_int_equal(sd_cmd(CDB(OP_LOG_SELECT, 2, 0xc0), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(counter(3, 5) | counter(3, 6), 0);
    machine_end();
}

static uint8_t newest_result(void)
{
    uint8_t b[512];
    assert_int_equal(log_page(0x10, b, 0), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 2), 400);
    return b[8];
}

static void test_self_tests(void **state)
{
    machine("");
    assert_int_equal(newest_result(), 0);
    assert_int_equal(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 4), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 5 << 5), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(newest_result(), 5 << 5);
    probe_error = -EIO;
    assert_sense(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 6 << 5), NULL, 0, NULL, 0), SENSE_SELF_TEST_FAILED);
    probe_error = 0;
    assert_int_equal(newest_result(), 6 << 5 | 7);
    probe_hold = true;
    assert_int_equal(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 2 << 5), NULL, 0, NULL, 0), SCSI_GOOD);      /* in the background */
    assert_int_equal(newest_result(), 2 << 5 | 15);
    assert_int_equal(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 4 << 5), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(newest_result(), 2 << 5 | 1);
    probe_go();
    assert_int_equal(newest_result(), 2 << 5 | 1);              /* what was stopped has no other result later */
    assert_int_equal(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 2 << 5), NULL, 0, NULL, 0), SCSI_GOOD);
    probe_go();
    assert_int_equal(newest_result(), 2 << 5);
    assert_sense(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 3 << 5), NULL, 0, NULL, 0), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

static void test_format_unit(void **state)
{
    uint8_t list[4] = { 0, 0x82 }, defects[4] = { 0, 0, 0, 8 }, b[18];
    machine("");
    assert_int_equal(sd_cmd(CDB(OP_FORMAT_UNIT), NULL, 0, NULL, 0), SCSI_GOOD);
    for (unsigned i = 0; i < PROBE_SIZE; i += 8)
        assert_int_equal(ld_le64(probe_data + i), 0);
    probe_data[9] = 1;
    probe_hold = true;
    assert_int_equal(sd_cmd(CDB(OP_FORMAT_UNIT, 0x10), list, 4, NULL, 0), SCSI_GOOD);           /* at once */
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_FORMAT_IN_PROGRESS);
    assert_int_equal(sd_cmd(CDB(OP_REQUEST_SENSE, 0, 0, 0, 18), NULL, 0, b, 18), SCSI_GOOD);
    assert_int_equal(b[15], 0x80);
    probe_go();
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(probe_data[9], 0);
    assert_sense(sd_cmd(CDB(OP_FORMAT_UNIT, 0x10), defects, 4, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    assert_sense(sd_cmd(CDB(OP_FORMAT_UNIT, 0x80), NULL, 0, NULL, 0), SENSE_INVALID_FIELD_CDB);
    probe_error = -EIO;
    assert_sense(sd_cmd(CDB(OP_FORMAT_UNIT), NULL, 0, NULL, 0), SENSE_FORMAT_FAILED);
    probe_error = 0;
    assert_sense(read_blocks(0, 1), SENSE_FORMAT_FAILED);       /* until it was formatted */
    assert_int_equal(sd_cmd(CDB(OP_FORMAT_UNIT), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(read_blocks(0, 1), SCSI_GOOD);
    machine_end();
}

static void test_buffers(void **state)
{
    uint8_t out[64], in[64] = { 0 };
    machine("");
    for (unsigned i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)(i * 7);
    assert_int_equal(sd_cmd(CDB(OP_READ_BUFFER, 0x0b, 0, 0, 0, 0, 0, 0, 4), NULL, 0, in, 4), SCSI_GOOD);
    assert_int_equal(ld_be32(in), SCSI_BUFFER);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_BUFFER, 0x0a, 0, 0, 0, 0, 0, 0, 64), out, 64, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_READ_BUFFER, 0x0a, 0, 0, 0, 0, 0, 0, 64), NULL, 0, in, 64), SCSI_GOOD);
    assert_memory_equal(in, out, 64);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_BUFFER, 2, 0, 0, 0x0f, 0xf0, 0, 0, 16), out, 16, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_READ_BUFFER, 2, 0, 0, 0x0f, 0xf0, 0, 0, 64), NULL, 0, in, 64), SCSI_GOOD);
    assert_int_equal(sd_residual, 48);
    assert_memory_equal(in, out, 16);
    assert_sense(sd_cmd(CDB(OP_WRITE_BUFFER, 2, 0, 0, 0x0f, 0xf0, 0, 0, 17), out, 17, NULL, 0), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(OP_READ_BUFFER, 2, 0, 0, 0x10, 1, 0, 0, 1), NULL, 0, in, 1), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(OP_READ_BUFFER, 2, 1, 0, 0, 0, 0, 0, 1), NULL, 0, in, 1), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_TMF, 0, 0, 0, 0, 0, 0, 0, 16), NULL, 0, in, 16), SCSI_GOOD);
    assert_int_equal(sd_residual, 12);
    assert_int_equal(in[0] & 0x88, 0x88);                       /* abort task, unit reset */
    machine_end();
}

static void test_ports(void **state)
{
    uint8_t b[256];
    machine(",'port_wwn':6917529027641081857,'port_index':3,'serial':'S1'");
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_IDENTIFICATION, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_memory_equal(b + 4 + 4 + 10, "\x61\x93\x00\x08\x60\x00\x00\x00\x00\x00\x00\x01", 12);
    assert_memory_equal(b + 4 + 4 + 10 + 12, "\x61\x94\x00\x04\x00\x00\x00\x03", 8);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_pages), cmocka_unit_test(test_self_tests), cmocka_unit_test(test_format_unit), cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_ports),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
