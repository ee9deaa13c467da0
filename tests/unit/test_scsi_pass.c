/* SPDX-License-Identifier: MIT */
/* `scsi-generic` and `scsi-block` on a device that a test plays: what reaches it, what comes back, how failures are told. */
#include "scsi_drv.h"
#include <errno.h>
#include <stdio.h>
#include "hw/scsi/scsi_disk.h"

#define MOST (64u * 1024)

/* The device: it answers the next command with this, and remembers the last. */
static struct { int error; struct blk_scsi r; uint8_t data[1024]; } answer;
static struct { unsigned commands, reads, writes; struct blk_scsi c; uint8_t data[512]; } seen;

struct played { struct blk_node node; bool scsi, blocks; };

static bool played_open(struct blk_node *n, struct err *e)
{
    const struct played *p = (const struct played *)n;

    atomic_store(&n->size, p->blocks ? 1 << 20 : 0);
    n->caps = (struct blk_caps){ .flush = true, .logical_block = 512, .physical_block = 512, .mem_align = 1, .scsi = p->scsi ? MOST : 0 };
    return true;
}

static int co_played_scsi(struct blk_node *n, struct blk_scsi *c)
{
    seen.commands++;
    seen.c = *c;
    memset(seen.data, 0, sizeof seen.data);
    if (c->to_device)
        blk_iov_copy(seen.data, c->iov, c->niov, 0, MIN(c->len, sizeof seen.data), false);
    else
        blk_iov_copy(answer.data, c->iov, c->niov, 0, MIN(c->len, answer.r.done), true);
    c->status = answer.r.status;
    c->host_status = answer.r.host_status;
    c->driver_status = answer.r.driver_status;
    c->sense_len = answer.r.sense_len;
    memcpy(c->sense, answer.r.sense, sizeof c->sense);
    c->done = c->to_device ? c->len : MIN(c->len, answer.r.done);
    return answer.error;
}

static int co_played_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags)
{
    seen.reads++;
    for (unsigned i = 0; i < k; i++)
        memset(iov[i].iov_base, 0x5a, iov[i].iov_len);
    return 0;
}

static int co_played_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags)
{
    seen.writes++;
    return 0;
}

static const struct prop played_props[] = {
    PROP_BOOL(struct played, scsi, "scsi", true, "Test"), PROP_BOOL(struct played, blocks, "blocks", true, "Test"), PROP_END
};
static const struct blk_driver played_driver = {
    .obj = { .name = "blockdev-played", .desc = "Test", .base = &blk_node_class, .size = sizeof(struct played), .props = played_props },
    .flags = BLK_ANY_LOOP, .co_open = played_open, .co_preadv = co_played_read, .co_pwritev = co_played_write, .co_scsi = co_played_scsi,
};
OBJ_CLASS(&played_driver.obj);

static void node(const char *more)
{
    char text[256];
    struct err e = ERR_INIT;
    struct blk_node *n;
    json_t *o;

    snprintf(text, sizeof text, "{\"driver\":\"played\",\"node-name\":\"dev\"%s}", more);
    o = json_loads(text, 0, NULL);
    n = blk_node_create(o, &e);
    if (!n)
        fail_msg("%s", e.msg);
    json_decref(o);
}

static void machine(const char *driver, const char *more_node, const char *more)
{
    char text[256];

    sd_open();
    node(more_node);
    snprintf(text, sizeof text, "{'driver':'%s','drive':'dev','id':'p','scsi-id':1,'lun':0%s}", driver, more);
    vd_dev(text);
    sd_begin();
    memset(&answer, 0, sizeof answer);
    sd_ready(0);
    memset(&seen, 0, sizeof seen);
}

static void machine_end(void)
{
    vd_close();
    sd_del("dev");
}

