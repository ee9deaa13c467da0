/* SPDX-License-Identifier: MIT */
/* SCSI disks and CD drives through virtio-scsi: what they say of themselves, data against a model, wrong commands. */
#include "scsi_drv.h"
#include <errno.h>
#include "base/log.h"
#include "hw/scsi/scsi_disk.h"

static struct dev *hd;

static void machine(const char *node, const char *dev)
{
    char text[512];
    probe_fill();
    sd_open();
    sd_node("disk", node);
    snprintf(text, sizeof text, "{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0%s}", dev);
    hd = vd_dev(text);
    sd_begin();
    sd_ready(0);
}

static void machine_end(void)
{
    vd_close();
    sd_del("disk");
    sd_del("cd");
}

static void test_inquiry(void **state)
{
    uint8_t b[256];
    machine("", ",'serial':'S123','vendor':'ACME','product':'Wonder','ver':'9','wwn':6917529027641081856,'rotation_rate':7200");
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 0, 0, 0, 96), NULL, 0, b, 96), SCSI_GOOD);
    assert_int_equal(b[0], 0);
    assert_int_equal(b[4], 91);
    assert_memory_equal(b + 8, "ACME    Wonder          9   ", 28);
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 0, 0, 0, 5), NULL, 0, b, 96), SCSI_GOOD);
    assert_int_equal(sd_residual, 91);
    assert_int_equal(b[5], 0);                  /* nothing behind the allocation length */
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, 0, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(b[3], 8);
    assert_memory_equal(b + 4, "\x00\x80\x83\x86\x87\xb0\xb1\xb2", 8);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t page = "\x00\x80\x83\x86\x87\xb0\xb1\xb2"[i];
        assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, page, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
        assert_int_equal(b[1], page);
        assert_int_equal(255 - sd_residual, ld_be16(b + 2) + 4);
    }
    sd_cmd(CDB(OP_INQUIRY, 1, VPD_SERIAL, 0, 255), NULL, 0, b, 255);
    assert_memory_equal(b + 4, "S123", 4);
    sd_cmd(CDB(OP_INQUIRY, 1, VPD_IDENTIFICATION, 0, 255), NULL, 0, b, 255);
    assert_memory_equal(b + 8, "ACME    S123", 12);
    assert_memory_equal(b + 20, "\x01\x03\x00\x08\x60\x00\x00\x00\x00\x00\x00\x00", 12);
    sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_CHARACTERISTICS, 0, 255), NULL, 0, b, 255);
    assert_int_equal(ld_be16(b + 4), 7200);
    sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_LIMITS, 0, 255), NULL, 0, b, 255);
    assert_int_equal(ld_be32(b + 8), SCSI_REQS_MAX * 64);       /* 32 MiB */
    assert_int_equal(ld_be32(b + 28), 8);
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 0x20, 0, 0, 36), NULL, 0, b, 36), SCSI_GOOD);
    assert_sense(sd_cmd(CDB(OP_INQUIRY, 2, 0, 0, 36), NULL, 0, b, 36), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(OP_INQUIRY, 1, 0xc0, 0, 255), NULL, 0, b, 255), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(sd_sense[15], 0xc0);       /* the field is byte 2 of the command block */
    assert_int_equal(ld_be16(sd_sense + 16), 2);
    assert_sense(sd_cmd(CDB(OP_INQUIRY, 0, 0x80, 0, 255), NULL, 0, b, 255), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

/* What the back end cannot do is not offered. */
static void test_without_discard(void **state)
{
    uint8_t b[256], none[24] = { 0 };
    machine(",\"discards\":false", "");
    sd_cmd(CDB(OP_INQUIRY, 1, 0, 0, 255), NULL, 0, b, 255);
    assert_null(memchr(b + 4, VPD_PROVISIONING, b[3]));
    sd_cmd(CDB(OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), NULL, 0, b, 32);
    assert_int_equal(b[14], 0);
    assert_sense(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, 0, 24), none, 24, NULL, 0), SENSE_INVALID_OPCODE);
    sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, 1, OP_UNMAP, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[1] & 7, 1);
    assert_sense(sd_cmd(CDB(OP_WRITE_SAME_16, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), none, 24, NULL, 0), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

static void test_attention_and_capacity(void **state)
{
    uint8_t b[32];
    machine("", "");
    w32(0x70, 0);
    sd_begin();
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 0, 0, 0, 36), NULL, 0, NULL, 36), SCSI_GOOD);     /* does not tell it */
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_POWER_ON);
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_READ_CAPACITY_10), NULL, 0, b, 8), SCSI_GOOD);
    assert_int_equal(ld_be32(b), PROBE_SIZE / 512 - 1);
    assert_int_equal(ld_be32(b + 4), 512);
    assert_int_equal(sd_cmd(CDB(OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), NULL, 0, b, 32), SCSI_GOOD);
    assert_int_equal(ld_be64(b), PROBE_SIZE / 512 - 1);
    assert_int_equal(b[14], 0x80);
    assert_int_equal(sd_cmd(CDB(OP_REQUEST_SENSE, 0, 0, 0, 18), NULL, 0, b, 18), SCSI_GOOD);
    assert_int_equal(b[2], 0);
    machine_end();
}

