/* SPDX-License-Identifier: MIT */
/*
 * READ CD and READ CD MSF (MMC-6, 6.19, 6.20): sectors of a CD as they are on it. The image has the user data of mode 1; the rest is
 * made: synchronisation, header, error detection and correction codes (ECMA-130, 14, annex A).
 */
#include <stdlib.h>
#include "hw/scsi/scsi_mmc.h"

#define USER 2048u
#define STEP 8u                                 /* sectors at a time */
enum { AT_SYNC = 0, AT_HEADER = 12, AT_USER = 16, AT_EDC = 2064, AT_P = 2076, AT_Q = 2248, SECTOR = 2352, SUB_Q = 16 };
enum { MAIN_SYNC = 0x80, MAIN_HEADER = 0x20, MAIN_SUBHEADER = 0x40, MAIN_USER = 0x10, MAIN_EDC = 0x08, MAIN_C2 = 0x06 };
enum { SUB_NONE = 0, SUB_FORMATTED_Q = 2 };
enum { TYPE_ANY = 0, TYPE_MODE_1 = 2 };

/* ---- what of a sector is asked for: tables 351 and 352 ---- */

/* The parts of a sector, in their order; there is no subheader in mode 1. */
static const struct part { uint8_t bit; uint16_t at, len; } parts[] = {
    { MAIN_SYNC, AT_SYNC, AT_HEADER - AT_SYNC }, { MAIN_HEADER, AT_HEADER, AT_USER - AT_HEADER }, { MAIN_USER, AT_USER, USER },
    { MAIN_EDC, AT_EDC, SECTOR - AT_EDC },
};

struct piece { unsigned at, len; bool sub_q; };

/* False: the parts are not next to each other, or not of these sectors; *@wrong: the byte of the command block. */
static bool parse_piece(const uint8_t *cdb, struct piece *p, unsigned *wrong)
{
    *p = (struct piece){ .sub_q = cdb[10] == SUB_FORMATTED_Q };
    *wrong = (cdb[10] & 7) != SUB_NONE && (cdb[10] & 7) != SUB_FORMATTED_Q ? 10 : 9;
    if (*wrong == 10 || cdb[9] & MAIN_C2)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        if (!(cdb[9] & parts[i].bit))
            continue;
        if (p->len && p->at + p->len != parts[i].at)
            return false;
        p->at = p->len ? p->at : parts[i].at;
        p->len += parts[i].len;
    }
    return p->at != AT_EDC;                     /* codes come with what they protect */
}

static unsigned piece_size(const struct piece *p) { return p->len + (p->sub_q ? SUB_Q : 0); }

static uint64_t from_msf(const uint8_t *p) { return (p[0] * 60u + p[1]) * MMC_FRAMES + p[2] - (uint64_t)MMC_PREGAP; }

/* The sectors of a command; false: its addresses are none. */
static bool parse_range(const uint8_t *cdb, uint64_t *first, uint64_t *n)
{
    if (cdb[0] == OP_READ_CD) {
        *first = ld_be32(cdb + 2);
        *n = (uint64_t)cdb[6] << 16 | ld_be16(cdb + 7);
        return true;
    }
    *first = from_msf(cdb + 3);
    *n = from_msf(cdb + 6) - *first;            /* the end is not read */
    if (*n <= UINT32_MAX && cdb[4] < 60 && cdb[7] < 60 && cdb[5] < MMC_FRAMES && cdb[8] < MMC_FRAMES)
        return true;
    *n = 0;
    return false;
}

uint64_t scsi_read_cd_len(const uint8_t *cdb)
{
    uint64_t first, n;
    struct piece p;
    unsigned wrong;

    return parse_range(cdb, &first, &n) && parse_piece(cdb, &p, &wrong) ? n * piece_size(&p) : 0;
}

/* ---- the making of a sector ---- */

static uint8_t bcd(uint64_t v) { return (uint8_t)(v / 10 << 4 | v % 10); }

static void put_msf(uint8_t *p, uint64_t frames)
{
    p[0] = bcd(frames / (MMC_FRAMES * 60));
    p[1] = bcd(frames / MMC_FRAMES % 60);
    p[2] = bcd(frames % MMC_FRAMES);
}

/* ECMA-130, 14.3: (x^16 + x^15 + x^2 + 1)(x^16 + x^2 + x + 1), the least significant bit first. */
static uint32_t edc(const uint8_t *p, unsigned n)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < n; i++) {
        v ^= p[i];
        for (unsigned k = 0; k < 8; k++)
            v = v >> 1 ^ (v & 1 ? 0xd8018001u : 0);
    }
    return v;
}

/* Annex A: GF(2^8) of x^8 + x^4 + x^3 + x^2 + 1. */
static uint8_t times_x(uint8_t v) { return (uint8_t)(v << 1 ^ (v & 0x80 ? 0x1d : 0)); }

/* v / (x + 1): the inverse of v -> v * x + v, which is found bit by bit from the lowest. */
static uint8_t by_x_plus_1(uint8_t v)
{
    static const uint8_t inverse = 0xf4;        /* of x + 1 */
    uint8_t r = 0;

    for (unsigned i = 8; i-- > 0;)
        r = (uint8_t)(times_x(r) ^ (v >> i & 1 ? inverse : 0));
    return r;
}

