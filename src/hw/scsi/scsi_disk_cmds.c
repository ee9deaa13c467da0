/* SPDX-License-Identifier: MIT */
/* The command sets of `scsi-hd` and `scsi-cd`, and the short commands of both (SPC-5, 6; SBC-4, 5; MMC-6, 6). */
#include "hw/scsi/scsi_disk.h"

static void test_unit_ready(struct scsi_req *r)
{
}

/* SPC-5, 6.39: a pending unit attention, else what is going on. */
static void request_sense(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    bool desc = r->cdb[1] & 1;
    uint32_t sense = SENSE_NO_SENSE;
    uint8_t b[SCSI_SENSE_MAX];
    unsigned n;

    if (d->overwriting)
        sense = d->overwriting;
    else if (d->s.n_ua) {
        sense = d->s.ua[0];
        memmove(d->s.ua, d->s.ua + 1, --d->s.n_ua * sizeof d->s.ua[0]);
    } else if (scsi_self_test_runs(d)) {
        sense = SENSE_SELF_TEST_IN_PROGRESS;
    }
    n = scsi_sense_of(&d->s, b, sense, desc);
    scsi_reply(r, b, n, r->cdb[4]);
}

static void report_luns(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);

    for (uint32_t i = 0; i < d->s.n_ua; i++)    /* SPC-5, 6.33: it tells what that attention is about */
        if (d->s.ua[i] == SENSE_LUNS_CHANGED) {
            memmove(d->s.ua + i, d->s.ua + i + 1, (d->s.n_ua - i - 1) * sizeof d->s.ua[0]);
            d->s.n_ua--;
        }
    scsi_report_luns(r);
}

/* The POWER CONDITION field: SBC-4, 5.25; MMC-6, 6.42. All of them serve the medium, as if it were active; only a unit that was stopped changes. */
static void power_condition(struct scsi_req *r, uint8_t condition)
{
    struct scsi_disk *d = disk_of(r);
    enum { ACTIVE = 1, IDLE = 2, STANDBY = 3, SLEEP = 5 /* of MMC */, LU_CONTROL = 7, FORCE_IDLE = 10, FORCE_STANDBY = 11 };
    static const uint16_t of_disks = 1 << ACTIVE | 1 << IDLE | 1 << STANDBY | 1 << LU_CONTROL | 1 << FORCE_IDLE | 1 << FORCE_STANDBY,
                          of_drives = 1 << IDLE | 1 << STANDBY | 1 << SLEEP;

    if (!((scsi_disk_is_cd(d) ? of_drives : of_disks) >> condition & 1)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 4);
        return;
    }
    if (condition <= STANDBY)
        d->stopped = false;
}

/* SBC-4, 5.25; MMC-6, 6.42: LOEJ moves the tray of a CD drive. */
static void co_start_stop(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    bool start = r->cdb[4] & 1, loej = r->cdb[4] & 2;

    if (r->cdb[4] >> 4) {
        power_condition(r, r->cdb[4] >> 4);
        return;
    }
    if (loej && !d->removable) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 4);
        return;
    }
    if (loej && !start && d->locked) {
        scsi_fail(r, SENSE_MEDIUM_REMOVAL_PREVENTED);
        return;
    }
    if (!start && !scsi_disk_read_only(d) && !scsi_disk_result(r, co_blk_flush(d->blk), false, 0))
        return;
    if (loej)
        scsi_disk_tray(d, !start);
    d->stopped = !start && !loej;
}

static void prevent_allow(struct scsi_req *r)
{
    disk_of(r)->locked = r->cdb[4] & 1;
}

static void seek(struct scsi_req *r)
{
    scsi_disk_range(r, scsi_cdb_lba(r->cdb), 0);
}