/* One READ or WRITE of @size (6, 10, 12, 16). */
static int rw(bool write, unsigned size, uint64_t lba, uint32_t n, void *buf, uint32_t bytes)
{
    uint8_t c[16] = { 0 };
    switch (size) {
    case 6: st_be32(c, (uint32_t)lba); c[0] = write ? OP_WRITE_6 : OP_READ_6; c[4] = (uint8_t)n; break;
    case 10: c[0] = write ? OP_WRITE_10 : OP_READ_10; st_be32(c + 2, (uint32_t)lba); st_be16(c + 7, (uint16_t)n); break;
    case 12: c[0] = write ? OP_WRITE_12 : OP_READ_12; st_be32(c + 2, (uint32_t)lba); st_be32(c + 6, n); break;
    default: c[0] = write ? OP_WRITE_16 : OP_READ_16; st_be64(c + 2, lba); st_be32(c + 10, n); break;
    }
    return sd_cmd(c, 16, write ? buf : NULL, write ? bytes : 0, write ? NULL : buf, write ? 0 : bytes);
}

static void test_reads_and_writes_against_a_model(void **state)
{
    static const unsigned sizes[] = { 6, 10, 12, 16 };
    static uint8_t model[PROBE_SIZE], buf[64 * 512];
    machine("", "");
    memcpy(model, probe_data, sizeof model);
    for (int i = 0; i < 400; i++) {
        uint32_t lba = hw_rand(PROBE_SIZE / 512), n = 1 + hw_rand(MIN(64u, PROBE_SIZE / 512 - lba));
        unsigned size = sizes[hw_rand(4)];
        if (hw_rand(2)) {
            for (uint32_t k = 0; k < n * 512; k++)
                buf[k] = (uint8_t)hw_rand(256);
            memcpy(model + lba * 512, buf, n * 512);
            assert_int_equal(rw(true, size, lba, n, buf, n * 512), SCSI_GOOD);
        } else {
            assert_int_equal(rw(false, size, lba, n, buf, n * 512), SCSI_GOOD);
            assert_memory_equal(buf, model + lba * 512, n * 512);
        }
        assert_int_equal(sd_residual, 0);
    }
    assert_memory_equal(probe_data, model, sizeof model);
    machine_end();
}

