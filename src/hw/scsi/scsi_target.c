/* SPDX-License-Identifier: MIT */
/* What a target answers for all of its logical units, and for those that it does not have (SPC-5, 6.6, 6.33, 6.35; SAM-5, 4.8). */
#include <stdlib.h>
#include "hw/scsi/scsi.h"

#define LUNS_MAX 256u                   /* in one list: what a target of this program can hold */

/* SAM-5, 4.7.7.1: single level, peripheral (below 256), flat space or extended addressing. */
static void put_lun(uint8_t *p, uint32_t lun)
{
    memset(p, 0, 8);
    if (lun < 256)
        p[1] = (uint8_t)lun;
    else
        st_be16(p, (uint16_t)(0x4000 | lun));
}

static bool has_well_known(const struct scsi_dev *of) { return of->bus->hba->well_known; }

static void report_luns(struct scsi_req *r, const struct scsi_dev *of)
{
    uint32_t alloc = ld_be32(r->cdb + 6);
    uint8_t select = r->cdb[2], *buf = xcalloc(LUNS_MAX + 2, 8);
    struct scsi_dev *d;
    uint32_t n = 0;

    if (select > 2) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
        free(buf);
        return;
    }
    if (select && has_well_known(of))           /* 6.33, table 281: 01h: well known units, 02h: these, too */
        put_lun(buf + 8 * ++n, SCSI_LUN_REPORT_LUNS);
    if (select != 1) {
        list_for_each(d, &of->bus->devs, on_bus)
            if (d->channel == of->channel && d->id == of->id && n <= LUNS_MAX)
                put_lun(buf + 8 * ++n, d->lun);
        if (!scsi_find(of->bus, of->channel, of->id, 0, false) && n <= LUNS_MAX)
            put_lun(buf + 8 * ++n, 0);          /* 6.33: LUN 0 answers this command, so it is in the list */
    }
    st_be32(buf, 8 * n);
    scsi_reply(r, buf, 8 * (n + 1), alloc);
    free(buf);
}

void scsi_report_luns(struct scsi_req *r)
{
    if (r->dev->bus)
        report_luns(r, r->dev);
    else
        scsi_fail(r, SENSE_LUN_NOT_SUPPORTED);
}

static void no_unit(struct scsi_req *r)
{
    uint8_t buf[36] = { SCSI_QUALIFIER_NONE | SCSI_TYPE_NONE, 0, 7, 2, sizeof buf - 5 };

    if (r->cdb[1] & 1)
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
    else
        scsi_reply(r, buf, sizeof buf, ld_be16(r->cdb + 3));
}

/* Of the well known unit (SPC-5, 9.1, 9.3), which has no name of its own. */
static void well_known_inquiry(struct scsi_req *r)
{
    static const uint8_t pages[] = { SCSI_TYPE_WELL_KNOWN, VPD_SUPPORTED, 0, 1, VPD_SUPPORTED };
    uint8_t buf[36] = { SCSI_TYPE_WELL_KNOWN, 0, 7, 0x12 /* HISUP, response data format 2 */, sizeof buf - 5 };

    memcpy(buf + 8, "QEMU    REPORT LUNS     2.5+", 28);
    if (r->cdb[2])
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
    else if (r->cdb[1] & 1)
        scsi_reply(r, pages, sizeof pages, ld_be16(r->cdb + 3));
    else
        scsi_reply(r, buf, sizeof buf, ld_be16(r->cdb + 3));
}

