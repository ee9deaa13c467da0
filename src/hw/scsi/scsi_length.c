/* SPDX-License-Identifier: MIT */
/*
 * How much a command transfers, and which way, by its command block alone (SPC-5, SBC-4, MMC-6). Parallel adapters need it: their
 * targets take and give data before and after the command is executed.
 */
#include "hw/scsi/scsi_mmc.h"

enum kind { NONE, IN_BLOCKS, OUT_BLOCKS, OUT_TWICE, OUT_ONE, OUT_VERIFY, OUT_FORMAT, OUT_FIXED, IN_FIELD, OUT_FIELD, IN_FIXED, IN_CD, IN_SPEED };
struct row { uint8_t op, kind, at, bytes; };        /* where the length is, how many bytes it has; of IN_FIXED and OUT_FIXED the length */

static const struct row rows[] = {
    { OP_READ_6, IN_BLOCKS, 0, 0 }, { OP_READ_10, IN_BLOCKS, 0, 0 }, { OP_READ_12, IN_BLOCKS, 0, 0 }, { OP_READ_16, IN_BLOCKS, 0, 0 },
    { OP_WRITE_6, OUT_BLOCKS, 0, 0 }, { OP_WRITE_10, OUT_BLOCKS, 0, 0 }, { OP_WRITE_12, OUT_BLOCKS, 0, 0 }, { OP_WRITE_16, OUT_BLOCKS, 0, 0 },
    { OP_WRITE_AND_VERIFY_10, OUT_BLOCKS, 0, 0 }, { OP_WRITE_AND_VERIFY_12, OUT_BLOCKS, 0, 0 }, { OP_WRITE_AND_VERIFY_16, OUT_BLOCKS, 0, 0 },
    { OP_COMPARE_AND_WRITE, OUT_TWICE, 13, 1 }, { OP_WRITE_SAME_10, OUT_ONE, 0, 0 }, { OP_WRITE_SAME_16, OUT_ONE, 0, 0 },
    { OP_VERIFY_10, OUT_VERIFY, 0, 0 }, { OP_VERIFY_12, OUT_VERIFY, 0, 0 }, { OP_VERIFY_16, OUT_VERIFY, 0, 0 },
    { OP_INQUIRY, IN_FIELD, 3, 2 }, { OP_REQUEST_SENSE, IN_FIELD, 4, 1 }, { OP_MODE_SENSE_6, IN_FIELD, 4, 1 }, { OP_MODE_SENSE_10, IN_FIELD, 7, 2 },
    { OP_LOG_SENSE, IN_FIELD, 7, 2 }, { OP_SERVICE_ACTION_IN_16, IN_FIELD, 10, 4 }, { OP_ZBC_IN, IN_FIELD, 10, 4 }, { OP_REPORT_LUNS, IN_FIELD, 6, 4 },
    { OP_MAINTENANCE_IN, IN_FIELD, 6, 4 }, { OP_PERSISTENT_RESERVE_IN, IN_FIELD, 7, 2 }, { OP_READ_BUFFER, IN_FIELD, 6, 3 }, { OP_READ_TOC, IN_FIELD, 7, 2 },
    { OP_GET_CONFIGURATION, IN_FIELD, 7, 2 }, { OP_GET_EVENT_STATUS, IN_FIELD, 7, 2 }, { OP_READ_DISC_INFORMATION, IN_FIELD, 7, 2 },
    { OP_READ_TRACK_INFORMATION, IN_FIELD, 7, 2 }, { OP_MECHANISM_STATUS, IN_FIELD, 8, 2 }, { OP_READ_DISC_STRUCTURE, IN_FIELD, 8, 2 },
    { OP_READ_DEFECT_DATA_10, IN_FIELD, 7, 2 }, { OP_READ_DEFECT_DATA_12, IN_FIELD, 6, 4 },
    { OP_READ_CAPACITY_10, IN_FIXED, 0, 8 }, { OP_READ_CD, IN_CD, 0, 0 }, { OP_READ_CD_MSF, IN_CD, 0, 0 }, { OP_GET_PERFORMANCE, IN_SPEED, 8, 2 },
    { OP_SET_STREAMING, OUT_FIELD, 9, 2 },
    { OP_MODE_SELECT_6, OUT_FIELD, 4, 1 }, { OP_MODE_SELECT_10, OUT_FIELD, 7, 2 }, { OP_LOG_SELECT, OUT_FIELD, 7, 2 }, { OP_WRITE_BUFFER, OUT_FIELD, 6, 3 },
    { OP_PERSISTENT_RESERVE_OUT, OUT_FIELD, 5, 4 }, { OP_MAINTENANCE_OUT, OUT_FIELD, 6, 4 }, { OP_UNMAP, OUT_FIELD, 7, 2 },
    { OP_REASSIGN_BLOCKS, OUT_FIXED, 0, 4 }, { OP_SANITIZE, OUT_FIELD, 7, 2 }, { OP_SEND_DIAGNOSTIC, OUT_FIELD, 3, 2 }, { OP_FORMAT_UNIT, OUT_FORMAT, 0, 0 },
};

