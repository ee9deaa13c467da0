/* SPDX-License-Identifier: MIT */
/* A scsi-hd of zones (ZBC) through virtio-scsi: what it says of itself, reports, transitions, writes that are in order and not, erasure. */
#include "scsi_drv.h"

enum { ZONES = 4, ZONE = 128 };                 /* blocks of 512 bytes */
static struct dev *hd;
static uint8_t report[64 * (1 + ZONES)], data[ZONE * 512];

static void machine(const char *more)
{
    char text[256];

    probe_fill();
    sd_open();
    snprintf(text, sizeof text, "{\"driver\":\"zoned\",\"node-name\":\"disk\",\"zone-size\":65536,\"file\":{\"driver\":\"probe\"}%s}", more);
    sd_node_of(text);
    hd = vd_dev("{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0}");
    sd_begin();
    sd_ready(0);
}

static void machine_end(void)
{
    vd_close();
    sd_del("disk");
}

static int zone_op(uint8_t sa, uint64_t lba, bool all)
{
    uint8_t c[16] = { OP_ZBC_OUT, sa, [14] = all };

    st_be64(c + 2, lba);
    return sd_cmd(c, 16, NULL, 0, NULL, 0);
}

static int report_zones(uint64_t lba, uint8_t options, uint32_t alloc)
{
    uint8_t c[16] = { OP_ZBC_IN, SA_REPORT_ZONES, [14] = options };

    memset(report, 0, sizeof report);
    st_be64(c + 2, lba);
    st_be32(c + 10, alloc);
    return sd_cmd(c, 16, NULL, 0, report, alloc);
}

static unsigned state_of(unsigned zone)
{
    assert_int_equal(report_zones((uint64_t)zone * ZONE, 0x80, 128), SCSI_GOOD);
    assert_int_equal(ld_be64(report + 64 + 16), zone * ZONE);
    return report[64 + 1] >> 4;
}

static uint64_t pointer_of(unsigned zone)
{
    state_of(zone);
    return ld_be64(report + 64 + 24);
}

static int rw(uint8_t op, uint32_t lba, uint32_t n)
{
    uint8_t c[16] = { op };

    st_be64(c + 2, lba);
    st_be32(c + 10, n);
    return op == OP_READ_16 ? sd_cmd(c, 16, NULL, 0, data, n * 512) : sd_cmd(c, 16, data, n * 512, NULL, 0);
}

static void test_what_it_says(void **state)
{
    uint8_t b[128];

    machine(",\"conventional\":1,\"max-open\":2");
    sd_cmd(CDB(OP_INQUIRY, 0, 0, 0, 96), NULL, 0, b, 96);
    assert_int_equal(b[0], SCSI_TYPE_ZONED);
    assert_int_equal(ld_be16(b + 64), 0x0620);
    sd_cmd(CDB(OP_INQUIRY, 1, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[4 + b[3] - 1], VPD_ZONES);
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_ZONES, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_memory_equal(b, "\x14\xb6\x00\x3c\x01", 5);
    assert_int_equal(ld_be32(b + 16), 2);
    sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_LIMITS, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[5], 0);                  /* no COMPARE AND WRITE */
    sd_cmd(CDB(OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), NULL, 0, b, 32);
    assert_int_equal(b[12] & 0x30, 0x10);
    assert_int_equal(ld_be64(b), ZONES * ZONE - 1);
    assert_sense(sd_cmd(CDB(OP_COMPARE_AND_WRITE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), data, 1024, NULL, 0), SENSE_INVALID_OPCODE);
    machine_end();
}

