/* SPDX-License-Identifier: MIT */
/* "pr-manager-helper": a program with more rights that executes persistent reservation commands (host_device, pr-manager=). */
#ifndef BLOCK_PR_HELPER_H
#define BLOCK_PR_HELPER_H

#include "block/blk.h"

extern const struct obj_class pr_helper_class;

/* A command that belongs to the helper: PERSISTENT RESERVE IN and OUT. */
bool pr_helper_wants(const struct blk_scsi *c);
/* Has @helper execute @c on the open device @fd. 0: the answer is in @c; else -errno. Coroutine; waits on a worker. */
int co_pr_helper_run(struct obj *helper, int fd, struct blk_scsi *c);

#endif
