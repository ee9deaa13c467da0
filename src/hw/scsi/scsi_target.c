/* SPDX-License-Identifier: MIT */
/* What a target answers for all of its logical units, and for those that it does not have (SPC-5, 6.6, 6.33, 6.35; SAM-5, 4.8). */
#include <stdlib.h>
#include "hw/scsi/scsi.h"

#define LUNS_MAX 256u                   /* in one list: what a target of this program can hold */

/* SAM-5, 4.7.7.1: single level, peripheral (below 256) or flat space addressing. */
static void put_lun(uint8_t *p, uint32_t lun)
{
    memset(p, 0, 8);
    if (lun < 256)
        p[1] = (uint8_t)lun;
    else
        st_be16(p, (uint16_t)(0x4000 | lun));
}

static void report_luns(struct scsi_req *r, const struct scsi_dev *of)
{
    uint32_t alloc = ld_be32(r->cdb + 6);
    uint8_t select = r->cdb[2], *buf = xcalloc(LUNS_MAX + 1, 8);
    struct scsi_dev *d;
    uint32_t n = 0;

    if (select > 2) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
        free(buf);
        return;
    }
    if (select != 1) {                          /* 01h: well known logical units only, of which there are none */
        list_for_each(d, &of->bus->devs, on_bus)
            if (d->channel == of->channel && d->id == of->id && n < LUNS_MAX)
                put_lun(buf + 8 * ++n, d->lun);
        if (!scsi_find(of->bus, of->channel, of->id, 0, false) && n < LUNS_MAX)
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

void scsi_run_absent(struct scsi_req *r, struct scsi_dev *sibling)
{
    uint8_t buf[SCSI_SENSE_MAX] = { 0 };

    switch (r->cdb[0]) {
    case OP_INQUIRY:
        if (r->cdb[1] & 1) {
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
            return;
        }
        buf[0] = SCSI_QUALIFIER_NONE | SCSI_TYPE_NONE;
        buf[2] = 7;
        buf[3] = 2;
        buf[4] = 31;
        scsi_reply(r, buf, 36, ld_be16(r->cdb + 3));
        return;
    case OP_REQUEST_SENSE:
        scsi_reply(r, buf, scsi_sense_build(buf, SENSE_LUN_NOT_SUPPORTED, r->cdb[1] & 1), r->cdb[4]);
        return;
    case OP_REPORT_LUNS:
        if (sibling) {
            report_luns(r, sibling);
            return;
        }
        break;
    }
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
