/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations with two ways to one unit (two disks on a node): every action, who is told, what is kept out, what outlives the
 * power; and the unit's clock.
 */
#include "scsi_drv.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "hw/scsi/scsi_disk.h"

#define A 0                             /* the two ways */
#define B 1
#define KEY_A 0xa1a2a3a4a5a6a7a8ull
#define KEY_B 0xb1ull

static char file[64];
static struct dev *way[2];

static void power_on(bool kept)
{
    char text[256];

    probe_fill();
    sd_open();
    sd_node("disk", "");
    for (int lun = 0; lun < 2; lun++) {
        snprintf(text, sizeof text, "{'driver':'scsi-hd','drive':'disk','id':'way%d','scsi-id':1,'lun':%d,'share-rw':true%s%s%s}", lun, lun,
                 kept ? ",'pr_file':'" : "", kept ? file : "", kept ? "'" : "");
        way[lun] = vd_dev(text);
    }
    sd_begin();
    sd_ready(A);
    sd_ready(B);
}

static void power_off(void)
{
    vd_close();
    sd_del("disk");
}

static int out(unsigned lun, uint8_t action, uint8_t type, uint64_t key, uint64_t arg, bool aptpl)
{
    uint8_t p[24] = { 0 };

    st_be64(p, key);
    st_be64(p + 8, arg);
    p[20] = aptpl;
    return sd_lun_cmd(lun, CDB(OP_PERSISTENT_RESERVE_OUT, action, type, 0, 0, 0, 0, 0, 24), p, 24, NULL, 0);
}

static uint32_t in(unsigned lun, uint8_t action, uint8_t *b, size_t n)
{
    memset(b, 0, n);
    assert_int_equal(sd_lun_cmd(lun, CDB(OP_PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0, (uint8_t)(n >> 8), (uint8_t)n), NULL, 0, b, (uint32_t)n),
                     SCSI_GOOD);
    return ld_be32(b + 4);
}

static unsigned keys(void)
{
    uint8_t b[256];
    return in(A, 0, b, sizeof b) / 8;
}

/* The type of the reservation, 0: none; its key. */
static uint8_t reservation(uint64_t *key)
{
    uint8_t b[24];
    uint32_t n = in(A, 1, b, sizeof b);

    if (key)
        *key = ld_be64(b + 8);
    return n ? b[21] : 0;
}

static int ready(unsigned lun) { return sd_lun_cmd(lun, CDB(OP_TEST_UNIT_READY), NULL, 0, NULL, 0); }
#define assert_told(lun, sense) assert_sense(ready(lun), sense)

static int write1(unsigned lun)
{
    uint8_t b[512] = { 1 };
    return sd_lun_cmd(lun, CDB(OP_WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1), b, sizeof b, NULL, 0);
}

static int read1(unsigned lun)
{
    uint8_t b[512];
    return sd_lun_cmd(lun, CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, b, sizeof b);
}

static void register_both(bool aptpl)
{
    assert_int_equal(out(A, PR_REGISTER, 0, 0, KEY_A, aptpl), SCSI_GOOD);
    assert_int_equal(out(B, PR_REGISTER, 0, 0, KEY_B, aptpl), SCSI_GOOD);
}

