/* SPDX-License-Identifier: MIT */
/* Block commands over ranges that pass no data of their length (SBC-4, 5): UNMAP, WRITE SAME, COMPARE AND WRITE, SANITIZE. */
#include <errno.h>
#include <stdlib.h>
#include "base/log.h"
#include "hw/scsi/scsi_disk.h"

/* ---- whose blocks ---- */

void co_scsi_claim(struct scsi_disk *d, struct range_claim *c, uint64_t lba, uint64_t blocks, bool alone)
{
    uint64_t bs = scsi_disk_bs(d);

    co_range_claim(scsi_lu_claims(d), c, lba * bs, blocks * bs, alone);
}

void co_scsi_claim_all(struct scsi_disk *d, struct range_claim *c) { co_range_claim(scsi_lu_claims(d), c, 0, UINT64_MAX, true); }

void scsi_release(struct scsi_disk *d, struct range_claim *c) { range_release(scsi_lu_claims(d), c); }

/* ---- UNMAP: 5.31 ---- */

static void co_unmap_ranges(struct scsi_req *r, const uint8_t *p, unsigned n)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t bs = scsi_disk_bs(d);

    for (unsigned i = 0; i < n && !scsi_aborted(r); i++) {
        uint64_t lba = ld_be64(p + 16 * i), len = ld_be32(p + 16 * i + 8);
        struct range_claim claim;
        int res;
        co_scsi_claim(d, &claim, lba, len, scsi_pi_type(d));
        res = len ? co_blk_discard(d->blk, lba * bs, len * bs) : 0;
        res = res ? res : co_scsi_pi_forget(d, lba, len);
        scsi_release(d, &claim);
        if (!scsi_disk_result(r, res, false, lba))
            return;
    }
}

void co_scsi_unmap(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    unsigned want = ld_be16(r->cdb + 7), n;
    uint8_t b[8 + 16 * SCSI_UNMAP_DESCRIPTORS];
    uint64_t sum = 0;

    if (r->cdb[1] & 1) {                        /* ANCHOR */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (!want)
        return;
    if (want > sizeof b) {                      /* 5.31.2: more than MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT */
        if (scsi_take(r, 0, b, sizeof b) >= 4 && ld_be16(b + 2) / 16u > SCSI_UNMAP_DESCRIPTORS) {
            scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, 2);
            return;
        }
    }
    want = (unsigned)scsi_take(r, 0, b, MIN(want, sizeof b));
    if (want < 8 || !range_ok(8, ld_be16(b + 2), want)) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    n = ld_be16(b + 2) / 16u;
    for (unsigned i = 0; i < n; i++) {
        uint64_t len = ld_be32(b + 8 + 16 * i + 8);
        sum += len;
        if (!scsi_disk_range(r, ld_be64(b + 8 + 16 * i), len))
            return;
    }
    if (sum * scsi_disk_bs(d) > d->max_unmap_size) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, 8);
        return;
    }
    co_unmap_ranges(r, b + 8, n);
}

/* ---- GET LBA STATUS: 5.6. What reads as zeroes without data of its own is deallocated ---- */

void co_scsi_get_lba_status(struct scsi_req *r)
{
    enum { MOST = 64 };
    struct scsi_disk *d = disk_of(r);
    uint64_t bs = scsi_disk_bs(d), lba = scsi_cdb_lba(r->cdb), end = scsi_disk_blocks(d), alloc = scsi_cdb_len(r->cdb);
    uint8_t b[8 + 16 * MOST] = { 0 };
    unsigned n = 0;

    if (lba >= end) {
        scsi_fail_info(r, SENSE_LBA_OUT_OF_RANGE, lba);
        return;
    }
    while (lba < end && n < MOST && (!n || 8 + 16ull * n < alloc) && !scsi_aborted(r)) {
        uint8_t *p = b + 8 + 16 * n;
        struct blk_extent x = { 0 };
        uint64_t most = MIN(end - lba, (uint64_t)UINT32_MAX), blocks;
        if (!scsi_disk_result(r, co_blk_map(d->blk, lba * bs, most * bs, &x), true, lba))
            return;
        blocks = MIN(x.len / bs, most);
        if (!blocks) {                          /* a part of a block: it is mapped if any of it is */
            blocks = 1;
            x.data = true;
        }
        if (n && p[12 - 16] == (x.data ? 0 : 1) && ld_be32(p + 8 - 16) + blocks <= UINT32_MAX) {
            st_be32(p + 8 - 16, (uint32_t)(ld_be32(p + 8 - 16) + blocks));
        } else {
            st_be64(p, lba);
            st_be32(p + 8, (uint32_t)blocks);
            p[12] = x.data ? 0 : 1;
            n++;
        }
        lba += blocks;
    }
    st_be32(b, 4 + 16 * n);
    scsi_reply(r, b, 8 + 16 * n, alloc);
}

