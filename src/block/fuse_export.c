/* SPDX-License-Identifier: MIT */
/*
 * "fuse" export: a file that reads and writes as the node does. The mount point is a file; the file system is that one file. What
 * the kernel asks is in fuse_io.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "block/fuse_int.h"
#include "loop/iothread.h"

enum { MESSAGES_A_TURN = 16, END_STEP_NS = 200000 };

static struct loop *loop_of(const struct fuse_export *x) { return x->exp.dom ? domain_loop(x->exp.dom) : loop_main(); }

/* ---- messages ---- */

static void take_buffer(struct fuse_export *x)
{
    if (!x->buf.mem && x->n_spare)
        x->buf.mem = x->spare[--x->n_spare];
}

/* The kernel ended the session: somebody unmounted the file. */
static void session_lost(struct fuse_export *x)
{
    loop_fd_watch(&x->watch, 0);
    atomic_store(&x->lost, true);
    loop_post(loop_main(), &x->lost_post);
}

static void messages(void *arg, unsigned revents)
{
    struct fuse_export *x = arg;
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        take_buffer(x);
        int n = fuse_session_receive_buf(x->se, &x->buf);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            session_lost(x);
            return;
        }
        fuse_session_process_buf(x->se, &x->buf);
        if (fuse_session_exited(x->se)) {
            session_lost(x);
            return;
        }
    }
}

static void delete_lost(void *arg)
{
    struct fuse_export *x = arg;
    struct err e = ERR_INIT;
    if (x->exp.gone)
        return;
    log_warn("export '%s': '%s' was unmounted", x->exp.obj.id, x->mountpoint);
    if (!blk_export_del(&x->exp, true, &e))
        err_print(&e);
}

/* ---- life ---- */

static bool fuse_export_check(struct obj *o, struct err *e)
{
    struct fuse_export *x = (struct fuse_export *)o;
    if (x->growable && !x->exp.writable)
        return err_set(e, ERR_VALUE, "growable=on needs writable=on");
    x->exp.grows = x->growable;
    return true;
}

static bool check_mountpoint(struct fuse_export *x, struct err *e)
{
    struct stat st;
    if (stat(x->mountpoint, &st)) {
        err_os(e, errno, "mountpoint '%s'", x->mountpoint);
        return errno != ENOENT ? false : err_hint(e, "it must be a file that exists: its content is hidden, not changed");
    }
    return S_ISREG(st.st_mode) || err_set(e, ERR_VALUE, "mountpoint '%s' is no regular file", x->mountpoint);
}

/* One try to mount, for all users or ours alone. */
static bool try_mount(struct fuse_export *x, bool shared)
{
    char *opts = xasprintf("nosuid,nodev,noatime,fsname=%s,subtype=backplane%s", x->exp.obj.id, shared ? ",allow_other,default_permissions" : "");
    char *argv[] = { (char *)"backplane", (char *)"-o", opts, NULL };
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    x->shared = shared;
    x->se = fuse_session_new(&args, &fuse_export_ops, sizeof fuse_export_ops, x);
    x->mounted = x->se && !fuse_session_mount(x->se, x->mountpoint);
    if (x->se && !x->mounted) {
        fuse_session_destroy(x->se);
        x->se = NULL;
    }
    fuse_opt_free_args(&args);
    free(opts);
    return x->mounted;
}

static bool mount_it(struct fuse_export *x, struct err *e)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_os(e, errno, "cannot open /dev/fuse");
    close(fd);
    if (x->allow_other != TRI_OFF && try_mount(x, true))
        return true;
    if (x->allow_other != TRI_ON && try_mount(x, false))
        return true;
    err_set(e, ERR_OS, "cannot mount on '%s'", x->mountpoint);
    return x->allow_other == TRI_ON && geteuid() ? err_hint(e, "allow-other=on needs user_allow_other in /etc/fuse.conf") : false;
}

static void begin_watch(void *arg)
{
    struct fuse_export *x = arg;
    loop_fd_watch(&x->watch, LOOP_IN);
}

static bool fuse_export_start(struct blk_export *exp, struct err *e)
{
    struct fuse_export *x = (struct fuse_export *)exp;
    if (!check_mountpoint(x, e) || !mount_it(x, e))
        return false;
    x->mode = S_IFREG | (exp->writable ? 0600 : 0400);
    x->uid = geteuid();
    x->gid = getegid();
    clock_gettime(CLOCK_REALTIME, &x->mtime);
    x->atime = x->mtime;
    x->lost_post = (struct post){ .fn = delete_lost, .arg = x };
    int fd = fuse_session_fd(x->se);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
        return err_os(e, errno, "cannot use /dev/fuse without waiting");
    loop_fd_init(&x->watch, loop_of(x), exp->dom, fd, messages, x);
    loop_call(loop_of(x), begin_watch, x);
    return true;
}

static void unwatch(void *arg)
{
    struct fuse_export *x = arg;
    loop_fd_watch(&x->watch, 0);
}

static void co_fuse_end(void *arg)
{
    struct fuse_export *x = arg;
    loop_call(loop_of(x), unwatch, x);
    fuse_session_unmount(x->se);
    x->mounted = false;
    while (atomic_load(&x->in_flight))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + END_STEP_NS);
    loop_post_cancel(loop_main(), &x->lost_post);
    blk_export_put(&x->exp);
}

static void fuse_export_stop(struct blk_export *exp)
{
    blk_export_get(exp);
    co_spawn(loop_main(), NULL, co_fuse_end, exp);
}

static void fuse_export_finalize(struct obj *o)
{
    struct fuse_export *x = (struct fuse_export *)o;
    if (x->mounted)
        fuse_session_unmount(x->se);
    if (x->se)
        fuse_session_destroy(x->se);
    free(x->buf.mem);
    while (x->n_spare)
        free(x->spare[--x->n_spare]);
}

static const struct prop fuse_export_props[] = {
    PROP_STR(struct fuse_export, mountpoint, "mountpoint", PF_REQUIRED, "File that exists and shows the node from then on"),
    PROP_BOOL(struct fuse_export, growable, "growable", false, "Writing beyond the end makes the node longer"),
    PROP_TRI(struct fuse_export, allow_other, "allow-other", TRI_AUTO, "Other users may open the file, as its mode says; auto: where the system allows it"),
    BLK_EXPORT_THREAD_ROW(struct fuse_export, exp),
    PROP_END,
};
static const struct blk_export_class fuse_export_class = {
    .obj = { .name = "export-fuse", .desc = "File of this system (FUSE)", .base = &blk_export_class.obj, .size = sizeof(struct fuse_export),
             .props = fuse_export_props, .check = fuse_export_check, .finalize = fuse_export_finalize },
    .start = fuse_export_start, .stop = fuse_export_stop,
};
OBJ_CLASS(&fuse_export_class.obj);
