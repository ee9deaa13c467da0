/* SPDX-License-Identifier: MIT */
/* What the kernel asks of a file that shows a block node. Each request is a coroutine of the export's domain. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/falloc.h>
#include "block/blk_int.h"
#include "block/fuse_int.h"

enum { FUSE_READ_MAX = 64 << 20 };

struct freq {
    struct fuse_export *x;
    fuse_req_t req;
    void (*co_run)(struct freq *);
    uint64_t off, len;
    void *mem;                      /* of a write: the message's buffer */
    const char *data;
    int arg;                        /* mode of fallocate, whence of lseek, what setattr sets */
    struct stat attr;
    int r;                          /* of a resize */
};

static void request(void *arg)
{
    struct freq *q = arg;
    struct fuse_export *x = q->x;
    q->co_run(q);
    if (q->mem && x->n_spare < FUSE_FREE_BUFS)
        x->spare[x->n_spare++] = q->mem;
    else
        free(q->mem);
    free(q);
    atomic_fetch_sub(&x->in_flight, 1);
}

static void start(fuse_req_t req, void (*co_run)(struct freq *), const struct freq *args)
{
    struct freq *q = xnew(struct freq);
    *q = *args;
    q->x = fuse_req_userdata(req);
    q->req = req;
    q->co_run = co_run;
    if (q->data) {                  /* the message stays with the request */
        q->mem = q->x->buf.mem;
        q->x->buf.mem = NULL;
    }
    atomic_fetch_add(&q->x->in_flight, 1);
    co_spawn(loop_main(), q->x->exp.dom, request, q);
}

static uint64_t size_of(const struct fuse_export *x) { return blk_size(x->exp.blk); }

/* ---- attributes, size ---- */

static struct stat attributes(const struct fuse_export *x)
{
    return (struct stat){ .st_ino = FUSE_ROOT_ID, .st_mode = x->mode, .st_nlink = 1, .st_uid = x->uid, .st_gid = x->gid, .st_size = (off_t)size_of(x),
                          .st_blksize = 65536, .st_blocks = (blkcnt_t)((size_of(x) + 511) / 512), .st_atim = x->atime, .st_mtim = x->mtime,
                          .st_ctim = x->mtime };
}

static void reply_attr(fuse_req_t req, const struct fuse_export *x)
{
    struct stat st = attributes(x);
    fuse_reply_attr(req, &st, 0);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { reply_attr(req, fuse_req_userdata(req)); }

/* On the main loop. q->len: at least, or (q->arg) exactly. */
static void co_resize_main(void *arg)
{
    struct freq *q = arg;
    struct blk_export *exp = &q->x->exp;
    struct blk_use *u = &exp->blk->use;
    unsigned perm = u->perm, shared = u->shared;
    struct err e = ERR_INIT;
    uint64_t size = q->len > INT64_MAX - 4096 ? UINT64_MAX : align_up(q->len, 512);
    co_mutex_lock(&q->x->resizing);
    q->r = 0;
    if (size != size_of(q->x) && (q->arg || size > size_of(q->x))) {
        q->r = size == UINT64_MAX ? -EFBIG : !blk_use_change(u, perm | BLK_PERM_RESIZE, shared, &e) ? -EBUSY : co_node_resize(u->node, size);
        if (!q->r)
            blk_node_changed(u->node);
        if (u->perm != perm && !blk_use_change(u, perm, shared, &e))
            err_print(&e);
    }
    co_mutex_unlock(&q->x->resizing);
}

static int co_resize(struct fuse_export *x, uint64_t size, bool exact)
{
    struct freq q = { .x = x, .len = size, .arg = exact };
    co_on_loop(loop_main(), NULL, co_resize_main, &q);
    return q.r;
}

/* [off, off + len) is to be there: 0, or why it is not. */
static int co_grow(struct fuse_export *x, uint64_t off, uint64_t len)
{
    if (range_ok(off, len, size_of(x)))
        return 0;
    if (!range_ok(off, len, INT64_MAX - 4096))
        return -EFBIG;
    return x->growable ? co_resize(x, off + len, false) : -ENOSPC;
}

enum { CAN_SET = FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
                 FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME };

static int may_set(const struct fuse_export *x, int set, const struct stat *st)
{
    if (set & ~CAN_SET)
        return ENOTSUP;
    if (!x->exp.writable && ((set & FUSE_SET_ATTR_SIZE) || ((set & FUSE_SET_ATTR_MODE) && (st->st_mode & 0222))))
        return EROFS;
    /* A file that others cannot see is nobody else's. */
    return !x->shared && (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) ? EPERM : 0;
}

static void set_times(struct fuse_export *x, int set, const struct stat *st)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
        x->atime = set & FUSE_SET_ATTR_ATIME_NOW ? now : st->st_atim;
    if (set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
        x->mtime = set & FUSE_SET_ATTR_MTIME_NOW ? now : st->st_mtim;
}

static void co_setattr(struct freq *q)
{
    struct fuse_export *x = q->x;
    int r = may_set(x, q->arg, &q->attr);
    if (!r && (q->arg & FUSE_SET_ATTR_SIZE))
        r = -co_resize(x, (uint64_t)q->attr.st_size, true);
    if (r) {
        fuse_reply_err(q->req, r);
        return;
    }
    if (q->arg & FUSE_SET_ATTR_MODE)
        x->mode = S_IFREG | (q->attr.st_mode & 07777);
    if (q->arg & FUSE_SET_ATTR_UID)
        x->uid = q->attr.st_uid;
    if (q->arg & FUSE_SET_ATTR_GID)
        x->gid = q->attr.st_gid;
    set_times(x, q->arg, &q->attr);
    reply_attr(q->req, x);
}
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int set, struct fuse_file_info *fi)
{
    start(req, co_setattr, &(struct freq){ .attr = *st, .arg = set });
}

