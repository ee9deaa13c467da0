/* SPDX-License-Identifier: MIT */
/*
 * Cuts a stream of bytes into JSON values, in linear time and bounded memory, whatever the peer sends. Strings in single
 * quotes are turned into ordinary ones. A byte 0xff, which JSON text cannot hold, makes the reader start afresh. Thread: ANY.
 */
#ifndef CTL_JFRAME_H
#define CTL_JFRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/str.h"

#define JFRAME_MAX_BYTES (16u << 20)    /* of one value */
#define JFRAME_MAX_DEPTH 1000u

struct jframe {
    struct str buf;             /* the value so far, without the white space before it */
    unsigned depth;
    uint8_t quote;              /* ' or " while inside a string */
    bool escape;                /* after a backslash */
    bool skip, skip_line;       /* after an error: dropping what comes before the next value or line; before the next line only */
    /* One whole object or array, terminated; or NULL with @error, a sentence. */
    void (*value)(void *arg, const char *text, size_t len, const char *error);
    void *arg;
};

void jframe_feed(struct jframe *f, const uint8_t *p, size_t n);
/* Forgets what was begun. */
void jframe_reset(struct jframe *f);
void jframe_free(struct jframe *f);

#endif
