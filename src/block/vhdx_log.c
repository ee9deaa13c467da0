/* SPDX-License-Identifier: MIT */
/*
 * The log of a VHDX image: a ring of entries, each with descriptors of what goes where and the sectors themselves ([MS-VHDX] 2.3.1).
 * What counts is the newest unbroken sequence of entries that reaches back to the tail which its last entry names (2.3.2).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/pi.h"
#include "block/vhdx_log.h"

enum { SECTOR = 4096, ENTRY_HEADER = 64, DESC_LEN = 32 };
enum { E_SUM = 4, E_LEN = 8, E_TAIL = 12, E_SEQ = 16, E_DESCS = 24, E_GUID = 32, E_FLUSHED = 48 };
enum { D_TRAILING = 4, D_LEADING = 8 /* of data: the ends of the sector, whose place the sums take */, D_ZEROES = 8, D_OFF = 16, D_SEQ = 24 };
enum { S_SEQ_HIGH = 4, S_SEQ_LOW = SECTOR - 4, LEADING = 8, TRAILING = 4 };
/* QEMU and Hyper-V make logs of 1 MiB. Bounds of what is kept in memory, and of the bytes that are summed in search of the sequence. */
enum { MAX_LEN = 32 << 20, MAX_PATCHES = 65536, MAX_ROUNDS = 16 };

struct log_ring {
    struct fmt_node *node;
    const uint8_t *guid;
    uint8_t *p, *entry /* one entry in one piece */;
    uint32_t len;
    uint64_t summed;
    bool seen;              /* something of this writer is there */
};
struct sequence { uint64_t seq /* of its last entry */; uint32_t first, last, end /* in the ring */; unsigned n /* entries */; };

static void linear(struct log_ring *r, uint32_t at, uint32_t n)
{
    uint32_t first = MIN(n, r->len - at);
    memcpy(r->entry, r->p + at, first);
    memcpy(r->entry + first, r->p, n - first);
}

/* Length of the valid entry at @at, which is in r->entry then; 0: there is none. */
static uint32_t take_entry(struct log_ring *r, uint32_t at)
{
    static const uint8_t zero[4];
    const uint8_t *h = r->p + at;
    uint32_t len = ld_le32(h + E_LEN);
    if (memcmp(h, "loge", 4) || memcmp(h + E_GUID, r->guid, 16))
        return 0;
    r->seen = true;
    if (!len || len % SECTOR || len > r->len || ld_le32(h + E_TAIL) % SECTOR || ld_le32(h + E_TAIL) >= r->len || !ld_le64(h + E_SEQ) ||
        r->summed > (uint64_t)r->len * MAX_ROUNDS)
        return 0;
    r->summed += len;
    linear(r, at, len);
    uint32_t crc = pi_crc32c(pi_crc32c(0, r->entry, E_SUM), zero, sizeof zero);
    return pi_crc32c(crc, r->entry + E_SUM + 4, len - E_SUM - 4) == ld_le32(h + E_SUM) ? len : 0;
}

/* The entries from @at on, each numbered one higher than the one before. False: they do not reach their own tail, or there are none. */
static bool take_sequence(struct log_ring *r, uint32_t at, struct sequence *q)
{
    uint32_t len, used = 0;
    *q = (struct sequence){ .first = at, .end = at };
    while (used < r->len && (len = take_entry(r, q->end))) {
        uint64_t seq = ld_le64(r->entry + E_SEQ);
        if (q->n && (seq != q->seq + 1 || len > r->len - used))
            break;
        q->n++;
        q->seq = seq;
        q->last = q->end;
        used += len;
        q->end = (q->end + len) % r->len;
    }
    if (!q->n)
        return false;
    uint32_t tail = ld_le32(r->p + q->last + E_TAIL);
    return (tail + r->len - at) % r->len < used;
}

static bool find_sequence(struct log_ring *r, struct sequence *best)
{
    struct sequence q;
    for (uint64_t at = 0; at < r->len;) {
        if (take_sequence(r, (uint32_t)at, &q) && (!best->n || q.seq > best->seq))
            *best = q;
        /* Those who begin within a sequence have its end, and reach no further back. */
        if (!q.n)
            at += SECTOR;
        else if (q.end <= at)
            break;
        else
            at = q.end;
    }
    return best->n;
}

/* ---- playing back ---- */

static bool add_patch(struct vhdx_log *log, struct fmt_node *s, uint64_t off, uint64_t len, uint8_t *data, struct err *e)
{
    if (log->n == MAX_PATCHES) {
        free(data);
        return fmt_unsupported(s, e, "has a log of more than %u writes, which is more than is played back here", MAX_PATCHES);
    }
    if (!(log->n & (log->n - 1)))
        log->patches = xrealloc(log->patches, (log->n ? log->n * 2 : 1) * sizeof *log->patches);
    log->patches[log->n++] = (struct vhdx_patch){ off, len, data };
    return true;
}

