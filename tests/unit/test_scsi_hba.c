/* SPDX-License-Identifier: MIT */
/* virtio-scsi as an adapter: addresses, task management, units that come, go and change, resets with requests in flight, wrong guests. */
#include "scsi_drv.h"
#include "block/blk_int.h"
#include "hw/scsi/scsi_disk.h"

static struct dev *hd;
static struct blk_node *node;

static void machine(void)
{
    probe_fill();
    sd_open();
    node = sd_node("disk", "");
    hd = vd_dev("{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0}");
    sd_begin();
    sd_ready(0);
}

static void machine_end(void)
{
    probe_go();
    vd_close();
    sd_del("disk");
    sd_del("late");
}

static uint8_t control(const void *req, uint32_t n, uint32_t resp_len)
{
    uint64_t q = vd_alloc(n), a = vd_alloc(resp_len + 1u);
    struct vd_buf b[2] = { { q, n, false }, { a, resp_len, true } };
    memcpy(vd_host(q), req, n);
    vd_add(SD_CTL, b, 2);
    vd_kick(SD_CTL);
    return vd_used(SD_CTL) < 0 ? 0xff : *(vd_host(a) + resp_len - 1);
}

/* Task management for unit @lun of target 1; 0xff: it has not ended. */
static uint8_t tmf(uint32_t subtype, uint8_t lun, uint64_t tag)
{
    struct virtio_scsi_ctrl_tmf t = { 0, subtype, { 1, 1, 0, lun }, tag };
    return control(&t, sizeof t, 1);
}

static struct sd_cmd read_held(uint64_t tag)
{
    struct sd_cmd c;
    probe_hold = true;
    c = sd_submit(0, tag, CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, 512);
    vd_run();
    assert_int_equal(vd_used(SD_REQ), -1);
    return c;
}

