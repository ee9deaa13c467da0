/* SPDX-License-Identifier: MIT */
/* How every thread but the first is started. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/*
 * Starts a thread that ps shows as @name (15 bytes are shown). No signal reaches it but those that an instruction of its own raises:
 * the others are the main thread's, which alone knows when the process may end. 0, or an errno. ANY.
 */
int thread_start(pthread_t *t, const char *name, void *(*fn)(void *), void *arg);

#endif
