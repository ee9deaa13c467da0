/* SPDX-License-Identifier: MIT */
/*
 * Protection information of a disk (SBC-4, 4.21). Behind the blocks the node holds a tuple of eight bytes for each, then a block that
 * says how the medium is formatted:
 *
 *     | pi_blocks blocks | tuples | header |      each part begins at a multiple of 4096
 */
#include <errno.h>
#include <stdlib.h>
#include "hw/scsi/scsi_disk.h"

#define TUPLE 8u
#define HEADER 4096u
#define MAGIC UINT64_C(0x49503031545f5042)      /* "BP_T10PI" */

/* ---- the medium ---- */

static uint64_t tuples_at(const struct scsi_disk *d, uint64_t lba) { return align_up(d->pi_blocks * scsi_disk_bs(d), HEADER) + lba * TUPLE; }
static uint64_t header_at(const struct scsi_disk *d) { return align_up(tuples_at(d, d->pi_blocks), HEADER); }

bool scsi_pi_fit(struct scsi_disk *d, struct err *e)
{
    uint64_t size = blk_size(d->blk), each = scsi_disk_bs(d) + TUPLE;

    if (!d->protection)
        return true;
    if (d->removable || d->caps.zoned.size)
        return err_set(e, ERR_VALUE, "protection=on: a disk %s has none", d->removable ? "whose medium can be removed" : "of zones");
    if (size < 3 * HEADER + each)
        return err_set(e, ERR_VALUE, "protection=on: '%s' has no room for a block and its protection information", d->opt.drive->id);
    d->pi_blocks = (size - 3 * HEADER) / each;
    d->blocks = d->pi_blocks;
    return true;
}

unsigned scsi_pi_type(const struct scsi_disk *d)
{
    return d->pi_blocks ? (unsigned)MAX(atomic_load(scsi_lu_pi_type(d)), 0) : 0;
}

int co_scsi_pi_load(struct scsi_disk *d)
{
    uint8_t b[HEADER];
    struct iovec v = { b, sizeof b };
    int res;

    if (!d->pi_blocks || atomic_load(scsi_lu_pi_type(d)) >= 0)
        return 0;
    res = co_blk_preadv(d->blk, header_at(d), sizeof b, &v, 1, 0);
    if (res)
        return res;
    /* a header that is none: it was never formatted */
    atomic_store(scsi_lu_pi_type(d), ld_le64(b) == MAGIC && ld_le32(b + 8) == pi_crc32c(0, b + 12, sizeof b - 12) && b[12] <= 3 ? b[12] : 0);
    return 0;
}

/* @stops: -ECANCELED where the overwrite that this belongs to is to end. */
static int co_forget(struct scsi_disk *d, uint64_t lba, uint64_t blocks, bool stops)
{
    uint64_t at = tuples_at(d, lba), left = blocks * TUPLE, step = MIN(left, 64 * KiB);
    uint8_t *buf = step && scsi_pi_type(d) ? malloc(step) : NULL;
    int res = 0;

    if (!step || !scsi_pi_type(d))
        return 0;
    if (!buf)
        return -ENOMEM;
    memset(buf, 0xff, step);                    /* 4.21.2: of what was not written with any */
    while (left && !res) {
        struct iovec v = { buf, MIN(left, step) };
        res = stops && scsi_overwrite_stops(d) ? -ECANCELED : co_blk_pwritev(d->blk, at, v.iov_len, &v, 1, 0);
        at += v.iov_len;
        left -= v.iov_len;
    }
    free(buf);
    return res;
}

int co_scsi_pi_forget(struct scsi_disk *d, uint64_t lba, uint64_t blocks) { return co_forget(d, lba, blocks, false); }

int co_scsi_pi_format(struct scsi_disk *d, unsigned type)
{
    uint8_t b[HEADER] = { 0 };
    struct iovec v = { b, sizeof b };
    int res;

    atomic_store(scsi_lu_pi_type(d), (int)type);
    res = co_forget(d, 0, d->pi_blocks, true);
    b[12] = (uint8_t)type;
    st_le64(b, MAGIC);
    st_le32(b + 8, pi_crc32c(0, b + 12, sizeof b - 12));
    res = res ? res : co_blk_pwritev(d->blk, header_at(d), sizeof b, &v, 1, 0);
    if (res)
        atomic_store(scsi_lu_pi_type(d), -1);   /* whatever it says */
    return res;
}

