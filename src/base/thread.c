/* SPDX-License-Identifier: MIT */
#include "base/thread.h"

#include <signal.h>
#include <stdio.h>
#include "base/bits.h"

int thread_start(pthread_t *t, const char *name, void *(*fn)(void *), void *arg)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS };
    char shown[16];
    sigset_t block, before;
    sigfillset(&block);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
        sigdelset(&block, faults[i]);
    pthread_sigmask(SIG_SETMASK, &block, &before);      /* the new thread begins with our mask */
    int failed = pthread_create(t, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) {
        snprintf(shown, sizeof shown, "%s", name);
        pthread_setname_np(*t, shown);
    }
    return failed;
}
