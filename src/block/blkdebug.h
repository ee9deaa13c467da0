/* SPDX-License-Identifier: MIT */
/* The rules of blkdebug in a file. */
#ifndef BLOCK_BLKDEBUG_H
#define BLOCK_BLKDEBUG_H

#include <jansson.h>
#include "base/err.h"

enum { BLKDEBUG_RULES = 64 };

/*
 * Calls @rule for each section of the file @path: "[inject-error]" or "[set-state]" (@set_state), lines KEY = "VALUE" as an object.
 * '#' begins a comment. Waits for the file: called in a worker.
 */
bool blkdebug_read_config(const char *path, bool (*rule)(void *arg, bool set_state, json_t *opts, struct err *e), void *arg, struct err *e) MUST_CHECK;

#endif