/* One descriptor of the entry in r->entry; @next: its next sector of data. */
static bool play_descriptor(struct log_ring *r, struct vhdx_log *log, const uint8_t *d, uint32_t *next, uint32_t len, struct err *e)
{
    uint64_t seq = ld_le64(r->entry + E_SEQ), off = ld_le64(d + D_OFF), zeroes = ld_le64(d + D_ZEROES);
    if (ld_le64(d + D_SEQ) != seq || off % SECTOR || off > INT64_MAX)
        return fmt_bad(r->node, e, "a descriptor of its log is not of entry %llu, or for offset 0x%llx", (unsigned long long)seq, (unsigned long long)off);
    if (!memcmp(d, "zero", 4))
        return (zeroes && zeroes % SECTOR == 0 && range_ok(off, zeroes, INT64_MAX)) ? add_patch(log, r->node, off, zeroes, NULL, e)
                                                      : fmt_bad(r->node, e, "its log writes %llu zeroes", (unsigned long long)zeroes);
    const uint8_t *sector = r->entry + *next;
    if (memcmp(d, "desc", 4) || *next >= len || memcmp(sector, "data", 4) ||
        ((uint64_t)ld_le32(sector + S_SEQ_HIGH) << 32 | ld_le32(sector + S_SEQ_LOW)) != seq)
        return fmt_bad(r->node, e, "entry %llu of its log has an unknown descriptor, or not the data of one", (unsigned long long)seq);
    *next += SECTOR;
    uint8_t *data = xcalloc(1, SECTOR);
    memcpy(data, d + D_LEADING, LEADING);
    memcpy(data + LEADING, sector + LEADING, SECTOR - LEADING - TRAILING);
    memcpy(data + SECTOR - TRAILING, d + D_TRAILING, TRAILING);
    return add_patch(log, r->node, off, SECTOR, data, e);
}

static bool play_entry(struct log_ring *r, struct vhdx_log *log, uint32_t len, struct err *e)
{
    uint64_t file = atomic_load(&r->node->node.child.node->size), flushed = ld_le64(r->entry + E_FLUSHED);
    uint32_t n = ld_le32(r->entry + E_DESCS);
    if (flushed > file)             /* 2.3.1.1: what was there when it was written */
        return fmt_bad(r->node, e, "its file is cut off: it has %llu bytes, and had %llu when its log was written",
                       (unsigned long long)file, (unsigned long long)flushed);
    if (n > (len - ENTRY_HEADER) / DESC_LEN)
        return fmt_bad(r->node, e, "an entry of its log has %u descriptors in %u bytes", n, len);
    uint32_t next = (uint32_t)align_up(ENTRY_HEADER + (uint64_t)n * DESC_LEN, SECTOR);
    for (uint32_t i = 0; i < n; i++)
        if (!play_descriptor(r, log, r->entry + ENTRY_HEADER + i * DESC_LEN, &next, len, e))
            return false;
    return true;
}

static bool play(struct log_ring *r, struct vhdx_log *log, const struct sequence *q, struct err *e)
{
    uint32_t at = q->first, tail = ld_le32(r->p + q->last + E_TAIL);
    bool begun = false;
    for (unsigned i = 0; i < q->n; i++) {
        uint32_t len = ld_le32(r->p + at + E_LEN);
        begun |= at == tail;
        linear(r, at, len);
        if (begun && !play_entry(r, log, len, e))
            return false;
        at = (at + len) % r->len;
    }
    return begun || fmt_bad(r->node, e, "the tail of its log is not an entry");
}

bool co_vhdx_log_load(struct vhdx_log *log, struct fmt_node *s, const uint8_t guid[16], uint64_t off, uint32_t len, struct err *e)
{
    struct log_ring r = { .node = s, .guid = guid, .len = len };
    struct sequence q = { 0 };
    if (!len || len % MiB || off % MiB || off < MiB)
        return fmt_bad(s, e, "a log of %u bytes at 0x%llx", len, (unsigned long long)off);
    if (len > MAX_LEN)
        return fmt_unsupported(s, e, "has a log of %u bytes to play back; at most %u are, here", len, MAX_LEN);
    if (!fmt_in_file(s, "log", off, len, e))
        return false;
    r.p = xcalloc(1, len);
    r.entry = xcalloc(1, len);
    bool ok = co_fmt_header(s, off, r.p, len, e);
    if (ok && find_sequence(&r, &q))
        ok = play(&r, log, &q, e);
    else if (ok && r.seen)          /* a writer that got no further than its GUID has changed nothing */
        ok = fmt_bad(s, e, "its log must be played back, and no sequence of entries in it is whole");
    free(r.entry);
    free(r.p);
    return ok;
}

void vhdx_log_free(struct vhdx_log *log)
{
    for (unsigned i = 0; i < log->n; i++)
        free(log->patches[i].data);
    free(log->patches);
    *log = (struct vhdx_log){ 0 };
}

/* ---- what is read ---- */

void vhdx_log_apply(const struct vhdx_log *log, uint64_t off, void *buf, uint64_t len)
{
    for (unsigned i = 0; i < log->n; i++) {
        const struct vhdx_patch *p = &log->patches[i];
        uint64_t from = MAX(off, p->off), to = MIN(off + len, p->off + p->len);
        if (from < to && p->data)
            memcpy((uint8_t *)buf + (from - off), p->data + (from - p->off), to - from);
        else if (from < to)
            memset((uint8_t *)buf + (from - off), 0, to - from);
    }
}

bool vhdx_log_touches(const struct vhdx_log *log, uint64_t off, uint64_t len)
{
    for (unsigned i = 0; i < log->n; i++)
        if (off < log->patches[i].off + log->patches[i].len && log->patches[i].off < off + len)
            return true;
    return false;
}