/* ---- WRITE SAME: 5.51 ---- */

/* Zeroes or copies of @block over a range, in steps between which it can be aborted. */
static bool co_fill(struct scsi_req *r, uint64_t lba, uint64_t blocks, const uint8_t *block, unsigned zero_flags)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t bs = scsi_disk_bs(d), step, off = lba * bs, end = (lba + blocks) * bs;
    bool zero = mem_is_zero(block, bs), ok = true;
    uint8_t *buf = NULL;

    step = zero ? 64 * MiB : MAX(SCSI_STEP, bs);
    if (!zero && posix_memalign((void **)&buf, 4096, MIN(step, end - off))) {
        scsi_fail(r, SENSE_COMMAND_ABORTED);
        return false;
    }
    for (uint64_t k = 0; !zero && k < MIN(step, end - off); k += bs)
        memcpy(buf + k, block, bs);
    while (ok && off < end && !scsi_aborted(r)) {
        uint64_t n = MIN(step, end - off);
        struct iovec iov = { buf, n };
        int res = zero ? co_blk_zero(d->blk, off, n, zero_flags) : co_blk_pwritev(d->blk, off, n, &iov, 1, 0);
        ok = scsi_disk_result(r, res, false, off / bs);
        off += n;
    }
    free(buf);
    return ok;
}

void co_scsi_write_same(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t flags = scsi_cdb_flags(r->cdb);
    bool ten = r->cdb[0] == OP_WRITE_SAME_10, no_data = !ten && flags & 1, unmap = flags & 0x08;
    uint64_t lba = scsi_cdb_lba(r->cdb), n = scsi_cdb_len(r->cdb), bs = scsi_disk_bs(d);
    struct range_claim claim;
    uint8_t *block;

    if (!scsi_pi_allowed(r))
        return;
    /* ANCHOR, the obsolete PBDATA and LBDATA; UNMAP where nothing can be unmapped */
    if (flags & 0x16 || (ten && flags & 1) || (unmap && !d->caps.discard)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (!scsi_disk_range(r, lba, n))
        return;
    if (!n)
        n = scsi_disk_blocks(d) - lba;
    if (!no_data && r->out.len < bs) {
        r->host = SCSI_HOST_OVERRUN;
        return;
    }
    block = calloc(1, bs);
    if (!block) {
        scsi_fail(r, SENSE_COMMAND_ABORTED);
        return;
    }
    if (!no_data)
        scsi_take(r, 0, block, bs);
    if (scsi_pi_type(d) && n && !(unmap && mem_is_zero(block, bs))) {
        co_scsi_pi_write_same(r, lba, n, no_data);
    } else if (n) {
        co_scsi_claim(d, &claim, lba, n, scsi_pi_type(d));
        if (co_fill(r, lba, n, block, unmap ? BLK_ZERO_UNMAP : 0))
            scsi_disk_result(r, co_scsi_pi_forget(d, lba, n), false, lba);
        scsi_release(d, &claim);
    }
    free(block);
}

/* ---- COMPARE AND WRITE: 5.3 ---- */

/* Both halves of the initiator's data are in @given; nobody else writes. */
static void co_compare_alone(struct scsi_req *r, uint64_t lba, uint64_t len, uint8_t *given, uint8_t *disk)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t off = lba * scsi_disk_bs(d);
    struct iovec in = { disk, len }, out = { given + len, len };
    bool fua = r->cdb[1] & 0x08;

    if (!scsi_disk_result(r, co_blk_preadv(d->blk, off, len, &in, 1, 0), true, lba))
        return;
    for (uint64_t i = 0; i < len; i++)
        if (disk[i] != given[i]) {
            scsi_fail_info(r, SENSE_MISCOMPARE, i);
            return;
        }
    if (scsi_aborted(r))
        return;
    if (scsi_pi_type(d))
        co_scsi_pi_store(r, lba, (uint32_t)(len / scsi_disk_bs(d)), given + len, fua);
    else
        scsi_disk_result(r, co_blk_pwritev(d->blk, off, len, &out, 1, fua ? BLK_FUA : 0), false, lba);
}