/* An ordinary disk has neither the commands nor the page. */
static void test_without_zones(void **state)
{
    uint8_t b[64];

    probe_fill();
    sd_open();
    sd_node("disk", "");
    vd_dev("{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0}");
    sd_begin();
    sd_ready(0);
    assert_sense(report_zones(0, 0, 64), SENSE_INVALID_OPCODE);
    assert_sense(zone_op(SA_RESET_WP, 0, true), SENSE_INVALID_OPCODE);
    assert_sense(sd_cmd(CDB(OP_INQUIRY, 1, VPD_ZONES, 0, 64), NULL, 0, b, 64), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

static void test_reports(void **state)
{
    machine(",\"conventional\":1");
    assert_int_equal(rw(OP_WRITE_16, ZONE, 8), SCSI_GOOD);
    assert_int_equal(report_zones(0, 0, sizeof report), SCSI_GOOD);
    assert_int_equal(sd_residual, 0);
    assert_int_equal(ld_be32(report), 64 * ZONES);
    assert_int_equal(report[4], 3);             /* of equal length, not of one type */
    assert_int_equal(ld_be64(report + 8), ZONES * ZONE - 1);
    assert_int_equal(report[64], 1);
    assert_int_equal(report[65], ZONE_NOT_WP << 4);
    for (unsigned i = 1; i < ZONES; i++) {
        const uint8_t *z = report + 64 * (1 + i);
        assert_int_equal(z[0], 2);
        assert_int_equal(z[1] >> 4, i == 1 ? ZONE_IOPEN : ZONE_EMPTY);
        assert_int_equal(ld_be64(z + 8), ZONE);
        assert_int_equal(ld_be64(z + 16), i * ZONE);
        assert_int_equal(ld_be64(z + 24), i * ZONE + (i == 1 ? 8 : 0));
    }
    /* less room: all are counted, but with PARTIAL those that are there */
    assert_int_equal(report_zones(ZONE + 5, 0, 64 * 2), SCSI_GOOD);
    assert_int_equal(ld_be32(report), 64 * 3);
    assert_int_equal(report_zones(ZONE + 5, 0x80, 64 * 2), SCSI_GOOD);
    assert_int_equal(ld_be32(report), 64);
    assert_int_equal(ld_be64(report + 64 + 16), ZONE);
    assert_int_equal(report_zones(0, 0, 16), SCSI_GOOD);
    assert_int_equal(ld_be32(report), 64 * ZONES);
    /* by condition */
    for (unsigned options = 1; options <= 0x3f; options++) {
        unsigned want = options == 1 ? 2 : options == 2 || options == 0x3f ? 1 : 0;
        if (options > 7 && options != 0x10 && options != 0x11 && options != 0x3f) {
            assert_sense(report_zones(0, (uint8_t)options, sizeof report), SENSE_INVALID_FIELD_CDB);
            continue;
        }
        assert_int_equal(report_zones(0, (uint8_t)options, sizeof report), SCSI_GOOD);
        assert_int_equal(ld_be32(report), 64 * want);
    }
    assert_sense(report_zones(ZONES * ZONE, 0, 64), SENSE_LBA_OUT_OF_RANGE);
    machine_end();
}

static void test_writes_in_order(void **state)
{
    machine(",\"conventional\":1,\"max-open\":2");
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)hw_rand(256);
    assert_int_equal(rw(OP_WRITE_16, 100, 4), SCSI_GOOD);               /* anywhere in a conventional zone */
    assert_sense(rw(OP_WRITE_16, ZONE - 1, 2), SENSE_WRITE_BOUNDARY);
    assert_int_equal(rw(OP_WRITE_16, 2 * ZONE, 8), SCSI_GOOD);
    assert_sense(rw(OP_WRITE_16, 2 * ZONE, 8), SENSE_UNALIGNED_WRITE);
    assert_sense(rw(OP_WRITE_16, 2 * ZONE + 9, 1), SENSE_UNALIGNED_WRITE);
    assert_sense(rw(OP_WRITE_16, 2 * ZONE + 8, ZONE), SENSE_WRITE_BOUNDARY);
    assert_int_equal(rw(OP_WRITE_16, 2 * ZONE + 8, ZONE - 8), SCSI_GOOD);
    assert_int_equal(state_of(2), ZONE_FULL);
    assert_sense(rw(OP_WRITE_16, 2 * ZONE, 1), SENSE_INVALID_FIELD_CDB);
    /* what is behind a write pointer reads as zeroes, over the end of a zone, too */
    assert_int_equal(rw(OP_WRITE_16, 3 * ZONE, 1), SCSI_GOOD);
    assert_int_equal(rw(OP_READ_16, 3 * ZONE - 1, 3), SCSI_GOOD);
    for (unsigned i = 1024; i < 1536; i++)
        assert_int_equal(data[i], 0);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_SAME_16, 1, 0, 0, 0, 0, 0, 0, (3 * ZONE + 1) >> 8, (uint8_t)(3 * ZONE + 1), 0, 0, 0, 7), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(pointer_of(3), 3 * ZONE + 8);
    machine_end();
}

