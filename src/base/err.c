/* SPDX-License-Identifier: MIT */
#include "base/err.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/harmless.h"
#include "base/log.h"

static void err_vset(struct err *e, enum err_class cls, int os_errno, const char *fmt, va_list ap)
{
    char msg[sizeof e->msg];

    vsnprintf(msg, sizeof msg, fmt, ap);        /* arguments may point into *e */
    text_harmless(msg);
    e->cls = cls;
    e->os_errno = os_errno;
    e->hint[0] = '\0';
    memcpy(e->msg, msg, sizeof msg);
}

bool err_set(struct err *e, enum err_class cls, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    err_vset(e, cls, 0, fmt, ap);
    va_end(ap);
    return false;
}

bool err_os(struct err *e, int os_errno, const char *fmt, ...)
{
    va_list ap;
    size_t n;

    va_start(ap, fmt);
    err_vset(e, ERR_OS, os_errno, fmt, ap);
    va_end(ap);
    n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", strerror(os_errno));
    return false;
}

bool err_hint(struct err *e, const char *fmt, ...)
{
    char hint[sizeof e->hint];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(hint, sizeof hint, fmt, ap);
    text_harmless(hint);
    va_end(ap);
    memcpy(e->hint, hint, sizeof hint);
    return false;
}

bool err_prefix(struct err *e, const char *fmt, ...)
{
    char place[sizeof e->msg], whole[2 * sizeof e->msg + 2];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(place, sizeof place, fmt, ap);
    text_harmless(place);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s: %s", place, e->msg);
    snprintf(e->msg, sizeof e->msg, "%.*s", (int)sizeof e->msg - 1, whole);
    return false;
}

void err_print(const struct err *e)
{
    log_put_prefix();
    fprintf(stderr, "%s\n", e->msg);
    if (e->hint[0])
        fprintf(stderr, "hint: %s\n", e->hint);
}

/*
 * Edit distance with transpositions (optimal string alignment), case-blind, '_' and '-' alike; gives up past @limit.
 */
static unsigned edit_distance(const char *a, const char *b, unsigned limit)
{
    enum { MAXLEN = 64 };
    unsigned rows[3][MAXLEN + 1];
    size_t la = strlen(a), lb = strlen(b);
    char pa = 0;

    if (la > MAXLEN || lb > MAXLEN || (la > lb ? la - lb : lb - la) > limit)
        return limit + 1;
    for (size_t j = 0; j <= lb; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned *cur = rows[i % 3], *prev = rows[(i - 1) % 3], *prev2 = rows[(i + 1) % 3];
        char ca = a[i - 1] == '_' ? '-' : (char)tolower((unsigned char)a[i - 1]), pb = 0;

        cur[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            char cb = b[j - 1] == '_' ? '-' : (char)tolower((unsigned char)b[j - 1]);
            unsigned d = prev[j - 1] + (ca != cb);

            d = MIN(d, prev[j] + 1);
            d = MIN(d, cur[j - 1] + 1);
            if (i > 1 && j > 1 && ca == pb && pa == cb)
                d = MIN(d, prev2[j - 2] + 1);
            cur[j] = d;
            pb = cb;
        }
        pa = ca;
    }
    return rows[la % 3][lb];
}

const char *err_nearest(const char *got, err_name_fn next, const void *table)
{
    unsigned limit = strlen(got) <= 3 ? 1 : strlen(got) <= 7 ? 2 : 3, best = limit + 1;
    const char *found = NULL, *name;

    for (size_t i = 0; (name = next(table, i)); i++) {
        unsigned d = edit_distance(got, name, limit);

        if (d < best) {
            best = d;
            found = name;
        }
    }
    /* A name typed in part ("e1000" for "e1000e", "nv" for "nvme") is near too, if it says enough. */
    for (size_t i = 0; !found && strlen(got) >= 2 && (name = next(table, i)); i++)
        if (!strncasecmp(got, name, strlen(got)))
            found = name;
    return found;
}

bool err_unknown(struct err *e, const char *what, const char *got, const char *suffix, err_name_fn next,
                 const void *table)
{
    const char *near = next ? err_nearest(got, next, table) : NULL;

    err_set(e, ERR_UNKNOWN, "unknown %s '%s'%s", what, got, suffix ? suffix : "");
    if (near)
        err_hint(e, "did you mean '%s'?", near);
    return false;
}
