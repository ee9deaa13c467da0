/* SPDX-License-Identifier: MIT */
#include "base/exit_file.h"

#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/bits.h"
#include "base/str.h"

/* @path is absolute, so that a later chdir() does not matter; device and inode tell the file from a successor. */
struct exit_file { char *path; dev_t dev; ino_t ino; pid_t owner; };

static _Atomic(struct exit_file *) known[256];

/* The folder's real path and the last component as it is: the file itself may be a symbolic link. */
static char *absolute(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path)) : xstrdup(".");
    char *real = realpath(folder, NULL);
    char *full = real ? xasprintf("%s%s%s", real, real[1] ? "/" : "", slash ? slash + 1 : path) : NULL;
    free(folder);
    free(real);
    return full;
}

struct exit_file *exit_file_new(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return NULL;
    struct exit_file *f = xnew(struct exit_file);
    *f = (struct exit_file){ absolute(path), st.st_dev, st.st_ino, getpid() };
    for (size_t i = 0; f->path && i < ARRAY_SIZE(known); i++) {
        struct exit_file *none = NULL;
        if (atomic_compare_exchange_strong(&known[i], &none, f))
            return f;
    }
    free(f->path);
    free(f);
    return NULL;
}

/* Async-signal-safe. A forked child leaves its parent's files alone. */
static void unlink_ours(const struct exit_file *f)
{
    struct stat st;
    if (f->owner == getpid() && lstat(f->path, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino)
        unlink(f->path);
}

void exit_file_remove(struct exit_file *f)
{
    if (!f)
        return;
    unlink_ours(f);
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        struct exit_file *me = f;
        if (atomic_compare_exchange_strong(&known[i], &me, NULL))
            break;
    }
    free(f->path);
    free(f);
}

void exit_files_unlink(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        const struct exit_file *f = atomic_load(&known[i]);
        if (f)
            unlink_ours(f);
    }
}
