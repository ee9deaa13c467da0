/* SPDX-License-Identifier: MIT */
/* Block commands on the guest's memory (SBC-4, 5): READ, WRITE, VERIFY, READ CAPACITY, SYNCHRONIZE CACHE. */
#include <errno.h>
#include <stdlib.h>
#include "base/log.h"
#include "hw/scsi/scsi_disk.h"

bool scsi_disk_range(struct scsi_req *r, uint64_t lba, uint64_t n)
{
    if (range_ok(lba, n, scsi_disk_blocks(disk_of(r))))
        return true;
    scsi_fail_info(r, SENSE_LBA_OUT_OF_RANGE, lba);
    return false;
}

static uint32_t sense_of(int error, bool is_read)
{
    switch (error) {
    case ENOSPC: return SENSE_SPACE_ALLOC_FAILED;
    case EROFS: return SENSE_WRITE_PROTECTED;
    case ENOMEDIUM: return SENSE_NO_MEDIUM;
    case ENOMEM: return SENSE_COMMAND_ABORTED;
    default: return is_read ? SENSE_READ_ERROR : SENSE_WRITE_ERROR;
    }
}

bool scsi_disk_result(struct scsi_req *r, int error, bool is_read, uint64_t lba)
{
    uint32_t zone;

    if (!error)
        return true;
    if (scsi_aborted(r))
        return false;
    zone = scsi_zone_sense(disk_of(r), error);
    if (zone) {
        scsi_fail_info(r, zone, lba);
        return false;
    }
    switch (blk_error_action(disk_of(r)->blk, is_read, -error)) {
    case BLK_ACT_IGNORE: return true;
    case BLK_ACT_STOP: r->host = SCSI_HOST_STOPPED; return false;
    case BLK_ACT_REPORT: break;
    }
    scsi_fail_info(r, sense_of(-error, is_read), lba);
    return false;
}

/* What is asked for can be transferred. */
static bool transfer_fits(struct scsi_req *r, uint64_t lba, uint32_t n)
{
    const struct scsi_disk *d = disk_of(r);
    uint64_t most = MIN(d->max_io_size, SCSI_TRANSFER_MAX);

    if (!scsi_pi_allowed(r))
        return false;
    if ((uint64_t)n * scsi_disk_bs(d) > most) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, r->cdb[0] >> 5 == 3 ? 28 : r->cdb[0] >> 5 == 4 ? 10 : r->cdb[0] >> 5 == 5 ? 6 : 7);
        return false;
    }
    return scsi_disk_range(r, lba, n);
}

static bool wants_fua(const struct scsi_req *r)
{
    return r->cdb[0] >= 0x20 && scsi_cdb_flags(r->cdb) & 0x08;
}

/* The first @len bytes of the initiator's buffer; NULL (with host OVERRUN) if it has fewer. */
static struct iovec *buffer(struct scsi_req *r, const struct scsi_data *data, uint64_t len, unsigned *n, struct iovec **own)
{
    struct iovec *iov;

    if (data->len < len) {
        r->host = SCSI_HOST_OVERRUN;
        return NULL;
    }
    iov = vec_slice(data->v, data->off, len, n, own);
    if (!iov)
        scsi_fail(r, SENSE_COMMAND_ABORTED);
    return iov;
}

void co_scsi_read(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t lba = scsi_cdb_lba(r->cdb), len;
    uint32_t blocks = scsi_cdb_blocks(r->cdb);
    struct iovec *own = NULL, *iov;
    unsigned n;

    if (!transfer_fits(r, lba, blocks) || !blocks)
        return;
    if (scsi_pi_type(d)) {
        co_scsi_pi_read(r, lba, blocks);
        return;
    }
    len = (uint64_t)blocks * scsi_disk_bs(d);
    iov = buffer(r, &r->in, len, &n, &own);
    if (iov && scsi_disk_result(r, co_blk_preadv(d->blk, lba * scsi_disk_bs(d), len, iov, n, 0), true, lba))
        r->done = len;
    if (iov)
        scsi_count(d, SCSI_COUNT_READ, len, !r->done);
    free(own);
}

/* The data part of every WRITE; true if it is on its way to the medium. */
static bool co_write(struct scsi_req *r, uint64_t lba, uint32_t blocks, bool fua)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t len = (uint64_t)blocks * scsi_disk_bs(d);
    struct iovec *own = NULL, *iov;
    struct range_claim claim;
    unsigned n;
    bool ok;

    if (scsi_pi_type(d))
        return co_scsi_pi_write(r, lba, blocks, fua);
    iov = buffer(r, &r->out, len, &n, &own);
    if (!iov)
        return false;
    co_scsi_claim(d, &claim, lba, blocks, false);
    ok = !scsi_aborted(r) && scsi_disk_result(r, co_blk_pwritev(d->blk, lba * scsi_disk_bs(d), len, iov, n, fua ? BLK_FUA : 0), false, lba);
    scsi_release(d, &claim);
    if (ok)
        r->done = len;
    scsi_count(d, SCSI_COUNT_WRITE, len, !ok);
    free(own);
    return ok;
}

void co_scsi_write(struct scsi_req *r)
{
    uint64_t lba = scsi_cdb_lba(r->cdb);
    uint32_t blocks = scsi_cdb_blocks(r->cdb);

    if (transfer_fits(r, lba, blocks) && blocks)
        co_write(r, lba, blocks, wants_fua(r));
}