static void test_commands_and_data(void **state)
{
    uint8_t b[512], out[100];

    machine("scsi-generic", "", ",'io_timeout':7");
    answer.r.done = 40;
    memset(answer.data, 0xcd, sizeof answer.data);
    assert_int_equal(sd_cmd(CDB(0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), NULL, 0, b, 100), SCSI_GOOD);        /* READ ELEMENT STATUS */
    assert_int_equal(seen.c.cdb_len, 12);
    assert_memory_equal(seen.c.cdb, "\xb8\1\2\3\4\5\6\7\10\11\12\13", 12);
    assert_int_equal(seen.c.len, 100);
    assert_int_equal(seen.c.timeout, 7);
    assert_int_equal(sd_residual, 60);
    assert_int_equal(b[39], 0xcd);
    memset(out, 0xa7, sizeof out);
    assert_int_equal(sd_cmd(CDB(0x1d, 0x10, 0, 0, 100), out, sizeof out, NULL, 0), SCSI_GOOD);
    assert_int_equal(seen.c.cdb_len, 6);
    assert_true(seen.c.to_device);
    assert_memory_equal(seen.data, out, sizeof out);
    assert_int_equal(sd_cmd(CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, b, 512), SCSI_GOOD);
    assert_int_equal(seen.reads, 0);            /* reads, too, are commands */
    assert_int_equal(seen.commands, 3);
    /* the bus's own: the units are those of this bus */
    assert_int_equal(sd_cmd(CDB(OP_REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(seen.commands, 3);
    machine_end();
}

/* The kernel's words for what happened, and the guest's. */
static void test_failures(void **state)
{
    static const struct { uint16_t host, driver; uint8_t status; int error, wanted; uint32_t sense; } rows[] = {
        { 0, 0, SCSI_BUSY, 0, SCSI_BUSY, 0 }, { 0, 0, SCSI_RESERVATION_CONFLICT, 0, SCSI_RESERVATION_CONFLICT, 0 },
        { 0, 0, SCSI_TASK_SET_FULL, 0, SCSI_TASK_SET_FULL, 0 }, { 0, 0, SCSI_CONDITION_MET, 0, SCSI_CONDITION_MET, 0 },
        { 0x01, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_BAD_TARGET, 0 }, { 0x02, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_BUSY, 0 },
        { 0x03, 6, 0, 0, SD_BAD + VIRTIO_SCSI_S_ABORTED, 0 }, { 0x05, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_ABORTED, 0 },
        { 0x07, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_FAILURE, 0 }, { 0x08, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_RESET, 0 },
        { 0x0e, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_TRANSPORT_FAILURE, 0 }, { 0x10, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_TARGET_FAILURE, 0 },
        { 0x11, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_NEXUS_FAILURE, 0 }, { 0x77, 0, 0, 0, SD_BAD + VIRTIO_SCSI_S_FAILURE, 0 },
        { 0x11, 0, SCSI_RESERVATION_CONFLICT, 0, SCSI_RESERVATION_CONFLICT, 0 },      /* the status says more */
        { 0, 6, 0, 0, SD_BAD + VIRTIO_SCSI_S_ABORTED, 0 }, { 0, 4, 0, 0, SD_BAD + VIRTIO_SCSI_S_FAILURE, 0 },
        { 0, 0, 0, -ENODEV, SD_BAD + VIRTIO_SCSI_S_BAD_TARGET, 0 }, { 0, 0, 0, -EBUSY, SD_BAD + VIRTIO_SCSI_S_BUSY, 0 },
        { 0, 0, 0, -EIO, SD_BAD + VIRTIO_SCSI_S_FAILURE, 0 }, { 0, 0, 0, -EPERM, SCSI_CHECK_CONDITION, SENSE_INVALID_OPCODE },
        { 0, 0, 0, -EINVAL, SCSI_CHECK_CONDITION, SENSE_INVALID_FIELD_CDB },
    };

    machine("scsi-generic", "", "");
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        memset(&answer, 0, sizeof answer);
        answer.error = rows[i].error;
        answer.r.host_status = rows[i].host;
        answer.r.driver_status = rows[i].driver;
        answer.r.status = rows[i].status;
        int got = sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0);
        if (got != rows[i].wanted || (rows[i].sense && sd_code() != rows[i].sense))
            fail_msg("row %u: 0x%x, sense %06x", i, (unsigned)got, sd_code());
    }
    /* sense data as it is, with or without the status that belongs to it */
    for (int i = 0; i < 2; i++) {
        memset(&answer, 0, sizeof answer);
        answer.r.status = i ? 0 : SCSI_CHECK_CONDITION;
        answer.r.driver_status = 8;
        answer.r.sense_len = 18;
        memcpy(answer.r.sense, "\x70\0\x04\0\0\0\0\x0a\0\0\0\0\x44\x01", 14);
        assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), 0x044401);
        assert_int_equal(sd_sense_len, 18);
    }
    machine_end();
}