/* Access by type: what a registered and an unregistered nexus may, SPC-5 5.14.1. */
static void test_access(void **state)
{
    static const struct { uint8_t type; bool reg_reads, reg_writes, other_reads; } rows[] = {
        { PR_WRITE_EXCLUSIVE, true, false, true }, { PR_EXCLUSIVE, false, false, false }, { PR_WRITE_EXCLUSIVE_RO, true, true, true },
        { PR_EXCLUSIVE_RO, true, true, false }, { PR_WRITE_EXCLUSIVE_AR, true, true, true }, { PR_EXCLUSIVE_AR, true, true, false },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        power_on(false);
        register_both(false);
        assert_int_equal(out(A, PR_RESERVE, rows[i].type, KEY_A, 0, false), SCSI_GOOD);
        assert_int_equal(write1(A), SCSI_GOOD);
        assert_int_equal(read1(A), SCSI_GOOD);
        assert_int_equal(read1(B), rows[i].reg_reads ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT);
        assert_int_equal(write1(B), rows[i].reg_writes ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT);
        assert_int_equal(out(B, PR_REGISTER, 0, KEY_B, 0, false), SCSI_GOOD);
        assert_int_equal(read1(B), rows[i].other_reads ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT);
        assert_int_equal(write1(B), SCSI_RESERVATION_CONFLICT);
        assert_int_equal(ready(B), SCSI_GOOD);
        assert_int_equal(sd_lun_cmd(B, CDB(OP_START_STOP_UNIT, 0, 0, 0, 0), NULL, 0, NULL, 0), SCSI_RESERVATION_CONFLICT);
        assert_int_equal(sd_lun_cmd(B, CDB(OP_START_STOP_UNIT, 0, 0, 0, 1), NULL, 0, NULL, 0), SCSI_GOOD);
        assert_int_equal(out(B, PR_RESERVE, rows[i].type, 0, 0, false), SCSI_RESERVATION_CONFLICT);
        power_off();
    }
}