/* Whether a disk makes something of a bit is a matter of its options and of its back end. */
void scsi_disk_usage(const struct scsi_dev *s, const struct scsi_cmd *c, uint8_t *map)
{
    const struct scsi_disk *d = (const struct scsi_disk *)s;

    if (c->flags & SCF_PROTECT && d->protection)
        map[1] |= 0xe0;                         /* RDPROTECT, WRPROTECT, VRPROTECT */
    if (c->op == OP_FORMAT_UNIT && d->protection)
        map[1] |= 0xc0;                         /* FMTPINFO */
    if (c->co_run == co_scsi_write_same && !d->caps.discard)
        map[c->op == OP_VARIABLE_LENGTH ? 10 : 1] &= (uint8_t)~0x08;            /* UNMAP */
    if (c->op == OP_START_STOP_UNIT && !d->removable)
        map[4] &= (uint8_t)~0x02;               /* LOEJ */
    if (!d->dpofua && (c->co_run == co_scsi_read || c->co_run == co_scsi_write || c->op == OP_COMPARE_AND_WRITE) && c->len > 6)
        map[c->op == OP_VARIABLE_LENGTH ? 10 : 1] &= (uint8_t)~0x18;            /* DPO, FUA */
}

/* Rows shared by both sets. Usage maps are without the first byte; service actions stand in them as told. */
#define PRIMARY_COMMANDS                                                                                                  \
    { OP_TEST_UNIT_READY, -1, SCF_MEDIUM | SCF_SHARED, 6, test_unit_ready, "\x00\x00\x00\x00\x00" },                                   \
    { OP_REQUEST_SENSE, -1, SCF_NO_UA | SCF_ALWAYS, 6, request_sense, "\x01\x00\x00\xff\x00" },                           \
    { OP_INQUIRY, -1, SCF_NO_UA | SCF_ALWAYS, 6, scsi_inquiry, "\x01\xff\xff\xff\x00" },                                  \
    { OP_MODE_SELECT_6, -1, SCF_ALTERS, 6, scsi_mode_select, "\x10\x00\x00\xff\x00" },                                             \
    { OP_MODE_SENSE_6, -1, 0, 6, scsi_mode_sense, "\x08\xff\xff\xff\x00" },                                               \
    { OP_START_STOP_UNIT, -1, SCF_ALTERS, 6, co_start_stop, "\x01\x00\x00\xf3\x00" },                                              \
    { OP_SEND_DIAGNOSTIC, -1, SCF_ALTERS, 6, co_scsi_send_diagnostic, "\xe4\x00\x00\x00\x00" },                                    \
    { OP_LOG_SENSE, -1, SCF_SHARED, 10, scsi_log_sense, "\x00\xff\xff\x00\xff\xff\xff\xff\x00" },                           \
    { OP_LOG_SELECT, -1, SCF_ALTERS, 10, scsi_log_select, "\x02\xff\xff\x00\x00\x00\x00\x00\x00" },                                 \
    { OP_READ_BUFFER, -1, 0, 10, scsi_read_buffer, "\x1f\xff\xff\xff\xff\xff\xff\xff\x00" },                               \
    { OP_WRITE_BUFFER, -1, SCF_ALTERS, 10, scsi_write_buffer, "\x1f\xff\xff\xff\xff\xff\xff\xff\x00" },                             \
    { OP_MODE_SELECT_10, -1, SCF_ALTERS, 10, scsi_mode_select, "\x10\x00\x00\x00\x00\x00\xff\xff\x00" },                           \
    { OP_MODE_SENSE_10, -1, 0, 10, scsi_mode_sense, "\x18\xff\xff\x00\x00\x00\xff\xff\x00" },                             \
    { OP_REPORT_LUNS, -1, SCF_NO_UA | SCF_ALWAYS, 12, report_luns, "\x00\x03\x00\x00\x00\xff\xff\xff\xff\x00\x00" },      \
    { OP_MAINTENANCE_IN, SA_REPORT_OPCODES, SCF_ALWAYS, 12, scsi_report_opcodes, "\x1f\x83\xff\xff\xff\xff\xff\xff\xff\x00\x00" }, \
    { OP_MAINTENANCE_IN, SA_REPORT_TMF, SCF_ALWAYS, 12, scsi_report_tmf, "\x1f\x80\x00\x00\x00\xff\xff\xff\xff\x00\x00" }, \
    { OP_PREVENT_ALLOW, -1, SCF_ALTERS, 6, prevent_allow, "\x00\x00\x00\x01\x00" },                                                \
    { OP_READ_CAPACITY_10, -1, SCF_MEDIUM | SCF_SHARED, 10, scsi_read_capacity_10, "\x00\x00\x00\x00\x00\x00\x00\x00\x00" },           \
    { OP_READ_10, -1, SCF_MEDIUM | SCF_PROTECT, 10, co_scsi_read, USE_RW_10 }, { OP_READ_12, -1, SCF_MEDIUM | SCF_PROTECT, 12, co_scsi_read, USE_RW_12 },   \
    { OP_SEEK_10, -1, SCF_MEDIUM, 10, seek, "\x00\xff\xff\xff\xff\x00\x00\x00\x00" },                                     \
    { OP_SYNCHRONIZE_CACHE_10, -1, SCF_MEDIUM | SCF_ALTERS, 10, co_scsi_sync_cache, "\x02\xff\xff\xff\xff\x00\xff\xff\x00" },          \
    { OP_VERIFY_10, -1, SCF_MEDIUM | SCF_PROTECT, 10, co_scsi_verify, "\x16\xff\xff\xff\xff\x00\xff\xff\x00" }

