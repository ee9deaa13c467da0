/* SPDX-License-Identifier: MIT */
/* Strings, growing text buffers, numbers as people type them. Thread: ANY. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdarg.h>
#include "base/err.h"

/* Allocation that aborts on failure: for small things of fixed size. What guest, image or peer sizes uses calloc. */
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);                       /* NULL stays NULL */
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
#define xnew(type) ((type *)xcalloc(1, sizeof(type)))

/* A growing text; zero-initialised is empty. @s is always terminated once something was added. */
struct str { char *s; size_t len, cap; };
void str_add(struct str *b, const char *s);
void str_addn(struct str *b, const void *s, size_t n);
void str_printf(struct str *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void str_vprintf(struct str *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
void str_free(struct str *b);
char *str_take(struct str *b);                      /* the caller frees; never NULL */

bool str_starts(const char *s, const char *prefix);
bool str_eq(const char *a, const char *b);          /* NULL equals NULL only */
bool str_in_list(const char *s, const char *const *list);   /* NULL-terminated list */

/* A decimal, 0x or 0 number, the whole of @s. */
bool parse_u64(const char *s, uint64_t *out) MUST_CHECK;
bool parse_s64(const char *s, int64_t *out) MUST_CHECK;
/* Bytes with an optional suffix B K M G T P E (powers of 1024) and fraction; without suffix times @unit. */
bool parse_size(const char *s, uint64_t unit, uint64_t *out) MUST_CHECK;
int hex_digit(char c);                              /* its value; -1: it is none */
bool parse_bool(const char *s, bool *out) MUST_CHECK;       /* on/off yes/no true/false y/n */
/* "1 KiB", "64 MiB", "17" — exact; @buf of 32 bytes. */
const char *format_size(uint64_t v, char buf[32]);

#endif
