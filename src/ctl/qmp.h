/* SPDX-License-Identifier: MIT */
/* What the files of the QMP server share. Main loop. */
#ifndef CTL_QMP_H
#define CTL_QMP_H

#include <jansson.h>
#include "core/cmd.h"

/* The command of that name, NULL if there is none. */
const struct qmp_cmd *qmp_cmd_find(const char *name);
/* Why QEMU's command of that name is not here; NULL: it is none of those. */
const char *qmp_absent(const char *name);
/* Runs @c with @arguments (borrowed; not NULL), whose values may be text, as the other monitor has them. NULL with @e filled. CO, main loop. */
json_t *co_qmp_call(const struct qmp_cmd *c, json_t *arguments, struct err *e);
/* {"qemu": {...}, "package": ...}: the version of QEMU's protocol that is spoken, and ours. New reference. */
json_t *qmp_version(void);
/* Sends to every session that has negotiated; takes over @event. */
void qmp_broadcast(json_t *event);
/* Lets the machine run again; refuses where it must be reset first. */
bool ctl_cont(struct err *e) MUST_CHECK;
/* The oldest descriptor that came with what the running command's monitor read; -1: none. Before the command first waits. */
int qmp_take_fd(void);
/* Events go to the sessions from now on: there is one. */
void qmp_events_init(void);

#endif