/* ---- what a command asks for ---- */

static bool is_32(const struct scsi_req *r) { return r->cdb[0] == OP_VARIABLE_LENGTH; }

/* RDPROTECT, WRPROTECT, VRPROTECT */
static unsigned protect_field(const struct scsi_req *r) { return r->cdb[0] < 0x20 ? 0 : scsi_cdb_flags(r->cdb) >> 5; }

bool scsi_pi_allowed(struct scsi_req *r)
{
    unsigned type = scsi_pi_type(disk_of(r)), field = protect_field(r);

    if (is_32(r) ? type != 2 : type == 2 && field) {        /* 4.21.2.4: type 2 goes with blocks of 32 bytes, and these with nothing else */
        scsi_fail_field(r, SENSE_INVALID_OPCODE, 0);
        return false;
    }
    if (is_32(r) && r->cdb[7] != 0x18) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 7);
        return false;
    }
    if (field && (!type || field > 5)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, is_32(r) ? 10 : 1);
        return false;
    }
    return true;
}

struct run {
    struct scsi_req *r;
    uint64_t lba;
    uint32_t blocks, step;
    struct pi pi;                               /* of the first block; checks: what @field asks for */
    unsigned field;
    bool apart;                                 /* tuples have a buffer of their own */
    uint8_t *data, *tuples;                     /* of @step blocks */
};

/* Tables 57, 98 (RDPROTECT), 131 (WRPROTECT): what is checked, as far as it is known what to expect. */
static uint8_t checks_of(const struct run *u, unsigned field)
{
    enum { ALL = PI_CHECK_GUARD | PI_CHECK_APP | PI_CHECK_REF };
    static const uint8_t by_field[] = { ALL, ALL, PI_CHECK_APP | PI_CHECK_REF, 0, PI_CHECK_GUARD, ALL };
    bool app = is_32(u->r) && disk_of(u->r)->ato, ref = u->pi.type == 1 || is_32(u->r);

    if (!field && disk_of(u->r)->dpicz)         /* SPC-5, 7.5.10 */
        return 0;
    return (uint8_t)(by_field[field] & ~((app ? 0 : PI_CHECK_APP) | (ref ? 0 : PI_CHECK_REF)));
}

static bool pi_begin(struct run *u, struct scsi_req *r, uint64_t lba, uint32_t blocks)
{
    const struct scsi_disk *d = disk_of(r);
    uint32_t bs = scsi_disk_bs(d);

    *u = (struct run){ .r = r, .lba = lba, .blocks = blocks, .step = MIN(MAX((uint32_t)SCSI_STEP / bs, 1u), blocks), .field = protect_field(r) };
    u->pi = (struct pi){ .type = (uint8_t)scsi_pi_type(d), .pif = PIF_16, .ms = TUPLE, .block = bs, .ref = (uint32_t)lba, .app_mask = 0xffff };
    if (is_32(r)) {
        u->pi.ref = ld_be32(r->cdb + 20);
        u->pi.app = ld_be16(r->cdb + 24);
        u->pi.app_mask = ld_be16(r->cdb + 26);
    }
    u->pi.checks = checks_of(u, u->field);
    u->apart = r->pi_in.len || r->pi_out.len;
    u->data = malloc((size_t)u->step * bs);
    u->tuples = malloc((size_t)u->step * TUPLE);
    if (u->data && u->tuples)
        return true;
    scsi_fail(r, SENSE_COMMAND_ABORTED);
    return false;
}

static void pi_end(struct run *u)
{
    free(u->data);
    free(u->tuples);
}

/* Bytes of data that the command moves, with the tuples among them. */
static uint64_t bytes_of(const struct run *u, uint32_t blocks)
{
    return (uint64_t)blocks * (u->pi.block + (u->field && !u->apart ? TUPLE : 0));
}

