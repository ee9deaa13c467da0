/* SPDX-License-Identifier: MIT */
/* The rules of blkdebug in a file. */
#ifndef BLOCK_BLKDEBUG_H
#define BLOCK_BLKDEBUG_H

#include <jansson.h>
#include "base/err.h"

struct blk_node;

enum { BLKDEBUG_RULES = 64 };

/*
 * Calls @rule for each section of the file @path: "[inject-error]" or "[set-state]" (@set_state), lines KEY = "VALUE" as an object.
 * '#' begins a comment. Waits for the file: called in a worker.
 */
bool blkdebug_read_config(const char *path, bool (*rule)(void *arg, bool set_state, json_t *opts, struct err *e), void *arg, struct err *e) MUST_CHECK;

/*
 * Breakpoints of the node (blkdebug.c): the first request at @event stops, as often as there are breakpoints, until it is told to go on.
 * Main loop.
 */
struct blk_node *blkdebug_below(struct blk_node *n);        /* the nearest such node of what stores @n; NULL: there is none */
bool blkdebug_break(struct blk_node *n, const char *event, const char *tag, struct err *e) MUST_CHECK;
/* The first request that stopped there goes on. */
bool blkdebug_resume(struct blk_node *n, const char *tag, struct err *e) MUST_CHECK;
/* All that are called @tag are gone, and what stopped there goes on. */
bool blkdebug_remove_break(struct blk_node *n, const char *tag, struct err *e) MUST_CHECK;
/* Waits until a request stops there. Fails when the breakpoint is gone. */
bool co_blkdebug_wait_break(struct blk_node *n, const char *tag, struct err *e) MUST_CHECK;

#endif
