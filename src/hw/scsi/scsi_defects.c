/* SPDX-License-Identifier: MIT */
/*
 * Places of the medium that are used no more (SBC-4, 4.13): REASSIGN BLOCKS (5.25) gives blocks new ones, READ DEFECT DATA (5.19, 5.20)
 * tells the old ones. A unit comes with no defects (PLIST); what was reassigned (GLIST) is kept while a way to it is there.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/log.h"
#include "hw/scsi/scsi_lu_int.h"

enum { FORMAT_SHORT = 0, FORMAT_LONG = 3, FORMAT_INDEX = 4, FORMAT_SECTOR = 5 };        /* table 46: of address descriptors */

static const struct state_field defects_fields[] = {
    STATE_UINT(struct scsi_defects, n, .max = SCSI_DEFECTS), STATE_UINT(struct scsi_defects, generation), STATE_ARRAY(struct scsi_defects, lba), STATE_END
};
const struct state_desc scsi_defects_state = { .name = "scsi-defects", .version = 1, .fields = defects_fields };

static struct scsi_defects known(const struct scsi_disk *d)
{
    struct scsi_lu *lu = d->path.lu;
    struct scsi_defects g;

    pthread_mutex_lock(&lu->lock);
    g = lu->defects;
    pthread_mutex_unlock(&lu->lock);
    return g;
}

/* In ascending order, each once. False: there is no room. */
static bool add(struct scsi_defects *g, uint64_t lba)
{
    uint32_t i = 0;

    while (i < g->n && g->lba[i] < lba)
        i++;
    if (i < g->n && g->lba[i] == lba)
        return true;
    if (g->n == SCSI_DEFECTS)
        return false;
    memmove(g->lba + i + 1, g->lba + i, (g->n++ - i) * sizeof g->lba[0]);
    g->lba[i] = lba;
    g->generation = g->generation == UINT16_MAX ? 1 : (uint16_t)(g->generation + 1);    /* 5.20: 0 is none */
    return true;
}

/* ---- READ DEFECT DATA ---- */

/* Physical formats are of the geometry that mode pages tell. 0: the descriptor cannot say where @lba is. */
static unsigned put_address(const struct scsi_disk *d, unsigned format, uint64_t lba, uint8_t *p)
{
    uint32_t heads, sectors, sector = scsi_disk_geometry(d, &heads, &sectors) ? (uint32_t)(lba % sectors) : 0;

    switch (format) {
    case FORMAT_SHORT:
        st_be32(p, (uint32_t)lba);
        return lba <= UINT32_MAX ? 4 : 0;
    case FORMAT_LONG:
        st_be64(p, lba);
        return 8;
    case FORMAT_INDEX: case FORMAT_SECTOR:
        st_be32(p, (uint32_t)(lba / sectors / heads) << 8 | (uint32_t)(lba / sectors % heads));
        st_be32(p + 4, format == FORMAT_INDEX ? sector * scsi_disk_bs(d) : sector);
        return lba / sectors / heads <= 0xffffff ? 8 : 0;
    }
    return 0;
}

static bool can_tell(const struct scsi_disk *d, unsigned format)
{
    uint32_t heads, sectors;

    return format == FORMAT_SHORT || format == FORMAT_LONG || ((format == FORMAT_INDEX || format == FORMAT_SECTOR) && scsi_disk_geometry(d, &heads, &sectors));
}

/* All of @g from its @first on; UINT32_MAX: the format does not do. */
static uint32_t put_list(const struct scsi_disk *d, const struct scsi_defects *g, unsigned format, uint32_t first, uint8_t *p)
{
    uint32_t len = 0;

    if (!can_tell(d, format))
        return UINT32_MAX;
    for (uint32_t i = 0; i < g->n; i++) {
        unsigned n = put_address(d, format, g->lba[i], p + len);
        if (!n)
            return UINT32_MAX;
        len += i < first ? 0 : n;
    }
    return len;
}

void scsi_read_defects(struct scsi_req *r)
{
    const struct scsi_disk *d = disk_of(r);
    bool twelve = r->cdb[0] == OP_READ_DEFECT_DATA_12;
    uint8_t asked = r->cdb[twelve ? 1 : 2], format = asked & 7, b[8 + SCSI_LIST_MAX] = { 0 };
    uint32_t first = twelve ? ld_be32(r->cdb + 2) : 0, head = twelve ? 8 : 4, n;
    struct scsi_defects g = known(d);

    if (!(asked & 0x08))                        /* REQ_GLIST; the other list is empty */
        g.n = 0;
    n = put_list(d, &g, format, first, b + head);
    if (n == UINT32_MAX) {
        format = FORMAT_LONG;
        n = put_list(d, &g, format, first, b + head);
    }
    b[1] = (asked & 0x18) | format;             /* PLISTV, GLISTV */
    if (twelve) {
        st_be16(b + 2, g.generation);
        st_be32(b + 4, n);
    } else {
        st_be16(b + 2, (uint16_t)n);
    }
    scsi_reply(r, b, head + n, twelve ? ld_be32(r->cdb + 6) : ld_be16(r->cdb + 7));
    if (format != (asked & 7))                  /* 5.19: it is told in the default format, and that it is */
        scsi_fail(r, SENSE_DEFECT_LIST_NOT_FOUND);
}

