/* SPDX-License-Identifier: MIT */
/* What a CD-ROM drive tells of its disc (MMC-6, 6): one data track, from block 0 to the end of the image. */
#include "hw/scsi/scsi_mmc.h"

#define CD_MAX_BLOCKS (80 * 60 * MMC_FRAMES)           /* more is a DVD */
#define DVD_LAYER_BLOCKS 2295104u               /* of one layer; more is a DVD of two */
#define DVD_FIRST_PSN 0x030000u                 /* the physical number of block 0 */
#define LEAD_OUT 0xaa

bool scsi_disc_is_dvd(const struct scsi_disk *d) { return scsi_disk_blocks(d) > CD_MAX_BLOCKS; }

bool scsi_disc_is(struct scsi_req *r, bool dvd)
{
    if (scsi_disc_is_dvd(disk_of(r)) == dvd)
        return true;
    scsi_fail(r, SENSE_INCOMPATIBLE_MEDIUM);
    return false;
}

/* ---- READ TOC/PMA/ATIP: 6.25 ---- */

/* 4.2.3.2: an address as minutes, seconds, frames after the pregap of two seconds; or as a block. */
static void put_address(uint8_t *p, uint64_t lba, bool msf)
{
    if (msf) {
        lba += MMC_PREGAP;
        p[1] = (uint8_t)MIN(lba / (MMC_FRAMES * 60), 255u);
        p[2] = (uint8_t)(lba / MMC_FRAMES % 60);
        p[3] = (uint8_t)(lba % MMC_FRAMES);
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

/* ---- the disc and its track ---- */

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

/* 6.26: by an address, by the number of the track or of the session. */
void scsi_read_track_information(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[36] = { 0 }, by = r->cdb[1] & 3;
    uint32_t which = ld_be32(r->cdb + 2);

    if (by == 3 || (by ? which != 1 : which >= scsi_disk_blocks(d))) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, by == 3 ? 1 : 2);
        return;
    }
    st_be16(b, sizeof b - 2);
    b[2] = b[3] = 1;
    b[5] = 4;                                   /* data track */
    b[6] = 1;                                   /* mode 1 */
    st_be32(b + 24, (uint32_t)MIN(scsi_disk_blocks(d), (uint64_t)UINT32_MAX));
    scsi_reply(r, b, sizeof b, ld_be16(r->cdb + 7));
}

/* 6.27: no audio plays; there is no catalogue number and no recording code. */
void scsi_read_subchannel(struct scsi_req *r)
{
    enum { HEADER, POSITION, CATALOGUE, RECORDING, FORMATS };
    static const uint8_t sizes[FORMATS] = { 0, 12, 20, 20 };
    uint8_t b[24] = { 0, 0x15 /* no audio status */ }, format = r->cdb[2] & 0x40 ? r->cdb[3] : HEADER;

    if (!scsi_disc_is(r, false))
        return;
    if (format >= FORMATS || (r->cdb[2] & 0x40 && !format)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 3);
        return;
    }
    if (format == RECORDING && r->cdb[6] != 1) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 6);
        return;
    }
    b[3] = sizes[format];
    b[4] = format;
    if (format == POSITION || format == RECORDING) {
        b[5] = 0x14;
        b[6] = 1;
    }
    if (format == POSITION) {                   /* where the pick-up was at the start: block 0, from the disc's and the track's start */
        b[7] = 1;
        put_address(b + 8, 0, r->cdb[1] & 2);
    }
    scsi_reply(r, b, 4u + sizes[format], ld_be16(r->cdb + 7));
}

/* ---- READ DISC STRUCTURE: 6.22, of DVDs ---- */

#define DVD_STRUCTURE 2048u
static unsigned dvd_layers(const struct scsi_disk *d) { return scsi_disk_blocks(d) > DVD_LAYER_BLOCKS ? 2 : 1; }

/* 6.22.3.2.1: a pressed disc. The second layer is read from the outside: its numbers are the first one's, inverted. */
static unsigned dvd_physical(struct scsi_disk *d, uint8_t *p)
{
    uint32_t blocks = (uint32_t)MIN(scsi_disk_blocks(d), 0xffffffu - DVD_FIRST_PSN), first, end;

    p[0] = 0x01;                                /* DVD-ROM, version 1 */
    p[1] = 0x0f;                                /* 120 mm, no rate is asked for */
    p[2] = (uint8_t)((dvd_layers(d) - 1) << 5 | (dvd_layers(d) > 1 ? 0x10 : 0) | 1);     /* layers, opposite track path, embossed */
    first = dvd_layers(d) > 1 ? (blocks + 1) / 2 : blocks;
    end = DVD_FIRST_PSN + first - 1;
    st_be32(p + 4, DVD_FIRST_PSN);
    st_be32(p + 8, dvd_layers(d) > 1 ? (~end & 0xffffff) + (blocks - first) - 1 : end);
    st_be32(p + 12, dvd_layers(d) > 1 ? end : 0);
    return DVD_STRUCTURE;
}

static unsigned dvd_copyright(struct scsi_disk *d, uint8_t *p) { return 4; }            /* neither protected nor for a region only */
static unsigned dvd_manufacturing(struct scsi_disk *d, uint8_t *p) { return DVD_STRUCTURE; }
static unsigned dvd_list(struct scsi_disk *d, uint8_t *p);

struct structure { uint8_t format; bool of_layer; unsigned (*put)(struct scsi_disk *, uint8_t *); };
static const struct structure structures[] = {
    { 0x00, true, dvd_physical }, { 0x01, false, dvd_copyright }, { 0x04, true, dvd_manufacturing }, { 0xff, false, dvd_list },
};

/* 6.22.3.1.6: the formats that can be read, but not this one. */
static unsigned dvd_list(struct scsi_disk *d, uint8_t *p)
{
    uint8_t scratch[DVD_STRUCTURE];
    unsigned n = 0;

    for (unsigned i = 0; i + 1 < ARRAY_SIZE(structures); i++, n += 4) {
        p[n] = structures[i].format;
        p[n + 1] = 0x40;
        st_be16(p + n + 2, (uint16_t)(structures[i].put(d, scratch) + 4));
    }
    return n;
}

void scsi_read_disc_structure(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[4 + DVD_STRUCTURE] = { 0 };
    unsigned n, wrong = r->cdb[1] & 0xf ? 1 : 7;        /* DVDs only; then: no such format */

    if (!scsi_disc_is(r, true))
        return;
    for (unsigned i = 0; wrong == 7 && i < ARRAY_SIZE(structures); i++) {
        const struct structure *s = &structures[i];
        if (s->format != r->cdb[7])
            continue;
        if (s->of_layer && r->cdb[6] >= dvd_layers(d)) {
            wrong = 6;
            break;
        }
        n = s->put(d, b + 4);
        st_be16(b, (uint16_t)(n + 2));
        scsi_reply(r, b, n + 4, ld_be16(r->cdb + 8));
        return;
    }
    scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, wrong);
}
