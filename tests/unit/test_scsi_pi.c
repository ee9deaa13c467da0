/* SPDX-License-Identifier: MIT */
/* Protection information of a scsi-hd through virtio-scsi: formats, what each PROTECT field checks, commands of 32 bytes, what is kept. */
#include "scsi_drv.h"
#include "block/pi.h"

enum { BS = 512, EACH = BS + 8, BLOCKS = (PROBE_SIZE - 3 * 4096) / EACH, TUPLES = (BLOCKS * BS + 4095) & ~4095 };
enum { GUARD = 1, APP = 2, REF = 4 };           /* what is wrong */
static struct dev *hd;
static uint8_t buf[16 * EACH];

static void power_on(const char *hba)
{
    vd_open();
    sd_hba = vd_dev(hba);
    sd_node("disk", "");
    hd = vd_dev("{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0,'protection':true}");
    sd_begin();
    sd_ready(0);
}

static void machine(void)
{
    probe_fill();
    power_on("{'driver':'virtio-scsi-device','id':'foo'}");
}

static void machine_end(void)
{
    vd_close();
    sd_del("disk");
}

static int format(unsigned info, int usage)
{
    uint8_t list[4] = { (uint8_t)MAX(usage, 0) };

    return sd_cmd(CDB(OP_FORMAT_UNIT, (uint8_t)(info << 6 | (usage < 0 ? 0 : 0x10))), list, usage < 0 ? 0 : 4, NULL, 0);
}

static void format_type(unsigned type)
{
    assert_int_equal(format(type == 0 ? 0 : type == 1 ? 2 : 3, type == 3 ? 1 : 0), SCSI_GOOD);
}

static unsigned capacity_byte(void)
{
    uint8_t b[32];

    assert_int_equal(sd_cmd(CDB(OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32), NULL, 0, b, 32), SCSI_GOOD);
    assert_int_equal(ld_be64(b), BLOCKS - 1);
    return b[12];
}

/* One command of 16 or, on a medium of type 2 with a field, 32 bytes: its reference tag is @ref. */
struct io { uint8_t op; unsigned type, field, bytchk; uint32_t lba, n, ref; uint16_t app, mask; };

static unsigned cdb_of(const struct io *x, uint8_t *c)
{
    bool is_32 = x->type == 2 && x->field;
    uint8_t flags = (uint8_t)(x->field << 5 | x->bytchk << 1);

    memset(c, 0, 32);
    if (!is_32) {
        c[0] = x->op;
        c[1] = flags;
        st_be64(c + 2, x->lba);
        st_be32(c + 10, x->n);
        return 16;
    }
    c[0] = OP_VARIABLE_LENGTH;
    c[7] = 0x18;
    st_be16(c + 8, x->op == OP_READ_16 ? SA_READ_32 : x->op == OP_WRITE_16 ? SA_WRITE_32 : x->op == OP_VERIFY_16 ? SA_VERIFY_32 :
                   x->op == OP_WRITE_SAME_16 ? SA_WRITE_SAME_32 : SA_WRITE_AND_VERIFY_32);
    c[10] = flags;
    st_be64(c + 12, x->lba);
    st_be32(c + 20, x->ref);
    st_be16(c + 24, x->app);
    st_be16(c + 26, x->mask);
    st_be32(c + 28, x->n);
    return 32;
}

static int do_io(struct io x)
{
    uint8_t c[32];
    unsigned len = cdb_of(&x, c);
    uint32_t blocks = x.op == OP_WRITE_SAME_16 || x.bytchk == 3 ? 1 : x.op == OP_VERIFY_16 && !x.bytchk ? 0 : x.n;
    uint32_t bytes = blocks * (x.field ? EACH : BS);

    return x.op == OP_READ_16 ? sd_cmd(c, len, NULL, 0, buf, bytes) : sd_cmd(c, len, bytes ? buf : NULL, bytes, NULL, 0);
}
#define IO(...) do_io((struct io){ __VA_ARGS__ })

