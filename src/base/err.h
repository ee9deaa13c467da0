/* SPDX-License-Identifier: MIT */
/* Errors: every failing function returns false and fills a caller-owned struct, never NULL. Thread: ANY. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* What kind of mistake it is; QMP's "class" is derived from it. */
enum err_class {
    ERR_GENERIC,
    ERR_VALUE,              /* a known option with a value that is not allowed */
    ERR_UNKNOWN,            /* a name that does not exist */
    ERR_NOT_BUILT,          /* a name that exists, but this build lacks it */
    ERR_BUSY,               /* in use by something that the message names */
    ERR_OS,                 /* a system call failed; os_errno is set */
    ERR_NOT_FOUND,          /* QMP DeviceNotFound */
    ERR_NO_COMMAND,         /* QMP CommandNotFound */
    ERR_NOT_ACTIVE,         /* QMP DeviceNotActive: needs a device or back end that is not there */
    ERR_STATE,              /* not possible in the present state of the machine or object */
};

struct err {
    enum err_class cls;
    int os_errno;           /* 0, or the errno of the failing call */
    char msg[384];          /* one sentence without a final full stop: names the option, the value, what is allowed */
    char hint[256];         /* "" or what to do instead */
};

#define ERR_INIT { .cls = ERR_GENERIC }

/* Fills @e; always returns false, so that `return err_set(e, ...)` reads well. */
bool err_set(struct err *e, enum err_class cls, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As err_set with class ERR_OS; appends ": <text of os_errno>". */
bool err_os(struct err *e, int os_errno, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Sets the hint of an error already filled; returns false. */
bool err_hint(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Puts "text: " before the message (the place where it happened); returns false. */
bool err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Prints "backplane: msg" and, where there is one, "hint: ..." to standard error. */
void err_print(const struct err *e);

/* Iterates over the names that would have been right: returns the @i-th, NULL after the last. */
typedef const char *(*err_name_fn)(const void *table, size_t i);

/*
 * "unknown <what> '<got>'" and the nearest of the names that @next yields as the hint. Returns false.
 * @suffix is appended to the message (" for device 'nvme'"), may be NULL.
 */
bool err_unknown(struct err *e, const char *what, const char *got, const char *suffix, err_name_fn next,
                 const void *table);
/* The nearest name within an edit distance that a typing mistake explains; NULL if none is near. */
const char *err_nearest(const char *got, err_name_fn next, const void *table);

#endif