static bool has_room(const struct run *u, const struct scsi_data *data, const struct scsi_data *tuples, uint32_t blocks)
{
    if (data->len >= bytes_of(u, blocks) && (!u->field || !u->apart || tuples->len >= (uint64_t)blocks * TUPLE))
        return true;
    u->r->host = SCSI_HOST_OVERRUN;
    return false;
}

static struct pi pi_from(const struct run *u, uint64_t block)
{
    struct pi p = u->pi;

    p.ref = p.type == 3 ? p.ref : (uint32_t)(p.ref + block);
    return p;
}

/* Checks what is in the buffers: @at of the run's blocks on. False after scsi_fail(). */
static bool checked(const struct run *u, uint32_t at, uint32_t n, uint8_t checks)
{
    static const uint32_t sense[] = { [PI_WRONG_GUARD] = SENSE_GUARD_CHECK, [PI_WRONG_APP] = SENSE_APP_TAG_CHECK, [PI_WRONG_REF] = SENSE_REF_TAG_CHECK };
    struct pi p = pi_from(u, at);
    uint64_t which = 0;
    enum pi_result wrong;

    p.checks = checks;
    wrong = pi_check(&p, u->data, u->tuples, n, &which);
    if (wrong)
        scsi_fail_info(u->r, sense[wrong], u->lba + at + which);
    return !wrong;
}

static void copy(const struct scsi_data *data, uint64_t off, void *buf, size_t n, bool in)
{
    if (in)
        vec_from_buf(data->v, data->off + off, buf, n);
    else
        vec_to_buf(data->v, data->off + off, buf, n);
}

/* Blocks @at to @at + @n between the buffers and the initiator (@in: to it), with their tuples where these are asked for. */
static void move(struct run *u, uint32_t at, uint32_t n, bool in)
{
    const struct scsi_data *data = in ? &u->r->in : &u->r->out, *tuples = in ? &u->r->pi_in : &u->r->pi_out;
    uint64_t bs = u->pi.block, off = bytes_of(u, at);

    if (!u->field || u->apart)
        copy(data, off, u->data, n * bs, in);
    if (u->field && u->apart)
        copy(tuples, (uint64_t)at * TUPLE, u->tuples, (size_t)n * TUPLE, in);
    for (uint32_t i = 0; i < n && u->field && !u->apart; i++, off += bs + TUPLE) {
        copy(data, off, u->data + i * bs, bs, in);
        copy(data, off + bs, u->tuples + i * TUPLE, TUPLE, in);
    }
}

/* Where the initiator gives none. An application tag that initiators own is none that they can have meant: it is not looked at. */
static void generate(const struct run *u, uint32_t at, uint32_t n)
{
    struct pi p = pi_from(u, at);

    p.app = disk_of(u->r)->ato ? 0xffff : 0;
    p.ref = p.type == 3 ? UINT32_MAX : p.ref;
    pi_generate(&p, u->data, u->tuples, n);
}

static bool co_media_read(struct run *u, uint32_t at, uint32_t n)
{
    struct scsi_disk *d = disk_of(u->r);
    struct iovec v = { u->data, (size_t)n * u->pi.block }, t = { u->tuples, (size_t)n * TUPLE };
    int res = co_blk_preadv(d->blk, (u->lba + at) * u->pi.block, v.iov_len, &v, 1, 0);

    res = res ? res : co_blk_preadv(d->blk, tuples_at(d, u->lba + at), t.iov_len, &t, 1, 0);
    return scsi_disk_result(u->r, res, true, u->lba + at);
}

static bool co_media_write(struct run *u, uint32_t at, uint32_t n, bool fua)
{
    struct scsi_disk *d = disk_of(u->r);
    struct iovec v = { u->data, (size_t)n * u->pi.block }, t = { u->tuples, (size_t)n * TUPLE };
    int res = co_blk_pwritev(d->blk, (u->lba + at) * u->pi.block, v.iov_len, &v, 1, fua ? BLK_FUA : 0);

    res = res ? res : co_blk_pwritev(d->blk, tuples_at(d, u->lba + at), t.iov_len, &t, 1, fua ? BLK_FUA : 0);
    return scsi_disk_result(u->r, res, false, u->lba + at);
}

