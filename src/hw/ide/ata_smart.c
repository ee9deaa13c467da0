/* SPDX-License-Identifier: MIT */
/* SMART of a SATA disk (ACS-3, 7.48; ACS-4 keeps its logs): attributes from what the unit counts, and its self-tests. */
#include "hw/ide/ahci.h"

enum { SMART_READ_DATA = 0xd0, SMART_READ_THRESHOLDS = 0xd1, SMART_AUTOSAVE = 0xd2, SMART_EXECUTE = 0xd4, SMART_READ_LOG = 0xd5, SMART_ENABLE = 0xd8,
       SMART_DISABLE = 0xd9, SMART_STATUS = 0xda };
enum { LOG_DIRECTORY = 0, LOG_ERRORS = 1, LOG_SELF_TEST = 6, TEST_RUNS = 15 };
#define KEY 0xc24fu                     /* in the middle and high bytes of the address */

static void checksum(uint8_t *b)
{
    b[511] = 0;
    for (unsigned i = 0; i < 511; i++)
        b[511] = (uint8_t)(b[511] - b[i]);
}

/* ---- attributes: as every vendor numbers them ---- */

struct attribute { uint8_t id, flags, threshold; uint64_t (*raw)(const struct scsi_disk *); };

static uint64_t none(const struct scsi_disk *d) { return 0; }
static uint64_t uncorrected(const struct scsi_disk *d) { return d->count[SCSI_COUNT_READ].errors + d->count[SCSI_COUNT_VERIFY].errors; }
static uint64_t hours(const struct scsi_disk *d) { return (uint64_t)clock_now(CLOCK_VM) / 1000000000 / 3600; }
static uint64_t once(const struct scsi_disk *d) { return 1; }
static uint64_t written(const struct scsi_disk *d) { return d->count[SCSI_COUNT_WRITE].bytes / scsi_disk_bs(d); }
static uint64_t read_back(const struct scsi_disk *d) { return d->count[SCSI_COUNT_READ].bytes / scsi_disk_bs(d); }

static const struct attribute attributes[] = {
    { 5, 0x33, 10, none },              /* reallocated sectors */
    { 9, 0x32, 0, hours }, { 12, 0x32, 0, once }, { 187, 0x32, 0, uncorrected }, { 241, 0x32, 0, written }, { 242, 0x32, 0, read_back },
};

static uint8_t test_status(const struct scsi_disk *d)
{
    uint8_t left = (uint8_t)(10 - (uint32_t)d->s.progress * 10 / 65536);

    return d->tests[0].result == TEST_RUNS ? (uint8_t)(0xf0 | MIN(left, 9)) : (uint8_t)(d->tests[0].result << 4);
}

static void read_data(struct ata_cmd *c, uint8_t *b)
{
    const struct scsi_disk *d = c->d;
    uint8_t *a = b + 2;

    st_le16(b, 16);
    for (unsigned i = 0; i < ARRAY_SIZE(attributes); i++, a += 12) {
        uint64_t raw = attributes[i].raw(d);
        a[0] = attributes[i].id;
        st_le16(a + 1, attributes[i].flags);
        a[3] = a[4] = 100;
        for (unsigned k = 0; k < 6; k++)
            a[5 + k] = (uint8_t)(raw >> 8 * k);
    }
    b[363] = test_status(d);
    b[367] = 0x11;                      /* self-tests, offline collection that does nothing */
    st_le16(b + 368, 3);
    b[370] = 1;
    b[372] = b[373] = 1;                /* minutes to wait for a short and for an extended test */
}

static void read_thresholds(struct ata_cmd *c, uint8_t *b)
{
    st_le16(b, 16);
    for (unsigned i = 0; i < ARRAY_SIZE(attributes); i++) {
        b[2 + 12 * i] = attributes[i].id;
        b[3 + 12 * i] = attributes[i].threshold;
    }
}

/* ---- logs ---- */

/* Results go round in 21 descriptors; the newest is the one that the index names. */
static void self_test_log(const struct scsi_disk *d, uint8_t *b)
{
    unsigned n = 0;

    st_le16(b, 1);
    while (n < SCSI_SELF_TESTS && d->tests[n].code)
        n++;
    b[508] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        const struct scsi_self_test *t = &d->tests[i];
        uint8_t *e = b + 2 + 24 * (n - 1 - i);
        e[0] = t->code >= 5 ? (uint8_t)(0x80 | (t->code - 4)) : t->code;
        e[1] = i || t->result != TEST_RUNS ? (uint8_t)(t->result << 4) : test_status(d);
        st_le16(e + 2, t->hours);
        st_le32(e + 5, t->result == 7 ? (uint32_t)t->lba : UINT32_MAX);
    }
}

static bool read_log(struct ata_cmd *c, uint8_t *b)
{
    switch (c->fis[4]) {
    case LOG_DIRECTORY:
        st_le16(b, 1);
        st_le16(b + 2 * LOG_ERRORS, 1);
        st_le16(b + 2 * LOG_SELF_TEST, 1);
        return true;
    case LOG_ERRORS:
        b[0] = 1;
        checksum(b);
        return true;
    case LOG_SELF_TEST:
        self_test_log(c->d, b);
        checksum(b);
        return true;
    default:
        return false;
    }
}

/* ---- the command ---- */

static bool co_execute(struct ata_cmd *c)
{
    static const struct { uint8_t ata, scsi; } tests[] = { { 0x01, 1 }, { 0x02, 2 }, { 0x7f, 4 }, { 0x81, 5 }, { 0x82, 6 } };

    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++)
        if (tests[i].ata == c->fis[4]) {
            bool passed = co_scsi_self_test(c->d, tests[i].scsi, NULL);
            c->lba = passed ? KEY << 8 : 0x2cf400;
            return passed;
        }
    return !c->fis[4];                  /* offline collection: the counters are always up to date */
}

bool co_ata_smart(struct ata_cmd *c)
{
    uint8_t b[512] = { 0 }, what = c->fis[3];
    bool on = !c->p->smart_off;

    if ((c->fis[5] | c->fis[6] << 8) != KEY || (!on && what != SMART_ENABLE))
        return false;
    switch (what) {
    case SMART_READ_DATA:
        read_data(c, b);
        checksum(b);
        break;
    case SMART_READ_THRESHOLDS:
        read_thresholds(c, b);
        checksum(b);
        break;
    case SMART_READ_LOG:
        if (!read_log(c, b))
            return false;
        break;
    case SMART_EXECUTE:
        return co_execute(c);
    case SMART_ENABLE: case SMART_DISABLE:
        c->p->smart_off = what == SMART_DISABLE;
        return true;
    case SMART_STATUS:
        c->lba = KEY << 8;              /* no threshold is exceeded */
        return true;
    default:
        return what == SMART_AUTOSAVE;
    }
    ata_reply(c, b, sizeof b);
    return true;
}
