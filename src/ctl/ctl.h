/* SPDX-License-Identifier: MIT */
/* From a command line to a machine and through its life. Main thread. */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "ctl/cli.h"

/*
 * For a program with options of its own: signals and the main loop, before it applies them; ctl_end() at exit. With cli_flags.daemonize
 * what returns is the process in the background, whose parent waits for ctl_begun().
 */
bool ctl_begin(struct err *e) MUST_CHECK;
/* After them: the pid file, the terminal is left, and from now on signals come through the loop, as run_request_quit(). */
bool ctl_begun(struct err *e) MUST_CHECK;

/* Builds the machine that @l describes, and everything around it. False with @e filled: the process should end. */
bool ctl_start(const struct cli_line *l, struct err *e) MUST_CHECK;
/* Runs the machine until it ends; returns the exit status of the process. */
int ctl_run(void);
/* Takes down what stands, after ctl_run() and after a failed ctl_start(); once. */
void ctl_end(void);

#endif
