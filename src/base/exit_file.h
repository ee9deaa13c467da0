/* SPDX-License-Identifier: MIT */
/*
 * Names in the file system that must not outlive the process: sockets that it listens on, the pid file, links to
 * terminals. Who makes one registers it; it is unlinked when its owner is taken down, and on every other way out too, a
 * signal during start-up included. Another process's file that took the name meanwhile is left alone.
 */
#ifndef BASE_EXIT_FILE_H
#define BASE_EXIT_FILE_H

struct exit_file;

/* The file, socket or link @path exists and is ours. NULL (nothing to remove later) if it is gone or too many are known. ANY. */
struct exit_file *exit_file_new(const char *path);
/* Unlinks it and forgets it; NULL is fine. ANY. */
void exit_file_remove(struct exit_file *f);
/* Unlinks all of them. Async-signal-safe. */
void exit_files_unlink(void);

#endif
