/* SPDX-License-Identifier: MIT */
/* Expressions of the monitor for a person: by descent, 64 bits without sign, as C ranks the operators. */
#include "ctl/hmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "core/debug.h"

enum { DEPTH_MAX = 64 };

struct expr { const char *at; unsigned depth; const char *error; };

static uint64_t parse_binary(struct expr *x, unsigned rank);

static void blanks(struct expr *x) { x->at += strspn(x->at, " "); }

static uint64_t fail(struct expr *x, const char *why)
{
    if (!x->error)
        x->error = why;
    return 0;
}

static uint64_t parse_register(struct expr *x)
{
    char name[24];
    size_t n = strspn(x->at, "abcdefghijklmnopqrstuvwxyz0123456789_");
    uint8_t bytes[32] = { 0 };
    snprintf(name, sizeof name, "%.*s", (int)MIN(n, sizeof name - 1), x->at);
    x->at += n;
    if (!debug_ops)
        return fail(x, "this machine has no CPU that runs");
    int reg = debug_ops->reg_named(hmp_cpu, name);
    return reg >= 0 && debug_ops->reg_read(hmp_cpu, (unsigned)reg, bytes) ? ld_le64(bytes) : fail(x, "no such register");
}

static uint64_t parse_unary(struct expr *x)
{
    blanks(x);
    char c = *x->at;
    if (++x->depth > DEPTH_MAX)
        return fail(x, "too deep");
    uint64_t v = 0;
    if (c == '-' || c == '+' || c == '~') {
        x->at++;
        v = parse_unary(x);
        v = c == '-' ? -v : c == '~' ? ~v : v;
    } else if (c == '(') {
        x->at++;
        v = parse_binary(x, 0);
        blanks(x);
        if (*x->at++ != ')') {
            x->at--;
            fail(x, "')' is missing");
        }
    } else if (c == '$') {
        x->at++;
        v = parse_register(x);
    } else if (c == '\'' && x->at[1] && x->at[2] == '\'') {
        v = (uint8_t)x->at[1];
        x->at += 3;
    } else if (c >= '0' && c <= '9') {
        char *end;
        errno = 0;
        v = strtoull(x->at, &end, 0);
        x->at = end;
        if (errno)
            fail(x, "the number has more than 64 bits");
    } else {
        fail(x, "a number or $REGISTER is missing");
    }
    x->depth--;
    return v;
}

/* Operators by rank: those of the first bind loosest. */
static const char *const ranks[] = { "|", "^", "&", "+-", "*/%" };

static uint64_t apply(struct expr *x, char op, uint64_t a, uint64_t b)
{
    if ((op == '/' || op == '%') && !b)
        return fail(x, "division by zero");
    switch (op) {
    case '|': return a | b;
    case '^': return a ^ b;
    case '&': return a & b;
    case '+': return a + b;
    case '-': return a - b;
    case '*': return a * b;
    case '/': return a / b;
    default: return a % b;
    }
}

static uint64_t parse_binary(struct expr *x, unsigned rank)
{
    if (rank == ARRAY_SIZE(ranks))
        return parse_unary(x);
    uint64_t v = parse_binary(x, rank + 1);
    for (blanks(x); *x->at && strchr(ranks[rank], *x->at) && !x->error; blanks(x)) {
        char op = *x->at++;
        v = apply(x, op, v, parse_binary(x, rank + 1));
    }
    return v;
}

bool hmp_value(const char *text, uint64_t *v, struct str *out)
{
    struct expr x = { .at = text };
    *v = parse_binary(&x, 0);
    if (!x.error && *x.at)
        x.error = "what follows is no part of an expression";
    if (x.error)
        str_printf(out, "Error: '%s': %s%s%s\n", text, x.error, *x.at ? " at " : "", x.at);
    return !x.error;
}
