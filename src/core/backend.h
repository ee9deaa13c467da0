/* SPDX-License-Identifier: MIT */
/*
 * Types of back ends. The class "chardev-socket" is typed as "socket" on the command line: the base class's name and a dash
 * are left out, because "socket" and "file" mean other things elsewhere. Main loop.
 */
#ifndef CORE_BACKEND_H
#define CORE_BACKEND_H

#include "core/obj.h"

/* "socket" of "chardev-socket". */
const char *backend_type(const struct obj_class *base, const struct obj_class *c);
/* The class of @type or one of its aliases; else NULL and an error with the nearest name, or why this build lacks it (rows of obj_absent). */
const struct obj_class *backend_find(const struct obj_class *base, const char *type, struct err *e);
/* Every type with one line of text. */
void backend_help_types(const struct obj_class *base, const char *title, struct str *out);
/* Where a person finds the types, for programs without an option for each kind: said with names that do not exist. Borrowed. */
void backend_types_are_at(const char *hint);
/* The options of one type. */
void backend_help_type(const struct obj_class *base, const struct obj_class *c, struct str *out);

#endif
