/* SPDX-License-Identifier: MIT */
/* What the formats of blocks and tables share; writing is in fmt_write.c. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/backing.h"
#include "block/fmt.h"
#include "core/backend.h"
#ifdef CONFIG_ZLIB
#include <zlib.h>
#endif

enum { MAX_LOOKUPS = 65536 };       /* of one answer about a map */

static struct fmt_node *of(struct blk_node *n) { return (struct fmt_node *)n; }
static const char *fmt_name(const struct fmt_node *s) { return backend_type(&blk_node_class, s->node.obj.cls); }

/* ---- messages ---- */

bool fmt_bad(const struct fmt_node *s, struct err *e, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(e, ERR_VALUE, "'%s' is not a valid %s image: %s", blk_node_filename(&s->node), fmt_name(s), text);
}

bool fmt_unsupported(const struct fmt_node *s, struct err *e, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(e, ERR_NOT_BUILT, "'%s' %s", blk_node_filename(&s->node), text);
}

/* ---- opening ---- */

bool co_fmt_open(struct fmt_node *s, struct err *e)
{
    struct blk_node *n = &s->node;
    if (s->co_place)
        return co_fmt_open_writable(s, e);
    if (!n->read_only && !n->auto_read_only) {
        err_set(e, ERR_VALUE, "images of format '%s' can only be read here", fmt_name(s));
        return err_hint(e, "read-only=on, or backplane-img convert -O qcow2");
    }
    n->read_only = true;
    return blk_child_open(n, s->file, BLK_PERM_READ, BLK_PERM_READ, e);
}

bool fmt_ready(struct fmt_node *s, uint64_t size, struct err *e)
{
    struct blk_node *n = &s->node;
    const struct blk_node *file = n->child.node;
    if (size > INT64_MAX - 4096)
        return fmt_bad(s, e, "%llu bytes are more than is possible", (unsigned long long)size);
    n->caps = (struct blk_caps){ .read_only = n->read_only, .write_zeroes = !n->read_only, .flush = !n->no_flush, .fua = true,
        .logical_block = 512, .physical_block = 512, .mem_align = file->caps.mem_align };
    atomic_store(&n->size, align_up(size, 512));
    s->ready = true;
    return true;
}

void co_fmt_close(struct blk_node *n)
{
    struct fmt_node *s = of(n);
    int r = s->co_settle && s->ready && !n->caps.read_only ? s->co_settle(n) : 0;
    if (r)
        log_warn("%s: its header could not be brought up to date: %s", blk_node_filename(n), strerror(-r));
    blk_child_close_at(&n->backing);
    blk_child_close(n);
    free(n->backing_name);
    free(n->backing_fmt);
    n->backing_name = n->backing_fmt = NULL;
    free(s->unpacked);
    s->unpacked = NULL;
}

/* Nobody gets more than reading, whoever uses the image. */
bool fmt_set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e) { return true; }
uint32_t fmt_cluster_size(const struct blk_node *n) { return (uint32_t)((const struct fmt_node *)n)->unit; }

/* ---- the file ---- */

int co_fmt_pread(struct blk_node *file, uint64_t off, void *buf, uint64_t len)
{
    uint64_t size = atomic_load(&file->size), there = off >= size ? 0 : MIN(len, size - off);
    struct iovec v = { buf, there };
    memset((char *)buf + there, 0, len - there);
    return there ? co_node_preadv(file, off, there, &v, 1, 0) : 0;
}

bool co_fmt_header(struct fmt_node *s, uint64_t off, void *buf, uint64_t len, struct err *e)
{
    int r = co_fmt_pread(s->node.child.node, off, buf, len);
    return !r || err_os(e, -r, "cannot read '%s'", blk_node_filename(&s->node));
}

bool fmt_in_file(const struct fmt_node *s, const char *what, uint64_t off, uint64_t len, struct err *e)
{
    return range_ok(off, len, atomic_load(&s->node.child.node->size)) ||
           fmt_bad(s, e, "the %s at 0x%llx, %llu bytes, is not in the file", what, (unsigned long long)off, (unsigned long long)len);
}