static void test_edges_of_reads(void **state)
{
    uint8_t b[1024];
    machine("", "");
    assert_int_equal(rw(false, 10, PROBE_SIZE / 512, 0, b, 0), SCSI_GOOD);          /* nothing, at the end */
    assert_sense(rw(false, 10, PROBE_SIZE / 512, 1, b, 512), SENSE_LBA_OUT_OF_RANGE);
    assert_int_equal(sd_sense[0], 0xf0);
    assert_int_equal(ld_be32(sd_sense + 3), PROBE_SIZE / 512);
    assert_sense(rw(false, 16, UINT64_MAX, 2, b, 1024), SENSE_LBA_OUT_OF_RANGE);
    assert_sense(rw(false, 16, 0, UINT32_MAX, b, 1024), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(rw(false, 10, 0, 2, b, 512), SD_BAD + VIRTIO_SCSI_S_OVERRUN);
    assert_int_equal(rw(true, 10, 0, 2, b, 512), SD_BAD + VIRTIO_SCSI_S_OVERRUN);
    assert_int_equal(rw(false, 10, 0, 1, b, 1024), SCSI_GOOD);
    assert_int_equal(sd_residual, 512);
    assert_sense(sd_cmd(CDB(OP_READ_10, 0x20, 0, 0, 0, 0, 0, 0, 1), NULL, 0, b, 512), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(0xff), NULL, 0, NULL, 0), SENSE_INVALID_OPCODE);
    assert_sense(sd_cmd(CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1, 4), NULL, 0, b, 512), SENSE_INVALID_FIELD_CDB);    /* NACA */
    assert_int_equal(sd_cmd(CDB(OP_WRITE_10, 8, 0, 0, 0, 0, 0, 0, 1), b, 512, NULL, 0), SCSI_GOOD);
    assert_int_equal(probe_fua, 1);
    assert_int_equal(sd_cmd(CDB(OP_SYNCHRONIZE_CACHE_10), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(probe_flushes, 1);
    machine_end();
}

static void test_back_end_errors(void **state)
{
    uint8_t b[512];
    machine("", ",'werror':'report'");
    probe_error = -EIO;
    assert_sense(rw(false, 10, 7, 1, b, 512), SENSE_READ_ERROR);
    assert_int_equal(ld_be32(sd_sense + 3), 7);
    assert_sense(rw(true, 10, 7, 1, b, 512), SENSE_WRITE_ERROR);
    probe_error = -ENOSPC;
    assert_sense(rw(true, 10, 7, 1, b, 512), SENSE_SPACE_ALLOC_FAILED);
    probe_error = 0;
    assert_int_equal(rw(true, 10, 7, 1, b, 512), SCSI_GOOD);
    machine_end();
}

/* werror=stop: the request waits with the machine, survives a saved state, and is done in the end; or is aborted. */
static void test_stopped_requests(void **state)
{
    uint8_t b[512];
    struct str one = { 0 };
    machine("", ",'werror':'stop'");
    memset(b, 0x77, sizeof b);
    probe_error = -EIO;
    struct sd_cmd c = sd_submit(0, 5, CDB(OP_WRITE_10, 0, 0, 0, 0, 9, 0, 0, 1), b, 512, 0);
    vd_run();
    assert_int_equal(vd_used(SD_REQ), -1);
    vd_save(sd_hba, &one);
    vd_load(sd_hba, &one);
    probe_error = 0;
    run_cont();
    assert_true(sd_wait(SD_REQ));
    assert_int_equal(sd_result(&c), SCSI_GOOD);
    assert_memory_equal(probe_data + 9 * 512, b, 512);
    run_stop(RUN_PAUSED);
    str_free(&one);
    machine_end();
}

/* A command beyond those that run at a time is told so, and works when others have ended. */
static void test_task_set_full(void **state)
{
    machine("", "");
    struct virtio_scsi *s = ((struct scsi_dev *)hd)->bus->arg;
    probe_hold = true;
    struct sd_cmd c = sd_submit(0, 5, CDB(OP_VERIFY_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, 0);
    vd_run();
    assert_int_equal(s->running, 1);
    s->running += VSCSI_RUNNING_MAX - 1;
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_TASK_SET_FULL);
    probe_go();
    assert_true(sd_wait(SD_REQ));
    assert_int_equal(sd_result(&c), SCSI_GOOD);
    assert_int_equal(s->running, VSCSI_RUNNING_MAX - 1);
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    s->running = 0;
    machine_end();
}

static void test_mode_pages(void **state)
{
    uint8_t b[255], set[24] = { 0, 0, 0, 0, MODE_CACHING, 18, 0 };
    machine("", "");
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_CACHING, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(b[0], 23);
    assert_int_equal(b[2], 0x10);
    assert_int_equal(b[6], 0x04);               /* WCE */
    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 24), set, 24, NULL, 0), SCSI_GOOD);
    sd_cmd(CDB(OP_MODE_SENSE_10, 8, MODE_CACHING, 0, 0, 0, 0, 0, 255), NULL, 0, b, 255);
    assert_int_equal(b[10], 0);
    sd_cmd(CDB(OP_MODE_SENSE_6, 8, 0x80 | MODE_CACHING, 0, 255), NULL, 0, b, 255);
    assert_int_equal(b[6], 0x04);               /* default */
    set[6] = 1;                                 /* RCD cannot be changed */
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 24), set, 24, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    assert_int_equal(ld_be16(sd_sense + 16), 6);
    set[6] = 4;
    set[5] = 17;
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 24), set, 24, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    set[5] = 18;
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 10), set, 10, NULL, 0), SENSE_PARAM_LENGTH);
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x11, 0, 0, 24), set, 24, NULL, 0), SENSE_INVALID_FIELD_CDB);
    assert_sense(sd_cmd(CDB(OP_MODE_SENSE_6, 0, 0xff, 0, 255), NULL, 0, b, 255), SENSE_SAVING_NOT_SUPPORTED);
    assert_sense(sd_cmd(CDB(OP_MODE_SENSE_6, 0, 0x2b, 0, 255), NULL, 0, b, 255), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 0, 0x3f, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(b[3], 8);
    assert_int_equal(ld_be32(b + 4), PROBE_SIZE / 512);
    /* What all pages said can be set again as it is. */
    uint32_t n = b[0] + 1u;
    b[0] = 0;
    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, (uint8_t)n), b, n, NULL, 0), SCSI_GOOD);
    /* Sense data by descriptors, once the control page asks for it. */
    uint8_t ctl[16] = { 0, 0, 0, 0, MODE_CONTROL, 10, 4, 0x10, 0, 0, 0, 0, 0xff, 0xff };
    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 16), ctl, 16, NULL, 0), SCSI_GOOD);
    assert_sense(rw(false, 16, BIT64(40), 1, b, 0), SENSE_LBA_OUT_OF_RANGE);
    assert_int_equal(sd_sense[0], 0x72);
    assert_int_equal(ld_be64(sd_sense + 12), BIT64(40));
    machine_end();
}

static void test_verify_and_compare(void **state)
{
    static uint8_t b[4096];
    machine("", "");
    memcpy(b, probe_data + 512 * 8, 1024);
    assert_int_equal(sd_cmd(CDB(OP_VERIFY_10, 0, 0, 0, 0, 8, 0, 0, 2), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_VERIFY_10, 2, 0, 0, 0, 8, 0, 0, 2), b, 1024, NULL, 0), SCSI_GOOD);
    b[700] ^= 1;
    assert_sense(sd_cmd(CDB(OP_VERIFY_10, 2, 0, 0, 0, 8, 0, 0, 2), b, 1024, NULL, 0), SENSE_MISCOMPARE);
    assert_int_equal(ld_be32(sd_sense + 3), 700);
    assert_sense(sd_cmd(CDB(OP_VERIFY_10, 6, 0, 0, 0, 8, 0, 0, 2), b, 512, NULL, 0), SENSE_MISCOMPARE);   /* one block against two */
    assert_sense(sd_cmd(CDB(OP_VERIFY_10, 4, 0, 0, 0, 8, 0, 0, 2), b, 512, NULL, 0), SENSE_INVALID_FIELD_CDB);
    memset(b, 0x11, 1024);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_AND_VERIFY_10, 2, 0, 0, 0, 8, 0, 0, 2), b, 1024, NULL, 0), SCSI_GOOD);
    assert_memory_equal(probe_data + 512 * 8, b, 1024);
    memset(b + 512, 0x22, 512);                 /* compare with the first half, write the second */
    assert_int_equal(sd_cmd(CDB(OP_COMPARE_AND_WRITE, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1), b, 1024, NULL, 0), SCSI_GOOD);
    assert_memory_equal(probe_data + 512 * 9, b + 512, 512);
    assert_sense(sd_cmd(CDB(OP_COMPARE_AND_WRITE, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1), b, 1024, NULL, 0), SENSE_MISCOMPARE);
    assert_int_equal(ld_be32(sd_sense + 3), 0);
    assert_int_equal(sd_cmd(CDB(OP_COMPARE_AND_WRITE, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2), b, 1024, NULL, 0), SD_BAD + VIRTIO_SCSI_S_OVERRUN);
    machine_end();
}

