/* SPDX-License-Identifier: MIT */
#include "base/json.h"

#include <ctype.h>
#include <string.h>
#include "base/str.h"

/* Whether the @n characters at @s are the digits of a number from 2^63 to 2^64-1. */
static bool is_large(const char *s, size_t n)
{
    char digits[24];
    uint64_t v;
    if (n != strspn(s, "0123456789") || n >= sizeof digits || *s == '0')
        return false;
    memcpy(digits, s, n);
    digits[n] = '\0';
    return parse_u64(digits, &v) && v > INT64_MAX;
}

/* @text with each large number in quotes. */
static void quote_large(const char *text, size_t len, struct str *out)
{
    bool in_string = false;
    for (size_t i = 0, n; i < len; i += n) {
        n = 1;
        if (in_string) {
            n += text[i] == '\\' && i + 1 < len;
            in_string = text[i] != '"';
        } else if (text[i] == '"') {
            in_string = true;
        } else if (isdigit((unsigned char)text[i]) || text[i] == '-') {     /* a number, to its end */
            while (i + n < len && strchr("0123456789.eE+-", text[i + n]) && text[i + n])
                n++;
        }
        bool large = !in_string && is_large(text + i, n);
        str_add(out, large ? "\"" : "");
        str_addn(out, text + i, n);
        str_add(out, large ? "\"" : "");
    }
}

json_t *json_parse(const char *text, size_t len, size_t flags, json_error_t *je)
{
    json_t *v = json_loadb(text, len, flags, je);
    if (v || json_error_code(je) != json_error_numeric_overflow)
        return v;
    struct str quoted = { 0 };
    quote_large(text, len, &quoted);
    v = json_loadb(quoted.s, quoted.len, flags, je);
    str_free(&quoted);
    return v;
}

bool json_is_large(const json_t *v)
{
    return json_is_string(v) && is_large(json_string_value(v), json_string_length(v));
}
