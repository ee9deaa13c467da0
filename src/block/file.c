/* SPDX-License-Identifier: MIT */
/* "file", "host_device": a file or a block device of the host. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/fdset.h"
#include "base/log.h"
#include "block/file_int.h"
#include "block/pr_helper.h"

enum { BOUNCE_MAX = 1 << 20, IOV_BATCH = 1024 };

static struct blk_file *file_of(struct blk_node *n) { return (struct blk_file *)n; }
static bool is_cdrom(const struct blk_node *n) { return str_eq(n->obj.cls->name, "blockdev-host_cdrom"); }

static int co_whole(struct blk_node *n, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);

/* ---- opening ---- */

struct open_try { const char *path; int flags, fd; };

static int open_worker(void *arg)
{
    struct open_try *t = arg;
    t->fd = fdset_open(t->path, t->flags | O_NOCTTY, 0);
    return t->fd < 0 ? -errno : 0;
}

static bool open_error(struct blk_file *f, int r, struct err *e)
{
    err_os(e, -r, "cannot open '%s'", f->filename);
    if (r == -EINVAL && f->node.direct)
        err_hint(e, "its file system may not know direct I/O: try cache.direct=off (cache=writeback)");
    else if (r == -EACCES || r == -EROFS)
        err_hint(e, f->node.read_only ? "the user of this process may not read it" : "to read it only, say read-only=on");
    else if (r == -ENOENT && !f->node.read_only)
        err_hint(e, "make one first: truncate -s 4G FILE, or backplane-img create");
    return false;
}

static bool co_open_fd(struct blk_file *f, int *fd, struct err *e)
{
    struct blk_node *n = &f->node;
    int direct = (n->direct ? O_DIRECT : 0) | (is_cdrom(n) ? O_NONBLOCK /* without a disc, too: that is told apart */ : 0);
    n->read_only |= is_cdrom(n);
    struct open_try t = { f->filename, (n->read_only ? O_RDONLY : O_RDWR) | direct, -1 };
    int r = co_offload_short(open_worker, &t);
    if (!n->read_only && n->auto_read_only && (r == -EACCES || r == -EROFS || r == -EPERM)) {
        n->read_only = true;
        t.flags = O_RDONLY | direct;
        r = co_offload_short(open_worker, &t);
    }
    *fd = t.fd;
    return !r || open_error(f, r, e);
}

/* What direct I/O needs, by asking or by trying. */
static void find_alignment(struct blk_file *f)
{
    f->align = f->mem_align = 1;
    if (!f->node.direct)
        return;
#ifdef STATX_DIOALIGN
    struct statx sx;
    if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && (sx.stx_mask & STATX_DIOALIGN) && sx.stx_dio_offset_align) {
        f->align = sx.stx_dio_offset_align;
        f->mem_align = sx.stx_dio_mem_align;
        return;
    }
#endif
    void *buf;
    f->align = f->mem_align = 4096;
    if (posix_memalign(&buf, 4096, 4096))
        return;
    for (unsigned a = 512; a < 4096; a *= 2) {
        if (pread(f->fd, buf, a, 0) >= 0) {
            f->align = a;
            break;
        }
    }
    free(buf);
}

static bool find_size(struct blk_file *f, struct err *e)
{
    off_t end = lseek(f->fd, 0, SEEK_END);
    if (end < 0 && f->is_dev && file_scsi_limit(f->fd))
        end = 0;                /* /dev/sgN takes commands only */
    if (end < 0)
        return err_os(e, errno, "cannot tell the size of '%s'", f->filename);
    atomic_store(&f->node.size, align_up((uint64_t)end, 512));  /* the rest of a last sector reads as zeroes */
    return true;
}

/* Whether holes can be made: asked beyond the end, where nothing can be lost. */
static bool probe_punch(const struct blk_file *f, uint64_t size)
{
    if (f->node.read_only)
        return false;
    if (f->is_dev)
        return true;            /* the kernel answers for the device at the first request */
    return !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)align_up(size, 4096), 4096);
}

