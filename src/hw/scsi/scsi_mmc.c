/* SPDX-License-Identifier: MIT */
/* What is a CD-ROM drive's own (MMC-6, 6): one data track, from block 0 to the end of the image. */
#include "hw/scsi/scsi_disk.h"

#define CD_MAX_BLOCKS (80u * 60 * 75)           /* more is a DVD */
enum { PROFILE_NONE = 0x0000, PROFILE_CD_ROM = 0x0008, PROFILE_DVD_ROM = 0x0010 };
#define LEAD_OUT 0xaa

static bool is_dvd(const struct scsi_disk *d) { return scsi_disk_blocks(d) > CD_MAX_BLOCKS; }

/* ---- READ TOC/PMA/ATIP: 6.25 ---- */

/* 4.2.3.2: an address as minutes, seconds, frames after the pregap of two seconds; or as a block. */
static void put_address(uint8_t *p, uint64_t lba, bool msf)
{
    if (msf) {
        lba += 150;
        p[1] = (uint8_t)MIN(lba / (75 * 60), 255u);
        p[2] = (uint8_t)(lba / 75 % 60);
        p[3] = (uint8_t)(lba % 75);
    } else {
        st_be32(p, (uint32_t)MIN(lba, (uint64_t)UINT32_MAX));
    }
}

static void put_track(uint8_t *p, uint8_t nr, uint64_t lba, bool msf)
{
    p[1] = 0x14;                                /* ADR 1, a data track */
    p[2] = nr;
    put_address(p + 4, lba, msf);
}

static unsigned toc_tracks(struct scsi_disk *d, uint8_t *b, uint8_t first, bool msf)
{
    unsigned n = 4;

    b[2] = b[3] = 1;
    if (first <= 1) {
        put_track(b + n, 1, 0, msf);
        n += 8;
    }
    put_track(b + n, LEAD_OUT, scsi_disk_blocks(d), msf);
    return n + 8;
}

static unsigned toc_session(struct scsi_disk *d, uint8_t *b, bool msf)
{
    b[2] = b[3] = 1;
    put_track(b + 4, 1, 0, msf);
    return 12;
}

/* Format 2, the raw TOC: 6.25.3.4 */
static unsigned toc_raw(struct scsi_disk *d, uint8_t *b)
{
    static const uint8_t points[] = { 0xa0, 0xa1, 0xa2, 1 };
    unsigned n = 4;

    b[2] = b[3] = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(points); i++, n += 11) {
        uint8_t at[4] = { 0 };
        b[n] = 1;
        b[n + 1] = 0x14;
        b[n + 3] = points[i];
        if (points[i] == 0xa0 || points[i] == 0xa1) {
            b[n + 8] = 1;                       /* first and last track */
            continue;
        }
        put_address(at, points[i] == 1 ? 0 : scsi_disk_blocks(d), true);
        memcpy(b + n + 8, at + 1, 3);
    }
    return n;
}

void scsi_read_toc(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[64] = { 0 }, format = r->cdb[2] & 0xf, first = r->cdb[6];
    bool msf = r->cdb[1] & 2;
    unsigned n;

    if (!format)
        format = r->cdb[9] >> 6;                /* where drivers of old standards put it */
    if (format == 0 && first > 1 && first != LEAD_OUT) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 6);
        return;
    }
    switch (format) {
    case 0: n = toc_tracks(d, b, first, msf); break;
    case 1: n = toc_session(d, b, msf); break;
    case 2: n = toc_raw(d, b); break;
    default: scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2); return;
    }
    st_be16(b, (uint16_t)(n - 2));
    scsi_reply(r, b, n, ld_be16(r->cdb + 7));
}

/* ---- GET CONFIGURATION: 6.6; features: 5 ---- */

struct feature { uint16_t code; uint8_t flags, len; uint8_t data[8]; };         /* flags: version, persistent, current */
static const struct feature features[] = {
    { 0x0000, 0x03, 8, { 0x00, 0x10, 0, 0, 0x00, 0x08, 0, 0 } },       /* profile list: DVD-ROM, CD-ROM; bit 0 of [2], [6]: current */
    { 0x0001, 0x0b, 8, { 0, 0, 0, 1, 1 } },                             /* core: SCSI family, DBE */
    { 0x0002, 0x07, 4, { 0x02 } },                                      /* morphing: operational change events */
    { 0x0003, 0x0b, 4, { 0x29 } },                                      /* removable medium: tray, eject, lock */
    { 0x0010, 0x01, 8, { 0, 0, 8, 0, 0, 1 } },                          /* random readable: 2048 bytes, one block */
    { 0x001e, 0x08, 4, { 0 } },                                         /* CD read */
    { 0x001f, 0x00, 0, { 0 } },                                         /* DVD read */
    { 0x0100, 0x03, 0, { 0 } },                                         /* power management */
    { 0x0105, 0x07, 4, { 0 } },                                         /* timeout */
};