void co_scsi_compare_and_write(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint64_t lba = scsi_cdb_lba(r->cdb), n = r->cdb[13], len = n * scsi_disk_bs(d);
    struct range_claim claim;
    uint8_t *buf;

    if (r->cdb[1] & 0xe0) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (len > SCSI_CAW_BYTES) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 13);
        return;
    }
    if (!scsi_disk_range(r, lba, n) || !n)
        return;
    if (r->out.len < 2 * len) {
        r->host = SCSI_HOST_OVERRUN;
        return;
    }
    buf = malloc(3 * len);
    if (!buf) {
        scsi_fail(r, SENSE_COMMAND_ABORTED);
        return;
    }
    scsi_take(r, 0, buf, 2 * len);
    co_scsi_claim(d, &claim, lba, n, true);
    if (!scsi_aborted(r))
        co_compare_alone(r, lba, len, buf, buf + 2 * len);
    scsi_release(d, &claim);
    free(buf);
}

/* ---- SANITIZE: 5.29. Everything is overwritten; until it is done the medium is not accessible ---- */

struct overwrite { struct scsi_disk *d; uint8_t *block; uint64_t blocks; uint32_t failed; unsigned type; bool awaited; };

bool scsi_overwrite_stops(const struct scsi_disk *d) { return d->overwriting && d->resting; }

/* 0, or -errno of the step that failed; -ECANCELED: the machine stops, or the disk goes. */
static int co_overwrite(struct scsi_disk *d, const uint8_t *block, uint64_t blocks)
{
    uint64_t bs = scsi_disk_bs(d), off = 0, end = blocks * bs, step = MAX(SCSI_STEP, bs);
    bool zero = mem_is_zero(block, bs);
    uint8_t *buf = NULL;
    int res = 0;

    if (zero)
        step = 64 * MiB;
    else if (posix_memalign((void **)&buf, 4096, step))
        return -ENOMEM;
    for (uint64_t k = 0; buf && k < step; k += bs)
        memcpy(buf + k, block, bs);
    for (; off < end && !res; off += step) {
        uint64_t n = MIN(step, end - off);
        struct iovec iov = { buf, n };
        res = scsi_overwrite_stops(d) ? -ECANCELED : zero ? co_blk_zero(d->blk, off, n, d->caps.discard ? BLK_ZERO_UNMAP : 0) : co_blk_pwritev(d->blk, off, n, &iov, 1, 0);
        d->s.progress = (uint16_t)(off * 65535 / end);
    }
    free(buf);
    return res ? res : co_blk_flush(d->blk);
}

static int co_overwrite_once(struct overwrite *w)
{
    struct scsi_disk *d = w->d;
    struct range_claim claim;
    int res;

    co_scsi_claim_all(d, &claim);
    res = d->caps.zoned.size ? co_scsi_zones_clear(d) : co_overwrite(d, w->block, w->blocks);
    if (!res && d->pi_blocks)
        res = co_scsi_pi_format(d, w->type);
    scsi_release(d, &claim);
    return res;
}

/* Until the machine goes on. False: another state was loaded meanwhile, which knows nothing of it. */
static bool co_stand(struct scsi_disk *d, uint32_t failed)
{
    bool known;

    d->rests_as = failed;
    d->parked = true;
    d->s.n_reqs--;
    co_queue_wake_all(&d->s.idle);
    while (d->resting && !d->s.dev.leaving) {
        co_event_clear(&d->go_on);
        co_wait(&d->go_on);
    }
    d->s.n_reqs++;
    d->parked = false;
    known = d->rests_as;
    d->rests_as = 0;
    return known;
}

