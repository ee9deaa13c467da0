/* SPDX-License-Identifier: MIT */
/* SCSI disks: REASSIGN BLOCKS makes blocks readable and lists them, READ DEFECT DATA tells them in every format of addresses. */
#include "scsi_drv.h"
#include <errno.h>
#include "hw/scsi/scsi_disk.h"

static struct dev *hd;

static void power_on(const char *more)
{
    char text[512];
    sd_open();
    sd_node("disk", "");
    snprintf(text, sizeof text, "{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0,'share-rw':true%s}", more);
    hd = vd_dev(text);
    sd_begin();
    sd_ready(0);
}

static void machine_end(void)
{
    vd_close();
    sd_del("disk");
}

static int reassign(unsigned flags, const void *list, uint32_t n) { return sd_cmd(CDB(OP_REASSIGN_BLOCKS, (uint8_t)flags), list, n, NULL, 0); }

static int reassign_one(uint64_t lba)
{
    uint8_t list[12] = { 0, 0, 0, 8 };
    st_be64(list + 4, lba);
    return reassign(2, list, sizeof list);
}

static int read_ten(unsigned asked, uint8_t *b) { return sd_cmd(CDB(OP_READ_DEFECT_DATA_10, 0, (uint8_t)asked, 0, 0, 0, 0, 1, 0), NULL, 0, b, 256); }

static int read_twelve(unsigned asked, uint32_t first, uint8_t *b)
{
    uint8_t c[16] = { OP_READ_DEFECT_DATA_12, (uint8_t)asked };
    st_be32(c + 2, first);
    st_be32(c + 6, 256);
    return sd_cmd(c, 16, NULL, 0, b, 256);
}

enum { GLIST = 0x08, PLIST = 0x10 };

static void test_no_defects(void **state)
{
    uint8_t b[256];
    probe_fill();
    power_on("");
    assert_int_equal(read_ten(GLIST | PLIST | 3, b), SCSI_GOOD);
    assert_memory_equal(b, "\0\x1b\0\0", 4);
    assert_int_equal(sd_residual, 252);
    assert_int_equal(read_twelve(GLIST | 4, 0, b), SCSI_GOOD);
    assert_memory_equal(b, "\0\x0c\0\0\0\0\0\0", 8);
    assert_int_equal(sd_residual, 248);
    assert_sense(read_twelve(GLIST | 6, 0, b), SENSE_DEFECT_LIST_NOT_FOUND);    /* another format than was asked for, which is said */
    assert_memory_equal(b, "\0\x0b\0\0\0\0\0\0", 8);
    machine_end();
}

/* In ascending order, each once, from an index on, in the geometry's terms (16 heads of 63 sectors, or as an option says). */
static void test_formats(void **state)
{
    uint8_t b[256], longs[20] = { 0, 0, 0, 16 }, shorts[12] = { 0, 0, 0, 8 };
    probe_fill();
    power_on(",'heads':2,'secs':9,'cyls':28");
    st_be64(longs + 4, 300);
    st_be64(longs + 12, 7);
    assert_int_equal(reassign(3, longs, 0), SCSI_CHECK_CONDITION);
    assert_int_equal(reassign(2, longs, sizeof longs), SCSI_GOOD);
    st_be32(shorts + 4, 40);
    st_be32(shorts + 8, 300);
    assert_int_equal(reassign(0, shorts, sizeof shorts), SCSI_GOOD);
    assert_int_equal(read_ten(GLIST | 0, b), SCSI_GOOD);
    assert_memory_equal(b, "\0\x08\0\x0c\0\0\0\x07\0\0\0\x28\0\0\x01\x2c", 16);
    assert_int_equal(read_ten(PLIST | 0, b), SCSI_GOOD);
    assert_memory_equal(b, "\0\x10\0\0", 4);
    assert_int_equal(read_twelve(GLIST | 3, 1, b), SCSI_GOOD);
    assert_memory_equal(b, "\0\x0b\0\x03\0\0\0\x10" "\0\0\0\0\0\0\0\x28" "\0\0\0\0\0\0\x01\x2c", 24);
    assert_int_equal(read_twelve(GLIST | 3, 3, b), SCSI_GOOD);
    assert_int_equal(ld_be32(b + 4), 0);
    assert_int_equal(read_twelve(GLIST | 5, 0, b), SCSI_GOOD);          /* cylinder, head, sector */
    assert_memory_equal(b + 8, "\0\0\0\0\0\0\0\x07" "\0\0\x02\0\0\0\0\x04" "\0\0\x10\x01\0\0\0\x03", 24);
    assert_int_equal(read_ten(GLIST | 4, b), SCSI_GOOD);                /* bytes from the index */
    assert_memory_equal(b + 4 + 8, "\0\0\x02\0\0\0\x08\0", 8);
    for (unsigned i = 0; i < PROBE_SIZE / 512; i++)                     /* what could be read is what it was */
        assert_int_equal(ld_be32(probe_data + 512 * i), i);
    machine_end();
}

