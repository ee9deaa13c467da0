/* SPDX-License-Identifier: MIT */
/* What the iscsi driver says to a logical unit in SCSI (SPC-6, SBC-4): commands until they are done, and what the unit is. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "block/blk_int.h"
#include "block/iscsi_int.h"

#define MS INT64_C(1000000)

/* How often one command meets each of these before it fails. */
enum { MAX_ATTENTIONS = 16, MAX_BUSY = 40, MAX_LOST = 5, MAX_ABORTED = 5 };

enum { KEY_NONE = 0, KEY_RECOVERED, KEY_NOT_READY, KEY_MEDIUM, KEY_HARDWARE, KEY_ILLEGAL, KEY_ATTENTION, KEY_PROTECT, KEY_BLANK,
       KEY_ABORTED = 11, KEY_MISCOMPARE = 14 };
enum { ASC_BECOMING_READY = 0x0401, ASC_NO_SUCH_COMMAND = 0x2000, ASC_NO_SUCH_LBA = 0x2100, ASC_NO_SUCH_LUN = 0x2500,
       ASC_NO_SPACE = 0x2707, ASC_CAPACITY_CHANGED = 0x2a09, ASC_LUNS_CHANGED = 0x3f0e };

/* ---- sense data ---- */

struct sense { uint8_t key; uint16_t asc; };

/* SPC-6, 4.4: fixed and descriptor format. */
static struct sense sense_of(const struct iscsi_req *q)
{
    const uint8_t *p = q->sense;
    struct sense x = { .key = 0xff };
    uint8_t format = q->sense_len ? p[0] & 0x7f : 0;
    if (q->status != SCSI_STATUS_CHECK_CONDITION)
        return x;
    if ((format == 0x70 || format == 0x71) && q->sense_len >= 3)
        x = (struct sense){ p[2] & 15, q->sense_len >= 14 ? ld_be16(p + 12) : 0 };
    else if ((format == 0x72 || format == 0x73) && q->sense_len >= 4)
        x = (struct sense){ p[1] & 15, ld_be16(p + 2) };
    return x;
}

const char *iscsi_words(const struct blk_iscsi *s, const struct iscsi_req *q, char buf[160])
{
    struct sense x = sense_of(q);
    if (q->status == SCSI_STATUS_RESERVATION_CONFLICT)
        snprintf(buf, 160, "somebody else has reserved it");
    else if (q->status != SCSI_STATUS_CHECK_CONDITION)
        snprintf(buf, 160, "status 0x%02x", (unsigned)q->status);
    else if (x.key == 0xff)
        snprintf(buf, 160, "CHECK CONDITION without sense data");
    else
        snprintf(buf, 160, "%.50s, %.60s (%x/%02x/%02x)", s->lib->sense_key_str(x.key), s->lib->sense_ascq_str(x.asc), x.key, x.asc >> 8, x.asc & 0xff);
    return buf;
}

static int errno_of(const struct iscsi_req *q)
{
    struct sense x = sense_of(q);
    if (q->status == SCSI_STATUS_RESERVATION_CONFLICT)
        return -EBUSY;
    switch (x.key) {
    case KEY_NOT_READY: return x.asc >> 8 == 0x3a ? -ENOMEDIUM : -EIO;
    case KEY_ILLEGAL: return x.asc == ASC_NO_SUCH_COMMAND ? -ENOTSUP : x.asc == ASC_NO_SUCH_LBA || x.asc == ASC_NO_SUCH_LUN ? -EIO : -EINVAL;
    case KEY_PROTECT: return x.asc == ASC_NO_SPACE ? -ENOSPC : -EROFS;
    default: return -EIO;
    }
}

/* ---- commands until they are done ---- */

/* How often what has happened to the command. */
struct tries { unsigned attentions, busy, lost, aborted; };

static void pause_for(unsigned n) { co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + MIN(INT64_C(10) << MIN(n, 7u), INT64_C(1000)) * MS); }

static void notice(struct blk_iscsi *s, struct sense x)
{
    s->again |= x.key == KEY_ATTENTION && (x.asc == ASC_CAPACITY_CHANGED || x.asc == ASC_LUNS_CHANGED);
}

/* Whether the answer is one to try again after, in time. */
static bool co_again(struct blk_iscsi *s, const struct iscsi_req *q, struct tries *t)
{
    struct sense x = sense_of(q);
    if (q->lost)
        return !q->late && !s->closing && t->lost++ < MAX_LOST;
    if (q->status == SCSI_STATUS_BUSY || q->status == SCSI_STATUS_TASK_SET_FULL || (x.key == KEY_NOT_READY && x.asc == ASC_BECOMING_READY)) {
        if (t->busy >= MAX_BUSY)
            return false;
        pause_for(t->busy++);
        return true;
    }
    if (q->status == SCSI_STATUS_TASK_ABORTED || x.key == KEY_ABORTED) {
        if (t->aborted >= MAX_ABORTED)
            return false;
        pause_for(t->aborted++);
        return true;
    }
    if (x.key != KEY_ATTENTION || t->attentions++ >= MAX_ATTENTIONS)
        return false;
    notice(s, x);
    return true;
}

