/* SPDX-License-Identifier: MIT */
/* Asymmetric access: two ways to one unit in two groups of ports; what is told, states by option, monitor and initiator, what each keeps out. */
#include "scsi_drv.h"
#include "core/prop.h"
#include "hw/scsi/scsi_disk.h"

#define A 0                             /* the two ways */
#define B 1
static struct dev *way[2];

static void machine(const char *state_of_b)
{
    char text[256];

    probe_fill();
    sd_open();
    sd_node("disk", "");
    for (int lun = 0; lun < 2; lun++) {
        snprintf(text, sizeof text, "{'driver':'scsi-hd','drive':'disk','id':'way%d','scsi-id':1,'lun':%d,'share-rw':true,'wwn':6917529027641081856,"
                 "'port_index':%d,'port_group':%d,'port_state':'%s'}", lun, lun, lun + 1, 257 + lun, lun ? state_of_b : "active-optimized");
        way[lun] = vd_dev(text);
    }
    sd_begin();
    sd_ready(A);
    for (int i = 0; i < 2; i++)
        sd_lun_cmd(B, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0);
}

static void machine_end(void)
{
    vd_close();
    sd_del("disk");
}

static uint8_t report[64];

static int report_groups(unsigned lun, unsigned format)
{
    memset(report, 0, sizeof report);
    return sd_lun_cmd(lun, CDB(OP_MAINTENANCE_IN, (uint8_t)(format << 5 | SA_PORT_GROUPS), 0, 0, 0, 0, 0, 0, 0, 64), NULL, 0, report, 64);
}

/* The state of a group, as the way @lun reports it. */
static unsigned state_of(unsigned lun, unsigned group)
{
    assert_int_equal(report_groups(lun, 0), SCSI_GOOD);
    for (unsigned at = 4; at < 4 + ld_be32(report); at += 8u + 4u * report[at + 7])
        if (ld_be16(report + at + 2) == group)
            return report[at] & 0x0f;
    return 0xff;
}

static int set_group(unsigned lun, uint16_t group, uint8_t state, uint32_t len)
{
    uint8_t list[8] = { 0, 0, 0, 0, state };

    st_be16(list + 6, group);
    return sd_lun_cmd(lun, CDB(OP_MAINTENANCE_OUT, SA_PORT_GROUPS, 0, 0, 0, 0, 0, 0, 0, (uint8_t)len), list, len, NULL, 0);
}

static void monitor(unsigned lun, const char *state)
{
    struct err e = ERR_INIT;
    json_t *v = json_string(state);
    struct obj *o = &way[lun]->obj;
    struct prop p;

    assert_true(obj_prop_find(o->cls, "port_state", &p));
    if (!prop_set(&p, o, o, v, &e))
        fail_msg("%s", e.msg);
    json_decref(v);
    vd_run();
}

static int ready(unsigned lun) { return sd_lun_cmd(lun, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0); }
static int read1(unsigned lun) { return sd_lun_cmd(lun, CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, NULL, 512); }

static void test_what_is_told(void **state)
{
    static const uint8_t want[] = { 0, 0, 0, 24, 0, 0xcf, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0xcf, 1, 2, 0, 0, 0, 1, 0, 0, 0, 2 };
    uint8_t b[128];

    machine("active-non-optimized");
    for (unsigned lun = 0; lun < 2; lun++) {
        sd_lun_cmd(lun, CDB(OP_INQUIRY, 0, 0, 0, 96), NULL, 0, b, 96);
        assert_int_equal(b[5] & 0x30, 0x30);
        sd_lun_cmd(lun, CDB(OP_INQUIRY, 1, VPD_IDENTIFICATION, 0, 128), NULL, 0, b, 128);
        const uint8_t *end = b + 4 + ld_be16(b + 2);
        assert_memory_equal(end - 16, ((const uint8_t[]){ 0x61, 0x94, 0, 4, 0, 0, 0, (uint8_t)(lun + 1), 0x61, 0x95, 0, 4, 0, 0, 1, (uint8_t)(lun + 1) }), 16);
        assert_int_equal(report_groups(lun, 0), SCSI_GOOD);
        assert_memory_equal(report, want, sizeof want);
        assert_int_equal(report_groups(lun, 1), SCSI_GOOD);
        assert_int_equal(ld_be32(report), 28);
        assert_int_equal(report[4], 0x10);
        assert_memory_equal(report + 8, want + 4, sizeof want - 4);
        assert_sense(report_groups(lun, 2), SENSE_INVALID_FIELD_CDB);
        assert_int_equal(read1(lun), SCSI_GOOD);
    }
    machine_end();
}