/* Lists that are wrong change nothing, and say where. */
static void test_wrong_lists(void **state)
{
    uint8_t b[256], list[20] = { 0, 0, 0, 16 };
    probe_fill();
    power_on("");
    st_be64(list + 4, 5);
    st_be64(list + 12, PROBE_SIZE / 512);
    assert_sense(reassign(2, list, sizeof list), SENSE_LBA_OUT_OF_RANGE);
    assert_int_equal(ld_be32(sd_sense + 3), PROBE_SIZE / 512);
    assert_int_equal(ld_be32(sd_sense + 8), 5);                         /* the first that was not reassigned */
    assert_sense(reassign(2, list, 3), SENSE_PARAM_LENGTH);
    assert_sense(reassign(2, list, 12), SENSE_PARAM_LENGTH);
    list[3] = 12;
    assert_sense(reassign(2, list, sizeof list), SENSE_INVALID_FIELD_PARAM);
    list[0] = 0x7f;
    assert_sense(reassign(3, list, sizeof list), SENSE_INVALID_FIELD_PARAM);
    assert_int_equal(read_ten(GLIST, b), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 2), 0);
    machine_end();
}

/* The medium gives an error: while it is written, too, the block stays bad; else it is zeroes and can be read. */
static void test_unreadable(void **state)
{
    static const uint8_t zero[512];
    uint8_t b[256];
    probe_fill();
    power_on("");
    probe_error = -EIO;
    assert_sense(reassign_one(9), SENSE_WRITE_ERROR);
    assert_int_equal(ld_be32(sd_sense + 8), 9);
    probe_error = -ENOMEM;                                              /* says nothing of the block */
    assert_int_equal(reassign_one(9), SCSI_CHECK_CONDITION);
    probe_error = 0;
    assert_int_equal(ld_be32(probe_data + 9 * 512), 9);
    assert_int_equal(read_ten(GLIST, b), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 2), 0);
    probe_read_error = -EIO;
    assert_int_equal(reassign_one(9), SCSI_GOOD);
    probe_read_error = 0;
    assert_memory_equal(probe_data + 9 * 512, zero, 512);
    assert_int_equal(ld_be32(probe_data + 10 * 512), 10);
    machine_end();
}

/* There is room for so many; ways to the unit have one list; a saved machine knows it. */
static void test_one_list(void **state)
{
    uint8_t b[256];
    struct str saved = { 0 };
    probe_fill();
    power_on("");
    vd_dev("{'driver':'scsi-hd','drive':'disk','id':'too','scsi-id':1,'lun':1,'share-rw':true}");
    sd_ready(0);
    sd_ready(1);
    for (unsigned i = 0; i < SCSI_DEFECTS; i++)
        assert_int_equal(reassign_one(i), SCSI_GOOD);
    assert_sense(reassign_one(SCSI_DEFECTS), SENSE_NO_SPARE_LOCATION);
    assert_int_equal(reassign_one(3), SCSI_GOOD);
    assert_int_equal(sd_lun_cmd(1, CDB(OP_READ_DEFECT_DATA_12, GLIST | 3, 0, 0, 0, SCSI_DEFECTS - 1, 0, 0, 1, 0), NULL, 0, b, 256), SCSI_GOOD);
    assert_int_equal(ld_be32(b + 4), 8);
    assert_int_equal(ld_be64(b + 8), SCSI_DEFECTS - 1);
    vd_save(hd, &saved);
    machine_end();
    power_on("");
    vd_load(hd, &saved);
    str_free(&saved);
    assert_int_equal(read_twelve(GLIST | 3, SCSI_DEFECTS - 2, b), SCSI_GOOD);
    assert_int_equal(ld_be64(b + 8), SCSI_DEFECTS - 2);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_defects), cmocka_unit_test(test_formats), cmocka_unit_test(test_wrong_lists), cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_one_list),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
