/* SPDX-License-Identifier: MIT */
/* Requests to nodes: bounds, zero detection, the visit to the home loop of drivers that keep state there. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/bitmap.h"
#include "block/blk_int.h"

enum { ZERO_BUF = 64 * 1024, DETECT_MIN = 4096 };

static const char *const op_names[] = { "read", "write", "zero", "discard", "erase", "flush", "resize", "map", "write-compressed", "zone-report", "zone-op",
                                        "zone-append" };
struct req {
    struct blk_node *n;
    enum { R_READ, R_WRITE, R_ZERO, R_DISCARD, R_ERASE, R_FLUSH, R_RESIZE, R_MAP, R_COMPRESSED, R_ZONE_REPORT, R_ZONE_OP, R_ZONE_APPEND } op;
    uint64_t off, len;
    const struct iovec *iov;
    unsigned niov, flags;
    struct blk_extent *extent;
    struct blk_zone *zone;
    unsigned *n_zones;
    enum zone_op zone_op;
    int res;
};

uint64_t blk_iov_len(const struct iovec *iov, unsigned n)
{
    uint64_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += iov[i].iov_len;
    return len;
}

unsigned blk_iov_slice(const struct iovec *iov, unsigned n, uint64_t off, uint64_t len, struct iovec *out)
{
    unsigned k = 0;
    for (unsigned i = 0; i < n && len; i++) {
        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        uint64_t part = MIN(iov[i].iov_len - off, len);
        out[k++] = (struct iovec){ (char *)iov[i].iov_base + off, part };
        len -= part;
        off = 0;
    }
    return k;
}

void blk_iov_zero(const struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
}

bool blk_iov_is_zero(const struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!mem_is_zero(iov[i].iov_base, iov[i].iov_len))
            return false;
    }
    return true;
}

void blk_iov_copy(void *flat, const struct iovec *iov, unsigned n, uint64_t at, uint64_t len, bool to_iov)
{
    char *f = flat;
    for (unsigned i = 0; i < n && len; i++) {
        if (at >= iov[i].iov_len) {
            at -= iov[i].iov_len;
            continue;
        }
        char *p = (char *)iov[i].iov_base + at;
        size_t k = MIN(iov[i].iov_len - at, len);
        memcpy(to_iov ? p : f, to_iov ? f : p, k);
        f += k;
        len -= k;
        at = 0;
    }
}

/* ---- zeroes ---- */

/* By writing them: where the driver knows nothing better. */
static int co_zero_by_writing(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    void *buf = NULL;
    int r = 0;
    if (flags & BLK_ZERO_NO_FALLBACK)
        return -ENOTSUP;
    if (posix_memalign(&buf, 4096, ZERO_BUF))
        return -ENOMEM;
    memset(buf, 0, ZERO_BUF);
    while (len && !r) {
        struct iovec v = { buf, MIN(len, (uint64_t)ZERO_BUF) };
        r = BLK_DRIVER(n)->co_pwritev(n, off, v.iov_len, &v, 1, flags & (BLK_FUA | BLK_GROW));
        off += v.iov_len;
        len -= v.iov_len;
    }
    free(buf);
    return r;
}

static int do_zero(struct req *q)
{
    const struct blk_driver *d = BLK_DRIVER(q->n);
    int r = d->co_zero ? d->co_zero(q->n, q->off, q->len, q->flags) : -ENOTSUP;
    return r == -ENOTSUP || r == -EOPNOTSUPP ? co_zero_by_writing(q->n, q->off, q->len, q->flags) : r;
}

static int co_do_write(struct req *q)
{
    struct blk_node *n = q->n;
    if (n->detect_zeroes && q->len >= DETECT_MIN && blk_iov_is_zero(q->iov, q->niov)) {
        q->flags |= n->detect_zeroes == BLK_DETECT_UNMAP ? BLK_ZERO_UNMAP : 0;
        return do_zero(q);
    }
    return BLK_DRIVER(n)->co_pwritev(n, q->off, q->len, q->iov, q->niov, q->flags);
}

static void note_end(struct blk_node *n, uint64_t end)
{
    if (end > atomic_load_explicit(&n->written_to, memory_order_relaxed))
        atomic_store_explicit(&n->written_to, end, memory_order_relaxed);   /* two at once: the smaller may win, once */
}

/* ---- dispatch ---- */