/* ---- REASSIGN BLOCKS ---- */

/* 5.25: the first block that was not reassigned, as COMMAND-SPECIFIC INFORMATION (SPC-5, 4.4.2.3) of a request that has failed. */
static void tell_where(struct scsi_req *r, uint64_t lba)
{
    if (r->status != SCSI_CHECK_CONDITION)
        return;
    if (r->sense[0] == 0x72) {
        uint8_t *p = r->sense + 8 + r->sense[7];
        p[0] = 1;
        p[1] = 10;
        st_be64(p + 4, lba);
        r->sense[7] += 12;
        r->sense_len += 12;
    } else {
        st_be32(r->sense + 8, (uint32_t)MIN(lba, (uint64_t)UINT32_MAX));
    }
}

/* The block's data to another place: by writing it, the host's disk finds one. What cannot be read is zeroes. 0 or -errno */
static int co_renew(struct scsi_disk *d, uint64_t lba)
{
    uint32_t bs = scsi_disk_bs(d);
    struct range_claim claim;
    struct iovec v;
    void *buf;
    bool lost;
    int res;

    if (posix_memalign(&buf, 4096, bs))
        return -ENOMEM;
    v = (struct iovec){ buf, bs };
    co_scsi_claim(d, &claim, lba, 1, true);
    res = co_blk_preadv(d->blk, lba * bs, bs, &v, 1, 0);
    lost = res == -EIO;
    if (lost) {
        memset(buf, 0, bs);
        res = co_scsi_pi_forget(d, lba, 1);
    }
    res = res ? res : co_blk_pwritev(d->blk, lba * bs, bs, &v, 1, BLK_FUA);
    if (lost && !res)
        log_warn("%s: block %llu could not be read; it is zeroes from now on", d->s.dev.obj.id, (unsigned long long)lba);
    scsi_release(d, &claim);
    free(buf);
    return res;
}

static void co_reassign(struct scsi_req *r, uint64_t lba)
{
    struct scsi_disk *d = disk_of(r);
    struct scsi_lu *lu = d->path.lu;
    struct scsi_defects g = known(d);
    bool kept;

    if (!add(&g, lba)) {
        scsi_fail(r, SENSE_NO_SPARE_LOCATION);
        return;
    }
    if (!scsi_disk_result(r, co_renew(d, lba), false, lba))
        return;
    pthread_mutex_lock(&lu->lock);
    kept = add(&lu->defects, lba);              /* others may have come meanwhile */
    pthread_mutex_unlock(&lu->lock);
    if (!kept)
        scsi_fail(r, SENSE_NO_SPARE_LOCATION);
}

void co_scsi_reassign_blocks(struct scsi_req *r)
{
    unsigned each = r->cdb[1] & 2 ? 8 : 4;      /* LONGLBA */
    uint8_t b[4 + SCSI_LIST_MAX];
    uint32_t n = (uint32_t)scsi_take(r, 0, b, sizeof b), len;

    if (n < 4) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    len = r->cdb[1] & 1 ? ld_be32(b) : ld_be16(b + 2);          /* LONGLIST */
    if (len > SCSI_LIST_MAX || len % each) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, r->cdb[1] & 1 ? 0 : 2);
        return;
    }
    if (!range_ok(4, len, n)) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    for (uint32_t at = 4; at < 4 + len; at += each)             /* nothing is done where one is wrong */
        if (!scsi_disk_range(r, each == 8 ? ld_be64(b + at) : ld_be32(b + at), 1)) {
            tell_where(r, each == 8 ? ld_be64(b + 4) : ld_be32(b + 4));
            return;
        }
    for (uint32_t at = 4; at < 4 + len && r->status == SCSI_GOOD && r->host == SCSI_HOST_OK && !scsi_aborted(r); at += each) {
        uint64_t lba = each == 8 ? ld_be64(b + at) : ld_be32(b + at);
        co_reassign(r, lba);
        tell_where(r, lba);
    }
}
