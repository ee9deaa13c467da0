/* SPDX-License-Identifier: MIT */
/* Log pages (SPC-5, 6.8, 6.9, 7.3) and self-tests, whose results they hold (SPC-5, 5.15, 6.42). */
#include "hw/scsi/scsi_disk.h"

#include <stdlib.h>

#define LOG_MAX 1024u
enum { PAGE_SUPPORTED = 0x00, PAGE_WRITE_ERRORS = 0x02, PAGE_READ_ERRORS = 0x03, PAGE_VERIFY_ERRORS = 0x05, PAGE_SELF_TEST = 0x10, PAGE_STATISTICS = 0x19,
       PAGE_EXCEPTIONS = 0x2f };
enum { FMT_COUNTER = 0x02, FMT_LIST = 0x03, TEST_PASSED = 0, TEST_ABORTED = 1, TEST_RESET = 2, TEST_READ_FAILED = 7, TEST_RUNS = 15, TEST_STEP = MiB };

/* ---- pages: their parameters, behind the header of four bytes ---- */

static unsigned counter(uint8_t *p, uint16_t code, uint64_t v)
{
    st_be16(p, code);
    p[2] = FMT_COUNTER;
    p[3] = 8;
    st_be64(p + 4, v);
    return 12;
}

/* 7.3.9: errors that could not be corrected, of how much was processed. */
static unsigned errors(const struct scsi_io_count *c, uint8_t *p)
{
    unsigned n = counter(p, 0x0003, 0);                 /* corrected */

    n += counter(p + n, 0x0005, c->bytes);
    return n + counter(p + n, 0x0006, c->errors);
}

static unsigned write_errors(struct scsi_disk *d, uint8_t *p) { return errors(&d->count[SCSI_COUNT_WRITE], p); }
static unsigned read_errors(struct scsi_disk *d, uint8_t *p) { return errors(&d->count[SCSI_COUNT_READ], p); }
static unsigned verify_errors(struct scsi_disk *d, uint8_t *p) { return errors(&d->count[SCSI_COUNT_VERIFY], p); }

/* 7.3.24: one parameter of 20 results, the newest first. */
static unsigned self_tests(struct scsi_disk *d, uint8_t *p)
{
    for (unsigned i = 0; i < SCSI_SELF_TESTS; i++, p += 20) {
        const struct scsi_self_test *t = &d->tests[i];
        memset(p, 0, 20);
        st_be16(p, (uint16_t)(i + 1));
        p[2] = FMT_LIST;
        p[3] = 16;
        if (!t->code)
            continue;
        p[4] = (uint8_t)(t->code << 5 | t->result);
        st_be16(p + 6, t->hours);
        st_be64(p + 8, t->result == TEST_READ_FAILED ? t->lba : UINT64_MAX);
        if (t->result == TEST_READ_FAILED) {
            p[16] = SENSE_READ_ERROR >> 16;
            p[17] = SENSE_READ_ERROR >> 8 & 0xff;
        }
    }
    return SCSI_SELF_TESTS * 20;
}

static unsigned list_of(uint8_t *p, uint16_t code, uint32_t high, uint32_t low)
{
    st_be16(p, code);
    p[2] = FMT_LIST;
    p[3] = 8;
    st_be32(p + 4, high);
    st_be32(p + 8, low);
    return 12;
}

/* 7.3.12: commands and blocks of both directions; idle time is not measured; intervals are of a millisecond. */
static unsigned statistics(struct scsi_disk *d, uint8_t *p)
{
    memset(p, 0, 68);
    st_be16(p, 1);
    p[2] = FMT_LIST;
    p[3] = 64;
    st_be64(p + 4, d->count[SCSI_COUNT_READ].commands);
    st_be64(p + 12, d->count[SCSI_COUNT_WRITE].commands);
    st_be64(p + 20, d->count[SCSI_COUNT_WRITE].moved / scsi_disk_bs(d));     /* received */
    st_be64(p + 28, d->count[SCSI_COUNT_READ].moved / scsi_disk_bs(d));
    list_of(p + 68, 2, 0, 0);
    return 80 + list_of(p + 80, 3, 3, 1);
}

