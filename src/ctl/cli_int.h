/* SPDX-License-Identifier: MIT */
/* Shared by the files of option rows. */
#ifndef CTL_CLI_INT_H
#define CTL_CLI_INT_H

#include "ctl/cli.h"

/* With -daemonize: the caller is from now on the process in the background, and its parent waits. No thread may exist yet. */
bool cli_daemon_fork(struct err *e) MUST_CHECK;
/* Tells the parent of -daemonize that the machine stands, and leaves the terminal. Nothing without -daemonize. */
bool cli_daemon_ready(struct err *e) MUST_CHECK;
/* -run-with exit-with-parent=on. */
bool cli_exits_with_parent(void);
/* The name that ps shows. */
void cli_process_name(const char *name);
/* Writes what -pidfile asked for, removed when the process ends. */
bool cli_pidfile_write(struct err *e) MUST_CHECK;
/* Signals that end the program: before the main loop runs they end the process at once, afterwards through the loop. */
void cli_signals_early(void);
bool cli_signals_loop(struct err *e) MUST_CHECK;
/* From now on such a signal cuts the way out short. */
void cli_signals_end(void);

/* Whether @name is an option of QEMU's that this build has nothing for; then @e says so, and what to write in its place. */
bool cli_absent(const char *name, struct err *e);

#endif
