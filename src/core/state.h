/* SPDX-License-Identifier: MIT */
/*
 * Saved state as tables: a snapshot of a device is a map of named fields, so order and additions do not matter, and every
 * loaded value is bounded before it is used. Thread: the machine is stopped, nothing is in flight (design: rule 10).
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/str.h"

enum st_kind {
    ST_BOOL, ST_U8, ST_U16, ST_U32, ST_U64, ST_S32, ST_S64,
    ST_BYTES,           /* @size bytes as they are */
    ST_STRUCT,          /* embedded struct described by @sub, @size bytes each */
    ST_PTR_STRUCT,      /* pointer to @count structs of @size (allocated by realize), described by @sub */
    ST_PTR_BYTES,       /* pointer to @count_off-many bytes, allocated by realize to @max */
    ST_CUSTOM,          /* @custom saves and loads it */
    ST_SKIP,            /* named, not saved: @why says why (host resources, derived values) */
};

struct state_custom {
    void (*save)(const void *obj, struct str *out);
    bool (*load)(void *obj, const void *data, size_t len, struct err *e);
};

struct state_field {
    const char *name;
    enum st_kind kind;
    uint32_t off, size;         /* of one element */
    uint32_t count;             /* elements; 1 for a scalar */
    uint32_t count_off;         /* offset of a uint32_t that holds the live count, 0: none (count is fixed) */
    uint64_t max;               /* largest value that is valid, 0: no bound but the type's */
    const struct state_desc *sub;
    const struct state_custom *custom;
    const char *why;
    unsigned since;             /* first version of the description that has it */
};

struct state_desc {
    const char *name;
    unsigned version;
    const struct state_field *fields;           /* ends with a NULL name */
    bool (*post_load)(void *obj, struct err *); /* cross-checks, recompute derived values; may refuse */
    void (*pre_save)(void *obj);
};

#define ST_(k, T, f, ...) { .name = #f, .kind = k, .off = offsetof(T, f), .size = sizeof(((T *)0)->f), .count = 1, __VA_ARGS__ }
/* A scalar whose width is that of the member. */
#define STATE_UINT(T, f, ...) { .name = #f, .off = offsetof(T, f), .size = sizeof(((T *)0)->f), .count = 1,             \
        .kind = sizeof(((T *)0)->f) == 1 ? ST_U8 : sizeof(((T *)0)->f) == 2 ? ST_U16 : sizeof(((T *)0)->f) == 4 ? ST_U32 : ST_U64, __VA_ARGS__ }
#define STATE_BOOL(T, f) ST_(ST_BOOL, T, f)
#define STATE_ARRAY(T, f, ...) { .name = #f, .off = offsetof(T, f), .size = sizeof(((T *)0)->f[0]), .count = sizeof(((T *)0)->f) / sizeof(((T *)0)->f[0]), \
        .kind = sizeof(((T *)0)->f[0]) == 1 ? ST_U8 : sizeof(((T *)0)->f[0]) == 2 ? ST_U16 : sizeof(((T *)0)->f[0]) == 4 ? ST_U32 : ST_U64, __VA_ARGS__ }
#define STATE_BYTES(T, f) ST_(ST_BYTES, T, f)
#define STATE_STRUCT(T, f, d) ST_(ST_STRUCT, T, f, .sub = d)
#define STATE_STRUCTS(T, f, d) { .name = #f, .kind = ST_STRUCT, .off = offsetof(T, f), .size = sizeof(((T *)0)->f[0]), .count = sizeof(((T *)0)->f) / sizeof(((T *)0)->f[0]), .sub = d }
#define STATE_CUSTOM(T, f, c) ST_(ST_CUSTOM, T, f, .custom = c)
#define STATE_SKIP(T, f, reason) ST_(ST_SKIP, T, f, .why = reason)
#define STATE_END { .name = NULL }

/* Appends the fields of @obj to @out (self-describing, little endian). */
void state_save(const struct state_desc *d, void *obj, struct str *out);
/* Reads what state_save wrote; unknown fields are refused by name, missing ones keep their value if newer than the data. */
bool state_load(const struct state_desc *d, void *obj, const void *data, size_t len, struct err *e) MUST_CHECK;
/* Test aid: fills every saved field with a pattern within its bounds. */
void state_scramble(const struct state_desc *d, void *obj, uint32_t seed);
/* Test aid: true if some bytes of [from, size) are covered by no field (padding aside); @gap_off is the first of them. */
bool state_gap(const struct state_desc *d, uint32_t from, uint32_t size, uint32_t *gap_off);

#endif