static void co_req_run(void *arg)
{
    struct req *q = arg;
    const struct blk_driver *d = BLK_DRIVER(q->n);
    switch (q->op) {
    case R_READ: q->res = d->co_preadv(q->n, q->off, q->len, q->iov, q->niov, q->flags); break;
    case R_WRITE:
        note_end(q->n, q->off + q->len);
        q->res = co_do_write(q);
        break;
    case R_ZERO: q->res = do_zero(q); break;
    case R_DISCARD: q->res = d->co_discard ? d->co_discard(q->n, q->off, q->len) : 0; break;
    case R_ERASE: q->res = d->co_erase ? d->co_erase(q->n, q->off, q->len) : -ENOTSUP; break;
    case R_FLUSH: q->res = d->co_flush ? d->co_flush(q->n) : 0; break;
    case R_RESIZE: q->res = d->co_resize ? d->co_resize(q->n, q->len) : -ENOTSUP; break;
    case R_MAP:
        *q->extent = (struct blk_extent){ .len = q->len, .data = true };
        if (!q->n->child.node) {            /* the end of a chain: its bytes are where they are read, unless it says more */
            q->extent->has_off = true;
            q->extent->off = q->off;
            q->extent->where = q->n;
        }
        q->res = d->co_map ? d->co_map(q->n, q->off, q->len, q->extent) : 0;
        break;
    case R_ZONE_REPORT: q->res = d->zones->co_report(q->n, q->off, q->zone, q->n_zones); break;
    case R_ZONE_OP: q->res = d->zones->co_op(q->n, q->zone_op, q->off); break;
    case R_ZONE_APPEND: q->res = d->zones->co_append(q->n, &q->off, q->len, q->iov, q->niov, q->flags); break;
    case R_COMPRESSED: q->res = d->co_write_compressed ? d->co_write_compressed(q->n, q->off, q->len, q->iov, q->niov) : -ENOTSUP; break;
    }
}

static bool is_change(const struct req *q)
{
    return q->op == R_WRITE || q->op == R_ZERO || q->op == R_DISCARD || q->op == R_ERASE || q->op == R_COMPRESSED;
}

static bool wants_stable(const struct blk_node *n)
{
    struct blk_watch *w;
    list_for_each(w, &n->watches, link)
        if (w->stable)
            return true;
    return false;
}

/* On the home loop, between the words of the watchers. */
static void co_req_watched(void *arg)
{
    struct req *q = arg;
    struct iovec copy = { NULL, q->len };
    if (q->iov && wants_stable(q->n)) {
        if (posix_memalign(&copy.iov_base, 4096, q->len)) {
            q->res = -ENOMEM;
            return;
        }
        blk_iov_copy(copy.iov_base, q->iov, q->niov, 0, q->len, false);
        q->iov = &copy;
        q->niov = 1;
    }
    struct blk_change c = { .off = q->off, .len = q->len, .iov = q->iov, .niov = q->niov, .stable = copy.iov_base != NULL,
        .discard = q->op == R_DISCARD || q->op == R_ERASE };
    q->res = co_change_begin(q->n, &c);
    if (!q->res)
        co_req_run(q);
    q->res = co_change_end(q->n, &c, q->res);
    free(copy.iov_base);
}

static int req_run(struct req *q)
{
    if (unlikely(atomic_load_explicit(&q->n->watched, memory_order_relaxed)) && is_change(q) && !(q->flags & BLK_UNCHANGED)) {
        co_on_loop(q->n->home, NULL, co_req_watched, q);
        return q->res;
    }
    if ((BLK_DRIVER(q->n)->flags & BLK_ANY_LOOP) || loop_current() == q->n->home)
        co_deeper(co_req_run, q);           /* a request goes down the graph, which is as deep as images say */
    else
        co_on_loop(q->n->home, NULL, co_req_run, q);
    return q->res;
}

static int req_do(struct req *q)
{
    TRACE(block_request, "'%s' %s 0x%" PRIx64 " +%" PRIu64, q->n->obj.id, op_names[q->op], q->off, q->len);
    int r = req_run(q);
    TRACE(block_done, "'%s' %s 0x%" PRIx64 " +%" PRIu64 ": %d", q->n->obj.id, op_names[q->op], q->off, q->len, r);
    return r;
}

static int check(const struct blk_node *n, uint64_t off, uint64_t len, bool write)
{
    if (!range_ok(off, len, atomic_load(&n->size)))
        return blk_node_is_empty(n) ? -ENOMEDIUM : -EIO;
    return write && n->caps.read_only ? -EROFS : 0;
}

/* A format's write may make the file below longer. */
static int check_growing(const struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = check(n, off, len, true);
    if (r != -EIO || !(flags & BLK_GROW))
        return r;
    if (!range_ok(off, len, INT64_MAX - 4096))
        return -EFBIG;
    return n->caps.read_only ? -EROFS : n->caps.grows ? 0 : -ENOSPC;
}

int co_node_preadv(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = check(n, off, len, false);
    if (r || !len)
        return r;
    if (blk_iov_len(iov, niov) != len)
        return -EINVAL;
    return req_do(&(struct req){ .n = n, .op = R_READ, .off = off, .len = len, .iov = iov, .niov = niov, .flags = flags });
}

int co_node_pwritev(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = check_growing(n, off, len, flags);
    if (r || !len)
        return r;
    if (blk_iov_len(iov, niov) != len)
        return -EINVAL;
    return req_do(&(struct req){ .n = n, .op = R_WRITE, .off = off, .len = len, .iov = iov, .niov = niov, .flags = flags });
}