/* The buffer: @n blocks with right tuples, then something wrong with the last. */
static void fill(unsigned type, uint32_t ref, unsigned n, unsigned wrong)
{
    struct pi p = { .type = (uint8_t)type, .ms = 8, .block = BS, .app = 0x1234 };

    for (unsigned i = 0; i < n; i++) {
        uint8_t *b = buf + i * EACH;
        for (unsigned k = 0; k < BS; k++)
            b[k] = (uint8_t)hw_rand(256);
        p.ref = type == 3 ? ref : ref + i;
        pi_generate(&p, b, b + BS, 1);
    }
    buf[(n - 1) * EACH + BS] ^= wrong & GUARD ? 0x40 : 0;
    buf[(n - 1) * EACH + BS + 2] ^= wrong & APP ? 0x40 : 0;
    buf[(n - 1) * EACH + BS + 7] ^= wrong & REF ? 0x40 : 0;
}

/* The tables of SBC-4: what @field has checked. Application tags only where the command says what to expect. */
static uint32_t expected(unsigned type, unsigned field, unsigned wrong)
{
    bool is_32 = type == 2 && field, tags = field == 0 || field == 1 || field == 2 || field == 5;

    if (wrong & GUARD && field != 2 && field != 3)
        return SENSE_GUARD_CHECK;
    if (wrong & APP && tags && is_32)
        return SENSE_APP_TAG_CHECK;
    return wrong & REF && tags && (type == 1 || is_32) ? SENSE_REF_TAG_CHECK : 0;
}

static void own_app_tags(void)
{
    uint8_t list[16] = { [4] = 0x0a, 10, [7] = 0x10, [9] = 0x80, [12] = 0xff, 0xff };

    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 16), list, 16, NULL, 0), SCSI_GOOD);
}

static void test_what_it_says(void **state)
{
    uint8_t b[96];

    machine();
    sd_cmd(CDB(OP_INQUIRY, 0, 0, 0, 96), NULL, 0, b, 96);
    assert_int_equal(b[5], 1);
    sd_cmd(CDB(OP_INQUIRY, 1, VPD_EXTENDED_INQUIRY, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[4], 0x3f);
    assert_int_equal(capacity_byte(), 0);
    assert_sense(IO(OP_READ_16, 0, 1, 0, 0, 1), SENSE_INVALID_FIELD_CDB);
    assert_sense(IO(OP_READ_16, 2, 1, 0, 0, 1), SENSE_INVALID_OPCODE);
    assert_int_equal(IO(OP_READ_16, 0, 0, 0, BLOCKS - 1, 1), SCSI_GOOD);
    assert_sense(IO(OP_READ_16, 0, 0, 0, BLOCKS, 1), SENSE_LBA_OUT_OF_RANGE);
    sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, 3, OP_VARIABLE_LENGTH, 0, SA_WRITE_32, 0, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[1] & 7, 3);
    assert_int_equal(ld_be16(b + 2), 32);
    assert_memory_equal(b + 4, "\x7f\x00\x00\x00\x00\x00\x00\x18\x00\x0b\xf8", 11);
    machine_end();
}

static void test_formats(void **state)
{
    static const struct { unsigned info; int usage; uint32_t sense; unsigned cap; } rows[] = {
        { 2, -1, 0, 1 }, { 3, -1, 0, 3 }, { 0, -1, 0, 0 }, { 2, 0, 0, 1 }, { 3, 1, 0, 5 }, { 0, 1, SENSE_INVALID_FIELD_PARAM, 5 },
        { 1, -1, SENSE_INVALID_FIELD_CDB, 5 }, { 1, 0, SENSE_INVALID_FIELD_CDB, 5 }, { 1, 1, SENSE_INVALID_FIELD_CDB, 5 },
        { 2, 1, SENSE_INVALID_FIELD_PARAM, 5 }, { 3, 2, SENSE_INVALID_FIELD_PARAM, 5 }, { 3, 0, 0, 3 }, { 0, 0, 0, 0 },
    };
    uint8_t none[8];

    memset(none, 0xff, sizeof none);
    machine();
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        int st = format(rows[i].info, rows[i].usage);
        if (rows[i].sense)
            assert_sense(st, rows[i].sense);
        else
            assert_int_equal(st, SCSI_GOOD);
        assert_int_equal(capacity_byte(), rows[i].cap);
        for (unsigned k = 0; rows[i].cap && k < BLOCKS; k += 97) {      /* everything is as if it was never written */
            unsigned type = (rows[i].cap >> 1) + 1;
            memset(buf, 0x55, sizeof buf);
            assert_int_equal(IO(OP_READ_16, type, 1, 0, k, 1), SCSI_GOOD);
            assert_memory_equal(buf + BS, none, 8);
            assert_int_equal(buf[0] | buf[BS - 1], 0);
        }
    }
    machine_end();
}

