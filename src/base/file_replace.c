/* SPDX-License-Identifier: MIT */
#include "base/file_replace.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/str.h"

static int write_all(int fd, const char *p, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, p + at, len - at);

        if (n < 0 && errno != EINTR)
            return -errno;
        at += n > 0 ? (size_t)n : 0;
    }
    return fsync(fd) ? -errno : 0;
}

/* The new name is on the disk only when the folder that holds it is. */
static int sync_folder_of(const char *path)
{
    char *copy = xstrdup(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC), e = fd < 0 ? -errno : 0;

    if (fd >= 0 && fsync(fd) && errno != EINVAL)        /* EINVAL: a file system without such a thing */
        e = -errno;
    if (fd >= 0)
        close(fd);
    free(copy);
    return e;
}

int file_replace(const char *path, const void *data, size_t len)
{
    char *tmp = xasprintf("%s.new", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), e = fd < 0 ? -errno : write_all(fd, data, len);

    if (fd >= 0 && close(fd) && !e)
        e = -errno;
    if (!e && rename(tmp, path))
        e = -errno;
    if (e && fd >= 0)
        unlink(tmp);
    free(tmp);
    return e ? e : sync_folder_of(path);
}

bool file_replace_possible(const char *path, const char *what, struct err *e)
{
    char *tmp = xasprintf("%s.new", path);
    int fd = *path ? open(tmp, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1, why = *path ? errno : ENOENT;

    if (fd >= 0) {
        close(fd);
        unlink(tmp);
    }
    free(tmp);
    return fd >= 0 || err_os(e, why, "%s '%s' cannot be written", what, path);
}
