/* SPDX-License-Identifier: MIT */
/*
 * Writing to formats of blocks and a table. A block that is there is written in place. One that is not gets a place behind the end of
 * the file, where everything reads as zeroes; its data is written, then the entry that shows it. So an error or the end of this process
 * in between leaves space that nobody uses, at worst; what was not flushed may be gone after a power cut.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/fmt.h"

static struct fmt_node *of(struct blk_node *n) { return (struct fmt_node *)n; }

bool co_fmt_open_writable(struct fmt_node *s, struct err *e)
{
    struct blk_node *n = &s->node;
    if (!blk_child_open(n, s->file, BLK_PERM_READ, BLK_PERM_ALL, e))
        return false;
    n->read_only |= n->child.node->caps.read_only;      /* auto-read-only below */
    return blk_use_change(&n->child, n->read_only ? BLK_PERM_READ : BLK_PERM_ALL, BLK_PERM_READ, e);
}

int co_fmt_pwrite(struct blk_node *file, uint64_t off, const void *buf, uint64_t len)
{
    struct iovec v = { (void *)buf, len };
    return co_node_pwritev(file, off, len, &v, 1, BLK_GROW);
}

int co_fmt_fill(struct blk_node *file, uint64_t off, uint64_t len, int byte)
{
    uint64_t most = MIN(len, (uint64_t)65536);
    uint8_t *buf = malloc(MAX(most, (uint64_t)1));
    int r = buf ? 0 : -ENOMEM;
    if (buf)
        memset(buf, byte, most);
    for (uint64_t at = 0; at < len && !r; at += most)
        r = co_fmt_pwrite(file, off + at, buf, MIN(most, len - at));
    free(buf);
    return r;
}

int co_fmt_entry_set(struct blk_node *file, struct fmt_window *w, uint64_t off, const void *v, unsigned size)
{
    w->changes++;
    int r = co_fmt_pwrite(file, off, v, size);
    w->changes++;
    w->len = 0;
    return r;
}

/* ---- new blocks ---- */

struct piece { uint64_t off, len; const struct iovec *iov; unsigned niov; uint64_t at; /* in @iov */ };

/* The whole block as it reads, and the piece over it. */
static int co_write_whole(struct fmt_node *s, const struct piece *p, uint64_t block, uint64_t place)
{
    uint64_t size = atomic_load(&s->node.size);
    uint8_t *buf = calloc(1, s->unit);
    struct iovec v = { buf, MIN(s->unit, size - block) };
    int r = buf ? co_fmt_preadv(&s->node, block, v.iov_len, &v, 1, 0) : -ENOMEM;
    if (!r) {
        blk_iov_copy(buf + (p->off - block), p->iov, p->niov, p->at, p->len, false);
        r = co_fmt_pwrite(s->node.child.node, place, buf, s->unit);
    }
    free(buf);
    return r;
}

static int co_write_part(struct fmt_node *s, const struct piece *p, uint64_t block, uint64_t place)
{
    struct blk_node *file = s->node.child.node;
    struct iovec *part = calloc(p->niov, sizeof *part);
    if (!part)
        return -ENOMEM;
    unsigned k = blk_iov_slice(p->iov, p->niov, p->at, p->len, part);
    int r = co_node_pwritev(file, place + (p->off - block), p->len, part, k, BLK_GROW);
    free(part);
    return r || atomic_load(&file->size) >= place + s->unit ? r : co_node_resize(file, place + s->unit);
}

/* The piece of one block that has no place yet, unless another request found one meanwhile. */
static int co_write_new(struct fmt_node *s, const struct piece *p, bool *done)
{
    struct blk_node *n = &s->node;
    struct fmt_run was;
    uint64_t block = align_down(p->off, s->unit), place;
    co_mutex_lock(&s->growing);
    int r = s->co_lookup(n, block, &was);
    *done = !r && was.kind != FMT_DATA;
    if (*done) {
        r = s->co_place(n, block, &place);
        r = r ? r : was.kind == FMT_PACKED || (was.kind == FMT_BELOW && n->backing.node) ? co_write_whole(s, p, block, place)
                                                                                        : co_write_part(s, p, block, place);
        r = r ? r : s->co_link(n, block, place);
    }
    co_mutex_unlock(&s->growing);
    return r;
}

/* ---- of struct blk_driver ---- */

int co_fmt_pwritev(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct fmt_node *s = of(n);
    struct iovec *part = s->co_place ? calloc(niov, sizeof *part) : NULL;
    int r = part ? 0 : s->co_place ? -ENOMEM : -EROFS;
    s->changed = true;
    for (uint64_t at = 0; at < len && !r;) {
        struct fmt_run run;
        r = co_fmt_run(s, off + at, len - at, &run);
        if (r)
            break;
        if (run.kind == FMT_DATA) {             /* what the image names and does not have is not made by a write */
            r = run.off >= atomic_load(&run.file->size) ? -EIO : s->co_touch ? s->co_touch(n, off + at, run.len) : 0;
            r = r ? r : co_node_pwritev(run.file, run.off, run.len, part, blk_iov_slice(iov, niov, at, run.len, part), BLK_GROW);
            at += run.len;
            continue;
        }
        const struct piece p = { off + at, MIN(len - at, s->unit - (off + at) % s->unit), iov, niov, at };
        bool done = false;
        r = co_write_new(s, &p, &done);
        at += done ? p.len : 0;
    }
    free(part);
    return !r && flags & BLK_FUA ? co_fmt_flush(n) : r;
}

int co_fmt_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct fmt_node *s = of(n);
    int r = s->co_place ? 0 : -EROFS;
    s->changed = true;
    for (uint64_t at = 0; at < len && !r;) {
        struct fmt_run run;
        r = co_fmt_run(s, off + at, len - at, &run);
        if (r)
            break;
        if (run.kind == FMT_DATA) {
            r = s->co_touch ? s->co_touch(n, off + at, run.len) : 0;
            r = r ? r : co_node_zero(run.file, run.off, run.len, flags & BLK_ZERO_UNMAP);
        } else if (run.kind == FMT_PACKED || (run.kind == FMT_BELOW && n->backing.node))
            r = -ENOTSUP;               /* all of it is written instead */
        at += run.len;
    }
    return !r && flags & BLK_FUA ? co_fmt_flush(n) : r;
}

int co_fmt_flush(struct blk_node *n)
{
    struct fmt_node *s = of(n);
    int r = s->co_settle ? s->co_settle(n) : 0;
    return r ? r : co_node_flush(n->child.node);
}

bool co_fmt_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    int r = writable ? 0 : co_fmt_flush(n);
    return r ? err_os(e, -r, "cannot write what '%s' has in memory", n->obj.id)
             : blk_use_change(&n->child, writable ? BLK_PERM_ALL : BLK_PERM_READ, BLK_PERM_READ, e);
}