static bool check_disc(const struct blk_file *f, struct err *e)
{
    int status = ioctl(f->fd, CDROM_DRIVE_STATUS, CDSL_CURRENT);
    if (status < 0) {
        err_set(e, ERR_VALUE, "'%s' is not a CD-ROM drive", f->filename);
        return err_hint(e, "use driver=host_device");
    }
    return status == CDS_DISC_OK || status == CDS_NO_INFO || err_set(e, ERR_VALUE, "there is no disc in '%s'", f->filename);
}

/* A range that no device takes is refused by the one that erases securely for what it is, by others for what they cannot. */
static bool probe_erase(const struct blk_file *f)
{
    uint64_t odd[2] = { 1, 1 };

    return !f->node.read_only && ioctl(f->fd, BLKSECDISCARD, odd) && errno == EINVAL;
}

static bool check_kind(struct blk_file *f, const struct stat *st, struct err *e)
{
    bool wants_dev = !str_eq(f->node.obj.cls->name, "blockdev-file");
    f->is_dev = S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode);
    if (S_ISDIR(st->st_mode))
        return err_set(e, ERR_VALUE, "'%s' is a directory, not an image", f->filename);
    if (f->is_dev && !wants_dev) {
        err_set(e, ERR_VALUE, "'%s' is a device, not a file", f->filename);
        return err_hint(e, "use driver=host_device");
    }
    if (!f->is_dev && wants_dev) {
        err_set(e, ERR_VALUE, "'%s' is not a device", f->filename);
        return err_hint(e, "use driver=file");
    }
    return !is_cdrom(&f->node) || check_disc(f, e);
}

/* That of Linux 6.18 does not ask the server of a FUSE mount for anything but the write. */
static bool knows_dsync(int fd)
{
    struct statfs st;
    return !fstatfs(fd, &st) && st.f_type != FUSE_SUPER_MAGIC;
}

/* Size and abilities of what is open. */
static bool look_at(struct blk_file *f, struct err *e)
{
    struct blk_node *n = &f->node;
    struct stat st;
    unsigned logical = 512, physical = 0;
    if (fstat(f->fd, &st))
        return err_os(e, errno, "cannot look at '%s'", f->filename);
    if (!check_kind(f, &st, e) || !find_size(f, e))
        return false;
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    find_alignment(f);
    f->ragged.block = f->align;
    f->kind = co_file_kind(f->fd, n->direct);
    f->no_dsync = !knows_dsync(f->fd);
    if (S_ISBLK(st.st_mode)) {
        int v = 0;
        if (!ioctl(f->fd, BLKSSZGET, &v) && v > 0)
            logical = (unsigned)v;
        ioctl(f->fd, BLKPBSZGET, &physical);
    }
    logical = MAX(logical, f->align);
    f->can_punch = probe_punch(f, atomic_load(&n->size));
    bool discard = f->can_punch && n->discard == BLK_DISCARD_UNMAP;
    n->caps = (struct blk_caps){ .read_only = n->read_only, .discard = discard, .write_zeroes = f->can_punch,
        .flush = !n->no_flush, .fua = true, .grows = !f->is_dev && !n->read_only, .logical_block = logical, .physical_block = MAX(physical, logical),
        .secure_erase = S_ISBLK(st.st_mode) && probe_erase(f), .scsi = f->is_dev ? file_scsi_limit(f->fd) : 0,
        .discard_granularity = discard ? (unsigned)MAX((long)st.st_blksize, 512L) : 0, .mem_align = f->mem_align };
    return true;
}

static bool file_open(struct blk_node *n, struct err *e)
{
    struct blk_file *f = file_of(n);
    blk_ragged_init(&f->ragged);
    f->ragged.co_whole = co_whole;
    return co_open_fd(f, &f->fd, e) && look_at(f, e);
}

/* A file that was opened for reading is opened again, in place: the descriptor stays, and so do the locks. */
static bool co_file_set_writable(struct blk_node *n, bool writable, struct err *e)
{
    struct blk_file *f = file_of(n);
    int fd;
    if (!writable)
        return true;
    if (!co_open_fd(f, &fd, e))
        return false;
    bool ok = !n->read_only || err_set(e, ERR_VALUE, "'%s' can be read only", f->filename);
    if (ok) {
        file_lock_copy(f, fd);
        ok = dup2(fd, f->fd) >= 0 || err_os(e, errno, "cannot open '%s' again", f->filename);
    }
    close(fd);
    return ok && look_at(f, e);
}

