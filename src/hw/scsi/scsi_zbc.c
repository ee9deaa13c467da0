/* SPDX-License-Identifier: MIT */
/* Zoned block commands (ZBC, 5): a host-managed disk, whose zones are those of the back end. */
#include <errno.h>
#include <stdlib.h>
#include "hw/scsi/scsi_disk.h"

#define AT_ONCE 512u                            /* zones that are asked for at a time */
#define DESCRIPTOR 64u

bool scsi_zones_fit(struct scsi_disk *d, struct err *e)
{
    const struct blk_zoned *z = &d->caps.zoned;

    if (!z->size)
        return true;
    if (z->cap != z->size)
        return err_set(e, ERR_VALUE, "'%s' has zones of which %llu of %llu bytes can be written, which SCSI cannot tell", d->opt.drive->id,
                       (unsigned long long)z->cap, (unsigned long long)z->size);
    if (z->max_active) {
        err_set(e, ERR_VALUE, "'%s' limits active zones (max-active=%u), which SCSI cannot tell", d->opt.drive->id, z->max_active);
        return err_hint(e, "max-open alone limits what SCSI counts");
    }
    d->s.type = SCSI_TYPE_ZONED;
    return true;
}

uint32_t scsi_zone_sense(const struct scsi_disk *d, int error)
{
    if (!d->caps.zoned.size)
        return 0;
    switch (error) {
    case -ETOOMANYREFS: case -EOVERFLOW: return SENSE_ZONE_RESOURCES;
    case -ESPIPE: return SENSE_UNALIGNED_WRITE;
    case -E2BIG: return SENSE_WRITE_BOUNDARY;
    case -EACCES: return SENSE_ZONE_READ_ONLY;
    case -EUNATCH: return SENSE_ZONE_OFFLINE;
    case -EXFULL: case -EDOM: return SENSE_INVALID_FIELD_CDB;
    default: return 0;
    }
}

/* ---- REPORT ZONES: 5.5 ---- */

static bool known_option(unsigned options) { return options <= 0x07 || options == 0x10 || options == 0x11 || options == 0x3f; }

/* Table 25. No zone asks to be reset (10h), none was written out of order (11h). */
static bool selects(unsigned options, uint8_t state)
{
    static const uint8_t of[] = { [0x01] = ZONE_EMPTY, [0x02] = ZONE_IOPEN, [0x03] = ZONE_EOPEN, [0x04] = ZONE_CLOSED, [0x05] = ZONE_FULL,
                                  [0x06] = ZONE_READ_ONLY, [0x07] = ZONE_OFFLINE };

    return !options || (options < sizeof of ? state == of[options] : options == 0x3f && state == ZONE_NOT_WP);
}

/* 5.5.2, table 28; numbers of conditions are those of enum ZONE_... */
static void descriptor(const struct scsi_disk *d, const struct blk_zone *z, uint8_t *p)
{
    uint64_t bs = scsi_disk_bs(d);

    p[0] = z->state == ZONE_NOT_WP ? 1 : 2;     /* conventional, sequential write required */
    p[1] = (uint8_t)(z->state << 4);
    st_be64(p + 8, d->caps.zoned.size / bs);
    st_be64(p + 16, z->start / bs);
    st_be64(p + 24, z->wp == UINT64_MAX ? UINT64_MAX : z->wp / bs);
}

struct report { struct scsi_disk *d; unsigned options; bool partial; uint8_t *buf; uint64_t room, n; };

/* All zones from @off on that are asked for: those that there is room for are in the buffer. False after scsi_fail(). */
static bool co_collect(struct scsi_req *r, struct report *o, uint64_t off)
{
    struct blk_zone *zone = xcalloc(AT_ONCE, sizeof *zone);
    unsigned got = AT_ONCE;
    bool ok = true;

    while (ok && got == AT_ONCE && !scsi_aborted(r)) {
        ok = scsi_disk_result(r, co_blk_zone_report(o->d->blk, off, zone, &got), true, off / scsi_disk_bs(o->d));
        for (unsigned i = 0; ok && i < got; i++) {
            if (!selects(o->options, zone[i].state) || (o->partial && o->n == o->room))
                continue;
            if (o->n < o->room)
                descriptor(o->d, &zone[i], o->buf + DESCRIPTOR * (1 + o->n));
            o->n++;
        }
        off += got * o->d->caps.zoned.size;
    }
    free(zone);
    return ok;
}

