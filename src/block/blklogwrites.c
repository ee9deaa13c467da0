/* SPDX-License-Identifier: MIT */
/*
 * "blklogwrites": every write, discard and flush is noted on another node, in the format of the kernel's dm-log-writes target
 * (Documentation/admin-guide/device-mapper/log-writes.rst), so that its tools play them back up to any point.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/filter.h"

#define LOG_MAGIC UINT64_C(0x6a736677736872)
enum { LOG_VERSION = 1, LOG_FLUSH = 1, LOG_FUA = 2, LOG_DISCARD = 4 };
enum { S_VERSION = 8, S_ENTRIES = 16, S_SECTOR = 24, E_SECTORS = 8, E_FLAGS = 16, E_LEN = 24 };

struct blk_log {
    struct blk_node node;
    json_t *file, *log_opt;
    struct blk_use log;
    uint32_t sector;
    bool append;
    uint64_t interval;                  /* entries between two updates of the superblock */
    uint64_t entries, pos;
    struct co_mutex lock;
};
static struct blk_log *of(struct blk_node *n) { return (struct blk_log *)n; }

static int co_log_write(struct blk_log *s, uint64_t off, const void *p, uint64_t len)
{
    struct iovec v = { (void *)p, len };
    return co_node_pwritev(s->log.node, off, len, &v, 1, BLK_GROW);
}

static int co_superblock(struct blk_log *s)
{
    uint8_t *p = calloc(1, s->sector);
    if (!p)
        return -ENOMEM;
    st_le64(p, LOG_MAGIC);
    st_le64(p + S_VERSION, LOG_VERSION);
    st_le64(p + S_ENTRIES, s->entries);
    st_le32(p + S_SECTOR, s->sector);
    int r = co_log_write(s, 0, p, s->sector);
    free(p);
    return r ? r : co_node_flush(s->log.node);
}

/* Goes to the end of the log that is there. */
static bool co_continue(struct blk_log *s, struct err *e)
{
    uint8_t h[32];
    struct iovec v = { h, sizeof h };
    int r = co_node_preadv(s->log.node, 0, sizeof h, &v, 1, 0);
    if (r)
        return err_os(e, -r, "cannot read the log");
    if (ld_le64(h) != LOG_MAGIC || ld_le64(h + S_VERSION) != LOG_VERSION || ld_le32(h + S_SECTOR) < 512 || !is_pow2(ld_le32(h + S_SECTOR)) ||
        ld_le32(h + S_SECTOR) > MiB)
        return err_set(e, ERR_VALUE, "log-append: the log is none");
    s->sector = ld_le32(h + S_SECTOR);
    uint64_t n = ld_le64(h + S_ENTRIES);
    for (s->pos = s->sector, s->entries = 0; s->entries < n; s->entries++) {
        r = range_ok(s->pos, sizeof h, atomic_load(&s->log.node->size)) ? co_node_preadv(s->log.node, s->pos, sizeof h, &v, 1, 0) : -EIO;
        uint64_t len = ld_le64(h + E_SECTORS) * s->sector;
        if (r || len > INT64_MAX / 2)
            return err_set(e, ERR_VALUE, "log-append: the log ends before entry %llu", (unsigned long long)s->entries);
        s->pos += s->sector + (ld_le64(h + E_FLAGS) & LOG_DISCARD ? 0 : len);
    }
    return true;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_log *s = of(n);
    if (!co_filter_open(n, s->file, e) || !blk_child_open_at(n, &s->log, "log", s->log_opt, BLK_PERM_ALL, 0, e))
        return false;
    n->caps.logical_block = MAX(n->caps.logical_block, s->sector);
    n->caps.grows = false;
    s->pos = s->sector;
    if (s->append && !co_continue(s, e))
        return false;
    int r = s->append ? 0 : co_superblock(s);
    return !r || err_os(e, -r, "cannot write the log");
}

static void co_close(struct blk_node *n)
{
    struct blk_log *s = of(n);
    if (s->log.node)
        co_superblock(s);
    blk_child_close_at(&s->log);
    co_filter_close(n);
}

