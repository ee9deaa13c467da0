/* SPDX-License-Identifier: MIT */
/*
 * File descriptors that others hand to us: sets of them, which stand for a file's name "/dev/fdset/N" (-add-fd, QMP add-fd), and single
 * ones with names (QMP getfd). Main thread, but for fdset_open().
 */
#ifndef BASE_FDSET_H
#define BASE_FDSET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/err.h"

/* Puts @fd, now ours, into set @set (-1: a new one). Returns the set; -1 with @e filled, then @fd stays the caller's. */
int64_t fdset_add(int64_t set, int fd, const char *opaque, struct err *e);
/* Takes a descriptor (@fd -1: all) out of a set and closes it. */
bool fdset_remove(int64_t set, int fd, struct err *e) MUST_CHECK;
/* Every descriptor, sets in order. */
void fdset_each(void (*fn)(void *arg, int64_t set, int fd, const char *opaque), void *arg);
/*
 * As open(2), always close-on-exec. "/dev/fdset/N" is answered with a copy of the descriptor in that set whose access mode is that of
 * @flags, or one for reading and writing; -1 with errno EACCES if it has none, ENOENT if there is no such set. ANY.
 */
int fdset_open(const char *path, int flags, mode_t mode);

/* Keeps @fd under @name; an older one of that name is closed. */
void fd_name_set(const char *name, int fd);
/* Closes it; false if there is none. */
bool fd_name_close(const char *name);
/* What `fd=TEXT` means: a number, or a name whose descriptor is taken out and is the caller's. -1 with @e filled. */
int fd_take(const char *text, struct err *e);

#endif
