/* SPDX-License-Identifier: MIT */
#include "base/exit_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/bits.h"
#include "base/str.h"

/* @dir is its folder, so that a later chdir() or chroot() does not matter; device and inode tell the file from a successor. */
struct exit_file { int dir; char *name; dev_t dev; ino_t ino; pid_t owner; };

static _Atomic(struct exit_file *) known[256];

static void forget(struct exit_file *f)
{
    if (f->dir >= 0)
        close(f->dir);
    free(f->name);
    free(f);
}

sigset_t exit_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    return set;
}

void exit_files_hold(sigset_t *before)
{
    sigset_t ends = exit_signals();
    pthread_sigmask(SIG_BLOCK, &ends, before);
}

void exit_files_release(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

struct exit_file *exit_file_new(const char *path)
{
    const char *slash = strrchr(path, '/');
    struct stat st;
    if (lstat(path, &st) < 0)
        return NULL;
    char *folder = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path)) : xstrdup(".");
    struct exit_file *f = xnew(struct exit_file);
    *f = (struct exit_file){ open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC), xstrdup(slash ? slash + 1 : path), st.st_dev, st.st_ino, getpid() };
    free(folder);
    for (size_t i = 0; f->dir >= 0 && i < ARRAY_SIZE(known); i++) {
        struct exit_file *none = NULL;
        if (atomic_compare_exchange_strong(&known[i], &none, f))
            return f;
    }
    forget(f);
    return NULL;
}

struct exit_file *exit_link_new(const char *target, const char *path)
{
    sigset_t before;
    exit_files_hold(&before);
    int failed = symlink(target, path) < 0 ? errno : 0;
    struct exit_file *f = failed ? NULL : exit_file_new(path);
    exit_files_release(&before);
    errno = failed;
    return f;
}

/* Async-signal-safe. A forked child leaves its parent's files alone. */
static void unlink_ours(const struct exit_file *f)
{
    struct stat st;
    if (f->owner == getpid() && fstatat(f->dir, f->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == f->dev && st.st_ino == f->ino)
        unlinkat(f->dir, f->name, 0);
}

void exit_file_remove(struct exit_file *f)
{
    if (f)
        unlink_ours(f);
    exit_file_keep(f);
}

void exit_file_keep(struct exit_file *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        struct exit_file *me = f;
        if (atomic_compare_exchange_strong(&known[i], &me, NULL))
            break;
    }
    forget(f);
}

void exit_files_unlink(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        const struct exit_file *f = atomic_load(&known[i]);
        if (f)
            unlink_ours(f);
    }
}