/*
 * Two bytes of parity for each of @n vectors of @len bytes: vector v begins at byte (v / 2) * @first + v % 2 of the protected ones, goes on
 * by @step bytes and comes back at their end. With its parity, its sum is 0, and so is its sum weighted by powers of x.
 */
static void put_parity(const uint8_t *data, unsigned n, unsigned len, unsigned first, unsigned step, uint8_t *parity)
{
    unsigned size = n * len;

    for (unsigned v = 0; v < n; v++) {
        unsigned at = (v >> 1) * first + (v & 1);
        uint8_t weighted = 0, sum = 0;
        for (unsigned i = 0; i < len; i++, at = (at + step) % size) {
            weighted = times_x((uint8_t)(weighted ^ data[at]));
            sum ^= data[at];
        }
        parity[v] = by_x_plus_1((uint8_t)(times_x(weighted) ^ sum));
        parity[v + n] = (uint8_t)(parity[v] ^ sum);
    }
}

/* @s has its user data; @codes: the rest of it is wanted, too. */
static void make_sector(uint8_t s[SECTOR], uint64_t lba, bool codes)
{
    memset(s, 0xff, AT_HEADER);
    s[0] = s[11] = 0;
    put_msf(s + AT_HEADER, lba + MMC_PREGAP);
    s[AT_HEADER + 3] = 1;                       /* mode 1 */
    if (!codes)
        return;
    st_le32(s + AT_EDC, edc(s, AT_EDC));
    memset(s + AT_EDC + 4, 0, 8);
    put_parity(s + AT_HEADER, 86, 24, 2, 86, s + AT_P);
    put_parity(s + AT_HEADER, 52, 43, 86, 88, s + AT_Q);
}

/* Formatted Q, table 354: a data track, its index 1, addresses from its start and from the disc's. */
static void put_sub_q(uint8_t *p, uint64_t lba)
{
    memset(p, 0, SUB_Q);
    p[0] = 0x41;
    p[1] = p[2] = 1;
    put_msf(p + 3, lba);
    put_msf(p + 7, lba + MMC_PREGAP);
}

/* ---- the commands ---- */

struct work { uint8_t data[STEP][SECTOR], out[STEP * (SECTOR + SUB_Q)]; };

/* @n sectors from @lba on, to @off of the initiator's buffer; false: the request has failed. */
static bool co_step(struct scsi_req *r, struct work *w, const struct piece *p, uint64_t lba, unsigned n, uint64_t off)
{
    struct scsi_disk *d = disk_of(r);
    struct iovec iov[STEP];
    uint8_t *out = w->out;

    for (unsigned i = 0; i < n; i++)
        iov[i] = (struct iovec){ w->data[i] + AT_USER, USER };
    if (!scsi_disk_result(r, co_blk_preadv(d->blk, lba * USER, n * USER, iov, n, 0), true, lba))
        return false;
    for (unsigned i = 0; i < n; i++) {
        make_sector(w->data[i], lba + i, p->at + p->len > AT_EDC);
        memcpy(out, w->data[i] + p->at, p->len);
        out += p->len;
        if (p->sub_q) {
            put_sub_q(out, lba + i);
            out += SUB_Q;
        }
    }
    r->done = off + vec_from_buf(r->in.v, r->in.off + off, w->out, (size_t)(out - w->out));
    return !scsi_aborted(r);
}

static void co_read_cd(struct scsi_req *r, const struct piece *p, uint64_t lba, uint64_t n)
{
    struct work *w = malloc(sizeof *w);
    unsigned size = piece_size(p), step;
    bool ok = w != NULL;

    if (!w)
        scsi_fail(r, SENSE_COMMAND_ABORTED);
    for (uint64_t i = 0; ok && i < n; i += step) {
        step = (unsigned)MIN(n - i, (uint64_t)STEP);
        ok = co_step(r, w, p, lba + i, step, i * size);
    }
    scsi_count(disk_of(r), SCSI_COUNT_READ, n * USER, !ok);
    free(w);
}

void co_scsi_read_cd(struct scsi_req *r)
{
    uint8_t type = r->cdb[1] >> 2 & 7;
    uint64_t lba, n;
    struct piece p;
    unsigned wrong;

    if (!scsi_disc_is(r, false))
        return;
    if (!parse_range(r->cdb, &lba, &n)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 3);
        return;
    }
    if (type != TYPE_ANY && type != TYPE_MODE_1) {
        scsi_fail(r, SENSE_INVALID_TRACK_MODE);
        return;
    }
    if (!parse_piece(r->cdb, &p, &wrong) || n * piece_size(&p) > SCSI_TRANSFER_MAX) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, wrong);
        return;
    }
    if (!scsi_disk_range(r, lba, n) || !n || !piece_size(&p))
        return;
    if (r->in.len < n * piece_size(&p))
        r->host = SCSI_HOST_OVERRUN;
    else
        co_read_cd(r, &p, lba, n);
}