int co_fmt_entry(struct blk_node *file, struct fmt_window *w, uint64_t off, void *out, unsigned n)
{
    if (off > INT64_MAX - FMT_WINDOW)
        return -EIO;
    if (!w->len || off < w->off || !range_ok(off - w->off, n, w->len)) {
        uint8_t buf[FMT_WINDOW];                /* others may look while we read */
        uint64_t at = align_down(off, 512);
        uint32_t changes = w->changes;
        int r = co_fmt_pread(file, at, buf, sizeof buf);
        if (r)
            return r;
        memcpy(out, buf + (off - at), n);
        if (changes != w->changes)
            return 0;
        memcpy(w->data, buf, sizeof buf);
        w->off = at;
        w->len = sizeof buf;
    }
    memcpy(out, w->data + (off - w->off), n);
    return 0;
}

/* ---- compressed blocks ---- */

struct inflate_args { uint8_t *in, *out; uint64_t in_len, out_len; int window; };
static int inflate_work(void *arg)
{
#ifdef CONFIG_ZLIB
    struct inflate_args *a = arg;
    z_stream z = { .next_in = a->in, .avail_in = (uInt)a->in_len, .next_out = a->out, .avail_out = (uInt)a->out_len };
    if (inflateInit2(&z, a->window) != Z_OK)
        return -ENOMEM;
    int r = inflate(&z, Z_FINISH);
    bool whole = (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && !z.avail_out;
    inflateEnd(&z);
    return whole ? 0 : -EIO;
#else
    return -ENOTSUP;
#endif
}

int co_fmt_inflate(struct blk_node *file, uint64_t off, uint64_t in_len, int window, uint8_t *out, uint64_t out_len)
{
    struct inflate_args a = { malloc(MAX(in_len, (uint64_t)1)), out, in_len, out_len, window };
    int r = a.in ? co_fmt_pread(file, off, a.in, in_len) : -ENOMEM;
    r = r ? r : co_offload(inflate_work, &a);
    free(a.in);
    return r;
}

static int co_read_packed(struct fmt_node *s, const struct fmt_run *run, uint64_t in_unit, const struct iovec *iov, unsigned niov, uint64_t at,
                          uint64_t len)
{
    if (!s->unpacked || s->unpacked_off != run->off || s->unpacked_file != run->file) {
        uint8_t *buf = malloc(s->unit);
        int r = buf ? s->co_unpack(&s->node, run, buf) : -ENOMEM;
        if (r) {
            free(buf);
            return r;
        }
        free(s->unpacked);
        s->unpacked = buf;
        s->unpacked_off = run->off;
        s->unpacked_file = run->file;
    }
    blk_iov_copy(s->unpacked + in_unit, iov, niov, at, len, true);
    return 0;
}

/* ---- reading ---- */

int co_fmt_run(struct fmt_node *s, uint64_t off, uint64_t len, struct fmt_run *out)
{
    int r = s->co_lookup(&s->node, off, out);
    uint64_t n = s->unit - off % s->unit;
    out->len = MIN(n, len);
    for (unsigned i = 0; !r && out->kind != FMT_PACKED && out->len < len && i < MAX_LOOKUPS; i++) {
        struct fmt_run next;
        r = s->co_lookup(&s->node, off + out->len, &next);
        if (r || next.kind != out->kind || (next.kind == FMT_DATA && (next.file != out->file || next.off != out->off + out->len)))
            break;
        out->len += MIN(s->unit, len - out->len);
    }
    return out->len ? 0 : r;
}

static int co_read_file(struct blk_node *file, uint64_t off, uint64_t len, struct iovec *iov, unsigned n)
{
    uint64_t size = file ? atomic_load(&file->size) : 0, there = off >= size ? 0 : MIN(len, size - off);
    if (there == len)
        return co_node_preadv(file, off, len, iov, n, 0);
    struct iovec *part = calloc(n, sizeof *part);
    if (!part)
        return -ENOMEM;
    blk_iov_zero(part, blk_iov_slice(iov, n, there, len - there, part));
    int r = there ? co_node_preadv(file, off, there, part, blk_iov_slice(iov, n, 0, there, part), 0) : 0;
    free(part);
    return r;
}

static int co_read_run(struct fmt_node *s, const struct fmt_run *run, uint64_t off, const struct iovec *iov, unsigned niov, uint64_t at)
{
    if (run->kind == FMT_PACKED)
        return co_read_packed(s, run, off % s->unit, iov, niov, at, run->len);
    if (run->kind == FMT_DATA && run->off >= atomic_load(&run->file->size))
        return -EIO;                /* the image names what it does not have */
    struct iovec *part = calloc(niov, sizeof *part);
    if (!part)
        return -ENOMEM;
    unsigned n = blk_iov_slice(iov, niov, at, run->len, part);
    int r = 0;
    if (run->kind == FMT_ZERO)
        blk_iov_zero(part, n);
    else
        r = run->kind == FMT_DATA ? co_read_file(run->file, run->off, run->len, part, n)
                                  : co_read_file(s->node.backing.node, off, run->len, part, n);
    free(part);
    return r;
}

int co_fmt_preadv(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = 0;
    for (uint64_t at = 0; at < len && !r;) {
        struct fmt_run run;
        r = co_fmt_run(of(n), off + at, len - at, &run);
        r = r ? r : co_read_run(of(n), &run, off + at, iov, niov, at);
        at += run.len;
    }
    return r;
}

int co_fmt_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct fmt_run run;
    int r = co_fmt_run(of(n), off, len, &run);
    if (r)
        return r;
    *out = (struct blk_extent){ .len = run.len, .data = run.kind == FMT_DATA || run.kind == FMT_PACKED, .zero = run.kind == FMT_ZERO,
        .below = run.kind == FMT_BELOW, .compressed = run.kind == FMT_PACKED, .has_off = run.kind == FMT_DATA, .sparse = run.flat,
        .off = run.off, .where = run.file };
    return 0;
}