/* Each field of each type with each mistake, once in what the initiator gives, once in what is on the medium. */
static void test_what_is_checked(void **state)
{
    machine();
    for (unsigned type = 1; type <= 3; type++) {
        format_type(type);
        own_app_tags();
        for (unsigned field = 0; field < 8; field++)
            for (unsigned wrong = 0; wrong < 8; wrong++) {
                uint32_t lba = hw_rand(BLOCKS - 8), ref = type == 1 ? lba : hw_rand(1 << 30), want = expected(type, field, wrong);
                int st;
                fill(type, ref, 5, wrong);
                if (field > 5) {
                    assert_sense(IO(OP_WRITE_16, type, field, 0, lba, 5, ref), SENSE_INVALID_FIELD_CDB);
                    assert_sense(IO(OP_READ_16, type, field, 0, lba, 5, ref), SENSE_INVALID_FIELD_CDB);
                    continue;
                }
                if (field) {
                    st = IO(OP_WRITE_16, type, field, 0, lba, 5, ref, 0x1234, 0xffff);
                    if (want) {
                        assert_sense(st, want);
                        assert_int_equal(ld_be32(sd_sense + 3), lba + 4);
                    } else {
                        assert_int_equal(st, SCSI_GOOD);
                    }
                }
                fill(type, ref, 5, wrong);
                assert_int_equal(IO(OP_WRITE_16, type, 3, 0, lba, 5, ref, 0, 0), SCSI_GOOD);
                for (unsigned verify = 0; verify < 2; verify++) {
                    st = IO(verify ? OP_VERIFY_16 : OP_READ_16, type, field, 0, lba, 5, ref, 0x1234, 0xffff);
                    if (want)
                        assert_sense(st, want);
                    else
                        assert_int_equal(st, SCSI_GOOD);
                }
            }
    }
    machine_end();
}

static void test_application_tags(void **state)
{
    machine();
    format_type(2);
    fill(2, 77, 2, 0);
    assert_int_equal(IO(OP_WRITE_16, 2, 1, 0, 10, 2, 77, 0xffff, 0xffff), SCSI_GOOD);           /* nobody owns them */
    own_app_tags();
    assert_sense(IO(OP_WRITE_16, 2, 1, 0, 10, 2, 77, 0x1235, 0xffff), SENSE_APP_TAG_CHECK);
    assert_int_equal(IO(OP_WRITE_16, 2, 1, 0, 10, 2, 77, 0x1235, 0xfffe), SCSI_GOOD);
    assert_sense(IO(OP_READ_16, 2, 5, 0, 10, 2, 77, 0x0234, 0xf000), SENSE_APP_TAG_CHECK);
    assert_int_equal(IO(OP_READ_16, 2, 5, 0, 10, 2, 77, 0x0234, 0x0fff), SCSI_GOOD);
    machine_end();
}

/* Who gives no information has it made, and what is on the medium checked. */
static void test_without_information(void **state)
{
    static uint8_t data[4 * BS];

    machine();
    for (unsigned type = 1; type <= 3; type++) {
        format_type(type);
        for (unsigned i = 0; i < sizeof data; i++)
            data[i] = buf[i] = (uint8_t)hw_rand(256);
        assert_int_equal(IO(OP_WRITE_16, type, 0, 0, 300, 4), SCSI_GOOD);
        assert_int_equal(IO(OP_READ_16, type, 1, 0, 300, 4, 300), SCSI_GOOD);
        for (unsigned i = 0; i < 4; i++) {
            assert_memory_equal(buf + i * EACH, data + i * BS, BS);
            assert_int_equal(ld_be16(buf + i * EACH + BS), pi_crc16_t10(0, data + i * BS, BS));
            assert_int_equal(ld_be16(buf + i * EACH + BS + 2), 0);
            assert_int_equal(ld_be32(buf + i * EACH + BS + 4), type == 3 ? UINT32_MAX : 300 + i);
        }
        assert_int_equal(sd_cmd(CDB(OP_READ_6, 0, 300 >> 8, 300 & 255, 4), NULL, 0, buf, 4 * BS), SCSI_GOOD);
        assert_memory_equal(buf, data, sizeof data);
        assert_int_equal(sd_residual, 0);
        probe_data[301 * BS + 9] ^= 1;          /* the medium loses a bit */
        assert_sense(IO(OP_READ_16, type, 0, 0, 300, 4), SENSE_GUARD_CHECK);
        assert_int_equal(ld_be32(sd_sense + 3), 301);
        assert_sense(IO(OP_VERIFY_16, type, 0, 0, 300, 4), SENSE_GUARD_CHECK);
    }
    machine_end();
}