static void file_close(struct blk_node *n)
{
    struct blk_file *f = file_of(n);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    blk_ragged_fini(&f->ragged);
}

enum { AIO_THREADS, AIO_NATIVE, AIO_IO_URING };

static bool file_init(struct obj *o, struct err *e)
{
    ((struct blk_file *)o)->fd = -1;
    return true;
}

/* What io_submit() does without O_DIRECT is not asynchronous: QEMU takes it for a mistake, and so it is to whoever hopes for that. */
static bool file_check(struct obj *o, struct err *e)
{
    struct blk_file *f = (struct blk_file *)o;
    if (f->aio != AIO_NATIVE || f->node.direct)
        return true;
    err_set(e, ERR_VALUE, "aio=native needs cache.direct=on");
    return err_hint(e, "-drive cache=none,aio=native; or leave aio out: the event loop uses io_uring where the host has it");
}

/* ---- transfers ---- */

struct xfer { struct blk_file *f; bool write; int rwf; };

/* The whole of @iov, however often the host stops in the middle. A read beyond the end finds zeroes. */
static int co_transfer(const struct xfer *x, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    struct iovec *rest = NULL;
    uint64_t done = 0;
    int r = 0;
    while (done < len) {
        const struct iovec *v = iov;
        unsigned n = niov;
        if (done || niov > IOV_BATCH) {
            if (!rest && !(rest = calloc(niov, sizeof *rest)))
                return -ENOMEM;
            n = MIN(blk_iov_slice(iov, niov, done, len - done, rest), (unsigned)IOV_BATCH);
            v = rest;
        }
        ssize_t k = x->write ? co_pwritev(x->f->fd, v, (int)n, off + done, x->rwf, x->f->kind) :
                               co_preadv(x->f->fd, v, (int)n, off + done, x->f->kind);
        if (k < 0 || (x->write && !k)) {
            r = k < 0 ? (int)k : -ENOSPC;
            break;
        }
        if (!k) {
            blk_iov_zero(v, n);
            k = (ssize_t)blk_iov_len(v, n);
        }
        done += (uint64_t)k;
    }
    free(rest);
    return r;
}

static bool aligned(const struct blk_file *f, const struct iovec *iov, unsigned niov)
{
    for (unsigned i = 0; i < niov && f->align > 1; i++)
        if (((uintptr_t)iov[i].iov_base & (f->mem_align - 1)) || (iov[i].iov_len & (f->align - 1)))
            return false;
    return true;
}

/* Through memory that direct I/O takes. */
static int bounce(const struct xfer *x, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    void *buf;
    int r = 0;
    if (posix_memalign(&buf, MAX(x->f->align, 4096u), MIN(len, (uint64_t)BOUNCE_MAX)))
        return -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        struct iovec v = { buf, MIN(len - at, (uint64_t)BOUNCE_MAX) };
        if (x->write)
            blk_iov_copy(buf, iov, niov, at, v.iov_len, false);
        r = co_transfer(x, off + at, v.iov_len, &v, 1);
        if (!r && !x->write)
            blk_iov_copy(buf, iov, niov, at, v.iov_len, true);
        at += v.iov_len;
    }
    free(buf);
    return r;
}

static int do_transfer(const struct xfer *x, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    return aligned(x->f, iov, niov) ? co_transfer(x, off, len, iov, niov) : bounce(x, off, len, iov, niov);
}

/* The size is at least @end now. */
static void grow_to(struct blk_node *n, uint64_t end)
{
    uint64_t old = atomic_load(&n->size);
    end = align_up(end, 512);
    while (old < end && !atomic_compare_exchange_weak(&n->size, &old, end))
        ;
}

/*
 * What could not be written from the page cache is told once, to a flush or to a write with RWF_DSYNC: the kernel may have dropped it, and
 * the next flush succeeds without it. So all that come after fail, too, until the node is made anew; but for direct I/O, whose writes were
 * answered one by one.
 */
static void note_lost(struct blk_file *f, int r)
{
    if (r && !f->node.direct)
        atomic_store(&f->flush_error, r);
}