/* ---- check: every block is in its file, and none is there twice ---- */

struct walk { struct fmt_node *s; struct blk_check *res; uint8_t *seen; uint64_t units; };

static void complain(struct walk *w, const char *what, uint64_t off, const struct fmt_run *run)
{
    char line[160];
    w->res->corruptions++;
    snprintf(line, sizeof line, "ERROR the block at 0x%llx is at 0x%llx of the file, %s", (unsigned long long)off, (unsigned long long)run->off, what);
    if (w->res->say)
        w->res->say(w->res->arg, line);
}

static void check_block(struct walk *w, uint64_t off, const struct fmt_run *run)
{
    uint64_t size = atomic_load(&run->file->size), unit = run->off / w->s->unit;
    w->res->allocated++;
    w->res->compressed += run->kind == FMT_PACKED;
    w->res->end = MAX(w->res->end, run->off + (run->kind == FMT_PACKED ? run->packed_len : w->s->unit));
    if (run->off >= size)
        complain(w, "behind its end", off, run);
    else if (run->file == w->s->node.child.node && run->off < w->s->data_start)
        complain(w, "where tables are", off, run);
    else if (run->kind == FMT_DATA && w->seen && unit < w->units && run->file == w->s->node.child.node) {
        if (w->seen[unit / 8] >> (unit % 8) & 1)
            complain(w, "which another block uses, too", off, run);
        w->seen[unit / 8] |= (uint8_t)(1 << (unit % 8));
    }
}

int co_fmt_check(struct blk_node *n, struct blk_check *res, unsigned fix)
{
    struct fmt_node *s = of(n);
    struct walk w = { .s = s, .res = res, .units = atomic_load(&n->child.node->size) / s->unit + 1 };
    uint64_t size = atomic_load(&n->size);
    int r = 0;
    if (w.units <= UINT64_C(1) << 33)
        w.seen = calloc(1, w.units / 8 + 1);
    res->total = size / s->unit + (size % s->unit != 0);
    for (uint64_t at = 0; at < size && !r; at += s->unit - at % s->unit) {
        struct fmt_run run;
        r = s->co_lookup(n, at, &run);
        if (!r && (run.kind == FMT_DATA || run.kind == FMT_PACKED))
            check_block(&w, at, &run);
    }
    free(w.seen);
    return r;
}