/* DPICZ: who asks for nothing has nothing checked; the usage map has the fields. */
static void test_checks_turned_off(void **state)
{
    uint8_t list[16] = { [4] = 0x0a, 10, 0x08, 0x10, [12] = 0xff, 0xff }, b[64];

    machine();
    format_type(1);
    fill(1, 50, 1, GUARD);
    assert_int_equal(IO(OP_WRITE_16, 1, 3, 0, 50, 1), SCSI_GOOD);
    assert_sense(IO(OP_READ_16, 1, 0, 0, 50, 1), SENSE_GUARD_CHECK);
    assert_int_equal(sd_cmd(CDB(OP_MODE_SELECT_6, 0x10, 0, 0, 16), list, 16, NULL, 0), SCSI_GOOD);
    assert_int_equal(IO(OP_READ_16, 1, 0, 0, 50, 1), SCSI_GOOD);
    assert_int_equal(IO(OP_VERIFY_16, 1, 0, 0, 50, 1), SCSI_GOOD);
    assert_sense(IO(OP_READ_16, 1, 1, 0, 50, 1), SENSE_GUARD_CHECK);
    sd_cmd(CDB(OP_MAINTENANCE_IN, SA_REPORT_OPCODES, 1, OP_READ_10, 0, 0, 0, 0, 0, 64), NULL, 0, b, 64);
    assert_int_equal(b[5], 0xf8);
    machine_end();
}

static void test_comparisons(void **state)
{
    machine();
    format_type(1);
    own_app_tags();
    fill(1, 20, 4, 0);
    assert_int_equal(IO(OP_WRITE_AND_VERIFY_16, 1, 1, 1, 20, 4), SCSI_GOOD);
    assert_int_equal(IO(OP_VERIFY_16, 1, 1, 1, 20, 4), SCSI_GOOD);
    buf[2 * EACH + BS + 3] ^= 1;                /* another application tag */
    assert_sense(IO(OP_VERIFY_16, 1, 1, 1, 20, 4), SENSE_APP_TAG_MISCOMPARE);
    assert_int_equal(ld_be32(sd_sense + 3), 22);
    buf[2 * EACH + BS + 3] ^= 1;
    buf[2 * EACH + BS + 1] ^= 1;
    assert_sense(IO(OP_VERIFY_16, 1, 1, 1, 20, 4), SENSE_GUARD_CHECK);          /* it is wrong before it is another */
    assert_sense(IO(OP_VERIFY_16, 1, 3, 1, 20, 4), SENSE_GUARD_MISCOMPARE);
    assert_int_equal(IO(OP_VERIFY_16, 1, 2, 1, 20, 4), SCSI_GOOD);
    buf[2 * EACH + BS + 1] ^= 1;
    buf[2 * EACH + 100] ^= 1;
    assert_sense(IO(OP_VERIFY_16, 1, 3, 1, 20, 4), SENSE_MISCOMPARE);
    assert_int_equal(ld_be32(sd_sense + 3), 2 * BS + 100);
    /* one block for all: its reference tag counts up */
    fill(1, 40, 1, 0);
    assert_int_equal(IO(OP_WRITE_SAME_16, 1, 1, 0, 40, 8), SCSI_GOOD);
    assert_int_equal(IO(OP_VERIFY_16, 1, 1, 3, 40, 8), SCSI_GOOD);
    assert_int_equal(IO(OP_READ_16, 1, 1, 0, 40, 8), SCSI_GOOD);
    assert_int_equal(ld_be32(buf + 7 * EACH + BS + 4), 47);
    machine_end();
}