/* ---- data ---- */

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fi->direct_io = 1;              /* the node has other users: nothing is kept by the kernel */
    fuse_reply_open(req, fi);
}

static void co_read(struct freq *q)
{
    uint64_t size = size_of(q->x), len = q->off >= size ? 0 : MIN(MIN(q->len, size - q->off), (uint64_t)FUSE_READ_MAX);
    void *buf = NULL;
    int r = posix_memalign(&buf, 4096, MAX(len, 1u)) ? -ENOMEM : 0;
    struct iovec v = { buf, len };
    if (!r && len)
        r = co_blk_preadv(q->x->exp.blk, q->off, len, &v, 1, 0);
    if (r)
        fuse_reply_err(q->req, -r);
    else
        fuse_reply_buf(q->req, buf, len);
    free(buf);
}
static void op_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off, struct fuse_file_info *fi)
{
    start(req, co_read, &(struct freq){ .off = (uint64_t)off, .len = len });
}

static void co_write(struct freq *q)
{
    struct fuse_export *x = q->x;
    struct iovec v = { (void *)q->data, q->len };
    int r = x->exp.writable ? co_grow(x, q->off, q->len) : -EROFS;
    if (r == -ENOSPC && q->off < size_of(x)) {          /* as much as fits, as on a device */
        v.iov_len = size_of(x) - q->off;
        r = 0;
    }
    r = r ? r : co_blk_pwritev(x->exp.blk, q->off, v.iov_len, &v, 1, 0);
    if (r) {
        fuse_reply_err(q->req, -r);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &x->mtime);
    fuse_reply_write(q->req, v.iov_len);
}
static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t len, off_t off, struct fuse_file_info *fi)
{
    start(req, co_write, &(struct freq){ .off = (uint64_t)off, .len = len, .data = data });
}

static void co_flush(struct freq *q) { fuse_reply_err(q->req, -co_blk_flush(q->x->exp.blk)); }
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) { start(req, co_flush, &(struct freq){ 0 }); }
static void op_fsync(fuse_req_t req, fuse_ino_t ino, int only_data, struct fuse_file_info *fi) { start(req, co_flush, &(struct freq){ 0 }); }

/* [off, off + len) without a mode is space at the end only: blocks that exist have theirs already, or take it when they are written. */
static int co_allocate(struct fuse_export *x, int mode, uint64_t off, uint64_t len)
{
    uint64_t size = size_of(x);
    if (!x->exp.writable)
        return -EROFS;
    if (!range_ok(off, len, INT64_MAX - 4096))
        return -EFBIG;
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) || mode == FALLOC_FL_KEEP_SIZE)
        return -EOPNOTSUPP;
    if (mode & FALLOC_FL_KEEP_SIZE)
        len = off >= size ? 0 : MIN(len, size - off);
    int r = co_grow(x, off, len);
    if (r || !len || !mode)
        return r;
    return co_blk_zero(x->exp.blk, off, len, mode & FALLOC_FL_PUNCH_HOLE ? BLK_ZERO_UNMAP : 0);
}
static void co_fallocate_op(struct freq *q) { fuse_reply_err(q->req, -co_allocate(q->x, q->arg, q->off, q->len)); }
static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    start(req, co_fallocate_op, &(struct freq){ .off = (uint64_t)off, .len = (uint64_t)len, .arg = mode });
}

/* Where the next data or hole is, or the errno. */
static void co_seek(struct freq *q)
{
    bool hole = q->arg == SEEK_HOLE;
    uint64_t at = q->off, size;
    while (at < (size = size_of(q->x))) {
        struct blk_extent t;
        int r = co_blk_map(q->x->exp.blk, at, size - at, &t);
        if (r) {
            fuse_reply_err(q->req, -r);
            return;
        }
        if (t.zero == hole)
            break;
        at += t.len;
    }
    if (q->off >= size || (at >= size && !hole))
        fuse_reply_err(q->req, ENXIO);
    else
        fuse_reply_lseek(q->req, (off_t)MIN(at, size));
}
static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    if (whence != SEEK_HOLE && whence != SEEK_DATA)
        fuse_reply_err(req, EINVAL);
    else
        start(req, co_seek, &(struct freq){ .off = (uint64_t)off, .arg = whence });
}

/* Files below the one file: there are none. */
static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) { fuse_reply_err(req, ENOENT); }

const struct fuse_lowlevel_ops fuse_export_ops = {
    .lookup = op_lookup, .getattr = op_getattr, .setattr = op_setattr, .open = op_open, .read = op_read, .write = op_write, .flush = op_flush,
    .fsync = op_fsync, .fallocate = op_fallocate, .lseek = op_lseek,
};
