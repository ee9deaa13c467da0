/* SPDX-License-Identifier: MIT */
/*
 * Property tables: one row is one option. It feeds the parser, the range check, help, QMP, introspection, the manual.
 * Rows are const; an object's values live in its own struct at the row's offset.
 */
#ifndef CORE_PROP_H
#define CORE_PROP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/str.h"

struct obj;

enum prop_type {
    PROP_T_BOOL,            /* bool */
    PROP_T_BIT,             /* bit @bit of a uint64_t */
    PROP_T_TRI,             /* enum tri: on, off, auto */
    PROP_T_U8, PROP_T_U16, PROP_T_U32, PROP_T_U64, PROP_T_S32, PROP_T_S64,
    PROP_T_SIZE32,          /* uint32_t bytes; suffixes */
    PROP_T_SIZE,            /* uint64_t bytes; suffixes */
    PROP_T_STR,             /* char *, owned by the object */
    PROP_T_ENUM,            /* int; @of is a NULL-terminated array of names, value is the index */
    PROP_T_MAC,             /* uint8_t[6]; all zero means "choose one" */
    PROP_T_UUID,            /* uint8_t[16] */
    PROP_T_PCI_ADDR,        /* int32_t devfn: `addr=SLOT[.FN]`, hex as QEMU; -1 means "next free" */
    PROP_T_LINK,            /* struct obj *, a counted reference; @of is the base obj_class of what it may name */
    PROP_T_STRV,            /* char **, NULL-terminated; given as list or as one string with ':' between */
    PROP_T_JSON,            /* json_t *, owned reference, checked by the owner */
    PROP_T_INCLUDE,         /* the rows of @of (a struct prop table) with @off added to theirs */
};

enum tri { TRI_AUTO, TRI_ON, TRI_OFF };

enum {
    PF_REQUIRED = 1 << 0,
    PF_RUNTIME = 1 << 1,    /* may be set after realize (qom-set) */
    PF_POW2 = 1 << 2,
    PF_DEPRECATED = 1 << 3, /* accepted with a warning that repeats the doc */
    PF_HEX = 1 << 4,        /* shown in hex */
    PF_READONLY = 1 << 5,   /* shown, never set */
    PF_HIDDEN = 1 << 6,     /* accepted for compatibility, not in help */
    PF_PORT = 1 << 8,       /* a string that is a TCP or UDP port: its number or the name of its service */
    PF_NAMES = 1 << 7,      /* a string that names an object of the class in .of, which it does not hold as a LINK does */
};

struct prop {
    const char *name;       /* as typed */
    const char *doc;        /* one sentence for a user; mandatory */
    enum prop_type type;
    uint16_t flags, bit;
    uint32_t off;           /* offset of the value in the object */
    uint64_t def, min, max; /* default (PROP_T_S*: as int64_t; PROP_T_STR: const char *); min = max = 0: the type's range */
    const void *of;
    /* After the value was stored; may refuse it (the old value comes back). Only with PF_RUNTIME after realize. */
    bool (*changed)(struct obj *, const struct prop *, struct err *);
};

/* Whether the value is a number of bytes: people may write K, M, G, T. ANY. */
static inline bool prop_is_size(const struct prop *p) { return p->type == PROP_T_SIZE32 || p->type == PROP_T_SIZE; }

static inline bool prop_is_number(const struct prop *p) { return p->type >= PROP_T_U8 && p->type <= PROP_T_SIZE; }