static unsigned exceptions(struct scsi_disk *d, uint8_t *p)
{
    memset(p, 0, 8);
    p[2] = FMT_LIST;
    p[3] = 4;                                           /* no failure is predicted; no temperature is known, nor one that is too high */
    p[6] = p[7] = 0xff;
    return 8;
}

/* What an initiator sets to zero of a page; results of self-tests are no counters. */
static void forget_errors(struct scsi_io_count *c) { c->bytes = c->errors = 0; }
static void forget_write(struct scsi_disk *d) { forget_errors(&d->count[SCSI_COUNT_WRITE]); }
static void forget_read(struct scsi_disk *d) { forget_errors(&d->count[SCSI_COUNT_READ]); }
static void forget_verify(struct scsi_disk *d) { forget_errors(&d->count[SCSI_COUNT_VERIFY]); }

static void forget_statistics(struct scsi_disk *d)
{
    for (unsigned i = 0; i < SCSI_COUNTERS; i++)
        d->count[i].commands = d->count[i].moved = 0;
}

static const struct { uint8_t page; unsigned (*build)(struct scsi_disk *, uint8_t *); void (*forget)(struct scsi_disk *); } pages[] = {
    { PAGE_WRITE_ERRORS, write_errors, forget_write }, { PAGE_READ_ERRORS, read_errors, forget_read }, { PAGE_VERIFY_ERRORS, verify_errors, forget_verify },
    { PAGE_SELF_TEST, self_tests, NULL }, { PAGE_STATISTICS, statistics, forget_statistics }, { PAGE_EXCEPTIONS, exceptions, NULL },
};

static size_t find_page(uint8_t page)
{
    size_t i = 0;

    while (i < ARRAY_SIZE(pages) && pages[i].page != page)
        i++;
    return i;
}

/* 7.3.2, 7.3.3: pages, or pages with their subpages. */
static unsigned supported(uint8_t *p, bool with_sub)
{
    unsigned n = 0;

    p[n++] = PAGE_SUPPORTED;
    if (with_sub) {
        p[n++] = 0;
        p[n++] = PAGE_SUPPORTED;
        p[n++] = 0xff;
    }
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
        p[n++] = pages[i].page;
        if (with_sub)
            p[n++] = 0;
    }
    return n;
}

/* Parameters from @first on: 6.8.2. */
static unsigned skip_to(uint8_t *p, unsigned n, uint16_t first)
{
    unsigned at = 0;

    while (at < n && ld_be16(p + at) < first)
        at += 4u + p[at + 3];
    memmove(p, p + at, n - at);
    return n - at;
}

void scsi_log_sense(struct scsi_req *r)
{
    uint8_t b[LOG_MAX] = { 0 }, page = r->cdb[2] & 0x3f, sub = r->cdb[3];
    unsigned n = 0;
    size_t i = 0;

    if (r->cdb[1] & 1 || r->cdb[2] >> 6 == 3) {         /* nothing is saved; no default lists */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, r->cdb[1] & 1 ? 1 : 2);
        return;
    }
    if (page == PAGE_SUPPORTED && (!sub || sub == 0xff)) {
        n = supported(b + 4, sub);
    } else {
        i = find_page(page);
        if (i == ARRAY_SIZE(pages) || sub) {
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, sub ? 3 : 2);
            return;
        }
        n = skip_to(b + 4, pages[i].build(disk_of(r), b + 4), ld_be16(r->cdb + 5));
        if (!n) {                                       /* 6.8.2: beyond the last */
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 5);
            return;
        }
    }
    b[0] = (uint8_t)(0x80 | page | (sub ? 0x40 : 0));   /* DS: not saved */
    b[1] = sub;
    st_be16(b + 2, (uint16_t)n);
    scsi_reply(r, b, 4 + n, ld_be16(r->cdb + 7));
}

