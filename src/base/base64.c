/* SPDX-License-Identifier: MIT */
#include "base/base64.h"

#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const uint8_t *p, size_t n, struct str *out)
{
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        char four[4] = { digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '=' };
        str_addn(out, four, 4);
    }
}

static int value_of(char c)
{
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

bool base64_decode(const char *text, uint8_t *out, size_t room, size_t *n)
{
    size_t len = strlen(text), pad = len && text[len - 1] == '=' ? len > 1 && text[len - 2] == '=' ? 2 : 1 : 0;
    *n = len / 4 * 3 - pad;
    if (len % 4 || *n > room)
        return false;
    for (size_t i = 0, at = 0; i < len; i += 4) {
        uint32_t v = 0;
        for (size_t k = 0; k < 4; k++) {
            int d = i + k >= len - pad ? 0 : value_of(text[i + k]);
            if (d < 0)
                return false;
            v = v << 6 | (uint32_t)d;
        }
        for (unsigned k = 0; k < 3 && at < *n; k++)
            out[at++] = (uint8_t)(v >> (16 - 8 * k));
    }
    return true;
}