#define USE_RW_10 "\x18\xff\xff\xff\xff\x00\xff\xff\x00"
#define USE_RW_12 "\x18\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00"
#define USE_RW_16 "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00"
#define USE_32(flags) "\x00\x00\x00\x00\x00\x00\x18\x00\x1f" flags "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
#define USE_REPORT_ZONES "\x1f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xbf\x00"
#define USE_ZONE_OP "\x1f\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x01\x00"
#define W (SCF_MEDIUM | SCF_WRITE)
#define SANITIZE(action) { OP_SANITIZE, action, W, 10, co_scsi_sanitize, "\x9f\x00\x00\x00\x00\x00\xff\xff\x00" }
#define RESERVE_IN(action) { OP_PERSISTENT_RESERVE_IN, action, SCF_SHARED | SCF_NEXUS, 10, scsi_pr_in, "\x1f\x00\x00\x00\x00\x00\xff\xff\x00" }
#define RESERVE_OUT(action) { OP_PERSISTENT_RESERVE_OUT, action, SCF_SHARED | SCF_NEXUS, 10, co_scsi_pr_out, "\x1f\xff\x00\x00\xff\xff\xff\xff\x00" }

const struct scsi_cmd scsi_hd_cmds[] = {
    PRIMARY_COMMANDS,
    { OP_READ_6, -1, SCF_MEDIUM, 6, co_scsi_read, "\x1f\xff\xff\xff\x00" },
    { OP_WRITE_6, -1, W, 6, co_scsi_write, "\x1f\xff\xff\xff\x00" },
    { OP_WRITE_10, -1, W | SCF_PROTECT, 10, co_scsi_write, USE_RW_10 },
    { OP_WRITE_12, -1, W | SCF_PROTECT, 12, co_scsi_write, USE_RW_12 },
    { OP_READ_16, -1, SCF_MEDIUM | SCF_PROTECT, 16, co_scsi_read, USE_RW_16 },
    { OP_WRITE_16, -1, W | SCF_PROTECT, 16, co_scsi_write, USE_RW_16 },
    { OP_WRITE_AND_VERIFY_10, -1, W | SCF_PROTECT, 10, co_scsi_write_verify, "\x12\xff\xff\xff\xff\x00\xff\xff\x00" },
    { OP_WRITE_AND_VERIFY_12, -1, W | SCF_PROTECT, 12, co_scsi_write_verify, "\x12\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    { OP_WRITE_AND_VERIFY_16, -1, W | SCF_PROTECT, 16, co_scsi_write_verify, "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    { OP_VERIFY_12, -1, SCF_MEDIUM | SCF_PROTECT, 12, co_scsi_verify, "\x16\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    { OP_VERIFY_16, -1, SCF_MEDIUM | SCF_PROTECT, 16, co_scsi_verify, "\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    { OP_PREFETCH_10, -1, SCF_MEDIUM, 10, scsi_prefetch, "\x02\xff\xff\xff\xff\x00\xff\xff\x00" },
    { OP_PREFETCH_16, -1, SCF_MEDIUM, 16, scsi_prefetch, "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    { OP_SYNCHRONIZE_CACHE_16, -1, SCF_MEDIUM | SCF_ALTERS, 16, co_scsi_sync_cache, "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    { OP_WRITE_SAME_10, -1, W | SCF_PROTECT, 10, co_scsi_write_same, "\x08\xff\xff\xff\xff\x00\xff\xff\x00" },
    { OP_WRITE_SAME_16, -1, W | SCF_PROTECT, 16, co_scsi_write_same, "\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    { OP_COMPARE_AND_WRITE, -1, W | SCF_RANDOM, 16, co_scsi_compare_and_write, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\xff\x00\x00" },
    { OP_FORMAT_UNIT, -1, W, 6, co_scsi_format_unit, "\x38\x00\x00\x00\x00" },
    { OP_REASSIGN_BLOCKS, -1, W | SCF_RANDOM | SCF_NEXUS, 6, co_scsi_reassign_blocks, "\x03\x00\x00\x00\x00" },
    { OP_READ_DEFECT_DATA_10, -1, SCF_MEDIUM | SCF_NEXUS, 10, scsi_read_defects, "\x00\x1f\x00\x00\x00\x00\xff\xff\x00" },
    { OP_READ_DEFECT_DATA_12, -1, SCF_MEDIUM | SCF_NEXUS, 12, scsi_read_defects, "\x1f\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    SANITIZE(SANITIZE_OVERWRITE), SANITIZE(SANITIZE_BLOCK_ERASE), SANITIZE(SANITIZE_EXIT_FAILURE),
    { OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, SCF_MEDIUM | SCF_SHARED, 16, scsi_read_capacity_16,
      "\x10\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00" },
    { OP_SERVICE_ACTION_IN_16, SA_GET_LBA_STATUS, SCF_MEDIUM | SCF_DISCARD, 16, co_scsi_get_lba_status,
      "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00" },
    RESERVE_IN(PR_READ_KEYS), RESERVE_IN(PR_READ_RESERVATION), RESERVE_IN(PR_REPORT_CAPABILITIES), RESERVE_IN(PR_READ_FULL_STATUS),
    RESERVE_OUT(PR_REGISTER), RESERVE_OUT(PR_RESERVE), RESERVE_OUT(PR_RELEASE), RESERVE_OUT(PR_CLEAR), RESERVE_OUT(PR_PREEMPT),
    RESERVE_OUT(PR_PREEMPT_AND_ABORT), RESERVE_OUT(PR_REGISTER_AND_IGNORE), RESERVE_OUT(PR_REGISTER_AND_MOVE),
    { OP_MAINTENANCE_IN, SA_PORT_GROUPS, SCF_ALWAYS | SCF_GROUPS, 12, scsi_report_port_groups, "\xff\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00" },
    { OP_MAINTENANCE_OUT, SA_PORT_GROUPS, SCF_ALTERS | SCF_GROUPS, 12, co_scsi_set_port_groups, "\x1f\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00" },
    { OP_MAINTENANCE_IN, SA_TIMESTAMP, SCF_SHARED | SCF_NEXUS, 12, scsi_report_timestamp, "\x1f\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00" },
    { OP_MAINTENANCE_OUT, SA_TIMESTAMP, SCF_ALTERS | SCF_NEXUS, 12, scsi_set_timestamp, "\x1f\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00" },
    { OP_VARIABLE_LENGTH, SA_READ_32, SCF_MEDIUM | SCF_PROTECTED, 32, co_scsi_read, USE_32("\xf8") },
    { OP_VARIABLE_LENGTH, SA_VERIFY_32, SCF_MEDIUM | SCF_PROTECTED, 32, co_scsi_verify, USE_32("\xf6") },
    { OP_VARIABLE_LENGTH, SA_WRITE_32, W | SCF_PROTECTED, 32, co_scsi_write, USE_32("\xf8") },
    { OP_VARIABLE_LENGTH, SA_WRITE_AND_VERIFY_32, W | SCF_PROTECTED, 32, co_scsi_write_verify, USE_32("\xf2") },
    { OP_VARIABLE_LENGTH, SA_WRITE_SAME_32, W | SCF_PROTECTED, 32, co_scsi_write_same, USE_32("\xe9") },
    { OP_ZBC_IN, SA_REPORT_ZONES, SCF_MEDIUM | SCF_ZONED, 16, co_scsi_report_zones, USE_REPORT_ZONES },
    { OP_ZBC_OUT, SA_CLOSE_ZONE, W | SCF_ZONED, 16, co_scsi_zone_op, USE_ZONE_OP },
    { OP_ZBC_OUT, SA_FINISH_ZONE, W | SCF_ZONED, 16, co_scsi_zone_op, USE_ZONE_OP },
    { OP_ZBC_OUT, SA_OPEN_ZONE, W | SCF_ZONED, 16, co_scsi_zone_op, USE_ZONE_OP },
    { OP_ZBC_OUT, SA_RESET_WP, W | SCF_ZONED, 16, co_scsi_zone_op, USE_ZONE_OP },
    { OP_UNMAP, -1, W | SCF_DISCARD, 10, co_scsi_unmap, "\x00\x00\x00\x00\x00\x00\xff\xff\x00" },
    { 0 }
};

const struct scsi_cmd scsi_cd_cmds[] = {
    PRIMARY_COMMANDS,
    /* The drive knows writes, its medium takes none: WRITE PROTECTED, before anything is done (SPC-5, annex F.2: 27h/00h). */
    { OP_WRITE_10, -1, W | SCF_PROTECT, 10, co_scsi_write, USE_RW_10 }, { OP_WRITE_12, -1, W | SCF_PROTECT, 12, co_scsi_write, USE_RW_12 },
    { OP_WRITE_AND_VERIFY_10, -1, W | SCF_PROTECT, 10, co_scsi_write_verify, "\x12\xff\xff\xff\xff\x00\xff\xff\x00" },
    { OP_READ_TOC, -1, SCF_MEDIUM, 10, scsi_read_toc, "\x02\x0f\x00\x00\x00\xff\xff\xff\xc0" },
    { OP_GET_CONFIGURATION, -1, SCF_NO_UA | SCF_ALWAYS, 10, scsi_get_configuration, "\x03\xff\xff\x00\x00\x00\xff\xff\x00" },
    { OP_GET_EVENT_STATUS, -1, SCF_NO_UA | SCF_ALWAYS, 10, scsi_get_event_status, "\x01\x00\x00\xff\x00\x00\xff\xff\x00" },
    { OP_READ_DISC_INFORMATION, -1, SCF_MEDIUM, 10, scsi_read_disc_information, "\x07\x00\x00\x00\x00\x00\xff\xff\x00" },
    { OP_READ_TRACK_INFORMATION, -1, SCF_MEDIUM, 10, scsi_read_track_information, "\x03\xff\xff\xff\xff\x00\xff\xff\x00" },
    { OP_READ_SUBCHANNEL, -1, SCF_MEDIUM, 10, scsi_read_subchannel, "\x02\x40\xff\x00\x00\xff\xff\xff\x00" },
    { OP_READ_CD, -1, SCF_MEDIUM, 12, co_scsi_read_cd, "\x1c\xff\xff\xff\xff\xff\xff\xff\xf8\x07\x00" },
    { OP_READ_CD_MSF, -1, SCF_MEDIUM, 12, co_scsi_read_cd, "\x1c\x00\xff\xff\xff\xff\xff\xff\xf8\x07\x00" },
    { OP_READ_DISC_STRUCTURE, -1, SCF_MEDIUM, 12, scsi_read_disc_structure, "\x0f\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00" },
    { OP_GET_PERFORMANCE, -1, SCF_MEDIUM, 12, scsi_get_performance, "\x1f\xff\xff\xff\xff\x00\x00\xff\xff\xff\x00" },
    { OP_SET_STREAMING, -1, SCF_MEDIUM, 12, scsi_set_streaming, "\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\x00" },
    { OP_MECHANISM_STATUS, -1, 0, 12, scsi_mechanism_status, "\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00" },
    { OP_SET_CD_SPEED, -1, 0, 12, scsi_set_cd_speed, "\x03\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00" },
    { 0 }
};