/* Two units of one block at a time: a lock by COMPARE AND WRITE is taken once however many try. */
static void test_compare_and_write_is_atomic(void **state)
{
    machine("", "");
    assert_int_equal(sd_race(1), 1);
    machine_end();
}

static void test_ranges(void **state)
{
    uint8_t b[512], d[24] = { 0, 22, 0, 16 };
    machine("", "");
    memset(b, 0x5a, 512);
    st_be32(b, 1);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_SAME_10, 0, 0, 0, 0, 16, 0, 0, 4), b, 512, NULL, 0), SCSI_GOOD);
    for (unsigned i = 16; i < 20; i++)
        assert_memory_equal(probe_data + 512 * i, b, 512);
    assert_int_equal(ld_be32(probe_data + 512 * 20), 20);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_SAME_16, 1, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 2), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(probe_data[512 * 17] | probe_data[512 * 19 - 1], 0);
    assert_int_equal(probe_data[512 * 19 + 5], 0x5a);
    st_be64(d + 8, 40);
    st_be32(d + 16, 8);
    assert_int_equal(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, 0, 24), d, 24, NULL, 0), SCSI_GOOD);
    assert_int_equal(probe_data[512 * 40] | probe_data[512 * 48 - 1], 0);
    assert_int_equal(ld_be32(probe_data + 512 * 48), 48);
    st_be64(d + 8, PROBE_SIZE / 512 - 4);
    assert_sense(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, 0, 24), d, 24, NULL, 0), SENSE_LBA_OUT_OF_RANGE);
    assert_sense(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, 0, 7), d, 7, NULL, 0), SENSE_PARAM_LENGTH);
    assert_int_equal(sd_cmd(CDB(OP_WRITE_SAME_16, 1, 0, 0, 0, 0, 0, 0, 1, 0xf0, 0, 0, 0, 0), NULL, 0, NULL, 0), SCSI_GOOD);  /* to the end */
    assert_int_equal(probe_data[PROBE_SIZE - 1], 0);
    assert_int_equal(ld_be32(probe_data + 512 * 0x1ef), 0x1ef);
    assert_int_equal(sd_cmd(CDB(OP_PREFETCH_10, 0, 0, 0, 0, 0, 0, 0, 4), NULL, 0, NULL, 0), SCSI_CONDITION_MET);
    uint8_t list[4096];
    memset(list, 0xff, sizeof list);                            /* a list whose length has not come says nothing of it, whatever came before */
    assert_sense(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, 0xff, 0xff), list, sizeof list, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    assert_sense(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, 0xff, 0xff), list, 2, NULL, 0), SENSE_PARAM_LENGTH);
    machine_end();
}

static void test_lba_status(void **state)
{
    uint8_t b[128];
    machine("", "");
    memset(probe_data + 64 * 512, 0, 16 * 512);
    assert_int_equal(sd_cmd(CDB(OP_SERVICE_ACTION_IN_16, SA_GET_LBA_STATUS, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 128), NULL, 0, b, 128), SCSI_GOOD);
    assert_int_equal(ld_be32(b), 4 + 3 * 16);
    const struct { uint64_t lba; uint32_t n, status; } want[] = { { 4, 60, 0 }, { 64, 16, 1 }, { 80, PROBE_SIZE / 512 - 80, 0 } };
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ld_be64(b + 8 + 16 * i), want[i].lba);
        assert_int_equal(ld_be32(b + 16 + 16 * i), want[i].n);
        assert_int_equal(b[20 + 16 * i], want[i].status);
    }
    assert_sense(sd_cmd(CDB(OP_SERVICE_ACTION_IN_16, SA_GET_LBA_STATUS, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 128), NULL, 0, b, 128), SENSE_LBA_OUT_OF_RANGE);
    machine_end();
}

