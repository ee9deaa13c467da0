/* SPDX-License-Identifier: MIT */
/* Small files that are replaced as a whole, so that a crash leaves the old content or the new. Thread: ANY; blocks on the disk. */
#ifndef BASE_FILE_REPLACE_H
#define BASE_FILE_REPLACE_H

#include <stddef.h>
#include "base/err.h"

/*
 * Makes @path have the @len bytes at @data: they are written to PATH.new and synced, that takes the place of @path, and the folder
 * is synced. 0 or -errno; then @path is as it was, unless only the folder could not be synced.
 */
int file_replace(const char *path, const void *data, size_t len) MUST_CHECK;
/* Whether file_replace() could begin on @path: better asked at start than found out at the first change. @what is for the message. */
bool file_replace_possible(const char *path, const char *what, struct err *e) MUST_CHECK;

#endif