static bool is_good(const struct iscsi_req *q)
{
    uint8_t key = sense_of(q).key;
    return !q->lost && (q->status == SCSI_STATUS_GOOD || q->status == SCSI_STATUS_CONDITION_MET || key == KEY_RECOVERED || key == KEY_NONE);
}

static int co_run(struct blk_iscsi *s, struct iscsi_req *q)
{
    struct tries t = { 0 };
    q->timeout = s->timeout;
    do {
        int r = co_iscsi_ensure(s);
        if (!r && s->again && s->probed && !s->looking) {
            int64_t heard = s->asked.heard;
            s->again = false;
            s->looking = true;
            co_iscsi_capacity(s);
            s->looking = false;
            s->asked.heard = heard;     /* nobody has waited for that */
        }
        r = r ? r : co_iscsi_send(s, q);
        if (r)
            return r;
    } while (!is_good(q) && co_again(s, q, &t));
    return is_good(q) ? 0 : q->lost ? q->late ? -ETIMEDOUT : -EIO : errno_of(q);
}

int co_iscsi_run(struct blk_iscsi *s, struct iscsi_req *q)
{
    blk_ask(&s->asked);
    int r = co_run(s, q);
    blk_answered(&s->asked);
    return r;
}

/* ---- commands of others ---- */

struct pass { struct blk_iscsi *s; struct blk_scsi *c; int r; };

/* What came of it, in the words of the kernel (include/scsi/scsi_status.h of Linux). Nothing is done twice, nothing kept from who asked. */
static void co_pass(void *arg)
{
    enum { NO_CONNECTION = 1, TIMED_OUT = 3, DISRUPTED = 14 };
    struct pass *p = arg;
    struct blk_scsi *c = p->c;
    struct iscsi_req q = { .cdb_len = c->cdb_len, .to_device = c->to_device, .iov = c->iov, .niov = c->len ? c->niov : 0, .len = c->len,
                           .timeout = c->timeout };
    memcpy(q.cdb, c->cdb, c->cdb_len);
    blk_ask(&p->s->asked);
    int unreachable = co_iscsi_ensure(p->s);
    p->r = unreachable ? 0 : co_iscsi_send(p->s, &q);
    blk_answered(&p->s->asked);
    if (unreachable)
        c->host_status = NO_CONNECTION;
    if (unreachable || p->r)
        return;
    c->host_status = !q.lost ? 0 : q.late ? TIMED_OUT : DISRUPTED;
    c->status = q.lost ? 0 : (uint8_t)q.status;
    c->done = q.done;
    c->sense_len = q.sense_len;
    memcpy(c->sense, q.sense, q.sense_len);
    notice(p->s, sense_of(&q));
}

int co_iscsi_pass(struct blk_node *n, struct blk_scsi *c)
{
    struct pass p = { (struct blk_iscsi *)n, c, 0 };
    if (c->cdb_len > ISCSI_CDB_MAX || c->len > n->caps.scsi || c->niov > ISCSI_IOV_MAX)
        return -EINVAL;
    c->status = c->sense_len = 0;
    c->host_status = c->driver_status = 0;
    c->done = 0;
    co_on_loop(n->home, NULL, co_pass, &p);
    return p.r;
}

/* ---- what the unit is ---- */

static int co_get(struct blk_iscsi *s, struct iscsi_req *q, void *buf, uint32_t len)
{
    struct iovec v = { buf, len };
    memset(buf, 0, len);
    q->iov = &v;
    q->niov = 1;
    q->len = len;
    int r = co_iscsi_run(s, q);
    q->iov = NULL;
    return r;
}

static int co_inquiry(struct blk_iscsi *s, struct iscsi_req *q, int page, uint8_t *buf, uint8_t len)
{
    *q = (struct iscsi_req){ .cdb = { 0x12, page >= 0, page >= 0 ? (uint8_t)page : 0, 0, len }, .cdb_len = 6 };
    return co_get(s, q, buf, len);
}

static int co_read_capacity(struct blk_iscsi *s, uint64_t *last, uint32_t *block)
{
    uint8_t b[32];
    struct iscsi_req q = { .cdb = { 0x9e, 0x10, [13] = sizeof b }, .cdb_len = 16 };
    int r = s->type == 5 ? -ENOTSUP : co_get(s, &q, b, sizeof b);
    if (!r) {
        *last = ld_be64(b);
        *block = ld_be32(b + 8);
        s->rw16 = true;
        s->provisioned = b[14] & 0x80;
        s->reads_zeroes = b[14] & 0x40;
        return q.done < 12 ? -EPROTO : 0;
    }
    if (r != -ENOTSUP && r != -EINVAL)
        return r;
    q = (struct iscsi_req){ .cdb = { 0x25 }, .cdb_len = 10 };
    r = co_get(s, &q, b, 8);
    *last = ld_be32(b);
    *block = ld_be32(b + 4);
    return r ? r : q.done < 8 ? -EPROTO : 0;
}

static bool size_ok(uint64_t last, uint32_t block)
{
    return is_pow2(block) && block >= 512 && block <= 65536 && last < (INT64_MAX - 65536) / block;
}