static void test_sanitize(void **state)
{
    uint8_t par[8] = { 1, 0, 0, 4, 0xde, 0xad, 0xbe, 0xef }, b[18];
    machine("", "");
    assert_int_equal(sd_cmd(CDB(OP_SANITIZE, 1, 0, 0, 0, 0, 0, 0, 8), par, 8, NULL, 0), SCSI_GOOD);
    for (unsigned i = 0; i < PROBE_SIZE; i += 4)
        assert_memory_equal(probe_data + i, par + 4, 4);
    probe_hold = true;
    assert_int_equal(sd_cmd(CDB(OP_SANITIZE, 0x82), NULL, 0, NULL, 0), SCSI_GOOD);      /* block erase, at once */
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_SANITIZE_IN_PROGRESS);
    assert_int_equal(sd_cmd(CDB(OP_REQUEST_SENSE, 0, 0, 0, 18), NULL, 0, b, 18), SCSI_GOOD);
    assert_int_equal(b[15], 0x80);
    probe_go();
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(probe_data[0] | probe_data[PROBE_SIZE - 1], 0);
    probe_error = -EIO;
    assert_sense(sd_cmd(CDB(OP_SANITIZE, 2), NULL, 0, NULL, 0), SENSE_SANITIZE_FAILED);
    probe_error = 0;
    assert_sense(rw(false, 10, 0, 1, par, 0), SENSE_SANITIZE_FAILED);
    assert_int_equal(sd_cmd(CDB(OP_SANITIZE, 0x1f), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    machine_end();
}

/* A machine that stops does not wait for its end: it stands, and begins anew when the machine goes on, or has failed where another does. */
static atomic_bool quiet;
static void co_quiet(void *arg)
{
    DEV_CLASS(arg)->co_quiesce(arg);
    quiet = true;
}

static void quiesce(struct dev *d)
{
    quiet = false;
    co_spawn(NULL, d->dom, co_quiet, d);
    assert_false(quiet);
    probe_go();
    UNTIL(quiet, loop_run_once(loop_main(), 1000000));
}

static void format_at_once(void)
{
    assert_int_equal(sd_cmd(CDB(OP_SANITIZE, 0x1f), NULL, 0, NULL, 0), SCSI_GOOD);      /* nothing has failed, and the format is known */
    memset(probe_data, 0x55, sizeof probe_data);
    probe_hold = true;
    assert_int_equal(sd_cmd(CDB(OP_FORMAT_UNIT, 0x90), "\0\2\0\0", 4, NULL, 0), SCSI_GOOD);       /* type 1, IMMED: blocks, then tuples */
}

static void test_format_stands_with_the_machine(void **state)
{
    struct str one = { 0 };
    machine("", ",'protection':true");
    struct scsi_disk *d = (struct scsi_disk *)hd;
    for (unsigned elsewhere = 0; elsewhere < 2; elsewhere++) {
        format_at_once();
        quiesce(hd);
        assert_true(d->parked);
        vd_save(hd, &one);
        if (elsewhere)
            vd_load(hd, &one);
        str_free(&one);
        memset(probe_data, 0x55, sizeof probe_data);
        d->resume.listener.start(&d->resume.listener);
        UNTIL(!d->parked && !d->s.n_reqs, loop_run_once(loop_main(), 1000000));
        if (elsewhere)
            assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_FORMAT_FAILED);
        else
            assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
        assert_int_equal(probe_data[0], elsewhere ? 0x55 : 0);
    }
    format_at_once();
    quiesce(hd);
    machine_end();                              /* it goes along with the disk */
}

/* A command that somebody waits for ends when its disk goes. */
static void test_disk_that_goes_while_it_is_formatted(void **state)
{
    machine("", ",'protection':true");
    probe_hold = true;
    struct sd_cmd c = sd_submit(0, 1, CDB(OP_FORMAT_UNIT, 0x90), "\0\0\0\0", 4, 0);
    vd_run();
    assert_int_equal(probe_waiting, 1);
    dev_unplug_done(hd);
    probe_go();
    UNTIL(!obj_find("device", "hd"), loop_run_once(loop_main(), 1000000));
    assert_true(sd_wait(SD_REQ));
    assert_sense(sd_result(&c), SENSE_FORMAT_FAILED);
    machine_end();
}

static int pr_out(uint8_t sa, uint8_t type, uint64_t key, uint64_t arg)
{
    uint8_t p[24] = { 0 };
    st_be64(p, key);
    st_be64(p + 8, arg);
    return sd_cmd(CDB(OP_PERSISTENT_RESERVE_OUT, sa, type, 0, 0, 0, 0, 0, 24), p, 24, NULL, 0);
}