static void test_ranges(void **state)
{
    static uint8_t cw[2 * BS];
    uint8_t list[24] = { 0, 22, 0, 16 };

    machine();
    for (unsigned type = 1; type <= 3; type++) {
        format_type(type);
        fill(type, 100, 8, 0);
        assert_int_equal(IO(OP_WRITE_16, type, 1, 0, 100, 8, 100), SCSI_GOOD);
        st_be64(list + 8, 100);
        st_be32(list + 16, 8);
        assert_int_equal(sd_cmd(CDB(OP_UNMAP, 0, 0, 0, 0, 0, 0, 0, 24), list, 24, NULL, 0), SCSI_GOOD);
        assert_int_equal(IO(OP_READ_16, type, 1, 0, 100, 8, 100), SCSI_GOOD);
        assert_int_equal(ld_be64(buf + 7 * EACH + BS), UINT64_MAX);
        /* what compares and writes makes information, too */
        memset(cw, 0, BS);
        memset(cw + BS, 0x77, BS);
        assert_int_equal(sd_cmd(CDB(OP_COMPARE_AND_WRITE, 0, 0, 0, 0, 0, 0, 0, 0, 104, 0, 0, 0, 1), cw, sizeof cw, NULL, 0), SCSI_GOOD);
        assert_int_equal(IO(OP_READ_16, type, 0, 0, 100, 8), SCSI_GOOD);
        assert_int_equal(buf[4 * BS], 0x77);
        assert_int_equal(ld_be16(probe_data + TUPLES + 8 * 104), pi_crc16_t10(0, cw + BS, BS));
        /* WRITE SAME without a field, and without data */
        memset(buf, 0x31, BS);
        assert_int_equal(IO(OP_WRITE_SAME_16, type, 0, 0, 200, 9), SCSI_GOOD);
        assert_int_equal(IO(OP_READ_16, type, 1, 0, 200, 9, 200), SCSI_GOOD);
        assert_int_equal(ld_be32(buf + 8 * EACH + BS + 4), type == 3 ? UINT32_MAX : 208);
        assert_int_equal(sd_cmd(CDB(OP_WRITE_SAME_16, 1, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 9), NULL, 0, NULL, 0), SCSI_GOOD);
        assert_int_equal(IO(OP_READ_16, type, 1, 0, 200, 9, 200), SCSI_GOOD);
        assert_int_equal(ld_be64(buf + BS), UINT64_MAX);
    }
    machine_end();
}

/* The format and all information are in the image. */
static void test_power_cycle(void **state)
{
    machine();
    format_type(3);
    fill(3, 5, 3, 0);
    assert_int_equal(IO(OP_WRITE_16, 3, 1, 0, 60, 3), SCSI_GOOD);
    machine_end();
    power_on("{'driver':'virtio-scsi-device','id':'foo'}");
    assert_int_equal(capacity_byte(), 5);
    assert_int_equal(IO(OP_READ_16, 3, 1, 0, 60, 3), SCSI_GOOD);
    assert_int_equal(ld_be16(buf + 2 * EACH + BS + 2), 0x1234);
    machine_end();
    probe_data[PROBE_SIZE - 1] ^= 1;            /* behind the header or in it: a medium that was never formatted */
    memset(probe_data + TUPLES, 0, PROBE_SIZE - TUPLES);
    power_on("{'driver':'virtio-scsi-device','id':'foo'}");
    assert_int_equal(capacity_byte(), 0);
    machine_end();
}