static unsigned put_feature(struct scsi_disk *d, const struct feature *f, bool medium, uint8_t *p)
{
    bool dvd = medium && is_dvd(d), cd = medium && !dvd;
    uint8_t flags = f->flags;

    if ((f->code == 0x1e && cd) || (f->code == 0x1f && dvd))
        flags |= 1;
    if (f->code == 0x10 && !medium)
        flags &= (uint8_t)~1;
    st_be16(p, f->code);
    p[2] = flags;
    p[3] = f->len;
    memcpy(p + 4, f->data, f->len);
    if (f->code == 0) {
        p[6] = dvd;
        p[10] = cd;
    }
    return 4u + f->len;
}

void scsi_get_configuration(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    bool medium = scsi_disk_has_medium(d);
    uint8_t b[256] = { 0 }, rt = r->cdb[1] & 3;
    uint16_t start = ld_be16(r->cdb + 2);
    unsigned n = 8;

    if (rt == 3) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        unsigned k;
        if (features[i].code < start || (rt == 2 && features[i].code != start))
            continue;
        k = put_feature(d, &features[i], medium, b + n);
        if (rt == 1 && !(b[n + 2] & 1)) {       /* current ones only */
            memset(b + n, 0, k);
            continue;
        }
        n += k;
    }
    st_be32(b, n - 4);
    st_be16(b + 6, !medium ? PROFILE_NONE : is_dvd(d) ? PROFILE_DVD_ROM : PROFILE_CD_ROM);
    scsi_reply(r, b, n, ld_be16(r->cdb + 7));
}

/* ---- events, state, speed ---- */

/* 6.7: polled; the media class and operational change are there. */
void scsi_get_event_status(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[8] = { 0, 0, 0x80, 0x10 };        /* NEA: no event is available; supported: media */
    unsigned n = 4;

    if (!(r->cdb[1] & 1)) {                     /* asynchronous */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (r->cdb[4] & 0x10) {
        b[2] = 4;
        b[4] = d->media_event;
        b[5] = (uint8_t)((scsi_disk_has_medium(d) ? 2 : 0) | (d->tray_open ? 1 : 0));
        n = 8;
        if (ld_be16(r->cdb + 7) > 4)
            d->media_event = 0;
    }
    st_be16(b, (uint16_t)(n - 2));
    scsi_reply(r, b, n, ld_be16(r->cdb + 7));
}

/* 6.21: a finished disc of one session. */
void scsi_read_disc_information(struct scsi_req *r)
{
    uint8_t b[34] = { 0 };

    if (r->cdb[1] & 7) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    st_be16(b, sizeof b - 2);
    b[2] = 0x0e;
    b[3] = b[4] = b[5] = b[6] = 1;
    b[7] = 0x20;                                /* unrestricted use */
    memset(b + 16, 0xff, 8);                    /* no lead-in, no lead-out to write */
    scsi_reply(r, b, sizeof b, ld_be16(r->cdb + 7));
}

/* 6.26 */
void scsi_read_track_information(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[36] = { 0 };
    uint32_t which = ld_be32(r->cdb + 2);

    if ((r->cdb[1] & 3) == 1 ? which != 1 : which >= scsi_disk_blocks(d)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
        return;
    }
    st_be16(b, sizeof b - 2);
    b[2] = b[3] = 1;
    b[5] = 4;                                   /* data track */
    b[6] = 1;                                   /* mode 1 */
    st_be32(b + 24, (uint32_t)MIN(scsi_disk_blocks(d), (uint64_t)UINT32_MAX));
    scsi_reply(r, b, sizeof b, ld_be16(r->cdb + 7));
}

/* 6.12 */
void scsi_mechanism_status(struct scsi_req *r)
{
    uint8_t b[8] = { 0, (uint8_t)(disk_of(r)->tray_open ? 0x10 : 0) };

    scsi_reply(r, b, sizeof b, ld_be16(r->cdb + 8));
}

/* 6.39: there is one speed, and drivers may ask for any. */
void scsi_set_cd_speed(struct scsi_req *r)
{
}