static void test_reservations(void **state)
{
    uint8_t b[64];
    machine("", "");
    assert_int_equal(pr_out(1, 5, 0x11, 0), SCSI_RESERVATION_CONFLICT);         /* not registered */
    assert_int_equal(pr_out(0, 0, 0, 0x1122334455667788), SCSI_GOOD);
    assert_int_equal(pr_out(0, 0, 5, 6), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(sd_cmd(CDB(OP_PERSISTENT_RESERVE_IN, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b), 1);
    assert_int_equal(ld_be32(b + 4), 8);
    assert_true(ld_be64(b + 8) == 0x1122334455667788);
    assert_int_equal(pr_out(1, 5, 0x1122334455667788, 0), SCSI_GOOD);
    assert_int_equal(pr_out(1, 1, 0x1122334455667788, 0), SCSI_RESERVATION_CONFLICT);
    sd_cmd(CDB(OP_PERSISTENT_RESERVE_IN, 1, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(ld_be32(b + 4), 16);
    assert_int_equal(b[21], 5);
    assert_sense(pr_out(2, 1, 0x1122334455667788, 0), SENSE_INVALID_RELEASE);
    assert_int_equal(pr_out(2, 5, 0x1122334455667788, 0), SCSI_GOOD);
    assert_sense(pr_out(1, 2, 0x1122334455667788, 0), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(sd_cmd(CDB(OP_PERSISTENT_RESERVE_IN, 2, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(pr_out(3, 0, 0x1122334455667788, 0), SCSI_GOOD);
    sd_cmd(CDB(OP_PERSISTENT_RESERVE_IN, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(ld_be32(b + 4), 0);
    machine_end();
}

static void test_cd(void **state)
{
    uint8_t b[256];
    machine("", "");
    sd_node("cd", ",\"read-only\":true");
    vd_dev("{'driver':'scsi-cd','drive':'cd','id':'cd','scsi-id':1,'lun':3}");
    sd_ready(3);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_INQUIRY, 0, 0, 0, 36), NULL, 0, b, 36), SCSI_GOOD);
    assert_int_equal(b[0] << 8 | b[1], 0x0580);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_READ_CAPACITY_10), NULL, 0, b, 8), SCSI_GOOD);
    assert_int_equal(ld_be32(b), PROBE_SIZE / 2048 - 1);
    assert_int_equal(ld_be32(b + 4), 2048);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_READ_TOC, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_memory_equal(b, "\x00\x12\x01\x01\x00\x14\x01\x00\x00\x00\x00\x00\x00\x14\xaa\x00\x00\x00\x00\x80", 20);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_READ_TOC, 2, 0, 0, 0, 0, 0xaa, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_memory_equal(b + 4, "\x00\x14\xaa\x00\x00\x00\x03\x35", 8);                  /* 128 blocks: 00:03:53 */
    assert_int_equal(sd_lun_cmd(3, CDB(OP_GET_CONFIGURATION, 0, 0, 0, 0, 0, 0, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 6), 8);
    assert_int_equal(ld_be32(b) + 4, 255 - sd_residual);
    assert_sense(sd_lun_cmd(3, CDB(OP_WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1), b, 255, NULL, 0), SENSE_WRITE_PROTECTED);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_PREVENT_ALLOW, 0, 0, 0, 1), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_sense(sd_lun_cmd(3, CDB(OP_START_STOP_UNIT, 0, 0, 0, 2), NULL, 0, NULL, 0), SENSE_MEDIUM_REMOVAL_PREVENTED);
    sd_lun_cmd(3, CDB(OP_PREVENT_ALLOW), NULL, 0, NULL, 0);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_START_STOP_UNIT, 0, 0, 0, 2), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_sense(sd_lun_cmd(3, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_NO_MEDIUM_OPEN);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_GET_EVENT_STATUS, 1, 0, 0, 0x10, 0, 0, 0, 8), NULL, 0, b, 8), SCSI_GOOD);
    assert_memory_equal(b + 2, "\x04\x56\x03\x01", 4);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_START_STOP_UNIT, 0, 0, 0, 3), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_sense(sd_lun_cmd(3, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_MEDIUM_CHANGED);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    machine_end();
}

/* ---- a medium that changes ---- */

struct medium { struct scsi_disk *d; struct blk_node *n; bool ok; };
static void co_set_medium(void *arg)
{
    struct medium *m = arg;
    struct err e = ERR_INIT;
    m->ok = co_blk_set_medium(m->d->blk, m->n, &e);
}

static void put_in(struct dev *cd, struct blk_node *n)
{
    struct medium m = { (struct scsi_disk *)cd, n, false };
    domain_lock(cd->dom);
    scsi_disk_tray(m.d, true);
    domain_unlock(cd->dom);
    co_run_main(co_set_medium, &m);
    assert_true(m.ok);
    domain_lock(cd->dom);
    scsi_disk_tray(m.d, false);
    domain_unlock(cd->dom);
    vd_run();
}

static void test_medium_change(void **state)
{
    uint8_t b[64];
    machine("", "");
    struct dev *cd = vd_dev("{'driver':'scsi-cd','id':'cd','scsi-id':1,'lun':3}");
    sd_ready(3);
    assert_sense(sd_lun_cmd(3, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_NO_MEDIUM_CLOSED);
    assert_sense(sd_lun_cmd(3, CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, b, 64), SENSE_NO_MEDIUM_CLOSED);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_GET_CONFIGURATION, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 6), 0);
    struct blk_node *n = sd_node("cd", ",\"read-only\":true");
    put_in(cd, n);
    assert_false(obj_user_delete(&n->obj, &(struct err)ERR_INIT));              /* in use */
    assert_sense(sd_lun_cmd(3, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_MEDIUM_CHANGED);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_GET_EVENT_STATUS, 1, 0, 0, 0x10, 0, 0, 0, 8), NULL, 0, b, 8), SCSI_GOOD);
    assert_memory_equal(b + 4, "\x02\x02", 2);
    assert_int_equal(sd_lun_cmd(3, CDB(OP_READ_CAPACITY_10), NULL, 0, b, 8), SCSI_GOOD);
    assert_int_equal(ld_be32(b), PROBE_SIZE / 2048 - 1);
    put_in(cd, NULL);
    assert_sense(sd_lun_cmd(3, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_NO_MEDIUM_CLOSED);
    sd_del("cd");
    machine_end();
}