#define PROP_OFF(T, f) .off = offsetof(T, f)
#define PROP_BOOL(T, f, n, d, ds) { .name = n, .doc = ds, .type = PROP_T_BOOL, PROP_OFF(T, f), .def = d }
#define PROP_BIT(T, f, b, n, d, ds) { .name = n, .doc = ds, .type = PROP_T_BIT, .bit = b, PROP_OFF(T, f), .def = d }
#define PROP_TRI(T, f, n, d, ds) { .name = n, .doc = ds, .type = PROP_T_TRI, PROP_OFF(T, f), .def = d }
#define PROP_NUM_(ty, T, f, n, d, lo, hi, ds) { .name = n, .doc = ds, .type = ty, PROP_OFF(T, f), .def = (uint64_t)(d), .min = (uint64_t)(lo), .max = (uint64_t)(hi) }
#define PROP_U8(...) PROP_NUM_(PROP_T_U8, __VA_ARGS__)
#define PROP_U16(...) PROP_NUM_(PROP_T_U16, __VA_ARGS__)
#define PROP_U32(...) PROP_NUM_(PROP_T_U32, __VA_ARGS__)
#define PROP_U64(...) PROP_NUM_(PROP_T_U64, __VA_ARGS__)
#define PROP_S32(...) PROP_NUM_(PROP_T_S32, __VA_ARGS__)
#define PROP_S64(...) PROP_NUM_(PROP_T_S64, __VA_ARGS__)
#define PROP_SIZE32(...) PROP_NUM_(PROP_T_SIZE32, __VA_ARGS__)
#define PROP_SIZE(...) PROP_NUM_(PROP_T_SIZE, __VA_ARGS__)
#define PROP_STR(T, f, n, fl, ds) { .name = n, .doc = ds, .type = PROP_T_STR, PROP_OFF(T, f), .flags = fl }
#define PROP_STR_DEF(T, f, n, d, ds) { .name = n, .doc = ds, .type = PROP_T_STR, PROP_OFF(T, f), .def = (uint64_t)(uintptr_t)(d) }
#define PROP_ENUM(T, f, n, names, d, ds) { .name = n, .doc = ds, .type = PROP_T_ENUM, PROP_OFF(T, f), .of = names, .def = d }
#define PROP_MAC(T, f, n, ds) { .name = n, .doc = ds, .type = PROP_T_MAC, PROP_OFF(T, f) }
#define PROP_UUID(T, f, n, ds) { .name = n, .doc = ds, .type = PROP_T_UUID, PROP_OFF(T, f) }
#define PROP_LINK(T, f, n, cls, fl, ds) { .name = n, .doc = ds, .type = PROP_T_LINK, PROP_OFF(T, f), .of = cls, .flags = fl }
#define PROP_STRV(T, f, n, ds) { .name = n, .doc = ds, .type = PROP_T_STRV, PROP_OFF(T, f) }
#define PROP_JSON(T, f, n, fl, ds) { .name = n, .doc = ds, .type = PROP_T_JSON, PROP_OFF(T, f), .flags = fl }
#define PROP_INCLUDE(T, f, table) { .name = "", .doc = "", .type = PROP_T_INCLUDE, PROP_OFF(T, f), .of = table }
#define PROP_END { .name = NULL }

/* Walks a table with its includes: fills @out with row @i, its offset made absolute. False after the last. ANY. */
bool prop_nth(const struct prop *table, size_t i, struct prop *out);
/* The row named @name, or false. ANY. */
bool prop_find(const struct prop *table, const char *name, struct prop *out);
/* Defaults into @base (zeroed before). ANY. */
void prop_defaults(const struct prop *table, void *base);
/*
 * One value from text or JSON, range-checked. @o is the object that LINKs and `changed` are resolved against, or NULL
 * for plain argument structs. The message says what is allowed; the caller prefixes the place.
 */
bool prop_set(const struct prop *p, void *base, struct obj *o, json_t *v, struct err *e) MUST_CHECK;
/*
 * Every key of @opts (an object; nested objects are met as dotted names, except where the row is PROP_T_JSON) into @base.
 * Unknown keys, repeated keys and missing PF_REQUIRED rows are errors; @what ("device 'nvme'") is named in them.
 */
bool prop_set_all(const struct prop *table, void *base, struct obj *o, json_t *opts, const char *what, struct err *e) MUST_CHECK;
/* Whether @v is of the row's own JSON type, as a program has to give it; a person's numbers and switches are text. ANY. */
bool prop_typed(const struct prop *p, json_t *v, struct err *e) MUST_CHECK;
/* The value as a person reads it / as JSON (new reference). */
void prop_format(const struct prop *p, const void *base, const struct obj *o, struct str *out);
json_t *prop_to_json(const struct prop *p, const void *base, const struct obj *o);
/* Frees owned values (strings, links, JSON). */
void prop_release(const struct prop *table, void *base);
/* "uint32 (1..65535, default 64)" etc. for help and docs. */
void prop_describe_type(const struct prop *p, struct str *out);

#endif