static void test_transitions(void **state)
{
    machine(",\"max-open\":2");
    assert_int_equal(zone_op(SA_OPEN_ZONE, 0, false), SCSI_GOOD);
    assert_int_equal(state_of(0), ZONE_EOPEN);
    assert_int_equal(zone_op(SA_OPEN_ZONE, ZONE, false), SCSI_GOOD);
    assert_sense(zone_op(SA_OPEN_ZONE, 2 * ZONE, false), SENSE_ZONE_RESOURCES);
    assert_sense(rw(OP_WRITE_16, 2 * ZONE, 1), SENSE_ZONE_RESOURCES);
    assert_int_equal(rw(OP_WRITE_16, 0, 1), SCSI_GOOD);
    assert_int_equal(zone_op(SA_CLOSE_ZONE, 0, false), SCSI_GOOD);
    assert_int_equal(state_of(0), ZONE_CLOSED);
    assert_int_equal(zone_op(SA_CLOSE_ZONE, ZONE, false), SCSI_GOOD);
    assert_int_equal(state_of(1), ZONE_EMPTY);
    assert_int_equal(zone_op(SA_CLOSE_ZONE, ZONE, false), SCSI_GOOD);   /* it is not open anyway */
    assert_int_equal(zone_op(SA_FINISH_ZONE, 0, false), SCSI_GOOD);
    assert_int_equal(state_of(0), ZONE_FULL);
    assert_int_equal(pointer_of(0), UINT64_MAX);
    for (uint8_t sa = SA_CLOSE_ZONE; sa <= SA_OPEN_ZONE; sa++) {
        assert_int_equal(zone_op(sa, 0, false), SCSI_GOOD);
        assert_int_equal(state_of(0), ZONE_FULL);
    }
    assert_int_equal(zone_op(SA_RESET_WP, 0, false), SCSI_GOOD);
    assert_int_equal(pointer_of(0), 0);
    assert_int_equal(rw(OP_READ_16, 0, 1), SCSI_GOOD);
    assert_int_equal(data[0], 0);
    /* all at once: those that it is for */
    assert_int_equal(rw(OP_WRITE_16, 0, 1), SCSI_GOOD);
    assert_int_equal(rw(OP_WRITE_16, 3 * ZONE, ZONE), SCSI_GOOD);
    assert_int_equal(zone_op(SA_FINISH_ZONE, 5, true), SCSI_GOOD);
    assert_int_equal(state_of(0), ZONE_FULL);
    assert_int_equal(state_of(1), ZONE_EMPTY);
    assert_int_equal(zone_op(SA_RESET_WP, 5, true), SCSI_GOOD);
    assert_int_equal(report_zones(0, 1, sizeof report), SCSI_GOOD);
    assert_int_equal(ld_be32(report), 64 * ZONES);
    /* what is no zone's start, none at all, or written in any order */
    assert_sense(zone_op(SA_RESET_WP, 1, false), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(ld_be16(sd_sense + 16), 2);
    assert_sense(zone_op(SA_RESET_WP, ZONES * ZONE, false), SENSE_LBA_OUT_OF_RANGE);
    machine_end();
    machine(",\"conventional\":1");
    assert_sense(zone_op(SA_RESET_WP, 0, false), SENSE_INVALID_FIELD_CDB);
    assert_sense(zone_op(5, ZONE, false), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

/* FORMAT UNIT makes all zones empty, and what is conventional zeroes. */
static void test_format(void **state)
{
    machine(",\"conventional\":1");
    assert_int_equal(rw(OP_WRITE_16, 3 * ZONE, 1), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_FORMAT_UNIT), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(pointer_of(3), 3 * ZONE);
    assert_int_equal(rw(OP_READ_16, 0, ZONE), SCSI_GOOD);
    for (unsigned i = 0; i < sizeof data; i++)
        assert_int_equal(data[i], 0);
    machine_end();
}

static void test_random_commands(void **state)
{
    machine(",\"conventional\":1,\"max-open\":2");
    sd_random_commands(hd, 3000);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_it_says), cmocka_unit_test(test_without_zones), cmocka_unit_test(test_reports), cmocka_unit_test(test_writes_in_order),
        cmocka_unit_test(test_transitions), cmocka_unit_test(test_format), cmocka_unit_test(test_random_commands),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