/* Any command block at all is answered, and the disk stays where it is. */
static void test_random_commands(void **state)
{
    machine("", "");
    sd_node("cd", ",\"read-only\":true");
    vd_dev("{'driver':'scsi-cd','drive':'cd','id':'cd','scsi-id':1,'lun':1}");
    sd_random_commands(hd, 6000);
    machine_end();
}

/* Each command of the list is told of alone in the same words; what is not in it is refused at the right byte. */
static void test_each_opcode(void **state)
{
    uint8_t list[1024], b[64], c[16];
    machine("", "");
    assert_int_equal(sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, 0, 0, 0, 0, 0, 0, 4, 0), NULL, 0, list, sizeof list), SCSI_GOOD);
    unsigned n = ld_be32(list) / 8;
    assert_in_range(n, 50, 120);
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = list + 4 + 8 * i;
        bool action = p[5] & 1;
        for (unsigned how = 1; how <= 3; how++) {
            int st = sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, (uint8_t)how, p[0], p[2], p[3], 0, 0, 0, 64), NULL, 0, b, 64);
            if (how == (action ? 1 : 2)) {
                assert_sense(st, SENSE_INVALID_FIELD_CDB);
                continue;
            }
            assert_int_equal(st, SCSI_GOOD);
            assert_int_equal(b[1] & 7, 3);
            assert_int_equal(ld_be16(b + 2), ld_be16(p + 6));
            assert_int_equal(b[4], p[0]);
            assert_int_equal(p[7], p[0] < 0x20 ? 6 : p[0] < 0x60 ? 10 : p[0] < 0xa0 ? 16 : 12);
            if (action)                         /* 6.35.3: the action itself, not the bits that it has */
                assert_int_equal(b[5] & 0x1f, p[3]);
        }
        if (!action)
            continue;
        memset(c, 0, sizeof c);
        c[0] = p[0];
        c[1] = 0x1d;
        assert_sense(sd_cmd(c, 16, NULL, 0, NULL, 0), SENSE_INVALID_FIELD_CDB);
        assert_memory_equal(sd_sense + 15, "\xc0\x00\x01", 3);
    }
    sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, 1, 0xfe, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[1], 1);
    sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, 3, OP_READ_10, 0, 1, 0, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[1], 1);                  /* it has no such service action, having none */
    assert_sense(sd_cmd(CDB(0xc1), NULL, 0, NULL, 0), SENSE_INVALID_OPCODE);
    assert_memory_equal(sd_sense + 15, "\xc0\x00\x00", 3);
    machine_end();
}

static uint8_t usage(uint8_t op, unsigned byte)
{
    uint8_t b[64];
    assert_int_equal(sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, 1, op, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(b[1] & 7, 3);
    return b[4 + byte];
}

/* A bit that is told of is one that this unit takes: with discard, FUA and a tray, and without. */
static void test_bits_of_commands(void **state)
{
    for (unsigned more = 0; more < 2; more++) {
        machine(more ? "" : ",\"discards\":false", more ? ",'removable':true" : ",'dpofua':false");
        assert_int_equal(usage(OP_WRITE_SAME_10, 1), more ? 0x08 : 0);
        assert_int_equal(usage(OP_WRITE_SAME_16, 1), more ? 0x09 : 1);
        assert_int_equal(usage(OP_START_STOP_UNIT, 4), more ? 0xf3 : 0xf1);
        assert_int_equal(usage(OP_READ_10, 1), more ? 0x18 : 0);
        assert_int_equal(usage(OP_WRITE_16, 1), more ? 0x18 : 0);
        assert_int_equal(usage(OP_READ_6, 1), 0x1f);
        assert_int_equal(usage(OP_MODE_SELECT_6, 1), 0x10);
        assert_int_equal(usage(OP_LOG_SELECT, 8), 0);
        machine_end();
    }
}

/* SBC-4, 5.25: a power condition takes a unit out of the stopped one; what is none is refused. */
static void test_power_conditions(void **state)
{
    machine("", "");
    for (uint8_t c = 0; c < 16; c++) {
        bool there = c <= 3 || c == 7 || c == 10 || c == 11, serves = c >= 1 && c <= 3;
        assert_int_equal(sd_cmd(CDB(OP_START_STOP_UNIT), NULL, 0, NULL, 0), SCSI_GOOD);
        assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_NOT_READY_STOPPED);
        int st = sd_cmd(CDB(OP_START_STOP_UNIT, 0, 0, 0, (uint8_t)(c << 4)), NULL, 0, NULL, 0);
        if (there)
            assert_int_equal(st, SCSI_GOOD);
        else
            assert_sense(st, SENSE_INVALID_FIELD_CDB);
        assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), serves ? SCSI_GOOD : SCSI_CHECK_CONDITION);
    }
    machine_end();
}