static int co_file_flush(struct blk_node *n)
{
    struct blk_file *f = file_of(n);
    int r = f->kind == CO_FILE_MEMORY ? 0 /* nothing is behind it */ : atomic_load(&f->flush_error);
    if (r || f->kind == CO_FILE_MEMORY)
        return r;
    r = co_fdatasync(f->fd);
    note_lost(f, r);
    return r ? r : atomic_load(&f->flush_error);        /* of one that ended meanwhile, and took the error */
}

/* A write that is durable when it is answered. */
static int co_write_through(struct blk_file *f, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
    const struct xfer plain = { f, true, 0 }, through = { f, true, RWF_DSYNC };
    if (f->no_dsync) {
        int r = do_transfer(&plain, off, len, iov, niov);
        return r ? r : co_file_flush(&f->node);
    }
    int r = do_transfer(&through, off, len, iov, niov);
    if (r && !f->node.direct && !do_transfer(&plain, off, len, iov, niov))
        note_lost(f, r);            /* it was not the write that failed but what follows, which may have been others' */
    return r;
}

static int co_whole(struct blk_node *n, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    const struct xfer x = { file_of(n), write, 0 };
    return flags & BLK_FUA ? co_write_through(x.f, off, len, iov, niov) : do_transfer(&x, off, len, iov, niov);
}

static int file_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_blk_ragged(n, &file_of(n)->ragged, false, off, len, iov, niov, 0);
}

static int file_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_blk_ragged(n, &file_of(n)->ragged, true, off, len, iov, niov, n->no_flush ? 0 : flags & BLK_FUA);
    if (!r && flags & BLK_GROW)
        grow_to(n, off + len);
    return r;
}

/* ---- the rest ---- */

static int co_zero_whole(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_file *f = file_of(n);
    bool longer = flags & BLK_GROW && !range_ok(off, len, atomic_load(&n->size));
    int mode = flags & BLK_ZERO_UNMAP && f->can_punch && !longer ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int r = co_fallocate(f->fd, mode | (longer ? 0 : FALLOC_FL_KEEP_SIZE), off, len);
    if (r == -EINVAL || r == -EOPNOTSUPP || r == -ENODEV || r == -ENOTTY)
        return -ENOTSUP;
    return !r && flags & BLK_FUA && !n->no_flush ? co_file_flush(n) : r;
}

static int co_file_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = co_blk_ragged_zero(n, &file_of(n)->ragged, off, len, flags, co_zero_whole);
    if (!r && flags & BLK_GROW)
        grow_to(n, off + len);
    return r;
}

static int co_file_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    int r = co_fallocate(file_of(n)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
    return r == -EOPNOTSUPP || r == -ENODEV || r == -EINVAL ? 0 : r;    /* a hint that this device does not take */
}

struct erase { int fd; uint64_t range[2]; };

static int erase_worker(void *arg)
{
    struct erase *x = arg;

    return ioctl(x->fd, BLKSECDISCARD, x->range) ? -errno : 0;
}

static int co_device_erase(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct erase x = { file_of(n)->fd, { off, len } };

    return co_offload(erase_worker, &x);
}

static int file_resize(struct blk_node *n, uint64_t size)
{
    struct blk_file *f = file_of(n);
    if (f->is_dev)
        return -ENOTSUP;
    if (ftruncate(f->fd, (off_t)size))
        return -errno;
    atomic_store(&n->size, align_up(size, 512));
    return 0;
}

bool blk_file_is_the(const struct blk_node *n, const struct stat *st)
{
    const struct blk_file *f = (const struct blk_file *)n;
    return BLK_DRIVER(n)->co_preadv == file_read && f->dev == st->st_dev && f->ino == st->st_ino;
}

bool blk_file_is_unlocked(const struct blk_node *n)
{
    return BLK_DRIVER(n)->co_preadv == file_read && ((const struct blk_file *)n)->locking == TRI_OFF;
}

struct copy_args { int src, dst; uint64_t src_off, dst_off, len; };
static int copy_worker(void *arg)
{
    struct copy_args *a = arg;
    off_t from = (off_t)a->src_off, to = (off_t)a->dst_off;
    while (a->len) {
        ssize_t k = copy_file_range(a->src, &from, a->dst, &to, a->len, 0);
        if (k <= 0)         /* 0: beyond the end of the source, where there is nothing to copy */
            return !k ? -ENOTSUP : errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP ? -ENOTSUP : -errno;
        a->len -= (uint64_t)k;
    }
    return 0;
}