/* Writes of other blocks are at the back end together; who comes for the same blocks waits, and sees them as they are then. */
static void test_side_by_side(void **state)
{
    static const struct { uint8_t op; uint32_t lba; } rows[] = { { OP_WRITE_16, 10 }, { OP_WRITE_16, 100 }, { OP_WRITE_16, 11 }, { OP_READ_16, 12 },
                                                                 { OP_READ_16, 300 } };
    uint8_t c[32], last[3 * BS];
    struct sd_cmd cmd[ARRAY_SIZE(rows)];

    machine();
    format_type(1);
    probe_hold = true;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        bool write = rows[i].op == OP_WRITE_16;
        memset(buf, (int)(i + 1), 3 * BS);
        if (i == 2)
            memcpy(last, buf, 3 * BS);
        cdb_of(&(struct io){ rows[i].op, 1, 0, 0, rows[i].lba, 3 }, c);
        cmd[i] = sd_submit(0, i, c, 16, write ? buf : NULL, write ? 3 * BS : 0, write ? 0 : 3 * BS);
    }
    vd_run();
    assert_int_equal(probe_waiting, 3);         /* at 10, 100 and 300 */
    probe_go();
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        assert_true(sd_wait(SD_REQ));
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(sd_result(&cmd[i]), SCSI_GOOD);
    assert_memory_equal(vd_host(cmd[3].in), last + BS, 2 * BS);
    assert_int_equal(IO(OP_READ_16, 1, 1, 0, 10, 4), SCSI_GOOD);
    machine_end();
}

/* Tuples are those of their blocks whatever was in flight together. */
static void test_many_in_flight(void **state)
{
    enum { FLIGHT = 5 };
    uint8_t c[32];

    machine();
    format_type(1);
    probe_nap = 200000;
    for (unsigned round = 0; round < 120; round++) {
        for (unsigned i = 0; i < FLIGHT; i++) {
            uint32_t lba = hw_rand(40), n = 1 + hw_rand(8);
            bool write = hw_rand(3);
            memset(buf, (int)hw_rand(256), n * BS);
            cdb_of(&(struct io){ write ? OP_WRITE_16 : OP_READ_16, 1, 0, 0, lba, n }, c);
            sd_submit(0, i, c, 16, write ? buf : NULL, write ? n * BS : 0, write ? 0 : n * BS);
        }
        for (unsigned i = 0; i < FLIGHT; i++)
            assert_true(sd_wait(SD_REQ));
        assert_int_equal(IO(OP_VERIFY_16, 1, 0, 0, 0, 48), SCSI_GOOD);
    }
    probe_nap = 0;
    machine_end();
}

/* With VIRTIO_SCSI_F_T10_PI tuples have buffers of their own, in front of the data. */
static int pi_request(const uint8_t *cdb, void *data, uint32_t len, void *tuples, uint32_t pi, bool write)
{
    struct virtio_scsi_cmd_req_pi p = { .h = { .lun = { 1, 1, 0x40, 0 }, .id = 1 }, .pi_bytesout = write ? pi : 0, .pi_bytesin = write ? 0 : pi };
    uint64_t req = vd_alloc(sizeof p + 32), resp = vd_alloc(108), t = vd_alloc(pi + 1), d = vd_alloc(len + 1);
    struct vd_buf b[4] = { { req, sizeof p + 32, false } };
    struct sd_cmd c = { resp, d, len, 0 };
    unsigned k = 1;

    memcpy(vd_host(req), &p, sizeof p);
    memcpy(vd_host(req) + sizeof p, cdb, 32);
    if (!write)
        b[k++] = (struct vd_buf){ resp, 108, true };
    memcpy(vd_host(t), tuples, pi);
    memcpy(vd_host(d), data, len);
    if (pi)
        b[k++] = (struct vd_buf){ t, pi, !write };
    b[k++] = (struct vd_buf){ d, len, !write };
    if (write)
        b[k++] = (struct vd_buf){ resp, 108, true };
    vd_add(SD_REQ, b, k);
    vd_kick(SD_REQ);
    assert_true(sd_wait(SD_REQ));
    memcpy(tuples, vd_host(t), pi);
    memcpy(data, vd_host(d), len);
    return sd_result(&c);
}

