/* SPDX-License-Identifier: MIT */
/* Files of guest memory. */
#ifndef CTL_QMP_MEMORY_H
#define CTL_QMP_MEMORY_H

#include <stddef.h>

/* All @n bytes at @data, by a worker. 0, or -errno. Coroutine. */
int co_write_whole(int fd, const void *data, size_t n);

#endif