int co_file_copy_range(struct blk_node *src, uint64_t src_off, struct blk_node *dst, uint64_t dst_off, uint64_t len)
{
    if (BLK_DRIVER(src)->co_preadv != file_read || BLK_DRIVER(dst)->co_pwritev != file_write || dst->caps.read_only)
        return -ENOTSUP;
    struct copy_args a = { file_of(src)->fd, file_of(dst)->fd, src_off, dst_off, len };
    return range_ok(dst_off, len, atomic_load(&dst->size)) ? co_offload(copy_worker, &a) : -ENOTSUP;
}

struct map_args { int fd; uint64_t off, len; struct blk_extent *out; };

static int map_worker(void *arg)
{
    struct map_args *m = arg;
    off_t off = (off_t)m->off, data = lseek(m->fd, off, SEEK_DATA), next;
    if (data < 0 && errno != ENXIO)
        return 0;                               /* cannot tell: all is data, as preset */
    bool hole = data != off;
    next = hole ? data : lseek(m->fd, off, SEEK_HOLE);      /* ENXIO: a hole up to the end */
    m->out->len = next < 0 ? m->len : MIN(m->len, (uint64_t)(next - off));
    m->out->data = !hole;
    m->out->zero = hole;
    return 0;
}

static int co_file_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct map_args m = { file_of(n)->fd, off, len, out };
    out->has_off = true;
    out->off = off;
    out->where = n;
    return co_offload_short(map_worker, &m);
}

static bool file_set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    return file_lock_update(file_of(n), perm, n->force_share ? BLK_PERM_ALL : shared, e);
}

static const char *file_filename(const struct blk_node *n) { return ((const struct blk_file *)n)->filename; }

static const char *const aio_names[] = { [AIO_THREADS] = "threads", [AIO_NATIVE] = "native", [AIO_IO_URING] = "io_uring", NULL };
#define FILE_PROPS(what)                                                                                                  \
    PROP_STR(struct blk_file, filename, "filename", PF_REQUIRED, what),                                                   \
    PROP_TRI(struct blk_file, locking, "locking", TRI_AUTO, "Lock the image against other programs; auto: where the file system can"), \
    { .name = "aio", .doc = "Accepted for compatibility: the event loop uses io_uring where the host has it", .type = PROP_T_ENUM, \
      .flags = PF_HIDDEN, PROP_OFF(struct blk_file, aio), .of = aio_names, .def = AIO_IO_URING }
static const struct prop file_props[] = { FILE_PROPS("File of the host"), PROP_END };
static const struct prop device_props[] = {
    FILE_PROPS("Device of the host"),
    PROP_LINK(struct blk_file, pr_manager, "pr-manager", &pr_helper_class, 0, "Object that executes persistent reservation commands"), PROP_END
};

#define FILE_DRIVER(var, nm, ds, rows, ...) static const struct blk_driver var = {                                                        \
        .obj = { .name = "blockdev-" nm, .desc = ds, .base = &blk_node_class, .size = sizeof(struct blk_file), .props = rows, \
                 .init = file_init, .check = file_check }, .flags = BLK_ANY_LOOP, .co_open = file_open, .co_close = file_close, .co_preadv = file_read, \
        .co_pwritev = file_write, .co_zero = co_file_zero, .co_discard = co_file_discard, .co_flush = co_file_flush, .co_resize = file_resize, \
        .co_map = co_file_map, .co_set_writable = co_file_set_writable, .set_perm = file_set_perm, .filename = file_filename, __VA_ARGS__ }; OBJ_CLASS(&var.obj)
FILE_DRIVER(file_driver, "file", "File of the host", file_props);
FILE_DRIVER(host_device_driver, "host_device", "Device of the host: a disk, or a generic SCSI device (/dev/sgN)", device_props, .co_scsi = co_file_scsi,
            .co_erase = co_device_erase);
FILE_DRIVER(host_cdrom_driver, "host_cdrom", "Disc in a CD-ROM drive of the host, which is only read", file_props);