static int co_entry_head(struct blk_log *s, uint64_t off, uint64_t len, unsigned flags, uint64_t data)
{
    uint8_t *p = calloc(1, s->sector);
    if (!p)
        return -ENOMEM;
    st_le64(p, off / s->sector);
    st_le64(p + E_SECTORS, len / s->sector);
    st_le64(p + E_FLAGS, flags);
    int r = co_log_write(s, s->pos, p, s->sector);
    free(p);
    if (r)
        return r;
    s->pos += s->sector + data;
    s->entries++;
    return 0;
}

/* Notes what was done; @iov NULL: zeroes, or nothing where @data is 0. */
static int co_note(struct blk_log *s, uint64_t off, uint64_t len, unsigned flags, uint64_t data, const struct iovec *iov, unsigned niov)
{
    co_mutex_lock(&s->lock);
    uint64_t at = s->pos + s->sector;
    int r = !data ? 0 : iov ? co_node_pwritev(s->log.node, at, data, iov, niov, BLK_GROW) : co_node_zero(s->log.node, at, data, BLK_GROW);
    r = r ? r : co_entry_head(s, off, len, flags, data);
    if (!r && (flags & LOG_FLUSH || s->entries % s->interval == 0))
        r = co_superblock(s);
    co_mutex_unlock(&s->lock);
    return r;
}

static bool ragged(const struct blk_log *s, uint64_t off, uint64_t len) { return (off | len) & (s->sector - 1); }

/* The log is of whole sectors: a ragged write is noted as those that it changed, as they are after. */
static int co_note_ragged(struct blk_log *s, uint64_t off, uint64_t len, unsigned flags)
{
    uint64_t from = align_down(off, s->sector), n = MIN(align_up(off + len, s->sector), atomic_load(&s->node.size)) - from, all = align_up(n, s->sector);
    uint8_t *buf = calloc(1, all);
    struct iovec v = { buf, n }, w = { buf, all };
    int r = buf ? co_node_preadv(s->node.child.node, from, n, &v, 1, 0) : -ENOMEM;
    r = r ? r : co_note(s, from, all, flags, all, &w, 1);
    free(buf);
    return r;
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_log *s = of(n);
    unsigned fua = flags & BLK_FUA ? LOG_FUA : 0;
    int r = co_filter_write(n, off, len, iov, niov, flags);
    return r ? r : ragged(s, off, len) ? co_note_ragged(s, off, len, fua) : co_note(s, off, len, fua, len, iov, niov);
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_log *s = of(n);
    unsigned fua = flags & BLK_FUA ? LOG_FUA : 0;
    int r = co_filter_zero(n, off, len, flags);
    return r ? r : ragged(s, off, len) ? co_note_ragged(s, off, len, fua) : co_note(s, off, len, fua, len, NULL, 0);
}

static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    int r = co_filter_discard(n, off, len);
    return r || ragged(of(n), off, len) ? r : co_note(of(n), off, len, LOG_DISCARD, 0, NULL, 0);
}

static int co_flush(struct blk_node *n)
{
    int r = co_filter_flush(n);
    return r ? r : co_note(of(n), 0, 0, LOG_FLUSH, 0, NULL, 0);
}

static const struct prop props[] = {
    PROP_JSON(struct blk_log, file, "file", PF_REQUIRED, "Node below"),
    PROP_JSON(struct blk_log, log_opt, "log", PF_REQUIRED, "Node that the log is written to"),
    { .name = "log-sector-size", .doc = "Unit of the log", .type = PROP_T_U32, .flags = PF_POW2, PROP_OFF(struct blk_log, sector), .def = 512,
      .min = 512, .max = MiB },
    PROP_BOOL(struct blk_log, append, "log-append", false, "Go on at the end of the log that is there"),
    PROP_U64(struct blk_log, interval, "log-super-update-interval", 4096, 1, UINT32_MAX, "Entries between two updates of the log's superblock"),
    PROP_END,
};
static const struct blk_driver log_driver = {
    .obj = { .name = "blockdev-blklogwrites", .desc = "Writes are noted on another node, as dm-log-writes does", .base = &blk_node_class,
             .size = sizeof(struct blk_log), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_close, .co_preadv = co_filter_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_discard = co_discard, .co_flush = co_flush, .co_map = co_filter_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&log_driver.obj);