static void test_release_and_clear(void **state)
{
    uint64_t key;

    power_on(false);
    register_both(false);
    assert_int_equal(out(A, PR_RESERVE, PR_WRITE_EXCLUSIVE_RO, KEY_A, 0, false), SCSI_GOOD);
    assert_int_equal(out(B, PR_RESERVE, PR_WRITE_EXCLUSIVE_RO, KEY_B, 0, false), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(out(B, PR_RELEASE, PR_WRITE_EXCLUSIVE_RO, KEY_B, 0, false), SCSI_GOOD);      /* not its own: nothing happens */
    assert_int_equal(reservation(&key), PR_WRITE_EXCLUSIVE_RO);
    assert_true(key == KEY_A);
    assert_sense(out(A, PR_RELEASE, PR_EXCLUSIVE, KEY_A, 0, false), SENSE_INVALID_RELEASE);
    assert_int_equal(out(A, PR_RELEASE, PR_WRITE_EXCLUSIVE_RO, KEY_A, 0, false), SCSI_GOOD);
    assert_told(B, SENSE_RESERVATIONS_RELEASED);
    assert_int_equal(ready(B), SCSI_GOOD);
    assert_int_equal(ready(A), SCSI_GOOD);
    assert_int_equal(out(A, PR_RESERVE, PR_EXCLUSIVE, KEY_A, 0, false), SCSI_GOOD);
    assert_int_equal(out(B, PR_CLEAR, 0, KEY_B, 0, false), SCSI_GOOD);
    assert_told(A, SENSE_RESERVATIONS_PREEMPTED);
    assert_int_equal(keys(), 0);
    assert_int_equal(reservation(NULL), 0);
    /* the last of all registrants takes the reservation with it, and the first does not */
    register_both(false);
    assert_int_equal(out(A, PR_RESERVE, PR_EXCLUSIVE_AR, KEY_A, 0, false), SCSI_GOOD);
    assert_int_equal(reservation(&key), PR_EXCLUSIVE_AR);
    assert_true(key == 0);
    assert_int_equal(out(A, PR_REGISTER_AND_IGNORE, 0, 0, 0, false), SCSI_GOOD);
    assert_int_equal(reservation(NULL), PR_EXCLUSIVE_AR);
    assert_int_equal(out(B, PR_REGISTER, 0, KEY_B, 0, false), SCSI_GOOD);
    assert_int_equal(reservation(NULL), 0);
    power_off();
}

static void test_preempt(void **state)
{
    uint64_t key;

    power_on(false);
    register_both(false);
    assert_int_equal(out(A, PR_RESERVE, PR_EXCLUSIVE, KEY_A, 0, false), SCSI_GOOD);
    assert_sense(out(B, PR_PREEMPT, PR_EXCLUSIVE, KEY_B, 0, false), SENSE_INVALID_FIELD_PARAM);
    assert_int_equal(out(B, PR_PREEMPT, PR_EXCLUSIVE, KEY_B, 0x77, false), SCSI_RESERVATION_CONFLICT);
    assert_sense(out(B, PR_PREEMPT, 2, KEY_B, KEY_A, false), SENSE_INVALID_FIELD_CDB);
    assert_int_equal(keys(), 2);
    assert_int_equal(out(B, PR_PREEMPT, PR_WRITE_EXCLUSIVE, KEY_B, KEY_A, false), SCSI_GOOD);
    assert_told(A, SENSE_REGISTRATIONS_PREEMPTED);
    assert_int_equal(reservation(&key), PR_WRITE_EXCLUSIVE);
    assert_true(key == KEY_B);
    assert_int_equal(keys(), 1);
    assert_int_equal(write1(A), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(write1(B), SCSI_GOOD);
    /* all registrants: key 0 stands for all others */
    assert_int_equal(out(B, PR_CLEAR, 0, KEY_B, 0, false), SCSI_GOOD);
    assert_int_equal(ready(A), SCSI_GOOD);      /* it was registered no more: it is not told */
    register_both(false);
    assert_int_equal(out(A, PR_RESERVE, PR_WRITE_EXCLUSIVE_AR, KEY_A, 0, false), SCSI_GOOD);
    assert_int_equal(out(A, PR_PREEMPT, PR_EXCLUSIVE, KEY_A, 0, false), SCSI_GOOD);
    assert_told(B, SENSE_REGISTRATIONS_PREEMPTED);
    assert_int_equal(reservation(&key), PR_EXCLUSIVE);
    assert_true(key == KEY_A);
    power_off();
}

/* What the other has in flight ends, and it is told of that, before the command does. */
static void test_preempt_and_abort(void **state)
{
    uint8_t p[24] = { 0 };
    struct sd_cmd held, c;

    power_on(false);
    register_both(false);
    assert_int_equal(out(A, PR_RESERVE, PR_EXCLUSIVE, KEY_A, 0, false), SCSI_GOOD);
    probe_hold = true;
    held = sd_submit(A, 9, CDB(OP_READ_10, 0, 0, 0, 0, 0, 0, 0, 1), NULL, 0, 512);
    loop_run_once(loop_main(), 1000000);
    st_be64(p, KEY_B);
    st_be64(p + 8, KEY_A);
    c = sd_submit(B, 10, CDB(OP_PERSISTENT_RESERVE_OUT, PR_PREEMPT_AND_ABORT, PR_EXCLUSIVE, 0, 0, 0, 0, 0, 24), p, 24, 0);
    for (int i = 0; i < 20; i++)
        loop_run_once(loop_main(), 1000000);
    assert_true(vd_used(SD_REQ) < 0);           /* the read is not over, so neither is this */
    probe_go();
    assert_true(sd_wait(SD_REQ));
    assert_true(sd_wait(SD_REQ));
    assert_int_equal(sd_result(&held), SD_BAD + VIRTIO_SCSI_S_ABORTED);
    assert_int_equal(sd_result(&c), SCSI_GOOD);
    assert_told(A, SENSE_COMMANDS_CLEARED);
    assert_told(A, SENSE_REGISTRATIONS_PREEMPTED);
    assert_int_equal(ready(A), SCSI_GOOD);
    power_off();
}

static int move(unsigned lun, uint64_t key, uint64_t arg, uint8_t flags, uint64_t initiator, uint16_t port)
{
    uint8_t p[48] = { 0 };

    st_be64(p, key);
    st_be64(p + 8, arg);
    p[17] = flags;
    st_be16(p + 18, port);
    st_be32(p + 20, 24);
    p[24] = 6;
    st_be64(p + 28, initiator);
    return sd_lun_cmd(lun, CDB(OP_PERSISTENT_RESERVE_OUT, PR_REGISTER_AND_MOVE, 0, 0, 0, 0, 0, 0, 48), p, 48, NULL, 0);
}

static void test_move(void **state)
{
    uint8_t b[256];
    uint64_t initiator, key;

    power_on(false);
    register_both(false);
    assert_int_equal(in(A, 3, b, sizeof b), 96);
    initiator = ld_be64(b + 8 + 28);
    assert_int_equal(initiator >> 60, 3);
    assert_true(initiator == ld_be64(b + 56 + 28));     /* one adapter, two ports of the target */
    assert_int_equal(ld_be16(b + 8 + 18), 1);
    assert_int_equal(ld_be16(b + 56 + 18), 2);
    assert_int_equal(move(A, KEY_A, KEY_B, 0, initiator, 2), SCSI_RESERVATION_CONFLICT);        /* it holds nothing */
    assert_int_equal(out(A, PR_RESERVE, PR_EXCLUSIVE, KEY_A, 0, false), SCSI_GOOD);
    assert_sense(move(A, KEY_A, 0, 0, initiator, 2), SENSE_INVALID_FIELD_PARAM);
    assert_sense(move(A, KEY_A, 5, 0, initiator, 1), SENSE_INVALID_FIELD_PARAM);                /* to itself */
    assert_sense(move(A, KEY_A, 5, 0, initiator, 9), SENSE_INVALID_FIELD_PARAM);                /* no such port */
    assert_sense(move(A, KEY_A, 5, 1, initiator, 2), SENSE_INVALID_FIELD_PARAM);                /* APTPL without a file */
    assert_int_equal(move(A, KEY_A, 0x55, 2, initiator, 2), SCSI_GOOD);
    assert_int_equal(reservation(&key), PR_EXCLUSIVE);
    assert_true(key == 0x55);
    assert_int_equal(keys(), 1);
    assert_int_equal(write1(B), SCSI_GOOD);
    assert_int_equal(write1(A), SCSI_RESERVATION_CONFLICT);
    /* to an initiator that is not there: registered all the same */
    assert_int_equal(move(B, 0x55, 0x66, 0, 0x3123456789abcdefull, 1), SCSI_GOOD);
    assert_int_equal(keys(), 2);
    assert_int_equal(write1(B), SCSI_RESERVATION_CONFLICT);
    power_off();
}

static void test_kept_over_power(void **state)
{
    uint64_t key;
    uint8_t b[8];

    unlink(file);
    power_on(true);
    in(A, 2, b, sizeof b);
    assert_int_equal(b[2] & 1, 1);              /* PTPL_C */
    assert_int_equal(b[3] & 1, 0);
    register_both(true);
    assert_int_equal(out(A, PR_RESERVE, PR_WRITE_EXCLUSIVE, KEY_A, 0, false), SCSI_GOOD);
    in(A, 2, b, 8);
    assert_int_equal(b[3] & 1, 1);              /* PTPL_A */
    power_off();

    power_on(true);
    assert_int_equal(keys(), 2);
    assert_int_equal(reservation(&key), PR_WRITE_EXCLUSIVE);
    assert_true(key == KEY_A);
    assert_int_equal(write1(B), SCSI_RESERVATION_CONFLICT);
    bus_reset_tree(way[0]->bus, RESET_COLD);    /* a reset is no loss of it either */
    sd_ready(A);
    sd_ready(B);
    assert_int_equal(write1(B), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(out(A, PR_REGISTER, 0, KEY_A, KEY_A, false), SCSI_GOOD);     /* the last APTPL counts */
    power_off();

    power_on(true);
    assert_int_equal(keys(), 0);
    assert_int_equal(reservation(NULL), 0);
    power_off();
}

/* What cannot be kept is not done. */
static void test_full_disk(void **state)
{
    char blocker[80];

    unlink(file);
    power_on(true);
    snprintf(blocker, sizeof blocker, "%s.new", file);
    assert_int_equal(mkdir(blocker, 0700), 0);
    assert_sense(out(A, PR_REGISTER, 0, 0, KEY_A, true), SENSE_TARGET_FAILURE);
    assert_int_equal(keys(), 0);
    rmdir(blocker);
    assert_int_equal(out(A, PR_REGISTER, 0, 0, KEY_A, true), SCSI_GOOD);
    assert_int_equal(keys(), 1);
    power_off();
    unlink(file);
}

static void test_files_that_make_no_sense(void **state)
{
    static const char *const rows[] = {
        "", "[]", "{\"version\":2,\"type\":0,\"registrations\":[]}", "{\"version\":1,\"type\":9,\"registrations\":[]}",
        "{\"version\":1,\"type\":1,\"registrations\":[]}",
        "{\"version\":1,\"type\":0,\"registrations\":[{\"key\":\"0x12\",\"initiator\":\"0x3000000000000000\",\"port\":1}]}",
        "{\"version\":1,\"type\":0,\"registrations\":[{\"key\":\"0x0000000000000000\",\"initiator\":\"0x3000000000000000\",\"port\":1}]}",
        "{\"version\":1,\"type\":0,\"registrations\":[{\"key\":\"0x0000000000000001\",\"initiator\":\"0x3000000000000000\",\"port\":65536}]}",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct err e = ERR_INIT;
        struct scsi_pr p;
        FILE *f = fopen(file, "w");
        fputs(rows[i], f);
        fclose(f);
        assert_false(scsi_pr_file_load(file, &p, &e));
        assert_non_null(strstr(e.msg, file));
    }
    unlink(file);
}

static uint64_t timestamp(unsigned lun, uint8_t *origin)
{
    uint8_t b[12] = { 0 };

    assert_int_equal(sd_lun_cmd(lun, CDB(OP_MAINTENANCE_IN, SA_TIMESTAMP, 0, 0, 0, 0, 0, 0, 0, 12), NULL, 0, b, 12), SCSI_GOOD);
    assert_int_equal(ld_be16(b), 10);
    *origin = b[2] & 7;
    return (uint64_t)ld_be16(b + 4) << 32 | ld_be32(b + 6);
}

static void test_timestamp(void **state)
{
    uint8_t b[12] = { 0 }, origin;
    uint64_t t;

    power_on(false);
    t = timestamp(A, &origin);
    assert_int_equal(origin, 0);
    st_be16(b + 4, 0x0123);
    st_be32(b + 6, 0x456789ab);
    assert_sense(sd_lun_cmd(A, CDB(OP_MAINTENANCE_OUT, SA_TIMESTAMP, 0, 0, 0, 0, 0, 0, 0, 11), b, 11, NULL, 0), SENSE_PARAM_LENGTH);
    assert_int_equal(sd_lun_cmd(A, CDB(OP_MAINTENANCE_OUT, SA_TIMESTAMP, 0, 0, 0, 0, 0, 0, 0, 12), b, 12, NULL, 0), SCSI_GOOD);
    assert_told(B, SENSE_TIMESTAMP_CHANGED);
    t = timestamp(B, &origin) - 0x0123456789abull;
    assert_int_equal(origin, 2);
    assert_true(t < 60000);
    bus_reset_tree(way[0]->bus, RESET_COLD);
    sd_ready(A);
    assert_true(timestamp(A, &origin) < 60000);
    assert_int_equal(origin, 0);
    power_off();
}

/* COMPARE AND WRITE by both ways at once: one of them finds what it expects (SBC-4, 5.3: no other command comes between). */
static void test_compare_and_write_is_atomic(void **state)
{
    uint8_t b[1024] = { 0 };

    power_on(false);
    assert_int_equal(sd_race(2), 1);
    /* what one way reads for it, another does not write meanwhile */
    probe_hold = true;
    memset(b, 0, sizeof b);
    b[0] = probe_data[0];
    sd_submit(A, 0, CDB(OP_COMPARE_AND_WRITE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), b, 1024, 0);
    sd_submit(B, 1, CDB(OP_WRITE_10, 0, 0, 0, 0, 0, 0, 0, 1), b, 512, 0);
    vd_run();
    assert_int_equal(probe_waiting, 1);
    probe_go();
    assert_true(sd_wait(SD_REQ));
    assert_true(sd_wait(SD_REQ));
    power_off();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_access), cmocka_unit_test(test_release_and_clear), cmocka_unit_test(test_preempt), cmocka_unit_test(test_preempt_and_abort),
        cmocka_unit_test(test_move), cmocka_unit_test(test_kept_over_power), cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_files_that_make_no_sense), cmocka_unit_test(test_timestamp),
        cmocka_unit_test(test_compare_and_write_is_atomic),
    };
    snprintf(file, sizeof file, "/tmp/bp-scsi-pr.%d", getpid());
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
