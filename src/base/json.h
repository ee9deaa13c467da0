/* SPDX-License-Identifier: MIT */
/* JSON text to values, with all numbers of 64 bits. Thread: ANY. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * As json_loadb(). A whole number from 2^63 to 2^64-1 (an address of a kernel, an EUI-64), which jansson has no value for, becomes the
 * string of its digits. New reference, or NULL with @je filled.
 */
json_t *json_parse(const char *text, size_t len, size_t flags, json_error_t *je);
/* Whether @v is a number that json_parse() made a string of. */
bool json_is_large(const json_t *v);

#endif