static void test_limits(void **state)
{
    static uint8_t big[MOST + 512];
    uint8_t b[64];

    machine("scsi-block", "", ",'rotation_rate':5400");
    answer.r.done = 64;
    answer.data[1] = VPD_BLOCK_LIMITS;
    st_be16(answer.data + 2, 60);
    st_be32(answer.data + 8, 0x10000);
    st_be32(answer.data + 12, 8);
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_LIMITS, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b + 8), MOST / 512);
    assert_int_equal(ld_be32(b + 12), 8);
    st_be32(answer.data + 8, 0);                /* no limit of the device's */
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_LIMITS, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b + 8), MOST / 512);
    st_be32(answer.data + 8, 16);
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_LIMITS, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b + 8), 16);
    /* in blocks of the size that it told */
    st_be32(answer.data, 0xfff);
    st_be32(answer.data + 4, 4096);
    answer.r.done = 8;
    assert_int_equal(sd_cmd(CDB(OP_READ_CAPACITY_10), NULL, 0, b, 8), SCSI_GOOD);
    assert_int_equal(ld_be32(b + 4), 4096);
    answer.r.done = 64;
    memset(answer.data, 0, 64);
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_LIMITS, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b + 8), MOST / 4096);
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_CHARACTERISTICS, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be16(b + 4), 5400);
    answer.r.done = 10;                         /* shorter than the field */
    assert_int_equal(sd_cmd(CDB(OP_INQUIRY, 1, VPD_BLOCK_LIMITS, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(sd_residual, 54);
    seen.commands = 0;
    assert_sense(sd_cmd(CDB(0xc1), NULL, 0, big, sizeof big), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(seen.commands, 0);
    machine_end();
}

/* Block requests where nothing stands between, else commands. */
static void test_block_requests(void **state)
{
    uint8_t b[1024];

    for (int direct = 0; direct < 2; direct++) {
        machine("scsi-block", direct ? ",\"cache\":{\"direct\":true}" : "", "");
        answer.r.done = sizeof b;
        assert_int_equal(sd_cmd(CDB(OP_READ_10, 0, 0, 0, 0, 1, 0, 0, 2), NULL, 0, b, 1024), SCSI_GOOD);
        assert_int_equal(sd_cmd(CDB(OP_WRITE_10, 0, 0, 0, 0, 1, 0, 0, 2), b, 1024, NULL, 0), SCSI_GOOD);
        assert_int_equal(sd_cmd(CDB(OP_SYNCHRONIZE_CACHE_10), NULL, 0, NULL, 0), SCSI_GOOD);
        assert_int_equal(seen.reads, direct);
        assert_int_equal(seen.writes, direct);
        assert_int_equal(seen.commands, direct ? 1 : 3);
        if (direct) {
            assert_int_equal(b[0], 0x5a);
            assert_sense(sd_cmd(CDB(OP_READ_16, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1), NULL, 0, b, 512), SENSE_LBA_OUT_OF_RANGE);
        }
        machine_end();
    }
}

static void refused(const char *driver, const char *more_node, const char *why)
{
    struct err e = ERR_INIT;
    char text[128];

    sd_open();
    node(more_node);
    snprintf(text, sizeof text, "{'driver':'%s','drive':'dev','id':'p'}", driver);
    assert_null(vd_try(text, &e));
    if (!strstr(e.msg, why))
        fail_msg("%s", e.msg);
    vd_close();
    sd_del("dev");
}

static void test_refused(void **state)
{
    refused("scsi-block", ",\"scsi\":false", "'dev' is no SCSI device of the host");
    refused("scsi-generic", ",\"scsi\":false", "'dev' is no SCSI device of the host");
    refused("scsi-block", ",\"blocks\":false", "'dev' has no blocks");
    machine("scsi-generic", ",\"blocks\":false", "");
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(seen.commands, 1);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_and_data), cmocka_unit_test(test_failures), cmocka_unit_test(test_limits), cmocka_unit_test(test_block_requests),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