void co_scsi_report_zones(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t lba = scsi_cdb_lba(r->cdb), bs = scsi_disk_bs(d), zones = blk_size(d->blk) / d->caps.zoned.size;
    uint64_t bytes = MIN((uint64_t)scsi_cdb_len(r->cdb), r->in.len);
    struct report o = { d, r->cdb[14] & 0x3f, r->cdb[14] & 0x80, NULL, MIN(bytes / DESCRIPTOR, zones + 1), 0 };

    if (!known_option(o.options)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 14);
        return;
    }
    if (!scsi_disk_range(r, lba, 1))
        return;
    o.room -= o.room != 0;                      /* the header */
    o.buf = calloc(2 + o.room, DESCRIPTOR);
    if (!o.buf) {
        scsi_fail(r, SENSE_COMMAND_ABORTED);
        return;
    }
    if (co_collect(r, &o, lba * bs / d->caps.zoned.size * d->caps.zoned.size)) {
        st_be32(o.buf, (uint32_t)(o.n * DESCRIPTOR));
        o.buf[4] = d->caps.zoned.from ? 3 : 1;  /* SAME: lengths are equal; types, too */
        st_be64(o.buf + 8, scsi_disk_blocks(d) - 1);
        scsi_reply(r, o.buf, DESCRIPTOR * (1 + MIN(o.n, o.room)), bytes);
    }
    free(o.buf);
}

/* ---- OPEN, CLOSE, FINISH ZONE, RESET WRITE POINTER: 5.2 to 5.4, 5.6 ---- */

/* A zone that is no longer open is closed enough, one that is full need not be opened (4.4.3.4). */
static bool co_done_before(struct scsi_disk *d, uint64_t off)
{
    struct blk_zone z;
    unsigned n = 1;

    return !co_blk_zone_report(d->blk, off, &z, &n) && n == 1 && (z.state == ZONE_EMPTY || z.state == ZONE_FULL);
}

void co_scsi_zone_op(struct scsi_req *r)
{
    static const enum zone_op ops[] = { [SA_CLOSE_ZONE] = ZONE_OP_CLOSE, [SA_FINISH_ZONE] = ZONE_OP_FINISH, [SA_OPEN_ZONE] = ZONE_OP_OPEN,
                                        [SA_RESET_WP] = ZONE_OP_RESET };
    struct scsi_disk *d = disk_of(r);
    uint64_t lba = scsi_cdb_lba(r->cdb), off = lba * scsi_disk_bs(d);
    bool all = r->cdb[14] & 1;
    struct range_claim claim;
    int res;

    if (!all && !scsi_disk_range(r, lba, 1))
        return;
    if (!all && (off % d->caps.zoned.size || off < d->caps.zoned.from)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
        return;
    }
    if (all)
        co_scsi_claim_all(d, &claim);
    else
        co_scsi_claim(d, &claim, lba, d->caps.zoned.size / scsi_disk_bs(d), false);
    res = co_blk_zone_op(d->blk, ops[r->cdb[1] & 0x1f], all ? BLK_ALL_ZONES : off);
    if (res == -EDOM && !all && co_done_before(d, off))
        res = 0;
    scsi_release(d, &claim);
    scsi_disk_result(r, res, false, lba);
}

int co_scsi_zones_clear(struct scsi_disk *d)
{
    uint64_t from = d->caps.zoned.from;
    int res = from ? co_blk_zero(d->blk, 0, from, 0) : 0;

    res = res ? res : co_blk_zone_op(d->blk, ZONE_OP_RESET, BLK_ALL_ZONES);
    return res ? res : co_blk_flush(d->blk);
}
