/* SPDX-License-Identifier: MIT */
/*
 * Names in the file system that must not outlive the process: sockets that it listens on, the pid file, links to
 * terminals. Who makes one registers it; it is unlinked when its owner is taken down, and on every other way out too, a
 * signal during start-up included. Another process's file that took the name meanwhile is left alone.
 */
#ifndef BASE_EXIT_FILE_H
#define BASE_EXIT_FILE_H

#include <signal.h>

struct exit_file;

/* The signals that end the process: SIGTERM, SIGINT, SIGHUP. */
sigset_t exit_signals(void);
/*
 * Around making a file and registering it: keeps exit_signals() from the calling
 * thread, so that none comes between the two; exit_files_release() puts back what was blocked @before. Nests.
 */
void exit_files_hold(sigset_t *before);
void exit_files_release(const sigset_t *before);

/* The file, socket or link @path exists and is ours. NULL (nothing to remove later) if it is gone or too many are known. ANY. */
struct exit_file *exit_file_new(const char *path);
/* Makes the symbolic link @path to @target and registers it; NULL with errno set. Main thread. */
struct exit_file *exit_link_new(const char *target, const char *path);
/* Unlinks it and forgets it; NULL is fine. ANY. */
void exit_file_remove(struct exit_file *f);
/* It stays for good: forgets it; NULL is fine. ANY. */
void exit_file_keep(struct exit_file *f);
/* Unlinks all of them. Async-signal-safe. */
void exit_files_unlink(void);

#endif