int co_iscsi_capacity(struct blk_iscsi *s)
{
    uint64_t last, was = atomic_load(&s->node.size);
    uint32_t block;
    int r = co_read_capacity(s, &last, &block);
    if (r)
        return r;
    if (!size_ok(last, block) || block != s->block) {
        iscsi_warn(s, "another unit is there now: its blocks have %u bytes, not %u", block, s->block);
        return -EIO;
    }
    uint64_t size = (last + 1) * block;
    if (size == was)
        return 0;
    log_info("%s: it has %llu bytes now, %llu before", s->what, (unsigned long long)size, (unsigned long long)was);
    atomic_store(&s->node.size, size);
    blk_node_changed(&s->node);
    return 0;
}

/* Write protection and DPOFUA, in the mode parameter header (SPC-6, 7.5.5; SBC-4, 6.5.1). Units that tell nothing are neither. */
static void co_mode(struct blk_iscsi *s)
{
    uint8_t b[192];
    struct iscsi_req q = { .cdb = { 0x1a, 0, 0x3f, 0, sizeof b }, .cdb_len = 6 };
    if (co_get(s, &q, b, sizeof b) || q.done < 4)
        return;
    s->write_protected = b[2] & 0x80;
    s->dpofua = b[2] & 0x10;
}

static bool has_page(const uint8_t *pages, uint8_t page)
{
    for (unsigned i = 0; i < pages[3]; i++)
        if (4 + i < 252 && pages[4 + i] == page)
            return true;
    return false;
}

/* Block limits, logical block provisioning, block device characteristics (SBC-4, 6.6). */
static void co_limits(struct blk_iscsi *s)
{
    uint8_t pages[252], b[64];
    struct iscsi_req q;
    struct blk_caps *c = &s->node.caps;
    uint64_t most = 0, same = 0;
    if (co_inquiry(s, &q, 0, pages, sizeof pages))
        return;
    if (has_page(pages, 0xb0) && !co_inquiry(s, &q, 0xb0, b, sizeof b) && q.done >= 16) {
        uint64_t max = (uint64_t)ld_be32(b + 8) * s->block, opt = (uint64_t)ld_be32(b + 12) * s->block;
        if (max)
            s->max_transfer = (uint32_t)MIN((uint64_t)s->max_transfer, max);
        c->opt_io = opt <= s->max_transfer ? (uint32_t)opt : 0;
        if (q.done >= 44 && ld_be16(b + 2) >= 0x3c) {
            most = ld_be32(b + 24) ? ld_be32(b + 20) : 0;
            same = ld_be64(b + 36);
            uint64_t gran = (uint64_t)ld_be32(b + 28) * s->block;
            c->discard_granularity = gran && gran <= 1u << 30 ? (uint32_t)gran : s->block;
        }
    }
    if (same)
        s->max_same = MIN(s->max_same, same);
    if (s->provisioned && has_page(pages, 0xb2) && !co_inquiry(s, &q, 0xb2, b, sizeof b) && q.done >= 6) {
        s->unmap = b[5] & 0x80 && most;
        s->max_unmap = most;
        s->same_unmaps = b[5] & 0x40;
        s->reads_zeroes |= (b[5] >> 2 & 7) == 1;
    }
    if (has_page(pages, 0xb1) && !co_inquiry(s, &q, 0xb1, b, sizeof b) && q.done >= 6)
        c->rotational = ld_be16(b + 4) > 1;
}

static bool probe_error(struct blk_iscsi *s, const char *what, int r, struct err *e)
{
    return err_os(e, -r, "%s: cannot %s", s->what, what);
}

bool co_iscsi_probe(struct blk_iscsi *s, struct err *e)
{
    uint8_t b[64];
    uint64_t last = 0;
    struct iscsi_req q;
    int r = co_inquiry(s, &q, -1, b, sizeof b);
    if (r)
        return probe_error(s, "ask it what it is", r, e);
    if (b[0] >> 5 || (b[0] & 0x1f) == 0x1f)
        return err_set(e, ERR_UNKNOWN, "%s: there is no such unit", s->what);
    s->type = b[0] & 0x1f;
    if (s->type != 0 && s->type != 5 && s->type != 7)
        return err_set(e, ERR_VALUE, "%s: it is no disk, but of type 0x%02x", s->what, s->type);
    r = co_read_capacity(s, &last, &s->block);
    if (r)
        return probe_error(s, "ask for its size", r, e);
    if (!size_ok(last, s->block))
        return err_set(e, ERR_VALUE, "%s: a disk of %llu blocks of %u bytes is not possible here", s->what, (unsigned long long)last + 1, s->block);
    atomic_store(&s->node.size, (last + 1) * s->block);
    s->write_protected = s->type == 5;
    if (s->type != 5)
        co_mode(s);
    s->max_transfer = MIN(s->max_transfer, s->rw16 ? s->max_transfer : 65535 * s->block);
    s->node.caps.discard_granularity = s->block;
    co_limits(s);
    s->lba_status = s->provisioned;
    s->probed = true;
    return true;
}
