/* SPDX-License-Identifier: MIT */
/* Base64 (RFC 4648, section 4). Thread: ANY. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/str.h"

void base64_encode(const uint8_t *p, size_t n, struct str *out);
/* @text, padded, into at most @room bytes; false if it is malformed or longer. */
bool base64_decode(const char *text, uint8_t *out, size_t room, size_t *n) MUST_CHECK;

#endif