static void test_buffers_of_their_own(void **state)
{
    uint8_t c[32], data[3 * BS], tuples[3 * 8], back[3 * BS], back_tuples[3 * 8];

    probe_fill();
    vd_open();
    sd_hba = vd_dev("{'driver':'virtio-scsi-device','id':'foo','t10_pi':true}");
    sd_node("disk", "");
    vd_dev("{'driver':'scsi-hd','drive':'disk','id':'hd','scsi-id':1,'lun':0,'protection':true}");
    vd_start(BIT64(VIRTIO_SCSI_F_T10_PI), SD_QUEUES);
    memset(c, 0, sizeof c);
    for (int i = 0; i < 9 && pi_request(c, data, 1, tuples, 0, false) == SCSI_CHECK_CONDITION; i++)
        ;
    c[0] = OP_FORMAT_UNIT;
    c[1] = 0x80;
    assert_int_equal(pi_request(c, data, 1, tuples, 0, false), SCSI_GOOD);
    fill(1, 33, 3, 0);
    for (unsigned i = 0; i < 3; i++) {
        memcpy(data + i * BS, buf + i * EACH, BS);
        memcpy(tuples + i * 8, buf + i * EACH + BS, 8);
    }
    cdb_of(&(struct io){ OP_WRITE_16, 1, 1, 0, 33, 3 }, c);
    assert_int_equal(pi_request(c, data, sizeof data, tuples, sizeof tuples, true), SCSI_GOOD);
    assert_int_equal(sd_residual, 0);
    cdb_of(&(struct io){ OP_READ_16, 1, 1, 0, 33, 3 }, c);
    memset(back, 0, sizeof back);
    memset(back_tuples, 0, sizeof back_tuples);
    assert_int_equal(pi_request(c, back, sizeof back, back_tuples, sizeof back_tuples, false), SCSI_GOOD);
    assert_memory_equal(back, data, sizeof data);
    assert_memory_equal(back_tuples, tuples, sizeof tuples);
    assert_int_equal(sd_residual, 0);
    tuples[9] ^= 1;
    cdb_of(&(struct io){ OP_WRITE_16, 1, 1, 0, 33, 3 }, c);
    assert_sense(pi_request(c, data, sizeof data, tuples, sizeof tuples, true), SENSE_GUARD_CHECK);
    assert_int_equal(pi_request(c, data, sizeof data, tuples, 16, true), SD_BAD + VIRTIO_SCSI_S_OVERRUN);      /* too few */
    machine_end();
}

/* What adapters that move data before and after a command expect of it. */
static void test_lengths(void **state)
{
    static const struct { struct io x; uint32_t len; bool out; } rows[] = {
        { { OP_READ_16, 1, 0, 0, 0, 5 }, 5 * BS, false }, { { OP_READ_16, 1, 1, 0, 0, 5 }, 5 * EACH, false }, { { OP_WRITE_16, 1, 3, 0, 0, 5 }, 5 * EACH, true },
        { { OP_READ_16, 2, 1, 0, 0, 5 }, 5 * EACH, false }, { { OP_WRITE_16, 2, 1, 0, 0, 5 }, 5 * EACH, true }, { { OP_VERIFY_16, 2, 1, 0, 0, 5 }, 0, true },
        { { OP_VERIFY_16, 2, 1, 1, 0, 5 }, 5 * EACH, true }, { { OP_VERIFY_16, 2, 1, 3, 0, 5 }, EACH, true }, { { OP_WRITE_SAME_16, 2, 1, 0, 0, 5 }, EACH, true },
        { { OP_WRITE_AND_VERIFY_16, 2, 1, 0, 0, 5 }, 5 * EACH, true }, { { OP_WRITE_SAME_16, 1, 0, 0, 0, 5 }, BS, true },
    };
    uint8_t c[32];
    bool out;

    machine();
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        cdb_of(&rows[i].x, c);
        assert_int_equal(scsi_transfer_len((struct scsi_dev *)hd, c, &out), rows[i].len);
        assert_int_equal(out, rows[i].out);
    }
    machine_end();
}

static void test_random_commands(void **state)
{
    machine();
    for (unsigned type = 0; type <= 3; type++) {
        format_type(type);
        own_app_tags();
        sd_random_commands(hd, 1500);
        for (int i = 0; i < 100 && sd_cmd(CDB(OP_START_STOP_UNIT, 0, 0, 0, 1), NULL, 0, NULL, 0); i++)
            ;
    }
    machine_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_it_says), cmocka_unit_test(test_formats), cmocka_unit_test(test_what_is_checked),
        cmocka_unit_test(test_application_tags), cmocka_unit_test(test_without_information), cmocka_unit_test(test_comparisons), cmocka_unit_test(test_checks_turned_off),
        cmocka_unit_test(test_ranges), cmocka_unit_test(test_power_cycle), cmocka_unit_test(test_buffers_of_their_own),
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_side_by_side), cmocka_unit_test(test_many_in_flight), cmocka_unit_test(test_random_commands),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