int co_node_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = check_growing(n, off, len, flags);
    if (r || !len)
        return r;
    return req_do(&(struct req){ .n = n, .op = R_ZERO, .off = off, .len = len, .flags = flags });
}

int co_node_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    int r = check(n, off, len, true);
    if (r || !len || !n->caps.discard)
        return r;       /* a discard is a hint: one that cannot be used is done */
    return req_do(&(struct req){ .n = n, .op = R_DISCARD, .off = off, .len = len });
}

int co_node_erase(struct blk_node *n, uint64_t off, uint64_t len)
{
    int r = check(n, off, len, true);

    if (r || !len)
        return r;
    return n->caps.secure_erase ? req_do(&(struct req){ .n = n, .op = R_ERASE, .off = off, .len = len }) : -ENOTSUP;
}

/* "no-flush" is of storage: what a format or a filter keeps is written out all the same, and whether that went well is told. */
int co_node_flush(struct blk_node *n)
{
    if (n->caps.read_only || (n->no_flush && !(BLK_DRIVER(n)->flags & (BLK_FORMAT | BLK_FILTER))))
        return 0;
    return req_do(&(struct req){ .n = n, .op = R_FLUSH });
}

int co_node_scsi(struct blk_node *n, struct blk_scsi *c)
{
    return n->caps.scsi && BLK_DRIVER(n)->co_scsi ? BLK_DRIVER(n)->co_scsi(n, c) : -ENOTSUP;
}

/* The driver tells watchers itself: it alone knows what is changed. */
int co_node_zone_report(struct blk_node *n, uint64_t off, struct blk_zone *out, unsigned *count)
{
    if (!n->caps.zoned.size)
        return -ENOTSUP;
    return req_do(&(struct req){ .n = n, .op = R_ZONE_REPORT, .off = off, .zone = out, .n_zones = count });
}

int co_node_zone_op(struct blk_node *n, enum zone_op op, uint64_t off)
{
    if (!n->caps.zoned.size)
        return -ENOTSUP;
    return n->caps.read_only ? -EROFS : req_do(&(struct req){ .n = n, .op = R_ZONE_OP, .zone_op = op, .off = off });
}

int co_node_zone_append(struct blk_node *n, uint64_t *off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct req q = { .n = n, .op = R_ZONE_APPEND, .off = *off, .len = len, .iov = iov, .niov = niov, .flags = flags };
    int r = n->caps.zoned.size ? check(n, *off, len, true) : -ENOTSUP;

    if (r)
        return r;
    r = req_do(&q);
    *off = q.off;
    return r;
}

int co_node_resize(struct blk_node *n, uint64_t size)
{
    if (n->caps.read_only)
        return -EROFS;
    if (size > INT64_MAX - 4096)
        return -EFBIG;
    struct err ignored = ERR_INIT;
    if (!blk_bitmaps_fit(n, size, &ignored))        /* who can tell a person has looked before */
        return -EOVERFLOW;
    struct blk_watch *w;
    int r = req_do(&(struct req){ .n = n, .op = R_RESIZE, .len = size });
    list_for_each(w, &n->watches, link)     /* sizes change on the main loop only */
        if (!r && w->resized)
            w->resized(w, atomic_load(&n->size));
    return r;
}

int co_node_write_compressed(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    int r = check(n, off, len, true);
    if (r || !len)
        return r;
    return req_do(&(struct req){ .n = n, .op = R_COMPRESSED, .off = off, .len = len, .iov = iov, .niov = niov });
}

int co_node_map_layer(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    int r = check(n, off, len, false);
    r = r ? r : req_do(&(struct req){ .n = n, .op = R_MAP, .off = off, .len = len, .extent = out });
    if (!r && out->below && !n->backing.node)
        out->zero = true;
    return r;
}

/* Data that is a hole in the file which holds it, or behind its end. */
static void co_look_below(struct blk_extent *out)
{
    struct blk_extent hole;
    uint64_t size = atomic_load(&out->where->size), len = out->off >= size ? 0 : MIN(out->len, size - out->off);
    if (!len)
        out->zero = true;
    if (!len || co_node_map_layer((struct blk_node *)out->where, out->off, len, &hole))
        return;
    out->zero = hole.zero;
    out->len = hole.len;
}

int co_node_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    for (unsigned depth = 0;; depth++) {
        int r = co_node_map_layer(n, off, len, out);
        if (r)
            return r;
        out->depth = depth;
        struct blk_node *b = n->backing.node;
        if (out->sparse && out->has_off && out->where)
            co_look_below(out);
        if (!out->below || !b)
            return 0;
        uint64_t size = atomic_load(&b->size);
        if (off >= size) {
            out->zero = true;
            return 0;
        }
        len = MIN(out->len, size - off);
        n = b;
    }
}