static uint64_t field(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static uint64_t length(const struct row *r, const uint8_t *cdb, uint32_t bs)
{
    switch (r->kind) {
    case IN_BLOCKS: case OUT_BLOCKS: return (uint64_t)scsi_cdb_blocks(cdb) * bs;
    case OUT_TWICE: return 2 * field(cdb + r->at, r->bytes) * bs;
    case OUT_ONE: return cdb[0] == OP_WRITE_SAME_16 && cdb[1] & 1 ? 0 : bs;       /* NDOB */
    case OUT_VERIFY:                                                                /* BYTCHK: 5.36 */
        return (cdb[1] >> 1 & 3) == 1 ? (uint64_t)scsi_cdb_blocks(cdb) * bs : (cdb[1] >> 1 & 3) == 3 ? bs : 0;
    case OUT_FORMAT: return !(cdb[1] & 0x10) ? 0 : cdb[1] & 0x20 ? 8 : 4;            /* FMTDATA, LONGLIST */
    case IN_FIELD: case OUT_FIELD: return field(cdb + r->at, r->bytes);
    case IN_CD: return scsi_read_cd_len(cdb);
    case IN_SPEED: return 8 + 16 * field(cdb + r->at, r->bytes);
    default: return r->bytes;
    }
}

/* SBC-4: commands of 32 bytes as those of 16 that do the same. */
static const uint8_t *as_16(const uint8_t *cdb, uint8_t own[16])
{
    static const uint8_t op[] = { [SA_READ_32] = OP_READ_16, [SA_VERIFY_32] = OP_VERIFY_16, [SA_WRITE_32] = OP_WRITE_16,
                                  [SA_WRITE_AND_VERIFY_32] = OP_WRITE_AND_VERIFY_16, [SA_WRITE_SAME_32] = OP_WRITE_SAME_16 };
    uint16_t action = scsi_cdb_action(cdb);

    if (cdb[0] != OP_VARIABLE_LENGTH || action >= sizeof op || !op[action])
        return cdb;
    memset(own, 0, 16);
    own[0] = op[action];
    own[1] = scsi_cdb_flags(cdb);
    st_be64(own + 2, scsi_cdb_lba(cdb));
    st_be32(own + 10, scsi_cdb_len(cdb));
    return own;
}

uint32_t scsi_transfer_len(const struct scsi_dev *d, const uint8_t *cdb, bool *to_device)
{
    uint8_t own[16];
    uint32_t bs = 512;
    uint64_t n = 0;

    cdb = as_16(cdb, own);

    *to_device = false;
    if (SCSI_DEV_CLASS(d)->capacity)
        SCSI_DEV_CLASS(d)->capacity(d, &bs);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *r = &rows[i];
        if (r->op != cdb[0])
            continue;
        if (cdb[0] >= 0x20 && cdb[1] >> 5)      /* blocks come with their protection information */
            bs += r->kind >= IN_BLOCKS && r->kind <= OUT_VERIFY ? 8 : 0;
        if (!(r->op == OP_UNMAP && d->type == SCSI_TYPE_ROM)) {     /* READ SUB-CHANNEL there */
            *to_device = r->kind >= OUT_BLOCKS && r->kind <= OUT_FIELD && r->kind != IN_FIELD;
            n = length(r, cdb, bs);
        } else {
            n = field(cdb + 7, 2);
        }
        break;
    }
    return (uint32_t)MIN(n, SCSI_TRANSFER_MAX);
}

uint32_t scsi_list_rest(const uint8_t *cdb, const uint8_t *head)
{
    uint32_t n = cdb[0] != OP_REASSIGN_BLOCKS ? 0 : cdb[1] & 1 ? ld_be32(head) : ld_be16(head + 2);    /* SBC-4, 5.25.2 */

    return n <= SCSI_LIST_MAX ? n : 0;
}
