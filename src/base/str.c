/* SPDX-License-Identifier: MIT */
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bits.h"

static void out_of_memory(void)
{
    fputs("backplane: out of memory\n", stderr);
    abort();
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);

    if (!p)
        out_of_memory();
    return p;
}

void *xrealloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p)
        out_of_memory();
    return p;
}

char *xstrndup(const char *s, size_t n)
{
    char *d = strndup(s, n);

    if (!d)
        out_of_memory();
    return d;
}

char *xstrdup(const char *s)
{
    return s ? xstrndup(s, strlen(s)) : NULL;
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    char *s;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0)
        out_of_memory();
    return s;
}

static void str_room(struct str *b, size_t more)
{
    if (b->cap - b->len > more)
        return;
    b->cap = MAX(b->cap * 2, b->len + more + 1);
    b->cap = MAX(b->cap, (size_t)64);
    b->s = xrealloc(b->s, b->cap);
}

void str_addn(struct str *b, const void *s, size_t n)
{
    str_room(b, n);
    if (n)
        memcpy(b->s + b->len, s, n);
    b->len += n;
    b->s[b->len] = '\0';
}

void str_add(struct str *b, const char *s)
{
    str_addn(b, s, strlen(s));
}

void str_vprintf(struct str *b, const char *fmt, va_list ap)
{
    va_list ap2;
    int n;

    va_copy(ap2, ap);
    n = vsnprintf(NULL, 0, fmt, ap2);
    va_end(ap2);
    if (n <= 0)
        return;
    str_room(b, (size_t)n);
    vsnprintf(b->s + b->len, (size_t)n + 1, fmt, ap);
    b->len += (size_t)n;
}

void str_printf(struct str *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    str_vprintf(b, fmt, ap);
    va_end(ap);
}

void str_free(struct str *b)
{
    free(b->s);
    *b = (struct str){ 0 };
}

char *str_take(struct str *b)
{
    char *s = b->s ? b->s : xstrdup("");

    *b = (struct str){ 0 };
    return s;
}

bool str_starts(const char *s, const char *prefix)
{
    return !strncmp(s, prefix, strlen(prefix));
}

bool str_eq(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

bool str_in_list(const char *s, const char *const *list)
{
    for (; list && *list; list++)
        if (!strcmp(s, *list))
            return true;
    return false;
}

bool parse_u64(const char *s, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)*s))
        return false;
    errno = 0;
    *out = strtoull(s, &end, s[0] == '0' && (s[1] == 'x' || s[1] == 'X') ? 16 : 10);
    return !errno && !*end && !(end[-1] == 'x' || end[-1] == 'X');
}

bool parse_s64(const char *s, int64_t *out)
{
    uint64_t v;
    bool neg = *s == '-';

    if (!parse_u64(s + neg, &v) || v > (uint64_t)INT64_MAX + neg)
        return false;
    *out = neg ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static bool unit_of_suffix(const char *suffix, uint64_t unit, uint64_t *mul)
{
    static const char letters[] = "BKMGTPE";
    const char *at;

    if (!*suffix) {
        *mul = unit;
        return true;
    }
    at = strchr(letters, toupper((unsigned char)*suffix));
    if (!at || !*at)
        return false;
    suffix++;
    if (at != letters && !strcasecmp(suffix, "ib"))
        suffix += 2;
    if (*suffix)
        return false;
    *mul = UINT64_C(1) << (10 * (unsigned)(at - letters));
    return true;
}

bool parse_size(const char *s, uint64_t unit, uint64_t *out)
{
    uint64_t whole, mul, part = 0, scale = 1;
    char *end;

    if (!isdigit((unsigned char)*s))
        return false;
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        if (!parse_u64(s, &whole))
            return false;
        return !__builtin_mul_overflow(whole, unit, out);
    }
    errno = 0;
    whole = strtoull(s, &end, 10);
    if (errno)
        return false;
    if (*end == '.') {
        for (end++; isdigit((unsigned char)*end); end++)
            if (scale < UINT64_C(1000000000)) {
                part = part * 10 + (uint64_t)(*end - '0');
                scale *= 10;
            }
    }
    if (!unit_of_suffix(end, unit, &mul) || (part && mul == 1))
        return false;
    if (__builtin_mul_overflow(whole, mul, out))
        return false;
    return !__builtin_add_overflow(*out, (uint64_t)((unsigned __int128)part * mul / scale), out);
}

int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool parse_bool(const char *s, bool *out)
{
    static const char *const yes[] = { "on", "yes", "true", "y", NULL }, *const no[] = { "off", "no", "false", "n", NULL };

    *out = str_in_list(s, yes);
    return *out || str_in_list(s, no);
}

const char *format_size(uint64_t v, char buf[32])
{
    static const char *const unit[] = { "", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB" };
    unsigned u = 0;

    while (v && u < ARRAY_SIZE(unit) - 1 && v % 1024 == 0) {
        v /= 1024;
        u++;
    }
    snprintf(buf, 32, "%" PRIu64 "%s", v, unit[u]);
    return buf;
}
