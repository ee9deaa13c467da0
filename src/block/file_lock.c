/* SPDX-License-Identifier: MIT */
/*
 * Image locks: open file description locks on single bytes, the same that QEMU takes, so that either program sees the other.
 * They are read locks only; a conflict is found by asking whether a write lock would be possible.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/file_int.h"

enum { LOCK_PERM = 100, LOCK_UNSHARED = 200 };

/* Bit numbers of the permissions in the lock bytes: consistent read, write, resize. */
static unsigned lock_bits(unsigned perm)
{
    return (perm & BLK_PERM_READ ? 1 << 0 : 0) | (perm & BLK_PERM_WRITE ? 1 << 1 : 0) | (perm & BLK_PERM_RESIZE ? 1 << 3 : 0);
}

static int lock_op(int fd, int cmd, short type, off_t byte, struct flock *out)
{
    struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    int r = fcntl(fd, cmd, &l) ? -errno : 0;
    if (out)
        *out = l;
    return r;
}

static off_t byte_of(unsigned bit) { return bit < 8 ? LOCK_PERM + (off_t)bit : LOCK_UNSHARED + (off_t)bit - 8; }

/* ---- who holds it ---- */

/* True if /proc/PID/fdinfo/FD shows a lock that covers @byte. */
static bool fd_locks(const char *pid, const char *fd, off_t byte)
{
    char path[320], line[256];
    bool hit = false;
    snprintf(path, sizeof path, "/proc/%.20s/fdinfo/%.20s", pid, fd);
    FILE *f = fopen(path, "re");
    while (f && !hit && fgets(line, sizeof line, f)) {
        long long start, end;
        hit = str_starts(line, "lock:") && sscanf(line, "lock: %*s %*s %*s %*s %*s %*s %lld %lld", &start, &end) == 2 &&
              start <= byte && byte <= end;
    }
    if (f)
        fclose(f);
    return hit;
}

/* True if process @pid has the file @st open and holds a lock on @byte by it, not counting descriptor @except of ours. */
static bool process_locks(const char *pid, const struct stat *st, off_t byte, int except)
{
    char path[64];
    bool hit = false;
    snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
    DIR *d = opendir(path);
    for (struct dirent *de; d && !hit && (de = readdir(d));) {
        struct stat other;
        if (de->d_name[0] == '.' || (atoi(pid) == getpid() && atoi(de->d_name) == except))
            continue;
        hit = !fstatat(dirfd(d), de->d_name, &other, 0) && other.st_dev == st->st_dev && other.st_ino == st->st_ino &&
              fd_locks(pid, de->d_name, byte);
    }
    if (d)
        closedir(d);
    return hit;
}

/* "process 123 (qemu-img)", or a text that says that the system does not tell. True: it is this process. */
static bool name_holder(int fd, off_t byte, char *buf, size_t n)
{
    bool self = false;
    struct stat st;
    DIR *d = fstat(fd, &st) ? NULL : opendir("/proc");
    snprintf(buf, n, "another process");
    for (struct dirent *de; d && (de = readdir(d));) {
        if (de->d_name[0] < '1' || de->d_name[0] > '9' || !process_locks(de->d_name, &st, byte, fd))
            continue;
        if (atoi(de->d_name) == getpid()) {
            snprintf(buf, n, "another block node of this process");
            self = true;
            break;
        }
        char path[64], comm[64] = "";
        snprintf(path, sizeof path, "/proc/%.20s/comm", de->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(comm, sizeof comm, f))
            comm[strcspn(comm, "\n")] = 0;
        if (f)
            fclose(f);
        snprintf(buf, n, "process %.20s (%s)", de->d_name, comm);
        break;
    }
    if (d)
        closedir(d);
    return self;
}

/* ---- taking them ---- */

static void unlock_bits(struct blk_file *f, unsigned bits)
{
    for (unsigned b = 0; b < 16; b++)
        if (bits >> b & 1)
            lock_op(f->fd, F_OFD_SETLK, F_UNLCK, byte_of(b), NULL);
}

static bool conflict(struct blk_file *f, unsigned bit, struct err *e)
{
    char holder[128];
    static const char *const names[] = { "reading", "writing", "", "resizing" };
    bool self = name_holder(f->fd, byte_of(bit), holder, sizeof holder);
    err_set(e, ERR_BUSY, "'%s' is in use: %s %s %s it", f->filename, holder, bit < 8 ? "is" : "does not allow others", names[bit & 7]);
    if (self)
        return err_hint(e, "one node for the file is enough: devices share it by drive=, with share-rw=on each");
    return err_hint(e, "end that process, or open the image read-only on both sides; locking=off takes no lock, at your own risk");
}

/* No other may use what we do not share, or not share what we use. */
static bool check_others(struct blk_file *f, unsigned bits, struct err *e)
{
    for (unsigned b = 0; b < 16; b++) {
        struct flock l;
        unsigned opposite = b ^ 8;
        if (!(bits >> b & 1))
            continue;
        if (!lock_op(f->fd, F_OFD_GETLK, F_WRLCK, byte_of(opposite), &l) && l.l_type != F_UNLCK)
            return conflict(f, opposite, e);
    }
    return true;
}

bool file_lock_update(struct blk_file *f, unsigned perm, unsigned shared, struct err *e)
{
    unsigned want = perm || shared != BLK_PERM_ALL ? lock_bits(perm) | lock_bits(BLK_PERM_ALL & ~shared) << 8 : 0;
    if (f->locking == TRI_OFF || f->no_locks || f->fd < 0)
        return true;
    unsigned added = want & ~f->locked;
    for (unsigned b = 0; b < 16; b++) {
        int r = added >> b & 1 ? lock_op(f->fd, F_OFD_SETLK, F_RDLCK, byte_of(b), NULL) : 0;
        if (!r)
            continue;
        unlock_bits(f, added);
        if (r == -EAGAIN || r == -EACCES)
            return conflict(f, b, e);
        if (f->locking == TRI_AUTO) {
            f->no_locks = true;
            return true;
        }
        return err_os(e, -r, "cannot lock '%s'", f->filename);
    }
    if (!check_others(f, added, e)) {
        unlock_bits(f, added);
        return false;
    }
    unlock_bits(f, f->locked & ~want);
    f->locked = want;
    return true;
}

void file_lock_copy(const struct blk_file *f, int fd)
{
    for (unsigned b = 0; b < 16; b++)
        if (f->locked >> b & 1)
            lock_op(fd, F_OFD_SETLK, F_RDLCK, byte_of(b), NULL);        /* as those that are there: cannot conflict */
}