/* ---- VERIFY (5.36): the medium is read, and compared where BYTCHK asks for it ---- */

static bool co_compare(struct scsi_req *r, uint64_t lba, uint32_t blocks, unsigned bytchk)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t bs = scsi_disk_bs(d), len = blocks * bs, step = MAX(SCSI_STEP, bs), at = 0;
    uint8_t *disk = malloc(step), *given = malloc(step);
    bool ok = disk && given;

    if (!ok)
        scsi_fail(r, SENSE_COMMAND_ABORTED);
    while (ok && at < len && !scsi_aborted(r)) {
        uint64_t n = MIN(step, len - at);
        struct iovec iov = { disk, n };
        ok = scsi_disk_result(r, co_blk_preadv(d->blk, lba * bs + at, n, &iov, 1, 0), true, lba + at / bs);
        for (uint64_t k = 0; ok && bytchk == 3 && k < n; k += bs)
            scsi_take(r, 0, given + k, bs);
        if (ok && bytchk == 1)
            scsi_take(r, at, given, n);
        for (uint64_t k = 0; ok && bytchk && k < n; k++)
            if (disk[k] != given[k]) {
                scsi_fail_info(r, SENSE_MISCOMPARE, bytchk == 3 ? k % bs : at + k);
                ok = false;
            }
        at += n;
    }
    free(disk);
    free(given);
    scsi_count(d, SCSI_COUNT_VERIFY, at, !ok);
    return ok;
}

void co_scsi_verify(struct scsi_req *r)
{
    unsigned bytchk = scsi_cdb_flags(r->cdb) >> 1 & 3;
    uint64_t lba = scsi_cdb_lba(r->cdb), bs = scsi_disk_bs(disk_of(r));
    uint32_t blocks = scsi_cdb_len(r->cdb);

    if (!scsi_pi_allowed(r))
        return;
    if (bytchk == 2) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (!scsi_disk_range(r, lba, blocks) || !blocks || (bytchk == 1 && !transfer_fits(r, lba, blocks)))
        return;
    if (scsi_pi_type(disk_of(r))) {
        co_scsi_pi_verify(r, lba, blocks, bytchk);
        return;
    }
    if (r->out.len < (bytchk == 1 ? blocks * bs : bytchk == 3 ? bs : 0)) {
        r->host = SCSI_HOST_OVERRUN;
        return;
    }
    co_compare(r, lba, blocks, bytchk);
}

/* 5.49: written to the medium, read back, and compared if BYTCHK asks for it. */
void co_scsi_write_verify(struct scsi_req *r)
{
    unsigned bytchk = scsi_cdb_flags(r->cdb) >> 1 & 3;
    uint64_t lba = scsi_cdb_lba(r->cdb);
    uint32_t blocks = scsi_cdb_len(r->cdb);

    if (bytchk > 1) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (!transfer_fits(r, lba, blocks) || !blocks || !co_write(r, lba, blocks, true))
        return;
    if (scsi_pi_type(disk_of(r)))
        co_scsi_pi_verify(r, lba, blocks, bytchk);
    else
        co_compare(r, lba, blocks, bytchk);
}

/* ---- commands without data ---- */

void co_scsi_sync_cache(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t lba = scsi_cdb_lba(r->cdb);

    if (scsi_disk_range(r, lba, scsi_cdb_len(r->cdb)) && !scsi_disk_read_only(d))
        scsi_disk_result(r, co_blk_flush(d->blk), false, lba);
}

/* 5.11: "condition met" says that all of it fits in the cache, which the host's page cache may hold. */
void scsi_prefetch(struct scsi_req *r)
{
    if (scsi_disk_range(r, scsi_cdb_lba(r->cdb), scsi_cdb_len(r->cdb)))
        r->status = SCSI_CONDITION_MET;
}

/* From here on the initiator knows the capacity. */
static uint64_t told_capacity(struct scsi_disk *d)
{
    return d->blocks = scsi_disk_blocks(d);
}

void scsi_read_capacity_10(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t last = told_capacity(d) - 1;
    uint8_t b[8];

    if (!scsi_disk_blocks(d)) {
        scsi_fail(r, SENSE_NO_MEDIUM);
        return;
    }
    st_be32(b, (uint32_t)MIN(last, (uint64_t)UINT32_MAX));
    st_be32(b + 4, scsi_disk_bs(d));
    scsi_reply(r, b, sizeof b, sizeof b);
}

void scsi_read_capacity_16(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[32] = { 0 };

    if (!told_capacity(d)) {
        scsi_fail(r, SENSE_NO_MEDIUM);
        return;
    }
    st_be64(b, d->blocks - 1);
    st_be32(b + 8, scsi_disk_bs(d));
    if (scsi_pi_type(d))
        b[12] = (uint8_t)((scsi_pi_type(d) - 1) << 1 | 1);      /* P_TYPE, PROT_EN */
    if (d->caps.zoned.size)
        b[12] = 0x10;                           /* RC BASIS: the last block of all zones */
    b[13] = (uint8_t)ctz64(d->opt.physical_block_size / scsi_disk_bs(d));
    if (d->caps.discard && !scsi_disk_read_only(d))
        b[14] = 0x80;                           /* LBPME */
    scsi_reply(r, b, sizeof b, ld_be32(r->cdb + 10));
}