/* ---- commands. Blocks and their tuples are written one after the other: meanwhile nobody reads them ---- */

void co_scsi_pi_read(struct scsi_req *r, uint64_t lba, uint32_t blocks)
{
    struct scsi_disk *d = disk_of(r);
    struct range_claim claim;
    struct run u;
    bool ok = pi_begin(&u, r, lba, blocks) && has_room(&u, &r->in, &r->pi_in, blocks);

    co_scsi_claim(d, &claim, lba, blocks, false);
    for (uint32_t at = 0; ok && at < blocks && !scsi_aborted(r); at += u.step) {
        uint32_t n = MIN(u.step, blocks - at);
        ok = co_media_read(&u, at, n) && checked(&u, at, n, u.pi.checks);
        if (ok)
            move(&u, at, n, true);
    }
    scsi_release(d, &claim);
    if (ok)
        r->done = bytes_of(&u, blocks);
    scsi_count(d, SCSI_COUNT_READ, (uint64_t)blocks * u.pi.block, !ok);
    pi_end(&u);
}

bool co_scsi_pi_write(struct scsi_req *r, uint64_t lba, uint32_t blocks, bool fua)
{
    struct scsi_disk *d = disk_of(r);
    struct range_claim claim;
    struct run u;
    bool ok = pi_begin(&u, r, lba, blocks) && has_room(&u, &r->out, &r->pi_out, blocks);

    co_scsi_claim(d, &claim, lba, blocks, true);
    for (uint32_t at = 0; ok && at < blocks && !scsi_aborted(r); at += u.step) {
        uint32_t n = MIN(u.step, blocks - at);
        move(&u, at, n, false);
        if (!u.field)
            generate(&u, at, n);
        ok = (!u.field || checked(&u, at, n, u.pi.checks)) && co_media_write(&u, at, n, fua);
    }
    scsi_release(d, &claim);
    if (ok)
        r->done = bytes_of(&u, blocks);
    scsi_count(d, SCSI_COUNT_WRITE, (uint64_t)blocks * u.pi.block, !ok);
    pi_end(&u);
    return ok;
}

bool co_scsi_pi_store(struct scsi_req *r, uint64_t lba, uint32_t blocks, const uint8_t *data, bool fua)
{
    struct run u;
    bool ok = pi_begin(&u, r, lba, blocks);

    for (uint32_t at = 0; ok && at < blocks; at += u.step) {
        uint32_t n = MIN(u.step, blocks - at);
        memcpy(u.data, data + (size_t)at * u.pi.block, (size_t)n * u.pi.block);
        generate(&u, at, n);
        ok = co_media_write(&u, at, n, fua);
    }
    pi_end(&u);
    return ok;
}

/* Tables 209 to 211: of what is on the medium (@on) and what the initiator gave. */
static bool equal(const struct run *u, uint32_t at, uint32_t n, const uint8_t *on, const uint8_t *on_tuples)
{
    bool ato = disk_of(u->r)->ato;

    for (uint64_t i = 0; i < (uint64_t)n * u->pi.block; i++)
        if (on[i] != u->data[i]) {
            scsi_fail_info(u->r, SENSE_MISCOMPARE, (uint64_t)at * u->pi.block + i);
            return false;
        }
    for (uint32_t i = 0; i < n && u->field; i++) {
        const uint8_t *a = on_tuples + i * TUPLE, *b = u->tuples + i * TUPLE;
        uint32_t sense = u->field != 2 && memcmp(a, b, 2) ? SENSE_GUARD_MISCOMPARE : ato && memcmp(a + 2, b + 2, 2) ? SENSE_APP_TAG_MISCOMPARE :
                         !(u->pi.type == 3 && ato) && memcmp(a + 4, b + 4, 4) ? SENSE_REF_TAG_MISCOMPARE : 0;
        if (sense) {
            scsi_fail_info(u->r, sense, u->lba + at + i);
            return false;
        }
    }
    return true;
}