static void test_absent_units(void **state)
{
    uint8_t b[64];
    machine();
    assert_int_equal(sd_lun_cmd(7, CDB(OP_INQUIRY, 0, 0, 0, 36), NULL, 0, b, 36), SCSI_GOOD);
    assert_int_equal(b[0], 0x7f);
    assert_sense(sd_lun_cmd(7, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_LUN_NOT_SUPPORTED);
    assert_int_equal(sd_lun_cmd(7, CDB(OP_REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b), 8);
    struct virtio_scsi_cmd_req h = { .lun = { 1, 9, 0x40, 0 } };
    static const uint8_t luns[][8] = { { 1, 9, 0x40, 0 }, { 2, 1, 0x40, 0 }, { 1, 1, 0x80, 0 }, { 1, 1, 0x40, 0, 1 } };
    for (unsigned i = 0; i < ARRAY_SIZE(luns); i++) {
        uint64_t q = vd_alloc(51), a = vd_alloc(108);
        struct vd_buf v[2] = { { q, 51, false }, { a, 108, true } };
        memcpy(h.lun, luns[i], 8);
        memcpy(vd_host(q), &h, sizeof h);
        vd_add(SD_REQ, v, 2);
        vd_kick(SD_REQ);
        assert_true(sd_wait(SD_REQ));
        assert_int_equal(vd_host(a)[11], VIRTIO_SCSI_S_BAD_TARGET);
    }
    machine_end();
}

/* SPC-5, 9.3: a unit of every target that tells its units, and is told of only where it is asked for. */
static void test_well_known_unit(void **state)
{
    uint8_t b[64];
    machine();
    assert_int_equal(sd_cmd(CDB(OP_REPORT_LUNS, 0, 1, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_memory_equal(b, "\0\0\0\x08\0\0\0\0\xc1\x01\0\0\0\0\0\0", 16);
    assert_int_equal(sd_cmd(CDB(OP_REPORT_LUNS, 0, 2, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b), 16);
    assert_int_equal(sd_lun_cmd(SCSI_LUN_REPORT_LUNS, CDB(OP_REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b), 8);
    assert_true(ld_be64(b + 8) == 0);
    assert_int_equal(sd_lun_cmd(SCSI_LUN_REPORT_LUNS, CDB(OP_INQUIRY, 0, 0, 0, 36), NULL, 0, b, 36), SCSI_GOOD);
    assert_int_equal(b[0], SCSI_TYPE_WELL_KNOWN);
    assert_int_equal(sd_lun_cmd(SCSI_LUN_REPORT_LUNS, CDB(OP_INQUIRY, 1, 0, 0, 36), NULL, 0, b, 36), SCSI_GOOD);
    assert_memory_equal(b, "\x1e\0\0\x01\0", 5);
    assert_int_equal(sd_lun_cmd(SCSI_LUN_REPORT_LUNS, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_lun_cmd(SCSI_LUN_REPORT_LUNS, CDB(OP_REQUEST_SENSE, 0, 0, 0, 18), NULL, 0, b, 18), SCSI_GOOD);
    assert_int_equal(b[2], 0);
    assert_sense(sd_lun_cmd(SCSI_LUN_REPORT_LUNS, CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, b, 64), SENSE_INVALID_OPCODE);
    machine_end();
}

static void test_several_units(void **state)
{
    uint8_t b[64];
    machine();
    sd_node("late", "");
    vd_dev("{'driver':'scsi-hd','drive':'late','id':'big','scsi-id':1,'lun':300}");
    assert_int_equal(sd_cmd(CDB(OP_REPORT_LUNS, 0, 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_GOOD);
    assert_int_equal(ld_be32(b), 16);
    assert_true(ld_be64(b + 8) == 0);
    assert_int_equal(ld_be16(b + 16), 0x4000 | 300);
    sd_ready(300);
    assert_int_equal(sd_lun_cmd(300, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    assert_int_equal(sd_cmd(CDB(OP_REPORT_LUNS, 0, 3, 0, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64), SCSI_CHECK_CONDITION);
    machine_end();
}

static void test_abort_task(void **state)
{
    machine();
    struct sd_cmd one = read_held(11), two = read_held(12);
    assert_int_equal(tmf(TMF_QUERY_TASK, 0, 11), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
    assert_int_equal(tmf(TMF_QUERY_TASK, 0, 99), VIRTIO_SCSI_S_OK);
    assert_int_equal(tmf(TMF_QUERY_TASK_SET, 0, 0), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
    assert_int_equal(tmf(TMF_ABORT_TASK, 0, 99), VIRTIO_SCSI_S_OK);             /* there is none: done */
    assert_int_equal(tmf(TMF_ABORT_TASK, 0, 11), 0xff);                         /* waits for the back end */
    probe_go();
    assert_int_equal(vd_used(SD_CTL), 1);
    assert_true(sd_wait(SD_REQ) && sd_wait(SD_REQ));
    assert_int_equal(sd_result(&one), SD_BAD + VIRTIO_SCSI_S_ABORTED);
    assert_int_equal(sd_result(&two), SCSI_GOOD);
    assert_int_equal(tmf(TMF_QUERY_TASK_SET, 0, 0), VIRTIO_SCSI_S_OK);
    machine_end();
}

static void test_unit_reset(void **state)
{
    uint8_t ctl[16] = { 0, 0, 0, 0, MODE_CONTROL, 10, 4, 0x10, 0, 0, 0, 0, 0xff, 0xff };
    machine();
    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 16), ctl, 16, NULL, 0), SCSI_GOOD);
    struct sd_cmd c = read_held(1);
    assert_int_equal(tmf(TMF_LOGICAL_UNIT_RESET, 0, 0), 0xff);
    probe_go();
    assert_int_equal(vd_used(SD_CTL), 1);
    assert_true(sd_wait(SD_REQ));
    assert_int_equal(sd_result(&c), SD_BAD + VIRTIO_SCSI_S_RESET);
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_DEVICE_RESET);
    assert_int_equal(sd_sense[0] & 0x7f, 0x70);                                 /* D_SENSE is off again */
    assert_int_equal(tmf(TMF_I_T_NEXUS_RESET, 0, 0), VIRTIO_SCSI_S_OK);
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_BUS_RESET);
    assert_int_equal(tmf(TMF_LOGICAL_UNIT_RESET, 5, 0), VIRTIO_SCSI_S_INCORRECT_LUN);
    assert_int_equal(tmf(TMF_CLEAR_ACA, 0, 0), VIRTIO_SCSI_S_FUNCTION_REJECTED);
    struct virtio_scsi_ctrl_tmf t = { 0, TMF_ABORT_TASK, { 1, 77, 0, 0 }, 0 };
    assert_int_equal(control(&t, sizeof t, 1), VIRTIO_SCSI_S_BAD_TARGET);
    struct virtio_scsi_ctrl_an an = { VIRTIO_SCSI_T_AN_SUBSCRIBE, { 1, 1 }, 0xff };
    assert_int_equal(control(&an, sizeof an, 5), VIRTIO_SCSI_S_OK);
    machine_end();
}

/* A request that waits for `cont` is aborted without it. */
static void test_abort_of_a_stopped_request(void **state)
{
    uint8_t b[512] = { 0 };
    probe_fill();
    sd_open();
    sd_node("disk", "");
    vd_dev("{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0,'werror':'stop'}");
    sd_begin();
    sd_ready(0);
    probe_error = -5;
    struct sd_cmd c = sd_submit(0, 21, CDB(OP_WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1), b, 512, 0);
    vd_run();
    assert_int_equal(vd_used(SD_REQ), -1);
    assert_int_equal(tmf(TMF_QUERY_TASK, 0, 21), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
    assert_int_equal(tmf(TMF_ABORT_TASK, 0, 21), VIRTIO_SCSI_S_OK);
    assert_true(sd_wait(SD_REQ));
    assert_int_equal(sd_result(&c), SD_BAD + VIRTIO_SCSI_S_ABORTED);
    probe_error = 0;
    machine_end();
}

/* A test in the foreground that would take hours ends with the reset of its unit, as other commands do. */
static void test_unit_reset_ends_a_self_test(void **state)
{
    struct err e = ERR_INIT;
    struct sd_cmd c;
    machine();
    sd_node_of("{\"driver\":\"null-co\",\"node-name\":\"late\",\"size\":1099511627776,\"latency-ns\":10000000}");
    vd_hot = true;
    struct dev *d = vd_dev("{'driver':'scsi-hd','drive':'late','id':'late','scsi-id':1,'lun':2}");
    assert_sense(sd_lun_cmd(2, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_POWER_ON);
    c = sd_submit(2, 7, CDB(OP_SEND_DIAGNOSTIC, 6 << 5, 0, 0, 0), NULL, 0, 0);
    vd_run();
    struct virtio_scsi_ctrl_tmf t = { 0, TMF_LOGICAL_UNIT_RESET, { 1, 1, 0, 2 }, 0 };
    control(&t, sizeof t, 1);
    assert_true(sd_wait(SD_REQ));
    assert_int_equal(sd_result(&c), SD_BAD + VIRTIO_SCSI_S_RESET);
    assert_int_equal(((struct scsi_disk *)d)->tests[0].result, 2);
    assert_true(dev_unplug_request(d, &e));
    vd_run();
    machine_end();
}

static const char *event(uint64_t buf)
{
    static char text[64];
    struct virtio_scsi_event e;
    if (vd_used(SD_EVT) < 0)
        return "none";
    memcpy(&e, vd_host(buf), sizeof e);
    snprintf(text, sizeof text, "%x %u:%u reason %x", e.event, e.lun[1], ld_be16(e.lun + 2), e.reason);
    return text;
}

static void test_events(void **state)
{
    struct err e = ERR_INIT;
    uint64_t buf;
    machine();
    buf = vd_offer(SD_EVT, 16);
    vd_hot = true;
    w32(0x64, 3);
    assert_int_equal(hw_line[0], 0);
    sd_node("late", "");
    struct dev *d = vd_dev("{'driver':'scsi-hd','drive':'late','id':'late','scsi-id':1,'lun':2}");
    vd_run();
    assert_int_equal(r32(0x60), 1);
    assert_int_equal(hw_line[0], 1);
    assert_string_equal(event(buf), "1 1:2 reason 1");
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_LUNS_CHANGED);      /* the others hear of it */
    sd_ready(2);
    /* Another size: the driver is told, and the next command. */
    buf = vd_offer(SD_EVT, 16);
    atomic_store(&node->size, PROBE_SIZE / 2);
    blk_node_changed(node);
    vd_run();
    assert_string_equal(event(buf), "3 1:0 reason 92a");
    assert_sense(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SENSE_CAPACITY_CHANGED);
    /* Without a buffer it is told later that something was missed. */
    assert_true(dev_unplug_request(d, &e));
    vd_run();
    assert_null(obj_find("device", "late"));
    buf = vd_offer(SD_EVT, 16);
    assert_string_equal(event(buf), "80000000 0:0 reason 0");
    assert_string_equal(event(buf), "none");
    machine_end();
}

static struct vd_buf late;
static void give_late(struct ram *r, uint64_t off, uint64_t len)
{
    if (late.addr)
        vd_add(SD_EVT, &late, 1);
    late.addr = 0;
}

/* A buffer for events that the driver gives between the device's look and its wish for a doorbell, for which it rings none. */
static void test_event_with_a_late_buffer(void **state)
{
    struct err e = ERR_INIT;
    sd_open();
    sd_node("late", "");
    vd_hot = true;
    struct dev *d = vd_dev("{'driver':'scsi-hd','drive':'late','id':'late','scsi-id':1,'lun':2}");
    vd_start(BIT64(VIRTIO_SCSI_F_HOTPLUG) | BIT64(VIRTIO_F_EVENT_IDX), SD_QUEUES);
    late = (struct vd_buf){ vd_alloc(16), 16, true };
    uint64_t buf = late.addr;
    void (*before)(struct ram *, uint64_t, uint64_t) = ram_code_written;
    ram_code_written = give_late;
    ram_watch(hw_ram, vdq[SD_EVT].used - HW_RAM, 1, WATCH_CODE);
    assert_true(dev_unplug_request(d, &e));
    vd_run();
    ram_code_written = before;
    assert_int_equal(late.addr, 0);
    assert_string_equal(event(buf), "1 1:2 reason 2");
    vd_close();
    sd_del("late");
}

/* A unit is unplugged with requests at its back end: it waits for them, and nothing is lost or done twice. */
static void test_unplug_with_requests(void **state)
{
    struct err e = ERR_INIT;
    machine();
    vd_hot = true;
    struct sd_cmd c = read_held(1);
    assert_true(dev_unplug_request(hd, &e));
    vd_run();
    assert_non_null(obj_find("device", "hd"));
    assert_int_equal(sd_lun_cmd(0, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SD_BAD + VIRTIO_SCSI_S_BAD_TARGET);
    probe_go();
    assert_true(sd_wait(SD_REQ));
    assert_int_equal(sd_result(&c), SCSI_GOOD);
    vd_run();
    assert_null(obj_find("device", "hd"));
    machine_end();
}

static void test_reset_with_requests(void **state)
{
    machine();
    for (int i = 0; i < 20; i++) {
        struct sd_cmd c = read_held(1);
        (void)c;
        w32(0x70, 0);
        vd_run();
        assert_int_not_equal(r32(0x70), 0);     /* not while the back end may still write to memory */
        probe_go();
        assert_int_equal(r32(0x70), 0);
        sd_begin();
        sd_ready(0);
        assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    }
    machine_end();
}

static void test_config_space(void **state)
{
    machine();
    assert_int_equal(r32(0x100), 1);
    assert_int_equal(r32(0x114), 96);
    assert_int_equal(r32(0x118), 32);
    w32(0x100, 5);
    assert_int_equal(r32(0x100), 1);
    w32(0x118, 20);
    assert_int_equal(r32(0x118), 20);
    w32(0x118, 256);
    assert_true(vd_needs_reset());
    sd_begin();
    assert_int_equal(r32(0x118), 32);
    machine_end();
}

static void test_wrong_guests(void **state)
{
    static const struct { uint32_t queue, out, in; } bad[] = { { SD_REQ, 50, 108 }, { SD_REQ, 51, 107 }, { SD_REQ, 0, 300 }, { SD_CTL, 23, 1 },
                                                                { SD_CTL, 24, 0 }, { SD_CTL, 3, 1 } };
    machine();
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct vd_buf b[2] = { { vd_alloc(512), bad[i].out, false }, { vd_alloc(512), bad[i].in, true } };
        vd_add(bad[i].queue, b + !bad[i].out, (bad[i].out != 0) + (bad[i].in != 0u));
        vd_kick(bad[i].queue);
        if (!vd_needs_reset())
            fail_msg("case %u was taken", i);
        sd_begin();
    }
    sd_ready(0);
    assert_int_equal(sd_cmd(CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0), SCSI_GOOD);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent_units), cmocka_unit_test(test_well_known_unit), cmocka_unit_test(test_several_units), cmocka_unit_test(test_abort_task),
        cmocka_unit_test(test_unit_reset), cmocka_unit_test(test_abort_of_a_stopped_request), cmocka_unit_test(test_unit_reset_ends_a_self_test),
        cmocka_unit_test(test_events), cmocka_unit_test(test_event_with_a_late_buffer),
        cmocka_unit_test(test_unplug_with_requests), cmocka_unit_test(test_reset_with_requests), cmocka_unit_test(test_config_space),
        cmocka_unit_test(test_wrong_guests),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