/* A geometry for older systems, and subpages. */
static void test_geometry_and_subpages(void **state)
{
    uint8_t b[255], list[36] = { 0 };
    machine("", ",'cyls':513,'heads':4,'secs':32,'rotation_rate':7200");
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_GEOMETRY, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_memory_equal(b + 4, "\x04\x16\x00\x02\x01\x04", 6);
    assert_int_equal(ld_be16(b + 4 + 20), 7200);
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_FORMAT, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 4 + 10), 32);
    assert_int_equal(ld_be16(b + 4 + 12), 512);
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_CONTROL, 1, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(255 - sd_residual, 4 + 32);
    assert_memory_equal(b + 4, "\x4a\x01\x00\x1c\x06\x00\x60", 7);
    memcpy(list + 4, b + 4, 32);                /* as it is, it can be set */
    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 36), list, 36, NULL, 0), SCSI_GOOD);
    list[8] = 0x07;
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 36), list, 36, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    assert_int_equal(ld_be16(sd_sense + 16), 8);
    list[7] = 0x1d;
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 36), list, 36, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    assert_int_equal(ld_be16(sd_sense + 16), 6);
    list[4] = 0x0a;                             /* with the header of a page */
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 36), list, 36, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    assert_int_equal(ld_be16(sd_sense + 16), 5);
    list[4] = 0x4a;
    assert_sense(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 7), list, 7, NULL, 0), SENSE_PARAM_LENGTH);
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_CONTROL, 0xff, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(255 - sd_residual, 4 + 12 + 32);
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_ALL, 0, 255), NULL, 0, b, 255), SCSI_GOOD);
    unsigned n = 255 - sd_residual;
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_ALL, 0xff, 255), NULL, 0, b, 255), SCSI_GOOD);
    assert_int_equal(255 - sd_residual, n + 32);
    assert_sense(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_ALL, 1, 255), NULL, 0, b, 255), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

/* What is under way is told with how far it has come, in both formats. */
static void test_progress(void **state)
{
    uint8_t desc[16] = { 0, 0, 0, 0, MODE_CONTROL, 10, 4, 0x10, 0, 0, 0, 0, 0xff, 0xff }, b[64];
    machine("", "");
    probe_hold = true;
    assert_int_equal(sd_cmd(CDB(OP_SANITIZE, 0x80 | SANITIZE_BLOCK_ERASE), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_SANITIZE_IN_PROGRESS);
    assert_int_equal(sd_sense[15], 0x80);
    assert_int_equal(sd_cmd(CDB(OP_REQUEST_SENSE, 1, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(64 - sd_residual, 16);
    assert_memory_equal(b, "\x72\x02\x04\x1b\x00\x00\x00\x08\x02\x06\x00\x00\x80", 13);
    probe_go();
    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 16), desc, 16, NULL, 0), SCSI_GOOD);
    probe_hold = true;
    assert_int_equal(sd_cmd(CDB(OP_SEND_DIAGNOSTIC, 1 << 5), NULL, 0, NULL, 0), SCSI_GOOD);    /* a short test in the background */
    assert_int_equal(sd_cmd(CDB(OP_REQUEST_SENSE, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_memory_equal(b + 12, "\x04\x09\x00\x80", 4);
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    probe_go();
    assert_int_equal(sd_cmd(CDB(OP_REQUEST_SENSE, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_memory_equal(b + 12, "\x00\x00\x00\x00", 4);
    machine_end();
}

/* Parameters beyond what there is. */
static void test_too_much(void **state)
{
    static uint8_t list[8 + 16 * 256];
    uint8_t b[64];
    machine("", "");
    st_be16(list, sizeof list - 2);
    st_be16(list + 2, sizeof list - 8);
    assert_sense(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, sizeof list >> 8, sizeof list & 0xff), list, sizeof list, NULL, 0), SENSE_INVALID_FIELD_PARAM);
    assert_memory_equal(sd_sense + 15, "\x80\x00\x02", 3);
    assert_sense(sd_cmd(CDB(OP_LOG_SENSE, 0, 0x42, 0, 0, 0, 7, 0, 64), NULL, 0, b, 64), SENSE_INVALID_FIELD_CDB);
    assert_memory_equal(sd_sense + 15, "\xc0\x00\x05", 3);
    assert_int_equal(sd_cmd(CDB(OP_LOG_SENSE, 0, 0x42, 0, 0, 0, 6, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 2), 12);
    assert_int_equal(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_CACHING, 0xff, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_sense(sd_cmd(CDB(OP_MODE_SENSE_6, 8, MODE_CACHING, 1, 64), NULL, 0, b, 64), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_opcode), cmocka_unit_test(test_bits_of_commands),
        cmocka_unit_test(test_power_conditions), cmocka_unit_test(test_geometry_and_subpages), cmocka_unit_test(test_progress), cmocka_unit_test(test_too_much), cmocka_unit_test(test_inquiry),
        cmocka_unit_test(test_without_discard), cmocka_unit_test(test_attention_and_capacity),
        cmocka_unit_test(test_reads_and_writes_against_a_model), cmocka_unit_test(test_edges_of_reads), cmocka_unit_test(test_back_end_errors),
        cmocka_unit_test(test_stopped_requests), cmocka_unit_test(test_task_set_full), cmocka_unit_test(test_mode_pages), cmocka_unit_test(test_verify_and_compare),
        cmocka_unit_test(test_compare_and_write_is_atomic), cmocka_unit_test(test_ranges), cmocka_unit_test(test_sanitize), cmocka_unit_test(test_format_stands_with_the_machine),
        cmocka_unit_test(test_disk_that_goes_while_it_is_formatted),
        cmocka_unit_test(test_lba_status),
        cmocka_unit_test(test_reservations), cmocka_unit_test(test_cd), cmocka_unit_test(test_medium_change),
        cmocka_unit_test(test_random_commands),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