/* 6.8: without parameters, PCR or default cumulative values (PC) set counters to zero: those of a page, or all. Nothing else can be set. */
void scsi_log_select(struct scsi_req *r)
{
    uint8_t page = r->cdb[2] & 0x3f, sub = r->cdb[3];

    if (r->cdb[1] & 1 || ld_be16(r->cdb + 7)) {         /* SP; parameters */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, r->cdb[1] & 1 ? 1 : 7);
        return;
    }
    if (sub || (page && find_page(page) == ARRAY_SIZE(pages))) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, sub ? 3 : 2);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(pages) && (r->cdb[1] & 2 || r->cdb[2] >> 6 == 3); i++)
        if (pages[i].forget && (!page || pages[i].page == page))
            pages[i].forget(disk_of(r));
}

void scsi_count(struct scsi_disk *d, enum scsi_counter what, uint64_t bytes, bool failed)
{
    d->count[what].commands++;
    d->count[what].moved += failed ? 0 : bytes;
    d->count[what].bytes += failed ? 0 : bytes;
    d->count[what].errors += failed;
}

/* ---- self-tests ---- */

static void record(struct scsi_disk *d, uint8_t code)
{
    memmove(d->tests + 1, d->tests, sizeof d->tests - sizeof d->tests[0]);
    d->tests[0] = (struct scsi_self_test){ .code = code, .result = TEST_RUNS };
    d->s.progress = 0;
}

/* Reads from the start: a short test the first and the last stretch, an extended one all. */
static void co_read_medium(struct scsi_disk *d, bool all, uint32_t gen, const struct scsi_req *by)
{
    uint64_t size = scsi_disk_blocks(d) * scsi_disk_bs(d), at = 0;
    uint8_t *buf = malloc(TEST_STEP);
    struct scsi_self_test *t = d->tests;
    int r = buf ? 0 : -1;

    while (!r && at < size && gen == d->test_gen && !(by && scsi_aborted(by))) {
        struct iovec iov = { buf, MIN((uint64_t)TEST_STEP, size - at) };
        r = co_blk_preadv(d->blk, at, iov.iov_len, &iov, 1, 0);
        if (r)
            break;
        at = all || at ? at + iov.iov_len : MAX(iov.iov_len, size - MIN(size, (uint64_t)TEST_STEP));
        d->s.progress = (uint16_t)(at * 65535 / size);
    }
    free(buf);
    if (gen != d->test_gen)
        return;
    t->result = r ? TEST_READ_FAILED : at < size ? TEST_RESET : TEST_PASSED;
    t->lba = at / scsi_disk_bs(d);
}

struct self_test { struct scsi_disk *d; uint8_t code; uint32_t gen; };

static void co_self_test(void *arg)
{
    struct self_test *t = arg;
    struct scsi_disk *d = t->d;

    co_read_medium(d, t->code == 2 || t->code == 6, t->gen, NULL);
    d->s.n_reqs--;
    co_queue_wake_all(&d->s.idle);
    free(t);
}

bool scsi_self_test_runs(const struct scsi_disk *d) { return d->tests[0].code && d->tests[0].result == TEST_RUNS; }

void scsi_self_test_stop(struct scsi_disk *d, bool by_reset)
{
    if (d->tests[0].result == TEST_RUNS)
        d->tests[0].result = by_reset ? TEST_RESET : TEST_ABORTED;
    d->test_gen++;
}

bool co_scsi_self_test(struct scsi_disk *d, uint8_t code, const struct scsi_req *by)
{
    struct self_test *t;

    scsi_self_test_stop(d, false);
    if (code == 4)
        return true;
    record(d, code);
    if (code >= 5) {
        co_read_medium(d, code == 6, d->test_gen, by);
        return d->tests[0].result == TEST_PASSED;
    }
    t = xnew(struct self_test);
    *t = (struct self_test){ d, code, d->test_gen };
    d->s.n_reqs++;                                      /* the unit stays until it is done */
    co_spawn(NULL, d->s.dev.dom, co_self_test, t);
    return true;
}

/* 6.42: the default self-test, or one of those above. */
void co_scsi_send_diagnostic(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t code = r->cdb[1] >> 5;

    if (ld_be16(r->cdb + 3) || (r->cdb[1] & 0x04 && code) || code == 3 || code == 7 || (code && !scsi_disk_has_medium(d)))
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, ld_be16(r->cdb + 3) ? 3 : 1);
    else if (code && !co_scsi_self_test(d, code, r))
        scsi_fail(r, SENSE_SELF_TEST_FAILED);
}
