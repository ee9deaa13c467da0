/* SPDX-License-Identifier: MIT */
/* FORMAT UNIT (SBC-4, 5.4), the buffers that only test the way to them (SPC-5, 6.18, 6.50), what a target can be asked to do (6.36). */
#include "hw/scsi/scsi_disk.h"

enum { BUF_DATA = 0x02, BUF_DESCRIPTOR = 0x03, BUF_ECHO = 0x0a, BUF_ECHO_DESCRIPTOR = 0x0b };

/* ---- FORMAT UNIT: the blocks stay as long as they are, and all of them become zeroes ---- */

/* Table 41: FMTPINFO of the command block with PROTECTION FIELD USAGE of the list. False after scsi_fail(). */
static bool format_type(struct scsi_req *r, unsigned usage, unsigned *type)
{
    unsigned info = r->cdb[1] >> 6;

    if (info == 1 || (info && !disk_of(r)->protection)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return false;
    }
    if (usage > (info == 3 ? 1u : 0u)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, 0);
        return false;
    }
    *type = info == 3 ? 2 + usage : info == 2 ? 1 : 0;
    return true;
}

/* The parameter list (5.4.2): a short or long header, no defects. False after scsi_fail(). */
static bool format_list(struct scsi_req *r, bool *immed, unsigned *usage)
{
    bool is_long = r->cdb[1] & 0x20;
    unsigned head = is_long ? 8 : 4;
    uint8_t b[8] = { 0 };

    if (scsi_take(r, 0, b, head) != head) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return false;
    }
    *immed = b[1] & 0x02;
    *usage = b[0] & 0x07;
    if (b[1] & 0x08 || (is_long ? ld_be32(b + 4) || b[3] : ld_be16(b + 2))) {       /* a pattern, parts of blocks, defects */
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, b[1] & 0x08 ? 1 : is_long ? b[3] ? 3 : 4 : 2);
        return false;
    }
    return true;
}

void co_scsi_format_unit(struct scsi_req *r)
{
    bool immed = false;
    unsigned usage = 0, type = 0;

    if (r->cdb[1] & 0x07) {                             /* lists of defects of any format */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if ((!(r->cdb[1] & 0x10) || format_list(r, &immed, &usage)) && format_type(r, usage, &type))
        co_scsi_overwrite_all(r, SENSE_FORMAT_IN_PROGRESS, SENSE_FORMAT_FAILED, NULL, type, immed);
}

/* ---- buffers ---- */

static void descriptor(struct scsi_req *r)
{
    uint8_t b[4] = { 0 };

    st_be16(b + 2, SCSI_BUFFER);                        /* of a data buffer, the lower bytes of a capacity; offsets of any byte */
    scsi_reply(r, b, sizeof b, ld_be32(r->cdb + 5) & 0xffffff);
}

void scsi_read_buffer(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint32_t off = ld_be32(r->cdb + 2) & 0xffffff, len = ld_be32(r->cdb + 5) & 0xffffff;

    switch (r->cdb[1] & 0x1f) {
    case BUF_DATA:
        if (r->cdb[2] || !range_ok(off, 0, SCSI_BUFFER))
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, r->cdb[2] ? 2 : 3);
        else
            scsi_reply(r, d->buffer + off, SCSI_BUFFER - off, len);
        break;
    case BUF_ECHO:
        scsi_reply(r, d->buffer, MIN(d->echo_len, len), len);
        break;
    case BUF_DESCRIPTOR: case BUF_ECHO_DESCRIPTOR:
        descriptor(r);
        break;
    default:
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        break;
    }
}

void scsi_write_buffer(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint32_t off = ld_be32(r->cdb + 2) & 0xffffff, len = ld_be32(r->cdb + 5) & 0xffffff;
    uint8_t mode = r->cdb[1] & 0x1f;

    if (mode != BUF_DATA && mode != BUF_ECHO) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    off = mode == BUF_ECHO ? 0 : off;
    if ((mode == BUF_DATA && r->cdb[2]) || !range_ok(off, len, SCSI_BUFFER)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, mode == BUF_DATA && r->cdb[2] ? 2 : 6);
        return;
    }
    scsi_take(r, 0, d->buffer + off, len);
    if (mode == BUF_ECHO)
        d->echo_len = len;
}

/* ---- REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS ---- */

void scsi_report_tmf(struct scsi_req *r)
{
    static const uint8_t b[16] = { 0xdc /* abort task, abort and clear task set, unit reset, query task */, 0x03 /* query task set, nexus reset */, 0, 12 };

    scsi_reply(r, b, r->cdb[2] & 0x80 ? 16 : 4, ld_be32(r->cdb + 6));
}