/* Nothing of it where no group was given. */
static void test_without_groups(void **state)
{
    uint8_t b[96];

    probe_fill();
    sd_open();
    sd_node("disk", "");
    vd_dev("{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0}");
    sd_begin();
    sd_ready(A);
    sd_cmd(CDB(OP_INQUIRY, 0, 0, 0, 96), NULL, 0, b, 96);
    assert_int_equal(b[5], 0);
    assert_sense(report_groups(A, 0), SENSE_INVALID_FIELD_CDB);
    assert_sense(set_group(A, 257, 0, 8), SENSE_INVALID_FIELD_CDB);
    machine_end();
}

static void test_states(void **state)
{
    static const struct { const char *name; uint8_t code; uint32_t sense; bool tells_modes, tells_groups; } rows[] = {
        { "active-non-optimized", 1, 0, true, true }, { "standby", 2, SENSE_ACCESS_STANDBY, true, true },
        { "unavailable", 3, SENSE_ACCESS_UNAVAILABLE, false, true }, { "transitioning", 15, SENSE_ACCESS_TRANSITION, false, true },
        { "offline", 14, SENSE_UNIT_OFFLINE, false, true }, { "active-optimized", 0, 0, true, true },
    };

    machine("active-optimized");
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        monitor(B, rows[i].name);
        assert_sense(ready(A), SENSE_ACCESS_STATE_CHANGED);
        assert_int_equal(ready(A), SCSI_GOOD);
        assert_sense(ready(B), SENSE_ACCESS_STATE_CHANGED);
        assert_int_equal(state_of(A, 258), rows[i].code);
        assert_int_equal(state_of(B, 258), rows[i].code);
        assert_int_equal(state_of(A, 257), 0);
        assert_int_equal(read1(A), SCSI_GOOD);
        if (rows[i].sense) {
            assert_sense(ready(B), rows[i].sense);
            assert_sense(read1(B), rows[i].sense);
        } else {
            assert_int_equal(read1(B), SCSI_GOOD);
        }
        assert_int_equal(sd_lun_cmd(B, CDB(OP_INQUIRY, 0, 0, 0, 36), NULL, 0, NULL, 36), SCSI_GOOD);
        assert_int_equal(sd_lun_cmd(B, CDB(OP_MODE_SENSE_6, 8, 0x0a, 0, 64), NULL, 0, NULL, 64) == SCSI_GOOD, rows[i].tells_modes);
        monitor(B, rows[i].name);               /* the same again is no news */
        assert_int_equal(ready(A), SCSI_GOOD);
    }
    machine_end();
}

static void test_set_by_initiator(void **state)
{
    machine("standby");
    assert_int_equal(set_group(A, 258, 0, 8), SCSI_GOOD);
    assert_int_equal(ready(A), SCSI_GOOD);      /* who asked is not told */
    assert_sense(ready(B), SENSE_ACCESS_STATE_CHANGED);
    assert_int_equal(read1(B), SCSI_GOOD);
    assert_int_equal(set_group(B, 257, 3, 8), SCSI_GOOD);
    assert_int_equal(state_of(B, 257), 3);
    assert_sense(ready(A), SENSE_ACCESS_STATE_CHANGED);
    assert_sense(read1(A), SENSE_ACCESS_UNAVAILABLE);
    assert_int_equal(set_group(A, 257, 1, 8), SCSI_GOOD);       /* what is unavailable can be made available */
    assert_int_equal(read1(A), SCSI_GOOD);
    sd_ready(B);
    assert_sense(set_group(A, 999, 0, 8), SENSE_INVALID_FIELD_PARAM);
    assert_int_equal(ld_be16(sd_sense + 16), 6);
    assert_sense(set_group(A, 258, 14, 8), SENSE_INVALID_FIELD_PARAM);
    assert_sense(set_group(A, 258, 15, 8), SENSE_INVALID_FIELD_PARAM);
    assert_sense(set_group(A, 258, 0, 7), SENSE_PARAM_LENGTH);
    assert_int_equal(state_of(A, 258), 0);
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_told), cmocka_unit_test(test_without_groups), cmocka_unit_test(test_states), cmocka_unit_test(test_set_by_initiator),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