void scsi_run_absent(struct scsi_req *r, struct scsi_dev *sibling)
{
    bool well_known = sibling && r->lun == SCSI_LUN_REPORT_LUNS && has_well_known(sibling);
    uint8_t buf[SCSI_SENSE_MAX];

    switch (r->cdb[0]) {
    case OP_INQUIRY:
        if (well_known)
            well_known_inquiry(r);
        else
            no_unit(r);
        return;
    case OP_REQUEST_SENSE:
        scsi_reply(r, buf, scsi_sense_build(buf, well_known ? SENSE_NO_SENSE : SENSE_LUN_NOT_SUPPORTED, r->cdb[1] & 1), r->cdb[4]);
        return;
    case OP_REPORT_LUNS:
        if (sibling) {
            report_luns(r, sibling);
            return;
        }
        break;
    case OP_TEST_UNIT_READY:
        if (well_known)
            return;
        break;
    }
    if (well_known)
        scsi_fail_field(r, SENSE_INVALID_OPCODE, 0);
    else
        scsi_fail(r, SENSE_LUN_NOT_SUPPORTED);
}

/* ---- REPORT SUPPORTED OPERATION CODES: SPC-5, 6.35 ---- */

static void all_opcodes(struct scsi_req *r, bool timeouts, uint32_t alloc)
{
    const struct scsi_cmd *c = SCSI_DEV_CLASS(r->dev)->cmds;
    unsigned size = timeouts ? 20 : 8, n = 0, rows = 0;
    uint8_t *buf;

    while (c[rows].co_run)
        rows++;
    buf = xcalloc(1 + rows, size);
    for (; c->co_run; c++) {
        uint8_t *p = buf + 4 + n * size;
        if (!scsi_cmd_there(r->dev, c))
            continue;
        p[0] = c->op;
        if (c->sa >= 0)
            st_be16(p + 2, (uint16_t)c->sa);
        p[5] = (uint8_t)((c->sa >= 0 ? 1 : 0) | (timeouts ? 2 : 0));
        st_be16(p + 6, c->len);
        if (timeouts)
            st_be16(p + 8, 10);
        n++;
    }
    st_be32(buf, n * size);
    scsi_reply(r, buf, 4 + n * size, alloc);
    free(buf);
}

/* 6.35.3: the usage map of what this unit makes of the bits; operation code and service action stand for themselves. */
static void usage_of(const struct scsi_dev *d, const struct scsi_cmd *c, uint8_t *map)
{
    map[0] = c->op;
    memcpy(map + 1, c->usage, c->len - 1u);
    if (SCSI_DEV_CLASS(d)->usage)
        SCSI_DEV_CLASS(d)->usage(d, c, map);
    if (c->op == OP_VARIABLE_LENGTH)
        st_be16(map + 8, (uint16_t)c->sa);
    else if (c->sa >= 0)
        map[1] = (uint8_t)((map[1] & 0xe0) | c->sa);
}

/* @how: 1: an operation code without service actions, 2: one with, 3: either. */
static void one_opcode(struct scsi_req *r, uint8_t how, bool timeouts, uint32_t alloc)
{
    uint8_t buf[4 + SCSI_CDB_MAX + 12] = { 0 }, op = r->cdb[3];
    uint16_t action = ld_be16(r->cdb + 4);
    const struct scsi_cmd *c = scsi_cmd_find(r->dev, op, action), *any = scsi_cmd_any(r->dev, op);
    unsigned n = 4;

    if (any && ((how == 1 && any->sa >= 0) || (how == 2 && any->sa < 0))) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
        return;
    }
    if (how == 3 && action && c && c->sa < 0)   /* 6.35.2: it has no service actions */
        c = NULL;
    buf[1] = 1;                                 /* not supported */
    if (c) {
        buf[1] = (uint8_t)(3 | (timeouts ? 0x80 : 0));
        st_be16(buf + 2, c->len);
        usage_of(r->dev, c, buf + 4);
        n += c->len;
        if (timeouts) {
            st_be16(buf + n, 10);
            n += 12;
        }
    }
    scsi_reply(r, buf, n, alloc);
}

void scsi_report_opcodes(struct scsi_req *r)
{
    uint8_t how = r->cdb[2] & 7;
    bool timeouts = r->cdb[2] & 0x80;
    uint32_t alloc = ld_be32(r->cdb + 6);

    if (how == 0)
        all_opcodes(r, timeouts, alloc);
    else if (how <= 3)
        one_opcode(r, how, timeouts, alloc);
    else
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
}