/* Others may write while the machine stands: what nobody waits for begins anew when it goes on. */
static void co_overwrite_run(void *arg)
{
    struct overwrite *w = arg;
    struct scsi_disk *d = w->d;
    bool known = true;
    int res;

    while ((res = co_overwrite_once(w)) == -ECANCELED && !w->awaited && !d->s.dev.leaving && (known = co_stand(d, w->failed)))
        ;
    if (res == -ECANCELED && d->s.dev.leaving)
        log_warn("%s: was taken away before all of it was overwritten", d->s.dev.obj.id);
    if (known) {
        d->overwriting = 0;
        d->overwrite_failed = res ? w->failed : 0;
    }
    free(w->block);
    free(w);
    d->s.n_reqs--;
    co_queue_wake_all(&d->s.idle);
}

void scsi_disk_rest(struct scsi_disk *d)
{
    d->resting = true;
    co_wake(&d->go_on);                         /* it ends where the disk leaves */
}

void scsi_disk_resumed(void *arg)
{
    struct scsi_disk *d = arg;

    if (d->s.dev.leaving)
        return;
    d->resting = false;
    co_wake(&d->go_on);
}

void co_scsi_overwrite_all(struct scsi_req *r, uint32_t now, uint32_t failed, uint8_t *block, unsigned type, bool immed)
{
    struct scsi_disk *d = disk_of(r);
    struct overwrite *w = xnew(struct overwrite);

    w->d = d;
    w->blocks = scsi_disk_blocks(d);
    w->block = block ? block : xcalloc(1, scsi_disk_bs(d));
    w->failed = failed;
    w->type = type;
    w->awaited = !immed;
    d->resting &= d->s.dev.leaving;             /* a command comes: the machine has gone on */
    d->overwriting = now;
    d->s.progress = 0;
    d->s.n_reqs++;                              /* the unit stays until it is done */
    if (immed) {
        co_spawn(NULL, d->s.dev.dom, co_overwrite_run, w);
        return;
    }
    co_overwrite_run(w);
    if (d->overwrite_failed && d->resting && !d->s.dev.leaving)
        r->host = SCSI_HOST_STOPPED;            /* the adapter does it again */
    else if (d->overwrite_failed)
        scsi_fail(r, failed);
}

/* The pattern of OVERWRITE (5.29.3), else zeroes. False after scsi_fail(). */
static bool sanitize_pattern(struct scsi_req *r, uint8_t sa, uint8_t *block)
{
    uint32_t bs = scsi_disk_bs(disk_of(r));
    uint8_t b[4 + 4096];
    unsigned len, want = ld_be16(r->cdb + 7), n;

    if (sa != SANITIZE_OVERWRITE ? want : want < 5 || want > 4 + bs) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 7);
        return false;
    }
    if (sa != SANITIZE_OVERWRITE)
        return true;
    n = (unsigned)scsi_take(r, 0, b, MIN(want, sizeof b));
    len = n >= 4 ? ld_be16(b + 2) : 0;
    if (n < 4 || !len || len > bs || !range_ok(4, len, n) || (b[0] & 0x1f) == 0) {
        scsi_fail(r, n < 4 ? SENSE_PARAM_LENGTH : SENSE_INVALID_FIELD_PARAM);
        return false;
    }
    for (uint32_t i = 0; i < bs; i++)
        block[i] = b[4 + i % len];
    return true;
}

void co_scsi_sanitize(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t sa = r->cdb[1] & 0x1f;
    uint8_t *block;

    if (sa == SANITIZE_EXIT_FAILURE) {
        if (ld_be16(r->cdb + 7))
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 7);
        else
            d->overwrite_failed = 0;
        return;
    }
    block = xcalloc(1, scsi_disk_bs(d));
    if (sanitize_pattern(r, sa, block))
        co_scsi_overwrite_all(r, SENSE_SANITIZE_IN_PROGRESS, SENSE_SANITIZE_FAILED, block, scsi_pi_type(d), r->cdb[1] & 0x80);
    else
        free(block);
}