/* One block that stands for @n: its tuple as WRITE SAME has it (5.51). */
static void spread(struct run *u, uint32_t at, uint32_t n, const uint8_t *block, const uint8_t *tuple)
{
    for (uint32_t i = 0; i < n; i++) {
        memcpy(u->data + (size_t)i * u->pi.block, block, u->pi.block);
        memcpy(u->tuples + i * TUPLE, tuple, TUPLE);
        if (u->pi.type != 3)
            st_be32(u->tuples + i * TUPLE + 4, ld_be32(tuple + 4) + at + i);
    }
}

static bool co_compare_steps(struct run *u, unsigned bytchk, uint8_t *on, uint8_t *on_tuples)
{
    uint8_t *block = on + (size_t)u->step * u->pi.block, *tuple = on_tuples + (size_t)u->step * TUPLE;
    bool ok = true;

    if (bytchk == 3) {
        move(u, 0, 1, false);
        memcpy(block, u->data, u->pi.block);
        memcpy(tuple, u->tuples, TUPLE);
    }
    for (uint32_t at = 0; ok && at < u->blocks && !scsi_aborted(u->r); at += u->step) {
        uint32_t n = MIN(u->step, u->blocks - at);
        ok = co_media_read(u, at, n) && checked(u, at, n, bytchk && u->field ? 0 : u->pi.checks);
        if (!ok || !bytchk)
            continue;
        memcpy(on, u->data, (size_t)n * u->pi.block);
        memcpy(on_tuples, u->tuples, (size_t)n * TUPLE);
        if (bytchk == 3)
            spread(u, at, n, block, tuple);
        else
            move(u, at, n, false);
        ok = (!u->field || checked(u, at, n, u->pi.checks)) && equal(u, at, n, on, on_tuples);
    }
    return ok;
}

void co_scsi_pi_verify(struct scsi_req *r, uint64_t lba, uint32_t blocks, unsigned bytchk)
{
    struct scsi_disk *d = disk_of(r);
    uint32_t given = bytchk == 3 ? 1 : bytchk ? blocks : 0;
    struct range_claim claim;
    struct run u;
    bool ok = pi_begin(&u, r, lba, blocks) && has_room(&u, &r->out, &r->pi_out, given);
    uint8_t *on = malloc((size_t)(u.step + 1) * u.pi.block), *on_tuples = malloc((size_t)(u.step + 1) * TUPLE);

    if (ok && !(on && on_tuples))
        scsi_fail(r, SENSE_COMMAND_ABORTED);
    co_scsi_claim(d, &claim, lba, blocks, false);
    ok = ok && on && on_tuples && co_compare_steps(&u, bytchk, on, on_tuples);
    scsi_release(d, &claim);
    if (ok)
        r->done = MAX(r->done, bytes_of(&u, given));
    scsi_count(d, SCSI_COUNT_VERIFY, (uint64_t)blocks * u.pi.block, !ok);
    free(on);
    free(on_tuples);
    pi_end(&u);
}

void co_scsi_pi_write_same(struct scsi_req *r, uint64_t lba, uint64_t blocks, bool no_data)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t *block = calloc(1, scsi_disk_bs(d)), tuple[TUPLE];
    struct range_claim claim;
    struct run u;
    bool ok = pi_begin(&u, r, lba, (uint32_t)MIN(blocks, SCSI_STEP / scsi_disk_bs(d))) && block && (no_data || has_room(&u, &r->out, &r->pi_out, 1));

    if (ok && !no_data) {
        move(&u, 0, 1, false);
        if (!u.field)
            generate(&u, 0, 1);
        ok = !u.field || checked(&u, 0, 1, u.pi.checks);
        memcpy(block, u.data, u.pi.block);
        memcpy(tuple, u.tuples, TUPLE);
        r->done = bytes_of(&u, 1);
    }
    co_scsi_claim(d, &claim, lba, blocks, true);
    for (uint64_t at = 0; ok && at < blocks && !scsi_aborted(r); at += u.step) {
        uint32_t n = (uint32_t)MIN(u.step, blocks - at);
        u.lba = lba + at;
        spread(&u, (uint32_t)at, n, block, tuple);
        if (no_data)
            memset(u.tuples, 0xff, (size_t)n * TUPLE);
        ok = co_media_write(&u, 0, n, false);
    }
    scsi_release(d, &claim);
    free(block);
    pi_end(&u);
}
